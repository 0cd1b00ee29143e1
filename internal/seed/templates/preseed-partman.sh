#!/bin/sh
# Bootlane disk gate for {{.Host.ID}}, run {{.Host.Run.ID}}: resolves the disk
# selector to exactly one disk, or ends the machine.
{{template "common.sh" .}}

refuse() {
	report installer 1 failed "disk gate: $1"
	echo "bootlane: $1. Powering off, nothing was written."
	sleep 10
	poweroff -f
	exit 1
}

found=
for name in $(all_disks); do
	matches "$name" && found="$found $name"
done
set -- $found
[ $# -gt 0 ] || refuse "no disk matches $want_disk; seen: $(all_disks | tr '\n' ' ')"
[ $# -eq 1 ] || refuse "$# disks match $want_disk: $found"
size_fits "$1" || refuse "the disk $1 has the wrong size: $(cat "/sys/block/$1/size") sectors"
report installer 1 ok "disk gate: $1 is $want_disk" || refuse "the server does not answer"
debconf-set partman-auto/disk "/dev/$1"
debconf-set grub-installer/bootdev "/dev/$1"
