package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"bootlane/internal/lane"
	"bootlane/internal/store"
)

// journal is the store as control writes to it: what changed a record, or a run, is a
// line of the log too, so that a journal that somebody watches shows it. The store's
// evidence stays the truth; it also has the answers, which come by the hundred.
type journal struct {
	*store.Store
	log    *slog.Logger
	alarms *alarms
}

// alarms keeps whoever raises alarms by the thousand from filling the log.
type alarms struct {
	mu   sync.Mutex
	next time.Time
}

// between is how long the log is silent about further alarms; the evidence has them all.
const between = 10 * time.Second

// due reports whether an alarm of that time is to be logged.
func (a *alarms) due(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Before(a.next) {
		return false
	}
	a.next = now.Add(between)
	return true
}

// Append stores, then logs what was stored.
func (j journal) Append(ctx context.Context, h lane.Host, e lane.Event) (lane.Host, lane.Event, error) {
	h, e, err := j.Store.Append(ctx, h, e)
	if err == nil && e.Kind.Lasting() {
		args := []any{"host", h.ID, "state", h.State, "by", e.By}
		if e.Run != "" {
			args = append(args, "run", e.Run)
		}
		if e.Stage != "" {
			args = append(args, "stage", e.Stage)
		}
		j.log.Log(ctx, loudness(e.Kind), string(e.Kind)+": "+lane.Clean(e.Message, 300), args...)
	}
	return h, e, err
}

// AppendBundle stores, then logs what came from the registry: nobody stood there to see it.
func (j journal) AppendBundle(ctx context.Context, r lane.BundleRecord, e lane.Event) (lane.BundleRecord, error) {
	r, err := j.Store.AppendBundle(ctx, r, e)
	if err == nil && e.By == lane.ByRegistry {
		j.log.Info(lane.Clean(e.Message, 300), "digest", e.Digest)
	}
	return r, err
}

// Witness stores, and warns of what an operator has found damaged: whoever watches the log did
// not stand there.
func (j journal) Witness(ctx context.Context, e lane.Event) error {
	err := j.Store.Witness(ctx, e)
	if err == nil && e.Subject == lane.SubjectServer && e.Kind == lane.KindRefused {
		j.log.Warn(lane.Clean(e.Message, 1000), "digest", e.Digest)
	}
	return err
}

// Record queues, and warns of a bundle that the registry could not give, and of alarms.
func (j journal) Record(e lane.Event) {
	j.Store.Record(e)
	if e.Kind == lane.KindAlarm && j.alarms.due(e.At) {
		j.log.Warn("alarm: "+lane.Clean(e.Message, 300), "subject", e.Subject)
	}
	if e.By == lane.ByRegistry {
		j.log.Warn(lane.Clean(e.Message, 300))
	}
}

// loudness is a warning for what a person has to look at, and nothing for an import,
// which its own operator sees.
func loudness(k lane.Kind) slog.Level {
	switch k {
	case lane.KindQuarantined, lane.KindFailed, lane.KindExpired:
		return slog.LevelWarn
	case lane.KindEnrolled, lane.KindUpdated:
		return slog.LevelDebug
	}
	return slog.LevelInfo
}
