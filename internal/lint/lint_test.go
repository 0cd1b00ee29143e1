package lint

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/lint.md anew")

const (
	ed25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA alice"
	other   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA bob"
	rsa     = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAEQDBwcHBwcHBwcHBwcHBwcHB bob"
)

var (
	sha512crypt = "$6$saltsalt$" + strings.Repeat("a", 86)
	sha256hex   = strings.Repeat("0f", 32)
)

// base returns a file of each format that has nothing wrong with it.
func base() map[Format]string {
	return map[Format]string{
		Autoinstall: `#cloud-config
autoinstall:
  version: 1
  identity:
    hostname: "node-a"
    username: "ops"
    password: "` + sha512crypt + `"
  ssh: {install-server: true, authorized-keys: ["` + ed25519 + `"]}
  apt: {fallback: abort}
  early-commands: ["true"]
  error-commands: ["report"]
  network:
    version: 2
    ethernets:
      lan: {match: {macaddress: "3c:ec:ef:12:34:56"}, set-name: lan0, dhcp4: true}
  storage:
    layout: {name: direct, match: {serial: "S1"}}
`,
		CloudConfig: `#cloud-config
hostname: "node-a"
users:
  - {name: ops, uid: 1000, lock_passwd: false, passwd: "` + sha512crypt + `", ssh_authorized_keys: ["` + ed25519 + `"]}
write_files:
  - {path: /etc/motd, permissions: "0644", content: "hello"}
runcmd:
  - "true"
`,
		MetaData: "instance-id: \"i-1\"\nlocal-hostname: \"node-a\"\n",
		Kickstart: `#version=RHEL9
text
lang en_US.UTF-8
keyboard us
timezone Etc/UTC --utc
url --url=http://mirror.example.org/rocky/9.6-20261101/BaseOS
rootpw --lock
user --name=ops --iscrypted --password=` + sha512crypt + `
sshkey --username=ops "` + ed25519 + `"
network --device=3c:ec:ef:12:34:56 --bootproto=static --ip=10.0.0.21 --netmask=255.255.255.0 --gateway=10.0.0.254 --nameserver=10.0.0.53 --hostname=node-a
ignoredisk --only-use=disk/by-id/wwn-0x5002538e00000001
zerombr
clearpart --all --initlabel --drives=disk/by-id/wwn-0x5002538e00000001
bootloader --boot-drive=disk/by-id/wwn-0x5002538e00000001
autopart
reboot
%packages
@core
%end
%post --erroronfail
echo done
%end
`,
		Preseed: `#_preseed_V1
d-i debian-installer/locale string en_US.UTF-8
d-i netcfg/get_hostname string node-a
d-i netcfg/get_ipaddress string 10.0.0.21
d-i mirror/suite string bookworm
d-i passwd/username string ops
d-i passwd/user-password-crypted password ` + sha512crypt + `
d-i partman-auto/method string regular
d-i partman-auto/disk string /dev/disk/by-id/wwn-0x5002538e00000001
d-i partman/choose_partition select finish
d-i partman/confirm boolean true
d-i partman/confirm_nooverwrite boolean true
d-i partman-partitioning/confirm_write_new_label boolean true
d-i preseed/late_command string report || poweroff -f
`,
		NetworkConfig: `version: 2
ethernets:
  lan:
    match: {macaddress: "3c:ec:ef:12:34:56"}
    set-name: lan0
    addresses: ["10.0.0.21/24"]
    nameservers: {addresses: ["10.0.0.53"]}
    routes: [{to: default, via: "10.0.0.254"}]
    mtu: 1500
  wan:
    match: {macaddress: "3c:ec:ef:12:34:57"}
    dhcp4: true
vlans:
  storage: {id: 7, link: lan, addresses: ["fd00::21/64"]}
bonds:
  pair: {interfaces: [lan, wan]}
`,
		AutoYaST: `<?xml version="1.0"?>
<!DOCTYPE profile>
<profile xmlns="http://www.suse.com/1.0/yast2ns" xmlns:config="http://www.suse.com/1.0/configns">
  <general><mode><confirm config:type="boolean">false</confirm></mode></general>
  <networking>
    <dns><hostname>node-a</hostname></dns>
    <interfaces config:type="list"><interface><name>lan0</name><ipaddr>10.0.0.21</ipaddr><prefixlen>24</prefixlen></interface></interfaces>
  </networking>
  <partitioning config:type="list">
    <drive><device>/dev/disk/by-id/wwn-0x5002538e00000001</device><use>all</use></drive>
  </partitioning>
  <users config:type="list">
    <user><username>ops</username><encrypted config:type="boolean">true</encrypted><user_password>` + sha512crypt + `</user_password></user>
  </users>
</profile>
`,
		Agama: `{
  "product": {"id": "SLES"},
  "user": {"fullName": "Ops", "userName": "ops", "hashedPassword": true, "password": "` + sha512crypt + `"},
  "hostname": {"static": "node-a"},
  "network": {"connections": [{"id": "lan", "macAddress": "3c:ec:ef:12:34:56", "addresses": ["10.0.0.21/24"]}]},
  "questions": {"policy": "auto"},
  "storage": {"drives": [{"search": {"condition": {"name": "/dev/disk/by-id/wwn-0x5002538e00000001"}, "max": 1, "ifNotFound": "error"}}]}
}
`,
		Ignition: `{
  "ignition": {"version": "3.4.0"},
  "passwd": {"users": [{"name": "core", "uid": 1000, "sshAuthorizedKeys": ["` + ed25519 + `"]}]},
  "storage": {
    "disks": [{"device": "/dev/disk/by-id/wwn-0x5002538e00000001", "wipeTable": true}],
    "files": [{"path": "/etc/hostname", "mode": 420, "contents": {"source": "data:,node-a"}}, {"path": "/opt/k", "contents": {"source": "https://m.example/k", "verification": {"hash": "sha256-` + sha256hex + `"}}}]
  }
}
`,
		Butane: `variant: flatcar
version: 1.1.0
passwd:
  users:
    - {name: core, uid: 1000, ssh_authorized_keys: ["` + ed25519 + `"]}
storage:
  disks:
    - {device: /dev/disk/by-id/wwn-0x5002538e00000001, wipe_table: true}
  files:
    - path: /etc/hostname
      mode: 0644
      contents: {inline: node-a}
    - path: /opt/k
      contents: {source: "https://m.example/k", verification: {hash: sha256-` + sha256hex + `}}
`,
		Talos: `version: v1alpha1
machine:
  type: worker
  ca: {crt: LS0tLS1CRUdJTg==, key: ""}
  network:
    hostname: node-a
  install:
    diskSelector: {wwid: naa.5002538e00000001}
    image: ghcr.io/siderolabs/installer:v1.12.0
    wipe: true
cluster:
  controlPlane: {endpoint: "https://10.0.0.9:6443"}
  ca: {crt: LS0tLS1CRUdJTg==, key: ""}
`,
		CommandLine: "autoinstall iso-url=http://m/u.iso cloud-config-url=/dev/null ds=nocloud-net;s=http://p/h/ hostname=node-a ---\n",
		IPXE:        "#!ipxe\nkernel http://m/linux autoinstall ds=nocloud-net;s=http://p/h/ ---\nboot\n",
		GRUB:        "menuentry 'install' {\n  linux /linux autoinstall 'ds=nocloud-net;s=http://p/h/' hostname=node-a ---\n  initrd /initrd\n}\n",
		Shell:       "#!/bin/sh\necho go\nwget -q -O /tmp/x http://m/x && sh /tmp/x\n",
	}
}

