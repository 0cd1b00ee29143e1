#!/bin/sh
# Bootlane completion for {{.Host.ID}}, run {{.Host.Run.ID}}: access, first boot, and the report that
# ends network installs.
{{template "report.sh" .}}

{{template "late.sh" .}}

report disk-written 1 ok "Ubuntu installed, first boot in place"
trap - EXIT
