package dhcp6

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv6"

	"bootlane/internal/lane"
)

var update = flag.Bool("update", false, "rewrite golden files")

// has returns an option's bytes; nil without one.
func has(p *dhcpv6.Message, code dhcpv6.OptionCode) []byte {
	o := p.GetOneOption(code)
	if o == nil {
		return nil
	}
	return append([]byte{}, o.ToBytes()...)
}

const (
	pxeURL  = "tftp://[fd77::1]/boot/52-54-00-12-34-56/x86_64-uefi/snponly.efi"
	httpURL = "http://[fd77::1]:8080/boot/52-54-00-12-34-56/x86_64-uefi/snponly.efi"
)

// class16 is option 16 as UEFI HTTP Boot must see it.
func class16() []byte { return append([]byte{0, 0, 1, 0x57, 0, 10}, "HTTPClient"...) }

// asIPXE makes a client that speaks as iPXE does, with its options and its order of bytes.
func asIPXE(uuid string) client {
	raw, err := hex.DecodeString(strings.ReplaceAll(uuid, "-", ""))
	if err != nil {
		panic(err)
	}
	var w writer
	w.add(dhcpv6.OptionORO, []byte{0, 23, 0, 24, 0, 59, 0, 60})
	w.add(dhcpv6.OptionUserClass, []byte{0, 4}, []byte("iPXE"))
	w.add(dhcpv6.OptionVendorClass, be32(343), be16(32), []byte("PXEClient:Arch:00007:UNDI:003010"))
	w.add(dhcpv6.OptionClientArchType, []byte{0, 7})
	return client{duid: append([]byte{0, 4}, raw...), from: firmware, more: w}
}

const printedUUID = "00112233-4455-6677-8899-aabbccddeeff"

