#!/bin/sh
# Bootlane completion for {{.Host.ID}}, run {{.Host.Run.ID}}, within the new system: access, first
# boot, and the report that ends network installs.
{{template "report.sh" .}}

# In here the program does nothing: it would ask a systemd that does not run.
poweroff() {
	echo o > /proc/sysrq-trigger
	sleep 60
}

{{template "late.sh" .}}
{{- if .Host.Network.Interfaces}}

sed -i 's#^\(NETCONFIG_DNS_STATIC_SERVERS\)=.*#\1="{{join .NameServers}}"#; s#^\(NETCONFIG_DNS_STATIC_SEARCHLIST\)=.*#\1="{{join .SearchDomains}}"#' /etc/sysconfig/network/config
{{- end}}

# The medium's address is this run's, and opens nothing any more.
for repo in /etc/zypp/repos.d/*.repo; do
	if grep -qF "$base" "$repo" 2>/dev/null; then rm -f "$repo"; fi
done
{{- template "second-esp.sh" .}}
{{- template "bind.sh" .}}
{{- .Section "late"}}

report disk-written 1 ok "{{.Bundle.OS}} {{.Bundle.Release}} installed, first boot in place"
trap - EXIT
