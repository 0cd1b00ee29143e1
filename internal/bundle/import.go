package bundle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"bootlane/internal/lane"
)

// Import verifies the bundle in dir and stores it. It is refused without the signatures
// that the site wants; those that the store has already count as well. admit is asked
// before anything is copied: present says that the store has the bundle already.
//
// A file that is missing, differs from its digest, is no plain file, or is named nowhere
// refuses the whole, all problems at once. Importing the same bundle again mends damaged
// files and adds signatures. Until the last step, one rename, nothing of it is visible;
// when it is refused, or the disk is full, nothing of it stays.
func (s *Store) Import(ctx context.Context, dir string, admit func(b lane.Bundle, present bool) error) (lane.Bundle, error) {
	return s.bring(ctx, dir, &taking{store: s}, admit)
}

// Complete is Import of a directory that need not have the files that the store has, verified.
func (s *Store) Complete(ctx context.Context, dir string, admit func(b lane.Bundle, present bool) error) (lane.Bundle, error) {
	return s.bring(ctx, dir, &taking{store: s, partly: true}, admit)
}

// Examine says what Import would refuse before it copies anything. Of dir it needs only what
// describes the bundle: the manifest and its signatures.
func (s *Store) Examine(dir string, admit func(b lane.Bundle, present bool) error) (lane.Bundle, error) {
	f, err := Open(dir)
	if err != nil {
		return lane.Bundle{}, err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	return f.Bundle, s.admitted(f, admit)
}

func (s *Store) bring(ctx context.Context, dir string, t *taking, admit func(b lane.Bundle, present bool) error) (lane.Bundle, error) {
	f, err := Open(dir)
	if err != nil {
		return lane.Bundle{}, err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.admitted(f, admit); err != nil {
		return f.Bundle, err
	}
	if err := t.all(ctx, f); err != nil {
		if left := t.undo(); left != nil {
			err = errors.Join(err, left)
		}
		return f.Bundle, err
	}
	return f.Bundle, nil
}

// admitted judges what describes a bundle, with the signatures that the store has already.
func (s *Store) admitted(f Folder, admit func(b lane.Bundle, present bool) error) error {
	have, present := s.lookup(f.Bundle.Digest)
	if err := f.join(have.Signatures); err != nil {
		return err
	}
	if s.trust != nil {
		if v := s.trust.Judge(f.Manifest, f.Bundle.Digest, f.Signatures); v.Refusal != "" {
			return lane.Errorf(lane.Refused, "%s: %s", f.Bundle.Ref(), v.Refusal)
		}
	}
	for _, b := range s.all() {
		if b.Bundle.Digest != f.Bundle.Digest && b.Bundle.Name == f.Bundle.Name && lane.CompareVersions(b.Bundle.Version, f.Bundle.Version) == 0 {
			return lane.Errorf(lane.Refused, "%s is in the store already as %s, this one is %s: a version never changes, give the new content a new version", b.Bundle.Ref(), b.Bundle.Digest, f.Bundle.Digest)
		}
	}
	return admit(f.Bundle, present)
}

// join adds signatures of the same manifest, those that are not among its own.
func (f Folder) join(more map[string][]byte) error {
	for _, name := range slices.Sorted(maps.Keys(more)) {
		known := slices.ContainsFunc(slices.Collect(maps.Values(f.Signatures)), func(sig []byte) bool { return string(sig) == string(more[name]) })
		if known {
			continue
		}
		if _, taken := f.Signatures[name]; taken { // another key's, under the same name
			d := digestOf(more[name])
			name = CanonicalName + "." + strings.TrimPrefix(string(d), "sha256:")[:16] + SignatureExt
		}
		f.Signatures[name] = more[name]
	}
	if len(f.Signatures) > maxSignatures {
		return lane.Errorf(lane.Invalid, "%d signatures, with those that the store has, are more than %d", len(f.Signatures), maxSignatures)
	}
	return nil
}

// taking is one import's work on the store.
type taking struct {
	store  *Store
	partly bool          // what the store has need not come again
	added  []lane.Digest // blobs that were not there before
}

// undo removes what a failed import brought.
func (t *taking) undo() error {
	var errs []error
	for _, d := range t.added {
		errs = append(errs, os.Remove(t.store.blob(d)))
		t.store.forget(d)
	}
	return errors.Join(errs...)
}

func (t *taking) all(ctx context.Context, f Folder) error {
	problems, total := f.unnamed(), int64(0)
	for _, file := range f.Bundle.Files {
		total += file.SizeBytes
	}
	defer t.store.work.begin("import "+f.Bundle.Ref(), total)()
	for _, name := range slices.Sorted(maps.Keys(f.Bundle.Files)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := t.take(filepath.Join(f.Dir, name), f.Bundle.Files[name])
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EROFS) {
			return &lane.Error{Code: lane.Unavailable, Message: fmt.Sprintf("store %s of %s: nothing of the bundle is kept", name, f.Bundle.Ref()), Err: err}
		}
		if err != nil {
			problems = append(problems, name+": "+err.Error())
		}
	}
	if len(problems) > 0 {
		return &lane.Error{Code: lane.Invalid, Message: "the bundle " + f.Bundle.Ref() + " does not hold what its manifest says", Problems: problems}
	}
	return t.publish(f)
}

// publish stores what describes the bundle, and makes it visible: everything that it needs
// is durable by then.
func (t *taking) publish(f Folder) error {
	text, entry, err := pack(f)
	if err != nil {
		return err
	}
	b := stored{Folder: f, entry: entry}
	b.Dir = ""
	for _, doc := range append([][]byte{text, f.Manifest}, slices.Collect(maps.Values(f.Signatures))...) {
		if err := t.put(doc); err != nil {
			return &lane.Error{Code: lane.Unavailable, Message: "store what describes " + f.Bundle.Ref() + ": nothing of the bundle is kept", Err: err}
		}
		b.blobs = append(b.blobs, digestOf(doc))
	}
	for _, file := range f.Bundle.Files {
		b.blobs = append(b.blobs, file.Digest)
	}
	if err := syncDir(t.store.blobs()); err != nil { // the names must be as durable as what points at them
		return &lane.Error{Code: lane.Unavailable, Message: "write the store's directory", Err: err}
	}
	t.store.mu.RLock()
	bundles := maps.Clone(t.store.bundles)
	t.store.mu.RUnlock()
	bundles[f.Bundle.Digest] = b
	return t.store.publish(bundles)
}

// take copies one file into the store, if its bytes are what the manifest says. One that
// the store has in good order is only compared.
func (t *taking) take(path string, want lane.BundleFile) (err error) {
	if t.partly && t.store.intact(want.Digest) {
		return nil
	}
	in, err := openFile(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	if t.store.intact(want.Digest) {
		_, have, err := copyHashed(nil, t.store.work.reading(in))
		return errors.Join(err, differs(want.Digest, have))
	}
	return t.write(want, func(tmp *os.File) (int64, lane.Digest, error) {
		if want.SizeBytes > 0 {
			// Room is taken beforehand, so that a full disk is told now, and not in mid-copy.
			if err := syscall.Fallocate(int(tmp.Fd()), 0, 0, want.SizeBytes); err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
				return 0, "", err
			}
		}
		return copyHashed(tmp, t.store.work.reading(in))
	})
}

// put stores a document.
func (t *taking) put(data []byte) error {
	want := lane.BundleFile{Digest: digestOf(data), SizeBytes: int64(len(data))}
	if t.store.intact(want.Digest) {
		return nil
	}
	return t.write(want, func(tmp *os.File) (int64, lane.Digest, error) {
		n, err := tmp.Write(data)
		return int64(n), want.Digest, err
	})
}

// write makes a blob of what fill writes, if that is what is wanted.
func (t *taking) write(want lane.BundleFile, fill func(tmp *os.File) (int64, lane.Digest, error)) error {
	tmp, err := os.CreateTemp(t.store.blobs(), ".import-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already when it was renamed
	size, have, err := fill(tmp)
	if err == nil {
		err = tmp.Chmod(0o444)
	}
	if err == nil {
		err = differs(want.Digest, have)
	}
	if err == nil && size != want.SizeBytes {
		err = fmt.Errorf("the manifest says %d bytes, the file has %d", want.SizeBytes, size)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	fresh, err := t.store.settle(tmp.Name(), want.Digest)
	if fresh {
		t.added = append(t.added, want.Digest)
	}
	return err
}
