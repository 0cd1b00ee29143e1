package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"bootlane/internal/lane"
	"bootlane/internal/lint"
	"bootlane/internal/migrate"
	"bootlane/internal/script"
	"bootlane/internal/seed"
)

// secretStandIn takes the place of a run's capability in rendered files.
const secretStandIn = "capability-of-the-run"

// seedProblems returns why the host's installer documents could not be written.
func (c *Control) seedProblems(h lane.Host, b lane.Bundle) []lane.Problem {
	if c.unknownRole(h) != "" {
		return nil // that is told, and what would be installed is not known
	}
	site, _ := c.installed(h)
	h.Run = lane.Run{ID: "r-preflight", Capability: secretStandIn, Disk: h.Disk, Mirror: h.Mirror, BundleName: b.Ref(), Cluster: site.Cluster}
	var out []lane.Problem
	in, err := c.documents(h, b, c.BaseURL)
	var docs []seed.Document
	if err == nil {
		docs, err = seed.Documents(in)
	}
	if err == nil {
		out = c.lintProblems(b, append(docs, seed.Document{Name: "cmdline", Body: []byte(seed.KernelArgs(in, ""))}))
	}
	if e := new(lane.Error); errors.As(err, &e) && len(e.Problems) > 0 { // each names its field
		for _, p := range e.Problems {
			field, message, _ := strings.Cut(p, ": ")
			out = append(out, lane.Problem{Field: field, Message: message})
		}
	} else if err != nil {
		out = append(out, lane.Problem{Field: "seed", Message: err.Error()})
	}
	if b.Seed != lane.SeedImage && b.Seed != lane.SeedTalos && !in.Site.Admits() {
		out = append(out, lane.Problem{Field: "site", Message: "nobody could log in to the installed system: set site.sshKeys or site.passwordHash in the configuration; `bootlane seed explain` shows what a role or the record says in their place"})
	}
	if n := c.home(h.Network.Address); b.Seed == lane.SeedPreseed && len(n.DNS) == 0 && !n.Proxy {
		// No preseed answers this: the question comes before the preseed is fetched.
		out = append(out, lane.Problem{Field: "networks[].dns", Message: fmt.Sprintf("the Debian installer stops and asks for a name server when DHCP names none: set networks[].dns of %s in the configuration", n.Prefix)})
	}
	return out
}

// unpinned is the linter's rule of sources that move. It is a warning, for one file alone can
// be meant so; a bundle promises more.
const unpinned = "source-unpinned"

// lintProblems returns what the linter holds against the texts that an installer would read.
// Other warnings keep nobody from installing: `bootlane lint` tells them.
func (c *Control) lintProblems(b lane.Bundle, docs []seed.Document) (out []lane.Problem) {
	for _, d := range docs {
		if strings.HasSuffix(d.Name, ".service") { // ours, of which no rule speaks
			continue
		}
		f := lint.Detect(d.Name, d.Body)
		for _, x := range lint.File(d.Name, d.Body, f, lint.Options{Read: true, Release: b.Release}) { // package seed had what a bundle brings judged, and our scripts are known
			if x.Severity != lint.Error && (x.Rule != unpinned || c.Unpinned) {
				continue
			}
			out = append(out, lane.Problem{Field: fmt.Sprintf("%s:%d:%d", x.File, x.Line, x.Column), Message: fmt.Sprintf("%s [%s]: %s", x.Message, x.Rule, x.Mend)})
		}
	}
	return out
}

