package uefi

import (
	"bytes"
	"crypto"
	"encoding/asn1"
	"encoding/binary"
	"slices"
	"time"

	"bootlane/internal/lane"
)

// Sign returns the image with one more signature, made at a time that it states, and
// with its PE checksum made anew. Signatures that are there stay; an image that this
// certificate has signed already comes back as it is. What is not a whole PE image, or
// has no room for signatures, is refused with [lane.Invalid].
//
// Microsoft, "Windows Authenticode Portable Executable Signature Format".
func Sign(image []byte, by Signer, at time.Time) ([]byte, error) {
	if err := by.check(); err != nil {
		return nil, err
	}
	out, err := roomForSignature(image)
	if err != nil {
		return nil, err
	}
	im, err := ParseImage(out)
	if err != nil {
		return nil, err
	}
	for _, s := range im.Signatures {
		if s.Err == nil && s.Signer.Equal(by.Certificate) {
			return image, nil
		}
	}
	if len(im.Signatures) >= maxSignatures {
		return nil, lane.Errorf(lane.Invalid, "the image has %d signatures: firmware need not look at more", len(im.Signatures))
	}
	digest, err := im.Digest(crypto.SHA256)
	if err != nil {
		return nil, err
	}
	data, err := by.signedDataOf(oidIndirectData, indirectDataOf(digest), at)
	if err != nil {
		return nil, err
	}
	blob := der(tagSequence, oid(oidSignedData), der(tagExplicit0, data))
	out = appendCertificate(im, blob)
	return out, confirm(out, by, len(im.Signatures))
}

// roomForSignature returns a copy of the image that ends where its next signature may
// begin: a multiple of eight bytes, which the digest counts in.
func roomForSignature(image []byte) ([]byte, error) {
	im, err := ParseImage(image)
	if err != nil {
		return nil, err
	}
	switch {
	case im.TableErr != nil:
		return nil, im.TableErr
	case im.directory == 0:
		return nil, lane.Errorf(lane.Invalid, "the image's headers have no entry for a certificate table, so it cannot be signed: link it with NumberOfRvaAndSizes of 5 or more")
	case im.tableLen > 0 && (im.table+im.tableLen != uint64(im.Size) || im.table%8 != 0):
		return nil, lane.Errorf(lane.Invalid, "the certificate table is not the file's end, so no signature can be added: take the image as it was before (sbattach --remove)")
	}
	out := bytes.Clone(image)
	return append(out, make([]byte, -len(out)&7)...), nil
}

// indirectDataOf is the content of the SpcIndirectDataContent of a PE image: what it is, and its
// digest. The file name that it must hold is "<<<Obsolete>>>" everywhere.
func indirectDataOf(digest []byte) []byte {
	var obsolete []byte
	for _, c := range "<<<Obsolete>>>" {
		obsolete = append(obsolete, 0, byte(c))
	}
	file := der(tagExplicit0, der(tagExplicit2, der(0x80, obsolete)))
	image := der(tagSequence, oid(oidPEImageData), der(tagSequence, der(asn1.TagBitString, []byte{0}), file))
	return append(image, der(tagSequence, der(tagSequence, oid(oidSHA256), der(asn1.TagNull)), der(asn1.TagOctetString, digest))...)
}

// appendCertificate returns the image's bytes with one more WIN_CERTIFICATE (UEFI 2.10,
// 32.2.4) behind them.
func appendCertificate(im *Image, blob []byte) []byte {
	const revision, typePKCS = 0x0200, 0x0002
	le := binary.LittleEndian
	out := slices.Clone(im.data)
	start := len(out)
	out = le.AppendUint32(out, uint32(8+len(blob)))
	out = le.AppendUint16(out, revision)
	out = le.AppendUint16(out, typePKCS)
	out = append(out, blob...)
	out = append(out, make([]byte, -len(out)&7)...)
	table := im.table
	if im.tableLen == 0 {
		table = uint64(start)
	}
	le.PutUint32(out[im.directory:], uint32(table))
	le.PutUint32(out[im.directory+4:], uint32(uint64(len(out))-table))
	le.PutUint32(out[im.checksum:], checksum(out, im.checksum))
	return out
}

// checksum is the PE checksum of ImageHlp's CheckSumMappedFile: all 16-bit words but the
// field itself, with their carries, and the length. Some firmware looks at it.
func checksum(image []byte, field uint64) uint32 {
	total := uint64(0)
	for i := 0; i < len(image); i += 2 {
		if uint64(i) == field || uint64(i) == field+2 {
			continue
		}
		word := uint64(image[i])
		if i+1 < len(image) {
			word |= uint64(image[i+1]) << 8
		}
		total += word
	}
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return uint32(total) + uint32(len(image))
}

// confirm reads what was made as firmware will.
func confirm(image []byte, by Signer, index int) error {
	im, err := ParseImage(image)
	if err != nil {
		return err
	}
	if im.TableErr != nil {
		return im.TableErr
	}
	if len(im.Signatures) != index+1 {
		return lane.Errorf(lane.Invalid, "the signed image has %d signatures, not %d: its table holds something that is none", len(im.Signatures), index+1)
	}
	if s := im.Signatures[index]; s.Err != nil || !s.Signer.Equal(by.Certificate) {
		return lane.Errorf(lane.Invalid, "the signature that was made does not hold: %v", s.Err)
	}
	return nil
}
