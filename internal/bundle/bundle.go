// Package bundle builds, verifies and keeps boot bundles: the immutable,
// versioned sets of files that hosts install from.
//
// A bundle starts as a directory with a bundle.yaml that names every file and
// its SHA-256. Importing it verifies each file and copies it into a store where
// files are named by their digest and never change again.
package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"bootlane/internal/lane"
	"bootlane/internal/strictyaml"
)

// ManifestName is the file that describes a bundle's directory.
const ManifestName = "bundle.yaml"

// Manifest is bundle.yaml.
type Manifest struct {
	Name     string            `yaml:"name"`
	Version  string            `yaml:"version"`
	OS       string            `yaml:"os"`
	Release  string            `yaml:"release,omitempty"`
	Arch     string            `yaml:"arch"`
	Seed     string            `yaml:"seed"`
	Kernel   string            `yaml:"kernel"`
	Initrd   string            `yaml:"initrd"`
	Args     string            `yaml:"args,omitempty"`
	Mirror   string            `yaml:"mirror,omitempty"`
	Security string            `yaml:"security,omitempty"`
	Image    *ImageManifest    `yaml:"image,omitempty"`
	Loaders  map[string]string `yaml:"loaders,omitempty"` // platform to file
	Files    map[string]string `yaml:"files"`             // file to sha256:…
}

// ImageManifest describes the disk image of an image flow.
type ImageManifest struct {
	File          string `yaml:"file"`
	Compression   string `yaml:"compression"`
	RawDigest     string `yaml:"rawDigest"`
	RawBytes      int64  `yaml:"rawBytes"`
	RootPartLabel string `yaml:"rootPartLabel"`
}

// ReadManifest reads and checks DIR/bundle.yaml. The error lists every problem by line.
func ReadManifest(dir string) (Manifest, error) {
	path := filepath.Join(dir, ManifestName)
	data, err := os.ReadFile(path)
	if err != nil {
		return Manifest{}, &lane.Error{Code: lane.Invalid, Message: "read the bundle's manifest: a bundle is a directory with a " + ManifestName, Err: err}
	}
	var m Manifest
	doc, problems := strictyaml.Decode(path, data, &m)
	var found []strictyaml.Problem
	for _, p := range m.check() {
		found = append(found, doc.Problem(p.Field, p.Message))
	}
	problems = doc.Join(problems, found...)
	if len(problems) > 0 {
		return m, refused(problems)
	}
	return m, nil
}

func refused(problems []strictyaml.Problem) error {
	e := lane.Errorf(lane.Invalid, "the bundle's manifest has %d problems", len(problems))
	for _, p := range problems {
		e.Problems = append(e.Problems, p.String())
	}
	return e
}

