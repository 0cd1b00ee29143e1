package tftp

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// script plays events against a sender and compares every step.
type script struct {
	t *testing.T
	*sender
}

func play(t *testing.T, size int64, block, window int, oack bool) script {
	te := terms{block: block, window: window, timeout: time.Second}
	if oack {
		te.oack = []byte("oack")
	}
	return script{t, newSender(size, te, time.Second)}
}

// patient plays with a client that agreed to a timeout of its own.
func patient(t *testing.T, size int64, timeout time.Duration) script {
	return script{t, newSender(size, terms{block: 512, window: 1, timeout: timeout, oack: []byte("oack")}, time.Second)}
}

// ack takes an ACK of which nobody knows how long it took.
func (s script) ack(wire uint16) step { return s.sender.ack(wire, 0) }

func (s script) want(what string, got, want step) {
	s.t.Helper()
	if d := cmp.Diff(want, got, all()); d != "" {
		s.t.Fatalf("%s: %s", what, d)
	}
}

func blocks(from, to int64) step             { return step{from: from, to: to, wait: time.Second} }
func (s step) after(wait time.Duration) step { s.wait = wait; return s }

func TestSenderLockStep(t *testing.T) {
	s := play(t, 1300, 512, 1, false)
	s.want("start", s.start(), blocks(1, 1))
	s.want("ACK 1", s.ack(1), blocks(2, 2))
	s.want("TF-10 duplicate ACK 1", s.ack(1), step{})
	s.want("TF-10 stale ACK 0", s.ack(0), step{})
	s.want("ACK of the future", s.ack(3), step{})
	s.want("ACK 2", s.ack(2), blocks(3, 3))
	s.want("ACK 3", s.ack(3), step{end: OutcomeComplete, sure: true})
	if s.resent != 0 || s.confirmed() != 1300 {
		t.Errorf("resent %d, confirmed %d", s.resent, s.confirmed())
	}
}

func TestSenderSizes(t *testing.T) {
	for _, tt := range []struct {
		id         string
		size, last int64
	}{
		{"TF-28 empty", 0, 1}, {"one byte", 1, 1}, {"one short", 511, 1}, {"TF-08 one block", 512, 2}, {"one more", 513, 2},
		{"TF-08 two blocks", 1024, 3}, {"TF-04 shim", 3843072, 7507},
	} {
		t.Run(tt.id, func(t *testing.T) {
			s := play(t, tt.size, 512, 1, false)
			next := s.start()
			for n := int64(1); n < tt.last; n++ {
				s.want("block", next, blocks(n, n))
				next = s.ack(uint16(n))
			}
			s.want("last block", next, blocks(tt.last, tt.last))
			s.want("end", s.ack(uint16(tt.last)), step{end: OutcomeComplete, sure: true})
		})
	}
}

func TestSenderRollover(t *testing.T) {
	t.Run("TF-09 rollover", func(t *testing.T) {
		const last = 40<<20/512 + 1
		s := play(t, 40<<20, 512, 1, false)
		next := s.start()
		for n := int64(1); n < last; n++ {
			if next != blocks(n, n) {
				t.Fatalf("block %d: %+v", n, next)
			}
			next = s.ack(uint16(n))
		}
		s.want("last", next, blocks(last, last))
	})
	t.Run("TF-09 rollover inside a window", func(t *testing.T) {
		s := play(t, 40<<20, 512, 4, false)
		next := s.start()
		for s.acked < 65532 {
			next = s.ack(uint16(s.sent))
		}
		s.want("window", next, blocks(65533, 65536))
		s.want("gap at 65535", s.ack(65535), blocks(65536, 65539))
		s.want("stale", s.ack(65534), step{})
		s.want("all", s.ack(3), blocks(65540, 65543))
	})
}

