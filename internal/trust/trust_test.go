package trust_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/scrypt"

	"bootlane/internal/lane"
	"bootlane/internal/trust"
)

// pair is one key pair, made of a seed: the same in every run.
type pair struct {
	private, public []byte
	line            string // of the public key
}

func newPair(t testing.TB, seed int64) pair {
	t.Helper()
	private, public, err := trust.NewKey(rand.New(rand.NewSource(seed)), "")
	must(t, err)
	lines := strings.Split(strings.TrimSpace(string(public)), "\n")
	return pair{private, public, lines[len(lines)-1]}
}

func (p pair) sign(t testing.TB, message []byte) []byte {
	t.Helper()
	signer, err := trust.FromFile(p.private, "")
	must(t, err)
	sig, err := signer.Sign(message, "manifest.json", now)
	must(t, err)
	return sig
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var (
	now     = time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)
	message = []byte(`{"name":"debian-12"}`)
)

const digest = lane.Digest("sha256:1111111111111111111111111111111111111111111111111111111111111111")

func parse(t testing.TB, text string) trust.Policy {
	t.Helper()
	p, err := trust.Parse("trust.yaml", []byte(text))
	must(t, err)
	return p
}

// TestJudge: who counts, when, and how many of them.
func TestJudge(t *testing.T) {
	a, b, c := newPair(t, 1), newPair(t, 2), newPair(t, 3)
	keys := fmt.Sprintf("keys:\n  - {name: alice, key: %s, from: 2026-01-01, until: 2027-01-01}\n  - {name: bob, key: %s}\n", a.line, b.line)
	one, two := "version: 1\nthreshold: 1\n"+keys, "version: 1\nthreshold: 2\n"+keys
	sa, sb, sc := a.sign(t, message), b.sign(t, message), c.sign(t, message)
	for name, c := range map[string]struct {
		policy  string
		sigs    map[string][]byte
		at      time.Time
		signers string
		says    string
	}{
		"signed":             {one, map[string][]byte{"s": sa}, now, "alice", ""},
		"unsigned":           {one, nil, now, "", "it is not signed"},
		"a stranger's":       {one, map[string][]byte{"s": sc}, now, "", "which the trust file does not name"},
		"a stranger's too":   {one, map[string][]byte{"s": sc, "s2": sb}, now, "bob", ""},
		"of other bytes":     {one, map[string][]byte{"s": a.sign(t, []byte("other"))}, now, "", "says that alice made it, and does not fit"},
		"garbage":            {one, map[string][]byte{"s": []byte("x")}, now, "", "s is not a minisign signature"},
		"two of two":         {two, map[string][]byte{"s": sa, "s2": sb}, now, "alice bob", ""},
		"one of two":         {two, map[string][]byte{"s": sa}, now, "alice", "1 of the 2 trusted signatures"},
		"the same one twice": {two, map[string][]byte{"s": sa, "s2": sa}, now, "alice", "1 of the 2"},
		"too early":          {one, map[string][]byte{"s": sa}, time.Date(2025, 12, 31, 23, 59, 59, 0, time.UTC), "", "alice counts from 2026-01-01 on"},
		"too late":           {one, map[string][]byte{"s": sa}, time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), "", "alice counts no longer since 2027-01-01"},
		"in its last second": {one, map[string][]byte{"s": sa}, time.Date(2026, 12, 31, 23, 59, 59, 0, time.UTC), "alice", ""},
		"a revoked key":      {one + "revoked: {keys: [{key: " + a.line + ", why: stolen}]}\n", map[string][]byte{"s": sa}, now, "", "alice is revoked: stolen"},
		"a revoked bundle":   {one + "revoked: {bundles: [{digest: " + string(digest) + ", why: bad kernel}]}\n", map[string][]byte{"s": sa}, now, "", "revokes it: bad kernel"},
		"another revoked":    {one + "revoked: {bundles: [{digest: " + strings.Replace(string(digest), "1", "2", 1) + "}]}\n", map[string][]byte{"s": sa}, now, "alice", ""},
	} {
		v := parse(t, c.policy).Judge(message, digest, c.sigs, c.at)
		if strings.Join(v.Signers, " ") != c.signers || (v.Refusal == "") != (c.says == "") || !strings.Contains(v.Refusal, c.says) {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// TestParseProblems: all at once, with line and field.
func TestParseProblems(t *testing.T) {
	a := newPair(t, 1)
	_, err := trust.Parse("trust.yaml", []byte(`version: 0
threshold: 9
keys:
  - {name: alice, key: `+a.line+`, until: soon}
  - {name: alice, key: `+a.line+`}
  - {key: RWQabc, from: 2027-01-01, until: 2026-01-01}
revoked:
  keys: [{key: nonsense}]
  bundles: [{digest: "1234"}]
`))
	for _, want := range []string{"trust.yaml:1: version: 0", "trust.yaml:2: threshold: 9: from 1 to the number of keys, 3", `trust.yaml:4: keys[0].until: "soon"`, "keys[1].key: is that of alice already",
		`keys[1].name: "alice" is the name of another key`, "keys[2].name: is missing", `keys[2].key: "RWQabc" is not a minisign public key`, "keys[2].until: is not after `from`", `revoked.keys[0].key: "nonsense"`, "revoked.bundles[0].digest"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not say %s", err, want)
		}
	}
	if _, err := trust.Parse("t", nil); lane.CodeOf(err) != lane.Invalid {
		t.Errorf("an empty file: %v", err)
	}
}

// TestStockMinisign: the stock program takes our keys and signatures, and we take its.
func TestStockMinisign(t *testing.T) {
	program, err := exec.LookPath("minisign")
	if err != nil {
		t.Fatal("this test needs minisign: apt-get install minisign")
	}
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(program, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("minisign %v: %v: %s", args, err, out)
		}
	}
	write := func(name string, data []byte) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	read := func(name string) []byte {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		return data
	}
	ours := newPair(t, 1)
	write("manifest.json", message)
	write("ours.pub", ours.public)
	write("ours.key", ours.private)
	write("manifest.json.minisig", ours.sign(t, message))
	run("-V", "-m", "manifest.json", "-p", "ours.pub")
	run("-V", "-H", "-m", "manifest.json", "-P", ours.line)
	run("-S", "-W", "-m", "manifest.json", "-s", "ours.key", "-x", "by-them.minisig")
	run("-G", "-W", "-p", "theirs.pub", "-s", "theirs.key")
	run("-S", "-m", "manifest.json", "-s", "theirs.key", "-x", "theirs.minisig")
	run("-S", "-l", "-m", "manifest.json", "-s", "theirs.key", "-x", "legacy.minisig")
	lines := strings.Split(strings.TrimSpace(string(read("theirs.pub"))), "\n")
	for _, c := range []struct{ key, sig string }{{ours.line, "by-them.minisig"}, {lines[1], "theirs.minisig"}, {lines[1], "legacy.minisig"}} {
		v := parse(t, "version: 1\nthreshold: 1\nkeys: [{name: k, key: "+c.key+"}]\n").Judge(message, digest, map[string][]byte{c.sig: read(c.sig)}, now)
		if v.Refusal != "" {
			t.Errorf("%s: %s", c.sig, v.Refusal)
		}
	}
	signer, err := trust.FromFile(read("theirs.key"), "")
	must(t, err)
	sig, err := signer.Sign(message, "manifest.json", now)
	must(t, err)
	write("manifest.json.minisig", sig)
	run("-V", "-m", "manifest.json", "-p", "theirs.pub")
}

