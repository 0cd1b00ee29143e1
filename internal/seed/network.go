package seed

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"bootlane/internal/lane"
)

// A network of its own is put into the installed system by the late hook, or by the agent, in the
// form of what manages networks there. The installer knows nothing of it, and goes on by
// DHCP: a mistake costs a first boot that says so, not the way to the server in the
// middle of an installation.

// NetworkFiles returns the configuration of the installed system's network. None: it is
// left with what its installer or its image has.
func (v view) NetworkFiles() []lane.File {
	all := v.Host.Network.Whole()
	switch {
	case len(all) == 0, v.Bundle.Seed == lane.SeedTalos:
		return nil
	case v.Bundle.CloudInit():
		return nil // it reads NetworkConfig
	case v.Bundle.Seed == lane.SeedNoCloud:
		// The second keeps cloud-init from writing another beside it.
		return []lane.File{{Path: "/etc/netplan/90-bootlane.yaml", Mode: 0o600, Content: v.netplan("renderer: networkd")},
			{Path: "/etc/cloud/cloud.cfg.d/99-bootlane-network.cfg", Mode: 0o644, Content: "network: {config: disabled}\n"}}
	case v.Bundle.Seed == lane.SeedKickstart, v.Bundle.Seed == lane.SeedAgama, v.Bundle.Ignites() && v.Bundle.OS != "flatcar":
		return v.networkManager(all)
	case v.Bundle.Seed == lane.SeedAutoYaST:
		return v.wicked(all)
	}
	files := v.networkd(all)
	if v.Bundle.Seed == lane.SeedPreseed { // ifupdown must leave the NICs alone
		files = append(files, lane.File{Path: "/etc/network/interfaces", Mode: 0o644, Content: "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n"})
	}
	return files
}

// StaleNetwork are the files in which installers leave their own network: those of NetworkFiles
// take their place.
func (v view) StaleNetwork() []string {
	switch v.Bundle.Seed {
	case lane.SeedNoCloud:
		return []string{"/etc/netplan/*.yaml", "/etc/cloud/cloud.cfg.d/*-installer-network.cfg"}
	case lane.SeedKickstart, lane.SeedAgama:
		return []string{"/etc/NetworkManager/system-connections/*", "/etc/sysconfig/network-scripts/ifcfg-[!l]*"}
	case lane.SeedAutoYaST:
		return []string{"/etc/sysconfig/network/ifcfg-[!l]*", "/etc/sysconfig/network/ifroute-*"}
	}
	return nil
}

// settings is a text of [sections] with KEY=VALUE.
type settings struct{ strings.Builder }

func (s *settings) section(name string) {
	if s.Len() > 0 {
		s.WriteByte('\n')
	}
	s.WriteString("[" + name + "]\n")
}

// set writes a line for each value.
func (s *settings) set(key string, values ...string) {
	for _, v := range values {
		s.WriteString(key + "=" + v + "\n")
	}
}

