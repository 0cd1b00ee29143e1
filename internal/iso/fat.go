package iso

import (
	"encoding/binary"
	"io"
	"io/fs"
	"strings"
	"unicode/utf16"

	"bootlane/internal/lane"
)

// FAT is a FAT12, FAT16 or FAT32 file system with long names, as EFI boot images are:
// Microsoft, "FAT: General Overview of On-Disk Format", 1.03.
type FAT struct {
	tree
	r io.ReaderAt
	p bpb
	// fat is the first allocation table; bits is how wide its entries are.
	fat  []byte
	bits int
}

// bpb is the BIOS parameter block, in bytes where it speaks of sectors.
type bpb struct {
	cluster, fat, fatSize, root, rootSize, data, total int64
	rootCluster, clusters                              uint32
}

func parseBPB(b []byte) (p bpb, err error) {
	le := binary.LittleEndian
	size, each, copies := int64(le.Uint16(b[11:])), int64(b[13]), int64(b[16])
	if b[510] != 0x55 || b[511] != 0xaa || size < 512 || size > 4096 || size&(size-1) != 0 || each == 0 || each&(each-1) != 0 || copies == 0 {
		return p, lane.Errorf(lane.Invalid, "this is no FAT file system")
	}
	sectors, perFAT := int64(le.Uint16(b[19:])), int64(le.Uint16(b[22:]))
	if sectors == 0 {
		sectors = int64(le.Uint32(b[32:]))
	}
	if perFAT == 0 {
		perFAT, p.rootCluster = int64(le.Uint32(b[36:])), le.Uint32(b[44:])
	}
	p.cluster, p.fat, p.fatSize = each*size, int64(le.Uint16(b[14:]))*size, perFAT*size
	p.root, p.rootSize = p.fat+copies*p.fatSize, int64(le.Uint16(b[17:]))*32
	p.data, p.total = p.root+(p.rootSize+size-1)/size*size, sectors*size
	if p.data >= p.total {
		return p, lane.Errorf(lane.Invalid, "the FAT file system has no room for files: it is damaged")
	}
	p.clusters = uint32(min((p.total-p.data)/p.cluster, 0x0fffffff))
	return p, nil
}

// OpenFAT reads a file system of size bytes.
func OpenFAT(r io.ReaderAt, size int64) (*FAT, error) {
	head := make([]byte, 512)
	if _, err := r.ReadAt(head, 0); err != nil {
		return nil, lane.Errorf(lane.Invalid, "this is no FAT file system: it has less than 512 bytes")
	}
	p, err := parseBPB(head)
	if err != nil {
		return nil, err
	}
	const largest = 4 << 20 // of an allocation table: a million clusters
	if p.total > size || p.fat+p.fatSize > size || p.fatSize > largest {
		return nil, lane.Errorf(lane.Invalid, "the FAT file system of %d bytes is cut short, it has %d", p.total, size)
	}
	f := &FAT{r: r, p: p, fat: make([]byte, p.fatSize), bits: 32}
	switch { // the number of clusters alone decides
	case p.clusters < 4085:
		f.bits = 12
	case p.clusters < 65525:
		f.bits = 16
	}
	if _, err := r.ReadAt(f.fat, p.fat); err != nil {
		return nil, lane.Errorf(lane.Invalid, "the FAT file system is cut short: %v", err)
	}
	list := func() ([]node, error) { return f.directory(io.NewSectionReader(r, p.root, p.rootSize)) }
	if f.bits == 32 {
		list = func() ([]node, error) { return f.clusterDirectory(p.rootCluster) }
	}
	f.root = node{name: ".", mode: fs.ModeDir | 0o555, list: list, id: int64(p.rootCluster)}
	return f, nil
}

// next returns the cluster behind one.
func (f *FAT) next(c uint32) (uint32, bool) {
	le, at := binary.LittleEndian, int64(c)*int64(f.bits)/8
	if at+4 > int64(len(f.fat)) {
		if f.bits == 32 || at+2 > int64(len(f.fat)) {
			return 0, false
		}
	}
	switch f.bits {
	case 12:
		v := le.Uint16(f.fat[at:])
		if c&1 == 1 {
			v >>= 4
		}
		return uint32(v & 0xfff), v&0xfff < 0xff8
	case 16:
		v := le.Uint16(f.fat[at:])
		return uint32(v), v < 0xfff8
	}
	v := le.Uint32(f.fat[at:]) & 0x0fffffff
	return v, v < 0x0ffffff8
}

