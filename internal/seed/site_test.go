package seed

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootlane/internal/lane"
)

func level(from string, i lane.InstallOptions) Layer {
	return Layer{From: from, Path: map[string]string{"site": "site", "host": "install"}[from] + strings.Replace(strings.TrimPrefix(strings.TrimPrefix(from, "site"), "host"), "role ", "roles.", 1), InstallOptions: i}
}

// TestMerge: each level takes the place of those before it, key by key and whole.
func TestMerge(t *testing.T) {
	site := level("site", lane.InstallOptions{Timezone: new("Europe/Berlin"), NTP: []string{"10.1.0.1", "10.1.0.2"}})
	role := level("role storage", lane.InstallOptions{NTP: []string{"10.2.0.1"}, Timezone: new("Europe/Paris")})
	for _, c := range []struct {
		name   string
		layers []Layer
		field  string
		want   lane.Origin
	}{
		{"nobody says anything", nil, "timezone", lane.Origin{Values: []string{"Etc/UTC"}, From: "default", Path: "default.timezone"}},
		{"a default of none", nil, "ntp", lane.Origin{Values: []string{}, From: "default", Path: "default.ntp"}},
		{"a default of the network", nil, "domain", lane.Origin{Values: []string{"net.example"}, From: "default", Path: "default.domain"}},
		{"site", []Layer{site}, "timezone", lane.Origin{Values: []string{"Europe/Berlin"}, From: "site", Path: "site.timezone", Over: []lane.Overridden{{From: "default", Values: []string{"Etc/UTC"}}}}},
		{"site over a default of none", []Layer{site}, "ntp", lane.Origin{Values: []string{"10.1.0.1", "10.1.0.2"}, From: "site", Path: "site.ntp"}},
		{"role", []Layer{site, role}, "ntp", lane.Origin{Values: []string{"10.2.0.1"}, From: "role storage", Path: "roles.storage.ntp", Over: []lane.Overridden{{From: "site", Values: []string{"10.1.0.1", "10.1.0.2"}}}}},
		{"host", []Layer{site, role, level("host", lane.InstallOptions{Timezone: new("Asia/Tokyo")})}, "timezone", lane.Origin{Values: []string{"Asia/Tokyo"}, From: "host", Path: "install.timezone",
			Over: []lane.Overridden{{From: "role storage", Values: []string{"Europe/Paris"}}, {From: "site", Values: []string{"Europe/Berlin"}}, {From: "default", Values: []string{"Etc/UTC"}}}}},
		{"an empty list is none", []Layer{site, role, level("host", lane.InstallOptions{NTP: []string{}})}, "ntp", lane.Origin{Values: []string{}, From: "host", Path: "install.ntp",
			Over: []lane.Overridden{{From: "role storage", Values: []string{"10.2.0.1"}}, {From: "site", Values: []string{"10.1.0.1", "10.1.0.2"}}}}},
		{"an absent one says nothing", []Layer{site, level("role x", lane.InstallOptions{}), level("host", lane.InstallOptions{})}, "ntp", lane.Origin{Values: []string{"10.1.0.1", "10.1.0.2"}, From: "site", Path: "site.ntp"}},
		{"an empty text is none", []Layer{level("site", lane.InstallOptions{Proxy: new("http://p:1")}), level("host", lane.InstallOptions{Proxy: new("")})}, "proxy",
			lane.Origin{Values: []string{}, From: "host", Path: "install.proxy", Over: []lane.Overridden{{From: "site", Values: []string{"http://p:1"}}}}},
		{"a secret", []Layer{level("site", lane.InstallOptions{PasswordHash: new("$6$saltsalt$secret")}), level("host", lane.InstallOptions{PasswordHash: new("$y$j9T$salt$secret")})}, "passwordHash",
			lane.Origin{Values: []string{"$y$…"}, From: "host", Path: "install.passwordHash", Over: []lane.Overridden{{From: "site", Values: []string{"$6$…"}}}}},
	} {
		_, origins := Merge(append([]Layer{Defaults("net.example")}, c.layers...)...)
		c.want.Field = c.field
		n := slices.IndexFunc(origins, func(o lane.Origin) bool { return o.Field == c.field })
		if n < 0 {
			t.Fatalf("%s: nothing is said of %s", c.name, c.field)
		}
		if diff := cmp.Diff(c.want, origins[n]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// TestMergedSite: what is installed is what is explained, field by field.
func TestMergedSite(t *testing.T) {
	want := Site{Domain: "a.example", User: "ops2", PasswordHash: "h", SSHKeys: []string{"k"}, Locale: "C.UTF-8", Keyboard: "de", Timezone: "Asia/Tokyo", NTP: []string{"n"},
		Packages: []string{"p"}, KernelArgs: []string{"a"}, Proxy: "http://p:1", Cluster: "prod", Purpose: "kubernetes", Modules: []string{"m"}, Sysctls: []string{"s.t=1"}, Swap: "off", Runtime: "containerd", Layout: "lvm", Volumes: []string{"/var=9G"}, Encryption: "tang", Tang: []string{"u"}}
	got, origins := Merge(Defaults(""), level("host", lane.InstallOptions{Domain: new("a.example"), User: new("ops2"), PasswordHash: new("h"), SSHKeys: []string{"k"}, Locale: new("C.UTF-8"), Keyboard: new("de"),
		Timezone: new("Asia/Tokyo"), NTP: []string{"n"}, Packages: []string{"p"}, KernelArgs: []string{"a"}, Proxy: new("http://p:1"), Cluster: new("prod"),
		Purpose: new("kubernetes"), Modules: []string{"m"}, Sysctls: []string{"s.t=1"}, Swap: new("off"), Runtime: new("containerd"), Layout: new("lvm"), Volumes: []string{"/var=9G"}, Encryption: new("tang"), Tang: []string{"u"}}))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, o := range origins {
		if o.From != "host" {
			t.Errorf("%+v", o)
		}
	}
}

// TestPurpose: what a purpose brings lies right above the defaults, whoever names it.
func TestPurpose(t *testing.T) {
	site, role := level("site", lane.InstallOptions{Purpose: new(lane.PurposeKubernetes)}), level("role edge", lane.InstallOptions{Modules: []string{"overlay"}, Swap: new(lane.SwapAllowed)})
	got, origins := Merge(Defaults(""), Purpose(site, role), site, role)
	if !slices.Equal(got.Modules, []string{"overlay"}) || got.Swap != lane.SwapAllowed || got.Runtime != lane.RuntimeContainerd || len(got.Sysctls) != 3 {
		t.Errorf("%+v", got)
	}
	for _, o := range origins {
		if o.Field == "runtime" && o.From != "purpose kubernetes" {
			t.Errorf("%+v", o)
		}
	}
	plain := level("host", lane.InstallOptions{Purpose: new("")})
	if got, _ := Merge(Defaults(""), Purpose(site, plain), site, plain); len(got.Modules)+len(got.Sysctls) != 0 || got.Runtime != "" || got.Swap != lane.SwapAllowed {
		t.Errorf("who is for nothing gets %+v", got)
	}
}
