package lane

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const testCapability = "abcdefghijklmnopqrstuvwxyz234567"

var testGrant = Grant{Run: "r-1", Capability: testCapability, By: "op:alice", For: 2 * time.Hour, Boots: 2, Reinstall: true}

// known is a record with something in every field that a transition could share or lose.
func known() Host {
	return Host{ID: "node-a", State: StateNew, Rev: 7, Arch: X86_64, Role: "worker", Hostname: "node-a.example.org", Bundle: "debian-12-1",
		Identity: Identity{UUID: identityA.UUID, MACs: slices.Clone(identityA.MACs), Serial: "SN-A", AssetTag: "AT-A"},
		Disk:     DiskSelector{Serial: "DISK-A"}, Network: Network{Address: netip.MustParseAddr("10.0.0.21")},
		Install: InstallOptions{Domain: new("a.example"), User: new("ops"), PasswordHash: new(""), SSHKeys: []string{testKey}, Locale: new("C.UTF-8"), Keyboard: new("us"), Timezone: new("Etc/UTC"),
			NTP: []string{"10.0.0.1"}, Packages: []string{"htop"}, KernelArgs: []string{"quiet"}, Proxy: new("")},
		Labels: map[string]string{"rack": "r1"}, Changed: armedAt.Add(-time.Hour)}
}

var testBundle = Bundle{Digest: rightBundle, Name: "debian-12", Version: "1", Arch: X86_64}

// in returns a record that stands in a state as it would after a real history.
func in(t *testing.T, s State) Host {
	t.Helper()
	h := known()
	switch s {
	case "":
		return Host{}
	case StateNew:
		return h
	case StateRetired:
		return must(Retire(in(t, StateFailed), "op:alice", "sold", armedAt.Add(10*time.Minute)))(t)
	}
	h = must(Arm(h, testBundle, testGrant, armedAt))(t)
	h = must(CountBoot(h, Policy{}, armedAt.Add(time.Minute)))(t)
	switch s {
	case StateProvisioning:
		h.Run.Reports = map[Stage]int{StageKernel: 1}
	case StateFailed:
		h = must(Fail(h, DiskMismatch, "no such disk", armedAt.Add(2*time.Minute)))(t)
	case StateQuarantine:
		h = must(Quarantine(h, []Signal{{"uuid", "a", "b", h.ID}}, &Facts{UUID: identityB.UUID, MACs: slices.Clone(h.Identity.MACs)}, "server", "disputed", armedAt.Add(2*time.Minute)))(t)
	case StateInstalled:
		for i, stage := range []Stage{StageKernel, StageInstaller, StageDiskWritten, StageFirstBoot, StageReady} {
			h = applied(t, h, Report{Run: "r-1", Stage: stage, Seq: 1, Status: StatusOK}, armedAt.Add(time.Duration(i+2)*time.Minute))
		}
	}
	if h.State != s {
		t.Fatalf("the history of %s ends in %s", s, h.State)
	}
	return h
}

