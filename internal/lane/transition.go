package lane

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Verb names a transition.
type Verb string

// The verbs that change a record.
const (
	VerbEnrol      Verb = "enrol"
	VerbUpdate     Verb = "update"
	VerbArm        Verb = "provision"
	VerbAdvance    Verb = "advance"
	VerbReady      Verb = "ready"
	VerbConfirm    Verb = "confirm"
	VerbFail       Verb = "fail"
	VerbExpire     Verb = "expire"
	VerbCancel     Verb = "cancel"
	VerbQuarantine Verb = "quarantine"
	VerbAccept     Verb = "accept"
	VerbRelease    Verb = "release"
	VerbRetire     Verb = "retire"
	VerbInspect    Verb = "inspect"
)

// Transition is one arrow of the state diagram. An empty From means no record;
// an empty To means the state that the record had before.
type Transition struct {
	From State
	Verb Verb
	To   State
	Who  string // operator, machine or server
	Text string
}

// Transitions returns the whole state diagram: what is not in it is refused.
func Transitions() []Transition {
	return []Transition{
		{"", VerbEnrol, StateNew, "operator", "`host import` adds the record"},
		{StateNew, VerbUpdate, StateNew, "operator", "`host import` changes it"},
		{StateInstalled, VerbUpdate, StateInstalled, "operator", "`host import` changes it"},
		{StateFailed, VerbUpdate, StateFailed, "operator", "`host import` changes it"},
		{StateQuarantine, VerbUpdate, StateQuarantine, "operator", "`host import` corrects it; a run that was granted for what the record said before ends"},
		{StateRetired, VerbUpdate, StateNew, "operator", "`host import` brings it back"},
		{StateNew, VerbArm, StateProvisioning, "operator", "`provision` grants one install"},
		{StateFailed, VerbArm, StateProvisioning, "operator", "`provision` grants one install"},
		{StateInstalled, VerbArm, StateProvisioning, "operator", "`provision --reinstall` grants one install"},
		{StateProvisioning, VerbAdvance, StateProvisioning, "machine", "the run reaches a stage"},
		{StateProvisioning, VerbReady, StateInstalled, "machine", "first boot proved itself, and the machine is in its cluster where it has one"},
		{StateProvisioning, VerbFail, StateFailed, "machine", "the machine reports a failure, or asks for more boots than granted"},
		{StateProvisioning, VerbExpire, StateFailed, "server", "the deadline passes"},
		{StateProvisioning, VerbCancel, "", "operator", "`cancel` before any boot was counted; after one: failed"},
		{StateNew, VerbQuarantine, StateQuarantine, "operator or server", "identity disputed, or set aside"},
		{StateProvisioning, VerbQuarantine, StateQuarantine, "operator or server", "identity disputed, or set aside"},
		{StateInstalled, VerbQuarantine, StateQuarantine, "operator or server", "identity disputed, or set aside"},
		{StateFailed, VerbQuarantine, StateQuarantine, "operator or server", "identity disputed, or set aside"},
		{StateQuarantine, VerbQuarantine, StateQuarantine, "server", "the disputing machine shows more of itself"},
		{StateQuarantine, VerbAdvance, StateQuarantine, "machine", "the run that quarantine interrupted reports its end: the disk is written, or it failed"},
		{StateProvisioning, VerbConfirm, StateInstalled, "operator", "of Talos, which reports nothing: `host confirm`, or its Node is Ready"},
		{StateFailed, VerbConfirm, StateInstalled, "operator", "`host confirm` of a machine of Talos that was given its configuration, and runs"},
		{StateQuarantine, VerbReady, StateQuarantine, "machine", "first boot of that run proved itself; installed once the quarantine ends"},
		{StateQuarantine, VerbExpire, StateQuarantine, "server", "the deadline of a run that quarantine interrupted passes"},
		{StateQuarantine, VerbCancel, StateQuarantine, "operator", "`cancel` ends the run that quarantine interrupted"},
		{StateQuarantine, VerbAccept, "", "operator", "`host accept` records the replaced board or NIC"},
		{StateQuarantine, VerbRelease, "", "operator", "`release` ends it, nothing recorded"},
		{StateNew, VerbInspect, StateNew, "operator or server", "`host inspect` asks to have it looked at; it was"},
		{StateInstalled, VerbInspect, StateInstalled, "operator or server", "`host inspect` asks to have it looked at; it was"},
		{StateFailed, VerbInspect, StateFailed, "operator or server", "`host inspect` asks to have it looked at; it was"},
		{StateNew, VerbRetire, StateRetired, "operator", "`retire`"},
		{StateQuarantine, VerbRetire, StateRetired, "operator", "`retire`"},
		{StateInstalled, VerbRetire, StateRetired, "operator", "`retire`"},
		{StateFailed, VerbRetire, StateRetired, "operator", "`retire`"},
	}
}

