package migrate

import (
	"fmt"
	"net/netip"
	"strings"
)

// ISC writes a configuration file of ISC's dhcpd.
func ISC(p Plan, f Form) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Written by `bootlane dhcp export isc`.")
	if p.Authoritative {
		line("authoritative;")
	}
	line("default-lease-time %d;\nmax-lease-time %d;", int(p.Lease.Seconds()), int(p.Lease.Seconds()))
	line("option client-arch code 93 = unsigned integer 16;")
	line("subnet %s netmask %s {", p.Prefix.Masked().Addr(), p.Mask())
	line("  range %s %s;", p.First, p.Last)
	for _, o := range []struct {
		name string
		list []netip.Addr
	}{{"routers", p.Routers}, {"domain-name-servers", p.DNS}, {"ntp-servers", p.NTP}} {
		if len(o.list) > 0 {
			line("  option %s %s;", o.name, strings.ReplaceAll(commas(o.list), ",", ", "))
		}
	}
	if p.Domain != "" {
		line("  option domain-name %q;", p.Domain)
	}
	switch f {
	case Owned:
		p.iscBoot(line)
	case SameMachine:
		line("  # No boot file: this option sends PXE firmware on to port 4011 of this machine, Bootlane's.")
		line("  if substring(option vendor-class-identifier, 0, 9) = \"PXEClient\" { option vendor-class-identifier \"PXEClient\"; }")
	case Proxied:
	}
	line("}")
	for _, h := range p.named() {
		for i, m := range h.MACs {
			line("host %s-%d { hardware ethernet %s; fixed-address %s; option host-name %q; }", h.ID, i, m, h.Address, h.Hostname)
		}
	}
	return b.String()
}

func (p Plan) iscBoot(line func(string, ...any)) {
	line("  next-server %s;", p.Server)
	line("  if exists user-class and (option user-class = \"iPXE\" or substring(option user-class, 1, 4) = \"iPXE\") {")
	line("    filename %q;", p.script())
	for _, k := range p.boots() {
		class, length := "PXEClient", 9
		if k.http {
			class, length = "HTTPClient", 10
		}
		line("  } elsif substring(option vendor-class-identifier, 0, %d) = %q and option client-arch = %02x:%02x {", length, class, k.arch>>8, k.arch&255) // dhcpd takes a plain number, and finds it equal to nothing
		if k.http {
			line("    option vendor-class-identifier %q;", class)
		}
		line("    filename %q;", k.file)
	}
	line("  }")
}
