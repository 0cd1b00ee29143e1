package control

import (
	"context"
	"slices"
	"strings"

	"bootlane/internal/lane"
)

// Ask answers what a machine that said f may be given, and puts question and
// answer on record. The answer is final for the surface that asked: it only
// translates it. An error means that nothing could be decided or recorded: the
// surface stays silent or says "try again", and never installs.
func (c *Control) Ask(ctx context.Context, f lane.Facts) (lane.Decision, error) {
	d, host, err := c.decide(ctx, f)
	if err != nil {
		return lane.Decision{Reason: lane.StoreUnavailable, Detail: "the inventory cannot be read"}, err
	}
	if err := c.aftermath(ctx, d, host, f); err != nil {
		return lane.Decision{Reason: lane.StoreUnavailable, Detail: "the decision cannot be recorded"}, err
	}
	c.Store.Record(c.answered(lane.KindAsked, d, f))
	if d.Action == lane.Install {
		if err := c.observe(ctx, host, f); err != nil {
			return lane.Decision{Reason: lane.StoreUnavailable, Detail: "the run's progress cannot be recorded"}, err
		}
	}
	return d, nil
}

// decide gathers what Decide needs, and asks it.
func (c *Control) decide(ctx context.Context, f lane.Facts) (lane.Decision, lane.Host, error) {
	hosts, err := c.Store.Claimants(ctx, f.Keys())
	if err != nil {
		return lane.Decision{}, lane.Host{}, err
	}
	d, h := c.judge(ctx, hosts, f)
	return d, h, nil
}

func (c *Control) judge(ctx context.Context, hosts []lane.Host, f lane.Facts) (lane.Decision, lane.Host) {
	var b lane.Bundle
	policy := c.policy(ctx, hosts)
	for _, h := range hosts {
		if h.State == lane.StateProvisioning && h.Run.Open {
			// A bundle that is gone has no digest: Decide has a reason for that.
			b = c.granted(ctx, h)
		}
	}
	d := lane.Decide(hosts, f, b, policy, c.Now())
	if d.Action == lane.Inspect {
		b = policy.Inspect
	}
	for _, h := range hosts {
		if h.ID == d.Host {
			d.Boot = h.Boot
			return c.byHTTP(d, f, b), h
		}
	}
	return c.byHTTP(d, f, b), lane.Host{}
}

// granted returns the bundle of an open run, as it may be installed now; where it is lacking,
// what is done about that.
func (c *Control) granted(ctx context.Context, h lane.Host) lane.Bundle {
	b, err := c.bundle(ctx, h.Run.Bundle)
	switch {
	case lane.CodeOf(err) == lane.NotFound:
		return lane.Bundle{Refusal: c.missed(ctx, h)}
	case err != nil:
		return lane.Bundle{}
	case b.Refusal != "" && c.Bundles.Broken(b.Digest):
		if doing := c.missed(ctx, h); doing != "" {
			b.Refusal += "; " + doing
		}
	}
	return b
}

// aftermath does what a decision brings about in the records: a dispute sets
// every claimed one aside, a grant that is used up ends its run.
func (c *Control) aftermath(ctx context.Context, d lane.Decision, h lane.Host, f lane.Facts) error {
	for _, id := range d.Claims {
		_, err := c.change(ctx, id, func(h lane.Host) (lane.Host, lane.Event, error) {
			own := slices.DeleteFunc(slices.Clone(d.Mismatch), func(s lane.Signal) bool { return s.Host != id })
			if !lane.Disputable(h, own, &f) {
				return h, lane.Event{}, nil
			}
			return lane.Quarantine(h, own, &f, "server", disputeText(d.Detail, own), c.Now())
		})
		if err != nil {
			return err
		}
	}
	switch d.Reason {
	case lane.BootsSpent:
		if f.Speaker != lane.SpeakerLoader || f.Surface != lane.SurfaceHTTP || f.UUID == "" {
			return nil // one invented DISCOVER must not end an install that runs
		}
		_, err := c.change(ctx, h.ID, func(h lane.Host) (lane.Host, lane.Event, error) {
			if h.State != lane.StateProvisioning || !h.Run.Open {
				return h, lane.Event{}, nil
			}
			return lane.Fail(h, lane.BootsSpent, "the machine asked for another network boot after all of its grant, and had not written the disk: it reached "+string(h.Run.Stage), c.Now())
		})
		return err
	case lane.RunExpired:
		return c.expire(ctx, h.ID)
	}
	return nil
}

func disputeText(detail string, mismatch []lane.Signal) string {
	var parts []string
	for _, s := range mismatch {
		parts = append(parts, s.String())
	}
	return detail + ": " + strings.Join(parts, "; ")
}

// observe notes the early stages, which only the server can see.
func (c *Control) observe(ctx context.Context, h lane.Host, f lane.Facts) error {
	var stage lane.Stage
	var message string
	switch {
	case f.Surface == lane.SurfaceDHCP && f.Speaker == lane.SpeakerROM:
		stage, message = lane.StageAddress, "firmware asked for an address and was offered a boot loader"
	case f.Surface != lane.SurfaceDHCP && f.Speaker == lane.SpeakerROM:
		stage, message = lane.StageLoader, "firmware fetches the boot loader "+f.Name
	case f.Speaker == lane.SpeakerLoader:
		stage, message = lane.StageLoader, "the boot loader asks"
	default:
		return nil
	}
	if h.Run.Stage.AtLeast(stage) {
		return nil
	}
	_, err := c.change(ctx, h.ID, func(h lane.Host) (lane.Host, lane.Event, error) {
		next, e, news := lane.Observe(h, stage, message, c.Now())
		if !news {
			return h, lane.Event{}, nil
		}
		return next, e, nil
	})
	return err
}
