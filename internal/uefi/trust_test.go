package uefi_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bootlane/internal/uefi"
)

// TestTrust is about who may vouch for whom; sbverify is asked too, where it can be.
func TestTrust(t *testing.T) {
	own, other := newKey(t), newKey(t) // of the same names, and other keys
	image := build(uefi.MachineX64, text())
	signed := own.sign(t, image)

	// A key that the signer certified, although it is no authority.
	dir := t.TempDir()
	must(t, "openssl", "req", "-new", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=Grandchild", "-keyout", dir+"/key.pem", "-out", dir+"/csr")
	must(t, "openssl", "x509", "-req", "-days", "2", "-in", dir+"/csr", "-CA", own.cert, "-CAkey", own.private, "-CAcreateserial", "-out", dir+"/cert.pem")
	must(t, "sbsign", "--key", dir+"/key.pem", "--cert", dir+"/cert.pem", "--addcert", own.cert, "--output", dir+"/signed.efi", write(t, image))
	grandchild := read(t, dir+"/signed.efi")

	for name, c := range map[string]struct {
		image []byte
		trust string
		want  bool
	}{
		"the authority":               {signed, own.ca, true},
		"the signer alone":            {signed, own.cert, true},
		"an authority of that name":   {signed, other.ca, false},
		"a signer of that name":       {signed, other.cert, false},
		"certified by no authority":   {grandchild, own.ca, false},
		"not even when it is trusted": {grandchild, own.cert, false},
		"but by itself":               {grandchild, dir + "/cert.pem", true},
	} {
		ours, theirs, why := both(t, c.image, database(t, c.trust), c.trust)
		if ours != c.want {
			t.Errorf("%s: proven %v, want %v\n%s", name, ours, c.want, why)
		}
		if ours != theirs {
			t.Logf("%s: sbverify says %v", name, theirs)
		}
	}
}

// TestModulesOnly: shim passes over MOKs that are for kernel modules (Ubuntu's DKMS makes such).
func TestModulesOnly(t *testing.T) {
	dir := t.TempDir()
	must(t, "openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=Modules", "-addext", "extendedKeyUsage=codeSigning,1.3.6.1.4.1.2312.16.1.2",
		"-days", "2", "-keyout", dir+"/key.pem", "-out", dir+"/cert.pem")
	grub := key{cert: dir + "/cert.pem", private: dir + "/key.pem"}.sign(t, build(uefi.MachineX64, text(), part{".sbat", []byte(grubSBAT)}))
	p := uefi.Prove(uefi.Policy{Firmware: firmware(t, uefi.MicrosoftBoth), MOK: database(t, dir+"/cert.pem")}, []uefi.File{{Name: "shim", Data: read(t, shimFile)}, {Name: "grub", Data: grub}})
	if got := ids(p); !slices.Equal(got, []string{"grub!other-vendor", "grub?key-for-modules-only"}) {
		t.Errorf("found %v", got)
	}
}

// TestDamagedTable: EDK2 takes no signature of a table that does not add up, good as
// each of them may be.
func TestDamagedTable(t *testing.T) {
	own := newKey(t)
	signed := own.sign(t, build(uefi.MachineX64, text()))
	table, le := tableAt(signed), binary.LittleEndian
	policy := uefi.Policy{Firmware: uefi.Firmware{DB: own.db(t)}}
	size := uint32(len(signed) - table)
	for name, length := range map[string]uint32{"none": 0, "less than a header": 7, "one byte too many": size + 1, "the most": 1<<32 - 1} {
		b := bytes.Clone(signed)
		le.PutUint32(b[table:], length)
		if got := ids(uefi.Prove(policy, []uefi.File{{Name: "i", Data: b}})); !slices.Equal(got, []string{"i!damaged-certificate-table"}) {
			t.Errorf("a signature of %s bytes: found %v", name, got)
		}
	}
	// A table that ends with its last signature, which is not padded.
	im, err := uefi.ParseImage(signed)
	if err != nil || im.TableErr != nil {
		t.Fatal(err, im.TableErr)
	}
	b := bytes.Clone(signed[:len(signed)-3])
	le.PutUint32(b[table:], size-3)
	le.PutUint32(b[64+24+112+36:], size-3)
	if im, err = uefi.ParseImage(b); err != nil || im.TableErr == nil {
		t.Errorf("a table without padding: %v, %v", err, im)
	}
}

// TestExpired: a certificate's end is a warning and no more.
func TestExpired(t *testing.T) {
	own := newKey(t)
	files := []uefi.File{{Name: "i", Data: own.sign(t, build(uefi.MachineX64, text()))}}
	for days, want := range map[int][]string{0: nil, 3: {"i?expired-certificate"}} {
		now := fileTime(t, own.cert).AddDate(0, 0, days)
		p := uefi.Prove(uefi.Policy{Firmware: uefi.Firmware{DB: own.db(t)}, Now: now}, files)
		if got := ids(p); !p.Proven || !slices.Equal(got, want) {
			t.Errorf("after %d days: proven %v, found %v", days, p.Proven, got)
		}
	}
}

// TestText is what `prove` and `inspect` print, on images that do not change.
func TestText(t *testing.T) {
	var b bytes.Buffer
	uefi.Prove(uefi.Policy{Firmware: uefi.Firmware{Name: "none"}}, []uefi.File{{Name: "boot.efi", Data: build(uefi.MachineAA64, text())}}).Text(&b)
	const want = `firmware none, db: no certificate

BROKEN  first stage boot.efi: unsigned: it is not signed
        mend: take the distribution's signed build (.efi.signed), or sign it with your own key and enrol its certificate in db

unknown: no dbx was given: whether the machine's dbx forbids one of these images is not known (--dbx)
the chain is broken: firmware does not start boot.efi (unsigned)
`
	if b.String() != want {
		t.Errorf("got:\n%s", &b)
	}
	b.Reset()
	r, err := uefi.Inspect(uefi.File{Name: "shim.efi", Data: testShim(uefi.MachineIA32, nil, nil, grubSBAT, "sbat,1,1\n", "sbat,1,2\nshim,3\n")}, day)
	if err != nil {
		t.Fatal(err)
	}
	r.Text(&b)
	for _, line := range []string{"  ia32, EFI application, PE32, 3104 bytes\n", "  not signed\n", "  SBAT grub,5 (Free Software Foundation, grub 2.12)\n", "    SBAT level it sets when told:  2 (shim,3)\n"} {
		if !bytes.Contains(b.Bytes(), []byte(line)) {
			t.Errorf("%q is missing in:\n%s", line, &b)
		}
	}
}

func fileTime(t *testing.T, path string) time.Time {
	s, err := os.Stat(filepath.Clean(path))
	if err != nil {
		t.Fatal(err)
	}
	return s.ModTime()
}

// TestForged changes an image, and then its signature so that it fits as far as one
// can without the key.
func TestForged(t *testing.T) {
	own := newKey(t)
	signed := own.sign(t, build(uefi.MachineX64, text()))
	policy := uefi.Policy{Firmware: uefi.Firmware{DB: own.db(t)}}
	im, err := uefi.ParseImage(signed)
	if err != nil {
		t.Fatal(err)
	}
	table := tableAt(signed)
	old := im.Signatures[0].Digest
	other := changed(signed, 1024)
	im, err = uefi.ParseImage(other)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := im.Digest(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	// The digest that is signed becomes the changed image's.
	copy(other[table+bytes.Index(other[table:], old):], sum)
	// And so does the digest of that, which the signature is really of.
	deeper := bytes.Clone(other)
	content := bytes.Index(signed[table:], old) + table + 32
	start := bytes.LastIndex(signed[:content], []byte("\x2b\x06\x01\x04\x01\x82\x37\x02\x01\x0f")) - 4
	was, is := sha256.Sum256(signed[start:content]), sha256.Sum256(other[start:content])
	at := bytes.Index(deeper[table:], was[:])
	if at < 0 {
		t.Fatal("the signature has no messageDigest where it was expected")
	}
	copy(deeper[table+at:], is[:])
	last := bytes.Clone(signed)
	for i := len(last) - 1; ; i-- { // the signature's own last byte, before the padding
		if last[i] != 0 {
			last[i] ^= 1
			break
		}
	}
	for name, c := range map[string]struct {
		image []byte
		want  string
	}{
		"as it is":                  {signed, ""},
		"the image":                 {changed(signed, 1024), "i!changed"},
		"and the digest":            {other, "i!damaged-signature"},
		"and the digest's digest":   {deeper, "i!damaged-signature"},
		"the signature's last byte": {last, "i!damaged-signature"},
	} {
		p := uefi.Prove(policy, []uefi.File{{Name: "i", Data: c.image}})
		if got := strings.Join(ids(p), " "); got != c.want {
			t.Errorf("%s: found %q, want %q: %+v", name, got, c.want, p.Links[0].Broken)
		}
	}
}

// TestSubsystem: firmware starts applications only.
func TestSubsystem(t *testing.T) {
	own := newKey(t)
	b := build(uefi.MachineX64, text())
	b[64+24+68] = 11
	p := uefi.Prove(uefi.Policy{Firmware: uefi.Firmware{DB: own.db(t)}}, []uefi.File{{Name: "i", Data: own.sign(t, b)}})
	if got := ids(p); !slices.Equal(got, []string{"i!wrong-subsystem"}) {
		t.Errorf("found %v", got)
	}
}

// TestStoreOfThePast: a variable store keeps deleted values, which must not count.
func TestStoreOfThePast(t *testing.T) {
	data := read(t, storeFile)
	at := bytes.LastIndex(data, []byte("d\x00b\x00\x00\x00")) - 60
	if at < 0 || data[at+2] != 0x3f {
		t.Fatalf("the store has no db where it was expected")
	}
	data[at+2] = 0x3d // deleted, in transition
	if f, err := uefi.ParseFirmware("store", data); err == nil {
		t.Errorf("a deleted db counts: %v", f.DB.Certificates)
	}
}
