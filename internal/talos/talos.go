// Package talos reads machine configurations of Talos, and writes values into them. Talos refuses
// keys that it does not know; here that is said with its place. What makes a whole configuration is
// for its own library to say. The package is pure.
package talos

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/siderolabs/talos/pkg/machinery/config"
	"github.com/siderolabs/talos/pkg/machinery/config/configloader"
	"github.com/siderolabs/talos/pkg/machinery/config/validation"
	"go.yaml.in/yaml/v3"

	"bootlane/internal/strictyaml"
)

// Config is a machine configuration: the document with `machine` and `cluster`, and further ones that
// have a kind.
type Config struct{ docs []*yaml.Node }

// What Talos 1.9 to 1.12 read, of the parts that are judged here.
var (
	topKeys     = []string{"version", "debug", "persist", "machine", "cluster"}
	machineKeys = []string{"type", "token", "ca", "acceptedCAs", "certSANs", "controlPlane", "kubelet", "pods", "network", "disks", "install", "files", "env", "time", "sysctls", "sysfs", "registries",
		"systemDiskEncryption", "features", "udev", "logging", "kernel", "seccompProfiles", "baseRuntimeSpecOverrides", "nodeLabels", "nodeAnnotations", "nodeTaints"}
	clusterKeys = []string{"id", "secret", "controlPlane", "clusterName", "network", "token", "aescbcEncryptionSecret", "secretboxEncryptionSecret", "ca", "acceptedCAs", "aggregatorCA", "serviceAccount",
		"apiServer", "controllerManager", "proxy", "scheduler", "discovery", "etcd", "coreDNS", "externalCloudProvider", "extraManifests", "extraManifestHeaders", "inlineManifests", "adminKubeconfig",
		"allowSchedulingOnMasters", "allowSchedulingOnControlPlanes"}
	installKeys  = []string{"disk", "diskSelector", "extraKernelArgs", "image", "extensions", "bootloader", "wipe", "legacyBIOSSupport", "grubUseUKICmdline"}
	selectorKeys = []string{"size", "name", "model", "serial", "modalias", "uuid", "wwid", "type", "busPath"}
	networkKeys  = []string{"hostname", "interfaces", "nameservers", "searchDomains", "extraHostEntries", "kubespan", "disableSearchDomain"}
	deviceKeys   = []string{"interface", "deviceSelector", "addresses", "cidr", "routes", "bond", "bridge", "bridgePort", "vlans", "mtu", "dhcp", "ignore", "dummy", "dhcpOptions", "wireguard", "vip"}
	timeKeys     = []string{"disabled", "servers", "bootTimeout"}
	kinds        = []string{"BondConfig", "BridgeConfig", "DHCPv4Config", "DHCPv6Config", "DummyLinkConfig", "EthernetConfig", "EventSinkConfig", "ExistingVolumeConfig", "ExtensionServiceConfig", "HCloudVIPConfig",
		"HostnameConfig", "KmsgLogConfig", "KubeSpanEndpointsConfig", "Layer2VIPConfig", "LinkAliasConfig", "LinkConfig", "NetworkDefaultActionConfig", "NetworkRuleConfig", "OOMConfig", "PCIDriverRebindConfig",
		"RawVolumeConfig", "RegistryAuthConfig", "RegistryMirrorConfig", "RegistryTLSConfig", "ResolverConfig", "SideroLinkConfig", "StaticHostConfig", "SwapVolumeConfig", "TimeSyncConfig", "TrustedRootsConfig",
		"UserVolumeConfig", "VLANConfig", "VolumeConfig", "WatchdogTimerConfig", "WireguardConfig", "ZswapConfig"}
)

