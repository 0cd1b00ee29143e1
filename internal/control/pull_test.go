package control_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bootlane/internal/bundle"
	"bootlane/internal/control"
	"bootlane/internal/lane"
)

// shelf is a registry that has bundles' directories, by NAME:VERSION.
type shelf struct {
	r       *rig
	dirs    map[string]string
	err     error  // of every question
	claims  string // the digest that it says to offer
	asked   []string
	fetched []string // files
	kept    []string
	mid     func() error // in the middle of a fetch
}

func (s *shelf) Reference(name, version string) string {
	return "reg.example/lab/" + name + ":" + version
}
func (s *shelf) Keep(refs []string) error { s.kept = refs; return nil }
func (s *shelf) Find(_ context.Context, name, version string) (control.Offer, error) {
	s.asked = append(s.asked, name+":"+version)
	dir, ok := s.dirs[name+":"+version]
	switch {
	case s.err != nil:
		return nil, s.err
	case !ok:
		return nil, lane.Errorf(lane.NotFound, "the registry does not have it")
	}
	f, err := bundle.Open(dir)
	return &offer{s, f, s.Reference(name, version)}, err
}

type offer struct {
	*shelf
	f    bundle.Folder
	from string
}

func (o *offer) Close()       {}
func (o *offer) From() string { return o.from }
func (o *offer) Digest() lane.Digest {
	if o.claims != "" {
		return lane.Digest(o.claims)
	}
	return o.f.Bundle.Digest
}

// copied makes a directory of some files.
func (o *offer) copied(names ...string) (string, error) {
	dir := o.r.t.TempDir()
	for _, n := range names {
		data, err := os.ReadFile(filepath.Join(o.f.Dir, n))
		if err = errors.Join(err, os.WriteFile(filepath.Join(dir, n), data, 0o644)); err != nil {
			return dir, err
		}
	}
	return dir, nil
}

func (o *offer) Describe(context.Context) (string, error) { return o.copied(bundle.CanonicalName) }

func (o *offer) Fetch(ctx context.Context, lacks func(lane.BundleFile) bool, tell func(done, total int64)) (string, error) {
	names := []string{bundle.CanonicalName}
	for name, f := range o.f.Bundle.Files {
		if lacks(f) {
			names, o.fetched = append(names, name), append(o.fetched, name)
		}
	}
	tell(3, 21)
	if o.mid != nil {
		if err := errors.Join(o.mid(), ctx.Err()); err != nil {
			return "", err
		}
	}
	return o.copied(names...)
}

// shelved is a rig whose site has a registry.
func shelved(t *testing.T) (*rig, *shelf) {
	r := newRig(t)
	s := &shelf{r: r, dirs: map[string]string{}}
	r.Registry = s
	return r, s
}

func (r *rig) pull() {
	r.t.Helper()
	r.must(r.Pull(r.t.Context()))
}

func (r *rig) hostNaming(ref string) {
	h := spec("node1")
	h.Bundle = ref
	r.enrol(h)
}

// refusals is how many lines of evidence say that a bundle was not to be had.
func (r *rig) refusals(subject string) (out []string) {
	r.t.Helper()
	r.must(r.store.Flush(r.t.Context()))
	events, err := r.Events(r.t.Context(), subject, 0, 100)
	r.must(err)
	for _, e := range events {
		if e.Kind == lane.KindRefused && e.By == "registry" {
			out = append(out, e.Message)
		}
	}
	return out
}

func (r *rig) fetching(ref string) *lane.BundleStatus {
	r.t.Helper()
	list, err := r.BundleList(r.t.Context())
	r.must(err)
	for _, b := range list {
		if b.Ref() == ref {
			return &b
		}
	}
	return nil
}

