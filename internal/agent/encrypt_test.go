package agent

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bootlane/internal/lane"
	"bootlane/internal/luks"
	"bootlane/internal/nettest"
)

// Where the test image has its root file system.
const (
	rootAt  = 2 << 20
	rootEnd = testImageBytes - 33*512
)

// newSealedLab is a lab whose order has the disk encrypted, and whose disk has room for that.
func newSealedLab(t *testing.T, by lane.Encryption) *lab {
	l := newLab(t)
	l.grow(testImageBytes + luks.HeaderBytes + 3<<20)
	l.order.Encryption = &by
	return l
}

// grow gives the machine a disk of so many bytes.
func (l *lab) grow(size int) {
	l.machine.disk.data = bytes.Repeat([]byte("an old system's "), size/16)
	l.machine.hw.Disks[0].SizeBytes = int64(size)
}

func byTang(servers ...*nettest.Tang) (out lane.Encryption) {
	out.By = lane.EncryptionTang
	for _, s := range servers {
		out.Tang = append(out.Tang, lane.Tang{URL: s.URL, Thumbprint: s.Thumbprint})
	}
	return out
}

// opened is the root partition of a written disk, as a device of the system would be.
type opened struct {
	t         *testing.T
	path, tpm string
}

// openRoot checks the table of a written disk, and takes its root partition.
func openRoot(t *testing.T, l *lab) opened {
	t.Helper()
	disk := l.machine.disk.data
	tableOf(t, disk)
	table, err := parseGPT(disk[:headBytes], 512, int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	root, err := table.byName("root")
	if err != nil {
		t.Fatal(err)
	}
	at, size := table.span(root)
	if want := int64(len(disk)) - 33*512; at != rootAt || at+size != want {
		t.Errorf("the root partition spans %d to %d, want %d to %d", at, at+size, rootAt, want)
	}
	for off := rootAt; off < rootEnd; off += 512 {
		if sector := l.image[off:][:512]; bytes.Contains(disk[rootAt:], sector) {
			t.Fatalf("the plain sector at byte %d is left", off)
		}
	}
	o := opened{t: t, path: filepath.Join(t.TempDir(), "root")}
	if err := os.WriteFile(o.path, disk[at:at+size], 0o600); err != nil {
		t.Fatal(err)
	}
	return o
}

func (o opened) shell(script string) (string, error) {
	cmd := exec.Command("sh", "-c", script, "sh", o.path)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "TPM2TOOLS_TCTI="+o.tpm)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// unlocks reports whether the real Clevis opens a key slot, as at a boot.
func (o opened) unlocks(slot int) bool {
	_, err := o.shell(fmt.Sprintf(`clevis luks pass -d "$1" -s %d 2>/dev/null | cryptsetup open --test-passphrase --key-file - "$1"`, slot))
	return err == nil
}

// holds compares the content, decrypted by OpenSSL with the key that the real cryptsetup finds.
func (o opened) holds(plain []byte) {
	o.t.Helper()
	out, err := o.shell(`clevis luks pass -d "$1" -s 0 2>/dev/null > "$1.pass" &&
		cryptsetup luksDump --batch-mode --dump-volume-key --volume-key-file "$1.key" --key-file "$1.pass" "$1"`)
	if err != nil {
		o.t.Fatalf("%v\n%s", err, out)
	}
	if !bytes.HasPrefix(nettest.Decrypt(o.t, o.path, o.path+".key"), plain) {
		o.t.Error("OpenSSL does not decrypt it to what was in the image")
	}
}

func TestEncryptByTang(t *testing.T) {
	one, other := nettest.StartTang(t), nettest.StartTang(t)
	l := newSealedLab(t, byTang(one, other))
	if end := l.run(); end.Err != nil || !end.Reboot {
		t.Fatalf("ended with %+v\n%s", end, l.console.String())
	}
	if got, want := l.milestones(), []string{"kernel ok", "installer ok", "disk-written ok"}; !slices.Equal(got, want) {
		t.Errorf("reports %v, want %v", got, want)
	}
	if m := l.lastMessage(); !strings.Contains(m, "; encrypted in ") || !strings.HasSuffix(m, "opened by Tang, "+one.URL+" or "+other.URL) || !strings.Contains(m, "raw sha256:") {
		t.Errorf("the last report: %s", m)
	}
	if disk := l.machine.disk; disk.mounted || disk.span != [2]int64{rootAt, rootEnd - rootAt} {
		t.Errorf("mounted %v at %v", disk.mounted, disk.span)
	}
	root := openRoot(t, l)
	out, err := root.shell(`cryptsetup isLuks --type luks2 "$1" && cryptsetup luksDump "$1" && clevis luks list -d "$1"`)
	t.Log(out)
	for _, want := range []string{"0: tang '{\"url\":\"" + one.URL + "\"}'", "1: tang '{\"url\":\"" + other.URL + "\"}'"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%v: no %s in\n%s", err, want, out)
		}
	}
	if strings.Count(out, "luks2\n") != 2 {
		t.Error("there are other key slots than the servers'")
	}
	root.holds(l.image[rootAt:rootEnd])
	if err := one.Close(); err != nil || root.unlocks(0) || !root.unlocks(1) {
		t.Error("one server is gone: the other must open it, and it must not", err)
	}
	if err := other.Close(); err != nil || root.unlocks(1) {
		t.Error("it opens without its servers", err)
	}
}

