{{define "head" -}}
#!/bin/sh
# Bootlane: the machine of {{.Host}}, run {{.Run}}, joins the cluster {{.Cluster}} as the node {{.Node}}. Here stands
# a credential that opens the cluster until {{.Expires}}: this is for root alone, and goes when it is done.
# It may be repeated: a node that is in the cluster, and works, is left as it is.
set -eu
umask 077
node={{sq .Node}}

# ask SECONDS COMMAND...: the command, with a limit, and nothing of what it says.
ask() { timeout "$@" >/dev/null 2>&1; }

# arrives: looks sixty times, every five seconds and as long as it is not answered, for the node to be in the cluster.
arrives() {
	n=0
	until works; do
		n=$((n + 1))
		if [ "$n" -ge 60 ]; then
			echo "the node $node is not in the cluster after five minutes: $1"
			return 1
		fi
		sleep 5
	done
}

# needs PROGRAM...: all of them are installed.
needs() {
	for program; do
		command -v "$program" >/dev/null || { echo "$program is not installed: the bundle must bring it"; exit 1; }
	done
}
{{- end}}
