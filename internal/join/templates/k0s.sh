{{template "head" .}}

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
printf '%s' {{sq .Text}} >"$token"
systemctl stop k0sworker.service 2>/dev/null || true
(umask 022 && k0s install worker --force --token-file "$token" --kubelet-extra-args="--hostname-override=$node")
systemctl daemon-reload
systemctl enable k0sworker.service
systemctl start k0sworker.service
arrives "journalctl -u k0sworker"
echo "the node $node is in the cluster"
