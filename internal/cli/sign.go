package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"bootlane/internal/bundle"
	"bootlane/internal/lane"
	"bootlane/internal/trust"
)

// keyFlags say where a private key is, and what opens it.
type keyFlags struct {
	key, passphraseFile string
	command, public     string
	noPassphrase        bool
}

const bundleKeygenLong = `Make a key pair in minisign's format: NAME.key, which signs and must never come near a
server, and NAME.pub, whose line belongs into the server's trust file. The private key
is encrypted with a passphrase, which is asked for or read from --passphrase-file.`

func (a *app) bundleKeygenCmd() *cobra.Command {
	var k keyFlags
	cmd := &cobra.Command{Use: "keygen NAME", Short: "make a key pair to sign bundles with", Long: bundleKeygenLong, Args: args(cobra.ExactArgs(1)), RunE: func(_ *cobra.Command, argv []string) error {
		for _, name := range []string{argv[0] + ".key", argv[0] + ".pub"} {
			if _, err := os.Lstat(name); err == nil {
				return fmt.Errorf("%s exists already, and a key that is overwritten does not come back: choose another NAME, or move that file away", name)
			}
		}
		var passphrase string
		var err error
		if !k.noPassphrase {
			if passphrase, err = a.passphrase(k.passphraseFile, "Passphrase for the new key"); err != nil {
				return err
			}
			if passphrase == "" {
				return usageError{errors.New("no passphrase was given: type one, or name a file that has it with --passphrase-file, or say --no-passphrase where something else protects the key")}
			}
		}
		private, public, err := trust.NewKey(a.Rand, passphrase)
		if err != nil {
			return err
		}
		if err := writeNew(argv[0]+".key", private, 0o600); err != nil {
			return err
		}
		if err := writeNew(argv[0]+".pub", public, 0o644); err != nil {
			return err
		}
		lines := strings.Split(strings.TrimSpace(string(public)), "\n")
		line := lines[len(lines)-1]
		return a.show(map[string]string{"private": argv[0] + ".key", "public": argv[0] + ".pub", "key": line}, func(w io.Writer) {
			fmt.Fprintf(w, "%s.key signs: keep it off every server\n%s.pub is for the trust file:\n  - {name: %s, key: %s}\n", argv[0], argv[0], filepath.Base(argv[0]), line)
		})
	}}
	cmd.Flags().StringVar(&k.passphraseFile, "passphrase-file", "", "`file` whose first line is the passphrase")
	cmd.Flags().BoolVar(&k.noPassphrase, "no-passphrase", false, "do not encrypt the private key")
	return cmd
}

// writeNew writes a file that must not be there yet: nobody gets a key back.
func writeNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// passphrase reads a passphrase from a file, or asks for it without showing it.
func (a *app) passphrase(file, prompt string) (string, error) {
	var line []byte
	var err error
	in, isFile := a.Stdin.(*os.File)
	switch {
	case file != "":
		line, err = os.ReadFile(file)
	case isFile && term.IsTerminal(int(in.Fd())):
		fmt.Fprintf(a.Stderr, "%s: ", prompt)
		line, err = term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(a.Stderr)
	default:
		line, err = io.ReadAll(io.LimitReader(a.Stdin, 4096))
	}
	if err != nil {
		return "", fmt.Errorf("read the passphrase: %w", err)
	}
	first, _, _ := bytes.Cut(line, []byte("\n"))
	return strings.TrimRight(string(first), "\r"), nil
}

const bundleSignLong = `Sign a bundle's directory, after every file in it was compared with the manifest; or sign
a single FILE, such as a new trust file. The signature, in minisign's format, goes beside
it: DIR/manifest.json.minisig, FILE.minisig. A second key's goes beside the first. No
server is asked: sign where the key is.

The key is a file (--key), or whatever a program signs with (--command, with the public
key of it): an HSM, a PKCS#11 token, a cloud's key service. The program gets the bytes on
its standard input, and writes their Ed25519 signature, 64 bytes, plain or in base64. It
is asked twice: for the content, and for the signed comment.

  bootlane bundle sign out/debian-12 --key release.key
  bootlane bundle sign out/debian-12 --public-key hsm.pub \
    --command 'cat >m; pkcs11-tool --sign -m EDDSA --id 01 -i m -o s >&2; cat s'`

