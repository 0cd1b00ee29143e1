// Package shell says whether a shell can read a text, before a machine has one try.
package shell

import (
	"errors"
	"regexp"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// Fault is the place where no shell could go on.
type Fault struct {
	Line, Column int // from 1; the column in bytes
	Message      string
}

// Check parses a text by bash's grammar, of which those of dash and busybox are parts. It returns nil
// for a text that can be read.
func Check(text string) *Fault {
	err := parse(text)
	// The parser takes every (( for arithmetic, where a shell tries whether it is a subshell within another.
	if err == nil || strings.Contains(text, "((") && parse(strings.ReplaceAll(text, "((", "( (")) == nil {
		return nil
	}
	var at syntax.ParseError
	if !errors.As(err, &at) {
		return &Fault{1, 1, err.Error()}
	}
	return &Fault{max(int(at.Pos.Line()), 1), max(int(at.Pos.Col()), 1), at.Text}
}

func parse(text string) error {
	_, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
	return err
}

// Expanded returns where the shell puts in a variable, and the text from there on is what the
// expression matches. In single quotes, and in a here-document whose end is quoted, it puts in none.
func Expanded(text string, what *regexp.Regexp) (out []Fault) {
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
	if err != nil {
		return nil
	}
	syntax.Walk(file, func(n syntax.Node) bool {
		if p, ok := n.(*syntax.ParamExp); ok && p.Short {
			from := int(p.Pos().Offset())
			if m := what.FindStringIndex(text[min(from, len(text)):]); m != nil && m[0] == 0 {
				out = append(out, Fault{Line: int(p.Pos().Line()), Column: int(p.Pos().Col())})
			}
		}
		return true
	})
	return out
}

// exitsByName is an interpreter that is started so.
var exitsByName = regexp.MustCompile(`\A#!.*sh +-[a-z]*e`)

// Unreported returns where the shell is told to end with the first failure, if nothing is told to be
// done then; nil where it is not, or a trap is set. What subshells and functions are told is theirs.
func Unreported(text string) (exits *Fault) {
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
	if err != nil {
		return nil
	}
	if exitsByName.MatchString(text) {
		exits = &Fault{1, 1, ""}
	}
	for _, s := range file.Stmts {
		call, ok := s.Cmd.(*syntax.CallExpr)
		if ok && exits == nil && len(call.Args) > 1 && call.Args[0].Lit() == "set" && setsExit(call.Args[1:]) {
			exits = &Fault{Line: int(call.Pos().Line()), Column: int(call.Pos().Col())}
		}
	}
	traps := false
	syntax.Walk(file, func(n syntax.Node) bool {
		call, ok := n.(*syntax.CallExpr)
		traps = traps || ok && len(call.Args) > 0 && call.Args[0].Lit() == "trap"
		return true
	})
	if traps {
		return nil
	}
	return exits
}

// setsExit reports whether the arguments of set are to end the shell with the first failure.
func setsExit(args []*syntax.Word) bool {
	for i, a := range args {
		option := a.Lit()
		if !strings.HasPrefix(option, "-") {
			continue
		}
		if strings.Contains(option, "e") || strings.HasSuffix(option, "o") && i+1 < len(args) && args[i+1].Lit() == "errexit" {
			return true
		}
	}
	return false
}
