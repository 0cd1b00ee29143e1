package lane

import (
	"slices"
	"testing"
	"time"
)

// TestSplitRef: every way to read NAME-VERSION, and none that can be no bundle's.
func TestSplitRef(t *testing.T) {
	for ref, want := range map[string][]BundleName{
		"sys-1":       {{"sys", "1"}},
		"debian-12-a": {{"debian", "12-a"}, {"debian-12", "a"}},
		"stable":      nil,
		"a--b":        nil,
		"-a":          nil,
		"a-":          nil,
		"a_b-1":       nil,
		"a-.b":        nil,
	} {
		if got := SplitRef(ref); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", ref, got, want)
		}
	}
}

// TestFetchTold: unknown, refused and broken never look alike, and a machine is told nothing
// that changes with every byte.
func TestFetchTold(t *testing.T) {
	next := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	for _, c := range []struct {
		f           BundleFetch
		state       BundleState
		brief, text string
	}{
		{BundleFetch{From: "r/a:1"}, BundleFetching, "it is being fetched from r/a:1", "it is being fetched from r/a:1"},
		{BundleFetch{From: "r/a:1", Sought: true}, BundleFetching, "it is looked for in the registry, as r/a:1", "it is looked for in the registry, as r/a:1"},
		{BundleFetch{From: "r/a:1", Active: true, Done: 3, Total: 9}, BundleFetching, "it is being fetched from r/a:1", "it is being fetched from r/a:1, 3 of 9 bytes"},
		{BundleFetch{From: "r/a:1", Active: true, Done: 3, Total: 9, Tries: 2, Code: Unavailable, Error: "cut"}, BundleFetching, "it is being fetched from r/a:1",
			"it is being fetched from r/a:1, 3 of 9 bytes: cut (so attempt 2 ended)"},
		{BundleFetch{From: "r/a:1", Tries: 1, Code: NotFound, Error: "there is no r/a:1", Next: next}, BundleLacking, "the registry does not have it",
			"the registry does not have it: there is no r/a:1 (attempt 1; the next one at 2026-05-04 03:02:01Z)"},
		{BundleFetch{From: "r/a:1", Tries: 1, Code: Refused, Error: "not signed", Next: next}, BundleLacking, "what the registry has is refused: not signed",
			"what the registry has is refused: not signed (attempt 1; the next one at 2026-05-04 03:02:01Z)"},
		{BundleFetch{From: "r/a:1", Tries: 3, Code: Unavailable, Error: "cut", Done: 3, Total: 9, Next: next}, BundleLacking, "it cannot be fetched from r/a:1 now",
			"it cannot be fetched from r/a:1 now, 3 of 9 bytes: cut (attempt 3; the next one at 2026-05-04 03:02:01Z)"},
		{BundleFetch{From: "r/a:1", Tries: 1, Error: "odd", Next: next}, BundleLacking, "it cannot be fetched from r/a:1 now", "it cannot be fetched from r/a:1 now: odd (attempt 1; the next one at 2026-05-04 03:02:01Z)"},
	} {
		if c.f.State() != c.state || c.f.Brief() != c.brief || c.f.String() != c.text {
			t.Errorf("%+v: %s\n%s\n%s", c.f, c.f.State(), c.f.Brief(), c.f)
		}
	}
}

// TestNearest: a slip of the finger is found, and what has nothing in common is not offered.
func TestNearest(t *testing.T) {
	names := []string{"debian-12-2026-11-a", "debian-12-2026-11-b", "debian-12-2026-12-a", "debian-12-2026-10-a", "debian-stable", "sys-1", "ubuntu-24.04-1", "sys-1"}
	for name, want := range map[string][]string{
		"debian-12-2026-11-c":  {"debian-12-2026-11-a", "debian-12-2026-11-b", "debian-12-2026-10-a"},
		"debain-12-2026-12-a":  {"debian-12-2026-12-a", "debian-12-2026-10-a", "debian-12-2026-11-a"},
		"debian-stabel":        {"debian-stable"},
		"sys-1":                nil,
		"sys-2":                {"sys-1"},
		"sys1":                 {"sys-1"},
		"fedora-41-1":          nil,
		"":                     nil,
		"ubuntu-24.04-1-extra": {"ubuntu-24.04-1"},
	} {
		if got := Nearest(name, names); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
