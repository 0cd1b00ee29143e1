package control

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"bootlane/internal/lane"
	"bootlane/internal/seed"
)

// preflight looks at what would forbid to provision hosts now. What many of them share, a
// bundle, its boot chain, a mirror, is looked at once.
type preflight struct {
	*Control
	bundle    string // instead of each record's
	reinstall bool
	// replaceNode goes on although a cluster has a Node of the host's name, or does not answer.
	replaceNode bool
	// settled says that what others have to be asked is known: mirrors and clusters take their time.
	settled bool
	bundles memo[string, found]
	chains  memo[chainKey, []lane.Problem]
	mirrors memo[mirrorKey, error]
	// versions are those of clusters: one that does not answer keeps a machine waiting, and is not asked for each.
	versions memo[string, answer]
	looked   memo[struct{}, inspections]
}

// answer is a cluster's version, or why it says none.
type answer struct {
	version string
	err     error
}

// found is a bundle, with why it may not be installed, or that nobody could tell.
type found struct {
	lane.Bundle
	broken error
}

// chainKey is what the proof of a boot chain depends on.
type chainKey struct {
	bundle lane.Digest
	arch   lane.Arch
	boot   lane.BootOptions
	proxy  bool // the network's mode
}

type mirrorKey struct{ url, proxy string }

// memo remembers the answer to each question. The zero memo knows none.
type memo[K comparable, V any] struct {
	mu    sync.Mutex
	known map[K]func() V
}

// of returns the answer to a question, and finds it out for whoever asks first.
func (m *memo[K, V]) of(k K, find func() V) V {
	m.mu.Lock()
	f, ok := m.known[k]
	if !ok {
		if m.known == nil {
			m.known = map[K]func() V{}
		}
		f = sync.OnceValue(find)
		m.known[k] = f
	}
	m.mu.Unlock()
	return f()
}

// Preflight tells of hosts what would forbid to provision them now, all problems of each at
// once. Hosts that nobody named are left out where they do not stand to be installed.
func (c *Control) Preflight(ctx context.Context, q lane.Inspection) (lane.Preflown, error) {
	hosts, leftOut, err := c.toInspect(ctx, q)
	if err != nil {
		return lane.Preflown{}, err
	}
	p := &preflight{Control: c, bundle: q.Bundle, reinstall: q.Reinstall}
	out := lane.Preflown{Hosts: make([]lane.Inspected, len(hosts)), LeftOut: leftOut}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, h := range hosts {
		g.Go(func() error {
			b, problems, err := p.host(ctx, h)
			name := h.Bundle
			if q.Bundle != "" {
				name = q.Bundle
			}
			if b.Digest != "" {
				name = b.Ref()
			}
			out.Hosts[i] = lane.Inspected{Host: h.ID, State: h.State, Role: h.Role, Rack: h.Identity.Rack, Bundle: name, Problems: problems}
			return err
		})
	}
	return out, g.Wait()
}

