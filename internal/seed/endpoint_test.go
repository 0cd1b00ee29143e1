package seed

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"bootlane/internal/lane"
)

// TestFirstBootEndpoint: the real clients look at a real TLS server, and believe one of the pinned authority alone.
func TestFirstBootEndpoint(t *testing.T) {
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	t.Cleanup(api.Close)
	cert := api.Certificate()
	ca := strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})))
	address := api.Listener.Addr().String()
	otherCA := authority(t)
	for _, client := range []struct{ name, program, deb string }{{"curl", "curl", "curl"}, {"openssl", "openssl", "openssl"}} {
		for _, c := range []struct {
			name string
			Endpoint
			want string
		}{
			{"its authority", Endpoint{address, ca}, lane.CheckOK},
			{"another authority", Endpoint{address, otherCA}, lane.CheckFailed},
			{"nobody there", Endpoint{"127.0.0.1:1", ca}, lane.CheckFailed},
			{"another name", Endpoint{strings.Replace(address, "127.0.0.1", "localhost", 1), ca}, lane.CheckFailed},
			{"no cluster", Endpoint{}, lane.CheckSkipped},
		} {
			t.Run(client.name+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				s, in := newInstalled(t), full(lane.SeedImage)
				in.Endpoint, in.Base = c.Endpoint, s.serve(0, true)
				s.forget("bin/curl")
				s.only("awk", "basename", "cat", "cut", "date", "dirname", "flock", "grep", "head", "mkdir", "mktemp", "mv", "readlink", "rm", "sed", "sh", "sort", "sync", "timeout", "touch", "tr", "wc", "chmod")
				if client.program != "curl" {
					s.have("wget", tool(t, "wget", "wget"))
				}
				s.have(client.program, tool(t, client.program, client.deb))
				_, reports := s.boot(in)
				list := listed(t, reports[len(reports)-1])
				if got := list[lane.CheckEndpoint]; got.Status != c.want {
					t.Errorf("%+v, want %s", got, c.want)
				}
				for name, check := range list {
					if name != lane.CheckEndpoint && check.Status == lane.CheckFailed {
						t.Errorf("%s", check)
					}
				}
			})
		}
	}
}

// authority is a certificate that signed nothing.
func authority(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

// TestEndpointIsPlain: what would break out of the script is refused.
func TestEndpointIsPlain(t *testing.T) {
	for _, e := range []Endpoint{{"a;b:1", authority(t)}, {"10.0.0.1", authority(t)}, {"10.0.0.1:6443", "END-OF-CA\nreboot"}, {"10.0.0.1:6443", ""}} {
		in := full(lane.SeedImage)
		in.Endpoint = e
		if _, err := Documents(in); err == nil || !strings.Contains(err.Error(), "endpoint") {
			t.Errorf("%+v: %v", e, err)
		}
	}
}