// pair is one bad file and its good neighbour: in a base, old is replaced. In bad, § is where
// the finding must stand.
type pair struct {
	rule           string
	format         Format
	old, bad, good string
}

// TestPairs: each bad file breaks its own rule and no other, at the very place; each neighbour
// is clean.
func TestPairs(t *testing.T) {
	seen := map[string]bool{}
	for i, p := range pairs() {
		seen[p.rule] = true
		t.Run(fmt.Sprintf("%s/%d", p.rule, i), func(t *testing.T) {
			from := base()[p.format]
			if strings.Count(from, p.old) < 1 {
				t.Fatalf("%q does not stand in the base of %s", p.old, p.format)
			}
			marked := strings.Replace(from, p.old, p.bad, 1)
			before, after, ok := strings.Cut(marked, "§")
			if !ok {
				t.Fatal("no place is marked")
			}
			line := strings.Count(before, "\n") + 1
			col := len([]rune(strings.TrimPrefix(before[strings.LastIndexByte(before, '\n')+1:], "\ufeff"))) + 1
			found := File("f", []byte(before+after), p.format, Options{})
			if len(found) != 1 || found[0].Rule != p.rule || found[0].Line != line || found[0].Column != col {
				t.Errorf("want %s at %d:%d, have %v", p.rule, line, col, found)
			}
			if found := File("f", []byte(strings.Replace(from, p.old, p.good, 1)), p.format, Options{}); len(found) > 0 {
				t.Errorf("the neighbour: %v", found)
			}
			if found := File("f", []byte(before+after), p.format, Options{Ignore: []string{p.rule}}); len(found) > 0 {
				t.Errorf("ignored, and found: %v", found)
			}
		})
	}
	for _, r := range Rules() {
		if !seen[r.ID] && r.ID != "format-not-linted" && r.ID != "autoinstall-key-release" { // which have tests of their own
			t.Errorf("the rule %s has no pair", r.ID)
		}
	}
}