// TestPullThrough: provision, lacking, fetched, provision, served.
func TestPullThrough(t *testing.T) {
	r, s := shelved(t)
	dir := r.made("1", "")
	s.dirs["sys:1"] = dir
	r.hostNaming("sys-1")
	s.mid = func() error { // while it comes
		_, err := r.Provision(t.Context(), "node1", lane.Provisioning{By: "op:t"})
		refused(t, "while it comes", err, "bundle: the bundle sys-1 is not in the store: it is being fetched from reg.example/lab/sys:1, 3 of 21 bytes; try again when it is here")
		if b := r.fetching("sys-1"); b == nil || b.State != lane.BundleFetching || b.Fetch.Done != 3 || b.Fetch.Total != 21 || !b.Fetch.Active || b.Fetch.Wanted != "the host node1" {
			t.Errorf("list: %+v", b)
		}
		if b, err := r.BundleShow(t.Context(), "sys-1"); err != nil || b.State != lane.BundleFetching {
			t.Errorf("show: %+v, %v", b, err)
		}
		return nil
	}
	r.pull()
	r.provision("node1", lane.Provisioning{})
	r.script(lane.Install)
	r.must(r.kernel())
	f, err := r.Bundles.Open(r.fetching("sys-1").Files["linux"])
	r.must(err)
	got, err := io.ReadAll(f)
	r.must(errors.Join(err, f.Close()))
	if want, err := os.ReadFile(filepath.Join(dir, "linux")); err != nil || string(got) != string(want) {
		t.Errorf("served %q, want %q", got, want)
	}
	if e := r.last("bundle:sys", lane.KindUpdated); e.By != "registry" || e.Surface != lane.SurfaceSelf || e.Message != "bundle sys-1 imported: from reg.example/lab/sys:1" {
		t.Errorf("it left %+v", e)
	}
	if b := r.fetching("sys-1"); b.State != lane.BundleImported || b.Fetch != nil || b.By != "registry" {
		t.Errorf("list: %+v", b)
	}
	if len(s.kept) != 0 || !slices.Equal(s.asked, []string{"sys:1"}) {
		t.Errorf("kept %v, asked %v", s.kept, s.asked)
	}
}

// TestPullNames: a reference whose name has hyphens is looked for in every place that it may mean.
func TestPullNames(t *testing.T) {
	r, s := shelved(t)
	s.dirs["sys:1-2-x"] = r.made("1-2-x", "")
	r.hostNaming("sys-1-2-x")
	r.pull()
	r.provision("node1", lane.Provisioning{})
	s.dirs["sys:1-2-y"] = s.dirs["sys:1-2-x"] // under a tag that is another's
	_, err := r.Provision(t.Context(), "node1", lane.Provisioning{Bundle: "sys-1-2-y", By: "op:t", Reinstall: true})
	refused(t, "asked for", err, "bundle: the bundle sys-1-2-y is not in the store: it is looked for in the registry, as reg.example/lab/sys:1-2-y; try again when it is here")
	r.pull()
	_, err = r.Provision(t.Context(), "node1", lane.Provisioning{Bundle: "sys-1-2-y", By: "op:t", Reinstall: true})
	refused(t, "another's", err, "what the registry has is refused: reg.example/lab/sys:1-2-y is called sys-1-2-x in its own manifest")
	s.asked = nil
	_, err = r.Provision(t.Context(), "node1", lane.Provisioning{Bundle: "a-b-c", By: "op:t", Reinstall: true})
	refused(t, "unknown", err, "it is looked for in the registry, as reg.example/lab/a:b-c")
	r.pull()
	_, err = r.Provision(t.Context(), "node1", lane.Provisioning{Bundle: "a-b-c", By: "op:t", Reinstall: true})
	refused(t, "unknown", err, "bundle: neither the store nor the registry has a-b-c: there is no reg.example/lab/a:b-c, nor reg.example/lab/a-b:c")
	if want := []string{"a:b-c", "a-b:c"}; !slices.Equal(s.asked, want) {
		t.Errorf("asked %v", s.asked)
	}
	_, err = r.Provision(t.Context(), "node1", lane.Provisioning{Bundle: "stable", By: "op:t", Reinstall: true})
	refused(t, "no alias, no version", err, `bundle: no bundle "stable" in the store: `)
}

