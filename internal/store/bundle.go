package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"

	"bootlane/internal/lane"
)

// lifecycle is what is on record about bundles, in memory: a boot storm asks for it with
// every packet. Like the inventory it is of use only where nobody else writes.
type lifecycle struct {
	mu      sync.RWMutex
	bundles map[lane.Digest]lane.BundleRecord
	aliases map[string]lane.BundleAlias
}

// newLifecycle reads every record.
func newLifecycle(ctx context.Context, s *Store) (*lifecycle, error) {
	l := &lifecycle{bundles: map[lane.Digest]lane.BundleRecord{}, aliases: map[string]lane.BundleAlias{}}
	records, err := docs[lane.BundleRecord](ctx, s, `SELECT doc FROM bundles`)
	if err != nil {
		return nil, err
	}
	aliases, err := docs[lane.BundleAlias](ctx, s, `SELECT doc FROM bundle_aliases`)
	l.put(records, aliases)
	return l, err
}

// put takes over committed records.
func (l *lifecycle) put(records []lane.BundleRecord, aliases []lane.BundleAlias) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range records {
		l.bundles[r.Digest] = r
	}
	for _, a := range aliases {
		l.aliases[a.Name] = a
	}
}

// BundleRecords returns what is on record about the bundles of a name, or about all of
// them where the name is empty, by name and version.
func (s *Store) BundleRecords(ctx context.Context, name string) (out []lane.BundleRecord, err error) {
	switch l := s.lifecycle; {
	case l != nil:
		l.mu.RLock()
		out = slices.Collect(maps.Values(l.bundles))
		l.mu.RUnlock()
		out = slices.DeleteFunc(out, func(r lane.BundleRecord) bool { return name != "" && r.Name != name })
	case name == "":
		out, err = docs[lane.BundleRecord](ctx, s, `SELECT doc FROM bundles`)
	default:
		out, err = docs[lane.BundleRecord](ctx, s, `SELECT doc FROM bundles WHERE name = $1`, name)
	}
	slices.SortFunc(out, func(a, b lane.BundleRecord) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return lane.CompareVersions(a.Version, b.Version)
	})
	return out, err
}

// Alias returns one alias; a missing one is a NotFound error.
func (s *Store) Alias(ctx context.Context, name string) (lane.BundleAlias, error) {
	var list []lane.BundleAlias
	var err error
	if l := s.lifecycle; l != nil {
		l.mu.RLock()
		if a, ok := l.aliases[name]; ok {
			list = append(list, a)
		}
		l.mu.RUnlock()
	} else {
		list, err = docs[lane.BundleAlias](ctx, s, `SELECT doc FROM bundle_aliases WHERE name = $1`, name)
	}
	if err == nil && len(list) == 0 {
		err = lane.Errorf(lane.NotFound, "no alias %q: `bootlane bundle alias` shows those that are", name)
	}
	if err != nil {
		return lane.BundleAlias{}, err
	}
	return list[0], nil
}

// Aliases returns every alias, those that were removed as well, by name.
func (s *Store) Aliases(ctx context.Context) (out []lane.BundleAlias, err error) {
	if l := s.lifecycle; l != nil {
		l.mu.RLock()
		out = slices.Collect(maps.Values(l.aliases))
		l.mu.RUnlock()
	} else {
		out, err = docs[lane.BundleAlias](ctx, s, `SELECT doc FROM bundle_aliases`)
	}
	slices.SortFunc(out, func(a, b lane.BundleAlias) int { return strings.Compare(a.Name, b.Name) })
	return out, err
}

// AppendBundle stores a changed record of a bundle together with the event that says why,
// in one transaction. r.Rev is the revision the change was made from, 0 for a new record;
// when somebody else changed it since, nothing is stored and the error is a Conflict.
func (s *Store) AppendBundle(ctx context.Context, r lane.BundleRecord, e lane.Event) (lane.BundleRecord, error) {
	next := r
	next.Rev++
	err := s.do(ctx, func(ctx context.Context, tx *transaction) error {
		doc, err := json.Marshal(next)
		if err != nil {
			return broken("encode the record of "+r.Ref(), err)
		}
		if r.Rev == 0 {
			err = tx.change(ctx, insertBundle, string(r.Digest), r.Name, r.Version, next.Rev, string(doc))
		} else {
			err = tx.change(ctx, updateBundle, next.Rev, string(doc), string(r.Digest), r.Rev)
		}
		if err != nil {
			return err
		}
		tx.staged.bundles = append(tx.staged.bundles, next)
		_, err = s.putEvent(ctx, tx, e)
		return err
	})
	if err != nil {
		return r, err
	}
	return next, nil
}

// AppendAlias stores a moved alias together with the event that says who moved it and why.
// See [Store.AppendBundle].
func (s *Store) AppendAlias(ctx context.Context, a lane.BundleAlias, e lane.Event) (lane.BundleAlias, error) {
	next := a
	next.Rev++
	err := s.do(ctx, func(ctx context.Context, tx *transaction) error {
		doc, err := json.Marshal(next)
		if err != nil {
			return broken("encode the alias "+a.Name, err)
		}
		if a.Rev == 0 {
			err = tx.change(ctx, insertAlias, a.Name, next.Rev, string(doc))
		} else {
			err = tx.change(ctx, updateAlias, next.Rev, string(doc), a.Name, a.Rev)
		}
		if err != nil {
			return err
		}
		tx.staged.aliases = append(tx.staged.aliases, next)
		_, err = s.putEvent(ctx, tx, e)
		return err
	})
	if err != nil {
		return a, err
	}
	return next, nil
}

// change runs a statement that writes one row, and makes it a Conflict where it wrote none.
func (t *transaction) change(ctx context.Context, text string, args ...any) error {
	res, err := t.exec(ctx, text, args...)
	if err != nil {
		return broken("write a record", err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return broken("count written rows", err)
	}
	if n == 0 {
		return lane.Errorf(lane.Conflict, "the record was changed by somebody else: read it again and retry")
	}
	return nil
}

// docs reads records that are kept as JSON.
func docs[T any](ctx context.Context, s *Store, query string, args ...any) ([]T, error) {
	rows, err := s.reads.query(ctx, query, args...)
	if err != nil {
		return nil, broken("read records", err)
	}
	return collect(rows, func(r *sql.Rows) (out T, err error) {
		var doc string
		if err := r.Scan(&doc); err != nil {
			return out, err
		}
		return out, json.Unmarshal([]byte(doc), &out)
	})
}
