package tftp

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"bootlane/internal/udp"
)

const (
	maxStrangers  = 16 // ERROR packets to strangers in one transfer, so that nobody can use it to flood others
	maxReadErrors = 64 // in a row, before a socket counts as broken
)

// transfer is one admitted request and, once its content is open, the sending of it over a socket of its own.
type transfer struct {
	at      udp.Arrival
	options []option
	report  Transfer

	// Guarded by Server.mu.
	begun   time.Time     // when it was answered first
	waits   *list.Element // of Server.unheard
	vacated bool          // another one has its place
	desk    *desk         // its share of the single port, once it is open

	content Content
	conn    socket
	alarm   *alarm
	terms   terms
	sender  *sender
	now     func() time.Time
	end     context.CancelCauseFunc
	heard   atomic.Int64 // when the client answered last, in nanoseconds after report.Started; 0 before it did
	said    time.Time    // when something was sent last
	buf     []byte       // the packets of one window; nil as long as nobody answers what comes before the first one
	ahead   ahead        // those of the next one
	in      [headerSize + maxTextSize + 1]byte
	told    int  // strangers told off
	refused bool // the client's port was closed when everything had been sent; its last ACK may still be on its way

	netascii  bool      // the mode that was asked for
	segmenter segmenter // where several packets are one datagram up to the network card; or nil
}

// run sends the content until the end. The socket and the terms are there.
func (t *transfer) run(ctx context.Context) {
	stop := interruptOn(ctx, t.conn)
	defer stop()
	t.alarm = newAlarm(t.conn)
	defer t.alarm.stop()
	next := t.sender.start()
	for {
		err := t.perform(next)
		if next.end != "" {
			break
		}
		if err != nil {
			next = t.fail(err)
			continue
		}
		next = t.await(ctx)
	}
	t.report.Outcome, t.report.Confirmed = next.end, next.sure
	t.report.Retransmits = t.sender.resent
	t.report.Bytes = t.sender.confirmed()
	if next.end == OutcomeComplete {
		t.report.Bytes = t.report.Size
	}
}

// perform does what a step says. Its errors end the transfer.
func (t *transfer) perform(s step) error {
	if s.oack || s.from <= s.to && s.to > 0 {
		t.said = t.now()
	}
	var err error
	switch {
	case s.say != nil:
		err = t.write(encodeError(s.say))
	case s.oack:
		err = t.write(t.terms.oack)
	case s.from <= s.to && s.to > 0:
		err = t.sendBlocks(s.from, s.to)
	}
	if s.wait > 0 {
		t.alarm.set(s.wait)
	}
	if err == nil && s.to > 0 {
		t.prepare(s.to + 1)
	}
	return err
}

// ahead is a window that was made ready while the client was busy with the one before: a window waits for its ACK, and
// then the client waits for us.
type ahead struct {
	buf      []byte
	from, to int64
	packets  []byte // nil: none is ready
}

// sendBlocks sends a window.
func (t *transfer) sendBlocks(from, to int64) error {
	packets := t.ahead.packets
	if t.ahead.packets = nil; packets != nil && t.ahead.from == from && t.ahead.to == to {
		t.buf, t.ahead.buf = t.ahead.buf, t.buf
	} else {
		var err error
		if packets, err = t.assemble(&t.buf, from, to); err != nil {
			return err
		}
	}
	return t.writePackets(packets, headerSize+t.terms.block)
}

// prepare makes the window ready that begins with a block, if there is one. In lock step it would save nothing.
func (t *transfer) prepare(from int64) {
	to := min(from+int64(t.terms.window)-1, t.report.Size/int64(t.terms.block)+1)
	if t.terms.window == 1 || from > to {
		return
	}
	t.ahead.from, t.ahead.to = from, to
	t.ahead.packets, _ = t.assemble(&t.ahead.buf, from, to) // what fails here fails again when it is needed
}

// assemble makes the packets of a window. It reads the window in one go, to the end of the buffer, and moves each block
// forward behind its header.
func (t *transfer) assemble(buf *[]byte, from, to int64) ([]byte, error) {
	block := int64(t.terms.block)
	if *buf == nil {
		*buf = make([]byte, headerSize*int64(t.terms.window)+min(block*int64(t.terms.window), t.report.Size))
	}
	offset := (from - 1) * block
	headers, length := headerSize*(to-from+1), min((to-from+1)*block, t.report.Size-offset)
	packets, payload := (*buf)[:headers+length], (*buf)[headers:headers+length]
	if n, err := t.content.ReadAt(payload, offset); n < len(payload) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read content at %d: %w", offset, err)
	}
	for number := from; number <= to; number++ {
		start := (number - from) * (headerSize + block)
		n := copy(packets[start+headerSize:], payload[:min(block, int64(len(payload)))])
		payload = payload[n:]
		putDataHeader(packets[start:], uint16(number))
	}
	return packets, nil
}

// What the kernel cuts in segments: at most UDP_MAX_SEGMENTS of udp.h, and what fits the length field of IPv4. Segments of
// 20 bytes and less arrive damaged (seen on Linux 6.18); nobody who wants windows wants such blocks.
const (
	maxSegments  = 64
	maxSegmented = 65507
	leastSegment = 512
)

