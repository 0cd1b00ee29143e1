// Package clevis makes the tokens by which Clevis opens a LUKS2 container at a boot: a passphrase
// that is sealed to what is to be there then, a Tang server or the machine's own TPM 2.0. Each is
// tried before it is returned: what is sealed comes back.
//
// What is made is what clevis-encrypt-tang and clevis-encrypt-tpm2 of Clevis 19 make, and what
// their other halves read.
package clevis

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// JWE is a sealed passphrase: RFC 7516, in its flattened form, as a token of LUKS2 has it.
type JWE struct {
	Ciphertext   string `json:"ciphertext"`
	EncryptedKey string `json:"encrypted_key"` // always empty: the key is agreed upon, or lies in the TPM
	IV           string `json:"iv"`
	Protected    string `json:"protected"`
	Tag          string `json:"tag"`
}

// Token returns the token of LUKS2 that has it, but for `keyslots`.
func (j JWE) Token() map[string]any { return map[string]any{"type": "clevis", "jwe": j} }

const (
	contentAlgorithm = "A256GCM"
	contentKeyBytes  = 32
)

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func randomBytes(random io.Reader, n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(random, b); err != nil {
		return nil, fmt.Errorf("read %d random bytes: %w", n, err)
	}
	return b, nil
}

// seal encrypts a text under a key, and with it the header, which stays readable.
func seal(random io.Reader, key []byte, header any, text []byte) (JWE, error) {
	protected, err := json.Marshal(header)
	if err != nil {
		return JWE{}, fmt.Errorf("write the header: %w", err)
	}
	aead, err := gcm(key)
	if err != nil {
		return JWE{}, err
	}
	iv, err := randomBytes(random, aead.NonceSize())
	if err != nil {
		return JWE{}, err
	}
	j := JWE{IV: encode(iv), Protected: encode(protected)}
	out := aead.Seal(nil, iv, text, []byte(j.Protected))
	cut := len(out) - aead.Overhead()
	j.Ciphertext, j.Tag = encode(out[:cut]), encode(out[cut:])
	return j, nil
}

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// agreed makes the key of a content out of what two parties of ECDH-ES share: the Concat KDF of
// RFC 7518, section 4.6.2, of which one round is enough.
func agreed(shared []byte) []byte {
	h := sha256.New()
	field := func(b string) {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
		h.Write([]byte(b))
	}
	h.Write([]byte{0, 0, 0, 1})
	h.Write(shared)
	field(contentAlgorithm)
	field("") // nothing is known of either party
	field("")
	h.Write(binary.BigEndian.AppendUint32(nil, 8*contentKeyBytes))
	return h.Sum(nil)
}
