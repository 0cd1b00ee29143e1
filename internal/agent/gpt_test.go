package agent

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// tool returns the path of a program, or fails naming the Debian package it comes in.
func tool(tb testing.TB, name, pkg string) string {
	tb.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		tb.Fatalf("this test needs %s: apt-get install %s", name, pkg)
	}
	return p
}

func run(tb testing.TB, name, pkg string, args ...string) string {
	tb.Helper()
	out, err := exec.Command(tool(tb, name, pkg), args...).CombinedOutput()
	if err != nil {
		tb.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

const testImageBytes = 4 << 20

var imageOnce struct {
	sync.Once
	data []byte
}

// sharedImage is one newImage for all tests, not to be changed.
func sharedImage(tb testing.TB) []byte {
	imageOnce.Do(func() { imageOnce.data = newImage(tb) })
	if imageOnce.data == nil {
		tb.Fatal("the test image could not be made; see the first failure")
	}
	return imageOnce.data
}

// newImage makes a disk image: a partition "root" and one before it, random-looking contents.
func newImage(tb testing.TB) []byte {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "image")
	body := make([]byte, testImageBytes)
	for i := range body {
		body[i] = byte(i*7 + i>>9*13)
	}
	clear(body[:34*512])
	clear(body[len(body)-33*512:])
	if err := os.WriteFile(file, body, 0o600); err != nil {
		tb.Fatal(err)
	}
	run(tb, "sgdisk", "gdisk", "-n", "1:2048:+1M", "-c", "1:esp", "-t", "1:ef00", "-n", "2:0:0", "-c", "2:root", file)
	out, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func TestRelocateMakesASoundTable(t *testing.T) {
	image := sharedImage(t)
	table, err := parseGPT(image[:headBytes], 512, int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	if len(table.parts) != 2 || table.parts[0].name != "esp" || table.parts[1].name != "root" {
		t.Fatalf("partitions: %+v", table.parts)
	}
	for _, size := range []int64{testImageBytes, 9 << 20, 100<<20 + 512, 5 << 40} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			fit, err := table.relocate(size)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "disk")
			f, err := os.Create(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range []patch{{0, image}, {fit.tailAt, fit.tail}, {0, fit.start}} {
				if _, err := f.WriteAt(part.data, part.at); err != nil {
					t.Fatal(err)
				}
			}
			if end := fit.tailAt + int64(len(fit.tail)); end != size {
				t.Errorf("the backup table ends at %d, the disk at %d", end, size)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if out := run(t, "sgdisk", "gdisk", "-v", file); !strings.Contains(out, "No problems found") {
				t.Errorf("sgdisk -v: %s", out)
			}
			if out := run(t, "sgdisk", "gdisk", "-i", "2", file); !strings.Contains(out, "Partition name: 'root'") {
				t.Errorf("sgdisk -i 2: %s", out)
			}
		})
	}
}

// patch is bytes at an offset.
type patch struct {
	at   int64
	data []byte
}

// reseal recomputes both checksums after a test changed the table on purpose.
func reseal(head []byte) {
	h := head[512:1024]
	n, each := binary.LittleEndian.Uint32(h[80:]), binary.LittleEndian.Uint32(h[84:])
	if end := 1024 + uint64(n)*uint64(each); end <= uint64(len(head)) {
		binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(head[1024:end]))
	}
	clear(h[16:20])
	binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
}

