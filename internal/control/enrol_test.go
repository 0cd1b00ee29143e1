package control_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"bootlane/internal/control"
	"bootlane/internal/lane"
	"bootlane/internal/store"
)

// gate is the real store, before which writes gather until it is opened. Then some are
// turned away, all at the same time.
type gate struct {
	*store.Store
	open    chan struct{}
	bad     map[lane.HostID]bool
	waiting atomic.Int64
}

func (g *gate) Append(ctx context.Context, h lane.Host, e lane.Event) (lane.Host, lane.Event, error) {
	g.waiting.Add(1)
	<-g.open
	if g.bad[h.ID] {
		return h, e, lane.Errorf(lane.Unavailable, "no room for a record")
	}
	return g.Store.Append(ctx, h, e)
}

// kind returns the list of what became of a record: i of TestImportInPart's.
func kind(out *lane.Imported, i int) *[]lane.HostID {
	switch i % 5 {
	case 0:
		return &out.Unchanged
	case 1:
		return &out.Changed
	default:
		return &out.Added
	}
}

// TestImportInPart: records are written many at a time. Where some cannot be, the others
// are stored all the same, the error says how many, and the same file does the rest.
func TestImportInPart(t *testing.T) {
	const all, atOnce = 300, 128
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var specs, before []lane.Host
		var first, then lane.Imported // what is to become of the records
		bad := map[lane.HostID]bool{}
		for i := range all {
			h := lane.Host{ID: lane.HostID(fmt.Sprintf("n%03d", i)), Identity: lane.Identity{MACs: []lane.MAC{lane.MAC(fmt.Sprintf("52:54:00:00:%02x:%02x", i>>8, i&255))}}}
			if i%5 < 2 {
				before = append(before, h)
			}
			if i%5 == 1 {
				h.Role = "storage"
			}
			specs, bad[h.ID] = append(specs, h), i%3 == 0
			if list := kind(&then, i); bad[h.ID] && i%5 != 0 { // an unchanged one is not written
				*list = append(*list, h.ID)
			} else {
				list = kind(&first, i)
				*list, then.Unchanged = append(*list, h.ID), append(then.Unchanged, h.ID)
			}
		}
		r.enrol(before...)
		g := &gate{Store: r.store, open: make(chan struct{}), bad: bad}
		cfg := r.Config
		cfg.Store = g
		c := control.New(cfg)
		var out lane.Imported
		var err error
		done := make(chan struct{})
		go func() { out, _, err = c.Import(t.Context(), specs, "op:t", false); close(done) }()
		synctest.Wait()
		if n := g.waiting.Load(); n != atOnce {
			t.Errorf("%d records are written at a time, want %d", n, atOnce)
		}
		close(g.open)
		<-done
		want := fmt.Sprintf("%d of %d records were stored before this", len(first.Added)+len(first.Changed), all)
		if lane.CodeOf(err) != lane.Unavailable || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "no room for a record") {
			t.Errorf("%v, want it to say %q and why", err, want)
		}
		if diff := cmp.Diff(first, out); diff != "" {
			t.Errorf("what became of the records, in their order (-want +got):\n%s", diff)
		}
		clear(bad)
		out, _, err = c.Import(t.Context(), specs, "op:t", false)
		if diff := cmp.Diff(then, out); diff != "" || err != nil {
			t.Errorf("and the second time: %v (-want +got):\n%s", err, diff)
		}
	})
}

// TestImportInPartCancels: the same file again finds a changed record as it should be: that
// its run was cancelled is told now, or never.
func TestImportInPartCancels(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	r.provision("node1", lane.Provisioning{})
	_, err := r.Quarantine(t.Context(), "node1", "op:t", "smoke")
	r.must(err)
	g := &gate{Store: r.store, open: make(chan struct{}), bad: map[lane.HostID]bool{"node2": true}}
	close(g.open)
	cfg := r.Config
	cfg.Store = g
	changed := spec("node1")
	changed.Disk.Serial = "D7"
	_, _, err = control.New(cfg).Import(t.Context(), []lane.Host{changed, other("node2")}, "op:t", false)
	var told *lane.Error
	if !errors.As(err, &told) || len(told.Problems) != 1 || !strings.Contains(told.Problems[0], "node1: its run") || r.host("node1").Run.Open {
		t.Errorf("%v", err)
	}
}
