package uefi_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"bootlane/internal/uefi"
)

// secureCode is Debian's OVMF that can enforce Secure Boot. What it trusts is in the store.
const secureCode = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"

// machine is a virtual one with real firmware. It has one disk, with one file, which
// firmware starts by itself.
type machine struct {
	dir, vars string
	boots     int
}

func newMachine(t *testing.T, store []byte) *machine {
	t.Helper()
	m := &machine{dir: t.TempDir()}
	m.vars = filepath.Join(m.dir, "vars.fd")
	if err := os.WriteFile(m.vars, store, 0o600); err != nil {
		t.Fatal(err)
	}
	return m
}

// boot starts the machine with an image, and returns what its console shows by the time
// it shows one of the patterns, or is off.
func (m *machine) boot(t *testing.T, image []byte, until string) string {
	t.Helper()
	m.boots++
	disk, serial := filepath.Join(m.dir, fmt.Sprintf("disk%d", m.boots)), filepath.Join(m.dir, fmt.Sprintf("serial%d", m.boots))
	if err := os.MkdirAll(disk+"/EFI/BOOT", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(disk+"/EFI/BOOT/BOOTX64.EFI", image, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-machine", "q35,accel=tcg,graphics=off,smm=on", "-cpu", "EPYC", "-m", "256",
		"-global", "driver=cfi.pflash01,property=secure,value=on", "-display", "none", "-no-user-config", "-nodefaults", "-no-reboot", "-serial", "file:"+serial,
		"-drive", "if=pflash,format=raw,readonly=on,file="+secureCode, "-drive", "if=pflash,format=raw,file="+m.vars,
		"-drive", "if=none,id=disk,format=raw,readonly=on,file=fat:"+disk, "-device", "virtio-blk-pci,drive=disk,bootindex=1")
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: install Debian's qemu-system-x86 and ovmf (scripts/setup)", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed, or switches itself off
		close(ended)
	}()
	defer func() {
		cancel()
		<-ended
	}()
	ansi, done := regexp.MustCompile(`\x1b\[[0-9;?=]*[A-Za-z]|\r|\x00`), regexp.MustCompile(until)
	for {
		off := false
		select {
		case <-ended:
			off = true
		case <-time.After(200 * time.Millisecond): // another process writes the file: there is nothing to wait on
		}
		b, _ := os.ReadFile(serial) // not there yet
		text := ansi.ReplaceAllString(string(b), "")
		if done.MatchString(text) {
			return text
		}
		if off {
			t.Fatalf("the machine is off, and its console shows nothing like %q:\n%s\n%s", until, text, &log)
		}
	}
}

const (
	runs     = "iPXE initialising devices"
	rejected = `failed to load Boot\d+ .*: (Access Denied|Security Violation)`
)

// starts says whether the machine starts the image, which is an iPXE.
func (m *machine) starts(t *testing.T, image []byte) bool {
	t.Helper()
	return strings.Contains(m.boot(t, image, runs+"|"+rejected), runs)
}

// call is one SetVariable, and the EFI_STATUS that is expected: 26 is EFI_SECURITY_VIOLATION.
type call struct {
	what   string
	v      uefi.Variable
	update []byte
	join   bool
	want   int
}

// setter compiles a UEFI application that makes these calls.
func setter(t *testing.T, calls []call) []byte {
	t.Helper()
	var b strings.Builder
	b.WriteString("static const struct variable variables[] = {\n")
	list := func(data []byte) string { return strings.Trim(strings.ReplaceAll(fmt.Sprint(data), " ", ","), "[]") }
	for _, c := range calls {
		vendor, attributes := c.v.Vendor(), 0x27
		if c.join {
			attributes = 0x67
		}
		fmt.Fprintf(&b, "\t{u%q, {%s}, %d, %d, {%s}},\n", c.v.Name, list(vendor[:]), attributes, len(c.update), list(c.update))
	}
	b.WriteString("};\n")
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/variables.h", []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, "gcc", "-std=gnu11", "-ffreestanding", "-fno-ident", "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-mno-red-zone", "-fPIC", "-O1",
		"-I", dir, "-c", "-o", dir+"/setvars.o", "testdata/setvars.c")
	must(t, "ld", "-m", "i386pep", "--subsystem", "10", "-e", "efi_main", "-o", dir+"/setvars.efi", dir+"/setvars.o")
	return read(t, dir+"/setvars.efi")
}

// play makes the calls on the machine and compares what firmware answers.
func (m *machine) play(t *testing.T, calls []call, sign func([]byte) []byte) {
	t.Helper()
	console := m.boot(t, sign(setter(t, calls)), fmt.Sprintf(`set %02d: \d\d`, len(calls)-1))
	for i, c := range calls {
		if want := fmt.Sprintf("set %02d: %02d", i, c.want); !strings.Contains(console, want) {
			t.Errorf("%s: want %q of\n%s", c.what, want, console)
		}
	}
}

