// Package udp opens the sockets of boot servers. It keeps what the standard library
// drops: which address of ours a datagram was sent to, by which interface it came, and
// how many were lost because nobody read them in time. A reply leaves by the same way:
// clients drop one that comes from another address than they asked.
package udp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// receiveBuffer is in bytes. A boot storm is lost in the socket, not in the CPU:
// thousands of machines that are powered on together ask within the same second.
const receiveBuffer = 32 << 20

// Options says how to open a socket.
type Options struct {
	Device    string       // bind to this interface, for receiving and sending; "" is every one
	Broadcast bool         // may send to a broadcast address
	Whole     bool         // sends nothing in fragments: what is too long for the way is an error, EMSGSIZE
	Log       *slog.Logger // of a socket with a Device: told when that is gone, and made anew
}

// Conn is an open socket. One goroutine may receive, any number may send.
type Conn struct {
	*net.UDPConn
	oob     [256]byte
	lost    atomic.Uint32
	options Options
	index   int // of Device, when it was opened
	groups  []unix.IPv6Mreq
}

// Arrival is where a datagram came in.
type Arrival struct {
	Local     netip.Addr // the address of ours it was sent to; of a broadcast, the interface's own
	Interface int        // index
	Broadcast bool       // sent to many at once
}

// Listen opens a socket on addr, for example ":69" or "0.0.0.0:67"; network is udp,
// udp4 or udp6. A socket for broadcasts must listen on the wildcard address: one that
// is bound to a unicast address gets none.
func Listen(ctx context.Context, network, addr string, o Options) (*Conn, error) {
	index := 0
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) { set, index = prepare(int(fd), o), indexOf(int(fd), o.Device) })
		return errors.Join(err, set)
	}}
	pc, err := lc.ListenPacket(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &Conn{UDPConn: pc.(*net.UDPConn), options: o, index: index}, nil
}

func prepare(fd int, o Options) error {
	// Forcing goes past net.core.rmem_max and needs CAP_NET_ADMIN; without it, what the
	// system grants must do.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1) // only a figure is missing without it
	var device, broadcast, whole error
	if o.Device != "" {
		device = unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, o.Device)
	}
	if o.Broadcast {
		broadcast = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
	}
	if o.Whole {
		whole = sendWhole(fd)
	}
	// An IPv6 socket that serves IPv4 too takes both. x/net/ipv4 reads no more than the
	// destination out of IP_PKTINFO, while ipi_spec_dst next to it is what tells a broadcast.
	info := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	if unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1) == nil {
		info = nil
	}
	// Without SO_REUSEADDR: two servers on one port would each get half of the unicasts.
	return errors.Join(device, broadcast, whole, info, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0))
}

// sendWhole makes the kernel refuse what would need fragments. An IPv6 socket may send IPv4 too, and is told both.
func sendWhole(fd int) error {
	four := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	six := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
	if errors.Is(six, unix.ENOPROTOOPT) { // an IPv4 socket
		six = nil
	}
	return errors.Join(four, six)
}

// Receive reads one datagram into b. An IPv4 address is never in its mapped form. The
// Arrival is the zero one when the kernel does not tell.
func (c *Conn) Receive(b []byte) (n int, from netip.AddrPort, at Arrival, err error) {
	n, oobn, _, from, err := c.ReadMsgUDPAddrPort(b, c.oob[:])
	if err != nil {
		return 0, from, Arrival{}, err
	}
	at, lost := parse(c.oob[:oobn])
	if lost > 0 {
		c.lost.Store(lost)
	}
	return n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), at, nil
}

// Datagram is what one socket received, in memory of its own.
type Datagram struct {
	Data []byte
	At   Arrival
	From netip.AddrPort
}

// maxDatagram is in bytes: more than any message of a boot protocol. The rest of a longer one is lost.
const maxDatagram = 8192

// Each passes every datagram on, until ctx ends; then it closes the socket. It stays with
// its interface: see Follow.
func (c *Conn) Each(ctx context.Context, pass func(Datagram)) error {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // ends the read below
	defer stop()
	following, cancel := context.WithCancel(ctx)
	defer cancel()
	go c.follow(following)
	buf := make([]byte, maxDatagram)
	for {
		n, from, at, err := c.Receive(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read from %s: %w", c.LocalAddr(), err)
		}
		pass(Datagram{append([]byte(nil), buf[:n]...), at, from})
	}
}

// Join makes the socket hear what is sent to an IPv6 multicast group on an interface.
func (c *Conn) Join(group netip.Addr, iface int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var join error
	g := unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(iface)}
	err = raw.Control(func(fd uintptr) {
		join = unix.SetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &g)
	})
	c.groups = append(c.groups, g)
	return errors.Join(err, join)
}

// Lost returns how many datagrams the kernel dropped because the receive buffer was full.
func (c *Conn) Lost() int64 { return int64(c.lost.Load()) }

// Send sends b to a client, from the address and by the interface of at.
func (c *Conn) Send(b []byte, at Arrival, to netip.AddrPort) error {
	_, _, err := c.WriteMsgUDPAddrPort(b, at.control(), to)
	return err
}

// control returns the control message that makes a datagram leave that way. A link-local
// or broadcast destination needs the interface, and any other one must be left to the
// routing table: the way back may be another one than the way here.
func (a Arrival) control() []byte {
	switch {
	case !a.Local.IsValid():
		return nil
	case a.Local.IsMulticast() && a.Local.Is6(): // nobody's to send from; the kernel knows a better one
		return unix.PktInfo6(&unix.Inet6Pktinfo{Ifindex: uint32(a.Interface)})
	case a.Local.Is4():
		return unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: a.out(), Spec_dst: a.Local.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: a.Local.WithZone("").As16(), Ifindex: uint32(a.out())})
}

func (a Arrival) out() int32 {
	if a.Broadcast || a.Local.IsLinkLocalUnicast() {
		return int32(a.Interface)
	}
	return 0
}

// parse reads the control messages of a datagram.
func parse(oob []byte) (a Arrival, lost uint32) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return Arrival{}, 0
	}
	for _, m := range messages {
		d := m.Data
		switch {
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_RXQ_OVFL && len(d) >= 4:
			lost = binary.NativeEndian.Uint32(d)
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(d) >= 12:
			local := netip.AddrFrom4([4]byte(d[4:8]))
			a = Arrival{Local: local, Interface: int(binary.NativeEndian.Uint32(d)), Broadcast: local != netip.AddrFrom4([4]byte(d[8:12]))}
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(d) >= 20 && !a.Local.IsValid():
			local := netip.AddrFrom16([16]byte(d[:16]))
			a = Arrival{Local: local.Unmap(), Interface: int(binary.NativeEndian.Uint32(d[16:])), Broadcast: local.IsMulticast()}
			if local.IsLinkLocalUnicast() {
				a.Local = local.WithZone(strconv.Itoa(a.Interface))
			}
		}
	}
	return a, lost
}
