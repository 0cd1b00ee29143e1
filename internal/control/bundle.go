package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"bootlane/internal/lane"
)

// bundle returns the bundle of a digest, with the reason why it may not be installed now,
// if there is one.
func (c *Control) bundle(ctx context.Context, d lane.Digest) (lane.Bundle, error) {
	b, err := c.Bundles.Get(d)
	if err != nil {
		return b, err
	}
	return c.judgedBundle(ctx, b), nil
}

// fitted returns a bundle as the architecture of a host's record has it: what everything
// that a machine is given is made of.
func fitted(b lane.Bundle, h lane.Host) (lane.Bundle, error) {
	b, ok := b.For(h.Arch)
	if !ok {
		return b, lane.Errorf(lane.NotFound, "the bundle %s has nothing for %s, which is %s", b.Ref(), h.ID, h.Arch)
	}
	return b, nil
}

// runBundle returns the bundle of a host's run, for the host's architecture.
func (c *Control) runBundle(h lane.Host) (lane.Bundle, error) {
	b, err := c.Bundles.Get(h.Run.Bundle)
	if err != nil {
		return b, err
	}
	return fitted(b, h)
}

func (c *Control) judgedBundle(ctx context.Context, b lane.Bundle) lane.Bundle {
	if b.Refusal != "" {
		return b
	}
	records, err := c.Store.BundleRecords(ctx, b.Name)
	if err != nil {
		b.Refusal = "what is on record about " + b.Ref() + " cannot be read"
		return b
	}
	b.Refusal = lane.RefuseBundle(b, records, c.BundlePolicy, c.Now())
	return b
}

// findBundle returns the bundle that a name stands for: an alias, NAME-VERSION, or a digest.
func (c *Control) findBundle(ctx context.Context, name string) (lane.Bundle, error) {
	a, err := c.Store.Alias(ctx, name)
	if err == nil && a.Target.Bundle != "" {
		b, err := c.bundle(ctx, a.Target.Bundle)
		if lane.CodeOf(err) == lane.NotFound {
			return b, lane.Errorf(lane.NotFound, "the alias %s points at %s, which is not in the store any more", name, a.Target.Ref)
		}
		return b, err
	}
	if err != nil && lane.CodeOf(err) != lane.NotFound {
		return lane.Bundle{}, err
	}
	b, err := c.Bundles.Find(name)
	if err != nil {
		return b, err
	}
	return c.judgedBundle(ctx, b), nil
}

// BundleList returns the bundles in the store, and those that it lacks and fetches, by name
// and version.
func (c *Control) BundleList(ctx context.Context) ([]lane.BundleStatus, error) {
	out, err := c.storedBundles(ctx)
	if err != nil {
		return nil, err
	}
	for _, f := range c.fetches() {
		i := slices.IndexFunc(out, func(b lane.BundleStatus) bool { return b.Ref() == f.Ref() })
		switch {
		case i < 0:
			out = append(out, f)
		case c.Bundles.Broken(out[i].Digest):
			out[i].Fetch = f.Fetch
		}
	}
	slices.SortFunc(out, func(a, b lane.BundleStatus) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), lane.CompareVersions(a.Version, b.Version))
	})
	return out, nil
}

// storedBundles returns the bundles in the store, by name and version.
func (c *Control) storedBundles(ctx context.Context) ([]lane.BundleStatus, error) {
	records, err := c.Store.BundleRecords(ctx, "")
	if err != nil {
		return nil, err
	}
	byName, byDigest := map[string][]lane.BundleRecord{}, map[lane.Digest]lane.BundleRecord{}
	for _, r := range records {
		byName[r.Name], byDigest[r.Digest] = append(byName[r.Name], r), r
	}
	aliases, err := c.Store.Aliases(ctx)
	if err != nil {
		return nil, err
	}
	named := map[lane.Digest][]string{}
	for _, a := range aliases {
		named[a.Target.Bundle] = append(named[a.Target.Bundle], a.Name)
	}
	list := c.Bundles.List()
	out := make([]lane.BundleStatus, len(list))
	for i, b := range list {
		r, known := byDigest[b.Digest]
		if !known {
			r.State = lane.BundleImported
		}
		if b.Refusal == "" {
			b.Refusal = lane.RefuseBundle(b, byName[b.Name], c.BundlePolicy, c.Now())
		}
		out[i] = lane.BundleStatus{Bundle: b, State: r.State, By: r.By, Why: r.Why, At: r.At, Signers: c.Bundles.Signers(b.Digest), Aliases: named[b.Digest], Refused: b.Refusal}
	}
	return out, nil
}