// encrypted returns the private key as minisign encrypts it, but with parameters that take
// milliseconds: those of real keys take a gigabyte of memory and seconds.
func (p pair) encrypted(t *testing.T, passphrase string) []byte {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(string(p.private)), "\n")
	b, err := base64.StdEncoding.DecodeString(lines[1])
	must(t, err)
	copy(b[2:4], "Sc")
	binary.LittleEndian.PutUint64(b[38:], 32768)
	binary.LittleEndian.PutUint64(b[46:], 16<<20)
	sum := blake2b.Sum256(slices.Concat(b[:2], b[54:126]))
	copy(b[126:], sum[:])
	stream, err := scrypt.Key([]byte(passphrase), b[6:38], 1024, 8, 1, len(b)-54)
	must(t, err)
	for i, k := range stream {
		b[54+i] ^= k
	}
	return []byte(lines[0] + "\n" + base64.StdEncoding.EncodeToString(b) + "\n")
}

// TestPassphrase: a key opens with its passphrase, and with no other.
func TestPassphrase(t *testing.T) {
	private := newPair(t, 1).encrypted(t, "open sesame")
	if !trust.Encrypted(private) {
		t.Fatal("the key is not encrypted")
	}
	if _, err := trust.FromFile(private, "open says me"); lane.CodeOf(err) != lane.Invalid || !strings.Contains(err.Error(), "passphrase") {
		t.Errorf("a wrong passphrase: %v", err)
	}
	signer, err := trust.FromFile(private, "open sesame")
	must(t, err)
	if _, err := signer.Sign(message, "m", now); err != nil {
		t.Error(err)
	}
}

