package bundle

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bootlane/internal/lane"
)

// victimEnv makes the test binary the victim of TestKilledImport.
const victimEnv = "BOOTLANE_TEST_IMPORT"

func TestMain(m *testing.M) {
	if v := os.Getenv(victimEnv); v != "" {
		store, dir, _ := strings.Cut(v, "::")
		s, err := NewStore(store, nil)
		if err == nil {
			_, err = s.Import(context.Background(), dir, anybody)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestLayout: the store is an OCI image layout, read here by nothing but its specification.
func TestLayout(t *testing.T) {
	s := newStore(t, t.TempDir())
	a, _ := imported(t, s, small("a", "1"), map[string]string{"linux": "same kernel", "initrd": "one"})
	before := len(blobsOf(t, s))
	imported(t, s, small("a", "2"), map[string]string{"linux": "same kernel", "initrd": "two"})
	if n := len(blobsOf(t, s)); n != before+3 { // artifact, manifest, initrd; the kernel is shared
		t.Errorf("%d files after the second bundle, %d before", n, before)
	}
	version, err := os.ReadFile(filepath.Join(s.dir, "oci-layout"))
	if err != nil || string(version) != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("oci-layout: %s, %v", version, err)
	}
	var x struct {
		SchemaVersion int
		Manifests     []struct {
			MediaType, Digest string
			Size              int64
			Annotations       map[string]string
		}
	}
	text, err := os.ReadFile(filepath.Join(s.dir, "index.json"))
	must(t, err)
	must(t, json.Unmarshal(text, &x))
	if x.SchemaVersion != 2 || len(x.Manifests) != 2 || x.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != "a-1" {
		t.Fatalf("index.json: %s", text)
	}
	manifest, err := os.ReadFile(filepath.Join(s.blobs(), strings.TrimPrefix(x.Manifests[0].Digest, "sha256:")))
	must(t, err)
	if int64(len(manifest)) != x.Manifests[0].Size || !bytes.Contains(manifest, []byte(`"config":{"mediaType":"application/vnd.bootlane.bundle.manifest.v1+json","digest":"`+string(a.Digest)+`"`)) {
		t.Errorf("the artifact: %s", manifest)
	}
	again := newStore(t, s.dir)
	if got := again.List(); len(got) != 2 || got[0].Ref() != "a-1" || got[0].Digest != a.Digest || len(again.Damaged()) != 0 {
		t.Errorf("opened again: %v, %v", got, again.Damaged())
	}
}

// TestSkopeo: the stock tool of that world copies a bundle out of the store, every blob as it is.
func TestSkopeo(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Fatal("this test needs skopeo: apt-get install skopeo")
	}
	s := newStore(t, t.TempDir())
	imported(t, s, small("a", "1"), map[string]string{"linux": "kernel", "initrd": "one"})
	imported(t, s, small("a", "2"), map[string]string{"linux": "kernel", "initrd": "two"})
	copied := t.TempDir()
	if out, err := exec.Command(skopeo, "copy", "oci:"+s.dir+":a-1", "oci:"+copied+":a-1").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(copied, "blobs", "sha256", "*"))
	must(t, err)
	have := 0
	for _, path := range files {
		data, err := os.ReadFile(path)
		must(t, err)
		if ours, err := os.ReadFile(filepath.Join(s.blobs(), filepath.Base(path))); err == nil && bytes.Equal(ours, data) {
			have++
		}
	}
	if have != 4 { // artifact, manifest, two files
		t.Errorf("%d of %d copied files are ours, want 4", have, len(files))
	}
}

// TestIndexLost: an index that a disk ate is made anew from what is there.
func TestIndexLost(t *testing.T) {
	s := newStore(t, t.TempDir())
	a, _ := imported(t, s, small("a", "1"), map[string]string{"linux": "k", "initrd": "i"})
	must(t, os.WriteFile(filepath.Join(s.dir, "index.json"), []byte("{"), 0o644))
	again := newStore(t, s.dir)
	if got, err := again.Get(a.Digest); err != nil || got.Ref() != "a-1" || len(again.Damaged()) != 1 {
		t.Errorf("%v, %v; %v", got, err, again.Damaged())
	}
}

