package lane

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The layouts of the disk. Empty: what the installer's template says by itself.
const (
	LayoutPlain = "plain" // a partition for each file system
	LayoutLVM   = "lvm"   // one volume group, with a logical volume for each file system but /boot
)

// Volume is one file system of the disk. /boot and what firmware needs are not among them.
type Volume struct {
	Mount string
	GiB   int // its size; 0: the rest of the disk
}

// Name is what its logical volume is called. Hyphens are left to those who make names of it.
func (v Volume) Name() string {
	if v.Mount == "/" {
		return "root"
	}
	return strings.NewReplacer("/", "_", "-", "_").Replace(strings.Trim(v.Mount, "/"))
}

var (
	volumeRE = regexp.MustCompile(`^(/[^=]*)=(rest|([1-9][0-9]{0,4})G)$`)
	// mountRE leaves out what must be on the root file system, or is none of the disk's.
	mountRE = regexp.MustCompile(`^/$|^/(home|opt|srv|tmp|var)(/[a-z0-9][a-z0-9_.-]*)*$`)
)

// minRoot is in GiB.
const minRoot = 8

// Volumes reads a list of MOUNT=SIZE. The one that takes the rest of the disk, which is / where
// none is said to, comes last.
func Volumes(list []string) (out []Volume, bad []Problem) {
	rest := Volume{}
	seen := map[string]string{} // mounts, by their names
	for n, text := range list {
		problem := func(format string, args ...any) {
			bad = append(bad, Problem{fmt.Sprintf("volumes[%d]", n), fmt.Sprintf(format, args...)})
		}
		m := volumeRE.FindStringSubmatch(text)
		if m == nil {
			problem("%q is not MOUNT=SIZE like /var=40G, in GiB, or /var=rest", text)
			continue
		}
		v := Volume{Mount: m[1]}
		v.GiB, _ = strconv.Atoi(m[3]) // of digits only, or empty
		switch {
		case !mountRE.MatchString(v.Mount):
			problem("%q cannot be a file system of its own: / and /home, /opt, /srv, /tmp, /var and what is below them", v.Mount)
		case seen[v.Name()] == v.Mount:
			problem("%s stands twice", v.Mount)
		case seen[v.Name()] != "":
			problem("%s and %s would both be called %s: mount one of them elsewhere", v.Mount, seen[v.Name()], v.Name())
		case v.GiB > 0 && v.Mount == "/" && v.GiB < minRoot:
			problem("/ needs at least %d GiB", minRoot)
		case v.GiB == 0 && rest.Mount != "":
			problem("%s already takes the rest of the disk: give a size", rest.Mount)
		case v.GiB == 0:
			rest = v
		default:
			out = append(out, v)
		}
		seen[v.Name()] = v.Mount
	}
	_, root := seen[Volume{Mount: "/"}.Name()]
	switch {
	case rest.Mount == "" && root && len(bad) == 0:
		bad = append(bad, Problem{"volumes", "one of them must take the rest of the disk: give it the size `rest`"})
	case rest.Mount == "":
		rest = Volume{Mount: "/"}
	case !root:
		bad = append(bad, Problem{"volumes", fmt.Sprintf("%s takes the rest of the disk: give / a size as well, like /=40G", rest.Mount)})
	}
	return append(out, rest), bad
}

// SizeOf returns what the volumes of a fixed size take together, in GiB.
func SizeOf(list []Volume) (sum int) {
	for _, v := range list {
		sum += v.GiB
	}
	return sum
}

func badLayout(v *string) string {
	if v == nil || slices.Contains([]string{"", LayoutPlain, LayoutLVM}, *v) {
		return ""
	}
	return fmt.Sprintf("%q: use %s, %s, or nothing for the installer's own", *v, LayoutPlain, LayoutLVM)
}
