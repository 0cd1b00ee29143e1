package tftp

import "strings"

const (
	maxNameSize    = 1024
	maxDecodeDepth = 4 // how often a name may be percent-encoded over before that alone is an attack
)

// normaliseName turns the file name of a request into the one given to the Source, or says why there is none. Firmware
// pads names with 0xFF, NUL and blanks, puts DOS separators in them (wimboot, bootmgr), leading slashes, and whole URLs
// (what iPXE scripts hand on). Percent signs stay as they are: TFTP has no escapes, so `%2e` is only looked through.
func normaliseName(raw string) (string, *Error) {
	if len(raw) > maxNameSize {
		return "", &Error{CodeAccessViolation, "file name is longer than 1024 bytes"}
	}
	name := strings.TrimLeft(strings.ReplaceAll(raw, `\`, "/"), "/")
	if len(name) >= 7 && strings.EqualFold(name[:7], "tftp://") {
		_, name, _ = strings.Cut(name[7:], "/")
	}
	var kept []string
	for segment := range strings.SplitSeq(name, "/") {
		if segment = trimPadding(segment); segment != "" && segment != "." {
			kept = append(kept, segment)
		}
	}
	name = strings.Join(kept, "/")
	switch {
	case name == "":
		return "", &Error{CodeNotFound, "file name is empty"}
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", &Error{CodeAccessViolation, "file name holds control characters"}
	case climbs(name):
		return "", &Error{CodeAccessViolation, "file name leads out of the tree"}
	}
	return name, nil
}

// trimPadding takes off what can follow a name, or a segment of one, without belonging to it.
func trimPadding(s string) string {
	n := len(s)
	for n > 0 && (s[n-1] <= ' ' || s[n-1] == 0x7f || s[n-1] == 0xff) {
		n--
	}
	return s[:n]
}

// climbs reports whether a segment of name is "..", also to somebody who decodes percent escapes, once or more often, or
// ignores blanks and NULs behind it. Escapes of anything else cannot make a "..", and stay.
func climbs(name string) bool {
	unescape := strings.NewReplacer("%25", "%", "%2e", ".", "%2E", ".", "%2f", "/", "%2F", "/",
		"%5c", "/", "%5C", "/", "%00", "\x00", "%20", " ")
	for range maxDecodeDepth {
		for segment := range strings.SplitSeq(name, "/") {
			if trimPadding(segment) == ".." {
				return true
			}
		}
		decoded := unescape.Replace(name)
		if decoded == name {
			return false
		}
		name = decoded
	}
	return true
}
