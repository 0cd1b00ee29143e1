// Package isotest makes ISO images and FAT file systems with the programs that
// distributions use; for tests only.
package isotest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Run runs a program of a Debian package.
func Run(t testing.TB, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(args[0]); err != nil {
		t.Fatalf("%v: install Debian's xorriso, dosfstools, mtools and gpg (scripts/setup)", err)
	}
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Files writes a tree; what begins with "-> " is a symbolic link.
func Files(t testing.TB, tree map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range tree {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		err := error(nil)
		if link, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(link, path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// ISO makes an image of a tree, as distributions do it.
func ISO(t testing.TB, dir string, options ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "test.iso")
	Run(t, append(append([]string{"xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-V", "TEST", "-o", out}, options...), dir)...)
	return out
}

// FAT makes a FAT file system with an EFI directory.
func FAT(t testing.TB, kib string, bits string, loaders map[string]string) string {
	t.Helper()
	out, dir := filepath.Join(t.TempDir(), "efi.img"), Files(t, loaders)
	Run(t, "mkfs.vfat", "-F", bits, "-C", out, kib)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		Run(t, "mcopy", "-s", "-i", out, filepath.Join(dir, e.Name()), "::")
	}
	return out
}

// Read returns a file.
func Read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// DebianCD is the layout of Debian's installer CDs.
func DebianCD() map[string]string {
	return map[string]string{
		".disk/info":            `Debian GNU/Linux 12.5.0 "Bookworm" - Official amd64 NETINST with firmware 20240210-11:27`,
		"install.amd/vmlinuz":   "the kernel",
		"install.amd/initrd.gz": "the initrd",
		"EFI/boot/bootx64.efi":  "shim",
		"EFI/boot/grubx64.efi":  "GRUB",
		"debian":                "-> .",
		"pool/main/l/linux/a-package-with-a-name-that-is-much-longer-than-what-plain-iso-9660-has_1.0_amd64.deb": "deb",
	}
}
