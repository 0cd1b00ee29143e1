package luks

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bootlane/internal/nettest"
)

// memory is a disk of so many bytes.
type memory []byte

func (m memory) ReadAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > int64(len(m)) {
		return 0, io.ErrUnexpectedEOF
	}
	return copy(b, m[off:]), nil
}

func (m memory) WriteAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > int64(len(m)) {
		return 0, io.ErrShortWrite
	}
	return copy(m[off:], b), nil
}

const before = 1 << 20 // what lies on the disk in front of the container

func random(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(rand.Reader, b); err != nil {
		t.Fatal(err)
	}
	return b
}

// filled is a disk with a content of so many bytes, and room for it to be encrypted.
func filled(t *testing.T, size int) (disk memory, plain []byte) {
	t.Helper()
	plain = bytes.Repeat(random(t, 4096), size/4096+1)[:size]
	disk = memory(bytes.Repeat([]byte("old "), (before+size+HeaderBytes+1<<20)/4))
	copy(disk[before:], plain)
	return disk, plain
}

func container(t *testing.T, slots ...Slot) *Container {
	t.Helper()
	c, err := New(rand.Reader, slots)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func nobody(int64) {}

// cryptsetup runs the real one, and returns what it says.
func cryptsetup(t *testing.T, args ...string) (string, error) {
	t.Helper()
	program, err := exec.LookPath("cryptsetup")
	if err != nil {
		program = "/usr/sbin/cryptsetup"
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%v (package cryptsetup-bin)", err)
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	return string(out), err
}

func file(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCryptsetup: the real cryptsetup takes the container, and opens it by each passphrase and no
// other; the key that it finds then is that of the content, which another program decrypts.
func TestCryptsetup(t *testing.T) {
	disk, plain := filled(t, 3*blockBytes+12345*sectorBytes)
	one, other := []byte("one passphrase"), random(t, 32)
	c := container(t, Slot{one, map[string]any{"type": "clevis", "jwe": map[string]string{"protected": "x"}}}, Slot{other, map[string]any{"type": "else"}})
	last := int64(0)
	sum, err := c.Encrypt(disk, before, int64(len(plain)), func(n int64) {
		if n <= last {
			t.Errorf("%d after %d", n, last)
		}
		last = n
	})
	if err != nil || last != int64(len(plain)) {
		t.Fatal(err, last)
	}
	if err := c.Verify(disk, before, int64(len(plain)), sum, nobody); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(disk, plain[:sectorBytes]) {
		t.Error("a plain sector is left")
	}
	path := file(t, "container", disk[before:before+HeaderBytes+len(plain)])
	if out, err := cryptsetup(t, "isLuks", "--type", "luks2", path); err != nil {
		t.Fatal(err, out)
	}
	out, err := cryptsetup(t, "luksDump", path)
	t.Log(out)
	for _, want := range []string{"offset: 16777216 [bytes]", "length: (whole device)", "cipher: aes-xts-plain64", "sector: 512 [bytes]", "0: clevis", "1: else", "PBKDF:      pbkdf2", "AF stripes: 4000"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%v: no %q", err, want)
		}
	}
	for _, pass := range [][]byte{one, other} {
		if out, err := cryptsetup(t, "open", "--test-passphrase", "--key-file", file(t, "pass", pass), path); err != nil {
			t.Error(err, out)
		}
	}
	if _, err := cryptsetup(t, "open", "--test-passphrase", "--key-file", file(t, "pass", []byte("none")), path); err == nil {
		t.Error("any passphrase opens it")
	}
	key := filepath.Join(t.TempDir(), "key")
	if out, err := cryptsetup(t, "luksDump", "--batch-mode", "--dump-volume-key", "--volume-key-file", key, "--key-file", file(t, "pass", one), path); err != nil {
		t.Fatal(err, out)
	}
	if !bytes.Equal(nettest.Decrypt(t, path, key), plain) {
		t.Error("OpenSSL does not decrypt it to what it was")
	}
	if out, err := cryptsetup(t, "repair", "--batch-mode", path); err != nil {
		t.Error(err, out)
	}
}

// TestSecondHeader: cryptsetup finds the second header where the first is gone, also behind one
// that is larger than usual.
func TestSecondHeader(t *testing.T) {
	disk, plain := filled(t, blockBytes)
	for token, size := range map[string]string{"x": "16384", strings.Repeat("long", 5000): "32768", strings.Repeat("long", 100000): "524288"} {
		c := container(t, Slot{Passphrase: []byte("p"), Token: map[string]any{"type": "x", "value": token}})
		if _, err := c.Encrypt(disk, before, int64(len(plain)), nobody); err != nil {
			t.Fatal(err)
		}
		path := file(t, "container", disk[before:])
		if out, err := cryptsetup(t, "luksDump", path); err != nil || !strings.Contains(out, "Metadata area: \t"+size) {
			t.Error(err, out)
		}
		clear(disk[before : before+areaBytes])
		path = file(t, "container", disk[before:])
		if out, err := cryptsetup(t, "open", "--test-passphrase", "--key-file", file(t, "pass", []byte("p")), path); err != nil {
			t.Error(err, out)
		}
	}
}

// breaking is a disk that fails from one write on.
type breaking struct {
	memory
	left int
}

func (b *breaking) WriteAt(p []byte, off int64) (int, error) {
	if b.left--; b.left < 0 {
		return 0, errors.New("medium error")
	}
	return b.memory.WriteAt(p, off)
}

// TestStopped: wherever it stops, nothing can be opened.
func TestStopped(t *testing.T) {
	for left := range 2 + HeaderBytes/blockBytes {
		disk, plain := filled(t, 2*blockBytes)
		d := &breaking{disk, left}
		if _, err := container(t, Slot{Passphrase: []byte("p")}).Encrypt(d, before, int64(len(plain)), nobody); err == nil || !strings.Contains(err.Error(), "medium error") {
			t.Errorf("after %d writes: %v", left, err)
		}
		if bytes.Contains(disk, []byte("LUKS\xba\xbe")) {
			t.Errorf("after %d writes there is a header", left)
		}
	}
}

// TestVerify: what the disk does not give back is seen.
func TestVerify(t *testing.T) {
	disk, plain := filled(t, blockBytes+sectorBytes)
	c := container(t, Slot{Passphrase: []byte("p")})
	sum, err := c.Encrypt(disk, before, int64(len(plain)), nobody)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{before, before + areaBytes + 100, before + HeaderBytes - 1, before + HeaderBytes, before + HeaderBytes + len(plain) - 1} {
		disk[at] ^= 1
		if err := c.Verify(disk, before, int64(len(plain)), sum, nobody); err == nil {
			t.Errorf("byte %d is another, and nobody saw it", at)
		}
		disk[at] ^= 1
	}
	if err := c.Verify(disk, before, int64(len(plain)), sum, nobody); err != nil {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		random io.Reader
		slots  []Slot
		want   string
	}{
		"no slot":      {rand.Reader, nil, "1 to 32 key slots, not 0"},
		"many":         {rand.Reader, make([]Slot, 33), "not 33"},
		"long tokens":  {rand.Reader, []Slot{{[]byte("p"), map[string]any{"type": strings.Repeat("x", maxArea)}}}, "it has 1048576 at most"},
		"no random":    {strings.NewReader("few"), []Slot{{Passphrase: []byte("p")}}, "random bytes"},
		"no JSON":      {rand.Reader, []Slot{{[]byte("p"), map[string]any{"type": func() {}}}}, "write a token"},
		"random ended": {io.LimitReader(rand.Reader, 1000), []Slot{{Passphrase: []byte("p")}}, "random bytes"},
	} {
		if _, err := New(c.random, c.slots); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := container(t, Slot{Passphrase: []byte("p")})
	for _, size := range []int64{0, 511, -512} {
		if _, err := c.Encrypt(memory(nil), 0, size, nobody); err == nil {
			t.Errorf("%d bytes were encrypted", size)
		}
	}
}

func BenchmarkEncrypt(b *testing.B) {
	c, err := New(rand.Reader, []Slot{{Passphrase: []byte("p")}})
	if err != nil {
		b.Fatal(err)
	}
	disk := make(memory, 8*blockBytes+HeaderBytes)
	b.SetBytes(8 * blockBytes)
	for b.Loop() {
		if _, err := c.Encrypt(disk, 0, 8*blockBytes, nobody); err != nil {
			b.Fatal(err)
		}
	}
}
