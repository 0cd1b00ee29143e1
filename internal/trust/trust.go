// Package trust says whose signatures a site believes: minisign signatures and a trust
// file to a verdict. It also makes such signatures, for those who sign.
//
// Signatures have the format of minisign (jedisct1.github.io/minisign): whoever doubts us
// can check them with that program.
package trust

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"aead.dev/minisign"

	"bootlane/internal/lane"
	"bootlane/internal/strictyaml"
)

// Policy is a trust file: which keys count, how many of them are needed, and what is revoked.
type Policy struct {
	Version   int // grows with every change
	Threshold int // different keys that must have signed
	Keys      []Key

	revokedKeys    []revokedKey
	revokedBundles map[lane.Digest]string // why
}

// Key is one trusted key.
type Key struct {
	Name        string
	Public      minisign.PublicKey
	From, Until time.Time // it counts from the first on, and no longer at the second; zero: no bound
}

type revokedKey struct {
	public minisign.PublicKey
	why    string
}

// Verdict is what a policy says of a message and its signatures.
type Verdict struct {
	Signers []string // names of the trusted keys that signed, in the order of the file
	Refusal string   // why that is not enough; empty: it is
}

// file is the trust file as it is written.
type file struct {
	Version   int       `yaml:"version"`
	Threshold int       `yaml:"threshold"`
	Keys      []fileKey `yaml:"keys"`
	Revoked   struct {
		Keys    []fileRevokedKey    `yaml:"keys,omitempty"`
		Bundles []fileRevokedBundle `yaml:"bundles,omitempty"`
	} `yaml:"revoked,omitempty"`
}

type fileKey struct {
	Name  string `yaml:"name"`
	Key   string `yaml:"key"`
	From  string `yaml:"from,omitempty"`
	Until string `yaml:"until,omitempty"`
}

type fileRevokedKey struct {
	Key string `yaml:"key"`
	Why string `yaml:"why"`
}

type fileRevokedBundle struct {
	Digest string `yaml:"digest"`
	Why    string `yaml:"why"`
}

// Parse reads a trust file, called name in messages. The error is Invalid and lists every
// problem with its line.
func Parse(name string, data []byte) (Policy, error) {
	var f file
	doc, problems := strictyaml.Decode(name, data, &f)
	p, bad := f.policy()
	var found []strictyaml.Problem
	for _, b := range bad {
		found = append(found, doc.Problem(b.Field, b.Message))
	}
	if problems = doc.Join(problems, found...); len(problems) > 0 {
		e := lane.Errorf(lane.Invalid, "the trust file %s cannot be used", name)
		for _, p := range problems {
			e.Problems = append(e.Problems, p.String())
		}
		return Policy{}, e
	}
	return p, nil
}