// BundleShow returns the bundle that a name stands for: an alias, NAME-VERSION, or a digest.
func (c *Control) BundleShow(ctx context.Context, name string) (lane.BundleStatus, error) {
	b, missing := c.findBundle(ctx, name)
	if missing != nil && lane.CodeOf(missing) != lane.NotFound {
		return lane.BundleStatus{}, missing
	}
	list, err := c.BundleList(ctx)
	if err != nil {
		return lane.BundleStatus{}, err
	}
	if missing != nil {
		w, err := c.wantOf(ctx, name)
		i := slices.IndexFunc(list, func(s lane.BundleStatus) bool { return err == nil && s.Fetch != nil && s.Ref() == w.ref })
		if i < 0 || list[i].Fetch.Code == lane.NotFound {
			return lane.BundleStatus{}, c.missing(ctx, name, missing)
		}
		return list[i], nil
	}
	i := slices.IndexFunc(list, func(s lane.BundleStatus) bool { return s.Digest == b.Digest })
	if i < 0 {
		return lane.BundleStatus{Bundle: b, Refused: b.Refusal}, err
	}
	return list[i], nil
}

// BundleImport verifies and stores the bundle in a directory of the server. What is
// refused is on record as well.
func (c *Control) BundleImport(ctx context.Context, q lane.BundleImport) (lane.Bundle, error) {
	var record lane.BundleRecord
	var event lane.Event
	b, err := c.Bundles.Import(ctx, q.Dir, func(b lane.Bundle, present bool) (err error) {
		record, event, err = c.admit(ctx, b, present, q)
		return err
	})
	if err != nil {
		c.Store.Record(lane.Event{Subject: lane.SubjectServer, At: c.Now(), Kind: lane.KindRefused, By: q.By, Surface: lane.SurfaceAPI, Name: q.Dir, Digest: b.Digest,
			Message: lane.Clean("bundle import: "+err.Error(), 1000)})
		return b, err
	}
	c.Rouse() // it need not be fetched any more
	_, err = c.Store.AppendBundle(ctx, record, event.SignedBy(c.Bundles.Signers(b.Digest)))
	return b, err
}

// admit decides whether a bundle may come in, by hand or from the registry, and returns what
// is then on record.
func (c *Control) admit(ctx context.Context, b lane.Bundle, present bool, q lane.BundleImport) (lane.BundleRecord, lane.Event, error) {
	refuse := func(code lane.Code, format string, args ...any) (lane.BundleRecord, lane.Event, error) {
		return lane.BundleRecord{}, lane.Event{}, lane.Errorf(code, format, args...)
	}
	if q.AllowRollback && q.Why == "" {
		return refuse(lane.Invalid, "a rollback needs a reason: give --why")
	}
	if a, err := c.Store.Alias(ctx, b.Ref()); err == nil && a.Target.Bundle != "" {
		return refuse(lane.Refused, "%s is the name of an alias, which points at %s: remove it, or name the bundle otherwise", b.Ref(), a.Target.Ref)
	}
	if !b.Expires.IsZero() && !c.Now().Before(b.Expires) {
		return refuse(lane.Refused, "%s expired at %s", b.Ref(), b.Expires.Format("2006-01-02 15:04:05Z"))
	}
	records, err := c.Store.BundleRecords(ctx, b.Name)
	if err != nil {
		return lane.BundleRecord{}, lane.Event{}, err
	}
	r, e, err := lane.AdmitBundle(b, records, present, q.AllowRollback, q.By, q.Why, c.Now())
	e.Surface = surfaceOf(q.By)
	return r, e, err
}

