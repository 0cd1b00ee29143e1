package control_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bootlane/internal/bundle"
	"bootlane/internal/control"
	"bootlane/internal/lane"
	"bootlane/internal/store"
)

var uefi = lane.Platform{Arch: lane.X86_64, Firmware: lane.UEFI}

// fetch asks for a boot/… name and returns what came.
func (r *rig) fetch(p lane.BootPath, s lane.Surface) (string, error) {
	r.t.Helper()
	f, err := r.Boot(r.t.Context(), p, lane.Facts{Surface: s, From: "10.0.0.9"})
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(f)
	r.must(errors.Join(err, f.Close()))
	return string(body), nil
}

// last returns the newest event of a subject that is of a kind.
func (r *rig) last(subject string, kind lane.Kind) lane.Event {
	r.t.Helper()
	events, err := r.Events(r.t.Context(), subject, -1, 1000)
	r.must(err)
	slices.Reverse(events)
	i := slices.IndexFunc(events, func(e lane.Event) bool { return e.Kind == kind })
	if i < 0 {
		r.t.Fatalf("%s left no %s in %d events", subject, kind, len(events))
	}
	return events[i]
}

// TestBootFiles: the entry script is anybody's, a loader is not.
func TestBootFiles(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"), other("node2"))
	r.provision("node1", lane.Provisioning{})
	const stranger = lane.MAC("52:54:00:00:00:99")
	for _, c := range []struct {
		name   string
		p      lane.BootPath
		screen bool
		want   string // what comes, or "" and then a code
		code   lane.Code
		says   string
	}{
		{"entry script, unknown machine", lane.BootPath{File: lane.EntryScript}, true, "#!ipxe", "", ""},
		{"entry script, installing machine", lane.BootPath{MAC: mac1, Platform: uefi, File: lane.EntryScript}, true, "#!ipxe", "", ""},
		{"GRUB's entry, wherever its prefix lies", lane.BootPath{File: lane.GRUBConfig}, true, "# Bootlane entry configuration", "", ""},
		{"GRUB's entry, of a machine", lane.BootPath{MAC: mac1, Platform: uefi, File: lane.GRUBConfig}, true, "# Bootlane entry configuration", "", ""},
		{"what shim does without", lane.BootPath{MAC: mac1, Platform: uefi, File: "revocations_sbat.efi"}, true, "", lane.NotFound, "is not needed"},
		{"loader, installing machine", lane.BootPath{MAC: mac1, Platform: uefi, File: "snponly.efi"}, true, "a loader", "", ""},
		{"loader, machine to be left alone", lane.BootPath{MAC: mac2, Platform: uefi, File: "snponly.efi"}, true, "", lane.Refused, "local-boot: host-new"},
		{"loader, unknown machine, for its screen", lane.BootPath{MAC: stranger, Platform: uefi, File: "snponly.efi"}, true, "a loader", "", ""},
		{"loader, unknown machine, no screen", lane.BootPath{MAC: stranger, Platform: uefi, File: "snponly.efi"}, false, "", lane.Refused, "hold: unknown-machine"},
		{"loader without a MAC", lane.BootPath{Platform: uefi, File: "snponly.efi"}, true, "", lane.NotFound, "without a MAC"},
		{"another file", lane.BootPath{MAC: mac1, Platform: uefi, File: "passwd"}, true, "", lane.NotFound, "no boot loader passwd"},
		{"another platform", lane.BootPath{MAC: mac1, Platform: lane.Platform{Arch: lane.ARM64, Firmware: lane.UEFI}, File: "snponly.efi"}, true, "", lane.Refused, "arch-mismatch"},
		{"platform without a loader", lane.BootPath{MAC: mac1, Platform: lane.Platform{Arch: lane.I386, Firmware: lane.UEFI}, File: "snponly.efi"}, true, "", lane.NotFound, "no boot loader snponly.efi for"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := r.Config
			cfg.HoldScreen = c.screen
			asked := &rig{Control: control.New(cfg), t: t}
			got, err := asked.fetch(c.p, lane.SurfaceTFTP)
			if lane.CodeOf(err) != c.code || !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
				t.Fatalf("%.20q, %v", got, err)
			}
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v does not say %q", err, c.says)
			}
		})
	}
	if e := r.last("node1", lane.KindServed); e.Digest == "" || e.Bytes == 0 || e.Surface != lane.SurfaceTFTP || e.Message != "boot loader snponly.efi" || e.Run == "" {
		t.Errorf("the loader left %+v", e)
	}
	events, err := r.Events(t.Context(), "node1", -1, 1000)
	r.must(err)
	if !slices.ContainsFunc(events, func(e lane.Event) bool {
		return e.Kind == lane.KindServed && e.Digest != "" && e.Bytes > 0 && e.Surface == lane.SurfaceTFTP && e.Message == "entry script"
	}) {
		t.Error("the entry script left nothing")
	}
	if e := r.last("mac:"+string(stranger), lane.KindAsked); e.Reason != lane.UnknownMachine || e.Facts == nil || e.Facts.From != "10.0.0.9" {
		t.Errorf("the unknown machine left %+v", e)
	}
	r.must(os.Remove(r.Loaders[uefi][0]))
	if _, err := r.fetch(lane.BootPath{MAC: mac1, Platform: uefi, File: "snponly.efi"}, lane.SurfaceHTTP); lane.CodeOf(err) != lane.Unavailable {
		t.Errorf("a loader that is gone: %v", err)
	}
}

