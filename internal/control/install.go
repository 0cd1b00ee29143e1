package control

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"bootlane/internal/lane"
	"bootlane/internal/seed"
)

// installed returns what a host's installed system gets, and which level says so.
func (c *Control) installed(h lane.Host) (seed.Site, []lane.Origin) {
	domain := ""
	if len(c.Networks) > 0 {
		domain = c.Networks[0].Domain
	}
	levels := []seed.Layer{{From: "site", Path: "site", InstallOptions: c.Site}}
	if r, ok := c.Roles[h.Role]; ok {
		levels = append(levels, seed.Layer{From: "role " + h.Role, Path: "roles." + h.Role, InstallOptions: r})
	}
	levels = append(levels, seed.Layer{From: "host", Path: "install", InstallOptions: h.Install})
	levels = append([]seed.Layer{c.ofCluster(levels)}, levels...)
	return seed.Merge(append([]seed.Layer{seed.Defaults(domain), seed.Purpose(levels...)}, levels...)...)
}

// ofCluster returns the level of the cluster that others name: a machine that is to join one is
// meant for Kubernetes. k0s and k3s bring the container runtime with them.
func (c *Control) ofCluster(levels []seed.Layer) seed.Layer {
	var all lane.InstallOptions
	for _, l := range levels {
		all = l.Over(all)
	}
	if all.Cluster == nil || *all.Cluster == "" {
		return seed.Layer{}
	}
	out := seed.Layer{From: "cluster " + *all.Cluster, Path: "clusters." + *all.Cluster, InstallOptions: lane.InstallOptions{Purpose: new(lane.PurposeKubernetes)}}
	if cl, err := c.cluster(*all.Cluster); err == nil && cl.Status().Distribution != lane.DistributionKubeadm {
		out.Runtime = new("")
	}
	return out
}

// unknownRole says why a host's role cannot be meant, or nothing. Where the configuration
// has no roles at all, a role is only a label.
func (c *Control) unknownRole(h lane.Host) string {
	if _, ok := c.Roles[h.Role]; ok || h.Role == "" || len(c.Roles) == 0 {
		return ""
	}
	return fmt.Sprintf("%q is not among the configured `roles`: %s", h.Role, strings.Join(slices.Sorted(maps.Keys(c.Roles)), ", "))
}

// Explain returns what a host's installed system would get, and which level says so.
func (c *Control) Explain(ctx context.Context, id lane.HostID) ([]lane.Origin, error) {
	h, err := c.record(ctx, id)
	if err != nil {
		return nil, err
	}
	if why := c.unknownRole(h); why != "" {
		return nil, refuse("nobody can say what "+string(id)+" gets", []lane.Problem{{Field: "role", Message: why}})
	}
	_, origins := c.installed(h)
	return origins, nil
}
