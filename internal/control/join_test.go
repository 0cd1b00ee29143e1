package control_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bootlane/internal/control"
	"bootlane/internal/join"
	"bootlane/internal/join/jointest"
	"bootlane/internal/lane"
)

// joinRig is a rig with the cluster prod, whose API is a stand-in that speaks HTTPS: the real
// one takes too long to build for these tests, and plays them in `make test-kube`.
func joinRig(t *testing.T) (*rig, *jointest.Server) {
	t.Helper()
	r, s := newRig(t), jointest.New(t)
	r.connect(s)
	h := spec("node1")
	h.Identity.Rack, h.Identity.AssetTag = "R7", "A 1"
	h.Labels = map[string]string{"example.org/pool": "gpu"}
	h.Install.Cluster = new("prod")
	r.enrol(h)
	return r, s
}

func (r *rig) connect(s *jointest.Server) {
	r.t.Helper()
	c, err := join.Open(join.Config{Name: "prod", Distribution: lane.DistributionKubeadm, Endpoint: s.Endpoint, Kubeconfig: s.Kubeconfig, TokenTTL: 15 * time.Minute, User: jointest.User, Labels: []string{"example.org/pool"}})
	r.must(err)
	r.Clusters = map[string]control.Cluster{"prod": c}
}

// ready brings node1 to where it asks to join.
func (r *rig) ready() lane.Host {
	r.t.Helper()
	h := r.provision("node1", lane.Provisioning{Reinstall: true})
	r.script(lane.Install)
	for _, s := range []lane.Stage{lane.StageKernel, lane.StageInstaller, lane.StageDiskWritten, lane.StageFirstBoot} {
		r.must(r.report(h, s, 1, lane.StatusOK))
	}
	if _, err := r.join(h); lane.CodeOf(err) != lane.Refused || !strings.Contains(err.Error(), "not proven itself") {
		r.t.Errorf("before it is ready: %v", err)
	}
	r.must(r.report(h, lane.StageReady, 1, lane.StatusOK))
	return h
}

var tokenText = regexp.MustCompile(`token: "([a-z0-9]{6})\.([a-z0-9]{16})"`)

// join asks for the join script of a run, and returns it with the token's id.
func (r *rig) join(h lane.Host) (string, error) {
	return r.joinAs(h, lane.Facts{Surface: lane.SurfaceHTTP, UUID: uuid1, MAC: mac1, Serial: "S1", From: "10.0.0.9"})
}

func (r *rig) joinAs(h lane.Host, f lane.Facts) (string, error) {
	b, err := r.Join(r.t.Context(), lane.RunPath{Capability: h.Run.Capability, Asset: lane.AssetJoin}, f)
	return string(b), err
}

func (r *rig) joined(h lane.Host) (id, secret string) {
	r.t.Helper()
	text, err := r.join(h)
	r.must(err)
	m := tokenText.FindStringSubmatch(text)
	if m == nil {
		r.t.Fatalf("no token in\n%s", text)
	}
	return m[1], m[2]
}

func (r *rig) tend() {
	r.t.Helper()
	r.must(r.TendJoins(r.t.Context()))
}

// said returns the messages of one kind of event about node1.
func (r *rig) said(kind lane.Kind) (out []string) {
	r.t.Helper()
	events, err := r.Events(r.t.Context(), "node1", 0, 1000)
	r.must(err)
	for _, e := range events {
		if e.Kind == kind {
			out = append(out, e.Message)
		}
	}
	return out
}

