// Package bundle builds, verifies and keeps boot bundles: the immutable,
// versioned sets of files that hosts install from.
//
// A bundle starts as a directory with a bundle.yaml that people write. [Build] makes
// its canonical manifest, manifest.json, which holds the size and SHA-256 of every file
// and is what gets signed; its own SHA-256 is the bundle's digest. Importing verifies
// everything and copies it into a store where files are named by their digest and never
// change again.
package bundle

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"bootlane/internal/lane"
	"bootlane/internal/strictyaml"
)

// Files of a bundle's directory that describe the others.
const (
	ManifestName  = "bundle.yaml"   // for people
	CanonicalName = "manifest.json" // for machines: what is signed
	SignatureExt  = ".minisig"      // of signatures of CanonicalName
)

// Manifest is bundle.yaml.
type Manifest struct {
	Name    string `yaml:"name"`
	Version string `yaml:"version"`
	OS      string `yaml:"os"`
	Release string `yaml:"release,omitempty"`
	Arch    string `yaml:"arch,omitempty"`
	Seed    string `yaml:"seed"`
	// One architecture's files and arguments stand at the top, those of several below
	// Architectures.
	lane.BundleVariant `yaml:",inline"`
	Architectures      map[lane.Arch]lane.BundleVariant `yaml:"architectures,omitempty"`
	Packages           []lane.PackageSnapshot           `yaml:"packages,omitempty"`
	Loaders            map[string]Loader                `yaml:"loaders,omitempty"` // by platform
	MinimumSBAT        map[string]int                   `yaml:"minimumSBAT,omitempty"`
	FirstBoot          []string                         `yaml:"firstBoot,omitempty"` // scripts
	Config             string                           `yaml:"config,omitempty"`    // a template of the configuration that the system reads itself
	Sections           map[string]string                `yaml:"sections,omitempty"`  // templates, by their place in the seed's documents
	Expires            string                           `yaml:"expires,omitempty"`   // YYYY-MM-DD, or RFC 3339
	Sources            []lane.Source                    `yaml:"sources,omitempty"`
	// Files names further files, and may hold the sha256:… that any file must have.
	Files map[string]string `yaml:"files,omitempty"`
}

// Loader is a platform's chain of boot loaders. A plain file name is a chain of one.
type Loader lane.Loader

// UnmarshalYAML reads a file name, or first, second, extra, config, http and imageTrust.
func (l *Loader) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		l.First = n.Value
		return nil
	}
	var bad yaml.TypeError
	for i := 0; n.Kind == yaml.MappingNode && i < len(n.Content); i += 2 {
		if k := n.Content[i]; !slices.Contains([]string{"first", "second", "extra", "config", "http", "imageTrust"}, k.Value) {
			bad.Errors = append(bad.Errors, fmt.Sprintf("line %d: field %s not found in type Loader", k.Line, k.Value))
		}
	}
	err := n.Decode((*lane.Loader)(l))
	if types := (*yaml.TypeError)(nil); errors.As(err, &types) {
		bad.Errors, err = append(bad.Errors, types.Errors...), nil
	}
	if len(bad.Errors) > 0 {
		return &bad
	}
	return err
}

// MarshalYAML writes the short form where it says everything.
func (l Loader) MarshalYAML() (any, error) {
	if l.Second == "" && len(l.Extra)+len(l.Config) == 0 && !l.HTTP && !l.ImageTrust {
		return l.First, nil
	}
	return lane.Loader(l), nil
}

// ReadManifest reads and checks DIR/bundle.yaml, but not whether it has digests. The error
// lists every problem by line.
func ReadManifest(dir string) (lane.Bundle, error) {
	path := filepath.Join(dir, ManifestName)
	data, err := os.ReadFile(path)
	if err != nil {
		return lane.Bundle{}, &lane.Error{Code: lane.Invalid, Message: "read the bundle's manifest: a bundle is a directory with a " + ManifestName, Err: err}
	}
	return parseManifest(path, data)
}

