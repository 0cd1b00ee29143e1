#!/bin/sh
# Bootlane gate for {{.Host.ID}}, run {{.Host.Run.ID}}: identity, firmware, then exactly one disk.
{{template "report.sh" .}}

{{template "refuse.sh" .}}

{{template "identity.sh" .}}

{{template "disk.sh" .}}

{{template "choose.sh" .}}

why=$(identity) || refuse kernel 1 "identity gate:$why"
[ -d /sys/firmware/efi ] || refuse kernel 1 "firmware gate: the partitions of this seed boot by UEFI, and the machine was started by BIOS"
report kernel 1 ok "Ubuntu installer up, identity agrees: uuid $uuid, macs $macs" || refuse kernel 2 "the server does not answer"
choose
{{- template "key.sh" .}}
sed -i "s#@DISK0@#/dev/$disk#{{if .Mirrored}}; s#@DISK1@#/dev/$mirror#{{end}}" /autoinstall.yaml || refuse installer 2 "the disk cannot be told to the installer"