// TestForeignSigner: what an external signer returns is checked before anybody gets it.
func TestForeignSigner(t *testing.T) {
	seed := bytes.Repeat([]byte{7}, ed25519.SeedSize)
	hsm := ed25519.NewKeyFromSeed(seed)
	var text [42]byte
	copy(text[:], "Ed\x01\x02\x03\x04\x05\x06\x07\x08")
	copy(text[10:], hsm.Public().(ed25519.PublicKey))
	line := base64.StdEncoding.EncodeToString(text[:])
	public, err := trust.ParsePublic([]byte(line))
	must(t, err)
	sig, err := trust.External(func(m []byte) ([]byte, error) { return ed25519.Sign(hsm, m), nil }, public).Sign(message, "m", now)
	must(t, err)
	if v := parse(t, "version: 1\nthreshold: 1\nkeys: [{name: hsm, key: "+line+"}]\n").Judge(message, digest, map[string][]byte{"s": sig}, now); v.Refusal != "" {
		t.Error(v.Refusal)
	}
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize))
	for name, c := range map[string]struct {
		raw  trust.Raw
		says string
	}{
		"another key": {func(m []byte) ([]byte, error) { return ed25519.Sign(other, m), nil }, "another private key made it"},
		"short":       {func([]byte) ([]byte, error) { return []byte("sig"), nil }, "3 bytes are no Ed25519 signature"},
		"broken":      {func([]byte) ([]byte, error) { return nil, errors.New("no token") }, "no token"},
	} {
		if sig, err := trust.External(c.raw, public).Sign(message, "m", now); err == nil || sig != nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %s, %v", name, sig, err)
		}
	}
}

// TestRotation: a changed trust file comes into force by a higher version and the old
// keys' signatures, and not otherwise; also over a restart.
func TestRotation(t *testing.T) {
	a, b := newPair(t, 1), newPair(t, 2)
	dir := t.TempDir()
	file, accepted := filepath.Join(dir, "trust.yaml"), filepath.Join(dir, "accepted.yaml")
	policy := func(version int, keys ...pair) []byte {
		text := fmt.Sprintf("version: %d\nthreshold: 1\nkeys:\n", version)
		for i, k := range keys {
			text += fmt.Sprintf("  - {name: k%d, key: %s}\n", i, k.line)
		}
		return []byte(text)
	}
	clock := time.Unix(1e9, 0)
	write := func(text []byte, signer *pair) {
		t.Helper()
		must(t, os.RemoveAll(file+".minisig"))
		if signer != nil {
			must(t, os.WriteFile(file+".minisig", signer.sign(t, text), 0o644))
		}
		must(t, os.WriteFile(file, text, 0o644))
		clock = clock.Add(time.Second) // a file system may keep no finer time
		must(t, os.Chtimes(file, clock, clock))
	}
	write(policy(1, a), nil)
	if w := trust.Pending(file, accepted, now); w != "" {
		t.Errorf("the first file, before any server: %q", w)
	}
	k, err := trust.Open(file, accepted, func() time.Time { return now })
	must(t, err)
	sa, sb := map[string][]byte{"s": a.sign(t, message)}, map[string][]byte{"s": b.sign(t, message)}
	expect := func(what string, byA, byB bool, warning string) {
		t.Helper()
		for _, again := range []bool{false, true} {
			if again {
				if k, err = trust.Open(file, accepted, func() time.Time { return now }); err != nil {
					t.Fatal(err)
				}
			}
			va, vb := k.Judge(message, digest, sa), k.Judge(message, digest, sb)
			if (va.Refusal == "") != byA || (vb.Refusal == "") != byB {
				t.Errorf("%s, opened again %v: by a %q, by b %q", what, again, va.Refusal, vb.Refusal)
			}
			if w := k.Warning(); (w == "") != (warning == "") || !strings.Contains(w, warning) {
				t.Errorf("%s, opened again %v: warns %q", what, again, w)
			}
			if w := trust.Pending(file, accepted, now); (w == "") != (warning == "") {
				t.Errorf("%s, looked at from outside: %q", what, w)
			}
		}
	}
	expect("the first", true, false, "")
	write(policy(2, b), nil)
	expect("unsigned", true, false, "must be signed by the keys in force")
	write(policy(2, b), &b)
	expect("signed by the new key only", true, false, "must be signed by the keys in force")
	write(policy(1, b), &a)
	expect("with the same version", true, false, "give it a higher one")
	write([]byte("version: 2\nthreshold: 1\n"), &a)
	expect("without keys", true, false, "cannot be used")
	must(t, os.Remove(file))
	expect("gone", true, false, "cannot be read")
	write(policy(2, b), nil)
	expect("unsigned again", true, false, "must be signed")
	must(t, os.WriteFile(file+".minisig", a.sign(t, policy(2, b)), 0o644)) // the signature follows later
	expect("signed by the old key", false, true, "")
	write(policy(1, a), &a)
	expect("back to the first", false, true, "give it a higher one")
	if text, err := os.ReadFile(accepted); err != nil || !bytes.Equal(text, policy(2, b)) {
		t.Errorf("in force is\n%s, %v", text, err)
	}
}

