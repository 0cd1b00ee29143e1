package store

import (
	"context"
	"database/sql"
	"sync"

	"bootlane/internal/lane"
)

// The statements that change the database. They are prepared once: parsing them
// anew costs more than running them.
const (
	insertHost = `INSERT INTO hosts (id, state, rev, capability, deadline, doc) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (id) DO NOTHING`
	updateHost   = `UPDATE hosts SET state = $1, rev = $2, capability = $3, deadline = $4, doc = $5 WHERE id = $6 AND rev = $7`
	selectClaims = `SELECT claim FROM claims WHERE host = $1`
	insertClaim  = `INSERT INTO claims (claim, host) VALUES ($1, $2) ON CONFLICT (claim, host) DO NOTHING`
	deleteClaim  = `DELETE FROM claims WHERE claim = $1 AND host = $2`
	countEvent   = `UPDATE events SET count = $1, last_at = $2 WHERE subject = $3 AND seq = $4`
	lastEvent    = `SELECT seq, hash FROM events WHERE subject = $1 ORDER BY seq DESC LIMIT 1`
	insertEvent  = `INSERT INTO events (subject, seq, at, last_at, count, hash, doc, lasting) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`
	endLease     = `DELETE FROM leases WHERE mac = $1 AND address = $2 AND state <> 'declined'`
	dropLease    = `DELETE FROM leases WHERE address = $1`
	putLease     = `INSERT INTO leases (address, mac, state, granted, expires) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (address) DO UPDATE SET mac = excluded.mac, state = excluded.state, granted = excluded.granted, expires = excluded.expires`
	insertBundle  = `INSERT INTO bundles (digest, name, version, rev, doc) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`
	updateBundle  = `UPDATE bundles SET rev = $1, doc = $2 WHERE digest = $3 AND rev = $4`
	insertAlias   = `INSERT INTO bundle_aliases (name, rev, doc) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`
	updateAlias   = `UPDATE bundle_aliases SET rev = $1, doc = $2 WHERE name = $3 AND rev = $4`
	putDiscovered = `INSERT INTO discovered (id, heard, doc) VALUES ($1, $2, $3)
		ON CONFLICT (id) DO UPDATE SET heard = excluded.heard, doc = excluded.doc`
	dropDiscovered = `DELETE FROM discovered WHERE id IN (SELECT id FROM discovered ORDER BY heard DESC, id LIMIT 1000 OFFSET $1)`
	dropLease6     = `DELETE FROM leases6 WHERE address = $1`
	putLease6      = `INSERT INTO leases6 (address, client, state, granted, expires) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (address) DO UPDATE SET client = excluded.client, state = excluded.state, granted = excluded.granted, expires = excluded.expires`
)

// writeStatements lists them.
var writeStatements = []string{insertHost, updateHost, selectClaims, insertClaim, deleteClaim, countEvent, lastEvent, insertEvent, endLease, dropLease, putLease, dropLease6, putLease6,
	insertBundle, updateBundle, insertAlias, updateAlias, putDiscovered, dropDiscovered}

// statements keeps prepared statements of one database, by their text.
type statements struct {
	db *sql.DB

	mu     sync.RWMutex
	byText map[string]*sql.Stmt
}

// prepare prepares texts ahead of their use: within a transaction on a database
// with one connection it would be too late.
func prepare(ctx context.Context, db *sql.DB, texts []string) (*statements, error) {
	s := &statements{db: db, byText: map[string]*sql.Stmt{}}
	for _, t := range texts {
		if _, err := s.get(ctx, t); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *statements) get(ctx context.Context, text string) (*sql.Stmt, error) {
	s.mu.RLock()
	st, ok := s.byText[text]
	s.mu.RUnlock()
	if ok {
		return st, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if st, ok := s.byText[text]; ok {
		return st, nil
	}
	st, err := s.db.PrepareContext(ctx, text)
	if err != nil {
		return nil, broken("prepare a statement", err)
	}
	s.byText[text] = st // closed with the database
	return st, nil
}

// query runs a reading statement outside any transaction.
func (s *statements) query(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	st, err := s.get(ctx, text)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(ctx, args...)
}

// transaction runs writeStatements, and binds each to the transaction once.
type transaction struct {
	tx     *sql.Tx
	source *statements
	bound  map[string]*sql.Stmt
	staged staged
}

// staged is what the store will remember of a transaction, once it is committed.
type staged struct {
	records []record
	recent  map[string]*lane.Event
	heads   map[string]head
	bundles []lane.BundleRecord
	aliases []lane.BundleAlias
}

func (s *statements) begin(ctx context.Context) (*transaction, error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, broken("begin a transaction", err)
	}
	return &transaction{tx, s, map[string]*sql.Stmt{}, staged{recent: map[string]*lane.Event{}, heads: map[string]head{}}}, nil
}

func (t *transaction) stmt(ctx context.Context, text string) *sql.Stmt {
	st, ok := t.bound[text]
	if !ok {
		st = t.tx.StmtContext(ctx, t.source.byText[text])
		t.bound[text] = st
	}
	return st
}

func (t *transaction) exec(ctx context.Context, text string, args ...any) (sql.Result, error) {
	return t.stmt(ctx, text).ExecContext(ctx, args...)
}

func (t *transaction) rows(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	return t.stmt(ctx, text).QueryContext(ctx, args...)
}

func (t *transaction) row(ctx context.Context, text string, args ...any) *sql.Row {
	return t.stmt(ctx, text).QueryRowContext(ctx, args...)
}
