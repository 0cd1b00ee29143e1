package tftp

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// threaded is a port whose reads block a thread, for the few transfers that may have one. In lock step every block
// waits for an answer, and to be woken through the runtime's poller costs more than all the rest of a block: two
// threads are, this one's and the poller's.
type threaded struct {
	fd     int
	client netip.AddrPort
	to     syscall.Sockaddr // the same
	over   atomic.Bool      // the deadline of reads

	mu     sync.RWMutex // read while the descriptor is in use
	closed bool
}

// glance is how long a read blocks before it looks whether its deadline is over.
const glance = 10 * time.Millisecond

// newThreaded takes over a socket, and closes it if it cannot.
func newThreaded(conn *net.UDPConn, client netip.AddrPort) (*threaded, error) {
	fd, err := unpolled(conn)
	if err != nil {
		return nil, err
	}
	limit := syscall.NsecToTimeval(int64(glance))
	if err := errors.Join(syscall.SetNonblock(fd, false), syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit)); err != nil {
		return nil, errors.Join(err, syscall.Close(fd))
	}
	return &threaded{fd: fd, client: client, to: sockaddr(client)}, nil
}

// unpolled returns another descriptor of the socket, of which the poller does not know, and closes the first. An
// os.File would not do: it registers itself with the poller.
func unpolled(conn *net.UDPConn) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, errors.Join(err, conn.Close())
	}
	control := raw.Control(func(first uintptr) { fd, err = unix.FcntlInt(first, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(control, err, conn.Close())
}

func (t *threaded) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		if t.over.Load() {
			return 0, t.client, os.ErrDeadlineExceeded
		}
		n, from, err := t.receive(b)
		switch err {
		case nil:
			return n, from, nil
		case unix.EAGAIN, unix.EINTR:
		default:
			return 0, t.client, err
		}
	}
}

func (t *threaded) receive(b []byte) (int, netip.AddrPort, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.closed {
		return 0, t.client, net.ErrClosed
	}
	n, from, err := syscall.Recvfrom(t.fd, b, 0)
	if err != nil {
		return 0, t.client, err
	}
	return n, t.addrPort(from), nil
}

func (t *threaded) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	at := t.to
	if to != t.client {
		at = sockaddr(to)
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.closed {
		return 0, net.ErrClosed
	}
	return len(b), syscall.Sendto(t.fd, b, 0, at)
}

// SetReadDeadline knows two times: none, and one that is over.
func (t *threaded) SetReadDeadline(at time.Time) error {
	t.over.Store(!at.IsZero())
	return nil
}

func (t *threaded) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return net.ErrClosed
	}
	t.closed = true
	return syscall.Close(t.fd)
}

func (t *threaded) segment(size int) error {
	return unix.SetsockoptInt(t.fd, unix.SOL_UDP, unix.UDP_SEGMENT, size)
}

// addrPort names a sender as the server names the client, whose zone is the name of an interface.
func (t *threaded) addrPort(s syscall.Sockaddr) netip.AddrPort {
	switch s := s.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *syscall.SockaddrInet6:
		a := netip.AddrFrom16(s.Addr)
		if own, ok := t.to.(*syscall.SockaddrInet6); ok && s.ZoneId == own.ZoneId {
			a = a.WithZone(t.client.Addr().Zone())
		}
		return netip.AddrPortFrom(a, uint16(s.Port))
	}
	return netip.AddrPort{}
}

func sockaddr(to netip.AddrPort) syscall.Sockaddr {
	if to.Addr().Is4() {
		return &syscall.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	out := &syscall.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
	if i, err := net.InterfaceByName(to.Addr().Zone()); err == nil {
		out.ZoneId = uint32(i.Index)
	}
	return out
}
