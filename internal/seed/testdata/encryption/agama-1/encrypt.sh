#!/bin/sh
# Bootlane encryption for node-a, run r-abc123, within the new system: binds the container
# under the root file system to what opens it at each boot, proves that, and takes the
# passphrase of the installer away.

# why TEXT: tells the late hook, and ends.
why() {
	echo "$1" > /dev/bootlane-why
	exit 1
}

# container: what is encrypted under the root file system.
container() {
	lsblk -n -r -s -p -o NAME,FSTYPE "$(findmnt -n -o SOURCE /)" | awk '$2 == "crypto_LUKS" { print $1 }' | sort -u
}

key=/dev/bootlane-key
[ -s "$key" ] || why "the passphrase that the disk gate made is gone"
container=$(container)
[ "$(echo "$container" | wc -w)" = 1 ] || why "the root file system is not in one container: $(echo "${container:-none is below it}" | tr '\n' ' ')"

said=$(systemd-cryptenroll --unlock-key-file="$key" --tpm2-device=auto --tpm2-pcrs= "$container" 2>&1) || why "systemd-cryptenroll cannot bind $container to the TPM 2.0: clear the TPM in the firmware. It says: $(echo "$said" | tail -n 1)"
cryptsetup open --test-passphrase --token-only "$container" < /dev/null || why "the TPM 2.0 does not open $container again: clear the TPM in the firmware"
cryptsetup -q luksRemoveKey "$container" "$key" || why "the passphrase of the installer stays in $container"

# The key was the installer's: the system has none to look for.
uuid=$(cryptsetup luksUUID "$container")
if ! awk -v uuid="$uuid" -v device="$container" '!/^#/ && (index($2, uuid) || $2 == device) { $3 = "none"; $4 = ($4 ~ /^(none|-|)$/ ? "" : $4 ",") "tpm2-device=auto"; found = 1 } { print } END { exit !found }' \
	/etc/crypttab > /etc/crypttab.new || ! cat /etc/crypttab.new > /etc/crypttab; then
	why "/etc/crypttab does not name $container by its UUID, $uuid"
fi
rm -f /etc/crypttab.new
mkdir -p /etc/dracut.conf.d
echo 'add_dracutmodules+=" tpm2-tss "' > /etc/dracut.conf.d/90-bootlane.conf
dracut --force --regenerate-all || why "the initramfs cannot be written"
rm -f "$key"
