package seed

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bootlane/internal/lane"
)

// wired is a host with every kind of interface: a bond of named NICs with addresses of both
// families, a VLAN on it, and a NIC that asks.
func wired(seed string) Input {
	in := full(seed)
	in.Host.Identity.MACs = append(in.Host.Identity.MACs, "52:54:00:00:00:a3")
	in.Host.Network.Interfaces = []lane.Interface{
		{MAC: "52:54:00:00:00:a1", Name: "lan0", MTU: 9000},
		{MAC: "52:54:00:00:00:a2", Name: "lan1", MTU: 9000},
		{Name: "bond0", Bond: &lane.Bond{Members: []lane.MAC{"52:54:00:00:00:a1", "52:54:00:00:00:a2"}, Primary: "52:54:00:00:00:a2", MIIMon: 50}, MTU: 9000,
			Addresses: []string{"10.0.0.21/24", "10.0.0.22/24", "fd00:20::21/64"}, Gateways: []string{"10.0.0.1", "fd00:20::1"}, Nameservers: []string{"10.0.0.2", "fd00:20::2"}, Search: []string{"example.net", "example.org"}},
		{Name: "storage", VLAN: &lane.VLAN{ID: 20, Link: "bond0"}, Addresses: []string{"10.20.0.21/16"}},
		{MAC: "52:54:00:00:00:a3", Name: "mgmt0", NoDefaultRoute: true},
	}
	if all := in.Host.Network.Interfaces; seed == lane.SeedTalos { // which gives no names, and takes what DHCP gives
		all[0].Name, all[1].Name, all[4].Name, all[2].Bond.Primary, all[4].NoDefaultRoute, all[4].Addresses = "", "", "", "", false, []string{"192.0.2.31/24"}
	}
	return in
}

// plain is a host whose NICs have no names, one of them with nothing but a VLAN that asks.
func plain(seed string) Input {
	in := full(seed)
	in.Host.Network.Interfaces = []lane.Interface{
		{MAC: "52:54:00:00:00:a1", Method: lane.MethodNone},
		{Name: "v7", VLAN: &lane.VLAN{ID: 7, Link: "52:54:00:00:00:a1"}},
		{MAC: "52:54:00:00:00:a2", Addresses: []string{"192.0.2.21/31"}},
	}
	return in
}

// aggregated is a host with a bond of NICs that have no entries.
func aggregated(seed string) Input {
	in := full(seed)
	in.Host.Network.Interfaces = []lane.Interface{{Name: "bond0", Bond: &lane.Bond{Members: in.Host.Identity.MACs, Mode: "802.3ad"}}}
	return in
}

// networkFiles returns what the installed system gets.
func networkFiles(t *testing.T, in Input) []lane.File {
	t.Helper()
	if p := in.Host.Validate(); len(p) > 0 && !strings.HasPrefix(p[0].Field, "identity.uuid") {
		t.Fatal(p)
	}
	documents(t, in) // it is not refused
	return view{Input: in}.NetworkFiles()
}

func TestNetworkGolden(t *testing.T) {
	for _, seed := range lane.Seeds() {
		var b strings.Builder
		for _, f := range networkFiles(t, wired(seed)) {
			fmt.Fprintf(&b, "==> %s %04o\n%s\n", f.Path, f.Mode, f.Content)
		}
		golden(t, filepath.Join("testdata", "network", strings.ReplaceAll(seed, "/", "-")+".files"), []byte(b.String()))
	}
}

// unit reads a text of [sections] with KEY=VALUE, in systemd's spelling of a boolean.
func unit(text string) map[string][]string {
	out, section := map[string][]string{}, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[]")
			continue
		}
		if k, v, ok := strings.Cut(line, "="); ok {
			v = map[string]string{"true": "yes", "false": "no"}[v] + strings.TrimSuffix(strings.TrimSuffix(v, "true"), "false")
			out[section+"."+k] = append(out[section+"."+k], v)
		}
	}
	return out
}

// TestNetplan: netplan takes the document, says nothing, and makes of it the units that other
// seeds write themselves.
func TestNetplan(t *testing.T) {
	netplan := tool(t, "netplan", "netplan.io")
	for name, input := range map[string]func(string) Input{"wired": wired, "plain": plain, "aggregated": aggregated} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "etc/netplan/90-bootlane.yaml")
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(networkFiles(t, input(lane.SeedNoCloud))[0].Content), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(netplan, "generate", "--root-dir", dir).CombinedOutput(); err != nil || len(out) > 0 {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, f := range networkFiles(t, input(lane.SeedImage)) {
				sameUnit(t, dir, f)
			}
		})
	}
}

