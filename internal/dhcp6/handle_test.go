package dhcp6

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"bootlane/internal/lane"
	"bootlane/internal/udp"
)

// memory is a store, an inventory and a judge that keep nothing.
type memory struct{}

func (*memory) Ask(context.Context, lane.Facts) (lane.Decision, error) {
	return lane.Decision{Action: lane.Install}, nil
}
func (*memory) PutLease6(context.Context, ...lane.Lease6) error   { return nil }
func (*memory) DropLease6(context.Context, netip.Addr) error      { return nil }
func (*memory) Leases6(context.Context) ([]lane.Lease6, error)    { return nil, nil }
func (*memory) Holder6(context.Context, netip.Addr) (bool, error) { return false, nil }
func (*memory) Lease(lane.Facts, string, string)                  {}
func (*memory) NoLease(lane.Facts, string, string)                {}
func (*memory) Reserved6(context.Context, lane.Facts) (netip.Addr, []lane.MAC, error) {
	return netip.Addr{}, nil, nil
}

func TestExchange(t *testing.T) {
	r := newRig(t)
	a, b := nth(1), nth(2)
	for range 3 { // repetitions get the same address
		r.expect(a, a.build(solicit, na(1)), "ADVERTISE fd77::50/1h0m0s")
	}
	r.expect(b, b.build(solicit, na(1)), "ADVERTISE fd77::51/1h0m0s")
	r.expect(a, a.build(request, na(1, "fd77::50")), "REPLY fd77::50/1h0m0s")
	r.expect(b, b.build(request, na(1, "fd77::50")), "REPLY fd77::51/1h0m0s") // it is a's by now
	r.expect(a, a.build(request, na(1, "2001:db8::5")), "REPLY NotOnLink")
	p := r.say(a.build(solicit, na(7)), a.from)
	ia := p.Options.OneIANA()
	if ia.T1 != 30*time.Minute || ia.T2 != 48*time.Minute || ia.IaId != [4]byte{0, 0, 0, 7} || p.TransactionID != [3]byte{1, 2, 3} {
		t.Errorf("%s", p.Summary())
	}
	r.restart()
	r.expect(a, a.build(solicit, na(1)), "ADVERTISE fd77::50/1h0m0s")
}

func TestRapidCommit(t *testing.T) {
	r := newRig(t)
	c := nth(1)
	p := r.say(c.build(solicit, na(1), opt(dhcpv6.OptionRapidCommit)), c.from)
	if answered(p) != "REPLY fd77::50/1h0m0s" || has(p, dhcpv6.OptionRapidCommit) == nil || has(p, dhcpv6.OptionPreference) != nil {
		t.Errorf("%s", p.Summary())
	}
	if l, err := r.store.Leases6(t.Context()); err != nil || len(l) != 1 || l[0].State != lane.LeaseActive {
		t.Errorf("stored %v, %v", l, err)
	}
	for i := range byte(3) {
		r.bind(nth(i+2), fmt.Sprintf("fd77::%x", 0x51+int(i)))
	}
	c = nth(9) // nothing to commit
	r.expect(c, c.build(solicit, na(1), opt(dhcpv6.OptionRapidCommit)), "ADVERTISE NoAddrsAvail")
	if note := r.notes[len(r.notes)-1]; !strings.Contains(note, "enlarge networks[].ipv6.range") {
		t.Errorf("note %q", note)
	}
}

