package tftp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

// sourceFunc is a Source made of a function.
type sourceFunc func(ctx context.Context, r Request) (Content, error)

func (f sourceFunc) Open(ctx context.Context, r Request) (Content, error) { return f(ctx, r) }

// file is a Content in memory.
type file struct{ *bytes.Reader }

func (f file) Close() error { return nil }

// sized answers "size-N" with pattern(N), also with any extension behind it, and nothing else.
func sized() Source {
	var mu sync.Mutex
	made := map[int64][]byte{}
	return sourceFunc(func(_ context.Context, r Request) (Content, error) {
		digits, ok := strings.CutPrefix(r.Name, "size-")
		digits, _, _ = strings.Cut(digits, ".")
		size, err := strconv.ParseInt(digits, 10, 64)
		if !ok || err != nil {
			return nil, fmt.Errorf("look it up: %w", &Error{CodeNotFound, "no such file"})
		}
		mu.Lock()
		defer mu.Unlock()
		if made[size] == nil {
			made[size] = pattern(size)
		}
		return file{bytes.NewReader(made[size])}, nil
	})
}

// house is a server under test.
type house struct {
	*Server
	t    testing.TB
	done chan Transfer
	stop func()
}

// hourly is a clock that goes on by an hour each time somebody looks: no round trip is
// short by it, so that no timer of a test runs out on a busy machine.
func hourly() func() time.Time {
	var hours atomic.Int64
	return func() time.Time { return time.Unix(0, 0).Add(time.Duration(hours.Add(1)) * time.Hour) }
}

// serve starts a server on loopback, with a timeout that never strikes unless change sets another. It is stopped at the end
// of the test, and then nothing of it may be left.
func serve(t testing.TB, change func(*Config)) *house {
	t.Helper()
	h := &house{t: t, done: make(chan Transfer, 10000)}
	cfg := Config{
		Addr: "127.0.0.1:0", Source: sized(), Now: hourly(), Timeout: time.Hour,
		Done: func(tr Transfer) { h.done <- tr },
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if h.Server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(clientPatience):
			t.Fatal("Run does not end")
		}
		if n := h.Stats().Active; n != 0 {
			t.Errorf("%d transfers are left", n)
		}
		noGoroutineLeft(t)
	})
	t.Cleanup(h.stop)
	return h
}

// noGoroutineLeft fails when a goroutine still runs the server. The last steps of a goroutine are after the moment that
// others can wait for, so it looks more than once.
func noGoroutineLeft(t testing.TB) {
	stacks := make([]byte, 1<<20)
	for end := time.Now().Add(clientPatience); time.Now().Before(end); runtime.Gosched() {
		stacks = stacks[:runtime.Stack(stacks[:cap(stacks)], true)]
		if !bytes.Contains(stacks, []byte("tftp.(*Server)")) && !bytes.Contains(stacks, []byte("tftp.(*transfer)")) {
			return
		}
	}
	t.Errorf("goroutines are left:\n%s", stacks)
}

// client returns a client of the house's address.
func (h *house) client() *client {
	return newClient(h.t, h.Addr().Addr().String(), h.Addr())
}

// ended returns the next transfer that ended, with the times and the address of the client left out after a check.
func (h *house) ended() Transfer {
	h.t.Helper()
	select {
	case tr := <-h.done:
		if tr.Started.IsZero() || tr.Duration <= 0 || !tr.Client.IsValid() || !tr.Local.IsValid() || tr.Interface == "" {
			h.t.Errorf("report is not filled in: %+v", tr)
		}
		return tr
	case <-time.After(clientPatience):
		h.t.Fatal("no transfer ended")
		return Transfer{}
	}
}

// report compares a report, but for what ended has looked at.
func report(t testing.TB, got, want Transfer) {
	t.Helper()
	if d := cmp.Diff(want, got, cmpopts.IgnoreFields(Transfer{}, "Started", "Duration"),
		cmpopts.IgnoreFields(Request{}, "Name", "Client", "Local", "Interface")); d != "" {
		t.Error(d)
	}
}

func same(t testing.TB, got []byte, size int64) {
	t.Helper()
	if sha256.Sum256(got) != sha256.Sum256(pattern(size)) {
		t.Errorf("%d bytes arrived that are not the %d sent", len(got), size)
	}
}

