package source_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bootlane/internal/bundle"
	"bootlane/internal/iso"
	"bootlane/internal/iso/isotest"
	"bootlane/internal/lane"
	"bootlane/internal/source"
)

const treeinfo = "[general]\nfamily = Rocky Linux\nversion = 9.5\narch = x86_64\n\n[images-x86_64]\nkernel = images/pxeboot/vmlinuz\ninitrd = images/pxeboot/initrd.img\n"

// anaconda is the boot image of RHEL and its kin.
func anaconda(treeinfo string) map[string]string {
	return map[string]string{".treeinfo": treeinfo, "images/pxeboot/vmlinuz": "the kernel", "images/pxeboot/initrd.img": "the initrd", "EFI/BOOT/BOOTX64.EFI": "shim", "EFI/BOOT/grubx64.efi": "GRUB"}
}

// media are the layouts of the distributions.
func media() map[string]map[string]string {
	netboot := map[string]string{"version.info": "Debian version:  12 (bookworm)\nInstaller build: 20230607+deb12u15\n", "debian-installer/amd64/linux": "the kernel", "debian-installer/amd64/initrd.gz": "the initrd",
		"debian-installer/amd64/bootnetx64.efi": "shim", "debian-installer/amd64/grubx64.efi": "GRUB", "pxelinux.0": "-> debian-installer/amd64/pxelinux.0"}
	return map[string]map[string]string{
		"debian": isotest.DebianCD(), "debian-netboot": netboot,
		"ubuntu": {".disk/info": `Ubuntu-Server 24.04.1 LTS "Noble Numbat" - Release amd64 (20240827)`, "casper/vmlinuz": "the kernel", "casper/initrd": "the initrd",
			"EFI/boot/bootx64.efi": "shim", "EFI/boot/grubx64.efi": "GRUB", "EFI/boot/mmx64.efi": "mok"},
		"rocky":  anaconda(treeinfo),
		"centos": anaconda(strings.Replace(treeinfo, "Rocky Linux", "CentOS Stream", 1)),
		"sles":   {"media.1/products": "/ SLE-15-SP5-Online 15.5-0\n", "boot/x86_64/loader/linux": "the kernel", "boot/x86_64/loader/initrd": "the initrd", "EFI/BOOT/bootx64.efi": "shim", "EFI/BOOT/grub.efi": "GRUB"},
	}
}

func build(t testing.TB, r source.Request) (source.Result, error) {
	t.Helper()
	if r.Dir == "" {
		r.Dir = filepath.Join(t.TempDir(), "bundle")
	}
	r.Now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	return source.Build(context.Background(), r)
}

// TestLayouts builds of each distribution's image, and of its tree: the same bundle.
func TestLayouts(t *testing.T) {
	for name, want := range map[string]string{
		"debian":         "name: debian-bookworm os: debian seed: debian-preseed/1 kernel: vmlinuz initrd: initrd.gz bootx64.efi grubx64.efi CD's initrd looks for the CD",
		"debian-netboot": "name: debian-bookworm os: debian seed: debian-preseed/1 kernel: linux initrd: initrd.gz bootnetx64.efi grubx64.efi mirror:",
		"ubuntu":         "name: ubuntu-24.04.1 os: ubuntu seed: nocloud/1 kernel: vmlinuz initrd: initrd bootx64.efi grubx64.efi url={file:test.iso}",
		"centos":         "name: centos-9.5 os: centos kernel: vmlinuz initrd: initrd.img bootx64.efi grubx64.efi inst.repo={tree} no template",
	} {
		dir := isotest.Files(t, media()[name])
		iso := isotest.ISO(t, dir)
		for _, from := range []string{"iso:" + iso, "dir:" + dir} {
			r, err := build(t, source.Request{From: []string{from}})
			if err != nil {
				t.Errorf("%s: %v", from, err)
				continue
			}
			text := string(isotest.Read(t, filepath.Join(r.Dir, "bundle.yaml")))
			words := strings.Fields(want)
			if strings.Contains(want, "={") && strings.HasPrefix(from, "dir:") { // there is no image to fetch it from
				if !strings.Contains(text, "=http://...") || strings.Contains(text, "\nargs:") {
					t.Errorf("%s: nothing says what is missing in\n%s", from, text)
				}
				words = slices.DeleteFunc(words, func(w string) bool { return strings.Contains(w, "={") })
			}
			for i, w := range words {
				if strings.HasSuffix(w, ":") && i+1 < len(words) && w != "mirror:" {
					w += " " + words[i+1]
				}
				if !strings.Contains(text, w) {
					t.Errorf("%s: no %q in\n%s", name, w, text)
				}
			}
			if got := string(isotest.Read(t, filepath.Join(r.Dir, r.Files[0].Name))); got != "shim" || r.Files[0].Digest != digest(got) {
				t.Errorf("%s: %s is %q", name, r.Files[0].Name, got)
			}
			if whole := filepath.Join(r.Dir, "test.iso"); strings.Contains(text, "={") && string(isotest.Read(t, whole)) != string(isotest.Read(t, iso)) {
				t.Errorf("%s: the image in the bundle is another one", name)
			}
			// What a seed answers is a bundle as it is, or once it has a mirror.
			_, err = bundle.ReadManifest(r.Dir)
			if preseed := strings.Contains(want, "debian-preseed"); preseed != strings.Contains(fmt.Sprint(err), "mirror: is missing") || !preseed && (err == nil) != strings.Contains(want, "seed:") {
				t.Errorf("%s: %v\n%s", name, err, text)
			}
		}
	}
}

