package seed

import (
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"bootlane/internal/lane"
	"bootlane/internal/talos"
)

// givenTalos is what a bundle may give, with a part that is the host's.
var givenTalos = Section{Name: "config", File: "worker.yaml", Text: []byte(`version: v1alpha1
machine:
  type: worker
  # of rack {{.Rack}}
  nodeLabels: {asset: {{yaml .AssetTag}}}
  token: abcdef.0123456789abcdef
  ca: {crt: LS0tLS1CRUdJTg==, key: ""}
  install: {disk: /dev/sda, image: "ghcr.io/siderolabs/installer:v1.12.0", wipe: false}
cluster:
  controlPlane: {endpoint: "https://10.0.0.9:6443"}
  token: abcdef.0123456789abcdef
  ca: {crt: LS0tLS1CRUdJTg==, key: ""}
---
apiVersion: v1alpha1
kind: HostnameConfig
auto: stable
`)}

// machineConfig is what of a configuration matters here.
type machineConfig struct {
	Machine struct {
		NodeLabels map[string]string `yaml:"nodeLabels"`
		Install    struct {
			Disk     string
			Selector map[string]string `yaml:"diskSelector"`
			Image    string
			Wipe     *bool
		}
		Network struct {
			Hostname    string
			Interfaces  []map[string]any
			Nameservers []string
			Search      []string `yaml:"searchDomains"`
		}
		Time struct{ Servers []string }
	}
}

func talosOf(t *testing.T, in Input) (c machineConfig, text string) {
	t.Helper()
	text = document(t, in, "config.yaml")
	if p := talos.Validate([]byte(text)); len(p) > 0 {
		t.Errorf("Talos refuses it: %q\n%s", p, text)
	}
	if err := yaml.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	return c, text
}

// TestTalosConfig: name, disk and time servers are the record's, the rest is as it was given.
func TestTalosConfig(t *testing.T) {
	in := full(lane.SeedTalos)
	c, text := talosOf(t, in)
	m := c.Machine
	if m.Install.Disk != "" || len(m.Install.Selector) != 2 || m.Install.Selector["size"] != ">= 475200000000" || m.Install.Selector["wwid"] != "naa.5002538e00000001" || m.Install.Wipe == nil || !*m.Install.Wipe || m.Install.Image != "ghcr.io/siderolabs/installer:v1.12.0" {
		t.Errorf("install: %+v", m.Install)
	}
	if m.Network.Hostname != "" || !strings.Contains(text, "kind: HostnameConfig\nhostname: node-a\n") || strings.Contains(text, "auto:") {
		t.Errorf("the name:\n%s", text)
	}
	if fmt.Sprint(m.Time.Servers) != "[10.0.0.2 ntp.example.org]" || m.NodeLabels["asset"] != "AT-1" || !strings.Contains(text, "# of rack") {
		t.Errorf("%+v\n%s", m, text)
	}
	in.Config.Text = []byte(strings.Split(string(givenTalos.Text), "---\n")[0])
	if c, _ := talosOf(t, in); c.Machine.Network.Hostname != "node-a" {
		t.Errorf("the name, without a document of its own: %+v", c.Machine.Network)
	}
	if c, _ := talosOf(t, minimal(lane.SeedTalos)); c.Machine.Install.Selector["serial"] != "S2" {
		t.Errorf("%+v", c.Machine.Install)
	}
}

// TestTalosDisk: always one thing, which one disk alone has, and the least size where Talos compares it.
func TestTalosDisk(t *testing.T) {
	for _, c := range []struct {
		disk lane.DiskSelector
		want string
	}{
		{lane.DiskSelector{WWN: "0x5002538e00000001", ByID: "x", Serial: "S"}, "map[wwid:naa.5002538e00000001] "}, {lane.DiskSelector{WWN: "eui.0025388b71b10001"}, "map[wwid:eui.0025388b71b10001] "},
		{lane.DiskSelector{ByID: "nvme-x", Serial: "S", SizeGB: 5}, "map[] /dev/disk/by-id/nvme-x"}, {lane.DiskSelector{Serial: "S 1"}, "map[serial:S 1] "}, {lane.DiskSelector{Serial: "S", SizeGB: 5}, "map[serial:S size:>= 4950000000] "}, {lane.DiskSelector{Serial: "S", Model: "X"}, "map[model:X* serial:S] "}, {lane.DiskSelector{Name: "vda"}, "map[] /dev/vda"}, {lane.DiskSelector{WWN: "nvme.1", SizeGB: 0.5}, "map[size:>= 495000000 wwid:nvme.1] "}, {lane.DiskSelector{ByPath: "pci-1"}, "map[] /dev/disk/by-path/pci-1"},
	} {
		in := full(lane.SeedTalos)
		in.Host.Run.Disk = c.disk
		got, _ := talosOf(t, in)
		if i := got.Machine.Install; fmt.Sprint(i.Selector, " ", i.Disk) != c.want {
			t.Errorf("%s: %v %s, want %s", c.disk, i.Selector, i.Disk, c.want)
		}
	}
}