// number writes a line where there is a number.
func (s *settings) number(key string, n int) {
	if n != 0 {
		s.set(key, fmt.Sprint(n))
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// ifaceKey is what files and sections of an interface are called.
func ifaceKey(i lane.Interface) string {
	if i.Name == "" {
		return "nic-" + i.MAC.Hyphens()
	}
	return i.Name
}

// linkFile makes udev give a NIC its name. A bond and a VLAN, which may have the NIC's MAC, are of
// another type to udev.
func linkFile(i lane.Interface) (lane.File, bool) {
	var s settings
	s.section("Match")
	s.set("MACAddress", string(i.MAC))
	s.set("Type", "ether")
	s.section("Link")
	s.set("Name", i.Name)
	return lane.File{Path: "/etc/systemd/network/05-bootlane-" + i.Name + ".link", Mode: 0o644, Content: s.String()}, i.MAC != "" && i.Name != ""
}

// advertised reports whether the interface takes what routers advertise.
func advertised(i lane.Interface) bool { return i.DHCP() && !i.NoDefaultRoute }

// networkd writes units of systemd-networkd: it is in Debian's own systemd, needs no other package
// for bonds and VLANs, finds NICs by MAC, and is what scripts/build-image sets up.
func (v view) networkd(all []lane.Interface) (files []lane.File) {
	unit := func(i lane.Interface, kind, text string) {
		files = append(files, lane.File{Path: "/etc/systemd/network/05-bootlane-" + ifaceKey(i) + kind, Mode: 0o644, Content: text})
	}
	for _, i := range all {
		if f, named := linkFile(i); named {
			files = append(files, f)
		}
		if text := netdev(i); text != "" {
			unit(i, ".netdev", text)
		}
		unit(i, ".network", v.networkUnit(i))
	}
	return files
}

// netdev makes a bond or a VLAN.
func netdev(i lane.Interface) string {
	var s settings
	switch {
	case i.Bond != nil:
		s.section("NetDev")
		s.set("Name", i.Name)
		s.set("Kind", "bond")
		s.set("MACAddress", string(i.Bond.First())) // systemd would make one up, that no reservation knows
		s.section("Bond")
		s.set("Mode", i.Bond.Kind())
		s.set("MIIMonitorSec", fmt.Sprintf("%dms", i.Bond.Interval()))
	case i.VLAN != nil:
		s.section("NetDev")
		s.set("Name", i.Name)
		s.set("Kind", "vlan")
		s.section("VLAN")
		s.number("Id", i.VLAN.ID)
	}
	return s.String()
}

func (v view) networkUnit(i lane.Interface) string {
	bond := v.Host.Network.MemberOf(i.MAC)
	var s settings
	s.section("Match")
	if i.MAC != "" { // a member of a bond has the bond's MAC, a VLAN that of its NIC
		s.set("PermanentMACAddress", string(i.MAC))
	} else {
		s.set("Name", i.Name)
	}
	s.section("Link")
	s.number("MTUBytes", i.MTU)
	s.set("RequiredForOnline", yesNo(i.Method != lane.MethodNone))
	s.section("Network")
	if bond != "" {
		s.set("Bond", bond)
		if v.primary(bond) == i.MAC {
			s.set("PrimarySlave", "yes")
		}
		return s.String()
	}
	for _, o := range v.vlansOn(i) {
		s.set("VLAN", o.Name)
	}
	s.set("DHCP", map[bool]string{true: "ipv4", false: "no"}[i.DHCP()])
	s.set("IPv6AcceptRA", yesNo(advertised(i)))
	if i.Method == lane.MethodNone {
		s.set("LinkLocalAddressing", "no")
	}
	s.set("Address", i.Addresses...)
	s.set("Gateway", i.Gateways...)
	s.set("DNS", i.Nameservers...)
	if len(i.Search) > 0 {
		s.set("Domains", strings.Join(i.Search, " "))
	}
	if i.DHCP() {
		s.section("DHCPv4")
		s.set("ClientIdentifier", "mac") // as firmware and installer: the machine keeps its lease
		if i.NoDefaultRoute {
			s.set("UseRoutes", "no")
		}
	}
	return s.String()
}

// primary returns the preferred member of a bond, or nothing.
func (v view) primary(bond string) lane.MAC {
	for _, i := range v.Host.Network.Interfaces {
		if i.Bond != nil && i.Name == bond {
			return i.Bond.Primary
		}
	}
	return ""
}

// vlansOn returns the VLANs on an interface.
func (v view) vlansOn(i lane.Interface) (out []lane.Interface) {
	for _, o := range v.Host.Network.Interfaces {
		if o.VLAN == nil {
			continue
		}
		if link, ok := v.Host.Network.Link(*o.VLAN); ok && ifaceKey(link) == ifaceKey(i) {
			out = append(out, o)
		}
	}
	return out
}

// nic returns the entry of a NIC.
func nic(all []lane.Interface, m lane.MAC) lane.Interface {
	for _, i := range all {
		if i.MAC == m {
			return i
		}
	}
	return lane.Interface{MAC: m}
}

// NetworkConfig is the network as cloud-init reads it, whatever then manages it. Empty: it is
// left with what cloud-init does by itself.
func (v view) NetworkConfig() string {
	if len(v.Host.Network.Whole()) == 0 {
		return ""
	}
	return v.netplan()
}

// netplan writes one document, with further keys on top.
func (v view) netplan(keys ...string) string {
	all := v.Host.Network.Whole()
	var b strings.Builder
	b.WriteString("network:\n  version: 2\n")
	for _, key := range keys {
		b.WriteString("  " + key + "\n")
	}
	for _, section := range []struct {
		name string
		of   func(lane.Interface) bool
	}{{"ethernets", func(i lane.Interface) bool { return i.MAC != "" }}, {"bonds", func(i lane.Interface) bool { return i.Bond != nil }}, {"vlans", func(i lane.Interface) bool { return i.VLAN != nil }}} {
		first := true
		for _, i := range all {
			if !section.of(i) {
				continue
			}
			if first {
				b.WriteString("  " + section.name + ":\n")
				first = false
			}
			b.WriteString("    " + ifaceKey(i) + ":\n")
			for _, line := range v.netplanOf(i, all) {
				b.WriteString("      " + line + "\n")
			}
		}
	}
	return b.String()
}

func (v view) netplanOf(i lane.Interface, all []lane.Interface) (out []string) {
	line := func(key string, value any) { out = append(out, fmt.Sprintf("%s: %v", key, value)) }
	switch {
	case i.MAC != "":
		line("match", fmt.Sprintf("{macaddress: %s}", yamlQuote(i.MAC)))
		if i.Name != "" {
			line("set-name", yamlQuote(i.Name))
		}
	case i.Bond != nil:
		var members []string
		for _, m := range i.Bond.Members {
			members = append(members, ifaceKey(nic(all, m)))
		}
		line("interfaces", yamlList(members))
		line("macaddress", yamlQuote(i.Bond.First()))
		primary := ""
		if i.Bond.Primary != "" {
			primary = ", primary: " + yamlQuote(ifaceKey(nic(all, i.Bond.Primary)))
		}
		line("parameters", fmt.Sprintf("{mode: %s, mii-monitor-interval: %d%s}", yamlQuote(i.Bond.Kind()), i.Bond.Interval(), primary))
	case i.VLAN != nil:
		link, _ := v.Host.Network.Link(*i.VLAN) // it was checked
		line("id", i.VLAN.ID)
		line("link", yamlQuote(ifaceKey(link)))
	}
	line("dhcp4", i.DHCP())
	line("accept-ra", advertised(i))
	if i.Method == lane.MethodNone {
		line("link-local", "[]")
		line("optional", true)
	}
	if i.DHCP() {
		line("dhcp-identifier", "mac") // as firmware and installer: the machine keeps its lease
	}
	if i.NoDefaultRoute {
		line("dhcp4-overrides", "{use-routes: false}")
	}
	if len(i.Addresses) > 0 {
		line("addresses", yamlList(i.Addresses))
	}
	switch {
	case v.Bundle.CloudInit(): // 22.4 makes a route to ::/64 of one to ::/0, unless netplan manages the network
		for _, g := range i.Gateways {
			line("gateway"+map[bool]string{false: "4", true: "6"}[strings.Contains(g, ":")], yamlQuote(g))
		}
	case len(i.Gateways) > 0:
		out = append(out, "routes:")
		for _, g := range i.Gateways {
			out = append(out, fmt.Sprintf("  - {to: %s, via: %s}", yamlQuote(everywhere(g)), yamlQuote(g)))
		}
	}
	if len(i.Nameservers)+len(i.Search) > 0 {
		line("nameservers", fmt.Sprintf("{addresses: %s, search: %s}", yamlList(i.Nameservers), yamlList(i.Search)))
	}
	if i.MTU != 0 {
		line("mtu", i.MTU)
	}
	return out
}

// everywhere is the prefix of a gateway's default route.
func everywhere(gateway string) string {
	if strings.Contains(gateway, ":") {
		return "::/0"
	}
	return "0.0.0.0/0"
}

func yamlList(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, yamlQuote(s))
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// networkManager writes a profile for each interface, and keeps it from making its own for the others.
func (v view) networkManager(all []lane.Interface) (files []lane.File) {
	files = append(files, lane.File{Path: "/etc/NetworkManager/conf.d/90-bootlane.conf", Mode: 0o644, Content: "[main]\nno-auto-default=*\n"})
	for _, i := range all {
		if f, named := linkFile(i); named {
			files = append(files, f)
		}
		files = append(files, lane.File{Path: "/etc/NetworkManager/system-connections/bootlane-" + ifaceKey(i) + ".nmconnection", Mode: 0o600, Content: v.keyfile(i, all)})
	}
	return files
}

// profileID is the id of an interface's profile: profiles speak of each other by it.
func (v view) profileID(i lane.Interface) string {
	sum := sha256.Sum256([]byte("bootlane " + string(v.Host.ID) + " " + ifaceKey(i)))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80 // of version 8: one's own (RFC 9562, 5.8)
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// keyfile writes a profile of NetworkManager, as nm-settings-keyfile(5) has it.
func (v view) keyfile(i lane.Interface, all []lane.Interface) string {
	bond := v.Host.Network.MemberOf(i.MAC)
	var s settings
	s.section("connection")
	s.set("id", "bootlane-"+ifaceKey(i))
	s.set("uuid", v.profileID(i))
	switch {
	case i.MAC != "":
		s.set("type", "ethernet")
	case i.Bond != nil:
		s.set("type", "bond")
		s.set("interface-name", i.Name)
	default:
		s.set("type", "vlan")
		s.set("interface-name", i.Name)
	}
	if bond != "" {
		s.set("master", v.profileID(lane.Interface{Name: bond}))
		s.set("slave-type", "bond")
	}
	s.section("ethernet")
	switch {
	case i.MAC != "":
		s.set("mac-address", strings.ToUpper(string(i.MAC)))
	case i.Bond != nil:
		s.set("cloned-mac-address", strings.ToUpper(string(i.Bond.First())))
	}
	s.number("mtu", i.MTU)
	if b := i.Bond; b != nil {
		s.section("bond")
		s.set("mode", b.Kind())
		s.number("miimon", b.Interval())
		if b.Primary != "" {
			s.set("primary", nic(all, b.Primary).Name)
		}
	}
	if i.VLAN != nil {
		link, _ := v.Host.Network.Link(*i.VLAN) // it was checked
		s.section("vlan")
		s.number("id", i.VLAN.ID)
		s.set("parent", v.profileID(link))
	}
	if bond == "" {
		keyfileAddresses(&s, i)
	}
	return s.String()
}

// keyfileAddresses writes both families. What does not ask has only what is given.
func keyfileAddresses(s *settings, i lane.Interface) {
	for _, six := range []bool{false, true} {
		s.section(map[bool]string{false: "ipv4", true: "ipv6"}[six])
		own := ofFamily(six, i.Addresses)
		switch {
		case len(own) > 0:
			s.set("method", "manual")
			for n, a := range own {
				s.set(fmt.Sprintf("address%d", n+1), a)
			}
			s.set("gateway", ofFamily(six, i.Gateways)...)
		case !six && i.DHCP():
			s.set("method", "auto")
			s.set("dhcp-client-id", "mac") // as firmware and installer: the machine keeps its lease
			if i.NoDefaultRoute {
				s.set("never-default", "true")
			}
		case six && advertised(i):
			s.set("method", "auto")
		case six && i.Method != lane.MethodNone:
			s.set("method", "link-local")
			continue // it has no way to a name server of IPv6
		default:
			s.set("method", "disabled")
			continue
		}
		if dns := ofFamily(six, i.Nameservers); len(dns) > 0 {
			s.set("dns", strings.Join(dns, ";")+";")
		}
		if len(i.Search) > 0 {
			s.set("dns-search", strings.Join(i.Search, ";")+";")
		}
	}
}

// ofFamily returns the addresses, with a prefix or without, that are of IPv6, or are not.
func ofFamily(six bool, list []string) (out []string) {
	for _, a := range list {
		if strings.Contains(a, ":") == six {
			out = append(out, a)
		}
	}
	return out
}

// wicked writes files of /etc/sysconfig/network, which know NICs by name only: udev gives it.
func (v view) wicked(all []lane.Interface) (files []lane.File) {
	var rules, routes strings.Builder
	for _, i := range all {
		if i.MAC != "" { // YaST writes this file too, with the names of the installer
			fmt.Fprintf(&rules, "SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{address}==\"%s\", ATTR{dev_id}==\"0x0\", ATTR{type}==\"1\", NAME=\"%s\"\n", i.MAC, i.Name)
		}
		for _, g := range i.Gateways {
			fmt.Fprintf(&routes, "default %s - %s\n", g, i.Name)
		}
		files = append(files, lane.File{Path: "/etc/sysconfig/network/ifcfg-" + i.Name, Mode: 0o600, Content: v.ifcfg(i, all)})
	}
	return append(files, lane.File{Path: "/etc/udev/rules.d/70-persistent-net.rules", Mode: 0o644, Content: rules.String()},
		lane.File{Path: "/etc/sysconfig/network/routes", Mode: 0o600, Content: routes.String()})
}

// ifcfg writes the file of one interface, as ifcfg(5) has it.
func (v view) ifcfg(i lane.Interface, all []lane.Interface) string {
	var b strings.Builder
	set := func(key string, value any) { fmt.Fprintf(&b, "%s='%v'\n", key, value) }
	member := v.Host.Network.MemberOf(i.MAC) != ""
	set("STARTMODE", map[bool]string{true: "hotplug", false: "auto"}[member]) // the bond takes its members up
	switch {
	case i.DHCP():
		set("BOOTPROTO", map[bool]string{true: "dhcp", false: "dhcp4"}[advertised(i)])
		set("DHCLIENT_SET_DEFAULT_ROUTE", yesNo(!i.NoDefaultRoute))
	case i.Method == lane.MethodNone:
		set("BOOTPROTO", "none")
	default:
		set("BOOTPROTO", "static")
	}
	for n, a := range i.Addresses {
		suffix := ""
		if n > 0 {
			suffix = fmt.Sprintf("_%d", n)
		}
		set("IPADDR"+suffix, a)
	}
	if i.MTU != 0 {
		set("MTU", i.MTU)
	}
	if o := i.Bond; o != nil {
		set("BONDING_MASTER", "yes")
		for n, m := range o.Members {
			set(fmt.Sprintf("BONDING_SLAVE_%d", n), nic(all, m).Name)
		}
		options := fmt.Sprintf("mode=%s miimon=%d", o.Kind(), o.Interval())
		if o.Primary != "" {
			options += " primary=" + nic(all, o.Primary).Name
		}
		set("BONDING_MODULE_OPTS", options)
		set("LLADDR", o.First())
	}
	if o := i.VLAN; o != nil {
		link, _ := v.Host.Network.Link(*o) // it was checked
		set("ETHERDEVICE", link.Name)
		set("VLAN_ID", o.ID)
	}
	return b.String()
}

// NameServers and SearchDomains are those of all interfaces, for what has one list.
func (v view) NameServers() []string {
	return v.listed(func(i lane.Interface) []string { return i.Nameservers })
}

// SearchDomains: see NameServers.
func (v view) SearchDomains() []string {
	return v.listed(func(i lane.Interface) []string { return i.Search })
}

func (v view) listed(of func(lane.Interface) []string) (out []string) {
	seen := map[string]bool{}
	for _, i := range v.Host.Network.Interfaces {
		for _, s := range of(i) {
			if !seen[s] {
				out = append(out, s)
			}
			seen[s] = true
		}
	}
	return out
}

// Expected are the lines by which first boot knows that the network is as it was asked for: KIND, the
// interface by its name or MAC, VALUE, each one word. The addresses come first.
func (v view) Expected() []string {
	var first, rest []string
	for _, i := range v.Host.Network.Whole() {
		name := i.Name
		if name == "" {
			name = string(i.MAC)
		}
		add := func(to *[]string, kind string, values ...string) {
			for _, s := range values {
				*to = append(*to, kind+" "+name+" "+s)
			}
		}
		if i.DHCP() {
			add(&first, "address", "any")
		}
		add(&first, "address", i.Addresses...)
		add(&first, "gateway", i.Gateways...)
		if i.MTU != 0 {
			add(&rest, "mtu", fmt.Sprint(i.MTU))
		}
		switch {
		case i.Bond != nil:
			add(&rest, "mode", i.Bond.Kind())
			for _, m := range i.Bond.Members {
				add(&rest, "member", string(m))
			}
		case i.VLAN != nil:
			add(&rest, "vlan", fmt.Sprint(i.VLAN.ID))
		}
	}
	return append(first, rest...)
}

// Address returns the address that the record reserves, or nothing. It is the firmware's and the
// installer's; a system whose interfaces are given may ask elsewhere, or not at all.
func (v view) Address() string {
	if a := v.Host.Network.Address; a.IsValid() && len(v.Host.Network.Interfaces) == 0 {
		return a.String()
	}
	return ""
}

// checkNetwork refuses what the target's network management cannot say.
func (in Input) checkNetwork() (out []string) {
	if len(in.Host.Network.Interfaces) == 0 {
		return nil
	}
	named := map[lane.MAC]bool{}
	for _, i := range in.Host.Network.Interfaces {
		named[i.MAC] = i.Name != ""
	}
	wicked := in.Bundle.Seed == lane.SeedAutoYaST
	manager := in.Bundle.Seed == lane.SeedKickstart || in.Bundle.Seed == lane.SeedAgama || in.Bundle.Ignites() && in.Bundle.OS != "flatcar"
	for n, i := range in.Host.Network.Interfaces {
		field := fmt.Sprintf("network.interfaces[%d]", n)
		if wicked && i.MAC != "" && i.Name == "" {
			out = append(out, field+".name: is missing: wicked, which manages networks in this release, knows a NIC by its name only")
		}
		if i.Bond == nil {
			continue
		}
		for x, m := range i.Bond.Members {
			if wicked && !named[m] {
				out = append(out, fmt.Sprintf("%s.bond.members[%d]: wicked, which manages networks in this release, knows a NIC by its name only: add an entry with `mac: %s` and a name", field, x, m))
			}
		}
		if manager && i.Bond.Primary != "" && !named[i.Bond.Primary] {
			out = append(out, fmt.Sprintf("%s.bond.primary: NetworkManager knows it by its name only: add an entry with `mac: %s` and a name", field, i.Bond.Primary))
		}
	}
	if in.Bundle.Seed == lane.SeedPreseed && (in.Bundle.Release == "buster" || in.Bundle.Release == "bullseye") {
		out = append(out, "network.interfaces: Debian "+in.Bundle.Release+" has no systemd-resolved of its own: use Debian 12 or later, or leave the installed system to DHCP")
	}
	return out
}
