// Package uefi reads what Secure Boot judges: PE/COFF images with their Authenticode
// signatures, signature databases (db, dbx, MOK list), SBAT, and the sections in which
// shim carries its vendor's certificate. [Prove] walks a boot chain with the rules of
// EDK2's firmware and of shim, and says which link holds by which certificate, or
// where the chain breaks and how to mend it.
//
// It is pure: bytes go in, a [Report] or a [Proof] comes out. Whatever the bytes are,
// it returns.
package uefi

import (
	"bytes"
	"crypto"
	_ "crypto/sha1"   // digests in dbx
	_ "crypto/sha256" // what everything is signed with today
	_ "crypto/sha512" // SHA-384 and SHA-512
	"encoding/binary"
	"fmt"
	"hash"
	"slices"
	"strconv"

	"bootlane/internal/lane"
)

// Machine is the processor that an image runs on: PE/COFF specification, "Machine Types".
type Machine uint16

// The machines that boot by UEFI.
const (
	MachineIA32 Machine = 0x014c
	MachineX64  Machine = 0x8664
	MachineARM  Machine = 0x01c2 // Thumb: what UEFI calls ARM
	MachineAA64 Machine = 0xaa64
)

// String returns the machine's short name in UEFI's file names, bootx64.efi.
func (m Machine) String() string {
	switch m {
	case MachineIA32:
		return "ia32"
	case MachineX64:
		return "x64"
	case MachineARM:
		return "arm"
	case MachineAA64:
		return "aa64"
	case 0x5064:
		return "riscv64"
	case 0x6264:
		return "loongarch64"
	}
	return fmt.Sprintf("machine %#04x", uint16(m))
}

// Subsystem is what an image is started as: PE/COFF specification, "Windows Subsystem".
type Subsystem uint16

// String names the subsystem.
func (s Subsystem) String() string {
	switch s {
	case 10:
		return "EFI application"
	case 11:
		return "EFI boot service driver"
	case 12:
		return "EFI runtime driver"
	case 13:
		return "EFI ROM"
	}
	return fmt.Sprintf("subsystem %d, not EFI", uint16(s))
}

// Offsets in the PE header, from its signature "PE\0\0": PE/COFF specification,
// "COFF File Header" and "Optional Header".
const (
	optionalAt    = 24
	subsystemAt   = optionalAt + 68
	checksumAt    = optionalAt + 64
	headersSizeAt = optionalAt + 60
	magicPE32     = 0x10b
	magicPE32Plus = 0x20b
	sectionSize   = 40
	securityDir   = 4 // the Certificate Table's index among the data directories
	maxSignatures = 16
)

// Image is a PE/COFF image. It is for one goroutine at a time: it keeps the digests
// that were asked for.
type Image struct {
	Machine   Machine
	Subsystem Subsystem
	Format    string // PE32 or PE32+
	Size      int

	// Signatures are those in the certificate table, in order.
	Signatures []Signature
	// TableErr says what is wrong with the certificate table: firmware then takes no
	// signature of it, whatever they are.
	TableErr error

	data            []byte
	headers         uint64 // how many bytes of the file are headers
	checksum        uint64 // where it stands
	directory       uint64 // where the certificate table's directory entry stands; 0: nowhere
	table, tableLen uint64
	sections        []section
	sums            map[crypto.Hash][]byte // what Digest found, nil where it failed
}

type section struct {
	name        string
	off, length uint64 // in the file
	virtual     uint64 // length in memory
}

// ParseImage reads a PE/COFF image: its headers, its sections and its signatures.
// A signature that cannot be read is not an error of the image, see [Signature].
func ParseImage(data []byte) (*Image, error) {
	im := &Image{data: data, Size: len(data), sums: map[crypto.Hash][]byte{}}
	pe, err := im.find()
	if err != nil {
		return nil, err
	}
	if err := im.header(pe); err != nil {
		return nil, err
	}
	if err := im.sectionTable(pe); err != nil {
		return nil, err
	}
	im.certificates()
	return im, nil
}

func notPE(format string, args ...any) error {
	return lane.Errorf(lane.Invalid, "not a UEFI image: "+format, args...)
}

// bytes returns n bytes at off, or false when the file does not have them.
func (im *Image) bytes(off, n uint64) ([]byte, bool) {
	size := uint64(len(im.data))
	if off > size || n > size-off {
		return nil, false
	}
	return im.data[off : off+n], true
}

