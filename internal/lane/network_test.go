package lane

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// wired is a record with a bond, a VLAN on it, and a NIC that asks.
func wired() Host {
	h := known()
	h.Identity.MACs = []MAC{"52:54:00:00:00:a1", "52:54:00:00:00:a2", "52:54:00:00:00:a3"}
	h.Network.Interfaces = []Interface{
		{MAC: "52:54:00:00:00:a1", Name: "lan0", MTU: 9000},
		{Name: "bond0", Bond: &Bond{Members: []MAC{"52:54:00:00:00:a1", "52:54:00:00:00:a2"}, Primary: "52:54:00:00:00:a2", MIIMon: 50}, MTU: 9000,
			Addresses: []string{"10.0.0.21/24", "fd00:20::21/64"}, Gateways: []string{"10.0.0.1", "fd00:20::1"}, Nameservers: []string{"10.0.0.2"}, Search: []string{"example.net"}},
		{Name: "storage", VLAN: &VLAN{ID: 20, Link: "bond0"}, Addresses: []string{"10.20.0.21/16"}},
		{MAC: "52:54:00:00:00:a3", NoDefaultRoute: true},
	}
	return h
}

func TestInterfaces(t *testing.T) {
	const at = "network.interfaces"
	nic := func(h *Host) *Interface { return &h.Network.Interfaces[3] }
	bond := func(h *Host) *Interface { return &h.Network.Interfaces[1] }
	vlan := func(h *Host) *Interface { return &h.Network.Interfaces[2] }
	// What is no member asks for addresses of its own.
	const second = at + "[1].gateways[0]: a second default route of IPv4, beside that of interfaces[0]"
	for _, c := range []struct {
		name string
		edit func(*Host)
		want []string
	}{
		{"as it is", func(*Host) {}, nil},
		{"nothing", func(h *Host) { *nic(h) = Interface{} }, []string{at + "[3]: give one of `mac`, `bond` and `vlan`"}},
		{"two in one", func(h *Host) { bond(h).VLAN = &VLAN{ID: 3, Link: "lan0"} }, []string{at + "[1]: give one of", at + "[1].vlan.link: lan0 is a member of bond0", at + "[2].vlan.link: \"bond0\" is not in the list"}},
		{"a MAC", func(h *Host) { nic(h).MAC = "x" }, []string{at + "[3].mac: \"x\" is not a MAC"}},
		{"another machine's MAC", func(h *Host) { nic(h).MAC = "52:54:00:00:00:b1" }, []string{at + "[3].mac: 52:54:00:00:00:b1 is not among the machine's identity.macs"}},
		{"a MAC twice", func(h *Host) { nic(h).MAC = "52-54-00-00-00-A1" }, []string{at + "[3].mac: 52:54:00:00:00:a1 is also interfaces[0].mac"}},
		{"no name", func(h *Host) { vlan(h).Name = "" }, []string{at + "[2].name: is missing"}},
		{"a long name", func(h *Host) { nic(h).Name = "a-name-of-16-byt" }, []string{at + "[3].name: \"a-name-of-16-byt\" is not the name of an interface"}},
		{"a name of 15 bytes", func(h *Host) { nic(h).Name = "a-name-of-15-by" }, nil},
		{"the kernel's name", func(h *Host) { vlan(h).Name = "all" }, []string{at + "[2].name: \"all\" is the kernel's own"}},
		{"a name that the kernel gives", func(h *Host) { nic(h).Name = "eth0" }, []string{at + "[3].name: \"eth0\" may be the name of another NIC"}},
		{"a name twice", func(h *Host) { nic(h).Name = "storage" }, []string{at + "[3].name: \"storage\" is also the name of interfaces[2]"}},
		{"an MTU", func(h *Host) { nic(h).MTU = 100 }, []string{at + "[3].mtu: 100:"}},
		{"an MTU too small for IPv6", func(h *Host) { bond(h).MTU = 1279 }, []string{at + "[1].addresses[1]: IPv6 needs an MTU of at least 1280"}},
		{"an MTU that fits no link", func(h *Host) { vlan(h).MTU = 9001 }, []string{at + "[2].mtu: 9001 is more than bond0 carries"}},
		{"an MTU that fits the default no more", func(h *Host) { bond(h).MTU, vlan(h).MTU = 0, 1501 }, []string{at + "[2].mtu: 1501 is more than bond0 carries"}},
		{"addresses of a member", func(h *Host) { h.Network.Interfaces[0].Addresses = []string{"10.9.0.1/24"} }, []string{at + "[0]: it is a member of bond0, which has the addresses"}},
		{"a bond without members", func(h *Host) { bond(h).Bond.Members, bond(h).Bond.Primary = nil, "" }, []string{at + "[1].bond.members: is missing", second}},
		{"a member twice", func(h *Host) { bond(h).Bond.Members[0] = "52:54:00:00:00:a2" }, []string{at + "[1].bond.members[1]: 52:54:00:00:00:a2 is also interfaces[1].bond.members[0]", second}},
		{"another machine's member", func(h *Host) { bond(h).Bond.Members[0] = "52:54:00:00:00:b1" }, []string{at + "[1].bond.members[0]: 52:54:00:00:00:b1 is not among", second}},
		{"a mode", func(h *Host) { bond(h).Bond.Mode = "lacp" }, []string{at + "[1].bond.mode: \"lacp\": use one of active-backup", at + "[1].bond.primary: mode lacp prefers no member"}},
		{"a primary of 802.3ad", func(h *Host) { bond(h).Bond.Mode = "802.3ad" }, []string{at + "[1].bond.primary: mode 802.3ad prefers no member"}},
		{"a primary from outside", func(h *Host) { bond(h).Bond.Primary = "52:54:00:00:00:a3" }, []string{at + "[1].bond.primary: 52:54:00:00:00:a3 is not one of the members"}},
		{"an interval", func(h *Host) { bond(h).Bond.MIIMon = -1 }, []string{at + "[1].bond.miimon: -1"}},
		{"VLAN 0", func(h *Host) { vlan(h).VLAN.ID = 0 }, []string{at + "[2].vlan.id: 0 is no VLAN: 1 to 4094"}},
		{"VLAN 4095", func(h *Host) { vlan(h).VLAN.ID = 4095 }, []string{at + "[2].vlan.id: 4095 is no VLAN"}},
		{"a VLAN on a VLAN", func(h *Host) { vlan(h).VLAN.Link = "storage" }, []string{at + "[2].vlan.link: \"storage\" is not in the list: the name of a NIC or a bond"}},
		{"a VLAN by MAC", func(h *Host) { vlan(h).VLAN.Link = "52:54:00:00:00:a3" }, nil},
		{"a VLAN twice", func(h *Host) {
			h.Network.Interfaces = append(h.Network.Interfaces, Interface{Name: "again", VLAN: &VLAN{ID: 20, Link: "bond0"}, Method: MethodNone})
		}, []string{at + "[4].vlan: VLAN 20 on bond0 is also interfaces[2]"}},
		{"a method", func(h *Host) { nic(h).Method = "auto" }, []string{at + "[3].method: \"auto\": use dhcp, static or none", at + "[3].noDefaultRoute:"}},
		{"DHCP and addresses", func(h *Host) { vlan(h).Method = MethodDHCP }, []string{at + "[2].method: dhcp, and there are addresses", at + "[2]: a second default route of IPv4"}},
		{"static without addresses", func(h *Host) { nic(h).Method, nic(h).NoDefaultRoute = MethodStatic, false }, []string{at + "[3].addresses: is missing"}},
		{"no prefix", func(h *Host) { vlan(h).Addresses[0] = "10.20.0.21" }, []string{at + "[2].addresses[0]: \"10.20.0.21\" is not an address with the length of its prefix"}},
		{"leading zeros", func(h *Host) { vlan(h).Addresses[0] = "010.20.0.21/16" }, []string{at + "[2].addresses[0]: \"010.20.0.21/16\" is not"}},
		{"the network's own", func(h *Host) { vlan(h).Addresses[0] = "10.20.0.0/16" }, []string{at + "[2].addresses[0]: 10.20.0.0 is no host's"}},
		{"broadcast", func(h *Host) { vlan(h).Addresses[0] = "10.20.255.255/16" }, []string{at + "[2].addresses[0]: 10.20.255.255 is no host's"}},
		{"every router's", func(h *Host) { vlan(h).Addresses[0] = "fd00:30::/64" }, []string{at + "[2].addresses[0]: fd00:30:: is no host's"}},
		{"two ends of a line", func(h *Host) { vlan(h).Addresses[0] = "10.20.0.0/31" }, nil},
		{"of a link", func(h *Host) { vlan(h).Addresses[0] = "fe80::1/64" }, []string{at + "[2].addresses[0]: fe80::1 is not a host's address"}},
		{"the Internet", func(h *Host) { vlan(h).Addresses[0] = "10.20.0.21/0" }, []string{at + "[2].addresses[0]: 10.20.0.21/0: a prefix of length 0"}},
		{"an address twice", func(h *Host) { vlan(h).Addresses[0] = "10.0.0.21/16" }, []string{at + "[2].addresses[0]: 10.0.0.21 is also interfaces[1].addresses[0]"}},
		{"a gateway elsewhere", func(h *Host) { bond(h).Gateways[0] = "10.0.1.1" }, []string{at + "[1].gateways[0]: 10.0.1.1 is not in the network of one"}},
		{"a gateway of its own", func(h *Host) { bond(h).Gateways[0] = "10.0.0.21" }, []string{at + "[1].gateways[0]: 10.0.0.21 is the machine's own"}},
		{"a gateway for all", func(h *Host) { bond(h).Gateways[0] = "10.0.0.255" }, []string{at + "[1].gateways[0]: 10.0.0.255 is the network's own or its broadcast"}},
		{"a gateway by name", func(h *Host) { bond(h).Gateways[0] = "router" }, []string{at + "[1].gateways[0]: \"router\" is not an address"}},
		{"two gateways", func(h *Host) { bond(h).Gateways[1] = "10.0.0.3" }, []string{at + "[1].gateways[1]: a second default route of IPv4, beside that of interfaces[1].gateways[0]"}},
		{"a gateway beside DHCP", func(h *Host) { nic(h).NoDefaultRoute = false }, []string{at + "[3]: a second default route of IPv4, beside that of interfaces[1].gateways[0]: leave out one, or say `noDefaultRoute: true`"}},
		{"DHCP with a gateway", func(h *Host) { bond(h).Addresses = nil }, []string{at + "[1].gateways: DHCP brings the default route"}},
		{"a name server", func(h *Host) { bond(h).Nameservers[0] = "dns" }, []string{at + "[1].nameservers[0]: \"dns\" is not the address"}},
		{"a domain", func(h *Host) { bond(h).Search[0] = "Example" }, []string{at + "[1].search[0]: \"Example\" is not a domain name"}},
		{"no name server", func(h *Host) {
			bond(h).Nameservers = nil
			*nic(h) = Interface{MAC: "52:54:00:00:00:a3", Method: MethodNone}
		}, []string{at + ": no name server"}},
		{"everything at once", func(h *Host) {
			vlan(h).VLAN.ID, vlan(h).Addresses[0], bond(h).Bond.Mode, nic(h).MAC = 4095, "x", "y", "z"
		}, []string{at + "[1].bond.mode:", at + "[1].bond.primary:", at + "[2].vlan.id:", at + "[2].addresses[0]:", at + "[3].mac:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := wired()
			c.edit(&h)
			problemsAre(t, h.Validate(), c.want)
		})
	}
}

