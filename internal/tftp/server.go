package tftp

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"bootlane/internal/udp"
)

const (
	maxRequest  = 9216             // bytes; RFC 1350 says 512, jumbo frames allow this
	openTimeout = 20 * time.Second // for Source.Open; clients give up after 6 tries of 4 s (PXE 2.1)
)

// abandonedAfter is how long a client that had answered is silent when the same request from the same port is its next
// attempt, and not the last one come twice: ROMs ask from a fixed port again after a reset.
const abandonedAfter = time.Second

// unheardFor is how long a client may leave our answer unanswered before its place goes to others, if all are taken: by
// then the answer was sent twice.
const unheardFor = 2 * time.Second

// maxThreads is up to how many transfers may each have a thread of their own.
const maxThreads = 8

// internalError is all that a client reads of a cause that is none of its business.
const internalError = "internal error, try again"

// errAbsorbed says that a request came again while it is being answered. The client just has not heard us yet.
var errAbsorbed = errors.New("request came again")

// errSoon says that all places are taken, but one of them so far by nobody that was heard: when the client repeats its
// request there may be room. An ERROR would end its boot.
var errSoon = errors.New("all places are taken, and one may be free soon")

// errNoRoom ends a transfer that nobody answers, because another one needs its place.
var errNoRoom = errors.New("no answer from the client, and others need the place")

// Server is a TFTP server with its socket open. [Server.Run] serves and, at its end, closes the socket.
type Server struct {
	cfg     Config
	conn    *udp.Conn
	names   map[int]string // interface names by index; Run's goroutine owns them
	namesAt time.Time      // when they were forgotten last
	running sync.WaitGroup // one for each transfer

	mu      sync.Mutex // guards what follows
	active  map[slot]*transfer
	clients map[netip.Addr]int           // transfers of each client address
	asked   map[netip.AddrPort]*transfer // by the port of the client, its newest; of a single port only
	unheard list.List                    // transfers that were begun, the oldest first; who has answered since is taken out when come across
	stats   Stats
}

// slot is what can have one transfer at a time.
type slot struct {
	client netip.AddrPort
	name   string
}

// Stats counts what happened since the start.
type Stats struct {
	Active     int // transfers going on now
	Requests   int // read requests with a name that can be served
	Duplicates int // requests that came again and were absorbed
	Busy       int // requests turned away by MaxTransfers or MaxPerClient
	Panics     int // faults of a packet handler, a Source, a Content or Done that were caught
}

// New checks the configuration and opens the socket. Its error names the address and says how to mend it.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	conn, err := openListener(cfg.Addr, cfg.SinglePort)
	if err != nil {
		return nil, err
	}
	return &Server{
		cfg: cfg, conn: conn,
		names: map[int]string{}, active: map[slot]*transfer{}, clients: map[netip.Addr]int{}, asked: map[netip.AddrPort]*transfer{},
	}, nil
}

// Addr returns the address that the server listens on, with the port that was chosen if Config.Addr has port 0.
func (s *Server) Addr() netip.AddrPort { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// Stats returns the counters as they are now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Run serves until ctx ends, which tells the clients of open transfers and returns nil, or until the socket breaks. When
// it returns the socket is closed, every Content is closed, Done was called for each, and no goroutine is left. Call it
// once.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.conn.Close()
	defer s.running.Wait()
	defer cancel()
	stop := interruptOn(ctx, s.conn.UDPConn)
	defer stop()
	buf := make([]byte, maxRequest)
	for failed := 0; ctx.Err() == nil; {
		n, from, at, err := s.conn.Receive(buf)
		if err == nil {
			failed = 0
			s.guard(func() { s.handle(ctx, buf[:n], at, from) })
		} else if failed++; failed > maxReadErrors && ctx.Err() == nil {
			return fmt.Errorf("read tftp socket %s: %w", s.Addr(), err)
		}
	}
	return nil
}

// guard calls f and survives its panic: one bad packet or file must not take the others' service away.
func (s *Server) guard(f func()) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.mu.Lock()
			s.stats.Panics++
			s.mu.Unlock()
			s.cfg.Log.Error("tftp: caught a panic", "panic", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	f()
	return nil
}

