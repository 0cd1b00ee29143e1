package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"bootlane/internal/iso"
	"bootlane/internal/lane"
)

// maxSignatures is how many signatures a bundle may carry.
const maxSignatures = 16

// Folder is a bundle in a directory, as its manifest describes it. Its files are not
// looked into yet.
type Folder struct {
	Dir        string
	Bundle     lane.Bundle
	Manifest   []byte            // canonical
	Signatures map[string][]byte // by file name
}

// Build reads every file of the bundle in dir and writes its canonical manifest. The same
// input gives the same bytes; bundle.yaml is not touched. A file whose digest stands in
// bundle.yaml must have it, and files that nothing names are refused.
func Build(ctx context.Context, dir string) (Folder, error) {
	b, err := ReadManifest(dir)
	if err != nil {
		return Folder{}, err
	}
	f := Folder{Dir: dir, Bundle: b}
	problems := f.each(ctx, func(name string, size int64, have lane.Digest) error {
		if want := b.Files[name].Digest; want != "" && want != have {
			return fmt.Errorf("%s says %s, the file is %s: correct the one that is wrong", ManifestName, want, have)
		}
		b.Files[name] = lane.BundleFile{Digest: have, SizeBytes: size}
		return nil
	})
	for _, p := range slices.Concat(checkImages(b), checkScripts(b)) {
		problems = append(problems, p.Field+": "+p.Message)
	}
	if len(problems) > 0 {
		return f, &lane.Error{Code: lane.Invalid, Message: "the bundle " + b.Ref() + " cannot be built", Problems: problems, Err: ctx.Err()}
	}
	if f.Manifest, f.Bundle.Digest, err = canonical(b); err != nil {
		return f, err
	}
	path := filepath.Join(dir, CanonicalName)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, f.Manifest) {
		return f, nil // signatures of it stay good
	}
	stale, err := filepath.Glob(filepath.Join(dir, CanonicalName+"*"+SignatureExt))
	if err != nil {
		return f, fmt.Errorf("list old signatures: %w", err)
	}
	for _, s := range stale { // of other bytes: they could only mislead
		if err := os.Remove(s); err != nil {
			return f, &lane.Error{Code: lane.Unavailable, Message: "remove a signature of the manifest as it was", Err: err}
		}
	}
	if err := writeDurably(path, f.Manifest); err != nil {
		return f, &lane.Error{Code: lane.Unavailable, Message: "write " + path, Err: err}
	}
	return f, nil
}

// Open reads what describes the bundle in dir: manifest.json with its signatures, or
// bundle.yaml alone where that has every digest. Where both are there, they must agree.
func Open(dir string) (Folder, error) {
	f := Folder{Dir: dir, Signatures: map[string][]byte{}}
	data, err := readSmall(filepath.Join(dir, CanonicalName))
	if errors.Is(err, fs.ErrNotExist) {
		return f.fromYAML()
	} else if err != nil {
		return f, &lane.Error{Code: lane.Invalid, Message: "read the bundle's manifest", Err: err}
	}
	if f.Bundle, err = ParseCanonical(data); err != nil {
		return f, err
	}
	f.Manifest = data
	if err := f.agrees(); err != nil {
		return f, err
	}
	names, err := filepath.Glob(filepath.Join(dir, CanonicalName+"*"+SignatureExt))
	if err != nil || len(names) > maxSignatures {
		return f, errors.Join(err, lane.Errorf(lane.Invalid, "%d signatures are more than %d", len(names), maxSignatures))
	}
	for _, n := range names {
		sig, err := readSmall(n)
		if err != nil {
			return f, &lane.Error{Code: lane.Invalid, Message: "read a signature", Err: err}
		}
		f.Signatures[filepath.Base(n)] = sig
	}
	return f, nil
}

// fromYAML makes the manifest of a directory that was never built, but whose bundle.yaml
// says what every file must be.
func (f Folder) fromYAML() (Folder, error) {
	var err error
	if f.Bundle, err = ReadManifest(f.Dir); err != nil {
		return f, err
	}
	if problems := undigested(f.Bundle); len(problems) > 0 {
		return f, lane.Errorf(lane.Invalid, "%s is not built yet: `bootlane bundle build %s`", f.Bundle.Ref(), f.Dir)
	}
	for name, file := range f.Bundle.Files {
		if st, err := os.Lstat(filepath.Join(f.Dir, name)); err == nil { // one that is missing is told with all others
			f.Bundle.Files[name] = lane.BundleFile{Digest: file.Digest, SizeBytes: st.Size()}
		}
	}
	f.Manifest, f.Bundle.Digest, err = canonical(f.Bundle)
	return f, err
}

