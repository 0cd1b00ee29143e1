package lane

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MAC is an Ethernet address in its one canonical form: "52:54:00:12:34:56".
type MAC string

// UUID is a system UUID in its one canonical form: lower case, with hyphens,
// in the byte order that RFC 4122 prints.
type UUID string

// Identity is what the inventory says a machine is.
type Identity struct {
	UUID     UUID   `json:"uuid,omitempty" yaml:"uuid,omitempty"`
	MACs     []MAC  `json:"macs,omitempty" yaml:"macs,omitempty"` // every NIC the machine may boot from
	Serial   string `json:"serial,omitempty" yaml:"serial,omitempty"`
	AssetTag string `json:"assetTag,omitempty" yaml:"assetTag,omitempty"`
	Chassis  string `json:"chassis,omitempty" yaml:"chassis,omitempty"`
	Rack     string `json:"rack,omitempty" yaml:"rack,omitempty"`
	Unit     string `json:"unit,omitempty" yaml:"unit,omitempty"`
	BMC      string `json:"bmc,omitempty" yaml:"bmc,omitempty"` // address of the management controller
}

var macForm = regexp.MustCompile(`^[0-9a-f]{2}([:-]?[0-9a-f]{2}){5}$`)

// ParseMAC reads 52:54:00:12:34:56, 52-54-00-12-34-56 or 525400123456 in either case.
// The all-zero, the broadcast and every multicast address are refused: no NIC boots with one.
func ParseMAC(s string) (MAC, error) {
	l := strings.ToLower(s)
	if !macForm.MatchString(l) {
		return "", Errorf(Invalid, "%q is not a MAC address like 52:54:00:12:34:56", s)
	}
	raw, err := hex.DecodeString(strings.NewReplacer(":", "", "-", "").Replace(l))
	m, bad := MACFromBytes(raw)
	if err != nil || bad != nil {
		return "", Errorf(Invalid, "%q is not the address of one NIC (zero, broadcast or multicast)", s)
	}
	return m, nil
}

const hexDigits = "0123456789abcdef"

// MACFromBytes returns the canonical form of a 6-byte hardware address. It is called for
// every packet of a boot storm.
func MACFromBytes(b []byte) (MAC, error) {
	if len(b) != 6 || b[0]&1 != 0 || string(b) == "\x00\x00\x00\x00\x00\x00" {
		return "", Errorf(Invalid, "%x is not the address of one NIC (zero, broadcast or multicast)", b)
	}
	out := make([]byte, 0, 17)
	for i, v := range b {
		if i > 0 {
			out = append(out, ':')
		}
		out = append(out, hexDigits[v>>4], hexDigits[v&15])
	}
	return MAC(out), nil
}

// Bytes returns the six bytes. Each MAC of ours is in canonical form; of anything else it
// returns zeros, which are nobody's address. It is called for every packet of a boot storm.
func (m MAC) Bytes() (b [6]byte) {
	if len(m) != 17 {
		return b
	}
	for i := range b {
		high, low := strings.IndexByte(hexDigits, m[3*i]), strings.IndexByte(hexDigits, m[3*i+1])
		if high < 0 || low < 0 {
			return [6]byte{}
		}
		b[i] = byte(high<<4 | low)
	}
	return b
}

// Hyphens returns 52-54-00-12-34-56, the form used in paths and by iPXE's hexhyp.
func (m MAC) Hyphens() string { return strings.ReplaceAll(string(m), ":", "-") }

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// ParseUUID reads a UUID in its printed form, in either case, with or without hyphens and braces.
func ParseUUID(s string) (UUID, error) {
	l := strings.Trim(strings.ToLower(strings.TrimSpace(s)), "{}")
	if len(l) == 32 {
		l = l[0:8] + "-" + l[8:12] + "-" + l[12:16] + "-" + l[16:20] + "-" + l[20:32]
	}
	if !uuidForm.MatchString(l) {
		return "", Errorf(Invalid, "%q is not a UUID like 00112233-4455-6677-8899-aabbccddeeff", s)
	}
	return UUID(l), nil
}

// UUIDFromSMBIOS reads the 16 raw bytes of SMBIOS type 1, as DHCP option 97
// carries them: the first three fields are little-endian.
func UUIDFromSMBIOS(b []byte) (UUID, error) {
	u, err := ParseUUID(hex.EncodeToString(b))
	if err != nil {
		return "", err
	}
	return u.Swapped(), nil
}