// TestFirmwareTakesKeys gives our updates to real firmware in setup mode, which ends in
// enforced Secure Boot: it then starts what we signed, and nothing else. The same keys,
// written into the store's file, do the same.
func TestFirmwareTakesKeys(t *testing.T) {
	t.Parallel()
	pk, kek, db, second, stranger := pair(t, "PK"), pair(t, "KEK"), pair(t, "db"), pair(t, "second db"), pair(t, "stranger")
	o := ownerOf(t, pk, kek, db)
	o.Microsoft = []string{uefi.Microsoft2011, uefi.Microsoft2023}
	ipxe := read(t, ipxeFile)
	forbidden := sign(t, append(bytes.Clone(ipxe), "another build"...), db)
	im, err := uefi.ParseImage(forbidden)
	if err != nil {
		t.Fatal(err)
	}
	o.Forbidden = []uefi.Entry{{Owner: o.GUID, SHA256: im.Signatures[0].Digest}}
	vars := map[string]uefi.Variable{}
	for _, v := range variables(t, o) {
		vars[v.Name] = v
	}
	more := uefi.Variable{Name: "db", Entries: []uefi.Entry{{Owner: o.GUID, Certificate: second.Certificate}}}
	of := func(what string, v uefi.Variable, by uefi.Signer, at time.Time, join bool, want int) call {
		update, err := v.Update(by, at, join)
		if err != nil {
			t.Fatal(err)
		}
		return call{what, v, update, join, want}
	}
	calls := []call{
		of("PK, signed by itself", vars["PK"], pk, day, false, 0),
		of("KEK, signed by a stranger", vars["KEK"], stranger, day, false, 26),
		of("KEK, signed by PK", vars["KEK"], pk, day, false, 0),
		of("db, signed by a stranger", vars["db"], stranger, day, false, 26),
		of("db, signed by KEK", vars["db"], kek, day, false, 0),
		of("db, of the same time", vars["db"], kek, day, false, 26),
		of("db, an older one", vars["db"], kek, day.Add(-time.Hour), false, 26),
		of("db, one more", more, kek, day, true, 0),
		of("dbx, signed by KEK", vars["dbx"], kek, day, false, 0),
	}
	tampered := of("dbx, tampered with", vars["dbx"], kek, day.Add(time.Hour), false, 26)
	tampered.update[len(tampered.update)-1] ^= 1
	taken := newMachine(t, read(t, emptyStore))
	taken.play(t, append(calls, tampered), bytes.Clone)

	offline, err := uefi.EnrolInStore(read(t, emptyStore), variables(t, o), day)
	if err != nil {
		t.Fatal(err)
	}
	type started struct {
		name string
		data []byte
		want bool
	}
	both := []started{{"signed by us", sign(t, ipxe, db), true}, {"unsigned", ipxe, false}}
	for name, c := range map[string]struct {
		m      *machine
		certs  int // in db
		images []started
	}{
		"taken by firmware":      {taken, 4, append(both, started{"signed by the second", sign(t, ipxe, second), true}, started{"signed by a stranger", sign(t, ipxe, stranger), false}, started{"forbidden", forbidden, false})},
		"written into the store": {newMachine(t, offline), 3, both},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := uefi.ParseFirmware(name, read(t, c.m.vars))
			if err != nil || len(f.DB.Certificates) != c.certs || f.DBX.Hashes() != 1 {
				t.Fatalf("%v: the store has %d certificates in db, %d digests in dbx", err, len(f.DB.Certificates), f.DBX.Hashes())
			}
			for _, image := range c.images {
				if got := c.m.starts(t, image.data); got != image.want {
					t.Errorf("%s: started %v, want %v", image.name, got, image.want)
				}
				// What we say of the chain is what firmware does.
				if p := uefi.Prove(uefi.Policy{Firmware: f}, []uefi.File{{Name: "image", Data: image.data}}); p.Proven != image.want {
					t.Errorf("%s: proven %v, want %v: %+v", image.name, p.Proven, image.want, p.Links[0].Broken)
				}
			}
			// The machine is given back: PK deletes itself, and anything starts again.
			gone := of("PK, deleted", uefi.Variable{Name: "PK"}, pk, day.Add(time.Second), false, 0)
			c.m.play(t, []call{gone}, func(image []byte) []byte { return sign(t, image, db) })
			if !c.m.starts(t, ipxe) {
				t.Error("in setup mode, the unsigned image does not start")
			}
		})
	}
}
