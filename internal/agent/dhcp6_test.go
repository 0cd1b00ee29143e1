package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
)

// The options of a reply, by RFC 8415 21, 3646 and 3315.
const (
	opt6Client = 1
	opt6Server = 2
	opt6IANA   = 3
	opt6Addr   = 5
	opt6ORO    = 6
	opt6Time   = 8
	opt6Status = 13
	opt6Rapid  = 14
	opt6DNS    = 23
)

var (
	testXID6   = dhcpv6.TransactionID{0xca, 0xfe, 0x12}
	soliciting = message6(dhcpv6.MessageTypeSolicit, testMAC, testXID6, lease6{})
	requesting = message6(dhcpv6.MessageTypeRequest, testMAC, testXID6, lease6{server: &dhcpv6.DUIDOpaque{Type: 2, Data: []byte{1}}, address: netip.MustParseAddr("fd77::7")})
	ourDUID    = append([]byte{0, 3, 0, 1}, testMAC...)
)

func option6(code uint16, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	return append(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, code), uint16(len(body))), body...)
}

func seconds6(list ...uint32) (b []byte) {
	for _, n := range list {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b
}

func addr6(a string, preferred, valid uint32, more ...[]byte) []byte {
	return option6(opt6Addr, netip.MustParseAddr(a).AsSlice(), seconds6(preferred, valid), slices.Concat(more...))
}

func status6(code byte, text string) []byte {
	return option6(opt6Status, []byte{0, code}, []byte(text))
}

// ia6 is our association.
func ia6(t1, t2 uint32, parts ...[]byte) []byte {
	return option6(opt6IANA, testMAC[2:], seconds6(t1, t2), slices.Concat(parts...))
}

// reply6 builds a server's answer to our transaction, byte by byte.
func reply6(kind dhcpv6.MessageType, opts ...[]byte) []byte {
	head := append([]byte{byte(kind)}, testXID6[:]...)
	return slices.Concat(head, option6(opt6Client, ourDUID), option6(opt6Server, []byte{0, 2, 0, 0, 0, 9, 7}), slices.Concat(opts...))
}

var rapid6, dns6 = option6(opt6Rapid), option6(opt6DNS, netip.MustParseAddr("fd77::35").AsSlice())

func TestParseDHCP6(t *testing.T) {
	const advertise, replying = dhcpv6.MessageTypeAdvertise, dhcpv6.MessageTypeReply
	for name, tc := range map[string]struct {
		ask    *dhcpv6.Message
		packet []byte
		want   string // address, T1, T2, lifetimes, name servers; or what was refused
	}{
		"offer":         {soliciting, reply6(advertise, ia6(600, 900, addr6("fd77::7", 1200, 1800)), dns6), "fd77::7 10m0s 15m0s 20m0s 30m0s fd77::35"},
		"rapid":         {soliciting, reply6(replying, rapid6, ia6(600, 900, addr6("fd77::7", 1200, 1800))), "fd77::7 10m0s 15m0s 20m0s 30m0s"},
		"reply":         {requesting, reply6(replying, status6(0, "fine"), ia6(600, 900, addr6("fd77::7", 1200, 1800), status6(0, ""))), "fd77::7 10m0s 15m0s 20m0s 30m0s"},
		"our own times": {requesting, reply6(replying, ia6(0, 0, addr6("fd77::7", 1000, 2000))), "fd77::7 8m20s 13m20s 16m40s 33m20s"},
		// T1 behind the end of the lease: too late.
		"times too late": {requesting, reply6(replying, ia6(7000, 8000, addr6("fd77::7", 100, 100))), "fd77::7 50s 1m20s 1m40s 1m40s"},
		"for ever":       {requesting, reply6(replying, ia6(1<<32-1, 1<<32-1, addr6("fd77::7", 1<<32-1, 1<<32-1))), "fd77::7 596523h14m7.5s 954437h10m36s 1193046h28m15s 1193046h28m15s"},
		"deprecated":     {requesting, reply6(replying, ia6(0, 0, addr6("fd77::7", 0, 100))), "fd77::7 0s 0s 0s 1m40s"},
		"the good one":   {requesting, reply6(replying, ia6(10, 20, addr6("fe80::1", 90, 90), addr6("fd77::7", 99, 98), addr6("ff05::1", 90, 90), addr6("::ffff:10.0.0.1", 90, 90), addr6("fd77::8", 90, 90, status6(4, "")), addr6("fd77::9", 90, 100))), "fd77::9 10s 20s 1m30s 1m40s"},
		"replaced":       {requesting, reply6(replying, ia6(10, 20, addr6("fd77::7", 0, 0), addr6("fd77::8", 90, 100))), "fd77::8 10s 20s 1m30s 1m40s gone"},
		"taken back":     {requesting, reply6(replying, ia6(0, 0, addr6("fd77::7", 0, 0))), "refused: it names no address that can be used gone"},
		"full":           {soliciting, reply6(advertise, ia6(0, 0, status6(2, "no address is free"))), "refused: NoAddrsAvail: no address is free"},
		"full, for all":  {soliciting, reply6(advertise, status6(2, "full\x1b[2J")), "refused: NoAddrsAvail: full"},
		"unknown":        {requesting, reply6(replying, ia6(0, 0, status6(3, ""))), "refused: NoBinding: "},
		"another's IA":   {requesting, reply6(replying, option6(opt6IANA, []byte{9, 9, 9, 9}, seconds6(0, 0), addr6("fd77::7", 90, 90))), "refused: it names no address that can be used"},
		"T1 after T2":    {requesting, reply6(replying, ia6(20, 10, addr6("fd77::7", 90, 90))), "refused: it names no address that can be used"},
		"nothing":        {requesting, reply6(replying), "refused: it names no address that can be used"},
	} {
		l, err := parse6(tc.packet, tc.ask)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		if l.refused == "" {
			got = append(got, l.address.String(), l.renew.String(), l.rebind.String(), l.preferred.String(), l.valid.String())
		} else {
			got = append(got, "refused: "+l.refused)
		}
		for _, a := range l.dns {
			got = append(got, a.String())
		}
		if l.gone {
			got = append(got, "gone")
		}
		if s := strings.Join(got, " "); !strings.HasPrefix(s, tc.want) || l.refused == "" && s != tc.want {
			t.Errorf("%s: %s, want %s", name, s, tc.want)
		}
	}
}

func TestParseDHCP6Refuses(t *testing.T) {
	good := reply6(dhcpv6.MessageTypeReply, ia6(600, 900, addr6("fd77::7", 1200, 1800)))
	change := func(at int) []byte {
		b := slices.Clone(good)
		b[at]++
		return b
	}
	if l, err := parse6(good, requesting); err != nil || l.refused != "" {
		t.Fatalf("%+v, %v", l, err)
	}
	for name, tc := range map[string]struct {
		ask    *dhcpv6.Message
		packet []byte
	}{
		"short":             {requesting, good[:3]},
		"transaction":       {requesting, change(3)},
		"somebody else":     {requesting, change(17)},
		"cut option":        {requesting, good[:len(good)-1]},
		"relay":             {requesting, append([]byte{13}, good[1:]...)},
		"our own question":  {requesting, requesting.ToBytes()},
		"advertised late":   {requesting, reply6(dhcpv6.MessageTypeAdvertise, ia6(0, 0, addr6("fd77::7", 9, 9)))},
		"rapid, unasked":    {soliciting, good},
		"reconfigure":       {requesting, reply6(dhcpv6.MessageTypeReconfigure)},
		"no server":         {requesting, slices.Concat(good[:4], option6(opt6Client, ourDUID), ia6(0, 0, addr6("fd77::7", 9, 9)))},
		"for nobody at all": {requesting, slices.Concat(good[:4], option6(opt6Server, []byte{0, 2, 0, 0, 0, 9, 7}), ia6(0, 0, addr6("fd77::7", 9, 9)))},
	} {
		if l, err := parse6(tc.packet, tc.ask); err == nil {
			t.Errorf("%s: taken as %+v", name, l)
		}
	}
}

// The messages say what RFC 8415, 18.2, wants of each.
func TestDHCP6Message(t *testing.T) {
	of, err := parse6(reply6(dhcpv6.MessageTypeReply, ia6(600, 900, addr6("fd77::7", 1200, 1800))), requesting)
	if err != nil {
		t.Fatal(err)
	}
	client, server, wishes := option6(opt6Client, ourDUID), option6(opt6Server, []byte{0, 2, 0, 0, 0, 9, 7}), option6(opt6ORO, []byte{0, opt6DNS})
	bare, named := ia6(0, 0), ia6(0, 0, addr6("fd77::7", 0, 0))
	for kind, tc := range map[dhcpv6.MessageType]struct {
		of   lease6
		opts [][]byte
	}{
		dhcpv6.MessageTypeSolicit: {lease6{}, [][]byte{client, rapid6, bare, wishes}},
		dhcpv6.MessageTypeRequest: {of, [][]byte{client, server, named, wishes}},
		dhcpv6.MessageTypeRenew:   {of, [][]byte{client, server, named, wishes}},
		dhcpv6.MessageTypeRebind:  {of, [][]byte{client, named, wishes}},
		dhcpv6.MessageTypeDecline: {of, [][]byte{client, server, named}},
	} {
		m := message6(kind, testMAC, testXID6, tc.of)
		elapsed(m, time.Second)
		elapsed(m, 1230*time.Millisecond)
		want := append([]byte{byte(kind)}, testXID6[:]...)
		want = slices.Concat(want, slices.Concat(tc.opts...), option6(opt6Time, []byte{0, 123}))
		if got := m.ToBytes(); !slices.Equal(got, want) {
			t.Errorf("%s:\n got %x\nwant %x", kind, got, want)
		}
	}
	m := message6(dhcpv6.MessageTypeRebind, testMAC, testXID6, of)
	elapsed(m, time.Hour)
	if b := m.ToBytes(); !slices.Equal(b[len(b)-2:], []byte{0xff, 0xff}) {
		t.Errorf("after an hour: %x", b)
	}
}

func FuzzDHCP6(f *testing.F) {
	for _, b := range [][]byte{
		reply6(dhcpv6.MessageTypeReply, rapid6, ia6(600, 900, addr6("fd77::7", 1200, 1800)), dns6),
		reply6(dhcpv6.MessageTypeReply, ia6(0, 0, addr6("fd77::7", 0, 0), addr6("fd77::8", 90, 1<<32-1, status6(0, "")))),
		reply6(dhcpv6.MessageTypeAdvertise, ia6(0, 0, status6(2, "none"))),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, ask := range []*dhcpv6.Message{soliciting, requesting} {
			l, err := parse6(b, ask)
			if err != nil {
				continue
			}
			bad := !l.address.IsGlobalUnicast() || l.valid <= 0 || l.preferred > l.valid || l.renew < 0 || l.renew > l.rebind || l.rebind >= l.valid
			if l.server == nil || l.refused == "" && bad || l.refused != "" && l.address.IsValid() {
				t.Errorf("a lease that cannot be: %+v", l)
			}
			if l.refused == "" && len(message6(dhcpv6.MessageTypeRenew, testMAC, testXID6, l).ToBytes()) < 40 {
				t.Error("a renewal of nothing")
			}
		}
	})
}

