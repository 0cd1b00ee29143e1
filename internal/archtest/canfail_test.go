package archtest

import (
	"slices"
	"strings"
	"testing"
)

// A check that cannot fail proves nothing: each one is shown source that it must
// object to, and source close to it that it must let pass.
func TestChecksCanFail(t *testing.T) {
	long := "package p\nfunc f() {\n" + strings.Repeat("\tf()\n", maxFunc-1) + "}\n"
	fits := "package p\nfunc f() {\n" + strings.Repeat("\tf()\n", maxFunc-2) + "}\n"
	lines := func(n int) string {
		return "package p\n" + strings.Repeat("// no code\n\n\n", 5000) + strings.Repeat("const a = 1\n", n-1)
	}
	objected := map[string]bool{}
	for _, c := range []struct {
		check, name, pkg, file, src string
		want                        string // empty: nothing to object to
	}{
		{"imports", "unknown package", "internal/util", "", "package p", "does not know"},
		{"imports", "edge imports edge", "internal/dhcp", "", `package p; import "bootlane/internal/tftp"`, "may not import internal/tftp"},
		{"imports", "edge imports control", "internal/httpboot", "", `package p; import _ "bootlane/internal/control"`, "may not import internal/control"},
		{"imports", "domain imports ours", "internal/lane", "", `package p; import "bootlane/internal/script"`, "may not import internal/script"},
		{"imports", "leaf imports the domain", "internal/strictyaml", "", `package p; import "bootlane/internal/lane"`, "may not import internal/lane"},
		{"imports", "everybody imports the domain", "internal/diagnose", "", `package p; import "bootlane/internal/lane"`, ""},
		{"imports", "app imports anybody", "internal/app", "", `package p; import "bootlane/internal/dhcp"`, ""},
		{"imports", "a test may import more", "internal/control", "a_test.go", `package p; import "bootlane/internal/store"`, ""},
		{"narrow imports", "another verb serves", "internal/cli", "why.go", `package p; import "bootlane/internal/app"`, "only serve.go"},
		{"narrow imports", "serve serves", "internal/cli", "serve.go", `package p; import "bootlane/internal/app"`, ""},
		{"modules", "unlisted", "internal/app", "", `package p; import "example.org/x/y"`, "no module in the allow-list"},
		{"modules", "unlisted in a test", "internal/app", "a_test.go", `package p; import "example.org/x/y"`, "no module in the allow-list"},
		{"modules", "not for this package", "internal/control", "", `package p; import "github.com/spf13/cobra"`, "may not import github.com/spf13/cobra"},
		{"modules", "test library in production", "internal/lane", "", `package p; import "github.com/google/go-cmp/cmp"`, "may not import"},
		{"modules", "listed", "internal/app", "", `package p; import "golang.org/x/sync/errgroup"`, ""},
		{"confined", "clock", "internal/store", "", `package p; import "time"; func f() { time.Now() }`, "may not use time.Now"},
		{"confined", "clock as a value", "internal/store", "", `package p; import "time"; var now = time.Now`, "may not use time.Now"},
		{"confined", "clock by another name", "internal/store", "", `package p; import clock "time"; func f() { clock.Now() }`, "may not use time.Now"},
		{"confined", "clock by the back door", "internal/store", "", `package p; import "time"; func f(t time.Time) { time.Since(t) }`, "may not use time.Since"},
		{"confined", "a method of the same name", "internal/store", "", `package p; import "time"; type c struct{ Now func() time.Time }; func f(time c) { time.Now() }`, ""},
		{"confined", "clock where it enters", "internal/control", "", `package p; import "time"; func f() { time.Now() }`, ""},
		{"confined", "clock in main", "cmd/bootlane", "", `package p; import "time"; func f() { time.Now() }`, ""},
		{"confined", "clock in a test", "internal/store", "a_test.go", `package p; import "time"; func f() { time.Now() }`, ""},
		{"confined", "randomness", "internal/dhcp", "", `package p; import "crypto/rand"`, "may not import crypto/rand"},
		{"confined", "programs", "internal/agent", "", `package p; import "os/exec"`, "may not import os/exec"},
		{"confined", "SQL", "internal/control", "", `package p; import "database/sql"`, "may not import database/sql"},
		{"confined", "SQL in an engine", "internal/store/sqlite", "", `package p; import "database/sql"`, ""},
		{"confined", "global log", "internal/app", "", `package p; import "log"`, "may not import log"},
		{"purity", "files", "internal/seed", "", `package p; import "os"`, "is pure"},
		{"purity", "sockets", "internal/lane", "", `package p; import "net"`, "is pure"},
		{"purity", "a library in the domain", "internal/lane", "", `package p; import "golang.org/x/text/unicode/norm"`, "nothing but the standard library"},
		{"purity", "addresses are values", "internal/lane", "", `package p; import "net/netip"`, ""},
		{"budget", "over", "internal/diagnose", "", lines(rooms()["internal/diagnose"].budget + 1), "budget"},
		{"budget", "full", "internal/diagnose", "", lines(rooms()["internal/diagnose"].budget), ""},
		{"budget", "a long literal counts", "internal/diagnose", "", "package p\nconst c = `" + strings.Repeat("x\n", 5000) + "`\n", "budget"},
		{"budget", "tests are free", "internal/diagnose", "a_test.go", lines(5000), ""},
		{"function length", "long", "internal/cli", "", long, "61 lines"},
		{"function length", "fits", "internal/cli", "", fits, ""},
		{"init", "init", "internal/cli", "", `package p; func init() {}`, "func init"},
		{"init", "in a test", "internal/cli", "a_test.go", `package p; func init() {}`, "func init"},
		{"init", "a method", "internal/cli", "", `package p; type t int; func (t) init() {}`, ""},
		{"panic", "panic", "internal/cli", "", `package p; func f() { panic("no") }`, "panic"},
		{"panic", "another panic", "internal/cli", "", `package p; func f(panic func()) { panic() }`, ""},
		{"package variables", "mutable", "internal/cli", "", `package p; var count int`, "count"},
		{"package variables", "call", "internal/cli", "", `package p; var c = make(map[string]int)`, "package-level variable c"},
		{"package variables", "pointer", "internal/cli", "", `package p; type t struct{}; var c = &t{}`, "package-level variable c"},
		{"package variables", "template that may grow", "internal/cli", "", `package p; import "text/template"; var t = template.New("t")`, "package-level variable t"},
		{"package variables", "function", "internal/cli", "", `package p; var f = func() {}`, "package-level variable f"},
		{"package variables", "version outside cmd", "internal/cli", "", `package p; var version = ""`, "package-level variable version"},
		{"package variables", "version", "cmd/bootlane", "", `package p; var version = ""`, ""},
		{"package variables", "tables", "internal/cli", "", `package p
			import ("embed"; "errors"; "regexp"; "text/template")
			var (
				list = []string{"a"}
				form = regexp.MustCompile("a")
				errA, errB = errors.New("a"), errors.New("b")
				files embed.FS
				texts = template.Must(template.ParseFS(files, "*"))
			)`, ""},
		{"assigned variables", "assigned", "internal/cli", "", `package p; var v = []int{1}; func f() { v = nil }`, "v is changed"},
		{"assigned variables", "element", "internal/cli", "", `package p; var v = map[string][]int{}; func f() { (v["a"])[0]++ }`, "v is changed"},
		{"assigned variables", "field", "internal/cli", "", `package p; var v = struct{ n int }{1}; func f() { v.n += 1 }`, "v is changed"},
		{"assigned variables", "deleted", "internal/cli", "", `package p; var v = map[string]int{}; func f() { delete(v, "a") }`, "v is changed"},
		{"assigned variables", "address", "internal/cli", "", `package p; var v = struct{}{}; func f() any { return &v }`, "v is changed"},
		{"assigned variables", "range", "internal/cli", "", `package p; var v = []int{1}; func f(x []int) { for _, v[0] = range x { } }`, "v is changed"},
		{"assigned variables", "of another package", "internal/cli", "", `package p; import "net/http"; func f() { http.DefaultClient = nil }`, "http is changed"},
		{"assigned variables", "shadowed", "internal/cli", "", `package p; var v = []int{1}; func f(v []int) { v[0] = 1; v = nil; _ = v }`, ""},
		{"assigned variables", "read", "internal/cli", "", `package p; var v = []int{1}; func f() int { w := v[0]; w++; return w }`, ""},
		{"package comment", "none", "internal/cli", "", `package p`, "no package comment"},
		{"package comment", "one", "internal/cli", "", "// Package p is one.\npackage p", ""},
	} {
		objected[c.check] = objected[c.check] || c.want != ""
		t.Run(c.check+"/"+c.name, func(t *testing.T) {
			name := c.file
			if name == "" {
				name = "a.go"
			}
			i := slices.IndexFunc(checks(), func(k check) bool { return k.name == c.check })
			if i < 0 {
				t.Fatalf("there is no check %q", c.check)
			}
			got := checks()[i].run(parse(t, c.pkg, map[string][]byte{name: []byte(c.src)}))
			switch {
			case c.want == "" && len(got) > 0:
				t.Errorf("objects to sound source: %q", got)
			case c.want != "" && (len(got) == 0 || !strings.Contains(got[0], c.want)):
				t.Errorf("found %q, want something about %q", got, c.want)
			}
		})
	}
	for _, c := range checks() {
		if !objected[c.name] {
			t.Errorf("no bad source for the check %q", c.name)
		}
	}
}

func TestModuleListCanFail(t *testing.T) {
	var good []requirement
	for _, m := range modules {
		good = append(good, requirement{Path: m.path, Indirect: true})
	}
	for _, c := range []struct {
		name     string
		required []requirement
		imported []string
		want     string
	}{
		{"good", good, nil, ""},
		{"indirect", append(good[:len(good):len(good)], requirement{Path: "example.org/x", Indirect: true}), nil, ""},
		{"unlisted", append(good[:len(good):len(good)], requirement{Path: "example.org/x"}), nil, "example.org/x"},
		{"imported, whatever go.mod says", append(good[:len(good):len(good)], requirement{Path: "example.org/x", Indirect: true}), []string{"example.org/x/y"}, "example.org/x"},
		{"gone", good[1:], nil, "does not require"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := moduleList(c.required, c.imported)
			if (c.want == "") != (len(got) == 0) || c.want != "" && !strings.Contains(got[0], c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}
