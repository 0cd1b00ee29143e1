package storetest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootlane/internal/lane"
	"bootlane/internal/store"
)

func discovered(t *testing.T, open Open) {
	s, stop := running(t, open, "db")
	put := func(n int, e lane.Event) lane.Discovered {
		d := lane.Discovered{ID: fmt.Sprintf("m%04d", n), First: at(), Heard: at().Add(time.Duration(n) * time.Second), Bundle: "agent-1",
			Hardware: lane.Hardware{Serial: "ünï", Disks: []lane.Disk{{Name: "sda", SizeBytes: 1 << 40}}}, Hosts: []lane.HostID{"n1"}}
		if err := s.PutDiscovered(t.Context(), d, e); err != nil {
			t.Error(err)
		}
		d.Hosts = nil
		return d
	}
	put(0, event("mac:a", "put"))
	one := put(1, lane.Event{})
	if got, err := s.DiscoveredAs(t.Context(), one.ID); err != nil || cmp.Diff(one, got) != "" {
		t.Errorf("%v, %s", err, cmp.Diff(one, got))
	}
	if _, err := s.DiscoveredAs(t.Context(), "nobody"); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("a machine that was not looked at: %v", err)
	}
	if events, err := s.Events(t.Context(), "mac:a", 0, 10); err != nil || len(events) != 1 {
		t.Errorf("events %v, %v", events, err)
	}
	bad := unwritable()
	if err := s.PutDiscovered(t.Context(), lane.Discovered{ID: "x", Heard: at()}, bad); err == nil {
		t.Error("an event that cannot be written was taken")
	}
	var all sync.WaitGroup // so that many share a commit
	for n := range store.MaxDiscovered {
		all.Go(func() { put(n+2, lane.Event{}) })
	}
	all.Wait()
	stop()
	s, _ = running(t, open, "db")
	list, err := s.Discovered(t.Context())
	if err != nil || len(list) != store.MaxDiscovered {
		t.Fatalf("%d are kept: %v", len(list), err)
	}
	if list[0].ID != "m0002" {
		t.Errorf("kept from %s on", list[0].ID)
	}
}
