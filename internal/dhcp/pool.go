package dhcp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"bootlane/internal/idle"
	"bootlane/internal/lane"
	"bootlane/internal/turn"
)

// pool hands out the addresses of one network. It is memory only: what it grants
// becomes true when the lease is stored, and is taken back when that fails.
//
// Leases are keyed by hardware address. One network boot shows up to three client
// identifiers for one NIC, and would drain the pool three times as fast.
//
// Every operation is a few map look-ups, whatever the number of leases. Addresses that
// were never given come first, then those that have been idle longest: firmware and
// installers never renew, so the last holder of a fresh one may well still use it.
type pool struct {
	mu       sync.Mutex
	spans    []*span
	byAddr   map[ip4]lease
	byMAC    map[hw]ip4
	offers   map[hw]offer
	offered  map[ip4]hw
	declines map[hw][]time.Time
	aside    map[ip4]aside
	checked  map[ip4]time.Time // addresses that nobody answered for when asked
	writing  map[ip4]hw        // addresses whose lease is on its way to the disk: nobody else's meanwhile

	// turns are the clients': the disk and the pool must learn of two changes of a
	// client's lease in the same order.
	turns turn.Line[lane.MAC]
}

type (
	ip4 uint32
	hw  [6]byte
)

// lease is a stored lease, small: there may be a million of them.
type lease struct {
	mac     hw
	state   lane.LeaseState
	granted int64 // Unix microseconds
	expires int64
}

type offer struct {
	addr  ip4
	since time.Time
	until time.Time
}

// aside is an address that somebody uses without a lease: nobody is offered it, but
// the one who answered there, if that is known.
type aside struct {
	until time.Time
	user  hw
}

// span is one range of a pool.
type span struct {
	first, last ip4
	class       string
	next        uint64         // the first address that was never given; above last when all were
	idle        idle.List[ip4] // in Unix microseconds
	held        []held         // whom addresses were offered, the oldest offer first; may be outdated
}

// Times of an offer, and of the quarantine of a declined address.
const (
	offerHold   = time.Minute      // UEFI asks for its offer after 4 s, BIOS ROMs up to 60 s later
	offerFirm   = 10 * time.Second // so long it is not given to another stranger, even if nothing else is free
	declineHold = 10 * time.Minute
	maxDeclines = 3 // per client and declineHold: EDK2 also declines because of a malformed reply
	retake      = 10 * time.Minute
	checkHolds  = 10 * time.Minute // so long an address that nobody answered for counts as free
)

// asideShare is the part of a range that may be set aside: invented clients can decline
// as many addresses as they are offered, and answer for as many as are asked about.
const asideShare = 4

func newPool(ranges []Range, leases []lane.Lease) *pool {
	p := &pool{byAddr: map[ip4]lease{}, byMAC: map[hw]ip4{}, offers: map[hw]offer{}, offered: map[ip4]hw{},
		declines: map[hw][]time.Time{}, aside: map[ip4]aside{}, checked: map[ip4]time.Time{}, writing: map[ip4]hw{}}
	for _, r := range ranges {
		first, last := number(r.First), number(r.Last)
		p.spans = append(p.spans, &span{first: first, last: last, class: r.Class, next: uint64(first)})
	}
	for _, l := range leases {
		p.set(l)
	}
	return p
}

func number(a netip.Addr) ip4 { b := a.As4(); return ip4(binary.BigEndian.Uint32(b[:])) }

func (a ip4) addr() netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(a))))
}

func hardware(m lane.MAC) hw { return m.Bytes() }

func (h hw) mac() lane.MAC {
	m, err := lane.MACFromBytes(h[:])
	if err != nil {
		return ""
	}
	return m
}

// applicant is whom an address is wanted for.
type applicant struct {
	mac      lane.MAC
	class    string     // of a range
	known    bool       // the inventory has it
	reserved netip.Addr // for it; zero without a reservation
	wish     netip.Addr // the address that it asks for
}

// choose returns the address for a client: its reservation, its offer, its lease, its
// last address, the one it asks for, or a free one; RFC 2131 4.3.1. It reports false
// when there is none. The address is held for a minute. usable says whether an address
// that is not reserved for the client may be given at all; the pool is not locked
// while it is asked.
func (p *pool) choose(c applicant, usable func(netip.Addr) (bool, error), now time.Time) (netip.Addr, bool, error) {
	if c.reserved.IsValid() {
		return c.reserved, p.available(c.mac, c.reserved, now), nil // another address would only hide that somebody has it
	}
	for _, a := range p.candidates(c, now) {
		ok, err := usable(a)
		if err != nil {
			return netip.Addr{}, false, err
		}
		if ok && p.available(c.mac, a, now) {
			return a, true, nil
		}
	}
	for {
		a, found := p.fresh(c, now)
		if !found {
			return netip.Addr{}, false, nil
		}
		ok, err := usable(a)
		if ok || err != nil {
			return a, ok, err
		}
		p.skip(c.mac, a, now)
	}
}

