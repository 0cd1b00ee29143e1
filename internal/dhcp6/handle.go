package dhcp6

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"bootlane/internal/lane"
)

// handle decides what to answer to a query. An error means that a part we need does not
// answer: the server stays silent, and the client asks again.
func (s *Server) handle(ctx context.Context, q query) (reply, error) {
	n, why := s.scopeOf(q)
	if n == nil {
		if why != "" {
			s.without(q, why)
		}
		return reply{}, nil
	}
	q.facts.Server = n.HTTPBase
	switch {
	case q.serverID != nil && !bytes.Equal(q.serverID, s.cfg.DUID):
		return reply{}, nil // another server's
	case len(q.layers) == 0 && q.unicast:
		return s.useMulticast(q), nil
	}
	if q.msg != dhcpv6.MessageTypeInformationRequest { // which may come from nobody in particular
		done, ok := n.pool.turns.Take(q.client)
		if !ok {
			return reply{}, nil // a repetition: what it repeats is being answered
		}
		defer done()
	}
	switch q.msg {
	case dhcpv6.MessageTypeSolicit:
		return s.solicit(ctx, n, q)
	case dhcpv6.MessageTypeRequest:
		return s.request(ctx, n, q)
	case dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRebind:
		return s.extend(ctx, n, q)
	case dhcpv6.MessageTypeConfirm:
		return s.confirm(n, q), nil
	case dhcpv6.MessageTypeRelease:
		return s.release(ctx, n, q)
	case dhcpv6.MessageTypeDecline:
		return s.decline(ctx, n, q)
	}
	return s.inform(ctx, n, q)
}

// useMulticast answers a client that speaks to us alone though nobody told it that it
// may, RFC 8415 18.3.2. What may only be multicast is discarded: section 16.
func (s *Server) useMulticast(q query) reply {
	if q.serverID == nil || q.msg == dhcpv6.MessageTypeInformationRequest {
		return reply{}
	}
	r := s.begin(q, dhcpv6.MessageTypeReply)
	r.options.status(statusUseMulticast, "send to "+allAgentsAndServers)
	return r
}

// ask puts the one question, for clients that want to boot.
func (s *Server) ask(ctx context.Context, q query) (lane.Decision, error) {
	if q.class == plain {
		return lane.Decision{}, nil
	}
	return s.cfg.Asker.Ask(ctx, q.facts)
}

// finish adds what every answer to a client ends with.
func (n *scope) finish(r reply, q query, d lane.Decision) reply {
	n.config(&r.options, q)
	n.boot(&r.options, q, d)
	return r
}

func (s *Server) solicit(ctx context.Context, n *scope, q query) (reply, error) {
	d, err := s.ask(ctx, q)
	if err != nil {
		return reply{}, err
	}
	list, err := s.assign(ctx, n, q, d.Host != "")
	if err != nil {
		return reply{}, err
	}
	kind := dhcpv6.MessageTypeAdvertise
	rapid := q.rapid && slices.ContainsFunc(list, binding.given)
	if rapid { // RFC 8415 18.3.1: there is no other server whose offer it could prefer
		kind = dhcpv6.MessageTypeReply
		if err := s.commit(ctx, n, q, list); err != nil {
			return reply{}, err
		}
	}
	r := s.begin(q, kind)
	if rapid {
		r.options.add(dhcpv6.OptionRapidCommit)
	}
	n.bindings(&r.options, list)
	return n.finish(r, q, d), nil
}

func (s *Server) request(ctx context.Context, n *scope, q query) (reply, error) {
	d, err := s.ask(ctx, q)
	if err != nil {
		return reply{}, err
	}
	list, err := s.assign(ctx, n, q, d.Host != "")
	if err == nil {
		err = s.commit(ctx, n, q, list)
	}
	if err != nil {
		return reply{}, err
	}
	r := s.begin(q, dhcpv6.MessageTypeReply)
	n.bindings(&r.options, list)
	return n.finish(r, q, d), nil
}

// binding is what an association of a client is answered.
type binding struct {
	ia     association
	addr   netip.Addr // the zero Addr: none, and status says why
	status uint16
	text   string
	gone   []netip.Addr // of those that it named, what it must not use any more
	silent bool         // not answered at all
	end    bool         // nothing that it named may be used any more
}

func (b binding) given() bool { return b.addr.IsValid() }

