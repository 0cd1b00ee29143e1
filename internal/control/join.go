package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"bootlane/internal/lane"
)

// Cluster is what control needs of a cluster of Kubernetes. An error has a code: Unavailable
// when the cluster cannot be asked, Refused when it does not let us.
type Cluster interface {
	TokenTTL() time.Duration
	Labels() []string // keys of hosts' own labels that go onto their Nodes
	Signs() bool      // certificates of its kubelets wait for us
	Status() lane.ClusterStatus
	CA() string // PEM
	// Mint makes a credential; Revoke deletes it, and one that is gone is no error.
	Mint(ctx context.Context, t lane.Token) error
	Revoke(ctx context.Context, id string) error
	Script(node string, t lane.Token) ([]byte, error)
	// Node: NotFound when there is none. DeleteNode and MarkNode: of exactly this object.
	Node(ctx context.Context, name string) (lane.ClusterNode, error)
	DeleteNode(ctx context.Context, n lane.ClusterNode) error
	MarkNode(ctx context.Context, n lane.ClusterNode, m lane.NodeMarks) error
	Requests(ctx context.Context) ([]lane.NodeRequest, error)
	Approve(ctx context.Context, r lane.NodeRequest, message string) error
	Manifests() (string, error)
	Version(ctx context.Context) (string, error) // v1.35.0
	Check(ctx context.Context, now time.Time) (lane.ClusterCheck, error)
}

const (
	joinLimit   = 15 * time.Second // for everything that a machine waits for: it gives up after 20
	joinMargin  = 2 * time.Minute  // a credential that ends sooner is not given again
	joinRetry   = 10 * time.Second // between tries of what a cluster did not do
	markLimit   = time.Hour        // for the Node of a machine that joined to appear
	joinsAtOnce = 16               // hosts for which clusters are asked at a time
)

// joins is what goes on in clusters. The secret half of a credential is nowhere but here: after
// a restart, what was issued before is deleted, and a machine that asks gets another one.
type joins struct {
	mu      sync.Mutex
	looked  bool                         // the records were looked through for what is left to do
	pending map[lane.HostID]*pendingJoin // of every host that had something to do since the start
	told    map[string]bool              // requests for certificates that are on record as refused, by UID
	alarms  map[string]int               // how many of them, by the id of the token that asked
}

type pendingJoin struct {
	issuing sync.Mutex // held by whoever gives a credential, or takes one back
	token   lane.Token // the live one; none after a restart
	next    time.Time  // when its cluster is asked again
	failed  string     // what is on record of the last try

	// Of joins.mu: whether nothing is left to do, and how often something came up.
	idle bool
	came int
}

func newJoins() *joins {
	return &joins{pending: map[lane.HostID]*pendingJoin{}, told: map[string]bool{}, alarms: map[string]int{}}
}

// of returns what goes on with a host, and has it looked at.
func (j *joins) of(id lane.HostID) *pendingJoin {
	j.mu.Lock()
	defer j.mu.Unlock()
	p := j.pending[id]
	if p == nil {
		p = &pendingJoin{}
		j.pending[id] = p
	}
	p.idle = false
	p.came++
	return p
}

// busy returns the hosts of which something may be left to do, and how often something came up.
func (j *joins) busy() (ids []lane.HostID, came map[lane.HostID]int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	came = map[lane.HostID]int{}
	for id, p := range j.pending {
		if !p.idle {
			came[id] = p.came
		}
	}
	return slices.Sorted(maps.Keys(came)), came
}

// rest notes that nothing is left to do for a host, unless something has come up since.
func (j *joins) rest(id lane.HostID, came int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	p := j.pending[id]
	p.idle = p.came == came
}

// known returns what goes on with a host that busy named.
func (j *joins) known(id lane.HostID) *pendingJoin {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.pending[id]
}

// cluster returns the cluster of a name.
func (c *Control) cluster(name string) (Cluster, error) {
	if cl, ok := c.Clusters[name]; ok {
		return cl, nil
	}
	return nil, lane.Errorf(lane.NotFound, "the configuration has no cluster %q: %s", name, strings.Join(slices.Sorted(maps.Keys(c.Clusters)), ", "))
}

// unknownCluster says why a host cannot join the cluster that it is meant for, or nothing.
func (c *Control) unknownCluster(h lane.Host) string {
	if c.unknownRole(h) != "" {
		return ""
	}
	site, _ := c.installed(h)
	if _, err := c.cluster(site.Cluster); site.Cluster != "" && err != nil {
		return err.Error()
	}
	return ""
}

