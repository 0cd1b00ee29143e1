package seed

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"bootlane/internal/lane"
)

// addOn is a module of SLES: its packages are apart from the product's.
type addOn struct{ Product, Directory string }

// AddOns returns what a medium of SLES has that the product itself has not, curl and sshd among it.
func (v view) AddOns() []addOn {
	if v.SUSE.Leap {
		return nil
	}
	return []addOn{{"sle-module-basesystem", "/Module-Basesystem"}, {"sle-module-server-applications", "/Module-Server-Applications"}}
}

// SUSETree is where AutoYaST finds its medium: the bundle's tree is what was signed with the kernel.
func (in Input) SUSETree() string {
	if in.Bundle.Tree != "" {
		return lane.RunPath{Asset: lane.AssetTree}.Under(in.Base)
	}
	return strings.TrimSuffix(in.Bundle.Mirror, "/")
}

// SUSEPackages are those of every system, what opens an encrypted disk, and the site's. Dracut's module
// for the TPM wants the tools there, and nothing requires the library that speaks to the device.
func (v view) SUSEPackages() []string {
	out := []string{"chrony", "curl", "openssh", "sudo"}
	if v.Encrypted() {
		out = append(out, "cryptsetup", "libtss2-tcti-device0", "tpm2.0-tools")
	}
	return append(out, v.Site.Packages...)
}

// ServerHost is whom the machine reaches without its proxy.
func (v view) ServerHost() string {
	u, err := url.Parse(v.Base)
	if err != nil { // it was checked
		return ""
	}
	return u.Hostname()
}

// Language is the locale as YaST calls it.
func (v view) Language() string {
	name, _, _ := strings.Cut(v.Site.Locale, ".")
	return name
}

// keymaps are YaST's names of X's layouts, as yast2-country has them.
func keymaps() map[string]string {
	return map[string]string{"us": "english-us", "gb": "english-uk", "uk": "english-uk", "de": "german", "ch": "german-ch", "fr": "french", "es": "spanish", "it": "italian", "pt": "portugese",
		"br": "portugese-br", "pl": "polish", "cz": "czech", "sk": "slovak", "hu": "hungarian", "nl": "dutch", "dk": "danish", "no": "norwegian", "se": "swedish", "fi": "finnish", "ru": "russian", "jp": "japanese"}
}

// Keymap is the keyboard's layout as YaST calls it.
func (v view) Keymap() string { return keymaps()[v.Site.Keyboard] }

// agamaProfile is where the gate leaves a profile with a passphrase in it: in memory.
const agamaProfile = "/run/bootlane/profile.json"

// AgamaProfile is the same for the gate.
func (in Input) AgamaProfile() string { return agamaProfile }

// agamaArgs lead Agama to its profile. It runs the script of inst.script before it has one, and reads
// the one of inst.auto then.
func (in Input) agamaArgs() string {
	if in.Site.Encryption == "" {
		return "inst.auto=" + in.Base + "/seed/profile.json"
	}
	return "inst.script=" + in.Base + "/seed/gate.sh inst.auto=file://" + agamaProfile
}

// DiskLink is the name by which Agama finds the disk: one that udev makes of what the inventory
// says. Empty: there is none.
func (in Input) DiskLink() string { return diskLink(in.Host.Run.Disk) }

// MirrorLink is the same of the second disk.
func (in Input) MirrorLink() string { return diskLink(in.Host.Run.Mirror) }

func diskLink(d lane.DiskSelector) string {
	switch {
	case d.ByID != "":
		return "/dev/disk/by-id/" + d.ByID
	case strings.HasPrefix(d.WWN, "0x"):
		return "/dev/disk/by-id/wwn-" + d.WWN
	case strings.HasPrefix(d.WWN, "eui."), strings.HasPrefix(d.WWN, "nvme."), strings.HasPrefix(d.WWN, "uuid."):
		return "/dev/disk/by-id/nvme-" + d.WWN
	case d.ByPath != "":
		return "/dev/disk/by-path/" + d.ByPath
	case d.Name != "":
		return "/dev/" + d.Name
	}
	return ""
}

func (in Input) checkSUSE() (out []string) {
	_, problems := in.Bundle.SUSE()
	for _, p := range problems {
		out = append(out, "bundle."+p.String())
	}
	agama := in.Bundle.Seed == lane.SeedAgama
	if _, known := keymaps()[in.Site.Keyboard]; !agama && !known {
		var have []string
		for name := range keymaps() {
			have = append(have, name)
		}
		slices.Sort(have)
		out = append(out, fmt.Sprintf("%s: AutoYaST is not told the layout %q: use one of %s", in.path("keyboard"), in.Site.Keyboard, strings.Join(have, ", ")))
	}
	for _, name := range in.Site.Packages {
		if strings.Contains(name, "=") {
			out = append(out, fmt.Sprintf("%s: SUSE's installers take names alone, and not %s: pin it by the mirror", in.path("packages"), name))
		}
	}
	if agama && in.DiskLink() == "" {
		out = append(out, "disk: Agama finds a disk by a link that udev makes, and a serial number alone is none: give byID, wwn or byPath as well")
	}
	if agama && !in.Host.Run.Mirror.IsZero() && in.MirrorLink() == "" {
		out = append(out, "mirror: Agama finds a disk by a link that udev makes, and a serial number alone is none: give byID, wwn or byPath as well")
	}
	if agama && in.Site.Proxy != "" {
		out = append(out, in.path("proxy")+": Agama of release 16.0 takes no proxy: say `proxy: \"\"` for this host or its role, and use a mirror that is reached directly")
	}
	return out
}

// xmlQuote makes text of an element.
func xmlQuote(s any) (string, error) {
	var b bytes.Buffer
	err := xml.EscapeText(&b, fmt.Append(nil, s))
	return b.String(), err
}

// jsonQuote makes a string of JSON, or a list of them. HTML is not what it stands in.
func jsonQuote(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}
