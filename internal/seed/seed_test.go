package seed

import (
	"flag"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"bootlane/internal/lane"
)

var update = flag.Bool("update", false, "write the golden files anew")

const testBase = "http://10.0.0.1:8080/run/abcdefghijklmnopqrstuvwxyz234567"

// full is a host that says everything of itself, and a site that sets everything.
func full(seed string) Input {
	in := Input{
		Host: lane.Host{ID: "node-a", Hostname: "node-a.example.org", Arch: lane.X86_64, Role: "worker", Labels: map[string]string{"zone": "z1", "pool": "p1"},
			Identity: lane.Identity{UUID: "4c4c4544-0042-3510-8051-b4c04f4d3732", MACs: []lane.MAC{"52:54:00:00:00:a1", "52:54:00:00:00:a2"}, Serial: "SN-A 1", AssetTag: "AT-1"},
			Run:      lane.Run{ID: "r-abc123", BundleName: "debian-12-1", Disk: lane.DiskSelector{ByID: "wwn-0x5002538e00000001", ByPath: "pci-0000:00:17.0-ata-1", WWN: "0x5002538e00000001", Serial: "S1", SizeGB: 480}}},
		Bundle: lane.Bundle{Name: "debian-12", Version: "1", Seed: seed, Release: "bookworm", BundleVariant: lane.BundleVariant{Args: "console=ttyS0,115200", Mirror: "http://mirror.example.org/debian/20261101T000000Z/",
			Security: "http://mirror.example.org:8081/debian-security"}},
		Site: Site{Domain: "example.net", User: "admin1", PasswordHash: "$6$saltsalt$" + strings.Repeat("a", 86), SSHKeys: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA alice@example.org", "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAEQDBwcHBwcHBwcHBwcHBwcHB bob's key"},
			Locale: "de_DE.UTF-8", Keyboard: "de", Timezone: "Europe/Berlin", NTP: []string{"10.0.0.2", "ntp.example.org"}},
		Base: testBase,
	}
	switch seed {
	case lane.SeedAutoYaST:
		in.Bundle = lane.Bundle{Name: "sles-15", Version: "1", Seed: seed, OS: "sles", Release: "15.6", Arch: lane.X86_64, BundleVariant: lane.BundleVariant{Args: "console=ttyS0,115200", Tree: "full.iso"}}
	case lane.SeedAgama:
		in.Bundle = lane.Bundle{Name: "sles-16", Version: "1", Seed: seed, OS: "sles", Release: "16.0", Arch: lane.X86_64, Files: map[string]lane.BundleFile{"full.iso": {Digest: "sha256:0123"}}, BundleVariant: lane.BundleVariant{Args: "root=live:{file:full.iso} console=ttyS0,115200"}}
	case lane.SeedIgnition:
		in.Bundle = lane.Bundle{Name: "flatcar", Version: "4230.2.4", Seed: seed, OS: "flatcar", Release: "4230.2.4", Arch: lane.X86_64, BundleVariant: lane.BundleVariant{Args: "console=ttyS0,115200", Mirror: "http://mirror.example.org/flatcar/amd64-usr"}}
		in.Config = givenButane
	case lane.SeedTalos:
		in.Bundle = lane.Bundle{Name: "talos", Version: "1.12.0", Seed: seed, OS: "talos", Release: "1.12.0", Arch: lane.X86_64, BundleVariant: lane.BundleVariant{Args: "console=ttyS0,115200"}}
		in.Config = givenTalos
	case lane.SeedKickstart:
		in.Bundle = lane.Bundle{Name: "rhel-9", Version: "1", Seed: seed, OS: "rhel", Release: "9.6", Arch: lane.X86_64, BundleVariant: lane.BundleVariant{Args: "console=ttyS0,115200", Tree: "dvd.iso"}}
	}
	return in
}

