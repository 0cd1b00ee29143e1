package lane

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Talos has selected NICs as it is told here since 1.9; of a release behind 1.12, whose library judges the
// configuration, nobody could say what it reads.
var talosRelease = regexp.MustCompile(`^1\.(9|1[0-2])\.[0-9]{1,2}$`)

// Talos returns why the bundle is none that [SeedTalos] can install.
func (b Bundle) Talos() (out []Problem) {
	if b.OS != "talos" {
		out = append(out, Problem{"os", fmt.Sprintf("%q is not one that %s can install: use talos", b.OS, SeedTalos)})
	}
	if !talosRelease.MatchString(b.Release) {
		out = append(out, Problem{"release", fmt.Sprintf("%q is not a release that %s can install: one from 1.9 to 1.12, whole, such as 1.12.0", b.Release, SeedTalos)})
	}
	return out
}

// A machine of Talos runs no program of ours: it asks for its configuration, says who it is, and
// from then on nothing is heard of it. So the configuration is the last that can be refused, and
// with it the grant is spent.

// configRetry is how long a configuration is given again: Talos waits up to three minutes for an answer
// that was lost. It is the same machine at the same address that asks, and a network boot is told apart.
const configRetry = 5 * time.Minute

// Unsaid returns what of the record's identity a machine that asks for its configuration has not
// told. It is told by which it asks, and so has no excuse.
func (h Host) Unsaid(f Facts) (out []string) {
	for _, s := range []struct {
		name          string
		known, silent bool
	}{{"uuid", !h.Identity.UUID.Placeholder(), f.UUID == ""}, {"mac", h.AsksMAC(), f.MAC == "" && len(f.MACs) == 0}, {"serial", !PlaceholderText(h.Identity.Serial), f.Serial == ""}} {
		if s.known && s.silent {
			out = append(out, s.name)
		}
	}
	return out
}

// AsksMAC reports whether a machine of Talos must say a MAC: it says that of the NIC which was up first,
// and its UUID is better.
func (h Host) AsksMAC() bool { return len(h.Identity.MACs) > 0 && h.Identity.UUID.Placeholder() }

// OwnNIC makes f say a NIC of the record, where the one it says is another of the same machine: its boot
// loader listed both. Talos tells the NIC that was up first.
func (h Host) OwnNIC(f Facts) Facts {
	if slices.Contains(h.Run.NICs, f.MAC) && len(h.Identity.MACs) > 0 {
		f.MAC = h.Identity.MACs[0]
	}
	return f
}

// Deliver notes that the machine is given its configuration: it writes its disk by itself now. It
// reports false where that is a repetition, whose first answer may have been lost.
func Deliver(h Host, f Facts, now time.Time) (Host, Event, bool, error) {
	if h.Run.delivered(now) {
		return h, Event{}, false, nil
	}
	h, err := h.begin(VerbAdvance)
	if err != nil {
		return Host{}, Event{}, false, err
	}
	if !h.Run.Open || !h.Run.Delivered.IsZero() || h.Run.Stage.AtLeast(StageDiskWritten) {
		return Host{}, Event{}, false, Errorf(Refused, "the run of %s has given its configuration already: where the machine did not get it, `bootlane cancel`, `provision`, and power-cycle it", h.ID)
	}
	h.Run.Delivered = now
	h.reach(StageInstaller, now)
	return h, h.event(KindStage, "server", now, "machine configuration given to %s: Talos writes the disk by itself, and reports nothing", f.said()), true, nil
}

// delivered reports whether the configuration was given so recently that a machine may ask again.
func (r Run) delivered(now time.Time) bool {
	return !r.Delivered.IsZero() && !now.Before(r.Delivered) && now.Sub(r.Delivered) < configRetry
}

// AwaitsNode reports whether the machine of an open run is known to be installed by its cluster only.
func (h Host) AwaitsNode() bool {
	return h.Run.Open && !h.Run.Delivered.IsZero() && h.Run.Cluster != ""
}

// IsNode reports whether a Node is Ready, and is of this machine: of another one with its name, or an
// old one of a record without a UUID, nobody could tell.
func (h Host) IsNode(n ClusterNode) bool {
	seen, err := ParseUUID(n.SystemUUID)
	return n.Ready && n.Name == h.NodeName() && err == nil && h.Identity.UUID.SameAs(seen)
}

// Confirm ends a run whose machine does not report by itself, as installed: somebody else knows it.
// One that ran out of time before anybody said so is mended.
func Confirm(h Host, by, why string, now time.Time) (Host, Event, error) {
	switch late := h.State == StateFailed && !h.Run.Open; {
	case !h.Run.Open && !late:
		return Host{}, Event{}, Errorf(Refused, "%s has no open run, and none that failed", h.ID)
	case h.Run.Delivered.IsZero():
		return Host{}, Event{}, Errorf(Refused, "the machine of %s was given no configuration of Talos in its run: other systems report by themselves, and of this run `bootlane why %s` says where it stands", h.ID, h.ID)
	}
	h, err := h.begin(VerbConfirm)
	if err != nil {
		return Host{}, Event{}, err
	}
	h.reach(h.Run.Last(), now)
	h.close(string(h.Run.Last()), now)
	h.goOnTo(StateInstalled, "", now)
	return h, h.event(KindInstalled, by, now, "%s", cmp.Or(why, "no reason given")), nil
}
