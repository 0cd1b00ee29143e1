#!/bin/sh
# Bootlane completion for node-a, run r-abc123: access, first boot, and the report that
# ends network installs.
base='http://10.0.0.1:8080/run/abcdefghijklmnopqrstuvwxyz234567'
checks='' # that the report ready carries, as the value of a form
want_macs='52:54:00:00:00:a1 52:54:00:00:00:a2'

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

set -e

# give_up WHY: fails the run, and ends the machine.
give_up() {
	trap - EXIT
	report disk-written 1 failed "$1"
	poweroff -f
	exit 1
}
trap 'give_up "the installation is not complete: the late hook failed"' EXIT

# get NAME FILE: a document of this run, into a file.
get() {
	if command -v curl >/dev/null 2>&1; then
		curl -fsS -m 20 --retry 5 -o "$2" "$base/seed/$1"
	else
		wget -q -T 20 -O "$2" "$base/seed/$1"
	fi
}

# The kubelet refuses to run beside swap.
if [ -e /mnt/etc/fstab ]; then
	sed -i '/^[^#].*[[:space:]]swap[[:space:]]/s/^/#/' /mnt/etc/fstab
fi

mkdir -p /mnt/etc/sudoers.d
echo 'admin1 ALL=(ALL) NOPASSWD:ALL' > /mnt/etc/sudoers.d/90-bootlane
chmod 0440 /mnt/etc/sudoers.d/90-bootlane

mkdir -p /mnt/usr/local/lib/bootlane /mnt/etc/systemd/system/multi-user.target.wants
get firstboot.sh /mnt/usr/local/lib/bootlane/firstboot
chmod 0700 /mnt/usr/local/lib/bootlane/firstboot
get firstboot.service /mnt/etc/systemd/system/bootlane-firstboot.service
ln -sf /etc/systemd/system/bootlane-firstboot.service /mnt/etc/systemd/system/multi-user.target.wants/bootlane-firstboot.service

home='/home/admin1'
mkdir -p "/mnt$home/.ssh"
cat > "/mnt$home/.ssh/authorized_keys" <<'END-OF-KEYS'
ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA alice@example.org
ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAEQDBwcHBwcHBwcHBwcHBwcHB bob's key
END-OF-KEYS
chmod 0700 "/mnt$home/.ssh"
chmod 0600 "/mnt$home/.ssh/authorized_keys"
chroot /mnt chown -R 'admin1:' "$home/.ssh"

# Agama of release 16.0 knows no time servers.
mkdir -p /mnt/etc/chrony.d
cat > /mnt/etc/chrony.d/bootlane.conf <<'END-OF-SERVERS'
server 10.0.0.2 iburst
server ntp.example.org iburst
END-OF-SERVERS
chroot /mnt systemctl enable chronyd sshd

# From here on the TPM 2.0 opens the disk, and nothing else.
get encrypt.sh /mnt/root/bootlane-encrypt
chroot /mnt sh /root/bootlane-encrypt || give_up "encryption: $(cat /dev/bootlane-why 2>/dev/null || echo 'it cannot be bound')"
rm -f /mnt/root/bootlane-encrypt

report disk-written 1 ok "sles 16.0 installed, first boot in place"
trap - EXIT