// TestAssociations: several IA_NAs are several addresses, and keep them whatever their
// order; other kinds of associations are told that there is nothing.
func TestAssociations(t *testing.T) {
	r := newRig(t)
	c := nth(1)
	r.expect(c, c.build(solicit, na(1), na(2)), "ADVERTISE fd77::50/1h0m0s fd77::51/1h0m0s")
	r.expect(c, c.build(request, na(1, "fd77::50"), na(2, "fd77::51")), "REPLY fd77::50/1h0m0s fd77::51/1h0m0s")
	r.expect(c, c.build(renew, na(2, "fd77::51"), na(1, "fd77::50")), "REPLY fd77::51/1h0m0s fd77::50/1h0m0s")
	r.expect(c, c.build(renew, na(2, "fd77::51")), "REPLY fd77::51/1h0m0s")
	r.reserved[c.mac()] = netip.MustParseAddr("fd77::20")
	r.expect(c, c.build(solicit, na(1), na(2)), "ADVERTISE fd77::20/1h0m0s fd77::50/1h0m0s")
	r.expect(c, c.build(renew, na(1, "fd77::51"), na(2, "fd77::20")), "REPLY fd77::51/1h0m0s fd77::20/1h0m0s")
	var all [][]byte
	for i := range byte(20) {
		all = append(all, na(i))
	}
	other := nth(2)
	if p := r.say(other.build(solicit, all...), other.from); len(p.Options.IANA()) != maxAssociations || strings.Count(answered(p), "NoAddrsAvail") != maxAssociations-2 {
		t.Errorf("%s", answered(p))
	}
	pd := opt(dhcpv6.OptionIAPD, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0)
	ta := opt(dhcpv6.OptionIATA, 0, 0, 0, 6)
	p := r.say(c.build(solicit, pd, ta), c.from)
	if got := p.Options.IAPD(); len(got) != 1 || got[0].Options.Status().StatusCode.String() != "NoPrefixAvail" || got[0].IaId != [4]byte{0, 0, 0, 5} {
		t.Errorf("%s", p.Summary())
	}
	if got := p.Options.IATA(); len(got) != 1 || got[0].Options.Status().StatusCode.String() != "NoAddrsAvail" {
		t.Errorf("%s", p.Summary())
	}
}

func TestRenewAndRebind(t *testing.T) {
	r := newRig(t)
	c, other := nth(1), nth(2)
	r.bind(c, "fd77::50")
	r.now = r.now.Add(30 * time.Minute)
	r.expect(c, c.build(renew, na(1, "fd77::50")), "REPLY fd77::50/1h0m0s")
	if l, _ := r.scopes[0].pool.at(netip.MustParseAddr("fd77::50")); !l.Expires.Equal(r.now.Add(time.Hour)) {
		t.Errorf("it ends at %s", l.Expires)
	}
	r.expect(c, c.build(renew, na(1, "fd77::50"), na(2)), "REPLY fd77::50/1h0m0s fd77::51/1h0m0s") // RFC 8415 18.2.4: it may add one
	r.expect(other, other.build(renew, na(1, "fd77::50")), "REPLY NoBinding")
	r.expect(other, other.build(renew, na(1, "fd77::99")), "REPLY NoBinding")
	r.expect(other, other.build(renew, na(1, "fd77::52")), "REPLY fd77::52/1h0m0s") // known to nobody, and free
	r.expect(c, c.build(rebind, na(1, "fd77::50")), "REPLY fd77::50/1h0m0s")
	stranger := nth(3)
	r.expect(stranger, stranger.build(rebind, na(1, "fd77::50")), "REPLY fd77::50/0s")
	r.expect(stranger, stranger.build(rebind, na(1, "2001:db8::1")), "REPLY 2001:db8::1/0s")
	r.expect(stranger, stranger.build(rebind, na(1, "fd77::abcd")), "silence") // another server's, perhaps
	r.reserved[c.mac()] = netip.MustParseAddr("fd77::20")
	r.expect(c, c.build(renew, na(1, "fd77::50")), "REPLY fd77::20/1h0m0s+fd77::50/0s") // it is moved
}

func TestConfirm(t *testing.T) {
	r := newRig(t)
	c := nth(1)
	r.expect(c, c.build(confirm, na(1, "fd77::50"), na(2, "fd77::9")), "REPLY Success")
	r.expect(c, c.build(confirm, na(1, "fd77::50"), na(2, "fd78::9")), "REPLY NotOnLink")
	r.expect(c, c.build(confirm, na(1)), "silence")
}

