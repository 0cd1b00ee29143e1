#!/bin/sh
# Bootlane gate for {{.Host.ID}}, run {{.Host.Run.ID}}: identity, then exactly one disk. Only a gate
# that has passed writes the commands that name a disk.
{{template "report.sh" .}}

{{template "refuse.sh" .}}

{{template "identity.sh" .}}

{{template "disk.sh" .}}

{{template "choose.sh" .}}

why=$(identity) || refuse kernel 1 "identity gate:$why"
report kernel 1 ok "Anaconda installer up, identity agrees: uuid $uuid, macs $macs" || refuse kernel 2 "the server does not answer"
choose
{{- template "key.sh" .}}
{{- if .Mirrored}}

# pair NUMBER SIZE: the members of one array, one on each disk.
pair() {
	echo "part raid.${1}1 $2 --ondisk=$disk"
	echo "part raid.${1}2 $2 --ondisk=$mirror"
}
{{- end}}

{{if .Encrypted}}encrypted="--encrypted --luks-version=luks2 --passphrase=$key"

{{end}}# No swap partition: the kubelet refuses one. Where the boot loader goes depends on the firmware.
{
	echo "ignoredisk --only-use=$disk{{if .Mirrored}},$mirror{{end}}"
	echo 'zerombr'
	echo "clearpart --all --initlabel --disklabel=gpt --drives=$disk{{if .Mirrored}},$mirror{{end}}"
	echo "bootloader --location=mbr --boot-drive=$disk{{with .BootArgs}} --append=\"{{join .}}\"{{end}}"
{{- if .Mirrored}}
	# Firmware reads the one half of the array as it would a partition: Anaconda puts its superblock at
	# the end, and adds a boot entry for either disk. By BIOS it installs GRUB on both.
	if [ -d /sys/firmware/efi ]; then
		pair 1 --size=600
		echo 'raid /boot/efi --device=boot_efi --level=RAID1 --fstype=efi raid.11 raid.12'
	else
		echo "part biosboot --fstype=biosboot --size=1 --ondisk=$disk"
		echo "part biosboot --fstype=biosboot --size=1 --ondisk=$mirror"
	fi
	pair 2 --size=1024
	echo 'raid /boot --device=boot --level=RAID1 --fstype=xfs raid.21 raid.22'
{{- if .LVM}}
	pair 3 '--size=4096 --grow'
	echo {{if .Encrypted}}"raid pv.01 --device=pv --level=RAID1 $encrypted raid.31 raid.32"{{else}}'raid pv.01 --device=pv --level=RAID1 raid.31 raid.32'{{end}}
{{- template "kickstart-group" .}}
{{- else}}
{{- range $n, $v := .Volumes}}
	pair {{add $n 3}} '{{if .GiB}}--size={{mul .GiB 1024}}{{else}}--size=4096 --grow{{end}}'
	echo 'raid {{.Mount}} --device={{.Name}} --level=RAID1 --fstype=xfs raid.{{add $n 3}}1 raid.{{add $n 3}}2'
{{- end}}
{{- end}}
{{- else}}
	if [ -d /sys/firmware/efi ]; then
		echo "part /boot/efi --fstype=efi --size=600 --ondisk=$disk"
	else
		echo "part biosboot --fstype=biosboot --size=1 --ondisk=$disk"
	fi
	echo "part /boot --fstype=xfs --size=1024 --ondisk=$disk"
{{- if .LVM}}
	echo "part pv.01 --size=4096 --grow --ondisk=$disk{{if .Encrypted}} $encrypted{{end}}"
{{- template "kickstart-group" .}}
{{- else}}
{{- range .Volumes}}
	echo "part {{.Mount}} --fstype=xfs {{if .GiB}}--size={{mul .GiB 1024}}{{else}}--size=4096 --grow{{end}} --ondisk=$disk"
{{- end}}
{{- end}}
{{- end}}
} > /tmp/bootlane-disk || refuse installer 2 "the disk cannot be told to the installer"
{{- define "kickstart-group"}}
	echo 'volgroup {{.Group}} pv.01'
{{- range .Volumes}}
	echo 'logvol {{.Mount}} --vgname={{$.Group}} --name={{.Name}} --fstype=xfs {{if .GiB}}--size={{mul .GiB 1024}}{{else}}--size=4096 --grow{{end}}'
{{- end}}
{{- end}}