// TestConformance has the cases of DHCPv6 network boot, with the packets that OVMF sent.
func TestConformance(t *testing.T) {
	t.Run("V6-01 OVMF's PXE SOLICIT", func(t *testing.T) {
		r := newRig(t)
		p := r.say(capture(t, "dhcp6-pxe-solicit"), firmware)
		if got := answered(p); got != "ADVERTISE fd77::50/1h0m0s" || p.Options.BootFileURL() != pxeURL {
			t.Fatalf("%s, %q", got, p.Options.BootFileURL())
		}
		if has(p, dhcpv6.OptionVendorClass) != nil || has(p, dhcpv6.OptionBootfileParam) != nil || has(p, dhcpv6.OptionUnicast) != nil {
			t.Errorf("it holds what breaks EDK2: %s", p.Summary())
		}
		if !bytes.Equal(has(p, dhcpv6.OptionPreference), []byte{255}) || !bytes.Equal(has(p, dhcpv6.OptionServerID), serverDUID()) {
			t.Errorf("%s", p.Summary())
		}
		f := r.asked[0]
		if f.UUID != printedUUID || f.MAC != firmwareMAC || f.Speaker != lane.SpeakerROM || f.HTTPBoot || f.From != firmware || f.Server != "http://[fd77::1]:8080" {
			t.Errorf("asked: %+v", f)
		}
	})
	t.Run("V6-02 and its REQUEST", func(t *testing.T) {
		r := newRig(t)
		r.say(capture(t, "dhcp6-pxe-solicit"), firmware)
		p := r.say(capture(t, "dhcp6-pxe-request"), firmware)
		if got := answered(p); got != "REPLY fd77::50/1h0m0s" || p.Options.BootFileURL() != pxeURL || has(p, dhcpv6.OptionVendorClass) != nil {
			t.Errorf("%s, %s", got, p.Summary())
		}
	})
	t.Run("V6-03 OVMF's HTTP Boot", func(t *testing.T) {
		r := newRig(t)
		for name, kind := range map[string]string{"dhcp6-http-solicit": "ADVERTISE", "dhcp6-http-request": "REPLY"} {
			p := r.say(capture(t, name), firmware)
			if got := answered(p); got != kind+" fd77::50/1h0m0s" || p.Options.BootFileURL() != httpURL || !bytes.Equal(has(p, dhcpv6.OptionVendorClass), class16()) {
				t.Errorf("%s: %s, %s", name, got, p.Summary())
			}
		}
		if !r.asked[0].HTTPBoot {
			t.Errorf("asked: %+v", r.asked[0])
		}
		r.networks[0].HTTPBootTLS = true
		r.restart()
		if p := r.say(capture(t, "dhcp6-http-solicit"), firmware); !strings.HasPrefix(p.Options.BootFileURL(), "https://[fd77::1]:8443/boot/") {
			t.Errorf("with TLS: %s", p.Summary())
		}
	})
	t.Run("V6-04 OVMF releases, and its address stays its own", func(t *testing.T) {
		r := newRig(t)
		r.say(capture(t, "dhcp6-pxe-solicit"), firmware)
		r.say(capture(t, "dhcp6-pxe-request"), firmware)
		p := r.say(capture(t, "dhcp6-pxe-release"), firmware)
		if got := answered(p); got != "REPLY Success" {
			t.Errorf("%s", got)
		}
		if l, ok := r.scopes[0].pool.at(netip.MustParseAddr("fd77::50")); !ok || l.State != lane.LeaseReleased || l.Client != lane.Client(firmwareMAC) {
			t.Errorf("%+v", l)
		}
		r.restart()
		for i := range byte(3) { // others come in between
			r.bind(nth(i+1), fmt.Sprintf("fd77::%x", 0x51+int(i)))
		}
		if got := answered(r.say(asIPXE(printedUUID).build(solicit, na(9)), firmware)); got != "ADVERTISE fd77::50/1h0m0s" {
			t.Errorf("%s", got)
		}
	})
	t.Run("V6-05 one machine, two DUIDs", func(t *testing.T) {
		r := newRig(t)
		r.say(capture(t, "dhcp6-pxe-solicit"), firmware)
		r.say(capture(t, "dhcp6-pxe-request"), firmware)
		p := r.say(asIPXE(printedUUID).build(solicit, na(9)), firmware)
		if got := answered(p); got != "ADVERTISE fd77::50/1h0m0s" {
			t.Errorf("%s", got)
		}
		if a, b := r.asked[0], r.asked[2]; a.UUID != b.UUID || a.MAC != b.MAC || b.Speaker != lane.SpeakerLoader {
			t.Errorf("%+v and %+v", a, b)
		}
		// Behind an address that no MAC stands in, the UUID is the same in either order.
		hidden := "fe80::1234:5678:9abc:def0"
		r = newRig(t)
		r.byUUID[printedUUID] = netip.MustParseAddr("fd77::20")
		for _, b := range [][]byte{capture(t, "dhcp6-pxe-solicit"), asIPXE(printedUUID).build(solicit, na(9))} {
			if got := answered(r.say(b, hidden)); got != "ADVERTISE fd77::20/1h0m0s" {
				t.Errorf("%s", got)
			}
		}
		if len(r.scopes[0].pool.holdings) != 1 {
			t.Errorf("it is taken for %d clients", len(r.scopes[0].pool.holdings))
		}
	})
	t.Run("V6-06 one machine, two IAIDs", func(t *testing.T) {
		r := newRig(t)
		for _, reserved := range []string{"", "fd77::20"} {
			want := "fd77::50"
			if reserved != "" {
				r.reserved[firmwareMAC], want = netip.MustParseAddr(reserved), reserved
			}
			for _, name := range []string{"dhcp6-pxe-solicit", "dhcp6-pxe-request", "dhcp6-http-solicit", "dhcp6-http-request"} {
				p := r.say(capture(t, name), firmware)
				if ia := p.Options.OneIANA(); ia == nil || ia.Options.OneAddress().IPv6Addr.String() != want {
					t.Errorf("%s: %s, want %s", name, answered(p), want)
				}
			}
		}
	})
	t.Run("V6-07 a relay agent's options", func(t *testing.T) {
		r := newRig(t)
		n := network()
		n.Subnet = lane.Subnet{Prefix: netip.MustParsePrefix("fd88::/64"), Server: netip.MustParseAddr("fd77::1"), Relays: addrs("fd88::1")}
		n.First, n.Last = netip.MustParseAddr("fd88::100"), netip.MustParseAddr("fd88::103")
		r.networks = append(r.networks, n)
		r.restart()
		b := capture(t, "dhcp6-pxe-solicit")
		mac := append([]byte{0, 1}, 0x52, 0x54, 0, 0x99, 0x99, 0x99)
		b = forward(0, "fd88::1", "fe80::1234:5678:9abc:def0", b, opt(dhcpv6.OptionInterfaceID, 'e', 't', 'h', '7'), opt(dhcpv6.OptionClientLinkLayerAddr, mac...))
		p, to := r.pass(b, "fd99::9", true)
		m, relayed := p.(*dhcpv6.RelayMessage)
		if !relayed || m.MessageType != dhcpv6.MessageTypeRelayReply || string(m.Options.InterfaceID()) != "eth7" || m.PeerAddr.String() != "fe80::1234:5678:9abc:def0" || m.LinkAddr.String() != "fd88::1" || to.String() != "[fd99::9]:547" {
			t.Fatalf("to %s: %v", to, p)
		}
		if inner, err := m.GetInnerMessage(); err != nil || answered(inner) != "ADVERTISE fd88::100/1h0m0s" || !strings.Contains(inner.Options.BootFileURL(), "/boot/52-54-00-99-99-99/") {
			t.Errorf("%v, %v", inner.Summary(), err)
		}
		f := r.asked[0]
		if f.MAC != "52:54:00:99:99:99" || (f.Relay != lane.Relay{Address: "fd99::9", CircuitID: "eth7", Link: "fd88::1"}) {
			t.Errorf("asked: %+v", f)
		}
	})
	t.Run("V6-08 iPXE is sent to its script", func(t *testing.T) {
		r := newRig(t)
		for _, action := range []lane.Action{lane.Hold, lane.LocalBoot, lane.Install} {
			r.decision.Action = action
			p := r.say(asIPXE(printedUUID).build(solicit, na(1)), firmware)
			if p.Options.BootFileURL() != "http://[fd77::1]:8080/boot/52-54-00-12-34-56/x86_64-uefi/autoexec.ipxe" || has(p, dhcpv6.OptionVendorClass) != nil || has(p, dhcpv6.OptionBootfileParam) != nil {
				t.Errorf("%s: %s", action, p.Summary())
			}
		}
		// Four bare letters, as iPXE sends them in DHCPv4, are no list of texts.
		c := asIPXE(printedUUID)
		c.more = bytes.Replace(c.more, []byte{0, 15, 0, 6, 0, 4}, []byte{0, 15, 0, 4}, 1)
		if p := r.say(c.build(solicit, na(1)), firmware); p.Options.BootFileURL() != pxeURL {
			t.Errorf("%s", p.Summary())
		}
	})
	t.Run("V6-09 INFORMATION-REQUEST", func(t *testing.T) {
		r := newRig(t)
		c := asIPXE(printedUUID)
		p := r.say(c.build(information), firmware)
		if answered(p) != "REPLY" || p.Options.BootFileURL() == "" || len(p.Options.DNS()) != 2 || has(p, dhcpv6.OptionIANA) != nil {
			t.Errorf("%s", p.Summary())
		}
		if len(r.scopes[0].pool.holdings) != 0 {
			t.Error("it is given an address")
		}
		if p := r.say([]byte{byte(information), 1, 2, 3}, firmware); answered(p) != "REPLY" { // RFC 8415 18.2.6: the DUID may be left out
			t.Errorf("without a client identifier: %s", answered(p))
		}
	})
	t.Run("V6-10 an architecture of odd length", func(t *testing.T) {
		r := newRig(t)
		b := bytes.Replace(capture(t, "dhcp6-pxe-solicit"), []byte{0, 61, 0, 2, 0, 7}, []byte{0, 61, 0, 3, 0, 7, 1}, 1)
		if p := r.say(b, firmware); p.Options.BootFileURL() != pxeURL { // the vendor class says it too
			t.Errorf("%s", p.Summary())
		}
		b = bytes.Replace(b, []byte("Arch:00007"), []byte("Arch:x0007"), 1)
		if p := r.say(b, firmware); answered(p) != "ADVERTISE fd77::50/1h0m0s" || p.Options.BootFileURL() != "" {
			t.Errorf("an address is all it can get: %s", p.Summary())
		}
	})
}

