package seed

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"bootlane/internal/lane"
	"bootlane/internal/nettest"
)

// encrypting are the seeds whose installers encrypt the disk.
var encrypting = []string{lane.SeedPreseed, lane.SeedNoCloud, lane.SeedKickstart, lane.SeedAutoYaST, lane.SeedAgama}

const thumbprint = "rQpW9oX1cKr1vuaAxX4i8jnHZyY"

// encrypted is a host whose disk its TPM opens, or Tang servers where there are some.
func encrypted(seed string, servers ...string) Input {
	in := full(seed)
	in.Site.Encryption, in.Site.Tang = lane.EncryptionTPM2, servers
	if len(servers) > 0 {
		in.Site.Encryption = lane.EncryptionTang
	}
	return in
}

func TestEncryptionGolden(t *testing.T) {
	for _, seed := range encrypting {
		for _, d := range documents(t, encrypted(seed)) {
			golden(t, filepath.Join("testdata", "encryption", strings.ReplaceAll(seed, "/", "-"), d.Name), d.Body)
			linted(t, seed, d)
		}
	}
}

// TestEncryptionGate: no disk is told to the installer before something is there to open it, and
// a passphrase was made, which no document has.
func TestEncryptionGate(t *testing.T) {
	const servers = "http://tang.example.org#" + thumbprint
	random := strings.Repeat("\x00Zq7-3k\xff9", 200)
	for _, seed := range encrypting {
		for _, c := range []struct {
			name string
			in   Input
			edit func(*machine)
			want string // of the refusal; empty: there is none
		}{
			{"a TPM", encrypted(seed), func(m *machine) { m.write("dev/tpmrm0", "") }, ""},
			{"a TPM without its driver", encrypted(seed), func(m *machine) { m.write("sys/firmware/acpi/tables/TPM2", "") }, ""},
			{"no TPM", encrypted(seed), func(*machine) {}, "encryption: the machine shows no TPM 2.0: enable it in the firmware"},
			{"no randomness", encrypted(seed), func(m *machine) { m.write("dev/tpmrm0", ""); m.write("dev/urandom", "few") }, "encryption: no passphrase can be made"},
			{"Tang answers", encrypted(seed, servers), func(m *machine) { m.write("served/"+thumbprint, "") }, ""},
			{"Tang does not", encrypted(seed, servers), func(m *machine) { m.write("dev/tpmrm0", "") }, "encryption: no Tang server answers at http://tang.example.org, or none that has the key " + thumbprint},
		} {
			if (lane.Bundle{Seed: seed}).SUSEInstaller() && len(c.in.Site.Tang) > 0 {
				continue // it refuses those
			}
			t.Run(seed+" "+c.name, func(t *testing.T) {
				m := machineFor(t, seed)
				m.write("dev/urandom", random)
				m.write("tmp/profile/autoinst.xml", document(t, encrypted(lane.SeedAutoYaST), "autoinst.xml"))
				m.write("served/profile.json", document(t, encrypted(lane.SeedAgama), "profile.json"))
				c.edit(m)
				gate, up := "gate.sh", []string{"kernel 1 ok"}
				if seed == lane.SeedPreseed {
					gate, up = "partman.sh", nil
				}
				if c.want != "" {
					m.expect(document(t, c.in, gate), false, append(up, "installer 1 ok", "installer 2 failed: "+c.want)...)
					if m.told() {
						t.Error("a disk was told to the installer")
					}
					return
				}
				m.expect(document(t, c.in, gate), true, append(up, "installer 1 ok")...)
				key := m.read("dev/bootlane-key")
				if !regexp.MustCompile(`^[a-z0-9]{64}$`).MatchString(key) {
					t.Fatalf("the passphrase is %q", key)
				}
				if st, err := os.Stat(m.path("dev/bootlane-key")); err != nil || st.Mode() != 0o600 {
					t.Errorf("others may read it: %v %v", st.Mode(), err)
				}
				told := m.read("run/bootlane/profile.json") + m.read("log") + m.read("tmp/bootlane-disk") + m.read("tmp/profile/modified.xml")
				for _, want := range map[string][]string{
					lane.SeedPreseed:   {"debconf partman-crypto/passphrase " + key + "\n", "debconf partman-crypto/passphrase-again " + key + "\n"},
					lane.SeedKickstart: {"part pv.01 --size=4096 --grow --ondisk=sda --encrypted --luks-version=luks2 --passphrase=" + key + "\nvolgroup vg-r-abc123 pv.01\n"},
					lane.SeedAutoYaST:  {"<crypt_method config:type=\"symbol\">luks2</crypt_method><crypt_key>" + key + "</crypt_key>", "<mount>/boot</mount>"},
					lane.SeedAgama:     {`"encryption": {"luks2": {"password": "` + key + `", "pbkdFunction": "pbkdf2"}}`, `{"filesystem": {"path": "/boot", "type": "xfs"}, "size": "1 GiB"}`},
				}[seed] {
					if !strings.Contains(told, want) {
						t.Errorf("not told %q:\n%s", want, told)
					}
				}
				for _, profile := range []string{"tmp/profile/modified.xml", "run/bootlane/profile.json"} {
					if st, err := os.Stat(m.path(profile)); err == nil && st.Mode() != 0o600 {
						t.Errorf("others may read the profile: %v", st.Mode())
					}
				}
				for _, r := range m.reports() {
					if strings.Contains(r.Encode(), key) {
						t.Errorf("the passphrase is in a report: %v", r)
					}
				}
			})
		}
	}
}