// minimal is a host of which little is known, on a site that sets nothing.
func minimal(seed string) Input {
	site, origins := Merge(Defaults(""))
	in := Input{Site: site, Origins: origins,
		Host: lane.Host{ID: "node-b", Hostname: "node-b", Identity: lane.Identity{MACs: []lane.MAC{"52:54:00:00:00:b1"}},
			Run: lane.Run{ID: "r-1", BundleName: "debian-12-1", Disk: lane.DiskSelector{Serial: "S2"}}},
		Bundle: lane.Bundle{Seed: seed, Release: "bookworm", BundleVariant: lane.BundleVariant{Mirror: "http://10.0.0.1/debian"}},
		Base:   testBase,
	}
	switch seed {
	case lane.SeedAutoYaST:
		in.Bundle = lane.Bundle{Seed: seed, OS: "opensuse-leap", Release: "15.6", Arch: lane.ARM64, BundleVariant: lane.BundleVariant{Mirror: "http://10.0.0.1/leap/15.6/"}}
	case lane.SeedAgama:
		in.Host.Run.Disk.WWN = "eui.0025388b71b10001"
		in.Bundle = lane.Bundle{Seed: seed, OS: "opensuse-leap", Release: "16.0", Arch: lane.ARM64, BundleVariant: lane.BundleVariant{Mirror: "http://10.0.0.1/leap/16.0/", Args: "root=live:http://10.0.0.1/agama.iso"}}
	case lane.SeedIgnition:
		in.Bundle = lane.Bundle{Seed: seed, OS: "flatcar", Release: "4230.2.4", Arch: lane.ARM64, BundleVariant: lane.BundleVariant{Mirror: "http://10.0.0.1/flatcar"}}
	case lane.SeedTalos:
		in.Bundle, in.Config = lane.Bundle{Seed: seed, OS: "talos", Release: "1.12.0", Arch: lane.ARM64}, givenTalos
	case lane.SeedKickstart:
		in.Bundle = lane.Bundle{Seed: seed, OS: "rocky", Release: "9.6", Arch: lane.ARM64, BundleVariant: lane.BundleVariant{Mirror: "http://10.0.0.1/rocky/9.6/"}}
	}
	return in
}

// clustered is a host for Kubernetes, with a cluster, an address of its own and a script.
func clustered(seed string) Input {
	in := kubernetes(full(seed))
	in.Host.Network.Address = netip.MustParseAddr("10.0.0.21")
	in.Endpoint = Endpoint{"[fd00::6]:6443", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"}
	if seed == lane.SeedTalos { // which runs none
		return in
	}
	in.Scripts = []Script{{"containerd.sh", []byte("#!/bin/sh\nsystemctl restart containerd\n")}}
	return in
}

func documents(t *testing.T, in Input) []Document {
	t.Helper()
	docs, err := Documents(in)
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

func document(t *testing.T, in Input, name string) string {
	t.Helper()
	docs := documents(t, in)
	i := slices.IndexFunc(docs, func(d Document) bool { return d.Name == name })
	if i < 0 {
		t.Fatalf("%s has no %s", in.Bundle.Seed, name)
	}
	return string(docs[i].Body)
}

func TestGolden(t *testing.T) {
	for name, input := range map[string]func(string) Input{"full": full, "minimal": minimal, "kubernetes": clustered, "network": wired, "layout": laid} {
		for _, seed := range lane.Seeds() {
			dir := filepath.Join("testdata", name, strings.ReplaceAll(seed, "/", "-"))
			t.Run(name+"/"+seed, func(t *testing.T) {
				var names []string
				for _, d := range documents(t, input(seed)) {
					names = append(names, d.Name)
					golden(t, filepath.Join(dir, d.Name), d.Body)
				}
				have, err := filepath.Glob(filepath.Join(dir, "*"))
				if err != nil || len(have) != len(names) {
					t.Errorf("%v, and the golden files are %v; %v", names, have, err)
				}
			})
		}
	}
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got); look at it, then run with -update:\n%s", path, diff)
	}
}

