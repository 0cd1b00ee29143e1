package dhcp6

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"bootlane/internal/lane"
)

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func anything(netip.Addr) (bool, error) { return true, nil }

func nobody(n int) lane.Client { return lane.Client(fmt.Sprintf("duid:%08x", n)) }

// TestFlood: clients that nobody ever saw cost no more memory than the addresses that
// may be given, and keep no known machine out.
func TestFlood(t *testing.T) {
	p := newPool(netip.MustParseAddr("fd77::1:0"), netip.MustParseAddr("fd77::ffff:ffff:ffff:ffff"), nil)
	if p.size() != maxGiven {
		t.Fatalf("%d addresses", p.size())
	}
	now := noon
	for i := range 3 * maxGiven {
		now = now.Add(200 * time.Microsecond)
		p.choose(applicant{client: nobody(i)}, anything, now)
	}
	if len(p.offers) > maxGiven || len(p.holdings) > maxGiven || p.idle.Len() > 8*maxGiven || len(p.held) > 4*maxGiven {
		t.Errorf("%d offers, %d clients, %d idle, %d held", len(p.offers), len(p.holdings), p.idle.Len(), len(p.held))
	}
	if _, ok, _ := p.choose(applicant{client: "52:54:00:00:00:01", known: true}, anything, now); !ok {
		t.Error("a known machine is kept out")
	}
	if _, ok, _ := p.choose(applicant{client: "52:54:00:00:00:02"}, anything, now.Add(offerFirm)); !ok {
		t.Error("a stranger is kept out for longer than ten seconds")
	}
}

// TestAsksAgain: firmware that asks for ever and takes nothing leaves one offer, and no list of those that are over.
func TestAsksAgain(t *testing.T) {
	p := newPool(netip.MustParseAddr("fd77::100"), netip.MustParseAddr("fd77::100"), nil)
	for i := range 10_000 {
		if _, ok, _ := p.choose(applicant{client: nobody(1)}, anything, noon.Add(time.Duration(i)*2*offerHold)); !ok {
			t.Fatalf("nothing is free at try %d", i)
		}
	}
	if len(p.held) > 1100 {
		t.Errorf("%d pledges of one client", len(p.held))
	}
}

// TestAsksForMore: what a client asks for anew while it has it counts once.
func TestAsksForMore(t *testing.T) {
	p := newPool(netip.MustParseAddr("fd77::100"), netip.MustParseAddr("fd77::1ff"), nil)
	a, _, _ := p.choose(applicant{client: nobody(1)}, anything, noon)
	p.set(lane.Lease6{Client: nobody(1), Address: a, State: lane.LeaseActive, Granted: noon, Expires: noon.Add(time.Hour)})
	p.choose(applicant{client: nobody(1)}, anything, noon)
	if got := p.heldBy(nobody(1), noon); got != 1 {
		t.Errorf("one address counts as %d", got)
	}
}

