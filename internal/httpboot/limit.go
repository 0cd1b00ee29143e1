package httpboot

import (
	"net"
	"net/http"
	"sync"
)

// Connections that one address, and all together, may hold open. A machine that
// installs holds a handful; installers fetch packages elsewhere.
const (
	maxFromOne = 256
	maxFromAll = 16384
)

// connections counts open connections by source. Closing happens in a hook of
// net/http and not in a listener that wraps connections: a wrapped one would lose
// sendfile.
type connections struct {
	mu      sync.Mutex
	all     int
	from    map[string]int
	counted map[net.Conn]string
}

func newConnections() *connections {
	return &connections{from: map[string]int{}, counted: map[net.Conn]string{}}
}

// hook is for http.Server.ConnState.
func (c *connections) hook(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if !c.enter(conn) {
			_ = conn.Close() // net/http then reports it closed
		}
	case http.StateClosed, http.StateHijacked:
		c.leave(conn)
	}
}

func (c *connections) enter(conn net.Conn) bool {
	source := host(conn.RemoteAddr().String())
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= maxFromAll || c.from[source] >= maxFromOne {
		return false
	}
	c.all++
	c.from[source]++
	c.counted[conn] = source
	return true
}

func (c *connections) leave(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	source, ok := c.counted[conn]
	if !ok {
		return
	}
	delete(c.counted, conn)
	c.all--
	if c.from[source]--; c.from[source] == 0 {
		delete(c.from, source)
	}
}