// TestOneNumber: a version never means other bytes, however it is written.
func TestOneNumber(t *testing.T) {
	s := newStore(t, t.TempDir())
	imported(t, s, small("a", "1"), map[string]string{"linux": "k", "initrd": "i"})
	for _, version := range []string{"1", "01"} {
		dir := folder(t, small("a", version), map[string]string{"linux": "other", "initrd": "i"})
		_, err := Build(t.Context(), dir)
		must(t, err)
		if _, err := s.Import(t.Context(), dir, anybody); lane.CodeOf(err) != lane.Refused || !strings.Contains(err.Error(), "a version never changes") {
			t.Errorf("%s: %v", version, err)
		}
	}
}

// open reads a file of the store as the machines' ports do.
func (s *Store) read(f lane.BundleFile) (string, error) {
	file, err := s.Open(f)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(file)
	return string(data), cmpErr(err, file.Close())
}

// TestChangedUnderTheServer: whatever happens to a file behind our back, its bytes do not
// leave; what only looks changed is hashed and served; an import mends it.
func TestChangedUnderTheServer(t *testing.T) {
	for name, c := range map[string]struct {
		change func(path string) error
		served bool
	}{
		"nothing":      {func(string) error { return nil }, true},
		"a byte":       {func(p string) error { return os.WriteFile(p, []byte("Kernel"), 0o644) }, false},
		"cut off":      {func(p string) error { return os.Truncate(p, 3) }, false},
		"longer":       {func(p string) error { return os.WriteFile(p, []byte("kernel and a rootkit"), 0o644) }, false},
		"gone":         {os.Remove, false},
		"another file": {func(p string) error { return cmpErr(os.WriteFile(p+"x", []byte("Kernel"), 0o644), os.Rename(p+"x", p)) }, false},
		"a link":       {func(p string) error { return cmpErr(os.Rename(p, p+"x"), os.Symlink(p+"x", p)) }, false},
		"its dates set back": {func(p string) error {
			st, err := os.Stat(p)
			if err != nil {
				return err
			}
			return cmpErr(os.WriteFile(p, []byte("Kernel"), 0o644), os.Chtimes(p, st.ModTime(), st.ModTime()))
		}, false},
		"only touched": {func(p string) error { return os.Chtimes(p, time.Unix(1, 0), time.Unix(1, 0)) }, true},
		"copied back":  {func(p string) error { return cmpErr(os.WriteFile(p+"x", []byte("kernel"), 0o644), os.Rename(p+"x", p)) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, t.TempDir())
			b, dir := imported(t, s, small("a", "1"), map[string]string{"linux": "kernel", "initrd": "i"})
			kernel := b.Files["linux"]
			if got, err := s.read(kernel); err != nil || got != "kernel" {
				t.Fatalf("%q, %v", got, err)
			}
			must(t, os.Chmod(s.blob(kernel.Digest), 0o644))
			must(t, c.change(s.blob(kernel.Digest)))
			got, err := s.read(kernel)
			if c.served {
				if err != nil || got != "kernel" {
					t.Errorf("%q, %v", got, err)
				}
				return
			}
			if lane.CodeOf(err) != lane.Unavailable || got != "" {
				t.Fatalf("served %q, %v", got, err)
			}
			if _, err := s.Fsck(t.Context()); err != nil {
				t.Fatal(err)
			}
			if known, err := s.Get(b.Digest); err != nil || !strings.Contains(known.Refusal, "is damaged in the store: linux") {
				t.Errorf("the bundle: %q, %v", known.Refusal, err)
			}
			if _, err := s.Import(t.Context(), dir, anybody); err != nil {
				t.Fatal(err)
			}
			if got, err := s.read(kernel); err != nil || got != "kernel" {
				t.Errorf("imported again: %q, %v", got, err)
			}
			if known, err := s.Get(b.Digest); err != nil || known.Refusal != "" {
				t.Errorf("imported again: %q, %v", known.Refusal, err)
			}
		})
	}
}

