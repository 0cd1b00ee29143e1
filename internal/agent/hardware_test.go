package agent

import (
	"strings"
	"testing"

	"bootlane/internal/lane"

	"github.com/google/go-cmp/cmp"
)

// disk plants a block device the way sysfs lays it out: the device directory,
// and links to it.
func disk(t *testing.T, root, name, device string, attrs map[string]string) {
	t.Helper()
	at := "sys/devices/" + device + "/block/" + name
	plant(t, root, "sys/block/"+name, "-> ../devices/"+device+"/block/"+name)
	plant(t, root, at+"/device", "-> ../..")
	for file, text := range attrs {
		if attr, ok := strings.CutPrefix(file, "device/"); ok {
			plant(t, root, "sys/devices/"+device+"/"+attr, text)
			continue
		}
		plant(t, root, at+"/"+file, text)
	}
	plant(t, root, at+"/removable", "0\n")
	plant(t, root, at+"/ro", "0\n")
}

// page builds a vital product data page.
func page(code byte, body string) string {
	return string([]byte{0, code, byte(len(body) >> 8), byte(len(body))}) + body
}

// name83 builds one entry of the page 0x83.
func name83(set, kind byte, body string) string {
	return string([]byte{set, kind, 0, byte(len(body))}) + body
}

// identify89 builds the page 0x89 with IDENTIFY DEVICE strings in it.
func identify89(model, serial string) string {
	id := []byte(strings.Repeat("\x00", 512))
	put := func(word int, s string, width int) {
		s += strings.Repeat(" ", width-len(s))
		for i := 0; i < width; i += 2 {
			id[2*word+i], id[2*word+i+1] = s[i+1], s[i]
		}
	}
	put(27, model, 40)
	put(10, serial, 20)
	return page(0x89, strings.Repeat("\x00", 56)+string(id))
}

