package dhcp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootlane/internal/lane"
)

// answer is a reply, its kind, and the address of ours that it comes from; the zero
// answer stays silent.
type answer struct {
	kind   dhcpv4.MessageType
	msg    message
	server netip.Addr
}

// handle decides what to answer to a query. An error means that a part we need
// does not answer: the server stays silent, and the client asks again.
func (s *Server) handle(ctx context.Context, q query) (answer, error) {
	n, why := s.scopeOf(q)
	if n == nil {
		if why != "" {
			s.without(q, why)
		}
		return answer{}, nil
	}
	q.facts.Server = n.HTTPBase
	a, err := s.handleIn(ctx, n, q)
	a.server = n.Server
	return a, err
}

func (s *Server) handleIn(ctx context.Context, n *scope, q query) (answer, error) {
	if n.Proxy {
		return s.proxy(ctx, n, q)
	}
	switch q.msg {
	case dhcpv4.MessageTypeDiscover:
		return s.discover(ctx, n, q)
	case dhcpv4.MessageTypeInform:
		d, err := s.ask(ctx, q)
		return answer{kind: dhcpv4.MessageTypeAck, msg: n.inform(q, d)}, err
	}
	done, ok := n.pool.turns.Take(q.mac)
	if !ok {
		return answer{}, nil // a repetition: what it repeats is being answered
	}
	defer done()
	switch q.msg {
	case dhcpv4.MessageTypeRequest:
		return s.request(ctx, n, q)
	case dhcpv4.MessageTypeDecline:
		return answer{}, s.decline(ctx, n, q)
	case dhcpv4.MessageTypeRelease:
		return answer{}, s.release(ctx, n, q)
	}
	return answer{}, nil
}

// proxy answers beside a server that owns the addresses: a DISCOVER on either port,
// and on 4011 what a client asks its boot server. A REQUEST on port 67 is that other
// server's, and a NAK from here would take its clients' addresses away.
func (s *Server) proxy(ctx context.Context, n *scope, q query) (answer, error) {
	kind := dhcpv4.MessageTypeAck
	switch {
	case q.class == plain || q.wantsCredentials():
		return answer{}, nil
	case q.msg == dhcpv4.MessageTypeDiscover:
		kind = dhcpv4.MessageTypeOffer
	case !q.bootServer || q.msg != dhcpv4.MessageTypeRequest && q.msg != dhcpv4.MessageTypeInform:
		return answer{}, nil
	}
	d, err := s.ask(ctx, q)
	if err != nil || n.KnownOnly && d.Reason == lane.UnknownMachine {
		return answer{}, err
	}
	m, ok := n.proxied(q, kind, d)
	if !ok {
		return answer{}, nil
	}
	return answer{kind: kind, msg: m}, nil
}

// wantsCredentials reports whether a boot server request asks for signed boot files
// (BIS), the high bit of PXE_BOOT_ITEM's layer: nobody has those.
func (q query) wantsCredentials() bool { return q.bootItem != nil && q.bootItem[2]&0x80 != 0 }

// ask puts the one question, for clients that want to boot.
func (s *Server) ask(ctx context.Context, q query) (lane.Decision, error) {
	if q.class == plain {
		return lane.Decision{}, nil
	}
	return s.cfg.Asker.Ask(ctx, q.facts)
}

func (s *Server) discover(ctx context.Context, n *scope, q query) (answer, error) {
	d, err := s.ask(ctx, q)
	if err != nil {
		return answer{}, err
	}
	a, ok, err := s.choose(ctx, n, q, d.Host != "")
	if err != nil || !ok {
		return answer{}, err
	}
	return answer{kind: dhcpv4.MessageTypeOffer, msg: n.lease(q, dhcpv4.MessageTypeOffer, a, d)}, nil
}

// choose finds an address for the client and holds it; that there is none is on record.
func (s *Server) choose(ctx context.Context, n *scope, q query, known bool) (netip.Addr, bool, error) {
	reserved, nics, err := s.reservation(ctx, n, q.mac)
	if err != nil {
		return netip.Addr{}, false, err
	}
	if why := n.Misplaced(reserved); reserved.IsValid() && why != "" {
		s.without(q, "its reserved address cannot be a machine's: "+why+"; correct network.address")
		return netip.Addr{}, false, nil
	}
	usable := func(a netip.Addr) (bool, error) {
		if n.Givable(a) != "" {
			return false, nil
		}
		owned, err := s.cfg.Reservations.Holder(ctx, a)
		return !owned, err
	}
	now := s.cfg.Now()
	c := applicant{mac: q.mac, class: n.classOf(q).Name, known: known || len(nics) > 0, reserved: reserved, wish: q.requested}
	a, ok, err := n.pool.choose(c, usable, now)
	switch {
	case err != nil:
	case ok:
		s.unsure(n, a, now)
	case reserved.IsValid():
		s.without(q, n.pool.why(reserved, now))
	default:
		s.without(q, fmt.Sprintf("no address of %s is free for it: its ranges are leased, reserved or on offer; enlarge networks[].range", n.Prefix))
		if everyMinute(&n.warned, now) {
			s.cfg.Log.Warn("no address is free: `bootlane dhcp networks` shows how full it is", "network", n.Prefix, "mac", q.mac)
		}
	}
	return a, ok, err
}