func TestRelease(t *testing.T) {
	r := newRig(t)
	c, other := nth(1), nth(2)
	r.bind(c, "fd77::50")
	r.expect(other, other.build(release, na(1, "fd77::50")), "REPLY NoBinding Success")
	if l, _ := r.scopes[0].pool.at(netip.MustParseAddr("fd77::50")); l.State != lane.LeaseActive {
		t.Error("a stranger released it")
	}
	r.expect(c, c.build(release, na(1, "fd77::50"), na(2, "fd77::51")), "REPLY NoBinding Success")
	r.restart()
	if l, _ := r.scopes[0].pool.at(netip.MustParseAddr("fd77::50")); l.State != lane.LeaseReleased {
		t.Error("the release is not on record")
	}
	r.expect(other, other.build(solicit, na(1)), "ADVERTISE fd77::51/1h0m0s")
	r.expect(c, c.build(solicit, na(1)), "ADVERTISE fd77::50/1h0m0s")
}

func TestDecline(t *testing.T) {
	r := newRig(t)
	r.networks[0].Last = netip.MustParseAddr("fd77::6f") // 32
	r.restart()
	c, other := nth(1), nth(2)
	r.bind(c, "fd77::50")
	r.expect(other, other.build(decline, na(1, "fd77::50")), "REPLY NoBinding Success") // not its address
	r.expect(c, c.build(decline, na(1, "fd77::50")), "REPLY Success")
	r.expect(c, c.build(solicit, na(1)), "ADVERTISE fd77::51/1h0m0s")
	r.restart() // and after that it is set aside still
	r.expect(other, other.build(solicit, na(1, "fd77::50")), "ADVERTISE fd77::51/1h0m0s")
	r.now = r.now.Add(declineHold + time.Second)
	r.expect(other, other.build(solicit, na(1, "fd77::50")), "ADVERTISE fd77::51/1h0m0s") // its own first
	third := nth(3)
	r.expect(third, third.build(solicit, na(1, "fd77::50")), "ADVERTISE fd77::50/1h0m0s")

	spend := func(c client) (n int) {
		for range 9 {
			p := r.say(c.build(solicit, na(1)), c.from)
			if a := p.Options.OneIANA().Options.OneAddress(); a != nil && answered(r.say(c.build(decline, na(1, a.IPv6Addr.String())), c.from)) == "REPLY Success" {
				n++
			}
		}
		return n
	}
	if n := spend(nth(10)); n != maxDeclines {
		t.Errorf("one client set %d addresses aside", n)
	}
	for i := range byte(40) {
		spend(nth(20 + i))
	}
	if u := r.usage()[0]; u.Aside != 32/asideShare {
		t.Errorf("invented clients set %d of %d addresses aside", u.Aside, u.Size)
	}
}

// TestReservations: they are for their machine alone, and must be a machine's.
func TestReservations(t *testing.T) {
	r := newRig(t)
	c, other := nth(1), nth(2)
	r.reserved[c.mac()] = netip.MustParseAddr("fd77::51")
	r.bind(other, "fd77::50")
	third := nth(3)
	r.expect(third, third.build(solicit, na(1, "fd77::51")), "ADVERTISE fd77::52/1h0m0s")
	r.bind(c, "fd77::51")
	for _, a := range []string{"fd77::1", "fd77::"} {
		r.reserved[nth(4).mac()] = netip.MustParseAddr(a)
		r.expect(nth(4), nth(4).build(solicit, na(1)), "ADVERTISE NoAddrsAvail")
		if note := r.notes[len(r.notes)-1]; !strings.Contains(note, "correct network.address6") {
			t.Errorf("note %q", note)
		}
	}
	// A host has one reserved address, and often two NICs: the second to come is a stranger.
	r = newRig(t)
	r.reserved[nth(1).mac()], r.reserved[nth(2).mac()] = netip.MustParseAddr("fd77::20"), netip.MustParseAddr("fd77::20")
	r.bind(nth(1), "fd77::20")
	r.bind(nth(2), "fd77::50")
	r.now = r.now.Add(2 * time.Hour)
	r.bind(nth(2), "fd77::20")
	// Somebody still has what was reserved since.
	r.bind(nth(5), "fd77::51")
	r.reserved[nth(6).mac()] = netip.MustParseAddr("fd77::51")
	r.expect(nth(6), nth(6).build(solicit, na(1)), "ADVERTISE NoAddrsAvail")
	if note := r.notes[len(r.notes)-1]; !strings.Contains(note, "52:54:00:00:00:05 still has its reserved address fd77::51") {
		t.Errorf("note %q", note)
	}
}