func must(h Host, _ Event, err error) func(t *testing.T) Host {
	return func(t *testing.T) Host {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
}

func applied(t *testing.T, h Host, r Report, now time.Time) Host {
	t.Helper()
	next, _, news, err := Apply(h, r, now)
	if err != nil || !news {
		t.Fatalf("%s: news %v, %v", r.Stage, news, err)
	}
	return next
}

// later is when every deadline of the tests has passed.
var later = armedAt.Add(100 * time.Hour)

// verbs calls every transition in the way that its arrow means, on any record.
func verbs() map[Verb]func(h Host) (Host, Event, error) {
	corrected := known()
	corrected.Role, corrected.Labels = "storage", map[string]string{"rack": "r2"}
	seen := Facts{Surface: SurfaceHTTP, Speaker: SpeakerLoader, UUID: identityB.UUID, MAC: identityA.MACs[0], MACs: []MAC{"52:54:00:00:00:c1"}, Serial: "SN-A"}
	report := func(h Host, stage Stage, status string) (Host, Event, error) {
		if stage == StageReady {
			h.Run.Stage = StageFirstBoot
		}
		next, e, _, err := Apply(h, Report{Run: h.Run.ID, Stage: stage, Seq: 2, Status: status, Message: "well"}, armedAt.Add(time.Hour))
		return next, e, err
	}
	return map[Verb]func(h Host) (Host, Event, error){
		VerbUpdate: func(h Host) (Host, Event, error) {
			next, e, _, err := Update(h, corrected, "op:alice", later)
			return next, e, err
		},
		VerbArm: func(h Host) (Host, Event, error) { return Arm(h, testBundle, testGrant, later) },
		VerbAdvance: func(h Host) (Host, Event, error) {
			if h.State == StateQuarantine {
				h.Run.Stage = StageInstaller
				return report(h, StageDiskWritten, StatusOK)
			}
			return report(h, StageInstaller, StatusOK)
		},
		VerbReady: func(h Host) (Host, Event, error) { return report(h, StageReady, StatusOK) },
		VerbConfirm: func(h Host) (Host, Event, error) {
			h.Run.Delivered = armedAt.Add(time.Minute)
			return Confirm(h, "op:alice", "it runs", later)
		},
		VerbFail:   func(h Host) (Host, Event, error) { return Fail(h, BootsSpent, "no boot left", later) },
		VerbExpire: func(h Host) (Host, Event, error) { return Expire(h, "", later) },
		VerbCancel: func(h Host) (Host, Event, error) {
			return Cancel(h, "op:alice", "changed my mind", armedAt.Add(time.Hour))
		},
		VerbQuarantine: func(h Host) (Host, Event, error) {
			return Quarantine(h, []Signal{{"uuid", "a", "b", h.ID}, {"mac", "a", "b", h.ID}}, &seen, "server", "disputed", later)
		},
		VerbAccept: func(h Host) (Host, Event, error) {
			return Accept(h, ReplacedBoard, "op:alice", "new board", armedAt.Add(time.Hour))
		},
		VerbRelease: func(h Host) (Host, Event, error) {
			return Release(h, "op:alice", "false alarm", armedAt.Add(time.Hour))
		},
		VerbRetire: func(h Host) (Host, Event, error) { return Retire(h, "op:alice", "sold", later) },
		VerbInspect: func(h Host) (Host, Event, error) {
			return WishInspect(h, later.Add(time.Hour), "op:alice", "new disks", later)
		},
	}
}

func arrow(from State, v Verb) (Transition, bool) {
	i := slices.IndexFunc(Transitions(), func(t Transition) bool { return t.From == from && t.Verb == v })
	if i < 0 {
		return Transition{}, false
	}
	return Transitions()[i], true
}

// TestTransitions: what the state diagram shows works, leads where it shows, and
// leaves evidence; what it does not show is refused. Nothing else is done to the record.
func TestTransitions(t *testing.T) {
	for verb, call := range verbs() {
		for _, from := range States() {
			t.Run(fmt.Sprintf("%s/%s", from, verb), func(t *testing.T) {
				h := in(t, from)
				before := jsonOf(t, h)
				next, e, err := call(h)
				want, allowed := arrow(from, verb)
				if allowed != Allowed(from, verb) {
					t.Fatalf("Allowed says %v", Allowed(from, verb))
				}
				if jsonOf(t, h) != before {
					t.Fatalf("the input was changed:\n%s\n%s", before, jsonOf(t, h))
				}
				if !allowed {
					if CodeOf(err) != Refused || !strings.Contains(err.Error(), "node-a") && !strings.Contains(err.Error(), "the run r-1 is closed") {
						t.Fatalf("not in the diagram, and not refused: %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if want.To != "" && next.State != want.To {
					t.Errorf("leads to %s, the diagram says %s", next.State, want.To)
				}
				checkStep(t, h, next, e)
			})
		}
	}
	for _, tr := range Transitions() {
		if _, ok := verbs()[tr.Verb]; !ok && tr.Verb != VerbEnrol {
			t.Errorf("no test calls %s", tr.Verb)
		}
		if tr.Text == "" || tr.Who == "" {
			t.Errorf("%s from %s: who and why are not said", tr.Verb, tr.From)
		}
	}
}

// checkStep checks what holds for every step between two records.
func checkStep(t *testing.T, before, after Host, e Event) {
	t.Helper()
	if after.Rev != before.Rev {
		t.Errorf("the revision went from %d to %d: that is the store's", before.Rev, after.Rev)
	}
	if after.ID != before.ID {
		t.Errorf("the record is now %q", after.ID)
	}
	if e.Subject != string(before.ID) || e.At.IsZero() || e.Kind == "" || e.By == "" || e.Message == "" || e.State != after.State || e.Run != after.Run.ID {
		t.Errorf("incomplete evidence: %+v", e)
	}
	if (after.State != before.State) != !after.Changed.Equal(before.Changed) {
		t.Errorf("%s to %s, changed %s to %s", before.State, after.State, before.Changed, after.Changed)
	}
	if after.State != StateQuarantine && (after.Dispute != nil || after.Seen != nil || after.Resume != "") {
		t.Errorf("%s, and a dispute is still on record: %+v", after.State, after)
	}
	if after.State != StateProvisioning && after.State != StateQuarantine && after.Run.Open {
		t.Errorf("%s with an open run", after.State)
	}
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestTransitionsShareNothing changes every part of an input that could be
// shared, after the step, and finds the output as it was; and the other way round.
func TestTransitionsShareNothing(t *testing.T) {
	for verb, call := range verbs() {
		for _, from := range States() {
			if !Allowed(from, verb) {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s", from, verb), func(t *testing.T) {
				h := in(t, from)
				next, e, err := call(h)
				if err != nil {
					t.Fatal(err)
				}
				record, event, input := jsonOf(t, next), jsonOf(t, e), jsonOf(t, h)
				scribble(&h)
				if jsonOf(t, next) != record || jsonOf(t, e) != event {
					t.Errorf("shares memory with its input:\n%s", cmp.Diff(record, jsonOf(t, next)))
				}
				h, _ = in(t, from), input
				next, e, _ = call(h)
				input, event = jsonOf(t, h), jsonOf(t, e)
				scribble(&next)
				if jsonOf(t, h) != input {
					t.Errorf("its input shares memory with it:\n%s", cmp.Diff(input, jsonOf(t, h)))
				}
				if jsonOf(t, e) != event {
					t.Errorf("the evidence shares memory with the record:\n%s", cmp.Diff(event, jsonOf(t, e)))
				}
			})
		}
	}
	t.Run("what was handed in", func(t *testing.T) {
		dispute, seen := []Signal{{"uuid", "a", "b", "node-a"}}, &Facts{UUID: identityB.UUID, MACs: []MAC{"52:54:00:00:00:c1"}}
		h := must(Quarantine(known(), dispute, seen, "server", "disputed", armedAt))(t)
		spec := known()
		spec.ID = "node-b"
		enrolled, _ := Enrol(spec, "op:alice", armedAt)
		spec2 := known()
		spec2.Role = "storage"
		updated, _, _, err := Update(known(), spec2, "op:alice", armedAt)
		if err != nil {
			t.Fatal(err)
		}
		all := []Host{h, enrolled, updated}
		before := jsonOf(t, all)
		dispute[0].Seen, seen.UUID, seen.MACs[0] = "scribble", "scribble", "scribble"
		scribble(&spec)
		scribble(&spec2)
		if got := jsonOf(t, all); got != before {
			t.Errorf("shares memory with what was handed in:\n%s", cmp.Diff(before, got))
		}
	})
}

// scribble writes into everything that a record refers to.
func scribble(h *Host) {
	for i := range h.Identity.MACs {
		h.Identity.MACs[i] = "scribble"
	}
	for k := range h.Labels {
		h.Labels[k] = "scribble"
	}
	o := h.Install
	for _, v := range []*string{o.Domain, o.User, o.PasswordHash, o.Locale, o.Keyboard, o.Timezone, o.Proxy} {
		*v = "scribble"
	}
	for _, list := range [][]string{o.SSHKeys, o.NTP, o.Packages, o.KernelArgs} {
		list[0] = "scribble"
	}
	for k := range h.Run.Reports {
		h.Run.Reports[k] = 99
	}
	for i := range h.Dispute {
		h.Dispute[i].Seen = "scribble"
	}
	if h.Seen != nil {
		h.Seen.UUID = "scribble"
		for i := range h.Seen.MACs {
			h.Seen.MACs[i] = "scribble"
		}
	}
}

func TestEnrol(t *testing.T) {
	spec := known()
	spec.State, spec.Rev, spec.Run, spec.Resume, spec.Note = StateProvisioning, 9, Run{ID: "r-9", Open: true}, StateNew, "smuggled"
	h, e := Enrol(spec, "op:alice", armedAt)
	want := known()
	want.Rev, want.Changed = 0, armedAt
	if diff := cmp.Diff(want, h, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("only inventory data is taken over (-want +got):\n%s", diff)
	}
	if e.Kind != KindEnrolled || e.By != "op:alice" || e.Subject != "node-a" || e.State != StateNew || !e.At.Equal(armedAt) {
		t.Errorf("evidence %+v", e)
	}
}

func TestUpdate(t *testing.T) {
	same, changed := known(), known()
	changed.Disk.Serial = "DISK-B"
	for _, c := range []struct {
		from State
		spec Host
		news bool
		to   State
		code Code
	}{
		{StateNew, same, false, StateNew, ""},
		{StateNew, changed, true, StateNew, ""},
		{StateInstalled, changed, true, StateInstalled, ""},
		{StateFailed, changed, true, StateFailed, ""},
		{StateQuarantine, changed, true, StateQuarantine, ""},
		{StateRetired, same, true, StateNew, ""},
		{StateProvisioning, same, false, StateProvisioning, ""},
		{StateProvisioning, changed, false, "", Refused},
	} {
		t.Run(fmt.Sprintf("%s %v", c.from, c.news), func(t *testing.T) {
			h := in(t, c.from)
			next, e, news, err := Update(h, c.spec, "op:alice", later)
			if CodeOf(err) != c.code || news != c.news || next.State != c.to {
				t.Fatalf("to %q, news %v, %v", next.State, news, err)
			}
			if news != (e.Kind == KindUpdated) {
				t.Errorf("news %v, evidence %+v", news, e)
			}
			if err == nil && (next.Disk != c.spec.Disk || next.Run.Disk != h.Run.Disk && c.from != StateRetired) {
				t.Errorf("disk %s, the run's %s", next.Disk, next.Run.Disk)
			}
			if c.from == StateRetired && next.Run.ID != "" {
				t.Errorf("brought back with its old run %+v", next.Run)
			}
		})
	}
}

func TestArm(t *testing.T) {
	sized := DiskSelector{SizeGB: 100}
	for _, c := range []struct {
		name string
		from State
		edit func(*Host, *Bundle, *Grant)
		code Code
		says string
	}{
		{"new", StateNew, nil, "", ""},
		{"failed", StateFailed, nil, "", ""},
		{"reinstall", StateInstalled, nil, "", ""},
		{"installed, not said", StateInstalled, func(_ *Host, _ *Bundle, g *Grant) { g.Reinstall = false }, Refused, "--reinstall"},
		{"in quarantine", StateQuarantine, nil, Refused, "bootlane why"},
		{"already", StateProvisioning, nil, Refused, "bootlane cancel"},
		{"retired", StateRetired, nil, Refused, "host import"},
		{"no deadline", StateNew, func(_ *Host, _ *Bundle, g *Grant) { g.For = 0 }, Invalid, "deadline"},
		{"deadline in the past", StateNew, func(_ *Host, _ *Bundle, g *Grant) { g.For = -1 }, Invalid, "deadline"},
		{"no boots", StateNew, func(_ *Host, _ *Bundle, g *Grant) { g.Boots = 0 }, Invalid, "boot"},
		{"no run id", StateNew, func(_ *Host, _ *Bundle, g *Grant) { g.Run = "" }, Invalid, "run id"},
		{"guessable capability", StateNew, func(_ *Host, _ *Bundle, g *Grant) { g.Capability = "short" }, Invalid, "capability"},
		{"no bundle", StateNew, func(_ *Host, b *Bundle, _ *Grant) { *b = Bundle{} }, Invalid, "bundle"},
		{"no disk", StateNew, func(h *Host, _ *Bundle, _ *Grant) { h.Disk = DiskSelector{} }, Invalid, "disk selector"},
		{"only a size", StateNew, func(h *Host, _ *Bundle, _ *Grant) { h.Disk = sized }, Invalid, "disk selector"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, b, g := in(t, c.from), testBundle, testGrant
			if c.edit != nil {
				c.edit(&h, &b, &g)
			}
			next, e, err := Arm(h, b, g, later)
			if CodeOf(err) != c.code || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v, want %q and %q", err, c.code, c.says)
			}
			if err != nil {
				if next.Run.Open || next.State == StateProvisioning {
					t.Errorf("refused, and armed: %+v", next)
				}
				return
			}
			want := Run{ID: "r-1", Open: true, By: "op:alice", Bundle: rightBundle, BundleName: "debian-12-1", Disk: h.Disk, Armed: later, Deadline: later.Add(2 * time.Hour),
				Boots: 2, From: c.from, Stage: StageArmed, StageAt: later, Capability: testCapability, Quiet: 2 * time.Hour, Limit: later.Add(DefaultLimit)}
			if diff := cmp.Diff(want, next.Run); diff != "" {
				t.Errorf("run (-want +got):\n%s", diff)
			}
			if e.Kind != KindArmed || e.Digest != rightBundle || strings.Contains(jsonOf(t, e), testCapability) {
				t.Errorf("evidence %s", jsonOf(t, e))
			}
		})
	}
}

func TestObserve(t *testing.T) {
	h := must(Arm(known(), testBundle, testGrant, armedAt))(t)
	now := armedAt.Add(time.Minute)
	for _, c := range []struct {
		name string
		at   Stage
		to   Stage
		news bool
	}{
		{"first", StageArmed, StageAddress, true},
		{"skips", StageArmed, StageLoader, true},
		{"again", StageAddress, StageAddress, false},
		{"back", StageLoader, StageAddress, false},
		{"not after the script", StageScript, StageAddress, false},
		{"never the script itself", StageLoader, StageScript, false},
		{"never later stages", StageLoader, StageDiskWritten, false},
		{"unknown", StageArmed, "dance", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := h
			h.Run.Stage = c.at
			next, e, news := Observe(h, c.to, "seen", now)
			if news != c.news || news && (next.Run.Stage != c.to || !next.Run.StageAt.Equal(now) || e.Kind != KindStage || e.Stage != c.to) || !news && next.Run.Stage != c.at {
				t.Errorf("news %v, stage %s, evidence %+v", news, next.Run.Stage, e)
			}
		})
	}
	for _, s := range States() {
		if _, _, news := Observe(in(t, s), StageLoader, "seen", now); news && s != StateProvisioning {
			t.Errorf("%s observes a run", s)
		}
	}
}

