package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"bootlane/internal/lane"
)

// AdoptRequest asks to make a record of a machine that was looked at.
type AdoptRequest struct {
	lane.Adoption
	By string `json:"by"`
}

// discoveryRoutes are the calls about machines that an agent looked at.
func (s *Server) discoveryRoutes() []route {
	op := s.cfg.Operator
	return []route{
		{"GET /v1/discovered", func(r *http.Request, _ []byte) (any, error) {
			list, err := op.Discovered(r.Context())
			if list == nil {
				list = []lane.Discovered{}
			}
			return list, err
		}},
		{"GET /v1/discovered/{id}", func(r *http.Request, _ []byte) (any, error) { return op.DiscoveredAs(r.Context(), r.PathValue("id")) }},
		{"POST /v1/discovered/{id}/adopt", func(r *http.Request, body []byte) (any, error) {
			q, err := decode[AdoptRequest](body)
			if err != nil {
				return nil, err
			}
			by := operator(q.By)
			if by == "" {
				return nil, lane.Errorf(lane.Invalid, "`by` is missing: who does this?")
			}
			out, err := op.Adopt(r.Context(), r.PathValue("id"), q.Adoption, by)
			out.Host = public(out.Host)
			return out, err
		}},
	}
}

// Discovered returns what agents found of machines.
func (c *Client) Discovered(ctx context.Context) ([]lane.Discovered, error) {
	return get[[]lane.Discovered](ctx, c, "/v1/discovered")
}

// DiscoveredAs returns what was found of one machine: by its id, a MAC or its serial number.
func (c *Client) DiscoveredAs(ctx context.Context, name string) (lane.Discovered, error) {
	return get[lane.Discovered](ctx, c, "/v1/discovered/"+url.PathEscape(name))
}

// Adopt makes a record of a machine that was looked at, or with a check says what it would be.
func (c *Client) Adopt(ctx context.Context, name string, a lane.Adoption) (lane.Adopted, error) {
	return post[lane.Adopted](ctx, c, "/v1/discovered/"+url.PathEscape(name)+"/adopt", AdoptRequest{a, c.By})
}

// Inspect has a host looked at when its machine boots by network within a time.
func (c *Client) Inspect(ctx context.Context, id string, within time.Duration, why string) (lane.Host, error) {
	return post[lane.Host](ctx, c, hostPath(id, "/inspect"), ActRequest{By: c.By, Why: why, For: within})
}
