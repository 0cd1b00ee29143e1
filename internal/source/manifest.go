package source

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"bootlane/internal/lane"
)

// manifestName is the file that describes a bundle's directory.
const manifestName = "bundle.yaml"

// manifest writes bundle.yaml. It is read by people first, so it says what is missing.
func (b *builder) manifest() ([]byte, error) {
	m := b.media
	kernel, initrd := cmp.Or(b.Kernel, base(m.Kernel)), cmp.Or(b.Initrd, base(m.Initrd))
	for _, f := range []struct{ what, name string }{{"kernel", kernel}, {"initrd", initrd}} {
		if !slices.ContainsFunc(b.result.Files, func(have File) bool { return have.Name == f.name }) {
			return nil, lane.Errorf(lane.Invalid, "no file is the %s (%q): name one of %s", f.what, lane.Clean(f.name, 80), b.names())
		}
	}
	name := b.Name
	if name == "" {
		name = strings.Trim(strings.Map(nameRune, m.OS+"-"+m.Release), "-.")
	}
	if name == "" {
		return nil, lane.Errorf(lane.Invalid, "the sources do not say what they are: give the bundle a name")
	}
	seed := cmp.Or(b.Seed, m.Seed)
	args, tree := b.Args, ""
	if b.image != "" {
		args = cmp.Or(b.Args, strings.ReplaceAll(m.Args, "%s", b.image))
		if m.Tree || strings.Contains(args, "{tree}") {
			tree = b.image
		}
	}
	b.result.Seed = seed
	var out bytes.Buffer
	fmt.Fprintf(&out, "# Built by `bootlane bundle build` from %s.\n", strings.Join(b.From, " "))
	if m.Title != "" {
		fmt.Fprintf(&out, "# %s\n", lane.Clean(m.Title, 120))
	}
	fmt.Fprintf(&out, "# Checked against %s.\n", b.result.Checked)
	for _, f := range []struct{ key, value string }{{"name", name}, {"version", cmp.Or(b.Version, "1")}, {"os", cmp.Or(m.OS, "linux")}, {"release", m.Release},
		{"arch", string(cmp.Or(m.Arch, b.Arch, lane.X86_64))}, {"seed", seed}, {"kernel", kernel}, {"initrd", initrd}, {"args", args}, {"tree", tree}, {"mirror", b.Mirror}, {"security", b.Security}} {
		if f.value != "" {
			fmt.Fprintf(&out, "%s: %s\n", f.key, quoted(f.value))
		}
	}
	b.missing(seed)
	for _, p := range b.result.Problems {
		fmt.Fprintf(&out, "# Missing: %s.\n", p)
	}
	if m.Shim != "" && m.GRUB != "" {
		fmt.Fprintf(&out, "# For machines that enforce Secure Boot:\n# loaders: {%s-uefi: {first: %s, second: %s}}\n", m.Arch, strings.ToLower(path.Base(m.Shim)), strings.ToLower(base(m.GRUB)))
	}
	out.WriteString("files:\n")
	slices.SortFunc(b.result.Files, func(x, y File) int { return strings.Compare(x.Name, y.Name) })
	for _, f := range b.result.Files {
		fmt.Fprintf(&out, "    %s: %s\n", f.Name, f.Digest)
	}
	return out.Bytes(), nil
}

// missing says what the files alone do not do.
func (b *builder) missing(seed string) {
	if seed == "" {
		b.result.Problems = append(b.result.Problems, fmt.Sprintf("a seed: no template of this version answers this installer; there are %s", strings.Join(lane.Seeds(), ", ")))
	}
	if seed == lane.SeedPreseed && b.Mirror == "" {
		b.result.Problems = append(b.result.Problems, "mirror: the pinned package mirror that the installer takes packages from, http://HOST/DIRECTORY")
	}
	lacks := map[string][2]string{lane.SeedKickstart: {noTree, noDVD}, lane.SeedAutoYaST: {noYaST, noFull}}[seed]
	switch {
	case lacks[0] == "" || b.Mirror != "":
	case b.image == "":
		b.result.Problems = append(b.result.Problems, lacks[0])
	case !b.media.Packages:
		b.result.Problems = append(b.result.Problems, lacks[1])
	}
	if b.media.Args != "" && b.image == "" && b.Args == "" {
		b.result.Problems = append(b.result.Problems, noImage+strings.NewReplacer("{tree}", "http://...", "{file:%s}", "http://...").Replace(b.media.Args))
	}
	if b.media.Note != "" {
		b.result.Problems = append(b.result.Problems, b.media.Note)
	}
}

// base is the name of a path's file, and nothing of nothing.
func base(p string) string {
	if p == "" {
		return ""
	}
	return path.Base(p)
}

func (b *builder) names() string {
	var out []string
	for _, f := range b.result.Files {
		out = append(out, f.Name)
	}
	return strings.Join(out, ", ")
}

// nameRune keeps what a bundle's name may have.
func nameRune(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
		return r
	}
	return '-'
}

// plain is what YAML takes for a string without quotes, but for a few words.
var plain = regexp.MustCompile(`^(https?://)?[a-z][a-z0-9]*([._/-][a-zA-Z0-9._/-]*)?$`)

// quoted is a string of YAML: JSON's strings are YAML's.
func quoted(s string) string {
	if plain.MatchString(s) && !slices.Contains([]string{"y", "n", "yes", "no", "on", "off", "true", "false", "null"}, s) {
		return s
	}
	b, err := json.Marshal(s)
	if err != nil {
		return `""`
	}
	return string(b)
}
