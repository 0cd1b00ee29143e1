package nettest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// Lossy is a cable that is not as it should be, for UDP over IPv4. Many kernels lack netem,
// and a program can do the same between two interfaces.
type Lossy struct {
	Loss      float64 // share of frames that never arrive
	Duplicate float64 // share that arrive twice
	Reorder   float64 // share that arrive after later ones
	Delay     time.Duration
	Jitter    time.Duration  // added to Delay, up to so much
	Random    func() float64 // from 0 to 1
	Now       func() time.Time
	// Spared says which frames pass as they should; nil: none.
	Spared func(frame []byte) bool
}

const (
	allProtocols = 0x0003               // ETH_P_ALL
	behind       = 3 * time.Millisecond // of those that arrive after later ones, or twice
)

// Join passes frames from each of two interfaces to the other, until ctx ends. It opens
// its sockets in the network namespace of the calling thread.
func (l Lossy) Join(ctx context.Context, a, b string) error {
	var ends [2]*packet.Conn
	for i, name := range []string{a, b} {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		if ends[i], err = packet.Listen(ifi, packet.Raw, allProtocols, nil); err != nil {
			return fmt.Errorf("listen on %s: %w", name, err)
		}
	}
	for i := range ends {
		go l.pass(ends[i], ends[1-i])
	}
	context.AfterFunc(ctx, func() { _ = errors.Join(ends[0].Close(), ends[1].Close()) }) // ends the reads
	return nil
}

// unchecked takes the checksum out of UDP over IPv4, which needs none: the kernel leaves
// it to the NIC, and a virtual cable has no NIC that fills it in.
func unchecked(frame []byte) {
	const ethernet, ipv4, udp = 14, 0x45, 17
	if len(frame) >= ethernet+28 && frame[ethernet] == ipv4 && frame[ethernet+9] == udp {
		frame[ethernet+26], frame[ethernet+27] = 0, 0
	}
}

// pass copies frames until the sockets are closed.
func (l Lossy) pass(from, to *packet.Conn) {
	send := func(frame []byte) { _, _ = to.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]}) } // one that cannot be sent is lost
	line := make(chan delayed, lineLength)
	defer close(line)
	go func() {
		for d := range line {
			sleep(d.due.Sub(l.Now()))
			send(d.frame)
		}
	}()
	buf := make([]byte, 65536)
	for {
		n, addr, err := from.ReadFrom(buf)
		if err != nil {
			return
		}
		if addr == nil {
			continue
		}
		frame := append([]byte(nil), buf[:n]...)
		unchecked(frame)
		if l.Spared != nil && l.Spared(frame) {
			send(frame)
			continue
		}
		if l.Random() < l.Loss {
			continue
		}
		wait, late := l.Delay+time.Duration(l.Random()*float64(l.Jitter)), l.Random() < l.Reorder
		if l.Random() < l.Duplicate {
			time.AfterFunc(wait+behind, func() { send(frame) })
		}
		switch {
		case late:
			time.AfterFunc(wait+behind, func() { send(frame) })
		case l.Jitter > 0: // as they come: jitter reorders
			time.AfterFunc(wait, func() { send(frame) })
		case wait > 0: // in order, as on a long cable; a full one loses what comes
			select {
			case line <- delayed{l.Now().Add(wait), frame}:
			default:
			}
		default:
			send(frame)
		}
	}
}

// delayed is a frame on its way along the cable.
type delayed struct {
	due   time.Time
	frame []byte
}

// sleep waits as exactly as the kernel can, some 60 us late. Go's timers wake an idle process by epoll, which counts in
// whole milliseconds: a delay of 100 us would be one of 1.1 ms.
func sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	left := unix.NsecToTimespec(d.Nanoseconds())
	_ = unix.Nanosleep(&left, nil) // cut short by a signal: the frame is early
}

const lineLength = 4096 // frames on their way, in one direction
