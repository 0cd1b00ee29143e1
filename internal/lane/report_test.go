package lane

import (
	"maps"
	"strings"
	"testing"
	"time"
)

// running is a record whose run has reached a stage.
func running(t *testing.T, at Stage) Host {
	t.Helper()
	h := in(t, StateProvisioning)
	h.Run.Stage, h.Run.StageAt = at, armedAt.Add(time.Minute)
	h.Run.Reports, h.Run.Done, h.Run.Total = map[Stage]int{}, 3, 4
	for _, s := range Stages() {
		if s.AtLeast(StageKernel) && at.AtLeast(s) {
			h.Run.Reports[s] = 2
		}
	}
	return h
}

func TestApply(t *testing.T) {
	const done = "the machine is well"
	for _, c := range []struct {
		name   string
		at     Stage
		report Stage
		seq    int
		status string
		// What becomes of it: a stage reached, a kind of evidence, a state; or a refusal.
		stage Stage
		kind  Kind
		state State
		code  Code
	}{
		{"first report", StageScript, StageKernel, 1, StatusOK, StageKernel, KindStage, StateProvisioning, ""},
		{"next stage", StageKernel, StageInstaller, 1, StatusOK, StageInstaller, KindStage, StateProvisioning, ""},
		{"agent skips the kernel report", StageScript, StageInstaller, 1, StatusOK, StageInstaller, KindStage, StateProvisioning, ""},
		{"progress", StageInstaller, StageInstaller, 3, StatusProgress, StageInstaller, KindProgress, StateProvisioning, ""},
		{"progress opens a stage", StageKernel, StageInstaller, 1, StatusProgress, StageInstaller, KindProgress, StateProvisioning, ""},
		{"disk written", StageInstaller, StageDiskWritten, 1, StatusOK, StageDiskWritten, KindStage, StateProvisioning, ""},
		{"installer that reports only twice", StageKernel, StageDiskWritten, 1, StatusOK, StageDiskWritten, KindStage, StateProvisioning, ""},
		{"first boot", StageDiskWritten, StageFirstBoot, 1, StatusOK, StageFirstBoot, KindStage, StateProvisioning, ""},
		{"ready", StageFirstBoot, StageReady, 1, StatusOK, StageReady, KindInstalled, StateInstalled, ""},
		{"ready without a word before", StageDiskWritten, StageReady, 1, StatusOK, StageReady, KindInstalled, StateInstalled, ""},
		{"failed", StageInstaller, StageInstaller, 3, StatusFailed, StageInstaller, KindFailed, StateFailed, ""},
		{"failed, told late", StageInstaller, StageKernel, 3, StatusFailed, StageInstaller, KindFailed, StateFailed, ""},
		{"failed at once", StageScript, StageKernel, 1, StatusFailed, StageScript, KindFailed, StateFailed, ""},

		{"again", StageInstaller, StageInstaller, 2, StatusOK, StageInstaller, "", StateProvisioning, ""},
		{"failure again", StageInstaller, StageInstaller, 2, StatusFailed, StageInstaller, "", StateProvisioning, ""},
		{"old sequence", StageInstaller, StageInstaller, 1, StatusProgress, StageInstaller, "", StateProvisioning, ""},
		{"stage already passed", StageDiskWritten, StageInstaller, 9, StatusOK, StageDiskWritten, "", StateProvisioning, ""},
		{"progress of a stage already passed", StageDiskWritten, StageInstaller, 9, StatusProgress, StageDiskWritten, "", StateProvisioning, ""},

		{"disk written without an installer", StageScript, StageDiskWritten, 1, StatusOK, "", "", "", Refused},
		{"first boot without a disk", StageInstaller, StageFirstBoot, 1, StatusOK, "", "", "", Refused},
		{"ready without a disk", StageInstaller, StageReady, 1, StatusOK, "", "", "", Refused},
		{"failed first boot without a disk", StageInstaller, StageFirstBoot, 1, StatusFailed, "", "", "", Refused},
		{"kernel before any script", StageLoader, StageKernel, 1, StatusOK, "", "", "", Refused},
		{"a stage that only the server sees", StageScript, StageLoader, 1, StatusOK, "", "", "", Invalid},
		{"armed", StageScript, StageArmed, 1, StatusOK, "", "", "", Invalid},
		{"unknown stage", StageScript, "dance", 1, StatusOK, "", "", "", Invalid},
		{"no sequence", StageScript, StageKernel, 0, StatusOK, "", "", "", Invalid},
		{"no status", StageScript, StageKernel, 1, "", "", "", "", Invalid},
		{"unknown status", StageScript, StageKernel, 1, "splendid", "", "", "", Invalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, now := running(t, c.at), armedAt.Add(time.Hour)
			r := Report{Run: "r-1", Stage: c.report, Seq: c.seq, Status: c.status, Message: done, Done: 5, Total: 10}
			next, e, news, err := Apply(h, r, now)
			if CodeOf(err) != c.code {
				t.Fatalf("got %v, want %q", err, c.code)
			}
			if news != (c.kind != "") {
				t.Fatalf("news %v", news)
			}
			if !news {
				if jsonOf(t, next) != jsonOf(t, h) {
					t.Errorf("no news, but changed to %s", jsonOf(t, next))
				}
				return
			}
			if next.Run.Stage != c.stage || next.State != c.state || e.Kind != c.kind || e.Stage != c.report || e.Message != done || !e.At.Equal(now) {
				t.Errorf("stage %s, state %s, evidence %+v", next.Run.Stage, next.State, e)
			}
			if by := "installer"; c.report.AtLeast(StageFirstBoot) != (e.By == "first-boot") || e.By != by && e.By != "first-boot" {
				t.Errorf("by %q", e.By)
			}
			if progress := c.status == StatusProgress; progress && (next.Run.Done != 5 || next.Run.Total != 10) ||
				c.stage != c.at && (!next.Run.StageAt.Equal(now) || !progress && next.Run.Done+next.Run.Total != 0) {
				t.Errorf("run %+v", next.Run)
			}
			repeated(t, h, next, r, now)
		})
	}
}

