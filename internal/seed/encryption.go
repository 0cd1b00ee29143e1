package seed

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"bootlane/internal/lane"
)

// An encrypted disk is one LUKS2 container that holds the volume group, or the root file system of
// an image, whose agent makes it with no passphrase but those that are sealed. That of an installer is
// made on the machine, lives in the memory of the installer, and is taken away once the container is
// bound: no key stands in a seed, in the inventory, or on the wire.

// Encrypted reports whether the disk is to be encrypted.
func (v view) Encrypted() bool { return v.Site.Encryption != "" }

// encryption is the document that binds the container, where there is one.
func (in Input) encryption() []part {
	if in.Site.Encryption == "" {
		return nil
	}
	return []part{{"encrypt.sh", "encrypt.sh", typeShell}}
}

// Clevis reports whether that is what binds the container, and opens it. SUSE's repositories have none:
// there it is systemd.
func (v view) Clevis() bool { return !v.Bundle.SUSEInstaller() }

// OpenedBy returns what opens the disk at each boot; nil: nothing, for it is not encrypted.
func (s Site) OpenedBy() *lane.Encryption {
	if s.Encryption == "" {
		return nil
	}
	out := &lane.Encryption{By: s.Encryption}
	if s.Encryption == lane.EncryptionTang {
		for _, text := range s.Tang {
			t, _ := lane.ParseTang(text) // it was checked
			out.Tang = append(out.Tang, t)
		}
	}
	return out
}

// TangServers are the servers that open the disk.
func (v view) TangServers() []lane.Tang { return v.Site.OpenedBy().Tang }

// Pin is what Clevis calls that which opens the disk: of several Tang servers any one does.
func (v view) Pin() string {
	switch {
	case v.Site.Encryption == lane.EncryptionTPM2:
		return "tpm2"
	case len(v.Site.Tang) > 1 && v.Bundle.Seed != lane.SeedImage: // the agent gives each a key slot
		return "sss"
	}
	return "tang"
}

// PinConfig is the configuration of the pin.
func (v view) PinConfig() (string, error) {
	var config any = struct{}{} // no PCR: the installer was not started as the system is, and shim measures what iPXE does not
	if v.Site.Encryption == lane.EncryptionTang {
		var servers []map[string]string
		for _, t := range v.TangServers() {
			servers = append(servers, map[string]string{"url": t.URL, "thp": t.Thumbprint})
		}
		if config = servers[0]; len(servers) > 1 {
			config = map[string]any{"t": 1, "pins": map[string]any{"tang": servers}}
		}
	}
	out, err := json.Marshal(config)
	return string(out), err
}

// Opener is the same in words.
func (v view) Opener() string { return v.Site.OpenedBy().String() }

// Mend is what to do where that opens nothing.
func (v view) Mend() string {
	switch {
	case !v.Clevis():
		return "clear the TPM in the firmware"
	case v.Site.Encryption == lane.EncryptionTPM2:
		return "clear the TPM in the firmware, or have the disk opened by Tang"
	}
	return "compare the thumbprint with what tang-show-keys prints on the server"
}

// Packages are the site's, and what opens an encrypted disk.
func (v view) Packages() []string {
	var clevis []string
	switch {
	case !v.Encrypted():
	case v.Bundle.Seed == lane.SeedKickstart:
		clevis = []string{"clevis", "clevis-dracut", "clevis-luks", "clevis-systemd", "cryptsetup"}
	default:
		clevis = []string{"clevis-initramfs", "clevis-luks", "cryptsetup-initramfs"}
		if v.Site.Encryption == lane.EncryptionTPM2 {
			clevis = slices.Insert(clevis, 2, "clevis-tpm2")
		}
	}
	out := slices.Concat(clevis, v.Site.Packages)
	if v.Bundle.Seed == lane.SeedKickstart { // which writes NAME-VERSION
		for i, name := range out {
			out[i] = strings.Replace(name, "=", "-", 1)
		}
	}
	return out
}

// BootArgs are the kernel arguments of the installed system. Dracut brings the network up for Tang
// only where it is told to.
func (v view) BootArgs() []string {
	if v.Bundle.Seed == lane.SeedKickstart && v.Site.Encryption == lane.EncryptionTang {
		return append([]string{"rd.neednet=1", "ip=dhcp"}, v.Site.KernelArgs...)
	}
	return v.Site.KernelArgs
}

