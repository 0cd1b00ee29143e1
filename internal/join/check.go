package join

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// right is what one may do, or must not.
type right struct {
	may                                   bool
	verb, group, resource, namespace, sub string
	name                                  string
}

func (r right) String() string {
	s := r.verb + " " + r.resource
	if r.sub != "" {
		s += "/" + r.sub
	}
	if r.name != "" {
		s += " " + r.name
	}
	if r.namespace != "" {
		s += " in " + r.namespace
	}
	if r.may {
		return "Bootlane may " + s
	}
	return "Bootlane must not " + s
}

// rights lists what is asked of the API server. What must not be is what would matter most if
// somebody had given more than the manifests do.
func (c *Cluster) rights() []right {
	const certs = "certificates.k8s.io"
	out := []right{
		{may: true, verb: "create", resource: "secrets", namespace: secretNamespace},
		{may: true, verb: "delete", resource: "secrets", namespace: secretNamespace},
		{may: true, verb: "get", resource: "nodes"},
		{may: true, verb: "patch", resource: "nodes"},
		{may: true, verb: "delete", resource: "nodes"},
		{verb: "get", resource: "secrets", namespace: secretNamespace},
		{verb: "list", resource: "secrets", namespace: secretNamespace},
		{verb: "update", resource: "secrets", namespace: secretNamespace},
		{verb: "create", resource: "secrets", namespace: "default"},
		{verb: "create", resource: "pods", namespace: "default"},
		{verb: "create", resource: "nodes"},
		{verb: "create", group: "rbac.authorization.k8s.io", resource: "clusterrolebindings"},
		{verb: "impersonate", resource: "users"},
		{verb: "approve", group: certs, resource: "signers", name: "kubernetes.io/kube-apiserver-client"},
	}
	return append(out,
		right{may: c.Signs(), verb: "list", group: certs, resource: "certificatesigningrequests"},
		right{may: c.Signs(), verb: "update", group: certs, resource: "certificatesigningrequests", sub: "approval"},
		right{may: c.Signs(), verb: "approve", group: certs, resource: "signers", name: lane.CSRSigner})
}

// Check asks the cluster who we are, what we may do and must not, and whether the admission
// policy is in force. It changes nothing: what must be refused is tried without effect (dry run).
func (c *Cluster) Check(ctx context.Context, now time.Time) (lane.ClusterCheck, error) {
	out := lane.ClusterCheck{ClusterStatus: c.Status()}
	var err error
	if out.Version, err = c.Version(ctx); err != nil {
		return out, err
	}
	found := func(ok bool, what, got string) {
		out.Findings = append(out.Findings, lane.ClusterFinding{OK: ok, What: what, Got: lane.Clean(got, 500)})
	}
	who, err := whoAmI(ctx, c.api)
	if err != nil {
		return out, err
	}
	found(who.name == c.cfg.User && !slices.Contains(who.groups, "system:masters"), "Bootlane is the user "+c.cfg.User+", and no administrator", who.name+" of "+strings.Join(who.groups, ", "))
	for _, r := range c.rights() {
		allowed, err := c.allowed(ctx, r)
		if err != nil {
			return out, err
		}
		found(allowed == r.may, r.String(), map[bool]string{true: "allowed", false: "not allowed"}[allowed])
	}
	if err := c.checkPolicy(ctx, now, found); err != nil {
		return out, err
	}
	return out, c.checkEndpoint(ctx, found)
}

// Version returns the version of the cluster's API server, as v1.35.0.
func (c *Cluster) Version(ctx context.Context) (string, error) {
	var version struct {
		GitVersion string `json:"gitVersion"`
	}
	err := c.api.call(ctx, "ask for the version", http.MethodGet, "/version", nil, &version)
	return lane.Clean(version.GitVersion, 60), err
}

func (c *Cluster) allowed(ctx context.Context, r right) (bool, error) {
	in := object{"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": object{"resourceAttributes": object{
		"verb": r.verb, "group": r.group, "resource": r.resource, "subresource": r.sub, "namespace": r.namespace, "name": r.name}}}
	var o struct{ Status struct{ Allowed bool } }
	err := c.api.call(ctx, "ask what we may do", http.MethodPost, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", in, &o)
	return o.Status.Allowed, err
}

// checkPolicy tries a good credential and some that the policy must refuse, all without effect.
func (c *Cluster) checkPolicy(ctx context.Context, now time.Time, found func(ok bool, what, got string)) error {
	good := func() object {
		s, err := secret(c.cfg.Distribution, lane.Token{ID: "bootla", Secret: "0000000000000000", Expires: now.Add(c.cfg.TokenTTL)})
		if err != nil { // the token is one
			return object{}
		}
		return s
	}
	data := func(s object) map[string][]byte { d, _ := s["data"].(map[string][]byte); return d }
	for _, try := range []struct {
		what string
		ok   bool
		edit func(object)
	}{
		{"a join credential can be made", true, func(object) {}},
		{"the policy refuses a credential that never expires", false, func(s object) { delete(data(s), "expiration") }},
		{"the policy refuses a credential of another group", false, func(s object) {
			data(s)["auth-extra-groups"] = []byte("system:bootstrappers:kubeadm:default-node-token")
		}},
		{"the policy refuses any other Secret", false, func(s object) { s["type"] = "Opaque" }},
		{"the policy refuses any other name", false, func(s object) { s["metadata"] = object{"name": "bootlane-check", "namespace": secretNamespace} }},
	} {
		s := good()
		try.edit(s)
		err := c.api.call(ctx, "try a Secret", http.MethodPost, secretsPath+"?dryRun=All", s, nil)
		switch {
		case err == nil:
			found(try.ok, try.what, "taken")
		case lane.CodeOf(err) == lane.Unavailable:
			return err
		default:
			found(!try.ok && errors.Is(err, errPolicy), try.what, err.Error())
		}
	}
	return nil
}

// checkEndpoint looks at the address that machines are sent to: it must be of the CA that they
// are told, and of k3s the CA must be the very bytes that it gives.
func (c *Cluster) checkEndpoint(ctx context.Context, found func(ok bool, what, got string)) error {
	path := "/version"
	if c.cfg.Distribution == lane.DistributionK3s {
		path = "/cacerts"
	}
	status, body, err := c.node.do(ctx, http.MethodGet, path, nil)
	what := fmt.Sprintf("machines reach the API server at %s, with a certificate of the CA %s", c.cfg.Endpoint, strings.Join(c.pins, " "))
	if err != nil {
		found(false, what, c.node.failed("reach it", err).Error())
		return nil
	}
	found(true, what, fmt.Sprint(status))
	if c.cfg.Distribution == lane.DistributionK3s {
		found(bytes.Equal(body, c.ca), "the CA file is what the server gives as /cacerts, byte for byte", fmt.Sprintf("%d bytes, the file has %d", len(body), len(c.ca)))
	}
	return nil
}
