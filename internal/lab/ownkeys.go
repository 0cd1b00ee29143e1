package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"bootlane/internal/lane"
)

// Owned is x86_64 whose UEFI enforces Secure Boot with keys that the lab made: it starts
// what the lab signed, and nothing of Microsoft's.
const Owned Board = "owned"

const (
	blankStore = "/usr/share/OVMF/OVMF_VARS_4M.fd" // before anybody owns the machine
	ownedStore = "enrol/vars.fd"                   // in the lab's directory, after [Lab.own]
	plainIPXE  = "/usr/lib/ipxe/snponly.efi"
)

// ownKeys makes keys as an owner does, and boots by them: iPXE and the kernel with the
// agent run, for they were signed. A machine that is given iPXE as Debian has it does not start it.
func ownKeys(ctx context.Context, l *Lab) error {
	m := l.machine("node-o", lane.UEFI, Disk{Serial: "SYSTEM-O", Bytes: 2 * gigabyte})
	unsigned := l.machine("node-o-unsigned", lane.UEFI, Disk{Serial: "SYSTEM-P", Bytes: gigabyte})
	m.Board, unsigned.Board = Owned, Owned
	dir, err := l.own(ctx, l.cfg.Image)
	if err != nil {
		return err
	}
	if err := l.ready(ctx, dir, m); err != nil {
		return err
	}
	if err := unsigned.start(ctx); err != nil {
		return err
	}
	if err := l.reachesAgent(ctx, m); err != nil {
		return err
	}
	l.expect(m.shows("UEFI Secure Boot is enabled"), "%s enforced Secure Boot, and started iPXE and the kernel that the lab signed", m.Name)
	if err := l.screen(ctx, unsigned, "Access Denied|Security Violation", patience); err != nil {
		return err
	}
	l.expect(!unsigned.shows("iPXE initialising"), "%s rejected the unsigned iPXE", unsigned.Name)
	return l.held(ctx, unsigned)
}

// own makes keys, a variable store that holds them, and a copy of a bundle whose loader
// and kernel they signed. It returns the copy's directory.
func (l *Lab) own(ctx context.Context, from string) (string, error) {
	keys, dir := filepath.Join(l.dir, "keys"), filepath.Join(l.dir, "bundle")
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		return "", fmt.Errorf("copy the bundle: %w", err)
	}
	manifest := filepath.Join(dir, "bundle.yaml")
	text, err := os.ReadFile(manifest)
	if err != nil {
		return "", fmt.Errorf("read the bundle's manifest: %w", err)
	}
	text, _, _ = bytes.Cut(text, []byte("\nfiles:")) // which are hashed anew
	text = append(text, "\nloaders: {x86_64-uefi: snponly.efi}\n"...)
	if err := os.WriteFile(manifest, bytes.Replace(text, []byte("name: "), []byte("name: own-"), 1), 0o644); err != nil {
		return "", fmt.Errorf("write the bundle's manifest: %w", err)
	}
	kernel := filepath.Join(dir, "linux")
	sign := []string{"uefi", "sign", "--certificate", filepath.Join(keys, "db.pem"), "--key", filepath.Join(keys, "db.key")}
	commands := [][]string{
		{"uefi", "keygen", keys, "--name", "Lab", "--no-passphrase"},
		{"uefi", "enroll-bundle", keys, filepath.Dir(filepath.Join(l.dir, ownedStore)), "--store", blankStore},
		append(sign[:len(sign):len(sign)], plainIPXE, filepath.Join(dir, "snponly.efi")),
		append(sign[:len(sign):len(sign)], kernel, kernel),
	}
	for _, args := range commands {
		if err := run(ctx, nil, l.cfg.Bootlane, args...); err != nil {
			return "", err
		}
	}
	l.say("keys made, enrolled in a variable store; iPXE and the kernel signed by them")
	return dir, l.seal(ctx, dir)
}
