package app

import "testing"

// TestRoles: what a network's mode says to the observer and to operators.
func TestRoles(t *testing.T) {
	for _, c := range []struct {
		mode            string
		owned, external bool
	}{{modeOwn, true, false}, {modeProxy, false, false}, {modeExternal, false, true}} {
		cfg := Config{Networks: []Network{{Interface: "eth0", Subnet: "10.9.9.0/24", Mode: c.mode}}}
		// Elsewhere than in an owned network, a machine rightly takes another server's offer.
		if got := cfg.observed(); len(got) != 1 || got[0].Owned != c.owned {
			t.Errorf("%s: observed as %+v", c.mode, got)
		}
		if got := cfg.external(); (len(got) == 1) != c.external {
			t.Errorf("%s: external are %+v", c.mode, got)
		}
	}
	for addr, private := range map[string]bool{"127.0.0.1:8070": true, "[::1]:8070": true, "0.0.0.0:8070": false, "[::]:8070": false, "10.0.0.1:8070": false} {
		if cfg := (Config{Listen: Listen{Operators: addr}}); (cfg.exposed() == "") != private {
			t.Errorf("%s: private is %v", addr, !private)
		}
	}
}
