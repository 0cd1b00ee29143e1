package app

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"bootlane/internal/control"
	"bootlane/internal/dhcp"
	"bootlane/internal/lane"
)

// Network describes one boot network, and who owns its addresses.
type Network struct {
	// Mode is "own" (the default), or "proxy": another server gives the addresses, and
	// Bootlane the boot files; or "external": that server names the boot files too, as
	// `bootlane dhcp export` writes it. There is no guessing which: two owners, or none,
	// break a rack.
	Mode          string        `yaml:"mode"`
	Interface     string        `yaml:"interface"`
	Relays        []string      `yaml:"relays,omitempty"` // addresses of the relay agents that it is reached through; none: it is attached
	Server        string        `yaml:"server"`           // our address, as its machines reach it
	Subnet        string        `yaml:"subnet"`
	Range         string        `yaml:"range,omitempty"` // FIRST-LAST, for every client that no class has a range for
	Pools         []Pool        `yaml:"pools,omitempty"`
	Routers       []string      `yaml:"routers,omitempty"`
	DNS           []string      `yaml:"dns,omitempty"`
	NTP           []string      `yaml:"ntp,omitempty"`
	Domain        string        `yaml:"domain,omitempty"`
	Lease         time.Duration `yaml:"lease,omitempty"`
	Authoritative bool          `yaml:"authoritative,omitempty"`
	ConflictProbe *bool         `yaml:"conflictProbe,omitempty"` // default true
	KnownOnly     bool          `yaml:"knownOnly,omitempty"`     // of a proxy: silence towards machines without a record
	Only4011      bool          `yaml:"only4011,omitempty"`      // of a proxy: the address server runs on this machine, and has port 67
	Redirect4011  bool          `yaml:"redirect4011,omitempty"`  // of a proxy: name the boot file on port 4011 only
	IPv6          *IPv6         `yaml:"ipv6,omitempty"`
}

// Pool is a range for the clients of one class.
type Pool struct {
	Range string `yaml:"range"`
	Class string `yaml:"class"`
}

// Class is a kind of client: what it says of itself, or where its relay agent says that
// it is. What is not given does not matter; the first class that fits counts.
type Class struct {
	Name      string           `yaml:"name"`
	Platform  string           `yaml:"platform,omitempty"`
	Vendor    string           `yaml:"vendor,omitempty"`    // beginning of option 60
	UserClass string           `yaml:"userClass,omitempty"` // option 77
	CircuitID string           `yaml:"circuitId,omitempty"` // option 82.1 and 82.2, as `bootlane events` shows them
	RemoteID  string           `yaml:"remoteId,omitempty"`
	Boot      lane.BootOptions `yaml:"boot,omitempty"`
}

// The modes of a network.
const (
	modeOwn      = "own"
	modeProxy    = "proxy"
	modeExternal = "external" // the site's DHCP server also names the boot files: Bootlane speaks no DHCP
)

// Proxy reports whether another server gives the addresses.
func (n Network) Proxy() bool { return n.Mode == modeProxy }

func (n Network) withDefaults() Network {
	if n.Mode == "" {
		n.Mode = modeOwn
	}
	if n.Mode == modeProxy {
		return n
	}
	if n.IPv6 != nil {
		n.IPv6 = n.IPv6.withDefaults(n)
	}
	if n.Lease == 0 {
		n.Lease = dhcp.Network{}.LeaseTime()
	}
	if n.ConflictProbe == nil && n.Mode == modeOwn {
		yes := true
		n.ConflictProbe = &yes
	}
	return n
}

// findings collects problems of one part of the configuration.
type findings struct {
	prefix string
	list   []lane.Problem
}

func (f *findings) bad(field, format string, args ...any) {
	f.list = append(f.list, lane.Problem{Field: f.prefix + field, Message: fmt.Sprintf(format, args...)})
}

