package pcap

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"

	"bootlane/internal/lane"
)

// Ports that tell who speaks.
const (
	portServer4    = 67
	portClient4    = 68
	portTFTP       = 69
	portClient6    = 546
	portServer6    = 547
	portBootServer = 4011 // of PXE boot servers
)

// Message is one DHCP message of either version, as far as a network boot needs it.
type Message struct {
	Packet    int            `json:"packet,omitempty"`
	At        time.Time      `json:"at"`
	Version   int            `json:"version"` // 4 or 6
	Kind      string         `json:"kind"`    // DISCOVER, OFFER, SOLICIT, ADVERTISE ...
	FromMAC   lane.MAC       `json:"fromMAC,omitempty"`
	From      netip.AddrPort `json:"from"`
	To        netip.AddrPort `json:"to"`
	XID       uint32         `json:"xid"`
	Client    lane.MAC       `json:"client,omitempty"` // chaddr; of DHCPv6, who sent the frame, or its DUID's
	UUID      lane.UUID      `json:"uuid,omitempty"`   // option 97, or a DUID-UUID
	Relay     netip.Addr     `json:"relay,omitzero"`   // giaddr
	Broadcast bool           `json:"broadcast,omitempty"`

	Server     string     `json:"server,omitempty"`     // option 54, or the server's DUID
	Address    netip.Addr `json:"address,omitzero"`     // yiaddr, or the address of an IA_NA
	Requested  netip.Addr `json:"requested,omitzero"`   // option 50
	NextServer netip.Addr `json:"nextServer,omitzero"`  // siaddr
	Class      string     `json:"class,omitempty"`      // option 60, or 16 of DHCPv6
	Arch       []int      `json:"arch,omitempty"`       // option 93, or 61 of DHCPv6
	BootFile   string     `json:"bootFile,omitempty"`   // as PXE reads it: option 67 before the header
	HeaderFile string     `json:"headerFile,omitempty"` // as iPXE and shim read it
	MachineID  bool       `json:"machineID,omitempty"`  // option 97 is there
	IPXE       bool       `json:"ipxe,omitempty"`       // the speaker says that it is iPXE
	Priority   int8       `json:"priority,omitempty"`   // option 175.1
	Mask       bool       `json:"mask,omitempty"`
	DNS        bool       `json:"dns,omitempty"`
	NoEnd      bool       `json:"noEnd,omitempty"`  // the options have no END
	Only67     bool       `json:"only67,omitempty"` // the header names no file
	Text       string     `json:"text,omitempty"`   // option 56
	PXE        Vendor     `json:"pxe,omitzero"`     // option 43 of a PXE answer
	Params     bool       `json:"params,omitempty"` // option 60 of DHCPv6
}

// Vendor is what option 43 of a PXE answer says: PXE 2.1, 2.3.
type Vendor struct {
	Discovery  bool       `json:"discovery,omitempty"` // one of the sub-options 6 to 10 is there
	MTFTP      bool       `json:"mtftp,omitempty"`     // one of 1 to 5
	Direct     bool       `json:"direct,omitempty"`    // sub-option 6, bit 3: take the boot file of this offer
	BootServer netip.Addr `json:"bootServer,omitzero"` // the first of sub-option 8
	Menu       bool       `json:"menu,omitempty"`      // sub-option 9
	LocalBoot  bool       `json:"localBoot,omitempty"` // a menu whose first item is type 0
}

// Reply reports whether a server speaks.
func (m Message) Reply() bool {
	return slices.Contains([]string{"OFFER", "ACK", "NAK", "ADVERTISE", "REPLY", "RECONFIGURE"}, m.Kind)
}

// Proxy reports whether an offer is a ProxyDHCP server's: firmware looks at yiaddr.
func (m Message) Proxy() bool { return m.Version == 4 && !m.Address.IsValid() }

// PXEClass reports whether a server speaks as a network boot server.
func (m Message) PXEClass() bool {
	return strings.HasPrefix(m.Class, "PXEClient") || strings.HasPrefix(m.Class, "HTTPClient")
}

