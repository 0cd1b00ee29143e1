#!/bin/sh
# Bootlane identity gate for {{.Host.ID}}, run {{.Host.Run.ID}}. Runs before the
# installer asks anything. A hook that fails would only be shown and passed over,
# so the gate itself ends the machine.
{{template "common.sh" .}}

if why=$(identity); then
	report kernel 1 ok "Debian installer up, identity agrees: uuid $uuid, macs $macs" || poweroff -f
else
	report kernel 1 failed "identity gate:$why"
	echo "bootlane: this is not {{.Host.ID}}:$why Powering off, nothing was written."
	sleep 10
	poweroff -f
fi
