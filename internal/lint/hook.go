package lint

import (
	"errors"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"mvdan.cc/sh/v3/syntax"
)

// interpreter is the program that a script's first line names.
var interpreter = regexp.MustCompile(`\A#! *(?:/usr/bin/env +(?:-S +)?)?(\S+)`)

// isShell reports whether a program is one whose language bash's grammar holds.
func isShell(program string) bool {
	return slices.Contains([]string{"sh", "bash", "dash", "ash", "busybox"}, path.Base(program))
}

// hook judges whether a shell can read the commands that begin at p. The grammar is bash's: those of dash
// and busybox are parts of it. With exact the lines are the file's own, and the place is told to the letter.
func (r *report) hook(p at, text string, exact bool) {
	if m := interpreter.FindStringSubmatch(text); r.read || m != nil && !isShell(m[1]) {
		return
	}
	_, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
	var fault syntax.ParseError
	switch {
	case err == nil:
		return
	case !errors.As(err, &fault):
		r.add("hook-syntax", p, "no shell can read this: %s", err.Error())
		return
	}
	line, col := int(fault.Pos.Line()), int(fault.Pos.Col())
	if !exact {
		r.add("hook-syntax", p, "no shell can read line %d of this: %s", line, fault.Text)
		return
	}
	if own := strings.Split(text, "\n"); line >= 1 && line <= len(own) {
		col = column(own[line-1], min(max(col-1, 0), len(own[line-1])))
	}
	if line == 1 {
		col += p.column - 1
	}
	r.add("hook-syntax", at{p.line + line - 1, col}, "no shell can read this: %s", fault.Text)
}

// hookNode judges a hook of YAML or JSON: text that a shell gets, or the words of a command, which may be one.
func (r *report) hookNode(n *yaml.Node) {
	if n == nil {
		return
	}
	if n.Kind == yaml.ScalarNode {
		r.hook(pos(n), n.Value, false)
		return
	}
	if w := items(n); len(w) > 2 && isShell(w[0].Value) && strings.HasPrefix(w[1].Value, "-") && strings.HasSuffix(w[1].Value, "c") {
		r.hook(pos(w[2]), w[2].Value, false)
	}
}

// hookElement judges a script of AutoYaST, which is a shell's where it does not say otherwise.
func (r *report) hookElement(script *element) {
	source, by := script.child("source"), script.child("interpreter")
	if source != nil && (by == nil || by.text == "shell" || isShell(by.text)) {
		r.hook(source.textAt, source.text, false)
	}
}
