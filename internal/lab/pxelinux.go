package lab

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"bootlane/internal/lane"
)

// efi64Loaders offers SYSLINUX beside iPXE, for hosts whose record asks for it.
const efi64Loaders = "\nloaders:\n  x86_64-uefi: [/usr/lib/ipxe/snponly.efi, " + efi64Loader + ", " + efi64Rest + "]"

const (
	efi64Loader = "/usr/lib/SYSLINUX.EFI/efi64/syslinux.efi"
	efi64Rest   = "/usr/lib/syslinux/modules/efi64/ldlinux.e64"
)

// syslinux boots a machine whose record asks for another loader than iPXE, as far as its
// agent's first report. PXELINUX, the same for BIOS, no machine here would load: the NICs
// that QEMU plays have iPXE in their ROM.
func syslinux(ctx context.Context, l *Lab) error {
	m := l.machine("node-p", lane.UEFI, Disk{Serial: "SYSTEM-P", Bytes: 2 * gigabyte})
	m.Loader = filepath.Base(efi64Loader)
	if err := l.ready(ctx, l.cfg.Image, m); err != nil {
		return err
	}
	if err := l.reachesAgent(ctx, m); err != nil {
		return err
	}
	if err := l.fetched(ctx, m, 7, efi64Loader); err != nil {
		return err
	}
	return l.configured(ctx, m)
}

// configured expects that a machine got its installer by a configuration of PXELINUX's form.
func (l *Lab) configured(ctx context.Context, m *Machine) error {
	events, err := l.client.Events(ctx, m.Name, 0, 5000)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(events, func(e lane.Event) bool { return strings.HasSuffix(e.Name, "pxelinux.cfg/01-"+m.MACs[0].Hyphens()) })
	if l.expect(i >= 0, "%s asked for pxelinux.cfg/01-%s", m.Name, m.MACs[0].Hyphens()) {
		e := events[i]
		l.expect(e.Action == lane.Install.String() && e.Stage == lane.StageScript && e.Surface == lane.SurfaceTFTP, "and was told to install, by TFTP: %s", e.Message)
	}
	return nil
}

// uboot boots a machine whose firmware is U-Boot, by the commands that its users have in
// their boot script: the configuration, kernel and initrd all come by TFTP.
func uboot(ctx context.Context, l *Lab) error {
	m := l.machine("node-q", lane.UEFI, Disk{Serial: "SYSTEM-Q", Bytes: gigabyte})
	m.Board = UBoot
	// One line: what is typed while a command runs is lost.
	m.Typed = "\nsetenv autoload no; dhcp; pxe get; pxe boot\n"
	dir, err := l.armBundle(ctx)
	if err != nil {
		return err
	}
	b, err := l.client.ImportBundle(ctx, lane.BundleImport{Dir: dir})
	if err != nil {
		return err
	}
	// U-Boot hands no SMBIOS to the kernel: with a UUID in its record the machine would be
	// refused by the identity gate.
	s := m.spec(b.Ref())
	s.Identity = lane.Identity{MACs: m.MACs}
	if err := l.enrol(ctx, s); err != nil {
		return err
	}
	if err := l.reachesAgent(ctx, m); err != nil {
		return err
	}
	l.expect(true, "%s came by U-Boot and the installer's kernel to the identity gate", m.Name)
	events, err := l.client.Events(ctx, m.Name, 0, 5000)
	if err != nil {
		return err
	}
	for _, file := range []string{"linux", "initrd.gz"} {
		l.expect(slices.ContainsFunc(events, func(e lane.Event) bool {
			return e.Kind == lane.KindServed && e.Name == file && e.Surface == lane.SurfaceTFTP
		}), "%s was served by TFTP", file)
	}
	return l.configured(ctx, m)
}
