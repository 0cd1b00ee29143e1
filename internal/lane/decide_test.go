package lane

import (
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The dimensions of everything that Decide looks at. Each is a list of labels;
// a question is one label of each. What a label means for a record stands in
// [question.ask], what it means for the answer in [question.mayInstall]: the
// two never look at each other, or at the code under test.
var dimensions = [...][]string{
	dimInventory: {"none", "A", "A and B", "A and its twin"},
	dimState:     {"new", "quarantine", "provisioning", "installed", "failed", "retired", "a state of the future"},
	dimRun:       {"open", "closed", "none"},
	dimClock:     {"inside", "at the start", "before the start", "at the deadline", "after the deadline"},
	dimStage:     {"armed", "address", "loader", "script", "kernel", "installer", "disk-written", "first-boot", "ready", "a stage of the future"},
	dimBoots:     {"left", "spent long ago", "spent just now", "given just now", "given long ago"},
	dimSpeaker:   {"rom", "loader", "installer", "first-boot"},
	dimSurface:   {"http", "dhcp", "tftp"},
	dimUUID:      {"A", "A swapped", "B", "placeholder", "absent"},
	dimMAC:       {"A", "A second", "B", "absent"},
	dimSerial:    {"A", "B", "placeholder", "absent"},
	dimCap:       {"none", "of A", "of another run"},
	dimBundle:    {"right", "missing", "another", "refused", "right, for several", "right, for other architectures"},
	dimArch:      {"fits", "another", "absent"},
	dimInspect:   {"off", "ready", "ready and asked for", "asked for until a moment ago", "refused, and asked for", "for arm64, and asked for"},
}

const (
	dimInventory = iota
	dimState
	dimRun
	dimClock
	dimStage
	dimBoots
	dimSpeaker
	dimSurface
	dimUUID
	dimMAC
	dimSerial
	dimCap
	dimBundle
	dimArch
	dimInspect
	dimCount
)

// question is one point of the space: an index into each dimension.
type question [dimCount]uint8

func (q question) is(dim int, labels ...string) bool {
	return slices.Contains(labels, dimensions[dim][q[dim]])
}

func (q question) String() string {
	var parts []string
	for d, i := range q {
		parts = append(parts, dimensions[d][i])
	}
	return strings.Join(parts, " | ")
}

var (
	armedAt   = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	identityA = Identity{UUID: "aaaaaaaa-0011-2233-8899-aabbccddeeff", MACs: []MAC{"52:54:00:00:00:a1", "52:54:00:00:00:a2"}, Serial: "SN-A"}
	identityB = Identity{UUID: "bbbbbbbb-0011-2233-8899-aabbccddeeff", MACs: []MAC{"52:54:00:00:00:b1"}, Serial: "SN-B"}
)

const (
	rightBundle   Digest = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	inspectBundle Digest = "sha256:3333333333333333333333333333333333333333333333333333333333333333"
	anotherBundle Digest = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
)

// policy is the site's, with the bundle that inspects.
func (q question) policy() Policy {
	b := Bundle{Digest: inspectBundle, Name: "agent", Version: "1", Arch: X86_64}
	switch {
	case q.is(dimInspect, "off"):
		return Policy{}
	case q.is(dimInspect, "refused, and asked for"):
		b.Refusal = "it is revoked"
	case q.is(dimInspect, "for arm64, and asked for"):
		b.Arch = ARM64
	}
	return Policy{Inspect: b}
}

// ask makes the arguments of Decide. Both records have the same life, so that a
// mistaken identity would install.
func (q question) ask() ([]Host, Facts, Bundle, time.Time) {
	now := armedAt.Add([...]time.Duration{time.Hour, 0, -time.Second, 2 * time.Hour, 3 * time.Hour}[q[dimClock]])
	record := func(id HostID, i Identity) Host {
		h := Host{ID: id, State: State(dimensions[dimState][q[dimState]]), Identity: i, Arch: X86_64}
		if !q.is(dimInspect, "off", "ready") {
			h.Inspect = now.Add(time.Minute)
		}
		if q.is(dimInspect, "asked for until a moment ago") {
			h.Inspect = now
		}
		if q.is(dimRun, "none") {
			return h
		}
		h.Run = Run{ID: "run-" + RunID(id), Open: q.is(dimRun, "open"), Bundle: rightBundle, Armed: armedAt, Deadline: armedAt.Add(2 * time.Hour),
			Stage: Stage(dimensions[dimStage][q[dimStage]]), Boots: 2, BootsUsed: 1, LastBoot: now.Add(-10 * time.Minute)}
		if !q.is(dimBoots, "left") {
			h.Run.BootsUsed = 2
		}
		switch dimensions[dimBoots][q[dimBoots]] {
		case "spent just now":
			h.Run.LastBoot = now.Add(-10 * time.Second)
		case "given just now":
			h.Run.BootsUsed, h.Run.Delivered = 1, now.Add(-10*time.Second)
		case "given long ago":
			h.Run.BootsUsed, h.Run.Delivered = 1, now.Add(-10*time.Minute)
		}
		return h
	}
	var hosts []Host
	switch dimensions[dimInventory][q[dimInventory]] {
	case "A":
		hosts = []Host{record("a", identityA)}
	case "A and B":
		hosts = []Host{record("a", identityA), record("b", identityB)}
	case "A and its twin":
		hosts = []Host{record("a", identityA), record("twin", identityA)}
	}
	f := Facts{Speaker: Speaker(dimensions[dimSpeaker][q[dimSpeaker]]), Surface: Surface(dimensions[dimSurface][q[dimSurface]])}
	f.UUID = [...]UUID{identityA.UUID, identityA.UUID.Swapped(), identityB.UUID, "03000200-0400-0500-0006-000700080009", ""}[q[dimUUID]]
	f.MAC = [...]MAC{identityA.MACs[0], identityA.MACs[1], identityB.MACs[0], ""}[q[dimMAC]]
	f.Serial = [...]string{identityA.Serial, identityB.Serial, "To Be Filled By O.E.M.", ""}[q[dimSerial]]
	f.Run = [...]RunID{"", "run-a", "run-of-last-year"}[q[dimCap]]
	f.Arch = [...]Arch{X86_64, ARM64, ""}[q[dimArch]]
	b := [...]Bundle{{Digest: rightBundle, Arch: X86_64}, {}, {Digest: anotherBundle, Arch: X86_64}, {Digest: rightBundle, Arch: X86_64, Refusal: "it is revoked"},
		{Digest: rightBundle, Architectures: map[Arch]BundleVariant{X86_64: {}, ARM64: {}}}, {Digest: rightBundle, Architectures: map[Arch]BundleVariant{ARM64: {}}}}[q[dimBundle]]
	return hosts, f, b, now
}

// claims returns how many records the machine shows a signal of, and whether
// the only one is contradicted by another signal.
func (q question) claims() (n int, contradicted bool) {
	capability := q.is(dimCap, "of A") && !q.is(dimRun, "none")
	a := q.is(dimUUID, "A", "A swapped") || q.is(dimMAC, "A", "A second") || q.is(dimSerial, "A")
	b := q.is(dimUUID, "B") || q.is(dimMAC, "B") || q.is(dimSerial, "B")
	switch dimensions[dimInventory][q[dimInventory]] {
	case "none":
		return 0, false
	case "A and B":
		if a = a || capability; a && b {
			return 2, true
		}
	case "A and its twin":
		if a {
			return 2, true
		}
		a, b = capability, false
	default:
		a, b = a || capability, false
	}
	if !a && !b {
		return 0, false
	}
	// Whoever is not the ROM can read SMBIOS: a factory default there is a contradiction.
	own, reads := "A", !q.is(dimSpeaker, "rom")
	if b {
		own = "B"
	}
	contradicted = !q.is(dimUUID, own, own+" swapped", "placeholder", "absent") || !q.is(dimMAC, own, own+" second", "absent") ||
		!q.is(dimSerial, own, "placeholder", "absent") || reads && q.is(dimUUID, "placeholder") || reads && q.is(dimSerial, "placeholder") ||
		q.saysAll() && q.is(dimSerial, "absent")
	return 1, contradicted
}

// saysAll: the entry script sends every signal that the machine has.
func (q question) saysAll() bool { return q.is(dimSpeaker, "loader") && q.is(dimSurface, "http") }

// mayInstall is the first invariant of the architecture, said a second time.
func (q question) mayInstall() bool {
	n, contradicted := q.claims()
	bootCovered := !q.is(dimBoots, "given long ago") && q.is(dimSpeaker, "installer", "first-boot") || q.is(dimBoots, "left") || q.is(dimBoots, "spent just now") && q.is(dimStage, "script")
	return n == 1 && !contradicted && !(q.saysAll() && q.is(dimUUID, "absent")) &&
		q.is(dimState, "provisioning") && q.is(dimRun, "open") && q.is(dimClock, "inside", "at the start") &&
		q.is(dimStage, "armed", "address", "loader", "script", "kernel", "installer") && bootCovered &&
		q.is(dimBundle, "right", "right, for several") && q.is(dimArch, "fits", "absent")
}

// mayInspect says when a machine is looked at: one that nobody knows, or one that an
// operator asked for while no run and no dispute is in the way.
func (q question) mayInspect() bool {
	n, contradicted := q.claims()
	unknown := n == 0
	asked := n == 1 && !contradicted && q.is(dimState, "new", "installed", "failed") && q.is(dimInspect, "ready and asked for", "for arm64, and asked for")
	fits := q.is(dimInspect, "ready", "ready and asked for", "asked for until a moment ago") && q.is(dimArch, "fits") || q.is(dimInspect, "for arm64, and asked for") && q.is(dimArch, "another")
	return (unknown || asked) && fits && q.is(dimSpeaker, "rom", "loader") && !(q.is(dimUUID, "placeholder", "absent") && q.is(dimMAC, "absent"))
}

// notOfDecide are the reasons that others give.
var notOfDecide = []Reason{StoreUnavailable, DiskMismatch, HardwareMismatch, LoaderFailed, LoaderLoop, LoaderByTFTP, ForeignAddress, RunNotBegun}

// judge asks Decide and returns what is wrong with its answer, or "".
func (q question) judge(documented map[Reason]Action) (Reason, string) {
	hosts, f, b, now := q.ask()
	d := Decide(hosts, f, b, q.policy(), now)
	action, known := documented[d.Reason]
	n, contradicted := q.claims()
	switch {
	case !known:
		return d.Reason, "the reason is not in Reasons()"
	case action != d.Action:
		return d.Reason, "the action is not the one that Reasons() documents"
	case slices.Contains(notOfDecide, d.Reason):
		return d.Reason, "Decide never returns this reason"
	case d.Detail == "":
		return d.Reason, "no detail for people"
	case (d.Action == Install) != q.mayInstall():
		return d.Reason, "install is wrong"
	case (d.Action == Inspect) != q.mayInspect():
		return d.Reason, "inspect is wrong"
	case d.Action == Inspect && (d.Run != "" || d.Bundle != inspectBundle || d.Claims != nil || d.Boot != BootOptions{}):
		return d.Reason, "an inspection is of no run, and by the bundle that inspects"
	case n == 0 && (d.Reason != UnknownMachine && d.Reason != UnknownInspected || d.Host != "" || d.Claims != nil):
		return d.Reason, "an unknown machine is unknown-machine, of no record"
	case n == 2 && d.Reason != IdentityAmbiguous && !q.is(dimState, "retired"):
		return d.Reason, "two records are identity-ambiguous"
	case n == 2 && (d.Action != Hold || len(d.Claims) != 2 || d.Host != "" || len(d.Mismatch) == 0):
		return d.Reason, "an ambiguous identity holds, and names both records with their signals"
	case n == 1 && contradicted && (d.Reason != IdentityMismatch || len(d.Claims) != 1 || d.Claims[0] != d.Host || len(d.Mismatch) == 0):
		return d.Reason, "a contradiction is identity-mismatch, with its record and its signals"
	case n == 1 && !contradicted && (d.Host == "" || d.Claims != nil):
		return d.Reason, "one record that agrees is named, and not disputed"
	case d.Disputed() != (len(d.Claims) > 0):
		return d.Reason, "a disputed decision names whom it disputes"
	case d.Action == Install && (d.Run == "" || d.Bundle != rightBundle):
		return d.Reason, "install names its run and its bundle"
	}
	return d.Reason, ""
}

// region is a part of the space: the labels to try in each dimension; nil is all of them.
type region [dimCount][]uint8

func (r region) each(visit func(question)) {
	var walk func(dim int, q question)
	walk = func(dim int, q question) {
		if dim == dimCount {
			visit(q)
			return
		}
		labels := r[dim]
		if labels == nil {
			for i := range dimensions[dim] {
				labels = append(labels, uint8(i))
			}
		}
		for _, i := range labels {
			q[dim] = i
			walk(dim+1, q)
		}
	}
	walk(0, question{})
}

// regions cut the space where the cut cannot matter: who the machine is is
// settled before its record's life is looked at, and only a life in
// provisioning is looked at closely. Every identity meets some lives, every life
// meets some identities, and a random sample of the whole space shows that
// nothing hides where they cross.
func regions() []region {
	only := []uint8{0}
	identities := region{dimInspect: {0, 2, 5}, dimRun: only, dimClock: only, dimStage: only, dimBoots: only, dimBundle: only, dimArch: only}
	out := []region{identities}
	for i, who := range []struct{ uuid, mac, serial, capability uint8 }{
		{0, 0, 0, 0}, // everything of A
		{1, 1, 3, 0}, // swapped, its second NIC, no serial number
		{4, 0, 2, 0}, // only a MAC, and a factory default
		{4, 3, 3, 1}, // only a capability
		{2, 0, 0, 0}, // another board
	} {
		life := region{dimInventory: {1}, dimUUID: {who.uuid}, dimMAC: {who.mac}, dimSerial: {who.serial}, dimCap: {who.capability}}
		close, far := life, life
		close[dimState], close[dimInspect] = []uint8{2}, []uint8{2}
		if i > 0 { // the first has seen every clock and every architecture
			close[dimClock], close[dimArch] = []uint8{0, 3}, only
		}
		far[dimState], far[dimStage], far[dimBoots], far[dimArch], far[dimBundle] = []uint8{0, 1, 3, 4, 5, 6}, []uint8{0, 6, 9}, only, only, only
		out = append(out, close, far)
	}
	return out
}

func TestDecideExhaustively(t *testing.T) {
	documented := map[Reason]Action{}
	for _, r := range Reasons() {
		documented[r.Reason] = r.Action
	}
	var mu sync.Mutex
	var complaints atomic.Int32
	occurred, asked := map[Reason]bool{}, 0
	work := make(chan []question, 64)
	var crew sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		crew.Go(func() {
			mine, n := map[Reason]bool{}, 0
			for batch := range work {
				for _, q := range batch {
					r, wrong := q.judge(documented)
					if mine[r], n = true, n+1; wrong != "" && complaints.Add(1) <= 20 { // the rest would only repeat it
						t.Errorf("%s: %s (answered %s)", q, wrong, r)
					}
				}
			}
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(occurred, mine)
			asked += n
		})
	}
	var batch []question
	send := func(q question) {
		if batch = append(batch, q); len(batch) == 4096 {
			work <- batch
			batch = nil
		}
	}
	for _, r := range regions() {
		r.each(send)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		var q question
		for d := range q {
			q[d] = uint8(random.IntN(len(dimensions[d])))
		}
		send(q)
	}
	work <- batch
	close(work)
	crew.Wait()
	for _, r := range Reasons() {
		if !occurred[r.Reason] && !slices.Contains(notOfDecide, r.Reason) {
			t.Errorf("%s never occurred: is it still a reason of Decide?", r.Reason)
		}
	}
	t.Logf("%d questions", asked)
}

