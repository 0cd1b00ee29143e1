package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"bootlane/internal/lane"
)

// Layout is an OCI image layout in a directory (OCI image specification 1.1,
// image-layout.md), as far as moving artifacts needs it: blobs under their digests. Which
// of them are artifacts, index.json says, and that is its owner's.
type Layout struct{ dir string }

// NewLayout makes the directory a layout, if it is none yet.
func NewLayout(dir string) (*Layout, error) {
	if err := os.MkdirAll(filepath.Join(dir, ocispec.ImageBlobsDir, "sha256"), 0o755); err != nil {
		return nil, fmt.Errorf("make the layout: %w", err)
	}
	for name, text := range map[string]string{ocispec.ImageLayoutFile: `{"imageLayoutVersion":"1.0.0"}`, ocispec.ImageIndexFile: `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			_, err = f.WriteString(text)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return nil, fmt.Errorf("make the layout: %w", err)
		}
	}
	return &Layout{dir}, nil
}

// blob is where a blob lies; its digest was parsed.
func (l *Layout) blob(d lane.Digest) string {
	return filepath.Join(l.dir, ocispec.ImageBlobsDir, "sha256", string(d[len("sha256:"):]))
}

// Open opens a blob; it is an [Opener].
func (l *Layout) Open(d lane.Digest) (io.ReadCloser, error) {
	if _, err := lane.ParseDigest(string(d)); err != nil {
		return nil, err
	}
	f, err := os.Open(l.blob(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, lane.Errorf(lane.NotFound, "the layout has no blob %s", d)
	}
	return f, err
}

// fetcher reads a blob from an offset on.
type fetcher func(offset int64) (io.ReadCloser, error)

// has reports whether a blob is there: it has its name only once it is whole and compared.
func (l *Layout) has(d ocispec.Descriptor) bool {
	s, err := os.Stat(l.blob(lane.Digest(d.Digest)))
	return err == nil && s.Size() == d.Size
}

// beginning is what the files of blobs that broke off are called, before their digest.
const beginning = ".part-"

// Have returns how many bytes of an artifact's layers are there, beginnings included.
func (l *Layout) Have(a Artifact) (n int64) {
	for _, d := range a.Layers {
		name := l.blob(lane.Digest(d.Digest))
		for _, path := range []string{name, filepath.Join(l.dir, beginning+filepath.Base(name))} {
			if s, err := os.Stat(path); err == nil {
				n += min(s.Size(), d.Size)
				break
			}
		}
	}
	return n
}

// Keep removes all blobs, and beginnings of such, that the artifact does not have: what a tag
// named before must not fill the disk.
func (l *Layout) Keep(a Artifact) error {
	keep := map[string]bool{}
	for _, d := range append([]ocispec.Descriptor{a.Config}, a.Layers...) {
		keep[filepath.Base(l.blob(lane.Digest(d.Digest)))] = true
	}
	whole, err := filepath.Glob(l.blob("sha256:*"))
	begun, more := filepath.Glob(filepath.Join(l.dir, beginning+"*"))
	err = errors.Join(err, more)
	for _, path := range append(whole, begun...) {
		if !keep[strings.TrimPrefix(filepath.Base(path), beginning)] {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

// put brings a blob in, whole or not at all. What came of it before is kept beside, as
// .part-HEX, and continued; should that have been something else, it is fetched anew.
func (l *Layout) put(d ocispec.Descriptor, fetch fetcher) error {
	if l.has(d) {
		return nil
	}
	path := l.blob(lane.Digest(d.Digest))
	part := filepath.Join(l.dir, beginning+filepath.Base(path))
	s, begun := os.Stat(part)
	err := l.fill(part, path, d, fetch)
	if begun == nil && s.Size() > 0 && lane.CodeOf(err) == lane.Refused {
		err = l.fill(part, path, d, fetch)
	}
	return err
}

// fill makes the part the blob. The digest is of all its bytes, whenever they came.
func (l *Layout) fill(part, path string, d ocispec.Descriptor, fetch fetcher) (err error) {
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	keep := true
	defer func() {
		err = errors.Join(err, f.Close())
		if !keep {
			err = errors.Join(err, os.Remove(part))
		}
	}()
	h := sha256.New()
	done, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	if done < d.Size || d.Size == 0 {
		in, err := fetch(done)
		if err != nil {
			return err
		}
		// One byte more than there may be is enough to know.
		n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(in, d.Size-done+1))
		if err = errors.Join(err, in.Close()); err != nil {
			return err
		}
		done += n
	}
	if done < d.Size {
		return fmt.Errorf("after %d of %d bytes: %w", done, d.Size, io.ErrUnexpectedEOF)
	}
	keep = false
	if have := "sha256:" + hex.EncodeToString(h.Sum(nil)); done != d.Size || have != string(d.Digest) {
		return lane.Errorf(lane.Refused, "what came is %s, or longer than %d bytes, and not %s: it is not kept", have, d.Size, d.Digest)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(part, path); err != nil {
		return err
	}
	keep = true // there is nothing to remove any more
	return nil
}

// Unpack links an artifact's files into a directory that is new or empty: each layer under its
// title, the config under the name that is given. A title that is no plain file name, or is
// there twice, is refused with [lane.Refused].
func (l *Layout) Unpack(a Artifact, dir, config string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	link := func(d ocispec.Descriptor, name string) error {
		if !lane.FileName(name) {
			return lane.Errorf(lane.Refused, "the artifact has a file called %q: such a name may lead elsewhere", lane.Clean(name, 80))
		}
		err := os.Link(l.blob(lane.Digest(d.Digest)), filepath.Join(dir, name))
		if errors.Is(err, fs.ErrExist) {
			return lane.Errorf(lane.Refused, "the artifact has two files called %s, or the directory was not empty", name)
		}
		return err
	}
	if err := link(a.Config, config); err != nil {
		return err
	}
	for _, d := range a.Layers {
		if err := link(d, d.Annotations[ocispec.AnnotationTitle]); err != nil {
			return err
		}
	}
	return nil
}