func csr(t *testing.T, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func approved(s *jointest.Server, name string) bool {
	status, _ := s.Object("/apis/certificates.k8s.io/v1/certificatesigningrequests/" + name)["status"].(jointest.Object)
	return status["conditions"] != nil
}

// TestJoin: from ready to a labelled Node, with one credential at a time, and nothing of its
// secret anywhere but in the script.
func TestJoin(t *testing.T) {
	r, s := joinRig(t)
	h := r.ready()
	if got := r.host("node1"); got.State != lane.StateProvisioning || !got.Run.Open {
		t.Fatalf("%s, %+v: it is not in its cluster", got.State, got.Run)
	}
	id, secret := r.joined(h)
	if again, same := r.joined(h); again != id || same != secret || !slices.Equal(s.Secrets(), []string{id}) {
		t.Errorf("asked again: %s, then %s; in the cluster %v", id, again, s.Secrets())
	}
	if e := r.last("node1", lane.KindIssued); e.Name != id || !e.Expires.Equal(r.clock().Add(15*time.Minute)) {
		t.Errorf("%+v", e)
	}
	r.pass(14 * time.Minute) // too little is left of it
	late, _ := r.joined(h)
	if late == id || !slices.Equal(s.Secrets(), []string{late}) {
		t.Errorf("%s after %s; in the cluster %v", late, id, s.Secrets())
	}
	id = late
	s.Request("csr-other", id, csr(t, "victim"))
	s.Request("csr-foreign", "zzzzzz", csr(t, "node1"))
	s.Request("csr-mine", id, csr(t, "node1"))
	r.tend()
	r.tend()
	if !approved(s, "csr-mine") || approved(s, "csr-other") || approved(s, "csr-foreign") {
		t.Errorf("approved: mine %v, another name %v, another token %v", approved(s, "csr-mine"), approved(s, "csr-other"), approved(s, "csr-foreign"))
	}
	if got := r.said(lane.KindAlarm); len(got) != 1 || !strings.Contains(got[0], "csr-other is not approved") {
		t.Errorf("%q", got)
	}
	s.Request("csr-thief", id, csr(t, "node1")) // for the same name, with a key of its own
	r.tend()
	if got := r.said(lane.KindAlarm); approved(s, "csr-thief") || len(got) != 2 || !strings.Contains(got[1], "had its one certificate") {
		t.Errorf("a second certificate: %v, %q", approved(s, "csr-thief"), got)
	}
	fresh, _ := r.joined(h) // the machine starts over
	if fresh == id || !slices.Equal(s.Secrets(), []string{fresh}) {
		t.Errorf("%s after %s; in the cluster %v", fresh, id, s.Secrets())
	}
	s.SetNode("node1", "33221100-5544-7766-8899-aabbccddeeff", true) // its kubelet swaps bytes
	r.must(r.report(h, lane.StageJoined, 1, lane.StatusOK))
	if got := r.host("node1"); got.State != lane.StateInstalled || got.Run.Outcome != "joined" {
		t.Errorf("%s, %+v", got.State, got.Run)
	}
	if _, err := r.join(h); lane.CodeOf(err) != lane.Refused {
		t.Errorf("after the join: %v", err)
	}
	r.tend()
	if len(s.Secrets()) > 0 {
		t.Errorf("left in the cluster: %v", s.Secrets())
	}
	r.tend()
	labels, _ := s.Object("/api/v1/nodes/node1")["metadata"].(jointest.Object)["labels"].(jointest.Object)
	if labels["node-restriction.kubernetes.io/inventory-uuid"] != string(uuid1) || labels["node-restriction.kubernetes.io/rack"] != "R7" || labels["example.org/pool"] != "gpu" || labels["node-restriction.kubernetes.io/asset"] != nil {
		t.Errorf("%v", labels)
	}
	if ended := r.said(lane.KindEnded); len(ended) != 3 || !strings.Contains(ended[2], "its run ended: joined; its Secret is deleted") {
		t.Errorf("%q", ended)
	}
	if j := r.host("node1").Join; j.Pending() {
		t.Errorf("left to do: %+v", j)
	}
	r.nowhere(h, secret)
}

// nowhere holds what operators and the evidence say against a secret and a capability.
func (r *rig) nowhere(h lane.Host, secret string) {
	r.t.Helper()
	events, err := r.Events(r.t.Context(), "node1", 0, 1000)
	r.must(err)
	if bad, ok := lane.VerifyChain(events); !ok {
		r.t.Errorf("the chain breaks at %d", bad.Seq)
	}
	v, err := r.Why(r.t.Context(), "node1")
	r.must(err)
	if text := fmt.Sprintf("%+v %+v %+v", events, r.host("node1"), v); strings.Contains(text, secret) || strings.Contains(fmt.Sprintf("%+v", events), h.Run.Capability) {
		r.t.Errorf("a secret stands in what is told")
	}
}

// TestJoinEnds: however a run ends, its credential is deleted, and given no more.
func TestJoinEnds(t *testing.T) {
	for name, end := range map[string]func(r *rig, h lane.Host){
		"failed": func(r *rig, h lane.Host) { r.must(r.report(h, lane.StageJoined, 1, lane.StatusFailed)) },
		"cancelled": func(r *rig, _ lane.Host) {
			_, err := r.Cancel(r.t.Context(), "node1", "op:t", "x")
			r.must(err)
		},
		"quarantine": func(r *rig, _ lane.Host) {
			_, err := r.Quarantine(r.t.Context(), "node1", "op:t", "x")
			r.must(err)
		},
		"retired": func(r *rig, _ lane.Host) {
			_, err := r.Quarantine(r.t.Context(), "node1", "op:t", "x")
			r.must(err)
			_, err = r.Retire(r.t.Context(), "node1", "op:t", "x")
			r.must(err)
		},
		"deadline": func(r *rig, _ lane.Host) { r.pass(3 * time.Hour) },
		"expired":  func(r *rig, _ lane.Host) { r.pass(16 * time.Minute) },
		"another machine": func(r *rig, h lane.Host) {
			if _, err := r.joinAs(h, lane.Facts{Surface: lane.SurfaceHTTP, UUID: "99999999-8888-4777-8666-555555555555", MAC: mac1, Serial: "S1"}); lane.CodeOf(err) != lane.Refused || r.host("node1").State != lane.StateQuarantine {
				r.t.Errorf("%v, %s", err, r.host("node1").State)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, s := joinRig(t)
			h := r.ready()
			id, secret := r.joined(h)
			end(r, h)
			r.tend()
			if len(s.Secrets()) > 0 || r.host("node1").Join.Live() {
				t.Errorf("left: %v, %+v", s.Secrets(), r.host("node1").Join)
			}
			if ended := r.said(lane.KindEnded); len(ended) != 1 || !strings.Contains(ended[0], id) {
				t.Errorf("%q", ended)
			}
			if name != "expired" {
				if _, err := r.join(h); lane.CodeOf(err) != lane.Refused {
					t.Errorf("it is given again: %v", err)
				}
			}
			r.nowhere(h, secret)
		})
	}
}

// TestJoinSurvivesARestart: the secret half is not on record, and what was issued is deleted all the same.
func TestJoinSurvivesARestart(t *testing.T) {
	r, s := joinRig(t)
	h := r.ready()
	id, _ := r.joined(h)
	r.Control = control.New(r.Config)
	fresh, _ := r.joined(h)
	if fresh == id || !slices.Equal(s.Secrets(), []string{fresh}) {
		t.Errorf("%s after %s; in the cluster %v", fresh, id, s.Secrets())
	}
	s.Down(true)
	_, err := r.Cancel(t.Context(), "node1", "op:t", "x")
	r.must(err)
	r.tend()
	r.Control = control.New(r.Config)
	r.tend()
	r.pass(11 * time.Second)
	r.tend()
	if told := r.said(lane.KindCluster); len(told) != 2 || !strings.Contains(told[1], "cannot be reached") { // one of each server
		t.Errorf("%q", told)
	}
	s.Down(false)
	r.tend() // not yet: it was just tried
	if len(s.Secrets()) != 1 {
		t.Error("it is tried without a pause")
	}
	r.pass(11 * time.Second)
	r.tend()
	if len(s.Secrets()) > 0 || len(r.said(lane.KindEnded)) != 2 {
		t.Errorf("%v, %q", s.Secrets(), r.said(lane.KindEnded))
	}
}

// TestJoinWithoutItsCluster: a cluster that cannot be asked keeps a machine waiting, and is told of.
func TestJoinWithoutItsCluster(t *testing.T) {
	r, s := joinRig(t)
	h := r.ready()
	s.Down(true)
	if _, err := r.join(h); lane.CodeOf(err) != lane.Unavailable || r.host("node1").Join != nil {
		t.Errorf("%v, %+v", err, r.host("node1").Join)
	}
	if v, err := r.Why(t.Context(), "node1"); err != nil || v.Rule != "waiting-after-ready" || !strings.Contains(v.Because, "cannot be reached") || !strings.Contains(v.Next, "cluster check prod") {
		t.Errorf("%+v, %v", v, err)
	}
	s.Down(false)
	s.Deny(func(method, path string) (int, string) {
		if method == http.MethodPost && strings.HasSuffix(path, "/secrets") {
			return 422, "ValidatingAdmissionPolicy 'x' denied request: no"
		}
		return 0, ""
	})
	if _, err := r.join(h); lane.CodeOf(err) != lane.Refused || !strings.Contains(err.Error(), "admission policy") || r.host("node1").Join.Live() {
		t.Errorf("%v, %+v", err, r.host("node1").Join)
	}
	s.Deny(nil)
	id, _ := r.joined(h)
	s.Down(true)
	r.pass(16 * time.Minute) // what has expired opens nothing, whether or not it can be deleted
	r.tend()
	if r.host("node1").Join.Live() || !strings.Contains(strings.Join(r.said(lane.KindEnded), "\n"), id) {
		t.Errorf("%+v", r.host("node1").Join)
	}
	r.Clusters = nil
	if _, err := r.join(h); lane.CodeOf(err) != lane.Unavailable || !strings.Contains(err.Error(), "no cluster") {
		t.Errorf("without a cluster: %v", err)
	}
}

// TestNodeBefore: a Node that may be alive keeps a disk from being erased; a stale one goes.
func TestNodeBefore(t *testing.T) {
	r, s := joinRig(t)
	refused := func(want string) {
		t.Helper()
		_, err := r.Provision(t.Context(), "node1", lane.Provisioning{By: "op:t"})
		if lane.CodeOf(err) != lane.Refused || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--replace-node") {
			t.Errorf("%v, want %s", err, want)
		}
	}
	s.SetNode("node1", string(uuid1), true)
	refused("that is Ready")
	s.Down(true)
	refused("is not known")
	s.Down(false)
	r.Site.Packages = []string{"vim", "kubelet=1.36.0-1.1"}
	for _, q := range []lane.Provisioning{{By: "op:t"}, {By: "op:t", ReplaceNode: true, Why: "its board burnt"}} { // whether a Node is alive is another question
		if _, err := r.Provision(t.Context(), "node1", q); lane.CodeOf(err) != lane.Refused || !strings.Contains(err.Error(), "site.packages[1]: kubelet=1.36.0-1.1 is newer than the cluster's API server, v1.35.0") {
			t.Errorf("a kubelet that is too new: %v", err)
		}
	}
	r.Site.Packages = nil
	if _, err := r.Provision(t.Context(), "node1", lane.Provisioning{By: "op:t", ReplaceNode: true}); lane.CodeOf(err) != lane.Invalid {
		t.Errorf("without a reason: %v", err)
	}
	h := r.provision("node1", lane.Provisioning{ReplaceNode: true, Why: "its board burnt"})
	if e := r.last("node1", lane.KindArmed); !strings.HasSuffix(e.Message, "joins the cluster prod: its board burnt") {
		t.Errorf("%q", e.Message)
	}
	_, err := r.Cancel(t.Context(), h.ID, "op:t", "x")
	r.must(err)
	s.SetNode("node1", string(uuid1), false)
	h = r.ready()
	s.SetNode("node1", string(uuid1), true) // somebody else is alive there
	if _, err := r.join(h); lane.CodeOf(err) != lane.Refused || !strings.Contains(err.Error(), "that is Ready") {
		t.Errorf("%v", err)
	}
	s.SetNode("node1", string(uuid1), false)
	_, _ = r.joined(h)
	if s.Object("/api/v1/nodes/node1") != nil || !strings.Contains(strings.Join(r.said(lane.KindCluster), "\n"), "the stale Node node1 of the cluster prod") {
		t.Errorf("%q", r.said(lane.KindCluster))
	}
	s.SetNode("node1", string(uuid1), true) // by now it is this run's own: power fails, and first boot starts over
	r.pass(14 * time.Minute)
	_, _ = r.joined(h)
	if s.Object("/api/v1/nodes/node1") == nil {
		t.Error("the run deletes its own Node")
	}
}

