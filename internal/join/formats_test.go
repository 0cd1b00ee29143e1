package join

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bootlane/internal/lane"
)

var update = flag.Bool("update", false, "write the golden files anew")

// testCA is a CA that is always the same; its key is nowhere.
const testCA = `-----BEGIN CERTIFICATE-----
MIIBgDCCASegAwIBAgIUBt336gsuQgDncQBWWJaW6K0o3SAwCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKa3ViZXJuZXRlczAgFw0yNjExMjcyMTUzMTRaGA8yMTI2MTEw
MzIxNTMxNFowFTETMBEGA1UEAwwKa3ViZXJuZXRlczBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABIV30BhGT4wNTl7jxzDG+GZ7RybkawKbv7RH3DKUzok9qxjNV0bl
bbzOZmU5R7KTq+j98jXfJQkWG5XcZFt7O2ijUzBRMB0GA1UdDgQWBBRMw3BYd/c8
a28R80fY1Ib6mBHHfDAfBgNVHSMEGDAWgBRMw3BYd/c8a28R80fY1Ib6mBHHfDAP
BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0cAMEQCICyX9U7k3vWM/LSdGnE3
wg1I9o6ITq9XIKVcBfPgYI0oAiBJnmAl6k+JvW+f1e/t3zuF6OKZjDROgGqdHe3A
l7Hblg==
-----END CERTIFICATE-----
`

// testPin is of testCA, by: openssl x509 -pubkey -noout -in ca.crt | openssl pkey -pubin -outform der | sha256sum
const testPin = "sha256:d8197e8e9bb65be1795b27810c950e2e46693a11cb7f2b0375e144d8c225dcac"

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s is not what is written now (-update writes it):\n%s", path, got)
	}
}

func testToken() lane.Token {
	return lane.Token{ID: "abcdef", Secret: "0123456789abcdef", Expires: time.Date(2026, 5, 4, 3, 17, 1, 0, time.UTC), Host: "node-a", Run: "r-1"}
}

