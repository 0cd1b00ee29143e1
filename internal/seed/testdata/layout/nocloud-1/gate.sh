#!/bin/sh
# Bootlane gate for node-a, run r-abc123: identity, then exactly one disk.
base='http://10.0.0.1:8080/run/abcdefghijklmnopqrstuvwxyz234567'
checks='' # that the report ready carries, as the value of a form
want_macs='52:54:00:00:00:a1 52:54:00:00:00:a2'

uuid=$(sed 'y/ABCDEF/abcdef/' /sys/class/dmi/id/product_uuid 2>/dev/null)
serial=$(sed 's/^ *//; s/ *$//' /sys/class/dmi/id/product_serial 2>/dev/null)
macs=$(cat /sys/class/net/*/address 2>/dev/null | grep -v '^00:00:00:00:00:00$' | tr '\n' ' ')
mac=${macs%% *}
for m in $want_macs; do
	case " $macs" in *" $m "*) mac=$m ;; esac
done

# form TEXT: TEXT as the value of a form, at most 500 bytes of it. A serial number
# must arrive as it is: the server compares it.
form() { printf '%s' "$1" | tr '\n' ' ' | cut -c 1-500 | sed 's/%/%25/g; s/+/%2B/g; s/&/%26/g; s/;/%3B/g; s/ /+/g'; }

# once ARG...: wget, one try of 20 seconds. GNU's would try 20 times, and Debian's busybox
# dies of -T; the Debian installer has GNU's, and no timeout.
once() {
	if command -v timeout >/dev/null 2>&1; then
		timeout 20 wget -q -t 1 "$@"
	else
		wget -q -t 1 -T 20 "$@"
	fi
}

# post STAGE SEQ STATUS MESSAGE: one try.
post() {
	body="stage=$1&seq=$2&status=$3&message=$(form "$4")&uuid=$uuid&mac=$mac&serial=$(form "$serial")"
	[ "$1" != ready ] || body="$body&checks=$checks"
	if command -v curl >/dev/null 2>&1; then
		curl -fsS -m 20 -o /dev/null -d "$body" "$base/report"
	else
		once -O /dev/null --post-data="$body" "$base/report"
	fi
}

# report STAGE SEQ STATUS MESSAGE: tries sixty times, for five minutes where refusals come at once.
report() {
	echo "bootlane: $1 $3: $4"
	n=0
	until post "$@"; do
		n=$((n + 1))
		[ "$n" -lt 60 ] || return 1
		sleep 5
	done
}

# refuse STAGE SEQ MESSAGE: reports, and ends the machine. It does not return.
refuse() {
	report "$1" "$2" failed "$3"
	echo "bootlane: $3. Powering off, nothing was written."
	sleep 10
	poweroff -f
	exit 1
}

want_uuids='4c4c4544-0042-3510-8051-b4c04f4d3732 44454c4c-4200-1035-8051-b4c04f4d3732'
want_serial='SN-A 1'

# identity: prints every contradiction, and fails when there is one.
identity() {
	bad=
	if [ -n "$want_uuids" ]; then
		case " $want_uuids " in
		*" $uuid "*) ;;
		*) bad="$bad uuid: expected ${want_uuids%% *}, this machine has ${uuid:-none}." ;;
		esac
	fi
	case " $want_macs " in
	"  " | *" $mac "*) ;;
	*) bad="$bad mac: expected one of $want_macs, this machine has ${macs:-none}." ;;
	esac
	[ -z "$want_serial" ] || [ "$want_serial" = "$serial" ] || bad="$bad serial: expected $want_serial, this machine has ${serial:-none}."
	[ -z "$bad" ] || { echo "$bad"; return 1; }
}

want_disk='byID=wwn-0x5002538e00000001 byPath=pci-0000:00:17.0-ata-1 wwn=0x5002538e00000001 serial=S1 sizeGB=480'

# matches NAME: the whole disk NAME is the one that the inventory selects.
matches() {
	[ "$(readlink -f '/dev/disk/by-id/wwn-0x5002538e00000001')" = "/dev/$1" ] || return 1
	[ "$(readlink -f '/dev/disk/by-path/pci-0000:00:17.0-ata-1')" = "/dev/$1" ] || return 1
	w=$(cat "/sys/block/$1/wwid" "/sys/block/$1/device/wwid" 2>/dev/null | head -n 1 | sed 's/^naa\./0x/')
	[ "$w" = '0x5002538e00000001' ] || return 1
	# The serial number is what the disk calls itself: in sysfs, in udev's ID_SCSI_SERIAL
	# (page 0x80), or in ID_SERIAL_SHORT, which is the WWN of a SAS disk. One must be equal.
	{
		cat "/sys/block/$1/serial" "/sys/block/$1/device/serial"
		echo # virtio ends its number without one
		udevadm info -q property -n "/dev/$1" | sed -n 's/^ID_SCSI_SERIAL=//p; s/^ID_SERIAL_SHORT=//p'
	} 2>/dev/null | sed 's/^ *//; s/ *$//' | grep -qxF -e 'S1' || return 1
}

