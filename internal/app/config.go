package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"bootlane/internal/lane"
	"bootlane/internal/strictyaml"
)

// Config is the configuration file. Every field has a good zero value but the boot
// networks, which nobody can guess.
type Config struct {
	Data     string           `yaml:"data"` // directory of the database, the bundles and the token
	Listen   Listen           `yaml:"listen"`
	Networks []Network        `yaml:"networks"`
	Classes  []Class          `yaml:"classes,omitempty"`
	Loaders  map[string]Files `yaml:"loaders"` // platform to files; the first is given when nobody asks for another
	TFTP     TFTP             `yaml:"tftp"`
	Policy   Policy           `yaml:"policy"`
	Bundles  Bundles          `yaml:"bundles,omitempty"`
	// Site is what installed systems get, Roles what those of a role get in its place.
	Site  lane.InstallOptions            `yaml:"site"`
	Roles map[string]lane.InstallOptions `yaml:"roles,omitempty"`
	// Profiles are what the hardware of some hosts must have, by name.
	Profiles map[string]lane.Profile `yaml:"profiles,omitempty"`
	// Clusters are the clusters that hosts can join, by name.
	Clusters map[string]Cluster `yaml:"clusters,omitempty"`
	// SecureBoot is what is known of firmware that takes signed code only.
	SecureBoot SecureBoot `yaml:"secureBoot,omitempty"`
	Log        string     `yaml:"log"` // debug, info, warn, error
}

// Files is one file, or a list of them.
type Files []string

// UnmarshalYAML reads a text or a list of texts.
func (f *Files) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*f = Files{n.Value}
		return nil
	}
	var list []string
	err := n.Decode(&list)
	*f = list
	return err
}

// TFTP bounds what is agreed to with TFTP clients.
type TFTP struct {
	MaxBlock     int  `yaml:"maxBlock"`     // bytes; 0: what the way to the client takes unfragmented
	MaxWindow    int  `yaml:"maxWindow"`    // blocks for one ACK
	MaxPerClient int  `yaml:"maxPerClient"` // transfers of one client address at once
	SinglePort   bool `yaml:"singlePort"`   // answer from port 69, not from a new port for each transfer
}

// Listen says where the listeners are.
type Listen struct {
	Machines  string `yaml:"machines"`  // HTTP for machines; default: port 8080 of the networks' servers
	Operators string `yaml:"operators"` // HTTP for operators; default: 127.0.0.1:8070
	TFTP      string `yaml:"tftp"`      // default: port 69 of the networks' servers
	// HTTPS and LegacyHTTPS are further ports for machines; none by default. The second
	// admits TLS 1.0 and RSA key exchange, for firmware and iPXE that know no better.
	HTTPS       string   `yaml:"https,omitempty"`
	LegacyHTTPS string   `yaml:"legacyHTTPS,omitempty"`
	Certificate string   `yaml:"certificate,omitempty"` // PEM files; default: made with a CA of Bootlane's own
	Key         string   `yaml:"key,omitempty"`
	Names       []string `yaml:"names,omitempty"` // DNS names in a certificate that Bootlane makes
}

// Policy is the site's rules.
type Policy struct {
	// ProbeEvery is how often to ask who else answers DHCP; 0 is never. Default 10m.
	ProbeEvery *time.Duration `yaml:"probeEvery"`
	BootRetry  time.Duration  `yaml:"bootRetry"`
	Held       Held           `yaml:"held"`
	// Inspect has machines looked at that nobody knows, and hosts that an operator asks for.
	Inspect Inspect `yaml:"inspect,omitempty"`
	// LocalBoot says how UEFI firmware of an installed machine is sent to its disk:
	// "fast" (told at once; the default) or "silent" (no boot file; it gives up by itself).
	LocalBoot string `yaml:"localBoot"`
	// HTTPBootTLS and IPXETLS say that firmware, and iPXE that can, trust the certificate
	// of listen.https: they are sent there.
	HTTPBootTLS bool `yaml:"httpBootTLS,omitempty"`
	IPXETLS     bool `yaml:"ipxeTLS,omitempty"`
	// Unpinned lets bundles be installed whose mirrors change from day to day.
	Unpinned bool `yaml:"unpinned,omitempty"`
	// DiskNames lets records select a disk by the kernel's name.
	DiskNames bool `yaml:"diskNames,omitempty"`
	// AskMirrors has preflight ask the mirrors of bundles whether they have the release. Default true.
	AskMirrors *bool `yaml:"askMirrors"`
	// RunAddress says from where a run's files may be fetched: "machine" (its own addresses;
	// the default) or "any" (NAT that changes them).
	RunAddress string `yaml:"runAddress,omitempty"`
	// Failed says what becomes of a machine whose run failed: "local-boot" (default) or "hold".
	Failed string `yaml:"failed,omitempty"`
	// RunLimit is how long a run may last, whatever progress it shows. Default 24h.
	RunLimit time.Duration `yaml:"runLimit,omitempty"`
	// StageLimits are how long a stage may take without progress; where it has none, the
	// grant's deadline counts.
	StageLimits map[string]time.Duration `yaml:"stageLimits,omitempty"`
}

