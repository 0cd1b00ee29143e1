package iso

import (
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// node is a file, a directory or a symbolic link of a file system that lies in a file.
// What is in it is read when it is asked for.
type node struct {
	name string
	mode fs.FileMode
	size int64
	mod  time.Time
	link string                        // of a symbolic link
	open func() (io.ReadSeeker, error) // of a file
	list func() ([]node, error)        // of a directory
	id   int64                         // of a directory: where it lies, so that a loop is found
}

// Name, Size, Mode, ModTime, IsDir and Sys are [fs.FileInfo].
func (n node) Name() string       { return n.name }
func (n node) Size() int64        { return n.size }
func (n node) Mode() fs.FileMode  { return n.mode }
func (n node) ModTime() time.Time { return n.mod }
func (n node) IsDir() bool        { return n.mode.IsDir() }
func (n node) Sys() any           { return nil }

// tree is a read-only [fs.FS] of nodes.
type tree struct{ root node }

// Limits of what is read of a tree: far above what any medium has.
const (
	maxDirectory = 32 << 20 // bytes of one directory
	maxLinks     = 16       // symbolic links on one path
	maxDepth     = 64
)

// Open opens a file, which is an [io.Seeker], or a directory. Symbolic links are followed inside of the tree; one
// that leads out of it is refused, as [fs.ErrInvalid].
func (t tree) Open(name string) (fs.File, error) {
	n, err := t.find(name)
	if err == nil && n.mode.IsDir() {
		var entries []node
		if entries, err = n.list(); err == nil {
			return &openDir{n, entries}, nil
		}
	}
	var r io.ReadSeeker
	if err == nil {
		r, err = n.open()
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &openFile{n, r}, nil
}

// find walks down a path.
func (t tree) find(name string) (node, error) {
	if !fs.ValidPath(name) {
		return node{}, fs.ErrInvalid
	}
	rest, above, links := strings.Split(name, "/"), []node{t.root}, 0
	for len(rest) > 0 {
		at, element := above[len(above)-1], rest[0]
		rest = rest[1:]
		switch {
		case element == "." || element == "":
			continue
		case element == "..":
			if len(above) == 1 {
				return node{}, lane.Errorf(lane.Invalid, "a symbolic link leads out of the medium")
			}
			above = above[:len(above)-1]
			continue
		case !at.mode.IsDir():
			return node{}, fs.ErrNotExist
		}
		next, err := child(at, element)
		if err != nil {
			return node{}, err
		}
		if next.mode&fs.ModeSymlink != 0 {
			if links++; links > maxLinks || path.IsAbs(next.link) {
				return node{}, lane.Errorf(lane.Invalid, "the symbolic link %q leads out of the medium, or in circles", lane.Clean(element, 80))
			}
			rest = append(strings.Split(next.link, "/"), rest...)
			continue
		}
		if next.mode.IsDir() && (len(above) == maxDepth || slices.ContainsFunc(above, func(a node) bool { return a.id == next.id })) {
			return node{}, lane.Errorf(lane.Invalid, "the directory %q lies in itself: the medium is damaged", lane.Clean(element, 80))
		}
		above = append(above, next)
	}
	return above[len(above)-1], nil
}

func child(dir node, name string) (node, error) {
	list, err := dir.list()
	if err != nil {
		return node{}, err
	}
	for _, n := range list {
		if n.name == name {
			return n, nil
		}
	}
	return node{}, fs.ErrNotExist
}

type openFile struct {
	node
	io.ReadSeeker
}

// Stat returns the file's properties; Close does nothing.
func (f *openFile) Stat() (fs.FileInfo, error) { return f.node, nil }
func (f *openFile) Close() error               { return nil }

type openDir struct {
	node
	rest []node
}

// Stat, Read and Close are [fs.File].
func (d *openDir) Stat() (fs.FileInfo, error) { return d.node, nil }
func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: fs.ErrInvalid}
}
func (d *openDir) Close() error { return nil }

// ReadDir is [fs.ReadDirFile].
func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n > 0 && len(d.rest) == 0 {
		return nil, io.EOF
	}
	if n <= 0 || n > len(d.rest) {
		n = len(d.rest)
	}
	var out []fs.DirEntry
	for _, e := range d.rest[:n] {
		out = append(out, fs.FileInfoToDirEntry(e))
	}
	d.rest = d.rest[n:]
	return out, nil
}

// element says whether a name may stand in a tree: whatever a medium says, no name leads elsewhere.
func element(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}
