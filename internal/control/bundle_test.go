package control_test

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bootlane/internal/bundle"
	"bootlane/internal/lane"
	"bootlane/internal/trust"
)

// made builds a bundle's directory: sys of a version.
func (r *rig) made(version, extra string) string {
	r.t.Helper()
	dir := filepath.Join(r.dir, "sys-"+version)
	r.must(os.MkdirAll(dir, 0o755))
	for _, f := range []string{"linux", "initrd"} {
		r.must(os.WriteFile(filepath.Join(dir, f), []byte(version+" "+f), 0o644))
	}
	r.must(os.WriteFile(filepath.Join(dir, bundle.ManifestName), []byte("name: sys\nversion: \""+version+"\"\nos: debian\narch: x86_64\nseed: nocloud/1\nkernel: linux\ninitrd: initrd\n"+extra), 0o644))
	_, err := bundle.Build(r.t.Context(), dir)
	r.must(err)
	return dir
}

func (r *rig) imported(version string) lane.Bundle {
	r.t.Helper()
	b, err := r.BundleImport(r.t.Context(), lane.BundleImport{Dir: r.made(version, ""), By: "op:t"})
	r.must(err)
	return b
}

// refused expects a Refused error that says why.
func refused(t *testing.T, what string, err error, says string) {
	t.Helper()
	if lane.CodeOf(err) != lane.Refused || !strings.Contains(err.Error(), says) {
		t.Errorf("%s: %v, want a refusal that says %q", what, err, says)
	}
}

// kernel asks for the kernel of node1's run, as its machine does.
func (r *rig) kernel() error {
	r.t.Helper()
	h := r.host("node1")
	b, err := r.Bundles.Get(h.Run.Bundle)
	r.must(err)
	_, err = r.File(r.t.Context(), lane.RunPath{Capability: h.Run.Capability, Asset: lane.AssetFile, Digest: b.Files["linux"].Digest, Name: "linux"}, installerFacts())
	return err
}

// TestAliasPins: a host names an alias; its run is bound to the bundle that the alias meant
// when it was granted, whatever happens to the alias in mid-install.
func TestAliasPins(t *testing.T) {
	r := newRig(t)
	one, two := r.imported("1"), r.imported("2")
	_, err := r.AliasMove(t.Context(), "stable", lane.AliasMove{Bundle: "sys-1", By: "op:t", Why: "first"})
	r.must(err)
	h := spec("node1")
	h.Bundle = "stable"
	r.enrol(h)
	r.provision("node1", lane.Provisioning{})
	r.script(lane.Install)
	a, err := r.AliasMove(t.Context(), "stable", lane.AliasMove{Bundle: "sys-2", By: "op:u", Why: "tested"})
	r.must(err)
	if a.Target.Bundle != two.Digest || a.By != "op:u" || len(a.Before) != 1 {
		t.Errorf("moved: %+v", a)
	}
	if e := r.last("alias:stable", lane.KindUpdated); e.By != "op:u" || e.Digest != two.Digest || !strings.Contains(e.Message, "points at sys-2, and no longer at sys-1: tested") {
		t.Errorf("the move left %+v", e)
	}
	r.pass(5 * time.Second)
	r.script(lane.Install)
	if got := r.host("node1").Run; got.Bundle != one.Digest || got.BundleName != "sys-1" {
		t.Errorf("the run is bound to %s", got.BundleName)
	}
	r.must(r.kernel())
	_, err = r.Cancel(t.Context(), "node1", "op:t", "")
	r.must(err)
	if got := r.provision("node1", lane.Provisioning{Reinstall: true}).Run; got.Bundle != two.Digest {
		t.Errorf("the next run is bound to %s", got.BundleName)
	}

	_, err = r.AliasMove(t.Context(), "stable", lane.AliasMove{Bundle: "sys-1", By: "op:t"})
	refused(t, "back by hand", err, "sys-1 is a rollback")
	_, err = r.AliasMove(t.Context(), "stable", lane.AliasMove{Bundle: "sys-1", AllowRollback: true, By: "op:t"})
	if lane.CodeOf(err) != lane.Invalid {
		t.Errorf("a rollback without a reason: %v", err)
	}
	back, err := r.AliasRollback(t.Context(), "stable", "op:t", "panics")
	r.must(err)
	if back.Target.Bundle != one.Digest || len(back.Before) != 0 {
		t.Errorf("rolled back: %+v", back)
	}
	_, err = r.AliasRollback(t.Context(), "stable", "op:t", "more")
	refused(t, "once too often", err, "nothing to go back to")
	_, err = r.AliasMove(t.Context(), "sys-1", lane.AliasMove{Bundle: "sys-2", By: "op:t"})
	refused(t, "a bundle's name", err, "is the name of a bundle")
	_, err = r.AliasMove(t.Context(), "../x", lane.AliasMove{Bundle: "sys-2", By: "op:t"})
	if lane.CodeOf(err) != lane.Invalid {
		t.Errorf("no name: %v", err)
	}
	_, err = r.AliasRemove(t.Context(), "stable", "op:t", "unused")
	r.must(err)
	if _, err := r.Provision(t.Context(), "node1", lane.Provisioning{By: "op:t", Reinstall: true}); err == nil || !strings.Contains(err.Error(), `"stable"`) {
		t.Errorf("the alias is gone: %v", err)
	}
}

