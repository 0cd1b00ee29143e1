package control_test

import (
	"strings"
	"testing"

	"bootlane/internal/lane"
)

// TestEncryptionOrder: an order says what is to open the disk, the grant does as well, and only an
// agent that encrypts is told.
func TestEncryptionOrder(t *testing.T) {
	const server = "http://tang.example.org#rQpW9oX1cKr1vuaAxX4i8jnHZyY"
	for name, c := range map[string]struct {
		install lane.InstallOptions
		old     bool
		opener  string // empty: the disk is not encrypted
	}{
		"plain":        {lane.InstallOptions{}, true, ""},
		"TPM":          {lane.InstallOptions{Encryption: new(lane.EncryptionTPM2)}, false, "the TPM 2.0"},
		"Tang":         {lane.InstallOptions{Encryption: new(lane.EncryptionTang), Tang: []string{server}}, false, "Tang, http://tang.example.org"},
		"an old agent": {lane.InstallOptions{Encryption: new(lane.EncryptionTPM2)}, true, "the TPM 2.0"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			h := spec("node1")
			h.Install = c.install
			r.enrol(h)
			h = r.provision("node1", lane.Provisioning{})
			if e := r.last("node1", lane.KindArmed); strings.Contains(e.Message, "the disk is encrypted, and opened by "+c.opener) != (c.opener != "") {
				t.Errorf("armed: %s", e.Message)
			}
			r.script(lane.Install)
			hw := hardware(lane.Disk{Name: "vda", Serial: "D1", SizeBytes: 1e9})
			hw.Encrypts = !c.old
			o, err := r.Order(t.Context(), h.Run.Capability, hw, installerFacts())
			r.must(err)
			switch {
			case c.opener == "":
				if o.Action != lane.Install || o.Encryption != nil {
					t.Errorf("%+v", o)
				}
			case c.old:
				if o.Action == lane.Install || o.Encryption != nil || o.Reason != lane.HardwareMismatch || !strings.Contains(o.Detail, "build the bundle with this version's bootlane-agent") || r.host("node1").State != lane.StateFailed {
					t.Errorf("%+v", o)
				}
			default:
				if o.Action != lane.Install || o.Encryption == nil || o.Encryption.String() != c.opener || !strings.HasSuffix(o.Detail, "to vda, encrypt it, to be opened by "+c.opener) {
					t.Errorf("%+v", o)
				}
				if c.opener != "the TPM 2.0" && o.Encryption.Tang[0].String() != server {
					t.Errorf("%+v", o.Encryption)
				}
			}
		})
	}
}
