package tftp

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"time"

	"bootlane/internal/udp"
)

// socket is what a transfer speaks through: a port of its own, or its share of the well-known one.
type socket interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	SetReadDeadline(t time.Time) error
	Close() error
}

// segmenter is a socket whose datagrams the kernel can cut into datagrams of size bytes; 0 leaves them whole
// (UDP_SEGMENT of Linux 4.18).
type segmenter interface{ segment(size int) error }

// desk is one client's share of the well-known port, for sites whose firewall passes no other one ([Config.SinglePort]).
// What that client sends is put on it by the server's one reader.
type desk struct {
	client netip.AddrPort
	conn   *udp.Conn
	at     udp.Arrival
	in     chan []byte
	wake   chan struct{} // something below has changed

	mu     sync.Mutex
	over   bool // the deadline of reads
	closed bool
}

// errMovedOn ends a transfer whose client asked anew from the same port.
var errMovedOn = errors.New("the client has begun another transfer")

// deskSize is in packets: a client answers each window once, and rarely twice.
const deskSize = 64

func newDesk(client netip.AddrPort, conn *udp.Conn, at udp.Arrival) *desk {
	return &desk{client: client, conn: conn, at: at, in: make(chan []byte, deskSize), wake: make(chan struct{}, 1)}
}

// put hands over a packet, or loses it when nobody takes them.
func (d *desk) put(b []byte) {
	select {
	case d.in <- append([]byte(nil), b...):
	default:
	}
}

func (d *desk) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		d.mu.Lock()
		over, closed := d.over, d.closed
		d.mu.Unlock()
		switch {
		case closed:
			return 0, d.client, errMovedOn
		case over:
			return 0, d.client, os.ErrDeadlineExceeded
		}
		select {
		case p := <-d.in:
			return copy(b, p), d.client, nil
		case <-d.wake:
		}
	}
}

// WriteToUDPAddrPort says nothing more at a closed desk: the client would take it for a
// word about the file it has gone on to.
func (d *desk) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	d.mu.Lock()
	closed := d.closed
	d.mu.Unlock()
	if closed {
		return len(b), nil
	}
	return len(b), d.conn.Send(b, d.at, to)
}

// SetReadDeadline knows two times: none, and one that is over.
func (d *desk) SetReadDeadline(t time.Time) error {
	d.change(func() { d.over = !t.IsZero() })
	return nil
}

func (d *desk) Close() error {
	d.change(func() { d.closed = true })
	return nil
}

func (d *desk) change(f func()) {
	d.mu.Lock()
	f()
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}
