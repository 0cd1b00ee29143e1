{{template "head" .}}

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
{{.Config -}}
END-OF-CONFIGURATION
# An agent reads this at every start, and enters with its own certificate once it has one: the
# file stays, for root alone, and what stands in it opens nothing after the join.
printf '%s\n' {{sq .Text}} >{{sq "/etc/rancher/k3s/bootlane-token"}}
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