func newMachineTree(t *testing.T) string {
	root := tree(t, map[string]string{
		"sys/class/dmi/id/product_uuid":                                            "11223344-5566-7788-99AA-BBCCDDEEFF00\n",
		"sys/class/dmi/id/product_serial":                                          "SN 12\x1b[2J34 \n",
		"sys/class/dmi/id/chassis_asset_tag":                                       "AT77\n",
		"sys/class/dmi/id/sys_vendor":                                              "Lab\n",
		"sys/class/dmi/id/product_name":                                            "Box\n",
		"sys/class/dmi/id/bios_version":                                            "1.2\n",
		"sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c": "\x06\x00\x00\x00\x01",
		"sys/devices/system/cpu/online":                                            "0-3,8\n",
		"proc/meminfo":                                                             "MemTotal:        1000 kB\nMemFree: 1 kB\n",
		"sys/devices/pci/net/eth0/address":                                         "52:54:00:12:34:56\n",
		"sys/devices/pci/net/eth0/type":                                            "1\n",
		"sys/devices/pci/net/eth0/carrier":                                         "1\n",
		"sys/devices/pci/net/eth0/speed":                                           "10000\n",
		"sys/firmware/dmi/tables/DMI":                                              string(redfish(6, overIP(1, 169, 254, 1, 1))),
		"proc/cpuinfo":                                                             "processor\t: 0\nmodel name\t: Fast(R) CPU  @ 2.4GHz\n",
		"sys/devices/pci/net/eth0/device":                                          "-> ../..",
		"sys/devices/pci/driver":                                                   "-> ../../bus/pci/drivers/e1000e",
		"sys/class/net/eth0":                                                       "-> ../../devices/pci/net/eth0",
		"sys/class/net/lo/address":                                                 "00:00:00:00:00:00\n",
		"sys/class/net/lo/type":                                                    "772\n",
		"sys/class/net/br0/address":                                                "52:54:00:12:34:57\n",
		"sys/class/net/br0/type":                                                   "1\n",
		"sys/class/net/ib0/address":                                                "80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:00:00:01\n",
		"sys/class/net/ib0/type":                                                   "32\n",
		"sys/bus/pci/drivers/e1000e/module":                                        "",
		"sys/devices/virtual/block/loop0/size":                                     "0\n",
		"sys/block/loop0":                                                          "-> ../devices/virtual/block/loop0",
		"sys/devices/pci/ata9/ata_port/ata9/port_no":                               "2\n",
		"sys/devices/pci0000:00/0000:00:07.0/usb2/2-1/serial":                      "USB0001\n",
		"sys/devices/pci0000:00/0000:00:1f.2/ata6/ata_port/ata6/port_no":           "2\n",
		"sys/devices/pci0000:00/0000:00:05.0/host3/uevent":                         "",
	})
	disk(t, root, "vda", "pci0000:00/0000:00:02.0/virtio1", map[string]string{"size": "8192\n", "serial": "LAB DISK/1", "queue/rotational": "1\n", "device/vendor": "0x1af4\n"})
	disk(t, root, "nvme0n1", "pci0000:00/0000:00:1d.0/0000:04:00.0/nvme/nvme0", map[string]string{"size": "1000\n", "wwid": "eui.0025385a71b03a5b\n", "nsid": "1\n",
		"device/serial": "S4EV   NF0\n", "device/model": "FAST DISK 970          \n"})
	disk(t, root, "sda", "pci0000:00/0000:00:1f.2/ata6/host5/target5:0:0/5:0:0:0", map[string]string{"size": "1001\n", "device/vendor": "ATA     \n", "device/model": "LAB SATA DISK MO\n",
		"device/vpd_pg80": page(0x80, "   SATA0001"), "device/vpd_pg83": page(0x83, name83(2, 0, "SATA0001")+name83(2, 1, "ATA     LAB")+name83(1, 3, "\x50\x02\x53\x8e\x00\x00\x00\x77")),
		"device/vpd_pg89": identify89("LAB SATA DISK MODEL 4711", "SATA0001")})
	disk(t, root, "sdb", "pci0000:00/0000:00:05.0/host3/target3:0:3/3:0:3:2", map[string]string{"size": "1002\n", "device/vendor": "QEMU    \n", "device/model": "QEMU HARDDISK   \n",
		"device/vpd_pg80": page(0x80, "SCSI0001"), "device/vpd_pg83": page(0x83, name83(2, 0, "SCSI0001")+name83(1, 0x13, "\x50\x02\x53\x8e\x00\x00\x00\x99")+name83(1, 3, "\x60\x05\x08\xb1\x00\x1c\x00\x01\x00\x02\x00\x03\x00\x04\x00\x05"))})
	disk(t, root, "sdc", "pci0000:00/0000:00:05.0/host4/target4:0:1/4:0:1:0", map[string]string{"size": "1003\n", "device/vendor": "QEMU    \n", "device/model": "QEMU HARDDISK   \n",
		"device/vpd_pg80": page(0x80, "SCSI0002"), "device/vpd_pg83": page(0x83, name83(2, 0, "SCSI0002"))})
	disk(t, root, "sdd", "pci0000:00/0000:00:07.0/usb2/2-1/2-1:1.0/host7/target7:0:0/7:0:0:0", map[string]string{"size": "1004\n", "device/vendor": "QEMU    \n", "device/model": "QEMU HARDDISK   \n"})
	disk(t, root, "sdf", "pci0000:00/0000:00:08.0/host9/port-9:1/end_device-9:1/target9:0:1/9:0:1:0", map[string]string{"size": "1005\n", "device/vendor": "SEAGATE \n", "device/model": "ST1200MM0009    \n",
		"device/vpd_pg80": page(0x80, "WFK0ABCD"), "device/vpd_pg83": page(0x83, name83(1, 3, "\x50\x00\xc5\x00\xa1\xb2\xc3\xd7")+name83(1, 0x13, "\x50\x00\xc5\x00\xa1\xb2\xc3\xd5"))})
	disk(t, root, "sdg", "pci0000:00/0000:00:07.0/usb2/2-1/2-1:1.0/host7/target7:0:0/7:0:0:1", map[string]string{"size": "1006\n", "device/vendor": "QEMU    \n", "device/model": "QEMU HARDDISK   \n", "device/vpd_pg80": page(0x80, "BEHIND1")})
	disk(t, root, "sde", "pci0000:00/0000:00:08.0/host9/port-9:0/end_device-9:0/target9:0:0/9:0:0:0", map[string]string{"size": "0\n"})
	disk(t, root, "mmcblk0", "pci0000:00/0000:00:09.0/mmc_host/mmc0/mmc0:4567", map[string]string{"size": "2048\n", "device/serial": "0xdeadbeef\n", "device/name": "QEMU!\n"})
	disk(t, root, "mmcblk0boot0", "pci0000:00/0000:00:09.0/mmc_host/mmc0/mmc0:4568", map[string]string{"size": "2048\n"})
	disk(t, root, "sr0", "pci0000:00/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0", map[string]string{"size": "2048\n"})
	return root
}

