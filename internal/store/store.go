// Package store keeps what Bootlane knows: records, evidence and leases. It is
// the one SQL implementation; the engines under it only open a database. It
// moves values and keeps order; it judges nothing.
//
// All writes go through one goroutine that commits them in groups, so that one
// fsync serves many packets. Nothing is acknowledged before its group is on
// stable storage.
package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bootlane/internal/lane"
)

// Engine is an open database.
type Engine struct {
	Write *sql.DB // one connection, transactions take the write lock at BEGIN
	Read  *sql.DB
	// Exclusive says that no other process writes the database.
	Exclusive bool
	Close     func() error
}

// Store answers reads at once and queues writes for [Store.Run].
// It is safe for concurrent use.
type Store struct {
	engine Engine
	now    func() time.Time
	ops    chan *op
	done   chan struct{} // closed when Run has ended

	mu      sync.Mutex
	pending []*lane.Event // evidence not yet written, coalesced
	byKey   map[string]int
	gap     atomic.Int64 // evidence shed since the last gap event
	wake    chan struct{}

	reads     *statements
	writes    *statements
	inventory *inventory // nil where others write too
	lifecycle *lifecycle // likewise

	backlog []*lane.Event          // evidence that is next to be written; the writer's own
	recent  map[string]*lane.Event // by CoalesceKey; the writer's own
	heads   map[string]head        // by subject, where nobody else writes; the writer's own
	budget  budget                 // of new lines of evidence; the writer's own
}

// head is the end of a subject's chain of evidence: where the next event is tied to it. One of each host is kept, and as
// text a hash takes three times as much.
type head struct {
	seq int64
	sum [lane.SumSize]byte
}

// headOf returns the head behind an event. A text that is no hash was tampered with: the next event is then tied to what
// is no event's hash, and the chain shows as broken there.
func headOf(seq int64, hash string) head {
	h := head{seq: seq}
	if b, err := hex.DecodeString(hash); err == nil {
		copy(h.sum[:], b)
	}
	return h
}

// event returns as much of the chain's last event as the next one is tied to.
func (h head) event() lane.Event {
	if h.seq == 0 {
		return lane.Event{}
	}
	return lane.Event{Seq: h.seq, Hash: hex.EncodeToString(h.sum[:])}
}

// Limits that keep a hostile segment from filling memory, or the disk. A machine
// that boots over and over writes some three hundred lines an hour.
const (
	maxPending = 32768 // events waiting to be written
	maxRecent  = 16384 // events remembered for coalescing
	maxBatch   = 512   // writes in one commit

	maxLines        = 1000  // new lines of evidence in an hour about one machine
	maxUnknownLines = 20000 // and about all unknown machines together
	maxUnknown      = 10000 // unknown machines that are heard for the first time, in a day
)

// New brings the database to the newest schema and returns the store.
// It fails when the database was written by a newer version.
func New(ctx context.Context, e Engine, now func() time.Time) (*Store, error) {
	if err := migrate(ctx, e.Write, now); err != nil {
		return nil, err
	}
	writes, err := prepare(ctx, e.Write, writeStatements)
	if err != nil {
		return nil, err
	}
	s := &Store{engine: e, reads: &statements{db: e.Read, byText: map[string]*sql.Stmt{}}, writes: writes, now: now, ops: make(chan *op, maxBatch), done: make(chan struct{}),
		byKey: map[string]int{}, wake: make(chan struct{}, 1), recent: map[string]*lane.Event{}}
	if !e.Exclusive {
		return s, nil
	}
	if s.inventory, err = newInventory(ctx, e.Read); err != nil {
		return nil, err
	}
	if s.lifecycle, err = newLifecycle(ctx, s); err != nil {
		return nil, err
	}
	if s.heads, err = readHeads(ctx, e.Read); err != nil {
		return nil, err
	}
	return s, nil
}

// Close closes the database. Call it after Run has returned.
func (s *Store) Close() error { return s.engine.Close() }

func broken(what string, err error) error {
	return &lane.Error{Code: lane.Unavailable, Message: what, Err: err}
}

// Host returns one record; a missing one is a NotFound error.
func (s *Store) Host(ctx context.Context, id lane.HostID) (lane.Host, error) {
	hosts, err := s.hosts(ctx, `SELECT doc FROM hosts WHERE id = $1`, string(id))
	if err != nil {
		return lane.Host{}, err
	}
	if len(hosts) == 0 {
		return lane.Host{}, lane.Errorf(lane.NotFound, "no host %q in the inventory: `bootlane host list` shows those that are", id)
	}
	return hosts[0], nil
}

// Hosts returns up to limit records with ids after the given one, in order.
func (s *Store) Hosts(ctx context.Context, after lane.HostID, limit int) ([]lane.Host, error) {
	return s.hosts(ctx, `SELECT doc FROM hosts WHERE id > $1 ORDER BY id LIMIT $2`, string(after), limit)
}

