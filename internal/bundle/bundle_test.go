package bundle

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootlane/internal/iso/isotest"
	"bootlane/internal/lane"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const fullYAML = `# a comment that people keep
name: debian-12
version: 2026-11-a
os: debian
release: bookworm
arch: amd64
seed: nocloud/1
kernel: linux
initrd: initrd
args: console=tty0 console=ttyS0,115200 a<b&c
mirror: http://mirror.example/debian
packages:
  - {url: "https://snapshot.example/debian/20261101T000000Z", date: 2026-11-01, digest: "sha256:1111111111111111111111111111111111111111111111111111111111111111"}
loaders:
  x86_64-bios: undionly.kpxe
  x86_64-uefi: {first: shimx64.efi, second: grubx64.efi, extra: [mmx64.efi], config: [grub.cfg]}
minimumSBAT: {shim: 4, grub: 5}
firstBoot: [setup.sh]
expires: 2027-11-30
sources:
  - {url: "https://deb.debian.org/debian", licence: GPL-2.0-only, files: [linux]}
files:
  notes.txt:
`

// folder makes a bundle's directory.
func folder(t testing.TB, yaml string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	must(t, os.WriteFile(filepath.Join(dir, ManifestName), []byte(yaml), 0o644))
	return dir
}

func fullFolder(t testing.TB) string {
	files := map[string]string{}
	for _, n := range []string{"linux", "initrd", "undionly.kpxe", "shimx64.efi", "grubx64.efi", "mmx64.efi", "notes.txt", "setup.sh"} {
		files[n] = "this is " + n
	}
	return folder(t, fullYAML, files)
}

