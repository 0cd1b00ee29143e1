package seed

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"bootlane/internal/lane"
	"bootlane/internal/talos"
)

// A machine of Talos reads one configuration, and no program of ours runs on it: who it is, and
// which disk is written, stand in what it is given, and whether it is given that is the server's to say.

// talosDocuments returns what Talos reads.
func (v view) talosDocuments() ([]Document, error) {
	if v.Bundle.Seed != lane.SeedTalos {
		return nil, nil
	}
	config, err := v.talosConfig()
	if err != nil {
		return nil, err
	}
	return []Document{{"config.yaml", typeYAML, config}}, nil
}

// talosArgs are the arguments by which Talos asks for its configuration, and says who it is. What
// stands for its UUID and the rest is escaped: iPXE would put in values of its own, and to Talos
// it is the same.
func (in Input) talosArgs() string {
	var said []string
	add := func(key string, known bool) {
		if known { // of a value that its machine does not have, Talos sends the name
			said = append(said, key+"=%24%7B"+key+"%7D")
		}
	}
	add("uuid", !in.Host.Identity.UUID.Placeholder())
	add("mac", in.Host.AsksMAC())
	add("serial", !lane.PlaceholderText(in.Host.Identity.Serial))
	// The first three are what Talos' own kernels are started with. An older Talos on one of the disks would
	// start in the place of the new one: it halts, and says so.
	return "init_on_alloc=1 slab_nomerge= pti=on talos.halt_if_installed=1 talos.platform=metal talos.config=" + in.Base + "/seed/config.yaml?" + strings.Join(said, "&")
}

// talosConfig returns the given configuration with what the record says. An error has every problem of it.
func (v view) talosConfig() ([]byte, error) {
	config, problems := v.givenTalos()
	if len(problems) == 0 {
		problems = v.talosConflicts(config)
	}
	if len(problems) == 0 {
		out, err := v.talosFilled(config)
		if err != nil {
			return nil, err
		}
		for _, p := range talos.Validate(out) {
			problems = append(problems, fmt.Sprintf("bundle.config: %s: Talos refuses it: %s", v.Config.File, p))
		}
		if len(problems) == 0 {
			return out, nil
		}
	}
	return nil, &lane.Error{Code: lane.Invalid, Message: "the machine configuration cannot be written", Problems: problems}
}

// givenTalos returns what the bundle gives.
func (v view) givenTalos() (c talos.Config, problems []string) {
	text, err := v.fill(v.Config)
	if err != nil {
		return c, []string{"bundle.config: " + err.Error()}
	}
	c, bad := talos.Read([]byte(text))
	for _, p := range bad {
		problems = append(problems, fmt.Sprintf("bundle.config: %s:%s", v.Config.File, p))
	}
	return c, problems
}

// networkKinds are the documents that say what the record's interfaces say.
var networkKinds = []string{"BondConfig", "DHCPv4Config", "DHCPv6Config", "LinkAliasConfig", "LinkConfig", "ResolverConfig", "VLANConfig"}

// talosConflicts says what of the given configuration is ours to write.
func (v view) talosConflicts(c talos.Config) (out []string) {
	bad := func(n *yaml.Node, format string, args ...any) {
		out = append(out, fmt.Sprintf("bundle.config: %s:%d:%d: ", v.Config.File, n.Line, n.Column)+fmt.Sprintf(format, args...))
	}
	if n := c.Main("machine", "disks"); n != nil {
		bad(n, "machine.disks takes further disks, and the record's disk alone is granted: leave it out")
	}
	for _, kind := range []string{"UserVolumeConfig", "RawVolumeConfig", "SwapVolumeConfig"} {
		if d := c.Of(kind); d != nil {
			bad(d, "%s takes a disk by itself, and the record's disk alone is granted: leave it out, and apply it with talosctl once the machine runs", kind)
		}
	}
	for _, d := range c.All("VolumeConfig") {
		n := talos.Get(d, "provisioning", "diskSelector")
		if n == nil {
			continue
		}
		bad(n, "provisioning.diskSelector can mean another disk, and the record's alone is granted: leave it out")
	}
	if len(v.Host.Network.Interfaces) > 0 {
		for _, key := range []string{"interfaces", "nameservers", "searchDomains"} {
			if n := c.Main("machine", "network", key); n != nil {
				bad(n, "machine.network.%s stands there, and the record has network.interfaces: leave one of both out", key)
			}
		}
		for _, kind := range networkKinds {
			if d := c.Of(kind); d != nil {
				bad(d, "a %s stands there, and the record has network.interfaces: leave one of both out", kind)
			}
		}
	}
	if n := c.Main("machine", "time", "servers"); n != nil && len(v.Site.NTP) > 0 {
		bad(n, "machine.time.servers stand there, and %s as well: leave one of both out", v.path("ntp"))
	}
	if d := c.Of("TimeSyncConfig"); d != nil && len(v.Site.NTP) > 0 {
		bad(d, "a TimeSyncConfig stands there, and %s as well: leave one of both out", v.path("ntp"))
	}
	return out
}

