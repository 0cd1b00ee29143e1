package uefi

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// File is an image of a chain, by the name that people know it by.
type File struct {
	Name string
	Data []byte
}

// Policy is what a chain is proven against.
type Policy struct {
	Firmware Firmware
	MOK      Database  // what the machine's owner enrolled in shim
	SBAT     *Level    // nil: that of the chain's own shim
	Now      time.Time // to warn of expired certificates; nothing is refused by it
}

// ID names a kind of finding.
type ID string

// What breaks a link.
const (
	NotAnImage        ID = "not-an-image"
	WrongArchitecture ID = "wrong-architecture"
	WrongSubsystem    ID = "wrong-subsystem"
	DamagedTable      ID = "damaged-certificate-table"
	Unsigned          ID = "unsigned"
	Changed           ID = "changed"
	DamagedSignature  ID = "damaged-signature"
	WeakDigest        ID = "digest-not-taken"
	Untrusted         ID = "untrusted"
	OtherMicrosoftCA  ID = "other-microsoft-ca"
	OtherVendor       ID = "other-vendor"
	RevokedImage      ID = "revoked-image"
	RevokedSigner     ID = "revoked-certificate"
	SBATMissing       ID = "sbat-missing"
	SBATDamaged       ID = "sbat-damaged"
	SBATBelow         ID = "sbat-below-level"
	ShimDamaged       ID = "shim-damaged"
)

// What is only worth a warning.
const (
	Expired         ID = "expired-certificate"
	OneMicrosoftCA  ID = "one-microsoft-ca"
	SBATNear        ID = "sbat-near-level"
	BadSignature    ID = "bad-signature-beside"
	ModulesOnly     ID = "key-for-modules-only"
	NoSBATLevel     ID = "no-sbat-level"
	GRUBWithoutShim ID = "grub-without-shim"
)

// Finding is why a link is broken, or a warning, and what mends it.
type Finding struct {
	ID   ID     `json:"id"`
	Text string `json:"text"`
	Mend string `json:"mend,omitempty"`
}

// Anchor is what a link holds by.
type Anchor struct {
	Subject string `json:"subject"` // of the trusted certificate, or the digest
	In      string `json:"in"`      // where it is trusted: db, shim's vendor certificate, MOK list
	SHA256  string `json:"sha256"`  // of the certificate, or of the image
}

// Link is one image of a chain, and whether whoever starts it will.
type Link struct {
	File     string    `json:"file"`
	Stage    string    `json:"stage"`
	Checker  string    `json:"checkedBy"` // firmware or shim
	Proven   bool      `json:"proven"`
	By       *Anchor   `json:"by,omitempty"`
	Path     []string  `json:"path,omitempty"` // from the signer's certificate to the trusted one
	Broken   []Finding `json:"broken,omitempty"`
	Warnings []Finding `json:"warnings,omitempty"`
}

// Proof is the answer about a whole chain.
type Proof struct {
	Firmware string   `json:"firmware"`
	DB       []string `json:"db"`
	SBAT     string   `json:"sbatLevel,omitempty"`
	Proven   bool     `json:"proven"`
	Links    []Link   `json:"links"`
	// Unknown is what was not looked at, and can still stop a machine.
	Unknown []string `json:"unknown,omitempty"`
}

// chain is what the links of one proof share.
type chain struct {
	Policy
	first *Image
	shim  *Shim // nil: firmware checks everything
	level *Level
	next  *Level // what this shim will ask for later
}

// Prove checks a chain in boot order: the first stage as firmware does, what follows as
// shim does, or as firmware where there is no shim. It goes on behind a broken link.
func Prove(p Policy, files []File) Proof {
	c := &chain{Policy: p, level: p.SBAT}
	out := Proof{Firmware: p.Firmware.Name, DB: names(p.Firmware.DB.Certificates), Proven: len(files) > 0, Links: []Link{}}
	if n := p.Firmware.DB.Hashes(); n > 0 {
		out.DB = append(out.DB, fmt.Sprintf("%d images by digest", n))
	}
	for i, f := range files {
		l := c.link(i, f, len(files))
		l.Proven = len(l.Broken) == 0
		if !l.Proven {
			l.By, l.Path = nil, nil
		}
		out.Proven = out.Proven && l.Proven
		out.Links = append(out.Links, l)
	}
	if c.level != nil {
		out.SBAT = c.level.String()
	}
	if p.Firmware.DBX.Empty() {
		out.Unknown = append(out.Unknown, "no dbx was given: whether the machine's dbx forbids one of these images is not known (--dbx)")
	}
	if p.SBAT == nil && c.shim != nil {
		out.Unknown = append(out.Unknown, "the SBAT level is that of this shim; a machine that booted a newer shim, or Windows, may ask for more (--sbat-level)")
	}
	return out
}

