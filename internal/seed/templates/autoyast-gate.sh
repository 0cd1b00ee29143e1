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
{{- template "key.sh" .}}

other=UEFI
[ ! -d /sys/firmware/efi ] || other=BIOS
# Where AutoYaST finds a profile of this name, it begins with it anew.
{{if .Encrypted}}umask 077
{{end}}sed "s#@DISK0@#/dev/$disk#{{if .Mirrored}}; s#@DISK1@#/dev/$mirror#{{end}}{{if .Encrypted}}; s#@KEY@#$key#{{end}}; /<!-- $other -->/d" /tmp/profile/autoinst.xml > /tmp/profile/modified.xml ||
	refuse installer 2 "the disk cannot be told to the installer"
grep -qF "<device>/dev/$disk</device>" /tmp/profile/modified.xml || refuse installer 2 "the disk cannot be told to the installer: the profile has no place for it"{{if .Mirrored}}
grep -qF "<device>/dev/$mirror</device>" /tmp/profile/modified.xml || refuse installer 2 "the mirror cannot be told to the installer: the profile has no place for it"{{end}}{{if .Encrypted}}
grep -qF "<crypt_key>$key</crypt_key>" /tmp/profile/modified.xml || refuse installer 2 "the passphrase cannot be told to the installer: the profile has no place for it"{{end}}