func TestCountBoot(t *testing.T) {
	fresh := must(Arm(known(), testBundle, testGrant, armedAt))(t)
	at := func(stage Stage, used int, last time.Duration) Host {
		h := fresh
		h.Run.Stage, h.Run.BootsUsed, h.Run.Reports, h.Run.Done = stage, used, map[Stage]int{StageKernel: 3}, 17
		if used > 0 {
			h.Run.LastBoot = armedAt.Add(last)
		}
		return h
	}
	closed := at(StageScript, 1, 0)
	closed.Run.Open = false
	for _, c := range []struct {
		name string
		h    Host
		at   time.Duration
		used int // 0: refused
	}{
		{"first", fresh, time.Minute, 1},
		{"second", at(StageInstaller, 1, time.Minute), time.Hour, 2},
		{"lost answer", at(StageScript, 1, time.Minute), time.Minute + 29*time.Second, 1},
		{"lost answer of the last", at(StageScript, 2, time.Minute), time.Minute + 29*time.Second, 2},
		{"spent", at(StageScript, 2, time.Minute), 2 * time.Minute, 0},
		{"rebooted within the window", at(StageKernel, 1, time.Minute), time.Minute + 20*time.Second, 2},
		{"closed", closed, time.Minute, 0},
		{"deadline", fresh, 2 * time.Hour, 0},
		{"clock before the grant", fresh, -time.Second, 0},
		{"disk written", at(StageDiskWritten, 1, time.Minute), time.Hour, 0},
		{"first boot", at(StageFirstBoot, 1, time.Minute), time.Hour, 0},
		{"unknown stage", at("dance", 1, time.Minute), time.Hour, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := armedAt.Add(c.at)
			next, e, err := CountBoot(c.h, Policy{}, now)
			if c.used == 0 {
				if CodeOf(err) != Refused {
					t.Fatalf("not refused: %v, boots %d", err, next.Run.BootsUsed)
				}
				return
			}
			if err != nil || next.Run.BootsUsed != c.used || next.Run.Stage != StageScript {
				t.Fatalf("boots %d, stage %s, %v", next.Run.BootsUsed, next.Run.Stage, err)
			}
			if counted := c.used > c.h.Run.BootsUsed; counted && (!next.Run.LastBoot.Equal(now) || next.Run.Reports != nil || next.Run.Done != 0) ||
				!counted && !next.Run.LastBoot.Equal(c.h.Run.LastBoot) {
				t.Errorf("after counting: %+v", next.Run)
			}
			if want := fmt.Sprintf("network boot %d of 2", c.used); e.Kind != KindStage || !strings.Contains(e.Message, want) {
				t.Errorf("evidence %+v, want %q", e, want)
			}
		})
	}
}

