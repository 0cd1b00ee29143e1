package dhcp

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"bootlane/internal/lane"
)

// pool hands out the addresses of one range. It is memory only: what it grants
// becomes true when the lease is stored, and is taken back when that fails.
//
// Leases are keyed by hardware address. One network boot shows up to three
// client identifiers for one NIC, and would drain the pool three times as fast.
type pool struct {
	mu       sync.Mutex
	first    netip.Addr
	last     netip.Addr
	byMAC    map[lane.MAC]lane.Lease
	byAddr   map[netip.Addr]lane.MAC
	offers   map[lane.MAC]offer
	offered  map[netip.Addr]lane.MAC
	declines map[lane.MAC][]time.Time
	aside    map[netip.Addr]time.Time // declined addresses, and until when they are not offered
	next     netip.Addr               // where the search for a free address goes on
}

type offer struct {
	addr  netip.Addr
	until time.Time
}

// Times of an offer, and of the quarantine of a declined address.
const (
	offerHold   = time.Minute // UEFI asks for its offer after 4 s, BIOS ROMs up to 60 s later
	declineHold = 10 * time.Minute
	maxDeclines = 3 // per client and declineHold: EDK2 also declines because of a malformed reply
)

func newPool(first, last netip.Addr, leases []lane.Lease) *pool {
	p := &pool{first: first, last: last, next: first, byMAC: map[lane.MAC]lane.Lease{}, byAddr: map[netip.Addr]lane.MAC{},
		offers: map[lane.MAC]offer{}, offered: map[netip.Addr]lane.MAC{}, declines: map[lane.MAC][]time.Time{}, aside: map[netip.Addr]time.Time{}}
	for _, l := range leases {
		p.set(l)
	}
	return p
}

// find chooses the address for a client: its reservation, its lease, its last
// address, the one it asks for, or a free one; RFC 2131 4.3.1. It reports false
// when there is none. The address is held for a minute. taken reports whether an
// address is reserved for somebody else.
func (p *pool) find(mac lane.MAC, reserved, wish netip.Addr, taken func(netip.Addr) bool, now time.Time) (netip.Addr, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	candidates := []netip.Addr{reserved}
	if !reserved.IsValid() {
		if o, ok := p.offers[mac]; ok && now.Before(o.until) {
			candidates = append(candidates, o.addr)
		}
		if l, ok := p.byMAC[mac]; ok {
			candidates = append(candidates, l.Address)
		}
		if p.inRange(wish) {
			candidates = append(candidates, wish)
		}
	}
	for _, a := range candidates {
		if a.IsValid() && p.free(a, mac, now) && (a == reserved || p.inRange(a) && !taken(a)) {
			p.hold(mac, a, now)
			return a, true
		}
	}
	if reserved.IsValid() {
		return netip.Addr{}, false // somebody else still has it: another address would only hide that
	}
	for range p.size() {
		a := p.next
		p.next = p.next.Next()
		if !p.inRange(p.next) {
			p.next = p.first
		}
		if p.free(a, mac, now) && !taken(a) {
			p.hold(mac, a, now)
			return a, true
		}
	}
	return netip.Addr{}, false
}

func (p *pool) size() int {
	a, b := p.first.As4(), p.last.As4()
	n := 0
	for i := range 4 {
		n = n<<8 + int(b[i]) - int(a[i])
	}
	return n + 1
}

func (p *pool) inRange(a netip.Addr) bool {
	return a.Is4() && !a.Less(p.first) && !p.last.Less(a)
}

func (p *pool) free(a netip.Addr, mac lane.MAC, now time.Time) bool {
	if until, ok := p.aside[a]; ok && now.Before(until) {
		return false // whoever asks: another machine answers there
	}
	if m, ok := p.offered[a]; ok && m != mac && now.Before(p.offers[m].until) {
		return false
	}
	holder, ok := p.byAddr[a]
	if !ok || holder == mac {
		return true
	}
	l := p.byMAC[holder]
	return l.State == lane.LeaseReleased || !now.Before(l.Expires)
}

