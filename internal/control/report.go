package control

import (
	"context"

	"bootlane/internal/lane"
)

// Report takes in what a run's installer, agent or first boot tells. It is
// idempotent: a repetition succeeds and changes nothing. It returns after the
// report is on record. What the sender says of its identity is checked once
// more: a report from another machine is refused and sets the record aside.
func (c *Control) Report(ctx context.Context, capability string, r lane.Report) error {
	h, err := c.opened(ctx, capability, r.Facts)
	if err != nil {
		return err
	}
	if r.Facts.UUID == "" && r.Facts.MAC == "" && h.Run.Open {
		// A system may report from an address of its own, if it says who it is.
		d, err := c.stray(ctx, h, r.Facts)
		if err != nil {
			return err
		}
		if d.Reason == lane.ForeignAddress {
			return c.alarm(h, d, r.Facts, "a report under run "+string(h.Run.ID)+", of nobody who says who it is, came from "+r.Facts.From)
		}
	}
	r.Run = h.Run.ID
	r.Facts.Run = h.Run.ID
	for range conflicts {
		err := c.reportOnce(ctx, h.ID, r)
		if lane.CodeOf(err) != lane.Conflict {
			return err
		}
	}
	return lane.Errorf(lane.Conflict, "the record keeps changing")
}

func (c *Control) reportOnce(ctx context.Context, id lane.HostID, r lane.Report) error {
	h, err := c.Store.Host(ctx, id)
	if err != nil {
		return err
	}
	if diff := lane.Contradictions(h, r.Facts); len(diff) > 0 && h.Run.Open {
		d := lane.Decision{Reason: lane.IdentityMismatch, Host: id, Claims: []lane.HostID{id}, Mismatch: diff, Detail: "a report came from another machine"}
		if err := c.aftermath(ctx, d, h, r.Facts); err != nil {
			return err
		}
		return lane.Errorf(lane.Refused, "%s: %s", d.Detail, diff[0])
	}
	if _, claim := r.MachineID(); claim != "" && r.Status == lane.StatusOK {
		c.proving.Lock() // of two clones one must be the second
		defer c.proving.Unlock()
		others, err := c.Store.Claimants(ctx, []string{claim})
		if err != nil {
			return err
		}
		r = r.Cloned(h, others)
	}
	next, e, news, err := lane.Apply(h, r, c.Now())
	if err != nil {
		c.Store.Record(lane.Event{Subject: string(id), At: c.Now(), Kind: lane.KindRefused, By: string(r.Facts.Speaker), Surface: r.Facts.Surface,
			Run: r.Run, Stage: r.Stage, Message: "report refused: " + err.Error()})
		return err
	}
	if !news {
		return nil
	}
	e.Surface, e.Facts = lane.SurfaceHTTP, &r.Facts
	stored, _, err := c.Store.Append(ctx, next, e)
	if err == nil && stored.Join.Pending() {
		c.joins.of(id)
	}
	return err
}