// rules returns the policy as the domain knows it.
func (p Policy) rules() lane.Policy {
	out := lane.Policy{Retry: p.BootRetry, HoldFailed: p.Failed == "hold", AnyAddress: p.RunAddress == "any", Limit: p.RunLimit, Stages: map[lane.Stage]time.Duration{}}
	for stage, d := range p.StageLimits {
		out.Stages[lane.Stage(stage)] = d
	}
	return out
}

// checkRuns looks at what is said of runs.
func (p Policy) checkRuns() []lane.Problem {
	var out findings
	if p.RunAddress != "machine" && p.RunAddress != "any" {
		out.bad("policy.runAddress", "%q: use machine or any", p.RunAddress)
	}
	if p.Failed != "local-boot" && p.Failed != "hold" {
		out.bad("policy.failed", "%q: use local-boot or hold", p.Failed)
	}
	if p.RunLimit < time.Minute || p.RunLimit > 14*24*time.Hour {
		out.bad("policy.runLimit", "%s: from 1m to 336h", p.RunLimit)
	}
	for _, name := range slices.Sorted(maps.Keys(p.StageLimits)) {
		switch s := lane.Stage(name); {
		case !s.Known() || s == lane.StageJoined:
			out.bad("policy.stageLimits", "%q is not a stage that a run waits in: docs/states.md lists them", name)
		case p.StageLimits[name] < time.Minute || p.StageLimits[name] > 14*24*time.Hour:
			out.bad("policy.stageLimits."+name, "%s: from 1m to 336h", p.StageLimits[name])
		}
	}
	return out.list
}

// Inspect says who looks at machines, from RAM and without opening a disk.
type Inspect struct {
	Bundle string `yaml:"bundle,omitempty"` // with bootlane-agent: NAME-VERSION or an alias; none: nobody does
	Then   string `yaml:"then,omitempty"`   // "wait" (default): the machine stays and asks again; or "power-off"
}

// Held says what a held machine gets to see.
type Held struct {
	Screen *bool         `yaml:"screen"` // default true: it loads iPXE, which shows the diagnosis
	Wait   time.Duration `yaml:"wait"`   // default 30s
	Then   string        `yaml:"then"`   // "local-boot" (default), or "ask": stay, and ask again
}

// LoadConfig reads a configuration file. The error lists every problem with its line.
func LoadConfig(path string) (Config, error) {
	c, _, problems, err := load(path)
	return c, errors.Join(err, unusable(path, problems))
}

// CheckConfig reads a configuration file, and looks on this machine for what would
// keep a server with it from starting, without opening the database. Each port is
// opened and closed again. All findings are told at once; notes say what else an
// operator should know.
func CheckConfig(ctx context.Context, path string) (c Config, notes []string, err error) {
	c, doc, problems, err := load(path)
	if err != nil {
		return c, nil, err
	}
	ports, notes := c.tryPorts(ctx)
	var found []strictyaml.Problem
	for _, p := range slices.Concat(c.here(), ports) {
		found = append(found, doc.Problem(p.Field, p.Message))
	}
	for _, note := range []string{c.Bundles.unsigned(), c.trustPending(time.Now()), c.exposed()} {
		if note != "" {
			notes = append(notes, note)
		}
	}
	return c, notes, unusable(path, doc.Join(problems, found...))
}

func load(path string) (Config, strictyaml.Document, []strictyaml.Problem, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, strictyaml.Document{}, nil, &lane.Error{Code: lane.Invalid, Message: "read the configuration: give its path with --config", Err: err}
	}
	var c Config
	doc, problems := strictyaml.Decode(path, data, &c)
	for i, p := range problems {
		if strings.HasPrefix(p.Message, `unknown key "dhcp"`) {
			problems[i].Message = `unknown key "dhcp": what stood there now stands in each item of the list "networks"`
		}
	}
	c = c.withDefaults()
	var found []strictyaml.Problem
	for _, p := range c.check() {
		found = append(found, doc.Problem(p.Field, p.Message))
	}
	return c, doc, doc.Join(problems, found...), nil
}

