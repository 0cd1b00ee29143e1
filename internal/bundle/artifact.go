package bundle

import (
	"bytes"
	"io"
	"maps"
	"os"
	"path/filepath"

	"bootlane/internal/lane"
)

// ArtifactType is the type of a bundle as an OCI artifact.
const ArtifactType = mediaBundle

// Artifact returns the bundle as an OCI artifact: its image manifest, and what opens the blobs
// that it names. The bytes of a file are those in the directory: [Folder.Verify] compares them.
func (f Folder) Artifact() (manifest []byte, open func(lane.Digest) (io.ReadCloser, error), err error) {
	manifest, _, err = pack(f)
	if err != nil {
		return nil, nil, err
	}
	small, files := map[lane.Digest][]byte{f.Bundle.Digest: f.Manifest}, map[lane.Digest]string{}
	for sig := range maps.Values(f.Signatures) {
		small[digestOf(sig)] = sig
	}
	for name, file := range f.Bundle.Files {
		files[file.Digest] = name
	}
	return manifest, func(d lane.Digest) (io.ReadCloser, error) {
		if text, ok := small[d]; ok {
			return io.NopCloser(bytes.NewReader(text)), nil
		}
		name, ok := files[d]
		if !ok {
			return nil, lane.Errorf(lane.NotFound, "the bundle has no file %s", d)
		}
		return os.Open(filepath.Join(f.Dir, name))
	}, nil
}
