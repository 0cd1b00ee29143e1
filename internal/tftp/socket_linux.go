package tftp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"bootlane/internal/udp"
)

const fallbackMTU = 1500 // when the kernel cannot say

// openListener opens the socket on the well-known port. whole: files are sent from it, too.
func openListener(addr string, whole bool) (*udp.Conn, error) {
	conn, err := udp.Listen(context.Background(), "udp", addr, udp.Options{Whole: whole})
	if err == nil {
		return conn, nil
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

// polled is a port that the runtime's poller waits on.
type polled struct{ *net.UDPConn }

func (p polled) segment(size int) error {
	raw, err := p.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) })
	return errors.Join(err, set)
}

// cannotSegment reports an error that the same bytes may not meet one by one: the network card computes no checksums,
// IPsec is in the way, or a segment is longer than the way to the client takes whole.
func cannotSegment(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIO) || errors.Is(err, unix.EMSGSIZE)
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
