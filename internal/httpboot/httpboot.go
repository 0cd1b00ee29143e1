// Package httpboot serves everything that machines fetch or post by HTTP: boot
// loaders, scripts, bundle files, installer documents, orders and reports.
//
// Firmware is not a browser: nothing redirects, every answer has an exact
// Content-Length, an error has a body (shim hangs on an empty 404), and nothing
// is compressed. Files leave by sendfile: no ResponseWriter is wrapped.
package httpboot

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"bootlane/internal/iso"
	"bootlane/internal/lane"
	"bootlane/internal/script"
	"bootlane/internal/seed"
)

// BootFile is an open boot loader or script.
type BootFile interface {
	io.ReadSeekCloser
	io.ReaderAt
}

// Boots answers boot loaders. An error's code becomes the status.
type Boots interface {
	Boot(ctx context.Context, p lane.BootPath, f lane.Facts) (BootFile, error)
	Script(ctx context.Context, f lane.Facts, failed bool) ([]byte, lane.Decision, error)
	Loaded(p lane.BootPath) // a whole file, that the machine has acknowledged
}

// Runs answers what is fetched under a run's capability.
type Runs interface {
	File(ctx context.Context, p lane.RunPath, f lane.Facts) (lane.BundleFile, error)
	// Tree returns the ISO image in which the installer tree lies.
	Tree(ctx context.Context, p lane.RunPath, f lane.Facts) (lane.BundleFile, error)
	Seed(ctx context.Context, p lane.RunPath, f lane.Facts) (seed.Document, error)
}

// Reports takes what is posted under a run's capability.
type Reports interface {
	Order(ctx context.Context, capability string, hw lane.Hardware, f lane.Facts) (lane.Order, error)
	Report(ctx context.Context, capability string, r lane.Report) error
	// Join returns the script with which the machine joins its cluster. It holds a credential.
	Join(ctx context.Context, p lane.RunPath, f lane.Facts) ([]byte, error)
}

// Inspections answers agents that only look at their machine.
type Inspections interface {
	InspectFile(ctx context.Context, p lane.InspectPath, f lane.Facts) (lane.BundleFile, error)
	Inspected(ctx context.Context, ticket string, hw lane.Hardware, f lane.Facts) (lane.InspectReply, error)
}

// Files opens the files of bundles.
type Files interface {
	Open(f lane.BundleFile) (*os.File, error)
}

// Config is what a Server is made of.
type Config struct {
	Listeners []Listener // at least one; the first is what Addr tells
	Boots     Boots
	Runs      Runs
	Reports   Reports
	Inspects  Inspections
	Files     Files
	Now       func() time.Time
	Log       *slog.Logger
}

// Listener is one port for machines.
type Listener struct {
	Addr string // host:port
	// BaseURL returns our URL by this port, http://10.0.0.1:8080, as a machine reaches it
	// that spoke to this address of ours.
	BaseURL func(local string) string
	TLS     *tls.Config // nil: plain HTTP
}

// Server serves machines.
type Server struct {
	cfg       Config
	lis       []net.Listener
	transfers transfers
}

// Limits of what a machine may send.
const (
	maxQuery  = 8 << 10
	maxForm   = 32 << 10
	maxOrder  = 1 << 20
	maxHeader = 16 << 10
)

// New opens the listeners.
func New(ctx context.Context, cfg Config) (*Server, error) {
	var lc net.ListenConfig
	s := &Server{cfg: cfg}
	for _, l := range cfg.Listeners {
		lis, err := lc.Listen(ctx, "tcp", l.Addr)
		if err != nil {
			for _, open := range s.lis {
				err = errors.Join(err, open.Close())
			}
			return nil, &lane.Error{Code: lane.Unavailable, Message: "open the machines' HTTP port " + l.Addr +
				": is the address on this machine (`ip -br address`), and the port free (`ss -ltnp`)? Else change it under `listen`", Err: err}
		}
		if l.TLS != nil {
			lis = tls.NewListener(lis, l.TLS)
		}
		s.lis = append(s.lis, lis)
	}
	return s, nil
}

// Addr returns the address that is listened on.
func (s *Server) Addr() string { return s.lis[0].Addr().String() }

// viaKey is the context key of the Listener by which a request came.
type viaKey struct{}