// agrees reports when bundle.yaml was changed after manifest.json was made of it.
func (f Folder) agrees() error {
	b, err := ReadManifest(f.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for name, file := range f.Bundle.Files {
		if own, ok := b.Files[name]; ok && (own.Digest == "" || own.Digest == file.Digest) {
			b.Files[name] = file
		}
	}
	e := lane.Errorf(lane.Invalid, "%s was changed after %s was made of it: `bootlane bundle build %s`, then sign it again", ManifestName, CanonicalName, f.Dir)
	for _, c := range lane.DiffBundles(f.Bundle, b) {
		e.Problems = append(e.Problems, fmt.Sprintf("%s: %s says %q, %s %q", c.Field, CanonicalName, c.Was, ManifestName, c.Is))
	}
	if len(e.Problems) > 0 {
		return e
	}
	return nil
}

// Verify compares every file with the manifest. The error is Invalid and lists all that
// is missing, differs, or is in the directory without being named.
func (f Folder) Verify(ctx context.Context) error {
	problems := f.each(ctx, func(name string, _ int64, have lane.Digest) error { return differs(f.Bundle.Files[name].Digest, have) })
	if len(problems) > 0 {
		return &lane.Error{Code: lane.Invalid, Message: "the bundle " + f.Bundle.Ref() + " does not hold what its manifest says", Problems: problems, Err: ctx.Err()}
	}
	return nil
}

func differs(want, have lane.Digest) error {
	if want != have {
		return fmt.Errorf("the manifest says %s, the file is %s", want, have)
	}
	return nil
}

// each hashes the bundle's files, in order, and returns what is wrong with any of them, or with the directory.
func (f Folder) each(ctx context.Context, look func(name string, size int64, have lane.Digest) error) []string {
	problems := f.unnamed()
	for _, name := range slices.Sorted(maps.Keys(f.Bundle.Files)) {
		if ctx.Err() != nil {
			return append(problems, "stopped before the end")
		}
		in, err := openFile(filepath.Join(f.Dir, name))
		if err == nil {
			var size int64
			var have lane.Digest
			size, have, err = copyHashed(nil, in)
			err = errors.Join(err, in.Close())
			if err == nil {
				err = look(name, size, have)
			}
		}
		if slices.Contains(f.Bundle.ImageSignatures(), name) && errors.Is(err, errMissing) {
			err = errors.New("is missing: imageTrust of a loader wants kernel and initrd signed, `bootlane bundle build --certificate FILE --key FILE DIR`")
		}
		if err == nil && slices.ContainsFunc(f.Bundle.Views(), func(v lane.Bundle) bool { return v.Tree == name }) {
			err = readable(filepath.Join(f.Dir, name))
		}
		if err != nil {
			problems = append(problems, name+": "+err.Error())
		}
	}
	return problems
}

// readable reports why an installer tree could not be served.
func readable(path string) error {
	in, err := openFile(path)
	if err != nil {
		return err
	}
	st, err := in.Stat()
	if err == nil {
		_, err = iso.Open(in, st.Size())
	}
	return errors.Join(err, in.Close())
}

// unnamed returns what is in the directory and in no manifest: a bundle is exactly what it says.
func (f Folder) unnamed() (out []string) {
	list, err := os.ReadDir(f.Dir)
	if err != nil {
		return []string{err.Error()}
	}
	for _, e := range list {
		if _, ok := f.Bundle.Files[e.Name()]; !ok && !reserved(e.Name()) && !strings.HasPrefix(e.Name(), ".") {
			out = append(out, e.Name()+": is in the directory, and the manifest does not name it: add it to `files`, or remove it")
		}
	}
	return out
}

var errMissing = errors.New("is missing from the directory")

// openFile opens a plain file of a bundle's directory: no link, which could lead anywhere,
// and no device or pipe, which could block.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errMissing
	case errors.Is(err, syscall.ELOOP):
		return nil, errors.New("is a symbolic link: put the file itself there")
	case err != nil:
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(errors.New("is not a plain file"), err, f.Close())
	}
	return f, nil
}

// readSmall reads a manifest or a signature.
func readSmall(path string) (data []byte, err error) {
	if _, err := os.Lstat(path); err != nil {
		return nil, err
	}
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	data, err = io.ReadAll(io.LimitReader(f, maxManifest+1))
	return data, errors.Join(err, f.Close())
}

// copyHashed copies a file, and hashes it at the same time on another CPU. dst may be nil.
func copyHashed(dst io.Writer, src io.Reader) (int64, lane.Digest, error) {
	const buffers, size = 4, 256 << 10
	free, full := make(chan []byte, buffers), make(chan []byte, buffers)
	for range buffers {
		free <- make([]byte, size)
	}
	h, done := sha256.New(), make(chan struct{})
	go func() {
		defer close(done)
		for b := range full {
			_, _ = h.Write(b) // a hash never fails
			free <- b[:size]
		}
	}()
	var total int64
	var err error
	for err == nil {
		b := <-free
		var n int
		n, err = io.ReadFull(src, b)
		if dst != nil && n > 0 {
			if _, werr := dst.Write(b[:n]); werr != nil {
				err = werr
			}
		}
		total += int64(n)
		full <- b[:n]
	}
	close(full)
	<-done
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return total, sum(h.Sum(nil)), err
}
