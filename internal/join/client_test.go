package join

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bootlane/internal/join/jointest"
	"bootlane/internal/lane"
)

func clusterOf(t *testing.T, s *jointest.Server) *Cluster {
	t.Helper()
	c, err := Open(Config{Name: "prod", Distribution: lane.DistributionKubeadm, Endpoint: s.Endpoint, Kubeconfig: s.Kubeconfig, TokenTTL: 15 * time.Minute, User: jointest.User})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestErrors: what does not go can be told apart, and mended: the sentence differs, and the code.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		said   string
		code   lane.Code
		want   string
	}{
		{"unauthorised", 401, "Unauthorized", lane.Refused, "does not know the credentials"},
		{"forbidden", 403, `secrets is forbidden: User "bootlane" cannot create`, lane.Refused, "bootlane cluster manifests"},
		{"policy", 422, "secrets \"x\" is forbidden: ValidatingAdmissionPolicy 'bootlane-join' with binding 'bootlane-join' denied request: a join credential expires", lane.Refused, "refused by an admission policy"},
		{"not there", 404, "not found", lane.NotFound, "404"},
		{"changed", 409, "the object has been modified", lane.Conflict, "409"},
		{"invalid", 422, "invalid", lane.Invalid, "422"},
		{"broken", 500, "etcd is gone", lane.Unavailable, "is not in order"},
		{"too much", 429, "slow down", lane.Unavailable, "is not in order"},
		{"its own token in the text", 403, "token abcdef.0123456789abcdef", lane.Refused, "token TOKEN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := jointest.New(t)
			s.Deny(func(string, string) (int, string) { return c.status, c.said })
			_, err := clusterOf(t, s).Node(t.Context(), "node-a")
			if lane.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "look for the node node-a in the cluster prod") {
				t.Errorf("%s: %v", lane.CodeOf(err), err)
			}
		})
	}
	s := jointest.New(t)
	c := clusterOf(t, s)
	s.Down(true)
	if _, err := c.Node(t.Context(), "node-a"); lane.CodeOf(err) != lane.Unavailable || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("down: %v", err)
	}
	s.Down(false)
	other, err := newAPI("prod", "https://"+s.Endpoint, "", []byte(testCA), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.api = other
	if _, err := c.Node(t.Context(), "node-a"); lane.CodeOf(err) != lane.Unavailable || !strings.Contains(err.Error(), "not of the cluster's CA") {
		t.Errorf("another CA: %v", err)
	}
}

// TestMint: a credential is made, works, and goes; one that the cluster does not know is taken back.
func TestMint(t *testing.T) {
	s := jointest.New(t)
	c := clusterOf(t, s)
	token := testToken()
	if err := c.Mint(t.Context(), token); err != nil || !slices.Equal(s.Secrets(), []string{"abcdef"}) {
		t.Fatalf("%v, %v", err, s.Secrets())
	}
	if err := c.Mint(t.Context(), token); lane.CodeOf(err) != lane.Conflict {
		t.Errorf("it is made twice: %v", err)
	}
	for range 2 {
		if err := c.Revoke(t.Context(), token.ID); err != nil || len(s.Secrets()) != 0 {
			t.Errorf("%v, %v", err, s.Secrets())
		}
	}
	s.Deny(func(_, path string) (int, string) {
		if strings.HasSuffix(path, "/selfsubjectreviews") {
			return http.StatusInternalServerError, "no"
		}
		return 0, ""
	})
	if err := c.Mint(t.Context(), token); lane.CodeOf(err) != lane.Unavailable || len(s.Secrets()) != 0 || strings.Contains(err.Error(), token.Secret) {
		t.Errorf("%v, %v", err, s.Secrets())
	}
}

