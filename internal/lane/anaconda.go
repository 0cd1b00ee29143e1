package lane

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Anaconda is what its commands depend on: the release that it came with.
type Anaconda struct {
	Fedora bool
	Major  int // 8, 9 or 10; Fedora's number
}

// A minor release of RHEL and its kin has packages of its own; the number alone is where the
// newest of them is found. Fedora has no minor ones.
var (
	minorRelease  = regexp.MustCompile(`^(8|9|10)\.[0-9]{1,2}$`)
	fedoraRelease = regexp.MustCompile(`^[4-9][0-9]$`)
)

// Anaconda returns which Anaconda the bundle starts, for [SeedKickstart]. Problems say why
// that is none for which the seed can write.
func (b Bundle) Anaconda() (a Anaconda, problems []Problem) {
	systems := []string{"rhel", "rocky", "almalinux", "fedora"}
	a.Fedora = b.OS == "fedora"
	switch {
	case !slices.Contains(systems, b.OS):
		return a, []Problem{{"os", fmt.Sprintf("%q is not one that %s can install: use one of %s", b.OS, SeedKickstart, strings.Join(systems, ", "))}}
	case a.Fedora && !fedoraRelease.MatchString(b.Release):
		return a, []Problem{{"release", fmt.Sprintf("%q is not a release of Fedora that %s can install: a number from 40 on", b.Release, SeedKickstart)}}
	case !a.Fedora && !minorRelease.MatchString(b.Release):
		return a, []Problem{{"release", fmt.Sprintf("%q is not a release that %s can install: a minor one of 8, 9 or 10, such as 9.6", b.Release, SeedKickstart)}}
	}
	major, _, _ := strings.Cut(b.Release, ".")
	a.Major, _ = strconv.Atoi(major) // digits, as was just seen
	return a, nil
}