// checkNetworks looks at every network, and at what two of them cannot both be.
func (c Config) checkNetworks() []lane.Problem {
	var out findings
	if len(c.Networks) == 0 {
		out.bad("networks", "is missing: the list of the boot networks, each with interface, server, subnet and range")
	}
	for i, n := range c.Networks {
		f := findings{prefix: fmt.Sprintf("networks[%d].", i)}
		n.check(&f)
		for j, p := range n.Pools {
			if !slices.ContainsFunc(c.Classes, func(k Class) bool { return k.Name == p.Class }) {
				f.bad(fmt.Sprintf("pools[%d].class", j), "%q is no class of this configuration: `classes` lists them", p.Class)
			}
		}
		for j, o := range c.Networks[:i] {
			n.beside(&f, o, j)
		}
		out.list = append(out.list, f.list...)
	}
	for i, k := range c.Classes {
		f := findings{prefix: fmt.Sprintf("classes[%d].", i)}
		k.check(&f, c)
		if slices.ContainsFunc(c.Classes[:i], func(o Class) bool { return o.Name == k.Name }) {
			f.bad("name", "%q stands twice", k.Name)
		}
		out.list = append(out.list, f.list...)
	}
	return out.list
}

// beside looks at what two networks cannot both be.
func (n Network) beside(f *findings, o Network, j int) {
	a, errA := netip.ParsePrefix(n.Subnet)
	b, errB := netip.ParsePrefix(o.Subnet)
	if errA == nil && errB == nil && a.Overlaps(b) {
		f.bad("subnet", "%s overlaps networks[%d], %s", a, j, b)
	}
	n.beside6(f, o, j)
	if n.Interface != o.Interface || n.Interface == "" {
		return
	}
	if len(n.Relays) == 0 && len(o.Relays) == 0 {
		f.bad("interface", "%s is attached to networks[%d] already: nothing in a broadcast tells two networks on one interface apart; give each its own (a VLAN), or one of them `relays`", n.Interface, j)
	}
	if n.Only4011 != o.Only4011 && (n.Only4011 || o.Only4011) {
		f.bad("only4011", "port 67 of %s is needed for networks[%d]", n.Interface, j)
	}
}

func (n Network) check(f *findings) {
	if n.Interface == "" {
		f.bad("interface", "is missing: the interface of the boot network, as `ip -br link` shows it")
	}
	n.checkMode(f)
	n.checkAddresses(f)
	n.check6(f)
	for name, list := range map[string][]string{"dns": n.DNS, "ntp": n.NTP, "relays": n.Relays} {
		for i, v := range list {
			if a, err := netip.ParseAddr(v); err != nil || !a.Is4() {
				f.bad(fmt.Sprintf("%s[%d]", name, i), "%q is not an IPv4 address", v)
			}
		}
	}
	if n.Lease != 0 && (n.Lease < 5*time.Minute || n.Lease > 30*24*time.Hour) {
		f.bad("lease", "%s: from 5m to 720h; firmware and installers never renew, an hour is a good choice", n.Lease)
	}
}

// checkMode looks for keys that say one thing about who owns the addresses, and a
// mode that says another.
func (n Network) checkMode(f *findings) {
	switch n.Mode {
	case modeOwn, modeExternal:
		for field, set := range map[string]bool{"knownOnly": n.KnownOnly, "only4011": n.Only4011, "redirect4011": n.Redirect4011} {
			if set {
				f.bad(field, "is for mode: proxy")
			}
		}
	case modeProxy:
		for field, set := range map[string]bool{"range": n.Range != "", "pools": len(n.Pools) > 0, "routers": len(n.Routers) > 0, "dns": len(n.DNS) > 0, "ntp": len(n.NTP) > 0,
			"lease": n.Lease != 0, "authoritative": n.Authoritative, "conflictProbe": n.ConflictProbe != nil} {
			if set {
				f.bad(field, "is the address server's business in mode: proxy: take it out")
			}
		}
		if n.Only4011 && len(n.Relays) > 0 {
			f.bad("only4011", "port 4011 is never relayed")
		}
	default:
		f.bad("mode", "%q: use own, proxy or external", n.Mode)
	}
}

