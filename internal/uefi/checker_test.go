package uefi

import (
	"crypto"
	"testing"
)

// TestDigestsTaken: shim compares SHA-256 only, firmware what UEFI names; SHA-1 nobody.
func TestDigestsTaken(t *testing.T) {
	for _, c := range []struct {
		checker string
		alg     crypto.Hash
		want    bool
	}{{"firmware", crypto.SHA256, true}, {"firmware", crypto.SHA384, true}, {"firmware", crypto.SHA1, false}, {"shim", crypto.SHA256, true}, {"shim", crypto.SHA512, false}} {
		l := Link{Checker: c.checker}
		if err := l.refuses(&Signature{Algorithm: c.alg}); (err == nil) != c.want {
			t.Errorf("%s, %s: %v", c.checker, c.alg, err)
		}
	}
}
