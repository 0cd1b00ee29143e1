package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"modernc.org/sqlite"

	"bootlane/internal/lane"
	"bootlane/internal/nettest"
)

func at() time.Time { return time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC) }

// rig is a store whose writer is the test itself: what meets in one commit is no chance.
type rig struct {
	*Store
	t       *testing.T
	commits int  // that reached the database
	full    bool // the database refuses to commit
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t}
	file := "file:" + filepath.Join(t.TempDir(), "db") + "?_pragma=journal_mode(WAL)&_txlock=immediate"
	e := Engine{Exclusive: true}
	for _, db := range []**sql.DB{&e.Write, &e.Read} {
		var err error
		*db, err = sql.Open("sqlite", file)
		r.must(err)
		t.Cleanup(func() { r.must((*db).Close()) })
	}
	e.Write.SetMaxOpenConns(1)
	var err error
	r.Store, err = New(t.Context(), e, at)
	r.must(err)
	c, err := e.Write.Conn(t.Context())
	r.must(err)
	r.must(c.Raw(func(driver any) error {
		driver.(sqlite.HookRegisterer).RegisterCommitHook(func() int32 {
			if r.full {
				return 1
			}
			r.commits++
			return 0
		})
		return nil
	}))
	r.must(c.Close())
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// together queues writes in their order, commits them as one group, and returns what each was told.
func (r *rig) together(writes ...func() error) []error {
	r.t.Helper()
	told := make([]error, len(writes))
	var wg sync.WaitGroup
	for i, w := range writes {
		wg.Go(func() { told[i] = w() })
		nettest.Eventually(r.t, "a write is queued", func() bool { return len(r.ops) == i+1 })
	}
	r.commit(context.Background(), r.gather(nil))
	wg.Wait()
	return told
}

func line(subject, message string) lane.Event {
	return lane.Event{Subject: subject, At: at(), Kind: lane.KindUpdated, By: "test", Message: message}
}

func (r *rig) appending(h lane.Host) func() error {
	return func() error {
		_, _, err := r.Append(r.t.Context(), h, line(string(h.ID), "put"))
		return err
	}
}

func (r *rig) witnessing(e lane.Event) func() error {
	return func() error { return r.Witness(r.t.Context(), e) }
}

// broken cannot be written: JSON has no such year.
func (r *rig) broken() func() error {
	e := line("broken", "never")
	e.At = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	return r.witnessing(e)
}

// evidence returns a subject's events, which must be a whole chain.
func (r *rig) evidence(subject string) []lane.Event {
	r.t.Helper()
	events, err := r.Events(r.t.Context(), subject, 0, 1<<30)
	r.must(err)
	if len(events) > 0 {
		r.must(lane.VerifyWhole(subject, events))
	}
	return events
}

func (r *rig) claimants(claim string) int {
	r.t.Helper()
	hosts, err := r.Claimants(r.t.Context(), []string{claim})
	r.must(err)
	return len(hosts)
}

// TestConflictSparesItsGroup: whoever comes too late is told so, and the others of the
// same commit pay nothing for it: it stays one transaction. Only what is really broken
// has everybody write alone.
func TestConflictSparesItsGroup(t *testing.T) {
	for name, c := range map[string]struct {
		bad     func(*rig) func() error
		code    lane.Code
		commits int
	}{
		"conflict": {func(r *rig) func() error { return r.appending(lane.Host{ID: "h", Rev: 77, Hostname: "stale"}) }, lane.Conflict, 1},
		"broken":   {(*rig).broken, "", 2},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.must(r.together(r.appending(lane.Host{ID: "h", Hostname: "first"}))[0])
			r.commits = 0
			told := r.together(r.witnessing(line("other", "before")), c.bad(r), r.appending(lane.Host{ID: "i", Hostname: "i"}))
			if told[0] != nil || told[1] == nil || lane.CodeOf(told[1]) != c.code || told[2] != nil {
				t.Errorf("they are told %v", told)
			}
			if r.commits != c.commits {
				t.Errorf("%d commits, want %d", r.commits, c.commits)
			}
			if n := len(r.evidence("other")) + len(r.evidence("i")) + r.claimants("hostname:i"); n != 3 {
				t.Errorf("%d of 3 traces of what succeeded", n)
			}
			if n := len(r.evidence("h")) + r.claimants("hostname:first"); n != 2 || r.claimants("hostname:stale") != 0 || len(r.evidence("broken")) != 0 {
				t.Errorf("what was refused left something")
			}
		})
	}
}

// known is everything that the writer has in memory about what is stored.
func (r *rig) known() string {
	return fmt.Sprint(slices.Sorted(maps.Keys(r.heads)), len(r.recent), r.inventory.size(), len(r.inventory.heard), len(r.lifecycle.bundles), len(r.lifecycle.aliases), r.budget.firsts)
}

