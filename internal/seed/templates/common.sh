{{define "report.sh" -}}
{{if .Site.Proxy -}}
# The proxy is for packages: the path to Bootlane is direct, and what opens the run stays with the machine.
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY
{{end -}}
base={{sq .Base}}
checks='' # that the report ready carries, as the value of a form
want_macs={{sq .MACs}}

uuid=$(sed 'y/ABCDEF/abcdef/' /sys/class/dmi/id/product_uuid 2>/dev/null)
serial=$(sed 's/^ *//; s/ *$//' /sys/class/dmi/id/product_serial 2>/dev/null)
macs=$(cat /sys/class/net/*/address 2>/dev/null | grep -v '^00:00:00:00:00:00$' | tr '\n' ' ')
mac=${macs%% *}
for m in $want_macs; do
	case " $macs" in *" $m "*) mac=$m ;; esac
done

# form TEXT: TEXT as the value of a form, at most 500 bytes of it. A serial number
# must arrive as it is: the server compares it.
form() { printf '%s' "$1" | tr '\n' ' ' | cut -c 1-500 | sed 's/%/%25/g; s/+/%2B/g; s/&/%26/g; s/;/%3B/g; s/ /+/g'; }

# once ARG...: wget, one try of 20 seconds. GNU's would try 20 times, and Debian's busybox
# dies of -T; the Debian installer has GNU's, and no timeout.
once() {
	if command -v timeout >/dev/null 2>&1; then
		timeout 20 wget -q -t 1 "$@"
	else
		wget -q -t 1 -T 20 "$@"
	fi
}

# post STAGE SEQ STATUS MESSAGE: one try.
post() {
	body="stage=$1&seq=$2&status=$3&message=$(form "$4")&uuid=$uuid&mac=$mac&serial=$(form "$serial")"
	[ "$1" != ready ] || body="$body&checks=$checks"
	if command -v curl >/dev/null 2>&1; then
		curl -fsS -m 20 -o /dev/null -d "$body" "$base/report"
	else
		once -O /dev/null --post-data="$body" "$base/report"
	fi
}

# report STAGE SEQ STATUS MESSAGE: tries sixty times, for five minutes where refusals come at once.
report() {
	echo "bootlane: $1 $3: $4"
	n=0
	until post "$@"; do
		n=$((n + 1))
		[ "$n" -lt 60 ] || return 1
		sleep 5
	done
}
{{- end}}

{{define "refuse.sh" -}}
# refuse STAGE SEQ MESSAGE: reports, and ends the machine. It does not return.
refuse() {
	report "$1" "$2" failed "$3"
	echo "bootlane: $3. Powering off, nothing was written."
	sleep 10
	poweroff -f
	exit 1
}
{{- end}}

{{define "identity.sh" -}}
want_uuids={{sq .UUIDs}}
want_serial={{sq .Serial}}

# identity: prints every contradiction, and fails when there is one.
identity() {
	bad=
	if [ -n "$want_uuids" ]; then
		case " $want_uuids " in
		*" $uuid "*) ;;
		*) bad="$bad uuid: expected ${want_uuids%% *}, this machine has ${uuid:-none}." ;;
		esac
	fi
	case " $want_macs " in
	"  " | *" $mac "*) ;;
	*) bad="$bad mac: expected one of $want_macs, this machine has ${macs:-none}." ;;
	esac
	[ -z "$want_serial" ] || [ "$want_serial" = "$serial" ] || bad="$bad serial: expected $want_serial, this machine has ${serial:-none}."
	[ -z "$bad" ] || { echo "$bad"; return 1; }
}
{{- end}}

{{define "disk.sh" -}}
want_disk={{sq .Host.Run.Disk}}

{{template "selector.sh" (selector "matches" "size_fits" .Host.Run.Disk)}}
{{- if .Mirrored}}

want_mirror={{sq .Host.Run.Mirror}}

{{template "selector.sh" (selector "mirror_matches" "mirror_fits" .Host.Run.Mirror)}}
{{- end}}
{{- end}}

{{define "selector.sh" -}}
{{with .Disk -}}
# {{$.Matches}} NAME: the whole disk NAME is the one that the inventory selects.
{{$.Matches}}() {
{{- if not .Selects}}
	return 1 # nothing is selected
{{- end}}
{{- if .ByID}}
	[ "$(readlink -f {{sq (printf "/dev/disk/by-id/%s" .ByID)}})" = "/dev/$1" ] || return 1
{{- end}}
{{- if .ByPath}}
	[ "$(readlink -f {{sq (printf "/dev/disk/by-path/%s" .ByPath)}})" = "/dev/$1" ] || return 1
{{- end}}
{{- if .WWN}}
	w=$(cat "/sys/block/$1/wwid" "/sys/block/$1/device/wwid" 2>/dev/null | head -n 1 | sed 's/^naa\./0x/')
	[ "$w" = {{sq .WWN}} ] || return 1
{{- end}}
{{- if .Serial}}
	# The serial number is what the disk calls itself: in sysfs, in udev's ID_SCSI_SERIAL
	# (page 0x80), or in ID_SERIAL_SHORT, which is the WWN of a SAS disk. One must be equal.
	{
		cat "/sys/block/$1/serial" "/sys/block/$1/device/serial"
		echo # virtio ends its number without one
		udevadm info -q property -n "/dev/$1" | sed -n 's/^ID_SCSI_SERIAL=//p; s/^ID_SERIAL_SHORT=//p'
	} 2>/dev/null | sed 's/^ *//; s/ *$//' | grep -qxF -e {{sq .Serial}} || return 1
{{- end}}
{{- if .Name}}
	[ "$1" = {{sq .Name}} ] || return 1
{{- end}}
{{- if .Model}}
	# sysfs cuts it to 16 characters, where udev writes _ for blanks.
	models=$({ cat "/sys/block/$1/device/model"; udevadm info -q property -n "/dev/$1" | sed -n 's/^ID_MODEL=//p'; } 2>/dev/null | sed 's/^ *//; s/ *$//; y/ /_/')
	case "
$models" in
	*"
"{{sq $.ModelStart}}*) ;;
	*) return 1 ;;
	esac
{{- end}}
}
{{- end}}

