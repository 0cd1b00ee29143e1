package cli

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"bootlane/internal/lane"
	"bootlane/internal/uefi"
)

// ownerFile holds the GUID under which an owner's entries stand in firmware.
const ownerFile = "owner.guid"

const uefiKeygenLong = `Make the keys with which you own your machines' Secure Boot, and self-signed
certificates of them, into the new or empty directory DIR:

  PK   owns the machine: signs changes of PK and KEK; keep it offline
  KEK  signs changes of db and dbx
  db   signs boot loaders and kernels

Each is NAME.key, which only you may read, and NAME.pem; owner.guid is the GUID under
which firmware lists what is yours. The keys are encrypted with a passphrase, which is
asked for or read from --passphrase-file. Give NAMEs to make only some, as for a
rotation. Nothing is overwritten. No server is asked.`

type keygenFlags struct {
	name, owner, passphrase string
	noPassphrase            bool
	bits, years             int
}

func (a *app) uefiKeygenCmd() *cobra.Command {
	var k keygenFlags
	cmd := &cobra.Command{Use: "keygen DIR [PK|KEK|db]...", Short: "make the keys PK, KEK and db", Long: uefiKeygenLong, Args: args(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, argv []string) error { return a.keygen(k, argv[0], argv[1:]) }}
	f := cmd.Flags()
	f.StringVar(&k.name, "name", "Bootlane", "`whose` keys they are: the certificates are called \"NAME PK\" and so on")
	f.StringVar(&k.owner, "owner", "", "`GUID` of an owner that there is; else a new one is made")
	f.StringVar(&k.passphrase, "passphrase-file", "", "`file` whose first line is the passphrase")
	f.BoolVar(&k.noPassphrase, "no-passphrase", false, "do not encrypt the private keys")
	f.IntVar(&k.bits, "bits", 2048, "length of the RSA keys: 2048, 3072 or 4096; all firmware takes 2048")
	f.IntVar(&k.years, "years", 10, "validity of the certificates; firmware does not look at it")
	return cmd
}

func (a *app) keygen(k keygenFlags, dir string, names []string) error {
	all := []string{uefi.PlatformKey, uefi.KeyExchangeKey, uefi.SignatureDatabase}
	if len(names) == 0 {
		names = all
	}
	for _, n := range names {
		if !slices.Contains(all, n) {
			return usageError{fmt.Errorf("%q is no key of Secure Boot: use PK, KEK or db", n)}
		}
	}
	owner, err := uefi.NewGUID(a.Rand)
	if k.owner != "" {
		owner, err = uefi.ParseGUID(k.owner)
	}
	if err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(dir, ownerFile)); err == nil {
		return lane.Errorf(lane.Conflict, "%s has keys already, and keys are never overwritten: name another directory", dir)
	}
	passphrase, err := a.newPassphrase(k.passphrase, k.noPassphrase)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the keys' directory: %w", err)
	}
	if err := writeNew(filepath.Join(dir, ownerFile), []byte(owner.String()+"\n"), 0o644); err != nil {
		return err
	}
	made := []map[string]string{}
	for _, n := range names {
		s, err := uefi.NewKey(uefi.KeyRequest{Name: k.name + " " + n, Bits: k.bits, NotBefore: a.Now(), Years: k.years, SignsCode: n == uefi.SignatureDatabase}, a.Rand)
		if err != nil {
			return err
		}
		key, err := s.EncodeKey([]byte(passphrase), a.Rand)
		if err != nil {
			return err
		}
		if err := writeNew(filepath.Join(dir, n+".key"), key, 0o600); err != nil {
			return err
		}
		if err := writeNew(filepath.Join(dir, n+".pem"), uefi.EncodeCertificate(s.Certificate), 0o644); err != nil {
			return err
		}
		made = append(made, map[string]string{"key": filepath.Join(dir, n+".key"), "certificate": filepath.Join(dir, n+".pem"), "subject": s.Certificate.Subject.CommonName})
	}
	return a.show(made, func(w io.Writer) {
		fmt.Fprintf(w, "%s: owner %s\n", dir, owner)
		for _, m := range made {
			fmt.Fprintf(w, "  %s  %q\n", m["certificate"], m["subject"])
		}
	})
}

// newPassphrase is what is to protect new keys; nothing only when that is said.
func (a *app) newPassphrase(file string, none bool) (string, error) {
	if none {
		return "", nil
	}
	passphrase, err := a.passphrase(file, "Passphrase for the new keys")
	if err == nil && passphrase == "" {
		err = usageError{errors.New("the passphrase is empty: give one, or --no-passphrase where something else protects the files")}
	}
	return passphrase, err
}

const uefiSignLong = `Sign a UEFI image (boot loader, kernel) with your key, and write it as OUT, which may
be FILE itself. Signatures that it has stay, so that Debian's shim can be signed by
Microsoft and by you. The PE checksum is made anew. No server is asked.

  bootlane uefi sign --certificate keys/db.pem --key keys/db.key ipxe.efi ipxe-signed.efi

With --command the key may be in a token: the program gets the SHA-256 digest to sign on
its standard input, 32 bytes, and writes the RSASSA-PKCS1-v1_5 signature, plain or in
base64; BOOTLANE_KEY is the certificate's file without .pem. With OpenSSL:

  --command 'openssl pkeyutl -sign -pkeyopt digest:sha256 -engine pkcs11 \
    -keyform engine -inkey "pkcs11:object=db;type=private"'`

