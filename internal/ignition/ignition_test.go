package ignition

import (
	"bytes"
	"strings"
	"testing"
)

// TestTranslate: the version of the specification is that which the text was written for, and each
// problem has its place.
func TestTranslate(t *testing.T) {
	for text, want := range map[string]string{
		"variant: flatcar\nversion: 1.0.0\n":         `"version":"3.3.0"`,
		"variant: flatcar\nversion: 1.1.0\n":         `"version":"3.4.0"`,
		"version: 1.5.0\nvariant: fcos\n":            `"version":"3.4.0"`,
		"variant: fcos\nversion: 1.6.0\n":            `"version":"3.5.0"`,
		`{"ignition": {"version": "3.1.0"}}`:         `"version": "3.1.0"`,
		"  {\"ignition\": {\"version\": \"3.5.0\"}}": `"version": "3.5.0"`,
	} {
		if got, problems := Translate([]byte(text)); len(problems) > 0 || !strings.Contains(string(got), want) {
			t.Errorf("%q: %s, %v", text, got, problems)
		}
	}
	for text, want := range map[string]string{
		"": "1:1: ", "a: b": `1:1: variant "" of version ""`, "variant: flatcar\nversion: 1.1.0\nx: 1\n": "3:1: x: unused key x", "variant: [flatcar]\nversion: 1\n": "is not read",
		"variant: flatcar\nversion: 1.1.0\nstorage: 5\n": "3:1: ", "variant: openshift\nversion: 4.19.0\n": "is not read", `{"ignition": {"version": "2.3.0"}}`: "1:1: ", "{": "1:", "\tx: 1": "1:1: ", "variant: flatcar\nversion: 1.1.0\nx: &a [*a]\n": "3:8: an alias",
		"{\"ignition\": {\"version\": \"3.4.0\"},\n\"Storage\": {}}": "2:1: Storage: unused key Storage",
	} {
		got, problems := Translate([]byte(text))
		if got != nil || len(problems) == 0 || !strings.Contains(problems[0].String(), want) {
			t.Errorf("%q: %s, %v, want %s", text, got, problems, want)
		}
	}
	if _, problems := Translate([]byte("variant: fcos\nversion: 1.5.0\n"), Flatcar); len(problems) != 1 || strings.Contains(problems[0].Message, "one of fcos") {
		t.Errorf("a variant that is not asked for: %v", problems)
	}
}

// FuzzTranslate: whatever the text is, there is an answer, the same twice; what comes out is taken by Ignition.
func FuzzTranslate(f *testing.F) {
	f.Add([]byte("variant: flatcar\nversion: 1.1.0\nstorage: {files: [{path: /a, mode: 0644, contents: {inline: x}}]}\n"))
	f.Add([]byte(`{"ignition": {"version": "3.4.0"}, "systemd": {"units": [{"name": "a.service"}]}}`))
	f.Add([]byte("variant: fcos\nversion: 1.5.0\nboot_device: {mirror: {devices: [/dev/a, /dev/b]}}\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, problems := Translate(text)
		if (got == nil) == (len(problems) == 0) && len(text) > 0 {
			t.Fatalf("%q: %s, %v", text, got, problems)
		}
		again, _ := Translate(text)
		if !bytes.Equal(got, again) {
			t.Fatalf("two answers:\n%s\n%s", got, again)
		}
		for _, p := range problems {
			if p.Line < 1 || p.Column < 1 || p.Message == "" {
				t.Fatalf("%+v", p)
			}
		}
		if got != nil {
			if p := Check(got); len(p) > 0 {
				t.Fatalf("%q becomes %s, which is refused: %v", text, got, p)
			}
		}
	})
}
