package registry_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bootlane/internal/lane"
	"bootlane/internal/nettest"
	"bootlane/internal/registry"
)

const artifactType = "application/vnd.example.bundle.v1"

func digest(b []byte) lane.Digest {
	return lane.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(b)))
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      lane.Digest       `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func describe(name, content string) descriptor {
	return descriptor{"application/octet-stream", digest([]byte(content)), len(content), map[string]string{"org.opencontainers.image.title": name}}
}

// artifact is a manifest with its blobs by digest: a config, files, and a signature.
func artifact(files map[string]string) (manifest lane.Digest, blobs map[lane.Digest]string) {
	config := `{"name":"debian-12"}`
	blobs = map[lane.Digest]string{digest([]byte(config)): config}
	layers := []descriptor{}
	for _, name := range []string{"linux", "initrd", "manifest.json.minisig", "../slip"} {
		if content, ok := files[name]; ok {
			blobs[digest([]byte(content))] = content
			layers = append(layers, describe(name, content))
		}
	}
	text, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": artifactType,
		"config": describe("", config), "layers": layers})
	if err != nil {
		panic(err)
	}
	blobs[digest(text)] = string(text)
	return digest(text), blobs
}

func usual() map[string]string {
	return map[string]string{"linux": strings.Repeat("kernel", 50_000), "initrd": strings.Repeat("0123456789", 100_000), "manifest.json.minisig": "signature"}
}

// layout is one in a directory, with blobs.
func layout(t testing.TB, dir string, blobs map[lane.Digest]string) *registry.Layout {
	t.Helper()
	l, err := registry.NewLayout(dir)
	if err != nil {
		t.Fatal(err)
	}
	for d, content := range blobs {
		if err := os.WriteFile(blob(dir, d), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func blob(dir string, d lane.Digest) string {
	return filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(string(d), "sha256:"))
}

// push pushes an artifact of a layout.
func push(r *registry.Repository, from *registry.Layout, manifest lane.Digest) error {
	f, err := from.Open(manifest)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	have, err := r.Push(context.Background(), text, from.Open)
	if err == nil && have != manifest {
		err = fmt.Errorf("pushed %s, not %s", have, manifest)
	}
	return err
}

// whole says whether a layout has exactly these blobs.
func whole(t testing.TB, dir string, blobs map[lane.Digest]string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "blobs", "sha256"))
	if err != nil || len(entries) != len(blobs) {
		t.Errorf("%d blobs of %d: %v", len(entries), len(blobs), err)
	}
	for d, want := range blobs {
		if got, err := os.ReadFile(blob(dir, d)); err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v", d, len(got), err)
		}
	}
}

func open(t testing.TB, ref string, o registry.Options) *registry.Repository {
	t.Helper()
	r, err := registry.Open(ref, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestDistribution pushes to Debian's docker-registry and pulls again, by tag and by digest.
func TestDistribution(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	ctx, addr := context.Background(), nettest.Registry(t, "")
	manifest, blobs := artifact(usual())
	from := t.TempDir()
	source := layout(t, from, blobs)
	sent := map[string]int64{}
	plain := registry.Options{PlainHTTP: true, Tell: func(name string, done, _ int64) { sent[name] = done }}
	tag := addr + "/lab/bundles:debian-12"
	if err := push(open(t, tag, plain), source, manifest); err != nil {
		t.Fatal(err)
	}
	if sent["initrd"] != 1_000_000 || sent["linux"] != 300_000 {
		t.Errorf("told of %v", sent)
	}
	// What the registry has is not read again: the layout may even have lost it.
	initrd := blob(from, digest([]byte(usual()["initrd"])))
	if err := os.Remove(initrd); err != nil {
		t.Fatal(err)
	}
	if err := push(open(t, addr+"/lab/bundles:again", plain), source, manifest); err != nil {
		t.Errorf("pushed again: %v", err)
	}
	for _, ref := range []string{tag, addr + "/lab/bundles:again", addr + "/lab/bundles@" + string(manifest)} {
		dir := t.TempDir()
		into := layout(t, dir, nil)
		a, err := open(t, ref, plain).Pull(ctx, artifactType, into)
		if err != nil || a.Manifest != manifest || len(a.Layers) != 3 {
			t.Fatalf("%s: %+v, %v", ref, a, err)
		}
		whole(t, dir, blobs)
		files := filepath.Join(t.TempDir(), "bundle")
		if err := into.Unpack(a, files, "manifest.json"); err != nil {
			t.Fatal(err)
		}
		for name, want := range usual() {
			if got, err := os.ReadFile(filepath.Join(files, name)); err != nil || string(got) != want {
				t.Errorf("%s has %d bytes, %v", name, len(got), err)
			}
		}
		if err := into.Unpack(a, files, "manifest.json"); lane.CodeOf(err) != lane.Refused {
			t.Errorf("unpacked over it: %v", err)
		}
	}
	into := layout(t, t.TempDir(), nil)
	for ref, code := range map[string]lane.Code{addr + "/lab/bundles:missing": lane.NotFound, addr + "/lab/nothing:debian-12": lane.NotFound, addr + "/lab/bundles@" + string(digest(nil)): lane.NotFound} {
		if _, err := open(t, ref, plain).Pull(ctx, artifactType, into); lane.CodeOf(err) != code {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if _, err := open(t, tag, plain).Pull(ctx, "application/vnd.other", into); lane.CodeOf(err) != lane.Refused {
		t.Errorf("another type: %v", err)
	}
	if err := push(open(t, addr+"/lab/bundles@"+string(digest(nil)), plain), source, manifest); lane.CodeOf(err) != lane.Invalid {
		t.Errorf("pushed under another digest: %v", err)
	}
	if err := push(open(t, tag, plain), source, digest(nil)); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("what the layout lacks: %v", err)
	}
}

// authority makes a certificate for loopback and its key, in a directory; it is its own CA.
func authority(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "registry"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = dir+"/cert.pem", dir+"/key.pem"
	if err := errors.Join(os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600)); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

const bcryptOfHorse = "$2b$04$906czEFg/jItF0QARYhMsOHQMfTeNvAwJ72SkjAGhIqsYQKYGPPmO"

// TestCredentials: TLS by a CA of one's own, and a login as docker keeps it.
func TestCredentials(t *testing.T) {
	cert, key := authority(t)
	dir := t.TempDir()
	// The password is "horse"; docker-registry takes bcrypt only.
	if err := os.WriteFile(dir+"/htpasswd", []byte("ops:"+bcryptOfHorse+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := nettest.Registry(t, fmt.Sprintf("  tls: {certificate: %s, key: %s}\nauth: {htpasswd: {realm: lab, path: %s/htpasswd}}\n", cert, key, dir))
	manifest, blobs := artifact(usual())
	source := layout(t, t.TempDir(), blobs)
	ca, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	login := func(user string) {
		config := t.TempDir()
		t.Setenv("DOCKER_CONFIG", config)
		if user == "" {
			return
		}
		b, err := json.Marshal(map[string]any{"auths": map[string]any{addr: map[string][]byte{"auth": []byte(user)}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(config+"/config.json", b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, user string
		o          registry.Options
		code       lane.Code
		want       string
	}{
		{"all right", "ops:horse", registry.Options{CA: ca}, "", ""},
		{"no login", "", registry.Options{CA: ca}, lane.Refused, "docker login"},
		{"a wrong password", "ops:mule", registry.Options{CA: ca}, lane.Refused, "docker login"},
		{"an unknown CA", "ops:horse", registry.Options{}, lane.Unavailable, "certificate"},
		{"no TLS", "ops:horse", registry.Options{PlainHTTP: true}, lane.Unavailable, ""},
	} {
		login(c.user)
		err := push(open(t, addr+"/lab/bundles:1", c.o), source, manifest)
		if c.want == "" && c.code == "" && err != nil || c.code != "" && (lane.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := registry.Open(addr+"/lab/bundles:1", registry.Options{CA: []byte("no PEM")}); lane.CodeOf(err) != lane.Invalid {
		t.Errorf("a CA that is none: %v", err)
	}
	for _, ref := range []string{"", "bundles", addr + "/lab/bundles", addr + "/LAB:1", "https://" + addr + "/lab/bundles:1", addr + "/lab/bundles@md5:12"} {
		if _, err := registry.Open(ref, registry.Options{}); lane.CodeOf(err) != lane.Invalid {
			t.Errorf("%q: %v", ref, err)
		}
	}
}

// liar is a registry that answers as a test wants.
type liar struct {
	manifest lane.Digest
	blobs    map[lane.Digest]string
	answer   func(w http.ResponseWriter, r *http.Request, d lane.Digest, content string)
	asked    map[lane.Digest]int
	ranges   []string
}

// ServeHTTP is the part of the distribution API that a pull uses.
func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.URL.Path, "/")
	d := lane.Digest(parts[len(parts)-1])
	if d == "tag" {
		d = l.manifest
	}
	content, ok := l.blobs[d]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Docker-Content-Digest", string(d))
	w.Header().Set("Content-Type", "application/octet-stream")
	if d == l.manifest {
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	}
	if r.Method == http.MethodGet && l.answer != nil {
		l.asked[d]++
		if g := r.Header.Get("Range"); g != "" {
			l.ranges = append(l.ranges, g)
		}
		l.answer(w, r, d, content)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
}

// TestLyingRegistry: nothing that a registry sends is believed.
func TestLyingRegistry(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	initrd := digest([]byte(usual()["initrd"]))
	serve := func(w http.ResponseWriter, r *http.Request, content string) {
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
	}
	only := func(d lane.Digest, lie func(w http.ResponseWriter, r *http.Request, content string)) func(http.ResponseWriter, *http.Request, lane.Digest, string) {
		return func(w http.ResponseWriter, r *http.Request, asked lane.Digest, content string) {
			if asked == d {
				lie(w, r, content)
			} else {
				serve(w, r, content)
			}
		}
	}
	manifest, blobs := artifact(usual())
	slip := usual()
	slip["../slip"] = "out"
	slipped, slippedBlobs := artifact(slip)
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request, lane.Digest, string)
		code   lane.Code
	}{
		"the truth": {nil, ""},
		"other bytes": {only(initrd, func(w http.ResponseWriter, r *http.Request, content string) {
			serve(w, r, strings.Repeat("x", len(content)))
		}), lane.Refused},
		"a bit": {only(initrd, func(w http.ResponseWriter, r *http.Request, content string) {
			serve(w, r, content[:len(content)-1]+"8")
		}), lane.Refused},
		"longer": {only(initrd, func(w http.ResponseWriter, _ *http.Request, content string) { _, _ = w.Write([]byte(content + "more")) }), ""},
		"endless": {only(initrd, func(w http.ResponseWriter, _ *http.Request, _ string) {
			for range 1000 { // 64 MB, for a test that fails
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
			t.Error("the endless blob was taken to its end")
		}), lane.Refused},
		"shorter": {only(initrd, func(w http.ResponseWriter, r *http.Request, content string) { serve(w, r, content[:1000]) }), lane.Unavailable},
		"nothing": {only(initrd, func(w http.ResponseWriter, r *http.Request, _ string) { http.NotFound(w, r) }), lane.NotFound},
		"another manifest": {only(manifest, func(w http.ResponseWriter, r *http.Request, content string) {
			serve(w, r, strings.Replace(content, "linux", "Linux", 1))
		}), lane.Refused},
		"no manifest": {only(manifest, func(w http.ResponseWriter, r *http.Request, content string) {
			serve(w, r, strings.Repeat(" ", len(content)))
		}), lane.Refused},
	} {
		t.Run(name, func(t *testing.T) {
			l := &liar{manifest: manifest, blobs: blobs, answer: c.answer, asked: map[lane.Digest]int{}}
			server := httptest.NewServer(l)
			defer server.Close()
			for _, ref := range []string{":tag", "@" + string(manifest)} {
				dir := t.TempDir()
				into := layout(t, dir, nil)
				_, err := open(t, strings.TrimPrefix(server.URL, "http://")+"/lab/bundles"+ref, registry.Options{PlainHTTP: true}).Pull(context.Background(), artifactType, into)
				if name == "longer" { // Go's client stops where Content-Length says, or the digest tells
					if err == nil {
						whole(t, dir, blobs)
					} else if lane.CodeOf(err) == "" {
						t.Errorf("%s: %v", ref, err)
					}
				} else if lane.CodeOf(err) != c.code {
					t.Errorf("%s: %v, want the code %q", ref, err, c.code)
				}
				if _, serr := os.Stat(blob(dir, manifest)); (serr == nil) != (err == nil) {
					t.Errorf("%s: %v, and the manifest: %v", ref, err, serr)
				}
				if _, serr := os.Stat(blob(dir, initrd)); serr == nil && err != nil {
					t.Errorf("%s: a blob that is none is there", ref)
				}
				if part, err := os.Stat(filepath.Join(dir, ".part-"+strings.TrimPrefix(string(initrd), "sha256:"))); err == nil && part.Size() > 1_000_000 {
					t.Errorf("%s: %d bytes are kept", ref, part.Size())
				}
			}
		})
	}
	l := &liar{manifest: slipped, blobs: slippedBlobs}
	server := httptest.NewServer(l)
	defer server.Close()
	into := layout(t, t.TempDir(), nil)
	a, err := open(t, strings.TrimPrefix(server.URL, "http://")+"/lab/bundles:tag", registry.Options{PlainHTTP: true}).Pull(context.Background(), artifactType, into)
	if err != nil {
		t.Fatal(err)
	}
	if err := into.Unpack(a, filepath.Join(t.TempDir(), "a", "b"), "manifest.json"); lane.CodeOf(err) != lane.Refused {
		t.Errorf("a title that leads out: %v", err)
	}
}

// TestBrokenOff: what has arrived is not fetched again, within a pull and by the next.
func TestBrokenOff(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	manifest, blobs := artifact(usual())
	initrd := digest([]byte(usual()["initrd"]))
	healthy, step := false, 120_000
	l := &liar{manifest: manifest, blobs: blobs, asked: map[lane.Digest]int{}}
	ranges := true
	l.answer = func(w http.ResponseWriter, r *http.Request, d lane.Digest, content string) {
		if d != initrd || healthy {
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
			return
		}
		from := 0
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		if ranges {
			w.Header().Set("Accept-Ranges", "bytes")
			if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
				w.Header().Set("Content-Length", fmt.Sprint(len(content)-from))
				w.WriteHeader(http.StatusPartialContent)
			}
		}
		_, _ = w.Write([]byte(content[from:min(from+step, len(content))])) // and then the line is dead
		if from+step < len(content) {
			panic(http.ErrAbortHandler)
		}
	}
	server := httptest.NewServer(l)
	defer server.Close()
	ref := strings.TrimPrefix(server.URL, "http://") + "/lab/bundles:tag"
	pull := func(into *registry.Layout) error {
		_, err := open(t, ref, registry.Options{PlainHTTP: true}).Pull(context.Background(), artifactType, into)
		return err
	}
	dir := t.TempDir()
	into := layout(t, dir, nil)
	if err := pull(into); lane.CodeOf(err) != lane.Unavailable {
		t.Fatalf("five pieces of nine: %v", err)
	}
	if _, err := os.Stat(blob(dir, manifest)); err == nil {
		t.Error("the artifact is there, and not whole")
	}
	before := l.asked[digest([]byte(usual()["linux"]))]
	if err := pull(into); err != nil {
		t.Fatalf("and the other four: %v", err)
	}
	whole(t, dir, blobs)
	if len(l.ranges) < 8 || l.asked[digest([]byte(usual()["linux"]))] != before {
		t.Errorf("asked for the ranges %q, and for the whole kernel again", l.ranges)
	}
	// A registry without ranges, and a beginning that is rubbish.
	ranges, step = false, 400_000
	for name, part := range map[string]string{"nothing": "", "rubbish": strings.Repeat("rubbish", 100), "too much": strings.Repeat("r", 1_000_001)} {
		dir := t.TempDir()
		into := layout(t, dir, nil)
		if part != "" {
			if err := os.WriteFile(filepath.Join(dir, ".part-"+strings.TrimPrefix(string(initrd), "sha256:")), []byte(part), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		healthy = name != "nothing"
		err := pull(into)
		if healthy && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if healthy = true; err != nil {
			if err = pull(into); err != nil {
				t.Errorf("%s, again: %v", name, err)
			}
		}
		whole(t, dir, blobs)
	}
}

// TestFullDisk: a disk that is full in the middle leaves no artifact, and room brings it.
func TestFullDisk(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=900k"); err != nil {
		t.Fatalf("mount a small disk (as root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	manifest, blobs := artifact(usual())
	server := httptest.NewServer(&liar{manifest: manifest, blobs: blobs})
	defer server.Close()
	repo := open(t, strings.TrimPrefix(server.URL, "http://")+"/lab/bundles:tag", registry.Options{PlainHTTP: true})
	into := layout(t, dir, nil)
	if _, err := repo.Pull(context.Background(), artifactType, into); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("on a full disk: %v", err)
	}
	if _, err := os.Stat(blob(dir, manifest)); err == nil {
		t.Error("the artifact is there, and not whole")
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=9m"); err != nil {
		t.Fatal(err)
	}
	if _, err := repo.Pull(context.Background(), artifactType, into); err != nil {
		t.Fatal(err)
	}
	whole(t, dir, blobs)
}

// TestLayout: a damaged one is not pushed.
func TestLayout(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	manifest, blobs := artifact(usual())
	addr := nettest.Registry(t, "")
	for name, damage := range map[string]func(dir string) error{
		"a manifest": func(dir string) error { return os.WriteFile(blob(dir, manifest), []byte("{}"), 0o600) },
		"a length":   func(dir string) error { return os.Truncate(blob(dir, digest([]byte(usual()["linux"]))), 1000) },
		"a byte": func(dir string) error {
			return os.WriteFile(blob(dir, digest([]byte(usual()["initrd"]))), []byte(strings.Repeat("012345678x", 100_000)), 0o600)
		},
		"a blob": func(dir string) error { return os.Remove(blob(dir, digest([]byte(usual()["linux"])))) },
	} {
		dir := t.TempDir()
		l := layout(t, dir, blobs)
		if err := damage(dir); err != nil {
			t.Fatal(err)
		}
		ref := addr + "/lab/" + strings.ReplaceAll(name, " ", "-") + ":1"
		if err := push(open(t, ref, registry.Options{PlainHTTP: true}), l, manifest); err == nil {
			t.Errorf("%s is damaged, and was pushed", name)
		}
		if _, err := open(t, ref, registry.Options{PlainHTTP: true}).Pull(context.Background(), "", layout(t, t.TempDir(), nil)); lane.CodeOf(err) != lane.NotFound {
			t.Errorf("%s is damaged, and the registry has the artifact: %v", name, err)
		}
	}
	if _, err := registry.NewLayout("/proc/nothing"); err == nil {
		t.Error("a layout where none can be")
	}
}

// BenchmarkDistribution moves an artifact of 200 MB to docker-registry and back; both ends
// hash it, and the disk is as fast as it is.
func BenchmarkDistribution(b *testing.B) {
	b.Setenv("DOCKER_CONFIG", b.TempDir())
	addr := nettest.Registry(b, "")
	const size = 200_000_000
	random := make([]byte, size)
	if _, err := rand.Read(random); err != nil {
		b.Fatal(err)
	}
	manifest, blobs := artifact(map[string]string{"initrd": string(random)})
	from := layout(b, b.TempDir(), blobs)
	n := 0
	b.Run("push", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			n++
			if err := push(open(b, fmt.Sprintf("%s/bench/%d:1", addr, n), registry.Options{PlainHTTP: true}), from, manifest); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("pull", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			if _, err := open(b, fmt.Sprintf("%s/bench/%d:1", addr, n), registry.Options{PlainHTTP: true}).Pull(context.Background(), artifactType, layout(b, b.TempDir(), nil)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// FuzzManifest: whatever a registry calls a manifest, it is refused or well formed.
func FuzzManifest(f *testing.F) {
	manifest, blobs := artifact(usual())
	f.Add([]byte(blobs[manifest]))
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":"sha256:x","size":-1}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := registry.Parse(text, artifactType)
		if err != nil {
			return
		}
		for _, l := range append(a.Layers, a.Config) {
			if _, err := lane.ParseDigest(string(l.Digest)); err != nil || l.Size < 0 {
				t.Errorf("a blob %+v", l)
			}
		}
	})
}
