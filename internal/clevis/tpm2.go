package clevis

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// SealTPM2 seals a passphrase to a TPM 2.0, whatever the machine has started: to no PCR.
// The TPM holds the key of the content, as the JSON that clevis-encrypt-tpm2 has it hold.
func SealTPM2(rw io.ReadWriter, random io.Reader, passphrase []byte) (JWE, error) {
	tpm := transport.FromReadWriter(rw)
	key, err := randomBytes(random, contentKeyBytes)
	if err != nil {
		return JWE{}, err
	}
	secret, err := json.Marshal(struct {
		Alg    string   `json:"alg"`
		K      string   `json:"k"`
		KeyOps []string `json:"key_ops"`
		Kty    string   `json:"kty"`
	}{contentAlgorithm, encode(key), []string{"encrypt", "decrypt"}, "oct"})
	if err != nil {
		return JWE{}, err
	}
	public, private, err := keep(tpm, secret)
	if err != nil {
		return JWE{}, err
	}
	got, err := unseal(tpm, public, private)
	if err != nil {
		return JWE{}, err
	}
	if !bytes.Equal(got, secret) {
		return JWE{}, errors.New("the TPM gives back something else than it was given")
	}
	header := map[string]any{"alg": "dir", "enc": contentAlgorithm, "clevis": map[string]any{"pin": "tpm2", "tpm2": map[string]any{
		"hash": "sha256", "key": "ecc", "jwk_pub": encode(tpm2.Marshal(public)), "jwk_priv": encode(tpm2.Marshal(private))}}}
	return seal(random, key, header, passphrase)
}

// withPrimary calls f with the key of the owner's hierarchy that tpm2_createprimary makes by
// itself: the TPM makes the same one out of the same template each time.
func withPrimary(tpm transport.TPM, f func(tpm2.AuthHandle) error) error {
	made, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHOwner,
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type:    tpm2.TPMAlgECC,
			NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{
				FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Restricted: true, Decrypt: true},
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
				Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgAES,
					KeyBits: tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(128)),
					Mode:    tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB)},
				CurveID: tpm2.TPMECCNistP256}),
			Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
		}),
	}.Execute(tpm)
	if err != nil {
		return fmt.Errorf("make the primary key of the TPM's owner: %w", err)
	}
	err = f(tpm2.AuthHandle{Handle: made.ObjectHandle, Name: made.Name, Auth: tpm2.PasswordAuth(nil)})
	return errors.Join(err, flush(tpm, made.ObjectHandle))
}

func flush(tpm transport.TPM, h tpm2.TPMHandle) error {
	if _, err := (tpm2.FlushContext{FlushHandle: h}).Execute(tpm); err != nil {
		return fmt.Errorf("have the TPM forget a key: %w", err)
	}
	return nil
}

// keep has the TPM encrypt a secret for itself.
func keep(tpm transport.TPM, secret []byte) (public tpm2.TPM2BPublic, private tpm2.TPM2BPrivate, err error) {
	err = withPrimary(tpm, func(primary tpm2.AuthHandle) error {
		made, err := tpm2.Create{
			ParentHandle: primary,
			InSensitive:  tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secret})}},
			InPublic: tpm2.New2B(tpm2.TPMTPublic{
				Type:             tpm2.TPMAlgKeyedHash,
				NameAlg:          tpm2.TPMAlgSHA256,
				ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, UserWithAuth: true, AdminWithPolicy: true, NoDA: true},
			}),
		}.Execute(tpm)
		if err != nil {
			return fmt.Errorf("seal a key to the TPM: %w", err)
		}
		public, private = made.OutPublic, made.OutPrivate
		return nil
	})
	return public, private, err
}

// unseal does what clevis-decrypt-tpm2 does at a boot.
func unseal(tpm transport.TPM, public tpm2.TPM2BPublic, private tpm2.TPM2BPrivate) (secret []byte, err error) {
	err = withPrimary(tpm, func(primary tpm2.AuthHandle) error {
		loaded, err := tpm2.Load{ParentHandle: primary, InPublic: public, InPrivate: private}.Execute(tpm)
		if err != nil {
			return fmt.Errorf("load a sealed key into the TPM: %w", err)
		}
		got, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: loaded.ObjectHandle, Name: loaded.Name, Auth: tpm2.PasswordAuth(nil)}}.Execute(tpm)
		if err == nil {
			secret = got.OutData.Buffer
		} else {
			err = fmt.Errorf("unseal a key by the TPM: %w", err)
		}
		return errors.Join(err, flush(tpm, loaded.ObjectHandle))
	})
	return secret, err
}