func TestSenderOack(t *testing.T) {
	offer := step{oack: true, wait: time.Second}
	t.Run("TF-01 accepted", func(t *testing.T) {
		s := play(t, 5000, 512, 4, true)
		s.want("start", s.start(), offer)
		s.want("ACK 1 answers no OACK", s.ack(1), step{})
		s.want("ACK 0", s.ack(0), blocks(1, 4))
	})
	t.Run("TF-02 probe", func(t *testing.T) {
		for _, code := range []uint16{CodeOptions, CodeUndefined} {
			s := play(t, 5000, 512, 4, true)
			s.want("start", s.start(), offer)
			s.want("ERROR", s.refused(code), step{end: OutcomeProbe})
		}
	})
	t.Run("TF-02 not a probe", func(t *testing.T) {
		s := play(t, 5000, 512, 4, true)
		s.want("start", s.start(), offer)
		s.want("disk full", s.refused(CodeDiskFull), step{end: OutcomeAborted})
		s = play(t, 5000, 512, 4, true)
		s.start()
		s.ack(0)
		s.want("ERROR 8 in the middle", s.refused(CodeOptions), step{end: OutcomeAborted})
	})
	t.Run("TF-11 lost", func(t *testing.T) {
		s := play(t, 10, 512, 1, true)
		s.want("start", s.start(), offer)
		for _, wait := range []time.Duration{2, 4, 6, 6, 6} {
			s.want("again", s.expired(), offer.after(wait*time.Second))
		}
		if got := s.expired(); got.end != OutcomeTimeout || got.say == nil {
			t.Errorf("after six tries: %+v", got)
		}
		if s.resent != 5 {
			t.Errorf("resent %d", s.resent)
		}
	})
}

func TestSenderTimeouts(t *testing.T) {
	t.Run("TF-11 ACK lost", func(t *testing.T) {
		s := play(t, 5000, 512, 1, false)
		s.start()
		s.ack(1)
		for _, wait := range []time.Duration{2, 4, 6, 6, 6} {
			s.want("again", s.expired(), blocks(2, 2).after(wait*time.Second))
		}
		s.want("at last", s.ack(2), blocks(3, 3))
		s.want("tries count anew", s.expired(), blocks(3, 3).after(2*time.Second))
		for range 4 {
			s.expired()
		}
		if got := s.expired(); got.end != OutcomeTimeout || got.say == nil {
			t.Errorf("after six tries: %+v", got)
		}
		if s.confirmed() != 1024 {
			t.Errorf("confirmed %d", s.confirmed())
		}
	})
	t.Run("TF-22 client's own timeout is not shortened", func(t *testing.T) {
		s := patient(t, 5000, 9*time.Second)
		s.want("start", s.start(), step{oack: true, wait: time.Second})
		s.want("ACK 0", s.ack(0), blocks(1, 1).after(9*time.Second))
		for range 3 {
			s.want("again", s.expired(), blocks(1, 1).after(9*time.Second))
		}
		if got := s.expired(); got.end != OutcomeTimeout {
			t.Errorf("after four times its timeout: %+v", got)
		}
	})
	t.Run("TF-22 nor is the last ACK waited for any shorter", func(t *testing.T) {
		s := patient(t, 10, 9*time.Second)
		s.start()
		s.want("ACK 0", s.ack(0), blocks(1, 1).after(9*time.Second))
		s.want("again", s.expired(), blocks(1, 1).after(9*time.Second))
		s.want("done", s.expired(), step{end: OutcomeComplete})
	})
	t.Run("TF-22 a short timeout does not make us less patient", func(t *testing.T) {
		s := script{t, newSender(5000, terms{block: 512, window: 1, timeout: time.Second, oack: []byte("oack")}, 3*time.Second)}
		s.start()
		s.want("ACK 0", s.ack(0), blocks(1, 1))
		silent := time.Second
		for next := s.expired(); next.end == ""; next = s.expired() {
			silent += next.wait
		}
		if silent < patience*3*time.Second {
			t.Errorf("given up after %s", silent)
		}
	})
	t.Run("TF-22 who was never heard is waited for as long as ever", func(t *testing.T) {
		s := patient(t, 5000, maxTimeout*time.Second)
		next, silent := s.start(), time.Duration(0)
		for next.end == "" {
			silent += next.wait
			next = s.expired()
		}
		if next.end != OutcomeTimeout || silent > 25*time.Second {
			t.Errorf("%s after %s", next.end, silent)
		}
	})
	t.Run("TF-23 final ACK never comes", func(t *testing.T) {
		s := play(t, 513, 512, 1, false)
		s.start()
		s.want("last", s.ack(1), blocks(2, 2))
		s.want("again", s.expired(), blocks(2, 2).after(2*time.Second))
		s.want("and again", s.expired(), blocks(2, 2).after(4*time.Second))
		s.want("done", s.expired(), step{end: OutcomeComplete})
	})
	t.Run("TF-23 client turned to other things", func(t *testing.T) {
		s := play(t, 513, 512, 1, false)
		s.start()
		s.ack(1)
		s.want("port closed at once", s.gone(), step{end: OutcomeComplete}) // of a ROM that jumps, or of a late copy
		s.expired()
		s.want("port closed later", s.gone(), step{end: OutcomeComplete})
		s.want("unknown TID later", s.refused(CodeUnknownTID), step{end: OutcomeComplete})
		s.want("another ERROR", s.refused(CodeDiskFull), step{end: OutcomeAborted})
	})
	t.Run("TF-23 client that was never heard", func(t *testing.T) {
		s := play(t, 10, 512, 1, false)
		s.start()
		for range 5 {
			s.want("again", s.expired().after(0), blocks(1, 1).after(0))
		}
		if got := s.expired(); got.end != OutcomeTimeout {
			t.Errorf("ended %+v", got)
		}
	})
}