// TestDeterministic: two renders are equal to the byte, whatever order a map is in.
func TestDeterministic(t *testing.T) {
	for _, seed := range lane.Seeds() {
		want := documents(t, full(seed))
		for range 5 {
			in := full(seed)
			in.Host.Labels = map[string]string{}
			for k, v := range full(seed).Host.Labels { // in a new order each time
				in.Host.Labels[k] = v
			}
			in.Bundle.Files = map[string]lane.BundleFile{"b": {}, "a": {}}
			if diff := cmp.Diff(want, documents(t, in)); diff != "" {
				t.Fatalf("%s:\n%s", seed, diff)
			}
		}
	}
}

// TestEveryDocument holds for all of them.
func TestEveryDocument(t *testing.T) {
	types := map[string]string{"preseed.cfg": typeText, "ks.cfg": typeText, "autoinst.xml": typeXML, "profile.json": typeJSON, "live.ign": typeJSON, "config.ign": typeJSON, "config.yaml": typeYAML, "user-data": typeYAML, "meta-data": typeYAML, "vendor-data": typeYAML, "network-config": typeYAML, "firstboot.service": typeText}
	for _, input := range []func(string) Input{full, minimal} {
		for _, seed := range lane.Seeds() {
			for _, d := range documents(t, input(seed)) {
				body := string(d.Body)
				for _, left := range []string{"{{", "}}", "<no value>", "CHANGEME", "\r", "\x00", "%!"} {
					if strings.Contains(body, left) {
						t.Errorf("%s/%s contains %q", seed, d.Name, left)
					}
				}
				if want := types[d.Name]; want != "" && d.Type != want || want == "" && d.Type != typeShell {
					t.Errorf("%s/%s is %s", seed, d.Name, d.Type)
				}
				if d.Type == typeShell && !strings.HasPrefix(body, "#!/bin/sh\n") {
					t.Errorf("%s/%s does not say what runs it", seed, d.Name)
				}
				if empty := d.Name == "vendor-data" || d.Name == "network-config"; !empty && !strings.HasSuffix(body, "\n") || empty && body != "" {
					t.Errorf("%s/%s ends in %q", seed, d.Name, body[max(0, len(body)-10):])
				}
			}
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*Input)
		want []string
	}{
		{"unknown seed", func(in *Input) { in.Bundle.Seed = "autoyast/1" }, []string{"autoyast/1"}},
		{"no mirror", func(in *Input) { in.Bundle.Mirror = "" }, []string{"bundle.mirror: the Debian installer needs"}},
		{"https mirror", func(in *Input) { in.Bundle.Mirror = "https://m/d" }, []string{"bundle.mirror: https://m/d is not http://"}},
		{"mirror with a line break", func(in *Input) { in.Bundle.Mirror = "http://m/d\nd-i x" }, []string{"bundle.mirror"}},
		{"mirror with a password", func(in *Input) { in.Bundle.Mirror = "http://u:p@m/d" }, []string{"bundle.mirror"}},
		{"security", func(in *Input) { in.Bundle.Security = "ftp://m" }, []string{"bundle.security"}},
		{"no release", func(in *Input) { in.Bundle.Release = "" }, []string{"bundle.release"}},
		{"release that moves", func(in *Input) { in.Bundle.Release = "stable" }, []string{"bundle.release: \"stable\" is not a codename"}},
		{"host name", func(in *Input) { in.Host.Hostname = "a\nd-i preseed/early_command string reboot" }, []string{"hostname"}},
		{"host name with shell", func(in *Input) { in.Host.Hostname = "a$(reboot)" }, []string{"hostname"}},
		{"host id", func(in *Input) { in.Host.ID = "a$(reboot)" }, []string{"id"}},
		{"run", func(in *Input) { in.Host.Run.ID = "r-1\nreboot" }, []string{"run.id"}},
		{"bundle name", func(in *Input) { in.Host.Run.BundleName = "a b" }, []string{"run.bundleName"}},
		{"base", func(in *Input) { in.Base = "http://10.0.0.1/run/x';reboot;'" }, []string{"base"}},
		{"base without a capability", func(in *Input) { in.Base = "http://10.0.0.1/" }, []string{"base"}},
		{"serial with controls", func(in *Input) { in.Host.Identity.Serial = "a\x1b" }, []string{"serial"}},
		{"disk with controls", func(in *Input) { in.Host.Run.Disk.Serial = "a\nb" }, []string{"disk"}},
		{"domain", func(in *Input) { in.Site.Domain = "a b" }, []string{"site.domain"}},
		{"user", func(in *Input) { in.Site.User = "Root" }, []string{"site.user"}},
		{"user reserved", func(in *Input) { in.Site.User = "admin" }, []string{"site.user: \"admin\" is reserved"}},
		{"password in clear", func(in *Input) { in.Site.PasswordHash = "secret" }, []string{"site.passwordHash: is not a crypt hash"}},
		{"weak hash", func(in *Input) { in.Site.PasswordHash = "$1$salt$" + strings.Repeat("a", 22) }, []string{"site.passwordHash"}},
		{"key with options", func(in *Input) { in.Site.SSHKeys = []string{`command="sh" ssh-ed25519 AAAA x`} }, []string{"site.sshKeys[0]"}},
		{"private key", func(in *Input) { in.Site.SSHKeys = []string{"-----BEGIN OPENSSH PRIVATE KEY-----"} }, []string{"site.sshKeys[0]"}},
		{"key cut short", func(in *Input) { in.Site.SSHKeys = []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA x"} }, []string{"site.sshKeys[0]"}},
		{"key of another type", func(in *Input) {
			in.Site.SSHKeys = []string{"ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA x"}
		}, []string{"site.sshKeys[0]"}},
		{"two keys in one", func(in *Input) { in.Site.SSHKeys = []string{"ssh-ed25519 AAAA x\nssh-ed25519 AAAA y"} }, []string{"site.sshKeys[0]"}},
		{"time zone", func(in *Input) { in.Site.Timezone = "../etc" }, []string{"site.timezone"}},
		{"locale", func(in *Input) { in.Site.Locale = "a b" }, []string{"site.locale"}},
		{"keyboard", func(in *Input) { in.Site.Keyboard = "us\nx" }, []string{"site.keyboard"}},
		{"ntp", func(in *Input) { in.Site.NTP = []string{"10.0.0.1", "a;b", ""} }, []string{"site.ntp[1]", "site.ntp[2]"}},
		{"all at once", func(in *Input) { in.Site.User, in.Site.Timezone, in.Bundle.Mirror = "A", "/", "" }, []string{"site.user", "site.timezone", "bundle.mirror"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := full(lane.SeedPreseed)
			c.edit(&in)
			docs, err := Documents(in)
			if lane.CodeOf(err) != lane.Invalid || docs != nil {
				t.Fatalf("not refused: %v", err)
			}
			var problems []string
			if e, ok := err.(*lane.Error); ok && len(e.Problems) > 0 {
				problems = e.Problems
			} else {
				problems = []string{err.Error()}
			}
			if len(problems) != len(c.want) {
				t.Fatalf("problems %q, want %q", problems, c.want)
			}
			for i := range problems {
				if !strings.Contains(problems[i], c.want[i]) {
					t.Errorf("problem %q, want %q", problems[i], c.want[i])
				}
			}
			if _, err := AgentFiles(in); err == nil {
				t.Error("the agent's files are made of it all the same")
			}
		})
	}
}

func TestSiteHashes(t *testing.T) {
	for hash, good := range map[string]bool{
		"": true, "$6$saltsalt$" + strings.Repeat("a", 86): true, "$6$rounds=5000$saltsalt$" + strings.Repeat("a", 86): true,
		"$y$j9T$abcdefgh$" + strings.Repeat("a", 43): true, "$5$salt$" + strings.Repeat("a", 43): true,
		"$6$saltsalt$short": false, "!": false, "*": false, "$6$saltsalt$" + strings.Repeat("a", 86) + " x": false, "$6$salt:alt$" + strings.Repeat("a", 86): false,
	} {
		if got := len(lane.InstallOptions{PasswordHash: &hash}.Validate()) == 0; got != good {
			t.Errorf("%q: %v", hash, got)
		}
	}
}

func TestKernelArgs(t *testing.T) {
	short := minimal("")
	short.Site.Domain = "example.net"
	for _, c := range []struct {
		name string
		in   Input
		boot lane.MAC
		want string
	}{
		{"preseed", full(lane.SeedPreseed), "52:54:00:00:00:a2",
			"auto=true priority=critical preseed/url=" + testBase + "/seed/preseed.cfg netcfg/choose_interface=auto netcfg/no_default_route=true BOOTIF=01-52-54-00-00-00-a2 hostname=node-a netcfg/hostname=node-a domain=example.org console=ttyS0,115200 ---"},
		{"nocloud", full(lane.SeedNoCloud), "52:54:00:00:00:a1",
			"autoinstall cloud-config-url=/dev/null ip=dhcp BOOTIF=01-52-54-00-00-00-a1 ds=nocloud-net;s=" + testBase + "/seed/ console=ttyS0,115200 ---"},
		{"kickstart, a DVD's tree", full(lane.SeedKickstart), "52:54:00:00:00:a2",
			"inst.ks=" + testBase + "/seed/ks.cfg inst.stage2=" + testBase + "/tree inst.cmdline inst.ksstrict inst.nosave=all_ks inst.leavebootorder ip=dhcp BOOTIF=01-52-54-00-00-00-a2 console=ttyS0,115200"},
		{"kickstart, a mirror", minimal(lane.SeedKickstart), "",
			"inst.ks=" + testBase + "/seed/ks.cfg inst.stage2=http://10.0.0.1/rocky/9.6/BaseOS/aarch64/os inst.cmdline inst.ksstrict inst.nosave=all_ks inst.leavebootorder ip=dhcp"},
		{"autoyast, a medium's tree", full(lane.SeedAutoYaST), "52:54:00:00:00:a2",
			"install=" + testBase + "/tree autoyast=" + testBase + "/seed/autoinst.xml netsetup=dhcp BOOTIF=01-52-54-00-00-00-a2 hostname=node-a self_update=0 textmode=1 console=ttyS0,115200"},
		{"autoyast, a mirror", minimal(lane.SeedAutoYaST), "",
			"install=http://10.0.0.1/leap/15.6 autoyast=" + testBase + "/seed/autoinst.xml netsetup=dhcp hostname=node-b self_update=0 textmode=1"},
		{"agama, a medium", full(lane.SeedAgama), "52:54:00:00:00:a2",
			"inst.auto=" + testBase + "/seed/profile.json inst.finish=reboot inst.self_update=0 ip=dhcp rd.neednet=1 BOOTIF=01-52-54-00-00-00-a2 root=live:" + testBase + "/file/0123/full.iso console=ttyS0,115200"},
		{"agama, a mirror", minimal(lane.SeedAgama), "",
			"inst.install_url=http://10.0.0.1/leap/16.0 inst.auto=" + testBase + "/seed/profile.json inst.finish=reboot inst.self_update=0 ip=dhcp rd.neednet=1 root=live:http://10.0.0.1/agama.iso"},
		{"ignition", full(lane.SeedIgnition), "52:54:00:00:00:a2",
			"flatcar.first_boot=1 ignition.config.url=" + testBase + "/seed/live.ign BOOTIF=01-52-54-00-00-00-a2 console=ttyS0,115200"},
		{"talos", full(lane.SeedTalos), "52:54:00:00:00:a2",
			"init_on_alloc=1 slab_nomerge= pti=on talos.halt_if_installed=1 talos.platform=metal talos.config=" + testBase + "/seed/config.yaml?uuid=%24%7Buuid%7D&serial=%24%7Bserial%7D console=ttyS0,115200"},
		{"talos, a machine of which little is known", minimal(lane.SeedTalos), "",
			"init_on_alloc=1 slab_nomerge= pti=on talos.halt_if_installed=1 talos.platform=metal talos.config=" + testBase + "/seed/config.yaml?mac=%24%7Bmac%7D"},
		{"image", full(lane.SeedImage), "52:54:00:00:00:a1", "bootlane.url=" + testBase + " BOOTIF=01-52-54-00-00-00-a1 console=ttyS0,115200"},
		{"image, a tagged boot network", func() Input { in := minimal(lane.SeedImage); in.Host.Boot.VLAN = 120; return in }(), "", "bootlane.vlan=120 bootlane.url=" + testBase},
		{"image without a boot MAC or arguments", minimal(lane.SeedImage), "", "bootlane.url=" + testBase},
		{"domain of the site", func() Input { in := short; in.Bundle.Seed = lane.SeedPreseed; return in }(), "",
			"auto=true priority=critical preseed/url=" + testBase + "/seed/preseed.cfg netcfg/choose_interface=auto netcfg/no_default_route=true hostname=node-b netcfg/hostname=node-b domain=example.net ---"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := KernelArgs(c.in, c.boot)
			if got != c.want {
				t.Errorf("%s\nwant\n%s", got, c.want)
			}
			// The installer's kernel panics over more than 32 arguments, x86 cuts at 2048 bytes.
			if n := len(strings.Fields(got)); n > 28 || len(got) > 1024 || strings.Contains(got, "initrd=") {
				t.Errorf("%d arguments, %d bytes", n, len(got))
			}
		})
	}
}

func TestAgentFiles(t *testing.T) {
	for _, c := range []struct {
		in              Input
		hostname, hosts string
	}{
		{full(lane.SeedImage), "node-a\n", "127.0.1.1 node-a.example.org node-a\n"},
		{minimal(lane.SeedImage), "node-b\n", "127.0.1.1 node-b\n"},
	} {
		files, err := AgentFiles(c.in)
		if err != nil {
			t.Fatal(err)
		}
		by := map[string]lane.File{}
		for _, f := range files {
			if _, twice := by[f.Path]; twice || !strings.HasPrefix(f.Path, "/") || strings.Contains(f.Path, "..") {
				t.Errorf("the path %q", f.Path)
			}
			if f.Link == "" && f.Mode == 0 || f.Link != "" && f.Content != "" {
				t.Errorf("%s is neither a file nor a link: %+v", f.Path, f)
			}
			by[f.Path] = f
		}
		const wants, unit, script = "/etc/systemd/system/multi-user.target.wants/bootlane-firstboot.service", "/etc/systemd/system/bootlane-firstboot.service", "/usr/local/lib/bootlane/firstboot"
		want := []string{"/etc/hostname", "/etc/hosts", "/etc/machine-id", unit, wants, script}
		if got := slices.Sorted(maps.Keys(by)); !slices.Equal(got, want) {
			t.Errorf("files %v, want %v", got, want)
		}
		if by["/etc/hostname"].Content != c.hostname || !strings.Contains(by["/etc/hosts"].Content, c.hosts) || by["/etc/machine-id"].Content != "" {
			t.Errorf("the names are %q, %q, the machine id %q", by["/etc/hostname"].Content, by["/etc/hosts"].Content, by["/etc/machine-id"].Content)
		}
		if by[wants].Link != unit || by[script].Mode != 0o700 || by[script].Content != document(t, c.in, "firstboot.sh") || !strings.Contains(by[unit].Content, "ExecStart="+script+"\n") {
			t.Errorf("first boot is not in place: %+v", by[wants])
		}
	}
}

func TestUserData(t *testing.T) {
	body := document(t, full(lane.SeedNoCloud), "user-data")
	if !strings.HasPrefix(body, "#cloud-config\n") {
		t.Error("cloud-init takes it for something else")
	}
	var doc struct {
		Autoinstall struct {
			Version  int
			Identity struct{ Hostname, Username, Password string }
			SSH      struct {
				AllowPW bool     `yaml:"allow-pw"`
				Keys    []string `yaml:"authorized-keys"`
			}
			Interactive []string `yaml:"interactive-sections"`
			Refresh     struct{ Update bool }
			Apt         struct {
				Geoip    bool
				Fallback string
				Mirrors  struct{ Primary []struct{ URI string } } `yaml:"mirror-selection"`
				Security []struct {
					Arches []string
					URI    string
				}
			}
			Storage struct {
				Swap   struct{ Size int }
				Config []map[string]any
			}
			Early []string `yaml:"early-commands"`
			Late  []string `yaml:"late-commands"`
			Error []string `yaml:"error-commands"`
		}
	}
	if err := yaml.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	in, a := full(lane.SeedNoCloud), doc.Autoinstall
	if a.Version != 1 || a.Identity.Hostname != "node-a" || a.Identity.Username != "admin1" || a.Identity.Password != in.Site.PasswordHash || a.SSH.AllowPW || !slices.Equal(a.SSH.Keys, in.Site.SSHKeys) {
		t.Errorf("identity %+v, ssh %+v", a.Identity, a.SSH)
	}
	if a.Apt.Geoip || a.Apt.Fallback != "abort" || a.Apt.Mirrors.Primary[0].URI != in.Bundle.Mirror || a.Apt.Security[0].URI != in.Bundle.Security || a.Refresh.Update || a.Interactive != nil {
		t.Errorf("sources are not pinned: %+v", a.Apt)
	}
	for i, commands := range [][]string{a.Early, a.Late} {
		if len(commands) != 1 || !strings.Contains(commands[0], testBase+"/seed/"+[]string{"gate.sh", "late.sh"}[i]) || !strings.HasSuffix(commands[0], "|| poweroff -f") {
			t.Errorf("hooks %q", commands)
		}
	}
	if len(a.Error) != 1 || !strings.Contains(a.Error[0], "status=failed") || a.Storage.Swap.Size != 0 {
		t.Errorf("on errors %q, swap %d", a.Error, a.Storage.Swap.Size)
	}
	ids := map[string]bool{}
	for _, action := range a.Storage.Config {
		if action["type"] == "disk" && (action["path"] != "@DISK0@" || action["match"] != nil) {
			t.Errorf("the disk is chosen by %v", action)
		}
		for _, ref := range []string{"device", "volume", "volgroup"} {
			if v, ok := action[ref].(string); ok && !ids[v] {
				t.Errorf("%v refers to what does not stand before it", action)
			}
		}
		ids[action["id"].(string)] = true
	}
	var meta map[string]string
	if err := yaml.Unmarshal([]byte(document(t, full(lane.SeedNoCloud), "meta-data")), &meta); err != nil || !maps.Equal(meta, map[string]string{"instance-id": "r-abc123", "local-hostname": "node-a"}) {
		t.Errorf("meta-data %v, %v", meta, err)
	}
	if body := document(t, minimal(lane.SeedNoCloud), "user-data"); !strings.Contains(body, `password: "!"`) || !strings.Contains(body, "authorized-keys: []") {
		t.Error("without a password hash or keys, the account is not locked")
	}
}

// hostile is what vendors, users and attackers write into free text.
var hostile = []string{
	"a'b", `a"b`, "$(touch /pwned)", "`touch /pwned`", "';touch /pwned;'", `\`, `a\'b`, `\\"`, "${HOME}", "a b  c", "*", "~", "-n", "%s%n", "#x", "a: b", "- x", "{{.}}", "<no value>", "&& touch /pwned", "A+B=C&D%20;E#F", "x;y|z",
	"!!python/object:x", "*alias", "&anchor", "null", "0x1F", "52:54:00:12:34:56", "yes", "Ünïcödé 測試", "END-OF-KEYS", "@DISK0@", "=",
}

func TestYAMLQuoteRoundTrips(t *testing.T) {
	for _, s := range hostile {
		var v any
		if err := yaml.Unmarshal([]byte("k: "+yamlQuote(s)+"\n"), &v); err != nil || v.(map[string]any)["k"] != s {
			t.Errorf("%q is written as %s and read as %v, %v", s, yamlQuote(s), v, err)
		}
	}
}

// FuzzQuotes: whatever a value is, it is read back as itself, from one word.
// What is not UTF-8 is not text, and YAML is.
func FuzzQuotes(f *testing.F) {
	for _, s := range hostile {
		f.Add(s)
	}
	f.Add("a\xff\xfeb\xe6\xb8") // bytes that are no UTF-8, and a sequence cut short
	f.Fuzz(func(t *testing.T, s string) {
		if got, rest, ok := shellWord(lane.ShellQuote(s) + " rest"); !ok || got != s || rest != " rest" {
			t.Errorf("shell: %q is written as %s and read as %q, with %q behind", s, lane.ShellQuote(s), got, rest)
		}
		var doc map[string]any
		if err := yaml.Unmarshal([]byte("a: "+yamlQuote(s)+"\nb: 1\n"), &doc); err != nil || doc["b"] != 1 || len(doc) != 2 {
			t.Errorf("YAML: %q is written as %s and read as %v, %v", s, yamlQuote(s), doc, err)
		}
		// Conversion to runes makes one U+FFFD of each invalid byte; YAML has nothing else for them.
		if want := string([]rune(s)); doc["a"] != want {
			t.Errorf("YAML: %q is read as %v, want %q", s, doc["a"], want)
		}
	})
}

// shellWord reads the first word as POSIX describes quoting, without expansions:
// a dollar or backquote outside single quotes is not ok.
func shellWord(s string) (word, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '\'':
			end := strings.IndexByte(s[i+1:], '\'')
			if end < 0 {
				return "", "", false
			}
			b.WriteString(s[i+1 : i+1+end])
			i += end + 1
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
			b.WriteByte(s[i])
		case ' ':
			return b.String(), s[i:], true
		case '$', '`', '"', ';', '&', '|', '<', '>', '(', ')', '\n', '\t', '*', '?', '[', '#', '~':
			return "", "", false
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), "", true
}

// TestPinnedPackages: a version is written as each installer reads it, or refused.
func TestPinnedPackages(t *testing.T) {
	for seed, want := range map[string]string{lane.SeedPreseed: " kubelet=1.35.0-1.1\n", lane.SeedNoCloud: "\n    - \"kubelet=1.35.0-1.1\"\n", lane.SeedKickstart: "\nkubelet-1.35.0-1.1\n", lane.SeedAutoYaST: "", lane.SeedAgama: ""} {
		in := full(seed)
		in.Site.Packages = []string{"kubelet=1.35.0-1.1"}
		if want == "" {
			if _, err := Documents(in); err == nil || !strings.Contains(err.Error(), "site.packages: SUSE's installers take names alone, and not kubelet=1.35.0-1.1") {
				t.Errorf("%s: %v", seed, err)
			}
			continue
		}
		name := map[string]string{lane.SeedPreseed: "preseed.cfg", lane.SeedNoCloud: "user-data", lane.SeedKickstart: "ks.cfg"}[seed]
		if text := document(t, in, name); !strings.Contains(text, want) {
			t.Errorf("%s: no %q in\n%s", seed, want, text)
		}
	}
}
