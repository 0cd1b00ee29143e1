package lane

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Bundle is an immutable, verified set of files that a host installs from: what its
// manifest says. The files themselves are in the bundle store, named by digest.
type Bundle struct {
	Digest  Digest `json:"digest,omitempty"` // of the canonical manifest, which does not hold it
	Name    string `json:"name"`
	Version string `json:"version"` // ordered within the name, see [CompareVersions]
	OS      string `json:"os"`
	Release string `json:"release,omitempty"`
	Arch    Arch   `json:"arch,omitempty"` // of a bundle for one architecture
	Seed    string `json:"seed"`           // seed template and version: debian-preseed/1, nocloud/1, kickstart/1, autoyast/1, agama/1, ignition/1, talos/1, image/1
	// BundleVariant is all that a bundle for one architecture has. One for several has here
	// the arguments and mirrors of those that have none of their own.
	BundleVariant
	// Architectures is set in a bundle for several: [Bundle.For] is what one of them has.
	Architectures map[Arch]BundleVariant `json:"architectures,omitempty"`
	Packages      []PackageSnapshot      `json:"packages,omitempty"`
	Files         map[string]BundleFile  `json:"files"`
	// FirstBoot names files that are scripts: first boot runs them as root, in this order,
	// once it knows that the machine is the right one. Each must bear being repeated.
	FirstBoot []string `json:"firstBoot,omitempty"`
	// Config names a file that is a template of the configuration that the system reads itself: for
	// [SeedTalos] and [SeedIgnition], and for an image with Ignition. Empty: it gets ours alone.
	Config string `json:"config,omitempty"`
	// Sections names files that are templates, by the place in the seed's documents that they fill.
	Sections map[string]string `json:"sections,omitempty"`
	Loaders  map[string]Loader `json:"loaders,omitempty"` // by platform name, in place of the site's
	// MinimumSBAT is the least SBAT generation by component that the bundle's loaders have.
	MinimumSBAT map[string]int `json:"minimumSBAT,omitempty"`
	Expires     time.Time      `json:"expires,omitzero"` // from then on it is refused; zero: never
	Sources     []Source       `json:"sources,omitempty"`

	// Refusal says why the bundle may not be installed now; empty: it may. It is no part
	// of the manifest: it changes with the clock, signatures and operators' decisions.
	Refusal string `json:"-"`
}

// BundleVariant is what differs between the architectures that a bundle is for.
type BundleVariant struct {
	Kernel   string       `json:"kernel,omitempty" yaml:"kernel,omitempty"`     // file names, keys of Files
	Initrd   string       `json:"initrd,omitempty" yaml:"initrd,omitempty"`     //
	Args     string       `json:"args,omitempty" yaml:"args,omitempty"`         // kernel arguments, after those that the seed adds; see [Bundle.KernelArgs]
	Tree     string       `json:"tree,omitempty" yaml:"tree,omitempty"`         // the installer tree: an ISO 9660 image, whose files are served one by one
	Image    *BundleImage `json:"image,omitempty" yaml:"image,omitempty"`       // set for image flows
	Mirror   string       `json:"mirror,omitempty" yaml:"mirror,omitempty"`     // pinned package mirror: http://HOST/DIRECTORY
	Security string       `json:"security,omitempty" yaml:"security,omitempty"` // pinned security mirror
}

// The seed templates, with their versions: what a bundle's installer is fed with.
const (
	SeedImage     = "image/1"          // bootlane-agent writes a disk image
	SeedPreseed   = "debian-preseed/1" // the Debian installer
	SeedNoCloud   = "nocloud/1"        // Ubuntu's installer, by cloud-init's NoCloud
	SeedKickstart = "kickstart/1"      // Anaconda: RHEL, Rocky, AlmaLinux and Fedora
	SeedAutoYaST  = "autoyast/1"       // YaST: SLES and openSUSE Leap 15
	SeedAgama     = "agama/1"          // Agama: SLES and openSUSE Leap 16
	SeedIgnition  = "ignition/1"       // flatcar-install: Flatcar, by Ignition
	SeedTalos     = "talos/1"          // Talos, which installs itself by its machine configuration
)

// Seeds returns every seed template.
func Seeds() []string {
	return []string{SeedImage, SeedPreseed, SeedNoCloud, SeedKickstart, SeedAutoYaST, SeedAgama, SeedIgnition, SeedTalos}
}