// TestEncryptionLate: the late hook binds within the new system, and a failure there is told in
// its own words, once.
func TestEncryptionLate(t *testing.T) {
	for _, seed := range encrypting {
		for _, fails := range []bool{false, true} {
			m := machineFor(t, seed)
			for _, dir := range []string{".", "target", "mnt", "mnt/sysroot"} {
				m.write(dir+"/etc/fstab", "")
				m.write(dir+"/root/.keep", "")
				m.write(dir+"/home/admin1/.keep", "")
			}
			for _, d := range documents(t, encrypted(seed)) {
				m.write("served/"+d.Name, string(d.Body))
			}
			if seed == lane.SeedAutoYaST { // the hook is in the new system: the script itself is run
				m.write("served/encrypt.sh", map[bool]string{false: "echo 'sh /root/bootlane-encrypt' >> /log\n", true: "echo 'sh /root/bootlane-encrypt' >> /log\nexit 1\n"}[fails])
				m.write("proc/sysrq-trigger", "")
			}
			const fail = "case \"$*\" in *bootlane-encrypt) [ ! -e /fails ] ;; esac\n"
			for _, name := range []string{"in-target", "curtin"} {
				m.write("bin/"+name, "#!/bin/sh\necho \""+name+" $*\" >> /log\n"+fail)
			}
			m.write("world", m.read("world")+"chroot() {\necho \"chroot $*\" >> /log\n"+fail+"}\n")
			if fails {
				m.write("dev/bootlane-why", "clevis cannot bind /dev/sda3 to the TPM 2.0\n")
				m.write("fails", "")
			}
			want := []string{"disk-written 1 ok"}
			if fails {
				want = []string{"disk-written 1 failed: encryption: clevis cannot bind /dev/sda3 to the TPM 2.0"}
			}
			m.expect(document(t, encrypted(seed), "late.sh"), !fails, want...)
			inside := map[string]string{lane.SeedPreseed: "in-target sh", lane.SeedNoCloud: "curtin in-target --target=/target -- sh", lane.SeedKickstart: "chroot /mnt/sysroot sh", lane.SeedAutoYaST: "sh", lane.SeedAgama: "chroot /mnt sh"}[seed]
			if log := m.read("log"); !strings.Contains(log, inside+" /root/bootlane-encrypt\n") {
				t.Errorf("%s: nothing was bound:\n%s", seed, log)
			}
			if target := (view{Input: encrypted(seed)}).Target(); !fails && m.read(target+"/root/bootlane-encrypt") != "" {
				t.Errorf("%s: the script stays in the new system", seed)
			}
		}
	}
}