func TestDownload(t *testing.T) {
	h := serve(t, nil)
	tests := []struct {
		id      string
		size    int64
		options []string
		oack    string
		blksize int
		window  int
	}{
		{"TF-05 no options", 5000, nil, "", 512, 1},
		{"TF-06 unknown options only", 5000, []string{"x", "1", "rollover", "0"}, "", 512, 1},
		{"TF-07 mixed case", 5000, []string{"BlkSize", "1000", "TSIZE", "0"}, "OACK BlkSize=1000 TSIZE=5000", 1000, 1},
		{"TF-01 OVMF", 5000, []string{"tsize", "0", "blksize", "1468", "windowsize", "4"}, "OACK tsize=5000 blksize=1468 windowsize=4", 1468, 4},
		{"TF-03 loopback takes the largest block", 200000, []string{"blksize", "99999"}, "OACK blksize=65464", 65464, 1},
		{"TF-04 shim", 3843072, []string{"blksize", "512", "windowsize", "4"}, "OACK blksize=512 windowsize=4", 512, 4},
		{"TF-08 multiple of the block", 2048, nil, "", 512, 1},
		{"TF-08 multiple of the window", 16 * 512, []string{"windowsize", "4"}, "OACK windowsize=4", 512, 4},
		{"TF-09 rollover", 67000 * 8, []string{"blksize", "8", "windowsize", "16"}, "OACK blksize=8 windowsize=16", 8, 16},
		{"TF-22 timeout", 10, []string{"timeout", "3"}, "OACK timeout=3", 512, 1},
		{"TF-26 blksize 8", 1000, []string{"blksize", "8"}, "OACK blksize=8", 8, 1},
		{"TF-28 empty", 0, []string{"tsize", "0"}, "OACK tsize=0", 512, 1},
		{"TF-28 empty without options", 0, nil, "", 512, 1},
		{"windows beyond the cap", 100000, []string{"windowsize", "1000"}, "OACK windowsize=64", 512, 64},
	}
	for _, tt := range tests {
		t.Run(tt.id, func(t *testing.T) {
			c := h.client()
			c.t = t
			got, oack := c.get(fmt.Sprintf("size-%d", tt.size), tt.options...)
			same(t, got, tt.size)
			if oack != tt.oack {
				t.Errorf("got %q, want %q", oack, tt.oack)
			}
			tr := h.ended()
			report(t, tr, Transfer{
				Size: tt.size, Bytes: tt.size, BlockSize: tt.blksize, WindowSize: tt.window, Outcome: OutcomeComplete, Confirmed: true,
			})
			if c.tid.Port() == h.Addr().Port() {
				t.Error("answered from the well-known port")
			}
			if want := netip.AddrPortFrom(c.server.Addr(), 0).Addr(); tr.Local != want || tr.Interface != "lo" {
				t.Errorf("local %s on %s", tr.Local, tr.Interface)
			}
		})
	}
	if got := h.Stats(); got.Requests != len(tests) || got.Duplicates+got.Busy+got.Panics != 0 {
		t.Errorf("stats %+v", got)
	}
}