// handle answers one datagram on the listening socket.
// RFC 1123 section 4.2.3.5 wants requests that went to many at once ignored.
func (s *Server) handle(ctx context.Context, b []byte, at udp.Arrival, from netip.AddrPort) {
	p, err := parse(b)
	if d := s.deskOf(from, p.op); d != nil {
		d.put(b)
		return
	}
	if !at.Local.IsValid() || at.Broadcast || from.Port() == 0 || len(b) < 2 || p.op == opError || s.cfg.SinglePort && p.op == opAck {
		// Answering an ERROR could make two servers talk to each other forever. With one port, an ACK that came late
		// is of a transfer that is over, and its client may be about to ask from the same port again.
		return
	}
	name, refused := p.request(err)
	if refused != nil {
		s.cfg.Log.Debug("tftp: refused a packet", "client", from, "name", p.name, "why", refused.Text)
		s.reply(from, at, refused)
		return
	}
	t := &transfer{at: at, options: p.options, netascii: strings.EqualFold(p.mode, "netascii"), now: s.cfg.Now, report: Transfer{
		Request: Request{Name: name, Client: from, Local: at.Local, Interface: s.interfaceName(at.Interface)},
		Started: s.cfg.Now(), Outcome: OutcomeAborted,
	}}
	ctx, t.end = context.WithCancelCause(ctx)
	err = s.admit(t)
	if err == nil {
		s.running.Go(func() { s.serve(ctx, t) })
		return
	}
	t.end(err)
	if errors.Is(err, errAbsorbed) {
		return
	}
	s.cfg.Log.Debug("tftp: busy", "client", from, "why", err)
	if !errors.Is(err, errSoon) {
		s.reply(from, at, busy())
	}
}

func busy() *Error { return &Error{CodeUndefined, "busy, try again"} }

// request returns the name that a packet asks for, or what to answer a packet that is no good request. malformed is what
// parse said about it.
func (p packet) request(malformed error) (string, *Error) {
	switch {
	case p.op == opWrite:
		return "", &Error{CodeAccessViolation, "this server is read-only"}
	case p.op == opData || p.op == opAck || p.op == opOack:
		return "", &Error{CodeUnknownTID, "no transfer on this port"}
	case p.op != opRead:
		return "", &Error{CodeIllegal, "unknown operation"}
	case malformed != nil:
		return "", &Error{CodeIllegal, malformed.Error()}
	case !strings.EqualFold(p.mode, "octet") && !strings.EqualFold(p.mode, "netascii"):
		return "", &Error{CodeIllegal, "mode is not octet or netascii"}
	}
	return normaliseName(p.name)
}

// admit takes a place for a transfer, which release gives back.
func (s *Server) admit(t *transfer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Requests++
	key, client := slot{t.report.Client, t.report.Name}, t.report.Client.Addr()
	switch {
	case s.active[key] != nil && !s.active[key].abandoned(s.cfg.Now()):
		s.stats.Duplicates++
		return errAbsorbed
	case s.clients[client] >= s.cfg.MaxPerClient:
		s.stats.Busy++
		return fmt.Errorf("%d transfers of this client are open", s.clients[client])
	}
	if err := s.makeRoom(); err != nil {
		s.stats.Busy++
		return err
	}
	if old := s.active[key]; old != nil {
		old.end(errMovedOn)
	}
	if s.cfg.SinglePort {
		s.succeed(t)
	}
	s.active[key] = t
	s.clients[client]++
	s.stats.Active++
	return nil
}

// succeed ends what the client asked for before from the same port, also what is still being opened: whatever we say from
// our one port is to the client about what it asked for last.
func (s *Server) succeed(t *transfer) {
	if old := s.asked[t.report.Client]; old != nil {
		old.end(errMovedOn)
		if old.desk != nil {
			_ = old.desk.Close()
		}
		if key := (slot{t.report.Client, old.report.Name}); s.active[key] == old {
			delete(s.active, key) // should the client come back to it, it is asked for anew
		}
	}
	s.asked[t.report.Client] = t
}

// makeRoom sees to it that there is a place. Requests are forged easily, from any address, and take every place; but
// nobody answers what they are answered. So the oldest transfer that nobody has ever answered has to go.
func (s *Server) makeRoom() error {
	if s.stats.Active < s.cfg.MaxTransfers {
		return nil
	}
	for e := s.unheard.Front(); e != nil; e = s.unheard.Front() {
		t := e.Value.(*transfer)
		switch {
		case t.heard.Load() != 0:
			s.unheard.Remove(e)
		case s.cfg.Now().Sub(t.begun) < unheardFor:
			return errSoon
		default:
			s.vacate(t)
			t.end(errNoRoom)
			return nil
		}
	}
	return fmt.Errorf("%d transfers are open", s.stats.Active)
}

// release ends what the server knows of a transfer.
func (s *Server) release(t *transfer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked[t.report.Client] == t {
		delete(s.asked, t.report.Client)
	}
	s.vacate(t)
}

// vacate gives the place of a transfer back, unless it has none any more.
func (s *Server) vacate(t *transfer) {
	if t.vacated {
		return
	}
	t.vacated = true
	client := t.report.Client.Addr()
	if key := (slot{t.report.Client, t.report.Name}); s.active[key] == t {
		delete(s.active, key)
	}
	if t.waits != nil {
		s.unheard.Remove(t.waits)
	}
	if s.clients[client]--; s.clients[client] == 0 {
		delete(s.clients, client)
	}
	s.stats.Active--
}

