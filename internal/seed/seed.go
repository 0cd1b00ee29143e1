// Package seed writes what an installer and a first boot read: preseed, NoCloud
// documents, kickstart, the agent's files, and the first-boot script. It is pure, and
// deterministic to the byte: host, bundle and site go in, text comes out.
//
// Identity and disk are checked again on the machine by these texts, because an
// installer whose early hook fails may go on regardless: on any doubt the
// script itself reports and powers the machine off.
package seed

import (
	"bytes"
	"embed"
	"encoding/base64"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"text/template"

	"bootlane/internal/lane"
)

//go:embed templates/*
var sources embed.FS

// templates are parsed once: machines ask for documents by the thousand.
var templates = template.Must(template.New("").Option("missingkey=error").
	Funcs(template.FuncMap{"sq": lane.ShellQuote, "dir": path.Dir, "yq": yamlQuote, "bareKey": bareKey, "join": func(list []string) string { return strings.Join(list, " ") }, "selector": selectorOf, "disk": diskOf, "array": arrayOf, "mb": megabytes, "mul": func(a, b int) int { return a * b }, "add": func(a, b int) int { return a + b }, "lines": func(list []string) string { return strings.Join(list, "\n") },
		"xq": xmlQuote, "jq": jsonQuote, "jl": jsonQuote, "commas": func(list []string) string { return strings.Join(list, ",") }}).ParseFS(sources, "templates/*"))

// Input is everything a document is made of.
type Input struct {
	Host   lane.Host
	Bundle lane.Bundle
	Site   Site
	// Origins say where the values of Site stand, for whoever has to mend one.
	Origins []lane.Origin
	// Scripts are the bundle's first-boot scripts, in order.
	Scripts []Script
	// Sections are the bundle's own parts of the seed's documents.
	Sections []Section
	// Config is the configuration that the bundle gives to the system itself; without a File there is none.
	Config Section
	// Endpoint is where the cluster that the machine is for answers; none where it is for none.
	Endpoint Endpoint
	Base     string // URL of the run without a trailing slash: http://10.0.0.1:8080/run/CAPABILITY
}

// Endpoint is a TLS server, and how it is known: by who signed its certificate.
type Endpoint struct {
	Address string // HOST:PORT
	CA      string // PEM, without a newline at its end
}

// Script is one program of a bundle that first boot runs.
type Script struct {
	Name string // a plain file name
	Body []byte
}

// Encoded returns the script in base64: whatever is in it, it cannot break out of what it stands in.
func (s Script) Encoded() string { return base64.StdEncoding.EncodeToString(s.Body) }

// Document is one named text.
type Document struct {
	Name string
	Type string // media type
	Body []byte
}

// The document types.
const (
	typeText  = "text/plain; charset=utf-8"
	typeShell = "text/x-shellscript; charset=utf-8"
	typeYAML  = "text/yaml; charset=utf-8"
	typeXML   = "application/xml"
	typeJSON  = "application/json"
)

// Documents returns everything that the bundle's installer reads for this host,
// by name. An error means that the input cannot be rendered safely.
func Documents(in Input) ([]Document, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	docs, err := in.rendered()
	if err != nil {
		return nil, err
	}
	for _, more := range []func() ([]Document, error){in.view().ignitionDocuments, in.view().talosDocuments} {
		own, err := more()
		if err != nil {
			return nil, err
		}
		docs = append(docs, own...)
	}
	return docs, nil
}

