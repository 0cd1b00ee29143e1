package dhcp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootlane/internal/lane"
)

// answer is a reply and its kind; the zero answer stays silent.
type answer struct {
	kind dhcpv4.MessageType
	msg  message
}

// handle decides what to answer to a query. An error means that a part we need
// does not answer: the server stays silent, and the client asks again.
func (s *Server) handle(ctx context.Context, q query) (answer, error) {
	if !q.giaddr.IsUnspecified() {
		s.cfg.Log.Debug("relayed packet ignored", "giaddr", q.giaddr, "mac", q.mac)
		return answer{}, nil
	}
	if s.cfg.Network.Proxy {
		return s.proxy(ctx, q)
	}
	switch q.msg {
	case dhcpv4.MessageTypeDiscover:
		return s.discover(ctx, q)
	case dhcpv4.MessageTypeRequest:
		return s.request(ctx, q)
	case dhcpv4.MessageTypeInform:
		d, err := s.ask(ctx, q)
		return answer{dhcpv4.MessageTypeAck, s.cfg.Network.inform(q, d)}, err
	case dhcpv4.MessageTypeDecline:
		return answer{}, s.decline(ctx, q)
	case dhcpv4.MessageTypeRelease:
		return answer{}, s.release(ctx, q)
	}
	return answer{}, nil
}

// proxy answers beside a server that owns the addresses: a DISCOVER on either port,
// and on 4011 what a client asks its boot server. A REQUEST on port 67 is that other
// server's, and a NAK from here would take its clients' addresses away.
func (s *Server) proxy(ctx context.Context, q query) (answer, error) {
	kind := dhcpv4.MessageTypeAck
	switch {
	case q.class == plain:
		return answer{}, nil
	case q.msg == dhcpv4.MessageTypeDiscover:
		kind = dhcpv4.MessageTypeOffer
	case !q.bootServer || q.msg != dhcpv4.MessageTypeRequest && q.msg != dhcpv4.MessageTypeInform:
		return answer{}, nil
	}
	d, err := s.ask(ctx, q)
	if err != nil || s.cfg.KnownOnly && d.Reason == lane.UnknownMachine {
		return answer{}, err
	}
	m, ok := s.cfg.Network.proxied(q, kind, d)
	if !ok {
		return answer{}, nil
	}
	return answer{kind, m}, nil
}

// ask puts the one question, for clients that want to boot.
func (s *Server) ask(ctx context.Context, q query) (lane.Decision, error) {
	if q.class == plain {
		return lane.Decision{}, nil
	}
	return s.cfg.Asker.Ask(ctx, q.facts)
}

func (s *Server) discover(ctx context.Context, q query) (answer, error) {
	d, err := s.ask(ctx, q)
	if err != nil {
		return answer{}, err
	}
	a, ok, err := s.choose(ctx, q, q.requested)
	if err != nil {
		return answer{}, err
	}
	if !ok {
		return answer{}, nil
	}
	return answer{dhcpv4.MessageTypeOffer, s.cfg.Network.lease(q, dhcpv4.MessageTypeOffer, a, d)}, nil
}

// choose finds an address for the client and holds it; that there is none is on record.
func (s *Server) choose(ctx context.Context, q query, wish netip.Addr) (netip.Addr, bool, error) {
	reserved, err := s.reservation(ctx, q.mac)
	if err != nil {
		return netip.Addr{}, false, err
	}
	if reserved.IsValid() && !s.usable(reserved) {
		s.without(q, fmt.Sprintf("its reserved address %s is not a machine's in %s: correct network.address", reserved, s.cfg.Network.Prefix))
		return netip.Addr{}, false, nil
	}
	var failed error
	taken := func(a netip.Addr) bool {
		if failed != nil || !s.usable(a) {
			return true
		}
		owned, err := s.cfg.Reservations.Holder(ctx, a)
		if err != nil {
			failed = err
		}
		return err != nil || owned
	}
	a, ok := s.pool.find(q.mac, reserved, wish, taken, s.cfg.Now())
	switch {
	case ok || failed != nil:
	case reserved.IsValid():
		s.without(q, fmt.Sprintf("another machine still has its reserved address %s: look who, in `bootlane events`, or wait for the end of that lease", reserved))
	default:
		s.without(q, "every address of dhcp.range is leased: enlarge it")
	}
	return a, ok, failed
}

// reservation returns the address reserved for a NIC. A host has one, and often
// several NICs: while one of them uses it, the others are strangers to it.
func (s *Server) reservation(ctx context.Context, m lane.MAC) (netip.Addr, error) {
	a, nics, err := s.cfg.Reservations.Reserved(ctx, m)
	if err != nil || !a.IsValid() {
		return netip.Addr{}, err
	}
	if user := s.pool.user(a, s.cfg.Now()); user != m && slices.Contains(nics, user) {
		return netip.Addr{}, nil
	}
	return a, nil
}

func (s *Server) usable(a netip.Addr) bool {
	n := s.cfg.Network
	taken := slices.Concat([]netip.Addr{n.Server, n.Prefix.Masked().Addr(), Broadcast(n.Prefix)}, n.Routers, n.DNS, n.NTP)
	return n.Prefix.Contains(a) && !slices.Contains(taken, a)
}

