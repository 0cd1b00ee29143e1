package control_test

import (
	"strings"
	"testing"

	"bootlane/internal/lane"
)

// TestWipeOrder: the disks to clear are looked for as the root disk is, and only an agent that knows of them is told.
func TestWipeOrder(t *testing.T) {
	root, data := lane.Disk{Name: "vda", Serial: "D1", SizeBytes: 1e9}, lane.Disk{Name: "vdb", Serial: "DATA", SizeBytes: 1e9}
	for name, c := range map[string]struct {
		disks []lane.Disk
		old   bool
		want  string // words of the order
	}{
		"both there":   {[]lane.Disk{root, data}, false, "to vda, clear vdb"},
		"one missing":  {[]lane.Disk{root}, false, "wipe[0]: no disk matches serial=DATA"},
		"two match":    {[]lane.Disk{root, data, data}, false, "2 disks match"},
		"an old agent": {[]lane.Disk{root, data}, true, "knows nothing of disks to clear"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			h := spec("node1")
			h.Wipe = []lane.DiskSelector{{Serial: "DATA"}}
			r.enrol(h)
			h = r.provision("node1", lane.Provisioning{})
			if e := r.last("node1", lane.KindArmed); !strings.Contains(e.Message, "(and clears serial=DATA)") {
				t.Errorf("armed: %s", e.Message)
			}
			if c, err := r.WhatIfAll(t.Context()); err != nil || len(c.Erased) != 1 || len(c.Erased[0].Wipe) != 1 || c.Erased[0].Wipe[0].Serial != "DATA" {
				t.Errorf("%+v, %v", c, err)
			}
			r.script(lane.Install)
			hw := hardware(c.disks...)
			hw.Wipes = !c.old
			o, err := r.Order(t.Context(), h.Run.Capability, hw, installerFacts())
			r.must(err)
			good := name == "both there"
			if (o.Action == lane.Install) != good || (len(o.Wipe) == 1) != good || !strings.Contains(o.Detail, c.want) || !good && (o.Reason != lane.DiskMismatch || r.host("node1").State != lane.StateFailed) {
				t.Errorf("%+v", o)
			}
		})
	}
}
