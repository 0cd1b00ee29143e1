// Package pull brings bundles from a site's registry into directories, as far as the bundle
// store lacks them. What describes a bundle comes first, and alone: who judges it need not
// wait for gigabytes, and of those only what the judged manifest names is fetched. What has
// arrived outlives a restart.
package pull

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"bootlane/internal/bundle"
	"bootlane/internal/lane"
	"bootlane/internal/registry"
)

// Limits of what describes a bundle, before anybody has judged it.
const (
	maxDescribing = 4 << 20 // bytes of a manifest, or a signature
	maxSignatures = 64
)

// patience is how long a registry may send nothing.
const patience = time.Minute

var errSilent = errors.New("the registry was silent for too long")

// Config says where bundles come from, and where they arrive.
type Config struct {
	Registry string // HOST[:PORT]/PATH: a bundle is PATH/NAME:VERSION there
	Options  registry.Options
	Dir      string        // for what is on its way
	Patience time.Duration // 0: a minute
}

// Source is a site's registry.
type Source struct{ cfg Config }

// New returns a Source. Nothing is asked yet.
func New(cfg Config) (*Source, error) {
	if cfg.Patience == 0 {
		cfg.Patience = patience
	}
	s := &Source{cfg}
	host, path, _ := strings.Cut(cfg.Registry, "/")
	if host == "" || path == "" || strings.ContainsAny(path, ":@") || strings.Contains(cfg.Registry, "://") {
		return nil, lane.Errorf(lane.Invalid, "%q is not HOST[:PORT]/PATH, for example registry.example/bootlane: no scheme, no tag", lane.Clean(cfg.Registry, 200))
	}
	repo, err := registry.Open(s.Reference("name", "1"), cfg.Options)
	if err != nil {
		return nil, err
	}
	repo.Close()
	return s, nil
}

// Reference is what a bundle is called in the registry.
func (s *Source) Reference(name, version string) string {
	return s.cfg.Registry + "/" + name + ":" + version
}

// Keep removes what is kept of fetches that did not end, but for those of refs.
func (s *Source) Keep(refs []string) error {
	list, err := os.ReadDir(s.cfg.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range list {
		if !slices.Contains(refs, e.Name()) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.cfg.Dir, e.Name())))
		}
	}
	if err != nil {
		return &lane.Error{Code: lane.Unavailable, Message: "remove what is left of a fetch", Err: err}
	}
	return nil
}

// Offer is a bundle that the registry says to have.
type Offer struct {
	source   *Source
	repo     *registry.Repository
	artifact registry.Artifact
	layout   *registry.Layout
	dir      string

	alive func() // the registry has sent something
	told  func(name string, done int64)
}

// Find asks the registry for a bundle. The error is NotFound where it has none of the name.
func (s *Source) Find(ctx context.Context, name, version string) (_ *Offer, err error) {
	ref := name + "-" + version
	if !lane.FileName(ref) {
		return nil, lane.Errorf(lane.Invalid, "%q is no name for a directory", ref)
	}
	o := &Offer{source: s, dir: filepath.Join(s.cfg.Dir, ref), alive: func() {}, told: func(string, int64) {}}
	options := s.cfg.Options
	options.Tell = func(name string, done, _ int64) {
		o.alive()
		o.told(name, done)
	}
	if o.repo, err = registry.Open(s.Reference(name, version), options); err != nil {
		return nil, err
	}
	err = o.watched(ctx, func(ctx context.Context) (err error) {
		o.artifact, err = o.repo.Find(ctx, bundle.ArtifactType)
		return err
	})
	if err != nil {
		o.repo.Close()
		return nil, err
	}
	return o, nil
}

// Close lets go of the registry. What has arrived stays.
func (o *Offer) Close() { o.repo.Close() }

// From is the reference that always means this very artifact.
func (o *Offer) From() string { return o.repo.Pinned(o.artifact.Manifest) }

// Digest is the bundle's, as the registry says.
func (o *Offer) Digest() lane.Digest { return lane.Digest(o.artifact.Config.Digest) }

// Describe fetches the bundle's manifest and signatures into a directory.
func (o *Offer) Describe(ctx context.Context) (string, error) {
	signatures := 0
	for _, b := range o.artifact.Blobs() {
		if !describes(b) {
			continue
		}
		if signatures++; b.Bytes > maxDescribing || signatures > maxSignatures {
			return "", lane.Errorf(lane.Refused, "the artifact has more, or larger, signatures than any bundle: %s, %d bytes", lane.Clean(b.Title, 80), b.Bytes)
		}
	}
	if o.artifact.Config.Size > maxDescribing {
		return "", lane.Errorf(lane.Refused, "the bundle's manifest has %d bytes: the most are %d", o.artifact.Config.Size, maxDescribing)
	}
	var err error
	if o.layout, err = registry.NewLayout(o.dir); err != nil {
		return "", err
	}
	if err := o.layout.Keep(o.artifact); err != nil { // of what the tag was before
		return "", err
	}
	return o.arrive(ctx, "description", o.artifact.Only(describes))
}

