package seed

import (
	"crypto/sha256"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"bootlane/internal/lane"
	"bootlane/internal/lint"
)

// hostileKey is what people may write into a comment: every quote, every variable, every end of something. Of {{ }} the
// linter would say that a template was not filled in.
const hostileKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA o'p\"s `id` $(id) ${x} %s # ; && || <&> ]]> \\ END-OF-KEYS Ünïcödé @DISK0@"

// variants are ways in which one host differs from another.
func variants() map[string]func(*Input) {
	return map[string]func(*Input){
		"as it is":    func(*Input) {},
		"a long name": func(in *Input) { in.Host.Hostname = strings.Repeat("n", 63) },
		"no domain":   func(in *Input) { in.Host.Hostname, in.Site.Domain = "node-a", "" },
		"MACs alone":  func(in *Input) { in.Host.Identity = lane.Identity{MACs: in.Host.Identity.MACs} },
		"many NICs":   func(in *Input) { in.Host.Identity.MACs = manyMACs(64) },
		"twenty keys": func(in *Input) { in.Site.SSHKeys = slices.Repeat(in.Site.SSHKeys[:1], 20) },
		"a password":  func(in *Input) { in.Site.SSHKeys = nil },
		"keys alone":  func(in *Input) { in.Site.PasswordHash = "" },
		"hostile text": func(in *Input) {
			in.Site.SSHKeys, in.Host.Identity.Serial = []string{hostileKey}, "a'b\"c`d`$(e)${f};g&h|i<j>k#l%m\\n"
		},
		"scripts": func(in *Input) {
			in.Scripts = []Script{{"10-a.sh", []byte("#!/bin/sh\necho 'END' \"$x\"\n")}, {"20-b.sh", []byte("\x00\xff")}}
		},
		"IPv6": func(in *Input) {
			in.Base = strings.Replace(in.Base, "10.0.0.1", "[fd77::1]", 1)
			in.Site.NTP = []string{"fd77::1"}
		},
		"another place": func(in *Input) {
			in.Site.Locale, in.Site.Timezone, in.Site.Keyboard = "pt_BR.UTF-8", "America/Argentina/ComodRivadavia", "br"
		},
		"for Kubernetes": func(in *Input) {
			in.Site.Modules, in.Site.Sysctls, in.Site.Swap, in.Site.Runtime = []string{"overlay"}, []string{"net.ipv4.ip_forward=1"}, lane.SwapOff, lane.RuntimeContainerd
		},
	}
}

func manyMACs(n int) (out []lane.MAC) {
	for i := range n {
		out = append(out, lane.MAC(fmt.Sprintf("52:54:00:00:%02x:a1", i)))
	}
	return out
}

// matrix returns every variant of a host for every seed: the issue of which is that no text of one breaks.
func matrix() map[string]Input {
	out := map[string]Input{}
	for _, seed := range lane.Seeds() {
		for name, change := range variants() {
			in := full(seed)
			if seed == lane.SeedImage { // which brings its own
				in.Site.Packages, in.Site.KernelArgs = nil, nil
			}
			change(&in)
			if seed == lane.SeedTalos { // which runs nothing, and is for Kubernetes anyway
				in.Scripts, in.Site.Modules, in.Site.Sysctls = nil, nil, nil
			}
			out[seed+", "+name] = in
			if seed == lane.SeedImage {
				in.Site.SSHKeys = slices.Clone(in.Site.SSHKeys)
				for i, key := range in.Site.SSHKeys { // what the gates of installers look for is a leftover elsewhere
					in.Site.SSHKeys[i] = strings.ReplaceAll(key, " @DISK0@", "")
				}
				out[seed+" with cloud-init, "+name] = clouded(in)
			}
		}
	}
	return out
}

// checker runs the real reader of a format on a text, and returns its complaints.
type checker func(t *testing.T, path string) string