// TestBundleLoader: a bundle may bring a loader of its own; it is served under the site's name.
func TestBundleLoader(t *testing.T) {
	r := newRig(t)
	dir := filepath.Join(r.dir, "own")
	r.must(os.MkdirAll(dir, 0o755))
	for _, f := range []string{"linux", "initrd", "own.efi"} {
		r.must(os.WriteFile(filepath.Join(dir, f), []byte("own "+f), 0o644))
	}
	r.must(bundle.WriteManifest(dir, bundle.Manifest{Name: "own", Version: "1", OS: "debian", Release: "bookworm", Arch: "x86_64", Seed: lane.SeedNoCloud, BundleVariant: lane.BundleVariant{Kernel: "linux", Initrd: "initrd"},
		Loaders: map[string]bundle.Loader{"x86_64-uefi": {First: "own.efi"}}}))
	_, err := bundle.Build(t.Context(), dir)
	r.must(err)
	b, err := r.BundleImport(t.Context(), lane.BundleImport{Dir: dir, By: "op:t"})
	r.must(err)
	r.enrol(spec("node1"))
	r.provision("node1", lane.Provisioning{Bundle: "own-1"})
	if got, err := r.fetch(lane.BootPath{MAC: mac1, Platform: uefi, File: "snponly.efi"}, lane.SurfaceHTTP); err != nil || got != "own own.efi" {
		t.Errorf("%q, %v", got, err)
	}
	if e := r.last("bundle:own", lane.KindUpdated); e.Digest != b.Digest {
		t.Errorf("the import left %+v", e)
	}
	if _, err := r.BundleImport(t.Context(), lane.BundleImport{Dir: r.dir, By: "op:t"}); lane.CodeOf(err) != lane.Invalid {
		t.Errorf("no bundle: %v", err)
	}
	if e := r.last("server", lane.KindRefused); !strings.Contains(e.Message, "bundle import") || e.By != "op:t" {
		t.Errorf("the refused import left %+v", e)
	}
	if list, err := r.BundleList(t.Context()); err != nil || len(list) != len(lane.Seeds())+1 {
		t.Errorf("%d bundles, %v", len(list), err)
	}
}

// TestFailedScript: a loader that could not load its files is told to boot the
// disk, and its boot stays counted.
func TestFailedScript(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	r.provision("node1", lane.Provisioning{})
	body := r.script(lane.Install)
	i := strings.Index(body, "/boot/"+mac1.Hyphens())
	name, _, _ := strings.Cut(body[i+1:], " ")
	p, ok := lane.ParseBootPath(name)
	if !ok || p.File != lane.FailedScript {
		t.Fatalf("the script tells its failure to %q", name)
	}
	got, err := r.fetch(p, lane.SurfaceHTTP)
	if err != nil || !strings.Contains(got, "local boot: loader-failed: the boot loader could not load the files of the installer") || strings.Contains(got, "\nkernel ") {
		t.Errorf("%v\n%s", err, got)
	}
	if n := r.host("node1").Run.BootsUsed; n != 1 {
		t.Errorf("%d boots counted", n)
	}
	if e := r.last("node1", lane.KindServed); e.Action != "local-boot" || e.Reason != lane.LoaderFailed {
		t.Errorf("the failure left %+v", e)
	}
}

// TestNobodyCouldLogIn: an installer that would make an account which admits nobody is
// refused before the disk is gone; an image may bring its own access.
func TestNobodyCouldLogIn(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	cfg := r.Config
	cfg.Site = lane.InstallOptions{}
	closed := control.New(cfg)
	_, err := closed.Provision(t.Context(), "node1", lane.Provisioning{Bundle: "debian-preseed-1", By: "op:t"})
	if lane.CodeOf(err) != lane.Refused || !strings.Contains(err.Error(), "site: nobody could log in") {
		t.Errorf("%v", err)
	}
	_, err = closed.Provision(t.Context(), "node1", lane.Provisioning{Bundle: "image-1", By: "op:t"})
	r.must(err)
}

