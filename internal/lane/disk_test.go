package lane

import (
	"math"
	"strings"
	"testing"
)

var testDisks = []Disk{
	{Name: "sda", SizeBytes: 480_103_981_056, Serial: "S1", WWN: "0x5002538e00000001", ByID: []string{"ata-X_S1", "wwn-0x5002538e00000001"}, ByPath: []string{"pci-0000:00:17.0-ata-1"}},
	{Name: "sdb", SizeBytes: 480_103_981_056, Serial: "S2", WWN: "0x5002538e00000002", ByID: []string{"ata-X_S2", "wwn-0x5002538e00000002"}, ByPath: []string{"pci-0000:00:17.0-ata-2"}},
	{Name: "nvme0n1", SizeBytes: 1_920_383_410_176, Serial: "S1", WWN: "eui.0025385a71b03a5b", ByID: []string{"nvme-eui.0025385a71b03a5b"}}, // same serial as sda
	{Name: "sdc", SizeBytes: 31_000_000_000, Serial: "USB1", Removable: true, ByID: []string{"usb-Stick_USB1"}},
	{Name: "sdd", SizeBytes: 31_000_000_000, Serial: "RO1", ReadOnly: true},
	{Name: "sde", SizeBytes: 1_200_243_695_616, Serial: "SAS1", UdevSerial: "5000c500a1b2c3d7", WWN: "0x5000c500a1b2c3d7"},
	{Name: "vda", SizeBytes: 21_474_836_480}, // states nothing
}

func TestDiskResolve(t *testing.T) {
	for _, c := range []struct {
		name string
		s    DiskSelector
		want string // a disk, or words of the refusal
	}{
		{"byID", DiskSelector{ByID: "wwn-0x5002538e00000001"}, "sda"},
		{"another link", DiskSelector{ByID: "ata-X_S2"}, "sdb"},
		{"byPath", DiskSelector{ByPath: "pci-0000:00:17.0-ata-2"}, "sdb"},
		{"wwn", DiskSelector{WWN: "eui.0025385a71b03a5b"}, "nvme0n1"},
		{"serial", DiskSelector{Serial: "S2"}, "sdb"},
		{"serial of a SAS disk", DiskSelector{Serial: "SAS1"}, "sde"},
		{"serial of a SAS disk as udev has it", DiskSelector{Serial: "5000c500a1b2c3d7"}, "sde"},
		{"serial narrowed by wwn", DiskSelector{Serial: "S1", WWN: "0x5002538e00000001"}, "sda"},
		{"serial narrowed by size", DiskSelector{Serial: "S1", SizeGB: 1920}, "nvme0n1"},
		{"all fields", DiskSelector{ByID: "ata-X_S1", ByPath: "pci-0000:00:17.0-ata-1", WWN: "0x5002538e00000001", Serial: "S1", SizeGB: 480}, "sda"},
		{"size at the upper bound", DiskSelector{Serial: "S2", SizeGB: 475.4}, "sdb"},
		{"size at the lower bound", DiskSelector{Serial: "S2", SizeGB: 484.9}, "sdb"},

		{"nothing", DiskSelector{}, "no disk selector"},
		{"only a size", DiskSelector{SizeGB: 480}, "no disk selector"},
		{"two match", DiskSelector{Serial: "S1"}, "2 disks match serial=S1: sda"},
		{"none matches", DiskSelector{Serial: "S9"}, `no disk matches serial=S9; seen: sda (serial "S1"`},
		{"case matters", DiskSelector{Serial: "s2"}, "no disk matches"},
		{"no part of a serial", DiskSelector{Serial: "S"}, "no disk matches"},
		{"fields of two disks", DiskSelector{Serial: "S2", WWN: "0x5002538e00000001"}, "no disk matches"},
		{"of another model", DiskSelector{Serial: "S2", Model: "Z"}, `of another model: ""`},
		{"too large", DiskSelector{Serial: "S2", SizeGB: 475.3}, "wrong size"},
		{"too small", DiskSelector{Serial: "S2", SizeGB: 485}, "wrong size: expected 485 GB; seen: sdb"},
		{"removable", DiskSelector{Serial: "USB1"}, "removable"},
		{"read-only", DiskSelector{Serial: "RO1"}, "read-only"},
		{"a link of no disk", DiskSelector{ByID: ""}, "no disk selector"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.s.Resolve(testDisks)
			if err == nil && got.Name != c.want || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %q, %v; want %q", got.Name, err, c.want)
			}
			if err != nil && (CodeOf(err) != Refused || got.Name != "") {
				t.Errorf("refused with code %q and the disk %q", CodeOf(err), got.Name)
			}
		})
	}
	if _, err := (DiskSelector{Serial: "S1"}).Resolve(nil); err == nil || !strings.Contains(err.Error(), "no disk at all") {
		t.Errorf("a machine without disks: %v", err)
	}
}