// TestPoolModel plays random clients and compares with what must always hold: no address
// has two users, no association is given what another one of its message names, and nobody is refused while an address
// is free.
func TestPoolModel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const size = 20
	p := newPool(netip.MustParseAddr("fd77::100"), netip.MustParseAddr("fd77::113"), nil)
	type tenancy struct {
		client lane.Client
		until  time.Time
	}
	users := map[netip.Addr]tenancy{}
	now := noon
	for range 20000 {
		now = now.Add(time.Duration(random.IntN(120)) * time.Second)
		c := nobody(random.IntN(40))
		var except []netip.Addr
		for range random.IntN(3) * random.IntN(size) {
			except = append(except, plus(p.first, uint64(random.IntN(size))))
		}
		own, open := 0, map[netip.Addr]bool{}
		for i := range uint64(size) {
			a := plus(p.first, i)
			open[a] = !slices.Contains(except, a)
		}
		for a, u := range users {
			switch {
			case !now.Before(u.until):
				delete(users, a)
			case u.client == c:
				own++
			default:
				delete(open, a)
			}
		}
		maps.DeleteFunc(open, func(_ netip.Addr, is bool) bool { return !is })
		a, ok, err := p.choose(applicant{client: c, known: true, except: except}, anything, now)
		switch {
		case err != nil || !ok && len(open) > 0 && own < maxAssociations:
			t.Fatalf("nothing for %s, which has %d, and %v are free, %v", c, own, open, err)
		case !ok:
			continue
		case slices.Contains(except, a):
			t.Fatalf("%s is given to %s, and another association of the message names it", a, c)
		case users[a].client != "" && users[a].client != c:
			t.Fatalf("%s is %s's, and is given to %s", a, users[a].client, c)
		}
		l := lane.Lease6{Client: c, Address: a, State: lane.LeaseActive, Granted: now, Expires: now.Add(time.Hour)}
		switch random.IntN(5) {
		case 0: // it does not ask for it
			p.drop([]netip.Addr{a}, now)
			continue
		case 1:
			l.State, l.Expires = lane.LeaseDeclined, now.Add(declineHold)
			users[a] = tenancy{"declined", l.Expires}
		case 2:
			l.State, l.Expires = lane.LeaseReleased, now
			delete(users, a)
		default:
			users[a] = tenancy{c, l.Expires}
		}
		p.set(l)
		if u := p.usage(now); u.Used > u.Size || u.Size != size {
			t.Fatalf("%+v", u)
		}
	}
	if len(p.holdings) > 40 || len(p.leases) > size || len(p.offers) > size {
		t.Errorf("%d clients, %d leases, %d offers", len(p.holdings), len(p.leases), len(p.offers))
	}
}

// TestOthersOfAMessage: what the other associations of a message name is not given to this one, and is not lost either.
func TestOthersOfAMessage(t *testing.T) {
	p := newPool(netip.MustParseAddr("fd77::100"), netip.MustParseAddr("fd77::103"), nil)
	var all []netip.Addr
	for i := range uint64(4) {
		a := plus(p.first, i)
		all = append(all, a)
		if i > 0 { // the last of all was idle longest
			p.set(lane.Lease6{Client: nobody(int(i)), Address: a, State: lane.LeaseReleased, Expires: noon.Add(-time.Duration(i) * time.Hour)})
		}
	}
	for range 3 {
		if a, ok, _ := p.choose(applicant{client: nobody(9), except: all}, anything, noon); ok {
			t.Errorf("%s is given, and another association names it", a)
		}
	}
	if n := p.idle.Len(); n != len(all) {
		t.Errorf("%d addresses are idle, want %d", n, len(all))
	}
	for i, want := range []int{3, 2, 1, 0} {
		if a, ok, _ := p.choose(applicant{client: nobody(10 + i)}, anything, noon); !ok || a != all[want] {
			t.Errorf("%s, %v, want %s", a, ok, all[want])
		}
	}
}

// TestLongestIdleFirst: an address that has just expired may still be in use.
func TestLongestIdleFirst(t *testing.T) {
	p := newPool(netip.MustParseAddr("fd77::100"), netip.MustParseAddr("fd77::102"), nil)
	for i, minute := range []time.Duration{2, 0, 1} {
		a, _, _ := p.choose(applicant{client: nobody(i)}, anything, noon)
		p.set(lane.Lease6{Client: nobody(i), Address: a, State: lane.LeaseActive, Granted: noon, Expires: noon.Add(minute * time.Minute)})
	}
	for i, want := range []string{"fd77::101", "fd77::102", "fd77::100"} {
		if a, ok, _ := p.choose(applicant{client: nobody(10 + i)}, anything, noon.Add(time.Hour)); !ok || a.String() != want {
			t.Errorf("%s, want %s", a, want)
		}
	}
	// What turns out not to be for giving is skipped.
	p = newPool(netip.MustParseAddr("fd77::100"), netip.MustParseAddr("fd77::102"), nil)
	notFirst := func(a netip.Addr) (bool, error) { return a.String() != "fd77::100", nil }
	if a, ok, _ := p.choose(applicant{client: nobody(1)}, notFirst, noon); !ok || a.String() != "fd77::101" {
		t.Errorf("%s", a)
	}
	if u := p.usage(noon); u.Offered != 1 {
		t.Errorf("%+v", u)
	}
	if a, ok, _ := newPool(netip.Addr{}, netip.Addr{}, nil).choose(applicant{client: nobody(1), known: true}, anything, noon); ok {
		t.Errorf("%s without a range", a)
	}
}
