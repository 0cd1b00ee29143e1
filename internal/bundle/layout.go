package bundle

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"bootlane/internal/lane"
)

// The store is an OCI image layout (github.com/opencontainers/image-spec, image-layout.md),
// so that any tool of that world can read, copy and push it. A bundle is an artifact in it:
// its config is the canonical manifest, its layers are the files, then the signatures.
const (
	mediaIndex     = "application/vnd.oci.image.index.v1+json"
	mediaManifest  = "application/vnd.oci.image.manifest.v1+json"
	mediaBundle    = "application/vnd.bootlane.bundle.v1"               // artifactType
	mediaConfig    = "application/vnd.bootlane.bundle.manifest.v1+json" // the canonical manifest
	mediaFile      = "application/vnd.bootlane.bundle.file.v1"
	mediaSignature = "application/vnd.bootlane.bundle.signature.v1+minisign"

	titleKey = "org.opencontainers.image.title"
	refKey   = "org.opencontainers.image.ref.name"

	layoutVersion = `{"imageLayoutVersion":"1.0.0"}`
)

// descriptor points at a blob.
type descriptor struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Digest       lane.Digest       `json:"digest"`
	Size         int64             `json:"size"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// artifact is an OCI image manifest.
type artifact struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	ArtifactType  string       `json:"artifactType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

// index is an OCI image index: what the store holds.
type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

// pack describes a bundle as an artifact: the same bundle gives the same bytes.
func pack(f Folder) ([]byte, descriptor, error) {
	a := artifact{SchemaVersion: 2, MediaType: mediaManifest, ArtifactType: mediaBundle, Layers: []descriptor{},
		Config: descriptor{MediaType: mediaConfig, Digest: f.Bundle.Digest, Size: int64(len(f.Manifest))}}
	for _, name := range slices.Sorted(maps.Keys(f.Bundle.Files)) {
		file := f.Bundle.Files[name]
		a.Layers = append(a.Layers, descriptor{MediaType: mediaFile, Digest: file.Digest, Size: file.SizeBytes, Annotations: map[string]string{titleKey: name}})
	}
	for _, name := range slices.Sorted(maps.Keys(f.Signatures)) {
		sig := f.Signatures[name]
		a.Layers = append(a.Layers, descriptor{MediaType: mediaSignature, Digest: digestOf(sig), Size: int64(len(sig)), Annotations: map[string]string{titleKey: name}})
	}
	text, err := json.Marshal(a)
	if err != nil {
		return nil, descriptor{}, fmt.Errorf("encode the artifact: %w", err)
	}
	return text, descriptor{MediaType: mediaManifest, ArtifactType: mediaBundle, Digest: digestOf(text), Size: int64(len(text)),
		Annotations: map[string]string{refKey: f.Bundle.Ref()}}, nil
}

// unpack reads what pack wrote: where the canonical manifest and the signatures are. It
// reports other artifacts as an error.
func unpack(text []byte) (a artifact, signatures []descriptor, err error) {
	if err := json.Unmarshal(text, &a); err != nil {
		return a, nil, fmt.Errorf("decode the artifact: %w", err)
	}
	if a.ArtifactType != mediaBundle || a.Config.MediaType != mediaConfig {
		return a, nil, fmt.Errorf("it is a %q with a %q, no bundle", a.ArtifactType, a.Config.MediaType)
	}
	for _, d := range append([]descriptor{a.Config}, a.Layers...) {
		if _, err := lane.ParseDigest(string(d.Digest)); err != nil {
			return a, nil, err
		}
		if d.MediaType == mediaSignature {
			signatures = append(signatures, d)
		}
	}
	return a, signatures, nil
}
