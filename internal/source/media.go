package source

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"bootlane/internal/lane"
)

// Media is what was recognised: which distribution's, and where in it the files lie that
// a network boot needs. Paths are those of an [fs.FS].
type Media struct {
	OS, Release string // debian, bookworm; rhel, 9.5
	Arch        lane.Arch
	Title       string // as the media calls itself
	Kernel      string
	Initrd      string
	Shim, GRUB  string // signed boot loaders; empty where there are none
	Args        string // that lead the installer to the rest of its medium; %s is the image's file name
	Tree        bool   // its seed leads it there, to the image as the bundle's tree
	Packages    bool   // of such a tree: it has them
	Seed        string // the seed template that answers this installer; empty: there is none yet
	Note        string // what the files alone do not do
}

// layout is how one distribution's media are laid out.
type layout struct {
	os             string
	mark           string         // the file that tells
	says           *regexp.Regexp // what is in it: 1 is the title, 2 the release
	kernel, initrd []string
	arch           lane.Arch // empty: the directory in which the kernel lies tells
	seed, args     string
	note           string
}

const (
	debianCD = "this CD's initrd looks for the CD: for an install over the network take debian-netboot"
	noDVD    = "mirror: this image has no packages, and Anaconda takes them from a pinned mirror, http://HOST/DIRECTORY: name it, or build from iso:FILE of the DVD"
	noFull   = "mirror: this image has no packages, and YaST takes them from a full medium: build from iso:FILE of that one, or name a pinned mirror of its content, http://HOST/DIRECTORY"
	noYaST   = "tree: YaST fetches the rest of itself, of which there is only the tree here: build from iso:FILE, or name a pinned mirror, http://HOST/DIRECTORY"
	noTree   = "tree: Anaconda fetches the rest of itself, of which there is only the tree here: build from iso:FILE, or name a pinned mirror, http://HOST/DIRECTORY"
	noImage  = "the installer fetches the rest of its medium, of which there is only the tree here: build from iso:FILE, or name its place with args: "
)

// layouts are tried in this order.
var layouts = []layout{
	{"debian", "version.info", regexp.MustCompile(`(?m)^(Debian version: +\d+ \(([a-z]+)\))`), []string{"debian-installer/amd64/linux", "debian-installer/arm64/linux"},
		[]string{"debian-installer/amd64/initrd.gz", "debian-installer/arm64/initrd.gz"}, "", "debian-preseed/1", "", ""},
	{"ubuntu", ".disk/info", regexp.MustCompile(`^(Ubuntu-Server ([0-9.]+).*)`), []string{"casper/vmlinuz"}, []string{"casper/initrd"}, "", "nocloud/1", "url={file:%s}", ""},
	{"debian", ".disk/info", regexp.MustCompile(`^(Debian GNU/Linux [0-9.]+ "([A-Za-z]+)".*)`), []string{"install.amd/vmlinuz", "install.a64/vmlinuz"},
		[]string{"install.amd/initrd.gz", "install.a64/initrd.gz"}, "", "debian-preseed/1", "", debianCD},
	{"sles", "media.1/products", regexp.MustCompile(`(?m)^/ ((?:SLE|SUSE|openSUSE)[^\d\n]*(\d+(?:-SP\d+|\.\d+)?)[^\n]*)`), []string{"boot/x86_64/loader/linux", "boot/aarch64/linux"},
		[]string{"boot/x86_64/loader/initrd", "boot/aarch64/initrd"}, "", "", "install={tree}", ""},
}

// architectures are how distributions call them, in paths and in .treeinfo.
var architectures = map[string]lane.Arch{"amd64": lane.X86_64, "x86_64": lane.X86_64, "install.amd": lane.X86_64, "arm64": lane.ARM64, "aarch64": lane.ARM64, "install.a64": lane.ARM64}

// Recognise finds out what a medium is. It returns [lane.NotFound] when it knows none of its marks.
func Recognise(fsys fs.FS) (Media, error) {
	if text, err := small(fsys, ".treeinfo"); err == nil {
		return treeinfo(fsys, text)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return Media{}, err
	}
	for _, l := range layouts {
		text, err := small(fsys, l.mark)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return Media{}, err
		}
		m := l.says.FindSubmatch(text)
		if m == nil {
			continue
		}
		out := Media{OS: l.os, Title: lane.Clean(strings.Join(strings.Fields(string(m[1])), " "), 120), Release: strings.ToLower(string(m[2])), Arch: l.arch, Seed: l.seed, Args: l.args, Note: l.note}
		if out.Kernel = first(fsys, l.kernel); out.Kernel == "" {
			return out, lane.Errorf(lane.Invalid, "this is %q, and has none of the kernels %s: take another of its images", out.Title, strings.Join(l.kernel, ", "))
		}
		out.Initrd = l.initrd[slices.Index(l.kernel, out.Kernel)]
		if l.os == "sles" {
			out.suse(fsys)
		}
		return out.finish(fsys)
	}
	return Media{}, lane.Errorf(lane.NotFound, "the medium is of no distribution that is known (Debian, Ubuntu live-server, RHEL and its kin, SLES): it has no .disk/info, .treeinfo, media.1 or version.info that says so")
}