func TestSenderWindow(t *testing.T) {
	t.Run("TF-12 gap", func(t *testing.T) {
		s := play(t, 50*512, 512, 4, false)
		s.want("start", s.start(), blocks(1, 4))
		s.want("DATA 2 lost", s.ack(1), blocks(2, 5))
		s.want("the same news again", s.ack(1), step{})
		s.want("and again", s.ack(1), step{})
		s.want("all", s.ack(5), blocks(6, 9))
		if s.resent != 3 {
			t.Errorf("resent %d, want 2, 3 and 4", s.resent)
		}
	})
	t.Run("TF-12 ACKs short of a gap's resend let only new blocks out", func(t *testing.T) {
		s := play(t, 50*512, 512, 4, false)
		s.start()
		s.want("DATA 2 lost, or 1 doubled", s.ack(1), blocks(2, 5))
		s.want("answer to a duplicate", s.ack(3), blocks(6, 7).after(time.Second/8))
		s.want("the same again", s.ack(3), step{})
		s.want("caught up", s.ack(7), blocks(8, 11))
		s.want("the next gap is answered again", s.ack(9), blocks(10, 13))
		if s.resent != 3+2 {
			t.Errorf("resent %d, want 2 to 4, 10 and 11", s.resent)
		}
	})
	t.Run("TF-12 a second gap in the resend of the first is sent again after twice the round trip", func(t *testing.T) {
		s := play(t, 50*512, 512, 4, false)
		s.start()
		s.want("a round trip", s.sender.ack(4, 3*time.Millisecond), blocks(5, 8).after(leastRTO))
		s.want("DATA 6 lost", s.ack(5), blocks(6, 9).after(leastRTO))
		s.want("DATA 8 lost", s.ack(7), blocks(10, 11).after(6*time.Millisecond))
		s.want("nothing came", s.expired(), blocks(8, 11).after(leastRTO))
		s.want("one resend for it, then as ever", s.expired(), blocks(8, 11).after(2*leastRTO))
	})
	t.Run("TF-12 ACK of every block in spite of the window", func(t *testing.T) {
		s := play(t, 50*512, 512, 4, false)
		s.start()
		s.want("ACK 1", s.ack(1), blocks(2, 5))
		for n := int64(2); n <= 47; n++ {
			s.want("ACK", s.ack(uint16(n)), blocks(n+4, n+4).after(time.Second/8))
		}
		for n := int64(48); n <= 50; n++ {
			s.want("ACK near the end", s.ack(uint16(n)), step{from: 52, to: 51, wait: time.Second / 8})
		}
		s.want("end", s.ack(51), step{end: OutcomeComplete, sure: true})
	})
	t.Run("TF-12 first block of a window lost", func(t *testing.T) {
		s := play(t, 50*512, 512, 4, false)
		s.start()
		s.want("window", s.ack(4), blocks(5, 8))
		s.want("DATA 5 lost: a duplicate ACK hurries", s.ack(4), step{wait: time.Second / 8})
		s.want("only once", s.ack(4), step{})
		s.want("nothing came", s.expired(), blocks(5, 8))
		s.want("one resend for it", s.ack(4), step{})
		s.want("then as ever", s.expired(), blocks(5, 8).after(2*time.Second))
		s.want("all", s.ack(8), blocks(9, 12))
	})
	t.Run("TF-10 duplicate ACK without a loss", func(t *testing.T) {
		s := play(t, 50*512, 512, 4, false)
		s.start()
		s.want("window", s.ack(4), blocks(5, 8))
		s.want("duplicate", s.ack(4), step{wait: time.Second / 8})
		s.want("progress", s.ack(8), blocks(9, 12))
		if s.resent != 0 {
			t.Errorf("resent %d", s.resent)
		}
	})
	t.Run("TF-12 last window is short", func(t *testing.T) {
		s := play(t, 5*512, 512, 4, false)
		s.start()
		s.want("rest", s.ack(4), blocks(5, 6))
		s.want("gap", s.ack(5), blocks(6, 6))
		s.want("end", s.ack(6), step{end: OutcomeComplete, sure: true})
	})
}