// changeBundle applies a transition to the record of the bundle that a name stands for.
// The bundle may be collected already.
func (c *Control) changeBundle(ctx context.Context, name string, transition func(lane.BundleRecord) (lane.BundleRecord, lane.Event, error)) (lane.BundleRecord, error) {
	d := lane.Digest(name)
	b, missing := c.findBundle(ctx, name)
	if missing == nil {
		d = b.Digest
	} else if lane.CodeOf(missing) != lane.NotFound {
		return lane.BundleRecord{}, missing
	}
	var last error
	for range conflicts {
		records, err := c.Store.BundleRecords(ctx, "")
		if err != nil {
			return lane.BundleRecord{}, err
		}
		r := lane.BundleRecord{Digest: d, Name: b.Name, Version: b.Version, State: lane.BundleImported}
		i := slices.IndexFunc(records, func(r lane.BundleRecord) bool { return r.Digest == d || missing != nil && r.Ref() == name })
		if i >= 0 {
			r = records[i]
		} else if missing != nil {
			return r, c.missing(ctx, name, missing)
		}
		next, e, err := transition(r)
		if err != nil {
			return r, err
		}
		if next, last = c.Store.AppendBundle(ctx, next, e); lane.CodeOf(last) != lane.Conflict {
			return next, last
		}
	}
	return lane.BundleRecord{}, last
}

