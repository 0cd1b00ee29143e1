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

# No swap partition: the kubelet refuses one. Where the boot loader goes depends on the firmware.
{
	echo "ignoredisk --only-use=$disk"
	echo 'zerombr'
	echo "clearpart --all --initlabel --disklabel=gpt --drives=$disk"
	echo "bootloader --location=mbr --boot-drive=$disk{{with .Site.KernelArgs}} --append=\"{{join .}}\"{{end}}"
	if [ -d /sys/firmware/efi ]; then
		echo "part /boot/efi --fstype=efi --size=600 --ondisk=$disk"
	else
		echo "part biosboot --fstype=biosboot --size=1 --ondisk=$disk"
	fi
	echo "part /boot --fstype=xfs --size=1024 --ondisk=$disk"
{{- if .LVM}}
	echo "part pv.01 --size=4096 --grow --ondisk=$disk"
	echo 'volgroup {{.Group}} pv.01'
{{- end}}
{{- range .Volumes}}
{{- if $.LVM}}
	echo 'logvol {{.Mount}} --vgname={{$.Group}} --name={{.Name}} --fstype=xfs {{if .GiB}}--size={{mul .GiB 1024}}{{else}}--size=4096 --grow{{end}}'
{{- else}}
	echo "part {{.Mount}} --fstype=xfs {{if .GiB}}--size={{mul .GiB 1024}}{{else}}--size=4096 --grow{{end}} --ondisk=$disk"
{{- end}}
{{- end}}
} > /tmp/bootlane-disk || refuse installer 2 "the disk cannot be told to the installer"
