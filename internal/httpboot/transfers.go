package httpboot

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"bootlane/internal/lane"
)

// transfers knows the files of runs that are on their way. How much of one has
// arrived is asked of the kernel, and only when somebody wants to know: the bytes
// leave by sendfile, and nobody counts them here.
type transfers struct {
	mu  sync.Mutex
	all []*transfer
}

type transfer struct {
	capability, name string
	conn             *net.TCPConn
	before           int64 // acknowledged on the connection before this file
	total            int64
}

type connKey struct{}

// withConn is for http.Server.ConnContext.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

// connOf returns the connection of a request; nil in a test without one.
func connOf(r *http.Request) *net.TCPConn {
	c, _ := r.Context().Value(connKey{}).(*net.TCPConn)
	return c
}

// begin notes a whole file's transfer and returns what ends it. A part of a file
// is not noted: it says nothing about the whole.
func (t *transfers) begin(r *http.Request, p lane.RunPath, total int64) (end func()) {
	conn := connOf(r)
	if conn == nil || r.Method != http.MethodGet || r.Header.Get("Range") != "" {
		return func() {}
	}
	one := &transfer{capability: p.Capability, name: p.Name, conn: conn, before: acknowledged(conn), total: total}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, one)
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.all = slices.DeleteFunc(t.all, func(o *transfer) bool { return o == one })
	}
}

// Transfers returns the files on their way under a run's capability, by name. Done
// is what the machine has acknowledged.
func (s *Server) Transfers(capability string) []lane.Transfer {
	s.transfers.mu.Lock()
	defer s.transfers.mu.Unlock()
	var out []lane.Transfer
	for _, t := range s.transfers.all {
		if t.capability == capability {
			out = append(out, lane.Transfer{Name: t.name, Done: min(max(acknowledged(t.conn)-t.before, 0), t.total), Total: t.total})
		}
	}
	slices.SortStableFunc(out, func(a, b lane.Transfer) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// received waits until the other side has confirmed so many bytes of its connection, and
// reports whether it has. That they were sent says nothing: the kernel takes a whole boot
// loader at once, and a client that goes then has none of it. Nor does it say anything
// that the client is gone: firmware resets the connection when it has the file. An answer
// is longer than its file by its header, which is not counted: it tells nothing more.
func received(w http.ResponseWriter, r *http.Request, bytes int64) bool {
	if http.NewResponseController(w).Flush() != nil {
		return false
	}
	conn := connOf(r)
	for pause := time.Millisecond; pause < lastAck; pause *= 2 {
		if acknowledged(conn) >= bytes {
			return true
		}
		select {
		case <-r.Context().Done():
			return acknowledged(conn) >= bytes-delayed
		case <-time.After(pause):
		}
	}
	return false
}

// delayed is how much a client may have without having confirmed it, when it resets the
// connection: two segments, RFC 1122 4.2.3.2.
const delayed = 2 * 1460

// lastAck bounds the pauses, and with them the time for which an answer's last bytes are
// waited for: twice as long.
const lastAck = time.Minute

// acknowledged returns how many bytes the other side has confirmed, or zero when
// the connection is gone.
func acknowledged(c *net.TCPConn) int64 {
	if c == nil {
		return 0
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	var n int64
	err = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = int64(info.Bytes_acked)
		}
	})
	if err != nil {
		return 0
	}
	return n
}

// cork makes the kernel gather full segments until pull is called (tcp(7), TCP_CORK). net/http sets TCP_NODELAY, and
// with that each few pages of a file are a push of their own, which is most of what a large file costs.
func cork(c *net.TCPConn) (pull func()) {
	set := func(int) bool { return false }
	if c != nil {
		if raw, err := c.SyscallConn(); err == nil {
			set = func(on int) (ok bool) {
				err := raw.Control(func(fd uintptr) { ok = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, on) == nil })
				return err == nil && ok // a connection that is gone has nothing to gather
			}
		}
	}
	if !set(1) {
		return func() {}
	}
	return func() { set(0) }
}
