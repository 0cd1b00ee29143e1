#!/bin/sh
# Bootlane completion for {{.Host.ID}}, run {{.Host.Run.ID}}: access, first boot, and the report that
# ends network installs.
{{template "report.sh" .}}

{{template "late.sh" .}}
{{- template "keys.sh" .}}
{{- with .Site}}
{{- if .SSHKeys}}
chroot {{$.Target}} chown -R {{sq (printf "%s:" .User)}} "$home/.ssh"
{{- end}}
{{- end}}
{{- with .Site.NTP}}

# Agama of release 16.0 knows no time servers.
mkdir -p {{$.Target}}/etc/chrony.d
cat > {{$.Target}}/etc/chrony.d/bootlane.conf <<'END-OF-SERVERS'
{{- range .}}
server {{.}} iburst
{{- end}}
END-OF-SERVERS
{{- end}}
chroot {{.Target}} systemctl enable chronyd sshd
{{- if .Host.Network.Interfaces}}
chroot {{.Target}} restorecon -R /etc/NetworkManager /etc/systemd/network || echo "bootlane: the network's files are not labelled"
{{- end}}
{{- template "bind.sh" .}}
{{- template "second-esp.sh" .}}
{{- .Section "late"}}

report disk-written 1 ok "{{.Bundle.OS}} {{.Bundle.Release}} installed, first boot in place"
trap - EXIT
