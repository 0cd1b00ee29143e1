package lane

import (
	"slices"
	"strings"
	"testing"
)

const testHex = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestBootPath(t *testing.T) {
	uefi := Platform{X86_64, UEFI}
	for _, p := range []BootPath{
		{MAC: "52:54:00:12:34:56", Platform: uefi, File: "snponly.efi"},
		{MAC: "", Platform: Platform{}, File: EntryScript},
		{MAC: "", Platform: uefi, File: EntryScript},
		{MAC: "52:54:00:12:34:56", Platform: Platform{}, File: "undionly.kpxe"},
		{MAC: "52:54:00:12:34:56", Platform: Platform{}, File: PXELinuxConfig},
		{MAC: "52:54:00:12:34:56", Platform: Platform{X86_64, BIOS}, File: PXELinuxConfig},
		{File: GRUBConfig},
		{MAC: "52:54:00:12:34:56", Platform: uefi, File: GRUBConfig},
		{MAC: "52:54:00:12:34:56", Platform: uefi, File: GRUBConfig, Said: "uuid=1&serial=a b"},
	} {
		for _, s := range []string{p.String(), "/" + p.String(), strings.ReplaceAll(p.String(), "/", "//")} {
			if got, ok := ParseBootPath(s); !ok || got != p {
				t.Errorf("%q reads as %+v, %v", s, got, ok)
			}
		}
	}
	for in, want := range map[string]BootPath{
		"/grub/grub.cfg":                                  {File: GRUBConfig},
		"debian-installer/amd64/grub/grub.cfg":            {File: GRUBConfig},
		"EFI/BOOT/grub.cfg-01-52-54-00-12-34-56":          {File: GRUBConfig},
		"boot/52-54-00-12-34-56/x86_64-uefi/grub.cfg-C0":  {MAC: "52:54:00:12:34:56", Platform: uefi, File: GRUBConfig},
		"boot/52:54:00:12:34:56/x86_64-uefi/grub.cfg?a/?": {MAC: "52:54:00:12:34:56", Platform: uefi, File: GRUBConfig, Said: "a/?"},
		"autoexec.ipxe":                                   {File: EntryScript},
		"/autoexec.ipxe":                                  {File: EntryScript},
		"pxelinux.cfg/01-52-54-00-AB-cd-ef":               {MAC: "52:54:00:ab:cd:ef", File: PXELinuxConfig},
		"boot/52:54:00:12:34:56/x86_64-uefi/snponly.efi":  {MAC: "52:54:00:12:34:56", Platform: uefi, File: "snponly.efi"},
		"boot/52-54-00-AB-CD-EF/x86_64-uefi//snponly.efi": {MAC: "52:54:00:ab:cd:ef", Platform: uefi, File: "snponly.efi"},
	} {
		if got, ok := ParseBootPath(in); !ok || got != want {
			t.Errorf("%q reads as %+v, %v", in, got, ok)
		}
	}
	for _, s := range []string{"", "/", "..", "boot/any/any", "boot/any/any/a/b", "boot/any/any/..", "boot/any/any/.hidden", "boot/../any/autoexec.ipxe",
		"boot/52-54-00-12-34/any/a", "boot/any/vax-bios/a", "boot/ff-ff-ff-ff-ff-ff/any/a", "root/any/any/a", "boot/any/any/a\x00", "boot/any/any/a\n", "boot/any/any/a b", "boot\\any\\any\\a",
		"pxelinux.cfg/default", "pxelinux.cfg/C0A84D64", "pxelinux.cfg/00112233-4455-6677-8899-aabbccddeeff", "pxelinux.cfg/01-52-54-00", "pxelinux.cfg/20-52-54-00-12-34-56",
		"boot/any/any/pxelinux.cfg/01-52-54-00-12-34-56", "boot/52-54-00-12-34-57/x86_64-bios/pxelinux.cfg/01-52-54-00-12-34-56", "x/y/pxelinux.cfg/01-52-54-00-12-34-56", "pxelinux.cfg",
		"grub/grub.cfg?uuid=1", "boot/any/any/grub.cfg?uuid=1", "boot/52-54-00-12-34-56/x86_64-uefi/snponly.efi?uuid=1", "boot/52-54-00-12-34-56/x86_64-uefi/grub.cfg?",
		"boot/52-54-00-12-34-56/grub.cfg", "boot/grub.cfg", "grub/x86_64-efi/command.lst", "boot/any/any/" + strings.Repeat("a", 129), "boot/any/any/%2e%2e", "boot/any/any/ä"} {
		if got, ok := ParseBootPath(s); ok {
			t.Errorf("%q reads as %+v", s, got)
		}
	}
}