// container is a LUKS2 container in a file, and the tools that bind it, those of Debian.
type container struct {
	t                   *testing.T
	dir, path, key, tpm string
}

func newContainer(t *testing.T) *container {
	t.Helper()
	for name, deb := range map[string]string{"cryptsetup": "cryptsetup-bin", "clevis": "clevis-luks", "clevis-encrypt-tpm2": "clevis-tpm2", "tpm2_pcrextend": "tpm2-tools", "swtpm": "swtpm"} {
		tool(t, name, deb)
	}
	c := &container{t: t, dir: t.TempDir(), key: strings.Repeat("k3", 32)}
	c.path = filepath.Join(c.dir, "sda3")
	c.write("sda3", strings.Repeat("\x00", 32<<20))
	c.write("key", c.key)
	c.write("crypttab", "sda3_crypt UUID=1 "+c.dir+"/key luks,discard\n")
	c.program("findmnt", "echo /dev/mapper/vg-root")
	c.program("lsblk", "printf '%s\\n' '/dev/mapper/vg-root ext4' '/dev/mapper/sda3_crypt LVM2_member' '"+c.path+" crypto_LUKS' '/dev/sda '")
	// Debian's cryptsetup looks for a TPM in /sys alone: the token is opened as it would, with the tools.
	c.program("cryptsetup", `case "$*" in *--token-only*) ;; *) exec /sbin/cryptsetup "$@" ;; esac
cd `+c.dir+` && cryptsetup token export --token-id 0 sda3 | jose fmt -j- -Og tpm2-blob -u- | base64 -d > blob
n=$(($(od -An -tu1 -N1 blob) * 256 + $(od -An -tu1 -j1 -N1 blob) + 2))
head -c "$n" blob > private && tail -c +$((n + 1)) blob > public
{ tpm2_createprimary -C o -g sha256 -G ecc -c primary && tpm2_flushcontext -t && tpm2_load -C primary -u public -r private -c sealed && tpm2_flushcontext -t &&
	tpm2_startauthsession --policy-session -S session && tpm2_unseal -c sealed -p session:session -o secret && tpm2_flushcontext session; } > /dev/null 2>&1 || exit 1
base64 -w0 < secret > secret64
exec /sbin/cryptsetup open --test-passphrase --key-file secret64 sda3`)
	for _, name := range []string{"update-initramfs", "dracut"} {
		c.program(name, "echo \"$0 $*\" >> "+c.dir+"/initramfs")
	}
	if out := c.run("cryptsetup", "-q", "luksFormat", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", c.path, filepath.Join(c.dir, "key")); out != "" {
		t.Fatal(out)
	}
	return c
}

func (c *container) write(name, text string) {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *container) read(name string) string {
	b, _ := os.ReadFile(filepath.Join(c.dir, name)) // what is not there is empty
	return string(b)
}

func (c *container) program(name, text string) {
	c.t.Helper()
	c.write("bin/"+name, "#!/bin/sh\n"+text+"\n")
	if err := os.Chmod(filepath.Join(c.dir, "bin", name), 0o755); err != nil {
		c.t.Fatal(err)
	}
}

// run returns what a program says, and that it failed.
func (c *container) run(program ...string) string {
	cmd := exec.Command(program[0], program[1:]...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(c.dir, "bin")+":"+os.Getenv("PATH"), "TPM2TOOLS_TCTI="+c.tpm)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out) + err.Error()
	}
	return string(out)
}

// bind runs the document, with the device nodes of the machine in the container's directory.
func (c *container) bind(in Input) string {
	c.t.Helper()
	script := strings.NewReplacer("/dev/bootlane-", c.dir+"/", "/etc/crypttab", c.dir+"/crypttab", "/etc/dracut.conf.d", c.dir+"/dracut.conf.d", "--tpm2-device=auto", "--tpm2-device="+c.tpm).
		Replace(document(c.t, in, "encrypt.sh"))
	c.write("encrypt", script)
	return c.run("dash", filepath.Join(c.dir, "encrypt"))
}