// TestRequest has requests that one packet answers.
func TestRequest(t *testing.T) {
	var log bytes.Buffer
	h := serve(t, func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo}))
		c.Source = sourceFunc(func(_ context.Context, r Request) (Content, error) {
			switch r.Name {
			case "boot/efi/grubx64.efi", "x/ipxe.efi", "ipxe.efi":
				return file{bytes.NewReader([]byte("hello"))}, nil
			case "broken":
				return nil, errors.New("database password is wrong")
			case "hidden":
				return nil, &Error{Code: CodeNoUser}
			}
			return nil, &Error{CodeNotFound, "no file " + r.Name}
		})
	})
	tests := []struct{ id, packet, want string }{
		{"TF-15 DOS separators", request(`boot\efi\grubx64.efi`, "octet"), "DATA 1 (5)"},
		{"TF-16 leading slash", request("/ipxe.efi", "octet"), "DATA 1 (5)"},
		{"TF-16 many slashes", request("//x//ipxe.efi", "octet"), "DATA 1 (5)"},
		{"TF-16 URL", request("tftp://h/ipxe.efi", "octet"), "DATA 1 (5)"},
		{"TF-17 0xFF", request("ipxe.efi\xff", "octet"), "DATA 1 (5)"},
		{"TF-17 NUL", request("ipxe.efi\x00", "octet"), "DATA 1 (5)"},
		{"TF-17 blank", request("ipxe.efi ", "octet"), "DATA 1 (5)"},
		{"TF-18 up", request("../../etc/passwd", "octet"), "ERROR 2 file name leads out of the tree"},
		{"TF-18 up encoded", request("%2e%2e/etc/passwd", "octet"), "ERROR 2 file name leads out of the tree"},
		{"TF-18 too long", request(strings.Repeat("x", 1025), "octet"), "ERROR 2 file name is longer than 1024 bytes"},
		{"TF-18 longer than any packet", request(strings.Repeat("x", 20000), "octet"), "ERROR 4 request names no transfer mode"},
		{"TF-18 empty", request("", "octet"), "ERROR 1 file name is empty"},
		{"TF-19 WRQ", "\x00\x02ipxe.efi\x00octet\x00", "ERROR 2 this server is read-only"},
		{"TF-19 WRQ that is malformed", "\x00\x02", "ERROR 2 this server is read-only"},
		{"TF-20 mail", request("ipxe.efi", "mail"), "ERROR 4 mode is not octet or netascii"},
		{"TF-20 netascii", request("ipxe.efi", "netascii"), "DATA 1 (5)"},
		{"TF-20 OCTET", request("ipxe.efi", "OCTET"), "DATA 1 (5)"},
		{"TF-20 no mode", "\x00\x01ipxe.efi\x00", "ERROR 4 request names no transfer mode"},
		{"TF-21 missing", request("revocations_sbat.efi", "octet", "tsize", "0"), "ERROR 1 no file revocations_sbat.efi"},
		{"TF-21 refused without a text", request("hidden", "octet"), "ERROR 7 request refused"},
		{"other error", request("broken", "octet"), "ERROR 0 internal error, try again"},
		{"ACK", "\x00\x04\x00\x01", "ERROR 5 no transfer on this port"},
		{"DATA", "\x00\x03\x00\x01x", "ERROR 5 no transfer on this port"},
		{"OACK", "\x00\x06", "ERROR 5 no transfer on this port"},
		{"unknown opcode", "\x00\x09xyz", "ERROR 4 unknown operation"},
	}
	for _, tt := range tests {
		t.Run(tt.id, func(t *testing.T) {
			c := h.client()
			c.t = t
			c.ask(tt.packet)
			c.want("answer", tt.want)
			if strings.HasPrefix(tt.want, "DATA") {
				c.ack(1)
			}
		})
	}
	t.Run("no answer to an ERROR or a scrap", func(t *testing.T) {
		c := h.client()
		for _, p := range []string{"\x00\x05\x00\x00x\x00", "\x00\x05", "\x00", ""} {
			c.ask(p)
		}
		c.ask("\x00\x04\x00\x01")
		c.want("the only answer", "ERROR 5 no transfer on this port")
	})
	h.stop()
	if s := log.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, "database password is wrong") {
		t.Errorf("TF-21: above debug there is only what an operator must mend, not\n%s", s)
	}
}

func TestProbe(t *testing.T) {
	h := serve(t, nil)
	t.Run("TF-02 EDK2 asks for the size first", func(t *testing.T) {
		c := h.client()
		c.ask(request("size-1500", "octet", "tsize", "0", "blksize", "1468", "windowsize", "4"))
		c.want("probe", "OACK tsize=1500 blksize=1468 windowsize=4")
		c.say(5, 8, "User aborted the transfer\x00")
		report(t, h.ended(), Transfer{Size: 1500, BlockSize: 1468, WindowSize: 4, Outcome: OutcomeProbe,
			ClientError: &Error{8, "User aborted the transfer"}})
		c = h.client()
		got, _ := c.get("size-1500", "blksize", "1468", "windowsize", "4")
		same(t, got, 1500)
		if tr := h.ended(); tr.Outcome != OutcomeComplete {
			t.Errorf("then %+v", tr)
		}
	})
	t.Run("client aborts in the middle", func(t *testing.T) {
		c := h.client()
		c.ask(request("size-1500", "octet"))
		c.want("first", "DATA 1 (512)")
		c.ack(1)
		c.want("second", "DATA 2 (512)")
		c.say(5, 3, "disk\nfull\x00")
		report(t, h.ended(), Transfer{Size: 1500, Bytes: 512, BlockSize: 512, WindowSize: 1, Outcome: OutcomeAborted,
			ClientError: &Error{3, "disk full"}})
	})
}