// reservation returns the address reserved for a NIC, and the NICs of its host. A host
// has one address, and often several NICs: while one of them uses it, the others are
// strangers to it. So is a machine whose address is reserved in another network.
func (s *Server) reservation(ctx context.Context, n *scope, m lane.MAC) (netip.Addr, []lane.MAC, error) {
	a, nics, err := s.cfg.Reservations.Reserved(ctx, m)
	if err != nil || !a.IsValid() {
		return netip.Addr{}, nics, err
	}
	if !n.Prefix.Contains(a) && s.elsewhere(a) {
		return netip.Addr{}, nics, nil
	}
	if user := n.pool.user(a, s.cfg.Now()); user != m && slices.Contains(nics, user) {
		return netip.Addr{}, nics, nil
	}
	return a, nics, nil
}

// elsewhere reports whether an address lies in some network of ours.
func (s *Server) elsewhere(a netip.Addr) bool {
	return slices.ContainsFunc(s.scopes, func(n *scope) bool { return n.Prefix.Contains(a) })
}

// request answers by the client's state: RFC 2131 4.3.2 and table 4.
func (s *Server) request(ctx context.Context, n *scope, q query) (answer, error) {
	now := s.cfg.Now()
	has := func(a netip.Addr) bool { return !a.IsUnspecified() }
	want := q.requested
	if !has(want) {
		want = q.ciaddr
	}
	switch {
	case has(q.serverID): // SELECTING
		if !s.own(n, q) {
			n.pool.drop(q.mac, now) // it took another server's offer, and said so by broadcast
			return answer{}, nil
		}
		if !has(want) { // tolerated: it means the outstanding offer
			o, ok := n.pool.offerOf(q.mac, now)
			if !ok {
				return answer{}, nil
			}
			want = o
		}
		return s.grant(ctx, n, q, want, "the offer has gone to another client")
	case !has(want):
		return answer{}, nil
	case !n.Prefix.Contains(want): // INIT-REBOOT or renewal, wrong network
		return s.refuse(n, q, "this address belongs to another network"), nil
	}
	l, known := n.pool.leaseOf(q.mac)
	reserved, _, err := s.reservation(ctx, n, q.mac)
	switch {
	case err != nil:
		return answer{}, err
	case reserved.IsValid() && reserved != want:
		return s.refuse(n, q, "another address is reserved for this client"), nil
	case known && l.Address == want || reserved == want:
		return s.grant(ctx, n, q, want, "the address has gone to another client")
	case known || n.Authoritative || n.pool.leasedToOther(q.mac, want, now):
		return s.refuse(n, q, "this client has no lease of this address"), nil
	}
	return answer{}, nil // RFC 2131 4.3.2: without a record the server must be silent
}

// own reports whether a REQUEST names us: by any address of ours (RFC 2131 4.1), or by
// the one that its relay agent put in our place (RFC 5107).
func (s *Server) own(n *scope, q query) bool {
	return q.serverID == n.Server || slices.Contains(s.addresses, q.serverID) || slices.Contains(n.Relays, q.serverID) || q.serverID == q.relay.serverID
}

// grant stores the lease, and only then acknowledges it.
func (s *Server) grant(ctx context.Context, n *scope, q query, a netip.Addr, gone string) (answer, error) {
	now := s.cfg.Now()
	reserved, _, err := s.reservation(ctx, n, q.mac)
	if err != nil {
		return answer{}, err
	}
	why, err := s.forbidden(ctx, n, q, a, reserved)
	switch {
	case err != nil:
		return answer{}, err
	case why != "":
		return s.refuse(n, q, why), nil
	}
	ok, written := n.pool.write(q.mac, a, now)
	if !ok {
		return s.refuse(n, q, gone), nil
	}
	defer written()
	d, err := s.ask(ctx, q)
	if err != nil {
		return answer{}, err
	}
	l := lane.Lease{MAC: q.mac, Address: a, State: lane.LeaseActive, Granted: now, Expires: now.Add(n.LeaseTime())}
	if err := s.cfg.Leases.PutLease(ctx, l, n.pool.replaces(q.mac, a)); err != nil {
		n.pool.drop(q.mac, now)
		return answer{}, err
	}
	n.pool.set(l)
	s.note(q, "leased "+a.String())
	return answer{kind: dhcpv4.MessageTypeAck, msg: n.lease(q, dhcpv4.MessageTypeAck, a, d)}, nil
}

