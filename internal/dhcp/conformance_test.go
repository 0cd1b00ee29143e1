package dhcp

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootlane/internal/lane"
	"bootlane/internal/udp"
)

// The captured packets that the cases are played with.
const (
	ovmfDiscover = "dhcp4-ovmf-pxe-arch0007-discover-port67-bcast"
	ovmfRequest  = "dhcp4-ovmf-pxe-arch0007-request-port67-bcast"
	httpDiscover = "dhcp4-ovmf-http-arch0010-discover-port67-bcast"
	ipxeDiscover = "dhcp4-ipxe-arch0007-discover-port67-bcast"
)

// installing is a rig whose every client may install.
func installing(t *testing.T) *rig {
	r := newRig(t)
	r.decision = lane.Decision{Action: lane.Install, Reason: lane.Granted}
	return r
}

// raw sends one message and returns the reply as it goes onto the wire, and its destination.
func (r *rig) raw(b []byte) ([]byte, netip.AddrPort) {
	r.t.Helper()
	q, err := parse(b)
	if err != nil {
		r.t.Fatal(err)
	}
	q.iface = "test"
	a, err := r.handle(r.t.Context(), q)
	if err != nil || a.kind == 0 {
		return nil, netip.AddrPort{}
	}
	return a.msg.marshal(q), destination(q, a.kind, netip.MustParseAddrPort("0.0.0.0:68"))
}

// with adds options to a captured message.
func with(b []byte, options ...byte) []byte {
	end := bytes.LastIndexByte(b, 255)
	return append(append(bytes.Clone(b[:end]), options...), 255)
}

// instead replaces the data of an option of a captured message.
func instead(t *testing.T, b []byte, code byte, data ...byte) []byte {
	t.Helper()
	for i := 240; i < len(b) && b[i] != 255; i += 2 + int(b[i+1]) {
		if b[i] == code {
			return slices.Concat(b[:i], []byte{code, byte(len(data))}, data, b[i+2+int(b[i+1]):])
		}
	}
	t.Fatalf("no option %d", code)
	return nil
}

func sent(t *testing.T, b []byte, code uint8) []byte {
	t.Helper()
	p, err := dhcpv4.FromBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	return p.Options.Get(dhcpv4.GenericOptionCode(code))
}

type conformance struct {
	name string // begins with the case's id, as docs/conformance.md lists it
	play func(*testing.T)
}

func play(t *testing.T, cases []conformance) {
	for _, c := range cases {
		t.Run(c.name, c.play)
	}
}

