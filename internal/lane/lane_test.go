package lane

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
)

func TestError(t *testing.T) {
	cause := errors.New("disk full")
	err := fmt.Errorf("store: %w", &Error{Code: Unavailable, Message: "write it", Problems: []string{"one", "two"}, Err: cause})
	if CodeOf(err) != Unavailable || !errors.Is(err, cause) {
		t.Errorf("code %q, cause %v", CodeOf(err), errors.Is(err, cause))
	}
	if want := "store: write it\n  - one\n  - two: disk full"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	if CodeOf(cause) != "" || CodeOf(nil) != "" {
		t.Error("an error of ours is classed")
	}
	if e := Errorf(Refused, "no %s", "boot"); e.Error() != "no boot" || CodeOf(e) != Refused {
		t.Error(e)
	}
}

func TestActions(t *testing.T) {
	for _, a := range Actions() {
		b, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		var back Action
		if err := json.Unmarshal(b, &back); err != nil || back != a {
			t.Errorf("%s comes back as %s, %v", b, back, err)
		}
	}
	if s := Action(200).String(); s != "hold" {
		t.Errorf("an unknown action is called %q", s)
	}
	// Whatever cannot be read holds, also where something else stood before.
	for _, s := range []string{`"Install"`, `""`, `"reinstall"`, `"install "`} {
		a := Install
		if err := json.Unmarshal([]byte(s), &a); err == nil || a != Hold {
			t.Errorf("%s reads as %s, %v", s, a, err)
		}
	}
}

func TestReasonsAreDocumented(t *testing.T) {
	var seen []Reason
	for _, r := range Reasons() {
		if slices.Contains(seen, r.Reason) || r.When == "" || r.Next == "" || !slices.Contains(Actions(), r.Action) {
			t.Errorf("%+v", r)
		}
		if r.Action == Install && r.Reason != Granted {
			t.Errorf("%s installs: only one reason may", r.Reason)
		}
		seen = append(seen, r.Reason)
	}
}

func TestStages(t *testing.T) {
	all := Stages()
	for i, a := range all {
		if !a.Known() {
			t.Errorf("%s is not known", a)
		}
		for j, b := range all {
			if a.AtLeast(b) != (i >= j) {
				t.Errorf("%s at least %s: %v", a, b, a.AtLeast(b))
			}
		}
		if Stage("dance").AtLeast(a) || Stage("").Known() {
			t.Errorf("an unknown stage is at least %s", a)
		}
	}
}

func TestBundle(t *testing.T) {
	b := Bundle{Name: "debian-12", Version: "1", Arch: X86_64}
	if b.Ref() != "debian-12-1" || !b.Fits(X86_64) || b.Fits(ARM64) || b.Fits("") {
		t.Errorf("%s fits x86_64 %v, arm64 %v", b.Ref(), b.Fits(X86_64), b.Fits(ARM64))
	}
}
