package seed

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"bootlane/internal/lane"
)

// mirroring are the seeds whose installers mirror two disks.
var mirroring = []string{lane.SeedPreseed, lane.SeedNoCloud, lane.SeedKickstart, lane.SeedAutoYaST, lane.SeedAgama}

// mirrored is a host with a second disk, sdb of the made-up machine.
func mirrored(seed string) Input {
	in := full(seed)
	in.Host.Run.Mirror = lane.DiskSelector{WWN: "0x5002538e00000002", Serial: "S2", SizeGB: 480}
	return in
}

func TestMirrorGolden(t *testing.T) {
	for _, seed := range mirroring {
		for _, d := range documents(t, mirrored(seed)) {
			golden(t, filepath.Join("testdata", "mirror", strings.ReplaceAll(seed, "/", "-"), d.Name), d.Body)
			linted(t, seed, d)
		}
	}
}

// TestMirrorGate: both selectors name one disk each, and not the same; what only the two share is theirs.
func TestMirrorGate(t *testing.T) {
	for _, seed := range mirroring {
		for _, c := range []struct {
			name string
			edit func(*machine, *Input)
			want string // of the refusal
		}{
			{"both", func(*machine, *Input) {}, ""},
			{"an array over both", func(m *machine, _ *Input) { m.holds("md0", "sda", "sdb") }, ""},
			{"an array over both, not assembled", func(m *machine, _ *Input) {
				m.signed("sda", "linux_raid_member", "u1")
				m.signed("sdb", "linux_raid_member", "u1")
			}, ""},
			{"an array over a third disk", func(m *machine, _ *Input) {
				m.disk("sdc", map[string]string{"size": "937500000"})
				m.holds("md0", "sdb", "sdc")
			}, "disk gate: the disk sda sdb shares an array or a volume group with other disks"},
			{"no second disk", func(m *machine, _ *Input) { m.write("udev/sdb", "ID_SERIAL_SHORT=S9\n") }, "disk gate: no disk matches wwn=0x5002538e00000002 serial=S2 sizeGB=480"},
			{"of another size", func(m *machine, _ *Input) { m.write("sys/block/sdb/size", "1937500000\n") }, "disk gate: the disk sdb has the wrong size"},
			{"read-only", func(m *machine, _ *Input) { m.write("sys/block/sdb/ro", "1\n") }, "disk gate: the disk sdb is read-only"},
			{"removable", func(m *machine, _ *Input) { m.write("sys/block/sdb/removable", "1\n") }, "disk gate: the disk sdb is removable media"},
			{"one disk by two names", func(_ *machine, in *Input) {
				in.Host.Run.Mirror = lane.DiskSelector{Serial: "S1", ByID: "wwn-0x5002538e00000001"}
			}, "disk gate: byID=wwn-0x5002538e00000001"},
			{"not the first", func(m *machine, _ *Input) { m.write("udev/sda", "ID_SERIAL_SHORT=S9\n") }, "disk gate: no disk matches byID=wwn-0x5002538e00000001"},
		} {
			t.Run(seed+" "+c.name, func(t *testing.T) {
				m, in := machineFor(t, seed), mirrored(seed)
				m.write("autoinstall.yaml", map[bool]string{true: "a: \"@DISK0@\"\nb: \"@DISK1@\"\n"}[seed == lane.SeedNoCloud])
				gate, up := "gate.sh", []string{"kernel 1 ok"}
				switch seed {
				case lane.SeedPreseed:
					gate, up = "partman.sh", nil
				case lane.SeedAgama: // it finds disks by links alone
					in.Host.Run.Mirror.ByID = "wwn-0x5002538e00000002"
				case lane.SeedAutoYaST:
					m.write("tmp/profile/autoinst.xml", document(t, in, "autoinst.xml"))
				}
				c.edit(m, &in)
				if c.want != "" {
					want := strings.ReplaceAll(c.want, "matches wwn=", "matches "+map[bool]string{true: "byID=wwn-0x5002538e00000002 "}[seed == lane.SeedAgama && strings.Contains(c.want, "00002")]+"wwn=")
					m.expect(document(t, in, gate), false, append(up, "installer 1 failed: "+want)...)
					if m.told() {
						t.Error("a disk was told to the installer")
					}
					return
				}
				m.expect(document(t, in, gate), true, append(up, "installer 1 ok: sdb is ")...)
				if got := m.read("dev/bootlane-disks"); got != map[bool]string{true: "sda sdb\n"}[seed != lane.SeedNoCloud && seed != lane.SeedKickstart] {
					t.Errorf("the late hook is told %q", got)
				}
				if got := m.read("autoinstall.yaml"); seed == lane.SeedNoCloud && got != "a: \"/dev/sda\"\nb: \"/dev/sdb\"\n" {
					t.Errorf("the installer is told\n%s", got)
				}
			})
		}
	}
}

