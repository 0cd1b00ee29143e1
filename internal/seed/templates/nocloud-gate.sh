#!/bin/sh
# Bootlane gate for {{.Host.ID}}, run {{.Host.Run.ID}}: identity, then exactly one disk.
{{template "common.sh" .}}

refuse() {
	report "$1" "$2" failed "$3"
	echo "bootlane: $3. Powering off, nothing was written."
	sleep 10
	poweroff -f
	exit 1
}

why=$(identity) || refuse kernel 1 "identity gate:$why"
report kernel 1 ok "Ubuntu installer up, identity agrees: uuid $uuid, macs $macs" || refuse kernel 2 "the server does not answer"
found=
for name in $(all_disks); do
	matches "$name" && found="$found $name"
done
set -- $found
[ $# -eq 1 ] || refuse installer 1 "disk gate: $# disks match $want_disk:$found"
size_fits "$1" || refuse installer 1 "disk gate: the disk $1 has the wrong size: $(cat "/sys/block/$1/size") sectors"
report installer 1 ok "disk gate: $1 is $want_disk" || refuse installer 2 "the server does not answer"
sed -i "s#@DISK0@#/dev/$1#" /autoinstall.yaml
