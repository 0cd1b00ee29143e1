#!/bin/sh
# Bootlane first boot of node-a, run r-abc123: proves that this is
# the machine, the disk and the name that the inventory means, brings about what
# the system needs, proves that too, then reports.
# Every step may be repeated; a reboot at any point is harmless.
#
#	firstboot		does that; its unit runs it at every boot until it is done
#	firstboot check		prints what the checks say now, and changes nothing
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

state=/var/lib/bootlane
version='debian-12-1'
run='r-abc123'
list=''

# keep FILE MODE: its input becomes FILE, whole or not at all.
keep() { (umask 077 && cat > "$1.new") && chmod "$2" "$1.new" && mv -f "$1.new" "$1"; }

# stamped NAME: the step was done by this version of the bundle.
stamped() { [ "$(cat "$state/steps/$1" 2>/dev/null)" = "$version" ]; }

# step NAME CHECK ACT: acts, unless that was done and the check still agrees.
step() {
	if stamped "$1" && "$2" >/dev/null 2>&1; then return 0; fi
	"$3" && echo "$version" | keep "$state/steps/$1" 0600
}

# time_servers: those that the site names, for a system that keeps time by systemd, or as Debian's and
# Ubuntu's chrony do. Other installers have told theirs already.
time_servers() {
	if [ -d /etc/chrony/sources.d ]; then
		printf 'server %s iburst prefer\n' '10.0.0.2' 'ntp.example.org' > /etc/chrony/sources.d/bootlane.sources
		chronyc reload sources >/dev/null 2>&1 || true # chronyd may be starting still, and reads them then
	fi
	command -v timedatectl >/dev/null 2>&1 || return 0
	mkdir -p /etc/systemd/timesyncd.conf.d
	printf '[Time]\nNTP=%s\n' '10.0.0.2 ntp.example.org' > /etc/systemd/timesyncd.conf.d/50-bootlane.conf
	systemctl try-restart systemd-timesyncd.service || true # another program may keep the time
}

# line TEXT: TEXT as a field of the list.
line() { printf '%s' "$1" | tr '\n\t' '  ' | cut -c 1-200; }

# check NAME EXPECTED FUNCTION: one line of the list. The function prints what there is, and
# fails when that is not what is expected.
check() {
	if is=$("$3" 2>&1); then verdict=ok; else verdict=failed; fi
	printf '%s\t%s\t%s\t%s\n' "$1" "$verdict" "$(line "$2")" "$(line "$is")"
}

# skip NAME WHY: a line for what is not looked at.
skip() { printf '%s\tskipped\t\t%s\n' "$1" "$2"; }

machine() {
	if identity >/dev/null; then
		echo "uuid ${uuid:-none}, serial ${serial:-none}, mac $mac"
	else
		echo "uuid ${uuid:-none}, serial ${serial:-none}, mac ${macs:-none}"
		return 1
	fi
}

# root_disk: the whole disk under the root file system.
root_disk() {
	dev=$(findmnt -n -o SOURCE /)
	lsblk -n -r -s -o NAME,TYPE "$dev" | awk '$2 == "disk" { print $1 }' | sort -u
}

root_on() {
	disk=$(root_disk)
	echo "${disk:-nothing}"
	[ "$(echo "$disk" | wc -w)" = 1 ] && matches "$disk" || return 1
	size_fits "$disk" || { echo "of another size"; return 1; }
}

machine_id() {
	id=$(cat /etc/machine-id 2>/dev/null)
	echo "${id:-missing}"
	[ "${#id}" = 32 ] && [ -z "$(printf '%s' "$id" | tr -d '0-9a-f')" ] || return 1
	! grep -qs ' /etc/machine-id ' /proc/self/mountinfo || { echo "in memory only"; return 1; }
}

want_host='node-a'

hostname_is() {
	running=$(cat /proc/sys/kernel/hostname)
	lasting=$(sed -n '/^[^#]/{p;q;}' /etc/hostname 2>/dev/null)
	echo "$running"
	[ "$lasting" = "$running" ] || echo "and ${lasting:-nothing} in /etc/hostname"
	[ "$running" = "$want_host" ] || return 1
	case $lasting in "$want_host" | "$want_host"'.example.org') ;; *) return 1 ;; esac
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
	there=$(date -d "$there" +%s 2>/dev/null || date -u -D '%a, %d %b %Y %T GMT' -d "$there" +%s) || return 1 # the second is busybox's
	here=$(date +%s)
	off=$((here - there))
	echo "${off#-}"
}

synchronised() {
	[ "$(timedatectl show -p NTPSynchronized --value 2>/dev/null)" = yes ] || chronyc tracking 2>/dev/null | grep -q '^Leap status *: *Normal'
}

clock_is() {
	off=$(clock 2>/dev/null) || { echo "the server's clock cannot be read"; return 1; }
	if synchronised; then
		echo "synchronised, $off s off"
	else
		echo "not synchronised, $off s off"
		return 1
	fi
}

want_address=''

addresses() {
	have=$(ip -o addr show scope global | awk '{ print $2 " " $4 }')
	echo "${have:-none}"
	if [ -n "$want_address" ]; then
		case $have in *" $want_address/"*) ;; *) return 1 ;; esac
	else
		[ -n "$have" ]
	fi
}

# container: what is encrypted under the root file system.
container() {
	lsblk -n -r -s -p -o NAME,FSTYPE "$(findmnt -n -o SOURCE /)" | awk '$2 == "crypto_LUKS" { print $1 }' | sort -u
}

