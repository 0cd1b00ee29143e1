package control_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"bootlane/internal/bundle"
	"bootlane/internal/control"
	"bootlane/internal/lane"
	"bootlane/internal/script"
	"bootlane/internal/store"
	"bootlane/internal/store/sqlite"
	"bootlane/internal/store/storetest"
)

// counter is a source of ids that differ from each other and are the same in every run.
type counter struct {
	mu sync.Mutex
	n  byte
}

func (c *counter) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	for i := range p {
		p[i] = c.n + byte(i)
	}
	return len(p), nil
}

// rig is a Control on a real store, with a clock that tests move.
type rig struct {
	*control.Control
	t     testing.TB
	store *store.Store
	stop  func()
	mu    sync.Mutex
	now   time.Time
	dir   string
}

func (r *rig) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *rig) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, now: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC), dir: t.TempDir()}
	e, err := sqlite.Open(t.Context(), filepath.Join(r.dir, "db"))
	r.must(err)
	r.store, r.stop = storetest.Start(t, e, r.clock)
	bundles, err := bundle.NewStore(filepath.Join(r.dir, "bundles"), nil)
	r.must(err)
	loader := filepath.Join(r.dir, "snponly.efi")
	r.must(os.WriteFile(loader, []byte("a loader"), 0o644))
	r.Control = control.New(control.Config{Site: lane.InstallOptions{SSHKeys: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ops@example.org"}}, Store: r.store, Bundles: bundles, Now: r.clock, Rand: &counter{}, BaseURL: "http://10.0.0.1:8080",
		Hold: script.Hold{Wait: 30 * time.Second, Then: "local-boot"}, HoldScreen: true, Networks: []control.Network{{Interface: "eno2", BaseURL: "http://10.0.0.1:8080", Subnet: lane.Subnet{Prefix: netip.MustParsePrefix("10.0.0.0/24"), Server: netip.MustParseAddr("10.0.0.1"),
			Routers: []netip.Addr{netip.MustParseAddr("10.0.0.254")}, DNS: []netip.Addr{netip.MustParseAddr("10.0.0.53")}}}},
		Loaders: map[lane.Platform][]string{
			{Arch: lane.X86_64, Firmware: lane.UEFI}: {loader}, {Arch: lane.ARM64, Firmware: lane.UEFI}: {loader}}})
	for _, s := range lane.Seeds() {
		r.bundle(s)
	}
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// bundle imports one bundle of a seed, called after it, image-1, or changed.
func (r *rig) bundle(seed string, changes ...func(*bundle.Manifest)) {
	r.t.Helper()
	name, _, _ := strings.Cut(seed, "/")
	m := bundle.Manifest{Name: name, Version: "1", OS: "debian", Release: "bookworm", Arch: "x86_64", Seed: seed, BundleVariant: lane.BundleVariant{Kernel: "linux", Initrd: "initrd", Mirror: "http://mirror.example/debian"}}
	files := []string{"linux", "initrd"}
	switch seed {
	case lane.SeedKickstart:
		m.OS, m.Release = "rocky", "9.6"
	case lane.SeedAutoYaST:
		m.OS, m.Release = "sles", "15.6"
	case lane.SeedIgnition:
		m.OS, m.Release = "flatcar", "4230.2.4"
	case lane.SeedTalos:
		m.OS, m.Release, m.Mirror, m.Config = "talos", "1.12.0", "", "worker.yaml"
	case lane.SeedAgama:
		m.OS, m.Release, m.Args = "sles", "16.0", "root=live:http://mirror.example/agama.iso"
	}
	if seed == lane.SeedImage {
		files = append(files, "disk.raw")
		m.Image = &lane.BundleImage{File: "disk.raw", Compression: "zstd", RawDigest: lane.Digest("sha256:" + strings.Repeat("0", 64)), RawBytes: 2 << 20, RootLabel: "root"}
	}
	for _, change := range changes {
		change(&m)
	}
	dir := filepath.Join(r.dir, m.Name)
	r.must(os.MkdirAll(dir, 0o755))
	if seed == lane.SeedTalos {
		r.must(os.WriteFile(filepath.Join(dir, "worker.yaml"), []byte(workerYAML), 0o644))
	}
	for _, f := range files {
		r.must(os.WriteFile(filepath.Join(dir, f), []byte(name+" "+f), 0o644))
	}
	r.must(bundle.WriteManifest(dir, m))
	_, err := bundle.Build(r.t.Context(), dir)
	r.must(err)
	_, err = r.BundleImport(r.t.Context(), lane.BundleImport{Dir: dir, By: "op:t"})
	r.must(err)
}

const (
	uuid1 = lane.UUID("00112233-4455-6677-8899-aabbccddeeff")
	mac1  = lane.MAC("52:54:00:00:00:01")
	mac2  = lane.MAC("52:54:00:00:00:02")
)

func spec(id string) lane.Host {
	return lane.Host{ID: lane.HostID(id), Identity: lane.Identity{UUID: uuid1, MACs: []lane.MAC{mac1}, Serial: "S1"}, Disk: lane.DiskSelector{Serial: "D1"}, Bundle: "image-1"}
}

func other(id string) lane.Host {
	return lane.Host{ID: lane.HostID(id), Identity: lane.Identity{UUID: "99999999-8888-4777-8666-555555555555", MACs: []lane.MAC{mac2}, Serial: "S2"}, Disk: lane.DiskSelector{Serial: "D2"}, Bundle: "image-1"}
}

func (r *rig) enrol(specs ...lane.Host) {
	r.t.Helper()
	_, problems, err := r.Import(r.t.Context(), specs, "op:t", false)
	r.must(err)
	if len(problems) > 0 {
		r.t.Fatal(problems)
	}
}

func (r *rig) provision(id lane.HostID, p lane.Provisioning) lane.Host {
	r.t.Helper()
	p.By = "op:t"
	h, err := r.Provision(r.t.Context(), id, p)
	r.must(err)
	return h
}

func (r *rig) host(id lane.HostID) lane.Host {
	r.t.Helper()
	h, err := r.Host(r.t.Context(), id)
	r.must(err)
	return h
}

// loaderFacts is what iPXE says of node1.
func loaderFacts() lane.Facts {
	return lane.Facts{Surface: lane.SurfaceHTTP, Speaker: lane.SpeakerLoader, UUID: uuid1, MAC: mac1, MACs: []lane.MAC{mac1}, Serial: "S1", Arch: lane.X86_64, Firmware: lane.UEFI, Name: "script"}
}

func romFacts() lane.Facts {
	return lane.Facts{Surface: lane.SurfaceDHCP, Speaker: lane.SpeakerROM, UUID: uuid1, MAC: mac1, Arch: lane.X86_64, Firmware: lane.UEFI, Name: "DISCOVER"}
}

// script asks as iPXE does, and expects an answer of one kind.
func (r *rig) script(want lane.Action) string {
	r.t.Helper()
	body, d, err := r.Script(r.t.Context(), loaderFacts(), false)
	r.must(err)
	if d.Action != want || strings.Contains(string(body), "\nkernel ") != (want == lane.Install) {
		r.t.Fatalf("answer %s (%s), want %s:\n%s", d.Action, d.Reason, want, body)
	}
	return string(body)
}

func (r *rig) report(h lane.Host, stage lane.Stage, seq int, status string) error {
	return r.Report(r.t.Context(), h.Run.Capability, lane.Report{Stage: stage, Seq: seq, Status: status, Message: "m",
		Facts: lane.Facts{Surface: lane.SurfaceHTTP, Speaker: lane.SpeakerInstaller, UUID: uuid1, MAC: mac1, Serial: "S1"}})
}

func hardware(disks ...lane.Disk) lane.Hardware {
	return lane.Hardware{UUID: uuid1, Serial: "S1", Machine: "x86_64", Firmware: "uefi", BootMAC: mac1, NICs: []lane.NIC{{Name: "eth0", MAC: mac1}}, Disks: disks}
}

func installerFacts() lane.Facts {
	return lane.Facts{Surface: lane.SurfaceHTTP, Speaker: lane.SpeakerInstaller, From: "10.0.0.9"}
}

func TestWholeRun(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	r.script(lane.LocalBoot)
	h := r.provision("node1", lane.Provisioning{})
	for _, want := range []lane.Stage{lane.StageAddress, lane.StageAddress} {
		d, err := r.Ask(t.Context(), romFacts())
		r.must(err)
		if d.Action != lane.Install || r.host("node1").Run.Stage != want {
			t.Fatalf("%+v, stage %s", d, r.host("node1").Run.Stage)
		}
	}
	f, err := r.Boot(t.Context(), lane.BootPath{MAC: mac1, Platform: lane.Platform{Arch: lane.X86_64, Firmware: lane.UEFI}, File: "snponly.efi"}, lane.Facts{Surface: lane.SurfaceTFTP})
	r.must(err)
	r.must(f.Close())
	if s := r.host("node1").Run.Stage; s != lane.StageLoader {
		t.Errorf("stage %s after the loader", s)
	}
	body := r.script(lane.Install)
	if !strings.Contains(body, "bootlane.url=http://10.0.0.1:8080/run/"+h.Run.Capability) {
		t.Errorf("the agent is led nowhere:\n%s", body)
	}
	r.must(r.report(h, lane.StageKernel, 1, lane.StatusOK))
	o, err := r.Order(t.Context(), h.Run.Capability, hardware(lane.Disk{Name: "vda", Serial: "D1", SizeBytes: 1e9}), installerFacts())
	r.must(err)
	if o.Action != lane.Install || o.Image == nil || o.Disk != h.Run.Disk || len(o.Files) < 4 {
		t.Fatalf("order %+v", o)
	}
	p, ok := lane.ParseRunPath(o.Image.Path)
	if !ok {
		t.Fatal(o.Image.Path)
	}
	if file, err := r.File(t.Context(), p, installerFacts()); err != nil || file.Digest != o.Image.Digest {
		t.Errorf("%+v, %v", file, err)
	}
	for _, s := range []lane.Stage{lane.StageInstaller, lane.StageDiskWritten} {
		r.must(r.report(h, s, 1, lane.StatusOK))
	}
	r.script(lane.LocalBoot)
	if _, err := r.File(t.Context(), p, installerFacts()); lane.CodeOf(err) != lane.Refused {
		t.Errorf("the image is served after disk-written: %v", err)
	}
	for _, s := range []lane.Stage{lane.StageFirstBoot, lane.StageReady, lane.StageReady} {
		r.must(r.report(h, s, 1, lane.StatusOK))
	}
	if h := r.host("node1"); h.State != lane.StateInstalled || h.Run.Open || h.Run.BootsUsed != 1 {
		t.Errorf("%s, %+v", h.State, h.Run)
	}
	events, err := r.Events(t.Context(), "node1", 0, 1000)
	r.must(err)
	if bad, ok := lane.VerifyChain(events); !ok {
		t.Errorf("the chain breaks at %d", bad.Seq)
	}
	for _, e := range events {
		if strings.Contains(fmt.Sprintf("%+v", e), h.Run.Capability) {
			t.Errorf("the run's capability stands in the evidence: %+v", e)
		}
	}
}

func TestBootsAreCounted(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	h := r.provision("node1", lane.Provisioning{})
	for range 3 { // a lost answer is asked for again
		r.script(lane.Install)
		r.pass(5 * time.Second)
	}
	if n := r.host("node1").Run.BootsUsed; n != 1 {
		t.Fatalf("%d boots counted for one", n)
	}
	r.pass(time.Minute)
	r.script(lane.Install)
	r.must(r.report(h, lane.StageKernel, 1, lane.StatusOK))
	r.pass(time.Second)
	// The machine reported and asks again at once: that is a new boot, and there is none left.
	r.script(lane.LocalBoot)
	got := r.host("node1")
	if got.State != lane.StateFailed || got.Run.BootsUsed != 2 || got.Run.Open {
		t.Errorf("%s with %d boots used", got.State, got.Run.BootsUsed)
	}
	if err := r.report(h, lane.StageDiskWritten, 1, lane.StatusOK); lane.CodeOf(err) != lane.Refused {
		t.Errorf("a report for the closed run: %v", err)
	}
	v, err := r.Why(t.Context(), "node1")
	if err != nil || v.Rule != string(lane.BootsSpent) {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestConcurrentScriptsCountOnce(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	r.provision("node1", lane.Provisioning{Boots: 1})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, _, err := r.Script(t.Context(), loaderFacts(), false); err != nil && lane.CodeOf(err) != lane.Conflict {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := r.host("node1").Run.BootsUsed; n != 1 {
		t.Errorf("%d boots counted", n)
	}
}

func TestDeadline(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	h := r.provision("node1", lane.Provisioning{For: time.Hour})
	r.must(r.Expire(t.Context()))
	if !r.host("node1").Run.Open {
		t.Fatal("expired before its time")
	}
	r.pass(time.Hour)
	r.script(lane.LocalBoot) // whether or not the closing has run
	if got := r.host("node1"); got.State != lane.StateFailed || got.Run.Outcome != "expired" {
		t.Errorf("%s %s", got.State, got.Run.Outcome)
	}
	r.must(r.Expire(t.Context()))
	if _, err := r.Seed(t.Context(), lane.RunPath{Capability: h.Run.Capability, Asset: lane.AssetSeed, Name: "firstboot.sh"}, installerFacts()); lane.CodeOf(err) != lane.Refused {
		t.Errorf("a seed after the deadline: %v", err)
	}
}

func TestCapabilities(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	first := r.provision("node1", lane.Provisioning{Bundle: "debian-preseed-1"})
	seed := func(capability, name string) error {
		_, err := r.Seed(t.Context(), lane.RunPath{Capability: capability, Asset: lane.AssetSeed, Name: name}, installerFacts())
		return err
	}
	r.script(lane.Install)
	r.must(seed(first.Run.Capability, "preseed.cfg"))
	if err := seed(first.Run.Capability, "user-data"); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("a document of another installer: %v", err)
	}
	if err := seed(strings.Repeat("a", 32), "preseed.cfg"); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("a made-up capability: %v", err)
	}
	_, err := r.Cancel(t.Context(), "node1", "op:t", "again")
	r.must(err)
	second := r.provision("node1", lane.Provisioning{})
	if second.Run.Capability == first.Run.Capability {
		t.Fatal("two runs share a capability")
	}
	if err := seed(first.Run.Capability, "preseed.cfg"); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("the capability of an earlier run: %v", err)
	}
	if err := r.Report(t.Context(), first.Run.Capability, lane.Report{Stage: lane.StageKernel, Seq: 1, Status: "ok"}); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("a report of an earlier run: %v", err)
	}
}