// Swapped returns the UUID with the byte order of its first three fields
// reversed. Firmware older than SMBIOS 2.6, IPMI and some Redfish services print
// a machine's UUID that way round.
func (u UUID) Swapped() UUID {
	if len(u) != 36 {
		return u
	}
	b := []byte(u)
	for _, p := range [][2]int{{0, 6}, {2, 4}, {9, 11}, {14, 16}} { // pairs of digits that change places
		b[p[0]], b[p[1]] = b[p[1]], b[p[0]]
		b[p[0]+1], b[p[1]+1] = b[p[1]+1], b[p[0]+1]
	}
	return UUID(b)
}

// SameAs reports whether both name one machine, in either byte order.
// A placeholder is the same as nothing.
func (u UUID) SameAs(v UUID) bool {
	if u.Placeholder() || v.Placeholder() {
		return false
	}
	return u == v || u.Swapped() == v
}

// placeholderUUIDs are values that boards ship with when nobody set one; whole
// batches share them. Compared in both byte orders.
var placeholderUUIDs = []UUID{
	"03000200-0400-0500-0006-000700080009", // AMI default, many Supermicro and ASRock boards
	"12345678-1234-5678-90ab-cddeefaabbcc", // ASUS and Gigabyte samples
	"12345678-1234-5678-1234-567812345678", // firmware example code
	"00020003-0004-0005-0006-000700080009", // the AMI default, half swapped
	"fefefefe-fefe-fefe-fefe-fefefefefefe", // erased EEPROM pattern
	"01234567-8910-1112-1314-151617181920", // hand-typed counter
	"11111111-2222-3333-4444-555555555555", // hand-typed
	"4c4c4544-0000-2010-8020-80c04f202020", // Dell service tag left blank ("DELL" and spaces)
}

// Placeholder reports whether the UUID cannot identify a machine: absent, all
// one digit, or a known factory default.
func (u UUID) Placeholder() bool {
	if len(u) != 36 {
		return true
	}
	digits := strings.ReplaceAll(string(u), "-", "")
	swapped := u.Swapped()
	return strings.Trim(digits, digits[:1]) == "" ||
		slices.ContainsFunc(placeholderUUIDs, func(p UUID) bool { return p == u || p == swapped })
}

// placeholderTexts are what vendors leave in SMBIOS strings that nobody filled
// in, folded to lower case without blanks and punctuation.
var placeholderTexts = []string{
	"tobefilledbyoem", "tobefilledbyo", "defaultstring", "systemserialnumber", "serialnumber", "chassisserialnumber",
	"assettag", "noassettag", "noassetinformation", "noassettagspecified", "chassisassettag", "baseboardserialnumber",
	"notspecified", "notapplicable", "notavailable", "none", "null", "unknown", "na", "oem", "invalid", "empty", "undefined",
	"sn", "xxxxxxxxxx", "0123456789", "123456789", "1234567890", "01234567890123456789", "systemname", "systemversion",
	"filledbyoem", "tbd", "atatoemspecification", "chassis", "asset1234567890",
}

// PlaceholderText reports whether a serial number or asset tag says nothing:
// empty, one repeated character, or a known factory default.
func PlaceholderText(s string) bool {
	folded := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, s)
	_, first := utf8.DecodeRuneInString(folded)
	return strings.Trim(folded, folded[:first]) == "" || contains(placeholderTexts, folded)
}

// ShellQuote makes one word of a text for any POSIX shell.
func ShellQuote(s any) string {
	return "'" + strings.ReplaceAll(fmt.Sprint(s), "'", `'\''`) + "'"
}

// Clean returns s as it may be shown, logged and stored: valid UTF-8, no control
// or direction-changing characters, blanks trimmed, at most max bytes. What a
// machine says about itself passes through here first.
func Clean(s string, max int) string {
	s = strings.Map(func(r rune) rune {
		if unprintable(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	s = strings.TrimSpace(s)
	if len(s) > max {
		s = strings.TrimSpace(strings.ToValidUTF8(s[:max], "")) // a cut may split a letter, or bare a blank
	}
	return s
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
