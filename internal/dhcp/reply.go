package dhcp

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootlane/internal/lane"
)

// option is one option of a reply. Those with a higher drop are left out first
// when the reply would be too long; 0 is never left out.
type option struct {
	code uint8
	data []byte
	drop int
}

// message is a reply before it becomes bytes.
type message struct {
	yiaddr, siaddr, ciaddr netip.Addr
	broadcast              bool // sets the flag, whatever the client's says
	file                   string
	options                []option
}

// The PXE vendor options, option 43. PXE 2.1 table 2-1.
func discoveryControl() []byte { return []byte{6, 1, 8, 255} } // use the boot file of this offer, ask nobody else

// localMenu is a boot menu whose one item, of type 0, is the local disk, chosen at once.
func localMenu() []byte {
	const name, prompt = "Local boot", "PXE"
	b := []byte{6, 1, 3, 9, 3 + uint8(len(name)), 0, 0, uint8(len(name))}
	b = append(b, name...)
	b = append(b, 10, 1+uint8(len(prompt)), 0)
	b = append(b, prompt...)
	return append(b, 255)
}

// lease returns the OFFER or ACK of an address. boot is what the decision allows.
func (n Network) lease(q query, kind dhcpv4.MessageType, yiaddr netip.Addr, d lane.Decision) message {
	m := message{yiaddr: yiaddr}
	if kind == dhcpv4.MessageTypeAck && q.msg == dhcpv4.MessageTypeRequest {
		m.ciaddr = q.ciaddr
	}
	secs := uint32(n.LeaseTime() / time.Second)
	m.add(53, []byte{byte(kind)}, 0)
	m.add(54, n.identifier(q), 0)
	m.add(51, be32(secs), 0)
	m.add(58, be32(secs/2), 2)
	m.add(59, be32(secs/8*7), 2)
	n.config(&m)
	n.boot(&m, q, d)
	m.echo(q)
	return m
}

// inform answers a client that has an address: no lease times, RFC 2131 4.3.5.
func (n Network) inform(q query, d lane.Decision) message {
	m := message{ciaddr: q.ciaddr}
	m.add(53, []byte{byte(dhcpv4.MessageTypeAck)}, 0)
	m.add(54, n.identifier(q), 0)
	n.config(&m)
	n.boot(&m, q, d)
	m.echo(q)
	return m
}

// identifier returns option 54: our address, or the one that the relay agent wants the
// client to renew with, RFC 5107.
func (n Network) identifier(q query) []byte {
	if q.relay.serverID.IsValid() && !q.giaddr.IsUnspecified() {
		return q.relay.serverID.AsSlice()
	}
	return n.Server.AsSlice()
}

// nak says no, and nothing else: RFC 2131 table 3, with the client identifier of RFC
// 6842. Through a relay it is to be broadcast, for the client's address is wrong: 4.3.2.
func (n Network) nak(q query, why string) message {
	m := message{broadcast: !q.giaddr.IsUnspecified()}
	m.add(53, []byte{byte(dhcpv4.MessageTypeNak)}, 0)
	m.add(54, n.identifier(q), 0)
	m.add(56, []byte(why), 1)
	m.echoIDs(q)
	return m
}

// proxied returns the answer of a proxyDHCP server, PXE 2.1 section 2.2: the boot
// fields, and nothing that another server owns. It reports false when the decision
// allows none: then silence is the answer.
func (n Network) proxied(q query, kind dhcpv4.MessageType, d lane.Decision) (message, bool) {
	m := message{ciaddr: q.ciaddr}
	m.add(53, []byte{byte(kind)}, 0)
	m.add(54, n.identifier(q), 0)
	bare := len(m.options)
	n.boot(&m, q, d)
	if len(m.options) == bare {
		return message{}, false
	}
	m.echo(q)
	return m, true
}

