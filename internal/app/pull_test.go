package app_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"bootlane/internal/bundle"
	"bootlane/internal/lane"
	"bootlane/internal/nettest"
	"bootlane/internal/registry"
)

// line is the way to a registry, which may end in the middle of a large blob.
type line struct {
	http.Handler
	mu     sync.Mutex
	after  int // bytes of a blob that come; 0: all
	ranges []string
}

func (l *line) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	after := l.after
	if g := r.Header.Get("Range"); g != "" {
		l.ranges = append(l.ranges, g)
	}
	l.mu.Unlock()
	if after > 0 && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
		w = &stuck{w, r.Context(), after}
	}
	l.Handler.ServeHTTP(w, r)
}

func (l *line) cut(after int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.after, l.ranges = after, nil
}

// stuck lets some bytes pass, and then nothing until the client goes.
type stuck struct {
	http.ResponseWriter
	ctx  context.Context
	left int
}

// Unwrap is for [http.ResponseController].
func (s *stuck) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *stuck) Write(b []byte) (int, error) {
	if len(b) > s.left {
		n, err := s.ResponseWriter.Write(b[:s.left])
		s.left -= n
		_ = http.NewResponseController(s.ResponseWriter).Flush()
		<-s.ctx.Done()
		return n, errors.Join(err, io.ErrClosedPipe)
	}
	s.left -= len(b)
	return s.ResponseWriter.Write(b)
}

func push(t *testing.T, ref, dir string) {
	t.Helper()
	f, err := bundle.Open(dir)
	must(t, err)
	manifest, open, err := f.Artifact()
	must(t, err)
	repo, err := registry.Open(ref, registry.Options{PlainHTTP: true})
	must(t, err)
	defer repo.Close()
	_, err = repo.Push(t.Context(), manifest, open)
	must(t, err)
}

// until waits for what another goroutine, or the network, brings about.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for range 600 {
		if done() {
			return
		}
		time.Sleep(50 * time.Millisecond) // it shows in what the server says only
	}
	t.Fatalf("%s: it never came", what)
}

// TestPullThrough: a host's bundle is in the site's registry only. It is fetched, through a
// line that ends in the middle and a restart, verified, and what a machine gets of it is
// what was pushed; a file that rots is mended in mid-install.
func TestPullThrough(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	addr := nettest.Registry(t, "")
	dir := t.TempDir()
	files := map[string]string{"linux": strings.Repeat("kernel", 50_000), "initrd": strings.Repeat("0123456789", 300_000)}
	for name, text := range files {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	must(t, bundle.WriteManifest(dir, bundle.Manifest{Name: "sys", Version: "1-a", OS: "debian", Arch: "x86_64", Seed: lane.SeedNoCloud, BundleVariant: lane.BundleVariant{Kernel: "linux", Initrd: "initrd"}}))
	_, err := bundle.Build(t.Context(), dir)
	must(t, err)
	push(t, addr+"/lab/sys:1-a", dir)
	target, err := url.Parse("http://" + addr)
	must(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.FlushInterval = -1
	way := &line{Handler: proxy, after: 1_500_000}
	server := httptest.NewTLSServer(way)
	t.Cleanup(server.Close)
	at := server.Listener.Addr().String()
	w := &world{T: t, dir: t.TempDir()}
	must(t, os.WriteFile(filepath.Join(w.dir, "ca.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	must(t, os.WriteFile(filepath.Join(w.dir, "config.yaml"), fmt.Appendf(nil, "data: %s/data\nlisten: {operators: \"127.0.0.1:8070\"}\npolicy: {probeEvery: 0s}\nbundles: {registry: \"%s/lab\", registryCA: %s/ca.pem}\nsite: {sshKeys: [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ops@example.org\"]}\nnetworks: [{interface: %s, server: %s, subnet: 192.168.77.0/24, range: 192.168.77.100-192.168.77.199, dns: [192.168.77.1]}]\n",
		w.dir, at, w.dir, nettest.ServerInterface, nettest.Server), 0o600))
	stop := w.start()
	w.enrol("sys-1-a")
	until(t, "a million bytes", func() bool {
		b, err := w.client.Bundle(t.Context(), "sys-1-a")
		return err == nil && b.State == lane.BundleFetching && b.Fetch.Done > 1_000_000 && b.Fetch.Total == 3_300_000
	})
	_, err = w.client.Provision(t.Context(), "node1", lane.Provisioning{})
	if lane.CodeOf(err) != lane.Refused || !strings.Contains(err.Error(), "it is being fetched from "+at+"/lab/sys:1-a, 1") || !strings.Contains(err.Error(), " of 3300000 bytes; try again") {
		t.Errorf("in mid-fetch: %v", err)
	}
	stop()
	noPullLeft(t)
	way.cut(0)
	stop = w.start()
	until(t, "the bundle", func() bool {
		_, err = w.client.Provision(t.Context(), "node1", lane.Provisioning{})
		return err == nil
	})
	way.mu.Lock()
	if len(way.ranges) != 1 || !strings.HasPrefix(way.ranges[0], "bytes=") || way.ranges[0] == "bytes=0-2999999" {
		t.Errorf("after the restart it asked for %q", way.ranges)
	}
	way.mu.Unlock()
	status, script := get(t, scriptURL(nil))
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, script)
	}
	served := func() bool {
		urls := fileURL.FindAllSubmatch(script, -1)
		if len(urls) != 2 {
			t.Fatalf("no installer:\n%s", script)
		}
		for i, name := range []string{"linux", "initrd"} {
			status, body := get(t, string(urls[i][1]))
			if status != http.StatusOK {
				return false
			}
			if !bytes.Equal(body, []byte(files[name])) {
				t.Fatalf("%s has %d other bytes", name, len(body))
			}
		}
		return true
	}
	if !served() {
		t.Error("the files are not served")
	}
	b, err := w.client.Bundle(t.Context(), "sys-1-a")
	must(t, err)
	blob := filepath.Join(w.dir, "data", "bundles", "blobs", "sha256", strings.TrimPrefix(string(b.Files["linux"].Digest), "sha256:"))
	must(t, errors.Join(os.Chmod(blob, 0o644), os.WriteFile(blob, bytes.Repeat([]byte("rotten"), 50_000), 0o600)))
	if served() {
		t.Error("what is rotten was served")
	}
	until(t, "the mended file", served)
	stop()
	must(t, errors.Join(os.Chmod(blob, 0o644), os.WriteFile(blob, bytes.Repeat([]byte("rotten"), 50_000), 0o600)))
	stop = w.start() // which finds it by itself
	until(t, "the file that rotted while nobody looked", func() bool {
		have, err := os.ReadFile(blob)
		return err == nil && string(have) == files["linux"]
	})
	until(t, "what was kept of it to go", func() bool {
		left, err := os.ReadDir(filepath.Join(w.dir, "data", "pull"))
		return err == nil && len(left) == 0
	})
	stop()
	noPullLeft(t)
}

// noPullLeft fails when a goroutine still fetches.
func noPullLeft(t *testing.T) {
	t.Helper()
	stacks := make([]byte, 1<<20)
	for range 100 {
		stacks = stacks[:runtime.Stack(stacks[:cap(stacks)], true)]
		if !bytes.Contains(stacks, []byte("bootlane/internal/pull.")) && !bytes.Contains(stacks, []byte("bootlane/internal/registry.")) {
			return
		}
		time.Sleep(10 * time.Millisecond) // a goroutine ends after it has said so
	}
	t.Errorf("goroutines are left:\n%s", stacks)
}
