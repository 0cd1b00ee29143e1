package lab

import (
	"slices"
	"strings"
	"testing"

	"bootlane/internal/api"
	"bootlane/internal/lane"
)

func spec(id string, change func(*api.HostSpec)) api.HostSpec {
	s := api.HostSpec{ID: id, Identity: lane.Identity{UUID: "4c4c4544-0042-3510-8052-b4c04f4a3232", MACs: []lane.MAC{"3c:ec:ef:12:34:56", "3c:ec:ef:12:34:57"}, Serial: "J5B2R22", AssetTag: "A,1"},
		Bundle: "debian-12-1", Disk: lane.DiskSelector{Serial: "S1", SizeGB: 960}}
	if change != nil {
		change(&s)
	}
	return s
}

// What a machine says of itself is on QEMU's command line, and nothing else decides it.
func TestVirtualMachine(t *testing.T) {
	host := func(fw lane.Firmware, change func(*api.HostSpec)) string {
		trial := Trial{Firmware: fw}
		machines, _, problems := trial.plan([]api.HostSpec{spec("r7-n01", change)})
		if len(problems) > 0 || len(machines) != 1 {
			t.Fatalf("%d machines, problems %q", len(machines), problems)
		}
		(&Lab{dir: "/o,ut"}).add(machines[0])
		return strings.Join(machines[0].arguments(), " ")
	}
	uefi, bios := host(lane.UEFI, nil), host(lane.BIOS, nil)
	for _, want := range []string{
		"-uuid 4c4c4544-0042-3510-8052-b4c04f4a3232",
		"uuid=4c4c4544-0042-3510-8052-b4c04f4a3232,serial=J5B2R22",
		"type=3,asset=A,,1", // QEMU would begin another option at a lone comma
		"file=/o,,ut/r7-n01-disk0.raw",
		"ifname=tap1-0,", "ifname=tap1-1,",
		"netdev=net1,mac=3c:ec:ef:12:34:57,romfile= ",
		"virtio-blk-pci,drive=d0,bootindex=2,serial=S1",
	} {
		for _, args := range []string{uefi, bios} {
			if !strings.Contains(args+" ", want) {
				t.Errorf("no %q in %s", want, args)
			}
		}
	}
	if !strings.Contains(uefi, "netdev=net0,mac=3c:ec:ef:12:34:56,bootindex=1,romfile=") || !strings.Contains(uefi, ovmfCode) {
		t.Errorf("UEFI: the first NIC boots, by the firmware's own PXE: %s", uefi)
	}
	if !strings.Contains(bios+" ", "netdev=net0,mac=3c:ec:ef:12:34:56,bootindex=1 ") || strings.Contains(bios, "pflash") {
		t.Errorf("BIOS: the first NIC boots, by the card's own ROM: %s", bios)
	}
	if args := host(lane.UEFI, func(s *api.HostSpec) { s.Mirror = lane.DiskSelector{Serial: "S2"} }); !strings.Contains(args, "file=/o,,ut/r7-n01-disk1.raw") || !strings.Contains(args, ",serial=S2") {
		t.Errorf("there is no mirror: %s", args)
	}
	bare := host(lane.UEFI, func(s *api.HostSpec) {
		s.Identity.UUID, s.Identity.Serial, s.Identity.AssetTag = "", "", ""
	})
	if strings.Contains(bare, "type=3") || strings.Contains(bare, "type=1,serial") || !strings.Contains(bare, "-uuid "+string(madeUUID(1))) {
		t.Errorf("what the inventory leaves out is not made up, but the UUID that every machine has: %s", bare)
	}
}

func TestDiskFor(t *testing.T) {
	for _, c := range []struct {
		name string
		s    lane.DiskSelector
		want string // in QEMU's options; empty: no virtual disk is called so
	}{
		{"serial", lane.DiskSelector{Serial: "S1"}, "virtio-blk-pci,drive=d0,bootindex=2,serial=S1"},
		{"a serial longer than virtio's", lane.DiskSelector{Serial: "S12345678901234567890"}, "scsi-hd,bus=s0.0,drive=d0,bootindex=2,serial=S12345678901234567890"},
		{"a serial with a comma", lane.DiskSelector{Serial: "S,1"}, "serial=S,,1"},
		{"wwn", lane.DiskSelector{WWN: "0x5002538e00000001"}, "scsi-hd,bus=s0.0,drive=d0,bootindex=2,wwn=0x5002538e00000001"},
		{"wwn and serial", lane.DiskSelector{WWN: "0x5002538e00000001", Serial: "S1"}, "serial=S1,wwn=0x5002538e00000001"},
		{"byID virtio", lane.DiskSelector{ByID: "virtio-S1"}, "virtio-blk-pci,drive=d0,bootindex=2,serial=S1"},
		{"byID wwn", lane.DiskSelector{ByID: "wwn-0x5002538e00000001"}, "wwn=0x5002538e00000001"},
		{"byID scsi", lane.DiskSelector{ByID: "scsi-35002538e00000001"}, "wwn=0x5002538e00000001"},
		{"byID ata", lane.DiskSelector{ByID: "ata-Samsung_SSD_860_S3Z9NB0K"}, "ide-hd,bus=ide.0,drive=d0,bootindex=2,serial=S3Z9NB0K,model=Samsung_SSD_860"},
		{"byID ata and wwn", lane.DiskSelector{ByID: "ata-Samsung_SSD_860_S3Z9NB0K", WWN: "0x5002538e00000001"}, "serial=S3Z9NB0K,wwn=0x5002538e00000001,model=Samsung_SSD_860"},

		{"byPath", lane.DiskSelector{ByPath: "pci-0000:00:17.0-ata-1"}, ""},
		{"eui", lane.DiskSelector{WWN: "eui.0025385a71b03a5b"}, ""},
		{"byID nvme", lane.DiskSelector{ByID: "nvme-eui.0025385a71b03a5b"}, ""},
		{"a name of a vendor", lane.DiskSelector{ByID: "nvme-SAMSUNG_MZQL21T9HCJR-00A07_S64GNE0R"}, ""},
		{"a long wwn", lane.DiskSelector{WWN: "0x600508b1001c000000000000000000ff"}, ""},
		{"two that contradict", lane.DiskSelector{ByID: "virtio-S1", Serial: "S2"}, ""},
		{"a serial that nothing holds", lane.DiskSelector{Serial: strings.Repeat("S", 40)}, ""},
		{"nothing", lane.DiskSelector{}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, ok := diskFor(c.s)
			args := strings.Join(d.arguments(0, "disk"), " ")
			if ok != (c.want != "") || !strings.Contains(args, c.want) {
				t.Errorf("%t, %s; want %q", ok, args, c.want)
			}
			if d.Bytes != usualBytes {
				t.Errorf("%d bytes without a size", d.Bytes)
			}
		})
	}
	d, ok := diskFor(lane.DiskSelector{Serial: "S1", SizeGB: 480.1039})
	if !ok || d.Bytes%512 != 0 || d.Bytes < 480_103_899_000 || d.Bytes > 480_103_900_000 {
		t.Errorf("480.1039 GB: %t, %d bytes", ok, d.Bytes)
	}
}

