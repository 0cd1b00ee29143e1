package iso_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"bootlane/internal/iso"
	"bootlane/internal/iso/isotest"
	"bootlane/internal/lane"
)

func openISO(t testing.TB, path string) *iso.Image {
	t.Helper()
	data := isotest.Read(t, path)
	im, err := iso.Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// TestISO: names, sizes and contents are those of the tree that was written.
func TestISO(t *testing.T) {
	tree := isotest.DebianCD()
	delete(tree, "debian") // TestFS has no say about links
	tree["empty"], tree["with space and ümlaut"] = "", "x"
	tree["large"] = strings.Repeat("0123456789", 100_000)
	tree[strings.Repeat("n", 250)] = "a name that goes on in a continuation area"
	var names []string
	for i := range 300 { // a directory of several sectors
		tree[fmt.Sprintf("many/file-number-%04d.txt", i)] = fmt.Sprint(i)
	}
	for n := range tree {
		names = append(names, n)
	}
	dir := isotest.Files(t, tree)
	for name, options := range map[string][]string{"Rock Ridge": nil, "isohybrid": {"-partition_offset", "16"}} {
		im := openISO(t, isotest.ISO(t, dir, options...))
		if err := fstest.TestFS(im, names...); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for n, want := range tree {
			if got, err := fs.ReadFile(im, n); err != nil || string(got) != want {
				t.Errorf("%s: %s has %d bytes, %v; want %d", name, n, len(got), err, len(want))
			}
		}
		if im.Label != "TEST" {
			t.Errorf("%s: the label is %q", name, im.Label)
		}
	}
}

// TestPlainISO has no Rock Ridge: names are shown in lower case, as Linux does.
func TestPlainISO(t *testing.T) {
	dir, out := isotest.Files(t, map[string]string{"CASPER/VMLINUZ": "kernel", "README.TXT": "text"}), filepath.Join(t.TempDir(), "plain.iso")
	isotest.Run(t, "xorriso", "-report_about", "FAILURE", "-rockridge", "off", "-outdev", out, "-map", dir, "/", "-commit")
	im := openISO(t, out)
	for name, want := range map[string]string{"casper/vmlinuz": "kernel", "readme.txt": "text"} {
		if got, err := fs.ReadFile(im, name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestLinks: inside of the image they are followed, out of it never.
func TestLinks(t *testing.T) {
	im := openISO(t, isotest.ISO(t, isotest.Files(t, map[string]string{
		"dir/file": "here", "inside": "-> dir/file", "dir/up": "-> ../dir/./file", "dir/self": "-> ../dir", "absolute": "-> /dir/file", "out": "-> ../../etc/passwd",
		"circle": "-> circle", "dangling": "-> nothing", "long": "-> " + strings.Repeat("./", 200) + "dir/file",
	})))
	for name, want := range map[string]string{"inside": "here", "dir/up": "here", "dir/self/self/file": "here", "long": "here"} {
		if got, err := fs.ReadFile(im, name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"absolute", "out", "circle"} {
		if got, err := fs.ReadFile(im, name); lane.CodeOf(err) != lane.Invalid {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"dangling", "missing", "dir/file/more"} {
		if _, err := fs.ReadFile(im, name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"../etc/passwd", "/dir/file", "dir/../../x", ""} {
		if _, err := im.Open(name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestMultiExtent reads a file of more than 4 GiB, which other readers cut short in silence.
func TestMultiExtent(t *testing.T) {
	t.Parallel()
	const size = 4<<30 + 300<<20 + 12345
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "big.iso")
	f, err := os.Create(filepath.Join(dir, "install.wim"))
	if err != nil {
		t.Fatal(err)
	}
	marks := map[int64]string{0: "first", 4<<30 - 2048 - 3: "across the extents", 4<<30 + 7: "behind 4 GiB", size - 4: "last"}
	for at, text := range marks {
		if _, err := f.WriteAt([]byte(text), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(size), f.Close(), os.WriteFile(filepath.Join(dir, "small"), []byte("beside it"), 0o644)); err != nil {
		t.Fatal(err)
	}
	pipe := exec.Command("bash", "-o", "pipefail", "-c", `xorriso -as mkisofs -quiet -iso-level 3 -R -o - "$1" | dd of="$2" bs=1M iflag=fullblock conv=sparse status=none`, "-", dir, out)
	if text, err := pipe.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	in, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	s, err := in.Stat()
	if err != nil {
		t.Fatal(err)
	}
	im, err := iso.Open(in, s.Size())
	if err != nil {
		t.Fatal(err)
	}
	entries, err := fs.ReadDir(im, ".")
	if err != nil || len(entries) != 2 {
		t.Fatalf("%v, %v", entries, err)
	}
	big, err := im.Open("install.wim")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := big.Stat(); err != nil || info.Size() != size {
		t.Fatalf("%v, %v", info, err)
	}
	plain, err := os.Open(filepath.Join(dir, "install.wim"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = plain.Close() }()
	theirs, ours := make([]byte, 4<<20), make([]byte, 4<<20)
	for at := int64(0); at < size; at += int64(len(ours)) {
		n := min(int64(len(ours)), size-at)
		_, err := io.ReadFull(plain, theirs[:n])
		if _, ourErr := io.ReadFull(big, ours[:n]); err != nil || ourErr != nil || !bytes.Equal(theirs[:n], ours[:n]) {
			t.Fatalf("the file of more than 4 GiB is another one behind %d: %v, %v", at, err, ourErr)
		}
	}
	if n, err := big.Read(ours); n != 0 || err != io.EOF {
		t.Errorf("%d bytes behind its end, %v", n, err)
	}
	for at, want := range marks { // and a machine that resumes its download gets the rest
		got := make([]byte, len(want))
		if _, err := big.(io.Seeker).Seek(at, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(big, got); err != nil || string(got) != want {
			t.Errorf("at %d: %q, %v", at, got, err)
		}
	}
}

// TestElTorito: what firmware boots is found in the catalog, and read.
func TestElTorito(t *testing.T) {
	loaders := map[string]string{"EFI/BOOT/BOOTX64.EFI": strings.Repeat("shim", 5000), "EFI/BOOT/grubx64.efi": "GRUB", "EFI/a name that is longer than 8.3/file": "long"}
	for bits, kib := range map[string]string{"12": "2000", "16": "20000", "32": "70000"} {
		tree := isotest.Files(t, map[string]string{"isolinux/isolinux.bin": strings.Repeat("b", 4096), "boot/grub/efi.img": string(isotest.Read(t, isotest.FAT(t, kib, bits, loaders)))})
		im := openISO(t, isotest.ISO(t, tree, "-b", "isolinux/isolinux.bin", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table",
			"-eltorito-alt-boot", "-e", "boot/grub/efi.img", "-no-emul-boot"))
		images, err := im.BootImages()
		if err != nil || len(images) != 2 || images[0].Platform != "bios" || images[1].Platform != "efi" {
			t.Fatalf("FAT%s: %+v, %v", bits, images, err)
		}
		fat, err := images[1].Files()
		if err != nil {
			t.Fatalf("FAT%s: %v", bits, err)
		}
		for n, want := range loaders {
			if got, err := fs.ReadFile(fat, n); err != nil || string(got) != want {
				t.Errorf("FAT%s: %s has %d bytes, %v", bits, n, len(got), err)
			}
		}
		if err := fstest.TestFS(fat, "EFI/BOOT/grubx64.efi"); err != nil {
			t.Errorf("FAT%s: %v", bits, err)
		}
	}
	if images, err := openISO(t, isotest.ISO(t, isotest.Files(t, isotest.DebianCD()))).BootImages(); err != nil || len(images) != 0 {
		t.Errorf("an image without a catalog: %v, %v", images, err)
	}
}

// TestDamagedISO: cut short, or with names and loops that no tool would write.
func TestDamagedISO(t *testing.T) {
	tree := isotest.DebianCD()
	tree["z/AAAAAAAAAAAA"] = strings.Repeat("z", 100_000)
	good := isotest.Read(t, isotest.ISO(t, isotest.Files(t, tree)))
	all := func(data []byte, size int64) error {
		im, err := iso.Open(bytes.NewReader(data), size)
		if err != nil {
			return err
		}
		return fs.WalkDir(im, ".", func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.Type() != 0 {
				return err
			}
			_, err = fs.ReadFile(im, p)
			return err
		})
	}
	if err := all(good, int64(len(good))); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 100, 32768, 34000, 60000, len(good) / 2, len(good) - 2048} {
		if err := all(good[:n], int64(n)); lane.CodeOf(err) != lane.Invalid {
			t.Errorf("cut short to %d of %d bytes: %v", n, len(good), err)
		}
	}
	// The file says that it is whole, and its volume that it is short.
	short := bytes.Clone(good)
	copy(short[16*2048+80:], []byte{40, 0, 0, 0})
	if err := all(short[:40*2048], 40*2048); lane.CodeOf(err) != lane.Invalid {
		t.Errorf("cut short, and patched: %v", err)
	}
	for _, name := range []string{"../../etc/xx", "/etc/passwd1", "a/../../bbbb", "nul\x00byte0000"} {
		bad := bytes.ReplaceAll(good, []byte("AAAAAAAAAAAA"), []byte(name))
		if err := all(bad, int64(len(bad))); lane.CodeOf(err) != lane.Invalid || !strings.Contains(err.Error(), "leads elsewhere") {
			t.Errorf("a file called %q: %v", name, err)
		}
	}
	// Every directory is the root: records of directories get the root's extent.
	loop := bytes.Clone(good)
	root := loop[16*2048+156+2 : 16*2048+156+18]
	for at := 18 * 2048; at+34 < 40*2048; at++ {
		if r := loop[at : at+34]; r[0] > 34 && r[25] == 2 && r[28] == 1 && r[32] > 1 {
			copy(r[2:18], root)
		}
	}
	if err := all(loop, int64(len(loop))); lane.CodeOf(err) != lane.Invalid || !strings.Contains(err.Error(), "lies in itself") {
		t.Errorf("a loop of directories: %v", err)
	}
}

// FuzzISO: whatever the bytes, everything returns, and no path leads out.
func FuzzISO(f *testing.F) {
	f.Add(isotest.Read(f, isotest.ISO(f, isotest.Files(f, isotest.DebianCD()), "-no-pad")))
	f.Fuzz(func(t *testing.T, data []byte) {
		im, err := iso.Open(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		look(t, im)
		images, err := im.BootImages()
		if err != nil {
			return
		}
		for _, i := range images {
			if fat, err := i.Files(); err == nil {
				look(t, fat)
			}
		}
	})
}

// FuzzFAT does the same to the file system of an EFI boot image.
func FuzzFAT(f *testing.F) {
	f.Add(isotest.Read(f, isotest.FAT(f, "64", "12", map[string]string{"EFI/BOOT/BOOTX64.EFI": "shim", "EFI/a longer name than that": "x"})))
	f.Fuzz(func(t *testing.T, data []byte) {
		if fat, err := iso.OpenFAT(bytes.NewReader(data), int64(len(data))); err == nil {
			look(t, fat)
		}
	})
}

// look reads two levels of a tree.
func look(t *testing.T, fsys fs.FS) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return
	}
	for _, e := range entries[:min(len(entries), 20)] {
		if strings.ContainsAny(e.Name(), "/\x00") || e.Name() == ".." {
			t.Errorf("a name %q", e.Name())
		}
		if e.IsDir() {
			_, _ = fs.ReadDir(fsys, e.Name()) // whatever it says
		} else if f, err := fsys.Open(e.Name()); err == nil {
			if s, err := f.Stat(); err != nil || s.IsDir() {
				continue // a link to a directory
			}
			if _, err := io.Copy(io.Discard, io.LimitReader(f, 1<<20)); err != nil && lane.CodeOf(err) == "" && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%q: %v", e.Name(), err)
			}
		}
	}
}
