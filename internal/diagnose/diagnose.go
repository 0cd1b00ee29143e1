// Package diagnose says where a machine's lane stopped, why, and what to check
// next. It is pure: a record and its evidence go in, a verdict comes out. It
// always starts from the last stage that succeeded.
package diagnose

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// Host judges a machine with a record. Events are its evidence, ascending; b is its bundle as
// it stands now: that of its run, while this is open or has installed the machine, else the
// one that its record names.
func Host(h lane.Host, b lane.BundleStatus, events []lane.Event, now time.Time) lane.Verdict {
	v := stopped(h, b, events, now)
	if b.State != lane.BundleRevoked {
		return v
	}
	written := h.State == lane.StateProvisioning && h.Run.Stage.AtLeast(lane.StageDiskWritten)
	switch {
	case h.State == lane.StateInstalled && h.Run.Succeeded() || written:
		v.Because += "; what is on its disk must not be installed any more: " + b.Refused
		v.Next = fmt.Sprintf("`bootlane provision %s --reinstall --bundle BUNDLE`, with one that may be installed: `bootlane bundle list`", h.ID)
		if written {
			v.Next = "let the run end, or `bootlane cancel " + string(h.ID) + "`; then " + v.Next
		}
	case h.State == lane.StateNew || h.State == lane.StateFailed:
		v.Because += "; its bundle cannot be installed: " + b.Refused
		v.Next = "let its record, or its alias, mean a bundle that may be installed, `bootlane bundle list`; and: " + v.Next
	}
	return v
}

// stopped says where the machine's lane stopped.
func stopped(h lane.Host, b lane.BundleStatus, events []lane.Event, now time.Time) lane.Verdict {
	v := lane.Verdict{Subject: string(h.ID), State: h.State, Run: h.Run.ID, Stage: h.Run.Stage, StageAt: h.Run.StageAt, Outcome: h.Run.Outcome, Ended: h.Run.Ended}
	if h.State == lane.StateProvisioning && !h.Run.Stage.AtLeast(lane.StageDiskWritten) && b.Refused != "" {
		return barred(v, h, b, events)
	}
	early := h.State == lane.StateNew || h.State == lane.StateProvisioning && !h.Run.Stage.AtLeast(lane.StageLoader)
	if e := noAddress(events); e != nil && early {
		return withoutAddress(v, e)
	}
	switch h.State {
	case lane.StateNew:
		v.Rule, v.Because = "not-provisioned", "the machine is known, and nobody asked to install it"
		v.Next = "`bootlane provision " + string(h.ID) + "` when it should be installed"
		v.Evidence = last(events, func(lane.Event) bool { return true })
	case lane.StateInstalled:
		if e := bootsAgain(events); e != nil {
			v.Rule, v.Because, v.Evidence = "boots-again", "the machine was told to boot its disk, and asks by network again and again", e
			v.Next = "does its disk boot? Look at the console; if it does, set the boot order to disk first, or a one-time boot from disk, through the BMC: some firmware tries the network again when it is sent on"
			return v
		}
		v.Rule, v.Because = "installed", "first boot proved itself; network boots go to the disk"
		v.Next = "nothing"
		v.Evidence = last(events, isKind(lane.KindInstalled))
		return inCluster(v, h, events, now)
	case lane.StateRetired:
		v.Rule, v.Because, v.Next = "retired", "the record is out of service: "+h.Note, "`bootlane host import` brings it back"
		v.Evidence = last(events, isKind(lane.KindRetired))
	case lane.StateQuarantine:
		return quarantined(v, h, events)
	case lane.StateFailed:
		return failed(v, h, events)
	case lane.StateProvisioning:
		return underWay(v, h, b, events, now)
	default:
		v.Rule, v.Because, v.Next = "state-unknown", fmt.Sprintf("the state %q is not known to this version", h.State), "run the Bootlane version that wrote the record"
	}
	return v
}

// joining returns the last thing that was said about the machine's way into its cluster.
func joining(h lane.Host, events []lane.Event) *lane.Event {
	return last(events, func(e lane.Event) bool {
		told := e.Kind == lane.KindCluster || inClusterAlarm(e) || e.Kind == lane.KindIssued || e.Kind == lane.KindEnded
		return e.Run == h.Run.ID && (told || e.Kind == lane.KindRefused && e.Name == string(lane.AssetJoin))
	})
}

