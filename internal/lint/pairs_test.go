package lint

import "strings"

const (
	autoMatch = `layout: {name: direct, match: {serial: "S1"}}`
	ksDisk    = "disk/by-id/wwn-0x5002538e00000001"
	ksURL     = "url --url=http://mirror.example.org/rocky/9.6-20261101/BaseOS"
	preDisk   = "/dev/disk/by-id/wwn-0x5002538e00000001"
	agamaMax  = `"max": 1, "ifNotFound": "error"`
	lan0      = `    addresses: ["10.0.0.21/24"]`
)

// actions is a storage section of actions, on a disk that is found by what is given.
func actions(disk, rest string) string {
	return "config:\n      - " + disk + "\n      - {type: partition, id: esp, device: d, size: 1G, flag: boot, grub_device: true}\n" + rest
}

// span is the part of a base from one text to before another.
func span(f Format, from, to string) string {
	text := base()[f]
	i := strings.Index(text, from)
	return text[i : i+strings.Index(text[i:], to)]
}

func pairs() []pair {
	var all []pair
	for _, some := range [][]pair{diskPairs(), userPairs(), namePairs(), netPairs(), secretPairs(), sourcePairs(), textPairs(), ubuntuPairs(), kickstartPairs(), preseedPairs(), suseAndCorePairs(), cmdlinePairs()} {
		all = append(all, some...)
	}
	return all
}

// two is a second disk, and a partition of each: the second of the size that is given.
func two(size string) string {
	return "      - {type: disk, id: e, serial: \"S2\", ptable: gpt}\n      - {type: partition, id: a, device: d, size: 5G}\n      - {type: partition, id: b, device: e, size: " + size + "}\n"
}

const (
	two2     = "      - {type: partition, id: a2, device: d, size: 1G}\n      - {type: partition, id: b2, device: e, size: 1025M}\n"
	efi      = "      - {type: format, id: f, volume: m, fstype: fat32}\n      - {type: mount, id: g, device: f, path: /boot/efi}\n"
	agamaOne = `"storage": {"drives": [{"search": {"condition": {"name": "` + preDisk + `"}, ` + agamaMax + `}}]}`
)

// kickstartWith is the base with some of it replaced.
func kickstartWith(pairs ...string) string {
	return strings.NewReplacer(pairs...).Replace(base()[Kickstart])
}

// twoDisks is a kickstart's mirror of two disks.
func twoDisks(a, b, mark string) string {
	return "ignoredisk --only-use=" + a + "," + b + "\nzerombr\nclearpart --all --drives=" + a + "," + b + "\nbootloader\nreqpart\npart raid.1 --size=9 --ondisk=" + a + "\npart raid.2 --size=9 --ondisk=" + b + "\nraid / --level=1 --device=r raid.1 " + mark + "raid.2"
}

// suseMember ends a drive with a member of the array in it, and begins the next.
func suseMember(size, next string) string {
	out := "<partitions config:type=\"list\"><partition><size>" + size + "</size><raid_name>/dev/md/r</raid_name></partition></partitions></drive>"
	if next == "r" {
		out += "<drive><device>/dev/disk/by-id/wwn-0x5002538e00000002</device>"
	}
	return out
}

func suseArray(level, mount string) string {
	return "<drive><type config:type=\"symbol\">CT_MD</type><device>/dev/md/r</device><partitions config:type=\"list\"><partition><mount>" + mount + "</mount></partition></partitions><raid_options><raid_type>" + level + "</raid_type></raid_options></drive>"
}

// agamaTwo is a storage section with two drives and an array.
func agamaTwo(a, b, size, array string) string {
	drive := func(id, alias, size string) string {
		return `{"search": {"condition": {"name": "/dev/disk/by-id/scsi-` + id + `"}, ` + agamaMax + `}, "partitions": [{"alias": "` + alias + `", "size": "` + size + `"}]}`
	}
	return `"storage": {"drives": [` + drive(a, "m0", "4 GiB") + ", " + drive(b, "m1", size) + `], "mdRaids": [` + array + `]}`
}