// TestSUSE: service packs are told as the systems tell them, and a medium without packages is told.
func TestSUSE(t *testing.T) {
	for name, c := range map[string]struct {
		products, extra string
		want            []string
		missing         string
	}{
		"full":   {"/ SLE-15-SP5-Full 15.5-0\n", "Module-Basesystem/repodata/repomd.xml", []string{"name: sles-15.5", "os: sles", `release: "15.5"`, "seed: autoyast/1", "tree: test.iso"}, ""},
		"online": {"/ SLE-15-SP5-Online 15.5-0\n", "", []string{"seed: autoyast/1", "tree: test.iso"}, "YaST takes them from a full medium"},
		"leap":   {"/ openSUSE-Leap-15.6-DVD 15.6-0\n", "repodata/repomd.xml", []string{"os: opensuse-leap", "seed: autoyast/1", "tree: test.iso"}, ""},
		"older":  {"/ SLE-12-SP5-Server 12.5-0\n", "", []string{"os: sles", `release: "12.5"`, `args: "install={tree}"`}, "no template of this version"},
	} {
		files := maps.Clone(media()["sles"])
		files["media.1/products"] = c.products
		if c.extra != "" {
			files[c.extra] = "packages"
		}
		r, err := build(t, source.Request{From: []string{"iso:" + isotest.ISO(t, isotest.Files(t, files))}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		text := string(isotest.Read(t, filepath.Join(r.Dir, "bundle.yaml")))
		for _, w := range append(c.want, c.missing) {
			if !strings.Contains(text, w) {
				t.Errorf("%s: no %q in\n%s", name, w, text)
			}
		}
		if told := strings.Contains(text, "# Missing:"); told != (c.missing != "") {
			t.Errorf("%s: missing: %v\n%s", name, told, text)
		}
	}
}

// TestAnaconda: the seed leads to the image as the bundle's tree, and needs packages from it or from a mirror.
func TestAnaconda(t *testing.T) {
	fedora := strings.NewReplacer("Rocky Linux", "Fedora", "9.5", "42").Replace(treeinfo)
	for _, c := range []struct {
		name, treeinfo, packages, kind, mirror, args string
		want                                         []string
		missing                                      string // the problem's first word; empty: it is a whole bundle
	}{
		{"DVD", treeinfo, "BaseOS/repodata/repomd.xml", "iso:", "", "", []string{"name: rocky-9.5", "os: rocky", `release: "9.5"`, "seed: kickstart/1", "tree: test.iso"}, ""},
		{"DVD with arguments", treeinfo, "BaseOS/repodata/repomd.xml", "iso:", "", "console=ttyS0", []string{`args: "console=ttyS0"`, "tree: test.iso"}, ""},
		{"boot image", treeinfo, "", "iso:", "", "", []string{"seed: kickstart/1", "tree: test.iso"}, "mirror: this image has no packages"},
		{"boot image and a mirror", treeinfo, "", "iso:", "http://m/9.5", "", []string{"tree: test.iso", "mirror: http://m/9.5"}, ""},
		{"tree", treeinfo, "BaseOS/repodata/repomd.xml", "dir:", "", "", []string{"seed: kickstart/1"}, "tree: Anaconda fetches"},
		{"tree and a mirror", treeinfo, "", "dir:", "http://m/9.5", "", []string{"mirror: http://m/9.5"}, ""},
		{"Fedora's DVD", fedora, "repodata/repomd.xml", "iso:", "", "", []string{"name: fedora-42", "os: fedora", `release: "42"`, "seed: kickstart/1", "tree: test.iso"}, ""},
		{"release 7", strings.Replace(treeinfo, "9.5", "7.9", 1), "", "iso:", "", "", []string{"os: rocky", "inst.repo={tree}", "tree: test.iso"}, "a seed: no template"},
	} {
		files := anaconda(c.treeinfo)
		if c.packages != "" {
			files[c.packages] = "packages"
		}
		from := isotest.Files(t, files)
		if c.kind == "iso:" {
			from = isotest.ISO(t, from)
		}
		r, err := build(t, source.Request{From: []string{c.kind + from}, Mirror: c.mirror, Args: c.args})
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		text := string(isotest.Read(t, filepath.Join(r.Dir, "bundle.yaml")))
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", c.name, want, text)
			}
		}
		if c.kind == "dir:" && strings.Contains(text, "\ntree:") {
			t.Errorf("%s: a tree in\n%s", c.name, text)
		}
		if want := c.missing != ""; len(r.Problems) != map[bool]int{true: 1}[want] || want && !strings.HasPrefix(r.Problems[0], c.missing) {
			t.Errorf("%s: problems %q, want %q", c.name, r.Problems, c.missing)
		}
		if _, err := bundle.ReadManifest(r.Dir); c.missing == "" && err != nil {
			t.Errorf("%s: %v\n%s", c.name, err, text)
		}
	}
}

