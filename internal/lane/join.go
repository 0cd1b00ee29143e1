package lane

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The distributions of Kubernetes whose clusters hosts can join.
const (
	DistributionKubeadm = "kubeadm"
	DistributionK0s     = "k0s"
	DistributionK3s     = "k3s"
)

// Distributions returns every distribution.
func Distributions() []string {
	return []string{DistributionKubeadm, DistributionK0s, DistributionK3s}
}

// Bounds of how long a join credential opens a cluster.
const (
	DefaultTokenTTL = 15 * time.Minute
	MaxTokenTTL     = 30 * time.Minute
)

// Join is what is on record of a host's way into its cluster: the credential that was issued
// last, of which only the public half is kept, and what became of it.
type Join struct {
	Run     RunID     `json:"run"` // for which it was issued
	Cluster string    `json:"cluster"`
	Node    string    `json:"node"`  // the one name that it is for
	Token   string    `json:"token"` // public id of the bootstrap token
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
	Spent   string    `json:"spent,omitempty"` // UID of the one request for a certificate that was approved for it
	Ended   time.Time `json:"ended,omitzero"`  // when it was made sure that it opens nothing any more
	Joined  time.Time `json:"joined,omitzero"` // when the machine reported so
	Marked  time.Time `json:"marked,omitzero"` // when its Node was labelled, or that was given up
}

// Live reports whether nobody has yet made sure that the credential opens nothing any more.
func (j *Join) Live() bool { return j != nil && j.Token != "" && j.Ended.IsZero() }

// Pending reports whether the server has something left to do in the cluster.
func (j *Join) Pending() bool { return j.Live() || j != nil && !j.Joined.IsZero() && j.Marked.IsZero() }

func (j *Join) clone() *Join {
	if j == nil {
		return nil
	}
	own := *j
	return &own
}

// Token is a bootstrap token of Kubernetes, with its secret half: it is in no record, no
// event and no answer to an operator.
type Token struct {
	ID      string // six of a-z and 0-9
	Secret  string // sixteen
	Expires time.Time
	Host    HostID
	Run     RunID
}

// tokenText is a bootstrap token wherever it stands in a text.
var tokenText = regexp.MustCompile(`\b[a-z0-9]{6}\.[a-z0-9]{16}\b`)

// WithoutTokens returns a text that a machine sent, without any bootstrap token in it.
func WithoutTokens(s string) string { return tokenText.ReplaceAllString(s, "TOKEN") }

// ClusterNode is a Node object of a cluster.
type ClusterNode struct {
	Name       string
	UID        string // of the object: another one of that name has another
	SystemUUID string // of the machine, as its kubelet reads it from SMBIOS
	Ready      bool
	Created    time.Time
}

// NodeMarks is what is set on a Node with the server's authority.
type NodeMarks struct {
	Labels      map[string]string
	Annotations map[string]string
}

// CSRSigner signs the client certificates of kubelets.
const CSRSigner = "kubernetes.io/kube-apiserver-client-kubelet"

// NodeRequest is a CertificateSigningRequest that nobody has decided on yet.
type NodeRequest struct {
	Name          string
	UID           string
	Signer        string
	Username      string // who asks, as the API server knows it
	Usages        []string
	CommonName    string
	Organizations []string
	Names         int    // DNS names, addresses, e-mail addresses and URIs in it
	Broken        string // why the request in it cannot be read, or nothing
}

// TokenID returns the id of the bootstrap token that asks, or nothing.
func (r NodeRequest) TokenID() string {
	id, ok := strings.CutPrefix(r.Username, "system:bootstrap:")
	if !ok {
		return ""
	}
	return id
}

// NodeName returns the name of a host's Node: the first label of its host name. Nothing else
// is unique among all records.
func (h Host) NodeName() string {
	name, _, _ := strings.Cut(h.Hostname, ".")
	return name
}