// sameUnit compares what a unit of ours says with what netplan's says.
func sameUnit(t *testing.T, dir string, f lane.File) {
	t.Helper()
	name := strings.Replace(filepath.Base(f.Path), "05-bootlane-", "10-netplan-", 1)
	text, err := os.ReadFile(filepath.Join(dir, "run/systemd/network", name))
	if err != nil {
		t.Error(err)
		return
	}
	ours, theirs := unit(f.Content), unit(string(text))
	theirs["Network.Gateway"] = theirs["Route.Gateway"]
	for _, section := range []string{"DHCPv4", "DHCP"} { // theirs is the old name
		for _, key := range []string{".ClientIdentifier", ".UseRoutes"} {
			ours["dhcp"+key], theirs["dhcp"+key] = append(ours["dhcp"+key], ours[section+key]...), append(theirs["dhcp"+key], theirs[section+key]...)
		}
	}
	for _, key := range []string{"NetDev.Name", "NetDev.Kind", "NetDev.MACAddress", "Bond.Mode", "Bond.MIIMonitorSec", "VLAN.Id", "Link.Name", "Network.Bond", "Network.PrimarySlave", "Network.VLAN",
		"Network.Address", "Network.Gateway", "Network.DNS", "Network.Domains", "dhcp.ClientIdentifier", "dhcp.UseRoutes"} {
		if !slices.Equal(ours[key], theirs[key]) {
			t.Errorf("%s: %s is %q, netplan's %q", name, key, ours[key], theirs[key])
		}
	}
	if !strings.HasSuffix(name, ".network") {
		return
	}
	for _, c := range [][3]string{{"Network.DHCP", "no", "no"}, {"Link.RequiredForOnline", "yes", "yes"}, {"Link.MTUBytes", "", ""}, {"Network.IPv6AcceptRA", "no", "yes"}} {
		is, want := append(ours[c[0]], c[1])[0], append(theirs[c[0]], c[2])[0]
		if is != want {
			t.Errorf("%s: %s is %q, netplan's %q", name, c[0], is, want)
		}
	}
	for _, key := range []string{"Match.PermanentMACAddress", "Match.Name"} {
		if is := ours[key]; len(is) > 0 && !slices.Equal(is, theirs[key]) {
			t.Errorf("%s: %s is %q, netplan's %q", name, key, is, theirs[key])
		}
	}
}

// TestLateNetwork: the late hook puts every file where it belongs, in the place of the installer's.
func TestLateNetwork(t *testing.T) {
	for _, c := range []struct {
		seed, root  string
		stale, kept []string
		logged      string
	}{
		{lane.SeedPreseed, "target", nil, nil, "apt-install systemd-resolved\nin-target systemctl enable systemd-networkd systemd-resolved\n"},
		{lane.SeedNoCloud, "target", []string{"etc/netplan/00-installer-config.yaml", "etc/netplan/50-cloud-init.yaml", "etc/cloud/cloud.cfg.d/90-installer-network.cfg"}, []string{"etc/cloud/cloud.cfg.d/05_logging.cfg"}, ""},
		{lane.SeedKickstart, "mnt/sysroot", []string{"etc/NetworkManager/system-connections/ens3.nmconnection", "etc/sysconfig/network-scripts/ifcfg-ens3"}, []string{"etc/sysconfig/network-scripts/ifcfg-lo"},
			"chroot /mnt/sysroot restorecon -R /etc/NetworkManager /etc/systemd/network\n"},
		{lane.SeedAgama, "mnt", []string{"etc/NetworkManager/system-connections/default.nmconnection"}, nil, "chroot /mnt restorecon -R /etc/NetworkManager /etc/systemd/network\n"},
		{lane.SeedAutoYaST, "", []string{"etc/sysconfig/network/ifcfg-eth0", "etc/sysconfig/network/ifroute-eth0"}, []string{"etc/sysconfig/network/ifcfg-lo"}, ""},
	} {
		t.Run(c.seed, func(t *testing.T) {
			m := machineFor(t, c.seed)
			for _, name := range []string{"served/firstboot.sh", "served/firstboot.service"} {
				m.write(name, "")
			}
			for _, name := range append(c.stale, c.kept...) {
				m.write(c.root+"/"+name, "the installer's")
			}
			m.write(c.root+"/etc/sysconfig/network/config", "NETCONFIG_DNS_STATIC_SEARCHLIST=\"\"\nNETCONFIG_DNS_STATIC_SERVERS=\"\"\nOTHER=\"\"\n")
			m.expect(document(t, wired(c.seed), "late.sh"), true, "disk-written 1 ok")
			for _, f := range networkFiles(t, wired(c.seed)) {
				if st, err := os.Stat(m.path(c.root + f.Path)); err != nil || int(st.Mode().Perm()) != int(f.Mode) || m.read(c.root+f.Path) != f.Content {
					t.Errorf("%s: %v, %v\n%s", f.Path, err, st, m.read(c.root+f.Path))
				}
			}
			for _, name := range c.stale {
				if m.read(c.root+"/"+name) != "" {
					t.Errorf("%s is still there", name)
				}
			}
			for _, name := range c.kept {
				if m.read(c.root+"/"+name) == "" {
					t.Errorf("%s is gone", name)
				}
			}
			if !strings.Contains(m.read("log"), c.logged) {
				t.Errorf("log:\n%s", m.read("log"))
			}
			if want := "NETCONFIG_DNS_STATIC_SEARCHLIST=\"example.net example.org\"\nNETCONFIG_DNS_STATIC_SERVERS=\"10.0.0.2 fd00:20::2\"\nOTHER=\"\"\n"; c.seed == lane.SeedAutoYaST && m.read("etc/sysconfig/network/config") != want {
				t.Errorf("name servers:\n%s", m.read("etc/sysconfig/network/config"))
			}
		})
	}
}

