// Package dhcp answers DHCPv4 on one network. It owns the network, and gives every
// client an address; or it is a proxy beside the server that does. Boot files go to
// machines that may have them.
//
// Packets are values: parse, handle and marshal touch no socket, and a short
// loop owns it. The package decides nothing about machines; it asks, and
// translates the answer. Relays and DHCPv6 have no code here yet.
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
	// NoLease takes why a machine gets none.
	NoLease(f lane.Facts, message, text string)
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
	// A proxy needs no Leases and no Reservations, and may do more:
	KnownOnly bool // stay silent towards machines that no record describes
	Only4011  bool // port 67 is the address server's, on this same machine
}

// Stats counts packets since the start.
type Stats struct {
	Received, Dropped, Answered, Silent, Failed int64
}

// Server is one DHCP server on one interface.
type Server struct {
	cfg       Config
	conns     []*net.UDPConn
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
	s := &Server{cfg: cfg, addresses: own}
	if !s.own(cfg.Network.Server) {
		return nil, lane.Errorf(lane.Invalid, "the address %s is not on the interface %s, which has %v: correct dhcp.server", cfg.Network.Server, cfg.Interface, own)
	}
	if !cfg.Network.Proxy {
		leases, err := cfg.Leases.Leases(ctx)
		if err != nil {
			return nil, err
		}
		s.pool = newPool(cfg.Network.First, cfg.Network.Last, leases)
	}
	return s, s.listen(ctx)
}

// The ports: of every DHCP server, and of PXE boot servers.
const (
	serverPort     = 67
	bootServerPort = 4011
)

// listen opens the sockets. Port 4011 is opened even where no client is sent
// there: some firmware asks it anyway.
func (s *Server) listen(ctx context.Context) error {
	ports := []int{serverPort}
	switch {
	case s.cfg.Network.Proxy && s.cfg.Only4011:
		ports = []int{bootServerPort}
	case s.cfg.Network.Proxy:
		ports = append(ports, bootServerPort)
	}
	for _, port := range ports {
		conn, err := listen(ctx, s.cfg.Interface, port)
		if err != nil {
			for _, c := range s.conns {
				err = errors.Join(err, c.Close())
			}
			return err
		}
		s.conns = append(s.conns, conn)
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

// listen binds the wildcard address, because a socket bound to a unicast one
// gets no broadcasts, and ties it to the interface, because a broadcast would
// else leave by the default route.
func listen(ctx context.Context, iface string, port int) (*net.UDPConn, error) {
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
	pc, err := lc.ListenPacket(ctx, "udp4", fmt.Sprintf("0.0.0.0:%d", port))
	if err != nil {
		hint := fmt.Sprintf("is another DHCP server running? `ss -lunp sport = :%d` shows it", port)
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			hint = "bootlane needs root, or CAP_NET_BIND_SERVICE and CAP_NET_RAW"
		}
		return nil, &lane.Error{Code: lane.Unavailable, Message: fmt.Sprintf("open DHCP port %d on %s: %s", port, iface, hint), Err: err}
	}
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		return nil, fmt.Errorf("open DHCP port %d: unexpected socket type %T", port, pc)
	}
	return conn, nil
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	return Stats{s.stats.received.Load(), s.stats.dropped.Load(), s.stats.answered.Load(), s.stats.silent.Load(), s.stats.failed.Load()}
}

// Run answers until ctx ends, then closes the sockets.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	slots := make(chan struct{}, inFlight)
	errs := make(chan error, len(s.conns))
	for _, conn := range s.conns {
		go func() { errs <- s.receive(ctx, conn, slots) }()
	}
	var err error
	for range s.conns {
		err = errors.Join(err, <-errs)
		cancel() // one socket that fails ends the others
	}
	return err
}

// receive reads one socket until ctx ends, and returns when all is answered.
func (s *Server) receive(ctx context.Context, conn *net.UDPConn, slots chan struct{}) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends the read below
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	buf := make([]byte, 8192)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read from %s: %w", conn.LocalAddr(), err)
		}
		s.stats.received.Add(1)
		data := append([]byte(nil), buf[:n]...)
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			s.serve(ctx, conn, data, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
		})
	}
}

// serve handles one datagram. A panic costs that datagram, not the server.
func (s *Server) serve(ctx context.Context, conn *net.UDPConn, data []byte, from netip.AddrPort) {
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
	local, _ := conn.LocalAddr().(*net.UDPAddr)
	q.bootServer = local != nil && local.Port == bootServerPort
	a, err := s.handle(ctx, q)
	switch {
	case err != nil:
		s.stats.failed.Add(1)
		s.cfg.Log.Error("DHCP packet not answered", "mac", q.mac, "message", q.msg, "err", err)
	case a.kind == 0:
		s.stats.silent.Add(1)
	default:
		to := destination(q, a.kind, from)
		if _, err := conn.WriteToUDPAddrPort(a.msg.marshal(q), to); err != nil {
			s.stats.failed.Add(1)
			s.cfg.Log.Error("DHCP reply not sent", "mac", q.mac, "to", to, "err", err)
			return
		}
		s.stats.answered.Add(1)
	}
}
