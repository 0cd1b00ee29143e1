package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// op is one write. run may be called twice, when its group could not be
// committed as a whole: it must not keep anything from the first time.
type op struct {
	run  func(ctx context.Context, tx *transaction) error
	bare bool // has no place in any order of events: queued evidence may follow later
	err  error
	done chan struct{}
}

// Append stores a changed record together with the event that says why, in one
// transaction, and returns the event as sealed. h.Rev is the revision the change
// was made from; when somebody else changed the record since, nothing is stored
// and the error is a Conflict. It returns after the commit.
func (s *Store) Append(ctx context.Context, h lane.Host, e lane.Event) (lane.Host, lane.Event, error) {
	next, sealed := h, e
	err := s.do(ctx, func(ctx context.Context, tx *transaction) error {
		next = h
		next.Rev++
		if err := s.putHost(ctx, tx, next, h.Rev); err != nil {
			return err
		}
		var err error
		sealed, err = s.putEvent(ctx, tx, e)
		return err
	})
	if err != nil {
		return h, e, err
	}
	return next, sealed, nil
}

// Witness stores one event and returns after the commit: for answers that must
// be on record before they leave.
func (s *Store) Witness(ctx context.Context, e lane.Event) error {
	return s.do(ctx, func(ctx context.Context, tx *transaction) error {
		_, err := s.putEvent(ctx, tx, e)
		return err
	})
}