func TestNoStorm(t *testing.T) {
	h := serve(t, nil)
	t.Run("TF-10 duplicate ACK", func(t *testing.T) {
		c := h.client()
		c.ask(request("size-2000", "octet"))
		c.want("first", "DATA 1 (512)")
		c.ack(1)
		c.ack(1)
		c.ack(0)
		c.want("second", "DATA 2 (512)")
		c.ack(2)
		c.want("nothing twice", "DATA 3 (512)")
		c.ack(3)
		c.want("last", "DATA 4 (464)")
		c.ack(4)
		report(t, h.ended(), Transfer{Size: 2000, Bytes: 2000, BlockSize: 512, WindowSize: 1, Outcome: OutcomeComplete, Confirmed: true})
	})
	t.Run("TF-12 gap in a window", func(t *testing.T) {
		c := h.client()
		c.ask(request("size-4000", "octet", "windowsize", "4"))
		c.want("offer", "OACK windowsize=4")
		c.ack(0)
		for n := 1; n <= 4; n++ {
			c.want("window", fmt.Sprintf("DATA %d (512)", n))
		}
		c.ack(1) // DATA 2 counts as lost; 3 and 4 call for the same ACK
		c.ack(1)
		c.ack(1)
		for n := 2; n <= 5; n++ {
			c.want("resent", fmt.Sprintf("DATA %d (512)", n))
		}
		c.ack(5)
		for n := 6; n <= 7; n++ {
			c.want("rest", fmt.Sprintf("DATA %d (512)", n))
		}
		c.want("rest", "DATA 8 (416)")
		c.ack(8)
		report(t, h.ended(), Transfer{Size: 4000, Bytes: 4000, BlockSize: 512, WindowSize: 4, Outcome: OutcomeComplete,
			Confirmed: true, Retransmits: 3})
	})
}

func TestStranger(t *testing.T) { t.Run("TF-13 a stranger on the transfer's port", strangerSpeaks) }

func strangerSpeaks(t *testing.T) {
	h := serve(t, nil)
	c, stranger, quiet := h.client(), h.client(), h.client()
	c.ask(request("size-1000", "octet"))
	c.want("first", "DATA 1 (512)")
	stranger.tid, quiet.tid = c.tid, c.tid
	quiet.say(5, 0, "an ERROR of a stranger ends nothing and gets no answer\x00")
	stranger.ack(1)
	stranger.want("TF-13 stranger", "ERROR 5 unknown transfer ID")
	for range 2 * maxStrangers {
		stranger.ack(1)
	}
	c.ack(1)
	c.want("TF-13 transfer goes on", "DATA 2 (488)")
	c.ack(2)
	report(t, h.ended(), Transfer{Size: 1000, Bytes: 1000, BlockSize: 512, WindowSize: 1, Outcome: OutcomeComplete, Confirmed: true})
	for range maxStrangers - 1 {
		stranger.want("TF-13 stranger", "ERROR 5 unknown transfer ID")
	}
	for _, c := range []*client{stranger, quiet} {
		c.ask("\x00\x09")
		c.want("no more than that", "ERROR 4 unknown operation")
	}
}

func TestDuplicateRequest(t *testing.T) { t.Run("TF-14 the same request again", requestRepeats) }

func requestRepeats(t *testing.T) {
	h := serve(t, func(c *Config) { c.Now = time.Now })
	c := h.client()
	r := request("size-1000", "octet", "tsize", "0")
	c.ask(r)
	c.want("first", "OACK tsize=1000")
	c.ask(r)
	c.ask(request("/size-1000", "octet")) // the same file by another spelling
	c.ack(0)
	c.want("TF-14 one transfer", "DATA 1 (512)")
	c.ask(r)
	c.ask("\x00\x09") // answered behind the requests, so these have been read
	c.tid, c.buf[1] = netip.AddrPort{}, 0
	c.want("nothing to the requests", "ERROR 4 unknown operation")
	if got := h.Stats(); got.Requests != 4 || got.Duplicates != 3 || got.Active != 1 {
		t.Errorf("stats %+v", got)
	}
	other := h.client()
	got, _ := other.get("size-1000")
	same(t, got, 1000)
	h.ended()
}

// A ROM that was reset asks again from the same port: it hears its new transfer at once, and nothing of the old one.
func TestBegunAnew(t *testing.T) {
	for _, single := range []bool{false, true} {
		t.Run(fmt.Sprintf("single port %v", single), func(t *testing.T) {
			var later atomic.Int64
			h := serve(t, func(c *Config) {
				c.SinglePort = single
				c.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
			})
			c := h.client()
			r := request("size-1000", "octet")
			c.ask(r)
			c.want("first", "DATA 1 (512)")
			c.ack(1)
			c.want("second", "DATA 2 (488)")
			old := c.tid
			later.Add(int64(abandonedAfter) + 1)
			c.ask(r)
			c.tid = netip.AddrPort{}
			c.want("anew", "DATA 1 (512)")
			if !single && c.tid == old {
				t.Error("the old transfer answered")
			}
			c.ack(1)
			c.want("anew", "DATA 2 (488)")
			c.ack(2)
			ends := map[Outcome]error{}
			for range 2 {
				tr := h.ended()
				ends[tr.Outcome] = tr.Err
			}
			if err := ends[OutcomeAborted]; len(ends) != 2 || !errors.Is(err, errMovedOn) || ends[OutcomeComplete] != nil {
				t.Errorf("ended as %v", ends)
			}
			if got := h.Stats(); got.Duplicates != 0 || got.Requests != 2 {
				t.Errorf("stats %+v", got)
			}
		})
	}
}