// TestPullMistyped: once the registry has said that it does not have a name either, everybody
// who uses it is told so, and what they may have meant; a name of which another version is on
// record is asked for first.
func TestPullMistyped(t *testing.T) {
	r, s := shelved(t)
	b := r.imported("1-a")
	_, err := r.AliasMove(t.Context(), "stable", lane.AliasMove{Bundle: "sys-1-a", By: "op:t"})
	r.must(err)
	if _, err := r.BundleShow(t.Context(), "stabel"); lane.CodeOf(err) != lane.NotFound || !strings.Contains(err.Error(), `no bundle "stabel" in the store`) || !strings.HasSuffix(err.Error(), "; did you mean stable?") {
		t.Errorf("nobody can have fetched that: %v", err)
	}
	r.hostNaming("sys-2-a")
	r.pull()
	neither := func(what string, err error, code lane.Code) {
		t.Helper()
		if want := "neither the store nor the registry has sys-2-a: there is no reg.example/lab/sys:2-a, nor reg.example/lab/sys-2:a; did you mean sys-1-a?"; lane.CodeOf(err) != code || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err = r.Provision(t.Context(), "node1", lane.Provisioning{By: "op:t"})
	neither("provision", err, lane.Refused)
	_, err = r.BundleShow(t.Context(), "sys-2-a")
	neither("show", err, lane.NotFound)
	_, err = r.BundleApprove(t.Context(), "sys-2-a", "op:t", "")
	neither("approve", err, lane.NotFound)
	_, err = r.BundleRevoke(t.Context(), "sys-2-a", "op:t", "CVE")
	neither("revoke", err, lane.NotFound)
	_, err = r.AliasMove(t.Context(), "next", lane.AliasMove{Bundle: "sys-2-a", By: "op:t"})
	neither("alias", err, lane.NotFound)
	if st := r.fetching("sys-2-a"); st == nil || st.State != lane.BundleLacking {
		t.Errorf("the list: %+v", st)
	}
	_, err = r.BundleShow(t.Context(), "sha256:"+strings.Repeat("0", 64))
	if lane.CodeOf(err) != lane.NotFound || strings.Contains(err.Error(), "mean") {
		t.Errorf("a digest: %v", err)
	}

	record := lane.BundleRecord{Digest: b.Digest[:70] + "f", Name: "sys-3", Version: "1", State: lane.BundleImported} // its files are gone
	_, err = r.store.AppendBundle(t.Context(), record, lane.Event{Subject: "bundle:sys-3", At: r.clock(), Kind: lane.KindUpdated, By: "op:t"})
	r.must(err)
	s.asked = nil
	r.hostNaming("sys-3-1-b")
	r.pull()
	if want := []string{"sys-3:1-b", "sys:3-1-b", "sys-3-1:b"}; !slices.Equal(s.asked, want) {
		t.Errorf("asked %v, want %v", s.asked, want)
	}
}

// TestPullAgain: the wait grows; an operator need not sit it out; what fails the same way
// is on record once, also over a restart.
func TestPullAgain(t *testing.T) {
	r, s := shelved(t)
	s.err = &lane.Error{Code: lane.Unavailable, Message: "ask again later", Err: errors.New("port 1")}
	r.hostNaming("sys-1")
	var at []time.Duration
	began := r.clock()
	for range 3600 {
		n := len(s.asked)
		r.pull()
		if s.err = errors.New("port " + r.clock().String()); len(s.asked) > n { // a text that differs each time
			at = append(at, r.clock().Sub(began))
		}
		r.pass(time.Second)
	}
	want := []time.Duration{0, 10, 30, 70, 150, 310, 630, 1270, 2170, 3070}
	for i := range want {
		want[i] *= time.Second
	}
	if !slices.Equal(at, want) {
		t.Errorf("tried at %v, want %v", at, want)
	}
	if got := r.refusals("bundle:sys"); len(got) != 2 { // with a code, and without
		t.Errorf("on record: %q", got)
	}
	if got := r.refusals("bundle:sys"); !strings.Contains(got[1], "cannot be fetched from the registry now: port ") {
		t.Errorf("on record: %q", got)
	}
	s.err, s.asked = nil, nil
	s.dirs["sys:1"] = r.made("1", "")
	r.pull()
	if len(s.asked) > 0 {
		t.Errorf("asked before its time: %v", s.asked)
	}
	_, err := r.Provision(t.Context(), "node1", lane.Provisioning{By: "op:t"})
	refused(t, "still waiting", err, "it cannot be fetched from reg.example/lab/sys:1 now: port ")
	r.pull()
	r.provision("node1", lane.Provisioning{})
}

// TestPullRefused: what comes is judged as by hand, before its files are fetched, and each
// refusal is on record once.
func TestPullRefused(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(r *rig, s *shelf)
		says    string
	}{
		"another digest than on record": {func(r *rig, s *shelf) {
			r.imported("1")
			r.forget("sys-1")
			s.dirs["sys:1"] = r.made("1", "args: evil\n")
		}, "a version never changes, so somebody has put another one there"},
		"a digest that is a lie": {func(r *rig, s *shelf) {
			b := r.imported("1")
			r.forget("sys-1")
			s.dirs["sys:1"], s.claims = r.made("1", "args: evil\n"), string(b.Digest)
		}, "sys-1 is on record already as"},
		"a rollback": {func(r *rig, s *shelf) {
			r.imported("2")
			s.dirs["sys:1"] = r.made("1", "")
		}, "sys-1 would be a rollback: version 2 of sys is on record"},
		"expired": {func(r *rig, s *shelf) { s.dirs["sys:1"] = r.made("1", "expires: 2026-05-01\n") }, "sys-1 expired at"},
		"revoked": {func(r *rig, s *shelf) {
			r.imported("1")
			_, err := r.BundleRevoke(t.Context(), "sys-1", "op:t", "CVE")
			r.must(err)
			r.forget("sys-1")
			s.dirs["sys:1"] = r.made("1", "")
		}, "Z by op:t: CVE"},
	} {
		t.Run(name, func(t *testing.T) {
			r, s := shelved(t)
			c.prepare(r, s)
			r.hostNaming("sys-1")
			for range 4 {
				r.pull()
				r.pass(time.Hour)
			}
			got := r.refusals("bundle:sys")
			if len(got) != 1 || !strings.HasPrefix(got[0], "bundle sys-1 is refused as the registry has it: ") || !strings.Contains(got[0], c.says) {
				t.Errorf("on record: %q", got)
			}
			if len(s.fetched) > 0 {
				t.Errorf("fetched %v", s.fetched)
			}
			if name == "revoked" && len(s.asked) > 0 {
				t.Errorf("a revoked one was asked for: %v", s.asked)
			}
			_, err := r.Provision(t.Context(), "node1", lane.Provisioning{By: "op:t"})
			refused(t, "provision", err, "what the registry has is refused: ")
			refused(t, "provision", err, c.says)
			again := control.New(r.Config) // a restart
			r.must(again.Pull(t.Context()))
			if got := r.refusals("bundle:sys"); len(got) != 1 {
				t.Errorf("after a restart on record: %q", got)
			}
		})
	}
}