// TestRevoked: a bundle that is revoked is refused everywhere, in mid-install too.
func TestRevoked(t *testing.T) {
	r := newRig(t)
	r.imported("1")
	r.enrol(spec("node1"))
	r.provision("node1", lane.Provisioning{Bundle: "sys-1"})
	r.script(lane.Install)
	r.must(r.kernel())
	if _, err := r.BundleRevoke(t.Context(), "sys-1", "op:t", ""); lane.CodeOf(err) != lane.Invalid {
		t.Errorf("without a reason: %v", err)
	}
	if _, err := r.BundleRevoke(t.Context(), "sys-1", "op:t", "CVE-2026-1"); err != nil {
		t.Error(err)
	}
	if v, err := r.Why(t.Context(), "node1"); err != nil || v.Rule != "bundle-refused" || !strings.Contains(v.Because, "sys-1 is revoked since 2026-05-04 03:02:01Z by op:t: CVE-2026-1") || !strings.Contains(v.Next, "bootlane cancel node1") {
		t.Errorf("why, before the machine asks again: %+v, %v", v, err)
	}
	refused(t, "in mid-install", r.kernel(), "bundle-refused: sys-1 is revoked since 2026-05-04 03:02:01Z by op:t: CVE-2026-1")
	r.pass(5 * time.Second)
	r.script(lane.LocalBoot)
	if d, err := r.Ask(t.Context(), romFacts()); err != nil || d.Action != lane.LocalBoot || d.Reason != lane.BundleRefused {
		t.Errorf("%+v, %v", d, err)
	}
	if v, err := r.Why(t.Context(), "node1"); err != nil || !strings.Contains(v.Rule+" "+v.Because, "bundle-refused") || !strings.Contains(v.Because, "sys-1 is revoked") {
		t.Errorf("why: %+v, %v", v, err)
	}
	_, err := r.Cancel(t.Context(), "node1", "op:t", "")
	r.must(err)
	_, err = r.Provision(t.Context(), "node1", lane.Provisioning{Bundle: "sys-1", By: "op:t", Reinstall: true})
	refused(t, "provision", err, "bundle: sys-1 is revoked")
	_, err = r.BundleImport(t.Context(), lane.BundleImport{Dir: r.made("1", ""), By: "op:t"})
	refused(t, "import", err, "is revoked")
	_, err = r.BundleApprove(t.Context(), "sys-1", "op:t", "")
	refused(t, "approve", err, "is revoked, and stays so")
	_, err = r.AliasMove(t.Context(), "stable", lane.AliasMove{Bundle: "sys-1", By: "op:t"})
	refused(t, "alias", err, "is revoked")
}