func diskPairs() []pair {
	disk := func(by string) string { return "{type: disk, id: d, ptable: gpt" + by + "}" }
	return []pair{
		{"disk-selector-missing", Autoinstall, autoMatch, "§layout: {name: direct}", autoMatch},
		{"disk-selector-missing", Autoinstall, autoMatch, actions("§"+disk(`, wwn: "0x2"`), ""), actions(disk(`, wwn: "0x2", serial: "S"`), "")},
		{"disk-selector-missing", Autoinstall, "storage:\n    " + autoMatch, "§storage:\n    swap: {size: 0}", "storage:\n    swap: {size: 0}\n    " + autoMatch},
		{"disk-selector-missing", Kickstart, "ignoredisk --only-use=" + ksDisk + "\nzerombr\nclearpart", "zerombr\n§clearpart", "ignoredisk --only-use " + ksDisk + "\nzerombr\nclearpart"},
		{"disk-selector-missing", Preseed, "d-i partman-auto/method string regular\nd-i partman-auto/disk string " + preDisk, "d-i §partman-auto/method string regular", "d-i partman-auto/method string regular\nd-i partman/early_command string choose || poweroff -f"},
		{"disk-selector-missing", AutoYaST, "<drive><device>" + preDisk + "</device>", "§<drive>", "<drive><device>" + preDisk + "</device><disklabel>gpt</disklabel>"},
		{"disk-selector-missing", AutoYaST, "<partitioning config:type=\"list\">\n    <drive><device>" + preDisk + "</device><use>all</use></drive>\n  </partitioning>", "§<partitioning config:type=\"list\"/>", "<partitioning config:type=\"list\"><drive><type>CT_DISK</type><device>" + preDisk + "</device></drive><drive><type config:type=\"symbol\">CT_LVM</type></drive></partitioning>"},
		{"disk-selector-missing", Agama, `"drives": [{"search": {"condition": {"name": "` + preDisk + `"}, ` + agamaMax + `}}]`, `"drives": [§{"partitions": []}]`, `"drives": [{"search": "` + preDisk + `"}]`},
		{"disk-selector-missing", Ignition, `{"device": "` + preDisk + `", "wipeTable": true}`, `§{"wipeTable": true}`, `{"device": "` + preDisk + `"}`},
		{"disk-selector-loose", Autoinstall, autoMatch, "layout: {name: direct, match: §{ssd: true, size: largest}}", "layout: {name: direct, match: {ssd: true, serial: x}}"},
		{"disk-selector-loose", AutoYaST, "<use>all</use>", "§<skip_list config:type=\"list\"/>", "<use>free</use>"},
		{"disk-selector-loose", Agama, agamaMax, `"max": 1, "ifNotFound": §"skip"`, `"max": 1`},
		{"disk-selector-loose", Agama, `"search": {"condition": {"name": "` + preDisk + `"}, ` + agamaMax + `}`, `§"search": {"condition": {"name": "` + preDisk + `"}}`, `"search": {"max": 1, "condition": {"name": "` + preDisk + `"}}`},
		{"disk-selector-loose", Agama, `{"condition": {"name": "` + preDisk + `"}, ` + agamaMax + `}`, `§"*"`, `"` + preDisk + `"`},
		{"disk-match-unknown-key", Autoinstall, autoMatch, `layout: {name: direct, match: {§wwn: "0x2"}}`, `layout: {name: direct, match: {id_path: "pci-0000"}}`},
		{"disk-match-unknown-key", Autoinstall, autoMatch, `layout: {name: direct, match: [{serial: a}, {§serials: b}]}`, `layout: {name: direct, match: [{serial: a}, {serial: b}]}`},
		{"disk-match-empty", Autoinstall, autoMatch, `layout: {name: direct, §match: {}}`, autoMatch},
		{"disk-match-glob", Autoinstall, autoMatch, `layout: {name: direct, match: {serial: §"S*"}}`, `layout: {name: direct, match: {serial: "S[*]1"}}`},
		{"disk-match-glob", Kickstart, "bootloader --boot-drive=" + ksDisk, "bootloader --boot-drive=§disk/by-id/wwn-0x5002538e00000001|x", "bootloader"},
		{"disk-link-literal", Autoinstall, autoMatch, actions(disk(", path: §/dev/disk/by-id/ata-x"), ""), actions(disk(`, serial: "S1"`), "")},
		{"disk-kernel-name", Autoinstall, autoMatch, `layout: {name: direct, match: {path: §/dev/nvme0n1}}`, `layout: {name: direct, match: {devpath: "/devices/pci0000:00/x"}}`},
		{"disk-kernel-name", Preseed, "string " + preDisk, "string §/dev/sda", "string /dev/disk/by-id/ata-x"},
		{"disk-kernel-name", Preseed, "d-i mirror/suite string bookworm", "d-i grub-installer/bootdev string §/dev/sda", "d-i grub-installer/bootdev string default"},
		{"disk-kernel-name", AutoYaST, "<device>" + preDisk, "<device>§/dev/vda", "<device> /dev/disk/by-id/virtio-x"},
		{"disk-kernel-name", CommandLine, "hostname=node-a", "coreos.inst.install_dev=§/dev/sda", "coreos.inst.install_dev=" + preDisk},
		{"disk-wwn-illegal", Agama, `"` + preDisk, `§"/dev/disk/by-id/wwn-5002538e00000001`, `"/dev/disk/by-id/nvme-eui.0025385a71b03a5b`},
		{"disk-selector-mismatch", Kickstart, "bootloader --boot-drive=" + ksDisk, "bootloader --boot-drive=§disk/by-id/ata-x", "bootloader --boot-drive=/dev/" + ksDisk},
		{"clearpart-unscoped", Kickstart, "ignoredisk --only-use=" + ksDisk + "\nzerombr\nclearpart --all --initlabel --drives=" + ksDisk, "zerombr\n§clearpart --all --initlabel", "ignoredisk --only-use=" + ksDisk + "\nzerombr\nclearpart --all"},
		{"disk-layout-and-config", Autoinstall, autoMatch, autoMatch + "\n    §config: []", autoMatch + "\n    swap: {size: 0}"},
		{"preseed-link-unresolved", Preseed, "string " + preDisk, "string §/dev/disk/by-id/nvme-eui.0025385a71b03a5b", "string /dev/disk/by-id/nvme-eui.0025385a71b03a5b\nd-i partman/early_command string choose || poweroff -f"},
		{"preseed-disks-skipped", Preseed, "regular\nd-i partman-auto/disk string " + preDisk, "lvm\nd-i partman-lvm/device_remove_lvm boolean true\nd-i partman-lvm/confirm boolean true\nd-i partman-lvm/confirm_nooverwrite boolean true\nd-i partman-auto/disk string §/dev/disk/by-id/ata-a /dev/disk/by-id/ata-b", "regular\nd-i partman-auto/disk string /dev/disk/by-id/ata-a /dev/disk/by-id/ata-b"},
		{"partition-rest-not-last", Autoinstall, autoMatch, actions(disk(`, serial: "S1"`), "      - {type: partition, id: a, device: d, size: §-1}\n      - {type: partition, id: b, device: d, size: 1G}\n"), actions(disk(`, serial: "S1"`), "      - {type: partition, id: b, device: d, size: 1G}\n      - {type: partition, id: a, device: d, size: -1}\n")},
		{"partition-percent", Autoinstall, autoMatch, actions(disk(`, serial: "S1"`), "      - {type: partition, id: a, device: d, size: 60%}\n      - {type: partition, id: b, device: d, size: §50%}\n"), actions(disk(`, serial: "S1"`), "      - {type: partition, id: a, device: d, size: 60%}\n      - {type: partition, id: b, device: d, size: 40%}\n")},
		{"partition-boot-missing", Autoinstall, autoMatch, "config:\n      - §{type: disk, id: d, ptable: gpt, serial: \"S1\"}\n      - {type: partition, id: a, device: d, size: -1}", "config:\n      - {type: disk, id: d, ptable: gpt, serial: \"S1\"}\n      - {type: partition, id: b, device: d, size: 1M, flag: bios_grub}\n      - {type: partition, id: a, device: d, size: -1}"},
		{"raid-members", Autoinstall, autoMatch, actions(disk(`, serial: "S1"`), "      - §{type: raid, raidlevel: 1, devices: [a]}\n"), actions(disk(`, serial: "S1"`), "      - {type: raid, raidlevel: 1, devices: [a, b]}\n")},
		{"raid-members", Kickstart, "autopart", "reqpart\n§raid / --level=RAID5 raid.1 raid.2\npart raid.1 --ondisk=" + ksDisk, "reqpart\nraid / --device=root --level=RAID1 raid.1 raid.2\npart raid.1 --ondisk=" + ksDisk},
		{"raid-members", Preseed, "partman-auto/method string regular", "partman-auto/method string regular\nd-i partman-auto-raid/recipe string §5 2 0 ext4 / /dev/sda1#/dev/sdb1 .", "partman-auto/method string regular\nd-i partman-auto-raid/recipe string 1 2 0 ext4 / /dev/sda1#/dev/sdb1 ."},
		{"raid-one-disk", Preseed, "partman-auto/method string regular", "partman-auto/method string regular\nd-i partman-auto-raid/recipe string §1 2 0 ext4 / /dev/sda1#/dev/sda2 .", "partman-auto/method string regular\nd-i partman-auto-raid/recipe string 1 2 0 ext4 / /dev/nvme0n1p1#/dev/nvme1n1p1 . 1 2 0 ext4 /var /dev/sda1#/dev/sdb1 ."},
		{"raid-boot", Preseed, "partman-auto/method string regular", "partman-auto/method string regular\nd-i partman-auto-raid/recipe string §1 2 0 fat32 /boot/efi /dev/sda1#/dev/sdb1 .", "partman-auto/method string regular\nd-i partman-auto-raid/recipe string 1 2 0 ext4 / raid@one ."},
		{"raid-one-disk", Autoinstall, autoMatch, actions(disk(`, serial: "S1"`), "      - {type: partition, id: a, device: d, size: 5G}\n      - {type: partition, id: b, device: d, size: 5G}\n      - {type: raid, raidlevel: 1, devices: [a, §b]}\n"), actions(disk(`, serial: "S1"`), two("5G")+"      - {type: raid, raidlevel: 1, devices: [a, b]}\n")},
		{"raid-members-unequal", Autoinstall, autoMatch, actions(disk(`, serial: "S1"`), two("6G")+"      - {type: raid, raidlevel: 1, devices: [a, §b]}\n"), actions(disk(`, serial: "S1"`), two("5G")+"      - {type: raid, raidlevel: 1, devices: [a, b]}\n")},
		{"raid-boot", Autoinstall, autoMatch, actions(disk(`, serial: "S1"`), two("5G")+"      - §{type: raid, id: m, raidlevel: 1, devices: [a, b]}\n"+efi), actions(disk(`, serial: "S1"`), two("5G")+"      - {type: raid, id: m, raidlevel: 1, metadata: \"1.0\", devices: [a, b]}\n"+efi)},
		{"raid-one-disk", Kickstart, "autopart", "reqpart\npart raid.1 --size=9 --ondisk=" + ksDisk + "\npart raid.2 --size=9 --ondisk=" + ksDisk + "\nraid / --level=RAID1 --device=root raid.1 §raid.2", "reqpart\npart raid.1 --size=9\npart raid.2 --size=9\nraid / --level=RAID1 --device=root raid.1 raid.2"},
		{"raid-members-unequal", Kickstart, "autopart", "reqpart\npart raid.1 --size=9\npart raid.2 --size=8\nraid / --level=RAID1 --device=root raid.1 §raid.2", "reqpart\npart raid.1 --size=9 --grow\npart raid.2 --size=8 --grow\nraid / --level=RAID1 --device=root raid.1 raid.2"},
		{"raid-members-unequal", Kickstart, "ignoredisk --only-use=" + ksDisk + "\nzerombr\nclearpart --all --initlabel --drives=" + ksDisk + "\nbootloader --boot-drive=" + ksDisk + "\nautopart", twoDisks("disk/by-id/ata-a", "disk/by-id/nvme-b", "§"), twoDisks("disk/by-id/ata-a", "disk/by-id/ata-b", "")},
		{"raid-boot", Kickstart, "autopart", "part raid.1\npart raid.2\n§raid /boot/efi --level=0 --device=efi raid.1 raid.2", "part raid.1\npart raid.2\nraid /boot/efi --level=1 --device=efi raid.1 raid.2"},
		{"raid-one-disk", AutoYaST, "<use>all</use></drive>", "<partitions config:type=\"list\"><partition><raid_name>/dev/md/r</raid_name></partition>§<partition><raid_name>/dev/md/r</raid_name></partition></partitions></drive>" + suseArray("raid1", "/"), "<use>all</use></drive>"},
		{"raid-members", AutoYaST, "<use>all</use></drive>", "<partitions config:type=\"list\"><partition><raid_name>/dev/md/r</raid_name></partition></partitions></drive>§" + suseArray("raid1", "/"), suseMember("2G", "r") + suseMember("2G", "s") + suseArray("raid1", "/")},
		{"raid-members-unequal", AutoYaST, "<use>all</use></drive>", suseMember("2G", "r") + strings.Replace(suseMember("3G", "s"), "<partition>", "§<partition>", 1) + suseArray("raid1", "/"), suseMember("2G", "r") + suseMember("2G", "s") + suseArray("raid1", "/")},
		{"raid-boot", AutoYaST, "<use>all</use></drive>", suseMember("2G", "r") + suseMember("2G", "s") + strings.Replace(suseArray("raid0", "/boot/efi"), "<partition>", "§<partition>", 1), suseMember("2G", "r") + suseMember("2G", "s") + suseArray("raid1", "/boot/efi")},
		{"raid-members", Agama, agamaOne, agamaTwo("a", "b", "4 GiB", `§{"level": "raid1", "devices": ["m0"]}`), `"storage": {"drives": [{"search": "/dev/disk/by-id/scsi-a"}, {"search": "/dev/disk/by-id/scsi-b", "alias": "b"}, {"search": "/dev/disk/by-id/scsi-c", "alias": "c"}], "mdRaids": [{"level": "raid0", "devices": ["b", "c"]}]}`},
		{"raid-one-disk", Preseed, "partman-auto/method string regular", "partman-auto/method string regular\nd-i partman-auto-raid/recipe string §1 2 0 ext4 / /dev/disk/by-id/scsi-3600508b1001c1-part1#/dev/disk/by-id/scsi-3600508b1001c1-part2 .", "partman-auto/method string regular\nd-i partman-auto-raid/recipe string 1 2 0 ext4 / /dev/disk/by-id/scsi-3600508b1001c1#/dev/disk/by-id/scsi-3600508b1001c2 . 1 2 0 ext4 /x /dev/nvme0n1#/dev/nvme0n2 ."},
		{"raid-members-unequal", Autoinstall, autoMatch, actions(disk(`, serial: "S1"`), two("50%")+two2+"      - {type: raid, raidlevel: 1, devices: [a2, §b2]}\n"), actions(disk(`, serial: "S1"`), two("5368709120")+"      - {type: raid, raidlevel: 1, devices: [a, b]}\n")},
		{"raid-members-unequal", AutoYaST, "<use>all</use></drive>", suseMember("2G", "r") + strings.Replace(suseMember("2049M", "s"), "<partition>", "§<partition>", 1) + suseArray("raid1", "/"), suseMember("2G", "r") + suseMember("max", "s") + suseArray("raid1", "/")},
		{"raid-members", AutoYaST, "<use>all</use></drive>", suseMember("2G", "r") + suseMember("2G", "s") + strings.Replace(suseArray("raid1", "/"), "/dev/md/r", "§/dev/mdr", 1), suseMember("2G", "r") + suseMember("2048M", "s") + suseArray("raid1", "/")},
		{"raid-members", Agama, agamaOne, agamaTwo("a", "b", "4 GiB", `§{"level": "raid5", "devices": ["m0", "m1"]}`), agamaTwo("a", "b", "4 GiB", `{"level": "raid1", "devices": ["m0", "m1"]}`)},
		{"raid-one-disk", Agama, agamaOne, agamaTwo("a", "a", "4 GiB", `{"level": "raid1", "devices": ["m0", §"m1"]}`), agamaTwo("a", "b", "4 GiB", `{"level": "raid1", "devices": ["m0", "m1"]}`)},
		{"raid-members-unequal", Agama, agamaOne, agamaTwo("a", "b", "5 GiB", `{"level": "raid1", "devices": ["m0", §"m1"]}`), agamaTwo("a", "b", "4 GiB", `{"level": "raid1", "devices": ["m0", "m1"]}`)},
		{"raid-boot", Agama, agamaOne, agamaTwo("a", "b", "4 GiB", `§{"level": "raid0", "devices": ["m0", "m1"], "filesystem": {"path": "/boot/efi"}}`), agamaTwo("a", "b", "4 GiB", `{"level": "raid1", "devices": ["m0", "m1"], "filesystem": {"path": "/boot/efi"}}`)},
		{"disk-preserve-wiped", Autoinstall, autoMatch, actions(disk(`, serial: "S1", preserve: true, §wipe: superblock`), ""), actions(disk(`, serial: "S1", preserve: true`), "")},
		{"partition-boot-missing", Kickstart, "--initlabel --drives=" + ksDisk + "\nbootloader --boot-drive=" + ksDisk + "\nautopart", "--disklabel=gpt --drives=" + ksDisk + "\nbootloader\n§part / --size=1 --grow", "--disklabel=gpt --drives=" + ksDisk + "\nbootloader\npart / --size=1 --grow\npart /boot/efi --size=600"},
		{"partition-boot-missing", Kickstart, base()[Kickstart], kickstartWith("#version=RHEL9", "#version=RHEL10", "autopart", "§part / --size=1 --grow"), kickstartWith("autopart", "part /boot --size=1024\npart pv.01 --size=1 --grow\nvolgroup vg pv.01\nlogvol / --vgname=vg --name=root --size=4096")},
		{"partition-boot-missing", Kickstart, base()[Kickstart], kickstartWith("#version=RHEL9", "#version=F44", "autopart", "§part / --size=1 --grow"), kickstartWith("#version=RHEL9", "#version=F44", "autopart", "reqpart --add-boot\npart / --size=1 --grow")},
		{"partition-boot-missing", Preseed, "partman-auto/method string regular", "partman-auto/method string regular\nd-i partman-partitioning/choose_label select gpt\nd-i partman-auto/expert_recipe string §root :: 1 2 -1 ext4 .", "partman-auto/method string regular\nd-i partman-auto/expert_recipe string boot-root :: 40 50 100 ext3 $primary{ } $bootable{ } method{ format } . 1 2 -1 ext4 ."},
		{"partition-percent", Kickstart, "autopart", "reqpart\npart pv.1 --size=1 --grow\nvolgroup vg pv.1\nlogvol / --vgname=vg --name=root --percent=60\nlogvol /var --vgname=vg --name=var --percent=§50", "reqpart\npart pv.1 --size=1 --grow\nvolgroup vg pv.1\nlogvol / --vgname=vg --name=root --percent=60\nlogvol /var --vgname=vg --name=var --percent=40"},
		{"secret-disk-passphrase", Autoinstall, autoMatch, `layout: {name: lvm, password: §"x", match: {serial: "S1"}}`, `layout: {name: lvm, match: {serial: "S1"}}`},
		{"secret-disk-passphrase", Kickstart, "autopart", "autopart --encrypted --passphrase=§x", "autopart --encrypted --escrowcert=http://x"},
		{"secret-disk-passphrase", AutoYaST, "<use>all</use>", "<partitions config:type=\"list\"><partition><crypt_key>§x</crypt_key></partition></partitions>", "<partitions config:type=\"list\"><partition><crypt_key/></partition></partitions>"},
		{"secret-disk-passphrase", Agama, agamaMax + "}", agamaMax + `}, "partitions": [{"encryption": {"luks2": {"password": §"x"}}}]`, agamaMax + `}, "partitions": [{"encryption": {"luks2": {}}}]`},
	}
}