func (m Manifest) check() []lane.Problem {
	var out []lane.Problem
	bad := func(field, format string, args ...any) {
		out = append(out, lane.Problem{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	for _, f := range []struct{ name, v string }{{"name", m.Name}, {"version", m.Version}} {
		if f.v == "" || strings.Trim(f.v, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" || f.v[0] == '-' || f.v[0] == '.' || len(f.v) > 60 {
			bad(f.name, "%q must be lower-case letters, digits, dots and inner hyphens, at most 60", f.v)
		}
	}
	if m.OS == "" {
		bad("os", "is missing: for example debian")
	}
	if _, err := lane.ParseArch(m.Arch); err != nil {
		bad("arch", "%v", err)
	}
	if !slices.Contains(lane.Seeds(), m.Seed) {
		bad("seed", "%q is not a seed template of this version: use one of %s", m.Seed, strings.Join(lane.Seeds(), ", "))
	}
	if strings.ContainsFunc(m.Args, func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune("\"'${}", r) }) {
		bad("args", "kernel arguments are plain ASCII without quotes, $ and braces: the boot loaders do not quote alike")
	}
	for _, word := range strings.Fields(m.Args) {
		if word == "&&" || word == "||" || word == ";" || word[0] == '#' {
			bad("args", "%q ends a command for iPXE", word)
		}
	}
	out = append(out, m.checkFiles()...)
	return append(out, m.checkImage()...)
}

func (m Manifest) checkFiles() []lane.Problem {
	var out []lane.Problem
	need := func(field, file string) {
		if _, ok := m.Files[file]; !ok {
			out = append(out, lane.Problem{Field: field, Message: fmt.Sprintf("%q is not listed under files", file)})
		}
	}
	need("kernel", m.Kernel)
	need("initrd", m.Initrd)
	for _, p := range slices.Sorted(maps.Keys(m.Loaders)) {
		if _, ok := lane.ParsePlatform(p); !ok || p == "any" {
			out = append(out, lane.Problem{Field: "loaders." + p, Message: "is not a platform: x86_64-bios, x86_64-uefi, arm64-uefi or i386-uefi"})
		}
		need("loaders."+p, m.Loaders[p])
	}
	for _, f := range slices.Sorted(maps.Keys(m.Files)) {
		if !lane.FileName(f) {
			out = append(out, lane.Problem{Field: "files", Message: fmt.Sprintf("%q is not a plain file name", f)})
		}
		if _, err := lane.ParseDigest(m.Files[f]); err != nil {
			out = append(out, lane.Problem{Field: "files", Message: fmt.Sprintf("%s: %v; `bootlane bundle hash DIR` fills it in", f, err)})
		}
	}
	return out
}

func (m Manifest) checkImage() []lane.Problem {
	var out []lane.Problem
	bad := func(field, format string, args ...any) {
		out = append(out, lane.Problem{Field: "image" + field, Message: fmt.Sprintf(format, args...)})
	}
	i := m.Image
	switch {
	case i == nil && m.Seed == lane.SeedImage:
		bad("", "is missing: the seed %s writes a disk image", m.Seed)
		return out
	case i == nil:
		return nil
	}
	if _, ok := m.Files[i.File]; !ok {
		bad(".file", "%q is not listed under files", i.File)
	}
	if i.Compression != "zstd" && i.Compression != "none" {
		bad(".compression", "%q: use zstd or none", i.Compression)
	}
	if _, err := lane.ParseDigest(i.RawDigest); err != nil {
		bad(".rawDigest", "%v; it is the digest of the uncompressed image", err)
	}
	if i.RawBytes < 2<<20 || i.RawBytes%512 != 0 {
		bad(".rawBytes", "%d: the size of the uncompressed image in bytes, at least 2 MiB and whole sectors", i.RawBytes)
	}
	if i.Compression == "none" && i.RawDigest != m.Files[i.File] {
		bad(".rawDigest", "%s is not the digest of %s, which is not compressed", i.RawDigest, i.File)
	}
	if i.RootPartLabel == "" {
		bad(".rootPartLabel", "is missing: the GPT name of the root partition")
	}
	return out
}

// bundle turns a checked manifest into the domain's bundle. Sizes are filled in by the import.
func (m Manifest) bundle() lane.Bundle {
	arch, _ := lane.ParseArch(m.Arch) // check has read it before
	b := lane.Bundle{Name: m.Name, Version: m.Version, OS: m.OS, Release: m.Release, Arch: arch, Seed: m.Seed, Kernel: m.Kernel,
		Initrd: m.Initrd, Args: m.Args, Mirror: m.Mirror, Security: m.Security, Files: map[string]lane.BundleFile{}, Loaders: m.Loaders}
	for f, d := range m.Files {
		b.Files[f] = lane.BundleFile{Digest: lane.Digest(d)}
	}
	if i := m.Image; i != nil {
		b.Image = &lane.BundleImage{File: i.File, Compression: i.Compression, RawDigest: lane.Digest(i.RawDigest), RawBytes: i.RawBytes, RootLabel: i.RootPartLabel}
	}
	return b
}

// Hash computes the digest of every file that the manifest in dir names and
// writes them back into it. Comments in the file are not kept.
func Hash(dir string) (Manifest, error) {
	path := filepath.Join(dir, ManifestName)
	data, err := os.ReadFile(path)
	if err != nil {
		return Manifest{}, &lane.Error{Code: lane.Invalid, Message: "read the bundle's manifest", Err: err}
	}
	var m Manifest
	if _, problems := strictyaml.Decode(path, data, &m); len(problems) > 0 {
		return m, refused(problems)
	}
	if m.Files == nil {
		m.Files = map[string]string{}
	}
	names := append([]string{m.Kernel, m.Initrd}, slices.Collect(maps.Values(m.Loaders))...)
	if m.Image != nil {
		names = append(names, m.Image.File)
	}
	names = append(names, slices.Collect(maps.Keys(m.Files))...)
	for _, f := range names {
		d, _, err := digestFile(filepath.Join(dir, f))
		if err != nil {
			return m, fmt.Errorf("hash %s: %w", f, err)
		}
		m.Files[f] = string(d)
	}
	return m, WriteManifest(dir, m)
}

// WriteManifest writes DIR/bundle.yaml.
func WriteManifest(dir string, m Manifest) error {
	out, err := yaml.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode the manifest: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, ManifestName), out, 0o644)
}

func digestFile(path string) (lane.Digest, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	h := sha256.New()
	n, err := io.Copy(h, f)
	return sum(h.Sum(nil)), n, errors.Join(err, f.Close())
}

func sum(b []byte) lane.Digest { return lane.Digest("sha256:" + hex.EncodeToString(b)) }

// canonical returns the machine form of a bundle, and its digest.
func canonical(b lane.Bundle) ([]byte, lane.Digest, error) {
	b.Digest = ""
	out, err := json.Marshal(b) // map keys are sorted: same bundle, same bytes
	if err != nil {
		return nil, "", fmt.Errorf("encode the canonical manifest: %w", err)
	}
	s := sha256.Sum256(out)
	return out, sum(s[:]), nil
}