// RefuseNode says why a request is not approved for the host whose token asks, or nothing:
// then it is for exactly the client certificate of this host's kubelet.
func RefuseNode(h Host, r NodeRequest, now time.Time) string {
	want := "system:node:" + h.NodeName()
	client := []string{"client auth", "digital signature"}
	usages := slices.Sorted(slices.Values(slices.DeleteFunc(slices.Clone(r.Usages), func(u string) bool { return u == "key encipherment" }))) // of RSA keys only
	switch {
	case !h.Join.Live() || h.Join.Token != r.TokenID():
		return "no credential of " + string(h.ID) + " asks"
	case CredentialOver(h, now) != "":
		return "the credential is over: " + CredentialOver(h, now)
	case h.Join.Spent != "" && h.Join.Spent != r.UID:
		return "the credential has had its one certificate: somebody else has it, or the machine started over without asking for another"
	case r.Signer != CSRSigner:
		return fmt.Sprintf("it is for the signer %s, not for %s", r.Signer, CSRSigner)
	case r.Broken != "":
		return "it cannot be read: " + r.Broken
	case r.CommonName != want:
		return fmt.Sprintf("it is for %q, and the credential is for %q alone", r.CommonName, want)
	case !slices.Equal(r.Organizations, []string{"system:nodes"}):
		return fmt.Sprintf("it is for the groups %q, not for system:nodes alone", r.Organizations)
	case r.Names > 0:
		return "it is for further names or addresses, and a client has none"
	case !slices.Equal(usages, client):
		return fmt.Sprintf("it is for the usages %q, not for those of a client", r.Usages)
	}
	return ""
}

// CredentialOver says why a host's live credential must not open anything any more, or nothing.
func CredentialOver(h Host, now time.Time) string {
	switch j := h.Join; {
	case j == nil || j.Run != h.Run.ID:
		return "its run is over"
	case h.State == StateQuarantine:
		return "the host is in quarantine"
	case h.State == StateRetired:
		return "the host is retired"
	case !h.Run.Open:
		return "its run ended: " + h.Run.Outcome
	case !now.Before(h.Run.Deadline):
		return "the deadline of its run passed"
	case !now.Before(j.Expires):
		return "it expired"
	}
	return ""
}

// Joinable says why a machine may not be given what leads into its cluster, as a Refused
// error: only the machine of an open run, once its first boot has proven itself.
func Joinable(h Host, f Facts, now time.Time) error {
	switch {
	case h.Run.Cluster == "":
		return Errorf(Refused, "the run %s joins no cluster", h.Run.ID)
	case h.State != StateProvisioning:
		return Errorf(Refused, "%s is %s", h.ID, h.State)
	case !h.Run.Open || !now.Before(h.Run.Deadline):
		return Errorf(Refused, "the run %s is over: %s", h.Run.ID, cmp.Or(h.Run.Outcome, "its deadline passed"))
	case !h.Run.Delivered.IsZero():
		return Errorf(Refused, "the machine of %s has its credentials in its configuration of Talos", h.ID)
	case !h.Run.Stage.AtLeast(StageReady):
		return Errorf(Refused, "the machine has not proven itself: its run is at %s, and the join follows %s", h.Run.Stage, StageReady)
	case h.Identity.UUID != "" && f.UUID == "", len(h.Identity.MACs) > 0 && len(f.AllMACs()) == 0:
		return Errorf(Refused, "%s: the machine must say its UUID and the MAC of a NIC, as far as its record has them", IdentityMissing)
	}
	return nil
}

// Issue notes that a host's machine is about to be given a credential. The one before it must
// have ended.
func Issue(h Host, t Token, now time.Time) (Host, Event, error) {
	h, err := h.begin(VerbAdvance)
	if err != nil {
		return Host{}, Event{}, err
	}
	if h.Join.Live() {
		return Host{}, Event{}, Errorf(Conflict, "the credential %s of %s has not ended", h.Join.Token, h.ID)
	}
	h.Join = &Join{Run: h.Run.ID, Cluster: h.Run.Cluster, Node: h.NodeName(), Token: t.ID, Issued: now, Expires: t.Expires}
	e := h.event(KindIssued, "server", now, "join credential %s for the node %s of the cluster %s, until %s", t.ID, h.Join.Node, h.Join.Cluster, stamp(t.Expires))
	e.Name, e.Expires = t.ID, t.Expires
	return h, e, nil
}

// Spend notes that a request is about to be approved: a credential is good for one certificate.
// It reports false when that is on record already.
func Spend(h Host, r NodeRequest, now time.Time) (Host, Event, bool) {
	if !h.Join.Live() || h.Join.Spent != "" {
		return h, Event{}, false
	}
	h.Join = h.Join.clone()
	h.Join.Spent = r.UID
	e := h.event(KindCluster, "server", now, "the certificate request %s of %s is approved", r.Name, r.CommonName)
	e.Name = r.Name
	return h, e, true
}

