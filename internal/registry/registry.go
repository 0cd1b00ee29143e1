// Package registry moves artifacts between an OCI image layout here and an OCI registry
// (OCI distribution specification 1.1): push, pull, and what is needed for both to be
// believed. A registry is never trusted: every byte that comes is compared with the digest
// that was asked for, and what is not whole does not exist here.
//
// It knows nothing of bundles. Signatures travel as layers of the artifact that they sign for.
package registry

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/errcode"
	"oras.land/oras-go/v2/registry/remote/retry"

	"bootlane/internal/lane"
)

// Progress is told how many bytes of a file are done, and of how many.
type Progress func(name string, done, total int64)

// Options say how a registry is reached. The zero value is TLS with the system's certificates,
// and the credentials of docker's configuration ($DOCKER_CONFIG, ~/.docker/config.json).
type Options struct {
	CA        []byte // PEM: certificates that are trusted as well
	PlainHTTP bool   // no TLS: for a registry on a cable of one's own
	Tell      Progress
}

// Repository is one repository of a registry, and what of it a reference names.
type Repository struct {
	repo *remote.Repository
	ref  string // tag or digest
	tell Progress
	wire *http.Transport
}

// Close lets go of the connections to the registry.
func (r *Repository) Close() { r.wire.CloseIdleConnections() }

// Pinned is the reference by which an artifact of the repository is always the same.
func (r *Repository) Pinned(d lane.Digest) string {
	ref := r.repo.Reference
	ref.Reference = string(d)
	return ref.String()
}

// Limits of what a registry may send as an artifact's manifest.
const (
	maxManifest = 4 << 20
	maxLayers   = 4096
)

// Open reads a reference, HOST[:PORT]/REPOSITORY:TAG or @sha256:HEX. Nothing is asked yet.
func Open(reference string, o Options) (*Repository, error) {
	ref, err := registry.ParseReference(reference)
	if err != nil || ref.Reference == "" {
		return nil, lane.Errorf(lane.Invalid, "%q is no reference to an artifact: HOST/REPOSITORY:TAG or HOST/REPOSITORY@sha256:HEX", lane.Clean(reference, 200))
	}
	repo, err := remote.NewRepository(reference)
	if err != nil {
		return nil, lane.Errorf(lane.Invalid, "%s: %v", reference, err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's certificates: %w", err)
	}
	if len(o.CA) > 0 && !roots.AppendCertsFromPEM(o.CA) {
		return nil, lane.Errorf(lane.Invalid, "the registry's CA is no certificate in PEM")
	}
	store, err := credentials.NewStoreFromDocker(credentials.StoreOptions{})
	if err != nil {
		return nil, lane.Errorf(lane.Invalid, "docker's configuration, which has the credentials, cannot be read: %v; DOCKER_CONFIG names the directory of its config.json", err)
	}
	base := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	repo.Client = &auth.Client{Client: &http.Client{Transport: retry.NewTransport(base)}, Cache: auth.NewCache(), Credential: credentials.Credential(store)}
	repo.PlainHTTP = o.PlainHTTP
	if o.Tell == nil {
		o.Tell = func(string, int64, int64) {}
	}
	return &Repository{repo, ref.Reference, o.Tell, base}, nil
}

// Artifact is what a reference led to.
type Artifact struct {
	Manifest lane.Digest // pins the artifact, whatever the tag becomes
	Config   ocispec.Descriptor
	Layers   []ocispec.Descriptor

	root ocispec.Descriptor
	text []byte
}

// Blob is one layer of an artifact, as its manifest describes it.
type Blob struct {
	Title  string
	Digest lane.Digest
	Bytes  int64
}

// Blobs are the artifact's layers.
func (a Artifact) Blobs() (out []Blob) {
	for _, d := range a.Layers {
		out = append(out, blobOf(d))
	}
	return out
}

// Only is the artifact with fewer layers, to fetch and to unpack no more of it.
func (a Artifact) Only(want func(Blob) bool) Artifact {
	a.Layers = slices.DeleteFunc(slices.Clone(a.Layers), func(d ocispec.Descriptor) bool { return !want(blobOf(d)) })
	return a
}

func blobOf(d ocispec.Descriptor) Blob {
	return Blob{d.Annotations[ocispec.AnnotationTitle], lane.Digest(d.Digest), d.Size}
}

// Opener opens a blob of an artifact that is here.
type Opener func(d lane.Digest) (io.ReadCloser, error)

// Push copies an artifact, gives it the reference's tag, and returns its digest. Blobs that
// the registry has are skipped. Under a reference by digest only that very artifact is pushed.
func (r *Repository) Push(ctx context.Context, manifest []byte, open Opener) (lane.Digest, error) {
	a, err := parse(manifest, "")
	if err != nil {
		return "", err
	}
	if want, err := lane.ParseDigest(r.ref); err == nil && want != a.Manifest {
		return "", lane.Errorf(lane.Invalid, "the reference is of %s, the artifact is %s: push it under a tag", want, a.Manifest)
	}
	for _, d := range append([]ocispec.Descriptor{a.Config}, a.Layers...) {
		if err := r.pushBlob(ctx, open, d); err != nil {
			return "", explain(fmt.Errorf("push %s: %w", title(d), err))
		}
	}
	if err := r.repo.PushReference(ctx, a.root, bytes.NewReader(manifest), r.ref); err != nil {
		return "", explain(fmt.Errorf("push the manifest: %w", err))
	}
	return a.Manifest, nil
}

// pushBlob pushes one, unless it is there. The registry compares its digest, and oras its length.
func (r *Repository) pushBlob(ctx context.Context, open Opener, d ocispec.Descriptor) error {
	if ok, err := r.repo.Blobs().Exists(ctx, d); err != nil || ok {
		if ok {
			r.tell(title(d), d.Size, d.Size)
		}
		return err
	}
	f, err := open(lane.Digest(d.Digest))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read from
	return r.repo.Blobs().Push(ctx, d, &told{f, title(d), 0, d.Size, r.tell})
}

// Pull copies an artifact of a type into a layout, and returns what it is. What an earlier
// attempt brought is not fetched again: whole blobs, and the beginning of one that broke
// off. The manifest is written last; until then the layout does not have the artifact.
// Bytes that are not what was asked for are refused with [lane.Refused], and not kept.
func (r *Repository) Pull(ctx context.Context, artifactType string, into *Layout) (Artifact, error) {
	a, err := r.Find(ctx, artifactType)
	if err == nil {
		err = r.Fetch(ctx, a, into)
	}
	if err != nil {
		return a, err
	}
	return a, into.put(a.root, func(int64) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(a.text)), nil })
}

