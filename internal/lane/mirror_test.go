package lane

import (
	"strings"
	"testing"
	"time"
)

// doubled is a record with a second disk.
func doubled() Host {
	h := known()
	h.Disk, h.Mirror = DiskSelector{Serial: "D1"}, DiskSelector{Serial: "D2", SizeGB: 480}
	return h
}

func TestMirrorSelector(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*Host)
		want []string
	}{
		{"two disks", func(*Host) {}, nil},
		{"a kernel name", func(h *Host) { h.Mirror.ByID = "sdb" }, []string{"mirror.byID: \"sdb\" is a kernel name"}},
		{"a size alone", func(h *Host) { h.Mirror = DiskSelector{SizeGB: 480} }, []string{"mirror.sizeGB: a size alone", "mirror: no disk selector"}},
		{"the same disk", func(h *Host) { h.Mirror.Serial = "D1" }, []string{"mirror: it is the same disk as `disk`"}},
		{"the same WWN", func(h *Host) { h.Disk.WWN, h.Mirror.WWN = "0x5002538e00000001", "0x5002538e00000001" }, []string{"mirror: it is the same disk"}},
		{"a mirror of nothing", func(h *Host) { h.Disk = DiskSelector{} }, nil}, // no disk: the preflight says it
	} {
		t.Run(c.name, func(t *testing.T) {
			h := doubled()
			c.edit(&h)
			problemsAre(t, h.Validate(), c.want)
		})
	}
}

// TestMirrorGrant: a grant names both disks and says that both are erased, and ends when the record comes to
// mean another.
func TestMirrorGrant(t *testing.T) {
	now := time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)
	h, _ := Enrol(doubled(), "alice", now)
	b := Bundle{Name: "b", Version: "1", Digest: "sha256:1"}
	armed, e, err := Arm(h, b, Grant{Run: "r-1", Capability: strings.Repeat("c", 32), By: "alice", For: time.Hour, Boots: 2}, now)
	if err != nil || armed.Run.Mirror != h.Mirror || !strings.Contains(e.Message, "on the disk serial=D1 and its mirror serial=D2 sizeGB=480 until") || !strings.Contains(e.Message, "; both disks are erased") {
		t.Fatalf("%v: %+v %s", err, armed.Run, e.Message)
	}
	armed.State, armed.Resume = StateQuarantine, StateProvisioning // where an open run's record may be corrected
	for name, edit := range map[string]func(*Host){"another": func(h *Host) { h.Mirror.Serial = "D3" }, "none": func(h *Host) { h.Mirror = DiskSelector{} }} {
		spec := doubled()
		edit(&spec)
		next, e, changed, err := Update(armed, spec, "alice", now)
		if err != nil || !changed || next.Run.Open || !strings.Contains(e.Message, "mirror: serial=D2 sizeGB=480 -> ") {
			t.Errorf("%s: %v, %v, open %v: %s", name, changed, err, next.Run.Open, e.Message)
		}
	}
	if next, _, changed, err := Update(armed, doubled(), "alice", now); changed || err != nil || !next.Run.Open {
		t.Errorf("the same is a change: %v", err)
	}
	if got := known(); (Run{Disk: got.Disk}).Disks() != got.Disk.String() {
		t.Error("one disk has a mirror")
	}
}
