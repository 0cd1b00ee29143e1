package join

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// Config is one cluster of the configuration.
type Config struct {
	Name         string
	Distribution string        // one of lane.Distributions
	Endpoint     string        // HOST:PORT of the API server, as machines reach it
	Kubeconfig   string        // file with the credentials of Bootlane
	CA           string        // file with the cluster's CA (PEM); empty: that of the kubeconfig
	TokenTTL     time.Duration // of a credential
	User         string        // under which the API server knows Bootlane's credentials
	Labels       []string      // keys of hosts' own labels that are set on their Nodes
}

var userForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:._@/-]{0,200}$`)

// Problems says what is wrong with the configuration, without opening any file.
func (c Config) Problems() (out []lane.Problem) {
	bad := func(field, format string, args ...any) {
		out = append(out, lane.Problem{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	if !slices.Contains(lane.Distributions(), c.Distribution) {
		bad("distribution", "%q: use %s", c.Distribution, strings.Join(lane.Distributions(), ", "))
	}
	host, port, err := net.SplitHostPort(c.Endpoint)
	if n, bad2 := strconv.Atoi(port); err != nil || host == "" || bad2 != nil || n < 1 || n > 65535 || (net.ParseIP(host) == nil && !lane.DomainName(host)) {
		bad("apiServerEndpoint", "%q is not HOST:PORT of the API server, without https://, as the machines reach it", c.Endpoint)
	}
	if c.Kubeconfig == "" {
		bad("kubeconfig", "is missing: a file with the credentials that Bootlane has in the cluster; docs/join.md says how to make them")
	}
	if c.TokenTTL < time.Minute || c.TokenTTL > lane.MaxTokenTTL {
		bad("tokenTTL", "%s: from 1m to %s", c.TokenTTL, lane.MaxTokenTTL)
	}
	if !userForm.MatchString(c.User) {
		bad("user", "%q is not the name of a user of Kubernetes", c.User)
	}
	for i, k := range c.Labels {
		if !lane.LabelKey(k) {
			bad(fmt.Sprintf("labels[%d]", i), "%q is not the key of a label: an optional domain and a slash, and at most 63 letters, digits, and inner - _ .", k)
		}
	}
	return out
}

// Files says what is wrong with the files that the configuration names, on this machine.
func (c Config) Files() (out []lane.Problem) {
	if c.Kubeconfig == "" {
		return nil // Problems says so
	}
	k, err := readKubeconfig(c.Kubeconfig)
	if err != nil {
		return []lane.Problem{{Field: "kubeconfig", Message: err.Error()}}
	}
	if st, err := os.Stat(c.Kubeconfig); err == nil && st.Mode().Perm()&0o077 != 0 {
		out = append(out, lane.Problem{Field: "kubeconfig", Message: c.Kubeconfig + " can be read by others: chmod 600"})
	}
	if _, field, err := c.authority(k); err != nil {
		out = append(out, lane.Problem{Field: field, Message: err.Error()})
	}
	return out
}

// authority returns the cluster's CA, and the key of the configuration that it comes from.
func (c Config) authority(k kubeconfig) (ca []byte, field string, err error) {
	ca, field = k.ca, "kubeconfig"
	if c.CA != "" {
		field = "ca"
		if ca, err = os.ReadFile(c.CA); err != nil {
			return nil, field, err
		}
	}
	if len(ca) == 0 {
		return nil, field, fmt.Errorf("it names no certificate authority: give certificate-authority-data there, or `ca`")
	}
	if _, err := certificates(ca); err != nil {
		return nil, field, fmt.Errorf("the certificate authority: %w", err)
	}
	return ca, field, nil
}

// Cluster is a cluster, as far as Bootlane has to do with it.
type Cluster struct {
	cfg  Config
	ca   []byte
	pins []string
	api  *api // by the kubeconfig's server, with Bootlane's credentials
	node *api // by the endpoint that machines use, without any
}

// Open reads the files of a cluster. Nobody is asked anything yet.
func Open(cfg Config) (*Cluster, error) {
	k, err := readKubeconfig(cfg.Kubeconfig)
	if err != nil {
		return nil, &lane.Error{Code: lane.Invalid, Message: "read the kubeconfig of the cluster " + cfg.Name, Err: err}
	}
	c := &Cluster{cfg: cfg}
	if c.ca, _, err = cfg.authority(k); err == nil {
		c.pins, err = pins(c.ca)
	}
	trusted := k.ca
	if len(trusted) == 0 {
		trusted = c.ca
	}
	if err == nil {
		c.api, err = newAPI(cfg.Name, k.server, k.name, trusted, func() (kubeconfig, error) { return readKubeconfig(cfg.Kubeconfig) })
	}
	if err == nil {
		c.node, err = newAPI(cfg.Name, "https://"+cfg.Endpoint, "", c.ca, nil)
	}
	if err != nil {
		return nil, &lane.Error{Code: lane.Invalid, Message: "use the certificate authority of the cluster " + cfg.Name, Err: err}
	}
	return c, nil
}

// TokenTTL returns how long a credential opens the cluster.
func (c *Cluster) TokenTTL() time.Duration { return c.cfg.TokenTTL }

// Labels returns the keys of hosts' own labels that are set on their Nodes.
func (c *Cluster) Labels() []string { return c.cfg.Labels }

// Signs reports whether certificates of kubelets wait for Bootlane: k0s and k3s give them out
// themselves.
func (c *Cluster) Signs() bool { return c.cfg.Distribution == lane.DistributionKubeadm }

// Status tells people which cluster this is.
func (c *Cluster) Status() lane.ClusterStatus {
	return lane.ClusterStatus{Name: c.cfg.Name, Distribution: c.cfg.Distribution, Endpoint: c.cfg.Endpoint, CAPin: strings.Join(c.pins, " "), TokenTTL: c.cfg.TokenTTL, User: c.cfg.User}
}

// CA returns the certificates of the cluster's authority, PEM, without what stands between them.
func (c *Cluster) CA() string {
	var out []byte
	for block, rest := pem.Decode(c.ca); block != nil; block, rest = pem.Decode(rest) {
		block.Headers = nil
		out = append(out, pem.EncodeToMemory(block)...)
	}
	return string(out)
}

// Mint makes a credential, and returns when the cluster knows it. One that it does not come to
// know is taken back: it would only fail later, on the machine.
func (c *Cluster) Mint(ctx context.Context, t lane.Token) error {
	s, err := secret(c.cfg.Distribution, t)
	if err != nil {
		return err
	}
	what := "make the join credential " + t.ID
	if err := c.api.call(ctx, what, http.MethodPost, secretsPath, s, nil); err != nil {
		return err
	}
	wait := time.NewTicker(200 * time.Millisecond)
	defer wait.Stop()
	// By the address that Bootlane is known at: machines may reach the API by another one.
	for tries := 0; ; tries++ {
		me, err := whoAmI(ctx, c.api.as(t.ID+"."+t.Secret, c.anonymous()))
		switch {
		case err == nil && me.name == "system:bootstrap:"+t.ID:
			return nil
		case err == nil:
			err = lane.Errorf(lane.Refused, "the cluster %s takes the join credential %s for %q", c.cfg.Name, t.ID, me.name)
			return errors.Join(err, c.Revoke(context.WithoutCancel(ctx), t.ID))
		case !errors.Is(err, errUnauthorised) || tries >= 25:
			return errors.Join(&lane.Error{Code: lane.Unavailable, Message: what + ", which must work at once: is --enable-bootstrap-token-auth set on the API server, and its clock right?", Err: err}, c.Revoke(context.WithoutCancel(ctx), t.ID))
		}
		select { // the API server hears of the Secret by a watch
		case <-ctx.Done():
			return errors.Join(c.api.failed(what, ctx.Err()), c.Revoke(context.WithoutCancel(ctx), t.ID))
		case <-wait.C:
		}
	}
}

// anonymous returns a client of the API server at Bootlane's own address that shows no certificate.
func (c *Cluster) anonymous() *api {
	t, ok := c.api.http.Transport.(*http.Transport)
	if !ok { // it is made above
		return c.node
	}
	t = t.Clone()
	t.TLSClientConfig.GetClientCertificate = nil
	t.DisableKeepAlives = true
	return &api{cluster: c.cfg.Name, base: c.api.base, http: &http.Client{Transport: t, Timeout: callLimit}, token: func() (string, error) { return "", nil }}
}

const (
	secretsPath  = "/api/v1/namespaces/" + secretNamespace + "/secrets"
	nodesPath    = "/api/v1/nodes/"
	requestsPath = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
)

// Revoke deletes a credential; one that is gone already is no error. The API server may take it
// for up to ten seconds more: that long it remembers whom it let in.
func (c *Cluster) Revoke(ctx context.Context, id string) error {
	err := c.api.call(ctx, "delete the join credential "+id, http.MethodDelete, secretsPath+"/"+secretPrefix+url.PathEscape(id), nil, nil)
	if lane.CodeOf(err) == lane.NotFound {
		return nil
	}
	return err
}

type nodeObject struct {
	Metadata struct {
		Name              string    `json:"name"`
		UID               string    `json:"uid"`
		CreationTimestamp time.Time `json:"creationTimestamp"`
	} `json:"metadata"`
	Status struct {
		NodeInfo struct {
			SystemUUID string `json:"systemUUID"`
		} `json:"nodeInfo"`
		Conditions []struct{ Type, Status string } `json:"conditions"`
	} `json:"status"`
}

// Node returns the Node of a name: NotFound when there is none.
func (c *Cluster) Node(ctx context.Context, name string) (lane.ClusterNode, error) {
	var o nodeObject
	if err := c.api.call(ctx, "look for the node "+name, http.MethodGet, nodesPath+url.PathEscape(name), nil, &o); err != nil {
		return lane.ClusterNode{}, err
	}
	n := lane.ClusterNode{Name: o.Metadata.Name, UID: o.Metadata.UID, SystemUUID: o.Status.NodeInfo.SystemUUID, Created: o.Metadata.CreationTimestamp}
	for _, cond := range o.Status.Conditions {
		n.Ready = n.Ready || cond.Type == "Ready" && cond.Status == "True"
	}
	return n, nil
}

// DeleteNode deletes exactly this Node object. The admission policy refuses one that is Ready.
func (c *Cluster) DeleteNode(ctx context.Context, n lane.ClusterNode) error {
	in := object{"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": object{"uid": n.UID}}
	return c.api.call(ctx, "delete the node "+n.Name, http.MethodDelete, nodesPath+url.PathEscape(n.Name), in, nil)
}

// MarkNode sets labels and annotations on a Node, if it is still this object.
func (c *Cluster) MarkNode(ctx context.Context, n lane.ClusterNode, m lane.NodeMarks) error {
	in := object{"metadata": object{"uid": n.UID, "labels": m.Labels, "annotations": m.Annotations}}
	return c.api.call(ctx, "label the node "+n.Name, http.MethodPatch, nodesPath+url.PathEscape(n.Name), in, nil)
}

type csrObject struct {
	Metadata struct {
		Name string `json:"name"`
		UID  string `json:"uid"`
	} `json:"metadata"`
	Spec struct {
		Request    []byte   `json:"request"`
		SignerName string   `json:"signerName"`
		Username   string   `json:"username"`
		Usages     []string `json:"usages"`
	} `json:"spec"`
	Status struct {
		Conditions []any `json:"conditions"`
	} `json:"status"`
}

func (o csrObject) parse() lane.NodeRequest {
	r := lane.NodeRequest{Name: o.Metadata.Name, UID: o.Metadata.UID, Signer: o.Spec.SignerName, Username: o.Spec.Username, Usages: o.Spec.Usages}
	b, _ := pem.Decode(o.Spec.Request)
	if b == nil || b.Type != "CERTIFICATE REQUEST" {
		r.Broken = "it is no PEM"
		return r
	}
	csr, err := x509.ParseCertificateRequest(b.Bytes)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		r.Broken = lane.Clean(err.Error(), 200)
		return r
	}
	r.CommonName, r.Organizations = csr.Subject.CommonName, csr.Subject.Organization
	r.Names = len(csr.DNSNames) + len(csr.IPAddresses) + len(csr.EmailAddresses) + len(csr.URIs)
	return r
}

// Requests returns the requests for certificates of kubelets that nobody has decided on, and
// that a bootstrap token made.
func (c *Cluster) Requests(ctx context.Context) ([]lane.NodeRequest, error) {
	var out []lane.NodeRequest
	next := ""
	for {
		q := url.Values{"fieldSelector": {"spec.signerName=" + lane.CSRSigner}, "limit": {"500"}}
		if next != "" {
			q.Set("continue", next)
		}
		var list struct {
			Metadata struct{ Continue string }
			Items    []csrObject
		}
		if err := c.api.call(ctx, "list the certificate requests", http.MethodGet, requestsPath+"?"+q.Encode(), nil, &list); err != nil {
			return nil, err
		}
		for _, o := range list.Items {
			if r := o.parse(); len(o.Status.Conditions) == 0 && r.TokenID() != "" {
				out = append(out, r)
			}
		}
		if next = list.Metadata.Continue; next == "" {
			return out, nil
		}
	}
}

// Approve approves exactly the request that was looked at: its spec can never change, and
// another one of its name has another UID.
func (c *Cluster) Approve(ctx context.Context, r lane.NodeRequest, message string) error {
	what, path := "approve the certificate request "+r.Name, requestsPath+"/"+url.PathEscape(r.Name)
	var o object
	if err := c.api.call(ctx, what, http.MethodGet, path, nil, &o); err != nil {
		return err
	}
	if meta, ok := o["metadata"].(object); !ok || meta["uid"] != r.UID {
		return lane.Errorf(lane.Conflict, "%s in the cluster %s: it is another one by now", what, c.cfg.Name)
	}
	status, ok := o["status"].(object)
	if !ok {
		status = object{}
	}
	conditions, _ := status["conditions"].([]any) // none: nobody has decided
	status["conditions"] = append(conditions, object{"type": "Approved", "status": "True", "reason": "BootlaneApproved", "message": message})
	o["status"] = status
	return c.api.call(ctx, what, http.MethodPut, path+"/approval", o, nil)
}

// identity is who the API server takes somebody for.
type identity struct {
	name   string
	groups []string
}

func whoAmI(ctx context.Context, a *api) (identity, error) {
	var o struct {
		Status struct {
			UserInfo struct {
				Username string
				Groups   []string
			} `json:"userInfo"`
		}
	}
	in := json.RawMessage(`{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`)
	err := a.call(ctx, "ask who we are", http.MethodPost, "/apis/authentication.k8s.io/v1/selfsubjectreviews", in, &o)
	return identity{o.Status.UserInfo.Username, o.Status.UserInfo.Groups}, err
}
