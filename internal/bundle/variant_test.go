package bundle

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootlane/internal/iso/isotest"
	"bootlane/internal/lane"
)

const severalYAML = `name: debian-12
version: 2026-11-a
os: debian
release: bookworm
seed: nocloud/1
args: quiet
mirror: http://mirror.example/debian
architectures:
  x86_64: {kernel: linux, initrd: initrd.gz}
  arm64:
    kernel: linux-arm64
    initrd: initrd-arm64.gz
    args: console=ttyAMA0 url={file:live.iso} inst.repo={tree}
    tree: live.iso
loaders:
  x86_64-uefi: {first: ipxe.efi, imageTrust: true}
`

// severalFolder makes the directory of a bundle for two architectures.
func severalFolder(t *testing.T) string {
	files := map[string]string{"live.iso": string(isotest.Read(t, isotest.ISO(t, isotest.Files(t, map[string]string{"a": "b"}))))}
	for _, n := range []string{"linux", "initrd.gz", "linux-arm64", "initrd-arm64.gz", "ipxe.efi", "linux.sig", "initrd.gz.sig", "linux-arm64.sig", "initrd-arm64.gz.sig"} {
		files[n] = "this is " + n
	}
	return folder(t, severalYAML, files)
}

// TestBuildSeveral: one bundle, one manifest, and each architecture has its own of it.
func TestBuildSeveral(t *testing.T) {
	dir := severalFolder(t)
	f, err := Build(t.Context(), dir)
	must(t, err)
	again, err := Open(dir)
	must(t, err)
	if diff := cmp.Diff(f.Bundle, again.Bundle); diff != "" {
		t.Errorf("what was built is read otherwise (-built +read):\n%s", diff)
	}
	must(t, again.Verify(t.Context()))
	head := `{"architectures":{"arm64":{"args":"console=ttyAMA0 url={file:live.iso} inst.repo={tree}","initrd":"initrd-arm64.gz","kernel":"linux-arm64","tree":"live.iso"},` +
		`"x86_64":{"initrd":"initrd.gz","kernel":"linux"}},"args":"quiet","files":{"initrd-arm64.gz":`
	if !bytes.HasPrefix(f.Manifest, []byte(head)) || bytes.Contains(f.Manifest, []byte(`"arch":`)) {
		t.Errorf("the canonical form is\n%s", f.Manifest)
	}
	s := newStore(t, t.TempDir())
	b, err := s.Import(t.Context(), dir, anybody)
	must(t, err)
	if got := b.Archs(); !slices.Equal(got, []string{"arm64", "x86_64"}) || len(b.Files) != 10 {
		t.Errorf("for %q, of %q", got, slices.Sorted(maps.Keys(b.Files)))
	}
	for name, says := range map[string]string{
		"linux-arm64.sig": "linux-arm64.sig: is missing: imageTrust of a loader wants kernel and initrd signed",
		"initrd-arm64.gz": "initrd-arm64.gz: is missing from the directory",
		"live.iso":        "live.iso: is missing from the directory",
	} {
		dir := severalFolder(t)
		must(t, os.Remove(filepath.Join(dir, name)))
		if _, err := Build(t.Context(), dir); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v\ndoes not say %q", err, says)
		}
	}
	must(t, os.WriteFile(filepath.Join(dir, "live.iso"), []byte("no image"), 0o644))
	if _, err := Build(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "live.iso: ") || !strings.Contains(err.Error(), "no ISO 9660 image") {
		t.Errorf("a tree of one architecture that is no image: %v", err)
	}
}

// TestShortFormStays: the digest of a bundle for one architecture is what it was before
// there were others, or its signatures would no longer fit.
func TestShortFormStays(t *testing.T) {
	yaml := small("one", "1") + "args: inst.repo={tree}\ntree: dvd.iso\nmirror: http://m/debian\nsecurity: http://s/debian\n"
	image := strings.Replace(small("two", "1"), "nocloud/1", "image/1", 1) + "image: {file: disk, compression: none, rawDigest: \"" + string(zeros) + "\", rawBytes: 2097152, rootPartLabel: root}\n"
	for want, text := range map[lane.Digest]string{
		"sha256:ff68044d572c894ded86ed8b9d5412936fec40904a5d55fd47a8acd074ece237": yaml,
		"sha256:27f22e4935e2d0c2323e0b6d6e78cb896c25db76178320f4489aaa80ad49b174": image,
	} {
		b, err := parseManifest(ManifestName, []byte(text))
		must(t, err)
		for n := range b.Files {
			b.Files[n] = lane.BundleFile{Digest: zeros, SizeBytes: 1}
		}
		if manifest, d, err := canonical(b); err != nil || d != want {
			t.Errorf("%s, %v, not %s:\n%s", d, err, want, manifest)
		}
	}
}