# {{$.Fits}} NAME: the disk has the expected size, within 1 %.
{{$.Fits}}() {
{{- with .Sectors}}
{{- if index . 1}}
	sectors=$(cat "/sys/block/$1/size")
	[ "$sectors" -ge {{index . 0}} ] && [ "$sectors" -le {{index . 1}} ]
{{- else}}
	[ -e "/sys/block/$1" ]
{{- end}}
{{- end}}
}
{{- end}}

{{define "choose.sh" -}}
# all_disks: the names of all whole disks. The pattern is the agent's: NVMe's hidden path
# nodes (nvme0c0n1) and an eMMC's boot partitions carry the wwid and serial of their disk.
all_disks() {
	for d in /sys/block/*; do
		echo "${d##*/}"
	done | grep -xE 'sd[a-z]+|vd[a-z]+|xvd[a-z]+|nvme[0-9]+n[0-9]+|mmcblk[0-9]+'
}

# flag NAME FILE: the disk's sysfs FILE says 1.
flag() { [ "$(cat "/sys/block/$1/$2" 2>/dev/null)" = 1 ]; }

# property NAME KEY: what udev knows of a device.
property() { udevadm info -q property -n "/dev/$1" 2>/dev/null | sed -n "s/^$2=//p"; }

# upon NAME: the block device NAME, its partitions, and whatever is built on one of them.
# The parentheses make the variables local.
upon() (
	for part in "/sys/block/$1" "/sys/block/$1/$1"*; do
		[ -d "$part" ] || continue
		echo "${part##*/}"
		for holder in "$part"/holders/*; do
			[ ! -e "$holder" ] || upon "${holder##*/}"
		done
	done
)

