package lane

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestParseMAC(t *testing.T) {
	for in, want := range map[string]MAC{
		"52:54:00:12:34:56":       "52:54:00:12:34:56",
		"52-54-00-12-34-56":       "52:54:00:12:34:56",
		"525400123456":            "52:54:00:12:34:56",
		"52:54:00:AB:CD:EF":       "52:54:00:ab:cd:ef",
		"00:00:00:00:00:01":       "00:00:00:00:00:01",
		"":                        "",
		"52:54:00:12:34":          "",
		"52:54:00:12:34:56:78":    "",
		"52:54:00:12:34:5g":       "",
		" 52:54:00:12:34:56":      "",
		"52:54:00:12:34:56\n":     "",
		"5254.0012.3456":          "",
		"00:00:00:00:00:00":       "", // no NIC
		"ff:ff:ff:ff:ff:ff":       "", // broadcast
		"01:00:5e:00:00:01":       "", // multicast
		"33:33:00:00:00:01":       "", // IPv6 multicast
		"52:54:00:12:34:56:":      "",
		strings.Repeat("5", 4096): "",
	} {
		got, err := ParseMAC(in)
		if got != want || (err == nil) != (want != "") || err != nil && CodeOf(err) != Invalid {
			t.Errorf("ParseMAC(%.40q) = %q, %v", in, got, err)
		}
	}
	if m, err := MACFromBytes([]byte{0x52, 0x54, 0, 0x12, 0x34, 0x56}); m != "52:54:00:12:34:56" || err != nil {
		t.Errorf("from bytes: %q, %v", m, err)
	}
	if m, err := MACFromBytes(make([]byte, 8)); err == nil {
		t.Errorf("eight bytes give %q", m)
	}
	if h := MAC("52:54:00:12:34:56").Hyphens(); h != "52-54-00-12-34-56" {
		t.Errorf("hyphens: %s", h)
	}
}