// opened returns a cluster of a distribution, with files of its own.
func opened(t *testing.T, distribution string) *Cluster {
	t.Helper()
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	text := "clusters: [{name: c, cluster: {server: \"https://10.0.0.10:6443\", certificate-authority-data: " + base64.StdEncoding.EncodeToString([]byte(testCA)) + "}}]\nusers: [{name: u, user: {token: t}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n"
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Open(Config{Name: "prod", Distribution: distribution, Endpoint: "10.0.0.10:6443", Kubeconfig: kubeconfig, TokenTTL: 15 * time.Minute, User: "bootlane", Labels: []string{"example.org/pool"}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSecret: what a token is made of, per distribution. The API takes anything without a word.
func TestSecret(t *testing.T) {
	for _, d := range lane.Distributions() {
		s, err := secret(d, testToken())
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "secret-"+d+".json", string(b)+"\n")
		if got := s["data"].(map[string][]byte)["expiration"]; len(base64.StdEncoding.EncodeToString(got)) != 28 {
			t.Errorf("%s: the policy does not take %q for a time", d, got)
		}
	}
	for _, bad := range []lane.Token{{ID: "abcde", Secret: "0123456789abcdef"}, {ID: "abcdef", Secret: "0123456789abcde"}, {ID: "ABCDEF", Secret: "0123456789abcdef"}, {ID: "abcdef", Secret: "0123456789abcdef\n"}} {
		if _, err := secret(lane.DistributionKubeadm, bad); lane.CodeOf(err) != lane.Invalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestPins(t *testing.T) {
	got, err := pins([]byte(testCA))
	if err != nil || len(got) != 1 || got[0] != testPin {
		t.Errorf("%q, %v", got, err)
	}
	if two, err := pins([]byte(testCA + testCA)); err != nil || len(two) != 2 {
		t.Errorf("%q, %v", two, err)
	}
	for _, bad := range []string{"", "x", strings.Replace(testCA, "MII", "MIA", 1)} {
		if _, err := pins([]byte(bad)); err == nil {
			t.Errorf("%.20q is taken", bad)
		}
	}
}

// TestJoinConfiguration: kubeadm's own validator takes it in `make test-kube`.
func TestJoinConfiguration(t *testing.T) {
	golden(t, "joinconfiguration.yaml", joinConfiguration("10.0.0.10:6443", "node-a", "abcdef.0123456789abcdef", []string{testPin}))
}

func TestK0sToken(t *testing.T) {
	token, err := k0sToken("10.0.0.10:6443", "abcdef.0123456789abcdef", []byte(testCA))
	if err != nil {
		t.Fatal(err)
	}
	b, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "k0s-kubeconfig.yaml", string(text))
	// It is a kubeconfig: the same reader takes it that takes operators'.
	path := filepath.Join(t.TempDir(), "k")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if k, err := readKubeconfig(path); err != nil || k.token != "abcdef.0123456789abcdef" || k.server != "https://10.0.0.10:6443" || string(k.ca) != testCA {
		t.Errorf("%+v, %v", k, err)
	}
}

func TestK3sToken(t *testing.T) {
	one, err := k3sToken("abcdef.0123456789abcdef", []byte(testCA))
	// By: sha256sum ca.crt
	if want := "K10270820d11f0846bafe8841b8d6b7ef55626676981dedce10ab88a5be49d1876d::abcdef.0123456789abcdef"; err != nil || one != want {
		t.Errorf("%s, %v", one, err)
	}
	// Of several, the hash is of the root's DER: openssl x509 -outform der | sha256sum
	two, err := k3sToken("abcdef.0123456789abcdef", []byte(testCA+testCA))
	if want := "K101a1183e5725a888c1be449b13690b11dd34194b92971f9efb249bbc4c79ff173::abcdef.0123456789abcdef"; err != nil || two != want {
		t.Errorf("%s, %v", two, err)
	}
	if got := k3sConfig("10.0.0.10:6443", "node-a", K3sTokenFile); got != "server: \"https://10.0.0.10:6443\"\ntoken-file: \"/etc/rancher/k3s/bootlane-token\"\nnode-name: \"node-a\"\n" {
		t.Errorf("%s", got)
	}
}

func TestManifests(t *testing.T) {
	for _, d := range lane.Distributions() {
		text, err := opened(t, d).Manifests()
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "manifests-"+d+".yaml", text)
	}
	c := opened(t, lane.DistributionKubeadm)
	c.cfg.User = "system:serviceaccount:bootlane:bootlane"
	if text, err := c.Manifests(); err != nil || strings.Contains(text, `"bootlane"`) || strings.Count(text, `"system:serviceaccount:bootlane:bootlane"`) != 3 {
		t.Errorf("%v\n%s", err, text)
	}
}

// TestScripts: one for each distribution, that shellcheck and dash take.
func TestScripts(t *testing.T) {
	for _, d := range lane.Distributions() {
		b, err := opened(t, d).Script("node-a", testToken())
		if err != nil {
			t.Fatal(err)
		}
		// The compressor's bytes may change with its version: they are looked at above.
		text := string(b)
		if d == lane.DistributionK0s {
			long, err := k0sToken("10.0.0.10:6443", "abcdef.0123456789abcdef", []byte(testCA))
			if err != nil || strings.Count(text, long) != 1 {
				t.Errorf("the token stands %d times", strings.Count(text, long))
			}
			text = strings.ReplaceAll(text, long, "K0S-TOKEN")
		}
		golden(t, d+".sh", text)
		path := filepath.Join(t.TempDir(), d+".sh")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, check := range [][]string{{"shellcheck", "-s", "sh", path}, {"dash", "-n", path}} {
			if out, err := exec.Command(check[0], check[1:]...).CombinedOutput(); err != nil {
				t.Errorf("%v (Debian: shellcheck, dash): %v\n%s", check, err, out)
			}
		}
	}
}