// forget has the store lose a bundle, as a new one would not have it.
func (r *rig) forget(ref string) {
	r.t.Helper()
	_, err := r.Bundles.Collect(func(b lane.Bundle) bool { return b.Ref() != ref }, false)
	r.must(err)
}

// TestPullBound: what an alias or an open run is bound to by its digest comes back although a
// higher version is on record: whoever bound it has decided that.
func TestPullBound(t *testing.T) {
	r, s := shelved(t)
	one := r.imported("1")
	_, err := r.AliasMove(t.Context(), "stable", lane.AliasMove{Bundle: "sys-1", By: "op:t"})
	r.must(err)
	r.imported("2")
	s.dirs["sys:1"] = r.made("1", "")
	r.hostNaming("stable")
	r.provision("node1", lane.Provisioning{})
	r.script(lane.Install)
	r.forget("sys-1")
	if v, err := r.Why(t.Context(), "node1"); err != nil || v.Rule != "bundle-missing" || !strings.HasSuffix(v.Because, "it is being fetched from reg.example/lab/sys:1") {
		t.Errorf("why: %+v, %v", v, err)
	}
	r.pass(5 * time.Second)
	r.script(lane.LocalBoot)
	d, err := r.Ask(t.Context(), romFacts())
	if err != nil || d.Action != lane.LocalBoot || d.Reason != lane.BundleMissing || !strings.HasSuffix(d.Detail, "is not in the store: it is being fetched from reg.example/lab/sys:1") {
		t.Errorf("%+v, %v", d, err)
	}
	r.pull()
	if _, err := r.Bundles.Get(one.Digest); err != nil {
		t.Fatalf("%v; on record %q", err, r.refusals("bundle:sys"))
	}
	r.script(lane.Install)
	r.must(r.kernel())
}