const zeros lane.Digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

// TestArchitectureProblems: all of them at once, each with its line and field.
func TestArchitectureProblems(t *testing.T) {
	const head = "name: a\nversion: \"1\"\nos: debian\nrelease: bookworm\n" // 4 lines
	for name, c := range map[string]struct {
		text string
		says []string // each a whole problem's beginning
	}{
		"both forms": {"seed: nocloud/1\narch: x86_64\nkernel: linux\ninitrd: initrd\ntree: dvd.iso\nimage: {file: disk}\narchitectures:\n  arm64: {kernel: linux, initrd: initrd}\n", []string{
			"b:6: arch: stands beside `architectures`, whose keys say it", "b:7: kernel: stands beside `architectures`, where each has its own: move it there",
			"b:8: initrd: stands beside", "b:9: tree: stands beside", "b:10: image: stands beside"}},
		"empty":             {"seed: nocloud/1\narchitectures: {}\n", []string{"b:6: architectures: is empty"}},
		"nothing behind it": {"seed: nocloud/1\narch: x86_64\nkernel: linux\ninitrd: initrd\narchitectures:\n", []string{"b:6: arch: stands beside", "b:7: kernel: stands beside", "b:8: initrd: stands beside", "b:9: architectures: is empty"}},
		"within": {"seed: nocloud/1\narchitectures:\n  arm64:\n    initrd: ../i\n    args: \"'\"\n    tree: ../t\n  x86_64:\n    kernel: linux\n", []string{
			`b:7: architectures.arm64.kernel: "" is not one of the bundle's files`, `b:1: files: "../i" is not a plain file name`, `b:1: files: "../t" is not a plain file name`,
			"b:9: architectures.arm64.args: kernel arguments are plain ASCII", `b:11: architectures.x86_64.initrd: "" is not one`}},
		"nothing of one": {"seed: nocloud/1\narchitectures:\n  arm64:\n", []string{"b:7: architectures.arm64.kernel:", "b:7: architectures.arm64.initrd:"}},
		"names": {"seed: nocloud/1\narchitectures:\n  amd64: {kernel: k, initrd: i}\n  x86_64: {kernel: k, initrd: i}\n  vax: {kernel: k, initrd: i}\n", []string{
			"b:7: architectures.amd64: is called x86_64 here", `b:9: architectures.vax: "vax" is not an architecture`}},
		"arguments for all": {"seed: nocloud/1\nargs: a || b={tree}\nmirror: \"\\u0007\"\narchitectures:\n  arm64: {kernel: k, initrd: i, tree: t.iso}\n  x86_64: {kernel: k, initrd: i}\n", []string{
			`b:6: args: "||" ends a command for iPXE`, "b:7: mirror: has characters", "b:10: architectures.x86_64.args: {tree}: the bundle has none"}},
		"mirrors": {"seed: debian-preseed/1\narchitectures:\n  arm64: {kernel: k, initrd: i, mirror: http://m/arm}\n  x86_64: {kernel: k, initrd: i}\n", []string{"b:8: architectures.x86_64.mirror: is missing"}},
		"images": {"seed: image/1\narchitectures:\n  arm64: {kernel: k, initrd: i, image: {file: d, config: cloudinit, compression: lz4, rawDigest: \"" + string(zeros) + "\", rawBytes: 2097152, rootPartLabel: root}}\n  x86_64: {kernel: k, initrd: i}\n", []string{
			`b:7: architectures.arm64.image.compression: "lz4"`, `b:7: architectures.arm64.image.config: "cloudinit": use cloud-init`, "b:8: architectures.x86_64.image: is missing"}},
		"an unknown key": {"seed: nocloud/1\narchitectures:\n  arm64: {kernel: k, initrd: i, kernal: x}\n", []string{`b:7: unknown key "kernal"`}},
		"a file for it":  {"seed: nocloud/1\narchitectures: {arm64: linux}\n", []string{`b:6: architectures.arm64: `}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseManifest("b", []byte(head+c.text))
			if err == nil {
				t.Fatal("taken")
			}
			problems := strings.Split(err.Error(), "\n  - ")[1:]
			for _, want := range c.says {
				if !slices.ContainsFunc(problems, func(p string) bool { return strings.HasPrefix(p, want) }) {
					t.Errorf("nobody says %q", want)
				}
			}
			if len(problems) != len(c.says) {
				t.Errorf("%d problems, not %d:\n%s", len(problems), len(c.says), strings.Join(problems, "\n"))
			}
		})
	}
}

