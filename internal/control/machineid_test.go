package control_test

import (
	"strings"
	"testing"

	"bootlane/internal/lane"
)

// TestMachineIDOfAnother: an image that carries a machine-id is noticed at its second machine.
func TestMachineIDOfAnother(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"), other("node2"))
	const id = "0123456789abcdef0123456789abcdef"
	run := func(host lane.HostID, f lane.Facts, id string) lane.Host {
		t.Helper()
		h := r.provision(host, lane.Provisioning{Reinstall: true})
		if _, _, err := r.Script(t.Context(), f, false); err != nil {
			t.Fatal(err)
		}
		for _, stage := range []lane.Stage{lane.StageKernel, lane.StageInstaller, lane.StageDiskWritten, lane.StageFirstBoot} {
			r.must(r.Report(t.Context(), h.Run.Capability, lane.Report{Stage: stage, Seq: 1, Status: lane.StatusOK, Facts: lane.Facts{UUID: f.UUID, MAC: f.MAC}}))
		}
		r.must(r.Report(t.Context(), h.Run.Capability, lane.Report{Stage: lane.StageReady, Seq: 1, Status: lane.StatusOK, Facts: lane.Facts{UUID: f.UUID, MAC: f.MAC},
			Checks: []lane.Check{{Name: lane.CheckMachineID, Status: lane.CheckOK, Actual: id}}}))
		return r.host(host)
	}
	first, second := loaderFacts(), loaderFacts()
	second.UUID, second.MAC, second.MACs, second.Serial = other("").Identity.UUID, mac2, []lane.MAC{mac2}, "S2"
	if h := run("node1", first, id); h.State != lane.StateInstalled || h.Run.MachineID != id {
		t.Fatalf("the first: %s %q", h.State, h.Run.MachineID)
	}
	h := run("node2", second, id)
	if h.State != lane.StateFailed || !strings.Contains(h.Note, id+", which is that of node1 too") {
		t.Fatalf("the second: %s %q", h.State, h.Note)
	}
	if v, err := r.Why(t.Context(), "node2"); err != nil || v.Rule != "checks-failed" || !strings.Contains(v.Because, "as node1 has it") {
		t.Errorf("why: %+v, %v", v, err)
	}
	// Installed again each has one of its own, or the same as before: that is no other's.
	if h := run("node2", second, strings.Replace(id, "0", "f", 1)); h.State != lane.StateInstalled {
		t.Errorf("with one of its own: %s %q", h.State, h.Note)
	}
	if h := run("node1", first, id); h.State != lane.StateInstalled {
		t.Errorf("again: %s %q", h.State, h.Note)
	}
	_, err := r.Retire(t.Context(), "node1", "op:t", "sold")
	r.must(err)
	if h := run("node2", second, id); h.State != lane.StateInstalled {
		t.Errorf("of a retired machine: %s %q", h.State, h.Note)
	}
}