// TestInterfaceClaims: an address is a record's own whether it asks for it or has it.
func TestInterfaceClaims(t *testing.T) {
	h := wired()
	h.Network.Address = netip.MustParseAddr("10.0.0.21") // reserved as well
	other := Host{ID: "other", Network: Network{Address: netip.MustParseAddr("10.20.0.21"), Address6: netip.MustParseAddr("fd00:20::21")}}
	var got []string
	for _, p := range Collisions(h, []Host{other}) {
		got = append(got, p.String())
	}
	want := []string{"network.interfaces[1].addresses[1]: fd00:20::21 is also claimed by other", "network.interfaces[2].addresses[0]: 10.20.0.21 is also claimed by other"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := len(slices.DeleteFunc(h.Claims(), func(c string) bool { return !strings.HasPrefix(c, "address") })); n != 3 {
		t.Errorf("%d addresses are claimed: %v", n, h.Claims())
	}
	if got := Collisions(other, []Host{h}); len(got) != 2 || got[0].Field != "network.address" || got[1].Field != "network.address6" {
		t.Errorf("%v", got)
	}
}

// TestInterfacesUpdate: what changed is told, what did not is no change, and the record shares nothing with
// the data that it came from.
func TestInterfacesUpdate(t *testing.T) {
	now := time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)
	h, _ := Enrol(wired(), "alice", now)
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var read Host
	if err := json.Unmarshal(b, &read); err != nil {
		t.Fatal(err)
	}
	if _, _, changed, err := Update(read, wired(), "alice", now); changed || err != nil {
		t.Errorf("the same is a change; %v", err)
	}
	spec := wired()
	spec.Network.Interfaces[2].VLAN.ID, spec.Network.Interfaces[1].Bond.Members = 21, []MAC{"52:54:00:00:00:a2"}
	next, e, changed, err := Update(h, spec, "alice", now)
	if want := "storage VLAN 21 on bond0 10.20.0.21/16"; !changed || err != nil || !strings.Contains(e.Message, "interfaces: lan0 52:54:00:00:00:a1 dhcp MTU 9000, bond0 active-backup of") || !strings.Contains(e.Message, want) {
		t.Errorf("%v, %v: %s", changed, err, e.Message)
	}
	spec.Network.Interfaces[1].Bond.Members[0], spec.Network.Interfaces[1].Addresses[0] = "x", "y"
	if got := next.Network.Interfaces[1]; got.Bond.Members[0] == "x" || got.Addresses[0] == "y" {
		t.Error("the record shares its data with the file's")
	}
}

func TestInterfacesCanonical(t *testing.T) {
	h := wired()
	i := h.Network.Interfaces
	i[0].MAC, i[1].Bond.Members[0], i[1].Bond.Primary, i[2].VLAN.Link = "52-54-00-00-00-A1", "52:54:00:00:00:A1", "52:54:00:00:00:A2", "52:54:00:00:00:A3"
	i[1].Addresses[1], i[1].Gateways[1] = "FD00:20:0:0::21/64", "fd00:0020::1"
	want := wired()
	want.Network.Interfaces[2].VLAN.Link = "52:54:00:00:00:a3"
	if diff := cmp.Diff(want.Network.Interfaces, h.Canonical().Network.Interfaces); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if i[0].MAC != "52-54-00-00-00-A1" {
		t.Error("the input was changed")
	}
}

// TestNearStatic: an installed system speaks from the addresses that it was given.
func TestNearStatic(t *testing.T) {
	h := wired()
	h.Run.Peer = "192.0.2.1"
	for from, want := range map[string]bool{"10.20.0.21": true, "::ffff:10.0.0.21": true, "fd00:20::21": true, "10.20.0.22": false} {
		if h.Near(from) != want {
			t.Errorf("%s: %v", from, !want)
		}
	}
}