func TestParseGPTRefuses(t *testing.T) {
	image := sharedImage(t)
	le := binary.LittleEndian
	for name, tc := range map[string]struct {
		damage func(head []byte)
		seal   bool
		want   string
	}{
		"no table":             {func(b []byte) { clear(b) }, false, "no GUID partition table"},
		"no protective MBR":    {func(b []byte) { b[450] = 0x83 }, false, "no protective MBR"},
		"header bit":           {func(b []byte) { b[512+56] ^= 1 }, false, "header's checksum"},
		"entry bit":            {func(b []byte) { b[1024+56] ^= 1 }, false, "entries' checksum"},
		"header size":          {func(b []byte) { le.PutUint32(b[512+12:], 512) }, false, "header of 512 bytes"},
		"table of backup":      {func(b []byte) { le.PutUint64(b[512+24:], 9) }, true, "does not describe"},
		"larger than image":    {func(b []byte) { le.PutUint64(b[512+48:], 1<<40) }, true, "does not describe"},
		"usable inside out":    {func(b []byte) { le.PutUint64(b[512+40:], 1<<12); le.PutUint64(b[512+48:], 1<<11) }, true, "does not describe"},
		"many entries":         {func(b []byte) { le.PutUint32(b[512+80:], 1<<31) }, true, "entries"},
		"huge entries":         {func(b []byte) { le.PutUint32(b[512+84:], 1<<31) }, true, "entries"},
		"entries elsewhere":    {func(b []byte) { le.PutUint64(b[512+72:], 1<<55) }, true, "not in the first"},
		"partition outside":    {func(b []byte) { le.PutUint64(b[1024+40:], 1<<40) }, true, "outside"},
		"partition inside out": {func(b []byte) { le.PutUint64(b[1024+32:], 4000); le.PutUint64(b[1024+40:], 3000) }, true, "outside"},
	} {
		t.Run(name, func(t *testing.T) {
			head := bytes.Clone(image[:headBytes])
			tc.damage(head)
			if tc.seal {
				reseal(head)
			}
			if _, err := parseGPT(head, 512, testImageBytes); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	if _, err := parseGPT(image[:headBytes], 4096, testImageBytes); err == nil || !strings.Contains(err.Error(), "sectors of 512") {
		t.Errorf("an image for 512-byte sectors on a 4096-byte disk: %v", err)
	}
}

func TestByName(t *testing.T) {
	g := &gpt{parts: []partition{{number: 1, name: "a"}, {number: 2, name: "b"}, {number: 3, name: "b"}}}
	if p, err := g.byName("a"); err != nil || p.number != 1 {
		t.Errorf("a: %+v %v", p, err)
	}
	for _, name := range []string{"b", "c", ""} {
		if p, err := g.byName(name); err == nil {
			t.Errorf("%q gave partition %d", name, p.number)
		}
	}
}

func TestRelocateRefusesTooSmall(t *testing.T) {
	image := sharedImage(t)
	table, err := parseGPT(image[:headBytes], 512, testImageBytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{0, 512, 20 * 512, testImageBytes - 512, testImageBytes - 1} {
		if _, err := table.relocate(size); err == nil {
			t.Errorf("a table of %d bytes fits into %d", int64(testImageBytes), size)
		}
	}
}

// TestStretch: the last partition ends where the disk does, in both copies of a sound table.
func TestStretch(t *testing.T) {
	const more = 1 << 20
	image := sharedImage(t)
	fresh := func() *gpt {
		table, err := parseGPT(image[:headBytes], 512, testImageBytes)
		if err != nil {
			t.Fatal(err)
		}
		return table
	}
	for _, size := range []int64{testImageBytes + more, 100<<20 + 512} {
		table := fresh()
		if err := table.stretch(table.parts[1], size, more); err != nil {
			t.Fatal(err)
		}
		fit, err := table.relocate(size)
		if err != nil {
			t.Fatal(err)
		}
		disk := make([]byte, size)
		copy(disk, image)
		copy(disk, fit.start)
		copy(disk[fit.at:], fit.table)
		copy(disk[fit.tailAt:], fit.tail)
		tableOf(t, disk)
		for _, head := range [][]byte{disk[:headBytes], append(bytes.Clone(disk[:512]), append(bytes.Clone(fit.start[512:1024]), fit.tail[:len(fit.table)]...)...)} {
			got, err := parseGPT(head, 512, size)
			if err != nil {
				t.Fatal(err)
			}
			if at, n := got.span(got.parts[1]); at != 2<<20 || at+n != size-33*512 || got.parts[0] != table.parts[0] {
				t.Errorf("it spans %d and %d bytes of %d", at, n, size)
			}
		}
	}
	for size, p := range map[int64]int{testImageBytes + more - 512: 1, testImageBytes: 1, 0: 1, 100 << 20: 0} {
		table := fresh()
		if err := table.stretch(table.parts[p], size, more); err == nil || !bytes.Equal(table.entries, fresh().entries) {
			t.Errorf("partition %d was stretched on a disk of %d", p+1, size)
		}
	}
}

func FuzzParseGPT(f *testing.F) {
	image := sharedImage(f)
	small := bytes.Clone(image[:1024+4*128]) // four entries rather than 128: the fuzzer gets further
	binary.LittleEndian.PutUint32(small[512+80:], 4)
	reseal(small)
	f.Add(small, 512, int64(testImageBytes), false)
	f.Add(small, 512, int64(testImageBytes), true)
	f.Add(image[:4096], 4096, int64(0), false)
	f.Fuzz(func(t *testing.T, head []byte, sector int, size int64, seal bool) {
		if seal && len(head) >= 1024 {
			reseal(head)
		}
		g, err := parseGPT(head, sector, size)
		if err != nil {
			return
		}
		for _, p := range g.parts {
			if at, n := g.span(p); at < 0 || n <= 0 || at+n > size {
				t.Errorf("partition %d spans %d+%d of %d", p.number, at, n, size)
			}
		}
		for _, p := range g.parts {
			_ = g.stretch(p, size, 1<<20) // whatever it says, what follows must hold
		}
		if fit, err := g.relocate(size); err == nil && (fit.tailAt < 0 || fit.tailAt+int64(len(fit.tail)) > size) {
			t.Errorf("the backup table lies at %d, disk of %d", fit.tailAt, size)
		}
	})
}
