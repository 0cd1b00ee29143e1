package uefi

import (
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// GUID is an EFI_GUID as it is stored: UEFI 2.10, appendix A.
type GUID [16]byte

// String prints it in the usual form, 8be4df61-93ca-11d2-aa0d-00e098032b8c.
func (g GUID) String() string { return guid(g[:]) }

// ParseGUID reads the usual form.
func ParseGUID(s string) (g GUID, err error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(g) {
		return g, lane.Errorf(lane.Invalid, "%q is no GUID: 8be4df61-93ca-11d2-aa0d-00e098032b8c is one", s)
	}
	// The first three fields are little endian.
	copy(g[:], []byte{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6]})
	copy(g[8:], b[8:])
	if g.String() != strings.ToLower(s) {
		return GUID{}, lane.Errorf(lane.Invalid, "%q is no GUID: its hyphens are elsewhere, as in 8be4df61-93ca-11d2-aa0d-00e098032b8c", s)
	}
	return g, nil
}

// NewGUID makes a random one: RFC 9562, 5.4.
func NewGUID(random io.Reader) (g GUID, err error) {
	if _, err := io.ReadFull(random, g[:]); err != nil {
		return g, fmt.Errorf("make a GUID: %w", err)
	}
	g[7], g[8] = g[7]&0x0f|0x40, g[8]&0x3f|0x80
	return g, nil
}

// Names of the variables that hold keys, and of the pairs that an owner of machines has:
// UEFI 2.10, 32.3.
const (
	PlatformKey        = "PK"  // says who may change KEK and PK itself
	KeyExchangeKey     = "KEK" // says who may change db and dbx
	SignatureDatabase  = "db"  // says whose images are started
	ForbiddenSignature = "dbx" // says which are not
)

// KeyRequest is what a new pair is to be.
type KeyRequest struct {
	Name      string // common name of the certificate: people see it in a firmware's setup
	Bits      int    // 2048, 3072 or 4096
	NotBefore time.Time
	Years     int  // of validity; firmware does not look at it
	SignsCode bool // images, that is; the other keys sign variables
}

// NewKey makes an RSA pair and a self-signed certificate. No two calls make the same
// pair: the standard library makes keys of the system's randomness only.
func NewKey(r KeyRequest, random io.Reader) (Signer, error) {
	if r.Bits != 2048 && r.Bits != 3072 && r.Bits != 4096 {
		return Signer{}, lane.Errorf(lane.Invalid, "%d bits: RSA keys for firmware have 2048, 3072 or 4096; all firmware takes 2048", r.Bits)
	}
	if r.Years < 1 || r.Years > 50 {
		return Signer{}, lane.Errorf(lane.Invalid, "a validity of %d years: 1 to 50 are possible", r.Years)
	}
	if r.Name == "" || len(r.Name) > 64 || lane.Clean(r.Name, 64) != r.Name {
		return Signer{}, lane.Errorf(lane.Invalid, "a certificate's name has 1 to 64 characters (RFC 5280, ub-common-name) that can be printed: %q", lane.Clean(r.Name, 80))
	}
	key, err := rsa.GenerateKey(random, r.Bits)
	if err != nil {
		return Signer{}, fmt.Errorf("make an RSA key: %w", err)
	}
	serial := make([]byte, 16)
	if _, err := io.ReadFull(random, serial); err != nil {
		return Signer{}, fmt.Errorf("make a serial number: %w", err)
	}
	serial[0] = serial[0]&0x7f | 0x40 // positive, and always of one length
	from := r.NotBefore.UTC().Truncate(time.Second)
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), Subject: pkix.Name{CommonName: r.Name},
		NotBefore: from, NotAfter: from.AddDate(r.Years, 0, 0),
		SignatureAlgorithm: x509.SHA256WithRSA, KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	if r.SignsCode {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	}
	raw, err := x509.CreateCertificate(random, template, template, key.Public(), key)
	if err != nil {
		return Signer{}, fmt.Errorf("make the certificate: %w", err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		return Signer{}, fmt.Errorf("read the certificate that was made: %w", err)
	}
	return Signer{key, c}, nil
}

// EncodeCertificate returns a certificate as PEM.
func EncodeCertificate(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// EncodeKey returns the private key as PKCS#8 in PEM, encrypted if there is a passphrase.
func (s Signer) EncodeKey(passphrase []byte, random io.Reader) ([]byte, error) {
	plain, err := x509.MarshalPKCS8PrivateKey(s.Key)
	if err != nil {
		return nil, fmt.Errorf("write the private key: %w", err)
	}
	if len(passphrase) == 0 {
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: plain}), nil
	}
	sealed, err := sealKey(plain, passphrase, random)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: sealed}), nil
}

// Encrypted says whether a PEM file holds a private key that needs a passphrase.
func Encrypted(data []byte) bool {
	b, _ := pem.Decode(data)
	return b != nil && b.Type == "ENCRYPTED PRIVATE KEY"
}

// ParseKey reads an RSA private key from PEM: PKCS#8, with or without a passphrase, or
// PKCS#1. It refuses all else with [lane.Invalid], a wrong passphrase included.
func ParseKey(data, passphrase []byte) (*rsa.PrivateKey, error) {
	b, _ := pem.Decode(data)
	if b == nil {
		return nil, lane.Errorf(lane.Invalid, "this is no private key in PEM (-----BEGIN PRIVATE KEY-----)")
	}
	raw := b.Bytes
	switch b.Type {
	case "RSA PRIVATE KEY":
		if b.Headers["DEK-Info"] != "" {
			return nil, lane.Errorf(lane.Invalid, "the key is encrypted in OpenSSL's old way, which anybody can guess: write it anew with `openssl pkcs8 -topk8 -v2 aes-256-cbc`")
		}
		key, err := x509.ParsePKCS1PrivateKey(raw)
		if err != nil {
			return nil, lane.Errorf(lane.Invalid, "the private key cannot be read: %v", err)
		}
		return key, nil
	case "ENCRYPTED PRIVATE KEY":
		var err error
		if raw, err = openKey(raw, passphrase); err != nil {
			return nil, err
		}
	case "PRIVATE KEY":
	default:
		return nil, lane.Errorf(lane.Invalid, "the PEM file holds a %s, not a private key", lane.Clean(b.Type, 60))
	}
	key, err := x509.ParsePKCS8PrivateKey(raw)
	if err != nil {
		return nil, lane.Errorf(lane.Invalid, "the private key cannot be read: %v", err)
	}
	r, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, lane.Errorf(lane.Invalid, "the private key is not RSA, which is what all firmware checks")
	}
	return r, nil
}
