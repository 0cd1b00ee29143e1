package bundle

import (
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// The kinds of cpio entries, as the file type bits of a mode.
const (
	cpioDir  = 0o040000
	cpioFile = 0o100000
	cpioLink = 0o120000
	cpioChar = 0o020000
	cpioType = 0o170000 // the mask
)

// cpioEntry is one file of an archive.
type cpioEntry struct {
	name         string // no slash in front
	mode         uint32 // type and permission bits
	major, minor uint32 // of a device node
	size         int64
	open         func() (io.ReadCloser, error) // the bytes of a file, the target of a link
}

// cpioWriter writes the "newc" format that the kernel unpacks as an initramfs
// (Documentation/driver-api/early-userspace/buffer-format.rst). The same entries
// give the same bytes: owner root, time 0, inodes counted, names in order.
type cpioWriter struct {
	w   io.Writer
	off int64
}

// writeCPIO writes the entries and the directories they stand in.
func writeCPIO(w io.Writer, list []cpioEntry) error {
	list = withParents(list)
	slices.SortFunc(list, func(a, b cpioEntry) int { return strings.Compare(a.name, b.name) })
	c := &cpioWriter{w: w}
	for i, e := range list {
		if i > 0 && e.name == list[i-1].name {
			return fmt.Errorf("write cpio: %s comes twice", e.name)
		}
		if err := c.entry(e, uint32(i+1)); err != nil {
			return fmt.Errorf("write cpio entry %s: %w", e.name, err)
		}
	}
	if err := c.entry(cpioEntry{name: "TRAILER!!!"}, 0); err != nil {
		return fmt.Errorf("write cpio trailer: %w", err)
	}
	return c.pad(512)
}

// withParents adds every directory on the way to an entry that is not an entry
// itself. Sorted by name, it comes before what is in it, as the kernel needs it.
func withParents(list []cpioEntry) []cpioEntry {
	seen := map[string]bool{".": true}
	for _, e := range list {
		seen[e.name] = true
	}
	out := slices.Clone(list)
	for _, e := range list {
		for dir := path.Dir(e.name); !seen[dir]; dir = path.Dir(dir) {
			seen[dir] = true
			out = append(out, cpioEntry{name: dir, mode: cpioDir | 0o755})
		}
	}
	return out
}

func (c *cpioWriter) entry(e cpioEntry, inode uint32) error {
	if e.size < 0 || e.size > 1<<32-1 {
		return fmt.Errorf("%d bytes do not fit the format", e.size)
	}
	links := 1
	if e.mode&cpioType == cpioDir {
		links = 2
	}
	head := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		inode, e.mode, 0, 0, links, 0, e.size, 0, 0, e.major, e.minor, len(e.name)+1, 0, e.name)
	if err := c.write([]byte(head)); err != nil {
		return err
	}
	if err := c.pad(4); err != nil || e.open == nil {
		return err
	}
	body, err := e.open()
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	n, err := io.Copy(c.w, io.LimitReader(body, e.size+1))
	c.off += n
	if err == nil && n != e.size {
		err = fmt.Errorf("it changed while it was read: %d bytes where there were %d", n, e.size)
	}
	if err != nil {
		return err
	}
	return c.pad(4)
}

func (c *cpioWriter) write(b []byte) error {
	n, err := c.w.Write(b)
	c.off += int64(n)
	return err
}

func (c *cpioWriter) pad(to int64) error {
	return c.write(make([]byte, (to-c.off%to)%to))
}
