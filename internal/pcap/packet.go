package pcap

import (
	"net/netip"
	"slices"
	"time"

	"github.com/gopacket/gopacket/layers"

	"bootlane/internal/lane"
)

// Proto is what a packet carries.
type Proto uint8

// The protocols that take part in a network boot.
const (
	UDP Proto = iota + 1
	TCP
	ARP
)

// Packet is one frame, as far as it can be read.
type Packet struct {
	Number   int // of the frame in its file, from 1, as Wireshark counts
	At       time.Time
	FromMAC  lane.MAC
	ToMAC    lane.MAC // empty in a cooked capture, which has no destination
	VLAN     uint16   // the innermost 802.1Q tag
	Proto    Proto
	From, To netip.AddrPort // of ARP: whose address is told, and who is told; no ports
	Cut      bool           // the capture has only its beginning
	Payload  []byte
	length   int // of the payload on the wire: a capture may have less of it
	syn, ack bool
	end      bool // FIN or RST
	reply    bool // of ARP
}

// Frame reads one Ethernet frame; ok is false when it cannot belong to a network boot.
func Frame(data []byte) (p Packet, ok bool) {
	p, p.Cut, ok = decode(layers.LinkTypeEthernet, data)
	return p, ok
}

// cutMark is told by the layers that a packet is shorter than it says.
type cutMark struct{ cut bool }

// SetTruncated implements gopacket.DecodeFeedback.
func (c *cutMark) SetTruncated() { c.cut = true }

// tags is how many 802.1Q tags a frame may carry: two, by 802.1ad.
const tags = 2

func decode(link layers.LinkType, data []byte) (p Packet, cut, ok bool) {
	var c cutMark
	kind, rest, ok := linkLayer(link, data, &p, &c)
	for range tags {
		var tag layers.Dot1Q
		if !ok || kind != layers.EthernetTypeDot1Q && kind != layers.EthernetTypeQinQ {
			break
		}
		ok = tag.DecodeFromBytes(rest, &c) == nil
		p.VLAN, kind, rest = tag.VLANIdentifier, tag.Type, tag.Payload
	}
	if !ok {
		return p, c.cut, false
	}
	switch kind {
	case layers.EthernetTypeARP:
		ok = p.arp(rest, &c)
	case layers.EthernetTypeIPv4:
		var ip layers.IPv4
		if ip.DecodeFromBytes(rest, &c) != nil || ip.FragOffset != 0 {
			return p, c.cut, false // what follows a first fragment has no ports
		}
		c.cut = c.cut || ip.Flags&layers.IPv4MoreFragments != 0
		ok = p.transport(ip.Protocol, address(ip.SrcIP), address(ip.DstIP), ip.Payload, &c)
	case layers.EthernetTypeIPv6:
		var ip layers.IPv6
		if ip.DecodeFromBytes(rest, &c) != nil {
			return p, c.cut, false
		}
		ok = p.transport(ip.NextHeader, address(ip.SrcIP), address(ip.DstIP), ip.Payload, &c)
	default:
		ok = false
	}
	return p, c.cut, ok
}

// linkLayer reads what stands in front of IP.
func linkLayer(link layers.LinkType, data []byte, p *Packet, c *cutMark) (layers.EthernetType, []byte, bool) {
	switch link {
	case layers.LinkTypeEthernet:
		var e layers.Ethernet
		if e.DecodeFromBytes(data, c) != nil {
			return 0, nil, false
		}
		p.FromMAC, p.ToMAC = mac(e.SrcMAC), mac(e.DstMAC)
		return e.EthernetType, e.Payload, true
	case layers.LinkTypeLinuxSLL:
		var s layers.LinuxSLL
		if s.DecodeFromBytes(data, c) != nil {
			return 0, nil, false
		}
		p.FromMAC = mac(s.Addr)
		return s.EthernetType, s.Payload, true
	case layers.LinkTypeLinuxSLL2:
		var s layers.LinuxSLL2
		if s.DecodeFromBytes(data, c) != nil {
			return 0, nil, false
		}
		p.FromMAC = mac(s.Addr)
		return s.ProtocolType, s.Payload, true
	}
	return 0, nil, false
}

func (p *Packet) transport(proto layers.IPProtocol, from, to netip.Addr, data []byte, c *cutMark) bool {
	switch proto {
	case layers.IPProtocolUDP:
		var u layers.UDP
		if u.DecodeFromBytes(data, c) != nil {
			return false
		}
		p.Proto, p.Payload, p.length = UDP, u.Payload, max(int(u.Length)-8, len(u.Payload))
		p.From, p.To = netip.AddrPortFrom(from, uint16(u.SrcPort)), netip.AddrPortFrom(to, uint16(u.DstPort))
		return true
	case layers.IPProtocolTCP:
		var t layers.TCP
		if t.DecodeFromBytes(data, c) != nil {
			return false
		}
		p.Proto, p.Payload = TCP, t.Payload
		p.From, p.To = netip.AddrPortFrom(from, uint16(t.SrcPort)), netip.AddrPortFrom(to, uint16(t.DstPort))
		p.syn, p.ack, p.end = t.SYN, t.ACK, t.FIN || t.RST
		return true
	}
	return false
}

func (p *Packet) arp(data []byte, c *cutMark) bool {
	var a layers.ARP
	if a.DecodeFromBytes(data, c) != nil || a.Protocol != layers.EthernetTypeIPv4 || len(a.SourceProtAddress) != 4 {
		return false
	}
	p.Proto, p.FromMAC, p.reply = ARP, mac(a.SourceHwAddress), a.Operation == layers.ARPReply
	p.From = netip.AddrPortFrom(address(a.SourceProtAddress), 0)
	p.To = netip.AddrPortFrom(address(a.DstProtAddress), 0)
	return true
}

func mac(b []byte) lane.MAC {
	m, err := lane.MACFromBytes(b)
	if err != nil {
		return "" // no Ethernet address, as of lo in a cooked capture
	}
	return m
}

func address(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Of returns the frames that belong to the conversations of some machines: what they
// send, what is sent to them, and DHCP about them. Without machines, it is all of them.
func Of(records []Record, macs []lane.MAC) []Record {
	if len(macs) == 0 {
		return records
	}
	var out []Record
	for _, r := range records {
		p, ok := Frame(r.Frame)
		if !ok {
			continue
		}
		m, isDHCP := DHCP(p)
		if slices.Contains(macs, p.FromMAC) || slices.Contains(macs, p.ToMAC) || isDHCP && slices.Contains(macs, m.Client) {
			out = append(out, r)
		}
	}
	return out
}
