package dhcp6

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"bootlane/internal/lane"
)

// layer is what one relay agent put around a message, RFC 8415 section 9. What the
// reply must bring back to it is kept as it came.
type layer struct {
	hops        uint8
	link        netip.Addr // unspecified: of an agent in a switch (LDRA, RFC 6221)
	peer        netip.Addr
	interfaceID []byte // option 18; nil without one
	remoteID    []byte // option 37, with its enterprise number
	mac         lane.MAC
	// port says that the agent wants the reply at the port that it sent from: option
	// 135, RFC 8357.
	port bool
}

// maxLayers is how many agents may stand between a client and us: HOP_COUNT_LIMIT of
// RFC 8415 7.6. Each of them is a packet in a packet.
const maxLayers = 8

const headLength = 34 // of a relayed message: type, hops, two addresses

// unwrap takes off what relay agents put around a message, the outermost first.
func unwrap(data []byte) (layers []layer, inner []byte, err error) {
	for len(data) > 0 && dhcpv6.MessageType(data[0]) == dhcpv6.MessageTypeRelayForward {
		if len(layers) == maxLayers {
			return nil, nil, fmt.Errorf("more than %d relay agents: a loop (RFC 8415 19.1)", maxLayers)
		}
		if len(data) < headLength {
			return nil, nil, fmt.Errorf("%d bytes are too short for a relayed message", len(data))
		}
		o, err := parseOptions(data[headLength:])
		if err != nil {
			return nil, nil, err
		}
		l := layer{hops: data[1], link: netip.AddrFrom16([16]byte(data[2:18])), peer: netip.AddrFrom16([16]byte(data[18:34]))}
		l.interfaceID, _ = o.get(dhcpv6.OptionInterfaceID)
		l.remoteID, _ = o.get(dhcpv6.OptionRemoteID)
		_, l.port = o.get(dhcpv6.OptionRelayPort)
		if b, _ := o.get(dhcpv6.OptionClientLinkLayerAddr); len(b) == 8 && binary.BigEndian.Uint16(b) == 1 { // RFC 6939
			l.mac, _ = lane.MACFromBytes(b[2:]) // what is no NIC's address says nothing
		}
		var ok bool
		if data, ok = o.get(dhcpv6.OptionRelayMsg); !ok {
			return nil, nil, fmt.Errorf("a relayed message without a message")
		}
		layers = append(layers, l)
	}
	return layers, data, nil
}

// wrap puts the agents' layers around a reply, RFC 8415 19.3: each agent finds its own
// way back in what it wrote.
func wrap(layers []layer, inner []byte) []byte {
	for i := len(layers) - 1; i >= 0; i-- {
		l := layers[i]
		w := writer{byte(dhcpv6.MessageTypeRelayReply), l.hops}
		w = append(w, l.link.AsSlice()...)
		w = append(w, l.peer.AsSlice()...)
		if l.interfaceID != nil {
			w.add(dhcpv6.OptionInterfaceID, l.interfaceID)
		}
		if l.port {
			w.add(dhcpv6.OptionRelayPort, be16(0))
		}
		w.add(dhcpv6.OptionRelayMsg, inner)
		inner = w
	}
	return inner
}

// linkOf returns the address that tells the client's network: of the innermost agent
// that knows one. A switch (RFC 6221) leaves that to the router behind it.
func linkOf(layers []layer) netip.Addr {
	for i := len(layers) - 1; i >= 0; i-- {
		if !layers[i].link.IsUnspecified() {
			return layers[i].link
		}
	}
	return netip.IPv6Unspecified()
}

// relayFacts returns what goes into the evidence: of the agent next to the client.
func relayFacts(layers []layer, from netip.Addr) lane.Relay {
	if len(layers) == 0 {
		return lane.Relay{}
	}
	inner := layers[len(layers)-1]
	f := lane.Relay{Address: from.WithZone("").String(), CircuitID: lane.AgentID(inner.interfaceID)}
	if len(inner.remoteID) > 4 {
		f.RemoteID = lane.AgentID(inner.remoteID[4:])
	}
	if l := linkOf(layers); !l.IsUnspecified() {
		f.Link = l.String()
	}
	return f
}
