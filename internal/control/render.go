package control

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"bootlane/internal/lane"
	"bootlane/internal/script"
	"bootlane/internal/seed"
)

// secretStandIn takes the place of a run's capability in rendered files.
const secretStandIn = "capability-of-the-run"

// seedProblems returns why the host's installer documents could not be written.
func (c *Control) seedProblems(h lane.Host, b lane.Bundle) []lane.Problem {
	h.Run = lane.Run{ID: "r-preflight", Capability: secretStandIn, Disk: h.Disk, BundleName: b.Ref()}
	var out []lane.Problem
	if _, err := seed.Documents(c.input(h, b, c.BaseURL)); err != nil {
		out = append(out, lane.Problem{Field: "seed", Message: err.Error()})
	}
	if b.Seed != lane.SeedImage && !c.Site.Admits() {
		out = append(out, lane.Problem{Field: "site", Message: "nobody could log in to the installed system: set site.sshKeys or site.passwordHash in the configuration"})
	}
	if n := c.home(h.Network.Address); b.Seed == lane.SeedPreseed && len(n.DNS) == 0 && !n.Proxy {
		// No preseed answers this: the question comes before the preseed is fetched.
		out = append(out, lane.Problem{Field: "networks[].dns", Message: fmt.Sprintf("the Debian installer stops and asks for a name server when DHCP names none: set networks[].dns of %s in the configuration", n.Prefix)})
	}
	return out
}

// Render returns everything that would be served to the host if it were
// provisioned now, and the equivalent dnsmasq configuration. No secret of any run
// is in it. A host without a usable bundle gets what does not need one.
func (c *Control) Render(ctx context.Context, id lane.HostID) ([]lane.Rendered, error) {
	h, err := c.Store.Host(ctx, id)
	if err != nil {
		return nil, err
	}
	h.Run = lane.Run{ID: "r-rendered", Open: true, Capability: secretStandIn, Disk: h.Disk, Boots: lane.DefaultBoots, BootsUsed: 1, Stage: lane.StageScript}
	n := c.home(h.Network.Address)
	files := []lane.Rendered{
		{Path: "inventory.env", Body: inventoryEnv(h)},
		{Path: "dhcp/proxy-pxe.conf", Body: c.dnsmasqProxy(n)},
		{Path: "tftp/" + lane.EntryScript, Body: string(script.Entry(n.BaseURL))},
	}
	if !n.Proxy { // a proxy knows nothing of the addresses
		files = append(files, lane.Rendered{Path: "dhcp/direct-pxe.conf", Body: c.dnsmasqDirect(n, h)})
	}
	b, err := c.Bundles.Find(h.Bundle)
	if err != nil {
		return files, nil
	}
	h.Run.Bundle, h.Run.BundleName = b.Digest, b.Ref()
	f := lane.Facts{UUID: h.Identity.UUID, Arch: h.Arch, Firmware: lane.UEFI, Server: n.BaseURL}
	if len(h.Identity.MACs) > 0 {
		f.MAC = h.Identity.MACs[0]
	}
	d := lane.Decision{Action: lane.Install, Reason: lane.Granted, Host: h.ID, Run: h.Run.ID}
	files = append(files, lane.Rendered{Path: "http/boot/" + string(h.ID) + ".ipxe", Body: string(script.InstallScript(c.install(h, b, d, f)))})
	docs, err := seed.Documents(c.input(h, b, c.base(f)))
	if err != nil {
		return nil, err
	}
	for _, doc := range docs {
		path := "http/seed/" + string(h.ID) + "/" + doc.Name
		if doc.Name == "firstboot.sh" {
			path = "http/bootstrap/" + string(h.ID) + ".sh"
		}
		files = append(files, lane.Rendered{Path: path, Body: string(doc.Body)})
	}
	return files, nil
}

