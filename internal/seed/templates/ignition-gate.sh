#!/bin/sh
# Bootlane gate for {{.Host.ID}}, run {{.Host.Run.ID}}: identity, then exactly one disk. Only a gate
# that has passed says which one.
{{template "report.sh" .}}

{{template "refuse.sh" .}}

{{template "identity.sh" .}}

{{template "disk.sh" .}}

{{template "choose.sh" .}}

why=$(identity) || refuse kernel 1 "identity gate:$why"
report kernel 1 ok "Flatcar installer up, identity agrees: uuid $uuid, macs $macs" || refuse kernel 2 "the server does not answer"
choose
echo "$disk" > /tmp/bootlane-disk || refuse installer 2 "the disk cannot be told to the installer"
