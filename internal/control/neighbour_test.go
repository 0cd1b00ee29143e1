package control_test

import (
	"strings"
	"testing"
	"time"

	"bootlane/internal/lane"
)

// TestNeighbours: another server is evidence of its network, and of the machine that
// it takes from us; `why` names it as long as our loader was not reached.
func TestNeighbours(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("n1"))
	r.provision("n1", lane.Provisioning{})
	r.pass(time.Second)
	stray := lane.Responder{Interface: "eno2", Server: "10.0.0.9", MAC: "52:54:00:00:00:99", Gives: true, PXE: true, BootFile: "stray\n.efi"}
	r.Foreign(stray)
	r.Foreign(stray)
	r.Lost(mac1, "eno2", "10.0.0.9")
	r.Lost("52:54:00:00:00:77", "eno2", "10.0.0.9")
	for subject, want := range map[string]string{
		"net:eno2":              `another DHCP server answers: 10.0.0.9 (52:54:00:00:00:99), gives addresses and answers PXE clients, boot file "stray\n.efi"`,
		"n1":                    "it took the offer of another DHCP server, 10.0.0.9, on eno2",
		"mac:52:54:00:00:00:77": "it took the offer of another DHCP server, 10.0.0.9, on eno2",
	} {
		events, err := r.Events(t.Context(), subject, -1, 10)
		r.must(err)
		if len(events) == 0 {
			t.Fatalf("%s: nothing on record", subject)
		}
		if e := events[len(events)-1]; e.Kind != lane.KindForeign || e.Message != want || e.Name != "10.0.0.9" || subject == "net:eno2" && (e.Count != 2 || e.Action != lane.TwoPXEServers) {
			t.Errorf("%s: %+v", subject, e)
		}
	}
	v, err := r.Why(t.Context(), "n1")
	r.must(err)
	if v.Rule != "other-server" || !strings.Contains(v.Because, "10.0.0.9") {
		t.Errorf("why: %+v", v)
	}
	if hosts, err := r.Unknown(t.Context()); err != nil || len(hosts) != 1 {
		t.Errorf("a network is listed as a machine: %+v, %v", hosts, err)
	}
}
