// Package migrate writes what Bootlane knows in the forms of other systems. It is pure.
package migrate

import (
	"net/netip"
	"slices"
	"time"

	"bootlane/internal/lane"
)

// Plan is what the DHCP server of a site has to know.
type Plan struct {
	lane.Subnet
	Interface     string // of Bootlane; the site's server may have another
	First, Last   netip.Addr
	Domain        string
	Lease         time.Duration
	Authoritative bool
	BaseURL       string // of the machines' HTTP listener
	Loaders       map[lane.Platform]string
	Hosts         []Host
}

// Host is a machine with an address of its own.
type Host struct {
	ID       lane.HostID
	Hostname string
	MACs     []lane.MAC
	Address  netip.Addr
}

// Form is how the site's server and Bootlane share the work.
type Form string

// The forms. With Owned, the site's server also names the boot files, and Bootlane speaks
// no DHCP at all (mode: external). With Proxied, it gives addresses only, and Bootlane
// stands beside it (mode: proxy). With SameMachine, both run on one machine, where port
// 67 is the site's server's: it sends PXE firmware on to Bootlane's port 4011 (only4011).
const (
	Owned       Form = "owned"
	Proxied     Form = "proxy"
	SameMachine Form = "proxy-4011"
)

// Forms returns every form.
func Forms() []Form { return []Form{Owned, Proxied, SameMachine} }

// Servers returns the servers that a configuration can be written for.
func Servers() []string { return []string{"dnsmasq", "kea", "isc"} }

// Export writes the configuration of a server.
func Export(server string, p Plan, f Form) (string, error) {
	if !slices.Contains(Forms(), f) {
		return "", lane.Errorf(lane.Invalid, "%q is not a form: use one of %v", f, Forms())
	}
	switch server {
	case "dnsmasq":
		return DNSmasq(p, f), nil
	case "kea":
		return Kea(p, f)
	case "isc":
		return ISC(p, f), nil
	}
	return "", lane.Errorf(lane.Invalid, "%q is not a DHCP server that a configuration can be written for: use one of %v", server, Servers())
}

// boot is one kind of client, and the boot file it is told.
type boot struct {
	platform lane.Platform
	arch     int  // option 93
	http     bool // UEFI HTTP Boot
	file     string
}

// boots lists the clients that a loader is configured for, in a fixed order. No path
// names a MAC: few servers can put one there.
func (p Plan) boots() (out []boot) {
	for _, b := range []boot{
		{lane.Platform{Arch: lane.X86_64, Firmware: lane.BIOS}, 0, false, ""},
		{lane.Platform{Arch: lane.I386, Firmware: lane.UEFI}, 6, false, ""},
		{lane.Platform{Arch: lane.X86_64, Firmware: lane.UEFI}, 7, false, ""},
		{lane.Platform{Arch: lane.X86_64, Firmware: lane.UEFI}, 9, false, ""},
		{lane.Platform{Arch: lane.ARM64, Firmware: lane.UEFI}, 11, false, ""},
		{lane.Platform{Arch: lane.I386, Firmware: lane.UEFI}, 15, true, ""},
		{lane.Platform{Arch: lane.X86_64, Firmware: lane.UEFI}, 16, true, ""},
		{lane.Platform{Arch: lane.ARM64, Firmware: lane.UEFI}, 19, true, ""},
	} {
		loader := p.Loaders[b.platform]
		if loader == "" {
			continue
		}
		b.file = lane.BootPath{Platform: b.platform, File: loader}.String()
		if b.http {
			b.file = p.BaseURL + "/" + b.file
		}
		out = append(out, b)
	}
	return out
}

// script is what iPXE is told: it breaks the loop of an iPXE that loads itself again.
func (p Plan) script() string { return p.BaseURL + "/" + lane.EntryScript }

// named returns the hosts that have a reservation, by id.
func (p Plan) named() []Host {
	out := slices.DeleteFunc(slices.Clone(p.Hosts), func(h Host) bool { return !h.Address.IsValid() || len(h.MACs) == 0 })
	slices.SortFunc(out, func(a, b Host) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return out
}
