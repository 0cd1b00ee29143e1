package seed

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bootlane/internal/lane"
)

// debianInstaller is the initrd of Debian's installer, as its package has it.
const debianInstaller = "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/initrd.gz"

// installerRoot unpacks it, and tells its debconf the questions that partman's and grub-installer's
// own templates would: those packages come from a mirror later.
func installerRoot(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat(debianInstaller); err != nil {
		t.Fatalf("%v: apt-get install debian-installer-12-netboot-amd64", err)
	}
	dir := t.TempDir()
	unpack := exec.Command("sh", "-c", "zcat "+debianInstaller+" | cpio --quiet -idm --no-absolute-filenames 'bin/*' 'sbin/*' 'lib/*.so*' 'lib/x86_64-linux-gnu/*' 'lib/preseed/*' 'lib64/*' 'usr/bin/*' 'usr/sbin/*' 'usr/lib/*' 'usr/share/debconf/*' 'etc/cdebconf.conf' 'var/lib/dpkg/*'")
	unpack.Dir = dir
	// Device nodes are none of these; whatever else cpio complains of shows in what is missing.
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("unpack %s: %v\n%s", debianInstaller, err, out)
	}
	return dir
}

// inInstaller returns the machine of the other tests, within a copy of the installer's own root:
// its busybox, its shell, and its debconf. Only the network, the power and udev's database stay made up.
func inInstaller(t *testing.T, root string) *machine {
	t.Helper()
	m := &machine{t: t, root: filepath.Join(t.TempDir(), "root"), programs: "/bin:/sbin:/usr/bin:/usr/sbin"}
	if out, err := exec.Command("cp", "-a", root, m.root).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	m.furnish()
	m.write("tmp/questions", "Template: partman-auto/disk\nType: string\nDescription: disk\n\nTemplate: grub-installer/bootdev\nType: string\nDescription: bootdev\n\nTemplate: passwd/username\nType: string\nDescription: user\n\n"+
		"Template: partman-crypto/passphrase\nType: password\nDescription: passphrase\n\nTemplate: partman-crypto/passphrase-again\nType: password\nDescription: again\n")
	if status, out := m.run("mkdir -p /var/lib/cdebconf /var/cache/debconf && debconf-loadtemplate bootlane /tmp/questions"); status != 0 {
		t.Fatalf("debconf takes no templates: %d\n%s", status, out)
	}
	return m
}

// answer returns what the installer's debconf has for a question.
func (m *machine) answer(question string) string {
	m.t.Helper()
	status, out := m.run("debconf-get " + question)
	if status != 0 {
		m.t.Fatalf("debconf-get %s: %d %s", question, status, out)
	}
	return strings.TrimSpace(out)
}