// EndCredential notes that a host's credential opens nothing any more. It reports false when
// that is on record already.
func EndCredential(h Host, token, why string, now time.Time) (Host, Event, bool) {
	if !h.Join.Live() || h.Join.Token != token {
		return h, Event{}, false
	}
	h.Join = h.Join.clone()
	h.Join.Ended = now
	e := h.event(KindEnded, "server", now, "join credential %s of the cluster %s ended: %s", token, h.Join.Cluster, why)
	e.Name, e.Expires, e.Run = token, h.Join.Expires, h.Join.Run
	return h, e, true
}

// Mark notes that the Node of a host has been labelled, or that this was given up. alarm says
// that somebody must look.
func Mark(h Host, alarm bool, message string, now time.Time) (Host, Event, bool) {
	if h.Join == nil || h.Join.Joined.IsZero() || !h.Join.Marked.IsZero() {
		return h, Event{}, false
	}
	h.Join = h.Join.clone()
	h.Join.Marked = now
	kind := KindCluster
	if alarm {
		kind = KindAlarm
	}
	e := h.event(kind, "server", now, "%s", message)
	e.Name, e.Run = h.Join.Node, h.Join.Run
	return h, e, true
}

// InCluster is evidence of something that the server did, or found, in a host's cluster.
func (h Host) InCluster(kind Kind, name, message string, now time.Time) Event {
	e := h.event(kind, "server", now, "%s", message)
	e.Name, e.Surface = name, SurfaceSelf
	return e
}

// Keys of what is set on Nodes. Kubelets may not set what begins with the first prefix
// (NodeRestriction), and may set the second: annotations say nothing that access may rest on.
const (
	labelPrefix      = "node-restriction.kubernetes.io/"
	annotationPrefix = "bootlane/"
)

var (
	labelValue = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$`)
	labelName  = regexp.MustCompile(`^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$`)
)

// LabelKey reports whether s can be the key of a label of Kubernetes.
func LabelKey(s string) bool { return labelName.MatchString(s) }

// Marks returns what is set on the host's Node: the inventory UUID, asset tag and rack as
// labels where a label can hold them, as text in annotations, and those of its own labels that
// keys name.
func (h Host) Marks(keys []string) NodeMarks {
	m := NodeMarks{Labels: map[string]string{}, Annotations: map[string]string{annotationPrefix + "host": string(h.ID), annotationPrefix + "run": string(h.Run.ID), annotationPrefix + "bundle": h.Run.BundleName}}
	for _, f := range []struct{ name, value string }{{"inventory-uuid", string(h.Identity.UUID)}, {"asset", h.Identity.AssetTag}, {"rack", h.Identity.Rack}, {"unit", h.Identity.Unit}} {
		if f.value == "" {
			continue
		}
		m.Annotations[annotationPrefix+f.name] = f.value
		if labelValue.MatchString(f.value) {
			m.Labels[labelPrefix+f.name] = f.value
		}
	}
	for _, k := range keys {
		if v, ok := h.Labels[k]; ok && (v == "" || labelValue.MatchString(v)) {
			m.Labels[k] = v
		}
	}
	return m
}

// ClusterStatus is a cluster of the configuration, as operators see it.
type ClusterStatus struct {
	Name         string        `json:"name"`
	Distribution string        `json:"distribution"`
	Endpoint     string        `json:"endpoint"` // HOST:PORT
	CAPin        string        `json:"caPin"`    // sha256: and the digest of the CA's public key
	TokenTTL     time.Duration `json:"tokenTTL"`
	User         string        `json:"user"` // under which Bootlane is known there
}

// ClusterCheck is what a cluster said about the credentials that Bootlane has there.
type ClusterCheck struct {
	ClusterStatus
	Version  string           `json:"version"`
	Findings []ClusterFinding `json:"findings"`
}

// ClusterFinding is one thing that was asked of a cluster.
type ClusterFinding struct {
	OK   bool   `json:"ok"`
	What string `json:"what"` // what must be so
	Got  string `json:"got,omitempty"`
}
