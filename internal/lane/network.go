package lane

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Network is how a host is addressed.
type Network struct {
	// Address is reserved for this host in DHCP, Address6 in DHCPv6.
	Address  netip.Addr `json:"address,omitzero"`
	Address6 netip.Addr `json:"address6,omitzero"`
	// Interfaces are those of the installed system, which then has no others. None: it is
	// left with what its installer or its image does by itself, which is DHCP.
	Interfaces []Interface `json:"interfaces,omitempty"`
}

// Interface is one network interface of the installed system: a NIC, known by its MAC; a
// bond of NICs; or a VLAN on one of either.
type Interface struct {
	MAC  MAC    `json:"mac,omitempty" yaml:"mac,omitempty"`   // of a NIC
	Name string `json:"name,omitempty" yaml:"name,omitempty"` // that a NIC is given; of a bond and a VLAN it must be said
	Bond *Bond  `json:"bond,omitempty" yaml:"bond,omitempty"`
	VLAN *VLAN  `json:"vlan,omitempty" yaml:"vlan,omitempty"`
	// Method is MethodDHCP, MethodStatic or MethodNone. Empty: static where there are
	// addresses, none of a bond's member, DHCP of all others.
	Method      string   `json:"method,omitempty" yaml:"method,omitempty"`
	Addresses   []string `json:"addresses,omitempty" yaml:"addresses,omitempty"` // 10.0.0.21/24, fd00:20::21/64
	Gateways    []string `json:"gateways,omitempty" yaml:"gateways,omitempty"`   // of the default routes, one for each of IPv4 and IPv6
	Nameservers []string `json:"nameservers,omitempty" yaml:"nameservers,omitempty"`
	Search      []string `json:"search,omitempty" yaml:"search,omitempty"`
	MTU         int      `json:"mtu,omitempty" yaml:"mtu,omitempty"`
	// NoDefaultRoute takes no default route from DHCP, and nothing from router advertisements.
	NoDefaultRoute bool `json:"noDefaultRoute,omitempty" yaml:"noDefaultRoute,omitempty"`
}

// Bond is several NICs as one.
type Bond struct {
	Members []MAC  `json:"members,omitempty" yaml:"members,omitempty"`
	Mode    string `json:"mode,omitempty" yaml:"mode,omitempty"`       // as the kernel names it; empty: active-backup
	Primary MAC    `json:"primary,omitempty" yaml:"primary,omitempty"` // the member that is used as long as it works
	MIIMon  int    `json:"miimon,omitempty" yaml:"miimon,omitempty"`   // how often the members' links are looked at, in milliseconds; 0: 100
}

// VLAN is one network of IEEE 802.1Q on another interface.
type VLAN struct {
	ID   int    `json:"id" yaml:"id"`
	Link string `json:"link" yaml:"link"` // the name of a NIC or a bond of the list, or a NIC's MAC
}

// How an interface gets its addresses.
const (
	MethodDHCP   = "dhcp"   // IPv4 by DHCP, IPv6 as routers advertise it
	MethodStatic = "static" // those that are given, and no others
	MethodNone   = "none"   // it is up, and carries VLANs or a bond
)

// The modes of a bond that prefer a member.
const (
	bondActiveBackup = "active-backup"
	bondTLB          = "balance-tlb"
	bondALB          = "balance-alb"
)

// bondModes are the kernel's (Documentation/networking/bonding.rst).
func bondModes() []string {
	return []string{bondActiveBackup, "802.3ad", "balance-rr", "balance-xor", "broadcast", bondTLB, bondALB}
}

// Kind returns the mode, and the default where none is given.
func (b Bond) Kind() string {
	return cmp.Or(b.Mode, bondActiveBackup)
}

// Interval returns how often the members' links are looked at, in milliseconds.
func (b Bond) Interval() int {
	return cmp.Or(b.MIIMon, 100)
}

// First returns the member whose MAC is the bond's.
func (b Bond) First() MAC {
	if b.Primary != "" || len(b.Members) == 0 {
		return b.Primary
	}
	return b.Members[0]
}

// DHCP reports whether the interface asks for its addresses.
func (i Interface) DHCP() bool {
	return i.Method == MethodDHCP || i.Method == "" && len(i.Addresses) == 0
}

