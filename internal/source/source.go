// Package source makes the directory of a bundle from what people have: a directory, a
// distribution's ISO image, Debian's netboot package, URLs. It finds the kernel, the
// initrd and the signed boot loaders, checks them against what the distribution
// published, copies them, and writes a bundle.yaml, last: without it, nothing is a bundle.
//
// Archives are read with bounds on everything, as images are by package iso.
package source

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bootlane/internal/iso"
	"bootlane/internal/lane"
)

// Request says what is built from what.
type Request struct {
	From []string // iso:FILE, dir:DIR, debian-netboot, debian-netboot:FILE-OR-DIR, url:URL#sha256=HEX
	Dir  string   // where the bundle is written

	// What the distribution published about the one iso: or debian-netboot: file: a list of
	// digests, its signature (nil: inline) and the keys that may have made it. Digest in place of a list.
	Sums, Signature, Keys []byte
	SumsName              string // of the file in the list, when its own name is not enough
	Digest                lane.Digest

	Name, Version, Seed, Args, Mirror, Security string    // of bundle.yaml; empty: as the medium says
	Kernel, Initrd                              string    // of files that no medium names
	Arch                                        lane.Arch // of files that no medium names, and of debian-netboot; empty: x86_64

	Client *http.Client
	Now    time.Time
	Tell   Progress
}

// File is one that was written.
type File struct {
	Name   string      `json:"name"`
	From   string      `json:"from"`
	Size   int64       `json:"size"`
	Digest lane.Digest `json:"digest"`
}

// Result is what was built.
type Result struct {
	Dir      string   `json:"dir"`
	Title    string   `json:"title"`
	Seed     string   `json:"seed"` // template that answers its installer; empty: there is none
	Files    []File   `json:"files"`
	Checked  string   `json:"checked"`            // against what, and by whom signed
	Problems []string `json:"problems,omitempty"` // what is missing before it installs a machine
}

// builder is one build.
type builder struct {
	Request
	ctx    context.Context
	media  Media
	image  string // the ISO image, where it is a file of the bundle
	result Result
}

// Build makes a bundle's directory. A bundle.yaml that is there is never overwritten: that
// is [lane.Conflict].
func Build(ctx context.Context, r Request) (Result, error) {
	b := &builder{Request: r, ctx: ctx, result: Result{Dir: r.Dir, Checked: "nothing: no digest was given"}}
	manifest := filepath.Join(r.Dir, manifestName)
	if _, err := os.Lstat(manifest); err == nil {
		return b.result, lane.Errorf(lane.Conflict, "%s is there already: a bundle is built into a directory without one", manifest)
	}
	if err := os.MkdirAll(r.Dir, 0o755); err != nil {
		return b.result, fmt.Errorf("make the bundle's directory: %w", err)
	}
	for _, from := range r.From {
		if err := b.take(from); err != nil {
			return b.result, fmt.Errorf("%s: %w", from, err)
		}
	}
	text, err := b.manifest()
	if err != nil {
		return b.result, err
	}
	return b.result, os.WriteFile(manifest, text, 0o644)
}

// take adds one source.
func (b *builder) take(from string) error {
	kind, arg, _ := strings.Cut(from, ":")
	switch kind {
	case "iso":
		return b.iso(arg)
	case "dir":
		return b.directory(arg)
	case "debian-netboot":
		return b.netboot(arg)
	case "url":
		return b.url(arg)
	}
	return lane.Errorf(lane.Invalid, "say iso:FILE, dir:DIR, debian-netboot or url:URL#sha256=HEX")
}

// checkFile compares a published file with its digest.
func (b *builder) checkFile(file string) error {
	want, by := b.Digest, "the digest that was given"
	if b.Sums != nil {
		list := b.Sums
		by = "a list of digests that nobody signed"
		if b.Keys != nil {
			content, signer, err := Signed(b.Sums, b.Signature, b.Keys, b.Now)
			if err != nil {
				return err
			}
			list, by = content, "a list of digests signed by "+signer
		}
		name := b.SumsName
		if name == "" {
			name = filepath.Base(file)
		}
		var err error
		if want, err = Sum(list, name); err != nil {
			return err
		}
	}
	if want == "" {
		return nil
	}
	have, _, err := hashFile(b.ctx, file, b.Tell)
	if err != nil {
		return err
	}
	if have != want {
		return lane.Errorf(lane.Refused, "it is not what was published: its digest is %s, that of %s is %s; fetch it again", have, by, want)
	}
	b.result.Checked = by
	return nil
}

