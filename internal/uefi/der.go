package uefi

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"slices"
	"time"

	"bootlane/internal/lane"
)

// Signer makes signatures: an RSA key, and the certificate that vouches for it.
type Signer struct {
	// Key signs digests by RSASSA-PKCS1-v1_5; it may be a token that never shows its key.
	Key         crypto.Signer
	Certificate *x509.Certificate
}

// The shortest key that UEFI asks for, and the longest that firmware is known to check.
const (
	minRSABits   = 2048
	maxOwnerBits = 4096
)

// check refuses a signer whose signatures firmware would not take.
func (s Signer) check() error {
	key, ok := s.Certificate.PublicKey.(*rsa.PublicKey)
	if !ok {
		return lane.Errorf(lane.Invalid, "the key of %q is %s: all firmware checks RSA, and little of it anything else; make an RSA key (bootlane uefi keygen)", name(s.Certificate), s.Certificate.PublicKeyAlgorithm)
	}
	if n := key.N.BitLen(); n < minRSABits || n > maxRSABits {
		return lane.Errorf(lane.Invalid, "the RSA key of %q has %d bits: firmware takes %d to %d", name(s.Certificate), n, minRSABits, maxOwnerBits)
	}
	if !key.Equal(s.Key.Public()) {
		return lane.Errorf(lane.Invalid, "the certificate %q is of another key: give the pair", name(s.Certificate))
	}
	return nil
}

// sign signs content, and returns the signature only if the certificate confirms it: a
// token may have answered with another key.
func (s Signer) sign(content []byte) ([]byte, error) {
	digest := sum(crypto.SHA256, content)
	sig, err := s.Key.Sign(nil, digest, crypto.SHA256) // PKCS #1 v1.5 uses no randomness
	if err != nil {
		return nil, err
	}
	key, ok := s.Certificate.PublicKey.(*rsa.PublicKey)
	if !ok || rsa.VerifyPKCS1v15(key, crypto.SHA256, digest, sig) != nil {
		return nil, lane.Errorf(lane.Invalid, "what the key answered is no RSASSA-PKCS1-v1_5 signature of the SHA-256 digest by the key of %q (%d bytes came)", name(s.Certificate), len(sig))
	}
	return sig, nil
}

// signedDataOf makes the SignedData of PKCS#7 (RFC 2315, 9.1) with one signer. Authenticode
// wants the content in it and attributes that are signed in its place (at says when);
// UEFI's variables want neither, and at is zero.
func (s Signer) signedDataOf(contentType string, content []byte, at time.Time) ([]byte, error) {
	inside, attributes, signed := der(tagSequence, oid(contentType)), []byte(nil), content
	if !at.IsZero() {
		inside = der(tagSequence, oid(contentType), der(tagExplicit0, der(tagSequence, content)))
		set := sortedSet(
			der(tagSequence, oid(oidContentType), der(tagSet, oid(contentType))),
			der(tagSequence, oid(oidSigningTime), der(tagSet, der(asn1.TagUTCTime, []byte(at.UTC().Format("060102150405Z"))))),
			der(tagSequence, oid(oidMessageDigest), der(tagSet, der(asn1.TagOctetString, sum(crypto.SHA256, content)))),
		)
		// Signed under the tag of a SET, stored under [0].
		signed, attributes = der(tagSet, set), der(tagExplicit0, set)
	}
	sig, err := s.sign(signed)
	if err != nil {
		return nil, err
	}
	one := der(asn1.TagInteger, []byte{1})
	sha256 := der(tagSequence, oid(oidSHA256), der(asn1.TagNull))
	serial, err := asn1.Marshal(s.Certificate.SerialNumber)
	if err != nil {
		return nil, lane.Errorf(lane.Invalid, "the serial number of %q: %v", name(s.Certificate), err)
	}
	signer := der(tagSequence, one, der(tagSequence, s.Certificate.RawIssuer, serial), sha256, attributes,
		der(tagSequence, oid(oidRSA), der(asn1.TagNull)), der(asn1.TagOctetString, sig))
	return der(tagSequence, one, der(tagSet, sha256), inside, der(tagExplicit0, s.Certificate.Raw), der(tagSet, signer)), nil
}

const (
	oidSHA256      = "2.16.840.1.101.3.4.2.1"
	oidRSA         = "1.2.840.113549.1.1.1"
	oidData        = "1.2.840.113549.1.7.1"
	oidContentType = "1.2.840.113549.1.9.3"
	oidSigningTime = "1.2.840.113549.1.9.5"
	oidPEImageData = "1.3.6.1.4.1.311.2.1.15"
)

// Tags of constructed values: X.690, 8.1.2.
const (
	tagSequence  = 0x20 | asn1.TagSequence
	tagSet       = 0x20 | asn1.TagSet
	tagExplicit0 = 0xa0
	tagExplicit2 = 0xa2
)

// der is one value of ASN.1 in DER: X.690, 8.1 and 10.1.
func der(tag byte, parts ...[]byte) []byte {
	content := slices.Concat(parts...)
	n := len(content)
	head := []byte{tag, byte(n)}
	switch {
	case n >= 1<<16:
		head = []byte{tag, 0x83, byte(n >> 16), byte(n >> 8), byte(n)}
	case n >= 1<<8:
		head = []byte{tag, 0x82, byte(n >> 8), byte(n)}
	case n >= 1<<7:
		head = []byte{tag, 0x81, byte(n)}
	}
	return append(head, content...)
}

// oid is an object identifier from its dotted form; the forms here are constants.
func oid(dotted string) []byte {
	id, err := x509.ParseOID(dotted)
	if err != nil {
		return nil
	}
	b, err := id.MarshalBinary()
	if err != nil {
		return nil
	}
	return der(asn1.TagOID, b)
}

// sortedSet is the content of a SET OF: DER sorts its members by their bytes (X.690, 11.6).
func sortedSet(members ...[]byte) []byte {
	slices.SortFunc(members, slices.Compare)
	return slices.Concat(members...)
}
