package agent

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"bootlane/internal/lane"
)

// There is no udev in the agent's RAM, but people know their disks by the link
// names that udev makes. This file computes those names from sysfs, as the rules
// 60-persistent-storage, scsi_id, ata_id and path_id of systemd 252 do. A name
// that would need a command to the disk is left out.

// identify fills in serial, WWN, transport and link names of the disk whose
// directory is at; where is the same without symbolic links.
func identify(d *lane.Disk, at, where string) {
	attr := func(name string) string { return readText(filepath.Join(at, name)) }
	switch {
	case strings.HasPrefix(d.Name, "vd"):
		d.Transport, d.Serial, d.Vendor = "virtio", attr("serial"), "" // the vendor is a PCI number
		link(&d.ByID, "virtio-", d.Serial)
	case strings.HasPrefix(d.Name, "nvme"):
		identifyNVMe(d, attr)
	case strings.HasPrefix(d.Name, "mmcblk"):
		d.Transport, d.Serial = "mmc", attr("device/serial")
		if name := attr("device/name"); name != "" && d.Serial != "" {
			link(&d.ByID, "mmc-", name+"_"+d.Serial)
		}
	case strings.HasPrefix(d.Name, "sd"):
		identifySCSI(d, at, where)
	}
	pathLinks(d, at, where)
}

func identifyNVMe(d *lane.Disk, attr func(string) string) {
	d.Transport, d.Serial, d.WWN, d.Vendor = "nvme", attr("device/serial"), attr("wwid"), ""
	link(&d.ByID, "nvme-", d.WWN)
	if d.Model != "" && d.Serial != "" {
		link(&d.ByID, "nvme-", d.Model+"_"+d.Serial)
		if nsid := attr("nsid"); nsid != "" {
			link(&d.ByID, "nvme-", d.Model+"_"+d.Serial+"_"+nsid)
		}
	}
}

// link adds a link name. udev drops white space at the ends, joins the rest with
// one underscore, and replaces what a path does not take.
func link(list *[]string, prefix, value string) {
	if value = udevName(value); value != "" {
		*list = append(*list, prefix+value)
	}
}

func udevName(s string) string {
	s = strings.Join(strings.Fields(s), "_")
	return strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9', r >= 'A' && r <= 'Z', r >= 'a' && r <= 'z', strings.ContainsRune("#+-.:=@_", r):
			return r
		case r >= utf8.RuneSelf && r != utf8.RuneError:
			return r
		}
		return '_'
	}, s)
}

// identifySCSI tells the disks behind the SCSI layer apart: SATA disks translated
// by libata, USB sticks, and SCSI proper.
func identifySCSI(d *lane.Disk, at, where string) {
	page := func(name string) []byte {
		b, _ := os.ReadFile(filepath.Join(at, "device", name)) // a disk need not have the page
		return b
	}
	id := designators(page("vpd_pg83"), d.Vendor, d.Model)
	if id.naa != "" {
		d.WWN = "0x" + id.naa
		d.ByID = append(d.ByID, "wwn-"+d.WWN)
	}
	// What selects a disk by its serial number is one of two, as in the gates of the
	// installers: the unit's serial number, udev's ID_SCSI_SERIAL, or ID_SERIAL_SHORT.
	d.Serial = unitSerial(page("vpd_pg80"))
	short := id.short
	switch {
	case usbInterface.MatchString(where):
		short = identifyUSB(d, where)
	case d.Vendor == "ATA":
		d.Transport, d.Vendor = "sata", ""
		// Without the page (libata before 5.4, a SAS controller that translates by
		// itself) the model is cut to 16 characters, and the name with it.
		if model, serial := ataStrings(page("vpd_pg89")); model != "" {
			d.Model, d.Serial = model, serial
		}
		if d.Serial != "" {
			link(&d.ByID, "ata-", udevName(d.Model)+"_"+d.Serial)
		}
		short = d.Serial
	default:
		d.Transport = scsiTransport(where)
		if id.best == "" && d.Serial != "" {
			id.best, short = "S"+inquiry(d.Vendor, d.Model)+d.Serial, d.Serial
		}
		link(&d.ByID, "scsi-", id.best)
	}
	if short = udevName(short); short != d.Serial {
		d.UdevSerial = short
	}
}

// inquiry puts vendor and model back into the fixed width in which the disk
// answers INQUIRY: scsi_id joins the fields first and the blanks after.
func inquiry(vendor, model string) string { return fmt.Sprintf("%-8s%-16s", vendor, model) }

// usbInterface: a USB interface in a device path, ".../2-1.4/2-1.4:1.0/host6/target6:0:0/6:0:0:0/...".
var usbInterface = regexp.MustCompile(`^(.*/([0-9]+)-([0-9.]+))/[0-9]+-[0-9.]+:([0-9]+\.[0-9]+)/host[0-9]+/target[0-9:]+/[0-9]+:[0-9]+:([0-9]+):([0-9]+)/`)

// identifyUSB names a disk as the usb_id of udev does: by vendor and model of the
// disk, the serial number of the USB device, and target and LUN. It returns that number.
func identifyUSB(d *lane.Disk, where string) string {
	d.Transport = "usb"
	m := usbInterface.FindStringSubmatch(where)
	serial := readText(filepath.Join(m[1], "serial"))
	if d.Serial == "" {
		d.Serial = serial
	}
	name := udevName(d.Vendor) + "_" + udevName(d.Model)
	if serial != "" {
		name += "_" + udevName(serial)
	}
	link(&d.ByID, "usb-", name+"-"+m[5]+":"+m[6])
	return serial
}

