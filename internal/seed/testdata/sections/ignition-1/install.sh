#!/bin/sh
# Bootlane installation of node-a, run r-abc123: the image of the release, whose signature
# flatcar-install verifies, onto the disk that the gate found, and the configuration that the new
# system reads at its first boot.
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

# get NAME FILE: a document of this run, into a file.
get() {
	if command -v curl >/dev/null 2>&1; then
		curl -fsS -m 20 --retry 5 -o "$2" "$base/seed/$1"
	else
		wget -q -T 20 -O "$2" "$base/seed/$1"
	fi
}

disk=$(cat /tmp/bootlane-disk) || refuse installer 2 "no gate has passed"
[ -n "$disk" ] || refuse installer 2 "no gate has passed"
umask 077
get config.ign /tmp/bootlane-config.ign || refuse installer 2 "the configuration cannot be fetched"

# What it writes is verified while it is written: an image that does not pass leaves a disk without
# its signatures behind, and a run that has failed.
if ! flatcar-install -d "/dev/$disk" -b 'http://mirror.example.org/flatcar/amd64-usr' -V '4230.2.4' -o '' -i /tmp/bootlane-config.ign > /tmp/bootlane-log 2>&1; then
	report disk-written 1 failed "flatcar-install failed: $(tail -n 5 /tmp/bootlane-log)"
	sleep 10
	poweroff -f
	exit 1
fi
sync

report disk-written 1 ok "Flatcar 4230.2.4 installed, its configuration in place" || { poweroff -f; exit 1; }