func userPairs() []pair {
	return []pair{
		{"password-cleartext", Autoinstall, `"` + sha512crypt + `"`, `§"hunter2"`, `"!"`},
		{"password-cleartext", CloudConfig, "runcmd:", "chpasswd: {users: [{name: ops, type: text, password: §\"x\"}]}\nruncmd:", "chpasswd: {users: [{name: ops, type: RANDOM}], list: [\"a:R\"]}\nruncmd:"},
		{"password-cleartext", CloudConfig, "uid: 1000,", "uid: 1000, plain-text-passwd: §x,", "uid: 1000, ssh-import-id: [\"gh:ops\"],"},
		{"password-cleartext", Kickstart, "rootpw --lock", "rootpw §hunter2", "rootpw --iscrypted !"},
		{"password-cleartext", Preseed, "passwd/user-password-crypted password " + sha512crypt, "passwd/user-password password §x", "passwd/user-password-crypted password !"},
		{"password-cleartext", AutoYaST, `<encrypted config:type="boolean">true</encrypted><user_password>`, `<user_password>§x`, `<encrypted config:type="boolean">true</encrypted><user_password>!`},
		{"password-cleartext", Agama, `"hashedPassword": true, "password": "` + sha512crypt + `"`, `"password": §"x"`, `"hashedPassword": true, "password": "!"`},
		{"password-empty", Ignition, `"uid": 1000`, `"passwordHash": §""`, `"passwordHash": "*"`},
		{"password-hash-weak", Kickstart, "rootpw --lock", "rootpw --iscrypted §$1$saltsalt$aaaaaaaaaaaaaaaaaaaaaa", "rootpw --iscrypted $5$saltsalt$" + strings.Repeat("a", 43)},
		{"password-hash-illegal", Ignition, `"uid": 1000`, `"passwordHash": §"$6$cut"`, `"passwordHash": "$y$j9T$abc$` + strings.Repeat("a", 43) + `"`},
		{"password-hash-illegal", Kickstart, "rootpw --lock", "rootpw --iscrypted §notahash", "rootpw --lock --iscrypted " + sha512crypt},
		{"ssh-key-malformed", Kickstart, `"` + ed25519 + `"`, `§"ssh-ed25519 AAAAC3Nz alice"`, `"` + other + `"`},
		{"ssh-key-weak", Kickstart, `"` + ed25519 + `"`, `§"` + rsa + `"`, `"` + other + `"`},
		{"ssh-key-twice", CloudConfig, `["` + ed25519 + `"]`, `["` + ed25519 + `", §"` + ed25519 + `"]`, `["` + ed25519 + `", "` + other + `"]`},
		{"user-name-illegal", Agama, `"userName": "ops"`, `"userName": §"Ops"`, `"userName": "ops_2"`},
		{"user-name-reserved", Preseed, "passwd/username string ops", "passwd/username string §admin", "passwd/username string administrator"},
		{"user-uid-low", CloudConfig, "uid: 1000", "uid: §500", "uid: 5000"},
		{"login-nobody", Autoinstall, "identity:\n    hostname: \"node-a\"\n    username: \"ops\"\n    password: \"" + sha512crypt + "\"\n  ssh: {install-server: true, authorized-keys: [\"" + ed25519 + "\"]}", "§identity: {hostname: node-a, username: ops, password: \"!\"}", "identity:\n    hostname: \"node-a\"\n    username: \"ops\"\n    password: \"!\"\n  ssh: {authorized-keys: [\"" + ed25519 + "\"]}"},
		{"login-nobody", Kickstart, span(Kickstart, "rootpw", "%post") + "%post --erroronfail\necho done\n%end\n", "§rootpw --lock\nuser --name=ops\n" + span(Kickstart, "network", "%post"), "user --name=ops\n" + span(Kickstart, "sshkey", "%post")},
		{"login-nobody", CloudConfig, `{name: ops, uid: 1000, lock_passwd: false, passwd: "` + sha512crypt + `", ssh_authorized_keys: ["` + ed25519 + `"]`, `§{name: ops`, `{name: ops, ssh_import_id: ["gh:ops"]`},
		{"password-hash-unsupported", Kickstart, "#version=RHEL9", "#version=RHEL8\nrootpw --iscrypted §$y$j9T$saltsalt$" + strings.Repeat("a", 43), "#version=RHEL9\nrootpw --iscrypted $y$j9T$saltsalt$" + strings.Repeat("a", 43)},
	}
}

