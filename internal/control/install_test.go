package control_test

import (
	"slices"
	"strings"
	"testing"

	"bootlane/internal/control"
	"bootlane/internal/lane"
)

// roles gives the rig's configuration roles.
func (r *rig) roles() {
	r.Networks = []control.Network{{Domain: "net.example", Proxy: true}}
	r.Site.NTP, r.Site.Timezone = []string{"10.1.0.1"}, new("Europe/Berlin")
	r.Roles = map[string]lane.InstallOptions{"storage": {NTP: []string{"10.2.0.1"}, Packages: []string{"mdadm"}}, "compute": {}}
}

// TestRoleIsKnown: without roles in the configuration a role is a label; with some, it is one of them.
func TestRoleIsKnown(t *testing.T) {
	r := newRig(t)
	h := spec("node1")
	h.Role = "storag"
	r.enrol(h)
	r.provision("node1", lane.Provisioning{})
	r.script(lane.Install)
	run := r.host("node1")
	if _, err := r.Explain(t.Context(), "node1"); err != nil {
		t.Errorf("a label: %v", err)
	}

	r.roles()
	const want = `role: "storag" is not among the configured ` + "`roles`: compute, storage"
	_, problems, err := r.Import(t.Context(), []lane.Host{h}, "op:t", true)
	r.must(err)
	if len(problems) != 1 || problems[0].String() != "hosts[0]."+want {
		t.Errorf("import: %v", problems)
	}
	_, err = r.Explain(t.Context(), "node1")
	if lane.CodeOf(err) != lane.Refused || !strings.Contains(err.Error(), want) {
		t.Errorf("explain: %v", err)
	}
	// The configuration may have lost the role while a run was open.
	if _, err := r.Order(t.Context(), run.Run.Capability, hardware(lane.Disk{Name: "vda", Serial: "D1", SizeBytes: 1 << 30}), lane.Facts{}); lane.CodeOf(err) != lane.Refused || !strings.Contains(err.Error(), want) {
		t.Errorf("the machine of an open run: %v", err)
	}
	_, err = r.Cancel(t.Context(), "node1", "op:t", "")
	r.must(err)
	_, err = r.Provision(t.Context(), "node1", lane.Provisioning{By: "op:t"})
	if lane.CodeOf(err) != lane.Refused || strings.Count(err.Error(), "not among the configured") != 1 || !strings.Contains(err.Error(), "\n  - "+want) {
		t.Errorf("provision: %v", err)
	}
	for _, role := range []string{"", "compute"} {
		h.Role = role
		if _, problems, err := r.Import(t.Context(), []lane.Host{h}, "op:t", true); err != nil || len(problems) > 0 {
			t.Errorf("role %q: %v %v", role, problems, err)
		}
	}
}

// TestLevels: default, site, role and host, in this order, in what is explained and in what is served.
func TestLevels(t *testing.T) {
	r := newRig(t)
	r.roles()
	h := spec("node1")
	h.Role, h.Install = "storage", lane.InstallOptions{Timezone: new("Asia/Tokyo"), Packages: []string{"htop"}}
	r.enrol(h)
	origins, err := r.Explain(t.Context(), "node1")
	r.must(err)
	for field, want := range map[string]string{"domain": "net.example from default.domain", "user": "ops from default.user", "ntp": "10.2.0.1 from roles.storage.ntp",
		"timezone": "Asia/Tokyo from install.timezone", "packages": "htop from install.packages"} {
		n := slices.IndexFunc(origins, func(o lane.Origin) bool { return o.Field == field })
		if n < 0 || strings.Join(origins[n].Values, " ")+" from "+origins[n].Path != want {
			t.Errorf("%s: %+v, want %s", field, origins, want)
		}
	}
	_, err = r.Provision(t.Context(), "node1", lane.Provisioning{By: "op:t"})
	if want := "\n  - install.packages: an image is written as it is"; lane.CodeOf(err) != lane.Refused || !strings.Contains(err.Error(), want) {
		t.Errorf("%v\nlacks %q", err, want)
	}
	run := r.provision("node1", lane.Provisioning{Bundle: "debian-preseed-1"})
	r.script(lane.Install)
	f := loaderFacts()
	f.Speaker = lane.SpeakerInstaller
	doc, err := r.Seed(t.Context(), lane.RunPath{Capability: run.Run.Capability, Asset: lane.AssetSeed, Name: "preseed.cfg"}, f)
	r.must(err)
	for _, want := range []string{"d-i netcfg/get_domain string net.example\n", "d-i clock-setup/ntp-server string 10.2.0.1\n", "d-i time/zone string Asia/Tokyo\n", " ca-certificates htop\n"} {
		if !strings.Contains(string(doc.Body), want) {
			t.Errorf("the seed lacks %q:\n%s", want, doc.Body)
		}
	}
}

// TestHostLocksItself: what a role or a record takes away is missed before the disk is gone.
func TestHostLocksItself(t *testing.T) {
	r := newRig(t)
	h := spec("node1")
	h.Install.SSHKeys = []string{}
	r.enrol(h)
	_, err := r.Provision(t.Context(), "node1", lane.Provisioning{By: "op:t", Bundle: "debian-preseed-1"})
	if lane.CodeOf(err) != lane.Refused || !strings.Contains(err.Error(), "site: nobody could log in") {
		t.Errorf("%v", err)
	}
}
