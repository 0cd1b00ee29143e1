#!/bin/sh
# Bootlane installation of {{.Host.ID}}, run {{.Host.Run.ID}}: the image of the release, whose signature
# flatcar-install verifies, onto the disk that the gate found, and the configuration that the new
# system reads at its first boot.
{{template "report.sh" .}}

{{template "refuse.sh" .}}

{{template "get.sh" .}}

disk=$(cat /tmp/bootlane-disk) || refuse installer 2 "no gate has passed"
[ -n "$disk" ] || refuse installer 2 "no gate has passed"
umask 077
get config.ign /tmp/bootlane-config.ign || refuse installer 2 "the configuration cannot be fetched"

# What it writes is verified while it is written: an image that does not pass leaves a disk without
# its signatures behind, and a run that has failed.
if ! {{with .Site.Proxy}}http_proxy={{sq .}} {{end}}flatcar-install -d "/dev/$disk" -b {{sq .Bundle.Mirror}} -V {{sq .Bundle.Release}} -o '' -i /tmp/bootlane-config.ign > /tmp/bootlane-log 2>&1; then
	report disk-written 1 failed "flatcar-install failed: $(tail -n 5 /tmp/bootlane-log)"
	sleep 10
	poweroff -f
	exit 1
fi
sync

report disk-written 1 ok "Flatcar {{.Bundle.Release}} installed, its configuration in place" || { poweroff -f; exit 1; }
