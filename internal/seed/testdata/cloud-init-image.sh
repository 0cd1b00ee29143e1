#!/bin/sh
# Runs the real cloud-init as at the first boot of an image, over whose root the directory $1 was
# placed, with $2 to manage its network, and NICs with the MACs that follow. It prints what then is.
# Mounts, names, network and processes are this script's own: nothing outlives it.
set -eu
root=$1 renderer=$2
shift 2
private=$(mktemp -d)
mount -t tmpfs private "$private"
cp -a /etc "$private/etc"
mount --bind "$private/etc" /etc
mount -t proc proc /proc
mount -t sysfs sysfs /sys # that of this network
for dir in /run /var/log /var/lib /home; do
	mount -t tmpfs private "$dir"
done
mkdir -p /etc/cloud /etc/netplan
rm -rf /etc/cloud/cloud.cfg.d /etc/netplan/* /etc/systemd/network/* /etc/asset
cat > /etc/cloud/cloud.cfg <<END
datasource_list: [None]
users: []
cloud_init_modules: [write_files, set_hostname, users_groups]
cloud_config_modules: [timezone]
system_info: {distro: debian, network: {renderers: [$renderer]}}
END
mkdir /run/bin # no udevd runs in here, whom netplan's NICs would be told to
printf '#!/bin/sh\n' > /run/bin/udevadm
chmod 0755 /run/bin/udevadm
PATH=/run/bin:$PATH
cp -a "$root/etc" "$root/var" /
ip link set lo up
n=0
for mac in "$@"; do
	ip link add "nic$n" address "$mac" type veth peer name "peer$n"
	n=$((n + 1))
done
for stage in 'init --local' init 'modules --mode=config'; do
	# shellcheck disable=SC2086 # its words
	cloud-init $stage > /run/init.log 2>&1 || { cat /run/init.log /var/log/cloud-init.log; exit 1; }
done
echo "from $(cloud-init query subplatform)"
echo "instance $(cloud-init query instance_id), host $(hostname), $(cat /etc/hostname), zone $(cat /etc/timezone), asset $(cat /etc/asset)"
getent passwd admin1 | sed 's/:[0-9]*:[0-9]*:/:UID:GID:/'
getent shadow admin1 | cut -d : -f 2
grep -v "^#" /etc/sudoers.d/90-cloud-init-users ; sort /home/admin1/.ssh/authorized_keys
ip -o link show | sed -n 's/^[0-9]*: \([a-z0-9]*\)@.*link.ether \([0-9a-f:]*\) .*/\1 \2/p' | grep -v ^peer | sort
if [ "$renderer" = netplan ]; then
	netplan generate --root-dir / 2> /run/netplan.log || { cat /run/netplan.log; exit 1; }
	sed '/^#/d' /etc/netplan/50-cloud-init.yaml
else
	for unit in /etc/systemd/network/*; do
		case $unit in *cloud-init*) echo "${unit##*/}:"; cat "$unit" ;; esac
	done
fi
! grep -h -E 'WARNING|ERROR|CRITICAL' /var/log/cloud-init.log
