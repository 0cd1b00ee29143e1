package sqlite

import (
	"os"
	"path/filepath"
	"testing"
)

// TestPaths: the database is the file that is named, whatever the characters, and where
// the name is relative too.
func TestPaths(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, path := range []string{"plain.db", filepath.Join("sub", "relative.db"), "a#b?c%41&d.db"} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		e, err := Open(t.Context(), path)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if _, err := e.Write.ExecContext(t.Context(), `CREATE TABLE t (n)`); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if err := e.Close(); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if st, err := os.Stat(path); err != nil || st.Size() == 0 || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, st, err)
		}
	}
}