# size_fits NAME: the disk has the expected size, within 1 %.
size_fits() {
	sectors=$(cat "/sys/block/$1/size")
	[ "$sectors" -ge 928125000 ] && [ "$sectors" -le 946875000 ]
}

# all_disks: the names of all whole disks. The pattern is the agent's: NVMe's hidden path
# nodes (nvme0c0n1) and an eMMC's boot partitions carry the wwid and serial of their disk.
all_disks() {
	for d in /sys/block/*; do
		echo "${d##*/}"
	done | grep -xE 'sd[a-z]+|vd[a-z]+|xvd[a-z]+|nvme[0-9]+n[0-9]+|mmcblk[0-9]+'
}

# flag NAME FILE: the disk's sysfs FILE says 1.
flag() { [ "$(cat "/sys/block/$1/$2" 2>/dev/null)" = 1 ]; }

# property NAME KEY: what udev knows of a device.
property() { udevadm info -q property -n "/dev/$1" 2>/dev/null | sed -n "s/^$2=//p"; }

# upon NAME: the block device NAME, its partitions, and whatever is built on one of them.
# The parentheses make the variables local.
upon() (
	for part in "/sys/block/$1" "/sys/block/$1/$1"*; do
		[ -d "$part" ] || continue
		echo "${part##*/}"
		for holder in "$part"/holders/*; do
			[ ! -e "$holder" ] || upon "${holder##*/}"
		done
	done
)

# shared: what else, on other disks, belongs to an array or a volume group of what is granted. The
# installers assemble such a thing, and take it apart to the last member: whoever grants a
# disk has not granted those.
shared() {
	ours=" $(for name in $granted; do upon "$name"; done | sort -u | tr '\n' ' ')" theirs=''
	for other in /sys/block/*; do
		other=${other##*/}
		case $ours in *" $other "*) continue ;; esac
		for name in $(upon "$other"); do
			case $ours in *" $name "*) echo "$other" ;; *) theirs="$theirs $name" ;; esac
		done
	done
	for name in $ours; do
		kind=$(property "$name" ID_FS_TYPE)
		case $kind in
		LVM2_member) group "$name" ;;
		linux_raid_member) array ID_FS_UUID "$(property "$name" ID_FS_UUID)" ;;
		*_raid_member) array ID_FS_TYPE "$kind" ;; # the firmware's; udev knows no id of it
		esac
	done
}

# array KEY VALUE: the devices of other disks that udev says this of.
array() {
	for member in $theirs; do
		[ "$(property "$member" "$1")" != "$2" ] || echo "$member"
	done
}

# text_of NAME: what the physical volume NAME tells of its group, in one word a line.
# The text lists every member; older ones may stand beside it, and list what has left.
text_of() {
	{ dd if="/dev/$1" bs=65536 count=256 2>/dev/null || printf '\nunreadable\n'; } |
		tr -cs ' -~\n' '?' | sed -n 's/^[?]*\(pv[0-9][0-9]* {\)/\1/p; s/^[?]*\(id = \)/\1/p; s/^\(unreadable\)$/\1/p' | sort -u
}

