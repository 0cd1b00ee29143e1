package lane

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// walker takes a record through verbs at random times and checks after each one
// what must hold whatever came before.
type walker struct {
	t       *testing.T
	rnd     *rand.Rand
	h       Host
	now     time.Time
	policy  Policy
	steps   []string
	granted map[RunID]Grant
	counted map[RunID]int  // install scripts that were not a repetition
	closed  map[RunID]bool // runs that ended, or wrote the disk: they never install again
	runs    int
}

// TestRandomWalks: no sequence of verbs gives a machine more than an operator granted.
func TestRandomWalks(t *testing.T) {
	installs := map[State]int{}
	for seed := range uint64(400) {
		w := walker{t: t, rnd: rand.New(rand.NewPCG(seed, 7)), now: armedAt, granted: map[RunID]Grant{}, counted: map[RunID]int{}, closed: map[RunID]bool{}}
		w.h, _ = Enrol(known(), "op:alice", w.now)
		for range 120 {
			w.step()
			installs[w.h.State]++
			if t.Failed() {
				t.Fatalf("seed %d: %s", seed, strings.Join(w.steps, "; "))
			}
		}
	}
	for _, s := range States() {
		if installs[s] < 500 {
			t.Errorf("the walks hardly came to %s: %d steps", s, installs[s])
		}
	}
}

func (w *walker) step() {
	// Mostly seconds, at times hours, now and then backwards: clocks are set.
	w.now = w.now.Add([]time.Duration{time.Second, 20 * time.Second, 5 * time.Minute, time.Hour, -time.Minute}[w.rnd.IntN(5)])
	name := []string{"update", "fail", "expire", "cancel", "quarantine", "accept", "release", "retire"}[w.rnd.IntN(8)]
	if w.rnd.IntN(5) > 0 { // what brings a run on, four times out of five
		name = []string{"arm", "observe", "boot", "report", "report", "report"}[w.rnd.IntN(6)]
	}
	before := w.h
	next, e, err := w.do(name)
	w.steps = append(w.steps, fmt.Sprintf("%s %s: %s (%v)", w.now.Format("15:04:05"), name, next.State, err))
	if err != nil || e.Kind == "" {
		w.decide()
		return
	}
	w.h = next
	checkStep(w.t, withoutTime(before, next), next, e)
	w.check(before, name)
	w.decide()
}

// withoutTime lets a step at the very moment of the one before pass checkStep.
func withoutTime(before, after Host) Host {
	if before.State != after.State && before.Changed.Equal(after.Changed) {
		before.Changed = time.Time{}
	}
	return before
}

func (w *walker) do(name string) (Host, Event, error) {
	h, now := w.h, w.now
	other := Facts{Surface: SurfaceHTTP, Speaker: SpeakerLoader, UUID: identityB.UUID, MAC: h.Identity.MACs[0], Serial: "SN-B"}
	switch name {
	case "update":
		spec := known()
		spec.Role = fmt.Sprint("role", w.rnd.IntN(3))
		next, e, _, err := Update(h, spec, "op:alice", now)
		return next, e, err
	case "arm":
		w.runs++
		g := Grant{Run: RunID(fmt.Sprint("r-", w.runs)), Capability: testCapability, By: "op:alice", For: 30 * time.Minute, Boots: 1 + w.rnd.IntN(3), Reinstall: w.rnd.IntN(2) == 0, Cluster: []string{"", "prod"}[w.rnd.IntN(2)]}
		next, e, err := Arm(h, testBundle, g, now)
		if err == nil {
			w.granted[g.Run] = g
		}
		return next, e, err
	case "observe":
		next, e, _ := Observe(h, []Stage{StageAddress, StageLoader}[w.rnd.IntN(2)], "seen", now)
		return next, e, nil
	case "boot":
		next, e, err := CountBoot(h, w.policy, now)
		if err == nil && next.Run.BootsUsed != h.Run.BootsUsed {
			w.counted[h.Run.ID]++
		}
		return next, e, err
	case "report":
		stages := Stages()[4:]
		r := Report{Run: h.Run.ID, Stage: stages[w.rnd.IntN(len(stages))], Seq: 1 + w.rnd.IntN(4), Status: []string{StatusOK, StatusProgress, StatusFailed}[w.rnd.IntN(3)], Message: "so it is"}
		if w.rnd.IntN(3) > 0 { // as a machine that works would
			r.Stage, r.Status = stages[min(max(h.Run.Stage.rank()-3, 0), len(stages)-1)], StatusOK
		}
		next, e, _, err := Apply(h, r, now)
		return next, e, err
	case "fail":
		return Fail(h, BootsSpent, "no boot left", now)
	case "expire":
		return Expire(h, "", now)
	case "cancel":
		return Cancel(h, "op:alice", "", now)
	case "quarantine":
		return Quarantine(h, Contradictions(h, other), &other, "server", "disputed", now)
	case "accept":
		return Accept(h, ReplacedBoard, "op:alice", "", now)
	case "release":
		return Release(h, "op:alice", "", now)
	}
	return Retire(h, "op:alice", "sold", now)
}