// rendered returns those that are made of templates alone.
func (in Input) rendered() ([]Document, error) {
	switch in.Bundle.Seed {
	case lane.SeedPreseed:
		return in.render(slices.Concat([]part{
			{"preseed.cfg", "preseed.cfg", typeText}, {"early.sh", "preseed-early.sh", typeShell},
			{"partman.sh", "preseed-partman.sh", typeShell}, {"late.sh", "preseed-late.sh", typeShell}}, in.encryption(), firstBoot()))
	case lane.SeedNoCloud:
		return in.render(slices.Concat([]part{
			{"user-data", "nocloud-user-data", typeYAML}, {"meta-data", "nocloud-meta-data", typeYAML},
			// cloud-init asks for these two eleven times when they are missing, ten seconds each.
			{"vendor-data", "", typeYAML}, {"network-config", "", typeYAML},
			{"gate.sh", "nocloud-gate.sh", typeShell}, {"late.sh", "nocloud-late.sh", typeShell}}, in.encryption(), firstBoot()))
	case lane.SeedKickstart:
		return in.render(slices.Concat([]part{
			{"ks.cfg", "kickstart.cfg", typeText}, {"gate.sh", "kickstart-gate.sh", typeShell},
			{"late.sh", "kickstart-late.sh", typeShell}, {"failed.sh", "kickstart-failed.sh", typeShell}}, in.encryption(), firstBoot()))
	case lane.SeedAutoYaST:
		return in.render(slices.Concat([]part{
			{"autoinst.xml", "autoyast.xml", typeXML}, {"gate.sh", "autoyast-gate.sh", typeShell}, {"late.sh", "autoyast-late.sh", typeShell}}, in.encryption(), firstBoot()))
	case lane.SeedAgama:
		return in.render(slices.Concat([]part{
			{"profile.json", "agama.json", typeJSON}, {"gate.sh", "agama-gate.sh", typeShell}, {"late.sh", "agama-late.sh", typeShell}}, in.encryption(), firstBoot()))
	case lane.SeedIgnition:
		return in.render(slices.Concat([]part{
			{"gate.sh", "ignition-gate.sh", typeShell}, {"install.sh", "ignition-install.sh", typeShell}}, firstBoot()))
	case lane.SeedTalos: // it reads one document, and runs nothing
		return nil, nil
	case lane.SeedImage:
		if in.Bundle.CloudInit() {
			return in.render(slices.Concat([]part{
				{"user-data", "image-user-data", typeYAML}, {"meta-data", "nocloud-meta-data", typeYAML}, {"network-config", "image-network-config", typeYAML}}, firstBoot()))
		}
		return in.render(firstBoot())
	}
	return nil, lane.Errorf(lane.Invalid, "the seed template %q is not known to this version", in.Bundle.Seed)
}

// KernelArgs returns the kernel arguments that lead the installer to its
// documents, without initrd=. boot is the MAC the machine booted from.
func KernelArgs(in Input, boot lane.MAC) string {
	bootif := ""
	if boot != "" {
		bootif = " BOOTIF=01-" + boot.Hyphens()
	}
	short, domain := in.names()
	own, _ := in.Bundle.KernelArgs(in.Base) // what leads nowhere was refused when the bundle came in
	var args string
	switch in.Bundle.Seed {
	case lane.SeedPreseed:
		args = "auto=true priority=critical preseed/url=" + in.Base + "/seed/preseed.cfg netcfg/choose_interface=auto netcfg/no_default_route=true" + bootif +
			// The first is lost to a name that DHCP or DNS gives, the second is not.
			" hostname=" + short + " netcfg/hostname=" + short + " domain=" + domain + " " + own + " ---"
	case lane.SeedNoCloud:
		// nocloud-net: cloud-init before 24.1 takes a seed of `nocloud` for a local one, and passes it
		// over; later ones take either name. iPXE has no quoting: the semicolon stands bare, it is
		// inside a token.
		args = "autoinstall cloud-config-url=/dev/null ip=dhcp" + bootif + " ds=nocloud-net;s=" + in.Base + "/seed/ " + own + " ---"
	case lane.SeedKickstart:
		// cmdline: what is not answered is an error, and no question; ksstrict: so is a warning;
		// nosave: the kickstart names what opens the run, and stays out of the system; leavebootorder:
		// the machine goes on booting by network, where it is told to boot its disk.
		args = "inst.ks=" + in.Base + "/seed/ks.cfg inst.stage2=" + in.medium().Stage2 + " inst.cmdline inst.ksstrict inst.nosave=all_ks inst.leavebootorder ip=dhcp" + bootif + " " + own
	case lane.SeedAutoYaST:
		// An address that ends in a slash would be that of rules, and of classes.
		args = "install=" + in.SUSETree() + " autoyast=" + in.Base + "/seed/autoinst.xml netsetup=dhcp" + bootif + " hostname=" + short + " self_update=0 textmode=1 " + own
	case lane.SeedAgama:
		args = in.agamaArgs() + " inst.finish=reboot inst.self_update=0 ip=dhcp rd.neednet=1" + bootif + " " + own
		if in.Bundle.Mirror != "" {
			args = "inst.install_url=" + strings.TrimSuffix(in.Bundle.Mirror, "/") + " " + args
		}
	case lane.SeedIgnition:
		args = "flatcar.first_boot=1 ignition.config.url=" + in.Base + "/seed/live.ign" + bootif + " " + own
	case lane.SeedTalos:
		args = in.talosArgs() + " " + own
	default:
		args = "bootlane.url=" + in.Base + bootif + " " + own
		if v := in.Host.Boot.VLAN; v != 0 {
			args = fmt.Sprintf("bootlane.vlan=%d %s", v, args)
		}
	}
	return strings.Join(strings.Fields(args), " ")
}