func (a *app) bundleSignCmd() *cobra.Command {
	var k keyFlags
	cmd := &cobra.Command{Use: "sign DIR|FILE (--key FILE | --command PROGRAM --public-key FILE)", Short: "sign a bundle", Long: bundleSignLong, Args: args(cobra.ExactArgs(1)), RunE: func(cmd *cobra.Command, argv []string) error {
		if (k.key == "") == (k.command == "") || (k.command == "") != (k.public == "") {
			return usageError{errors.New("give --key FILE, or --command PROGRAM with --public-key FILE")}
		}
		path := argv[0]
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		if st.IsDir() {
			f, err := bundle.Open(path)
			if err != nil {
				return err
			}
			if err := f.Verify(cmd.Context()); err != nil {
				return err
			}
			path = filepath.Join(path, bundle.CanonicalName)
			if _, err := os.Stat(path); err != nil {
				return fmt.Errorf("`bootlane bundle build %s` makes what is signed: %w", argv[0], err)
			}
		}
		return a.sign(cmd.Context(), path, k)
	}}
	f := cmd.Flags()
	f.StringVar(&k.key, "key", "", "private key `file`")
	f.StringVar(&k.passphraseFile, "passphrase-file", "", "`file` whose first line is the passphrase")
	f.StringVar(&k.command, "command", "", "`program`, with arguments, that signs what it reads; the shell runs it")
	f.StringVar(&k.public, "public-key", "", "public key `file` of --command")
	return cmd
}

// sign signs one file and puts the signature beside it.
func (a *app) sign(ctx context.Context, path string, k keyFlags) error {
	message, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	keyFile := k.key
	if keyFile == "" {
		keyFile = k.public
	}
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	signer, err := a.signer(ctx, text, k)
	if err != nil {
		return fmt.Errorf("%s: %w", keyFile, err)
	}
	sig, err := signer.Sign(message, filepath.Base(path), a.Now())
	if err != nil {
		return err
	}
	out := path + bundle.SignatureExt
	id := trust.KeyID(signer.Public.ID())
	if old, err := os.ReadFile(out); err == nil && trust.SignedBy(old) != id { // another key's
		out = path + "." + id + bundle.SignatureExt
	}
	if err := os.WriteFile(out, sig, 0o644); err != nil {
		return err
	}
	return a.show(map[string]string{"signature": out, "key": id}, func(w io.Writer) { fmt.Fprintf(w, "%s is signed by the key %s: %s\n", path, id, out) })
}

// signer returns what signs with the key in text, or with --command where text is its public key.
func (a *app) signer(ctx context.Context, text []byte, k keyFlags) (trust.Signer, error) {
	if k.command != "" {
		public, err := trust.ParsePublic(text)
		return trust.External(external(ctx, k.command, "", a.Stderr), public), err
	}
	if !trust.Encrypted(text) {
		return trust.FromFile(text, "")
	}
	passphrase, err := a.passphrase(k.passphraseFile, "Passphrase of "+k.key)
	if err != nil {
		return trust.Signer{}, err
	}
	return trust.FromFile(text, passphrase)
}

// external returns what has a program sign; it finds the name of the key, where it may be
// one of several, as BOOTLANE_KEY.
func external(ctx context.Context, command, key string, stderr io.Writer) trust.Raw {
	return func(message []byte) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
		cmd.Stdin, cmd.Stderr, cmd.Env = bytes.NewReader(message), stderr, append(os.Environ(), "BOOTLANE_KEY="+key)
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("run the signer %q: %w", command, err)
		}
		if plain, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(out))); err == nil {
			return plain, nil
		}
		return out, nil
	}
}

const bundleVerifyLong = `Compare every file of a bundle's directory with its manifest, and the signatures with a
trust file, as an import does it. No server is asked.`

func (a *app) bundleVerifyCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{Use: "verify DIR", Short: "verify a bundle's directory, and its signatures", Long: bundleVerifyLong, Args: args(cobra.ExactArgs(1)), RunE: func(cmd *cobra.Command, argv []string) error {
		f, err := bundle.Open(argv[0])
		if err != nil {
			return err
		}
		if err := f.Verify(cmd.Context()); err != nil {
			return err
		}
		if e := f.Bundle.Expires; !e.IsZero() && !a.Now().Before(e) {
			return lane.Errorf(lane.Refused, "%s expired at %s: no server takes it; set `expires` in its bundle.yaml, build and sign it again", f.Bundle.Ref(), when(e))
		}
		status := lane.BundleStatus{Bundle: f.Bundle}
		note := "its signatures were not looked at: give --trust FILE"
		if file != "" {
			data, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			policy, err := trust.Parse(file, data)
			if err != nil {
				return err
			}
			v := policy.Judge(f.Manifest, f.Bundle.Digest, f.Signatures, a.Now())
			if v.Refusal != "" {
				return lane.Errorf(lane.Refused, "%s: %s", f.Bundle.Ref(), v.Refusal)
			}
			status.Signers, note = v.Signers, "signed by "+strings.Join(v.Signers, ", ")
		}
		return a.show(status, func(w io.Writer) {
			fmt.Fprintf(w, "%s holds what its manifest says: %s; %s\n", f.Bundle.Ref(), f.Bundle.Digest, note)
		})
	}}
	cmd.Flags().StringVar(&file, "trust", "", "trust `file`")
	return cmd
}
