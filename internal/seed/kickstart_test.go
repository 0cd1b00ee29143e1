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

// releases are the systems that kickstart/1 writes for, one of each kind.
var releases = []struct{ os, release string }{{"almalinux", "8.10"}, {"rhel", "9.6"}, {"rocky", "10.1"}, {"fedora", "42"}}

// kickstart returns an input as another system has it.
func kickstart(in Input, os, release string) Input {
	in.Bundle.OS, in.Bundle.Release = os, release
	return in
}

// TestKickstartGolden: the kickstart of each release. Its scripts say the same for all.
func TestKickstartGolden(t *testing.T) {
	for name, input := range map[string]func(string) Input{"full": full, "minimal": minimal} {
		for _, r := range releases {
			in := kickstart(input(lane.SeedKickstart), r.os, r.release)
			golden(t, filepath.Join("testdata", "kickstart", r.os+"-"+name+".cfg"), []byte(document(t, in, "ks.cfg")))
			for _, script := range []string{"gate.sh", "failed.sh", "firstboot.sh"} {
				if document(t, in, script) != document(t, input(lane.SeedKickstart), script) {
					t.Errorf("%s differs for %s", script, r.os)
				}
			}
		}
	}
}

// section returns the lines of a kickstart's section, and the rest without it.
func section(t *testing.T, ks, header string) (body, rest string) {
	t.Helper()
	before, after, found := strings.Cut(ks, header+"\n")
	body, behind, ended := strings.Cut(after, "%end\n")
	if !found || !ended {
		t.Fatalf("no %s in\n%s", header, ks)
	}
	return body, before + behind
}

var ksSections = []string{"%pre --erroronfail", "%packages", "%post --nochroot --erroronfail", "%onerror"}

// TestKickstartCommands: what destroys stands in no kickstart, and each command is one of its release.
func TestKickstartCommands(t *testing.T) {
	known := strings.Fields("text lang keyboard timezone url network rootpw user sshkey selinux firstboot reboot %include")
	for _, r := range releases {
		for _, input := range []func(string) Input{full, minimal} {
			ks := document(t, kickstart(input(lane.SeedKickstart), r.os, r.release), "ks.cfg")
			for _, s := range ksSections {
				_, ks = section(t, ks, s)
			}
			has := map[string]int{}
			for line := range strings.Lines(ks) {
				if word, _, _ := strings.Cut(strings.TrimSpace(line), " "); word != "" && word != "#" {
					has[word]++
				}
				if strings.ContainsFunc(line, func(c rune) bool { return c > '~' }) {
					t.Errorf("%s: not ASCII: %s", r.os, line)
				}
			}
			for word := range has {
				switch {
				case slices.Contains(known, word):
				case word == "timesource" && r.release != "8.10", word == "repo" && r.os != "fedora", word == "eula" && r.os == "rhel":
				default:
					t.Errorf("%s %s is told %q", r.os, r.release, word)
				}
			}
			for _, word := range known {
				if want := word != "sshkey" || len(input("").Site.SSHKeys) > 0; want && has[word] != 1 || !want && has[word] != 0 {
					t.Errorf("%s: %s comes %d times", r.os, word, has[word])
				}
			}
			if has["repo"] != map[bool]int{true: 1}[r.os != "fedora"] {
				t.Errorf("%s has %d repositories beside the first", r.os, has["repo"])
			}
			if ntp := strings.Contains(ks, "--ntpservers="); ntp != (r.release == "8.10" && len(input("").Site.NTP) > 0) || ntp && has["timesource"] > 0 {
				t.Errorf("%s: time servers in\n%s", r.os, ks)
			}
		}
	}
}

// TestKickstartHooks runs what stands in the kickstart itself: a script that cannot be had, or
// that fails, must end the machine, for Anaconda does not.
func TestKickstartHooks(t *testing.T) {
	shellcheck := tool(t, "shellcheck", "shellcheck")
	for _, c := range []struct {
		section, script string
		ends            bool
	}{{"%pre --erroronfail", "gate.sh", true}, {"%post --nochroot --erroronfail", "late.sh", true}, {"%onerror", "failed.sh", false}} {
		body, _ := section(t, document(t, full(lane.SeedKickstart), "ks.cfg"), c.section)
		for _, served := range []string{"echo it ran >> /log\n", "exit 3\n", ""} {
			m := machineFor(t, lane.SeedKickstart)
			if served != "" {
				m.write("served/"+c.script, served)
			}
			m.run(body)
			log := m.read("log")
			if !strings.Contains(log, "GET "+testBase+"/seed/"+c.script+"\n") || strings.Contains(log, "it ran") != strings.Contains(served, "ran") || m.poweredOff() != (c.ends && !strings.Contains(served, "ran")) {
				t.Errorf("%s with %q:\n%s", c.section, served, log)
			}
		}
		path := filepath.Join(t.TempDir(), "hook")
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(shellcheck, "--norc", "--shell=sh", "--format=gcc", "--exclude=SC2015", path).CombinedOutput(); err != nil {
			t.Errorf("%s: %s", c.section, out)
		}
	}
}

