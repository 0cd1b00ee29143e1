// Package sqlite opens a SQLite database for package store: one file, nothing to set up.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // registers the pure-Go driver "sqlite"

	"bootlane/internal/lane"
	"bootlane/internal/store"
)

// Open opens or creates the database at path. A lock file beside it keeps a
// second server away: two writers with caches of their own would not see each
// other's decisions. Errors say what to do: locked, read-only, not a database.
func Open(ctx context.Context, path string) (store.Engine, error) {
	lock, err := lockFile(path)
	if err != nil {
		return store.Engine{}, err
	}
	e, err := open(ctx, path)
	if err == nil {
		// It holds the capabilities of open runs.
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		return store.Engine{}, errors.Join(explain(path, err), lock.Close())
	}
	e.Close = func() error { return errors.Join(e.Read.Close(), e.Write.Close(), lock.Close()) }
	return e, nil
}

func lockFile(path string) (*os.File, error) {
	if dir := filepath.Dir(path); dir != "." {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, &lane.Error{Code: lane.Unavailable, Message: "create the directory for the database: choose a writable `data` directory", Err: err}
		}
	}
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, &lane.Error{Code: lane.Unavailable, Message: "open the lock file of the database: is `data` on a read-only file system?", Err: err}
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(lane.Errorf(lane.Unavailable, "the database %s is in use by another bootlane: stop that one, or give this one its own `data` directory", path), f.Close())
	}
	return f, nil
}

func open(ctx context.Context, path string) (store.Engine, error) {
	if f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600); err == nil { // SQLite would make it for everybody to read
		if err := f.Close(); err != nil {
			return store.Engine{}, err
		}
	}
	// synchronous=FULL: an acknowledged commit survives a power cut.
	common := url.Values{"_pragma": {"busy_timeout(5000)", "foreign_keys(1)", "journal_mode(WAL)", "synchronous(FULL)"}}
	write := url.Values{"_pragma": common["_pragma"], "_txlock": {"immediate"}}
	path, err := filepath.Abs(path) // the first part of a relative one would be an authority
	if err != nil {
		return store.Engine{}, err
	}
	file := url.URL{Scheme: "file", Path: path} // a # or ? of the path is no end of it
	file.RawQuery = write.Encode()
	w, err := sql.Open("sqlite", file.String())
	if err != nil {
		return store.Engine{}, err
	}
	w.SetMaxOpenConns(1)
	if err := check(ctx, w); err != nil {
		return store.Engine{}, errors.Join(err, w.Close())
	}
	read := url.Values{"_pragma": {"busy_timeout(5000)", "query_only(1)"}}
	file.RawQuery = read.Encode()
	r, err := sql.Open("sqlite", file.String())
	if err != nil {
		return store.Engine{}, errors.Join(err, w.Close())
	}
	n := max(4, 2*runtime.NumCPU())
	r.SetMaxOpenConns(n)
	r.SetMaxIdleConns(n)
	return store.Engine{Write: w, Read: r, Exclusive: true}, nil
}

// check asserts what durability rests on, rather than trusting the driver's defaults.
func check(ctx context.Context, w *sql.DB) error {
	var mode string
	var sync int
	if err := w.QueryRowContext(ctx, `PRAGMA journal_mode`).Scan(&mode); err != nil {
		return err
	}
	if err := w.QueryRowContext(ctx, `PRAGMA synchronous`).Scan(&sync); err != nil {
		return err
	}
	if mode != "wal" || sync != 2 {
		return fmt.Errorf("the database runs with journal_mode=%s synchronous=%d, not wal and 2 (FULL): does its file system allow shared memory?", mode, sync)
	}
	// A write that changes nothing finds a read-only file now, not at the first lease.
	if _, err := w.ExecContext(ctx, `PRAGMA user_version = 1`); err != nil {
		return err
	}
	return nil
}

func explain(path string, err error) error {
	msg := "open the database " + path
	switch text := err.Error(); {
	case strings.Contains(text, "readonly"):
		msg += ": it is read-only; give it to the user that runs bootlane"
	case strings.Contains(text, "SQLITE_BUSY") || strings.Contains(text, "locked"):
		msg += ": another program holds it locked; close that program"
	case strings.Contains(text, "not a database"):
		msg += ": it is not a SQLite database; move it away or restore a backup"
	case strings.Contains(text, "unable to open"):
		msg += ": it cannot be opened or created there; check the directory and its permissions"
	}
	return &lane.Error{Code: lane.Unavailable, Message: msg, Err: err}
}
