package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"bootlane/internal/lane"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrate applies the embedded migrations that the database lacks, each in one
// transaction. It refuses a database that a newer version wrote, and one whose
// applied migrations differ from the embedded ones.
func migrate(ctx context.Context, db *sql.DB, now func() time.Time) error {
	if _, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_version (
		version BIGINT PRIMARY KEY, checksum TEXT NOT NULL, applied BIGINT NOT NULL)`); err != nil {
		return broken("create the schema table", err)
	}
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return fmt.Errorf("list migrations: %w", err)
	}
	slices.Sort(names)
	var newest int64
	if err := db.QueryRowContext(ctx, `SELECT COALESCE(MAX(version), 0) FROM schema_version`).Scan(&newest); err != nil {
		return broken("read the schema version", err)
	}
	if newest > int64(len(names)) {
		return lane.Errorf(lane.Invalid, "the database has schema %d, this Bootlane knows up to %d: run the newer Bootlane that wrote it, or restore a backup", newest, len(names))
	}
	for _, name := range names {
		if err := applyOne(ctx, db, name, now()); err != nil {
			return err
		}
	}
	return nil
}

func applyOne(ctx context.Context, db *sql.DB, name string, at time.Time) error {
	version, err := strconv.ParseInt(strings.TrimPrefix(name, "migrations/")[:4], 10, 64)
	if err != nil {
		return fmt.Errorf("parse the name of migration %s: %w", name, err)
	}
	text, err := migrations.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read migration %s: %w", name, err)
	}
	sum := sha256.Sum256(text)
	checksum := hex.EncodeToString(sum[:])
	var have string
	err = db.QueryRowContext(ctx, `SELECT checksum FROM schema_version WHERE version = $1`, version).Scan(&have)
	switch {
	case err == nil && have == checksum:
		return nil
	case err == nil:
		return lane.Errorf(lane.Invalid, "the database's schema %d was made by another build: restore a backup made with this version", version)
	case !errors.Is(err, sql.ErrNoRows):
		return broken("read the schema version", err)
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return broken("begin a migration", err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit this does nothing
	for _, stmt := range strings.Split(string(text), ";\n") {
		if strings.TrimSpace(stmt) == "" {
			continue
		}
		if _, err := tx.ExecContext(ctx, stmt); err != nil {
			return broken("apply migration "+name, err)
		}
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO schema_version (version, checksum, applied) VALUES ($1, $2, $3)`, version, checksum, at.UnixMicro()); err != nil {
		return broken("record migration "+name, err)
	}
	if err := tx.Commit(); err != nil {
		return broken("commit migration "+name, err)
	}
	return nil
}