// candidates are the addresses that a client has some claim to.
func (p *pool) candidates(c applicant, now time.Time) (out []netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := hardware(c.mac)
	if o, ok := p.offers[m]; ok && now.Before(o.until) {
		out = append(out, o.addr.addr())
	}
	if a, ok := p.byMAC[m]; ok {
		out = append(out, a.addr())
	}
	if c.wish.Is4() && !c.wish.IsUnspecified() {
		out = append(out, c.wish)
	}
	return slices.DeleteFunc(out, func(a netip.Addr) bool { return p.spanOf(number(a), c.class) == nil })
}

// fresh takes an address to which the client has no claim, and holds it.
func (p *pool) fresh(c applicant, now time.Time) (netip.Addr, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := hardware(c.mac)
	spans := p.spansOf(c.class)
	for _, take := range []func(*span) (ip4, bool){
		func(s *span) (ip4, bool) { return s.unused(p, m, now) },
		func(s *span) (ip4, bool) { return s.longestIdle(p, m, now) },
		func(s *span) (ip4, bool) { return s.preempt(p, c.known, now) },
	} {
		for _, s := range spans {
			if a, ok := take(s); ok {
				p.hold(m, a, now)
				return a.addr(), true
			}
		}
	}
	return netip.Addr{}, false
}

// spansOf returns the ranges of a class, or those of nobody's when it has none.
func (p *pool) spansOf(class string) []*span {
	var own, common []*span
	for _, s := range p.spans {
		switch {
		case s.class == "":
			common = append(common, s)
		case s.class == class:
			own = append(own, s)
		}
	}
	if len(own) > 0 {
		return own
	}
	return common
}

func (p *pool) spanOf(a ip4, class string) *span {
	for _, s := range p.spansOf(class) {
		if s.first <= a && a <= s.last {
			return s
		}
	}
	return nil
}

func (s *span) unused(p *pool, m hw, now time.Time) (ip4, bool) {
	for s.next <= uint64(s.last) {
		a := ip4(s.next)
		s.next++
		if _, leased := p.byAddr[a]; !leased && p.free(a, m, now) {
			return a, true
		}
	}
	return 0, false
}

// retire notes when an address becomes idle.
func (p *pool) retire(a ip4, at int64) {
	if s := p.containing(a); s != nil {
		s.idle.Add(a, at, p.idleFrom)
	}
}

// idleFrom returns when the lease or offer of an address ends, or what it is set aside for.
func (p *pool) idleFrom(a ip4) (at int64, ok bool) {
	if l, has := p.byAddr[a]; has {
		at, ok = l.expires, true
	}
	if m, has := p.offered[a]; has {
		at, ok = max(at, p.offers[m].until.UnixMicro()), true
	}
	if s, has := p.aside[a]; has {
		at, ok = max(at, s.until.UnixMicro()), true
	}
	return at, ok
}

func (s *span) longestIdle(p *pool, m hw, now time.Time) (ip4, bool) {
	for a, ok := s.idle.Take(now.UnixMicro()); ok; a, ok = s.idle.Take(now.UnixMicro()) {
		if p.free(a, m, now) {
			return a, true
		}
		// Leased anew, offered or set aside since: the end of that has an entry of its own.
	}
	return 0, false
}

// preempt takes the oldest offer that its client did not take up: machines that never
// ask for what they are offered must not keep the others out. A known machine need not
// wait for that.
func (s *span) preempt(p *pool, known bool, now time.Time) (ip4, bool) {
	for len(s.held) > 0 {
		h := s.held[0]
		if !s.stands(p, h, now) {
			s.held = s.held[1:]
			continue
		}
		if !known && now.Sub(h.since) < offerFirm {
			return 0, false
		}
		s.held = s.held[1:]
		a := p.offers[h.mac].addr
		p.forget(h.mac)
		return a, true
	}
	return 0, false
}

// held is an offer of a span, as it was when it was made.
type held struct {
	mac   hw
	since time.Time
}

