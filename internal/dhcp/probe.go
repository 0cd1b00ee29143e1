package dhcp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/packet"

	"bootlane/internal/lane"
	"bootlane/internal/udp"
)

// prober asks whether somebody already uses the addresses that a network will give
// next: RFC 2131 2.2. It asks ahead of time and beside the exchange, so that no client
// waits for it. What it does not get round to in a storm is offered all the same, and
// asked about at once: an address that somebody answers for is not acknowledged.
//
// On an attached network it asks by ARP, and else by an ICMP echo.
type prober struct {
	net    *scope
	wire   wire
	urgent chan netip.Addr
	found  func(a netip.Addr, by lane.MAC) // somebody answers for an address

	mu      sync.Mutex
	pending map[netip.Addr]bool // asked about, and nobody answered yet
}

// wire asks about addresses, and hears who answers. by is empty where a router hides it.
type wire interface {
	ask(a netip.Addr) error
	follow(ctx context.Context)                   // stays with the interface, until ctx ends
	hear() (a netip.Addr, by lane.MAC, err error) // blocks; an answer to anybody's question
	Close() error
}

// Times of probing.
const (
	probeEvery = 2 * time.Second
	probeWait  = 300 * time.Millisecond // an idle system answers within a few milliseconds
	probeAhead = 32                     // addresses of one range that are kept verified
)

func (s *Server) openProber(n *scope, ifi *net.Interface) error {
	if n.Proxy || !n.ConflictProbe {
		return nil
	}
	var w wire
	var err error
	if n.relayed() {
		w, err = openEcho(n.Server, s.cfg.Rand)
	} else {
		w, err = openARP(ifi, s.cfg.Log)
	}
	if err != nil {
		return &lane.Error{Code: lane.Unavailable, Message: fmt.Sprintf("open a socket on %s to look for addresses in use: bootlane needs root or CAP_NET_RAW; or set networks[].conflictProbe: false", n.Interface), Err: err}
	}
	p := &prober{net: n, wire: w, urgent: make(chan netip.Addr, 256), pending: map[netip.Addr]bool{}}
	p.found = func(a netip.Addr, by lane.MAC) { s.conflict(n, a, by) }
	n.prober = p
	s.probers = append(s.probers, p)
	return nil
}

// unsure has an address looked at that is on offer without having been verified.
func (s *Server) unsure(n *scope, a netip.Addr, now time.Time) {
	if n.prober == nil || n.pool.verified(a, now) {
		return
	}
	select {
	case n.prober.urgent <- a:
	default: // a storm: the queue is full of others that nobody answers for either
	}
}

// conflict sets an address aside that somebody uses without a lease.
func (s *Server) conflict(n *scope, a netip.Addr, by lane.MAC) {
	now := s.cfg.Now()
	f := lane.Facts{Surface: lane.SurfaceDHCP, MAC: by, From: a.String(), Server: n.HTTPBase}
	switch is, holder := n.pool.answered(a, by, now); is {
	case putAside:
		s.cfg.Evidence.Lease(f, "PROBE", fmt.Sprintf("%s is in use without a lease: it is set aside for %s; give that machine a reservation, or an address outside of networks[].range", a, declineHold))
	case disputed:
		s.cfg.Evidence.Lease(f, "PROBE", fmt.Sprintf("two machines answer for %s, leased to %s: give the other one a reservation, or an address outside of networks[].range", a, holder))
	case tooMany:
		if everyMinute(&n.doubted, now) {
			s.cfg.Log.Warn("a machine answers for more addresses than are set aside: a router that answers for everything (proxy ARP)? it is not believed", "network", n.Prefix, "address", a, "mac", by)
		}
	}
}

// run probes until ctx ends.
func (p *prober) run(ctx context.Context) error {
	heard := make(chan error, 1)
	go func() { heard <- p.listen(ctx) }()
	following, cancel := context.WithCancel(ctx)
	defer cancel()
	go p.wire.follow(following)
	t := time.NewTicker(probeEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return errors.Join(p.wire.Close(), <-heard)
		case err := <-heard:
			return errors.Join(err, p.wire.Close())
		case a := <-p.urgent:
			p.round(ctx, append(p.waiting(), a))
		case <-t.C:
			p.round(ctx, p.net.pool.upcoming(probeAhead, p.net.now()))
		}
	}
}

// waiting takes what else is urgent.
func (p *prober) waiting() (out []netip.Addr) {
	for len(out) < cap(p.urgent) {
		select {
		case a := <-p.urgent:
			out = append(out, a)
		default:
			return out
		}
	}
	return out
}