func (n Network) config(m *message) {
	m.add(1, n.Mask().AsSlice(), 0) // before the routers, RFC 2132 3.3
	m.add(3, addrs(n.Routers), 1)
	m.add(6, addrs(n.DNS), 2)
	m.add(15, []byte(n.Domain), 4)
	m.add(28, n.Broadcast().AsSlice(), 3)
	m.add(42, addrs(n.NTP), 5)
}

// boot translates the decision. This is the only place where DHCP turns one into
// a file name.
func (n Network) boot(m *message, q query, d lane.Decision) {
	o := d.Boot.Or(n.classOf(q).Boot)
	loader := n.loader(q.platform, o)
	path := lane.BootPath{MAC: q.mac, Platform: q.platform, File: loader}
	wanted := loader != "" && (d.Action.Boots() || d.Action == lane.Hold && n.HoldScreen)
	fast := n.FastLocalBoot && !o.Silent
	switch {
	case q.class == ipxe:
		// Always the script that asks again, with everything iPXE knows: it can destroy nothing.
		path.File = lane.EntryScript
		m.siaddr = n.Server
		m.add(60, []byte("PXEClient"), 0)
		m.add(43, n.vendor(q), 0)
		if n.Proxy {
			m.add(175, []byte{1, 1, 1}, 0) // priority: the address server may name a boot file of its own
		} else {
			m.add(175, []byte{0xb0, 1, 1}, 0) // no proxyDHCP here: do not wait for one
		}
		base := n.HTTPBase
		if n.IPXETLS && q.speaksTLS {
			base = n.TLSBase
		}
		m.bootFile(base + "/" + path.String())
	case q.class == pxe && wanted && n.Proxy && (o.Redirect4011 || n.Redirect4011) && !q.bootServer:
		m.add(60, []byte("PXEClient"), 0) // without a boot file: it asks on port 4011
	case q.class == pxe && wanted:
		m.siaddr = n.Server
		if !o.NoPXEOptions {
			m.add(60, []byte("PXEClient"), 0)
			m.add(43, n.vendor(q), 0)
		}
		m.add(66, []byte(n.Server.String()), 3)
		m.bootFile(path.String())
	case q.class == httpc && (wanted || loader != "" && fast):
		m.add(60, []byte("HTTPClient"), 0)
		base := n.HTTPBase
		if n.HTTPBootTLS {
			base = n.TLSBase
		}
		m.add(67, []byte(base+"/"+path.String()), 0)
	case q.class == uboot && (d.Action.Boots() || d.Action == lane.Hold && n.HoldScreen):
		m.siaddr = n.Server // and no file: pxelinux.cfg lies beside it, at the root
	case q.class == pxe && fast && q.platform.Firmware == lane.UEFI:
		m.add(60, []byte("PXEClient"), 0)
		m.add(43, localMenu(), 0)
	}
}

