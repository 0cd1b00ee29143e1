package agent

import (
	"bytes"
	"fmt"

	"bootlane/internal/lane"
)

// cleared is a disk that an order lists to be cleared, opened exclusively.
type cleared struct {
	disk lane.Disk
	t    Target
}

// openWipe opens the disks that are to be cleared: all of them, or none.
func (a *agent) openWipe(list []lane.DiskSelector, root lane.Disk, disks []lane.Disk) ([]cleared, error) {
	found, err := lane.ResolveWipe(root, list, disks)
	if err != nil {
		return nil, fmt.Errorf("find the disks to clear: %w", err)
	}
	var out []cleared
	for _, d := range found {
		t, err := a.cfg.Machine.OpenDisk(d)
		if err == nil && t.Size() < 2*headBytes {
			err = fmt.Errorf("it has %d bytes only", t.Size())
			_ = t.Close() // nothing was written
		}
		if err != nil {
			closeAll(out)
			return nil, fmt.Errorf("open the disk %s, which is to be cleared: %w", d.Name, err)
		}
		out = append(out, cleared{d, t})
	}
	return out, nil
}

func closeAll(list []cleared) {
	for _, c := range list {
		_ = c.t.Close() // what was written is synced and read back
	}
}

// wipe makes the disk one that nobody finds anything on: the ends of the disk and of every
// partition that the kernel knows are zeros, which is where partition tables, file systems,
// LVM, RAID and ZFS have their signatures. The rest is discarded where the disk can do that;
// it is no erasure: bytes in between may still be there.
func (c cleared) wipe() error {
	parts := c.t.Partitions()
	if err := c.t.Discard(); err != nil {
		return err
	}
	size, sector := c.t.Size(), int64(c.t.SectorSize())
	at := []int64{0, size - headBytes}
	for _, p := range parts {
		at = append(at, p[0], p[0]+p[1]-headBytes)
	}
	for i, off := range at {
		at[i] = min(max(off, 0), size-headBytes) / sector * sector
		if err := c.t.Zero(at[i], headBytes); err != nil {
			return err
		}
	}
	if err := flush(c.t); err != nil {
		return err
	}
	zero, got := make([]byte, headBytes), make([]byte, headBytes)
	for _, off := range at {
		if _, err := c.t.ReadAt(got, off); err != nil {
			return fmt.Errorf("read back byte %d: %w", off, err)
		}
		if !bytes.Equal(got, zero) {
			return fmt.Errorf("it does not give back zeros at byte %d", off)
		}
	}
	return nil
}