// Read reads a configuration, with everything that is wrong with it. Of one with problems there is none.
func Read(text []byte) (c Config, problems []strictyaml.Fault) {
	bad := func(n *yaml.Node, format string, args ...any) {
		problems = append(problems, strictyaml.Fault{Line: max(n.Line, 1), Column: max(n.Column, 1), Message: fmt.Sprintf(format, args...)})
	}
	dec, main := yaml.NewDecoder(bytes.NewReader(text)), 0
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Config{}, append(problems, notYAML(err))
		}
		root := doc.Content[0]
		sound(root, bad)
		switch {
		case root.Kind != yaml.MappingNode:
			bad(root, "keys with values are wanted here")
		case Get(root, "kind") == nil:
			if main++; main > 1 {
				bad(root, "a second document without a kind: there is one with `machine` and `cluster`")
			}
			judge(root, bad)
		case !slices.Contains(kinds, Get(root, "kind").Value):
			bad(Get(root, "kind"), "%q is no kind that Talos knows", Get(root, "kind").Value)
		}
		c.docs = append(c.docs, root)
	}
	if main == 0 && len(problems) == 0 {
		problems = append(problems, strictyaml.Fault{Line: 1, Column: 1, Message: "there is no document with `machine`: a configuration such as `talosctl gen config` writes is wanted"})
	}
	if len(problems) == 0 {
		if _, err := load(text); err != nil {
			problems = unknown(c.docs, err)
		}
	}
	if len(problems) > 0 {
		return Config{}, problems
	}
	return c, nil
}

func notYAML(err error) strictyaml.Fault {
	f := strictyaml.FaultOf(err.Error())
	f.Message = "this is no YAML: " + f.Message
	return f
}

// sound finds what YAML allows, and what two readers could take for different things.
func sound(n *yaml.Node, bad func(*yaml.Node, string, ...any)) {
	if n.Kind == yaml.AliasNode {
		bad(n, "an alias stands for a value elsewhere: write it out")
		return
	}
	seen := map[string]bool{}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			if seen[c.Value] {
				bad(c, "the key %q stands there already", c.Value)
			}
			seen[c.Value] = true
		}
		sound(c, bad)
	}
}

// judge looks at the document with `machine`.
func judge(root *yaml.Node, bad func(*yaml.Node, string, ...any)) {
	known := func(n *yaml.Node, where string, keys []string) {
		if n != nil && n.Kind != yaml.MappingNode {
			bad(n, "keys with values are wanted below %s", where)
			return
		}
		for i := 0; n != nil && i+1 < len(n.Content); i += 2 {
			if !slices.Contains(keys, n.Content[i].Value) {
				bad(n.Content[i], "%s has no key %q", where, n.Content[i].Value)
			}
		}
	}
	known(root, "the configuration", topKeys)
	for _, part := range []struct {
		keys  []string
		where string
	}{{machineKeys, "machine"}, {clusterKeys, "cluster"}, {installKeys, "machine.install"}, {selectorKeys, "machine.install.diskSelector"}, {networkKeys, "machine.network"}, {timeKeys, "machine.time"}} {
		known(Get(root, strings.Split(part.where, ".")...), part.where, part.keys)
	}
	if list := Get(root, "machine", "network", "interfaces"); list != nil && list.Kind == yaml.SequenceNode {
		for i, n := range list.Content {
			known(n, fmt.Sprintf("machine.network.interfaces[%d]", i), deviceKeys)
		}
	}
	if v := Get(root, "version"); v == nil || v.Value != "v1alpha1" {
		n := root
		if v != nil {
			n = v
		}
		bad(n, "version is not v1alpha1")
	}
	switch t := Get(root, "machine", "type"); {
	case Get(root, "machine") == nil:
		bad(root, "`machine` is missing")
	case t == nil:
		bad(Get(root, "machine"), "machine.type is missing: controlplane or worker")
	case t.Value != "controlplane" && t.Value != "worker":
		bad(t, "machine.type is %q: use controlplane or worker", t.Value)
	}
}

// Get returns the value below keys of a mapping, or nil. Nothing at all counts as nil.
func Get(n *yaml.Node, keys ...string) *yaml.Node {
	for _, k := range keys {
		if n == nil || n.Kind != yaml.MappingNode {
			return nil
		}
		var next *yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == k {
				next = n.Content[i+1]
			}
		}
		n = next
	}
	if n != nil && n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	return n
}

// Of returns the first document of a kind, or nil; an empty kind is that with `machine`.
func (c Config) Of(kind string) *yaml.Node {
	for _, d := range c.All(kind) {
		return d
	}
	return nil
}

// All returns the documents of a kind: those with a name may be several.
func (c Config) All(kind string) (out []*yaml.Node) {
	for _, d := range c.docs {
		k := Get(d, "kind")
		if k == nil && kind == "" || k != nil && k.Value == kind {
			out = append(out, d)
		}
	}
	return out
}

// Main returns the value below keys in the document with `machine`, or nil.
func (c Config) Main(keys ...string) *yaml.Node { return Get(c.Of(""), keys...) }