// TestMirrorKickstart: what the gate tells Anaconda, by both kinds of firmware, with partitions and with volumes.
func TestMirrorKickstart(t *testing.T) {
	const head = "ignoredisk --only-use=sda,sdb\nzerombr\nclearpart --all --initlabel --disklabel=gpt --drives=sda,sdb\nbootloader --location=mbr --boot-drive=sda\n"
	const efi = "part raid.11 --size=600 --ondisk=sda\npart raid.12 --size=600 --ondisk=sdb\nraid /boot/efi --device=boot_efi --level=RAID1 --fstype=efi raid.11 raid.12\n"
	const bios = "part biosboot --fstype=biosboot --size=1 --ondisk=sda\npart biosboot --fstype=biosboot --size=1 --ondisk=sdb\n"
	const boot = "part raid.21 --size=1024 --ondisk=sda\npart raid.22 --size=1024 --ondisk=sdb\nraid /boot --device=boot --level=RAID1 --fstype=xfs raid.21 raid.22\n"
	const rest = "part raid.%[1]d1 --size=4096 --grow --ondisk=sda\npart raid.%[1]d2 --size=4096 --grow --ondisk=sdb\n"
	for _, c := range []struct {
		name    string
		edit    func(*machine, *Input)
		want    string
		volumes string
	}{
		{"by UEFI", func(*machine, *Input) {}, efi, fmt.Sprintf(rest, 3) + "raid / --device=root --level=RAID1 --fstype=xfs raid.31 raid.32\n"},
		{"by BIOS", func(m *machine, _ *Input) { m.remove("sys/firmware") }, bios, fmt.Sprintf(rest, 3) + "raid / --device=root --level=RAID1 --fstype=xfs raid.31 raid.32\n"},
		{"with volumes", func(_ *machine, in *Input) { in.Site.Volumes = []string{"/var=20G"} }, efi, "part raid.31 --size=20480 --ondisk=sda\npart raid.32 --size=20480 --ondisk=sdb\nraid /var --device=var --level=RAID1 --fstype=xfs raid.31 raid.32\n" +
			fmt.Sprintf(rest, 4) + "raid / --device=root --level=RAID1 --fstype=xfs raid.41 raid.42\n"},
		{"with LVM", func(_ *machine, in *Input) { in.Site.Layout = lane.LayoutLVM }, efi, fmt.Sprintf(rest, 3) + "raid pv.01 --device=pv --level=RAID1 raid.31 raid.32\nvolgroup vg-r-abc123 pv.01\nlogvol / --vgname=vg-r-abc123 --name=root --fstype=xfs --size=4096 --grow\n"},
	} {
		m, in := machineFor(t, lane.SeedKickstart), mirrored(lane.SeedKickstart)
		c.edit(m, &in)
		m.expect(document(t, in, "gate.sh"), true, "kernel 1 ok", "installer 1 ok")
		if diff := cmp.Diff(head+c.want+boot+c.volumes, m.read("tmp/bootlane-disk")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// TestMirrorNoCloud: each array has a member on either disk, GRUB goes into an ESP on either, and the system starts
// without the one that is mounted.
func TestMirrorNoCloud(t *testing.T) {
	for _, layout := range []string{lane.LayoutPlain, lane.LayoutLVM} {
		in := mirrored(lane.SeedNoCloud)
		in.Site.Layout, in.Site.Volumes = layout, []string{"/var=20G"}
		var doc struct {
			Autoinstall struct {
				Storage struct {
					Config []struct {
						Type, ID, Device, Volume, Path, Flag, Options string
						Devices                                       []string
						Grub                                          string `yaml:"grub_device"`
						Level                                         int    `yaml:"raidlevel"`
					}
				}
			}
		}
		if err := yaml.Unmarshal([]byte(document(t, in, "user-data")), &doc); err != nil {
			t.Fatal(err)
		}
		on, arrays, esps, paths, options := map[string]string{}, map[string]bool{}, "", "", ""
		for _, c := range doc.Autoinstall.Storage.Config {
			switch c.Type {
			case "disk":
				paths += c.Path
			case "partition":
				on[c.ID] = c.Device
				if c.Grub == "@UEFI@" && c.Flag == "boot" {
					esps += c.Device + " "
				}
			case "raid":
				arrays[c.ID] = c.Level == 1 && len(c.Devices) == 2 && on[c.Devices[0]] == "disk0" && on[c.Devices[1]] == "disk1"
			case "mount":
				if c.Path == "/boot/efi" {
					options = c.Options
				}
			}
		}
		want := map[string]map[string]bool{lane.LayoutPlain: {"boot": true, "var": true, "root": true}, lane.LayoutLVM: {"boot": true, "pv": true}}[layout]
		if diff := cmp.Diff(want, arrays); diff != "" || esps != "disk0 disk1 " || paths != "@DISK0@@DISK1@" || options != "defaults,nofail" {
			t.Errorf("%s: GRUB in %q, disks %q, options %q, arrays (-want +got):\n%s", layout, esps, paths, options, diff)
		}
	}
}

// TestMirrorPreseed: the partitions that pair have the same names in partman's recipe and in the one of the arrays, and
// both disks are told.
func TestMirrorPreseed(t *testing.T) {
	const boot = "1024 1024 1024 raid\n\t$lvmignore{ } method{ raid } raidid{ boot } .\n"
	for _, c := range []struct{ layout, recipe, arrays string }{
		{lane.LayoutLVM, boot + "4096 10000 -1 raid\n\t$lvmignore{ } method{ raid } raidid{ pv } .\n" +
			"21475 21475 21475 ext4\n\t$defaultignore{ } $lvmok{ } method{ format } format{ } use_filesystem{ } filesystem{ ext4 } mountpoint{ /var } lv_name{ var } .\n" +
			"4096 10000 -1 ext4\n\t$defaultignore{ } $lvmok{ } method{ format } format{ } use_filesystem{ } filesystem{ ext4 } mountpoint{ / } lv_name{ root } .\n", "1 2 0 ext4 /boot raidid=boot . 1 2 0 lvm - raidid=pv ."},
		{lane.LayoutPlain, boot + "21475 21475 21475 raid\n\t$lvmignore{ } method{ raid } raidid{ var } .\n4096 10000 -1 raid\n\t$lvmignore{ } method{ raid } raidid{ root } .\n",
			"1 2 0 ext4 /boot raidid=boot . 1 2 0 ext4 /var raidid=var . 1 2 0 ext4 / raidid=root ."},
	} {
		m, in := newMachine(t), mirrored(lane.SeedPreseed)
		in.Site.Layout, in.Site.Volumes = c.layout, []string{"/var=20G"}
		m.expect(document(t, in, "partman.sh"), true, "installer 1 ok")
		_, got, _ := strings.Cut(m.read("tmp/bootlane-recipe"), "method{ efi } format{ } .\n")
		if diff := cmp.Diff(c.recipe, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.layout, diff)
		}
		for _, q := range []string{"partman-auto/disk", "grub-installer/bootdev"} {
			if log := m.read("log"); !strings.Contains(log, "debconf "+q+" /dev/sda /dev/sdb\n") {
				t.Errorf("%s: %s is not told both\n%s", c.layout, q, log)
			}
		}
		cfg := document(t, in, "preseed.cfg")
		if !strings.Contains(cfg, "d-i partman-auto/method string raid\nd-i partman-auto-raid/recipe string "+c.arrays+"\n") || strings.Contains(cfg, "new_vg_name") != (c.layout == lane.LayoutLVM) {
			t.Errorf("%s:\n%s", c.layout, cfg)
		}
	}
}

// TestMirrorAutoYaST: each array has a partition of the same size on either disk.
func TestMirrorAutoYaST(t *testing.T) {
	for layout, want := range map[string][]string{
		lane.LayoutPlain: {"/dev/sda: 600M 20G max /boot/efi", "/dev/sdb: 600M 20G max", "/dev/md/var: /var", "/dev/md/root: /"},
		lane.LayoutLVM:   {"/dev/sda: 600M max /boot/efi", "/dev/sdb: 600M max", "/dev/md/pv:", "/dev/vg-r-abc123: 20G max /var /"},
		"encrypted":      {"/dev/sda: 600M 1G max /boot/efi", "/dev/sdb: 600M 1G max", "/dev/md/boot: /boot", "/dev/md/pv:", "/dev/vg-r-abc123: 20G max /var /"},
	} {
		m, in := machineFor(t, lane.SeedAutoYaST), mirrored(lane.SeedAutoYaST)
		in.Site.Layout, in.Site.Volumes = layout, []string{"/var=20G"}
		if layout == "encrypted" {
			in.Site.Layout, in.Site.Encryption = "", lane.EncryptionTPM2
			m.write("dev/tpmrm0", "")
			m.write("dev/urandom", strings.Repeat("\x00Zq7-3k\xff9", 200))
		}
		m.write("tmp/profile/autoinst.xml", document(t, in, "autoinst.xml"))
		m.expect(document(t, in, "gate.sh"), true, "kernel 1 ok", "installer 1 ok")
		text := m.read("tmp/profile/modified.xml")
		var got []string
		for _, d := range autoyast(t, text).Drives {
			got = append(got, strings.TrimSpace(d.Device+": "+strings.Join(append(d.Partitions, d.Mounts...), " ")))
		}
		if diff := cmp.Diff(want, got); diff != "" || strings.Contains(text, "BIOS") || strings.Count(text, "<raid_type>raid1</raid_type>") != strings.Count(text, "<device>/dev/md/") {
			t.Errorf("%s (-want +got):\n%s\n%s", layout, diff, text)
		}
	}
}

// TestMirrorAgama: each array has a member on either drive, and the second has an EFI system partition too.
func TestMirrorAgama(t *testing.T) {
	type part struct{ Alias, ID string }
	for layout, want := range map[string]string{
		lane.LayoutPlain: "var raid1 [var-0 var-1] /var, root raid1 [root-0 root-1] /, on [[ var-0/raid root-0/raid] [ esp bios_boot var-1/raid root-1/raid]]",
		lane.LayoutLVM:   "pv raid1 [pv-0 pv-1] , on [[ pv-0/raid] [ esp bios_boot pv-1/raid]]",
		"encrypted":      "boot raid1 [boot-0 boot-1] /boot, pv raid1 [pv-0 pv-1] , on [[ boot-0/raid pv-0/raid] [ esp bios_boot boot-1/raid pv-1/raid]]",
	} {
		in := mirrored(lane.SeedAgama)
		in.Site.Layout, in.Site.Volumes = layout, []string{"/var=20G"}
		if layout == "encrypted" {
			in.Site.Layout, in.Site.Encryption = lane.LayoutLVM, lane.EncryptionTPM2
		}
		var doc struct {
			Storage struct {
				Drives []struct {
					Search     struct{ Condition struct{ Name string } }
					Partitions []part
				}
				MdRaids []struct {
					Name, Level string
					Devices     []string
					Filesystem  struct{ Path string }
					Encryption  struct{ Luks2 struct{ Password string } }
				}
				VolumeGroups []struct{ PhysicalVolumes []string }
			}
		}
		if err := json.Unmarshal([]byte(document(t, in, "profile.json")), &doc); err != nil {
			t.Fatal(err)
		}
		got, on := "", [][]string{}
		for _, r := range doc.Storage.MdRaids {
			if locked := r.Encryption.Luks2.Password == "@KEY@"; locked != (layout == "encrypted" && r.Name == "pv") {
				t.Errorf("%s: %s is encrypted: %v", layout, r.Name, locked)
			}
			got += fmt.Sprintf("%s %s %v %s, ", r.Name, r.Level, r.Devices, r.Filesystem.Path)
		}
		for _, d := range doc.Storage.Drives {
			var parts []string
			for _, p := range d.Partitions {
				parts = append(parts, strings.Trim(p.Alias+"/"+p.ID, "/"))
			}
			on = append(on, parts)
		}
		got += fmt.Sprintf("on %v", on)
		if got != want || len(doc.Storage.Drives) != 2 || doc.Storage.Drives[1].Search.Condition.Name != "/dev/disk/by-id/wwn-0x5002538e00000002" || len(doc.Storage.VolumeGroups) == 1 != (layout != lane.LayoutPlain) {
			t.Errorf("%s: %s, want %s", layout, got, want)
		}
	}
}

// TestMirrorLate: the disk whose EFI system partition is not mounted gets what the other has, and no third disk
// does; the system does not wait for the one that is mounted. What is not as it should be is told.
func TestMirrorLate(t *testing.T) {
	for _, seed := range []string{lane.SeedPreseed, lane.SeedAutoYaST, lane.SeedAgama} {
		in := mirrored(seed)
		target := view{Input: in}.Target()
		for _, c := range []struct{ name, mounts, mount, want, why string }{
			{"the first is mounted", "/dev/sda1 " + target + "/boot/efi vfat rw 0 0\n", "", "sdb1", ""},
			{"the second is mounted", "/dev/sdb1 " + target + "/boot/efi vfat rw 0 0\n", "", "sda1", ""},
			{"neither is", "/dev/sdc1 " + target + "/boot/efi vfat rw 0 0\n", "", "", "the EFI system partition that is mounted, and the other another: sda1 sdb1"},
			{"it is none", "/dev/sda1 " + target + "/boot/efi vfat rw 0 0\n", "return 1", "sdb1", "mirror: /dev/sdb1 is no EFI system partition"},
		} {
			m := machineFor(t, seed)
			m.write("dev/bootlane-disks", "sda sdb\n")
			m.write("proc/mounts", c.mounts)
			for _, d := range []string{"sda", "sdb", "sdc"} {
				for n := range 3 {
					m.write(fmt.Sprintf("sys/block/%s/%s%d/partition", d, d, n+1), fmt.Sprintln(n+1))
				}
			}
			for _, d := range documents(t, in) {
				m.write("served/"+d.Name, string(d.Body))
			}
			m.write(target+"/etc/fstab", "UUID=A-1 /boot/efi vfat umask=0077 0 1\nUUID=2 / ext4 defaults 0 1\n")
			m.write(target+"/boot/efi/EFI/BOOT/BOOTX64.EFI", "shim")
			m.write(target+"/home/admin1/.keep", "")
			m.write(target+"/root/.keep", "")
			m.write("world", m.read("world")+"mount() {\necho \"mount $*\" >> /log\n"+c.mount+"\n}\numount() { echo \"umount $*\" >> /log; }\n")
			for _, applet := range []string{"cp", "wc"} {
				m.write("bin/"+applet, "#!/bin/sh\nexec /bin/busybox "+applet+" \"$@\"\n")
			}
			if c.why != "" {
				m.write("proc/sysrq-trigger", "")
				status, console := m.run(document(t, in, "late.sh"))
				reports := m.reports()
				if status == 0 || len(reports) != 1 || said(reports[0]) != "disk-written 1 failed" || !strings.Contains(reports[0].Get(lane.ReportMessage), c.why) {
					t.Errorf("%s, %s: exit %d, %v\n%s", seed, c.name, status, reports, console)
				}
				continue
			}
			m.expect(document(t, in, "late.sh"), true, "disk-written 1 ok")
			if log := m.read("log"); !strings.Contains(log, "mount -t vfat /dev/"+c.want+" /tmp/bootlane-esp\numount /tmp/bootlane-esp\n") || m.read("tmp/bootlane-esp/EFI/BOOT/BOOTX64.EFI") != "shim" {
				t.Errorf("%s, %s: the other disk does not start:\n%s", seed, c.name, log)
			}
			if got := m.read(target + "/etc/fstab"); got != "UUID=A-1 /boot/efi vfat umask=0077,nofail 0 1\nUUID=2 / ext4 defaults 0 1\n" {
				t.Errorf("%s: fstab is\n%s", seed, got)
			}
		}
	}
}

// TestMirrorRefused: who cannot mirror says so before, and so does who cannot find the second disk.
func TestMirrorRefused(t *testing.T) {
	serial := mirrored(lane.SeedAgama)
	serial.Host.Run.Mirror = lane.DiskSelector{Serial: "S2"}
	encrypted := mirrored(lane.SeedPreseed)
	encrypted.Site.Encryption = lane.EncryptionTPM2
	const none = " is installed on one disk: leave the mirror out of the record, or use a bundle of debian-preseed/1, nocloud/1"
	for want, in := range map[string]Input{
		"mirror: a bundle of image/1" + none:                                             mirrored(lane.SeedImage),
		"mirror: a bundle of ignition/1" + none:                                          mirrored(lane.SeedIgnition),
		"mirror: a bundle of talos/1" + none:                                             mirrored(lane.SeedTalos),
		"mirror: Agama finds a disk by a link that udev makes":                           serial,
		"encryption: the Debian installer by itself encrypts one disk: leave the mirror": encrypted,
	} {
		if _, err := Documents(in); lane.CodeOf(err) != lane.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestMirrorCheck: first boot finds both disks under the root file system, and every array whole.
func TestMirrorCheck(t *testing.T) {
	const both = "vg0-root lvm\nmd127 raid1\nsda3 part\nsda disk\nsdb3 part\nsdb disk\n"
	for _, c := range []struct {
		name, lsblk, degraded string
		want                  string // of the check; empty: it is good
	}{
		{"whole", both, "0\n", ""},
		{"one disk", "sda3 part\nsda disk\n", "0\n", "sda"},
		{"another disk", strings.ReplaceAll(both, "sdb", "sdc"), "0\n", "sda sdc"},
		{"degraded", both, "1\n", "sda sdb  and md127 lacks a member"},
		{"no array", both, "", "sda sdb  and md* lacks a member"},
	} {
		s := newInstalled(t)
		s.write("sys/block/sdb/device/wwid", "naa.5002538e00000002\n")
		s.write("sys/block/sdb/size", "937500000\n")
		s.write("sys/block/sdb/device/serial", "S2\n")
		s.write("state/lsblk", c.lsblk)
		if c.degraded != "" {
			s.write("sys/block/md127/md/degraded", c.degraded)
		}
		_, reports := s.boot(mirrored(lane.SeedKickstart))
		check := listed(t, reports[len(reports)-1])["disk"]
		if good := c.want == ""; good != (check.Status == lane.CheckOK) || !good && strings.TrimSpace(check.Actual) != c.want || !strings.Contains(check.Expected, ", mirrored on wwn=0x5002538e00000002") {
			t.Errorf("%s: %#v, want %q", c.name, check, c.want)
		}
	}
}
