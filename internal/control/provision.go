package control

import (
	"context"
	"slices"

	"bootlane/internal/lane"
)

// Provision grants one install, after a preflight that returns all problems at
// once as the Problems of a Refused error.
func (c *Control) Provision(ctx context.Context, id lane.HostID, p lane.Provisioning) (lane.Host, error) {
	p = p.WithDefaults()
	if err := p.Validate(); err != nil {
		return lane.Host{}, err
	}
	run, err := c.random(6)
	if err != nil {
		return lane.Host{}, err
	}
	capability, err := c.random(20)
	if err != nil {
		return lane.Host{}, err
	}
	c.collecting.RLock()
	defer c.collecting.RUnlock()
	return c.change(ctx, id, func(h lane.Host) (lane.Host, lane.Event, error) {
		b, err := c.preflight(ctx, h, p)
		if err != nil || p.Check {
			return h, lane.Event{}, err
		}
		return lane.Arm(h, b, lane.Grant{Run: lane.RunID("r-" + run), Capability: capability, By: p.By, For: p.For, Limit: c.Policy.Limit, Stages: c.Policy.Stages, Boots: p.Boots, Reinstall: p.Reinstall}, c.Now())
	})
}

func (c *Control) preflight(ctx context.Context, h lane.Host, p lane.Provisioning) (lane.Bundle, error) {
	if p.Bundle != "" {
		h.Bundle = p.Bundle
	}
	var b lane.Bundle
	if h.Bundle != "" {
		found, err := c.findBundle(ctx, h.Bundle)
		if err != nil && lane.CodeOf(err) != lane.NotFound {
			return b, err
		}
		b = found
		switch doing, lacking := c.ask(ctx, h.Bundle); {
		case err != nil:
			b.Refusal = c.missing(ctx, h.Bundle, err).Error()
		case lacking: // it is damaged, and is mended
			b.Refusal += "; " + doing.Later()
		}
	}
	others, err := c.Store.Claimants(ctx, h.Claims())
	if err != nil {
		return b, err
	}
	problems := slices.Concat(lane.Armable(h, p.Reinstall), lane.Preflight(h, b), lane.Collisions(h, others), c.siteProblems(h))
	if own, ok := b.For(h.Arch); ok && b.Digest != "" {
		problems = slices.Concat(problems, c.seedProblems(h, own), c.chainProblems(h, own))
	}
	if len(problems) > 0 {
		return b, refuse("preflight refuses to provision "+string(h.ID), problems)
	}
	return b, nil
}