// TestDurableBeforeReply: a lease that cannot be stored is not granted, nor remembered.
func TestDurableBeforeReply(t *testing.T) {
	r := newRig(t)
	c := nth(1)
	r.expect(c, c.build(solicit, na(1)), "ADVERTISE fd77::50/1h0m0s")
	r.stop()
	r.expect(c, c.build(request, na(1, "fd77::50")), "silence")
	if u := r.usage()[0]; u.Leased != 0 {
		t.Errorf("%+v", u)
	}
	r.expect(c, c.build(solicit, na(1), opt(dhcpv6.OptionRapidCommit)), "silence")
}

// TestUnicast: nobody was told that he may, RFC 8415 16 and 18.3.2.
func TestUnicast(t *testing.T) {
	r := newRig(t)
	c := nth(1)
	for kind, want := range map[dhcpv6.MessageType]string{request: "REPLY UseMulticast", renew: "REPLY UseMulticast", release: "REPLY UseMulticast", decline: "REPLY UseMulticast",
		solicit: "silence", confirm: "silence", rebind: "silence"} {
		got := "silence"
		if p, _ := r.pass(c.build(kind, na(1, "fd77::50")), c.from, true); p != nil {
			got = answered(p.(*dhcpv6.Message))
		}
		if got != want {
			t.Errorf("%s: %s, want %s", kind, got, want)
		}
	}
	elsewhere := client{duid: c.duid, from: c.from, more: opt(dhcpv6.OptionServerID, 0, 3, 0, 1, 1, 2, 3, 4, 5, 6)}
	b := elsewhere.build(solicit, na(1, "fd77::50"))
	b[0] = byte(request)
	r.expect(c, b, "silence") // another server's
}

