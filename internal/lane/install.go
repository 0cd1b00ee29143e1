package lane

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

// InstallOptions are what one level says of installed systems: the site, a role, or one host. What
// it does not say is nil, and is as the level before has it. What it says takes that one's
// place whole: a list that is there and empty says that there are none.
type InstallOptions struct {
	Domain       *string  `json:"domain,omitempty" yaml:"domain"`
	User         *string  `json:"user,omitempty" yaml:"user"`                 // the one administrator, with sudo
	PasswordHash *string  `json:"passwordHash,omitempty" yaml:"passwordHash"` // crypt(3) hash: $6$… or $y$…; empty locks the password
	SSHKeys      []string `json:"sshKeys,omitzero" yaml:"sshKeys"`
	Locale       *string  `json:"locale,omitempty" yaml:"locale"`
	Keyboard     *string  `json:"keyboard,omitempty" yaml:"keyboard"`
	Timezone     *string  `json:"timezone,omitempty" yaml:"timezone"`
	NTP          []string `json:"ntp,omitzero" yaml:"ntp"`
	Packages     []string `json:"packages,omitzero" yaml:"packages"`     // besides those of every system
	KernelArgs   []string `json:"kernelArgs,omitzero" yaml:"kernelArgs"` // of the installed system, not of its installer
	Proxy        *string  `json:"proxy,omitempty" yaml:"proxy"`          // by which the installer fetches packages
	Cluster      *string  `json:"cluster,omitempty" yaml:"cluster"`      // that the machine joins: a name under `clusters` in the configuration; empty: none
	// What first boot brings about and proves, before the machine is ready.
	Purpose *string  `json:"purpose,omitempty" yaml:"purpose"` // what it is for: nothing in particular, or PurposeKubernetes
	Modules []string `json:"modules,omitzero" yaml:"modules"`  // kernel modules that are loaded
	Sysctls []string `json:"sysctls,omitzero" yaml:"sysctls"`  // KEY=VALUE
	Swap    *string  `json:"swap,omitempty" yaml:"swap"`       // SwapAllowed or SwapOff
	Runtime *string  `json:"runtime,omitempty" yaml:"runtime"` // the container runtime that must run: none, or RuntimeContainerd
	// How the disk is laid out.
	Layout  *string  `json:"layout,omitempty" yaml:"layout"`  // LayoutPlain or LayoutLVM; empty: the installer's own
	Volumes []string `json:"volumes,omitzero" yaml:"volumes"` // MOUNT=SIZE, as the function Volumes reads them
	// How the disk is encrypted.
	Encryption *string  `json:"encryption,omitempty" yaml:"encryption"` // what opens the disk at each boot: EncryptionTPM2 or EncryptionTang; empty: it is not encrypted
	Tang       []string `json:"tang,omitzero" yaml:"tang"`              // URL#THUMBPRINT, as the function ParseTang reads them
}

// What InstallOptions may name.
const (
	PurposeKubernetes = "kubernetes"
	SwapAllowed       = "allowed"
	SwapOff           = "off"
	RuntimeContainerd = "containerd"
)

// InstallField is one key of InstallOptions.
type InstallField struct {
	Name   string
	Set    bool // the level says it
	List   bool
	Values []string // of a list each, of a text the one, of an empty text none
}

// Fields returns every key, in the order in which people read them.
func (i InstallOptions) Fields() []InstallField {
	text := func(name string, v *string) InstallField {
		if v == nil || *v == "" {
			return InstallField{Name: name, Set: v != nil}
		}
		return InstallField{Name: name, Set: true, Values: []string{*v}}
	}
	list := func(name string, v []string) InstallField {
		return InstallField{Name: name, Set: v != nil, List: true, Values: v}
	}
	return []InstallField{
		text("domain", i.Domain), text("user", i.User), text("passwordHash", i.PasswordHash), list("sshKeys", i.SSHKeys),
		text("locale", i.Locale), text("keyboard", i.Keyboard), text("timezone", i.Timezone), list("ntp", i.NTP),
		list("packages", i.Packages), list("kernelArgs", i.KernelArgs), text("proxy", i.Proxy), text("cluster", i.Cluster),
		text("purpose", i.Purpose), list("modules", i.Modules), list("sysctls", i.Sysctls), text("swap", i.Swap), text("runtime", i.Runtime),
		text("layout", i.Layout), list("volumes", i.Volumes), text("encryption", i.Encryption), list("tang", i.Tang)}
}