// Record queues one event and returns at once. Repetitions are counted, not
// queued. When the queue is full the event is shed, and the number of shed
// events becomes an event of its own.
func (s *Store) Record(e lane.Event) {
	if e.Count == 0 {
		e.Count = 1
	}
	key := e.CoalesceKey()
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.byKey[key]; ok {
		if merged, ok := lane.Coalesce(*s.pending[i], e); ok {
			*s.pending[i] = merged
			return
		}
	}
	if len(s.pending) >= maxPending {
		s.gap.Add(1)
		return
	}
	s.byKey[key] = len(s.pending)
	s.pending = append(s.pending, &e)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Flush returns when everything recorded before the call is written, or counted as shed.
func (s *Store) Flush(ctx context.Context) error {
	return s.do(ctx, func(context.Context, *transaction) error { return nil })
}

// do writes what comes behind all evidence that was recorded before, and waits for the commit.
func (s *Store) do(ctx context.Context, run func(context.Context, *transaction) error) error {
	return s.submit(ctx, &op{run: run, done: make(chan struct{})})
}

// doBare writes what is no evidence, and waits for the commit: in a storm of requests
// nobody waits for an address until what was said about everybody is written.
func (s *Store) doBare(ctx context.Context, run func(context.Context, *transaction) error) error {
	return s.submit(ctx, &op{run: run, bare: true, done: make(chan struct{})})
}

// submit hands a write to the group-commit goroutine.
func (s *Store) submit(ctx context.Context, o *op) error {
	select {
	case s.ops <- o:
	case <-s.done:
		return lane.Errorf(lane.Unavailable, "the store is stopped")
	case <-ctx.Done():
		return broken("queue a write", ctx.Err())
	}
	// Once queued, the write may be committed: the caller waits for its fate even
	// when its own context ends, or it would not know.
	select {
	case <-o.done:
		return o.err
	case <-s.done:
		return lane.Errorf(lane.Unavailable, "the store stopped before the write was confirmed")
	}
}

// Run commits writes until ctx ends, then writes what is queued and returns.
func (s *Store) Run(ctx context.Context) error {
	defer close(s.done)
	// Writes that are queued when ctx ends are still owed an answer.
	work := context.WithoutCancel(ctx)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	more := make(chan struct{}) // ready while there is evidence to write
	close(more)
	waiting, busy := false, false
	for {
		var backlog chan struct{}
		if len(s.backlog) > 0 {
			backlog = more
		}
		select {
		case o := <-s.ops:
			if busy {
				time.Sleep(gatherFor)
			}
			batch := s.gather(o)
			busy = len(batch) >= busyBatch
			s.commit(work, batch)
		case <-backlog:
			s.commit(work, s.gather(nil))
		case <-s.wake:
			if !waiting { // let evidence gather: it is not what anybody waits for
				timer.Reset(evidenceAfter)
				waiting = true
			}
		case <-timer.C:
			if waiting = len(s.backlog) > 0; waiting { // what more comes in is shed when it is too much
				timer.Reset(evidenceAfter)
			} else {
				s.takePending()
			}
		case <-ctx.Done():
			s.commit(work, append(s.gather(nil), everything()))
			if s.gap.Load() > 0 { // what this last commit shed is said as well
				s.commit(work, []*op{everything()})
			}
			return nil
		}
	}
}

// everything is a write that has nothing to say but comes behind all evidence.
func everything() *op {
	return &op{run: func(context.Context, *transaction) error { return nil }, done: make(chan struct{})}
}

// evidenceAfter is how long evidence gathers that nobody waits for. It is written in
// chunks, and small ones beside what somebody waits for, until much has gathered: all of
// a storm's evidence at once would hold up the addresses for longer than firmware waits.
const (
	evidenceAfter = 100 * time.Millisecond
	chunk         = 128
	chunkBeside   = 8
	much          = 4096
)

// While many write at once, a commit waits a moment for more of them: it costs as much
// for a hundred as for one. Who writes alone is not kept waiting.
const (
	busyBatch = 4
	gatherFor = time.Millisecond
)

func (s *Store) gather(first *op) []*op {
	var batch []*op
	if first != nil {
		batch = append(batch, first)
	}
	for len(batch) < maxBatch {
		select {
		case o := <-s.ops:
			batch = append(batch, o)
			continue
		default:
		}
		break
	}
	return batch
}

// commit writes the batch in one transaction: behind all evidence that is queued, or
// where nobody asks for that, behind some of what has gathered.
func (s *Store) commit(ctx context.Context, batch []*op) {
	n := min(chunk, len(s.backlog))
	if len(batch) > 0 && len(s.backlog) < much {
		n = min(chunkBeside, n)
	}
	if slices.ContainsFunc(batch, func(o *op) bool { return !o.bare }) {
		s.takePending()
		n = len(s.backlog)
	}
	if n == 0 {
		s.write(ctx, batch)
		return
	}
	events := s.backlog[:n]
	s.backlog = s.backlog[n:]
	var spent *spending
	lines := &op{done: make(chan struct{}), run: func(ctx context.Context, tx *transaction) error {
		spent = s.budget.open(s.now())
		return s.putEvents(ctx, tx, events, spent)
	}}
	s.write(ctx, append([]*op{lines}, batch...))
	if lines.err == nil {
		s.budget.close(spent)
		s.gap.Add(spent.shed)
	} else {
		s.gap.Add(count(events))
	}
}

// write commits ops together and tells who waits. When that fails, each gets a
// transaction of its own, so that one bad write spoils no other.
func (s *Store) write(ctx context.Context, ops []*op) {
	if err := s.transact(ctx, ops); err != nil {
		for i, o := range ops {
			if err := s.transact(ctx, ops[i:i+1]); err != nil {
				o.err = err
			}
		}
	}
	for _, o := range ops {
		close(o.done)
	}
}

// takePending puts what was recorded behind the evidence that is to be written.
func (s *Store) takePending() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.backlog) == 0 {
		s.backlog = s.pending
	} else {
		s.backlog = append(s.backlog, s.pending...)
	}
	s.pending, s.byKey = make([]*lane.Event, 0, len(s.pending)), make(map[string]int, len(s.byKey)) // about as many come again
	if n := s.gap.Swap(0); n > 0 {
		s.backlog = append(s.backlog, &lane.Event{Subject: lane.SubjectServer, At: s.now(), Kind: lane.KindGap, By: "server", Count: int(n),
			Message: "lines of evidence were shed: more came in than can be written, or about more unknown machines than are kept in an hour (20,000 lines) or a day (10,000 machines); `tcpdump -ni IFACE port 67` shows who floods"})
	}
}

