package tftp

import "time"

const (
	patience = 22 // of our timeouts without a sign of life before the client counts as gone: 1+2+4+6+6+6 s
	dally    = 7  // the same when only the last ACK is missing: 1+2+4 s, after which the ROM has surely jumped

	// backoff is how many of our timeouts the longest wait is. Above five seconds, the usual timeout of clients: some
	// (atftp) start theirs anew at every packet that is of no use to them, and send a lost ACK again only after a
	// silence that is longer.
	backoff = 6

	// Of a longer timeout that was agreed to, so many are waited for.
	patienceAgreed = 4
	dallyAgreed    = 2

	// leastRTO bounds the timeout from below once the round trip is known: a loss in a fast
	// network costs a hundredth of a second, not a whole one, and a ROM that is slow for a
	// moment is asked twice.
	leastRTO = 20 * time.Millisecond

	// earlyRTO is the same while only the OACK's round trip is known: a window takes longer than one packet. 64 blocks
	// of 1,468 bytes need it at 4 Mbit/s.
	earlyRTO = 200 * time.Millisecond
)

// sender decides what to send next. It is fed with events and answers with steps, and knows neither socket, clock nor
// content. Blocks are counted from 1 without end; only their low 16 bits travel, so 65535 is followed by 0, which is what
// EDK2, iPXE and GRUB expect.
type sender struct {
	size    int64
	block   int64
	window  int64
	last    int64         // number of the block that is shorter than the rest, and may be empty
	own     time.Duration // our timeout
	agreed  time.Duration // that of the client
	timeout time.Duration // before the first retransmission: ours until the OACK is answered, for a forged request must not say how long we wait
	ceiling time.Duration // timeouts double up to this one
	rto     time.Duration // the same by the measured round trip: RFC 6298; at most timeout
	srtt    time.Duration // smoothed round trip; 0 until one was measured
	rttvar  time.Duration
	least   time.Duration // bounds rto from below
	atLeast time.Duration // so long the round trip is, if nothing better is known; decays
	timed   bool          // what was sent last was sent once, and is all that is out: the next progress can only be the answer

	offering bool          // the OACK is out and not answered
	heard    bool          // the client has answered something: the address it came from is real
	acked    int64         // the last block acknowledged
	sent     int64         // the last block sent
	tries    int           // transmissions of what is out now
	pending  time.Duration // the wait that is on
	silent   time.Duration // waited since the client's last sign of life
	nudge    nudge
	resent   int // packets sent more than once

	recovering bool // a gap was answered, and since then the client has not caught up
}

// nudge is how far a duplicate ACK has hurried the retransmission at the present position.
type nudge uint8

const (
	nudgeNone  nudge = iota // no duplicate yet
	nudgeArmed              // one came, and the timer was shortened
	nudgeSpent              // one resend was given: further duplicates do nothing
)

// step is what to do now: send say, the OACK, or blocks from..to if there are any, then wait. The zero step is:
// nothing, go on waiting.
type step struct {
	say      *Error // an ERROR packet for the client
	oack     bool
	from, to int64
	wait     time.Duration // restarts the timer; 0 leaves it running
	end      Outcome       // not "": the transfer is over
	sure     bool          // with end: the last block was acknowledged
}

// newSender returns the sender for content of size bytes under the terms. own is our timeout.
func newSender(size int64, t terms, own time.Duration) *sender {
	block := int64(t.block)
	return &sender{
		size: size, block: block, window: int64(t.window), last: size/block + 1,
		own: own, agreed: t.timeout, timeout: own, rto: own, least: earlyRTO, ceiling: backoff * own, offering: t.oack != nil,
	}
}

// start answers the request.
func (s *sender) start() step {
	if s.offering {
		s.tries = 1
		return s.waiting(step{oack: true}, s.rto)
	}
	return s.advance()
}

// waiting completes a step that waits.
func (s *sender) waiting(next step, wait time.Duration) step {
	if next.oack || next.from <= next.to && next.to > 0 {
		s.timed = s.once()
	}
	s.pending, next.wait = wait, wait
	return next
}

// measure takes the time from the last transmission to progress. Of what was sent again nobody knows which one was answered
// (RFC 6298 section 3), but it took at least so long: where a window takes longer than our timeout, this is all there is
// to learn that from.
func (s *sender) measure(since time.Duration) {
	switch {
	case since <= 0:
		return
	case !s.timed:
		s.atLeast = max(since, s.atLeast*7/8)
	case s.srtt == 0:
		s.srtt, s.rttvar, s.atLeast = since, since/2, 0
	default:
		s.rttvar += ((s.srtt - since).Abs() - s.rttvar) / 4
		s.srtt += (since - s.srtt) / 8
		s.atLeast = 0
	}
	if s.srtt > 0 {
		s.rto = max(min(max(s.srtt+4*s.rttvar, s.least), s.timeout), min(2*s.atLeast, s.ceiling))
	}
}

