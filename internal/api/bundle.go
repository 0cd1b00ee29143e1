package api

import (
	"context"
	"net/http"
	"net/url"

	"bootlane/internal/lane"
)

// bundles is what operators do with bundles and aliases. Names are NAME-VERSION, a digest,
// or an alias.
type bundles interface {
	BundleList(ctx context.Context) ([]lane.BundleStatus, error)
	BundleShow(ctx context.Context, name string) (lane.BundleStatus, error)
	BundleImport(ctx context.Context, q lane.BundleImport) (lane.Bundle, error)
	BundleApprove(ctx context.Context, name, by, why string) (lane.BundleRecord, error)
	BundleRevoke(ctx context.Context, name, by, why string) (lane.Revocation, error)
	BundleGC(ctx context.Context, check bool, by string) (lane.BundleGC, error)
	BundleFsck(ctx context.Context, by string) (lane.BundleFsck, error)
	BundleWork() lane.BundleWork
	BundleTrust() lane.Trust
	AliasList(ctx context.Context) ([]lane.BundleAlias, error)
	AliasMove(ctx context.Context, name string, m lane.AliasMove) (lane.BundleAlias, error)
	AliasRollback(ctx context.Context, name, by, why string) (lane.BundleAlias, error)
	AliasRemove(ctx context.Context, name, by, why string) (lane.BundleAlias, error)
}

// BundleRequest asks to import a bundle from a directory of the server's machine.
type BundleRequest struct {
	lane.BundleImport
	By string `json:"by"`
}

// AliasRequest asks to point an alias at a bundle.
type AliasRequest struct {
	lane.AliasMove
	By string `json:"by"`
}

// GCRequest asks to remove what nothing refers to.
type GCRequest struct {
	Check bool   `json:"check,omitempty"`
	By    string `json:"by"`
}

// bundleRoutes are the calls about bundles and aliases.
func (s *Server) bundleRoutes() []route {
	op := s.cfg.Operator
	name := func(r *http.Request) string { return r.PathValue("name") }
	return []route{
		{"GET /v1/bundles", func(r *http.Request, _ []byte) (any, error) { return op.BundleList(r.Context()) }},
		{"GET /v1/bundles/{name}", func(r *http.Request, _ []byte) (any, error) { return op.BundleShow(r.Context(), name(r)) }},
		{"POST /v1/bundles", byWhom(func(q BundleRequest) string { return q.By }, func(r *http.Request, q BundleRequest, by string) (any, error) {
			q.BundleImport.By, q.Why = by, lane.Clean(q.Why, 500)
			return op.BundleImport(r.Context(), q.BundleImport)
		})},
		{"POST /v1/bundles/{name}/approve", byWhom(whoActs, func(r *http.Request, q ActRequest, by string) (any, error) {
			return op.BundleApprove(r.Context(), name(r), by, lane.Clean(q.Why, 500))
		})},
		{"POST /v1/bundles/{name}/revoke", byWhom(whoActs, func(r *http.Request, q ActRequest, by string) (any, error) {
			return op.BundleRevoke(r.Context(), name(r), by, lane.Clean(q.Why, 500))
		})},
		{"POST /v1/bundles/gc", byWhom(func(q GCRequest) string { return q.By }, func(r *http.Request, q GCRequest, by string) (any, error) {
			return op.BundleGC(r.Context(), q.Check, by)
		})},
		{"POST /v1/bundles/fsck", byWhom(whoActs, func(r *http.Request, _ ActRequest, by string) (any, error) { return op.BundleFsck(r.Context(), by) })},
		{"GET /v1/bundle-trust", func(*http.Request, []byte) (any, error) { return op.BundleTrust(), nil }},
		{"GET /v1/bundle-work", func(*http.Request, []byte) (any, error) { return op.BundleWork(), nil }},
		{"GET /v1/aliases", func(r *http.Request, _ []byte) (any, error) { return op.AliasList(r.Context()) }},
		{"POST /v1/aliases/{name}", byWhom(func(q AliasRequest) string { return q.By }, func(r *http.Request, q AliasRequest, by string) (any, error) {
			q.AliasMove.By, q.Why = by, lane.Clean(q.Why, 500)
			return op.AliasMove(r.Context(), name(r), q.AliasMove)
		})},
		{"POST /v1/aliases/{name}/rollback", byWhom(whoActs, func(r *http.Request, q ActRequest, by string) (any, error) {
			return op.AliasRollback(r.Context(), name(r), by, lane.Clean(q.Why, 500))
		})},
		{"POST /v1/aliases/{name}/remove", byWhom(whoActs, func(r *http.Request, q ActRequest, by string) (any, error) {
			return op.AliasRemove(r.Context(), name(r), by, lane.Clean(q.Why, 500))
		})},
	}
}

