package api

import (
	"context"
	"net/http"
	"net/url"

	"bootlane/internal/lane"
)

// clusters is what operators ask of the clusters that hosts join.
type clusters interface {
	ClusterList(ctx context.Context) ([]lane.ClusterStatus, error)
	ClusterManifests(ctx context.Context, name string) (lane.Rendered, error)
	ClusterCheck(ctx context.Context, name string) (lane.ClusterCheck, error)
}

// clusterRoutes are the calls about clusters.
func (s *Server) clusterRoutes() []route {
	op := s.cfg.Operator
	name := func(r *http.Request) string { return r.PathValue("name") }
	return []route{
		{"GET /v1/clusters", func(r *http.Request, _ []byte) (any, error) { return op.ClusterList(r.Context()) }},
		{"GET /v1/clusters/{name}/manifests", func(r *http.Request, _ []byte) (any, error) { return op.ClusterManifests(r.Context(), name(r)) }},
		{"GET /v1/clusters/{name}/check", func(r *http.Request, _ []byte) (any, error) { return op.ClusterCheck(r.Context(), name(r)) }},
	}
}

// Clusters returns the clusters of the server's configuration.
func (c *Client) Clusters(ctx context.Context) ([]lane.ClusterStatus, error) {
	return get[[]lane.ClusterStatus](ctx, c, "/v1/clusters")
}

// ClusterManifests returns what gives Bootlane its rights in a cluster.
func (c *Client) ClusterManifests(ctx context.Context, name string) (lane.Rendered, error) {
	return get[lane.Rendered](ctx, c, "/v1/clusters/"+url.PathEscape(name)+"/manifests")
}

// ClusterCheck asks a cluster what Bootlane may do there, and must not.
func (c *Client) ClusterCheck(ctx context.Context, name string) (lane.ClusterCheck, error) {
	return get[lane.ClusterCheck](ctx, c, "/v1/clusters/"+url.PathEscape(name)+"/check")
}
