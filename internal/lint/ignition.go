package lint

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"bootlane/internal/ignition"
)

var (
	ignitionKeys    = []string{"ignition", "kernelArguments", "passwd", "storage", "systemd"}
	butaneKeys      = []string{"variant", "version", "boot_device", "grub", "ignition", "kernel_arguments", "passwd", "storage", "systemd"}
	ignitionVersion = regexp.MustCompile(`^3\.[0-5]\.0$`)
	ignitionHash    = regexp.MustCompile(`^(sha512-[0-9a-f]{128}|sha256-[0-9a-f]{64})$`)
	// File modes that were meant octal: JSON has only decimal numbers, and YAML octal ones begin with 0.
	octalLooking = []string{"400", "440", "444", "600", "640", "644", "660", "664", "666", "700", "750", "755", "775", "777"}
	// What Butane writes for a key of Ignition, where it is not the same word.
	camelPart = regexp.MustCompile(`_[a-z]`)
	// What people write for a password that Ignition has no key for: it takes hashes alone.
	cleartextKeys = []string{"password", "plainTextPasswd", "plainTextPassword", "passwd"}
)

// ignition judges the configuration of Fedora CoreOS and Flatcar.
func (r *report) ignition(text string) {
	root := r.json(text)
	if root == nil {
		return
	}
	r.known("ignition-unknown-key", root, ignitionKeys, "the configuration")
	if v := get(root, "ignition", "version"); v == nil {
		r.add("ignition-version", pos(root), "ignition.version is missing")
	} else if !ignitionVersion.MatchString(v.Value) {
		r.add("ignition-version", pos(v), "%q is no version from 3.0.0 to 3.5.0", v.Value)
	}
	r.ignitionTree(root)
	r.ignitionReader(text)
}

// butane judges what becomes such a configuration.
func (r *report) butane(text string) {
	root := r.yaml(text)
	if root == nil {
		return
	}
	r.known("ignition-unknown-key", root, butaneKeys, "Butane")
	r.ignitionTree(camelKeys(root))
	r.ignitionReader(text)
}

// camelKeys returns the tree with Butane's keys as Ignition writes them, at their places. It follows
// no alias: that is refused.
func camelKeys(n *yaml.Node) *yaml.Node {
	out := *n
	out.Content = nil
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			k := *c
			k.Value = camelPart.ReplaceAllStringFunc(k.Value, func(s string) string { return strings.ToUpper(s[1:]) })
			out.Content = append(out.Content, &k)
			continue
		}
		out.Content = append(out.Content, camelKeys(c))
	}
	return &out
}

// ignitionReader adds what the reader itself says, unless we have said that already.
func (r *report) ignitionReader(text string) {
	if r.read {
		return
	}
	own := slices.Concat(r.found, r.silent)
	_, problems := ignition.Translate([]byte(text))
	for _, p := range problems {
		placed := p.Line > 1 || p.Column > 1
		if slices.ContainsFunc(own, func(f Finding) bool { return f.Line == p.Line || !placed && f.Severity == Error }) {
			continue
		}
		rule := "ignition-illegal"
		switch {
		case strings.Contains(p.Message, "unused key "):
			rule = "ignition-unknown-key"
		case strings.Contains(p.Message, "--files-dir"):
			rule = "butane-local"
		case strings.HasPrefix(p.Message, "variant "):
			rule = "ignition-version"
		case strings.Contains(p.Message, "leading zero"):
			rule = "ignition-mode"
		}
		r.add(rule, at{p.Line, p.Column}, "%s", p.Message)
	}
}

// ignitionTree judges what both forms say.
func (r *report) ignitionTree(root *yaml.Node) {
	r.kinds(root, map[string]yaml.Kind{"ignition": yaml.MappingNode, "passwd": yaml.MappingNode, "storage": yaml.MappingNode, "systemd": yaml.MappingNode})
	for _, u := range items(get(root, "passwd", "users")) {
		r.ignitionUser(u)
	}
	for _, d := range items(get(root, "storage", "disks")) {
		if n := get(d, "device"); n != nil {
			r.disk(pos(n), n.Value)
		} else {
			r.add("disk-selector-missing", pos(d), "the disk has no device")
		}
	}
	for _, f := range items(get(root, "storage", "files")) {
		if m := get(f, "mode"); m != nil && slices.Contains(octalLooking, m.Value) {
			r.add("ignition-mode", pos(m), "%s is decimal here: it is not the octal mode that it looks like", m.Value)
		}
		if p := get(f, "path"); p != nil && p.Value == "/etc/hostname" {
			if s := get(f, "contents", "source"); s != nil && strings.HasPrefix(s.Value, "data:,") {
				r.hostname(pos(s), strings.TrimSuffix(strings.TrimPrefix(s.Value, "data:,"), "%0A"))
			}
		}
		r.ignitionResource(get(f, "contents"))
		for _, more := range items(get(f, "append")) {
			r.ignitionResource(more)
		}
	}
	for _, ca := range items(get(root, "ignition", "security", "tls", "certificateAuthorities")) {
		r.ignitionResource(ca)
	}
	r.ignitionResource(get(root, "ignition", "config", "replace"))
	for _, m := range items(get(root, "ignition", "config", "merge")) {
		r.ignitionResource(m)
	}
}

func (r *report) ignitionUser(u *yaml.Node) {
	name := get(u, "name")
	if v, ok := r.text(name); ok && v != "root" && v != "core" {
		r.user(pos(name), v)
	}
	if v := get(u, "uid"); v != nil {
		r.uid(pos(v), v.Value)
	}
	if v := get(u, "passwordHash"); v != nil {
		if s, ok := r.text(v); ok {
			r.hash(pos(v), s)
		}
	}
	each(u, func(k, v *yaml.Node) {
		if slices.Contains(cleartextKeys, k.Value) && v.Kind == yaml.ScalarNode {
			r.add("password-cleartext", pos(v), "%s is no key of Ignition, and a password would stand here in clear text: passwordHash takes its hash", k.Value)
		}
	})
	r.keys(get(u, "sshAuthorizedKeys"), map[string]bool{})
}

// ignitionResource judges what is fetched from elsewhere.
func (r *report) ignitionResource(n *yaml.Node) {
	src, hash := get(n, "source"), get(n, "verification", "hash")
	switch {
	case hash != nil && !ignitionHash.MatchString(hash.Value):
		r.add("source-checksum-missing", pos(hash), "the hash is not sha512- with 128 hex digits, or sha256- with 64")
	case src != nil && hash == nil && strings.Contains(src.Value, "://") && !strings.HasPrefix(src.Value, "data:"):
		r.add("source-checksum-missing", pos(src), "what is fetched has no verification.hash")
	}
}