func whoActs(q ActRequest) string { return q.By }

// byWhom reads a request and refuses one that does not say who asks.
func byWhom[T any](who func(T) string, do func(r *http.Request, q T, by string) (any, error)) func(*http.Request, []byte) (any, error) {
	return func(r *http.Request, body []byte) (any, error) {
		q, err := decode[T](body)
		if err != nil {
			return nil, err
		}
		by := operator(who(q))
		if by == "" {
			return nil, lane.Errorf(lane.Invalid, "`by` is missing: who does this?")
		}
		return do(r, q, by)
	}
}

func bundlePath(name, rest string) string { return "/v1/bundles/" + url.PathEscape(name) + rest }

func aliasPath(name, rest string) string { return "/v1/aliases/" + url.PathEscape(name) + rest }

// Bundles returns the bundles in the store, by name and version.
func (c *Client) Bundles(ctx context.Context) ([]lane.BundleStatus, error) {
	return get[[]lane.BundleStatus](ctx, c, "/v1/bundles")
}

// Bundle returns the bundle that a name stands for: NAME-VERSION, a digest, or an alias.
func (c *Client) Bundle(ctx context.Context, name string) (lane.BundleStatus, error) {
	return get[lane.BundleStatus](ctx, c, bundlePath(name, ""))
}

// ImportBundle imports the bundle in a directory of the server's machine. It takes as long as
// the bundle is large: see [Client.BundleWork].
func (c *Client) ImportBundle(ctx context.Context, q lane.BundleImport) (lane.Bundle, error) {
	return post[lane.Bundle](ctx, c.patient(), "/v1/bundles", BundleRequest{q, c.By})
}

// ApproveBundle says that a bundle may be installed.
func (c *Client) ApproveBundle(ctx context.Context, name, why string) (lane.BundleRecord, error) {
	return post[lane.BundleRecord](ctx, c, bundlePath(name, "/approve"), ActRequest{By: c.By, Why: why})
}

// RevokeBundle says that a bundle may never be installed again, and returns whom that concerns.
func (c *Client) RevokeBundle(ctx context.Context, name, why string) (lane.Revocation, error) {
	return post[lane.Revocation](ctx, c, bundlePath(name, "/revoke"), ActRequest{By: c.By, Why: why})
}

// CollectBundles removes the bundles that nothing refers to; with check it only says which.
func (c *Client) CollectBundles(ctx context.Context, check bool) (lane.BundleGC, error) {
	return post[lane.BundleGC](ctx, c, "/v1/bundles/gc", GCRequest{check, c.By})
}

// FsckBundles hashes every file of the store. See [Client.BundleWork].
func (c *Client) FsckBundles(ctx context.Context) (lane.BundleFsck, error) {
	return post[lane.BundleFsck](ctx, c.patient(), "/v1/bundles/fsck", ActRequest{By: c.By})
}

// patient waits until ctx ends: gigabytes are read meanwhile, from a disk of any speed.
func (c *Client) patient() *Client {
	long, h := *c, *c.HTTP
	h.Timeout = 0
	long.HTTP = &h
	return &long
}

// BundleWork returns how far an import or a check of the store is.
func (c *Client) BundleWork(ctx context.Context) (lane.BundleWork, error) {
	return get[lane.BundleWork](ctx, c, "/v1/bundle-work")
}

// BundleTrust returns whose signatures bundles need.
func (c *Client) BundleTrust(ctx context.Context) (lane.Trust, error) {
	return get[lane.Trust](ctx, c, "/v1/bundle-trust")
}

// Aliases returns the aliases, by name.
func (c *Client) Aliases(ctx context.Context) ([]lane.BundleAlias, error) {
	return get[[]lane.BundleAlias](ctx, c, "/v1/aliases")
}

// MoveAlias points an alias at a bundle.
func (c *Client) MoveAlias(ctx context.Context, name string, m lane.AliasMove) (lane.BundleAlias, error) {
	return post[lane.BundleAlias](ctx, c, aliasPath(name, ""), AliasRequest{m, c.By})
}

// RollBackAlias points an alias at the bundle that it pointed at before.
func (c *Client) RollBackAlias(ctx context.Context, name, why string) (lane.BundleAlias, error) {
	return post[lane.BundleAlias](ctx, c, aliasPath(name, "/rollback"), ActRequest{By: c.By, Why: why})
}

// RemoveAlias takes an alias away.
func (c *Client) RemoveAlias(ctx context.Context, name, why string) (lane.BundleAlias, error) {
	return post[lane.BundleAlias](ctx, c, aliasPath(name, "/remove"), ActRequest{By: c.By, Why: why})
}