// check holds the record against what was granted.
func (w *walker) check(before Host, name string) {
	w.t.Helper()
	h, r := w.h, w.h.Run
	g, granted := w.granted[r.ID]
	if h.State == StateProvisioning && before.State != StateProvisioning && !w.now.Before(r.Deadline) {
		w.t.Errorf("%s led into provisioning after the deadline", name)
	}
	if h.State == StateProvisioning && before.State == StateQuarantine && before.Resume != StateProvisioning || h.State == StateProvisioning && !r.Open {
		w.t.Errorf("%s led into provisioning without an open run", name)
	}
	if r.ID != "" && (!granted || r.Boots != g.Boots || r.Capability != g.Capability || r.Deadline.After(r.Limit) || r.Limit.Sub(r.Armed) != DefaultLimit || r.Quiet != g.For) {
		w.t.Errorf("%s: run %s was not granted like this", name, r.ID)
	}
	if r.BootsUsed > r.Boots || w.counted[r.ID] > g.Boots || w.counted[r.ID] != r.BootsUsed {
		w.t.Errorf("%s: %d boots used, %d scripts counted, %d granted", name, r.BootsUsed, w.counted[r.ID], r.Boots)
	}
	if w.closed[r.ID] && (r.Open && !r.Stage.AtLeast(StageDiskWritten)) {
		w.t.Errorf("%s reopened run %s", name, r.ID)
	}
	if r.ID != "" && (!r.Open || r.Stage.AtLeast(StageDiskWritten)) {
		w.closed[r.ID] = true
	}
	if h.State == StateInstalled && before.State == StateProvisioning && r.Succeeded() && !before.Run.Stage.AtLeast(StageDiskWritten) {
		w.t.Errorf("%s: installed without a written disk", name)
	}
	if h.State == StateInstalled && before.State == StateProvisioning && r.ID != "" && r.Succeeded() && r.Cluster != "" && !before.Run.Stage.AtLeast(StageReady) {
		w.t.Errorf("%s: in the cluster before it was ready", name)
	}
}

// decide asks for the record's own machine, as its loader would.
func (w *walker) decide() {
	w.t.Helper()
	i := w.h.Identity
	for _, f := range []Facts{
		{Surface: SurfaceHTTP, Speaker: SpeakerLoader, UUID: i.UUID, MAC: i.MACs[0], Serial: i.Serial, AssetTag: i.AssetTag, Arch: X86_64},
		{Surface: SurfaceHTTP, Speaker: SpeakerInstaller, Run: w.h.Run.ID},
	} {
		d := Decide([]Host{w.h}, f, testBundle, w.policy, w.now)
		r := w.h.Run
		if d.Action == Install && (w.h.State != StateProvisioning || w.closed[r.ID] || !w.now.Before(r.Deadline) || w.now.Before(r.Armed)) {
			w.t.Errorf("the %s may install run %s: state %s, stage %s, closed %v", f.Speaker, r.ID, w.h.State, r.Stage, w.closed[r.ID])
		}
	}
}
