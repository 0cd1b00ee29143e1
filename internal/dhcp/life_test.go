package dhcp

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"bootlane/internal/lane"
)

// TestExpiredHolderAnswers: firmware and installers never renew, so whoever had an
// address last may use it still; it is not another client's then.
func TestExpiredHolderAnswers(t *testing.T) {
	p := newPool(ranged("10.0.0.10", "10.0.0.10"), nil)
	p.take(t, applicant{mac: nth(1)}, noon)
	a, later := netip.MustParseAddr("10.0.0.10"), noon.Add(2*time.Hour)
	if is, _ := p.answered(a, nth(1), noon.Add(time.Minute)); is != expected {
		t.Error("a client with a lease is news")
	}
	if is, _ := p.answered(a, nth(1), later); is != expected {
		t.Error("a client whose lease has expired is news")
	}
	if got := p.take(t, applicant{mac: nth(2)}, later); got != "" {
		t.Errorf("another client is given %s", got)
	}
	if got := p.take(t, applicant{mac: nth(1)}, later); got != a.String() {
		t.Errorf("its user is given %q", got)
	}
}

// TestExpiredLeaseIsReplaced: somebody else answers at an address whose lease has expired. Its holder then gets another
// one, and what is stored of the first must go: after a restart it would be taken for the holder's.
func TestExpiredLeaseIsReplaced(t *testing.T) {
	p := newPool(ranged("10.0.0.10", "10.0.0.11"), nil)
	first, later := netip.MustParseAddr("10.0.0.10"), noon.Add(2*time.Hour)
	p.set(lane.Lease{MAC: nth(1), Address: first, State: lane.LeaseActive, Granted: noon, Expires: noon.Add(time.Hour)})
	if is, _ := p.answered(first, nth(2), later); is != putAside {
		t.Error("a stranger is no news")
	}
	second, ok, err := p.choose(applicant{mac: nth(1)}, anything, later)
	if err != nil || !ok || second == first {
		t.Fatalf("the holder is given %s, %v, %v", second, ok, err)
	}
	if got := p.replaces(nth(1), second); got != first {
		t.Errorf("its new lease takes the place of %v", got)
	}
}

// TestReleasedIsFreeAtOnce: also when the list of idle addresses was made anew since.
func TestReleasedIsFreeAtOnce(t *testing.T) {
	p := newPool(ranged("10.0.0.10", "10.0.0.19"), nil)
	day := func(n int, state lane.LeaseState, at time.Time) {
		a, _, _ := p.choose(applicant{mac: nth(n)}, anything, at)
		until := at.Add(24 * time.Hour)
		if state == lane.LeaseReleased {
			until = at
		}
		p.set(lane.Lease{MAC: nth(n), Address: a, State: state, Granted: at, Expires: until})
	}
	for n := range 10 {
		day(n, lane.LeaseActive, noon)
	}
	for n := range 9 {
		day(n, lane.LeaseReleased, noon.Add(time.Minute))
	}
	for i := range 4000 {
		day(9, lane.LeaseActive, noon.Add(time.Duration(2*60+i)*time.Second))
	}
	if got := p.take(t, applicant{mac: nth(20)}, noon.Add(3*time.Hour)); got == "" {
		t.Errorf("none is free: %+v", p.usage(noon.Add(3*time.Hour)))
	}
}

// TestPreemptLeavesLeases: a client that asks anew while its lease runs loses it to nobody.
func TestPreemptLeavesLeases(t *testing.T) {
	p := newPool(ranged("10.0.0.10", "10.0.0.10"), nil)
	p.take(t, applicant{mac: nth(1)}, noon)
	if _, ok, _ := p.choose(applicant{mac: nth(1)}, anything, noon.Add(time.Second)); !ok {
		t.Fatal("it is offered nothing")
	}
	if a, ok, _ := p.choose(applicant{mac: nth(2), known: true}, anything, noon.Add(12*time.Second)); ok {
		t.Errorf("its address %s is offered to another client", a)
	}
	if !p.available(nth(1), netip.MustParseAddr("10.0.0.10"), noon.Add(13*time.Second)) {
		t.Error("it cannot renew")
	}
}

// TestOffersAreBounded: as many are remembered as there are addresses.
func TestOffersAreBounded(t *testing.T) {
	p := newPool(ranged("10.0.0.10", "10.0.0.19"), nil)
	for n := range 5000 {
		_, _, _ = p.choose(applicant{mac: nth(n)}, anything, noon.Add(time.Duration(n)*time.Minute))
	}
	if len(p.offers) > 10 || len(p.spans[0].held) > 100 {
		t.Errorf("%d offers, %d of them in line", len(p.offers), len(p.spans[0].held))
	}
}

