package control

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"bootlane/internal/lane"
)

// Registry is where the site keeps its bundles. What comes from it is not believed: the
// store judges it as what is imported by hand.
type Registry interface {
	// Reference is what a bundle is called there.
	Reference(name, version string) string
	// Find asks for a bundle; NotFound where there is none. Close ends what it returns.
	Find(ctx context.Context, name, version string) (Offer, error)
	// Keep removes what is kept of fetches that did not end, but for those of refs.
	Keep(refs []string) error
}

// Offer is a bundle that the registry says to have. What of it has arrived stays for the
// next attempt.
type Offer interface {
	From() string // reference that always means the same
	Digest() lane.Digest
	// Describe fetches the manifest and the signatures alone, into a directory.
	Describe(ctx context.Context) (dir string, err error)
	// Fetch fetches the files that the store lacks, into a directory.
	Fetch(ctx context.Context, lacks func(lane.BundleFile) bool, tell func(done, total int64)) (dir string, err error)
	Close()
}

// How often, and how long, bundles are looked for.
const (
	pullLook  = 5 * time.Minute  // between looks through the records for what is lacking
	pullFirst = 10 * time.Second // from the first failure to the next attempt; then twice as long each time
	pullMost  = 15 * time.Minute
	pullAsked = time.Hour // how long a bundle is wanted that an operator asked for and no record names
)

// want is a bundle that somebody names.
type want struct {
	ref    string      // NAME-VERSION
	digest lane.Digest // where the one who names it knows it
	bound  bool        // by its digest, to a run or an alias: it was admitted when that was made
	by     string      // who names it
}

// pull is a bundle that is wanted, and that the store has not got or not in good order.
type pull struct {
	want
	name  lane.BundleName // as far as one can tell
	asked time.Time       // by an operator, last
	tried time.Time       // last
	fetch lane.BundleFetch
	told  string // the failure that is on record
}

// pulls is what is wanted and lacking, by NAME-VERSION.
type pulls struct {
	fetching sync.Mutex // held by the one who fetches

	mu    sync.Mutex
	list  map[string]*pull
	stale bool      // something has changed since the records were looked through
	last  time.Time // when they were
}

func newPulls() *pulls {
	return &pulls{list: map[string]*pull{}, stale: true}
}

// with reads or changes what is wanted.
func (p *pulls) with(do func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	do()
}

// Rouse has the records and the store looked through for what is lacking: something has changed.
func (c *Control) Rouse() { c.pulls.with(func() { c.pulls.stale = true }) }

