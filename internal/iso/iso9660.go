// Package iso reads ISO 9660 images, the FAT file systems that firmware boots out of them,
// and nothing else of them: as an [io/fs.FS], without mounting anything. Whatever the bytes
// say, no name leads out of an image and no length further than it is long.
package iso

import (
	"encoding/binary"
	"io"
	"io/fs"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// Image is an ISO 9660 image (ECMA-119), with the names, modes and links of Rock Ridge
// (IEEE P1282) where it has them. Files larger than 4 GiB, which lie in several extents, are
// whole. Joliet and UDF are not read: no Linux distribution needs them.
type Image struct {
	tree
	Label string // volume identifier

	r       io.ReaderAt
	size    int64
	rock    bool // Rock Ridge
	skip    int  // bytes before its entries in each record (SUSP, 5.3)
	catalog int64
}

const (
	sector        = 2048
	maxSystemUse  = 64 << 10 // bytes of one record's Rock Ridge entries
	flagDirectory = 0x02
	flagMore      = 0x80 // more extents of this file follow
)

// Open reads an image's descriptors; r has size bytes. An image that is cut short is
// refused with [lane.Invalid] here already, as far as it says how long it is.
func Open(r io.ReaderAt, size int64) (*Image, error) {
	im := &Image{r: r, size: size}
	var root []byte
	for at := int64(16); root == nil || im.catalog == 0; at++ {
		d, err := im.read(at*sector, sector)
		if err != nil || string(d[1:6]) != "CD001" || at > 100 {
			return nil, lane.Errorf(lane.Invalid, "this is no ISO 9660 image: it has no volume descriptor; give the .im file as it was published")
		}
		if d[0] == 255 { // the last descriptor
			break
		}
		switch {
		case d[0] == 1 && root == nil:
			if blocks := int64(binary.LittleEndian.Uint32(d[80:])); blocks*sector > size {
				return nil, lane.Errorf(lane.Invalid, "the ISO image is cut short: it says that it has %d bytes, and has %d; fetch it again", blocks*sector, size)
			}
			if b := binary.LittleEndian.Uint16(d[128:]); b != sector {
				return nil, lane.Errorf(lane.Invalid, "the ISO image has blocks of %d bytes, not of 2048", b)
			}
			im.Label, root = strings.TrimRight(string(d[40:72]), " "), d[156:190]
		case d[0] == 0 && strings.HasPrefix(string(d[7:39]), "EL TORITO SPECIFICATION"):
			im.catalog = int64(binary.LittleEndian.Uint32(d[71:]))
		}
	}
	if root == nil {
		return nil, lane.Errorf(lane.Invalid, "this is no ISO 9660 image: it has no primary volume descriptor")
	}
	e, _, err := im.record(root)
	if err != nil {
		return nil, err
	}
	if err := im.findRockRidge(e); err != nil {
		return nil, err
	}
	n := im.node(e)
	n.name = "."
	im.root = n
	return im, nil
}

// read returns bytes of the image, or says that it is cut short.
func (im *Image) read(at, n int64) ([]byte, error) {
	if at < 0 || n < 0 || at > im.size || n > im.size-at {
		return nil, lane.Errorf(lane.Invalid, "the ISO image ends at %d, and something lies behind: it is cut short or damaged; fetch it again", im.size)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(im.r, at, n), b); err != nil {
		return nil, err
	}
	return b, nil
}

// span is a run of bytes in the image.
type span struct{ at, length int64 }

// entry is a directory record: ECMA-119, 9.1.
type entry struct {
	name   string
	flags  byte
	spans  []span
	mod    time.Time
	mode   fs.FileMode
	link   string
	hidden bool  // the place that a relocated directory was moved to
	broken error // its content cannot be read, for this reason
}

// record reads one, and returns its system use area.
func (im *Image) record(b []byte) (e entry, use []byte, err error) {
	le := binary.LittleEndian
	if len(b) < 34 || int(b[32])+33 > len(b) {
		return e, nil, lane.Errorf(lane.Invalid, "a directory record of the ISO image is damaged; fetch it again")
	}
	e.flags, e.name = b[25], string(b[33:33+int(b[32])])
	e.spans = []span{{(int64(le.Uint32(b[2:])) + int64(b[1])) * sector, int64(le.Uint32(b[10:]))}}
	if b[26] != 0 || b[27] != 0 {
		e.broken = lane.Errorf(lane.Invalid, "it is interleaved, which is not read")
	}
	y := b[18:25]
	e.mod = time.Date(1900+int(y[0]), time.Month(y[1]), int(y[2]), int(y[3]), int(y[4]), int(y[5]), 0, time.FixedZone("", int(int8(y[6]))*15*60)).UTC()
	at := 33 + int(b[32])
	at += at & 1
	if at < len(b) {
		use = b[at:]
	}
	return e, use, nil
}

// findRockRidge looks into the root's own record for SUSP's SP and Rock Ridge's names.
func (im *Image) findRockRidge(root entry) error {
	b, err := im.read(root.spans[0].at, sector)
	if err != nil {
		return err
	}
	if n := int(b[0]); n >= 34 {
		_, use, err := im.record(b[:n])
		if err != nil {
			return err
		}
		if len(use) >= 7 && string(use[:3]) == "SP\x07" && use[4] == 0xbe && use[5] == 0xef {
			im.rock, im.skip = true, int(use[6])
		}
	}
	return nil
}

// directory reads the records of one, in order, and joins the extents of large files.
func (im *Image) directory(s span) (out []entry, err error) {
	if s.length > maxDirectory {
		return nil, lane.Errorf(lane.Invalid, "a directory of the ISO image has %d bytes: it is damaged", s.length)
	}
	b, err := im.read(s.at, s.length)
	if err != nil {
		return nil, err
	}
	more := false // the record before says that its file goes on
	for at := 0; at < len(b); {
		n := int(b[at])
		if n == 0 { // records do not cross sectors
			at = (at/sector + 1) * sector
			continue
		}
		if at+n > len(b) {
			return nil, lane.Errorf(lane.Invalid, "a directory record of the ISO image is damaged; fetch it again")
		}
		e, use, err := im.record(b[at : at+n])
		if err != nil {
			return nil, err
		}
		at += n
		if e.name == "\x00" || e.name == "\x01" { // the directory itself, and the one above
			continue
		}
		if err := im.rockRidge(&e, use); err != nil {
			return nil, err
		}
		if last := len(out) - 1; more {
			if out[last].name != e.name {
				return nil, lane.Errorf(lane.Invalid, "the extents of the file %q do not follow each other: the ISO image is damaged", lane.Clean(out[last].name, 80))
			}
			out[last].spans = append(out[last].spans, e.spans...)
		} else if !e.hidden {
			out = append(out, e)
		}
		more = e.flags&flagMore != 0 && !e.hidden
	}
	if more {
		return nil, lane.Errorf(lane.Invalid, "the last extent of the file %q is missing: the ISO image is damaged", lane.Clean(out[len(out)-1].name, 80))
	}
	return out, nil
}

// plainName is a name without Rock Ridge as Linux shows it: "VMLINUZ.;1" is vmlinuz.
func plainName(s string) string {
	s, _, _ = strings.Cut(s, ";")
	return strings.ToLower(strings.TrimSuffix(s, "."))
}

// rockRidge reads the entries of a record's system use area, and of its continuations.
func (im *Image) rockRidge(e *entry, use []byte) error {
	e.mode = 0o444
	if e.flags&flagDirectory != 0 {
		e.mode = fs.ModeDir | 0o555
	}
	if !im.rock {
		e.name = plainName(e.name)
		return nil
	}
	var name, link strings.Builder
	use, total := use[min(im.skip, len(use)):], 0
	for next := (span{}); ; next = (span{}) {
		for len(use) >= 4 && use[2] >= 4 && int(use[2]) <= len(use) {
			field := use[:use[2]]
			if c, ok := im.susp(e, field, &name, &link); ok {
				next = c
			}
			use = use[len(field):]
		}
		if next.length == 0 {
			break
		}
		if total += int(next.length); total > maxSystemUse {
			return lane.Errorf(lane.Invalid, "a record of the ISO image has Rock Ridge entries without end: it is damaged")
		}
		var err error
		if use, err = im.read(next.at, next.length); err != nil {
			return err
		}
	}
	if name.Len() > 0 {
		e.name = name.String()
	} else {
		e.name = plainName(e.name)
	}
	e.link = strings.TrimSuffix(link.String(), "/")
	return nil
}

// susp takes one entry; true when it says where others continue.
func (im *Image) susp(e *entry, f []byte, name, link *strings.Builder) (span, bool) {
	le := binary.LittleEndian
	switch kind := string(f[:2]); {
	case kind == "NM" && len(f) >= 5:
		name.Write(f[5:])
	case kind == "PX" && len(f) >= 8:
		switch perm := le.Uint32(f[4:]); perm & 0o170000 {
		case 0o040000:
			e.mode = fs.ModeDir | fs.FileMode(perm&0o777)
		case 0o120000:
			e.mode = fs.ModeSymlink | fs.FileMode(perm&0o777)
		case 0o100000:
			e.mode = fs.FileMode(perm & 0o777)
		default:
			e.mode, e.broken = fs.ModeIrregular, lane.Errorf(lane.Invalid, "it is a device or a pipe")
		}
	case kind == "SL" && len(f) >= 5:
		linkParts(f[5:], link)
	case kind == "RE":
		e.hidden = true
	case kind == "CL":
		e.broken = lane.Errorf(lane.Invalid, "it is a directory that was moved (Rock Ridge CL), which is not read")
	case kind == "ZF":
		e.broken = lane.Errorf(lane.Invalid, "it is compressed (zisofs), which is not read")
	case kind == "CE" && len(f) >= 28:
		return span{int64(le.Uint32(f[4:]))*sector + int64(le.Uint32(f[12:])), int64(le.Uint32(f[20:]))}, true
	}
	return span{}, false
}

// linkParts writes the components of a symbolic link: IEEE P1282, 4.1.3.
func linkParts(f []byte, link *strings.Builder) {
	for len(f) >= 2 && int(f[1])+2 <= len(f) {
		switch flags := f[0]; {
		case flags&0x02 != 0:
			link.WriteString("./")
		case flags&0x04 != 0:
			link.WriteString("../")
		case flags&0x08 != 0:
			link.WriteString("/")
		default:
			link.Write(f[2 : 2+int(f[1])])
			if flags&0x01 == 0 { // it does not go on in the next component
				link.WriteString("/")
			}
		}
		f = f[2+int(f[1]):]
	}
}

// node makes a record a part of the tree.
func (im *Image) node(e entry) node {
	if e.flags&flagDirectory != 0 && !e.mode.IsDir() {
		e.mode = fs.ModeDir | e.mode.Perm()
	}
	n := node{name: e.name, mode: e.mode, mod: e.mod, link: e.link}
	n.size = length(e.spans)
	if e.mode.IsDir() {
		n.size, n.id = 0, e.spans[0].at
		n.list = func() ([]node, error) {
			if e.broken != nil {
				return nil, e.broken
			}
			return im.nodes(e.spans[0])
		}
	}
	n.open = func() (io.ReadSeeker, error) { return im.content(e) }
	return n
}

func (im *Image) nodes(s span) (out []node, err error) {
	entries, err := im.directory(s)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !element(e.name) {
			return nil, lane.Errorf(lane.Invalid, "the ISO image has a file called %q: such a name leads elsewhere", lane.Clean(e.name, 80))
		}
		out = append(out, im.node(e))
	}
	return out, nil
}

