package lane

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Talos has been configured as it is here since 1.7.
var talosRelease = regexp.MustCompile(`^1\.([7-9]|[1-9][0-9])\.[0-9]{1,2}$`)

// Talos returns why the bundle is none that [SeedTalos] can install.
func (b Bundle) Talos() (out []Problem) {
	if b.OS != "talos" {
		out = append(out, Problem{"os", fmt.Sprintf("%q is not one that %s can install: use talos", b.OS, SeedTalos)})
	}
	if !talosRelease.MatchString(b.Release) {
		out = append(out, Problem{"release", fmt.Sprintf("%q is not a release that %s can install: a whole number from 1.7.0 on, such as 1.12.0", b.Release, SeedTalos)})
	}
	return out
}

// A machine of Talos runs no program of ours: it asks for its configuration, says who it is, and
// from then on nothing is heard of it. So the configuration is the last that can be refused, and
// with it the grant is spent.

// Unsaid returns what of the record's identity a machine that asks for its configuration has not
// told. It is told by which it asks, and so has no excuse.
func (h Host) Unsaid(f Facts) (out []string) {
	for _, s := range []struct {
		name          string
		known, silent bool
	}{{"uuid", !h.Identity.UUID.Placeholder(), f.UUID == ""}, {"mac", len(h.Identity.MACs) > 0, f.MAC == "" && len(f.MACs) == 0}, {"serial", !PlaceholderText(h.Identity.Serial), f.Serial == ""}} {
		if s.known && s.silent {
			out = append(out, s.name)
		}
	}
	return out
}

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
func Deliver(h Host, f Facts, p Policy, now time.Time) (Host, Event, bool, error) {
	if h.Run.delivered(now, p) {
		return h, Event{}, false, nil
	}
	h, err := h.begin(VerbAdvance)
	if err != nil {
		return Host{}, Event{}, false, err
	}
	if !h.Run.Open || !h.Run.Delivered.IsZero() || h.Run.Stage.AtLeast(StageDiskWritten) {
		return Host{}, Event{}, false, Errorf(Refused, "the run of %s has given its configuration already", h.ID)
	}
	h.Run.Delivered = now
	h.reach(StageInstaller, now)
	return h, h.event(KindStage, "server", now, "machine configuration given to %s: Talos writes the disk by itself, and reports nothing", f.said()), true, nil
}

// delivered reports whether the configuration was given so recently that a machine may ask again.
func (r Run) delivered(now time.Time, p Policy) bool {
	return !r.Delivered.IsZero() && !now.Before(r.Delivered) && now.Sub(r.Delivered) < p.RetryWindow()
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
func Confirm(h Host, by, why string, now time.Time) (Host, Event, error) {
	h, err := h.begin(VerbReady)
	if err != nil {
		return Host{}, Event{}, err
	}
	if !h.Run.Open || h.Run.Delivered.IsZero() {
		return Host{}, Event{}, Errorf(Refused, "%s has no open run whose machine was given a configuration of Talos: other systems report by themselves", h.ID)
	}
	h.reach(h.Run.Last(), now)
	h.close(string(h.Run.Last()), now)
	h.goOnTo(StateInstalled, "", now)
	return h, h.event(KindInstalled, by, now, "%s", cmp.Or(why, "no reason given")), nil
}
