package app

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bootlane/internal/dhcp"
	"bootlane/internal/lane"
	"bootlane/internal/seed"
	"bootlane/internal/strictyaml"
)

// Config is the configuration file. Every field has a good zero value but the
// DHCP network, which nobody can guess.
type Config struct {
	Data    string            `yaml:"data"` // directory of the database, the bundles and the token
	Listen  Listen            `yaml:"listen"`
	DHCP    DHCP              `yaml:"dhcp"`
	Loaders map[string]string `yaml:"loaders"` // platform to file
	Policy  Policy            `yaml:"policy"`
	Site    seed.Site         `yaml:"site"`
	Log     string            `yaml:"log"` // debug, info, warn, error
}

// Listen says where the listeners are.
type Listen struct {
	Machines  string `yaml:"machines"`  // HTTP for machines; default: the DHCP server's address, port 8080
	Operators string `yaml:"operators"` // HTTP for operators; default: 127.0.0.1:8070
	TFTP      string `yaml:"tftp"`      // default: the DHCP server's address, port 69
}

// DHCP describes the one boot network, and who owns its addresses.
type DHCP struct {
	// Mode is "own" (the default), or "proxy": another server gives the addresses, and
	// Bootlane the boot files. There is no guessing which: two owners, or none, break a rack.
	Mode          string        `yaml:"mode"`
	KnownOnly     bool          `yaml:"knownOnly"` // of a proxy: silence towards machines without a record
	Only4011      bool          `yaml:"only4011"`  // of a proxy: the address server runs on this machine, and has port 67
	Interface     string        `yaml:"interface"`
	Server        string        `yaml:"server"` // our address on it
	Subnet        string        `yaml:"subnet"`
	Range         string        `yaml:"range"` // FIRST-LAST
	Routers       []string      `yaml:"routers"`
	DNS           []string      `yaml:"dns"`
	NTP           []string      `yaml:"ntp"`
	Domain        string        `yaml:"domain"`
	Lease         time.Duration `yaml:"lease"`
	Authoritative bool          `yaml:"authoritative"`
	// ProbeEvery is how often to ask who else answers DHCP; 0 is never. Default 10m.
	ProbeEvery *time.Duration `yaml:"probeEvery"`
}

// Policy is the site's rules.
type Policy struct {
	BootRetry time.Duration `yaml:"bootRetry"`
	Held      Held          `yaml:"held"`
	// LocalBoot says how UEFI firmware of an installed machine is sent to its disk:
	// "fast" (told at once; the default) or "silent" (no boot file; it gives up by itself).
	LocalBoot string `yaml:"localBoot"`
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
// keep a server with it from starting, without opening a port or the database. All
// findings are told at once.
func CheckConfig(path string) (Config, error) {
	c, doc, problems, err := load(path)
	if err != nil {
		return c, err
	}
	var found []strictyaml.Problem
	for _, p := range c.here() {
		found = append(found, doc.Problem(p.Field, p.Message))
	}
	return c, unusable(path, doc.Join(problems, found...))
}

func load(path string) (Config, strictyaml.Document, []strictyaml.Problem, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, strictyaml.Document{}, nil, &lane.Error{Code: lane.Invalid, Message: "read the configuration: give its path with --config", Err: err}
	}
	var c Config
	doc, problems := strictyaml.Decode(path, data, &c)
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
	set(&c.Listen.Machines, net.JoinHostPort(c.DHCP.Server, "8080"))
	set(&c.Listen.Operators, "127.0.0.1:8070")
	set(&c.Listen.TFTP, net.JoinHostPort(c.DHCP.Server, "69"))
	set(&c.DHCP.Mode, modeOwn)
	set(&c.Log, "info")
	if c.DHCP.ProbeEvery == nil {
		every := 10 * time.Minute
		c.DHCP.ProbeEvery = &every
	}
	set(&c.Policy.LocalBoot, "fast")
	set(&c.Policy.Held.Then, "local-boot")
	if c.DHCP.Lease == 0 && c.DHCP.Mode == modeOwn {
		c.DHCP.Lease = dhcp.Network{}.LeaseTime()
	}
	if c.Policy.BootRetry == 0 {
		c.Policy.BootRetry = lane.Policy{}.RetryWindow()
	}
	if c.Policy.Held.Wait == 0 {
		c.Policy.Held.Wait = 30 * time.Second
	}
	if c.Policy.Held.Screen == nil {
		yes := true
		c.Policy.Held.Screen = &yes
	}
	if c.Loaders == nil {
		// Where Debian's package ipxe puts them.
		c.Loaders = map[string]string{"x86_64-uefi": "/usr/lib/ipxe/snponly.efi", "x86_64-bios": "/usr/lib/ipxe/undionly.kpxe"}
	}
	c.Site = c.Site.WithDefaults()
	if c.Site.Domain == "" {
		c.Site.Domain = c.DHCP.Domain
	}
	return c
}

