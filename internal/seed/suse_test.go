package seed

import (
	"encoding/json"
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bootlane/internal/lane"
)

// profile is what of an AutoYaST profile matters here.
type profile struct {
	Drives []struct {
		Device     string   `xml:"device"`
		Mounts     []string `xml:"partitions>partition>mount"`
		Partitions []string `xml:"partitions>partition>size"`
	} `xml:"partitioning>drive"`
	Packages []string `xml:"software>packages>package"`
	Products []string `xml:"software>products>product"`
	AddOns   []string `xml:"add-on>add_on_products>listentry>media_url"`
	Users    []struct {
		Name     string   `xml:"username"`
		Password string   `xml:"user_password"`
		Keys     []string `xml:"authorized_keys>listentry"`
	} `xml:"users>user"`
	Pre    string `xml:"scripts>pre-scripts>script>source"`
	Chroot string `xml:"scripts>chroot-scripts>script>source"`
}

func autoyast(t *testing.T, text string) (p profile) {
	t.Helper()
	if err := xml.Unmarshal([]byte(text), &p); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return p
}

// TestAutoYaSTDisk: the served profile names no disk, and the one that the gate writes the right one.
func TestAutoYaSTDisk(t *testing.T) {
	in := full(lane.SeedAutoYaST)
	if p := autoyast(t, document(t, in, "autoinst.xml")); len(p.Drives) != 1 || p.Drives[0].Device != "@DISK0@" {
		t.Fatalf("before the gate: %+v", p.Drives)
	}
	script := document(t, in, "gate.sh")
	for _, c := range []struct {
		firmware string
		edit     func(*machine)
		mounts   []string
		sizes    string
	}{{"UEFI", func(*machine) {}, []string{"/boot/efi", "/"}, "600M max"}, {"BIOS", func(m *machine) { m.remove("sys/firmware") }, []string{"/"}, "8M max"}} {
		m := machineFor(t, lane.SeedAutoYaST)
		c.edit(m)
		m.expect(script, true, "kernel 1 ok: AutoYaST installer up", "installer 1 ok")
		p := autoyast(t, m.read("tmp/profile/modified.xml"))
		if len(p.Drives) != 1 || p.Drives[0].Device != "/dev/sda" || !slices.Equal(p.Drives[0].Mounts, c.mounts) || strings.Join(p.Drives[0].Partitions, " ") != c.sizes {
			t.Errorf("%s: %+v", c.firmware, p.Drives)
		}
	}
	t.Run("no profile", func(t *testing.T) {
		m := machineFor(t, lane.SeedAutoYaST)
		m.remove("tmp/profile/autoinst.xml")
		m.expect(script, false, "kernel 1 ok", "installer 1 ok", "installer 2 failed: the disk cannot be told")
	})
	t.Run("another profile", func(t *testing.T) {
		m := machineFor(t, lane.SeedAutoYaST)
		m.write("tmp/profile/autoinst.xml", "<profile/>\n")
		m.expect(script, false, "kernel 1 ok", "installer 1 ok", "installer 2 failed: the disk cannot be told to the installer: the profile has no place")
	})
	t.Run("the wrong disk", func(t *testing.T) {
		m := machineFor(t, lane.SeedAutoYaST)
		m.write("udev/sda", "ID_SERIAL_SHORT=S9\n")
		m.expect(script, false, "kernel 1 ok", "installer 1 failed: disk gate: no disk matches")
		if m.told() {
			t.Error("the disk was told to the installer")
		}
	})
}

// TestAutoYaSTText: what people wrote arrives as they wrote it.
func TestAutoYaSTText(t *testing.T) {
	in := full(lane.SeedAutoYaST)
	in.Site.SSHKeys = []string{in.Site.SSHKeys[0] + ` <&> "]]>" 'ops'`}
	in.Site.Packages = []string{"g++"}
	p := autoyast(t, document(t, in, "autoinst.xml"))
	if len(p.Users) != 2 || p.Users[0].Password != "!" || p.Users[1].Password != in.Site.PasswordHash || !slices.Equal(p.Users[1].Keys, in.Site.SSHKeys) {
		t.Errorf("users %+v", p.Users)
	}
	if !slices.Equal(p.Products, []string{"SLES"}) || !slices.Contains(p.Packages, "g++") || !slices.Contains(p.Packages, "curl") || len(p.AddOns) != 2 || p.AddOns[0] != testBase+"/tree" {
		t.Errorf("software %+v", p)
	}
	if p := autoyast(t, document(t, minimal(lane.SeedAutoYaST), "autoinst.xml")); !slices.Equal(p.Products, []string{"Leap"}) || len(p.AddOns) != 0 {
		t.Errorf("Leap: %+v", p)
	}
	if p := autoyast(t, document(t, released(minimal(lane.SeedAutoYaST), "15.2"), "autoinst.xml")); !slices.Equal(p.Products, []string{"openSUSE"}) {
		t.Errorf("Leap 15.2 is called %v", p.Products)
	}
}