// toInspect returns the hosts that a preflight is about, and how many it is not about.
func (c *Control) toInspect(ctx context.Context, q lane.Inspection) (hosts []lane.Host, leftOut map[lane.State]int, err error) {
	for _, id := range q.Hosts {
		h, err := c.record(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		hosts = append(hosts, h)
	}
	if len(q.Hosts) > 0 {
		return hosts, nil, nil
	}
	leftOut = map[lane.State]int{}
	for after := lane.HostID(""); ; after = hosts[len(hosts)-1].ID {
		page, err := c.Store.Hosts(ctx, after, 500)
		if err != nil {
			return nil, nil, err
		}
		if hosts = append(hosts, page...); len(page) == 0 {
			break
		}
	}
	hosts = slices.DeleteFunc(hosts, func(h lane.Host) bool {
		stands := lane.Allowed(h.State, lane.VerbArm) && (h.State != lane.StateInstalled || q.Reinstall)
		if !stands {
			leftOut[h.State]++
		}
		return !stands
	})
	return hosts, leftOut, nil
}

// host returns the bundle that a host would get, and what forbids to install it there. An
// error is that nobody could find out.
func (p *preflight) host(ctx context.Context, h lane.Host) (lane.Bundle, []lane.Problem, error) {
	if p.bundle != "" {
		h.Bundle = p.bundle
	}
	var b lane.Bundle
	if h.Bundle != "" {
		f := p.bundles.of(h.Bundle, func() found { return p.find(ctx, h.Bundle) })
		if f.broken != nil {
			return b, nil, f.broken
		}
		b = f.Bundle
	}
	others, err := p.Store.Claimants(ctx, h.Claims())
	if err != nil {
		return b, nil, err
	}
	leased, err := p.leased(ctx, h)
	if err != nil {
		return b, nil, err
	}
	unfit, err := p.profileProblems(ctx, h, b)
	if err != nil {
		return b, nil, err
	}
	problems := slices.Concat(lane.Armable(h, p.reinstall), lane.Preflight(h, b), lane.Collisions(h, others), leased, p.siteProblems(h), unfit)
	if !p.settled {
		problems = slices.Concat(problems, p.nodeProblems(ctx, h), p.skewProblems(ctx, h))
	}
	if own, ok := b.For(h.Arch); ok && b.Digest != "" {
		key := chainKey{b.Digest, h.Arch, h.Boot, p.home(h.Network.Address).Proxy}
		problems = slices.Concat(problems, p.seedProblems(h, own), p.chains.of(key, func() []lane.Problem { return p.chainProblems(h, own) }))
		if !p.settled {
			problems = append(problems, p.unreachable(ctx, h, own)...)
		}
	}
	return b, problems, nil
}

// find returns the bundle of a name, with what forbids to install it.
func (p *preflight) find(ctx context.Context, name string) found {
	b, err := p.findBundle(ctx, name)
	if err != nil && lane.CodeOf(err) != lane.NotFound {
		return found{broken: err}
	}
	switch doing, lacking := p.ask(ctx, name); {
	case err != nil:
		b.Refusal = p.missing(ctx, name, err).Error()
	case lacking: // it is damaged, and is mended
		b.Refusal += "; " + doing.Later()
	}
	return found{Bundle: b}
}

// leased tells whether another machine has the host's address.
func (p *preflight) leased(ctx context.Context, h lane.Host) (out []lane.Problem, err error) {
	addresses := append([]netip.Addr{h.Network.Address, h.Network.Address6}, h.Network.Static()...)
	for n, a := range addresses {
		if !a.IsValid() || slices.Contains(addresses[:n], a) {
			continue
		}
		l, err := p.Store.LeaseAt(ctx, a)
		switch {
		case lane.CodeOf(err) == lane.NotFound:
			continue
		case err != nil:
			return nil, err
		case !p.Now().Before(l.Expires), l.State == lane.LeaseReleased, h.Leased(l):
			continue
		case l.State == lane.LeaseDeclined:
			out = append(out, lane.Problem{Field: h.Network.Field(a), Message: fmt.Sprintf("%s is in use by a machine that did not get it from here, as a client found: find that one, then `bootlane dhcp release %s`", a, a)})
			continue
		}
		who := string(l.MAC)
		if who == "" {
			who = string(l.Client)
		}
		out = append(out, lane.Problem{Field: h.Network.Field(a), Message: fmt.Sprintf("%s is leased to %s until %s: stop that machine and `bootlane dhcp release %s`, or reserve another address", a, who, l.Expires.UTC().Format("2006-01-02 15:04:05Z"), a)})
	}
	return out, nil
}

// unreachable tells which mirrors of a bundle do not have what its installer fetches.
func (p *preflight) unreachable(ctx context.Context, h lane.Host, b lane.Bundle) (out []lane.Problem) {
	if p.Reach == nil {
		return nil
	}
	in := p.input(h, b, p.BaseURL)
	for _, n := range seed.Needs(in) {
		if err := p.mirrors.of(mirrorKey{n.URL, in.Site.Proxy}, func() error { return p.Reach(ctx, n.URL, in.Site.Proxy) }); err != nil {
			out = append(out, lane.Problem{Field: "bundle." + n.Field, Message: fmt.Sprintf("%s cannot be had: %v; where only machines reach it, set policy.askMirrors: false", n.URL, err)})
		}
	}
	return out
}

// nodeProblems says what in its cluster stands against erasing a host's disk. What cannot be
// known counts against it: an unreachable API server must not make a live node's disk free.
func (p *preflight) nodeProblems(ctx context.Context, h lane.Host) []lane.Problem {
	site, _ := p.installed(h)
	cl, err := p.cluster(site.Cluster)
	if site.Cluster == "" || err != nil || p.replaceNode {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	despite := "if it may be erased all the same, give --replace-node with --why"
	var n lane.ClusterNode
	if _, err = p.clusterVersion(ctx, site.Cluster, cl); lane.CodeOf(err) != lane.Unavailable {
		n, err = cl.Node(ctx, h.NodeName())
	}
	switch {
	case lane.CodeOf(err) == lane.NotFound:
		return nil
	case err != nil:
		return []lane.Problem{{Field: "cluster", Message: "whether a machine is alive there under this name is not known: " + err.Error() + "; " + despite}}
	case n.Ready:
		return []lane.Problem{{Field: "cluster", Message: fmt.Sprintf("the cluster %s has a Node %s that is Ready (its machine says the UUID %s): drain it and switch the machine off first; %s", site.Cluster, n.Name, lane.Clean(n.SystemUUID, 60), despite)}}
	}
	return nil
}

// clusterVersion asks a cluster for the version of its API server, once.
func (p *preflight) clusterVersion(ctx context.Context, name string, cl Cluster) (string, error) {
	a := p.versions.of(name, func() (a answer) {
		a.version, a.err = cl.Version(ctx)
		return a
	})
	return a.version, a.err
}

// skewProblems says which pinned kubelet does not go with the API server of its cluster.
func (p *preflight) skewProblems(ctx context.Context, h lane.Host) []lane.Problem {
	site, origins := p.installed(h)
	cl, err := p.cluster(site.Cluster)
	if site.Cluster == "" || err != nil || !lane.PinsKubelet(site.Packages) {
		return nil
	}
	field := "site.packages"
	if i := slices.IndexFunc(origins, func(o lane.Origin) bool { return o.Field == "packages" }); i >= 0 {
		field = origins[i].Path
	}
	ctx, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	version, err := p.clusterVersion(ctx, site.Cluster, cl)
	if err != nil {
		return []lane.Problem{{Field: field, Message: fmt.Sprintf("whether the pinned kubelet goes with the cluster %s is not known: %v", site.Cluster, err)}}
	}
	return lane.KubeletSkew(field, site.Packages, version)
}