func TestPlan(t *testing.T) {
	one := spec("n1", nil)
	other := spec("n2", func(s *api.HostSpec) { s.Bundle = "debian-13-1" })
	nameless := spec("n3", func(s *api.HostSpec) { s.Disk = lane.DiskSelector{ByPath: "pci-0000:00:17.0-ata-1"} })
	arm := spec("n4", func(s *api.HostSpec) { s.Arch = "arm64" })
	nothing := spec("n5", func(s *api.HostSpec) { s.Disk, s.Identity.MACs, s.Bundle = lane.DiskSelector{}, nil, "" })
	var many []api.HostSpec
	for i := range 9 {
		many = append(many, spec("n"+string(rune('a'+i)), nil))
	}
	bundles := []Bundle{{Dir: "b", Bundle: lane.Bundle{Name: "debian-12", Version: "1", Arch: lane.X86_64}}}
	several := func(archs ...lane.Arch) []Bundle {
		b := lane.Bundle{Name: "debian-12", Version: "1", Architectures: map[lane.Arch]lane.BundleVariant{}}
		for _, a := range archs {
			b.Architectures[a] = lane.BundleVariant{}
		}
		return []Bundle{{Bundle: b}}
	}
	for _, c := range []struct {
		name      string
		trial     Trial
		hosts     []api.HostSpec
		machines  string
		notes     []string
		forbidden []string
	}{
		{"all that can be", Trial{}, []api.HostSpec{one, nameless, arm}, "n1 n3", []string{"n3: disk: no virtual disk can be called byPath=", "n4: is arm64, which is not tried here"}, nil},
		{"only the named", Trial{Hosts: []string{"n2"}}, []api.HostSpec{one, other}, "n2", nil, nil},
		{"what the inventory leaves out", Trial{}, []api.HostSpec{nothing}, "n5", []string{"n5: the inventory has no MAC"}, nil},
		{"install", Trial{Provision: true, Bundles: bundles}, []api.HostSpec{one}, "n1", nil, nil},
		{"install of a bundle for several", Trial{Provision: true, Bundles: several(lane.ARM64, lane.X86_64)}, []api.HostSpec{one}, "n1", nil, nil},
		{"a bundle for others", Trial{Provision: true, Bundles: several(lane.ARM64, lane.I386)}, []api.HostSpec{one}, "n1", nil, []string{"n1: arch: the machine is x86_64, the bundle debian-12-1 is made for arm64, i386"}},
		{"all problems at once", Trial{Provision: true, Bundles: bundles, Hosts: []string{"n9", "n2", "n3", "n4", "n5"}}, []api.HostSpec{one, other, nameless, arm, nothing}, "n2 n3 n5", nil, []string{
			"n9: is not in the inventory",
			"n2: bundle: debian-13-1 is in none of the directories given with --bundle, which hold debian-12-1",
			"n3: disk: no virtual disk can be called byPath=pci-0000:00:17.0-ata-1",
			"n4: is arm64",
			"n5: disk: no disk selector", "n5: identity.macs: no boot MAC", "n5: bundle: no bundle: set `bundle` in the inventory",
		}},
		{"too many", Trial{}, many, "na nb nc nd ne nf ng nh ni", nil, []string{"the inventory has 9 machines to try"}},
		{"many, by name", Trial{Hosts: strings.Fields("na nb nc nd ne nf ng nh ni")}, many, "na nb nc nd ne nf ng nh ni", nil, nil},
		{"none", Trial{}, []api.HostSpec{arm}, "", nil, []string{"no machine that can be tried: n4: is arm64"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			machines, notes, problems := c.trial.plan(c.hosts)
			var names []string
			for _, m := range machines {
				names = append(names, m.Name)
			}
			if got := strings.Join(names, " "); got != c.machines {
				t.Errorf("machines %q, want %q", got, c.machines)
			}
			if c.forbidden == nil && len(problems) > 0 {
				t.Errorf("problems %q", problems)
			}
			said(t, notes, c.notes)
			said(t, problems, c.forbidden)
		})
	}
}

func said(t *testing.T, got, want []string) {
	t.Helper()
	for _, w := range want {
		if !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, w) }) {
			t.Errorf("nobody says %q: %q", w, got)
		}
	}
}
