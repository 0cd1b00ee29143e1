package lab

import (
	"context"

	"bootlane/internal/lane"
)

// Debian's signed shim and the signed GRUB of its installer, under the names that they
// ask for each other by.
const (
	secureDir     = "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64"
	secureShim    = secureDir + "/bootnetx64.efi"
	secureLoaders = "\nloaders:\n  x86_64-uefi: [" + secureShim + ", " + secureDir + "/grubx64.efi]"
)

// secureJob is the main job with Secure Boot enforced all the way: shim, GRUB and the
// kernel with the agent by network, then the written disk's own shim, GRUB and kernel.
func secureJob(ctx context.Context, l *Lab) error {
	m := l.machine("node-s", lane.UEFI, Disk{Serial: "SYSTEM-S", Bytes: 2 * gigabyte})
	m.Board = Secure
	if err := l.ready(ctx, l.cfg.Image, m); err != nil {
		return err
	}
	if err := l.install(ctx, m); err != nil {
		return err
	}
	if err := l.enforced(m); err != nil {
		return err
	}
	if err := l.bootsLocally(ctx, m, 1); err != nil {
		return err
	}
	if _, err := l.client.Act(ctx, m.Name, "quarantine", "to see what a held machine does"); err != nil {
		return err
	}
	if err := m.cycle(); err != nil {
		return err
	}
	if err := l.screen(ctx, m, "Bootlane holds this machine", patience); err != nil {
		return err
	}
	if err := l.screen(ctx, m, m.Name+" login:", patience); err != nil {
		return err
	}
	l.expect(true, "held, its screen told why, and GRUB went on to the shim of its disk")
	return l.nothingInstalls(ctx, m)
}

// enforced expects that firmware, and the kernel after it, took signed code only.
func (l *Lab) enforced(m *Machine) error {
	l.expect(m.shows("UEFI Secure Boot is enabled"), "the kernel was told by the firmware: Secure Boot is enabled")
	l.expect(m.shows("Kernel is locked down from EFI Secure Boot"), "and is locked down")
	return nil
}

// secureInstaller boots the Debian installer with Secure Boot enforced.
func secureInstaller(ctx context.Context, l *Lab) error {
	m := l.machine("node-t", lane.UEFI, Disk{Serial: "SYSTEM-T", Bytes: gigabyte})
	m.Board = Secure
	if err := l.ready(ctx, l.cfg.Installer, m); err != nil {
		return err
	}
	if err := l.reachesAgent(ctx, m); err != nil {
		return err
	}
	if err := l.enforced(m); err != nil {
		return err
	}
	return l.readItsSeed(ctx, m)
}