// TestOwnedConformance has the cases of an owned network that no other test is named after.
func TestOwnedConformance(t *testing.T) {
	play(t, []conformance{
		{"D4-01 a client that asks for a broadcast gets one", func(t *testing.T) {
			out, to := installing(t).raw(capture(t, ovmfDiscover))
			if to.String() != "255.255.255.255:68" || out[10]&0x80 == 0 || len(out) < 300 || bytes.IndexByte(out[240:], 255) < 0 {
				t.Errorf("to %s: %x", to, out)
			}
		}},
		{"D4-02 so does one that does not", func(t *testing.T) {
			if _, to := installing(t).raw(capture(t, ipxeDiscover)); to.String() != "255.255.255.255:68" {
				t.Errorf("to %s: the kernel would ask who has an address that nobody answers for yet", to)
			}
		}},
		{"D4-03 what an OFFER carries", func(t *testing.T) {
			p := installing(t).say(capture(t, ovmfDiscover)) // rules() checks what no reply may carry
			for _, code := range []uint8{53, 54, 51, 1} {
				if !p.Options.Has(dhcpv4.GenericOptionCode(code)) {
					t.Errorf("no option %d", code)
				}
			}
		}},
		{"D4-04 a repetition gets the same address", func(t *testing.T) {
			r := newRig(t)
			for range 4 {
				r.expect(r.say(build(discover, mac(1), nil)), offering, "192.168.77.100")
				r.now = r.now.Add(4 * time.Second)
			}
			if u := r.pool.usage(r.now); u.Offered != 1 {
				t.Errorf("%+v", u)
			}
		}},
		{"D4-05 one xid, two clients", func(t *testing.T) {
			r := newRig(t)
			r.expect(r.say(build(discover, mac(1), nil)), offering, "192.168.77.100")
			r.expect(r.say(build(discover, mac(2), nil)), offering, "192.168.77.101")
			r.expect(r.say(selecting(mac(1), "192.168.77.100", "192.168.77.1")), ack, "192.168.77.100")
			r.expect(r.say(selecting(mac(2), "192.168.77.101", "192.168.77.1")), ack, "192.168.77.101")
		}},
		{"D4-06 a free address that it asks for", func(t *testing.T) {
			r := newRig(t)
			r.expect(r.say(build(discover, mac(1), nil, ip(50, "192.168.77.102")...)), offering, "192.168.77.102")
		}},
		{"D4-07 one that it cannot have", func(t *testing.T) {
			r := newRig(t)
			r.bind(mac(9))
			r.expect(r.say(build(discover, mac(1), nil, ip(50, "192.168.77.100")...)), offering, "192.168.77.101")
			r.expect(r.say(build(discover, mac(2), nil, ip(50, "10.9.9.9")...)), offering, "192.168.77.102")
		}},
		{"D4-08 its former address, when that is free", func(t *testing.T) {
			r := newRig(t)
			r.bind(mac(1))
			r.bind(mac(2))
			r.now = r.now.Add(48 * time.Hour)
			r.expect(r.say(build(discover, mac(2), nil)), offering, "192.168.77.101")
		}},
		{"D4-09 no address left", func(t *testing.T) {
			r := newRig(t)
			for n := range byte(4) {
				r.bind(mac(n + 1))
			}
			r.expect(r.say(build(discover, mac(9), nil)), 0, "")
			if len(r.notes) == 0 || !strings.Contains(r.notes[len(r.notes)-1], "no address") {
				t.Errorf("notes: %v", r.notes)
			}
		}},
		{"D4-10 a reserved address that another still has", func(t *testing.T) {
			r := newRig(t)
			r.bind(mac(1))
			r.reserved[mac(2)] = netip.MustParseAddr("192.168.77.100")
			r.expect(r.say(build(discover, mac(2), nil)), 0, "")
			if note := r.notes[len(r.notes)-1]; !strings.Contains(note, string(mac(1))+" still has its reserved address") {
				t.Errorf("the note says %q", note)
			}
		}},
		{"D4-11 three client identifiers, one NIC", func(t *testing.T) {
			r := newRig(t)
			for _, id := range [][]byte{nil, {61, 7, 1, 0x52, 0x54, 0, 0, 0, 1}, {61, 10, 255, 0, 0, 0, 1, 0, 1, 2, 3, 4}} {
				r.expect(r.say(build(discover, mac(1), nil, id...)), offering, "192.168.77.100")
			}
		}},
		{"D4-12 the client identifier comes back", func(t *testing.T) {
			r := newRig(t)
			id := []byte{61, 4, 0, 1, 2, 3}
			for _, b := range [][]byte{build(discover, mac(1), nil, id...), build(request, mac(1), nil, append(ip(50, "10.0.0.1"), id...)...)} {
				if out, _ := r.raw(b); !bytes.Equal(sent(t, out, 61), id[2:]) {
					t.Errorf("%x", out)
				}
			}
			if out, _ := r.raw(build(discover, mac(2), nil)); sent(t, out, 61) != nil {
				t.Error("one is made up")
			}
		}},
		{"D4-13 the ACK says what the OFFER said", func(t *testing.T) {
			r := installing(t)
			offer, _ := r.raw(capture(t, ovmfDiscover))
			taken := instead(t, instead(t, capture(t, ovmfRequest), 54, 192, 168, 77, 1), 50, offer[16:20]...)
			got, _ := r.raw(taken)
			for _, code := range []uint8{54, 51, 1, 3, 60, 43, 67} {
				if a, b := sent(t, offer, code), sent(t, got, code); !bytes.Equal(a, b) || a == nil {
					t.Errorf("option %d: OFFER %x, ACK %x", code, a, b)
				}
			}
			if !bytes.Equal(offer[16:24], got[16:24]) || !bytes.Equal(offer[108:236], got[108:236]) {
				t.Error("yiaddr, siaddr or file differ")
			}
		}},
		{"D4-14 it takes another server's offer", func(t *testing.T) {
			r := newRig(t)
			r.expect(r.say(build(discover, mac(1), nil)), offering, "192.168.77.100")
			r.expect(r.say(selecting(mac(1), "192.168.77.50", "192.168.77.250")), 0, "")
			r.expect(r.say(build(discover, mac(2), nil, ip(50, "192.168.77.100")...)), offering, "192.168.77.100")
		}},
		{"D4-17 a REQUEST that leaves the address out", func(t *testing.T) {
			r := newRig(t)
			r.expect(r.say(build(discover, mac(1), nil)), offering, "192.168.77.100")
			r.expect(r.say(build(request, mac(1), nil, ip(54, "192.168.77.1")...)), ack, "192.168.77.100")
		}},
		{"D4-27 a NAK says no, and nothing else", func(t *testing.T) {
			r := newRig(t)
			out, _ := r.raw(build(request, mac(1), nil, append(ip(50, "10.0.0.1"), 61, 3, 1, 2, 3)...))
			p, err := dhcpv4.FromBytes(out)
			if err != nil {
				t.Fatal(err)
			}
			for code := range p.Options {
				if !bytes.Contains([]byte{53, 54, 56, 61}, []byte{code}) {
					t.Errorf("option %d", code)
				}
			}
			if !bytes.Equal(out[12:24], make([]byte, 12)) || !bytes.Equal(out[44:236], make([]byte, 192)) {
				t.Error("an address, sname or file is filled")
			}
		}},
		{"D4-28 a DECLINE of its own offer", func(t *testing.T) {
			r := newRig(t)
			r.expect(r.say(build(discover, mac(1), nil)), offering, "192.168.77.100")
			r.expect(r.say(build(decline, mac(1), nil, ip(50, "192.168.77.100")...)), 0, "")
			r.expect(r.say(build(discover, mac(1), nil)), offering, "192.168.77.101")
			if len(r.notes) != 1 || !strings.Contains(r.notes[0], "declined 192.168.77.100") {
				t.Errorf("notes: %v", r.notes)
			}
		}},
		{"D4-29 a DECLINE of somebody else's address", func(t *testing.T) {
			r := newRig(t)
			a := r.bind(mac(1))
			r.expect(r.say(build(decline, mac(2), nil, ip(50, a)...)), 0, "")
			r.expect(r.say(build(request, mac(1), ciaddr(a))), ack, a)
		}},
		{"D4-30 one client cannot decline the pool away", func(t *testing.T) {
			r := newRig(t)
			for range 20 {
				if p := r.say(build(discover, mac(1), nil)); p != nil {
					r.say(build(decline, mac(1), nil, ip(50, p.YourIPAddr.String())...))
				}
			}
			if u := r.pool.usage(r.now); u.Aside != maxDeclines {
				t.Errorf("%+v", u)
			}
		}},
		{"D4-31 a RELEASE, and back again", func(t *testing.T) {
			r := newRig(t)
			a := r.bind(mac(1))
			r.expect(r.say(build(release, mac(1), ciaddr(a))), 0, "")
			r.expect(r.say(build(discover, mac(1), nil)), offering, a)
		}},
		{"D4-32 a stranger's RELEASE", func(t *testing.T) {
			r := newRig(t)
			a := r.bind(mac(1))
			r.say(build(release, mac(2), ciaddr(a)))
			r.expect(r.say(build(discover, mac(2), nil, ip(50, a)...)), offering, "192.168.77.101")
		}},
		{"D4-33 an INFORM", func(t *testing.T) {
			out, to := newRig(t).raw(build(inform, mac(1), ciaddr("192.168.77.200")))
			if to.String() != "192.168.77.200:68" || !bytes.Equal(out[16:20], make([]byte, 4)) || sent(t, out, 51) != nil || sent(t, out, 58) != nil || sent(t, out, 1) == nil {
				t.Errorf("to %s: %x", to, out)
			}
		}},
		{"D4-34 an INFORM that leaves ciaddr empty", func(t *testing.T) {
			q, err := parse(build(inform, mac(1), nil))
			if err != nil {
				t.Fatal(err)
			}
			from := netip.MustParseAddrPort("192.168.77.201:68")
			if got := destination(q, ack, from); got != from {
				t.Errorf("the answer goes to %s", got)
			}
		}},
		{"D4-35 BOOTP", func(t *testing.T) {
			r := newRig(t)
			b := build(0, mac(1), nil)
			if p := r.say(append(b[:240], 255)); p != nil {
				t.Errorf("%v", p)
			}
		}},
		{"D4-54 an operating system", func(t *testing.T) {
			r := installing(t)
			out, _ := r.raw(build(discover, mac(1), nil))
			if sent(t, out, 60) != nil || sent(t, out, 67) != nil || out[108] != 0 || len(r.asked) != 0 {
				t.Errorf("%x", out)
			}
		}},
		{"D4-36 LEASEQUERY", func(t *testing.T) {
			r := newRig(t)
			a := r.bind(mac(1))
			r.expect(r.say(build(10, mac(1), ciaddr(a))), 0, "")
		}},
	})
}

