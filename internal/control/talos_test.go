package control_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"bootlane/internal/control"
	"bootlane/internal/lane"
)

// workerYAML is a machine configuration as talosctl makes them.
const workerYAML = `version: v1alpha1
machine:
  type: worker
  token: abcdef.0123456789abcdef
  ca: {crt: LS0tLS1CRUdJTg==, key: ""}
  install: {disk: /dev/sda, image: "ghcr.io/siderolabs/installer:v1.12.0", wipe: false}
cluster:
  controlPlane: {endpoint: "https://10.0.0.9:6443"}
  token: abcdef.0123456789abcdef
  ca: {crt: LS0tLS1CRUdJTg==, key: ""}
`

// talosPath is where a machine of Talos asks.
func talosPath(h lane.Host) lane.RunPath {
	return lane.RunPath{Capability: h.Run.Capability, Asset: lane.AssetSeed, Name: "config.yaml"}
}

// asking is what the machine of spec says of itself when it asks.
func asking() lane.Facts {
	f := installerFacts()
	f.UUID, f.MAC, f.Serial = uuid1, mac1, "S1"
	return f
}

// granted arms a run of Talos, and has its script served.
func (r *rig) granted() lane.Host {
	r.t.Helper()
	h := spec("node1")
	h.Bundle = "talos-1"
	r.enrol(h)
	h = r.provision("node1", lane.Provisioning{})
	r.script(lane.Install)
	return r.host("node1")
}

// TestTalosGives: the configuration is given to the machine that says who it is, twice if the answer was lost, and the
// grant is spent with it.
func TestTalosGives(t *testing.T) {
	r := newRig(t)
	h := r.granted()
	doc, err := r.Seed(t.Context(), talosPath(h), asking())
	r.must(err)
	if text := string(doc.Body); !strings.Contains(text, "hostname: node1\n") || !strings.Contains(text, "serial: D1}") || !strings.Contains(text, "wipe: true}") || strings.Contains(text, "/dev/sda") {
		t.Errorf("%s", text)
	}
	h = r.host("node1")
	if h.Run.Stage != lane.StageInstaller || h.Run.Delivered.IsZero() || h.State != lane.StateProvisioning {
		t.Errorf("%+v", h.Run)
	}
	if e := r.last("node1", lane.KindStage); !strings.Contains(e.Message, "Talos writes the disk by itself") {
		t.Errorf("%+v", e)
	}
	r.pass(10 * time.Second)
	if _, err := r.Seed(t.Context(), talosPath(h), asking()); err != nil {
		t.Errorf("asked again, after a lost answer: %v", err)
	}
	r.script(lane.LocalBoot) // a second network boot is its disk's
	for _, rep := range []lane.Report{{Run: h.Run.ID, Stage: lane.StageDiskWritten, Seq: 1, Status: lane.StatusOK, Facts: asking()}, {Run: h.Run.ID, Stage: lane.StageKernel, Seq: 1, Status: lane.StatusFailed, Facts: asking()}} {
		if err := r.Report(t.Context(), h.Run.Capability, rep); lane.CodeOf(err) != lane.Refused {
			t.Errorf("%s is taken, and Talos reports nothing: %v", rep.Stage, err)
		}
	}
	r.pass(6 * time.Minute)
	if _, err := r.Seed(t.Context(), talosPath(h), asking()); lane.CodeOf(err) != lane.Refused || !strings.Contains(err.Error(), string(lane.ConfigDelivered)) {
		t.Errorf("long after: %v", err)
	}
	if h = r.host("node1"); h.State != lane.StateProvisioning || !h.Run.Open {
		t.Errorf("the run is at an end: %s %s", h.State, h.Note)
	}
	if _, err := r.Confirm(t.Context(), "node1", "op:t", "talosctl health"); err != nil {
		t.Fatal(err)
	}
	if h = r.host("node1"); h.State != lane.StateInstalled || !h.Run.Succeeded() || r.last("node1", lane.KindInstalled).Message != "talosctl health" {
		t.Errorf("%s: %+v", h.State, h.Run)
	}
}

// TestTalosRefuses: who is another machine, or does not say who it is, gets nothing, and that is an alarm or a quarantine.
func TestTalosRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		edit  func(*lane.Facts)
		kind  lane.Kind
		state lane.State
	}{
		"another UUID":          {func(f *lane.Facts) { f.UUID = "99999999-8888-4777-8666-555555555555" }, lane.KindAlarm, lane.StateQuarantine},
		"another serial number": {func(f *lane.Facts) { f.Serial = "S9" }, lane.KindAlarm, lane.StateQuarantine},
		"another NIC":           {func(f *lane.Facts) { f.MAC = mac2 }, lane.KindAlarm, lane.StateQuarantine},
		"no UUID":               {func(f *lane.Facts) { f.UUID = "" }, lane.KindAlarm, lane.StateProvisioning},
		"no serial number":      {func(f *lane.Facts) { f.Serial = "" }, lane.KindAlarm, lane.StateProvisioning},
		"nothing":               {func(f *lane.Facts) { f.UUID, f.MAC, f.Serial = "", "", "" }, lane.KindAlarm, lane.StateProvisioning},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			h := r.granted()
			f := asking()
			c.edit(&f)
			if doc, err := r.Seed(t.Context(), talosPath(h), f); lane.CodeOf(err) != lane.Refused || len(doc.Body) > 0 && strings.Contains(string(doc.Body), "machine") {
				t.Errorf("given: %v\n%s", err, doc.Body)
			}
			h = r.host("node1")
			if !h.Run.Delivered.IsZero() || h.State != c.state {
				t.Errorf("%s: %+v", h.State, h.Run)
			}
			if e := r.last("node1", c.kind); e.Kind != c.kind || !strings.Contains(e.Message, "configuration") {
				t.Errorf("%+v", e)
			}
		})
	}
}

