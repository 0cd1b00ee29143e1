package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var testMAC = [6]byte{0x52, 0x54, 0, 0x12, 0x34, 0x56}

const testXID = 0xcafe1234

// reply builds a server's answer to our transaction.
func reply(kind byte, yiaddr string, opts ...byte) []byte {
	b := make([]byte, dhcpFixed)
	b[0], b[1], b[2] = 2, 1, 6
	binary.BigEndian.PutUint32(b[4:], testXID)
	addr := netip.MustParseAddr(yiaddr).As4()
	copy(b[16:], addr[:])
	copy(b[28:], testMAC[:])
	binary.BigEndian.PutUint32(b[236:], dhcpMagic)
	b = append(b, optType, 1, kind, optServer, 4, 10, 0, 0, 1)
	return append(append(b, opts...), optEnd)
}

var fullLease = []byte{optMask, 4, 255, 255, 255, 0, optRouter, 8, 10, 0, 0, 254, 10, 0, 0, 253, 0, 0, optDNS, 4, 9, 9, 9, 9,
	optMTU, 2, 5, 0, optLease, 4, 0, 0, 14, 16}

func TestParseDHCP(t *testing.T) {
	addr := netip.MustParseAddr
	base := lease{kind: dhcpAck, address: netip.MustParsePrefix("10.0.0.7/24"), server: addr("10.0.0.1"), dns: []netip.Addr{addr("9.9.9.9")},
		mtu: 1280, length: time.Hour, routes: []route{{netip.MustParsePrefix("0.0.0.0/0"), addr("10.0.0.254")}}}
	classless := base
	classless.routes = []route{{netip.MustParsePrefix("10.1.0.0/16"), addr("10.0.0.9")}, {netip.MustParsePrefix("10.2.3.0/24"), netip.Addr{}}, {netip.MustParsePrefix("0.0.0.0/0"), addr("10.0.0.8")}}
	overloaded := reply(dhcpAck, "10.0.0.7", optOverload, 1, 3)
	copy(overloaded[108:], append(bytes.Clone(fullLease[:16]), optEnd))
	copy(overloaded[44:], append(bytes.Clone(fullLease[16:]), optEnd))
	for name, tc := range map[string]struct {
		packet []byte
		want   lease
	}{
		"ack":        {reply(dhcpAck, "10.0.0.7", fullLease...), base},
		"overloaded": {overloaded, base},
		"classless": {reply(dhcpAck, "10.0.0.7", append(bytes.Clone(fullLease),
			optRoutes, 8, 16, 10, 1, 10, 0, 0, 9, 24, optRoutes, 12, 10, 2, 3, 0, 0, 0, 0, 0, 10, 0, 0, 8)...), classless},
		"broken classless": {reply(dhcpAck, "10.0.0.7", append(bytes.Clone(fullLease), optRoutes, 2, 33, 1)...), base},
		"nak":              {reply(dhcpNak, "0.0.0.0"), lease{kind: dhcpNak, server: addr("10.0.0.1")}},
	} {
		got, err := parseDHCP(tc.packet, testMAC, testXID)
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
	good := reply(dhcpOffer, "10.0.0.7", fullLease...)
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
		"proxy offer":     reply(dhcpOffer, "0.0.0.0", fullLease...),
		"multicast":       reply(dhcpOffer, "224.0.0.1", fullLease...),
		"no mask":         reply(dhcpOffer, "10.0.0.7"),
		"mask with holes": reply(dhcpOffer, "10.0.0.7", optMask, 4, 255, 0, 255, 0),
		"mask of nothing": reply(dhcpOffer, "10.0.0.7", optMask, 4, 0, 0, 0, 0),
	} {
		if l, err := parseDHCP(packet, testMAC, testXID); err == nil {
			t.Errorf("%s: taken as %+v", name, l)
		}
	}
}

