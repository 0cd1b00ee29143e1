#!/bin/sh
# Bootlane: Anaconda gave up on {{.Host.ID}}, run {{.Host.Run.ID}}. The machine stays as it is, for whoever comes to look.
{{template "report.sh" .}}

# Its last error may hold the address of the tree, and with it what opens the run.
why=$(grep -E ' (ERR|CRT) ' /tmp/anaconda.log 2>/dev/null | tail -n 1 | sed "s#${base##*/}#CAPABILITY#g")
report installer 900 failed "Anaconda stopped: ${why:-its log has no error}"
