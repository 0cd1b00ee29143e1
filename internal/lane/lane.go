// Package lane is the domain of Bootlane: what a machine is, what state it is
// in, what it said, and the one question every boot surface asks: may this
// machine, now, be given bytes that erase its disk?
//
// The package is pure. It has no clock, no randomness, no files, no sockets and
// no logging; everything it judges is handed to it as a value. [Decide] is
// total: whatever it is given, it returns a Decision, and the zero Decision is
// the safe one.
package lane

import (
	"errors"
	"fmt"
)

// HostID is the operator's name for a machine's record: a DNS label, unique in the inventory.
type HostID string

// RunID names one authorised attempt to install one bundle on one host.
type RunID string

// Digest names bytes: "sha256:" and 64 lower-case hex digits.
type Digest string

// Code classifies an Error for machines: it becomes an HTTP status, an exit
// code, a TFTP error number.
type Code string

// The codes an [Error] may carry.
const (
	Invalid     Code = "invalid"     // the input is wrong; sending it again will not help
	NotFound    Code = "not-found"   // there is no such thing
	Refused     Code = "refused"     // understood, and not allowed in the present state
	Conflict    Code = "conflict"    // somebody else changed it first; read again and retry
	Unavailable Code = "unavailable" // a part we need does not answer; retry later
)

// Error is an error with a class for machines and a sentence for people.
type Error struct {
	Code     Code
	Message  string   // one sentence, says what to do next where there is something to do
	Problems []string // every single finding, when there are several
	Err      error    // the cause, for us
}

// Error returns the sentence and the problems, one a line.
func (e *Error) Error() string {
	s := e.Message
	for _, p := range e.Problems {
		s += "\n  - " + p
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an [Error] without a cause.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// CodeOf returns the code of the first [Error] in err's chain, or "" when there is none:
// such an error is ours, and internal.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