func TestEncryptByTPM(t *testing.T) {
	dir := t.TempDir()
	socket, stop := nettest.StartTPM(t, filepath.Join(dir, "own"))
	defer func() { stop() }()
	l := newSealedLab(t, lane.Encryption{By: lane.EncryptionTPM2})
	l.machine.tpm = socket
	if end := l.run(); end.Err != nil || !end.Reboot {
		t.Fatalf("ended with %+v\n%s", end, l.console.String())
	}
	root := openRoot(t, l)
	root.tpm = "swtpm:path=" + socket
	if out, err := root.shell(`clevis luks list -d "$1"`); err != nil || out != `0: tpm2 '{"hash":"sha256","key":"ecc"}'`+"\n" {
		t.Error(err, out)
	}
	root.holds(l.image[rootAt:rootEnd])
	if out, err := root.shell(`tpm2_pcrextend 7:sha256=` + strings.Repeat("5a", 32)); err != nil || !root.unlocks(0) {
		t.Error("it opens only for a machine that starts as the agent did", err, out)
	}
	stop()
	socket, stop = nettest.StartTPM(t, filepath.Join(dir, "own"))
	if !root.unlocks(0) {
		t.Error("it does not open after the machine was off")
	}
	stop()
	socket, stop = nettest.StartTPM(t, filepath.Join(dir, "another"))
	root.tpm = "swtpm:path=" + socket
	if root.unlocks(0) {
		t.Error("another machine's TPM opens it")
	}
}

// TestPowerMayFailWhileEncrypting: also then nothing boots before all is proven.
func TestPowerMayFailWhileEncrypting(t *testing.T) {
	l := newSealedLab(t, byTang(nettest.StartTang(t)))
	disk := l.machine.disk
	first := true
	var boots []int64
	disk.onWrite = func(off int64, _, after []byte) {
		if !first && bootable(after) != "" {
			boots = append(boots, off)
		}
		first = false // clears the head; the old tail follows
	}
	if end := l.run(); end.Err != nil {
		t.Fatal(end.Err)
	}
	if want := []int64{disk.Size() - 33*512, 1024, 0}; !slices.Equal(boots, want) {
		t.Errorf("the disk was bootable after the writes at %v, want only %v", boots, want)
	}
}

// table is an image with partitions as sgdisk makes them by these arguments.
func (l *lab) table(args ...string) {
	l.t.Helper()
	file := filepath.Join(l.t.TempDir(), "image")
	if err := os.WriteFile(file, make([]byte, testImageBytes), 0o600); err != nil {
		l.t.Fatal(err)
	}
	run(l.t, "sgdisk", "gdisk", append(args, file)...)
	image, err := os.ReadFile(file)
	if err != nil {
		l.t.Fatal(err)
	}
	l.image = image
	l.serve(compress(l.t, image), "zstd")
}