// TestNetworkCheck: first boot looks for every part of the network, and says what is missing.
func TestNetworkCheck(t *testing.T) {
	type change map[string]string
	good := change{
		"state/ip._-o_addr_show_dev_bond0_scope_global":   "3: bond0    inet 10.0.0.21/24 scope global bond0\n3: bond0    inet 10.0.0.22/24 scope global secondary bond0\n3: bond0    inet6 fd00:20::21/64 scope global \n",
		"state/ip._-o_addr_show_dev_storage_scope_global": "4: storage    inet 10.20.0.21/16 scope global storage\n",
		"state/ip._-o_addr_show_dev_mgmt0_scope_global":   "5: mgmt0    inet 192.0.2.7/24 scope global dynamic mgmt0\n",
		"state/ip._-4_-o_route_show_default_dev_bond0":    "default via 10.0.0.1 proto static \n",
		"state/ip._-6_-o_route_show_default_dev_bond0":    "default via fd00:20::1 proto static metric 1024 pref medium\n",
		"state/ip._-o_-d_link_show_dev_storage":           "4: storage@bond0: <BROADCAST,MULTICAST,UP> mtu 1500 \\    link/ether 52:54:00:00:00:a2 promiscuity 0 \\    vlan protocol 802.1Q id 20 <REORDER_HDR>\n",
		"state/ip._-o_addr_show_scope_global":             "3: bond0    inet 10.0.0.21/24 scope global bond0\n",
		"sys/class/net/bond0/mtu":                         "9000\n",
		"sys/class/net/bond0/bonding/mode":                "active-backup 1\n",
		"sys/class/net/bond0/bonding/slaves":              "lan0 enp3s0\n",
		"sys/class/net/bond0/address":                     "52:54:00:00:00:a2\n",
		"sys/class/net/lan0/device/x":                     "",
		"sys/class/net/lan0/address":                      "52:54:00:00:00:a2\n",
		"sys/class/net/lan0/mtu":                          "9000\n",
		"sys/class/net/lan0/bonding_slave/perm_hwaddr":    "52:54:00:00:00:a1\n",
		"sys/class/net/enp3s0/device/x":                   "",
		"sys/class/net/enp3s0/address":                    "52:54:00:00:00:a2\n",
		"sys/class/net/enp3s0/bonding_slave/perm_hwaddr":  "52:54:00:00:00:a2\n",
		"sys/class/net/enp3s0/mtu":                        "9000\n",
		"sys/class/net/storage/address":                   "52:54:00:00:00:a2\n",
		"sys/class/net/mgmt0/device/x":                    "",
		"sys/class/net/mgmt0/address":                     "52:54:00:00:00:a3\n",
	}
	for _, c := range []struct {
		name string
		edit change
		want string
	}{
		{"all is there", nil, ""},
		{"an address", change{"state/ip._-o_addr_show_dev_bond0_scope_global": "3: bond0    inet 10.0.0.21/16 scope global bond0\n3: bond0    inet 10.0.0.22/24 scope global secondary bond0\n3: bond0    inet6 fd00:20::21/64 scope global \n"}, "no address 10.0.0.21/24 on bond0,"},
		{"an address by DHCP", change{"state/ip._-o_addr_show_dev_mgmt0_scope_global": ""}, "no address any on mgmt0,"},
		{"a gateway", change{"state/ip._-4_-o_route_show_default_dev_bond0": "default via 10.0.0.11 proto static \n"}, "no gateway 10.0.0.1 on bond0,"},
		{"a gateway of IPv6", change{"state/ip._-6_-o_route_show_default_dev_bond0": ""}, "no gateway fd00:20::1 on bond0,"},
		{"an MTU", change{"sys/class/net/bond0/mtu": "1500\n"}, "no mtu 9000 on bond0,"},
		{"a mode", change{"sys/class/net/bond0/bonding/mode": "balance-rr 0\n"}, "no mode active-backup on bond0,"},
		{"a member", change{"sys/class/net/bond0/bonding/slaves": "lan0\n"}, "no member 52:54:00:00:00:a2 on bond0,"},
		{"a VLAN", change{"state/ip._-o_-d_link_show_dev_storage": "4: storage: vlan protocol 802.1Q id 200 <REORDER_HDR>\n"}, "no vlan 20 on storage,"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newInstalled(t)
			s.program("ip", `cat "$(dirname "$0")/../state/ip._$(echo "$*" | tr ' ' _)"`)
			for _, set := range []change{good, c.edit} {
				for name, text := range set {
					s.write(name, text)
				}
			}
			in := wired(lane.SeedKickstart)
			in.Host.Network.Interfaces[1].Name = "" // by its MAC it is enp3s0
			in.Host.Network.Interfaces[2].Bond.Primary = ""
			status, reports := s.boot(in)
			check := listed(t, reports[len(reports)-1])["network"]
			if good := c.want == ""; status != 0 || good != (check.Status == lane.CheckOK) || !strings.HasPrefix(check.Actual, c.want) {
				t.Errorf("exit %d, %+v, want %q", status, check, c.want)
			}
		})
	}
}