// TestRevocationConcerns: whoever revokes a bundle is told whom that stops, and whom it does
// not stop any more.
func TestRevocationConcerns(t *testing.T) {
	r := newRig(t)
	b := r.imported("1")
	_, err := r.AliasMove(t.Context(), "stable", lane.AliasMove{Bundle: "sys-1", By: "op:t"})
	r.must(err)
	byAlias, byName := spec("node1"), other("node2")
	byAlias.Bundle, byName.Bundle = "stable", "sys-1"
	r.enrol(byAlias, byName)
	r.provision("node1", lane.Provisioning{})
	r.imported("2")
	got, err := r.BundleRevoke(t.Context(), "sys-1", "op:t", "CVE")
	r.must(err)
	want := lane.Revocation{BundleRecord: got.BundleRecord, Stopped: []lane.HostID{"node1"}, Written: []lane.HostID{}, Hosts: []lane.HostID{"node1", "node2"}, Aliases: []string{"stable"}}
	if fmt.Sprint(got) != fmt.Sprint(want) || got.State != lane.BundleRevoked || got.Digest != b.Digest {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, err = r.BundleRevoke(t.Context(), "sys-2", "op:t", "too"); err != nil || len(got.Stopped)+len(got.Written)+len(got.Hosts)+len(got.Aliases) != 0 {
		t.Errorf("one that nobody names concerns %+v, %v", got, err)
	}
	if v, err := r.Why(t.Context(), "node2"); err != nil || v.Rule != "not-provisioned" || !strings.Contains(v.Because, "sys-1 is revoked since") {
		t.Errorf("why, of one that only names it: %+v, %v", v, err)
	}
}

// TestExpired: a bundle's last day is the same for import, provision and serving.
func TestExpired(t *testing.T) {
	r := newRig(t)
	dir := r.made("1", "expires: 2026-05-04T04:00:00Z\n")
	_, err := r.BundleImport(t.Context(), lane.BundleImport{Dir: dir, By: "op:t"})
	r.must(err)
	r.enrol(spec("node1"), other("node2"))
	r.provision("node1", lane.Provisioning{Bundle: "sys-1"})
	r.script(lane.Install)
	r.must(r.kernel())
	r.pass(time.Hour)
	refused(t, "serving", r.kernel(), "sys-1 expired at 2026-05-04 04:00:00Z")
	_, err = r.Provision(t.Context(), "node2", lane.Provisioning{Bundle: "sys-1", By: "op:t"})
	refused(t, "provision", err, "expired")
	_, err = r.BundleImport(t.Context(), lane.BundleImport{Dir: dir, By: "op:t"})
	refused(t, "import", err, "expired")
}

// TestRollback: a version that is lower than one on record comes in on purpose only, and
// that is on record; one that was put into the store's directory is not served.
func TestRollback(t *testing.T) {
	r := newRig(t)
	r.imported("9")
	r.imported("10")
	_, err := r.BundleImport(t.Context(), lane.BundleImport{Dir: r.made("9", ""), By: "op:t"}) // it is there: nothing new comes in
	r.must(err)
	dir := r.made("8", "")
	_, err = r.BundleImport(t.Context(), lane.BundleImport{Dir: dir, By: "op:t"})
	refused(t, "import", err, "sys-8 would be a rollback: version 10 of sys is on record")
	if _, err := r.BundleImport(t.Context(), lane.BundleImport{Dir: dir, AllowRollback: true, By: "op:t"}); lane.CodeOf(err) != lane.Invalid {
		t.Errorf("without a reason: %v", err)
	}

	behind, err := bundle.NewStore(filepath.Join(r.dir, "bundles"), nil) // whoever can write there
	r.must(err)
	_, err = behind.Import(t.Context(), dir, func(lane.Bundle, bool) error { return nil })
	r.must(err)
	r.Bundles, err = bundle.NewStore(filepath.Join(r.dir, "bundles"), nil)
	r.must(err)
	r.enrol(spec("node1"))
	_, err = r.Provision(t.Context(), "node1", lane.Provisioning{Bundle: "sys-8", By: "op:t"})
	refused(t, "behind our back", err, "sys-8 was never imported, and version 10 of sys is on record")

	_, err = r.BundleGC(t.Context(), false, "op:t") // takes 8 and 9
	r.must(err)
	_, err = r.BundleImport(t.Context(), lane.BundleImport{Dir: r.made("9", ""), By: "op:t"})
	refused(t, "once it was collected", err, "would be a rollback")
	_, err = r.BundleImport(t.Context(), lane.BundleImport{Dir: dir, AllowRollback: true, Why: "10 panics", By: "op:t"})
	r.must(err)
	if e := r.last("bundle:sys", lane.KindUpdated); !strings.Contains(e.Message, "sys-8 imported, a rollback behind version 10 that was allowed: 10 panics") || e.By != "op:t" {
		t.Errorf("the rollback left %+v", e)
	}
	r.provision("node1", lane.Provisioning{Bundle: "sys-8"})
	r.script(lane.Install)
	r.must(r.kernel())
}

// TestApproval: where the site wants it, only what is approved is installed.
func TestApproval(t *testing.T) {
	r := newRig(t)
	r.imported("1")
	r.BundlePolicy.Approval = true
	r.enrol(spec("node1"))
	_, err := r.Provision(t.Context(), "node1", lane.Provisioning{Bundle: "sys-1", By: "op:t"})
	refused(t, "not approved", err, "`bootlane bundle approve sys-1`")
	rec, err := r.BundleApprove(t.Context(), "sys-1", "op:boss", "tested")
	r.must(err)
	if rec.State != lane.BundleApproved || rec.By != "op:boss" {
		t.Errorf("%+v", rec)
	}
	r.provision("node1", lane.Provisioning{Bundle: "sys-1"})
	list, err := r.BundleList(t.Context())
	r.must(err)
	i := slices.IndexFunc(list, func(b lane.BundleStatus) bool { return b.Ref() == "sys-1" })
	if list[i].State != lane.BundleApproved || list[i].Why != "tested" || list[i].Refused != "" {
		t.Errorf("%+v", list[i])
	}
}

// TestGC: whatever somebody refers to stays.
func TestGC(t *testing.T) {
	r := newRig(t)
	for v := range 9 {
		r.imported(fmt.Sprint(v + 1))
	}
	_, err := r.BundleApprove(t.Context(), "sys-1", "op:t", "")
	r.must(err)
	_, err = r.AliasMove(t.Context(), "stable", lane.AliasMove{Bundle: "sys-2", By: "op:t"})
	r.must(err)
	_, err = r.AliasMove(t.Context(), "stable", lane.AliasMove{Bundle: "sys-3", By: "op:t"})
	r.must(err)
	byName, byAlias := spec("node1"), other("node2")
	byName.Bundle, byAlias.Bundle = "sys-4", "stable"
	r.enrol(byName, byAlias)
	r.provision("node1", lane.Provisioning{Bundle: "sys-5"})
	_, err = r.BundleRevoke(t.Context(), "sys-9", "op:t", "bad")
	r.must(err)

	out, err := r.BundleGC(t.Context(), true, "op:t")
	r.must(err)
	if want := []string{"sys-6", "sys-7", "sys-9"}; !slices.Equal(out.Bundles, want) || !out.Checked {
		t.Fatalf("would remove %v, want %v; kept %v", out.Bundles, want, out.Kept)
	}
	for _, why := range []string{"sys-1: approved", "sys-2: what the alias stable can be rolled back to", "sys-4: the host node1", "sys-5: the run of node1", "sys-8: the highest version of sys", "nocloud-1: the highest version of nocloud"} {
		if !slices.Contains(out.Kept, why) {
			t.Errorf("kept %v, without %q", out.Kept, why)
		}
	}
	if out, err = r.BundleGC(t.Context(), false, "op:t"); err != nil || out.Files != 12 { // 3 of each: manifest, artifact, kernel, initrd
		t.Errorf("%+v, %v", out, err)
	}
	if e := r.last("server", lane.KindUpdated); e.By != "op:t" || !strings.Contains(e.Message, "bundle gc removed 12 files") {
		t.Errorf("it left %+v", e)
	}
	r.script(lane.Install)
	r.must(r.kernel())
	if _, err := r.BundleRevoke(t.Context(), "sys-7", "op:t", "it is collected, and may still come back"); err != nil {
		t.Errorf("to revoke what is collected: %v", err)
	}
	out2, err := r.BundleFsck(t.Context(), "op:t")
	if err != nil || len(out2.Damaged) != 0 {
		t.Errorf("%+v, %v", out2, err)
	}
}

// TestTrusted: without the signatures that the trust file wants a bundle is refused at
// import, at provision and at serving; a change of the file counts at once.
func TestTrusted(t *testing.T) {
	r := newRig(t)
	key := func(seed int64) (trust.Signer, string) {
		private, public, err := trust.NewKey(rand.New(rand.NewSource(seed)), "")
		r.must(err)
		s, err := trust.FromFile(private, "")
		r.must(err)
		return s, strings.Split(strings.TrimSpace(string(public)), "\n")[1]
	}
	alice, aliceKey := key(1)
	mallory, _ := key(2)
	file := filepath.Join(r.dir, "trust.yaml")
	policy := func(version int, rest string) []byte {
		return []byte(fmt.Sprintf("version: %d\nthreshold: 1\nkeys: [{name: alice, key: %s}]\n%s", version, aliceKey, rest))
	}
	r.must(os.WriteFile(file, policy(1, ""), 0o644))
	keeper, err := trust.Open(file, filepath.Join(r.dir, "accepted"), r.clock)
	r.must(err)
	r.Bundles, err = bundle.NewStore(filepath.Join(r.dir, "signed"), keeper)
	r.must(err)
	sign := func(s trust.Signer, path, name string) {
		t.Helper()
		text, err := os.ReadFile(path)
		r.must(err)
		sig, err := s.Sign(text, "manifest.json", r.clock())
		r.must(err)
		r.must(os.WriteFile(name, sig, 0o644))
	}
	dir := r.made("1", "")
	manifest := filepath.Join(dir, bundle.CanonicalName)
	do := func() error {
		_, err := r.BundleImport(t.Context(), lane.BundleImport{Dir: dir, By: "op:t"})
		return err
	}
	refused(t, "unsigned", do(), "it is not signed")
	sign(mallory, manifest, manifest+bundle.SignatureExt)
	refused(t, "by a stranger", do(), "which the trust file does not name")
	sign(alice, file, manifest+bundle.SignatureExt)
	refused(t, "a signature of something else", do(), "does not fit")
	sign(alice, manifest, manifest+bundle.SignatureExt)
	r.must(do())

	r.enrol(spec("node1"))
	r.provision("node1", lane.Provisioning{Bundle: "sys-1"})
	r.script(lane.Install)
	r.must(r.kernel())
	status, err := r.BundleShow(t.Context(), "sys-1")
	if err != nil || !slices.Equal(status.Signers, []string{"alice"}) {
		t.Errorf("%+v, %v", status, err)
	}
	r.must(os.WriteFile(file, policy(2, "revoked: {bundles: [{digest: "+string(status.Digest)+", why: bad}]}\n"), 0o644))
	sign(alice, file, file+bundle.SignatureExt)
	refused(t, "revoked in mid-install", r.kernel(), "the trust file revokes it: bad")
	r.pass(5 * time.Second)
	r.script(lane.LocalBoot)
}

// TestDamagedInMidInstall: a file that changes on the disk of the server is refused before
// a byte of it leaves, that is on record, and every surface knows it from then on.
func TestDamagedInMidInstall(t *testing.T) {
	r := newRig(t)
	b := r.imported("1")
	r.enrol(spec("node1"))
	r.provision("node1", lane.Provisioning{Bundle: "sys-1"})
	r.script(lane.Install)
	r.must(r.kernel())
	blob := filepath.Join(r.dir, "bundles", "blobs", "sha256", strings.TrimPrefix(string(b.Files["linux"].Digest), "sha256:"))
	r.must(os.Chmod(blob, 0o644))
	r.must(os.WriteFile(blob, []byte("1 Linux"), 0o644)) // of the same size
	if err := r.kernel(); lane.CodeOf(err) != lane.Unavailable || !strings.Contains(err.Error(), "a disk, or somebody, changed it") {
		t.Errorf("the first to ask gets %v", err)
	}
	if e := r.last("node1", lane.KindRefused); !strings.Contains(e.Message, "file of sys-1: ") || e.Name != "linux" {
		t.Errorf("it left %+v", e)
	}
	refused(t, "and the next", r.kernel(), "bundle-refused: sys-1 is damaged in the store: linux")
	r.pass(5 * time.Second)
	r.script(lane.LocalBoot)
	_, err := r.BundleImport(t.Context(), lane.BundleImport{Dir: r.made("1", ""), By: "op:t"})
	r.must(err)
	r.must(r.kernel())
}
