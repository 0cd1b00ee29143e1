package uefi

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"bootlane/internal/lane"
)

// Signature is one Authenticode signature of an image. When Err is nil the signature is
// good: its digest is the image's, and its signer's key made it. Whether anybody trusts
// that signer is another question, [Prove]'s.
type Signature struct {
	Signer       *x509.Certificate   // nil when it cannot be told
	Certificates []*x509.Certificate // that came with it, the signer's among them
	Algorithm    crypto.Hash         // of the image's digest
	Digest       []byte              // that was signed
	Err          error
}

// errDigest marks a signature that is good, but of other bytes.
var errDigest = errors.New("it signs other bytes than these")

// Limits of what is read of a signature: far above real ones (the longest chain is
// three), and low enough that hostile ones take no time.
const (
	maxCertificates = 32
	maxRSABits      = 8192
	maxChain        = 8
)

// ASN.1 of PKCS#7, RFC 2315, of which Authenticode uses version 1. The standard
// library's reader does not recurse, and takes DER only; so do OpenSSL's writers.
type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue `asn1:"optional,tag:0"`
}

type signedData struct {
	Version          int
	DigestAlgorithms asn1.RawValue
	Content          contentInfo
	Certificates     asn1.RawValue `asn1:"optional,tag:0"`
	CRLs             asn1.RawValue `asn1:"optional,tag:1"`
	Signers          []signerInfo  `asn1:"set"`
}

type signerInfo struct {
	Version int
	By      struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}
	DigestAlgorithm pkix.AlgorithmIdentifier
	Attributes      asn1.RawValue `asn1:"optional,tag:0"`
	Algorithm       pkix.AlgorithmIdentifier
	Signature       []byte
	Unauthenticated asn1.RawValue `asn1:"optional,tag:1"`
}

// indirectData is SpcIndirectDataContent: what is signed, "a PE image with this digest".
type indirectData struct {
	Data   asn1.RawValue
	Digest struct {
		Algorithm pkix.AlgorithmIdentifier
		Sum       []byte
	}
}

type attribute struct {
	Type   asn1.ObjectIdentifier
	Values asn1.RawValue
}

const (
	oidSignedData    = "1.2.840.113549.1.7.2"
	oidMessageDigest = "1.2.840.113549.1.9.4"
	oidIndirectData  = "1.3.6.1.4.1.311.2.1.4"
)

// signature reads and checks one.
func (im *Image) signature(blob []byte) (s Signature) {
	sd, err := parseSignedData(blob)
	if err != nil {
		return Signature{Err: fmt.Errorf("its PKCS#7 cannot be read (%w): sign the image again", err)}
	}
	s.Certificates = parseCertificates(sd.Certificates.Bytes)
	content, err := s.content(sd)
	if err != nil {
		s.Err = err
		return s
	}
	if len(sd.Signers) != 1 {
		s.Err = fmt.Errorf("it has %d signers, Authenticode has one: sign the image again", len(sd.Signers))
		return s
	}
	by := sd.Signers[0]
	for _, c := range s.Certificates {
		if c.SerialNumber.Cmp(by.By.Serial) == 0 && bytes.Equal(c.RawIssuer, by.By.Issuer.FullBytes) {
			s.Signer = c
			break
		}
	}
	if s.Signer == nil {
		s.Err = errors.New("its signer's certificate does not come with it, or cannot be read: sign the image again")
		return s
	}
	if s.Err = by.check(s.Signer, content); s.Err != nil {
		return s
	}
	if d := im.digest(s.Algorithm); d == nil {
		_, s.Err = im.Digest(s.Algorithm)
	} else if !bytes.Equal(d, s.Digest) {
		s.Err = errDigest
	}
	return s
}

func parseSignedData(blob []byte) (sd signedData, err error) {
	var ci contentInfo
	if _, err := asn1.Unmarshal(blob, &ci); err != nil { // behind it there may be padding
		return sd, err
	}
	if ci.Type.String() != oidSignedData {
		return sd, fmt.Errorf("its content has the type %s, not signedData", ci.Type)
	}
	if _, err := asn1.Unmarshal(ci.Content.Bytes, &sd); err != nil {
		return sd, err
	}
	if sd.Content.Type.String() != oidIndirectData {
		return sd, fmt.Errorf("it signs the type %s, not an image's digest", sd.Content.Type)
	}
	return sd, nil
}

// parseCertificates reads those that can be read: one that Go finds wrong may not be
// part of the chain.
func parseCertificates(der []byte) (out []*x509.Certificate) {
	for len(der) > 0 && len(out) < maxCertificates {
		var raw asn1.RawValue
		rest, err := asn1.Unmarshal(der, &raw)
		if err != nil {
			return out
		}
		if c, err := x509.ParseCertificate(raw.FullBytes); err == nil {
			out = append(out, c)
		}
		der = rest
	}
	return out
}

// content reads the signed digest, and returns the bytes that the signature covers.
func (s *Signature) content(sd signedData) ([]byte, error) {
	var outer asn1.RawValue
	if _, err := asn1.Unmarshal(sd.Content.Content.Bytes, &outer); err != nil {
		return nil, fmt.Errorf("its SpcIndirectDataContent cannot be read (%w): sign the image again", err)
	}
	var data indirectData
	if _, err := asn1.Unmarshal(outer.FullBytes, &data); err != nil {
		return nil, fmt.Errorf("its SpcIndirectDataContent cannot be read (%w): sign the image again", err)
	}
	alg, err := hashOf(data.Digest.Algorithm)
	if err != nil {
		return nil, err
	}
	s.Algorithm, s.Digest = alg, data.Digest.Sum
	return outer.Bytes, nil
}

