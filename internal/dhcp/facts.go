package dhcp

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootlane/internal/lane"
)

// class is what kind of client sent a packet. It is decided by what the client
// says, in the order of protocol practice: an iPXE also calls itself PXEClient.
type class uint8

const (
	plain class = iota // an operating system: an address, no boot fields
	pxe                // PXE firmware
	httpc              // UEFI HTTP Boot firmware
	ipxe               // iPXE that can fetch a script by HTTP
	uboot              // U-Boot: it looks for its configuration by itself, and needs a server to look at
)

// query is a decoded client message: everything that a reply depends on.
type query struct {
	msg       dhcpv4.MessageType
	class     class
	xid       [4]byte
	flags     uint16
	htype     uint8
	chaddr    [16]byte
	mac       lane.MAC
	ciaddr    netip.Addr // unspecified: 0.0.0.0
	giaddr    netip.Addr
	requested netip.Addr // option 50
	serverID  netip.Addr // option 54
	clientID  []byte     // option 61, echoed as it came (RFC 6842)
	machineID []byte     // option 97, echoed as it came; nil when malformed
	vendor    string     // option 60, without a NUL at its end
	userClass string     // option 77 as it came
	subnet    netip.Addr // option 118; zero without one
	relay     relay      // option 82
	speaksTLS bool       // iPXE that can fetch by HTTPS
	bootItem  []byte     // option 43.71 of a boot server request; nil without one
	maxSize   int        // option 57, bounded
	platform  lane.Platform
	facts     lane.Facts
	// How it came: through which interface of ours, to us alone or to everybody, and
	// by port 4011 or 67.
	iface      string
	unicast    bool
	bootServer bool
}

// iPXE encapsulated options, option 175.
const (
	ipxeHTTP    = 0x13
	ipxeHTTPS   = 0x14
	ipxeBzImage = 0x18
	ipxeEFI     = 0x24
)

// parse decodes a client's datagram. An error says why the packet is dropped;
// nothing that a client can send makes it panic.
func parse(data []byte) (query, error) {
	switch {
	case len(data) < 240:
		return query{}, fmt.Errorf("%d bytes are too short for DHCP", len(data))
	case len(data) > 4096:
		return query{}, fmt.Errorf("%d bytes are too long for DHCP", len(data))
	case data[0] != 1:
		return query{}, fmt.Errorf("op %d is not a request", data[0])
	case data[1] != 1 || data[2] != 6:
		return query{}, fmt.Errorf("hardware type %d with length %d is not Ethernet", data[1], data[2])
	case data[3] > 16:
		return query{}, fmt.Errorf("%d hops: a relay loop (RFC 1542 4.1.1)", data[3])
	case !bytes.Equal(data[236:240], []byte{99, 130, 83, 99}):
		return query{}, fmt.Errorf("no DHCP magic cookie")
	}
	p, err := dhcpv4.FromBytes(data)
	if err != nil {
		return query{}, fmt.Errorf("decode options: %w", err)
	}
	if err := unfold(p, data); err != nil {
		return query{}, err
	}
	mac, err := lane.MACFromBytes(data[28:34])
	if err != nil {
		return query{}, err
	}
	q := query{msg: p.MessageType(), xid: [4]byte(data[4:8]), flags: uint16(data[10])<<8 | uint16(data[11]), htype: data[1], chaddr: [16]byte(data[28:44]),
		mac: mac, ciaddr: addr(data[12:16]), giaddr: addr(data[24:28]), requested: addr(p.Options.Get(dhcpv4.OptionRequestedIPAddress)),
		serverID: addr(p.Options.Get(dhcpv4.OptionServerIdentifier)), clientID: p.Options.Get(dhcpv4.OptionClientIdentifier), maxSize: maxSize(p),
		subnet: subnetSelection(p), relay: parseRelay(p.Options.Get(dhcpv4.OptionRelayAgentInformation))}
	q.classify(p)
	return q, nil
}

// unfold takes the options that RFC 2131 4.1 lets a client hide in the file and
// sname fields, in the order file, sname.
func unfold(p *dhcpv4.DHCPv4, data []byte) error {
	o := p.Options.Get(dhcpv4.OptionOptionOverload)
	if len(o) != 1 {
		return nil
	}
	for _, field := range []struct {
		bit  byte
		data []byte
	}{{1, data[108:236]}, {2, data[44:108]}} {
		if o[0]&field.bit == 0 {
			continue
		}
		if err := p.Options.FromBytes(field.data); err != nil {
			return fmt.Errorf("decode overloaded options: %w", err)
		}
	}
	return nil
}

func addr(b []byte) netip.Addr {
	if len(b) != 4 {
		return netip.IPv4Unspecified()
	}
	return netip.AddrFrom4([4]byte(b))
}