// hurried is how long to wait for progress after an ACK that may tell of a loss, or of nothing but a duplicate: twice the
// round trip, after which what was under way has been answered.
func (s *sender) hurried() time.Duration {
	if s.srtt == 0 {
		return min(max(s.rto/8, 2*s.atLeast), s.rto)
	}
	return min(max(2*s.srtt, s.least/8, 2*s.atLeast), s.rto)
}

// once reports whether all that is out was sent once. Of what was sent again nobody knows which one was answered: RFC
// 6298 section 3.
func (s *sender) once() bool { return s.tries == 1 && !s.recovering && s.nudge == nudgeNone }

// advance sends the window behind the last acknowledged block.
func (s *sender) advance() step {
	s.resent += int(s.sent - s.acked) // not 0 only behind a gap
	s.sent, s.tries = min(s.acked+s.window, s.last), 1
	return s.waiting(step{from: s.acked + 1, to: s.sent}, s.rto)
}

// ack takes an ACK with the block number as it was on the wire, and the time since something was sent.
//
// Ahead of acked it is progress. If it is short of sent, the client saw a gap and gets the window from there (RFC 7440
// section 4), but once: until it has caught up, further ACKs only let new blocks out, for they may well be answers to
// duplicates, and to answer those with duplicates would go on until the end. The same is true of an ACK equal to acked
// (RFC 1123 section 4.2.3.1; EDK2 sends one for each DATA that it did not expect). Both can also be a client that lost
// the next block, so they shorten the wait, once: progress ends the wait, loss does not. All others are stale.
func (s *sender) ack(wire uint16, since time.Duration) step {
	if s.offering {
		if wire != 0 {
			return step{}
		}
		s.offering, s.heard, s.silent = false, true, 0
		s.timeout, s.rto, s.ceiling = s.agreed, s.agreed, max(s.ceiling, s.agreed)
		s.measure(since)
		return s.advance()
	}
	ahead := int64(wire - uint16(s.acked))
	switch {
	case ahead == 0 && s.window > 1 && s.nudge == nudgeNone:
		s.nudge = nudgeArmed
		return s.waiting(step{}, s.hurried())
	case ahead == 0 || ahead > s.sent-s.acked:
		return step{}
	}
	if s.timed && s.least == earlyRTO { // the first window: what the OACK took says nothing of those
		s.least, s.srtt = leastRTO, 0
	}
	s.measure(since)
	s.acked += ahead
	s.heard, s.nudge, s.tries, s.silent = true, nudgeNone, 1, 0
	switch {
	case s.acked == s.last:
		return step{end: OutcomeComplete, sure: true}
	case s.acked == s.sent:
		s.recovering = false
	case s.recovering:
		from := s.sent + 1
		s.sent, s.nudge = min(s.acked+s.window, s.last), nudgeArmed
		return s.waiting(step{from: from, to: s.sent}, s.hurried())
	default:
		s.recovering, s.nudge = true, nudgeSpent
	}
	return s.advance()
}

// expired takes the end of the wait.
func (s *sender) expired() step {
	s.silent += s.pending
	wait := s.rto
	if s.nudge == nudgeArmed {
		s.nudge = nudgeSpent
	} else {
		if s.finishing() && s.silent >= max(dally*s.own, dallyAgreed*s.timeout) {
			return step{end: OutcomeComplete}
		}
		if s.silent >= max(patience*s.own, patienceAgreed*s.timeout) {
			return step{end: OutcomeTimeout, say: &Error{CodeUndefined, "no answer from the client, giving up"}}
		}
		wait = min(s.rto<<min(s.tries, 16), s.ceiling)
		s.tries++
	}
	if s.offering {
		s.resent++
		return s.waiting(step{oack: true}, wait)
	}
	s.resent += int(s.sent - s.acked)
	return s.waiting(step{from: s.acked + 1, to: s.sent}, wait)
}

// refused takes an ERROR packet of the client.
func (s *sender) refused(code uint16) step {
	switch {
	case s.offering && (code == CodeOptions || code == CodeUndefined):
		return step{end: OutcomeProbe}
	case code == CodeUnknownTID:
		return s.gone()
	}
	return step{end: OutcomeAborted}
}

// gone takes the news that the client's port is closed. Once everything was sent that only means that the client went on to
// other things before its last ACK could arrive, or that a late copy of a block found nobody any more.
func (s *sender) gone() step {
	if s.finishing() {
		return step{end: OutcomeComplete}
	}
	return step{end: OutcomeAborted}
}

// finishing reports whether everything is sent to a client that was heard before, so that only its last ACK is missing.
func (s *sender) finishing() bool { return s.heard && !s.offering && s.sent == s.last }

// confirmed returns the number of bytes that the client acknowledged.
func (s *sender) confirmed() int64 { return min(s.acked*s.block, s.size) }