// chain returns where clusters lie from one on, until they hold limit bytes.
func (f *FAT) chain(first uint32, limit int64) (extents, error) {
	out, seen := extents{r: f.r}, uint32(0)
	for c, ok := first, true; ok && int64(seen)*f.p.cluster < limit; c, ok = f.next(c) {
		if seen++; c < 2 || c-2 >= f.p.clusters || seen > f.p.clusters {
			return out, lane.Errorf(lane.Invalid, "the chain of clusters is damaged at cluster %d", c)
		}
		at := f.p.data + int64(c-2)*f.p.cluster
		if last := len(out.spans) - 1; last >= 0 && out.spans[last].at+out.spans[last].length == at {
			out.spans[last].length += f.p.cluster
		} else {
			out.spans = append(out.spans, span{at, f.p.cluster})
		}
	}
	return out, nil
}

func (f *FAT) clusterDirectory(first uint32) ([]node, error) {
	e, err := f.chain(first, maxDirectory)
	if err != nil {
		return nil, err
	}
	return f.directory(io.NewSectionReader(e, 0, length(e.spans)))
}

// directory reads the entries of one; long names stand in front of their entry, last part first.
func (f *FAT) directory(r io.Reader) (out []node, err error) {
	var long []uint16
	for e := make([]byte, 32); ; {
		if _, err := io.ReadFull(r, e); err == io.EOF || e[0] == 0 {
			return out, nil
		} else if err != nil {
			return nil, lane.Errorf(lane.Invalid, "a directory of the FAT file system is cut short: %v", err)
		}
		switch {
		case e[0] == 0xe5: // deleted
			long = nil
		case e[11]&0x3f == 0x0f: // a part of a long name
			var part []uint16
			for _, at := range []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
				if u := binary.LittleEndian.Uint16(e[at:]); u != 0 && u != 0xffff {
					part = append(part, u)
				}
			}
			if long = append(part, long...); len(long) > 255+13 {
				return nil, lane.Errorf(lane.Invalid, "a name of the FAT file system has no end")
			}
		case e[11]&0x08 != 0: // the volume's label
			long = nil
		default:
			n := f.node(e, string(utf16.Decode(long)))
			if long = nil; n.name == "." || n.name == ".." {
				continue
			}
			if !element(n.name) {
				return nil, lane.Errorf(lane.Invalid, "the FAT file system has a file called %q: such a name leads elsewhere", lane.Clean(n.name, 80))
			}
			out = append(out, n)
		}
	}
}

// node makes an entry a part of the tree.
func (f *FAT) node(e []byte, name string) node {
	le := binary.LittleEndian
	if name == "" {
		name = shortName(e)
	}
	first := uint32(le.Uint16(e[20:]))<<16 | uint32(le.Uint16(e[26:]))
	if f.bits != 32 {
		first &= 0xffff
	}
	n := node{name: name, mode: 0o444, size: int64(le.Uint32(e[28:]))}
	if e[11]&0x10 != 0 {
		n.mode, n.size, n.id = fs.ModeDir|0o555, 0, int64(first)
		n.list = func() ([]node, error) { return f.clusterDirectory(first) }
	}
	n.open = func() (io.ReadSeeker, error) {
		if n.size == 0 {
			return strings.NewReader(""), nil
		}
		e, err := f.chain(first, n.size)
		if have := length(e.spans); err == nil && have < n.size {
			err = lane.Errorf(lane.Invalid, "it has %d bytes in its clusters, not %d: the FAT file system is damaged", have, n.size)
		}
		if err != nil {
			return nil, err
		}
		return io.NewSectionReader(e, 0, n.size), nil
	}
	return n
}

// shortName is an 8.3 name; two bits say which half was written in lower case.
func shortName(e []byte) string {
	base, ext := strings.TrimRight(string(e[:8]), " "), strings.TrimRight(string(e[8:11]), " ")
	if e[12]&0x08 != 0 {
		base = strings.ToLower(base)
	}
	if e[12]&0x10 != 0 {
		ext = strings.ToLower(ext)
	}
	if ext != "" {
		return base + "." + ext
	}
	return base
}
