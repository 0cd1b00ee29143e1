package lane

import (
	"net/netip"
	"strings"
	"testing"
)

func TestValidate(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, c := range []struct {
		name string
		edit func(*Host)
		want []string // "field: words", in order
	}{
		{"sound", func(*Host) {}, nil},
		{"least", func(h *Host) {
			*h = Host{ID: "a", Hostname: "a", Arch: ARM64, Identity: Identity{UUID: identityA.UUID}}
		}, nil},

		{"id missing", func(h *Host) { h.ID = "" }, []string{"id: is missing"}},
		{"id in capitals", func(h *Host) { h.ID = "Node" }, []string{"id:"}},
		{"id with a dot", func(h *Host) { h.ID = "node.a" }, []string{"id:"}},
		{"id too long", func(h *Host) { h.ID = HostID(long) }, []string{"id:"}},
		{"id with a hyphen at the end", func(h *Host) { h.ID = "node-" }, []string{"id:"}},
		{"id with a newline", func(h *Host) { h.ID = "node\n" }, []string{"id:"}},
		{"id that climbs", func(h *Host) { h.ID = ".." }, []string{"id:"}},

		{"hostname missing", func(h *Host) { h.Hostname = "" }, []string{"hostname: is missing"}},
		{"hostname default", func(h *Host) { h.Hostname = "localhost" }, []string{"hostname: \"localhost\" is an installer's default"}},
		{"hostname all digits", func(h *Host) { h.Hostname = "10.5" }, []string{"hostname: \"10.5\" is all digits"}},
		{"hostname too long", func(h *Host) { h.Hostname = strings.Repeat("a.", 32) + "a" }, []string{"hostname:"}},
		{"hostname label too long", func(h *Host) { h.Hostname = long }, []string{"hostname:"}},
		{"hostname with underscore", func(h *Host) { h.Hostname = "node_a" }, []string{"hostname:"}},
		{"hostname with empty label", func(h *Host) { h.Hostname = "node..org" }, []string{"hostname:"}},
		{"hostname with a dot at the end", func(h *Host) { h.Hostname = "node." }, []string{"hostname:"}},
		{"hostname of other letters", func(h *Host) { h.Hostname = "nоde" }, []string{"hostname:"}}, // a Cyrillic o
		{"hostname with shell", func(h *Host) { h.Hostname = "a;reboot" }, []string{"hostname:"}},

		{"arch", func(h *Host) { h.Arch = "vax" }, []string{"arch: \"vax\" is not an architecture"}},
		{"uuid form", func(h *Host) { h.Identity.UUID = "x" }, []string{"identity.uuid: \"x\" is not a UUID"}},
		{"uuid default", func(h *Host) { h.Identity.UUID = placeholderUUIDs[0].Swapped() }, []string{"identity.uuid: 00020003-0004-0005-0006-000700080009 is a factory default"}},
		{"mac form", func(h *Host) { h.Identity.MACs = []MAC{"52:54:00:00:00:a1", "x"} }, []string{"identity.macs[1]: \"x\" is not a MAC"}},
		{"mac multicast", func(h *Host) { h.Identity.MACs[0] = "01:00:5e:00:00:01" }, []string{"identity.macs[0]: \"01:00:5e:00:00:01\" is not the address of one NIC"}},
		{"mac twice", func(h *Host) { h.Identity.MACs[1] = "52-54-00-00-00-A1" }, []string{"identity.macs[1]: 52:54:00:00:00:a1 stands twice"}},
		{"nothing to recognise it by", func(h *Host) { h.Identity.UUID, h.Identity.MACs = "", nil }, []string{"identity.macs: give a uuid or at least one boot MAC"}},
		{"serial default", func(h *Host) { h.Identity.Serial = "Default string" }, []string{"identity.serial: \"Default string\" tells no machine"}},
		{"serial with controls", func(h *Host) { h.Identity.Serial = "S\x1b1" }, []string{"identity.serial:"}},
		{"asset with blanks", func(h *Host) { h.Identity.AssetTag = " A" }, []string{"identity.assetTag:"}},
		{"rack too long", func(h *Host) { h.Identity.Rack = strings.Repeat("r", 129) }, []string{"identity.rack:"}},
		{"chassis and unit", func(h *Host) { h.Identity.Chassis, h.Identity.Unit = "\t", "\n" }, []string{"identity.chassis:", "identity.unit:"}},
		{"bmc by address", func(h *Host) { h.Identity.BMC = "10.0.0.9" }, nil},
		{"bmc by name", func(h *Host) { h.Identity.BMC = "bmc-1.example.org" }, nil},
		{"bmc", func(h *Host) { h.Identity.BMC = "http://bmc" }, []string{"identity.bmc:"}},
		{"disk", func(h *Host) { h.Disk = DiskSelector{ByID: "sda", WWN: "x"} }, []string{"disk.byID: \"sda\" is a kernel name", "disk.wwn: \"x\""}},
		{"address IPv6", func(h *Host) { h.Network.Address = netip.MustParseAddr("fd00::1") }, []string{"network.address: fd00::1 is not"}},
		{"address multicast", func(h *Host) { h.Network.Address = netip.MustParseAddr("224.0.0.1") }, []string{"network.address:"}},
		{"address of nobody", func(h *Host) { h.Network.Address = netip.MustParseAddr("0.0.0.0") }, []string{"network.address:"}},
		{"address of oneself", func(h *Host) { h.Network.Address = netip.MustParseAddr("127.0.0.1") }, []string{"network.address:"}},
		{"address6", func(h *Host) { h.Network.Address6 = netip.MustParseAddr("fd77::21") }, nil},
		{"address6 IPv4", func(h *Host) { h.Network.Address6 = netip.MustParseAddr("10.0.0.1") }, []string{"network.address6: 10.0.0.1 is not"}},
		{"address6 in disguise", func(h *Host) { h.Network.Address6 = netip.MustParseAddr("::ffff:10.0.0.1") }, []string{"network.address6:"}},
		{"address6 of a link", func(h *Host) { h.Network.Address6 = netip.MustParseAddr("fe80::1") }, []string{"network.address6: fe80::1 is not a host's IPv6 address: a global"}},
		{"address6 multicast", func(h *Host) { h.Network.Address6 = netip.MustParseAddr("ff02::1") }, []string{"network.address6:"}},
		{"bundle", func(h *Host) { h.Bundle = "../x" }, []string{"bundle: \"../x\" is not a bundle's NAME-VERSION"}},
		{"label key", func(h *Host) { h.Labels = map[string]string{"": "x"} }, []string{"labels.:"}},
		{"label value", func(h *Host) { h.Labels = map[string]string{"a": "x\n", "b": long} }, []string{"labels.a:", "labels.b:"}},
		{"everything at once", func(h *Host) {
			*h = Host{ID: "A", Hostname: "B", Arch: "c", Disk: DiskSelector{SizeGB: 1}, Bundle: "D"}
		},
			[]string{"id:", "hostname:", "arch:", "identity.macs:", "disk.sizeGB:", "bundle:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := known()
			c.edit(&h)
			problemsAre(t, h.Validate(), c.want)
		})
	}
}