// The messages say what RFC 2131, table 5, wants of each; and no PXE option, and
// no client identifier, is among them.
func TestDHCPMessage(t *testing.T) {
	offer := lease{address: netip.MustParsePrefix("10.0.0.7/24"), server: netip.MustParseAddr("10.0.0.1")}
	for name, tc := range map[string]struct {
		message   []byte
		ciaddr    string
		requested []byte
		server    []byte
	}{
		"discover": {dhcpMessage(dhcpDiscover, testMAC, testXID, 3, lease{}, false), "0.0.0.0", nil, nil},
		"request":  {dhcpMessage(dhcpRequest, testMAC, testXID, 3, offer, false), "0.0.0.0", []byte{10, 0, 0, 7}, []byte{10, 0, 0, 1}},
		"renew":    {dhcpMessage(dhcpRequest, testMAC, testXID, 3, offer, true), "10.0.0.7", nil, nil},
	} {
		b := tc.message
		opts, err := dhcpOptions(b)
		if err != nil || len(b) < 300 {
			t.Errorf("%s: %v, %d bytes", name, err, len(b))
		}
		if got := netip.AddrFrom4([4]byte(b[12:16])).String(); got != tc.ciaddr {
			t.Errorf("%s: ciaddr %s", name, got)
		}
		if !bytes.Equal(opts[optAddress], tc.requested) || !bytes.Equal(opts[optServer], tc.server) {
			t.Errorf("%s: asks for %v of %v", name, opts[optAddress], opts[optServer])
		}
		for _, code := range []byte{60, 61, 93, 94, 97, 77} {
			if _, ok := opts[code]; ok {
				t.Errorf("%s: has option %d", name, code)
			}
		}
	}
}

func TestDHCPFrame(t *testing.T) {
	for _, payload := range [][]byte{[]byte("even"), []byte("odd"), dhcpMessage(dhcpDiscover, testMAC, testXID, 0, lease{}, false)} {
		b := dhcpFrame(payload, netip.MustParseAddr("10.0.0.7"))
		if checksum(b[:20], 0) != 0xffff {
			t.Error("the IP checksum is wrong")
		}
		if pseudo := checksum(b[12:20], 17+uint32(len(b)-20)); checksum(b[20:], uint32(pseudo)) != 0xffff {
			t.Error("the UDP checksum is wrong")
		}
		if _, ok := dhcpPayload(b); ok {
			t.Error("our own message was taken for a server's")
		}
		b[21], b[23] = 67, 68
		if got, ok := dhcpPayload(append(b, "Ethernet padding"...)); !ok || !bytes.Equal(got, payload) {
			t.Errorf("unwrapped %q %v", got, ok)
		}
	}
}

func FuzzDHCP(f *testing.F) {
	b := dhcpFrame(reply(dhcpAck, "10.0.0.7", fullLease...), netip.Addr{})
	b[21], b[23] = 67, 68
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if payload, ok := dhcpPayload(b); ok {
			b = payload
		}
		l, err := parseDHCP(b, testMAC, testXID)
		if err == nil && l.kind != dhcpNak && (!l.address.IsValid() || !l.server.IsValid()) {
			t.Errorf("a lease without address: %+v", l)
		}
	})
}

// fakeNet answers the third DISCOVER, after noise.
type fakeNet struct {
	sent  int
	queue [][]byte
	drop  int
	kind  byte
}

func (n *fakeNet) send(b []byte) error {
	n.sent++
	if n.sent > n.drop {
		answer := dhcpFrame(reply(n.kind, "10.0.0.7", fullLease...), netip.Addr{})
		answer[21], answer[23] = 67, 68
		n.queue = append(n.queue, []byte("noise"), b, answer)
	}
	return nil
}

func (n *fakeNet) receive() ([]byte, error) {
	if len(n.queue) == 0 {
		return nil, nil
	}
	b := n.queue[0]
	n.queue = n.queue[1:]
	return b, nil
}

func TestExchange(t *testing.T) {
	exchange := func(n *fakeNet, want byte) (lease, error) {
		at := time.Unix(0, 0)
		m := &machine{now: func() time.Time { at = at.Add(200 * time.Millisecond); return at }}
		return m.exchange(context.Background(), n, nil, netip.Addr{}, want, testMAC, testXID, at.Add(oneAttempt))
	}
	n := &fakeNet{drop: 2, kind: dhcpOffer}
	if l, err := exchange(n, dhcpOffer); err != nil || l.address.String() != "10.0.0.7/24" || n.sent != 3 {
		t.Errorf("got %+v, %v after %d sent", l, err, n.sent)
	}
	for _, tc := range []struct {
		net  *fakeNet
		want byte
		err  string
	}{
		{&fakeNet{drop: 99}, dhcpOffer, "no DHCP server offered"},
		{&fakeNet{drop: 99}, dhcpAck, "did not confirm"},
		{&fakeNet{kind: dhcpNak}, dhcpAck, "refused the address"},
	} {
		if _, err := exchange(tc.net, tc.want); err == nil || !strings.Contains(err.Error(), tc.err) {
			t.Errorf("got %v, want %q", err, tc.err)
		}
	}
}
