package control

import (
	"context"
	"slices"
	"time"

	"bootlane/internal/lane"
)

// Cancel ends the open run of a host.
func (c *Control) Cancel(ctx context.Context, id lane.HostID, by, why string) (lane.Host, error) {
	return c.change(ctx, id, func(h lane.Host) (lane.Host, lane.Event, error) { return lane.Cancel(h, by, why, c.Now()) })
}

// Confirm ends the run of a host whose machine does not report by itself: an operator saw it run.
func (c *Control) Confirm(ctx context.Context, id lane.HostID, by, why string) (lane.Host, error) {
	return c.change(ctx, id, func(h lane.Host) (lane.Host, lane.Event, error) { return lane.Confirm(h, by, why, c.Now()) })
}

// Quarantine sets a host aside.
func (c *Control) Quarantine(ctx context.Context, id lane.HostID, by, why string) (lane.Host, error) {
	return c.change(ctx, id, func(h lane.Host) (lane.Host, lane.Event, error) {
		return lane.Quarantine(h, nil, nil, by, why, c.Now())
	})
}

// Release ends a quarantine.
func (c *Control) Release(ctx context.Context, id lane.HostID, by, why string) (lane.Host, error) {
	return c.change(ctx, id, func(h lane.Host) (lane.Host, lane.Event, error) { return lane.Release(h, by, why, c.Now()) })
}

// Retire takes a host out of service.
func (c *Control) Retire(ctx context.Context, id lane.HostID, by, why string) (lane.Host, error) {
	return c.change(ctx, id, func(h lane.Host) (lane.Host, lane.Event, error) { return lane.Retire(h, by, why, c.Now()) })
}

// Accept records a replaced board or NIC. rev is the record's revision when the
// operator looked at the dispute: anybody on the boot network can add to one, and
// what was not looked at is not accepted. It is refused when another record
// claims what would be recorded.
func (c *Control) Accept(ctx context.Context, id lane.HostID, what lane.Replacement, rev int64, by, why string) (lane.Host, error) {
	return c.change(ctx, id, func(h lane.Host) (lane.Host, lane.Event, error) {
		if h.State == lane.StateQuarantine && h.Rev != rev {
			return h, lane.Event{}, lane.Errorf(lane.Refused, "the record of %s was changed since you looked at it: see `bootlane why %s`, then accept again", id, id)
		}
		next, e, err := lane.Accept(h, what, by, why, c.Now())
		if err != nil {
			return next, e, err
		}
		others, err := c.Store.Claimants(ctx, next.Claims())
		if err != nil {
			return next, e, err
		}
		if problems := lane.Collisions(next, others); len(problems) > 0 {
			return next, e, refuse("accepting it would give two records the same identity", problems)
		}
		return next, e, nil
	})
}

func refuse(message string, problems []lane.Problem) error {
	e := lane.Errorf(lane.Refused, "%s", message)
	for _, p := range problems {
		e.Problems = append(e.Problems, p.String())
	}
	return e
}

// Expire closes every run whose deadline has passed.
func (c *Control) Expire(ctx context.Context) error {
	due, err := c.Store.Due(ctx, c.Now())
	if err != nil {
		return err
	}
	for _, h := range due {
		if err := c.expire(ctx, h.ID); err != nil {
			return err
		}
	}
	return nil
}

func (c *Control) expire(ctx context.Context, id lane.HostID) error {
	_, err := c.change(ctx, id, func(h lane.Host) (lane.Host, lane.Event, error) {
		if !h.Run.Open || c.Now().Before(h.Run.Deadline) || !lane.Allowed(h.State, lane.VerbExpire) {
			return h, lane.Event{}, nil
		}
		last, err := c.lastWord(ctx, h)
		if err != nil {
			return h, lane.Event{}, err
		}
		return lane.Expire(h, last, c.Now())
	})
	return err
}

// lastWord returns the last that was heard of a run, or nothing.
func (c *Control) lastWord(ctx context.Context, h lane.Host) (string, error) {
	events, err := c.Store.LastEvents(ctx, string(h.ID), 100)
	for _, e := range slices.Backward(events) {
		if e.Run == h.Run.ID && (e.Kind == lane.KindStage || e.Kind == lane.KindProgress) {
			return "the last that was heard, at " + e.At.UTC().Format("15:04:05Z") + ": " + e.Message, err
		}
	}
	return "", err
}

// Run closes expired runs, once a second, until ctx ends. A store that does not
// answer is tried again: Decide looks at the deadline itself, so that a late
// closing lets nothing through.
func (c *Control) Run(ctx context.Context) error { return everySecond(ctx, c.Expire) }

// everySecond does something once a second until ctx ends. An error with a code is one of the day,
// and the thing is tried again; any other ends it.
func everySecond(ctx context.Context, do func(context.Context) error) error {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := do(ctx); err != nil && lane.CodeOf(err) == "" && ctx.Err() == nil {
				return err
			}
		}
	}
}
