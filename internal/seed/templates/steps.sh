{{define "steps.sh" -}}
# keep FILE MODE: its input becomes FILE, whole or not at all.
keep() { (umask 077 && cat > "$1.new") && chmod "$2" "$1.new" && mv -f "$1.new" "$1"; }

# stamped NAME: the step was done by this version of the bundle.
stamped() { [ "$(cat "$state/steps/$1" 2>/dev/null)" = "$version" ]; }

# step NAME CHECK ACT: acts, unless that was done and the check still agrees.
step() {
	if stamped "$1" && "$2" >/dev/null 2>&1; then return 0; fi
	"$3" && echo "$version" | keep "$state/steps/$1" 0600
}
{{- if .Site.Modules}}

load_modules() {
	mkdir -p /etc/modules-load.d
	printf '%s\n' "$want_modules" | tr ' ' '\n' | keep /etc/modules-load.d/bootlane.conf 0644 || return 1
	for name in $want_modules; do
		has_module "$name" || modprobe "$name"
	done
	modules_loaded >/dev/null
}
{{- end}}
{{- if .Site.Sysctls}}

set_sysctls() {
	mkdir -p /etc/sysctl.d
	printf '%s\n' "$want_sysctls" | tr ' ' '\n' | keep /etc/sysctl.d/90-bootlane.conf 0644 || return 1
	for setting in $want_sysctls; do
		{ printf '%s\n' "${setting#*=}" > "$(sysctl_file "$setting")"; } 2>/dev/null || echo "bootlane: cannot set $setting"
	done
	sysctls_hold >/dev/null
}
{{- end}}
{{- if .NoSwap}}

# swap_off: now, and for what brings it back at the next boot: fstab, units, zram.
swap_off() {
	[ ! -e /etc/fstab ] || sed -i '/^[^#].*[[:space:]]swap[[:space:]]/s/^/#/' /etc/fstab
	for unit in $(systemctl list-units --type=swap --plain --no-legend 2>/dev/null | cut -d ' ' -f 1); do
		systemctl mask "$unit"
	done
	[ ! -e /usr/lib/systemd/zram-generator.conf ] || : > /etc/systemd/zram-generator.conf
	swapoff -a
	swap_is >/dev/null
}
{{- end}}
{{- if .Scripts}}

# script NAME BASE64: runs a script of the bundle, until it has succeeded once.
script() {
	seq=$((seq + 1))
	! stamped "script-$1" || return 0
	file=$state/scripts/$1
	mkdir -p "$state/scripts"
	printf '%s' "$2" | base64 -d | keep "$file" 0700 || return 1
	report first-boot "$seq" progress "first-boot script $1" || exit 1 # that nobody hears it is not its failure
	"$file" < /dev/null 9>&- || return
	echo "$version" | keep "$state/steps/script-$1" 0600
}

# run_scripts: all of them, in their order, as far as they succeed.
run_scripts() {
	seq=1
{{- range .Scripts}}
	script {{sq .Name}} {{sq .Encoded}} || { why_script="{{.Name}} failed, exit code $?"; return 1; }
{{- end}}
}
{{- end}}
{{- end}}