// stands says whether an offer is still open: not taken up, withdrawn or made anew, nor
// about to be taken up. A client that asks anew while its lease runs has it for that.
func (s *span) stands(p *pool, h held, now time.Time) bool {
	o, ok := p.offers[h.mac]
	if !ok || !o.since.Equal(h.since) || o.addr < s.first || o.addr > s.last || p.offered[o.addr] != h.mac {
		return false
	}
	_, writing := p.writing[o.addr]
	return !writing && !p.byAddr[o.addr].live(now)
}

// note adds an offer. Offers that were taken up leave the list here, for nothing else
// looks at it while the span has addresses: it stays about as long as the open offers.
func (s *span) note(p *pool, h held) {
	if len(s.held) > 64+2*len(p.offers) {
		s.held = slices.DeleteFunc(s.held, func(old held) bool { return !s.stands(p, old, h.since) })
	}
	s.held = append(s.held, h)
}

func (p *pool) free(a ip4, m hw, now time.Time) bool {
	if s, ok := p.aside[a]; ok && now.Before(s.until) && (s.user != m || m == hw{}) {
		return false // whoever else asks: another machine answers there
	}
	if other, ok := p.writing[a]; ok && other != m {
		return false
	}
	if l, ok := p.byAddr[a]; ok && l.live(now) {
		return l.mac == m
	}
	other, ok := p.offered[a]
	return !ok || other == m || !now.Before(p.offers[other].until)
}

func (l lease) live(now time.Time) bool {
	return l.state == lane.LeaseActive && now.UnixMicro() < l.expires
}

func (p *pool) hold(m hw, a ip4, now time.Time) {
	o := offer{a, now, now.Add(offerHold)}
	if old, ok := p.offers[m]; ok && old.addr == a && now.Before(old.until) {
		o.since = old.since // asking again does not make it firm anew
	} else if s := p.containing(a); s != nil {
		s.note(p, held{m, now})
	}
	p.forget(m)
	if other, ok := p.offered[a]; ok {
		p.forget(other) // its offer is over
	}
	p.offers[m], p.offered[a] = o, m
	p.retire(a, o.until.UnixMicro())
}

func (p *pool) containing(a ip4) *span {
	for _, s := range p.spans {
		if s.first <= a && a <= s.last {
			return s
		}
	}
	return nil
}

func (p *pool) forget(m hw) {
	if o, ok := p.offers[m]; ok {
		if p.offered[o.addr] == m {
			delete(p.offered, o.addr)
		}
		delete(p.offers, m)
	}
}

// skip gives back an address that turned out not to be for giving, for a while.
func (p *pool) skip(mac lane.MAC, a netip.Addr, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(hardware(mac))
	p.retire(number(a), now.Add(retake).UnixMicro())
}

// drop ends an offer: the client took another server's.
func (p *pool) drop(mac lane.MAC, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := hardware(mac)
	if o, ok := p.offers[m]; ok {
		p.forget(m)
		p.retire(o.addr, now.UnixMicro())
	}
}

// offerOf returns the address that is on offer to the client.
func (p *pool) offerOf(mac lane.MAC, now time.Time) (netip.Addr, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o, ok := p.offers[hardware(mac)]
	if !ok || !now.Before(o.until) {
		return netip.Addr{}, false
	}
	return o.addr.addr(), true
}

// leaseOf returns the client's lease, in whatever state.
func (p *pool) leaseOf(mac lane.MAC) (lane.Lease, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok := p.byMAC[hardware(mac)]
	if !ok {
		return lane.Lease{}, false
	}
	return p.byAddr[a].told(a), true
}

func (l lease) told(a ip4) lane.Lease {
	return lane.Lease{MAC: l.mac.mac(), Address: a.addr(), State: l.state, Granted: time.UnixMicro(l.granted).UTC(), Expires: time.UnixMicro(l.expires).UTC()}
}

// leasedToOther reports whether another client holds the address now.
func (p *pool) leasedToOther(mac lane.MAC, a netip.Addr, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, ok := p.byAddr[number(a)]
	return ok && l.mac != hardware(mac) && l.live(now)
}

// user returns the client that has a lease or an offer of the address now, or
// nothing.
func (p *pool) user(a netip.Addr, now time.Time) lane.MAC {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := number(a)
	if l, ok := p.byAddr[n]; ok && l.live(now) {
		return l.mac.mac()
	}
	if m, ok := p.offered[n]; ok && now.Before(p.offers[m].until) {
		return m.mac()
	}
	return ""
}

