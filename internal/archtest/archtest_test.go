package archtest

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestArchitecture(t *testing.T) {
	packages := tree(t)
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) {
			for _, p := range packages {
				for _, finding := range c.run(p) {
					t.Error(finding)
				}
			}
		})
	}
	t.Run("no empty rooms", func(t *testing.T) {
		for path := range rooms() {
			if !slices.ContainsFunc(packages, func(p pkg) bool { return p.path == path }) {
				t.Errorf("rules_test.go lists %s, which is gone", path)
			}
		}
	})
	t.Run("no leave without use", func(t *testing.T) {
		for _, p := range packages {
			for _, finding := range unusedImports(p) {
				t.Error(finding)
			}
		}
	})
	t.Run("the table is sound", func(t *testing.T) {
		for path, r := range rooms() {
			if r.leaf && len(r.imports) > 0 {
				t.Errorf("%s is a leaf that imports %v", path, r.imports)
			}
			for _, imp := range r.imports {
				if _, ok := rooms()[imp]; !ok && imp != everybody {
					t.Errorf("%s may import %s, which is no room", path, imp)
				}
			}
		}
	})
}

// TestModules holds go.mod against the allow-list. What is direct is told by the
// source, not by go.mod's comments: those may lag behind.
func TestModules(t *testing.T) {
	for _, finding := range moduleList(requirements(t), importedModules(tree(t))) {
		t.Error(finding)
	}
}

type requirement struct {
	Path     string
	Indirect bool
}

func requirements(t *testing.T) []requirement {
	t.Helper()
	out, err := exec.Command("go", "mod", "edit", "-json", filepath.Join("..", "..", "go.mod")).Output()
	if err != nil {
		t.Fatalf("go mod edit: %v", err)
	}
	var mod struct{ Require []requirement }
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	return mod.Require
}

// importedModules returns every import path, of tests too, outside the standard library and ours.
func importedModules(packages []pkg) []string {
	var out []string
	for _, p := range packages {
		for _, f := range p.files {
			for imp := range f.imports() {
				if strings.Contains(strings.Split(imp, "/")[0], ".") {
					out = append(out, imp)
				}
			}
		}
	}
	return out
}

func moduleList(required []requirement, imported []string) (out []string) {
	listed := func(path string) bool {
		for _, m := range modules {
			if m.path == path {
				return true
			}
		}
		return false
	}
	for _, r := range required {
		direct := !r.Indirect || slices.ContainsFunc(imported, func(i string) bool { return i == r.Path || strings.HasPrefix(i, r.Path+"/") })
		if direct && !listed(r.Path) {
			out = append(out, "go.mod requires "+r.Path+", which the allow-list in rules_test.go does not know")
		}
	}
	for _, m := range modules {
		if !slices.ContainsFunc(required, func(r requirement) bool { return r.Path == m.path }) {
			out = append(out, "the allow-list in rules_test.go has "+m.path+", which go.mod does not require")
		}
		if m.why == "" {
			out = append(out, m.path+": no reason given")
		}
	}
	return out
}
