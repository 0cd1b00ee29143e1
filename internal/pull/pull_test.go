package pull_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bootlane/internal/bundle"
	"bootlane/internal/lane"
	"bootlane/internal/pull"
	"bootlane/internal/registry"
)

// site is a registry with one bundle in it, sys:1, and a place for what comes.
type site struct {
	*testing.T
	folder   bundle.Folder
	manifest []byte
	open     func(lane.Digest) (io.ReadCloser, error)
	dir      string

	conns atomic.Int64 // connections

	mu     sync.Mutex
	asked  []string // blobs, by the beginning of what they hold
	ranges []string
	lie    func(w http.ResponseWriter, r *http.Request, blob []byte) bool
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newSite(t *testing.T) (*site, *pull.Source) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	s := &site{T: t, dir: filepath.Join(t.TempDir(), "pull")}
	dir := t.TempDir()
	for name, text := range map[string]string{"linux": strings.Repeat("kernel", 50_000), "initrd": strings.Repeat("0123456789", 100_000),
		bundle.ManifestName: "name: sys\nversion: \"1\"\nos: debian\narch: x86_64\nseed: nocloud/1\nkernel: linux\ninitrd: initrd\n"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	_, err := bundle.Build(t.Context(), dir)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, bundle.CanonicalName+bundle.SignatureExt), []byte("a signature"), 0o600))
	s.folder, err = bundle.Open(dir)
	must(t, err)
	s.manifest, s.open, err = s.folder.Artifact()
	must(t, err)
	server := httptest.NewUnstartedServer(s)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			s.conns.Add(1)
		case http.StateClosed:
			s.conns.Add(-1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	source, err := pull.New(pull.Config{Registry: strings.TrimPrefix(server.URL, "http://") + "/lab", Options: registry.Options{PlainHTTP: true}, Dir: s.dir, Patience: 2 * time.Second})
	must(t, err)
	return s, source
}

// ServeHTTP is what a pull uses of the distribution API.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	repo, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/lab/"), "/")
	if repo != "sys" || name == "manifests/2" {
		http.NotFound(w, r)
		return
	}
	if strings.HasPrefix(name, "manifests/") {
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		d := fmt.Sprintf("sha256:%x", sha256.Sum256(s.manifest))
		w.Header().Set("Docker-Content-Digest", d)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(s.manifest)))
		return
	}
	in, err := s.open(lane.Digest(filepath.Base(name)))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	blob, err := io.ReadAll(in)
	must(s.T, errors.Join(err, in.Close()))
	s.mu.Lock()
	s.asked = append(s.asked, string(blob[:6]))
	if g := r.Header.Get("Range"); g != "" {
		s.ranges = append(s.ranges, g)
	}
	lie := s.lie
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/octet-stream")
	if lie == nil || !lie(w, r, blob) {
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(blob)))
	}
}

func (s *site) asks(blob string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asked {
		if a == blob {
			n++
		}
	}
	return n
}

func all(lane.BundleFile) bool { return true }

// fetched is one attempt, as the server makes it.
func (s *site) fetched(source *pull.Source, lacks func(lane.BundleFile) bool) (string, int64, error) {
	ctx := context.Background()
	o, err := source.Find(ctx, "sys", "1")
	if err != nil {
		return "", 0, err
	}
	defer o.Close()
	if _, err := o.Describe(ctx); err != nil {
		return "", 0, err
	}
	last := int64(-1)
	dir, err := o.Fetch(ctx, lacks, func(done, total int64) {
		if last = done; total != 1_300_000 {
			s.Errorf("%d of %d bytes", done, total)
		}
	})
	return dir, last, err
}