// inClusterAlarm tells the alarms about a cluster from those about what opens a run, which have a reason.
func inClusterAlarm(e lane.Event) bool { return e.Kind == lane.KindAlarm && e.Reason == "" }

// inCluster adds what is left to do, or to look at, in the cluster of an installed machine.
func inCluster(v lane.Verdict, h lane.Host, events []lane.Event, now time.Time) lane.Verdict {
	if h.Run.Cluster == "" || h.Join == nil || h.Join.Run != h.Run.ID {
		return v
	}
	v.Because = "first boot proved itself, and the machine is the node " + h.Join.Node + " of the cluster " + h.Join.Cluster + "; network boots go to the disk"
	alarm := last(events, func(e lane.Event) bool { return inClusterAlarm(e) && e.Run == h.Run.ID })
	check := "`bootlane cluster check " + h.Join.Cluster + "`"
	switch {
	case alarm != nil:
		v.Rule, v.Evidence, v.Because, v.Next = "node-alarm", alarm, v.Because+"; but "+alarm.Message, "look at the Node in the cluster, and at the machine"
	case h.Join.Live() && now.Sub(h.Join.Joined) > time.Minute:
		v.Rule, v.Because, v.Next = "credential-lives", v.Because+"; its join credential "+h.Join.Token+" is not deleted yet, and opens the cluster until "+h.Join.Expires.UTC().Format("2006-01-02 15:04:05Z"), check
		v.Evidence = cmp.Or(joining(h, events), v.Evidence)
	case h.Join.Marked.IsZero() && now.Sub(h.Join.Joined) > time.Minute:
		v.Rule, v.Because, v.Next = "node-not-labelled", v.Because+"; its Node is not labelled yet", check
		v.Evidence = cmp.Or(joining(h, events), v.Evidence)
	}
	return v
}

func withoutAddress(v lane.Verdict, e *lane.Event) lane.Verdict {
	v.Rule, v.Because, v.Evidence = "no-address", "the machine asks, and DHCP has no address for it: "+e.Message, e
	v.Next = "correct the inventory or the configuration, and let the machine ask again"
	return v
}

// Unknown judges a machine without a record, by its evidence.
func Unknown(subject string, events []lane.Event) lane.Verdict {
	v := lane.Verdict{Subject: subject, Rule: string(lane.UnknownMachine), Because: "no inventory record has this machine's UUID or MAC; it is held, and nothing is installed",
		Next: "add it to the inventory with `bootlane host import`; the evidence shows what it said of itself"}
	if e := noAddress(events); e != nil {
		return withoutAddress(v, e)
	}
	v.Evidence = last(events, func(e lane.Event) bool { return e.Reason != "" })
	if e := v.Evidence; e != nil && e.Reason != lane.UnknownMachine {
		v.Rule, v.Because, v.Mismatch = string(e.Reason), e.Message, e.Mismatch
		if e.Reason == lane.UnknownInspected {
			v.Next = "`bootlane host discovered` shows what was found, and `bootlane host adopt` makes a record of it; when nothing was found, the console of the machine says why"
		}
	}
	if v.Evidence == nil {
		v.Evidence = last(events, func(e lane.Event) bool { return e.Facts != nil })
	}
	return v
}

func quarantined(v lane.Verdict, h lane.Host, events []lane.Event) lane.Verdict {
	v.Mismatch = h.Dispute
	v.Evidence = last(events, isKind(lane.KindQuarantined))
	v.Because = "the record is set aside"
	if h.Note != "" {
		v.Because += ": " + h.Note
	}
	if h.Run.Stage.AtLeast(lane.StageDiskWritten) && (h.Run.Open || h.Run.Succeeded()) {
		v.Because += "; its run " + string(h.Run.ID) + " has written the disk: afterwards it boots that"
	}
	if len(h.Dispute) == 0 {
		v.Rule, v.Next = string(lane.HostQuarantined), "`bootlane release "+string(h.ID)+"` when the reason is gone"
		return v
	}
	v.Rule = string(lane.IdentityMismatch)
	v.Next = "look at the machine: was its board or a NIC replaced? Then `bootlane host accept " + string(h.ID) + " --board --rev " + fmt.Sprint(h.Rev) + "` or `--nic`; else correct the inventory and `bootlane release " + string(h.ID) + "`"
	return v
}