// TestNetworkRefuses: what the target's own network management cannot say is told before.
func TestNetworkRefuses(t *testing.T) {
	for _, c := range []struct {
		in   Input
		want string
	}{
		{plain(lane.SeedAutoYaST), "network.interfaces[0].name: is missing: wicked"},
		{aggregated(lane.SeedAutoYaST), "network.interfaces[0].bond.members[1]: wicked, which manages networks in this release, knows a NIC by its name only: add an entry with `mac: 52:54:00:00:00:a2`"},
		{unnamed(wired(lane.SeedKickstart)), "network.interfaces[2].bond.primary: NetworkManager knows it by its name only"},
		{unnamed(wired(lane.SeedAgama)), "network.interfaces[2].bond.primary: NetworkManager"},
		{released(wired(lane.SeedPreseed), "bullseye"), "network.interfaces: Debian bullseye has no systemd-resolved"},
	} {
		if _, err := Documents(c.in); lane.CodeOf(err) != lane.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

func unnamed(in Input) Input {
	in.Host.Network.Interfaces[1].Name = ""
	return in
}

func released(in Input, release string) Input {
	in.Bundle.Release = release
	return in
}

// TestNetworkOfImage: the agent writes the same files into an image.
func TestNetworkOfImage(t *testing.T) {
	files, err := AgentFiles(wired(lane.SeedImage))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range networkFiles(t, wired(lane.SeedImage)) {
		if !slices.Contains(files, f) {
			t.Errorf("%s is missing", f.Path)
		}
	}
}

// TestReservation: the reserved address is not expected of a system whose interfaces are given.
func TestReservation(t *testing.T) {
	for _, c := range []struct {
		in   Input
		want string
	}{{full(lane.SeedImage), "10.0.0.9"}, {wired(lane.SeedImage), ""}, {aggregated(lane.SeedImage), ""}} {
		c.in.Host.Network.Address = netip.MustParseAddr("10.0.0.9")
		if got := (view{Input: c.in}).Address(); got != c.want {
			t.Errorf("%v: %q, want %q", c.in.Host.Network.Interfaces, got, c.want)
		}
	}
}
