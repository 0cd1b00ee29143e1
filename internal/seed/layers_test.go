package seed

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"bootlane/internal/lane"
)

// layered is a host for which the site, its role and its own record speak.
func layered(seed string) Input {
	in := full(seed)
	if seed == lane.SeedKickstart {
		in.Bundle.Mirror = "http://mirror.example.org/rhel/9.6"
	}
	host := lane.InstallOptions{KernelArgs: []string{"console=ttyS0,115200n8", "quiet"}, Locale: new("fr_FR.UTF-8"), SSHKeys: full("").Site.SSHKeys[:1]}
	if seed == lane.SeedAgama { // which takes no proxy
		host.Proxy = new("")
	}
	if seed == lane.SeedTalos { // which takes none of these so
		host.Packages, host.KernelArgs, host.Proxy = []string{}, []string{}, new("")
	}
	if seed == lane.SeedIgnition { // which has none
		host.Packages = []string{}
	}
	if seed == lane.SeedImage { // which brings its own
		host.Packages, host.KernelArgs = []string{}, []string{}
	}
	in.Site, in.Origins = Merge(Defaults("net.example"),
		level("site", lane.InstallOptions{User: new("admin1"), SSHKeys: full("").Site.SSHKeys, NTP: []string{"10.1.0.1"}, Packages: []string{"tmux"}, KernelArgs: []string{"console=ttyS1"}, Proxy: new("http://proxy.example.org:3128")}),
		level("role storage", lane.InstallOptions{NTP: []string{"10.2.0.1", "ntp.example.org"}, Packages: []string{"mdadm", "g++"}, Timezone: new("Europe/Paris")}),
		level("host", host))
	return in
}

func TestLayeredGolden(t *testing.T) {
	for _, seed := range lane.Seeds() {
		for _, d := range documents(t, layered(seed)) {
			golden(t, filepath.Join("testdata", "layers", strings.ReplaceAll(seed, "/", "-"), d.Name), d.Body)
		}
	}
}

// TestLayeredUserData: what the installer of Ubuntu reads.
func TestLayeredUserData(t *testing.T) {
	var doc struct {
		Autoinstall struct {
			Proxy    string
			Packages []string
			Early    []string `yaml:"early-commands"`
			Late     []string `yaml:"late-commands"`
			Error    []string `yaml:"error-commands"`
		}
	}
	if err := yaml.Unmarshal([]byte(document(t, layered(lane.SeedNoCloud), "user-data")), &doc); err != nil {
		t.Fatal(err)
	}
	a := doc.Autoinstall
	if a.Proxy != "http://proxy.example.org:3128" || !slices.Equal(a.Packages, []string{"mdadm", "g++"}) {
		t.Errorf("%+v", a)
	}
	for _, c := range slices.Concat(a.Early, a.Late, a.Error) {
		if !strings.HasPrefix(c, "http_proxy= wget ") {
			t.Errorf("what opens the run goes through the proxy: %s", c)
		}
	}
}

// TestLayeredHooks: a real shell makes of the kernel arguments what GRUB and Anaconda are to read.
func TestLayeredHooks(t *testing.T) {
	m := machineFor(t, lane.SeedNoCloud)
	m.write("served/firstboot.sh", "")
	m.write("served/firstboot.service", "")
	m.write("bin/curtin", "#!/bin/sh\necho \"curtin $*\" >> /log\n")
	if err := os.Chmod(m.path("bin/curtin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if status, console := m.run(document(t, layered(lane.SeedNoCloud), "late.sh")); status != 0 {
		t.Errorf("exit %d\n%s", status, console)
	}
	if got, want := m.read("target/etc/default/grub.d/90-bootlane.cfg"), "GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX console=ttyS0,115200n8 quiet\"\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if !strings.Contains(m.read("log"), "curtin in-target --target=/target -- update-grub\n") {
		t.Errorf("GRUB's configuration is not made anew:\n%s", m.read("log"))
	}
	m, in := machineFor(t, lane.SeedKickstart), layered(lane.SeedKickstart)
	in.Host.Identity.Serial, in.Host.Run.Disk = "", lane.DiskSelector{Serial: "D1"}
	m.disk("vda", map[string]string{"size": "1", "serial": "D1"})
	m.expect(document(t, in, "gate.sh"), true, "kernel 1 ok", "installer 1 ok: vda is ")
	if got, want := m.read("tmp/bootlane-disk"), "bootloader --location=mbr --boot-drive=vda --append=\"console=ttyS0,115200n8 quiet\"\n"; !strings.Contains(got, want) {
		t.Errorf("%s\nlacks %s", got, want)
	}
}

