package seed

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"bootlane/internal/lane"
)

// mirrored is a host with a second disk, sdb of the made-up machine.
func mirrored(seed string) Input {
	in := full(seed)
	in.Host.Run.Mirror = lane.DiskSelector{WWN: "0x5002538e00000002", Serial: "S2", SizeGB: 480}
	return in
}

func TestMirrorGolden(t *testing.T) {
	for _, seed := range []string{lane.SeedNoCloud, lane.SeedKickstart} {
		for _, d := range documents(t, mirrored(seed)) {
			golden(t, filepath.Join("testdata", "mirror", strings.ReplaceAll(seed, "/", "-"), d.Name), d.Body)
		}
	}
}

// TestMirrorGate: both selectors name one disk each, and not the same; what only the two share is theirs.
func TestMirrorGate(t *testing.T) {
	for _, seed := range []string{lane.SeedNoCloud, lane.SeedKickstart} {
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
			{"one disk by two names", func(_ *machine, in *Input) { in.Host.Run.Mirror = lane.DiskSelector{Serial: "S1"} }, "disk gate: byID=wwn-0x5002538e00000001"},
			{"not the first", func(m *machine, _ *Input) { m.write("udev/sda", "ID_SERIAL_SHORT=S9\n") }, "disk gate: no disk matches byID=wwn-0x5002538e00000001"},
		} {
			t.Run(seed+" "+c.name, func(t *testing.T) {
				m, in := machineFor(t, seed), mirrored(seed)
				m.write("autoinstall.yaml", map[bool]string{true: "a: \"@DISK0@\"\nb: \"@DISK1@\"\n"}[seed == lane.SeedNoCloud])
				c.edit(m, &in)
				if c.want != "" {
					m.expect(document(t, in, "gate.sh"), false, "kernel 1 ok", "installer 1 failed: "+c.want)
					if m.told() {
						t.Error("a disk was told to the installer")
					}
					return
				}
				m.expect(document(t, in, "gate.sh"), true, "kernel 1 ok", "installer 1 ok: sdb is wwn=0x5002538e00000002 serial=S2")
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
						Grub                                          bool `yaml:"grub_device"`
						Level                                         int  `yaml:"raidlevel"`
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
				if c.Grub && c.Flag == "boot" {
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

// TestMirrorRefused: an installer that has no mirror says so before.
func TestMirrorRefused(t *testing.T) {
	for _, seed := range []string{lane.SeedPreseed, lane.SeedAutoYaST, lane.SeedAgama, lane.SeedIgnition, lane.SeedTalos, lane.SeedImage} {
		want := "mirror: a bundle of " + seed + " is installed on one disk: leave the mirror out of the record, or use a bundle of nocloud/1 or kickstart/1"
		if _, err := Documents(mirrored(seed)); lane.CodeOf(err) != lane.Invalid || !strings.Contains(err.Error(), want) {
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