// TestTalosNetwork: bond, VLAN, addresses of both families, and a NIC that asks; Talos' own library takes them.
func TestTalosNetwork(t *testing.T) {
	c, text := talosOf(t, wired(lane.SeedTalos))
	n := c.Machine.Network
	if len(n.Interfaces) != 2 || fmt.Sprint(n.Nameservers, n.Search) != "[10.0.0.2 fd00:20::2] [example.net example.org]" {
		t.Fatalf("%+v\n%s", n, text)
	}
	bond, nic := n.Interfaces[0], n.Interfaces[1]
	if fmt.Sprintf("%v %v %v %v %v", bond["interface"], bond["addresses"], bond["routes"], bond["mtu"], bond["dhcp"]) != "bond0 [10.0.0.21/24 10.0.0.22/24 fd00:20::21/64] [map[gateway:10.0.0.1 network:0.0.0.0/0] map[gateway:fd00:20::1 network:::/0]] 9000 false" ||
		fmt.Sprint(bond["bond"]) != "map[deviceSelectors:[map[permanentAddr:52:54:00:00:00:a1] map[permanentAddr:52:54:00:00:00:a2]] miimon:50 mode:active-backup]" ||
		fmt.Sprint(bond["vlans"]) != "[map[addresses:[10.20.0.21/16] dhcp:false vlanId:20]]" || fmt.Sprint(nic) != "map[addresses:[192.0.2.31/24] deviceSelector:map[permanentAddr:52:54:00:00:00:a3] dhcp:false]" {
		t.Errorf("%v\n%v", bond, nic)
	}
	for _, input := range []func(string) Input{plain, aggregated} {
		talosOf(t, input(lane.SeedTalos))
	}
}

