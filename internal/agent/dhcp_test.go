package agent

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
)

var (
	testMAC = net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56}
	testXID = dhcpv4.TransactionID{0xca, 0xfe, 0x12, 0x34}
	asked   = dhcpMessage(dhcpv4.MessageTypeDiscover, testMAC, testXID, 3, lease{}, false)
)

// The codes of a reply's options, by RFC 2132 and 3442.
const (
	optMask     = 1
	optRouter   = 3
	optDNS      = 6
	optMTU      = 26
	optLease    = 51
	optOverload = 52
	optType     = 53
	optServer   = 54
	optRoutes   = 121
	optEnd      = 255
)

// reply builds a server's answer to our transaction, byte by byte.
func reply(kind dhcpv4.MessageType, yiaddr string, opts ...byte) []byte {
	b := make([]byte, 236)
	b[0], b[1], b[2] = 2, 1, 6
	copy(b[4:], testXID[:])
	addr := netip.MustParseAddr(yiaddr).As4()
	copy(b[16:], addr[:])
	copy(b[28:], testMAC)
	b = append(b, 99, 130, 83, 99, optType, 1, byte(kind), optServer, 4, 10, 0, 0, 1)
	return append(append(b, opts...), optEnd)
}

var fullLease = []byte{optMask, 4, 255, 255, 255, 0, optRouter, 8, 10, 0, 0, 254, 10, 0, 0, 253, 0, 0, optDNS, 4, 9, 9, 9, 9,
	optMTU, 2, 5, 0, optLease, 4, 0, 0, 14, 16}