// TestInDebianInstaller runs every hook of a preseed with the pieces of the real installer, against
// made-up disks: the right one is told to debconf, or the machine reports and powers off.
func TestInDebianInstaller(t *testing.T) {
	root := installerRoot(t)
	in := full(lane.SeedPreseed)
	// What is asked of NVMe and virtio is its serial number.
	serial := func(s string) lane.DiskSelector { return lane.DiskSelector{Serial: s, SizeGB: 480} }
	for name, c := range map[string]struct {
		disk lane.DiskSelector
		edit func(*machine)
		want string // what debconf is told, or words of the report
	}{
		"right":       {in.Host.Run.Disk, func(*machine) {}, "/dev/sda"},
		"NVMe":        {serial("NV1"), func(m *machine) { m.disk("nvme0n1", map[string]string{"size": "937500000", "device/serial": "NV1 "}) }, "/dev/nvme0n1"},
		"virtio":      {serial("V1"), func(m *machine) { m.disk("vda", map[string]string{"size": "937500000", "serial": "V1"}) }, "/dev/vda"},
		"wrong":       {serial("OTHER"), func(*machine) {}, "no disk matches serial=OTHER"},
		"wrong size":  {lane.DiskSelector{Serial: "S1", SizeGB: 960}, func(*machine) {}, "has the wrong size"},
		"none":        {in.Host.Run.Disk, func(m *machine) { m.remove("sys/block") }, "no disk matches"},
		"two":         {serial("S1"), func(m *machine) { m.write("udev/sdb", "ID_SERIAL_SHORT=S1\n") }, "2 disks match"},
		"RAID member": {in.Host.Run.Disk, func(m *machine) { m.holds("md0", "sda", "sdb") }, "shares an array"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, in := inInstaller(t, root), full(lane.SeedPreseed)
			in.Host.Run.Disk = c.disk
			c.edit(m)
			if status, out := m.run("debconf-set partman-auto/disk /dev/bootlane-unresolved"); status != 0 { // as the preseed does
				t.Fatal(status, out)
			}
			m.expect(document(t, in, "early.sh"), true, "kernel 1 ok: Debian installer up")
			m.write("log", "")
			if !strings.HasPrefix(c.want, "/dev/") {
				m.expect(document(t, in, "partman.sh"), false, "installer 1 failed: disk gate: ")
				if r := m.reports(); !strings.Contains(r[0].Get(lane.ReportMessage), c.want) {
					t.Errorf("the report says %q, want %q", r[0].Get(lane.ReportMessage), c.want)
				}
				if got := m.answer("partman-auto/disk"); got != "/dev/bootlane-unresolved" {
					t.Errorf("debconf was told %s", got)
				}
				return
			}
			m.expect(document(t, in, "partman.sh"), true, "installer 1 ok: disk gate: "+strings.TrimPrefix(c.want, "/dev/"))
			for _, q := range []string{"partman-auto/disk", "grub-installer/bootdev"} {
				if got := m.answer(q); got != c.want {
					t.Errorf("%s is %q", q, got)
				}
			}
		})
	}
	t.Run("another machine", func(t *testing.T) {
		m := inInstaller(t, root)
		m.write("sys/class/dmi/id/product_serial", "SN-B\n")
		m.expect(document(t, in, "early.sh"), false, "kernel 1 failed: identity gate: serial: expected SN-A 1, this machine has SN-B")
	})
	t.Run("encrypted", func(t *testing.T) {
		m := inInstaller(t, root)
		m.write("dev/urandom", strings.Repeat("\x00Zq7-3k\xff9", 200))
		m.write("sys/firmware/acpi/tables/TPM2", "")
		m.expect(document(t, encrypted(lane.SeedPreseed), "partman.sh"), true, "installer 1 ok: disk gate: sda")
		key := m.read("dev/bootlane-key")
		if got := []string{m.answer("partman-crypto/passphrase"), m.answer("partman-crypto/passphrase-again")}; len(key) != 64 || !slices.Equal(got, []string{key, key}) {
			t.Errorf("the passphrase is %q, and debconf has %q", key, got)
		}
		for _, q := range []string{"partman-auto/disk", "grub-installer/bootdev", "partman-crypto/passphrase", "partman-crypto/passphrase-again"} {
			m.write("tmp/seen", "#!/bin/sh\nexport DEBIAN_FRONTEND=noninteractive\n. /usr/share/debconf/confmodule\ndb_fget \"$1\" seen\necho \"seen $RET\" >&2\n")
			if status, out := m.run("/tmp/seen " + q); status != 0 || !strings.Contains(out, "seen true") {
				t.Errorf("%s is asked for: %d %s", q, status, out)
			}
		}
	})
	t.Run("late", func(t *testing.T) {
		m := inInstaller(t, root)
		m.write("served/firstboot.sh", "the script")
		m.write("served/firstboot.service", "the unit")
		m.write("target/etc/fstab", "UUID=2 none swap sw 0 0\n")
		m.expect(document(t, in, "late.sh"), true, "disk-written 1 ok: Debian installed, first boot in place")
		if m.read("target/usr/local/lib/bootlane/firstboot") != "the script" || m.read("target/etc/fstab") != "#UUID=2 none swap sw 0 0\n" {
			t.Error("the new system is not as it should be")
		}
	})
	t.Run("preseed", func(t *testing.T) {
		m := inInstaller(t, root)
		m.write("tmp/preseed.cfg", document(t, in, "preseed.cfg"))
		m.write("var/lib/preseed/log", "")
		read := "debconf-loadtemplate bootlane /var/lib/dpkg/info/di-utils.templates /var/lib/dpkg/info/preseed-common.templates && debconf-set-selections /tmp/preseed.cfg"
		if status, out := m.run(read); status != 0 || out != "" {
			t.Errorf("the installer's own reader: %d %q", status, out)
		}
		if got := []string{m.answer("partman-auto/disk"), m.answer("passwd/username")}; !slices.Equal(got, []string{"/dev/bootlane-unresolved", "admin1"}) {
			t.Errorf("it has read %q", got)
		}
	})
}