// maxSize returns how many bytes of DHCP a reply may have. Without option 57 it
// is the 576-byte IP datagram of RFC 2131 section 2. EDK2 asks for 65280, but drops
// whatever does not fit an Ethernet frame.
func maxSize(p *dhcpv4.DHCPv4) int {
	const least, most = 576 - 28, 1472
	b := p.Options.Get(dhcpv4.OptionMaximumDHCPMessageSize)
	if len(b) != 2 {
		return least
	}
	return min(max(int(b[0])<<8|int(b[1])-28, least), most)
}

func (q *query) classify(p *dhcpv4.DHCPv4) {
	vendor := strings.TrimRight(string(p.Options.Get(dhcpv4.OptionClassIdentifier)), "\x00")
	user := p.Options.Get(dhcpv4.OptionUserClassInformation)
	q.vendor, q.userClass = vendor, string(user)
	encap := dhcpv4.Options{}
	if raw := p.Options.Get(dhcpv4.GenericOptionCode(175)); raw != nil {
		if err := encap.FromBytes(append(bytes.Clone(raw), 255)); err != nil {
			encap = dhcpv4.Options{} // a broken feature list says nothing
		}
	}
	has := func(code uint8) bool { return encap.Has(dhcpv4.GenericOptionCode(code)) }
	q.speaksTLS = has(ipxeHTTPS)
	arch, known := architecture(p, vendor)
	q.platform = arch
	switch {
	case isIPXE(user) && (len(encap) == 0 || has(ipxeHTTP)), len(user) == 0 && has(ipxeHTTP) && (has(ipxeBzImage) || has(ipxeEFI)):
		q.class = ipxe
	case strings.HasPrefix(vendor, "HTTPClient"):
		q.class = httpc
	case strings.HasPrefix(vendor, "PXEClient"):
		q.class = pxe
	case strings.HasPrefix(vendor, "U-Boot"):
		q.class = uboot
	}
	if !known && (q.class == pxe || q.class == httpc) {
		q.class = plain // no loader exists for it: an address is all it can get
	}
	if m := p.Options.Get(dhcpv4.OptionClientMachineIdentifier); len(m) == 17 && m[0] == 0 {
		q.machineID = m
	}
	if q.class == pxe {
		q.bootItem = bootItem(p.Options.Get(dhcpv4.OptionVendorSpecificInformation))
	}
	q.facts = lane.Facts{Surface: lane.SurfaceDHCP, Speaker: lane.SpeakerROM, MAC: q.mac, Relay: q.relay.facts(q.giaddr), Arch: arch.Arch, Firmware: arch.Firmware, HTTPBoot: q.class == httpc, Name: q.msg.String()}
	if q.class == ipxe {
		q.facts.Speaker = lane.SpeakerLoader
	}
	if q.machineID != nil {
		if u, err := lane.UUIDFromSMBIOS(q.machineID[1:]); err == nil && !u.Placeholder() {
			q.facts.UUID = u
		}
	}
}

// bootItem returns sub-option 71 of option 43, PXE_BOOT_ITEM: which boot server a
// client asks for. PXE 2.1 section 2.2.3.
func bootItem(vendor []byte) []byte {
	for len(vendor) >= 2 && vendor[0] != 255 {
		if vendor[0] == 0 {
			vendor = vendor[1:]
			continue
		}
		n := int(vendor[1])
		if len(vendor) < 2+n {
			return nil
		}
		if vendor[0] == 71 && n == 4 {
			return vendor[2:6]
		}
		vendor = vendor[2+n:]
	}
	return nil
}

// isIPXE reads option 77. iPXE sends its four letters bare, which RFC 3004
// does not allow; some builds add the length that it asks for.
func isIPXE(user []byte) bool {
	if string(user) == "iPXE" {
		return true
	}
	for len(user) > 1 && int(user[0]) < len(user) {
		n := int(user[0])
		if string(user[1:1+n]) == "iPXE" {
			return true
		}
		user = user[1+n:]
	}
	return false
}

// architecture reads option 93, the first number that we know, or else the
// Arch field of option 60.
func architecture(p *dhcpv4.DHCPv4, vendor string) (lane.Platform, bool) {
	codes := p.Options.Get(dhcpv4.OptionClientSystemArchitectureType)
	if len(codes)%2 == 0 {
		for i := 0; i+1 < len(codes); i += 2 {
			if pl, ok := lane.PlatformOf(int(codes[i])<<8 | int(codes[i+1])); ok {
				return pl, true
			}
		}
	}
	if _, rest, ok := strings.Cut(vendor, ":Arch:"); ok && len(rest) >= 5 {
		if n, err := strconv.Atoi(rest[:5]); err == nil {
			return lane.PlatformOf(n)
		}
	}
	return lane.Platform{}, false
}
