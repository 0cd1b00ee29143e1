package uefi_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bootlane/internal/uefi"
)

type x509Certificate = x509.Certificate

// selfSigned is a pair of a kind that NewKey does not make.
func selfSigned(t testing.TB, key crypto.Signer) uefi.Signer {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Odd"}, NotBefore: day, NotAfter: day.AddDate(1, 0, 0)}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return uefi.Signer{Key: key, Certificate: c}
}

// ownerGUID is that of the tests' keys.
const ownerGUID = "4b3a29c8-1d5e-4f60-9a7b-8c9d0e1f2a3b"

func ownerOf(t testing.TB, pk, kek, db uefi.Signer) uefi.Owner {
	t.Helper()
	g, err := uefi.ParseGUID(ownerGUID)
	if err != nil {
		t.Fatal(err)
	}
	return uefi.Owner{GUID: g, PK: pk.Certificate, KEK: []*x509.Certificate{kek.Certificate}, DB: []*x509.Certificate{db.Certificate}}
}

func variables(t testing.TB, o uefi.Owner) []uefi.Variable {
	t.Helper()
	out, err := o.Variables()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestAgainstEfitools makes the same lists and updates with efitools: the lists have the
// same bytes, and so has all of an update that is not the signature.
func TestAgainstEfitools(t *testing.T) {
	pk, kek, db := pair(t, "PK"), pair(t, "KEK"), pair(t, "db")
	dir := t.TempDir()
	keyPEM, err := kek.EncodeKey(nil, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keyFile, certFile, esl := write(t, keyPEM), pemOf(t, kek), dir+"/db.esl"
	must(t, "cert-to-efi-sig-list", "-g", ownerGUID, pemOf(t, db), esl)
	v := variables(t, ownerOf(t, pk, kek, db))[0]
	if !bytes.Equal(v.List(), read(t, esl)) {
		t.Errorf("our list of %s differs from cert-to-efi-sig-list's", v.Name)
	}
	hash := dir + "/hash.esl"
	image := sign(t, build(uefi.MachineX64, text()), db)
	must(t, "hash-to-efi-sig-list", write(t, image), hash)
	im, err := uefi.ParseImage(image)
	if err != nil {
		t.Fatal(err)
	}
	nobody := uefi.GUID{}
	theirs := read(t, hash) // owner: efitools' own
	copy(nobody[:], theirs[28:44])
	forbid := uefi.Variable{Name: "dbx", Entries: []uefi.Entry{{Owner: nobody, SHA256: im.Signatures[0].Digest}}}
	if !bytes.Equal(forbid.List(), theirs) {
		t.Errorf("our list of a digest differs from hash-to-efi-sig-list's:\n%x\n%x", forbid.List(), theirs)
	}
	for _, join := range []bool{false, true} {
		args := []string{"sign-efi-sig-list", "-g", ownerGUID, "-t", "2026-11-25 12:00:00", "-k", keyFile, "-c", certFile}
		if join {
			args = append(args, "-a")
		}
		must(t, append(args, v.Name, esl, dir+"/db.auth")...)
		ours, err := v.Update(kek, day, join)
		if err != nil {
			t.Fatal(err)
		}
		theirs := read(t, dir+"/db.auth")
		if d, err := uefi.ParseDatabase(theirs); err != nil || !d.Certificates[0].Equal(db.Certificate) {
			t.Errorf("efitools' update cannot be read: %v", err)
		}
		if !bytes.Equal(ours[:16], theirs[:16]) {
			t.Errorf("the time is %x, efitools' %x", ours[:16], theirs[:16])
		}
		// RSA by PKCS #1 v1.5 has one signature of one content: the same one means that the
		// same bytes were signed. Theirs stands last in the SignedData.
		if mine := lastOf(t, ours, v); !bytes.Contains(theirs, mine) {
			t.Error("efitools signed other bytes")
		}
	}
}

// lastOf returns the RSA signature of an update: the 256 bytes before the list.
func lastOf(t testing.TB, update []byte, v uefi.Variable) []byte {
	t.Helper()
	at := len(update) - len(v.List())
	return update[at-256 : at]
}

// TestUpdateForms reads updates again: order, owners, deletion.
func TestUpdateForms(t *testing.T) {
	pk, kek, db := pair(t, "PK"), pair(t, "KEK"), pair(t, "db")
	o := ownerOf(t, pk, kek, db)
	o.Microsoft = []string{uefi.Microsoft2011, uefi.Microsoft2023}
	o.Forbidden = []uefi.Entry{{Owner: o.GUID, SHA256: bytes.Repeat([]byte{1}, 32)}, {Owner: o.GUID, SHA256: bytes.Repeat([]byte{2}, 32)}}
	var names []string
	for _, v := range variables(t, o) {
		names = append(names, v.Name)
		update, err := v.Update(kek, day, false)
		if err != nil {
			t.Fatal(err)
		}
		d, err := uefi.ParseDatabase(update)
		if err != nil || len(d.Certificates)+d.Hashes() != len(v.Entries) || d.Skipped > 0 {
			t.Errorf("%s: %v, %d certificates and %d digests", v.Name, err, len(d.Certificates), d.Hashes())
		}
	}
	if !slices.Equal(names, []string{"db", "dbx", "KEK", "PK"}) {
		t.Errorf("the order is %v", names)
	}
	o.Microsoft = []string{"2011"}
	if _, err := o.Variables(); err == nil {
		t.Error("Microsoft's certificate of a name that is none")
	}
	if _, err := (uefi.Variable{Name: "db"}).Update(kek, day, true); err == nil {
		t.Error("nothing is appended")
	}
	if u, err := (uefi.Variable{Name: "PK"}).Update(pk, day, false); err != nil || len(u) < 1000 {
		t.Errorf("the update that deletes PK: %d bytes, %v", len(u), err)
	}
}

// TestEnrolInStore writes keys into OVMF's empty store, and reads them again.
func TestEnrolInStore(t *testing.T) {
	pk, kek, db := pair(t, "PK"), pair(t, "KEK"), pair(t, "db")
	keys := variables(t, ownerOf(t, pk, kek, db))
	for _, path := range []string{emptyStore, storeFile} {
		store, err := uefi.EnrolInStore(read(t, path), keys, day)
		if err != nil {
			t.Fatal(err)
		}
		f, err := uefi.ParseFirmware("own", store)
		if err != nil || len(f.DB.Certificates) != 1 || !f.DB.Certificates[0].Equal(db.Certificate) {
			t.Errorf("%s: %v, db has %v", filepath.Base(path), err, f.DB.Certificates)
		}
		if len(store) != len(read(t, path)) {
			t.Errorf("%s: the store has %d bytes now", filepath.Base(path), len(store))
		}
		if again, err := uefi.EnrolInStore(store, keys, day.Add(time.Hour)); err != nil || bytes.Equal(again, store) {
			t.Errorf("%s: once more: %v", filepath.Base(path), err)
		}
		gone, err := uefi.SetInStore(store, uefi.Stored{Name: "db", Vendor: keys[0].Vendor()})
		if err != nil {
			t.Fatal(err)
		}
		if f, err := uefi.ParseFirmware("gone", gone); err == nil {
			t.Errorf("%s: db is still %v", filepath.Base(path), f.DB.Certificates)
		}
	}
	full := uefi.Stored{Name: "much", Value: make([]byte, 300_000)}
	if _, err := uefi.SetInStore(read(t, emptyStore), full); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("too much: %v", err)
	}
	damaged := read(t, storeFile)
	copy(damaged[72+28+36:], "\xff\xff\xff\x7f") // the first name's length
	for name, store := range map[string][]byte{"nothing": nil, "damaged": damaged, "text": bytes.Repeat([]byte("no store "), 20), "other format": make([]byte, 600)} {
		if _, err := uefi.SetInStore(store, uefi.Stored{Name: "db"}); err == nil {
			t.Errorf("%s is a store", name)
		}
	}
}

// FuzzStore: whatever the store, writing to it returns, and what was written is read.
func FuzzStore(f *testing.F) {
	b, err := os.ReadFile(emptyStore)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:2000])
	f.Fuzz(func(t *testing.T, data []byte) {
		out, err := uefi.SetInStore(data, uefi.Stored{Name: "db", Vendor: uefi.Variable{Name: "db"}.Vendor(), Value: []byte("no list")})
		if err != nil {
			return
		}
		if _, err := uefi.ParseFirmware("f", out); err == nil || !strings.Contains(err.Error(), "variable db") {
			t.Errorf("what was written is not read: %v", err)
		}
	})
}

// FuzzKey: no file makes the reader of keys panic or take for ever.
func FuzzKey(f *testing.F) {
	f.Add([]byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if k, err := uefi.ParseKey(data, []byte("p")); err == nil && k == nil {
			t.Error("no key, and no error")
		}
	})
}
