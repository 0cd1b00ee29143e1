package control

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"bootlane/internal/lane"
)

// Import adds and changes records. Any problem of the input refuses the whole of
// it, and every problem is returned. Records are stored each by itself: when one
// cannot be, the error says how many are.
// Problem fields begin with hosts[N]. With check, nothing is stored.
func (c *Control) Import(ctx context.Context, specs []lane.Host, by string, check bool) (lane.Imported, []lane.Problem, error) {
	for i := range specs {
		specs[i] = specs[i].Canonical()
	}
	problems := problemsWithin(specs)
	have, named := map[lane.HostID]lane.Host{}, map[lane.HostID]bool{}
	for _, s := range specs {
		named[s.ID] = true
	}
	for i, s := range specs {
		field := fmt.Sprintf("hosts[%d]", i)
		h, err := c.Store.Host(ctx, s.ID)
		switch lane.CodeOf(err) {
		case "":
			if err != nil {
				return lane.Imported{}, nil, err
			}
			have[s.ID] = h
			if _, _, _, err := lane.Update(h, s, by, c.Now()); err != nil {
				problems = append(problems, lane.Problem{Field: field + ".id", Message: err.Error()})
			}
		case lane.NotFound:
		default:
			return lane.Imported{}, nil, err
		}
		others, err := c.Store.Claimants(ctx, s.Claims())
		if err != nil {
			return lane.Imported{}, nil, err
		}
		// A record that this import changes is judged by its new data, above.
		others = slices.DeleteFunc(others, func(o lane.Host) bool { return named[o.ID] })
		for _, p := range append(c.siteProblems(s), lane.Collisions(s, others)...) {
			problems = append(problems, lane.Problem{Field: field + "." + p.Field, Message: p.Message})
		}
	}
	if len(problems) > 0 || check {
		return lane.Imported{Notes: c.unbundled(ctx, specs)}, problems, nil
	}
	out, err := c.store(ctx, specs, have, by)
	c.Rouse()
	if n := len(out.Added) + len(out.Changed); err != nil && n > 0 {
		// The second import will not say again whose runs this one cancelled.
		err = &lane.Error{Code: lane.CodeOf(err), Problems: out.Notes, Message: fmt.Sprintf("%d of %d records were stored before this; import the file again, what is stored already changes nothing", n, len(specs)), Err: err}
	}
	out.Notes = append(out.Notes, c.unbundled(ctx, specs)...)
	return out, nil, err
}

// unbundled names the bundles that records name and the store does not have yet:
// it may come before the first provisioning.
func (c *Control) unbundled(ctx context.Context, specs []lane.Host) []string {
	users := map[string]int{}
	for _, s := range specs {
		if _, err := c.findBundle(ctx, s.Bundle); s.Bundle != "" && err != nil {
			users[s.Bundle]++
		}
	}
	var out []string
	for _, ref := range slices.Sorted(maps.Keys(users)) {
		how := "`bootlane bundle import`"
		if c.Registry != nil && len(lane.SplitRef(ref)) > 0 {
			how = "it is looked for in the registry, `bootlane bundle list` shows how far"
		}
		out = append(out, fmt.Sprintf("the bundle %s of %d hosts is not in the store yet: %s", ref, users[ref], how))
	}
	return out
}

// problemsWithin returns what is wrong with the records themselves and between them.
func problemsWithin(specs []lane.Host) []lane.Problem {
	var out []lane.Problem
	for i, s := range specs {
		for _, p := range s.Validate() {
			out = append(out, lane.Problem{Field: fmt.Sprintf("hosts[%d].%s", i, p.Field), Message: p.Message})
		}
	}
	return append(out, lane.Rivals(specs)...)
}

// atOnce is how many records of an import are written at a time: group commit makes their
// fsyncs one.
const atOnce = 128

// store writes the records, and tells what became of them in their order.
func (c *Control) store(ctx context.Context, specs []lane.Host, have map[lane.HostID]lane.Host, by string) (lane.Imported, error) {
	each := make([]lane.Imported, len(specs))
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, s := range specs {
		g.Go(func() (err error) {
			h, known := have[s.ID]
			each[i], err = c.storeOne(ctx, s, h, known, by)
			return err
		})
	}
	err := g.Wait()
	var out lane.Imported
	for _, e := range each {
		out.Added, out.Changed, out.Unchanged = append(out.Added, e.Added...), append(out.Changed, e.Changed...), append(out.Unchanged, e.Unchanged...)
		out.Notes = append(out.Notes, e.Notes...)
	}
	return out, err
}

func (c *Control) storeOne(ctx context.Context, s, h lane.Host, known bool, by string) (out lane.Imported, err error) {
	next, e, changed := lane.Host{}, lane.Event{}, true
	if known {
		next, e, changed, err = lane.Update(h, s, by, c.Now())
	} else {
		next, e = lane.Enrol(s, by, c.Now())
	}
	if err != nil {
		return out, err
	}
	if !changed {
		out.Unchanged = []lane.HostID{s.ID}
		return out, nil
	}
	e.Surface = lane.SurfaceAPI
	if _, _, err := c.Store.Append(ctx, next, e); err != nil {
		return out, err
	}
	if !known {
		out.Added = []lane.HostID{s.ID}
		return out, nil
	}
	out.Changed = []lane.HostID{s.ID}
	if h.Run.Open && !next.Run.Open && h.State != lane.StateRetired {
		out.Notes = []string{fmt.Sprintf("%s: its run was granted for what the record said before, and is cancelled: `bootlane provision %s` when it should be installed", s.ID, s.ID)}
	}
	return out, nil
}
