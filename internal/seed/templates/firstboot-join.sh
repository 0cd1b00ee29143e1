{{define "join.sh" -}}
# The server has heard that the machine is ready: now it gives the join script, and with it a
# credential. That stands in /run, which is memory, for root alone, and only as long as it runs.
rundir=/run/bootlane

# enter: one try.
enter() {
	rm -rf "$rundir"
	(umask 077 && mkdir "$rundir") || return 1
	url="$base/join.sh?uuid=$uuid&mac=$mac&serial=$(form "$serial")"
	if command -v curl >/dev/null 2>&1; then
		(umask 077 && curl -sS -m 20 -w '%{http_code}' -o "$rundir/join.sh" "$url" >"$rundir/status" 2>"$rundir/log")
		if [ "$(cat "$rundir/status")" != 200 ]; then
			echo "the server gives no join script: $(cat "$rundir/status" "$rundir/log" "$rundir/join.sh" 2>/dev/null | tail -c 300 | tr '\n' ' ')"
			return 1
		fi
	else
		# wget keeps what a refusal says to itself: the server has it in its events.
		(umask 077 && once -O "$rundir/join.sh" "$url" 2>"$rundir/log") || {
			echo "the server gives no join script: wget ends with $? $(tail -c 300 "$rundir/log" | tr '\n' ' ')"
			return 1
		}
	fi
	if sh "$rundir/join.sh" >"$rundir/log" 2>&1 </dev/null 9>&-; then
		tail -n 1 "$rundir/log"
	else
		# Whatever a program says of its token stays here.
		sed 's/[a-z0-9]\{6\}\.[a-z0-9]\{16\}/TOKEN/g' "$rundir/log" | tail -n 8 | tr '\n' ' ' | tail -c 400
		return 1
	fi
}

n=0
until [ -e /var/lib/bootlane/joined ]; do
	if said=$(enter); then
		rm -rf "$rundir"
		printf '%s\n' "$said" > /var/lib/bootlane/joined
		sync
		break
	fi
	rm -rf "$rundir"
	n=$((n + 1))
	echo "bootlane: not in the cluster: $said"
	if [ "$n" -ge 20 ]; then
		tell joined 1 failed "join of the cluster {{.Host.Run.Cluster}}: $said"
		echo "$run" | keep "$state/failed" 0600
		exit 0
	fi
	sleep 30
done
tell joined 1 ok "$(cat /var/lib/bootlane/joined)"
{{- end}}