// TestSenderLossyLink plays a whole download with packets lost, doubled and late in both directions, against a client
// that answers every unexpected DATA with an ACK as EDK2 does. It must come through, in order, and without a storm.
func TestSenderLossyLink(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		window, loss := 1+rng.IntN(16), float64(seed%5)*0.03
		s := play(t, 300*512, 512, window, false)
		var toClient, toServer []int64
		lossy := func(queue []int64, n int64) []int64 {
			for copies := 1 + rng.IntN(20)/19; copies > 0; copies-- {
				if rng.Float64() >= loss {
					queue = append(queue, n)
				}
			}
			return queue
		}
		packets, got, inWindow := 0, int64(0), 0
		next := s.start()
		for next.end == "" {
			for n := next.from; n > 0 && n <= next.to; n++ {
				packets++
				toClient = lossy(toClient, n)
			}
			if next = (step{}); len(toClient) > 0 && rng.IntN(3) > 0 {
				n := toClient[0]
				toClient = toClient[1:]
				if n == got+1 {
					got++
					if inWindow++; inWindow == window || got == s.last {
						toServer, inWindow = lossy(toServer, got), 0
					}
				} else {
					toServer, inWindow = lossy(toServer, got), 0
				}
			} else if len(toServer) > 0 {
				next = s.ack(uint16(toServer[0]))
				toServer = toServer[1:]
			} else if len(toClient) == 0 {
				next = s.expired()
			}
		}
		if next.end != OutcomeComplete || got != s.last {
			t.Errorf("seed %d, window %d, loss %.2f: %s at %d of %d", seed, window, loss, next.end, got, s.last)
		}
		if limit := int(float64(s.last) * (1.5 + loss*float64(window)*2)); packets > limit {
			t.Errorf("seed %d, window %d, loss %.2f: %d packets for %d blocks", seed, window, loss, packets, s.last)
		}
	}
}