// TestKeyRelease: a key is held against the release that reads it, where that is known.
func TestKeyRelease(t *testing.T) {
	text := strings.Replace(base()[Autoinstall], "  version: 1\n", "  version: 1\n  ubuntu-pro: {token: \"\"}\n", 1)
	for release, want := range map[string]bool{"": false, "22.04": true, "22.04.5": true, "24.04": false, "24.04.3": false, "26.04": false} {
		found := File("f", []byte(text), Autoinstall, Options{Release: release})
		if got := len(found) == 1 && found[0].Rule == "autoinstall-key-release" && found[0].Line == 4; got != want || !want && len(found) > 0 {
			t.Errorf("%s: %v", release, found)
		}
	}
}

func TestBasesAreClean(t *testing.T) {
	for _, f := range Formats() {
		text, ok := base()[f]
		if !ok {
			t.Errorf("%s has no base", f)
		}
		for _, x := range File("f", []byte(text), f, Options{}) {
			t.Errorf("%s: %s", f, x)
		}
		if got := Detect("unnamed", []byte(text)); got != f && f != MetaData {
			t.Errorf("%s is taken for %q", f, got)
		}
	}
}

// TestRules: ids are unique and kebab-case, every one that the code speaks of is in the table,
// and no field is empty.
func TestRules(t *testing.T) {
	known := map[string]bool{}
	for _, r := range Rules() {
		if known[r.ID] || !regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)+$|^syntax$`).MatchString(r.ID) || r.Title == "" || r.Why == "" || r.Mend == "" || r.Source == "" || r.Severity != Error && r.Severity != Warning {
			t.Errorf("%+v", r)
		}
		for _, f := range r.Formats {
			if !slices.Contains(Formats(), f) {
				t.Errorf("%s: %q is no format", r.ID, f)
			}
		}
		known[r.ID] = true
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?:r\.add|r\.known|once)\("([a-z0-9-]+)"|\{"([a-z0-9-]+)", regexp\.MustCompile`).FindAllStringSubmatch(string(src), -1) {
			if id := m[1] + m[2]; !known[id] {
				t.Errorf("%s speaks of the rule %q, which is not in the table", name, id)
			}
		}
	}
	if Rules()[0].ID = "x"; rules[0].ID == "x" {
		t.Error("the table can be changed from outside")
	}
}

// TestFormatsOfRules: a finding is about a format that its rule lists.
func TestFormatsOfRules(t *testing.T) {
	for _, p := range pairs() {
		i := slices.IndexFunc(rules, func(r Rule) bool { return r.ID == p.rule })
		if i < 0 || len(rules[i].Formats) > 0 && !slices.Contains(rules[i].Formats, p.format) {
			t.Errorf("%s is found in %s, which it does not list", p.rule, p.format)
		}
	}
}