func stage(i int) string {
	if i < 3 {
		return []string{"first stage", "second stage", "kernel"}[i]
	}
	return fmt.Sprintf("image %d", i+1)
}

func (c *chain) link(i int, f File, total int) Link {
	l := Link{File: f.Name, Stage: stage(i), Checker: "firmware"}
	if c.shim != nil {
		l.Checker = "shim"
	}
	im, err := ParseImage(f.Data)
	if err != nil {
		l.breaks(NotAnImage, err.Error(), "give the image itself, in boot order; if it is, fetch it again")
		return l
	}
	if i == 0 {
		c.first = im
	}
	l.fits(c.first, im)
	components, sbatErr := im.sbat()
	if i == 0 {
		c.begin(&l, im)
		grub := slices.ContainsFunc(components, func(s Component) bool { return s.Name == "grub" })
		if c.shim == nil && total > 1 && grub {
			l.warns(GRUBWithoutShim, "GRUB without a shim starts a kernel under Secure Boot only if it was made for that (grub-mkimage --disable-shim-lock), and then not by db", "let a shim start GRUB")
		}
	}
	c.signed(&l, im)
	c.sbat(&l, i, components, sbatErr)
	return l
}

// fits checks that one machine can run both.
func (l *Link) fits(first, im *Image) {
	if first != nil && im.Machine != first.Machine {
		l.breaks(WrongArchitecture, fmt.Sprintf("it is for %s, the first stage for %s", im.Machine, first.Machine), fmt.Sprintf("take the build for %s", first.Machine))
	}
	if im.Subsystem != 10 {
		l.breaks(WrongSubsystem, fmt.Sprintf("it is to be started as %s; firmware, shim and GRUB start an EFI application", im.Subsystem), "take the boot loader or kernel; drivers and firmware files boot nothing")
	}
}

// begin reads the first stage as a shim, if it is one.
func (c *chain) begin(l *Link, im *Image) {
	s, err := im.Shim()
	if err != nil {
		l.breaks(ShimDamaged, err.Error(), "take the shim of the distribution's package")
		c.shim = &Shim{}
		return
	}
	if c.shim = s; s == nil || c.level != nil {
		return
	}
	c.level, c.next = s.Previous, s.Latest
	if s.Previous == nil {
		l.warns(NoSBATLevel, "this shim has no section .sbatlevel, so it is from before 15.8; SBAT levels were not compared", "give a level by --sbat-level, better take a newer shim")
	}
}

func (im *Image) sbat() ([]Component, error) {
	section, ok := im.Section(".sbat")
	if !ok {
		return nil, nil
	}
	return parseSBAT(section)
}

// sbat compares generations. Shim asks it of itself and of what it loads; of what is
// checked through its protocol (the kernel, by GRUB) only if it has any: shim, pe.c,
// verify_sbat_section. Without shim nobody asks, unless the policy does.
func (c *chain) sbat(l *Link, i int, components []Component, err error) {
	if c.level == nil && c.shim == nil {
		return
	}
	switch {
	case err != nil:
		l.breaks(SBATDamaged, err.Error(), "take another build of it")
	case len(components) == 0 && c.shim != nil && i < 2:
		l.breaks(SBATMissing, "it has no section .sbat, and shim starts nothing without", "take a build of 2021 or later, which has one")
	case c.level != nil:
		if low, want, yes := c.level.below(components); yes {
			l.breaks(SBATBelow, fmt.Sprintf("its %s is generation %d; the SBAT level %s wants %d", low.Name, low.Generation, c.level, want), "take the distribution's newest build of it")
		} else if c.next != nil {
			if low, want, yes := c.next.below(components); yes {
				l.warns(SBATNear, fmt.Sprintf("its %s is generation %d; the next SBAT level %s wants %d, and machines may have that already", low.Name, low.Generation, c.next, want), "take the distribution's newest build of it")
			}
		}
	}
}

type store struct {
	name string
	Database
}

