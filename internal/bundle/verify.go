package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"bootlane/internal/lane"
)

// stamp is what a file system says of a file's content without reading it. ctime cannot be
// set back: whoever changes a byte, or puts another file in its place, changes the stamp.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime syscall.Timespec
}

func stampOf(f *os.File) (stamp, error) {
	info, err := f.Stat()
	if err != nil {
		return stamp{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() {
		return stamp{}, errors.New("is not a plain file")
	}
	return stamp{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim}, nil
}

// Open opens a file by its digest, for serving. What was verified once and has the same
// stamp since costs one fstat; anything else is hashed before a byte of it leaves. A file
// that is missing or damaged is an Unavailable error, and goes to quarantine.
func (s *Store) Open(f lane.BundleFile) (*os.File, error) {
	file, err := openFile(s.blob(f.Digest))
	if err != nil && s.lost(f.Digest) {
		return nil, s.condemn(f.Digest, "is missing", nil)
	}
	if err != nil {
		return nil, &lane.Error{Code: lane.Unavailable, Message: "open " + string(f.Digest) + ": import its bundle again", Err: err}
	}
	now, err := stampOf(file)
	if err == nil && !s.knows(f.Digest, now) {
		// However many ask for it at once, it is read once.
		_, err, _ = s.checking.Do(string(f.Digest), func() (any, error) { return nil, s.check(f.Digest, nil) })
		if err == nil && !s.knows(f.Digest, now) {
			err = lane.Errorf(lane.Unavailable, "%s is being changed: try again", f.Digest)
		}
	}
	if err == nil && now.size != f.SizeBytes {
		err = lane.Errorf(lane.Unavailable, "%s has %d bytes, the manifest says %d", f.Digest, now.size, f.SizeBytes)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// lost reports whether a bundle needs a file that is not there.
func (s *Store) lost(d lane.Digest) bool {
	if _, err := os.Lstat(s.blob(d)); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	return slices.ContainsFunc(s.all(), func(b stored) bool { return slices.Contains(b.blobs, d) })
}

func (s *Store) knows(d lane.Digest, now stamp) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	was, ok := s.verified[d]
	return ok && was == now
}

// intact reports whether a file was verified, and has not changed since.
func (s *Store) intact(d lane.Digest) bool {
	f, err := openFile(s.blob(d))
	if err != nil {
		return false
	}
	now, err := stampOf(f)
	return errors.Join(err, f.Close()) == nil && s.knows(d, now)
}

// settle gives a file that we have just written its name in the store, and takes it for
// verified. It reports whether there was none before. While it does, nobody condemns the
// one that it replaces.
func (s *Store) settle(tmp string, d lane.Digest) (fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, missing := os.Lstat(s.blob(d))
	if err := os.Rename(tmp, s.blob(d)); err != nil {
		return false, err
	}
	f, err := openFile(s.blob(d))
	if err != nil {
		return missing != nil, err
	}
	now, err := stampOf(f)
	if err = errors.Join(err, f.Close()); err == nil {
		s.verified[d] = now
		delete(s.bad, d)
	}
	return missing != nil, err
}

func (s *Store) forget(d lane.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.verified, d)
}

// check hashes a file and remembers its stamp, or sends it to quarantine.
func (s *Store) check(d lane.Digest, w *work) error {
	f, err := openFile(s.blob(d))
	if err != nil {
		return s.condemn(d, "cannot be opened: "+err.Error(), nil)
	}
	before, err := stampOf(f)
	var have lane.Digest
	if err == nil {
		_, have, err = copyHashed(nil, w.reading(f))
	}
	after, serr := stampOf(f)
	if err = errors.Join(err, serr, f.Close()); err != nil { // which says nothing of what is on the disk
		return s.condemn(d, "cannot be read: "+err.Error(), nil)
	}
	if before != after {
		return lane.Errorf(lane.Unavailable, "%s is being changed: try again", d)
	}
	if have != d {
		return s.condemn(d, "hashes to "+string(have)+": a disk, or somebody, changed it", &before)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verified[d] = before
	delete(s.bad, d)
	return nil
}

// condemn makes a file unusable for every bundle that needs it. One whose bytes are wrong,
// was says which, is taken aside; not what an import has put in its place meanwhile.
func (s *Store) condemn(d lane.Digest, why string, was *stamp) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := lane.Errorf(lane.Unavailable, "%s %s; import its bundle again", d, why)
	if was != nil && !s.still(d, *was) {
		return e
	}
	s.bad[d] = why
	delete(s.verified, d)
	if was != nil {
		to := filepath.Join(s.quarantine(), strings.TrimPrefix(string(d), "sha256:"))
		if err := os.Rename(s.blob(d), to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			e.Err = err
		}
	}
	return e
}

// still reports whether the file of that stamp is the one in the store.
func (s *Store) still(d lane.Digest, was stamp) bool {
	f, err := openFile(s.blob(d))
	if err != nil {
		return false
	}
	now, err := stampOf(f)
	return errors.Join(err, f.Close()) == nil && now == was
}

// Fsck hashes everything that the bundles are made of. What is damaged goes to quarantine,
// and its bundles are refused until they are imported again.
func (s *Store) Fsck(ctx context.Context) (lane.BundleFsck, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.checkAll(ctx, func(lane.Digest) bool { return true }, &s.work)
}

// Run verifies, once and in the background, what nobody has asked for yet, so that the
// first machine that does need not wait. It returns what was found damaged.
func (s *Store) Run(ctx context.Context) (lane.BundleFsck, error) {
	return s.checkAll(ctx, func(d lane.Digest) bool { return !s.intact(d) }, nil)
}

// checkAll checks the files that are wanted; w is told how far it is, unless it is nil.
func (s *Store) checkAll(ctx context.Context, wanted func(lane.Digest) bool, w *work) (lane.BundleFsck, error) {
	out := lane.BundleFsck{Damaged: []lane.BundleDamage{}}
	users, names := map[lane.Digest][]string{}, map[lane.Digest][]string{}
	for _, b := range s.all() {
		for name, f := range b.Bundle.Files {
			if !slices.Contains(names[f.Digest], name) {
				names[f.Digest] = append(names[f.Digest], name)
			}
		}
		for _, d := range b.blobs {
			if !slices.Contains(users[d], b.Bundle.Ref()) {
				users[d] = append(users[d], b.Bundle.Ref())
			}
		}
	}
	if w != nil {
		total := int64(0)
		for d := range users {
			if st, err := os.Stat(s.blob(d)); err == nil {
				total += st.Size()
			}
		}
		defer w.begin("fsck", total)()
	}
	for _, d := range slices.Sorted(maps.Keys(users)) {
		if err := ctx.Err(); err != nil {
			return out, &lane.Error{Code: lane.Unavailable, Message: "the check was stopped", Err: err}
		}
		if !wanted(d) {
			continue
		}
		_, err, _ := s.checking.Do(string(d), func() (any, error) { return nil, s.check(d, w) })
		if st, serr := os.Stat(s.blob(d)); serr == nil {
			out.Bytes += st.Size()
		}
		out.Files++
		if err != nil {
			out.Damaged = append(out.Damaged, lane.BundleDamage{Digest: d, Files: slices.Sorted(slices.Values(names[d])), Bundles: slices.Sorted(slices.Values(users[d])), Problem: fmt.Sprint(err)})
		}
	}
	return out, nil
}
