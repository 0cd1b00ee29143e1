package lane

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// joiner is a host whose machine is ready, and has a credential.
func joiner() (Host, time.Time) {
	now := armedAt.Add(time.Hour)
	return Host{ID: "node-a", State: StateProvisioning, Hostname: "node-a.example.org", Identity: Identity{UUID: "00112233-4455-6677-8899-aabbccddeeff", MACs: []MAC{"52:54:00:00:00:01"}, AssetTag: "A 1", Rack: "R7"},
		Run:  Run{ID: "r-1", Open: true, Cluster: "prod", Stage: StageReady, Deadline: now.Add(time.Hour)},
		Join: &Join{Run: "r-1", Cluster: "prod", Node: "node-a", Token: "abcdef", Issued: now, Expires: now.Add(15 * time.Minute)}}, now
}

func TestRefuseNode(t *testing.T) {
	good := func() NodeRequest {
		return NodeRequest{Name: "csr-1", Signer: CSRSigner, Username: "system:bootstrap:abcdef", Usages: []string{"digital signature", "client auth"}, CommonName: "system:node:node-a", Organizations: []string{"system:nodes"}}
	}
	for _, c := range []struct {
		name string
		edit func(*Host, *NodeRequest)
		want string // words of the refusal; empty: it is approved
	}{
		{"as a kubelet asks", func(*Host, *NodeRequest) {}, ""},
		{"with an RSA key", func(_ *Host, r *NodeRequest) {
			r.Usages = []string{"key encipherment", "digital signature", "client auth"}
		}, ""},
		{"another name", func(_ *Host, r *NodeRequest) { r.CommonName = "system:node:victim" }, `for "system:node:victim"`},
		{"the long name", func(_ *Host, r *NodeRequest) { r.CommonName = "system:node:node-a.example.org" }, "alone"},
		{"an administrator", func(_ *Host, r *NodeRequest) { r.Organizations = []string{"system:masters"} }, "groups"},
		{"a second group", func(_ *Host, r *NodeRequest) { r.Organizations = append(r.Organizations, "system:masters") }, "groups"},
		{"no group", func(_ *Host, r *NodeRequest) { r.Organizations = nil }, "groups"},
		{"further names", func(_ *Host, r *NodeRequest) { r.Names = 1 }, "further names"},
		{"to serve", func(_ *Host, r *NodeRequest) { r.Usages = []string{"digital signature", "server auth"} }, "usages"},
		{"to serve as well", func(_ *Host, r *NodeRequest) { r.Usages = append(r.Usages, "server auth") }, "usages"},
		{"no usage", func(_ *Host, r *NodeRequest) { r.Usages = nil }, "usages"},
		{"another signer", func(_ *Host, r *NodeRequest) { r.Signer = "kubernetes.io/kube-apiserver-client" }, "signer"},
		{"broken", func(_ *Host, r *NodeRequest) { r.Broken = "it is no PEM" }, "it is no PEM"},
		{"another token", func(_ *Host, r *NodeRequest) { r.Username = "system:bootstrap:zzzzzz" }, "no credential"},
		{"no token", func(_ *Host, r *NodeRequest) { r.Username = "abcdef" }, "no credential"},
		{"an earlier run's", func(h *Host, _ *NodeRequest) { h.Run.ID = "r-2" }, "its run is over"},
		{"spent on it", func(h *Host, r *NodeRequest) { h.Join.Spent, r.UID = "u", "u" }, ""},
		{"spent on another", func(h *Host, r *NodeRequest) { h.Join.Spent, r.UID = "u", "v" }, "its one certificate"},
		{"ended", func(h *Host, _ *NodeRequest) { h.Join.Ended = armedAt }, "no credential"},
		{"none issued", func(h *Host, r *NodeRequest) { h.Join, r.Username = nil, "system:bootstrap:" }, "no credential"},
		{"expired", func(h *Host, _ *NodeRequest) { h.Join.Expires = armedAt }, "expired"},
		{"set aside", func(h *Host, _ *NodeRequest) { h.State = StateQuarantine }, "quarantine"},
		{"retired", func(h *Host, _ *NodeRequest) { h.State = StateRetired }, "retired"},
		{"cancelled", func(h *Host, _ *NodeRequest) { h.Run.Open, h.Run.Outcome = false, "cancelled" }, "cancelled"},
		{"joined", func(h *Host, _ *NodeRequest) { h.Run.Open, h.Run.Outcome = false, "joined" }, "joined"},
		{"after the deadline", func(h *Host, _ *NodeRequest) { h.Run.Deadline = armedAt }, "deadline"},
	} {
		h, now := joiner()
		r := good()
		c.edit(&h, &r)
		if why := RefuseNode(h, r, now); (why == "") != (c.want == "") || !strings.Contains(why, c.want) {
			t.Errorf("%s: %q, want %q", c.name, why, c.want)
		}
	}
}

