package lane

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

const testKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ops@example.org"

// TestInstallOver: what a level says takes the other's place whole, and what is there and
// empty is not what is not there.
func TestInstallOver(t *testing.T) {
	below := InstallOptions{Domain: new("below.example"), User: new("ops"), PasswordHash: new("h"), SSHKeys: []string{"a", "b"}, Locale: new("C.UTF-8"), Keyboard: new("us"),
		Timezone: new("Etc/UTC"), NTP: []string{"n"}, Packages: []string{"p"}, KernelArgs: []string{"k"}, Proxy: new("http://p:1"), Cluster: new("c"),
		Purpose: new("kubernetes"), Modules: []string{"overlay"}, Sysctls: []string{"a.b=1"}, Swap: new("off"), Runtime: new("containerd"), Layout: new("lvm"), Volumes: []string{"/var=1G"}, Encryption: new("tang"), Tang: []string{"t"}}
	all := below.Fields()
	for n, f := range all {
		if !f.Set || len(f.Values) == 0 {
			t.Fatalf("%s is not tried", f.Name)
		}
		if got := (InstallOptions{}).Over(below).Fields()[n]; !slices.Equal(got.Values, f.Values) {
			t.Errorf("%s: who says nothing gets %q", f.Name, got.Values)
		}
		if got := below.Over(InstallOptions{}).Fields()[n]; !slices.Equal(got.Values, f.Values) {
			t.Errorf("%s: over nothing it is %q", f.Name, got.Values)
		}
	}
	none := InstallOptions{Domain: new(""), User: new(""), PasswordHash: new(""), SSHKeys: []string{}, Locale: new(""), Keyboard: new(""),
		Timezone: new(""), NTP: []string{}, Packages: []string{}, KernelArgs: []string{}, Proxy: new(""), Cluster: new(""),
		Purpose: new(""), Modules: []string{}, Sysctls: []string{}, Swap: new(""), Runtime: new(""), Layout: new(""), Volumes: []string{}, Encryption: new(""), Tang: []string{}}
	other := InstallOptions{Domain: new("d"), User: new("u"), PasswordHash: new("i"), SSHKeys: []string{"c"}, Locale: new("l"), Keyboard: new("k"),
		Timezone: new("z"), NTP: []string{"m"}, Packages: []string{"q"}, KernelArgs: []string{"j"}, Proxy: new("x"), Cluster: new("y"),
		Purpose: new("p"), Modules: []string{"m"}, Sysctls: []string{"s=1"}, Swap: new("w"), Runtime: new("r"), Layout: new("o"), Volumes: []string{"v"}, Encryption: new("e"), Tang: []string{"u"}}
	for n, f := range none.Over(below).Fields() {
		if !f.Set || len(f.Values) != 0 {
			t.Errorf("%s: none over %q is %q", f.Name, all[n].Values, f.Values)
		}
		if got := other.Over(below).Fields()[n]; !slices.Equal(got.Values, other.Fields()[n].Values) {
			t.Errorf("%s: %q, and nothing is to be left of the level below", f.Name, got.Values)
		}
	}
}

// TestInstallOnItsWay: a record is kept, and an inventory sent, as JSON.
func TestInstallOnItsWay(t *testing.T) {
	for _, text := range []string{`{}`, `{"ntp":[]}`, `{"passwordHash":"","sshKeys":[]}`, `{"domain":"a.example","packages":["htop"],"kernelArgs":[],"proxy":""}`} {
		var i InstallOptions
		if err := json.Unmarshal([]byte(text), &i); err != nil {
			t.Fatal(err)
		}
		if out, err := json.Marshal(i); err != nil || string(out) != text {
			t.Errorf("%s became %s, %v", text, out, err)
		}
		if out, err := json.Marshal(i.clone()); err != nil || string(out) != text {
			t.Errorf("a copy of %s is %s, %v", text, out, err)
		}
	}
}