# group NAME: the other members of the group that the physical volume NAME is in: those
# that its text lists, and those whose text lists it. LVM lets a member have no text, or
# one that is out of date, as long as another has a good one. What cannot be told counts
# as shared: that refuses too much, never too little.
group() {
	text=$(text_of "$1")
	case $text in *unreadable*) echo "unknown ones ($1 cannot be read)" ;; esac
	id=$(property "$1" ID_FS_UUID)
	for member in $theirs; do
		[ "$(property "$member" ID_FS_TYPE)" = LVM2_member ] || continue
		other=$(text_of "$member")
		case $other in
		*"\"${id:-none}\""*) echo "$member" ;;
		*unreadable*) echo "$member (it cannot be read)" ;;
		*"pv0 {"*) ;;
		*) case $text in *"pv0 {"*) ;; *) echo "$member (neither tells its group)" ;; esac ;;
		esac
	done
	case $text in *"pv1 {"*) ;; *) return ;; esac
	listed=$(echo "$text" | grep -c '{')
	for member in $ours $theirs; do
		id=$(property "$member" ID_FS_UUID)
		case $text in *"\"${id:-none}\""*) ;; *) continue ;; esac
		listed=$((listed - 1))
		case $ours in *" $member "*) ;; *) echo "$member" ;; esac
	done
	[ "$listed" -le 0 ] || echo "a missing disk"
}

# pick MATCHES FITS SELECTOR: sets picked to the one disk that the inventory selects. The size narrows.
pick() {
	named='' fit=0 picked=''
	for name in $(all_disks); do
		"$1" "$name" || continue
		named="$named $name"
		"$2" "$name" || continue
		fit=$((fit + 1)) picked=$name
	done
	[ -n "$named" ] || refuse installer 1 "disk gate: no disk matches $3; seen: $(all_disks | tr '\n' ' ')"
	[ "$fit" -gt 0 ] || refuse installer 1 "disk gate: the disk$named has the wrong size for $3"
	[ "$fit" -eq 1 ] || refuse installer 1 "disk gate: $fit disks match $3:$named"
	! flag "$picked" ro || refuse installer 1 "disk gate: the disk $picked is read-only"
	! flag "$picked" removable || refuse installer 1 "disk gate: the disk $picked is removable media"
}

# choose: sets disk to the one disk that is granted.
choose() {
	pick matches size_fits "$want_disk"
	disk=$picked granted=$picked
	for program in dd grep sort tr udevadm; do
		command -v "$program" >/dev/null || refuse installer 1 "disk gate: without $program nobody can say what else is on the disk $disk"
	done
	others=$(shared | sort -u | tr '\n' ,)
	[ -z "$others" ] || refuse installer 1 "disk gate: the disk $granted shares an array or a volume group with other disks, and the installer would destroy it there too. Take it apart first (mdadm --zero-superblock on $granted, or vgreduce and pvremove), or wipe $granted on purpose (wipefs -a on its partitions, then on itself). The others: ${others%,}"
	report installer 1 ok "disk gate: $disk is $want_disk" || refuse installer 2 "the server does not answer"
}

why=$(identity) || refuse kernel 1 "identity gate:$why"
report kernel 1 ok "Ubuntu installer up, identity agrees: uuid $uuid, macs $macs" || refuse kernel 2 "the server does not answer"
choose

# The firmware that started the machine will start it again: GRUB goes into the EFI system partition, or into the disk.
uefi=false bios=true
[ ! -d /sys/firmware/efi ] || uefi=true bios=false
if ! sed -i "s#@DISK0@#/dev/$disk#; s#[\"']\{0,1\}@UEFI@[\"']\{0,1\}#$uefi#; s#[\"']\{0,1\}@BIOS@[\"']\{0,1\}#$bios#" /autoinstall.yaml || grep -qE '@(DISK[01]|UEFI|BIOS)@' /autoinstall.yaml; then
	refuse installer 2 "the disk cannot be told to the installer"
fi
