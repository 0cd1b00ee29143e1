package cli

import (
	"context"
	"crypto"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bootlane/internal/lane"
	"bootlane/internal/uefi"
)

const uefiEnrollLong = `Write into the directory OUT what firmware takes to be yours, from the keys that
` + "`bootlane uefi keygen`" + ` made:

  PK.auth, KEK.auth, db.auth    signed updates, for a running system and for most setups
  PK.esl, KEK.esl, db.esl       the lists alone, for firmware in setup mode
  PK.cer, KEK.cer, db.cer       the certificates, for setups that take only those
  PK-delete.auth                gives the machine back: it returns to setup mode

In setup mode a machine takes db, dbx and KEK in any order, and PK last. --append writes
updates that add to what a machine has; --signed-by signs with the keys that it has
now, when those in KEYS are to replace them. docs/secure-boot.md is the guide. Take
heed: firmware that has only your db starts no option ROM of a network card that
Microsoft signed, so add --with-microsoft unless you know that yours need none.`

type enrollFlags struct {
	uefiKeyFlags
	microsoft, db, kek, forbid []string
	signedBy, store            string
	join                       bool
}

func (a *app) uefiEnrollCmd() *cobra.Command {
	var e enrollFlags
	cmd := &cobra.Command{Use: "enroll-bundle KEYS OUT", Short: "write the files that enrol your keys in firmware", Long: uefiEnrollLong, Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, argv []string) error { return a.enroll(cmd.Context(), &e, argv[0], argv[1]) }}
	f := cmd.Flags()
	f.StringSliceVar(&e.microsoft, "with-microsoft", nil, "`years` of Microsoft's certificates for boot loaders and option ROMs to trust as well: 2011,2023")
	f.StringArrayVar(&e.db, "db", nil, "`file` with certificates that db is to hold besides, such as the next ones")
	f.StringArrayVar(&e.kek, "kek", nil, "`file` with certificates that KEK is to hold besides")
	f.StringArrayVar(&e.forbid, "forbid", nil, "`file` that dbx is to forbid: an image, or a certificate")
	f.StringVar(&e.signedBy, "signed-by", "", "`directory` of the keys that the machines have now; else KEYS")
	f.StringVar(&e.store, "store", "", "`file` with an empty variable store of OVMF: writes OUT/vars.fd, the same with your keys")
	f.BoolVar(&e.join, "append", false, "add to what the machines have, in place of replacing it; without PK")
	e.register(cmd)
	return cmd
}