func namePairs() []pair {
	return []pair{
		{"hostname-illegal", CommandLine, "hostname=node-a", "hostname=§node_a", "hostname=node-a.example.org"},
		{"hostname-illegal", MetaData, `"node-a"`, `§"-node"`, `"n1"`},
		{"hostname-illegal", AutoYaST, "<hostname>node-a", "<hostname>§Node", "<hostname>node-b"},
		{"hostname-illegal", Agama, `"node-a"`, `§"node.."`, `"node-a.b"`},
		{"hostname-illegal", Ignition, `"data:,node-a"`, `§"data:,1234"`, `"data:,n1234"`},
		{"timezone-unknown", Autoinstall, "  apt:", "  timezone: §Mars/City\n  apt:", "  timezone: geoip\n  apt:"},
		{"timezone-unknown", CloudConfig, "runcmd:", "timezone: §Local\nruncmd:", "timezone: America/Argentina/Buenos_Aires\nruncmd:"},
		{"timezone-unknown", Kickstart, "timezone Etc/UTC", "timezone §Etc/Utc", "timezone Europe/Berlin"},
		{"timezone-unknown", Preseed, "d-i mirror/suite", "d-i time/zone string §Berlin\nd-i mirror/suite", "d-i time/zone string Europe/Berlin\nd-i mirror/suite"},
		{"timezone-unknown", AutoYaST, "</users>", "</users><timezone><timezone>§../UTC</timezone></timezone>", "</users><timezone><timezone>UTC</timezone></timezone>"},
		{"timezone-unknown", Agama, `"questions"`, `"localization": {"timezone": §"CEST+2"}, "questions"`, `"localization": {"timezone": "CET"}, "questions"`},
		{"hostname-default", Preseed, "get_hostname string node-a", "get_hostname string §debian", "get_hostname string debian-1"},
		{"meta-data-instance", MetaData, "instance-id: \"i-1\"\n", "§", "instance-id: i-2\n"},
	}
}

func netPairs() []pair {
	return []pair{
		{"net-address-illegal", NetworkConfig, `"10.0.0.21/24"`, `§"010.0.0.21/24"`, `"10.0.0.22/24"`},
		{"net-address-illegal", Kickstart, "10.0.0.53", "§300.1.1.1", "10.0.0.53,10.0.0.54"},
		{"net-prefix-missing", NetworkConfig, lan0, `    addresses: [§"10.0.0.21/255.255.255.0"]`, lan0},
		{"net-prefix-missing", Kickstart, "--ip=10.0.0.21 --netmask=255.255.255.0 --gateway=10.0.0.254", "--ip=§10.0.0.21", "--bootproto=dhcp"},
		{"net-prefix-missing", AutoYaST, "<ipaddr>10.0.0.21</ipaddr><prefixlen>24</prefixlen>", "<ipaddr>§10.0.0.21</ipaddr>", "<ipaddr>10.0.0.21/24</ipaddr>"},
		{"net-prefix-missing", Agama, `"10.0.0.21/24"`, `§"10.0.0.21"`, `"fd00::1/64"`},
		{"net-address-reserved", NetworkConfig, `"10.0.0.21/24"`, `§"10.0.0.255/24"`, `"10.0.0.255/16", "10.0.0.7/24"`},
		{"net-address-reserved", Kickstart, "10.0.0.21", "§10.0.0.0", "10.0.0.1"},
		{"net-gateway-outside", NetworkConfig, `"10.0.0.254"`, `§"10.0.1.254"`, `"10.0.1.254", on-link: true`},
		{"net-gateway-outside", Kickstart, "10.0.0.254", "§10.0.1.254", "10.0.0.253"},
		{"net-gateway-outside", Agama, `["10.0.0.21/24"]`, `["10.0.0.21/24"], "gateway4": §"10.0.1.254"`, `["10.0.0.21/24"], "gateway4": "10.0.0.254"`},
		{"net-two-routers", NetworkConfig, "    dhcp4: true", "    dhcp4: true\n    routes: [{to: §0.0.0.0/0, via: \"10.0.0.254\"}]", "    dhcp4: true\n    routes: [{to: 0.0.0.0/0, via: \"10.0.0.254\", metric: 200}]"},
		{"net-dns-missing", NetworkConfig, "  lan:\n    match: {macaddress: \"3c:ec:ef:12:34:56\"}\n    set-name: lan0\n" + lan0 + "\n    nameservers: {addresses: [\"10.0.0.53\"]}\n    routes: [{to: default, via: \"10.0.0.254\"}]\n    mtu: 1500\n  wan:\n    match: {macaddress: \"3c:ec:ef:12:34:57\"}\n    dhcp4: true\nvlans:\n  storage: {id: 7, link: lan, addresses: [\"fd00::21/64\"]}", "  §lan: {addresses: [\"10.0.0.21/24\"]}", "  lan: {dhcp4: true, addresses: [\"10.0.0.21/24\"]}"},
		{"net-dns-missing", Kickstart, "--ip=10.0.0.21 --netmask=255.255.255.0 --gateway=10.0.0.254 --nameserver=10.0.0.53", "--ip=§10.0.0.21 --netmask=255.255.255.0", "--ip=10.0.0.21 --netmask=255.255.255.0 --nameserver=10.0.0.53"},
		{"net-mtu", NetworkConfig, "mtu: 1500", "mtu: §9", "mtu: 1000"},
		{"net-vlan-id", NetworkConfig, "storage: {id: 7", "§storage: {id: 4095", "storage: {id: 4094"},
		{"net-vlan-id", Kickstart, "--hostname=node-a", "--vlanid=§0", "--vlanid=12"},
		{"net-members", NetworkConfig, "pair: {interfaces: [lan, wan]}", "§pair: {interfaces: []}", "pair: {interfaces: [lan]}"},
		{"net-members", NetworkConfig, "interfaces: [lan, wan]}", "interfaces: [lan, wan], parameters: {primary: §eth0}}", "interfaces: [lan, wan], parameters: {primary: lan}}"},
		{"net-kernel-name", NetworkConfig, "  wan:\n    match: {macaddress: \"3c:ec:ef:12:34:57\"}", "  §eth1:", "  eth1:\n    match: {macaddress: \"3c:ec:ef:12:34:57\"}"},
		{"net-kernel-name", Kickstart, "--device=3c:ec:ef:12:34:56", "--device=§eth0", "--device=bootif"},
		{"net-kernel-name", AutoYaST, "<name>lan0", "<name>§eth0", "<name>lan1"},
		{"net-kernel-name", Agama, `"macAddress": "3c:ec:ef:12:34:56"`, `"interface": §"enp3s0"`, `"interface": "enp3s0", "macAddress": "3c:ec:ef:12:34:56"`},
		{"net-name-twice", NetworkConfig, "    dhcp4: true", "    set-name: §lan0", "    set-name: wan0"},
		{"net-name-long", NetworkConfig, "set-name: lan0", "set-name: §lan0-of-the-rack-7", "set-name: lan0-of-rack-7"},
		{"net-unknown-key", NetworkConfig, "dhcp4: true", "§dhcp: true", "dhcp6: true"},
		{"net-unknown-key", NetworkConfig, "ethernets:", "§ethernet: {}\nethernets:", "renderer: networkd\nethernets:"},
		{"net-version", NetworkConfig, "version: 2", "version: §1", "version: 2\nrenderer: networkd"},
		{"mac-illegal", NetworkConfig, `"3c:ec:ef:12:34:57"`, `§"ff:ff:ff:ff:ff:ff"`, `"3c:ec:ef:12:34:58"`},
		{"mac-local", NetworkConfig, `"3c:ec:ef:12:34:57"`, `§"52:54:00:12:34:56"`, `"00:11:22:33:44:55"`},
		{"mac-twice", NetworkConfig, `"3c:ec:ef:12:34:57"`, `§"3C:EC:EF:12:34:56"`, `"3c:ec:ef:12:34:59"`},
		{"net-bond-primary", NetworkConfig, "pair: {interfaces: [lan, wan]}", "pair: {interfaces: [lan, wan], parameters: {mode: §active-backup}}", "pair: {interfaces: [lan, wan], parameters: {mode: active-backup, primary: lan}}"},
	}
}