func (n *scope) bindings(w *writer, list []binding) {
	for _, b := range list {
		switch {
		case b.silent:
		case b.given():
			n.granted(w, b.ia, b.addr, b.gone)
		case b.end:
			ended(w, b.ia)
		default:
			refused(w, b.ia, b.status, b.text)
		}
	}
}

// assign finds an address for every association, and holds it, RFC 8415 18.3.1 and 18.3.2.
func (s *Server) assign(ctx context.Context, n *scope, q query, known bool) ([]binding, error) {
	return s.eachIA(ctx, n, q, func(ia association, c applicant) (binding, error) {
		for _, a := range ia.addrs {
			if q.msg == dhcpv6.MessageTypeRequest && !n.Prefix.Contains(a) {
				return binding{ia: ia, status: statusNotOnLink, text: fmt.Sprintf("%s is not in %s", a, n.Prefix)}, nil
			}
		}
		c.known = c.known || known
		a, ok, err := n.pool.choose(c, s.usable(ctx, n), s.cfg.Now())
		if ok || err != nil {
			return binding{ia: ia, addr: a}, err
		}
		if c.reserved.IsValid() {
			s.without(q, n.pool.why(c.reserved, s.cfg.Now()))
		} else {
			s.full(n, q)
		}
		return binding{ia: ia, status: statusNoAddrsAvail, text: "no address is free"}, nil
	})
}

// extend answers RENEW and REBIND, RFC 8415 18.3.4 and 18.3.5. An address that nobody
// else has is extended although we know nothing of its lease: it is ours to give.
func (s *Server) extend(ctx context.Context, n *scope, q query) (reply, error) {
	d, err := s.ask(ctx, q)
	if err != nil {
		return reply{}, err
	}
	now := s.cfg.Now()
	list, err := s.eachIA(ctx, n, q, func(ia association, c applicant) (binding, error) {
		c.only = len(ia.addrs) > 0 // a new association is given an address, RFC 8415 18.2.4
		a, ok, err := n.pool.choose(c, s.usable(ctx, n), now)
		switch {
		case ok || err != nil:
			return binding{ia: ia, addr: a, gone: without(slices.Clone(ia.addrs), a)}, err
		case len(ia.addrs) == 0:
			if !c.reserved.IsValid() {
				s.full(n, q)
			}
			return binding{ia: ia, status: statusNoAddrsAvail, text: "no address is free"}, nil
		case q.msg == dhcpv6.MessageTypeRenew:
			return binding{ia: ia, status: statusNoBinding, text: "this client has no lease of it"}, nil
		}
		foreign := slices.ContainsFunc(ia.addrs, func(a netip.Addr) bool {
			return !n.Prefix.Contains(a) || n.pool.user(a, now) != "" && n.pool.user(a, now) != q.client
		})
		return binding{ia: ia, end: foreign, silent: !foreign}, nil
	})
	if err == nil && q.msg == dhcpv6.MessageTypeRebind && !slices.ContainsFunc(list, func(b binding) bool { return b.given() || b.end }) {
		return reply{}, nil // some other server may know more
	}
	if err == nil {
		err = s.commit(ctx, n, q, list)
	}
	if err != nil {
		return reply{}, err
	}
	r := s.begin(q, dhcpv6.MessageTypeReply)
	n.bindings(&r.options, list)
	return n.finish(r, q, d), nil
}

