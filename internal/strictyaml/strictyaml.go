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

var atLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)

// Decode reads data, called file in messages, into out, a pointer to a struct
// with yaml tags. The document is usable even when there are problems, as far
// as the text is YAML at all.
func Decode(file string, data []byte, out any) (Document, []Problem) {
	doc := Document{file: file}
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return doc, doc.explain(err)
	}
	doc.root = &root
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	dec.KnownFields(true)
	if err := dec.Decode(out); err != nil && len(root.Content) > 0 {
		return doc, doc.explain(err)
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

// Problem makes a finding about the field at path, for example "hosts[2].id",
// or about its nearest parent that stands in the file.
func (d Document) Problem(path, message string) Problem {
	return Problem{File: d.file, Line: d.line(path), Field: path, Message: message}
}

// Join adds findings about fields to those of Decode, in the order of the file. On
// a line with a value that Decode could not read nothing is added: of that value
// nothing is known. A text that is no YAML has no fields to speak of.
func (d Document) Join(found []Problem, more ...Problem) []Problem {
	if d.root == nil {
		return found
	}
	out := slices.Clone(found)
	for _, p := range more {
		if !slices.ContainsFunc(found, func(f Problem) bool { return f.unread && f.Line == p.Line }) {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(a, b Problem) int { return a.Line - b.Line })
	return out
}

func (d Document) explain(err error) []Problem {
	texts := []string{err.Error()}
	var te *yaml.TypeError
	if errors.As(err, &te) {
		texts = te.Errors
	}
	var out []Problem
	for _, t := range texts {
		p := Problem{File: d.file, Message: strings.TrimPrefix(t, "yaml: ")}
		if m := atLine.FindStringSubmatch(t); m != nil {
			p.Line, _ = strconv.Atoi(m[1]) // the pattern admits digits only
			p.Message = m[2]
		}
		p.unread = wrongType.MatchString(p.Message)
		p.Message = plain(p.Message)
		out = append(out, p)
	}
	return out
}

var (
	unknownField = regexp.MustCompile(`^field (\S+) not found in type .+$`)
	wrongType    = regexp.MustCompile("^cannot unmarshal !!(\\w+) (?:`(.*)` )?into (.+)$")
)

// plain turns the library's messages, which speak of Go types, into words for
// the file's author.
func plain(msg string) string {
	if strings.Contains(msg, "character that cannot start any token") {
		return msg + ": a tab? YAML is indented by blanks"
	}
	if m := unknownField.FindStringSubmatch(msg); m != nil {
		return fmt.Sprintf("unknown key %q: check its spelling and indentation", m[1])
	}
	if m := wrongType.FindStringSubmatch(msg); m != nil {
		kind := map[string]string{"str": "text", "seq": "a list", "map": "a mapping", "int": "a whole number", "float": "a number", "bool": "true or false"}
		want := "another kind of value"
		switch {
		case strings.HasPrefix(m[3], "[]"):
			want = "a list"
		case strings.Contains(m[3], ".") && m[1] == "seq": // one of our structs
			want = "a mapping: keys with values"
		case m[3] == "string":
			want = "text"
		case m[3] == "int" || m[3] == "int64":
			want = "a whole number"
		case m[3] == "bool":
			want = "true or false"
		case strings.Contains(m[3], "Duration"):
			want = "a duration such as 2h or 30s"
		}
		have := kind[m[1]]
		if m[2] != "" {
			have += " " + strconv.Quote(m[2])
		}
		return fmt.Sprintf("%s stands here, %s is wanted", strings.TrimSpace(have), want)
	}
	return msg
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