func (p *pool) hold(mac lane.MAC, a netip.Addr, now time.Time) {
	p.forget(mac)
	if len(p.offers) > p.size() { // only expired ones can be that many: invented addresses leave them behind
		maps.DeleteFunc(p.offers, func(_ lane.MAC, o offer) bool { return !now.Before(o.until) })
		maps.DeleteFunc(p.declines, func(_ lane.MAC, times []time.Time) bool { return now.Sub(times[len(times)-1]) > declineHold })
	}
	p.offers[mac], p.offered[a] = offer{a, now.Add(offerHold)}, mac
}

func (p *pool) forget(mac lane.MAC) {
	if o, ok := p.offers[mac]; ok {
		if p.offered[o.addr] == mac {
			delete(p.offered, o.addr)
		}
		delete(p.offers, mac)
	}
}

// drop ends an offer: the client took another server's.
func (p *pool) drop(mac lane.MAC) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(mac)
}

// offerOf returns the address that is on offer to the client.
func (p *pool) offerOf(mac lane.MAC, now time.Time) (netip.Addr, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o, ok := p.offers[mac]
	return o.addr, ok && now.Before(o.until)
}

// leaseOf returns the client's lease, in whatever state.
func (p *pool) leaseOf(mac lane.MAC) (lane.Lease, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, ok := p.byMAC[mac]
	return l, ok
}

// leasedToOther reports whether another client holds the address now.
func (p *pool) leasedToOther(mac lane.MAC, a netip.Addr, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	holder, ok := p.byAddr[a]
	return ok && holder != mac && p.byMAC[holder].State == lane.LeaseActive && now.Before(p.byMAC[holder].Expires)
}

// user returns the client that has a lease or an offer of the address now, or
// nothing.
func (p *pool) user(a netip.Addr, now time.Time) lane.MAC {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m, ok := p.byAddr[a]; ok && p.byMAC[m].State == lane.LeaseActive && now.Before(p.byMAC[m].Expires) {
		return m
	}
	if m, ok := p.offered[a]; ok && now.Before(p.offers[m].until) {
		return m
	}
	return ""
}

// available reports whether the client may have exactly this address, and holds it.
func (p *pool) available(mac lane.MAC, a netip.Addr, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.free(a, mac, now) {
		return false
	}
	p.hold(mac, a, now)
	return true
}

// set makes a stored lease the truth.
func (p *pool) set(l lane.Lease) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.aside, l.Address)
	if l.State == lane.LeaseDeclined {
		p.setAside(l)
		return
	}
	if old, ok := p.byMAC[l.MAC]; ok && old.Address != l.Address && p.byAddr[old.Address] == l.MAC {
		delete(p.byAddr, old.Address)
	}
	if holder, ok := p.byAddr[l.Address]; ok && holder != l.MAC {
		delete(p.byMAC, holder)
	}
	p.byMAC[l.MAC], p.byAddr[l.Address] = l, l.MAC
	p.forget(l.MAC)
}

// setAside takes a declined address from whoever had it. It is kept by address:
// the client that declined it soon has another lease.
func (p *pool) setAside(l lane.Lease) {
	p.aside[l.Address] = l.Expires
	if holder, ok := p.byAddr[l.Address]; ok {
		delete(p.byMAC, holder)
		delete(p.byAddr, l.Address)
	}
	p.forget(l.MAC)
}

// mayDecline reports whether a client's DECLINE counts: it must hold the
// address, and must not have declined too many already.
func (p *pool) mayDecline(mac lane.MAC, a netip.Addr, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	o, offered := p.offers[mac]
	l, leased := p.byMAC[mac]
	if !(offered && o.addr == a) && !(leased && l.Address == a) {
		return false
	}
	recent := slices.DeleteFunc(slices.Clone(p.declines[mac]), func(t time.Time) bool { return now.Sub(t) > declineHold })
	if len(recent) >= maxDeclines {
		p.declines[mac] = recent
		return false
	}
	p.declines[mac] = append(recent, now)
	return true
}