// DHCP reads the DHCP message in a packet; ok is false when there is none.
func DHCP(p Packet) (m Message, ok bool) {
	port := func(ports ...uint16) bool {
		return slices.Contains(ports, p.From.Port()) || slices.Contains(ports, p.To.Port())
	}
	switch {
	case p.Proto != UDP:
		return m, false
	case port(portServer4, portBootServer):
		m, ok = dhcp4(p.Payload)
	case port(portServer6):
		m, ok = dhcp6(p.Payload)
	}
	if !ok {
		return m, false
	}
	m.Packet, m.At, m.FromMAC, m.From, m.To = p.Number, p.At, p.FromMAC, p.From, p.To
	if m.Version == 6 && m.Client == "" {
		m.Client = p.FromMAC
		if m.Reply() {
			m.Client = p.ToMAC
		}
	}
	return m, true
}

func dhcp4(data []byte) (Message, bool) {
	p, err := dhcpv4.FromBytes(data)
	noEnd := false
	if errors.Is(err, io.ErrUnexpectedEOF) && len(data) > 240 {
		noEnd = true
		p, err = dhcpv4.FromBytes(append(bytes.Clone(data), 255))
	}
	if err != nil {
		return Message{}, false
	}
	opt := func(code uint8) []byte { return p.Options.Get(dhcpv4.GenericOptionCode(code)) }
	m := Message{Version: 4, Kind: p.MessageType().String(), XID: uint32(data[4])<<24 | uint32(data[5])<<16 | uint32(data[6])<<8 | uint32(data[7]),
		Relay: given(p.GatewayIPAddr), Broadcast: p.IsBroadcast(), Client: mac(p.ClientHWAddr), NoEnd: noEnd,
		Address: given(p.YourIPAddr), Requested: given(opt(50)), NextServer: given(p.ServerIPAddr), Class: text(opt(60)),
		MachineID: opt(97) != nil, Mask: len(opt(1)) == 4, DNS: len(opt(6)) > 0, Text: text(opt(56))}
	if a := given(opt(54)); a.IsValid() {
		m.Server = a.String()
	}
	if m.Kind == "ACK" && !m.Address.IsValid() {
		m.Requested = given(p.ClientIPAddr)
	}
	m.files(p, data)
	for b := opt(93); len(b) > 1; b = b[2:] {
		m.Arch = append(m.Arch, int(b[0])<<8|int(b[1]))
	}
	if id := opt(97); len(id) == 17 {
		m.UUID, _ = lane.UUIDFromSMBIOS(id[1:])
	}
	encap := tlv(opt(175))
	m.IPXE = bytes.Contains(opt(77), []byte("iPXE")) || opt(77) == nil && p.OpCode == dhcpv4.OpcodeBootRequest && encap[0x13] != nil
	if v := encap[1]; len(v) == 1 {
		m.Priority = int8(v[0])
	}
	if p.OpCode == dhcpv4.OpcodeBootReply && strings.HasPrefix(m.Class, "PXEClient") {
		m.PXE = vendor(opt(43))
	}
	if _, typed := p.Options[53]; !typed {
		m.Kind = map[dhcpv4.OpcodeType]string{dhcpv4.OpcodeBootRequest: "BOOTP request", dhcpv4.OpcodeBootReply: "BOOTP reply"}[p.OpCode]
	}
	return m, m.Kind != ""
}

// files reads the boot file, which the header may not hold when options are hidden
// there (RFC 2132, 9.3).
func (m *Message) files(p *dhcpv4.DHCPv4, data []byte) {
	overload := p.Options.Get(dhcpv4.OptionOptionOverload)
	hidden := func(bit byte) bool { return len(overload) == 1 && overload[0]&bit != 0 }
	for _, field := range []struct {
		bit  byte
		data []byte
	}{{1, data[108:236]}, {2, data[44:108]}} {
		if hidden(field.bit) {
			_ = p.Options.FromBytes(field.data) // broken ones say nothing
		}
	}
	if !hidden(1) {
		m.HeaderFile = text(data[108:236])
	}
	m.BootFile = text(p.Options.Get(dhcpv4.OptionBootfileName))
	if m.BootFile == "" {
		m.BootFile = m.HeaderFile
	}
	if m.HeaderFile == "" {
		m.HeaderFile, m.Only67 = m.BootFile, m.BootFile != ""
	}
}