// RunPull fetches what is wanted and lacking, until ctx ends. It looks once a second.
func (c *Control) RunPull(ctx context.Context) error {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		if err := c.Pull(ctx); err != nil && lane.CodeOf(err) == "" && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// Pull fetches, one after the other, every bundle that is wanted, lacking, and due. What
// cannot be had is tried again later; the error is of the store, never of a registry.
func (c *Control) Pull(ctx context.Context) error {
	if c.Registry == nil {
		return nil
	}
	c.pulls.fetching.Lock()
	defer c.pulls.fetching.Unlock()
	for ctx.Err() == nil {
		if err := c.lookForLacking(ctx); err != nil {
			return err
		}
		p, w := c.pulls.begin(c.Now())
		if p == nil {
			return nil
		}
		err := c.pull(ctx, p, w)
		if ctx.Err() != nil {
			c.pulls.with(func() { p.fetch.Active = false })
			return nil // asked to stop: that is no failure
		}
		c.pulled(ctx, p, err)
	}
	return nil
}

// lookForLacking finds what is wanted and lacking, if that may have changed.
func (c *Control) lookForLacking(ctx context.Context) error {
	now, due := c.Now(), false
	c.pulls.with(func() {
		due = c.pulls.stale || now.Sub(c.pulls.last) >= pullLook
		c.pulls.stale = false
	})
	if !due {
		return nil
	}
	list, err := c.lacking(ctx)
	if err != nil {
		c.pulls.with(func() { c.pulls.stale = true })
		return err
	}
	for _, w := range list {
		c.lack(ctx, w, false)
	}
	c.pulls.mu.Lock()
	c.pulls.last = now
	for ref, p := range c.pulls.list {
		if _, named := list[ref]; !named && (now.Sub(p.asked) >= pullAsked || !c.lacks(p.want)) {
			delete(c.pulls.list, ref)
		}
	}
	keep := slices.Collect(maps.Keys(c.pulls.list))
	c.pulls.mu.Unlock()
	return c.Registry.Keep(keep)
}

// lacking returns what aliases, open runs and hosts name and the store has not got in good order.
func (c *Control) lacking(ctx context.Context) (map[string]want, error) {
	out, seen, alias := map[string]want{}, map[want]bool{}, map[string]bool{}
	add := func(w want, by string) {
		if w.ref == "" || seen[w] {
			return
		}
		if seen[w] = true; c.lacks(w) && (out[w.ref].digest == "" || w.digest != "") {
			w.by = by
			out[w.ref] = w
		}
	}
	aliases, err := c.AliasList(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range aliases {
		alias[a.Name] = true
		add(want{ref: a.Target.Ref, digest: a.Target.Bundle, bound: true}, "the alias "+a.Name)
	}
	if !alias[c.InspectBundle] {
		add(want{ref: c.InspectBundle}, "policy.inspect.bundle")
	}
	for after := lane.HostID(""); ; {
		hosts, err := c.Store.Hosts(ctx, after, 500)
		if err != nil || len(hosts) == 0 {
			return out, err
		}
		for _, h := range hosts {
			after = h.ID
			if h.Run.Open {
				add(want{ref: h.Run.BundleName, digest: h.Run.Bundle, bound: true}, "the run of "+string(h.ID))
			}
			if h.State != lane.StateRetired && !alias[h.Bundle] {
				add(want{ref: h.Bundle}, "the host "+string(h.ID))
			}
		}
	}
}

// lacks reports whether the store has not got a bundle, or not in good order.
func (c *Control) lacks(w want) bool {
	if w.digest == "" {
		b, err := c.Bundles.Find(w.ref)
		return err != nil || c.Bundles.Broken(b.Digest)
	}
	_, err := c.Bundles.Get(w.digest)
	return err != nil || c.Bundles.Broken(w.digest)
}

// lack takes down that a bundle is wanted and lacking, and returns what is done about it;
// nothing where nothing can be. Who asks for it as an operator need not wait as long as
// the last failure makes everybody else.
func (c *Control) lack(ctx context.Context, w want, asked bool) (lane.BundleFetch, bool) {
	if c.Registry == nil {
		return lane.BundleFetch{}, false
	}
	fresh := &pull{want: w}
	known := false
	c.pulls.with(func() { _, known = c.pulls.list[w.ref] })
	if !known {
		names, pinned, err := c.namesOf(ctx, w.ref)
		if err != nil || len(names) == 0 {
			return lane.BundleFetch{}, false
		}
		fresh.name, fresh.fetch.From, fresh.fetch.Sought = names[0], c.Registry.Reference(names[0].Name, names[0].Version), pinned == ""
	}
	c.pulls.mu.Lock()
	defer c.pulls.mu.Unlock()
	p := c.pulls.list[w.ref]
	switch {
	case p == nil && known: // it has just come
		return lane.BundleFetch{}, false
	case p == nil:
		p = fresh
		c.pulls.list[w.ref] = p
	}
	if !asked || w.bound {
		p.want = w
	}
	p.fetch.Wanted = p.by
	if soon := p.tried.Add(pullFirst); asked {
		p.asked = c.Now()
		if p.fetch.Next.After(soon) {
			p.fetch.Next = soon
		}
	}
	return p.fetch, true
}

// namesOf returns the names and versions that a reference may stand for, and the digest that
// is on record; where the bundle is on record, exactly one. A name of which another version is
// on record comes before those that nobody knows, and the longest of such names first.
func (c *Control) namesOf(ctx context.Context, ref string) ([]lane.BundleName, lane.Digest, error) {
	records, err := c.Store.BundleRecords(ctx, "")
	if err != nil {
		return nil, "", err
	}
	if i := slices.IndexFunc(records, func(r lane.BundleRecord) bool { return r.Ref() == ref }); i >= 0 {
		return []lane.BundleName{{Name: records[i].Name, Version: records[i].Version}}, records[i].Digest, nil
	}
	names := lane.SplitRef(ref)
	rank := func(n lane.BundleName) int {
		if slices.ContainsFunc(records, func(r lane.BundleRecord) bool { return r.Name == n.Name }) {
			return -len(n.Name)
		}
		return 0
	}
	slices.SortStableFunc(names, func(a, b lane.BundleName) int { return rank(a) - rank(b) })
	return names, "", nil
}

// begin takes the pull that has been due longest, if there is one, and a copy of what is wanted.
func (p *pulls) begin(now time.Time) (*pull, want) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := slices.SortedFunc(maps.Values(p.list), func(a, b *pull) int {
		return cmp.Or(a.fetch.Next.Compare(b.fetch.Next), strings.Compare(a.ref, b.ref))
	})
	if len(list) == 0 || list[0].fetch.Next.After(now) {
		return nil, want{}
	}
	next := list[0]
	next.tried, next.fetch.Active = now, true
	return next, next.want
}

// pull is one attempt to find a bundle and to bring it in.
func (c *Control) pull(ctx context.Context, p *pull, w want) error {
	named := w
	if !c.lacks(named) {
		return nil // it came by hand
	}
	names, pinned, err := c.namesOf(ctx, w.ref)
	if err != nil {
		return err
	}
	w.bound = w.bound && w.digest == pinned
	w.digest = cmp.Or(w.digest, pinned)
	if err := c.revoked(ctx, w); err != nil {
		return err
	}
	offer, err := c.offered(ctx, p, names)
	if err != nil {
		return err
	}
	defer offer.Close()
	if w.digest != "" && offer.Digest() != w.digest {
		return lane.Errorf(lane.Refused, "%s is the bundle %s, and %s on record is %s: a version never changes, so somebody has put another one there", offer.From(), offer.Digest(), w.ref, w.digest)
	}
	if err := c.take(ctx, p, w, offer); err != nil {
		return err
	}
	if c.lacks(named) { // or it would be fetched over and over, without a pause
		return lane.Errorf(lane.Unavailable, "it was fetched, and the store has lost it again: it was collected, or the disk damages it")
	}
	return nil
}

// take has what describes a bundle judged, then fetches its files, and imports it.
func (c *Control) take(ctx context.Context, p *pull, w want, offer Offer) error {
	q := lane.BundleImport{By: lane.ByRegistry, Why: "from " + offer.From()}
	var record lane.BundleRecord
	var event lane.Event
	admit := func(b lane.Bundle, present bool) (err error) {
		if b.Ref() != w.ref {
			return lane.Errorf(lane.Refused, "%s is called %s in its own manifest, not %s", offer.From(), b.Ref(), w.ref)
		}
		// What is bound by its digest is lacking here, and no way back to something older.
		record, event, err = c.admit(ctx, b, present || w.bound, q)
		return err
	}
	dir, err := offer.Describe(ctx)
	if err != nil {
		return err
	}
	if _, err := c.Bundles.Examine(dir, admit); err != nil {
		return err
	}
	dir, err = offer.Fetch(ctx, func(f lane.BundleFile) bool { return c.sound(f) != nil }, func(done, total int64) {
		c.pulls.with(func() { p.fetch.Done, p.fetch.Total = done, total })
	})
	if err != nil {
		return err
	}
	for range conflicts {
		if _, err = c.Bundles.Complete(ctx, dir, admit); err == nil {
			_, err = c.Store.AppendBundle(ctx, record, event.SignedBy(c.Bundles.Signers(record.Digest)))
		}
		if lane.CodeOf(err) != lane.Conflict {
			break
		}
	}
	return err
}

// revoked refuses to fetch what would be refused when it is there.
func (c *Control) revoked(ctx context.Context, w want) error {
	records, err := c.Store.BundleRecords(ctx, "")
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.State == lane.BundleRevoked && (r.Digest == w.digest || r.Ref() == w.ref) {
			return lane.Errorf(lane.Refused, "%s", r.Revoked())
		}
	}
	return nil
}

