package uefi

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// Database is a signature database: what db, dbx or a MOK list hold. UEFI 2.10, 32.4.1.
type Database struct {
	Certificates []*x509.Certificate
	// Skipped counts entries of types that have no say over images, or cannot be read.
	Skipped int

	images  map[string]bool      // digests of images, as hashKey writes them
	revoked map[string]time.Time // digests of certificates' TBS, and from when on
}

// Hashes returns how many digests of images the database has.
func (d Database) Hashes() int { return len(d.images) }

// RevokedCertificates returns how many certificates are named by their digest only.
func (d Database) RevokedCertificates() int { return len(d.revoked) }

// Empty says whether nothing is in it.
func (d Database) Empty() bool {
	return len(d.Certificates) == 0 && len(d.images) == 0 && len(d.revoked) == 0
}

// Join returns a database with the entries of both.
func (d Database) Join(e Database) Database {
	out := Database{Skipped: d.Skipped + e.Skipped, images: map[string]bool{}, revoked: map[string]time.Time{}}
	for _, from := range []Database{d, e} {
		out.Certificates = append(out.Certificates, from.Certificates...)
		for k := range from.images {
			out.images[k] = true
		}
		for k, t := range from.revoked {
			out.revoked[k] = t
		}
	}
	return out
}

func hashKey(alg crypto.Hash, sum []byte) string { return fmt.Sprintf("%d:%x", alg, sum) }

// ParseDatabase reads a database from any of the forms in which it is kept: PEM or DER
// certificates, an EFI_SIGNATURE_LIST (.esl), one as an authenticated update (.auth), or
// a variable as Linux shows it in efivarfs.
func ParseDatabase(data []byte) (Database, error) {
	if bytes.Contains(data, []byte("-----BEGIN")) {
		return parsePEM(data)
	}
	if c, err := x509.ParseCertificate(data); err == nil {
		return Database{Certificates: []*x509.Certificate{c}}, nil
	}
	d, err := parseLists(data)
	if err == nil {
		return d, nil
	}
	// efivarfs puts the variable's attributes in front: four bytes.
	if len(data) > 4 {
		if d, err := parseLists(data[4:]); err == nil {
			return d, nil
		}
	}
	// EFI_VARIABLE_AUTHENTICATION_2: a time of 16 bytes, a WIN_CERTIFICATE, the list.
	if len(data) > 24 && binary.LittleEndian.Uint16(data[22:]) == 0x0ef1 {
		if n := 16 + uint64(binary.LittleEndian.Uint32(data[16:])); n < uint64(len(data)) {
			if d, err := parseLists(data[n:]); err == nil {
				return d, nil
			}
		}
	}
	return Database{}, lane.Errorf(lane.Invalid, "this is no signature database: neither certificates (PEM, DER) nor EFI signature lists (.esl, .auth, /sys/firmware/efi/efivars/db-...): %v", err)
}

func parsePEM(data []byte) (d Database, err error) {
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return d, lane.Errorf(lane.Invalid, "certificate %d of the PEM file cannot be read: %v", len(d.Certificates)+1, err)
		}
		d.Certificates = append(d.Certificates, c)
	}
	if len(d.Certificates) == 0 {
		return d, lane.Errorf(lane.Invalid, "the PEM file has no block CERTIFICATE")
	}
	return d, nil
}

// parseLists reads EFI_SIGNATURE_LISTs, one behind the other: UEFI 2.10, 32.4.1.
func parseLists(data []byte) (Database, error) {
	d := Database{images: map[string]bool{}, revoked: map[string]time.Time{}}
	if len(data) == 0 {
		return d, lane.Errorf(lane.Invalid, "the signature list is empty")
	}
	le := binary.LittleEndian
	for n := 1; len(data) > 0; n++ {
		if len(data) < 28 {
			return d, lane.Errorf(lane.Invalid, "signature list %d has %d bytes, its header alone has 28", n, len(data))
		}
		size, header, each := uint64(le.Uint32(data[16:])), uint64(le.Uint32(data[20:])), uint64(le.Uint32(data[24:]))
		if size < 28 || size > uint64(len(data)) || header > size-28 {
			return d, lane.Errorf(lane.Invalid, "SignatureListSize %d of signature list %d does not fit into %d bytes", size, n, len(data))
		}
		entries := data[28+header : size]
		if each <= 16 || uint64(len(entries))%each != 0 {
			return d, lane.Errorf(lane.Invalid, "SignatureSize %d of signature list %d does not divide its %d bytes", each, n, len(entries))
		}
		kind := guid(data)
		for ; len(entries) > 0; entries = entries[each:] {
			d.add(kind, entries[16:each]) // before it stands whose entry it is
		}
		data = data[size:]
	}
	return d, nil
}

// add takes one signature: UEFI 2.10, 32.4.1, the EFI_CERT_*_GUIDs.
func (d *Database) add(kind string, sig []byte) {
	images := map[string]crypto.Hash{
		"826ca512-cf10-4ac9-b187-be01496631bd": crypto.SHA1,
		"c1c41626-504c-4092-aca9-41f936934328": crypto.SHA256,
		"ff3e5307-9fd0-48c9-85f1-8ad56c701e01": crypto.SHA384,
		"093e0fae-a6c4-4f50-9f1b-d41e2b89c19a": crypto.SHA512,
	}
	certificates := map[string]crypto.Hash{
		"3bd2a492-96c0-4079-b420-fcf98ef103ed": crypto.SHA256,
		"7076876e-80c2-4ee6-aad2-28b349a6865b": crypto.SHA384,
		"446dbf63-2502-4cda-bcfa-2465d2b0fe9d": crypto.SHA512,
	}
	if alg, ok := images[kind]; ok && len(sig) == alg.Size() {
		d.images[hashKey(alg, sig)] = true
		return
	}
	if alg, ok := certificates[kind]; ok && len(sig) == alg.Size()+16 {
		d.revoked[hashKey(alg, sig[:alg.Size()])] = efiTime(sig[alg.Size():])
		return
	}
	if kind == "a5c059a1-94e4-4aa7-87b5-ab155c2bf072" {
		if c, err := x509.ParseCertificate(sig); err == nil {
			d.Certificates = append(d.Certificates, c)
			return
		}
	}
	d.Skipped++
}

// efiTime reads an EFI_TIME, which is in UTC here; all zero is no time.
func efiTime(b []byte) time.Time {
	y := int(binary.LittleEndian.Uint16(b))
	if y == 0 {
		return time.Time{}
	}
	return time.Date(y, time.Month(b[2]), int(b[3]), int(b[4]), int(b[5]), int(b[6]), 0, time.UTC)
}

// image says whether the database names the image by one of its digests.
func (d Database) image(im *Image) bool {
	for _, alg := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA1} {
		if !d.knows(alg) {
			continue // it is not worth reading the image once more
		}
		if sum := im.digest(alg); sum != nil && d.images[hashKey(alg, sum)] {
			return true
		}
	}
	return false
}

func (d Database) knows(alg crypto.Hash) bool {
	prefix := hashKey(alg, nil)
	for k := range d.images {
		if strings.HasPrefix(k, prefix) {
			return true
		}
	}
	return false
}

// certificate says whether the database names a certificate by its digest, and from
// when on it is revoked; zero is always.
func (d Database) certificate(c *x509.Certificate) (time.Time, bool) {
	for _, alg := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		if t, ok := d.revoked[hashKey(alg, sum(alg, c.RawTBSCertificate))]; ok {
			return t, true
		}
	}
	return time.Time{}, false
}