func TestWrongDiskEndsTheRun(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	h := r.provision("node1", lane.Provisioning{})
	r.script(lane.Install)
	o, err := r.Order(t.Context(), h.Run.Capability, hardware(lane.Disk{Name: "vda", Serial: "DATA", SizeBytes: 1e9}), installerFacts())
	r.must(err)
	if o.Action != lane.Hold || o.Reason != lane.DiskMismatch || o.Image != nil || !strings.Contains(o.Detail, "DATA") {
		t.Errorf("%+v", o)
	}
	if got := r.host("node1"); got.State != lane.StateFailed {
		t.Errorf("%s", got.State)
	}
}

func TestForeignHardwareGetsNoOrder(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	h := r.provision("node1", lane.Provisioning{})
	r.script(lane.Install)
	hw := hardware(lane.Disk{Name: "vda", Serial: "D1", SizeBytes: 1e9})
	hw.Serial = "S9"
	o, err := r.Order(t.Context(), h.Run.Capability, hw, installerFacts())
	r.must(err)
	if o.Action != lane.Hold || o.Reason != lane.IdentityMismatch || o.Image != nil {
		t.Errorf("%+v", o)
	}
	if got := r.host("node1"); got.State != lane.StateQuarantine || len(got.Dispute) != 1 {
		t.Errorf("%s %v", got.State, got.Dispute)
	}
}

