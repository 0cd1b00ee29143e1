package storetest

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootlane/internal/lane"
	"bootlane/internal/store"
)

func record(digest, name, version string) lane.BundleRecord {
	return lane.BundleRecord{Digest: lane.Digest(digest), Name: name, Version: version, State: lane.BundleImported, By: "op:x", Why: "ünï", At: at(), Imported: at(), Rollback: true}
}

// putBundle stores a record and returns it with its revision.
func putBundle(t *testing.T, s *store.Store, r lane.BundleRecord) lane.BundleRecord {
	t.Helper()
	r, err := s.AppendBundle(t.Context(), r, event(lane.BundleSubject(r.Name), "put"))
	if err != nil {
		t.Fatalf("append %s: %v", r.Ref(), err)
	}
	return r
}

func bundles(t *testing.T, open Open) {
	s, stop := running(t, open, "db")
	ten := putBundle(t, s, record("sha256:10", "a", "10"))
	nine := putBundle(t, s, record("sha256:09", "a", "9"))
	other := putBundle(t, s, record("sha256:0b", "b", "1"))
	stale := nine
	nine.State = lane.BundleApproved
	nine = putBundle(t, s, nine)

	if _, err := s.AppendBundle(t.Context(), stale, event("bundle:a", "stale")); lane.CodeOf(err) != lane.Conflict {
		t.Errorf("a change from an old revision: %v", err)
	}
	if _, err := s.AppendBundle(t.Context(), record("sha256:10", "a", "10"), event("bundle:a", "twice")); lane.CodeOf(err) != lane.Conflict {
		t.Errorf("a record that is there already: %v", err)
	}
	if _, err := s.AppendBundle(t.Context(), record("sha256:11", "a", "10"), event("bundle:a", "same version")); lane.CodeOf(err) != lane.Conflict {
		t.Errorf("two bundles with one version: %v", err)
	}
	expect := func(s *store.Store) {
		t.Helper()
		got, err := s.BundleRecords(t.Context(), "a")
		if diff := cmp.Diff([]lane.BundleRecord{nine, ten}, got); err != nil || diff != "" {
			t.Errorf("of one name: %v, (-want +got):\n%s", err, diff)
		}
		all, err := s.BundleRecords(t.Context(), "")
		if diff := cmp.Diff([]lane.BundleRecord{nine, ten, other}, all); err != nil || diff != "" {
			t.Errorf("all: %v, (-want +got):\n%s", err, diff)
		}
		events, err := s.Events(t.Context(), "bundle:a", 0, 10)
		if err != nil || len(events) == 0 {
			t.Errorf("events: %v, %v", events, err)
		}
		for _, e := range events {
			if e.Message != "put" {
				t.Errorf("a refused write left its event: %v", e)
			}
		}
	}
	expect(s)
	stop()
	again, _ := running(t, open, "db")
	expect(again)
}

func aliases(t *testing.T, open Open) {
	s, stop := running(t, open, "db")
	if _, err := s.Alias(t.Context(), "stable"); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("a missing alias: %v", err)
	}
	put := func(a lane.BundleAlias) lane.BundleAlias {
		t.Helper()
		a, err := s.AppendAlias(t.Context(), a, event(lane.AliasSubject(a.Name), "put"))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	first := put(lane.BundleAlias{Name: "stable", Target: lane.AliasTarget{Bundle: "sha256:01", Ref: "a-1"}, By: "op:x", Why: "why", At: at()})
	next := first
	next.Before, next.Target = []lane.AliasTarget{first.Target}, lane.AliasTarget{Bundle: "sha256:02", Ref: "a-2"}
	next = put(next)
	if _, err := s.AppendAlias(t.Context(), first, event("alias:stable", "stale")); lane.CodeOf(err) != lane.Conflict {
		t.Errorf("a move from an old revision: %v", err)
	}
	edge := put(lane.BundleAlias{Name: "edge", Target: lane.AliasTarget{Bundle: "sha256:02", Ref: "a-2"}, At: at()})
	expect := func(s *store.Store) {
		t.Helper()
		got, err := s.Alias(t.Context(), "stable")
		if diff := cmp.Diff(next, got); err != nil || diff != "" {
			t.Errorf("one: %v, (-want +got):\n%s", err, diff)
		}
		all, err := s.Aliases(t.Context())
		if diff := cmp.Diff([]lane.BundleAlias{edge, next}, all); err != nil || diff != "" {
			t.Errorf("all: %v, (-want +got):\n%s", err, diff)
		}
	}
	expect(s)
	stop()
	again, _ := running(t, open, "db")
	expect(again)
}
