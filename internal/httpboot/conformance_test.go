package httpboot

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bootlane/internal/lane"
)

// installed is a machine that is to boot from its disk.
const installed = lane.MAC("52:54:00:00:00:99")

// firmware serves a loader of some bytes to the paths that have it, and a script.
type firmware struct {
	oneFile
	body []byte
}

type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

func (f firmware) Boot(_ context.Context, p lane.BootPath, _ lane.Facts) (BootFile, error) {
	if p.MAC == installed {
		return nil, lane.Errorf(lane.Refused, "local-boot: it is installed")
	}
	if !strings.HasSuffix(p.File, ".efi") && p.File != "boot.iso" || strings.HasPrefix(p.File, "revocations") {
		return nil, lane.Errorf(lane.NotFound, "no boot loader %s", p.File)
	}
	return memory{bytes.NewReader(f.body)}, nil
}

func (f firmware) Script(context.Context, lane.Facts, bool) ([]byte, lane.Decision, error) {
	return []byte("#!ipxe\nexit\n"), lane.Decision{}, nil
}

func (firmware) Loaded(lane.BootPath) {}

// machinePort starts a server, and returns its address and a digest-addressed file of a run.
func machinePort(t *testing.T, body []byte) (addr, file string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "linux")
	if err := os.WriteFile(path, body, 0o600); err != nil {
		t.Fatal(err)
	}
	f := firmware{oneFile{path}, body}
	s, err := New(t.Context(), Config{Listeners: []Listener{{Addr: "127.0.0.1:0", BaseURL: func(string) string { return "http://127.0.0.1" }}}, Boots: f, Runs: f, Files: f, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s.Addr(), lane.RunPath{Capability: strings.Repeat("a", 32), Asset: lane.AssetFile, Digest: lane.Digest("sha256:" + strings.Repeat("0", 64)), Name: "linux"}.String()
}

// wire is one connection on which requests are written as they stand.
type wire struct {
	*testing.T
	net.Conn
	in *bufio.Reader
}

func connect(t *testing.T, addr string) *wire {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &wire{t, c, bufio.NewReader(c)}
}

// say writes a request and reads the answer.
func (w *wire) say(method, path string, headers ...string) (*http.Response, string) {
	w.Helper()
	proto := "HTTP/1.1"
	if method == "OLD" {
		method, proto = "GET", "HTTP/1.0"
	}
	text := method + " " + path + " " + proto + "\r\nUser-Agent: UefiHttpBoot/1.0\r\nAccept: */*\r\n"
	if !strings.Contains(strings.Join(headers, " "), "Host:") {
		text += "Host: 127.0.0.1\r\n" // OVMF leaves the port out
	}
	for _, h := range headers {
		text += h + "\r\n"
	}
	if _, err := io.WriteString(w, text+"\r\n"); err != nil {
		w.Fatal(err)
	}
	r, err := http.ReadResponse(w.in, &http.Request{Method: method})
	if err != nil {
		w.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		w.Fatal(err)
	}
	for name, values := range r.Header {
		for _, v := range values {
			if v == "" {
				w.Errorf("HB-13: the header %s is empty", name)
			}
		}
	}
	return r, string(b)
}

const loaderPath = "/boot/52-54-00-12-34-56/x86_64-uefi/snponly.efi"

// TestHTTPBootConformance has the cases of UEFI HTTP Boot, as EDK2 and shim ask.
func TestHTTPBootConformance(t *testing.T) {
	body := bytes.Repeat([]byte("MZ loader "), 1000)
	addr, file := machinePort(t, body)
	exact := fmt.Sprint(len(body))
	t.Run("HB-01 HEAD tells the exact length and type", func(t *testing.T) {
		r, got := connect(t, addr).say("HEAD", loaderPath)
		if r.StatusCode != 200 || r.Header.Get("Content-Length") != exact || r.Header.Get("Content-Type") != "application/efi" || got != "" {
			t.Errorf("%d %v %q", r.StatusCode, r.Header, got)
		}
	})
	t.Run("HB-02 GET follows on the same connection", func(t *testing.T) {
		w := connect(t, addr)
		w.say("HEAD", loaderPath)
		r, got := w.say("GET", loaderPath)
		if r.StatusCode != 200 || r.Header.Get("Content-Length") != exact || len(r.TransferEncoding) > 0 || r.Header.Get("Content-Encoding") != "" || got != string(body) || r.Close {
			t.Errorf("%d %v, %d bytes", r.StatusCode, r.Header, len(got))
		}
	})
	t.Run("HB-03 the type stands without parameters", func(t *testing.T) {
		if r, _ := connect(t, addr).say("GET", loaderPath); r.Header.Get("Content-Type") != "application/efi" {
			t.Errorf("%q", r.Header.Get("Content-Type"))
		}
	})
	t.Run("HB-04 doubled slashes are no redirect", func(t *testing.T) {
		if r, got := connect(t, addr).say("GET", "/boot/52-54-00-12-34-56/x86_64-uefi//grubx64.efi"); r.StatusCode != 200 || got != string(body) {
			t.Errorf("%d", r.StatusCode)
		}
	})
	t.Run("HB-05 a missing file has a body", func(t *testing.T) {
		w := connect(t, addr)
		for range 2 { // and the connection goes on
			if r, got := w.say("GET", "/boot/52-54-00-12-34-56/x86_64-uefi/revocations_sku.efi"); r.StatusCode != 404 || got == "" || r.Header.Get("Content-Length") != fmt.Sprint(len(got)) {
				t.Errorf("%d %v %q", r.StatusCode, r.Header, got)
			}
		}
	})
	t.Run("HB-06 nothing redirects", func(t *testing.T) {
		for _, path := range []string{"/", "/boot", "/boot/", "/index.html", "/boot/../boot", "//", "/boot/any/any/", "/healthz/"} {
			if r, got := connect(t, addr).say("GET", path); r.StatusCode/100 == 3 || got == "" {
				t.Errorf("%s: %d %q", path, r.StatusCode, got)
			}
		}
	})
	t.Run("HB-07 any Host will do", func(t *testing.T) {
		for _, h := range []string{"Host: 127.0.0.1", "Host: elsewhere.example:99", "Host:"} {
			if r, _ := connect(t, addr).say("GET", loaderPath, h); r.StatusCode != 200 {
				t.Errorf("%s: %d", h, r.StatusCode)
			}
		}
	})
	t.Run("HB-08 a download is resumed", func(t *testing.T) {
		r, _ := connect(t, addr).say("HEAD", file)
		tag := r.Header.Get("ETag")
		r, got := connect(t, addr).say("GET", file, "Range: bytes=100-", "If-Match: "+tag)
		if r.StatusCode != 206 || r.Header.Get("Content-Range") != fmt.Sprintf("bytes 100-%d/%d", len(body)-1, len(body)) || got != string(body[100:]) || strings.HasPrefix(tag, "W/") {
			t.Errorf("%d %v", r.StatusCode, r.Header)
		}
		if r, _ = connect(t, addr).say("GET", file, "Range: bytes=100-", `If-Match: "other"`); r.StatusCode != 412 {
			t.Errorf("of another file: %d", r.StatusCode)
		}
	})
	t.Run("HB-09 nothing is compressed", func(t *testing.T) {
		for _, path := range []string{loaderPath, file} {
			if r, _ := connect(t, addr).say("GET", path, "Accept-Encoding: gzip"); r.Header.Get("Content-Encoding") != "" {
				t.Errorf("%s: %v", path, r.Header)
			}
		}
	})
	t.Run("HB-10 HTTP 1.0", func(t *testing.T) {
		if r, got := connect(t, addr).say("OLD", loaderPath); r.StatusCode != 200 || len(r.TransferEncoding) > 0 || got != string(body) {
			t.Errorf("%d %v", r.StatusCode, r.TransferEncoding)
		}
	})
	t.Run("HB-13 no header is empty", func(t *testing.T) {
		for _, path := range []string{loaderPath, file, "/", "/healthz", "/boot/script?mac=52-54-00-12-34-56&uuid="} {
			connect(t, addr).say("GET", path) // say looks at every header
		}
	})
	t.Run("HB-17 disk images have their types", func(t *testing.T) {
		r, got := connect(t, addr).say("GET", "/boot/52-54-00-12-34-56/x86_64-uefi/boot.iso", "Range: bytes=0-9")
		if r.StatusCode != 206 || r.Header.Get("Content-Type") != "application/vnd.efi-iso" || got != "MZ loader " {
			t.Errorf("%d %v %q", r.StatusCode, r.Header, got)
		}
	})
	t.Run("LB-09 a refused loader sends firmware to its disk", func(t *testing.T) {
		// As it is told the URL of its loader while it is to boot from its disk.
		for _, method := range []string{"HEAD", "GET"} {
			r, got := connect(t, addr).say(method, "/boot/"+installed.Hyphens()+"/x86_64-uefi/snponly.efi")
			if r.StatusCode != 403 || r.ContentLength <= 0 || method == "GET" && !strings.Contains(got, "it is installed") {
				t.Errorf("%s: %d, %d bytes: %q", method, r.StatusCode, r.ContentLength, got)
			}
		}
	})
}

func (f firmware) File(context.Context, lane.RunPath, lane.Facts) (lane.BundleFile, error) {
	return lane.BundleFile{SizeBytes: int64(len(f.body)), Digest: lane.Digest("sha256:" + strings.Repeat("0", 64))}, nil
}