func (a *app) uefiSignCmd() *cobra.Command {
	var k uefiKeyFlags
	cmd := &cobra.Command{Use: "sign --certificate FILE (--key FILE | --command PROGRAM) FILE OUT", Short: "sign a UEFI image with your key", Long: uefiSignLong, Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			by, err := k.pair(cmd.Context(), a)
			if err != nil {
				return err
			}
			image, err := readImage(argv[0])
			if err != nil {
				return err
			}
			out, err := uefi.Sign(image, by, a.Now())
			if err != nil {
				return fmt.Errorf("%s: %w", argv[0], err)
			}
			if err := replace(argv[1], out); err != nil {
				return err
			}
			done := map[string]any{"file": argv[1], "signer": by.Certificate.Subject.CommonName, "changed": !bytes.Equal(image, out)}
			return a.show(done, func(w io.Writer) {
				if bytes.Equal(image, out) {
					fmt.Fprintf(w, "%s was signed by %q already\n", argv[1], by.Certificate.Subject.CommonName)
					return
				}
				fmt.Fprintf(w, "%s is signed by %q\n", argv[1], by.Certificate.Subject.CommonName)
			})
		}}
	k.registerPair(cmd)
	return cmd
}

// replace writes a file in one step: whoever reads it has the old bytes or the new ones.
func replace(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".bootlane-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // what is left of an attempt
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// uefiKeyFlags say how private keys are used.
type uefiKeyFlags struct {
	certificate, key        string // of a verb that signs with one pair
	passphraseFile, command string
	secret                  string // the passphrase, once it was asked for
}

func (k *uefiKeyFlags) registerPair(cmd *cobra.Command) {
	cmd.Flags().StringVar(&k.certificate, "certificate", "", "`file` with the certificate of the key")
	cmd.Flags().StringVar(&k.key, "key", "", "`file` with the private key, PEM")
	k.register(cmd)
}

// pair returns who signs, as the flags of registerPair say.
func (k *uefiKeyFlags) pair(ctx context.Context, a *app) (uefi.Signer, error) {
	if k.certificate == "" || (k.key == "") == (k.command == "") {
		return uefi.Signer{}, usageError{fmt.Errorf("to sign takes --certificate, and either --key or --command")}
	}
	return k.signer(ctx, a, k.certificate, k.key)
}

// signImages makes the detached signatures that a bundle's iPXE checks.
func (k *uefiKeyFlags) signImages(ctx context.Context, a *app, dir string, files []string) error {
	if len(files) == 0 {
		return usageError{fmt.Errorf("nothing is to be signed for iPXE: no loader of the bundle has imageTrust: true; the bundle itself is signed by `bootlane bundle sign`")}
	}
	by, err := k.pair(ctx, a)
	if err != nil {
		return err
	}
	for _, f := range files {
		name := strings.TrimSuffix(f, lane.ImageSignatureExt)
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		signature, err := uefi.Detached(content, by)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := replace(filepath.Join(dir, f), signature); err != nil {
			return err
		}
	}
	return nil
}

func (k *uefiKeyFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&k.passphraseFile, "passphrase-file", "", "`file` whose first line is the passphrase of the private keys")
	cmd.Flags().StringVar(&k.command, "command", "", "`program`, with arguments, that signs the digest it reads, in place of key files; the shell runs it")
}

// signer returns who signs: a certificate with its key, from a file or behind a program.
func (k *uefiKeyFlags) signer(ctx context.Context, a *app, certificate, key string) (uefi.Signer, error) {
	c, err := readCertificate(certificate)
	if err != nil {
		return uefi.Signer{}, err
	}
	if k.command != "" {
		name := strings.TrimSuffix(filepath.Base(certificate), ".pem")
		return uefi.Signer{Certificate: c, Key: commandKey{c.PublicKey, external(ctx, k.command, name, a.Stderr)}}, nil
	}
	data, err := os.ReadFile(key)
	if err != nil {
		return uefi.Signer{}, err
	}
	if uefi.Encrypted(data) && k.secret == "" {
		if k.secret, err = a.passphrase(k.passphraseFile, "Passphrase of "+key); err != nil {
			return uefi.Signer{}, err
		}
	}
	private, err := uefi.ParseKey(data, []byte(k.secret))
	if err != nil {
		return uefi.Signer{}, fmt.Errorf("%s: %w", key, err)
	}
	return uefi.Signer{Key: private, Certificate: c}, nil
}

// readCertificate reads the one certificate of a file.
func readCertificate(path string) (*x509.Certificate, error) {
	list, err := readCertificates(path)
	if err == nil && len(list) != 1 {
		err = lane.Errorf(lane.Invalid, "%s has %d certificates, not one", path, len(list))
	}
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

func readCertificates(path string) ([]*x509.Certificate, error) {
	data, err := readImage(path)
	if err != nil {
		return nil, err
	}
	d, err := uefi.ParseDatabase(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d.Certificates, nil
}

// commandKey is a private key that only a program can use: of a token, or of a service.
type commandKey struct {
	public crypto.PublicKey
	run    func(digest []byte) ([]byte, error)
}

// Public returns the certificate's key.
func (k commandKey) Public() crypto.PublicKey { return k.public }

// Sign runs the program: a digest in, a signature out. Whether it is one, and by this key, is
// for the caller to check.
func (k commandKey) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	return k.run(digest)
}