func (f file) policy() (p Policy, out []lane.Problem) {
	bad := func(field, format string, args ...any) {
		out = append(out, lane.Problem{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	p = Policy{Version: f.Version, Threshold: f.Threshold, revokedBundles: map[lane.Digest]string{}}
	if f.Version < 1 {
		bad("version", "%d: a number from 1 on, which grows with every change of the file", f.Version)
	}
	for i, k := range f.Keys {
		field := fmt.Sprintf("keys[%d]", i)
		key, problems := k.parse()
		for _, b := range problems {
			bad(field+"."+b.Field, "%s", b.Message)
		}
		for _, o := range p.Keys {
			if o.Public.Equal(key.Public) && !slices.ContainsFunc(problems, func(b lane.Problem) bool { return b.Field == "key" }) {
				bad(field+".key", "is that of %s already: one key counts once", o.Name)
			}
			if o.Name == key.Name && o.Name != "" {
				bad(field+".name", "%q is the name of another key", o.Name)
			}
		}
		p.Keys = append(p.Keys, key)
	}
	if len(f.Keys) == 0 {
		bad("keys", "is missing: without a key nobody could sign, not even the next version of this file")
	} else if f.Threshold < 1 || f.Threshold > len(f.Keys) {
		bad("threshold", "%d: from 1 to the number of keys, %d", f.Threshold, len(f.Keys))
	}
	for i, k := range f.Revoked.Keys {
		r := revokedKey{why: k.Why}
		if err := r.public.UnmarshalText([]byte(k.Key)); err != nil {
			bad(fmt.Sprintf("revoked.keys[%d].key", i), "%q is not a minisign public key, one line of base64 that begins with RW", k.Key)
		}
		p.revokedKeys = append(p.revokedKeys, r)
	}
	for i, b := range f.Revoked.Bundles {
		d, err := lane.ParseDigest(b.Digest)
		if err != nil {
			bad(fmt.Sprintf("revoked.bundles[%d].digest", i), "%v; `bootlane bundle list` shows it", err)
		}
		p.revokedBundles[d] = b.Why
	}
	return p, out
}

func (k fileKey) parse() (out Key, bad []lane.Problem) {
	out.Name = k.Name
	if k.Name == "" || k.Name != lane.Clean(k.Name, 60) {
		bad = append(bad, lane.Problem{Field: "name", Message: "is missing, or longer than 60 characters: who holds the key?"})
	}
	if err := out.Public.UnmarshalText([]byte(k.Key)); err != nil {
		bad = append(bad, lane.Problem{Field: "key", Message: fmt.Sprintf("%q is not a minisign public key, one line of base64 that begins with RW: `bootlane bundle keygen` prints it", k.Key)})
	}
	for _, t := range []struct {
		field, text string
		into        *time.Time
	}{{"from", k.From, &out.From}, {"until", k.Until, &out.Until}} {
		if t.text == "" {
			continue
		}
		var err error
		if *t.into, err = time.Parse(time.DateOnly, t.text); err != nil {
			*t.into, err = time.Parse(time.RFC3339, t.text)
		}
		if err != nil {
			bad = append(bad, lane.Problem{Field: t.field, Message: fmt.Sprintf("%q is not a date such as 2027-05-31", t.text)})
		}
	}
	if !out.Until.IsZero() && !out.From.Before(out.Until) {
		bad = append(bad, lane.Problem{Field: "until", Message: "is not after `from`"})
	}
	return out, bad
}

// unusable says why a key does not count now, or nothing.
func (p Policy) unusable(k minisign.PublicKey, from, until, now time.Time) string {
	if i := slices.IndexFunc(p.revokedKeys, func(r revokedKey) bool { return r.public.Equal(k) }); i >= 0 {
		return "is revoked: " + p.revokedKeys[i].why
	}
	switch {
	case now.Before(from):
		return "counts from " + from.UTC().Format(time.DateOnly) + " on"
	case !until.IsZero() && !now.Before(until):
		return "counts no longer since " + until.UTC().Format(time.DateOnly)
	}
	return ""
}

// signed is one signature that is good, or why it is not.
type signed struct {
	file string
	key  int    // index of Policy.Keys; -1: none
	why  string // of key -1
}

// verify finds whose the signatures of a message are, whatever the time.
func (p Policy) verify(message []byte, signatures map[string][]byte) (out []signed) {
	for _, name := range slices.Sorted(maps.Keys(signatures)) {
		out = append(out, p.verifyOne(name, message, signatures[name]))
	}
	return out
}

func (p Policy) verifyOne(name string, message, text []byte) signed {
	var sig minisign.Signature
	if err := sig.UnmarshalText(text); err != nil {
		return signed{name, -1, "is not a minisign signature"}
	}
	for i, k := range p.Keys {
		if minisign.Verify(k.Public, message, text) {
			return signed{name, i, ""}
		}
		if k.Public.ID() == sig.KeyID {
			return signed{name, -1, fmt.Sprintf("says that %s made it, and does not fit: the manifest was changed after it was signed, or it is forged", k.Name)}
		}
	}
	return signed{name, -1, fmt.Sprintf("is by the key %s, which the trust file does not name", KeyID(sig.KeyID))}
}

// Judge says whether enough trusted keys signed a manifest. signatures are by file name.
func (p Policy) Judge(manifest []byte, d lane.Digest, signatures map[string][]byte, now time.Time) Verdict {
	if why, ok := p.revokedBundles[d]; ok {
		return Verdict{Refusal: "the trust file revokes it: " + why}
	}
	return p.count(p.verify(manifest, signatures), now)
}

// count counts the keys that are good now.
func (p Policy) count(list []signed, now time.Time) Verdict {
	var v Verdict
	var why []string
	for i, k := range p.Keys {
		if !slices.ContainsFunc(list, func(s signed) bool { return s.key == i }) {
			continue
		}
		if u := p.unusable(k.Public, k.From, k.Until, now); u != "" {
			why = append(why, "the key "+k.Name+" "+u)
			continue
		}
		v.Signers = append(v.Signers, k.Name)
	}
	if len(v.Signers) >= p.Threshold {
		return v
	}
	for _, s := range list {
		if s.key < 0 {
			why = append(why, s.file+" "+s.why)
		}
	}
	if len(list) == 0 {
		why = append(why, "it is not signed: `bootlane bundle sign DIR --key FILE`, and import it again")
	}
	if len(v.Signers) > 0 {
		why = append([]string{"signed by " + strings.Join(v.Signers, ", ")}, why...)
		if others := p.others(v.Signers, now); len(others) > 0 {
			why = append(why, "it needs one more of "+strings.Join(others, ", "))
		}
	}
	v.Refusal = fmt.Sprintf("%d of the %d trusted signatures that it needs: %s", len(v.Signers), p.Threshold, strings.Join(why, "; "))
	return v
}

// others returns the names of the keys in force that have not signed.
func (p Policy) others(signers []string, now time.Time) (out []string) {
	for _, k := range p.Keys {
		if !slices.Contains(signers, k.Name) && p.unusable(k.Public, k.From, k.Until, now) == "" {
			out = append(out, k.Name)
		}
	}
	return out
}

// describe returns the policy for people.
func (p Policy) describe(now time.Time) lane.Trust {
	out := lane.Trust{Version: p.Version, Threshold: p.Threshold, Keys: []lane.TrustedKey{}, RevokedKeys: []lane.RevokedKey{}, RevokedBundles: []lane.RevokedBundle{}}
	for _, k := range p.Keys {
		out.Keys = append(out.Keys, lane.TrustedKey{Name: k.Name, ID: KeyID(k.Public.ID()), Key: k.Public.String(), From: k.From, Until: k.Until, Unusable: p.unusable(k.Public, k.From, k.Until, now)})
	}
	for _, r := range p.revokedKeys {
		out.RevokedKeys = append(out.RevokedKeys, lane.RevokedKey{ID: KeyID(r.public.ID()), Key: r.public.String(), Why: r.why})
	}
	for _, d := range slices.Sorted(maps.Keys(p.revokedBundles)) {
		out.RevokedBundles = append(out.RevokedBundles, lane.RevokedBundle{Digest: d, Why: p.revokedBundles[d]})
	}
	return out
}

// KeyID prints the number of a key as minisign does.
func KeyID(id uint64) string { return fmt.Sprintf("%016X", id) }
