package lane

import (
	"slices"
	"strings"
)

// The path grammar. Every name that Bootlane advertises is built here, and every
// name that a machine asks for is parsed here; nothing else knows a path.
//
//	boot/MAC/PLATFORM/FILE      a loader, or autoexec.ipxe beside it (TFTP and HTTP)
//	FILE                        the same without a MAC: gets a script that asks again with one
//	[DIR/]pxelinux.cfg/01-MAC   the configuration of PXELINUX and U-Boot, beside their loader
//	[DIR/]grub.cfg              the configuration of GRUB, wherever its prefix lies: asks again with what the machine is
//	boot/MAC/PLATFORM/grub.cfg?uuid=...   the machine's own configuration of GRUB
//	boot/script?uuid=...        the per-machine script (HTTP)
//	run/CAPABILITY/file/DIGEST/NAME   a file of the run's bundle
//	run/CAPABILITY/seed/NAME          an installer document
//	run/CAPABILITY/order|report|join.sh
//	inspect/TICKET/file/DIGEST/NAME   kernel or initrd of the agent that looks at machines
//	inspect/TICKET/report             what it found, posted
//
// MAC is hyphenated lower case or "any"; PLATFORM is [Platform.String].

// EntryScript is the name under which iPXE looks for its script beside itself.
const EntryScript = "autoexec.ipxe"

// FailedScript is the file that a boot loader asks for, beside its entry script,
// when it could not load what its script named.
const FailedScript = "failed.ipxe"

// PXELinuxConfig is the File of a [BootPath] that asks for a configuration of PXELINUX's
// form. Its real name is made of the MAC; SYSLINUX and U-Boot look for others as well
// (a UUID, an address, default), which nobody has.
const PXELinuxConfig = "pxelinux.cfg"

// GRUBConfig is the File of a [BootPath] that asks for a configuration of GRUB. Debian's
// signed builds look for it in /grub or /debian-installer/ARCH/grub, others beside
// themselves, and some for grub.cfg-01-MAC and grub.cfg-ADDRESS before it.
const GRUBConfig = "grub.cfg"

// ScriptPath is the path of the per-machine script.
const ScriptPath = "/boot/script"

// BootPath is a parsed boot/… name.
type BootPath struct {
	MAC      MAC // empty for "any"
	Platform Platform
	File     string // no slash in it
	Said     string // of GRUBConfig: what GRUB read from the machine, see [GRUBFacts]; empty for the entry
}

// String returns the name, without a leading slash: TFTP sends it as it stands,
// HTTP puts a slash before it.
func (p BootPath) String() string {
	if p.File == PXELinuxConfig {
		return p.pxelinux()
	}
	mac := "any"
	if p.MAC != "" {
		mac = p.MAC.Hyphens()
	}
	name := "boot/" + mac + "/" + p.Platform.String() + "/" + p.File
	if p.Said != "" {
		name += "?" + p.Said
	}
	return name
}

// ParseBootPath reads a boot/… name or a bare file name. Doubled slashes and a
// leading one do not matter: shim asks for "dir//file".
func ParseBootPath(s string) (BootPath, bool) {
	name, said, asks := strings.Cut(s, "?")
	p, ok := parseBootPath(name)
	if asks { // only GRUB does
		ok = ok && p.File == GRUBConfig && p.MAC != "" && said != ""
		p.Said = said
	}
	if !ok {
		return BootPath{}, false
	}
	return p, true
}

// parseBootPath reads a name without what GRUB says behind it. What it returns of one that
// it refuses means nothing.
func parseBootPath(s string) (BootPath, bool) {
	parts := fields(s)
	if n := len(parts); n > 0 && grubConfig(parts[n-1]) {
		return parseGRUB(parts)
	}
	if n := len(parts); n >= 2 && parts[n-2] == PXELinuxConfig {
		return parsePXELinux(parts[:n-2], parts[n-1])
	}
	switch {
	case len(parts) > 0 && parts[len(parts)-1] == PXELinuxConfig: // it is a directory
		return BootPath{}, false
	case len(parts) == 1 && FileName(parts[0]):
		return BootPath{File: parts[0]}, true
	case len(parts) != 4 || parts[0] != "boot" || !FileName(parts[3]):
		return BootPath{}, false
	}
	platform, ok := ParsePlatform(parts[2])
	if !ok {
		return BootPath{}, false
	}
	var mac MAC
	if parts[1] != "any" {
		m, err := ParseMAC(parts[1])
		if err != nil {
			return BootPath{}, false
		}
		mac = m
	}
	return BootPath{MAC: mac, Platform: platform, File: parts[3]}, true
}

// pxelinux returns the name under which PXELINUX asks for its configuration: 01 is
// the hardware type of Ethernet.
func (p BootPath) pxelinux() string {
	name := PXELinuxConfig + "/01-" + p.MAC.Hyphens()
	if p.Platform == (Platform{}) {
		return name
	}
	return "boot/" + p.MAC.Hyphens() + "/" + p.Platform.String() + "/" + name
}

// parsePXELinux reads what stands before and behind pxelinux.cfg.
func parsePXELinux(dir []string, name string) (BootPath, bool) {
	text, ok := strings.CutPrefix(name, "01-")
	mac, err := ParseMAC(text)
	if !ok || err != nil {
		return BootPath{}, false
	}
	p := BootPath{MAC: mac, File: PXELinuxConfig}
	if len(dir) == 0 {
		return p, true
	}
	beside, ok := parseBootPath(strings.Join(dir, "/") + "/x")
	p.Platform = beside.Platform
	return p, ok && beside.MAC == mac
}

