package lane

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// BundleState is what operators decided about a bundle.
type BundleState string

// The states of a bundle in the store.
const (
	BundleImported BundleState = "imported" // verified and stored
	BundleApproved BundleState = "approved" // an operator said that it may be installed
	BundleRevoked  BundleState = "revoked"  // never again, whoever signed it
)

// BundleRecord is what is on record about a bundle. It stays when the files are
// collected: a version never means other bytes.
type BundleRecord struct {
	Digest   Digest      `json:"digest"`
	Name     string      `json:"name"`
	Version  string      `json:"version"`
	Rev      int64       `json:"rev"` // optimistic lock: grows by one with every change
	State    BundleState `json:"state"`
	By       string      `json:"by"` // who brought it into its state
	Why      string      `json:"why,omitempty"`
	At       time.Time   `json:"at"`
	Imported time.Time   `json:"imported"`
	// Rollback says that somebody allowed it in although a higher version was on record.
	Rollback bool `json:"rollback,omitempty"`
}

// Ref returns NAME-VERSION.
func (r BundleRecord) Ref() string { return r.Name + "-" + r.Version }

// Revoked says since when, by whom and why the bundle is revoked, or nothing.
func (r BundleRecord) Revoked() string {
	if r.State != BundleRevoked {
		return ""
	}
	return fmt.Sprintf("%s is revoked since %s by %s: %s", r.Ref(), stamp(r.At), r.By, orDash(r.Why))
}

// Revocation is what is on record of a bundle that was revoked, and whom that concerns.
type Revocation struct {
	BundleRecord
	Stopped []HostID `json:"stopped"` // their open runs are bound to it, and get nothing more
	Written []HostID `json:"written"` // their open runs have written it to the disk, and go on
	Hosts   []HostID `json:"hosts"`   // their records name it, or an alias that points at it
	Aliases []string `json:"aliases"` // that point at it
}

// Concern adds a host to those whom the revocation concerns, if it does. named is what the
// host's record names.
func (r *Revocation) Concern(h Host, named Digest) {
	switch {
	case !h.Run.Open || h.Run.Bundle != r.Digest:
	case h.Run.Stage.AtLeast(StageDiskWritten):
		r.Written = append(r.Written, h.ID)
	default:
		r.Stopped = append(r.Stopped, h.ID)
	}
	if named == r.Digest && h.State != StateRetired {
		r.Hosts = append(r.Hosts, h.ID)
	}
}

// BundlePolicy is what a site wants of bundles, besides signatures.
type BundlePolicy struct {
	Approval bool // only approved bundles are installed
}

// SubjectServer is the subject of evidence about the server itself.
const SubjectServer = "server"

// BundleSubject is the subject of evidence about the bundles of one name.
func BundleSubject(name string) string { return "bundle:" + name }

// AliasSubject is the subject of evidence about an alias.
func AliasSubject(name string) string { return "alias:" + name }

// AdmitBundle decides whether a bundle may come into the store, and returns its record
// and the event. records are all of its name; present says that its files are in the
// store already, so that it only comes again. allow admits a version that is lower than
// one on record.
func AdmitBundle(b Bundle, records []BundleRecord, present, allow bool, by, why string, now time.Time) (BundleRecord, Event, error) {
	next := BundleRecord{Digest: b.Digest, Name: b.Name, Version: b.Version, State: BundleImported, By: by, Why: why, At: now, Imported: now}
	for _, r := range records {
		switch {
		case r.Digest == b.Digest && r.State == BundleRevoked:
			return r, Event{}, Errorf(Refused, "%s", r.Revoked())
		case r.Digest == b.Digest:
			next = r
		case CompareVersions(r.Version, b.Version) == 0:
			return r, Event{}, Errorf(Refused, "%s is on record already as %s, this one is %s: a version never changes, give the new content a new version", r.Ref(), r.Digest, b.Digest)
		}
	}
	highest := Highest(records)
	lower := !present && highest != "" && CompareVersions(b.Version, highest) < 0
	if lower && !allow {
		return next, Event{}, Errorf(Refused, "%s would be a rollback: version %s of %s is on record; give it a higher version, or --allow-rollback with --why", b.Ref(), highest, b.Name)
	}
	message := "bundle " + b.Ref() + " imported"
	if lower {
		next.Rollback, next.By, next.Why, next.At = true, by, why, now
		message += fmt.Sprintf(", a rollback behind version %s that was allowed", highest)
	}
	return next, bundleEvent(next, by, said(message, why), now), nil
}

// SignedBy adds to the evidence of an import whose signatures it had, as far as the site asks
// for signatures.
func (e Event) SignedBy(signers []string) Event {
	if len(signers) > 0 {
		e.Message += "; signed by " + strings.Join(signers, ", ")
	}
	return e
}

// Highest returns the highest version of records, or nothing.
func Highest(records []BundleRecord) (out string) {
	for _, r := range records {
		if out == "" || CompareVersions(r.Version, out) > 0 {
			out = r.Version
		}
	}
	return out
}

// RefuseBundle says why a bundle in the store may not be installed now, or nothing.
// records are all of its name. A bundle that never came in by an import, but stands in
// the store's directory all the same, has no record: it must not be below one that has.
func RefuseBundle(b Bundle, records []BundleRecord, policy BundlePolicy, now time.Time) string {
	if !b.Expires.IsZero() && !now.Before(b.Expires) {
		return fmt.Sprintf("%s expired at %s", b.Ref(), stamp(b.Expires))
	}
	i := slices.IndexFunc(records, func(r BundleRecord) bool { return r.Digest == b.Digest })
	if i < 0 {
		if h := Highest(records); h != "" && CompareVersions(b.Version, h) <= 0 {
			return fmt.Sprintf("%s was never imported, and version %s of %s is on record: it is a rollback", b.Ref(), h, b.Name)
		}
		if policy.Approval {
			return fmt.Sprintf("%s is not approved: `bootlane bundle approve %s`", b.Ref(), b.Ref())
		}
		return ""
	}
	switch r := records[i]; {
	case r.State == BundleRevoked:
		return r.Revoked()
	case r.State == BundleApproved:
	case r.State != BundleImported:
		return fmt.Sprintf("%s is in the state %q, which this version does not know", b.Ref(), r.State)
	case policy.Approval:
		return fmt.Sprintf("%s is not approved: `bootlane bundle approve %s`", b.Ref(), b.Ref())
	}
	return ""
}