// TestZeroValuesHold: a forgotten field, a missing record or bundle must fall to safety.
func TestZeroValuesHold(t *testing.T) {
	if d := (Decision{}); d.Action != Hold {
		t.Errorf("the zero Decision is %s", d.Action)
	}
	if o := (Order{}); o.Action != Hold {
		t.Errorf("the zero Order is %s", o.Action)
	}
	hosts, f, b, now := question{dimInventory: 1, dimState: 2}.ask()
	if d := Decide(hosts, f, b, Policy{}, now); d.Action != Install {
		t.Fatalf("the question that the others are made from is answered %s %s", d.Action, d.Reason)
	}
	stateless := slices.Clone(hosts)
	stateless[0].State = ""
	for _, c := range []struct {
		name  string
		hosts []Host
		facts Facts
		b     Bundle
		now   time.Time
		want  Reason
	}{
		{"everything", nil, Facts{}, Bundle{}, time.Time{}, UnknownMachine},
		{"host", []Host{{}}, f, b, now, UnknownMachine},
		{"host and facts", []Host{{}}, Facts{}, b, now, UnknownMachine},
		{"two hosts", []Host{{}, {}}, Facts{}, b, now, UnknownMachine},
		{"facts", hosts, Facts{}, b, now, UnknownMachine},
		{"state", stateless, f, b, now, StateUnknown},
		{"bundle", hosts, f, Bundle{}, now, BundleMissing},
		{"clock", hosts, f, b, time.Time{}, ClockBackwards},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := Decide(c.hosts, c.facts, c.b, Policy{}, c.now); d.Action == Install || d.Reason != c.want {
				t.Errorf("answered %s %s, want %s", d.Action, d.Reason, c.want)
			}
		})
	}
}

