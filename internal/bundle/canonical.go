package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"bootlane/internal/lane"
)

// maxManifest bounds what is read as a manifest: some ten thousand files fit.
const maxManifest = 4 << 20

// canonical returns the machine form of a bundle, and its digest: JSON by RFC 8785, that
// is with sorted keys and without blanks. The same bundle gives the same bytes.
func canonical(b lane.Bundle) ([]byte, lane.Digest, error) {
	b.Digest = ""
	// Sources and packages keep their order: it is the author's. By way of plain maps,
	// whose keys the encoder sorts: the order of Go's fields is nobody's business.
	data, err := json.Marshal(b)
	if err != nil {
		return nil, "", fmt.Errorf("encode the canonical manifest: %w", err)
	}
	var plain map[string]any
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&plain); err != nil {
		return nil, "", fmt.Errorf("encode the canonical manifest: %w", err)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(plain); err != nil {
		return nil, "", fmt.Errorf("encode the canonical manifest: %w", err)
	}
	text := bytes.TrimSuffix(out.Bytes(), []byte("\n"))
	return text, digestOf(text), nil
}

// ParseCanonical reads a manifest.json. Anything but the canonical form of a sound bundle
// is an Invalid error with every problem: a key that comes twice, one that this version
// does not know, blanks, a file without digest.
func ParseCanonical(data []byte) (lane.Bundle, error) {
	var b lane.Bundle
	if len(data) > maxManifest {
		return b, lane.Errorf(lane.Invalid, "%s has %d bytes, %d are the most", CanonicalName, len(data), maxManifest)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		return b, &lane.Error{Code: lane.Invalid, Message: CanonicalName + " cannot be read by this version of Bootlane: a newer one made it, or it is damaged; `bootlane bundle build DIR` writes it", Err: err}
	}
	if problems := slices.Concat(check(b), undigested(b)); len(problems) > 0 {
		e := lane.Errorf(lane.Invalid, "%s has %d problems: correct %s, then `bootlane bundle build DIR`", CanonicalName, len(problems), ManifestName)
		for _, p := range problems {
			e.Problems = append(e.Problems, p.Field+": "+p.Message)
		}
		return b, e
	}
	text, d, err := canonical(b)
	if err != nil {
		return b, err
	}
	if !bytes.Equal(text, data) {
		return b, lane.Errorf(lane.Invalid, "%s is not in its canonical form: a key comes twice, or somebody edited it; edit %s, then `bootlane bundle build DIR`", CanonicalName, ManifestName)
	}
	b.Digest = d
	return b, nil
}

// undigested returns the files of which the manifest does not say what they hold.
func undigested(b lane.Bundle) (out []lane.Problem) {
	for _, f := range slices.Sorted(maps.Keys(b.Files)) {
		if b.Files[f].Digest == "" {
			out = append(out, lane.Problem{Field: "files", Message: f + " has no digest: `bootlane bundle build DIR` finds it"})
		}
	}
	return out
}

func digestOf(data []byte) lane.Digest {
	h := sha256.Sum256(data)
	return sum(h[:])
}

func sum(b []byte) lane.Digest { return lane.Digest("sha256:" + hex.EncodeToString(b)) }