// serve answers an admitted request and reports how that went.
func (s *Server) serve(ctx context.Context, t *transfer) {
	var err error
	if p := s.guard(func() { err = s.send(ctx, t) }); p != nil {
		err = p
	}
	switch moved := errors.Is(context.Cause(ctx), errMovedOn); {
	case err != nil && moved:
		t.report.Err = errMovedOn // an ERROR would be taken for one about the newer request
	case err != nil:
		t.report.Err = err
		s.reply(t.report.Client, t.at, refusal(err))
	}
	s.release(t)
	t.end(nil)
	t.report.Duration = s.cfg.Now().Sub(t.report.Started)
	level := slog.LevelDebug
	if err := t.report.Err; err != nil && refusal(err).Text == internalError && !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, errMovedOn) {
		level = slog.LevelWarn // the client was told nothing, so somebody else has to be
	}
	s.cfg.Log.Log(ctx, level, "tftp: request ended", "name", t.report.Name, "client", t.report.Client,
		"outcome", t.report.Outcome, "bytes", t.report.Bytes, "resent", t.report.Retransmits,
		"said", t.report.ClientError, "err", t.report.Err)
	if t.content != nil && s.cfg.Done != nil {
		_ = s.guard(func() { s.cfg.Done(t.report) })
	}
}

// send opens the content and transfers it. An error of it has not been told to the client yet.
func (s *Server) send(ctx context.Context, t *transfer) error {
	openCtx, cancel := context.WithTimeout(ctx, openTimeout)
	content, err := s.cfg.Source.Open(openCtx, t.report.Request)
	cancel()
	if err != nil {
		return fmt.Errorf("open %s: %w", t.report.Name, err)
	}
	t.content = content
	defer content.Close()
	if t.netascii {
		text, err := toNetascii(content)
		if err != nil {
			return err
		}
		t.content = text
	}
	t.report.Size = t.content.Size()
	if err := s.open(t); err != nil {
		return err
	}
	defer t.conn.Close()
	t.terms = negotiate(t.options, limits{
		size: t.report.Size, window: s.cfg.MaxWindow, timeout: s.cfg.Timeout,
		block: func() int { return s.cfg.clampBlock(largestBlock(t.report.Local, t.report.Client)) },
	})
	t.report.BlockSize, t.report.WindowSize = t.terms.block, t.terms.window
	if sg, ok := t.conn.(segmenter); ok && t.terms.window > 1 && t.terms.block >= leastSegment && sg.segment(headerSize+t.terms.block) == nil {
		t.segmenter = sg
	}
	t.sender = newSender(t.report.Size, t.terms, s.cfg.Timeout)
	s.begin(t)
	t.run(ctx)
	return nil
}

// begin notes that a client is about to be answered for the first time.
func (s *Server) begin(t *transfer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.begun, t.waits = s.cfg.Now(), s.unheard.PushBack(t)
}

// open opens what a transfer speaks through.
func (s *Server) open(t *transfer) error {
	if !s.cfg.SinglePort {
		conn, err := openTransfer(t.report.Local)
		if err != nil {
			return err
		}
		if s.Stats().Active > maxThreads {
			t.conn = polled{conn}
			return nil
		}
		t.conn, err = newThreaded(conn, t.report.Client)
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked[t.report.Client] != t {
		return errMovedOn // to another file, while this one was opened
	}
	t.desk = newDesk(t.report.Client, s.conn, t.at)
	t.conn = t.desk
	return nil
}

// deskOf returns where a packet that came to the well-known port belongs, or nil.
func (s *Server) deskOf(from netip.AddrPort, op uint16) *desk {
	if op != opAck && op != opError {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.asked[from]; t != nil {
		return t.desk
	}
	return nil
}

// reply sends an ERROR from the listening socket, from the address that was asked. No socket of its own is worth it:
// errors are not acknowledged, and most of them are firmware looking for files that need not exist.
func (s *Server) reply(to netip.AddrPort, at udp.Arrival, e *Error) {
	if err := s.conn.Send(encodeError(e), at, to); err != nil {
		s.cfg.Log.Debug("tftp: cannot send an error", "client", to, "err", err)
	}
}

// interfaceName returns the name of an interface, or "". The kernel lists every interface to tell one, so names are
// remembered, but not for long: they can change.
func (s *Server) interfaceName(index int) string {
	if now := s.cfg.Now(); now.Sub(s.namesAt) >= 10*time.Second {
		clear(s.names)
		s.namesAt = now
	}
	name, ok := s.names[index]
	if !ok {
		if i, err := net.InterfaceByIndex(index); err == nil {
			name = i.Name
		}
		s.names[index] = name
	}
	return name
}