// hooks returns the scripts that stand in the profiles themselves.
func hooks(t *testing.T) map[string]string {
	t.Helper()
	p := autoyast(t, document(t, full(lane.SeedAutoYaST), "autoinst.xml"))
	var agama struct {
		Scripts map[string][]struct{ Content string }
	}
	if err := json.Unmarshal([]byte(document(t, full(lane.SeedAgama), "profile.json")), &agama); err != nil {
		t.Fatal(err)
	}
	return map[string]string{"AutoYaST gate.sh": p.Pre, "AutoYaST late.sh": p.Chroot, "Agama gate.sh": agama.Scripts["pre"][0].Content, "Agama late.sh": agama.Scripts["post"][0].Content}
}

// TestSUSEHooks runs them: a script that cannot be had, or that fails, must end the machine, for
// to AutoYaST that is a warning, and to Agama a question.
func TestSUSEHooks(t *testing.T) {
	shellcheck := tool(t, "shellcheck", "shellcheck")
	for name, hook := range hooks(t) {
		_, script, _ := strings.Cut(name, " ")
		for _, served := range []string{"echo it ran >> /log\n", "exit 3\n", ""} {
			m := machineFor(t, lane.SeedAgama)
			m.write("proc/sysrq-trigger", "")
			if served != "" {
				m.write("served/"+script, served)
			}
			m.run(hook)
			log, ran := m.read("log"), strings.Contains(served, "ran")
			off := m.poweredOff()
			if !strings.Contains(log, "GET "+testBase+"/seed/"+script+"\n") || strings.Contains(log, "it ran") != ran || off == ran {
				t.Errorf("%s with %q: off %v\n%s", name, served, off, log)
			}
		}
		path := filepath.Join(t.TempDir(), "hook")
		if err := os.WriteFile(path, []byte(hook), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(shellcheck, "--norc", "--shell=sh", "--format=gcc", "--exclude=SC2015", path).CombinedOutput(); err != nil {
			t.Errorf("%s: %s", name, out)
		}
	}
}

// TestAgamaDisk: Agama resolves the disk by itself, and so the gate refuses where it would find another.
func TestAgamaDisk(t *testing.T) {
	in := full(lane.SeedAgama)
	in.Host.Run.Disk = lane.DiskSelector{Serial: "S1", ByPath: "pci-0000:00:17.0-ata-1"}
	script := document(t, in, "gate.sh")
	machineFor(t, lane.SeedAgama).expect(script, true, "kernel 1 ok: Agama installer up", "installer 1 ok")
	for _, c := range []struct {
		disk lane.DiskSelector
		link string
	}{
		{lane.DiskSelector{ByID: "nvme-eui.1", WWN: "eui.1", ByPath: "p"}, "/dev/disk/by-id/nvme-eui.1"}, {lane.DiskSelector{WWN: "0x5002538e00000001"}, "/dev/disk/by-id/wwn-0x5002538e00000001"},
		{lane.DiskSelector{WWN: "eui.0025388b71b10001"}, "/dev/disk/by-id/nvme-eui.0025388b71b10001"}, {lane.DiskSelector{Serial: "S1", ByPath: "pci-1"}, "/dev/disk/by-path/pci-1"}, {lane.DiskSelector{Serial: "S1"}, ""},
	} {
		in := full(lane.SeedAgama)
		in.Host.Run.Disk = c.disk
		if got := in.DiskLink(); got != c.link {
			t.Errorf("%s: %q, want %q", c.disk, got, c.link)
		}
	}
	t.Run("a link to another disk", func(t *testing.T) {
		// The WWN is what sysfs says, the link is not made by it.
		in := full(lane.SeedAgama)
		in.Host.Run.Disk = lane.DiskSelector{WWN: "0x5002538e00000001"}
		m := machineFor(t, lane.SeedAgama)
		m.remove("dev/disk/by-id/wwn-0x5002538e00000001")
		if err := os.Symlink("/dev/sdb", m.path("dev/disk/by-id/wwn-0x5002538e00000001")); err != nil {
			t.Fatal(err)
		}
		m.expect(document(t, in, "gate.sh"), false, "kernel 1 ok", "installer 1 ok", "installer 2 failed: disk gate: the profile names /dev/disk/by-id/wwn-0x5002538e00000001, which is /dev/sdb here")
	})
}

// TestSUSELate: the new system has first boot and the administrator's keys, and no repository by which a run could be told.
func TestSUSELate(t *testing.T) {
	for _, c := range []struct{ seed, system, root string }{{lane.SeedAutoYaST, "sles 15.6", ""}, {lane.SeedAgama, "sles 16.0", "mnt"}} {
		served := func(t *testing.T) *machine {
			m := machineFor(t, c.seed)
			m.write("proc/sysrq-trigger", "")
			m.write("served/firstboot.sh", "the script")
			m.write("served/firstboot.service", "the unit")
			m.write(c.root+"/etc/zypp/repos.d/medium.repo", "baseurl="+testBase+"/tree\n")
			m.write(c.root+"/etc/zypp/repos.d/other.repo", "baseurl=http://mirror.example/leap\n")
			return m
		}
		script := document(t, full(c.seed), "late.sh")
		t.Run(c.system, func(t *testing.T) {
			m := served(t)
			m.expect(script, true, "disk-written 1 ok: "+c.system+" installed, first boot in place")
			root := c.root + "/"
			if m.read(root+"usr/local/lib/bootlane/firstboot") != "the script" || m.read(root+"etc/sudoers.d/90-bootlane") != "admin1 ALL=(ALL) NOPASSWD:ALL\n" {
				t.Error("first boot, or the administrator's right, is not in place")
			}
			if c.seed == lane.SeedAgama {
				if !strings.Contains(m.read("log"), "chroot /mnt chown -R admin1: /home/admin1/.ssh\n") || !strings.Contains(m.read(root+"etc/chrony.d/bootlane.conf"), "server 10.0.0.2 iburst\nserver ntp.example.org iburst\n") {
					t.Errorf("keys or time servers:\n%s", m.read("log"))
				}
				return
			}
			if m.read(root+"etc/zypp/repos.d/medium.repo") != "" || m.read(root+"etc/zypp/repos.d/other.repo") == "" {
				t.Error("the repositories are not those that they should be")
			}
		})
		t.Run(c.system+" without first boot", func(t *testing.T) {
			m := served(t)
			m.remove("served/firstboot.service")
			m.run(script)
			if r := m.reports(); len(r) != 1 || said(r[0]) != "disk-written 1 failed" || !m.poweredOff() {
				t.Errorf("%v\n%s", r, m.read("log"))
			}
		})
	}
}

func TestSUSERefuses(t *testing.T) {
	for _, c := range []struct {
		name, seed string
		edit       func(*Input)
		want       string
	}{
		{"a keyboard", lane.SeedAutoYaST, func(in *Input) { in.Site.Keyboard = "dvorak" }, `AutoYaST is not told the layout "dvorak": use one of br,`},
		{"the wrong release", lane.SeedAutoYaST, func(in *Input) { in.Bundle.Release = "16.0" }, `bundle.release: "16.0" is not a release that autoyast/1 can install`},
		{"the other wrong release", lane.SeedAgama, func(in *Input) { in.Bundle.Release = "15.6" }, `bundle.release: "15.6" is not a release that agama/1 can install`},
		{"another system", lane.SeedAgama, func(in *Input) { in.Bundle.OS = "debian" }, `bundle.os: "debian" is not one`},
		{"a serial number alone", lane.SeedAgama, func(in *Input) { in.Host.Run.Disk = lane.DiskSelector{Serial: "S1"} }, "disk: Agama finds a disk by a link"},
		{"a proxy", lane.SeedAgama, func(in *Input) { in.Site.Proxy = "http://proxy:3128" }, "Agama of release 16.0 takes no proxy"},
	} {
		in := full(c.seed)
		c.edit(&in)
		if _, err := Documents(in); lane.CodeOf(err) != lane.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