// opens reports whether a passphrase opens the container.
func (c *container) opens(key string) bool {
	c.write("try", key)
	return c.run("cryptsetup", "open", "--test-passphrase", "--key-file", filepath.Join(c.dir, "try"), c.path) == ""
}

// unlocks reports whether Clevis does, as at a boot.
func (c *container) unlocks() bool {
	return c.run("sh", "-c", "clevis luks pass -d '"+c.path+"' -s 1 2>/dev/null | cryptsetup open --test-passphrase --key-file - '"+c.path+"'") == ""
}

// startTPM starts a TPM 2.0 of software, until the function that it returns is called.
func (c *container) startTPM() (stop func()) {
	c.t.Helper()
	socket, stop := nettest.StartTPM(c.t, filepath.Join(c.dir, "tpm"))
	c.tpm = "swtpm:path=" + socket
	return stop
}

// TestEncryptionBinds has the real Clevis and cryptsetup carry the document out, on a TPM of
// software and with real Tang servers: these open the container from then on, and the passphrase
// of the installer does no more. What does not open it leaves that in its place.
func TestEncryptionBinds(t *testing.T) {
	bound := func(t *testing.T, c *container, in Input) {
		t.Helper()
		if out := c.bind(in); strings.Contains(out, "exit status") || c.read("why") != "" {
			t.Fatalf("%s\n%s", c.read("why"), out)
		}
		if c.opens(c.key) || c.read("key") != "" {
			t.Error("the passphrase of the installer still opens it, or still lies there")
		}
		if !c.unlocks() {
			t.Error("it cannot be opened")
		}
		if got := c.read("crypttab"); got != "sda3_crypt UUID=1 none luks,discard\n" || c.read("initramfs") == "" {
			t.Errorf("crypttab is %q, and of the initramfs nobody heard", got)
		}
	}
	refused := func(t *testing.T, c *container, in Input, why string) {
		t.Helper()
		out := c.bind(in)
		if !strings.Contains(c.read("why"), why) || !c.opens(c.key) {
			t.Errorf("why is %q, want %q; the passphrase opens it: %v\n%s", c.read("why"), why, c.opens(c.key), out)
		}
	}
	t.Run("TPM", func(t *testing.T) {
		c := newContainer(t)
		stop := c.startTPM()
		defer func() { stop() }()
		bound(t, c, encrypted(lane.SeedPreseed))
		if out := c.run("tpm2_pcrextend", "7:sha256="+strings.Repeat("5a", 32)); out != "" || !c.unlocks() {
			t.Errorf("it opens only for a machine that starts as the installer was: %s", out)
		}
		stop()
		if c.unlocks() {
			t.Error("it opens without its TPM")
		}
		if err := os.RemoveAll(filepath.Join(c.dir, "tpm")); err != nil {
			t.Fatal(err)
		}
		if stop = c.startTPM(); c.unlocks() {
			t.Error("another machine's TPM opens it")
		}
	})
	t.Run("TPM and systemd", func(t *testing.T) {
		c := newContainer(t)
		stop := c.startTPM()
		defer func() { stop() }()
		uuid := strings.TrimSpace(c.run("cryptsetup", "luksUUID", c.path))
		c.write("crypttab", "# made by YaST\ndata UUID=1 none nofail\ncr-auto-1 UUID="+uuid+" none x-initrd.attach\n")
		if out := c.bind(encrypted(lane.SeedAutoYaST)); strings.Contains(out, "exit status") || c.read("why") != "" {
			t.Fatalf("%s\n%s", c.read("why"), out)
		}
		if c.opens(c.key) || c.read("key") != "" {
			t.Error("the passphrase of the installer still opens it, or still lies there")
		}
		unlocks := func() bool {
			return c.run("sh", "-c", "cryptsetup open --test-passphrase --token-only '"+c.path+"'") == ""
		}
		if out := c.run("tpm2_pcrextend", "7:sha256="+strings.Repeat("5a", 32)); out != "" || !unlocks() {
			t.Errorf("it does not open, or only for a machine that starts as the installer was: %s", out)
		}
		if got := c.read("crypttab"); got != "# made by YaST\ndata UUID=1 none nofail\ncr-auto-1 UUID="+uuid+" none x-initrd.attach,tpm2-device=auto\n" {
			t.Errorf("crypttab is %q", got)
		}
		if got := c.read("dracut.conf.d/90-bootlane.conf"); got != "add_dracutmodules+=\" tpm2-tss \"\n" || !strings.HasSuffix(c.read("initramfs"), "dracut --force --regenerate-all\n") {
			t.Errorf("dracut is told %q, and did %q", got, c.read("initramfs"))
		}
		stop()
		if err := os.RemoveAll(filepath.Join(c.dir, "tpm")); err != nil {
			t.Fatal(err)
		}
		if stop = c.startTPM(); unlocks() {
			t.Error("another machine's TPM opens it")
		}
	})
	t.Run("no TPM for systemd", func(t *testing.T) {
		c := newContainer(t)
		c.tpm = "swtpm:path=" + filepath.Join(c.dir, "none")
		refused(t, c, encrypted(lane.SeedAutoYaST), "systemd-cryptenroll cannot bind "+c.path+" to the TPM 2.0")
	})
	t.Run("a crypttab without it", func(t *testing.T) {
		c := newContainer(t)
		defer c.startTPM()()
		c.bind(encrypted(lane.SeedAutoYaST))
		if why := c.read("why"); !strings.Contains(why, "/crypttab does not name "+c.path+" by its UUID, ") {
			t.Errorf("why is %q", why)
		}
	})
	t.Run("no TPM", func(t *testing.T) {
		c := newContainer(t)
		c.tpm = "swtpm:path=" + filepath.Join(c.dir, "none")
		refused(t, c, encrypted(lane.SeedKickstart), "clevis cannot bind "+c.path+" to the TPM 2.0")
	})
	t.Run("Tang", func(t *testing.T) {
		c, server := newContainer(t), nettest.StartTang(t)
		bound(t, c, encrypted(lane.SeedKickstart, server.String()))
		if err := server.Close(); err != nil || c.unlocks() {
			t.Error("it opens without its server", err)
		}
	})
	t.Run("one Tang server of two", func(t *testing.T) {
		c, one, other := newContainer(t), nettest.StartTang(t), nettest.StartTang(t)
		bound(t, c, encrypted(lane.SeedNoCloud, one.String(), other.String()))
		if err := one.Close(); err != nil || !c.unlocks() {
			t.Error("it does not open with the server that is left", err)
		}
	})
	t.Run("another Tang server", func(t *testing.T) {
		c, server := newContainer(t), nettest.StartTang(t)
		refused(t, c, encrypted(lane.SeedNoCloud, server.URL+"#"+thumbprint), "clevis cannot bind")
	})
	t.Run("no container", func(t *testing.T) {
		c := newContainer(t)
		c.program("lsblk", "echo '/dev/sda3 ext4'")
		refused(t, c, encrypted(lane.SeedPreseed), "the root file system is not in one container: none is below it")
	})
	t.Run("no passphrase", func(t *testing.T) {
		c := newContainer(t)
		c.write("key", "")
		refused(t, c, encrypted(lane.SeedPreseed), "the passphrase that the disk gate made is gone")
	})
	t.Run("no initramfs", func(t *testing.T) {
		c := newContainer(t)
		defer c.startTPM()()
		c.program("update-initramfs", "exit 1")
		c.bind(encrypted(lane.SeedPreseed))
		if why := c.read("why"); why != "the initramfs cannot be written\n" {
			t.Errorf("why is %q", why)
		}
	})
}

