package migrate

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

type keaOption struct {
	Name       string `json:"name"`
	Data       string `json:"data"`
	AlwaysSend bool   `json:"always-send,omitempty"`
}

type keaClass struct {
	Name       string      `json:"name"`
	Test       string      `json:"test"`
	NextServer string      `json:"next-server,omitempty"`
	BootFile   string      `json:"boot-file-name,omitempty"`
	Options    []keaOption `json:"option-data,omitempty"`
}

type keaReservation struct {
	MAC      string `json:"hw-address"`
	Address  string `json:"ip-address"`
	Hostname string `json:"hostname,omitempty"`
}

type keaPool struct {
	Pool string `json:"pool"`
}

type keaSubnet struct {
	ID           int              `json:"id"`
	Subnet       string           `json:"subnet"`
	Interface    string           `json:"interface,omitempty"`
	Pools        []keaPool        `json:"pools"`
	Options      []keaOption      `json:"option-data,omitempty"`
	Reservations []keaReservation `json:"reservations,omitempty"`
}

type keaDHCP4 struct {
	Comment    string `json:"comment"`
	Interfaces struct {
		List []string `json:"interfaces"`
		// Kea opens no socket on an interface without a carrier, and by itself never tries
		// again: after a power cut it may well start before its switch does.
		Retries int `json:"service-sockets-max-retries"`
		Wait    int `json:"service-sockets-retry-wait-time"` // ms
	} `json:"interfaces-config"`
	Leases struct {
		Type    string `json:"type"`
		Persist bool   `json:"persist"`
	} `json:"lease-database"`
	Lifetime int `json:"valid-lifetime"`
	// MatchClientID is off: one network boot shows up to three client ids for one NIC.
	MatchClientID bool `json:"match-client-id"`
	// UniqueAddresses is off: a host's NICs share its one address.
	UniqueAddresses bool        `json:"ip-reservations-unique"`
	Authoritative   bool        `json:"authoritative"`
	Classes         []keaClass  `json:"client-classes,omitempty"`
	Subnets         []keaSubnet `json:"subnet4"`
}

// Kea writes a configuration file of Kea's DHCPv4 server, 2.2 or later.
func Kea(p Plan, f Form) (string, error) {
	k := keaDHCP4{Comment: "Written by `bootlane dhcp export kea`.", Lifetime: int(p.Lease.Seconds()), Authoritative: p.Authoritative}
	k.Interfaces.List, k.Interfaces.Retries, k.Interfaces.Wait = []string{p.Interface}, 100000, 2000
	k.Leases.Type, k.Leases.Persist = "memfile", true
	s := keaSubnet{ID: 1, Subnet: p.Prefix.String(), Interface: p.Interface, Pools: []keaPool{{fmt.Sprintf("%s - %s", p.First, p.Last)}}}
	for _, o := range []struct {
		name string
		list []netip.Addr
	}{{"routers", p.Routers}, {"domain-name-servers", p.DNS}, {"ntp-servers", p.NTP}} {
		if len(o.list) > 0 {
			s.Options = append(s.Options, keaOption{Name: o.name, Data: commas(o.list)})
		}
	}
	if p.Domain != "" {
		s.Options = append(s.Options, keaOption{Name: "domain-name", Data: p.Domain})
	}
	for _, h := range p.named() {
		for _, m := range h.MACs {
			s.Reservations = append(s.Reservations, keaReservation{string(m), h.Address.String(), h.Hostname})
		}
	}
	k.Subnets = []keaSubnet{s}
	switch f {
	case Owned:
		k.Classes = p.keaClasses()
	case SameMachine: // no boot file: the option sends PXE firmware on to port 4011 of this machine
		k.Classes = []keaClass{{Name: "bootlane-4011", Test: "substring(option[60].hex,0,9) == 'PXEClient'", Options: []keaOption{{"vendor-class-identifier", "PXEClient", true}}}}
	case Proxied:
	}
	b, err := json.MarshalIndent(map[string]keaDHCP4{"Dhcp4": k}, "", "  ")
	if err != nil {
		return "", fmt.Errorf("encode Kea's configuration: %w", err)
	}
	return string(b) + "\n", nil
}

func (p Plan) keaClasses() []keaClass {
	// iPXE sends its four letters bare, some builds with the length that RFC 3004 asks for.
	const isIPXE = "substring(option[77].hex,0,4) == 'iPXE' or substring(option[77].hex,1,4) == 'iPXE'"
	out := []keaClass{{Name: "bootlane-ipxe", Test: isIPXE, NextServer: p.Server.String(), BootFile: p.script()}}
	for _, b := range p.boots() {
		class, length := "PXEClient", 9
		if b.http {
			class, length = "HTTPClient", 10
		}
		c := keaClass{Name: fmt.Sprintf("bootlane-arch-%d", b.arch), NextServer: p.Server.String(), BootFile: b.file,
			Test: fmt.Sprintf("not member('bootlane-ipxe') and substring(option[60].hex,0,%d) == '%s' and substring(option[93].hex,0,2) == 0x%04x", length, class, b.arch)}
		if b.http { // firmware wants its class back, and reads the URL from option 67
			c.BootFile = ""
			c.Options = []keaOption{{"vendor-class-identifier", class, true}, {"boot-file-name", b.file, true}}
		}
		out = append(out, c)
	}
	return out
}