// String returns what the level says of the key.
func (f InstallField) String() string {
	switch {
	case !f.Set:
		return "-"
	case len(f.Values) == 0:
		return "none"
	}
	return strings.Join(f.Values, ", ")
}

// MarshalYAML writes what the level says, and nothing of what it does not say: the library
// writes a list that is not there as one that is empty.
func (i InstallOptions) MarshalYAML() (any, error) {
	out := map[string]any{}
	for _, f := range i.Fields() {
		switch {
		case f.Set && f.List:
			out[f.Name] = f.Values
		case f.Set:
			out[f.Name] = strings.Join(f.Values, "")
		}
	}
	return out, nil
}

// Over returns i, with what it does not say taken from the level below.
func (i InstallOptions) Over(below InstallOptions) InstallOptions {
	list := func(v, other []string) []string {
		if v == nil {
			return other
		}
		return v
	}
	return InstallOptions{Domain: cmp.Or(i.Domain, below.Domain), User: cmp.Or(i.User, below.User), PasswordHash: cmp.Or(i.PasswordHash, below.PasswordHash),
		SSHKeys: list(i.SSHKeys, below.SSHKeys), Locale: cmp.Or(i.Locale, below.Locale), Keyboard: cmp.Or(i.Keyboard, below.Keyboard),
		Timezone: cmp.Or(i.Timezone, below.Timezone), NTP: list(i.NTP, below.NTP), Packages: list(i.Packages, below.Packages),
		KernelArgs: list(i.KernelArgs, below.KernelArgs), Proxy: cmp.Or(i.Proxy, below.Proxy), Cluster: cmp.Or(i.Cluster, below.Cluster), Purpose: cmp.Or(i.Purpose, below.Purpose),
		Modules: list(i.Modules, below.Modules), Sysctls: list(i.Sysctls, below.Sysctls), Swap: cmp.Or(i.Swap, below.Swap), Runtime: cmp.Or(i.Runtime, below.Runtime),
		Layout: cmp.Or(i.Layout, below.Layout), Volumes: list(i.Volumes, below.Volumes), Encryption: cmp.Or(i.Encryption, below.Encryption), Tang: list(i.Tang, below.Tang)}
}

// Masked returns i as people may see it: of the password's hash only the kind.
func (i InstallOptions) Masked() InstallOptions {
	if i.PasswordHash == nil || *i.PasswordHash == "" {
		return i
	}
	kind := "…"
	if parts := strings.SplitN(*i.PasswordHash, "$", 3); len(parts) == 3 {
		kind = "$" + parts[1] + "$…"
	}
	i.PasswordHash = &kind
	return i
}

// clone returns a copy that shares nothing with i.
func (i InstallOptions) clone() InstallOptions {
	for _, text := range []**string{&i.Domain, &i.User, &i.PasswordHash, &i.Locale, &i.Keyboard, &i.Timezone, &i.Proxy, &i.Cluster, &i.Purpose, &i.Swap, &i.Runtime, &i.Layout, &i.Encryption} {
		if *text != nil {
			own := **text
			*text = &own
		}
	}
	i.SSHKeys, i.NTP = slices.Clone(i.SSHKeys), slices.Clone(i.NTP)
	i.Packages, i.KernelArgs = slices.Clone(i.Packages), slices.Clone(i.KernelArgs)
	i.Modules, i.Sysctls, i.Volumes = slices.Clone(i.Modules), slices.Clone(i.Sysctls), slices.Clone(i.Volumes)
	i.Tang = slices.Clone(i.Tang)
	return i
}

// changes lists the keys in which o differs, as "install.key: old -> new".
func (i InstallOptions) changes(o InstallOptions) (out []string) {
	is, wasShown, isShown := o.Fields(), i.Masked().Fields(), o.Masked().Fields()
	for n, was := range i.Fields() {
		if was.Set != is[n].Set || !slices.Equal(was.Values, is[n].Values) {
			out = append(out, fmt.Sprintf("install.%s: %s -> %s", was.Name, wasShown[n], isShown[n]))
		}
	}
	return out
}

