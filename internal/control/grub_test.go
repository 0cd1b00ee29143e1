package control_test

import (
	"strings"
	"testing"

	"bootlane/internal/lane"
)

// TestGRUB follows a machine whose boot loader is GRUB: the install is ordered once, to the
// machine of the record alone, and everything else ends at the disk or at the screen.
func TestGRUB(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	r.provision("node1", lane.Provisioning{})
	uefi := lane.Platform{Arch: lane.X86_64, Firmware: lane.UEFI}
	ask := func(mac lane.MAC, uuid, serial string) string {
		t.Helper()
		said := "uuid=" + uuid + "&serial=" + serial + "&asset=&manufacturer=&product="
		got, err := r.fetch(lane.BootPath{MAC: mac, Platform: uefi, File: lane.GRUBConfig, Said: said}, lane.SurfaceTFTP)
		r.must(err)
		return got
	}
	own := r.host("node1").Identity
	t.Run("SB-08 a machine's own configuration", func(t *testing.T) {
		got := ask(mac1, string(own.UUID), own.Serial)
		if !strings.Contains(got, "\n  if linux /run/") || strings.Contains(got, "http://10.0.0.1:8080/run/"+r.host("node1").Run.Capability+"/file") {
			t.Errorf("no install by the way that GRUB came:\n%s", got)
		}
		if h := r.host("node1"); h.Run.BootsUsed != 1 || h.Run.Stage != lane.StageScript {
			t.Errorf("%d boots used, stage %s", h.Run.BootsUsed, h.Run.Stage)
		}
	})
	t.Run("it could not load the files", func(t *testing.T) {
		got, err := r.fetch(lane.BootPath{MAC: mac1, Platform: uefi, File: lane.GRUBConfig, Said: lane.GRUBFailed}, lane.SurfaceTFTP)
		if err != nil || !strings.Contains(got, string(lane.LoaderFailed)) || strings.Contains(got, "linux /run/") {
			t.Errorf("%v\n%s", err, got)
		}
	})
	t.Run("a stranger", func(t *testing.T) {
		if got := ask("52:54:00:99:99:99", "", ""); !strings.Contains(got, "echo 'reason: unknown-machine'") || strings.Contains(got, "linux /run/") {
			t.Errorf("not held:\n%s", got)
		}
	})
	t.Run("another serial number behind the same NIC", func(t *testing.T) {
		if got := ask(mac1, string(own.UUID), "SN-OTHER"); !strings.Contains(got, "SN-OTHER") || strings.Contains(got, "linux /run/") {
			t.Errorf("not held:\n%s", got)
		}
		if h := r.host("node1"); h.State != lane.StateQuarantine {
			t.Errorf("node1 is %s", h.State)
		}
	})
	t.Run("LB-05 installed: GRUB goes on to the disk", func(t *testing.T) {
		r.enrol(other("node2"))
		got := ask(mac2, "", "")
		if !strings.Contains(got, "chainloader (${bl_disk})${bl_file}") || !strings.HasSuffix(got, "\nexit 1\n") || strings.Contains(got, "linux /run/") {
			t.Errorf("not sent to its disk:\n%s", got)
		}
	})
}