func TestNothingIsWrittenThatNobodyOpens(t *testing.T) {
	server, gone := nettest.StartTang(t), nettest.StartTang(t)
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	tpm := lane.Encryption{By: lane.EncryptionTPM2}
	for name, c := range map[string]struct {
		by     lane.Encryption
		change func(l *lab)
		want   string
		opened int // disks
	}{
		"no room":           {byTang(server), func(l *lab) { l.grow(testImageBytes + luks.HeaderBytes - 512) }, "16 MiB more than it has itself", 0},
		"root not last":     {byTang(server), func(l *lab) { l.table("-n", "1:2048:+1M", "-c", "1:root", "-n", "2:0:0", "-c", "2:data") }, "partition 2 (data) lies behind it", 1},
		"root is first":     {byTang(server), func(l *lab) { l.table("-a", "1", "-n", "1:40:0", "-c", "1:root") }, "begins at byte 20480, and cannot be encrypted", 1},
		"no TPM":            {tpm, func(*lab) {}, "shows no TPM 2.0 to open the disk: there is none: enable the TPM 2.0 in the firmware", 0},
		"a TPM that is mad": {tpm, func(l *lab) { l.machine.tpm = "/dev/null" }, "the TPM 2.0 would not open the disk", 0},
		"server is gone":    {byTang(gone), func(*lab) {}, "nothing would open the disk at a boot: Tang at " + gone.URL + ": gave up after", 0},
		"one of two":        {byTang(server, gone), func(*lab) {}, "Tang at " + gone.URL + ": gave up", 0},
		"another's key":     {lane.Encryption{By: lane.EncryptionTang, Tang: []lane.Tang{{URL: server.URL, Thumbprint: gone.Thumbprint}}}, func(*lab) {}, "404 Not Found to GET /adv/" + gone.Thumbprint, 0},
		"no Tang":           {lane.Encryption{By: lane.EncryptionTang}, func(*lab) {}, "the disk is to be encrypted: no Tang server is named", 0},
		"by something else": {lane.Encryption{By: "passphrase"}, func(*lab) {}, "use tpm2, or tang", 0},
		"https":             {lane.Encryption{By: lane.EncryptionTang, Tang: []lane.Tang{{URL: "https://tang.example.org", Thumbprint: server.Thumbprint}}}, func(*lab) {}, "is not http://", 0},
		"no randomness":     {byTang(server), func(l *lab) { l.random = strings.NewReader("few") }, "make a passphrase", 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := newSealedLab(t, c.by)
			c.change(l)
			before := digest(l.machine.disk.data)
			l.mustFail(c.want)
			l.mustBeUntouched(before)
			if l.machine.opened != c.opened {
				t.Errorf("%d disks were opened, want %d", l.machine.opened, c.opened)
			}
		})
	}
}

// TestUnfinishedEncryption: what fails in the middle does not boot, and keeps no file in plain.
func TestUnfinishedEncryption(t *testing.T) {
	server := nettest.StartTang(t)
	for name, c := range map[string]struct {
		change func(l *lab)
		want   string
	}{
		"medium error":         {func(l *lab) { l.machine.disk.fail = rootAt + luks.HeaderBytes + 5 }, "encrypt the root file system: write at byte"},
		"the disk forgets":     {func(l *lab) { l.machine.disk.lie = rootAt + luks.HeaderBytes + 700 }, "does not decrypt to what was on it"},
		"it forgets a header":  {func(l *lab) { l.machine.disk.lie = rootAt + luks.HeaderBytes - 1 }, "does not give back the header"},
		"files are not placed": {func(l *lab) { l.machine.disk.mountErr = errors.New("bad superblock") }, "bad superblock"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newSealedLab(t, byTang(server))
			c.change(l)
			l.mustFail(c.want)
			l.mustNotBoot()
			if plain := l.machine.disk.data[rootAt:rootEnd]; len(bytes.Trim(plain, "\x00")) > 0 {
				t.Error("the host's files stay on the disk in plain")
			}
		})
	}
}