// repeated: every report may come twice, and the second time nothing happens.
func repeated(t *testing.T, before, after Host, r Report, now time.Time) {
	t.Helper()
	if maps.Equal(before.Run.Reports, after.Run.Reports) {
		t.Error("the report was not noted as seen")
	}
	again, _, news, err := Apply(after, r, now.Add(time.Minute))
	if err != nil || news || jsonOf(t, again) != jsonOf(t, after) {
		t.Errorf("the same report again: news %v, %v", news, err)
	}
}

func TestApplyToOtherRuns(t *testing.T) {
	closed := in(t, StateFailed)
	closed.Run.Reports = map[Stage]int{StageKernel: 3}
	for _, c := range []struct {
		name string
		h    Host
		run  RunID
		seq  int
		code Code
	}{
		{"another run", running(t, StageScript), "r-2", 1, Refused},
		{"no run", known(), "", 1, Refused},
		{"closed", closed, "r-1", 4, Refused},
		{"closed, sent again", closed, "r-1", 3, ""},
		{"in quarantine", in(t, StateQuarantine), "r-1", 1, Refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			next, _, news, err := Apply(c.h, Report{Run: c.run, Stage: StageKernel, Seq: c.seq, Status: StatusOK}, armedAt.Add(time.Hour))
			if CodeOf(err) != c.code || news || jsonOf(t, next) != jsonOf(t, c.h) {
				t.Errorf("news %v, %v", news, err)
			}
		})
	}
}

// TestApplyAfterTheEnd: the closing report may come again; its opposite is another report.
func TestApplyAfterTheEnd(t *testing.T) {
	now := armedAt.Add(time.Hour)
	for _, c := range []struct{ first, then string }{{StatusOK, StatusOK}, {StatusOK, StatusFailed}, {StatusFailed, StatusFailed}, {StatusFailed, StatusOK}} {
		h := running(t, StageFirstBoot)
		h = applied(t, h, Report{Run: "r-1", Stage: StageReady, Seq: 1, Status: c.first}, now)
		next, _, news, err := Apply(h, Report{Run: "r-1", Stage: StageReady, Seq: 1, Status: c.then}, now)
		if news || (err == nil) != (c.first == c.then) || err != nil && CodeOf(err) != Refused || next.State != h.State {
			t.Errorf("%s, then %s: news %v, %v, %s", c.first, c.then, news, err, next.State)
		}
	}
}