// Claimants returns every record that makes one of the claims, each once, by id.
func (s *Store) Claimants(ctx context.Context, claims []string) ([]lane.Host, error) {
	if s.inventory != nil {
		return s.inventory.claimants(claims)
	}
	if len(claims) == 0 {
		return nil, nil
	}
	args := make([]any, len(claims))
	marks := make([]string, len(claims))
	for i, c := range claims {
		args[i], marks[i] = c, fmt.Sprintf("$%d", i+1)
	}
	q := `SELECT doc FROM hosts WHERE id IN (SELECT host FROM claims WHERE claim IN (` + strings.Join(marks, ",") + `)) ORDER BY id`
	return s.hosts(ctx, q, args...)
}

// ByCapability returns the record whose present run has the capability.
func (s *Store) ByCapability(ctx context.Context, capability string) (lane.Host, error) {
	if capability == "" {
		return lane.Host{}, lane.Errorf(lane.NotFound, "no capability given")
	}
	hosts, err := s.hosts(ctx, `SELECT doc FROM hosts WHERE capability = $1`, capability)
	if err != nil {
		return lane.Host{}, err
	}
	if len(hosts) != 1 {
		return lane.Host{}, lane.Errorf(lane.NotFound, "no run has this capability: it was superseded, or never existed")
	}
	return hosts[0], nil
}

// Due returns the records whose open run has a deadline at or before t.
func (s *Store) Due(ctx context.Context, t time.Time) ([]lane.Host, error) {
	return s.hosts(ctx, `SELECT doc FROM hosts WHERE deadline > 0 AND deadline <= $1 ORDER BY id LIMIT 1000`, t.UnixMicro())
}

func (s *Store) hosts(ctx context.Context, query string, args ...any) ([]lane.Host, error) {
	rows, err := s.reads.query(ctx, query, args...)
	if err != nil {
		return nil, broken("read the inventory", err)
	}
	docs, err := collect(rows, scanString)
	if err != nil {
		return nil, err
	}
	out := make([]lane.Host, len(docs))
	for i, d := range docs {
		if err := json.Unmarshal([]byte(d), &out[i]); err != nil {
			return nil, broken("decode a host's record", err)
		}
	}
	return out, nil
}

// Events returns up to limit events of a subject with sequence numbers after the given one, ascending.
func (s *Store) Events(ctx context.Context, subject string, after int64, limit int) ([]lane.Event, error) {
	return s.events(ctx, `SELECT doc, count, last_at FROM events WHERE subject = $1 AND seq > $2 ORDER BY seq LIMIT $3`, subject, after, limit)
}

// LastEvents returns the last events of a subject, ascending.
func (s *Store) LastEvents(ctx context.Context, subject string, limit int) ([]lane.Event, error) {
	return s.events(ctx, `SELECT doc, count, last_at FROM (SELECT seq, doc, count, last_at FROM events WHERE subject = $1
		ORDER BY seq DESC LIMIT $2) AS last ORDER BY seq`, subject, limit)
}

// LastingEvents returns the last events of a subject that tell how its record came
// to be what it is, ascending; see [lane.Kind.Lasting].
func (s *Store) LastingEvents(ctx context.Context, subject string, limit int) ([]lane.Event, error) {
	return s.events(ctx, `SELECT doc, count, last_at FROM (SELECT seq, doc, count, last_at FROM events WHERE subject = $1 AND lasting = 1
		ORDER BY seq DESC LIMIT $2) AS last ORDER BY seq`, subject, limit)
}

func (s *Store) events(ctx context.Context, query string, args ...any) ([]lane.Event, error) {
	rows, err := s.reads.query(ctx, query, args...)
	if err != nil {
		return nil, broken("read events", err)
	}
	return collect(rows, func(r *sql.Rows) (lane.Event, error) {
		var doc string
		var count, last int64
		if err := r.Scan(&doc, &count, &last); err != nil {
			return lane.Event{}, err
		}
		var e lane.Event
		err := json.Unmarshal([]byte(doc), &e)
		e.Count = int(count)
		if last > 0 {
			e.LastAt = time.UnixMicro(last).UTC()
		}
		return e, err
	})
}

// Strangers returns the machines without a record that left evidence, those heard
// last first.
func (s *Store) Strangers(ctx context.Context) ([]lane.Stranger, error) {
	rows, err := s.reads.query(ctx, `SELECT subject, COUNT(*), MAX(CASE WHEN last_at > at THEN last_at ELSE at END) AS heard
		FROM events WHERE subject LIKE 'mac:%' GROUP BY subject ORDER BY heard DESC, subject`)
	if err != nil {
		return nil, broken("read unknown machines", err)
	}
	return collect(rows, func(r *sql.Rows) (lane.Stranger, error) {
		var out lane.Stranger
		var heard int64
		err := r.Scan(&out.Subject, &out.Lines, &heard)
		out.Heard = time.UnixMicro(heard).UTC()
		return out, err
	})
}

// Ping reads once, to tell whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	var n int
	if err := s.engine.Read.QueryRowContext(ctx, `SELECT 1`).Scan(&n); err != nil {
		return broken("read the database", err)
	}
	return nil
}

func scanString(r *sql.Rows) (string, error) {
	var v string
	err := r.Scan(&v)
	return v, err
}

func collect[T any](rows *sql.Rows, scan func(*sql.Rows) (T, error)) (out []T, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, broken("read a row", err)
		}
		out = append(out, v)
	}
	if err := rows.Err(); err != nil {
		return nil, broken("read rows", err)
	}
	return out, nil
}