// TestDeclinesAreBounded: invented clients cannot decline a pool away.
func TestDeclinesAreBounded(t *testing.T) {
	p := newPool(ranged("10.0.0.10", "10.0.0.49"), nil)
	for n := range 40 {
		if a, ok, _ := p.choose(applicant{mac: nth(n)}, anything, noon); ok && p.mayDecline(nth(n), a, noon) {
			p.set(lane.Lease{MAC: nth(n), Address: a, State: lane.LeaseDeclined, Granted: noon, Expires: noon.Add(declineHold)})
		}
	}
	if u := p.usage(noon); u.Aside != 10 {
		t.Errorf("%+v", u)
	}
}

// TestReservedInFront: addresses that may not be given are passed over in no time.
func TestReservedInFront(t *testing.T) {
	p := newPool(ranged("10.0.0.0", "10.1.255.255"), nil)
	first := netip.MustParseAddr("10.1.0.0")
	if a, ok, err := p.choose(applicant{mac: nth(1)}, func(a netip.Addr) (bool, error) { return !a.Less(first), nil }, noon); !ok || err != nil || a != first {
		t.Errorf("%s, %v, %v", a, ok, err)
	}
}

type disk = Leases // whose method has the same name

// gated is a store whose PutLease waits.
type gated struct {
	disk
	at, on chan struct{}
}

func (g *gated) PutLease(ctx context.Context, l lane.Lease, instead netip.Addr) error {
	g.at <- struct{}{}
	<-g.on
	return g.disk.PutLease(ctx, l, instead)
}

// TestGrantOnItsWay: while a lease is written, its address is nobody else's, and a second
// word of its client waits for the first.
func TestGrantOnItsWay(t *testing.T) {
	r := newRig(t)
	g := &gated{r.cfg.Leases, make(chan struct{}), make(chan struct{})}
	for n := range byte(4) { // the pool is on offer
		r.say(build(discover, mac(n+1), nil))
	}
	a, _ := r.scope.pool.offerOf(mac(1), r.now)
	r.now = r.now.Add(12 * time.Second) // and none of the offers firm
	r.cfg.Leases = g
	say := func(b []byte) chan error {
		q, err := parse(b)
		if err != nil {
			t.Fatal(err)
		}
		q.iface = "test"
		done := make(chan error, 1)
		go func() { _, err := r.handle(t.Context(), q); done <- err }()
		return done
	}
	ip := a.As4()
	granted := say(build(request, mac(1), nil, append(append([]byte{50, 4}, ip[:]...), 54, 4, 192, 168, 77, 1)...))
	<-g.at
	for range 4 {
		if got, ok, _ := r.scope.pool.choose(applicant{mac: mac(9), known: true}, anything, r.now); ok && got == a {
			t.Errorf("%s is offered to another client", got)
		}
		r.scope.pool.drop(mac(9), r.now)
	}
	released := say(build(release, mac(1), func(b []byte) { copy(b[12:16], ip[:]) }))
	g.on <- struct{}{}
	if err := <-granted; err != nil {
		t.Error(err)
	}
	<-g.at
	g.on <- struct{}{}
	if err := <-released; err != nil {
		t.Error(err)
	}
	stored, err := r.store.Leases(t.Context())
	l, ok := r.scope.pool.leaseOf(mac(1))
	if err != nil || !ok || len(stored) != 1 || stored[0].State != lane.LeaseReleased || l.State != lane.LeaseReleased {
		t.Errorf("in memory %+v, stored %+v, %v", l, stored, err)
	}
}

// TestTwoNetworks: a NIC has a lease in each network that it speaks in, also after a restart.
func TestTwoNetworks(t *testing.T) {
	r := newRig(t)
	far := netip.MustParseAddr("10.1.0.100")
	elsewhere := lane.Lease{MAC: mac(1), Address: far, State: lane.LeaseActive, Granted: r.now, Expires: r.now.Add(time.Hour)}
	if err := r.store.PutLease(t.Context(), elsewhere, netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	r.bind(mac(1))
	stored, err := r.store.Leases(t.Context())
	if err != nil || len(stored) != 2 || stored[0].Address != far {
		t.Errorf("%+v, %v", stored, err)
	}
	r.reserved = map[lane.MAC]netip.Addr{mac(1): netip.MustParseAddr("192.168.77.50")} // its one here is replaced
	r.bind(mac(1))
	stored, err = r.store.Leases(t.Context())
	if err != nil || len(stored) != 2 || stored[0].Address != far || stored[1].Address != r.reserved[mac(1)] {
		t.Errorf("%+v, %v", stored, err)
	}
}