// Need is a file of a mirror that an installer fetches early.
type Need struct {
	Field string // of the bundle, that names the mirror
	URL   string
}

// Needs returns one file of every mirror that the bundle's installer fetches from: who has
// it has the release.
func Needs(in Input) (out []Need) {
	need := func(field, base, path string) {
		if base != "" {
			out = append(out, Need{field, strings.TrimSuffix(base, "/") + path})
		}
	}
	b, m := in.Bundle, in.medium()
	switch {
	case b.Seed == lane.SeedKickstart && b.Mirror != "":
		need("mirror", m.Packages, "/repodata/repomd.xml")
		need("mirror", m.AppStream, "/repodata/repomd.xml")
	case b.Seed == lane.SeedPreseed && b.Release != "":
		need("mirror", b.Mirror, "/dists/"+b.Release+"/Release")
		need("security", b.Security, "/dists/"+b.Release+"-security/Release")
	case b.Seed == lane.SeedIgnition:
		need("mirror", b.Mirror, "/"+b.Release+"/flatcar_production_image.bin.bz2")
		need("mirror", b.Mirror, "/"+b.Release+"/flatcar_production_image.bin.bz2.sig")
	case b.Seed == lane.SeedAutoYaST && b.Tree == "", b.Seed == lane.SeedAgama:
		need("mirror", b.Mirror, "/")
	case b.Seed == lane.SeedNoCloud: // the image's own release is asked for
		need("mirror", b.Mirror, "/dists/")
		need("security", b.Security, "/dists/")
	}
	return out
}

// cloudSeed is where cloud-init looks for NoCloud on the disk, before it asks anybody.
const cloudSeed = "/var/lib/cloud/seed/nocloud/"

// AgentFiles returns what the agent places into the root file system of a
// freshly written image: the host's name and its first boot, and what its cloud-init reads.
func AgentFiles(in Input) ([]lane.File, error) {
	docs, err := Documents(in)
	if err != nil {
		return nil, err
	}
	if in.Bundle.Ignites() {
		return in.igniteFile(docs), nil
	}
	short, domain := in.names()
	fqdn := short
	if domain != "" {
		fqdn = short + "." + domain
	}
	files := append(view{Input: in}.NetworkFiles(), []lane.File{
		{Path: "/etc/hostname", Mode: 0o644, Content: short + "\n"},
		{Path: "/etc/hosts", Mode: 0o644, Content: "127.0.0.1 localhost\n127.0.1.1 " + strings.TrimSpace(strings.Join(unique(fqdn, short), " ")) + "\n::1 localhost ip6-localhost\n"},
		// Empty, not missing: systemd then makes a new one, and no two machines share the image's.
		{Path: "/etc/machine-id", Mode: 0o444},
		{Path: "/etc/systemd/system/multi-user.target.wants/bootlane-firstboot.service", Link: "/etc/systemd/system/bootlane-firstboot.service"},
	}...)
	if in.Bundle.CloudInit() { // and nowhere else does it look, for what somebody else might answer
		files = append(files, lane.File{Path: "/etc/cloud/cloud.cfg.d/99-bootlane.cfg", Mode: 0o644, Content: "datasource_list: [NoCloud, None]\n"})
	}
	for _, d := range docs {
		switch d.Name {
		case "firstboot.sh":
			files = append(files, lane.File{Path: in.FirstBootPath(), Mode: 0o700, Content: string(d.Body)})
		case "firstboot.service":
			files = append(files, lane.File{Path: "/etc/systemd/system/bootlane-firstboot.service", Mode: 0o644, Content: string(d.Body)})
		default:
			if len(d.Body) > 0 { // an empty network-config is none: cloud-init asks by DHCP
				files = append(files, lane.File{Path: cloudSeed + d.Name, Mode: 0o600, Content: string(d.Body)})
			}
		}
	}
	return files, nil
}

