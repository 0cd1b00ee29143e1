{{define "account.sh" -}}
# time_servers: those that the site names, for a system that keeps time by systemd, or as Debian's and
# Ubuntu's chrony do. Other installers have told theirs already.
time_servers() {
{{- if .Site.NTP}}
	if [ -d /etc/chrony/sources.d ]; then
		printf 'server %s iburst prefer\n'{{range .Site.NTP}} {{sq .}}{{end}} > /etc/chrony/sources.d/bootlane.sources
		chronyc reload sources >/dev/null 2>&1 || true # chronyd may be starting still, and reads them then
	fi
	command -v timedatectl >/dev/null 2>&1 || return 0
	mkdir -p /etc/systemd/timesyncd.conf.d
	printf '[Time]\nNTP=%s\n' {{sq (join .Site.NTP)}} > /etc/systemd/timesyncd.conf.d/50-bootlane.conf
	systemctl try-restart systemd-timesyncd.service || true # another program may keep the time
{{- else}}
	:
{{- end}}
}
{{- if .MakesAccount}}

# account: makes the site's administrator, as an installer would have.
account() {
	id -u {{sq .Site.User}} >/dev/null 2>&1 || useradd -m -s /bin/bash {{sq .Site.User}} || return 1
{{- if .Site.PasswordHash}}
	# shellcheck disable=SC2016 # the dollars are the hash's own
	usermod -p {{sq .Site.PasswordHash}} {{sq .Site.User}} || return 1
{{- end}}
	mkdir -p /etc/sudoers.d || return 1
	echo {{sq (printf "%s ALL=(ALL) NOPASSWD:ALL" .Site.User)}} > /etc/sudoers.d/90-bootlane || return 1
	chmod 0440 /etc/sudoers.d/90-bootlane || return 1
{{- if .Site.SSHKeys}}
	home=$(getent passwd {{sq .Site.User}} | cut -d: -f6)
	mkdir -p "$home/.ssh" || return 1
	cat > "$home/.ssh/authorized_keys" <<'END-OF-KEYS' || return 1
{{- range .Site.SSHKeys}}
{{.}}
{{- end}}
END-OF-KEYS
	chmod 0700 "$home/.ssh" && chmod 0600 "$home/.ssh/authorized_keys" && chown -R {{sq (printf "%s:" .Site.User)}} "$home/.ssh" || return 1
{{- end}}
}
{{- end}}
{{- if .FromImage}}

# host_keys: those of SSH, and a server that took them. An image is the same for all machines,
# and has no keys. A server that the image enables must run, or nobody gets in; one
# that it disables stays as it is.
host_keys() {
	[ -x /usr/sbin/sshd ] || return 0
	fresh=''
	if [ ! -e /etc/ssh/ssh_host_ed25519_key ]; then
		ssh-keygen -A >/dev/null || return 1
		fresh=1
	fi
	sshd_enabled || return 0
	if [ -n "$fresh" ] || ! sshd_runs; then
		# Without keys it failed five times within seconds, and systemd refuses a sixth try.
		systemctl reset-failed ssh.service sshd.service 2>/dev/null || true
		systemctl restart ssh.service 2>/dev/null || systemctl restart sshd.service 2>/dev/null || true # what counts is whether it runs
	fi
	sshd_runs || { echo "the SSH server is enabled, and does not run"; return 1; }
}

sshd_enabled() {
	for unit in ssh.service sshd.service ssh.socket sshd.socket; do # asked together, systemd may stop at the first it lacks
		! systemctl is-enabled --quiet "$unit" 2>/dev/null || return 0
	done
	return 1
}

sshd_runs() { systemctl is-active --quiet ssh.service sshd.service ssh.socket sshd.socket; }
{{- end}}
{{- end}}