// forbidden says why a client may not have an address, whoever else uses it, or nothing.
func (s *Server) forbidden(ctx context.Context, n *scope, q query, a, reserved netip.Addr) (string, error) {
	if a == reserved {
		return n.Misplaced(a), nil
	}
	others, err := s.cfg.Reservations.Holder(ctx, a)
	switch {
	case err != nil:
		return "", err
	case others:
		return "this address is reserved for another machine", nil
	case n.Givable(a) != "" || !n.pool.covers(a, n.classOf(q).Name):
		return "this address is not ours to give", nil
	}
	return "", nil
}

func (s *Server) refuse(n *scope, q query, why string) answer {
	n.pool.drop(q.mac, s.cfg.Now()) // or the same address would be offered again, and refused again
	s.note(q, "refused (NAK): "+why)
	return answer{kind: dhcpv4.MessageTypeNak, msg: n.nak(q, why)}
}

func (s *Server) decline(ctx context.Context, n *scope, q query) error {
	now := s.cfg.Now()
	if !n.pool.mayDecline(q.mac, q.requested, now) {
		s.cfg.Log.Debug("decline ignored", "mac", q.mac, "address", q.requested)
		return nil
	}
	l := lane.Lease{MAC: q.mac, Address: q.requested, State: lane.LeaseDeclined, Granted: now, Expires: now.Add(declineHold)}
	if err := s.cfg.Leases.PutLease(ctx, l, netip.Addr{}); err != nil {
		return err
	}
	n.pool.set(l)
	s.note(q, fmt.Sprintf("declined %s: another machine answers there; set aside for %s", l.Address, declineHold))
	return nil
}

func (s *Server) release(ctx context.Context, n *scope, q query) error {
	l, ok := n.pool.leaseOf(q.mac)
	if !ok || l.Address != q.ciaddr || l.State != lane.LeaseActive || !s.cfg.Now().Before(l.Expires) {
		return nil // not its lease to give back
	}
	if err := s.giveBack(ctx, n, l); err != nil {
		return err
	}
	s.note(q, "released "+l.Address.String())
	return nil
}

// giveBack ends a lease. It stays on record, so that its client gets the address again.
func (s *Server) giveBack(ctx context.Context, n *scope, l lane.Lease) error {
	l.State, l.Expires = lane.LeaseReleased, s.cfg.Now()
	if err := s.cfg.Leases.PutLease(ctx, l, netip.Addr{}); err != nil {
		return err
	}
	n.pool.set(l)
	return nil
}

// Release takes an address from whoever has it, or ends its being set aside, on an
// operator's word. The machine itself is not told: it must have stopped using it.
func (s *Server) Release(ctx context.Context, a netip.Addr) (lane.Lease, error) {
	for _, n := range s.scopes {
		if n.Proxy || !n.Prefix.Contains(a) {
			continue
		}
		l, ok := n.pool.at(a)
		if !ok {
			return lane.Lease{}, lane.Errorf(lane.NotFound, "nobody has %s, and it is not set aside: `bootlane dhcp leases` shows those that are", a)
		}
		if l.State != lane.LeaseDeclined {
			done, ok := n.pool.turns.Take(l.MAC)
			if ok {
				defer done()
			}
			if now, still := n.pool.at(a); !ok || !still || now != l {
				return lane.Lease{}, lane.Errorf(lane.Conflict, "the lease of %s is changing right now: look again", a)
			}
			return l, s.giveBack(ctx, n, l)
		}
		if err := s.cfg.Leases.DropLease(ctx, a); err != nil {
			return l, err
		}
		n.pool.forgive(a, s.cfg.Now())
		return l, nil
	}
	return lane.Lease{}, lane.Errorf(lane.NotFound, "%s is in no network that Bootlane owns", a)
}

// note puts what became of an address on record.
func (s *Server) note(q query, text string) {
	s.cfg.Evidence.Lease(q.facts, q.msg.String(), text)
}

// without puts on record why a machine gets no address.
func (s *Server) without(q query, text string) {
	s.cfg.Evidence.NoLease(q.facts, q.msg.String(), text)
}