// same compares what came with what was pushed.
func (s *site) same(dir string, names ...string) {
	s.Helper()
	for _, n := range append(names, bundle.CanonicalName, bundle.CanonicalName+bundle.SignatureExt) {
		want, err := os.ReadFile(filepath.Join(s.folder.Dir, n))
		must(s.T, err)
		if got, err := os.ReadFile(filepath.Join(dir, n)); err != nil || string(got) != string(want) {
			s.Errorf("%s: %d bytes, %v", n, len(got), err)
		}
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != len(names)+2 {
		s.Errorf("%v, %v", list, err)
	}
}

// TestDescribedFirst: what describes a bundle comes alone, then what is lacking.
func TestDescribedFirst(t *testing.T) {
	s, source := newSite(t)
	o, err := source.Find(t.Context(), "sys", "1")
	must(t, err)
	if o.Digest() != s.folder.Bundle.Digest || !strings.Contains(o.From(), "/lab/sys@sha256:") {
		t.Errorf("%s from %s", o.Digest(), o.From())
	}
	dir, err := o.Describe(t.Context())
	must(t, err)
	o.Close()
	s.same(dir)
	if s.asks("kernel") > 0 || s.asks("012345") > 0 {
		t.Errorf("asked for %v", s.asked)
	}
	dir, done, err := s.fetched(source, func(f lane.BundleFile) bool { return f.SizeBytes == 300_000 })
	must(t, err)
	s.same(dir, "linux")
	if s.asks("012345") > 0 || done != 1_300_000 {
		t.Errorf("asked for %v, %d bytes", s.asked, done)
	}
	must(t, source.Keep([]string{"sys-1"}))
	s.same(dir, "linux")
	must(t, source.Keep(nil))
	if list, err := os.ReadDir(s.dir); err != nil || len(list) > 0 {
		t.Errorf("kept %v, %v", list, err)
	}
	if _, err := source.Find(t.Context(), "sys", "2"); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("no such version: %v", err)
	}
	if _, err := source.Find(t.Context(), "..", "x"); lane.CodeOf(err) != lane.Invalid {
		t.Errorf("no such name: %v", err)
	}
}

// TestBrokenOff: what has come is continued by the next attempt, of another process too.
func TestBrokenOff(t *testing.T) {
	s, source := newSite(t)
	s.lie = func(w http.ResponseWriter, r *http.Request, blob []byte) bool {
		if len(blob) != 1_000_000 {
			return false
		}
		from := 0
		w.Header().Set("Content-Length", "1000000")
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-999999/1000000", from))
			w.Header().Set("Content-Length", fmt.Sprint(1_000_000-from))
			w.WriteHeader(http.StatusPartialContent)
		}
		w.Header().Set("Accept-Ranges", "bytes")
		_, _ = w.Write(blob[from:min(from+100_000, len(blob))])
		panic(http.ErrAbortHandler)
	}
	_, done, err := s.fetched(source, all)
	if lane.CodeOf(err) != lane.Unavailable || done < 500_000 {
		t.Fatalf("%d bytes, %v", done, err)
	}
	s.mu.Lock()
	s.lie, s.ranges = nil, nil
	s.mu.Unlock()
	dir, _, err := s.fetched(source, all)
	must(t, err)
	s.same(dir, "linux", "initrd")
	if len(s.ranges) != 1 || s.ranges[0] < "bytes=500000-" || s.asks("kernel") != 1 {
		t.Errorf("ranges %q, the kernel %d times", s.ranges, s.asks("kernel"))
	}
}

// TestLies: a registry that sends other bytes, more files, or nothing at all.
func TestLies(t *testing.T) {
	for name, c := range map[string]struct {
		lie  func(w http.ResponseWriter, r *http.Request, blob []byte) bool
		with func(s *site)
		code lane.Code
		says string
	}{
		"other bytes": {lie: func(w http.ResponseWriter, r *http.Request, blob []byte) bool {
			if len(blob) == 1_000_000 {
				http.ServeContent(w, r, "", time.Time{}, strings.NewReader(strings.Repeat("x", len(blob))))
			}
			return len(blob) == 1_000_000
		}, code: lane.Refused, says: "it is not kept"},
		"another manifest": {lie: func(w http.ResponseWriter, r *http.Request, blob []byte) bool {
			if blob[0] == '{' {
				http.ServeContent(w, r, "", time.Time{}, strings.NewReader(strings.ToUpper(string(blob))))
			}
			return blob[0] == '{'
		}, code: lane.Refused, says: "it is not kept"},
		"silence": {lie: func(w http.ResponseWriter, r *http.Request, blob []byte) bool {
			if len(blob) == 1_000_000 {
				w.Header().Set("Content-Length", "1000000")
				_, _ = w.Write(blob[:300_000])
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}
			return len(blob) == 1_000_000
		}, code: lane.Unavailable, says: "nothing came for 2s"},
		"more files": {with: func(s *site) {
			s.manifest = []byte(strings.Replace(string(s.manifest), `"layers":[`, `"layers":[{"mediaType":"x","digest":"sha256:`+strings.Repeat("0", 64)+`","size":99999999999,"annotations":{"org.opencontainers.image.title":"more"}},`, 1))
		}, code: lane.Refused, says: "the artifact has the file more"},
		"a larger file": {with: func(s *site) {
			s.manifest = []byte(strings.Replace(string(s.manifest), `"size":1000000,`, `"size":1000000000,`, 1))
		}, code: lane.Refused, says: "of 1000000000 bytes, and the manifest of sys-1 has not"},
		"a huge signature": {with: func(s *site) {
			s.manifest = []byte(strings.Replace(string(s.manifest), `"size":11,`, `"size":1000000000,`, 1))
		}, code: lane.Refused, says: "signatures than any bundle"},
		"fewer files": {with: func(s *site) {
			s.manifest = []byte(strings.Replace(string(s.manifest), `"initrd"`, `"manifest.json.initrd.minisig"`, 1))
		}, code: lane.Refused, says: "the artifact has 1 files of the 2"},
	} {
		t.Run(name, func(t *testing.T) {
			s, source := newSite(t)
			s.lie = c.lie
			if c.with != nil {
				was := string(s.manifest)
				if c.with(s); string(s.manifest) == was {
					t.Fatal("that is no lie")
				}
			}
			dir, _, err := s.fetched(source, all)
			if lane.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v, want %s that says %q", dir, err, c.code, c.says)
			}
			if _, err := os.Stat(filepath.Join(s.dir, "sys-1", "bundle")); err == nil {
				t.Error("it has arrived")
			}
		})
	}
}

