package lane

import (
	"fmt"
	"strings"
)

// ResolveWipe returns the disks that are cleared besides root, each exactly one, none of them
// root and none named twice. It never guesses; the error has everything that stands against it.
func ResolveWipe(root Disk, wipe []DiskSelector, disks []Disk) (out []Disk, err error) {
	var bad []string
	taken := map[string]DiskSelector{}
	for i, s := range wipe {
		d, err := s.Resolve(disks)
		switch other, twice := taken[d.Name]; {
		case err != nil:
			bad = append(bad, fmt.Sprintf("wipe[%d]: %v", i, err))
		case d.Name == root.Name:
			bad = append(bad, fmt.Sprintf("wipe[%d]: %s is the disk that is installed to, %s", i, s, d.Name))
		case twice:
			bad = append(bad, fmt.Sprintf("wipe[%d]: %s and %s are the same disk, %s", i, other, s, d.Name))
		default:
			taken[d.Name] = s
			out = append(out, d)
		}
	}
	if len(bad) > 0 {
		return nil, Errorf(Refused, "%s", strings.Join(bad, "; "))
	}
	return out, nil
}

// maxWipe is how many disks one record may list.
const maxWipe = 128

// wipeProblems returns what is wrong with the disks that the record lists to be cleared.
func (h Host) wipeProblems() (out []Problem) {
	if len(h.Wipe) > maxWipe {
		return []Problem{{"wipe", fmt.Sprintf("%d disks are listed: %d at most", len(h.Wipe), maxWipe)}}
	}
	for i, s := range h.Wipe {
		at := fmt.Sprintf("wipe[%d]", i)
		for _, p := range s.Validate() {
			field, msg, _ := strings.Cut(strings.TrimPrefix(p, "disk."), ": ")
			out = append(out, Problem{at + "." + field, msg})
		}
		if !s.Selects() {
			out = append(out, Problem{at, "selects nothing: give byID, wwn or serial of the one disk"})
		}
		if s == h.Disk {
			out = append(out, Problem{at, "is the disk that is installed to: it is overwritten in any case"})
		}
		for _, other := range h.Wipe[:i] {
			if other == s {
				out = append(out, Problem{at, s.String() + " stands twice"})
			}
		}
	}
	return out
}

// selectors lists disks as the inventory spells them.
func selectors(list []DiskSelector) string {
	var out []string
	for _, s := range list {
		out = append(out, s.String())
	}
	return strings.Join(out, ", ")
}

// Disks names every disk that the run overwrites or clears.
func (r Run) Disks() string {
	out := r.Disk.String()
	if !r.Mirror.IsZero() {
		out += " and its mirror " + r.Mirror.String()
	}
	if len(r.Wipe) > 0 {
		out += " (and clears " + selectors(r.Wipe) + ")"
	}
	return out
}
