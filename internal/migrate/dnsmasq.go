package migrate

import (
	"fmt"
	"net/netip"
	"strings"
)

// DNSmasq writes a configuration file of dnsmasq.
func DNSmasq(p Plan, f Form) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Written by `bootlane dhcp export dnsmasq`.")
	line("port=0")
	line("interface=%s", p.Interface)
	line("bind-interfaces")
	line("dhcp-range=%s,%s,%d", p.First, p.Last, int(p.Lease.Seconds()))
	if p.Authoritative {
		line("dhcp-authoritative")
	}
	for _, o := range []struct {
		name string
		list []netip.Addr
	}{{"router", p.Routers}, {"dns-server", p.DNS}, {"ntp-server", p.NTP}} {
		if len(o.list) > 0 {
			line("dhcp-option=option:%s,%s", o.name, commas(o.list))
		}
	}
	if p.Domain != "" {
		line("domain=%s", p.Domain)
	}
	for _, h := range p.named() { // one line for all NICs: dnsmasq refuses an address that stands in two
		var macs []string
		for _, m := range h.MACs {
			macs = append(macs, string(m))
		}
		line("dhcp-host=%s,%s,%s", strings.Join(macs, ","), h.Hostname, h.Address)
	}
	switch f {
	case Proxied:
		line("# No boot file: Bootlane answers beside this server, with mode: proxy.")
	case SameMachine:
		line("# No boot file: this option sends PXE firmware on to port 4011 of this machine, Bootlane's.")
		line("dhcp-vendorclass=set:pxe,PXEClient\ndhcp-option-force=tag:pxe,60,PXEClient")
	default:
		p.dnsmasqBoot(&b)
	}
	return b.String()
}

// DNSmasqProxy writes a configuration file of dnsmasq as a proxyDHCP server, beside
// another server that owns the addresses.
func DNSmasqProxy(p Plan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# dnsmasq as a proxyDHCP server, beside one that owns the addresses.\nport=0\ninterface=%s\nbind-interfaces\ndhcp-range=%s,proxy\n", p.Interface, p.Prefix.Masked().Addr())
	p.dnsmasqBoot(&b)
	return b.String()
}

func (p Plan) dnsmasqBoot(b *strings.Builder) {
	fmt.Fprintf(b, "# Boot files, by TFTP and HTTP from Bootlane; iPXE gets the script that breaks the loop.\ndhcp-userclass=set:ipxe,iPXE\n")
	for _, k := range p.boots() {
		tag := fmt.Sprintf("arch%d", k.arch)
		fmt.Fprintf(b, "dhcp-match=set:%s,option:client-arch,%d\n", tag, k.arch)
		if k.http { // UEFI HTTP Boot takes no offer without this echo
			fmt.Fprintf(b, "dhcp-option-force=tag:%s,60,HTTPClient\n", tag)
		}
		fmt.Fprintf(b, "dhcp-boot=tag:%s,tag:!ipxe,%s,,%s\n", tag, k.file, p.Server)
	}
	fmt.Fprintf(b, "dhcp-boot=tag:ipxe,%s,,%s\n", p.script(), p.Server)
}

func commas(list []netip.Addr) string {
	var out []string
	for _, a := range list {
		out = append(out, a.String())
	}
	return strings.Join(out, ",")
}
