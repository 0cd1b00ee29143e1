// Package shell says whether a shell can read a text, before a machine has one try.
package shell

import (
	"errors"
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