# shared: what else, on other disks, belongs to an array or a volume group of what is granted. The
# installers assemble such a thing, and take it apart to the last member: whoever grants a
# disk has not granted those.
shared() {
	ours=" $(for name in $granted; do upon "$name"; done | sort -u | tr '\n' ' ')" theirs=''
	for other in /sys/block/*; do
		other=${other##*/}
		case $ours in *" $other "*) continue ;; esac
		for name in $(upon "$other"); do
			case $ours in *" $name "*) echo "$other" ;; *) theirs="$theirs $name" ;; esac
		done
	done
	for name in $ours; do
		kind=$(property "$name" ID_FS_TYPE)
		case $kind in
		LVM2_member) group "$name" ;;
		linux_raid_member) array ID_FS_UUID "$(property "$name" ID_FS_UUID)" ;;
		*_raid_member) array ID_FS_TYPE "$kind" ;; # the firmware's; udev knows no id of it
		esac
	done
}

# array KEY VALUE: the devices of other disks that udev says this of.
array() {
	for member in $theirs; do
		[ "$(property "$member" "$1")" != "$2" ] || echo "$member"
	done
}

# text_of NAME: what the physical volume NAME tells of its group, in one word a line.
# The text lists every member; older ones may stand beside it, and list what has left.
text_of() {
	{ dd if="/dev/$1" bs=65536 count=256 2>/dev/null || printf '\nunreadable\n'; } |
		tr -cs ' -~\n' '?' | sed -n 's/^[?]*\(pv[0-9][0-9]* {\)/\1/p; s/^[?]*\(id = \)/\1/p; s/^\(unreadable\)$/\1/p' | sort -u
}

# group NAME: the other members of the group that the physical volume NAME is in: those
# that its text lists, and those whose text lists it. LVM lets a member have no text, or
# one that is out of date, as long as another has a good one. What cannot be told counts
# as shared: that refuses too much, never too little.
group() {
	text=$(text_of "$1")
	case $text in *unreadable*) echo "unknown ones ($1 cannot be read)" ;; esac
	id=$(property "$1" ID_FS_UUID)
	for member in $theirs; do
		[ "$(property "$member" ID_FS_TYPE)" = LVM2_member ] || continue
		other=$(text_of "$member")
		case $other in
		*"\"${id:-none}\""*) echo "$member" ;;
		*unreadable*) echo "$member (it cannot be read)" ;;
		*"pv0 {"*) ;;
		*) case $text in *"pv0 {"*) ;; *) echo "$member (neither tells its group)" ;; esac ;;
		esac
	done
	case $text in *"pv1 {"*) ;; *) return ;; esac
	listed=$(echo "$text" | grep -c '{')
	for member in $ours $theirs; do
		id=$(property "$member" ID_FS_UUID)
		case $text in *"\"${id:-none}\""*) ;; *) continue ;; esac
		listed=$((listed - 1))
		case $ours in *" $member "*) ;; *) echo "$member" ;; esac
	done
	[ "$listed" -le 0 ] || echo "a missing disk"
}

# pick MATCHES FITS SELECTOR: sets picked to the one disk that the inventory selects. The size narrows.
pick() {
	named='' fit=0 picked=''
	for name in $(all_disks); do
		"$1" "$name" || continue
		named="$named $name"
		"$2" "$name" || continue
		fit=$((fit + 1)) picked=$name
	done
	[ -n "$named" ] || refuse installer 1 "disk gate: no disk matches $3; seen: $(all_disks | tr '\n' ' ')"
	[ "$fit" -gt 0 ] || refuse installer 1 "disk gate: the disk$named has the wrong size for $3"
	[ "$fit" -eq 1 ] || refuse installer 1 "disk gate: $fit disks match $3:$named"
	! flag "$picked" ro || refuse installer 1 "disk gate: the disk $picked is read-only"
	! flag "$picked" removable || refuse installer 1 "disk gate: the disk $picked is removable media"
}

