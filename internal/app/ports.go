package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"syscall"

	"bootlane/internal/lane"
	"bootlane/internal/udp"
)

// socket is one that a server with this configuration opens.
type socket struct {
	field   string // of the configuration
	name    string // for people
	network string // as package net calls it
	addr    string
	device  string // interface that it is tied to, if it is
}

// sockets lists them. What is not readable, or not of this machine, has its line from check and here.
func (c Config) sockets() (out []socket) {
	for _, l := range []struct{ name, network, addr string }{{"machines", "tcp", c.Listen.Machines}, {"operators", "tcp", c.Listen.Operators}, {"https", "tcp", c.Listen.HTTPS}, {"legacyHTTPS", "tcp", c.Listen.LegacyHTTPS}, {"tftp", "udp", c.Listen.TFTP}} {
		if _, err := netip.ParseAddrPort(l.addr); err == nil {
			out = append(out, socket{"listen." + l.name, l.addr + " (" + l.network + ")", l.network, l.addr, ""})
		}
	}
	add := func(field, network, addr, device string) {
		s := socket{field, addr + " (" + network + ") on " + device, network, addr, device}
		if !slices.ContainsFunc(out, func(o socket) bool { return o.name == s.name }) {
			out = append(out, s)
		}
	}
	for i, n := range c.Networks {
		field := fmt.Sprintf("networks[%d].interface", i)
		if _, err := net.InterfaceByName(n.Interface); err != nil {
			continue
		}
		if n.Mode != modeExternal && !n.Only4011 {
			add(field, "udp4", "0.0.0.0:67", n.Interface)
		}
		if n.Proxy() {
			add(field, "udp4", "0.0.0.0:4011", n.Interface)
		}
		if n.IPv6 != nil {
			add(field, "udp6", "[::]:547", n.Interface)
		}
	}
	return out
}

// open opens the socket and closes it again: nobody else's is touched, for a port is never shared.
func (s socket) open(ctx context.Context) error {
	var c io.Closer
	var err error
	if s.network == "tcp" {
		var lc net.ListenConfig
		c, err = lc.Listen(ctx, s.network, s.addr)
	} else {
		c, err = udp.Listen(ctx, s.network, s.addr, udp.Options{Device: s.device, Broadcast: s.network == "udp4"})
	}
	if err != nil {
		return err
	}
	return c.Close()
}

// tryPorts returns what keeps ports from being opened, and what of that is no fault of the
// configuration.
func (c Config) tryPorts(ctx context.Context) (out []lane.Problem, notes []string) {
	for _, s := range c.sockets() {
		err := s.open(ctx)
		switch {
		case err == nil, errors.Is(err, syscall.EADDRNOTAVAIL): // here says that
		case errors.Is(err, fs.ErrPermission):
			notes = append(notes, "whether "+s.name+" is free cannot be tried without root, or CAP_NET_BIND_SERVICE and CAP_NET_RAW")
		case errors.Is(err, syscall.EADDRINUSE):
			switch holds(s.network, s.addr, filepath.Join(c.Data, DatabaseFile)) {
			case holderUnknown:
				notes = append(notes, s.name+" is in use, and by whom cannot be told: `ss -lntup` as root shows it")
			case holderOurs:
				notes = append(notes, s.name+" is in use, by a running bootlane of this data directory")
			case holderOther:
				out = append(out, lane.Problem{Field: s.field, Message: s.name + " is in use by another program: `ss -lntup` shows which; stop it, or listen elsewhere"})
			}
		default:
			out = append(out, lane.Problem{Field: s.field, Message: fmt.Sprintf("%s cannot be opened: %v", s.name, err)})
		}
	}
	return out, notes
}
