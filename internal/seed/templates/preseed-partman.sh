#!/bin/sh
# Bootlane disk gate for {{.Host.ID}}, run {{.Host.Run.ID}}: resolves the disk
# selector to exactly one disk, or ends the machine.
{{template "report.sh" .}}

{{template "refuse.sh" .}}

{{template "identity.sh" .}}

{{template "disk.sh" .}}

{{template "choose.sh" .}}

# The first gate may have been passed over: the installer only shows a hook that fails.
why=$(identity) || refuse installer 1 "identity gate:$why"
choose
{{- template "keep-mirror.sh" .}}
{{- template "key.sh" .}}

# The partitions. The installer's own recipes make a swap partition, which the
# kubelet refuses; and where the boot loader goes depends on the firmware.
{
	echo 'bootlane ::'
	if [ -d /sys/firmware/efi ]; then
		cat <<'END'
512 512 1024 free
	{{if .Mirrored}}$lvmignore{ } {{end}}$iflabel{ gpt } $reusemethod{ } method{ efi } format{ } .
END
	else
		cat <<'END'
1 1 1 free
	{{if .Mirrored}}$lvmignore{ } {{end}}$iflabel{ gpt } $reusemethod{ } method{ biosgrub } .
END
	fi
	cat <<'END'
{{- if .Mirrored}}
1024 1024 1024 raid
	$lvmignore{ } method{ raid } raidid{ boot } .
{{- if .LVM}}
4096 10000 -1 raid
	$lvmignore{ } method{ raid } raidid{ pv } .
{{- end}}
{{- range .Volumes}}
{{- if $.LVM}}
{{if .GiB}}{{mb .GiB}} {{mb .GiB}} {{mb .GiB}}{{else}}4096 10000 -1{{end}} ext4
	$defaultignore{ } $lvmok{ } method{ format } format{ } use_filesystem{ } filesystem{ ext4 } mountpoint{ {{.Mount}} } lv_name{ {{.Name}} } .
{{- else}}
{{if .GiB}}{{mb .GiB}} {{mb .GiB}} {{mb .GiB}}{{else}}4096 10000 -1{{end}} raid
	$lvmignore{ } method{ raid } raidid{ {{.Name}} } .
{{- end}}
{{- end}}
{{- else}}
1024 1024 1024 ext4
	method{ format } format{ } use_filesystem{ } filesystem{ ext4 } mountpoint{ /boot } .
{{- range .Volumes}}
{{if .GiB}}{{mb .GiB}} {{mb .GiB}} {{mb .GiB}}{{else}}4096 10000 -1{{end}} ext4
	{{if $.LVM}}$lvmok{ } {{end}}method{ format } format{ } use_filesystem{ } filesystem{ ext4 } mountpoint{ {{.Mount}} } {{if $.LVM}}lv_name{ {{.Name}} } {{end}}.
{{- end}}
{{- end}}
END
} > /tmp/bootlane-recipe || refuse installer 2 "the partition recipe cannot be written"

for question in partman-auto/disk grub-installer/bootdev; do
	debconf-set "$question" "/dev/$disk{{if .Mirrored}} /dev/$mirror{{end}}" || refuse installer 2 "the disk cannot be told to the installer"
done
{{- if .Encrypted}}
for question in partman-crypto/passphrase partman-crypto/passphrase-again; do
	debconf-set "$question" "$key" || refuse installer 2 "the passphrase cannot be told to the installer"
done
{{- end}}
