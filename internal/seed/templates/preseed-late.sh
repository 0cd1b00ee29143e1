#!/bin/sh
# Bootlane completion for {{.Host.ID}}, run {{.Host.Run.ID}}: access, first boot, and the report that
# ends network installs.
{{template "common.sh" .}}

set -e
trap 'report disk-written 1 failed "late_command failed in the installer"; poweroff -f' EXIT

get() { wget -q -T 20 -O "$2" "$base/seed/$1"; }

{{with .Site -}}
install -d /target/etc/sudoers.d 2>/dev/null || mkdir -p /target/etc/sudoers.d
echo {{sq (printf "%s ALL=(ALL) NOPASSWD:ALL" .User)}} > /target/etc/sudoers.d/90-bootlane
chmod 0440 /target/etc/sudoers.d/90-bootlane
{{- if .SSHKeys}}
mkdir -p {{sq (printf "/target/home/%s/.ssh" .User)}}
{{- range .SSHKeys}}
echo {{sq .}} >> {{sq (printf "/target/home/%s/.ssh/authorized_keys" $.Site.User)}}
{{- end}}
chmod 0700 {{sq (printf "/target/home/%s/.ssh" .User)}}
chmod 0600 {{sq (printf "/target/home/%s/.ssh/authorized_keys" .User)}}
in-target chown -R {{sq (printf "%s:%s" .User .User)}} {{sq (printf "/home/%s/.ssh" .User)}}
{{- end}}
{{- end}}

mkdir -p /target/usr/local/lib/bootlane /target/etc/systemd/system/multi-user.target.wants
get firstboot.sh /target/usr/local/lib/bootlane/firstboot
chmod 0700 /target/usr/local/lib/bootlane/firstboot
get firstboot.service /target/etc/systemd/system/bootlane-firstboot.service
ln -sf /etc/systemd/system/bootlane-firstboot.service /target/etc/systemd/system/multi-user.target.wants/bootlane-firstboot.service

report disk-written 1 ok "Debian installed, first boot in place"
trap - EXIT
