package app_test

import (
	"strings"
	"testing"
)

// TestTFTPBounds: what is out of bounds is refused, with the bounds and why.
func TestTFTPBounds(t *testing.T) {
	for more, want := range map[string]string{
		"tftp: {maxPerClient: 1, maxWindow: 1, maxBlock: 512}":         "",
		"tftp: {maxPerClient: 1000, maxWindow: 1024, maxBlock: 65464}": "",
		"tftp: {maxPerClient: 1001}":                                   "tftp.maxPerClient: 1001: from 1 to 1000 transfers: one address must leave others some of the 2000 that all have together",
		"tftp: {maxPerClient: -1}":                                     "tftp.maxPerClient: -1: from 1 to 1000",
		"tftp: {maxWindow: 1025}":                                      "tftp.maxWindow: 1025: from 1 to 1024 blocks",
		"tftp: {maxBlock: 511}":                                        "tftp.maxBlock: 511: from 512 to 65464 bytes",
	} {
		if _, got := loadConfig(t, "", more); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", more, got, want)
		}
	}
}
