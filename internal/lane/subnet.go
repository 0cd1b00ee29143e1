package lane

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// Subnet is one network, and whose its addresses are. It is the one place that says
// which of them can be a machine's.
type Subnet struct {
	Prefix  netip.Prefix
	Server  netip.Addr   // ours
	Relays  []netip.Addr // the agents that pass its DHCP messages on
	Routers []netip.Addr
	DNS     []netip.Addr
	NTP     []netip.Addr
}

// Misplaced says why an address cannot be reserved for a machine, or nothing. A machine
// of the inventory may well be a name or a time server.
func (s Subnet) Misplaced(a netip.Addr) string {
	switch {
	case !s.Prefix.Contains(a):
		return fmt.Sprintf("%s is not in %s", a, s.Prefix)
	case a == s.Server:
		return fmt.Sprintf("%s is Bootlane's own", a)
	case a.Is4() && slices.Contains(s.ends(), a):
		return fmt.Sprintf("%s is no host's: the first and the last of %s are the network's own and the broadcast address", a, s.Prefix)
	case slices.Contains(s.ends(), a):
		return fmt.Sprintf("%s is no host's: the first of %s is every router's (RFC 4291 2.6.1)", a, s.Prefix)
	case slices.Contains(s.Routers, a):
		return fmt.Sprintf("%s is a router's", a)
	case slices.Contains(s.Relays, a):
		return fmt.Sprintf("%s is a relay agent's", a)
	}
	return ""
}

// Givable says why an address cannot be given to a stranger, or nothing.
func (s Subnet) Givable(a netip.Addr) string {
	if slices.Contains(s.DNS, a) || slices.Contains(s.NTP, a) {
		return fmt.Sprintf("%s is a name or time server's", a)
	}
	return s.Misplaced(a)
}

// Taken returns every address of the network that is not to be given.
func (s Subnet) Taken() []netip.Addr {
	return slices.Concat([]netip.Addr{s.Server}, s.ends(), s.Relays, s.Routers, s.DNS, s.NTP)
}

// ends are the addresses that the network's form takes away.
func (s Subnet) ends() []netip.Addr {
	if s.Prefix.Addr().Is4() {
		return []netip.Addr{s.Prefix.Masked().Addr(), s.Broadcast()}
	}
	return []netip.Addr{s.Prefix.Masked().Addr()}
}

// Mask returns the network's mask as an address: 255.255.255.0.
func (s Subnet) Mask() netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-s.Prefix.Bits()))))
}

// Broadcast returns the broadcast address of an IPv4 network, the last one.
func (s Subnet) Broadcast() netip.Addr {
	b := s.Prefix.Masked().Addr().As4()
	v := binary.BigEndian.Uint32(b[:]) | ^(^uint32(0) << (32 - s.Prefix.Bits()))
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, v)))
}
