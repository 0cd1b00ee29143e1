package lane

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCompareVersions(t *testing.T) {
	inOrder := []string{"0", "1", "1-a", "1.1", "1.1-rc1", "1.2", "1.10", "1a", "2", "9", "10", "2026-2-a", "2026-11-a", "2026-11-b", "2026-12-a", "99999999999999999999998", "99999999999999999999999", "a", "a1", "b"}
	for i, a := range inOrder {
		for j, b := range inOrder {
			if got := CompareVersions(a, b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%s and %s: %d", a, b, got)
			}
		}
	}
	for _, same := range [][2]string{{"1", "01"}, {"2026-02-a", "2026-2-a"}, {"0", "000"}} {
		if CompareVersions(same[0], same[1]) != 0 {
			t.Errorf("%v are two versions", same)
		}
	}
}

// FuzzCompareVersions: it is an order, whatever the texts.
func FuzzCompareVersions(f *testing.F) {
	f.Add("1.2", "1.10", "01")
	f.Add("a-1", "a", "")
	sign := func(n int) int { return max(-1, min(1, n)) }
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if CompareVersions(a, a) != 0 || sign(CompareVersions(a, b)) != -sign(CompareVersions(b, a)) {
			t.Fatalf("%q and %q: %d, %d", a, b, CompareVersions(a, b), CompareVersions(b, a))
		}
		list := []string{a, b, c}
		slices.SortFunc(list, CompareVersions)
		if CompareVersions(list[0], list[2]) > 0 {
			t.Fatalf("%q is in no order", list)
		}
	})
}

