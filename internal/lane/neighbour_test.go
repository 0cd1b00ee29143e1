package lane

import (
	"strings"
	"testing"
)

func TestResponder(t *testing.T) {
	r := Responder{Server: "10.0.0.9", MAC: "52:54:00:00:00:09", PXE: true}
	if r.Finding() != TwoPXEServers || !strings.Contains(r.String(), "10.0.0.9 (52:54:00:00:00:09)") {
		t.Errorf("%q: %s", r.Finding(), r)
	}
	if r.PXE, r.Gives = false, true; r.Finding() != "" {
		t.Errorf("a server that only gives addresses is found fault with: %q", r.Finding())
	}
}
