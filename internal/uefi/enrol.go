package uefi

import (
	"crypto/x509"
	"encoding/binary"
	"slices"
	"time"

	"bootlane/internal/lane"
)

// GUIDs as they are written.
const (
	globalVariable   = "8be4df61-93ca-11d2-aa0d-00e098032b8c" // EFI_GLOBAL_VARIABLE: PK, KEK
	securityDatabase = "d719b2cb-3d3a-4596-a3bc-dad00e67656f" // EFI_IMAGE_SECURITY_DATABASE_GUID: db, dbx
	certX509         = "a5c059a1-94e4-4aa7-87b5-ab155c2bf072" // EFI_CERT_X509_GUID
	certSHA256       = "c1c41626-504c-4092-aca9-41f936934328" // EFI_CERT_SHA256_GUID
	certPKCS7        = "4aafd29d-68df-49ee-8aa9-347d375665a7" // EFI_CERT_TYPE_PKCS7_GUID
	microsoftOwner   = "77fa9abd-0359-4d32-bd60-28f4e78f784b" // whose entries Microsoft's are, everywhere
)

// EFI_VARIABLE_* attributes: UEFI 2.10, 8.2.1.
const (
	keyAttributes = 0x01 | 0x02 | 0x04 | 0x20 // non-volatile, in boot services, at runtime, time-based authenticated
	appendWrite   = 0x40
)

// Entry is one EFI_SIGNATURE_DATA: a certificate, or an image's Authenticode SHA-256 digest.
type Entry struct {
	Owner       GUID
	Certificate *x509.Certificate
	SHA256      []byte // 32 bytes, when there is no certificate
}

// Variable is what one of the four variables that hold keys is to be. Its name and entries
// are also what Redfish enrols: the SecureBootDatabase of that name takes each entry as a
// member of Certificates or Signatures, with its owner (DSP0266, DSP2046). Without
// entries the variable is to be deleted; without PK a machine is in setup mode.
type Variable struct {
	Name    string // PK, KEK, db or dbx
	Entries []Entry
}

// Vendor returns the GUID that the variable's name stands under.
func (v Variable) Vendor() GUID {
	if v.Name == PlatformKey || v.Name == KeyExchangeKey {
		return known(globalVariable)
	}
	return known(securityDatabase)
}

// known is the GUID of a constant.
func known(s string) GUID {
	g, err := ParseGUID(s)
	if err != nil {
		return GUID{}
	}
	return g
}

// List returns the variable's value, EFI_SIGNATURE_LISTs (.esl): UEFI 2.10, 32.4.1. A list
// holds entries of one size, so that each certificate has its own, and all digests
// share one.
func (v Variable) List() []byte {
	var out, sums []byte
	for _, e := range v.Entries {
		if e.Certificate != nil {
			out = append(out, signatureList(certX509, len(e.Certificate.Raw), append(e.Owner[:], e.Certificate.Raw...))...)
		} else {
			sums = append(append(sums, e.Owner[:]...), e.SHA256...)
		}
	}
	if len(sums) > 0 {
		out = append(out, signatureList(certSHA256, 32, sums)...)
	}
	return out
}

// signatureList puts the header in front of entries of one size.
func signatureList(kind string, size int, entries []byte) []byte {
	g, le := known(kind), binary.LittleEndian
	b := le.AppendUint32(g[:], uint32(28+len(entries)))
	b = le.AppendUint32(b, 0) // no SignatureHeader
	b = le.AppendUint32(b, uint32(16+size))
	return append(b, entries...)
}

// Update returns the variable as firmware takes it (.auth): EFI_VARIABLE_AUTHENTICATION_2,
// signed over name, vendor, attributes, time and list, and the list. UEFI 2.10, 8.2.2.
// PK is signed by itself, or by the PK that it replaces; KEK by PK; db and dbx by a KEK.
// Firmware refuses a time that is not later than that of the value it has, but
// when it is told to append: then the entries join those that are there.
func (v Variable) Update(by Signer, at time.Time, join bool) ([]byte, error) {
	if err := by.check(); err != nil {
		return nil, err
	}
	if join && len(v.Entries) == 0 {
		return nil, lane.Errorf(lane.Invalid, "nothing to append to %s", v.Name)
	}
	attributes := uint32(keyAttributes)
	if join {
		attributes |= appendWrite
	}
	le, vendor, stamp, list := binary.LittleEndian, v.Vendor(), toEFITime(at), v.List()
	name := utf16LE(v.Name)
	signed := slices.Concat(name, vendor[:], le.AppendUint32(nil, attributes), stamp, list)
	// A SignedData that no ContentInfo wraps, and without signed attributes.
	data, err := by.signedDataOf(oidData, signed, time.Time{})
	if err != nil {
		return nil, err
	}
	const revision, typeGUID = 0x0200, 0x0ef1
	kind := known(certPKCS7)
	out := le.AppendUint32(stamp, uint32(24+len(data)))
	out = le.AppendUint16(out, revision)
	out = le.AppendUint16(out, typeGUID)
	return slices.Concat(out, kind[:], data, list), nil
}

// toEFITime is an EFI_TIME in UTC; what a signed time may not have is zero (UEFI 2.10, 8.2.2).
func toEFITime(t time.Time) []byte {
	t = t.UTC()
	b := binary.LittleEndian.AppendUint16(nil, uint16(t.Year()))
	b = append(b, byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()))
	return append(b, make([]byte, 9)...)
}

// Owner is who owns machines: the three pairs' certificates, and what else the machines
// are to trust and to forbid.
type Owner struct {
	GUID      GUID
	PK        *x509.Certificate
	KEK, DB   []*x509.Certificate
	Microsoft []string // of [Microsoft2011] and [Microsoft2023]: also trusted, as in option ROMs
	Forbidden []Entry  // in dbx
}

// Variables returns what firmware is to hold, in the order in which a machine in setup mode
// takes it: PK last, for it ends that mode.
func (o Owner) Variables() ([]Variable, error) {
	entries := func(list []*x509.Certificate) (out []Entry) {
		for _, c := range list {
			out = append(out, Entry{Owner: o.GUID, Certificate: c})
		}
		return out
	}
	db := Variable{SignatureDatabase, entries(o.DB)}
	for _, n := range o.Microsoft {
		f, ok, err := BuiltIn(n)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, lane.Errorf(lane.Invalid, "%q is no certificate of Microsoft's: use %s or %s", n, Microsoft2011, Microsoft2023)
		}
		for _, c := range f.DB.Certificates {
			db.Entries = append(db.Entries, Entry{known(microsoftOwner), c, nil})
		}
	}
	out := []Variable{db}
	if len(o.Forbidden) > 0 {
		out = append(out, Variable{ForbiddenSignature, o.Forbidden})
	}
	return append(out, Variable{KeyExchangeKey, entries(o.KEK)}, Variable{PlatformKey, entries([]*x509.Certificate{o.PK})}), nil
}
