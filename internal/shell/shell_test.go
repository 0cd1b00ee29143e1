package shell

import (
	"os/exec"
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
