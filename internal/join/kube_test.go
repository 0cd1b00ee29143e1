//go:build kube

package join

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"bootlane/internal/lane"
)

// kube is a control plane of Kubernetes on the loopback interface: etcd of Debian, and the
// programs that `make test-kube` built. Its administrator is this test, and nobody else.
type kube struct {
	t        *testing.T
	dir      string
	endpoint string // HOST:PORT
	ca       []byte
	caKey    *ecdsa.PrivateKey
	caCert   *x509.Certificate
	admin    *api
}

// startKube starts the control plane, and ends it with the test.
func startKube(t *testing.T) *kube {
	t.Helper()
	k := &kube{t: t, dir: t.TempDir()}
	programs := os.Getenv("BOOTLANE_KUBE")
	for _, p := range []string{"kube-apiserver", "kube-controller-manager", "kubeadm"} {
		if _, err := os.Stat(filepath.Join(programs, p)); err != nil {
			t.Fatalf("%v: `make test-kube` builds it, and says by BOOTLANE_KUBE where it is", err)
		}
	}
	etcd, err := exec.LookPath("etcd")
	if err != nil {
		t.Fatal("etcd is missing: the Debian package etcd-server has it")
	}
	k.authority()
	ports := freePorts(t, 4)
	k.endpoint = fmt.Sprintf("127.0.0.1:%d", ports[2])
	store := fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	k.run(etcd, "--data-dir", filepath.Join(k.dir, "etcd"), "--unsafe-no-fsync", "--listen-client-urls", store, "--advertise-client-urls", store,
		"--listen-peer-urls", fmt.Sprintf("http://127.0.0.1:%d", ports[1]), "--initial-advertise-peer-urls", fmt.Sprintf("http://127.0.0.1:%d", ports[1]), "--initial-cluster", fmt.Sprintf("default=http://127.0.0.1:%d", ports[1]))
	server := k.pair("apiserver", pkix.Name{CommonName: "kube-apiserver"}, x509.ExtKeyUsageServerAuth)
	account := k.file("sa.key", pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(must(rsa.GenerateKey(rand.Reader, 2048)))))
	k.run(filepath.Join(programs, "kube-apiserver"), "--etcd-servers="+store, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", ports[2]),
		"--tls-cert-file="+server+".crt", "--tls-private-key-file="+server+".key", "--client-ca-file="+filepath.Join(k.dir, "ca.crt"), "--cert-dir="+k.dir,
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--enable-bootstrap-token-auth", "--service-cluster-ip-range=10.96.0.0/16",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+account, "--service-account-signing-key-file="+account, "--endpoint-reconciler-type=none")
	adminFile := k.kubeconfig("admin", pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}})
	k.admin = must(newAPI("test", "https://"+k.endpoint, "", k.ca, func() (kubeconfig, error) { return readKubeconfig(adminFile) }))
	k.eventually("the API server is ready", func() error {
		status, body, err := k.admin.do(k.t.Context(), http.MethodGet, "/readyz", nil)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	})
	manager := k.kubeconfig("kcm", pkix.Name{CommonName: "system:kube-controller-manager"})
	k.run(filepath.Join(programs, "kube-controller-manager"), "--kubeconfig="+manager, "--authentication-kubeconfig="+manager, "--authorization-kubeconfig="+manager, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", ports[3]), "--cert-dir="+k.dir, "--leader-elect=false", "--use-service-account-credentials",
		"--cluster-signing-cert-file="+filepath.Join(k.dir, "ca.crt"), "--cluster-signing-key-file="+filepath.Join(k.dir, "ca.key"), "--root-ca-file="+filepath.Join(k.dir, "ca.crt"), "--service-account-private-key-file="+account,
		"--controllers=bootstrap-signer-controller,token-cleaner-controller,certificatesigningrequest-signing-controller,certificatesigningrequest-approving-controller")
	return k
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (k *kube) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// run starts a program; its log is shown when the test fails.
func (k *kube) run(path string, args ...string) {
	k.t.Helper()
	name := filepath.Base(path)
	log := must(os.Create(filepath.Join(k.dir, name+".log")))
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir, cmd.Env = k.dir, append(os.Environ(), "HOME="+k.dir) // some keep what they found at home, or else where they stand
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	k.must(cmd.Start())
	k.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it ends with its test
		_ = cmd.Wait()
		if text, err := os.ReadFile(log.Name()); k.t.Failed() && err == nil {
			lines := strings.Split(string(text), "\n")
			k.t.Logf("%s:\n%s", name, strings.Join(lines[max(0, len(lines)-25):], "\n"))
		}
	})
}