func digest(s string) lane.Digest {
	return lane.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(s))))
}

// TestLoadersInElTorito: some images have their boot loaders only where firmware looks.
func TestLoadersInElTorito(t *testing.T) {
	tree := media()["ubuntu"]
	for n := range tree {
		if strings.HasPrefix(n, "EFI/") {
			delete(tree, n)
		}
	}
	tree["boot/efi.img"] = string(isotest.Read(t, isotest.FAT(t, "2000", "12", map[string]string{"EFI/BOOT/BOOTX64.EFI": "shim", "EFI/BOOT/grubx64.efi": "GRUB"})))
	tree[".disk/info"] = `Ubuntu-Server 24.04.1 LTS "Noble Numbat" - Release amd64 (20240827)`
	if r, err := build(t, source.Request{From: []string{"dir:" + isotest.Files(t, tree)}}); err != nil || !strings.Contains(string(isotest.Read(t, filepath.Join(r.Dir, "bundle.yaml"))), "arch: x86_64") {
		t.Errorf("the architecture in the title: %v", err)
	}
	tree[".disk/info"] = `Ubuntu-Server 24.04.1 LTS "Noble Numbat"`
	_, err := build(t, source.Request{From: []string{"iso:" + isotest.ISO(t, isotest.Files(t, tree))}})
	if lane.CodeOf(err) != lane.Invalid || !strings.Contains(err.Error(), "does not tell its architecture") {
		t.Errorf("without a catalog: %v", err)
	}
	delete(tree, "casper/vmlinuz")
	delete(tree, "casper/initrd")
	delete(tree, ".disk/info")
	tree[".treeinfo"], tree["images/pxeboot/vmlinuz"], tree["images/pxeboot/initrd.img"] = treeinfo, "the kernel", "the initrd"
	r, err := build(t, source.Request{From: []string{"iso:" + isotest.ISO(t, isotest.Files(t, tree), "-e", "boot/efi.img", "-no-emul-boot")}})
	if err != nil || len(r.Files) != 5 {
		t.Fatalf("%v: %+v", err, r.Files)
	}
}