// iso takes the boot files out of a distribution's image.
func (b *builder) iso(file string) error {
	if err := b.checkFile(file); err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read from
	s, err := f.Stat()
	if err != nil {
		return err
	}
	image, err := iso.Open(f, s.Size())
	if err != nil {
		return err
	}
	if err := b.medium(image); err != nil {
		return err
	}
	if err := b.whole(file); err != nil {
		return err
	}
	if b.media.Shim != "" && b.media.GRUB != "" {
		return nil
	}
	return b.elTorito(image)
}

// whole takes the image itself along, where its installer fetches the rest of it.
func (b *builder) whole(file string) error {
	if !b.media.Tree && (b.media.Args == "" || b.Args != "") {
		return nil
	}
	name := filepath.Base(file)
	if filepath.Clean(filepath.Dir(file)) == filepath.Clean(b.Dir) { // downloaded to its place already
		d, size, err := hashFile(b.ctx, file, b.Tell)
		if err != nil {
			return err
		}
		b.image, b.result.Files = name, append(b.result.Files, File{name, name, size, d})
		return nil
	}
	dir, err := os.OpenRoot(filepath.Dir(file))
	if err != nil {
		return err
	}
	b.image = name
	return errors.Join(b.copy(dir.FS(), name, name), dir.Close())
}

