{{define "checks.sh" -}}
# line TEXT: TEXT as a field of the list.
line() { printf '%s' "$1" | tr '\n\t' '  ' | cut -c 1-200; }

# check NAME EXPECTED FUNCTION: one line of the list. The function prints what there is, and
# fails when that is not what is expected.
check() {
	if is=$("$3" 2>&1); then verdict=ok; else verdict=failed; fi
	printf '%s\t%s\t%s\t%s\n' "$1" "$verdict" "$(line "$2")" "$(line "$is")"
}

# skip NAME WHY: a line for what is not looked at.
skip() { printf '%s\tskipped\t\t%s\n' "$1" "$2"; }

machine() {
	if identity >/dev/null; then
		echo "uuid ${uuid:-none}, serial ${serial:-none}, mac $mac"
	else
		echo "uuid ${uuid:-none}, serial ${serial:-none}, mac ${macs:-none}"
		return 1
	fi
}

# root_disk: the whole disk under the root file system.
root_disk() {
	dev=$(findmnt -n -o SOURCE /)
	lsblk -n -r -s -o NAME,TYPE "$dev" | awk '$2 == "disk" { print $1 }' | sort -u
}

{{if .Mirrored -}}
# root_on: the disks under the root file system are the two that were granted, and no array lacks one.
root_on() {
	disk=$(root_disk | tr '\n' ' ')
	echo "${disk:-nothing}"
	one='' second=''
	for name in $disk; do
		if matches "$name" && size_fits "$name"; then
			one=$name
		elif mirror_matches "$name" && mirror_fits "$name"; then
			second=$name
		else
			return 1
		fi
	done
	[ -n "$one" ] && [ -n "$second" ] || return 1
	for array in /sys/block/md*; do
		[ "$(cat "$array/md/degraded" 2>/dev/null)" = 0 ] || { echo "and ${array##*/} lacks a member"; return 1; }
	done
}
{{- else -}}
root_on() {
	disk=$(root_disk)
	echo "${disk:-nothing}"
	[ "$(echo "$disk" | wc -w)" = 1 ] && matches "$disk" || return 1
	size_fits "$disk" || { echo "of another size"; return 1; }
}
{{- end}}

machine_id() {
	id=$(cat /etc/machine-id 2>/dev/null)
	echo "${id:-missing}"
	[ "${#id}" = 32 ] && [ -z "$(printf '%s' "$id" | tr -d '0-9a-f')" ] || return 1
	! grep -qs ' /etc/machine-id ' /proc/self/mountinfo || { echo "in memory only"; return 1; }
}

want_host={{sq .Short}}

hostname_is() {
	running=$(cat /proc/sys/kernel/hostname)
	lasting=$(sed -n '/^[^#]/{p;q;}' /etc/hostname 2>/dev/null)
	echo "$running"
	[ "$lasting" = "$running" ] || echo "and ${lasting:-nothing} in /etc/hostname"
	[ "$running" = "$want_host" ] || return 1
	case $lasting in "$want_host"{{if .Domain}} | "$want_host"{{sq (printf ".%s" .Domain)}}{{end}}) ;; *) return 1 ;; esac
}