// TestSilentValidators: what the formats' own validators were seen to let pass.
func TestSilentValidators(t *testing.T) {
	auto := func(old, new string) string { return strings.Replace(base()[Autoinstall], old, new, 1) }
	match := `layout: {name: direct, match: {serial: "S1"}}`
	ks := func(old, new string) string { return strings.Replace(base()[Kickstart], old, new, 1) }
	for name, c := range map[string]struct {
		format Format
		text   string
		want   string
	}{
		"subiquity: match wwn":            {Autoinstall, auto(match, `layout: {name: direct, match: {wwn: "0x2"}}`), "disk-match-unknown-key"},
		"subiquity: disk by wwn":          {Autoinstall, auto(match, `config: [{type: disk, id: d, wwn: "0x2"}]`), "disk-selector-missing"},
		"subiquity: serials":              {Autoinstall, auto(match, `layout: {name: direct, match: {serials: BBB}}`), "disk-match-unknown-key"},
		"subiquity: list of matches":      {Autoinstall, auto(match, `layout: {name: direct, match: [{serial: ZZZ}, {wwn: "0x2"}]}`), "disk-match-unknown-key"},
		"subiquity: cleartext password":   {Autoinstall, auto(sha512crypt, "hunter2"), "password-cleartext"},
		"subiquity: host name":            {Autoinstall, auto("node-a", "Node_A"), "hostname-illegal"},
		"subiquity: garbage key":          {Autoinstall, auto(ed25519, "garbage"), "ssh-key-malformed"},
		"subiquity: latecommands":         {Autoinstall, auto("error-commands", "latecommands: [x]\n  error-commands"), "autoinstall-unknown-key"},
		"subiquity: reporting rsyslog":    {Autoinstall, auto("  storage:", "  reporting: {a: {type: rsyslog, destination: h}}\n  storage:"), "autoinstall-reporting-type"},
		"subiquity: reporting none":       {Autoinstall, auto("  storage:", "  reporting: {a: {type: none}}\n  storage:"), "autoinstall-reporting-type"},
		"subiquity: admin":                {Autoinstall, auto(`"ops"`, `"admin"`), "user-name-reserved"},
		"ksvalidator: text only":          {Kickstart, "text\n", "kickstart-command-missing"},
		"ksvalidator: no root password":   {Kickstart, strings.Replace(ks("rootpw --lock\n", ""), "user --name=ops --iscrypted --password="+sha512crypt+"\n", "", 1), "kickstart-command-missing"},
		"ksvalidator: no source":          {Kickstart, ks("url --url=http://mirror.example.org/rocky/9.6-20261101/BaseOS\n", ""), "kickstart-source-missing"},
		"ksvalidator: 300.1.1.1":          {Kickstart, ks("10.0.0.21", "300.1.1.1"), "net-address-illegal"},
		"ksvalidator: host name":          {Kickstart, ks("--hostname=node-a", "--hostname=-x_"), "hostname-illegal"},
		"ksvalidator: notahash":           {Kickstart, ks("rootpw --lock", "rootpw --iscrypted notahash"), "password-hash-illegal"},
		"ksvalidator: liveimg":            {Kickstart, ks("url --url=http://mirror.example.org/rocky/9.6-20261101/BaseOS", "liveimg --url=http://m/i --checksum=x"), "source-checksum-missing"},
		"debconf: unknown type":           {Preseed, base()[Preseed] + "d-i netcfg/get_domain flag x\n", "preseed-type"},
		"debconf: unknown question":       {Preseed, strings.Replace(base()[Preseed], "partman/choose_partition", "partman/chose_partition", 1), "preseed-unknown-question"},
		"jing: mistyped section":          {AutoYaST, strings.Replace(base()[AutoYaST], "  <general>", "  <partitionning/>\n  <general>", 1), "autoyast-unknown-section"},
		"jing: drive without device":      {AutoYaST, strings.Replace(base()[AutoYaST], "<device>/dev/disk/by-id/wwn-0x5002538e00000001</device>", "", 1), "disk-selector-missing"},
		"cloud-init 22.4: runcmdd":        {CloudConfig, base()[CloudConfig] + "runcmdd: [x]\n", "cloud-config-unknown-key"},
		"cloud-init: plain_text_passwd":   {CloudConfig, strings.Replace(base()[CloudConfig], ", passwd:", ", plain_text_passwd: hunter2, passwd:", 1), "password-cleartext"},
		"cloud-init: permissions as int":  {CloudConfig, strings.Replace(base()[CloudConfig], `"0644"`, "0644", 1), "yaml-not-text"},
		"cloud-init: host name as int":    {CloudConfig, strings.Replace(base()[CloudConfig], `"node-a"`, "017", 1), "yaml-not-text"},
		"cloud-init: network-config":      {NetworkConfig, "version: 2\nethernets: {lan: {dhcp: true, match: {macaddress: \"3c:ec:ef:12:34:56\"}}}\n", "net-unknown-key"},
		"PyYAML: sexagesimal":             {NetworkConfig, "version: 2\nethernets: {lan: {dhcp4: true, match: {macaddress: 52:54:00:12:34:56}}}\n", "yaml-sexagesimal"},
		"PyYAML: key twice":               {CloudConfig, base()[CloudConfig] + "runcmd: []\n", "key-twice"},
		"schema of Ignition: unknown key": {Ignition, strings.Replace(base()[Ignition], `"passwd"`, `"password": {}, "passwd"`, 1), "ignition-unknown-key"},
	} {
		found := File("f", []byte(c.text), c.format, Options{})
		if !slices.ContainsFunc(found, func(f Finding) bool { return f.Rule == c.want }) {
			t.Errorf("%s: want %s, have %v", name, c.want, found)
		}
	}
	if found := File("f", []byte(strings.Replace(base()[NetworkConfig], `"3c:ec:ef:12:34:56"`, "00:11:22:33:44:55", 1)), NetworkConfig, Options{}); len(found) > 0 {
		t.Errorf("a MAC that PyYAML reads as text: %v", found)
	}
}

