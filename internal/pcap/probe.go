package pcap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"bootlane/internal/lane"
)

// Discover makes the Ethernet frame of a DISCOVER that asks who is there. It leaves
// from the interface's own address, because a switch that counts addresses would close
// our port for another; the client it names is asked, with the broadcast bit. With pxe,
// it is UEFI firmware's. Nobody must send a REQUEST after it.
func Discover(from, client lane.MAC, xid uint32, pxe bool) ([]byte, error) {
	src, m := from.Bytes(), question(client, xid, pxe)
	any4, all := netip.IPv4Unspecified(), netip.AddrFrom4([4]byte{255, 255, 255, 255})
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: any4.AsSlice(), DstIP: all.AsSlice()}
	udp := &layers.UDP{SrcPort: portClient4, DstPort: portServer4}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		return nil, fmt.Errorf("make a DISCOVER: %w", err)
	}
	b := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: src[:], DstMAC: []byte{255, 255, 255, 255, 255, 255}, EthernetType: layers.EthernetTypeIPv4}, ip, udp, gopacket.Payload(m))
	if err != nil {
		return nil, fmt.Errorf("make a DISCOVER: %w", err)
	}
	return b.Bytes(), nil
}

// probes reports whether a packet is such a DISCOVER: it is ours to the byte, and no machine
// puts another client's address into it.
func probes(p Packet) bool {
	if len(p.Payload) < 240 {
		return false
	}
	client, err := lane.MACFromBytes(p.Payload[28:34])
	xid := binary.BigEndian.Uint32(p.Payload[4:])
	return err == nil && client != p.FromMAC && (bytes.Equal(p.Payload, question(client, xid, false)) || bytes.Equal(p.Payload, question(client, xid, true)))
}

// question makes the message.
func question(client lane.MAC, xid uint32, pxe bool) []byte {
	asks := client.Bytes()
	m := make([]byte, 240, 300)
	m[0], m[1], m[2] = 1, 1, 6
	binary.BigEndian.PutUint32(m[4:], xid)
	m[10] = 0x80
	copy(m[28:44], asks[:])
	binary.BigEndian.PutUint32(m[236:], 0x63825363)
	put := func(code byte, data string) { m = append(append(m, code, byte(len(data))), data...) }
	put(53, "\x01")
	put(57, "\x05\xc0")                         // an answer may fill a frame
	put(55, "\x01\x03\x06\x2b\x36\x3c\x42\x43") // what a boot server would tell
	if pxe {
		put(60, "PXEClient:Arch:00007:UNDI:003000")
		put(93, "\x00\x07")
		put(94, "\x01\x03\x00")
	}
	m = append(m, 255)
	return append(m, make([]byte, max(0, 300-len(m)))...) // relays drop less: RFC 1542, 2.1
}