// round asks about addresses, and waits for answers.
func (p *prober) round(ctx context.Context, list []netip.Addr) {
	if len(list) == 0 {
		return
	}
	p.mu.Lock()
	for _, a := range list {
		p.pending[a] = true
	}
	p.mu.Unlock()
	asked := map[netip.Addr]bool{}
	for _, a := range list {
		asked[a] = p.wire.ask(a) == nil // an interface that is down asks nobody, and proves nothing
	}
	select {
	case <-ctx.Done():
	case <-time.After(probeWait):
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range list {
		if p.pending[a] && asked[a] && ctx.Err() == nil {
			p.net.pool.silent(a, p.net.now())
		}
		delete(p.pending, a)
	}
}

func (p *prober) listen(ctx context.Context) error {
	for {
		a, by, err := p.wire.hear()
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			select { // the interface is down: nothing to hear for now
			case <-ctx.Done():
				return nil
			case <-time.After(time.Second):
			}
			continue
		}
		p.mu.Lock()
		wanted := p.pending[a]
		delete(p.pending, a)
		p.mu.Unlock()
		if wanted {
			p.found(a, by)
		}
	}
}

// arpWire speaks ARP for IPv4 on Ethernet, RFC 826.
type arpWire struct {
	conn *packet.Conn
	ifi  *net.Interface // as it was at the start
	own  atomic.Pointer[net.HardwareAddr]
	log  *slog.Logger
	buf  [128]byte
}

const (
	etherTypeARP = 0x0806
	etherHeader  = 14
)

func openARP(ifi *net.Interface, log *slog.Logger) (wire, error) {
	conn, err := packet.Listen(ifi, packet.Raw, etherTypeARP, nil)
	if err != nil {
		return nil, err
	}
	w := &arpWire{conn: conn, ifi: ifi, log: log}
	w.own.Store(&ifi.HardwareAddr)
	return w, nil
}

func (w *arpWire) follow(ctx context.Context) {
	udp.Follow(ctx, w.conn, w.ifi.Name, w.ifi.Index, w.log, func(fd, index int) error {
		own, err := udp.TieFrames(fd, index, etherTypeARP)
		if err == nil {
			w.own.Store(&own)
		}
		return err
	})
}

// ask sends an ARP probe: its sender address is 0.0.0.0, so that it fills nobody's
// cache with an address that is not ours. RFC 5227 section 2.1.1.
func (w *arpWire) ask(a netip.Addr) error {
	own := *w.own.Load()
	b := append([]byte{255, 255, 255, 255, 255, 255}, own...)
	b = append(b, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	b = append(b, own...)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	return udp.SendFrame(w.conn, append(b, a.AsSlice()...))
}

func (w *arpWire) hear() (netip.Addr, lane.MAC, error) {
	for {
		n, _, err := w.conn.ReadFrom(w.buf[:])
		if err != nil {
			return netip.Addr{}, "", err
		}
		b := w.buf[min(n, etherHeader):n]
		if len(b) < 28 || binary.BigEndian.Uint64(b)>>16 != 0x000108000604 {
			continue
		}
		mac, err := lane.MACFromBytes(b[8:14])
		if err != nil {
			continue
		}
		return netip.AddrFrom4([4]byte(b[14:18])), mac, nil // of a request as well: whoever asks from it, uses it
	}
}

// Close closes the socket.
func (w *arpWire) Close() error { return w.conn.Close() }

// echoWire sends ICMP echo requests, RFC 792, to addresses behind a router.
type echoWire struct {
	net.PacketConn
	mark [12]byte // identifier, sequence number and data of our requests, which a reply repeats
	buf  [128]byte
}

// openEcho makes a mark that nobody can guess: else whoever is not asked could answer.
func openEcho(server netip.Addr, random io.Reader) (wire, error) {
	w := &echoWire{}
	if _, err := io.ReadFull(random, w.mark[:]); err != nil {
		return nil, fmt.Errorf("read randomness: %w", err)
	}
	var err error
	if w.PacketConn, err = net.ListenPacket("ip4:icmp", server.String()); err != nil {
		return nil, err
	}
	return w, nil
}

// follow has nothing to do: the socket is tied to an address, not to an interface.
func (w *echoWire) follow(context.Context) {}

const (
	icmpEchoReply = 0
	icmpEcho      = 8
)

func (w *echoWire) ask(a netip.Addr) error {
	b := append([]byte{icmpEcho, 0, 0, 0}, w.mark[:]...)
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum))
	_, err := w.WriteTo(b, &net.IPAddr{IP: a.AsSlice()})
	return err
}

func (w *echoWire) hear() (netip.Addr, lane.MAC, error) {
	for {
		n, from, err := w.ReadFrom(w.buf[:])
		if err != nil {
			return netip.Addr{}, "", err
		}
		ip, ok := from.(*net.IPAddr)
		if !ok || n < 4 || w.buf[0] != icmpEchoReply || !bytes.Equal(w.buf[4:n], w.mark[:]) {
			continue // also the answers to what others on this machine ask
		}
		if a, valid := netip.AddrFromSlice(ip.IP); valid {
			return a.Unmap(), "", nil
		}
	}
}
