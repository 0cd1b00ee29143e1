package lane

import (
	"fmt"
	"regexp"
)

// A release of Flatcar is MAJOR.MINOR.PATCH; names such as stable and current move.
var flatcarRelease = regexp.MustCompile(`^[1-9][0-9]{3,4}\.[0-9]{1,2}\.[0-9]{1,2}$`)

// Flatcar returns why the bundle is none that [SeedIgnition] can install.
func (b Bundle) Flatcar() (out []Problem) {
	if b.OS != "flatcar" {
		out = append(out, Problem{"os", fmt.Sprintf("%q is not one that %s can install: use flatcar; Fedora CoreOS is installed as an image, by %s with `config: ignition`", b.OS, SeedIgnition, SeedImage)})
	}
	if !flatcarRelease.MatchString(b.Release) {
		out = append(out, Problem{"release", fmt.Sprintf("%q is not a release of Flatcar: a whole number such as 4230.2.4, for a channel moves", b.Release)})
	}
	return out
}