// TestPullClash: a name that an alias has meanwhile is no bundle's any more.
func TestPullClash(t *testing.T) {
	r, s := shelved(t)
	r.imported("1")
	_, err := r.AliasMove(t.Context(), "stable", lane.AliasMove{Bundle: "sys-1", By: "op:t"})
	r.must(err)
	s.dirs["sys:1"] = r.made("1", "")
	r.forget("sys-1")
	_, err = r.AliasMove(t.Context(), "sys-1", lane.AliasMove{Bundle: "image-1", By: "op:t"})
	r.must(err)
	r.pull()
	if got := r.refusals("bundle:sys"); len(got) != 1 || !strings.Contains(got[0], "sys-1 is the name of an alias, which points at image-1") {
		t.Errorf("on record: %q", got)
	}
}

// TestPullMends: a damaged file is fetched again, and no other.
func TestPullMends(t *testing.T) {
	r, s := shelved(t)
	b := r.imported("1")
	s.dirs["sys:1"] = r.made("1", "")
	r.enrol(spec("node1")) // only its run names the bundle
	r.provision("node1", lane.Provisioning{Bundle: "sys-1"})
	r.script(lane.Install)
	r.must(r.kernel())
	r.pull() // nothing is lacking
	blob := filepath.Join(r.dir, "bundles", "blobs", "sha256", strings.TrimPrefix(string(b.Files["linux"].Digest), "sha256:"))
	r.must(os.Chmod(blob, 0o644))
	r.must(os.WriteFile(blob, []byte("1 Linux"), 0o644))
	if err := r.kernel(); lane.CodeOf(err) != lane.Unavailable {
		t.Errorf("a damaged kernel: %v", err)
	}
	refused(t, "meanwhile", r.kernel(), "is damaged in the store: linux")
	refused(t, "meanwhile", r.kernel(), "it is being fetched from reg.example/lab/sys:1")
	if v, err := r.Why(t.Context(), "node1"); err != nil || v.Rule != "bundle-refused" || !strings.Contains(v.Because, "is damaged in the store: linux") || !strings.HasSuffix(v.Because, "; it is being fetched from reg.example/lab/sys:1") {
		t.Errorf("why: %+v, %v", v, err)
	}
	_, err := r.Provision(t.Context(), "node1", lane.Provisioning{Bundle: "sys-1", By: "op:t", Reinstall: true})
	refused(t, "provision", err, "import it again; it is being fetched from reg.example/lab/sys:1")
	if st := r.fetching("sys-1"); st.State != lane.BundleImported || st.Fetch == nil || !strings.Contains(st.Refused, "damaged") {
		t.Errorf("list: %+v", st)
	}
	r.pull()
	r.must(r.kernel())
	if !slices.Equal(s.fetched, []string{"linux"}) {
		t.Errorf("fetched %v", s.fetched)
	}
	if st := r.fetching("sys-1"); st.Fetch != nil || st.Refused != "" {
		t.Errorf("list: %+v", st)
	}
	r.must(os.Remove(blob))
	if err := r.kernel(); lane.CodeOf(err) != lane.Unavailable {
		t.Errorf("a kernel that is gone: %v", err)
	}
	refused(t, "meanwhile", r.kernel(), "is damaged in the store: linux is missing; import it again; it is being fetched")
	r.pull()
	r.must(r.kernel())
	other := filepath.Join(r.dir, "bundles", "blobs", "sha256", strings.TrimPrefix(string(b.Files["initrd"].Digest), "sha256:"))
	r.must(os.Remove(other)) // found by nobody who asks, but by fsck
	_, err = r.BundleFsck(t.Context(), "op:t")
	r.must(err)
	r.pull()
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
}

