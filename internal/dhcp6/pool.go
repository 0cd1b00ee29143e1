package dhcp6

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

// pool hands out the addresses of one network. It is memory only: what it grants becomes
// true when the lease is stored, and is taken back when that fails.
//
// Addresses that were never given come first, then those that have been idle longest. A
// released one stays its client's until somebody needs it: OVMF releases its address
// after every download, and the same machine asks again a second later.
//
// A range may have more addresses than any memory. Only its first 65,536 are ever given,
// so that clients that nobody ever saw cannot make us remember more.
type pool struct {
	mu       sync.Mutex
	first    netip.Addr
	last     netip.Addr // of those that are given; the zero Addr: there is no range
	next     netip.Addr // the first that was never given
	leases   map[netip.Addr]lease
	offers   map[netip.Addr]offer
	aside    map[netip.Addr]time.Time // declined, until then
	declines map[lane.Client][]time.Time
	holdings map[lane.Client]*holding
	idle     idle.List[netip.Addr]      // in Unix microseconds
	held     []pledge                   // what was offered, the oldest first; may be outdated
	writing  map[netip.Addr]lane.Client // leases on their way to the disk: nobody else's meanwhile

	// turns are the clients': the disk and the pool must learn of two changes of a
	// client's leases in the same order.
	turns turn.Line[lane.Client]
}

// lease is a stored lease.
type lease struct {
	client  lane.Client
	active  bool // or released
	expires time.Time
}

func (l lease) live(now time.Time) bool { return l.active && now.Before(l.expires) }

type offer struct {
	client       lane.Client
	since, until time.Time
}

type pledge struct {
	client lane.Client
	addr   netip.Addr
	since  time.Time
}

// of reports whether the pledge is that of an offer, and not of an earlier one of the same.
func (h pledge) of(o offer) bool { return o.client == h.client && o.since.Equal(h.since) }

// holding is what a client has or had, in the order in which it got it.
type holding struct{ leased, offered []netip.Addr }

// Bounds of the pool, and the times of an offer and of the quarantine of a declined address.
const (
	maxGiven    = 1 << 16
	offerHold   = time.Minute
	offerFirm   = 10 * time.Second // so long it is not given to another stranger, even if nothing else is free
	declineHold = 10 * time.Minute
	maxDeclines = 3 // per client and declineHold
	asideShare  = 4 // at most one address in so many is set aside: whoever declines more is lying
)

func newPool(first, last netip.Addr, leases []lane.Lease6) *pool {
	p := &pool{leases: map[netip.Addr]lease{}, offers: map[netip.Addr]offer{}, aside: map[netip.Addr]time.Time{},
		declines: map[lane.Client][]time.Time{}, holdings: map[lane.Client]*holding{}, writing: map[netip.Addr]lane.Client{}}
	if first.IsValid() && last.IsValid() {
		p.first, p.next, p.last = first, first, last
		if distance(first, last) >= maxGiven {
			p.last = plus(first, maxGiven-1)
		}
	}
	for _, l := range leases {
		p.set(l)
	}
	return p
}

// distance returns how far b is behind a; both lie in one /64.
func distance(a, b netip.Addr) uint64 { return low(b) - low(a) }

func low(a netip.Addr) uint64 { b := a.As16(); return binary.BigEndian.Uint64(b[8:]) }

func plus(a netip.Addr, n uint64) netip.Addr {
	b := a.As16()
	binary.BigEndian.PutUint64(b[8:], low(a)+n)
	return netip.AddrFrom16(b)
}

// covers reports whether an address is one of those that strangers are given.
func (p *pool) covers(a netip.Addr) bool {
	return p.last.IsValid() && !a.Less(p.first) && !p.last.Less(a)
}

// size returns how many addresses strangers are given.
func (p *pool) size() int64 {
	if !p.last.IsValid() {
		return 0
	}
	return int64(distance(p.first, p.last)) + 1
}

// applicant is whom an address is wanted for.
type applicant struct {
	client   lane.Client
	known    bool         // the inventory has it
	reserved netip.Addr   // for it; zero without a reservation
	wishes   []netip.Addr // those that it asks for
	except   []netip.Addr // those that its other associations have
	only     bool         // nothing but what it has or asks for
}