// fakeNet6 answers, after some messages got lost, each in its turn.
type fakeNet6 struct {
	at      *time.Time
	sent    []time.Duration
	drop    int
	answers [][]byte
	queue   [][]byte
}

func (n *fakeNet6) send(b []byte) error {
	n.sent = append(n.sent, n.at.Sub(time.Unix(0, 0)).Round(time.Second))
	if len(n.sent) > n.drop {
		n.queue = append(append(n.queue, []byte("noise"), b), n.answers...)
	}
	if len(n.sent) == 1 {
		return errors.New("the link is down for a moment")
	}
	return nil
}

func (n *fakeNet6) receive() ([]byte, netip.Addr, error) {
	if len(n.queue) == 0 {
		*n.at = n.at.Add(100 * time.Millisecond)
		return nil, netip.Addr{}, nil
	}
	b := n.queue[0]
	n.queue = n.queue[1:]
	return b, netip.MustParseAddr("fe80::1"), nil
}

func TestExchange6(t *testing.T) {
	good := reply6(dhcpv6.MessageTypeAdvertise, ia6(600, 900, addr6("fd77::7", 1200, 1800)))
	full := reply6(dhcpv6.MessageTypeAdvertise, ia6(0, 0, status6(2, "no address is free")))
	for name, tc := range map[string]struct {
		ask     *dhcpv6.Message
		drop    int
		answers [][]byte
		sent    []time.Duration // the pauses double, and stop at four seconds
		err     string
	}{
		"third try":      {soliciting, 2, [][]byte{good}, []time.Duration{0, 1e9, 3e9}, ""},
		"silence":        {soliciting, 99, nil, []time.Duration{0, 1e9, 3e9, 7e9, 11e9}, "no DHCPv6 server answered"},
		"another's":      {soliciting, 0, [][]byte{full, good}, []time.Duration{0}, ""},
		"full":           {soliciting, 0, [][]byte{full}, []time.Duration{0, 1e9, 3e9, 7e9, 11e9}, "the DHCPv6 server fe80::1 gives no address: refused: NoAddrsAvail: no address is free"},
		"refused for us": {requesting, 0, [][]byte{reply6(dhcpv6.MessageTypeReply, status6(4, "not here"))}, []time.Duration{0}, "NotOnLink: not here"},
	} {
		at := time.Unix(0, 0)
		n := &fakeNet6{at: &at, drop: tc.drop, answers: tc.answers}
		m := &machine{now: func() time.Time { return at }}
		l, err := m.exchange6(context.Background(), n, tc.ask, time.Second, 4*time.Second, oneAttempt)
		if tc.err == "" && (err != nil || l.address.String() != "fd77::7" || l.from.String() != "fe80::1") || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
		if !slices.Equal(n.sent, tc.sent) {
			t.Errorf("%s: sent at %v", name, n.sent)
		}
	}
}