// BundleFile is one file of a bundle.
type BundleFile struct {
	Digest    Digest `json:"digest"`
	SizeBytes int64  `json:"sizeBytes"`
}

// How an image may be compressed. zstd is the one that keeps up with a disk.
const (
	CompressionZstd = "zstd"
	CompressionGzip = "gzip"
	CompressionXZ   = "xz"
	CompressionNone = "none"
)

// Compressions returns all of them.
func Compressions() []string {
	return []string{CompressionZstd, CompressionGzip, CompressionXZ, CompressionNone}
}

// BundleImage describes the disk image of an image flow.
type BundleImage struct {
	File        string `json:"file" yaml:"file"`               // key of Files
	Compression string `json:"compression" yaml:"compression"` // one of Compressions
	RawDigest   Digest `json:"rawDigest" yaml:"rawDigest"`     // of the uncompressed bytes
	RawBytes    int64  `json:"rawBytes" yaml:"rawBytes"`
	RootLabel   string `json:"rootPartLabel" yaml:"rootPartLabel"` // GPT partition name of the root file system
	// Config is what the system in the image reads at its first boot, [ConfigCloudInit] or
	// [ConfigIgnition]; empty: it gets files in its root file system.
	Config string `json:"config,omitempty" yaml:"config,omitempty"`
	// ConfigLabel is the GPT partition name of the ext4 file system that an Ignition configuration
	// is put into, as /ignition/config.ign.
	ConfigLabel string `json:"configPartLabel,omitempty" yaml:"configPartLabel,omitempty"`
}

// What a system in an image may read, in the place of files of ours.
const (
	ConfigCloudInit = "cloud-init" // NoCloud, from a directory of the image
	ConfigIgnition  = "ignition"
)

// Ignites reports whether Ignition sets up the installed system.
func (b Bundle) Ignites() bool {
	return b.Seed == SeedIgnition || b.Seed == SeedImage && b.Image != nil && b.Image.Config == ConfigIgnition
}

// CloudInit reports whether cloud-init sets up the installed system.
func (b Bundle) CloudInit() bool { return b.Image != nil && b.Image.Config == ConfigCloudInit }

// Loader is the chain of boot loaders for one platform.
type Loader struct {
	First  string   `json:"first" yaml:"first"`                       // what firmware starts: iPXE, or a shim
	Second string   `json:"second,omitempty" yaml:"second,omitempty"` // what a shim starts: GRUB, or iPXE
	Extra  []string `json:"extra,omitempty" yaml:"extra,omitempty"`   // modules and other files that a stage fetches by name
	Config []string `json:"config,omitempty" yaml:"config,omitempty"` // names of the configurations that the last stage asks for
	HTTP   bool     `json:"http,omitempty" yaml:"http,omitempty"`     // a GRUB that goes on where firmware loaded it by HTTP; Debian 12's cannot
	// ImageTrust says of an iPXE that it was built with IMAGE_TRUST_CMD, and trusts whoever
	// signed kernel and initrd: it is told to run nothing else. Debian's builds have neither.
	ImageTrust bool `json:"imageTrust,omitempty" yaml:"imageTrust,omitempty"`
}

// ImageSignatureExt is what iPXE's detached signatures of kernel and initrd are called,
// behind the file's name: CMS (RFC 5652) in DER.
const ImageSignatureExt = ".sig"

// ImageSignatures returns the names of the signatures that the bundle's loaders check.
func (b Bundle) ImageSignatures() (out []string) {
	if !slices.ContainsFunc(slices.Collect(maps.Values(b.Loaders)), func(l Loader) bool { return l.ImageTrust }) {
		return nil
	}
	for _, v := range b.Views() {
		out = append(out, v.Kernel+ImageSignatureExt, v.Initrd+ImageSignatureExt)
	}
	slices.Sort(out)
	return slices.Compact(out) // architectures may share a file
}

// Files returns the names of the loader's files.
func (l Loader) Files() []string {
	out := []string{l.First}
	if l.Second != "" {
		out = append(out, l.Second)
	}
	return append(out, l.Extra...)
}

// PackageSnapshot pins the packages that an install may take.
type PackageSnapshot struct {
	URL    string `json:"url" yaml:"url"`
	Date   string `json:"date" yaml:"date"`     // YYYY-MM-DD
	Digest Digest `json:"digest" yaml:"digest"` // of its Release or repomd.xml
}

