package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// A plain DHCP client, RFC 2131: no PXE options, and no client identifier, so
// that the server sees the hardware address that firmware and iPXE showed it
// and the machine keeps one lease through its whole installation.

const (
	dhcpDiscover = 1
	dhcpOffer    = 2
	dhcpRequest  = 3
	dhcpAck      = 5
	dhcpNak      = 6

	optMask     = 1
	optRouter   = 3
	optDNS      = 6
	optMTU      = 26
	optAddress  = 50
	optLease    = 51
	optOverload = 52
	optType     = 53
	optServer   = 54
	optParams   = 55
	optMaxSize  = 57
	optRoutes   = 121
	optEnd      = 255

	dhcpFixed     = 240 // fixed part and magic cookie
	dhcpMagic     = 0x63825363
	dhcpBroadcast = 0x8000
)

// route is one route a lease carries; a zero gateway means directly connected.
type route struct {
	to  netip.Prefix
	via netip.Addr
}

// lease is what a DHCP server granted, or with an offer, would grant.
type lease struct {
	kind    byte
	address netip.Prefix
	server  netip.Addr
	routes  []route
	dns     []netip.Addr
	mtu     int
	length  time.Duration
}

// dhcpMessage builds a DISCOVER, or a REQUEST for what was offered, or with a
// renewal (of set, held true) a REQUEST that extends it (RFC 2131, 4.3.2).
func dhcpMessage(kind byte, mac [6]byte, xid uint32, secs uint16, of lease, held bool) []byte {
	b := make([]byte, dhcpFixed, 300)
	b[0], b[1], b[2] = 1, 1, 6 // BOOTREQUEST, Ethernet
	binary.BigEndian.PutUint32(b[4:], xid)
	binary.BigEndian.PutUint16(b[8:], secs)
	binary.BigEndian.PutUint16(b[10:], dhcpBroadcast) // we have no address to be spoken to yet
	copy(b[28:], mac[:])
	binary.BigEndian.PutUint32(b[236:], dhcpMagic)
	b = append(b, optType, 1, kind, optMaxSize, 2, 1500>>8, 1500&0xff,
		optParams, 6, optMask, optRouter, optDNS, optMTU, optLease, optRoutes)
	if kind == dhcpRequest {
		addr := of.address.Addr().As4()
		if held {
			copy(b[12:], addr[:])
		} else {
			server := of.server.As4()
			b = append(b, optAddress, 4, addr[0], addr[1], addr[2], addr[3])
			b = append(b, optServer, 4, server[0], server[1], server[2], server[3])
		}
	}
	b = append(b, optEnd)
	for len(b) < 300 { // the BOOTP minimum; some relays drop shorter ones
		b = append(b, 0)
	}
	return b
}

// parseDHCP reads a reply to our transaction.
func parseDHCP(b []byte, mac [6]byte, xid uint32) (lease, error) {
	if len(b) < dhcpFixed || b[0] != 2 || binary.BigEndian.Uint32(b[236:]) != dhcpMagic {
		return lease{}, errors.New("not a DHCP reply")
	}
	if binary.BigEndian.Uint32(b[4:]) != xid || [6]byte(b[28:34]) != mac {
		return lease{}, errors.New("a reply to somebody else")
	}
	opts, err := dhcpOptions(b)
	if err != nil {
		return lease{}, err
	}
	var l lease
	if t := opts[optType]; len(t) == 1 {
		l.kind = t[0]
	}
	if s := addresses(opts[optServer]); len(s) == 1 {
		l.server = s[0]
	}
	if l.kind == dhcpNak {
		return l, nil
	}
	addr := netip.AddrFrom4([4]byte(b[16:20]))
	bits, ok := maskBits(opts[optMask])
	if addr.IsUnspecified() || addr.IsMulticast() || addr.IsLoopback() || !l.server.IsValid() || !ok {
		return lease{}, errors.New("a reply without address, mask or server: a boot server's, not a lease")
	}
	l.address = netip.PrefixFrom(addr, bits)
	l.dns = addresses(opts[optDNS])
	if m := opts[optMTU]; len(m) == 2 {
		l.mtu = int(binary.BigEndian.Uint16(m))
	}
	if t := opts[optLease]; len(t) == 4 {
		l.length = time.Duration(binary.BigEndian.Uint32(t)) * time.Second
	}
	l.routes = leaseRoutes(opts)
	return l, nil
}

