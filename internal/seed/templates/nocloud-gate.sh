#!/bin/sh
# Bootlane gate for {{.Host.ID}}, run {{.Host.Run.ID}}: identity, then exactly one disk.
{{template "report.sh" .}}

{{template "refuse.sh" .}}

{{template "identity.sh" .}}

{{template "disk.sh" .}}

{{template "choose.sh" .}}

why=$(identity) || refuse kernel 1 "identity gate:$why"
report kernel 1 ok "Ubuntu installer up, identity agrees: uuid $uuid, macs $macs" || refuse kernel 2 "the server does not answer"
choose
{{- template "key.sh" .}}

# The firmware that started the machine will start it again: GRUB goes into the EFI system partition, or into the disk.
uefi=false bios=true
[ ! -d /sys/firmware/efi ] || uefi=true bios=false
if ! sed -i "s#@DISK0@#/dev/$disk#{{if .Mirrored}}; s#@DISK1@#/dev/$mirror#{{end}}; s#[\"']\{0,1\}@UEFI@[\"']\{0,1\}#$uefi#; s#[\"']\{0,1\}@BIOS@[\"']\{0,1\}#$bios#" /autoinstall.yaml || grep -qE '@(DISK[01]|UEFI|BIOS)@' /autoinstall.yaml; then
	refuse installer 2 "the disk cannot be told to the installer"
fi
