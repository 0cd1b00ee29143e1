package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// Roles whose machines have their disks encrypted, opened by the one or the other.
const (
	rolesTPM  = "\nroles:\n  worker: {encryption: tpm2}"
	rolesTang = "\nroles:\n  worker: {encryption: tang}"
)

// sealTools are what looks at encrypted disks.
func sealTools() []string { return []string{"clevis-luks-list", "cryptsetup", "zstd"} }

// What the initramfs shows before anybody opens the disk, and afterwards.
const (
	shutPrompt = "Please unlock disk root"
	unlocked   = "cryptsetup: root: set up successfully"
)

// staysShutFor is how long a machine is watched that must not start. The same machine must
// start in less when it may: Clevis tries every five seconds, and is done in ten or so.
const staysShutFor = time.Minute

// sealedByTPM installs an image that the agent encrypts, and boots it with the machine's own
// TPM and with another.
func sealedByTPM(ctx context.Context, l *Lab) error {
	m := l.machine("node-tpm", lane.UEFI, Disk{Serial: "SYSTEM-TPM", Bytes: 2 * gigabyte})
	m.TPM = "chip"
	if err := l.sealed(ctx, m, lane.Encryption{By: lane.EncryptionTPM2}); err != nil {
		return err
	}
	m.TPM = "other-chip"
	if err := l.staysShut(ctx, m, "with another TPM"); err != nil {
		return err
	}
	m.stop()
	m.TPM = "chip"
	if err := m.start(ctx); err != nil {
		return err
	}
	if err := l.screen(ctx, m, shutPrompt, patience); err != nil {
		return err
	}
	return l.opens(ctx, m, "its own TPM")
}

// sealedByTang does so with a Tang server, which goes and comes back.
func sealedByTang(ctx context.Context, l *Lab) error {
	server, name, err := l.tang(ctx)
	if err != nil {
		return err
	}
	m := l.machine("node-tang", lane.BIOS, Disk{Serial: "SYSTEM-TANG", Bytes: 2 * gigabyte})
	m.Install.Tang = []string{name}
	pinned, err := lane.ParseTang(name)
	if err != nil {
		return err
	}
	if err := l.sealed(ctx, m, lane.Encryption{By: lane.EncryptionTang, Tang: []lane.Tang{pinned}}); err != nil {
		return err
	}
	server.kill()
	if err := l.staysShut(ctx, m, "without its Tang server"); err != nil {
		return err
	}
	if _, again, err := l.tang(ctx); err != nil || again != name {
		return errors.Join(err, fmt.Errorf("the Tang server has come back as %s", again))
	}
	return l.opens(ctx, m, "its Tang server, which is back,")
}

// sealed installs an image whose root file system is encrypted, and looks at what is said of
// it and at the disk. The machine is off then.
func (l *Lab) sealed(ctx context.Context, m *Machine, by lane.Encryption) error {
	if l.cfg.Encryptable == "" {
		return errors.New("this scenario installs an image that can be encrypted: give its bundle with --encryptable; `make lab-full` builds one")
	}
	if err := l.ready(ctx, l.cfg.Encryptable, m); err != nil {
		return err
	}
	if err := l.install(ctx, m); err != nil {
		return err
	}
	l.expect(m.shows(unlocked), "its disk was opened by itself")
	if err := l.toldSealed(ctx, m, by); err != nil {
		return err
	}
	if err := l.pause(ctx, 10*time.Second); err != nil { // as in bootsLocally
		return err
	}
	m.stop()
	return l.onDisk(ctx, m, by)
}

// toldSealed expects that the agent and the first boot said by what the disk is opened.
func (l *Lab) toldSealed(ctx context.Context, m *Machine, by lane.Encryption) error {
	events, err := l.client.Events(ctx, m.Name, 0, 5000)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(events, func(e lane.Event) bool { return e.Kind == lane.KindStage && e.Stage == lane.StageDiskWritten })
	if l.expect(i >= 0, "the agent reported that the disk is written") {
		_, said, _ := strings.Cut(events[i].Message, "; encrypted in ")
		l.expect(strings.HasSuffix(said, "opened by "+by.String()), "and encrypted, in %s", said)
	}
	f, err := l.client.FirstBoot(ctx, m.Name)
	if err != nil {
		return err
	}
	i = slices.IndexFunc(f.Checks, func(c lane.Check) bool { return c.Name == "encryption" })
	if l.expect(i >= 0, "the first boot looked what opens the disk") {
		c := f.Checks[i]
		l.expect(c.Status == lane.CheckOK && c.Expected == by.String() && strings.HasSuffix(c.Actual, ", opened by "+by.By+" in 1 key slot(s)"), "%s", c)
	}
	return nil
}

