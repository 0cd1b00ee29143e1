package seed

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bootlane/internal/ignition"
	"bootlane/internal/lane"
)

// givenButane is what a bundle may give: parts of it are the host's.
var givenButane = Section{Name: "config", File: "machine.bu", Text: []byte(`variant: flatcar
version: 1.1.0
passwd:
  users:
    - {name: core, ssh_authorized_keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA bob"]}
storage:
  files:
    - path: /etc/asset
      mode: 0644
      contents: {inline: {{yaml .AssetTag}}}
    - path: /etc/flatcar/update.conf
      overwrite: true
      mode: 0644
      contents: {inline: "SERVER=disabled\n"}
systemd:
  units:
    - name: docker.service
      enabled: true
`)}

// ignited is an image that Ignition sets up: Fedora CoreOS.
func ignited(in Input) Input {
	in.Bundle.OS, in.Bundle.Release = "fedora-coreos", "42.20261020.3.0"
	in.Bundle.Image = &lane.BundleImage{File: "disk.raw.zst", RootLabel: "root", Config: lane.ConfigIgnition, ConfigLabel: "boot"}
	in.Config = Section{Name: "config", File: "machine.bu", Text: []byte(strings.NewReplacer("flatcar\nversion: 1.1.0", "fcos\nversion: 1.4.0").Replace(string(givenButane.Text)))}
	return in
}

// config is what of Ignition matters here.
type config struct {
	Ignition struct{ Version string }
	Passwd   struct {
		Users []struct {
			Name, PasswordHash string
			SSHAuthorizedKeys  []string
		}
	}
	Storage struct {
		Files []struct {
			Path     string
			Mode     int
			Contents struct{ Source string }
		}
		Links []struct{ Path, Target string }
	}
	Systemd struct {
		Units []struct {
			Name, Contents string
			Enabled, Mask  bool
		}
	}
	KernelArguments struct{ ShouldExist []string }
}