// Find asks what the reference names, an artifact of a type: its manifest, and nothing else.
func (r *Repository) Find(ctx context.Context, artifactType string) (Artifact, error) {
	root, err := r.repo.Resolve(ctx, r.ref)
	if err != nil {
		return Artifact{}, explain(fmt.Errorf("find %s: %w", r.ref, err))
	}
	if root.Size > maxManifest {
		return Artifact{}, lane.Errorf(lane.Refused, "the manifest has %d bytes: that is no artifact of ours", root.Size)
	}
	rc, err := r.repo.Manifests().Fetch(ctx, root)
	if err != nil {
		return Artifact{}, explain(fmt.Errorf("fetch the manifest: %w", err))
	}
	text, err := content.ReadAll(rc, root)
	if err = errors.Join(err, rc.Close()); err != nil {
		return Artifact{}, explain(fmt.Errorf("fetch the manifest: %w", err))
	}
	a, err := parse(text, artifactType)
	if err != nil {
		return Artifact{}, err
	}
	if want, err := lane.ParseDigest(r.ref); err == nil && want != a.Manifest {
		return a, lane.Errorf(lane.Refused, "the registry answers %s with %s", want, a.Manifest)
	}
	return a, nil
}

// Fetch copies the config and the layers of an artifact into a layout, as [Repository.Pull] does.
func (r *Repository) Fetch(ctx context.Context, a Artifact, into *Layout) error {
	for _, d := range append([]ocispec.Descriptor{a.Config}, a.Layers...) {
		if err := r.pullBlob(ctx, d, into); err != nil {
			return explain(fmt.Errorf("pull %s: %w", title(d), err))
		}
	}
	return nil
}

// attempts is how often a blob that breaks off is continued at once.
const attempts = 5