// Source says where files come from, and under which licence.
type Source struct {
	URL     string   `json:"url" yaml:"url"`
	Licence string   `json:"licence" yaml:"licence"`                 // SPDX expression
	Files   []string `json:"files,omitempty" yaml:"files,omitempty"` // none: all
}

// For returns the bundle as one architecture has it: as if it were for this one alone. It
// reports false for one that the bundle is not for.
func (b Bundle) For(a Arch) (Bundle, bool) {
	if b.Architectures == nil {
		return b, b.Arch == a
	}
	v, ok := b.Architectures[a]
	v.Args, v.Mirror, v.Security = cmp.Or(v.Args, b.Args), cmp.Or(v.Mirror, b.Mirror), cmp.Or(v.Security, b.Security)
	b.Arch, b.BundleVariant, b.Architectures = a, v, nil
	return b, ok
}

// Views returns the bundle as each of its architectures has it, by their names.
func (b Bundle) Views() (out []Bundle) {
	if b.Architectures == nil {
		return []Bundle{b}
	}
	for _, a := range slices.Sorted(maps.Keys(b.Architectures)) {
		v, _ := b.For(a)
		out = append(out, v)
	}
	return out
}

// Archs returns the names of the bundle's architectures, sorted.
func (b Bundle) Archs() (out []string) {
	for _, v := range b.Views() {
		out = append(out, string(v.Arch))
	}
	return out
}

// Fits reports whether the bundle can run on the architecture.
func (b Bundle) Fits(a Arch) bool {
	_, ok := b.For(a)
	return ok
}

// Ref returns the name people use: NAME-VERSION.
func (b Bundle) Ref() string { return b.Name + "-" + b.Version }

// CompareVersions orders the versions of a bundle as people read them: runs of digits by
// their value, everything else as text. 9 < 10, 2026-11-a < 2026-11-b < 2026-12-a, 1 < 1.1.
// Two texts may be the same version: 1 and 01.
func CompareVersions(a, b string) int {
	for a != "" && b != "" {
		x, restA := versionPart(a)
		y, restB := versionPart(b)
		c := strings.Compare(x, y)
		if isDigit(x[0]) && isDigit(y[0]) {
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			c = cmp.Or(len(x)-len(y), strings.Compare(x, y))
		}
		if c != 0 {
			return c
		}
		a, b = restA, restB
	}
	return len(a) - len(b)
}

// versionPart cuts the leading run of digits, or of other bytes, from a version.
func versionPart(s string) (part, rest string) {
	n := 1
	for n < len(s) && isDigit(s[n]) == isDigit(s[0]) {
		n++
	}
	return s[:n], s[n:]
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// KernelArgs returns the bundle's arguments with the addresses that only a run has: {tree}
// is that of the installer tree, {file:NAME} that of a file. base is the URL of the run.
// Problems say which of them lead nowhere.
func (b Bundle) KernelArgs(base string) (args string, problems []string) {
	rest, out := b.Args, strings.Builder{}
	for {
		before, after, ok := strings.Cut(rest, "{")
		out.WriteString(before)
		if !ok {
			break
		}
		word, behind, closed := strings.Cut(after, "}")
		name, isFile := strings.CutPrefix(word, "file:")
		file, has := b.Files[name]
		switch {
		case !closed:
			return b.Args, append(problems, "a brace has no other: {tree} and {file:NAME} are what stands in braces")
		case isFile && has:
			out.WriteString(RunPath{Asset: AssetFile, Digest: file.Digest, Name: name}.Under(base))
		case isFile:
			problems = append(problems, fmt.Sprintf("{%s}: %q is not one of the bundle's files", Clean(word, 80), Clean(name, 80)))
		case word == "tree" && b.Tree != "":
			out.WriteString(RunPath{Asset: AssetTree}.Under(base))
		case word == "tree":
			problems = append(problems, "{tree}: the bundle has none: `tree` names an ISO image among its files")
		default:
			problems = append(problems, fmt.Sprintf("{%s} is nothing: {tree} and {file:NAME} are what stands in braces", Clean(word, 80)))
		}
		rest = behind
	}
	if strings.Contains(out.String(), "}") {
		problems = append(problems, "a brace has no other: {tree} and {file:NAME} are what stands in braces")
	}
	return out.String(), problems
}
