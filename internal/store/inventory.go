package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"hash/maphash"
	"slices"
	"strings"
	"sync"

	"bootlane/internal/lane"
)

// inventory is every record as it was last committed, in memory: what a segment asks
// about, again and again, needs no database for it. It is of use only to the one process
// that writes the database.
//
// Records are kept encoded and claims as hashes. That is a third of the size, a hundred
// thousand records take about 50 MB, and leaves the garbage collector nothing to walk
// through; and each caller gets a copy of its own. Of half a million claims some thirty
// pairs share a hash of 32 bits: whoever asks compares the claims themselves.
type inventory struct {
	seed maphash.Seed

	mu      sync.RWMutex
	records []record
	byID    map[lane.HostID]int32
	claims  map[claimHash]int32   // to a record that makes the claim
	shared  map[claimHash][]int32 // and to the others that make the same one
	heard   map[uint64]struct{}   // unknown machines that left evidence
}

type claimHash uint32

// record is one host's, as the database has it.
type record struct {
	id  lane.HostID
	doc string
}

// strangers is how the subject of evidence about an unknown machine begins.
const strangers = "mac:"

// newInventory reads every record, and the name of every unknown machine that left evidence.
func newInventory(ctx context.Context, db *sql.DB) (*inventory, error) {
	inv := &inventory{seed: maphash.MakeSeed(), byID: map[lane.HostID]int32{}, claims: map[claimHash]int32{}, shared: map[claimHash][]int32{}, heard: map[uint64]struct{}{}}
	rows, err := db.QueryContext(ctx, `SELECT id, doc FROM hosts ORDER BY id`)
	if err != nil {
		return nil, broken("read the inventory", err)
	}
	records, err := collect(rows, func(r *sql.Rows) (out record, err error) {
		return out, r.Scan(&out.id, &out.doc)
	})
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		h, err := r.host()
		if err != nil {
			return nil, err
		}
		inv.set(r, inv.hashes(h.Claims()))
	}
	if rows, err = db.QueryContext(ctx, `SELECT DISTINCT subject FROM events WHERE subject LIKE 'mac:%'`); err != nil {
		return nil, broken("read the unknown machines", err)
	}
	subjects, err := collect(rows, scanString)
	if err != nil {
		return nil, err
	}
	for _, s := range subjects {
		inv.hear(s)
	}
	return inv, nil
}

// readHeads returns the end of the evidence chain of every host.
func readHeads(ctx context.Context, db *sql.DB) (map[string]head, error) {
	rows, err := db.QueryContext(ctx, `SELECT e.subject, e.seq, e.hash FROM hosts h JOIN events e
		ON e.subject = h.id AND e.seq = (SELECT MAX(seq) FROM events WHERE subject = h.id)`)
	if err != nil {
		return nil, broken("read the ends of the evidence chains", err)
	}
	heads := map[string]head{}
	_, err = collect(rows, func(r *sql.Rows) (_ struct{}, err error) {
		var subject, hash string
		var seq int64
		err = r.Scan(&subject, &seq, &hash)
		heads[subject] = headOf(seq, hash)
		return struct{}{}, err
	})
	return heads, err
}

// put takes over committed records.
func (inv *inventory) put(records []record) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	for _, r := range records {
		inv.set(r, inv.claimsOf(r))
	}
}

func (inv *inventory) set(r record, claims []claimHash) {
	n, known := inv.byID[r.id]
	if known {
		for _, c := range inv.claimsOf(inv.records[n]) {
			inv.disclaim(c, n)
		}
		inv.records[n] = r
	} else {
		n = int32(len(inv.records))
		inv.byID[r.id] = n
		inv.records = append(inv.records, r)
	}
	for _, c := range claims {
		inv.claim(c, n)
	}
}

// claimsOf reads a record's claims anew: to keep them for all takes more memory than it
// saves time. That it can be read was seen before.
func (inv *inventory) claimsOf(r record) []claimHash {
	h, err := r.host()
	if err != nil {
		return nil
	}
	return inv.hashes(h.Claims())
}

func (inv *inventory) claim(c claimHash, n int32) {
	switch first, ok := inv.claims[c]; {
	case !ok:
		inv.claims[c] = n
	case first != n && !slices.Contains(inv.shared[c], n):
		inv.shared[c] = append(inv.shared[c], n)
	}
}

func (inv *inventory) disclaim(c claimHash, n int32) {
	others := slices.DeleteFunc(inv.shared[c], func(o int32) bool { return o == n })
	if first, ok := inv.claims[c]; ok && first == n {
		delete(inv.claims, c)
		if len(others) > 0 {
			inv.claims[c], others = others[0], others[1:]
		}
	}
	if inv.shared[c] = others; len(others) == 0 {
		delete(inv.shared, c)
	}
}

// claimants returns the records that make one of the claims, each once, by id.
func (inv *inventory) claimants(claims []string) ([]lane.Host, error) {
	var out []lane.Host
	for _, r := range inv.candidates(claims) {
		h, err := r.host()
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(h.Claims(), func(c string) bool { return slices.Contains(claims, c) }) { // and not its hash only
			out = append(out, h)
		}
	}
	slices.SortFunc(out, func(a, b lane.Host) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return out, nil
}

func (inv *inventory) candidates(claims []string) (out []record) {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	var found []int32
	for _, c := range claims {
		h := claimHash(inv.hash(c))
		n, ok := inv.claims[h]
		if !ok {
			continue
		}
		for _, n := range append([]int32{n}, inv.shared[h]...) {
			if !slices.Contains(found, n) {
				found = append(found, n)
				out = append(out, inv.records[n])
			}
		}
	}
	return out
}

// size returns the number of hosts.
func (inv *inventory) size() int {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return len(inv.records)
}

// hear remembers that an unknown machine has left evidence.
func (inv *inventory) hear(subject string) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	inv.heard[inv.hash(subject)] = struct{}{}
}

// unheard reports that an unknown machine has certainly left no evidence yet.
func (inv *inventory) unheard(subject string) bool {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	_, ok := inv.heard[inv.hash(subject)]
	return !ok
}

func (inv *inventory) hash(s string) uint64 { return maphash.String(inv.seed, s) }

func (inv *inventory) hashes(claims []string) []claimHash {
	out := make([]claimHash, len(claims))
	for i, c := range claims {
		out[i] = claimHash(inv.hash(c))
	}
	return out
}

func (r record) host() (h lane.Host, err error) {
	if err := json.Unmarshal([]byte(r.doc), &h); err != nil {
		return h, broken("decode the record of "+string(r.id), err)
	}
	return h, nil
}