// TestReplySizes has the cases of long replies.
func TestReplySizes(t *testing.T) {
	large := func(t *testing.T) *rig {
		r := installing(t)
		r.Domain, r.DNS = strings.Repeat("d", 200), nil
		for i := range byte(60) {
			r.DNS = append(r.DNS, netip.AddrFrom4([4]byte{192, 168, 77, i}))
		}
		return r
	}
	play(t, []conformance{
		{"D4-37 option 57 is obeyed", func(t *testing.T) {
			for _, n := range []int{576, 700, 1472} {
				if out, _ := large(t).raw(instead(t, capture(t, ovmfDiscover), 57, byte(n>>8), byte(n))); len(out) > n-28 {
					t.Errorf("%d bytes for option 57 of %d", len(out), n)
				}
			}
		}},
		{"D4-38 EDK2 asks for 65280, and takes 1472", func(t *testing.T) {
			r := large(t)
			r.NTP, r.Routers = r.DNS, r.DNS
			ask := with(instead(t, capture(t, ovmfDiscover), 57, 0xff, 0), slices.Concat([]byte{61, 255}, bytes.Repeat([]byte{1}, 255), []byte{82, 255, 1, 253}, make([]byte, 253))...)
			if out, _ := r.raw(ask); len(out) > 1472 || len(out) < 1000 {
				t.Errorf("%d bytes", len(out))
			}
			q, err := parse(ask)
			if err != nil {
				t.Fatal(err)
			}
			q.maxSize = 65280
			if out := r.lease(q, offering, netip.MustParseAddr("192.168.77.100"), lane.Decision{Action: lane.Install}).marshal(q); len(out) <= 1472 {
				t.Errorf("all that there is to say has %d bytes: nothing is tested", len(out))
			}
		}},
		{"D4-39 without option 57 what a boot needs is kept", func(t *testing.T) {
			q, err := parse(capture(t, ovmfDiscover))
			if err != nil {
				t.Fatal(err)
			}
			q.maxSize = 548
			out := large(t).lease(q, offering, netip.MustParseAddr("192.168.77.100"), lane.Decision{Action: lane.Install}).marshal(q)
			if len(out) > 548 {
				t.Errorf("%d bytes", len(out))
			}
			for _, code := range []uint8{53, 54, 51, 1, 60, 43, 67, 97} {
				if sent(t, out, code) == nil {
					t.Errorf("option %d is dropped", code)
				}
			}
		}},
		{"D4-40 an option 57 below the least", func(t *testing.T) {
			q, err := parse(instead(t, capture(t, ovmfDiscover), 57, 0, 100))
			if err != nil || q.maxSize != 548 {
				t.Errorf("%d bytes are allowed, %v", q.maxSize, err)
			}
		}},
		{"D4-41 an option in two pieces", func(t *testing.T) {
			q, err := parse(build(discover, mac(1), nil, slices.Concat([]byte{60, 4}, []byte("PXEC"), []byte{93, 2, 0, 7}, []byte{60, 5}, []byte("lient"))...))
			if err != nil || q.class != pxe {
				t.Errorf("class %d, %v", q.class, err)
			}
		}},
		{"D4-42 a boot file too long for its field", func(t *testing.T) {
			r := installing(t)
			long := strings.Repeat("l", 120) + ".efi"
			r.Loaders = map[lane.Platform][]string{{Arch: lane.X86_64, Firmware: lane.UEFI}: {long}}
			out, _ := r.raw(capture(t, ovmfDiscover))
			if out[108] != 0 || !bytes.HasSuffix(bytes.TrimRight(sent(t, out, 67), "\x00"), []byte(long)) {
				t.Errorf("file %q, option 67 %q", out[108:236], sent(t, out, 67))
			}
		}},
		{"D4-43 option 67 ends in a NUL", func(t *testing.T) {
			out, _ := installing(t).raw(capture(t, ovmfDiscover))
			if f := sent(t, out, 67); len(f) == 0 || f[len(f)-1] != 0 {
				t.Errorf("%q", f)
			}
		}},
		{"D4-44 options in file and sname", func(t *testing.T) {
			b := build(discover, mac(1), func(b []byte) {
				copy(b[108:], append([]byte{60, 4}, append([]byte("PXEC"), 255)...))
				copy(b[44:], slices.Concat([]byte{93, 2, 0, 7, 60, 5}, []byte("lient"), []byte{255})) // the file field comes first
			}, 52, 1, 3)
			if q, err := parse(b); err != nil || q.class != pxe || q.platform.String() != "x86_64-uefi" {
				t.Errorf("%+v, %v", q, err)
			}
		}},
		{"D4-45 what is no DHCP message", func(t *testing.T) {
			good := build(discover, mac(1), nil)
			for name, b := range map[string][]byte{"no end": good[:len(good)-1], "past the end": append(bytes.Clone(good[:len(good)-1]), 12, 200, 'x'), "reply": append([]byte{2}, good[1:]...),
				"hlen 17": append([]byte{1, 1, 17}, good[3:]...), "pads": append(bytes.Clone(good[:240]), make([]byte, 65000)...)} {
				if _, err := parse(b); err == nil {
					t.Errorf("%s is taken", name)
				}
				r := newRig(t)
				r.Server.serve(t.Context(), &port{iface: "test", number: serverPort}, udp.Datagram{Data: b, From: netip.MustParseAddrPort("0.0.0.0:68")})
				if got := r.Stats(); got.Dropped != 1 || got.Failed != 0 {
					t.Errorf("%s: counted as %+v", name, got)
				}
			}
		}},
		{"D4-46 what no reply carries", func(t *testing.T) {
			for _, name := range []string{ovmfDiscover, httpDiscover, ipxeDiscover} {
				installing(t).say(capture(t, name)) // rules() looks at every one
			}
		}},
		{"D4-48 a lease is known after a crash", func(t *testing.T) {
			r := newRig(t)
			a := r.bind(mac(1))
			r.restart()
			r.expect(r.say(build(request, mac(1), nil, ip(50, a)...)), ack, a)
			r.expect(r.say(build(discover, mac(2), nil, ip(50, a)...)), offering, "192.168.77.101")
		}},
		{"D4-49 the clock jumps back", func(t *testing.T) {
			r := newRig(t)
			a := r.bind(mac(1))
			r.now = r.now.AddDate(-10, 0, 0)
			r.restart()
			r.expect(r.say(build(discover, mac(2), nil, ip(50, a)...)), offering, "192.168.77.101")
			r.expect(r.say(build(request, mac(1), ciaddr(a))), ack, a)
		}},
	})
}