func (k *kube) eventually(what string, do func() error) {
	k.t.Helper()
	var err error
	for range 600 { // of 0.2 s: a machine that is busy takes its time
		if err = do(); err == nil {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	k.t.Fatalf("%s: %v", what, err)
}

func freePorts(t *testing.T, n int) (out []int) {
	t.Helper()
	for range n {
		l := must(net.Listen("tcp", "127.0.0.1:0"))
		defer func() { _ = l.Close() }()
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func keyPEM(key *ecdsa.PrivateKey) []byte {
	return pemOf("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key)))
}

func (k *kube) file(name string, data []byte) string {
	path := filepath.Join(k.dir, name)
	k.must(os.WriteFile(path, data, 0o600))
	return path
}

func (k *kube) authority() {
	k.caKey = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubernetes"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der := must(x509.CreateCertificate(rand.Reader, ca, ca, k.caKey.Public(), k.caKey))
	k.caCert, k.ca = must(x509.ParseCertificate(der)), pemOf("CERTIFICATE", der)
	k.file("ca.crt", k.ca)
	k.file("ca.key", keyPEM(k.caKey))
}

// pair writes a certificate and its key, and returns their path without the extension.
func (k *kube) pair(name string, subject pkix.Name, usage x509.ExtKeyUsage) string {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(12 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
		DNSNames: []string{"localhost", "kubernetes"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 96, 0, 1)}}
	der := must(x509.CreateCertificate(rand.Reader, c, k.caCert, key.Public(), k.caKey))
	k.file(name+".crt", pemOf("CERTIFICATE", der))
	k.file(name+".key", keyPEM(key))
	return filepath.Join(k.dir, name)
}

// kubeconfig writes one for a user with a client certificate.
func (k *kube) kubeconfig(name string, subject pkix.Name) string {
	pair := k.pair(name, subject, x509.ExtKeyUsageClientAuth)
	return k.file(name+".conf", fmt.Appendf(nil, "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: \"https://%s\", certificate-authority: %s}}]\nusers: [{name: u, user: {client-certificate: %s.crt, client-key: %s.key}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n", k.endpoint, filepath.Join(k.dir, "ca.crt"), pair, pair))
}

// apply creates what stands in a text of several YAML documents, as the administrator.
func (k *kube) apply(text string) {
	k.t.Helper()
	dec := yaml.NewDecoder(strings.NewReader(text))
	for {
		var o object
		if err := dec.Decode(&o); err == io.EOF {
			return
		} else if err != nil {
			k.t.Fatal(err)
		}
		meta := o["metadata"].(object)
		path := "/apis/" + o["apiVersion"].(string)
		if !strings.Contains(o["apiVersion"].(string), "/") {
			path = "/api/" + o["apiVersion"].(string)
		}
		if ns, ok := meta["namespace"].(string); ok {
			path += "/namespaces/" + ns
		}
		kind := strings.ToLower(o["kind"].(string)) + "s"
		kind = strings.ReplaceAll(kind, "policys", "policies")
		k.must(k.admin.call(k.t.Context(), fmt.Sprint("create ", o["kind"], " ", meta["name"]), http.MethodPost, path+"/"+kind, o, nil))
	}
}

// kubeadm runs kubeadm, and returns what it says.
func (k *kube) kubeadm(args ...string) (string, error) {
	cmd := exec.CommandContext(k.t.Context(), filepath.Join(os.Getenv("BOOTLANE_KUBE"), "kubeadm"), args...)
	cmd.Dir, cmd.Env = k.dir, append(os.Environ(), "HOME="+k.dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// prepare does what kubeadm does of a cluster besides its programs: cluster-info, the roles
// with which nodes read their configuration, and its own bindings, which approve.
func (k *kube) prepare() {
	k.t.Helper()
	config := k.file("init.yaml", fmt.Appendf(nil, `apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 192.0.2.1} # kubeadm takes no loopback address; nobody goes there
bootstrapTokens: [{token: kadmin.0123456789abcdef, groups: ["system:bootstrappers:kubeadm:default-node-token"]}]
nodeRegistration: {name: control, criSocket: "unix:///run/none.sock"}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.35.0
controlPlaneEndpoint: "%s"
certificatesDir: %s
networking: {serviceSubnet: 10.96.0.0/16}
`, k.endpoint, k.dir))
	for _, phase := range []string{"upload-config kubeadm", "upload-config kubelet", "bootstrap-token"} {
		args := append([]string{"init", "phase"}, strings.Fields(phase)...)
		if out, err := k.kubeadm(append(args, "--config", config, "--kubeconfig", filepath.Join(k.dir, "admin.conf"))...); err != nil {
			k.t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
}

func (k *kube) config() Config {
	return Config{Name: "prod", Distribution: lane.DistributionKubeadm, Endpoint: k.endpoint, CA: filepath.Join(k.dir, "ca.crt"), TokenTTL: 15 * time.Minute, User: "bootlane", Labels: []string{"example.org/pool"},
		Kubeconfig: k.kubeconfig("bootlane", pkix.Name{CommonName: "bootlane"})}
}

// bearer returns a client of the API that has a bootstrap token.
func (k *kube) bearer(c *Cluster, t lane.Token) *api {
	return c.api.as(t.ID+"."+t.Secret, c.anonymous())
}

// request asks for a certificate, and returns the key.
func (k *kube) request(who *api, name string, csr *x509.CertificateRequest, usages ...string) (*ecdsa.PrivateKey, error) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := must(x509.CreateCertificateRequest(rand.Reader, csr, crypto.Signer(key)))
	if len(usages) == 0 {
		usages = []string{"digital signature", "client auth"}
	}
	return key, who.call(k.t.Context(), "ask for a certificate", http.MethodPost, requestsPath, object{"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": object{"name": name},
		"spec": object{"request": pemOf("CERTIFICATE REQUEST", der), "signerName": lane.CSRSigner, "usages": usages}}, nil)
}

func kubelet(name string) *x509.CertificateRequest {
	return &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}}}
}

// certificate waits for the certificate of a request.
func (k *kube) certificate(name string) *x509.Certificate {
	k.t.Helper()
	var o struct {
		Status struct{ Certificate []byte }
	}
	k.eventually("the certificate of "+name, func() error {
		k.must(k.admin.call(k.t.Context(), "read", http.MethodGet, requestsPath+"/"+name, nil, &o))
		if len(o.Status.Certificate) == 0 {
			return fmt.Errorf("there is none")
		}
		return nil
	})
	return must(certificates(o.Status.Certificate))[0]
}

func token(id string, ttl time.Duration) lane.Token {
	return lane.Token{ID: id, Secret: "0123456789abcdef", Expires: time.Now().Add(ttl), Host: "node-a", Run: "r-1"}
}

func wantErr(t *testing.T, what string, err, kind error) {
	t.Helper()
	if kind == nil && err != nil || kind != nil && !strings.Contains(fmt.Sprint(err), kind.Error()) {
		t.Errorf("%s: %v, want %v", what, err, kind)
	}
}

// TestKubeRights: what the manifests give is enough, and nothing more is given.
func TestKubeRights(t *testing.T) {
	k := startKube(t)
	k.prepare()
	cfg := k.config()
	c := must(Open(cfg))
	ctx := t.Context()
	wantErr(t, "without the manifests", c.Mint(ctx, token("aaaaaa", time.Minute)), errForbidden)
	k.apply(must(c.Manifests()))
	k.eventually("the manifests are in force", func() error {
		check, err := c.Check(ctx, time.Now())
		for _, f := range check.Findings {
			if !f.OK {
				err = fmt.Errorf("%s: %s", f.What, f.Got)
			}
		}
		return err
	})
	check := must(c.Check(ctx, time.Now()))
	t.Logf("check: version %s, %d findings, all good", check.Version, len(check.Findings))
	if check.Version != "v1.35.0" || len(check.Findings) < 20 {
		t.Errorf("%+v", check)
	}
	t.Run("secrets", func(t *testing.T) { k.secrets(t, c) })
	t.Run("nodes", func(t *testing.T) { k.nodes(t, c) })
	t.Run("requests", func(t *testing.T) { k.requests(t, c) })
	t.Run("tokens", func(t *testing.T) { k.tokens(t, c) })
	t.Run("kubeadm", func(t *testing.T) { k.discovery(t, c) })
	for _, d := range []string{lane.DistributionK0s, lane.DistributionK3s} {
		t.Run(d, func(t *testing.T) { k.others(t, d) })
	}
}

// others: the API server takes the manifests of the other distributions, and they do what they
// must. The distributions themselves cannot be built here.
func (k *kube) others(t *testing.T, distribution string) {
	cfg := k.config()
	cfg.Distribution, cfg.User = distribution, "bootlane-"+distribution
	cfg.Kubeconfig = k.kubeconfig(cfg.User, pkix.Name{CommonName: cfg.User})
	c := must(Open(cfg))
	k.apply(strings.ReplaceAll(must(c.Manifests()), "bootlane-join", "bootlane-join-"+distribution))
	k.eventually("the manifests are in force", func() error {
		check, err := c.Check(t.Context(), time.Now())
		for _, f := range check.Findings {
			if !f.OK && !strings.Contains(f.What, "/cacerts") { // which only k3s has
				err = fmt.Errorf("%s: %s", f.What, f.Got)
			}
		}
		return err
	})
	tok := token(distribution+"aaa", 5*time.Minute) // one each: the API server remembers for ten seconds whom it let in
	k.must(c.Mint(t.Context(), tok))
	who := must(whoAmI(t.Context(), k.bearer(c, tok)))
	if extra := strings.Contains(strings.Join(who.groups, " "), GroupK3s); who.name != "system:bootstrap:"+tok.ID || extra != (distribution == lane.DistributionK3s) {
		t.Errorf("%+v", who)
	}
	k.must(c.Revoke(t.Context(), tok.ID))
}

// secrets: RBAC admits the verbs, and the policy only what a join credential is.
func (k *kube) secrets(t *testing.T, c *Cluster) {
	ctx := t.Context()
	create := func(edit func(s object, data map[string][]byte)) error {
		s := must(secret(lane.DistributionKubeadm, token("bbbbbb", time.Minute)))
		edit(s, s["data"].(map[string][]byte))
		return c.api.call(ctx, "create", http.MethodPost, secretsPath, s, nil)
	}
	for name, edit := range map[string]func(s object, data map[string][]byte){
		"no expiration":    func(_ object, d map[string][]byte) { delete(d, "expiration") },
		"short expiration": func(_ object, d map[string][]byte) { d["expiration"] = []byte("never") },
		"another group": func(_ object, d map[string][]byte) {
			d["auth-extra-groups"] = []byte("system:bootstrappers:kubeadm:default-node-token")
		},
		"two groups": func(_ object, d map[string][]byte) {
			d["auth-extra-groups"] = []byte(GroupKubeadm + ",system:bootstrappers:x")
		},
		"no group":     func(_ object, d map[string][]byte) { delete(d, "auth-extra-groups") },
		"another key":  func(_ object, d map[string][]byte) { d["usage-bootstrap-x"] = []byte("true") },
		"another type": func(s object, _ map[string][]byte) { s["type"] = "Opaque" },
		"service account": func(s object, _ map[string][]byte) {
			s["type"], s["data"] = "kubernetes.io/service-account-token", nil
			s["metadata"].(object)["annotations"] = object{"kubernetes.io/service-account.name": "default"}
		},
		"another name": func(s object, _ map[string][]byte) { s["metadata"].(object)["name"] = "elsewhere" },
		"a made name":  func(s object, _ map[string][]byte) { s["metadata"] = object{"generateName": "bootstrap-token-"} },
	} {
		err := create(edit)
		if name == "service account" { // refused by the policy, or before it, and in no case made
			if err == nil {
				t.Errorf("%s is made", name)
			}
			continue
		}
		wantErr(t, name, err, errPolicy)
	}
	wantErr(t, "a good one", create(func(object, map[string][]byte) {}), nil)
	own := secretsPath + "/bootstrap-token-bbbbbb"
	wantErr(t, "read", c.api.call(ctx, "get", http.MethodGet, own, nil, nil), errForbidden)
	wantErr(t, "list", c.api.call(ctx, "list", http.MethodGet, secretsPath, nil, nil), errForbidden)
	wantErr(t, "patch", c.api.call(ctx, "patch", http.MethodPatch, own, object{"type": "Opaque"}, nil), errForbidden)
	wantErr(t, "elsewhere", c.api.call(ctx, "create", http.MethodPost, "/api/v1/namespaces/default/secrets", object{"apiVersion": "v1", "kind": "Secret", "metadata": object{"name": "x"}}, nil), errForbidden)
	wantErr(t, "delete an administrator's token", c.Revoke(ctx, "kadmin"), errPolicy)
	k.must(k.admin.call(ctx, "create", http.MethodPost, secretsPath, object{"apiVersion": "v1", "kind": "Secret", "metadata": object{"name": "other"}}, nil))
	wantErr(t, "delete another Secret", c.api.call(ctx, "delete", http.MethodDelete, secretsPath+"/other", nil, nil), errPolicy)
	wantErr(t, "delete our own", c.Revoke(ctx, "bbbbbb"), nil)
	wantErr(t, "delete it twice", c.Revoke(ctx, "bbbbbb"), nil)
}

// node makes a Node as its kubelet would, ready or not.
func (k *kube) node(name, uuid, ready string) {
	k.t.Helper()
	n := object{"apiVersion": "v1", "kind": "Node", "metadata": object{"name": name, "labels": object{"kubernetes.io/hostname": name}}}
	k.must(k.admin.call(k.t.Context(), "make", http.MethodPost, strings.TrimSuffix(nodesPath, "/"), n, nil))
	k.must(k.admin.call(k.t.Context(), "status", http.MethodPatch, nodesPath+name+"/status", nodeStatus(uuid, ready), nil))
}

// nodes: stale ones can be deleted, and labels set; nothing else.
func (k *kube) nodes(t *testing.T, c *Cluster) {
	ctx := t.Context()
	k.node("stale", "4c4c4544-0042-3510-8051-b4c04f4d3732", "Unknown")
	k.node("alive", "4c4c4544-0042-3510-8051-b4c04f4d3732", "True")
	alive := must(c.Node(ctx, "alive"))
	stale := must(c.Node(ctx, "stale"))
	if !alive.Ready || stale.Ready || alive.SystemUUID != "4c4c4544-0042-3510-8051-b4c04f4d3732" {
		t.Errorf("%+v %+v", alive, stale)
	}
	wantErr(t, "delete one that is Ready", c.DeleteNode(ctx, alive), errPolicy)
	if err := c.DeleteNode(ctx, lane.ClusterNode{Name: "stale", UID: alive.UID}); lane.CodeOf(err) != lane.Conflict {
		t.Errorf("delete another object of the name: %v", err)
	}
	wantErr(t, "delete a stale one", c.DeleteNode(ctx, stale), nil)
	if _, err := c.Node(ctx, "stale"); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("it is there: %v", err)
	}
	marks := lane.Host{ID: "node-a", Identity: lane.Identity{UUID: "4c4c4544-0042-3510-8051-b4c04f4d3732", AssetTag: "A 1", Rack: "R7"}, Labels: map[string]string{"example.org/pool": "gpu"}}.Marks(c.Labels())
	wantErr(t, "label", c.MarkNode(ctx, alive, marks), nil)
	wantErr(t, "label again", c.MarkNode(ctx, alive, marks), nil)
	var o struct {
		Metadata struct{ Labels, Annotations map[string]string }
	}
	k.must(k.admin.call(ctx, "read", http.MethodGet, nodesPath+"alive", nil, &o))
	if o.Metadata.Labels["node-restriction.kubernetes.io/inventory-uuid"] != "4c4c4544-0042-3510-8051-b4c04f4d3732" || o.Metadata.Labels["node-restriction.kubernetes.io/rack"] != "R7" || o.Metadata.Labels["example.org/pool"] != "gpu" ||
		o.Metadata.Labels["node-restriction.kubernetes.io/asset"] != "" || o.Metadata.Annotations["bootlane/asset"] != "A 1" || o.Metadata.Labels["kubernetes.io/hostname"] != "alive" {
		t.Errorf("%+v", o.Metadata)
	}
	patch := func(in object) error { return c.api.call(ctx, "patch", http.MethodPatch, nodesPath+"alive", in, nil) }
	wantErr(t, "a foreign label", patch(object{"metadata": object{"labels": object{"node-role.kubernetes.io/control-plane": ""}}}), errPolicy)
	wantErr(t, "take a label away", patch(object{"metadata": object{"labels": object{"kubernetes.io/hostname": nil}}}), errPolicy)
	wantErr(t, "a foreign annotation", patch(object{"metadata": object{"annotations": object{"x": "y"}}}), errPolicy)
	wantErr(t, "cordon", patch(object{"spec": object{"unschedulable": true}}), errPolicy)
	wantErr(t, "make one", c.api.call(ctx, "create", http.MethodPost, strings.TrimSuffix(nodesPath, "/"), object{"apiVersion": "v1", "kind": "Node", "metadata": object{"name": "new"}}, nil), errForbidden)
}

// requests: a certificate for the one name, and for no other.
func (k *kube) requests(t *testing.T, c *Cluster) {
	ctx := t.Context()
	tok := token("dddddd", 5*time.Minute)
	k.must(c.Mint(ctx, tok))
	now := time.Now()
	h := lane.Host{ID: "node-a", Hostname: "node-a.example.org", State: lane.StateProvisioning, Run: lane.Run{ID: "r-1", Open: true, Cluster: "prod", Deadline: now.Add(time.Hour), Stage: lane.StageReady},
		Join: &lane.Join{Run: "r-1", Cluster: "prod", Node: "node-a", Token: tok.ID, Issued: now, Expires: tok.Expires}}
	who := k.bearer(c, tok)
	_, err := k.request(who, "mine", kubelet("node-a"))
	k.must(err)
	_, err = k.request(who, "victim", kubelet("victim-node"))
	k.must(err)
	_, err = k.request(who, "named", &x509.CertificateRequest{Subject: kubelet("node-a").Subject, DNSNames: []string{"api.example.org"}})
	k.must(err)
	admin := token("kadmin", 0)
	_, err = k.request(k.bearer(c, admin), "foreign", kubelet("node-b"))
	k.must(err)
	if err := who.call(ctx, "approve itself", http.MethodPut, requestsPath+"/victim/approval", object{}, nil); err == nil {
		t.Error("the machine approves its own request")
	}
	var refused []string
	for _, r := range must(c.Requests(ctx)) {
		if why := lane.RefuseNode(h, r, time.Now()); why != "" {
			refused = append(refused, r.Name+": "+why)
			continue
		}
		if r.Name != "mine" {
			t.Errorf("%s is approved", r.Name)
		}
		k.must(c.Approve(ctx, r, "test"))
	}
	t.Logf("left pending:\n%s", strings.Join(refused, "\n"))
	if cert := k.certificate("mine"); cert.Subject.CommonName != "system:node:node-a" {
		t.Errorf("the certificate is of %s", cert.Subject)
	}
	for _, name := range []string{"victim", "named"} {
		var o csrObject
		k.must(k.admin.call(ctx, "read", http.MethodGet, requestsPath+"/"+name, nil, &o))
		if len(o.Status.Conditions) > 0 {
			t.Errorf("%s: %v", name, o.Status.Conditions)
		}
	}
	// The cluster's own approver decides on what its own tokens ask; ours must not be let in there either.
	if cert := k.certificate("foreign"); cert.Subject.CommonName != "system:node:node-b" {
		t.Errorf("kubeadm's own way is broken: %s", cert.Subject)
	}
	k.must(k.admin.call(ctx, "ask", http.MethodPost, requestsPath, object{"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": object{"name": "administrators"},
		"spec": object{"request": pemOf("CERTIFICATE REQUEST", must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: kubelet("node-c").Subject, DNSNames: []string{"c"}}, k.caKey))), "signerName": lane.CSRSigner, "usages": []string{"digital signature", "client auth"}}}, nil))
	var o csrObject // with a name in it, the cluster's own approver leaves it alone
	k.must(k.admin.call(ctx, "read", http.MethodGet, requestsPath+"/administrators", nil, &o))
	wantErr(t, "approve what no credential of ours asked", c.Approve(ctx, lane.NodeRequest{Name: "administrators", UID: o.Metadata.UID}, "x"), errPolicy)
	k.must(c.Revoke(ctx, tok.ID))
}