func (r *Repository) pullBlob(ctx context.Context, d ocispec.Descriptor, into *Layout) error {
	if into.has(d) {
		r.tell(title(d), d.Size, d.Size)
		return nil
	}
	fetch := func(offset int64) (io.ReadCloser, error) {
		rc, err := r.repo.Blobs().Fetch(ctx, d)
		if err != nil {
			return nil, err
		}
		if s, ok := rc.(io.Seeker); ok && offset > 0 { // the registry knows ranges
			_, err = s.Seek(offset, io.SeekStart)
		} else {
			_, err = io.CopyN(io.Discard, rc, offset)
		}
		if err != nil {
			return nil, errors.Join(err, rc.Close())
		}
		return struct {
			io.Reader
			io.Closer
		}{&told{rc, title(d), offset, d.Size, r.tell}, rc}, nil
	}
	err := into.put(d, fetch)
	for n := 1; n < attempts && errors.Is(err, io.ErrUnexpectedEOF) && ctx.Err() == nil; n++ {
		err = into.put(d, fetch)
	}
	return err
}

// parse reads an image manifest (OCI image specification 1.1, manifest.md) of a type, and
// refuses what is none.
func parse(text []byte, artifactType string) (Artifact, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(text, &m); err != nil || m.SchemaVersion != 2 || m.MediaType != ocispec.MediaTypeImageManifest {
		return Artifact{}, lane.Errorf(lane.Refused, "what the reference names is no OCI image manifest, but %q", lane.Clean(m.MediaType, 80))
	}
	if artifactType != "" && m.ArtifactType != artifactType {
		return Artifact{}, lane.Errorf(lane.Refused, "what the reference names has the type %q, not %q", lane.Clean(m.ArtifactType, 80), artifactType)
	}
	if len(m.Layers) > maxLayers {
		return Artifact{}, lane.Errorf(lane.Refused, "the artifact has %d layers: that is none of ours", len(m.Layers))
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if _, err := lane.ParseDigest(string(d.Digest)); err != nil || d.Size < 0 {
			return Artifact{}, lane.Errorf(lane.Refused, "the artifact has a blob %q of %d bytes: only sha256 is used here", lane.Clean(string(d.Digest), 80), d.Size)
		}
	}
	root := ocispec.Descriptor{MediaType: m.MediaType, ArtifactType: m.ArtifactType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	return Artifact{lane.Digest(root.Digest), m.Config, m.Layers, root, text}, nil
}

// title is what a blob is called.
func title(d ocispec.Descriptor) string {
	if t := d.Annotations[ocispec.AnnotationTitle]; t != "" {
		return lane.Clean(t, 120)
	}
	return string(d.Digest)
}

// explain gives an error the code that says what to do.
func explain(err error) error {
	var answer *errcode.ErrorResponse
	code, hint := lane.Unavailable, "ask again later: what has arrived is kept"
	switch {
	case lane.CodeOf(err) != "" || errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, http.ErrSchemeMismatch):
		code, hint = lane.Unavailable, "the registry speaks no TLS: --plain-http, or in the configuration registryPlainHTTP, if that is meant"
	case errors.Is(err, errdef.ErrNotFound):
		code, hint = lane.NotFound, "the registry does not have it"
	case errors.Is(err, content.ErrMismatchedDigest), errors.Is(err, content.ErrTrailingData), errors.Is(err, content.ErrInvalidDescriptorSize), errors.Is(err, errdef.ErrInvalidDigest):
		code, hint = lane.Refused, "the registry sent other bytes than its manifest names"
	case errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden), errors.Is(err, auth.ErrBasicCredentialNotFound):
		code, hint = lane.Refused, "the registry wants other credentials: docker login, or DOCKER_CONFIG"
	}
	return &lane.Error{Code: code, Message: hint, Err: err}
}

// told reads, and tells how far it is.
type told struct {
	io.Reader
	name        string
	done, total int64
	tell        Progress
}

// Read is [io.Reader].
func (t *told) Read(b []byte) (int, error) {
	n, err := t.Reader.Read(b)
	if t.done += int64(n); n > 0 {
		t.tell(t.name, t.done, t.total)
	}
	return n, err
}
