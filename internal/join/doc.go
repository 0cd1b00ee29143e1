// Package join leads hosts into clusters of Kubernetes: the formats of kubeadm, k0s and k3s,
// the script that a machine runs, the rights that Bootlane needs in a cluster, and a small
// client of its API. client-go would be 26 MB for ten calls.
//
// Whether a machine may join is lane's to judge, and when it is asked is control's: this
// package does what they say, in one cluster.
package join