// Join answers the first boot of a machine that has proven itself: the script with which it
// enters its cluster, with a credential for this run alone. Asked again, it is the same one
// while that is good, and has had no certificate; two never live at the same time. What is issued is on record before it
// is made, and before it leaves.
func (c *Control) Join(ctx context.Context, p lane.RunPath, f lane.Facts) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	f.Speaker, f.Name = lane.SpeakerFirstBoot, string(lane.AssetJoin)
	h, err := c.opened(ctx, p.Capability, f)
	if err != nil {
		return nil, err
	}
	f.Run = h.Run.ID
	switch stray, err := c.stray(ctx, h, f); {
	case err != nil:
		return nil, err
	case stray.Reason != "":
		return nil, c.alarm(h, stray, f, "its way into its cluster was asked for")
	}
	pending := c.joins.of(h.ID)
	pending.issuing.Lock()
	defer pending.issuing.Unlock()
	if h, err = c.Store.Host(ctx, h.ID); err != nil {
		return nil, err
	}
	d := lane.Decision{Action: lane.LocalBoot, Reason: lane.DiskWritten, Host: h.ID, Run: h.Run.ID}
	if diff := lane.Contradictions(h, f); len(diff) > 0 && h.Run.Open {
		d.Action, d.Reason, d.Claims, d.Mismatch, d.Detail = lane.Hold, lane.IdentityMismatch, []lane.HostID{h.ID}, diff, "another machine asks to join its cluster"
		if err := c.aftermath(ctx, d, h, f); err != nil {
			return nil, err
		}
		return nil, lane.Errorf(lane.Refused, "%s: %s", d.Detail, diff[0])
	}
	if err := lane.Joinable(h, f, c.Now()); err != nil {
		d.Detail = err.Error()
		c.Store.Record(c.answered(lane.KindRefused, d, f))
		return nil, err
	}
	script, err := c.joinScript(ctx, h, pending)
	if err != nil {
		d.Detail = "it cannot join now: " + err.Error()
		c.Store.Record(c.answered(lane.KindRefused, d, f))
		return nil, err
	}
	// Without its digest: nothing of the credential is in the evidence, not even a hash.
	d.Detail = "the way into the cluster " + h.Run.Cluster
	e := c.answered(lane.KindServed, d, f)
	e.Bytes = int64(len(script))
	return script, c.Store.Witness(ctx, e)
}

// joinScript returns the script of a host whose machine may join, with a credential that lives.
func (c *Control) joinScript(ctx context.Context, h lane.Host, p *pendingJoin) ([]byte, error) {
	cl, err := c.cluster(h.Run.Cluster)
	if err != nil {
		return nil, &lane.Error{Code: lane.Unavailable, Message: "the run was granted for a cluster that is not there any more", Err: err}
	}
	good := h.Join.Live() && h.Join.Run == h.Run.ID && p.token.ID == h.Join.Token && h.Join.Spent == "" && c.Now().Add(joinMargin).Before(p.token.Expires)
	if good {
		return cl.Script(h.NodeName(), p.token)
	}
	if h.Join.Live() {
		if err := c.endCredential(ctx, h, p, "another one takes its place"); err != nil {
			return nil, err
		}
	}
	if h.Join == nil || h.Join.Run != h.Run.ID { // later in the run, a Node is this run's own
		if err := c.makeWay(ctx, h, cl); err != nil {
			return nil, err
		}
	}
	t, err := c.newToken(h, cl)
	if err != nil {
		return nil, err
	}
	issued, err := c.change(ctx, h.ID, func(h lane.Host) (lane.Host, lane.Event, error) {
		if !h.Run.Open || h.Run.ID != t.Run || h.State != lane.StateProvisioning {
			return h, lane.Event{}, lane.Errorf(lane.Refused, "the run of %s is over, or it was set aside", h.ID)
		}
		return lane.Issue(h, t, c.Now())
	})
	if err != nil {
		return nil, err
	}
	p.token, p.next, p.failed = t, time.Time{}, ""
	c.joins.of(h.ID)
	if err := cl.Mint(ctx, t); err != nil {
		p.token = lane.Token{} // whether it lives or not, it is not given
		if ended := c.endCredential(context.WithoutCancel(ctx), issued, p, "it was never usable: "+err.Error()); ended != nil {
			return nil, fmt.Errorf("%w; %w", err, ended)
		}
		return nil, err
	}
	return cl.Script(issued.NodeName(), t)
}

