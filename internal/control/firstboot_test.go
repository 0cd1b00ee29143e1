package control_test

import (
	"strings"
	"testing"

	"bootlane/internal/lane"
)

// TestFirstBootList: the list of the present run is told, one line of evidence has it, and what
// another run found is not told any more.
func TestFirstBootList(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	note := func(want string) {
		t.Helper()
		f, err := r.FirstBoot(t.Context(), "node1")
		r.must(err)
		if len(f.Checks) != 0 || !strings.Contains(f.Note, want) {
			t.Errorf("%+v, want %q", f, want)
		}
	}
	note("it has no run")
	h := r.provision("node1", lane.Provisioning{})
	note("has not reported yet")
	r.script(lane.Install)
	for _, s := range []lane.Stage{lane.StageKernel, lane.StageInstaller, lane.StageDiskWritten, lane.StageFirstBoot} {
		r.must(r.report(h, s, 1, lane.StatusOK))
	}
	list := []lane.Check{{Name: lane.CheckHostname, Status: lane.CheckFailed, Expected: "node1", Actual: "debian"}, {Name: lane.CheckDisk, Status: lane.CheckOK}}
	report := lane.Report{Stage: lane.StageReady, Seq: 1, Status: lane.StatusFailed, Checks: list, Facts: lane.Facts{Surface: lane.SurfaceHTTP, UUID: uuid1, MAC: mac1}}
	for range 2 { // the answer to the first was lost
		r.must(r.Report(t.Context(), h.Run.Capability, report))
	}
	f, err := r.FirstBoot(t.Context(), "node1")
	r.must(err)
	if f.Failed != 1 || len(f.Checks) != 2 || f.Checks[0] != list[0] || f.At.IsZero() || f.Run != h.Run.ID {
		t.Errorf("%+v", f)
	}
	events, err := r.Events(t.Context(), "node1", 0, 100)
	r.must(err)
	n := 0
	for _, e := range events {
		if len(e.Checks) > 0 {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d lines of evidence have the list", n)
	}
	r.provision("node1", lane.Provisioning{})
	note("has not reported yet")
	if _, err := r.FirstBoot(t.Context(), "nobody"); lane.CodeOf(err) != lane.NotFound {
		t.Error(err)
	}
}