func secretPairs() []pair {
	return []pair{
		{"secret-private-key", CloudConfig, `content: "hello"`, `content: "§-----BEGIN OPENSSH PRIVATE KEY-----"`, `content: "-----BEGIN CERTIFICATE-----"`},
		{"secret-join-token", CloudConfig, `- "true"`, `- "kubeadm join 10.0.0.1:6443 --discovery-token-ca-cert-hash $CA --§token abcdef.0123456789abcdef"`, `- "kubeadm join 10.0.0.1:6443 --token $TOKEN --discovery-token-ca-cert-hash $CA"`},
		{"secret-join-token", Shell, "echo go", "§K3S_TOKEN=secret k3s agent", "K3S_TOKEN=$(cat /run/token) k3s agent"},
		{"secret-in-url", Kickstart, ksURL, "url --url=§http://u:p@mirror.example.org/rocky/9.6", "url --url=http://mirror.example.org:8080/rocky/9.6"},
		{"secret-on-cmdline", CommandLine, "hostname=node-a", "live.password=§hunter2", "live.password_url=http://x"},
		{"secret-world-readable", CloudConfig, `{path: /etc/motd, permissions: "0644"`, `{path: /etc/k3s-token, permissions: §"0640"`, `{path: /etc/k3s-token, permissions: "0600"`},
		{"join-ca-unpinned", Shell, "echo go", "kubeadm join §--discovery-token-unsafe-skip-ca-verification", "kubeadm join --discovery-token-ca-cert-hash x"},
		{"join-ca-unpinned", Shell, "echo go", "§kubeadm join 10.0.0.1:6443 \\\n  --token $TOKEN", "kubeadm join 10.0.0.1:6443 --token $TOKEN \\\n  --discovery-token-ca-cert-hash $CA"},
		{"join-ca-unpinned", CloudConfig, `content: "hello"`, `content: "discovery: {§bootstrapToken: {token: $T}}"`, `content: "discovery: {bootstrapToken: {token: $T, caCertHashes: [\"sha256:` + sha256hex + `\"]}}"`},
		{"join-ca-unpinned", Shell, "echo go\n", "cat > /c <<'END'\ncaCertHashes:\n  - §md5:abcd\nEND\n", "cat > /c <<'END'\ncaCertHashes:\n  - sha256:" + sha256hex + "\nEND\n# kubeadm join --token x\n"},
		{"join-ca-unpinned", CloudConfig, `content: "hello"`, `content: "caCertHashes: [§md5:0]"`, `content: "caCertHashes: [$CA]"`},
	}
}