// TestPublished compares images with what was published beside them, signed or not.
func TestPublished(t *testing.T) {
	iso := isotest.ISO(t, isotest.Files(t, media()["rocky"]))
	sum := strings.TrimPrefix(string(digest(string(isotest.Read(t, iso)))), "sha256:")
	home := t.TempDir()
	gpg := func(args ...string) {
		isotest.Run(t, append([]string{"gpg", "--homedir", home, "--batch", "--quiet", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""}, args...)...)
	}
	gpg("--faked-system-time", "20260101T000000", "--quick-gen-key", "Release <release@example.org>", "ed25519", "sign", "never")
	list := []byte(fmt.Sprintf("%064d  other.iso\n%s *test.iso\n", 7, sum))
	bsd := []byte(fmt.Sprintf("# test.iso: 1 bytes\nSHA256 (test.iso) = %s\n", strings.ToUpper(sum)))
	file := filepath.Join(home, "SUMS")
	if err := os.WriteFile(file, list, 0o600); err != nil {
		t.Fatal(err)
	}
	gpg("--output", home+"/keys", "--export")
	gpg("--armor", "--output", home+"/keys.asc", "--export")
	gpg("--faked-system-time", "20260201T000000", "--detach-sign", "--output", home+"/sig", file)
	gpg("--faked-system-time", "20260201T000000", "--armor", "--detach-sign", "--output", home+"/sig.asc", file)
	gpg("--faked-system-time", "20260201T000000", "--clear-sign", "--output", home+"/inline", file)
	keys, armoured := isotest.Read(t, home+"/keys"), isotest.Read(t, home+"/keys.asc")
	// The key of another, who signs the same list.
	stranger := t.TempDir()
	isotest.Run(t, "gpg", "--homedir", stranger, "--batch", "--quiet", "--passphrase", "", "--quick-gen-key", "Stranger", "ed25519", "sign", "never")
	isotest.Run(t, "gpg", "--homedir", stranger, "--batch", "--quiet", "--output", stranger+"/sig", "--detach-sign", file)

	wrong := bytes.Replace(list, []byte(sum[:8]), []byte("00000000"), 1)
	for name, c := range map[string]struct {
		r    source.Request
		want string // of the error, or of what it was checked against
		code lane.Code
	}{
		"digest":             {source.Request{Digest: lane.Digest("sha256:" + sum)}, "the digest that was given", ""},
		"wrong digest":       {source.Request{Digest: digest("x")}, "it is not what was published", lane.Refused},
		"unsigned list":      {source.Request{Sums: list}, "nobody signed", ""},
		"BSD's form":         {source.Request{Sums: bsd}, "nobody signed", ""},
		"wrong list":         {source.Request{Sums: wrong}, "it is not what was published", lane.Refused},
		"not in the list":    {source.Request{Sums: []byte("x")}, "has no SHA-256 of test.iso", lane.NotFound},
		"another name":       {source.Request{Sums: list, SumsName: "other.iso"}, "it is not what was published", lane.Refused},
		"two digests":        {source.Request{Sums: append([]byte(fmt.Sprintf("%064d  gtk/test.iso\n", 1)), list...)}, "two digests of test.iso", lane.Invalid},
		"signed":             {source.Request{Sums: list, Signature: isotest.Read(t, home+"/sig"), Keys: keys}, "signed by Release <release@example.org>", ""},
		"armoured":           {source.Request{Sums: list, Signature: isotest.Read(t, home+"/sig.asc"), Keys: armoured}, "signed by Release", ""},
		"inline":             {source.Request{Sums: isotest.Read(t, home+"/inline"), Keys: keys}, "signed by Release", ""},
		"inline, unchecked":  {source.Request{Sums: isotest.Read(t, home+"/inline")}, "nobody signed", ""},
		"tampered list":      {source.Request{Sums: append([]byte("# x\n"), list...), Signature: isotest.Read(t, home+"/sig"), Keys: keys}, "does not hold", lane.Refused},
		"tampered inline":    {source.Request{Sums: bytes.Replace(isotest.Read(t, home+"/inline"), []byte("other.iso"), []byte("0ther.iso"), 1), Keys: keys}, "does not hold", lane.Refused},
		"stranger":           {source.Request{Sums: list, Signature: isotest.Read(t, stranger+"/sig"), Keys: keys}, "does not hold", lane.Refused},
		"no signature":       {source.Request{Sums: list, Keys: keys}, "not signed inline", lane.Invalid},
		"no keyring":         {source.Request{Sums: list, Signature: isotest.Read(t, home+"/sig"), Keys: []byte("keys")}, "no keyring", lane.Invalid},
		"rubbish, signature": {source.Request{Sums: list, Signature: []byte("sig"), Keys: keys}, "does not hold", lane.Refused},
		// Behind the frame anybody may write what he likes.
		"added to inline": {source.Request{Sums: append(isotest.Read(t, home+"/inline"), []byte(fmt.Sprintf("%064d  test.iso\n", 2))...), Keys: keys}, "signed by Release", ""},
	} {
		c.r.From = []string{"iso:" + iso}
		r, err := build(t, c.r)
		switch {
		case c.code == "" && (err != nil || !strings.Contains(r.Checked, c.want)):
			t.Errorf("%s: %v, checked against %q", name, err, r.Checked)
		case c.code != "" && (lane.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %s: %q", name, err, c.code, c.want)
		}
		if _, serr := os.Stat(filepath.Join(r.Dir, "bundle.yaml")); (serr == nil) != (err == nil) {
			t.Errorf("%s: %v, and bundle.yaml: %v", name, err, serr)
		}
	}
}

// archive makes a .tar.gz of headers; regular files have their name as content.
func archive(t testing.TB, headers ...tar.Header) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg && h.Size == 0 {
			h.Size = int64(len(h.Name))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			_, _ = w.Write([]byte(h.Name)) // short of what the header says, in one case
		}
	}
	_ = w.Close() // the same case
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "netboot.tar.gz")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNetbootArchive(t *testing.T) {
	dir := isotest.Files(t, media()["debian-netboot"])
	good := filepath.Join(t.TempDir(), "netboot.tar.gz")
	isotest.Run(t, "tar", "-C", dir, "-czf", good, ".")
	r, err := build(t, source.Request{From: []string{"debian-netboot:" + good}, Mirror: "http://mirror.example/debian/20261101T000000Z", Version: "2026.11"})
	if err != nil || len(r.Files) != 4 || len(r.Problems) != 0 {
		t.Fatalf("%v: %+v", err, r)
	}
	if b, err := bundle.ReadManifest(r.Dir); err != nil || b.Version != "2026.11" || b.Mirror == "" {
		t.Errorf("%+v, %v", b, err)
	}
	if left, err := filepath.Glob(filepath.Join(r.Dir, ".unpacked*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644} }
	for name, c := range map[string]struct {
		path, want string
	}{
		"zip-slip":        {archive(t, file("../outside")), "leads elsewhere"},
		"absolute":        {archive(t, file(outside)), "leads elsewhere"},
		"through a link":  {archive(t, tar.Header{Typeflag: tar.TypeSymlink, Name: "d", Linkname: filepath.Dir(outside)}, file("d/outside")), "no distribution that is known"},
		"twice":           {archive(t, file("a"), file("a")), "exists"},
		"too much":        {archive(t, tar.Header{Typeflag: tar.TypeReg, Name: "a", Size: 5 << 30}), "more than"},
		"cut short":       {archive(t, tar.Header{Typeflag: tar.TypeReg, Name: "a", Size: 100}), "unexpected EOF"},
		"no archive":      {archive(t)[:0] + filepath.Join(dir, "version.info"), "no netboot.tar.gz"},
		"another archive": {archive(t, file("a")), "no distribution that is known"},
	} {
		r, err := build(t, source.Request{From: []string{"debian-netboot:" + c.path}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error about %q", name, err, c.want)
		}
		if _, err := os.Lstat(outside); err == nil {
			t.Fatalf("%s: a file outside", name)
		}
		if left, err := filepath.Glob(filepath.Join(r.Dir, "*")); name != "another archive" && name != "through a link" && (err != nil || len(left) > 0) {
			t.Errorf("%s: left behind: %v", name, left)
		}
	}
}

// TestDirectory: plain files are named by flags, and no link leads out.
func TestDirectory(t *testing.T) {
	r, err := build(t, source.Request{From: []string{"dir:" + isotest.Files(t, map[string]string{"bzImage": "k", "root.cpio": "i"})}, Kernel: "bzImage", Initrd: "root.cpio", Name: "own", Seed: "nocloud/1", Args: `console=ttyS0 x="y"`})
	if err != nil {
		t.Fatal(err)
	}
	if text := string(isotest.Read(t, filepath.Join(r.Dir, "bundle.yaml"))); !strings.Contains(text, `args: "console=ttyS0 x=\"y\""`) {
		t.Errorf("got\n%s", text)
	}
	if _, err := build(t, source.Request{From: []string{"dir:" + isotest.Files(t, isotest.DebianCD())}, Dir: r.Dir}); lane.CodeOf(err) != lane.Conflict {
		t.Errorf("over another bundle: %v", err)
	}
	secret := filepath.Join(isotest.Files(t, map[string]string{"secret": "s"}), "secret")
	tree := isotest.DebianCD()
	tree["install.amd/vmlinuz"] = "-> " + secret
	for name, c := range map[string]struct {
		from, want string
	}{
		"link out of a tree":  {"dir:" + isotest.Files(t, tree), "has none of the kernels"},
		"link out of files":   {"dir:" + isotest.Files(t, map[string]string{"a": "-> " + secret}), "escapes"},
		"no kernel":           {"dir:" + isotest.Files(t, map[string]string{"a": "x"}), `no file is the kernel ("")`},
		"a directory in it":   {"dir:" + isotest.Files(t, map[string]string{"a/b": "x"}), "is a directory"},
		"an impossible name":  {"dir:" + isotest.Files(t, map[string]string{"a b": "x"}), "cannot be a file of a bundle"},
		"missing":             {"dir:/nowhere", "no such file"},
		"of no kind":          {"ftp:x", "say iso:FILE"},
		"no image":            {"iso:" + secret, "no ISO 9660 image"},
		"no distribution's":   {"iso:" + isotest.ISO(t, isotest.Files(t, map[string]string{"a": "x"})), "no distribution that is known"},
		"incomplete":          {"dir:" + isotest.Files(t, map[string]string{".treeinfo": treeinfo}), "the medium is incomplete"},
		"treeinfo, no kernel": {"dir:" + isotest.Files(t, map[string]string{".treeinfo": "[general]\narch = x86_64\n"}), "names no kernel"},
		"treeinfo leads out":  {"dir:" + isotest.Files(t, map[string]string{".treeinfo": strings.ReplaceAll(treeinfo, "images/pxeboot", "../../etc")}), "the medium is incomplete"},
	} {
		if _, err := build(t, source.Request{From: []string{c.from}}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error about %q", name, err, c.want)
		}
	}
}

// TestFetch: what breaks off is continued, what is wrong is not kept.
func TestFetch(t *testing.T) {
	content := strings.Repeat("0123456789abcdef", 10_000)
	var asked []string
	mode := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Range"))
		switch mode {
		case "breaks off":
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			_, _ = w.Write([]byte(content[:70_000]))
			panic(http.ErrAbortHandler)
		case "no ranges":
			_, _ = w.Write([]byte(content))
		case "missing":
			http.NotFound(w, r)
		case "wrong range":
			w.Header().Set("Content-Range", "bytes 0-9/160000")
			w.WriteHeader(http.StatusPartialContent)
		default:
			http.ServeContent(w, r, "file", time.Time{}, strings.NewReader(content))
		}
	}))
	defer server.Close()
	fetch := func(file, how string, want lane.Digest) error {
		mode, asked = how, nil
		return source.Fetch(context.Background(), http.DefaultClient, server.URL+"/file", file, want, nil)
	}
	good := digest(content)
	for _, second := range []string{"", "no ranges"} {
		file := filepath.Join(t.TempDir(), "file")
		if err := fetch(file, "breaks off", good); err == nil || !strings.Contains(err.Error(), "which are kept") {
			t.Fatalf("it broke off: %v", err)
		}
		if _, err := os.Stat(file); err == nil {
			t.Fatal("a part is the file")
		}
		if err := fetch(file, second, good); err != nil || asked[0] == "" || string(isotest.Read(t, file)) != content {
			t.Errorf("%q: %v, asked for %q", second, err, asked)
		}
		if err := fetch(file, "missing", good); err != nil || len(asked) > 0 {
			t.Errorf("what is there is fetched again: %v, %q", err, asked)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	for how, want := range map[string]string{"missing": "404", "": "is not what was expected"} {
		if err := fetch(file, how, digest("x")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", how, err)
		}
	}
	if err := os.WriteFile(file+".part", []byte("rubbish of another file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := fetch(file, "wrong range", good); err == nil {
		t.Error("another range than was asked for is taken")
	}
	if err := fetch(file, "", good); lane.CodeOf(err) != lane.Refused {
		t.Errorf("rubbish, continued: %v", err)
	}
	if err := fetch(file, "", good); err != nil {
		t.Errorf("and once more: %v", err)
	}
	iso := isotest.ISO(t, isotest.Files(t, media()["rocky"]))
	content, mode = string(isotest.Read(t, iso)), ""
	r, err := build(t, source.Request{From: []string{"url:" + server.URL + "/rocky.iso#sha256=" + strings.TrimPrefix(string(digest(content)), "sha256:")}, Client: http.DefaultClient})
	if err != nil || len(r.Files) != 5 || string(isotest.Read(t, filepath.Join(r.Dir, "rocky.iso"))) != content {
		t.Errorf("an image by URL, which its installer needs: %v, %+v", err, r)
	}
	iso = isotest.ISO(t, isotest.Files(t, media()["debian"]))
	content, mode = string(isotest.Read(t, iso)), ""
	r, err = build(t, source.Request{From: []string{"url:" + server.URL + "/debian.iso#sha256=" + strings.TrimPrefix(string(digest(content)), "sha256:")}, Client: http.DefaultClient})
	if err != nil || len(r.Files) != 4 {
		t.Errorf("an image by URL: %v, %+v", err, r)
	}
	if _, err := os.Stat(filepath.Join(r.Dir, "debian.iso")); err == nil {
		t.Error("the image was left behind")
	}
	for _, bad := range []string{"url:ftp://x/y#sha256=" + strings.Repeat("0", 64), "url:" + server.URL + "/x", "url:" + server.URL + "/#sha256=" + strings.Repeat("0", 64), "url:" + server.URL + "/x#sha256=12"} {
		if _, err := build(t, source.Request{From: []string{bad}, Client: http.DefaultClient}); lane.CodeOf(err) != lane.Invalid {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// FuzzMedia: whatever an image says that it is.
func FuzzMedia(f *testing.F) {
	for _, name := range []string{"debian", "rocky", "sles"} {
		f.Add(isotest.Read(f, isotest.ISO(f, isotest.Files(f, media()[name]), "-no-pad")))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if image, err := iso.Open(bytes.NewReader(data), int64(len(data))); err == nil {
			_, _ = source.Recognise(image) // it must return
		}
	})
}

// FuzzSums: lists and signatures are a stranger's.
func FuzzSums(f *testing.F) {
	f.Add([]byte("SHA256 (a) = "+strings.Repeat("0", 64)+"\n"), []byte("-----BEGIN PGP SIGNATURE-----\n\n"), []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n"))
	f.Add([]byte("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nx\n-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n"), []byte{0x88}, []byte{0x99, 1})
	f.Fuzz(func(t *testing.T, list, signature, keys []byte) {
		if d, err := source.Sum(list, "a"); err == nil && len(d) != 71 {
			t.Errorf("a digest %q", d)
		}
		if _, by, err := source.Signed(list, signature, keys, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)); err == nil && by == "" {
			t.Error("signed by nobody")
		}
	})
}
