{{template "head" .}}

kubelet=/etc/kubernetes/kubelet.conf
ca=/etc/kubernetes/pki/ca.crt
pair=/var/lib/kubelet/pki/kubelet-client-current.pem

# works: the API server knows the kubelet that stands here, and its Node.
works() {
	[ -s "$kubelet" ] && [ -s "$ca" ] && [ -s "$pair" ] || return 1
	if command -v kubectl >/dev/null; then
		ask 20 kubectl --kubeconfig "$kubelet" get node "$node"
	elif command -v curl >/dev/null; then
		ask 20 curl -fsS --cacert "$ca" --cert "$pair" --key "$pair" {{sq (printf "https://%s/api/v1/nodes/" .Endpoint)}}"$node"
	else
		systemctl is-active --quiet kubelet.service
	fi
}

needs kubeadm kubelet timeout
if works; then
	echo "the node $node is in the cluster already"
	exit 0
fi
# What an earlier try, or an earlier life, left is in kubeadm's way.
if [ -e "$kubelet" ] || [ -e /etc/kubernetes/bootstrap-kubelet.conf ] || [ -e "$ca" ]; then
	kubeadm reset --force
fi

dir=$(mktemp -d /run/bootlane-join.XXXXXX)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
cat >"$dir/join.yaml" <<'END-OF-CONFIGURATION'
{{.Text -}}
END-OF-CONFIGURATION
(umask 022 && kubeadm join --config "$dir/join.yaml")
arrives "journalctl -u kubelet"
echo "the node $node is in the cluster"
