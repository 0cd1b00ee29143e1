#!/bin/sh
# Bootlane gate for {{.Host.ID}}, run {{.Host.Run.ID}}: identity, then exactly one disk. Only a gate
# that has passed writes the profile that names a disk.
{{template "report.sh" .}}

{{template "refuse.sh" .}}

{{template "identity.sh" .}}

{{template "disk.sh" .}}

{{template "choose.sh" .}}

why=$(identity) || refuse kernel 1 "identity gate:$why"
report kernel 1 ok "AutoYaST installer up, identity agrees: uuid $uuid, macs $macs" || refuse kernel 2 "the server does not answer"
choose
{{- template "keep-mirror.sh" .}}

other=UEFI
[ ! -d /sys/firmware/efi ] || other=BIOS
# Where AutoYaST finds a profile of this name, it begins with it anew.
sed "s#@DISK0@#/dev/$disk#{{if .Mirrored}}; s#@DISK1@#/dev/$mirror#{{end}}; /<!-- $other -->/d" /tmp/profile/autoinst.xml > /tmp/profile/modified.xml ||
	refuse installer 2 "the disk cannot be told to the installer"
grep -qF "<device>/dev/$disk</device>" /tmp/profile/modified.xml || refuse installer 2 "the disk cannot be told to the installer: the profile has no place for it"{{if .Mirrored}}
grep -qF "<device>/dev/$mirror</device>" /tmp/profile/modified.xml || refuse installer 2 "the mirror cannot be told to the installer: the profile has no place for it"{{end}}
