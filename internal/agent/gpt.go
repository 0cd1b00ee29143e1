package agent

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"unicode/utf16"

	"bootlane/internal/lane"
)

// The GUID partition table, UEFI specification 2.10, chapter 5.
const (
	gptHeaderSize = 92 // table 5-5; what follows in the sector is reserved
	gptMaxEntries = 1024
	gptMaxEntry   = 4096
	mbrTable      = 446
	mbrGPT        = 0xee
)

// twin reports whether head is the start of a disk with the same disk GUID,
// whatever its sector size.
func (g *gpt) twin(head []byte) bool {
	for _, sector := range []int{512, 4096} {
		if len(head) >= 2*sector && string(head[sector:sector+8]) == "EFI PART" && bytes.Equal(head[sector+56:sector+72], g.header[56:72]) {
			return true
		}
	}
	return false
}

// partition is one used entry of the table.
type partition struct {
	number      int // from 1, as Linux counts
	name        string
	first, last uint64 // sectors, inclusive
}

// gpt is the partition table of an image, proven by its checksums.
type gpt struct {
	sector  uint64
	mbr     []byte // the sector before it
	header  []byte // one sector
	entries []byte
	parts   []partition
}

func (g *gpt) u64(at int) uint64 { return binary.LittleEndian.Uint64(g.header[at:]) }
func (g *gpt) u32(at int) uint32 { return binary.LittleEndian.Uint32(g.header[at:]) }

// parseGPT reads the primary table from the head of an image of size bytes.
func parseGPT(head []byte, sector int, size int64) (*gpt, error) {
	if sector < 512 || sector > 4096 || sector&(sector-1) != 0 || len(head) < 2*sector || size < 0 {
		return nil, fmt.Errorf("sectors of %d bytes are not supported", sector)
	}
	g := &gpt{sector: uint64(sector), mbr: bytes.Clone(head[:sector]), header: bytes.Clone(head[sector : 2*sector])}
	if string(g.header[:8]) != "EFI PART" {
		if sector != 512 && bytes.HasPrefix(head[512:], []byte("EFI PART")) {
			return nil, fmt.Errorf("the image was made for sectors of 512 bytes, the disk has sectors of %d", sector)
		}
		return nil, fmt.Errorf("there is no GUID partition table")
	}
	if g.mbr[510] != 0x55 || g.mbr[511] != 0xaa || g.mbr[mbrTable+4] != mbrGPT {
		return nil, fmt.Errorf("there is no protective MBR")
	}
	if n := g.u32(12); n != gptHeaderSize {
		return nil, fmt.Errorf("a header of %d bytes is not known", n)
	}
	if sum := g.headerSum(); sum != g.u32(16) {
		return nil, fmt.Errorf("the header's checksum is %08x, computed is %08x", g.u32(16), sum)
	}
	sectors := uint64(size) / g.sector
	first, last := g.u64(40), g.u64(48)
	if g.u64(24) != 1 || g.u64(32) >= sectors || first > last || last >= sectors {
		return nil, fmt.Errorf("the header does not describe a disk of %d sectors", sectors)
	}
	if err := g.readEntries(head); err != nil {
		return nil, err
	}
	return g, nil
}

// headerSum is the CRC of the header with its own field taken as zero.
func (g *gpt) headerSum() uint32 {
	h := bytes.Clone(g.header[:gptHeaderSize])
	clear(h[16:20])
	return crc32.ChecksumIEEE(h)
}

func (g *gpt) readEntries(head []byte) error {
	at, n, each := g.u64(72), g.u32(80), g.u32(84)
	if n == 0 || n > gptMaxEntries || each < 128 || each > gptMaxEntry || each%128 != 0 {
		return fmt.Errorf("%d entries of %d bytes are not supported", n, each)
	}
	length := uint64(n) * uint64(each)
	if at < 2 || at > uint64(len(head))/g.sector || at*g.sector+length > uint64(len(head)) {
		return fmt.Errorf("the entries at sector %d are not in the first %d bytes", at, len(head))
	}
	g.entries = bytes.Clone(head[at*g.sector : at*g.sector+length])
	if sum := crc32.ChecksumIEEE(g.entries); sum != g.u32(88) {
		return fmt.Errorf("the entries' checksum is %08x, computed is %08x", g.u32(88), sum)
	}
	for i := range int(n) {
		e := g.entries[i*int(each):][:each]
		if bytes.Equal(e[:16], make([]byte, 16)) {
			continue
		}
		p := partition{number: i + 1, name: partitionName(e[56:128]),
			first: binary.LittleEndian.Uint64(e[32:]), last: binary.LittleEndian.Uint64(e[40:])}
		if p.first > p.last || p.first < g.u64(40) || p.last > g.u64(48) {
			return fmt.Errorf("partition %d, sectors %d to %d, lies outside the table's bounds", p.number, p.first, p.last)
		}
		g.parts = append(g.parts, p)
	}
	return nil
}