// why says why a reserved address cannot be given now.
func (p *pool) why(a netip.Addr, now time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := number(a)
	if s, ok := p.aside[n]; ok && now.Before(s.until) {
		who := "a machine answers there that has no lease of it"
		if s.user != (hw{}) {
			who = string(s.user.mac()) + " answers there without a lease of it"
		}
		return fmt.Sprintf("its reserved address %s is set aside until %s: %s; find that machine, or `bootlane dhcp release %s`", a, stamp(s.until), who, a)
	}
	if l, ok := p.byAddr[n]; ok && l.live(now) {
		return fmt.Sprintf("%s still has its reserved address %s, until %s: wait for that, or `bootlane dhcp release %s` once it is off", l.mac.mac(), a, stamp(time.UnixMicro(l.expires)), a)
	}
	return fmt.Sprintf("its reserved address %s is on offer to %s: let it ask again in a minute", a, p.offered[n].mac())
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// at returns the lease of an address, or what it is set aside for.
func (p *pool) at(a netip.Addr) (lane.Lease, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := number(a)
	if l, ok := p.byAddr[n]; ok {
		return l.told(n), true
	}
	s, ok := p.aside[n]
	return lane.Lease{MAC: s.user.mac(), Address: a, State: lane.LeaseDeclined, Expires: s.until}, ok
}

// available reports whether the client may have exactly this address, and holds it.
func (p *pool) available(mac lane.MAC, a netip.Addr, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	m, n := hardware(mac), number(a)
	if !p.free(n, m, now) {
		return false
	}
	p.hold(m, n, now)
	return true
}

// write does as available, and keeps the address for the client until it is written, or
// what is returned is called.
func (p *pool) write(mac lane.MAC, a netip.Addr, now time.Time) (ok bool, written func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m, n := hardware(mac), number(a)
	if !p.free(n, m, now) {
		return false, nil
	}
	p.hold(m, n, now)
	p.writing[n] = m
	return true, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.writing, n)
	}
}

// replaces returns the lease that ends when the client gets an address, or the zero Addr.
func (p *pool) replaces(mac lane.MAC, a netip.Addr) netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old, ok := p.byMAC[hardware(mac)]; ok && old != number(a) {
		return old.addr()
	}
	return netip.Addr{}
}

// covers reports whether an address lies in a range for clients of the class.
func (p *pool) covers(a netip.Addr, class string) bool { return p.spanOf(number(a), class) != nil }

// set makes a stored lease the truth.
func (p *pool) set(l lane.Lease) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, m := number(l.Address), hardware(l.MAC)
	delete(p.aside, a)
	delete(p.checked, a)
	if l.State == lane.LeaseDeclined {
		p.setAside(a, aside{until: l.Expires})
		p.forget(m)
		return
	}
	if old, ok := p.byMAC[m]; ok && old != a && p.byAddr[old].mac == m {
		delete(p.byAddr, old)
		p.retire(old, l.Granted.UnixMicro())
	}
	if had, ok := p.byAddr[a]; ok && had.mac != m {
		delete(p.byMAC, had.mac)
	}
	// One of the constants, not the text from the database: a million of them are one string.
	state := lane.LeaseReleased
	if l.State == lane.LeaseActive {
		state = lane.LeaseActive
	}
	p.byMAC[m], p.byAddr[a] = a, lease{m, state, l.Granted.UnixMicro(), l.Expires.UnixMicro()}
	p.retire(a, l.Expires.UnixMicro())
	p.forget(m)
}

// setAside takes an address from whoever had it. It is kept by address: the client
// that declined it soon has another lease.
func (p *pool) setAside(a ip4, s aside) {
	p.aside[a] = s
	if l, ok := p.byAddr[a]; ok {
		delete(p.byMAC, l.mac)
		delete(p.byAddr, a)
	}
	p.retire(a, s.until.UnixMicro())
}

// forgive ends an address's being set aside.
func (p *pool) forgive(a netip.Addr, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.aside, number(a))
	p.retire(number(a), now.UnixMicro())
}

// mayDecline reports whether a client's DECLINE counts: it must hold the
// address, and must not have declined too many already.
func (p *pool) mayDecline(mac lane.MAC, a netip.Addr, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	m, n := hardware(mac), number(a)
	o, offered := p.offers[m]
	leased, has := p.byMAC[m]
	if !(offered && o.addr == n) && !(has && leased == n) {
		return false
	}
	if p.asideOf(n, now) {
		return false
	}
	recent := slices.DeleteFunc(slices.Clone(p.declines[m]), func(t time.Time) bool { return now.Sub(t) > declineHold })
	if len(recent) >= maxDeclines {
		p.declines[m] = recent
		return false
	}
	for k, times := range p.declines {
		if len(p.declines) > 1024 && now.Sub(times[len(times)-1]) > declineHold {
			delete(p.declines, k)
		}
	}
	p.declines[m] = append(recent, now)
	return true
}

