#!/bin/sh
# Bootlane first boot of {{.Host.ID}}, run {{.Host.Run.ID}}: proves that this is
# the machine, the disk and the name that the inventory means, brings about what
# the system needs, proves that too, then reports.
# Every step may be repeated; a reboot at any point is harmless.
#
#	firstboot		does that; its unit runs it at every boot until it is done
#	firstboot check		prints what the checks say now, and changes nothing
{{template "report.sh" .}}

{{template "identity.sh" .}}

{{template "disk.sh" .}}

state=/var/lib/bootlane
version={{sq .Host.Run.BundleName}}
run={{sq .Host.Run.ID}}
list=''{{if .NeedsAccount}} why_account=''{{end}}{{if .FromImage}} why_ssh=''{{end}}{{if .Scripts}} why_script=''{{end}}

{{template "steps.sh" .}}

{{template "account.sh" .}}

{{template "checks.sh" .}}

if [ "${1:-}" = check ]; then
	list=$(checks)
	printf '%s\n' "$list" | awk -F '\t' '{ printf "%-11s %-8s %s%s\n", $1, $2, $4, $2 == "failed" ? " (expected: " $3 ")" : "" }'
	[ -z "$(brief failed)" ]
	exit
fi

mkdir -p "$state/steps"
chmod 0700 "$state"
exec 9>/var/lib/bootlane/lock
flock -n 9 || { echo "bootlane: another first boot runs"; exit 0; }
[ -e /var/lib/bootlane/done ] && exit 0
if [ "$(cat "$state/failed" 2>/dev/null)" = "$run" ]; then
	echo "bootlane: the run $run has failed, and is closed: provision this machine again"
	exit 0
fi

# prepare: what can be brought about by itself, as often as it is needed.
prepare() {
{{- if .MakesAccount}}
	why_account=$(step account admitted account 2>&1) && why_account=''
{{- end}}
{{- if .FromImage}}
	why_ssh=$(step ssh ssh_serves host_keys 2>&1) && why_ssh=''
{{- end}}
{{- if .Site.Modules}}
	step modules modules_loaded load_modules
{{- end}}
{{- if .Site.Sysctls}}
	step sysctls sysctls_hold set_sysctls
{{- end}}
{{- if .NoSwap}}
	step swap swap_is swap_off
{{- end}}
	:
}

# await FUNCTION: has it make the list, until nothing in it has failed; for two minutes.
await() {
	n=0
	while :; do
		list=$("$1")
		bad=$(brief failed)
		[ -n "$bad" ] || return 0
		n=$((n + 1))
		echo "bootlane: not ready: $bad"
		[ "$n" -ge 12 ] && return 1
		sleep 10
	done
}

# settle: keeps the list, and has the last report carry it.
settle() {
	printf '%s\n' "$list" | keep "$state/checks" 0600
	checks=$(printf '%s\n' "$list" | sed 's/%/%25/g; s/+/%2B/g; s/&/%26/g; s/;/%3B/g; s/ /+/g; s/\t/%09/g' | awk '{ printf "%s%%0A", $0 }')
}

# refused: the server does not allow the report that was tried last.
refused() {
	if command -v curl >/dev/null 2>&1; then
		[ "$(curl -sS -m 20 -o /dev/null -w '%{http_code}' -d "$body" "$base/report" 2>/dev/null)" = 403 ]
	else
		once -S -O /dev/null --post-data="$body" "$base/report" 2>&1 | grep -q '^ *HTTP/[0-9.]* 403'
	fi
}

# tell STAGE SEQ STATUS MESSAGE: reports, or ends: for another try where nobody takes it, and for
# good where it is not allowed, for then the run is over.
tell() {
	report "$@" && return
	refused || exit 1
	echo "bootlane: the server does not take the report: the run $run is over"
	echo "$run" | keep "$state/failed" 0600
	exit 0
}

# give_up: the run fails, and nothing comes after it.
give_up() {
	settle
	tell ready 1 failed "first boot: $(brief failed)"
	echo "$run" | keep "$state/failed" 0600
	exit 0
}

unproven() {
	of_machine
	for name in account ssh modules sysctls cgroup swap runtime endpoint scripts; do skip "$name" 'the machine is not proven'; done
}

prepared() {
	prepare >&2 # into the journal, not into the list
	checks
}

# prove: all up to the report that the machine is ready.
prove() {
	os=$(sed -n 's/^PRETTY_NAME="*\([^"]*\)"*$/\1/p' /etc/os-release)
	tell first-boot 1 ok "${os:-an unknown system}, kernel $(uname -r)"
	step time-servers true time_servers
	await unproven || give_up
{{- if .Scripts}}
	prepare
	run_scripts || { list=$(checks); give_up; }
{{- end}}
	await prepared || give_up
	settle
	# GRUB reads the disk without its journal: after a power cut from here on, it must
	# find what this boot changed, a grown file system first of all.
	sync
	tell ready 1 ok "$(brief ok)"
	echo "$run" | keep "$state/ready" 0600
}

# What the server has heard is not proven again: a failure would be a repetition to it.
if [ "$(cat "$state/ready" 2>/dev/null)" = "$run" ]; then prepare; else prove; fi
{{- if .Host.Run.Cluster}}

{{template "join.sh" .}}
{{- end}}
echo "$run" | keep "$state/done" 0600