func failed(v lane.Verdict, h lane.Host, events []lane.Event) lane.Verdict {
	v.Evidence = last(events, func(e lane.Event) bool {
		return e.Kind == lane.KindFailed || e.Kind == lane.KindExpired || e.Kind == lane.KindCancelled
	})
	said := ""
	v.Rule = "reported-failure"
	if v.Evidence != nil {
		said = v.Evidence.Message
		switch {
		case v.Evidence.Kind == lane.KindExpired:
			v.Rule = string(lane.RunExpired)
		case v.Evidence.Kind == lane.KindCancelled:
			v.Rule = "cancelled"
		case v.Evidence.Reason != "":
			v.Rule = string(v.Evidence.Reason)
		}
	}
	if v.Evidence != nil {
		if bad := lane.FailedChecks(v.Evidence.Checks); len(bad) > 0 {
			return unready(v, h, bad)
		}
	}
	// A quarantine since then took the note's place.
	v.Because = cmp.Or(h.Note, said, "the last run failed at stage "+string(h.Run.Stage))
	v.Next = strings.ReplaceAll(stalled(h.Run).next, "CLUSTER", h.Run.Cluster) + "; then `bootlane provision " + string(h.ID) + "`"
	if v.Rule == string(lane.RunExpired) {
		v.Because += ": " + stalled(h.Run).because
		if e := joining(h, events); e != nil && h.Run.Stage == lane.StageReady {
			v.Because += ": " + e.Message
		}
		if e := lured(h, events); e != nil {
			v.Because += "; " + e.Message
		}
		if e := last(events, refusal); e != nil && e.Run == h.Run.ID {
			v.Because += "; last refusal: " + string(e.Reason) + " " + e.Message
		}
	}
	if v.Rule == string(lane.HardwareMismatch) {
		v.Next = "put into the machine what is named above, or correct `profiles` in the configuration; then `bootlane provision " + string(h.ID) + "`"
	}
	if v.Rule == string(lane.DiskMismatch) {
		v.Next = "compare the disks named above with `bootlane host show " + string(h.ID) + "`, correct the record's disk; then `bootlane provision " + string(h.ID) + "`"
	}
	return v
}

// unready judges an installed system that is not as it was asked for.
func unready(v lane.Verdict, h lane.Host, bad []lane.Check) lane.Verdict {
	v.Rule = "checks-failed"
	var because, next []string
	for _, c := range bad {
		because = append(because, c.String())
		next = append(next, c.Name+": "+lane.MendOf(c.Name))
	}
	v.Because = fmt.Sprintf("the system is installed, and %d of its checks failed: %s", len(bad), strings.Join(because, "; "))
	v.Next = strings.Join(next, ". ") + ". All checks: `bootlane firstboot check " + string(h.ID) + "`; then `bootlane provision " + string(h.ID) + "`"
	return v
}

func underWay(v lane.Verdict, h lane.Host, b lane.BundleStatus, events []lane.Event, now time.Time) lane.Verdict {
	v.Evidence = progressed(h, events)
	s := stalled(h.Run)
	quiet := now.Sub(h.Run.StageAt).Round(time.Second)
	v.Rule = "waiting-after-" + string(h.Run.Stage)
	v.Because = fmt.Sprintf("the run is open until %s and has been at stage %s for %s: %s", h.Run.Deadline.UTC().Format("2006-01-02 15:04:05Z"), h.Run.Stage, quiet, s.because)
	v.Next = s.next
	if e := joining(h, events); e != nil && h.Run.Stage == lane.StageReady {
		v.Evidence = e
		v.Because += ": " + e.Message
	}
	v.Next = strings.ReplaceAll(v.Next, "CLUSTER", h.Run.Cluster)
	asked := last(events, func(e lane.Event) bool { return e.Kind == lane.KindAsked && e.Facts != nil })
	if h.Run.Stage == lane.StageAddress && asked != nil && asked.Facts.HTTPBoot {
		v.Next = "it was told a URL for UEFI HTTP Boot and did not fetch it: does its firmware allow http:// (many want https, or a switch in the setup), and does it trust the certificate of an https:// one? Has it a route to the server?"
	}
	if e := bundleRefused(h, events); e != nil && b.Digest == "" { // else it may be installed again
		v.Rule, v.Evidence = string(e.Reason), e
		v.Because += "; since then its bundle is refused: " + e.Message
		v.Next = next(e.Reason)
		return v
	}
	if e := answered(h, events); e != nil && e.Reason == lane.ArchMismatch {
		v.Rule, v.Evidence = string(e.Reason), e
		v.Because += "; its machine was told to boot its disk: " + e.Message
		v.Next = next(e.Reason)
		return v
	}
	if e := strayed(h, events); e != nil {
		v.Rule, v.Evidence = string(e.Reason), e
		v.Because += "; since then, " + e.Message
		v.Next = next(e.Reason)
		return v
	}
	if e := lured(h, events); e != nil {
		v.Rule, v.Evidence = "other-server", e
		v.Because += "; " + e.Message
		v.Next = "find that server with `bootlane dhcp servers`, and turn it off, or take this machine's VLAN away from it; then let the machine boot again"
	}
	return v
}

