package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// Config is what a Server is made of.
type Config struct {
	Addr     string // host:port
	Token    string // bearer token every call must carry
	Operator Operator
	Observer Observer
	DHCP     DHCP
	Version  Version
	Log      *slog.Logger
	// Transfers returns the files on their way under a run's capability.
	Transfers func(capability string) []lane.Transfer
}

// Server serves operators. Every route needs the token: one that did not could
// not be written here.
type Server struct {
	cfg   Config
	lis   net.Listener
	token [sha256.Size]byte
}

// maxBody is how much a call may send: an inventory of 30,000 machines fits.
const maxBody = 64 << 20

// New opens the listener. An empty token is an error: there is no open mode.
func New(ctx context.Context, cfg Config) (*Server, error) {
	if len(cfg.Token) < 32 {
		return nil, lane.Errorf(lane.Invalid, "the operators' token is missing or shorter than 32 characters: delete its file, a new one is made at the next start")
	}
	var lc net.ListenConfig
	lis, err := lc.Listen(ctx, "tcp", cfg.Addr)
	if err != nil {
		return nil, &lane.Error{Code: lane.Unavailable, Message: "open the operators' HTTP port " + cfg.Addr +
			": is the port free (`ss -ltnp`)? Else change listen.operators", Err: err}
	}
	return &Server{cfg: cfg, lis: lis, token: sha256.Sum256([]byte(cfg.Token))}, nil
}

// Addr returns the address that is listened on.
func (s *Server) Addr() string { return s.lis.Addr().String() }

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	srv := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug)}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(s.lis) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve operators: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		return srv.Close()
	}
	return nil
}

// route is one call: it gets the request's body and returns what becomes JSON.
type route struct {
	pattern string
	serve   func(r *http.Request, body []byte) (any, error)
}

// Handler returns the API behind its authentication.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		mux.HandleFunc(r.pattern, func(w http.ResponseWriter, req *http.Request) { s.call(w, req, r) })
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !s.authentic(req) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			reply(w, http.StatusUnauthorized, ErrorReply{Code: lane.Refused, Message: "this API needs the operators' token: Authorization: Bearer TOKEN"})
			return
		}
		mux.ServeHTTP(w, req)
	})
}

func (s *Server) authentic(r *http.Request) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	sum := sha256.Sum256([]byte(token)) // same length whatever was sent
	return ok && subtle.ConstantTimeCompare(sum[:], s.token[:]) == 1
}

func (s *Server) call(w http.ResponseWriter, r *http.Request, route route) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		reply(w, http.StatusRequestEntityTooLarge, ErrorReply{Code: lane.Invalid, Message: fmt.Sprintf("a request has at most %d bytes", maxBody)})
		return
	}
	v, err := route.serve(r, body)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	reply(w, http.StatusOK, v)
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := ErrorReply{Code: lane.CodeOf(err), Message: err.Error()}
	if le, ok := err.(*lane.Error); ok {
		e.Message, e.Problems = le.Message, le.Problems
		if le.Err != nil {
			e.Message += ": " + le.Err.Error()
		}
	}
	status := http.StatusInternalServerError
	switch e.Code {
	case lane.Invalid:
		status = http.StatusBadRequest
	case lane.NotFound:
		status = http.StatusNotFound
	case lane.Refused:
		status = http.StatusForbidden
	case lane.Conflict:
		status = http.StatusConflict
	case lane.Unavailable:
		status = http.StatusServiceUnavailable
	default:
		s.cfg.Log.Error("operator call failed", "path", r.URL.Path, "err", err)
		e.Message = "internal error; the server's log says more"
	}
	reply(w, status, e)
}

func reply(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"message":"the answer could not be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a client that went away is not our error
}