// TestRetransmissionTimer: in a network with a short round trip a loss costs a hundredth
// of a second, and a client that is busy is still waited for as long as ever.
func TestRetransmissionTimer(t *testing.T) {
	s := newSender(10000, terms{block: 512, window: 1, timeout: time.Second}, time.Second)
	if got := s.start(); got.wait != time.Second {
		t.Fatalf("before anything is measured: %+v", got)
	}
	if got := s.ack(1, 300*time.Microsecond); got.wait != leastRTO {
		t.Errorf("with a short round trip: %+v", got)
	}
	s.measure(0) // a clock that stands still measures nothing
	var waits []time.Duration
	total := leastRTO
	for range 100 {
		got := s.expired()
		if got.end != "" {
			break
		}
		waits, total = append(waits, got.wait), total+got.wait
	}
	if waits[0] != 2*leastRTO || waits[len(waits)-1] != 6*time.Second || total < 22*time.Second || total > 28*time.Second {
		t.Errorf("%v, %s in all", waits, total)
	}
	slow := newSender(10000, terms{block: 512, window: 1, timeout: time.Second}, time.Second)
	slow.start()
	for range 20 {
		slow.measure(400 * time.Millisecond)
	}
	if slow.rto < 400*time.Millisecond || slow.rto > time.Second {
		t.Errorf("a slow client is given %s", slow.rto)
	}
	slow.measure(30 * time.Second)
	if slow.rto != time.Second {
		t.Errorf("more than was agreed: %s", slow.rto)
	}
}

// TestEarlyTimer: where no window ever arrives whole and in order none is measured, and then a loss must not cost the whole
// second that was agreed; but one packet's round trip does not tell how long a window takes.
func TestEarlyTimer(t *testing.T) {
	s := newSender(100000, terms{block: 512, window: 4, timeout: time.Second, oack: []byte("oack")}, time.Second)
	s.start()
	if got := s.ack(0, 300*time.Microsecond); got != blocks(1, 4).after(earlyRTO) {
		t.Errorf("after the OACK: %+v", got)
	}
	s.expired()
	if got := s.ack(2, time.Millisecond); got != blocks(3, 6).after(earlyRTO) {
		t.Errorf("after a window that was sent again: %+v", got)
	}
	s.ack(6, 2*time.Millisecond)
	if got := s.ack(10, 2*time.Millisecond); got != blocks(11, 14).after(leastRTO) {
		t.Errorf("after a window: %+v", got)
	}
	s.expired()
	if s.ack(14, 300*time.Millisecond); s.rto != 600*time.Millisecond {
		t.Errorf("%s, and the answer to what was sent again took 300 ms", s.rto)
	}
	if s.ack(18, 310*time.Millisecond); s.rto < 310*time.Millisecond || s.rto > 600*time.Millisecond {
		t.Errorf("%s, and a window took 310 ms", s.rto)
	}
	long := newSender(100000, terms{block: 512, window: 4, timeout: time.Second, oack: []byte("oack")}, time.Second)
	long.start()
	long.ack(0, 300*time.Microsecond)
	if got := long.ack(4, 100*time.Millisecond); got != blocks(5, 8).after(300*time.Millisecond) {
		t.Errorf("after a window that takes much longer than the OACK did: %+v", got)
	}
	slow := newSender(100000, terms{block: 512, window: 4, timeout: time.Second, oack: []byte("oack")}, time.Second)
	slow.start()
	if got := slow.ack(0, 2*time.Second); got != blocks(1, 4) {
		t.Errorf("after an OACK that took longer than agreed: %+v", got)
	}
}

// TestOnce: no round trip is measured of what was sent again.
func TestOnce(t *testing.T) {
	s := newSender(100000, terms{block: 512, window: 4, timeout: time.Second}, time.Second)
	for i, step := range []struct {
		do   func()
		want bool
	}{
		{func() { s.start() }, true},
		{func() { s.ack(4, 0) }, true},
		{func() { s.ack(6, 0) }, false}, // of a window to 8: 7 is sent again
		{func() { s.ack(10, 0) }, true},
		{func() { s.ack(10, 0) }, false}, // a duplicate: the wait is shortened
		{func() { s.expired() }, false},
		{func() { s.ack(14, 0) }, true},
		{func() { s.expired() }, false},
	} {
		if step.do(); s.once() != step.want {
			t.Errorf("step %d: %v", i, s.once())
		}
	}
}
