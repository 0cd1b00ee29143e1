package app_test

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"bootlane/internal/app"
)

// TestInstalled: what the site and its roles say of installed systems is looked at, level by level.
func TestInstalled(t *testing.T) {
	for _, c := range []struct{ name, keys, more, want string }{
		{"sound", "", "site: {user: ops, ntp: [10.0.0.2]}\nroles: {storage: {ntp: [], packages: [mdadm]}, compute: {}, r-2_b: {kernelArgs: [quiet]}}", ""},
		{"a role", "", "roles: {storage: {sshKeys: [x]}}", "4: roles.storage.sshKeys[0]: is not one public key line"},
		{"a role that says nothing", "", "roles: {storage: }", ""},
		{"all at once", "", "site: {user: Root}\nroles:\n  b: {timezone: ''}\n  a: {proxy: 'http://u:p@h'}",
			"4: site.user: \"Root\" is not a user name: a lower-case letter, then letters, digits, _ and -, at most 32\nconfig.yaml:6: roles.b.timezone: \"\" is not in the tz database: use a name like Europe/Berlin or Etc/UTC\nconfig.yaml:7: roles.a.proxy: is not http://HOST:PORT"},
		{"a role's name", "", "roles: {'a.b': {}}", `4: roles: "a.b" is not a role`},
		{"a key that is not known", "", "roles: {a: {pakages: [x]}}", `4: unknown key "pakages"`},
		{"a text for a list", "", "roles: {a: {ntp: x}}", "4: roles.a.ntp: text \"x\" stands here, a list is wanted"},
		{"the domain of the network", ", domain: 'a b'", "", `2: networks[0].domain: "a b" is not a domain name`},
		{"the domain of the network, and the site has its own", ", domain: 'a b'", "site: {domain: a.example}", ""},
	} {
		_, got := loadConfig(t, c.keys, c.more)
		lines := strings.Split(got, "\n")
		for n := range lines {
			_, lines[n], _ = strings.Cut(lines[n], "config.yaml:")
		}
		if got = strings.Join(lines, "\nconfig.yaml:"); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestInstalledWrittenDown: `lab try` writes a configuration down, and what a level does not say
// must not become what it says there is none of.
func TestInstalledWrittenDown(t *testing.T) {
	was, problems := loadConfig(t, "", "site: {ntp: [10.0.0.2], timezone: Asia/Tokyo}\nroles: {storage: {ntp: [], proxy: ''}}")
	if problems != "" {
		t.Fatal(problems)
	}
	text, err := yaml.Marshal(was)
	must(t, err)
	var is app.Config
	must(t, yaml.Unmarshal(text, &is))
	s, r := is.Site, is.Roles["storage"]
	if len(s.NTP) != 1 || s.Timezone == nil || *s.Timezone != "Asia/Tokyo" || s.SSHKeys != nil || s.User != nil || r.NTP == nil || len(r.NTP) != 0 || r.Proxy == nil || *r.Proxy != "" || r.Packages != nil || r.User != nil {
		t.Errorf("site %+v, role %+v, of\n%s", s, r, text)
	}
}