# choose: sets disk to the one disk that is granted{{if .Mirrored}}, and mirror to the other{{end}}.
choose() {
	pick matches size_fits "$want_disk"
	disk=$picked granted=$picked
{{- if .Mirrored}}
	pick mirror_matches mirror_fits "$want_mirror"
	mirror=$picked granted="$disk $picked"
	[ "$disk" != "$mirror" ] || refuse installer 1 "disk gate: $want_disk and its mirror $want_mirror are one disk, $disk"
{{- end}}
	for program in dd grep sort tr udevadm; do
		command -v "$program" >/dev/null || refuse installer 1 "disk gate: without $program nobody can say what else is on the disk $disk"
	done
	others=$(shared | sort -u | tr '\n' ,)
	[ -z "$others" ] || refuse installer 1 "disk gate: the disk $granted shares an array or a volume group with other disks, and the installer would destroy it there too. Take it apart first (mdadm --zero-superblock on $granted, or vgreduce and pvremove), or wipe $granted on purpose (wipefs -a on its partitions, then on itself). The others: ${others%,}"
	report installer 1 ok "disk gate: $disk is $want_disk{{if .Mirrored}}, $mirror is $want_mirror{{end}}" || refuse installer 2 "the server does not answer"
}
{{- end}}

{{define "get.sh" -}}
# get NAME FILE: a document of this run, into a file.
get() {
	if command -v curl >/dev/null 2>&1; then
		curl -fsS -m 20 --retry 5 -o "$2" "$base/seed/$1"
	else
		wget -q -T 20 -O "$2" "$base/seed/$1"
	fi
}
{{- end}}

{{define "late.sh" -}}
set -e

# give_up WHY: fails the run, and ends the machine.
give_up() {
	trap - EXIT
	report disk-written 1 failed "$1"
	poweroff -f
	exit 1
}
trap 'give_up "the installation is not complete: the late hook failed"' EXIT

{{template "get.sh" .}}

# The kubelet refuses to run beside swap.
if [ -e {{.Target}}/etc/fstab ]; then
	sed -i '/^[^#].*[[:space:]]swap[[:space:]]/s/^/#/' {{.Target}}/etc/fstab
fi

mkdir -p {{.Target}}/etc/sudoers.d
echo {{sq (printf "%s ALL=(ALL) NOPASSWD:ALL" .Site.User)}} > {{.Target}}/etc/sudoers.d/90-bootlane
chmod 0440 {{.Target}}/etc/sudoers.d/90-bootlane

mkdir -p {{.Target}}/usr/local/lib/bootlane {{.Target}}/etc/systemd/system/multi-user.target.wants
get firstboot.sh {{.Target}}/usr/local/lib/bootlane/firstboot
chmod 0700 {{.Target}}/usr/local/lib/bootlane/firstboot
get firstboot.service {{.Target}}/etc/systemd/system/bootlane-firstboot.service
ln -sf /etc/systemd/system/bootlane-firstboot.service {{.Target}}/etc/systemd/system/multi-user.target.wants/bootlane-firstboot.service
{{- template "network.sh" .}}
{{- end}}

{{define "network.sh" -}}
{{- if .Host.Network.Interfaces}}

# put FILE MODE: what comes in, as a file of the new system.
put() {
	mkdir -p "{{.Target}}${1%/*}"
	cat > "{{.Target}}$1"
	chmod "$2" "{{.Target}}$1"
}

# The network of the record, in the place of what the installer made for itself.
{{- range .StaleNetwork}}
rm -f {{$.Target}}{{.}}
{{- end}}
{{- range .NetworkFiles}}
put {{.Path}} {{printf "%04o" .Mode}} <<'END-OF-FILE'
{{.Content}}END-OF-FILE
{{- end}}
{{- end}}
{{- end}}

{{define "keys.sh" -}}
{{- with .Site}}
{{- if .SSHKeys}}

home={{sq (printf "/home/%s" .User)}}
mkdir -p "{{$.Target}}$home/.ssh"
cat > "{{$.Target}}$home/.ssh/authorized_keys" <<'END-OF-KEYS'
{{- range .SSHKeys}}
{{.}}
{{- end}}
END-OF-KEYS
chmod 0700 "{{$.Target}}$home/.ssh"
chmod 0600 "{{$.Target}}$home/.ssh/authorized_keys"
{{- end}}
{{- end}}
{{- end}}

