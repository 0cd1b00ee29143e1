package lane

import (
	"fmt"
	"time"
)

// Action is what a boot surface may do for a machine. The zero value is the safe one.
type Action uint8

// The actions, from the safest on.
const (
	Hold      Action = iota // give nothing; show why
	LocalBoot               // send the machine to its own disk
	Inspect                 // start what looks at the machine from RAM, and writes no disk
	Install                 // give bytes that lead to a disk being written
)

// Actions returns every action.
func Actions() []Action { return []Action{Hold, LocalBoot, Inspect, Install} }

// Boots reports whether the answer is to load something by network and run it.
func (a Action) Boots() bool { return a == Inspect || a == Install }

// String returns the name used in events, scripts and documents.
func (a Action) String() string {
	switch a {
	case LocalBoot:
		return "local-boot"
	case Inspect:
		return "inspect"
	case Install:
		return "install"
	}
	return "hold"
}

// MarshalText writes the action's name.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads an action's name; any other text is an error and leaves Hold.
func (a *Action) UnmarshalText(b []byte) error {
	*a = Hold
	for _, v := range Actions() {
		if v.String() == string(b) {
			*a = v
			return nil
		}
	}
	return Errorf(Invalid, "unknown action %q", b)
}

// Reason says why a decision came out as it did. The set is closed.
type Reason string

// The reasons. [Reasons] describes each one.
const (
	UnknownMachine    Reason = "unknown-machine"
	UnknownInspected  Reason = "unknown-inspected"
	IdentityAmbiguous Reason = "identity-ambiguous"
	IdentityMismatch  Reason = "identity-mismatch"
	IdentityMissing   Reason = "identity-missing"
	HostQuarantined   Reason = "host-quarantined"
	HostInspected     Reason = "host-inspected"
	HostNew           Reason = "host-new"
	HostInstalled     Reason = "host-installed"
	HostFailed        Reason = "host-failed"
	HostRetired       Reason = "host-retired"
	StateUnknown      Reason = "state-unknown"
	NoRun             Reason = "no-open-run"
	RunExpired        Reason = "run-expired"
	ClockBackwards    Reason = "clock-backwards"
	DiskWritten       Reason = "disk-written"
	ConfigDelivered   Reason = "config-delivered"
	BootsSpent        Reason = "boots-spent"
	BundleMissing     Reason = "bundle-missing"
	BundleMismatch    Reason = "bundle-mismatch"
	BundleRefused     Reason = "bundle-refused"
	ArchMismatch      Reason = "arch-mismatch"
	Granted           Reason = "granted"
	StoreUnavailable  Reason = "store-unavailable"
	DiskMismatch      Reason = "disk-mismatch"
	HardwareMismatch  Reason = "hardware-mismatch"
	LoaderFailed      Reason = "loader-failed"
	LoaderLoop        Reason = "loader-loop"
	LoaderByTFTP      Reason = "loader-by-tftp"
	ForeignAddress    Reason = "foreign-address"
	RunNotBegun       Reason = "run-not-begun"
)

// ReasonDoc describes one reason for people: the table of docs/decisions.md.
type ReasonDoc struct {
	Reason Reason
	Action Action
	When   string // the condition, in words
	Next   string // what an operator does about it
}

