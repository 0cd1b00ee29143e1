#!/bin/sh
# Bootlane completion for {{.Host.ID}}, run {{.Host.Run.ID}}: access, first boot, and the report that
# ends network installs.
{{template "report.sh" .}}

{{template "late.sh" .}}
{{- with .Site.KernelArgs}}

mkdir -p /target/etc/default/grub.d
# shellcheck disable=SC2016 # the dollar is for GRUB's own scripts
echo 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX {{join .}}"' > /target/etc/default/grub.d/90-bootlane.cfg
curtin in-target --target=/target -- update-grub
{{- end}}
{{- template "bind.sh" .}}
{{- .Section "late"}}

report disk-written 1 ok "Ubuntu installed, first boot in place"
trap - EXIT