// loader returns the boot loader that a platform is told: the one that the options ask
// for, where it is configured.
func (n Network) loader(p lane.Platform, o lane.BootOptions) string {
	list := n.Loaders[p]
	if slices.Contains(list, o.Loader) {
		return o.Loader
	}
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// vendor returns option 43: use the boot file of this reply; to a boot server request,
// which server it was for.
func (n Network) vendor(q query) []byte {
	if q.bootItem != nil {
		return append(append([]byte{71, 4}, q.bootItem...), 255)
	}
	return discoveryControl()
}

// bootFile sets the file field and option 67. shim and GRUB read only the field,
// some ROMs only the option; the option carries its own NUL, because old ROMs take
// the byte that follows it for part of the name, and EDK2 writes a NUL there.
func (m *message) bootFile(name string) {
	if len(name) <= 127 {
		m.file = name
	}
	m.add(67, append([]byte(name), 0), 0)
}

func (m *message) echo(q query) {
	if q.machineID != nil && q.class != plain {
		m.add(97, q.machineID, 0)
	}
	m.echoIDs(q)
}

// echoIDs returns the client identifier, RFC 6842, and what the relay agent added, RFC
// 3046 2.2: it finds the client's port by it.
func (m *message) echoIDs(q query) {
	m.add(61, q.clientID, 0)
	for raw := q.relay.raw; len(raw) > 0; raw = raw[min(255, len(raw)):] { // RFC 3396: a long one is split
		m.add(82, raw[:min(255, len(raw))], 0)
	}
}

func (m *message) add(code uint8, data []byte, drop int) {
	if m.options == nil {
		m.options = make([]option, 0, 20)
	}
	if len(data) > 0 && len(data) <= 255 { // EDK2 drops a packet with an empty option
		m.options = append(m.options, option{code, data, drop})
	}
}

// order puts the options on the wire: what brittle readers want first, 67 behind
// everything that EDK2's stray NUL could hit, and a relay agent's own last, RFC 3046 2.2.
func order(code uint8) int {
	wire := []uint8{53, 54, 51, 1, 58, 59, 3, 6, 15, 28, 42, 56, 60, 43, 97, 61, 175, 66, 67, 82}
	return slices.Index(wire, code)
}

// marshal encodes the reply. It never emits option 52: iPXE cannot read it. When
// the options do not fit, the least needed are left out.
func (m message) marshal(q query) []byte {
	opts := slices.Clone(m.options)
	slices.SortStableFunc(opts, func(a, b option) int { return order(a.code) - order(b.code) })
	size := func() (n int) {
		for _, o := range opts {
			n += 2 + len(o.data)
		}
		return n
	}
	for drop := 5; drop > 0 && 241+size() > q.maxSize; drop-- {
		opts = slices.DeleteFunc(opts, func(o option) bool { return o.drop == drop })
	}
	b := make([]byte, 240, 512)
	b[0], b[1], b[2] = 2, q.htype, 6
	copy(b[4:8], q.xid[:])
	flags := q.flags
	if m.broadcast {
		flags |= broadcastFlag
	}
	binary.BigEndian.PutUint16(b[10:12], flags)
	put(b[12:16], m.ciaddr)
	put(b[16:20], m.yiaddr)
	put(b[20:24], m.siaddr)
	put(b[24:28], q.giaddr)
	copy(b[28:44], q.chaddr[:])
	copy(b[108:235], m.file)
	copy(b[236:240], []byte{99, 130, 83, 99})
	for _, o := range opts {
		b = append(b, o.code, uint8(len(o.data)))
		b = append(b, o.data...)
	}
	b = append(b, 255)
	for len(b) < 300 { // BOOTP's least length: some relays and ROMs drop shorter ones
		b = append(b, 0)
	}
	return b
}

func put(b []byte, a netip.Addr) {
	if a.Is4() {
		copy(b, a.AsSlice())
	}
}

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func addrs(list []netip.Addr) (b []byte) {
	for _, a := range list {
		b = append(b, a.AsSlice()...)
	}
	return b
}

const broadcastFlag = 0x8000

// destination returns where a reply goes: RFC 2131 4.1. A client without an
// address is answered by broadcast, whatever its flag: that is allowed, needs no
// raw socket, and EDK2 ignores anything else.
func destination(q query, kind dhcpv4.MessageType, from netip.AddrPort) netip.AddrPort {
	all := netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), 68)
	switch {
	case q.bootServer:
		return from // EDK2 asks from port 4011, iPXE from 68: each listens there only
	case !q.giaddr.IsUnspecified() && q.relay.sourcePort:
		return netip.AddrPortFrom(q.giaddr, from.Port()) // RFC 8357
	case !q.giaddr.IsUnspecified():
		return netip.AddrPortFrom(q.giaddr, serverPort)
	case kind == dhcpv4.MessageTypeNak:
		return all
	case q.msg == dhcpv4.MessageTypeInform && q.ciaddr.IsUnspecified() && !from.Addr().IsUnspecified():
		return netip.AddrPortFrom(from.Addr(), 68) // some clients leave ciaddr empty
	case !q.ciaddr.IsUnspecified():
		return netip.AddrPortFrom(q.ciaddr, 68)
	}
	return all
}