func problemsAre(t *testing.T, got []Problem, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("problems %q, want %q", got, want)
	}
	for i := range got {
		if !strings.HasPrefix(got[i].String(), want[i]) {
			t.Errorf("problem %q, want %q", got[i], want[i])
		}
	}
}

func TestCanonical(t *testing.T) {
	h := Host{ID: "a", Identity: Identity{UUID: "{AAAAAAAA-0011-2233-8899-AABBCCDDEEFF}", MACs: []MAC{"52-54-00-00-00-A1", "odd"}}, Arch: "AMD64"}
	got := h.Canonical()
	if got.Identity.UUID != identityA.UUID || got.Identity.MACs[0] != identityA.MACs[0] || got.Identity.MACs[1] != "odd" || got.Arch != X86_64 || got.Hostname != "a" {
		t.Errorf("%+v", got)
	}
	if h.Identity.MACs[0] != "52-54-00-00-00-A1" {
		t.Error("the input was changed")
	}
	if got := (Host{Identity: Identity{MACs: []MAC{}}}).Canonical(); got.Identity.MACs != nil || got.Arch != X86_64 {
		t.Errorf("%+v", got)
	}
}

func TestCollisions(t *testing.T) {
	other := Host{ID: "node-b", State: StateNew, Hostname: "other.example.org", Identity: Identity{UUID: identityB.UUID, MACs: []MAC{"52:54:00:00:00:b1"}, Serial: "SN-B", AssetTag: "AT-B"},
		Network: Network{Address: netip.MustParseAddr("10.0.0.22")}}
	for _, c := range []struct {
		name string
		edit func(*Host)
		want []string
	}{
		{"none", func(*Host) {}, nil},
		{"itself", func(h *Host) { *h = known() }, nil},
		{"retired", func(h *Host) { h.State, h.Identity = StateRetired, known().Identity }, nil},
		{"uuid", func(h *Host) { h.Identity.UUID = identityA.UUID }, []string{"identity.uuid: aaaaaaaa-0011-2233-8899-aabbccddeeff is also claimed by node-b"}},
		{"uuid in the other byte order", func(h *Host) { h.Identity.UUID = identityA.UUID.Swapped() }, []string{"identity.uuid: aaaaaaaa-0011-2233-8899-aabbccddeeff is also claimed by node-b"}},
		{"uuid that is a placeholder", func(h *Host) { h.Identity.UUID = placeholderUUIDs[0] }, nil},
		{"any mac", func(h *Host) { h.Identity.MACs = append(h.Identity.MACs, "52:54:00:00:00:a2") }, []string{"identity.macs: 52:54:00:00:00:a2 is also"}},
		{"serial", func(h *Host) { h.Identity.Serial = "SN-A" }, []string{"identity.serial: SN-A"}},
		{"asset tag", func(h *Host) { h.Identity.AssetTag = "AT-A" }, []string{"identity.assetTag: AT-A"}},
		{"host name in another domain", func(h *Host) { h.Hostname = "node-a.example.net" }, []string{"hostname: node-a is"}},
		{"address", func(h *Host) { h.Network.Address = netip.MustParseAddr("10.0.0.21") }, []string{"network.address: 10.0.0.21"}},
		{"a copy", func(h *Host) { *h = known(); h.ID = "node-b" },
			[]string{"identity.uuid:", "identity.macs: 52:54:00:00:00:a1", "identity.macs: 52:54:00:00:00:a2", "identity.serial:", "identity.assetTag:", "hostname:", "network.address:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := other
			o.Identity.MACs = append([]MAC(nil), other.Identity.MACs...)
			c.edit(&o)
			problemsAre(t, Collisions(known(), []Host{o}), c.want)
			// Whoever is asked, the same is found.
			if there := Collisions(o, []Host{known()}); len(there) != len(c.want) && o.State != StateRetired {
				t.Errorf("the other way round: %q", there)
			}
		})
	}
	t.Run("the uuid is the same in both byte orders", func(t *testing.T) {
		a, b := known(), other
		a.Identity.UUID, b.Identity.UUID = "aaaaaaaa-bbbb-cccc-8899-aabbccddeeff", "aaaaaaaa-bbbb-cccc-8899-aabbccddeeff"
		problemsAre(t, Collisions(a, []Host{b}), []string{"identity.uuid:"})
	})
}