// choose returns the address for a client: its reservation, what it holds, what it asks
// for, or a free one. It reports false when there is none. The address is held for a
// minute. usable says whether an address that is not reserved for the client may be
// given at all; the pool is not locked while it is asked.
func (p *pool) choose(c applicant, usable func(netip.Addr) (bool, error), now time.Time) (netip.Addr, bool, error) {
	if c.reserved.IsValid() {
		return c.reserved, p.available(c.client, c.reserved, now), nil // another address would only hide that somebody has it
	}
	for _, a := range p.candidates(c) {
		ok, err := usable(a)
		if err != nil {
			return netip.Addr{}, false, err
		}
		if ok && p.available(c.client, a, now) {
			return a, true, nil
		}
	}
	for !c.only {
		a, found := p.fresh(c, now)
		if !found {
			return netip.Addr{}, false, nil
		}
		ok, err := usable(a)
		if ok || err != nil {
			return a, ok, err
		}
		p.skip(a, now)
	}
	return netip.Addr{}, false, nil
}

// candidates are the addresses that a client has some claim to. What it names and has
// comes first: it may have several, and which association was which is not kept, for
// firmware calls its one association by another number in each of its stages.
func (p *pool) candidates(c applicant) (out []netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var own []netip.Addr
	if h, ok := p.holdings[c.client]; ok {
		own = slices.Concat(h.offered, h.leased)
	}
	for _, a := range c.wishes {
		if slices.Contains(own, a) {
			out = append(out, a)
		}
	}
	out = append(append(out, own...), c.wishes...)
	return slices.DeleteFunc(out, func(a netip.Addr) bool { return !p.covers(a) || slices.Contains(c.except, a) })
}

// fresh takes an address to which the client has no claim, and holds it.
func (p *pool) fresh(c applicant, now time.Time) (netip.Addr, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.heldBy(c.client, now) >= maxAssociations {
		return netip.Addr{}, false
	}
	for _, take := range []func() (netip.Addr, bool){
		func() (netip.Addr, bool) { return p.unused(c, now) },
		func() (netip.Addr, bool) { return p.longestIdle(c, now) },
		func() (netip.Addr, bool) { return p.preempt(c, now) },
	} {
		if a, ok := take(); ok {
			p.hold(c.client, a, now)
			return a, true
		}
	}
	return netip.Addr{}, false
}

func (p *pool) unused(c applicant, now time.Time) (netip.Addr, bool) {
	for p.covers(p.next) {
		a := p.next
		p.next = a.Next()
		_, leased := p.leases[a]
		switch {
		case leased || !p.free(a, c.client, now):
		case slices.Contains(c.except, a):
			p.retire(a, now) // nobody has it, and we do not come by here again
		default:
			return a, true
		}
	}
	return netip.Addr{}, false
}

// retire notes when an address of the range becomes idle.
func (p *pool) retire(a netip.Addr, at time.Time) {
	if p.covers(a) {
		p.idle.Add(a, at.UnixMicro(), p.idleFrom)
	}
}

// idleFrom returns when the lease or offer of an address ends, or what it is set aside for.
func (p *pool) idleFrom(a netip.Addr) (at int64, ok bool) {
	if l, has := p.leases[a]; has {
		at, ok = l.expires.UnixMicro(), true
	}
	if o, has := p.offers[a]; has {
		at, ok = max(at, o.until.UnixMicro()), true
	}
	if until, has := p.aside[a]; has {
		at, ok = max(at, until.UnixMicro()), true
	}
	return at, ok
}

func (p *pool) longestIdle(c applicant, now time.Time) (netip.Addr, bool) {
	var passed []netip.Addr
	defer func() {
		for _, a := range passed { // stay idle, and as long as they were
			at, ok := p.idleFrom(a)
			if !ok {
				at = now.UnixMicro()
			}
			p.idle.Add(a, at, p.idleFrom)
		}
	}()
	for a, ok := p.idle.Take(now.UnixMicro()); ok; a, ok = p.idle.Take(now.UnixMicro()) {
		switch {
		case !p.free(a, c.client, now):
			// Leased anew, offered or set aside since: the end of that has an entry of its own.
		case !slices.Contains(c.except, a):
			return a, true
		case !slices.Contains(passed, a):
			passed = append(passed, a)
		}
	}
	return netip.Addr{}, false
}

