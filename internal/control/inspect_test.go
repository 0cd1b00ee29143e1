package control_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"bootlane/internal/bundle"
	"bootlane/internal/lane"
)

// inspecting is a rig whose configuration has machines looked at.
func inspecting(t *testing.T, then string) *rig {
	r := newRig(t)
	r.InspectBundle, r.InspectThen = "image-1", then
	return r
}

const uuid9 = lane.UUID("99999999-0000-4000-8000-000000000009")

// strange is what the iPXE of a machine says that nobody knows, and its hardware.
func strange(n int) (lane.Facts, lane.Hardware) {
	m := lane.MAC(fmt.Sprintf("52:54:00:00:09:%02x", n))
	u := lane.UUID(fmt.Sprintf("99999999-0000-4000-8000-%012d", n))
	f := lane.Facts{Surface: lane.SurfaceHTTP, Speaker: lane.SpeakerLoader, UUID: u, MAC: m, MACs: []lane.MAC{m}, Serial: fmt.Sprint("SN", n), Arch: lane.X86_64, Firmware: lane.UEFI, Name: "script"}
	hw := lane.Hardware{UUID: u, Serial: f.Serial, Machine: "x86_64", Firmware: "uefi", BootMAC: m, NICs: []lane.NIC{{Name: "eth0", MAC: m}}, Disks: []lane.Disk{{Name: "sda", Serial: fmt.Sprint("D", n), SizeBytes: 480e9}}}
	return f, hw
}

// look boots a machine by network, and returns the ticket that its script leads to.
func (r *rig) look(f lane.Facts) string {
	r.t.Helper()
	body, d, err := r.Script(r.t.Context(), f, false)
	r.must(err)
	_, rest, ok := strings.Cut(string(body), "bootlane.inspect=http://10.0.0.1:8080/inspect/")
	if d.Action != lane.Inspect || !ok || strings.Contains(string(body), "bootlane.url") || strings.Contains(string(body), "/run/") {
		r.t.Fatalf("%s %s:\n%s", d.Action, d.Reason, body)
	}
	return strings.Fields(rest)[0]
}

// told has the agent tell, and expects what it is to do then.
func (r *rig) told(ticket string, hw lane.Hardware, want string) {
	r.t.Helper()
	r.pass(time.Minute)
	reply, err := r.Inspected(r.t.Context(), ticket, hw, installerFacts())
	r.must(err)
	if reply.Then != want {
		r.t.Errorf("told %+v, want %s", reply, want)
	}
}

