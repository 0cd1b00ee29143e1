package dhcp

import (
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"bootlane/internal/lane"
)

// diary is a log that can be read while it is written.
type diary struct {
	mu   sync.Mutex
	text strings.Builder
}

func (d *diary) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.Write(p)
}

func (d *diary) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.String()
}

// told has the rig's log written to what it returns.
func (r *rig) told() *diary {
	d := &diary{}
	r.cfg.Log = slog.New(slog.NewTextHandler(d, nil))
	return d
}

// TestAnswersForEverything: one machine that answers whatever is asked about, as a router
// with proxy ARP does, sets aside no more of a range than DECLINEs may, and is told.
func TestAnswersForEverything(t *testing.T) {
	for name, by := range map[string]func(int) lane.MAC{
		"proxy ARP":       func(int) lane.MAC { return mac(0xee) },
		"invented MACs":   invented,
		"behind a router": func(int) lane.MAC { return "" },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.wide("192.168.100.0", "192.168.100.99")
			log := r.told()
			for n := range 100 {
				r.conflict(r.scope, netip.AddrFrom4([4]byte{192, 168, 100, byte(n)}), by(n))
			}
			if u := r.pool.usage(r.now); u.Aside != 25 || len(r.notes) != 25 {
				t.Errorf("%d of 100 addresses are set aside, %d are on record", u.Aside, len(r.notes))
			}
			r.bind(mac(1))
			if n := strings.Count(log.String(), "proxy ARP"); n != 1 || !strings.Contains(log.String(), "mac="+string(by(25))) {
				t.Errorf("it is told %d times: %s", n, log)
			}
			r.now = r.now.Add(time.Minute)
			r.conflict(r.scope, netip.MustParseAddr("192.168.100.99"), by(99))
			if n := strings.Count(log.String(), "proxy ARP"); n != 2 {
				t.Errorf("it is told %d times after a minute: %s", n, log)
			}
		})
	}
}

// TestTwoAnswer: nothing is set aside when another machine answers for a leased address,
// and the record does not say so.
func TestTwoAnswer(t *testing.T) {
	r := newRig(t)
	a := r.bind(mac(1))
	r.notes = nil
	r.conflict(r.scope, netip.MustParseAddr(a), mac(2))
	want := "two machines answer for " + a + ", leased to " + string(mac(1))
	if len(r.notes) != 1 || !strings.Contains(r.notes[0], want) || r.pool.usage(r.now).Aside != 0 {
		t.Errorf("%q, want %q", r.notes, want)
	}
}

// TestEcho: whoever did not get our question cannot answer it. The kernel takes the
// requests of the marks below for valid only if their checksums are.
func TestEcho(t *testing.T) {
	here := netip.MustParseAddr("127.0.0.1")
	for _, mark := range []string{"0123456789ab", "\xf7\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\xf8\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"} {
		w, err := openEcho(here, strings.NewReader(mark))
		if err != nil {
			t.Fatal("a raw socket needs root: ", err)
		}
		conn := w.(*echoWire)
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		other := []byte{icmpEchoReply, 0, 0, 0, 'b', 'l', 0, 1}
		if _, err := conn.WriteTo(other, &net.IPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.WriteTo(append(other, mark[:6]...), &net.IPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			t.Fatal(err)
		}
		if err := w.ask(netip.MustParseAddr("127.0.0.2")); err != nil {
			t.Fatal(err)
		}
		if a, by, err := w.hear(); err != nil || a.String() != "127.0.0.2" || by != "" {
			t.Errorf("%x: the answer is from %s %s, %v", mark, a, by, err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := openEcho(here, strings.NewReader("short")); err == nil {
		t.Error("without randomness it is opened")
	}
}
