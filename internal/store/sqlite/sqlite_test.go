package sqlite_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bootlane/internal/lane"
	"bootlane/internal/store"
	"bootlane/internal/store/sqlite"
	"bootlane/internal/store/storetest"
)

// TestSuite runs the suite as the one process that writes, and as one of several: the
// queries of such a one serve engines that have no other kind.
func TestSuite(t *testing.T) {
	for name, exclusive := range map[string]bool{"alone": true, "one of several": false} {
		t.Run(name, func(t *testing.T) {
			dirs := map[string]string{}
			storetest.Run(t, func(t *testing.T, name string) store.Engine {
				t.Helper()
				key := t.Name() + name
				if dirs[key] == "" {
					dirs[key] = t.TempDir()
				}
				e, err := sqlite.Open(t.Context(), filepath.Join(dirs[key], "bootlane.db"))
				if err != nil {
					t.Fatalf("open: %v", err)
				}
				e.Exclusive = exclusive
				return e
			})
		})
	}
}

func TestSecondServerIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bootlane.db")
	first, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = sqlite.Open(t.Context(), path)
	if lane.CodeOf(err) != lane.Unavailable || !strings.Contains(err.Error(), "in use by another bootlane") {
		t.Errorf("a second server gets %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatalf("after the first is gone: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestBadDatabases(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("this is no database. ", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	directory := filepath.Join(dir, "directory.db")
	if err := os.Mkdir(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ path, want string }{
		"not a database": {garbage, "not a SQLite database"},
		"a directory":    {directory, "cannot be opened"},
		"no directory":   {filepath.Join(garbage, "x.db"), "create the directory"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sqlite.Open(t.Context(), c.path)
			if lane.CodeOf(err) != lane.Unavailable || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want it to say %q", err, c.want)
			}
		})
	}
}

// TestLockedByAnother holds SQLite's own lock, as a person with the sqlite3 tool would.
func TestLockedByAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bootlane.db")
	e, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := e.Write.BeginTx(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), `CREATE TABLE held (x BIGINT)`); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path + ".lock"); err != nil { // the second one is no bootlane: our lock file does not bind it
		t.Fatal(err)
	}
	_, err = sqlite.Open(t.Context(), path)
	if lane.CodeOf(err) != lane.Unavailable || !strings.Contains(err.Error(), "locked") {
		t.Errorf("got %v, want it to say that the database is locked", err)
	}
	if err := errors.Join(tx.Rollback(), e.Close()); err != nil {
		t.Fatal(err)
	}
}