func unique(a, b string) []string {
	if a == b {
		return []string{a}
	}
	return []string{a, b}
}

type part struct{ name, template, mediaType string }

// firstBoot are the documents of every seed.
func firstBoot() []part {
	return []part{{"firstboot.sh", "firstboot.sh", typeShell}, {"firstboot.service", "firstboot.service", typeText}}
}

func (in Input) view() view {
	short, domain := in.names()
	v := view{Input: in, Short: short, Domain: domain, Mirror: splitMirror(in.Bundle.Mirror), Security: splitMirror(in.Bundle.Security), Medium: in.medium()}
	v.Anaconda, _ = in.Bundle.Anaconda() // another installer's is nothing, and none of its documents asks
	v.SUSE, _ = in.Bundle.SUSE()         // the same
	return v
}

func (in Input) render(parts []part) ([]Document, error) {
	view := in.view()
	var out []Document
	for _, p := range parts {
		var b bytes.Buffer
		if p.template != "" {
			if err := templates.ExecuteTemplate(&b, p.template, view); err != nil {
				return nil, fmt.Errorf("render %s: %w", p.name, err)
			}
		}
		out = append(out, Document{p.name, p.mediaType, b.Bytes()})
	}
	return out, nil
}

// view is what templates see.
type view struct {
	Input
	Short, Domain    string
	Mirror, Security mirror
	Medium           medium
	Anaconda         lane.Anaconda
	SUSE             lane.SUSE
}

type mirror struct{ Host, Directory string }

func splitMirror(url string) mirror {
	rest := strings.TrimPrefix(url, "http://")
	host, dir, _ := strings.Cut(rest, "/")
	return mirror{host, "/" + strings.TrimSuffix(dir, "/")}
}

func (in Input) names() (short, domain string) {
	short, domain, _ = strings.Cut(in.Host.Hostname, ".")
	if domain == "" {
		domain = in.Site.Domain
	}
	return short, domain
}

// EndpointName has openssl compare the certificate with the address that was asked.
func (v view) EndpointName() string {
	host, _, _ := strings.Cut(strings.TrimPrefix(v.Endpoint.Address, "["), "]")
	if host == strings.TrimPrefix(v.Endpoint.Address, "[") {
		host = host[:max(0, strings.LastIndexByte(host, ':'))]
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return "-verify_ip " + host
	}
	return "-verify_hostname " + host
}

// Direct is what keeps an installer's proxy, which it may have in its environment, from being
// used by the command that follows.
func (v view) Direct() string {
	if v.Site.Proxy == "" {
		return ""
	}
	return "http_proxy= "
}

// FromImage reports whether the system was written as an image into whose root files of ours were
// put: then first boot does what an installer would have done.
func (v view) FromImage() bool { return v.Bundle.Seed == lane.SeedImage && !v.Bundle.Ignites() }

// NeedsAccount reports whether the system must be given the site's administrator.
func (v view) NeedsAccount() bool { return v.FromImage() && v.Site.Admits() }

// MakesAccount reports whether first boot does that; where cloud-init does, it looks only.
func (v view) MakesAccount() bool { return v.NeedsAccount() && !v.Bundle.CloudInit() }

// ForKubernetes reports whether a kubelet is to run on the system.
func (v view) ForKubernetes() bool { return v.Site.Purpose == lane.PurposeKubernetes }