// offered asks the registry for every name that the reference may stand for.
func (c *Control) offered(ctx context.Context, p *pull, names []lane.BundleName) (Offer, error) {
	var asked []string
	var refused error
	for _, n := range names {
		from := c.Registry.Reference(n.Name, n.Version)
		offer, err := c.Registry.Find(ctx, n.Name, n.Version)
		if err == nil {
			c.pulls.with(func() { p.name, p.fetch.From, p.fetch.Sought = n, from, false })
			return offer, nil
		}
		switch lane.CodeOf(err) {
		case lane.NotFound, lane.Invalid: // no such name: the next one may be it
		case lane.Refused: // some registries say so of what they have not got
			refused = err
		default:
			return nil, err
		}
		asked = append(asked, from)
	}
	if refused != nil {
		return nil, refused
	}
	return nil, lane.Errorf(lane.NotFound, "there is no %s", strings.Join(asked, ", nor "))
}

// pulled takes down how an attempt ended. What failed is on record once, however often it
// is tried.
func (c *Control) pulled(ctx context.Context, p *pull, err error) {
	if err == nil {
		c.pulls.mu.Lock()
		delete(c.pulls.list, p.ref)
		c.pulls.stale = true // what was kept of it can go
		c.pulls.mu.Unlock()
		return
	}
	code := lane.CodeOf(err)
	why := lane.Clean(strings.ReplaceAll(err.Error(), "\n  - ", "; "), 600)
	key := "failed " + string(code)
	if code == lane.Refused || code == lane.Invalid || code == lane.NotFound {
		key += why
	} // the text of what broke off has numbers that differ each time
	c.pulls.mu.Lock()
	f := &p.fetch
	f.Active, f.Error, f.Code, f.Tries = false, why, code, f.Tries+1
	f.Next = c.Now().Add(min(pullFirst<<min(f.Tries-1, 20), pullMost))
	news := p.told != key
	p.told = key
	e := lane.BundleNotFetched(p.name.Name, p.ref, p.digest, code, why, c.Now())
	c.pulls.mu.Unlock()
	if !news {
		return
	}
	if last, err := c.Store.LastEvents(ctx, e.Subject, 1); err == nil && len(last) > 0 && last[0].Kind == e.Kind && last[0].Message == e.Message {
		return // before a restart
	}
	c.Store.Record(e)
}