// describes tells the small layers from the bundle's files.
func describes(b registry.Blob) bool {
	return strings.HasPrefix(b.Title, bundle.CanonicalName) && strings.HasSuffix(b.Title, bundle.SignatureExt)
}

// Fetch fetches those of the bundle's files that lacks wants into a directory, with what
// describes the bundle. It follows Describe. tell is told how many bytes are here, of how
// many that the bundle has; those that are not lacking count.
func (o *Offer) Fetch(ctx context.Context, lacks func(lane.BundleFile) bool, tell func(done, total int64)) (string, error) {
	f, err := bundle.Open(filepath.Join(o.dir, "description"))
	if err != nil {
		return "", err
	}
	if err := o.fits(f.Bundle); err != nil {
		return "", err
	}
	done, total := map[string]int64{}, int64(0)
	lacking := o.artifact.Only(func(b registry.Blob) bool {
		if describes(b) {
			return true
		}
		total += b.Bytes
		missing := lacks(lane.BundleFile{Digest: b.Digest, SizeBytes: b.Bytes})
		if !missing {
			done[b.Title] = b.Bytes
		}
		return missing
	})
	if err := o.room(lacking); err != nil {
		return "", err
	}
	o.told = func(name string, n int64) {
		if _, file := f.Bundle.Files[name]; file {
			done[name] = n
		}
		sum := int64(0)
		for _, n := range done {
			sum += n
		}
		tell(sum, total)
	}
	o.told("", 0)
	return o.arrive(ctx, "bundle", lacking)
}

// fits compares the artifact with the manifest that was judged: a registry that adds files,
// or makes them larger, must not fill the disk.
func (o *Offer) fits(b lane.Bundle) error {
	seen := map[string]bool{}
	for _, l := range o.artifact.Blobs() {
		want, ok := b.Files[l.Title]
		switch {
		case describes(l):
		case !ok || seen[l.Title] || want != lane.BundleFile{Digest: l.Digest, SizeBytes: l.Bytes}:
			return lane.Errorf(lane.Refused, "the artifact has the file %s, %s of %d bytes, and the manifest of %s has not", lane.Clean(l.Title, 80), l.Digest, l.Bytes, b.Ref())
		default:
			seen[l.Title] = true
		}
	}
	if len(seen) < len(b.Files) {
		return lane.Errorf(lane.Refused, "the artifact has %d files of the %d that the manifest of %s names", len(seen), len(b.Files), b.Ref())
	}
	return nil
}

// room refuses what the disk has no room for, before it is full: the database is on it. The
// bundle is there twice until it is imported.
func (o *Offer) room(lacking registry.Artifact) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(o.dir, &fs); err != nil {
		return &lane.Error{Code: lane.Unavailable, Message: "ask for the room on the disk of " + o.dir, Err: err}
	}
	need := -o.layout.Have(lacking)
	for _, b := range lacking.Blobs() {
		need += 2 * b.Bytes
	}
	if free := int64(fs.Bavail) * int64(fs.Bsize); need > free {
		return lane.Errorf(lane.Unavailable, "it needs %d bytes on the disk of %s, and %d are free", need, o.source.cfg.Dir, free)
	}
	return nil
}

// arrive fetches a part of the artifact, and unpacks it into a directory of its own.
func (o *Offer) arrive(ctx context.Context, name string, part registry.Artifact) (string, error) {
	dir := filepath.Join(o.dir, name)
	err := o.watched(ctx, func(ctx context.Context) error { return o.repo.Fetch(ctx, part, o.layout) })
	if err == nil {
		err = os.RemoveAll(dir) // of an attempt before
	}
	if err == nil {
		err = o.layout.Unpack(part, dir, bundle.CanonicalName)
	}
	return dir, err
}

// watched ends what is done with the registry when nothing comes for too long.
func (o *Offer) watched(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	limit := o.source.cfg.Patience
	t := time.AfterFunc(limit, func() { cancel(errSilent) })
	defer t.Stop()
	o.alive = func() { t.Reset(limit) }
	defer func() { o.alive = func() {} }()
	err := do(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errSilent) {
		return &lane.Error{Code: lane.Unavailable, Message: fmt.Sprintf("nothing came for %s: what has arrived is kept", limit), Err: err}
	}
	return err
}