// TestUncommittedIsNotRemembered: what the database did not take is not in memory either,
// where machines would be answered by it and the next evidence be tied to it.
func TestUncommittedIsNotRemembered(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	asked := lane.Event{Subject: "mac:52:54:00:00:00:01", At: at(), Kind: lane.KindAsked, By: "dhcp"}
	all := []func() error{
		r.appending(lane.Host{ID: "h", Hostname: "h"}),
		r.witnessing(line("server", "said")),
		func() error {
			_, err := r.AppendBundle(ctx, lane.BundleRecord{Digest: "sha256:00", Name: "b", Version: "1"}, line("bundle:b", "put"))
			return err
		},
		func() error {
			_, err := r.AppendAlias(ctx, lane.BundleAlias{Name: "a"}, line("alias:a", "put"))
			return err
		},
	}
	was := r.known()
	r.Record(asked)
	r.full = true
	for _, err := range r.together(all...) {
		if lane.CodeOf(err) != lane.Unavailable {
			t.Errorf("a full disk: %v", err)
		}
	}
	if is := r.known(); is != was || r.claimants("hostname:h") != 0 {
		t.Errorf("of a failed commit %s is remembered, before it was %s", is, was)
	}
	r.full = false
	r.Record(asked) // it must not be counted in a line that does not exist
	// This time the group is rolled back by one of it, and each of the others written alone.
	for i, err := range r.together(slices.Insert(all, 2, r.broken())...) {
		if (err != nil) != (i == 2) {
			t.Errorf("write %d after it: %v", i, err)
		}
	}
	for _, subject := range []string{"h", "bundle:b", "alias:a", asked.Subject} {
		if events := r.evidence(subject); len(events) != 1 || events[0].Count != 1 {
			t.Errorf("%s has %v, want the one line", subject, events)
		}
	}
	if events := r.evidence("server"); len(events) != 2 || events[0].Kind != lane.KindGap && events[1].Kind != lane.KindGap {
		t.Errorf("the server has %v, want its line and the gap", events)
	}
	if len(r.recent) != 6 || r.inventory.size() != 1 || r.claimants("hostname:h") != 1 || len(r.inventory.heard) != 1 {
		t.Errorf("%s is remembered of what was stored", r.known())
	}
}

// TestMemoryIsBounded: a segment full of invented addresses pushes no host's end of chain
// out of memory, and where those of strangers were dropped, their chains go on all the same.
func TestMemoryIsBounded(t *testing.T) {
	r := newRig(t)
	const group, groups = 4096, 3 * maxRecent / 4096 / 2 // half as many again as fit
	stranger := func(n int) string { return fmt.Sprintf("mac:52:54:00:00:%02x:%02x", n>>8, n&255) }
	r.must(r.together(r.appending(lane.Host{ID: "h", Hostname: "h"}))[0])
	most := 0
	for g := range groups {
		r.must(r.together(func() error {
			return r.do(t.Context(), func(ctx context.Context, tx *transaction) error {
				for i := range group {
					if _, err := r.putEvent(ctx, tx, line(stranger(g*group+i), "flood")); err != nil {
						return err
					}
				}
				return nil
			})
		})[0])
		most = max(most, len(r.heads))
		if len(r.heads) > r.inventory.size()+maxRecent+group || len(r.recent) > maxRecent || len(r.recent) < group {
			t.Fatalf("after %d strangers %d ends of chains and %d events are remembered", (g+1)*group, len(r.heads), len(r.recent))
		}
	}
	if _, ok := r.heads[stranger(0)]; ok || most < maxRecent {
		t.Errorf("at most %d ends of chains, and the oldest is still there: %t", most, ok)
	}
	if _, ok := r.heads["h"]; !ok {
		t.Error("the host's end of chain was dropped with those of strangers")
	}
	for _, subject := range []string{"h", stranger(0), stranger(groups*group - 1)} {
		r.must(r.together(r.witnessing(line(subject, "next")))[0])
		if events := r.evidence(subject); len(events) != 2 {
			t.Errorf("%s has %d events, want 2", subject, len(events))
		}
	}
}

// TestClaimsThatShareAHash: a hash of 32 bits may be that of another host's claim, which is no claim of this one.
func TestClaimsThatShareAHash(t *testing.T) {
	r := newRig(t)
	host := func(id lane.HostID) lane.Host {
		return lane.Host{ID: id, Identity: lane.Identity{Serial: "SN-" + string(id)}}
	}
	r.must(errors.Join(r.together(r.appending(host("a")), r.appending(host("b")))...))
	claim := host("a").Claims()[0]
	shared := r.inventory.hashes([]string{claim})[0]
	r.inventory.claim(shared, r.inventory.byID["b"])
	if got := len(r.inventory.candidates([]string{claim})); got != 2 {
		t.Fatalf("%d records under the hash", got)
	}
	hosts, err := r.Claimants(t.Context(), []string{claim})
	r.must(err)
	if len(hosts) != 1 || hosts[0].ID != "a" {
		t.Errorf("%v", hosts)
	}
	r.inventory.disclaim(shared, r.inventory.byID["a"])
	if got := r.inventory.candidates([]string{claim}); len(got) != 1 || got[0].id != "b" {
		t.Errorf("left under the hash: %v", got)
	}
}
