package source

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"bootlane/internal/lane"
)

// bsdSum is a line of RHEL's CHECKSUM: SHA256 (file.iso) = hex.
var bsdSum = regexp.MustCompile(`^SHA256 \(([^)]+)\) = ([0-9a-fA-F]{64})$`)

// Sum finds a file's SHA-256 in a list as distributions publish it: sha256sum's form (Debian,
// Ubuntu, SLES) or BSD's (RHEL and its kin), signed inline or not. The name is that of the
// file, or as much of its path in the list as tells it from others: two digests are
// refused with [lane.Invalid], none with [lane.NotFound].
func Sum(list []byte, name string) (lane.Digest, error) {
	found := ""
	if b, _ := clearsign.Decode(list); b != nil {
		list = b.Plaintext
	}
	for s := bufio.NewScanner(bytes.NewReader(list)); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		sum, file, _ := strings.Cut(line, " ")
		file = strings.TrimPrefix(strings.TrimPrefix(file, " "), "*")
		if m := bsdSum.FindStringSubmatch(line); m != nil {
			file, sum = m[1], m[2]
		}
		if !strings.HasSuffix("/"+file, "/"+name) || len(sum) != 64 {
			continue
		}
		if _, err := hex.DecodeString(sum); err != nil {
			continue
		}
		if sum = strings.ToLower(sum); found != "" && found != sum {
			return "", lane.Errorf(lane.Invalid, "the list has two digests of %s: say which with more of its path, or give the list of one release", lane.Clean(name, 120))
		}
		found = sum
	}
	if found == "" {
		return "", lane.Errorf(lane.NotFound, "the list has no SHA-256 of %s: give the SHA256SUMS that was published beside it, and keep the file's name", lane.Clean(name, 120))
	}
	return lane.ParseDigest("sha256:" + found)
}

// Signed checks the OpenPGP signature of a list, and returns who made it. The signature is
// detached, binary or armoured, or the list's own (inline) when there is none. keys is
// a keyring of trusted keys; at is when they must be valid. The list itself, without the
// frame of an inline signature, is what was signed.
//
// ProtonMail's library reads it: golang.org/x/crypto/openpgp is frozen, and gpgv is a program
// that a single binary on a blank machine does not have.
func Signed(list, signature, keys []byte, at time.Time) (content []byte, by string, err error) {
	ring, err := openpgp.ReadKeyRing(bytes.NewReader(keys))
	if bytes.HasPrefix(bytes.TrimSpace(keys), []byte("-----BEGIN")) {
		ring, err = openpgp.ReadArmoredKeyRing(bytes.NewReader(keys))
	}
	if err != nil {
		return nil, "", lane.Errorf(lane.Invalid, "this is no keyring of OpenPGP keys (gpg --export): %v", err)
	}
	config := &packet.Config{Time: func() time.Time { return at }}
	var signer *openpgp.Entity
	switch inline, _ := clearsign.Decode(list); {
	case len(signature) == 0 && inline == nil:
		return nil, "", lane.Errorf(lane.Invalid, "the list is not signed inline: give its detached signature (SHA256SUMS.gpg, .sign or .asc)")
	case len(signature) == 0:
		content = inline.Plaintext
		signer, err = openpgp.CheckDetachedSignature(ring, bytes.NewReader(inline.Bytes), inline.ArmoredSignature.Body, config)
	case bytes.HasPrefix(bytes.TrimSpace(signature), []byte("-----BEGIN")):
		content = list
		signer, err = openpgp.CheckArmoredDetachedSignature(ring, bytes.NewReader(list), bytes.NewReader(signature), config)
	default:
		content = list
		signer, err = openpgp.CheckDetachedSignature(ring, bytes.NewReader(list), bytes.NewReader(signature), config)
	}
	if err != nil {
		return nil, "", lane.Errorf(lane.Refused, "the signature of the list does not hold (%v): fetch list and signature again, or give the distribution's own keyring", err)
	}
	for name := range signer.Identities {
		if by == "" || name < by {
			by = name
		}
	}
	return content, fmt.Sprintf("%s (%X)", lane.Clean(by, 120), signer.PrimaryKey.Fingerprint), nil
}