// checkAddresses looks at the subnet and what must lie in it. With a subnet that
// cannot be read, the addresses are still looked at by themselves.
func (n Network) checkAddresses(f *findings) {
	subnet, err := netip.ParsePrefix(n.Subnet)
	known := err == nil && subnet.Addr().Is4() && subnet.Bits() <= 30 && subnet.Bits() >= 8
	switch {
	case !known:
		f.bad("subnet", "%q is not an IPv4 network like 10.0.0.0/24", n.Subnet)
	case subnet != subnet.Masked():
		f.bad("subnet", "%s has host bits: write %s", n.Subnet, subnet.Masked())
	}
	inside := func(field, v string) netip.Addr {
		a, err := netip.ParseAddr(v)
		if err != nil {
			f.bad(field, "%q is not an address", v)
		} else if known && !subnet.Contains(a) {
			f.bad(field, "%s is not in the subnet %s", a, subnet)
		}
		return a
	}
	if a, err := netip.ParseAddr(n.Server); len(n.Relays) == 0 {
		inside("server", n.Server)
	} else if err != nil || !a.Is4() { // machines behind a relay agent reach it through their router
		address, _, prefix := strings.Cut(n.Server, "/")
		if prefix {
			f.bad("server", "%q has a prefix length, which belongs to subnet: write %s", n.Server, address)
		} else {
			f.bad("server", "%q is not an IPv4 address", n.Server)
		}
	}
	for i, r := range n.Routers {
		inside(fmt.Sprintf("routers[%d]", i), r)
	}
	if n.Proxy() {
		return
	}
	if n.Range == "" && len(n.Pools) == 0 {
		f.bad("range", "is missing: FIRST-LAST, like 10.0.0.100-10.0.0.199, for machines without a reservation")
	}
	var seen []dhcp.Range
	for field, text := range n.ranges() {
		first, last, found := ends(text)
		if !found {
			f.bad(field, "%q is not FIRST-LAST, like 10.0.0.100-10.0.0.199", text)
			continue
		}
		r := dhcp.Range{First: inside(field, first), Last: inside(field, last)}
		if !r.First.IsValid() || !r.Last.IsValid() {
			continue
		}
		n.checkRange(f, field, r, seen)
		seen = append(seen, r)
	}
}

// ranges yields every range with its field.
func (n Network) ranges() func(func(field, text string) bool) {
	return func(yield func(string, string) bool) {
		if n.Range != "" && !yield("range", n.Range) {
			return
		}
		for i, p := range n.Pools {
			if !yield(fmt.Sprintf("pools[%d].range", i), p.Range) {
				return
			}
		}
	}
}

// checkRange looks at one range, and at those before it.
func (n Network) checkRange(f *findings, field string, r dhcp.Range, before []dhcp.Range) {
	if r.Last.Less(r.First) {
		f.bad(field, "%s-%s ends before it begins", r.First, r.Last)
	}
	holds := func(a netip.Addr) bool { return a.IsValid() && !a.Less(r.First) && !r.Last.Less(a) }
	for _, o := range before {
		if holds(o.First) || holds(o.Last) || !o.Last.Less(r.First) && !r.First.Less(o.First) {
			f.bad(field, "%s-%s overlaps %s-%s", r.First, r.Last, o.First, o.Last)
		}
	}
	s, err := n.subnet()
	if err != nil {
		return // each of the addresses has its own line
	}
	for _, t := range s.Taken() {
		if holds(t) {
			f.bad(field, "%s-%s holds %s, which is not free: the network's own, the broadcast address, the server, a relay agent, a router, a name or a time server", r.First, r.Last, t)
		}
	}
}

// subnet parses what every part must know of the network.
func (n Network) subnet() (lane.Subnet, error) {
	p, err := netip.ParsePrefix(n.Subnet)
	if err != nil {
		return lane.Subnet{}, fmt.Errorf("parse the subnet: %w", err)
	}
	out := lane.Subnet{Prefix: p}
	for _, l := range []struct {
		into *[]netip.Addr
		from []string
	}{{&out.Relays, n.Relays}, {&out.Routers, n.Routers}, {&out.DNS, n.DNS}, {&out.NTP, n.NTP}} {
		if *l.into, err = parseAddrs(l.from); err != nil {
			return out, err
		}
	}
	out.Server, err = netip.ParseAddr(n.Server)
	return out, err
}

