package pcap

import (
	"fmt"
	"testing"
	"time"
)

// crowd is a capture in which n machines get an address and a loader.
func crowd(t *testing.T, n int) Capture {
	l := newTape(t)
	discover, request := l.fixture(ovmfDiscover), l.fixture(ovmfRequest)
	for i := range n {
		for _, b := range [][]byte{discover, request} {
			b[32], b[33] = byte(i>>8), byte(i) // chaddr
		}
		address := fmt.Sprintf("192.168.%d.%d", 100+i>>8, i&255)
		answer := func(kind byte, asked []byte) {
			l.udp(server, 67, everyone, 68, reply{kind: kind, address: address, next: server.ip, file: "ipxe.efi"}.bytes(server, asked))
		}
		l.udp(unbound, 68, everyone, 67, discover)
		answer(offer, discover)
		l.udp(unbound, 68, everyone, 67, request)
		answer(ack, request)
	}
	c, err := Read(l.file())
	if err != nil || c.Damage != "" {
		t.Fatal(err, c.Damage)
	}
	return c
}

// TestAnalyseCrowd: a capture of a boot storm takes time by how many machines there are, not by their square.
func TestAnalyseCrowd(t *testing.T) {
	best := func(n int) time.Duration {
		c, best := crowd(t, n), time.Hour
		for range 3 {
			begin := time.Now()
			if r := Analyse(c); len(r.Clients) != n {
				t.Fatalf("%d clients of %d", len(r.Clients), n)
			}
			best = min(best, time.Since(begin))
		}
		return best
	}
	few, many := best(500), best(4000)
	t.Logf("500 machines: %s, 4000 machines: %s", few, many)
	if many > 24*few { // 8 times as many
		t.Errorf("500 machines take %s, and 4000 take %s", few, many)
	}
}
