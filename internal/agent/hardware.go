package agent

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"bootlane/internal/lane"
)

const textBytes = 200 // of one string of SMBIOS or of a disk

// readHardware reads what the machine is made of from the /sys and /proc below
// root. What cannot be read is left out: the server decides what must be known.
func readHardware(root string) lane.Hardware {
	dmi := func(name string) string { return readText(filepath.Join(root, "sys/class/dmi/id", name)) }
	table, _ := os.ReadFile(filepath.Join(root, "sys/firmware/dmi/tables/DMI")) // left out when there is none
	hw := lane.Hardware{
		Serial: dmi("product_serial"), AssetTag: dmi("chassis_asset_tag"),
		Manufacturer: dmi("sys_vendor"), Product: dmi("product_name"), FirmwareRev: dmi("bios_version"),
		Firmware: string(lane.BIOS),
		CPUs:     countCPUs(readText(filepath.Join(root, "sys/devices/system/cpu/online"))),
		CPUModel: cpuModel(string(readBytes(filepath.Join(root, "proc/cpuinfo")))),
		BMC:      redfishAddress(table),
		NICs:     readNICs(root), Disks: readDisks(root),
	}
	// The kernel prints the UUID in RFC 4122 order for SMBIOS 2.6 and newer, as
	// iPXE does, so that the two agree without swapping.
	if u, err := lane.ParseUUID(dmi("product_uuid")); err == nil {
		hw.UUID = u
	}
	if _, err := os.Stat(filepath.Join(root, "sys/firmware/efi")); err == nil {
		hw.Firmware = string(lane.UEFI)
		hw.SecureBoot = secureBoot(root)
	}
	meminfo, _ := os.ReadFile(filepath.Join(root, "proc/meminfo")) // left out when unreadable
	hw.MemoryBytes = memTotal(string(meminfo))
	return hw
}

// secureBoot reads the UEFI variable SecureBoot: four bytes of attributes, then
// one byte that is 1 when the firmware enforces signatures.
func secureBoot(root string) bool {
	b, err := os.ReadFile(filepath.Join(root, "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"))
	return err == nil && len(b) == 5 && b[4] == 1
}

// countCPUs counts a kernel CPU list, "0-3,8".
func countCPUs(list string) int {
	n := 0
	for _, part := range strings.Split(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		a, err := strconv.Atoi(from)
		if err != nil {
			continue
		}
		b := a
		if isRange {
			if b, err = strconv.Atoi(to); err != nil || b < a {
				continue
			}
		}
		n += b - a + 1
	}
	return n
}

// cpuModel returns the name of the first CPU. Arm's /proc/cpuinfo has none.
func cpuModel(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		if key, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return lane.Clean(v, textBytes)
		}
	}
	return ""
}

func memTotal(meminfo string) int64 {
	for _, line := range strings.Split(meminfo, "\n") {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "MemTotal:" {
			kib, _ := strconv.ParseInt(f[1], 10, 64)
			return kib * 1024
		}
	}
	return 0
}

// readNICs lists the physical Ethernet interfaces: those that stand on a device.
func readNICs(root string) []lane.NIC {
	dir := filepath.Join(root, "sys/class/net")
	var out []lane.NIC
	for _, name := range entries(dir) {
		at := filepath.Join(dir, name)
		mac, err := lane.ParseMAC(readText(filepath.Join(at, "address")))
		if err != nil || readText(filepath.Join(at, "type")) != "1" { // ARPHRD_ETHER
			continue
		}
		if _, err := os.Stat(filepath.Join(at, "device")); err != nil {
			continue // lo, bridges, bonds, VLANs
		}
		driver, _ := os.Readlink(filepath.Join(at, "device/driver")) // left out when there is none
		n := lane.NIC{Name: name, MAC: mac, Driver: base(driver), Up: readText(filepath.Join(at, "carrier")) == "1"}
		if mbps, err := strconv.Atoi(readText(filepath.Join(at, "speed"))); err == nil && n.Up {
			n.Mbps = max(mbps, 0) // -1 where the driver does not know, as virtio_net
		}
		out = append(out, n)
	}
	return out
}

// readDisks lists the whole disks.
func readDisks(root string) []lane.Disk {
	dir := filepath.Join(root, "sys/block")
	var out []lane.Disk
	for _, name := range entries(dir) {
		if wholeDisk.MatchString(name) {
			if d, ok := readDisk(filepath.Join(dir, name), name); ok {
				out = append(out, d)
			}
		}
	}
	return out
}

// wholeDisk: not loop, ram, zram, dm-, md, sr, fd, nbd, and not the boot
// partitions of an eMMC, which are disks of their own to the kernel.
var wholeDisk = regexp.MustCompile(`^(sd[a-z]+|vd[a-z]+|xvd[a-z]+|nvme[0-9]+n[0-9]+|mmcblk[0-9]+)$`)

func readDisk(at, name string) (lane.Disk, bool) {
	sectors, err := strconv.ParseInt(readText(filepath.Join(at, "size")), 10, 64)
	if err != nil || sectors <= 0 || sectors > 1<<54 {
		return lane.Disk{}, false // an empty card reader
	}
	flag := func(file string) bool { return readText(filepath.Join(at, file)) == "1" }
	d := lane.Disk{
		Name: name, SizeBytes: sectors * 512, // in units of 512, whatever the sector size
		Model: readText(filepath.Join(at, "device/model")), Vendor: readText(filepath.Join(at, "device/vendor")),
		Rotational: flag("queue/rotational"), Removable: flag("removable"), ReadOnly: flag("ro"),
	}
	where, err := filepath.EvalSymlinks(at)
	if err != nil {
		return lane.Disk{}, false
	}
	identify(&d, at, where)
	slices.Sort(d.ByID)
	d.ByID = slices.Compact(d.ByID)
	slices.Sort(d.ByPath)
	d.ByPath = slices.Compact(d.ByPath)
	return d, true
}

// entries lists a directory in order; an unreadable one is empty.
func entries(dir string) []string {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

// readText reads one attribute; an unreadable one is empty.
func readText(file string) string {
	return lane.Clean(string(readBytes(file)), textBytes)
}

func readBytes(file string) []byte {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	return bytes.TrimRight(b, "\x00")
}

func base(p string) string {
	if p == "" {
		return ""
	}
	return filepath.Base(p)
}