// checkDiskLines: all that the gate tells names the one disk, and first of all hides the others.
func checkDiskLines(t *testing.T, got, disk, loader string) {
	t.Helper()
	want := "ignoredisk --only-use=DISK\nzerombr\nclearpart --all --initlabel --disklabel=gpt --drives=DISK\nbootloader --location=mbr --boot-drive=DISK\n" +
		loader + " --ondisk=DISK\npart /boot --fstype=xfs --size=1024 --ondisk=DISK\npart / --fstype=xfs --size=4096 --grow --ondisk=DISK\n"
	if want = strings.ReplaceAll(want, "DISK", disk); got != want {
		t.Errorf("Anaconda is told\n%s\nwant\n%s", got, want)
	}
}

func TestKickstartDisk(t *testing.T) {
	script := document(t, full(lane.SeedKickstart), "gate.sh")
	t.Run("by BIOS", func(t *testing.T) {
		m := machineFor(t, lane.SeedKickstart)
		m.remove("sys/firmware")
		m.expect(script, true, "kernel 1 ok", "installer 1 ok")
		checkDiskLines(t, m.read("tmp/bootlane-disk"), "sda", "part biosboot --fstype=biosboot --size=1")
	})
	t.Run("no place for the file", func(t *testing.T) {
		m := machineFor(t, lane.SeedKickstart)
		m.remove("tmp")
		m.expect(script, false, "kernel 1 ok", "installer 1 ok", "installer 2 failed: the disk cannot be told")
	})
	t.Run("an array over another disk", func(t *testing.T) {
		m := machineFor(t, lane.SeedKickstart)
		m.holds("md0", "sda", "sdb")
		m.expect(script, false, "kernel 1 ok", "installer 1 failed: shares an array")
		if m.told() {
			t.Error("the disk was told to the installer")
		}
	})
}

// TestKickstartLate: Anaconda's file keeps its inode, and with it owner and label, and first boot gets its label.
func TestKickstartLate(t *testing.T) {
	const keys = "mnt/sysroot/home/admin1/.ssh/authorized_keys"
	m := machineFor(t, lane.SeedKickstart)
	m.write("served/firstboot.sh", "")
	m.write("served/firstboot.service", "")
	m.write(keys, "what Anaconda wrote\n")
	before, err := os.Stat(m.path(keys))
	if err != nil {
		t.Fatal(err)
	}
	m.expect(document(t, full(lane.SeedKickstart), "late.sh"), true, "disk-written 1 ok: rhel 9.6 installed")
	if after, err := os.Stat(m.path(keys)); err != nil || !os.SameFile(before, after) || m.read(keys) != strings.Join(full("").Site.SSHKeys, "\n")+"\n" {
		t.Errorf("the keys: %v\n%s", err, m.read(keys))
	}
	if want := "chroot /mnt/sysroot chcon system_u:object_r:bin_t:s0 /usr/local/lib/bootlane/firstboot\n"; !strings.Contains(m.read("log"), want) {
		t.Errorf("no label:\n%s", m.read("log"))
	}
	// A system whose first boot may not be started is for whoever comes to look; it is installed.
	m.remove("log")
	m.write("no-chroot", "")
	m.expect(document(t, full(lane.SeedKickstart), "late.sh"), true, "disk-written 1 ok")
}

func TestKickstartFailed(t *testing.T) {
	const log = "10:00:00,100 INF anaconda: up\n10:00:01,200 ERR anaconda: an older one\n10:00:02,300 CRT payload: no repomd.xml at " + testBase + "/tree/AppStream\n10:00:03,400 DBG x: 1\n"
	for text, want := range map[string]string{log: "CRT payload: no repomd.xml at http://10.0.0.1:8080/run/CAPABILITY/tree/AppStream", "": "its log has no error", "INF all well\n": "its log has no error"} {
		m := machineFor(t, lane.SeedKickstart)
		if text != "" {
			m.write("tmp/anaconda.log", text)
		}
		m.expect(document(t, full(lane.SeedKickstart), "failed.sh"), true, "installer 900 failed: "+want)
		if r := m.reports(); strings.Contains(r[0].Get(lane.ReportMessage), "abcdefghijkl") {
			t.Errorf("it tells what opens the run: %v", r)
		}
	}
}

