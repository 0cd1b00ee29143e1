package lane

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// BundleStatus is a bundle as operators see it.
type BundleStatus struct {
	Bundle
	State   BundleState `json:"state"`
	By      string      `json:"by,omitempty"` // who brought it into its state
	Why     string      `json:"why,omitempty"`
	At      time.Time   `json:"at,omitzero"`
	Signers []string    `json:"signers,omitempty"` // names of trusted keys that signed it
	Aliases []string    `json:"aliases,omitempty"` // that point at it
	Refused string      `json:"refused,omitempty"` // why it may not be installed now
	// Fetch is set while somebody names the bundle, and the store lacks it or some of it.
	Fetch *BundleFetch `json:"fetch,omitempty"`
}

// Trust is whose signatures bundles need, now. The zero one: nobody's.
type Trust struct {
	File           string          `json:"file,omitempty"`
	Version        int             `json:"version"`
	Threshold      int             `json:"threshold"` // how many of the keys must have signed
	Keys           []TrustedKey    `json:"keys"`
	RevokedKeys    []RevokedKey    `json:"revokedKeys"`
	RevokedBundles []RevokedBundle `json:"revokedBundles"`
	Warning        string          `json:"warning,omitempty"` // why the file, as it stands there, is not what is in force
}

// TrustedKey is one of the keys.
type TrustedKey struct {
	Name     string    `json:"name"`
	ID       string    `json:"id"`  // as minisign prints it
	Key      string    `json:"key"` // public
	From     time.Time `json:"from,omitzero"`
	Until    time.Time `json:"until,omitzero"`
	Unusable string    `json:"unusable,omitempty"` // why it does not count now
}

// RevokedKey is a key that counts no longer, whatever it signed.
type RevokedKey struct {
	ID  string `json:"id"`
	Key string `json:"key"`
	Why string `json:"why,omitempty"`
}

// RevokedBundle is a bundle that the trust file revokes.
type RevokedBundle struct {
	Digest Digest `json:"digest"`
	Why    string `json:"why,omitempty"`
}

// BundleGC is what a garbage collection removes.
type BundleGC struct {
	Checked bool     `json:"checked,omitempty"` // nothing was removed: it was only asked
	Bundles []string `json:"bundles"`           // NAME-VERSION, in order
	Files   int      `json:"files"`             // blobs that no bundle refers to any more
	Bytes   int64    `json:"bytes"`
	Kept    []string `json:"kept,omitempty"` // NAME-VERSION: why
}

// BundleDamage is one file of the store whose bytes are not what they were.
type BundleDamage struct {
	Digest  Digest   `json:"digest"`
	Files   []string `json:"files,omitempty"` // what the bundles call it; none: it describes them
	Bundles []string `json:"bundles"`         // NAME-VERSION of those that need it
	Problem string   `json:"problem"`
}

// String says which file is damaged, and whom that hits.
func (d BundleDamage) String() string {
	what := "what describes it"
	if len(d.Files) > 0 {
		what = strings.Join(d.Files, ", ")
	}
	return what + " of " + strings.Join(d.Bundles, ", ") + ": " + d.Problem
}

// Evidence is the line about it.
func (d BundleDamage) Evidence(by string, now time.Time) Event {
	return Event{Subject: SubjectServer, At: now, Kind: KindRefused, By: by, Surface: SurfaceAPI, Name: strings.Join(d.Files, ", "), Digest: d.Digest,
		Message: Clean("a file of the bundle store is damaged, its bundles are refused until they are imported again: "+d.String(), 1000)}
}

// BundleFsck is what a check of the whole store found.
type BundleFsck struct {
	Files   int            `json:"files"`
	Bytes   int64          `json:"bytes"`
	Damaged []BundleDamage `json:"damaged"`
}

// BundleWork is long work on the bundle store, and how far it is, in bytes. The zero one is none.
type BundleWork struct {
	What  string `json:"what,omitempty"` // import debian-12-1, fsck
	Done  int64  `json:"done"`
	Total int64  `json:"total"`
}

