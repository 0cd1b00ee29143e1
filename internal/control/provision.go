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
	h, err := c.record(ctx, id)
	if err != nil {
		return lane.Host{}, err
	}
	// All of it first: who collects bundles must not wait for mirrors and clusters.
	first := &preflight{Control: c, bundle: p.Bundle, reinstall: p.Reinstall, replaceNode: p.ReplaceNode}
	_, problems, err := first.host(ctx, h)
	if err == nil {
		err = refusal(id, problems)
	}
	if err != nil {
		return lane.Host{}, err
	}
	c.collecting.RLock()
	defer c.collecting.RUnlock()
	return c.change(ctx, id, func(h lane.Host) (lane.Host, lane.Event, error) {
		// Anew with every try: what it saw may have changed.
		look := &preflight{Control: c, bundle: p.Bundle, reinstall: p.Reinstall, settled: true}
		b, problems, err := look.host(ctx, h)
		if err != nil {
			return h, lane.Event{}, err
		}
		if err := refusal(id, problems); err != nil {
			return h, lane.Event{}, err
		}
		site, _ := c.installed(h)
		opener := ""
		if e := site.OpenedBy(); e != nil {
			opener = e.String()
		}
		return lane.Arm(h, b, lane.Grant{Opener: opener, Cluster: site.Cluster, Why: p.Why, Run: lane.RunID("r-" + run), Capability: capability, By: p.By, For: p.For, Limit: c.Policy.Limit, Stages: c.Policy.Stages, Boots: p.Boots, Reinstall: p.Reinstall}, c.Now())
	})
}

// refusal is what a preflight's problems come to.
func refusal(id lane.HostID, problems []lane.Problem) error {
	if len(problems) == 0 {
		return nil
	}
	return refuse("preflight refuses to provision "+string(id), problems)
}
