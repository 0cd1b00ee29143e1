package tftp

import (
	"cmp"
	"slices"
	"testing"
	"time"
)

// slowClient takes one packet after the other off its line, each in so long.
type slowClient struct {
	window   int
	pace     time.Duration // a packet
	perBlock bool          // acknowledges each block in spite of the window
	repeats  bool          // answers what it did not expect, as EDK2 does
	lose     int           // each so many-th packet is lost; 0: none
}

// arrival is a packet, or the ACK of a block, that arrives somewhere.
type arrival struct {
	at    time.Duration
	block int64
}

const halfWay = 150 * time.Microsecond // of the round trip of an empty line

// download plays a file of so many blocks, and returns how many were sent.
func (c slowClient) download(t *testing.T, blocks int64) (sent int64, took time.Duration) {
	s := newSender((blocks-1)*512+10, terms{block: 512, window: c.window, timeout: time.Second, oack: []byte("oack")}, time.Second)
	var data, acks []arrival // in order
	var now, said, deadline, busy time.Duration
	expected, inWindow := int64(1), 0
	next := s.start()
	for events := 0; events < 1_000_000; events++ {
		if next.end != "" {
			if next.end != OutcomeComplete || expected != blocks+1 {
				t.Errorf("%+v: %s at block %d", c, next.end, expected)
			}
			return sent, now
		}
		if next.wait > 0 {
			deadline = now + next.wait
		}
		if next.oack {
			said, acks = now, append(acks, arrival{now + 2*halfWay, 0})
		}
		for n := next.from; n > 0 && n <= next.to; n++ {
			said = now
			if sent++; c.lose > 0 && sent%int64(c.lose) == 0 {
				continue
			}
			busy = max(busy, now+halfWay) + c.pace
			data = append(data, arrival{busy, n})
		}
		switch next = (step{}); {
		case len(data) > 0 && data[0].at <= deadline && (len(acks) == 0 || data[0].at <= acks[0].at):
			now = data[0].at
			expected, inWindow, acks = c.take(data[0].block, blocks, expected, inWindow, now, acks)
			data = data[1:]
		case len(acks) > 0 && acks[0].at <= deadline:
			now = acks[0].at
			next = s.ack(uint16(acks[0].block), now-said)
			acks = acks[1:]
		default:
			now = deadline
			next = s.expired()
		}
	}
	t.Errorf("%+v: no end", c)
	return sent, now
}

// take has the client look at a block, and maybe acknowledge.
func (c slowClient) take(n, last, expected int64, inWindow int, now time.Duration, acks []arrival) (int64, int, []arrival) {
	answer := c.repeats || n > expected
	if n == expected {
		expected, inWindow = expected+1, inWindow+1
		answer = inWindow == c.window || c.perBlock || n == last
	}
	if !answer {
		return expected, inWindow, acks
	}
	return expected, 0, slices.SortedStableFunc(slices.Values(append(acks, arrival{now + halfWay, expected - 1})), func(a, b arrival) int { return cmp.Compare(a.at, b.at) })
}

// TestSenderSlowLinks plays in a time of its own. Where a window takes longer than our timeout, packets are sent twice until that is known, and no
// longer; and a client that is slow to acknowledge is not flooded for it.
func TestSenderSlowLinks(t *testing.T) {
	const blocks = 2000
	for name, c := range map[string]struct {
		client slowClient
		times  float64 // how often a block is sent, at most
		slower float64 // than the line, at most
	}{
		"2 Mbit/s, window 64":                  {slowClient{window: 64, pace: 5900 * time.Microsecond}, 1.2, 1.2},
		"2 Mbit/s, window 64, EDK2":            {slowClient{window: 64, pace: 5900 * time.Microsecond, repeats: true}, 1.3, 1.3},
		"1 Mbit/s, window 64, EDK2":            {slowClient{window: 64, pace: 11800 * time.Microsecond, repeats: true}, 1.3, 1.3},
		"900 kbit/s, window 16, EDK2":          {slowClient{window: 16, pace: 13 * time.Millisecond, repeats: true}, 1.3, 1.3},
		"196 kbit/s, window 4, EDK2":           {slowClient{window: 4, pace: 60 * time.Millisecond, repeats: true}, 1.3, 1.3},
		"4 Mbit/s, window 4, EDK2, one lost":   {slowClient{window: 4, pace: 3 * time.Millisecond, repeats: true, lose: 50}, 1.3, 1.3},
		"100 Mbit/s, window 64, EDK2, lost":    {slowClient{window: 64, pace: 100 * time.Microsecond, repeats: true, lose: 50}, 3, 5},
		"each block, window 16, 3 ms a packet": {slowClient{window: 16, pace: 3 * time.Millisecond, perBlock: true, repeats: true}, 5, 5},
		"each block, window 64, 3 ms a packet": {slowClient{window: 64, pace: 3 * time.Millisecond, perBlock: true}, 8, 8},
		"each block, window 4, 10 ms a packet": {slowClient{window: 4, pace: 10 * time.Millisecond, perBlock: true, repeats: true}, 2.5, 2.5},
	} {
		t.Run(name, func(t *testing.T) {
			sent, took := c.client.download(t, blocks)
			times, slower := float64(sent)/blocks, float64(took)/float64(blocks*c.client.pace)
			if times > c.times || slower > c.slower {
				t.Errorf("each block was sent %.2f times, and it took %.2f times as long as the line needs", times, slower)
			}
		})
	}
}