// TestKickstartHostile: what anybody may write reaches the scripts as text, and the kickstart not at all.
func TestKickstartHostile(t *testing.T) {
	key := strings.Join(strings.Fields(full("").Site.SSHKeys[0])[:2], " ")
	want := document(t, full(lane.SeedKickstart), "ks.cfg")
	for _, s := range hostile {
		in := full(lane.SeedKickstart)
		in.Host.Identity.Serial, in.Host.Run.Disk, in.Site.SSHKeys[0] = s, lane.DiskSelector{Serial: s}, key+" "+s
		if got := document(t, in, "ks.cfg"); got != want {
			t.Errorf("%q changed the kickstart:\n%s", s, got)
		}
	}
	for _, s := range []string{"a'b", "$(touch /pwned)", `\\"`, "%end", "Ünïcödé 測試"} {
		m, in := machineFor(t, lane.SeedKickstart), full(lane.SeedKickstart)
		in.Host.Identity.Serial, in.Host.Run.Disk, in.Site.SSHKeys = s, lane.DiskSelector{Serial: s}, []string{key + " " + s}
		m.write("sys/class/dmi/id/product_serial", s+"\n")
		m.disk("vda", map[string]string{"size": "1", "serial": s})
		m.write("served/firstboot.sh", "")
		m.write("served/firstboot.service", "")
		m.expect(document(t, in, "gate.sh"), true, "kernel 1 ok", "installer 1 ok: vda is ")
		checkDiskLines(t, m.read("tmp/bootlane-disk"), "vda", "part /boot/efi --fstype=efi --size=600")
		if status, console := m.run(document(t, in, "late.sh")); status != 0 || m.read("mnt/sysroot/home/admin1/.ssh/authorized_keys") != key+" "+s+"\n" {
			t.Errorf("%q: exit %d\n%s", s, status, console)
		}
		if _, err := os.Stat(m.path("pwned")); err == nil {
			t.Errorf("%q was executed", s)
		}
	}
}

func TestKickstartCheck(t *testing.T) {
	yescrypt := "$y$j9T$abcdefgh$" + strings.Repeat("a", 43)
	for _, c := range []struct {
		name string
		edit func(*Input)
		want string // words of the refusal; empty: it is written
	}{
		{"sound", func(*Input) {}, ""},
		{"another system", func(in *Input) { in.Bundle.OS = "centos" }, `bundle.os: "centos" is not one that kickstart/1 can install`},
		{"release 7", func(in *Input) { in.Bundle.Release = "7.9" }, `bundle.release: "7.9" is not a release`},
		{"a release that moves", func(in *Input) { in.Bundle.Release = "9" }, `bundle.release: "9"`},
		{"a release with commands", func(in *Input) { in.Bundle.Release = "9.6\nzerombr" }, "bundle.release"},
		{"Fedora of old", func(in *Input) { in.Bundle.OS, in.Bundle.Release = "fedora", "39" }, `bundle.release: "39" is not a release of Fedora`},
		{"neither tree nor mirror", func(in *Input) { in.Bundle.Tree = "" }, "bundle.tree: Anaconda needs"},
		{"a mirror alone", func(in *Input) { in.Bundle.Tree, in.Bundle.Mirror = "", "http://m/rhel/9.6" }, ""},
		{"a mirror with a command", func(in *Input) { in.Bundle.Mirror = "http://m/d\nzerombr" }, "bundle.mirror"},
		{"yescrypt", func(in *Input) { in.Site.PasswordHash = yescrypt }, ""},
		{"yescrypt for 8", func(in *Input) { in.Site.PasswordHash, in.Bundle.Release = yescrypt, "8.10" }, "site.passwordHash: release 8 does not know"},
		{"host name", func(in *Input) { in.Host.Hostname = "a\nzerombr" }, "hostname"},
	} {
		in := full(lane.SeedKickstart)
		c.edit(&in)
		docs, err := Documents(in)
		if c.want == "" && err != nil || c.want != "" && (docs != nil || lane.CodeOf(err) != lane.Invalid || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestMedium: the second stage comes from what was signed, and packages from the mirror where there is one.
func TestMedium(t *testing.T) {
	const tree = testBase + "/tree"
	for name, c := range map[string]struct {
		os, tree, mirror string
		want             medium
	}{
		"DVD":                      {"rocky", "x.iso", "", medium{tree, tree, tree + "/AppStream"}},
		"boot image and mirror":    {"rocky", "x.iso", "http://m/9.6/", medium{tree, "http://m/9.6/BaseOS/x86_64/os", "http://m/9.6/AppStream/x86_64/os"}},
		"mirror":                   {"rocky", "", "http://m/9.6", medium{"http://m/9.6/BaseOS/x86_64/os", "http://m/9.6/BaseOS/x86_64/os", "http://m/9.6/AppStream/x86_64/os"}},
		"Fedora's DVD":             {"fedora", "x.iso", "", medium{tree, tree, ""}},
		"Fedora's mirror":          {"fedora", "", "http://m/42", medium{"http://m/42/Everything/x86_64/os", "http://m/42/Everything/x86_64/os", ""}},
		"Fedora's image, a mirror": {"fedora", "x.iso", "http://m/42", medium{tree, "http://m/42/Everything/x86_64/os", ""}},
	} {
		in := full(lane.SeedKickstart)
		in.Bundle.OS, in.Bundle.Tree, in.Bundle.Mirror = c.os, c.tree, c.mirror
		if got := in.medium(); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// TestUnitOfRelease8: its systemd takes no oneshot that is started again.
func TestUnitOfRelease8(t *testing.T) {
	for _, r := range releases {
		unit := document(t, kickstart(full(lane.SeedKickstart), r.os, r.release), "firstboot.service")
		if old := r.release == "8.10"; strings.Contains(unit, "\nType=simple\n") != old || strings.Contains(unit, "\nType=oneshot\n") == old || !strings.Contains(unit, "\nRestart=on-failure\n") {
			t.Errorf("%s:\n%s", r.os, unit)
		}
	}
}