// TestOurOwnSeeds: what we write is what we ask of others.
func TestOurOwnSeeds(t *testing.T) {
	files, err := filepath.Glob("../seed/testdata/*/*/*")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	linted := map[Format]bool{}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f := Detect(name, data)
		if f == "" {
			if filepath.Ext(name) != ".service" {
				t.Errorf("%s: its format is not known", name)
			}
			continue
		}
		linted[f] = true
		for _, x := range File(name, data, f, Options{}) {
			if x.Severity == Error {
				t.Error(x)
			} else {
				t.Log(x)
			}
		}
	}
	for _, f := range []Format{Autoinstall, CloudConfig, MetaData, NetworkConfig, Preseed, Shell} {
		if !linted[f] {
			t.Errorf("no golden is a %s", f)
		}
	}
}

func TestDetect(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       Format
	}{
		{"user-data", "", CloudConfig}, {"user-data", "#cloud-config\nautoinstal:\n  version: 1\n", Autoinstall}, {"user-data", "# cloud-config\nhostname: a\n", CloudConfig}, {"x/vendor-data", "", CloudConfig},
		{"network-config", "", NetworkConfig}, {"meta-data", "", MetaData}, {"autoinstall.yaml", "version: 1\n", Autoinstall}, {"rocky.ks", "", Kickstart}, {"ks-node1.cfg", "", Kickstart}, {"preseed.cfg", "", Preseed},
		{"a.cfg", "d-i netcfg/get_hostname string x\n", Preseed}, {"a.cfg", "lang en\nrootpw --lock\n", Kickstart}, {"a.xml", "<?xml version=\"1.0\"?>\n<!-- a\nb -->\n<profile>", AutoYaST}, {"a.json", `{"ignition": {}}`, Ignition},
		{"a.json", "{\n \"product\": {}}", Agama}, {"a", "#!/bin/bash\n", Shell}, {"a", "#!/usr/bin/env bash\n", Shell}, {"late.sh", "", Shell}, {"a", "#!ipxe\n", IPXE}, {"grub.cfg", "", GRUB}, {"a", "set timeout=0\nlinux (tftp)/linux quiet\n", GRUB}, {"a", "quiet ds=nocloud-net;s=http://x/\n", CommandLine},
		{"x.bu", "", Butane}, {"x", "variant: flatcar\nversion: 1.1.0\n", Butane}, {"x.jsonnet", "", Jsonnet}, {"user-data", "Content-Type: multipart/mixed; boundary=x\n", Multipart}, {"user-data", "#include\nhttp://x\n", Multipart}, {"user-data", "#cloud-config-archive\n- {}\n", Multipart}, {"user-data", "## template: jinja\n#cloud-config\n", Jinja}, {"m.yaml", "version: v1alpha1\nmachine:\n  type: worker\n", Talos},
		{"j.yaml", "apiVersion: kubeadm.k8s.io/v1beta4\n", Kubeadm}, {"inventory.env", "HOST_ID='a'\n", ""}, {"firstboot.service", "[Unit]\n", ""}, {"x", "", ""},
	} {
		if got := Detect(c.name, []byte(c.text)); got != c.want {
			t.Errorf("%s %q is taken for %q, want %q", c.name, c.text, got, c.want)
		}
	}
	for f, want := range map[Format]string{"": "its format is not known", Jinja: "jinja is not linted by this version"} {
		found := File("f", []byte("x"), f, Options{})
		if len(found) != 1 || found[0].Rule != "format-not-linted" || found[0].Severity != Error || !strings.Contains(found[0].Message, want) {
			t.Errorf("%q: %v", f, found)
		}
	}
}

// TestKickstartInclude: what a hook wrote may name the disk. That nobody looked is said.
func TestKickstartInclude(t *testing.T) {
	text := strings.Replace(base()[Kickstart], "ignoredisk --only-use="+ksDisk+"\nzerombr\nclearpart --all --initlabel --drives="+ksDisk, "%include /tmp/disk\nclearpart --all", 1)
	if found := File("f", []byte(text), Kickstart, Options{}); len(found) != 1 || found[0].Rule != "kickstart-include" {
		t.Errorf("%v", found)
	}
}