// TestWhyRemembers: however often the machine asks after its run has ended, why
// still names the event that ended it.
func TestWhyRemembers(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	h := r.provision("node1", lane.Provisioning{})
	r.script(lane.Install)
	r.must(r.report(h, lane.StageKernel, 1, lane.StatusFailed))
	for i := range 700 {
		r.store.Record(lane.Event{Subject: "node1", At: r.clock(), Kind: lane.KindAsked, By: "dhcp", Name: fmt.Sprint(i)})
	}
	v, err := r.Why(t.Context(), "node1")
	if err != nil || v.Evidence == nil || v.Evidence.Kind != lane.KindFailed {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestRenderOfAProxy: who does not give the addresses writes no configuration that does.
func TestRenderOfAProxy(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	cfg := r.Config
	n := cfg.Networks[0]
	n.Proxy, n.DNS = true, nil
	cfg.Networks = []control.Network{n}
	proxy := control.New(cfg)
	files, err := proxy.Render(t.Context(), "node1")
	r.must(err)
	for _, f := range files {
		if f.Path == "dhcp/direct-pxe.conf" {
			t.Errorf("%s:\n%s", f.Path, f.Body)
		}
	}
	if _, err := proxy.ExportDHCP(t.Context(), lane.DHCPExport{Server: "kea", Form: "proxy"}); err == nil || !strings.Contains(err.Error(), "say so with --range FIRST-LAST") {
		t.Errorf("%v", err)
	}
	out, err := proxy.ExportDHCP(t.Context(), lane.DHCPExport{Server: "kea", Form: "proxy", Range: "10.0.0.10 - 10.0.0.19"})
	if err != nil || !strings.Contains(out.Body, `"pool": "10.0.0.10 - 10.0.0.19"`) || !strings.Contains(out.Note, "add yours") {
		t.Errorf("%+v, %v", out, err)
	}
	// Nor does it know whether the installer will have a name server.
	_, err = proxy.Provision(t.Context(), "node1", lane.Provisioning{Bundle: "debian-preseed-1", By: "op:t"})
	r.must(err)
}

// TestMisplacedAddresses: what cannot be a machine's is refused at import and at
// preflight, and not found out at the first boot.
func TestMisplacedAddresses(t *testing.T) {
	r := newRig(t)
	for a, want := range map[string]string{"10.0.0.254": "is a router's", "10.0.0.53": "", "10.0.0.1": "Bootlane's own", "10.0.0.0": "no host's",
		"10.0.0.255": "no host's", "10.99.0.21": "is in no network of the configuration: 10.0.0.0/24", "10.0.0.21": ""} {
		s := spec("node1")
		s.Network.Address = netip.MustParseAddr(a)
		_, problems, err := r.Import(t.Context(), []lane.Host{s}, "op:t", true)
		r.must(err)
		if (len(problems) == 0) != (want == "") || want != "" && (problems[0].Field != "hosts[0].network.address" || !strings.Contains(problems[0].Message, want)) {
			t.Errorf("%s: %v, want %q", a, problems, want)
		}
	}
	r.enrol(func() lane.Host { s := spec("node1"); s.Network.Address = netip.MustParseAddr("10.0.0.77"); return s }())
	cfg := r.Config
	n := cfg.Networks[0]
	n.Routers = []netip.Addr{netip.MustParseAddr("10.0.0.77")} // the configuration changed since
	cfg.Networks = []control.Network{n}
	if _, err := control.New(cfg).Provision(t.Context(), "node1", lane.Provisioning{By: "op:t"}); err == nil || !strings.Contains(err.Error(), "network.address: 10.0.0.77 is a router's") {
		t.Errorf("%v", err)
	}
}

// TestMisplacedInterfaces: the same holds for an address that the installed system is given; of a
// network that is not configured nothing is known.
func TestMisplacedInterfaces(t *testing.T) {
	r := newRig(t)
	cfg := r.Config
	n := cfg.Networks[0]
	n.First, n.Last = netip.MustParseAddr("10.0.0.100"), netip.MustParseAddr("10.0.0.199")
	n.IPv6 = lane.Subnet{Prefix: netip.MustParsePrefix("fd00:20::/64"), Server: netip.MustParseAddr("fd00:20::1")}
	cfg.Networks = []control.Network{n}
	c := control.New(cfg)
	for a, want := range map[string]string{"10.0.0.254/24": "10.0.0.254 is a router's", "10.0.0.1/24": "Bootlane's own", "10.0.0.100/24": "10.0.0.100 is in the range from which DHCP gives addresses to everybody, 10.0.0.100 to 10.0.0.199",
		"10.0.0.199/24": "is in the range", "10.0.0.99/24": "", "10.0.0.200/24": "", "10.0.0.150/24": "", "10.99.0.21/16": "", "fd00:20::1/64": "Bootlane's own", "fd00:20::21/64": ""} {
		s := spec("node1")
		s.Network = lane.Network{Address: netip.MustParseAddr("10.0.0.150"), Interfaces: []lane.Interface{{MAC: s.Identity.MACs[0], Addresses: []string{a}, Nameservers: []string{"10.0.0.53"}}}}
		_, problems, err := c.Import(t.Context(), []lane.Host{s}, "op:t", true)
		r.must(err)
		if (len(problems) == 0) != (want == "") || want != "" && (problems[0].Field != "hosts[0].network.interfaces[0].addresses[0]" || !strings.Contains(problems[0].Message, want)) {
			t.Errorf("%s: %v, want %q", a, problems, want)
		}
	}
	s := spec("node1")
	s.Network.Interfaces = []lane.Interface{{MAC: s.Identity.MACs[0], Addresses: []string{"10.0.0.77/24"}, Nameservers: []string{"10.0.0.53"}}}
	r.enrol(s)
	if held, err := r.Holder(t.Context(), netip.MustParseAddr("10.0.0.77")); !held || err != nil {
		t.Errorf("DHCP may give it away: %v", err)
	}
}

// TestPreseedRun goes the installer's way: documents instead of an order.
func TestPreseedRun(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	h := r.provision("node1", lane.Provisioning{Bundle: "debian-preseed-1"})
	body := r.script(lane.Install)
	if !strings.Contains(body, "preseed/url=http://10.0.0.1:8080/run/"+h.Run.Capability+"/seed/preseed.cfg") || !strings.Contains(body, "hostname=node1") {
		t.Errorf("the installer is led nowhere:\n%s", body)
	}
	b, err := r.Bundles.Get(h.Run.Bundle)
	r.must(err)
	file := func(name string, d lane.Digest) error {
		_, err := r.File(t.Context(), lane.RunPath{Capability: h.Run.Capability, Asset: lane.AssetFile, Digest: d, Name: name}, installerFacts())
		return err
	}
	r.must(errors.Join(file("linux", b.Files["linux"].Digest), file("initrd", b.Files["initrd"].Digest)))
	for name, d := range map[string]lane.Digest{"linux": b.Files["initrd"].Digest, "shadow": b.Files["linux"].Digest, "": ""} {
		if err := file(name, d); lane.CodeOf(err) != lane.NotFound {
			t.Errorf("the file %q with the digest %s: %v", name, d, err)
		}
	}
	for _, name := range []string{"preseed.cfg", "early.sh", "partman.sh", "late.sh", "firstboot.sh", "firstboot.service"} {
		doc, err := r.Seed(t.Context(), lane.RunPath{Capability: h.Run.Capability, Asset: lane.AssetSeed, Name: name}, installerFacts())
		if err != nil || len(doc.Body) == 0 {
			t.Errorf("%s: %v", name, err)
		}
		if e := r.last("node1", lane.KindServed); e.Name != "seed/"+name || e.Digest == "" || e.Bytes != int64(len(doc.Body)) || e.Action != "install" {
			t.Errorf("%s left %+v", name, e)
		}
	}
	if o, err := r.Order(t.Context(), h.Run.Capability, hardware(), installerFacts()); lane.CodeOf(err) != lane.Refused || o.Action != lane.Hold {
		t.Errorf("an order without an image: %+v, %v", o, err)
	}
	for _, s := range []lane.Stage{lane.StageKernel, lane.StageInstaller, lane.StageDiskWritten, lane.StageFirstBoot, lane.StageReady} {
		r.must(r.report(h, s, 1, lane.StatusOK))
	}
	if got := r.host("node1"); got.State != lane.StateInstalled || got.Run.Stage != lane.StageReady {
		t.Errorf("%s at %s", got.State, got.Run.Stage)
	}
	if v, err := r.Why(t.Context(), "node1"); err != nil || v.Rule != "installed" || v.Evidence == nil {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestReports(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	h := r.provision("node1", lane.Provisioning{})
	refused := func(stage lane.Stage) {
		t.Helper()
		rev := r.host("node1").Rev
		if err := r.report(h, stage, 1, lane.StatusOK); lane.CodeOf(err) != lane.Refused || r.host("node1").Rev != rev {
			t.Errorf("%s: %v", stage, err)
		}
		if e := r.last("node1", lane.KindRefused); e.Stage != stage || !strings.Contains(e.Message, "report refused") {
			t.Errorf("%s left %+v", stage, e)
		}
	}
	refused(lane.StageKernel) // before any script
	r.script(lane.Install)
	refused(lane.StageDiskWritten)
	refused(lane.StageReady)
	r.must(r.report(h, lane.StageKernel, 1, lane.StatusOK))
	rev := r.host("node1").Rev
	for range 3 {
		r.must(r.report(h, lane.StageKernel, 1, lane.StatusOK))
	}
	if got := r.host("node1"); got.Rev != rev {
		t.Errorf("repetitions changed the record %d times", got.Rev-rev)
	}
	r.must(r.report(h, lane.StageInstaller, 1, lane.StatusFailed))
	if got := r.host("node1"); got.State != lane.StateFailed || got.Run.Open {
		t.Errorf("%s", got.State)
	}
	r.must(r.report(h, lane.StageInstaller, 1, lane.StatusFailed)) // its answer was lost
	refused(lane.StageDiskWritten)
	if err := r.Report(t.Context(), strings.Repeat("a", 32), lane.Report{Stage: lane.StageKernel, Seq: 1, Status: "ok"}); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("a made-up capability: %v", err)
	}
}

// TestReportOfAnotherMachine: a capability that another machine uses sets its record aside.
func TestReportOfAnotherMachine(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"), other("node2"))
	h := r.provision("node1", lane.Provisioning{})
	r.script(lane.Install)
	err := r.Report(t.Context(), h.Run.Capability, lane.Report{Stage: lane.StageKernel, Seq: 1, Status: lane.StatusOK,
		Facts: lane.Facts{Surface: lane.SurfaceHTTP, Speaker: lane.SpeakerInstaller, UUID: uuid1, MAC: mac1, Serial: "S9"}})
	if lane.CodeOf(err) != lane.Refused || !strings.Contains(err.Error(), "S9") {
		t.Errorf("%v", err)
	}
	got := r.host("node1")
	if got.State != lane.StateQuarantine || got.Run.Stage != lane.StageScript || len(got.Dispute) != 1 || got.Resume != lane.StateProvisioning {
		t.Errorf("%s at %s, %v", got.State, got.Run.Stage, got.Dispute)
	}
	if r.host("node2").State != lane.StateNew {
		t.Error("the bystander was touched")
	}
	r.script(lane.Hold)
	if _, err := r.Release(t.Context(), "node1", "op:t", "a typing error"); err != nil {
		t.Fatal(err)
	}
	r.must(r.report(h, lane.StageKernel, 1, lane.StatusOK))
}

// TestDisputeShowsEachRecordItsOwnSide: two records, one machine.
func TestDisputeShowsEachRecordItsOwnSide(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"), other("node2"))
	f := loaderFacts()
	f.MAC, f.MACs = mac2, []lane.MAC{mac2}
	_, d, err := r.Script(t.Context(), f, false)
	if err != nil || d.Reason != lane.IdentityAmbiguous {
		t.Fatalf("%+v, %v", d, err)
	}
	for _, id := range []lane.HostID{"node1", "node2"} {
		h := r.host(id)
		if len(h.Dispute) == 0 || slices.ContainsFunc(h.Dispute, func(s lane.Signal) bool { return s.Host != id }) {
			t.Errorf("%s: %v", id, h.Dispute)
		}
		if e := r.last(string(id), lane.KindQuarantined); e.By != "server" || len(e.Mismatch) != len(h.Dispute) || e.Facts == nil || e.Facts.MAC != mac2 {
			t.Errorf("%s left %+v", id, e)
		}
	}
}

// TestWhatIfWithoutUUID: the machine has one, of which the inventory knows nothing.
func TestWhatIfWithoutUUID(t *testing.T) {
	r := newRig(t)
	h := spec("node1")
	h.Identity.UUID = ""
	r.enrol(h)
	r.provision("node1", lane.Provisioning{})
	answers, err := r.WhatIf(t.Context(), "node1")
	if err != nil || len(answers) != 4 || slices.ContainsFunc(answers, func(a lane.Foresight) bool { return a.Action != lane.Install }) {
		t.Errorf("%+v, %v", answers, err)
	}
}

// TestOldCapability: what an earlier record's run was promised, its machine's new record does not inherit.
func TestOldCapability(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	old := r.provision("node1", lane.Provisioning{})
	_, err := r.Cancel(t.Context(), "node1", "op:t", "")
	r.must(err)
	_, err = r.Retire(t.Context(), "node1", "op:t", "renamed")
	r.must(err)
	r.enrol(spec("node2")) // the same machine
	r.provision("node2", lane.Provisioning{})
	disk := lane.Disk{Name: "vda", Serial: "D1", SizeBytes: 1e9}
	if o, err := r.Order(t.Context(), old.Run.Capability, hardware(disk), installerFacts()); err != nil || o.Action == lane.Install || o.Image != nil {
		t.Errorf("%+v, %v", o, err)
	}
	if _, err := r.Seed(t.Context(), lane.RunPath{Capability: old.Run.Capability, Asset: lane.AssetSeed, Name: "firstboot.sh"}, installerFacts()); lane.CodeOf(err) != lane.Refused {
		t.Errorf("%v", err)
	}
}

// TestInventedDiscoverEndsNothing: a DHCP packet needs no proof of anything.
func TestInventedDiscoverEndsNothing(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	h := r.provision("node1", lane.Provisioning{Boots: 1})
	r.script(lane.Install)
	r.must(r.report(h, lane.StageKernel, 1, lane.StatusOK))
	r.pass(time.Minute)
	d, err := r.Ask(t.Context(), romFacts())
	r.must(err)
	if got := r.host("node1"); d.Reason != lane.BootsSpent || d.Action != lane.LocalBoot || got.State != lane.StateProvisioning {
		t.Errorf("%s, and the host is %s", d.Reason, got.State)
	}
	r.must(r.report(h, lane.StageInstaller, 1, lane.StatusOK))
}

func TestOperatorVerbs(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	r.enrol(spec("node1"))
	state := func(want lane.State) func(lane.Host, error) {
		return func(h lane.Host, err error) {
			t.Helper()
			if err != nil || h.State != want || r.host("node1").State != want || h.Rev != r.host("node1").Rev {
				t.Fatalf("%s, %v, want %s", h.State, err, want)
			}
		}
	}
	refused := func(_ lane.Host, err error) {
		t.Helper()
		if lane.CodeOf(err) != lane.Refused {
			t.Fatalf("not refused: %v", err)
		}
	}
	refused(r.Cancel(ctx, "node1", "op:t", ""))
	refused(r.Release(ctx, "node1", "op:t", ""))
	refused(r.Accept(ctx, "node1", lane.ReplacedBoard, r.host("node1").Rev, "op:t", ""))
	if p, err := r.Preflight(ctx, lane.Inspection{Hosts: []lane.HostID{"node1"}}); err != nil || len(p.Hosts[0].Problems) > 0 || r.host("node1").Run.ID != "" {
		t.Fatalf("a preflight granted something, or refused: %+v, %v", p, err)
	}
	state(lane.StateProvisioning)(r.Provision(ctx, "node1", lane.Provisioning{By: "op:t", Boots: 3, For: 3 * time.Hour}))
	if run := r.host("node1").Run; run.Boots != 3 || run.Deadline.Sub(run.Armed) != 3*time.Hour || run.By != "op:t" || len(run.Capability) != 32 {
		t.Errorf("the grant is %+v", run)
	}
	refused(r.Provision(ctx, "node1", lane.Provisioning{By: "op:t"}))
	refused(r.Retire(ctx, "node1", "op:t", ""))
	state(lane.StateQuarantine)(r.Quarantine(ctx, "node1", "op:t", "smoke"))
	refused(r.Quarantine(ctx, "node1", "op:t", "more smoke"))
	r.script(lane.Hold)
	state(lane.StateProvisioning)(r.Release(ctx, "node1", "op:t", "only dust"))
	state(lane.StateNew)(r.Cancel(ctx, "node1", "op:t", "not today"))
	state(lane.StateRetired)(r.Retire(ctx, "node1", "op:t", "sold"))
	r.script(lane.LocalBoot)
	out, problems, err := r.Import(ctx, []lane.Host{spec("node1")}, "op:t", false)
	if err != nil || problems != nil || !slices.Equal(out.Changed, []lane.HostID{"node1"}) {
		t.Fatalf("%+v %v %v", out, problems, err)
	}
	state(lane.StateNew)(r.Host(ctx, "node1"))
	for verb, do := range map[string]func() (lane.Host, error){
		"cancel":     func() (lane.Host, error) { return r.Cancel(ctx, "nobody", "op:t", "") },
		"quarantine": func() (lane.Host, error) { return r.Quarantine(ctx, "nobody", "op:t", "") },
		"release":    func() (lane.Host, error) { return r.Release(ctx, "nobody", "op:t", "") },
		"retire":     func() (lane.Host, error) { return r.Retire(ctx, "nobody", "op:t", "") },
		"accept":     func() (lane.Host, error) { return r.Accept(ctx, "nobody", lane.ReplacedNIC, 1, "op:t", "") },
		"provision":  func() (lane.Host, error) { return r.Provision(ctx, "nobody", lane.Provisioning{By: "op:t"}) },
	} {
		if _, err := do(); lane.CodeOf(err) != lane.NotFound {
			t.Errorf("%s of nobody: %v", verb, err)
		}
	}
	events, err := r.Events(ctx, "node1", 0, 1000)
	r.must(err)
	for _, want := range []lane.Kind{lane.KindEnrolled, lane.KindArmed, lane.KindQuarantined, lane.KindReleased, lane.KindCancelled, lane.KindRetired, lane.KindUpdated} {
		i := slices.IndexFunc(events, func(e lane.Event) bool { return e.Kind == want })
		if i < 0 || events[i].By != "op:t" || events[i].Surface != lane.SurfaceAPI {
			t.Errorf("%s is not on record as the operator's", want)
		}
	}
}

func TestAcceptNIC(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	f := loaderFacts()
	f.MAC, f.MACs = "52:54:00:00:00:07", []lane.MAC{"52:54:00:00:00:07"}
	_, d, err := r.Script(t.Context(), f, false)
	r.must(err)
	if d.Reason != lane.IdentityMismatch || len(d.Mismatch) != 1 || d.Mismatch[0].Name != "mac" {
		t.Fatalf("%+v", d)
	}
	h, err := r.Accept(t.Context(), "node1", lane.ReplacedNIC, r.host("node1").Rev, "op:t", "ticket 7")
	if err != nil || h.State != lane.StateNew || !slices.Equal(h.Identity.MACs, []lane.MAC{mac1, "52:54:00:00:00:07"}) {
		t.Fatalf("%s, %v, %v", h.State, h.Identity.MACs, err)
	}
	if e := r.last("node1", lane.KindAccepted); e.By != "op:t" || !strings.Contains(e.Message, "52:54:00:00:00:07") || !strings.Contains(e.Message, "ticket 7") {
		t.Errorf("it left %+v", e)
	}
	if _, d, err := r.Script(t.Context(), f, false); err != nil || d.Reason != lane.HostNew {
		t.Errorf("%s, %v", d.Reason, err)
	}
}

func TestImportKinds(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	changed := spec("node1")
	changed.Role = "storage"
	for _, c := range []struct {
		name      string
		specs     []lane.Host
		check     bool
		add, chg  []lane.HostID
		unchanged []lane.HostID
	}{
		{"only a check", []lane.Host{spec("node1")}, true, nil, nil, nil},
		{"new", []lane.Host{spec("node1")}, false, []lane.HostID{"node1"}, nil, nil},
		{"the same, and another", []lane.Host{spec("node1"), other("node2")}, false, []lane.HostID{"node2"}, nil, []lane.HostID{"node1"}},
		{"changed", []lane.Host{changed}, false, nil, []lane.HostID{"node1"}, nil},
	} {
		out, problems, err := r.Import(ctx, c.specs, "op:t", c.check)
		if err != nil || problems != nil || !slices.Equal(out.Added, c.add) || !slices.Equal(out.Changed, c.chg) || !slices.Equal(out.Unchanged, c.unchanged) {
			t.Fatalf("%s: %+v, %v, %v", c.name, out, problems, err)
		}
	}
	if got := r.host("node1"); got.Role != "storage" || got.Hostname != "node1" || got.Arch != lane.X86_64 {
		t.Errorf("%+v", got)
	}
	thief := other("node3")
	thief.Identity.UUID = ""
	r.provision("node1", lane.Provisioning{})
	_, problems, err := r.Import(ctx, []lane.Host{spec("node1"), thief, {ID: "node4", Hostname: "node2"}}, "op:t", false)
	r.must(err)
	var got []string
	for _, p := range problems {
		got = append(got, p.Field)
	}
	// Every problem at once: of the records alone, between them, with those that are there, and with what is under way.
	want := []string{"hosts[2].identity.macs", "hosts[0].id", "hosts[1].identity.macs", "hosts[1].identity.serial", "hosts[2].hostname"}
	if !slices.Equal(got, want) {
		t.Errorf("problems %q, want %q", problems, want)
	}
	if hosts, err := r.Hosts(ctx, "", 10); err != nil || len(hosts) != 2 {
		t.Errorf("%d records, %v", len(hosts), err)
	}
}

// TestImportProblemsKeepTheirOrder: a file with the same problems is told them the same way.
func TestImportProblemsKeepTheirOrder(t *testing.T) {
	r := newRig(t)
	c := spec("c") // collides with both others
	c.Identity = lane.Identity{UUID: uuid1.Swapped(), MACs: []lane.MAC{mac2}, Serial: "S2"}
	for range 20 {
		_, problems, err := r.Import(t.Context(), []lane.Host{spec("a"), other("b"), c}, "op:t", true)
		r.must(err)
		if len(problems) != 3 || !strings.HasSuffix(problems[0].Message, "by a") || !strings.HasSuffix(problems[2].Message, "by b") {
			t.Fatalf("problems %q", problems)
		}
	}
}

// TestReservations6: the NIC says whose an IPv6 address is, and the UUID where no NIC is
// known; a NIC that is another's is not overruled by it.
func TestReservations6(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	a := netip.MustParseAddr("fd77::21")
	r.Networks = []control.Network{{IPv6: lane.Subnet{Prefix: netip.MustParsePrefix("fd77::/64"), Server: netip.MustParseAddr("fd77::1")}}}
	withAddress := spec("node1")
	withAddress.Network.Address6 = a
	r.enrol(withAddress, other("node2"))
	for _, c := range []struct {
		f    lane.Facts
		want netip.Addr
	}{{lane.Facts{MAC: mac1}, a}, {lane.Facts{UUID: uuid1}, a}, {lane.Facts{UUID: uuid1.Swapped()}, a}, {lane.Facts{MAC: mac2, UUID: uuid1}, netip.Addr{}}, {lane.Facts{}, netip.Addr{}}} {
		if got, _, err := r.Reserved6(ctx, c.f); err != nil || got != c.want {
			t.Errorf("%+v has %s, %v", c.f, got, err)
		}
	}
	for addr, want := range map[string]bool{"fd77::21": true, "fd77::22": false} {
		if got, err := r.Holder6(ctx, netip.MustParseAddr(addr)); err != nil || got != want {
			t.Errorf("%s is held: %v, %v", addr, got, err)
		}
	}
	r.Lease(lane.Facts{UUID: uuid1}, "REQUEST", "leased fd77::21")
	if e := r.last("node1", lane.KindLease); e.Message != "leased fd77::21" {
		t.Errorf("the lease left %+v", e)
	}
	clash := other("node3")
	clash.Identity, clash.Network.Address6 = lane.Identity{MACs: []lane.MAC{"52:54:00:00:00:33"}}, a
	_, problems, err := r.Import(ctx, []lane.Host{clash}, "op:t", true)
	if err != nil || !slices.ContainsFunc(problems, func(p lane.Problem) bool {
		return p.Field == "hosts[0].network.address6" && strings.Contains(p.Message, "is also claimed by node1")
	}) {
		t.Errorf("%v, %v", problems, err)
	}
	_, err = r.Retire(ctx, "node1", "op:t", "")
	r.must(err)
	if got, err := r.Holder6(ctx, a); err != nil || got {
		t.Errorf("a retired machine holds its address: %v", err)
	}
}

func TestReservations(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	a := netip.MustParseAddr("10.0.0.21")
	withAddress := spec("node1")
	withAddress.Network.Address = a
	r.enrol(withAddress, other("node2"))
	for m, want := range map[lane.MAC]netip.Addr{mac1: a, mac2: {}, "52:54:00:00:00:99": {}} {
		if got, _, err := r.Reserved(ctx, m); err != nil || got != want {
			t.Errorf("%s has %s, %v", m, got, err)
		}
	}
	for addr, want := range map[string]bool{"10.0.0.21": true, "10.0.0.22": false} {
		if got, err := r.Holder(ctx, netip.MustParseAddr(addr)); err != nil || got != want {
			t.Errorf("%s is held: %v, %v", addr, got, err)
		}
	}
	r.Lease(lane.Facts{MAC: mac1, Surface: lane.SurfaceDHCP, Speaker: lane.SpeakerROM}, "REQUEST", "leased 10.0.0.21")
	if e := r.last("node1", lane.KindLease); e.Name != "REQUEST" || e.Message != "leased 10.0.0.21" || e.By != "dhcp" {
		t.Errorf("the lease left %+v", e)
	}
	r.Lease(lane.Facts{MAC: "52:54:00:00:00:99"}, "REQUEST", "leased 10.0.0.99")
	if e := r.last("52-54-00-00-00-99", lane.KindLease); e.Subject != "mac:52:54:00:00:00:99" {
		t.Errorf("the unknown machine's lease left %+v", e)
	}
	_, err := r.Retire(ctx, "node1", "op:t", "")
	r.must(err)
	if got, _, err := r.Reserved(ctx, mac1); err != nil || got.IsValid() {
		t.Errorf("a retired machine keeps %s, %v", got, err)
	}
	if got, err := r.Holder(ctx, a); err != nil || got {
		t.Errorf("a retired machine holds its address: %v", err)
	}
}

func TestUnknownMachines(t *testing.T) {
	r := newRig(t)
	f := romFacts()
	f.MAC, f.UUID = "52:54:00:00:00:99", "99999999-0000-4000-8000-000000000001"
	for range 3 {
		d, err := r.Ask(t.Context(), f)
		if err != nil || d.Action != lane.Hold || d.Reason != lane.UnknownMachine {
			t.Fatalf("%+v, %v", d, err)
		}
		r.pass(time.Second)
	}
	subjects, err := r.Unknown(t.Context())
	if err != nil || len(subjects) != 1 || subjects[0].Subject != "mac:52:54:00:00:00:99" || subjects[0].Lines != 1 || subjects[0].Heard.IsZero() {
		t.Fatalf("%v, %v", subjects, err)
	}
	if hosts, err := r.Hosts(t.Context(), "", 10); err != nil || len(hosts) != 0 {
		t.Errorf("an unknown machine made %d records", len(hosts))
	}
	for _, name := range []string{"52-54-00-00-00-99", "mac:52:54:00:00:00:99"} {
		v, err := r.Why(t.Context(), name)
		if err != nil || v.Rule != string(lane.UnknownMachine) || v.Evidence == nil || v.Evidence.Count != 3 || !strings.Contains(v.Next, "host import") {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
	for _, name := range []string{"nobody", "52-54-00-00-00-98"} {
		if _, err := r.Why(t.Context(), name); lane.CodeOf(err) != lane.NotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.enrol(spec("node1"))
	if v, err := r.Why(t.Context(), string(mac1)); err != nil || v.Subject != "node1" {
		t.Errorf("a MAC does not lead to its host: %+v, %v", v, err)
	}
}

func TestRender(t *testing.T) {
	r := newRig(t)
	odd := spec("node1")
	odd.Identity.AssetTag, odd.Network.Address = "it's $(x)", netip.MustParseAddr("10.0.0.21")
	bare := other("node2")
	bare.Bundle = ""
	r.enrol(odd, bare)
	bodies := func(id lane.HostID) map[string]string {
		files, err := r.Render(t.Context(), id)
		r.must(err)
		out := map[string]string{}
		for _, f := range files {
			if strings.HasPrefix(f.Path, "/") || strings.Contains(f.Path, "..") || out[f.Path] != "" {
				t.Errorf("the path %q", f.Path)
			}
			out[f.Path] = f.Body
		}
		return out
	}
	full := bodies("node1")
	for path, want := range map[string]string{
		"inventory.env":                     "HOST_ASSET_TAG='it'\\''s $(x)'\n",
		"dhcp/direct-pxe.conf":              "dhcp-host=52:54:00:00:00:01,node1,10.0.0.21\n",
		"dhcp/proxy-pxe.conf":               ",proxy\n",
		"tftp/autoexec.ipxe":                "#!ipxe\n",
		"http/boot/node1.ipxe":              "\nkernel http://10.0.0.1:8080/run/",
		"http/bootstrap/node1.sh":           "#!/bin/sh\n",
		"http/seed/node1/firstboot.service": "ExecStart=",
	} {
		if !strings.Contains(full[path], want) {
			t.Errorf("%s lacks %q:\n%s", path, want, full[path])
		}
	}
	if got := bodies("node2"); len(got) != 4 || got["http/boot/node2.ipxe"] != "" {
		t.Errorf("a host without a bundle gets %d files", len(got))
	}
	if _, err := r.Render(t.Context(), "nobody"); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("%v", err)
	}
}

// broken is the real store of which one part does not answer.
type broken struct {
	*store.Store
	part string
}

func (b broken) down(part string) error {
	if b.part == part {
		return lane.Errorf(lane.Unavailable, "the database does not answer")
	}
	return nil
}

func (b broken) Claimants(ctx context.Context, claims []string) ([]lane.Host, error) {
	if err := b.down("claims"); err != nil {
		return nil, err
	}
	return b.Store.Claimants(ctx, claims)
}

func (b broken) ByCapability(ctx context.Context, c string) (lane.Host, error) {
	if err := b.down("capability"); err != nil {
		return lane.Host{}, err
	}
	return b.Store.ByCapability(ctx, c)
}

func (b broken) LeaseAt(ctx context.Context, a netip.Addr) (lane.LeaseOf, error) {
	if err := b.down("lease"); err != nil {
		return lane.LeaseOf{}, err
	}
	return b.Store.LeaseAt(ctx, a)
}

func (b broken) Append(ctx context.Context, h lane.Host, e lane.Event) (lane.Host, lane.Event, error) {
	if err := b.down("append"); err != nil {
		return h, e, err
	}
	return b.Store.Append(ctx, h, e)
}

func (b broken) Witness(ctx context.Context, e lane.Event) error {
	if err := b.down("witness"); err != nil {
		return err
	}
	return b.Store.Witness(ctx, e)
}

// TestPartsOfTheStoreDown: whichever part does not answer, nothing that installs
// leaves unless what it stands on was read and what it does is on record.
func TestPartsOfTheStoreDown(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	h := r.provision("node1", lane.Provisioning{})
	b, err := r.Bundles.Get(h.Run.Bundle)
	r.must(err)
	ctx := t.Context()
	for _, c := range []struct {
		part  string
		holds []string // what must not be answered then
	}{
		{"append", []string{"ask", "script"}},
		{"claims", []string{"ask", "script", "file", "seed", "order"}},
		{"capability", []string{"file", "seed", "order"}},
		{"witness", []string{"file", "seed", "order"}},
		{"lease", []string{"file", "seed", "order"}},
	} {
		if c.part == "claims" { // from here on, the run has begun
			r.must(r.store.PutLease(ctx, lane.Lease{MAC: mac1, Address: netip.MustParseAddr("10.0.0.9"), State: lane.LeaseActive}, netip.Addr{}))
			elsewhere := loaderFacts()
			elsewhere.From = "10.0.0.8" // the script's address is not the installer's: its lease counts
			_, _, err := r.Script(ctx, elsewhere, false)
			r.must(err)
		}
		cfg := r.Config
		cfg.Store = broken{r.store, c.part}
		half := control.New(cfg)
		for name, ask := range map[string]func() (installs bool, err error){
			"ask": func() (bool, error) {
				d, err := half.Ask(ctx, romFacts())
				return d.Action == lane.Install, err
			},
			"script": func() (bool, error) {
				body, d, err := half.Script(ctx, loaderFacts(), false)
				return d.Action == lane.Install && len(body) > 0, err
			},
			"file": func() (bool, error) {
				f, err := half.File(ctx, lane.RunPath{Capability: h.Run.Capability, Asset: lane.AssetFile, Digest: b.Files["linux"].Digest, Name: "linux"}, installerFacts())
				return f.Digest != "" && err == nil, err
			},
			"seed": func() (bool, error) {
				d, err := half.Seed(ctx, lane.RunPath{Capability: h.Run.Capability, Asset: lane.AssetSeed, Name: "firstboot.sh"}, installerFacts())
				return len(d.Body) > 0 && err == nil, err
			},
			"order": func() (bool, error) {
				o, err := half.Order(ctx, h.Run.Capability, hardware(lane.Disk{Name: "vda", Serial: "D1", SizeBytes: 1e9}), installerFacts())
				return o.Action == lane.Install && err == nil, err
			},
		} {
			if !slices.Contains(c.holds, name) {
				continue
			}
			if installs, err := ask(); installs || lane.CodeOf(err) != lane.Unavailable {
				t.Errorf("%s without %s: installs %v, %v", name, c.part, installs, err)
			}
		}
	}
	if got := r.host("node1"); got.State != lane.StateProvisioning || got.Run.BootsUsed != 1 {
		t.Errorf("%s with %d boots used", got.State, got.Run.BootsUsed)
	}
}

// TestBundleGone: a bundle that disappears after the grant ends in a local boot.
func TestBundleGone(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	h := r.provision("node1", lane.Provisioning{})
	cfg := r.Config
	cfg.Bundles = noBundles{}
	bare := control.New(cfg)
	_, d, err := bare.Script(t.Context(), loaderFacts(), false)
	if err != nil || d.Reason != lane.BundleMissing || d.Action != lane.LocalBoot {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := bare.Seed(t.Context(), lane.RunPath{Capability: h.Run.Capability, Asset: lane.AssetSeed, Name: "firstboot.sh"}, installerFacts()); lane.CodeOf(err) != lane.Refused {
		t.Errorf("%v", err)
	}
}

type noBundles struct{ control.Bundles }

func (noBundles) Get(lane.Digest) (lane.Bundle, error) {
	return lane.Bundle{}, lane.Errorf(lane.NotFound, "no such bundle")
}

// TestNoRandomness: without it there is no capability, and so no grant.
func TestNoRandomness(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	cfg := r.Config
	cfg.Rand = strings.NewReader("too short")
	if _, err := control.New(cfg).Provision(t.Context(), "node1", lane.Provisioning{By: "op:t"}); err == nil || r.host("node1").State != lane.StateNew {
		t.Errorf("%v", err)
	}
}

// TestConcurrentVerbs: operators and machines at once never lose a change, and
// every number of the evidence is given once.
func TestConcurrentVerbs(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	h := r.provision("node1", lane.Provisioning{Boots: 2})
	r.script(lane.Install)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := r.report(h, lane.StageInstaller, i+1, lane.StatusProgress); err != nil && lane.CodeOf(err) != lane.Conflict {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := r.Ask(t.Context(), romFacts()); err != nil && lane.CodeOf(err) != lane.Conflict {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got := r.host("node1")
	if got.State != lane.StateProvisioning || got.Run.BootsUsed != 1 || got.Run.Stage != lane.StageInstaller {
		t.Errorf("%s at %s with %d boots used", got.State, got.Run.Stage, got.Run.BootsUsed)
	}
	events, err := r.Events(t.Context(), "node1", 0, 1000)
	r.must(err)
	if bad, ok := lane.VerifyChain(events); !ok {
		t.Errorf("the chain breaks at %d", bad.Seq)
	}
}

// TestRunExpires: the closing of expired runs goes on by itself, and ends with its context.
func TestRunExpires(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"), other("node2"))
	r.provision("node1", lane.Provisioning{For: time.Minute})
	r.provision("node2", lane.Provisioning{For: time.Hour})
	r.pass(2 * time.Minute)
	r.must(r.Expire(t.Context()))
	if a, b := r.host("node1"), r.host("node2"); a.State != lane.StateFailed || b.State != lane.StateProvisioning {
		t.Errorf("%s and %s", a.State, b.State)
	}
	if e := r.last("node1", lane.KindExpired); e.By != "server" || e.Surface != lane.SurfaceSelf {
		t.Errorf("it left %+v", e)
	}
	v, err := r.Why(t.Context(), "node1")
	if err != nil || v.Rule != string(lane.RunExpired) || !strings.Contains(v.Because, "not asked for anything") {
		t.Errorf("%+v, %v", v, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Run(ctx); err != nil {
		t.Error(err)
	}
}

// TestNoLease: a machine that DHCP has no address for is told so by `why`, until it gets one.
func TestNoLease(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	f := lane.Facts{Surface: lane.SurfaceDHCP, Speaker: lane.SpeakerROM, MAC: "52:54:00:00:00:01"}
	why := func() string {
		v, err := r.Why(t.Context(), "node1")
		r.must(err)
		return v.Rule
	}
	r.NoLease(f, "DISCOVER", "every address is leased")
	if got := why(); got != "no-address" {
		t.Errorf("after a refusal: %s", got)
	}
	r.Lease(f, "REQUEST", "leased 10.0.0.21")
	if got := why(); got != "not-provisioned" {
		t.Errorf("after a lease: %s", got)
	}
}

// TestWrittenInQuarantine: one spoofed DISCOVER sets a record aside while its machine
// installs. What the machine has written is known all the same: it is not installed twice.
func TestWrittenInQuarantine(t *testing.T) {
	r := newRig(t)
	r.bundle(lane.SeedImage)
	r.enrol(spec("node1"))
	h := r.provision("node1", lane.Provisioning{})
	r.script(lane.Install)
	r.must(r.report(h, lane.StageKernel, 1, lane.StatusOK))
	r.must(r.report(h, lane.StageInstaller, 1, lane.StatusOK))
	spoofed := lane.Facts{Surface: lane.SurfaceDHCP, Speaker: lane.SpeakerROM, MAC: h.Identity.MACs[0], UUID: "99999999-8888-4777-8666-555555555555"}
	if _, err := r.Ask(t.Context(), spoofed); err != nil || r.host("node1").State != lane.StateQuarantine {
		t.Fatal(r.host("node1").State, err)
	}
	r.must(r.report(h, lane.StageDiskWritten, 1, lane.StatusOK))
	_, err := r.Release(t.Context(), "node1", "op:t", "spoofed")
	r.must(err)
	r.pass(time.Hour / 2)
	r.script(lane.LocalBoot)
}

// TestLoaderLoop: PX-16. A machine that loads its loader and never runs it is not given
// it for ever.
func TestLoaderLoop(t *testing.T) {
	t.Run("PX-16 the same loader again and again", func(t *testing.T) {
		r := newRig(t)
		p := lane.BootPath{MAC: "52:54:00:00:00:77", Platform: lane.Platform{Arch: lane.X86_64, Firmware: lane.UEFI}, File: filepath.Base(r.Loaders[lane.Platform{Arch: lane.X86_64, Firmware: lane.UEFI}][0])}
		load := func() error {
			f, err := r.Boot(t.Context(), p, lane.Facts{Surface: lane.SurfaceTFTP})
			if err == nil {
				r.must(f.Close())
				r.Loaded(p)
			}
			r.pass(10 * time.Second)
			return err
		}
		for range 4 {
			r.must(load())
		}
		if err := load(); lane.CodeOf(err) != lane.Refused || !strings.Contains(err.Error(), "loader-loop") {
			t.Fatalf("the fifth load: %v", err)
		}
		if e := r.last("mac:52:54:00:00:00:77", lane.KindRefused); e.Reason != lane.LoaderLoop {
			t.Errorf("%+v", e)
		}
		r.pass(2 * time.Minute)
		r.must(load())
		f := loaderFacts()
		f.MAC, f.MACs = p.MAC, nil
		for range 6 { // a loader that runs every time, and asks, is none
			_, _, err := r.Script(t.Context(), f, false)
			r.must(err)
			r.must(load())
		}
	})
}