// An operator who says no reason leaves no colon that promises one; and the end of a
// run is not the time of its last stage.
func TestCancelWithoutReason(t *testing.T) {
	h := Host{ID: "node-a", State: StateProvisioning, Run: Run{ID: "r-1", Open: true, From: StateNew, Stage: StageArmed, StageAt: armedAt}}
	end := armedAt.Add(time.Hour)
	h, e, err := Cancel(h, "op:t", "", end)
	if err != nil || e.Message != "no reason given" {
		t.Errorf("%q, %v", e.Message, err)
	}
	if !h.Run.StageAt.Equal(armedAt) || !h.Run.Ended.Equal(end) {
		t.Errorf("stage at %s, ended %s", h.Run.StageAt, h.Run.Ended)
	}
	if _, e, err := Quarantine(h, nil, nil, "op:t", "", end); err != nil || e.Message != "set aside" {
		t.Errorf("%q, %v", e.Message, err)
	}
}

// TestRunEndsInQuarantine: a report that takes power away is taken also while the
// record is set aside, or the machine would be installed twice.
func TestRunEndsInQuarantine(t *testing.T) {
	for _, c := range []struct {
		name      string
		report    Report
		wantState State // after the release
		want      Action
	}{
		{"written", Report{Stage: StageDiskWritten, Status: StatusOK}, StateProvisioning, LocalBoot},
		{"failed", Report{Stage: StageInstaller, Status: StatusFailed, Message: "no"}, StateFailed, LocalBoot},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := in(t, StateProvisioning)
			h.Run.Stage = StageInstaller
			h = must(Quarantine(h, []Signal{{"uuid", "a", "b", h.ID}}, &Facts{}, "server", "disputed", armedAt))(t)
			c.report.Run, c.report.Seq = h.Run.ID, 7
			h = applied(t, h, c.report, armedAt)
			if h.State != StateQuarantine {
				t.Fatalf("the report ended the quarantine: %s", h.State)
			}
			h = must(Release(h, "op:alice", "", armedAt.Add(time.Minute)))(t)
			if h.State != c.wantState {
				t.Errorf("%s after the release, want %s", h.State, c.wantState)
			}
			f := Facts{Surface: SurfaceHTTP, Speaker: SpeakerLoader, UUID: h.Identity.UUID, MAC: h.Identity.MACs[0], Serial: h.Identity.Serial, AssetTag: h.Identity.AssetTag, Arch: X86_64, Firmware: UEFI}
			if d := Decide([]Host{h}, f, testBundle, Policy{}, armedAt.Add(time.Minute)); d.Action != c.want {
				t.Errorf("then it is told to %s: %s", d.Action, d.Reason)
			}
		})
	}
	h := in(t, StateProvisioning)
	h.Run.Stage = StageKernel
	h = must(Quarantine(h, nil, nil, "op:alice", "look", armedAt))(t)
	if _, _, _, err := Apply(h, Report{Run: h.Run.ID, Stage: StageInstaller, Seq: 1, Status: StatusProgress}, armedAt); CodeOf(err) != Refused {
		t.Errorf("a run goes on in quarantine: %v", err)
	}
}