func unusable(path string, problems []strictyaml.Problem) error {
	if len(problems) == 0 {
		return nil
	}
	e := lane.Errorf(lane.Invalid, "the configuration %s cannot be used", path)
	for _, p := range problems {
		e.Problems = append(e.Problems, p.String())
	}
	return e
}

func (c Config) withDefaults() Config {
	set := func(v *string, d string) {
		if *v == "" {
			*v = d
		}
	}
	set(&c.Data, "/var/lib/bootlane")
	server := "[::]" // several networks, each with an address of ours, or one of each protocol
	if servers := c.servers(); len(servers) == 1 {
		server = servers[0]
	}
	set(&c.Listen.Machines, server+":8080")
	set(&c.Listen.Operators, "127.0.0.1:8070")
	set(&c.Listen.TFTP, server+":69")
	c.Networks = slices.Clone(c.Networks)
	for i, n := range c.Networks {
		c.Networks[i] = n.withDefaults()
	}
	c.Clusters = maps.Clone(c.Clusters)
	for name, cl := range c.Clusters {
		c.Clusters[name] = cl.withDefaults()
	}
	set(&c.Log, "info")
	if c.Policy.ProbeEvery == nil {
		every := 10 * time.Minute
		c.Policy.ProbeEvery = &every
	}
	set(&c.Policy.LocalBoot, "fast")
	set(&c.Policy.Held.Then, "local-boot")
	set(&c.Policy.Inspect.Then, lane.ThenWait)
	set(&c.Policy.RunAddress, "machine")
	set(&c.Policy.Failed, "local-boot")
	if c.Policy.RunLimit == 0 {
		c.Policy.RunLimit = lane.DefaultLimit
	}
	if c.Policy.BootRetry == 0 {
		c.Policy.BootRetry = lane.Policy{}.RetryWindow()
	}
	if c.Policy.Held.Wait == 0 {
		c.Policy.Held.Wait = 30 * time.Second
	}
	if c.Policy.AskMirrors == nil {
		yes := true
		c.Policy.AskMirrors = &yes
	}
	if c.Policy.Held.Screen == nil {
		yes := true
		c.Policy.Held.Screen = &yes
	}
	if c.Loaders == nil {
		// Where Debian's package ipxe puts them.
		c.Loaders = map[string]Files{"x86_64-uefi": {"/usr/lib/ipxe/snponly.efi", "/usr/lib/ipxe/ipxe.efi"}, "x86_64-bios": {"/usr/lib/ipxe/undionly.kpxe", "/usr/lib/ipxe/ipxe.pxe"}}
	}
	return c
}