// asideOf reports whether the address's range has its share set aside already.
func (p *pool) asideOf(a ip4, now time.Time) bool {
	s := p.containing(a)
	if s == nil {
		return false
	}
	n := uint64(0)
	for other, why := range p.aside {
		if s.first <= other && other <= s.last && now.Before(why.until) {
			n++
		}
	}
	return n >= max(maxDeclines, (uint64(s.last)-uint64(s.first)+1)/asideShare)
}

// usage counts the addresses of a pool's ranges.
func (p *pool) usage(now time.Time) (u lane.PoolUsage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	used := func(a ip4) {
		if p.containing(a) != nil {
			u.Used++
		}
	}
	for _, s := range p.spans {
		u.Size += int64(s.last) - int64(s.first) + 1
	}
	for a, l := range p.byAddr {
		if l.live(now) {
			u.Leased++
			used(a)
		}
	}
	for a, m := range p.offered {
		if l, ok := p.byAddr[a]; now.Before(p.offers[m].until) && (!ok || !l.live(now)) {
			u.Offered++
			used(a)
		}
	}
	for a, s := range p.aside {
		if now.Before(s.until) {
			u.Aside++
			used(a)
		}
	}
	return u
}

// upcoming returns addresses that will be given next and that nobody was asked about
// lately, at most n.
func (p *pool) upcoming(n int, now time.Time) (out []netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for a, t := range p.checked {
		if now.Sub(t) > checkHolds {
			delete(p.checked, a)
		}
	}
	add := func(a ip4) {
		if _, done := p.checked[a]; !done && p.free(a, hw{}, now) {
			out = append(out, a.addr())
		}
	}
	for _, s := range p.spans {
		for a := s.next; a <= uint64(s.last) && a < s.next+uint64(n) && len(out) < n; a++ {
			add(ip4(a))
		}
		for _, a := range s.idle.Next(n, now.UnixMicro()) {
			if len(out) < n {
				add(a)
			}
		}
	}
	return out
}

// silent notes that nobody answered for an address.
func (p *pool) silent(a netip.Addr, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checked[number(a)] = now
}

// verified reports whether nobody answered for the address lately.
func (p *pool) verified(a netip.Addr, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, ok := p.checked[number(a)]
	return ok && now.Sub(t) <= checkHolds
}

// outcome is what comes of a machine's answering for an address.
type outcome int

const (
	expected outcome = iota // it is whom the address was leased or offered to, or it was known
	putAside                // nobody else is given it for a while
	disputed                // it is leased to another
	tooMany                 // the range has its share set aside already
)

// answered notes that somebody uses an address: it is set aside for all others, within
// the bound that DECLINEs have. One machine that answers for everything, be it a proxy
// ARP or a forger, must not take the range. holder is whom a disputed one is leased to.
func (p *pool) answered(a netip.Addr, by lane.MAC, now time.Time) (is outcome, holder lane.MAC) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, m := number(a), hardware(by)
	if by == "" {
		m = hw{}
	}
	l, leased := p.byAddr[n]
	leased = leased && l.live(now)
	if leased && l.mac == m || p.offered[n] == m && m != (hw{}) {
		return expected, ""
	}
	s, known := p.aside[n]
	known = known && now.Before(s.until)
	switch {
	case known && s.user == m:
		return expected, ""
	case leased && m == (hw{}):
		return expected, "" // behind a router nobody can tell that it is another than the holder
	case leased:
		return disputed, l.mac.mac() // it stays its holder's: the other one has no right to it
	case !known && p.asideOf(n, now):
		return tooMany, ""
	case !known && !leased && m != (hw{}) && p.byAddr[n].mac == m:
		p.putAside(n, m, now) // it never renewed, as firmware and installers do not: nobody else gets it meanwhile
		return expected, ""
	}
	if o, ok := p.offered[n]; ok {
		p.forget(o) // its REQUEST will find the address gone
	}
	p.putAside(n, m, now)
	return putAside, ""
}

// putAside keeps an address from all but its user. Whose lease of it has expired keeps that on record: its row
// is stored still, and the next lease of that client takes its place.
func (p *pool) putAside(a ip4, user hw, now time.Time) {
	s := aside{until: now.Add(declineHold), user: user}
	p.aside[a] = s
	p.retire(a, s.until.UnixMicro())
}
