package control

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"bootlane/internal/lane"
)

// required returns the names of the profiles that a host must fit which gets a bundle, in order.
func (c *Control) required(h lane.Host, b lane.Bundle) (out []string) {
	for _, name := range slices.Sorted(maps.Keys(c.Profiles)) {
		if c.Profiles[name].Requires(h.Role, b.Name) {
			out = append(out, name)
		}
	}
	return out
}

// misfits returns what hardware has not that a host must have which gets a bundle.
func (c *Control) misfits(h lane.Host, b lane.Bundle, hw lane.Hardware) (out []string) {
	for _, name := range c.required(h, b) {
		for _, lack := range c.Profiles[name].Lacks(hw) {
			out = append(out, "profile "+name+": "+lack)
		}
	}
	return out
}

// found returns the last inspections, by each key of their machines' identity.
func (c *Control) found(ctx context.Context) (map[string]lane.Discovered, error) {
	list, err := c.Store.Discovered(ctx)
	out := map[string]lane.Discovered{}
	for _, d := range list {
		for _, k := range hardwareFacts(d.Hardware, lane.Facts{}).Keys() {
			if out[k].Heard.Before(d.Heard) {
				out[k] = d
			}
		}
	}
	return out, err
}

// inspections is what [Control.found] returns, and that it did not.
type inspections struct {
	byKey map[string]lane.Discovered
	err   error
}

// profileProblems says what a host has not that it must have, as it was last looked at.
func (p *preflight) profileProblems(ctx context.Context, h lane.Host, b lane.Bundle) (out []lane.Problem, err error) {
	names := p.required(h, b)
	if len(names) == 0 {
		return nil, nil
	}
	all := p.looked.of(struct{}{}, func() inspections {
		byKey, err := p.found(ctx)
		return inspections{byKey, err}
	})
	if all.err != nil {
		return nil, all.err
	}
	var last lane.Discovered
	for _, k := range h.Identity.Keys() {
		d, ok := all.byKey[k]
		// What somebody told in this machine's name, and is another, says nothing of it.
		if ok && last.Heard.Before(d.Heard) && len(lane.Contradictions(h, hardwareFacts(d.Hardware, lane.Facts{Speaker: lane.SpeakerInstaller}))) == 0 {
			last = d
		}
	}
	for _, name := range names {
		field := "profiles." + name
		switch profile := p.Profiles[name]; {
		case last.ID != "":
			for _, lack := range profile.Lacks(last.Hardware) {
				out = append(out, lane.Problem{Field: field, Message: fmt.Sprintf("%s (looked at %s; after a change, `bootlane host inspect %s`)", lack, last.Heard.UTC().Format("2006-01-02 15:04:05Z"), h.ID)})
			}
		case profile.Inspected:
			out = append(out, lane.Problem{Field: field, Message: fmt.Sprintf("no agent looked at the machine: `bootlane host inspect %s`, and boot it by network", h.ID)})
		}
	}
	return out, nil
}