// find returns where the PE header stands. As firmware, it takes one without a DOS header too.
func (im *Image) find() (uint64, error) {
	pe := uint64(0)
	if b, ok := im.bytes(0, 64); ok && string(b[:2]) == "MZ" {
		pe = uint64(binary.LittleEndian.Uint32(b[60:]))
	}
	sig, ok := im.bytes(pe, 4)
	switch {
	case ok && string(sig) == "PE\x00\x00":
		return pe, nil
	case bytes.HasPrefix(im.data, []byte{0x1f, 0x8b}):
		return 0, notPE("it is compressed by gzip; firmware needs it unpacked (zcat)")
	case bytes.HasPrefix(im.data, []byte("MZ")):
		return 0, notPE("the PE signature is missing at e_lfanew %#x: a kernel without EFI stub (CONFIG_EFI_STUB), or a damaged file; fetch it again", pe)
	}
	return 0, notPE("it begins with neither MZ nor PE; give the .efi file or the kernel itself")
}

func (im *Image) header(pe uint64) error {
	h, ok := im.bytes(pe, optionalAt+112)
	if !ok {
		return notPE("it ends in its headers, after %d bytes; fetch it again", im.Size)
	}
	le := binary.LittleEndian
	im.Machine, im.Subsystem = Machine(le.Uint16(h[4:])), Subsystem(le.Uint16(h[subsystemAt:]))
	im.headers, im.checksum = uint64(le.Uint32(h[headersSizeAt:])), pe+checksumAt
	// The fields before differ in width only where their sum does not: ImageBase takes the place of BaseOfData.
	count, first := le.Uint32(h[optionalAt+92:]), pe+optionalAt+96
	switch magic := le.Uint16(h[optionalAt:]); magic {
	case magicPE32:
		im.Format = "PE32"
	case magicPE32Plus:
		im.Format = "PE32+"
		count, first = le.Uint32(h[optionalAt+108:]), pe+optionalAt+112
	default:
		return notPE("its optional header has the magic %#x, not that of PE32 or PE32+", magic)
	}
	if _, ok := im.bytes(0, im.headers); !ok || im.headers < im.checksum+4 {
		return notPE("SizeOfHeaders is %d, in a file of %d bytes; fetch it again", im.headers, im.Size)
	}
	if count <= securityDir {
		return nil
	}
	im.directory = first + securityDir*8
	d, ok := im.bytes(im.directory, 8)
	if end := pe + optionalAt + uint64(le.Uint16(h[20:])); !ok || im.directory+8 > min(im.headers, end) {
		return notPE("its optional header ends before the certificate table's directory entry, although NumberOfRvaAndSizes is %d", count)
	}
	im.table, im.tableLen = uint64(le.Uint32(d)), uint64(le.Uint32(d[4:]))
	return nil
}

func (im *Image) sectionTable(pe uint64) error {
	le := binary.LittleEndian
	h, _ := im.bytes(pe, optionalAt) // header found them
	n := uint64(le.Uint16(h[6:]))
	table, ok := im.bytes(pe+optionalAt+uint64(le.Uint16(h[20:])), n*sectionSize)
	if !ok {
		return notPE("NumberOfSections is %d, more than the file has room for; fetch it again", n)
	}
	symbols, count := uint64(le.Uint32(h[12:])), uint64(le.Uint32(h[16:]))
	for ; len(table) > 0; table = table[sectionSize:] {
		s := section{name: im.sectionName(table[:8], symbols+18*count), virtual: uint64(le.Uint32(table[8:])), length: uint64(le.Uint32(table[16:])), off: uint64(le.Uint32(table[20:]))}
		if _, ok := im.bytes(s.off, s.length); !ok && s.length > 0 {
			return notPE("the section %q ends at %d, in a file of %d bytes; fetch it again", lane.Clean(s.name, 8), s.off+s.length, im.Size)
		}
		im.sections = append(im.sections, s)
	}
	return nil
}

// sectionName resolves "/123", which names of more than eight letters are: an offset in
// the string table, behind the symbols. The linkers of shim write .vendor_cert so.
func (im *Image) sectionName(b []byte, strings uint64) string {
	short, _, _ := bytes.Cut(b, []byte{0})
	if len(short) < 2 || short[0] != '/' {
		return string(short)
	}
	off, err := strconv.ParseUint(string(short[1:]), 10, 32)
	if err != nil {
		return string(short)
	}
	const longest = 32 // of those that anybody asks for
	if strings += off; strings < uint64(im.Size) {
		long, _, ended := bytes.Cut(im.data[strings:min(strings+longest, uint64(im.Size))], []byte{0})
		if ended {
			return string(long)
		}
	}
	return string(short)
}

// Section returns the content of a section, without the padding behind it in the
// file. Shim refuses an image with two of a name that it reads, so this does not
// find it either.
func (im *Image) Section(name string) ([]byte, bool) {
	var out []byte
	found := 0
	for _, s := range im.sections {
		if s.name != name || s.length == 0 {
			continue
		}
		n := s.length
		if s.virtual > 0 {
			n = min(n, s.virtual)
		}
		out, found = im.data[s.off:s.off+n], found+1
	}
	return out, found == 1
}

