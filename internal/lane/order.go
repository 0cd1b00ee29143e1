package lane

// This file is the agent's wire contract: what the in-RAM agent tells about the
// machine it runs on, what it is ordered to do, and the names of its reports.
// It stands in lane because the decision reads one half and returns the other.

// Disk is one whole disk as the agent's kernel shows it.
type Disk struct {
	Name       string   `json:"name"`                 // kernel name, no /dev: vda, nvme0n1
	SizeBytes  int64    `json:"sizeBytes"`            // capacity, from /sys/block/NAME/size times 512
	Serial     string   `json:"serial,omitempty"`     // trimmed; empty when the disk states none
	UdevSerial string   `json:"udevSerial,omitempty"` // udev's ID_SERIAL_SHORT where that is another: the WWN of a SAS disk
	WWN        string   `json:"wwn,omitempty"`        // 0x5002538e00000001, eui.…, nvme.… as sysfs spells it
	Model      string   `json:"model,omitempty"`
	Vendor     string   `json:"vendor,omitempty"`
	Transport  string   `json:"transport,omitempty"` // virtio, nvme, sata, sas, usb, mmc
	ByID       []string `json:"byID,omitempty"`      // link names under /dev/disk/by-id, sorted
	ByPath     []string `json:"byPath,omitempty"`    // link names under /dev/disk/by-path, sorted
	Rotational bool     `json:"rotational,omitempty"`
	Removable  bool     `json:"removable,omitempty"`
	ReadOnly   bool     `json:"readOnly,omitempty"`
}

// NIC is one Ethernet interface as the agent's kernel shows it.
type NIC struct {
	Name   string `json:"name"`
	MAC    MAC    `json:"mac"`
	Driver string `json:"driver,omitempty"`
	Up     bool   `json:"up,omitempty"`   // carrier seen
	Mbps   int    `json:"mbps,omitempty"` // speed of the link, 10^6 bits a second; 0: not known, as without a carrier
}

// Hardware is the agent's whole account of the machine. It is untrusted input:
// the server cross-checks it against the inventory before it orders anything.
type Hardware struct {
	UUID         UUID   `json:"uuid,omitempty"`     // SMBIOS type 1, as /sys/class/dmi/id/product_uuid prints it
	Serial       string `json:"serial,omitempty"`   // SMBIOS type 1
	AssetTag     string `json:"assetTag,omitempty"` // SMBIOS type 3
	Manufacturer string `json:"manufacturer,omitempty"`
	Product      string `json:"product,omitempty"`
	Firmware     string `json:"firmware,omitempty"` // "uefi" or "bios"
	FirmwareRev  string `json:"firmwareRev,omitempty"`
	SecureBoot   bool   `json:"secureBoot,omitempty"`
	Machine      string `json:"machine,omitempty"` // uname -m: x86_64, aarch64
	CPUs         int    `json:"cpus,omitempty"`
	CPUModel     string `json:"cpuModel,omitempty"`
	MemoryBytes  int64  `json:"memoryBytes,omitempty"`
	// BMC is the address of the management controller's Redfish service as the machine itself
	// reaches it, from SMBIOS type 42 (DSP0270): often one of a cable inside the machine only.
	BMC     string `json:"bmc,omitempty"`
	BootMAC MAC    `json:"bootMAC,omitempty"` // the NIC that carried the agent's DHCP exchange
	NICs    []NIC  `json:"nics,omitempty"`
	Disks   []Disk `json:"disks,omitempty"`
	// Wipes: this agent clears the disks that an order lists. Those of before did not know of any.
	Wipes bool `json:"wipes,omitempty"`
	// Parts: this agent puts a file into the partition that an order names for it. Those of before
	// put all of them into the root file system.
	Parts bool `json:"parts,omitempty"`
	// Encrypts: this agent encrypts the disk where an order says so. Those of before would leave it plain.
	Encrypts bool `json:"encrypts,omitempty"`
	// Models: this agent compares a disk's model, and knows disks by the kernel's name.
	Models bool `json:"models,omitempty"`
}