// grubConfig reports whether GRUB asks for its configuration by that name.
func grubConfig(name string) bool {
	return name == GRUBConfig || strings.HasPrefix(name, GRUBConfig+"-") && FileName(name)
}

// parseGRUB reads the name of a configuration of GRUB. Below boot/ it says whose it is;
// anywhere else it is what GRUB was built with.
func parseGRUB(parts []string) (BootPath, bool) {
	dir := parts[:len(parts)-1]
	if len(dir) == 0 || dir[0] != "boot" {
		return BootPath{File: GRUBConfig}, true
	}
	p, ok := parseBootPath(strings.Join(dir, "/") + "/x")
	p.File = GRUBConfig
	return p, ok
}

// RunPath is a parsed run/… path.
type RunPath struct {
	Capability string
	Asset      Asset
	Digest     Digest // of AssetFile
	Name       string // of AssetFile and AssetSeed; of AssetTree a path
}

// RunBase returns the path under which everything of a run is found, without a
// trailing slash.
func RunBase(capability string) string { return "/run/" + capability }

// String returns the absolute path.
func (p RunPath) String() string { return p.Under(RunBase(p.Capability)) }

// Under returns the path below base, which stands for the run: http://HOST/run/CAPABILITY.
func (p RunPath) Under(base string) string {
	s := base + "/" + string(p.Asset)
	if p.Asset == AssetFile {
		s += "/" + strings.TrimPrefix(string(p.Digest), "sha256:")
	}
	if p.Name != "" {
		s += "/" + p.Name
	}
	return s
}

// maxTreePath is how long a path in an installer tree may be, in bytes.
const maxTreePath = 1024

// ParseRunPath reads what [RunPath.String] writes.
func ParseRunPath(s string) (RunPath, bool) {
	parts := fields(s)
	if len(parts) < 3 || parts[0] != "run" || !capabilityForm(parts[1]) {
		return RunPath{}, false
	}
	p := RunPath{Capability: parts[1], Asset: Asset(parts[2])}
	rest := parts[3:]
	switch p.Asset {
	case AssetOrder, AssetReport, AssetJoin:
		if len(rest) != 0 {
			return RunPath{}, false
		}
		return p, true
	case AssetSeed:
		if len(rest) != 1 || !FileName(rest[0]) {
			return RunPath{}, false
		}
		p.Name = rest[0]
		return p, true
	case AssetTree:
		p.Name = strings.Join(rest, "/")
		leads := slices.ContainsFunc(rest, func(s string) bool { return s == "." || s == ".." })
		if len(rest) == 0 || leads || p.Name != Clean(p.Name, maxTreePath) {
			return RunPath{}, false
		}
		return p, true
	case AssetFile:
		if len(rest) != 2 || !FileName(rest[1]) {
			return RunPath{}, false
		}
		d, err := ParseDigest("sha256:" + rest[0])
		if err != nil {
			return RunPath{}, false
		}
		p.Digest, p.Name = d, rest[1]
		return p, true
	}
	return RunPath{}, false
}

// InspectPath is a parsed inspect/… path. A ticket opens nothing of a run, and no run is
// opened by it: the two grammars share no path.
type InspectPath struct {
	Ticket string
	Digest Digest // of the file Name; without one it is the report
	Name   string
}

// InspectBase returns the path under which an agent finds and tells everything, without a
// trailing slash.
func InspectBase(ticket string) string { return "/inspect/" + ticket }

// String returns the absolute path.
func (p InspectPath) String() string {
	if p.Name == "" {
		return InspectBase(p.Ticket) + "/report"
	}
	return InspectBase(p.Ticket) + "/file/" + strings.TrimPrefix(string(p.Digest), "sha256:") + "/" + p.Name
}

// ParseInspectPath reads what [InspectPath.String] writes.
func ParseInspectPath(s string) (InspectPath, bool) {
	parts := fields(s)
	if len(parts) < 3 || parts[0] != "inspect" || !capabilityForm(parts[1]) {
		return InspectPath{}, false
	}
	switch rest := parts[2:]; {
	case len(rest) == 1 && rest[0] == "report":
		return InspectPath{Ticket: parts[1]}, true
	case len(rest) == 3 && rest[0] == "file" && FileName(rest[2]):
		d, err := ParseDigest("sha256:" + rest[1])
		return InspectPath{parts[1], d, rest[2]}, err == nil
	}
	return InspectPath{}, false
}

// ParseDigest reads "sha256:" and 64 lower-case hex digits.
func ParseDigest(s string) (Digest, error) {
	hexs, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(hexs) != 64 || strings.Trim(hexs, "0123456789abcdef") != "" {
		return "", Errorf(Invalid, "%q is not a digest: sha256: and 64 lower-case hex digits", s)
	}
	return Digest(s), nil
}

func capabilityForm(s string) bool {
	return len(s) >= 20 && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// FileName reports whether s can be a file of a bundle: one path element of
// letters, digits, dot, underscore, hyphen and plus, not hidden, without two dots
// in a row, at most 128 bytes.
func FileName(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || strings.Contains(s, "..") {
		return false
	}
	for _, c := range s {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("._-+", c)
		if !ok {
			return false
		}
	}
	return true
}

func fields(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == '/' })
}
