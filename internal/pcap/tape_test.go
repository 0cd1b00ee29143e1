package pcap

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// tape is a capture in the making: who says what to whom, and when.
type tape struct {
	t    testing.TB
	now  time.Time
	recs []Record
}

func newTape(t testing.TB) *tape {
	return &tape{t: t, now: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)}
}

// host is one end of a packet.
type host struct{ mac, ip string }

var (
	client   = host{"52:54:00:12:34:56", "192.168.77.50"}
	unbound  = host{"52:54:00:12:34:56", "0.0.0.0"}
	server   = host{"02:00:00:00:00:01", "192.168.77.1"}
	rival    = host{"02:00:00:00:00:02", "192.168.77.2"}
	everyone = host{"ff:ff:ff:ff:ff:ff", "255.255.255.255"}
	client6  = host{"52:54:00:12:34:56", "fe80::5054:ff:fe12:3456"}
	server6  = host{"02:00:00:00:00:01", "fe80::1"}
)

func (l *tape) wait(d time.Duration) *tape {
	l.now = l.now.Add(d)
	return l
}

func (l *tape) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *tape) frame(ls ...gopacket.SerializableLayer) *tape {
	l.t.Helper()
	b := gopacket.NewSerializeBuffer()
	l.must(gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ls...))
	l.recs = append(l.recs, Record{At: l.now, Frame: b.Bytes()})
	l.now = l.now.Add(time.Millisecond)
	return l
}

// ip returns the layers below a transport.
func (l *tape) ip(from, to host, proto layers.IPProtocol) (*layers.Ethernet, gopacket.NetworkLayer) {
	l.t.Helper()
	src, err := net.ParseMAC(from.mac)
	l.must(err)
	dst, err := net.ParseMAC(to.mac)
	l.must(err)
	e := &layers.Ethernet{SrcMAC: src, DstMAC: dst, EthernetType: layers.EthernetTypeIPv4}
	a, b := netip.MustParseAddr(from.ip), netip.MustParseAddr(to.ip)
	if a.Is6() {
		e.EthernetType = layers.EthernetTypeIPv6
		return e, &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: a.AsSlice(), DstIP: b.AsSlice()}
	}
	return e, &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: a.AsSlice(), DstIP: b.AsSlice()}
}

func (l *tape) udp(from host, fromPort uint16, to host, toPort uint16, payload []byte) *tape {
	l.t.Helper()
	e, n := l.ip(from, to, layers.IPProtocolUDP)
	u := &layers.UDP{SrcPort: layers.UDPPort(fromPort), DstPort: layers.UDPPort(toPort)}
	l.must(u.SetNetworkLayerForChecksum(n))
	return l.frame(e, n.(gopacket.SerializableLayer), u, gopacket.Payload(payload))
}

func (l *tape) tcp(from host, fromPort uint16, to host, toPort uint16, flags, payload string) *tape {
	l.t.Helper()
	e, n := l.ip(from, to, layers.IPProtocolTCP)
	u := &layers.TCP{SrcPort: layers.TCPPort(fromPort), DstPort: layers.TCPPort(toPort), SYN: strings.Contains(flags, "S"), ACK: strings.Contains(flags, "A"), FIN: strings.Contains(flags, "F")}
	l.must(u.SetNetworkLayerForChecksum(n))
	return l.frame(e, n.(gopacket.SerializableLayer), u, gopacket.Payload(payload))
}

func (l *tape) arp(who host) *tape {
	m, err := net.ParseMAC(who.mac)
	l.must(err)
	ip := netip.MustParseAddr(who.ip).AsSlice()
	return l.frame(&layers.Ethernet{SrcMAC: m, DstMAC: bytes.Repeat([]byte{255}, 6), EthernetType: layers.EthernetTypeARP},
		&layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: layers.ARPReply,
			SourceHwAddress: m, SourceProtAddress: ip, DstHwAddress: m, DstProtAddress: ip})
}

// fixture is what a client of the lab really sent.
func (l *tape) fixture(name string) []byte {
	l.t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
	l.must(err)
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	l.must(err)
	return b
}