func TestParseUUID(t *testing.T) {
	const want = UUID("00112233-4455-6677-8899-aabbccddeeff")
	for _, in := range []string{string(want), strings.ToUpper(string(want)), "{" + string(want) + "}", strings.ReplaceAll(string(want), "-", ""), "  " + string(want) + "\n"} {
		if got, err := ParseUUID(in); got != want || err != nil {
			t.Errorf("ParseUUID(%q) = %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "00112233", "00112233-4455-6677-8899-aabbccddeef", "00112233-4455-6677-8899-aabbccddeefg", "0011223344556677-8899-aabbccddeeff", "001122334455-6677-8899-aabbccddeeff-", string(want) + string(want)} {
		if got, err := ParseUUID(in); err == nil || CodeOf(err) != Invalid || got != "" {
			t.Errorf("ParseUUID(%q) = %q, %v", in, got, err)
		}
	}
}

func TestUUIDByteOrders(t *testing.T) {
	// The same board, as RFC 4122 prints its UUID and as SMBIOS stores it.
	const printed, swapped = UUID("33221100-5544-7766-8899-aabbccddeeff"), UUID("00112233-4455-6677-8899-aabbccddeeff")
	raw := []byte{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}
	if u, err := UUIDFromSMBIOS(raw); u != printed || err != nil {
		t.Errorf("from SMBIOS: %s, %v", u, err)
	}
	for _, b := range [][]byte{nil, raw[:15], append(raw, 0)} {
		if u, err := UUIDFromSMBIOS(b); err == nil {
			t.Errorf("%d bytes give %s", len(b), u)
		}
	}
	if printed.Swapped() != swapped || swapped.Swapped() != printed {
		t.Errorf("%s swapped is %s", printed, printed.Swapped())
	}
	for _, odd := range []UUID{"", "short", UUID(strings.Repeat("x", 40))} {
		if odd.Swapped() != odd {
			t.Errorf("%q swapped is %q", odd, odd.Swapped())
		}
	}
	for _, c := range []struct {
		u, v UUID
		same bool
	}{
		{printed, printed, true}, {printed, swapped, true}, {swapped, printed, true},
		{printed, "33221100-5544-7766-8899-aabbccddeefe", false},
		{printed, "", false}, {"", "", false},
		{placeholderUUIDs[0], placeholderUUIDs[0], false}, // is the same as nothing
		{"00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000", false},
	} {
		if got := c.u.SameAs(c.v); got != c.same {
			t.Errorf("%q same as %q: %v", c.u, c.v, got)
		}
	}
}

func TestPlaceholderUUIDs(t *testing.T) {
	list := append([]UUID{"", "not-a-uuid", "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "11111111-1111-1111-1111-111111111111"}, placeholderUUIDs...)
	for _, u := range list {
		if !u.Placeholder() || !u.Swapped().Placeholder() {
			t.Errorf("%q passes for a machine's own", u)
		}
	}
	for _, u := range placeholderUUIDs {
		if _, err := ParseUUID(string(u)); err != nil {
			t.Errorf("the list holds %q, which no machine can show", u)
		}
	}
	for _, u := range []UUID{identityA.UUID, "4c4c4544-0042-3510-8051-b4c04f4d3732", "00000000-0000-0000-0000-525400123456"} {
		if u.Placeholder() || u.Swapped().Placeholder() {
			t.Errorf("%q is taken for a placeholder", u)
		}
	}
}

func TestPlaceholderText(t *testing.T) {
	for _, s := range append([]string{"", "   ", "---", "0", "00000000", "XXXXXXXXXX", "éééé", "To be filled by O.E.M.", "TO BE FILLED BY O.E.M", "Default string", "default_string", "System Serial Number",
		"Not Specified", "N/A", "None", "Chassis Serial Number", "0123456789", "No Asset Tag", "\x00\x00", "....................."}, placeholderTexts...) {
		if !PlaceholderText(s) {
			t.Errorf("%q passes for a machine's own", s)
		}
	}
	for _, s := range []string{"SN1", "7CZ1234", "PF-0X1Y2Z", "VMware-56 4d", "éàéà", "0123456789A", "none-7"} {
		if PlaceholderText(s) {
			t.Errorf("%q is taken for a placeholder", s)
		}
	}
}

func TestClean(t *testing.T) {
	for _, c := range []struct {
		name, in string
		max      int
		want     string
	}{
		{"plain", "SN 123", 20, "SN 123"},
		{"blanks at the ends", "  SN  ", 20, "SN"},
		{"controls", "a\r\n\t\x00\x1b[31mb\x7f", 20, "a[31mb"},
		{"direction", "abc\u202edef\u2066", 20, "abcdef"},
		{"invisible", "a\u200bb\ufeffc\u00a0d", 20, "abcd"},
		{"not UTF-8", "a\xff\xfeb\xc3", 20, "ab"},
		{"letters of the world", "Gerät 測試", 20, "Gerät 測試"},
		{"cut", "abcdef", 3, "abc"},
		{"cut within a letter", "aéb", 2, "a"},
		{"cut bares a blank", "ab cd", 3, "ab"},
		{"nothing allowed", "abc", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Clean(c.in, c.max); got != c.want {
				t.Errorf("Clean(%q, %d) = %q, want %q", c.in, c.max, got, c.want)
			}
		})
	}
}

// FuzzSMBIOSText: vendors, users and attackers write these strings.
func FuzzSMBIOSText(f *testing.F) {
	for _, s := range []string{"", "SN-1", "To Be Filled By O.E.M.", "a\x00b", "\xff\xfe", "\u202eabc", "  x  ", "ds=nocloud;s=http://192.0.2.1/", strings.Repeat("\xc3\xa9 ", 3000)} {
		f.Add(s, 128)
	}
	f.Fuzz(func(t *testing.T, s string, max int) {
		max &= 1<<16 - 1
		got := Clean(s, max)
		if len(got) > max || !utf8.ValidString(got) || strings.ContainsFunc(got, unprintable) || strings.TrimSpace(got) != got {
			t.Errorf("Clean(%q, %d) = %q", s, max, got)
		}
		if again := Clean(got, max); again != got {
			t.Errorf("cleaned twice: %q, then %q", got, again)
		}
		if PlaceholderText(s) != PlaceholderText(strings.ToUpper(strings.ToLower(s))) && !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) {
			t.Errorf("case decides whether %q is a placeholder", s)
		}
		// What says nothing makes no key, and what makes no key finds no record.
		if keys := (Facts{Serial: s}).Keys(); (len(keys) == 0) != PlaceholderText(s) {
			t.Errorf("%q has the keys %q", s, keys)
		}
	})
}

func TestCleanIsLinear(t *testing.T) {
	// 16 MiB: anything quadratic would run into the test's timeout.
	if got := Clean(strings.Repeat("a", 16<<20), 100); len(got) != 100 {
		t.Errorf("%d bytes", len(got))
	}
}

func TestKeys(t *testing.T) {
	i := Identity{UUID: identityA.UUID, MACs: []MAC{"52:54:00:00:00:a1", "52:54:00:00:00:a2"}, Serial: "SN-A", AssetTag: "AT-A", Chassis: "C", Rack: "R", BMC: "10.0.0.9"}
	u := string(identityA.UUID)
	want := []string{"uuid:" + u, "mac:52:54:00:00:00:a1", "mac:52:54:00:00:00:a2", "serial:SN-A", "asset:AT-A"}
	f := Facts{UUID: i.UUID, MAC: i.MACs[1], MACs: i.MACs, Serial: i.Serial, AssetTag: i.AssetTag}
	if diff := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(f.Keys()))); diff != "" {
		t.Errorf("what a machine is looked up by (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(append(want, "uuid:"+string(identityA.UUID.Swapped())), i.Keys()); diff != "" {
		t.Errorf("what a record is found by (-want +got):\n%s", diff)
	}
	silent := Identity{UUID: placeholderUUIDs[0], Serial: "None", AssetTag: "No Asset Tag"}
	if keys := silent.Keys(); len(keys) != 0 {
		t.Errorf("placeholders make the keys %q", keys)
	}
	palindrome := Identity{UUID: "aaaaaaaa-bbbb-cccc-8899-aabbccddeeff"} // the same in both byte orders
	if keys := palindrome.Keys(); len(keys) != 1 {
		t.Errorf("keys %q", keys)
	}
}

func TestAllMACs(t *testing.T) {
	for _, c := range []struct {
		f    Facts
		want []MAC
	}{
		{Facts{}, nil},
		{Facts{MAC: "a"}, []MAC{"a"}},
		{Facts{MACs: []MAC{"b", "", "b"}}, []MAC{"b"}},
		{Facts{MAC: "b", MACs: []MAC{"a", "b", "c"}}, []MAC{"b", "a", "c"}},
	} {
		if got := c.f.AllMACs(); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.f, got, c.want)
		}
	}
}

