// Package strictyaml reads a YAML file so that a person can mend it: unknown
// keys are errors, every problem is reported at once, and each names its file,
// line and field.
package strictyaml

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Problem is one finding.
type Problem struct {
	File    string
	Line    int    // from 1; 0 when unknown
	Field   string // path such as hosts[2].identity.macs[0]; may be empty
	Message string
	unread  bool // the value could not be read at all
}

// String returns file:line: field: message.
func (p Problem) String() string {
	s := p.File
	if p.Line > 0 {
		s += ":" + strconv.Itoa(p.Line)
	}
	s += ": "
	if p.Field != "" {
		s += p.Field + ": "
	}
	return s + p.Message
}

// Document is a parsed file that can say on which line a field stands.
type Document struct {
	file string
	root *yaml.Node
}

// Fault is one thing that a reader holds against a text. Line and column count from 1.
type Fault struct {
	Line, Column int
	Message      string
}

// String returns the fault behind its place, as LINE:COLUMN: MESSAGE.
func (f Fault) String() string { return fmt.Sprintf("%d:%d: %s", f.Line, f.Column, f.Message) }

// FaultOf places a message of the YAML library, which knows no columns; without a line it stands at the beginning.
func FaultOf(message string) Fault {
	if m := atLine.FindStringSubmatch(message); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			return Fault{n, 1, m[2]}
		}
	}
	return Fault{1, 1, strings.TrimPrefix(message, "yaml: ")}
}

var atLine = regexp.MustCompile(`^(?:yaml: |error unmarshaling yaml: |\s)*(?:unmarshal errors:\s*)?line (\d+): ((?s:.*))$`)

// Decode reads data, called file in messages, into out, a pointer to a struct
// with yaml tags. The document is usable even when there are problems, as far
// as the text is YAML at all: what could be read is in out, and lists keep their places.
func Decode(file string, data []byte, out any) (Document, []Problem) {
	doc := Document{file: file}
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return doc, doc.explain(err)
	}
	doc.root = &root
	dec := strict(data)
	if err := dec.Decode(out); err != nil && len(root.Content) > 0 {
		te := (*yaml.TypeError)(nil)
		if !errors.As(err, &te) {
			return doc, doc.explain(err)
		}
		problems := doc.readable(data, out, err)
		if len(problems) == 0 { // an error that nobody can place is one all the same
			problems = doc.told(te.Errors)
		}
		return doc, problems
	}
	var more yaml.Node
	switch err := dec.Decode(&more); {
	case err == nil:
		return doc, []Problem{{File: file, Line: more.Line, Message: "a second YAML document: one file holds one document"}}
	case !errors.Is(err, io.EOF):
		return doc, doc.explain(err) // it is one all the same, and broken
	}
	return doc, nil
}

// strict returns a decoder to which a key that nobody knows is an error.
func strict(data []byte) *yaml.Decoder {
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	dec.KnownFields(true)
	return dec
}

// Problem makes a finding about the field at path, for example "hosts[2].id",
// or about its nearest parent that stands in the file.
func (d Document) Problem(path, message string) Problem {
	return Problem{File: d.file, Line: d.line(path), Field: path, Message: message}
}

// Join adds findings about fields to those of Decode, in the order of the file. About
// a value that Decode could not read nothing is added: of that value nothing is known. A
// text that is no YAML has no fields to speak of.
func (d Document) Join(found []Problem, more ...Problem) []Problem {
	if d.root == nil {
		return found
	}
	out := slices.Clone(found)
	for _, p := range more {
		if !slices.ContainsFunc(found, func(f Problem) bool { return f.unread && within(p.Field, f.Field) }) {
			out = append(out, p)
		}
	}
	return inOrder(out)
}

// inOrder sorts problems as their lines stand in the file.
func inOrder(list []Problem) []Problem {
	slices.SortStableFunc(list, func(a, b Problem) int { return a.Line - b.Line })
	return list
}