// TestEncryptionCheck: first boot tells what opens the disk, and fails where that is something else.
func TestEncryptionCheck(t *testing.T) {
	for _, c := range []struct{ name, clevis, lsblk, want, actual string }{
		{"bound by systemd", "", "/dev/sda3 crypto_LUKS", lane.CheckOK, "/dev/sda3, opened by tpm2 in 1 key slot(s)"},
		{"bound", `1: tpm2 '{"pcr_ids":"7"}'`, "/dev/sda3 crypto_LUKS", lane.CheckOK, "/dev/sda3, opened by tpm2 in 1 key slot(s)"},
		{"bound to another", `1: tang '{"url":"x"}'`, "/dev/sda3 crypto_LUKS", lane.CheckFailed, "/dev/sda3, opened by tang in 1 key slot(s)"},
		{"not bound", "", "/dev/sda3 crypto_LUKS", lane.CheckFailed, "/dev/sda3, opened by nobody in 1 key slot(s)"},
		{"not encrypted", "", "/dev/sda3 ext4", lane.CheckFailed, "it is not encrypted"},
	} {
		s := newInstalled(t)
		s.program("lsblk", `case "$*" in *FSTYPE*) echo '`+c.lsblk+`' ;; *) printf 'vg0-root lvm\nsda3 part\nsda disk\n' ;; esac`)
		s.program("clevis", "cat <<'END'\n"+c.clevis+"\nEND")
		seed, token := lane.SeedPreseed, "clevis"
		if c.name == "bound by systemd" {
			seed, token = lane.SeedAutoYaST, "systemd-tpm2"
		}
		s.program("cryptsetup", "printf 'Keyslots:\\n  1: luks2\\nTokens:\\n  0: "+token+"\\n'")
		_, reports := s.boot(encrypted(seed))
		check := listed(t, reports[len(reports)-1])["encryption"]
		if check.Status != c.want || check.Actual != c.actual || check.Expected != "the TPM 2.0" {
			t.Errorf("%s: %#v", c.name, check)
		}
	}
}