func TestRetransmission(t *testing.T) {
	h := serve(t, func(c *Config) { c.Timeout = 20 * time.Millisecond })
	lossy := func(every int) func(int64) bool {
		n := 0
		return func(int64) bool { n++; return n%every != 0 }
	}
	for _, tt := range []struct {
		id      string
		options []string
		data    int
		acks    int
	}{
		{"TF-11 lock step", nil, 11, 13},
		{"TF-11 only ACKs are lost", []string{"blksize", "1468"}, 1 << 30, 7},
		{"TF-12 window 4", []string{"windowsize", "4", "tsize", "0"}, 23, 29},
		{"TF-12 window 16", []string{"windowsize", "16", "blksize", "1468"}, 41, 17},
	} {
		t.Run(tt.id, func(t *testing.T) {
			c := h.client()
			c.t = t
			c.letData, c.letAck = lossy(tt.data), lossy(tt.acks)
			got, _ := c.get("size-100000", tt.options...)
			same(t, got, 100000)
			tr := h.ended()
			if tr.Outcome != OutcomeComplete || tr.Bytes != 100000 || tr.Retransmits == 0 {
				t.Errorf("%+v", tr)
			}
		})
	}
	t.Run("TF-11 client goes silent", func(t *testing.T) {
		c := h.client()
		c.ask(request("size-1000", "octet"))
		for range 6 {
			c.want("try", "DATA 1 (512)")
		}
		c.want("end", "ERROR 0 no answer from the client, giving up")
		report(t, h.ended(), Transfer{Size: 1000, BlockSize: 512, WindowSize: 1, Outcome: OutcomeTimeout, Retransmits: 5})
	})
	t.Run("TF-23 final ACK never comes", func(t *testing.T) {
		c := h.client()
		c.ask(request("size-10", "octet", "tsize", "0"))
		c.want("offer", "OACK tsize=10")
		c.ack(0)
		for got := 0; got < 3; {
			if r := c.next(); r.op == 3 { // on a busy machine the OACK may come again
				got++
			}
		}
		if tr := h.ended(); tr.Outcome != OutcomeComplete || tr.Confirmed || tr.Bytes != 10 || tr.Retransmits < 2 || tr.Err != nil {
			t.Errorf("%+v", tr)
		}
	})
}

func TestPortUnreachable(t *testing.T) {
	h := serve(t, func(c *Config) { c.Timeout = 20 * time.Millisecond })
	c := h.client()
	c.ask(request("size-100000", "octet", "windowsize", "8"))
	c.want("offer", "OACK windowsize=8")
	c.ack(0)
	c.conn.Close() // what comes now finds no port, and the kernel says so
	if tr := h.ended(); tr.Outcome != OutcomeAborted || !errors.Is(tr.Err, unix.ECONNREFUSED) {
		t.Errorf("%+v", tr)
	}
	c = h.client()
	c.ask(request("size-10", "octet", "tsize", "0"))
	c.want("offer", "OACK tsize=10")
	c.ack(0)
	for c.next().op != 3 { // on a busy machine the OACK may come again
	}
	c.conn.Close() // a ROM that jumps
	if tr := h.ended(); tr.Outcome != OutcomeComplete || tr.Confirmed || tr.Err != nil || tr.Retransmits == 0 {
		t.Errorf("%+v", tr)
	}
}