// TestCommissioning: from a machine that nobody knows to an installed one, without touching its keyboard.
func TestCommissioning(t *testing.T) {
	r := inspecting(t, lane.ThenWait)
	ctx := t.Context()
	f, hw := strange(9)
	rom := f
	rom.Surface, rom.Speaker, rom.Serial = lane.SurfaceDHCP, lane.SpeakerROM, ""
	if d, err := r.Ask(ctx, rom); err != nil || d.Action != lane.Inspect || d.Reason != lane.UnknownInspected {
		t.Fatalf("its firmware is told %+v, %v", d, err)
	}
	if got, err := r.fetch(lane.BootPath{MAC: f.MAC, Platform: uefi, File: "snponly.efi"}, lane.SurfaceTFTP); err != nil || got != "a loader" {
		t.Errorf("its loader: %q, %v", got, err)
	}
	ticket := r.look(f)
	b, err := r.BundleShow(ctx, "image-1")
	r.must(err)
	for name, code := range map[string]lane.Code{"linux": "", "initrd": "", "disk.raw": lane.NotFound, "other": lane.NotFound} {
		file, err := r.InspectFile(ctx, lane.InspectPath{Ticket: ticket, Digest: b.Files[name].Digest, Name: name}, installerFacts())
		if lane.CodeOf(err) != code || code == "" && file.Digest != b.Files[name].Digest {
			t.Errorf("%s: %+v, %v", name, file, err)
		}
	}
	if _, err := r.InspectFile(ctx, lane.InspectPath{Ticket: ticket, Digest: b.Files["initrd"].Digest, Name: "linux"}, installerFacts()); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("another digest: %v", err)
	}
	// The ticket opens nothing of a run.
	if _, err := r.Order(ctx, ticket, hw, installerFacts()); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("an order by a ticket: %v", err)
	}
	r.told(ticket, hw, lane.ThenWait)
	r.told(ticket, hw, lane.ThenWait)
	if hosts, err := r.Hosts(ctx, "", 10); err != nil || len(hosts) != 0 {
		t.Fatalf("looking at a machine made %d records, %v", len(hosts), err)
	}
	d, err := r.DiscoveredAs(ctx, "52-54-00-00-09-09")
	r.must(err)
	if d.ID != string(uuid9) || d.Bundle != "image-1" || d.From != "10.0.0.9" || !d.Heard.After(d.First) || d.Hosts != nil || d.Hardware.Disks[0].Serial != "D9" {
		t.Errorf("kept %+v", d)
	}
	events, err := r.Events(ctx, string(hw.BootMAC), -1, 100)
	r.must(err)
	if n := len(slices.DeleteFunc(events, func(e lane.Event) bool { return e.Kind != lane.KindInspected })); n != 1 {
		t.Errorf("%d lines that it was looked at: what is no news is none", n)
	}

	check, err := r.Adopt(ctx, "SN9", lane.Adoption{ID: "node9", Bundle: "image-1", Check: true}, "op:t")
	if err != nil || len(check.Problems) > 0 || check.Host.Disk.Serial != "D9" {
		t.Fatalf("%+v, %v", check, err)
	}
	if _, err := r.Host(ctx, "node9"); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("a check made a record: %v", err)
	}
	done, err := r.Adopt(ctx, "SN9", lane.Adoption{ID: "node9", Bundle: "image-1"}, "op:t")
	if err != nil || len(done.Problems) > 0 || done.Host.State != lane.StateNew || done.Host.Identity.UUID != uuid9 {
		t.Fatalf("%+v, %v", done, err)
	}
	r.told(ticket, hw, lane.ThenWait)
	h := r.provision("node9", lane.Provisioning{})
	r.told(ticket, hw, lane.ThenReboot)
	body, dec, err := r.Script(ctx, f, false)
	if err != nil || dec.Action != lane.Install || !strings.Contains(string(body), "bootlane.url=http://10.0.0.1:8080/run/"+h.Run.Capability) {
		t.Errorf("then it is told %+v, %v", dec, err)
	}
	if d, err := r.DiscoveredAs(ctx, string(uuid9)); err != nil || !slices.Equal(d.Hosts, []lane.HostID{"node9"}) || len(d.Mismatch) > 0 {
		t.Errorf("%v, %v, %v", d.Hosts, d.Mismatch, err)
	}
	again, err := r.Adopt(ctx, "SN9", lane.Adoption{ID: "node9"}, "op:t")
	if err != nil || len(again.Problems) == 0 || !strings.Contains(again.Problems[0].Message, "is in the inventory") || r.host("node9").State != lane.StateProvisioning {
		t.Errorf("adopted twice: %+v, %v", again, err)
	}
	if two, err := r.Adopt(ctx, "SN9", lane.Adoption{ID: "node10"}, "op:t"); err != nil || len(two.Problems) < 3 {
		t.Errorf("adopted as another: %+v, %v", two.Problems, err)
	}
}

// TestInspectOff: without a bundle that can, a machine that nobody knows is held as ever.
func TestInspectOff(t *testing.T) {
	f, _ := strange(9)
	for name, change := range map[string]func(r *rig){
		"no bundle":      func(r *rig) { r.InspectBundle = "" },
		"not in store":   func(r *rig) { r.InspectBundle = "nothing-1" },
		"no agent in it": func(r *rig) { r.InspectBundle = "debian-preseed-1" },
		"revoked":        func(r *rig) { _, err := r.BundleRevoke(t.Context(), "image-1", "op:t", "bad"); r.must(err) },
		"another's": func(r *rig) {
			r.bundle(lane.SeedImage, func(m *bundle.Manifest) { m.Name, m.Arch = "arm", "arm64" })
			r.InspectBundle = "arm-1"
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := inspecting(t, lane.ThenWait)
			change(r)
			if _, d, err := r.Script(t.Context(), f, false); err != nil || d.Action != lane.Hold || d.Reason != lane.UnknownMachine {
				t.Errorf("%+v, %v", d, err)
			}
			r.enrol(spec("node1"))
			if _, err := r.Inspect(t.Context(), "node1", time.Hour, "op:t", ""); lane.CodeOf(err) != lane.Refused {
				t.Errorf("a host is to be looked at: %v", err)
			}
		})
	}
}

// TestInspectHost: a host that an operator asks for is looked at once, and both sides of what differs are told.
func TestInspectHost(t *testing.T) {
	r := inspecting(t, lane.ThenPowerOff)
	ctx := t.Context()
	r.enrol(spec("node1"))
	r.script(lane.LocalBoot)
	_, err := r.Inspect(ctx, "node1", time.Hour, "op:t", "new disks")
	r.must(err)
	ticket := r.look(loaderFacts())
	r.told(ticket, hardware(lane.Disk{Name: "vda", Serial: "D7", SizeBytes: 1e9}), lane.ThenPowerOff)
	r.script(lane.LocalBoot)
	if h := r.host("node1"); !h.Inspect.IsZero() || h.State != lane.StateNew {
		t.Errorf("%+v", h)
	}
	for _, kind := range []lane.Kind{lane.KindInspect, lane.KindInspected} {
		r.last("node1", kind)
	}
	d, err := r.DiscoveredAs(ctx, string(uuid1))
	if err != nil || !slices.Equal(d.Hosts, []lane.HostID{"node1"}) || len(d.Mismatch) != 1 || d.Mismatch[0].Name != "disk" || !strings.Contains(d.Mismatch[0].Seen, "D7") {
		t.Errorf("%+v, %v", d, err)
	}
	_, err = r.Inspect(ctx, "node1", time.Hour, "op:t", "")
	r.must(err)
	r.pass(time.Hour)
	r.script(lane.LocalBoot) // the wish is over
	r.provision("node1", lane.Provisioning{})
	if _, err := r.Inspect(ctx, "node1", time.Hour, "op:t", ""); lane.CodeOf(err) != lane.Refused {
		t.Errorf("while it is being installed: %v", err)
	}
}