// TestDecideIdentity shows with names what the exhaustive test counts.
func TestDecideIdentity(t *testing.T) {
	hosts, _, b, now := question{dimInventory: 2, dimState: 2}.ask()
	noUUID, noMACs := hosts[0], hosts[0]
	noUUID.Identity.UUID, noMACs.Identity.MACs = "", nil
	gone := hosts[1]
	gone.Identity, gone.State = hosts[0].Identity, StateRetired
	script := func(u UUID, m MAC, serial string) Facts {
		return Facts{Surface: SurfaceHTTP, Speaker: SpeakerLoader, UUID: u, MAC: m, Serial: serial}
	}
	a, other := identityA, identityB
	for _, c := range []struct {
		name  string
		hosts []Host
		f     Facts
		want  Reason
		show  string // a signal that must be shown
	}{
		{"all agree", hosts, script(a.UUID, a.MACs[0], a.Serial), Granted, ""},
		{"UUID swapped", hosts, script(a.UUID.Swapped(), a.MACs[0], a.Serial), Granted, ""},
		{"second NIC", hosts, script(a.UUID, a.MACs[1], a.Serial), Granted, ""},
		{"board replaced", hosts, script("cccccccc-0011-2233-8899-aabbccddeeff", a.MACs[0], a.Serial), IdentityMismatch, "uuid"},
		{"NIC replaced", hosts, script(a.UUID, "52:54:00:00:00:c1", a.Serial), IdentityMismatch, "mac"},
		{"serial number missing from the script's request", hosts, script(a.UUID, a.MACs[0], ""), IdentityMismatch, "serial"},
		{"NIC moved to another machine", hosts, script(other.UUID, a.MACs[0], other.Serial), IdentityAmbiguous, "mac"},
		{"UUID missing", hosts, script("", a.MACs[0], a.Serial), IdentityMissing, ""},
		{"record without UUID", []Host{noUUID}, script("cccccccc-0011-2233-8899-aabbccddeeff", a.MACs[0], a.Serial), Granted, ""},
		{"record without MACs", []Host{noMACs}, script(a.UUID, "52:54:00:00:00:c1", a.Serial), Granted, ""},
		{"ROM knows no UUID", hosts, Facts{Surface: SurfaceDHCP, Speaker: SpeakerROM, MAC: a.MACs[0]}, Granted, ""},
		{"ROM shows a factory default", hosts, Facts{Surface: SurfaceDHCP, Speaker: SpeakerROM, MAC: a.MACs[0], UUID: placeholderUUIDs[0]}, Granted, ""},
		{"loader shows a factory default", hosts, script(placeholderUUIDs[0].Swapped(), a.MACs[0], a.Serial), IdentityMismatch, "uuid"},
		{"asset tag of another", hosts, Facts{Speaker: SpeakerROM, MAC: a.MACs[0], AssetTag: "A-9"}, Granted, ""}, // the record has none
		{"retired record beside its successor", []Host{gone, hosts[0]}, script(a.UUID, a.MACs[0], a.Serial), Granted, ""},
		{"only a retired record", []Host{gone}, script(a.UUID, a.MACs[0], a.Serial), HostRetired, ""},
		{"capability of a run, another machine", hosts, Facts{Speaker: SpeakerInstaller, Run: "run-a", MAC: other.MACs[0]}, IdentityAmbiguous, "mac"},
		{"capability of a run, unknown machine", hosts, Facts{Speaker: SpeakerInstaller, Run: "run-a", MAC: "52:54:00:00:00:c1"}, IdentityMismatch, "mac"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := Decide(c.hosts, c.f, b, Policy{}, now)
			if d.Reason != c.want {
				t.Fatalf("answered %s: %s, want %s", d.Reason, d.Detail, c.want)
			}
			if c.show != "" && !slices.ContainsFunc(d.Mismatch, func(s Signal) bool {
				return s.Name == c.show && s.Expected != s.Seen && strings.Contains(s.String(), s.Seen)
			}) {
				t.Errorf("does not show both sides of %s: %v", c.show, d.Mismatch)
			}
		})
	}
}