# clock: seconds between this machine's clock and the server's.
clock() {
	url=${base%%/run/*}/healthz
	there=$(if command -v curl >/dev/null 2>&1; then
		curl -fsSI -m 20 "$url"
	else
		once -S -O /dev/null "$url" 2>&1 # the headers, indented
	fi | tr -d '\r' | sed -n 's/^ *[Dd]ate: //p')
	[ -n "$there" ] || return 1 # date would take it for midnight
	there=$(date -d "$there" +%s 2>/dev/null || date -u -D '%a, %d %b %Y %T GMT' -d "$there" +%s) || return 1 # the second is busybox's
	here=$(date +%s)
	off=$((here - there))
	echo "${off#-}"
}

synchronised() {
	[ "$(timedatectl show -p NTPSynchronized --value 2>/dev/null)" = yes ] || chronyc tracking 2>/dev/null | grep -q '^Leap status *: *Normal'
}

clock_is() {
	off=$(clock 2>/dev/null) || { echo "the server's clock cannot be read"; return 1; }
	if synchronised; then
		echo "synchronised, $off s off"
	else
		echo "not synchronised, $off s off"
		{{if .Site.NTP}}return 1{{else}}[ "$off" -le 5 ]{{end}}
	fi
}

want_address={{sq .Address}}

addresses() {
	have=$(ip -o addr show scope global | awk '{ print $2 " " $4 }')
	echo "${have:-none}"
	if [ -n "$want_address" ]; then
		case $have in *" $want_address/"*) ;; *) return 1 ;; esac
	else
		[ -n "$have" ]
	fi
}
{{- if .Host.Network.Interfaces}}

# Each line is a KIND, an interface by its name or its MAC, and a VALUE.
want_network={{sq (lines .Expected)}}

# port NAME: what the kernel calls the interface of that name, or the NIC with that MAC. A member of a
# bond shows the bond's MAC, and its own apart.
port() {
	[ ! -d "/sys/class/net/$1" ] || { echo "$1"; return; }
	for p in /sys/class/net/*; do
		[ -e "$p/device" ] || continue
		own=$(cat "$p/bonding_slave/perm_hwaddr" "$p/address" 2>/dev/null | head -n 1)
		[ "$own" != "$1" ] || { echo "${p##*/}"; return; }
	done
}

# so_is KIND INTERFACE VALUE: whether one line is true.
so_is() {
	dev=$(port "$2")
	[ -n "$dev" ] || return 1
	case $1 in
	address)
		own=" $(ip -o addr show dev "$dev" scope global | awk '{ print $4 }' | tr '\n' ' ')"
		case $3 in
		any) [ "$own" != ' ' ] ;;
		*) case $own in *" $3 "*) ;; *) false ;; esac ;;
		esac
		;;
	gateway)
		case $3 in *:*) family=-6 ;; *) family=-4 ;; esac
		ip "$family" -o route show default dev "$dev" | grep -qF "via $3 "
		;;
	mtu) [ "$(cat "/sys/class/net/$dev/mtu")" = "$3" ] ;;
	mode) [ "$(cut -d ' ' -f 1 "/sys/class/net/$dev/bonding/mode")" = "$3" ] ;;
	member) case " $(cat "/sys/class/net/$dev/bonding/slaves") " in *" $(port "$3") "*) ;; *) false ;; esac ;;
	vlan) ip -o -d link show dev "$dev" | grep -q "vlan protocol 802.1Q id $3 " ;;
	esac
}

# network_is: the addresses, once every line is true; those that are not, until then.
network_is() {
	lacking=$(printf '%s\n' "$want_network" | while read -r kind of value; do
		so_is "$kind" "$of" "$value" 2>/dev/null || echo "no $kind $value on $of,"
	done)
	[ -z "$lacking" ] || { echo "$lacking"; addresses; return 1; }
	addresses
}
{{- end}}
{{- if .NeedsAccount}}

admitted() {
	[ -z "$why_account" ] || { echo "$why_account"; return 1; }
	id -u {{sq .Site.User}} >/dev/null 2>&1 || { echo "there is none"; return 1; }
	echo {{sq (printf "user %s" .Site.User)}}
}
{{- end}}
{{- if .FromImage}}

ssh_serves() {
	[ -z "$why_ssh" ] || { echo "$why_ssh"; return 1; }
	[ -x /usr/sbin/sshd ] || { echo "there is none"; return 0; }
	sshd_enabled || { echo "it is disabled"; return 0; }
	sshd_runs || { echo "it is enabled, and does not run"; return 1; }
	echo "it runs"
}
{{- end}}
{{- if .Encrypted}}

{{template "container.sh" .}}