func TestReadHardware(t *testing.T) {
	want := lane.Hardware{
		UUID: "11223344-5566-7788-99aa-bbccddeeff00", Serial: "SN 12[2J34", AssetTag: "AT77", Manufacturer: "Lab", Product: "Box",
		Firmware: "uefi", FirmwareRev: "1.2", SecureBoot: true, CPUs: 5, CPUModel: "Fast(R) CPU  @ 2.4GHz", BMC: "169.254.1.1", MemoryBytes: 1000 * 1024,
		NICs: []lane.NIC{{Name: "eth0", MAC: "52:54:00:12:34:56", Driver: "e1000e", Up: true, Mbps: 10_000}},
		Disks: []lane.Disk{
			{Name: "mmcblk0", SizeBytes: 2048 * 512, Serial: "0xdeadbeef", Transport: "mmc", ByID: []string{"mmc-QEMU__0xdeadbeef"}},
			{Name: "nvme0n1", SizeBytes: 1000 * 512, Serial: "S4EV   NF0", WWN: "eui.0025385a71b03a5b", Model: "FAST DISK 970", Transport: "nvme",
				ByID:   []string{"nvme-FAST_DISK_970_S4EV_NF0", "nvme-FAST_DISK_970_S4EV_NF0_1", "nvme-eui.0025385a71b03a5b"},
				ByPath: []string{"pci-0000:04:00.0-nvme-1"}},
			{Name: "sda", SizeBytes: 1001 * 512, Serial: "SATA0001", WWN: "0x5002538e00000077", Model: "LAB SATA DISK MODEL 4711", Transport: "sata",
				ByID:   []string{"ata-LAB_SATA_DISK_MODEL_4711_SATA0001", "wwn-0x5002538e00000077"},
				ByPath: []string{"pci-0000:00:1f.2-ata-2", "pci-0000:00:1f.2-ata-2.0"}},
			{Name: "sdb", SizeBytes: 1002 * 512, Serial: "SCSI0001", UdevSerial: "600508b1001c00010002000300040005", WWN: "0x600508b1001c00010002000300040005", Model: "QEMU HARDDISK", Vendor: "QEMU", Transport: "scsi",
				ByID:   []string{"scsi-3600508b1001c00010002000300040005", "wwn-0x600508b1001c00010002000300040005"},
				ByPath: []string{"pci-0000:00:05.0-scsi-0:0:3:2"}},
			{Name: "sdc", SizeBytes: 1003 * 512, Serial: "SCSI0002", Model: "QEMU HARDDISK", Vendor: "QEMU", Transport: "scsi",
				ByID: []string{"scsi-0QEMU_QEMU_HARDDISK_SCSI0002"}, ByPath: []string{"pci-0000:00:05.0-scsi-1:0:1:0"}},
			{Name: "sdd", SizeBytes: 1004 * 512, Serial: "USB0001", Model: "QEMU HARDDISK", Vendor: "QEMU", Transport: "usb",
				ByID: []string{"usb-QEMU_QEMU_HARDDISK_USB0001-0:0"}, ByPath: []string{"pci-0000:00:07.0-usb-0:1:1.0-scsi-0:0:0:0"}},
			{Name: "sdf", SizeBytes: 1005 * 512, Serial: "WFK0ABCD", UdevSerial: "5000c500a1b2c3d7", WWN: "0x5000c500a1b2c3d7", Model: "ST1200MM0009", Vendor: "SEAGATE", Transport: "sas",
				ByID: []string{"scsi-35000c500a1b2c3d7", "wwn-0x5000c500a1b2c3d7"}},
			{Name: "sdg", SizeBytes: 1006 * 512, Serial: "BEHIND1", UdevSerial: "USB0001", Model: "QEMU HARDDISK", Vendor: "QEMU", Transport: "usb",
				ByID: []string{"usb-QEMU_QEMU_HARDDISK_USB0001-0:1"}, ByPath: []string{"pci-0000:00:07.0-usb-0:1:1.0-scsi-0:0:0:1"}},
			{Name: "vda", SizeBytes: 8192 * 512, Serial: "LAB DISK/1", Transport: "virtio", ByID: []string{"virtio-LAB_DISK_1"},
				ByPath: []string{"pci-0000:00:02.0", "virtio-pci-0000:00:02.0"}, Rotational: true},
		},
	}
	if diff := cmp.Diff(want, readHardware(newMachineTree(t))); diff != "" {
		t.Errorf("hardware (-want +got):\n%s", diff)
	}
}