func TestDisputeQuarantinesEveryClaimedRecord(t *testing.T) {
	r := newRig(t)
	bystander := other("node3")
	bystander.Identity = lane.Identity{MACs: []lane.MAC{"52:54:00:00:00:03"}}
	r.enrol(spec("node1"), other("node2"), bystander)
	r.provision("node1", lane.Provisioning{})
	f := loaderFacts()
	f.MACs = []lane.MAC{mac2} // node1's UUID with a NIC of node2
	f.MAC = mac2
	body, d, err := r.Script(t.Context(), f, false)
	r.must(err)
	if d.Reason != lane.IdentityAmbiguous || bytes.Contains(body, []byte("\nkernel ")) {
		t.Fatalf("%+v", d)
	}
	for id, want := range map[lane.HostID]lane.State{"node1": lane.StateQuarantine, "node2": lane.StateQuarantine, "node3": lane.StateNew} {
		if got := r.host(id).State; got != want {
			t.Errorf("%s is %s, want %s", id, got, want)
		}
	}
	r.script(lane.Hold) // the right machine, too, waits for the operator
	if _, err := r.Accept(t.Context(), "node1", lane.ReplacedNIC, r.host("node1").Rev, "op:t", ""); lane.CodeOf(err) != lane.Refused {
		t.Errorf("accepting a NIC that is another record's: %v", err)
	}
	_, err = r.Release(t.Context(), "node1", "op:t", "sorted out")
	r.must(err)
	r.script(lane.Install)
}

