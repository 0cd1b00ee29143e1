#!/bin/sh
# Bootlane completion for {{.Host.ID}}, run {{.Host.Run.ID}}.
{{template "common.sh" .}}

set -e
trap 'report disk-written 1 failed "late-commands failed in the installer"; poweroff -f' EXIT
get() { wget -q -T 20 -O "$2" "$base/seed/$1"; }
mkdir -p /target/usr/local/lib/bootlane /target/etc/systemd/system/multi-user.target.wants
get firstboot.sh /target/usr/local/lib/bootlane/firstboot
chmod 0700 /target/usr/local/lib/bootlane/firstboot
get firstboot.service /target/etc/systemd/system/bootlane-firstboot.service
ln -sf /etc/systemd/system/bootlane-firstboot.service /target/etc/systemd/system/multi-user.target.wants/bootlane-firstboot.service
report disk-written 1 ok "Ubuntu installed, first boot in place"
trap - EXIT