func partitionName(b []byte) string {
	var units []uint16
	for i := 0; i+1 < len(b); i += 2 {
		u := binary.LittleEndian.Uint16(b[i:])
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return lane.Clean(string(utf16.Decode(units)), 256)
}

// byName returns the one partition with a name.
func (g *gpt) byName(name string) (partition, error) {
	var found []partition
	var seen []string
	for _, p := range g.parts {
		seen = append(seen, p.name)
		if p.name == name {
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		return partition{}, fmt.Errorf("%d partitions of the image are named %q; it has %q", len(found), name, seen)
	}
	return found[0], nil
}

// span returns the byte range of a partition.
func (g *gpt) span(p partition) (at, size int64) {
	return int64(p.first * g.sector), int64((p.last - p.first + 1) * g.sector)
}

// stretch has a partition, which must be the last on the disk, end where the usable space of a
// disk of size bytes ends, and refuses where that is not so many bytes more than it has. The parts
// that were read stay as they are: they say where the image put what is in them.
func (g *gpt) stretch(p partition, size, more int64) error {
	for _, other := range g.parts {
		if other.first > p.first {
			return fmt.Errorf("partition %d (%s) cannot be encrypted, for partition %d (%s) lies behind it: build the image with its root partition last on the disk", p.number, p.name, other.number, other.name)
		}
	}
	sectors, table := uint64(size)/g.sector, (uint64(len(g.entries))+g.sector-1)/g.sector
	need := p.last + uint64(more)/g.sector + table + 2
	if sectors < need {
		return fmt.Errorf("a disk of %d bytes has no room for partition %d (%s) to be encrypted: %d are needed", size, p.number, p.name, need*g.sector)
	}
	each := int(g.u32(84))
	binary.LittleEndian.PutUint64(g.entries[(p.number-1)*each+40:], sectors-table-2)
	binary.LittleEndian.PutUint32(g.header[88:], crc32.ChecksumIEEE(g.entries))
	return nil
}

// relocated is a partition table made to describe a larger disk.
type relocated struct {
	tail   []byte // the backup table and header, for the very end of the disk
	tailAt int64
	start  []byte // protective MBR and primary header, for the start
	table  []byte // what the primary header leads to
	at     int64
}

// relocate fits the table to a disk of size bytes: the backup copy at its very
// end, the usable space up to it. The partitions themselves stay as they are.
func (g *gpt) relocate(size int64) (relocated, error) {
	sectors := uint64(size) / g.sector
	table := (uint64(len(g.entries)) + g.sector - 1) / g.sector
	end := uint64(0)
	for _, p := range g.parts {
		end = max(end, p.last)
	}
	if sectors < table+2 || end > sectors-table-2 {
		return relocated{}, fmt.Errorf("a disk of %d sectors has no room for the backup partition table", sectors)
	}
	backup := sectors - 1 - table
	tail := make([]byte, table*g.sector)
	copy(tail, g.entries)
	tail = append(tail, g.rewrite(sectors-1, 1, backup, backup-1)...)
	mbr := bytes.Clone(g.mbr)
	// The protective partition ends where the disk ends, or where 32 bits do.
	binary.LittleEndian.PutUint32(mbr[mbrTable+12:], uint32(min(sectors-1, math.MaxUint32)))
	return relocated{tail: tail, tailAt: int64(backup * g.sector),
		start: append(mbr, g.rewrite(1, sectors-1, g.u64(72), backup-1)...), table: g.entries, at: int64(g.u64(72) * g.sector)}, nil
}

// rewrite returns the header, moved and with its checksum.
func (g *gpt) rewrite(self, other, entries, lastUsable uint64) []byte {
	h := &gpt{header: bytes.Clone(g.header)}
	binary.LittleEndian.PutUint64(h.header[24:], self)
	binary.LittleEndian.PutUint64(h.header[32:], other)
	binary.LittleEndian.PutUint64(h.header[48:], lastUsable)
	binary.LittleEndian.PutUint64(h.header[72:], entries)
	binary.LittleEndian.PutUint32(h.header[16:], h.headerSum())
	return h.header
}