func sourcePairs() []pair {
	return []pair{
		{"source-unpinned", Kickstart, ksURL, "url §--mirrorlist=http://m.example.org/list", "url --url=http://m.example.org/list"},
		{"source-unpinned", Autoinstall, "  apt: {fallback: abort}", "  apt:\n    fallback: abort\n    mirror-selection:\n      primary:\n§        - country-mirror", "  apt:\n    fallback: abort\n    mirror-selection:\n      primary:\n        - uri: http://mirror.example.org/2026"},
		{"source-unpinned", Preseed, "d-i mirror/suite string bookworm", "d-i mirror/http/hostname string §deb.debian.org", "d-i mirror/http/hostname string snapshot.debian.org"},
		{"source-unpinned", Kickstart, ksURL, "url --url=§https://mirror.example.org/pub/Rocky/9/BaseOS/x86_64/os/", "url --url=https://mirror.example.org/pub/Rocky/9.6/BaseOS/x86_64/os/"},
		{"source-unpinned", Kickstart, ksURL, ksURL + "\nrepo --name=a --baseurl=§https://mirror.example.org/AlmaLinux/9/os/", ksURL},
		{"source-unpinned", Kickstart, ksURL, "url --url=§http://mirror.example.org/rocky/9/BaseOS", "url --url=http://mirror.example.org/rocky/9.6/BaseOS"},
		{"source-unpinned", Preseed, "mirror/suite string bookworm", "mirror/suite string §stable", "mirror/suite string trixie"},
		{"source-unpinned", Autoinstall, "fallback: abort", "fallback: abort, mirror-selection: {primary: [{uri: \"§http://archive.ubuntu.com/ubuntu\"}]}", "fallback: abort, mirror-selection: {primary: [{uri: \"http://snapshot.ubuntu.com/ubuntu/20261101T000000Z\"}]}"},
		{"source-unverified", Kickstart, ksURL, ksURL + " §--noverifyssl", ksURL},
		{"source-unverified", Agama, `"product": {"id": "SLES"}`, `"product": {"id": "SLES"}, "software": {"extraRepositories": [{§"allowUnsigned": true}]}`, `"product": {"id": "SLES"}, "software": {"extraRepositories": [{"allowUnsigned": false}]}`},
		{"source-unverified", AutoYaST, "<general>", "<general><signature-handling>§<accept_unsigned_file config:type=\"boolean\">true</accept_unsigned_file></signature-handling>", "<general><signature-handling><accept_unsigned_file config:type=\"boolean\">false</accept_unsigned_file></signature-handling>"},
		{"source-unverified", Shell, "wget", "§curl -fsk https://m/x\nwget", "curl -fsS https://m/x\nwget"},
		{"source-checksum-missing", Kickstart, ksURL, "§liveimg --url=http://m/i.img", "liveimg --url=http://m/i.img --checksum=" + sha256hex},
		{"source-checksum-missing", Ignition, `{"source": "https://m.example/k", "verification": {"hash": "sha256-` + sha256hex + `"}}`, `{"source": §"https://m.example/k"}`, `{"source": "data:,x"}`},
		{"hook-failure-ignored", Kickstart, "%post --erroronfail", "§%post", "%post --nochroot --erroronfail"},
		{"hook-failure-ignored", Preseed, "report || poweroff -f", "§report", "report || reboot -f"},
		{"hook-failure-unreported", Autoinstall, "autoinstall:\n  version: 1\n  identity:\n    hostname: \"node-a\"\n    username: \"ops\"\n    password: \"" + sha512crypt + "\"\n  ssh: {install-server: true, authorized-keys: [\"" + ed25519 + "\"]}\n  apt: {fallback: abort}\n  early-commands: [\"true\"]\n  error-commands: [\"report\"]", "§autoinstall:\n  version: 1\n  identity: {hostname: node-a, username: ops, password: \"!\"}\n  ssh: {authorized-keys: [\"" + ed25519 + "\"]}", "autoinstall:\n  version: 1\n  identity: {hostname: node-a, username: ops, password: \"!\"}\n  ssh: {authorized-keys: [\"" + ed25519 + "\"]}\n  error-commands: [[report, \"1\"]]"},
		{"hook-pipe-to-shell", Shell, "echo go", "§curl -s https://get.example.org | sudo sh", "curl -s https://get.example.org | sha256sum"},
		{"hook-bashism", Preseed, "report || poweroff -f", "§if [[ -e /x ]]; then poweroff -f; fi", "if [ -e /x ]; then poweroff -f; fi"},
		{"hook-syntax", Shell, "echo go", "§if true; then", "if true; then true; fi"},
		{"hook-syntax", Kickstart, "echo done\n", "echo done\necho §)\n", "echo done\necho ')'\n"},
		{"hook-syntax", Kickstart, "%post --erroronfail\necho done\n", "%post --erroronfail\n§(\n", "%post --erroronfail --interpreter=/usr/libexec/platform-python\nprint((1\n"},
		{"hook-syntax", Preseed, "report || poweroff -f", "§report || ( poweroff -f", "report || { poweroff -f; }"},
		{"hook-syntax", Autoinstall, `early-commands: ["true"]`, `early-commands: [§"if true; then"]`, `early-commands: [[sh, -c, "if true; then true; fi"], [echo, "("]]`},
		{"hook-syntax", CloudConfig, `- "true"`, `- [bash, -ec, §"echo ("]`, `- [python3, -c, "print((1"]`},
		{"hook-syntax", AutoYaST, "</users>", `</users><scripts><pre-scripts config:type="list"><script><interpreter>shell</interpreter><source>§case x in</source></script></pre-scripts></scripts>`,
			`</users><scripts><pre-scripts config:type="list"><script><interpreter>perl</interpreter><source>case x in</source></script></pre-scripts></scripts>`},
		{"hook-syntax", Agama, `"questions"`, `"scripts": {"pre": [{"name": "a", "content": §"#!/bin/sh\nfor x in"}]}, "questions"`, `"scripts": {"pre": [{"name": "a", "content": "#!/usr/bin/env -S python3 -u\nfor x in"}]}, "questions"`},
		{"hook-no-interpreter", Shell, "#!/bin/sh\n", "§", "#!/bin/dash\n"},
		{"hook-no-interpreter", Agama, `"questions"`, `"scripts": {"pre": [{"name": "a", "content": §"echo a"}]}, "questions"`, `"scripts": {"pre": [{"name": "a", "content": "#!/bin/sh\necho a"}]}, "questions"`},
		{"hook-hash-expanded", Shell, "echo go", "echo go\necho \"ops:§" + sha512crypt + "\" | chpasswd -e", "echo go\necho 'ops:" + sha512crypt + "' | chpasswd -e"},
		{"hook-hash-expanded", Kickstart, "echo done\n", "chpasswd -e <<END\nops:§" + sha512crypt + "\nEND\n", "chpasswd -e <<'END'\nops:" + sha512crypt + "\nEND\n"},
		{"hook-hash-expanded", Autoinstall, `early-commands: ["true"]`, `early-commands: [§'usermod -p "` + sha512crypt + `" ops']`, `early-commands: ["usermod -p '` + sha512crypt + `' ops"]`},
		{"hook-exit-unreported", Shell, "echo go", "  §set -eu\necho go", "set -eu\ntrap 'report $?' EXIT\necho go"},
		{"hook-exit-unreported", Kickstart, "echo done\n%end\n", "echo done\n%end\n%onerror\n§set -e\n%end\n", "set -euxo pipefail\ncat > /x <<'END'\nset -e\nEND\n(set -e; true) || exit 1\n%end\n"},
		{"hook-exit-unreported", AutoYaST, "</users>", `</users><scripts><pre-scripts config:type="list"><script><source>§set -e</source></script></pre-scripts></scripts>`, `</users><scripts><pre-scripts config:type="list"><script><source>set +e</source></script></pre-scripts></scripts>`},
		{"hook-too-long", Autoinstall, `early-commands: ["true"]`, `early-commands: [§"` + strings.Repeat("#", 131072) + `"]`, `early-commands: ["` + strings.Repeat("#", 131071) + `"]`},
		{"hook-too-long", Preseed, "report || poweroff -f", "§report || poweroff -f " + strings.Repeat("#", 131050), "report || poweroff -f " + strings.Repeat("#", 131049)},
		{"release-ended", Kickstart, base()[Kickstart], "§" + kickstartWith("#version=RHEL9", "#version=RHEL7", "sshkey --username=ops \""+ed25519+"\"\n", ""), kickstartWith("#version=RHEL9", "#version=RHEL8")},
		{"release-ended", Kickstart, "#version=RHEL9\n", "§#version=F40\n", "#version=RHEL10\n"},
		{"release-ended", Preseed, "mirror/suite string bookworm", "mirror/suite string §buster", "mirror/suite string trixie"},
		{"time-unsynchronised", Kickstart, "timezone Etc/UTC --utc", "# https://p\n§timezone Etc/UTC --utc --nontp", "# http://p\ntimezone Etc/UTC --utc --nontp"},
		{"time-unsynchronised", Kickstart, "reboot\n", "# https://p\nreboot\nservices --disabled=§kdump,chronyd\n", "# https://p\nreboot\nservices --disabled=kdump\n"},
		{"time-unsynchronised", Preseed, "mirror/suite string bookworm", "mirror/suite string bookworm\nd-i clock-setup/ntp boolean §false\nd-i mirror/https/hostname string https://m", "mirror/suite string bookworm\nd-i clock-setup/ntp boolean false"},
		{"time-unsynchronised", CloudConfig, "runcmd:", "ntp: {enabled: §false}\nruncmd:\n  - kubeadm version", "ntp: {enabled: true}\nruncmd:\n  - kubeadm version"},
		{"time-unsynchronised", Talos, "machine:\n", "machine:\n  time: {disabled: §true}\n", "machine:\n  time: {servers: [ntp.example.org]}\n"},
		{"swap-kubernetes", Kickstart, "autopart", "§autopart\n# kubelet", "autopart --noswap\n# kubelet"},
		{"swap-kubernetes", Kickstart, "autopart", "reqpart\npart §swap --size=1\n# kubelet", "reqpart\npart swap --size=1\n# kubelet: failSwapOn"},
		{"swap-kubernetes", Kickstart, base()[Kickstart], kickstartWith("#version=RHEL9", "#version=F44\n# kubelet", "autopart", "autopart --noswap", "%packages", "§%packages"), kickstartWith("#version=RHEL9", "#version=F44\n# kubelet", "autopart", "autopart --noswap", "@core", "@core\n-zram-generator-defaults")},
		{"swap-kubernetes", Autoinstall, "  storage:", "  # kubelet\n  §storage:", "  # kubelet, swapoff\n  storage:"},
		{"swap-kubernetes", Autoinstall, "storage:\n", "storage:\n    swap: {size: §4G} # kubelet\n", "storage:\n    swap: {size: 0} # kubelet\n"},
		{"swap-kubernetes", Autoinstall, "storage:\n    " + autoMatch, "storage: # kubelet\n    swap: {size: 0}\n    " + actions("{type: disk, id: d, serial: S1, ptable: gpt}", "      - {type: format, volume: x, fstype: §swap}\n"), "storage: # kubelet\n    swap: {size: 0}\n    " + autoMatch},
		{"swap-kubernetes", CloudConfig, "runcmd:", "swap: {filename: /s, size: §1G}\nruncmd:\n  - k3s --version", "swap: {size: 0}\nruncmd:\n  - k3s --version"},
		{"swap-kubernetes", Preseed, "d-i partman-auto/method string regular", "# kubelet\nd-i §partman-auto/method string regular", "# kubelet\nd-i partman-auto/method string regular\nd-i partman-auto/expert_recipe string r :: 1 2 3 free method{ efi } ."},
		{"swap-kubernetes", Preseed, "d-i partman-auto/method string regular", "# kubelet\nd-i partman-auto/method string regular\nd-i partman-auto/expert_recipe string §r :: 1 2 3 free method{ efi } . 1 2 3 linux-swap .", "d-i partman-auto/method string regular\nd-i partman-auto/expert_recipe string r :: 1 2 3 free method{ efi } . 1 2 3 linux-swap ."},
		{"swap-kubernetes", AutoYaST, "<use>all</use>", `<partitions config:type="list"><partition><filesystem config:type="symbol">§swap</filesystem></partition></partitions><!-- kubelet -->`, `<partitions config:type="list"><partition><filesystem config:type="symbol">swap</filesystem></partition></partitions>`},
		{"swap-kubernetes", Agama, `"search": {"condition"`, `"partitions": [{"filesystem": {"path": §"swap"}}], "description": "kubelet", "search": {"condition"`, `"partitions": [{"filesystem": {"path": "swap"}}], "search": {"condition"`},
		{"cgroup-v1", Kickstart, "#version=RHEL9\n", "§#version=RHEL8\n# kubelet: swapoff\n", "#version=RHEL9\n# kubelet: swapoff\n"},
	}
}