func TestAcceptTakesTheFullestAccount(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	r.provision("node1", lane.Provisioning{})
	rom := romFacts()
	rom.UUID = "99999999-8888-4777-8666-555555555555"
	_, err := r.Ask(t.Context(), rom)
	r.must(err)
	full := loaderFacts()
	full.UUID, full.Serial = rom.UUID, "S-NEW"
	_, _, err = r.Script(t.Context(), full, false)
	r.must(err)
	if got := r.host("node1"); got.State != lane.StateQuarantine || len(got.Dispute) != 2 {
		t.Fatalf("%s %v", got.State, got.Dispute)
	}
	looked := r.host("node1").Rev
	if _, err := r.Accept(t.Context(), "node1", lane.ReplacedBoard, looked-1, "op:t", ""); lane.CodeOf(err) != lane.Refused {
		t.Errorf("accepted what nobody looked at: %v", err)
	}
	h, err := r.Accept(t.Context(), "node1", lane.ReplacedBoard, looked, "op:t", "new board")
	r.must(err)
	if h.State != lane.StateProvisioning || h.Identity.UUID != rom.UUID || h.Identity.Serial != "S-NEW" {
		t.Errorf("%s %s", h.State, h.Identity)
	}
}

func TestPreflightNamesEverything(t *testing.T) {
	r := newRig(t)
	bad := other("node1")
	bad.Disk, bad.Bundle, bad.Identity.MACs, bad.Arch = lane.DiskSelector{}, "debian-9", nil, lane.ARM64
	r.enrol(bad)
	_, err := r.Provision(t.Context(), "node1", lane.Provisioning{By: "op:t"})
	var e *lane.Error
	if !errors.As(err, &e) || e.Code != lane.Refused || len(e.Problems) < 3 {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{"disk: no disk selector", "identity.macs: no boot MAC", `bundle: no bundle "debian-9" in the store`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %q", err, want)
		}
	}
	if _, err := r.Provision(t.Context(), "node1", lane.Provisioning{By: "op:t", Bundle: "image-1"}); !strings.Contains(err.Error(), "arch: the machine is arm64") {
		t.Errorf("%v", err)
	}
	for _, p := range []lane.Provisioning{{For: time.Second}, {For: 1000 * time.Hour}, {Boots: -1}, {Boots: 99}} {
		if _, err := r.Provision(t.Context(), "node1", p); lane.CodeOf(err) != lane.Invalid {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if got := r.host("node1"); got.State != lane.StateNew {
		t.Errorf("%s after all these refusals", got.State)
	}
}

func TestImportIsAllOrNothing(t *testing.T) {
	r := newRig(t)
	thief := spec("node2") // claims node1's identity
	_, problems, err := r.Import(t.Context(), []lane.Host{spec("node1"), thief, {ID: "Bad"}}, "op:t", false)
	r.must(err)
	if len(problems) < 4 {
		t.Errorf("%v", problems)
	}
	if _, err := r.Host(t.Context(), "node1"); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("a part was stored: %v", err)
	}
	r.enrol(spec("node1"))
	swap1, swap2 := spec("node1"), other("node2")
	r.enrol(swap2)
	swap1.Identity.MACs, swap2.Identity.MACs = swap2.Identity.MACs, swap1.Identity.MACs
	r.enrol(swap1, swap2) // within one file two records may exchange what they claim
	if got := r.host("node1").Identity.MACs[0]; got != mac2 {
		t.Errorf("%s", got)
	}
}

func TestStoreDown(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	h := r.provision("node1", lane.Provisioning{})
	r.stop()
	if d, err := r.Ask(t.Context(), romFacts()); err == nil || d.Action != lane.Hold {
		t.Errorf("Ask: %+v, %v", d, err)
	}
	if body, d, err := r.Script(t.Context(), loaderFacts(), false); err == nil || d.Action == lane.Install || len(body) > 0 {
		t.Errorf("Script: %+v, %v", d, err)
	}
	if o, err := r.Order(t.Context(), h.Run.Capability, hardware(), installerFacts()); err == nil || o.Action == lane.Install {
		t.Errorf("Order: %+v, %v", o, err)
	}
	if _, err := r.Seed(t.Context(), lane.RunPath{Capability: h.Run.Capability, Asset: lane.AssetSeed, Name: "firstboot.sh"}, installerFacts()); lane.CodeOf(err) != lane.Unavailable {
		t.Errorf("Seed: %v", err)
	}
}

// TestUnrecordedIsNotServed: readable, but not writable. What installs waits for its record.
func TestUnrecordedIsNotServed(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	r.provision("node1", lane.Provisioning{})
	full := control.New(r.Config)
	full.Store = unwritable{r.store}
	if body, _, err := full.Script(t.Context(), loaderFacts(), false); err == nil || len(body) > 0 {
		t.Errorf("an install script left without a record: %v", err)
	}
	if n := r.host("node1").Run.BootsUsed; n != 0 {
		t.Errorf("%d boots counted", n)
	}
}

// TestPreflightNamesTheField: what keeps an installer's documents from being written is told
// by the field that is to be mended, each by itself.
func TestPreflightNamesTheField(t *testing.T) {
	r := newRig(t)
	r.Site.Timezone, r.Site.Locale = new("Mars City"), new("no such thing")
	r.enrol(spec("node1"))
	_, err := r.Provision(t.Context(), "node1", lane.Provisioning{By: "op:t", Bundle: "nocloud-1"})
	for _, want := range []string{"\n  - site.timezone: \"Mars City\" is not in the tz database", "\n  - site.locale: \"no such thing\" is not a name"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %q", err, want)
		}
	}
	if err != nil && strings.Contains(err.Error(), "seed") {
		t.Errorf("it speaks of no field: %v", err)
	}
}

