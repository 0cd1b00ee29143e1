#!/bin/sh
# Bootlane first boot of {{.Host.ID}}, run {{.Host.Run.ID}}: proves that this is
# the machine, the disk and the name that the inventory means, then reports.
# Every step may be repeated; a reboot at any point is harmless.
{{template "report.sh" .}}

{{template "identity.sh" .}}

{{template "disk.sh" .}}

want_host={{sq .Short}}

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

{{template "account.sh" .}}

checks() {
	bad=
{{- if .NeedsAccount}}
	if ! why=$(account 2>&1); then bad="$bad account: $why."; fi
{{- end}}
{{- if .FromImage}}
	if ! why=$(host_keys 2>&1); then bad="$bad ssh: $why."; fi
{{- end}}
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
	echo "identity $uuid, hostname $have, disk $disk, machine-id $id, clock $off s off{{if .NeedsAccount}}, user {{.Site.User}}{{end}}"
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
{{- if .Scripts}}

# script NAME BASE64: runs a script of the bundle, until it has succeeded once.
script() {
	file=/var/lib/bootlane/scripts/$1
	[ -e "$file.done" ] && return 0
	mkdir -p /var/lib/bootlane/scripts
	printf '%s' "$2" | base64 -d > "$file" && chmod 700 "$file" || return 1
	echo "bootlane: first-boot script $1"
	"$file" < /dev/null 9>&- && : > "$file.done"
}
{{- range .Scripts}}
script {{sq .Name}} {{sq .Encoded}} || { report ready 1 failed "first boot: the bundle's script {{.Name}} failed, exit code $?"; exit 0; }
{{- end}}
{{- end}}
# GRUB reads the disk without its journal: after a power cut from here on, it must
# find what this boot changed, a grown file system first of all.
sync
report ready 1 ok "$result" || exit 1
{{- if .Host.Run.Cluster}}

{{template "join.sh" .}}
{{- end}}
echo "$result" > /var/lib/bootlane/done
