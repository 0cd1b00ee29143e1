package store

import (
	"context"
	"database/sql"
	"net/netip"
	"time"

	"bootlane/internal/lane"
)

// PutLease stores a lease and returns after the commit. Any older lease of the same
// address ends with it, and the client's own of another address where that is given: a
// client has one in each network. What it declined stays set aside.
func (s *Store) PutLease(ctx context.Context, l lane.Lease, instead netip.Addr) error {
	return s.doBare(ctx, func(ctx context.Context, tx *transaction) error {
		if instead.IsValid() {
			if _, err := tx.exec(ctx, endLease, string(l.MAC), instead.String()); err != nil {
				return broken("end a client's older lease", err)
			}
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
	return s.doBare(ctx, func(ctx context.Context, tx *transaction) error {
		if _, err := tx.exec(ctx, dropLease, a.String()); err != nil {
			return broken("remove a lease", err)
		}
		return nil
	})
}

// Leases returns every lease, active or not, the newest of a client last: of two that are stored of one client it holds.
func (s *Store) Leases(ctx context.Context) ([]lane.Lease, error) {
	rows, err := s.reads.query(ctx, `SELECT mac, address, state, granted, expires FROM leases ORDER BY granted, address`)
	if err != nil {
		return nil, broken("read leases", err)
	}
	return collect(rows, func(r *sql.Rows) (lane.Lease, error) {
		l, err := scanLease(r)
		return lane.Lease{MAC: lane.MAC(l.Client), Address: l.Address, State: l.State, Granted: l.Granted, Expires: l.Expires}, err
	})
}

// LeaseAt returns the lease of an address, active or not, or NotFound.
func (s *Store) LeaseAt(ctx context.Context, a netip.Addr) (lane.LeaseOf, error) {
	rows, err := s.reads.query(ctx, `SELECT mac, address, state, granted, expires FROM leases WHERE address = $1
UNION ALL SELECT client, address, state, granted, expires FROM leases6 WHERE address = $1`, a.String())
	if err != nil {
		return lane.LeaseOf{}, broken("read the lease of an address", err)
	}
	list, err := collect(rows, scanLeaseOf)
	if err != nil {
		return lane.LeaseOf{}, err
	}
	if len(list) == 0 {
		return lane.LeaseOf{}, lane.Errorf(lane.NotFound, "nobody has a lease of %s", a)
	}
	return list[0], nil
}

// LeasesAfter returns up to limit leases of IPv4 and IPv6 behind an address as text,
// without the hosts that they are of.
func (s *Store) LeasesAfter(ctx context.Context, after string, limit int) ([]lane.LeaseOf, error) {
	rows, err := s.reads.query(ctx, `SELECT mac, address, state, granted, expires FROM leases WHERE address > $1
UNION ALL SELECT client, address, state, granted, expires FROM leases6 WHERE address > $1 ORDER BY address LIMIT $2`, after, limit)
	if err != nil {
		return nil, broken("read leases", err)
	}
	return collect(rows, scanLeaseOf)
}

// scanLeaseOf reads a lease of IPv4 or IPv6.
func scanLeaseOf(r *sql.Rows) (lane.LeaseOf, error) {
	l, err := scanLease(r)
	out := lane.LeaseOf{Lease: lane.Lease{MAC: lane.MAC(l.Client), Address: l.Address, State: l.State, Granted: l.Granted, Expires: l.Expires}}
	if l.Address.Is6() {
		out.Client, out.MAC = l.Client, l.Client.MAC()
	}
	return out, err
}

// PutLease6 stores leases of IPv6, all of them or none, and returns after the commit. An
// address has one holder; a client may have several addresses.
func (s *Store) PutLease6(ctx context.Context, leases ...lane.Lease6) error {
	return s.doBare(ctx, func(ctx context.Context, tx *transaction) error {
		for _, l := range leases {
			if _, err := tx.exec(ctx, putLease6, l.Address.String(), string(l.Client), string(l.State), l.Granted.UnixMicro(), l.Expires.UnixMicro()); err != nil {
				return broken("write a lease of IPv6", err)
			}
		}
		return nil
	})
}

// DropLease6 removes whatever is stored about an IPv6 address, and returns after the commit.
func (s *Store) DropLease6(ctx context.Context, a netip.Addr) error {
	return s.doBare(ctx, func(ctx context.Context, tx *transaction) error {
		if _, err := tx.exec(ctx, dropLease6, a.String()); err != nil {
			return broken("remove a lease of IPv6", err)
		}
		return nil
	})
}

// Leases6 returns every lease of IPv6, active or not, those granted first first.
func (s *Store) Leases6(ctx context.Context) ([]lane.Lease6, error) {
	rows, err := s.reads.query(ctx, `SELECT client, address, state, granted, expires FROM leases6 ORDER BY granted, address`)
	if err != nil {
		return nil, broken("read leases of IPv6", err)
	}
	return collect(rows, scanLease)
}

// scanLease reads whom a lease is for, its address, state and times.
func scanLease(r *sql.Rows) (lane.Lease6, error) {
	var client, address, state string
	var granted, expires int64
	if err := r.Scan(&client, &address, &state, &granted, &expires); err != nil {
		return lane.Lease6{}, err
	}
	a, err := netip.ParseAddr(address)
	return lane.Lease6{Client: lane.Client(client), Address: a, State: lane.LeaseState(state),
		Granted: time.UnixMicro(granted).UTC(), Expires: time.UnixMicro(expires).UTC()}, err
}