// servers returns the networks' server addresses, each once.
func (c Config) servers() (out []string) {
	add := func(a string) {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	for _, n := range c.Networks {
		add(n.Server)
		if n.IPv6 != nil {
			add(n.IPv6.Server)
		}
	}
	return out
}

func (c Config) check() []lane.Problem {
	var out []lane.Problem
	bad := func(field, format string, args ...any) {
		out = append(out, lane.Problem{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	out = append(out, c.checkNetworks()...)
	out = append(out, c.checkListen()...)
	out = append(out, c.checkLoaders()...)
	out = append(out, c.TFTP.check()...)
	out = append(out, c.Bundles.check()...)
	_, problems := c.SecureBoot.policy()
	out = append(out, problems...)
	if c.Policy.LocalBoot != "fast" && c.Policy.LocalBoot != "silent" {
		bad("policy.localBoot", "%q: use fast or silent", c.Policy.LocalBoot)
	}
	if c.Policy.Held.Then != "local-boot" && c.Policy.Held.Then != "ask" {
		bad("policy.held.then", "%q: use local-boot or ask", c.Policy.Held.Then)
	}
	if i := c.Policy.Inspect; i.Then != lane.ThenWait && i.Then != lane.ThenPowerOff {
		bad("policy.inspect.then", "%q: use %s or %s", i.Then, lane.ThenWait, lane.ThenPowerOff)
	} else if i.Bundle != "" && !lane.IsBundleRef(i.Bundle) {
		bad("policy.inspect.bundle", "%q is not a bundle's NAME-VERSION or an alias", i.Bundle)
	}
	if c.Policy.Held.Wait < time.Second || c.Policy.Held.Wait > time.Hour {
		bad("policy.held.wait", "%s: from 1s to 1h", c.Policy.Held.Wait)
	}
	if e := c.Policy.ProbeEvery; e != nil && *e != 0 && (*e < time.Minute || *e > 24*time.Hour) {
		bad("policy.probeEvery", "%s: from 1m to 24h, or 0 for never", *e)
	}
	if c.Policy.BootRetry != 0 && (c.Policy.BootRetry < time.Second || c.Policy.BootRetry > 10*time.Minute) {
		bad("policy.bootRetry", "%s: from 1s to 10m", c.Policy.BootRetry)
	}
	out = append(out, c.Policy.checkRuns()...)
	out = append(out, c.checkInstalled()...)
	out = append(out, c.checkProfiles()...)
	out = append(out, c.checkClusters()...)
	if level(c.Log) == nil {
		bad("log", "%q: use debug, info, warn or error", c.Log)
	}
	return out
}

var roleName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?$`)

// checkInstalled looks at what the site and its roles say of installed systems.
func (c Config) checkInstalled() []lane.Problem {
	var out findings
	look := func(at string, i lane.InstallOptions) {
		for _, p := range i.Validate() {
			out.bad(at+"."+p.Field, "%s", p.Message)
		}
	}
	look("site", c.Site)
	if c.Site.Domain == nil && len(c.Networks) > 0 { // then it is the first network's
		look("networks[0]", lane.InstallOptions{Domain: &c.Networks[0].Domain})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Roles)) {
		if !roleName.MatchString(name) {
			out.bad("roles", "%q is not a role: letters, digits and inner - or _, at most 63, as the `role` of hosts", name)
			continue
		}
		look("roles."+name, c.Roles[name])
	}
	return out.list
}

// checkProfiles looks at what hardware must have, and at who must have it.
func (c Config) checkProfiles() []lane.Problem {
	var out findings
	for _, name := range slices.Sorted(maps.Keys(c.Profiles)) {
		at, p := "profiles."+name, c.Profiles[name]
		if !roleName.MatchString(name) {
			out.bad("profiles", "%q is not a profile's name: letters, digits and inner - or _, at most 63", name)
			continue
		}
		for _, problem := range p.Validate() {
			out.bad(at+"."+problem.Field, "%s", problem.Message)
		}
		for i, role := range p.Roles {
			if _, ok := c.Roles[role]; !ok && len(c.Roles) > 0 {
				out.bad(fmt.Sprintf("%s.roles[%d]", at, i), "%q is not among the configured `roles`", role)
			}
		}
	}
	return out.list
}

// check looks at the bounds; 0 is the default of each.
func (t TFTP) check() (out []lane.Problem) {
	for _, f := range []struct {
		name              string
		v, least, most    int
		unit, consequence string
	}{
		{"maxBlock", t.MaxBlock, 512, 65464, "bytes", ""},
		{"maxWindow", t.MaxWindow, 1, 1024, "blocks", ", and 1 declines windows"},
		{"maxPerClient", t.MaxPerClient, 1, 1000, "transfers", ": one address must leave others some of the 2000 that all have together"},
	} {
		if f.v != 0 && (f.v < f.least || f.v > f.most) {
			out = append(out, lane.Problem{Field: "tftp." + f.name, Message: fmt.Sprintf("%d: from %d to %d %s%s", f.v, f.least, f.most, f.unit, f.consequence)})
		}
	}
	return out
}

// checkListen looks at the listeners. Those on a network's server by default have its
// line already.
func (c Config) checkListen() []lane.Problem {
	var out findings
	servers := c.servers()
	for _, f := range []struct{ name, v string }{{"machines", c.Listen.Machines}, {"operators", c.Listen.Operators}, {"tftp", c.Listen.TFTP}, {"https", c.Listen.HTTPS}, {"legacyHTTPS", c.Listen.LegacyHTTPS}} {
		if f.v == "" && (f.name == "https" || f.name == "legacyHTTPS") {
			continue
		}
		a, err := netip.ParseAddrPort(f.v)
		told := len(servers) == 1 && strings.HasPrefix(f.v, servers[0]+":")
		switch {
		case err != nil && !told:
			out.bad("listen."+f.name, "%q is not ADDRESS:PORT", f.v)
		case err == nil && f.name != "operators" && c.hasIPv6() && a.Addr() != netip.IPv6Unspecified():
			out.bad("listen."+f.name, "%s: machines with networks[].ipv6 come by both protocols, use [::]:%d", f.v, a.Port())
		case err == nil && f.name == "tftp" && a.Port() != 69:
			out.bad("listen.tftp", "%s: DHCP cannot tell firmware another port than 69", f.v)
		case err == nil && f.name == "tftp" && !a.Addr().IsUnspecified() && (len(servers) != 1 || a.Addr().String() != servers[0]):
			out.bad("listen.tftp", "%s: firmware is sent to networks[].server, %s", f.v, strings.Join(servers, ", "))
		}
	}
	for i, a := range []struct{ name, v string }{{"operators", c.Listen.Operators}, {"https", c.Listen.HTTPS}, {"legacyHTTPS", c.Listen.LegacyHTTPS}} {
		for _, b := range []struct{ name, v string }{{"machines", c.Listen.Machines}, {"operators", c.Listen.Operators}, {"https", c.Listen.HTTPS}}[:i+1] {
			if a.v != "" && a.v == b.v {
				out.bad("listen."+a.name, "%s is listen.%s already", a.v, b.name)
			}
		}
	}
	if (c.Listen.Certificate == "") != (c.Listen.Key == "") {
		out.bad("listen.certificate", "and listen.key belong together: give both, or neither")
	}
	if c.Listen.HTTPS == "" && (c.Policy.HTTPBootTLS || c.Policy.IPXETLS) {
		out.bad("listen.https", "is missing: policy.httpBootTLS and policy.ipxeTLS send machines there")
	}
	return out.list
}

func (c Config) checkLoaders() []lane.Problem {
	var out findings
	for name, paths := range c.Loaders {
		if p, ok := lane.ParsePlatform(name); !ok || p == (lane.Platform{}) {
			out.bad("loaders."+name, "is not a platform: %s", platformNames())
			continue
		}
		if len(paths) == 0 {
			out.bad("loaders."+name, "names no file")
		}
		for i, path := range paths {
			if !lane.FileName(filepath.Base(path)) {
				out.bad("loaders."+name, "%q is not a plain file name", filepath.Base(path))
			}
			if slices.Contains(baseNames(paths[:i]), filepath.Base(path)) {
				out.bad("loaders."+name, "two files are called %s: hosts choose by that name", filepath.Base(path))
			}
			if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
				out.bad("loaders."+name, "%s cannot be read: Debian's package ipxe has snponly.efi, ipxe.efi and undionly.kpxe in /usr/lib/ipxe", path)
			}
		}
	}
	return out.list
}

// platformLoaders returns the loaders by platform; check has read the names before.
func (c Config) platformLoaders() map[lane.Platform][]string {
	out := map[lane.Platform][]string{}
	for name, paths := range c.Loaders {
		if p, ok := lane.ParsePlatform(name); ok {
			out[p] = paths
		}
	}
	return out
}

// loaderNames returns the loaders' names by platform, as machines are told them.
func (c Config) loaderNames() map[lane.Platform][]string {
	out := map[lane.Platform][]string{}
	for p, paths := range c.platformLoaders() {
		out[p] = baseNames(paths)
	}
	return out
}

func (c Config) hasLoader(name string) bool {
	for _, paths := range c.Loaders {
		if slices.Contains(baseNames(paths), name) {
			return true
		}
	}
	return false
}

func baseNames(paths []string) []string {
	var out []string
	for _, p := range paths {
		out = append(out, filepath.Base(p))
	}
	return out
}

func platformNames() string {
	var out []string
	for _, p := range lane.Platforms() {
		out = append(out, p.String())
	}
	return strings.Join(out, ", ")
}

// BaseURL returns the URL of the machines' HTTP listener, as a machine reaches it that
// spoke to this address of ours. A listener on one address has one URL.
func (c Config) BaseURL(server string) string { return c.urlOf("http://", c.Listen.Machines, server) }

// TLSBaseURL returns the same of the HTTPS listener, and nothing where there is none.
func (c Config) TLSBaseURL(server string) string { return c.urlOf("https://", c.Listen.HTTPS, server) }

func (c Config) urlOf(scheme, addr, server string) string {
	listen, err := netip.ParseAddrPort(addr)
	if err != nil {
		return ""
	}
	if listen.Addr().IsUnspecified() {
		if a, err := netip.ParseAddr(server); err == nil && a.Is6() && a.IsLinkLocalUnicast() {
			server = c.server6() // the machine knows this one too, and a URL cannot say by which interface
		}
		if server == "" {
			server = c.Networks[0].Server
		}
		return scheme + net.JoinHostPort(server, strconv.Itoa(int(listen.Port())))
	}
	return scheme + listen.String()
}