// enroll writes the files of every variable.
func (a *app) enroll(ctx context.Context, e *enrollFlags, keys, out string) error {
	if e.join && e.store != "" {
		return usageError{fmt.Errorf("--append is for updates; --store writes a whole store")}
	}
	owner, err := e.owner(keys)
	if err != nil {
		return err
	}
	variables, err := owner.Variables()
	if err != nil {
		return err
	}
	if e.join {
		variables = variables[:len(variables)-1] // PK, of which there is only one
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	at, files := a.Now(), map[string][]byte{}
	for _, v := range variables {
		if err := e.files(ctx, a, v, at, keys, files); err != nil {
			return err
		}
	}
	if e.store != "" {
		store, err := readImage(e.store)
		if err != nil {
			return err
		}
		if files["vars.fd"], err = uefi.EnrolInStore(store, variables, at); err != nil {
			return fmt.Errorf("%s: %w", e.store, err)
		}
	}
	for name, data := range files {
		if err := replace(filepath.Join(out, name), data); err != nil {
			return err
		}
	}
	return a.showEnrolment(out, variables)
}

// owner reads the certificates of KEYS, and what the flags add to them.
func (e *enrollFlags) owner(keys string) (o uefi.Owner, err error) {
	text, err := os.ReadFile(filepath.Join(keys, ownerFile))
	if err != nil {
		return o, fmt.Errorf("read the owner's GUID (`bootlane uefi keygen` writes it): %w", err)
	}
	if o.GUID, err = uefi.ParseGUID(strings.TrimSpace(string(text))); err != nil {
		return o, err
	}
	pem := func(name string) string { return filepath.Join(keys, name+".pem") }
	if o.PK, err = readCertificate(pem(uefi.PlatformKey)); err != nil {
		return o, err
	}
	for _, f := range append([]string{pem(uefi.KeyExchangeKey)}, e.kek...) {
		list, err := readCertificates(f)
		if err != nil {
			return o, err
		}
		o.KEK = append(o.KEK, list...)
	}
	for _, f := range append([]string{pem(uefi.SignatureDatabase)}, e.db...) {
		list, err := readCertificates(f)
		if err != nil {
			return o, err
		}
		o.DB = append(o.DB, list...)
	}
	for _, year := range e.microsoft {
		if year != "2011" && year != "2023" {
			return o, usageError{fmt.Errorf("--with-microsoft %q: use 2011, 2023, or 2011,2023", year)}
		}
		o.Microsoft = append(o.Microsoft, "microsoft-"+year)
	}
	for _, f := range e.forbid {
		entries, err := forbidden(o.GUID, f)
		if err != nil {
			return o, err
		}
		o.Forbidden = append(o.Forbidden, entries...)
	}
	return o, nil
}

// forbidden is what dbx holds to forbid a file: an image's digest, or certificates.
func forbidden(owner uefi.GUID, path string) (out []uefi.Entry, err error) {
	data, err := readImage(path)
	if err != nil {
		return nil, err
	}
	im, notImage := uefi.ParseImage(data)
	if notImage == nil {
		digest, err := im.Digest(crypto.SHA256)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return []uefi.Entry{{Owner: owner, SHA256: digest}}, nil
	}
	d, err := uefi.ParseDatabase(data)
	if err != nil || len(d.Certificates) == 0 {
		return nil, lane.Errorf(lane.Invalid, "%s is neither an image nor a certificate: dbx forbids those", path)
	}
	for _, c := range d.Certificates {
		out = append(out, uefi.Entry{Owner: owner, Certificate: c})
	}
	return out, nil
}

// files makes those of one variable: PK and KEK are signed by PK, db and dbx by KEK.
func (e *enrollFlags) files(ctx context.Context, a *app, v uefi.Variable, at time.Time, keys string, into map[string][]byte) error {
	dir, name := keys, uefi.KeyExchangeKey
	if e.signedBy != "" {
		dir = e.signedBy
	}
	if v.Name == uefi.PlatformKey || v.Name == uefi.KeyExchangeKey {
		name = uefi.PlatformKey
	}
	by, err := e.signer(ctx, a, filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key"))
	if err != nil {
		return err
	}
	into[v.Name+".esl"] = v.List()
	if into[v.Name+".auth"], err = v.Update(by, at, e.join); err != nil {
		return err
	}
	for i, entry := range v.Entries {
		name := v.Name + ".cer"
		if i > 0 {
			name = fmt.Sprintf("%s-%d.cer", v.Name, i+1)
		}
		if entry.Certificate != nil {
			into[name] = entry.Certificate.Raw
		}
	}
	if v.Name != uefi.PlatformKey {
		return nil
	}
	// It is for the time after, when this PK is the machine's own; its time must be later than PK's.
	if by, err = e.signer(ctx, a, filepath.Join(keys, name+".pem"), filepath.Join(keys, name+".key")); err != nil {
		return err
	}
	into["PK-delete.auth"], err = uefi.Variable{Name: v.Name}.Update(by, at.Add(time.Second), false)
	return err
}

// enrolled is one variable as it is told to people and programs.
type enrolled struct {
	Variable string          `json:"variable"`
	Entries  []enrolledEntry `json:"entries"`
}

type enrolledEntry struct {
	Owner       string `json:"owner"`
	Subject     string `json:"subject,omitempty"`
	Certificate string `json:"certificate,omitempty"` // PEM
	SHA256      string `json:"sha256,omitempty"`
}

func (a *app) showEnrolment(out string, variables []uefi.Variable) error {
	list := []enrolled{}
	for _, v := range variables {
		one := enrolled{Variable: v.Name}
		for _, e := range v.Entries {
			entry := enrolledEntry{Owner: e.Owner.String()}
			if e.Certificate != nil {
				entry.Subject, entry.Certificate = e.Certificate.Subject.CommonName, string(uefi.EncodeCertificate(e.Certificate))
			} else {
				entry.SHA256 = fmt.Sprintf("%x", e.SHA256)
			}
			one.Entries = append(one.Entries, entry)
		}
		list = append(list, one)
	}
	return a.show(list, func(w io.Writer) {
		for _, v := range list {
			var what []string
			for _, e := range v.Entries {
				if e.Subject != "" {
					what = append(what, fmt.Sprintf("%q", e.Subject))
				} else {
					what = append(what, "image "+e.SHA256)
				}
			}
			fmt.Fprintf(w, "%s: %s\n", filepath.Join(out, v.Variable+".auth"), strings.Join(what, ", "))
		}
	})
}
