package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bootlane/internal/lane"
)

// Debian's signed shim and the signed GRUB of its installer, under the names that they
// ask for each other by.
const (
	secureDir     = "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64"
	secureShim    = secureDir + "/bootnetx64.efi"
	secureLoaders = "\nloaders:\n  x86_64-uefi: [" + secureShim + ", " + secureDir + "/grubx64.efi, /usr/lib/ipxe/snponly.efi]"
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
	if err := m.cycle(ctx); err != nil {
		return err
	}
	if err := l.screen(ctx, m, "Bootlane holds this machine", patience); err != nil {
		return err
	}
	if err := l.screen(ctx, m, m.Name+" login:", patience); err != nil {
		return err
	}
	h, err := l.client.Host(ctx, m.Name)
	if err != nil {
		return err
	}
	l.expect(h.State == lane.StateQuarantine && h.Run.BootsUsed == 1, "held, its screen told why, and GRUB went on to the system on its disk; %d network boot counted", h.Run.BootsUsed)
	return nil
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

// brokenChains sends machines with Secure Boot through chains that cannot hold: Bootlane
// says so beforehand, and where it was not told, the evidence shows where it ended.
func brokenChains(ctx context.Context, l *Lab) error {
	unsigned := l.machine("node-u-ipxe", lane.UEFI, Disk{Serial: "SYSTEM-U1", Bytes: gigabyte})
	tampered := l.machine("node-u-grub", lane.UEFI, Disk{Serial: "SYSTEM-U2", Bytes: gigabyte})
	web := l.machine("node-u-http", lane.UEFI, Disk{Serial: "SYSTEM-U3", Bytes: gigabyte})
	unsigned.Board, tampered.Board, web.Board = Secure, Secure, Secure
	unsigned.Loader, web.Boot = "snponly.efi", HTTP
	if err := l.ready(ctx, l.cfg.Installer, unsigned, web); err != nil {
		return err
	}
	dir, err := l.tamperedBundle(ctx)
	if err != nil {
		return err
	}
	if err := l.ready(ctx, dir, tampered); err != nil {
		return err
	}
	if err := l.refusesChain(ctx, unsigned, "snponly.efi, which firmware checks"); err != nil {
		return err
	}
	if err := l.refusesChain(ctx, tampered, "grubx64.efi, which shim checks"); err != nil {
		return err
	}
	for _, m := range l.machines {
		if err := l.provision(ctx, m, lane.Provisioning{}); err != nil {
			return err
		}
		if err := m.start(ctx); err != nil {
			return err
		}
	}
	if err := l.sentOnByHTTP(ctx, web); err != nil {
		return err
	}
	if err := l.endedAt(ctx, unsigned, `Access Denied|Security Violation`, "/snponly.efi"); err != nil {
		return err
	}
	return l.endedAt(ctx, tampered, `Verification failed|Security Violation`, "/grubx64.efi")
}

// tamperedBundle makes a bundle of the installer whose GRUB has one bit turned.
func (l *Lab) tamperedBundle(ctx context.Context) (string, error) {
	dir := filepath.Join(l.dir, "tampered")
	if err := run(ctx, nil, "cp", "-r", l.cfg.Installer, dir); err != nil {
		return "", err
	}
	manifest, err := os.ReadFile(filepath.Join(dir, "bundle.yaml"))
	if err != nil {
		return "", fmt.Errorf("read the installer's manifest: %w", err)
	}
	text := strings.Replace(string(manifest), "name: debian-12-installer\n", "name: tampered\n", 1) +
		"loaders:\n  x86_64-uefi: {first: " + filepath.Base(secureShim) + ", second: grubx64.efi}\n"
	grub, err := os.ReadFile(filepath.Join(secureDir, "grubx64.efi"))
	if err != nil {
		return "", fmt.Errorf("read GRUB: %w", err)
	}
	grub[len(grub)/2] ^= 1
	err = errors.Join(os.WriteFile(filepath.Join(dir, "bundle.yaml"), []byte(text), 0o644), os.WriteFile(filepath.Join(dir, "grubx64.efi"), grub, 0o644),
		run(ctx, nil, "cp", secureShim, dir))
	if err != nil {
		return "", fmt.Errorf("make a bundle: %w", err)
	}
	return dir, l.seal(ctx, dir)
}

// seal builds the bundle in a directory, and signs it where the server wants that.
func (l *Lab) seal(ctx context.Context, dir string) error {
	if err := run(ctx, nil, l.cfg.Bootlane, "bundle", "build", dir); err != nil || l.cfg.Key == "" {
		return err
	}
	return run(ctx, nil, l.cfg.Bootlane, "bundle", "sign", dir, "--key", l.cfg.Key)
}

// refusesChain expects that no install is granted once the record says that the firmware
// takes signed code only, and takes that word back.
func (l *Lab) refusesChain(ctx context.Context, m *Machine, says string) error {
	h, err := l.client.Host(ctx, m.Name)
	if err != nil {
		return err
	}
	spec := m.spec(h.Bundle)
	spec.Boot.SecureBoot = "both"
	if err := l.enrol(ctx, spec); err != nil {
		return err
	}
	_, err = l.client.Provision(ctx, m.Name, lane.Provisioning{})
	l.expect(err != nil && strings.Contains(err.Error(), says), "an install on %s is refused: %s", m.Name, lane.Clean(fmt.Sprint(err), 300))
	return l.enrol(ctx, m.spec(h.Bundle))
}

// sentOnByHTTP expects that firmware was not given GRUB by HTTP Boot.
func (l *Lab) sentOnByHTTP(ctx context.Context, m *Machine) error {
	var e lane.Event
	err := l.until(ctx, patience, m.Name+" asks by HTTP Boot", func() (bool, error) {
		events, err := l.client.Events(ctx, m.Name, 0, 5000)
		i := slices.IndexFunc(events, func(e lane.Event) bool { return e.Reason == lane.LoaderByTFTP })
		if i >= 0 {
			e = events[i]
		}
		return i >= 0, err
	})
	l.expect(err == nil && e.Action == lane.LocalBoot.String(), "%s was sent on: %s", m.Name, e.Message)
	m.stop()
	return err
}

// endedAt expects that a chain ended behind a file: the screen says so, and why says where.
func (l *Lab) endedAt(ctx context.Context, m *Machine, screen, file string) error {
	if err := l.screen(ctx, m, screen, patience); err != nil {
		return err
	}
	v, err := l.client.Why(ctx, m.Name)
	if err != nil {
		return err
	}
	l.expect(v.Stage == lane.StageLoader && strings.Contains(v.Because+v.Next, "Secure Boot"), "why %s: at stage %s: %s; %s", m.Name, v.Stage, v.Because, v.Next)
	events, err := l.client.Events(ctx, m.Name, 0, 5000)
	if err != nil {
		return err
	}
	l.expect(slices.ContainsFunc(events, func(e lane.Event) bool { return e.Kind == lane.KindAsked && strings.HasSuffix(e.Name, file) }), "the evidence has the file that ended the chain: %s", file)
	l.expect(!slices.ContainsFunc(events, func(e lane.Event) bool { return e.Stage == lane.StageScript }) && blank(m, 0), "no installer was started, and the disk of %s is blank", m.Name)
	m.stop()
	return nil
}