// TestAnotherNode: who joins under the name and is another machine is not labelled.
func TestAnotherNode(t *testing.T) {
	r, s := joinRig(t)
	h := r.ready()
	_, _ = r.joined(h)
	r.must(r.report(h, lane.StageJoined, 1, lane.StatusOK))
	r.tend()
	r.pass(2 * time.Minute)
	if v, err := r.Why(t.Context(), "node1"); err != nil || v.Rule != "node-not-labelled" {
		t.Errorf("%+v, %v", v, err)
	}
	r.tend()
	s.SetNode("node1", "99999999-8888-4777-8666-555555555555", true)
	r.pass(11 * time.Second)
	r.tend()
	if labels := s.Object("/api/v1/nodes/node1")["metadata"].(jointest.Object)["labels"]; labels != nil {
		t.Errorf("%v", labels)
	}
	if got := r.said(lane.KindAlarm); len(got) != 1 || !strings.Contains(got[0], "is another machine") {
		t.Errorf("%q", got)
	}
	if v, err := r.Why(t.Context(), "node1"); err != nil || v.Rule != "node-alarm" || !strings.Contains(v.Because, "another machine") {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestApprovalIsTriedAgain: the one request is on record before it is approved, and stays the one.
func TestApprovalIsTriedAgain(t *testing.T) {
	r, s := joinRig(t)
	id, _ := r.joined(r.ready())
	s.Request("csr-mine", id, csr(t, "node1"))
	s.Deny(func(method, _ string) (int, string) {
		if method == http.MethodPut {
			return http.StatusInternalServerError, "etcd is gone"
		}
		return 0, ""
	})
	r.tend()
	s.Deny(nil)
	if approved(s, "csr-mine") {
		t.Fatal("it is approved already")
	}
	r.pass(11 * time.Second)
	r.tend()
	if !approved(s, "csr-mine") || len(r.said(lane.KindAlarm)) > 0 {
		t.Errorf("%q", r.said(lane.KindAlarm))
	}
}

// TestManyRequests: a machine that asks for one certificate after the other does not drown the evidence.
func TestManyRequests(t *testing.T) {
	r, s := joinRig(t)
	id, _ := r.joined(r.ready())
	other := csr(t, "victim")
	for i := range 30 {
		s.Request(fmt.Sprint("csr-", i), id, other)
	}
	r.tend()
	r.tend()
	if n := len(r.said(lane.KindAlarm)); n != 20 {
		t.Errorf("%d alarms", n)
	}
}

// TestJoinTakesLong: a machine may report after its credential is gone; its Node is labelled all the same.
func TestJoinTakesLong(t *testing.T) {
	r, s := joinRig(t)
	h := r.ready()
	_, _ = r.joined(h)
	r.pass(16 * time.Minute)
	r.tend()
	r.tend()
	s.SetNode("node1", string(uuid1), true)
	r.must(r.report(h, lane.StageJoined, 1, lane.StatusOK))
	r.tend()
	if j := r.host("node1").Join; j.Marked.IsZero() || j.Pending() {
		t.Errorf("%+v", j)
	}
}

// TestNoNode: a Node that never appears is given up after an hour, and somebody must look.
func TestNoNode(t *testing.T) {
	r, _ := joinRig(t)
	h := r.ready()
	_, _ = r.joined(h)
	r.must(r.report(h, lane.StageJoined, 1, lane.StatusOK))
	r.tend()
	r.pass(61 * time.Minute)
	r.tend()
	if got := r.said(lane.KindAlarm); len(got) != 1 || !strings.Contains(got[0], "could not be labelled") || r.host("node1").Join.Pending() {
		t.Errorf("%q", got)
	}
}

// TestJoinAtOnce: machines that ask twice at the same time get one credential.
func TestJoinAtOnce(t *testing.T) {
	r, s := joinRig(t)
	h := r.ready()
	var wg sync.WaitGroup
	texts := make([]string, 8)
	for i := range texts {
		wg.Go(func() { texts[i], _ = r.join(h) })
	}
	wg.Wait()
	if len(slices.Compact(texts)) != 1 || texts[0] == "" || len(s.Secrets()) != 1 {
		t.Errorf("%d scripts, %v", len(slices.Compact(texts)), s.Secrets())
	}
}

// TestClusterNames: a cluster that is not configured is told at import, and from a role too.
func TestClusterNames(t *testing.T) {
	r, _ := joinRig(t)
	h := spec("node1")
	h.Install.Cluster = new("staging")
	_, problems, err := r.Import(t.Context(), []lane.Host{h}, "op:t", true)
	if err != nil || len(problems) != 1 || problems[0].Field != "hosts[0].install.cluster" || !strings.Contains(problems[0].Message, `no cluster "staging": prod`) {
		t.Errorf("%v, %v", problems, err)
	}
	r.Roles = map[string]lane.InstallOptions{"worker": {Cluster: new("prod")}}
	h.Install.Cluster, h.Role = nil, "worker"
	r.enrol(h)
	if h := r.provision("node1", lane.Provisioning{}); h.Run.Cluster != "prod" {
		t.Errorf("%+v", h.Run)
	}
	files, err := r.Render(t.Context(), "node1")
	r.must(err)
	if i := slices.IndexFunc(files, func(f lane.Rendered) bool { return strings.HasPrefix(f.Path, "http/bootstrap/") }); i < 0 || !strings.Contains(files[i].Body, "/join.sh?") {
		t.Error("what is rendered does not join")
	}
}

// TestPurposeOfClusters: who joins a cluster is meant for Kubernetes, unless somebody says otherwise; and only a cluster
// of kubeadm needs the machine's own container runtime.
func TestPurposeOfClusters(t *testing.T) {
	r, s := joinRig(t)
	of := func(field string) lane.Origin {
		t.Helper()
		list, err := r.Explain(t.Context(), "node1")
		r.must(err)
		i := slices.IndexFunc(list, func(o lane.Origin) bool { return o.Field == field })
		if i < 0 {
			t.Fatalf("no %s in %v", field, list)
		}
		return list[i]
	}
	if o := of("purpose"); o.From != "cluster prod" || !slices.Equal(o.Values, []string{lane.PurposeKubernetes}) {
		t.Errorf("purpose: %+v", o)
	}
	if o := of("runtime"); !slices.Equal(o.Values, []string{lane.RuntimeContainerd}) {
		t.Errorf("kubeadm: %+v", o)
	}
	c, err := join.Open(join.Config{Name: "prod", Distribution: lane.DistributionK0s, Endpoint: s.Endpoint, Kubeconfig: s.Kubeconfig, TokenTTL: 15 * time.Minute, User: jointest.User})
	r.must(err)
	r.Clusters = map[string]control.Cluster{"prod": c}
	if o := of("runtime"); o.From != "cluster prod" || len(o.Values) != 0 {
		t.Errorf("k0s: %+v", o)
	}
	h := r.host("node1")
	h.Install.Purpose = new("")
	r.enrol(h)
	if o := of("modules"); len(o.Values) != 0 {
		t.Errorf("said otherwise: %+v", o)
	}
}
