package strictyaml_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"bootlane/internal/strictyaml"
)

type rack struct {
	Name  string        `yaml:"name"`
	Units int           `yaml:"units"`
	Lease time.Duration `yaml:"lease"`
	On    bool          `yaml:"on"`
	Load  float64       `yaml:"load"`
	Hosts []struct {
		ID   string   `yaml:"id"`
		MACs []string `yaml:"macs"`
	} `yaml:"hosts"`
}

func TestProblems(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for i := 'b'; i < 'k'; i++ {
		p := string(i - 1)
		bomb += string(i) + ": &" + string(i) + " [*" + strings.Repeat(p+",*", 8) + p + "]\n"
	}
	for name, c := range map[string]struct {
		text string
		want []string // in order, each a part of one problem
	}{
		"good":                    {"name: x\nunits: 3\nlease: 2h\non: true\nhosts: [{id: a, macs: [m]}]\n", nil},
		"empty":                   {"", nil},
		"unknown keys":            {"nam: x\nunits: 3\nunitz: 4\n", []string{`f:1: unknown key "nam"`, `f:3: unknown key "unitz"`}},
		"nested unknown":          {"hosts:\n  - id: a\n    mac: m\n", []string{`f:3: unknown key "mac"`}},
		"wrong types":             {"units: many\nhosts: 5\nlease: soon\non: perhaps\n", []string{"f:1: units: text \"many\" stands here, a whole number is wanted", "f:2: hosts: a whole number \"5\" stands here, a list is wanted", "f:3: lease: text \"soon\" stands here, a duration", "f:4: on: text \"perhaps\" stands here, true or false"}},
		"wrong types on one line": {"{name: [1], units: {}, lease: 2, on: [], hosts: {id: a}}\n", []string{"f:1: name: a list stands here, text is wanted", "f:1: units: a mapping stands here, a whole number", "f:1: lease: a whole number \"2\" stands here, a duration", "f:1: on: a list stands here, true or false", "f:1: hosts: a mapping stands here, a list"}},
		"wrong types deep below":  {"hosts:\n  - 7\n  - {id: [x], macs: m}\n  - macs:\n      - a: b\n", []string{"f:2: hosts[0]: a whole number \"7\" stands here, a mapping", "f:3: hosts[1].id: a list stands here, text", "f:3: hosts[1].macs: text \"m\" stands here, a list", "f:5: hosts[2].macs[0]: a mapping stands here, text"}},
		"everything at once":      {"units: x\nnam: y\nunits: 3\nhosts: [{ix: 1, id: {}, ix: 2}]\n", []string{"f:1: units: text \"x\"", `f:2: unknown key "nam"`, "f:3: units: stands on line 1 already", "f:4: hosts[0].id: a mapping stands here, text", "f:4: hosts[0].ix: stands on line 4", `f:4: unknown key "ix"`}},
		"by an alias":             {"name: &a [x]\nhosts: [{id: a, macs: *a}]\n", []string{"f:1: name: a list stands here, text is wanted"}},
		"an alias itself":         {"hosts:\n  - {id: a, macs: &m [x]}\n  - {id: *m}\n", []string{"f:3: hosts[1].id: a list stands here, text is wanted"}},
		"an alias without anchor": {"units: 1\nunits: &x 2\nname: *x\non: []\n", []string{"f:2: units: stands on line 1 already", "f:4: on: a list stands here"}},
		"a number":                {"load: high\n", []string{"f:1: load: text \"high\" stands here, a number is wanted"}},
		"templates not filled in": {"name: x\nhosts:\n  - id: a\n    {{ more }}: 1\n    {{ again }}: 2\n", []string{"f:4: hosts[0]: a mapping stands where a key is wanted", "f:5: hosts[0]: a mapping stands where a key is wanted"}},
		"keys that are lists":     {"? [a]\n: 1\n? [a]\n: 2\n", []string{"f:1: a list stands where a key is wanted", "f:3: a list stands"}},
		"keys that are aliases":   {"name: &n x\n*n : 1\n*n : 2\n", []string{"f:1: unknown key \"x\"", "f:3: x: stands on line 2"}},
		"a key like a message":    {"\"line 1: mapping key \\\"x\\\" already defined at line 1\": 1\n", []string{"f:1: unknown key"}},
		"an alias within itself":  {"hosts: &h\n  - {id: a, macs: *h}\n", []string{"f:"}},
		"a long value":            {"units: " + strings.Repeat("é", 60) + "\n", []string{"f:1: units: text \"" + strings.Repeat("é", 40) + "…\" stands"}},
		"key twice":               {"name: a\nname: b\n", []string{"f:2: name: stands on line 1 already: a key comes once"}},
		"second document":         {"name: a\n---\nname: b\n", []string{"f:2: a second YAML document"}},
		"no YAML":                 {"name: [a\nunits: 3\n", []string{"f:"}},
		"tab":                     {"hosts:\n\t- id: a\n", []string{"f:2:"}},
		"bomb":                    {bomb, []string{"f:"}},
		"a list":                  {"- a\n", []string{"f:1: a list stands here"}},
	} {
		t.Run(name, func(t *testing.T) {
			var out rack
			_, problems := strictyaml.Decode("f", []byte(c.text), &out)
			if len(problems) != len(c.want) && !(name == "bomb" && len(problems) > 0) {
				t.Fatalf("%d problems, want %d: %v", len(problems), len(c.want), problems)
			}
			for i, w := range c.want {
				if !strings.Contains(problems[i].String(), w) {
					t.Errorf("problem %d is %q, want %q", i, problems[i], w)
				}
			}
		})
	}
}

