package dhcp

import (
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootlane/internal/lane"
)

// relay is what a relay agent added to a message: option 82, RFC 3046.
type relay struct {
	raw      []byte     // the option as it came, to be echoed byte for byte
	circuit  []byte     // sub-option 1
	remote   []byte     // sub-option 2
	link     netip.Addr // sub-option 5, RFC 3527: the client's network; zero without one
	serverID netip.Addr // sub-option 11, RFC 5107: whom the client is to take for its server
	// sourcePort says that the agent wants the reply at the port that it sent from:
	// sub-option 19, RFC 8357.
	sourcePort bool
}

// Sub-options of option 82.
const (
	agentCircuitID  = 1
	agentRemoteID   = 2
	agentLink       = 5
	agentServerID   = 11
	agentSourcePort = 19
)

// parseRelay reads option 82. Sub-options that cannot be read are left out: the
// option is echoed all the same.
func parseRelay(raw []byte) relay {
	r := relay{raw: raw}
	for len(raw) >= 2 {
		code, n := raw[0], int(raw[1])
		if code == 0 { // some agents pad
			raw = raw[1:]
			continue
		}
		if len(raw) < 2+n {
			break
		}
		v := raw[2 : 2+n]
		switch code {
		case agentCircuitID:
			r.circuit = v
		case agentRemoteID:
			r.remote = v
		case agentLink:
			r.link = orNone(v)
		case agentServerID:
			r.serverID = orNone(v)
		case agentSourcePort:
			r.sourcePort = true
		}
		raw = raw[2+n:]
	}
	return r
}

func orNone(b []byte) netip.Addr {
	if len(b) != 4 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(b))
}

// facts returns what goes into the evidence.
func (r relay) facts(giaddr netip.Addr) (f lane.Relay) {
	if !giaddr.IsUnspecified() {
		f.Address = giaddr.String()
	}
	f.CircuitID, f.RemoteID = lane.AgentID(r.circuit), lane.AgentID(r.remote)
	if r.link.IsValid() {
		f.Link = r.link.String()
	}
	return f
}

// subnetSelection reads option 118, RFC 3011.
func subnetSelection(p *dhcpv4.DHCPv4) netip.Addr {
	return orNone(p.Options.Get(dhcpv4.OptionSubnetSelection))
}