// staysShut switches a machine on, and expects that its disk is not opened.
func (l *Lab) staysShut(ctx context.Context, m *Machine, with string) error {
	if err := m.start(ctx); err != nil {
		return err
	}
	l.say("%s is switched on %s", m.Name, with)
	if err := l.screen(ctx, m, shutPrompt, patience); err != nil {
		return err
	}
	if err := l.pause(ctx, staysShutFor); err != nil {
		return err
	}
	l.expect(!m.off() && !m.shows(unlocked) && !m.shows(m.Name+" login:"), "%s %s: a minute later it still asks for a passphrase that nobody has", m.Name, with)
	return nil
}

// opens expects that the disk of a machine that asks for its passphrase is opened soon, and
// follows the machine into its system.
func (l *Lab) opens(ctx context.Context, m *Machine, by string) error {
	from := l.now()
	if err := l.screen(ctx, m, unlocked, patience); err != nil {
		return err
	}
	took := l.now().Sub(from)
	l.expect(took < staysShutFor, "%s opened the disk of %s in %.0f s", by, m.Name, took.Seconds())
	return l.screen(ctx, m, m.Name+" login:", patience)
}

// onDisk expects that a machine's disk has the root file system in a container for Clevis,
// and nothing of it outside.
func (l *Lab) onDisk(ctx context.Context, m *Machine, by lane.Encryption) error {
	raw, header := filepath.Join(l.dir, "image.raw"), m.file("header")
	defer func() { _ = os.Remove(raw) }() // half a gigabyte; it may not have come to be
	if err := run(ctx, nil, "zstd", "-dq", filepath.Join(l.cfg.Encryptable, "disk.raw.zst"), "-o", raw); err != nil {
		return err
	}
	had, found := map[string]int{}, map[string]int{}
	for _, name := range []string{"boot", "root"} {
		plain, err := blocks(ctx, raw, name)
		if err != nil {
			return err
		}
		now, err := blocks(ctx, m.DiskFile(0), name)
		if err != nil {
			return err
		}
		had[name] = len(plain)
		for sum := range plain {
			if now[sum] {
				found[name]++
			}
		}
		l.say("%d of %d blocks of the image's partition %s are in the disk's as they were", found[name], had[name], name)
	}
	// That /boot is found shows that what is plain would be.
	l.expect(found["boot"] > had["boot"]*9/10 && had["root"] > 10_000 && found["root"] == 0, "the disk has /boot in plain, and nothing of the root file system")
	at, err := partition(ctx, m.DiskFile(0), "root")
	if err != nil {
		return err
	}
	if err := run(ctx, nil, "dd", "status=none", "iflag=skip_bytes,count_bytes", "bs=1M", "count=16M", fmt.Sprint("skip=", at.from), "if="+m.DiskFile(0), "of="+header); err != nil {
		return err
	}
	if err := run(ctx, nil, "cryptsetup", "isLuks", "--type", "luks2", header); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "clevis-luks-list", "-d", header).Output()
	want := "0: " + by.By + " "
	for _, t := range by.Tang {
		want += fmt.Sprintf("'{\"url\":%q}'\n", t.URL)
	}
	l.expect(err == nil && strings.HasPrefix(string(out), want) && strings.Count(string(out), "\n") == 1, "its root partition is a LUKS2 container, and Clevis lists what opens it: %s", bytes.TrimSpace(out))
	return nil
}

// span is a part of a disk, in bytes.
type span struct{ from, size int64 }

// partition finds a partition by its name.
func partition(ctx context.Context, disk, name string) (span, error) {
	out, err := exec.CommandContext(ctx, "partx", "--raw", "--noheadings", "-o", "NAME,START,SECTORS", disk).Output()
	if err != nil {
		return span{}, fmt.Errorf("read the partition table of %s: %w", disk, err)
	}
	for line := range strings.Lines(string(out)) {
		var s span
		if _, err := fmt.Sscanf(line, name+" %d %d", &s.from, &s.size); err == nil {
			return span{s.from * 512, s.size * 512}, nil
		}
	}
	return span{}, fmt.Errorf("%s has no partition %s", disk, name)
}

// blocks returns the digests of the blocks of a partition, but the empty ones.
func blocks(ctx context.Context, disk, name string) (map[[sha256.Size]byte]bool, error) {
	s, err := partition(ctx, disk, name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(disk)
	if err != nil {
		return nil, fmt.Errorf("open a disk: %w", err)
	}
	defer closeQuietly(f)
	out := map[[sha256.Size]byte]bool{}
	r, block, empty := io.NewSectionReader(f, s.from, s.size), make([]byte, 4096), make([]byte, 4096)
	for {
		switch _, err := io.ReadFull(r, block); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF): // before the backup of the table there may be half a block
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("read a disk: %w", err)
		case !bytes.Equal(block, empty):
			out[sha256.Sum256(block)] = true
		}
	}
}