// small returns bundle.yaml of the simplest bundle there is.
func small(name, version string) string {
	return "name: " + name + "\nversion: \"" + version + "\"\nos: debian\narch: x86_64\nseed: nocloud/1\nkernel: linux\ninitrd: initrd\n"
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestBuild: the same input gives the same bytes, wherever and whenever; what people wrote stays.
func TestBuild(t *testing.T) {
	var first []byte
	for range 2 {
		dir := fullFolder(t)
		f, err := Build(t.Context(), dir)
		must(t, err)
		text, err := os.ReadFile(filepath.Join(dir, CanonicalName))
		must(t, err)
		if !bytes.Equal(text, f.Manifest) || f.Bundle.Digest != digestOf(text) {
			t.Errorf("%s is not the manifest with the digest %s", text, f.Bundle.Digest)
		}
		if first == nil {
			first = text
		} else if !bytes.Equal(first, text) {
			t.Errorf("two builds differ:\n%s\n%s", first, text)
		}
		if yaml, err := os.ReadFile(filepath.Join(dir, ManifestName)); err != nil || string(yaml) != fullYAML {
			t.Errorf("%s was changed, %v:\n%s", ManifestName, err, yaml)
		}
		again, err := Open(dir)
		must(t, err)
		if diff := cmp.Diff(f.Bundle, again.Bundle); diff != "" {
			t.Errorf("what was built is read otherwise (-built +read):\n%s", diff)
		}
		must(t, again.Verify(t.Context()))
	}
	golden := filepath.Join("testdata", "manifest.json")
	if *update {
		must(t, os.WriteFile(golden, first, 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if diff := cmp.Diff(string(want), string(first)); diff != "" {
		t.Errorf("the canonical form has changed: signatures of older bundles would no longer fit (-was +is):\n%s", diff)
	}
}

// TestTree: an installer tree must be an image that can be read.
func TestTree(t *testing.T) {
	dir := folder(t, small("a", "1")+"tree: dvd.iso\nargs: inst.repo={tree}\n", map[string]string{"linux": "k", "initrd": "i", "dvd.iso": "no image"})
	if _, err := Build(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "dvd.iso: ") || !strings.Contains(err.Error(), "no ISO 9660 image") {
		t.Errorf("what is no image: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "dvd.iso"), isotest.Read(t, isotest.ISO(t, isotest.Files(t, map[string]string{"a": "b"}))), 0o644))
	f, err := Build(t.Context(), dir)
	must(t, err)
	must(t, f.Verify(t.Context()))
	if f.Bundle.Tree != "dvd.iso" || f.Bundle.Files["dvd.iso"].Digest == "" {
		t.Errorf("%+v", f.Bundle)
	}
	lost := bytes.Replace(f.Manifest, []byte(`"tree":"dvd.iso"`), []byte(`"tree":"cd.iso"`), 1)
	if _, err := ParseCanonical(lost); err == nil || !strings.Contains(err.Error(), `tree: "cd.iso" is not one of the bundle's files`) {
		t.Errorf("a tree that is not there: %v", err)
	}
}

// TestBuildAnew: a manifest that is the same keeps its signatures, another loses them.
func TestBuildAnew(t *testing.T) {
	dir := folder(t, small("a", "1"), map[string]string{"linux": "k", "initrd": "i"})
	_, err := Build(t.Context(), dir)
	must(t, err)
	sig := filepath.Join(dir, CanonicalName+SignatureExt)
	must(t, os.WriteFile(sig, []byte("sig"), 0o644))
	_, err = Build(t.Context(), dir)
	must(t, err)
	if _, err := os.Stat(sig); err != nil {
		t.Errorf("built again, unchanged: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "linux"), []byte("another"), 0o644))
	_, err = Build(t.Context(), dir)
	must(t, err)
	if _, err := os.Stat(sig); !os.IsNotExist(err) {
		t.Errorf("the signature of other bytes is still there: %v", err)
	}
}

// TestManifestProblems: all of them at once, each with its line and field.
func TestManifestProblems(t *testing.T) {
	_, err := parseManifest("bundle.yaml", []byte(`name: Debian
version: "1"
arch: sparc
seed: kickstart/9
kernel: ../../etc/shadow
initrd: /boot/initrd
args: say "hi" a={tree} b={file:none} c={x} d={
tree: none.iso
expires: tomorrow
minimumSBAT: {shim: 0}
packages: [{url: debian, date: soon, digest: none}]
sources: [{url: "ftp://x/", files: [nothing]}]
loaders: {mips: x.efi, x86_64-uefi: {first: a.efi, config: [../grub.cfg]}}
files: {bundle.yaml: "", manifest.json.minisig: "", linux: "sha256:12"}
`))
	for _, want := range []string{
		`bundle.yaml:1: name: "Debian" must be lower-case`, `os: is missing`, `bundle.yaml:3: arch:`, `bundle.yaml:4: seed: "kickstart/9" is not`,
		`"../../etc/shadow" is not a plain file name`, `"/boot/initrd" is not a plain file name`, `bundle.yaml:7: args:`, `bundle.yaml:9: expires: "tomorrow" is not a date`,
		`minimumSBAT.shim:`, `packages[0].url: "debian" is not`, `packages[0].date: "soon" is not`, `packages[0].digest:`, `sources[0].url:`, `sources[0].licence: is missing`,
		`sources[0].files: "nothing" is not one`, `loaders.mips: is not a platform`, `config: "../grub.cfg" is not`, `"bundle.yaml" is not a plain file name`, `"manifest.json.minisig" is not a plain`, `files: linux: `,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not say %s", err, want)
		}
	}
	for text, want := range map[string]string{
		"name: a\nname: b\n":                             "b:2: name: stands on line 1 already",
		"loaders: {x86_64-uefi: {first: a, thrid: b}}\n": `unknown key "thrid"`,
		"fiels: {}\n":                                    `unknown key "fiels"`,
		"{version: [1], os: {}, kernel: linux}\n":        "b:1: version: a list stands here, text is wanted\n  - b:1: os: a mapping stands here, text is wanted\n",
		"{version: [1], kernel: linux}\n":                "b:1: name: ",
		"firstBoot: setup.sh\n":                          `b:1: firstBoot: text "setup.sh" stands here, a list is wanted`,
		"loaders: {x86_64-uefi: {thrid: b, extra: c}}\n": `loaders.x86_64-uefi.extra: text "c" stands here, a list is wanted`,
	} {
		if _, err := parseManifest("b", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v, want %s", text, err, want)
		}
	}
}

// TestFlatcar: what Ignition reads is a file of the bundle, and only where it is read.
func TestFlatcar(t *testing.T) {
	const flatcar = "name: f\nversion: \"1\"\nos: flatcar\nrelease: 4230.2.4\narch: x86_64\nseed: ignition/1\nkernel: linux\ninitrd: initrd\nmirror: http://m/flatcar\nconfig: machine.bu\n"
	dir := folder(t, flatcar, map[string]string{"linux": "k", "initrd": "i", "machine.bu": "variant: flatcar\n"})
	f, err := Build(t.Context(), dir)
	must(t, err)
	if f.Bundle.Config != "machine.bu" || f.Bundle.Files["machine.bu"].Digest == "" || !bytes.Contains(f.Manifest, []byte(`"config":"machine.bu"`)) {
		t.Errorf("%s", f.Manifest)
	}
	image := strings.NewReplacer("ignition/1", "image/1", "mirror: http://m/flatcar\n", "image: {file: d, compression: zstd, rawDigest: \""+string(digestOf(nil))+"\", rawBytes: 2097152, rootPartLabel: root, config: ignition, configPartLabel: boot}\n").Replace(flatcar)
	if b, err := parseManifest("b", []byte(image)); err != nil || !b.Ignites() || b.Image.ConfigLabel != "boot" {
		t.Errorf("%v: %+v", err, b)
	}
	for _, c := range []struct{ text, old, new, want string }{
		{flatcar, "os: flatcar", "os: debian", `os: "debian" is not one that ignition/1 can install`}, {flatcar, "4230.2.4", "stable", `release: "stable" is not a release of Flatcar`},
		{flatcar, "4230.2.4", "current-2022", "is not a release"}, {flatcar, "mirror: http://m/flatcar\n", "", "mirror: is missing: flatcar-install"}, {flatcar, "x86_64", "i386", "arch: i386 has no release of Flatcar"},
		{flatcar, "config:", "tree: x.iso\nsecurity: http://m/s\nconfig:", "security: is nothing that Flatcar is told"}, {flatcar, "machine.bu", "machine.yaml", "config: \"machine.yaml\" is called neither FILE.bu nor FILE.ign"},
		{flatcar, "ignition/1", "nocloud/1", "config: nobody reads it"}, {image, ", config: ignition, configPartLabel: boot", "", "config: nobody reads it"}, {image, ", configPartLabel: boot", "", "image.configPartLabel: is missing"},
		{image, "config: ignition", "config: combustion", `image.config: "combustion": use cloud-init or ignition`}, {image, "config: ignition, ", "", "image.configPartLabel: is for an image"},
	} {
		if _, err := parseManifest("b", []byte(strings.Replace(c.text, c.old, c.new, 1))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q for %q: %v, want %s", c.new, c.old, err, c.want)
		}
	}
}

// TestTalos: a machine configuration is there, and nothing that Talos is not told.
func TestTalos(t *testing.T) {
	const talos = "name: t\nversion: \"1\"\nos: talos\nrelease: 1.12.0\narch: x86_64\nseed: talos/1\nkernel: linux\ninitrd: initrd\nconfig: worker.yaml\n"
	if b, err := parseManifest("b", []byte(talos)); err != nil || b.Config != "worker.yaml" {
		t.Errorf("%v: %+v", err, b)
	}
	for _, c := range []struct{ old, new, want string }{
		{"config: worker.yaml\n", "", "config: is missing: the machine configuration"}, {"worker.yaml", "worker.bu", `"worker.bu" is called neither FILE.yaml nor FILE.yml`}, {"os: talos", "os: debian", "os: \"debian\" is not one"},
		{"1.12.0", "1.6.4", "release: \"1.6.4\" is not a release"}, {"1.12.0", "latest", "release: \"latest\""}, {"config:", "mirror: http://m/x\nconfig:", "mirror: is nothing that Talos is told"},
		{"config:", "firstBoot: [a.sh]\nconfig:", "firstBoot: Talos runs no scripts"}, {"x86_64", "i386", "arch: i386 has no release of Talos"},
	} {
		if _, err := parseManifest("b", []byte(strings.Replace(talos, c.old, c.new, 1))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q for %q: %v, want %s", c.new, c.old, err, c.want)
		}
	}
}

// TestCanonicalRefused: manifest.json is what Build writes, byte by byte, or nothing.
func TestCanonicalRefused(t *testing.T) {
	dir := fullFolder(t)
	f, err := Build(t.Context(), dir)
	must(t, err)
	text := string(f.Manifest)
	for name, c := range map[string]struct{ text, says string }{
		"a key twice":     {strings.Replace(text, `"os":"debian"`, `"os":"debian","os":"debian"`, 1), "canonical"},
		"blanks":          {strings.Replace(text, `"os":`, `"os": `, 1), "canonical"},
		"another order":   {`{"version":"x",` + text[1:], "canonical"},
		"something after": {text + " ", "canonical"},
		"two documents":   {text + text, "canonical"},
		"an unknown key":  {strings.Replace(text, `"os":`, `"post":"rm","os":`, 1), "unknown field"},
		"a path":          {strings.ReplaceAll(text, `"linux"`, `"../linux"`), "not a plain file name"},
		"no digest":       {strings.Replace(text, string(f.Bundle.Files["linux"].Digest), "", 1), "has no digest"},
		"cut off":         {text[:len(text)/2], "cannot be read"},
		"too large":       {strings.Repeat(" ", maxManifest+1), "the most"},
	} {
		if _, err := ParseCanonical([]byte(c.text)); lane.CodeOf(err) != lane.Invalid || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, os.WriteFile(filepath.Join(dir, ManifestName), []byte(strings.Replace(fullYAML, "bookworm", "trixie", 1)), 0o644))
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), `release: manifest.json says "bookworm", bundle.yaml "trixie"`) {
		t.Errorf("bundle.yaml was changed afterwards: %v", err)
	}
}

// TestImportRefused: whatever is wrong with a directory, all of it is told, and nothing of
// it is in the store afterwards.
func TestImportRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(dir string) error
		says  []string
	}{
		"missing": {func(d string) error { return os.Remove(filepath.Join(d, "linux")) }, []string{"linux: is missing from the directory"}},
		"changed": {func(d string) error { return os.WriteFile(filepath.Join(d, "linux"), []byte("K"), 0o644) }, []string{"linux: the manifest says sha256:", "the file is sha256:"}},
		"longer, and gone": {func(d string) error {
			return cmpErr(os.WriteFile(filepath.Join(d, "linux"), []byte("kernel and more"), 0o644), os.Remove(filepath.Join(d, "initrd")))
		}, []string{"linux: the manifest says", "initrd: is missing"}},
		"extra": {func(d string) error { return os.WriteFile(filepath.Join(d, "rootkit"), nil, 0o644) }, []string{"rootkit: is in the directory, and the manifest does not name it"}},
		"a link": {func(d string) error {
			return cmpErr(os.Rename(filepath.Join(d, "linux"), filepath.Join(d, ".k")), os.Symlink(".k", filepath.Join(d, "linux")))
		}, []string{"linux: is a symbolic link"}},
		"a pipe": {func(d string) error {
			return cmpErr(os.Remove(filepath.Join(d, "linux")), syscall.Mkfifo(filepath.Join(d, "linux"), 0o644))
		}, []string{"linux: is not a plain file"}},
		"a directory": {func(d string) error {
			return cmpErr(os.Remove(filepath.Join(d, "linux")), os.Mkdir(filepath.Join(d, "linux"), 0o755))
		}, []string{"linux: is not a plain file"}},
		"manifest linked": {func(d string) error {
			return cmpErr(os.Rename(filepath.Join(d, CanonicalName), filepath.Join(d, ".m")), os.Symlink(".m", filepath.Join(d, CanonicalName)))
		}, []string{"is a symbolic link"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, small("a", "1"), map[string]string{"linux": "kernel", "initrd": "initrd"})
			_, err := Build(t.Context(), dir)
			must(t, err)
			must(t, c.spoil(dir))
			s := newStore(t, t.TempDir())
			_, err = s.Import(t.Context(), dir, anybody)
			if lane.CodeOf(err) != lane.Invalid {
				t.Fatalf("%v", err)
			}
			for _, want := range c.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v does not say %q", err, want)
				}
			}
			empty(t, s)
		})
	}
}

func cmpErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func anybody(lane.Bundle, bool) error { return nil }

func newStore(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := NewStore(dir, nil)
	must(t, err)
	return s
}

// empty expects a store without bundles and without a file of one.
func empty(t *testing.T, s *Store) {
	t.Helper()
	if n := len(blobsOf(t, s)); n != 0 || len(s.List()) != 0 {
		t.Errorf("%d files and %d bundles are in the store", n, len(s.List()))
	}
}

func blobsOf(t testing.TB, s *Store) []string {
	t.Helper()
	list, err := os.ReadDir(s.blobs())
	must(t, err)
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

// imported builds and imports a bundle.
func imported(t testing.TB, s *Store, yaml string, files map[string]string) (lane.Bundle, string) {
	t.Helper()
	dir := folder(t, yaml, files)
	_, err := Build(t.Context(), dir)
	must(t, err)
	b, err := s.Import(t.Context(), dir, anybody)
	must(t, err)
	return b, dir
}

// FuzzManifest: no bundle.yaml panics, and one that is good survives its canonical form.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(fullYAML))
	f.Add([]byte(small("a", "1")))
	f.Add([]byte(severalYAML))
	f.Add([]byte("loaders: {x: [1]}"))
	f.Add([]byte("expires: 2027-01-01T00:00:00+14:00\nfiles: {a: }"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := parseManifest("bundle.yaml", data)
		if err != nil {
			return
		}
		for _, name := range slices.Collect(maps.Keys(b.Files)) {
			b.Files[name] = lane.BundleFile{Digest: digestOf(nil)}
			if strings.ContainsAny(name, "/\x00") || filepath.Base(name) != name {
				t.Fatalf("%q is no name within a directory", name)
			}
		}
		for _, v := range b.Views() {
			if v.Image != nil && v.Image.Compression == "none" {
				v.Image.RawDigest = digestOf(nil)
			}
		}
		text, d, err := canonical(b)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseCanonical(text)
		if err != nil || got.Digest != d {
			t.Fatalf("%s\nis not its own canonical form: %v", text, err)
		}
	})
}

