#!/bin/sh
# Bootlane identity gate for {{.Host.ID}}, run {{.Host.Run.ID}}. Runs before the
# installer asks anything. A hook that fails would only be shown and passed over,
# so the gate itself ends the machine.
{{template "report.sh" .}}

{{template "refuse.sh" .}}

{{template "identity.sh" .}}

why=$(identity) || refuse kernel 1 "identity gate:$why"
report kernel 1 ok "Debian installer up, identity agrees: uuid $uuid, macs $macs" || refuse kernel 2 "the server does not answer"
