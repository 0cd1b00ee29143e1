package dhcp6

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"bootlane/internal/lane"
)

// TestReleasedIsFreeAtOnce: also when the list of idle addresses was made anew since.
func TestReleasedIsFreeAtOnce(t *testing.T) {
	p := newPool(netip.MustParseAddr("fd77::10"), netip.MustParseAddr("fd77::19"), nil)
	lease := func(n int, state lane.LeaseState, at, until time.Time) {
		a, _, _ := p.choose(applicant{client: nobody(n)}, anything, at)
		p.set(lane.Lease6{Client: nobody(n), Address: a, State: state, Granted: at, Expires: until})
	}
	for n := range 10 {
		lease(n, lane.LeaseActive, noon, noon.Add(24*time.Hour))
	}
	for n := range 9 {
		at := noon.Add(time.Minute)
		lease(n, lane.LeaseReleased, at, at)
	}
	for i := range 4000 {
		at := noon.Add(2*time.Minute + time.Duration(i)*time.Second)
		lease(9, lane.LeaseActive, at, at.Add(24*time.Hour))
	}
	if _, ok, _ := p.choose(applicant{client: nobody(20)}, anything, noon.Add(3*time.Hour)); !ok {
		t.Errorf("none is free: %+v", p.usage(noon.Add(3*time.Hour)))
	}
}

// TestPreemptLeavesLeases: a client that asks anew while its lease runs, or whose lease is
// on its way to the disk, loses it to nobody.
func TestPreemptLeavesLeases(t *testing.T) {
	a := netip.MustParseAddr("fd77::10")
	for name, have := range map[string]func(*pool){
		"leased": func(p *pool) {
			p.set(lane.Lease6{Client: nobody(1), Address: a, State: lane.LeaseActive, Granted: noon, Expires: noon.Add(time.Hour)})
			_, _, _ = p.choose(applicant{client: nobody(1)}, anything, noon)
		},
		"being written": func(p *pool) {
			_, _, _ = p.choose(applicant{client: nobody(1)}, anything, noon)
			if ok, _ := p.write(nobody(1), []netip.Addr{a}, noon); !ok {
				t.Error("its own offer is not its own")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPool(a, a, nil)
			have(p)
			later := noon.Add(12 * time.Second)
			if got, ok, _ := p.choose(applicant{client: nobody(2), known: true}, anything, later); ok {
				t.Errorf("its address %s is offered to another client", got)
			}
			if ok, _ := p.write(nobody(2), []netip.Addr{a}, later); ok {
				t.Error("another client's lease of it is written")
			}
			if !p.available(nobody(1), a, later) {
				t.Error("it cannot renew")
			}
		})
	}
}

// TestManyReserved: addresses that may not be given are passed over in no time.
func TestManyReserved(t *testing.T) {
	first := netip.MustParseAddr("fd77::8000")
	p := newPool(netip.MustParseAddr("fd77::"), netip.MustParseAddr("fd77::ffff"), nil)
	a, ok, err := p.choose(applicant{client: nobody(1)}, func(a netip.Addr) (bool, error) { return !a.Less(first), nil }, noon)
	if !ok || err != nil || a != first {
		t.Errorf("%s, %v, %v", a, ok, err)
	}
}

// gated is a store whose PutLease6 waits.
type gated struct {
	Leases
	at, on chan struct{}
}

func (g *gated) PutLease6(ctx context.Context, l ...lane.Lease6) error {
	g.at <- struct{}{}
	<-g.on
	return g.Leases.PutLease6(ctx, l...)
}

// TestOneAfterTheOther: a second word of a client waits for the first.
func TestOneAfterTheOther(t *testing.T) {
	r := newRig(t)
	g := &gated{r.cfg.Leases, make(chan struct{}), make(chan struct{})}
	c := nth(1)
	r.expect(c, c.build(solicit, na(1)), "ADVERTISE fd77::50/1h0m0s")
	r.cfg.Leases = g
	say := func(b []byte) chan reply {
		q, err := parse(b, netip.AddrPortFrom(netip.MustParseAddr(c.from), clientPort))
		if err != nil {
			t.Fatal(err)
		}
		q.iface = "test"
		done := make(chan reply, 1)
		go func() { a, _ := r.handle(t.Context(), q); done <- a }()
		return done
	}
	granted := say(c.build(request, na(1, "fd77::50")))
	<-g.at
	released := say(c.build(release, na(1, "fd77::50")))
	g.on <- struct{}{}
	if a := <-granted; a.kind != replying {
		t.Errorf("the lease: %+v", a)
	}
	<-g.at
	g.on <- struct{}{}
	if a := <-released; a.kind != replying {
		t.Errorf("the release: %+v", a)
	}
	stored, err := r.store.Leases6(t.Context())
	l, ok := r.scopes[0].pool.at(netip.MustParseAddr("fd77::50"))
	if err != nil || !ok || len(stored) != 1 || stored[0].State != lane.LeaseReleased || l.State != lane.LeaseReleased {
		t.Errorf("in memory %+v, stored %+v, %v", l, stored, err)
	}
}