func TestApprove(t *testing.T) {
	s := jointest.New(t)
	c := clusterOf(t, s)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:node-a", Organization: []string{"system:nodes"}}, DNSNames: []string{"a"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	s.Request("csr-1", "abcdef", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	s.Request("csr-2", "abcdef", []byte("nonsense"))
	list, err := c.Requests(t.Context())
	slices.SortFunc(list, func(a, b lane.NodeRequest) int { return strings.Compare(a.Name, b.Name) })
	if err != nil || len(list) != 2 || list[0].CommonName != "system:node:node-a" || list[0].Names != 1 || list[0].TokenID() != "abcdef" || list[0].Broken != "" || list[1].Broken == "" {
		t.Fatalf("%v %+v", err, list)
	}
	stale := list[0]
	stale.UID = "another"
	if err := c.Approve(t.Context(), stale, "x"); lane.CodeOf(err) != lane.Conflict {
		t.Errorf("another request of the name: %v", err)
	}
	if err := c.Approve(t.Context(), list[0], "x"); err != nil {
		t.Fatal(err)
	}
	if list, err := c.Requests(t.Context()); err != nil || len(list) != 1 || list[0].Name != "csr-2" {
		t.Errorf("%v %+v", err, list)
	}
}

func TestReadKubeconfig(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("ca.crt", testCA)
	write("token", "from-a-file\n")
	const context = "contexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n"
	cluster := func(s string) string { return "clusters: [{name: c, cluster: {" + s + "}}]\n" }
	user := func(s string) string { return "users: [{name: u, user: {" + s + "}}]\n" }
	good := cluster(`server: "https://10.0.0.10:6443", certificate-authority: ca.crt`)
	k, err := readKubeconfig(write("good", good+user("tokenFile: token")+context))
	if err != nil || k.token != "from-a-file" || string(k.ca) != testCA || k.server != "https://10.0.0.10:6443" {
		t.Errorf("%+v, %v", k, err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"no YAML":      {"\t", "is no kubeconfig"},
		"no context":   {good + user("token: t"), "names no cluster and user"},
		"plain HTTP":   {cluster("server: http://a") + user("token: t") + context, "is not https://"},
		"a path":       {cluster("server: https://a/b") + user("token: t") + context, "is not https://"},
		"insecure":     {cluster("server: https://a, insecure-skip-tls-verify: true") + user("token: t") + context, "whoever answered would be believed"},
		"a proxy":      {cluster("server: https://a, proxy-url: http://p") + user("token: t") + context, "proxy-url"},
		"exec":         {good + user("exec: {command: aws}") + context, "logs in by exec"},
		"nothing":      {good + user("") + context, "neither a client certificate nor a token"},
		"half a pair":  {good + user("client-key: ca.crt") + context, "belong together"},
		"no pair":      {good + user("client-key: ca.crt, client-certificate: ca.crt") + context, "client-certificate and client-key"},
		"no such file": {good + user("tokenFile: absent") + context, "tokenFile"},
		"no base64":    {cluster("server: https://a, certificate-authority-data: '!'") + user("token: t") + context, "is not base64"},
	} {
		if _, err := readKubeconfig(write("bad", c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func TestConfigProblems(t *testing.T) {
	s := jointest.New(t)
	good := Config{Name: "prod", Distribution: lane.DistributionK3s, Endpoint: "api.example.org:6443", Kubeconfig: s.Kubeconfig, TokenTTL: time.Minute, User: "system:serviceaccount:a:b", Labels: []string{"example.org/pool", "pool"}}
	if got := append(good.Problems(), good.Files()...); len(got) > 0 {
		t.Errorf("%v", got)
	}
	bad := Config{Distribution: "rke", Endpoint: "https://a:6443", TokenTTL: time.Hour, User: "a'b", Labels: []string{"a b"}}
	var fields []string
	for _, p := range bad.Problems() {
		fields = append(fields, p.Field)
	}
	if want := []string{"distribution", "apiServerEndpoint", "kubeconfig", "tokenTTL", "user", "labels[0]"}; !slices.Equal(fields, want) {
		t.Errorf("%v", fields)
	}
	if err := os.Chmod(s.Kubeconfig, 0o644); err != nil {
		t.Fatal(err)
	}
	good.CA = filepath.Join(t.TempDir(), "absent")
	if got := good.Files(); len(got) != 2 || got[0].Field != "kubeconfig" || got[1].Field != "ca" {
		t.Errorf("%v", got)
	}
}

// TestScriptRuns plays the script of kubeadm with stand-ins for the programs of a node, because no
// node can be had here: kubeadm itself takes what stands in it in `make test-kube`.
func TestScriptRuns(t *testing.T) {
	for _, c := range []struct {
		name  string
		setup func(root string)
		exit  int
		says  string
		log   string
	}{
		{"joins", func(string) {}, 0, "the node node-a is in the cluster", "kubeadm join\n"},
		{"is in already", func(root string) { settle(t, root) }, 0, "the node node-a is in the cluster already", ""},
		{"is left over", func(root string) { put(t, root+"/etc/kubernetes/pki/ca.crt", "old") }, 0, "the node node-a is in the cluster", "kubeadm reset --force\nkubeadm join\n"},
		{"does not work any more", func(root string) { settle(t, root); put(t, root+"/lost", "") }, 0, "the node node-a is in the cluster", "kubeadm reset --force\nkubeadm join\n"},
		{"fails", func(root string) { put(t, root+"/broken", "") }, 1, "cannot join", "kubeadm join\n"},
		{"has no kubeadm", func(root string) { put(t, root+"/bin/kubeadm", ""); _ = os.Chmod(root+"/bin/kubeadm", 0o644) }, 1, "kubeadm is not installed", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			program := func(name, body string) { put(t, root+"/bin/"+name, "#!/bin/sh\nroot="+root+"\n"+body) }
			program("kubelet", "")
			program("kubectl", `[ ! -e "$root/lost" ]`)
			program("kubeadm", `case $1 in
reset) echo "kubeadm reset --force" >> "$root/log"; rm -rf "$root/etc" "$root/lost" ;;
join)
	echo "kubeadm join" >> "$root/log"
	[ "$(stat -c %a "$3")" = 600 ] && [ "$(stat -c %a "$(dirname "$3")")" = 700 ] || exit 9
	grep -q 'token: "abcdef.0123456789abcdef"' "$3" || exit 8
	[ ! -e "$root/broken" ] || { echo "cannot join"; exit 1; }
	[ ! -e "$root/etc/kubernetes/pki/ca.crt" ] || exit 7
	mkdir -p "$root/etc/kubernetes/pki" "$root/var/lib/kubelet/pki"
	for f in etc/kubernetes/pki/ca.crt etc/kubernetes/kubelet.conf var/lib/kubelet/pki/kubelet-client-current.pem; do echo x > "$root/$f"; done
	;;
esac`)
			if err := os.MkdirAll(root+"/run", 0o755); err != nil {
				t.Fatal(err)
			}
			c.setup(root)
			b, err := opened(t, lane.DistributionKubeadm).Script("node-a", testToken())
			if err != nil {
				t.Fatal(err)
			}
			put(t, root+"/join.sh", strings.NewReplacer("/etc/", root+"/etc/", "/var/", root+"/var/", "/run/", root+"/run/").Replace(string(b)))
			cmd := exec.Command("dash", root+"/join.sh")
			cmd.Env = []string{"PATH=" + root + "/bin:/usr/bin:/bin"}
			out, _ := cmd.CombinedOutput()
			log, _ := os.ReadFile(root + "/log") // none: nothing was done
			if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != c.exit || !strings.Contains(string(out), c.says) || string(log) != c.log {
				t.Errorf("exit %v\n%s\nlog %q", cmd.ProcessState, out, log)
			}
			if left, err := filepath.Glob(root + "/run/*"); err != nil || len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// settle makes what a node has that is in its cluster.
func settle(t *testing.T, root string) {
	for _, f := range []string{"etc/kubernetes/pki/ca.crt", "etc/kubernetes/kubelet.conf", "var/lib/kubelet/pki/kubelet-client-current.pem"} {
		put(t, root+"/"+f, "x")
	}
}