// IsTimeZone reports whether the tz database has a zone: this machine's, or that which the program brings. What
// only some machines' have is none.
func IsTimeZone(name string) bool {
	_, err := time.LoadLocation(name)
	own := name == "Local" || name == "localtime" || name == "posixrules" || name == "Factory" || strings.HasPrefix(name, "posix/") || strings.HasPrefix(name, "right/")
	return err == nil && !own && zoneName.MatchString(name)
}

var (
	userName  = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	cryptHash = regexp.MustCompile(`^(\$6\$(rounds=[0-9]+\$)?[./A-Za-z0-9]{8,16}\$[./A-Za-z0-9]{86}|\$y\$[./A-Za-z0-9]+\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43}|\$5\$(rounds=[0-9]+\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{43})$`)
	sshKey    = regexp.MustCompile(`^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh\.com|sk-ecdsa-sha2-nistp256@openssh\.com) [A-Za-z0-9+/]+={0,2}( [^\r\n]*)?$`)
	zoneName  = regexp.MustCompile(`^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$`)
	localeRE  = regexp.MustCompile(`^[A-Za-z0-9_.@-]+$`)
	domainRE  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
	// packageRE takes names of Debian's and of RPM: to apt a hyphen behind a name removes it,
	// to Anaconda one before it, and an @ is a group. A version follows as apt has it.
	packageRE = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9+._-]*[A-Za-z0-9+])?(=[A-Za-z0-9]([A-Za-z0-9.+:~_-]*[A-Za-z0-9+])?)?$`)
	// kernelArg takes what stands bare in GRUB's configuration, where ; & | < > { } $ and quotes are its language.
	kernelArg   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.,:=/@%+!-]*$`)
	moduleRE    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$`)
	sysctlRE    = regexp.MustCompile(`^[a-z0-9_]+(\.[a-z0-9_-]+)+=[A-Za-z0-9_.:-]+$`)
	clusterName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	proxyURL    = regexp.MustCompile(`^http://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?/?$`)
)

// DomainName reports whether s is the name of a host or a domain, in lower case.
func DomainName(s string) bool { return domainRE.MatchString(s) }

// Validate returns every problem of what the level says. Fields are its keys.
func (i InstallOptions) Validate() []Problem {
	var out []Problem
	bad := func(field, format string, args ...any) {
		out = append(out, Problem{field, fmt.Sprintf(format, args...)})
	}
	// wrong: the level says it, and it does not fit; empty says whether there may be none.
	wrong := func(v *string, empty bool, fits *regexp.Regexp) bool {
		return v != nil && !fits.MatchString(*v) && (*v != "" || !empty)
	}
	if wrong(i.Domain, true, domainRE) {
		bad("domain", "%q is not a domain name", *i.Domain)
	}
	switch {
	case wrong(i.User, false, userName):
		bad("user", "%q is not a user name: a lower-case letter, then letters, digits, _ and -, at most 32", *i.User)
	case i.User != nil && slices.Contains([]string{"root", "admin", "sudo", "daemon", "bin", "sys", "nobody"}, *i.User):
		bad("user", "%q is reserved in Debian or Ubuntu", *i.User)
	}
	if wrong(i.PasswordHash, true, cryptHash) {
		bad("passwordHash", "is not a crypt hash of type $6$, $y$ or $5$: make one with `mkpasswd -m sha-512`, never put a password here")
	}
	if i.Timezone != nil && !IsTimeZone(*i.Timezone) {
		bad("timezone", "%q is not in the tz database: use a name like Europe/Berlin or Etc/UTC", *i.Timezone)
	}
	if wrong(i.Locale, false, localeRE) {
		bad("locale", "%q is not a name like en_US.UTF-8", *i.Locale)
	}
	if wrong(i.Keyboard, false, localeRE) {
		bad("keyboard", "%q is not a layout like us or de", *i.Keyboard)
	}
	if wrong(i.Proxy, true, proxyURL) { // it is not shown: it may hold a password
		bad("proxy", "is not http://HOST:PORT, without a user and a password: it stands in texts that every machine of the run may read")
	}
	if wrong(i.Cluster, true, clusterName) {
		bad("cluster", "%q is not the name of a cluster: lower-case letters, digits and inner hyphens, at most 63, as under `clusters` in the configuration", *i.Cluster)
	}
	for _, c := range []struct {
		name  string
		v     *string
		known []string
	}{{"purpose", i.Purpose, []string{"", PurposeKubernetes}}, {"swap", i.Swap, []string{SwapAllowed, SwapOff}}, {"runtime", i.Runtime, []string{"", RuntimeContainerd}}} {
		if c.v != nil && !slices.Contains(c.known, *c.v) {
			bad(c.name, "%q: use one of %q", *c.v, c.known)
		}
	}
	if why := badLayout(i.Layout); why != "" {
		bad("layout", "%s", why)
	}
	if why := badEncryption(i.Encryption); why != "" {
		bad("encryption", "%s", why)
	}
	_, volumes := Volumes(i.Volumes)
	return slices.Concat(out, i.validateLists(), volumes)
}

