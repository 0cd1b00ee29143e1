#!/bin/sh
# Bootlane: the machine of node-a, run r-1, joins the cluster prod as the node node-a. Here stands
# a credential that opens the cluster until 2026-05-04 03:17:01Z: this is for root alone, and goes when it is done.
# It may be repeated: a node that is in the cluster, and works, is left as it is.
set -eu
umask 077
node='node-a'

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

kubelet=/var/lib/k0s/kubelet.conf
token=/run/bootlane-k0s-token

works() {
	[ -s "$kubelet" ] && systemctl is-active --quiet k0sworker.service &&
		ask 20 k0s kubectl --kubeconfig "$kubelet" get node "$node"
}

needs k0s timeout
if works; then
	echo "the node $node is in the cluster already"
	exit 0
fi

# k0s reads its token at the first start, and no more once it has a kubelet.conf: from then on
# the file may be missing, and before that it may not.
trap 'rm -f "$token"' EXIT
trap 'exit 1' HUP INT TERM
printf '%s' 'K0S-TOKEN' >"$token"
systemctl stop k0sworker.service 2>/dev/null || true
(umask 022 && k0s install worker --force --token-file "$token" --kubelet-extra-args="--hostname-override=$node")
systemctl daemon-reload
systemctl enable k0sworker.service
systemctl start k0sworker.service
arrives "journalctl -u k0sworker"
echo "the node $node is in the cluster"