func (s *Server) routes() []route {
	op := s.cfg.Operator
	return append([]route{
		{"GET /v1/version", func(*http.Request, []byte) (any, error) { return s.cfg.Version, nil }},
		{"GET /v1/hosts", s.listHosts},
		{"POST /v1/hosts/import", s.importHosts},
		{"GET /v1/hosts/{id}", func(r *http.Request, _ []byte) (any, error) { return open(op.Host(r.Context(), id(r))) }},
		{"GET /v1/hosts/{id}/events", s.events},
		{"GET /v1/hosts/{id}/why", func(r *http.Request, _ []byte) (any, error) { return op.Why(r.Context(), r.PathValue("id")) }},
		{"GET /v1/hosts/{id}/chain", func(r *http.Request, _ []byte) (any, error) { return op.Chain(r.Context(), id(r)) }},
		{"GET /v1/hosts/{id}/whatif", func(r *http.Request, _ []byte) (any, error) { return op.WhatIf(r.Context(), id(r)) }},
		{"GET /v1/hosts/{id}/render", func(r *http.Request, _ []byte) (any, error) { return op.Render(r.Context(), id(r)) }},
		{"GET /v1/hosts/{id}/seed", func(r *http.Request, _ []byte) (any, error) { return op.Explain(r.Context(), id(r)) }},
		{"GET /v1/hosts/{id}/firstboot", func(r *http.Request, _ []byte) (any, error) { return op.FirstBoot(r.Context(), id(r)) }},
		{"GET /v1/hosts/{id}/transfers", s.transfers},
		{"POST /v1/hosts/{id}/runs", s.provision},
		{"GET /v1/hosts/{id}/pcap", s.recording},
		{"GET /v1/dhcp", func(*http.Request, []byte) (any, error) { return s.cfg.DHCP.State(), nil }},
		{"GET /v1/dhcp/leases", s.leases},
		{"GET /v1/dhcp/export/{server}", func(r *http.Request, _ []byte) (any, error) {
			q := r.URL.Query()
			return op.ExportDHCP(r.Context(), lane.DHCPExport{Server: r.PathValue("server"), Form: q.Get("form"), Network: q.Get("network"), Range: q.Get("range")})
		}},
		{"POST /v1/dhcp/leases/{address}/release", s.releaseLease},
		{"GET /v1/dhcp/servers", func(*http.Request, []byte) (any, error) { return s.cfg.Observer.Responders(), nil }},
		{"POST /v1/dhcp/probe", s.probe},
		{"POST /v1/preflight", func(r *http.Request, body []byte) (any, error) {
			q, err := decode[lane.Inspection](body)
			if err != nil {
				return nil, err
			}
			return op.Preflight(r.Context(), q)
		}},
		{"GET /v1/whatif", func(r *http.Request, _ []byte) (any, error) { return op.WhatIfAll(r.Context()) }},
		{"GET /v1/unknown", func(r *http.Request, _ []byte) (any, error) { return op.Unknown(r.Context()) }},
	}, append(append(append(s.acts(), s.bundleRoutes()...), s.clusterRoutes()...), s.discoveryRoutes()...)...)
}

// acts are the verbs on one host that need a who and a why.
func (s *Server) acts() []route {
	op := s.cfg.Operator
	act := func(do func(ctx context.Context, id lane.HostID, a ActRequest) (lane.Host, error)) func(*http.Request, []byte) (any, error) {
		return func(r *http.Request, body []byte) (any, error) {
			a, err := decode[ActRequest](body)
			if err != nil {
				return nil, err
			}
			if a.By = operator(a.By); a.By == "" {
				return nil, lane.Errorf(lane.Invalid, "`by` is missing: who does this?")
			}
			a.Why = lane.Clean(a.Why, 500)
			return open(do(r.Context(), id(r), a))
		}
	}
	return []route{
		{"POST /v1/hosts/{id}/cancel", act(func(ctx context.Context, id lane.HostID, a ActRequest) (lane.Host, error) {
			return op.Cancel(ctx, id, a.By, a.Why)
		})},
		{"POST /v1/hosts/{id}/confirm", act(func(ctx context.Context, id lane.HostID, a ActRequest) (lane.Host, error) {
			return op.Confirm(ctx, id, a.By, a.Why)
		})},
		{"POST /v1/hosts/{id}/quarantine", act(func(ctx context.Context, id lane.HostID, a ActRequest) (lane.Host, error) {
			return op.Quarantine(ctx, id, a.By, a.Why)
		})},
		{"POST /v1/hosts/{id}/release", act(func(ctx context.Context, id lane.HostID, a ActRequest) (lane.Host, error) {
			return op.Release(ctx, id, a.By, a.Why)
		})},
		{"POST /v1/hosts/{id}/retire", act(func(ctx context.Context, id lane.HostID, a ActRequest) (lane.Host, error) {
			return op.Retire(ctx, id, a.By, a.Why)
		})},
		{"POST /v1/hosts/{id}/inspect", act(func(ctx context.Context, id lane.HostID, a ActRequest) (lane.Host, error) {
			return op.Inspect(ctx, id, a.For, a.By, a.Why)
		})},
		{"POST /v1/hosts/{id}/accept", act(func(ctx context.Context, id lane.HostID, a ActRequest) (lane.Host, error) {
			if a.What != lane.ReplacedBoard && a.What != lane.ReplacedNIC {
				return lane.Host{}, lane.Errorf(lane.Invalid, "`what` is %q: accept a board or a nic", a.What)
			}
			return op.Accept(ctx, id, a.What, a.Rev, a.By, a.Why)
		})},
	}
}

func id(r *http.Request) lane.HostID { return lane.HostID(r.PathValue("id")) }

// operator marks a name as a person's: no surface of ours may be impersonated.
func operator(by string) string {
	by = lane.Clean(by, 64)
	if by == "" {
		return ""
	}
	return "op:" + by
}

func open(h lane.Host, err error) (any, error) { return public(h), err }

func (s *Server) listHosts(r *http.Request, _ []byte) (any, error) {
	limit, err := number(r, "limit", 500, 1, 5000)
	if err != nil {
		return nil, err
	}
	hosts, err := s.cfg.Operator.Hosts(r.Context(), lane.HostID(r.URL.Query().Get("after")), int(limit))
	for i := range hosts {
		hosts[i] = public(hosts[i])
	}
	if hosts == nil {
		hosts = []lane.Host{}
	}
	return hosts, err
}