// Set puts a value below keys of a document, in the place of what is there.
func Set(doc *yaml.Node, value any, keys ...string) error {
	var v yaml.Node
	if err := v.Encode(value); err != nil {
		return fmt.Errorf("write %s: %w", strings.Join(keys, "."), err)
	}
	for i, k := range keys {
		last := i == len(keys)-1
		next := Get(doc, k)
		if last || next == nil || next.Kind != yaml.MappingNode {
			Delete(doc, k)
			next = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
			if last {
				next = &v
			}
			doc.Content = append(doc.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: k}, next)
		}
		doc = next
	}
	return nil
}

// Delete takes a key out of a document.
func Delete(doc *yaml.Node, key string) {
	for i := 0; i+1 < len(doc.Content); i += 2 {
		if doc.Content[i].Value == key {
			doc.Content = slices.Delete(doc.Content, i, i+2)
			return
		}
	}
}

// Bytes returns the configuration as text.
func (c Config) Bytes() ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	for _, d := range c.docs {
		if err := e.Encode(d); err != nil {
			return nil, fmt.Errorf("encode the machine configuration: %w", err)
		}
	}
	if err := e.Close(); err != nil {
		return nil, fmt.Errorf("encode the machine configuration: %w", err)
	}
	return b.Bytes(), nil
}

// metal is how Talos runs on a machine that is installed to its disk.
type metal struct{}

// String returns the mode's name.
func (metal) String() string { return "metal" }

// RequiresInstall says that a disk must be named.
func (metal) RequiresInstall() bool { return true }

// InContainer says that it is a machine of its own.
func (metal) InContainer() bool { return false }

// load has Talos' own library read a text. Whatever that does with one that nobody foresaw, a server goes on.
func load(text []byte) (p config.Provider, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("its reader fails: %v", r)
		}
	}()
	return configloader.NewFromBytes(text)
}

// Validate returns what Talos has against a whole configuration, on bare metal, what it warns of included.
// It gives no places.
func Validate(text []byte) (out []string) {
	defer func() {
		if r := recover(); r != nil {
			out = []string{fmt.Sprintf("its reader fails: %v", r)}
		}
	}()
	p, err := load(text)
	if err == nil {
		out, err = p.Validate(metal{}, validation.WithStrict())
	}
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			if line = strings.Trim(line, "\t\n *"); line != "" && !strings.HasSuffix(line, "occurred:") {
				out = append(out, line)
			}
		}
	}
	return out
}

// unknown makes problems of the error by which the library refuses keys: they stand in it as a document.
func unknown(docs []*yaml.Node, err error) (out []strictyaml.Fault) {
	_, text, ok := strings.Cut(err.Error(), "unknown keys found during decoding:\n")
	var tree yaml.Node
	if !ok || yaml.Unmarshal([]byte(text), &tree) != nil || len(tree.Content) == 0 {
		return []strictyaml.Fault{{Line: 1, Column: 1, Message: strings.Join(strings.Fields(err.Error()), " ")}}
	}
	for _, d := range docs {
		out = append(out, lost(d, tree.Content[0], "")...)
	}
	if len(out) == 0 {
		out = []strictyaml.Fault{{Line: 1, Column: 1, Message: "keys that Talos does not know: " + strings.Join(strings.Fields(text), " ")}}
	}
	return out
}

// lost finds the deepest keys of a tree in a document.
func lost(doc, tree *yaml.Node, at string) (out []strictyaml.Fault) {
	switch {
	case doc.Kind == yaml.MappingNode && tree.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(tree.Content); i += 2 {
			for j := 0; j+1 < len(doc.Content); j += 2 {
				k, path := doc.Content[j], strings.TrimPrefix(at+"."+doc.Content[j].Value, ".")
				if k.Value != tree.Content[i].Value {
					continue
				}
				below := lost(doc.Content[j+1], tree.Content[i+1], path)
				if len(below) == 0 {
					below = []strictyaml.Fault{{Line: k.Line, Column: k.Column, Message: path + ": Talos knows no such key"}}
				}
				out = append(out, below...)
			}
		}
	case doc.Kind == yaml.SequenceNode && tree.Kind == yaml.SequenceNode:
		for _, t := range tree.Content {
			for i, d := range doc.Content {
				if found := lost(d, t, fmt.Sprintf("%s[%d]", at, i)); len(found) > 0 {
					out = append(out, found...)
					break
				}
			}
		}
	}
	return out
}