func TestAddresses(t *testing.T) {
	t.Run("TF-24 second address", func(t *testing.T) {
		for _, listen := range []string{":0", "0.0.0.0:0"} {
			h := serve(t, func(c *Config) { c.Addr = listen })
			for _, address := range []string{"127.0.0.1", "127.7.7.7"} {
				to := netip.AddrPortFrom(netip.MustParseAddr(address), h.Addr().Port())
				c := newClient(t, "127.0.0.1", to)
				got, _ := c.get("size-5000")
				same(t, got, 5000)
				tr := h.ended()
				if c.tid.Addr().Unmap() != to.Addr() || tr.Local != to.Addr() || tr.Client.Addr().String() != "127.0.0.1" {
					t.Errorf("asked %s, answered from %s, reported %s and %s", to, c.tid, tr.Local, tr.Client)
				}
				c = newClient(t, "127.0.0.1", to)
				c.ask(request("nothing", "octet"))
				if r := c.next(); r.String() != "ERROR 1 no such file" || r.from.Addr().Unmap() != to.Addr() {
					t.Errorf("asked %s, %s answered %s", to, r.from, r)
				}
			}
			h.stop()
		}
	})
	t.Run("TF-25 IPv6", func(t *testing.T) {
		for _, listen := range []string{":0", "[::1]:0"} {
			h := serve(t, func(c *Config) { c.Addr = listen })
			to := netip.AddrPortFrom(netip.IPv6Loopback(), h.Addr().Port())
			got, oack := newClient(t, "::1", to).get("size-5000", "blksize", "1228")
			same(t, got, 5000)
			tr := h.ended()
			if oack != "OACK blksize=1228" || tr.Local != to.Addr() || tr.Client.Addr() != to.Addr() {
				t.Errorf("%s: %+v", oack, tr)
			}
			c := newClient(t, "::1", to)
			c.ask(request("nothing", "octet"))
			c.want("missing", "ERROR 1 no such file")
			h.stop()
		}
	})
}

func TestLimits(t *testing.T) { t.Run("TF-27 500 requests at once from one address", manyAsk) }

func manyAsk(t *testing.T) {
	h := serve(t, func(c *Config) { c.Addr, c.MaxTransfers = "0.0.0.0:0", 40 })
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), h.Addr().Port())
	started, busy := []*client(nil), 0
	for range 500 {
		c := newClient(t, "127.0.0.1", to)
		c.ask(request("size-1000", "octet"))
		switch got := c.next().String(); got {
		case "DATA 1 (512)":
			c.ack(1)
			c.want("second", "DATA 2 (488)")
			started = append(started, c)
		case "ERROR 0 busy, try again":
			busy++
			c.conn.Close()
		default:
			t.Fatal(got)
		}
	}
	if len(started) != 32 || busy != 468 {
		t.Errorf("TF-27: %d started, %d busy", len(started), busy)
	}
	got, _ := newClient(t, "127.0.0.2", to).get("size-1000")
	same(t, got, 1000)
	h.ended()
	for i := range 9 {
		c := newClient(t, "127.0.0.3", to)
		c.ask(request("size-1000", "octet"))
		if i == 8 {
			c.want("total", "ERROR 0 busy, try again")
			break
		}
		c.want("total", "DATA 1 (512)")
		c.ack(1)
		c.want("total", "DATA 2 (488)")
	}
	if got := h.Stats(); got.Active != 40 || got.Busy != 469 {
		t.Errorf("stats %+v", got)
	}
	started[0].ack(2) // others are unaffected
	if tr := h.ended(); tr.Outcome != OutcomeComplete {
		t.Errorf("%+v", tr)
	}
	got, _ = newClient(t, "127.0.0.1", to).get("size-1000")
	same(t, got, 1000)
	h.stop()
	started[1].want("end", "ERROR 0 server is stopping, try again")
	for range 39 + 1 {
		h.ended()
	}
	if h.clients[to.Addr()] != 0 || len(h.active)+len(h.clients) != 0 {
		t.Errorf("left over: %v, %v", h.active, h.clients)
	}
}