func TestPreflight(t *testing.T) {
	arm := testBundle
	arm.Arch = ARM64
	for _, c := range []struct {
		name string
		edit func(*Host)
		b    Bundle
		want []string
	}{
		{"sound", func(*Host) {}, testBundle, nil},
		{"bundle given, none in the record", func(h *Host) { h.Bundle = "" }, testBundle, nil},
		{"no bundle", func(h *Host) { h.Bundle = "" }, Bundle{}, []string{"bundle: no bundle: set"}},
		{"bundle not there", func(*Host) {}, Bundle{}, []string{"bundle: the bundle \"debian-12-1\" is not in the store"}},
		{"bundle of another architecture", func(*Host) {}, arm, []string{"arch: the machine is x86_64, the bundle debian-12-1 is made for arm64"}},
		{"one of the bundle's architectures", func(h *Host) { h.Arch = ARM64 }, severalBundle(), nil},
		{"none of the bundle's architectures", func(h *Host) { h.Arch = I386 }, severalBundle(), []string{"arch: the machine is i386, the bundle debian-12-1 is made for arm64, x86_64"}},
		{"no disk", func(h *Host) { h.Disk = DiskSelector{} }, testBundle, []string{"disk: no disk selector"}},
		{"no MAC", func(h *Host) { h.Identity.MACs = nil }, testBundle, []string{"identity.macs: no boot MAC"}},
		{"all at once", func(h *Host) { h.Hostname, h.Disk, h.Identity.MACs = "", DiskSelector{}, nil }, Bundle{}, []string{"hostname:", "disk:", "identity.macs:", "bundle:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := known()
			c.edit(&h)
			problemsAre(t, Preflight(h, c.b), c.want)
		})
	}
}