// tokens: one that is deleted, or has expired, opens nothing after the ten seconds for which
// the API server remembers.
func (k *kube) tokens(t *testing.T, c *Cluster) {
	ctx := t.Context()
	for name, tok := range map[string]lane.Token{"deleted": token("eeeeee", 5*time.Minute), "expired": token("ffffff", 12*time.Second)} {
		k.must(c.Mint(ctx, tok))
		if name == "deleted" {
			k.must(c.Revoke(ctx, tok.ID))
		}
		from := time.Now()
		k.eventually("the token that is "+name+" opens nothing", func() error {
			if _, err := whoAmI(ctx, k.bearer(c, tok)); err == nil || !strings.Contains(err.Error(), "401") {
				return fmt.Errorf("it is let in: %v", err)
			}
			return nil
		})
		t.Logf("a token that is %s is refused after %.0f s", name, time.Since(from).Seconds())
	}
	k.eventually("the cluster deletes an expired token by itself", func() error {
		if err := k.admin.call(ctx, "read", http.MethodGet, secretsPath+"/bootstrap-token-ffffff", nil, nil); lane.CodeOf(err) != lane.NotFound {
			return fmt.Errorf("it is there: %v", err)
		}
		return nil
	})
}

// discovery: kubeadm takes the configuration, finds the cluster by it, and by no other CA.
func (k *kube) discovery(t *testing.T, c *Cluster) {
	ctx := t.Context()
	tok := token("gggggg", 5*time.Minute)
	k.must(c.Mint(ctx, tok))
	text := joinConfiguration(k.endpoint, "node-a", tok.ID+"."+tok.Secret, c.pins)
	file := k.file("join.yaml", []byte(text))
	if out, err := k.kubeadm("config", "validate", "--config", file); err != nil {
		t.Errorf("kubeadm config validate: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	join := func(file string) (string, error) {
		cmd := exec.CommandContext(ctx, filepath.Join(os.Getenv("BOOTLANE_KUBE"), "kubeadm"), "join", "phase", "preflight", "--config", file, "--ignore-preflight-errors=all", "-v=1")
		cmd.Dir, cmd.Env = k.dir, append(os.Environ(), "HOME="+k.dir)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := join(file)
	if err != nil {
		t.Errorf("kubeadm join phase preflight: %v\n%s", err, out)
	}
	wrong := k.file("wrong.yaml", bytes.ReplaceAll([]byte(strings.Replace(text, "discovery: 5m0s", "discovery: 15s", 1)), []byte(c.pins[0]), []byte("sha256:"+strings.Repeat("0", 64))))
	if out, err := join(wrong); err == nil || !strings.Contains(out, "pinned") {
		t.Errorf("another CA: %v\n%s", err, out)
	}
	k.must(c.Revoke(t.Context(), tok.ID))
}