func TestRunPath(t *testing.T) {
	const digest = Digest("sha256:" + testHex)
	for _, p := range []RunPath{
		{Capability: testCapability, Asset: AssetFile, Digest: digest, Name: "linux"},
		{Capability: testCapability, Asset: AssetSeed, Name: "user-data"},
		{Capability: testCapability, Asset: AssetOrder},
		{Capability: testCapability, Asset: AssetReport},
		{Capability: testCapability, Asset: AssetJoin},
		{Capability: testCapability, Asset: AssetTree, Name: ".treeinfo"},
		{Capability: testCapability, Asset: AssetTree, Name: "Packages/a/a+b-1.0~rc1.el9.x86_64.rpm"},
	} {
		s := p.String()
		if !strings.HasPrefix(s, RunBase(testCapability)+"/") {
			t.Errorf("%s is not below %s", s, RunBase(testCapability))
		}
		if got, ok := ParseRunPath(s); !ok || got != p {
			t.Errorf("%q reads as %+v, %v", s, got, ok)
		}
	}
	base := RunBase(testCapability)
	for _, s := range []string{"", "/", "/run", base, base + "/", base + "/order/x", base + "/report/", base + "/join.sh/x", base + "/join", base + "/seed", base + "/seed/..", base + "/seed/a/b", base + "/file/" + testHex,
		base + "/file/" + testHex + "/", base + "/file/" + testHex[1:] + "/linux", base + "/file/" + strings.ToUpper(testHex) + "/linux", base + "/file/" + testHex + "/../linux",
		base + "/shell", base + "/tree", base + "/tree/", base + "/tree/../order", base + "/tree/a/./b", base + "/tree/a\x00b", base + "/tree/" + strings.Repeat("a/", 600) + "b", base + "/file/sha256:" + testHex + "/linux", "/run/short/order", "/run/" + strings.ToUpper(testCapability) + "/order", "/run/" + strings.Repeat("a", 65) + "/order",
		"/run/" + testCapability[:19] + "%/order", "/walk/" + testCapability + "/order"} {
		if got, ok := ParseRunPath(s); ok && s != base+"/report/" {
			t.Errorf("%q reads as %+v", s, got)
		}
	}
}

func TestFileName(t *testing.T) {
	for s, want := range map[string]bool{"linux": true, "initrd.img-6.1.0+deb12": true, "A_b-c.1": true, strings.Repeat("a", 128): true,
		"": false, ".": false, "..": false, ".a": false, "a/b": false, "a b": false, "a\\b": false, "a..b": false, "a\n": false, "é": false, strings.Repeat("a", 129): false, "a:b": false, "a;b": false, "${a}": false} {
		if FileName(s) != want {
			t.Errorf("FileName(%.30q) = %v", s, !want)
		}
	}
}

func TestParseDigest(t *testing.T) {
	if d, err := ParseDigest("sha256:" + testHex); err != nil || d != "sha256:"+testHex {
		t.Errorf("%q, %v", d, err)
	}
	for _, s := range []string{"", testHex, "sha256:", "sha256:" + testHex[1:], "sha256:" + testHex + "0", "sha256:" + strings.ToUpper(testHex), "sha512:" + testHex, "sha256:" + testHex[1:] + "\n"} {
		if d, err := ParseDigest(s); CodeOf(err) != Invalid || d != "" {
			t.Errorf("%q gives %q, %v", s, d, err)
		}
	}
}

// harmless: a name that a parser accepts can neither climb nor break a line.
func harmless(name string) bool {
	return name != "" && !strings.Contains(name, "..") && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '/' || r == '\\' })
}

func FuzzParseBootPath(f *testing.F) {
	for _, s := range []string{"autoexec.ipxe", "boot/any/any/a", "boot/52-54-00-12-34-56/x86_64-uefi/snponly.efi", "//boot//any//any//..", "boot/any/any/a\x00b", "boot/525400123456/arm64-uefi/a..b",
		"0?", "boot/any/any/a?b", "boot/52-54-00-12-34-56/any/grub.cfg?mac=x", "x/grub.cfg", "boot/x/any/grub.cfg", "boot/any/any/pxelinux.cfg/01-52-54-00-12-34-56"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, ok := ParseBootPath(s)
		if !ok {
			if p != (BootPath{}) {
				t.Errorf("%q is refused, and gives %+v", s, p)
			}
			return
		}
		if !harmless(p.File) {
			t.Errorf("%q names the file %q", s, p.File)
		}
		if again, ok := ParseBootPath(p.String()); !ok || again != p {
			t.Errorf("%q: %+v is written as %q and read as %+v, %v", s, p, p.String(), again, ok)
		}
	})
}

func FuzzParseRunPath(f *testing.F) {
	base := RunBase(testCapability)
	for _, s := range []string{base + "/order", base + "/report", base + "/seed/user-data", base + "/file/" + testHex + "/linux", base + "/seed/../order", base + "/file/" + testHex, base + "/seed/a\nb", base + "/tree/a//b c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, ok := ParseRunPath(s)
		if !ok {
			if p != (RunPath{}) {
				t.Errorf("%q is refused, and gives %+v", s, p)
			}
			return
		}
		bad := func(name string) bool { return name != "" && !harmless(name) }
		if p.Asset == AssetTree {
			bad = func(name string) bool {
				return slices.ContainsFunc(strings.Split(name, "/"), func(s string) bool { return s == "" || s == "." || s == ".." })
			}
		}
		if bad(p.Name) || !harmless(p.Capability) {
			t.Errorf("%q names %q under %q", s, p.Name, p.Capability)
		}
		if again, ok := ParseRunPath(p.String()); !ok || again != p {
			t.Errorf("%q: %+v is written as %q and read as %+v, %v", s, p, p.String(), again, ok)
		}
	})
}
