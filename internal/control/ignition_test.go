package control_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bootlane/internal/bundle"
	"bootlane/internal/lane"
)

// butane writes the given file of a bundle.
func (r *rig) butane(seed string, text string, change func(*bundle.Manifest)) {
	r.t.Helper()
	r.bundle(seed, func(m *bundle.Manifest) {
		m.Name, m.Config = "given", "machine.bu"
		change(m)
		dir := filepath.Join(r.dir, m.Name)
		r.must(os.MkdirAll(dir, 0o755))
		r.must(os.WriteFile(filepath.Join(dir, "machine.bu"), []byte(text), 0o644))
	})
}

// TestIgnitionPreflight: what is wrong with the given file is told before anything is granted, with its place.
func TestIgnitionPreflight(t *testing.T) {
	for text, want := range map[string]string{
		"storage: {files: [{path: /etc/role, mode: 0644, contents: {inline: {{yaml .Role}}}}]}\n":       "",
		"storage:\n  files:\n    - path: a\n":                                                           "bundle.config: machine.bu:5:",
		"storage:\n  files:\n    - {path: /a, mode: 0644, contents: {source: \"https://m/{{.ID}}\"}}\n": "source-checksum-missing",
	} {
		r := newRig(t)
		r.butane(lane.SeedIgnition, "variant: flatcar\nversion: 1.1.0\n"+text, func(*bundle.Manifest) {})
		h := spec("node1")
		h.Bundle = "given-1"
		r.enrol(h)
		p, err := r.Preflight(t.Context(), lane.Inspection{Hosts: []lane.HostID{"node1"}})
		r.must(err)
		var said []string
		for _, x := range p.Hosts[0].Problems {
			said = append(said, x.String())
		}
		if got := strings.Join(said, "\n"); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s\nis told\n%s\nwant %q", text, got, want)
		}
	}
}

// TestIgnitionOrder: the agent is told the partition, if it knows of such.
func TestIgnitionOrder(t *testing.T) {
	for _, knows := range []bool{true, false} {
		r := newRig(t)
		r.butane(lane.SeedImage, "variant: fcos\nversion: 1.5.0\n", func(m *bundle.Manifest) {
			m.OS = "fedora-coreos"
			m.Image.Config, m.Image.ConfigLabel = lane.ConfigIgnition, "boot"
		})
		h := spec("node1")
		h.Bundle = "given-1"
		r.enrol(h)
		h = r.provision("node1", lane.Provisioning{})
		r.script(lane.Install)
		hw := hardware(lane.Disk{Name: "vda", Serial: "D1", SizeBytes: 1e9})
		hw.Parts = knows
		o, err := r.Order(t.Context(), h.Run.Capability, hw, installerFacts())
		r.must(err)
		if knows && (o.Action != lane.Install || len(o.Files) != 1 || o.Files[0].Path != "/ignition/config.ign" || o.Files[0].PartLabel != "boot") {
			t.Errorf("%+v", o)
		}
		if !knows && (o.Action == lane.Install || !strings.Contains(o.Detail, "root file system only")) {
			t.Errorf("an agent of before: %+v", o)
		}
	}
}
