package uefi

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"

	"bootlane/internal/lane"
)

// Shim is what a shim carries of its own: whom it trusts beside the firmware's db, and
// the SBAT levels that it sets.
type Shim struct {
	Vendor    Database // its vendor's certificates, and images that its vendor vouches for
	VendorDBX Database
	// Previous is the level that it sets by itself ("automatic" in newer shims), Latest
	// the one that it sets when told to. Both nil: a shim from before 15.8, which keeps them elsewhere.
	Previous, Latest *Level
}

// Shim returns what the image carries as a shim, or nil when it is none.
func (im *Image) Shim() (*Shim, error) {
	table, ok := im.Section(".vendor_cert")
	if !ok {
		return nil, nil
	}
	s := &Shim{}
	if err := s.vendor(table); err != nil {
		return nil, err
	}
	if levels, ok := im.Section(".sbatlevel"); ok {
		if err := s.levels(levels); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// vendor reads shim's cert_table (cert.S): the sizes of what is authorized and
// deauthorized, then where each begins.
func (s *Shim) vendor(table []byte) error {
	if len(table) < 16 {
		return lane.Errorf(lane.Invalid, "the section .vendor_cert has %d bytes, its header alone has 16: fetch the shim again", len(table))
	}
	part := func(i int) ([]byte, error) {
		size, off := uint64(binary.LittleEndian.Uint32(table[4*i:])), uint64(binary.LittleEndian.Uint32(table[8+4*i:]))
		if size == 0 {
			return nil, nil
		}
		if off > uint64(len(table)) || size > uint64(len(table))-off {
			return nil, lane.Errorf(lane.Invalid, "the section .vendor_cert has %d bytes, and names %d at %d: fetch the shim again", len(table), size, off)
		}
		return table[off : off+size], nil
	}
	yes, err := part(0)
	if err != nil {
		return err
	}
	no, err := part(1)
	if err != nil {
		return err
	}
	// One certificate, or a list (built with VENDOR_DB_FILE): shim tells them apart by looking, too.
	if c, err := x509.ParseCertificate(yes); err == nil {
		s.Vendor.Certificates = []*x509.Certificate{c}
	} else if len(yes) > 0 {
		if s.Vendor, err = parseLists(yes); err != nil {
			return lane.Errorf(lane.Invalid, "the vendor's certificate in .vendor_cert is neither a certificate nor a signature list: %v", err)
		}
	}
	if len(no) > 0 {
		if s.VendorDBX, err = parseLists(no); err != nil {
			return lane.Errorf(lane.Invalid, "the vendor's dbx in .vendor_cert: %v", err)
		}
	}
	return nil
}

// levels reads .sbatlevel (shim, sbat_var.S): a version, and the places of two texts,
// counted from behind the version.
func (s *Shim) levels(b []byte) error {
	if len(b) < 12 || binary.LittleEndian.Uint32(b) != 0 {
		return lane.Errorf(lane.Invalid, "the section .sbatlevel has a form that is not known here (version 0 is): give the level by --sbat-level")
	}
	b = b[4:]
	for i, into := range []**Level{&s.Previous, &s.Latest} {
		off := uint64(binary.LittleEndian.Uint32(b[4*i:]))
		if off >= uint64(len(b)) {
			return lane.Errorf(lane.Invalid, "the section .sbatlevel has %d bytes, and names a level at %d: fetch the shim again", len(b)+4, off)
		}
		text, _, _ := bytes.Cut(b[off:], []byte{0})
		l, err := ParseLevel(text)
		if err != nil {
			return lane.Errorf(lane.Invalid, "the section .sbatlevel: %v", err)
		}
		*into = &l
	}
	return nil
}
