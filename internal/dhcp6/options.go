package dhcp6

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv6"
)

// option is one option as it stands on the wire.
type option struct {
	code dhcpv6.OptionCode
	data []byte
}

// options are walked here and not by the codec: it refuses a whole message for one
// option that it cannot read, and machines do send an architecture of odd length. What
// the codec gives us is names; in the tests it reads our replies.
type options []option

// parseOptions reads options, RFC 8415 21.1. They share memory with b.
func parseOptions(b []byte) (options, error) {
	var out options
	for len(b) > 0 {
		if len(b) < 4 {
			return nil, fmt.Errorf("%d bytes behind the last option", len(b))
		}
		code, n := dhcpv6.OptionCode(binary.BigEndian.Uint16(b)), int(binary.BigEndian.Uint16(b[2:]))
		if len(b) < 4+n {
			return nil, fmt.Errorf("option %d has %d bytes, and %d are there", code, n, len(b)-4)
		}
		out = append(out, option{code, b[4 : 4+n]})
		b = b[4+n:]
	}
	return out, nil
}

// get returns the first option of a code, and whether there is one.
func (o options) get(code dhcpv6.OptionCode) ([]byte, bool) {
	for _, v := range o {
		if v.code == code {
			return v.data, true
		}
	}
	return nil, false
}

// elements reads the list of texts with lengths of 16 bits that user and vendor class
// are, RFC 8415 21.15 and 21.16. It ends where it cannot be read.
func elements(b []byte) (out []string) {
	for len(b) >= 2 {
		n := int(binary.BigEndian.Uint16(b))
		if len(b) < 2+n {
			break
		}
		out = append(out, string(b[2:2+n]))
		b = b[2+n:]
	}
	return out
}

// association is an IA of a client: IA_NA, IA_TA or IA_PD, RFC 8415 21.4, 21.5, 21.21.
type association struct {
	code  dhcpv6.OptionCode
	id    [4]byte
	addrs []netip.Addr // of IA_NA, those that it names
}

// Bounds of what one message can make us do.
const (
	maxAssociations = 8
	maxNamed        = 8 // addresses in one of them
)

// parseAssociation reads an IA. One that cannot be read is none.
func parseAssociation(o option) (association, bool) {
	head := map[dhcpv6.OptionCode]int{dhcpv6.OptionIANA: 12, dhcpv6.OptionIATA: 4, dhcpv6.OptionIAPD: 12}[o.code]
	if head == 0 || len(o.data) < head {
		return association{}, false
	}
	a := association{code: o.code, id: [4]byte(o.data)}
	inner, err := parseOptions(o.data[head:])
	if err != nil {
		return association{}, false
	}
	for _, v := range inner {
		if v.code == dhcpv6.OptionIAAddr && len(v.data) >= 24 && o.code == dhcpv6.OptionIANA && len(a.addrs) < maxNamed {
			a.addrs = append(a.addrs, netip.AddrFrom16([16]byte(v.data)))
		}
	}
	return a, true
}

// writer puts options one behind the other.
type writer []byte

func (w *writer) add(code dhcpv6.OptionCode, data ...[]byte) {
	n := 0
	for _, d := range data {
		n += len(d)
	}
	*w = binary.BigEndian.AppendUint16(*w, uint16(code))
	*w = binary.BigEndian.AppendUint16(*w, uint16(n))
	for _, d := range data {
		*w = append(*w, d...)
	}
}

// status adds a status code, RFC 8415 21.13, with a text for people.
func (w *writer) status(code uint16, text string) {
	w.add(dhcpv6.OptionStatusCode, be16(code), []byte(text))
}

// address adds an IAADDR with its lifetime, in seconds. Preferred and valid are one:
// nobody is helped by an address that a machine still has and prefers not to use.
func (w *writer) address(a netip.Addr, lifetime uint32) {
	w.add(dhcpv6.OptionIAAddr, a.AsSlice(), be32(lifetime), be32(lifetime))
}

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

// addresses adds a list of addresses, or nothing.
func (w *writer) addresses(code dhcpv6.OptionCode, list []netip.Addr) {
	var b []byte
	for _, a := range list {
		b = append(b, a.AsSlice()...)
	}
	if len(b) > 0 {
		w.add(code, b)
	}
}