// newToken makes a credential, as long as its cluster's configuration says, and not beyond the run.
func (c *Control) newToken(h lane.Host, cl Cluster) (lane.Token, error) {
	id, err := c.random(4)
	if err != nil {
		return lane.Token{}, err
	}
	secret, err := c.random(10) // 80 bits are the sixteen characters that the format has
	if err != nil {
		return lane.Token{}, err
	}
	expires := c.Now().Add(cl.TokenTTL())
	if h.Run.Deadline.Before(expires) {
		expires = h.Run.Deadline
	}
	return lane.Token{ID: id[:6], Secret: secret, Expires: expires.Truncate(time.Second), Host: h.ID, Run: h.Run.ID}, nil
}

// makeWay deletes what is left of an earlier life of the host in its cluster. A Node that is
// Ready is left alone, whatever was said when the run was granted: some machine is alive there.
func (c *Control) makeWay(ctx context.Context, h lane.Host, cl Cluster) error {
	n, err := cl.Node(ctx, h.NodeName())
	switch {
	case lane.CodeOf(err) == lane.NotFound:
		return nil
	case err != nil:
		return err
	case ofAnother(h, n):
		return lane.Errorf(lane.Refused, "the cluster %s has a Node %s of another machine, with the UUID %s: delete it yourself if it is not missed", h.Run.Cluster, n.Name, lane.Clean(n.SystemUUID, 60))
	case n.Ready:
		return lane.Errorf(lane.Refused, "the cluster %s has a Node %s that is Ready: another machine has this name, or the API server has not missed this one yet", h.Run.Cluster, n.Name)
	}
	if err := c.Store.Witness(ctx, h.InCluster(lane.KindCluster, n.Name, fmt.Sprintf("the stale Node %s of the cluster %s, of %s, is deleted: the machine comes back", n.Name, h.Run.Cluster, n.Created.UTC().Format("2006-01-02 15:04:05Z")), c.Now())); err != nil {
		return err
	}
	return cl.DeleteNode(ctx, n)
}

// ofAnother reports whether a Node's kubelet says that it runs on another machine.
func ofAnother(h lane.Host, n lane.ClusterNode) bool {
	theirs, err := lane.ParseUUID(n.SystemUUID)
	return err == nil && !theirs.Placeholder() && !h.Identity.UUID.Placeholder() && !theirs.SameAs(h.Identity.UUID)
}

// endCredential makes sure that a host's credential opens nothing any more, and puts that on
// record. One that has expired opens nothing, whether or not its cluster can be asked.
func (c *Control) endCredential(ctx context.Context, h lane.Host, p *pendingJoin, why string) error {
	token := h.Join.Token
	cl, err := c.cluster(h.Join.Cluster)
	if err == nil {
		err = cl.Revoke(ctx, token)
	}
	done := "; its Secret is deleted"
	if err != nil {
		if c.Now().Before(h.Join.Expires) {
			return err
		}
		done = "; its Secret could not be deleted, and expired: " + err.Error()
	}
	_, err = c.change(ctx, h.ID, func(h lane.Host) (lane.Host, lane.Event, error) {
		next, e, news := lane.EndCredential(h, token, why+done, c.Now())
		if !news {
			return h, lane.Event{}, nil
		}
		return next, e, nil
	})
	if p.token.ID == token && err == nil {
		p.token = lane.Token{}
	}
	return err
}

// RunJoins ends credentials, approves certificates and labels Nodes, once a second, until ctx ends.
func (c *Control) RunJoins(ctx context.Context) error { return everySecond(ctx, c.TendJoins) }

