package store

import (
	"context"
	"database/sql"
	"net/netip"
	"time"

	"bootlane/internal/lane"
)

// PutLease stores a lease and returns after the commit. Any older lease of the
// same address ends with it, and any other of the same client: an address has one
// holder, and a client one address. What a client declined stays set aside.
func (s *Store) PutLease(ctx context.Context, l lane.Lease) error {
	return s.do(ctx, func(ctx context.Context, tx *transaction) error {
		if _, err := tx.exec(ctx, endLease, string(l.MAC), l.Address.String()); err != nil {
			return broken("end a client's older lease", err)
		}
		_, err := tx.exec(ctx, putLease,
			l.Address.String(), string(l.MAC), string(l.State), l.Granted.UnixMicro(), l.Expires.UnixMicro())
		if err != nil {
			return broken("write a lease", err)
		}
		return nil
	})
}

// DropLease removes whatever is stored about an address, and returns after the commit.
func (s *Store) DropLease(ctx context.Context, a netip.Addr) error {
	return s.do(ctx, func(ctx context.Context, tx *transaction) error {
		if _, err := tx.exec(ctx, dropLease, a.String()); err != nil {
			return broken("remove a lease", err)
		}
		return nil
	})
}

// Leases returns every lease, active or not, by address as text.
func (s *Store) Leases(ctx context.Context) ([]lane.Lease, error) {
	return s.leases(ctx, `SELECT mac, address, state, granted, expires FROM leases ORDER BY address`)
}

// LeasesAfter returns up to limit of them behind an address as text.
func (s *Store) LeasesAfter(ctx context.Context, after string, limit int) ([]lane.Lease, error) {
	return s.leases(ctx, `SELECT mac, address, state, granted, expires FROM leases WHERE address > $1 ORDER BY address LIMIT $2`, after, limit)
}

func (s *Store) leases(ctx context.Context, query string, args ...any) ([]lane.Lease, error) {
	rows, err := s.reads.query(ctx, query, args...)
	if err != nil {
		return nil, broken("read leases", err)
	}
	return collect(rows, func(r *sql.Rows) (lane.Lease, error) {
		var mac, address, state string
		var granted, expires int64
		if err := r.Scan(&mac, &address, &state, &granted, &expires); err != nil {
			return lane.Lease{}, err
		}
		a, err := netip.ParseAddr(address)
		return lane.Lease{MAC: lane.MAC(mac), Address: a, State: lane.LeaseState(state),
			Granted: time.UnixMicro(granted).UTC(), Expires: time.UnixMicro(expires).UTC()}, err
	})
}