// TestKickstartProblems: what Anaconda cannot be fed with is refused when the bundle is built.
func TestKickstartProblems(t *testing.T) {
	const head, sound = "name: a\nversion: \"1\"\nseed: kickstart/1\n", "arch: x86_64\nkernel: k\ninitrd: i\ntree: dvd.iso\n" // the head has 3 lines
	for text, want := range map[string]string{
		"os: rocky\nrelease: \"9.6\"\n" + sound:                                                             "",
		"os: fedora\nrelease: \"42\"\n" + sound:                                                             "",
		"os: centos\nrelease: \"9\"\n" + sound:                                                              `b:4: os: "centos" is not one that kickstart/1 can install: use one of rhel, rocky, almalinux, fedora`,
		"os: rocky\nrelease: \"9\"\n" + sound:                                                               `b:5: release: "9" is not a release that kickstart/1 can install: a minor one of 8, 9 or 10, such as 9.6`,
		"os: rhel\nrelease: \"7.9\"\n" + sound:                                                              `b:5: release: "7.9" is not a release`,
		"os: rhel\nrelease: \"11.0\"\n" + sound:                                                             `b:5: release: "11.0" is not a release`,
		"os: rhel\n" + sound:                                                                                `release: "" is not a release`,
		"os: fedora\nrelease: \"39\"\n" + sound:                                                             `b:5: release: "39" is not a release of Fedora that kickstart/1 can install: a number from 40 on`,
		"os: fedora\nrelease: rawhide\n" + sound:                                                            `b:5: release: "rawhide" is not`,
		"os: rhel\nrelease: \"9.6\"\nsecurity: h\n" + sound:                                                 "b:6: security: is nothing that Anaconda is told",
		"os: rhel\nrelease: \"9.6\"\n" + strings.Replace(sound, "x86_64", "i386", 1):                        "b:6: arch: i386 has no release",
		"os: rhel\nrelease: \"9.6\"\n" + strings.Replace(sound, "tree: dvd.iso", "", 1):                     "tree: is missing: Anaconda takes the rest of itself",
		"os: rhel\nrelease: \"9.6\"\n" + strings.Replace(sound, "tree: dvd.iso", "mirror: http://m/9.6", 1): "",
		"os: rhel\nrelease: \"9.6\"\narchitectures:\n  arm64: {kernel: k, initrd: i, tree: t.iso}\n  x86_64: {kernel: k, initrd: i}\n":                       "b:8: architectures.x86_64.tree: is missing",
		"os: rhel\nrelease: \"9.6\"\nmirror: http://m/9.6\narchitectures:\n  arm64: {kernel: k, initrd: i, tree: t.iso}\n  x86_64: {kernel: k, initrd: i}\n": "",
	} {
		_, err := parseManifest("b", []byte(head+text))
		if want == "" && err != nil || want != "" && (err == nil || strings.Count(err.Error(), "\n  - ") != 1 || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v\nwant %s", text, err, want)
		}
	}
}

// TestSeveralCanonicalRefused: manifest.json has one form, in which nothing is hidden.
func TestSeveralCanonicalRefused(t *testing.T) {
	f, err := Build(t.Context(), severalFolder(t))
	must(t, err)
	text := string(f.Manifest)
	for name, c := range map[string]struct{ was, is, says string }{
		"both forms":               {`"args":"quiet"`, `"arch":"x86_64","args":"quiet"`, "arch: stands beside `architectures`"},
		"a kernel at the top":      {`"mirror":`, `"kernel":"linux","mirror":`, "kernel: stands beside `architectures`"},
		"empty":                    {text[:strings.Index(text, `,"args":"quiet"`)], `{"architectures":{}`, "architectures: is empty"},
		"another name":             {`"x86_64":{`, `"x64":{`, "architectures.x64: is called x86_64 here"},
		"a kernel that is no file": {`"kernel":"linux-arm64"`, `"kernel":"linux-riscv"`, `architectures.arm64.kernel: "linux-riscv" is not one`},
		"an unknown key":           {`"kernel":"linux-arm64"`, `"kernel":"linux-arm64","post":"rm"`, "unknown field"},
		"an architecture twice":    {`"x86_64":{`, `"x86_64":{"initrd":"initrd.gz","kernel":"linux"},"x86_64":{`, "canonical"},
		"an empty value":           {`"kernel":"linux-arm64"`, `"kernel":"linux-arm64","mirror":""`, "canonical"},
	} {
		if !strings.Contains(text, c.was) {
			t.Fatalf("%s: no %s", name, c.was)
		}
		_, err := ParseCanonical([]byte(strings.Replace(text, c.was, c.is, 1)))
		if lane.CodeOf(err) != lane.Invalid || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
