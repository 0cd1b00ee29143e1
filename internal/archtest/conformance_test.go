package archtest

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// `make conformance` plays the tests and hands over what `go test -json` said of them.
var (
	played = flag.String("played", "", "output of `go test -json`, to write docs/conformance.md from")
	caseID = regexp.MustCompile(`^(D4|RL|PX|PR|TF|HB|V6|IX|SB|LB)-[0-9]{2}$`)
	row    = regexp.MustCompile("^\\| (" + `[A-Z0-9]{2}-[0-9]{2}` + ") \\|.*\\| (.*) \\|$")
)

const conformancePage = "../../docs/conformance.md"

// TestConformancePage: every case is played by a test that still stands, or says why by
// none; and the page tells what the last run did.
func TestConformancePage(t *testing.T) {
	if *played != "" {
		writeConformance(t)
	}
	text, err := os.ReadFile(conformancePage)
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{}
	for _, l := range strings.Split(string(text), "\n") {
		if m := row.FindStringSubmatch(l); m != nil {
			told[m[1]] = m[2]
		}
	}
	source := subtests(t)
	seen := map[string]bool{}
	for _, c := range conformanceCases {
		if !caseID.MatchString(c.id) || seen[c.id] || c.asks == "" || c.wants == "" || c.source == "" {
			t.Errorf("the case %+v is not whole, or stands twice", c)
		}
		seen[c.id] = true
		switch played := source[c.id]; {
		case played == (c.none != ""):
			t.Errorf("%s: a test plays it: %v, and the reason for none is %q", c.id, played, c.none)
		case !strings.Contains(told[c.id], "passed") && c.none == "", c.none != "" && !strings.Contains(told[c.id], c.none):
			t.Errorf("%s: docs/conformance.md says %q: run `make conformance`", c.id, told[c.id])
		}
	}
	for id := range source {
		if !seen[id] {
			t.Errorf("a test is named after the case %s, which nobody knows", id)
		}
	}
}

// subtests returns the cases that some test's source names a subtest after.
func subtests(t *testing.T) map[string]bool {
	out := map[string]bool{}
	named := regexp.MustCompile(`"((?:D4|RL|PX|PR|TF|HB|V6|IX|SB|LB)-[0-9]{2})[ "]`)
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") || strings.Contains(path, "archtest") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range named.FindAllSubmatch(b, -1) {
			out[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// writeConformance writes the page from a run.
func writeConformance(t *testing.T) {
	f, err := os.Open(*played)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	by, failed := map[string][]string{}, map[string]bool{}
	in := bufio.NewScanner(f)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var e struct{ Action, Package, Test string }
		if json.Unmarshal(in.Bytes(), &e) != nil || e.Action != "pass" && e.Action != "fail" {
			continue
		}
		parts := strings.Split(e.Test, "/")
		for _, p := range parts[1:] {
			id, _, _ := strings.Cut(p, "_")
			test := strings.TrimPrefix(e.Package, "bootlane/internal/") + "." + parts[0]
			if caseID.MatchString(id) && !slices.Contains(by[id], test) {
				by[id] = append(by[id], test)
			}
			failed[id] = failed[id] || e.Action == "fail"
		}
	}
	if err := in.Err(); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("# Conformance\n\nWhat firmware, relay agents and the RFCs want of a boot server, and the tests that play it. Written by `make conformance` from a run of them.\nIn the column *from*, E is OVMF 2022.11, I is iPXE of 2019, both as Debian 12 has them; their packets are in `testdata`.\n\n| case | when | then | from | test |\n|---|---|---|---|---|\n")
	n := 0
	for _, c := range conformanceCases {
		result := "none: " + c.none
		if c.none == "" {
			n++
			slices.Sort(by[c.id])
			result = "passed: `" + strings.Join(by[c.id], "`, `") + "`"
			if failed[c.id] || len(by[c.id]) == 0 {
				result = "FAILED or not played"
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", c.id, c.asks, c.wants, c.source, result)
	}
	fmt.Fprintf(&b, "\n%d cases, %d of them played.\n", len(conformanceCases), n)
	if err := os.WriteFile(conformancePage, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