// Inside is the command by which a late hook runs another within the new system.
func (v view) Inside() string {
	switch v.Bundle.Seed {
	case lane.SeedPreseed:
		return "in-target"
	case lane.SeedNoCloud:
		return "curtin in-target --target=/target --"
	case lane.SeedAutoYaST: // the hook runs there itself
		return ""
	}
	return "chroot " + v.Target()
}

// InitramfsCommand is what writes the initramfs anew, with what opens the container.
func (v view) InitramfsCommand() string {
	if v.Bundle.Seed == lane.SeedKickstart || v.Bundle.SUSEInstaller() {
		return "dracut --force --regenerate-all"
	}
	return "update-initramfs -u -k all"
}

// checkEncryption refuses what the installer cannot do, or nobody could open.
func (in Input) checkEncryption() (out []string) {
	bad := func(field, format string, args ...any) {
		out = append(out, in.path(field)+": "+fmt.Sprintf(format, args...))
	}
	if in.Site.Encryption == "" {
		return nil
	}
	if known := []string{lane.SeedPreseed, lane.SeedNoCloud, lane.SeedKickstart, lane.SeedAutoYaST, lane.SeedAgama, lane.SeedImage}; !slices.Contains(known, in.Bundle.Seed) {
		bad("encryption", "a bundle of %s does not encrypt the disk: say `encryption: \"\"` for this host or its role, or use a bundle of %s", in.Bundle.Seed, strings.Join(known, ", "))
	}
	if in.Bundle.SUSEInstaller() && in.Site.Encryption == lane.EncryptionTang {
		bad("encryption", "Tang needs Clevis, which neither SLES nor Leap has: use %s", lane.EncryptionTPM2)
	}
	if in.Bundle.Seed == lane.SeedAutoYaST && in.Bundle.Release < "15.6" { // one digit behind the point
		bad("encryption", "AutoYaST makes containers of LUKS2 from release 15.6 (SP6) on, and the bundle is of %s: use a later one, or say `encryption: \"\"` for this host or its role", in.Bundle.Release)
	}
	if in.Bundle.Seed == lane.SeedPreseed && !in.Host.Run.Mirror.IsZero() {
		bad("encryption", "the Debian installer by itself encrypts one disk: leave the mirror out of the record, or use a bundle of %s or %s", lane.SeedNoCloud, lane.SeedKickstart)
	}
	if in.Bundle.Seed == lane.SeedImage {
		out = append(out, in.checkImageEncryption()...)
	}
	if in.Site.Layout == lane.LayoutPlain && in.Bundle.Seed != lane.SeedImage {
		bad("layout", "an encrypted disk is one container with a volume group in it: say `layout: %s`, or nothing", lane.LayoutLVM)
	}
	if in.Site.Encryption == lane.EncryptionTang && len(in.Site.Tang) == 0 {
		bad("tang", "is missing: the servers that open the disk, a list of URL#THUMBPRINT; tang-show-keys prints the thumbprint on the server")
	}
	// Clevis' script for initramfs-tools takes every interface down again, with its addresses; Dracut's does not.
	if in.Bundle.Seed == lane.SeedKickstart && in.Site.Encryption == lane.EncryptionTang && len(in.Host.Network.Interfaces) > 0 {
		bad("encryption", "for Tang the initramfs asks for an address by DHCP, and hands the connection over to NetworkManager, in the place of the record's `network.interfaces`: use %s, or reserve the host's address (`network.address`) and leave its interfaces out", lane.EncryptionTPM2)
	}
	return out
}

// checkImageEncryption refuses what the agent cannot do.
func (in Input) checkImageEncryption() (out []string) {
	if in.Bundle.Ignites() {
		out = append(out, in.path("encryption")+": Ignition sets up the disk of this image, and Bootlane leaves it alone: write `storage.luks` with `clevis` into the bundle's `config`, and say `encryption: \"\"` for this host or its role")
	}
	e := in.Site.OpenedBy()
	if e.By != lane.EncryptionTang || len(e.Tang) == 0 || slices.Contains(e.Tang, lane.Tang{}) {
		return out // that none is named, or one wrongly, is told for all seeds
	}
	if in.Host.Boot.VLAN != 0 {
		out = append(out, "boot.vlan: for Tang the image's initramfs asks for an address without a tag: deliver the boot VLAN untagged at the switch port, or use `encryption: "+lane.EncryptionTPM2+"`")
	}
	for _, p := range e.Validate() {
		out = append(out, in.path("tang")+": "+p)
	}
	return out
}
