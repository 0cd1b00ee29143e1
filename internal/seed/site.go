package seed

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"bootlane/internal/lane"
)

var (
	mirrorURL = regexp.MustCompile(`^http://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~+-]*)*$`)
	baseURL   = regexp.MustCompile(`^http://[A-Za-z0-9.:\[\]-]+/run/[a-z0-9-]+$`)
	plainWord = regexp.MustCompile(`^[A-Za-z0-9._+-]+$`)
	codename  = regexp.MustCompile(`^[a-z]+$`)

	endpointAddress = regexp.MustCompile(`^([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}$`)
	certificates    = regexp.MustCompile(`^(-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=]+\n)+-----END CERTIFICATE-----\n?)+$`)
)

// Site is what one installed system gets, when all levels have spoken.
type Site struct {
	Domain       string
	User         string // the one administrator, with sudo
	PasswordHash string // crypt(3) hash: $6$… or $y$…; empty locks the password
	SSHKeys      []string
	Locale       string
	Keyboard     string
	Timezone     string
	NTP          []string
	Packages     []string // besides those of every system
	KernelArgs   []string
	Proxy        string
	Cluster      string // that the machine joins; empty: none
	Purpose      string // what it is for: nothing in particular, or Kubernetes
	Modules      []string
	Sysctls      []string // KEY=VALUE
	Swap         string
	Runtime      string
	Layout       string
	Volumes      []string
	Encryption   string
	Tang         []string
}

// Layer is one level, and what it says.
type Layer struct {
	From string // default, site, role NAME or host
	Path string // where its keys stand, as site or roles.NAME
	lane.InstallOptions
}

// Defaults returns the level below all others. It says everything.
func Defaults(domain string) Layer {
	return Layer{From: "default", Path: "default", InstallOptions: lane.InstallOptions{Domain: &domain, User: new("ops"), PasswordHash: new(""), SSHKeys: []string{}, Locale: new("en_US.UTF-8"),
		Keyboard: new("us"), Timezone: new("Etc/UTC"), NTP: []string{}, Packages: []string{}, KernelArgs: []string{}, Proxy: new(""), Cluster: new(""),
		Purpose: new(""), Modules: []string{}, Sysctls: []string{}, Swap: new(lane.SwapAllowed), Runtime: new(""), Layout: new(""), Volumes: []string{}, Encryption: new(""), Tang: []string{}}}
}

// Purpose returns the level right above the defaults: what a machine needs for what the last of
// layers to speak of its purpose says that it is for.
func Purpose(layers ...Layer) Layer {
	var all lane.InstallOptions
	for _, l := range layers {
		all = l.Over(all)
	}
	if all.Purpose == nil || *all.Purpose != lane.PurposeKubernetes {
		return Layer{}
	}
	return Layer{From: "purpose " + lane.PurposeKubernetes, Path: "purpose", InstallOptions: lane.InstallOptions{Modules: []string{"overlay", "br_netfilter"},
		Sysctls: []string{"net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=1", "net.bridge.bridge-nf-call-ip6tables=1"}, Swap: new(lane.SwapOff), Runtime: new(lane.RuntimeContainerd)}}
}

// Merge returns what the levels make of each other, and where each value comes from. Each
// takes the place, key by key and whole, of those before it; what none says is empty.
func Merge(layers ...Layer) (Site, []lane.Origin) {
	var all lane.InstallOptions
	var origins []lane.Origin
	for _, f := range all.Fields() {
		origins = append(origins, lane.Origin{Field: f.Name, Values: []string{}})
	}
	for _, l := range layers {
		all = l.Over(all)
		for n, f := range l.Masked().Fields() {
			if !f.Set {
				continue
			}
			o := &origins[n]
			if o.From != "" && (o.From != "default" || len(o.Values) > 0) { // a default of none is nothing to speak of
				o.Over = slices.Insert(o.Over, 0, lane.Overridden{From: o.From, Values: o.Values})
			}
			o.Values, o.From, o.Path = append([]string{}, f.Values...), l.From, l.Path+"."+f.Name
		}
	}
	return siteOf(all), origins
}

func siteOf(i lane.InstallOptions) Site {
	text := func(v *string) string {
		if v == nil {
			return ""
		}
		return *v
	}
	return Site{Domain: text(i.Domain), User: text(i.User), PasswordHash: text(i.PasswordHash), SSHKeys: i.SSHKeys, Locale: text(i.Locale), Keyboard: text(i.Keyboard),
		Timezone: text(i.Timezone), NTP: i.NTP, Packages: i.Packages, KernelArgs: i.KernelArgs, Proxy: text(i.Proxy), Cluster: text(i.Cluster),
		Purpose: text(i.Purpose), Modules: i.Modules, Sysctls: i.Sysctls, Swap: text(i.Swap), Runtime: text(i.Runtime), Layout: text(i.Layout), Volumes: i.Volumes, Encryption: text(i.Encryption), Tang: i.Tang}
}

// Admits reports whether anybody could log in as the administrator.
func (s Site) Admits() bool { return s.PasswordHash != "" || len(s.SSHKeys) > 0 }

// validate returns every problem of the values. Each level was looked at before: this is for
// a record that is older than a rule.
func (s Site) validate() []lane.Problem {
	return lane.InstallOptions{Domain: &s.Domain, User: &s.User, PasswordHash: &s.PasswordHash, SSHKeys: s.SSHKeys, Locale: &s.Locale, Keyboard: &s.Keyboard,
		Timezone: &s.Timezone, NTP: s.NTP, Packages: s.Packages, KernelArgs: s.KernelArgs, Proxy: &s.Proxy, Cluster: &s.Cluster,
		Purpose: &s.Purpose, Modules: s.Modules, Sysctls: s.Sysctls, Swap: new(cmp.Or(s.Swap, lane.SwapAllowed)), Runtime: &s.Runtime, Layout: &s.Layout, Volumes: s.Volumes, Encryption: &s.Encryption, Tang: s.Tang}.Validate()
}

// path returns where a value of the site stands: ntp[1] is roles.storage.ntp[1].
func (in Input) path(field string) string {
	name, index, listed := strings.Cut(field, "[")
	for _, o := range in.Origins {
		if o.Field == name && listed {
			return o.Path + "[" + index
		}
		if o.Field == name {
			return o.Path
		}
	}
	return "site." + field
}
