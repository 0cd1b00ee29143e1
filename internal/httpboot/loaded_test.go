package httpboot

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bootlane/internal/lane"
	"bootlane/internal/nettest"
)

// loader counts how often it was loaded, and how many answers are over.
type loader struct {
	firmware
	loaded, over *atomic.Int32
}

type counted struct {
	memory
	over *atomic.Int32
}

func (c counted) Close() error { c.over.Add(1); return nil }

func (l loader) Boot(context.Context, lane.BootPath, lane.Facts) (BootFile, error) {
	return counted{memory{bytes.NewReader(l.body)}, l.over}, nil
}

func (l loader) Loaded(lane.BootPath) { l.loaded.Add(1) }

// TestLoaded: a file counts as loaded when the machine has it, not when it was sent, and
// not when the machine went away in the middle.
func TestLoaded(t *testing.T) {
	const small, large = 100_000, 32 << 20 // of the small one, all is in the kernel at once
	for name, c := range map[string]struct {
		method     string
		size, read int64
		reset      bool
		late       bool // the server waits for long when the rest is read
		loaded     int32
	}{
		"whole":                            {"GET", small, small, false, false, 1},
		"whole, then reset":                {"GET", large, large, true, false, 1},
		"whole, late, then reset":          {"GET", small, small, true, true, 1},
		"broken off":                       {"GET", large, 1000, false, false, 0},
		"broken off, reset":                {"GET", large, large / 2, true, false, 0},
		"broken off when all was sent":     {"GET", small, 1000, true, true, 0},
		"broken off when all was sent too": {"GET", small, 1000, false, true, 0},
		"its length was asked for":         {"HEAD", small, 0, false, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := loader{firmware{body: make([]byte, c.size)}, &atomic.Int32{}, &atomic.Int32{}}
			s, err := New(t.Context(), Config{Listeners: []Listener{{Addr: "127.0.0.1:0", BaseURL: func(string) string { return "" }}}, Boots: l, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
				var set error
				if err := c.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) }); err != nil {
					return err
				}
				return set
			}}
			conn, err := d.Dial("tcp", s.Addr())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, c.method+" "+loaderPath+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), &http.Request{Method: c.method})
			if err != nil {
				t.Fatal(err)
			}
			if c.late {
				time.Sleep(300 * time.Millisecond) // a server that takes what it has sent for loaded has done so
			}
			if _, err := io.CopyN(io.Discard, res.Body, c.read); err != nil {
				t.Fatal(err)
			}
			if c.reset {
				err = conn.(*net.TCPConn).SetLinger(0)
			}
			if closed := conn.Close(); err != nil || closed != nil {
				t.Fatal(err, closed)
			}
			nettest.Eventually(t, "the answer is over", func() bool { return l.over.Load() == 1 })
			if n := l.loaded.Load(); n != c.loaded {
				t.Errorf("it was loaded %d times, want %d", n, c.loaded)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// deadlined keeps the write deadline of an answer.
type deadlined struct {
	*httptest.ResponseRecorder
	at time.Time
}

func (d *deadlined) SetWriteDeadline(at time.Time) error { d.at = at; return nil }

// TestBootDeadline: a large loader has the time that its size takes.
func TestBootDeadline(t *testing.T) {
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	l := loader{firmware{body: make([]byte, 50_000_000)}, &atomic.Int32{}, &atomic.Int32{}}
	s := &Server{cfg: Config{Listeners: []Listener{{BaseURL: func(string) string { return "" }}}, Boots: l, Now: func() time.Time { return now }}}
	w := &deadlined{ResponseRecorder: httptest.NewRecorder()}
	s.ServeHTTP(w, httptest.NewRequest("HEAD", loaderPath, nil))
	if want := now.Add(2*time.Minute + 1000*time.Second); !w.at.Equal(want) {
		t.Errorf("50 MB must be sent until %s, want %s", w.at, want)
	}
}