const (
	ovmfDiscover = "dhcp4-ovmf-pxe-arch0007-discover-port67-bcast"
	ovmfRequest  = "dhcp4-ovmf-pxe-arch0007-request-port67-bcast"
	ovmf4011     = "dhcp4-ovmf-pxe-arch0007-request-port4011-l2uni"
	ovmfDecline  = "dhcp4-ovmf-pxe-archnone-decline-port67-bcast"
	httpDiscover = "dhcp4-ovmf-http-arch0010-discover-port67-bcast"
	httpRequest  = "dhcp4-ovmf-http-arch0010-request-port67-bcast"
	ipxeDiscover = "dhcp4-ipxe-arch0007-discover-port67-bcast"
	ipxeRequest  = "dhcp4-ipxe-arch0007-request-port67-bcast"
	biosDiscover = "dhcp4-ipxe-arch0000-discover-port67-bcast"
)

// says lets the client broadcast a fixture.
func (l *tape) says(name string) *tape {
	l.t.Helper()
	return l.udp(unbound, 68, everyone, 67, l.fixture(name))
}

// reply is what a server answers; the zero values stand for what is not there.
type reply struct {
	kind          byte // option 53
	address, next string
	file          string // header
	opts          []opt
	noEnd         bool
	server        string // option 54; "-": none
	noMask        bool
}

type opt struct {
	code byte
	data string
}

// The kinds of DHCP messages.
const (
	offer byte = 2
	ack   byte = 5
	nak   byte = 6
)

// bytes makes the answer of a server to a message of a client.
func (r reply) bytes(from host, asked []byte) []byte {
	b := make([]byte, 240)
	copy(b, asked[:44])
	b[0] = 2
	clear(b[12:24])
	addr := func(at int, s string) {
		if s != "" {
			copy(b[at:], netip.MustParseAddr(s).AsSlice())
		}
	}
	addr(16, r.address)
	addr(20, r.next)
	copy(b[108:236], r.file)
	binary.BigEndian.PutUint32(b[236:], 0x63825363)
	put := func(code byte, data []byte) { b = append(append(b, code, byte(len(data))), data...) }
	put(53, []byte{r.kind})
	if r.server != "-" {
		put(54, netip.MustParseAddr(from.ip).AsSlice())
	}
	if r.address != "" {
		put(51, []byte{0, 0, 14, 16})
		if !r.noMask {
			put(1, []byte{255, 255, 255, 0})
		}
	}
	for _, o := range r.opts {
		put(o.code, []byte(o.data))
	}
	if r.noEnd {
		return b
	}
	return append(b, 255)
}

// answer lets a server answer a fixture by broadcast.
func (l *tape) answer(from host, asked string, r reply) *tape {
	l.t.Helper()
	return l.udp(from, 67, everyone, 68, r.bytes(from, l.fixture(asked)))
}

// bound plays OFFER, REQUEST and ACK of one server.
func (l *tape) bound(discover, request string, r reply) *tape {
	l.t.Helper()
	r.kind = offer
	l.says(discover).answer(server, discover, r).wait(3 * time.Second).says(request)
	r.kind = ack
	return l.answer(server, request, r).arp(client)
}

func rrq(name string, options ...string) []byte {
	return append([]byte{0, 1}, strings.Join(append([]string{name, "octet"}, options...), "\x00")+"\x00"...)
}

func oack(options ...string) []byte {
	return append([]byte{0, 6}, strings.Join(options, "\x00")+"\x00"...)
}

func data(block uint16, size int) []byte {
	return append([]byte{0, 3, byte(block >> 8), byte(block)}, make([]byte, size)...)
}

func tftpError(code byte, text string) []byte {
	return append([]byte{0, 5, 0, code}, text+"\x00"...)
}

// fetch plays a whole TFTP transfer.
func (l *tape) fetch(port uint16, name string) *tape {
	return l.udp(client, port, server, 69, rrq(name)).udp(server, port+1000, client, port, data(1, 100)).udp(client, port, server, port+1000, []byte{0, 4, 0, 1})
}

// file returns the capture as a file.
func (l *tape) file() []byte {
	l.t.Helper()
	var b bytes.Buffer
	l.must(Write(&b, []Source{{"eth0", l.recs}}))
	return b.Bytes()
}

func (l *tape) report() Report {
	l.t.Helper()
	c, err := Read(l.file())
	l.must(err)
	if c.Damage != "" {
		l.t.Fatal(c.Damage)
	}
	return Analyse(c)
}

// ids returns what was found, in order.
func (r Report) ids() []ID {
	var out []ID
	for _, c := range r.Clients {
		for _, f := range c.Findings {
			out = append(out, f.ID)
		}
	}
	for _, f := range r.Findings {
		out = append(out, f.ID)
	}
	return out
}