// trusts returns what the checker of a link believes, and what it refuses.
func (c *chain) trusts(l *Link) (yes, no []store) {
	yes, no = []store{{"db", c.Firmware.DB}}, []store{{"dbx", c.Firmware.DBX}}
	if l.Checker == "shim" {
		yes = append(yes, store{"shim's vendor certificate", c.shim.Vendor}, store{"the MOK list", c.MOK})
		no = append(no, store{"shim's vendor dbx", c.shim.VendorDBX})
	}
	return yes, no
}

// signed is the heart: EDK2, DxeImageVerificationHandler, and shim, verify_buffer_authenticode.
func (c *chain) signed(l *Link, im *Image) {
	yes, no := c.trusts(l)
	for _, s := range no {
		if s.image(im) {
			l.breaks(RevokedImage, fmt.Sprintf("%s names it by its digest %x", s.name, im.digest(crypto.SHA256)), "take a newer build: this one has a known hole")
		}
		c.revoked(l, im, s)
	}
	if im.TableErr != nil {
		l.breaks(DamagedTable, im.TableErr.Error(), "fetch the file again")
		return
	}
	for _, s := range yes {
		if s.image(im) {
			sha := hex.EncodeToString(im.digest(crypto.SHA256))
			l.By = &Anchor{Subject: "its digest", In: s.name, SHA256: sha}
			return
		}
	}
	for n := range im.Signatures {
		s := &im.Signatures[n]
		if why := l.refuses(s); why != nil {
			continue
		}
		for _, y := range yes {
			if path := s.path(l.usable(y)); path != nil {
				l.holds(y.name, path)
				c.advise(l, im, path)
				return
			}
		}
	}
	c.explain(l, im, yes)
}

// refuses says why a checker takes no notice of a signature.
func (l *Link) refuses(s *Signature) error {
	if s.Err != nil {
		return s.Err
	}
	if s.Algorithm == crypto.SHA1 || l.Checker == "shim" && s.Algorithm != crypto.SHA256 {
		return fmt.Errorf("its digest is %s, which %s does not take", s.Algorithm, l.Checker)
	}
	return nil
}

// usable leaves out, as shim does (verify_eku), keys that are for kernel modules only.
func (l *Link) usable(s store) (out []*x509.Certificate) {
	for _, c := range s.Certificates {
		if l.Checker == "shim" && slices.ContainsFunc(c.UnknownExtKeyUsage, func(o asn1.ObjectIdentifier) bool { return o.String() == "1.3.6.1.4.1.2312.16.1.2" }) {
			l.warns(ModulesOnly, fmt.Sprintf("%q in %s is for kernel modules only, and shim takes no loader or kernel by it", name(c), s.name), "")
			continue
		}
		out = append(out, c)
	}
	return out
}

// revoked looks for certificates: one forbidden signature is enough to refuse the image,
// whatever other signatures it has.
func (c *chain) revoked(l *Link, im *Image, s store) {
	for n := range im.Signatures {
		sig := &im.Signatures[n]
		if path := sig.path(s.Certificates); path != nil {
			l.breaks(RevokedSigner, fmt.Sprintf("signature %d leads to %q, which %s revokes", n+1, name(path[len(path)-1]), s.name), "take a newer build, signed by another certificate")
			continue
		}
		if sig.Signer == nil {
			continue
		}
		for _, cert := range sig.Certificates {
			from, yes := s.certificate(cert)
			if !yes {
				continue
			}
			text := fmt.Sprintf("signature %d comes with %q, which %s revokes by its digest", n+1, name(cert), s.name)
			if !from.IsZero() {
				text += " for what was signed since " + from.Format(time.DateOnly) + "; when this was signed is not looked at here"
			}
			l.breaks(RevokedSigner, text, "take a newer build, signed by another certificate")
		}
	}
}

func (l *Link) holds(in string, path []*x509.Certificate) {
	anchor := path[len(path)-1]
	l.By = &Anchor{Subject: name(anchor), In: in, SHA256: hex.EncodeToString(sum(crypto.SHA256, anchor.Raw))}
	l.Path = nil
	for _, c := range path {
		l.Path = append(l.Path, name(c))
	}
}