// ClusterName reports whether s can be the name of a cluster.
func ClusterName(s string) bool { return clusterName.MatchString(s) }

func (i InstallOptions) validateLists() []Problem {
	var out []Problem
	each := func(name string, list []string, problem func(v string) string) {
		for n, v := range list {
			if p := problem(v); p != "" {
				out = append(out, Problem{fmt.Sprintf("%s[%d]", name, n), p})
			}
		}
	}
	each("sshKeys", i.SSHKeys, badKey)
	each("tang", i.Tang, func(v string) string {
		if _, err := ParseTang(v); err != nil {
			return err.Error()
		}
		return ""
	})
	each("ntp", i.NTP, func(v string) string {
		if _, err := netip.ParseAddr(v); err == nil || DomainName(v) {
			return ""
		}
		return fmt.Sprintf("%q is not an address or host name", v)
	})
	each("packages", i.Packages, func(v string) string {
		if packageRE.MatchString(v) {
			return ""
		}
		return fmt.Sprintf("%q is not the name of a package: letters, digits, + . _ and -, no group, and no hyphen at an end; NAME=VERSION pins it", v)
	})
	each("kernelArgs", i.KernelArgs, func(v string) string {
		if kernelArg.MatchString(v) {
			return ""
		}
		return fmt.Sprintf("%q is not one kernel argument: a word of letters, digits and _ . , : = / @ %% + ! -, each in an item of its own; GRUB reads anything else as its language", v)
	})
	each("modules", i.Modules, func(v string) string {
		if moduleRE.MatchString(v) {
			return ""
		}
		return fmt.Sprintf("%q is not the name of a kernel module: letters, digits, _ and -", v)
	})
	each("sysctls", i.Sysctls, func(v string) string {
		if sysctlRE.MatchString(v) {
			return ""
		}
		return fmt.Sprintf("%q is not KEY=VALUE like net.ipv4.ip_forward=1, without blanks", v)
	})
	return out
}

// badKey says why a public key cannot be taken, or nothing.
func badKey(line string) string {
	switch {
	case line != Clean(line, len(line)):
		return "has control characters or blanks at an end"
	case !sshKey.MatchString(line):
		return "is not one public key line, TYPE BASE64 COMMENT, without options"
	case !wholeKey(line):
		return "is cut short, or is not of the type that it begins with: with it nobody could log in; copy the whole line of the .pub file"
	}
	return ""
}

// wholeKey reports whether the key of a public key line is whole, and of the line's type:
// fields with their length in front, of which the first is the type (RFC 4253, 6.6).
func wholeKey(line string) bool {
	fields := strings.Fields(line)
	b, err := base64.StdEncoding.DecodeString(fields[1])
	for n := 0; err == nil && len(b) > 0; n++ {
		if len(b) < 4 {
			return false
		}
		size := uint64(binary.BigEndian.Uint32(b))
		if size > uint64(len(b)-4) || n == 0 && string(b[4:4+size]) != fields[0] {
			return false
		}
		if b = b[4+size:]; len(b) == 0 {
			return n > 0
		}
	}
	return false
}

// Origin says which level an installed system has a value from.
type Origin struct {
	Field  string   `json:"field"`
	Values []string `json:"values"` // of a text the one; no password's hash, only its kind
	From   string   `json:"from"`   // default, site, role NAME or host
	// Path is where the value stands: site.ntp, roles.NAME.ntp, install.ntp of the record.
	Path string `json:"path"`
	// Over is what other levels say, and is not in force: the nearest first.
	Over []Overridden `json:"over,omitempty"`
}

// Overridden is what a level says in vain.
type Overridden struct {
	From   string   `json:"from"`
	Values []string `json:"values"`
}
