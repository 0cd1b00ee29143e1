package app_test

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bootlane/internal/nettest"
)

// dial returns what a client with such a TLS is served of path, and the certificate.
func dial(t *testing.T, c *tls.Config, url string) (string, *x509.Certificate, error) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: c, DisableKeepAlives: true}}
	r, err := client.Get(url)
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = r.Body.Close() }()
	b, err := io.ReadAll(r.Body)
	return string(b), r.TLS.PeerCertificates[0], err
}

// TestMachinesTLS: HB-11 and HB-12. One certificate that all firmware takes, by address
// and without SNI; and a port apart for what no other may speak.
func TestMachinesTLS(t *testing.T) {
	w := newWorld(t, "listen: {operators: \"127.0.0.1:8070\", https: \""+nettest.Server+":8443\", legacyHTTPS: \""+nettest.Server+":9443\"}\npolicy: {httpBootTLS: true}\n")
	pem, err := os.ReadFile(filepath.Join(w.dir, "data", "tls", "ca.pem"))
	must(t, err)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatal("no CA")
	}
	script := "/boot/" + mac.Hyphens() + "/x86_64-uefi/autoexec.ipxe"
	modern, legacy := "https://"+nettest.Server+":8443", "https://"+nettest.Server+":9443"
	t.Run("HB-11 trusted by address, without SNI", func(t *testing.T) {
		body, leaf, err := dial(t, &tls.Config{RootCAs: pool}, modern+script) // Go sends no SNI for an address
		must(t, err)
		if !strings.Contains(body, "--replace --autofree "+modern+"/boot/script?") {
			t.Errorf("who came by TLS is sent elsewhere:\n%s", body)
		}
		if len(leaf.IPAddresses) != 1 || leaf.IPAddresses[0].String() != nettest.Server {
			t.Errorf("SAN %v", leaf.IPAddresses)
		}
		if _, _, err := dial(t, &tls.Config{}, modern+script); err == nil {
			t.Error("somebody trusts it who should not")
		}
	})
	t.Run("HB-12 RSA-3072 and SHA-256", func(t *testing.T) {
		_, leaf, err := dial(t, &tls.Config{RootCAs: pool}, modern+script)
		must(t, err)
		key, ok := leaf.PublicKey.(*rsa.PublicKey)
		if !ok || key.N.BitLen() != 3072 || leaf.SignatureAlgorithm != x509.SHA256WithRSA {
			t.Errorf("%T, %s", leaf.PublicKey, leaf.SignatureAlgorithm)
		}
	})
	old := func(version uint16) *tls.Config {
		return &tls.Config{RootCAs: pool, MinVersion: version, MaxVersion: version, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_256_CBC_SHA}}
	}
	for name, version := range map[string]uint16{"TLS 1.0": tls.VersionTLS10, "TLS 1.2 with RSA key exchange": tls.VersionTLS12} {
		if _, _, err := dial(t, old(version), modern+script); err == nil {
			t.Errorf("%s is spoken where it should not be", name)
		}
		if body, _, err := dial(t, old(version), legacy+script); err != nil || !strings.Contains(body, legacy+"/boot/script?") {
			t.Errorf("%s on the legacy port: %v\n%s", name, err, body)
		}
	}
	// Firmware is told the HTTPS URL, and a restart keeps the certificate that it trusts.
	o := w.discover(firmwares()[3])
	if url := o.BootFileNameOption(); !strings.HasPrefix(url, modern+"/boot/") {
		t.Errorf("UEFI HTTP Boot is told %q", url)
	}
}