// TestAssetTagContradicts: the tag is a signal like the others where both sides have one.
func TestAssetTagContradicts(t *testing.T) {
	h := Host{ID: "a", Identity: Identity{MACs: identityA.MACs, AssetTag: "AT-1"}}
	for tag, want := range map[string]int{"AT-1": 0, "AT-2": 1, "": 0, "No Asset Tag": 0} {
		if got := Contradictions(h, Facts{MAC: identityA.MACs[0], AssetTag: tag}); len(got) != want {
			t.Errorf("tag %q: %v", tag, got)
		}
	}
}

// TestDecideShowsWhyItIsInQuarantine: the screen of a held machine shows both sides.
func TestDecideShowsWhyItIsInQuarantine(t *testing.T) {
	hosts, f, b, now := question{dimInventory: 1, dimState: 1}.ask()
	hosts[0].Note, hosts[0].Dispute = "another board", []Signal{{"uuid", "a", "b", "a"}}
	d := Decide(hosts, f, b, Policy{}, now)
	if d.Reason != HostQuarantined || !strings.Contains(d.Detail, "another board") || len(d.Mismatch) != 1 {
		t.Errorf("%+v", d)
	}
}

func TestRetryWindow(t *testing.T) {
	hosts, f, b, now := question{dimInventory: 1, dimState: 2, dimStage: 3, dimBoots: 1}.ask()
	for _, c := range []struct {
		name   string
		policy Policy
		ago    time.Duration
		want   Reason
	}{
		{"at once", Policy{}, 0, Granted},
		{"last moment", Policy{}, 30*time.Second - 1, Granted},
		{"over", Policy{}, 30 * time.Second, BootsSpent},
		{"longer by policy", Policy{Retry: time.Minute}, 45 * time.Second, Granted},
		{"counted in the future", Policy{}, -time.Second, BootsSpent},
	} {
		t.Run(c.name, func(t *testing.T) {
			hosts[0].Run.LastBoot = now.Add(-c.ago)
			if d := Decide(hosts, f, b, c.policy, now); d.Reason != c.want {
				t.Errorf("answered %s, want %s", d.Reason, c.want)
			}
		})
	}
}

