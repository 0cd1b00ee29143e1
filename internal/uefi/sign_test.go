package uefi_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bootlane/internal/lane"
	"bootlane/internal/uefi"
)

// pair makes keys, one name a pair.
func pair(t testing.TB, name string) uefi.Signer {
	t.Helper()
	s, err := uefi.NewKey(uefi.KeyRequest{Name: name, Bits: 2048, NotBefore: day, Years: 10, SignsCode: true}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func pemOf(t testing.TB, s uefi.Signer) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(path, uefi.EncodeCertificate(s.Certificate), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func dbOf(s uefi.Signer) uefi.Database {
	return uefi.Database{Certificates: []*x509Certificate{s.Certificate}}
}

func sign(t testing.TB, image []byte, by uefi.Signer) []byte {
	t.Helper()
	out, err := uefi.Sign(image, by, day)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestSign signs Debian's images and ours, and asks sbverify and [uefi.Prove].
func TestSign(t *testing.T) {
	t.Parallel()
	own, other := pair(t, "Own db"), pair(t, "Other db")
	ownPEM, otherPEM := pemOf(t, own), pemOf(t, other)
	debian, debianPEM := database(t, debianCA), toPEM(t, read(t, debianCA))
	images := map[string][]byte{
		"iPXE": read(t, ipxeFile), "unsigned fallback": read(t, unsignedFile), "GRUB of Debian": read(t, grubFile), "kernel of Debian": read(t, kernelFile),
		"aa64": build(uefi.MachineAA64, text()), "ia32": build(uefi.MachineIA32, text()), "odd length": append(build(uefi.MachineX64, text()), "abc"...),
	}
	for name, image := range images {
		signed := sign(t, image, own)
		check := func(what string, data []byte, db uefi.Database, pem string, want bool) {
			t.Helper()
			if ours, theirs, why := both(t, data, db, pem); ours != want || theirs != want {
				t.Errorf("%s, %s: we say %v, sbverify %v, want %v\n%s", name, what, ours, theirs, want, why)
			}
		}
		check("signed", signed, dbOf(own), ownPEM, true)
		check("another key", signed, dbOf(other), otherPEM, false)
		check("changed", changed(signed, 0x400), dbOf(own), ownPEM, false)
		twice := sign(t, signed, other)
		check("twice, the first", twice, dbOf(own), ownPEM, true)
		check("twice, the second", twice, dbOf(other), otherPEM, true)
		if strings.HasSuffix(name, "of Debian") {
			check("beside Debian's", twice, debian, debianPEM, true)
		}
		if again := sign(t, twice, own); !bytes.Equal(again, twice) {
			t.Errorf("%s: signed by one key a second time, it changes", name)
		}
		if strip := strip(t, signed); digest(t, strip) != digest(t, signed) {
			t.Errorf("%s: sbattach --remove leaves another digest", name)
		}
	}
	if again := sign(t, images["iPXE"], own); !bytes.Equal(again, sign(t, images["iPXE"], own)) {
		t.Error("the same key and time make two signatures")
	}
}

// TestSignLikeSbsign: but for the key's serial number and time, sbsign's image and ours
// have the same bytes. Its checksum is ours too.
func TestSignLikeSbsign(t *testing.T) {
	own := pair(t, "Own")
	keyPEM, err := own.EncodeKey(nil, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	image := build(uefi.MachineX64, text())
	theirs := key{private: write(t, keyPEM), cert: pemOf(t, own)}.sign(t, image)
	im, err := uefi.ParseImage(theirs)
	if err != nil {
		t.Fatal(err)
	}
	ours := sign(t, image, own)
	om, err := uefi.ParseImage(ours)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(im.Signatures[0].Digest, om.Signatures[0].Digest) {
		t.Error("another digest than sbsign's")
	}
	// All but the time and the signature of it, and what sbsign says of itself (SMIMECapabilities).
	content := func(b []byte) []byte {
		at := bytes.Index(b, []byte("\x2b\x06\x01\x04\x01\x82\x37\x02\x01\x0f"))
		return b[at : at+95]
	}
	if !bytes.Equal(content(theirs), content(ours)) {
		t.Errorf("the signed content differs:\n%x\n%x", content(theirs), content(ours))
	}
}

// TestChecksum: the image that Microsoft signed has a checksum by Microsoft's tool; so do
// images that are signed once more and stripped again.
func TestChecksum(t *testing.T) {
	data := read(t, shimFile)
	im := int(binary.LittleEndian.Uint32(data[60:])) + 88
	if want := binary.LittleEndian.Uint32(data[im:]); want == 0 || uefi.Checksum(data, uint64(im)) != want {
		t.Errorf("shim's checksum is %#x, ours of it %#x", want, uefi.Checksum(data, uint64(im)))
	}
	signed := sign(t, data, pair(t, "Own"))
	if got := binary.LittleEndian.Uint32(signed[im:]); got != uefi.Checksum(signed, uint64(im)) || got == binary.LittleEndian.Uint32(data[im:]) {
		t.Errorf("the signed image has the checksum %#x", got)
	}
}

// liar is a token that answers with what it likes.
type liar struct {
	crypto.PublicKey
	answer []byte
	err    error
}

func (l liar) Public() crypto.PublicKey { return l.PublicKey }

func (l liar) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return l.answer, l.err }

func TestSignRefuses(t *testing.T) {
	own := pair(t, "Own")
	image := build(uefi.MachineX64, text())
	signed := sign(t, image, own)
	noDirectory := bytes.Clone(image)
	binary.LittleEndian.PutUint32(noDirectory[64+24+108:], 4)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	with := func(key crypto.Signer) uefi.Signer { return uefi.Signer{Key: key, Certificate: own.Certificate} }
	for name, c := range map[string]struct {
		image []byte
		by    uefi.Signer
		want  string
	}{
		"text":                {[]byte("#!ipxe\n"), own, "neither MZ nor PE"},
		"nothing":             {nil, own, "neither MZ nor PE"},
		"cut headers":         {image[:200], own, "SizeOfHeaders is 1024"},
		"no room":             {noDirectory, own, "no entry for a certificate table"},
		"behind the table":    {append(bytes.Clone(signed), "appended"...), own, "not the file's end"},
		"cut table":           {signed[:len(signed)-16], own, "certificate table"},
		"another key's":       {image, uefi.Signer{Key: pair(t, "Other").Key, Certificate: own.Certificate}, "of another key"},
		"short key":           {image, selfSigned(t, weak), "has 1024 bits"},
		"elliptic curve":      {image, selfSigned(t, curve), "is ECDSA"},
		"token that fails":    {image, with(liar{own.Key.Public(), nil, errors.New("no PIN")}), "no PIN"},
		"token with rubbish":  {image, with(liar{own.Key.Public(), make([]byte, 256), nil}), "no RSASSA-PKCS1-v1_5 signature"},
		"token with nothing":  {image, with(liar{own.Key.Public(), nil, nil}), "0 bytes came"},
		"compressed by gzip":  {[]byte("\x1f\x8b\x08"), own, "compressed by gzip"},
		"a section too large": {changed(image, 64+24+112+16*8+17), own, "ends at"},
	} {
		if out, err := uefi.Sign(c.image, c.by, day); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %d bytes, %v; want an error about %q", name, len(out), err, c.want)
		}
	}
}

// TestKeys: what is asked of a pair, and its forms.
func TestKeys(t *testing.T) {
	own := pair(t, "Own")
	c := own.Certificate
	if c.Subject.CommonName != "Own" || !c.NotBefore.Equal(day) || !c.NotAfter.Equal(day.AddDate(10, 0, 0)) || c.CheckSignatureFrom(c) == nil && c.IsCA {
		t.Errorf("the certificate is %v to %v, %q", c.NotBefore, c.NotAfter, c.Subject)
	}
	for name, r := range map[string]uefi.KeyRequest{
		"short": {Name: "n", Bits: 1024, Years: 1}, "odd": {Name: "n", Bits: 2049, Years: 1}, "no name": {Bits: 2048, Years: 1},
		"no validity": {Name: "n", Bits: 2048}, "for ever": {Name: "n", Bits: 2048, Years: 100}, "control characters": {Name: "a\x1b[0m", Bits: 2048, Years: 1},
	} {
		if _, err := uefi.NewKey(r, rand.Reader); lane.CodeOf(err) != lane.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	plain, err := own.EncodeKey(nil, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := own.EncodeKey([]byte("correct horse"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if uefi.Encrypted(plain) || !uefi.Encrypted(sealed) {
		t.Error("which of the keys is encrypted?")
	}
	dir := t.TempDir()
	path, out := write(t, sealed), dir+"/out.pem"
	// OpenSSL reads ours, and we read its.
	must(t, "openssl", "pkcs8", "-in", path, "-passin", "pass:correct horse", "-out", out)
	if !bytes.Equal(read(t, out), plain) {
		t.Error("openssl decrypts another key")
	}
	must(t, "openssl", "pkcs8", "-topk8", "-in", out, "-passout", "pass:theirs", "-out", dir+"/theirs.pem")
	must(t, "openssl", "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-scrypt", "-in", out, "-passout", "pass:theirs", "-out", dir+"/scrypt.pem")
	must(t, "openssl", "rsa", "-traditional", "-in", out, "-out", dir+"/pkcs1.pem")
	must(t, "openssl", "rsa", "-traditional", "-aes128", "-passout", "pass:theirs", "-in", out, "-out", dir+"/old.pem")
	for name, c := range map[string]struct {
		data       []byte
		passphrase string
		want       string // empty: our key
	}{
		"plain":          {plain, "", ""},
		"sealed":         {sealed, "correct horse", ""},
		"sealed, wrong":  {sealed, "wrong horse", "passphrase"},
		"sealed, none":   {sealed, "", "give its passphrase"},
		"OpenSSL's":      {read(t, dir+"/theirs.pem"), "theirs", ""},
		"scrypt":         {read(t, dir+"/scrypt.pem"), "theirs", "PBES2"},
		"PKCS #1":        {read(t, dir+"/pkcs1.pem"), "", ""},
		"PKCS #1 sealed": {read(t, dir+"/old.pem"), "theirs", "old way"},
		"a certificate":  {uefi.EncodeCertificate(c), "", "holds a CERTIFICATE"},
		"nothing":        {nil, "", "no private key"},
	} {
		k, err := uefi.ParseKey(c.data, []byte(c.passphrase))
		switch {
		case c.want == "" && (err != nil || !k.Equal(own.Key)):
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want an error about %q", name, err, c.want)
		}
	}
}

// A wrong passphrase leaves noise, and some noise ends as a padding does.
func TestWrongPassphrase(t *testing.T) {
	plain, err := pair(t, "Own").EncodeKey(nil, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	path, out := write(t, plain), t.TempDir()+"/one-round.pem"
	must(t, "openssl", "pkcs8", "-topk8", "-iter", "1", "-in", path, "-passout", "pass:right", "-out", out)
	sealed := read(t, out)
	if _, err := uefi.ParseKey(sealed, []byte("right")); err != nil {
		t.Fatal(err)
	}
	for i := range 4096 {
		if _, err := uefi.ParseKey(sealed, fmt.Appendf(nil, "wrong %d", i)); err == nil || !strings.Contains(err.Error(), "passphrase is not that") {
			t.Fatalf("passphrase %d: %v", i, err)
		}
	}
}

func TestGUID(t *testing.T) {
	const owner = "77fa9abd-0359-4d32-bd60-28f4e78f784b"
	if g, err := uefi.ParseGUID(strings.ToUpper(owner)); err != nil || g.String() != owner || g[0] != 0xbd {
		t.Errorf("%v, %v", g, err)
	}
	for _, s := range []string{"", owner[1:], owner + "0", "77fa9abd0359-4d32-bd60-28f4e78f784b-", "x7fa9abd-0359-4d32-bd60-28f4e78f784b"} {
		if g, err := uefi.ParseGUID(s); err == nil {
			t.Errorf("%q: %v", s, g)
		}
	}
	if g, err := uefi.NewGUID(bytes.NewReader(make([]byte, 16))); err != nil || g.String() != "00000000-0000-4000-8000-000000000000" {
		t.Errorf("%v, %v", g, err)
	}
}
