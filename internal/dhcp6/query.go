package dhcp6

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"bootlane/internal/lane"
)

// class is what kind of client sent a message, by what it says of itself: an iPXE also
// calls itself PXEClient.
type class uint8

const (
	plain class = iota // an operating system: an address, no boot URL
	pxe                // PXE firmware
	httpc              // UEFI HTTP Boot firmware
	ipxe               // iPXE
)

// query is a decoded client message: everything that a reply depends on.
type query struct {
	msg      dhcpv6.MessageType
	xid      [3]byte
	class    class
	clientID []byte // DUID, echoed as it came
	serverID []byte // nil without one
	ias      []association
	wants    []byte // option request, RFC 8415 21.7: as it stands on the wire
	rapid    bool   // rapid commit, RFC 8415 21.14
	platform lane.Platform
	client   lane.Client // whom leases are for
	facts    lane.Facts
	layers   []layer // of relay agents, the outermost first
	// How it came.
	iface   string
	from    netip.AddrPort // the client, or the agent next to us
	unicast bool           // to us alone
}

// DUID types, RFC 8415 11 and RFC 6355.
const (
	duidLLT  = 1
	duidLL   = 3
	duidUUID = 4
)

// parse decodes a client's datagram. An error says why it is dropped; nothing that a
// client or an agent can send makes it panic.
func parse(data []byte, from netip.AddrPort) (query, error) {
	layers, data, err := unwrap(data)
	if err != nil {
		return query{}, err
	}
	if len(data) < 4 {
		return query{}, fmt.Errorf("%d bytes are too short for DHCPv6", len(data))
	}
	q := query{msg: dhcpv6.MessageType(data[0]), xid: [3]byte(data[1:4]), layers: layers, from: from}
	o, err := parseOptions(data[4:])
	if err != nil {
		return query{}, err
	}
	q.clientID, _ = o.get(dhcpv6.OptionClientID)
	q.serverID, _ = o.get(dhcpv6.OptionServerID)
	q.wants, _ = o.get(dhcpv6.OptionORO)
	_, q.rapid = o.get(dhcpv6.OptionRapidCommit)
	for _, v := range o {
		if a, ok := parseAssociation(v); ok && len(q.ias) < maxAssociations {
			q.ias = append(q.ias, a)
		}
	}
	if err := q.sound(); err != nil {
		return query{}, err
	}
	q.classify(o)
	q.identify()
	return q, nil
}

// sound says why a message is to be discarded, RFC 8415 section 16.
func (q query) sound() error {
	needsServer := false
	switch q.msg {
	case dhcpv6.MessageTypeSolicit, dhcpv6.MessageTypeConfirm, dhcpv6.MessageTypeRebind:
		if q.serverID != nil {
			return fmt.Errorf("%s with a server identifier", q.msg)
		}
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		needsServer = true
	case dhcpv6.MessageTypeInformationRequest:
		if len(q.ias) > 0 {
			return fmt.Errorf("%s with an IA", q.msg)
		}
		if len(q.clientID) == 0 {
			return nil
		}
	default:
		return fmt.Errorf("%s is no client's", q.msg)
	}
	switch {
	case needsServer && q.serverID == nil:
		return fmt.Errorf("%s without a server identifier", q.msg)
	case len(q.clientID) < 3 || len(q.clientID) > 130: // RFC 8415 11.1: two bytes of type, at most 128 more
		return fmt.Errorf("%s with a client identifier of %d bytes", q.msg, len(q.clientID))
	}
	return nil
}

func (q *query) classify(o options) {
	vendor := vendorClass(o)
	user, _ := o.get(dhcpv6.OptionUserClass)
	arch, known := architecture(o, vendor)
	q.platform = arch
	switch {
	case slices.Contains(elements(user), "iPXE"):
		q.class = ipxe
	case strings.HasPrefix(vendor, "HTTPClient"):
		q.class = httpc
	case strings.HasPrefix(vendor, "PXEClient"):
		q.class = pxe
	}
	if !known && q.class != ipxe {
		q.class = plain // no loader exists for it: an address is all it can get
	}
}

// vendorClass returns the first text of option 16. Its enterprise is not looked at:
// firmware says 343, Intel's, and iPXE too.
func vendorClass(o options) string {
	b, _ := o.get(dhcpv6.OptionVendorClass)
	if len(b) < 4 {
		return ""
	}
	if list := elements(b[4:]); len(list) > 0 {
		return list[0]
	}
	return ""
}