func TestDiskSelector(t *testing.T) {
	for _, c := range []struct {
		name   string
		s      DiskSelector
		zero   bool
		stable bool
		text   string
		bad    []string // a field and words of its problem, in order
	}{
		{"zero", DiskSelector{}, true, false, "none", nil},
		{"byID", DiskSelector{ByID: "nvme-eui.0025385a71b03a5b"}, false, true, "byID=nvme-eui.0025385a71b03a5b", nil},
		{"by-id of a virtual disk", DiskSelector{ByID: "virtio-DISK_1"}, false, true, "byID=virtio-DISK_1", nil},
		{"byPath", DiskSelector{ByPath: "pci-0000:00:17.0-ata-1"}, false, true, "byPath=pci-0000:00:17.0-ata-1", nil},
		{"wwn and size", DiskSelector{WWN: "0x5002538e00000001", SizeGB: 480.1}, false, true, "wwn=0x5002538e00000001 sizeGB=480.1", nil},
		{"long wwn", DiskSelector{WWN: "0x600508b1001c000000000000000000ff"}, false, true, "wwn=0x600508b1001c000000000000000000ff", nil},
		{"serial with inner blank", DiskSelector{Serial: "A 1"}, false, true, "serial=A 1", nil},
		{"only a size", DiskSelector{SizeGB: 480}, false, false, "sizeGB=480", []string{"disk.sizeGB: a size alone"}},

		{"whole path", DiskSelector{ByID: "/dev/disk/by-id/wwn-0x1"}, false, true, "byID=/dev/disk/by-id/wwn-0x1", []string{`disk.byID: "/dev/disk/by-id/wwn-0x1": give only the link's name, "wwn-0x1"`}},
		{"kernel name", DiskSelector{ByID: "sda"}, false, true, "byID=sda", []string{"disk.byID: \"sda\" is a kernel name"}},
		{"kernel path", DiskSelector{ByPath: "/dev/nvme0n1"}, false, true, "byPath=/dev/nvme0n1", []string{"disk.byPath: \"/dev/nvme0n1\" is a kernel name"}},
		{"virtual kernel name", DiskSelector{ByID: "/dev/vda"}, false, true, "byID=/dev/vda", []string{"kernel name"}},
		{"climbing", DiskSelector{ByID: "../../sda"}, false, true, "byID=../../sda", []string{"not a link name"}},
		{"shell", DiskSelector{ByID: "x$(reboot)"}, false, true, "byID=x$(reboot)", []string{"not a link name"}},
		{"newline", DiskSelector{ByID: "x\n"}, false, true, "byID=x\n", []string{"not a link name"}},
		{"wwn of udev", DiskSelector{WWN: "wwn-0x5002538e00000001"}, false, true, "wwn=wwn-0x5002538e00000001", []string{"as sysfs does"}},
		{"wwn in capitals", DiskSelector{WWN: "0x5002538E00000001"}, false, true, "wwn=0x5002538E00000001", []string{"as sysfs does"}},
		{"serial with blanks", DiskSelector{Serial: " S1 "}, false, true, "serial= S1 ", []string{"disk.serial"}},
		{"serial with controls", DiskSelector{Serial: "S\x001"}, false, true, "serial=S\x001", []string{"disk.serial"}},
		{"negative size", DiskSelector{Serial: "S1", SizeGB: -1}, false, true, "serial=S1", []string{"disk.sizeGB: -1 is not"}},
		{"no number", DiskSelector{Serial: "S1", SizeGB: math.NaN()}, false, true, "serial=S1", []string{"disk.sizeGB: NaN is not"}},
		{"endless", DiskSelector{Serial: "S1", SizeGB: math.Inf(1)}, false, true, "serial=S1 sizeGB=+Inf", []string{"disk.sizeGB: +Inf is not"}},
		{"everything wrong", DiskSelector{ByID: "sda", ByPath: "sda", WWN: "x", Serial: " ", SizeGB: -1}, false, true, "byID=sda byPath=sda wwn=x serial= ",
			[]string{"disk.byID", "disk.byPath", "disk.wwn", "disk.serial", "disk.sizeGB"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.s.IsZero() != c.zero || c.s.Stable() != c.stable || c.s.String() != c.text {
				t.Errorf("zero %v, stable %v, %q", c.s.IsZero(), c.s.Stable(), c.s)
			}
			got := c.s.Validate()
			if len(got) != len(c.bad) {
				t.Fatalf("problems %q, want %q", got, c.bad)
			}
			for i := range got {
				if !strings.Contains(got[i], c.bad[i]) {
					t.Errorf("problem %q, want %q", got[i], c.bad[i])
				}
			}
		})
	}
}

func TestDiskModelAndName(t *testing.T) {
	disks := []Disk{{Name: "sda", Model: "Samsung SSD 990 PRO 2TB", Serial: "S1", SizeBytes: 1e9}, {Name: "vda", SizeBytes: 1e9}}
	for _, c := range []struct {
		by   DiskSelector
		want string // the name, or what the error says
	}{
		{DiskSelector{Serial: "S1", Model: "Samsung SSD 990 PRO 2TB"}, "sda"}, {DiskSelector{Serial: "S1", Model: "Samsung_SSD"}, "sda"}, {DiskSelector{Serial: "S1", Model: "SSD"}, "of another model"},
		{DiskSelector{Name: "vda"}, "vda"}, {DiskSelector{Name: "vda", Model: "QEMU"}, "of another model"}, {DiskSelector{Name: "vdb"}, "no disk matches name=vdb"}, {DiskSelector{Model: "Samsung"}, "no disk selector"},
	} {
		d, err := c.by.Resolve(disks)
		if got := d.Name; got != c.want && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %s, %v", c.by, got, err)
		}
	}
	for want, s := range map[string]DiskSelector{
		"disk.model: a model alone selects no disk": {Model: "X"}, `disk.model: " X" has blanks`: {Serial: "S", Model: " X"}, `disk.name: "sda1" is no kernel name`: {Name: "sda1"},
		"disk.name: \"sda\" changes between boots, and the disk is selected by what does not": {Name: "sda", Serial: "S"}, "": {Name: "nvme0n1", Model: "X", SizeGB: 3},
	} {
		if got := strings.Join(s.Validate(), "\n"); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", s, got, want)
		}
	}
}
