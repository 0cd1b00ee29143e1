#!/bin/sh
# Bootlane first boot of node-a, run r-abc123: proves that this is
# the machine, the disk and the name that the inventory means, then reports.
# Every step may be repeated; a reboot at any point is harmless.
base='http://10.0.0.1:8080/run/abcdefghijklmnopqrstuvwxyz234567'
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
	if command -v curl >/dev/null 2>&1; then
		curl -fsS -m 20 -o /dev/null -d "$body" "$base/report"
	else
		once -O /dev/null --post-data="$body" "$base/report"
	fi
}

# report STAGE SEQ STATUS MESSAGE: tries for five minutes.
report() {
	echo "bootlane: $1 $3: $4"
	n=0
	until post "$@"; do
		n=$((n + 1))
		[ "$n" -lt 60 ] || return 1
		sleep 5
	done
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

want_host='node-a'

mkdir -p /var/lib/bootlane
exec 9>/var/lib/bootlane/lock
flock -n 9 || { echo "bootlane: another first boot runs"; exit 0; }

# root_disk: the whole disk under the root file system.
root_disk() {
	dev=$(findmnt -n -o SOURCE /)
	lsblk -n -r -s -o NAME,TYPE "$dev" | awk '$2 == "disk" { print $1 }' | sort -u
}

# clock: seconds between this machine's clock and the server's.
clock() {
	url=${base%%/run/*}/healthz
	there=$(if command -v curl >/dev/null 2>&1; then
		curl -fsSI -m 20 "$url"
	else
		once -S -O /dev/null "$url" 2>&1 # the headers, indented
	fi | tr -d '\r' | sed -n 's/^ *[Dd]ate: //p')
	[ -n "$there" ] || return 1 # date would take it for midnight
	there=$(date -d "$there" +%s) || return 1
	here=$(date +%s)
	off=$((here - there))
	echo "${off#-}"
}

# time_servers: those that the site names, for a system that keeps time by systemd.
time_servers() {
	command -v timedatectl >/dev/null 2>&1 || return 0
	mkdir -p /etc/systemd/timesyncd.conf.d
	printf '[Time]\nNTP=%s\n' '10.0.0.2 ntp.example.org' > /etc/systemd/timesyncd.conf.d/50-bootlane.conf
	systemctl try-restart systemd-timesyncd.service || true # another program may keep the time
}

checks() {
	bad=
	if ! why=$(identity); then bad="$bad identity:$why"; fi
	have=$(cat /proc/sys/kernel/hostname)
	[ "$have" = "$want_host" ] || bad="$bad hostname: expected $want_host, it is $have."
	disk=$(root_disk)
	if [ "$(echo "$disk" | wc -w)" != 1 ] || ! matches "$disk" || ! size_fits "$disk"; then
		bad="$bad disk: the root file system is on ${disk:-nothing}, not on $want_disk."
	fi
	id=$(cat /etc/machine-id 2>/dev/null)
	if [ "${#id}" != 32 ] || [ -n "$(printf '%s' "$id" | tr -d '0-9a-f')" ]; then
		bad="$bad machine-id: ${id:-missing}."
	fi
	if ! off=$(clock); then
		bad="$bad time: the server's clock cannot be read."
	elif [ "$off" -gt 5 ] && [ "$(timedatectl show -p NTPSynchronized --value 2>/dev/null)" != yes ]; then
		bad="$bad time: the clock is $off s off, and not synchronised."
	fi
	[ -z "$bad" ] || { echo "$bad"; return 1; }
	echo "identity $uuid, hostname $have, disk $disk, machine-id $id, clock $off s off"
}

[ -e /var/lib/bootlane/done ] && exit 0
time_servers
os=$(sed -n 's/^PRETTY_NAME="*\([^"]*\)"*$/\1/p' /etc/os-release)
report first-boot 1 ok "${os:-an unknown system}, kernel $(uname -r)" || exit 1
n=0
until result=$(checks); do
	n=$((n + 1))
	echo "bootlane: not ready:$result"
	if [ "$n" -ge 12 ]; then
		report ready 1 failed "first boot:$result"
		exit 0
	fi
	sleep 10
done
# GRUB reads the disk without its journal: after a power cut from here on, it must
# find what this boot changed, a grown file system first of all.
sync
report ready 1 ok "$result" || exit 1
echo "$result" > /var/lib/bootlane/done