{{define "container.sh" -}}
# container: what is encrypted under the root file system.
container() {
	lsblk -n -r -s -p -o NAME,FSTYPE "$(findmnt -n -o SOURCE /)" | awk '$2 == "crypto_LUKS" { print $1 }' | sort -u
}
{{- end}}

{{define "key.sh" -}}
{{- if .Encrypted}}

# The passphrase of the container is this machine's own: it stays in memory, until the late hook has
# it taken away. Whether the disk could be opened again is asked before it is erased.
{{- if .TangServers}}
answers() {
	if command -v curl >/dev/null 2>&1; then
		curl -fsS -m 20 -o /dev/null "$1"
	else
		once -O /dev/null "$1"
	fi
}
for key in{{range .TangServers}} {{sq (printf "%s/adv/%s" .URL .Thumbprint)}}{{end}}; do
	answers "$key" || refuse installer 2 "encryption: no Tang server answers at ${key%/adv/*}, or none that has the key ${key##*/} (tang-show-keys prints those that it has): nothing would open the disk"
done
{{- else}}
[ -e /dev/tpmrm0 ] || [ -e /sys/firmware/acpi/tables/TPM2 ] || refuse installer 2 "encryption: the machine shows no TPM 2.0: enable it in the firmware{{if .Clevis}}, or have the disk opened by Tang{{end}}"
{{- end}}
key=$(tr -dc a-z0-9 < /dev/urandom | dd bs=1 count=64 2>/dev/null)
if [ "${#key}" != 64 ] || ! (umask 077 && printf '%s' "$key" > /dev/bootlane-key); then
	refuse installer 2 "encryption: no passphrase can be made"
fi
{{- end}}
{{- end}}

{{define "bind.sh" -}}
{{- if .Encrypted}}

# From here on {{.Opener}} opens the disk, and nothing else.
get encrypt.sh {{.Target}}/root/bootlane-encrypt
{{with .Inside}}{{.}} {{end}}sh /root/bootlane-encrypt || give_up "encryption: $(cat /dev/bootlane-why 2>/dev/null || echo 'it cannot be bound')"
rm -f {{.Target}}/root/bootlane-encrypt
{{- end}}
{{- end}}

{{define "keep-mirror.sh" -}}
{{- if .Mirrored}}
echo "$disk $mirror" > /dev/bootlane-disks || refuse installer 2 "the late hook cannot be told the disks"
{{- end}}
{{- end}}

{{define "second-esp.sh" -}}
{{- if .Mirrored}}

# The firmware reads one disk: the other gets the same boot loaders, in its own EFI system partition,
# which is its first one. Which disk has the one that is mounted was the installer's choice.
other_esp() {
	read -r disk mirror < /dev/bootlane-disks
	for name in "$disk" "$mirror"; do
		for part in /sys/block/"$name"/"$name"*; do
			[ "$(cat "$part/partition" 2>/dev/null)" = 1 ] || continue
			grep -q "^/dev/${part##*/} {{.Target}}/boot/efi " /proc/mounts || echo "${part##*/}"
		done
	done
}

if [ -d /sys/firmware/efi ]; then
	esp=$(other_esp)
	[ "$(echo "$esp" | wc -w)" = 1 ] || give_up "mirror: of the disks $(cat /dev/bootlane-disks) one must have the EFI system partition that is mounted, and the other another: $(echo "${esp:-none is left}" | tr '\n' ' ')"
	mkdir -p /tmp/bootlane-esp
	mount -t vfat "/dev/$esp" /tmp/bootlane-esp || give_up "mirror: /dev/$esp is no EFI system partition"
	cp -r {{.Target}}/boot/efi/. /tmp/bootlane-esp/
	umount /tmp/bootlane-esp
	# Without the first disk the system must start, and not wait for it.
	sed -i 's#^\([^\#][^[:space:]]*[[:space:]]\{1,\}/boot/efi[[:space:]]\{1,\}vfat[[:space:]]\{1,\}\)\([^[:space:]]*\)#\1\2,nofail#' {{.Target}}/etc/fstab
fi
{{- end}}
{{- end}}
