package control

import (
	"context"
	"net/netip"

	"bootlane/internal/lane"
)

// opened finds the host of a capability. One that no run has raises an alarm: nobody finds it by
// chance, so that it is an earlier run's, or guessed.
func (c *Control) opened(ctx context.Context, capability string, f lane.Facts) (lane.Host, error) {
	h, err := c.Store.ByCapability(ctx, capability)
	if lane.CodeOf(err) == lane.NotFound {
		c.Store.Record(lane.Event{Subject: lane.SubjectServer, At: c.Now(), Kind: lane.KindAlarm, By: string(f.Surface), Surface: f.Surface,
			Message: "a capability that no run has was tried from " + f.From})
	}
	return h, err
}

// stray says why what an open run has is not given to whoever asks from this address, or at this
// stage; a Decision without a Reason is that nothing speaks against it.
func (c *Control) stray(ctx context.Context, h lane.Host, f lane.Facts) (lane.Decision, error) {
	d := lane.Decision{Host: h.ID, Run: h.Run.ID}
	if !h.Run.Open {
		return d, nil
	}
	if !h.Run.Stage.AtLeast(lane.StageScript) {
		d.Reason, d.Detail = lane.RunNotBegun, "no script of this run was served yet, and nothing else says what opens it"
		return d, nil
	}
	if c.Policy.AnyAddress || h.Near(f.From) {
		return d, nil
	}
	owner, ours, err := c.holder(ctx, h, f.From)
	if err == nil && !ours {
		d.Reason, d.Detail = lane.ForeignAddress, "its machine asked for its script from "+h.Run.Peer+", and "+owner
	}
	return d, err
}

// holder says who has an address, and whether that is the machine of a host. Where another
// server gives the addresses, all of the machine's network can be its.
func (c *Control) holder(ctx context.Context, h lane.Host, from string) (owner string, ours bool, err error) {
	a, err := netip.ParseAddr(from)
	if err != nil {
		return from + " is no address", false, nil
	}
	a = a.Unmap().WithZone("")
	l, err := c.Store.LeaseAt(ctx, a)
	switch {
	case err == nil && h.Leased(l):
		return "", true, nil
	case err == nil:
		who := c.owner(lane.Facts{MAC: l.MAC})
		return from + " is leased to " + who, false, nil
	case lane.CodeOf(err) != lane.NotFound:
		return "", false, err
	}
	peer, err := netip.ParseAddr(h.Run.Peer)
	for _, n := range c.Networks {
		if (n.Proxy || n.External) && err == nil && n.Prefix.Contains(a) && n.Prefix.Contains(peer.Unmap()) {
			return "", true, nil
		}
	}
	return from + " is neither leased to it nor reserved for it", false, nil
}

// alarm puts a use of a run's capability on record that is refused, and returns the refusal.
func (c *Control) alarm(h lane.Host, d lane.Decision, f lane.Facts, what string) error {
	e := c.answered(lane.KindAlarm, d, f)
	e.Subject, e.Message = string(h.ID), lane.Clean(what+": "+d.Detail, 1000)
	c.Store.Record(e)
	return lane.Errorf(lane.Refused, "%s: %s", d.Reason, d.Detail)
}
