#!/bin/sh
# Bootlane completion for {{.Host.ID}}, run {{.Host.Run.ID}}: access, first boot, and the report that
# ends network installs.
{{template "report.sh" .}}

{{template "late.sh" .}}
{{- with .Site}}
{{- if .SSHKeys}}

home={{sq (printf "/home/%s" .User)}}
mkdir -p "/target$home/.ssh"
cat > "/target$home/.ssh/authorized_keys" <<'END-OF-KEYS'
{{- range .SSHKeys}}
{{.}}
{{- end}}
END-OF-KEYS
chmod 0700 "/target$home/.ssh"
chmod 0600 "/target$home/.ssh/authorized_keys"
in-target chown -R {{sq (printf "%s:%s" .User .User)}} "$home/.ssh"
{{- end}}
{{- end}}

report disk-written 1 ok "Debian installed, first boot in place"
trap - EXIT