// FuzzCanonical: what is taken for a manifest is written again the same.
func FuzzCanonical(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "manifest.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte(`{"name":"a"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ParseCanonical(data)
		if err != nil {
			return
		}
		if text, _, err := canonical(b); err != nil || !bytes.Equal(text, data) {
			t.Fatalf("%s became %s, %v", data, text, err)
		}
	})
}

// FuzzUnpack: an artifact that anybody wrote is read without a panic.
func FuzzUnpack(f *testing.F) {
	text, _, err := pack(Folder{Bundle: lane.Bundle{Name: "a", Digest: digestOf(nil), Files: map[string]lane.BundleFile{"linux": {Digest: digestOf(nil)}}}, Signatures: map[string][]byte{"s": nil}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, data []byte) {
		if a, signatures, err := unpack(data); err == nil && len(signatures) > len(a.Layers) {
			t.Fatal("more signatures than layers")
		}
	})
}

// TestExpiryForms: a day and a moment.
func TestExpiryForms(t *testing.T) {
	for text, want := range map[string]time.Time{"2027-05-31": time.Date(2027, 5, 31, 0, 0, 0, 0, time.UTC), "2027-05-31T12:00:00+02:00": time.Date(2027, 5, 31, 10, 0, 0, 0, time.UTC)} {
		b, err := parseManifest("b", []byte(small("a", "1")+"expires: "+text+"\n"))
		if err != nil || !b.Expires.Equal(want) || b.Expires.Location() != time.UTC {
			t.Errorf("%s: %v, %v", text, b.Expires, err)
		}
	}
}