func textPairs() []pair {
	return []pair{
		{"syntax", CloudConfig, "runcmd:\n  - ", "runcmd:\n§\t- ", "runcmd:\n    - "},
		{"syntax", Agama, `"product": {"id": "SLES"},`, `"product": {"id": "SLES"},§,`, `"product": {"id": "SLES"} ,`},
		{"syntax", Preseed, "d-i debian-installer/locale string", "§d-i debian-installer/locale\nd-i debian-installer/locale string", "# d-i debian-installer/locale\nd-i debian-installer/locale string"},
		{"syntax", Kickstart, "lang en_US.UTF-8", `lang §"en_US.UTF-8`, `lang "en_US.UTF-8"`},
		{"value-kind", Autoinstall, `early-commands: ["true"]`, `§early-commands: "true"`, `early-commands: [["true"]]`},
		{"value-kind", CloudConfig, `- "true"`, `- §echo: hello`, `- "echo: hello"`},
		{"key-twice", CloudConfig, "runcmd:", "§hostname: \"b\"\nruncmd:", "fqdn: \"b.c\"\nruncmd:"},
		{"key-twice", Ignition, `"ignition"`, `"kernelArguments": {}, §"kernelArguments": {}, "ignition"`, `"kernelArguments": {}, "ignition"`},
		{"key-twice", Preseed, "d-i partman/confirm boolean true", "d-i partman/confirm boolean true\nd-i §partman/confirm boolean false", "d-i partman/confirm seen true\nd-i partman/confirm boolean true"},
		{"yaml-not-text", CloudConfig, `permissions: "0644"`, "permissions: §0644", `permissions: "0640"`},
		{"yaml-not-text", CloudConfig, `- "true"`, "- [echo, §no]", "- [sleep, 5]"},
		{"yaml-not-text", Autoinstall, `"ops"`, "§on", "ops"},
		{"yaml-sexagesimal", NetworkConfig, `"3c:ec:ef:12:34:57"`, "§10:54:00:12:34:56", `00:11:22:33:44:55`},
		{"yaml-anchor", CloudConfig, "runcmd:", "fqdn: &a node-b\ngroups: [§*a]\nruncmd:", "fqdn: &a node-b\nruncmd:"},
		{"yaml-second-document", MetaData, "local-hostname: \"node-a\"\n", "local-hostname: \"node-a\"\n§---\na: b\n", "local-hostname: \"node-b\"\n"},
		{"template-leftover", CloudConfig, `"hello"`, `"§{{ motd }}"`, `"{ motd }"`},
		{"template-leftover", Agama, `"id": "SLES"`, `"id": §"@PRODUCT@"`, `"id": "SLES", "x": {"encryption": {"luks2": {"password": "@KEY@"}}}`},
		{"template-leftover", Kickstart, "lang en_US.UTF-8", "lang §@LANG@", "lang a@b.c"},
		{"template-leftover", AutoYaST, "<device>" + preDisk, "<device>§@DISK0@", "<device>" + preDisk + " "},
		{"template-leftover", AutoYaST, "<use>all</use>", "<partitions config:type=\"list\"><partition><crypt_key>§@KEY@</crypt_key></partition></partitions>", "<partitions config:type=\"list\"><partition><crypt_key/></partition></partitions>"},
		{"text-bom", CloudConfig, "#cloud-config", "\ufeff§#cloud-config", "#cloud-config"},
		{"text-cr", Kickstart, "reboot\n", "reboot§\r\n", "reboot\n"},
		{"text-control", Preseed, "string en_US.UTF-8", "string en_US§\x01", "string de_DE.UTF-8"},
		{"text-invisible", CloudConfig, `"hello"`, "\"hel§\u200blo\"", `"hällo"`},
		{"text-not-utf8", Preseed, "string en_US.UTF-8", "string en_US§\xff", "string de_DE.UTF-8"},
	}
}

func ubuntuPairs() []pair {
	return []pair{
		{"cloud-config-header", CloudConfig, "#cloud-config", "§#cloud-config: yes", "#cloud-config"},
		{"cloud-config-unknown-key", CloudConfig, "runcmd:", "§runcmdd:", "bootcmd:"},
		{"autoinstall-missing", Autoinstall, "autoinstall:", "§autoinstal:", "autoinstall:"},
		{"autoinstall-unknown-key", Autoinstall, "  apt:", "  §latecommands: []\n  apt:", "  late-commands: []\n  apt:"},
		{"autoinstall-version", Autoinstall, "version: 1", `version: §"1"`, "version: 1"},
		{"autoinstall-identity", Autoinstall, "  identity:\n    hostname: \"node-a\"\n", "  §identity:\n", "  identity:\n    hostname: \"node-b\"\n"},
		{"autoinstall-hostname", Autoinstall, "  apt:", "  user-data: {§hostname: node-b}\n  apt:", "  user-data: {timezone: Etc/UTC}\n  apt:"},
		{"autoinstall-interactive", Autoinstall, "  apt:", "  interactive-sections: §[network]\n  apt:", "  interactive-sections: []\n  apt:"},
		{"autoinstall-reporting-type", Autoinstall, "  apt:", "  reporting: {a: {type: §rsyslog}}\n  apt:", "  reporting: {a: {type: journald}}\n  apt:"},
		{"autoinstall-reporting-key", Autoinstall, "  apt:", "  reporting: {a: {type: webhook, endpoint: \"http://x\", §token: x}}\n  apt:", "  reporting: {a: {type: webhook, endpoint: \"http://x\", level: INFO}}\n  apt:"},
		{"autoinstall-apt-fallback", Autoinstall, "apt: {fallback: abort}", "§apt: {geoip: false}", "apt: {geoip: false, fallback: abort}"},
		{"autoinstall-refresh", Autoinstall, "  apt:", "  refresh-installer: {update: §yes}\n  apt:", "  refresh-installer: {update: no}\n  apt:"},
	}
}

func kickstartPairs() []pair {
	return []pair{
		{"kickstart-command-missing", Kickstart, "#version=RHEL9\ntext\nlang en_US.UTF-8", "§#version=RHEL9\ntext", "lang de_DE.UTF-8\ncmdline"},
		{"kickstart-source-missing", Kickstart, "#version=RHEL9\ntext\nlang en_US.UTF-8\nkeyboard us\ntimezone Etc/UTC --utc\n" + ksURL, "§#version=RHEL9\ntext\nlang en_US.UTF-8\nkeyboard us\ntimezone Etc/UTC --utc", "text\nlang en_US.UTF-8\nkeyboard us\ntimezone Etc/UTC --utc\ncdrom"},
		{"kickstart-section-end", Kickstart, "%packages\n@core\n%end", "§%packages\n@core", "%packages\n@core\n# all\n%end"},
		{"kickstart-section-end", Kickstart, "reboot\n", "reboot\n§%end\n", "reboot\n%onerror\nreport\n%end\n"},
		{"kickstart-unknown-command", Kickstart, "zerombr", "§zerombrs\nzerombr", "zerombr\nselinux --enforcing"},
		{"kickstart-unknown-command", Kickstart, "%post", "§%psot\n%end\n%post", "%addon x\n%end\n%post"},
		{"kickstart-command-version", Kickstart, "#version=RHEL9", "#version=RHEL9\n§install", "#version=RHEL9\ntimesource --ntp-server=10.0.0.1"},
		{"kickstart-hash-cut", Kickstart, "lang en_US.UTF-8", "lang en§#US", "lang en_US.UTF-8 # English"},
		{"kickstart-key-unquoted", Kickstart, `"` + ed25519 + `"`, "§" + ed25519, "'" + ed25519 + "'"},
		{"kickstart-reqpart-autopart", Kickstart, "autopart", "autopart\n§reqpart", "part / --size=1 --grow --ondisk=" + ksDisk + "\nreqpart"},
		{"kickstart-include", Kickstart, "autopart", "§%include /tmp/part", "autopart --type=lvm"},
	}
}

func preseedPairs() []pair {
	return []pair{
		{"preseed-header", Preseed, "#_preseed_V1\n", "§", "#_preseed_V1\n#\n"},
		{"preseed-double-blank", Preseed, "partman-auto/method string regular", "partman-auto/method string § regular", "partman-auto/method string regular\nd-i partman-auto/expert_recipe string    \\\n   root :: 1 2 9 free method{ efi } . 9 9 -1 ext4 \\\n   ."},
		{"preseed-double-blank", Preseed, "partman/confirm boolean true", "partman/confirm boolean § true", "partman/confirm boolean true"},
		{"preseed-continuation", Preseed, "d-i netcfg/get_ipaddress string 10.0.0.21", "d-i netcfg/get_domain string example.§\\ \n", "d-i netcfg/get_domain string example.\\\norg"},
		{"preseed-type", Preseed, "debian-installer/locale string", "debian-installer/locale §text2", "debian-installer/locale select"},
		{"preseed-unknown-question", Preseed, "d-i debian-installer", "d-i §passwd/user-passwd string x\nd-i debian-installer", "d-i passwd/user-fullname string x\nd-i debian-installer"},
		{"preseed-answer-missing", Preseed, "#_preseed_V1\nd-i debian-installer/locale string en_US.UTF-8\nd-i netcfg/get_hostname string node-a\nd-i netcfg/get_ipaddress string 10.0.0.21\nd-i mirror/suite string bookworm\nd-i passwd/username string ops\nd-i passwd/user-password-crypted password " + sha512crypt + "\nd-i partman-auto/method string regular\nd-i partman-auto/disk string " + preDisk + "\nd-i partman/choose_partition select finish\nd-i partman/confirm boolean true", "§#_preseed_V1\nd-i partman-auto/method string regular\nd-i partman-auto/disk string " + preDisk + "\nd-i partman/choose_partition select finish", "#_preseed_V1\nd-i preseed/include string more.cfg"},
	}
}