// TendJoins does once what is left to do in clusters. What a cluster does not do is tried again;
// the error is of the store.
func (c *Control) TendJoins(ctx context.Context) error {
	if err := c.lookForJoins(ctx); err != nil {
		return err
	}
	ids, came := c.joins.busy()
	tended := make([]lane.Host, len(ids))
	var g errgroup.Group
	var silent sync.Map // clusters that did not answer in this round: they must not keep the others waiting
	g.SetLimit(joinsAtOnce)
	for i, id := range ids {
		g.Go(func() (err error) {
			tended[i], err = c.tend(ctx, id, came[id], &silent)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	waiting := map[string][]lane.Host{}
	for _, h := range tended {
		if h.Join.Live() {
			waiting[h.Join.Cluster] = append(waiting[h.Join.Cluster], h)
		}
	}
	for name, hosts := range waiting {
		if cl, ok := c.Clusters[name]; ok && cl.Signs() {
			g.Go(func() error {
				c.sign(ctx, cl, hosts)
				return nil
			})
		}
	}
	return errors.Join(g.Wait(), ctx.Err())
}

// lookForJoins finds, once after a start, the hosts of which something is left to do.
func (c *Control) lookForJoins(ctx context.Context) error {
	c.joins.mu.Lock()
	looked := c.joins.looked
	c.joins.mu.Unlock()
	for after := lane.HostID(""); !looked; {
		hosts, err := c.Store.Hosts(ctx, after, 500)
		if err != nil {
			return err
		}
		if len(hosts) == 0 {
			break
		}
		for _, h := range hosts {
			after = h.ID
			if h.Join.Pending() || h.AwaitsNode() {
				c.joins.of(h.ID)
			}
		}
	}
	c.joins.mu.Lock()
	defer c.joins.mu.Unlock()
	c.joins.looked = true
	return nil
}

// tend does what is left to do for one host, and returns its record where its credential goes on
// living. came is how often something had come up before its record is read.
func (c *Control) tend(ctx context.Context, id lane.HostID, came int, silent *sync.Map) (lane.Host, error) {
	p := c.joins.known(id)
	if !p.issuing.TryLock() { // its machine is being answered
		return lane.Host{}, nil
	}
	defer p.issuing.Unlock()
	h, err := c.Store.Host(ctx, id)
	if err != nil && lane.CodeOf(err) != lane.NotFound {
		return h, err
	}
	if err != nil || !h.Join.Pending() && !h.AwaitsNode() {
		c.joins.rest(id, came)
		return lane.Host{}, nil
	}
	cluster := h.Run.Cluster
	if h.Join.Pending() { // an earlier run's credential ends first
		cluster = h.Join.Cluster
	}
	if _, skip := silent.Load(cluster); skip || c.Now().Before(p.next) {
		return lane.Host{}, nil
	}
	call, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	switch why := lane.CredentialOver(h, c.Now()); {
	case !h.Join.Pending():
		err = c.awaitNode(call, h, p)
	case !h.Join.Live():
		err = c.markNode(call, h)
	case why != "":
		err = c.endCredential(call, h, p, why)
	default:
		return h, nil
	}
	if lane.CodeOf(err) == lane.Unavailable {
		silent.Store(cluster, true)
	}
	c.tried(h, p, err)
	return lane.Host{}, nil
}

// awaitNode ends the run of a machine of Talos, once its Node is Ready in its cluster, and is it. Until
// then it is looked for every joinRetry. p is held.
func (c *Control) awaitNode(ctx context.Context, h lane.Host, p *pendingJoin) error {
	cl, err := c.cluster(h.Run.Cluster)
	var n lane.ClusterNode
	if err == nil {
		n, err = cl.Node(ctx, h.NodeName())
	}
	if err != nil && lane.CodeOf(err) != lane.NotFound {
		return err
	}
	if err == nil && h.IsNode(n) {
		_, err := c.change(ctx, h.ID, func(now lane.Host) (lane.Host, lane.Event, error) {
			if now.Run.ID != h.Run.ID || !now.AwaitsNode() {
				return now, lane.Event{}, nil
			}
			return lane.Confirm(now, "server", fmt.Sprintf("the Node %s of the cluster %s is Ready, and says the UUID of the record", n.Name, h.Run.Cluster), c.Now())
		})
		return err
	}
	p.next = c.Now().Add(joinRetry)
	return errNotYet
}

// errNotYet is that a Node is looked for again: nothing to put on record.
var errNotYet = errors.New("the Node is not Ready yet")

// tried puts on record, once, what a cluster did not do. p is held.
func (c *Control) tried(h lane.Host, p *pendingJoin, err error) {
	switch {
	case err == nil:
		p.next, p.failed = time.Time{}, ""
		return
	case errors.Is(err, errNotYet):
		p.failed = ""
		return
	}
	p.next = c.Now().Add(joinRetry)
	if key := string(lane.CodeOf(err)); p.failed != key {
		p.failed = key
		c.Store.Record(h.InCluster(lane.KindCluster, h.NodeName(), "not done yet, and tried again: "+lane.Clean(err.Error(), 600), c.Now()))
	}
}

// sign approves the certificates that the hosts' credentials ask for, and no others.
func (c *Control) sign(ctx context.Context, cl Cluster, hosts []lane.Host) {
	ctx, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	requests, err := cl.Requests(ctx)
	if err != nil {
		for _, h := range hosts {
			c.triedFor(h, err)
		}
		return
	}
	for _, r := range requests {
		i := slices.IndexFunc(hosts, func(h lane.Host) bool { return h.Join.Token == r.TokenID() })
		if i < 0 {
			continue // of somebody else's token
		}
		why := ""
		h, err := c.change(ctx, hosts[i].ID, func(h lane.Host) (lane.Host, lane.Event, error) {
			if why = lane.RefuseNode(h, r, c.Now()); why != "" {
				return h, lane.Event{}, nil
			}
			next, e, news := lane.Spend(h, r, c.Now())
			if !news {
				return h, lane.Event{}, nil
			}
			return next, e, nil
		})
		switch {
		case err != nil:
			return // the store's: the next round tries again
		case why == "":
			c.triedFor(h, cl.Approve(ctx, r, "for the host "+string(h.ID)+", run "+string(h.Run.ID)))
		case c.joins.tell(r):
			c.Store.Record(h.InCluster(lane.KindAlarm, r.Name, "the certificate request "+r.Name+" is not approved: "+why, c.Now()))
		}
	}
}

// triedFor is tried, unless the host's machine is being answered: then the next try tells.
func (c *Control) triedFor(h lane.Host, err error) {
	if p := c.joins.known(h.ID); p.issuing.TryLock() {
		defer p.issuing.Unlock()
		c.tried(h, p, err)
	}
}

// Bounds of what is told of requests: of those that one token makes, and of all that are remembered.
const (
	maxAlarms = 20
	maxTold   = 10_000
)

// tell reports whether a refused request is to go on record, and notes that it does: each once,
// and of a machine that asks and asks only the first.
func (j *joins) tell(r lane.NodeRequest) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.told[r.UID] || j.alarms[r.TokenID()] >= maxAlarms {
		return false
	}
	if len(j.told) >= maxTold {
		clear(j.told)
		clear(j.alarms)
	}
	j.told[r.UID] = true
	j.alarms[r.TokenID()]++
	return true
}

// markNode labels the Node of a machine that has joined, once it is sure that the Node is this
// machine.
func (c *Control) markNode(ctx context.Context, h lane.Host) error {
	cl, err := c.cluster(h.Join.Cluster)
	var n lane.ClusterNode
	if err == nil {
		n, err = cl.Node(ctx, h.Join.Node)
	}
	alarm, message := false, ""
	seen, unread := lane.ParseUUID(n.SystemUUID)
	switch want := h.Identity.UUID; {
	case err != nil && c.Now().Before(h.Join.Joined.Add(markLimit)):
		return err
	case err != nil:
		alarm, message = true, "the Node could not be labelled for "+markLimit.String()+": "+lane.Clean(err.Error(), 500)
	case !want.Placeholder() && (unread != nil || !want.SameAs(seen)):
		alarm, message = true, fmt.Sprintf("the Node %s of the cluster %s is another machine: the inventory says the UUID %s, its kubelet %s; it is not labelled. Find out who joined under this name, and delete that Node", n.Name, h.Join.Cluster, want, lane.Clean(n.SystemUUID, 60))
	default:
		m := h.Marks(cl.Labels())
		if err := cl.MarkNode(ctx, n, m); err != nil && c.Now().Before(h.Join.Joined.Add(markLimit)) {
			return err
		} else if err != nil {
			alarm, message = true, "the Node could not be labelled: "+lane.Clean(err.Error(), 500)
			break
		}
		message = fmt.Sprintf("the Node %s of the cluster %s is the machine of the record, and is labelled: %s", n.Name, h.Join.Cluster, strings.Join(slices.Sorted(maps.Keys(m.Labels)), ", "))
	}
	_, err = c.change(ctx, h.ID, func(h lane.Host) (lane.Host, lane.Event, error) {
		next, e, news := lane.Mark(h, alarm, message, c.Now())
		if !news {
			return h, lane.Event{}, nil
		}
		return next, e, nil
	})
	return err
}

// ClusterList returns the clusters of the configuration.
func (c *Control) ClusterList(context.Context) ([]lane.ClusterStatus, error) {
	out := []lane.ClusterStatus{}
	for _, name := range slices.Sorted(maps.Keys(c.Clusters)) {
		out = append(out, c.Clusters[name].Status())
	}
	return out, nil
}

// ClusterManifests returns what gives us the rights that we need in a cluster.
func (c *Control) ClusterManifests(_ context.Context, name string) (lane.Rendered, error) {
	cl, err := c.cluster(name)
	if err != nil {
		return lane.Rendered{}, err
	}
	text, err := cl.Manifests()
	return lane.Rendered{Path: "bootlane-" + name + ".yaml", Body: text}, err
}

// ClusterCheck asks a cluster what we may do there, and must not.
func (c *Control) ClusterCheck(ctx context.Context, name string) (lane.ClusterCheck, error) {
	cl, err := c.cluster(name)
	if err != nil {
		return lane.ClusterCheck{}, err
	}
	return cl.Check(ctx, c.Now())
}