// barred judges a run whose bundle may not be installed now, whether or not its machine has
// asked since.
func barred(v lane.Verdict, h lane.Host, b lane.BundleStatus, events []lane.Event) lane.Verdict {
	reason, what := lane.BundleRefused, "refused"
	if b.Digest == "" && b.State != lane.BundleRevoked {
		reason, what = lane.BundleMissing, "not in the store"
	}
	v.Rule, v.Next = string(reason), next(reason)
	v.Because = fmt.Sprintf("the run is open until %s and at stage %s, its bundle is %s, and so its machine is told to boot its disk: %s", h.Run.Deadline.UTC().Format("2006-01-02 15:04:05Z"), h.Run.Stage, what, b.Refused)
	if b.State == lane.BundleRevoked {
		v.Next = fmt.Sprintf("`bootlane cancel %s`, then `bootlane provision %s --bundle BUNDLE` with one that may be installed: `bootlane bundle list`", h.ID, h.ID)
	}
	if v.Evidence = bundleRefused(h, events); v.Evidence == nil {
		v.Evidence = progressed(h, events)
	}
	return v
}

// next returns what to do about a reason; every one of them is described.
func next(r lane.Reason) string {
	i := slices.IndexFunc(lane.Reasons(), func(d lane.ReasonDoc) bool { return d.Reason == r })
	return lane.Reasons()[i].Next
}

// progressed returns the last step of a run.
func progressed(h lane.Host, events []lane.Event) *lane.Event {
	return last(events, func(e lane.Event) bool {
		return e.Run == h.Run.ID && (e.Kind == lane.KindStage || e.Kind == lane.KindArmed || e.Kind == lane.KindProgress)
	})
}

// bundleRefused returns the last answer within the run, when that was that its bundle may
// not be installed any more.
func bundleRefused(h lane.Host, events []lane.Event) *lane.Event {
	e := answered(h, events)
	if e == nil || e.Reason != lane.BundleRefused && e.Reason != lane.BundleMissing {
		return nil
	}
	return e
}

// answered returns the last answer within the run.
func answered(h lane.Host, events []lane.Event) *lane.Event {
	return last(events, func(e lane.Event) bool { return e.Run == h.Run.ID && e.Reason != "" && e.Action != "" })
}

// strayed returns the last alarm of the run, when nothing of the run came after it: it may be its
// own machine that was refused.
func strayed(h lane.Host, events []lane.Event) *lane.Event {
	e := last(events, func(e lane.Event) bool {
		return e.Run == h.Run.ID && (e.Kind == lane.KindAlarm && e.Reason != "" || e.Kind == lane.KindStage || e.Kind == lane.KindProgress)
	})
	if e == nil || e.Kind != lane.KindAlarm {
		return nil
	}
	return e
}

// lured returns the evidence that the machine of a run took another server's offer
// before it came to our loader.
func lured(h lane.Host, events []lane.Event) *lane.Event {
	if h.Run.Stage.AtLeast(lane.StageLoader) {
		return nil
	}
	return last(events, func(e lane.Event) bool { return e.Kind == lane.KindForeign && e.At.After(h.Run.Armed) })
}

// stall is what it means when nothing follows a stage, and what to look at.
type stall struct{ because, next string }

