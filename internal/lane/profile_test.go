package lane

import (
	"math"
	"strings"
	"testing"
)

func server() Hardware {
	return Hardware{Machine: "x86_64", Firmware: "uefi", SecureBoot: true, CPUs: 32, MemoryBytes: 67e9,
		Disks: []Disk{{Name: "nvme0n1", SizeBytes: 1_920_383_410_176, Transport: "nvme"}, {Name: "nvme1n1", SizeBytes: 1_920_383_410_176, Transport: "nvme"}, {Name: "sda", SizeBytes: 4e12, Rotational: true},
			{Name: "sdb", SizeBytes: 9e12, Removable: true}, {Name: "sdc", SizeBytes: 9e12, ReadOnly: true}},
		NICs: []NIC{{Name: "eno1", Driver: "ixgbe", Up: true, Mbps: 10_000}, {Name: "eno2", Driver: "ixgbe"}, {Name: "eno3", Driver: "igb", Up: true, Mbps: 1000}}}
}

func TestProfileLacks(t *testing.T) {
	for name, c := range map[string]struct {
		p    Profile
		want []string // words of each
	}{
		"nothing asked": {Profile{}, nil},
		"all of it": {Profile{Arch: X86_64, Firmware: UEFI, SecureBoot: true, CPUs: 32, MemoryGB: 64, Disks: []DiskNeed{{Count: 2, GB: 1920, Kind: "nvme"}, {Kind: "hdd"}, {Count: 2, Kind: "ssd"}, {Count: 3}},
			NICs: []NICNeed{{Mbps: 10_000}, {Count: 2, Driver: "ixgbe"}, {Count: 3}}}, nil},
		"none of it": {Profile{Arch: ARM64, Firmware: BIOS, CPUs: 33, MemoryGB: 68, Disks: []DiskNeed{{Count: 3, Kind: "nvme"}, {Count: 4}, {GB: 5000}}, NICs: []NICNeed{{Mbps: 25_000}, {Count: 2, Mbps: 10_000, Driver: "ixgbe"}, {Driver: "mlx5_core"}}},
			[]string{"architecture arm64, and has x86_64", "firmware bios, and has uefi", "33 CPUs, and has 32", "68 GB of memory, and has 67.0 GB", "3 disks of kind nvme, and has 2; seen: nvme0n1", "4 disks, and has 3", "1 disks of 5000 GB or more, and has 0",
				"link of 25000 Mbit/s or more, and has 0; seen: eno1 (ixgbe, 10000 Mbit/s)", "2 NICs with the driver ixgbe with a link of 10000 Mbit/s or more, and has 1", "mlx5_core, and has 0"}},
	} {
		got := c.p.Lacks(server())
		if len(got) != len(c.want) {
			t.Errorf("%s: %q", name, got)
			continue
		}
		for i, w := range c.want {
			if !strings.Contains(got[i], w) {
				t.Errorf("%s: %q, want %q", name, got[i], w)
			}
		}
	}
	if got := (Profile{SecureBoot: true, Disks: []DiskNeed{{}}, NICs: []NICNeed{{}}}).Lacks(Hardware{}); len(got) != 3 || !strings.Contains(got[1], "no disk at all") {
		t.Errorf("a machine of nothing: %q", got)
	}
}

func TestProfileValidate(t *testing.T) {
	good := Profile{Roles: []string{"worker"}, Arch: X86_64, Firmware: UEFI, Disks: []DiskNeed{{Count: 2, GB: 400, Kind: "ssd"}}, NICs: []NICNeed{{Driver: "ixgbe"}}}
	if got := good.Validate(); len(got) != 0 {
		t.Error(got)
	}
	bad := Profile{Bundles: []string{"No Name"}, Arch: "amd64", Firmware: BIOS, SecureBoot: true, CPUs: -1, MemoryGB: math.NaN(), Disks: []DiskNeed{{Count: -1, GB: math.Inf(1), Kind: "tape"}}, NICs: []NICNeed{{Count: 999, Mbps: -1, Driver: "a\x1b"}}}
	var fields []string
	for _, p := range bad.Validate() {
		fields = append(fields, p.Field)
	}
	if got := strings.Join(fields, " "); got != "bundles[0] arch secureBoot minCPUs minMemoryGB disks[0].count disks[0].minGB disks[0].kind nics[0].count nics[0].minMbps nics[0].driver" {
		t.Error(got)
	}
	if got := (Profile{Firmware: "efi"}).Validate(); len(got) != 2 || got[0].Field != "roles" || got[1].Field != "firmware" {
		t.Error(got)
	}
}

func TestProfileRequires(t *testing.T) {
	p := Profile{Roles: []string{"worker"}, Bundles: []string{"debian-12"}}
	for _, c := range []struct {
		role, bundle string
		want         bool
	}{{"worker", "x", true}, {"x", "debian-12", true}, {"x", "debian", false}, {"", "", false}} {
		if p.Requires(c.role, c.bundle) != c.want {
			t.Errorf("%+v", c)
		}
	}
}