// TestRelays: which network a relayed client is in, and the way back.
func TestRelays(t *testing.T) {
	r := newRig(t)
	n := network()
	n.Subnet = lane.Subnet{Prefix: netip.MustParsePrefix("fd88::/64"), Server: netip.MustParseAddr("fd77::1"), Relays: addrs("fd99::9")}
	n.First, n.Last = netip.MustParseAddr("fd88::100"), netip.MustParseAddr("fd88::103")
	r.networks = append(r.networks, n)
	r.restart()
	c := nth(1)
	ask := c.build(solicit, na(1))
	inner := func(p dhcpv6.DHCPv6) string {
		if p == nil {
			return "silence"
		}
		m, err := p.GetInnerMessage()
		if err != nil {
			t.Fatal(err)
		}
		return answered(m)
	}
	// A switch puts its port on it (RFC 6221), and leaves the network to the router behind it.
	b := forward(1, "fd88::1", "fd88::7", forward(0, "::", c.from, ask, opt(dhcpv6.OptionInterfaceID, 0, 7)), opt(dhcpv6.OptionInterfaceID, 'u', 'p'))
	p, to := r.pass(b, "fd99::9", true)
	if got := inner(p); got != "ADVERTISE fd88::100/1h0m0s" || to.String() != "[fd99::9]:547" {
		t.Fatalf("%s to %s", got, to)
	}
	outer := p.(*dhcpv6.RelayMessage)
	within, ok := outer.Options.RelayMessage().(*dhcpv6.RelayMessage)
	if !ok || outer.HopCount != 1 || string(outer.Options.InterfaceID()) != "up" || within.HopCount != 0 || string(within.Options.InterfaceID()) != "\x00\x07" || within.PeerAddr.String() != c.from {
		t.Errorf("%s", outer.Summary())
	}
	// Only a switch, on the network that is attached.
	if p, _ := r.pass(forward(0, "::", c.from, ask), "fe80::77", false); inner(p) != "ADVERTISE fd77::50/1h0m0s" {
		t.Errorf("%s", inner(p))
	}
	// An agent that nobody named, and one that speaks for a network that is not its own.
	for link, want := range map[string]string{"fd88::1": "is in no network: add one of the two to networks[].ipv6.relays", "fd77::1": "is in no network"} {
		if p, _ := r.pass(forward(0, link, c.from, ask), "fd99::8", true); p != nil || !strings.Contains(r.notes[len(r.notes)-1], want) {
			t.Errorf("%s: %v, %v", link, p, r.notes)
		}
	}
	if p, _ := r.pass(forward(0, "fdaa::1", c.from, ask), "fd99::9", true); p != nil || !strings.Contains(r.notes[len(r.notes)-1], "speaks for fdaa::1, and no network that names this agent holds that") {
		t.Errorf("%v, %v", p, r.notes)
	}
	// RFC 8357: an agent that listens on another port.
	p, to = r.pass(forward(0, "fd88::1", c.from, ask, opt(dhcpv6.OptionRelayPort, 0, 0)), "fd99::9", true)
	if to.Port() != clientPort || p.(*dhcpv6.RelayMessage).GetOneOption(dhcpv6.OptionRelayPort) == nil {
		t.Errorf("to %s: %v", to, p)
	}
	// A release by way of the agent is the client's own.
	r.pass(forward(0, "fd88::1", c.from, c.build(request, na(1, "fd88::100"))), "fd99::9", true)
	if p, _ := r.pass(forward(0, "fd88::1", c.from, c.build(release, na(1, "fd88::100"))), "fd99::9", true); inner(p) != "REPLY Success" {
		t.Errorf("%s", inner(p))
	}
	// An interface that only agents may speak by.
	r.networks = r.networks[1:]
	r.restart()
	r.expect(c, ask, "silence")
}

// TestOperatorsRelease: an operator takes an address back, or ends its being set aside.
func TestOperatorsRelease(t *testing.T) {
	r := newRig(t)
	c := nth(1)
	a := netip.MustParseAddr("fd77::50")
	if _, err := r.Release(t.Context(), a); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("%v", err)
	}
	if _, err := r.Release(t.Context(), netip.MustParseAddr("fd01::1")); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("%v", err)
	}
	r.bind(c, "fd77::50")
	if l, err := r.Release(t.Context(), a); err != nil || l.Client != lane.Client(c.mac()) || r.usage()[0].Leased != 0 {
		t.Errorf("%+v, %v", l, err)
	}
	r.expect(c, c.build(decline, na(1, "fd77::50")), "REPLY Success")
	if _, err := r.Release(t.Context(), a); err != nil || r.usage()[0].Aside != 0 {
		t.Errorf("%v, %+v", err, r.usage()[0])
	}
	r.restart()
	if r.usage()[0].Aside != 0 {
		t.Error("after a restart it is set aside again")
	}
}

// TestPanicCostsOnePacket plays a server whose judge panics.
func TestPanicCostsOnePacket(t *testing.T) {
	r := newRig(t)
	r.cfg.Asker = nil
	p, d := &port{iface: "test"}, udp.Datagram{Data: capture(t, "dhcp6-pxe-solicit"), From: netip.MustParseAddrPort("[" + firmware + "]:546")}
	d.At.Broadcast = true
	r.serve(t.Context(), p, d)
	if s := r.State().Counters; s.Failed != 1 {
		t.Errorf("%+v", s)
	}
}
