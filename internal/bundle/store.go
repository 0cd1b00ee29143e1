package bundle

import (
	"cmp"
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

	"golang.org/x/sync/singleflight"

	"bootlane/internal/lane"
	"bootlane/internal/trust"
)

// Store keeps imported bundles below one directory, an OCI image layout:
//
//	oci-layout             which version of the layout this is
//	index.json             the bundles, each an artifact; whatever is not reached from it does not count
//	blobs/sha256/HEX       every file, once, however many bundles share it
//	quarantine/HEX         files that were found damaged
//
// It is safe for concurrent use by one process.
type Store struct {
	dir      string
	trust    *trust.Keeper // nil: signatures are not asked for
	writing  sync.Mutex    // held by whoever adds or removes blobs
	checking singleflight.Group
	damaged  []error
	work     work

	mu       sync.RWMutex
	bundles  map[lane.Digest]stored
	verified map[lane.Digest]stamp  // files that hold what their name says, as they were then
	bad      map[lane.Digest]string // files that do not, and why
}

// stored is a bundle in the store, with its canonical manifest and the signatures of it.
type stored struct {
	Folder
	entry descriptor
	blobs []lane.Digest // all that it is made of, its artifact included
}

// Damaged returns why entries of the store could not be used when it was opened. Their
// bundles are treated as missing.
func (s *Store) Damaged() []error { return s.damaged }

// NewStore opens the store below dir and creates it when it is missing. An entry whose
// bytes do not match their digest is left out, see [Store.Damaged]: one damaged bundle
// must not keep a whole rack without addresses. Files are not hashed here: [Store.Run] does.
// keeper says whose signatures bundles need; nil: none are needed.
func NewStore(dir string, keeper *trust.Keeper) (*Store, error) {
	s := &Store{dir: dir, trust: keeper, bundles: map[lane.Digest]stored{}, verified: map[lane.Digest]stamp{}, bad: map[lane.Digest]string{}}
	err := errors.Join(os.MkdirAll(s.blobs(), 0o755), os.MkdirAll(s.quarantine(), 0o755))
	if _, missing := os.Stat(s.path("oci-layout")); err == nil && missing != nil {
		err = writeDurably(s.path("oci-layout"), []byte(layoutVersion))
	}
	if err == nil {
		err = s.sweep()
	}
	if err != nil {
		return nil, &lane.Error{Code: lane.Unavailable, Message: "create the bundle store", Err: err}
	}
	if _, err := os.Stat(s.path("manifests")); err == nil {
		s.damaged = append(s.damaged, fmt.Errorf("%s holds bundles of an earlier version of Bootlane: import them again, then remove that directory", s.path("manifests")))
	}
	for _, entry := range s.readIndex() {
		b, err := s.load(entry)
		if err != nil {
			s.damaged = append(s.damaged, fmt.Errorf("%s: %w; import the bundle again", entry.Annotations[refKey], err))
			continue
		}
		s.bundles[b.Bundle.Digest] = b
	}
	return s, nil
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }
func (s *Store) blobs() string           { return filepath.Join(s.dir, "blobs", "sha256") }
func (s *Store) quarantine() string      { return filepath.Join(s.dir, "quarantine") }
func (s *Store) blob(d lane.Digest) string {
	return filepath.Join(s.blobs(), strings.TrimPrefix(string(d), "sha256:"))
}

