package agent

import (
	"bytes"
	"net/netip"
)

// redfishAddress returns the address of the management controller's Redfish service, from
// the SMBIOS table (DSP0134) and its type 42, Management Controller Host Interface
// (DSP0270): that needs no IPMI driver. Empty where the firmware says nothing.
func redfishAddress(table []byte) string {
	for len(table) >= 4 {
		kind, size := table[0], int(table[1])
		if size < 4 || size > len(table) {
			return ""
		}
		if kind == 42 {
			if a := hostInterface(table[4:size]); a.IsValid() {
				return a.String()
			}
		}
		// The strings of a structure follow it and end in two zeros.
		end := bytes.Index(table[size:], []byte{0, 0})
		if end < 0 {
			return ""
		}
		table = table[size+end+2:]
	}
	return ""
}

// Offsets within a protocol record "Redfish over IP" (DSP0270, table 2): where the format
// and the address of the service stand.
const (
	protocolRedfish = 4
	atServiceFormat = 51 // 1: IPv4, 2: IPv6
	atService       = 52
)

// hostInterface reads type 42 behind its header: a type, the length of what describes the
// device, that, and a list of protocol records.
func hostInterface(b []byte) netip.Addr {
	if len(b) < 2 || len(b) < 3+int(b[1]) {
		return netip.Addr{}
	}
	count, rest := int(b[2+int(b[1])]), b[3+int(b[1]):]
	for ; count > 0 && len(rest) >= 2 && len(rest) >= 2+int(rest[1]); count-- {
		kind, data := rest[0], rest[2:2+int(rest[1])]
		rest = rest[2+len(data):]
		if kind != protocolRedfish || len(data) < atService+16 {
			continue
		}
		var a netip.Addr
		switch data[atServiceFormat] {
		case 1:
			a = netip.AddrFrom4([4]byte(data[atService:]))
		case 2:
			a = netip.AddrFrom16([16]byte(data[atService:]))
		}
		if a.IsValid() && !a.IsUnspecified() {
			return a
		}
	}
	return netip.Addr{}
}