// content reads a file's extents, one behind the other.
func (im *Image) content(e entry) (io.ReadSeeker, error) {
	if e.broken != nil {
		return nil, e.broken
	}
	for i, s := range e.spans {
		if s.at > im.size || s.length > im.size-s.at {
			return nil, lane.Errorf(lane.Invalid, "it ends at %d, and the ISO image at %d: the image is cut short or damaged; fetch it again", s.at+s.length, im.size)
		}
		if i < len(e.spans)-1 && s.length%sector != 0 {
			return nil, lane.Errorf(lane.Invalid, "one of its extents ends within a block: the ISO image is damaged")
		}
	}
	return io.NewSectionReader(extents{im.r, e.spans}, 0, length(e.spans)), nil
}

// extents are the parts of one file.
type extents struct {
	r     io.ReaderAt
	spans []span
}

func length(spans []span) (n int64) {
	for _, s := range spans {
		n += s.length
	}
	return n
}

// ReadAt is [io.ReaderAt].
func (e extents) ReadAt(b []byte, off int64) (n int, err error) {
	for _, s := range e.spans {
		if off >= s.length {
			off -= s.length
			continue
		}
		k := min(int64(len(b)-n), s.length-off)
		got, err := e.r.ReadAt(b[n:n+int(k)], s.at+off)
		if n += got; got < int(k) {
			return n, err
		}
		if off = 0; n == len(b) {
			return n, nil
		}
	}
	return n, io.EOF
}
