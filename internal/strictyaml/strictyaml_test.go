package strictyaml_test

import (
	"strings"
	"testing"
	"time"

	"bootlane/internal/strictyaml"
)

type rack struct {
	Name  string        `yaml:"name"`
	Units int           `yaml:"units"`
	Lease time.Duration `yaml:"lease"`
	On    bool          `yaml:"on"`
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
		"good":            {"name: x\nunits: 3\nlease: 2h\non: true\nhosts: [{id: a, macs: [m]}]\n", nil},
		"empty":           {"", nil},
		"unknown keys":    {"nam: x\nunits: 3\nunitz: 4\n", []string{`f:1: unknown key "nam"`, `f:3: unknown key "unitz"`}},
		"nested unknown":  {"hosts:\n  - id: a\n    mac: m\n", []string{`f:3: unknown key "mac"`}},
		"wrong types":     {"units: many\nhosts: 5\nlease: soon\non: perhaps\n", []string{"f:1: text \"many\" stands here, a whole number", "f:2: a whole number \"5\" stands here, a list", "f:3: text \"soon\" stands here, a duration", "f:4: text \"perhaps\" stands here, true or false"}},
		"key twice":       {"name: a\nname: b\n", []string{"f:2: mapping key \"name\" already defined at line 1"}},
		"second document": {"name: a\n---\nname: b\n", []string{"f:2: a second YAML document"}},
		"no YAML":         {"name: [a\nunits: 3\n", []string{"f:"}},
		"tab":             {"hosts:\n\t- id: a\n", []string{"f:2:"}},
		"bomb":            {bomb, []string{"f:"}},
		"a list":          {"- a\n", []string{"f:1: a list stands here"}},
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