func TestParseDHCP(t *testing.T) {
	addr := netip.MustParseAddr
	base := lease{kind: dhcpv4.MessageTypeAck, address: netip.MustParsePrefix("10.0.0.7/24"), server: addr("10.0.0.1"), dns: []netip.Addr{addr("9.9.9.9")},
		mtu: 1280, length: time.Hour, routes: []route{{netip.MustParsePrefix("0.0.0.0/0"), addr("10.0.0.254")}}}
	classless := base
	classless.routes = []route{{netip.MustParsePrefix("10.1.0.0/16"), addr("10.0.0.9")}, {netip.MustParsePrefix("10.2.3.0/24"), netip.Addr{}}, {netip.MustParsePrefix("0.0.0.0/0"), addr("10.0.0.8")}}
	overloaded := reply(dhcpv4.MessageTypeAck, "10.0.0.7", optOverload, 1, 3)
	copy(overloaded[108:], append(bytes.Clone(fullLease[:16]), optEnd))
	copy(overloaded[44:], append(bytes.Clone(fullLease[16:]), optEnd))
	for name, tc := range map[string]struct {
		packet []byte
		want   lease
	}{
		"ack":        {reply(dhcpv4.MessageTypeAck, "10.0.0.7", fullLease...), base},
		"overloaded": {overloaded, base},
		"classless": {reply(dhcpv4.MessageTypeAck, "10.0.0.7", append(bytes.Clone(fullLease),
			optRoutes, 8, 16, 10, 1, 10, 0, 0, 9, 24, optRoutes, 12, 10, 2, 3, 0, 0, 0, 0, 0, 10, 0, 0, 8)...), classless},
		"broken classless": {reply(dhcpv4.MessageTypeAck, "10.0.0.7", append(bytes.Clone(fullLease), optRoutes, 2, 33, 1)...), base},
		"nak":              {reply(dhcpv4.MessageTypeNak, "0.0.0.0"), lease{kind: dhcpv4.MessageTypeNak, server: addr("10.0.0.1")}},
	} {
		got, err := parseDHCP(tc.packet, asked)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(lease{}, route{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
			cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestParseDHCPRefuses(t *testing.T) {
	good := reply(dhcpv4.MessageTypeOffer, "10.0.0.7", fullLease...)
	change := func(f func([]byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return b
	}
	for name, packet := range map[string][]byte{
		"short":           good[:200],
		"request":         change(func(b []byte) { b[0] = 1 }),
		"magic":           change(func(b []byte) { b[239]++ }),
		"transaction":     change(func(b []byte) { b[7]++ }),
		"somebody else":   change(func(b []byte) { b[33]++ }),
		"cut option":      good[:len(good)-2],
		"proxy offer":     reply(dhcpv4.MessageTypeOffer, "0.0.0.0", fullLease...),
		"multicast":       reply(dhcpv4.MessageTypeOffer, "224.0.0.1", fullLease...),
		"no mask":         reply(dhcpv4.MessageTypeOffer, "10.0.0.7"),
		"mask with holes": reply(dhcpv4.MessageTypeOffer, "10.0.0.7", optMask, 4, 255, 0, 255, 0),
		"mask of nothing": reply(dhcpv4.MessageTypeOffer, "10.0.0.7", optMask, 4, 0, 0, 0, 0),
	} {
		if l, err := parseDHCP(packet, asked); err == nil {
			t.Errorf("%s: taken as %+v", name, l)
		}
	}
}

// The messages say what RFC 2131, table 5, wants of each; and no PXE option, and
// no client identifier, is among them.
func TestDHCPMessage(t *testing.T) {
	offer := lease{address: netip.MustParsePrefix("10.0.0.7/24"), server: netip.MustParseAddr("10.0.0.1")}
	for name, tc := range map[string]struct {
		message           *dhcpv4.DHCPv4
		ciaddr            string
		requested, server net.IP
	}{
		"discover": {asked, "0.0.0.0", nil, nil},
		"request":  {dhcpMessage(dhcpv4.MessageTypeRequest, testMAC, testXID, 3, offer, false), "0.0.0.0", net.IPv4(10, 0, 0, 7), net.IPv4(10, 0, 0, 1)},
		"renew":    {dhcpMessage(dhcpv4.MessageTypeRequest, testMAC, testXID, 3, offer, true), "10.0.0.7", nil, nil},
	} {
		b := tc.message.ToBytes()
		p, err := dhcpv4.FromBytes(b)
		if err != nil || len(b) < 300 {
			t.Fatalf("%s: %v, %d bytes", name, err, len(b))
		}
		if p.OpCode != dhcpv4.OpcodeBootRequest || !bytes.Equal(b[1:3], []byte{1, 6}) || !bytes.Equal(p.ClientHWAddr, testMAC) || p.TransactionID != testXID || !p.IsBroadcast() || p.NumSeconds != 3 {
			t.Errorf("%s: %s", name, p.Summary())
		}
		if got := p.ClientIPAddr.String(); got != tc.ciaddr {
			t.Errorf("%s: ciaddr %s", name, got)
		}
		if !p.RequestedIPAddress().Equal(tc.requested) || !p.ServerIdentifier().Equal(tc.server) {
			t.Errorf("%s: asks for %v of %v", name, p.RequestedIPAddress(), p.ServerIdentifier())
		}
		for _, code := range []uint8{60, 61, 93, 94, 97, 77} {
			if p.Options.Has(dhcpv4.GenericOptionCode(code)) {
				t.Errorf("%s: has option %d", name, code)
			}
		}
	}
}

func FuzzDHCP(f *testing.F) {
	f.Add(reply(dhcpv4.MessageTypeAck, "10.0.0.7", fullLease...))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseDHCP(b, asked)
		if err == nil && l.kind != dhcpv4.MessageTypeNak && (!l.address.IsValid() || !l.server.IsValid()) {
			t.Errorf("a lease without address: %+v", l)
		}
	})
}

// fakeNet answers the third DISCOVER, after noise.
type fakeNet struct {
	sent  int
	queue [][]byte
	drop  int
	kind  dhcpv4.MessageType
}

func (n *fakeNet) send(b []byte) error {
	n.sent++
	if n.sent > n.drop {
		n.queue = append(n.queue, []byte("noise"), b, reply(n.kind, "10.0.0.7", fullLease...))
	}
	return nil
}

func (n *fakeNet) receive() ([]byte, netip.Addr, error) {
	if len(n.queue) == 0 {
		return nil, netip.Addr{}, nil
	}
	b := n.queue[0]
	n.queue = n.queue[1:]
	return b, netip.MustParseAddr("fe80::1"), nil
}

func TestExchange(t *testing.T) {
	exchange := func(n *fakeNet, want dhcpv4.MessageType) (lease, error) {
		at := time.Unix(0, 0)
		m := &machine{now: func() time.Time { at = at.Add(200 * time.Millisecond); return at }}
		return m.exchange(context.Background(), n, asked, want, at.Add(oneAttempt))
	}
	n := &fakeNet{drop: 2, kind: dhcpv4.MessageTypeOffer}
	if l, err := exchange(n, dhcpv4.MessageTypeOffer); err != nil || l.address.String() != "10.0.0.7/24" || n.sent != 3 {
		t.Errorf("got %+v, %v after %d sent", l, err, n.sent)
	}
	for _, tc := range []struct {
		net  *fakeNet
		want dhcpv4.MessageType
		err  string
	}{
		{&fakeNet{drop: 99}, dhcpv4.MessageTypeOffer, "no DHCP server offered"},
		{&fakeNet{drop: 99}, dhcpv4.MessageTypeAck, "did not confirm"},
		{&fakeNet{kind: dhcpv4.MessageTypeNak}, dhcpv4.MessageTypeAck, "refused the address"},
	} {
		if _, err := exchange(tc.net, tc.want); err == nil || !strings.Contains(err.Error(), tc.err) {
			t.Errorf("got %v, want %q", err, tc.err)
		}
	}
}