func TestReadHardwareOfNothing(t *testing.T) {
	if diff := cmp.Diff(lane.Hardware{Firmware: "bios"}, readHardware(t.TempDir())); diff != "" {
		t.Errorf("hardware (-want +got):\n%s", diff)
	}
}

func TestDesignators(t *testing.T) {
	for name, tc := range map[string]struct {
		page string
		want scsiNames
	}{
		"empty":         {"", scsiNames{}},
		"another page":  {page(0x80, "xxxx"), scsiNames{}},
		"cut off":       {page(0x83, name83(1, 3, "\x50\x02\x53\x8e\x00\x00\x00\x77"))[:10], scsiNames{}},
		"length lies":   {"\x00\x83\xff\xff" + name83(1, 3, "\x50\x02"), scsiNames{naa: "5002", best: "35002", short: "5002"}},
		"NAA 6 beats 5": {page(0x83, name83(1, 3, "\x50\x01")+name83(1, 3, "\x60\x02")), scsiNames{naa: "6002", best: "36002", short: "6002"}},
		"5 after 6":     {page(0x83, name83(1, 3, "\x60\x02")+name83(1, 3, "\x50\x01")), scsiNames{naa: "6002", best: "36002", short: "6002"}},
		"EUI-64":        {page(0x83, name83(2, 1, "ATA")+name83(1, 2, "\x00\x25")), scsiNames{best: "20025", short: "0025"}},
		"of the port":   {page(0x83, name83(1, 0x13, "\x50\x01")), scsiNames{}},
		"T10":           {page(0x83, name83(2, 0, "x")+name83(2, 1, "ATA     DISK ")), scsiNames{best: "1ATA     DISK", short: "ATA     DISK"}},
		"of the model":  {page(0x83, name83(2, 0, "x")), scsiNames{best: "0V       M               x", short: "x"}},
		"unknown kind":  {page(0x83, name83(1, 8, "iqn")), scsiNames{}},
	} {
		if got := designators([]byte(tc.page), "V", "M"); got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}

func FuzzDesignators(f *testing.F) {
	f.Add([]byte(page(0x83, name83(1, 3, "\x50\x01")+name83(2, 1, "ATA"))))
	f.Add([]byte(identify89("m", "s")))
	f.Fuzz(func(t *testing.T, b []byte) {
		designators(b, "V", "M")
		unitSerial(b)
		ataStrings(b)
	})
}

func TestUdevName(t *testing.T) {
	for in, want := range map[string]string{
		"": "", " a  b ": "a_b", "A/B": "A_B", "x\ty": "x_y", "#+-.:=@_": "#+-.:=@_", "ä\x01": "ä_", `a"b'c`: "a_b_c",
	} {
		if got := udevName(in); got != want {
			t.Errorf("udevName(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestCountCPUs(t *testing.T) {
	for list, want := range map[string]int{"": 0, "0": 1, "0-3": 4, "0-1,4-5,9": 5, "x": 0, "3-1": 0, "1-x": 0} {
		if got := countCPUs(list); got != want {
			t.Errorf("countCPUs(%q) = %d, want %d", list, got, want)
		}
	}
}

func TestInUse(t *testing.T) {
	root := newMachineTree(t)
	if got := inUse(root, "vda"); len(got) != 0 {
		t.Errorf("an idle disk is used by %q", got)
	}
	at := "sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/"
	plant(t, root, at+"vda1/partition", "1\n")
	plant(t, root, at+"vda2/partition", "2\n")
	plant(t, root, at+"vda2/holders/md0", "")
	plant(t, root, at+"holders/dm-0", "")
	plant(t, root, "proc/mounts", "/dev/vda1 /boot ext4 rw 0 0\n/dev/vdab /x ext4 rw 0 0\nproc /proc proc rw 0 0\n")
	plant(t, root, "proc/swaps", "Filename Type Size\n/dev/vda2 partition 1\n")
	want := []string{"dm-0 on vda", "md0 on vda2", "/dev/vda1 in proc/mounts", "/dev/vda2 in proc/swaps"}
	if diff := cmp.Diff(want, inUse(root, "vda")); diff != "" {
		t.Errorf("users (-want +got):\n%s", diff)
	}
}
