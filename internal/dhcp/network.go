package dhcp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"bootlane/internal/lane"
)

// Network is one network, and what its machines are told.
type Network struct {
	lane.Subnet         // Server is what options 54 and siaddr say; without Relays the network is attached to Interface
	Interface   string  // by which its messages come in
	Ranges      []Range // for machines without a reservation
	Domain      string
	Lease       time.Duration // 0: one hour
	HTTPBase    string        // http://ADDRESS:PORT of the machines' HTTP listener
	// TLSBase is https://ADDRESS:PORT of the listener with TLS, where there is one. UEFI
	// HTTP Boot and iPXE are sent there only when HTTPBootTLS and IPXETLS say that they
	// trust its certificate: firmware that does not trust it shows an error to nobody.
	TLSBase     string
	HTTPBootTLS bool
	IPXETLS     bool // and only iPXE that says it can
	// Loaders names the boot loaders of each platform, as advertised; the first is the
	// one that is given when nobody asks for another.
	Loaders map[lane.Platform][]string
	Classes []Class
	// HoldScreen sends held machines a boot loader, so that their screen shows why.
	HoldScreen bool
	// FastLocalBoot ends the network boot of UEFI firmware at once, instead of leaving
	// it to its 60 s timeout: PXE gets a boot menu whose only item is the local disk,
	// HTTP Boot a URL that is refused.
	FastLocalBoot bool
	Authoritative bool // NAK clients of whose address we know nothing
	// ConflictProbe asks, ahead of time, whether somebody already uses the addresses
	// that will be given next.
	ConflictProbe bool
	// Proxy leaves addresses to another server and answers with boot fields only.
	Proxy     bool
	KnownOnly bool // of a proxy: stay silent towards machines that no record describes
	Only4011  bool // of a proxy: port 67 is the address server's, on this same machine
	// External leaves DHCP to another server altogether: the network is not served here.
	External bool
	// Redirect4011 names the boot file on port 4011 only, to every machine of a proxy.
	Redirect4011 bool
}

// Range is addresses from First to Last, for clients of one class, or, without one,
// for those of which no class has a range.
type Range struct {
	First, Last netip.Addr
	Class       string
}

// Class is a kind of client. What is not given does not matter; the first class that
// fits is the client's.
type Class struct {
	Name      string
	Platform  lane.Platform
	Vendor    string // beginning of option 60
	UserClass string // option 77, whole
	CircuitID string // option 82.1 and 82.2, as the evidence shows them
	RemoteID  string
	Boot      lane.BootOptions
}

func (c Class) fits(q query) bool {
	r := q.facts.Relay
	return (c.Platform == lane.Platform{} || c.Platform == q.platform) && strings.HasPrefix(q.vendor, c.Vendor) &&
		(c.UserClass == "" || c.UserClass == q.userClass) && (c.CircuitID == "" || c.CircuitID == r.CircuitID) && (c.RemoteID == "" || c.RemoteID == r.RemoteID)
}

// classOf returns a client's class; the zero one when none fits.
func (n Network) classOf(q query) Class {
	for _, c := range n.Classes {
		if c.fits(q) {
			return c
		}
	}
	return Class{}
}

// LeaseTime returns Lease, or its default.
func (n Network) LeaseTime() time.Duration {
	if n.Lease > 0 {
		return n.Lease
	}
	return time.Hour
}

// relayed reports whether machines of the network reach us by way of an agent.
func (n Network) relayed() bool { return len(n.Relays) > 0 }

// scope is a network with its addresses.
type scope struct {
	Network
	now    func() time.Time
	pool   *pool   // nil of a proxy
	prober *prober // nil where nobody is asked
	// When the log last said that no address is free, and that whoever answers for too many
	// is not doubted, Unix seconds.
	warned, doubted atomic.Int64
}

// everyMinute reports whether something may be said again that was last said then.
func everyMinute(last *atomic.Int64, now time.Time) bool {
	then := last.Load()
	return now.Unix()-then >= 60 && last.CompareAndSwap(then, now.Unix())
}

// scopeOf finds the network of a client, RFC 2131 4.3.1: that of the agent, or the one
// that the agent names (RFC 3527, RFC 3011), or the one attached to the interface. why
// says why there is none.
func (s *Server) scopeOf(q query) (found *scope, why string) {
	if !q.giaddr.IsUnspecified() {
		return s.relayedScope(q)
	}
	for _, n := range s.scopes {
		if n.Interface != q.iface {
			continue
		}
		switch {
		case !n.relayed():
			found = n
		case q.unicast && !q.ciaddr.IsUnspecified() && n.Prefix.Contains(q.ciaddr):
			return n, "" // RENEWING: the client speaks to us directly, and no agent tells its network
		}
	}
	if found == nil {
		return nil, "" // an interface that only agents may speak by
	}
	return found, ""
}

func (s *Server) relayedScope(q query) (*scope, string) {
	trusted := false
	wanted := q.giaddr
	for _, a := range []netip.Addr{q.subnet, q.relay.link} { // the agent's own word, 82.5, is the stronger
		if a.IsValid() {
			wanted = a
		}
	}
	for _, n := range s.scopes {
		if n.Interface != q.iface || !slices.Contains(n.Relays, q.giaddr) {
			continue
		}
		trusted = true
		if n.Prefix.Contains(wanted) {
			return n, ""
		}
	}
	if !trusted {
		return nil, fmt.Sprintf("the relay agent %s is in no network: add it to networks[].relays of the network that it speaks for", q.giaddr)
	}
	return nil, fmt.Sprintf("the relay agent %s speaks for %s, and no network that names this agent holds that: correct networks[].subnet", q.giaddr, wanted)
}

// usage counts the addresses of every network.
func (s *Server) usage() []lane.NetworkUsage {
	var out []lane.NetworkUsage
	for _, n := range s.scopes {
		u := lane.NetworkUsage{Network: n.Prefix, Interface: n.Interface, Relays: n.Relays, Mode: "own"}
		if n.Proxy {
			u.Mode = "proxy"
		} else {
			u.PoolUsage = n.pool.usage(s.cfg.Now())
		}
		out = append(out, u)
	}
	return out
}
