package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"bootlane/internal/lane"
)

// Store keeps imported bundles below one directory:
//
//	blobs/sha256/HEX      every file, once, however many bundles share it
//	manifests/HEX.json    canonical manifests, by their digest
//
// It is safe for concurrent use.
type Store struct {
	dir string

	mu      sync.RWMutex
	bundles map[lane.Digest]lane.Bundle
	damaged []error
}

// Damaged returns why manifests in the store could not be used. Their bundles are
// treated as missing.
func (s *Store) Damaged() []error { return s.damaged }

// NewStore opens the store below dir and creates it when it is missing. A
// manifest whose bytes do not match its name is left out, see [Store.Damaged]:
// nothing may change behind our back.
func NewStore(dir string) (*Store, error) {
	s := &Store{dir: dir, bundles: map[lane.Digest]lane.Bundle{}}
	for _, d := range []string{s.blobs(), s.manifests()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, &lane.Error{Code: lane.Unavailable, Message: "create the bundle store", Err: err}
		}
	}
	names, err := filepath.Glob(filepath.Join(s.manifests(), "*.json"))
	if err != nil {
		return nil, fmt.Errorf("list manifests: %w", err)
	}
	for _, path := range names {
		b, err := load(path)
		if err != nil {
			// One damaged bundle must not keep a whole rack without addresses: its hosts
			// get "bundle-missing".
			s.damaged = append(s.damaged, err)
			continue
		}
		s.bundles[b.Digest] = b
	}
	return s, nil
}

func (s *Store) blobs() string     { return filepath.Join(s.dir, "blobs", "sha256") }
func (s *Store) manifests() string { return filepath.Join(s.dir, "manifests") }

func load(path string) (lane.Bundle, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return lane.Bundle{}, &lane.Error{Code: lane.Unavailable, Message: "read a bundle's manifest", Err: err}
	}
	h := sha256.Sum256(data)
	d := sum(h[:])
	if want := "sha256:" + strings.TrimSuffix(filepath.Base(path), ".json"); string(d) != want {
		return lane.Bundle{}, lane.Errorf(lane.Unavailable, "the manifest %s is damaged: its bytes hash to %s; remove it and import the bundle again", path, d)
	}
	var b lane.Bundle
	if err := json.Unmarshal(data, &b); err != nil {
		return b, fmt.Errorf("decode %s: %w", path, err)
	}
	b.Digest = d
	return b, nil
}

// Get returns the bundle with the digest; a missing one is a NotFound error.
func (s *Store) Get(d lane.Digest) (lane.Bundle, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, ok := s.bundles[d]
	if !ok {
		return lane.Bundle{}, lane.Errorf(lane.NotFound, "no bundle %s in the store", d)
	}
	return b, nil
}

// Find returns the bundle called ref, its NAME-VERSION.
func (s *Store) Find(ref string) (lane.Bundle, error) {
	for _, b := range s.List() {
		if b.Ref() == ref {
			return b, nil
		}
	}
	return lane.Bundle{}, lane.Errorf(lane.NotFound, "no bundle %q in the store: `bootlane bundle list` shows those that are", ref)
}

// List returns every bundle, by name and version.
func (s *Store) List() []lane.Bundle {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.SortedFunc(maps.Values(s.bundles), func(a, b lane.Bundle) int { return strings.Compare(a.Ref(), b.Ref()) })
}

// Open opens a file by its digest. A file that is missing or has another size
// than its bundle says is an error: it is not served.
func (s *Store) Open(f lane.BundleFile) (*os.File, error) {
	file, err := os.Open(s.blob(f.Digest))
	if err != nil {
		return nil, &lane.Error{Code: lane.Unavailable, Message: "open " + string(f.Digest) + ": import its bundle again", Err: err}
	}
	st, err := file.Stat()
	if err == nil && st.Size() != f.SizeBytes {
		err = lane.Errorf(lane.Unavailable, "%s is damaged: it has %d bytes, not %d; remove it and import its bundle again", f.Digest, st.Size(), f.SizeBytes)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func (s *Store) blob(d lane.Digest) string {
	return filepath.Join(s.blobs(), strings.TrimPrefix(string(d), "sha256:"))
}

// Import verifies the bundle in dir and stores it. A file that is missing or
// differs from its digest is refused, all of them at once, with both digests. A
// bundle of the same name and version but other content is refused: a version
// never changes. Importing the same bundle again changes nothing.
func (s *Store) Import(ctx context.Context, dir string) (lane.Bundle, error) {
	m, err := ReadManifest(dir)
	if err != nil {
		return lane.Bundle{}, err
	}
	b := m.bundle()
	refused := lane.Errorf(lane.Invalid, "the bundle %s does not hold what its manifest says", b.Ref())
	for _, name := range slices.Sorted(maps.Keys(b.Files)) {
		if err := ctx.Err(); err != nil {
			return lane.Bundle{}, err
		}
		size, err := s.take(filepath.Join(dir, name), b.Files[name].Digest)
		if err != nil {
			refused.Problems = append(refused.Problems, name+": "+err.Error())
			continue
		}
		b.Files[name] = lane.BundleFile{Digest: b.Files[name].Digest, SizeBytes: size}
	}
	if len(refused.Problems) > 0 {
		return lane.Bundle{}, refused
	}
	return s.publish(b)
}

// take copies one file into the store, if its bytes are what the manifest says.
func (s *Store) take(path string, want lane.Digest) (size int64, err error) {
	in, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, errors.New("is missing from the directory")
	} else if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	tmp, err := os.CreateTemp(s.blobs(), ".import-*")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already when it was renamed
	h := sha256.New()
	size, err = io.Copy(io.MultiWriter(tmp, h), in)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close()); err != nil {
		return 0, err
	}
	if have := sum(h.Sum(nil)); have != want {
		return 0, fmt.Errorf("the manifest says %s, the file is %s", want, have)
	}
	return size, os.Rename(tmp.Name(), s.blob(want))
}

func (s *Store) publish(b lane.Bundle) (lane.Bundle, error) {
	data, d, err := canonical(b)
	if err != nil {
		return lane.Bundle{}, err
	}
	b.Digest = d
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, have := range s.bundles {
		if have.Ref() == b.Ref() && have.Digest != d {
			return lane.Bundle{}, lane.Errorf(lane.Refused, "%s is in the store already as %s, this one is %s: a version never changes, give the new content a new version", b.Ref(), have.Digest, d)
		}
	}
	path := filepath.Join(s.manifests(), strings.TrimPrefix(string(d), "sha256:")+".json")
	if err := writeDurably(path, data); err != nil {
		return lane.Bundle{}, &lane.Error{Code: lane.Unavailable, Message: "publish the manifest", Err: err}
	}
	s.bundles[d] = b
	return b, nil
}

// writeDurably replaces a file so that a power cut leaves the old one or the new
// one, and nothing in between.
func writeDurably(path string, data []byte) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already when it was renamed
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
