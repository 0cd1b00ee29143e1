package lab

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestBlocks: what lies in a partition is found wherever it is moved to by whole blocks, and
// what is empty does not count.
func TestBlocks(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, make([]byte, 8<<20+512), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sgdisk", "-n", "1:2048:+1M", "-c", "1:boot", "-n", "2:4096:+2M", "-c", "2:root", "-n", "3:8192:+1M", "-c", "3:rootlike", disk).CombinedOutput(); err != nil {
		t.Fatalf("%v %s (package gdisk)", err, out)
	}
	one, two := bytes.Repeat([]byte("one "), 1024), bytes.Repeat([]byte("two "), 1024)
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	for off, b := range map[int64][]byte{2 << 20: one, 3<<20 + 4096: two, 4<<20 + 8192: one} {
		_, werr := f.WriteAt(b, off)
		err = errors.Join(err, werr)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	root, err := partition(t.Context(), disk, "root")
	if err != nil || root != (span{2 << 20, 2 << 20}) {
		t.Fatalf("the root partition: %v %v", root, err)
	}
	for _, c := range []struct {
		name string
		want [][]byte
	}{{"root", [][]byte{one, two}}, {"boot", nil}, {"rootlike", [][]byte{one}}} {
		got, err := blocks(t.Context(), disk, c.name)
		if err != nil || len(got) != len(c.want) {
			t.Errorf("%s: %d blocks, want %d: %v", c.name, len(got), len(c.want), err)
		}
		for _, b := range c.want {
			if !got[sha256.Sum256(b)] {
				t.Errorf("%s: %q is not found", c.name, b[:4])
			}
		}
	}
	if _, err := blocks(t.Context(), disk, "home"); err == nil {
		t.Error("a partition was found that is not there")
	}
}
