package script

import (
	"fmt"
	"strings"

	"bootlane/internal/lane"
)

// GRUBEntry returns the configuration that every GRUB reads first: it tells the server
// what the machine is, and goes on with the answer. Paths begin at where GRUB itself came
// from. It can destroy nothing. surface is how it was asked for: what stands in a request
// by HTTP must not have blanks, so that only the UUID is told there.
func GRUBEntry(surface lane.Surface) []byte {
	said := lane.GRUBSaid(func(key string) string {
		if surface == lane.SurfaceHTTP && key != "uuid" {
			return ""
		}
		return "${bl_" + key + "}"
	})
	lines := []string{
		"# Bootlane entry configuration: says what this machine is, and takes the answer.",
		// Types and offsets are those of the SMBIOS reference specification, 7.2 and 7.4.
		"smbios --type 1 --get-uuid 8 --set bl_uuid",
		"smbios --type 1 --get-string 7 --set bl_serial",
		"smbios --type 3 --get-string 8 --set bl_asset",
		"smbios --type 1 --get-string 4 --set bl_manufacturer",
		"smbios --type 1 --get-string 5 --set bl_product",
		"set bl_platform=${grub_cpu}-uefi",
		`if [ "${grub_platform}" = pc ]; then set bl_platform=x86_64-bios; fi`,
		// GRUB ends a loop of 30 as it ends one of 3; it has no arithmetic.
		"for bl_try in " + strings.TrimSpace(strings.Repeat("again ", 30)) + "; do",
		`  configfile "/boot/${net_default_mac}/${bl_platform}/` + lane.GRUBConfig + "?" + said + `"`,
		"  echo 'Bootlane: no answer from the server, asking again in 10 s'",
		"  sleep 10",
		"done",
		"echo 'Bootlane: the server cannot be reached; booting the local disk'",
	}
	return join(lines, grubLocal(lane.Platform{}, "")...)
}

// GRUBInstall returns the configuration that starts an installer. The kernel's and the
// initrd's URLs are paths on the server that GRUB came from.
func GRUBInstall(in Install) []byte {
	var args []string
	for _, a := range strings.Fields(in.Args) {
		args = append(args, grubQuote(a))
	}
	lines := grubSay(in.purpose())
	lines = append(lines,
		"for bl_try in 1 2 3 4; do",
		"  if linux "+grubQuote(in.KernelURL)+" "+strings.Join(args, " ")+"; then",
		"    if initrd "+grubQuote(in.InitrdURL)+"; then",
		"      boot",
		"    fi",
		"  fi",
		"  echo 'Bootlane: could not load the installer, trying again in 10 s'",
		"  sleep 10",
		"done",
		"echo 'Bootlane: the installer could not be loaded; telling the server'",
		"configfile "+grubQuote(in.AgainURL))
	return join(lines, grubLocal(platform(in.Facts), in.LocalBoot)...)
}

// GRUBLocal returns the configuration that leaves the machine to its own disk.
func GRUBLocal(m Machine, d lane.Decision) []byte {
	return join(grubSay("local boot: "+string(d.Reason)+": "+d.Detail), grubLocal(platform(m.Facts), m.LocalBoot)...)
}

// GRUBHold returns the diagnosis screen, as [HoldScript] does for iPXE. again is the
// path that is asked after the wait.
func GRUBHold(m Machine, d lane.Decision, h Hold, again string) []byte {
	lines := []string{"# Bootlane: held, " + clean(string(d.Reason))}
	for _, text := range holdScreen(m, d) {
		lines = append(lines, "echo "+grubQuote(text))
	}
	seconds := int(h.Wait.Seconds())
	if h.Then == "ask" {
		lines = append(lines, fmt.Sprintf("echo 'This machine asks again every %d s.'", seconds), fmt.Sprintf("sleep %d", seconds), "configfile "+grubQuote(again))
	} else {
		lines = append(lines, fmt.Sprintf("echo 'Local boot in %d s.'", seconds), fmt.Sprintf("sleep %d", seconds))
	}
	return join(lines, grubLocal(platform(m.Facts), m.LocalBoot)...)
}

func platform(f lane.Facts) lane.Platform { return lane.Platform{Arch: f.Arch, Firmware: f.Firmware} }

func grubSay(text string) []string {
	return []string{"# Bootlane: " + clean(text), "echo " + grubQuote("Bootlane: "+clean(text))}
}

// vendors are the directories of the EFI system partition in which systems keep their
// boot loaders.
const vendors = "debian ubuntu rocky almalinux redhat centos fedora opensuse sles"

// grubLocal leaves GRUB for the disk. GRUB's exit tells firmware that all went well, and
// OVMF then shows its menu, so that the disk's own shim is looked for and started. That
// returns where the firmware, having booted by network, did not connect its file systems
// (seen with OVMF): then GRUB goes by the configuration of the disk's GRUB, for it reads
// disks by itself. exit 1 is for firmware to go on with its next boot option, where GRUB's
// vendor lets it.
func grubLocal(p lane.Platform, how string) []string {
	switch {
	case how == lane.LocalBootExit, p.Firmware == lane.BIOS:
		return []string{"exit"}
	case how == lane.LocalBootExit1:
		return []string{"exit 1"}
	}
	shims, configs := []string{"/EFI/BOOT/BOOT${bl_arch}.EFI"}, []string{}
	for _, v := range strings.Fields(vendors) {
		shims, configs = append(shims, "/EFI/"+v+"/shim${bl_arch}.efi"), append(configs, "/EFI/"+v)
	}
	return []string{
		"set bl_arch=x64", `if [ "${grub_cpu}" = arm64 ]; then set bl_arch=aa64; fi`, `if [ "${grub_cpu}" = i386 ]; then set bl_arch=ia32; fi`,
		"for bl_file in " + strings.Join(shims, " ") + " /EFI/Microsoft/Boot/bootmgfw.efi; do",
		"  if search --no-floppy --file --set=bl_disk ${bl_file}; then",
		"    if chainloader (${bl_disk})${bl_file}; then",
		"      boot",
		"    fi",
		"  fi",
		"done",
		"for bl_dir in " + strings.Join(configs, " ") + "; do",
		"  if search --no-floppy --file --set=bl_disk ${bl_dir}/grub.cfg; then",
		"    set root=${bl_disk}",
		"    set prefix=(${root})${bl_dir}",
		"    configfile ${prefix}/grub.cfg",
		"  fi",
		"done",
		"exit 1",
	}
}

// grubQuote returns a word of GRUB's language that means s, which has no quotes.
func grubQuote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:/=,@+%-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", "") + "'"
}
