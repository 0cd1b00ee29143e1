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

# tell QUESTION ANSWER: it counts as seen. What debconf-set sets is asked for all the same, and what
# debconf-set-selections sets stands in a log.
cat > /tmp/bootlane-tell <<'END'
#!/bin/sh
set -e
export DEBIAN_FRONTEND=noninteractive
. /usr/share/debconf/confmodule
db_set "$1" "$2"
db_fset "$1" seen true
END
chmod 0700 /tmp/bootlane-tell
tell() { /tmp/bootlane-tell "$@" || refuse installer 2 "the installer takes no answer to $1"; }

tell partman-auto/disk "/dev/$disk{{if .Mirrored}} /dev/$mirror{{end}}"
tell grub-installer/bootdev "/dev/$disk{{if .Mirrored}} /dev/$mirror{{end}}"
{{- if .Encrypted}}
tell partman-crypto/passphrase "$key"
tell partman-crypto/passphrase-again "$key"
{{- end}}