func (c Config) check() []lane.Problem {
	var out []lane.Problem
	bad := func(field, format string, args ...any) {
		out = append(out, lane.Problem{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	out = append(out, c.DHCP.check()...)
	server, serverErr := netip.ParseAddr(c.DHCP.Server)
	for _, f := range []struct{ name, v string }{{"machines", c.Listen.Machines}, {"operators", c.Listen.Operators}, {"tftp", c.Listen.TFTP}} {
		a, err := netip.ParseAddrPort(f.v)
		switch {
		case err != nil && serverErr == nil: // by default they are on dhcp.server, which has its own line
			bad("listen."+f.name, "%q is not ADDRESS:PORT", f.v)
		case err == nil && f.name == "machines" && a.Addr().IsUnspecified():
			bad("listen.machines", "%s: machines are told this address, so it must be a real one", f.v)
		case err == nil && f.name == "tftp" && a.Port() != 69:
			bad("listen.tftp", "%s: DHCP cannot tell firmware another port than 69", f.v)
		case err == nil && serverErr == nil && f.name == "tftp" && !a.Addr().IsUnspecified() && a.Addr() != server:
			bad("listen.tftp", "%s: firmware is sent to dhcp.server, %s", f.v, server)
		}
	}
	for name, path := range c.Loaders {
		if p, ok := lane.ParsePlatform(name); !ok || p == (lane.Platform{}) {
			bad("loaders."+name, "is not a platform: x86_64-bios, x86_64-uefi, arm64-uefi or i386-uefi")
			continue
		}
		if !lane.FileName(filepath.Base(path)) {
			bad("loaders."+name, "%q is not a plain file name", filepath.Base(path))
		}
		if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
			bad("loaders."+name, "%s cannot be read: Debian's package ipxe has snponly.efi and undionly.kpxe in /usr/lib/ipxe", path)
		}
	}
	if c.Policy.LocalBoot != "fast" && c.Policy.LocalBoot != "silent" {
		bad("policy.localBoot", "%q: use fast or silent", c.Policy.LocalBoot)
	}
	if c.Policy.Held.Then != "local-boot" && c.Policy.Held.Then != "ask" {
		bad("policy.held.then", "%q: use local-boot or ask", c.Policy.Held.Then)
	}
	if c.Policy.Held.Wait < time.Second || c.Policy.Held.Wait > time.Hour {
		bad("policy.held.wait", "%s: from 1s to 1h", c.Policy.Held.Wait)
	}
	if c.Policy.BootRetry != 0 && (c.Policy.BootRetry < time.Second || c.Policy.BootRetry > 10*time.Minute) {
		bad("policy.bootRetry", "%s: from 1s to 10m", c.Policy.BootRetry)
	}
	for _, p := range c.Site.Validate() {
		field, msg, _ := strings.Cut(p, ": ")
		bad(field, "%s", msg)
	}
	if level(c.Log) == nil {
		bad("log", "%q: use debug, info, warn or error", c.Log)
	}
	return out
}

// The modes of DHCP.
const (
	modeOwn   = "own"
	modeProxy = "proxy"
)

// Proxy reports whether another server gives the addresses.
func (d DHCP) Proxy() bool { return d.Mode == modeProxy }

// checkMode looks for keys that say one thing about who owns the addresses, and a
// mode that says another.
func (d DHCP) checkMode() []lane.Problem {
	var out []lane.Problem
	bad := func(field, format string, args ...any) {
		out = append(out, lane.Problem{Field: "dhcp." + field, Message: fmt.Sprintf(format, args...)})
	}
	switch d.Mode {
	case modeOwn:
		for field, set := range map[string]bool{"knownOnly": d.KnownOnly, "only4011": d.Only4011} {
			if set {
				bad(field, "is for dhcp.mode: proxy")
			}
		}
	case modeProxy:
		for field, set := range map[string]bool{"range": d.Range != "", "routers": len(d.Routers) > 0, "dns": len(d.DNS) > 0, "ntp": len(d.NTP) > 0,
			"lease": d.Lease != 0, "authoritative": d.Authoritative} {
			if set {
				bad(field, "is the address server's business in dhcp.mode: proxy: take it out")
			}
		}
	default:
		bad("mode", "%q: use own or proxy", d.Mode)
	}
	return out
}

func (d DHCP) check() []lane.Problem {
	var out []lane.Problem
	bad := func(field, format string, args ...any) {
		out = append(out, lane.Problem{Field: "dhcp." + field, Message: fmt.Sprintf(format, args...)})
	}
	if d.Interface == "" {
		bad("interface", "is missing: the interface of the boot network, as `ip -br link` shows it")
	}
	out = append(out, d.checkMode()...)
	out = append(out, d.checkAddresses()...)
	for name, list := range map[string][]string{"dns": d.DNS, "ntp": d.NTP} {
		for i, v := range list {
			if a, err := netip.ParseAddr(v); err != nil || !a.Is4() {
				bad(fmt.Sprintf("%s[%d]", name, i), "%q is not an IPv4 address", v)
			}
		}
	}
	if d.Lease != 0 && (d.Lease < 5*time.Minute || d.Lease > 30*24*time.Hour) {
		bad("lease", "%s: from 5m to 720h; firmware and installers never renew, an hour is a good choice", d.Lease)
	}
	if e := d.ProbeEvery; e != nil && *e != 0 && (*e < time.Minute || *e > 24*time.Hour) {
		bad("probeEvery", "%s: from 1m to 24h, or 0 for never", *e)
	}
	return out
}

// checkAddresses looks at the subnet and what must lie in it. With a subnet that
// cannot be read, the addresses are still looked at by themselves.
func (d DHCP) checkAddresses() []lane.Problem {
	var out []lane.Problem
	bad := func(field, format string, args ...any) {
		out = append(out, lane.Problem{Field: "dhcp." + field, Message: fmt.Sprintf(format, args...)})
	}
	subnet, err := netip.ParsePrefix(d.Subnet)
	known := err == nil && subnet.Addr().Is4() && subnet.Bits() <= 30 && subnet.Bits() >= 8
	switch {
	case !known:
		bad("subnet", "%q is not an IPv4 network like 10.0.0.0/24", d.Subnet)
	case subnet != subnet.Masked():
		bad("subnet", "%s has host bits: write %s", d.Subnet, subnet.Masked())
	}
	inside := func(field, v string) netip.Addr {
		a, err := netip.ParseAddr(v)
		if err != nil {
			bad(field, "%q is not an address", v)
		} else if known && !subnet.Contains(a) {
			bad(field, "%s is not in the subnet %s", a, subnet)
		}
		return a
	}
	inside("server", d.Server)
	for i, r := range d.Routers {
		inside(fmt.Sprintf("routers[%d]", i), r)
	}
	if d.Proxy() {
		return out
	}
	first, last, found := strings.Cut(d.Range, "-")
	if !found {
		bad("range", "%q is not FIRST-LAST, like 10.0.0.100-10.0.0.199", d.Range)
		return out
	}
	a, b := inside("range", strings.TrimSpace(first)), inside("range", strings.TrimSpace(last))
	if b.Less(a) {
		bad("range", "%s ends before it begins", d.Range)
	}
	taken := slices.Concat([]string{d.Server}, d.Routers, d.DNS, d.NTP)
	if known {
		taken = append(taken, subnet.Masked().Addr().String(), dhcp.Broadcast(subnet).String())
	}
	for _, text := range taken {
		if t, err := netip.ParseAddr(text); err == nil && a.IsValid() && !t.Less(a) && !b.Less(t) {
			bad("range", "%s holds %s, which is not free: the network's own, the broadcast address, the server, a router, a name or a time server", d.Range, t)
		}
	}
	return out
}

// platformLoaders returns the loaders by platform; check has read the names before.
func (c Config) platformLoaders() map[lane.Platform]string {
	out := map[lane.Platform]string{}
	for name, path := range c.Loaders {
		if p, ok := lane.ParsePlatform(name); ok {
			out[p] = path
		}
	}
	return out
}