// prefixes returns the addresses that can be read.
func (i Interface) prefixes() (out []netip.Prefix) {
	for _, a := range i.Addresses {
		if p, err := netip.ParsePrefix(a); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// Static returns the addresses that the installed system has without asking for them.
func (n Network) Static() (out []netip.Addr) {
	for _, i := range n.Interfaces {
		for _, p := range i.prefixes() {
			out = append(out, p.Addr())
		}
	}
	return out
}

// Field returns where an address stands in the record.
func (n Network) Field(a netip.Addr) string {
	switch a {
	case n.Address:
		return "network.address"
	case n.Address6:
		return "network.address6"
	}
	for x, i := range n.Interfaces {
		for y, text := range i.Addresses {
			if p, err := netip.ParsePrefix(text); err == nil && p.Addr() == a {
				return fmt.Sprintf("network.interfaces[%d].addresses[%d]", x, y)
			}
		}
	}
	return "network"
}

// MemberOf returns the bond that a NIC is in, or nothing.
func (n Network) MemberOf(m MAC) string {
	for _, i := range n.Interfaces {
		if i.Bond != nil && m != "" && slices.Contains(i.Bond.Members, m) {
			return i.Name
		}
	}
	return ""
}

// Link returns the interface that a VLAN is on.
func (n Network) Link(v VLAN) (Interface, bool) {
	for _, i := range n.Interfaces {
		if i.VLAN == nil && v.Link != "" && (i.Name == v.Link || string(i.MAC) == v.Link) {
			return i, true
		}
	}
	return Interface{}, false
}

// Whole returns the list with what it only implies: an entry for each member of a bond, and
// the method of each.
func (n Network) Whole() (out []Interface) {
	known := map[MAC]bool{}
	for _, i := range n.Interfaces {
		known[i.MAC] = true
	}
	for _, i := range n.Interfaces {
		switch {
		case n.MemberOf(i.MAC) != "":
			i.Method = MethodNone
		case i.Method == "" && len(i.Addresses) > 0:
			i.Method = MethodStatic
		case i.Method == "":
			i.Method = MethodDHCP
		}
		if i.Bond != nil {
			for _, m := range i.Bond.Members {
				if !known[m] {
					out = append(out, Interface{MAC: m, Method: MethodNone})
				}
			}
		}
		out = append(out, i)
	}
	return out
}

// clone returns a copy that shares nothing with n.
func (n Network) clone() Network {
	n.Interfaces = slices.Clone(n.Interfaces)
	for x := range n.Interfaces {
		i := &n.Interfaces[x]
		if i.Bond != nil {
			own := *i.Bond
			own.Members = slices.Clone(own.Members)
			i.Bond = &own
		}
		if i.VLAN != nil {
			own := *i.VLAN
			i.VLAN = &own
		}
		i.Addresses, i.Gateways = slices.Clone(i.Addresses), slices.Clone(i.Gateways)
		i.Nameservers, i.Search = slices.Clone(i.Nameservers), slices.Clone(i.Search)
	}
	return n
}

// canonical returns n with its MACs and addresses in their one form.
func (n Network) canonical() Network {
	n = n.clone()
	mac := func(m *MAC) {
		if c, err := ParseMAC(string(*m)); err == nil && *m != "" {
			*m = c
		}
	}
	for x := range n.Interfaces {
		i := &n.Interfaces[x]
		mac(&i.MAC)
		if i.Bond != nil {
			mac(&i.Bond.Primary)
			for y := range i.Bond.Members {
				mac(&i.Bond.Members[y])
			}
		}
		if i.VLAN != nil && strings.Contains(i.VLAN.Link, ":") {
			m := MAC(i.VLAN.Link)
			mac(&m)
			i.VLAN.Link = string(m)
		}
		for y, a := range i.Addresses {
			if p, err := netip.ParsePrefix(a); err == nil {
				i.Addresses[y] = p.String()
			}
		}
		for _, list := range [][]string{i.Gateways, i.Nameservers} {
			for y, a := range list {
				if p, err := netip.ParseAddr(a); err == nil {
					list[y] = p.String()
				}
			}
		}
	}
	return n
}

// equal reports whether o says the same. What an interface says is all in its text.
func (n Network) equal(o Network) bool {
	return n.Address == o.Address && n.Address6 == o.Address6 && len(n.Interfaces) == len(o.Interfaces) && n.interfacesText() == o.interfacesText()
}

// String describes the interface on one line.
func (i Interface) String() string {
	out := []string{i.Name, string(i.MAC)}
	if b := i.Bond; b != nil {
		out = append(out, fmt.Sprintf("%s of %s", b.Kind(), joinMACs(b.Members)))
		if b.Primary != "" {
			out = append(out, "primary "+string(b.Primary))
		}
		if b.MIIMon != 0 {
			out = append(out, fmt.Sprintf("every %d ms", b.MIIMon))
		}
	}
	if v := i.VLAN; v != nil {
		out = append(out, fmt.Sprintf("VLAN %d on %s", v.ID, v.Link))
	}
	out = append(out, i.Method)
	if i.Method == "" && len(i.Addresses) == 0 {
		out = append(out, MethodDHCP)
	}
	out = append(out, i.Addresses...)
	for _, l := range []struct {
		what string
		list []string
	}{{"via", i.Gateways}, {"DNS", i.Nameservers}, {"search", i.Search}} {
		if len(l.list) > 0 {
			out = append(out, l.what+" "+strings.Join(l.list, " "))
		}
	}
	if i.MTU != 0 {
		out = append(out, fmt.Sprintf("MTU %d", i.MTU))
	}
	if i.NoDefaultRoute {
		out = append(out, "no default route")
	}
	return strings.Join(slices.DeleteFunc(out, func(s string) bool { return s == "" }), " ")
}

// interfacesText describes all interfaces on one line.
func (n Network) interfacesText() string {
	var out []string
	for _, i := range n.Interfaces {
		out = append(out, i.String())
	}
	return strings.Join(out, ", ")
}

var (
	ifaceName = regexp.MustCompile(`^[a-z][a-z0-9_.-]{0,14}$`)
	givenName = regexp.MustCompile(`^(eth|wlan|ib)[0-9]+$`)
)

// netCheck collects what is wrong with a list of interfaces.
type netCheck struct {
	host      Host
	out       []Problem
	names     map[string]string     // to the field that has it
	macs      map[MAC]string        // NICs of the list
	members   map[MAC]string        // of bonds
	addresses map[netip.Addr]string // static ones
	vlans     map[string]string
	routes    [2]string // who brings the default route: of IPv4, of IPv6
}

func (c *netCheck) bad(field, format string, args ...any) {
	c.out = append(c.out, Problem{"network." + field, fmt.Sprintf(format, args...)})
}

// validateInterfaces returns every problem of the interfaces.
func (h Host) validateInterfaces() []Problem {
	c := &netCheck{host: h, names: map[string]string{}, macs: map[MAC]string{}, members: map[MAC]string{}, addresses: map[netip.Addr]string{}, vlans: map[string]string{}}
	dns := len(h.Network.Interfaces) == 0
	for n, i := range h.Network.Interfaces {
		field := fmt.Sprintf("interfaces[%d]", n)
		c.identity(field, i)
		c.bond(field, i)
		c.vlan(field, i)
		c.addressing(field, i)
		c.gateways(field, i)
		dns = dns || i.DHCP() && h.Network.MemberOf(i.MAC) == "" || len(i.Nameservers) > 0
	}
	if !dns {
		c.bad("interfaces", "no name server: no interface asks DHCP for one, and none has `nameservers`")
	}
	return c.out
}

// identity looks at what the interface is, and what it is called.
func (c *netCheck) identity(field string, i Interface) {
	switch {
	case (i.MAC != "") == (i.Bond != nil) && i.VLAN == nil, i.VLAN != nil && (i.MAC != "" || i.Bond != nil):
		c.bad(field, "give one of `mac`, `bond` and `vlan`: it is a NIC, a bond of NICs, or a VLAN on one of either")
	case i.MAC != "":
		c.mac(field+".mac", i.MAC, c.macs)
	case i.Name == "":
		c.bad(field+".name", "is missing: a bond or a VLAN has the name that it is given, like bond0 or storage")
	}
	switch first, twice := c.names[i.Name]; {
	case i.Name == "":
	case !ifaceName.MatchString(i.Name):
		c.bad(field+".name", "%q is not the name of an interface: a lower-case letter, then letters, digits, _ . and -, at most 15 bytes, the kernel's limit", i.Name)
	case slices.Contains([]string{"lo", "all", "default"}, i.Name):
		c.bad(field+".name", "%q is the kernel's own", i.Name)
	case i.MAC != "" && givenName.MatchString(i.Name):
		c.bad(field+".name", "%q may be the name of another NIC while this one is renamed: use one that the kernel does not give, like lan0", i.Name)
	case twice:
		c.bad(field+".name", "%q is also the name of %s", i.Name, first)
	default:
		c.names[i.Name] = field
	}
	if i.MTU != 0 && (i.MTU < 576 || i.MTU > 65535) {
		c.bad(field+".mtu", "%d: an MTU is between 576 and 65535 bytes", i.MTU)
	}
	if bond := c.host.Network.MemberOf(i.MAC); bond != "" && (i.Method != "" || len(i.Addresses)+len(i.Gateways)+len(i.Nameservers)+len(i.Search) > 0 || i.NoDefaultRoute) {
		c.bad(field, "it is a member of %s, which has the addresses: a member has its mac, a name and an MTU, no more", bond)
	}
}

// mac looks at one MAC that must be the machine's, and be named once.
func (c *netCheck) mac(field string, m MAC, seen map[MAC]string) {
	p, err := ParseMAC(string(m))
	switch first, twice := seen[p]; {
	case err != nil:
		c.bad(field, "%v", err)
	case !slices.Contains(c.host.Canonical().Identity.MACs, p):
		c.bad(field, "%s is not among the machine's identity.macs: add it there, or correct it here", p)
	case twice:
		c.bad(field, "%s is also %s", p, first)
	default:
		seen[p] = field
	}
}

func (c *netCheck) bond(field string, i Interface) {
	b := i.Bond
	if b == nil {
		return
	}
	if len(b.Members) == 0 {
		c.bad(field+".bond.members", "is missing: the MACs of the NICs that the bond is made of")
	}
	for n, m := range b.Members {
		c.mac(fmt.Sprintf("%s.bond.members[%d]", field, n), m, c.members)
	}
	if !slices.Contains(bondModes(), b.Kind()) {
		c.bad(field+".bond.mode", "%q: use one of %s", b.Mode, strings.Join(bondModes(), ", "))
	}
	switch {
	case b.Primary == "":
	case !slices.Contains(b.Members, b.Primary):
		c.bad(field+".bond.primary", "%s is not one of the members", b.Primary)
	case !slices.Contains([]string{bondActiveBackup, bondTLB, bondALB}, b.Kind()):
		c.bad(field+".bond.primary", "mode %s prefers no member: leave it out, or use %s", b.Kind(), bondActiveBackup)
	}
	if b.MIIMon < 0 || b.MIIMon > 10000 {
		c.bad(field+".bond.miimon", "%d: between 1 and 10000 milliseconds, or 0 for 100", b.MIIMon)
	}
}

func (c *netCheck) vlan(field string, i Interface) {
	v := i.VLAN
	if v == nil {
		return
	}
	if v.ID < 1 || v.ID > maxVLAN {
		c.bad(field+".vlan.id", "%d is no VLAN: 1 to %d", v.ID, maxVLAN)
	}
	link, known := c.host.Network.Link(*v)
	if !known {
		c.bad(field+".vlan.link", "%q is not in the list: the name of a NIC or a bond, or a NIC's MAC", v.Link)
		return
	}
	if bond := c.host.Network.MemberOf(link.MAC); bond != "" {
		c.bad(field+".vlan.link", "%s is a member of %s: put the VLAN on %[2]s", v.Link, bond)
	}
	if i.MTU > cmp.Or(link.MTU, 1500) {
		c.bad(field+".mtu", "%d is more than %s carries: give that one as large an MTU", i.MTU, v.Link)
	}
	key := fmt.Sprintf("%d on %s%s", v.ID, link.Name, link.MAC)
	if first, twice := c.vlans[key]; twice {
		c.bad(field+".vlan", "VLAN %d on %s is also %s", v.ID, v.Link, first)
	}
	c.vlans[key] = field
}

// addressing looks at the method, the addresses, and the name servers.
func (c *netCheck) addressing(field string, i Interface) {
	switch {
	case !slices.Contains([]string{"", MethodDHCP, MethodStatic, MethodNone}, i.Method):
		c.bad(field+".method", "%q: use %s, %s or %s", i.Method, MethodDHCP, MethodStatic, MethodNone)
	case i.Method == MethodStatic && len(i.Addresses) == 0:
		c.bad(field+".addresses", "is missing: a static interface has at least one, like 10.0.0.21/24")
	case (i.Method == MethodDHCP || i.Method == MethodNone) && len(i.Addresses) > 0:
		c.bad(field+".method", "%s, and there are addresses: leave out one of both", i.Method)
	}
	if i.NoDefaultRoute && !i.DHCP() {
		c.bad(field+".noDefaultRoute", "is for an interface with DHCP: leave out `gateways` here")
	}
	for n, text := range i.Addresses {
		where := fmt.Sprintf("%s.addresses[%d]", field, n)
		p, err := netip.ParsePrefix(text)
		if err != nil {
			c.bad(where, "%q is not an address with the length of its prefix, like 10.0.0.21/24 or fd00:20::21/64", text)
			continue
		}
		c.address(where, p, i)
	}
	for n, text := range i.Nameservers {
		if a, err := netip.ParseAddr(text); err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			c.bad(fmt.Sprintf("%s.nameservers[%d]", field, n), "%q is not the address of a name server", text)
		}
	}
	for n, d := range i.Search {
		if !DomainName(d) {
			c.bad(fmt.Sprintf("%s.search[%d]", field, n), "%q is not a domain name", d)
		}
	}
}

func (c *netCheck) address(field string, p netip.Prefix, i Interface) {
	a, s := p.Addr(), Subnet{Prefix: p}
	first, twice := c.addresses[a]
	switch {
	case a.Is4In6() || !a.IsGlobalUnicast():
		c.bad(field, "%s is not a host's address: a global, private or unique local one", a)
	case p.Bits() == 0:
		c.bad(field, "%s: a prefix of length 0 is the whole Internet", p)
	case a.Is4() && p.Bits() < 31 && slices.Contains(s.ends(), a):
		c.bad(field, "%s is no host's: the first and the last of %s are the network's own and the broadcast address", a, p.Masked())
	case a.Is6() && p.Bits() < 127 && slices.Contains(s.ends(), a):
		c.bad(field, "%s is no host's: the first of %s is every router's (RFC 4291 2.6.1)", a, p.Masked())
	case twice:
		c.bad(field, "%s is also %s", a, first)
	}
	if a.Is6() && i.MTU != 0 && i.MTU < 1280 {
		c.bad(field, "IPv6 needs an MTU of at least 1280 (RFC 8200, 5), and it is %d", i.MTU)
	}
	c.addresses[a] = field
}

// gateways looks at who brings the default routes. There is one of each family.
func (c *netCheck) gateways(field string, i Interface) {
	brings := func(family int, where string) {
		if first := c.routes[family]; first != "" {
			c.bad(where, "a second default route of %s, beside that of %s: leave out one, or say `noDefaultRoute: true` of an interface with DHCP", []string{"IPv4", "IPv6"}[family], first)
			return
		}
		c.routes[family] = where
	}
	if i.MAC == "" && i.Bond == nil && i.VLAN == nil {
		return
	}
	if i.DHCP() && c.host.Network.MemberOf(i.MAC) == "" && !i.NoDefaultRoute {
		brings(0, field)
		if len(i.Gateways) > 0 {
			c.bad(field+".gateways", "DHCP brings the default route: leave them out, or give addresses")
		}
		return
	}
	for n, text := range i.Gateways {
		where := fmt.Sprintf("%s.gateways[%d]", field, n)
		g, err := netip.ParseAddr(text)
		if err != nil || g.Zone() != "" {
			c.bad(where, "%q is not an address", text)
			continue
		}
		switch {
		case !slices.ContainsFunc(i.prefixes(), func(p netip.Prefix) bool { return p.Contains(g) }):
			c.bad(where, "%s is not in the network of one of the interface's addresses", g)
		case slices.ContainsFunc(i.prefixes(), func(p netip.Prefix) bool { return p.Addr() == g }):
			c.bad(where, "%s is the machine's own address", g)
		case slices.ContainsFunc(i.prefixes(), func(p netip.Prefix) bool {
			return g.Is4() && p.Bits() < 31 && p.Contains(g) && slices.Contains(Subnet{Prefix: p}.ends(), g)
		}):
			c.bad(where, "%s is the network's own or its broadcast address", g)
		}
		if g.Is4() {
			brings(0, where)
		} else {
			brings(1, where)
		}
	}
}