func stalled(r lane.Run) stall {
	if !r.Delivered.IsZero() && !r.Stage.AtLeast(lane.StageDiskWritten) {
		return stall{"it was given its configuration of Talos, which reports nothing by itself", "look at its console, and ask it: `talosctl -n ADDRESS dmesg`; where it runs, say so with `bootlane host confirm HOST`"}
	}
	switch r.Stage {
	case lane.StageArmed:
		return stall{"the machine has not asked for anything yet", "is it powered, set to boot by network, and its link up on the boot VLAN? Look at the BMC's boot order and at `tcpdump -ni IFACE port 67`"}
	case lane.StageAddress:
		return stall{"it was offered an address and a boot loader, and has not fetched the loader", "TFTP reaches the machine? Look at firewalls, MTU, and the file name in option 67"}
	case lane.StageLoader:
		return stall{"the boot loader was fetched, and has not asked for its script", "under Secure Boot an unsigned loader is refused after download: look at the console; else look at iPXE's DHCP and at HTTP from the machine"}
	case lane.StageScript:
		return stall{"the install script was served, and the installer has not reported", "look at the console: did the kernel and initrd load, and did the installer's network come up?"}
	case lane.StageKernel:
		return stall{"the installer runs and reported, but has not passed its disk gate", "look at the installer's console: can it reach its package mirror, and does it wait for an answer?"}
	case lane.StageInstaller:
		return stall{"the disk gate passed, and the disk is not reported as written", "look at the installer's console and the progress in `bootlane events`"}
	case lane.StageDiskWritten:
		return stall{"the disk is written, and the installed system has not reported", "does the machine boot its disk? Look at the firmware's boot order and the console"}
	case lane.StageFirstBoot:
		return stall{"the installed system runs, and its checks have not all passed", "on the machine: `/usr/local/lib/bootlane/firstboot check`, and `journalctl -u bootlane-firstboot`"}
	case lane.StageReady: // of a run with a cluster: any other is closed by it
		return stall{"its checks passed, and it is not in its cluster yet", "`bootlane cluster check CLUSTER` says whether the cluster does what Bootlane asks; on the machine: `journalctl -u bootlane-firstboot`, then of kubelet, k0sworker or k3s-agent"}
	}
	return stall{"nothing more is expected", "nothing"}
}

// noAddress returns the last word of DHCP when that was a refusal, and nothing has
// come of it since: neither did the machine get on, nor was its record changed.
func noAddress(events []lane.Event) *lane.Event {
	e := last(events, func(e lane.Event) bool {
		return e.Surface == lane.SurfaceDHCP && (e.Kind == lane.KindLease || e.Kind == lane.KindRefused && e.Reason == "") ||
			e.Kind == lane.KindServed || e.Kind.Lasting()
	})
	if e == nil || e.Kind != lane.KindRefused {
		return nil
	}
	return e
}

// So many network boots of an installed machine, within such a time, are a loop. One boot
// may ask several times: by PXE and by HTTP, through each NIC.
const (
	againBoots  = 6
	againWithin = 5 * time.Minute
)

// bootsAgain returns the last of an installed machine's network boots when they are a loop.
func bootsAgain(events []lane.Event) *lane.Event {
	asks := func(e lane.Event) bool {
		return e.Kind == lane.KindAsked && e.Surface == lane.SurfaceDHCP && e.Speaker == lane.SpeakerROM && e.Name == "DISCOVER" && e.Action == lane.LocalBoot.String()
	}
	latest := last(events, asks)
	if latest == nil {
		return nil
	}
	n := 0
	for _, e := range events {
		if asks(e) && latest.At.Sub(e.At) <= againWithin {
			n += max(e.Count, 1)
		}
	}
	if n < againBoots {
		return nil
	}
	return latest
}

func isKind(k lane.Kind) func(lane.Event) bool {
	return func(e lane.Event) bool { return e.Kind == k }
}

func refusal(e lane.Event) bool {
	return (e.Kind == lane.KindRefused || e.Kind == lane.KindAlarm) && e.Reason != ""
}

func last(events []lane.Event, ok func(lane.Event) bool) *lane.Event {
	for i := len(events) - 1; i >= 0; i-- {
		if ok(events[i]) {
			return &events[i]
		}
	}
	return nil
}
