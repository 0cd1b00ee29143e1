package shell

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// texts are what a shell reads, and what none does.
func texts() map[string]bool {
	return map[string]bool{
		"":         true,
		"echo a\n": true,
		"if ((test -e /a) || (test -e /b)); then echo c; fi\n": true,
		"((a); b)\n":              true,
		"echo $((1 + (2 * 3)))\n": true,
		"x=$( (cd /; pwd) )\n":    true,
		"cat <<'E'\n$( ((\nE\n":   true,
		"if true; then\n":         false,
		"echo (\n":                false,
		"((a); b\n":               false,
		"case x in\n":             false,
		"echo 'a\n":               false,
	}
}

// TestCheck holds the parser against bash itself.
func TestCheck(t *testing.T) {
	for text, want := range texts() {
		cmd := exec.Command("bash", "-n")
		cmd.Stdin = strings.NewReader(text)
		if reads := cmd.Run() == nil; reads != want {
			t.Errorf("bash reads %q: %v", text, reads)
		}
		if f := Check(text); (f == nil) != want {
			t.Errorf("%q: %+v, want that it can be read: %v", text, f, want)
		}
	}
	if f := Check("echo a\n  echo )\n"); f == nil || f.Line != 2 || f.Column != 8 || f.Message == "" {
		t.Errorf("the place is %+v", f)
	}
}

func FuzzCheck(f *testing.F) {
	for text := range texts() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if fault := Check(text); fault != nil && (fault.Line < 1 || fault.Column < 1) {
			t.Errorf("%+v", fault)
		}
	})
}

// TestExpanded holds the places against what a shell really prints.
func TestExpanded(t *testing.T) {
	hash := regexp.MustCompile(`\$6\$[a-z]+\$`)
	for text, want := range map[string]bool{
		"echo 'a:$6$salt$hash'\n":            false,
		"echo \"a:$6$salt$hash\"\n":          true,
		"echo a:$6$salt$hash\n":              true,
		"echo \"a:\\$6\\$salt\\$hash\"\n":    false,
		"cat <<END\na:$6$salt$hash\nEND\n":   true,
		"cat <<'END'\na:$6$salt$hash\nEND\n": false,
		"cat <<\\END\na:$6$salt$hash\nEND\n": false,
	} {
		out, err := exec.Command("sh", "-c", text).Output()
		if err != nil {
			t.Fatal(err)
		}
		if changed := string(out) != "a:$6$salt$hash\n"; changed != want {
			t.Errorf("sh makes %q of %q", out, text)
		}
		if got := Expanded(text, hash); len(got) > 0 != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	if got := Expanded("\n  x=\"é$6$salt$hash\"\n", hash); len(got) != 1 || got[0].Line != 2 || got[0].Column != 8 {
		t.Errorf("the place is %v", got)
	}
}

// TestUnreported: what ends a shell in silence does so at the top of the script, without a trap.
func TestUnreported(t *testing.T) {
	for text, want := range map[string]bool{
		"set -e\n": true, "true\nset -eu\n": true, "set -u\n": false, "set +e\n": false, "set -e; trap 'x' EXIT\n": false, "trap x EXIT\nset -e\n": false,
		"(set -e; false) || x\n": false, "cat <<E\nset -e\nE\n": false, "f() { set -e; }\n": false, "if (\n": false,
		"set -euo pipefail\n": true, "set -o errexit\n": true, "set -u -o errexit\n": true, "set -o pipefail\n": false, "#!/bin/sh -e\ntrue\n": true, "#!/bin/sh -x\ntrue\n": false, "f() { trap x EXIT; }\nset -e\nf\n": false,
	} {
		if got := Unreported(text); (got != nil) != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