encrypted() {
	dev=$(container)
	[ -n "$dev" ] || { echo "it is not encrypted"; return 1; }
{{- if .Clevis}}
	openers=$(clevis luks list -d "$dev" 2>/dev/null | sed -n 's/^[0-9]*: \([a-z0-9]*\) .*/\1/p' | tr '\n' ' ')
{{- else}}
	openers=$(cryptsetup luksDump "$dev" 2>/dev/null | sed -n 's/^ *[0-9]*: systemd-\([a-z0-9]*\)$/\1/p' | tr '\n' ' ')
{{- end}}
	echo "$dev, opened by ${openers:-nobody }in $(cryptsetup luksDump "$dev" 2>/dev/null | grep -c '^ *[0-9]*: luks2') key slot(s)"
	case " $openers" in *" {{.Pin}} "*) ;; *) return 1 ;; esac
}
{{- end}}
{{- if .Site.Volumes}}

want_volumes={{sq (join .Mounts)}}

mounted() {
	missing=''
	for mount in $want_volumes; do
		findmnt -n -o SOURCE "$mount" >/dev/null || missing="$missing $mount"
	done
	[ -z "$missing" ] || { echo "no file systems of their own:$missing"; return 1; }
	echo "$want_volumes"
}
{{- end}}
{{- if .Site.Modules}}

want_modules={{sq (join .Site.Modules)}}

# has_module NAME: the kernel has it loaded, or built in.
has_module() {
	[ ! -d "/sys/module/$(printf '%s' "$1" | tr - _)" ] || return 0
	grep -qs "/$(printf '%s' "$1" | sed 's/[-_]/[-_]/g')\.ko" "/lib/modules/$(uname -r)/modules.builtin"
}

modules_loaded() {
	missing=''
	for name in $want_modules; do
		has_module "$name" || missing="$missing $name"
	done
	[ -z "$missing" ] || { echo "missing:$missing"; return 1; }
	echo "$want_modules"
}
{{- end}}
{{- if .Site.Sysctls}}

want_sysctls={{sq (join .Site.Sysctls)}}

# sysctl_file KEY=VALUE: the file of the setting.
sysctl_file() { printf '/proc/sys/%s' "$(printf '%s' "${1%%=*}" | tr . /)"; }

sysctls_hold() {
	wrong=''
	for setting in $want_sysctls; do
		have=$(cat "$(sysctl_file "$setting")" 2>/dev/null)
		[ "$have" = "${setting#*=}" ] || wrong="$wrong ${setting%%=*}=${have:-missing}"
	done
	[ -z "$wrong" ] || { echo "${wrong# }"; return 1; }
	echo "$want_sysctls"
}
{{- end}}
{{- if .ForKubernetes}}

cgroup_is() {
	[ -e /sys/fs/cgroup/cgroup.controllers ] || { echo "version 1, or none"; return 1; }
	echo "version 2"
}
{{- end}}
{{- if .NoSwap}}

swap_is() {
	used=$(sed 1d /proc/swaps | cut -d ' ' -f 1)
	[ -z "$used" ] || { echo "$used"; return 1; }
	echo none
}
{{- end}}
{{- if .Containerd}}

# containerd_is: what it is told by its configuration counts as it read it, defaults included.
containerd_is() {
	systemctl is-active --quiet containerd.service 2>/dev/null || { echo "containerd.service is $(systemctl is-active containerd.service 2>/dev/null)"; return 1; }
	ctr --connect-timeout 5s version >/dev/null 2>&1 || { echo "it does not answer on its socket"; return 1; }
	config=$(containerd config dump 2>/dev/null) || { echo "it does not tell its configuration"; return 1; }
	wrong=''
	printf '%s\n' "$config" | grep -q 'SystemdCgroup *= *true' || wrong=" SystemdCgroup is not true."
	! printf '%s\n' "$config" | grep -q '^ *disabled_plugins *=.*cri"' || wrong="$wrong The CRI plugin is disabled."
	[ -z "$wrong" ] || { echo "it runs.$wrong"; return 1; }
	echo "containerd runs and answers"
}
{{- end}}
{{- if .Endpoint.Address}}