func TestPlatforms(t *testing.T) {
	for _, p := range append(Platforms(), Platform{}) {
		if got, ok := ParsePlatform(p.String()); !ok || got != p {
			t.Errorf("%s reads as %s, %v", p, got, ok)
		}
	}
	for _, s := range []string{"", "x86_64", "x86_64-", "amd64-uefi", "arm64-bios", "X86_64-UEFI"} {
		if p, ok := ParsePlatform(s); ok {
			t.Errorf("%q reads as %s", s, p)
		}
	}
	for in, want := range map[string]Arch{"x86_64": X86_64, "AMD64": X86_64, "x64": X86_64, "aarch64": ARM64, "arm64": ARM64, "i386": I386, "i686": I386, "386": I386, "": "", "riscv64": ""} {
		if got, err := ParseArch(in); got != want || (err == nil) != (want != "") {
			t.Errorf("ParseArch(%q) = %q, %v", in, got, err)
		}
	}
}

func TestHardwareCanonical(t *testing.T) {
	hw := Hardware{UUID: "AAAAAAAA-0011-2233-8899-AABBCCDDEEFF", BootMAC: "52-54-00-00-00-A1", NICs: []NIC{{Name: "eth0", MAC: "52:54:00:00:00:A1"}}}
	if err := hw.Canonical(); err != nil || hw.UUID != identityA.UUID || hw.BootMAC != identityA.MACs[0] || hw.NICs[0].MAC != identityA.MACs[0] {
		t.Errorf("%+v, %v", hw, err)
	}
	for _, bad := range []Hardware{{UUID: "x"}, {BootMAC: "x"}, {NICs: []NIC{{MAC: ""}}}} {
		if err := bad.Canonical(); CodeOf(err) != Invalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := (&Hardware{}).Canonical(); err != nil {
		t.Errorf("a machine that knows nothing of itself: %v", err)
	}
}

// TestUUIDInEitherOrder: inventories are written from Redfish, dmidecode and stickers,
// and no two of them agree on the byte order.
func TestUUIDInEitherOrder(t *testing.T) {
	t.Run("PX-06 an inventory in the other byte order", func(t *testing.T) {
		h := Host{ID: "node-a", Identity: Identity{UUID: "33221100-5544-7766-8899-aabbccddeeff", MACs: []MAC{"52:54:00:00:00:a1"}}}
		f := Facts{Surface: SurfaceDHCP, Speaker: SpeakerROM, UUID: "00112233-4455-6677-8899-aabbccddeeff", MAC: "52:54:00:00:00:a1"}
		if got, d := resolve([]Host{h}, f); got.ID != "node-a" {
			t.Errorf("%+v", d)
		}
	})
}

// TestMACBytes: there and back, and zeros of what is no MAC.
func TestMACBytes(t *testing.T) {
	for _, b := range [][6]byte{{0x52, 0x54, 0, 0x12, 0x34, 0x56}, {0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54}} {
		m, err := MACFromBytes(b[:])
		if got := m.Bytes(); err != nil || got != b {
			t.Errorf("%x becomes %s, and that %x; %v", b, m, got, err)
		}
	}
	for _, m := range []MAC{"", "52:54:00:12:34", "52:54:00:12:34:5g", "52:54:00:12:34:56:"} {
		if got := m.Bytes(); got != ([6]byte{}) {
			t.Errorf("%q becomes %x", m, got)
		}
	}
}
