package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"bootlane/internal/lane"
)

// Client speaks to a Server.
type Client struct {
	Base  string // http://127.0.0.1:8070
	Token string
	By    string // name of the operator
	HTTP  *http.Client
}

// ErrUnreachable is in the chain of every error that never got an answer.
var ErrUnreachable = errors.New("no answer")

// NewClient returns a client of the server at base.
func NewClient(base, token, by string) *Client {
	return &Client{Base: base, Token: token, By: by, HTTP: &http.Client{Timeout: 10 * time.Minute}}
}

func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.Base+path, body)
	if err != nil {
		return &lane.Error{Code: lane.Invalid, Message: "the server's address", Err: err}
	}
	req.Header.Set("Authorization", "Bearer "+c.Token)
	res, err := c.HTTP.Do(req)
	if err != nil {
		return fmt.Errorf("reach bootlane at %s: %w: %w", c.Base, ErrUnreachable, err)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, 1<<30))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return fmt.Errorf("read the answer of %s: %w: %w", c.Base, ErrUnreachable, err)
	}
	if res.StatusCode != http.StatusOK {
		var e ErrorReply
		if json.Unmarshal(data, &e) != nil || e.Message == "" {
			return fmt.Errorf("%s answered %s: is it a Bootlane operators' port?", c.Base, res.Status)
		}
		return &lane.Error{Code: e.Code, Message: e.Message, Problems: e.Problems}
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("decode the answer of %s: %w", c.Base, err)
	}
	return nil
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var v T
	err := c.do(ctx, http.MethodGet, path, nil, &v)
	return v, err
}

func post[T any](ctx context.Context, c *Client, path string, in any) (T, error) {
	var v T
	err := c.do(ctx, http.MethodPost, path, in, &v)
	return v, err
}

func hostPath(id, rest string) string { return "/v1/hosts/" + url.PathEscape(id) + rest }

// Version returns what serves.
func (c *Client) Version(ctx context.Context) (Version, error) {
	return get[Version](ctx, c, "/v1/version")
}

// Host returns one record.
func (c *Client) Host(ctx context.Context, id string) (lane.Host, error) {
	return get[lane.Host](ctx, c, hostPath(id, ""))
}

// Hosts returns every record, in order, page by page.
func (c *Client) Hosts(ctx context.Context) ([]lane.Host, error) {
	var out []lane.Host
	after := ""
	for {
		page, err := get[[]lane.Host](ctx, c, "/v1/hosts?limit=5000&after="+url.QueryEscape(after))
		if err != nil || len(page) == 0 {
			return out, err
		}
		out = append(out, page...)
		after = string(page[len(page)-1].ID)
	}
}

// Import adds and changes records, or with check only says what is wrong.
func (c *Client) Import(ctx context.Context, hosts []HostSpec, check bool) (ImportReply, error) {
	return post[ImportReply](ctx, c, "/v1/hosts/import", ImportRequest{hosts, check, c.By})
}

// Preflight tells what would forbid to provision hosts now.
func (c *Client) Preflight(ctx context.Context, q lane.Inspection) (lane.Preflown, error) {
	return post[lane.Preflown](ctx, c, "/v1/preflight", q)
}

// Provision grants one install.
func (c *Client) Provision(ctx context.Context, id string, p lane.Provisioning) (lane.Host, error) {
	return post[lane.Host](ctx, c, hostPath(id, "/runs"), ProvisionRequest{p, c.By})
}

// Act does one of cancel, confirm, quarantine, release and retire.
func (c *Client) Act(ctx context.Context, id, verb, why string) (lane.Host, error) {
	return post[lane.Host](ctx, c, hostPath(id, "/"+verb), ActRequest{By: c.By, Why: why})
}

// Accept records a replaced board or NIC, as the record of revision rev describes the
// dispute. It is refused when the machine has shown more since.
func (c *Client) Accept(ctx context.Context, id string, what lane.Replacement, rev int64, why string) (lane.Host, error) {
	return post[lane.Host](ctx, c, hostPath(id, "/accept"), ActRequest{By: c.By, Why: why, What: what, Rev: rev})
}

// Events returns up to limit events after a sequence number; after < 0 means the last ones.
func (c *Client) Events(ctx context.Context, subject string, after int64, limit int) ([]lane.Event, error) {
	return get[[]lane.Event](ctx, c, hostPath(subject, "/events?after="+strconv.FormatInt(after, 10)+"&limit="+strconv.Itoa(limit)))
}

