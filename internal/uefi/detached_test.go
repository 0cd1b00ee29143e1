package uefi_test

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"bootlane/internal/lane"
	"bootlane/internal/uefi"
)

// TestDetached: OpenSSL takes what iPXE is to check, and finds a changed byte. iPXE itself
// cannot be asked: no build of Debian's has imgverify.
func TestDetached(t *testing.T) {
	own, other := pair(t, "Own images"), pair(t, "Other images")
	content := bytes.Repeat([]byte("an initrd "), 1000)
	signature, err := uefi.Detached(content, own)
	if err != nil {
		t.Fatal(err)
	}
	sig := filepath.Join(t.TempDir(), "initrd.sig")
	if err := os.WriteFile(sig, signature, 0o600); err != nil {
		t.Fatal(err)
	}
	verify := func(content []byte, by uefi.Signer) (string, bool) {
		return tool(t, "openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", sig, "-content", write(t, content), "-CAfile", pemOf(t, by), "-purpose", "any", "-no_check_time", "-out", os.DevNull)
	}
	if out, ok := verify(content, own); !ok {
		t.Errorf("openssl: %s", out)
	}
	if out, ok := verify(append(bytes.Clone(content), 'x'), own); ok {
		t.Errorf("other bytes: %s", out)
	}
	if out, ok := verify(content, other); ok {
		t.Errorf("another's certificate: %s", out)
	}
	if shown := must(t, "openssl", "cms", "-cmsout", "-print", "-inform", "DER", "-in", sig); !regexp.MustCompile(`signedAttrs:\s+<ABSENT>`).MatchString(shown) || !strings.Contains(shown, "eContent: <ABSENT>") {
		t.Errorf("iPXE takes a detached signature without signed attributes:\n%s", shown)
	}
	plain, err := uefi.NewKey(uefi.KeyRequest{Name: "Own KEK", Bits: 2048, NotBefore: day, Years: 10}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := uefi.Detached(content, plain); lane.CodeOf(err) != lane.Invalid || !strings.Contains(err.Error(), "codeSigning") {
		t.Errorf("a certificate for anything: %v", err)
	}
}