func TestDiffBundles(t *testing.T) {
	a := Bundle{Name: "sys", Version: "1", OS: "debian", Arch: X86_64, Seed: SeedNoCloud, BundleVariant: BundleVariant{Kernel: "linux", Initrd: "initrd", Args: "console=tty0 console=ttyS0 quiet", Mirror: "http://m/1"},
		Files: map[string]BundleFile{"linux": {"sha256:01", 1}, "gone": {"sha256:03", 3}}, Loaders: map[string]Loader{"x86_64-uefi": {First: "ipxe.efi"}},
		Packages: []PackageSnapshot{{"http://p", "2026-11-01", "sha256:aa"}}}
	b := a
	b.Version, b.Seed, b.Args, b.FirstBoot = "2", SeedPreseed, "console=tty0 console=ttyS1 debug", []string{"new"}
	b.Files = map[string]BundleFile{"linux": {"sha256:02", 1}, "new": {"sha256:04", 4}}
	b.Loaders = map[string]Loader{"x86_64-uefi": {First: "shim.efi", Second: "grub.efi", Config: []string{"grub.cfg"}}}
	b.Packages = []PackageSnapshot{{"http://p", "2026-12-01", "sha256:bb"}}
	want := []BundleChange{
		{"version", "1", "2"}, {"seed", "nocloud/1", "debian-preseed/1"}, {"args.console#2", "console=ttyS0", "console=ttyS1"}, {"args.debug", "", "debug"}, {"args.quiet", "quiet", ""},
		{"loaders.x86_64-uefi", "ipxe.efi", "shim.efi, grub.efi"}, {"loaders.x86_64-uefi.config", "", "grub.cfg"}, {"packages.http://p", "2026-11-01 sha256:aa", "2026-12-01 sha256:bb"}, {"firstBoot", "", "new"},
		{"files.gone", "sha256:03, 3 bytes", ""}, {"files.linux", "sha256:01, 1 bytes", "sha256:02, 1 bytes"}, {"files.new", "", "sha256:04, 4 bytes"},
	}
	if diff := cmp.Diff(want, DiffBundles(a, b)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if same := DiffBundles(a, a); len(same) != 0 {
		t.Errorf("of the same: %v", same)
	}
}

// TestBundleKernelArgs: what stands in braces leads to the run's files, or is said to lead nowhere.
func TestBundleKernelArgs(t *testing.T) {
	const digest = Digest("sha256:" + testHex)
	b := Bundle{BundleVariant: BundleVariant{Tree: "dvd.iso"}, Files: map[string]BundleFile{"dvd.iso": {Digest: digest}}}
	for args, want := range map[string]string{
		"quiet":                         "quiet",
		"inst.repo={tree} quiet":        "inst.repo=http://x/run/c/tree quiet",
		"url={file:dvd.iso}":            "url=http://x/run/c/file/" + testHex + "/dvd.iso",
		"a={tree}/sub b={file:dvd.iso}": "a=http://x/run/c/tree/sub b=http://x/run/c/file/" + testHex + "/dvd.iso",
	} {
		b.Args = args
		if got, problems := b.KernelArgs("http://x/run/c"); got != want || problems != nil {
			t.Errorf("%q: %q, %q", args, got, problems)
		}
	}
	for args, want := range map[string]string{"a={file:other}": `"other" is not one`, "a={x}": "{x} is nothing", "a={tree": "a brace has no other", "a=tree}": "a brace has no other", "{}": "{} is nothing"} {
		b.Args = args
		if _, problems := b.KernelArgs(""); len(problems) != 1 || !strings.Contains(problems[0], want) {
			t.Errorf("%q: %q", args, problems)
		}
	}
	b.Args, b.Tree = "{tree}", ""
	if _, problems := b.KernelArgs(""); len(problems) != 1 || !strings.Contains(problems[0], "the bundle has none") {
		t.Errorf("no tree: %q", problems)
	}
}

// severalBundle is for two architectures: what each has, and what stands at the top for both.
func severalBundle() Bundle {
	return Bundle{Digest: rightBundle, Name: "debian-12", Version: "1", Seed: SeedNoCloud, Files: map[string]BundleFile{"linux": {"sha256:01", 1}},
		Loaders:       map[string]Loader{"x86_64-uefi": {First: "ipxe.efi", ImageTrust: true}},
		BundleVariant: BundleVariant{Args: "quiet", Mirror: "http://m/all", Security: "http://s/all"},
		Architectures: map[Arch]BundleVariant{
			X86_64: {Kernel: "linux", Initrd: "initrd", Tree: "dvd.iso"},
			ARM64:  {Kernel: "linux-arm64", Initrd: "initrd", Args: "console=ttyAMA0", Mirror: "http://m/arm", Image: &BundleImage{File: "disk-arm64"}},
		}}
}

func TestBundleFor(t *testing.T) {
	b := severalBundle()
	b.Refusal = "it is revoked"
	want := b
	want.Architectures = nil
	for a, v := range map[Arch]BundleVariant{
		X86_64: {Kernel: "linux", Initrd: "initrd", Tree: "dvd.iso", Args: "quiet", Mirror: "http://m/all", Security: "http://s/all"},
		ARM64:  {Kernel: "linux-arm64", Initrd: "initrd", Args: "console=ttyAMA0", Mirror: "http://m/arm", Security: "http://s/all", Image: &BundleImage{File: "disk-arm64"}},
	} {
		want.Arch, want.BundleVariant = a, v
		got, ok := b.For(a)
		if diff := cmp.Diff(want, got); diff != "" || !ok || !b.Fits(a) {
			t.Errorf("%s, %v (-want +got):\n%s", a, ok, diff)
		}
		if again, ok := got.For(a); !ok || cmp.Diff(got, again) != "" {
			t.Errorf("%s of what is for %s alone: %v, %+v", a, a, ok, again)
		}
	}
	for _, a := range []Arch{I386, ""} {
		if _, ok := b.For(a); ok || b.Fits(a) {
			t.Errorf("it is for %q too", a)
		}
	}
	if got := b.Archs(); !slices.Equal(got, []string{"arm64", "x86_64"}) {
		t.Errorf("for %q", got)
	}
	if got := b.ImageSignatures(); !slices.Equal(got, []string{"initrd.sig", "linux-arm64.sig", "linux.sig"}) {
		t.Errorf("signed: %q", got)
	}
	if one := (Bundle{Arch: ARM64}); !slices.Equal(one.Archs(), []string{"arm64"}) || one.Fits(X86_64) || !one.Fits(ARM64) || len(one.Views()) != 1 {
		t.Errorf("one: %q", one.Archs())
	}
}

// TestDiffArchitectures: what is of one architecture is told as its.
func TestDiffArchitectures(t *testing.T) {
	a := severalBundle()
	b := severalBundle()
	b.Args = "quiet debug"
	b.Architectures[ARM64] = BundleVariant{Kernel: "linux-2", Initrd: "initrd", Args: "console=ttyS0", Mirror: "http://m/arm"}
	b.Architectures[I386] = BundleVariant{Kernel: "linux-i386"}
	want := []BundleChange{
		{"args.debug", "", "debug"}, {"architectures.arm64.args.console", "console=ttyAMA0", "console=ttyS0"},
		{"architectures.arm64.image", "disk-arm64 (), 0 bytes as , root partition ", ""}, {"architectures.arm64.kernel", "linux-arm64", "linux-2"}, {"architectures.i386.kernel", "", "linux-i386"},
	}
	if diff := cmp.Diff(want, DiffBundles(a, b)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	one, _ := a.For(X86_64)
	want = []BundleChange{
		{"arch", "x86_64", ""}, {"kernel", "linux", ""}, {"initrd", "initrd", ""}, {"tree", "dvd.iso", ""},
		{"architectures.arm64.args.console", "", "console=ttyAMA0"}, {"architectures.arm64.image", "", "disk-arm64 (), 0 bytes as , root partition "},
		{"architectures.arm64.initrd", "", "initrd"}, {"architectures.arm64.kernel", "", "linux-arm64"}, {"architectures.arm64.mirror", "", "http://m/arm"},
		{"architectures.x86_64.initrd", "", "initrd"}, {"architectures.x86_64.kernel", "", "linux"}, {"architectures.x86_64.tree", "", "dvd.iso"},
	}
	if diff := cmp.Diff(want, DiffBundles(one, a)); diff != "" {
		t.Errorf("from one to several (-want +got):\n%s", diff)
	}
}

// TestRevocationConcern: a run that has written its disk is not stopped any more, and one
// that is closed, or bound to another bundle, never was.
func TestRevocationConcern(t *testing.T) {
	r := Revocation{BundleRecord: BundleRecord{Digest: "sha256:1"}}
	run := func(open bool, stage Stage, d Digest) Run { return Run{Open: open, Stage: stage, Bundle: d} }
	for _, h := range []Host{
		{ID: "stopped", State: StateProvisioning, Run: run(true, StageInstaller, "sha256:1")},
		{ID: "written", State: StateProvisioning, Run: run(true, StageDiskWritten, "sha256:1")},
		{ID: "over", State: StateFailed, Run: run(false, StageInstaller, "sha256:1")},
		{ID: "another", State: StateProvisioning, Run: run(true, StageInstaller, "sha256:2")},
		{ID: "retired", State: StateRetired},
	} {
		named := Digest("sha256:1")
		if h.ID == "another" {
			named = "sha256:2"
		}
		r.Concern(h, named)
	}
	if got := fmt.Sprint(r.Stopped, r.Written, r.Hosts); got != "[stopped] [written] [stopped written over]" {
		t.Error(got)
	}
}
