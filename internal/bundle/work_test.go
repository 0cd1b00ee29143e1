package bundle

import (
	"os"
	"path/filepath"
	"testing"

	"bootlane/internal/lane"
)

// TestWork: who waits for an import or a check sees how far it is, and afterwards nothing.
func TestWork(t *testing.T) {
	const large = 64 << 20
	dir := folder(t, small("a", "1"), map[string]string{"linux": "k", "initrd": "i"})
	must(t, os.Truncate(filepath.Join(dir, "initrd"), large))
	_, err := Build(t.Context(), dir)
	must(t, err)
	s, err := NewStore(t.TempDir(), nil)
	must(t, err)
	watch := func(what string, least int64, do func() error) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- do() }()
		var seen lane.BundleWork
		for {
			if w := s.Work(); w.What != "" && w.Done > 0 && w.Done < large { // in the middle of it
				seen = w
			}
			select {
			case err := <-done:
				must(t, err)
				if seen.What != what || seen.Total < least || seen.Total > least+10_000 || seen.Done > seen.Total {
					t.Errorf("during %s: %+v", what, seen)
				}
				if w := s.Work(); w != (lane.BundleWork{}) {
					t.Errorf("after %s: %+v", what, w)
				}
				return
			default:
			}
		}
	}
	admit := func(lane.Bundle, bool) error { return nil }
	watch("import a-1", large, func() error { _, err := s.Import(t.Context(), dir, admit); return err })
	watch("fsck", large, func() error { _, err := s.Fsck(t.Context()); return err })
	watch("import a-1", large, func() error { _, err := s.Import(t.Context(), dir, admit); return err })
}