// within reports whether a field is another one or a part of it.
func within(field, whole string) bool {
	rest, ok := strings.CutPrefix(field, whole)
	return ok && (whole == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
}

// explain tells what the library says, but for what readable finds: with its field.
func (d Document) explain(err error) []Problem {
	if err == nil {
		return nil
	}
	texts := []string{err.Error()}
	var te *yaml.TypeError
	if errors.As(err, &te) {
		texts = slices.DeleteFunc(slices.Clone(te.Errors), func(t string) bool { return wrongType.MatchString(t) || twice.MatchString(t) })
	}
	return d.told(texts)
}

// told makes findings of the library's messages.
func (d Document) told(texts []string) (out []Problem) {
	for _, t := range texts {
		p := Problem{File: d.file, Message: strings.TrimPrefix(t, "yaml: ")}
		if m := atLine.FindStringSubmatch(t); m != nil {
			p.Line, _ = strconv.Atoi(m[1]) // the pattern admits digits only
			p.Message = m[2]
		}
		p.Message = plain(p.Message)
		out = append(out, p)
	}
	return out
}

var (
	unknownField = regexp.MustCompile(`^field (.+?) not found in type .+$`)
	wrongType    = regexp.MustCompile("^line (\\d+): cannot unmarshal ")
	twice        = regexp.MustCompile(`^line \d+: mapping key .* already defined at line \d+$`)
)

// plain turns the library's messages, which speak of Go types, into words for
// the file's author.
func plain(msg string) string {
	if strings.Contains(msg, "character that cannot start any token") {
		return msg + ": a tab? YAML is indented by blanks"
	}
	if m := unknownField.FindStringSubmatch(msg); m != nil {
		return unknownKey(m[1])
	}
	return msg
}

func unknownKey(key string) string {
	return fmt.Sprintf("unknown key %q: check its spelling and indentation", key)
}

// place is a node of the file, and where it stands.
type place struct {
	node  *yaml.Node // whose line is its number among the places
	line  int
	field string
}

// stand is a kind of value, and an empty one of it.
type stand struct {
	words string
	node  yaml.Node
}

// stands lists the kinds of values there are in our files.
func stands() []stand {
	scalar := func(tag, value string) yaml.Node {
		return yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
	}
	return []stand{
		{"a mapping: keys with values", yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}},
		{"text", scalar("!!str", "")},
		{"a list", yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}},
		{"a number", scalar("!!float", ".inf")}, // of 0.5 the library makes a whole number
		{"a whole number", scalar("!!int", "0")},
		{"true or false", scalar("!!bool", "false")},
		{"a duration such as 2h or 30s", scalar("!!str", "0s")},
	}
}

// readable reads into out what can be read, and tells what cannot: what the library said, keys
// that come twice, and values of a wrong kind.
func (d Document) readable(data []byte, out any, said error) []Problem {
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return d.explain(err)
	}
	if spell(&root, 0, maxNodes) < 0 {
		return nil
	}
	places, problems := d.survey(nil, nil, root.Content[0], "")
	if len(problems) == 0 {
		problems = d.explain(said)
	} else if text, err := yaml.Marshal(&root); err == nil { // the library looks at nothing beside keys that come twice
		problems = append(problems, d.unknown(text, out)...)
	}
	return inOrder(append(d.kinds(&root, places, out), problems...))
}

// What aliases may make of a file: one may stand within what it stands for.
const (
	maxNodes = 1_000_000
	maxDepth = 100
)

// spell puts what an alias stands for in its place, so that each value has a place of its own, and returns how many more
// nodes there may be: below 0 when there are too many.
func spell(n *yaml.Node, depth, left int) int {
	if n.Kind == yaml.AliasNode {
		line := n.Line
		*n = *n.Alias
		n.Line = line
	}
	n.Anchor, n.Content = "", slices.Clone(n.Content)
	for i := range n.Content {
		if left--; left < 0 || depth > maxDepth {
			return -1
		}
		c := *n.Content[i]
		n.Content[i] = &c
		if left = spell(&c, depth+1, left); left < 0 {
			return left
		}
	}
	return left
}

// unknown tells the keys that nobody knows, in a text that says the same as the file and has
// other lines.
func (d Document) unknown(text []byte, out any) (problems []Problem) {
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return d.explain(err)
	}
	places, _ := d.survey(nil, nil, root.Content[0], "")
	for _, p := range d.explain(strict(text).Decode(out)) {
		i := slices.IndexFunc(places, func(at place) bool { return at.line == p.Line && p.Message == unknownKey(at.node.Value) })
		if i >= 0 {
			p.Line = d.line(places[i].field)
		}
		problems = append(problems, p)
	}
	return problems
}