// TestPullStops: a stop in mid-fetch is no failure, leaves what is kept, and leaks nothing.
func TestPullStops(t *testing.T) {
	r, s := shelved(t)
	s.dirs["sys:1"] = r.made("1", "")
	r.hostNaming("sys-1")
	ctx, stop := context.WithCancel(t.Context())
	s.mid = func() error { stop(); return nil }
	r.must(r.RunPull(ctx)) // it returns
	if got := r.refusals("bundle:sys"); len(got) > 0 {
		t.Errorf("on record: %q", got)
	}
	if !slices.Equal(s.kept, []string{"sys-1"}) {
		t.Errorf("kept: %v", s.kept)
	}
	s.mid = nil
	again := control.New(r.Config)
	r.must(again.Pull(t.Context()))
	r.provision("node1", lane.Provisioning{})
}

// TestPullForgets: what nobody names any more is not fetched, and what is lacking counts for no
// other verb.
func TestPullForgets(t *testing.T) {
	r, s := shelved(t)
	r.imported("1")
	for _, ref := range []string{"sys-2", "sys-3"} {
		_, err := r.Provision(t.Context(), "node1", lane.Provisioning{Bundle: ref, By: "op:t"})
		if ref == "sys-2" && lane.CodeOf(err) != lane.NotFound {
			t.Errorf("no such host: %v", err)
		}
	}
	r.hostNaming("sys-2")
	r.pull()
	out, err := r.BundleGC(t.Context(), true, "op:t")
	if err != nil || !slices.Contains(out.Kept, "sys-1: the highest version of sys") {
		t.Errorf("%+v, %v", out, err)
	}
	if _, err := r.BundleApprove(t.Context(), "sys-2", "op:t", ""); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("approved what is not here: %v", err)
	}
	h := spec("node1")
	h.Bundle = "sys-1"
	r.enrol(h)
	s.asked = nil
	r.pass(time.Hour)
	r.pull()
	if len(s.asked) > 0 || r.fetching("sys-2") != nil || len(s.kept) > 0 {
		t.Errorf("asked %v, kept %v", s.asked, s.kept)
	}
	r.enrol(other("node2"))
	_, err = r.Provision(t.Context(), "node2", lane.Provisioning{Bundle: "sys-4", By: "op:t"})
	refused(t, "asked for", err, "it is looked for in the registry")
	r.pull()
	r.pass(time.Hour)
	r.pull()
	if r.fetching("sys-4") != nil {
		t.Error("what an operator asked for once is asked for ever")
	}
}

// TestPullFirst: an error that nobody has classified is on record as well.
func TestPullFirst(t *testing.T) {
	r, s := shelved(t)
	s.err = errors.New("a wire was cut")
	r.hostNaming("sys-1")
	r.pull()
	r.pull()
	if got := r.refusals("bundle:sys"); len(got) != 1 || got[0] != "bundle sys-1 cannot be fetched from the registry now: a wire was cut" {
		t.Errorf("on record: %q", got)
	}
}
