package store

import (
	"context"
	"database/sql"
	"hash/maphash"
	"sync"
)

// index knows which claims some record may make, and which unknown machines were heard.
// Nearly everything that a segment asks about is claimed by nobody, and four questions
// out of five need no database for that.
//
// It only grows: a claim that was given up costs a look-up until the next start. It is
// of use only to the one process that writes the database.
type index struct {
	seed maphash.Seed

	mu     sync.RWMutex
	claims map[uint64]struct{} // hashes: a collision costs a look-up as well
}

// strangers is how the subject of evidence about an unknown machine begins, and heard how
// such a subject is called in the index.
const (
	strangers = "mac:"
	heard     = "heard "
)

// newIndex reads every claim, and every unknown machine that left evidence.
func newIndex(ctx context.Context, db *sql.DB) (*index, error) {
	i := &index{seed: maphash.MakeSeed(), claims: map[uint64]struct{}{}}
	rows, err := db.QueryContext(ctx, `SELECT claim FROM claims`)
	if err != nil {
		return nil, broken("read the claims", err)
	}
	claims, err := collect(rows, scanString)
	if err != nil {
		return nil, err
	}
	if rows, err = db.QueryContext(ctx, `SELECT DISTINCT subject FROM events WHERE subject LIKE 'mac:%'`); err != nil {
		return nil, broken("read the unknown machines", err)
	}
	subjects, err := collect(rows, scanString)
	if err != nil {
		return nil, err
	}
	for _, c := range claims {
		i.add(c)
	}
	for _, s := range subjects {
		i.add(heard + s)
	}
	return i, nil
}

// add must come before the commit that makes a claim true.
func (i *index) add(claim string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.claims[maphash.String(i.seed, claim)] = struct{}{}
}

// known returns the claims that some record may make.
func (i *index) known(claims []string) []string {
	i.mu.RLock()
	defer i.mu.RUnlock()
	var out []string
	for _, c := range claims {
		if _, ok := i.claims[maphash.String(i.seed, c)]; ok {
			out = append(out, c)
		}
	}
	return out
}