// StartsByBIOS reports whether machines of the architecture may have no UEFI.
func (v view) StartsByBIOS() bool { return v.Bundle.Arch != lane.ARM64 }

// NoSwap reports whether the system must not swap.
func (v view) NoSwap() bool { return v.Site.Swap == lane.SwapOff }

// Containerd reports whether containerd must run.
func (v view) Containerd() bool { return v.Site.Runtime == lane.RuntimeContainerd }

// WantIdentity returns by what the machine is known, for people.
func (v view) WantIdentity() string {
	var out []string
	if u := v.Host.Identity.UUID; !u.Placeholder() {
		out = append(out, "uuid "+string(u))
	}
	if s := v.Serial(); s != "" {
		out = append(out, "serial "+s)
	}
	if m := v.MACs(); m != "" {
		out = append(out, "mac "+strings.ReplaceAll(m, " ", " or "))
	}
	return strings.Join(out, ", ")
}

// ScriptNames returns the names of the bundle's scripts, which are plain words.
func (v view) ScriptNames() string {
	var out []string
	for _, s := range v.Scripts {
		out = append(out, s.Name)
	}
	return strings.Join(out, " ")
}

// UUIDs returns the host's UUID in both byte orders, for scripts that compare.
func (v view) UUIDs() string {
	u := v.Host.Identity.UUID
	if u.Placeholder() {
		return ""
	}
	return string(u) + " " + string(u.Swapped())
}

// MACs returns the host's MACs, separated by blanks.
func (v view) MACs() string {
	var out []string
	for _, m := range v.Host.Identity.MACs {
		out = append(out, string(m))
	}
	return strings.Join(out, " ")
}

// Serial returns the host's serial number, or nothing when it says nothing.
func (v view) Serial() string {
	if lane.PlaceholderText(v.Host.Identity.Serial) {
		return ""
	}
	return v.Host.Identity.Serial
}

// selector is a disk, and the names of the two shell functions that know it.
type selector struct {
	Matches, Fits string
	Disk          lane.DiskSelector
}

func selectorOf(matches, fits string, d lane.DiskSelector) selector {
	return selector{matches, fits, d}
}

// ModelStart is what the disk's model begins with, as udev writes it.
func (s selector) ModelStart() string { return strings.ReplaceAll(s.Disk.Model, " ", "_") }

// Mirrored reports whether there is a second disk.
func (v view) Mirrored() bool { return !v.Host.Run.Mirror.IsZero() }

// Sectors returns the bounds of the disk's size in 512-byte sectors, or zeros.
func (s selector) Sectors() [2]int64 {
	gb := s.Disk.SizeGB
	if gb == 0 {
		return [2]int64{}
	}
	return [2]int64{int64(gb * 1e9 * 0.99 / 512), int64(gb * 1e9 * 1.01 / 512)}
}

// check refuses what no quoting could carry: the formats differ, but none of
// them takes control characters. What stands in a comment or in a line of the
// preseed stands there bare, and must be plain.
func (in Input) check() error {
	var problems []string
	bad := func(field, format string, args ...any) {
		problems = append(problems, field+": "+fmt.Sprintf(format, args...))
	}
	for _, f := range []struct{ name, v string }{{"serial", in.Host.Identity.Serial}, {"disk", in.Host.Run.Disk.String()}, {"mirror", in.Host.Run.Mirror.String()}} {
		if f.v != lane.Clean(f.v, len(f.v)) {
			bad(f.name, "has control characters or blanks at an end")
		}
	}
	for _, f := range []struct{ name, v string }{{"id", string(in.Host.ID)}, {"hostname", in.Host.Hostname}} {
		if !lane.DomainName(f.v) {
			bad(f.name, "%q is not a host name", f.v)
		}
	}
	for _, f := range []struct{ name, v string }{{"run.id", string(in.Host.Run.ID)}, {"run.bundleName", in.Host.Run.BundleName}} {
		if !plainWord.MatchString(f.v) {
			bad(f.name, "%q is not one plain word", f.v)
		}
	}
	if !baseURL.MatchString(in.Base) {
		bad("base", "%q is not http://ADDRESS:PORT/run/CAPABILITY", in.Base)
	}
	if e := in.Endpoint; e != (Endpoint{}) && !(endpointAddress.MatchString(e.Address) && certificates.MatchString(e.CA)) {
		bad("endpoint", "%q is not HOST:PORT with certificates in PEM", e.Address)
	}
	for _, p := range in.Site.validate() {
		bad(in.path(p.Field), "%s", p.Message)
	}
	if in.Host.Boot.VLAN != 0 && in.Bundle.Seed != lane.SeedImage {
		bad("boot.vlan", "only Bootlane's agent tags its frames, and the bundle's installer does not: deliver the boot VLAN untagged at the switch port, or use a bundle with an image")
	}
	problems = slices.Concat(problems, in.checkNetwork(), in.checkLayout(), in.checkEncryption(), in.checkBundle(), in.checkIgnition(), in.checkSections())
	if len(problems) > 0 {
		return &lane.Error{Code: lane.Invalid, Message: "the seed cannot be written", Problems: problems}
	}
	return nil
}

