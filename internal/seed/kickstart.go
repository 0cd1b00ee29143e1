package seed

import (
	"strings"

	"bootlane/internal/lane"
)

// medium is where Anaconda finds the rest of itself, and the packages.
type medium struct{ Stage2, Packages, AppStream string }

// medium returns it: the bundle's tree is what was signed with the kernel, and so the second
// stage comes from there where there is one. A mirror beside it has the packages: the tree of
// a boot image has none.
func (in Input) medium() medium {
	fedora := in.Bundle.OS == "fedora"
	tree := lane.RunPath{Asset: lane.AssetTree}.Under(in.Base)
	mirror := strings.TrimSuffix(in.Bundle.Mirror, "/")
	arch := map[lane.Arch]string{lane.X86_64: "x86_64", lane.ARM64: "aarch64"}[in.Bundle.Arch]
	m := medium{Packages: tree, AppStream: tree + "/AppStream"}
	if mirror != "" {
		m = medium{Packages: mirror + "/BaseOS/" + arch + "/os", AppStream: mirror + "/AppStream/" + arch + "/os"}
		if fedora {
			m.Packages = mirror + "/Everything/" + arch + "/os"
		}
	}
	m.Stage2 = m.Packages
	if in.Bundle.Tree != "" {
		m.Stage2 = tree
	}
	if fedora { // all its packages are in one repository
		m.AppStream = ""
	}
	return m
}

// Target is where the installer has the new system's root while it runs the last hook.
func (v view) Target() string {
	switch v.Bundle.Seed {
	case lane.SeedKickstart:
		return "/mnt/sysroot"
	case lane.SeedAgama:
		return "/mnt"
	case lane.SeedAutoYaST: // it runs within
		return ""
	}
	return "/target"
}

// ByProxy is the option by which Anaconda fetches packages of a mirror through the site's
// proxy. A bundle's tree is our own: the way there is direct.
func (v view) ByProxy() string {
	if v.Site.Proxy == "" || v.Bundle.Mirror == "" {
		return ""
	}
	return " --proxy=" + v.Site.Proxy
}

// Before9 reports whether it is release 8 of RHEL or its kin, which lacks what later ones have.
func (v view) Before9() bool { return v.Anaconda.Major == 8 }

// bareKey returns a public key without its comment: the comment may have letters that the
// Python of release 8, which reads the kickstart as ASCII, stops at.
func bareKey(line string) string { return strings.Join(strings.Fields(line)[:2], " ") }

func (in Input) checkKickstart() (out []string) {
	a, problems := in.Bundle.Anaconda()
	for _, p := range problems {
		out = append(out, "bundle."+p.String())
	}
	if in.Bundle.Tree == "" && in.Bundle.Mirror == "" {
		out = append(out, "bundle.tree: Anaconda needs the image of a DVD, or a pinned http:// mirror in its place")
	}
	if a.Major == 8 && strings.HasPrefix(in.Site.PasswordHash, "$y$") {
		out = append(out, in.path("passwordHash")+": release 8 does not know hashes of type $y$: make one with `mkpasswd -m sha-512`")
	}
	return out
}