func TestJoinable(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*Host, *Facts)
		want string // words of the refusal; empty: it may join
	}{
		{"proven", func(*Host, *Facts) {}, ""},
		{"no cluster", func(h *Host, _ *Facts) { h.Run.Cluster = "" }, "joins no cluster"},
		{"not ready", func(h *Host, _ *Facts) { h.Run.Stage = StageFirstBoot }, "not proven itself"},
		{"a stage of the future", func(h *Host, _ *Facts) { h.Run.Stage = "dance" }, "not proven itself"},
		{"closed", func(h *Host, _ *Facts) { h.Run.Open, h.Run.Outcome = false, "failed" }, "over: failed"},
		{"late", func(h *Host, _ *Facts) { h.Run.Deadline = armedAt }, "deadline"},
		{"set aside", func(h *Host, _ *Facts) { h.State = StateQuarantine }, "quarantine"},
		{"installed", func(h *Host, _ *Facts) { h.State = StateInstalled }, "installed"},
		{"no UUID", func(_ *Host, f *Facts) { f.UUID = "" }, "identity-missing"},
		{"no MAC", func(_ *Host, f *Facts) { f.MAC = "" }, "identity-missing"},
		{"no MAC, and none on record", func(h *Host, f *Facts) { h.Identity.MACs, f.MAC = nil, "" }, ""},
	} {
		h, now := joiner()
		f := Facts{UUID: h.Identity.UUID, MAC: h.Identity.MACs[0]}
		c.edit(&h, &f)
		err := Joinable(h, f, now)
		if (err == nil) != (c.want == "") || err != nil && (CodeOf(err) != Refused || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestCredential: one at a time, and its issue and its end are evidence, with no secret in it.
func TestCredential(t *testing.T) {
	h, now := joiner()
	token := Token{ID: "ghijkl", Secret: "0123456789abcdef", Expires: now.Add(10 * time.Minute), Host: h.ID, Run: "r-1"}
	if _, _, err := Issue(h, token, now); CodeOf(err) != Conflict {
		t.Errorf("a second live credential: %v", err)
	}
	if _, _, news := EndCredential(h, "zzzzzz", "x", now); news {
		t.Error("another credential ends")
	}
	h, e, news := EndCredential(h, "abcdef", "it expired", now)
	if !news || e.Kind != KindEnded || h.Join.Live() || e.Name != "abcdef" {
		t.Errorf("%v %+v", news, e)
	}
	if _, _, news := EndCredential(h, "abcdef", "x", now); news {
		t.Error("it ends twice")
	}
	h, e, err := Issue(h, token, now)
	if err != nil || e.Kind != KindIssued || !e.Expires.Equal(token.Expires) || h.Join.Token != "ghijkl" || h.Join.Node != "node-a" || !h.Join.Pending() {
		t.Fatalf("%v %+v %+v", err, e, h.Join)
	}
	if text := jsonOf(t, h) + jsonOf(t, e); strings.Contains(text, token.Secret) {
		t.Errorf("the secret is on record: %s", text)
	}
	h, e, news = Spend(h, NodeRequest{Name: "csr-1", UID: "u", CommonName: "system:node:node-a"}, now)
	if !news || e.Kind != KindCluster || h.Join.Spent != "u" {
		t.Errorf("%v %+v", news, e)
	}
	if again, _, news := Spend(h, NodeRequest{UID: "v"}, now); news || again.Join.Spent != "u" {
		t.Error("it is spent twice")
	}
	if _, _, news := Mark(h, false, "x", now); news {
		t.Error("a Node is labelled before its machine joined")
	}
	h, e, _, err = Apply(h, Report{Run: "r-1", Stage: StageJoined, Seq: 1, Status: StatusOK, Message: "in, by ghijkl.0123456789abcdef"}, now)
	if err != nil || e.Kind != KindInstalled || h.State != StateInstalled || !h.Run.Succeeded() || h.Join.Joined.IsZero() || strings.Contains(e.Message, token.Secret) {
		t.Fatalf("%v %+v %+v", err, e, h)
	}
	h, _, _ = EndCredential(h, "ghijkl", "joined", now)
	if !h.Join.Pending() {
		t.Error("the Node is not labelled, and nothing is left to do")
	}
	h, e, news = Mark(h, true, "another machine", now)
	if !news || e.Kind != KindAlarm || h.Join.Pending() {
		t.Errorf("%v %+v", news, e)
	}
}

// TestReadyWithACluster: the run goes on until the machine is in its cluster, and no longer.
func TestReadyWithACluster(t *testing.T) {
	now := armedAt.Add(time.Hour)
	h := running(t, StageFirstBoot)
	if _, _, _, err := Apply(h, Report{Run: "r-1", Stage: StageJoined, Seq: 1, Status: StatusOK}, now); CodeOf(err) != Refused {
		t.Errorf("a run without a cluster: %v", err)
	}
	h.Run.Cluster = "prod"
	if _, _, _, err := Apply(h, Report{Run: "r-1", Stage: StageJoined, Seq: 1, Status: StatusOK}, now); CodeOf(err) != Refused {
		t.Errorf("joined before it is ready: %v", err)
	}
	h = applied(t, h, Report{Run: "r-1", Stage: StageReady, Seq: 1, Status: StatusOK}, now)
	if h.State != StateProvisioning || !h.Run.Open || h.Run.Stage != StageReady {
		t.Fatalf("%s, %+v", h.State, h.Run)
	}
	failed := applied(t, h, Report{Run: "r-1", Stage: StageJoined, Seq: 1, Status: StatusFailed, Message: "no kubeadm"}, now)
	if failed.State != StateFailed || failed.Run.Succeeded() || !strings.Contains(failed.Note, "at joined: no kubeadm") {
		t.Errorf("%s, %+v", failed.State, failed.Run)
	}
	joined := applied(t, h, Report{Run: "r-1", Stage: StageJoined, Seq: 1, Status: StatusOK}, now)
	if joined.State != StateInstalled || joined.Run.Outcome != "joined" {
		t.Errorf("%s, %+v", joined.State, joined.Run)
	}
	for _, s := range []Stage{StageReady, StageJoined} { // first boot starts over after a power cut
		if _, _, news, err := Apply(joined, Report{Run: "r-1", Stage: s, Seq: 1, Status: StatusOK}, now); news || err != nil {
			t.Errorf("%s again: %v, %v", s, news, err)
		}
	}
	if _, _, _, err := Apply(joined, Report{Run: "r-1", Stage: StageJoined, Seq: 1, Status: StatusFailed}, now); CodeOf(err) != Refused {
		t.Errorf("the opposite: %v", err)
	}
}

// TestMarks: what a label cannot hold is in an annotation only.
func TestMarks(t *testing.T) {
	h, _ := joiner()
	h.Labels = map[string]string{"example.org/pool": "gpu", "note": "not asked for", "example.org/bad": "a b"}
	m := h.Marks([]string{"example.org/pool", "example.org/bad", "example.org/absent"})
	if want := map[string]string{"node-restriction.kubernetes.io/inventory-uuid": string(h.Identity.UUID), "node-restriction.kubernetes.io/rack": "R7", "example.org/pool": "gpu"}; !maps.Equal(m.Labels, want) {
		t.Errorf("%v", m.Labels)
	}
	if keys := slices.Sorted(maps.Keys(m.Annotations)); m.Annotations["bootlane/asset"] != "A 1" || len(keys) != 6 {
		t.Errorf("%v", m.Annotations)
	}
}

func TestWithoutTokens(t *testing.T) {
	for in, want := range map[string]string{"token abcdef.0123456789abcdef is bad": "token TOKEN is bad", "K10ab::abcdef.0123456789abcdef": "K10ab::TOKEN", "10.0.0.1 is up": "10.0.0.1 is up", "xabcdef.0123456789abcdef": "xabcdef.0123456789abcdef"} {
		if got := WithoutTokens(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}