// Digest returns the image's Authenticode digest: Microsoft, "Windows Authenticode
// Portable Executable Signature Format", "Calculating the PE Image Hash". Where that
// is silent (gaps between sections, bytes behind them) it does what EDK2's
// HashPeImage and shim's generate_hash do: what is behind the headers and sections is
// counted, not looked for.
func (im *Image) Digest(alg crypto.Hash) ([]byte, error) {
	if !alg.Available() {
		return nil, fmt.Errorf("no firmware knows the digest algorithm %d", alg)
	}
	h := alg.New()
	put(h, im.data[:im.checksum])
	if im.directory == 0 {
		put(h, im.data[im.checksum+4:im.headers])
	} else {
		put(h, im.data[im.checksum+4:im.directory])
		put(h, im.data[im.directory+8:im.headers])
	}
	byOffset := slices.Clone(im.sections)
	slices.SortStableFunc(byOffset, func(a, b section) int { return int(int64(a.off) - int64(b.off)) })
	sum, limit := im.headers, uint64(im.Size)
	for _, s := range byOffset {
		if s.length == 0 {
			continue // where it would begin means nothing
		}
		// Checked before it is hashed: thousands of sections that overlap would take for ever.
		if sum += s.length; sum+im.tableLen > limit {
			return nil, lane.Errorf(lane.Invalid, "headers, sections and certificate table are together longer than the file of %d bytes: sections overlap, or the file is cut short; fetch it again", im.Size)
		}
		put(h, im.data[s.off:s.off+s.length])
	}
	if sum+im.tableLen > limit {
		return nil, lane.Errorf(lane.Invalid, "the certificate table is longer than what the file of %d bytes has behind its sections; fetch it again", im.Size)
	}
	put(h, im.data[sum:limit-im.tableLen])
	return h.Sum(nil), nil
}

// digest is Digest, which it asks once; nil when the image has none: its headers
// contradict each other.
func (im *Image) digest(alg crypto.Hash) []byte {
	if _, ok := im.sums[alg]; !ok {
		im.sums[alg], _ = im.Digest(alg) // nil is the answer then
	}
	return im.sums[alg]
}

func put(h hash.Hash, b []byte) {
	_, _ = h.Write(b) // a hash.Hash never fails
}

// certificates reads the attribute certificate table: PE/COFF specification, "The
// Attribute Certificate Table", and UEFI 2.10, 32.2.4.
func (im *Image) certificates() {
	if im.tableLen == 0 {
		return
	}
	table, ok := im.bytes(im.table, im.tableLen)
	if !ok {
		im.TableErr = lane.Errorf(lane.Invalid, "the certificate table ends at %d, in a file of %d bytes: the file is cut short; fetch it again", im.table+im.tableLen, im.Size)
		return
	}
	for off := uint64(0); off < im.tableLen; {
		rest := table[off:]
		if len(rest) < 8 || len(im.Signatures) == maxSignatures {
			im.TableErr = lane.Errorf(lane.Invalid, "the certificate table holds %d signatures and something that is none: sign the image again", len(im.Signatures))
			return
		}
		n := uint64(binary.LittleEndian.Uint32(rest))
		if n < 8 || n > uint64(len(rest)) {
			im.TableErr = lane.Errorf(lane.Invalid, "signature %d claims %d bytes, of %d that the certificate table has: sign the image again", len(im.Signatures)+1, n, len(rest))
			return
		}
		if blob, ok := pkcs7In(rest[:n]); ok {
			im.Signatures = append(im.Signatures, im.signature(blob))
		}
		off += (n + 7) &^ 7
		if off > im.tableLen {
			// EDK2 then takes the table for damaged.
			im.TableErr = lane.Errorf(lane.Invalid, "the certificate table's size lacks the padding of its last signature to 8 bytes: sign the image again")
		}
	}
}

// pkcs7In returns the PKCS#7 of a WIN_CERTIFICATE, or false when it holds another kind,
// which firmware passes over.
func pkcs7In(c []byte) ([]byte, bool) {
	const typePKCS, typeGUID = 0x0002, 0x0ef1
	switch binary.LittleEndian.Uint16(c[6:]) {
	case typePKCS:
		return c[8:], true
	case typeGUID:
		// EFI_CERT_TYPE_PKCS7_GUID
		if len(c) > 24 && guid(c[8:24]) == "4aafd29d-68df-49ee-8aa9-347d375665a7" {
			return c[24:], true
		}
	}
	return nil, false
}

// guid prints an EFI_GUID: its first three fields are little endian. UEFI 2.10, appendix A.
func guid(b []byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}