func TestLines(t *testing.T) {
	doc, problems := strictyaml.Decode("f", []byte("name: x\nhosts:\n  - id: a\n  - id: b\n    macs:\n      - m1\n      - m2\n"), &rack{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for path, line := range map[string]int{"name": 1, "hosts": 2, "hosts[0].id": 3, "hosts[1]": 4, "hosts[1].macs[1]": 7, "hosts[1].arch": 4, "hosts[9].id": 2, "units": 1, "": 1} {
		if p := doc.Problem(path, "m"); p.Line != line {
			t.Errorf("%q is on line %d, want %d", path, p.Line, line)
		}
	}
	if got := doc.Problem("hosts[0].id", "is odd").String(); got != "f:3: hosts[0].id: is odd" {
		t.Errorf("%q", got)
	}
}

// TestPlaces: what cannot be read takes nothing else with it, and a list keeps its places.
func TestPlaces(t *testing.T) {
	var out rack
	doc, problems := strictyaml.Decode("f", []byte("units: 3\nunits: 4\nname: [x]\nhosts:\n  - 7\n  - {id: b, macs: [[m], n]}\n"), &out)
	if len(problems) != 4 || out.Units != 3 || len(out.Hosts) != 2 || out.Hosts[1].ID != "b" || len(out.Hosts[1].MACs) != 2 || out.Hosts[1].MACs[1] != "n" {
		t.Fatalf("%+v, %v", out, problems)
	}
	all := doc.Join(problems, doc.Problem("hosts[0].id", "is missing"), doc.Problem("hosts[1].macs[0]", "is no MAC"), doc.Problem("hosts[1].macs[1]", "is no MAC"), doc.Problem("name", "is missing"), doc.Problem("names", "is another"))
	var said []string
	for _, p := range all {
		said = append(said, p.Field)
	}
	if got, want := strings.Join(said, " "), "names units name hosts[0] hosts[1].macs[0] hosts[1].macs[1]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// FuzzDecode: whatever the library refuses is told, with a line that the file has.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{"name: x\nhosts: [{id: a, macs: [m]}]\n", "{{ a }}: 1\n{{ b }}: 2\n", "units: x\nnam: y\nunits: 3\n", "hosts: &h\n  - {id: a, macs: *h}\n",
		"name: &a [x]\nhosts: [{id: *a}]\n", "<<: {units: 1}\nunits: many\n", "load: !!binary x\n", "? [a]\n: 1\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got, want rack
		_, problems := strictyaml.Decode("f", data, &got)
		dec := yaml.NewDecoder(bytes.NewReader(data))
		dec.KnownFields(true)
		if err := dec.Decode(&want); err != nil && err != io.EOF && len(problems) == 0 {
			t.Errorf("nobody tells %v", err)
		}
		for _, p := range problems {
			if p.Line < 0 || p.Line > 1+bytes.Count(data, []byte("\n"))+bytes.Count(data, []byte("\r"))+bytes.Count(data, []byte("\xc2\x85"))+bytes.Count(data, []byte("\xe2\x80")) {
				t.Errorf("%q: the file has no such line", p)
			}
		}
	})
}