endpoint={{sq .Endpoint.Address}}

# endpoint_is: a server of the pinned authority answers TLS there. What it says then does not matter.
endpoint_is() {
	ca=$(mktemp) || return 1
	cat > "$ca" <<'END-OF-CA'
{{.Endpoint.CA}}
END-OF-CA
	if command -v curl >/dev/null 2>&1; then
		curl -sS -m 20 --noproxy '*' -o /dev/null --cacert "$ca" "https://$endpoint/"
	else
		openssl s_client -connect "$endpoint" -CAfile "$ca" -verify_return_error {{.EndpointName}} < /dev/null >/dev/null 2>&1 || { echo "it does not answer, or not with a certificate of the pinned authority"; false; }
	fi
	answer=$?
	rm -f "$ca"
	[ "$answer" = 0 ] || return 1
	echo "$endpoint answers, of the pinned authority"
}
{{- end}}
{{- if .Scripts}}

want_scripts={{sq .ScriptNames}}

scripts_done() {
	for name in $want_scripts; do
		stamped "script-$name" || { echo "${why_script:-$name has not succeeded yet}"; return 1; }
		echo "$name"
	done
}
{{- end}}

# of_machine: whether this is the machine, the disk and the name that are meant. Nothing is changed
# on any other.
of_machine() {
	check identity {{sq .WantIdentity}} machine
	check disk "$want_disk{{if .Mirrored}}, mirrored on $want_mirror{{end}}" root_on
	check machine-id 'one of its own, kept on the disk' machine_id
	check hostname "$want_host" hostname_is
	check time {{if .Site.NTP}}synchronised{{else}}'synchronised, or at most 5 s off the clock of the server'{{end}} clock_is
	if command -v ip >/dev/null 2>&1; then
		{{if .Host.Network.Interfaces}}check network "$want_network" network_is{{else}}check network "${want_address:-an address}" addresses{{end}}
	else
		skip network 'there is no ip(8) to ask'
	fi
}

# of_system: whether the system has what is asked of it.
of_system() {
{{- if .NeedsAccount}}
	check account {{sq (printf "user %s" .Site.User)}} admitted
{{- end}}
{{- if .FromImage}}
	check ssh 'it runs, if it is enabled' ssh_serves
{{- end}}
{{- if .Encrypted}}
	check encryption {{sq .Opener}} encrypted
{{- end}}
{{- if .Site.Volumes}}
	check volumes "$want_volumes" mounted
{{- end}}
	{{if .Site.Modules}}check modules "$want_modules" modules_loaded{{else}}skip modules 'none is asked for'{{end}}
	{{if .Site.Sysctls}}check sysctls "$want_sysctls" sysctls_hold{{else}}skip sysctls 'none is asked for'{{end}}
	{{if .ForKubernetes}}check cgroup 'version 2' cgroup_is{{else}}skip cgroup 'not for Kubernetes'{{end}}
	{{if .NoSwap}}check swap none swap_is{{else}}skip swap 'it is allowed'{{end}}
	{{if .Containerd}}check runtime 'containerd runs and answers, SystemdCgroup = true, CRI plugin on' containerd_is{{else}}skip runtime 'none is asked for'{{end}}
	{{if .Endpoint.Address}}check endpoint "$endpoint answers, of the pinned authority" endpoint_is{{else}}skip endpoint 'no cluster is asked for'{{end}}
{{- if .Scripts}}
	check scripts 'all have succeeded' scripts_done
{{- end}}
}

checks() {
	of_machine
	of_system
}

# brief STATUS: the lines of $list that have it, as one.
brief() {
	printf '%s\n' "$list" | awk -F '\t' -v want="$1" '$2 == want && want == "ok" { printf "%s%s %s", between, $1, $4; between = ", " }
		$2 == want && want != "ok" { printf "%s%s: expected %s, it is %s", between, $1, $3, $4; between = "; " }'
}
{{- end}}