// TestTalosRefuses: with the field, the place, and what to do.
func TestTalosRefuses(t *testing.T) {
	given := func(old, new string) func(*Input) {
		return func(in *Input) {
			in.Config.Text = []byte(strings.Replace(string(givenTalos.Text), old, new, 1))
		}
	}
	for name, c := range map[string]struct {
		edit func(*Input)
		want string
	}{
		"an unknown key":       {given("  token:", "  tokn:"), `worker.yaml:6:3: machine has no key "tokn"`},
		"an unknown key, deep": {given("{endpoint:", "{endpont:"), "worker.yaml:10:18: cluster.controlPlane.endpont: Talos knows no such key"},
		"a key twice":          {given("cluster:", "version: v1alpha1\ncluster:"), `the key "version" stands there already`},
		"an alias":             {given("/dev/sda", "&a [*a]"), "worker.yaml:8:23: an alias"},
		"no YAML":              {given("cluster:", "cluster: ["), "this is no YAML"},
		"another version":      {given("v1alpha1", "v1beta1"), "worker.yaml:1:10: version is not v1alpha1"},
		"no type":              {given("  type: worker\n", ""), "machine.type is missing"},
		"a type that is none":  {given("worker", "master"), `machine.type is "master"`},
		"an unknown kind":      {given("HostnameConfig", "HostConfig"), `"HostConfig" is no kind`},
		"no document":          {func(in *Input) { in.Config.Text = []byte("# nothing\n") }, "there is no document with `machine`"},
		"what Talos refuses":   {given(`"https://10.0.0.9:6443"`, `"10.0.0.9"`), "Talos refuses it: "},
		"a template":           {given("AssetTag", "Nothing"), "worker.yaml:5:29: executing"},
		"disks":                {given("cluster:", "  disks: [{device: /dev/sdb, partitions: []}]\ncluster:"), "machine.disks takes further disks"},
		"a volume":             {given("---\n", "---\napiVersion: v1alpha1\nkind: UserVolumeConfig\nname: x\nprovisioning: {diskSelector: {match: \"true\"}, minSize: 1GiB}\n---\n"), "UserVolumeConfig takes a disk by itself"},
		"the second of two":    {given("---\n", "---\napiVersion: v1alpha1\nkind: VolumeConfig\nname: STATE\n---\napiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nprovisioning: {diskSelector: {match: \"true\"}}\n---\n"), "provisioning.diskSelector can mean another disk"},
		"the network, twice": {func(in *Input) {
			*in = wired(lane.SeedTalos)
			given("  install:", "  network: {interfaces: []}\n  install:")(in)
		}, "machine.network.interfaces stands there, and the record has"},
		"time servers, twice": {given("  install:", "  time: {servers: [a]}\n  install:"), "machine.time.servers stand there, and site.ntp as well"},
		"a name of a NIC": {func(in *Input) {
			in.Host.Network.Interfaces = []lane.Interface{{MAC: "52:54:00:00:00:a1", Name: "lan0"}}
		}, "network.interfaces[0].name: Talos leaves a NIC"},
		"a star":                 {func(in *Input) { in.Host.Run.Disk = lane.DiskSelector{Serial: "S*"} }, "disk: has a *"},
		"packages":               {func(in *Input) { in.Site.Packages = []string{"htop"} }, "site.packages: Talos is not told them so"},
		"sysctls":                {func(in *Input) { in.Site.Sysctls = []string{"vm.swappiness=1"} }, "site.sysctls: Talos is not told"},
		"a proxy":                {func(in *Input) { in.Site.Proxy = "http://p:1" }, "site.proxy: "},
		"scripts":                {func(in *Input) { in.Scripts = []Script{{"a.sh", nil}} }, "bundle.firstBoot: Talos runs no scripts"},
		"no configuration":       {func(in *Input) { in.Config = Section{} }, "bundle.config: is missing"},
		"another system":         {func(in *Input) { in.Bundle.OS = "debian" }, "bundle.os"},
		"a release that moves":   {func(in *Input) { in.Bundle.Release = "latest" }, "bundle.release"},
		"nothing to be known by": {func(in *Input) { in.Host.Identity = lane.Identity{AssetTag: "x"} }, "identity: says nothing"},
	} {
		in := full(lane.SeedTalos)
		c.edit(&in)
		if docs, err := Documents(in); lane.CodeOf(err) != lane.Invalid || docs != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	in := full(lane.SeedTalos) // what its purpose brings is Talos' own
	in.Site, in.Origins = Merge(Defaults(""), Purpose(level("site", lane.InstallOptions{Purpose: new(lane.PurposeKubernetes)})), level("site", lane.InstallOptions{Purpose: new(lane.PurposeKubernetes)}))
	if _, err := Documents(in); err != nil {
		t.Error(err)
	}
}

// TestTalosText: what people write freely arrives as they wrote it.
func TestTalosText(t *testing.T) {
	for _, s := range append([]string{"a\"b'c", "${x}", "é…漢", "a: b", "%24"}, hostile...) {
		in := full(lane.SeedTalos)
		in.Host.Identity.AssetTag, in.Host.Run.Disk = s, lane.DiskSelector{Serial: s}
		if strings.Contains(s, "*") {
			in.Host.Run.Disk.Serial = "S"
		}
		if _, err := Documents(in); err != nil { // a label of Kubernetes is not free text
			in.Config.Text = []byte(strings.Replace(string(givenTalos.Text), "nodeLabels: {asset: {{yaml .AssetTag}}}", "env: {ASSET: {{yaml .AssetTag}}}", 1))
		}
		c, text := talosOf(t, in)
		if got := c.Machine.Install.Selector["serial"]; got != in.Host.Run.Disk.Serial {
			t.Errorf("%q arrives as %q", s, got)
		}
		if !strings.Contains(fmt.Sprintf("%q", plainTexts(t, Document{Type: typeYAML, Body: []byte(strings.Split(text, "---\n")[0])})), fmt.Sprintf("%q", s)) {
			t.Errorf("%q does not arrive:\n%s", s, text)
		}
	}
}
