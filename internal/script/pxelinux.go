package script

import "bootlane/internal/lane"

// PXELinuxInstall returns the configuration by which PXELINUX, or U-Boot, starts an
// installer. The kernel's and the initrd's names are whatever that loader can fetch.
func PXELinuxInstall(in Install) []byte {
	return join(append(pxelinux(in.purpose()),
		"  KERNEL "+in.KernelURL,
		"  INITRD "+in.InitrdURL,
		"  APPEND "+in.Args))
}

// PXELinuxLocal returns the configuration of every other answer: the loader says why,
// and leaves for the next boot device. U-Boot takes it for its localcmd, or goes on.
func PXELinuxLocal(d lane.Decision) []byte {
	return join(append(pxelinux(d.Action.String()+": "+string(d.Reason)+": "+d.Detail), "  LOCALBOOT -1"))
}

func pxelinux(text string) []string {
	return []string{"# Bootlane: " + clean(text), "SAY Bootlane " + clean(text), "DEFAULT bootlane", "PROMPT 0", "LABEL bootlane"}
}
