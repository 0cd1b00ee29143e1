package httpboot

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

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
	return context.WithValue(ctx, connKey{}, c)
}

// begin notes a whole file's transfer and returns what ends it. A part of a file
// is not noted: it says nothing about the whole.
func (t *transfers) begin(r *http.Request, p lane.RunPath, total int64) (end func()) {
	conn, ok := r.Context().Value(connKey{}).(*net.TCPConn)
	if !ok || r.Method != http.MethodGet || r.Header.Get("Range") != "" {
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

// acknowledged returns how many bytes the other side has confirmed, or zero when
// the connection is gone.
func acknowledged(c *net.TCPConn) int64 {
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