// TestClosed: what was opened to the registry is closed, however a fetch ended.
func TestClosed(t *testing.T) {
	s, source := newSite(t)
	_, _, err := s.fetched(source, all)
	must(t, err)
	if _, err := source.Find(t.Context(), "sys", "2"); err == nil {
		t.Error("no such version")
	}
	for range 100 {
		if s.conns.Load() == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond) // the other end notices a moment later
	}
	t.Errorf("%d connections are open", s.conns.Load())
}

// TestNoRoom: what the disk has no room for is not begun, for the database is on it.
func TestNoRoom(t *testing.T) {
	s, source := newSite(t)
	must(t, os.MkdirAll(s.dir, 0o755))
	if err := syscall.Mount("tmpfs", s.dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatalf("mount a small disk (as root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(s.dir, 0); err != nil {
			t.Error(err)
		}
	})
	_, _, err := s.fetched(source, all)
	if lane.CodeOf(err) != lane.Unavailable || !strings.Contains(err.Error(), "it needs 2600011 bytes on the disk of "+s.dir) || s.asks("012345") > 0 {
		t.Errorf("on a small disk: %v", err)
	}
	must(t, syscall.Mount("tmpfs", s.dir, "tmpfs", syscall.MS_REMOUNT, "size=9m"))
	dir, _, err := s.fetched(source, all)
	must(t, err)
	s.same(dir, "linux", "initrd")
}

// TestOtherTag: what a tag meant before does not stay on the disk.
func TestOtherTag(t *testing.T) {
	s, source := newSite(t)
	old := filepath.Join(s.dir, "sys-1", "blobs", "sha256", strings.Repeat("0", 64))
	must(t, os.MkdirAll(filepath.Dir(old), 0o755))
	begun := filepath.Join(s.dir, "sys-1", ".part-"+strings.Repeat("1", 64))
	must(t, errors.Join(os.WriteFile(old, nil, 0o600), os.WriteFile(begun, nil, 0o600)))
	dir, _, err := s.fetched(source, all)
	must(t, err)
	s.same(dir, "linux", "initrd")
	for _, path := range []string{old, begun} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
}

// TestRegistryNamed: what is no place in a registry is refused, and what to write is told.
func TestRegistryNamed(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	for _, name := range []string{"", "reg.example", "https://reg.example/lab", "reg.example/lab:1", "reg.example/LAB", "/lab", "reg.example/"} {
		if _, err := pull.New(pull.Config{Registry: name}); lane.CodeOf(err) != lane.Invalid {
			t.Errorf("%q: %v", name, err)
		}
	}
	s, err := pull.New(pull.Config{Registry: "reg.example:5000/a/b"})
	if err != nil || s.Reference("sys", "1") != "reg.example:5000/a/b/sys:1" {
		t.Errorf("%v", err)
	}
}
