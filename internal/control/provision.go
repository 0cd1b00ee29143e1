package control

import (
	"context"

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
		look := &preflight{Control: c, bundle: p.Bundle, reinstall: p.Reinstall, replaceNode: p.ReplaceNode} // anew with every try: what it saw may have changed
		b, problems, err := look.host(ctx, h)
		if err != nil {
			return h, lane.Event{}, err
		}
		if len(problems) > 0 {
			return h, lane.Event{}, refuse("preflight refuses to provision "+string(h.ID), problems)
		}
		site, _ := c.installed(h)
		return lane.Arm(h, b, lane.Grant{Cluster: site.Cluster, Why: p.Why, Run: lane.RunID("r-" + run), Capability: capability, By: p.By, For: p.For, Limit: c.Policy.Limit, Stages: c.Policy.Stages, Boots: p.Boots, Reinstall: p.Reinstall}, c.Now())
	})
}