// Allowed reports whether the state diagram has an arrow for the verb from the state.
func Allowed(from State, verb Verb) bool {
	return slices.ContainsFunc(Transitions(), func(t Transition) bool { return t.From == from && t.Verb == verb })
}

// begin checks the arrow and returns a copy of h that shares nothing with it.
func (h Host) begin(verb Verb) (Host, error) {
	if !Allowed(h.State, verb) {
		return Host{}, Errorf(Refused, "%s is %s: cannot %s it now; %s", h.ID, h.State, verb, h.State.hint(verb))
	}
	h.Labels, h.Install = maps.Clone(h.Labels), h.Install.clone()
	h.Identity.MACs = slices.Clone(h.Identity.MACs)
	h.Run.Reports, h.Run.Stages, h.Run.NICs = maps.Clone(h.Run.Reports), maps.Clone(h.Run.Stages), slices.Clone(h.Run.NICs)
	h.Wipe, h.Run.Wipe = slices.Clone(h.Wipe), slices.Clone(h.Run.Wipe)
	h.Dispute, h.Seen, h.Join = slices.Clone(h.Dispute), h.Seen.clone(), h.Join.clone()
	return h, nil
}

func (s State) hint(verb Verb) string {
	switch {
	case s == StateProvisioning:
		return "`bootlane cancel` its run first"
	case s == StateQuarantine:
		return "`bootlane why` shows the dispute; end it with `bootlane host accept` or `bootlane release`"
	case s == StateRetired:
		return "`bootlane host import` brings it back"
	case verb == VerbCancel:
		return "there is no open run"
	}
	return "docs/states.md shows what is allowed"
}

func (h *Host) to(s State, note string, now time.Time) {
	if h.State != s {
		h.Changed = now
	}
	h.State, h.Note = s, Clean(note, 1000) // some of it was said by a machine
}

// said joins what happened and why, if anybody said why.
func said(what, why string) string {
	if why == "" {
		return what
	}
	return what + ": " + why
}

func (h Host) event(kind Kind, by string, now time.Time, format string, args ...any) Event {
	return Event{Subject: string(h.ID), At: now, Kind: kind, By: by, Run: h.Run.ID, Stage: h.Run.Stage, State: h.State,
		Message: Clean(fmt.Sprintf(format, args...), 1000)}
}

// Enrol makes a new record from inventory data.
func Enrol(spec Host, by string, now time.Time) (Host, Event) {
	h := Host{ID: spec.ID}
	h.inventory(spec)
	h.to(StateNew, "", now)
	return h, h.event(KindEnrolled, by, now, "added to the inventory: %s, disk %s, bundle %s", h.Identity, h.Disk, orDash(h.Bundle))
}

