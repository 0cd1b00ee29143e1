package lint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"bootlane/internal/strictyaml"

	"go.yaml.in/yaml/v3"
)

var (
	// What PyYAML, which cloud-init and Subiquity read with, makes of a word without quotes:
	// YAML 1.1, not 1.2.
	pyInt   = regexp.MustCompile(`^[-+]?(0b[01_]+|0[0-7_]*|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$`)
	pySixty = regexp.MustCompile(`^[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$`)
	pyFloat = regexp.MustCompile(`^([-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$`)
	pyBool  = regexp.MustCompile(`^(yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$`)
	pyNull  = regexp.MustCompile(`^(~|null|Null|NULL|)$`)
	pyTime  = regexp.MustCompile(`^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?$`)
)

// meaning is what PyYAML takes a word without quotes for, when that is not text.
func meaning(v string) string {
	switch {
	case pyNull.MatchString(v):
		return "nothing"
	case pyBool.MatchString(v):
		return "true or false"
	case pySixty.MatchString(v):
		return "a number to the base of 60"
	case pyInt.MatchString(v), pyFloat.MatchString(v):
		return "a number"
	case pyTime.MatchString(v):
		return "a date"
	case v == "=":
		return "nothing that it can construct"
	}
	return ""
}

// yaml reads a file of one YAML document. It returns nil for an empty one, and for one that
// cannot be read, which is a finding.
func (r *report) yaml(text string) *yaml.Node {
	dec := yaml.NewDecoder(strings.NewReader(text))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		r.notYAML(err)
		return nil
	}
	switch err := dec.Decode(&more); {
	case err == nil:
		r.add("yaml-second-document", pos(&more), "a second YAML document begins here, and nobody reads it")
	case !errors.Is(err, io.EOF):
		r.notYAML(err)
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind == yaml.ScalarNode && doc.Content[0].Tag == "!!null" {
		return nil
	}
	root := doc.Content[0]
	r.keysOnce(root)
	r.traps(root)
	if root.Kind != yaml.MappingNode {
		r.add("value-kind", pos(root), "keys with values are wanted here")
		return nil
	}
	return root
}

func (r *report) notYAML(err error) {
	f := strictyaml.FaultOf(err.Error())
	if strings.Contains(f.Message, "character that cannot start any token") {
		f.Message += ": a tab? YAML is indented by blanks"
	}
	r.add("syntax", at{f.Line, f.Column}, "this is no YAML: %s", f.Message)
}

// keysOnce finds keys that come twice: the readers take the last, and say nothing.
func (r *report) keysOnce(n *yaml.Node) {
	if n.Kind == yaml.MappingNode {
		seen := map[string]int{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if line, ok := seen[k.Value]; ok && k.Kind == yaml.ScalarNode {
				r.add("key-twice", pos(k), "the key %q stands on line %d already: the last one wins", k.Value, line)
			} else {
				seen[k.Value] = k.Line
			}
		}
	}
	for _, c := range n.Content {
		r.keysOnce(c)
	}
}

// traps finds what is YAML, and is read otherwise than it looks.
func (r *report) traps(n *yaml.Node) {
	switch {
	case n.Kind == yaml.AliasNode:
		r.add("yaml-anchor", pos(n), "an alias stands for a value elsewhere")
	case n.Kind == yaml.ScalarNode && n.Style == 0 && pySixty.MatchString(n.Value) && strings.Count(n.Value, ":") == 5:
		r.add("yaml-sexagesimal", pos(n), "PyYAML reads %s without quotes as a number to the base of 60, not as a MAC", n.Value)
	}
	for _, c := range n.Content {
		r.traps(c)
	}
}

// json reads a JSON file into the same tree. encoding/json has no places, but its tokens do.
func (r *report) json(text string) *yaml.Node {
	b := &builder{text: text, dec: json.NewDecoder(strings.NewReader(text))}
	b.dec.UseNumber()
	root, err := b.value(0)
	if err == nil {
		if _, err = b.dec.Token(); errors.Is(err, io.EOF) {
			err = nil
		} else if err == nil {
			err = errors.New("something follows the end")
		}
	}
	if err != nil {
		off := int(b.dec.InputOffset())
		// The decoder's own places differ from one kind of error to the next.
		if se, whole := (*json.SyntaxError)(nil), any(nil); errors.As(json.Unmarshal([]byte(text), &whole), &se) {
			err, off = se, int(se.Offset)-1
		}
		message := err.Error()
		r.add("syntax", b.at(off), "this is no JSON: %s", message)
		return nil
	}
	r.keysOnce(root)
	if root.Kind != yaml.MappingNode {
		r.add("value-kind", pos(root), "an object is wanted here")
		return nil
	}
	return root
}

type builder struct {
	text string
	dec  *json.Decoder
	seen int // bytes of text whose place is known
	last at
}

// at is the place of byte off. It is asked from front to back.
func (b *builder) at(off int) at {
	off = min(max(off, 0), len(b.text))
	if off < b.seen || b.last.line == 0 {
		b.seen, b.last = 0, at{1, 1}
	}
	for _, c := range b.text[b.seen:off] {
		if b.last.column++; c == '\n' {
			b.last = at{b.last.line + 1, 1}
		}
	}
	b.seen = off
	return b.last
}

