// Package dhcp6 answers DHCPv6 on the networks that Bootlane owns, attached to an
// interface or reached through relay agents: addresses for every client, and the URL of
// a boot file for machines that may have one. It sends no router advertisements: those
// are the router's, and without them no client asks.
//
// Packets are values: parse, handle and marshal touch no socket, and a short loop owns
// it. The package decides nothing about machines; it asks, and translates the answer.
package dhcp6

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"bootlane/internal/lane"
	"bootlane/internal/udp"
)

// Asker answers the one question. An error means: stay silent.
type Asker interface {
	Ask(ctx context.Context, f lane.Facts) (lane.Decision, error)
}

// Leases keeps leases. PutLease6 and DropLease6 return when the change is on stable
// storage; PutLease6 stores all or none.
type Leases interface {
	PutLease6(ctx context.Context, leases ...lane.Lease6) error
	DropLease6(ctx context.Context, a netip.Addr) error
	Leases6(ctx context.Context) ([]lane.Lease6, error)
}

// Reservations knows which addresses the inventory gives to whom.
type Reservations interface {
	// Reserved6 returns the address reserved for a machine, or the zero Addr, and every
	// NIC of the host that it is reserved for.
	Reserved6(ctx context.Context, f lane.Facts) (netip.Addr, []lane.MAC, error)
	// Holder6 reports whether an address is reserved for any host.
	Holder6(ctx context.Context, a netip.Addr) (bool, error)
}

// Evidence takes what became of an address.
type Evidence interface {
	Lease(f lane.Facts, message, text string)
	// NoLease takes why a machine gets none.
	NoLease(f lane.Facts, message, text string)
}

// Config is what a Server is made of.
type Config struct {
	Networks []Network
	// DUID is who we are to clients. It must stay the same: with another one their
	// renewals and releases go unanswered.
	DUID         []byte
	Asker        Asker
	Leases       Leases
	Reservations Reservations
	Evidence     Evidence
	Now          func() time.Time
	Log          *slog.Logger
}

// DUID returns a DUID made of a UUID, RFC 6355. It belongs to the installation: a DUID
// made of a NIC's address would change with the NIC, and with which of them comes first.
func DUID(uuid [16]byte) []byte { return append([]byte{0, duidUUID}, uuid[:]...) }

// Server is a DHCPv6 server with its sockets open.
type Server struct {
	cfg    Config
	ports  []*port
	scopes []*scope
	stats  struct{ received, dropped, answered, silent, failed atomic.Int64 }
}

// port is an open socket on one interface.
type port struct {
	*udp.Conn
	iface string
}

// inFlight is how many packets are handled at once; group commit makes their fsyncs one.
const inFlight = 256

// The groups that clients and agents send to, RFC 8415 7.1.
const (
	allAgentsAndServers = "ff02::1:2"
	allServers          = "ff05::1:3"
)

// New opens the sockets on the interfaces, and reads the leases.
func New(ctx context.Context, cfg Config) (*Server, error) {
	s := &Server{cfg: cfg}
	leases, err := cfg.Leases.Leases6(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range cfg.Networks {
		s.scopes = append(s.scopes, newScope(n, leases))
	}
	if err := s.open(ctx); err != nil {
		for _, p := range s.ports {
			err = errors.Join(err, p.Close())
		}
		return nil, err
	}
	return s, nil
}

func (s *Server) open(ctx context.Context) error {
	open := map[string]bool{}
	for _, n := range s.scopes {
		if open[n.Interface] {
			continue
		}
		open[n.Interface] = true
		ifi, err := net.InterfaceByName(n.Interface)
		if err != nil {
			return &lane.Error{Code: lane.Unavailable, Message: fmt.Sprintf("find the DHCPv6 interface %q: set networks[].interface to one that `ip -br link` shows", n.Interface), Err: err}
		}
		// Tied to the interface: another DHCPv6 server may serve the others.
		conn, err := udp.Listen(ctx, "udp6", fmt.Sprintf("[::]:%d", serverPort), udp.Options{Device: n.Interface, Log: s.cfg.Log})
		if err != nil {
			return unopened(n.Interface, err)
		}
		s.ports = append(s.ports, &port{conn, n.Interface})
		for _, group := range []string{allAgentsAndServers, allServers} {
			if err := conn.Join(netip.MustParseAddr(group), ifi.Index); err != nil {
				return &lane.Error{Code: lane.Unavailable, Message: fmt.Sprintf("listen to %s on %s: is IPv6 switched off there? `sysctl net.ipv6.conf.%s.disable_ipv6`", group, n.Interface, n.Interface), Err: err}
			}
		}
	}
	return nil
}

// unopened says why a socket may not be had.
func unopened(iface string, err error) error {
	hint := fmt.Sprintf("is another DHCPv6 server running? `ss -lunp sport = :%d` shows it", serverPort)
	if errors.Is(err, fs.ErrPermission) {
		hint = "bootlane needs root, or CAP_NET_BIND_SERVICE and CAP_NET_RAW"
	}
	return &lane.Error{Code: lane.Unavailable, Message: fmt.Sprintf("open DHCPv6 port %d on %s: %s", serverPort, iface, hint), Err: err}
}

// State tells how full every network is, and what became of the packets since the start.
func (s *Server) State() lane.DHCPState {
	out := lane.DHCPState{Networks: s.usage(), Counters: lane.DHCPCounters{Received: s.stats.received.Load(), Dropped: s.stats.dropped.Load(),
		Answered: s.stats.answered.Load(), Silent: s.stats.silent.Load(), Failed: s.stats.failed.Load()}}
	for _, p := range s.ports {
		out.Counters.Lost += p.Lost()
	}
	return out
}

// Run answers until ctx ends, then closes the sockets.
func (s *Server) Run(ctx context.Context) error {
	return udp.Serve(ctx, s.ports, inFlight, s.serve)
}

// serve handles one datagram. A panic costs that datagram, not the server.
func (s *Server) serve(ctx context.Context, p *port, d udp.Datagram) {
	s.stats.received.Add(1)
	defer func() {
		if v := recover(); v != nil {
			s.stats.failed.Add(1)
			s.cfg.Log.Error("panic while handling a DHCPv6 packet", "panic", v, "packet", fmt.Sprintf("%x", d.Data))
		}
	}()
	q, err := parse(d.Data, d.From)
	if err != nil {
		s.stats.dropped.Add(1)
		s.cfg.Log.Debug("DHCPv6 packet dropped", "why", err, "from", d.From)
		return
	}
	q.iface, q.unicast = p.iface, !d.At.Broadcast
	r, err := s.handle(ctx, q)
	switch {
	case err != nil:
		s.stats.failed.Add(1)
		s.cfg.Log.Error("DHCPv6 packet not answered", "client", q.client, "message", q.msg, "err", err)
	case r.kind == 0:
		s.stats.silent.Add(1)
	default:
		if err := p.Send(r.marshal(q), d.At, destination(q)); err != nil {
			s.stats.failed.Add(1)
			s.cfg.Log.Error("DHCPv6 reply not sent", "client", q.client, "to", destination(q), "err", err)
			return
		}
		s.stats.answered.Add(1)
	}
}