// BundleApprove says that a bundle may be installed. One that is refused for any other
// reason than that it is not approved yet stays refused.
func (c *Control) BundleApprove(ctx context.Context, name, by, why string) (lane.BundleRecord, error) {
	b, err := c.findBundle(ctx, name)
	if lane.CodeOf(err) == lane.NotFound {
		return lane.BundleRecord{}, c.missing(ctx, name, err)
	}
	if err != nil {
		return lane.BundleRecord{}, err
	}
	if stored, err := c.Bundles.Get(b.Digest); err != nil || stored.Refusal != "" {
		return lane.BundleRecord{}, lane.Errorf(lane.Refused, "%s%s", stored.Refusal, text(err))
	}
	return c.changeBundle(ctx, string(b.Digest), func(r lane.BundleRecord) (lane.BundleRecord, lane.Event, error) {
		return lane.ApproveBundle(r, by, why, c.Now())
	})
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// BundleRevoke says that a bundle may never be installed again, even where a run is open. It
// returns whom that concerns.
func (c *Control) BundleRevoke(ctx context.Context, name, by, why string) (lane.Revocation, error) {
	r, err := c.changeBundle(ctx, name, func(r lane.BundleRecord) (lane.BundleRecord, lane.Event, error) {
		return lane.RevokeBundle(r, by, why, c.Now())
	})
	if err != nil {
		return lane.Revocation{BundleRecord: r}, err
	}
	out, err := c.concerned(ctx, r)
	if err != nil {
		err = fmt.Errorf("%s is revoked; whom that concerns cannot be read: %w", r.Ref(), err)
	}
	return out, err
}

// concerned looks through the records for whom a revocation concerns.
func (c *Control) concerned(ctx context.Context, r lane.BundleRecord) (lane.Revocation, error) {
	out := lane.Revocation{BundleRecord: r, Stopped: []lane.HostID{}, Written: []lane.HostID{}, Hosts: []lane.HostID{}, Aliases: []string{}}
	named := map[string]lane.Digest{r.Ref(): r.Digest, string(r.Digest): r.Digest}
	aliases, err := c.AliasList(ctx)
	if err != nil {
		return out, err
	}
	for _, a := range aliases {
		named[a.Name] = a.Target.Bundle
		if a.Target.Bundle == r.Digest {
			out.Aliases = append(out.Aliases, a.Name)
		}
	}
	for after := lane.HostID(""); ; {
		hosts, err := c.Store.Hosts(ctx, after, 500)
		if err != nil || len(hosts) == 0 {
			return out, err
		}
		for _, h := range hosts {
			after = h.ID
			out.Concern(h, named[h.Bundle])
		}
	}
}

// standing returns the bundle of a host as it stands now: that of its run while this is open
// or has installed the host, else the one that its record names. One that nobody knows is zero.
func (c *Control) standing(ctx context.Context, h lane.Host) (lane.BundleStatus, error) {
	w := want{ref: h.Run.BundleName, digest: h.Run.Bundle}
	if !h.Run.Open && !(h.State == lane.StateInstalled && h.Run.Succeeded()) {
		var err error
		if w, err = c.wantOf(ctx, h.Bundle); err != nil {
			return lane.BundleStatus{}, unlessUnknown(err)
		}
	}
	records, err := c.Store.BundleRecords(ctx, "")
	if err != nil {
		return lane.BundleStatus{}, err
	}
	i := slices.IndexFunc(records, func(r lane.BundleRecord) bool { return r.Digest == w.digest || w.digest == "" && r.Ref() == w.ref })
	if i < 0 {
		return lane.BundleStatus{}, nil
	}
	r := records[i]
	out := lane.BundleStatus{State: r.State, By: r.By, Why: r.Why, At: r.At, Refused: r.Revoked()}
	if h.Run.Open {
		out.Bundle = c.granted(ctx, h)
	} else if out.Bundle, err = c.bundle(ctx, r.Digest); err != nil {
		return out, unlessUnknown(err)
	}
	out.Refused = cmp.Or(out.Refused, out.Refusal)
	return out, nil
}

// unlessUnknown drops the error that says that there is no such thing.
func unlessUnknown(err error) error {
	if lane.CodeOf(err) == lane.NotFound {
		return nil
	}
	return err
}

// AliasList returns the aliases that point at something, by name.
func (c *Control) AliasList(ctx context.Context) ([]lane.BundleAlias, error) {
	list, err := c.Store.Aliases(ctx)
	return slices.DeleteFunc(list, func(a lane.BundleAlias) bool { return a.Target.Bundle == "" }), err
}

// changeAlias applies a transition to an alias, which is new where there is none. Until it
// is stored, the garbage collector waits.
func (c *Control) changeAlias(ctx context.Context, name string, transition func(lane.BundleAlias) (lane.BundleAlias, lane.Event, error)) (lane.BundleAlias, error) {
	c.collecting.RLock()
	defer c.collecting.RUnlock()
	var last error
	for range conflicts {
		a, err := c.Store.Alias(ctx, name)
		if err != nil && lane.CodeOf(err) != lane.NotFound {
			return a, err
		}
		a.Name = name
		next, e, err := transition(a)
		if err != nil || e.Kind == "" {
			return next, err
		}
		if next, last = c.Store.AppendAlias(ctx, next, e); lane.CodeOf(last) != lane.Conflict {
			return next, last
		}
	}
	return lane.BundleAlias{}, last
}

// AliasMove points an alias at a bundle that may be installed. Runs that are open keep the
// bundle that they were granted.
func (c *Control) AliasMove(ctx context.Context, name string, m lane.AliasMove) (lane.BundleAlias, error) {
	if m.AllowRollback && m.Why == "" {
		return lane.BundleAlias{}, lane.Errorf(lane.Invalid, "a rollback needs a reason: give --why")
	}
	if b, err := c.Bundles.Find(name); err == nil {
		return lane.BundleAlias{}, lane.Errorf(lane.Refused, "%s is the name of a bundle: an alias needs another", b.Ref())
	}
	return c.changeAlias(ctx, name, func(a lane.BundleAlias) (lane.BundleAlias, lane.Event, error) {
		b, err := c.installable(ctx, m.Bundle)
		if err != nil {
			return a, lane.Event{}, err
		}
		was, err := c.Bundles.Get(a.Target.Bundle)
		if err != nil && lane.CodeOf(err) != lane.NotFound {
			return a, lane.Event{}, err
		}
		return lane.MoveAlias(a, was, b, m.AllowRollback, m.By, m.Why, c.Now())
	})
}

// installable returns the bundle that a name stands for, if it may be installed now.
func (c *Control) installable(ctx context.Context, name string) (lane.Bundle, error) {
	b, err := c.findBundle(ctx, name)
	if lane.CodeOf(err) == lane.NotFound {
		c.ask(ctx, name)
		return b, c.missing(ctx, name, err)
	}
	if err == nil && b.Refusal != "" {
		err = lane.Errorf(lane.Refused, "%s", b.Refusal)
	}
	return b, err
}

// AliasRollback points an alias at the bundle that it pointed at before.
func (c *Control) AliasRollback(ctx context.Context, name, by, why string) (lane.BundleAlias, error) {
	return c.changeAlias(ctx, name, func(a lane.BundleAlias) (lane.BundleAlias, lane.Event, error) {
		next, e, err := lane.RollBackAlias(a, by, why, c.Now())
		if err == nil {
			_, err = c.installable(ctx, string(next.Target.Bundle))
		}
		return next, e, err
	})
}

// AliasRemove takes an alias away.
func (c *Control) AliasRemove(ctx context.Context, name, by, why string) (lane.BundleAlias, error) {
	return c.changeAlias(ctx, name, func(a lane.BundleAlias) (lane.BundleAlias, lane.Event, error) {
		if a.Target.Bundle == "" {
			return a, lane.Event{}, lane.Errorf(lane.NotFound, "no alias %q", name)
		}
		return lane.RemoveAlias(a, by, why, c.Now())
	})
}

// BundleGC removes the bundles that nothing refers to, and their files. It keeps what a
// host or its run, or an alias, present or one step back, refers to, what is approved, and
// the highest version of each name. With check it only says what it would remove.
func (c *Control) BundleGC(ctx context.Context, check bool, by string) (lane.BundleGC, error) {
	c.collecting.Lock() // nobody is granted a bundle while it goes
	defer c.collecting.Unlock()
	kept, err := c.referred(ctx)
	if err != nil {
		return lane.BundleGC{}, err
	}
	out, err := c.Bundles.Collect(func(b lane.Bundle) bool { return kept[b.Digest] != "" }, check)
	if err != nil || check {
		return c.explain(out, kept), err
	}
	return c.explain(out, kept), c.Store.Witness(ctx, lane.Event{Subject: lane.SubjectServer, At: c.Now(), Kind: lane.KindUpdated, By: by, Surface: lane.SurfaceAPI,
		Message: lane.Clean(fmt.Sprintf("bundle gc removed %d files, %d bytes, of %v", out.Files, out.Bytes, out.Bundles), 1000)})
}

func (c *Control) explain(out lane.BundleGC, kept map[lane.Digest]string) lane.BundleGC {
	for _, b := range c.Bundles.List() {
		if why := kept[b.Digest]; why != "" {
			out.Kept = append(out.Kept, b.Ref()+": "+why)
		}
	}
	return out
}

// referred returns why bundles must stay, by digest.
func (c *Control) referred(ctx context.Context) (map[lane.Digest]string, error) {
	out := map[lane.Digest]string{}
	list, err := c.storedBundles(ctx)
	if err != nil {
		return nil, err
	}
	newest := map[string]lane.BundleStatus{}
	for _, b := range list { // by version within a name
		if b.State != lane.BundleRevoked {
			newest[b.Name] = b
		}
		if b.State == lane.BundleApproved {
			out[b.Digest] = "approved"
		}
	}
	for _, b := range newest {
		out[b.Digest] = "the highest version of " + b.Name
	}
	aliases, err := c.AliasList(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range aliases {
		if len(a.Before) > 0 {
			out[a.Before[len(a.Before)-1].Bundle] = "what the alias " + a.Name + " can be rolled back to"
		}
		out[a.Target.Bundle] = "the alias " + a.Name
	}
	if b, err := c.findBundle(ctx, c.InspectBundle); err == nil {
		out[b.Digest] = "policy.inspect.bundle"
	}
	for after := lane.HostID(""); ; {
		hosts, err := c.Store.Hosts(ctx, after, 500)
		if err != nil || len(hosts) == 0 {
			return out, err
		}
		for _, h := range hosts {
			after = h.ID
			out[h.Run.Bundle] = "the run of " + string(h.ID)
			if b, err := c.findBundle(ctx, h.Bundle); err == nil {
				out[b.Digest] = "the host " + string(h.ID)
			} else if lane.CodeOf(err) != lane.NotFound {
				return nil, err
			}
		}
	}
}

// BundleTrust returns whose signatures bundles need.
func (c *Control) BundleTrust() lane.Trust { return c.Bundles.Trust() }

// BundleWork returns how far an import or check of the store is.
func (c *Control) BundleWork() lane.BundleWork { return c.Bundles.Work() }

// BundleFsck hashes every file of the store. What is damaged goes to quarantine.
func (c *Control) BundleFsck(ctx context.Context, by string) (lane.BundleFsck, error) {
	out, err := c.Bundles.Fsck(ctx)
	if err != nil {
		return out, err
	}
	if len(out.Damaged) > 0 {
		c.Rouse()
	}
	e := lane.Event{Subject: lane.SubjectServer, At: c.Now(), Kind: lane.KindUpdated, By: by, Surface: lane.SurfaceAPI, Message: fmt.Sprintf("bundle fsck: %d files, %d bytes, %d damaged", out.Files, out.Bytes, len(out.Damaged))}
	for _, d := range out.Damaged {
		if err := c.Store.Witness(ctx, d.Evidence(by, c.Now())); err != nil {
			return out, err
		}
	}
	return out, c.Store.Witness(ctx, e)
}
