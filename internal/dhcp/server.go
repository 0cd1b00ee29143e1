// Package dhcp answers DHCPv4 on any number of networks, attached to an interface or
// reached through relay agents. It owns a network, and gives every client an address;
// or it is a proxy beside the server that does. Boot files go to machines that may have
// them.
//
// Packets are values: parse, handle and marshal touch no socket, and a short
// loop owns it. The package decides nothing about machines; it asks, and
// translates the answer.
package dhcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"bootlane/internal/lane"
	"bootlane/internal/udp"
)

// Asker answers the one question. An error means: stay silent.
type Asker interface {
	Ask(ctx context.Context, f lane.Facts) (lane.Decision, error)
}

// Leases keeps leases. PutLease and DropLease return when the change is on stable storage.
type Leases interface {
	PutLease(ctx context.Context, l lane.Lease, instead netip.Addr) error
	DropLease(ctx context.Context, a netip.Addr) error
	Leases(ctx context.Context) ([]lane.Lease, error)
}

// Reservations knows which addresses the inventory gives to whom.
type Reservations interface {
	// Reserved returns the address reserved for a NIC, or the zero Addr, and every NIC
	// of the host that it is reserved for.
	Reserved(ctx context.Context, m lane.MAC) (netip.Addr, []lane.MAC, error)
	// Holder reports whether an address is reserved for any host.
	Holder(ctx context.Context, a netip.Addr) (bool, error)
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
	Asker    Asker
	Evidence Evidence
	Now      func() time.Time
	Rand     io.Reader // for what must not be guessed: networks behind relay agents with ConflictProbe need it
	Log      *slog.Logger
	// For networks that we own; a proxy needs neither.
	Leases       Leases
	Reservations Reservations
}

// Server is a DHCP server with its sockets open.
type Server struct {
	cfg       Config
	ports     []*port
	scopes    []*scope
	probers   []*prober
	addresses []netip.Addr // every address of ours on the interfaces
	stats     struct{ received, dropped, answered, silent, failed atomic.Int64 }
}

// port is an open socket on one interface.
type port struct {
	*udp.Conn
	iface  string
	number int
}

// inFlight is how many packets are handled at once; group commit makes their fsyncs one.
// More only cost: their stacks shrink while they wait for their turn, and grow anew.
const inFlight = 128

// New opens the sockets on the interfaces, and reads the leases.
func New(ctx context.Context, cfg Config) (*Server, error) {
	s := &Server{cfg: cfg}
	var leases []lane.Lease
	if cfg.Leases != nil {
		var err error
		if leases, err = cfg.Leases.Leases(ctx); err != nil {
			return nil, err
		}
	}
	for _, n := range cfg.Networks {
		if n.External {
			continue
		}
		s.scopes = append(s.scopes, newScope(n, leases, cfg.Now))
	}
	if err := s.open(ctx); err != nil {
		for _, p := range s.ports {
			err = errors.Join(err, p.Close())
		}
		for _, p := range s.probers {
			err = errors.Join(err, p.wire.Close())
		}
		return nil, err
	}
	return s, nil
}

func newScope(n Network, leases []lane.Lease, now func() time.Time) *scope {
	if n.Proxy {
		return &scope{Network: n, now: now}
	}
	mine := make([]lane.Lease, 0, len(leases))
	for _, l := range leases {
		if n.Prefix.Contains(l.Address) {
			mine = append(mine, l)
		}
	}
	return &scope{Network: n, now: now, pool: newPool(n.Ranges, mine)}
}

// The ports: of every DHCP server, and of PXE boot servers.
const (
	serverPort     = 67
	bootServerPort = 4011
)

// open opens the sockets. A proxy has port 4011 too, even where it sends no client there:
// some firmware asks it anyway.
func (s *Server) open(ctx context.Context) error {
	open := map[string]bool{}
	for _, n := range s.scopes {
		ifi, err := net.InterfaceByName(n.Interface)
		if err != nil {
			return &lane.Error{Code: lane.Unavailable, Message: fmt.Sprintf("find the DHCP interface %q: set networks[].interface to one that `ip -br link` shows", n.Interface), Err: err}
		}
		own, err := interfaceAddresses(ifi)
		if err != nil {
			return err
		}
		if !slices.Contains(own, n.Server) && !n.relayed() { // relay agents may well speak to an address of the loopback interface
			return lane.Errorf(lane.Invalid, "the address %s is not on the interface %s, which has %v: correct networks[].server", n.Server, n.Interface, own)
		}
		s.addresses = append(s.addresses, append(own, n.Server)...)
		ports := []int{serverPort}
		switch {
		case n.Proxy && n.Only4011:
			ports = []int{bootServerPort}
		case n.Proxy:
			ports = append(ports, bootServerPort)
		}
		for _, number := range ports {
			key := fmt.Sprint(n.Interface, " ", number)
			if open[key] {
				continue
			}
			open[key] = true
			conn, err := s.listen(ctx, n.Interface, number)
			if err != nil {
				return err
			}
			s.ports = append(s.ports, &port{conn, n.Interface, number})
		}
		if err := s.openProber(n, ifi); err != nil {
			return err
		}
	}
	return nil
}

