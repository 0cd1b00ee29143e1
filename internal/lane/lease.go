package lane

import (
	"net/netip"
	"time"
)

// LeaseState is what became of a lease.
type LeaseState string

// The states of a lease.
const (
	LeaseActive   LeaseState = "active"   // bound until it expires
	LeaseReleased LeaseState = "released" // given back; kept so that the client gets the same address again
	LeaseDeclined LeaseState = "declined" // somebody else uses the address: not offered until it expires
)

// Lease binds an address to a hardware address. It is keyed by that and not by
// the client identifier: one network boot shows up to three of those.
type Lease struct {
	MAC     MAC        `json:"mac"`
	Address netip.Addr `json:"address"`
	State   LeaseState `json:"state"`
	Granted time.Time  `json:"granted"`
	Expires time.Time  `json:"expires"`
}

// Lease6 binds an IPv6 address to a client. A client may have several: one for each
// association (IA_NA) that it asks for at the same time.
type Lease6 struct {
	Client  Client     `json:"client"`
	Address netip.Addr `json:"address"`
	State   LeaseState `json:"state"`
	Granted time.Time  `json:"granted"`
	Expires time.Time  `json:"expires"`
}

// Client is whom an IPv6 lease is for: a hardware address as a [MAC] is written, or
// where none is known "uuid:" or "duid:" and what the client calls itself. One network
// boot shows two DUIDs and several IAIDs for one NIC.
type Client string

// MAC returns the hardware address, or nothing where it is not known.
func (c Client) MAC() MAC {
	if m, err := ParseMAC(string(c)); err == nil {
		return m
	}
	return ""
}

// PoolUsage counts the addresses of one network.
type PoolUsage struct {
	Size    int64 `json:"size"`    // addresses in the ranges
	Used    int64 `json:"used"`    // of these, leased, on offer or set aside
	Leased  int64 `json:"leased"`  // in the ranges and reserved ones
	Offered int64 `json:"offered"` // on offer, and not leased yet
	Aside   int64 `json:"aside"`   // declined, or answered for by somebody without a lease
}

// NetworkUsage is one network of the DHCP server, as operators see it.
type NetworkUsage struct {
	Network   netip.Prefix `json:"network"`
	Interface string       `json:"interface"`
	Relays    []netip.Addr `json:"relays,omitempty"`
	Mode      string       `json:"mode"` // own, proxy or external
	PoolUsage
}

// LeaseOf is a lease, of IPv4 or IPv6, and the record of the machine that has it.
type LeaseOf struct {
	Lease
	Client Client `json:"client,omitempty"` // of IPv6: whom it is for; MAC is empty where that is no NIC
	Host   HostID `json:"host,omitempty"`
}

// DHCPCounters counts packets since the server's start.
type DHCPCounters struct {
	Received int64 `json:"received"`
	Answered int64 `json:"answered"`
	Silent   int64 `json:"silent"`  // for a good reason: events says which
	Dropped  int64 `json:"dropped"` // not DHCP, or malformed
	Failed   int64 `json:"failed"`  // by a fault of ours: the log says which
	Lost     int64 `json:"lost"`    // by the kernel: nobody read them in time
}

// DHCPState is what the DHCP server is at.
type DHCPState struct {
	Networks []NetworkUsage `json:"networks"`
	Counters DHCPCounters   `json:"counters"`
}

// DHCPExport asks for the configuration of a site's own DHCP server.
type DHCPExport struct {
	Server  string // dnsmasq, kea or isc
	Form    string // who names the boot files: "owned", "proxy" or "proxy-4011"
	Network string // a prefix; may be left out where the configuration has one network
	Range   string // FIRST-LAST, which the server may give; empty: the network's own
}