// FirstBoot returns what a host's machine last reported of its first boot.
func (c *Client) FirstBoot(ctx context.Context, id string) (lane.FirstBoot, error) {
	return get[lane.FirstBoot](ctx, c, hostPath(id, "/firstboot"))
}

// Transfers returns the files of a host's run that are on their way to it now.
func (c *Client) Transfers(ctx context.Context, id string) ([]lane.Transfer, error) {
	return get[[]lane.Transfer](ctx, c, hostPath(id, "/transfers"))
}

// Unknown returns the machines without a record that left evidence.
func (c *Client) Unknown(ctx context.Context) ([]lane.Stranger, error) {
	return get[[]lane.Stranger](ctx, c, "/v1/unknown")
}

// Why says where a machine's lane stopped.
func (c *Client) Why(ctx context.Context, subject string) (lane.Verdict, error) {
	return get[lane.Verdict](ctx, c, hostPath(subject, "/why"))
}

// Chain returns a host's boot chain, as it is proven and as it was served.
func (c *Client) Chain(ctx context.Context, id string) (lane.BootChain, error) {
	return get[lane.BootChain](ctx, c, hostPath(id, "/chain"))
}

// Recording returns, as pcapng, what was recorded of a host, of a MAC, or of
// net:INTERFACE.
func (c *Client) Recording(ctx context.Context, subject string) ([]byte, error) {
	r, err := get[Recording](ctx, c, hostPath(subject, "/pcap"))
	return r.PCAPNG, err
}

// Responders returns the DHCP servers that were heard and are not this one.
func (c *Client) Responders(ctx context.Context) ([]lane.Responder, error) {
	return get[[]lane.Responder](ctx, c, "/v1/dhcp/servers")
}

// DHCP returns what the DHCP server is at.
func (c *Client) DHCP(ctx context.Context) (lane.DHCPState, error) {
	return get[lane.DHCPState](ctx, c, "/v1/dhcp")
}

// Leases returns every lease, by address as text.
func (c *Client) Leases(ctx context.Context) (out []lane.LeaseOf, err error) {
	const page = 5000
	for after := ""; ; after = out[len(out)-1].Address.String() {
		list, err := get[[]lane.LeaseOf](ctx, c, "/v1/dhcp/leases?limit="+strconv.Itoa(page)+"&after="+url.QueryEscape(after))
		out = append(out, list...)
		if err != nil || len(list) < page {
			return out, err
		}
	}
}

// ExportDHCP writes the configuration of a site's own DHCP server.
func (c *Client) ExportDHCP(ctx context.Context, e lane.DHCPExport) (lane.Rendered, error) {
	return get[lane.Rendered](ctx, c, "/v1/dhcp/export/"+url.PathEscape(e.Server)+"?"+url.Values{"form": {e.Form}, "network": {e.Network}, "range": {e.Range}}.Encode())
}

// ReleaseLease takes an address back.
func (c *Client) ReleaseLease(ctx context.Context, address, why string) (lane.Lease, error) {
	return post[lane.Lease](ctx, c, "/v1/dhcp/leases/"+url.PathEscape(address)+"/release", ActRequest{By: c.By, Why: why})
}

// Probe asks who answers DHCP on an interface, or on all.
func (c *Client) Probe(ctx context.Context, iface string) (lane.Probed, error) {
	return post[lane.Probed](ctx, c, "/v1/dhcp/probe", ProbeRequest{iface})
}

// WhatIf returns what each surface would answer a host now.
func (c *Client) WhatIf(ctx context.Context, id string) ([]lane.Foresight, error) {
	return get[[]lane.Foresight](ctx, c, hostPath(id, "/whatif"))
}

// WhatIfAll returns which hosts would be erased if every machine rebooted now.
func (c *Client) WhatIfAll(ctx context.Context) (lane.Census, error) {
	return get[lane.Census](ctx, c, "/v1/whatif")
}

// Render returns everything that would be served to a host.
func (c *Client) Render(ctx context.Context, id string) ([]lane.Rendered, error) {
	return get[[]lane.Rendered](ctx, c, hostPath(id, "/render"))
}

// Explain returns what a host's installed system gets, and which level says so.
func (c *Client) Explain(ctx context.Context, id string) ([]lane.Origin, error) {
	return get[[]lane.Origin](ctx, c, hostPath(id, "/seed"))
}