func (s *Store) transact(ctx context.Context, ops []*op) error {
	tx, err := s.writes.begin(ctx)
	if err != nil {
		return err
	}
	for _, o := range ops {
		o.err = o.run(ctx, tx)
		if lane.CodeOf(o.err) == lane.Conflict {
			continue // it has changed nothing: the record's revision is looked at first
		}
		if o.err != nil {
			return errors.Join(o.err, tx.tx.Rollback())
		}
	}
	if err := tx.tx.Commit(); err != nil {
		return broken("commit", err)
	}
	s.remember(tx.staged)
	return nil
}

// remember takes over what is committed by now. Whoever is told of the commit finds it so.
func (s *Store) remember(c staged) {
	if len(s.recent)+len(c.recent) > maxRecent {
		clear(s.recent)
	}
	maps.Copy(s.recent, c.recent)
	if s.inventory == nil {
		return
	}
	if len(s.heads) > s.inventory.size()+maxRecent {
		maps.DeleteFunc(s.heads, func(subject string, _ head) bool { return strings.HasPrefix(subject, strangers) })
	}
	maps.Copy(s.heads, c.heads)
	s.inventory.put(c.records)
	s.lifecycle.put(c.bundles, c.aliases)
	for subject := range c.heads {
		if strings.HasPrefix(subject, strangers) {
			s.inventory.hear(subject)
		}
	}
}

// putEvents writes events as far as the budget goes.
func (s *Store) putEvents(ctx context.Context, tx *transaction, events []*lane.Event, spent *spending) error {
	for _, e := range events {
		if err := s.putLimited(ctx, tx, *e, spent); err != nil {
			return err
		}
	}
	return nil
}

// putLimited writes what a machine only said. Anybody can say anything in any
// machine's name: beyond the budget it is counted, a line a minute for a machine
// with a record and one for all others, and not kept. What changes a record is
// not limited.
func (s *Store) putLimited(ctx context.Context, tx *transaction, e lane.Event, spent *spending) error {
	if done, err := s.repeat(ctx, tx, &e); done || err != nil {
		return err
	}
	stranger := strings.HasPrefix(e.Subject, strangers)
	if stranger && s.spent(tx, spent, e.Subject) {
		spent.shed += int64(e.Count)
		return nil
	}
	prev, err := s.lastOf(ctx, tx, e.Subject)
	if err != nil {
		return err
	}
	if s.budget.allows(spent, e.Subject, stranger, prev.seq == 0) {
		spent.add(e.Subject, stranger, prev.seq == 0)
		_, err := s.seal(ctx, tx, prev, e)
		return err
	}
	if stranger {
		spent.shed += int64(e.Count)
		return nil
	}
	_, err = s.putEvent(ctx, tx, lane.Event{Subject: e.Subject, At: e.At, Kind: lane.KindGap, By: "server", Count: e.Count,
		Message: "more lines of evidence came in within an hour than are kept: these are only counted"})
	return err
}

// count returns how many lines of evidence the events stand for.
func count(events []*lane.Event) (n int64) {
	for _, e := range events {
		n += int64(max(e.Count, 1))
	}
	return n
}

