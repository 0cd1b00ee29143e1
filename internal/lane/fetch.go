package lane

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The states of a bundle that somebody names and that the store has not got. They are told,
// and never on record.
const (
	BundleFetching BundleState = "fetching" // from the site's registry, now or in its turn
	BundleLacking  BundleState = "lacking"  // the last attempt failed, the next one will come
)

// BundleFetch is how far the server is with a bundle that is wanted, and that the store has
// not got or not in good order.
type BundleFetch struct {
	From   string    `json:"from"`             // reference in the registry
	Wanted string    `json:"wanted,omitempty"` // by what: the host node1
	Sought bool      `json:"sought,omitempty"` // nobody knows yet whether the registry has it
	Active bool      `json:"active,omitempty"` // it is being fetched now
	Done   int64     `json:"done"`             // bytes of its files
	Total  int64     `json:"total"`            // 0: not known yet
	Error  string    `json:"error,omitempty"`  // why the last attempt failed
	Code   Code      `json:"code,omitempty"`   // not-found, refused, unavailable: unknown there, not admitted here, broken on the way
	Tries  int       `json:"tries,omitempty"`  // that failed, one after the other
	Next   time.Time `json:"next,omitzero"`    // when it is tried again
}

// State is what a bundle is shown as while it is not there.
func (f BundleFetch) State() BundleState {
	if f.Active || f.Tries == 0 {
		return BundleFetching
	}
	return BundleLacking
}

// Bytes says how far it is, or nothing where that is not known.
func (f BundleFetch) Bytes() string {
	if f.Total == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d bytes", f.Done, f.Total)
}

// Brief says what goes on, for the evidence of a machine that asks again and again. What the
// registry does not have, what is refused and what did not get through read differently:
// each has another remedy.
func (f BundleFetch) Brief() string {
	switch {
	case f.State() == BundleFetching && f.Sought:
		return "it is looked for in the registry, as " + f.From
	case f.State() == BundleFetching:
		return "it is being fetched from " + f.From
	case f.Code == NotFound:
		return "the registry does not have it"
	case f.Code == Refused || f.Code == Invalid:
		return "what the registry has is refused: " + f.Error
	}
	return "it cannot be fetched from " + f.From + " now"
}

// String says the same with all that is known, on one line.
func (f BundleFetch) String() string {
	s := f.Brief()
	if b := f.Bytes(); b != "" {
		s += ", " + b
	}
	if f.Tries == 0 {
		return s
	}
	if !strings.HasSuffix(s, f.Error) {
		s += ": " + f.Error
	}
	if f.Active {
		return fmt.Sprintf("%s (so attempt %d ended)", s, f.Tries)
	}
	return fmt.Sprintf("%s (attempt %d; the next one at %s)", s, f.Tries, stamp(f.Next))
}

// Later says the same to somebody who wants it now.
func (f BundleFetch) Later() string {
	if f.State() == BundleFetching {
		return f.String() + "; try again when it is here"
	}
	return f.String()
}

// BundleName is a bundle's name and version.
type BundleName struct{ Name, Version string }

// SplitRef returns every name and version that NAME-VERSION may stand for: both may have hyphens.
func SplitRef(ref string) (out []BundleName) {
	sound := func(s string) bool {
		return s != "" && s[0] != '.' && s[0] != '-' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789.-") == "" && !strings.HasSuffix(s, "-")
	}
	for i := range ref {
		if ref[i] == '-' && sound(ref[:i]) && sound(ref[i+1:]) {
			out = append(out, BundleName{ref[:i], ref[i+1:]})
		}
	}
	return out
}

// maxNearest is how many names are offered in the place of one that nobody knows.
const maxNearest = 3

// Nearest returns those names that may have been meant by one that is none of them, the most
// similar first: they differ in few letters.
func Nearest(name string, names []string) (out []string) {
	far := map[string]int{}
	for _, n := range names {
		if d := distance(name, n); n != name && d <= 1+len(name)/4 {
			far[n] = d
		}
	}
	for n := range far {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(far[a]-far[b], strings.Compare(a, b)) })
	return out[:min(len(out), maxNearest)]
}

// distance is how many letters must be put in, taken out or changed to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before, row[j+1] = row[j+1], min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// BundleNotFetched is the evidence that a wanted bundle could not be had.
func BundleNotFetched(name, ref string, d Digest, code Code, why string, now time.Time) Event {
	said := map[Code]string{NotFound: "is not in the registry", Refused: "is refused as the registry has it", Invalid: "is refused as the registry has it"}[code]
	if said == "" {
		said = "cannot be fetched from the registry now"
	}
	return Event{Subject: BundleSubject(name), At: now, Kind: KindRefused, By: ByRegistry, Surface: SurfaceSelf, Name: ref, Digest: d,
		Message: Clean("bundle "+ref+" "+said+": "+why, 1000)}
}

// ByRegistry is who brings a bundle in that nobody imported by hand.
const ByRegistry = "registry"