// preempt takes the oldest offer that its client did not take up: machines that never
// ask for what they are offered must not keep the others out. A known machine need not
// wait for that.
func (p *pool) preempt(c applicant, now time.Time) (netip.Addr, bool) {
	for tries := len(p.held); tries > 0; tries-- {
		oldest := p.held[0]
		o, ok := p.offers[oldest.addr]
		switch {
		case !ok || !oldest.of(o) || !p.covers(oldest.addr) || p.leases[oldest.addr].live(now) || p.writing[oldest.addr] != "":
			// taken up, withdrawn, made anew, about to be taken up; or its client asks anew while its lease runs
			p.held = p.held[1:]
			continue
		case slices.Contains(c.except, oldest.addr): // its own, of this very message
			p.held = append(p.held[1:], oldest)
			continue
		case !c.known && now.Sub(o.since) < offerFirm:
			return netip.Addr{}, false
		}
		p.held = p.held[1:]
		p.forget(oldest.addr)
		return oldest.addr, true
	}
	return netip.Addr{}, false
}

// heldBy counts the addresses that a client has, or was offered.
func (p *pool) heldBy(c lane.Client, now time.Time) (n int) {
	h, ok := p.holdings[c]
	if !ok {
		return 0
	}
	for _, a := range h.offered {
		if now.Before(p.offers[a].until) && !p.leases[a].live(now) { // else it asks anew for what it has
			n++
		}
	}
	for _, a := range h.leased {
		if p.leases[a].live(now) {
			n++
		}
	}
	return n
}

// free reports whether nobody but the client has an address.
func (p *pool) free(a netip.Addr, c lane.Client, now time.Time) bool {
	if now.Before(p.aside[a]) {
		return false
	}
	if other, ok := p.writing[a]; ok && other != c {
		return false
	}
	if l := p.leases[a]; l.live(now) {
		return l.client == c
	}
	o, ok := p.offers[a]
	return !ok || o.client == c || !now.Before(o.until)
}

func (p *pool) hold(c lane.Client, a netip.Addr, now time.Time) {
	o := offer{c, now, now.Add(offerHold)}
	if old, ok := p.offers[a]; ok && old.client == c && now.Before(old.until) {
		o.since = old.since // asking again does not make it firm anew
	} else {
		if len(p.held) > 2*len(p.offers)+1024 {
			p.held = slices.DeleteFunc(p.held, func(h pledge) bool { return !h.of(p.offers[h.addr]) })
		}
		p.held = append(p.held, pledge{c, a, now})
	}
	p.forget(a)
	p.offers[a] = o
	h := p.holder(c)
	h.offered = append(h.offered, a)
	p.retire(a, o.until)
}

func (p *pool) holder(c lane.Client) *holding {
	h, ok := p.holdings[c]
	if !ok {
		h = &holding{}
		p.holdings[c] = h
	}
	return h
}

// forget ends the offer of an address, if there is one.
func (p *pool) forget(a netip.Addr) {
	if o, ok := p.offers[a]; ok {
		delete(p.offers, a)
		h := p.holder(o.client)
		h.offered = without(h.offered, a)
		p.dismiss(o.client)
	}
}

// lapse ends a lease.
func (p *pool) lapse(a netip.Addr) {
	if l, ok := p.leases[a]; ok {
		delete(p.leases, a)
		h := p.holder(l.client)
		h.leased = without(h.leased, a)
		p.dismiss(l.client)
	}
}

// dismiss forgets a client that has nothing.
func (p *pool) dismiss(c lane.Client) {
	if h := p.holdings[c]; len(h.offered)+len(h.leased) == 0 {
		delete(p.holdings, c)
	}
}

func without(list []netip.Addr, a netip.Addr) []netip.Addr {
	return slices.DeleteFunc(list, func(b netip.Addr) bool { return a == b })
}

// skip gives back an address that turned out not to be for giving, for a while.
func (p *pool) skip(a netip.Addr, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(a)
	p.retire(a, now.Add(declineHold))
}

// drop ends a client's offers of addresses.
func (p *pool) drop(list []netip.Addr, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range list {
		p.forget(a)
		p.retire(a, now)
	}
}

// available reports whether the client may have exactly this address, and holds it.
func (p *pool) available(c lane.Client, a netip.Addr, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.free(a, c, now) {
		return false
	}
	p.hold(c, a, now)
	return true
}

