package app

import (
	"maps"
	"slices"
	"time"

	"bootlane/internal/control"
	"bootlane/internal/join"
	"bootlane/internal/lane"
)

// Cluster is a cluster of Kubernetes that hosts can join.
type Cluster struct {
	Distribution string `yaml:"distribution"`      // kubeadm, k0s or k3s
	Endpoint     string `yaml:"apiServerEndpoint"` // HOST:PORT, as the machines reach it
	// Kubeconfig is a file with the credentials that Bootlane has in the cluster.
	Kubeconfig string `yaml:"kubeconfig"`
	// CA is a file with the cluster's CA (PEM). Empty: that of the kubeconfig.
	CA       string        `yaml:"ca,omitempty"`
	TokenTTL time.Duration `yaml:"tokenTTL,omitempty"` // of a join credential; default 15m
	User     string        `yaml:"user,omitempty"`     // under which the API server knows Bootlane; default bootlane
	// Labels are keys of hosts' own labels that are set on their Nodes besides those of the inventory.
	Labels []string `yaml:"labels,omitempty"`
}

func (c Cluster) withDefaults() Cluster {
	if c.TokenTTL == 0 {
		c.TokenTTL = lane.DefaultTokenTTL
	}
	if c.User == "" {
		c.User = "bootlane"
	}
	return c
}

func (c Cluster) config(name string) join.Config {
	return join.Config{Name: name, Distribution: c.Distribution, Endpoint: c.Endpoint, Kubeconfig: c.Kubeconfig, CA: c.CA, TokenTTL: c.TokenTTL, User: c.User, Labels: c.Labels}
}

// checkClusters looks at what is said of the clusters, and at who is meant to join one that is not there.
func (c Config) checkClusters() []lane.Problem {
	var out findings
	for _, name := range slices.Sorted(maps.Keys(c.Clusters)) {
		if !lane.ClusterName(name) {
			out.bad("clusters", "%q is not the name of a cluster: lower-case letters, digits and inner hyphens, at most 63", name)
			continue
		}
		for _, p := range c.Clusters[name].config(name).Problems() {
			out.bad("clusters."+name+"."+p.Field, "%s", p.Message)
		}
	}
	named := func(at string, i lane.InstallOptions) {
		if i.Cluster == nil || *i.Cluster == "" || !lane.ClusterName(*i.Cluster) {
			return
		}
		if _, ok := c.Clusters[*i.Cluster]; !ok {
			out.bad(at+".cluster", "%q is not under `clusters`", *i.Cluster)
		}
	}
	named("site", c.Site)
	for _, name := range slices.Sorted(maps.Keys(c.Roles)) {
		named("roles."+name, c.Roles[name])
	}
	return out.list
}

// clusterFiles reads the files that the clusters name. Nobody is asked anything: `bootlane
// cluster check` does that.
func (c Config) clusterFiles() (out []lane.Problem) {
	for _, name := range slices.Sorted(maps.Keys(c.Clusters)) {
		for _, p := range c.Clusters[name].config(name).Files() {
			out = append(out, lane.Problem{Field: "clusters." + name + "." + p.Field, Message: p.Message})
		}
	}
	return out
}

// openClusters returns the clusters as control wants them.
func (c Config) openClusters() (map[string]control.Cluster, error) {
	out := map[string]control.Cluster{}
	for name, cl := range c.Clusters {
		opened, err := join.Open(cl.config(name))
		if err != nil {
			return nil, err
		}
		out[name] = opened
	}
	return out, nil
}
