package lab

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"bootlane/internal/lane"
)

// Disk is one virtual disk. What it says of itself depends on what it is plugged into.
type Disk struct {
	Serial string
	Bytes  int64
	Bus    string // virtio (the zero value), scsi or sata
	WWN    string // as sysfs spells it; virtio has none
	Model  string // sata only
}

// There is no NVMe: Linux ignores the names of QEMU's (NVME_QUIRK_BOGUS_NID), so that
// no selector finds one by its EUI-64.
const (
	scsi = "scsi"
	sata = "sata"
)

// usualBytes is the size of a disk of which the inventory gives none.
const usualBytes = 4 * gigabyte

// diskFor returns the virtual disk that a selector names, or, with false, a blank
// one that it does not name: real names that no virtual hardware can carry exist.
func diskFor(s lane.DiskSelector) (Disk, bool) {
	d := Disk{Serial: s.Serial, WWN: s.WWN, Bytes: usualBytes}
	if s.SizeGB > 0 {
		d.Bytes = int64(s.SizeGB*1e9) / 512 * 512
	}
	kind, name, _ := strings.Cut(s.ByID, "-")
	switch {
	case kind == "virtio":
		d.Serial = cmp.Or(d.Serial, name)
	case kind == "wwn":
		d.WWN = cmp.Or(d.WWN, name)
	case kind == "scsi" && strings.HasPrefix(name, "3"):
		d.WWN = cmp.Or(d.WWN, "0x"+name[1:])
	case kind == "ata" && strings.Contains(name, "_"):
		at := strings.LastIndexByte(name, '_')
		d.Model, d.Serial = name[:at], cmp.Or(d.Serial, name[at+1:])
	}
	for _, d.Bus = range []string{"", scsi, sata} {
		if _, err := s.Resolve([]lane.Disk{d.seen()}); err == nil {
			return d, true
		}
	}
	return Disk{Serial: "LAB", Bytes: d.Bytes}, false
}

var naaName = regexp.MustCompile(`^0x[0-9a-f]{16}$`)

// seen returns the disk as an agent on the machine finds it: without what QEMU's
// devices of this kind cannot say, and cut to what they can.
func (d Disk) seen() lane.Disk {
	out := lane.Disk{SizeBytes: d.Bytes, Serial: d.Serial}
	add := func(names ...string) { out.ByID = append(out.ByID, names...) }
	if d.Bus != "" && naaName.MatchString(d.WWN) {
		out.WWN = d.WWN
		add("wwn-" + d.WWN)
	}
	longest := 20 // of a serial number, by virtio and ATA
	switch {
	case d.Bus == scsi:
		longest = 36
		if out.WWN != "" {
			add("scsi-3" + d.WWN[2:])
		}
	case d.Bus == sata:
		if len(d.Model) <= 40 {
			add("ata-" + d.Model + "_" + d.Serial)
		}
	default:
		add("virtio-" + d.Serial)
	}
	if len(d.Serial) > longest {
		out.Serial, out.ByID = "", nil
	}
	return out
}

// arguments returns QEMU's options for disk i, which boots after the network.
func (d Disk) arguments(i int, file string) []string {
	out := []string{"-drive", fmt.Sprintf("if=none,id=d%d,format=raw,cache=unsafe,file=%s", i, escape(file))}
	disk := fmt.Sprintf("drive=d%d,bootindex=%d", i, 2+i)
	own := "" // what the disk says of itself
	if d.Serial != "" {
		own = ",serial=" + escape(d.Serial)
	}
	if d.WWN != "" {
		own += ",wwn=" + d.WWN
	}
	switch d.Bus {
	case scsi:
		return append(out, "-device", fmt.Sprintf("virtio-scsi-pci,id=s%d", i), "-device", fmt.Sprintf("scsi-hd,bus=s%d.0,%s%s", i, disk, own))
	case sata:
		return append(out, "-device", fmt.Sprintf("ide-hd,bus=ide.%d,%s%s,model=%s", i, disk, own, escape(d.Model)))
	}
	return append(out, "-device", "virtio-blk-pci,"+disk+own)
}

// make creates the disk's file: blank, and without a block of its own yet.
func (d Disk) make(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("create a disk: %w", err)
	}
	return errors.Join(f.Truncate(d.Bytes), f.Close())
}
