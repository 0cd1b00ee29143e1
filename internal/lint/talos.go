package lint

import (
	"bytes"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"bootlane/internal/talos"
)

// talos judges a machine configuration of Talos, of one document or more.
func (r *report) talos(text string) {
	dec := yaml.NewDecoder(bytes.NewReader([]byte(text)))
	for {
		var doc yaml.Node
		if dec.Decode(&doc) != nil || len(doc.Content) == 0 {
			break // its reader says why
		}
		root := doc.Content[0]
		r.keysOnce(root)
		if get(root, "kind") == nil {
			r.talosMachine(root)
		} else if v := get(root, "hostname"); is(get(root, "kind"), "HostnameConfig") && v != nil {
			r.hostname(pos(v), v.Value)
		}
	}
	r.talosReader(text)
}

// talosMachine judges the document with machine and cluster.
func (r *report) talosMachine(root *yaml.Node) {
	if v := get(root, "machine", "network", "hostname"); v != nil {
		r.hostname(pos(v), v.Value)
	}
	for _, part := range []string{"machine", "cluster"} {
		if v := get(root, part, "token"); v != nil && v.Value != "" {
			r.add("talos-static-token", pos(v), "%s.token admits any machine that has this file", part)
		}
	}
	if v := get(root, "machine", "time", "disabled"); yes(v) {
		r.clock(pos(v), "the clock is not set, and the file trusts certificates")
	}
	key, install := entry(get(root, "machine"), "install")
	if install == nil || install.Kind != yaml.MappingNode {
		return
	}
	if get(install, "wipe") == nil {
		r.add("talos-wipe", pos(key), "install says nothing of wipe")
	}
	if v := get(install, "image"); v != nil && (strings.HasSuffix(v.Value, ":latest") || !strings.Contains(v.Value[strings.LastIndexByte(v.Value, '/')+1:], ":") && !strings.Contains(v.Value, "@")) {
		r.add("source-unpinned", pos(v), "the image has no version, or one that moves")
	}
	disk, selector := get(install, "disk"), get(install, "diskSelector")
	switch {
	case selector != nil:
		r.talosSelector(selector)
	case disk == nil:
		r.add("disk-selector-missing", pos(key), "install has neither disk nor diskSelector")
	default:
		r.disk(pos(disk), disk.Value)
	}
}

// talosSelector judges by what the disk is found: each value is a pattern, and the first disk that fits is taken.
func (r *report) talosSelector(n *yaml.Node) {
	alone := false // something that one disk alone has
	each(n, func(k, v *yaml.Node) {
		if !slices.Contains([]string{"serial", "wwid", "uuid", "busPath"}, k.Value) {
			return
		}
		alone = true
		if strings.Contains(v.Value, "*") {
			r.add("disk-selector-loose", pos(v), "%q is a pattern, which may fit several disks", v.Value)
		}
	})
	if !alone {
		r.add("disk-selector-loose", pos(n), "the selector has neither serial, wwid, uuid nor busPath: several disks may fit")
	}
}

// talosReader adds what Talos' own reader says, unless we have said that already.
func (r *report) talosReader(text string) {
	if r.read {
		return
	}
	own := slices.Concat(r.found, r.silent)
	said := func(line int) bool {
		return slices.ContainsFunc(own, func(f Finding) bool { return f.Line == line })
	}
	_, problems := talos.Read([]byte(text))
	for _, p := range problems {
		rule := "talos-illegal"
		switch {
		case said(p.Line):
			continue
		case strings.Contains(p.Message, "has no key"), strings.Contains(p.Message, "knows no such key"), strings.Contains(p.Message, "is no kind"):
			rule = "talos-unknown-key"
		case strings.HasPrefix(p.Message, "this is no YAML"):
			rule = "syntax"
		}
		r.add(rule, at{p.Line, p.Column}, "%s", p.Message)
	}
	if len(problems) > 0 || slices.ContainsFunc(own, func(f Finding) bool { return f.Severity == Error }) {
		return
	}
	for _, message := range talos.Validate([]byte(text)) {
		r.add("talos-illegal", at{1, 1}, "%s", message)
	}
}