// ApproveBundle says that a bundle may be installed.
func ApproveBundle(r BundleRecord, by, why string, now time.Time) (BundleRecord, Event, error) {
	if r.State == BundleRevoked {
		return r, Event{}, Errorf(Refused, "%s is revoked, and stays so: import its content under a new version", r.Ref())
	}
	r.State, r.By, r.Why, r.At = BundleApproved, by, why, now
	return r, bundleEvent(r, by, said("bundle "+r.Ref()+" approved", why), now), nil
}

// RevokeBundle says that a bundle may never be installed again. Runs that are open with
// it are refused its files from here on.
func RevokeBundle(r BundleRecord, by, why string, now time.Time) (BundleRecord, Event, error) {
	if why == "" {
		return r, Event{}, Errorf(Invalid, "a revocation needs a reason: give --why")
	}
	r.State, r.By, r.Why, r.At = BundleRevoked, by, why, now
	return r, bundleEvent(r, by, said("bundle "+r.Ref()+" revoked", why), now), nil
}

func bundleEvent(r BundleRecord, by, message string, now time.Time) Event {
	return Event{Subject: BundleSubject(r.Name), At: now, Kind: KindUpdated, By: by, Surface: SurfaceAPI, Name: r.Ref(), Digest: r.Digest, Message: message}
}

// AliasTarget is a bundle that an alias points at.
type AliasTarget struct {
	Bundle Digest `json:"bundle"`
	Ref    string `json:"ref"` // NAME-VERSION, for people
}

// BundleAlias is a name that hosts use, and that operators move from bundle to bundle.
type BundleAlias struct {
	Name   string        `json:"name"`
	Rev    int64         `json:"rev"`
	Target AliasTarget   `json:"target"` // none: the alias was removed
	Before []AliasTarget `json:"before"` // what it pointed at before, the last one last
	By     string        `json:"by"`     // who moved it there
	Why    string        `json:"why,omitempty"`
	At     time.Time     `json:"at"`
}

// maxBefore is how many steps an alias can be rolled back.
const maxBefore = 20

// MoveAlias points an alias at a bundle. now names the bundle that it points at so far,
// the zero Bundle where there is none or it is gone. A lower version of the same name is
// refused without allow.
func MoveAlias(a BundleAlias, was, b Bundle, allow bool, by, why string, now time.Time) (BundleAlias, Event, error) {
	switch {
	case !bundleRef.MatchString(a.Name):
		return a, Event{}, Errorf(Invalid, "%q is not a name for an alias: lower-case letters, digits, dots, underscores and inner hyphens", a.Name)
	case a.Target.Bundle == b.Digest:
		return a, Event{}, nil
	case was.Name == b.Name && CompareVersions(b.Version, was.Version) < 0 && !allow:
		return a, Event{}, Errorf(Refused, "%s points at %s, and %s is a rollback: use `bootlane bundle rollback %s`, or --allow-rollback with --why", a.Name, was.Ref(), b.Ref(), a.Name)
	}
	message := "alias " + a.Name + " points at " + b.Ref()
	if a.Target.Bundle != "" {
		message += ", and no longer at " + a.Target.Ref
		a.Before = append(slices.Clone(a.Before), a.Target)
		a.Before = a.Before[max(0, len(a.Before)-maxBefore):]
	}
	a.Target, a.By, a.Why, a.At = AliasTarget{b.Digest, b.Ref()}, by, why, now
	return a, aliasEvent(a, said(message, why)), nil
}

// RollBackAlias points an alias at what it pointed at before.
func RollBackAlias(a BundleAlias, by, why string, now time.Time) (BundleAlias, Event, error) {
	switch {
	case a.Target.Bundle == "":
		return a, Event{}, Errorf(NotFound, "no alias %q: `bootlane bundle alias` lists those that are", a.Name)
	case len(a.Before) == 0:
		return a, Event{}, Errorf(Refused, "the alias %s points at %s, and before that there is nothing to go back to; any other: `bootlane bundle alias %s BUNDLE`", a.Name, a.Target.Ref, a.Name)
	}
	last := len(a.Before) - 1
	message := fmt.Sprintf("alias %s rolled back to %s, from %s", a.Name, a.Before[last].Ref, a.Target.Ref)
	a.Target, a.Before = a.Before[last], slices.Clone(a.Before[:last])
	a.By, a.Why, a.At = by, why, now
	return a, aliasEvent(a, said(message, why)), nil
}

// RemoveAlias takes an alias away.
func RemoveAlias(a BundleAlias, by, why string, now time.Time) (BundleAlias, Event, error) {
	message := "alias " + a.Name + " removed, it pointed at " + a.Target.Ref
	a.Target, a.Before, a.By, a.Why, a.At = AliasTarget{}, nil, by, why, now
	return a, aliasEvent(a, said(message, why)), nil
}

func aliasEvent(a BundleAlias, message string) Event {
	return Event{Subject: AliasSubject(a.Name), At: a.At, Kind: KindUpdated, By: a.By, Surface: SurfaceAPI, Name: a.Target.Ref, Digest: a.Target.Bundle, Message: message}
}
