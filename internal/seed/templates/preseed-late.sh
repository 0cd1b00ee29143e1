#!/bin/sh
# Bootlane completion for {{.Host.ID}}, run {{.Host.Run.ID}}: access, first boot, and the report that
# ends network installs.
{{template "report.sh" .}}

{{template "late.sh" .}}
{{- template "keys.sh" .}}
{{- with .Site}}
{{- if .SSHKeys}}
in-target chown -R {{sq (printf "%s:%s" .User .User)}} "$home/.ssh"
{{- end}}
{{- end}}
{{- template "bind.sh" .}}
{{- template "second-esp.sh" .}}
{{- .Section "late"}}
{{- if .Host.Network.Interfaces}}

# It asks the name servers of each interface. From here on, nobody in here can ask one: it does not run.
apt-install systemd-resolved
in-target systemctl enable systemd-networkd systemd-resolved
{{- end}}

report disk-written 1 ok "Debian installed, first boot in place"
trap - EXIT