func (s *Store) putHost(ctx context.Context, tx *transaction, h lane.Host, was int64) error {
	doc, err := json.Marshal(h)
	if err != nil {
		return broken("encode the record of "+string(h.ID), err)
	}
	var deadline int64
	if h.Run.Open {
		deadline = h.Run.Deadline.UnixMicro()
	}
	var res sql.Result
	if was == 0 {
		res, err = tx.exec(ctx, insertHost, string(h.ID), string(h.State), h.Rev, h.Run.Capability, deadline, string(doc))
	} else {
		res, err = tx.exec(ctx, updateHost,
			string(h.State), h.Rev, h.Run.Capability, deadline, string(doc), string(h.ID), was)
	}
	if err != nil {
		return broken("write the record of "+string(h.ID), err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return broken("count written rows", err)
	}
	if n == 0 {
		return lane.Errorf(lane.Conflict, "the record of %s was changed by somebody else: read it again and retry", h.ID)
	}
	claims := h.Claims()
	if s.inventory != nil {
		tx.staged.records = append(tx.staged.records, record{h.ID, string(doc)})
	}
	return s.putClaims(ctx, tx, h.ID, claims)
}

func (s *Store) putClaims(ctx context.Context, tx *transaction, id lane.HostID, claims []string) error {
	rows, err := tx.rows(ctx, selectClaims, string(id))
	if err != nil {
		return broken("read claims", err)
	}
	have, err := collect(rows, scanString)
	if err != nil {
		return err
	}
	old := map[string]bool{}
	for _, c := range have {
		old[c] = true
	}
	for _, c := range claims {
		if old[c] {
			delete(old, c)
			continue
		}
		if _, err := tx.exec(ctx, insertClaim, c, string(id)); err != nil {
			return broken("write a claim", err)
		}
	}
	for c := range old {
		if _, err := tx.exec(ctx, deleteClaim, c, string(id)); err != nil {
			return broken("remove a claim", err)
		}
	}
	return nil
}

// repeat counts an event that only repeats a recent one, and reports whether it did.
func (s *Store) repeat(ctx context.Context, tx *transaction, e *lane.Event) (bool, error) {
	e.At = e.At.UTC().Truncate(time.Microsecond)
	e.Count = max(e.Count, 1)
	key := e.CoalesceKey()
	prev, ok := tx.staged.recent[key]
	if !ok {
		prev, ok = s.recent[key]
	}
	if !ok {
		return false, nil
	}
	merged, ok := lane.Coalesce(*prev, *e)
	if !ok {
		return false, nil
	}
	if _, err := tx.exec(ctx, countEvent, merged.Count, merged.LastAt.UnixMicro(), merged.Subject, merged.Seq); err != nil {
		return false, broken("count an event", err)
	}
	tx.staged.recent[key], *e = &merged, merged
	return true, nil
}

// putEvent seals the event behind the last one of its subject, or counts it as
// a repetition of a recent one.
func (s *Store) putEvent(ctx context.Context, tx *transaction, e lane.Event) (lane.Event, error) {
	if done, err := s.repeat(ctx, tx, &e); done || err != nil {
		return e, err
	}
	prev, err := s.lastOf(ctx, tx, e.Subject)
	if err != nil {
		return e, err
	}
	return s.seal(ctx, tx, prev, e)
}

// lastOf returns the end of a subject's chain, or zeros.
func (s *Store) lastOf(ctx context.Context, tx *transaction, subject string) (last head, err error) {
	if last, ok := tx.staged.heads[subject]; ok {
		return last, nil
	}
	if last, ok := s.heads[subject]; ok {
		return last, nil
	}
	if s.inventory != nil && strings.HasPrefix(subject, strangers) && s.inventory.unheard(subject) {
		return head{}, nil
	}
	var seq int64
	var hash string
	err = tx.row(ctx, lastEvent, subject).Scan(&seq, &hash)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return last, broken("read the last event", err)
	}
	return headOf(seq, hash), nil
}

// seal writes the event behind the last one.
func (s *Store) seal(ctx context.Context, tx *transaction, prev head, e lane.Event) (lane.Event, error) {
	e, doc, err := lane.Seal(prev.event(), e)
	if err != nil {
		return e, err
	}
	var last, lasting int64
	if !e.LastAt.IsZero() {
		last = e.LastAt.UnixMicro()
	}
	if e.Kind.Lasting() {
		lasting = 1
	}
	if _, err := tx.exec(ctx, insertEvent,
		e.Subject, e.Seq, e.At.UnixMicro(), last, e.Count, e.Hash, string(doc), lasting); err != nil {
		return e, broken("write an event", err)
	}
	tx.staged.recent[e.CoalesceKey()] = &e
	tx.staged.heads[e.Subject] = headOf(e.Seq, e.Hash)
	return e, nil
}

// spent reports whether nothing more can be written about an unknown machine: in a flood
// of invented addresses that is known without asking the database.
func (s *Store) spent(tx *transaction, now *spending, subject string) bool {
	if !s.budget.allows(now, subject, true, false) {
		return true
	}
	_, heard := tx.staged.heads[subject]
	return s.inventory != nil && !heard && !s.budget.allows(now, subject, true, true) && s.inventory.unheard(subject)
}
