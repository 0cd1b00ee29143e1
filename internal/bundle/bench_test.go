package bundle

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"bootlane/internal/lane"
)

// large makes a bundle of 512 MiB in two files.
func large(b *testing.B) (dir string, size int64) {
	b.Helper()
	dir = folder(b, small("a", "1"), nil)
	block := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)
	for _, name := range []string{"linux", "initrd"} {
		f, err := os.Create(filepath.Join(dir, name))
		must(b, err)
		_, err = f.WriteString(name) // no two files are the same
		must(b, err)
		for range 256 {
			_, err = f.Write(block)
			must(b, err)
			size += int64(len(block))
		}
		must(b, f.Close())
	}
	_, err := Build(b.Context(), dir)
	must(b, err)
	return dir, size
}

// BenchmarkHash compares verifying a directory, and importing it, with sha256sum of the
// same files. Those are in the page cache for all of them.
func BenchmarkHash(b *testing.B) {
	dir, size := large(b)
	b.Run("sha256sum", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			must(b, exec.Command("sha256sum", filepath.Join(dir, "linux"), filepath.Join(dir, "initrd")).Run())
		}
	})
	b.Run("verify", func(b *testing.B) {
		b.SetBytes(size)
		f, err := Open(dir)
		must(b, err)
		for b.Loop() {
			must(b, f.Verify(b.Context()))
		}
	})
	b.Run("import", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			s := newStore(b, b.TempDir())
			_, err := s.Import(b.Context(), dir, anybody)
			must(b, err)
			b.StopTimer()
			must(b, os.RemoveAll(s.dir))
			b.StartTimer()
		}
	})
}

// BenchmarkOpen compares opening a verified file with opening a file.
func BenchmarkOpen(b *testing.B) {
	s := newStore(b, b.TempDir())
	bundle, _ := imported(b, s, small("a", "1"), map[string]string{"linux": "kernel", "initrd": "i"})
	file := bundle.Files["linux"]
	read := func(b *testing.B, f *os.File, err error) {
		must(b, err)
		var one [1]byte
		_, err = io.ReadFull(f, one[:])
		must(b, err)
		must(b, f.Close())
	}
	b.Run("store", func(b *testing.B) {
		for b.Loop() {
			f, err := s.Open(lane.BundleFile{Digest: file.Digest, SizeBytes: file.SizeBytes})
			read(b, f, err)
		}
	})
	b.Run("os", func(b *testing.B) {
		path := s.blob(file.Digest)
		for b.Loop() {
			f, err := os.Open(path)
			read(b, f, err)
		}
	})
}