// TestApplyKeepsMessagesHarmless: a report's text reaches terminals and pages.
func TestApplyKeepsMessagesHarmless(t *testing.T) {
	r := Report{Run: "r-1", Stage: StageKernel, Seq: 1, Status: StatusFailed, Message: "a\x1b[31mb\r\n\x00c\u202e" + strings.Repeat("x", 1<<16)}
	next, e, _, err := Apply(running(t, StageScript), r, armedAt.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{e.Message, next.Note} {
		if strings.ContainsFunc(s, unprintable) || len(s) > 600 || !strings.Contains(s, "a[31mbc") {
			t.Errorf("%d bytes: %.40q", len(s), s)
		}
	}
}

func TestExpire(t *testing.T) {
	for _, c := range []struct {
		name string
		h    Host
		at   time.Duration
		want State
		then State // after release from quarantine
	}{
		{"before", in(t, StateProvisioning), 2*time.Hour + time.Minute - 1, "", ""}, // it made progress after a minute,
		{"at the deadline", in(t, StateProvisioning), 2*time.Hour + time.Minute, StateFailed, ""},
		{"in quarantine", in(t, StateQuarantine), 3 * time.Hour, StateQuarantine, StateFailed},
		{"in quarantine, before", in(t, StateQuarantine), time.Hour, "", ""},
		{"twice", must(Expire(in(t, StateQuarantine), "", later))(t), 101 * time.Hour, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := armedAt.Add(c.at)
			next, e, err := Expire(c.h, "", now)
			if c.want == "" {
				if CodeOf(err) != Refused {
					t.Fatalf("not refused: %v", err)
				}
				return
			}
			if err != nil || next.State != c.want || next.Run.Open || next.Run.Outcome != "expired" || e.Kind != KindExpired || e.Reason != RunExpired {
				t.Fatalf("%v, state %s, run %+v, evidence %+v", err, next.State, next.Run, e)
			}
			if c.want == StateFailed && !strings.Contains(next.Note, string(StageScript)) {
				t.Errorf("the note %q does not say how far it came", next.Note)
			}
			if next.State == StateQuarantine && next.Resume != StateFailed {
				t.Errorf("will return to %s", next.Resume)
			}
			if c.then != "" {
				if back := must(Release(next, "op:alice", "", now))(t); back.State != c.then || back.Run.Open {
					t.Errorf("released to %s", back.State)
				}
			}
		})
	}
}

func TestCancel(t *testing.T) {
	for _, c := range []struct {
		name string
		h    Host
		want State
	}{
		{"before any boot", must(Arm(known(), testBundle, testGrant, later))(t), StateNew},
		{"reinstall before any boot", must(Arm(in(t, StateInstalled), testBundle, testGrant, later))(t), StateInstalled},
		{"after a failure, before any boot", must(Arm(in(t, StateFailed), testBundle, testGrant, later))(t), StateFailed},
		{"after a boot", in(t, StateProvisioning), StateFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			next, e, err := Cancel(c.h, "op:alice", "wrong rack", later)
			if err != nil || next.State != c.want || next.Run.Open || next.Run.Outcome != "cancelled" {
				t.Fatalf("%v, state %s, run %+v", err, next.State, next.Run)
			}
			if e.Kind != KindCancelled || e.By != "op:alice" || !strings.Contains(e.Message, "wrong rack") {
				t.Errorf("evidence %+v", e)
			}
		})
	}
}