func interfaceAddresses(ifi *net.Interface) ([]netip.Addr, error) {
	list, err := ifi.Addrs()
	if err != nil {
		return nil, fmt.Errorf("read the addresses of %s: %w", ifi.Name, err)
	}
	var out []netip.Addr
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			out = append(out, p.Addr())
		}
	}
	return out, nil
}

// listen ties the socket to the interface: a broadcast would else leave by the default
// route, and another DHCP server may serve the other interfaces.
func (s *Server) listen(ctx context.Context, iface string, number int) (*udp.Conn, error) {
	conn, err := udp.Listen(ctx, "udp4", fmt.Sprintf("0.0.0.0:%d", number), udp.Options{Device: iface, Broadcast: true, Log: s.cfg.Log})
	if err == nil {
		return conn, nil
	}
	hint := fmt.Sprintf("is another DHCP server running? `ss -lunp sport = :%d` shows it", number)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		hint = "bootlane needs root, or CAP_NET_BIND_SERVICE and CAP_NET_RAW"
	}
	return nil, &lane.Error{Code: lane.Unavailable, Message: fmt.Sprintf("open DHCP port %d on %s: %s", number, iface, hint), Err: err}
}

// Stats returns the counters.
func (s *Server) Stats() lane.DHCPCounters {
	out := lane.DHCPCounters{Received: s.stats.received.Load(), Dropped: s.stats.dropped.Load(), Answered: s.stats.answered.Load(), Silent: s.stats.silent.Load(), Failed: s.stats.failed.Load()}
	for _, p := range s.ports {
		out.Lost += p.Lost()
	}
	return out
}

// State returns the use of every network, and the counters.
func (s *Server) State() lane.DHCPState {
	return lane.DHCPState{Networks: s.usage(), Counters: s.Stats()}
}

// Run answers until ctx ends, then closes the sockets.
func (s *Server) Run(ctx context.Context) error {
	var probers []func(context.Context) error
	for _, p := range s.probers {
		probers = append(probers, p.run)
	}
	return udp.Serve(ctx, s.ports, inFlight, s.serve, probers...)
}

// serve handles one datagram. A panic costs that datagram, not the server.
func (s *Server) serve(ctx context.Context, p *port, d udp.Datagram) {
	s.stats.received.Add(1)
	defer func() {
		if v := recover(); v != nil {
			s.stats.failed.Add(1)
			s.cfg.Log.Error("panic while handling a DHCP packet", "panic", v, "packet", fmt.Sprintf("%x", d.Data))
		}
	}()
	q, err := parse(d.Data)
	if err != nil {
		s.stats.dropped.Add(1)
		s.cfg.Log.Debug("DHCP packet dropped", "why", err, "from", d.From)
		return
	}
	q.facts.From, q.iface, q.unicast, q.bootServer = d.From.Addr().String(), p.iface, !d.At.Broadcast, p.number == bootServerPort
	a, err := s.handle(ctx, q)
	switch {
	case err != nil:
		s.stats.failed.Add(1)
		s.cfg.Log.Error("DHCP packet not answered", "mac", q.mac, "message", q.msg, "err", err)
	case a.kind == 0:
		s.stats.silent.Add(1)
	default:
		to, at := destination(q, a.kind, d.From), d.At
		if at.Broadcast { // the address that its reply names; another one may be the interface's first
			at.Local = a.server
		}
		if err := p.Send(a.msg.marshal(q), at, to); err != nil {
			s.stats.failed.Add(1)
			s.cfg.Log.Error("DHCP reply not sent", "mac", q.mac, "to", to, "err", err)
			return
		}
		s.stats.answered.Add(1)
	}
}