func (in Input) checkBundle() []string {
	var out []string
	for _, m := range []struct{ name, v string }{{"mirror", in.Bundle.Mirror}, {"security", in.Bundle.Security}} {
		if m.v != "" && !mirrorURL.MatchString(m.v) {
			out = append(out, "bundle."+m.name+": "+m.v+" is not http://HOST/DIRECTORY")
		}
	}
	switch in.Bundle.Seed {
	case lane.SeedTalos:
		return append(out, in.checkTalos()...)
	case lane.SeedKickstart:
		return append(out, in.checkKickstart()...)
	case lane.SeedNoCloud:
		if len(in.view().Packages()) > 0 && in.Bundle.Mirror == "" {
			field := "packages"
			if len(in.Site.Packages) == 0 {
				field = "encryption"
			}
			out = append(out, in.path(field)+": the bundle pins no mirror, and the installer would take them from wherever it likes: set `mirror` in the bundle's bundle.yaml, and build it with a new version")
		}
		return out
	case lane.SeedAutoYaST, lane.SeedAgama:
		return append(out, in.checkSUSE()...)
	case lane.SeedImage:
		return append(out, in.checkImage()...)
	case lane.SeedPreseed:
		return append(out, in.checkPreseed()...)
	}
	return out
}

// checkImage refuses what an image has of its own: it is written as it is.
func (in Input) checkImage() (out []string) {
	// A disk of the record may have one part in a hundred more.
	if disk, i := in.Host.Run.Disk.SizeGB, in.Bundle.Image; i != nil && disk > 0 && float64(i.RawBytes) > disk*1.01e9 {
		out = append(out, fmt.Sprintf("disk.sizeGB: the image is of %.1f GB, and the disk has %g: use a smaller image, or another disk", float64(i.RawBytes)/1e9, disk))
	}
	if in.Bundle.Ignites() {
		return out
	}
	for _, f := range []struct {
		name string
		list []string
		mend string
	}{{"packages", in.Site.Packages, "install them in the image, or by a firstBoot script of the bundle"}, {"kernelArgs", in.Site.KernelArgs, "set them in the image's boot loader"}} {
		if len(f.list) > 0 {
			out = append(out, fmt.Sprintf("%s: an image is written as it is: %s, and say `%s: []` for this host or its role", in.path(f.name), f.mend, f.name))
		}
	}
	return out
}

func (in Input) checkPreseed() (out []string) {
	if in.Bundle.Mirror == "" {
		out = append(out, "bundle.mirror: the Debian installer needs a pinned http:// mirror: set `mirror` in the bundle's bundle.yaml, and build it with a new version")
	}
	if !codename.MatchString(in.Bundle.Release) || slices.Contains([]string{"stable", "oldstable", "testing", "unstable"}, in.Bundle.Release) {
		out = append(out, fmt.Sprintf("bundle.release: %q is not a codename like bookworm: names that move do not pin anything", in.Bundle.Release))
	}
	return out
}

// yamlQuote makes a double-quoted YAML scalar: PyYAML would take many bare words
// and all-digit MACs for other types.
func yamlQuote(s any) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range fmt.Sprint(s) {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f || r > 0x7e:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