// TestForgedRequests: they take every place, and nobody answers what they are answered.
func TestForgedRequests(t *testing.T) {
	var later atomic.Int64
	h := serve(t, func(c *Config) {
		c.MaxTransfers = 3
		c.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	honest, forged, next, fourth := h.client(), h.client(), h.client(), h.client()
	ask := func(c *client) { c.ask(request("size-1000", "octet", "tsize", "0")) }
	ask(honest)
	honest.want("honest", "OACK tsize=1000")
	honest.ack(0)
	honest.want("honest", "DATA 1 (512)")
	ask(forged)
	forged.want("forged", "OACK tsize=1000")
	later.Add(int64(unheardFor))
	ask(fourth)
	fourth.want("the last place", "OACK tsize=1000")
	ask(next)
	next.want("the place of the oldest that nobody answered", "OACK tsize=1000")
	forged.want("in case that somebody is there", "ERROR 0 busy, try again")
	if tr := h.ended(); tr.Client.Port() != uint16(forged.conn.LocalAddr().(*net.UDPAddr).Port) || tr.Outcome != OutcomeAborted {
		t.Errorf("%+v", tr)
	}
	late := h.client()
	ask(late)
	late.ask("\x00\x09") // answered behind the request
	late.want("nothing to a request that comes again", "ERROR 4 unknown operation")
	late.tid = netip.AddrPort{}
	for _, c := range []*client{fourth, next} {
		c.ack(0)
		c.want("in time", "DATA 1 (512)")
	}
	later.Add(int64(unheardFor))
	ask(late)
	late.want("whoever has answered stays", "ERROR 0 busy, try again")
	if got := h.Stats(); got.Active != 3 || got.Busy != 2 {
		t.Errorf("stats %+v", got)
	}
	honest.ack(1)
	honest.want("all the time", "DATA 2 (488)")
	honest.ack(2)
	if tr := h.ended(); tr.Outcome != OutcomeComplete {
		t.Errorf("%+v", tr)
	}
	ask(late)
	late.want("a place is free", "OACK tsize=1000")
	later.Add(int64(unheardFor))
	h.mu.Lock()
	err := h.makeRoom()
	if err != nil || h.stats.Active != 2 {
		t.Errorf("%d transfers beside the new one, %v", h.stats.Active, err) // one place for one request
	}
	h.mu.Unlock()
	h.stop()
	if h.unheard.Len()+len(h.clients)+len(h.active) != 0 {
		t.Errorf("left over: %d, %v, %v", h.unheard.Len(), h.clients, h.active)
	}
}

// lone is a socket whose peer acknowledges whatever is read next.
type lone struct {
	client netip.AddrPort
	acked  uint16
	looks  func()
}

func (l *lone) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	l.looks()
	n := copy(b, []byte{0, 4, byte(l.acked >> 8), byte(l.acked)})
	l.acked++
	return n, l.client, nil
}

func (l *lone) WriteToUDPAddrPort(b []byte, _ netip.AddrPort) (int, error) { return len(b), nil }
func (l *lone) SetReadDeadline(time.Time) error                            { return nil }
func (l *lone) Close() error                                               { return nil }

// TestNoBufferUnheard: a window may have 4 MiB, and 2,000 forged requests ask for one each.
func TestNoBufferUnheard(t *testing.T) {
	var had []int
	tr := &transfer{now: hourly(), content: file{bytes.NewReader(pattern(100))}, terms: terms{block: 65464, window: 64, timeout: time.Hour, oack: []byte("oack")}}
	tr.report.Size = 100
	tr.conn = &lone{client: tr.report.Client, looks: func() { had = append(had, len(tr.buf)) }}
	tr.sender = newSender(100, tr.terms, time.Hour)
	tr.run(t.Context())
	if len(had) != 2 || had[0] != 0 || had[1] == 0 || tr.report.Outcome != OutcomeComplete {
		t.Errorf("%v bytes when the client was listened to, %+v", had, tr.report)
	}
}

// faulty is a Content that goes wrong in the way its name says.
type faulty struct {
	how    string
	closed func()
}

func (f faulty) Size() int64 {
	if f.how == "negative size" {
		return -1
	}
	return 100000
}

func (f faulty) ReadAt(b []byte, off int64) (int, error) {
	switch {
	case f.how == "panic in ReadAt":
		panic("on purpose")
	case off == 0:
		return len(b), nil
	case f.how == "shorter than it said":
		return len(b) / 2, io.EOF
	}
	return 0, os.ErrDeadlineExceeded
}

func (f faulty) Close() error { f.closed(); return nil }

func TestFaults(t *testing.T) {
	closed := make(chan string, 10)
	clock := new(atomic.Int64)
	clock.Store(1)
	var log bytes.Buffer
	h := serve(t, func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo}))
		c.Now = func() time.Time {
			if clock.Load() == 0 {
				panic("on purpose")
			}
			return time.Now()
		}
		good, done := c.Source, c.Done
		c.Source = sourceFunc(func(ctx context.Context, r Request) (Content, error) {
			switch {
			case r.Name == "panic in Open":
				panic("on purpose")
			case strings.HasPrefix(r.Name, "size-"):
				return good.Open(ctx, r)
			}
			return faulty{r.Name, func() { closed <- r.Name }}, nil
		})
		c.Done = func(tr Transfer) {
			done(tr)
			if tr.Name == "shorter than it said" {
				panic("on purpose")
			}
		}
	})
	for i, tt := range []struct {
		name   string
		opened bool
		panics int
	}{
		{"panic in Open", false, 1}, {"panic in ReadAt", true, 2}, {"negative size", true, 3},
		{"shorter than it said", true, 4}, {"read error", true, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := h.client()
			c.t = t
			c.ask(request(tt.name, "octet"))
			if i >= 3 {
				c.want("first", "DATA 1 (512)")
				c.ack(1)
			}
			c.want("end", "ERROR 0 internal error, try again")
			if tt.opened {
				tr := h.ended()
				if name := <-closed; tr.Outcome != OutcomeAborted || tr.Err == nil || name != tt.name {
					t.Errorf("closed %s: %+v", name, tr)
				}
			}
			got, _ := h.client().get("size-1000")
			same(t, got, 1000)
			h.ended()
			if n := h.Stats().Panics; n != tt.panics {
				t.Errorf("%d panics counted, want %d", n, tt.panics)
			}
		})
	}
	t.Run("in the packet handler", func(t *testing.T) {
		clock.Store(0) // the packet handler looks at the clock first
		c := h.client()
		c.ask(request("size-1000", "octet"))
		c.ask("\x00\x09")
		c.want("the next packet is served", "ERROR 4 unknown operation")
		if n := h.Stats().Panics; n != 5 {
			t.Errorf("%d panics counted", n)
		}
	})
	h.stop()
	if s := log.String(); strings.Count(s, "caught a panic") != 5 || !strings.Contains(s, "read content at 512: i/o timeout") {
		t.Errorf("the log says\n%s", s)
	}
}

