//go:build tools

// Package kube builds, and does nothing else: the programs of Kubernetes that `make test-kube` plays a join
// against. It is a module of its own because their dependencies, about 300 modules, are none of Bootlane's, and
// because the versions that Bootlane needs of some of them would not be those that Kubernetes was released with.
package kube

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kubeadm"
)