// Render returns everything that would be served to the host if it were
// provisioned now, and the equivalent dnsmasq configuration. No secret of any run
// is in it. A host without a usable bundle gets what does not need one.
func (c *Control) Render(ctx context.Context, id lane.HostID) ([]lane.Rendered, error) {
	h, err := c.record(ctx, id)
	if err != nil {
		return nil, err
	}
	site, _ := c.installed(h)
	h.Run = lane.Run{ID: "r-rendered", Open: true, Capability: secretStandIn, Disk: h.Disk, Mirror: h.Mirror, Cluster: site.Cluster, Boots: lane.DefaultBoots, BootsUsed: 1, Stage: lane.StageScript}
	n := c.home(h.Network.Address)
	files := []lane.Rendered{
		{Path: "inventory.env", Body: inventoryEnv(h)},
		{Path: "dhcp/proxy-pxe.conf", Body: migrate.DNSmasqProxy(c.plan(n))},
		{Path: "tftp/" + lane.EntryScript, Body: string(script.Entry(n.BaseURL))},
	}
	if !n.Proxy { // a proxy knows nothing of the addresses
		files = append(files, lane.Rendered{Path: "dhcp/direct-pxe.conf", Body: migrate.DNSmasq(c.plan(n, h), migrate.Owned)})
	}
	b, err := c.findBundle(ctx, h.Bundle)
	if err == nil {
		b, err = fitted(b, h)
	}
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
	in, err := c.documents(h, b, c.base(f))
	if err != nil {
		return nil, err
	}
	docs, err := seed.Documents(in)
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

// plan is what a site's own DHCP server would have to know of a network.
func (c *Control) plan(n Network, hosts ...lane.Host) migrate.Plan {
	p := migrate.Plan{Subnet: n.Subnet, Interface: n.Interface, First: n.First, Last: n.Last, Domain: n.Domain, Lease: n.Lease, Authoritative: n.Authoritative, BaseURL: n.BaseURL, Loaders: map[lane.Platform]string{}}
	for platform, paths := range c.Loaders {
		p.Loaders[platform] = filepath.Base(paths[0])
	}
	for _, h := range hosts {
		p.Hosts = append(p.Hosts, migrate.Host{ID: h.ID, Hostname: h.Hostname, MACs: h.Identity.MACs, Address: h.Network.Address})
	}
	return p
}

// ExportDHCP writes the configuration of a site's own DHCP server for a network, with a
// reservation of every host that has an address in it.
func (c *Control) ExportDHCP(ctx context.Context, e lane.DHCPExport) (lane.Rendered, error) {
	n, err := c.networkToExport(e)
	if err != nil {
		return lane.Rendered{}, err
	}
	var hosts []lane.Host
	for after := lane.HostID(""); ; {
		page, err := c.Store.Hosts(ctx, after, 500)
		if err != nil {
			return lane.Rendered{}, err
		}
		if len(page) == 0 {
			break
		}
		after = page[len(page)-1].ID
		hosts = append(hosts, slices.DeleteFunc(page, func(h lane.Host) bool { return h.State == lane.StateRetired || !n.Prefix.Contains(h.Network.Address) })...)
	}
	text, err := migrate.Export(e.Server, c.plan(n, hosts...), migrate.Form(e.Form))
	out := lane.Rendered{Path: e.Server + "-" + e.Form + ".conf", Body: text}
	switch owned := migrate.Form(e.Form) == migrate.Owned; {
	case owned && !n.External:
		out.Note = fmt.Sprintf("Bootlane answers DHCP in %s itself: set networks[].mode: external before that server starts", n.Prefix)
	case !owned && !n.Proxy:
		out.Note = fmt.Sprintf("nobody names the boot files of %s until networks[].mode is proxy: set it before that server starts", n.Prefix)
	case !owned:
		out.Note = "in mode: proxy Bootlane knows no routers, DNS servers or domain: add yours"
	}
	return out, err
}

// networkToExport finds the network, and which of its addresses may be given.
func (c *Control) networkToExport(e lane.DHCPExport) (Network, error) {
	var have []string
	for _, n := range c.Networks {
		if e.Network == n.Prefix.String() || e.Network == "" && len(c.Networks) == 1 {
			return withRange(n, e.Range)
		}
		have = append(have, n.Prefix.String())
	}
	if e.Network == "" {
		return Network{}, lane.Errorf(lane.Invalid, "the configuration has several networks: give --network, one of %s", strings.Join(have, ", "))
	}
	return Network{}, lane.Errorf(lane.Invalid, "the configuration has no network %s: give --network, one of %s", e.Network, strings.Join(have, ", "))
}

// withRange returns the network with the range that was asked for.
func withRange(n Network, text string) (Network, error) {
	if text != "" {
		first, last, _ := strings.Cut(text, "-")
		var errs [2]error
		n.First, errs[0] = netip.ParseAddr(strings.TrimSpace(first))
		n.Last, errs[1] = netip.ParseAddr(strings.TrimSpace(last))
		if errors.Join(errs[:]...) != nil || !n.Prefix.Contains(n.First) || !n.Prefix.Contains(n.Last) || n.Last.Less(n.First) {
			return n, lane.Errorf(lane.Invalid, "--range %q is not FIRST-LAST of addresses in %s", text, n.Prefix)
		}
	}
	if !n.First.IsValid() {
		return n, lane.Errorf(lane.Refused, "of %s Bootlane does not know which addresses may be given: say so with --range FIRST-LAST", n.Prefix)
	}
	return n, nil
}