func configOf(t *testing.T, text string) (c config) {
	t.Helper()
	if p := ignition.Check([]byte(text)); len(p) > 0 {
		t.Errorf("Ignition refuses it: %v\n%s", p, text)
	}
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// file returns what a file of the configuration will have in it.
func (c config) file(t *testing.T, path string) string {
	t.Helper()
	for _, f := range c.Storage.Files {
		if f.Path != path {
			continue
		}
		if text, ok := strings.CutPrefix(f.Contents.Source, "data:;base64,"); ok {
			b, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		text, err := url.PathUnescape(strings.TrimPrefix(f.Contents.Source, "data:,"))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	t.Errorf("there is no %s", path)
	return ""
}

// TestIgnitionConfig: what the bundle gives and what every system has stand in one document.
func TestIgnitionConfig(t *testing.T) {
	in := full(lane.SeedIgnition)
	in.Site.KernelArgs = []string{"quiet"}
	c := configOf(t, document(t, in, "config.ign"))
	if c.Ignition.Version != "3.4.0" || c.file(t, "/etc/hostname") != "node-a\n" || c.file(t, "/etc/asset") != "AT-1" || c.file(t, "/opt/bootlane/firstboot") != document(t, in, "firstboot.sh") ||
		c.file(t, "/etc/sudoers.d/90-bootlane") != "admin1 ALL=(ALL) NOPASSWD:ALL\n" || !slices.Equal(c.KernelArguments.ShouldExist, []string{"quiet"}) {
		t.Errorf("%+v", c)
	}
	if u := c.Passwd.Users; len(u) != 2 || u[0].Name != "core" || u[1].Name != "admin1" || u[1].PasswordHash != in.Site.PasswordHash || !slices.Equal(u[1].SSHAuthorizedKeys, in.Site.SSHKeys) {
		t.Errorf("users %+v", u)
	}
	if u := c.Systemd.Units; len(u) != 2 || u[0].Name != "docker.service" || u[1].Name != firstBootUnit || !u[1].Enabled || u[1].Contents != document(t, in, "firstboot.service") {
		t.Errorf("units %+v", u)
	}
	if l := c.Storage.Links; len(l) != 1 || l[0].Target != "../usr/share/zoneinfo/Europe/Berlin" {
		t.Errorf("links %+v", l)
	}
	alone := configOf(t, document(t, minimal(lane.SeedIgnition), "config.ign"))
	if alone.Ignition.Version != "3.3.0" || len(alone.Passwd.Users) != 1 || alone.Passwd.Users[0].PasswordHash != "" {
		t.Errorf("without a given file: %+v", alone)
	}
	live := configOf(t, document(t, in, "live.ign"))
	if u := live.Systemd.Units; len(u) != 3 || !u[0].Enabled || !strings.Contains(u[0].Contents, "ExecStart=/opt/bootlane/install\n") || !u[1].Mask || !u[2].Mask || len(live.Passwd.Users) != 0 {
		t.Errorf("the installer's: %+v", live)
	}
	net := configOf(t, document(t, wired(lane.SeedIgnition), "config.ign"))
	if text := net.file(t, "/etc/systemd/network/05-bootlane-bond0.network"); !strings.Contains(text, "Address=10.0.0.21/24\n") {
		t.Error(text)
	}
}

// TestIgnitionImage: the agent puts one file into the partition that Ignition reads, and nothing else.
func TestIgnitionImage(t *testing.T) {
	in := ignited(wired(lane.SeedImage))
	files, err := AgentFiles(in)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 || files[0].Path != "/ignition/config.ign" || files[0].PartLabel != "boot" || files[0].Mode != 0o600 || files[0].Content != document(t, in, "config.ign") {
		t.Fatalf("%+v", files)
	}
	c := configOf(t, files[0].Content)
	if c.Ignition.Version != "3.3.0" || !strings.Contains(c.file(t, "/etc/NetworkManager/system-connections/bootlane-bond0.nmconnection"), "10.0.0.21/24") || !strings.Contains(c.file(t, "/usr/local/bin/bootlane-firstboot"), "first boot of node-a") {
		t.Errorf("%+v", c)
	}
	if script := document(t, in, "firstboot.sh"); strings.Contains(script, "useradd") || strings.Contains(script, "ssh-keygen") {
		t.Error("first boot makes an account, or host keys, that Ignition and the system make")
	}
}

// TestIgnitionRefuses: with the field, the place in the file, and what to do.
func TestIgnitionRefuses(t *testing.T) {
	given := func(file, text string) func(*Input) {
		return func(in *Input) { in.Config = Section{"config", file, []byte(text)} }
	}
	butane := func(text string) func(*Input) { return given("m.bu", "variant: flatcar\nversion: 1.1.0\n"+text) }
	for name, c := range map[string]struct {
		edit func(*Input)
		want string
	}{
		"an unknown key":        {butane("storage:\n  file: []\n"), "bundle.config: m.bu:4:3: "},
		"a decimal mode":        {butane("storage:\n  files:\n    - {path: /a, mode: 644}\n"), "m.bu:5:"},
		"a relative path":       {butane("storage:\n  files:\n    - path: a\n"), "m.bu:5:"},
		"a local file":          {butane("storage:\n  files:\n    - {path: /a, contents: {local: b}}\n"), "m.bu:5:"},
		"another variant":       {given("m.bu", "variant: fcos\nversion: 1.5.0\n"), `variant "fcos" of version "1.5.0" is not read: use one of flatcar 1.0.0, flatcar 1.1.0`},
		"an experiment":         {given("m.bu", "variant: flatcar\nversion: 1.2.0-experimental\n"), "is not read"},
		"no variant":            {given("m.bu", "storage: {}\n"), `m.bu:1:1: variant ""`},
		"a second document":     {butane("---\na: b\n"), "m.bu:3:1: a second YAML document"},
		"no YAML":               {butane("a: [\n"), "m.bu:"},
		"no JSON":               {given("m.ign", "{\n  \"ignition\": x\n}"), "m.ign:2:"},
		"a later version":       {given("m.ign", `{"ignition": {"version": "3.9.0"}}`), "m.ign:1:1: "},
		"an unknown key, JSON":  {given("m.ign", "{\"ignition\": {\"version\": \"3.3.0\"},\n \"sytemd\": {}}"), "m.ign:2:2: "},
		"a template":            {butane("# {{.Nothing}}"), "m.bu:3:4: executing"},
		"a disk":                {butane("storage:\n  disks:\n    - {device: /dev/sdb, wipe_table: true}\n"), "storage.disks says what is erased"},
		"a file system":         {butane("storage:\n  filesystems:\n    - {device: /dev/sdb, format: ext4}\n"), "storage.filesystems says what is erased"},
		"another configuration": {butane("ignition:\n  config:\n    replace: {source: \"http://x/y\"}\n"), "a configuration that nobody has judged"},
		"our file":              {butane("storage:\n  files:\n    - {path: /etc/hostname, contents: {inline: x}}\n"), "writes /etc/hostname, which is Bootlane's"},
		"our unit":              {butane("systemd:\n  units:\n    - {name: bootlane-firstboot.service, mask: true}\n"), "writes bootlane-firstboot.service"},
		"our account":           {butane("passwd:\n  users:\n    - {name: admin1}\n"), "passwd.users makes admin1, as site.user does"},
		"below a file of ours":  {butane("storage:\n  files:\n    - {path: /etc/hostname/x, contents: {inline: x}}\n"), "writes /etc/hostname/x, which is Bootlane's"},
		"a link in our way":     {butane("storage:\n  links:\n    - {path: /opt/bootlane, target: /tmp}\n"), "with Bootlane's own parts"},
		"packages":              {func(in *Input) { in.Site.Packages = []string{"htop"} }, "site.packages: there are no packages"},
		"a channel":             {func(in *Input) { in.Bundle.Release = "stable" }, `bundle.release: "stable" is not a release of Flatcar`},
		"another system":        {func(in *Input) { in.Bundle.OS = "debian" }, "bundle.os"},
		"no mirror":             {func(in *Input) { in.Bundle.Mirror = "" }, "bundle.mirror: flatcar-install needs"},
		"arguments, too early": {func(in *Input) {
			in.Site.KernelArgs = []string{"quiet"}
			in.Config = Section{"config", "m.ign", []byte(`{"ignition": {"version": "3.1.0"}}`)}
		}, "site.kernelArgs: a configuration of version 3.1.0 takes none"},
	} {
		in := full(lane.SeedIgnition)
		c.edit(&in)
		if docs, err := Documents(in); lane.CodeOf(err) != lane.Invalid || docs != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	in := full(lane.SeedKickstart)
	in.Config = givenButane
	if _, err := Documents(in); err == nil || !strings.Contains(err.Error(), "bundle.config: nobody reads it") {
		t.Error(err)
	}
}

// TestIgnitionText: whatever people write arrives as they wrote it, or is refused.
func TestIgnitionText(t *testing.T) {
	for _, s := range append([]string{"a\"b'c", "${x}", "é…漢", "a\\b", "%0A", "{{", "-----", "&amp;"}, hostile...) {
		in := full(lane.SeedIgnition)
		in.Host.Identity.AssetTag = s
		in.Site.SSHKeys = []string{strings.TrimSpace("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA " + s)}
		c := configOf(t, document(t, in, "config.ign"))
		if got := c.file(t, "/etc/asset"); got != s || c.Passwd.Users[1].SSHAuthorizedKeys[0] != in.Site.SSHKeys[0] {
			t.Errorf("%q arrives as %q, the key as %q", s, got, c.Passwd.Users[1].SSHAuthorizedKeys[0])
		}
	}
	for _, s := range []string{"a\nb", "a\x00", "\u2028"} {
		in := full(lane.SeedIgnition)
		in.Host.Hostname = "n" + s
		if _, err := Documents(in); err == nil {
			t.Errorf("the host name %q is taken", in.Host.Hostname)
		}
	}
}

// flatcar is a machine on which the gate has passed.
func flatcar(t *testing.T) *machine {
	m := machineFor(t, lane.SeedIgnition)
	m.write("tmp/bootlane-disk", "sda\n")
	m.write("served/config.ign", "the configuration\n")
	m.write("bin/flatcar-install", "#!/bin/sh\necho \"flatcar-install $* proxy=${http_proxy:-none}\" >> /log\necho it says why\nwhile [ $# -gt 0 ]; do\n\t[ \"$1\" != -i ] || cat \"$2\" >> /log\n\tshift\ndone\n[ ! -e /no-install ]\n")
	m.write("bin/systemctl", "#!/bin/sh\necho \"systemctl $*\" >> /log\n")
	return m
}

// TestFlatcarInstall: the one disk, the pinned release, verified; and a report of how it went.
func TestFlatcarInstall(t *testing.T) {
	script := document(t, full(lane.SeedIgnition), "install.sh")
	m := flatcar(t)
	m.expect(script, true, "disk-written 1 ok: Flatcar 4230.2.4 installed")
	if log := m.read("log"); !strings.Contains(log, "flatcar-install -d /dev/sda -b http://mirror.example.org/flatcar/amd64-usr -V 4230.2.4 -o  -i /tmp/bootlane-config.ign proxy=none\nthe configuration\n") {
		t.Errorf("it was called so:\n%s", log)
	}
	in := full(lane.SeedIgnition)
	in.Site.Proxy = "http://proxy:3128"
	m = flatcar(t)
	m.expect(document(t, in, "install.sh"), true, "disk-written 1 ok")
	if !strings.Contains(m.read("log"), "proxy=http://proxy:3128\n") {
		t.Errorf("the proxy is not told:\n%s", m.read("log"))
	}
	for name, c := range map[string]struct {
		edit func(*machine)
		want string
	}{
		"no gate":          {func(m *machine) { m.remove("tmp/bootlane-disk") }, "installer 2 failed: no gate has passed"},
		"an empty disk":    {func(m *machine) { m.write("tmp/bootlane-disk", "") }, "installer 2 failed: no gate has passed"},
		"no configuration": {func(m *machine) { m.remove("served/config.ign") }, "installer 2 failed: the configuration cannot be fetched"},
		"a failure":        {func(m *machine) { m.write("no-install", "") }, "disk-written 1 failed: flatcar-install failed: it says why"},
	} {
		t.Run(name, func(t *testing.T) {
			m := flatcar(t)
			c.edit(m)
			m.expect(script, false, c.want)
			if strings.Contains(m.read("log"), "flatcar-install") != (name == "a failure") {
				t.Errorf("%s", m.read("log"))
			}
		})
	}
}

// TestFlatcarStart runs what the installer's system starts: nothing is installed unless the gate has
// passed, and a machine that does not go on is switched off.
func TestFlatcarStart(t *testing.T) {
	start := configOf(t, document(t, full(lane.SeedIgnition), "live.ign")).file(t, "/opt/bootlane/install")
	for name, c := range map[string]struct {
		gate, install string
		want          string
	}{
		"both pass":         {"echo gate >> /log\n", "echo install >> /log\n", "gate install systemctl reboot"},
		"the gate refuses":  {"exit 3\n", "echo install >> /log\n", "poweroff -f"},
		"no gate":           {"", "echo install >> /log\n", "poweroff -f"},
		"the install fails": {"echo gate >> /log\n", "exit 1\n", "gate poweroff -f"},
		"no install":        {"echo gate >> /log\n", "", "gate poweroff -f"},
	} {
		m := flatcar(t)
		for doc, text := range map[string]string{"gate.sh": c.gate, "install.sh": c.install} {
			if text != "" {
				m.write("served/"+doc, text)
			}
		}
		m.run(start)
		var did []string
		for line := range strings.Lines(m.read("log")) {
			if !strings.HasPrefix(line, "GET ") {
				did = append(did, strings.TrimSpace(line))
			}
		}
		if got := strings.Join(did, " "); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// ignitionProgram is where Debian's package has it: it is for an initramfs, and in no path.
const ignitionProgram = "/usr/lib/dracut/modules.d/30ignition/ignition"

// TestIgnitionReads has the program itself judge what is within its reach: Debian 12's knows versions up to 3.3.0.
func TestIgnitionReads(t *testing.T) {
	validate := tool(t, "ignition-validate", "ignition")
	given := full(lane.SeedIgnition)
	given.Config.Text = []byte(strings.Replace(string(givenButane.Text), "1.1.0", "1.0.0", 1))
	for name, text := range map[string]string{
		"live": document(t, given, "live.ign"), "alone": document(t, minimal(lane.SeedIgnition), "config.ign"), "given": document(t, given, "config.ign"),
		"image": document(t, ignited(full(lane.SeedImage)), "config.ign"), "bad": `{"ignition": {"version": "3.3.0"}, "storage": {"files": [{"path": "a"}]}}`,
	} {
		path := filepath.Join(t.TempDir(), "config.ign")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(validate, path).CombinedOutput(); (err == nil && len(out) == 0) != (name != "bad") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestIgnitionApplies has the real Ignition set up a directory as it would a new system: name, files,
// account and units arrive.
func TestIgnitionApplies(t *testing.T) {
	tool(t, "ignition-validate", "ignition")
	tool(t, "useradd", "passwd")
	in := wired(lane.SeedIgnition)
	in.Config.Text = []byte(strings.Replace(string(givenButane.Text), "1.1.0", "1.0.0", 1))
	dir, root := t.TempDir(), t.TempDir()
	write := func(path, text string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// What belongs to an account is written as that account: the way there must be open.
	for _, d := range []string{filepath.Dir(root), root} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "config.ign")
	write(config, document(t, in, "config.ign"))
	for name, text := range map[string]string{"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n", "etc/shadow": "root:*:1::::::\n", "etc/gshadow": "root:*::\n", "etc/login.defs": "CREATE_HOME yes\nUID_MIN 1000\nUID_MAX 60000\n",
		"etc/hostname": "localhost\n", "usr/lib/systemd/system/docker.service": "[Service]\nExecStart=/bin/true\n", "etc/systemd/system/.keep": "", "home/.keep": "", "etc/selinux/config": "SELINUX=disabled\nSELINUXTYPE=targeted\n"} {
		write(filepath.Join(root, name), text)
	}
	// It labels what it writes, and Debian has no program for that: what it is told is of no matter here.
	write(filepath.Join(dir, "bin/setfiles"), "#!/bin/sh\ncat > /dev/null\n")
	if err := os.Chmod(filepath.Join(dir, "bin/setfiles"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", ignitionProgram, "--platform=file", "--stage=files", "--root="+root, "--config-cache="+filepath.Join(dir, "cache"), "--neednet="+filepath.Join(dir, "neednet"), "--log-to-stdout")
	fetch := exec.Command(ignitionProgram, "--platform=file", "--stage=fetch", "--root="+root, "--config-cache="+filepath.Join(dir, "cache"), "--neednet="+filepath.Join(dir, "neednet"), "--log-to-stdout")
	for _, c := range []*exec.Cmd{fetch, cmd} {
		c.Env = append(os.Environ(), "IGNITION_CONFIG_FILE="+config, "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c.Args, err, out)
		}
	}
	read := func(path string) string {
		b, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	if read("etc/hostname") != "node-a\n" || read("etc/asset") != "AT-1" || read("opt/bootlane/firstboot") != document(t, in, "firstboot.sh") || read("etc/systemd/system/bootlane-firstboot.service") != document(t, in, "firstboot.service") {
		t.Error("name, file, script or unit is not as it was written")
	}
	if info, err := os.Stat(filepath.Join(root, "opt/bootlane/firstboot")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the script's mode: %v, %v", info, err)
	}
	for _, f := range (view{Input: in}).NetworkFiles() {
		if read(f.Path) != f.Content {
			t.Errorf("%s is not as it was written", f.Path)
		}
	}
	if !strings.Contains(read("etc/passwd"), "\nadmin1:x:1001:") && !strings.Contains(read("etc/passwd"), "\nadmin1:x:100") || !strings.Contains(read("etc/shadow"), "\nadmin1:"+in.Site.PasswordHash+":") {
		t.Errorf("the account is not made:\n%s", read("etc/passwd"))
	}
	if keys := read("home/admin1/.ssh/authorized_keys.d/ignition"); !strings.Contains(keys, in.Site.SSHKeys[0]+"\n") {
		t.Errorf("keys: %q", keys)
	}
	if preset := read("etc/systemd/system-preset/20-ignition.preset"); !strings.Contains(preset, fmt.Sprintf("enable %s\n", firstBootUnit)) {
		t.Errorf("the unit is not enabled: %q", preset)
	}
}
