package trust

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"aead.dev/minisign"
	"golang.org/x/crypto/blake2b"

	"bootlane/internal/lane"
)

// Raw makes the Ed25519 signature, 64 bytes, of a message: what an HSM does.
type Raw func(message []byte) ([]byte, error)

// Signer signs with one key.
type Signer struct {
	Public minisign.PublicKey
	sign   func(message []byte, trusted, untrusted string) ([]byte, error)
}

// NewKey makes a key pair. Without a passphrase the private key is not encrypted.
func NewKey(random io.Reader, passphrase string) (private, public []byte, err error) {
	pub, priv, err := minisign.GenerateKey(random)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key pair: %w", err)
	}
	if passphrase == "" {
		private, err = priv.MarshalText()
	} else {
		private, err = minisign.EncryptKey(passphrase, priv)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("write the private key: %w", err)
	}
	if public, err = pub.MarshalText(); err != nil {
		return nil, nil, fmt.Errorf("write the public key: %w", err)
	}
	return append(private, '\n'), append(public, '\n'), nil
}

// Encrypted reports whether a private key needs a passphrase.
func Encrypted(private []byte) bool { return minisign.IsEncrypted(private) }

// FromFile returns what signs with a private key.
func FromFile(private []byte, passphrase string) (Signer, error) {
	var key minisign.PrivateKey
	var err error
	if Encrypted(private) {
		if key, err = minisign.DecryptKey(passphrase, private); err != nil {
			return Signer{}, lane.Errorf(lane.Invalid, "the private key does not open: the passphrase is wrong, or the file is damaged")
		}
	} else if err = key.UnmarshalText(private); err != nil {
		return Signer{}, lane.Errorf(lane.Invalid, "that is not a minisign private key: `bootlane bundle keygen` makes one")
	}
	public, ok := key.Public().(minisign.PublicKey)
	if !ok {
		return Signer{}, errors.New("the private key has no public one")
	}
	return Signer{public, func(message []byte, trusted, untrusted string) ([]byte, error) {
		r := minisign.NewReader(bytes.NewReader(message))
		_, err := io.Copy(io.Discard, r) // it hashes what is read
		return r.SignWithComments(key, trusted, untrusted), err
	}}, nil
}

// External returns what signs with a key that only raw can use.
func External(raw Raw, public minisign.PublicKey) Signer {
	once := func(into *[64]byte, message []byte) error {
		s, err := raw(message)
		if err == nil && len(s) != len(into) {
			err = fmt.Errorf("%d bytes are no Ed25519 signature", len(s))
		}
		copy(into[:], s)
		return err
	}
	return Signer{public, func(message []byte, trusted, untrusted string) ([]byte, error) {
		sig := minisign.Signature{Algorithm: minisign.HashEdDSA, KeyID: public.ID(), UntrustedComment: untrusted, TrustedComment: trusted}
		hash := blake2b.Sum512(message)
		if err := once(&sig.Signature, hash[:]); err != nil {
			return nil, err
		}
		if err := once(&sig.CommentSignature, append(sig.Signature[:], trusted...)); err != nil {
			return nil, err
		}
		return sig.MarshalText()
	}}
}

// ParsePublic reads a public key, with its comment or without.
func ParsePublic(text []byte) (key minisign.PublicKey, err error) {
	if err := key.UnmarshalText(text); err != nil {
		return key, lane.Errorf(lane.Invalid, "that is not a minisign public key: a line of base64 that begins with RW")
	}
	return key, nil
}

// Sign makes the signature file of a message, called name in its signed comment. It is
// checked with the public key before it is returned.
func (s Signer) Sign(message []byte, name string, now time.Time) ([]byte, error) {
	id := KeyID(s.Public.ID())
	text, err := s.sign(message, fmt.Sprintf("timestamp:%d\tfile:%s\thashed", now.Unix(), name), "signature by the key "+id)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", name, err)
	}
	if !minisign.Verify(s.Public, message, text) {
		return nil, lane.Errorf(lane.Refused, "the signature of %s does not fit the public key %s: another private key made it", name, id)
	}
	return append(bytes.TrimRight(text, "\n"), '\n'), nil
}

// SignedBy returns the number of the key that a signature file says to be of; nothing
// when it is none.
func SignedBy(text []byte) string {
	var sig minisign.Signature
	if sig.UnmarshalText(text) != nil {
		return ""
	}
	return KeyID(sig.KeyID)
}