// TestEncryptionCheckOfImage: the agent gives each of several servers a key slot of its own, and
// first boot tells them.
func TestEncryptionCheckOfImage(t *testing.T) {
	for list, want := range map[string]string{
		"0: tang '{\"url\":\"http://a\"}'\n1: tang '{\"url\":\"http://b\"}'": lane.CheckOK,
		`0: tpm2 '{"hash":"sha256","key":"ecc"}'`:                            lane.CheckFailed,
	} {
		s := newInstalled(t)
		s.program("lsblk", `case "$*" in *FSTYPE*) printf '/dev/mapper/root ext4\n/dev/sda3 crypto_LUKS\n' ;; *) printf 'root crypt\nsda3 part\nsda disk\n' ;; esac`)
		s.program("clevis", "cat <<'END'\n"+list+"\nEND")
		s.program("cryptsetup", "printf 'Keyslots:\\n  0: luks2\\n  1: luks2\\nTokens:\\n  0: clevis\\n'")
		_, reports := s.boot(encrypted(lane.SeedImage, "http://a#"+thumbprint, "http://b#"+thumbprint))
		check := listed(t, reports[len(reports)-1])["encryption"]
		if check.Status != want || check.Expected != "Tang, http://a or http://b" || want == lane.CheckOK && check.Actual != "/dev/sda3, opened by tang tang in 2 key slot(s)" {
			t.Errorf("%#v", check)
		}
	}
}