// Reasons returns every reason in the order in which [Decide] looks at them.
func Reasons() []ReasonDoc {
	return []ReasonDoc{
		{UnknownMachine, Hold, "no inventory record has this UUID, boot MAC, serial number or asset tag", "add the machine to the inventory with `bootlane host import`"},
		{UnknownInspected, Inspect, "the same, and `policy.inspect` names a bundle whose agent can look at it", "`bootlane host discovered` shows what was found; `bootlane host adopt` makes a record of it"},
		{IdentityAmbiguous, Hold, "the machine's signals point at more than one inventory record", "compare the records shown and correct the inventory"},
		{IdentityMismatch, Hold, "a signal the machine showed contradicts its inventory record", "check the machine; then `bootlane host accept HOST --board|--nic`, or correct the inventory and `bootlane release HOST`"},
		{HostQuarantined, Hold, "the record is in quarantine", "`bootlane why HOST`, then `bootlane host accept` or `bootlane release`"},
		{HostRetired, LocalBoot, "the record is retired", "nothing; import the host again to bring it back"},
		{HostInspected, Inspect, "the machine is new, installed or failed, and an operator asked to have it looked at", "nothing; `bootlane host discovered` shows what was found"},
		{HostNew, LocalBoot, "the machine is known, and nobody asked to install it", "`bootlane provision HOST` when it should be installed"},
		{HostInstalled, LocalBoot, "the machine is installed", "nothing"},
		{HostFailed, LocalBoot, "the last run failed (hold, where `policy.failed` says so)", "`bootlane why HOST`, mend, then `bootlane provision HOST`"},
		{StateUnknown, Hold, "the record is in a state, or its run at a stage, that this version does not know", "run the Bootlane version that wrote the record"},
		{NoRun, LocalBoot, "the state is provisioning, but no run is open", "`bootlane provision HOST`"},
		{ClockBackwards, LocalBoot, "the server's clock reads earlier than the run's start", "set the server's clock, then try again"},
		{RunExpired, LocalBoot, "the run's deadline has passed (hold, where `policy.failed` says so)", "`bootlane provision HOST` again, if need be with a longer --deadline"},
		{DiskWritten, LocalBoot, "this run has already written the disk", "nothing; first boot follows from the disk"},
		{ConfigDelivered, LocalBoot, "this run's machine was given its configuration of Talos, and writes the disk by itself", "nothing, while it installs; `bootlane host confirm HOST` when it runs, or `bootlane cancel HOST` and `provision` where its disk holds nothing"},
		{BootsSpent, LocalBoot, "every network boot of the grant has been used (hold, where `policy.failed` says so)", "`bootlane why HOST`, then `bootlane provision HOST`"},
		{IdentityMissing, Hold, "the stage must know the machine's UUID, and none was given", "update the boot loader: every iPXE sends its UUID"},
		{BundleMissing, LocalBoot, "the run's bundle is not in the store, or damaged", "`bootlane bundle list` says whether it is being fetched; else import it again: the open run goes on"},
		{BundleMismatch, LocalBoot, "the bundle found is not the one the run is bound to", "`bootlane provision HOST` with the bundle you mean"},
		{BundleRefused, LocalBoot, "the run's bundle may not be installed any more: expired, revoked, not signed as the site wants, or brought in behind Bootlane's back", "`bootlane bundle list` says why; `bootlane cancel HOST`, then `bootlane provision HOST` with a bundle that may be installed"},
		{ArchMismatch, LocalBoot, "the bundle has no files for the machine's architecture, or the machine is of another than its record says", "choose a bundle for this architecture, or correct `arch` in the inventory"},
		{Granted, Install, "the host is provisioning, its run is open, and everything the stage can know agrees", "nothing; the machine installs"},
		{DiskMismatch, Hold, "the agent's disks do not include exactly the one that the inventory selects (the agent's order, never Decide)", "compare the disks in `bootlane events HOST` with the record, correct it, then `bootlane provision HOST`"},
		{HardwareMismatch, Hold, "the agent's machine has not what a profile of the configuration asks of it (the agent's order, never Decide)", "compare the machine with `profiles` in the configuration; then `bootlane provision HOST`"},
		{LoaderFailed, LocalBoot, "the boot loader could not load the installer's files (its report, never Decide)", "look at HTTP from the machine, and at `bootlane events HOST`; the run is still open"},
		{LoaderLoop, LocalBoot, "the machine fetches its boot loader over and over, and the loader never asks for a script (the surfaces', never Decide)", "look at the console: Secure Boot refuses an unsigned loader after it was loaded; or the NIC needs another one, `boot.loader` in the inventory"},
		{LoaderByTFTP, LocalBoot, "the firmware asks by HTTP Boot, and its boot loader works by PXE only (the surfaces', never Decide)", "let the firmware boot by PXE as well, or use a loader that can: iPXE, or a GRUB whose bundle says `http: true`"},
		{ForeignAddress, Hold, "what opens a run was used from an address that is not its machine's (the surfaces', never Decide)", "the evidence names the address: if that is the machine, behind NAT or with a lease of another server, set `policy.runAddress: any`; if not, somebody has read the run's secret: `bootlane cancel HOST`, and provision anew"},
		{RunNotBegun, Hold, "what opens a run was used before any script of it was served (the surfaces', never Decide)", "nobody can know it yet: who reads the server's database or its operators' screens? `bootlane cancel HOST`, and provision anew"},
		{StoreUnavailable, Hold, "the decision could not be read or recorded (never returned by Decide; the surfaces use it)", "see the server's log and `bootlane serve --check`"},
	}
}

