package control_test

import (
	"strings"
	"testing"
	"time"

	"bootlane/internal/lane"
)

// profiled is a rig whose configuration asks for hardware, and a host that must have it.
func profiled(t *testing.T, p lane.Profile) *rig {
	r := inspecting(t, lane.ThenPowerOff)
	r.Profiles = map[string]lane.Profile{"big": p, "others": {Roles: []string{"storage"}, CPUs: 1 << 20}}
	h := spec("node1")
	h.Role = "worker"
	r.enrol(h)
	return r
}

// unfit returns what the preflight of node1 says of profiles.
func (r *rig) unfit() (out []string) {
	p, err := r.Preflight(r.t.Context(), lane.Inspection{Hosts: []lane.HostID{"node1"}})
	r.must(err)
	for _, problem := range p.Hosts[0].Problems {
		if !strings.HasPrefix(problem.Field, "profiles.") {
			r.t.Errorf("another problem: %s", problem)
		}
		out = append(out, problem.String())
	}
	return out
}

// inspect has node1 looked at.
func (r *rig) inspect(hw lane.Hardware) {
	r.t.Helper()
	_, err := r.Inspect(r.t.Context(), "node1", time.Hour, "op:t", "")
	r.must(err)
	r.told(r.look(loaderFacts()), hw, lane.ThenPowerOff)
}

// TestProfilePreflight: a host whose last inspection does not fit is refused, with all that it lacks.
func TestProfilePreflight(t *testing.T) {
	r := profiled(t, lane.Profile{Bundles: []string{"image"}, CPUs: 8, NICs: []lane.NICNeed{{Count: 2}}})
	if got := r.unfit(); len(got) != 0 {
		t.Errorf("nobody looked at it yet, and it is refused: %q", got)
	}
	hw := hardware(lane.Disk{Name: "vda", Serial: "D1", SizeBytes: 1e9})
	hw.CPUs = 4
	r.inspect(hw)
	got := r.unfit()
	if len(got) != 2 || !strings.Contains(got[0], "profiles.big: it must have 8 CPUs, and has 4 (looked at 2026-05-04 ") || !strings.Contains(got[1], "2 NICs, and has 1; seen: eth0") {
		t.Errorf("%q", got)
	}
	if _, err := r.Provision(t.Context(), "node1", lane.Provisioning{By: "op:t"}); lane.CodeOf(err) != lane.Refused {
		t.Errorf("it is provisioned all the same: %v", err)
	}
	hw.CPUs, hw.NICs = 8, append(hw.NICs, lane.NIC{Name: "eth1", MAC: "52:54:00:00:00:0f"})
	r.inspect(hw)
	if got := r.unfit(); len(got) != 0 {
		t.Errorf("it fits, and is refused: %q", got)
	}
	// Another machine that says it has this one's serial number is not believed.
	f, other := strange(9)
	ticket := r.look(f)
	other.Serial = "S1"
	r.told(ticket, other, lane.ThenPowerOff)
	if got := r.unfit(); len(got) != 0 {
		t.Errorf("by the word of another machine: %q", got)
	}
}

// TestProfileInspected: where a profile wants it, a host that nobody looked at is refused.
func TestProfileInspected(t *testing.T) {
	r := profiled(t, lane.Profile{Roles: []string{"worker"}, Inspected: true})
	if got := r.unfit(); len(got) != 1 || !strings.Contains(got[0], "no agent looked at the machine: `bootlane host inspect node1`") {
		t.Errorf("%q", got)
	}
	r.inspect(hardware())
	if got := r.unfit(); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

// TestProfileOrder: what the agent finds when it would write is what counts; the run ends before a disk is opened.
func TestProfileOrder(t *testing.T) {
	r := profiled(t, lane.Profile{Roles: []string{"worker"}, CPUs: 8, MemoryGB: 64})
	h := r.provision("node1", lane.Provisioning{})
	r.script(lane.Install)
	r.must(r.report(h, lane.StageKernel, 1, lane.StatusOK))
	hw := hardware(lane.Disk{Name: "vda", Serial: "D1", SizeBytes: 1e9})
	hw.CPUs, hw.MemoryBytes = 4, 8e9
	o, err := r.Order(t.Context(), h.Run.Capability, hw, installerFacts())
	r.must(err)
	if o.Action != lane.Hold || o.Reason != lane.HardwareMismatch || o.Image != nil || !strings.Contains(o.Detail, "8 CPUs, and has 4; profile big: it must have 64 GB of memory, and has 8.0 GB") {
		t.Errorf("%+v", o)
	}
	if h := r.host("node1"); h.State != lane.StateFailed || h.Run.Open {
		t.Errorf("%s, open %v", h.State, h.Run.Open)
	}
	if v, err := r.Why(t.Context(), "node1"); err != nil || v.Rule != string(lane.HardwareMismatch) || !strings.Contains(v.Next, "`profiles`") {
		t.Errorf("%+v, %v", v, err)
	}
	h = r.provision("node1", lane.Provisioning{})
	r.script(lane.Install)
	hw.CPUs, hw.MemoryBytes = 8, 64e9
	if o, err := r.Order(t.Context(), h.Run.Capability, hw, installerFacts()); err != nil || o.Action != lane.Install {
		t.Errorf("%+v, %v", o, err)
	}
}
