package dhcp

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootlane/internal/lane"
)

var update = flag.Bool("update", false, "rewrite golden files")

// capture returns the UDP payload of a packet that real firmware sent.
func capture(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func network() Network {
	return Network{Interface: "test", Subnet: lane.Subnet{Server: netip.MustParseAddr("192.168.77.1"), Prefix: netip.MustParsePrefix("192.168.77.0/24"),
		Routers: addrList("192.168.77.254"), DNS: addrList("192.168.77.53", "192.168.77.54"), NTP: addrList("192.168.77.123")},
		Ranges: []Range{{First: netip.MustParseAddr("192.168.77.100"), Last: netip.MustParseAddr("192.168.77.103")}},
		Domain: "lab.example",
		Lease:  time.Hour, HTTPBase: "http://192.168.77.1:8080", HoldScreen: true, FastLocalBoot: true,
		Loaders: map[lane.Platform][]string{{Arch: lane.X86_64, Firmware: lane.UEFI}: {"snponly.efi", "ipxe.efi"}, {Arch: lane.X86_64, Firmware: lane.BIOS}: {"undionly.kpxe"}, {Arch: lane.ARM64, Firmware: lane.UEFI}: {"snponly-arm64.efi"}}}
}

func addrList(s ...string) (out []netip.Addr) {
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestCaptures(t *testing.T) {
	for _, c := range []struct {
		name     string
		class    class
		platform string
		uuid     lane.UUID
		msg      dhcpv4.MessageType
	}{
		{"dhcp4-ovmf-pxe-arch0007-discover-port67-bcast", pxe, "x86_64-uefi", "00112233-4455-6677-8899-aabbccddeeff", dhcpv4.MessageTypeDiscover},
		{"dhcp4-ovmf-pxe-arch0007-request-port67-bcast", pxe, "x86_64-uefi", "00112233-4455-6677-8899-aabbccddeeff", dhcpv4.MessageTypeRequest},
		{"dhcp4-ovmf-http-arch0010-discover-port67-bcast", httpc, "x86_64-uefi", "00112233-4455-6677-8899-aabbccddeeff", dhcpv4.MessageTypeDiscover},
		{"dhcp4-ovmf-http-arch0010-request-port67-bcast", httpc, "x86_64-uefi", "00112233-4455-6677-8899-aabbccddeeff", dhcpv4.MessageTypeRequest},
		{"dhcp4-ipxe-arch0007-discover-port67-bcast", ipxe, "x86_64-uefi", "00112233-4455-6677-8899-aabbccddeeff", dhcpv4.MessageTypeDiscover},
		{"dhcp4-ipxe-arch0000-request-port67-bcast", ipxe, "x86_64-bios", "00112233-4455-6677-8899-aabbccddeeff", dhcpv4.MessageTypeRequest},
		{"dhcp4-ovmf-pxe-archnone-decline-port67-bcast", plain, "any", "", dhcpv4.MessageTypeDecline},
	} {
		t.Run(c.name, func(t *testing.T) {
			q, err := parse(capture(t, c.name))
			if err != nil {
				t.Fatal(err)
			}
			if q.class != c.class || q.platform.String() != c.platform || q.facts.UUID != c.uuid || q.msg != c.msg {
				t.Errorf("class %d platform %s uuid %s message %s", q.class, q.platform, q.facts.UUID, q.msg)
			}
			if q.maxSize > 1472 {
				t.Errorf("reply size %d is more than EDK2 takes, whatever option 57 says", q.maxSize)
			}
		})
	}
}

// TestGoldenReplies keeps every byte of a reply under review.
func TestGoldenReplies(t *testing.T) {
	install := lane.Decision{Action: lane.Install}
	local := lane.Decision{Action: lane.LocalBoot}
	hold := lane.Decision{}
	address := netip.MustParseAddr("192.168.77.100")
	for _, c := range []struct {
		golden, capture string
		kind            dhcpv4.MessageType
		d               lane.Decision
	}{
		{"offer-pxe-install", "dhcp4-ovmf-pxe-arch0007-discover-port67-bcast", dhcpv4.MessageTypeOffer, install},
		{"ack-pxe-install", "dhcp4-ovmf-pxe-arch0007-request-port67-bcast", dhcpv4.MessageTypeAck, install},
		{"offer-pxe-hold", "dhcp4-ovmf-pxe-arch0007-discover-port67-bcast", dhcpv4.MessageTypeOffer, hold},
		{"offer-pxe-local", "dhcp4-ovmf-pxe-arch0007-discover-port67-bcast", dhcpv4.MessageTypeOffer, local},
		{"offer-http-install", "dhcp4-ovmf-http-arch0010-discover-port67-bcast", dhcpv4.MessageTypeOffer, install},
		{"offer-http-local", "dhcp4-ovmf-http-arch0010-discover-port67-bcast", dhcpv4.MessageTypeOffer, local},
		{"offer-ipxe-install", "dhcp4-ipxe-arch0007-discover-port67-bcast", dhcpv4.MessageTypeOffer, install},
		{"offer-ipxe-local", "dhcp4-ipxe-arch0000-discover-port67-bcast", dhcpv4.MessageTypeOffer, local},
	} {
		t.Run(c.golden, func(t *testing.T) {
			q, err := parse(capture(t, c.capture))
			if err != nil {
				t.Fatal(err)
			}
			got := network().lease(q, c.kind, address, c.d).marshal(q)
			rules(t, q, got)
			text := fmt.Sprintf("%s\n%s", hex.EncodeToString(got), describe(t, got))
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
func describe(t *testing.T, b []byte) string {
	t.Helper()
	var s strings.Builder
	fmt.Fprintf(&s, "yiaddr %s siaddr %s file %q\n", addr(b[16:20]), addr(b[20:24]), bytes.TrimRight(b[108:236], "\x00"))
	for o := b[240:]; o[0] != 255; o = o[2+o[1]:] {
		fmt.Fprintf(&s, "%3d %q\n", o[0], o[2:2+o[1]])
	}
	return s.String()
}

// rules checks what holds for every reply: RFC 2131 table 3 and firmware's needs.
func rules(t *testing.T, q query, b []byte) {
	t.Helper()
	p, err := dhcpv4.FromBytes(b)
	if err != nil {
		t.Fatalf("the reply cannot be parsed: %v", err)
	}
	if b[0] != 2 || b[3] != 0 || b[8] != 0 || b[9] != 0 || !bytes.Equal(b[4:8], q.xid[:]) || !bytes.Equal(b[28:44], q.chaddr[:]) {
		t.Error("header: op 2, hops 0, secs 0, xid and all 16 bytes of chaddr as they came")
	}
	if len(b) < 300 || len(b) > q.maxSize {
		t.Errorf("%d bytes, want 300 to %d", len(b), q.maxSize)
	}
	for _, never := range []uint8{13, 50, 52, 55, 57} {
		if p.Options.Has(dhcpv4.GenericOptionCode(never)) {
			t.Errorf("option %d must never be sent", never)
		}
	}
	first := b[240:]
	if first[0] != 53 {
		t.Errorf("option %d comes first, want 53", first[0])
	}
	for o := b[240:]; o[0] != 255; o = o[2+o[1]:] {
		if o[1] == 0 {
			t.Errorf("option %d is empty: EDK2 drops the packet", o[0])
		}
	}
	if f := p.Options.Get(dhcpv4.GenericOptionCode(67)); f != nil && q.class != httpc && f[len(f)-1] != 0 {
		t.Error("option 67 is not NUL-terminated")
	}
	if q.clientID != nil && !bytes.Equal(p.Options.Get(dhcpv4.OptionClientIdentifier), q.clientID) {
		t.Error("the client identifier is not echoed (RFC 6842)")
	}
}

func TestBootFieldsFollowTheDecision(t *testing.T) {
	address := netip.MustParseAddr("192.168.77.100")
	for name := range map[string]bool{"dhcp4-ovmf-pxe-arch0007-discover-port67-bcast": true, "dhcp4-ovmf-http-arch0010-discover-port67-bcast": true} {
		q, err := parse(capture(t, name))
		if err != nil {
			t.Fatal(err)
		}
		silent := network()
		silent.FastLocalBoot, silent.HoldScreen = false, false
		for _, d := range []lane.Decision{{Action: lane.LocalBoot}, {Action: lane.Hold}} {
			m := silent.lease(q, dhcpv4.MessageTypeOffer, address, d)
			if m.file != "" || m.siaddr.IsValid() || bytes.Contains(m.marshal(q), []byte("snponly")) || bytes.Contains(m.marshal(q), []byte("Client")) {
				t.Errorf("%s, %s: boot fields are sent although the policy is silent", name, d.Action)
			}
		}
		fast := network()
		if m := fast.lease(q, dhcpv4.MessageTypeOffer, address, lane.Decision{Action: lane.LocalBoot}); q.class == pxe && (m.file != "" || bytes.Contains(m.marshal(q), []byte("snponly"))) {
			t.Error("a local boot names a loader")
		}
	}
}

func TestOtherArchitectures(t *testing.T) {
	base := capture(t, "dhcp4-ovmf-pxe-arch0007-discover-port67-bcast")
	at := bytes.Index(base, []byte{93, 2, 0, 7})
	if at < 0 {
		t.Fatal("the capture has no option 93")
	}
	for code, want := range map[byte]string{0: "x86_64-bios", 6: "i386-uefi", 7: "x86_64-uefi", 9: "x86_64-uefi", 11: "arm64-uefi", 16: "x86_64-uefi", 19: "arm64-uefi"} {
		b := bytes.Clone(base)
		b[at+3] = code
		q, err := parse(b)
		if err != nil || q.platform.String() != want {
			t.Errorf("architecture %d is %s, want %s; %v", code, q.platform, want, err)
		}
	}
	b := bytes.Clone(base)
	b[at+3] = 200
	if q, err := parse(b); err != nil || q.platform.String() != "x86_64-uefi" {
		t.Errorf("an unknown number falls back to option 60: got %s, %v", q.platform, err)
	}
	b[at], b[at+1] = 93, 1 // odd length: garbage; the rest becomes other options
	if _, err := parse(b); err != nil {
		t.Logf("a packet with a cut option 93 is dropped: %v", err)
	}
}

// build makes a client message from options in wire form.
func build(msg byte, mac lane.MAC, edit func(b []byte), options ...byte) []byte {
	b := make([]byte, 240)
	b[0], b[1], b[2] = 1, 1, 6
	copy(b[4:8], []byte{1, 2, 3, 4})
	raw, err := hex.DecodeString(strings.ReplaceAll(string(mac), ":", ""))
	if err != nil {
		panic(err)
	}
	copy(b[28:], raw)
	copy(b[236:], []byte{99, 130, 83, 99})
	if edit != nil {
		edit(b)
	}
	b = append(b, 53, 1, msg)
	b = append(b, options...)
	return append(b, 255)
}

const client = lane.MAC("52:54:00:00:00:01")

func TestDropped(t *testing.T) {
	good := build(1, client, nil)
	edit := func(f func(b []byte)) []byte { b := bytes.Clone(good); f(b); return b }
	for name, b := range map[string][]byte{
		"empty":                 nil,
		"truncated header":      good[:239],
		"no end":                good[:len(good)-1],
		"option past the end":   append(good[:len(good)-1:len(good)-1], 12, 200, 'x'),
		"a reply":               edit(func(b []byte) { b[0] = 2 }),
		"hlen 0":                edit(func(b []byte) { b[2] = 0 }),
		"hlen 17":               edit(func(b []byte) { b[2] = 17 }),
		"token ring":            edit(func(b []byte) { b[1] = 6 }),
		"17 hops":               edit(func(b []byte) { b[3] = 17 }),
		"bad cookie":            edit(func(b []byte) { b[236] = 0 }),
		"multicast hardware":    edit(func(b []byte) { b[28] = 1 }),
		"64 KiB of pads":        append(bytes.Clone(good[:240]), make([]byte, 65000)...),
		"overload past the end": build(1, client, func(b []byte) { copy(b[108:], []byte{12, 250, 'x'}) }, 52, 1, 1),
	} {
		if q, err := parse(b); err == nil {
			t.Errorf("%s: taken as %+v", name, q)
		}
	}
}

func TestOverloadedOptions(t *testing.T) {
	vendor := append([]byte{60, 9}, "PXEClient"...)
	b := build(1, client, func(b []byte) {
		copy(b[108:], append(vendor, 255))
		copy(b[44:], []byte{93, 2, 0, 7, 255})
	}, 52, 1, 3)
	q, err := parse(b)
	if err != nil || q.class != pxe || q.platform.String() != "x86_64-uefi" {
		t.Errorf("options in file and sname are not read: class %d, %s, %v", q.class, q.platform, err)
	}
}

func TestUserClass(t *testing.T) {
	for name, c := range map[string]struct {
		user []byte
		want bool
	}{"bare": {[]byte("iPXE"), true}, "RFC 3004": {[]byte("\x04iPXE"), true}, "second": {[]byte("\x03abc\x04iPXE"), true}, "longer": {[]byte("iPXEx"), false},
		"cut": {[]byte("\x09iPXE"), false}, "empty": {nil, false}, "zeros": {[]byte{0, 0, 0}, false}} {
		if got := isIPXE(c.user); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestMachineIdentifier(t *testing.T) {
	uuid := []byte{0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}
	opt := func(b []byte) []byte {
		return append(append([]byte{60, 9}, "PXEClient"...), append([]byte{93, 2, 0, 7, 97, byte(len(b))}, b...)...)
	}
	for name, c := range map[string]struct {
		data []byte
		uuid lane.UUID
		echo bool
	}{
		"right":      {append([]byte{0}, uuid...), "00112233-4455-6677-8899-aabbccddeeff", true},
		"no type":    {uuid, "", false},
		"too long":   {append([]byte{0, 0}, uuid...), "", false},
		"other type": {append([]byte{1}, uuid...), "", false},
		"all ones":   {append([]byte{0}, bytes.Repeat([]byte{255}, 16)...), "", true},
	} {
		q, err := parse(build(1, client, nil, opt(c.data)...))
		if err != nil || q.facts.UUID != c.uuid || (q.machineID != nil) != c.echo {
			t.Errorf("%s: uuid %q, echoed %t, %v", name, q.facts.UUID, q.machineID != nil, err)
		}
	}
}

// TestSmallReply: without option 57 a reply keeps what a boot needs and drops the rest.
func TestSmallReply(t *testing.T) {
	q, err := parse(capture(t, "dhcp4-ovmf-pxe-arch0007-discover-port67-bcast"))
	if err != nil {
		t.Fatal(err)
	}
	q.maxSize = 548
	n := network()
	n.Domain = strings.Repeat("d", 200)
	n.DNS = make([]netip.Addr, 60)
	for i := range n.DNS {
		n.DNS[i] = netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
	}
	b := n.lease(q, dhcpv4.MessageTypeOffer, netip.MustParseAddr("192.168.77.100"), lane.Decision{Action: lane.Install}).marshal(q)
	rules(t, q, b)
	p, err := dhcpv4.FromBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, keep := range []uint8{53, 54, 51, 1, 60, 43, 67} {
		if !p.Options.Has(dhcpv4.GenericOptionCode(keep)) {
			t.Errorf("option %d was dropped", keep)
		}
	}
}

func FuzzParse(f *testing.F) {
	names, err := filepath.Glob("testdata/*.hex")
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range names {
		f.Add(capture(f, strings.TrimSuffix(filepath.Base(n), ".hex")))
	}
	n := network()
	f.Fuzz(func(t *testing.T, data []byte) {
		q, err := parse(data)
		if err != nil {
			return
		}
		if q.maxSize < 548 || q.maxSize > 1472 {
			t.Errorf("reply size %d", q.maxSize)
		}
		for _, d := range []lane.Decision{{}, {Action: lane.LocalBoot}, {Action: lane.Install}} {
			b := n.lease(q, dhcpv4.MessageTypeOffer, n.Ranges[0].First, d).marshal(q)
			if _, err := dhcpv4.FromBytes(b); err != nil || len(b) > q.maxSize {
				t.Errorf("reply of %d bytes: %v", len(b), err)
			}
			destination(q, dhcpv4.MessageTypeOffer, netip.AddrPortFrom(n.Ranges[0].First, 68))
		}
	})
}
