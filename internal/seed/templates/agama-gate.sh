#!/bin/sh
# Bootlane gate for {{.Host.ID}}, run {{.Host.Run.ID}}: identity, then exactly one disk, which must be
# the one that the profile names: Agama resolves it a second time, by its own means.
{{- if .Encrypted}} It runs before Agama
# has any profile, and leaves one with the passphrase in it.
{{- end}}
{{template "report.sh" .}}

{{template "refuse.sh" .}}

{{template "identity.sh" .}}

{{template "disk.sh" .}}

{{template "choose.sh" .}}

why=$(identity) || refuse kernel 1 "identity gate:$why"
report kernel 1 ok "Agama installer up, identity agrees: uuid $uuid, macs $macs" || refuse kernel 2 "the server does not answer"
choose
{{- template "keep-mirror.sh" .}}
named=$(readlink -f {{sq .DiskLink}})
[ "$named" = "/dev/$disk" ] || refuse installer 2 "disk gate: the profile names {{.DiskLink}}, which is $named here, and not /dev/$disk"
{{- if .Mirrored}}
named=$(readlink -f {{sq .MirrorLink}})
[ "$named" = "/dev/$mirror" ] || refuse installer 2 "disk gate: the profile names {{.MirrorLink}}, which is $named here, and not /dev/$mirror"
{{- end}}
{{- template "key.sh" .}}
{{- if .Encrypted}}

umask 077
mkdir -p {{dir .AgamaProfile}} || refuse installer 2 "the profile cannot be written"
curl -fsS -m 60 --retry 5 -o /tmp/bootlane-profile {{sq (printf "%s/seed/profile.json" .Base)}} || refuse installer 2 "the profile does not come"
sed "s#@KEY@#$key#" /tmp/bootlane-profile > {{.AgamaProfile}}
grep -qF "{\"luks2\": {\"password\": \"$key\"" {{.AgamaProfile}} || refuse installer 2 "the passphrase cannot be told to the installer: the profile has no place for it"
{{- end}}