// TestPXEConformance has the cases of PXE's options.
func TestPXEConformance(t *testing.T) {
	file := func(t *testing.T, r *rig, b []byte) string {
		t.Helper()
		if p := r.say(b); p != nil {
			return p.BootFileName
		}
		return "(silence)"
	}
	const uefi = "boot/52-54-00-12-34-56/x86_64-uefi/snponly.efi"
	play(t, []conformance{
		{"PX-01 the class comes back without its tail", func(t *testing.T) {
			out, _ := installing(t).raw(capture(t, ovmfDiscover))
			if got := sent(t, out, 60); string(got) != "PXEClient" {
				t.Errorf("%q", got)
			}
		}},
		{"PX-02 EDK2 needs option 43 beside it", func(t *testing.T) {
			out, _ := installing(t).raw(capture(t, ovmfDiscover))
			if got := sent(t, out, 43); !bytes.Equal(got, []byte{6, 1, 8, 255}) {
				t.Errorf("%x", got)
			}
		}},
		{"PX-03 the machine identifier comes back", func(t *testing.T) {
			r := installing(t)
			b := capture(t, ovmfDiscover)
			out, _ := r.raw(b)
			if !bytes.Equal(sent(t, out, 97), sentMachineID(t, b)) || r.asked[0].UUID != "00112233-4455-6677-8899-aabbccddeeff" {
				t.Errorf("%x, %s", sent(t, out, 97), r.asked[0].UUID)
			}
		}},
		{"PX-04 a malformed machine identifier does not", func(t *testing.T) {
			for _, n := range []int{1, 16, 18} {
				r := installing(t)
				out, _ := r.raw(instead(t, capture(t, ovmfDiscover), 97, make([]byte, n)...))
				if out == nil || sent(t, out, 97) != nil || r.asked[0].UUID != "" {
					t.Errorf("%d bytes: %x, UUID %q", n, sent(t, out, 97), r.asked[0].UUID)
				}
			}
		}},
		{"PX-05 a placeholder identifies nothing", func(t *testing.T) {
			for _, fill := range []byte{0, 255} {
				r := installing(t)
				r.raw(instead(t, capture(t, ovmfDiscover), 97, append([]byte{0}, bytes.Repeat([]byte{fill}, 16)...)...))
				if r.asked[0].UUID != "" {
					t.Errorf("UUID %s", r.asked[0].UUID)
				}
			}
		}},
		{"PX-07 architecture 9 is x64", func(t *testing.T) {
			if got := file(t, installing(t), instead(t, capture(t, ovmfDiscover), 93, 0, 9)); got != uefi {
				t.Error(got)
			}
		}},
		{"PX-08 a list of architectures", func(t *testing.T) {
			if got := file(t, installing(t), instead(t, capture(t, ovmfDiscover), 93, 0, 200, 0, 7)); got != uefi {
				t.Error(got)
			}
		}},
		{"PX-09 the architecture of option 60", func(t *testing.T) {
			b := instead(t, instead(t, capture(t, ovmfDiscover), 93, 1), 60, []byte("PXEClient:Arch:00011:UNDI:003000")...)
			if got := file(t, installing(t), b); got != "boot/52-54-00-12-34-56/arm64-uefi/snponly-arm64.efi" {
				t.Error(got)
			}
		}},
		{"PX-11 an architecture without a loader", func(t *testing.T) {
			b := instead(t, instead(t, capture(t, ovmfDiscover), 93, 0, 200), 60, []byte("PXEClient:Arch:00200:UNDI:003000")...)
			p := installing(t).say(b)
			if p == nil || p.BootFileName != "" || p.Options.Has(dhcpv4.OptionClassIdentifier) {
				t.Errorf("%v", p)
			}
			if p, _ := proxyRig(t).tell(b, false, "0.0.0.0:68"); p != nil {
				t.Errorf("a proxy says %v", p)
			}
		}},
		{"PX-12 iPXE's bare user class", func(t *testing.T) {
			if got := file(t, installing(t), capture(t, ipxeDiscover)); !strings.HasSuffix(got, "/autoexec.ipxe") {
				t.Error(got)
			}
		}},
		{"PX-13 iPXE's user class of RFC 3004", func(t *testing.T) {
			if got := file(t, installing(t), instead(t, capture(t, ipxeDiscover), 77, []byte("\x04iPXE")...)); !strings.HasSuffix(got, "/autoexec.ipxe") {
				t.Error(got)
			}
		}},
		{"PX-14 iPXE without a user class", func(t *testing.T) {
			if got := file(t, installing(t), instead(t, capture(t, ipxeDiscover), 77)); !strings.HasSuffix(got, "/autoexec.ipxe") {
				t.Error(got)
			}
		}},
		{"PX-15 iPXE without HTTP gets a loader that has it", func(t *testing.T) {
			if got := file(t, installing(t), instead(t, capture(t, ipxeDiscover), 175, 0x24, 1, 1)); got != uefi {
				t.Error(got)
			}
		}},
		{"PX-17 UEFI HTTP Boot", func(t *testing.T) {
			out, _ := installing(t).raw(capture(t, httpDiscover))
			if url := string(sent(t, out, 67)); string(sent(t, out, 60)) != "HTTPClient" || url != "http://192.168.77.1:8080/"+uefi || sent(t, out, 43) != nil || out[108] != 0 {
				t.Errorf("60 %q, 67 %q, 43 %x", sent(t, out, 60), url, sent(t, out, 43))
			}
		}},
		{"PX-18 UEFI HTTP Boot that is not allowed", func(t *testing.T) {
			r := newRig(t)
			r.decision, r.FastLocalBoot = lane.Decision{Action: lane.LocalBoot}, false
			if p := r.say(capture(t, httpDiscover)); p == nil || p.Options.Has(dhcpv4.OptionClassIdentifier) {
				t.Errorf("%v", p)
			}
		}},
		{"PX-19 a NUL behind option 60", func(t *testing.T) {
			b := instead(t, capture(t, ovmfDiscover), 60, append([]byte("PXEClient:Arch:00007:UNDI:003000"), 0)...)
			if got := file(t, installing(t), b); got != uefi {
				t.Error(got)
			}
		}},
		{"PX-20 garbage in the list of wanted options", func(t *testing.T) {
			if got := file(t, installing(t), instead(t, capture(t, ovmfDiscover), 55, 1, 235, 0, 255, 3)); got != uefi {
				t.Error(got)
			}
		}},
		{"PX-21 a boot server request names its item", func(t *testing.T) {
			item := []byte{71, 4, 0, 5, 0, 0}
			r := proxyRig(t)
			b := with(capture(t, "dhcp4-ovmf-pxe-arch0007-request-port4011-l2uni"), append([]byte{43, 7}, append(item, 255)...)...)
			p, _ := r.tell(b, true, "192.168.77.60:4011")
			if p == nil || !bytes.Equal(p.Options.Get(dhcpv4.OptionVendorSpecificInformation), append(item, 255)) {
				t.Errorf("%v", p)
			}
			signed := []byte{43, 7, 71, 4, 0, 5, 0x80, 0, 255}
			if p, _ := r.tell(with(capture(t, "dhcp4-ovmf-pxe-arch0007-request-port4011-l2uni"), signed...), true, "192.168.77.60:4011"); p != nil {
				t.Errorf("credentials (BIS) are promised: %v", p)
			}
		}},
		{"PX-22 what shim reads is in the header", func(t *testing.T) {
			out, _ := installing(t).raw(capture(t, ovmfDiscover))
			if !bytes.Equal(out[20:24], []byte{192, 168, 77, 1}) || string(bytes.TrimRight(out[108:236], "\x00")) != uefi {
				t.Errorf("siaddr %v, file %q", out[20:24], out[108:236])
			}
		}},
		{"PX-23 iPXE is not kept waiting for a proxy", func(t *testing.T) {
			out, _ := installing(t).raw(capture(t, ipxeDiscover))
			if string(sent(t, out, 60)) != "PXEClient" || !bytes.Equal(sent(t, out, 175), []byte{0xb0, 1, 1}) || sent(t, out, 17) != nil || bytes.Contains(sent(t, out, 43), []byte{9}) {
				t.Errorf("60 %q, 175 %x, 17 %x, 43 %x", sent(t, out, 60), sent(t, out, 175), sent(t, out, 17), sent(t, out, 43))
			}
		}},
		{"PX-24 another vendor's client", func(t *testing.T) {
			out, _ := installing(t).raw(build(discover, mac(1), nil, append([]byte{60, 8}, "MSFT 5.0"...)...))
			if sent(t, out, 60) != nil || sent(t, out, 43) != nil {
				t.Errorf("%x", out)
			}
		}},
		{"PX-25 one NIC, two firmwares", func(t *testing.T) {
			r := installing(t)
			bios := instead(t, capture(t, ovmfDiscover), 93, 0, 0)
			if a, b := file(t, r, bios), file(t, r, capture(t, ovmfDiscover)); a != "boot/52-54-00-12-34-56/x86_64-bios/undionly.kpxe" || b != uefi {
				t.Error(a, b)
			}
		}},
		{"LB-04 an installed machine's UEFI HTTP Boot", func(t *testing.T) {
			r := newRig(t)
			r.decision = lane.Decision{Action: lane.LocalBoot}
			if out, _ := r.raw(capture(t, httpDiscover)); !strings.HasPrefix(string(sent(t, out, 67)), "http://192.168.77.1:8080/boot/") { // a URL that HTTP refuses
				t.Errorf("%q", sent(t, out, 67))
			}
		}},
		{"LB-07 an installed machine is told at once", func(t *testing.T) {
			r := newRig(t)
			r.decision = lane.Decision{Action: lane.LocalBoot}
			out, _ := r.raw(capture(t, ovmfDiscover))
			if !bytes.HasPrefix(sent(t, out, 43), []byte{6, 1, 3, 9}) || sent(t, out, 67) != nil || out[108] != 0 {
				t.Errorf("43 %x, 67 %q", sent(t, out, 43), sent(t, out, 67))
			}
			r.decision.Boot.Silent = true
			if out, _ = r.raw(capture(t, ovmfDiscover)); sent(t, out, 43) != nil {
				t.Error("a machine whose menu code is broken is given a menu")
			}
		}},
		{"IX-07 iPXE with TLS that trusts us", func(t *testing.T) {
			r := installing(t)
			r.TLSBase, r.IPXETLS = "https://192.168.77.1:8443", true
			tls := with(instead(t, capture(t, ipxeDiscover), 175, 0x13, 1, 1, 0x14, 1, 1, 0x24, 1, 1))
			if got := file(t, r, tls); !strings.HasPrefix(got, "https://192.168.77.1:8443/boot/") {
				t.Error(got)
			}
			if got := file(t, r, capture(t, ipxeDiscover)); !strings.HasPrefix(got, "http://") { // Debian's has no TLS
				t.Error(got)
			}
		}},
	})
}

