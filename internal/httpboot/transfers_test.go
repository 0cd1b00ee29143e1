package httpboot

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bootlane/internal/lane"
	"bootlane/internal/nettest"
	"bootlane/internal/seed"
)

// oneFile serves one file to whoever asks.
type oneFile struct{ path string }

const oneFileSize = 64 << 20

func (o oneFile) File(context.Context, lane.RunPath, lane.Facts) (lane.BundleFile, error) {
	return lane.BundleFile{SizeBytes: oneFileSize}, nil
}
func (o oneFile) Tree(ctx context.Context, p lane.RunPath, f lane.Facts) (lane.BundleFile, error) {
	s, err := os.Stat(o.path)
	if err != nil {
		return lane.BundleFile{}, err
	}
	return lane.BundleFile{SizeBytes: s.Size(), Digest: lane.Digest("sha256:" + strings.Repeat("0", 64))}, nil
}
func (o oneFile) Seed(context.Context, lane.RunPath, lane.Facts) (seed.Document, error) {
	return seed.Document{}, lane.Errorf(lane.NotFound, "none")
}
func (o oneFile) Open(lane.BundleFile) (*os.File, error) { return os.Open(o.path) }

// A transfer can be watched by its own run, from the first byte that arrives to
// the last, and is gone after it.
func TestTransfers(t *testing.T) {
	issuer := httptest.NewTLSServer(nil) // it has a certificate, and a client that trusts it
	defer issuer.Close()
	file := oneFile{filepath.Join(t.TempDir(), "initrd")}
	if err := os.WriteFile(file.path, make([]byte, oneFileSize), 0o600); err != nil {
		t.Fatal(err)
	}
	for scheme, secure := range map[string]*tls.Config{"http": nil, "https": {Certificates: issuer.TLS.Certificates}} {
		t.Run(scheme, func(t *testing.T) {
			watch(t, file, scheme, secure, issuer.Client())
		})
	}
}

func watch(t *testing.T, file oneFile, scheme string, secure *tls.Config, client *http.Client) {
	s, err := New(t.Context(), Config{Listeners: []Listener{{Addr: "127.0.0.1:0", BaseURL: func(string) string { return "" }, TLS: secure}}, Runs: file, Files: file, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	capability := strings.Repeat("a", 32)
	p := lane.RunPath{Capability: capability, Asset: lane.AssetFile, Digest: lane.Digest("sha256:" + strings.Repeat("0", 64)), Name: "initrd"}
	res, err := client.Get(scheme + "://" + s.Addr() + p.String())
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", res, err)
	}
	defer func() { _ = res.Body.Close() }() // read to its end below
	if _, err := io.CopyN(io.Discard, res.Body, 1<<20); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, "the first MiB is shown as acknowledged", func() bool { // its last ACK may be a delayed one
		list := s.Transfers(capability)
		return len(list) == 1 && list[0].Name == "initrd" && list[0].Total == oneFileSize && list[0].Done >= 1<<20 && list[0].Done < oneFileSize
	})
	if other := s.Transfers(strings.Repeat("b", 32)); len(other) != 0 {
		t.Errorf("another run sees %+v", other)
	}
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, "an ended transfer is listed no more", func() bool { return len(s.Transfers(capability)) == 0 })
}

// TestCork: what was gathered goes out when the cork is pulled, and a connection without one is none of its business.
func TestCork(t *testing.T) {
	ours, theirs := connected(t)
	corked := func() int {
		raw, err := ours.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		on := -1
		if err := raw.Control(func(fd uintptr) { on, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK) }); err != nil {
			t.Fatal(err)
		}
		return on
	}
	pull := cork(ours)
	if corked() != 1 {
		t.Error("nothing is gathered")
	}
	if _, err := ours.Write([]byte("the rest")); err != nil {
		t.Fatal(err)
	}
	if pull(); corked() != 0 {
		t.Error("the cork stays in")
	}
	got := make([]byte, 8)
	if _, err := io.ReadFull(theirs, got); err != nil || string(got) != "the rest" {
		t.Errorf("%q, %v", got, err)
	}
	cork(nil)()
	if err := ours.Close(); err != nil {
		t.Fatal(err)
	}
	cork(ours)() // does nothing, and does not panic
}

// connected returns the two ends of a TCP connection.
func connected(t *testing.T) (ours, theirs *net.TCPConn) {
	t.Helper()
	lis, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lis.Close() }()
	if theirs, err = net.DialTCP("tcp", nil, lis.Addr().(*net.TCPAddr)); err != nil {
		t.Fatal(err)
	}
	if ours, err = lis.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(ours.Close(), theirs.Close()) })
	return ours, theirs
}
