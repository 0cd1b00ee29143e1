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

{{if .Clevis -}}
said=$(clevis luks bind -y -f -k "$key" -d "$container" {{.Pin}} {{sq .PinConfig}} 2>&1) || why "clevis cannot bind $container to {{.Opener}}: {{.Mend}}. It says: $(echo "$said" | tail -n 1)"
slot=$(clevis luks list -d "$container" | sed -n 's/^\([0-9][0-9]*\): {{.Pin}} .*/\1/p' | head -n 1)
clevis luks pass -d "$container" -s "${slot:-none}" | cryptsetup open --test-passphrase --key-file - "$container" || why "{{.Opener}} does not open $container again: {{.Mend}}"
{{else -}}
said=$(systemd-cryptenroll --unlock-key-file="$key" --tpm2-device=auto --tpm2-pcrs= "$container" 2>&1) || why "systemd-cryptenroll cannot bind $container to {{.Opener}}: {{.Mend}}. It says: $(echo "$said" | tail -n 1)"
cryptsetup open --test-passphrase --token-only "$container" < /dev/null || why "{{.Opener}} does not open $container again: {{.Mend}}"
{{end -}}
cryptsetup -q luksRemoveKey "$container" "$key" || why "the passphrase of the installer stays in $container"

# The key was the installer's: the system has none to look for.
{{if .Clevis -}}
[ ! -e /etc/crypttab ] || sed -i "s#$key#none#" /etc/crypttab
{{else -}}
uuid=$(cryptsetup luksUUID "$container")
if ! awk -v uuid="$uuid" -v device="$container" '!/^#/ && (index($2, uuid) || $2 == device) { $3 = "none"; $4 = ($4 ~ /^(none|-|)$/ ? "" : $4 ",") "tpm2-device=auto"; found = 1 } { print } END { exit !found }' \
	/etc/crypttab > /etc/crypttab.new || ! cat /etc/crypttab.new > /etc/crypttab; then
	why "/etc/crypttab does not name $container by its UUID, $uuid"
fi
rm -f /etc/crypttab.new
mkdir -p /etc/dracut.conf.d
echo 'add_dracutmodules+=" tpm2-tss "' > /etc/dracut.conf.d/90-bootlane.conf
{{end -}}
{{.InitramfsCommand}} || why "the initramfs cannot be written"
rm -f "$key"