// request answers by the client's state: RFC 2131 4.3.2 and table 4.
func (s *Server) request(ctx context.Context, q query) (answer, error) {
	now := s.cfg.Now()
	n := s.cfg.Network
	has := func(a netip.Addr) bool { return !a.IsUnspecified() }
	want := q.requested
	if !has(want) {
		want = q.ciaddr
	}
	switch {
	case has(q.serverID): // SELECTING
		if q.serverID != n.Server && !s.own(q.serverID) {
			s.pool.drop(q.mac) // it took another server's offer, and said so by broadcast
			return answer{}, nil
		}
		if !has(want) { // tolerated: it means the outstanding offer
			o, ok := s.pool.offerOf(q.mac, now)
			if !ok {
				return answer{}, nil
			}
			want = o
		}
		return s.grant(ctx, q, want, "the offer has gone to another client")
	case !has(want):
		return answer{}, nil
	case !n.Prefix.Contains(want): // INIT-REBOOT or renewal, wrong network
		return s.refuse(q, "this address belongs to another network"), nil
	}
	l, known := s.pool.leaseOf(q.mac)
	reserved, err := s.reservation(ctx, q.mac)
	switch {
	case err != nil:
		return answer{}, err
	case reserved.IsValid() && reserved != want:
		return s.refuse(q, "another address is reserved for this client"), nil
	case known && l.Address == want || reserved == want:
		return s.grant(ctx, q, want, "the address has gone to another client")
	case known || n.Authoritative || s.pool.leasedToOther(q.mac, want, now):
		return s.refuse(q, "this client has no lease of this address"), nil
	}
	return answer{}, nil // RFC 2131 4.3.2: without a record the server must be silent
}

func (s *Server) own(a netip.Addr) bool {
	for _, o := range s.addresses {
		if o == a {
			return true
		}
	}
	return false
}

// grant stores the lease, and only then acknowledges it.
func (s *Server) grant(ctx context.Context, q query, a netip.Addr, gone string) (answer, error) {
	now := s.cfg.Now()
	reserved, err := s.reservation(ctx, q.mac)
	if err != nil {
		return answer{}, err
	}
	if reserved != a {
		others, err := s.cfg.Reservations.Holder(ctx, a)
		switch {
		case err != nil:
			return answer{}, err
		case others:
			return s.refuse(q, "this address is reserved for another machine"), nil
		case !s.usable(a) || !s.pool.inRange(a):
			return s.refuse(q, "this address is not ours to give"), nil
		}
	}
	if !s.pool.available(q.mac, a, now) {
		return s.refuse(q, gone), nil
	}
	d, err := s.ask(ctx, q)
	if err != nil {
		return answer{}, err
	}
	l := lane.Lease{MAC: q.mac, Address: a, State: lane.LeaseActive, Granted: now, Expires: now.Add(s.cfg.Network.LeaseTime())}
	if err := s.cfg.Leases.PutLease(ctx, l); err != nil {
		s.pool.drop(q.mac)
		return answer{}, err
	}
	s.pool.set(l)
	s.note(q, "leased "+a.String())
	return answer{dhcpv4.MessageTypeAck, s.cfg.Network.lease(q, dhcpv4.MessageTypeAck, a, d)}, nil
}

func (s *Server) refuse(q query, why string) answer {
	s.pool.drop(q.mac) // or the same address would be offered again, and refused again
	s.note(q, "refused (NAK): "+why)
	return answer{dhcpv4.MessageTypeNak, s.cfg.Network.nak(q, why)}
}

func (s *Server) decline(ctx context.Context, q query) error {
	now := s.cfg.Now()
	if !s.pool.mayDecline(q.mac, q.requested, now) {
		s.cfg.Log.Debug("decline ignored", "mac", q.mac, "address", q.requested)
		return nil
	}
	l := lane.Lease{MAC: q.mac, Address: q.requested, State: lane.LeaseDeclined, Granted: now, Expires: now.Add(declineHold)}
	if err := s.cfg.Leases.PutLease(ctx, l); err != nil {
		return err
	}
	s.pool.set(l)
	s.note(q, fmt.Sprintf("declined %s: another machine answers there; set aside for %s", l.Address, declineHold))
	return nil
}

func (s *Server) release(ctx context.Context, q query) error {
	l, ok := s.pool.leaseOf(q.mac)
	if !ok || l.Address != q.ciaddr || l.State != lane.LeaseActive {
		return nil // not its lease to give back
	}
	l.State, l.Expires = lane.LeaseReleased, s.cfg.Now()
	if err := s.cfg.Leases.PutLease(ctx, l); err != nil {
		return err
	}
	s.pool.set(l)
	s.note(q, "released "+l.Address.String())
	return nil
}

// note puts what became of an address on record.
func (s *Server) note(q query, text string) {
	s.cfg.Evidence.Lease(q.facts, q.msg.String(), text)
}

// without puts on record why a machine gets no address.
func (s *Server) without(q query, text string) {
	s.cfg.Evidence.NoLease(q.facts, q.msg.String(), text)
}