// TestInForce: what counts is told as it is, a stranger's change and what does not count too.
func TestInForce(t *testing.T) {
	a, b := newPair(t, 1), newPair(t, 2)
	file := filepath.Join(t.TempDir(), "trust.yaml")
	text := fmt.Sprintf("version: 3\nthreshold: 1\nkeys:\n  - {name: alice, key: %s, from: 2026-01-01, until: 2027-01-01}\n  - {name: bob, key: %s}\nrevoked:\n  keys: [{key: %s, why: stolen}]\n  bundles: [{digest: %s, why: CVE}]\n", a.line, b.line, b.line, digest)
	must(t, os.WriteFile(file, []byte(text), 0o644))
	k, err := trust.Open(file, file+".accepted", func() time.Time { return now })
	must(t, err)
	must(t, os.WriteFile(file, []byte(strings.Replace(text, "version: 3", "version: 44", 1)), 0o644))
	got := k.InForce()
	if !strings.Contains(got.Warning, "must be signed by the keys in force") {
		t.Errorf("the change: %q", got.Warning)
	}
	if got.File != file || got.Version != 3 || got.Threshold != 1 || len(got.Keys) != 2 || len(got.RevokedKeys) != 1 || len(got.RevokedBundles) != 1 {
		t.Fatalf("%+v", got)
	}
	alice, bob := got.Keys[0], got.Keys[1]
	if alice.Name != "alice" || alice.Key != a.line || alice.Unusable != "" || alice.From.Year() != 2026 || alice.Until.Year() != 2027 || len(alice.ID) != 16 {
		t.Errorf("%+v", alice)
	}
	if bob.Unusable != "is revoked: stolen" || got.RevokedKeys[0].Key != b.line || got.RevokedKeys[0].ID != bob.ID || got.RevokedBundles[0] != (lane.RevokedBundle{Digest: digest, Why: "CVE"}) {
		t.Errorf("%+v, %+v", bob, got)
	}
}

// FuzzParse: no trust file panics, and none without a key lets anything through.
func FuzzParse(f *testing.F) {
	a := newPair(f, 1)
	f.Add([]byte("version: 1\nthreshold: 1\nkeys: [{name: a, key: " + a.line + "}]\n"))
	f.Add([]byte("keys: [{}]\nrevoked: {keys: [{}], bundles: [{}]}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := trust.Parse("t", data)
		if err == nil && (len(p.Keys) < p.Threshold || p.Judge(message, digest, nil, now).Refusal == "") {
			t.Fatalf("%s trusts everybody", data)
		}
	})
}

// FuzzSignature: only what the key made is its signature.
func FuzzSignature(f *testing.F) {
	a := newPair(f, 1)
	good := a.sign(f, message)
	p := parse(f, "version: 1\nthreshold: 1\nkeys: [{name: a, key: "+a.line+"}]\n")
	f.Add(good)
	f.Add([]byte("untrusted comment: \nAAAA\ntrusted comment: \nAAAA"))
	second := func(text []byte) string {
		lines := bytes.Split(text, []byte("\n"))
		if len(lines) < 2 {
			return ""
		}
		return string(bytes.TrimRight(lines[1], "\r"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if v := p.Judge(message, digest, map[string][]byte{"s": data}, now); v.Refusal == "" && strings.TrimRight(second(data), "=\r\n") != strings.TrimRight(second(good), "=\r\n") {
			t.Fatalf("%q passes", data)
		}
	})
}

func BenchmarkJudge(b *testing.B) {
	a := newPair(b, 1)
	p := parse(b, "version: 1\nthreshold: 1\nkeys: [{name: a, key: "+a.line+"}]\n")
	sigs := map[string][]byte{"s": a.sign(b, message)}
	for b.Loop() {
		if p.Judge(message, digest, sigs, now).Refusal != "" {
			b.Fatal("refused")
		}
	}
}