func hashOf(id pkix.AlgorithmIdentifier) (crypto.Hash, error) {
	switch id.Algorithm.String() {
	case "1.3.14.3.2.26":
		return crypto.SHA1, nil
	case "2.16.840.1.101.3.4.2.1":
		return crypto.SHA256, nil
	case "2.16.840.1.101.3.4.2.2":
		return crypto.SHA384, nil
	case "2.16.840.1.101.3.4.2.3":
		return crypto.SHA512, nil
	}
	return 0, fmt.Errorf("its digest algorithm %s is unknown to firmware: sign the image again with SHA-256", id.Algorithm)
}

// check verifies the signer's signature over content: RFC 2315, 9.3 and 9.4.
func (i signerInfo) check(signer *x509.Certificate, content []byte) error {
	alg, err := hashOf(i.DigestAlgorithm)
	if err != nil {
		return err
	}
	signed := content
	if len(i.Attributes.FullBytes) > 0 {
		want, err := messageDigest(i.Attributes.Bytes)
		if err != nil {
			return err
		}
		if !bytes.Equal(want, sum(alg, content)) {
			return errors.New("its content was changed after it was signed: fetch the image again")
		}
		// The attributes are signed under the tag of a SET, not under [0].
		signed = bytes.Clone(i.Attributes.FullBytes)
		signed[0] = asn1.TagSet | 0x20
	}
	switch key := signer.PublicKey.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() > maxRSABits {
			return fmt.Errorf("its signer's RSA key has %d bits: no firmware checks that", key.N.BitLen())
		}
		err = rsa.VerifyPKCS1v15(key, alg, sum(alg, signed), i.Signature)
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(key, sum(alg, signed), i.Signature) {
			err = errors.New("ECDSA verification error")
		}
	default:
		return fmt.Errorf("its signer's key is %s: firmware knows RSA, and some ECDSA", signer.PublicKeyAlgorithm)
	}
	if err != nil {
		return fmt.Errorf("it was not made by the key of %s, or was changed afterwards: fetch the image again", name(signer))
	}
	return nil
}

func messageDigest(attributes []byte) (out []byte, err error) {
	for len(attributes) > 0 {
		var a attribute
		if attributes, err = asn1.Unmarshal(attributes, &a); err != nil {
			return nil, fmt.Errorf("its signed attributes cannot be read (%w): sign the image again", err)
		}
		if a.Type.String() != oidMessageDigest {
			continue
		}
		if _, err := asn1.Unmarshal(a.Values.Bytes, &out); err != nil {
			return nil, fmt.Errorf("its attribute messageDigest cannot be read (%w): sign the image again", err)
		}
		return out, nil
	}
	return nil, errors.New("its signed attributes lack messageDigest: sign the image again")
}

func sum(alg crypto.Hash, b []byte) []byte {
	h := alg.New()
	put(h, b)
	return h.Sum(nil)
}

// path returns the certificates from the signer's to the first of anchors that it leads
// to, or nil. An anchor may be any certificate of the path, also the signer's own:
// EDK2 and shim check with X509_V_FLAG_PARTIAL_CHAIN, and without a clock. Go's own
// verifier wants neither, nor Netscape's certificate type, which Debian's CA has as a
// critical extension.
func (s *Signature) path(anchors []*x509.Certificate) []*x509.Certificate {
	if s.Signer == nil || len(anchors) == 0 {
		return nil
	}
	return s.climb([]*x509.Certificate{s.Signer}, anchors, map[*x509.Certificate]bool{s.Signer: true})
}

func (s *Signature) climb(path, anchors []*x509.Certificate, seen map[*x509.Certificate]bool) []*x509.Certificate {
	top := path[len(path)-1]
	for _, a := range anchors {
		if a.Equal(top) {
			return path
		}
	}
	if len(path) == maxChain {
		return nil
	}
	for _, a := range anchors {
		if issued(a, path) {
			return append(path[:len(path):len(path)], a)
		}
	}
	for _, c := range s.Certificates {
		if seen[c] || !issued(c, path) {
			continue
		}
		seen[c] = true // also keeps the search linear
		if found := s.climb(append(path[:len(path):len(path)], c), anchors, seen); found != nil {
			return found
		}
	}
	return nil
}

// issued says whether parent may have issued the last certificate of path, and did.
func issued(parent *x509.Certificate, path []*x509.Certificate) bool {
	child := path[len(path)-1]
	if !bytes.Equal(parent.RawSubject, child.RawIssuer) || !authority(parent) {
		return false
	}
	if parent.BasicConstraintsValid && (parent.MaxPathLen > 0 || parent.MaxPathLenZero) && len(path)-1 > parent.MaxPathLen {
		return false
	}
	if key, ok := parent.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSABits {
		return false
	}
	return parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature) == nil
}

// authority says whether a certificate may issue others, as OpenSSL's check_ca does.
func authority(c *x509.Certificate) bool {
	if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return false
	}
	switch {
	case c.BasicConstraintsValid:
		return c.IsCA
	case c.Version == 1:
		return bytes.Equal(c.RawSubject, c.RawIssuer)
	}
	return c.KeyUsage&x509.KeyUsageCertSign != 0
}

// name is how people call a certificate.
func name(c *x509.Certificate) string {
	return called(c.Subject)
}

func called(n pkix.Name) string {
	if n.CommonName != "" {
		return lane.Clean(n.CommonName, 100)
	}
	if s := n.String(); s != "" {
		return lane.Clean(s, 200)
	}
	return "a certificate without a name"
}