// TestInspectRefuses: what somebody on the boot network may try.
func TestInspectRefuses(t *testing.T) {
	r := inspecting(t, lane.ThenWait)
	ctx := t.Context()
	f, hw := strange(9)
	ticket := r.look(f)
	_, another := strange(8)
	for name, c := range map[string]struct {
		ticket string
		hw     lane.Hardware
		code   lane.Code
	}{
		"no such ticket":  {strings.Repeat("z", 32), hw, lane.NotFound},
		"another machine": {ticket, another, lane.Refused},
		"300 disks of hostile strings": {ticket, func() lane.Hardware {
			big := hw
			for i := range 300 {
				big.Disks = append(big.Disks, lane.Disk{Name: fmt.Sprint("sd", i), Model: strings.Repeat("\x1b[2J\u202e", 1000), ByID: slices.Repeat([]string{strings.Repeat("x", 4000)}, 300)})
			}
			return big
		}(), lane.Invalid},
	} {
		if _, err := r.Inspected(ctx, c.ticket, c.hw, installerFacts()); lane.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	if list, err := r.Discovered(ctx); err != nil || len(list) != 0 {
		t.Fatalf("%d are kept, %v", len(list), err)
	}
	r.told(ticket, hw, lane.ThenWait)
	// Told again at once it is answered, and moves nothing.
	before, err := r.DiscoveredAs(ctx, string(uuid9))
	r.must(err)
	hw.Product = "changed"
	if reply, err := r.Inspected(ctx, ticket, hw, installerFacts()); err != nil || reply.Then != lane.ThenWait {
		t.Errorf("%+v, %v", reply, err)
	}
	if after, err := r.DiscoveredAs(ctx, string(uuid9)); err != nil || jsonOf(t, after) != jsonOf(t, before) {
		t.Errorf("a second word within seconds was kept: %v", err)
	}
	// The next boot's ticket takes the place of this one's, and each ends when nobody uses it.
	next := r.look(f)
	if _, err := r.Inspected(ctx, ticket, hw, installerFacts()); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("the ticket of the last boot: %v", err)
	}
	r.pass(15 * time.Minute)
	if _, err := r.Inspected(ctx, next, hw, installerFacts()); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("a ticket that was not used: %v", err)
	}
}

// TestInspectTwins: two boards of one UUID do not hide each other, and one of them is refused a record.
func TestInspectTwins(t *testing.T) {
	r := inspecting(t, lane.ThenWait)
	ctx := t.Context()
	for n := range 2 {
		f, hw := strange(n + 1)
		f.UUID, hw.UUID = uuid9, uuid9
		ticket := r.look(f)
		r.told(ticket, hw, lane.ThenWait)
		r.told(ticket, hw, lane.ThenWait)
	}
	list, err := r.Discovered(ctx)
	if err != nil || len(list) != 2 {
		t.Fatalf("%d are kept, %v", len(list), err)
	}
	for i, want := range []int{0, 1} {
		out, err := r.Adopt(ctx, fmt.Sprint("SN", i+1), lane.Adoption{ID: lane.HostID(fmt.Sprint("node", i))}, "op:t")
		if err != nil || len(out.Problems) != want {
			t.Errorf("the twin %d: %v, %v", i, out.Problems, err)
		}
	}
}

// TestInspectBounds: whoever invents machines ends at a bound, and is told so.
// Each report has a new ticket: one that told a moment ago is not heard.
func TestInspectBounds(t *testing.T) {
	r := inspecting(t, lane.ThenWait)
	f, hw := strange(9)
	var err error
	var kept int
	for kept = 0; kept < 3000 && err == nil; kept++ {
		r.pass(time.Second)
		hw.Product = fmt.Sprint("box ", kept)
		_, err = r.Inspected(t.Context(), r.look(f), hw, installerFacts())
	}
	if lane.CodeOf(err) != lane.Unavailable || kept != 2001 {
		t.Errorf("after %d reports: %v", kept, err)
	}
	r.pass(time.Hour)
	r.told(r.look(f), hw, lane.ThenWait)
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
