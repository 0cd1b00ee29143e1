package lane

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Problem is one finding about one field of a record, with its mend.
type Problem struct {
	Field   string `json:"field"` // path within the record: identity.macs[1]
	Message string `json:"message"`
}

// String returns "field: message".
func (p Problem) String() string { return p.Field + ": " + p.Message }

var (
	dnsLabel  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	allDigits = regexp.MustCompile(`^[0-9.]+$`)
	bundleRef = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,126}$`)
)

// IsBundleRef reports whether s can be a bundle's NAME-VERSION or an alias.
func IsBundleRef(s string) bool { return bundleRef.MatchString(s) }

// Validate returns every problem of the record's inventory data.
func (h Host) Validate() []Problem {
	var out []Problem
	bad := func(field, format string, args ...any) {
		out = append(out, Problem{field, fmt.Sprintf(format, args...)})
	}
	named := dnsLabel.MatchString(string(h.ID))
	switch {
	case h.ID == "":
		bad("id", "is missing: the record's name, a DNS label like r7-n01")
	case !named:
		bad("id", "%q is not a DNS label: lower-case letters, digits and inner hyphens, at most 63", h.ID)
	}
	// By default it is the id, of which there is a line already.
	if msg := badHostname(h.Hostname); msg != "" && (named || h.Hostname != string(h.ID)) {
		bad("hostname", "%s", msg)
	}
	if _, err := ParseArch(string(h.Arch)); err != nil {
		bad("arch", "%v", err)
	}
	out = append(out, h.Identity.validate()...)
	for _, p := range h.Disk.Validate() {
		field, msg, _ := strings.Cut(p, ": ")
		bad(field, "%s", msg)
	}
	for _, p := range h.Mirror.validate("mirror") {
		field, msg, _ := strings.Cut(p, ": ")
		bad(field, "%s", msg)
	}
	switch {
	case h.Mirror.IsZero():
	case !h.Mirror.Selects():
		bad("mirror", "no disk selector: set mirror.byID, mirror.wwn or mirror.serial, so that exactly one disk can be written")
	case h.Mirror.Names(h.Disk):
		bad("mirror", "it is the same disk as `disk`: name another, or leave it out")
	}
	out = append(out, h.wipeProblems()...)
	if a := h.Network.Address; a.IsValid() && (!a.Is4() || a.IsMulticast() || a.IsUnspecified() || a.IsLoopback()) {
		bad("network.address", "%s is not a host's IPv4 address", a)
	}
	if a := h.Network.Address6; a.IsValid() && (!a.Is6() || a.Is4In6() || a.Zone() != "" || !a.IsGlobalUnicast()) {
		bad("network.address6", "%s is not a host's IPv6 address: a global or a unique local one", a)
	}
	out = append(out, h.validateInterfaces()...)
	for _, p := range h.Boot.Problems() {
		bad("boot."+p.Field, "%s", p.Message)
	}
	for _, p := range h.Install.Validate() {
		bad("install."+p.Field, "%s", p.Message)
	}
	if h.Bundle != "" && !IsBundleRef(h.Bundle) {
		bad("bundle", "%q is not a bundle's NAME-VERSION or an alias", h.Bundle)
	}
	for _, k := range slices.Sorted(maps.Keys(h.Labels)) {
		if k == "" || len(k) > 63 || len(h.Labels[k]) > 63 || strings.ContainsFunc(k+h.Labels[k], unprintable) {
			bad("labels."+k, "key and value are at most 63 printable characters each")
		}
	}
	return out
}

// Rivals returns what the records of one list claim twice: an id, or anything that
// tells machines apart. Fields begin with hosts[N].
func Rivals(specs []Host) []Problem {
	var out []Problem
	claims := map[string]int{}
	ids := map[HostID]int{}
	for i, s := range specs {
		field := fmt.Sprintf("hosts[%d]", i)
		if first, dup := ids[s.ID]; dup && s.ID != "" {
			out = append(out, Problem{field + ".id", fmt.Sprintf("%q is also the id of hosts[%d]", s.ID, first)})
			continue
		}
		ids[s.ID] = i
		rivals := map[int]bool{}
		for _, c := range s.Claims() {
			if first, dup := claims[c]; dup && first != i {
				rivals[first] = true
			} else {
				claims[c] = i
			}
		}
		for _, first := range slices.Sorted(maps.Keys(rivals)) {
			for _, p := range Collisions(s, specs[first:first+1]) {
				out = append(out, Problem{field + "." + p.Field, p.Message})
			}
		}
	}
	return out
}

func badHostname(s string) string {
	switch {
	case s == "":
		return "is missing"
	case len(s) > 64:
		return fmt.Sprintf("%q is longer than 64 characters, the kernel's limit", s)
	case allDigits.MatchString(s):
		return fmt.Sprintf("%q is all digits: Kubernetes and YAML take it for a number", s)
	case slices.Contains([]string{"localhost", "localhost.localdomain", "debian", "ubuntu-server"}, s):
		return fmt.Sprintf("%q is an installer's default, not a name", s)
	}
	for _, l := range strings.Split(s, ".") {
		if !dnsLabel.MatchString(l) {
			return fmt.Sprintf("%q is not a host name: labels of lower-case letters, digits and inner hyphens, joined by dots (RFC 1123)", s)
		}
	}
	return ""
}

func (i Identity) validate() []Problem {
	var out []Problem
	bad := func(field, format string, args ...any) {
		out = append(out, Problem{"identity." + field, fmt.Sprintf(format, args...)})
	}
	if i.UUID != "" {
		if u, err := ParseUUID(string(i.UUID)); err != nil {
			bad("uuid", "%v", err)
		} else if u.Placeholder() {
			bad("uuid", "%s is a factory default that many machines share: leave it out", u)
		}
	}
	seen := map[MAC]bool{}
	for n, m := range i.MACs {
		c, err := ParseMAC(string(m))
		switch {
		case err != nil:
			bad(fmt.Sprintf("macs[%d]", n), "%v", err)
		case seen[c]:
			bad(fmt.Sprintf("macs[%d]", n), "%s stands twice", c)
		}
		seen[c] = true
	}
	if i.UUID == "" && len(i.MACs) == 0 {
		bad("macs", "give a uuid or at least one boot MAC: nothing else can recognise the machine")
	}
	for _, f := range []struct{ name, v string }{{"serial", i.Serial}, {"assetTag", i.AssetTag}, {"chassis", i.Chassis}, {"rack", i.Rack}, {"unit", i.Unit}} {
		if f.v != Clean(f.v, 128) {
			bad(f.name, "%q has blanks at an end, control characters, or more than 128 bytes", f.v)
		}
	}
	if i.Serial != "" && PlaceholderText(i.Serial) {
		bad("serial", "%q tells no machine from another (a factory default, or too short): leave it out", i.Serial)
	}
	if i.BMC != "" {
		if _, err := netip.ParseAddr(i.BMC); err != nil && badHostname(i.BMC) != "" {
			bad("bmc", "%q is neither an address nor a host name", i.BMC)
		}
	}
	return out
}

// Canonical returns the record with its MACs, UUID and architecture in their one form.
// Fields that cannot be read are left as they are: [Host.Validate] names them.
func (h Host) Canonical() Host {
	if u, err := ParseUUID(string(h.Identity.UUID)); err == nil {
		h.Identity.UUID = u
	}
	macs := make([]MAC, 0, len(h.Identity.MACs))
	for _, m := range h.Identity.MACs {
		if c, err := ParseMAC(string(m)); err == nil {
			m = c
		}
		macs = append(macs, m)
	}
	h.Identity.MACs = macs
	if len(macs) == 0 {
		h.Identity.MACs = nil
	}
	if h.Arch == "" {
		h.Arch = X86_64
	}
	if a, err := ParseArch(string(h.Arch)); err == nil {
		h.Arch = a
	}
	if h.Hostname == "" {
		h.Hostname = string(h.ID)
	}
	h.Network = h.Network.canonical()
	return h
}

// Claims returns the values that must be unique among all records that are not
// retired, "kind:value": its identity keys, its host name and its addresses.
func (h Host) Claims() []string {
	keys := h.claims(h.Identity.Keys())
	if h.Run.MachineID != "" {
		keys = append(keys, machineClaim(h.Run.MachineID))
	}
	return keys
}

// machineClaim is by which records find who else has a machine-id.
func machineClaim(id string) string { return "machine-id:" + id }

func (h Host) claims(keys []string) []string {
	short, _, _ := strings.Cut(h.Hostname, ".")
	if short != "" {
		keys = append(keys, "hostname:"+short)
	}
	for _, a := range append([]netip.Addr{h.Network.Address, h.Network.Address6}, h.Network.Static()...) {
		kind := "address:"
		if a.Is6() {
			kind = "address6:"
		}
		if key := kind + a.String(); a.IsValid() && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// Collisions names every claim of h that another of the records makes too.
func Collisions(h Host, others []Host) []Problem {
	var out []Problem
	mine := h.claims(h.Identity.lookup()) // the UUID once: theirs has both byte orders
	for _, o := range others {
		if o.ID == h.ID || o.State == StateRetired {
			continue
		}
		theirs := o.Claims()
		for _, c := range mine {
			if contains(theirs, c) {
				kind, v, _ := strings.Cut(c, ":")
				out = append(out, Problem{h.claimField(kind, v), fmt.Sprintf("%s is also claimed by %s", v, o.ID)})
			}
		}
	}
	return out
}

func (h Host) claimField(kind, v string) string {
	switch kind {
	case "mac":
		return "identity.macs"
	case "asset":
		return "identity.assetTag"
	case "hostname":
		return "hostname"
	case "address", "address6":
		a, _ := netip.ParseAddr(v) // it was made of one
		return h.Network.Field(a)
	}
	return "identity." + kind
}

// Preflight returns everything that forbids to provision h with b, besides
// collisions: the things that only show once an install is wanted.
func Preflight(h Host, b Bundle) []Problem {
	out := h.Validate()
	bad := func(field, format string, args ...any) {
		out = append(out, Problem{field, fmt.Sprintf(format, args...)})
	}
	if !h.Disk.Selects() {
		bad("disk", "no disk selector: set disk.byID, disk.wwn or disk.serial, so that exactly one disk can be written")
	}
	if len(h.Wipe) > 0 && b.Digest != "" && b.Seed != SeedImage {
		bad("wipe", "the installer of the bundle %s (%s) clears no disk besides its own: take `wipe` out of the record, or use a bundle with %s", b.Ref(), b.Seed, SeedImage)
	}
	if len(h.Identity.MACs) == 0 {
		bad("identity.macs", "no boot MAC: firmware that sends no UUID could not be recognised")
	}
	switch {
	case h.Bundle == "" && b.Digest == "":
		bad("bundle", "no bundle: set `bundle` in the inventory or give --bundle")
	case b.Digest == "" && b.Refusal != "":
		bad("bundle", "%s", b.Refusal)
	case b.Digest == "":
		bad("bundle", "the bundle %q is not in the store: `bootlane bundle list` shows those that are", h.Bundle)
	case b.Refusal != "":
		bad("bundle", "%s", b.Refusal)
	case !b.Fits(h.Arch):
		bad("arch", "the machine is %s, the bundle %s is made for %s", h.Arch, b.Ref(), strings.Join(b.Archs(), ", "))
	}
	return out
}