// Signal is one thing a machine showed that does not agree with the inventory.
type Signal struct {
	Name     string `json:"name"`           // uuid, mac, serial, assetTag
	Expected string `json:"expected"`       // what the record says
	Seen     string `json:"seen"`           // what the machine showed
	Host     HostID `json:"host,omitempty"` // the record this line speaks of
}

// String returns the signal on one line, both values shown.
func (s Signal) String() string {
	return fmt.Sprintf("%s: inventory %s says %q, the machine shows %q", s.Name, s.Host, s.Expected, s.Seen)
}

// Decision answers the one question. The zero Decision holds.
type Decision struct {
	Action   Action   `json:"action"`
	Reason   Reason   `json:"reason"`
	Detail   string   `json:"detail,omitempty"` // one line for people
	Host     HostID   `json:"host,omitempty"`   // the record found, if exactly one
	Claims   []HostID `json:"claims,omitempty"` // every record a signal points at, when the identity is disputed
	Mismatch []Signal `json:"mismatch,omitempty"`
	Run      RunID    `json:"run,omitempty"`
	Bundle   Digest   `json:"bundle,omitempty"`
	// Boot is what the record says of the machine's firmware; no part of the judgement.
	Boot BootOptions `json:"boot,omitzero"`
}

// Disputed reports whether the machine's identity contradicts the inventory:
// every record it claims goes to quarantine.
func (d Decision) Disputed() bool {
	return d.Reason == IdentityMismatch || d.Reason == IdentityAmbiguous
}

// Policy is the site's rules, from its configuration. The zero Policy is usable and strict.
type Policy struct {
	// Retry is how long after a counted network boot the same script may be fetched
	// again without counting: iPXE repeats a request whose answer was lost.
	// Zero: 30 s.
	Retry time.Duration
	// HoldFailed holds a machine whose run failed, instead of sending it to its disk.
	HoldFailed bool
	// AnyAddress lets a run's files be fetched from any address: machines behind changing NAT.
	AnyAddress bool
	// Limit and Stages are what grants get; see [Grant].
	Limit  time.Duration
	Stages map[Stage]time.Duration
	// Inspect is the bundle whose agent looks at machines that nobody knows, and at hosts that an
	// operator asks for, as it stands now. One without a digest looks at none.
	Inspect Bundle
}

// afterFailure is what a machine is told whose run came to a bad end.
func (p Policy) afterFailure() Action {
	if p.HoldFailed {
		return Hold
	}
	return LocalBoot
}

// RetryWindow returns Retry, or its default.
func (p Policy) RetryWindow() time.Duration {
	if p.Retry > 0 {
		return p.Retry
	}
	return 30 * time.Second
}

