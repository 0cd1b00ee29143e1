package control

import (
	"context"
	"slices"

	"bootlane/internal/lane"
)

// FirstBoot returns what a host's machine last reported of its first boot, in its present run or
// the last one. That it reported nothing yet is an answer, with a note.
func (c *Control) FirstBoot(ctx context.Context, id lane.HostID) (lane.FirstBoot, error) {
	h, err := c.record(ctx, id)
	if err != nil {
		return lane.FirstBoot{}, err
	}
	events, err := c.told(ctx, string(id))
	if err != nil {
		return lane.FirstBoot{}, err
	}
	out := lane.FirstBoot{Host: h.ID, Run: h.Run.ID, Stage: h.Run.Stage, Checks: []lane.Check{}}
	for _, e := range slices.Backward(events) {
		if e.Run == h.Run.ID && len(e.Checks) > 0 {
			out.At, out.Checks, out.Failed = e.At, e.Checks, len(lane.FailedChecks(e.Checks))
			return out, nil
		}
	}
	switch {
	case h.Run.ID == "":
		out.Note = "it has no run: nothing was installed here"
	case h.Run.Open:
		out.Note = "its first boot has not reported yet: run " + string(h.Run.ID) + " is at " + string(h.Run.Stage)
	default:
		out.Note = "its first boot never reported: run " + string(h.Run.ID) + " ended at " + string(h.Run.Stage) + ", " + h.Run.Outcome
	}
	return out, nil
}