// advise warns of what holds today.
func (c *chain) advise(l *Link, im *Image, path []*x509.Certificate) {
	var expired []string
	for _, cert := range path {
		if !c.Now.IsZero() && c.Now.After(cert.NotAfter) {
			expired = append(expired, fmt.Sprintf("%q (%s)", name(cert), cert.NotAfter.UTC().Format(time.DateOnly)))
		}
	}
	if len(expired) > 0 {
		l.warns(Expired, fmt.Sprintf("expired: %s; firmware and shim do not look at dates, so this still holds", strings.Join(expired, ", ")), "")
	}
	years := map[string]bool{}
	for n := range im.Signatures {
		if s := &im.Signatures[n]; l.refuses(s) != nil {
			l.warns(BadSignature, fmt.Sprintf("signature %d is of no use: %v", n+1, l.refuses(s)), "")
		} else {
			for _, year := range []string{"2011", "2023"} {
				if f, _, err := BuiltIn("microsoft-" + year); err == nil && s.path(f.DB.Certificates) != nil {
					years[year] = true
				}
			}
		}
	}
	if l.Checker == "firmware" && len(years) == 1 {
		has, lacks := "2011", "2023"
		if years["2023"] {
			has, lacks = lacks, has
		}
		l.warns(OneMicrosoftCA, fmt.Sprintf("only Microsoft's CA of %s signed it: machines whose firmware has only that of %s refuse it", has, lacks), "take a shim that both signed")
	}
}

// explain says why nothing vouches for an image.
func (c *chain) explain(l *Link, im *Image, yes []store) {
	if len(im.Signatures) == 0 {
		where := "db"
		if l.Checker == "shim" {
			where = "db or as a MOK"
		}
		l.breaks(Unsigned, "it is not signed", "take the distribution's signed build (.efi.signed), or sign it with your own key and enrol its certificate in "+where)
		return
	}
	var trusted, why []string
	for _, y := range yes {
		for _, n := range names(y.Certificates) {
			trusted = append(trusted, fmt.Sprintf("%q (%s)", n, y.name))
		}
	}
	id, mend, good := Untrusted, "", false
	for n := range im.Signatures {
		s := &im.Signatures[n]
		if err := l.refuses(s); err != nil {
			switch {
			case good: // the mend is about the signature that is
			case errors.Is(err, errDigest):
				id, mend = Changed, "the file was changed after it was signed: fetch it again, from its source"
			case s.Err == nil:
				id, mend = WeakDigest, "sign it again, with SHA-256"
			default:
				id, mend = DamagedSignature, "fetch the file again, from its source"
			}
			why = append(why, fmt.Sprintf("signature %d: %v", n+1, err))
			continue
		}
		id, mend = c.stranger(l, s)
		good = true
		why = append(why, fmt.Sprintf("signature %d is by %q, issued by %q", n+1, name(s.Signer), called(s.Signer.Issuer)))
	}
	text := strings.Join(why, "; ")
	if good {
		text += fmt.Sprintf("; %s trusts %s", l.Checker, orNothing(trusted))
	}
	l.breaks(id, text, mend)
}

// stranger says what would make a good signature of the wrong signer do.
func (c *chain) stranger(l *Link, s *Signature) (ID, string) {
	if l.Checker == "shim" && len(c.shim.Vendor.Certificates) > 0 {
		return OtherVendor, fmt.Sprintf("take shim and this file from one distribution (this shim is of %q), or enrol the signer's certificate as a MOK on each machine", name(c.shim.Vendor.Certificates[0]))
	}
	has := func(other *x509.Certificate) bool { return microsoft(other) != "" }
	for _, year := range []string{"2011", "2023"} {
		f, _, err := BuiltIn("microsoft-" + year)
		if err != nil || s.path(f.DB.Certificates) == nil || !slices.ContainsFunc(c.Firmware.DB.Certificates, has) {
			continue
		}
		return OtherMicrosoftCA, fmt.Sprintf("take a build that the CA in this firmware's db signed (shims since 2025 are signed by both), or bring %q into db, by a firmware update or by enrolling it", name(f.DB.Certificates[0]))
	}
	if c.shim == nil {
		return Untrusted, "put the distribution's shim in front of it, or sign it by a key whose certificate is in db"
	}
	return Untrusted, "sign it by a key whose certificate is in db, or enrol its signer's in db"
}

func orNothing(s []string) string {
	if len(s) == 0 {
		return "no certificate"
	}
	return strings.Join(s, ", ")
}

func (l *Link) breaks(id ID, text, mend string) {
	l.Broken = append(l.Broken, Finding{ID: id, Text: text, Mend: mend})
}

// warns does so once: several signatures come past the same certificate.
func (l *Link) warns(id ID, text, mend string) {
	if f := (Finding{ID: id, Text: text, Mend: mend}); !slices.Contains(l.Warnings, f) {
		l.Warnings = append(l.Warnings, f)
	}
}