// TestUpdateEndsTheRun: a run is granted for one machine, disk and bundle. A record
// that comes to mean others has none.
func TestUpdateEndsTheRun(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*Host)
		ends bool
		says string
	}{
		"disk":     {func(h *Host) { h.Disk = DiskSelector{Serial: "OTHER"} }, true, "disk: serial=DISK-A -> serial=OTHER"},
		"bundle":   {func(h *Host) { h.Bundle = "other-1" }, true, "-> other-1"},
		"arch":     {func(h *Host) { h.Arch = ARM64 }, true, "arch: x86_64 -> arm64"},
		"uuid":     {func(h *Host) { h.Identity.UUID = identityB.UUID }, true, "uuid: "},
		"macs":     {func(h *Host) { h.Identity.MACs = identityB.MACs }, true, "macs: "},
		"serial":   {func(h *Host) { h.Identity.Serial = "OTHER" }, true, "serial: SN-A -> OTHER"},
		"asset":    {func(h *Host) { h.Identity.AssetTag = "OTHER" }, true, "asset tag: "},
		"rack":     {func(h *Host) { h.Identity.Rack = "r9" }, false, "place: "},
		"role":     {func(h *Host) { h.Role = "other" }, false, "role: "},
		"hostname": {func(h *Host) { h.Hostname = "other" }, false, "hostname: "},
		"address":  {func(h *Host) { h.Network = Network{} }, false, "address: 10.0.0.21 -> -"},
		"install":  {func(h *Host) { h.Install = InstallOptions{NTP: []string{}} }, false, "install.ntp: 10.0.0.1 -> none"},
		"labels":   {func(h *Host) { h.Labels = map[string]string{"a": "b"} }, false, "-> a=b"},
	} {
		t.Run(name, func(t *testing.T) {
			h := must(Quarantine(in(t, StateProvisioning), nil, nil, "op:alice", "look", armedAt))(t)
			spec := known()
			c.edit(&spec)
			next, e, changed, err := Update(h, spec, "op:alice", armedAt)
			if err != nil || !changed {
				t.Fatal(changed, err)
			}
			if next.Run.Open == c.ends {
				t.Errorf("the run is open: %v", next.Run.Open)
			}
			if !strings.Contains(e.Message, c.says) || strings.Contains(e.Message, "is cancelled") != c.ends {
				t.Errorf("the evidence says %q", e.Message)
			}
			next = must(Release(next, "op:alice", "", armedAt))(t) // failed: it booted for the run, and may have half a disk
			if want := map[bool]State{true: StateFailed, false: StateProvisioning}[c.ends]; next.State != want {
				t.Errorf("after the release: %s, want %s", next.State, want)
			}
		})
	}
}