func suseAndCorePairs() []pair {
	return []pair{
		{"autoyast-unknown-section", AutoYaST, "  <general>", "  §<partitionning/>\n  <general>", "  <software/>\n  <general>"},
		{"autoyast-config-type", AutoYaST, `<use>all</use>`, `§<initialize>true</initialize>`, `<initialize config:type="boolean">true</initialize>`},
		{"autoyast-config-type", AutoYaST, `<users config:type="list">`, `§<users>`, `<users t="list">`},
		{"autoyast-config-type", AutoYaST, "  <general>", "  <software>§<x t=\"boolean\"/></software>\n  <general>", "  <bootloader><global><secure_boot>true</secure_boot></global></bootloader>\n  <general>"},
		{"autoyast-confirm", AutoYaST, `<confirm config:type="boolean">false`, `§<confirm config:type="boolean">true`, `<confirm config:type="boolean">false`},
		{"agama-unknown-key", Agama, `"questions"`, `§"question": {}, "questions"`, `"bootloader": {}, "questions"`},
		{"agama-questions", Agama, `"questions": {"policy": "auto"}`, `§"questions": {"policy": "user"}`, `"questions": {"policy": "auto", "answers": []}`},
		{"ignition-version", Ignition, `"3.4.0"`, `§"2.3.0"`, `"3.5.0"`},
		{"ignition-unknown-key", Ignition, `"storage"`, `§"sytemd": {}, "storage"`, `"systemd": {}, "storage"`},
		{"ignition-unknown-key", Ignition, `"uid": 1000`, `§"sshKeys": []`, `"uid": 1001`},
		{"ignition-unknown-key", Butane, "storage:", "§sytemd: {}\nstorage:", "systemd: {}\nstorage:"},
		{"ignition-version", Butane, "version: 1.1.0", "version: §9.9.9", "version: 1.0.0"},
		{"talos-unknown-key", Talos, "    wipe: true", "    §wype: true\n    wipe: true", "    wipe: false"},
		{"talos-unknown-key", Talos, "{endpoint:", "{§endpont: x, endpoint:", "{endpoint:"},
		{"talos-illegal", Talos, "  type: worker", "  type: §master", "  type: worker\n  nodeLabels: {a: b}"},
		{"talos-illegal", Talos, "version: v1alpha1\nmachine:\n  type: worker\n  ca: {crt: LS0tLS1CRUdJTg==, key: \"\"}", "§version: v1alpha1\nmachine:\n  type: worker", "version: v1alpha1\nmachine:\n  type: worker\n  acceptedCAs: [{crt: LS0tLS1CRUdJTg==}]"},
		{"talos-wipe", Talos, "  install:\n    diskSelector: {wwid: naa.5002538e00000001}\n    image: ghcr.io/siderolabs/installer:v1.12.0\n    wipe: true", "  §install:\n    diskSelector: {wwid: naa.5002538e00000001}", "  install:\n    diskSelector: {wwid: naa.5002538e00000001}\n    wipe: false"},
		{"talos-static-token", Talos, "  type: worker", "  type: worker\n  token: §abcdef.0123456789abcdef", "  type: worker"},
		{"disk-selector-missing", Talos, "  install:\n    diskSelector: {wwid: naa.5002538e00000001}", "  §install:", "  install:\n    disk: /dev/disk/by-id/x"},
		{"disk-selector-loose", Talos, "{wwid: naa.5002538e00000001}", "§{size: 480GB}", "{serial: S1, size: 480GB}"},
		{"disk-selector-loose", Talos, "naa.5002538e00000001", "§naa.*", "eui.1"},
		{"disk-kernel-name", Talos, "diskSelector: {wwid: naa.5002538e00000001}", "disk: §/dev/sda", "disk: /dev/disk/by-id/x"},
		{"hostname-illegal", Talos, "node-a", "§Node_A", "node-b"},
		{"source-unpinned", Talos, "ghcr.io/siderolabs/installer:v1.12.0", "§ghcr.io/siderolabs/installer:latest", "ghcr.io/siderolabs/installer@sha256:" + sha256hex},
		{"key-twice", Talos, "    wipe: true", "    wipe: true\n    §wipe: false", "    wipe: false"},
		{"ignition-mode", Butane, "mode: 0644", "mode: §644", "mode: 0600"},
		{"ignition-illegal", Ignition, `"path": "/etc/hostname"`, `"path": §"etc/hostname"`, `"path": "/etc/hostname"`},
		{"ignition-illegal", Butane, "path: /etc/hostname", "path: §etc/hostname", "path: /etc/hostname"},
		{"butane-local", Butane, "contents: {inline: node-a}", "contents: {local: §node-a}", "contents: {inline: node-b}"},
		{"password-cleartext", Butane, "uid: 1000", "password: §hunter2", "uid: 1001"},
		{"password-hash-illegal", Butane, "uid: 1000", `password_hash: §"$6$cut"`, "uid: 1001"},
		{"source-checksum-missing", Ignition, `"path": "/etc/hostname"`, `"append": [{"source": §"https://m.example/k"}], "path": "/etc/hostname"`, `"append": [{"source": "data:,x"}], "path": "/etc/hostname"`},
		{"source-checksum-missing", Ignition, `"ignition": {`, `"ignition": {"security": {"tls": {"certificateAuthorities": [{"source": §"https://m.example/k"}]}}, `, `"ignition": {"security": {"tls": {"certificateAuthorities": [{"source": "data:,x"}]}}, `},
		{"source-checksum-missing", Butane, `"https://m.example/k", verification: {hash: sha256-` + sha256hex + `}`, `§"https://m.example/k"`, `"data:,x"`},
		{"disk-kernel-name", Butane, preDisk, "§/dev/sda", preDisk},
		{"disk-selector-missing", Shell, "echo go", "§flatcar-install -s -i x.ign", "flatcar-install -d /dev/disk/by-id/x -i x.ign"},
		{"source-unverified", Shell, "echo go", "§flatcar-install -d /dev/disk/by-id/x -f x.bin", "flatcar-install -d /dev/disk/by-id/x -V 4230.2.4"},
		{"ignition-mode", Ignition, `"mode": 420`, `"mode": §644`, `"mode": 384`},
	}
}

func cmdlinePairs() []pair {
	return []pair{
		{"cmdline-length", CommandLine, "autoinstall ", "autoinstall " + strings.Repeat("x", 2035) + "§ ", "autoinstall " + strings.Repeat("x", 1000) + " "},
		{"cmdline-autoinstall-missing", CommandLine, "autoinstall iso-url=http://m/u.iso cloud-config-url=/dev/null ds=", "iso-url=http://m/u.iso cloud-config-url=/dev/null ds=§", "ds="},
		{"cmdline-seed-slash", CommandLine, "ds=nocloud-net;s=http://p/h/", "ds=§nocloud-net;s=http://p/h", "ds=nocloud-net;h=x;s=http://p/"},
		{"cmdline-seed-local", CommandLine, "ds=nocloud-net;s=http://p/h/", "ds=§nocloud;s=http://p/h/", "ds=nocloud;s=/h/"},
		{"cmdline-seed-slash", IPXE, "ds=nocloud-net;s=http://p/h/", "ds=§nocloud-net;s=http://p/h", "ds=nocloud-net;s=http://p/h/"},
		{"cmdline-cloud-config-url", CommandLine, "iso-url=http://m/u.iso cloud-config-url=/dev/null", "url=§http://m/u.iso", "cloud-config-url=/dev/null url=http://m/u.iso"},
		{"cmdline-quote", IPXE, "ds=nocloud-net;s=http://p/h/", "§'ds=nocloud-net;s=http://p/h/'", "console=ttyS0"},
		{"cmdline-semicolon", GRUB, "'ds=nocloud-net;s=http://p/h/'", "ds=nocloud-net§;s=http://p/h/", "ds=nocloud-net\\;s=http://p/h/"},
		{"cmdline-seed-slash", GRUB, "'ds=nocloud-net;s=http://p/h/'", "'ds=§nocloud-net;s=http://p/h'", "\"ds=nocloud-net;s=http://p/h/\""},
		{"hostname-illegal", GRUB, "hostname=node-a", "hostname=§Node", "hostname=${name}"},
		{"cmdline-unexpanded", CommandLine, "hostname=node-a", "§BOOTIF=${mac}", "BOOTIF=01-aa"},
		{"cmdline-autoyast-slash", CommandLine, "hostname=node-a", "autoyast=§http://p/h/", "autoyast=http://p/h/autoinst.xml"},
		{"cmdline-ks-asks", CommandLine, "hostname=node-a", "inst.ks=§http://p/ks.cfg", "inst.ks=http://p/ks.cfg inst.cmdline"},
		{"cmdline-seed-guessable", IPXE, "nocloud-net;s=http://p/h/", "§nocloud-net;s=http://p/${uuid}/", "nocloud-net;s=http://p/${net0/mac}/Zm9vYmFyMTIzYmF6cXV1eDQ1/"},
		{"cmdline-seed-guessable", CommandLine, "autoinstall iso-url", "inst.cmdline inst.ks=§http://p/3c-ec-ef-12-34-56 autoinstall iso-url", "inst.cmdline inst.ks=http://p/site.ks autoinstall iso-url"},
		{"cmdline-seed-guessable", IPXE, "nocloud-net;s=http://p/h/", "§nocloud-net;s=http://10.0.0.1/kickstarts-for-rhel9-servers/${net0/mac}/", "nocloud-net;s=http://10.0.0.1/kickstarts-for-rhel9-servers/"},
		{"cmdline-seed-guessable", GRUB, "'ds=nocloud-net;s=http://p/h/'", "'ds=§nocloud-net;s=http://p/$net_default_mac/'", "'ds=nocloud-net;s=http://p/abcdefghijklmnopqrstuvwxyz234567/$net_default_mac/'"},
		{"cmdline-seed-guessable", GRUB, "'ds=nocloud-net;s=http://p/h/'", "'ds=§nocloud-net;s=http://p/6b0f3c01-52d1-4c8e-9a77-0242ac110001/'", "'ds=nocloud-net;s=http://p/h/'"},
	}
}