// TestDecideLeavesItsInputAlone: the caller's records are the store's.
func TestDecideLeavesItsInputAlone(t *testing.T) {
	hosts, f, b, now := question{dimInventory: 2, dimState: 5}.ask()
	ids := []HostID{hosts[0].ID, hosts[1].ID}
	f.MACs = []MAC{f.MAC, "52:54:00:00:00:b1"}
	Decide(hosts, f, b, Policy{}, now)
	if hosts[0].ID != ids[0] || hosts[1].ID != ids[1] || f.MACs[0] != f.MAC {
		t.Errorf("changed to %v, %v", hosts, f.MACs)
	}
}

// TestDecideByRecordedArch: a bundle for several gives what the record says, so a machine that
// is something else is given nothing.
func TestDecideByRecordedArch(t *testing.T) {
	hosts, f, _, now := question{dimInventory: 1, dimState: 2}.ask()
	for _, c := range []struct {
		record, machine Arch
		reason          Reason
		says            string
	}{
		{X86_64, X86_64, Granted, ""},
		{ARM64, ARM64, Granted, ""},
		{ARM64, "", Granted, ""},
		{X86_64, ARM64, ArchMismatch, "the machine is arm64, its record says x86_64"},
		{I386, I386, ArchMismatch, "the bundle debian-12 has nothing for i386"},
		{I386, "", ArchMismatch, "the bundle debian-12 has nothing for i386"},
		{"", X86_64, ArchMismatch, "has nothing for"},
	} {
		hosts[0].Arch, f.Arch = c.record, c.machine
		if d := Decide(hosts, f, severalBundle(), Policy{}, now); d.Reason != c.reason || !strings.Contains(d.Detail, c.says) {
			t.Errorf("the record says %q, the machine %q: %s, %s", c.record, c.machine, d.Reason, d.Detail)
		}
	}
}
