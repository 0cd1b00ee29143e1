package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"bootlane/internal/lane"
)

// commissioned takes a machine that nobody knows to the begin of its install, without a hand
// on it: looked at by the agent, adopted, provisioned while it waits in RAM.
func commissioned(ctx context.Context, l *Lab) error {
	m := l.machine("node-n", lane.UEFI, Disk{Serial: "SYSTEM-N", Bytes: 2 * gigabyte}, Disk{Serial: "DATA-N", Bytes: 100_000_000})
	b, err := l.client.ImportBundle(ctx, lane.BundleImport{Dir: l.cfg.Image})
	if err != nil {
		return err
	}
	if err := l.inspects(ctx, b.Ref()); err != nil {
		return err
	}
	if err := m.start(ctx); err != nil {
		return err
	}
	if err := sign(m.DiskFile(1)); err != nil { // its firmware is still at its memory
		return err
	}
	var found []lane.Discovered
	err = l.until(ctx, patience, "an agent tells what "+m.Name+" is made of", func() (bool, error) {
		found, err = l.client.Discovered(ctx)
		return len(found) > 0, err
	})
	if err != nil {
		return err
	}
	l.foundAs(m, found[0])
	if err := l.screen(ctx, m, "the server says wait", patience); err != nil {
		return err
	}
	l.expect(blank(m, 0) && signed(m.DiskFile(1)), "its disks are as they were: one blank, one with an old swap area")
	hosts, err := l.client.Hosts(ctx)
	l.expect(err == nil && len(hosts) == 0, "no record came of it")
	if err := l.adopt(ctx, m, b.Ref()); err != nil {
		return err
	}
	if err := l.provision(ctx, m, lane.Provisioning{}); err != nil {
		return err
	}
	// Nobody touches it: the agent hears that it is wanted, and reboots.
	for _, s := range []lane.Stage{lane.StageScript, lane.StageKernel, lane.StageDiskWritten} {
		if err := l.stage(ctx, m.Name, s, patience); err != nil {
			return err
		}
	}
	events, err := l.client.Events(ctx, m.Name, 0, 5000)
	if err != nil {
		return err
	}
	l.expect(slices.ContainsFunc(events, func(e lane.Event) bool {
		return e.Stage == lane.StageDiskWritten && strings.Contains(e.Message, "disk vdb cleared")
	}) && !signed(m.DiskFile(1)), "the disk that the record lists to be cleared has no swap area any more")
	return nil
}

// adopt makes a record of a machine that was looked at: its first disk is installed to, its
// second cleared.
func (l *Lab) adopt(ctx context.Context, m *Machine, bundle string) error {
	ask := lane.Adoption{ID: lane.HostID(m.Name), Bundle: bundle}
	out, err := l.client.Adopt(ctx, string(m.MACs[0]), ask)
	if err != nil {
		return err
	}
	l.expect(len(out.Problems) == 1 && out.Problems[0].Field == "disk", "of its two disks none is chosen for the operator: %v", out.Problems)
	ask.Disk = m.Disks[0].Serial
	if out, err = l.client.Adopt(ctx, string(m.MACs[0]), ask); err != nil {
		return err
	}
	l.expect(len(out.Problems) == 0 && out.Host.State == lane.StateNew, "adopted: %s, disk %s", out.Host.Identity, out.Host.Disk)
	spec := m.spec(bundle)
	spec.Wipe = []lane.DiskSelector{{Serial: m.Disks[1].Serial}}
	return l.enrol(ctx, spec)
}

// swapMagic is by what the kernel, and blkid, know a swap area with pages of 4 KiB, and where.
const (
	swapMagic   = "SWAPSPACE2"
	swapMagicAt = 4096 - 10
)

// sign makes a disk one that holds something.
func sign(file string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("write a swap area: %w", err)
	}
	_, err = f.WriteAt([]byte(swapMagic), swapMagicAt)
	return errors.Join(err, f.Close())
}

// signed reports whether it still does.
func signed(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // it was only read
	got := make([]byte, len(swapMagic))
	_, err = f.ReadAt(got, swapMagicAt)
	return err == nil && string(got) == swapMagic
}

// inspects starts the server anew with a configuration that has machines looked at.
func (l *Lab) inspects(ctx context.Context, bundle string) error {
	plain := l.site.Config
	l.site.Config = func(data, operators string) ([]byte, error) {
		text, err := plain(data, operators)
		return bytes.Replace(text, []byte("policy:\n"), fmt.Appendf(nil, "policy:\n  inspect: {bundle: %s}\n", bundle), 1), err
	}
	return l.killServer(ctx, "to be told who looks at machines")
}

// foundAs expects that the agent found what the machine is made of.
func (l *Lab) foundAs(m *Machine, d lane.Discovered) {
	hw := d.Hardware
	l.expect(hw.UUID == m.UUID && slices.Contains(hw.AllMACs(), m.MACs[0]) && hw.Serial == m.Serial && hw.AssetTag == m.Asset && hw.Firmware == string(m.Firmware),
		"it is %s, by UUID, MAC, serial number and asset tag", m.Name)
	var disks []string
	for _, k := range hw.Disks {
		disks = append(disks, fmt.Sprintf("%s %d", k.Serial, k.SizeBytes))
	}
	right := len(disks) == len(m.Disks)
	for _, d := range m.Disks {
		sectors := (d.Bytes + 511) / 512 // QEMU's disks end with a whole one
		right = right && slices.Contains(disks, fmt.Sprintf("%s %d", d.Serial, sectors*512))
	}
	l.expect(right, "its disks: %s", strings.Join(disks, ", "))
	l.expect(hw.CPUs > 0 && hw.CPUModel != "" && hw.MemoryBytes > 100_000_000 && len(hw.NICs) > 0 && hw.NICs[0].Up && hw.NICs[0].Driver != "",
		"%s", hw.Summary())
}
