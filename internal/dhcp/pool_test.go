package dhcp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"bootlane/internal/lane"
)

func anything(netip.Addr) (bool, error) { return true, nil }

func ranged(first, last string) []Range {
	return []Range{{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last)}}
}

func nth(n int) lane.MAC {
	return lane.MAC(fmt.Sprintf("52:54:00:%02x:%02x:%02x", n>>16&255, n>>8&255, n&255))
}

// take chooses an address and leases it for an hour.
func (p *pool) take(t *testing.T, c applicant, now time.Time) string {
	t.Helper()
	a, ok, err := p.choose(c, anything, now)
	if err != nil || !ok {
		return ""
	}
	p.set(lane.Lease{MAC: c.mac, Address: a, State: lane.LeaseActive, Granted: now, Expires: now.Add(time.Hour)})
	return a.String()
}

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// TestLongestIdleFirst: firmware and installers never renew, so an address that has
// just expired may still be in use.
func TestLongestIdleFirst(t *testing.T) {
	p := newPool(ranged("10.0.0.10", "10.0.0.12"), nil)
	for i, at := range []time.Duration{2, 0, 1} { // .10 expires last, .11 first
		p.take(t, applicant{mac: nth(i)}, noon.Add(at*time.Minute))
	}
	later := noon.Add(2 * time.Hour)
	var got []string
	for i := range 3 {
		got = append(got, p.take(t, applicant{mac: nth(10 + i)}, later))
	}
	if want := []string{"10.0.0.11", "10.0.0.12", "10.0.0.10"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if a := p.take(t, applicant{mac: nth(20)}, later); a != "" {
		t.Errorf("%s is given twice", a)
	}
}

// TestOffersAreNotForHoarders: machines that never ask for what they are offered keep
// nobody out: a known machine at once, a stranger after a while.
func TestOffersAreNotForHoarders(t *testing.T) {
	p := newPool(ranged("10.0.0.10", "10.0.0.12"), nil)
	for i := range 3 {
		if _, ok, _ := p.choose(applicant{mac: nth(i)}, anything, noon.Add(time.Duration(i)*time.Millisecond)); !ok {
			t.Fatal("no offer")
		}
	}
	soon := noon.Add(time.Second)
	if a, ok, _ := p.choose(applicant{mac: nth(9)}, anything, soon); ok {
		t.Errorf("a stranger is given %s, which was offered a second ago", a)
	}
	if a := p.take(t, applicant{mac: nth(8), known: true}, soon); a != "10.0.0.10" {
		t.Errorf("a known machine is given %q, want the oldest offer", a)
	}
	if p.available(nth(0), netip.MustParseAddr("10.0.0.10"), soon) {
		t.Error("its former client gets it as well")
	}
	if a, ok, _ := p.choose(applicant{mac: nth(9)}, anything, noon.Add(offerFirm+time.Second)); !ok || a.String() != "10.0.0.11" {
		t.Errorf("a stranger is given %s, %v", a, ok)
	}
}

// TestOffersTakenUpAreForgotten: the list of open offers does not grow for ever.
func TestOffersTakenUpAreForgotten(t *testing.T) {
	p := newPool(ranged("10.0.0.0", "10.0.15.255"), nil)
	for i := range 4000 {
		p.take(t, applicant{mac: nth(i)}, noon)
	}
	if n := len(p.spans[0].held); n > 100 {
		t.Errorf("%d offers are remembered, all were taken up", n)
	}
}

func TestClassesHaveRanges(t *testing.T) {
	p := newPool([]Range{{First: netip.MustParseAddr("10.0.0.10"), Last: netip.MustParseAddr("10.0.0.10")}, {First: netip.MustParseAddr("10.0.0.20"), Last: netip.MustParseAddr("10.0.0.20"), Class: "arm"}}, nil)
	for _, c := range []struct {
		mac         int
		class, want string
	}{{1, "arm", "10.0.0.20"}, {2, "arm", ""}, {3, "other", "10.0.0.10"}, {4, "", ""}} {
		if got := p.take(t, applicant{mac: nth(c.mac), class: c.class}, noon); got != c.want {
			t.Errorf("class %q: %q, want %q", c.class, got, c.want)
		}
	}
}

// TestAddressInUse: D4-51 and D4-52.
func TestAddressInUse(t *testing.T) {
	t.Run("D4-51 an address that somebody answers for is not given", func(t *testing.T) {
		p := newPool(ranged("10.0.0.10", "10.0.0.12"), nil)
		a := netip.MustParseAddr("10.0.0.10")
		if got := p.upcoming(8, noon); len(got) != 3 || got[0] != a {
			t.Fatalf("to be asked about: %v", got)
		}
		for _, want := range []outcome{putAside, expected} {
			if is, _ := p.answered(a, nth(7), noon); is != want {
				t.Errorf("outcome %d, want %d: it is news once", is, want)
			}
		}
		p.silent(netip.MustParseAddr("10.0.0.11"), noon)
		if got := p.upcoming(8, noon); len(got) != 1 || got[0].String() != "10.0.0.12" {
			t.Errorf("to be asked about: %v", got)
		}
		if got := p.take(t, applicant{mac: nth(1)}, noon); got != "10.0.0.11" {
			t.Errorf("given %s", got)
		}
		if !p.available(nth(2), a, noon.Add(declineHold+time.Second)) {
			t.Error("it stays aside for ever")
		}
	})
	t.Run("D4-52 whoever answers for it may have it", func(t *testing.T) {
		p := newPool(ranged("10.0.0.10", "10.0.0.12"), nil)
		a := netip.MustParseAddr("10.0.0.10")
		p.answered(a, nth(7), noon)
		if p.available(nth(1), a, noon) || !p.available(nth(7), a, noon) {
			t.Error("the wrong one may have it")
		}
	})
	t.Run("D4-51 an offer is taken back", func(t *testing.T) {
		p := newPool(ranged("10.0.0.10", "10.0.0.12"), nil)
		a, _, _ := p.choose(applicant{mac: nth(1)}, anything, noon)
		p.answered(a, nth(7), noon)
		if p.available(nth(1), a, noon) {
			t.Error("it can still be leased")
		}
	})
	t.Run("a lease stays its holder's", func(t *testing.T) {
		p := newPool(ranged("10.0.0.10", "10.0.0.12"), nil)
		a := netip.MustParseAddr(p.take(t, applicant{mac: nth(1)}, noon))
		for _, c := range []struct {
			by     lane.MAC
			is     outcome
			holder lane.MAC
		}{{nth(1), expected, ""}, {nth(7), disputed, nth(1)}, {"", expected, ""}} {
			if is, holder := p.answered(a, c.by, noon); is != c.is || holder != c.holder {
				t.Errorf("%q answers: outcome %d, leased to %q; want %d, %q", c.by, is, holder, c.is, c.holder)
			}
		}
		if !p.available(nth(1), a, noon) {
			t.Error("a squatter takes it away")
		}
	})
}

// TestPoolModel plays random clients and compares with what must always hold: no address
// has two users, and nobody is refused while an address is free.
func TestPoolModel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const size = 20
	p := newPool(ranged("10.0.0.10", "10.0.0.29"), nil)
	holder, until := map[string]lane.MAC{}, map[string]time.Time{}
	now := noon
	for range 20000 {
		now = now.Add(time.Duration(random.IntN(120)) * time.Second)
		m := nth(random.IntN(40))
		live := 0
		for a, e := range until {
			if now.Before(e) && holder[a] != m {
				live++
			}
		}
		a, ok, err := p.choose(applicant{mac: m, known: true}, anything, now)
		switch {
		case err != nil || !ok && live < size:
			t.Fatalf("nothing for %s, %d of %d are leased to others, %v", m, live, size, err)
		case !ok:
			continue
		case now.Before(until[a.String()]) && holder[a.String()] != m:
			t.Fatalf("%s is %s's, and is offered to %s", a, holder[a.String()], m)
		}
		switch random.IntN(4) {
		case 0: // it takes another server's offer
			p.drop(m, now)
		case 1: // it declines
			p.set(lane.Lease{MAC: m, Address: a, State: lane.LeaseDeclined, Granted: now, Expires: now.Add(declineHold)})
			holder[a.String()], until[a.String()] = "declined", now.Add(declineHold)
		default:
			p.set(lane.Lease{MAC: m, Address: a, State: lane.LeaseActive, Granted: now, Expires: now.Add(time.Hour)})
			for other, h := range holder {
				if h == m {
					delete(holder, other)
					delete(until, other)
				}
			}
			holder[a.String()], until[a.String()] = m, now.Add(time.Hour)
		}
		if u := p.usage(now); u.Used > u.Size || u.Size != size {
			t.Fatalf("%+v", u)
		}
	}
}

// BenchmarkPool: what one exchange costs must not depend on the number of leases.
func BenchmarkPool(b *testing.B) {
	for _, n := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := newPool(ranged("10.0.0.1", "10.31.255.254"), nil)
			for i := range n {
				p.set(lane.Lease{MAC: nth(i), Address: ip4(0x0a000001 + i).addr(), State: lane.LeaseActive, Granted: noon, Expires: noon.Add(time.Hour)})
			}
			b.ResetTimer()
			for i := range b.N {
				m := nth(n + i%500_000)
				now := noon.Add(time.Duration(i) * time.Microsecond)
				a, ok, err := p.choose(applicant{mac: m}, anything, now)
				if err != nil || !ok {
					b.Fatal(a, ok, err)
				}
				p.set(lane.Lease{MAC: m, Address: a, State: lane.LeaseActive, Granted: now, Expires: now.Add(time.Hour)})
			}
		})
	}
}
