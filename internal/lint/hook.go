package lint

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"bootlane/internal/shell"
)

// interpreter is the program that a script's first line names.
var interpreter = regexp.MustCompile(`\A#! *(?:/usr/bin/env +(?:-S +)?)?(\S+)`)

// isShell reports whether a program is one whose language bash's grammar holds.
func isShell(program string) bool {
	return slices.Contains([]string{"sh", "bash", "dash", "ash", "busybox"}, path.Base(program))
}

// hook judges whether a shell can read the commands that begin at p. With exact the lines are the file's own,
// and the place is told to the letter.
func (r *report) hook(p at, text string, exact bool) {
	if m := interpreter.FindStringSubmatch(text); m != nil && !isShell(m[1]) {
		return
	}
	fault := shell.Check(text)
	if fault == nil {
		return
	}
	if !exact {
		r.add("hook-syntax", p, "no shell can read line %d of this: %s", fault.Line, fault.Message)
		return
	}
	col := fault.Column
	if own := strings.Split(text, "\n"); fault.Line <= len(own) {
		col = column(own[fault.Line-1], min(col-1, len(own[fault.Line-1])))
	}
	if fault.Line == 1 {
		col += p.column - 1
	}
	r.add("hook-syntax", at{p.line + fault.Line - 1, col}, "no shell can read this: %s", fault.Message)
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

// hookElement judges a script of AutoYaST, which is a shell's where it does not say otherwise. ERB writes some
// of what stands in others.
func (r *report) hookElement(script *element) {
	source, by := script.child("source"), script.child("interpreter")
	if source != nil && (by == nil || by.text == "shell" || isShell(by.text)) && !strings.Contains(source.text, "<%") {
		r.hook(source.textAt, source.text, false)
	}
}
