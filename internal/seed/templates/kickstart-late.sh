#!/bin/sh
# Bootlane completion for {{.Host.ID}}, run {{.Host.Run.ID}}: access, first boot, and the report that
# ends network installs.
{{template "report.sh" .}}

{{template "late.sh" .}}
{{- template "keys.sh" .}}

# SELinux lets systemd start what is labelled as a program; what lies in /usr/local/lib is a library to it.
chroot {{.Target}} chcon system_u:object_r:bin_t:s0 /usr/local/lib/bootlane/firstboot || echo "bootlane: first boot is not labelled as a program"
{{- if .Host.Network.Interfaces}}
chroot {{.Target}} restorecon -R /etc/NetworkManager /etc/systemd/network || echo "bootlane: the network's files are not labelled"
{{- end}}
{{- template "bind.sh" .}}
{{- .Section "late"}}

report disk-written 1 ok "{{.Bundle.OS}} {{.Bundle.Release}} installed, first boot in place"
trap - EXIT