// sweep removes what a killed import left: it was never visible.
func (s *Store) sweep() error {
	left, err := filepath.Glob(filepath.Join(s.blobs(), ".import-*"))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// readIndex returns the store's entries. An index that cannot be read is made anew from
// the artifacts that are there.
func (s *Store) readIndex() []descriptor {
	data, err := os.ReadFile(s.path("index.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var x index
	if err == nil {
		err = json.Unmarshal(data, &x)
	}
	if err == nil {
		return x.Manifests
	}
	s.damaged = append(s.damaged, fmt.Errorf("%s cannot be read, its entries are searched for: %w", s.path("index.json"), err))
	files, err := os.ReadDir(s.blobs())
	if err != nil {
		s.damaged = append(s.damaged, err)
	}
	var out []descriptor
	for _, f := range files {
		info, err := f.Info()
		if err != nil || info.Size() > maxManifest {
			continue
		}
		d := descriptor{MediaType: mediaManifest, ArtifactType: mediaBundle, Digest: lane.Digest("sha256:" + f.Name()), Size: info.Size()}
		if text, err := s.small(d); err == nil {
			if a, _, err := unpack(text); err == nil {
				d.Annotations = map[string]string{refKey: string(a.Config.Digest)}
				out = append(out, d)
			}
		}
	}
	return out
}

// small reads a blob that is a document, and compares its digest.
func (s *Store) small(d descriptor) (data []byte, err error) {
	f, err := os.Open(s.blob(d.Digest))
	if err != nil {
		return nil, err
	}
	data, err = io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if have := digestOf(data); have != d.Digest {
		return nil, fmt.Errorf("%s is damaged: its bytes hash to %s", s.blob(d.Digest), have)
	}
	return data, nil
}

// load reads the bundle that an entry of the index stands for.
func (s *Store) load(entry descriptor) (out stored, err error) {
	if _, err := lane.ParseDigest(string(entry.Digest)); err != nil {
		return out, err
	}
	text, err := s.small(entry)
	if err != nil {
		return out, err
	}
	a, signatures, err := unpack(text)
	if err != nil {
		return out, err
	}
	if out.Manifest, err = s.small(a.Config); err != nil {
		return out, err
	}
	if err := json.Unmarshal(out.Manifest, &out.Bundle); err != nil {
		return out, fmt.Errorf("decode the manifest: %w", err)
	}
	out.Bundle.Digest = a.Config.Digest
	out.Signatures = map[string][]byte{}
	for _, d := range signatures {
		if out.Signatures[d.Annotations[titleKey]], err = s.small(d); err != nil {
			return out, err
		}
	}
	out.entry = entry
	out.blobs = []lane.Digest{entry.Digest, a.Config.Digest}
	for _, l := range a.Layers {
		out.blobs = append(out.blobs, l.Digest)
	}
	return out, nil
}

// Get returns the bundle with the digest; a missing one is a NotFound error. One that is
// damaged, or not signed as the site wants now, says so in its Refusal.
func (s *Store) Get(d lane.Digest) (lane.Bundle, error) {
	b, ok := s.lookup(d)
	if !ok {
		return lane.Bundle{}, lane.Errorf(lane.NotFound, "no bundle %s in the store", d)
	}
	return s.judged(b), nil
}

// Broken reports whether the store has a bundle of which a file is known to be damaged.
func (s *Store) Broken(d lane.Digest) bool {
	b, ok := s.lookup(d)
	return ok && s.damage(b) != ""
}

// Find returns the bundle called ref: its NAME-VERSION, or its digest. See [Store.Get].
func (s *Store) Find(ref string) (lane.Bundle, error) {
	for _, b := range s.all() {
		if b.Bundle.Ref() == ref || string(b.Bundle.Digest) == ref {
			return s.judged(b), nil
		}
	}
	return lane.Bundle{}, lane.Errorf(lane.NotFound, "no bundle %q in the store: `bootlane bundle list` shows those that are", ref)
}

// List returns every bundle, by name, and by version as people order them. See [Store.Get].
func (s *Store) List() []lane.Bundle {
	list := s.all()
	out := make([]lane.Bundle, len(list))
	for i, b := range list {
		out[i] = s.judged(b)
	}
	slices.SortFunc(out, func(a, b lane.Bundle) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), lane.CompareVersions(a.Version, b.Version))
	})
	return out
}

// Signers returns the names of the trusted keys that signed a bundle.
func (s *Store) Signers(d lane.Digest) []string {
	b, ok := s.lookup(d)
	if !ok || s.trust == nil {
		return nil
	}
	return s.trust.Judge(b.Manifest, d, b.Signatures).Signers
}