// value reads one value. What nests deeper than any profile does is refused, not recursed into.
func (b *builder) value(depth int) (*yaml.Node, error) {
	start := int(b.dec.InputOffset())
	start += len(b.text[start:]) - len(strings.TrimLeft(b.text[start:], " \t\r\n,:"))
	p := b.at(start)
	tok, err := b.dec.Token()
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: p.line, Column: p.column}
	switch v := tok.(type) {
	case json.Delim:
		if depth > 200 {
			return nil, errors.New("it nests deeper than 200 levels")
		}
		n.Kind = map[json.Delim]yaml.Kind{'{': yaml.MappingNode, '[': yaml.SequenceNode}[v]
		for b.dec.More() {
			c, err := b.value(depth + 1)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, c)
		}
		_, err = b.dec.Token()
		return n, err
	case string:
		n.Tag, n.Value, n.Style = "!!str", v, yaml.DoubleQuotedStyle
	case nil:
		n.Tag, n.Value = "!!null", "null"
	default:
		n.Value = fmt.Sprint(v)
		n.Tag = map[bool]string{true: "!!bool", false: "!!int"}[n.Value == "true" || n.Value == "false"]
	}
	return n, nil
}

func pos(n *yaml.Node) at { return at{n.Line, n.Column} }

// deref follows an alias, once.
func deref(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// get returns the value below keys, or nil. Nothing at all counts as nil.
func get(n *yaml.Node, keys ...string) *yaml.Node {
	for _, k := range keys {
		_, n = entry(n, k)
	}
	if n != nil && n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	return n
}

// entry returns a key and its value, or nil. The last one wins, as it does with the readers.
func entry(n *yaml.Node, key string) (k, v *yaml.Node) {
	each(n, func(name, value *yaml.Node) {
		if name.Value == key {
			k, v = name, deref(value)
		}
	})
	return k, v
}

// each calls f with the keys and values of a mapping; anything else has none.
func each(n *yaml.Node, f func(k, v *yaml.Node)) {
	if n = deref(n); n == nil || n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		f(n.Content[i], deref(n.Content[i+1]))
	}
}

// items returns the entries of a list; anything else has none.
func items(n *yaml.Node) (out []*yaml.Node) {
	if n = deref(n); n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	for _, c := range n.Content {
		out = append(out, deref(c))
	}
	return out
}

// is reports whether a value is the word.
func is(n *yaml.Node, word string) bool {
	return n != nil && n.Kind == yaml.ScalarNode && strings.EqualFold(n.Value, word)
}

// yes reports whether a value is true, in the words of YAML 1.1 too. In quotes it is text.
func yes(n *yaml.Node) bool {
	return n != nil && n.Kind == yaml.ScalarNode && n.Style == 0 && slices.Contains([]string{"true", "yes", "on"}, strings.ToLower(n.Value))
}

// no reports whether a value is false, as yes does.
func no(n *yaml.Node) bool {
	return n != nil && n.Kind == yaml.ScalarNode && n.Style == 0 && slices.Contains([]string{"false", "no", "off"}, strings.ToLower(n.Value))
}

// text returns a value that must be text. What is text to us and not to PyYAML is a finding.
func (r *report) text(n *yaml.Node) (string, bool) {
	if n == nil {
		return "", false
	}
	if n.Kind != yaml.ScalarNode {
		r.add("value-kind", pos(n), "text is wanted here")
		return "", false
	}
	// A MAC that is read as a number has a rule of its own.
	if m := meaning(n.Value); n.Style == 0 && m != "" && !(pySixty.MatchString(n.Value) && strings.Count(n.Value, ":") == 5) {
		r.add("yaml-not-text", pos(n), "text is wanted here, and %q without quotes is read as %s", n.Value, m)
	}
	return n.Value, true
}

// kinds holds the values of a mapping against what they must be: m, l, or s for text.
func (r *report) kinds(n *yaml.Node, want map[string]yaml.Kind) {
	words := map[yaml.Kind]string{yaml.MappingNode: "keys with values are", yaml.SequenceNode: "a list is", yaml.ScalarNode: "one value is"}
	each(n, func(k, v *yaml.Node) {
		if w, ok := want[k.Value]; ok && v.Kind != w {
			r.add("value-kind", pos(k), "%s wanted below %q", words[w], k.Value)
		}
	})
}

// known names the keys that nobody reads.
func (r *report) known(rule string, n *yaml.Node, keys []string, where string) {
	each(n, func(k, _ *yaml.Node) {
		if !slices.Contains(keys, k.Value) {
			r.add(rule, pos(k), "%s has no key %q%s", where, k.Value, like(k.Value, keys))
		}
	})
}

// like proposes the key that was meant.
func like(word string, keys []string) string {
	bare := func(s string) string {
		return strings.TrimRight(strings.Map(func(c rune) rune {
			if c == '-' || c == '_' || c == ' ' {
				return -1
			}
			return c
		}, strings.ToLower(s)), "s")
	}
	a := bare(word)
	for _, k := range keys {
		if b := bare(k); a == b || len(a) > 4 && (strings.HasPrefix(a, b) || strings.HasPrefix(b, a)) && max(len(a), len(b))-min(len(a), len(b)) <= 2 {
			return fmt.Sprintf("; did you mean %q?", k)
		}
	}
	return ""
}

// metaData judges what NoCloud tells a machine about itself.
func (r *report) metaData(text string) {
	root := r.yaml(text)
	if id, ok := r.text(get(root, "instance-id")); !ok && len(r.found) == 0 || ok && id == "" {
		r.add("meta-data-instance", at{1, 1}, "instance-id is missing")
	}
	if n := get(root, "local-hostname"); n != nil {
		if v, ok := r.text(n); ok {
			r.hostname(pos(n), v)
		}
	}
}