// TestLayerRefused: what a seed cannot carry, or cannot carry safely, is refused where it stands.
func TestLayerRefused(t *testing.T) {
	for _, c := range []struct {
		name, seed string
		role, host lane.InstallOptions
		edit       func(*Input)
		want       string
	}{
		{"packages into an image", lane.SeedImage, lane.InstallOptions{Packages: []string{"htop"}}, lane.InstallOptions{}, nil, "roles.storage.packages: an image is written as it is"},
		{"arguments into an image", lane.SeedImage, lane.InstallOptions{}, lane.InstallOptions{KernelArgs: []string{"quiet"}}, nil, "install.kernelArgs: an image is written as it is"},
		{"none into an image", lane.SeedImage, lane.InstallOptions{Packages: []string{"htop"}}, lane.InstallOptions{Packages: []string{}}, nil, ""},
		{"a proxy beside an image", lane.SeedImage, lane.InstallOptions{Proxy: new("http://p:1")}, lane.InstallOptions{}, nil, ""},
		{"packages from nowhere", lane.SeedNoCloud, lane.InstallOptions{Packages: []string{"htop"}}, lane.InstallOptions{}, func(in *Input) { in.Bundle.Mirror = "" }, "roles.storage.packages: the bundle pins no mirror"},
		{"the index and the level", lane.SeedPreseed, lane.InstallOptions{NTP: []string{"10.0.0.1", "a;b"}}, lane.InstallOptions{}, nil, "roles.storage.ntp[1]: "},
		{"yescrypt for 8", lane.SeedKickstart, lane.InstallOptions{}, lane.InstallOptions{PasswordHash: new("$y$j9T$abcdefgh$" + strings.Repeat("a", 43))}, func(in *Input) { in.Bundle.Release = "8.10" }, "install.passwordHash: release 8"},
	} {
		in := full(c.seed)
		in.Site, in.Origins = Merge(Defaults(""), level("role storage", c.role), level("host", c.host))
		if c.edit != nil {
			c.edit(&in)
		}
		_, err := Documents(in)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), "\n  - "+c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestLayerHostile: what anybody may write into the new keys is refused by every seed, and what
// is not refused stands in the texts as it is.
func TestLayerHostile(t *testing.T) {
	words := []string{"null", "0x1F", "yes", "END-OF-KEYS"} // which are names as good as any
	for _, seed := range lane.Seeds() {
		for _, s := range hostile {
			for name, set := range map[string]func(*Site){"packages": func(v *Site) { v.Packages = []string{s} }, "kernelArgs": func(v *Site) { v.KernelArgs = []string{s} }, "proxy": func(v *Site) { v.Proxy = "http://" + s }} {
				in := full(seed)
				set(&in.Site)
				_, err := Documents(in)
				if plain := slices.Contains(words, s) || name == "kernelArgs" && s == "52:54:00:12:34:56"; err == nil && !plain {
					t.Errorf("%s: %s %q is not refused", seed, name, s)
				}
			}
		}
	}
	for _, s := range words {
		in := full(lane.SeedNoCloud)
		in.Site.Packages, in.Site.Proxy = []string{s}, "http://"+s
		var doc struct {
			Autoinstall struct{ Proxy, Packages any }
		}
		if err := yaml.Unmarshal([]byte(document(t, in, "user-data")), &doc); err != nil || doc.Autoinstall.Proxy != "http://"+s || doc.Autoinstall.Packages.([]any)[0] != s {
			t.Errorf("%q is read as %+v, %v", s, doc.Autoinstall, err)
		}
	}
}