// forward puts a message into what a relay agent sends.
func forward(hops byte, link, peer string, inner []byte, more ...[]byte) []byte {
	w := writer{byte(dhcpv6.MessageTypeRelayForward), hops}
	w = append(append(w, netip.MustParseAddr(link).AsSlice()...), netip.MustParseAddr(peer).AsSlice()...)
	for _, m := range more {
		w = append(w, m...)
	}
	w.add(dhcpv6.OptionRelayMsg, inner)
	return w
}

// TestGoldenReplies keeps every byte of a reply under review.
func TestGoldenReplies(t *testing.T) {
	for _, c := range []struct {
		golden, capture string
		action          lane.Action
	}{
		{"advertise-pxe-install", "dhcp6-pxe-solicit", lane.Install},
		{"reply-pxe-install", "dhcp6-pxe-request", lane.Install},
		{"reply-pxe-release", "dhcp6-pxe-release", lane.Install},
		{"advertise-http-install", "dhcp6-http-solicit", lane.Install},
		{"reply-http-hold", "dhcp6-http-request", lane.Hold},
	} {
		t.Run(c.golden, func(t *testing.T) {
			r := newRig(t)
			r.decision.Action = c.action
			q, err := parse(capture(t, c.capture), netip.MustParseAddrPort("["+firmware+"]:546"))
			if err != nil {
				t.Fatal(err)
			}
			q.iface = "test"
			a, err := r.handle(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			got := a.marshal(q)
			text := hex.EncodeToString(got) + "\n" + describe(t, got[4:], "")
			path := filepath.Join("testdata", c.golden+".golden")
			if *update {
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), text); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// describe says in words what a reply holds, in the order of the wire.
func describe(t *testing.T, b []byte, indent string) string {
	t.Helper()
	o, err := parseOptions(b)
	if err != nil {
		t.Fatal(err)
	}
	var s strings.Builder
	for _, v := range o {
		if v.code == dhcpv6.OptionIANA {
			fmt.Fprintf(&s, "%s%3d id %x times %x\n%s", indent, v.code, v.data[:4], v.data[4:12], describe(t, v.data[12:], "    "))
			continue
		}
		fmt.Fprintf(&s, "%s%3d %q\n", indent, v.code, v.data)
	}
	return s.String()
}

// TestBootFollowsTheDecision: what firmware is told, by what was decided.
func TestBootFollowsTheDecision(t *testing.T) {
	for _, c := range []struct {
		name        string
		action      lane.Action
		hold, fast  bool
		options     lane.BootOptions
		capture     string
		want, class string
	}{
		{"install", lane.Install, false, false, lane.BootOptions{}, "dhcp6-pxe-solicit", pxeURL, ""},
		{"another loader", lane.Install, false, false, lane.BootOptions{Loader: "ipxe.efi"}, "dhcp6-pxe-solicit", strings.Replace(pxeURL, "snponly", "ipxe", 1), ""},
		{"held, with a screen", lane.Hold, true, false, lane.BootOptions{}, "dhcp6-pxe-solicit", pxeURL, ""},
		{"held, without", lane.Hold, false, false, lane.BootOptions{}, "dhcp6-pxe-solicit", "", ""},
		{"to its disk, fast", lane.LocalBoot, true, true, lane.BootOptions{}, "dhcp6-pxe-solicit", pxeURL, ""}, // TFTP refuses it
		{"to its disk, in silence", lane.LocalBoot, true, false, lane.BootOptions{}, "dhcp6-pxe-solicit", "", ""},
		{"to its disk, its own silence", lane.LocalBoot, true, true, lane.BootOptions{Silent: true}, "dhcp6-pxe-solicit", "", ""},
		{"HTTP, to its disk, in silence", lane.LocalBoot, true, false, lane.BootOptions{}, "dhcp6-http-solicit", "", ""},
		{"HTTP, to its disk, fast", lane.LocalBoot, true, true, lane.BootOptions{}, "dhcp6-http-solicit", httpURL, string(class16())},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.networks[0].HoldScreen, r.networks[0].FastLocalBoot = c.hold, c.fast
			r.restart()
			r.decision = lane.Decision{Action: c.action, Boot: c.options}
			p := r.say(capture(t, c.capture), firmware)
			if got := p.Options.BootFileURL(); got != c.want || string(has(p, dhcpv6.OptionVendorClass)) != c.class {
				t.Errorf("%q, class %q", got, has(p, dhcpv6.OptionVendorClass))
			}
		})
	}
	r := newRig(t)
	r.askErr = errors.New("the store is down")
	if p := r.say(capture(t, "dhcp6-pxe-solicit"), firmware); p != nil {
		t.Error("an answer although nobody could decide")
	}
}

// TestOptionRequest: options are sent to those who ask for them.
func TestOptionRequest(t *testing.T) {
	r := newRig(t)
	c := nth(1)
	p := r.say(c.build(solicit, na(1)), c.from)
	for _, code := range []dhcpv6.OptionCode{23, 24, 56, 59} {
		if has(p, code) != nil {
			t.Errorf("option %d is sent to who did not ask", code)
		}
	}
	p = r.say(c.build(solicit, na(1), opt(dhcpv6.OptionORO, 0, 23, 0, 24, 0, 56, 0, 59, 0)), c.from)
	if len(p.Options.DNS()) != 2 || p.Options.DomainSearchList().Labels[0] != "lab.example" || has(p, 59) != nil {
		t.Errorf("%s", p.Summary())
	}
	ntp := p.Options.NTPServers()
	if len(ntp) != 1 || !ntp[0].Equal(net.ParseIP("fd77::123")) {
		t.Errorf("time servers %v", ntp)
	}
	if len(r.asked) != 0 {
		t.Error("a plain client was asked about")
	}
}

// TestIdentity: which machine a client is, by the strongest sign.
func TestIdentity(t *testing.T) {
	ll := []byte{0, 3, 0, 1, 0x52, 0x54, 0, 0, 0, 7}
	for _, c := range []struct {
		name, from string
		duid       []byte
		want       lane.Client
	}{
		{"the address it speaks from", firmware, ll, "52:54:00:12:34:56"},
		{"DUID-LL", "fe80::1", ll, "52:54:00:00:00:07"},
		{"DUID-LLT", "fe80::1", []byte{0, 1, 0, 1, 9, 9, 9, 9, 0x52, 0x54, 0, 0, 0, 8}, "52:54:00:00:00:08"},
		{"DUID-LL of no Ethernet", "fe80::1", []byte{0, 3, 0, 32, 0x52, 0x54, 0, 0, 0, 7}, "duid:00030020525400000007"},
		{"DUID-LL of a group", "fe80::1", []byte{0, 3, 0, 1, 1, 0, 0x5e, 0, 0, 7}, "duid:0003000101005e000007"},
		{"DUID-EN", "fe80::1", []byte{0, 2, 0, 0, 0xab, 0x11, 5}, "duid:00020000ab1105"},
		{"DUID-UUID of nobody", "fe80::1", append([]byte{0, 4}, make([]byte, 16)...), "duid:000400000000000000000000000000000000"},
		{"a global address is no NIC's", "fd77::5054:ff:fe12:3456", []byte{0, 2, 0, 0, 0xab, 0x11, 5}, "duid:00020000ab1105"},
	} {
		t.Run(c.name, func(t *testing.T) {
			q, err := parse(client{duid: c.duid}.build(solicit), netip.AddrPortFrom(netip.MustParseAddr(c.from), 546))
			if err != nil || q.client != c.want {
				t.Errorf("%s, %v; want %s", q.client, err, c.want)
			}
		})
	}
	if d := DUID([16]byte{15: 1}); len(d) != 18 || d[1] != duidUUID {
		t.Errorf("%x", d)
	}
}

// TestDropped: RFC 8415 section 16, and what no client sends.
func TestDropped(t *testing.T) {
	c := nth(1)
	sid := opt(dhcpv6.OptionServerID, serverDUID()...)
	for name, b := range map[string][]byte{
		"nothing":                         {},
		"three bytes":                     {1, 2, 3},
		"SOLICIT to a server":             c.build(solicit, sid),
		"CONFIRM to a server":             c.build(confirm, sid),
		"REBIND to a server":              c.build(rebind, sid),
		"ADVERTISE":                       c.build(advertise),
		"REPLY":                           c.build(replying),
		"RELAY-REPL":                      {13, 0, 0, 0},
		"INFORMATION-REQUEST with an IA":  c.build(information, na(1)),
		"SOLICIT of nobody":               client{}.build(solicit),
		"SOLICIT with a DUID of 200":      client{duid: make([]byte, 200)}.build(solicit),
		"an option cut short":             append(c.build(solicit), 0, 3, 0, 40, 1),
		"half an option":                  append(c.build(solicit), 0, 3),
		"a relayed message without any":   forward(0, "::", "fe80::1", nil)[:34],
		"a relayed message, cut short":    forward(0, "::", "fe80::1", nil)[:20],
		"a relayed message in itself, 9x": nested(9, c.build(solicit)),
	} {
		if q, err := parse(b, netip.MustParseAddrPort("[fe80::1]:546")); err == nil {
			t.Errorf("%s is taken for %s", name, q.msg)
		}
	}
	b := c.build(request)
	b = bytes.Replace(b, sid, nil, 1)
	if _, err := parse(b, netip.AddrPort{}); err == nil {
		t.Error("a REQUEST to nobody is taken")
	}
	if _, err := parse(nested(8, c.build(solicit)), netip.MustParseAddrPort("[fe80::1]:546")); err != nil {
		t.Errorf("eight agents: %v", err)
	}
}

func nested(n int, b []byte) []byte {
	for i := range n {
		b = forward(byte(i), "::", "fe80::1", b)
	}
	return b
}

// FuzzParse: nothing that a client can send makes us panic, or answer what cannot be read.
func FuzzParse(f *testing.F) {
	names, err := filepath.Glob("testdata/*.hex")
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range names {
		b := capture(f, strings.TrimSuffix(filepath.Base(n), ".hex"))
		f.Add(b)
		f.Add(nested(3, b))
	}
	for _, kind := range []dhcpv6.MessageType{solicit, request, renew, rebind, confirm, release, decline, information} {
		f.Add(nth(1).build(kind, na(1, "fd77::50"), na(2), opt(dhcpv6.OptionRapidCommit)))
	}
	m := &memory{}
	s := &Server{cfg: Config{DUID: serverDUID(), Asker: m, Leases: m, Reservations: m, Evidence: m, Now: func() time.Time { return noon }}}
	s.scopes = []*scope{newScope(network(), nil)}
	f.Fuzz(func(t *testing.T, data []byte) {
		q, err := parse(data, netip.MustParseAddrPort("["+firmware+"]:546"))
		if err != nil {
			return
		}
		q.iface = "test"
		r, err := s.handle(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if r.kind == 0 {
			return
		}
		b := r.marshal(q)
		if len(b) > 2*len(data)+1200 {
			t.Errorf("%d bytes for %d", len(b), len(data))
		}
		if _, err := dhcpv6.FromBytes(data); err != nil {
			return // what we bring back unread, the codec would not read
		}
		if _, err := dhcpv6.FromBytes(b); err != nil {
			t.Errorf("%x: %v", b, err)
		}
	})
}