// A lease is renewed by its server, and when that is silent until T2, by any.
func TestExtend6(t *testing.T) {
	held, err := parse6(reply6(dhcpv6.MessageTypeReply, ia6(600, 900, addr6("fd77::7", 1200, 1800))), requesting)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		rebinding bool
		answer    []byte
		after     time.Duration
		err       string
	}{
		"renewed":         {false, ia6(60, 90, addr6("fd77::7", 120, 180)), 600 * time.Second, ""},
		"forgotten":       {false, ia6(0, 0, status6(3, "who?")), 600 * time.Second, "NoBinding: who?"},
		"rebound":         {true, ia6(60, 90, addr6("fd77::7", 120, 180)), 900 * time.Second, ""},
		"silence, to end": {true, nil, 1800 * time.Second, "no DHCPv6 server answered"},
	} {
		granted := time.Unix(0, 0)
		at := granted.Add(held.renew)
		n := &answerer{at: &at, kind: dhcpv6.MessageTypeRenew, answer: tc.answer}
		if tc.rebinding {
			n.kind = dhcpv6.MessageTypeRebind
		}
		c := &client6{connection: newConnection(&machine{now: func() time.Time { return at }}, "fd77::1", "", nil), mac: testMAC, wire: n}
		l, err := c.extend(context.Background(), held, granted)
		if tc.err == "" && (err != nil || l.valid != 3*time.Minute) || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
		if after := at.Sub(granted); after < tc.after || after > tc.after+time.Second {
			t.Errorf("%s: after %s", name, after)
		}
	}
}

// answerer answers one kind of message.
type answerer struct {
	at     *time.Time
	kind   dhcpv6.MessageType
	answer []byte
	queue  []byte
}

func (n *answerer) send(b []byte) error {
	if dhcpv6.MessageType(b[0]) == n.kind && n.answer != nil {
		n.queue = reply6(dhcpv6.MessageTypeReply, n.answer)
		copy(n.queue[1:4], b[1:4])
	}
	return nil
}

func (n *answerer) receive() ([]byte, netip.Addr, error) {
	b := n.queue
	if n.queue = nil; b == nil {
		*n.at = n.at.Add(200 * time.Millisecond)
	}
	return b, netip.MustParseAddr("fe80::1"), nil
}
