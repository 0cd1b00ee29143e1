package tftp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	receiveBuffer = 32 << 20 // bytes; thousands of machines that power up together ask within the same second
	fallbackMTU   = 1500     // when the kernel cannot say
)

// arrival is where a datagram came in.
type arrival struct {
	local     netip.Addr // the address of ours it was sent to
	ifindex   int
	broadcast bool // sent to many at once; RFC 1123 section 4.2.3.5 wants such requests ignored
}

// openListener opens the socket on the well-known port.
func openListener(addr string) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: onSocket(func(fd int) error {
		// Forcing goes past net.core.rmem_max and needs CAP_NET_ADMIN; without it, what the system grants must do.
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
		}
		// An IPv6 socket that serves IPv4 too takes both options. x/net/ipv4 reads no more than the destination out of
		// IP_PKTINFO, while ipi_spec_dst next to it is what tells a broadcast.
		err4 := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		err6 := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		if err4 != nil && err6 != nil {
			return fmt.Errorf("ask for packet info: %w", err4)
		}
		return nil
	})}
	conn, err := lc.ListenPacket(context.Background(), "udp", addr)
	if err == nil {
		return conn.(*net.UDPConn), nil
	}
	hint := "check the address"
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		hint = "another server has this port: find it with `ss -ulnp`, and stop it or listen elsewhere"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		hint = "ports below 1024 need root or CAP_NET_BIND_SERVICE: in a systemd unit, AmbientCapabilities=CAP_NET_BIND_SERVICE"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		hint = "no interface here has this address: see `ip address`, or listen on every address"
	}
	return nil, fmt.Errorf("open tftp socket on %s: %w (%s)", addr, err, hint)
}

// openTransfer opens a socket on a port of its own (RFC 1350 section 4, the TID) that answers from local, so that a
// client that asked a second address, or a virtual one, hears that address back. It is not connected: strangers must
// reach it to be told off. Nothing leaves it fragmented (many ROMs cannot put fragments together), and it hears ICMP.
func openTransfer(local netip.Addr) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: onSocket(func(fd int) error {
		if local.Is4() {
			return errors.Join(
				unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO),
				unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1))
		}
		return errors.Join(
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1))
	})}
	conn, err := lc.ListenPacket(context.Background(), udpFamily(local), netip.AddrPortFrom(local, 0).String())
	if err != nil {
		return nil, fmt.Errorf("open transfer socket: %w", err)
	}
	return conn.(*net.UDPConn), nil
}

// largestBlock returns the payload that fits a datagram from local to client unfragmented. It asks the routing table by
// connecting a socket, which sends nothing: that knows tunnels and path MTU discovery, which the interface does not.
func largestBlock(local netip.Addr, client netip.AddrPort) int {
	mtu, overhead := fallbackMTU, ipv4Overhead
	level, name := unix.IPPROTO_IP, unix.IP_MTU
	if !local.Is4() {
		overhead, level, name = ipv6Overhead, unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	from := net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	conn, err := net.DialUDP(udpFamily(local), from, net.UDPAddrFromAddrPort(client))
	if err != nil {
		return mtu - overhead
	}
	defer conn.Close()
	if raw, err := conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			if v, err := unix.GetsockoptInt(int(fd), level, name); err == nil {
				mtu = v
			}
		})
	}
	return mtu - overhead
}

// onSocket wraps f for net.ListenConfig.Control.
func onSocket(f func(fd int) error) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var inner error
		return errors.Join(c.Control(func(fd uintptr) { inner = f(int(fd)) }), inner)
	}
}

// udpFamily names the network for sockets of an address.
func udpFamily(a netip.Addr) string {
	if a.Is4() {
		return "udp4"
	}
	return "udp6"
}

// parseArrival reads the control messages of a datagram. ok is false when they hold no destination.
func parseArrival(oob []byte) (a arrival, ok bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return arrival{}, false
	}
	for _, m := range messages {
		d := m.Data
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(d) >= 12:
			local := netip.AddrFrom4([4]byte(d[8:12]))
			return arrival{
				local:     local,
				ifindex:   int(binary.NativeEndian.Uint32(d)),
				broadcast: local != netip.AddrFrom4([4]byte(d[4:8])),
			}, true
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(d) >= 20:
			local := netip.AddrFrom16([16]byte(d[:16]))
			a = arrival{local: local.Unmap(), ifindex: int(binary.NativeEndian.Uint32(d[16:])), broadcast: local.IsMulticast()}
			if local.IsLinkLocalUnicast() {
				a.local = local.WithZone(strconv.Itoa(a.ifindex))
			}
			ok = true
		}
	}
	return a, ok
}

// departure returns the control message that sends a datagram from where another arrived.
func (a arrival) departure() []byte {
	if a.local.Is4() {
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: a.local.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: a.local.As16()})
}
