package bundle

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"bootlane/internal/lane"
)

// above returns what stands in front of the fields of one architecture in the manifest.
func above(b, view lane.Bundle) string {
	if b.Architectures == nil {
		return ""
	}
	return "architectures." + string(view.Arch) + "."
}

// checkArchitectures looks at what a bundle has for each of its architectures, and at what
// stands at the top for all of them.
func checkArchitectures(b lane.Bundle) []lane.Problem {
	out := checkTexts("", b.BundleVariant)
	bad := func(field, format string, args ...any) {
		out = append(out, lane.Problem{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	switch _, err := lane.ParseArch(string(b.Arch)); {
	case b.Architectures == nil && err != nil:
		bad("arch", "%v", err)
	case b.Architectures != nil && b.Arch != "":
		bad("arch", "stands beside `architectures`, whose keys say it: remove one of the two")
	}
	if b.Architectures != nil && len(b.Architectures) == 0 {
		bad("architectures", "is empty: put kernel and initrd of each architecture there, `arm64: {kernel: …, initrd: …}`, or remove it")
	}
	for _, f := range []struct {
		name  string
		given bool
	}{{"kernel", b.Kernel != ""}, {"initrd", b.Initrd != ""}, {"tree", b.Tree != ""}, {"image", b.Image != nil}} {
		if b.Architectures != nil && f.given {
			bad(f.name, "stands beside `architectures`, where each has its own: move it there")
		}
	}
	for _, a := range slices.Sorted(maps.Keys(b.Architectures)) {
		at := "architectures." + string(a)
		if name, err := lane.ParseArch(string(a)); err != nil {
			bad(at, "%v", err)
		} else if name != a {
			bad(at, "is called %s here: the same machine must not stand there by two names", name)
		}
		out = append(out, checkTexts(at+".", b.Architectures[a])...)
	}
	for _, v := range b.Views() {
		out = append(out, checkView(above(b, v), v)...)
	}
	return out
}

// checkTexts looks at arguments and mirrors where they stand, whoever they are for.
func checkTexts(at string, v lane.BundleVariant) (out []lane.Problem) {
	bad := func(format string, args ...any) {
		out = append(out, lane.Problem{Field: at + "args", Message: fmt.Sprintf(format, args...)})
	}
	if strings.ContainsFunc(v.Args, func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune("\"'$", r) }) {
		bad("kernel arguments are plain ASCII without quotes and $: the boot loaders do not quote alike")
	}
	for _, word := range strings.Fields(v.Args) {
		if word == "&&" || word == "||" || word == ";" || word[0] == '#' {
			bad("%q ends a command for iPXE", word)
		}
	}
	return append(out, unprintable(at, [][2]string{{"mirror", v.Mirror}, {"security", v.Security}})...)
}

// checkView looks at what one architecture is installed from, with what it has of the top.
func checkView(at string, v lane.Bundle) (out []lane.Problem) {
	bad := func(field, format string, args ...any) {
		out = append(out, lane.Problem{Field: at + field, Message: fmt.Sprintf(format, args...)})
	}
	for _, f := range []struct{ field, name string }{{"kernel", v.Kernel}, {"initrd", v.Initrd}, {"tree", v.Tree}} {
		if _, ok := v.Files[f.name]; !ok && (f.field != "tree" || f.name != "") {
			bad(f.field, "%q is not one of the bundle's files", f.name)
		}
	}
	_, lost := v.KernelArgs("")
	for _, p := range lost {
		bad("args", "%s", p)
	}
	if v.Seed == lane.SeedPreseed && v.Mirror == "" {
		bad("mirror", "is missing: the Debian installer takes its packages from a pinned mirror, http://HOST/DIRECTORY")
	}
	switch v.Seed {
	case lane.SeedKickstart:
		out = append(out, checkKickstart(at, v)...)
	case lane.SeedAutoYaST, lane.SeedAgama:
		out = append(out, checkSUSE(at, v)...)
	case lane.SeedIgnition:
		out = append(out, checkFlatcar(at, v)...)
	case lane.SeedTalos:
		out = append(out, checkTalos(at, v)...)
	}
	return out
}

// checkSUSE looks at where the installers of SUSE find the rest of themselves, and the packages.
func checkSUSE(at string, v lane.Bundle) (out []lane.Problem) {
	if v.Seed == lane.SeedAutoYaST && v.Tree == "" && v.Mirror == "" {
		out = append(out, lane.Problem{Field: at + "tree", Message: "is missing: YaST takes itself and the packages from the image of a full medium, `tree: FILE.iso`, or from a pinned mirror of its content, `mirror: http://HOST/DIRECTORY`"})
	}
	if v.Seed == lane.SeedAgama && !strings.Contains(v.Args, "root=live:") {
		out = append(out, lane.Problem{Field: at + "args", Message: "have no root=live: Agama's system is an image that the kernel is told: `args: root=live:{file:FILE.iso}`"})
	}
	if v.Security != "" {
		out = append(out, lane.Problem{Field: at + "security", Message: "is nothing that SUSE's installers are told: remove it, and have the updates in the mirror"})
	}
	if v.Arch == lane.I386 {
		out = append(out, lane.Problem{Field: at + "arch", Message: "i386 has no release that they install: use x86_64 or arm64"})
	}
	return out
}

// checkFlatcar looks at where flatcar-install finds the image.
func checkFlatcar(at string, v lane.Bundle) (out []lane.Problem) {
	bad := func(field, message string) {
		out = append(out, lane.Problem{Field: at + field, Message: message})
	}
	if v.Mirror == "" {
		bad("mirror", "is missing: flatcar-install takes the image from a pinned mirror, `mirror: http://HOST/DIRECTORY`, below which lie RELEASE/flatcar_production_image.bin.bz2 and its .sig")
	}
	if v.Security != "" {
		bad("security", "is nothing that Flatcar is told: remove it")
	}
	if v.Tree != "" {
		bad("tree", "is nothing that Flatcar's installer reads: remove it")
	}
	if v.Arch == lane.I386 {
		bad("arch", "i386 has no release of Flatcar: use x86_64 or arm64")
	}
	return out
}

// checkTalos refuses what Talos is not told: its installer is an image that its configuration names.
func checkTalos(at string, v lane.Bundle) (out []lane.Problem) {
	for _, f := range []struct{ name, value string }{{"mirror", v.Mirror}, {"security", v.Security}, {"tree", v.Tree}} {
		if f.value != "" {
			out = append(out, lane.Problem{Field: at + f.name, Message: "is nothing that Talos is told: remove it; machine.install.image of the configuration says where the system comes from"})
		}
	}
	if v.Arch == lane.I386 {
		out = append(out, lane.Problem{Field: at + "arch", Message: "i386 has no release of Talos: use x86_64 or arm64"})
	}
	return out
}

// checkKickstart looks at where Anaconda finds its second stage and the packages.
func checkKickstart(at string, v lane.Bundle) (out []lane.Problem) {
	if v.Tree == "" && v.Mirror == "" {
		out = append(out, lane.Problem{Field: at + "tree", Message: "is missing: Anaconda takes the rest of itself and the packages from the image of a DVD, `tree: FILE.iso`, or from a pinned mirror, `mirror: http://HOST/DIRECTORY`"})
	}
	if v.Security != "" {
		out = append(out, lane.Problem{Field: at + "security", Message: "is nothing that Anaconda is told: a release's updates are in its own repositories, so remove it"})
	}
	if v.Arch == lane.I386 {
		out = append(out, lane.Problem{Field: at + "arch", Message: "i386 has no release that Anaconda installs: use x86_64 or arm64"})
	}
	return out
}

// checkImages looks at the disk image of each architecture.
func checkImages(b lane.Bundle) (out []lane.Problem) {
	for _, v := range b.Views() {
		out = append(out, checkImage(above(b, v), v)...)
	}
	return out
}

func checkImage(at string, b lane.Bundle) []lane.Problem {
	var out []lane.Problem
	bad := func(field, format string, args ...any) {
		out = append(out, lane.Problem{Field: at + "image" + field, Message: fmt.Sprintf(format, args...)})
	}
	i := b.Image
	switch {
	case i == nil && b.Seed == lane.SeedImage:
		bad("", "is missing: the seed %s writes a disk image", b.Seed)
		return out
	case i == nil:
		return nil
	case b.Seed != lane.SeedImage:
		bad("", "is written by the seed %s alone, and this bundle's is %s", lane.SeedImage, b.Seed)
	}
	if _, ok := b.Files[i.File]; !ok {
		bad(".file", "%q is not one of the bundle's files", i.File)
	}
	if !slices.Contains(lane.Compressions(), i.Compression) {
		bad(".compression", "%q: use one of %s", i.Compression, strings.Join(lane.Compressions(), ", "))
	}
	if _, err := lane.ParseDigest(string(i.RawDigest)); err != nil {
		bad(".rawDigest", "%v; it is the digest of the uncompressed image", err)
	}
	if i.RawBytes < 2<<20 || i.RawBytes%512 != 0 {
		bad(".rawBytes", "%d: the size of the uncompressed image in bytes, at least 2 MiB and whole sectors", i.RawBytes)
	}
	if d := b.Files[i.File].Digest; i.Compression == lane.CompressionNone && d != "" && i.RawDigest != d {
		bad(".rawDigest", "%s is not the digest of %s, which is not compressed", i.RawDigest, i.File)
	}
	configs := []string{lane.ConfigCloudInit, lane.ConfigIgnition}
	switch {
	case i.Config != "" && !slices.Contains(configs, i.Config):
		bad(".config", "%q: use %s, or leave it out", i.Config, strings.Join(configs, " or "))
	case i.Config != lane.ConfigIgnition && i.ConfigLabel != "":
		bad(".configPartLabel", "is for an image with `config: %s`: remove it", lane.ConfigIgnition)
	case i.Config == lane.ConfigIgnition && (i.ConfigLabel == "" || i.ConfigLabel != lane.Clean(i.ConfigLabel, 36)):
		bad(".configPartLabel", "is missing, or longer than 36 characters: the GPT name of the ext4 partition with /ignition/config.ign, in Fedora CoreOS boot")
	}
	if i.RootLabel == "" || i.RootLabel != lane.Clean(i.RootLabel, 36) {
		bad(".rootPartLabel", "is missing, or longer than 36 characters: the GPT name of the root partition")
	}
	return out
}