func inventoryEnv(h lane.Host) string {
	var b strings.Builder
	set := func(k, v string) { fmt.Fprintf(&b, "%s='%s'\n", k, strings.ReplaceAll(v, "'", `'\''`)) }
	macs := make([]string, len(h.Identity.MACs))
	for i, m := range h.Identity.MACs {
		macs[i] = string(m)
	}
	set("HOST_ID", string(h.ID))
	set("HOST_STATE", string(h.State))
	set("HOST_NAME", h.Hostname)
	set("HOST_UUID", string(h.Identity.UUID))
	set("HOST_MACS", strings.Join(macs, " "))
	set("HOST_SERIAL", h.Identity.Serial)
	set("HOST_ASSET_TAG", h.Identity.AssetTag)
	set("HOST_RACK", h.Identity.Rack)
	set("HOST_UNIT", h.Identity.Unit)
	set("HOST_BMC", h.Identity.BMC)
	set("HOST_ARCH", string(h.Arch))
	set("HOST_ROLE", h.Role)
	set("HOST_BUNDLE", h.Bundle)
	set("HOST_DISK", h.Disk.String())
	if h.Network.Address.IsValid() {
		set("HOST_ADDRESS", h.Network.Address.String())
	}
	if h.Network.Address6.IsValid() {
		set("HOST_ADDRESS6", h.Network.Address6.String())
	}
	return b.String()
}

// dnsmasqArchs maps what dnsmasq sees in option 93 to a platform.
var dnsmasqArchs = []struct {
	code     int
	platform lane.Platform
}{{0, lane.Platform{Arch: lane.X86_64, Firmware: lane.BIOS}}, {7, lane.Platform{Arch: lane.X86_64, Firmware: lane.UEFI}},
	{9, lane.Platform{Arch: lane.X86_64, Firmware: lane.UEFI}}, {11, lane.Platform{Arch: lane.ARM64, Firmware: lane.UEFI}}}

func (c *Control) dnsmasqDirect(n Network, h lane.Host) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# What Bootlane's own DHCP does for this network, said to dnsmasq.\nport=0\ninterface=%s\nbind-interfaces\ndhcp-range=%s,%s,%d\n", n.Interface, n.First, n.Last, int(n.Lease.Seconds()))
	if n.Authoritative {
		b.WriteString("dhcp-authoritative\n")
	}
	for _, o := range []struct {
		name string
		list []netip.Addr
	}{{"router", n.Routers}, {"dns-server", n.DNS}, {"ntp-server", n.NTP}} {
		if len(o.list) > 0 {
			fmt.Fprintf(&b, "dhcp-option=option:%s", o.name)
			for _, a := range o.list {
				fmt.Fprintf(&b, ",%s", a)
			}
			b.WriteByte('\n')
		}
	}
	if n.Domain != "" {
		fmt.Fprintf(&b, "domain=%s\n", n.Domain)
	}
	if len(h.Identity.MACs) > 0 { // one line for all NICs: dnsmasq refuses an address that stands in two
		b.WriteString("dhcp-host=")
		for _, m := range h.Identity.MACs {
			fmt.Fprintf(&b, "%s,", m)
		}
		b.WriteString(h.Hostname)
		if h.Network.Address.IsValid() {
			fmt.Fprintf(&b, ",%s", h.Network.Address)
		}
		b.WriteByte('\n')
	}
	c.dnsmasqBoot(n, &b, "dhcp-boot=tag:%s,%s,,"+n.Server.String()+"\n")
	return b.String()
}

func (c *Control) dnsmasqProxy(n Network) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The same beside a DHCP server that owns the addresses.\nport=0\ninterface=%s\nbind-interfaces\ndhcp-range=%s,proxy\n", n.Interface, n.Prefix.Addr())
	c.dnsmasqBoot(n, &b, "dhcp-boot=tag:%s,%s,,"+n.Server.String()+"\n")
	return b.String()
}

func (c *Control) dnsmasqBoot(n Network, b *strings.Builder, boot string) {
	b.WriteString("enable-tftp\ntftp-root=/srv/tftp\ndhcp-userclass=set:ipxe,iPXE\n")
	tagged := map[lane.Platform]bool{}
	for _, a := range dnsmasqArchs {
		loaders := c.Loaders[a.platform]
		if len(loaders) == 0 {
			continue
		}
		fmt.Fprintf(b, "dhcp-match=set:%s,option:client-arch,%d\n", a.platform, a.code)
		if !tagged[a.platform] {
			fmt.Fprintf(b, boot, a.platform.String()+",tag:!ipxe", filepath.Base(loaders[0]))
		}
		tagged[a.platform] = true
	}
	fmt.Fprintf(b, boot, "ipxe", n.BaseURL+"/"+lane.EntryScript)
}