func (s *Server) events(r *http.Request, _ []byte) (any, error) {
	limit, err := number(r, "limit", 500, 1, 5000)
	if err != nil {
		return nil, err
	}
	after, err := number(r, "after", -1, -1, 1<<62)
	if err != nil {
		return nil, err
	}
	events, err := s.cfg.Operator.Events(r.Context(), r.PathValue("id"), after, int(limit))
	if events == nil {
		events = []lane.Event{}
	}
	return events, err
}

func (s *Server) transfers(r *http.Request, _ []byte) (any, error) {
	h, err := s.cfg.Operator.Host(r.Context(), id(r))
	if err != nil {
		return nil, err
	}
	out := []lane.Transfer{}
	if h.Run.Open {
		out = append(out, s.cfg.Transfers(h.Run.Capability)...)
	}
	return out, nil
}

// recording exports what the boot networks recorded of a host, of a MAC, or, for
// net:INTERFACE, of everybody there.
func (s *Server) recording(r *http.Request, _ []byte) (any, error) {
	subject := r.PathValue("id")
	iface, isNet := strings.CutPrefix(subject, lane.NetSubject(""))
	var macs []lane.MAC
	if m, err := lane.ParseMAC(strings.TrimPrefix(subject, "mac:")); err == nil {
		macs = []lane.MAC{m}
	} else if !isNet {
		h, err := s.cfg.Operator.Host(r.Context(), id(r))
		if err != nil {
			return nil, err
		}
		if macs = h.Identity.MACs; len(macs) == 0 {
			return nil, lane.Errorf(lane.Conflict, "the record %s has no MAC, and a recording is looked through by MAC", h.ID)
		}
	}
	if !isNet {
		iface = ""
	}
	var b bytes.Buffer
	err := s.cfg.Observer.Export(&b, iface, macs)
	return Recording{b.Bytes()}, err
}

func (s *Server) leases(r *http.Request, _ []byte) (any, error) {
	limit, err := number(r, "limit", 500, 1, 5000)
	if err != nil {
		return nil, err
	}
	list, err := s.cfg.Operator.Leases(r.Context(), r.URL.Query().Get("after"), int(limit))
	if list == nil {
		list = []lane.LeaseOf{}
	}
	return list, err
}

func (s *Server) releaseLease(r *http.Request, body []byte) (any, error) {
	q, err := decode[ActRequest](body)
	if err != nil {
		return nil, err
	}
	by := operator(q.By)
	if by == "" {
		return nil, lane.Errorf(lane.Invalid, "`by` is missing: who does this?")
	}
	a, err := netip.ParseAddr(r.PathValue("address"))
	if err != nil {
		return nil, lane.Errorf(lane.Invalid, "%q is not an address", r.PathValue("address"))
	}
	l, err := s.cfg.DHCP.Release(r.Context(), a)
	if err != nil {
		return nil, err
	}
	return l, s.cfg.Operator.Released(r.Context(), l, by, lane.Clean(q.Why, 500))
}

func (s *Server) probe(r *http.Request, body []byte) (any, error) {
	q, err := decode[ProbeRequest](body)
	if err != nil {
		return nil, err
	}
	return s.cfg.Observer.Probe(r.Context(), q.Interface)
}

func number(r *http.Request, name string, unset, least, most int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return unset, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least || n > most {
		return 0, lane.Errorf(lane.Invalid, "%s=%q: give a number from %d to %d", name, text, least, most)
	}
	return n, nil
}

func (s *Server) importHosts(r *http.Request, body []byte) (any, error) {
	q, err := decode[ImportRequest](body)
	if err != nil {
		return nil, err
	}
	var out ImportReply
	specs := make([]lane.Host, len(q.Hosts))
	for i, spec := range q.Hosts {
		h, problems := spec.Host()
		specs[i] = h
		for _, p := range problems {
			out.Problems = append(out.Problems, lane.Problem{Field: fmt.Sprintf("hosts[%d].%s", i, p.Field), Message: p.Message})
		}
	}
	if operator(q.By) == "" {
		return nil, lane.Errorf(lane.Invalid, "`by` is missing: who does this?")
	}
	done, problems, err := s.cfg.Operator.Import(r.Context(), specs, operator(q.By), q.Check || len(out.Problems) > 0)
	out.Imported, out.Problems = done, append(out.Problems, problems...)
	return out, err
}

func (s *Server) provision(r *http.Request, body []byte) (any, error) {
	q, err := decode[ProvisionRequest](body)
	if err != nil {
		return nil, err
	}
	p := q.Provisioning
	if p.By = operator(q.By); p.By == "" {
		return nil, lane.Errorf(lane.Invalid, "`by` is missing: who asks for this?")
	}
	p.Why = lane.Clean(p.Why, 500)
	return open(s.cfg.Operator.Provision(r.Context(), id(r), p))
}
