package trust

import (
	"crypto"
	"fmt"
	"io"
	"time"

	"aead.dev/minisign"
	"golang.org/x/crypto/blake2b"

	"bootlane/internal/lane"
)

// Raw makes the Ed25519 signature, 64 bytes, of a message: what an HSM does.
type Raw func(message []byte) ([]byte, error)

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

// FromFile returns what signs with a private key, and the public key.
func FromFile(private []byte, passphrase string) (Raw, minisign.PublicKey, error) {
	var key minisign.PrivateKey
	var err error
	if Encrypted(private) {
		if key, err = minisign.DecryptKey(passphrase, private); err != nil {
			return nil, minisign.PublicKey{}, lane.Errorf(lane.Invalid, "the private key does not open: the passphrase is wrong, or the file is damaged")
		}
	} else if err = key.UnmarshalText(private); err != nil {
		return nil, minisign.PublicKey{}, lane.Errorf(lane.Invalid, "that is not a minisign private key: `bootlane bundle keygen` makes one")
	}
	pub, ok := key.Public().(minisign.PublicKey)
	if !ok {
		return nil, pub, fmt.Errorf("the private key has no public one")
	}
	return func(message []byte) ([]byte, error) { return key.Sign(nil, message, crypto.Hash(0)) }, pub, nil
}

// ParsePublic reads a public key, with its comment or without.
func ParsePublic(text []byte) (key minisign.PublicKey, err error) {
	if err := key.UnmarshalText(text); err != nil {
		return key, lane.Errorf(lane.Invalid, "that is not a minisign public key: a line of base64 that begins with RW")
	}
	return key, nil
}

// Sign makes the signature file of a message, called name in its signed comment. What
// raw makes is checked with the public key before it is returned.
func Sign(message []byte, name string, raw Raw, public minisign.PublicKey, now time.Time) ([]byte, error) {
	hash := blake2b.Sum512(message)
	sig := minisign.Signature{Algorithm: minisign.HashEdDSA, KeyID: public.ID(),
		UntrustedComment: "signature by the key " + KeyID(public.ID()), TrustedComment: fmt.Sprintf("timestamp:%d\tfile:%s\thashed", now.Unix(), name)}
	s, err := raw(hash[:])
	if err == nil && len(s) != len(sig.Signature) {
		err = fmt.Errorf("%d bytes are no Ed25519 signature", len(s))
	}
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", name, err)
	}
	copy(sig.Signature[:], s)
	if s, err = raw(append(s, sig.TrustedComment...)); err == nil && len(s) != len(sig.CommentSignature) {
		err = fmt.Errorf("%d bytes are no Ed25519 signature", len(s))
	}
	if err != nil {
		return nil, fmt.Errorf("sign the comment of %s: %w", name, err)
	}
	copy(sig.CommentSignature[:], s)
	text, err := sig.MarshalText()
	if err != nil {
		return nil, fmt.Errorf("write the signature of %s: %w", name, err)
	}
	if !minisign.Verify(public, message, text) {
		return nil, lane.Errorf(lane.Refused, "the signature of %s does not fit the public key %s: another private key made it", name, KeyID(public.ID()))
	}
	return append(text, '\n'), nil
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