// parseManifest reads bundle.yaml, called path in messages.
func parseManifest(path string, data []byte) (lane.Bundle, error) {
	var m Manifest
	doc, problems := strictyaml.Decode(path, data, &m)
	var raw struct{ Architectures yaml.Node }
	if err := yaml.Unmarshal(data, &raw); err == nil && raw.Architectures.Tag == "!!null" {
		m.Architectures = map[lane.Arch]lane.BundleVariant{} // a key with nothing behind it says more than none
	}
	b, bad := m.bundle()
	var found []strictyaml.Problem
	for _, p := range slices.Concat(bad, check(b)) {
		found = append(found, doc.Problem(p.Field, p.Message))
	}
	if problems = doc.Join(problems, found...); len(problems) > 0 {
		e := lane.Errorf(lane.Invalid, "the bundle's manifest has %d problems", len(problems))
		for _, p := range problems {
			e.Problems = append(e.Problems, p.String())
		}
		return b, e
	}
	return b, nil
}

// bundle turns the manifest into the domain's bundle, as far as it can be read. Every file
// that something names is among its files, without a digest where bundle.yaml has none.
func (m Manifest) bundle() (b lane.Bundle, bad []lane.Problem) {
	b = lane.Bundle{Name: m.Name, Version: m.Version, OS: m.OS, Release: m.Release, Seed: m.Seed, BundleVariant: m.BundleVariant, Architectures: m.Architectures, Packages: m.Packages,
		MinimumSBAT: m.MinimumSBAT, FirstBoot: m.FirstBoot, Config: m.Config, Sections: m.Sections, Sources: m.Sources, Files: map[string]lane.BundleFile{}}
	var err error
	if b.Arch, err = lane.ParseArch(m.Arch); err != nil {
		b.Arch = lane.Arch(m.Arch)
	}
	if m.Expires != "" {
		if b.Expires, err = time.Parse(time.DateOnly, m.Expires); err != nil {
			b.Expires, err = time.Parse(time.RFC3339, m.Expires)
		}
		b.Expires = b.Expires.UTC()
		if err != nil {
			bad = append(bad, lane.Problem{Field: "expires", Message: fmt.Sprintf("%q is not a date such as 2027-05-31", m.Expires)})
		}
	}
	names := slices.Concat([]string{m.Config}, m.FirstBoot, slices.Collect(maps.Values(m.Sections)))
	for _, v := range append(slices.Collect(maps.Values(m.Architectures)), m.BundleVariant) {
		names = append(names, v.Kernel, v.Initrd, v.Tree)
		if v.Image != nil {
			names = append(names, v.Image.File)
		}
	}
	for p, l := range m.Loaders {
		if b.Loaders == nil {
			b.Loaders = map[string]lane.Loader{}
		}
		b.Loaders[p] = lane.Loader(l)
		names = append(names, lane.Loader(l).Files()...)
	}
	names = append(names, b.ImageSignatures()...)
	for _, n := range slices.DeleteFunc(names, func(n string) bool { return n == "" }) {
		b.Files[n] = lane.BundleFile{}
	}
	for f, d := range m.Files {
		b.Files[f] = lane.BundleFile{Digest: lane.Digest(d)}
	}
	return b, bad
}

// WriteManifest writes DIR/bundle.yaml.
func WriteManifest(dir string, m Manifest) error {
	out, err := yaml.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode the manifest: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, ManifestName), out, 0o644)
}