// writePackets sends what lies one behind the other, each of size bytes but for the last: as many at once as the kernel
// takes, for a system call and the way through the kernel cost more than the bytes.
func (t *transfer) writePackets(b []byte, size int) error {
	for len(b) > 0 {
		n := min(len(b), size)
		if t.segmenter != nil {
			n = min(len(b), min(maxSegments, maxSegmented/size)*size)
		}
		_, err := t.conn.WriteToUDPAddrPort(b[:n], t.report.Client)
		if n > size && cannotSegment(err) {
			if err := t.segmenter.segment(0); err != nil {
				return err
			}
			t.segmenter = nil
			continue
		}
		if err := t.serious(err); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// write sends one datagram to the client. Its errors end the transfer.
func (t *transfer) write(b []byte) error {
	_, err := t.conn.WriteToUDPAddrPort(b, t.report.Client)
	return t.serious(err)
}

// serious returns an error that ends the transfer, or nil: most errors are as good as a lost packet, for which there are
// retransmissions. ICMP about a stranger looks like ICMP about the client, so once there was a stranger it says nothing.
func (t *transfer) serious(err error) error {
	switch {
	case errors.Is(err, unix.ECONNREFUSED) && t.told == 0, errors.Is(err, net.ErrClosed), errors.Is(err, errMovedOn):
		return err
	case errors.Is(err, unix.EMSGSIZE):
		return &Error{CodeUndefined, "path MTU fell below the block size, ask again"}
	}
	return nil
}

// fail returns the last step of a transfer that an error ends.
func (t *transfer) fail(err error) step {
	next := step{end: OutcomeAborted, say: refusal(err)}
	if errors.Is(err, unix.ECONNREFUSED) {
		next = t.sender.gone()
	}
	if next.end == OutcomeAborted {
		t.report.Err = err
	}
	return next
}

// interrupted returns the last step of a transfer that somebody ended. A client that began anew is told nothing: to it
// that would be a word about its new transfer.
func (t *transfer) interrupted(cause error) step {
	if errors.Is(cause, errMovedOn) {
		t.report.Err = cause
		return step{end: OutcomeAborted}
	}
	if errors.Is(cause, errNoRoom) {
		return t.fail(busy())
	}
	return t.fail(&Error{CodeUndefined, "server is stopping, try again"})
}

// abandoned reports that the client had answered, and has not for longer than it would leave a packet unanswered.
func (t *transfer) abandoned(now time.Time) bool {
	heard := time.Duration(t.heard.Load())
	return heard != 0 && now.Sub(t.report.Started)-heard > abandonedAfter
}

// await reads until something happens that calls for a step.
func (t *transfer) await(ctx context.Context) step {
	for failed := 0; ; {
		// Looked at before each read: perform may have lifted the deadline that the end of ctx set.
		if ctx.Err() != nil {
			return t.interrupted(context.Cause(ctx))
		}
		n, from, err := t.conn.ReadFromUDPAddrPort(t.in[:])
		switch failed++; {
		case err == nil:
			failed = 0
			if next, ok := t.receive(t.in[:n], from); ok {
				return next
			}
		case ctx.Err() != nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && t.refused:
			return t.fail(unix.ECONNREFUSED)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return t.sender.expired()
		case errors.Is(err, unix.ECONNREFUSED) && t.sender.finishing():
			t.refused = true
		case t.serious(err) != nil:
			return t.fail(t.serious(err))
		case failed > maxReadErrors:
			return t.fail(fmt.Errorf("read from client: %w", err))
		}
	}
}

// receive takes a datagram. ok is false when there is nothing to do about it.
func (t *transfer) receive(b []byte, from netip.AddrPort) (next step, ok bool) {
	p, err := parse(b)
	switch {
	case from != t.report.Client:
		// RFC 1350 section 4: the stranger is told, the transfer goes on. An ERROR gets no answer, or two servers
		// could talk to each other forever.
		if p.op != opError && t.told < maxStrangers {
			t.told++
			_, _ = t.conn.WriteToUDPAddrPort(encodeError(&Error{CodeUnknownTID, "unknown transfer ID"}), from)
		}
	case err != nil:
	case p.op == opAck:
		now := t.now()
		t.heard.Store(max(1, int64(now.Sub(t.report.Started))))
		next = t.sender.ack(p.block, now.Sub(t.said))
		return next, next != step{}
	case p.op == opError:
		next = t.sender.refused(p.err.Code)
		t.report.ClientError = &p.err
		return next, true
	}
	return step{}, false
}

// refusal returns what a client is told about an error: itself if it was made for clients, else nothing of the cause.
func refusal(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{CodeUndefined, internalError}
}

// interruptOn makes reads on conn fail once ctx ends. Writes get another second, for a last word to the peer.
func interruptOn(ctx context.Context, conn socket) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		_ = conn.SetReadDeadline(longAgo())
		time.AfterFunc(time.Second, func() { _ = conn.Close() })
	})
}

// longAgo is a deadline that is over by any clock.
func longAgo() time.Time { return time.Unix(1, 0) }