func scsiTransport(where string) string {
	switch {
	case strings.Contains(where, "/virtio"):
		return "virtio"
	case strings.Contains(where, "/end_device-"), strings.Contains(where, "/expander-"):
		return "sas"
	}
	return "scsi"
}

// unitSerial reads the vital product data page 0x80: four bytes, then text.
func unitSerial(page []byte) string {
	if len(page) < 4 || page[1] != 0x80 {
		return ""
	}
	n := min(int(page[2])<<8|int(page[3]), len(page)-4)
	return lane.Clean(strings.TrimRight(string(page[4:4+n]), "\x00"), textBytes)
}

// ataStrings reads model and serial number from the page 0x89, which holds the
// answer to IDENTIFY DEVICE from byte 60 on: words 27 to 46 and 10 to 19, two
// characters a word, the first one in the high byte.
func ataStrings(page []byte) (model, serial string) {
	if len(page) < 60+512 || page[1] != 0x89 {
		return "", ""
	}
	text := func(from, to int) string {
		var b []byte
		for w := from; w <= to; w++ {
			b = append(b, page[60+2*w+1], page[60+2*w])
		}
		return lane.Clean(strings.TrimRight(string(b), "\x00"), textBytes)
	}
	return text(27, 46), text(10, 19)
}

// scsiNames are the names a disk gives itself on page 0x83.
type scsiNames struct {
	naa   string // hex digits of the longest NAA name
	best  string // scsi_id's choice: its type digit, then the name
	short string // the same without what is put before it
}

// designators reads the page 0x83 (SPC-4, 7.8.6). Of several names scsi_id takes
// the first of: NAA 6, NAA 5, any NAA, EUI-64, T10 vendor, vendor specific.
func designators(page []byte, vendor, model string) scsiNames {
	var out scsiNames
	if len(page) < 4 || page[1] != 0x83 {
		return out
	}
	rest := page[4:min(len(page), 4+int(page[2])<<8+int(page[3]))]
	rank := 0
	for len(rest) >= 4 && len(rest) >= 4+int(rest[3]) {
		set, association, kind, body := rest[0]&0x0f, rest[1]>>4&3, rest[1]&0x0f, rest[4:4+int(rest[3])]
		rest = rest[4+int(rest[3]):]
		if association != 0 || len(body) == 0 { // 0: of the disk itself, not of its port
			continue
		}
		short := designator(set, body)
		name, r := fmt.Sprintf("%d%s", kind, short), 0
		switch kind {
		case 3:
			r = 4
			if naa := body[0] >> 4; naa == 5 || naa == 6 {
				r = int(naa)
			}
			if r > rank || out.naa == "" {
				out.naa = strings.TrimPrefix(name, "3")
			}
		case 2:
			r = 3
		case 1:
			r = 2
		case 0: // unique only within the model
			name, r = "0"+inquiry(vendor, model)+short, 1
		default:
			continue
		}
		if r > rank {
			rank, out.best, out.short = r, name, short
		}
	}
	return out
}

// designator writes a name as text, or as hex digits when it is binary (code set 1).
func designator(set byte, body []byte) string {
	if set == 1 {
		return hex.EncodeToString(body)
	}
	return lane.Clean(strings.TrimRight(string(body), "\x00"), textBytes)
}

var (
	pciAddress = regexp.MustCompile(`^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)
	ataPort    = regexp.MustCompile(`^(.*/(ata[0-9]+))/host[0-9]+/`)
	scsiDevice = regexp.MustCompile(`^(.*)/host([0-9]+)/target[0-9:]+/[0-9]+:([0-9]+):([0-9]+):([0-9]+)/`)
)

// pathLinks adds the names under /dev/disk/by-path of disks on PCI: the address
// of the last PCI function on the way, then what the bus behind it adds.
func pathLinks(d *lane.Disk, at, where string) {
	pci := ""
	for _, p := range strings.Split(where, "/") {
		if pciAddress.MatchString(p) {
			pci = p
		}
	}
	if pci == "" {
		return
	}
	name := "pci-" + pci
	switch {
	case strings.HasPrefix(d.Name, "vd"):
		d.ByPath = append(d.ByPath, name, "virtio-"+name) // the second is the old spelling, still made
	case d.Transport == "mmc":
		// path_id does not know the bus
	case d.Transport == "nvme":
		if nsid := readText(filepath.Join(at, "nsid")); nsid != "" {
			d.ByPath = append(d.ByPath, name+"-nvme-"+nsid)
		}
	case d.Transport == "sata" && ataPort.MatchString(where):
		m := ataPort.FindStringSubmatch(where)
		if port := readText(filepath.Join(m[1], "ata_port", m[2], "port_no")); port != "" {
			d.ByPath = append(d.ByPath, name+"-ata-"+port, name+"-ata-"+port+".0")
		}
	case d.Transport == "sas", d.Transport == "sata":
		// named by SAS address or expander phy, which are not looked up here
	default:
		if m := usbInterface.FindStringSubmatch(where); m != nil {
			name += "-usb-0:" + m[3] + ":" + m[4]
		}
		d.ByPath = append(d.ByPath, name+scsiAddress(where))
	}
}

// scsiAddress returns "-scsi-HOST:BUS:TARGET:LUN", the host counted from the
// first one of its controller: the kernel's own number counts over all of them.
func scsiAddress(where string) string {
	m := scsiDevice.FindStringSubmatch(where)
	if m == nil {
		return ""
	}
	host, first := atoi(m[2]), atoi(m[2])
	for _, name := range entries(m[1]) {
		if n, ok := strings.CutPrefix(name, "host"); ok && n != "" {
			first = min(first, atoi(n))
		}
	}
	return fmt.Sprintf("-scsi-%d:%s:%s:%s", host-first, m[3], m[4], m[5])
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s) // digits only, by the patterns above
	return n
}
