package app

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"bootlane/internal/control"
	"bootlane/internal/dhcp"
	"bootlane/internal/dhcp6"
	"bootlane/internal/lane"
)

// IPv6 is the IPv6 side of a boot network that Bootlane owns.
type IPv6 struct {
	Server string        `yaml:"server"` // our address, as its machines reach it
	Subnet string        `yaml:"subnet"`
	Range  string        `yaml:"range"`            // FIRST-LAST
	Relays []string      `yaml:"relays,omitempty"` // addresses of the relay agents that it is reached through; none: it is attached
	DNS    []string      `yaml:"dns,omitempty"`
	NTP    []string      `yaml:"ntp,omitempty"`
	Domain string        `yaml:"domain,omitempty"` // default: the network's
	Lease  time.Duration `yaml:"lease,omitempty"`
}

func (v IPv6) withDefaults(n Network) *IPv6 {
	if v.Domain == "" {
		v.Domain = n.Domain
	}
	if v.Lease == 0 {
		v.Lease = dhcp6.Network{}.LeaseTime()
	}
	if a, err := netip.ParseAddr(v.Server); err == nil {
		v.Server = a.String() // in its one form: it is compared, and stands in URLs
	}
	return &v
}

// hasIPv6 reports whether any network has an IPv6 side.
func (c Config) hasIPv6() bool { return c.server6() != "" }

// server6 returns our address in the first network with an IPv6 side.
func (c Config) server6() string {
	for _, n := range c.Networks {
		if n.IPv6 != nil {
			return n.IPv6.Server
		}
	}
	return ""
}

// globalIPv6 reads an address that can stand in a URL: a link-local one needs an
// interface, which nobody but the machine itself could name.
func globalIPv6(text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	return a, err == nil && a.Is6() && !a.Is4In6() && a.Zone() == "" && a.IsGlobalUnicast()
}

// check6 looks at the IPv6 side of a network.
func (n Network) check6(f *findings) {
	if n.IPv6 == nil {
		return
	}
	if n.Mode != modeOwn {
		f.bad("ipv6", "is for mode: own. There is no proxyDHCP for IPv6: a client takes one server's whole answer")
		return
	}
	g := &findings{prefix: f.prefix + "ipv6."}
	n.IPv6.check(g)
	f.list = append(f.list, g.list...)
}

func (v IPv6) check(f *findings) {
	subnet, err := netip.ParsePrefix(v.Subnet)
	known := err == nil && subnet.Addr().Is6() && !subnet.Addr().Is4In6() && subnet.Bits() >= 16 && subnet.Bits() <= 120
	switch {
	case !known:
		f.bad("subnet", "%q is not an IPv6 network like fd00:20::/64", v.Subnet)
	case subnet != subnet.Masked():
		f.bad("subnet", "%s has host bits: write %s", v.Subnet, subnet.Masked())
	}
	inside := func(field, text string) netip.Addr {
		a, ok := globalIPv6(text)
		switch {
		case !ok:
			f.bad(field, "%q is not a global or unique local IPv6 address", text)
			return netip.Addr{}
		case known && !subnet.Contains(a):
			f.bad(field, "%s is not in the subnet %s", a, subnet)
		}
		return a
	}
	if len(v.Relays) == 0 {
		inside("server", v.Server)
	} else if _, ok := globalIPv6(v.Server); !ok { // machines behind a relay agent reach it through their router
		f.bad("server", "%q is not a global or unique local IPv6 address", v.Server)
	}
	for name, list := range map[string][]string{"dns": v.DNS, "ntp": v.NTP, "relays": v.Relays} {
		for i, text := range list {
			if a, err := netip.ParseAddr(text); err != nil || !a.Is6() || a.Is4In6() || a.Zone() != "" {
				f.bad(fmt.Sprintf("%s[%d]", name, i), "%q is not an IPv6 address", text)
			}
		}
	}
	v.checkRange(f, inside)
	if v.Lease < 5*time.Minute || v.Lease > 30*24*time.Hour {
		f.bad("lease", "%s: from 5m to 720h; firmware and installers never renew, an hour is a good choice", v.Lease)
	}
}