// TestPreflightLints: what the linter calls an error is refused, with document, line and rule,
// beside everything else.
func TestPreflightLints(t *testing.T) {
	r := newRig(t)
	r.Site.User = new("www-data") // a good name, and Debian's own
	bad := spec("node1")
	bad.Disk = lane.DiskSelector{}
	r.enrol(bad)
	_, err := r.Provision(t.Context(), "node1", lane.Provisioning{By: "op:t", Bundle: "nocloud-1"})
	for _, want := range []string{"\n  - user-data:10:15: the user name \"www-data\" is one of the system's own [user-name-reserved]: take another name", "disk: no disk selector"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %q", err, want)
		}
	}
	if _, err := r.Provision(t.Context(), "node1", lane.Provisioning{By: "op:t", Bundle: "image-1"}); err == nil || strings.Contains(err.Error(), "user-name-reserved") {
		t.Errorf("a text that nobody reads: %v", err)
	}
}

// unwritable is the real store with a full disk under it.
type unwritable struct{ *store.Store }

func (unwritable) Append(_ context.Context, h lane.Host, e lane.Event) (lane.Host, lane.Event, error) {
	return h, e, lane.Errorf(lane.Unavailable, "disk full")
}

func (unwritable) Witness(context.Context, lane.Event) error {
	return lane.Errorf(lane.Unavailable, "disk full")
}

func TestLookingAheadLeavesNoTrace(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"), other("node2"))
	h := r.provision("node1", lane.Provisioning{})
	before, err := r.Events(t.Context(), "node1", 0, 1000)
	r.must(err)
	for range 3 {
		answers, err := r.WhatIf(t.Context(), "node1")
		r.must(err)
		for _, a := range answers {
			if a.Action != lane.Install {
				t.Errorf("%+v", a)
			}
		}
		census, err := r.WhatIfAll(t.Context())
		r.must(err)
		if census.Hosts != 2 || len(census.Erased) != 1 || census.Erased[0].Host != "node1" {
			t.Errorf("%+v", census)
		}
		files, err := r.Render(t.Context(), "node1")
		r.must(err)
		if len(files) < 6 {
			t.Errorf("%d files", len(files))
		}
		for _, f := range files {
			if strings.Contains(f.Body, h.Run.Capability) {
				t.Errorf("%s holds the run's capability", f.Path)
			}
		}
	}
	after, err := r.Events(t.Context(), "node1", 0, 1000)
	r.must(err)
	if len(after) != len(before) || r.host("node1").Rev != h.Rev {
		t.Errorf("%d events became %d", len(before), len(after))
	}
}
