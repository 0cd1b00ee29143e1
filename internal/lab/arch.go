package lab

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"bootlane/internal/lane"
)

// Debian 12 has iPXE for x86_64 only. What boots other machines here are other real
// loaders of Debian: the network GRUB of its installer, and SYSLINUX.
const (
	armInstaller = "/usr/lib/debian-installer/images/12/arm64/text/debian-installer/arm64"
	armLoader    = armInstaller + "/bootnetaa64.efi"
	efi32Loader  = "/usr/lib/SYSLINUX.EFI/efi32/syslinux.efi"
	efi32Rest    = "/usr/lib/syslinux/modules/efi32/ldlinux.e32"

	armLoaders   = "\nloaders:\n  arm64-uefi: [" + armLoader + ", " + armInstaller + "/grubaa64.efi]"
	efi32Loaders = "\nloaders:\n  i386-uefi: [" + efi32Loader + ", " + efi32Rest + "]"
)

// armBundle makes a bundle of Debian's installer for arm64.
func (l *Lab) armBundle(ctx context.Context) (string, error) {
	dir := filepath.Join(l.dir, "installer-arm64")
	manifest := "name: debian-12-installer-arm64\nversion: \"1\"\nos: debian\nrelease: bookworm\narch: arm64\nseed: debian-preseed/1\nkernel: linux\ninitrd: initrd.gz\nargs: ipv6.disable=1 console=ttyAMA0\n" +
		"mirror: http://mirror.lab.example/debian/20261101T000000Z\nsecurity: http://mirror.lab.example/debian-security/20261101T000000Z\n"
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", fmt.Errorf("make a bundle: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bundle.yaml"), []byte(manifest), 0o644); err != nil {
		return "", fmt.Errorf("make a bundle: %w", err)
	}
	if err := run(ctx, nil, "cp", filepath.Join(armInstaller, "linux"), filepath.Join(armInstaller, "initrd.gz"), dir); err != nil {
		return "", err
	}
	return dir, l.seal(ctx, dir)
}

// arm64 boots machines of another architecture than the site's image, by PXE and by HTTP Boot.
func arm64(ctx context.Context, l *Lab) error {
	var machines []*Machine
	for _, way := range []Way{PXE, HTTP} {
		m := l.machine("node-m-"+cmp.Or(string(way), "pxe"), lane.UEFI, Disk{Serial: fmt.Sprintf("SYSTEM-M-%d", len(machines)), Bytes: gigabyte})
		m.Board, m.Boot = ARM64, way
		machines = append(machines, m)
	}
	if err := l.ready(ctx, l.cfg.Image, machines...); err != nil {
		return err
	}
	for _, m := range machines {
		l.refusesArch(ctx, m)
	}
	dir, err := l.armBundle(ctx)
	if err != nil {
		return err
	}
	if err := l.ready(ctx, dir, machines...); err != nil {
		return err
	}
	for _, m := range machines {
		if err := l.provision(ctx, m, lane.Provisioning{}); err != nil {
			return err
		}
		if err := m.start(ctx); err != nil {
			return err
		}
	}
	pxe, web := machines[0], machines[1]
	if err := l.sentOnByHTTP(ctx, web); err != nil {
		return err
	}
	if err := l.stage(ctx, pxe.Name, lane.StageKernel, patience); err != nil {
		return err
	}
	l.expect(true, "%s came by shim, GRUB and the installer's kernel to the identity gate", pxe.Name)
	pxe.stop()
	return l.fetched(ctx, pxe, 11, armLoader)
}

// refusesArch expects that nobody can have a bundle of another architecture installed.
func (l *Lab) refusesArch(ctx context.Context, m *Machine) {
	_, err := l.client.Provision(ctx, m.Name, lane.Provisioning{})
	want := fmt.Sprintf("the machine is %s, the bundle", m.hardware().arch)
	l.expect(err != nil && strings.Contains(err.Error(), want), "an install on %s is refused: %s", m.Name, lane.Clean(fmt.Sprint(err), 300))
}

// ia32 boots a machine whose firmware has 32 bits and that nobody knows.
func ia32(ctx context.Context, l *Lab) error {
	m := l.machine("stranger-i", lane.UEFI, Disk{Serial: "SYSTEM-I", Bytes: gigabyte})
	m.Board = IA32
	if err := m.start(ctx); err != nil {
		return err
	}
	if err := l.screen(ctx, m, "Bootlane hold: "+string(lane.UnknownMachine), patience); err != nil {
		return err
	}
	l.expect(true, "SYSLINUX ran, asked for its configuration, and shows why the machine is held")
	if err := l.fetched(ctx, m, 6, efi32Loader); err != nil {
		return err
	}
	return l.held(ctx, m)
}