// suse tells SUSE's products apart, and calls their service packs as the systems do: 15-SP5 is 15.5.
func (m *Media) suse(fsys fs.FS) {
	if strings.HasPrefix(m.Title, "openSUSE") {
		m.OS = "opensuse-leap"
	}
	m.Release = strings.Replace(m.Release, "-sp", ".", 1)
	if _, unknown := (lane.Bundle{OS: m.OS, Release: m.Release, Seed: lane.SeedAutoYaST}).SUSE(); unknown == nil {
		m.Seed, m.Args, m.Tree = lane.SeedAutoYaST, "", true
		m.Packages = first(fsys, []string{"Module-Basesystem/repodata/repomd.xml", "repodata/repomd.xml"}) != ""
	}
}

// treeinfo reads productmd's .treeinfo, which RHEL, Rocky, AlmaLinux, Oracle and Fedora have.
func treeinfo(fsys fs.FS, text []byte) (Media, error) {
	sections := ini(text)
	general, arch := sections["general"], sections["general"]["arch"]
	images := sections["images-"+arch]
	out := Media{OS: "rhel", Release: general["version"], Arch: architectures[arch], Title: lane.Clean(general["family"]+" "+general["version"], 120),
		Kernel: images["kernel"], Initrd: images["initrd"], Args: "inst.repo={tree}"}
	if strings.Contains(general["family"], "Fedora") {
		out.OS = "fedora"
	} else if word, _, _ := strings.Cut(strings.ToLower(general["family"]), " "); slices.Contains([]string{"rocky", "almalinux", "centos", "oracle"}, word) {
		out.OS = word
	}
	if _, unknown := (lane.Bundle{OS: out.OS, Release: out.Release}).Anaconda(); unknown == nil {
		out.Seed, out.Args, out.Tree = lane.SeedKickstart, "", true
		out.Packages = first(fsys, []string{"BaseOS/repodata/repomd.xml", "repodata/repomd.xml"}) != ""
	}
	if out.Kernel == "" || out.Initrd == "" {
		return out, lane.Errorf(lane.Invalid, ".treeinfo of %q names no kernel and initrd for %q: take the boot or DVD image", out.Title, lane.Clean(arch, 20))
	}
	return out.finish(fsys)
}

// ini reads "[section]" and "key = value" lines.
func ini(text []byte) map[string]map[string]string {
	out, section := map[string]map[string]string{}, ""
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
			section = line[1 : len(line)-1]
		} else if key, value, ok := strings.Cut(line, "="); ok {
			if out[section] == nil {
				out[section] = map[string]string{}
			}
			out[section][strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return out
}

// finish checks the paths, and looks for the architecture and the signed boot loaders.
func (m Media) finish(fsys fs.FS) (Media, error) {
	for _, p := range []*string{&m.Kernel, &m.Initrd} {
		*p = path.Clean(*p)
		if s, err := fs.Stat(fsys, *p); err != nil || !s.Mode().IsRegular() {
			return m, lane.Errorf(lane.Invalid, "%q should have the file %s, and has not: the medium is incomplete", m.Title, lane.Clean(*p, 120))
		}
	}
	for dir := path.Dir(m.Kernel); m.Arch == "" && dir != "."; dir = path.Dir(dir) {
		m.Arch = architectures[path.Base(dir)]
	}
	suffix := map[lane.Arch]string{lane.X86_64: "x64", lane.ARM64: "aa64"}
	if m.Arch == "" { // the boot loader's name tells
		for arch, s := range suffix {
			if fold(fsys, "efi/boot/boot"+s+".efi") != "" {
				m.Arch = arch
			}
		}
	}
	for _, word := range strings.Fields(m.Title) { // Release amd64 (20240827)
		m.Arch = cmp.Or(m.Arch, architectures[word])
	}
	if m.Arch == "" {
		return m, lane.Errorf(lane.Invalid, "%q does not tell its architecture, by no path, boot loader or title: it cannot be what was published", m.Title)
	}
	s, beside := suffix[m.Arch], path.Dir(m.Kernel)+"/"
	for _, c := range []struct {
		into  *string
		names []string
	}{{&m.Shim, []string{beside + "bootnet" + s + ".efi", "efi/boot/boot" + s + ".efi"}}, {&m.GRUB, []string{beside + "grub" + s + ".efi", "efi/boot/grub" + s + ".efi", "efi/boot/grub.efi"}}} {
		for _, n := range c.names {
			if *c.into == "" {
				*c.into = fold(fsys, n)
			}
		}
	}
	return m, nil
}

// first returns the first of the paths that is there.
func first(fsys fs.FS, paths []string) string {
	for _, p := range paths {
		if s, err := fs.Stat(fsys, p); err == nil && s.Mode().IsRegular() {
			return p
		}
	}
	return ""
}

// fold finds a path whatever the case of its letters is, as EFI does; or "".
func fold(fsys fs.FS, name string) string {
	at := "."
	for _, want := range strings.Split(name, "/") {
		entries, err := fs.ReadDir(fsys, at)
		if err != nil {
			return ""
		}
		i := slices.IndexFunc(entries, func(e fs.DirEntry) bool { return strings.EqualFold(e.Name(), want) })
		if i < 0 {
			return ""
		}
		at = path.Join(at, entries[i].Name())
	}
	return at
}

// small reads a file that is small where it is what it seems.
func small(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	return io.ReadAll(io.LimitReader(f, 1<<20))
}
