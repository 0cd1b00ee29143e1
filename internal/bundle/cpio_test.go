package bundle

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func cpioText(name, text string, mode uint32) cpioEntry {
	e := textEntry(name, []byte(text))
	e.mode = mode
	return e
}

// The bytes as the kernel's document on the format spells them out.
func TestCPIOBytes(t *testing.T) {
	var got bytes.Buffer
	err := writeCPIO(&got, []cpioEntry{
		cpioText("init", "#!x\n5", cpioFile|0o755),
		{name: "dev/console", mode: cpioChar | 0o600, major: 5, minor: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	const zero = "00000000"
	want := "070701" + "00000001" + "000041ed" + zero + zero + "00000002" + zero + zero + zero + zero + zero + zero + "00000004" + zero + "dev\x00" + "\x00\x00" +
		"070701" + "00000002" + "00002180" + zero + zero + "00000001" + zero + zero + zero + zero + "00000005" + "00000001" + "0000000c" + zero + "dev/console\x00" + "\x00\x00" +
		"070701" + "00000003" + "000081ed" + zero + zero + "00000001" + zero + "00000005" + zero + zero + zero + zero + "00000005" + zero + "init\x00" + "\x00" + "#!x\n5" + "\x00\x00\x00" +
		"070701" + zero + zero + zero + zero + "00000001" + zero + zero + zero + zero + zero + zero + "0000000b" + zero + "TRAILER!!!\x00" + "\x00\x00\x00"
	want += strings.Repeat("\x00", 512-len(want)%512)
	if got.String() != want {
		t.Errorf("got\n%q\nwant\n%q", got.String(), want)
	}
}

func TestCPIOUnpacks(t *testing.T) {
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Fatal("this test needs cpio: apt-get install cpio")
	}
	var archive bytes.Buffer
	if err := writeCPIO(&archive, []cpioEntry{
		cpioText("b/c/file", "contents", cpioFile|0o640),
		cpioText("b/link", "c/file", cpioLink|0o777),
		cpioText("empty", "", cpioFile|0o644),
		{name: "proc", mode: cpioDir | 0o555},
	}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command(cpio, "--extract", "--make-directories", "--no-absolute-filenames", "--quiet")
	cmd.Dir, cmd.Stdin = dir, &archive
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("cpio: %v: %s", err, out)
	}
	for name, mode := range map[string]os.FileMode{"b/c/file": 0o640, "b": os.ModeDir | 0o755, "b/c": os.ModeDir | 0o755, "empty": 0o644, "proc": os.ModeDir | 0o555} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v; want %v", name, info, err, mode)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "b/link")); err != nil || string(b) != "contents" {
		t.Errorf("through the link: %q, %v", b, err)
	}
}

func TestCPIORefuses(t *testing.T) {
	short := cpioText("f", "12345", cpioFile|0o644)
	short.size = 6
	long := cpioText("f", "12345", cpioFile|0o644)
	long.size = 4
	huge := cpioText("f", "", cpioFile|0o644)
	huge.size = 1 << 32
	broken := cpioEntry{name: "f", mode: cpioFile, open: func() (io.ReadCloser, error) { return nil, fmt.Errorf("gone") }}
	for want, list := range map[string][]cpioEntry{
		"f: it changed": {short},
		"it changed":    {long},
		"do not fit":    {huge},
		"gone":          {broken},
		"a comes twice": {cpioText("a", "", cpioFile), cpioText("a", "", cpioFile)},
	} {
		if err := writeCPIO(io.Discard, list); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