// TestFsck: bit rot that nobody asked for is found, told with whom it hits, and set aside.
func TestFsck(t *testing.T) {
	s := newStore(t, t.TempDir())
	a, _ := imported(t, s, small("a", "1"), map[string]string{"linux": "shared", "initrd": "one"})
	imported(t, s, small("b", "1"), map[string]string{"linux": "shared", "initrd": "two"})
	if out, err := s.Fsck(t.Context()); err != nil || len(out.Damaged) != 0 || out.Files != 7 {
		t.Fatalf("%+v, %v", out, err)
	}
	path := s.blob(a.Files["linux"].Digest)
	must(t, os.Chmod(path, 0o644))
	must(t, os.WriteFile(path, []byte("rotten"), 0o644))
	must(t, os.Remove(s.blob(a.Digest)))
	again := newStore(t, s.dir) // which has not verified anything
	for _, s := range []*Store{s, again} {
		if s == again { // of which one bundle cannot even be read
			if len(s.Damaged()) != 1 {
				t.Errorf("%v", s.Damaged())
			}
			continue
		}
		out, err := s.Fsck(t.Context())
		if err != nil || len(out.Damaged) != 2 {
			t.Fatalf("%+v, %v", out, err)
		}
		i := slices.IndexFunc(out.Damaged, func(d lane.BundleDamage) bool { return d.Digest == a.Files["linux"].Digest })
		if i < 0 || len(out.Damaged[i].Bundles) != 2 || !strings.Contains(out.Damaged[i].Problem, "hashes to") {
			t.Errorf("%+v", out.Damaged)
		}
	}
	if _, err := os.Stat(filepath.Join(s.quarantine(), filepath.Base(path))); err != nil {
		t.Errorf("quarantine: %v", err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("it is still served from: %v", err)
	}
}

// TestStartVerifies: after a start, what nobody asked for yet is verified without being asked.
func TestStartVerifies(t *testing.T) {
	s := newStore(t, t.TempDir())
	b, _ := imported(t, s, small("a", "1"), map[string]string{"linux": "kernel", "initrd": "i"})
	must(t, os.Chmod(s.blob(b.Files["linux"].Digest), 0o644))
	must(t, os.WriteFile(s.blob(b.Files["linux"].Digest), []byte("Kernel"), 0o644)) // as a disk might
	again := newStore(t, s.dir)
	if got, err := again.read(b.Files["linux"]); err == nil {
		t.Errorf("served %q", got)
	}
	third := newStore(t, s.dir)
	out, err := third.Run(t.Context())
	if err != nil || len(out.Damaged) != 1 {
		t.Errorf("%+v, %v", out, err)
	}
	if got, err := third.Get(b.Digest); err != nil || got.Refusal == "" {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestManyAskAtOnce: a storm of requests for a file that changed gets no wrong byte.
func TestManyAskAtOnce(t *testing.T) {
	s := newStore(t, t.TempDir())
	b, _ := imported(t, s, small("a", "1"), map[string]string{"linux": strings.Repeat("kernel", 100_000), "initrd": "i"})
	again := newStore(t, s.dir)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if got, err := again.read(b.Files["linux"]); err != nil || len(got) != 600_000 {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
}

// TestCollect: what another bundle needs stays, the rest goes.
func TestCollect(t *testing.T) {
	s := newStore(t, t.TempDir())
	a, _ := imported(t, s, small("a", "1"), map[string]string{"linux": "shared", "initrd": "one"})
	b, _ := imported(t, s, small("b", "1"), map[string]string{"linux": "shared", "initrd": "two"})
	must(t, os.WriteFile(filepath.Join(s.blobs(), strings.Repeat("0", 64)), []byte("left by a crash"), 0o644))
	keep := func(x lane.Bundle) bool { return x.Digest == b.Digest }
	before := len(blobsOf(t, s))
	out, err := s.Collect(keep, true)
	if err != nil || out.Files != 4 || !slices.Equal(out.Bundles, []string{"a-1"}) || len(blobsOf(t, s)) != before || len(s.List()) != 2 {
		t.Fatalf("only asked: %+v, %v", out, err)
	}
	streaming, err := s.Open(a.Files["initrd"])
	must(t, err)
	if out, err = s.Collect(keep, false); err != nil || out.Files != 4 || out.Checked {
		t.Fatalf("%+v, %v", out, err)
	}
	if data, err := io.ReadAll(streaming); err != nil || string(data) != "one" {
		t.Errorf("what was being sent: %q, %v", data, err)
	}
	must(t, streaming.Close())
	if _, err := s.Get(a.Digest); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("it is still there: %v", err)
	}
	if got, err := s.read(b.Files["linux"]); err != nil || got != "shared" {
		t.Errorf("the other's: %q, %v", got, err)
	}
	if again := newStore(t, s.dir); len(again.List()) != 1 || len(again.Damaged()) != 0 {
		t.Errorf("opened again: %v, %v", again.List(), again.Damaged())
	}
}

// TestKilledImport kills an importing process with SIGKILL, later and later: either the
// whole bundle is there, and sound, or nothing of it can be seen.
func TestKilledImport(t *testing.T) {
	dir := folder(t, small("a", "1"), map[string]string{"linux": strings.Repeat("kernel ", 3<<20), "initrd": strings.Repeat("initrd ", 3<<20)})
	_, err := Build(t.Context(), dir)
	must(t, err)
	root := t.TempDir()
	victim := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), victimEnv+"="+root+"::"+dir)
		return cmd
	}
	began := time.Now()
	must(t, victim().Run())
	whole := time.Since(began)
	done, killed := 0, 0
	const rounds = 24
	for round := range rounds {
		cmd := victim()
		must(t, cmd.Start())
		timer := time.AfterFunc(whole*time.Duration(round)/(rounds*2/3), func() { _ = cmd.Process.Kill() }) // may have ended
		if cmd.Wait() == nil {
			done++
		} else {
			killed++
		}
		timer.Stop()
		s := newStore(t, root)
		out, err := s.Fsck(t.Context())
		if err != nil || len(out.Damaged) != 0 || len(s.Damaged()) != 0 {
			t.Fatalf("round %d: %+v, %v, %v", round, out, err, s.Damaged())
		}
		if left, err := filepath.Glob(filepath.Join(s.blobs(), ".import-*")); err != nil || len(left) != 0 {
			t.Fatalf("round %d left %v, %v", round, left, err)
		}
		if n := len(s.List()); n > 1 || n == 1 && len(s.List()[0].Files) != 2 {
			t.Fatalf("round %d: %v", round, s.List())
		}
		if len(s.List()) == 1 { // begin anew
			if _, err := s.Collect(func(lane.Bundle) bool { return false }, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	if killed < 3 {
		t.Errorf("only %d imports were killed", killed)
	}
	t.Logf("%d killed, %d came through", killed, done)
}

// TestFullDisk: an import that does not fit says so, leaves nothing, and harms no other bundle.
func TestFullDisk(t *testing.T) {
	root := t.TempDir()
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatalf("this test mounts a small disk, and needs root: %v", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(root, syscall.MNT_DETACH)) })
	s := newStore(t, root)
	a, _ := imported(t, s, small("a", "1"), map[string]string{"linux": "kernel", "initrd": "i"})
	before := blobsOf(t, s)
	dir := folder(t, small("b", "1"), map[string]string{"initrd": "small enough", "linux": strings.Repeat("kernel ", 1<<20)})
	_, err := Build(t.Context(), dir)
	must(t, err)
	_, err = s.Import(t.Context(), dir, anybody)
	if lane.CodeOf(err) != lane.Unavailable || !strings.Contains(err.Error(), "store linux of b-1: nothing of the bundle is kept: no space left on device") {
		t.Errorf("%v", err)
	}
	if after := blobsOf(t, s); !slices.Equal(before, after) {
		t.Errorf("before %v, after %v", before, after)
	}
	// Not even the index fits.
	filler := filepath.Join(root, "filler")
	_ = os.WriteFile(filler, bytes.Repeat([]byte("x"), 2<<20), 0o644) // until it is full
	dir = folder(t, small("c", "1"), map[string]string{"linux": "", "initrd": ""})
	_, err = Build(t.Context(), dir)
	must(t, err)
	if _, err := s.Import(t.Context(), dir, anybody); lane.CodeOf(err) != lane.Unavailable {
		t.Errorf("%v", err)
	}
	if after := blobsOf(t, s); !slices.Equal(before, after) {
		t.Errorf("before %v, after %v", before, after)
	}
	must(t, os.Remove(filler))
	again := newStore(t, root)
	if got, err := again.read(a.Files["linux"]); err != nil || got != "kernel" || len(again.List()) != 1 {
		t.Errorf("%q, %v", got, err)
	}
}

// TestAdmit: who may say no is asked before a byte is copied.
func TestAdmit(t *testing.T) {
	s := newStore(t, t.TempDir())
	dir := folder(t, small("a", "1"), map[string]string{"linux": "k", "initrd": "i"})
	_, err := Build(t.Context(), dir)
	must(t, err)
	no := lane.Errorf(lane.Refused, "no")
	if _, err := s.Import(t.Context(), dir, func(b lane.Bundle, present bool) error {
		if b.Ref() != "a-1" || present {
			t.Errorf("asked about %v, %v", b, present)
		}
		return no
	}); err != error(no) {
		t.Errorf("%v", err)
	}
	empty(t, s)
}

// TestComplete: files that the store has need not come again; any other that is missing, and
// any that is damaged here, must. Examine looks at what describes the bundle only.
func TestComplete(t *testing.T) {
	s := newStore(t, t.TempDir())
	b, dir := imported(t, s, small("a", "1"), map[string]string{"linux": "kernel", "initrd": "one"})
	must(t, os.Remove(filepath.Join(dir, "linux")))
	if _, err := s.Import(t.Context(), dir, anybody); lane.CodeOf(err) != lane.Invalid {
		t.Errorf("imported by hand without its kernel: %v", err)
	}
	_, err := s.Complete(t.Context(), dir, anybody)
	must(t, err)
	if s.Broken(b.Digest) || s.Broken("sha256:") {
		t.Error("it is broken")
	}
	must(t, os.Remove(s.blob(b.Files["linux"].Digest)))
	if _, err := s.Complete(t.Context(), dir, anybody); lane.CodeOf(err) != lane.Invalid || !strings.Contains(err.Error(), "linux: is missing") {
		t.Errorf("completed without a kernel anywhere: %v", err)
	}
	_, err = s.Fsck(t.Context())
	must(t, err)
	if !s.Broken(b.Digest) {
		t.Error("it is not broken")
	}
	must(t, os.WriteFile(filepath.Join(dir, "linux"), []byte("kernel"), 0o600))
	must(t, os.Remove(filepath.Join(dir, "initrd")))
	if have, err := s.Examine(dir, func(_ lane.Bundle, present bool) error {
		if !present {
			t.Error("it is in the store")
		}
		return nil
	}); err != nil || have.Digest != b.Digest || !s.Broken(b.Digest) {
		t.Errorf("examined: %s, %v", have.Digest, err)
	}
	_, err = s.Complete(t.Context(), dir, anybody)
	must(t, err)
	if s.Broken(b.Digest) {
		t.Error("it is broken still")
	}
	no := lane.Errorf(lane.Refused, "no")
	if _, err := s.Examine(dir, func(lane.Bundle, bool) error { return no }); lane.CodeOf(err) != lane.Refused {
		t.Errorf("examined: %v", err)
	}
}