// Run serves until ctx ends, then lets running transfers finish for ten seconds.
func (s *Server) Run(ctx context.Context) error {
	via := func(lis net.Listener) context.Context {
		return context.WithValue(context.WithoutCancel(ctx), viaKey{}, s.cfg.Listeners[slices.Index(s.lis, lis)])
	}
	srv := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 60 * time.Second, IdleTimeout: 60 * time.Second, MaxHeaderBytes: maxHeader,
		ConnState: newConnections().hook, BaseContext: via, ConnContext: withConn,
		ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug)}
	done := make(chan error, len(s.lis))
	for _, lis := range s.lis {
		go func() { done <- srv.Serve(lis) }()
	}
	select {
	case err := <-done:
		return fmt.Errorf("serve machines by HTTP: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		return errors.Join(srv.Close()) // the transfers that are left are cut; machines resume them
	}
	return nil
}

// ServeHTTP routes by the path grammar. It is a plain handler and no ServeMux:
// that one redirects "//" and "..", and firmware follows no redirect.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.deadline(w, 0)
	f := lane.Facts{Surface: lane.SurfaceHTTP, From: host(r.RemoteAddr), Server: s.reached(r), HTTPBoot: strings.HasPrefix(r.UserAgent(), "UefiHttpBoot")}
	switch {
	case len(r.URL.RawQuery) > maxQuery:
		fail(w, lane.Errorf(lane.Invalid, "the query has %d bytes, %d are the limit", len(r.URL.RawQuery), maxQuery))
	case r.URL.Path == "/healthz":
		text(w, r, http.StatusOK, "text/plain; charset=utf-8", []byte("ok\n"))
	case r.URL.Path == lane.ScriptPath:
		s.script(w, r, f)
	case strings.HasPrefix(strings.TrimLeft(r.URL.Path, "/"), "run/"):
		s.run(w, r, f)
	case strings.HasPrefix(strings.TrimLeft(r.URL.Path, "/"), "inspect/"):
		s.inspect(w, r, f)
	default:
		s.boot(w, r, f)
	}
}

// slowest is the rate, in bytes a second, below which a reader is given up:
// connections that are never read from must not pile up.
const slowest = 50_000

// deadline bounds how long an answer of so many bytes may take.
func (s *Server) deadline(w http.ResponseWriter, bytes int64) {
	limit := 2*time.Minute + time.Duration(bytes/slowest)*time.Second
	// A writer without deadlines is a test's recorder.
	_ = http.NewResponseController(w).SetWriteDeadline(s.cfg.Now().Add(limit))
}

// reached returns our URL as the machine of a request reached it.
func (s *Server) reached(r *http.Request) string {
	local := ""
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok { // none in a test without a connection
		local = host(a.String())
	}
	if via, ok := r.Context().Value(viaKey{}).(Listener); ok {
		return via.BaseURL(local)
	}
	return s.cfg.Listeners[0].BaseURL(local)
}

func host(remote string) string {
	h, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	return h
}

func (s *Server) script(w http.ResponseWriter, r *http.Request, f lane.Facts) {
	if !method(w, r, http.MethodGet) { // not HEAD: asking counts a boot of the grant
		return
	}
	f, err := scriptFacts(r.URL.RawQuery, f)
	if err != nil {
		fail(w, err)
		return
	}
	body, _, err := s.cfg.Boots.Script(r.Context(), f, false)
	if code := lane.CodeOf(err); err != nil && (code == lane.Unavailable || code == lane.Conflict || code == "") {
		// iPXE shows no error body: a script that waits and asks again does more than a status.
		s.cfg.Log.Error("script not answered", "mac", f.MAC, "err", err)
		text(w, r, http.StatusOK, "text/plain", script.Unavailable(f.Server, f))
		return
	}
	if err != nil {
		fail(w, err)
		return
	}
	text(w, r, http.StatusOK, "text/plain", body)
}

func (s *Server) boot(w http.ResponseWriter, r *http.Request, f lane.Facts) {
	if !method(w, r, http.MethodGet, http.MethodHead) {
		return
	}
	p, ok := lane.ParseBootPath(r.URL.Path)
	if !ok {
		fail(w, lane.Errorf(lane.NotFound, "nothing is served as %q", lane.Clean(r.URL.Path, 200)))
		return
	}
	file, err := s.cfg.Boots.Boot(r.Context(), p, f)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	defer s.closing(file)
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.deadline(w, size)
	before := acknowledged(connOf(r))
	w.Header().Set("Content-Type", mediaType(p.File))
	w.Header().Set("Cache-Control", "no-store")
	content(w, r, unwrap(file))
	if r.Method == http.MethodGet && r.Header.Get("Range") == "" && received(w, r, before+size) {
		s.cfg.Boots.Loaded(p)
	}
}

