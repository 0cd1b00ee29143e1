// Package dhcp answers DHCPv4 on one network that it owns: addresses for every
// client, boot files for machines that may have them.
//
// Packets are values: parse, handle and marshal touch no socket, and a short
// loop owns it. The package decides nothing about machines; it asks, and
// translates the answer. Relays, proxyDHCP and DHCPv6 have no code here yet.
package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bootlane/internal/lane"
)

// Asker answers the one question. An error means: stay silent.
type Asker interface {
	Ask(ctx context.Context, f lane.Facts) (lane.Decision, error)
}

// Leases keeps leases. PutLease returns when the lease is on stable storage.
type Leases interface {
	PutLease(ctx context.Context, l lane.Lease) error
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
}

// Config is what a Server is made of.
type Config struct {
	Interface    string
	Network      Network
	Asker        Asker
	Leases       Leases
	Reservations Reservations
	Evidence     Evidence
	Now          func() time.Time
	Log          *slog.Logger
}

// Stats counts packets since the start.
type Stats struct {
	Received, Dropped, Answered, Silent, Failed int64
}

// Server is one DHCP server on one interface.
type Server struct {
	cfg       Config
	conn      *net.UDPConn
	pool      *pool
	addresses []netip.Addr // every address of ours on the interface
	stats     struct{ received, dropped, answered, silent, failed atomic.Int64 }
}

// Limits of the socket loop.
const (
	receiveBuffer = 32 << 20 // a boot storm is lost in the socket, not in the CPU
	inFlight      = 512      // packets handled at once; group commit makes their fsyncs one
)

// New opens the socket on the interface and reads the leases.
func New(ctx context.Context, cfg Config) (*Server, error) {
	ifi, err := net.InterfaceByName(cfg.Interface)
	if err != nil {
		return nil, &lane.Error{Code: lane.Unavailable, Message: fmt.Sprintf("find the DHCP interface %q: set dhcp.interface to one that `ip -br link` shows", cfg.Interface), Err: err}
	}
	own, err := interfaceAddresses(ifi)
	if err != nil {
		return nil, err
	}
	leases, err := cfg.Leases.Leases(ctx)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, pool: newPool(cfg.Network.First, cfg.Network.Last, leases), addresses: own}
	if !s.own(cfg.Network.Server) {
		return nil, lane.Errorf(lane.Invalid, "the address %s is not on the interface %s, which has %v: correct dhcp.server", cfg.Network.Server, cfg.Interface, own)
	}
	s.conn, err = listen(ctx, cfg.Interface)
	return s, err
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

// listen binds the wildcard address, because a socket bound to a unicast one
// gets no broadcasts, and ties it to the interface, because a broadcast would
// else leave by the default route.
func listen(ctx context.Context, iface string) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) {
			set = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 0),
				unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, iface))
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
				set = errors.Join(set, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer))
			}
		})
		return errors.Join(err, set)
	}}
	pc, err := lc.ListenPacket(ctx, "udp4", "0.0.0.0:67")
	if err != nil {
		hint := "is another DHCP server running? `ss -lunp sport = :67` shows it"
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			hint = "bootlane needs root, or CAP_NET_BIND_SERVICE and CAP_NET_RAW"
		}
		return nil, &lane.Error{Code: lane.Unavailable, Message: "open DHCP port 67 on " + iface + ": " + hint, Err: err}
	}
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		return nil, fmt.Errorf("open DHCP port 67: unexpected socket type %T", pc)
	}
	return conn, nil
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	return Stats{s.stats.received.Load(), s.stats.dropped.Load(), s.stats.answered.Load(), s.stats.silent.Load(), s.stats.failed.Load()}
}

// Run answers until ctx ends, then closes the socket.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.Close() }) // ends the read below
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, inFlight)
	buf := make([]byte, 8192)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read from DHCP port 67: %w", err)
		}
		s.stats.received.Add(1)
		data := append([]byte(nil), buf[:n]...)
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			s.serve(ctx, data, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
		})
	}
}

// serve handles one datagram. A panic costs that datagram, not the server.
func (s *Server) serve(ctx context.Context, data []byte, from netip.AddrPort) {
	defer func() {
		if p := recover(); p != nil {
			s.stats.failed.Add(1)
			s.cfg.Log.Error("panic while handling a DHCP packet", "panic", p, "packet", fmt.Sprintf("%x", data))
		}
	}()
	q, err := parse(data)
	if err != nil {
		s.stats.dropped.Add(1)
		s.cfg.Log.Debug("DHCP packet dropped", "why", err, "from", from)
		return
	}
	q.facts.From = from.Addr().String()
	a, err := s.handle(ctx, q)
	switch {
	case err != nil:
		s.stats.failed.Add(1)
		s.cfg.Log.Error("DHCP packet not answered", "mac", q.mac, "message", q.msg, "err", err)
	case a.kind == 0:
		s.stats.silent.Add(1)
	default:
		to := destination(q, a.kind, from)
		if _, err := s.conn.WriteToUDPAddrPort(a.msg.marshal(q), to); err != nil {
			s.stats.failed.Add(1)
			s.cfg.Log.Error("DHCP reply not sent", "mac", q.mac, "to", to, "err", err)
			return
		}
		s.stats.answered.Add(1)
	}
}