// kinds tells the values of a wrong kind. The library names no field, only a line, and says
// what it wants as a Go type. So each node's line is a number of its own, and an empty value
// of one kind after the other is tried in its place: the one that is taken is what is wanted,
// and it stays, for a list would lose its place otherwise.
func (d Document) kinds(root *yaml.Node, places []place, out any) (problems []Problem) {
	all := unread(root, out)
	have, wanted := map[int]string{}, map[int]string{}
	for _, n := range all {
		have[n] = describe(places[n].node)
		wanted[n] = "another kind of value"
	}
	wrong := all
	for _, s := range stands() {
		if len(wrong) == 0 {
			break
		}
		for _, n := range wrong {
			s.node.Line = n
			*places[n].node = s.node
		}
		still := unread(root, out)
		for _, n := range wrong {
			if !slices.Contains(still, n) {
				wanted[n] = s.words
			}
		}
		wrong = still
	}
	for _, n := range all {
		problems = append(problems, Problem{File: d.file, Line: places[n].line, Field: places[n].field, Message: have[n] + " stands here, " + wanted[n] + " is wanted", unread: true})
	}
	return problems
}

// survey numbers the nodes, and takes out keys that come twice or are none.
func (d Document) survey(places []place, problems []Problem, n *yaml.Node, field string) ([]place, []Problem) {
	places = append(places, place{n, n.Line, field})
	n.Line = len(places) - 1
	switch n.Kind {
	case yaml.SequenceNode:
		for i, c := range n.Content {
			places, problems = d.survey(places, problems, c, fmt.Sprintf("%s[%d]", field, i))
		}
	case yaml.MappingNode:
		seen, kept := map[string]int{}, []*yaml.Node{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			below := strings.TrimPrefix(field+"."+k.Value, ".")
			if k.Kind != yaml.ScalarNode {
				problems = append(problems, Problem{File: d.file, Line: k.Line, Field: field, Message: describe(k) + " stands where a key is wanted: a template that was not filled in?"})
				continue
			}
			if first, ok := seen[k.Value]; ok {
				problems = append(problems, Problem{File: d.file, Line: k.Line, Field: below, Message: fmt.Sprintf("stands on line %d already: a key comes once", first)})
			} else {
				seen[k.Value] = k.Line
				kept = append(kept, k, n.Content[i+1])
			}
			places, problems = d.survey(places, problems, k, below)
			places, problems = d.survey(places, problems, n.Content[i+1], below)
		}
		n.Content = kept
	}
	return places, problems
}

// unread reads the nodes into out, and returns the numbers of those that cannot be read. What
// else is wrong, the library has said before.
func unread(root *yaml.Node, out any) (numbers []int) {
	var te *yaml.TypeError
	if !errors.As(root.Decode(out), &te) {
		return nil
	}
	for _, t := range te.Errors {
		if m := wrongType.FindStringSubmatch(t); m != nil {
			n, _ := strconv.Atoi(m[1]) // the pattern admits digits only
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return slices.Compact(numbers)
}

// describe says what a node is.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "a mapping"
	}
	kind := map[string]string{"!!str": "text", "!!int": "a whole number", "!!float": "a number", "!!bool": "true or false", "!!null": "nothing"}[n.ShortTag()]
	value := []rune(n.Value)
	if len(value) > 40 {
		value = append(value[:40], '…')
	}
	return strings.TrimSpace(kind + " " + strconv.Quote(string(value)))
}

var step = regexp.MustCompile(`([^.\[\]]+)|\[(\d+)\]`)

func (d Document) line(path string) int {
	if d.root == nil || len(d.root.Content) == 0 {
		return 0
	}
	n := d.root.Content[0]
	line := n.Line
	for _, m := range step.FindAllStringSubmatch(path, -1) {
		var next *yaml.Node
		switch {
		case m[2] != "" && n.Kind == yaml.SequenceNode:
			if i, err := strconv.Atoi(m[2]); err == nil && i < len(n.Content) {
				next = n.Content[i]
				line = next.Line
			}
		case n.Kind == yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == m[1] {
					next, line = n.Content[i+1], n.Content[i].Line
				}
			}
		}
		if next == nil {
			return line
		}
		n = next
	}
	return line
}