func TestStop(t *testing.T) {
	opening := make(chan struct{})
	opened := make(chan context.Context, 1)
	h := serve(t, func(c *Config) {
		c.Source = sourceFunc(func(ctx context.Context, r Request) (Content, error) {
			if r.Name != "slow" {
				opened <- ctx
				return file{bytes.NewReader(pattern(1000))}, nil
			}
			close(opening)
			<-ctx.Done()
			return nil, ctx.Err()
		})
	})
	c, slow := h.client(), h.client()
	c.ask(request("x", "octet"))
	c.want("first", "DATA 1 (512)")
	if (<-opened).Err() == nil {
		t.Error("the context of Open outlives it")
	}
	slow.ask(request("slow", "octet"))
	<-opening
	h.stop()
	c.want("end", "ERROR 0 server is stopping, try again")
	slow.want("end", "ERROR 0 internal error, try again")
	if tr := h.ended(); tr.Outcome != OutcomeAborted || tr.Err == nil || tr.ClientError != nil {
		t.Errorf("%+v", tr)
	}
	again, err := New(Config{Addr: h.Addr().String(), Source: sized(), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := again.Run(ctx); err != nil {
		t.Errorf("run with an ended context: %v", err)
	}
}

func TestNewFails(t *testing.T) {
	h := serve(t, nil)
	for _, tt := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no source", Config{Now: time.Now}, "no Source"},
		{"no clock", Config{Source: sized()}, "no Now"},
		{"window", Config{Source: sized(), Now: time.Now, MaxWindow: 2000}, "MaxWindow 2000 is not"},
		{"negative", Config{Source: sized(), Now: time.Now, MaxPerClient: -1}, "cannot be negative"},
		{"port in use", Config{Source: sized(), Now: time.Now, Addr: h.Addr().String()}, h.Addr().String() + ": "},
		{"port in use", Config{Source: sized(), Now: time.Now, Addr: h.Addr().String()}, "ss -ulnp"},
		{"foreign address", Config{Source: sized(), Now: time.Now, Addr: "192.0.2.1:69"}, "no interface here has this address"},
		{"no address", Config{Source: sized(), Now: time.Now, Addr: "nonsense"}, "check the address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := New(tt.cfg)
			if err == nil || s != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}

// BenchmarkDownload downloads 16 MiB over loopback with the small client of these tests.
func BenchmarkDownload(b *testing.B) {
	for _, window := range []string{"1", "16"} {
		b.Run("blksize 1468 windowsize "+window, func(b *testing.B) {
			h := serve(b, nil)
			const size = 16 << 20
			h.client().get("size-" + strconv.Itoa(size)) // the pattern is made outside of the measurement
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				c := h.client()
				if got, _ := c.get("size-"+strconv.Itoa(size), "blksize", "1468", "windowsize", window); len(got) != size {
					b.Fatalf("got %d bytes", len(got))
				}
				<-h.done
			}
		})
	}
}