func (s *Server) run(w http.ResponseWriter, r *http.Request, f lane.Facts) {
	p, ok := lane.ParseRunPath(r.URL.Path)
	if !ok {
		fail(w, lane.Errorf(lane.NotFound, "nothing is served under this path"))
		return
	}
	f.Speaker = lane.SpeakerInstaller
	switch p.Asset {
	case lane.AssetFile:
		s.file(w, r, p, f)
	case lane.AssetTree:
		s.tree(w, r, p, f)
	case lane.AssetSeed:
		if !method(w, r, http.MethodGet, http.MethodHead) {
			return
		}
		if r.URL.RawQuery != "" { // Talos says there who it is, and what it asks for is given once
			if !method(w, r, http.MethodGet) {
				return
			}
			v, err := once(r.URL.RawQuery)
			if err != nil {
				s.refuse(w, r, err)
				return
			}
			f = saidOfItself(v, f)
		}
		doc, err := s.cfg.Runs.Seed(r.Context(), p, f)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		text(w, r, http.StatusOK, doc.Type, doc.Body)
	case lane.AssetOrder:
		s.order(w, r, p, f)
	case lane.AssetReport:
		s.report(w, r, p, f)
	case lane.AssetJoin:
		s.join(w, r, p, f)
	}
}

func (s *Server) file(w http.ResponseWriter, r *http.Request, p lane.RunPath, f lane.Facts) {
	if !method(w, r, http.MethodGet, http.MethodHead) {
		return
	}
	bf, err := s.cfg.Runs.File(r.Context(), p, f)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	defer s.transfers.begin(r, p, bf.SizeBytes)()
	s.whole(w, r, p.Name, bf)
}

// whole answers with a file of a bundle.
func (s *Server) whole(w http.ResponseWriter, r *http.Request, name string, bf lane.BundleFile) {
	file, err := s.cfg.Files.Open(bf)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	defer s.closing(file)
	s.deadline(w, bf.SizeBytes)
	w.Header().Set("Content-Type", mediaType(name))
	w.Header().Set("ETag", `"`+string(bf.Digest)+`"`)
	w.Header().Set("Cache-Control", "private, immutable")
	content(w, r, file)
}

// tree serves a file out of an ISO image.
func (s *Server) tree(w http.ResponseWriter, r *http.Request, p lane.RunPath, f lane.Facts) {
	if !method(w, r, http.MethodGet, http.MethodHead) {
		return
	}
	bf, err := s.cfg.Runs.Tree(r.Context(), p, f)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	image, err := s.cfg.Files.Open(bf)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	defer s.closing(image)
	file, info, err := within(image, bf.SizeBytes, p.Name)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.deadline(w, info.Size())
	w.Header().Set("Content-Type", mediaType(p.Name))
	w.Header().Set("ETag", `"`+string(bf.Digest)+"/"+url.PathEscape(p.Name)+`"`)
	w.Header().Set("Cache-Control", "private, immutable")
	content(w, r, file)
}

// within opens a plain file that lies in an ISO image.
func within(image io.ReaderAt, size int64, name string) (io.ReadSeeker, fs.FileInfo, error) {
	im, err := iso.Open(image, size)
	if err != nil {
		return nil, nil, err
	}
	file, err := im.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, lane.Errorf(lane.NotFound, "the installer tree has no file %s", name)
	} else if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	seeker, ok := file.(io.ReadSeeker)
	if !ok { // a directory
		return nil, nil, lane.Errorf(lane.NotFound, "%s is a directory of the installer tree: only its files are served", name)
	}
	return seeker, info, nil
}

// content answers with a file, or the part of it that is asked for.
func content(w http.ResponseWriter, r *http.Request, file io.ReadSeeker) {
	defer cork(connOf(r))()
	http.ServeContent(w, r, "", time.Time{}, file)
}

func (s *Server) order(w http.ResponseWriter, r *http.Request, p lane.RunPath, f lane.Facts) {
	if !method(w, r, http.MethodPost) {
		return
	}
	hw, err := hardware(w, r)
	if err != nil {
		fail(w, err)
		return
	}
	o, err := s.cfg.Reports.Order(r.Context(), p.Capability, hw, f)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.json(w, r, o)
}

// inspect answers an agent that only looks at its machine.
func (s *Server) inspect(w http.ResponseWriter, r *http.Request, f lane.Facts) {
	p, ok := lane.ParseInspectPath(r.URL.Path)
	if !ok {
		fail(w, lane.Errorf(lane.NotFound, "nothing is served under this path"))
		return
	}
	f.Speaker = lane.SpeakerInstaller
	if p.Name != "" {
		if !method(w, r, http.MethodGet, http.MethodHead) {
			return
		}
		bf, err := s.cfg.Inspects.InspectFile(r.Context(), p, f)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		s.whole(w, r, p.Name, bf)
		return
	}
	if !method(w, r, http.MethodPost) {
		return
	}
	hw, err := hardware(w, r)
	if err != nil {
		fail(w, err)
		return
	}
	reply, err := s.cfg.Inspects.Inspected(r.Context(), p.Ticket, hw, f)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.json(w, r, reply)
}