// talosFilled puts in what the record says.
func (v view) talosFilled(c talos.Config) ([]byte, error) {
	main := c.Of("")
	set := func(value any, keys ...string) error { return talos.Set(main, value, keys...) }
	var errs []error
	if d := c.Of("HostnameConfig"); d != nil { // beside it, the other place is refused
		talos.Delete(d, "auto")
		errs = append(errs, talos.Set(d, v.Short, "hostname"))
		if n := talos.Get(main, "machine", "network"); n != nil {
			talos.Delete(n, "hostname")
		}
	} else {
		errs = append(errs, set(v.Short, "machine", "network", "hostname"))
	}
	if n := talos.Get(main, "machine", "install"); n != nil {
		talos.Delete(n, "disk")
		talos.Delete(n, "diskSelector")
	}
	value, keys, _ := talosDisk(v.Host.Run.Disk) // it was checked
	errs = append(errs, set(value, keys...),
		// The grant says that the disk is erased. An older Talos keeps the new one from starting at all.
		set(true, "machine", "install", "wipe"))
	if all := v.talosInterfaces(); len(all) > 0 {
		errs = append(errs, set(all, "machine", "network", "interfaces"))
		if s := v.NameServers(); len(s) > 0 {
			errs = append(errs, set(s, "machine", "network", "nameservers"))
		}
		if s := v.SearchDomains(); len(s) > 0 {
			errs = append(errs, set(s, "machine", "network", "searchDomains"))
		}
	}
	if len(v.Site.NTP) > 0 {
		errs = append(errs, set(v.Site.NTP, "machine", "time", "servers"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return c.Bytes()
}

// talosDisk returns by what Talos finds the disk, and where that stands: always one thing, which one disk
// alone has, and the size that it has at least, where Talos compares one. An empty why: it was found.
func talosDisk(d lane.DiskSelector) (value any, keys []string, why string) {
	install := []string{"machine", "install"}
	selector := append(install, "diskSelector")
	by := func(key, value string) map[string]string {
		out := map[string]string{key: value}
		if d.Model != "" {
			out["model"] = d.Model + "*"
		}
		if d.SizeGB > 0 { // it takes one comparison, so that a larger disk fits
			out["size"] = fmt.Sprintf(">= %d", int64(d.SizeGB*0.99e9))
		}
		return out
	}
	switch {
	case strings.Contains(d.WWN+d.Serial+d.ByID+d.ByPath+d.Model, "*"):
		return nil, nil, "has a *, which is a pattern to Talos: select it by what has none"
	case strings.HasPrefix(d.WWN, "0x"): // as sysfs calls it
		return by("wwid", "naa."+strings.TrimPrefix(d.WWN, "0x")), selector, ""
	case d.WWN != "":
		return by("wwid", d.WWN), selector, ""
	case d.ByID != "":
		return "/dev/disk/by-id/" + d.ByID, append(install, "disk"), ""
	case d.Serial != "":
		return by("serial", d.Serial), selector, ""
	case d.ByPath != "":
		return "/dev/disk/by-path/" + d.ByPath, append(install, "disk"), ""
	case d.Name != "":
		return "/dev/" + d.Name, append(install, "disk"), ""
	}
	return nil, nil, "says nothing by which Talos finds one disk: give wwn, byID, serial or byPath"
}

// talosInterfaces are the record's interfaces as a machine configuration has them. A NIC is found by its
// MAC; a VLAN stands below what it is on, and is called after that.
func (v view) talosInterfaces() (out []map[string]any) {
	for _, i := range v.Host.Network.Whole() {
		if i.VLAN != nil || v.Host.Network.MemberOf(i.MAC) != "" {
			continue
		}
		o := talosAddresses(i)
		switch {
		case i.Bond != nil:
			o["interface"] = i.Name
			var members []map[string]string
			for _, m := range i.Bond.Members {
				members = append(members, map[string]string{"permanentAddr": string(m)})
			}
			o["bond"] = map[string]any{"mode": i.Bond.Kind(), "miimon": i.Bond.Interval(), "deviceSelectors": members}
		default:
			o["deviceSelector"] = map[string]string{"permanentAddr": string(i.MAC)}
		}
		var vlans []map[string]any
		for _, l := range v.vlansOn(i) {
			n := slices.IndexFunc(v.Host.Network.Whole(), func(w lane.Interface) bool { return w.VLAN != nil && w.Name == l.Name })
			vlan := talosAddresses(v.Host.Network.Whole()[n])
			vlan["vlanId"] = l.VLAN.ID
			vlans = append(vlans, vlan)
		}
		if len(vlans) > 0 {
			o["vlans"] = vlans
		}
		out = append(out, o)
	}
	return out
}

func talosAddresses(i lane.Interface) map[string]any {
	o := map[string]any{"dhcp": i.DHCP()}
	if i.MTU != 0 {
		o["mtu"] = i.MTU
	}
	if len(i.Addresses) > 0 {
		o["addresses"] = i.Addresses
	}
	var routes []map[string]string
	for _, g := range i.Gateways {
		routes = append(routes, map[string]string{"network": everywhere(g), "gateway": g})
	}
	if len(routes) > 0 {
		o["routes"] = routes
	}
	return o
}

// checkTalos refuses what Talos cannot be told. What a machine that is meant for Kubernetes has, Talos has
// by itself.
func (in Input) checkTalos() (out []string) {
	for _, p := range in.Bundle.Talos() {
		out = append(out, "bundle."+p.String())
	}
	if in.Config.File == "" {
		out = append(out, "bundle.config: is missing: the machine configuration that Talos installs itself by")
	}
	if _, _, why := talosDisk(in.Host.Run.Disk); why != "" {
		out = append(out, "disk: "+why)
	}
	if i := in.Host.Identity; i.UUID.Placeholder() && len(i.MACs) == 0 && lane.PlaceholderText(i.Serial) {
		out = append(out, "identity: says nothing by which the machine is known when it asks for its configuration: give a UUID, a MAC or a serial number")
	}
	for _, f := range []struct {
		name string
		list []string
		mend string
	}{{"packages", in.Site.Packages, "build the image with system extensions"}, {"kernelArgs", in.Site.KernelArgs, "build them into the image"}, {"modules", in.Site.Modules, "write machine.kernel.modules into the bundle's `config`"},
		{"sysctls", in.Site.Sysctls, "write machine.sysctls into the bundle's `config`"}} {
		if len(f.list) > 0 && in.said(f.name) {
			out = append(out, fmt.Sprintf("%s: Talos is not told them so: %s, and say `%s: []` for this host or its role", in.path(f.name), f.mend, f.name))
		}
	}
	if in.Site.Proxy != "" {
		out = append(out, in.path("proxy")+": Talos is not told it so: write machine.env into the bundle's `config`, and say `proxy: \"\"` for this host or its role")
	}
	if len(in.Scripts) > 0 {
		out = append(out, "bundle.firstBoot: Talos runs no scripts: remove them from the bundle")
	}
	for n, i := range in.Host.Network.Interfaces {
		field := fmt.Sprintf("network.interfaces[%d]", n)
		if i.MAC != "" && i.Name != "" {
			out = append(out, field+".name: Talos leaves a NIC the kernel's name: leave it out")
		}
		if i.Bond != nil && i.Bond.Primary != "" {
			out = append(out, field+".bond.primary: Talos knows it by its name only, which nobody can say before: leave it out")
		}
		if i.NoDefaultRoute {
			out = append(out, field+".noDefaultRoute: Talos takes what DHCP gives: give the interface an address, or leave it out")
		}
	}
	return out
}

// said reports whether somebody asked for a value, and not only what the machine is for.
func (in Input) said(field string) bool {
	for _, o := range in.Origins {
		if o.Field == field {
			return !strings.HasPrefix(o.From, "purpose ") && !strings.HasPrefix(o.From, "cluster ")
		}
	}
	return true
}