// dhcpOptions collects the options, those in the sname and file fields too when
// the server says so (RFC 2132, 9.3). Repeated options are joined (RFC 3396).
func dhcpOptions(b []byte) (map[byte][]byte, error) {
	opts := map[byte][]byte{}
	if err := addOptions(opts, b[dhcpFixed:]); err != nil {
		return nil, err
	}
	if o := opts[optOverload]; len(o) == 1 {
		for bit, field := range map[byte][]byte{1: b[108:236], 2: b[44:108]} {
			if o[0]&bit != 0 {
				if err := addOptions(opts, field); err != nil {
					return nil, err
				}
			}
		}
	}
	return opts, nil
}

func addOptions(opts map[byte][]byte, b []byte) error {
	for len(b) > 0 && b[0] != optEnd {
		if b[0] == 0 { // padding
			b = b[1:]
			continue
		}
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return fmt.Errorf("option %d is cut off", b[0])
		}
		opts[b[0]] = append(opts[b[0]], b[2:2+int(b[1])]...)
		b = b[2+int(b[1]):]
	}
	return nil
}

func addresses(b []byte) []netip.Addr {
	var out []netip.Addr
	for ; len(b) >= 4; b = b[4:] {
		out = append(out, netip.AddrFrom4([4]byte(b[:4])))
	}
	return out
}

func maskBits(b []byte) (int, bool) {
	if len(b) != 4 {
		return 0, false
	}
	m := ^binary.BigEndian.Uint32(b)
	if m&(m+1) != 0 {
		return 0, false
	}
	n := 32
	for ; m != 0; m >>= 1 {
		n--
	}
	return n, n > 0
}

// leaseRoutes: classless routes replace the router option where both are given (RFC 3442).
func leaseRoutes(opts map[byte][]byte) []route {
	var out []route
	for b := opts[optRoutes]; len(b) > 0; {
		bits := int(b[0])
		n := (bits + 7) / 8
		if bits > 32 || len(b) < 1+n+4 {
			out = nil
			break
		}
		var to [4]byte
		copy(to[:], b[1:1+n])
		via := netip.AddrFrom4([4]byte(b[1+n : 5+n]))
		if via.IsUnspecified() {
			via = netip.Addr{}
		}
		out = append(out, route{netip.PrefixFrom(netip.AddrFrom4(to), bits).Masked(), via})
		b = b[5+n:]
	}
	if r := addresses(opts[optRouter]); len(out) == 0 && len(r) > 0 {
		out = append(out, route{netip.PrefixFrom(netip.IPv4Unspecified(), 0), r[0]})
	}
	return out
}

// dhcpFrame wraps a message into UDP and IPv4: from the held address or 0.0.0.0,
// to everybody.
func dhcpFrame(payload []byte, from netip.Addr) []byte {
	b := make([]byte, 28+len(payload))
	b[0], b[8], b[9] = 0x45, 64, 17 // IPv4, time to live, UDP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	if from.Is4() {
		a := from.As4()
		copy(b[12:], a[:])
	}
	copy(b[16:], []byte{255, 255, 255, 255})
	binary.BigEndian.PutUint16(b[10:], ^checksum(b[:20], 0))
	binary.BigEndian.PutUint16(b[20:], 68)
	binary.BigEndian.PutUint16(b[22:], 67)
	binary.BigEndian.PutUint16(b[24:], uint16(8+len(payload)))
	copy(b[28:], payload)
	pseudo := checksum(b[12:20], 17+uint32(8+len(payload)))
	sum := ^checksum(b[20:], uint32(pseudo))
	if sum == 0 {
		sum = 0xffff // 0 would mean "no checksum" (RFC 768)
	}
	binary.BigEndian.PutUint16(b[26:], sum)
	return b
}

// dhcpPayload unwraps a packet that came from a DHCP server. UDP's checksum is
// not looked at: network cards and hypervisors leave it to be filled in later.
func dhcpPayload(b []byte) ([]byte, bool) {
	if len(b) < 28 || b[0]>>4 != 4 || b[9] != 17 {
		return nil, false
	}
	head, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if head < 20 || total > len(b) || total < head+8 || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
		return nil, false
	}
	udp := b[head:total]
	n := int(binary.BigEndian.Uint16(udp[4:]))
	if binary.BigEndian.Uint16(udp) != 67 || binary.BigEndian.Uint16(udp[2:]) != 68 || n < 8 || n > len(udp) {
		return nil, false
	}
	return udp[8:n], true
}

// checksum is the Internet checksum (RFC 1071), before its complement is taken.
func checksum(b []byte, sum uint32) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
