package lint

import (
	"net/netip"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"bootlane/internal/lane"
)

var (
	netplanKeys = []string{"version", "renderer", "ethernets", "modems", "wifis", "bonds", "bridges", "vlans", "tunnels", "vrfs", "dummy-devices", "nm-devices", "virtual-ethernets", "openvswitch"}
	// What each interface takes, whatever its kind.
	interfaceKeys = []string{"renderer", "dhcp4", "dhcp6", "dhcp4-overrides", "dhcp6-overrides", "ipv6-mtu", "ipv6-privacy", "link-local", "ignore-carrier", "critical", "dhcp-identifier", "accept-ra",
		"ra-overrides", "addresses", "ipv6-address-generation", "ipv6-address-token", "gateway4", "gateway6", "nameservers", "macaddress", "mtu", "optional", "optional-addresses", "activation-mode",
		"routes", "routing-policy", "neigh-suppress", "networkmanager", "openvswitch"}
	physicalKeys = []string{"match", "set-name", "wakeonlan", "emit-lldp", "receive-checksum-offload", "transmit-checksum-offload", "tcp-segmentation-offload", "tcp6-segmentation-offload",
		"generic-segmentation-offload", "generic-receive-offload", "large-receive-offload", "delay-virtual-functions-rebind", "embedded-switch-mode", "infiniband-mode", "link", "virtual-function-count", "auth"}
	// The kinds of interfaces whose keys we know all of.
	kindKeys = map[string][]string{"ethernets": physicalKeys, "bonds": {"interfaces", "parameters"}, "bridges": {"interfaces", "parameters"}, "vlans": {"id", "link"}, "dummy-devices": {}}
)

// networkConfig judges what cloud-init is given for the network.
func (r *report) networkConfig(text string) {
	root := r.yaml(text)
	if root == nil {
		return
	}
	if k, n := entry(root, "network"); k != nil {
		r.known("net-unknown-key", root, []string{"network"}, "network-config")
		if n.Kind != yaml.MappingNode {
			r.add("value-kind", pos(k), "keys with values are wanted below %q", "network")
			return
		}
		root = n
	}
	if is(get(root, "config"), "disabled") {
		return
	}
	r.netplan(root)
}

// network is what is known of all interfaces of a file while each is judged.
type network struct {
	macs   map[lane.MAC]bool
	names  map[string]bool
	routed map[bool]bool // a default route: of IPv4, of IPv6
	static *yaml.Node    // has an address of its own
	dns    bool          // somebody names a server, or asks DHCP for one
}

// netplan judges the keys below network.
func (r *report) netplan(root *yaml.Node) {
	switch v := get(root, "version"); {
	case v == nil:
		r.add("net-version", pos(root), "version is missing")
		return
	case v.Value != "2":
		r.add("net-version", pos(v), "version %s is not linted by this version: only 2, which netplan reads, is", v.Value)
		return
	}
	r.known("net-unknown-key", root, netplanKeys, "network")
	w := &network{macs: map[lane.MAC]bool{}, names: map[string]bool{}, routed: map[bool]bool{}}
	each(root, func(kind, all *yaml.Node) {
		own, known := kindKeys[kind.Value]
		if all.Kind != yaml.MappingNode {
			if known {
				r.add("value-kind", pos(kind), "keys with values are wanted below %q", kind.Value)
			}
			return
		}
		each(all, func(name, n *yaml.Node) {
			if n.Kind != yaml.MappingNode {
				return // an interface of which nothing is said
			}
			if known {
				r.known("net-unknown-key", n, slices.Concat(interfaceKeys, own), name.Value)
			}
			r.netInterface(w, kind.Value, name, n)
		})
	})
	if w.static != nil && !w.dns {
		r.add("net-dns-missing", pos(w.static), "the addresses are static, and no interface has nameservers")
	}
}