// Decide answers what a machine that said f may be given now.
//
// hosts is every inventory record that any signal of f points at: by UUID in
// either byte order, by any MAC, by serial number or asset tag. bundle is the
// one that the run of the single record is bound to. A record that is missing
// is simply absent, a bundle that is missing has no digest, and one that may not be
// installed now says why in its Refusal.
//
// Decide is total and never fails. Every guard below takes something away;
// Install is what remains when nothing did.
func Decide(hosts []Host, f Facts, bundle Bundle, policy Policy, now time.Time) Decision {
	host, dispute := resolve(hosts, f)
	if dispute.Reason != "" {
		return policy.orInspect(dispute, UnknownInspected, dispute.Reason == UnknownMachine, f)
	}
	looked := policy.orInspect(Decision{Host: host.ID}, HostInspected, host.inspectable(now), f)
	if looked.Action == Inspect {
		return looked
	}
	d := Decision{Host: host.ID, Run: host.Run.ID, Bundle: host.Run.Bundle}
	answer := func(a Action, r Reason, format string, args ...any) Decision {
		d.Action, d.Reason, d.Detail = a, r, fmt.Sprintf(format, args...)+looked.Detail
		return d
	}
	switch host.State {
	case StateQuarantine:
		d.Mismatch = host.Dispute
		return answer(Hold, HostQuarantined, "%s", said(string(host.ID)+" is in quarantine", host.Note))
	case StateRetired, StateNew, StateInstalled:
		why, text := host.State.rests()
		return answer(LocalBoot, why, "%s %s", host.ID, text)
	case StateFailed:
		return answer(policy.afterFailure(), HostFailed, "the last run of %s failed: %s", host.ID, host.Note)
	case StateProvisioning:
		// the only state that may go on
	default:
		return answer(Hold, StateUnknown, "%s is in the unknown state %q", host.ID, host.State)
	}
	run := host.Run
	switch {
	case run.ID == "" || !run.Open:
		return answer(LocalBoot, NoRun, "%s has no open run", host.ID)
	case !run.Stage.Known():
		return answer(Hold, StateUnknown, "the run is at the unknown stage %q: it may be behind the disk", run.Stage)
	case now.Before(run.Armed):
		return answer(LocalBoot, ClockBackwards, "the clock reads %s, before the run was armed at %s", stamp(now), stamp(run.Armed))
	case !now.Before(run.Deadline):
		return answer(policy.afterFailure(), RunExpired, "the run's deadline was %s", stamp(run.Deadline))
	case run.Stage.AtLeast(StageDiskWritten):
		return answer(LocalBoot, DiskWritten, "this run has written the disk")
	case !run.Delivered.IsZero() && (f.Speaker.countsBoots() || !run.delivered(now)):
		return answer(LocalBoot, ConfigDelivered, "the machine was given its configuration at %s, and writes the disk by itself", stamp(run.Delivered))
	case f.Speaker.countsBoots() && !run.bootLeft(now, policy):
		return answer(policy.afterFailure(), BootsSpent, "all %d network boots of the grant are used", run.Boots)
	case f.complete() && f.UUID == "":
		return answer(Hold, IdentityMissing, "the %s gave no UUID", f.Speaker)
	case bundle.Digest == "":
		return answer(LocalBoot, BundleMissing, "%s", said("the bundle "+string(run.Bundle)+" is not in the store", bundle.Refusal))
	case bundle.Digest != run.Bundle:
		return answer(LocalBoot, BundleMismatch, "the run is bound to %s, the store gave %s", run.Bundle, bundle.Digest)
	case bundle.Refusal != "":
		return answer(LocalBoot, BundleRefused, "%s", bundle.Refusal)
	case !bundle.Fits(host.Arch):
		return answer(LocalBoot, ArchMismatch, "the bundle %s has nothing for %s", bundle.Name, host.Arch)
	case f.Arch != "" && f.Arch != host.Arch: // the record says what a bundle for several gives
		return answer(LocalBoot, ArchMismatch, "the machine is %s, its record says %s", f.Arch, host.Arch)
	}
	return answer(Install, Granted, "run %s may write the disk %s", run.ID, run.Disks())
}

// rests says why a host of this state has nothing to get by network.
func (s State) rests() (Reason, string) {
	switch s {
	case StateRetired:
		return HostRetired, "is retired"
	case StateNew:
		return HostNew, "is known, and nobody asked to install it"
	}
	return HostInstalled, "is installed"
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// Asset names what a machine asks for under its run's capability.
type Asset string

// The assets of a run.
const (
	AssetFile   Asset = "file"    // a file of the bundle, by digest
	AssetSeed   Asset = "seed"    // an installer document
	AssetTree   Asset = "tree"    // a file of the installer tree
	AssetOrder  Asset = "order"   // the agent's order
	AssetReport Asset = "report"  // a report posted back
	AssetJoin   Asset = "join.sh" // what leads the machine into its cluster, with a credential
)