func TestCancelInQuarantine(t *testing.T) {
	touched := in(t, StateQuarantine)
	fresh := must(Quarantine(must(Arm(in(t, StateInstalled), testBundle, testGrant, armedAt))(t), nil, nil, "op:alice", "smoke", armedAt))(t)
	for _, c := range []struct {
		name string
		h    Host
		then State
	}{{"after a boot", touched, StateFailed}, {"before any", fresh, StateInstalled}} {
		t.Run(c.name, func(t *testing.T) {
			next, e, err := Cancel(c.h, "op:alice", "", later)
			if err != nil || next.State != StateQuarantine || next.Resume != c.then || next.Run.Open || next.Note != c.h.Note || len(next.Dispute) != len(c.h.Dispute) || e.Kind != KindCancelled {
				t.Fatalf("%v, %+v", err, next)
			}
			if back := must(Release(next, "op:alice", "", later))(t); back.State != c.then || back.Run.Open {
				t.Errorf("released to %s", back.State)
			}
			if _, _, err := Cancel(next, "op:alice", "", later); CodeOf(err) != Refused {
				t.Errorf("cancelled twice: %v", err)
			}
		})
	}
}

func TestFail(t *testing.T) {
	next, e, err := Fail(in(t, StateProvisioning), DiskMismatch, "no disk matches", later)
	if err != nil || next.State != StateFailed || next.Note != "no disk matches" || next.Run.Open || next.Run.Outcome != "failed" {
		t.Fatalf("%v, %+v", err, next)
	}
	if e.Kind != KindFailed || e.Reason != DiskMismatch || e.By != "server" || e.Message != "no disk matches" {
		t.Errorf("evidence %+v", e)
	}
}

func TestRetire(t *testing.T) {
	h := must(Retire(in(t, StateQuarantine), "op:alice", "sold", later))(t)
	if h.State != StateRetired || h.Note != "sold" || h.Run.Open || h.Run.Outcome != "cancelled" || h.Dispute != nil || h.Seen != nil || h.Resume != "" {
		t.Errorf("a run or a dispute outlives its machine: %+v", h)
	}
}

func TestParseChecks(t *testing.T) {
	got, err := ParseChecks("hostname\tfailed\tnode-a\tdebian\nswap\tskipped\t\tit is allowed\n")
	if err != nil || len(got) != 2 || got[0].String() != "hostname: expected node-a, it is debian" || got[1].String() != "swap: skipped, it is allowed" || len(FailedChecks(got)) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ParseChecks(""); err != nil || got != nil {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ParseChecks("a\tok\t\t\x1b[31m" + strings.Repeat("x", 1000)); err != nil || len(got[0].Actual) != maxCheckText || strings.Contains(got[0].Actual, "\x1b") {
		t.Errorf("%+v, %v", got, err)
	}
	for name, text := range map[string]string{"too few fields": "a\tok\tx", "too many": "a\tok\tx\ty\tz", "a name": "A b\tok\t\t", "a status": "a\tfine\t\t", "twice": "a\tok\t\t\na\tok\t\t", "an empty line": "a\tok\t\t\n\n",
		"too many lines": strings.Repeat("a\tok\t\t\n", maxChecks+1)} {
		if got, err := ParseChecks(text); CodeOf(err) != Invalid {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// TestCheckDocs: every check is described, and what nobody knows has an answer too.
func TestCheckDocs(t *testing.T) {
	for _, d := range CheckDocs() {
		if d.What == "" || d.Mend == "" || MendOf(d.Name) != d.Mend {
			t.Errorf("%+v", d)
		}
	}
	if MendOf("own-check") == "" {
		t.Error("nothing is said of an unknown check")
	}
}

// TestApplyChecks: the list of first boot is in the evidence of the report that closes the run.
func TestApplyChecks(t *testing.T) {
	list := []Check{{CheckHostname, CheckFailed, "a", "b"}}
	_, e, news, err := Apply(running(t, StageFirstBoot), Report{Run: running(t, StageFirstBoot).Run.ID, Stage: StageReady, Seq: 1, Status: StatusFailed, Checks: list}, armedAt.Add(time.Hour))
	if err != nil || !news || e.Kind != KindFailed || len(e.Checks) != 1 || e.Checks[0] != list[0] {
		t.Errorf("%+v, %v", e, err)
	}
}