// Trust returns whose signatures bundles need.
func (s *Store) Trust() lane.Trust {
	if s.trust == nil {
		return lane.Trust{Keys: []lane.TrustedKey{}, RevokedKeys: []lane.RevokedKey{}, RevokedBundles: []lane.RevokedBundle{}}
	}
	return s.trust.InForce()
}

func (s *Store) lookup(d lane.Digest) (stored, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, ok := s.bundles[d]
	return b, ok
}

func (s *Store) all() []stored {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Values(s.bundles))
}

// judged adds why the bundle may not be installed now, as far as the store can tell.
func (s *Store) judged(b stored) lane.Bundle {
	out := b.Bundle
	if out.Refusal = s.damage(b); out.Refusal == "" && s.trust != nil {
		if v := s.trust.Judge(b.Manifest, out.Digest, b.Signatures); v.Refusal != "" {
			out.Refusal = out.Ref() + ": " + v.Refusal
		}
	}
	return out
}

// damage says which part of a bundle is known to be damaged, or nothing.
func (s *Store) damage(b stored) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.bad) == 0 {
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(b.Bundle.Files)) {
		if why, ok := s.bad[b.Bundle.Files[name].Digest]; ok {
			return fmt.Sprintf("%s is damaged in the store: %s %s; import it again", b.Bundle.Ref(), name, why)
		}
	}
	for _, d := range b.blobs {
		if why, ok := s.bad[d]; ok {
			return fmt.Sprintf("%s is damaged in the store: what describes it, %s, %s; import it again", b.Bundle.Ref(), d, why)
		}
	}
	return ""
}

// Collect removes the bundles that keep does not want, and the files that no other bundle
// needs. With check it only says what it would remove. What is being sent to a machine
// still reaches it: an open file outlives its name.
func (s *Store) Collect(keep func(lane.Bundle) bool, check bool) (lane.BundleGC, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	out := lane.BundleGC{Checked: check, Bundles: []string{}}
	left, needed := map[lane.Digest]stored{}, map[lane.Digest]bool{}
	for _, b := range s.all() {
		if !keep(b.Bundle) {
			out.Bundles = append(out.Bundles, b.Bundle.Ref())
			continue
		}
		left[b.Bundle.Digest] = b
		for _, d := range b.blobs {
			needed[d] = true
		}
	}
	slices.Sort(out.Bundles)
	if !check && len(out.Bundles) > 0 {
		if err := s.publish(left); err != nil { // first they are not visible any more, then they go
			return out, err
		}
	}
	files, err := os.ReadDir(s.blobs())
	if err != nil {
		return out, &lane.Error{Code: lane.Unavailable, Message: "list the store", Err: err}
	}
	for _, f := range files {
		d := lane.Digest("sha256:" + f.Name())
		info, err := f.Info()
		if _, notOurs := lane.ParseDigest(string(d)); err != nil || notOurs != nil || needed[d] {
			continue
		}
		out.Files, out.Bytes = out.Files+1, out.Bytes+info.Size()
		if check {
			continue
		}
		if err := os.Remove(s.blob(d)); err != nil {
			return out, &lane.Error{Code: lane.Unavailable, Message: "remove a file from the store", Err: err}
		}
		s.mu.Lock()
		delete(s.verified, d)
		delete(s.bad, d)
		s.mu.Unlock()
	}
	return out, nil
}

// publish makes the bundles the ones that the store has: on disk, then in memory.
func (s *Store) publish(bundles map[lane.Digest]stored) error {
	x := index{SchemaVersion: 2, MediaType: mediaIndex, Manifests: []descriptor{}}
	for _, b := range bundles {
		x.Manifests = append(x.Manifests, b.entry)
	}
	slices.SortFunc(x.Manifests, func(a, b descriptor) int { return strings.Compare(a.Annotations[refKey], b.Annotations[refKey]) })
	text, err := json.Marshal(x)
	if err != nil {
		return fmt.Errorf("encode the index: %w", err)
	}
	if err := writeDurably(s.path("index.json"), text); err != nil {
		return &lane.Error{Code: lane.Unavailable, Message: "publish the bundle", Err: err}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bundles = bundles
	return nil
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
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
