#!/bin/sh
# Bootlane gate for {{.Host.ID}}, run {{.Host.Run.ID}}: identity, then exactly one disk, which must be
# the one that the profile names: Agama resolves it a second time, by its own means.
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