func (v IPv6) checkRange(f *findings, inside func(field, text string) netip.Addr) {
	a, b, found := ends(v.Range)
	if !found {
		f.bad("range", "%q is not FIRST-LAST, like fd00:20::1000-fd00:20::1fff: for machines without a reservation", v.Range)
		return
	}
	first, last := inside("range", a), inside("range", b)
	if !first.IsValid() || !last.IsValid() {
		return
	}
	if last.Less(first) {
		f.bad("range", "%s-%s ends before it begins", first, last)
	}
	if whole, err := first.Prefix(64); err == nil && !whole.Contains(last) {
		f.bad("range", "%s-%s goes over the end of %s", first, last, whole)
	}
	s, err := v.subnet()
	if err != nil {
		return // each of the addresses has its own line
	}
	for _, t := range s.Taken() {
		if !t.Less(first) && !last.Less(t) {
			f.bad("range", "%s-%s holds %s, which is not free: the routers' own (the first of the subnet), the server, a relay agent, a name or a time server", first, last, t)
		}
	}
}

// beside6 looks at what the IPv6 sides of two networks cannot both be.
func (n Network) beside6(f *findings, o Network, j int) {
	if n.IPv6 == nil || o.IPv6 == nil {
		return
	}
	a, errA := netip.ParsePrefix(n.IPv6.Subnet)
	b, errB := netip.ParsePrefix(o.IPv6.Subnet)
	if errA == nil && errB == nil && a.Overlaps(b) {
		f.bad("ipv6.subnet", "%s overlaps networks[%d].ipv6, %s", a, j, b)
	}
	if n.Interface == o.Interface && len(n.IPv6.Relays) == 0 && len(o.IPv6.Relays) == 0 {
		f.bad("ipv6", "networks[%d] has IPv6 attached to %s already: one interface has one such network", j, n.Interface)
	}
}

// subnet parses what every part must know of it.
func (v IPv6) subnet() (lane.Subnet, error) {
	return Network{Subnet: v.Subnet, Server: v.Server, Relays: v.Relays, DNS: v.DNS, NTP: v.NTP}.subnet()
}

// networks6 turns the checked configuration into what DHCPv6 works with.
func (c Config) networks6() ([]dhcp6.Network, error) {
	loaders := c.loaderNames()
	var out []dhcp6.Network
	for _, n := range c.Networks {
		if n.IPv6 == nil {
			continue
		}
		s, err := n.IPv6.subnet()
		if err != nil {
			return nil, err
		}
		first, last, _ := ends(n.IPv6.Range)
		both, err := parseAddrs([]string{first, last})
		if err != nil {
			return nil, err
		}
		out = append(out, dhcp6.Network{Subnet: s, Interface: n.Interface, First: both[0], Last: both[1], Domain: n.IPv6.Domain, Lease: n.IPv6.Lease,
			HTTPBase: c.BaseURL(n.IPv6.Server), TLSBase: c.TLSBaseURL(n.IPv6.Server), HTTPBootTLS: c.Policy.HTTPBootTLS,
			Loaders: loaders, HoldScreen: *c.Policy.Held.Screen, FastLocalBoot: c.Policy.LocalBoot == "fast"})
	}
	return out, nil
}

// controlNetworks are the networks as `render` and preflight see them.
func (c Config) controlNetworks(list []dhcp.Network) ([]control.Network, error) {
	out := bootNetworks(list)
	for i, n := range c.Networks {
		if n.IPv6 == nil {
			continue
		}
		var err error
		if out[i].IPv6, err = n.IPv6.subnet(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// serverDUID reads who we are to DHCPv6 clients, or makes it at the first start. It is
// kept beside the database and not in it: a database that is made anew must not make
// strangers of us to clients that hold a lease.
func serverDUID(path string, random func([]byte) (int, error)) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err == nil {
		duid, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil || len(duid) < 3 || len(duid) > 130 { // RFC 8415 11.1
			return nil, lane.Errorf(lane.Invalid, "%s does not hold a DUID in hex digits: remove it, and clients take us for a new server", path)
		}
		return duid, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, &lane.Error{Code: lane.Unavailable, Message: "read the server's DUID", Err: err}
	}
	var uuid [16]byte
	if _, err := random(uuid[:]); err != nil {
		return nil, fmt.Errorf("make the server's DUID: %w", err)
	}
	uuid[6], uuid[8] = uuid[6]&0x0f|0x40, uuid[8]&0x3f|0x80 // RFC 4122 4.4
	duid := dhcp6.DUID(uuid)
	if err := os.WriteFile(path, []byte(hex.EncodeToString(duid)+"\n"), 0o644); err != nil {
		return nil, &lane.Error{Code: lane.Unavailable, Message: "store the server's DUID", Err: err}
	}
	return duid, nil
}

// duidFile is where the DUID stands, below Config.Data.
func (c Config) duidFile() string { return filepath.Join(c.Data, "dhcp6.duid") }
