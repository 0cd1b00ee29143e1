#!/bin/sh
# Runs the real cloud-init as at a boot, with the directory $1 served on port 8080, and prints the
# host's name as the kernel and as the system has it, the instance, and the user-data.
# Mounts, names, network and processes are this script's own: nothing outlives it.
set -eu
private=$(mktemp -d "$1/private.XXXXXX")
mount -t tmpfs private "$private"
cp -a /etc "$private/etc"
mount --bind "$private/etc" /etc
mount -t proc proc /proc
for dir in /run /var/log /var/lib; do
	mount -t tmpfs private "$dir"
done
mkdir -p /etc/cloud
rm -rf /etc/cloud/cloud.cfg.d
cat > /etc/cloud/cloud.cfg <<'END'
datasource_list: [NoCloud, None]
network: {config: disabled}
users: []
cloud_init_modules: [set_hostname]
END
ip link set lo up
/usr/bin/python3 -m http.server --directory "$1" --bind 127.0.0.1 8080 > /run/http.log 2>&1 &
tries=0
until curl -s -o /dev/null http://127.0.0.1:8080/; do
	tries=$((tries + 1))
	[ "$tries" -lt 100 ] || { cat /run/http.log; exit 1; }
	sleep 0.1
done
for stage in --local ''; do
	# shellcheck disable=SC2086 # none is none
	cloud-init init $stage > /run/init.log 2>&1 || { cat /run/init.log; exit 1; }
done
hostname
cat /etc/hostname
cloud-init query instance_id || { cat /var/log/cloud-init.log; exit 1; }
cat /var/lib/cloud/instance/user-data.txt