// eachIA answers the associations one by one, and each knows what the others have.
// Prefixes and temporary addresses are not given: RFC 8415 18.3.9.
func (s *Server) eachIA(ctx context.Context, n *scope, q query, answer func(association, applicant) (binding, error)) ([]binding, error) {
	reserved, nics, usable, err := s.reservation(ctx, n, q)
	if err != nil {
		return nil, err
	}
	mine := q.reservedIA(reserved)
	var out []binding
	for i, ia := range q.ias {
		switch {
		case ia.code == dhcpv6.OptionIAPD:
			out = append(out, binding{ia: ia, status: statusNoPrefixAvail, text: "no prefixes are given here"})
			continue
		case ia.code == dhcpv6.OptionIATA:
			out = append(out, binding{ia: ia, status: statusNoAddrsAvail, text: "no temporary addresses are given here"})
			continue
		case !usable:
			out = append(out, binding{ia: ia, status: statusNoAddrsAvail, text: "the address reserved for this machine cannot be given"})
			continue
		}
		c := applicant{client: q.client, known: len(nics) > 0, wishes: ia.addrs}
		if i == mine {
			c.reserved = reserved
		} else if reserved.IsValid() {
			c.except = append(c.except, reserved)
		}
		for j, other := range q.ias {
			if j != i {
				c.except = append(c.except, other.addrs...)
			}
		}
		for _, b := range out {
			c.except = append(c.except, b.addr)
		}
		b, err := answer(ia, c)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// reservedIA returns which association a reserved address is for: the one that has it,
// or else the first.
func (q query) reservedIA(reserved netip.Addr) int {
	isNA := func(ia association) bool { return ia.code == dhcpv6.OptionIANA }
	if i := slices.IndexFunc(q.ias, func(ia association) bool { return isNA(ia) && slices.Contains(ia.addrs, reserved) }); i >= 0 {
		return i
	}
	return slices.IndexFunc(q.ias, isNA)
}

// reservation returns the address reserved for the client, and the NICs of its host. A
// host has one, and often several NICs: while one of them uses it, the others are
// strangers to it. So is a machine whose address is reserved in another network. ok is
// false when the address cannot be any machine's.
func (s *Server) reservation(ctx context.Context, n *scope, q query) (a netip.Addr, nics []lane.MAC, ok bool, err error) {
	a, nics, err = s.cfg.Reservations.Reserved6(ctx, q.facts)
	if err != nil || !a.IsValid() {
		return netip.Addr{}, nics, true, err
	}
	if !n.Prefix.Contains(a) && s.elsewhere(a) {
		return netip.Addr{}, nics, true, nil
	}
	if why := n.Misplaced(a); why != "" {
		s.without(q, "its reserved address cannot be a machine's: "+why+"; correct network.address6")
		return netip.Addr{}, nics, false, nil
	}
	if user := n.pool.user(a, s.cfg.Now()); user != q.client && user.MAC() != "" && slices.Contains(nics, user.MAC()) {
		return netip.Addr{}, nics, true, nil
	}
	return a, nics, true, nil
}

// usable says whether an address may be given to whom it is not reserved for.
func (s *Server) usable(ctx context.Context, n *scope) func(netip.Addr) (bool, error) {
	return func(a netip.Addr) (bool, error) {
		if n.Givable(a) != "" {
			return false, nil
		}
		owned, err := s.cfg.Reservations.Holder6(ctx, a)
		return !owned, err
	}
}

// commit stores the leases of a message, all at once, and only then they count.
func (s *Server) commit(ctx context.Context, n *scope, q query, list []binding) error {
	now := s.cfg.Now()
	var leases []lane.Lease6
	var held []netip.Addr
	for _, b := range list {
		if b.given() {
			leases = append(leases, lane.Lease6{Client: q.client, Address: b.addr, State: lane.LeaseActive, Granted: now, Expires: now.Add(n.LeaseTime())})
			held = append(held, b.addr)
		}
	}
	if len(leases) == 0 {
		return nil
	}
	ok, written := n.pool.write(q.client, held, now)
	if !ok {
		return lane.Errorf(lane.Conflict, "one of %s has gone to another client meanwhile", join(held))
	}
	defer written()
	if err := s.cfg.Leases.PutLease6(ctx, leases...); err != nil {
		n.pool.drop(held, now)
		return err
	}
	n.pool.set(leases...)
	s.note(q, "leased "+join(held))
	return nil
}

// confirm tells a client that moved whether its addresses fit where it is now, RFC 8415
// 18.3.3. Without addresses there is nothing to tell.
func (s *Server) confirm(n *scope, q query) reply {
	var named []netip.Addr
	for _, ia := range q.ias {
		named = append(named, ia.addrs...)
	}
	if len(named) == 0 {
		return reply{}
	}
	r := s.begin(q, dhcpv6.MessageTypeReply)
	if slices.ContainsFunc(named, func(a netip.Addr) bool { return !n.Prefix.Contains(a) }) {
		r.options.status(statusNotOnLink, "this is "+n.Prefix.String())
	} else {
		r.options.status(statusSuccess, "all addresses are of this network")
	}
	return r
}

// release ends leases, RFC 8415 18.3.7. They stay on record, so that their client gets
// the same addresses again.
func (s *Server) release(ctx context.Context, n *scope, q query) (reply, error) {
	now := s.cfg.Now()
	return s.giveUp(ctx, n, q, "released", func(a netip.Addr) (lane.Lease6, bool) {
		its, live := n.pool.leased(q.client, a, now)
		return lane.Lease6{Client: q.client, Address: a, State: lane.LeaseReleased, Granted: now, Expires: now}, its && live
	})
}

// decline sets addresses aside that somebody else uses, RFC 8415 18.3.8.
func (s *Server) decline(ctx context.Context, n *scope, q query) (reply, error) {
	now := s.cfg.Now()
	return s.giveUp(ctx, n, q, fmt.Sprintf("declined (another machine answers there; set aside for %s)", declineHold), func(a netip.Addr) (lane.Lease6, bool) {
		return lane.Lease6{Client: q.client, Address: a, State: lane.LeaseDeclined, Granted: now, Expires: now.Add(declineHold)}, n.pool.mayDecline(q.client, a, now)
	})
}

// giveUp stores what becomes of the addresses that a client does not want, and says of
// which associations it has none.
func (s *Server) giveUp(ctx context.Context, n *scope, q query, what string, judge func(netip.Addr) (lane.Lease6, bool)) (reply, error) {
	var leases []lane.Lease6
	var list []netip.Addr
	var unknown []association
	for _, ia := range q.ias {
		before := len(list)
		for _, a := range ia.addrs {
			if l, ok := judge(a); ok && !slices.Contains(list, a) {
				leases, list = append(leases, l), append(list, a)
			}
		}
		if len(list) == before {
			unknown = append(unknown, ia)
		}
	}
	if len(leases) > 0 {
		if err := s.cfg.Leases.PutLease6(ctx, leases...); err != nil {
			return reply{}, err
		}
		n.pool.set(leases...)
		s.note(q, what+" "+join(list))
	}
	r := s.begin(q, dhcpv6.MessageTypeReply)
	r.options.status(statusSuccess, "")
	for _, ia := range unknown {
		refused(&r.options, ia, statusNoBinding, "this client has no lease of it")
	}
	return r, nil
}

// inform answers a client that has its address from elsewhere, RFC 8415 18.3.6.
func (s *Server) inform(ctx context.Context, n *scope, q query) (reply, error) {
	d, err := s.ask(ctx, q)
	if err != nil {
		return reply{}, err
	}
	return n.finish(s.begin(q, dhcpv6.MessageTypeReply), q, d), nil
}

// Release takes an address from whoever has it, or ends its being set aside, on an
// operator's word. The machine itself is not told: it must have stopped using it.
func (s *Server) Release(ctx context.Context, a netip.Addr) (lane.Lease6, error) {
	for _, n := range s.scopes {
		if !n.Prefix.Contains(a) {
			continue
		}
		l, ok := n.pool.at(a)
		if !ok {
			return lane.Lease6{}, lane.Errorf(lane.NotFound, "nobody has %s, and it is not set aside", a)
		}
		now := s.cfg.Now()
		if l.State != lane.LeaseDeclined {
			done, ok := n.pool.turns.Take(l.Client)
			if ok {
				defer done()
			}
			if again, still := n.pool.at(a); !ok || !still || again != l {
				return lane.Lease6{}, lane.Errorf(lane.Conflict, "the lease of %s is changing right now: look again", a)
			}
			l.State, l.Granted, l.Expires = lane.LeaseReleased, now, now
			if err := s.cfg.Leases.PutLease6(ctx, l); err != nil {
				return l, err
			}
			n.pool.set(l)
			return l, nil
		}
		if err := s.cfg.Leases.DropLease6(ctx, a); err != nil {
			return l, err
		}
		n.pool.forgive(a, now)
		return l, nil
	}
	return lane.Lease6{}, lane.Errorf(lane.NotFound, "%s is in no IPv6 network that Bootlane owns", a)
}

func join(list []netip.Addr) string {
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = a.String()
	}
	return strings.Join(out, ", ")
}

// note puts what became of an address on record.
func (s *Server) note(q query, text string) {
	s.cfg.Evidence.Lease(q.facts, q.msg.String(), text)
}

// without puts on record why a machine gets no address.
func (s *Server) without(q query, text string) {
	s.cfg.Evidence.NoLease(q.facts, q.msg.String(), text)
}

// full puts on record that the range is used up, and tells the log once a minute. Where
// there is no range, strangers get no address by intent.
func (s *Server) full(n *scope, q query) {
	s.without(q, fmt.Sprintf("no address of %s is free for it: its range is leased, reserved or on offer; enlarge networks[].ipv6.range", n.Prefix))
	now := s.cfg.Now().Unix()
	if last := n.warned.Load(); n.First.IsValid() && now-last >= 60 && n.warned.CompareAndSwap(last, now) {
		s.cfg.Log.Warn("no address is free: `bootlane dhcp networks` shows how full it is", "network", n.Prefix, "mac", q.facts.MAC)
	}
}
