package join

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"regexp"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// The groups that a token's bearer is in besides system:bootstrappers. Ours has no right to a
// certificate by itself: every request waits for Bootlane. k3s admits by the second, and k0s
// lets all of system:bootstrappers in.
const (
	GroupKubeadm = "system:bootstrappers:bootlane:node"
	GroupK3s     = "system:bootstrappers:k3s:default-node-token"
)

const (
	secretNamespace = "kube-system"
	secretType      = "bootstrap.kubernetes.io/token"
	secretPrefix    = "bootstrap-token-"
)

var tokenForm = regexp.MustCompile(`\A[a-z0-9]{6}\.[a-z0-9]{16}\z`)

// group returns the extra group of a distribution's tokens, or nothing.
func group(distribution string) string {
	switch distribution {
	case lane.DistributionKubeadm:
		return GroupKubeadm
	case lane.DistributionK3s:
		return GroupK3s
	}
	return ""
}

// object is any object of Kubernetes, as far as it is written.
type object = map[string]any

// secret is the Secret that makes a bootstrap token. The API takes a malformed one without a
// word, and nobody can ever use it: so the form is looked at here.
func secret(distribution string, t lane.Token) (object, error) {
	if !tokenForm.MatchString(t.ID + "." + t.Secret) {
		return nil, lane.Errorf(lane.Invalid, "a bootstrap token is six and sixteen of a-z and 0-9")
	}
	data := map[string][]byte{
		"token-id": []byte(t.ID), "token-secret": []byte(t.Secret),
		// Whole seconds, and Z: 20 characters, by which the admission policy knows that it is one.
		"expiration":                     []byte(t.Expires.UTC().Format(time.RFC3339)),
		"description":                    fmt.Appendf(nil, "Bootlane: host %s, run %s", t.Host, t.Run),
		"usage-bootstrap-authentication": []byte("true"),
	}
	if distribution != lane.DistributionK0s {
		data["usage-bootstrap-signing"] = []byte("true") // without it cluster-info is not signed, and kubeadm finds no cluster
	}
	if g := group(distribution); g != "" {
		data["auth-extra-groups"] = []byte(g)
	}
	return object{"apiVersion": "v1", "kind": "Secret", "type": secretType, "data": data,
		"metadata": object{"name": secretPrefix + t.ID, "namespace": secretNamespace}}, nil
}

// certificates reads the certificates of a PEM file.
func certificates(data []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse a certificate: %w", err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("there is no certificate (PEM) in it")
	}
	return out, nil
}

// pins returns what kubeadm compares a cluster's CA with: the SHA-256 of its public key, not
// of the certificate (RFC 7469 calls it SPKI).
func pins(ca []byte) ([]string, error) {
	list, err := certificates(ca)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, c := range list {
		sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
		out = append(out, "sha256:"+hex.EncodeToString(sum[:]))
	}
	return out, nil
}

// quote writes a text as JSON does, which every YAML reader takes for a text too.
func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil { // no text of Go's fails
		return `""`
	}
	return string(b)
}

// joinConfiguration is kubeadm's, in its form of v1beta4. The labels are not in it: a kubelet
// may not set those that somebody can rely on, Bootlane does.
func joinConfiguration(endpoint, node, token string, caPins []string) string {
	quoted := make([]string, len(caPins))
	for i, p := range caPins {
		quoted[i] = quote(p)
	}
	return fmt.Sprintf(`apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
nodeRegistration:
  name: %s
discovery:
  bootstrapToken:
    apiServerEndpoint: %s
    token: %s
    caCertHashes: [%s]
timeouts:
  discovery: 5m0s
  tlsBootstrap: 5m0s
`, quote(node), quote(endpoint), quote(token), strings.Join(quoted, ", "))
}

// k0sToken is the join token of a k0s worker: a kubeconfig, gzipped, in base64. k0s looks at
// the name of its user.
func k0sToken(endpoint, token string, ca []byte) (string, error) {
	kubeconfig := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: k0s
  cluster:
    server: %s
    certificate-authority-data: %s
contexts:
- name: k0s
  context:
    cluster: k0s
    user: kubelet-bootstrap
current-context: k0s
users:
- name: kubelet-bootstrap
  user:
    token: %s
`, quote("https://"+endpoint), base64.StdEncoding.EncodeToString(ca), quote(token))
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return "", fmt.Errorf("make a k0s token: %w", err)
	}
	if _, err := z.Write([]byte(kubeconfig)); err != nil {
		return "", fmt.Errorf("make a k0s token: %w", err)
	}
	if err := z.Close(); err != nil {
		return "", fmt.Errorf("make a k0s token: %w", err)
	}
	return base64.StdEncoding.EncodeToString(b.Bytes()), nil
}

// k3sToken is the token of a k3s agent. The hash is of the bytes that the server gives as
// /cacerts, where they are one certificate, and else of the root's.
func k3sToken(token string, ca []byte) (string, error) {
	list, err := certificates(ca)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(ca)
	if len(list) > 1 {
		root := list[len(list)-1]
		for _, c := range list {
			if bytes.Equal(c.RawIssuer, c.RawSubject) {
				root = c
			}
		}
		sum = sha256.Sum256(root.Raw)
	}
	return "K10" + hex.EncodeToString(sum[:]) + "::" + token, nil
}

// k3sConfig is /etc/rancher/k3s/config.yaml of an agent.
func k3sConfig(endpoint, node, tokenFile string) string {
	return fmt.Sprintf("server: %s\ntoken-file: %s\nnode-name: %s\n", quote("https://"+endpoint), quote(tokenFile), quote(node))
}
