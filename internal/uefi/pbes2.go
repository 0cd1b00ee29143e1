package uefi

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"

	"bootlane/internal/lane"
)

// Private keys under a passphrase: EncryptedPrivateKeyInfo of RFC 5958 with PBES2 of
// RFC 8018, by PBKDF2 with HMAC-SHA-256 and AES-256-CBC, as OpenSSL writes by itself. The
// standard library has the parts and not the format.
const (
	oidPBES2      = "1.2.840.113549.1.5.13"
	oidPBKDF2     = "1.2.840.113549.1.5.12"
	oidHMACSHA256 = "1.2.840.113549.2.9"
	oidAES256CBC  = "2.16.840.1.101.3.4.1.42"
	keyRounds     = 600_000    // OWASP's number for PBKDF2-HMAC-SHA256
	maxKeyRounds  = 10_000_000 // some seconds: a file may not ask for more
)

type encryptedKey struct {
	Algorithm struct {
		ID     asn1.ObjectIdentifier
		Params struct {
			KDF struct {
				ID     asn1.ObjectIdentifier
				Params struct {
					Salt   []byte
					Rounds int
					Length int                      `asn1:"optional"`
					PRF    pkix.AlgorithmIdentifier `asn1:"optional"`
				}
			}
			Cipher struct {
				ID asn1.ObjectIdentifier
				IV []byte
			}
		}
	}
	Data []byte
}

// sealKey encrypts a PKCS#8 key.
func sealKey(plain, passphrase []byte, random io.Reader) ([]byte, error) {
	seed := make([]byte, 16+aes.BlockSize)
	if _, err := io.ReadFull(random, seed); err != nil {
		return nil, fmt.Errorf("make a salt: %w", err)
	}
	salt, iv := seed[:16], seed[16:]
	block, err := keyCipher(passphrase, salt, keyRounds)
	if err != nil {
		return nil, err
	}
	pad := aes.BlockSize - len(plain)%aes.BlockSize
	data := append(bytes.Clone(plain), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(data, data)
	rounds, err := asn1.Marshal(keyRounds)
	if err != nil {
		return nil, fmt.Errorf("write the encrypted key: %w", err)
	}
	kdf := der(tagSequence, oid(oidPBKDF2), der(tagSequence, der(asn1.TagOctetString, salt), rounds, der(tagSequence, oid(oidHMACSHA256), der(asn1.TagNull))))
	method := der(tagSequence, oid(oidPBES2), der(tagSequence, kdf, der(tagSequence, oid(oidAES256CBC), der(asn1.TagOctetString, iv))))
	return der(tagSequence, method, der(asn1.TagOctetString, data)), nil
}

// openKey decrypts one, and returns the PKCS#8 key.
func openKey(raw, passphrase []byte) ([]byte, error) {
	if len(passphrase) == 0 {
		return nil, lane.Errorf(lane.Invalid, "the private key is encrypted: give its passphrase")
	}
	var k encryptedKey
	if _, err := asn1.Unmarshal(raw, &k); err != nil {
		return nil, lane.Errorf(lane.Invalid, "the encrypted key is not PBES2 with PBKDF2 and AES-256-CBC (%v): write it anew with `openssl pkcs8 -topk8 -v2 aes-256-cbc`", err)
	}
	p := k.Algorithm.Params
	kdf, c := p.KDF.Params, p.Cipher
	if k.Algorithm.ID.String() != oidPBES2 || p.KDF.ID.String() != oidPBKDF2 || kdf.PRF.Algorithm.String() != oidHMACSHA256 || c.ID.String() != oidAES256CBC {
		return nil, lane.Errorf(lane.Invalid, "the encrypted key is not PBES2 with PBKDF2, HMAC-SHA-256 and AES-256-CBC: write it anew with `openssl pkcs8 -topk8 -v2 aes-256-cbc`")
	}
	if kdf.Rounds < 1 || kdf.Rounds > maxKeyRounds || len(c.IV) != aes.BlockSize || len(k.Data) == 0 || len(k.Data)%aes.BlockSize != 0 {
		return nil, lane.Errorf(lane.Invalid, "the encrypted key is damaged: %d rounds of PBKDF2, %d bytes of data", kdf.Rounds, len(k.Data))
	}
	block, err := keyCipher(passphrase, kdf.Salt, kdf.Rounds)
	if err != nil {
		return nil, err
	}
	data := bytes.Clone(k.Data)
	cipher.NewCBCDecrypter(block, c.IV).CryptBlocks(data, data)
	pad := int(data[len(data)-1])
	if pad < 1 || pad > aes.BlockSize || !bytes.Equal(data[len(data)-pad:], bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, errWrongPassphrase()
	}
	// One wrong passphrase in 256 leaves something that ends like padding.
	plain := data[:len(data)-pad]
	var key asn1.RawValue
	if rest, err := asn1.Unmarshal(plain, &key); err != nil || len(rest) > 0 || key.Tag != asn1.TagSequence {
		return nil, errWrongPassphrase()
	}
	return plain, nil
}

func errWrongPassphrase() error {
	return lane.Errorf(lane.Invalid, "the passphrase is not that of the private key")
}

func keyCipher(passphrase, salt []byte, rounds int) (cipher.Block, error) {
	key, err := pbkdf2.Key(sha256.New, string(passphrase), salt, rounds, 32)
	if err != nil {
		return nil, fmt.Errorf("make a key of the passphrase: %w", err)
	}
	return aes.NewCipher(key)
}