func (r *report) netInterface(w *network, kind string, name, n *yaml.Node) {
	r.kinds(n, map[string]yaml.Kind{"addresses": yaml.SequenceNode, "routes": yaml.SequenceNode, "nameservers": yaml.MappingNode, "match": yaml.MappingNode})
	r.netName(w, kind, name, n)
	if v := get(n, "macaddress"); v != nil {
		if s, ok := r.text(v); ok && strings.Contains(s, ":") { // or a word such as permanent
			r.mac(pos(v), s, map[lane.MAC]bool{})
		}
	}
	var own []netip.Prefix
	for _, a := range items(get(n, "addresses")) {
		each(a, func(k, _ *yaml.Node) { a = k }) // an address with options is a mapping of one key
		if v, ok := r.text(a); ok {
			if p, ok := r.prefix(pos(a), v); ok {
				own = append(own, p)
				w.static = name
			}
		}
	}
	six := slices.ContainsFunc(own, func(p netip.Prefix) bool { return p.Addr().Is6() }) || yes(get(n, "dhcp6"))
	w.dns = w.dns || yes(get(n, "dhcp4")) || yes(get(n, "dhcp6")) || len(items(get(n, "nameservers", "addresses"))) > 0
	for _, a := range items(get(n, "nameservers", "addresses")) {
		if v, ok := r.text(a); ok {
			r.address(pos(a), v)
		}
	}
	if v := get(n, "mtu"); v != nil {
		r.mtu(pos(v), v.Value, six)
	}
	r.netRoutes(w, n, own)
	switch kind {
	case "vlans":
		if v := get(n, "id"); v == nil || number(v.Value) < 1 || number(v.Value) > 4094 {
			r.add("net-vlan-id", pos(name), "the VLAN needs an id from 1 to 4094")
		}
		if get(n, "link") == nil {
			r.add("net-members", pos(name), "the VLAN has no link")
		}
	case "bonds":
		if len(items(get(n, "interfaces"))) == 0 {
			r.add("net-members", pos(name), "the bond has no interfaces")
		}
		primary := get(n, "parameters", "primary")
		if primary != nil && !slices.ContainsFunc(items(get(n, "interfaces")), func(m *yaml.Node) bool { return m.Value == primary.Value }) {
			r.add("net-members", pos(primary), "the primary %q is not among the bond's interfaces", primary.Value)
		}
		if mode := get(n, "parameters", "mode"); is(mode, "active-backup") && primary == nil {
			r.add("net-bond-primary", pos(mode), "the bond has no primary")
		}
	}
}

// netName judges how an interface is found, and what it is called.
func (r *report) netName(w *network, kind string, name, n *yaml.Node) {
	called := name
	if v := get(n, "set-name"); v != nil {
		called = v
		if w.names[v.Value] {
			r.add("net-name-twice", pos(v), "two interfaces are to be called %q", v.Value)
		}
	}
	w.names[called.Value] = true
	if len(called.Value) > 15 && (called != name || kind != "ethernets" || get(n, "match") == nil) {
		r.add("net-name-long", pos(called), "%q is longer than the 15 bytes of an interface's name", called.Value)
	}
	mac := get(n, "match", "macaddress")
	if mac != nil {
		if v, ok := r.text(mac); ok {
			r.mac(pos(mac), v, w.macs)
		}
		return
	}
	if kind == "ethernets" && get(n, "match") == nil && kernelNIC.MatchString(name.Value) {
		r.add("net-kernel-name", pos(name), "%q is found by the kernel's name, which another NIC may have after a change of hardware", name.Value)
	}
}

func (r *report) netRoutes(w *network, n *yaml.Node, own []netip.Prefix) {
	defaults := func(p at, four bool) {
		if w.routed[four] {
			r.add("net-two-routers", p, "this is the second default route")
		}
		w.routed[four] = true
	}
	for _, key := range []string{"gateway4", "gateway6"} {
		if v := get(n, key); v != nil {
			if s, ok := r.text(v); ok {
				r.gateway(pos(v), s, own)
				defaults(pos(v), key == "gateway4")
			}
		}
	}
	for _, route := range items(get(n, "routes")) {
		to, via := get(route, "to"), get(route, "via")
		if to == nil || via == nil {
			continue
		}
		v, ok := r.text(via)
		if !ok {
			continue
		}
		if !yes(get(route, "on-link")) {
			r.gateway(pos(via), v, own)
		}
		if slices.Contains([]string{"default", "0.0.0.0/0", "::/0"}, to.Value) && get(route, "table") == nil && get(route, "metric") == nil {
			defaults(pos(to), !strings.Contains(v, ":"))
		}
	}
}