// TestTalosOtherNIC: Talos tells the NIC that was up first. One that the boot loader listed is the machine's.
func TestTalosOtherNIC(t *testing.T) {
	r := newRig(t)
	h := spec("node1")
	h.Bundle = "talos-1"
	r.enrol(h)
	h = r.provision("node1", lane.Provisioning{})
	f := loaderFacts()
	f.MACs = append(f.MACs, mac1, "52:54:00:00:00:77")
	if _, d, err := r.Script(t.Context(), f, false); err != nil || d.Action != lane.Install {
		t.Fatal(d, err)
	}
	said := asking()
	said.MAC = "52:54:00:00:00:77"
	if _, err := r.Seed(t.Context(), talosPath(h), said); err != nil {
		t.Error(err)
	}
}

// TestTalosConfirm: an operator's word counts where nothing else can be known, and nowhere else; it mends a run
// whose deadline passed before anybody gave it, and until then nobody erases the disk by the way.
func TestTalosConfirm(t *testing.T) {
	r := newRig(t)
	h := r.granted()
	if _, err := r.Confirm(t.Context(), "node1", "op:t", "x"); lane.CodeOf(err) != lane.Refused || !strings.Contains(err.Error(), "was given no configuration of Talos") {
		t.Errorf("before it was given: %v", err)
	}
	if _, err := r.Seed(t.Context(), talosPath(h), asking()); err != nil {
		t.Fatal(err)
	}
	r.pass(48 * time.Hour)
	r.must(r.Expire(t.Context()))
	if h := r.host("node1"); h.State != lane.StateFailed {
		t.Errorf("the deadline: %s", h.State)
	}
	if _, err := r.Provision(t.Context(), "node1", lane.Provisioning{By: "op:t"}); err == nil || !strings.Contains(err.Error(), "may run: `bootlane host confirm` it, or give --reinstall") {
		t.Errorf("provisioned anew: %v", err)
	}
	if _, err := r.Confirm(t.Context(), "node1", "op:t", "it runs"); err != nil || r.host("node1").State != lane.StateInstalled {
		t.Errorf("%v, %s", err, r.host("node1").State)
	}
	if _, err := r.Confirm(t.Context(), "node1", "op:t", "again"); lane.CodeOf(err) != lane.Refused || !strings.Contains(err.Error(), "no open run, and none that failed") {
		t.Errorf("of a run that succeeded: %v", err)
	}
}

// TestTalosRendered: what `render` shows has no run's secret in it.
func TestTalosRendered(t *testing.T) {
	r := newRig(t)
	h := r.granted()
	files, err := r.Render(t.Context(), "node1")
	r.must(err)
	text, err := json.Marshal(files)
	r.must(err)
	if !strings.Contains(string(text), "http/seed/node1/config.yaml") || strings.Contains(string(text), h.Run.Capability) {
		t.Errorf("%s", text)
	}
}

// TestTalosNode: a machine whose cluster is known is installed once its Node is Ready, and is it; after a restart of the
// server too.
func TestTalosNode(t *testing.T) {
	r, s := joinRig(t)
	h := r.provision("node1", lane.Provisioning{Bundle: "talos-1"})
	r.script(lane.Install)
	r.tend() // what was left to do at the start is looked for once
	if _, err := r.Seed(t.Context(), talosPath(h), asking()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		change func()
		want   lane.State
	}{
		{func() {}, lane.StateProvisioning},
		{func() { s.SetNode("node1", string(uuid1), false) }, lane.StateProvisioning},
		{func() { s.SetNode("node1", "99999999-8888-4777-8666-555555555555", true) }, lane.StateProvisioning},
		{func() { s.Down(true) }, lane.StateProvisioning},
		{func() { s.Down(false); s.SetNode("node1", string(uuid1), true); r.Control = control.New(r.Config) }, lane.StateInstalled},
	} {
		c.change()
		r.pass(11 * time.Second)
		r.tend()
		if h = r.host("node1"); h.State != c.want {
			t.Fatalf("%s, want %s: %q", h.State, c.want, r.said(lane.KindCluster))
		}
	}
	if e := r.last("node1", lane.KindInstalled); !h.Run.Succeeded() || !strings.Contains(e.Message, "the Node node1 of the cluster prod is Ready") {
		t.Errorf("%+v, %+v", h.Run, e)
	}
	if n := len(r.said(lane.KindCluster)); n > 2 {
		t.Errorf("%d lines about a Node that was not Ready yet: %q", n, r.said(lane.KindCluster))
	}
}
