package app

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"bootlane/internal/lane"
)

// Check returns everything on this machine that would keep a server with this
// configuration from starting.
func (c Config) Check() error {
	found := c.here()
	if len(found) == 0 {
		return nil
	}
	e := lane.Errorf(lane.Invalid, "this configuration would not serve")
	for _, p := range found {
		e.Problems = append(e.Problems, p.String())
	}
	return e
}

// here compares the configuration with this machine.
func (c Config) here() []lane.Problem {
	var out []lane.Problem
	bad := func(field, format string, args ...any) {
		out = append(out, lane.Problem{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	for i, n := range c.Networks {
		field := fmt.Sprintf("networks[%d].", i)
		if n.Interface == "" {
			continue // check says so
		}
		ifi, err := net.InterfaceByName(n.Interface)
		if err != nil {
			bad(field+"interface", "%q does not exist; `ip -br link` shows those that do", n.Interface)
			continue
		}
		if why := stands(ifi, n.Server, n.Subnet, len(n.Relays) > 0); why != "" {
			bad(field+"server", "%s", why)
		}
		if n.IPv6 == nil {
			continue
		}
		if why := stands(ifi, n.IPv6.Server, n.IPv6.Subnet, len(n.IPv6.Relays) > 0); why != "" {
			bad(field+"ipv6.server", "%s", why)
		}
	}
	for _, l := range []struct{ name, v string }{{"machines", c.Listen.Machines}, {"operators", c.Listen.Operators}, {"https", c.Listen.HTTPS}, {"legacyHTTPS", c.Listen.LegacyHTTPS}} {
		a, err := netip.ParseAddrPort(l.v)
		if err != nil || a.Addr().IsUnspecified() || a.Addr().IsLoopback() || slices.Contains(c.servers(), a.Addr().String()) {
			continue // check, or the line about the server, says what there is to say
		}
		if addrs, err := net.InterfaceAddrs(); err != nil || !has(addrs, a.Addr().String()) {
			bad("listen."+l.name, "%s is no address of this machine; `ip -br address` shows those that are", a.Addr())
		}
	}
	if st, err := os.Stat(c.Data); err == nil && !st.IsDir() {
		bad("data", "%s is not a directory", c.Data)
	}
	if st, err := os.Stat(filepath.Join(c.Data, TokenFile)); err == nil && st.Mode().Perm()&0o077 != 0 {
		bad("data", "%s can be read by others: chmod 600", filepath.Join(c.Data, TokenFile))
	}
	return append(out, c.clusterFiles()...)
}

// stands says why the server's address does not stand on the interface as it must,
// or nothing. Some address there must have a prefix that covers the subnet, or there is
// no way back to the machines; a service address beside it may well be a /32.
func stands(ifi *net.Interface, server, network string, relayed bool) string {
	subnet, err := netip.ParsePrefix(network)
	if _, bad := netip.ParseAddr(server); err != nil || bad != nil {
		return "" // check says so
	}
	addrs, err := ifi.Addrs()
	if relayed { // relay agents may speak to any address of ours
		addrs, err = net.InterfaceAddrs()
	}
	if err != nil {
		return fmt.Sprintf("the addresses of %s cannot be read: %v", ifi.Name, err)
	}
	var ours netip.Prefix
	covered := false
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		covered = covered || p.Bits() <= subnet.Bits() && p.Contains(subnet.Addr())
		if p.Addr().String() == server {
			ours = p
		}
	}
	switch {
	case ours.IsValid() && (covered || relayed):
		return ""
	case ours.IsValid():
		return fmt.Sprintf("%s stands on %s with /%d, and the subnet is %s: answers to most machines find no way; `ip address del %s dev %s`, then `ip address add %s/%d dev %s`",
			server, ifi.Name, ours.Bits(), subnet, ours, ifi.Name, server, subnet.Bits(), ifi.Name)
	}
	return fmt.Sprintf("%s is not an address of %s; it has %v: `ip address add %s/%d dev %s`", server, ifi.Name, addrs, server, subnet.Bits(), ifi.Name)
}

func has(addrs []net.Addr, ip string) bool {
	return slices.ContainsFunc(addrs, func(a net.Addr) bool {
		have, _, err := net.ParseCIDR(a.String())
		return err == nil && have.String() == ip
	})
}
