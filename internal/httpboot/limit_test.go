package httpboot

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"bootlane/internal/nettest"
)

// One source may hold maxFromOne connections; one more is closed unread, and
// there is room again when another has ended.
func TestConnectionsFromOneSource(t *testing.T) {
	s, err := New(t.Context(), Config{Listeners: []Listener{{Addr: "127.0.0.1:0", BaseURL: func(string) string { return "" }}}, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close() // one was closed by the test itself
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for i := range maxFromOne {
		c, err := asks(s.Addr())
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		conns = append(conns, c)
	}
	if c, err := asks(s.Addr()); err == nil {
		conns = append(conns, c)
		t.Fatalf("connection %d from one source is served", maxFromOne+1)
	}
	if err := conns[0].Close(); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, "a connection that ended makes room", func() bool {
		c, err := asks(s.Addr())
		if err == nil {
			conns = append(conns, c)
		}
		return err == nil
	})
}

// asks opens a connection, has one request answered, and leaves it open.
func asks(addr string) (net.Conn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if err = c.SetDeadline(time.Now().Add(5 * time.Second)); err == nil {
		_, err = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, res.Body.Close()
}
