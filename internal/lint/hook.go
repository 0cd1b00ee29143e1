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

// maxArgument is what one argument of a command may have (MAX_ARG_STRLEN, less its end): installers hand
// their hooks to sh -c.
const maxArgument = 32*4096 - 1

// cryptStart is how a hash of crypt(3) begins.
var cryptStart = regexp.MustCompile(`\$(?:5|6|y|gy|2[aby])\$[./A-Za-z0-9=,]{2,}\$`)

// isShell reports whether a program is one whose language bash's grammar holds.
func isShell(program string) bool {
	return slices.Contains([]string{"sh", "bash", "dash", "ash", "busybox"}, path.Base(program))
}

// hook judges whether a shell can read the commands that begin at p. With exact the lines are the file's own,
// and the place is told to the letter. With told the installer stops when they fail, and shows it.
func (r *report) hook(p at, text string, exact, told bool) {
	if m := interpreter.FindStringSubmatch(text); m != nil && !isShell(m[1]) {
		return
	}
	if fault := shell.Check(text); fault != nil {
		r.inHook(p, text, exact, "hook-syntax", *fault, "no shell can read this: "+fault.Message)
		return
	}
	if strings.Contains(text, "$") && cryptStart.MatchString(text) {
		for _, place := range shell.Expanded(text, cryptStart) {
			r.inHook(p, text, exact, "hook-hash-expanded", place, "the shell puts variables into this hash")
		}
	}
	if !told && (strings.Contains(text, "set -") || strings.HasPrefix(text, "#!")) {
		if place := shell.Unreported(text); place != nil {
			r.inHook(p, text, exact, "hook-exit-unreported", *place, "with set -e the first failure ends this, and no trap reports it")
		}
	}
}

// inHook says what is wrong at a place in the commands that begin at p.
func (r *report) inHook(p at, text string, exact bool, rule string, f shell.Fault, message string) {
	if !exact {
		r.add(rule, p, "line %d of this: %s", f.Line, message)
		return
	}
	col := f.Column
	if own := strings.Split(text, "\n"); f.Line <= len(own) {
		col = column(own[f.Line-1], min(col-1, len(own[f.Line-1])))
	}
	if f.Line == 1 {
		col += p.column - 1
	}
	r.add(rule, at{p.line + f.Line - 1, col}, "%s", message)
}

// hookNode judges a hook of YAML or JSON: text that a shell gets, or the words of a command, which may be one.
func (r *report) hookNode(n *yaml.Node) {
	if n == nil {
		return
	}
	if n.Kind == yaml.ScalarNode {
		r.hook(pos(n), n.Value, false, r.format == Autoinstall)
		return
	}
	if w := items(n); len(w) > 2 && isShell(w[0].Value) && strings.HasPrefix(w[1].Value, "-") && strings.HasSuffix(w[1].Value, "c") {
		r.hook(pos(w[2]), w[2].Value, false, r.format == Autoinstall)
	}
}

// hookElement judges a script of AutoYaST, which is a shell's where it does not say otherwise. ERB writes some
// of what stands in others.
func (r *report) hookElement(script *element) {
	source, by := script.child("source"), script.child("interpreter")
	if source != nil && (by == nil || by.text == "shell" || isShell(by.text)) && !strings.Contains(source.text, "<%") {
		r.hook(source.textAt, source.text, false, false)
	}
}
