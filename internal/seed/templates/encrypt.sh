#!/bin/sh
# Bootlane encryption for {{.Host.ID}}, run {{.Host.Run.ID}}, within the new system: binds the container
# under the root file system to what opens it at each boot, proves that, and takes the
# passphrase of the installer away.

# why TEXT: tells the late hook, and ends.
why() {
	echo "$1" > /dev/bootlane-why
	exit 1
}

{{template "container.sh" .}}

key=/dev/bootlane-key
[ -s "$key" ] || why "the passphrase that the disk gate made is gone"
container=$(container)
[ "$(echo "$container" | wc -w)" = 1 ] || why "the root file system is not in one container: $(echo "${container:-none is below it}" | tr '\n' ' ')"

said=$(clevis luks bind -y -f -k "$key" -d "$container" {{.Pin}} {{sq .PinConfig}} 2>&1) || why "clevis cannot bind $container to {{.Opener}}: {{.Mend}}. It says: $(echo "$said" | tail -n 1)"
slot=$(clevis luks list -d "$container" | sed -n 's/^\([0-9][0-9]*\): {{.Pin}} .*/\1/p' | head -n 1)
clevis luks pass -d "$container" -s "${slot:-none}" | cryptsetup open --test-passphrase --key-file - "$container" || why "{{.Opener}} does not open $container again: {{.Mend}}"
cryptsetup -q luksRemoveKey "$container" "$key" || why "the passphrase of the installer stays in $container"

# The key was the installer's: the system has none to look for.
[ ! -e /etc/crypttab ] || sed -i "s#$key#none#" /etc/crypttab
{{.InitramfsCommand}} || why "the initramfs cannot be written"
rm -f "$key"