// elTorito looks for the boot loaders in the image that firmware boots, when they are
// nowhere else.
func (b *builder) elTorito(image *iso.Image) error {
	images, err := image.BootImages()
	if err != nil {
		return err
	}
	suffix := map[lane.Arch]string{lane.X86_64: "x64", lane.ARM64: "aa64"}[b.media.Arch]
	for _, i := range images {
		if i.Platform != "efi" {
			continue
		}
		files, err := i.Files()
		if err != nil {
			return fmt.Errorf("the EFI boot image: %w", err)
		}
		for _, c := range []struct {
			into *string
			name string
		}{{&b.media.Shim, "efi/boot/boot" + suffix + ".efi"}, {&b.media.GRUB, "efi/boot/grub" + suffix + ".efi"}} {
			if p := fold(files, c.name); p != "" && *c.into == "" {
				*c.into = p
				if err := b.copy(files, p, strings.ToLower(path.Base(p))); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// medium recognises a file system and copies what a network boot needs.
func (b *builder) medium(fsys fs.FS) error {
	m, err := Recognise(fsys)
	if err != nil {
		return err
	}
	if b.media.Kernel != "" {
		return lane.Errorf(lane.Invalid, "a bundle is built from one medium, and this is the second: %q", m.Title)
	}
	b.media, b.result.Title = m, m.Title
	for _, p := range []string{m.Kernel, m.Initrd, m.Shim, m.GRUB} {
		if p == "" {
			continue
		}
		name := path.Base(p)
		if strings.EqualFold(path.Ext(p), ".efi") {
			name = strings.ToLower(name) // as shim asks for GRUB
		}
		if err := b.copy(fsys, p, name); err != nil {
			return err
		}
	}
	return nil
}

// directory takes a medium's tree, or plainly all the files of one directory.
func (b *builder) directory(dir string) error {
	root, err := os.OpenRoot(dir) // no symbolic link leads out of it
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // only read from
	err = b.medium(root.FS())
	if lane.CodeOf(err) != lane.NotFound {
		return err
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			return lane.Errorf(lane.Invalid, "%s is a directory: give a directory of plain files, or a medium's whole tree", lane.Clean(e.Name(), 80))
		}
		if err := b.copy(root.FS(), e.Name(), e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// tree takes a medium's tree.
func (b *builder) tree(dir string) error {
	root, err := os.OpenRoot(dir) // no symbolic link leads out of it
	if err != nil {
		return err
	}
	return errors.Join(b.medium(root.FS()), root.Close())
}

// netbootTrees is where Debian's packages debian-installer-*-netboot-* put theirs.
const netbootTrees = "/usr/lib/debian-installer/images/*/%s/text"

// netboot takes Debian's netboot files: a netboot.tar.gz, its tree, or what is installed.
func (b *builder) netboot(arg string) error {
	if arg == "" {
		arch := map[lane.Arch]string{lane.X86_64: "amd64", lane.ARM64: "arm64"}[cmp.Or(b.Arch, lane.X86_64)]
		found, err := filepath.Glob(fmt.Sprintf(netbootTrees, arch))
		if err != nil || len(found) != 1 {
			return lane.Errorf(lane.Invalid, "%d of Debian's netboot packages for %s are installed: install debian-installer-12-netboot-%s, or name one tree, debian-netboot:DIR", len(found), arch, arch)
		}
		return b.tree(found[0])
	}
	s, err := os.Stat(arg)
	if err != nil {
		return err
	}
	if s.IsDir() {
		return b.tree(arg)
	}
	if err := b.checkFile(arg); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(b.Dir, ".unpacked-*")
	if err != nil {
		return err
	}
	err = unpack(b.ctx, arg, tmp)
	if err == nil {
		err = b.tree(tmp)
	}
	return errors.Join(err, os.RemoveAll(tmp))
}

// url downloads a file; an ISO image or netboot archive is then taken apart, anything else is
// a file of the bundle.
func (b *builder) url(arg string) error {
	u, err := url.Parse(arg)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return lane.Errorf(lane.Invalid, "this is no http or https URL")
	}
	want, err := lane.ParseDigest("sha256:" + strings.TrimPrefix(u.Fragment, "sha256="))
	if err != nil {
		return lane.Errorf(lane.Invalid, "a URL needs the digest of what it leads to: URL#sha256=HEX")
	}
	u.Fragment = ""
	name := path.Base(u.Path)
	if !lane.FileName(name) {
		return lane.Errorf(lane.Invalid, "the URL's last part, %q, cannot be a file of a bundle", lane.Clean(name, 80))
	}
	file := filepath.Join(b.Dir, name)
	if err := Fetch(b.ctx, b.Client, u.String(), file, want, b.Tell); err != nil {
		return err
	}
	b.result.Checked = "the digests that were given with the URLs"
	switch {
	case strings.HasSuffix(name, ".iso"):
		b.Sums, b.Digest = nil, ""
		if err := b.iso(file); err != nil || b.image == name {
			return err
		}
		return os.Remove(file)
	case strings.HasSuffix(name, "netboot.tar.gz"):
		b.Sums, b.Digest = nil, ""
		return errors.Join(b.netboot(file), os.Remove(file))
	}
	s, err := os.Stat(file)
	if err != nil {
		return err
	}
	b.result.Files = append(b.result.Files, File{name, u.String(), s.Size(), want})
	return nil
}

// copy copies a file into the bundle, and hashes it on the way.
func (b *builder) copy(fsys fs.FS, from, name string) error {
	if !lane.FileName(name) || slices.ContainsFunc(b.result.Files, func(f File) bool { return f.Name == name }) {
		return lane.Errorf(lane.Invalid, "%q cannot be a file of a bundle, or is one already: names are letters, digits and ._-+", lane.Clean(name, 80))
	}
	in, err := fsys.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read from
	s, err := in.Stat()
	if err != nil {
		return err
	}
	if !s.Mode().IsRegular() {
		return lane.Errorf(lane.Invalid, "%s is no plain file", lane.Clean(from, 120))
	}
	out, err := os.Create(filepath.Join(b.Dir, name))
	if err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, h), &told{stopping{b.ctx, in}, from, 0, s.Size(), b.Tell})
	if err == nil && n != s.Size() {
		err = lane.Errorf(lane.Invalid, "%s has %d bytes, not %d: the medium is cut short", lane.Clean(from, 120), n, s.Size())
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	b.result.Files = append(b.result.Files, File{name, from, n, digestOf(h)})
	return nil
}

// maxUnpacked is how many bytes an archive may unpack to: Debian's netboot has 200 MB.
const maxUnpacked = 4 << 30

// unpack unpacks files and directories of a .tar.gz into a directory, of which nothing in
// the archive can lead out. Links are left out: the files that are needed are no links.
func unpack(ctx context.Context, file, dir string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read from
	z, err := gzip.NewReader(stopping{ctx, f})
	if err != nil {
		return lane.Errorf(lane.Invalid, "this is no netboot.tar.gz: %v", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // its files were closed one by one
	left := int64(maxUnpacked)
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return lane.Errorf(lane.Invalid, "the archive is damaged, or cut short: %v", err)
		}
		name := path.Clean(h.Name)
		if !filepath.IsLocal(name) {
			return lane.Errorf(lane.Invalid, "the archive has a file called %q: such a name leads elsewhere", lane.Clean(h.Name, 120))
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if left -= h.Size; left < 0 {
			return lane.Errorf(lane.Invalid, "the archive unpacks to more than %d bytes: that is no netboot.tar.gz", int64(maxUnpacked))
		}
		if err := unpackFile(root, name, t); err != nil {
			return fmt.Errorf("unpack %s: %w", lane.Clean(name, 120), err)
		}
	}
}

func unpackFile(root *os.Root, name string, r io.Reader) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