// says runs a program, and returns all that it says, or that it failed.
func says(t *testing.T, program ...string) string {
	t.Helper()
	out, err := exec.Command(program[0], program[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s: %v\n%s", program[0], err, out)
	}
	return string(out)
}

// TestMatrix renders more than sixty hosts, and has the reader of each format, and our own linter, judge every text.
// Equal texts are judged once.
func TestMatrix(t *testing.T) {
	all := matrix()
	if len(all) < 60 {
		t.Fatalf("%d hosts", len(all))
	}
	shellcheck, debconf, cloudInit := tool(t, "shellcheck", "shellcheck"), tool(t, "debconf-set-selections", "debconf"), tool(t, "cloud-init", "cloud-init")
	busybox, dash := tool(t, "busybox", "busybox-static"), tool(t, "dash", "dash")
	checks := map[string]checker{
		typeShell: func(t *testing.T, path string) string {
			return says(t, dash, "-n", path) + says(t, busybox, "sh", "-n", path) + says(t, shellcheck, "--norc", "--shell=sh", "--format=gcc", "--severity=warning", path)
		},
		"preseed.cfg": func(t *testing.T, path string) string { return says(t, debconf, "-c", path) },
		"user-data": func(t *testing.T, path string) string {
			out := says(t, cloudInit, "schema", "-c", path)
			if strings.Contains(out, "Valid") {
				return ""
			}
			return out
		},
	}
	dir, seen := t.TempDir(), map[[32]byte]bool{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for _, d := range documents(t, all[name]) {
			sum := sha256.Sum256(append([]byte(d.Name+"\n"), d.Body...))
			if seen[sum] {
				continue
			}
			seen[sum] = true
			path := filepath.Join(dir, fmt.Sprintf("%x-%s", sum[:4], d.Name))
			if err := os.WriteFile(path, d.Body, 0o644); err != nil {
				t.Fatal(err)
			}
			for _, key := range []string{d.Type, d.Name} {
				if check := checks[key]; check != nil {
					if out := check(t, path); out != "" {
						t.Errorf("%s, %s:\n%s", name, d.Name, out)
					}
				}
			}
			linted(t, name, d)
		}
	}
	t.Logf("%d hosts, %d different texts", len(all), len(seen))
}

// linted has our own linter judge a text. A short key in the tests' own hosts is only a warning.
func linted(t *testing.T, name string, d Document) {
	t.Helper()
	if f := lint.Detect(d.Name, d.Body); f != "" {
		for _, x := range lint.Errors(lint.File(d.Name, d.Body, f, lint.Options{})) {
			t.Errorf("%s: %s", name, x)
		}
	}
}

// TestHostileText: what people write arrives as they wrote it, whatever it is wrapped in.
func TestHostileText(t *testing.T) {
	for _, seed := range lane.Seeds() {
		if seed == lane.SeedTalos { // which has no accounts
			continue
		}
		in := matrix()[seed+", hostile text"]
		var found bool
		for _, d := range documents(t, in) {
			for _, text := range plainTexts(t, d) {
				found = found || strings.Contains(text, hostileKey)
			}
		}
		if !found {
			t.Errorf("%s: the key is nowhere as it was written", seed)
		}
	}
}

// plainTexts returns what a reader of the document's format sees: its texts without their quotes.
func plainTexts(t *testing.T, d Document) (out []string) {
	t.Helper()
	switch d.Type {
	case typeYAML:
		var n yaml.Node
		if err := yaml.Unmarshal(d.Body, &n); err != nil {
			t.Fatal(err)
		}
		var walk func(*yaml.Node)
		walk = func(n *yaml.Node) {
			out = append(out, n.Value)
			for _, c := range n.Content {
				walk(c)
			}
		}
		walk(&n)
	case typeXML:
		var p profile
		if err := xml.Unmarshal(d.Body, &p); err != nil {
			t.Fatal(err)
		}
		for _, u := range p.Users {
			out = append(out, u.Keys...)
		}
	case typeJSON:
		var v any
		if err := json.Unmarshal(d.Body, &v); err != nil {
			t.Errorf("%s is no JSON: %v", d.Name, err)
		}
		var walk func(any)
		walk = func(v any) {
			switch v := v.(type) {
			case string:
				out = append(out, v)
			case []any:
				for _, c := range v {
					walk(c)
				}
			case map[string]any:
				for _, c := range v {
					walk(c)
				}
			}
		}
		walk(v)
	case typeShell: // keys stand in here-documents, line by line
		for line := range strings.Lines(string(d.Body)) {
			if line == hostileKey+"\n" {
				out = append(out, hostileKey)
			}
		}
	}
	return out
}
