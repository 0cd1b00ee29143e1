package lane

import (
	"fmt"
	"regexp"
)

// SUSE is what its installers depend on: the product as they call it.
type SUSE struct {
	Product string
	Leap    bool // openSUSE's: it has all its packages on one medium
}

// AutoYaST installs release 15 with its service packs, Agama release 16.
var suseReleases = map[string]*regexp.Regexp{SeedAutoYaST: regexp.MustCompile(`^15\.[0-7]$`), SeedAgama: regexp.MustCompile(`^16\.[0-9]$`)}

// SUSEInstaller reports whether it is one of SUSE's that takes the seed.
func (b Bundle) SUSEInstaller() bool { return b.Seed == SeedAutoYaST || b.Seed == SeedAgama }

// SUSE returns which product the bundle installs, for [SeedAutoYaST] and [SeedAgama]. Problems
// say why that is none for which the seed can write.
func (b Bundle) SUSE() (s SUSE, problems []Problem) {
	s.Leap = b.OS == "opensuse-leap"
	if !s.Leap && b.OS != "sles" {
		return s, []Problem{{"os", fmt.Sprintf("%q is not one that %s can install: use sles or opensuse-leap", b.OS, b.Seed)}}
	}
	if fits := suseReleases[b.Seed]; fits == nil || !fits.MatchString(b.Release) {
		return s, []Problem{{"release", fmt.Sprintf("%q is not a release that %s can install: %s is for 15.0 to 15.7, %s for 16.0 and later", b.Release, b.Seed, SeedAutoYaST, SeedAgama)}}
	}
	switch {
	case !s.Leap:
		s.Product = "SLES"
	case b.Seed == SeedAgama:
		s.Product = "Leap_" + b.Release
	case b.Release < "15.3": // one digit behind the point; the product was renamed then
		s.Product = "openSUSE"
	default:
		s.Product = "Leap"
	}
	return s, nil
}
