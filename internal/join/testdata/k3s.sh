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

kubelet=/var/lib/rancher/k3s/agent/kubelet.kubeconfig
unit=/etc/systemd/system/k3s-agent.service

works() {
	[ -s "$kubelet" ] && systemctl is-active --quiet k3s-agent.service &&
		ask 20 k3s kubectl --kubeconfig "$kubelet" get node "$node"
}

needs k3s timeout
if works; then
	echo "the node $node is in the cluster already"
	exit 0
fi

mkdir -p /etc/rancher/k3s
cat >/etc/rancher/k3s/config.yaml <<'END-OF-CONFIGURATION'
server: "https://10.0.0.10:6443"
token-file: "/etc/rancher/k3s/bootlane-token"
node-name: "node-a"
END-OF-CONFIGURATION
# An agent reads this at every start, and enters with its own certificate once it has one: the
# file stays, for root alone, and what stands in it opens nothing after the join.
printf '%s\n' 'K10270820d11f0846bafe8841b8d6b7ef55626676981dedce10ab88a5be49d1876d::abcdef.0123456789abcdef' >'/etc/rancher/k3s/bootlane-token'
if [ ! -e "$unit" ] && [ ! -e /usr/lib/systemd/system/k3s-agent.service ] && [ ! -e /lib/systemd/system/k3s-agent.service ]; then
	cat >"$unit" <<END-OF-UNIT
[Unit]
Description=Lightweight Kubernetes, agent
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
ExecStart=$(command -v k3s) agent
KillMode=process
Delegate=yes
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
TimeoutStartSec=0
Restart=always
RestartSec=5s

[Install]
WantedBy=multi-user.target
END-OF-UNIT
	chmod 0644 "$unit"
	systemctl daemon-reload
fi
systemctl enable k3s-agent.service
# Of type notify: a start that waits for the cluster would wait here, and say nothing.
systemctl restart --no-block k3s-agent.service
arrives "journalctl -u k3s-agent"
echo "the node $node is in the cluster"