// TestEncryptionRefused: what an installer cannot do, or nobody could open, is told with its place.
func TestEncryptionRefused(t *testing.T) {
	tpm, tang := new(lane.EncryptionTPM2), new(lane.EncryptionTang)
	for _, c := range []struct {
		seed string
		role lane.InstallOptions
		want string
	}{
		{lane.SeedAgama, lane.InstallOptions{Encryption: tpm}, ""},
		{lane.SeedIgnition, lane.InstallOptions{Encryption: tpm}, "roles.storage.encryption: a bundle of ignition/1 does not encrypt the disk"},
		{lane.SeedAgama, lane.InstallOptions{Encryption: tang, Tang: []string{"http://a#" + thumbprint}}, "roles.storage.encryption: Tang needs Clevis"},
		{lane.SeedAutoYaST, lane.InstallOptions{Encryption: tang, Tang: []string{"http://a#" + thumbprint}}, "roles.storage.encryption: Tang needs Clevis, which neither SLES nor Leap has: use tpm2"},
		{lane.SeedTalos, lane.InstallOptions{Encryption: tpm}, "roles.storage.encryption: a bundle of talos/1"},
		{lane.SeedImage, lane.InstallOptions{Encryption: tpm}, ""},
		{lane.SeedImage, lane.InstallOptions{Encryption: tang, Tang: []string{"http://a#" + thumbprint, "http://b:7500/x#" + thumbprint}}, ""},
		{lane.SeedImage, lane.InstallOptions{Encryption: tang}, "tang: is missing"},
		{lane.SeedImage, lane.InstallOptions{Encryption: tang, Tang: []string{"https://a#" + thumbprint}}, "roles.storage.tang: https://a is not http://"},
		{lane.SeedImage, lane.InstallOptions{Encryption: tpm, Layout: new(lane.LayoutPlain)}, "layout: an image is written as it is"},
		{lane.SeedKickstart, lane.InstallOptions{Encryption: tpm, Layout: new(lane.LayoutPlain)}, "roles.storage.layout: an encrypted disk is one container"},
		{lane.SeedKickstart, lane.InstallOptions{Encryption: tang}, "tang: is missing: the servers that open the disk, a list of URL#THUMBPRINT; tang-show-keys prints"},
		{lane.SeedKickstart, lane.InstallOptions{Encryption: new("luks")}, `roles.storage.encryption: "luks": use tpm2, tang, or nothing`},
		{lane.SeedKickstart, lane.InstallOptions{Encryption: tang, Tang: []string{"http://a#" + thumbprint, "http://b"}}, `roles.storage.tang[1]: "http://b" is not URL#THUMBPRINT`},
		{lane.SeedKickstart, lane.InstallOptions{Encryption: tang, Tang: []string{"http://a'$(x)#" + thumbprint}}, "roles.storage.tang[0]: "},
		{lane.SeedKickstart, lane.InstallOptions{Encryption: tang, Tang: []string{"http://[fd00::1]:7500/tang/#" + thumbprint}}, ""},
	} {
		in := full(c.seed)
		in.Site, in.Origins = Merge(Defaults(""), level("role storage", c.role))
		_, err := Documents(in)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	if _, err := Documents(released(encrypted(lane.SeedAutoYaST), "15.5")); err == nil || !strings.Contains(err.Error(), "encryption: AutoYaST makes containers of LUKS2 from release 15.6") {
		t.Error(err)
	}
	tagged := encrypted(lane.SeedImage, "http://a#"+thumbprint)
	tagged.Host.Boot.VLAN = 7
	if _, err := Documents(tagged); err == nil || !strings.Contains(err.Error(), "boot.vlan: for Tang the image's initramfs asks for an address without a tag") {
		t.Error(err)
	}
	ignites := encrypted(lane.SeedImage)
	ignites.Bundle.Image = &lane.BundleImage{Config: lane.ConfigIgnition}
	if _, err := Documents(ignites); err == nil || !strings.Contains(err.Error(), "encryption: Ignition sets up the disk of this image") {
		t.Error(err)
	}
	for seed, refused := range map[string]bool{lane.SeedKickstart: true, lane.SeedNoCloud: false, lane.SeedPreseed: false, lane.SeedImage: false} {
		in := wired(seed)
		in.Site.Encryption, in.Site.Tang = lane.EncryptionTang, []string{"http://a#" + thumbprint}
		if _, err := Documents(in); (err != nil) != refused || refused && !strings.Contains(err.Error(), "encryption: for Tang the initramfs asks for an address by DHCP") {
			t.Errorf("%s: %v", seed, err)
		}
	}
}
