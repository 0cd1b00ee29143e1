package app

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"bootlane/internal/lane"
)

// Files of the machines' TLS below Config.Data, where the configuration names none.
const (
	tlsDir = "tls"
	// CAFile is the certificate that firmware and iPXE must trust.
	CAFile   = "ca.pem"
	caKey    = "ca.key"
	leafFile = "machines.pem"
	leafKey  = "machines.key"
)

// keyBits: firmware built on OpenSSL's security level 3 refuses RSA-2048, older firmware
// knows no elliptic curves. RSA-3072 is what all of them take.
const keyBits = 3072

// machinesCertificate returns the certificate of the machines' HTTPS listeners: the
// configured one, or one that Bootlane makes with a CA of its own.
func (c Config) machinesCertificate(now time.Time) (tls.Certificate, error) {
	if c.Listen.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(c.Listen.Certificate, c.Listen.Key)
		if err != nil {
			return pair, &lane.Error{Code: lane.Invalid, Message: "read listen.certificate and listen.key: PEM files of a certificate chain and of its key", Err: err}
		}
		return pair, nil
	}
	dir := filepath.Join(c.Data, tlsDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return tls.Certificate{}, &lane.Error{Code: lane.Unavailable, Message: "make the directory of the machines' certificate", Err: err}
	}
	ca, err := authority(dir, now)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, leafFile), filepath.Join(dir, leafKey))
	if err == nil && c.covered(pair, now) {
		return pair, nil
	}
	return c.issue(dir, ca, now)
}

// covered reports whether a certificate is for every address of ours, and good for
// another month.
func (c Config) covered(pair tls.Certificate, now time.Time) bool {
	if pair.Leaf == nil || now.AddDate(0, 1, 0).After(pair.Leaf.NotAfter) {
		return false
	}
	for _, name := range c.servers() {
		if pair.Leaf.VerifyHostname(name) != nil {
			return false
		}
	}
	return true
}

// template returns what both certificates share. They are good from a year ago on: the
// clock of a new server may well be wrong.
func template(name string, now time.Time, years int) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	return &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name, Organization: []string{"Bootlane"}}, SignatureAlgorithm: x509.SHA256WithRSA,
		NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(years, 0, 0), BasicConstraintsValid: true}, nil
}

// authority reads the CA, or makes it at the first start.
func authority(dir string, now time.Time) (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, CAFile), filepath.Join(dir, caKey))
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		if err != nil {
			err = &lane.Error{Code: lane.Unavailable, Message: "read the machines' CA in " + dir, Err: err}
		}
		return pair, err
	}
	t, err := template("Bootlane machines' CA", now, 20)
	if err != nil {
		return pair, err
	}
	t.IsCA, t.KeyUsage, t.MaxPathLenZero = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, true
	return sign(dir, CAFile, caKey, t, tls.Certificate{})
}

func (c Config) issue(dir string, ca tls.Certificate, now time.Time) (tls.Certificate, error) {
	t, err := template("Bootlane", now, 5)
	if err != nil {
		return tls.Certificate{}, err
	}
	t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, name := range c.servers() {
		t.IPAddresses = append(t.IPAddresses, net.ParseIP(name))
	}
	t.DNSNames = c.Listen.Names
	return sign(dir, leafFile, leafKey, t, ca)
}

// sign makes a key and its certificate, signed by ca or by itself, and stores both.
func sign(dir, file, keyFile string, t *x509.Certificate, ca tls.Certificate) (tls.Certificate, error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a key: %w", err)
	}
	parent, signer := t, any(key)
	if ca.Leaf != nil {
		parent, signer = ca.Leaf, ca.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("encode a key: %w", err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	err = errors.Join(os.WriteFile(filepath.Join(dir, keyFile), private, 0o600), os.WriteFile(filepath.Join(dir, file), certificate, 0o644))
	if err != nil {
		return tls.Certificate{}, &lane.Error{Code: lane.Unavailable, Message: "store the machines' certificate", Err: err}
	}
	return tls.X509KeyPair(certificate, private)
}

// tlsConfig is for firmware: no HTTP/2, no need for SNI, which firmware before 2024 does
// not send. old admits what no other listener may: TLS 1.0, and RSA key exchange, which
// iPXE of distributions before 2024 needs.
func tlsConfig(pair tls.Certificate, old bool) *tls.Config {
	c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if old {
		c.MinVersion = tls.VersionTLS10
		for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
			switch s.ID {
			case tls.TLS_RSA_WITH_RC4_128_SHA, tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA, tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA:
			default:
				c.CipherSuites = append(c.CipherSuites, s.ID)
			}
		}
	}
	return c
}