// TestProxyConformance has the cases of a proxy that no other test is named after.
func TestProxyConformance(t *testing.T) {
	play(t, []conformance{
		{"PR-06 port 4011 without an offer before", func(t *testing.T) {
			if p, _ := proxyRig(t).tell(capture(t, "dhcp4-ovmf-pxe-arch0007-request-port4011-l2uni"), true, "192.168.77.60:4011"); p == nil || p.BootFileName == "" {
				t.Errorf("%v", p)
			}
		}},
		{"PR-09 no URL needs a name server", func(t *testing.T) {
			p, _ := proxyRig(t).tell(capture(t, httpDiscover), false, "0.0.0.0:68")
			host, _, _ := strings.Cut(strings.TrimPrefix(string(p.Options.Get(dhcpv4.OptionBootfileName)), "http://"), "/")
			if _, err := netip.ParseAddrPort(host); err != nil {
				t.Errorf("%q is no address: %v", host, err)
			}
		}},
		{"PR-12 firmware that must ask on port 4011", func(t *testing.T) {
			r := proxyRig(t)
			r.decision.Boot.Redirect4011 = true
			p, _ := r.tell(capture(t, ovmfDiscover), false, "0.0.0.0:68")
			if p == nil || p.BootFileName != "" || p.Options.Has(dhcpv4.OptionVendorSpecificInformation) || p.ClassIdentifier() != "PXEClient" {
				t.Errorf("%v", p)
			}
			if p, _ = r.tell(capture(t, "dhcp4-ovmf-pxe-arch0007-request-port4011-l2uni"), true, "192.168.77.60:4011"); p == nil || p.BootFileName == "" {
				t.Errorf("%v", p)
			}
		}},
		{"PR-15 two proxies say the same", func(t *testing.T) {
			a, _ := proxyRig(t).raw(capture(t, ovmfDiscover))
			b, _ := proxyRig(t).raw(capture(t, ovmfDiscover))
			if !bytes.Equal(a, b) || a == nil {
				t.Errorf("%x\n%x", a, b)
			}
		}},
		{"PR-17 a proxy's offer is a broadcast", func(t *testing.T) {
			if _, to := proxyRig(t).raw(capture(t, ipxeDiscover)); to.String() != "255.255.255.255:68" {
				t.Errorf("to %s", to)
			}
		}},
		{"IX-06 ours goes before the site's own boot file", func(t *testing.T) {
			p, _ := proxyRig(t).tell(capture(t, ipxeDiscover), false, "0.0.0.0:68")
			if p == nil || !bytes.Equal(p.Options.Get(dhcpv4.GenericOptionCode(175)), []byte{1, 1, 1}) {
				t.Errorf("%v", p)
			}
		}},
		{"LB-03 silence about a local boot", func(t *testing.T) {
			r := proxyRig(t)
			r.decision, r.FastLocalBoot = lane.Decision{Action: lane.LocalBoot}, false
			if p, _ := r.tell(capture(t, ovmfDiscover), false, "0.0.0.0:68"); p != nil {
				t.Errorf("%v", p)
			}
		}},
		{"LB-08 a proxy's menu of local boot", func(t *testing.T) {
			r := proxyRig(t)
			r.decision = lane.Decision{Action: lane.LocalBoot}
			if p, _ := r.tell(capture(t, ovmfDiscover), false, "0.0.0.0:68"); p == nil || !p.YourIPAddr.IsUnspecified() || p.BootFileName != "" || !bytes.Equal(p.Options.Get(dhcpv4.OptionVendorSpecificInformation), localMenu()) {
				t.Errorf("%v", p)
			}
		}},
	})
}
