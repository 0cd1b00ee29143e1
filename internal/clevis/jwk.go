package clevis

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha1" // a thumbprint that clevis takes beside that of SHA-256; what it names is compared, not made
	"crypto/sha256"
	_ "crypto/sha512" // for ES384 and ES512
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"slices"
)

// jwk is a public key on an elliptic curve: RFC 7517.
type jwk struct {
	Alg    string   `json:"alg,omitempty"`
	Crv    string   `json:"crv"`
	KeyOps []string `json:"key_ops,omitempty"`
	Kty    string   `json:"kty"`
	X      string   `json:"x"`
	Y      string   `json:"y"`
}

func (k jwk) can(op string) bool { return slices.Contains(k.KeyOps, op) }

// curve is what goes with the name of a curve.
type curve struct {
	name  string
	alg   string // of signatures on it
	hash  crypto.Hash
	bytes int
	ecdh  ecdh.Curve
	ecdsa elliptic.Curve
}

func curveOf(name string) (curve, error) {
	for _, c := range []curve{
		{"P-256", "ES256", crypto.SHA256, 32, ecdh.P256(), elliptic.P256()},
		{"P-384", "ES384", crypto.SHA384, 48, ecdh.P384(), elliptic.P384()},
		{"P-521", "ES512", crypto.SHA512, 66, ecdh.P521(), elliptic.P521()},
	} {
		if c.name == name {
			return c, nil
		}
	}
	return curve{}, fmt.Errorf("a key is on the curve %q, which is not known here: P-256, P-384 and P-521 are", name)
}

// point returns the key's curve, and its point uncompressed: X and Y after a byte that says so.
func (k jwk) point() (curve, []byte, error) {
	c, err := curveOf(k.Crv)
	if err != nil {
		return c, nil, err
	}
	out := []byte{4}
	for _, v := range []string{k.X, k.Y} {
		b, err := base64.RawURLEncoding.Strict().DecodeString(v)
		if err != nil || len(b) != c.bytes || k.Kty != "EC" {
			return c, nil, fmt.Errorf("a key of the type %q on %s is not written as RFC 7518 has it", k.Kty, k.Crv)
		}
		out = append(out, b...)
	}
	return c, out, nil
}

// exchange is the key for ECDH.
func (k jwk) exchange() (curve, *ecdh.PublicKey, error) {
	c, point, err := k.point()
	if err != nil {
		return c, nil, err
	}
	pub, err := c.ecdh.NewPublicKey(point)
	if err != nil {
		return c, nil, fmt.Errorf("a key is no point of %s: %w", k.Crv, err)
	}
	return c, pub, nil
}

// jwkOf returns a key of ECDH as it is sent.
func jwkOf(c curve, pub *ecdh.PublicKey) jwk {
	b := pub.Bytes()
	return jwk{Crv: c.name, Kty: "EC", X: encode(b[1 : 1+c.bytes]), Y: encode(b[1+c.bytes:])}
}

// newKey makes a key of ECDH.
func newKey(random io.Reader, c curve) (*ecdh.PrivateKey, error) {
	for {
		b, err := randomBytes(random, c.bytes)
		if err != nil {
			return nil, err
		}
		if c.name == "P-521" {
			b[0] &= 1 // 66 bytes are seven bits more than the curve has
		}
		if key, err := c.ecdh.NewPrivateKey(b); err == nil {
			return key, nil
		} // it was not below the curve's order, or zero: less than once in 2^32
	}
}

// thumbprints are the names of the key, the usual one first: RFC 7638, over SHA-256 and over SHA-1.
func (k jwk) thumbprints() []string {
	text, _ := json.Marshal(struct { // no text of a string cannot be marshalled
		Crv string `json:"crv"`
		Kty string `json:"kty"`
		X   string `json:"x"`
		Y   string `json:"y"`
	}{k.Crv, k.Kty, k.X, k.Y})
	long, short := sha256.Sum256(text), sha1.Sum(text)
	return []string{encode(long[:]), encode(short[:])}
}

// signed reports whether the key made a signature of RFC 7515.
func (k jwk) signed(payload string, s signature) bool {
	c, point, err := k.point()
	if err != nil {
		return false
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(c.ecdsa, point)
	if err != nil {
		return false
	}
	var header struct {
		Alg  string          `json:"alg"`
		Crit json.RawMessage `json:"crit"`
	}
	text, err1 := base64.RawURLEncoding.DecodeString(s.Protected)
	sig, err2 := base64.RawURLEncoding.DecodeString(s.Signature)
	if err1 != nil || err2 != nil || json.Unmarshal(text, &header) != nil {
		return false
	}
	if header.Alg != c.alg || header.Crit != nil || k.Alg != "" && k.Alg != c.alg || len(sig) != 2*c.bytes {
		return false
	}
	h := c.hash.New()
	h.Write([]byte(s.Protected + "." + payload))
	return ecdsa.Verify(pub, h.Sum(nil), new(big.Int).SetBytes(sig[:c.bytes]), new(big.Int).SetBytes(sig[c.bytes:]))
}