encrypted() {
	dev=$(container)
	[ -n "$dev" ] || { echo "it is not encrypted"; return 1; }
	openers=$(cryptsetup luksDump "$dev" 2>/dev/null | sed -n 's/^ *[0-9]*: systemd-\([a-z0-9]*\)$/\1/p' | tr '\n' ' ')
	echo "$dev, opened by ${openers:-nobody }in $(cryptsetup luksDump "$dev" 2>/dev/null | grep -c '^ *[0-9]*: luks2') key slot(s)"
	case " $openers" in *" tpm2 "*) ;; *) return 1 ;; esac
}

# of_machine: whether this is the machine, the disk and the name that are meant. Nothing is changed
# on any other.
of_machine() {
	check identity 'uuid 4c4c4544-0042-3510-8051-b4c04f4d3732, serial SN-A 1, mac 52:54:00:00:00:a1 or 52:54:00:00:00:a2' machine
	check disk "$want_disk" root_on
	check machine-id 'one of its own, kept on the disk' machine_id
	check hostname "$want_host" hostname_is
	check time synchronised clock_is
	if command -v ip >/dev/null 2>&1; then
		check network "${want_address:-an address}" addresses
	else
		skip network 'there is no ip(8) to ask'
	fi
}

# of_system: whether the system has what is asked of it.
of_system() {
	check encryption 'the TPM 2.0' encrypted
	skip modules 'none is asked for'
	skip sysctls 'none is asked for'
	skip cgroup 'not for Kubernetes'
	skip swap 'it is allowed'
	skip runtime 'none is asked for'
	skip endpoint 'no cluster is asked for'
}

checks() {
	of_machine
	of_system
}

# brief STATUS: the lines of $list that have it, as one.
brief() {
	printf '%s\n' "$list" | awk -F '\t' -v want="$1" '$2 == want && want == "ok" { printf "%s%s %s", between, $1, $4; between = ", " }
		$2 == want && want != "ok" { printf "%s%s: expected %s, it is %s", between, $1, $3, $4; between = "; " }'
}

if [ "${1:-}" = check ]; then
	list=$(checks)
	printf '%s\n' "$list" | awk -F '\t' '{ printf "%-11s %-8s %s%s\n", $1, $2, $4, $2 == "failed" ? " (expected: " $3 ")" : "" }'
	[ -z "$(brief failed)" ]
	exit
fi

mkdir -p "$state/steps"
chmod 0700 "$state"
exec 9>/var/lib/bootlane/lock
flock -n 9 || { echo "bootlane: another first boot runs"; exit 0; }
[ -e /var/lib/bootlane/done ] && exit 0
if [ "$(cat "$state/failed" 2>/dev/null)" = "$run" ]; then
	echo "bootlane: the run $run has failed, and is closed: provision this machine again"
	exit 0
fi

# prepare: what can be brought about by itself, as often as it is needed.
prepare() {
	:
}

# await FUNCTION: has it make the list, until nothing in it has failed; for two minutes.
await() {
	n=0
	while :; do
		list=$("$1")
		bad=$(brief failed)
		[ -n "$bad" ] || return 0
		n=$((n + 1))
		echo "bootlane: not ready: $bad"
		[ "$n" -ge 12 ] && return 1
		sleep 10
	done
}

# settle: keeps the list, and has the last report carry it.
settle() {
	printf '%s\n' "$list" | keep "$state/checks" 0600
	checks=$(printf '%s\n' "$list" | sed 's/%/%25/g; s/+/%2B/g; s/&/%26/g; s/;/%3B/g; s/ /+/g; s/\t/%09/g' | awk '{ printf "%s%%0A", $0 }')
}

# refused: the server does not allow the report that was tried last.
refused() {
	if command -v curl >/dev/null 2>&1; then
		[ "$(curl -sS -m 20 -o /dev/null -w '%{http_code}' -d "$body" "$base/report" 2>/dev/null)" = 403 ]
	else
		once -S -O /dev/null --post-data="$body" "$base/report" 2>&1 | grep -q '^ *HTTP/[0-9.]* 403'
	fi
}

# tell STAGE SEQ STATUS MESSAGE: reports, or ends: for another try where nobody takes it, and for
# good where it is not allowed, for then the run is over.
tell() {
	report "$@" && return
	refused || exit 1
	echo "bootlane: the server does not take the report: the run $run is over"
	echo "$run" | keep "$state/failed" 0600
	exit 0
}

# give_up: the run fails, and nothing comes after it.
give_up() {
	settle
	tell ready 1 failed "first boot: $(brief failed)"
	echo "$run" | keep "$state/failed" 0600
	exit 0
}

unproven() {
	of_machine
	for name in account ssh modules sysctls cgroup swap runtime endpoint scripts; do skip "$name" 'the machine is not proven'; done
}

prepared() {
	prepare >&2 # into the journal, not into the list
	checks
}

# prove: all up to the report that the machine is ready.
prove() {
	os=$(sed -n 's/^PRETTY_NAME="*\([^"]*\)"*$/\1/p' /etc/os-release)
	tell first-boot 1 ok "${os:-an unknown system}, kernel $(uname -r)"
	step time-servers true time_servers
	await unproven || give_up
	await prepared || give_up
	settle
	# GRUB reads the disk without its journal: after a power cut from here on, it must
	# find what this boot changed, a grown file system first of all.
	sync
	tell ready 1 ok "$(brief ok)"
	echo "$run" | keep "$state/ready" 0600
}

# What the server has heard is not proven again: a failure would be a repetition to it.
if [ "$(cat "$state/ready" 2>/dev/null)" = "$run" ]; then prepare; else prove; fi
echo "$run" | keep "$state/done" 0600