// architecture reads option 61, RFC 5970 3.3, the first number that we know, or else
// the Arch field of the vendor class.
func architecture(o options, vendor string) (lane.Platform, bool) {
	codes, _ := o.get(dhcpv6.OptionClientArchType)
	if len(codes)%2 == 0 {
		for i := 0; i < len(codes); i += 2 {
			if p, ok := lane.PlatformOf(int(binary.BigEndian.Uint16(codes[i:]))); ok {
				return p, true
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

// identify finds out who speaks. The NIC in use is known from the agent next to the
// client (RFC 6939), or from a link-local address that is made of it (RFC 4291 2.5.1,
// as all firmware does); the DUID may name another NIC of the machine.
func (q *query) identify() {
	peer := q.from.Addr()
	var told lane.MAC
	if n := len(q.layers); n > 0 {
		peer = q.layers[n-1].peer
	}
	for _, l := range q.layers {
		if l.mac != "" {
			told = l.mac // the innermost agent's word counts
		}
	}
	mac := told
	if mac == "" {
		mac = macOf(peer)
	}
	uuid, named := readDUID(q.clientID, q.class == ipxe)
	if mac == "" {
		mac = named
	}
	q.client = clientOf(mac, uuid, q.clientID)
	q.facts = lane.Facts{Surface: lane.SurfaceDHCP, Speaker: lane.SpeakerROM, MAC: mac, Arch: q.platform.Arch, Firmware: q.platform.Firmware,
		HTTPBoot: q.class == httpc, From: peer.WithZone("").String(), Relay: relayFacts(q.layers, q.from.Addr()), Name: q.msg.String()}
	if q.class == ipxe {
		q.facts.Speaker = lane.SpeakerLoader
	}
	if !uuid.Placeholder() && q.class != plain {
		q.facts.UUID = uuid
	}
}

// clientOf returns whom leases are for. One boot shows the same UUID in two byte orders:
// firmware sends it as SMBIOS has it, iPXE as it is printed.
func clientOf(mac lane.MAC, uuid lane.UUID, duid []byte) lane.Client {
	switch {
	case mac != "":
		return lane.Client(mac)
	case !uuid.Placeholder():
		return lane.Client("uuid:" + min(uuid, uuid.Swapped()))
	}
	return lane.Client("duid:" + hex.EncodeToString(duid))
}

// macOf returns the hardware address that a link-local address is made of, or nothing.
func macOf(a netip.Addr) lane.MAC {
	b := a.As16()
	if !a.Is6() || !a.IsLinkLocalUnicast() || b[11] != 0xff || b[12] != 0xfe {
		return ""
	}
	m, err := lane.MACFromBytes([]byte{b[8] ^ 2, b[9], b[10], b[13], b[14], b[15]})
	if err != nil {
		return ""
	}
	return m
}

// readDUID returns what a DUID tells: the system's UUID, or the address of one of its
// NICs. printed says that a UUID stands in the order in which it is printed.
func readDUID(duid []byte, printed bool) (uuid lane.UUID, mac lane.MAC) {
	if len(duid) < 2 {
		return "", ""
	}
	body := duid[2:]
	var hw []byte
	switch kind := binary.BigEndian.Uint16(duid); {
	case kind == duidUUID && len(body) == 16:
		read := lane.UUIDFromSMBIOS
		if printed {
			read = func(b []byte) (lane.UUID, error) { return lane.ParseUUID(hex.EncodeToString(b)) }
		}
		uuid, _ = read(body) // 16 bytes are always one
	case kind == duidLLT && len(body) == 12 && body[1] == 1:
		hw = body[6:]
	case kind == duidLL && len(body) == 8 && body[1] == 1:
		hw = body[2:]
	}
	if hw != nil {
		mac, _ = lane.MACFromBytes(hw) // what is no NIC's address says nothing
	}
	return uuid, mac
}

// asked reports whether the client asks for an option.
func (q query) asked(code dhcpv6.OptionCode) bool {
	for i := 0; i+1 < len(q.wants); i += 2 {
		if dhcpv6.OptionCode(binary.BigEndian.Uint16(q.wants[i:])) == code {
			return true
		}
	}
	return false
}