// ask wants the bundle that a name stands for, for an operator: an alias, NAME-VERSION, or a
// digest. It returns what is done about one that the store lacks; nothing where it lacks
// nothing, or no registry is known.
func (c *Control) ask(ctx context.Context, name string) (lane.BundleFetch, bool) {
	w, err := c.wantOf(ctx, name)
	if err != nil || !c.lacks(w) {
		return lane.BundleFetch{}, false
	}
	return c.lack(ctx, w, true)
}

// missing explains that the store has not got the bundle that a name stands for: what is done
// about it, or that the registry does not have it either, and which names on record are like it.
func (c *Control) missing(ctx context.Context, name string, unknown error) error {
	w, err := c.wantOf(ctx, name)
	if err != nil {
		return unknown
	}
	var f *lane.BundleFetch
	c.pulls.with(func() {
		if p := c.pulls.list[w.ref]; p != nil {
			known := p.fetch
			f = &known
		}
	})
	switch {
	case f != nil && f.Code == lane.NotFound:
		return lane.Errorf(lane.NotFound, "neither the store nor the registry has %s: %s%s", w.ref, f.Error, c.meant(ctx, w.ref))
	case f != nil:
		return lane.Errorf(lane.Refused, "the bundle %s is not in the store: %s", w.ref, f.Later())
	case w.ref != name: // an alias, or a digest: nobody has mistyped it
		return unknown
	}
	return lane.Errorf(lane.NotFound, "%s%s", unknown.Error(), c.meant(ctx, name))
}

// meant offers the names on record that are like one that is not.
func (c *Control) meant(ctx context.Context, name string) string {
	var names []string
	for _, b := range c.Bundles.List() {
		names = append(names, b.Ref())
	}
	records, err := c.Store.BundleRecords(ctx, "")
	aliases, err2 := c.Store.Aliases(ctx)
	if err != nil || err2 != nil {
		return "" // it is only an offer
	}
	for _, r := range records {
		names = append(names, r.Ref())
	}
	for _, a := range aliases {
		if a.Target.Bundle != "" {
			names = append(names, a.Name)
		}
	}
	if names = lane.Nearest(name, names); len(names) == 0 {
		return ""
	}
	return "; did you mean " + strings.Join(names, " or ") + "?"
}

// wantOf returns the bundle that a name stands for: an alias, NAME-VERSION, or a digest.
func (c *Control) wantOf(ctx context.Context, name string) (want, error) {
	a, err := c.Store.Alias(ctx, name)
	if err == nil && a.Target.Bundle != "" {
		return want{ref: a.Target.Ref, digest: a.Target.Bundle, bound: true, by: "the alias " + name}, nil
	}
	if d, err := lane.ParseDigest(name); err == nil {
		records, err := c.Store.BundleRecords(ctx, "")
		i := slices.IndexFunc(records, func(r lane.BundleRecord) bool { return r.Digest == d })
		if err != nil || i < 0 {
			return want{}, lane.Errorf(lane.NotFound, "no bundle %s is on record", d)
		}
		return want{ref: records[i].Ref(), digest: d, by: "an operator"}, err
	}
	return want{ref: name, by: "an operator"}, nil
}

// missed wants the bundle of a machine's run, and says briefly what is done about it.
func (c *Control) missed(ctx context.Context, h lane.Host) string {
	f, ok := c.lack(ctx, want{ref: h.Run.BundleName, digest: h.Run.Bundle, bound: true, by: "the run of " + string(h.ID)}, false)
	if !ok {
		return ""
	}
	return f.Brief()
}

// fetches returns what is wanted and lacking.
func (c *Control) fetches() []lane.BundleStatus {
	c.pulls.mu.Lock()
	defer c.pulls.mu.Unlock()
	var out []lane.BundleStatus
	for _, p := range c.pulls.list {
		f := p.fetch
		out = append(out, lane.BundleStatus{Bundle: lane.Bundle{Digest: p.digest, Name: p.name.Name, Version: p.name.Version}, State: f.State(), Fetch: &f})
	}
	return out
}
