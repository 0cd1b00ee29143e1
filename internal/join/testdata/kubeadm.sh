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

kubelet=/etc/kubernetes/kubelet.conf
ca=/etc/kubernetes/pki/ca.crt
pair=/var/lib/kubelet/pki/kubelet-client-current.pem

# works: the API server knows the kubelet that stands here, and its Node.
works() {
	[ -s "$kubelet" ] && [ -s "$ca" ] && [ -s "$pair" ] || return 1
	if command -v kubectl >/dev/null; then
		ask 20 kubectl --kubeconfig "$kubelet" get node "$node"
	elif command -v curl >/dev/null; then
		ask 20 curl -fsS --cacert "$ca" --cert "$pair" --key "$pair" 'https://10.0.0.10:6443/api/v1/nodes/'"$node"
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
apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
nodeRegistration:
  name: "node-a"
discovery:
  bootstrapToken:
    apiServerEndpoint: "10.0.0.10:6443"
    token: "abcdef.0123456789abcdef"
    caCertHashes: ["sha256:d8197e8e9bb65be1795b27810c950e2e46693a11cb7f2b0375e144d8c225dcac"]
timeouts:
  discovery: 5m0s
  tlsBootstrap: 5m0s
END-OF-CONFIGURATION
(umask 022 && kubeadm join --config "$dir/join.yaml")
arrives "journalctl -u kubelet"
echo "the node $node is in the cluster"
