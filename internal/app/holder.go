package app

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// holder says who has a port.
type holder uint8

const (
	holderUnknown holder = iota // nobody whose files we may look at
	holderOurs                  // a process that has our file open as well
	holderOther
)

// holds finds out from /proc who has the port of addr, and whether file is open to them too.
func holds(network, addr, file string) holder {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return holderUnknown
	}
	sockets := socketsOn(strings.TrimRight(network, "46"), a)
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real
	}
	if whole, err := filepath.Abs(file); err == nil {
		file = whole
	}
	out := holderUnknown
	dirs, _ := filepath.Glob("/proc/[0-9]*/fd") // the pattern is good
	for _, dir := range dirs {
		var has, ours bool
		entries, _ := os.ReadDir(dir) // of another user's process, or of one that is gone
		for _, e := range entries {
			target, _ := os.Readlink(filepath.Join(dir, e.Name()))
			has = has || slices.Contains(sockets, target)
			ours = ours || target == file
		}
		// Which interface a socket is tied to is not told: where we have one, it is ours that is in the way.
		if has && ours {
			return holderOurs
		}
		if has {
			out = holderOther
		}
	}
	return out
}

// socketsOn returns what /proc/PID/fd calls the sockets that take what comes for an address: "socket:[inode]".
func socketsOn(network string, addr netip.AddrPort) (out []string) {
	const local, state, inode = 1, 3, 9 // columns
	for _, version := range []string{"", "6"} {
		table, _ := os.ReadFile("/proc/net/" + network + version) // there is none without IPv6
		for line := range strings.Lines(string(table)) {
			f := strings.Fields(line)
			if len(f) <= inode || network == "tcp" && f[state] != "0A" {
				continue
			}
			ip, port, _ := strings.Cut(f[local], ":")
			everywhere := strings.Trim(ip, "0") == "" || addr.Addr().IsUnspecified()
			if port == fmt.Sprintf("%04X", addr.Port()) && (everywhere || ip == asKernel(addr.Addr())) {
				out = append(out, "socket:["+f[inode]+"]")
			}
		}
	}
	return out
}

// asKernel writes an address as /proc/net does: in words of four bytes, the last one first.
func asKernel(a netip.Addr) (out string) {
	for word := range slices.Chunk(a.AsSlice(), 4) {
		slices.Reverse(word)
		out += fmt.Sprintf("%X", word)
	}
	return out
}