// Update takes over changed inventory data, and says what it changed. It reports
// false when nothing did. A retired record comes back as new. An open run was granted
// for one machine, disk and bundle: it ends when the record comes to mean others.
func Update(h, spec Host, by string, now time.Time) (Host, Event, bool, error) {
	was := h
	h.inventory(spec)
	if was.sameInventory(h) && h.State != StateRetired {
		return was, Event{}, false, nil
	}
	next, err := was.begin(VerbUpdate)
	if err != nil {
		return Host{}, Event{}, false, err
	}
	next.inventory(spec)
	changes := strings.Join(was.changes(next), "; ")
	switch {
	case next.State == StateRetired:
		next.Run = Run{}
		next.to(StateNew, "", now)
		changes = "brought back; " + orDash(changes)
	case next.Run.Open && !was.grantedAs(next):
		next.cancelRun(now)
		changes += "; the run " + string(next.Run.ID) + " was granted for what the record said before: it is cancelled"
	}
	return next, next.event(KindUpdated, by, now, "inventory changed: %s", changes), true, nil
}

// grantedAs reports whether a run that was granted for h may go on under o's data.
func (h Host) grantedAs(o Host) bool {
	i, j := h.Identity, o.Identity
	return i.UUID == j.UUID && slices.Equal(i.MACs, j.MACs) && i.Serial == j.Serial && i.AssetTag == j.AssetTag &&
		h.Disk == o.Disk && h.Mirror == o.Mirror && slices.Equal(h.Wipe, o.Wipe) && h.Bundle == o.Bundle && h.Arch == o.Arch
}

// changes lists the inventory data in which o differs, as "field: old -> new".
func (h Host) changes(o Host) (out []string) {
	field := func(name, was, is string) {
		if was != is {
			out = append(out, name+": "+orDash(was)+" -> "+orDash(is))
		}
	}
	field("disk", h.Disk.String(), o.Disk.String())
	field("mirror", h.Mirror.String(), o.Mirror.String())
	field("wipe", selectors(h.Wipe), selectors(o.Wipe))
	field("bundle", h.Bundle, o.Bundle)
	field("arch", string(h.Arch), string(o.Arch))
	field("uuid", string(h.Identity.UUID), string(o.Identity.UUID))
	field("macs", joinMACs(h.Identity.MACs), joinMACs(o.Identity.MACs))
	field("serial", h.Identity.Serial, o.Identity.Serial)
	field("asset tag", h.Identity.AssetTag, o.Identity.AssetTag)
	field("place", h.Identity.place(), o.Identity.place())
	field("hostname", h.Hostname, o.Hostname)
	field("role", h.Role, o.Role)
	field("address", text(h.Network.Address), text(o.Network.Address))
	field("address6", text(h.Network.Address6), text(o.Network.Address6))
	field("interfaces", h.Network.interfacesText(), o.Network.interfacesText())
	field("boot", h.Boot.String(), o.Boot.String())
	field("labels", labelText(h.Labels), labelText(o.Labels))
	return append(out, h.Install.changes(o.Install)...)
}

// place is where a machine stands and how it is reached.
func (i Identity) place() string {
	return strings.Trim(strings.Join([]string{i.Chassis, i.Rack, i.Unit, i.BMC}, "/"), "/")
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func labelText(labels map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		out = append(out, k+"="+labels[k])
	}
	return strings.Join(out, ",")
}

func (h *Host) inventory(spec Host) {
	h.Identity, h.Arch, h.Role, h.Hostname = spec.Identity, spec.Arch, spec.Role, spec.Hostname
	h.Bundle, h.Disk, h.Mirror, h.Network, h.Boot, h.Labels = spec.Bundle, spec.Disk, spec.Mirror, spec.Network.clone(), spec.Boot, maps.Clone(spec.Labels)
	h.Identity.MACs, h.Wipe, h.Install = slices.Clone(spec.Identity.MACs), slices.Clone(spec.Wipe), spec.Install.clone()
}

func (h Host) sameInventory(o Host) bool {
	return h.Identity.equal(o.Identity) && h.Arch == o.Arch && h.Role == o.Role && h.Hostname == o.Hostname &&
		h.Bundle == o.Bundle && h.Disk == o.Disk && h.Mirror == o.Mirror && slices.Equal(h.Wipe, o.Wipe) && h.Network.equal(o.Network) && h.Boot == o.Boot && maps.Equal(h.Labels, o.Labels) &&
		len(h.Install.changes(o.Install)) == 0
}

