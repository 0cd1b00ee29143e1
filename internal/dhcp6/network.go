package dhcp6

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"bootlane/internal/lane"
)

// Network is one IPv6 network, and what its machines are told.
type Network struct {
	lane.Subnet            // Server is what boot URLs name; without Relays the network is attached to Interface
	Interface   string     // by which its messages come in
	First, Last netip.Addr // the range, for machines without a reservation; both zero: there is none
	Domain      string
	Lease       time.Duration // 0: one hour
	HTTPBase    string        // http://[ADDRESS]:PORT of the machines' HTTP listener
	// TLSBase is https://[ADDRESS]:PORT, where UEFI HTTP Boot is sent when HTTPBootTLS says
	// that it trusts the certificate. iPXE does not say in DHCPv6 whether it knows TLS.
	TLSBase     string
	HTTPBootTLS bool
	// Loaders names the boot loaders of each platform, as advertised, the default first.
	Loaders map[lane.Platform][]string
	// HoldScreen sends held machines a boot loader, so that their screen shows why.
	HoldScreen bool
	// FastLocalBoot gives firmware that is to boot its disk a URL that is refused at once:
	// DHCPv6 has no boot menu. OVMF's PXE goes on after three seconds either way; without a
	// URL it asks a second time and takes the address.
	FastLocalBoot bool
}

// LeaseTime returns Lease, or its default.
func (n Network) LeaseTime() time.Duration {
	if n.Lease > 0 {
		return n.Lease
	}
	return time.Hour
}

// seconds is the lease time as the wire has it.
func (n Network) seconds() uint32 { return uint32(n.LeaseTime() / time.Second) }

// relayed reports whether machines of the network reach us by way of an agent.
func (n Network) relayed() bool { return len(n.Relays) > 0 }

// scope is a network with its addresses.
type scope struct {
	Network
	pool   *pool
	warned atomic.Int64 // when the log last said that no address is free, Unix seconds
}

func newScope(n Network, leases []lane.Lease6) *scope {
	var mine []lane.Lease6
	for _, l := range leases {
		if n.Prefix.Contains(l.Address) {
			mine = append(mine, l)
		}
	}
	return &scope{Network: n, pool: newPool(n.First, n.Last, mine)}
}

// scopeOf finds the network of a client, RFC 8415 13.1: the one that a relay agent
// names, or the one attached to the interface. why says why there is none.
func (s *Server) scopeOf(q query) (found *scope, why string) {
	link := linkOf(q.layers)
	if link.IsUnspecified() { // no agent, or only such as stand in switches of this very link
		for _, n := range s.scopes {
			if n.Interface == q.iface && !n.relayed() {
				return n, ""
			}
		}
		return nil, "" // an interface that only agents may speak by
	}
	agent := q.from.Addr().WithZone("")
	trusted := false
	for _, n := range s.scopes {
		if n.Interface != q.iface || !slices.Contains(n.Relays, agent) && !slices.Contains(n.Relays, link) {
			continue
		}
		trusted = true
		if n.Prefix.Contains(link) {
			return n, ""
		}
	}
	if !trusted {
		return nil, fmt.Sprintf("the relay agent %s, which speaks for %s, is in no network: add one of the two to networks[].ipv6.relays of the network that it speaks for", agent, link)
	}
	return nil, fmt.Sprintf("the relay agent %s speaks for %s, and no network that names this agent holds that: correct networks[].ipv6.subnet", agent, link)
}

// elsewhere reports whether an address lies in some network of ours.
func (s *Server) elsewhere(a netip.Addr) bool {
	return slices.ContainsFunc(s.scopes, func(n *scope) bool { return n.Prefix.Contains(a) })
}

// usage counts the addresses of every network.
func (s *Server) usage() []lane.NetworkUsage {
	var out []lane.NetworkUsage
	for _, n := range s.scopes {
		out = append(out, lane.NetworkUsage{Network: n.Prefix, Interface: n.Interface, Relays: n.Relays, Mode: "own", PoolUsage: n.pool.usage(s.cfg.Now())})
	}
	return out
}