// BundleChange is one difference between two bundles.
type BundleChange struct {
	Field string `json:"field"`         // path in the manifest: args, files.linux
	Was   string `json:"was,omitempty"` // empty: it is new
	Is    string `json:"is,omitempty"`  // empty: it is gone
}

// DiffBundles returns what differs from a to b, by field, in order. Arguments differ word by word.
func DiffBundles(a, b Bundle) []BundleChange {
	var out []BundleChange
	was, is := a.fields(), b.fields()
	keys := maps.Clone(was)
	maps.Copy(keys, is)
	for _, k := range slices.SortedFunc(maps.Keys(keys), func(x, y string) int { return cmp.Or(fieldRank(x)-fieldRank(y), strings.Compare(x, y)) }) {
		if was[k] != is[k] {
			out = append(out, BundleChange{k, was[k], is[k]})
		}
	}
	return out
}

// fieldRank puts what people look for first in front.
func fieldRank(field string) int {
	head, _, _ := strings.Cut(field, ".")
	order := []string{"name", "version", "os", "release", "arch", "seed", "kernel", "initrd", "args", "image", "tree", "architectures", "loaders", "minimumSBAT", "mirror", "security", "packages", "firstBoot", "config", "sections", "files", "expires", "sources"}
	return slices.Index(order, head)
}

// fields returns the manifest as paths and texts; what is empty is left out.
func (b Bundle) fields() map[string]string {
	out := map[string]string{"name": b.Name, "version": b.Version, "os": b.OS, "release": b.Release, "arch": string(b.Arch), "seed": b.Seed,
		"firstBoot": strings.Join(b.FirstBoot, ", "), "config": b.Config}
	for name, file := range b.Sections {
		out["sections."+name] = file
	}
	b.BundleVariant.fields("", out)
	for a, v := range b.Architectures {
		v.fields("architectures."+string(a)+".", out)
	}
	for p, l := range b.Loaders {
		out["loaders."+p] = strings.Join(l.Files(), ", ")
		if len(l.Config) > 0 {
			out["loaders."+p+".config"] = strings.Join(l.Config, ", ")
		}
		for key, set := range map[string]bool{"http": l.HTTP, "imageTrust": l.ImageTrust} {
			if set {
				out["loaders."+p+"."+key] = "true"
			}
		}
	}
	for component, n := range b.MinimumSBAT {
		out["minimumSBAT."+component] = strconv.Itoa(n)
	}
	for _, p := range b.Packages {
		out["packages."+p.URL] = p.Date + " " + string(p.Digest)
	}
	for name, f := range b.Files {
		out["files."+name] = fmt.Sprintf("%s, %d bytes", f.Digest, f.SizeBytes)
	}
	if !b.Expires.IsZero() {
		out["expires"] = stamp(b.Expires)
	}
	for _, s := range b.Sources {
		out["sources."+s.URL] = strings.TrimSpace(s.Licence + " " + strings.Join(s.Files, ", "))
	}
	maps.DeleteFunc(out, func(_, v string) bool { return v == "" })
	return out
}

// fields adds what stands in the manifest below at.
func (v BundleVariant) fields(at string, out map[string]string) {
	out[at+"kernel"], out[at+"initrd"], out[at+"tree"], out[at+"mirror"], out[at+"security"] = v.Kernel, v.Initrd, v.Tree, v.Mirror, v.Security
	n := map[string]int{}
	for _, word := range strings.Fields(v.Args) {
		key, _, _ := strings.Cut(word, "=")
		n[key]++ // console=tty0 console=ttyS0: the same key may stand twice
		if n[key] > 1 {
			key += "#" + strconv.Itoa(n[key])
		}
		out[at+"args."+key] = word
	}
	if i := v.Image; i != nil {
		out[at+"image"] = fmt.Sprintf("%s (%s), %d bytes as %s, root partition %s", i.File, i.Compression, i.RawBytes, i.RawDigest, i.RootLabel)
		out[at+"image.config"] = strings.TrimSpace(i.Config + " " + i.ConfigLabel)
	}
}