func (i Identity) equal(o Identity) bool {
	macs := slices.Equal(i.MACs, o.MACs)
	i.MACs, o.MACs = nil, nil
	return macs && i.UUID == o.UUID && i.Serial == o.Serial && i.AssetTag == o.AssetTag && i.Chassis == o.Chassis &&
		i.Rack == o.Rack && i.Unit == o.Unit && i.BMC == o.BMC
}

// String lists the signals that identify the machine, on one line.
func (i Identity) String() string {
	s := "uuid " + orDash(string(i.UUID)) + ", macs " + orDash(joinMACs(i.MACs)) + ", serial " + orDash(i.Serial)
	if i.AssetTag != "" {
		s += ", asset tag " + i.AssetTag
	}
	return s
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// Grant is what an operator allows: one install of one bundle on one host.
type Grant struct {
	Run        RunID
	Capability string
	By         string
	For        time.Duration // without progress, until the run is given up; must be positive
	Limit      time.Duration // until it ends whatever it shows; zero: DefaultLimit, and never less than For
	Stages     map[Stage]time.Duration
	Cluster    string // that the machine joins; empty: none
	Opener     string // what opens the disk at each boot, for people; empty: it is not encrypted
	Why        string // reason, kept as evidence
	Boots      int    // network boots; must be positive
	Reinstall  bool   // must be said for a host that is installed
}

// Defaults of a grant.
const (
	DefaultDeadline = 2 * time.Hour
	DefaultLimit    = 24 * time.Hour
	DefaultBoots    = 2
)

// Armable says what in a host's state stands against a grant, whatever the bundle.
func Armable(h Host, reinstall bool) []Problem {
	switch {
	case !Allowed(h.State, VerbArm):
		return []Problem{{Field: "state", Message: fmt.Sprintf("it is %s: %s", h.State, h.State.hint(VerbArm))}}
	case h.State == StateInstalled && !reinstall:
		return []Problem{{Field: "state", Message: "it is installed: give --reinstall to erase its disk"}}
	case h.State == StateFailed && !h.Run.Delivered.IsZero() && !reinstall:
		return []Problem{{Field: "state", Message: "its machine was given a configuration of Talos, and may run: `bootlane host confirm` it, or give --reinstall to erase its disk"}}
	}
	return nil
}

// Arm opens a run: the only transition into provisioning.
func Arm(h Host, b Bundle, g Grant, now time.Time) (Host, Event, error) {
	if bad := Armable(h, g.Reinstall); len(bad) > 0 {
		return Host{}, Event{}, Errorf(Refused, "%s cannot be provisioned: %s", h.ID, bad[0].Message)
	}
	h, err := h.begin(VerbArm)
	if err != nil {
		return Host{}, Event{}, err
	}
	switch {
	case g.For <= 0 || g.Boots <= 0 || g.Run == "" || len(g.Capability) < 20:
		return Host{}, Event{}, Errorf(Invalid, "a grant needs a run id, a capability, a positive deadline and at least one boot")
	case b.Digest == "":
		return Host{}, Event{}, Errorf(Invalid, "a grant needs a bundle")
	case !h.Disk.Selects():
		return Host{}, Event{}, Errorf(Invalid, "a grant needs a disk selector: give %s disk.byID, disk.wwn or disk.serial", h.ID)
	}
	from := h.State
	h.Run = Run{ID: g.Run, Open: true, By: g.By, Bundle: b.Digest, BundleName: b.Ref(), Disk: h.Disk, Mirror: h.Mirror, Wipe: slices.Clone(h.Wipe), Cluster: g.Cluster, Armed: now, Deadline: now.Add(g.For),
		Boots: g.Boots, Stage: StageArmed, StageAt: now, Capability: g.Capability, From: from,
		Quiet: g.For, Stages: maps.Clone(g.Stages), Limit: now.Add(max(cmp.Or(g.Limit, DefaultLimit), g.For))}
	h.Inspect = time.Time{} // the next network boot has another purpose
	h.to(StateProvisioning, "", now)
	e := h.event(KindArmed, g.By, now, "may install %s on the disk %s until %s, in at most %d network boots", b.Ref(), h.Run.Disks(), stamp(h.Run.Deadline), g.Boots)
	if !h.Run.Mirror.IsZero() {
		e.Message += "; both disks are erased"
	}
	if g.Opener != "" {
		e.Message += "; the disk is encrypted, and opened by " + g.Opener
	}
	if h.Run.Cluster != "" {
		e.Message += "; then it joins the cluster " + h.Run.Cluster
	}
	e.Message = said(e.Message, Clean(g.Why, 500))
	e.Digest = b.Digest
	return h, e, nil
}

// Observe notes that the server itself saw the machine reach an early stage
// (address, loader). It reports false when that is no news.
func Observe(h Host, stage Stage, message string, now time.Time) (Host, Event, bool) {
	if h.State != StateProvisioning || !h.Run.Open || h.Run.Stage.AtLeast(stage) || stage.AtLeast(StageScript) {
		return h, Event{}, false
	}
	h, err := h.begin(VerbAdvance)
	if err != nil {
		return h, Event{}, false
	}
	h.Run.Stage, h.Run.StageAt = stage, now
	h.Run.progressed(now)
	return h, h.event(KindStage, "server", now, "%s", message), true
}

// CountBoot takes one network boot from the grant: the install script is about
// to be served. A request that only repeats the last counted boot takes nothing.
func CountBoot(h Host, p Policy, now time.Time) (Host, Event, error) {
	again := h.Run.sameBoot(now, p)
	h, err := h.begin(VerbAdvance)
	if err != nil {
		return Host{}, Event{}, err
	}
	switch {
	case !h.Run.Open || now.Before(h.Run.Armed) || !now.Before(h.Run.Deadline):
		return Host{}, Event{}, Errorf(Refused, "%s has no run that is open now", h.ID)
	case !h.Run.Stage.Known() || h.Run.Stage.AtLeast(StageDiskWritten):
		return Host{}, Event{}, Errorf(Refused, "the run of %s is at %s: its disk may be written", h.ID, h.Run.Stage)
	case !h.Run.Delivered.IsZero():
		return Host{}, Event{}, Errorf(Refused, "the run of %s has given its configuration: its disk may be written", h.ID)
	case !h.Run.bootLeft(now, p):
		return Host{}, Event{}, Errorf(Refused, "%s has no network boot left", h.ID)
	}
	if !again {
		h.Run.BootsUsed++
		h.Run.LastBoot, h.Run.StageAt = now, now
		h.Run.Stage, h.Run.Reports, h.Run.Done, h.Run.Total = StageScript, nil, 0, 0
		h.Run.progressed(now)
	}
	return h, h.event(KindStage, "server", now, "install script served: network boot %d of %d", h.Run.BootsUsed, h.Run.Boots), nil
}

// Report is what an installer, the agent or the first-boot script tells.
type Report struct {
	Run     RunID
	Stage   Stage
	Seq     int
	Status  string // ok, progress, failed
	Message string
	Done    int64
	Total   int64
	Facts   Facts
	Checks  []Check // with StageReady: what first boot looked at
}

// The states of a Report.
const (
	StatusOK       = "ok"
	StatusProgress = "progress"
	StatusFailed   = "failed"
)

// Apply takes in a report. It is idempotent: a report that was seen before, or
// that speaks of a stage already passed, changes nothing and reports false. A
// report that skips the disk, or belongs to another run, is refused.
func Apply(h Host, r Report, now time.Time) (Host, Event, bool, error) {
	if r.Run == "" || r.Run != h.Run.ID {
		return h, Event{}, false, Errorf(Refused, "the run %q is not the present run of %s", r.Run, h.ID)
	}
	if !r.Stage.AtLeast(StageKernel) || r.Seq < 1 || !slices.Contains([]string{StatusOK, StatusProgress, StatusFailed}, r.Status) {
		return h, Event{}, false, Errorf(Invalid, "a report needs a stage from %s on, a sequence from 1 on, and a status", StageKernel)
	}
	if !h.Run.Open {
		// The answer to the closing report may have been lost, and it is sent again. One
		// that now says the opposite of how the run ended is another report.
		opposite := r.Stage == h.Run.Last() && (r.Status == StatusFailed) == h.Run.Succeeded()
		if r.Seq <= h.Run.Reports[r.Stage] && !opposite {
			return h, Event{}, false, nil
		}
		return h, Event{}, false, Errorf(Refused, "the run %s is closed: %s", r.Run, h.Run.Outcome)
	}
	if err := h.reportFits(r); err != nil {
		return h, Event{}, false, err
	}
	if r.Seq <= h.Run.Reports[r.Stage] || !r.Stage.AtLeast(h.Run.Stage) && r.Status != StatusFailed {
		return h, Event{}, false, nil
	}
	if h.State == StateQuarantine && r.Status != StatusFailed && !(r.Stage.AtLeast(StageDiskWritten) && r.Status == StatusOK) {
		return h, Event{}, false, Errorf(Refused, "%s is in quarantine: its run may only end", h.ID)
	}
	next, err := h.begin(VerbAdvance)
	if err != nil {
		return h, Event{}, false, err
	}
	if next.Run.Reports == nil {
		next.Run.Reports = map[Stage]int{}
	}
	next.Run.Reports[r.Stage] = r.Seq
	e := next.take(r, now)
	return next, e, true, nil
}

// reportFits refuses reports that jump over the disk: first boot without a
// written disk, a written disk without an installer.
func (h Host) reportFits(r Report) error {
	if !h.Run.Delivered.IsZero() {
		return Errorf(Refused, "the machine of %s was given a configuration of Talos, which reports nothing: this is somebody else", h.ID)
	}
	need := StageScript
	switch r.Stage {
	case StageDiskWritten:
		need = StageKernel
	case StageFirstBoot, StageReady:
		need = StageDiskWritten
	case StageJoined:
		need = StageReady
	}
	if r.Stage == StageJoined && h.Run.Cluster == "" {
		return Errorf(Refused, "the run %s joins no cluster", r.Run)
	}
	if !h.Run.Stage.AtLeast(need) {
		return Errorf(Refused, "out of order: %s was reported, but the run only reached %s", r.Stage, h.Run.Stage)
	}
	return nil
}

func (h *Host) take(r Report, now time.Time) Event {
	by := string(SpeakerInstaller)
	if r.Stage.AtLeast(StageFirstBoot) {
		by = string(SpeakerFirstBoot)
	}
	kind, message := KindStage, Clean(WithoutTokens(r.Message), 500)
	switch {
	case r.Status == StatusFailed:
		kind = KindFailed
		h.close("failed", now)
		h.goOnTo(StateFailed, "at "+string(r.Stage)+": "+message, now)
	case r.Status == StatusProgress:
		kind = KindProgress
		h.reach(r.Stage, now)
		h.Run.Done, h.Run.Total = r.Done, r.Total
	case r.Stage == h.Run.Last():
		kind = KindInstalled
		h.reach(r.Stage, now)
		if r.Stage == StageJoined && h.Join != nil && h.Join.Run == h.Run.ID {
			h.Join.Joined = now
		}
		h.close(string(r.Stage), now)
		h.goOnTo(StateInstalled, "", now)
	default:
		h.reach(r.Stage, now)
	}
	if id, _ := r.MachineID(); r.Status == StatusOK && id != "" {
		h.Run.MachineID = id
	}
	e := h.event(kind, by, now, "%s", message)
	e.Stage, e.Checks = r.Stage, r.Checks
	return e
}

// goOnTo changes the state, or, in quarantine, the state that follows it.
func (h *Host) goOnTo(s State, note string, now time.Time) {
	if h.State == StateQuarantine {
		h.Resume = s
		return
	}
	h.to(s, note, now)
}

func (h *Host) reach(s Stage, now time.Time) {
	if h.Run.Stage != s {
		h.Run.Stage, h.Run.StageAt, h.Run.Done, h.Run.Total = s, now, 0, 0
	}
	h.Run.progressed(now)
}

func (h *Host) close(outcome string, now time.Time) {
	h.Run.Open, h.Run.Outcome, h.Run.Ended = false, outcome, now
}

// Fail ends the run because of something the server saw.
func Fail(h Host, reason Reason, message string, now time.Time) (Host, Event, error) {
	h, err := h.begin(VerbFail)
	if err != nil {
		return Host{}, Event{}, err
	}
	h.close("failed", now)
	h.to(StateFailed, message, now)
	e := h.event(KindFailed, "server", now, "%s", message)
	e.Reason = reason
	return h, e, nil
}

// Expire ends the run because its deadline has passed. In quarantine the record
// stays there, and will return to failed. last is the last that was heard of the run.
func Expire(h Host, last string, now time.Time) (Host, Event, error) {
	h, err := h.begin(VerbExpire)
	if err != nil {
		return Host{}, Event{}, err
	}
	if !h.Run.Open || now.Before(h.Run.Deadline) {
		return Host{}, Event{}, Errorf(Refused, "the run of %s has not expired", h.ID)
	}
	note := fmt.Sprintf("the deadline passed at stage %s", h.Run.Stage)
	if h.Run.Deadline.Equal(h.Run.Limit) {
		note += fmt.Sprintf(", %s after the grant: a run never lasts longer", h.Run.Limit.Sub(h.Run.Armed))
	}
	note = said(note, last)
	h.close("expired", now)
	h.goOnTo(StateFailed, note, now)
	e := h.event(KindExpired, "server", now, "%s", note)
	e.Reason = RunExpired
	return h, e, nil
}

// Cancel ends the run at an operator's wish. A host whose grant was not touched
// returns to the state it came from.
func Cancel(h Host, by, why string, now time.Time) (Host, Event, error) {
	h, err := h.begin(VerbCancel)
	if err != nil {
		return Host{}, Event{}, err
	}
	if !h.Run.Open {
		return Host{}, Event{}, Errorf(Refused, "%s has no open run", h.ID)
	}
	h.cancelRun(now)
	return h, h.event(KindCancelled, by, now, "%s", cmp.Or(why, "no reason given")), nil
}

// cancelRun closes the run. The disk of a machine that booted for it may be half written.
func (h *Host) cancelRun(now time.Time) {
	h.close("cancelled", now)
	if h.Run.BootsUsed > 0 {
		h.goOnTo(StateFailed, "cancelled at stage "+string(h.Run.Stage)+": the disk may be half written", now)
		return
	}
	h.goOnTo(h.Run.From, "", now)
}

// Quarantine sets a record aside, with both sides of the dispute when there is one.
func Quarantine(h Host, dispute []Signal, seen *Facts, by, why string, now time.Time) (Host, Event, error) {
	if h.State == StateQuarantine && !h.tellsMore(dispute, seen) {
		return Host{}, Event{}, Errorf(Refused, "%s is in quarantine already", h.ID)
	}
	from := h.State
	h, err := h.begin(VerbQuarantine)
	if err != nil {
		return Host{}, Event{}, err
	}
	if from != StateQuarantine {
		h.Resume = from
	}
	h.Dispute, h.Seen = slices.Clone(dispute), seen.clone()
	h.to(StateQuarantine, why, now)
	e := h.event(KindQuarantined, by, now, "%s", said("set aside", why))
	e.Mismatch, e.Facts = slices.Clone(dispute), seen.clone()
	return h, e, nil
}

// tellsMore reports whether a dispute adds to the one on record. Firmware shows
// little of a machine, the loader after it nearly everything: what an operator
// accepts must be the whole of it.
func (h Host) tellsMore(dispute []Signal, seen *Facts) bool {
	return seen != nil && (h.Seen == nil || len(dispute) > len(h.Dispute) || !h.Seen.complete() && seen.complete())
}

// Disputable reports whether a dispute about h would be news.
func Disputable(h Host, dispute []Signal, seen *Facts) bool {
	return Allowed(h.State, VerbQuarantine) && (h.State != StateQuarantine || h.tellsMore(dispute, seen))
}

// Replacement is what an operator accepts as replaced.
type Replacement string

// The replacements.
const (
	ReplacedBoard Replacement = "board" // new UUID, serial number, asset tag and on-board NICs
	ReplacedNIC   Replacement = "nic"   // new MACs
)

// Accept records a replaced board or NIC from what the disputing machine showed,
// and ends the quarantine. It is refused when that would not settle the dispute.
func Accept(h Host, what Replacement, by, why string, now time.Time) (Host, Event, error) {
	h, err := h.begin(VerbAccept)
	if err != nil {
		return Host{}, Event{}, err
	}
	if what != ReplacedBoard && what != ReplacedNIC {
		return Host{}, Event{}, Errorf(Invalid, "%q cannot be replaced: accept a %s or a %s", what, ReplacedBoard, ReplacedNIC)
	}
	if h.Seen == nil {
		return Host{}, Event{}, Errorf(Refused, "%s is in quarantine, but no machine disputes its identity: `bootlane release %s`", h.ID, h.ID)
	}
	seen, was := *h.Seen, h.Identity.String()
	if what == ReplacedBoard {
		h.Identity.takeBoard(seen)
	}
	for _, m := range seen.AllMACs() {
		if !slices.Contains(h.Identity.MACs, m) {
			h.Identity.MACs = append(h.Identity.MACs, m)
		}
	}
	if left := h.contradictions(seen); len(left) > 0 {
		return Host{}, Event{}, Errorf(Refused, "accepting the %s does not settle it: %s; use --board if the board was replaced", what, left[0])
	}
	h.leaveQuarantine(now)
	return h, h.event(KindAccepted, by, now, "%s", said(fmt.Sprintf("replaced %s accepted: was %s, is %s", what, was, h.Identity), why)), nil
}

// takeBoard takes over what a board shows of itself. What it does not show stays;
// a factory default identifies nothing, and leaves the field empty.
func (i *Identity) takeBoard(seen Facts) {
	text := func(s string) string {
		if PlaceholderText(s) {
			return ""
		}
		return s
	}
	if seen.UUID != "" {
		i.UUID = seen.UUID
	}
	if i.UUID.Placeholder() {
		i.UUID = ""
	}
	if seen.Serial != "" || seen.complete() {
		i.Serial = text(seen.Serial)
	}
	if seen.AssetTag != "" {
		i.AssetTag = text(seen.AssetTag)
	}
}

// Release ends the quarantine and records nothing new about the machine.
func Release(h Host, by, why string, now time.Time) (Host, Event, error) {
	h, err := h.begin(VerbRelease)
	if err != nil {
		return Host{}, Event{}, err
	}
	h.leaveQuarantine(now)
	return h, h.event(KindReleased, by, now, "%s", said("released", why)), nil
}

// leaveQuarantine returns to the state before it. A grant whose deadline passed
// meanwhile is not taken up again.
func (h *Host) leaveQuarantine(now time.Time) {
	note := ""
	if h.Resume == StateProvisioning && !now.Before(h.Run.Deadline) {
		h.close("expired", now)
		h.Resume, note = StateFailed, "the deadline passed in quarantine, at stage "+string(h.Run.Stage)
	}
	h.to(h.Resume, note, now)
	h.Resume, h.Dispute, h.Seen = "", nil, nil
}

// Retire takes a machine out of service. A run that quarantine interrupted is closed.
func Retire(h Host, by, why string, now time.Time) (Host, Event, error) {
	h, err := h.begin(VerbRetire)
	if err != nil {
		return Host{}, Event{}, err
	}
	if h.Run.Open {
		h.close("cancelled", now)
	}
	h.Resume, h.Dispute, h.Seen = "", nil, nil
	h.to(StateRetired, why, now)
	return h, h.event(KindRetired, by, now, "%s", said("retired", why)), nil
}