// Order is the server's answer to a posted Hardware.
// The zero Order holds: nothing is written.
type Order struct {
	Action Action         `json:"action"` // only "install" may touch a disk
	Reason Reason         `json:"reason"`
	Detail string         `json:"detail,omitempty"`
	Host   HostID         `json:"host,omitempty"`
	Run    RunID          `json:"run,omitempty"`
	Image  *Image         `json:"image,omitempty"` // set with "install"
	Disk   DiskSelector   `json:"disk,omitzero"`   // the one disk to write; the agent resolves it again
	Wipe   []DiskSelector `json:"wipe,omitempty"`  // further disks to clear; likewise
	// Encryption is what is to open the disk at each boot; nil: it is not encrypted.
	Encryption *Encryption `json:"encryption,omitempty"`
	Files      []File      `json:"files,omitempty"` // placed into the written root file system, in this order
	// UnixTime is the server's clock in seconds, so that a machine with a dead RTC
	// does not write files from 1970.
	UnixTime int64 `json:"unixTime,omitempty"`
}

// Image is a disk image the agent streams to the whole disk.
type Image struct {
	Path        string `json:"path"`          // absolute URL path on the server the order came from
	Digest      Digest `json:"digest"`        // of the bytes on the wire
	SizeBytes   int64  `json:"sizeBytes"`     // of the bytes on the wire
	Compression string `json:"compression"`   // one of Compressions
	RawDigest   Digest `json:"rawDigest"`     // of the bytes on the disk, read back after writing
	RawBytes    int64  `json:"rawBytes"`      // of the bytes on the disk
	RootLabel   string `json:"rootPartLabel"` // GPT partition name of the root file system (ext4)
}

// File is one file, or one symbolic link when Link is set, for the new root file system.
type File struct {
	Path    string `json:"path"` // absolute, inside the new root
	Mode    uint32 `json:"mode"` // permission bits, 0600 style
	Content string `json:"content,omitempty"`
	Link    string `json:"link,omitempty"` // target of a symbolic link
	// PartLabel is the GPT partition name of another ext4 file system that the file goes into, and
	// in which Path begins; empty: the root file system.
	PartLabel string `json:"partLabel,omitempty"`
}

// Report field names: the body of POST <run>/report is a URL-encoded form, because
// shell scripts in installers send it too.
const (
	ReportStage   = "stage"   // one of the run stages
	ReportSeq     = "seq"     // integer from 1, grows by one per sender and stage; repeats are harmless
	ReportStatus  = "status"  // "ok", "progress" or "failed"
	ReportMessage = "message" // one line for people, at most 500 bytes
	ReportDone    = "done"    // bytes done, with "progress"
	ReportTotal   = "total"   // bytes in all, with "progress"
	ReportUUID    = "uuid"    // identity of the sender, as far as it knows it
	ReportMAC     = "mac"
	ReportSerial  = "serial"
	ReportChecks  = "checks" // with StageReady: what was looked at, as [ParseChecks] reads it
)

// Canonical brings the hardware's addresses into their one form, in place. What
// cannot be read is an Invalid error that names it.
func (hw *Hardware) Canonical() error {
	if len(hw.Disks) > 1024 || len(hw.NICs) > 256 {
		return Errorf(Invalid, "%d disks and %d NICs are more than a machine has", len(hw.Disks), len(hw.NICs))
	}
	if hw.UUID != "" {
		u, err := ParseUUID(string(hw.UUID))
		if err != nil {
			return err
		}
		hw.UUID = u
	}
	if hw.BootMAC != "" {
		m, err := ParseMAC(string(hw.BootMAC))
		if err != nil {
			return err
		}
		hw.BootMAC = m
	}
	for i, n := range hw.NICs {
		m, err := ParseMAC(string(n.MAC))
		if err != nil {
			return err
		}
		hw.NICs[i].MAC = m
	}
	return nil
}