// check returns what is wrong with a bundle. Digests of files may be missing: see [undigested].
func check(b lane.Bundle) []lane.Problem {
	var out []lane.Problem
	bad := func(field, format string, args ...any) {
		out = append(out, lane.Problem{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	for _, f := range []struct{ name, v string }{{"name", b.Name}, {"version", b.Version}} {
		if f.v == "" || strings.Trim(f.v, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" || f.v[0] == '-' || f.v[0] == '.' || len(f.v) > 60 {
			bad(f.name, "%q must be lower-case letters, digits, dots and inner hyphens, at most 60", f.v)
		}
	}
	if b.OS == "" {
		bad("os", "is missing: for example debian")
	}
	if !slices.Contains(lane.Seeds(), b.Seed) {
		bad("seed", "%q is not a seed template of this version: use one of %s", b.Seed, strings.Join(lane.Seeds(), ", "))
	}
	out = append(out, unprintable("", [][2]string{{"os", b.OS}, {"release", b.Release}})...)
	switch b.Seed {
	case lane.SeedKickstart:
		_, bad := b.Anaconda()
		out = append(out, bad...)
	case lane.SeedAutoYaST, lane.SeedAgama:
		_, bad := b.SUSE()
		out = append(out, bad...)
	case lane.SeedIgnition:
		out = append(out, b.Flatcar()...)
	case lane.SeedTalos:
		out = append(out, b.Talos()...)
		if len(b.FirstBoot) > 0 {
			bad("firstBoot", "Talos runs no scripts: remove it, and say what is wanted in the machine configuration, `config`")
		}
	}
	return slices.Concat(out, checkArchitectures(b), checkFiles(b), checkScripts(b), checkConfig(b), checkLoaders(b), checkImages(b), checkOrigin(b))
}

func unprintable(at string, texts [][2]string) (out []lane.Problem) {
	for _, t := range texts {
		if t[1] != lane.Clean(t[1], 300) {
			out = append(out, lane.Problem{Field: at + t[0], Message: "has characters that cannot be printed, or more than 300"})
		}
	}
	return out
}

func checkFiles(b lane.Bundle) (out []lane.Problem) {
	for _, f := range slices.Sorted(maps.Keys(b.Files)) {
		if !lane.FileName(f) || reserved(f) {
			out = append(out, lane.Problem{Field: "files", Message: fmt.Sprintf("%q is not a plain file name: letters, digits and ._-+, no directory, and none that Bootlane uses itself", f)})
		}
		if d := b.Files[f].Digest; d != "" {
			if _, err := lane.ParseDigest(string(d)); err != nil {
				out = append(out, lane.Problem{Field: "files", Message: fmt.Sprintf("%s: %v; leave it empty, and `bootlane bundle build DIR` finds it", f, err)})
			}
		}
		if b.Files[f].SizeBytes < 0 {
			out = append(out, lane.Problem{Field: "files", Message: f + ": a size below 0"})
		}
	}
	return out
}

// reserved reports whether a name in a bundle's directory is one of those that describe the files.
func reserved(name string) bool {
	return name == ManifestName || name == CanonicalName || strings.HasPrefix(name, CanonicalName+".") && strings.HasSuffix(name, SignatureExt)
}

// maxScript bounds a first-boot script: it travels within another one.
const maxScript = 64 << 10

func checkScripts(b lane.Bundle) (out []lane.Problem) {
	for i, f := range b.FirstBoot {
		field := fmt.Sprintf("firstBoot[%d]", i)
		if file, ok := b.Files[f]; !ok || file.SizeBytes > maxScript {
			out = append(out, lane.Problem{Field: field, Message: fmt.Sprintf("%q is not one of the bundle's files, or larger than %d bytes", f, maxScript)})
		}
		if slices.Contains(b.FirstBoot[:i], f) {
			out = append(out, lane.Problem{Field: field, Message: fmt.Sprintf("%q stands there already", f)})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.Sections)) {
		if file, ok := b.Files[b.Sections[name]]; !ok || file.SizeBytes > maxScript {
			out = append(out, lane.Problem{Field: "sections." + name, Message: fmt.Sprintf("%q is not one of the bundle's files, or larger than %d bytes", b.Sections[name], maxScript)})
		}
	}
	return out
}

// checkConfig looks at the configuration that the bundle gives to the system.
func checkConfig(b lane.Bundle) (out []lane.Problem) {
	bad := func(format string, args ...any) {
		out = append(out, lane.Problem{Field: "config", Message: fmt.Sprintf(format, args...)})
	}
	talos, ext := b.Seed == lane.SeedTalos, []string{".bu", ".ign"}
	if talos {
		ext = []string{".yaml", ".yml"}
	}
	switch {
	case b.Config == "" && talos:
		bad("is missing: the machine configuration that Talos installs itself by, as `talosctl gen config` writes one: `config: worker.yaml`")
		return out
	case b.Config == "":
		return nil
	case !talos && !slices.ContainsFunc(b.Views(), lane.Bundle.Ignites):
		bad("nobody reads it: it is for %s and %s, and for an image with `config: ignition`; use `sections` or `firstBoot`", lane.SeedIgnition, lane.SeedTalos)
	case !slices.ContainsFunc(ext, func(e string) bool { return strings.HasSuffix(b.Config, e) }):
		bad("%q is called neither FILE%s nor FILE%s, as %s reads them", b.Config, ext[0], ext[1], b.Seed)
	}
	if file, ok := b.Files[b.Config]; !ok || file.SizeBytes > maxScript {
		bad("%q is not one of the bundle's files, or larger than %d bytes", b.Config, maxScript)
	}
	return out
}

func checkLoaders(b lane.Bundle) (out []lane.Problem) {
	for _, p := range slices.Sorted(maps.Keys(b.Loaders)) {
		bad := func(format string, args ...any) {
			out = append(out, lane.Problem{Field: "loaders." + p, Message: fmt.Sprintf(format, args...)})
		}
		if _, ok := lane.ParsePlatform(p); !ok || p == "any" {
			bad("is not a platform: x86_64-bios, x86_64-uefi, arm64-uefi or i386-uefi")
		}
		l := b.Loaders[p]
		for _, f := range l.Files() {
			if _, ok := b.Files[f]; !ok {
				bad("%q is not one of the bundle's files", f)
			}
		}
		for _, f := range b.ImageSignatures() {
			if _, ok := b.Files[f]; l.ImageTrust && !ok {
				bad("imageTrust: %q is not one of the bundle's files: `bootlane bundle build --certificate FILE --key FILE DIR` makes it", f)
			}
		}
		if l.ImageTrust && l.HTTP {
			bad("imageTrust is iPXE's, http is GRUB's: a chain ends in one of them")
		}
		for _, n := range l.Config {
			if !lane.FileName(n) {
				bad("config: %q is not a plain file name", n)
			}
		}
	}
	for _, c := range slices.Sorted(maps.Keys(b.MinimumSBAT)) {
		if b.MinimumSBAT[c] < 1 || c == "" || c != lane.Clean(c, 60) || strings.Contains(c, ",") {
			out = append(out, lane.Problem{Field: "minimumSBAT." + c, Message: "is a component and its generation, 1 or more: grub: 4"})
		}
	}
	return out
}

// checkOrigin looks at what says where files and packages come from.
func checkOrigin(b lane.Bundle) (out []lane.Problem) {
	url := func(field, v string) {
		scheme, rest, ok := strings.Cut(v, "://")
		if !ok || !slices.Contains([]string{"http", "https", "file"}, scheme) || rest == "" || v != lane.Clean(v, 500) || strings.ContainsAny(v, " \t") {
			out = append(out, lane.Problem{Field: field, Message: fmt.Sprintf("%q is not an http, https or file URL", v)})
		}
	}
	for i, p := range b.Packages {
		field := fmt.Sprintf("packages[%d]", i)
		url(field+".url", p.URL)
		if _, err := time.Parse(time.DateOnly, p.Date); err != nil {
			out = append(out, lane.Problem{Field: field + ".date", Message: fmt.Sprintf("%q is not a date such as 2026-11-01", p.Date)})
		}
		if _, err := lane.ParseDigest(string(p.Digest)); err != nil {
			out = append(out, lane.Problem{Field: field + ".digest", Message: fmt.Sprintf("%v; it is that of the snapshot's Release or repomd.xml", err)})
		}
	}
	for i, s := range b.Sources {
		field := fmt.Sprintf("sources[%d]", i)
		url(field+".url", s.URL)
		if s.Licence == "" || s.Licence != lane.Clean(s.Licence, 200) {
			out = append(out, lane.Problem{Field: field + ".licence", Message: "is missing: an SPDX expression such as GPL-2.0-only"})
		}
		for _, f := range s.Files {
			if _, ok := b.Files[f]; !ok {
				out = append(out, lane.Problem{Field: field + ".files", Message: fmt.Sprintf("%q is not one of the bundle's files", f)})
			}
		}
	}
	return out
}