// hardware reads what an agent tells of its machine.
func hardware(w http.ResponseWriter, r *http.Request) (hw lane.Hardware, err error) {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxOrder)).Decode(&hw); err != nil {
		return hw, &lane.Error{Code: lane.Invalid, Message: "the hardware report is not the JSON that bootlane-agent sends", Err: err}
	}
	return hw, hw.Canonical()
}

func (s *Server) json(w http.ResponseWriter, r *http.Request, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	text(w, r, http.StatusOK, "application/json", body)
}

func (s *Server) report(w http.ResponseWriter, r *http.Request, p lane.RunPath, f lane.Facts) {
	if !method(w, r, http.MethodPost) {
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if err != nil {
		fail(w, lane.Errorf(lane.Invalid, "a report has at most %d bytes", maxForm))
		return
	}
	rep, err := parseReport(string(body), f)
	if err != nil {
		fail(w, err)
		return
	}
	if err := s.cfg.Reports.Report(r.Context(), p.Capability, rep); err != nil {
		s.refuse(w, r, err)
		return
	}
	text(w, r, http.StatusOK, "text/plain; charset=utf-8", []byte("recorded\n"))
}

// join answers with the script that leads into a cluster. Not HEAD: asking issues a credential.
func (s *Server) join(w http.ResponseWriter, r *http.Request, p lane.RunPath, f lane.Facts) {
	if !method(w, r, http.MethodGet) {
		return
	}
	v, err := once(r.URL.RawQuery)
	if err != nil {
		fail(w, err)
		return
	}
	body, err := s.cfg.Reports.Join(r.Context(), p, saidOfItself(v, f))
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	text(w, r, http.StatusOK, "text/x-shellscript; charset=utf-8", body)
}

// refuse answers an error; what is ours to know goes to the log.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if status(err) >= 500 {
		s.cfg.Log.Error("request not answered", "path", redact(r.URL.Path), "from", r.RemoteAddr, "err", err)
	}
	fail(w, err)
}

// redact keeps capabilities out of the log.
func redact(p string) string {
	if rp, ok := lane.ParseRunPath(p); ok {
		rp.Capability = "REDACTED"
		return rp.String()
	}
	if ip, ok := lane.ParseInspectPath(p); ok {
		ip.Ticket = "REDACTED"
		return ip.String()
	}
	return lane.Clean(p, 200)
}

func (s *Server) closing(c io.Closer) {
	if err := c.Close(); err != nil {
		s.cfg.Log.Debug("close a served file", "err", err)
	}
}

// unwrap keeps sendfile alive: ServeContent must see the *os.File itself.
func unwrap(f BootFile) io.ReadSeeker {
	if file, ok := f.(*os.File); ok {
		return file
	}
	return f
}

func method(w http.ResponseWriter, r *http.Request, allowed ...string) bool {
	for _, m := range allowed {
		if r.Method == m {
			return true
		}
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	plain(w, http.StatusMethodNotAllowed, "this is asked for by "+strings.Join(allowed, " or ")+"\n")
	return false
}

func status(err error) int {
	switch lane.CodeOf(err) {
	case lane.Invalid:
		return http.StatusBadRequest
	case lane.NotFound:
		return http.StatusNotFound
	case lane.Refused:
		return http.StatusForbidden
	case lane.Conflict, lane.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

func fail(w http.ResponseWriter, err error) {
	code := status(err)
	msg := err.Error()
	if code == http.StatusInternalServerError {
		msg = "internal error; the server's log says more"
	}
	plain(w, code, msg+"\n")
}

func plain(w http.ResponseWriter, code int, msg string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(msg)))
	w.WriteHeader(code)
	_, _ = io.WriteString(w, msg) // a client that went away is not our error
}

func text(w http.ResponseWriter, r *http.Request, code int, mediaType string, body []byte) {
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	if r.Method != http.MethodHead {
		_, _ = bytes.NewReader(body).WriteTo(w) // a client that went away is not our error
	}
}

// mediaType: UEFI HTTP Boot compares the type as a whole, parameters included.
func mediaType(name string) string {
	switch strings.ToLower(path.Ext(name)) {
	case ".efi":
		return "application/efi"
	case ".iso":
		return "application/vnd.efi-iso"
	case ".img":
		return "application/vnd.efi-img"
	case ".ipxe":
		return "text/plain"
	}
	return "application/octet-stream"
}