func TestInstallValidate(t *testing.T) {
	for _, c := range []struct {
		name string
		i    InstallOptions
		want []string
	}{
		{"nothing", InstallOptions{}, nil},
		{"sound", InstallOptions{Domain: new("a.example"), User: new("ops"), SSHKeys: []string{testKey}, NTP: []string{"10.0.0.1", "fd00::1", "ntp.example"}, Packages: []string{"htop", "g++", "libstdc++6", "python3.11", "NetworkManager-tui", "R"},
			KernelArgs: []string{"console=ttyS0,115200n8", "quiet", "crashkernel=1G-4G:192M,4G-:256M", "mitigations=auto,nosmt", "memmap=2G!4G"}, Proxy: new("http://proxy.example:3128"), Cluster: new("prod-1")}, nil},
		{"none", InstallOptions{Domain: new(""), PasswordHash: new(""), SSHKeys: []string{}, NTP: []string{}, Packages: []string{}, KernelArgs: []string{}, Proxy: new(""), Cluster: new("")}, nil},
		{"for Kubernetes", InstallOptions{Purpose: new("kubernetes"), Modules: []string{"overlay", "nf-conntrack"}, Sysctls: []string{"net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0"}, Swap: new("off"), Runtime: new("containerd")}, nil},
		{"for what nobody knows", InstallOptions{Purpose: new("database"), Modules: []string{"a b"}, Sysctls: []string{"net.ipv4.ip_forward", "a.b=$(reboot)"}, Swap: new(""), Runtime: new("docker")}, []string{"purpose: ", "swap: ", "runtime: ", "modules[0]: ", "sysctls[0]: ", "sysctls[1]: "}},
		{"what nobody can be without", InstallOptions{User: new(""), Locale: new(""), Keyboard: new(""), Timezone: new("")}, []string{"user: ", "timezone: ", "locale: ", "keyboard: "}},
		{"reserved", InstallOptions{User: new("admin")}, []string{`user: "admin" is reserved`}},
		{"domain", InstallOptions{Domain: new("a b")}, []string{`domain: "a b"`}},
		{"clear password", InstallOptions{PasswordHash: new("secret")}, []string{"passwordHash: is not a crypt hash"}},
		{"keys", InstallOptions{SSHKeys: []string{testKey, "x", testKey + "\x1b[2J", testKey[:40]}}, []string{"sshKeys[1]: is not one", "sshKeys[2]: has control", "sshKeys[3]: is cut short"}},
		{"ntp", InstallOptions{NTP: []string{"a;b", ""}}, []string{"ntp[0]: ", "ntp[1]: "}},
		{"packages", InstallOptions{Packages: []string{"", "a b", "-x", "x-", "@core", "x=", "x/y", "a,b", "x*", "%end", "x\ny", "$(x)", "htop"}},
			[]string{"packages[0]", "packages[1]", "packages[2]", "packages[3]", "packages[4]", "packages[5]", "packages[6]", "packages[7]", "packages[8]", "packages[9]", "packages[10]", "packages[11]"}},
		{"kernelArgs", InstallOptions{KernelArgs: []string{"", "a b", "a;b", "a&b", `a"b`, "a'b", "$x", "`x`", `a\`, "---", "#x", "a>b", "{x}", "a\nb", "quiet"}},
			[]string{"kernelArgs[0]", "kernelArgs[1]", "kernelArgs[2]", "kernelArgs[3]", "kernelArgs[4]", "kernelArgs[5]", "kernelArgs[6]", "kernelArgs[7]", "kernelArgs[8]", "kernelArgs[9]", "kernelArgs[10]", "kernelArgs[11]", "kernelArgs[12]", "kernelArgs[13]"}},
		{"all at once", InstallOptions{User: new("A"), NTP: []string{"!"}, Proxy: new("ftp://x"), Cluster: new("a b")}, []string{"user", "proxy", "cluster", "ntp[0]"}},
	} {
		problems := c.i.Validate()
		if len(problems) != len(c.want) {
			t.Errorf("%s: %q, want %q", c.name, problems, c.want)
			continue
		}
		for n, p := range problems {
			if !strings.HasPrefix(p.String(), c.want[n]) {
				t.Errorf("%s: %q, want %q", c.name, p, c.want[n])
			}
		}
	}
	for url, good := range map[string]bool{"http://10.0.0.1:3128": true, "http://[fd00::1]:3128/": true, "http://proxy": true,
		"https://proxy": false, "http://u:s3cret@proxy:1": false, "http://proxy:1/x": false, "http://pro xy": false, "http://proxy\n": false, "http://": false, "http://a'b": false, "http://a;b": false, "DIRECT": false} {
		problems := InstallOptions{Proxy: &url}.Validate()
		if (len(problems) == 0) != good || strings.Contains(problemText(problems), "s3cret") {
			t.Errorf("%q: %v", url, problems)
		}
	}
}

func problemText(list []Problem) string {
	var out []string
	for _, p := range list {
		out = append(out, p.String())
	}
	return strings.Join(out, "\n")
}

// TestInstallInRecord: the record's own values are looked at with the rest, and what an import
// changes in them is in the evidence, but for what is secret.
func TestInstallInRecord(t *testing.T) {
	h := known()
	h.Install = InstallOptions{NTP: []string{"!"}, User: new("root")}
	if got := problemText(h.Validate()); !strings.Contains(got, `install.ntp[0]: "!"`) || !strings.Contains(got, `install.user: "root"`) {
		t.Error(got)
	}
	one, two := "$6$saltsalt$"+strings.Repeat("a", 86), "$6$saltsalt$"+strings.Repeat("b", 86)
	was, is := known(), known()
	was.Install = InstallOptions{PasswordHash: &one, NTP: []string{"10.0.0.1"}, Packages: []string{"htop"}}
	is.Install = InstallOptions{PasswordHash: &two, NTP: []string{}, Packages: []string{"htop"}}
	h, _ = Enrol(was, "op:alice", armedAt)
	next, e, changed, err := Update(h, is, "op:alice", later)
	if err != nil || !changed || next.Install.NTP == nil || *next.Install.PasswordHash != two {
		t.Fatalf("%v, %v: %+v", changed, err, next.Install)
	}
	if want := "inventory changed: install.passwordHash: $6$… -> $6$…; install.ntp: 10.0.0.1 -> none"; e.Message != want {
		t.Errorf("%s, want %s", e.Message, want)
	}
	if _, _, changed, _ = Update(next, is, "op:alice", later); changed {
		t.Error("what it has already is news")
	}
	is.Install.NTP = nil
	if _, e, changed, _ = Update(next, is, "op:alice", later); !changed || !strings.Contains(e.Message, "install.ntp: none -> -") {
		t.Errorf("none, and nothing said, are the same: %s", e.Message)
	}
}

func TestMasked(t *testing.T) {
	for hash, want := range map[string]string{"": "", "$y$j9T$salt$hash": "$y$…", "$6$s$h": "$6$…", "secret": "…", "$6$…": "$6$…"} {
		i := InstallOptions{PasswordHash: &hash}
		if got := *i.Masked().PasswordHash; got != want || *i.PasswordHash != hash {
			t.Errorf("%q is shown as %q, want %q", hash, got, want)
		}
	}
}