// tlv reads encapsulated options: code, length, value, up to the end or an END.
func tlv(b []byte) map[byte][]byte {
	out := map[byte][]byte{}
	for len(b) > 1 && b[0] != 255 {
		if b[0] == 0 {
			b = b[1:]
			continue
		}
		n := int(b[1])
		if len(b) < 2+n {
			break
		}
		out[b[0]] = b[2 : 2+n]
		b = b[2+n:]
	}
	return out
}

func vendor(b []byte) Vendor {
	var v Vendor
	sub := tlv(b)
	for code := range sub {
		v.MTFTP = v.MTFTP || code >= 1 && code <= 5
		v.Discovery = v.Discovery || code >= 6 && code <= 10
	}
	if c := sub[6]; len(c) == 1 {
		v.Direct = c[0]&8 != 0
	}
	if s := sub[8]; len(s) >= 7 { // type, count, address
		v.BootServer = given(s[3:7])
	}
	v.Menu = sub[9] != nil
	v.LocalBoot = len(sub[9]) > 2 && sub[9][0] == 0 && sub[9][1] == 0
	return v
}

func dhcp6(data []byte) (Message, bool) {
	d, err := dhcpv6.FromBytes(data)
	if err != nil {
		return Message{}, false
	}
	in, err := d.GetInnerMessage()
	if err != nil {
		return Message{}, false
	}
	m := Message{Version: 6, Kind: in.MessageType.String(), XID: uint32(in.TransactionID[0])<<16 | uint32(in.TransactionID[1])<<8 | uint32(in.TransactionID[2]),
		BootFile: text([]byte(in.Options.BootFileURL())), Params: in.GetOneOption(dhcpv6.OptionBootfileParam) != nil, DNS: len(in.Options.DNS()) > 0}
	for _, a := range in.Options.ArchTypes() {
		m.Arch = append(m.Arch, int(a))
	}
	for _, c := range in.Options.VendorClasses() {
		if len(c.Data) > 0 {
			m.Class = text(c.Data[0])
		}
	}
	m.IPXE = slices.ContainsFunc(in.Options.UserClasses(), func(c []byte) bool { return string(c) == "iPXE" })
	if ia := in.Options.OneIANA(); ia != nil {
		if a := ia.Options.OneAddress(); a != nil {
			m.Address = given(a.IPv6Addr)
		}
	}
	if id := in.Options.ServerID(); id != nil {
		m.Server = hex.EncodeToString(id.ToBytes())
	}
	switch id := in.Options.ClientID().(type) {
	case *dhcpv6.DUIDUUID:
		if m.IPXE { // it sends the UUID as it is printed
			m.UUID, _ = lane.ParseUUID(hex.EncodeToString(id.UUID[:]))
			break
		}
		m.UUID, _ = lane.UUIDFromSMBIOS(id.UUID[:])
	case *dhcpv6.DUIDLL:
		m.Client = mac(id.LinkLayerAddr)
	case *dhcpv6.DUIDLLT:
		m.Client = mac(id.LinkLayerAddr)
	}
	return m, true
}

// given returns an address that says something: 0.0.0.0 and :: do not.
func given(b []byte) netip.Addr {
	a := address(b).Unmap()
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// text reads a text option, which some end with NUL.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return lane.Clean(string(b), 300)
}

// speaker says which program of the machine sent a message.
func (m Message) speaker() Speaker {
	switch {
	case m.IPXE:
		return IPXE
	case strings.HasPrefix(m.Class, "HTTPClient"):
		return HTTPBoot
	case strings.HasPrefix(m.Class, "PXEClient") && m.uefi():
		return UEFIPXE
	case strings.HasPrefix(m.Class, "PXEClient"):
		return BIOSPXE
	case strings.HasPrefix(m.Class, "U-Boot"):
		return UBoot
	}
	return System
}

// architecture returns the first number of option 93, or the one in option 60.
func (m Message) architecture() (int, bool) {
	if len(m.Arch) > 0 {
		return m.Arch[0], true
	}
	if _, rest, ok := strings.Cut(m.Class, ":Arch:"); ok && len(rest) >= 5 {
		n, err := strconv.Atoi(rest[:5])
		return n, err == nil
	}
	return 0, false
}

func (m Message) uefi() bool {
	a, ok := m.architecture()
	return ok && a >= 6
}