func parseAddrs(texts []string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, t := range texts {
		a, err := netip.ParseAddr(t)
		if err != nil {
			return nil, fmt.Errorf("parse an address: %w", err)
		}
		out = append(out, a)
	}
	return out, nil
}

func (k Class) check(f *findings, c Config) {
	if k.Name == "" {
		f.bad("name", "is missing")
	}
	if k.Platform == "" && k.Vendor == "" && k.UserClass == "" && k.CircuitID == "" && k.RemoteID == "" {
		f.bad("name", "%q fits every client: give platform, vendor, userClass, circuitId or remoteId", k.Name)
	}
	if p, ok := lane.ParsePlatform(k.Platform); k.Platform != "" && (!ok || p == lane.Platform{}) {
		f.bad("platform", "%q is not a platform: %s", k.Platform, platformNames())
	}
	for _, p := range k.Boot.Problems() {
		f.bad("boot."+p.Field, "%s", p.Message)
	}
	if k.Boot.VLAN != 0 {
		f.bad("boot.vlan", "is of one machine and its switch port: set it in the host's record")
	}
	if k.Boot.Loader != "" && !c.hasLoader(k.Boot.Loader) {
		f.bad("boot.loader", "%s is not among the configured `loaders`", k.Boot.Loader)
	}
}

// networks turns the checked configuration into what DHCP works with.
func (c Config) networks() ([]dhcp.Network, error) {
	var classes []dhcp.Class
	for _, k := range c.Classes {
		p, _ := lane.ParsePlatform(k.Platform) // checked; empty is the zero one, which fits all
		classes = append(classes, dhcp.Class{Name: k.Name, Platform: p, Vendor: k.Vendor, UserClass: k.UserClass, CircuitID: k.CircuitID, RemoteID: k.RemoteID, Boot: k.Boot})
	}
	loaders := c.loaderNames()
	var out []dhcp.Network
	for _, n := range c.Networks {
		s, err := n.subnet()
		if err != nil {
			return nil, err
		}
		d := dhcp.Network{Subnet: s, Interface: n.Interface, Domain: n.Domain, Lease: n.Lease, HTTPBase: c.BaseURL(n.Server), TLSBase: c.TLSBaseURL(n.Server), HTTPBootTLS: c.Policy.HTTPBootTLS, IPXETLS: c.Policy.IPXETLS,
			Loaders: loaders, Classes: classes,
			HoldScreen: *c.Policy.Held.Screen, FastLocalBoot: c.Policy.LocalBoot == "fast", Authoritative: n.Authoritative,
			ConflictProbe: n.ConflictProbe != nil && *n.ConflictProbe, Proxy: n.Proxy(), KnownOnly: n.KnownOnly, Only4011: n.Only4011, Redirect4011: n.Redirect4011, External: n.Mode == modeExternal}
		if d.Ranges, err = n.parseRanges(); err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// ends cuts FIRST-LAST.
func ends(text string) (first, last string, found bool) {
	first, last, found = strings.Cut(text, "-")
	return strings.TrimSpace(first), strings.TrimSpace(last), found
}

func (n Network) parseRanges() ([]dhcp.Range, error) {
	var out []dhcp.Range
	for field, text := range n.ranges() {
		first, last, _ := ends(text)
		both, err := parseAddrs([]string{first, last})
		if err != nil {
			return nil, err
		}
		r := dhcp.Range{First: both[0], Last: both[1]}
		for i, p := range n.Pools {
			if field == fmt.Sprintf("pools[%d].range", i) {
				r.Class = p.Class
			}
		}
		out = append(out, r)
	}
	return out, nil
}

// bootNetworks are the same networks as `render` and preflight see them.
func bootNetworks(list []dhcp.Network) []control.Network {
	var out []control.Network
	for _, n := range list {
		c := control.Network{Subnet: n.Subnet, BaseURL: n.HTTPBase, Interface: n.Interface, Domain: n.Domain, Lease: n.LeaseTime(), Authoritative: n.Authoritative, Proxy: n.Proxy, External: n.External}
		for _, r := range n.Ranges {
			if r.Class == "" {
				c.First, c.Last = r.First, r.Last
			}
		}
		out = append(out, c)
	}
	return out
}
