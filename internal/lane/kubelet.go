package lane

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
)

// A kubelet may be as old as three minor versions before the API server that it speaks to, and not newer
// (https://kubernetes.io/releases/version-skew-policy/).
const oldestKubelet = 3

var (
	pinnedKubelet = regexp.MustCompile(`^(kubelet|kubeadm)=(?:0:)?1\.(\d+)(?:[.-].*)?$`)
	kubernetes    = regexp.MustCompile(`^v1\.(\d+)\.`)
)

// PinsKubelet reports whether one of the packages says which kubelet is installed.
func PinsKubelet(packages []string) bool {
	return slices.ContainsFunc(packages, pinnedKubelet.MatchString)
}

// KubeletSkew says which of the packages bring a kubelet that does not go with the version of a cluster's
// API server, as v1.35.0. Nothing is said of packages without a version, nor for a version that is none. Field is where
// the packages stand.
func KubeletSkew(field string, packages []string, version string) (out []Problem) {
	m := kubernetes.FindStringSubmatch(version)
	if m == nil {
		return nil
	}
	server, _ := strconv.Atoi(m[1]) // digits
	for i, name := range packages {
		p := pinnedKubelet.FindStringSubmatch(name)
		if p == nil {
			continue
		}
		why := ""
		switch minor, _ := strconv.Atoi(p[2]); {
		case minor > server:
			why = "newer"
		case minor < server-oldestKubelet:
			why = fmt.Sprintf("more than %d minor versions older", oldestKubelet)
		default:
			continue
		}
		out = append(out, Problem{Field: fmt.Sprintf("%s[%d]", field, i), Message: fmt.Sprintf("%s is %s than the cluster's API server, %s, and would not work with it: pin a version from 1.%d to 1.%d", Clean(name, 80), why, version, max(server-oldestKubelet, 0), server)})
	}
	return out
}