// write reports whether the client may still have all of these addresses, and keeps them
// for it until they are written, or what is returned is called.
func (p *pool) write(c lane.Client, list []netip.Addr, now time.Time) (ok bool, written func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range list {
		if !p.free(a, c, now) {
			return false, nil
		}
	}
	for _, a := range list {
		p.writing[a] = c
	}
	return true, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, a := range list {
			delete(p.writing, a)
		}
	}
}

// leased reports whether the client has or had a lease of the address, and whether that
// runs still.
func (p *pool) leased(c lane.Client, a netip.Addr, now time.Time) (its, live bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, ok := p.leases[a]
	return ok && l.client == c, ok && l.client == c && l.live(now)
}

// user returns the client that has a lease or an offer of the address now, or nothing.
func (p *pool) user(a netip.Addr, now time.Time) lane.Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l, ok := p.leases[a]; ok && l.live(now) {
		return l.client
	}
	if o, ok := p.offers[a]; ok && now.Before(o.until) {
		return o.client
	}
	return ""
}

// why says why a reserved address cannot be given now.
func (p *pool) why(a netip.Addr, now time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	stamp := func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }
	if t := p.aside[a]; now.Before(t) {
		return fmt.Sprintf("its reserved address %s is set aside until %s: a machine answers there that has no lease of it", a, stamp(t))
	}
	if l, ok := p.leases[a]; ok && l.live(now) {
		return fmt.Sprintf("%s still has its reserved address %s, until %s", l.client, a, stamp(l.expires))
	}
	return fmt.Sprintf("its reserved address %s is on offer to %s: let it ask again in a minute", a, p.offers[a].client)
}

// set makes stored leases the truth.
func (p *pool) set(list ...lane.Lease6) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range list {
		delete(p.aside, l.Address)
		p.forget(l.Address)
		if had, ok := p.leases[l.Address]; ok && had.client != l.Client || l.State == lane.LeaseDeclined {
			p.lapse(l.Address)
		}
		p.retire(l.Address, l.Expires)
		if l.State == lane.LeaseDeclined {
			p.aside[l.Address] = l.Expires
			continue
		}
		if _, ok := p.leases[l.Address]; !ok {
			h := p.holder(l.Client)
			h.leased = append(h.leased, l.Address)
		}
		p.leases[l.Address] = lease{l.Client, l.State == lane.LeaseActive, l.Expires}
	}
}

// mayDecline reports whether a client's DECLINE counts: it must hold the address, must
// not have declined too many already, and not too much may be set aside.
func (p *pool) mayDecline(c lane.Client, a netip.Addr, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.leases[a].client != c && p.offers[a].client != c {
		return false
	}
	for k, t := range p.aside {
		if !now.Before(t) {
			delete(p.aside, k)
		}
	}
	if int64(len(p.aside)) >= max(1, p.size()/asideShare) {
		return false
	}
	for k, times := range p.declines {
		if now.Sub(times[len(times)-1]) > declineHold {
			delete(p.declines, k)
		}
	}
	recent := slices.DeleteFunc(p.declines[c], func(t time.Time) bool { return now.Sub(t) > declineHold })
	if len(recent) >= maxDeclines {
		return false
	}
	p.declines[c] = append(recent, now)
	return true
}

// at returns the lease of an address, or that it is set aside.
func (p *pool) at(a netip.Addr) (lane.Lease6, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l, ok := p.leases[a]; ok {
		state := lane.LeaseReleased
		if l.active {
			state = lane.LeaseActive
		}
		return lane.Lease6{Client: l.client, Address: a, State: state, Expires: l.expires}, true
	}
	until, ok := p.aside[a]
	return lane.Lease6{Address: a, State: lane.LeaseDeclined, Expires: until}, ok
}

// forgive ends an address's being set aside.
func (p *pool) forgive(a netip.Addr, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.aside, a)
	p.retire(a, now)
}

// usage counts the addresses.
func (p *pool) usage(now time.Time) (u lane.PoolUsage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u.Size = p.size()
	count := func(a netip.Addr, n *int64) {
		*n++
		if p.covers(a) {
			u.Used++
		}
	}
	for a, l := range p.leases {
		if l.live(now) {
			count(a, &u.Leased)
		}
	}
	for a, o := range p.offers {
		if now.Before(o.until) && !p.leases[a].live(now) {
			count(a, &u.Offered)
		}
	}
	for a, t := range p.aside {
		if now.Before(t) {
			count(a, &u.Aside)
		}
	}
	return u
}