// TestNoSecretIsShown: findings end in logs of CI.
func TestNoSecretIsShown(t *testing.T) {
	secret := "Tr0ub4dor"
	for f, text := range map[Format]string{
		Autoinstall: strings.Replace(base()[Autoinstall], sha512crypt, secret, 1), CloudConfig: base()[CloudConfig] + "password: " + secret + "\nchpasswd: {list: [\"ops:" + secret + "\"]}\n",
		Kickstart: strings.Replace(base()[Kickstart], "rootpw --lock", "rootpw "+secret, 1), Preseed: base()[Preseed] + "d-i passwd/root-password password " + secret + "\nd-i partman-crypto/passphrase password " + secret + "\n",
		CommandLine: "password=" + secret + " url=http://u:" + secret + "@h/\n", AutoYaST: strings.Replace(base()[AutoYaST], "true</encrypted><user_password>"+sha512crypt, "false</encrypted><user_password>"+secret, 1),
		Agama: strings.Replace(base()[Agama], `"hashedPassword": true, "password": "`+sha512crypt, `"password": "`+secret, 1),
	} {
		found := File("f", []byte(text), f, Options{})
		if len(found) == 0 || strings.Contains(fmt.Sprint(found), secret) {
			t.Errorf("%s: %v", f, found)
		}
	}
}

func TestURI(t *testing.T) {
	for name, want := range map[string]string{"seeds/user-data": "seeds/user-data", "/etc/a b#c": "file:///etc/a%20b%23c", "-": "-", "a:b": "./a:b"} {
		if got := uri(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}

func TestSARIF(t *testing.T) {
	found := File("seeds/user-data", []byte(strings.Replace(base()[Autoinstall], "serial", "wwn", 1)), Autoinstall, Options{})
	found = append(found, Finding{Rule: "shellcheck", Severity: Warning, File: "late.sh", Message: "SC2086"})
	out, err := SARIF(found, "1.0")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Version string
		Runs    []struct {
			Tool struct {
				Driver struct {
					Rules []struct {
						ID   string
						Help struct{ Text string }
					}
				}
			}
			Results []struct {
				RuleID    string
				RuleIndex int
				Level     string
				Locations []struct {
					PhysicalLocation struct {
						ArtifactLocation struct{ URI string }
						Region           struct{ StartLine, StartColumn int }
					}
				}
			}
		}
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		t.Fatal(err)
	}
	run := doc.Runs[0]
	if doc.Version != "2.1.0" || len(run.Results) != 2 || len(run.Tool.Driver.Rules) != len(Rules())+1 {
		t.Fatalf("%s", out)
	}
	for i, res := range run.Results {
		at := res.Locations[0].PhysicalLocation
		if run.Tool.Driver.Rules[res.RuleIndex].ID != res.RuleID || res.RuleID != found[i].Rule || at.ArtifactLocation.URI != found[i].File || at.Region.StartLine != max(found[i].Line, 1) || at.Region.StartColumn < 1 {
			t.Errorf("%+v", res)
		}
	}
}

// TestDocs keeps docs/lint.md equal to the table of rules.
func TestDocs(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "lint.md")
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const mark = "<!-- Generated from internal/lint by `go test ./internal/lint -run TestDocs -update`. Do not edit below. -->\n"
	head, _, ok := strings.Cut(string(have), mark)
	if !ok {
		t.Fatalf("%s has no line %s", path, mark)
	}
	want := head + mark + rulesDoc()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		have = []byte(want)
	}
	if diff := cmp.Diff(string(have), want); diff != "" {
		t.Errorf("docs/lint.md is stale: run `go test ./internal/lint -run TestDocs -update` (-file +code):\n%s", diff)
	}
}

func rulesDoc() string {
	var b strings.Builder
	count := map[Severity]int{}
	for _, r := range Rules() {
		count[r.Severity]++
	}
	fmt.Fprintf(&b, "\n%d rules: %d of severity error, %d warnings.\n", len(Rules()), count[Error], count[Warning])
	for _, r := range Rules() {
		formats := "all formats"
		if len(r.Formats) > 0 {
			formats = list(r.Formats)
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s: %s. In %s.\n\n%s\n\nMend: %s. Source: %s.\n", r.ID, r.Severity, r.Title, formats, r.Why, r.Mend, r.Source)
	}
	return b.String()
}
