package app_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bootlane/internal/bundle"
	"bootlane/internal/control"
	"bootlane/internal/dhcp"
	"bootlane/internal/lane"
	"bootlane/internal/store/sqlite"
)

// exchange is a DISCOVER or REQUEST of PXE firmware, as a relay agent passes it on.
// The agent listens where it sends from, RFC 8357, so that it needs no port of its own.
func exchange(kind byte, n uint32, address net.IP) []byte {
	b := make([]byte, 240, 400)
	b[0], b[1], b[2] = 1, 1, 6
	binary.BigEndian.PutUint32(b[4:], n)
	copy(b[24:], []byte{127, 0, 0, 2})
	copy(b[28:], []byte{0x52, 0x54})
	binary.BigEndian.PutUint32(b[30:], n)
	copy(b[236:], []byte{99, 130, 83, 99})
	b = append(b, 53, 1, kind, 93, 2, 0, 7, 94, 3, 1, 3, 0, 57, 2, 5, 0xc0, 60, 32)
	b = append(b, "PXEClient:Arch:00007:UNDI:003000"...)
	b = append(b, 97, 17, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
	b = binary.BigEndian.AppendUint32(b, n)
	if address != nil {
		b = append(append(b, 50, 4), address.To4()...)
		b = append(b, 54, 4, 127, 0, 0, 1)
	}
	return append(b, 82, 2, 19, 0, 255)
}

// relayAgent plays machines that want an address, many at a time.
type relayAgent struct {
	conn    *net.UDPConn
	waiting sync.Map // xid to chan []byte
}

func (r *relayAgent) listen() {
	for {
		b := make([]byte, 1500)
		n, err := r.conn.Read(b)
		if err != nil {
			return
		}
		if c, ok := r.waiting.Load(binary.BigEndian.Uint32(b[4:])); ok {
			c.(chan []byte) <- b[:n]
		}
	}
}

// ask sends a message until it is answered, and returns yiaddr.
func (r *relayAgent) ask(n uint32, kind byte, address net.IP, answer chan []byte) net.IP {
	for {
		if _, err := r.conn.Write(exchange(kind, n, address)); err != nil {
			return nil
		}
		select {
		case b := <-answer:
			return net.IP(b[16:20])
		case <-time.After(2 * time.Second):
		}
	}
}

// BenchmarkExchange measures whole DHCP exchanges, DISCOVER to the durable ACK, of
// firmware that no record describes, over a socket, beside as many leases as it says.
func BenchmarkExchange(b *testing.B) {
	for _, leases := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprint(leases), func(b *testing.B) { exchanges(b, leases) })
	}
}

// leased returns a directory with a database of expired and active leases.
func leased(b *testing.B, n int) string {
	b.Helper()
	dir := b.TempDir()
	_, stop := opened(b, dir, time.Now) // makes the tables
	stop()
	e, err := sqlite.Open(b.Context(), filepath.Join(dir, "db"))
	check(b, err)
	now := time.Now().UnixMicro()
	_, err = e.Write.ExecContext(b.Context(), `WITH RECURSIVE k(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM k WHERE i + 1 < $1)
		INSERT INTO leases (mac, address, state, granted, expires)
		SELECT printf('02:00:00:%02x:%02x:%02x', i >> 16, i >> 8 & 255, i & 255), printf('127.%d.%d.%d', 64 + (i >> 16), i >> 8 & 255, i & 255), 'active', $2, $2 + 3600000000 FROM k`, n, now)
	check(b, err)
	check(b, e.Close())
	return dir
}

func exchanges(b *testing.B, leases int) {
	s, stop := opened(b, leased(b, leases), time.Now)
	b.Cleanup(stop)
	bundles, err := bundle.NewStore(filepath.Join(b.TempDir(), "bundles"), nil)
	check(b, err)
	c := control.New(control.Config{Store: s, Bundles: bundles, Now: time.Now, Rand: rand.Reader, HoldScreen: true, BaseURL: "http://127.0.0.1"})
	n := dhcp.Network{Interface: "lo", HTTPBase: "http://127.0.0.1", HoldScreen: true, Loaders: map[lane.Platform][]string{{Arch: lane.X86_64, Firmware: lane.UEFI}: {"snponly.efi"}},
		Subnet: lane.Subnet{Prefix: netip.MustParsePrefix("127.0.0.0/8"), Server: netip.MustParseAddr("127.0.0.1"), Relays: []netip.Addr{netip.MustParseAddr("127.0.0.2")}},
		Ranges: []dhcp.Range{{First: netip.MustParseAddr("127.16.0.1"), Last: netip.MustParseAddr("127.127.255.254")}}}
	srv, err := dhcp.New(b.Context(), dhcp.Config{Networks: []dhcp.Network{n}, Asker: c, Leases: s, Reservations: c, Evidence: c, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	check(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- srv.Run(ctx) }()
	b.Cleanup(func() { cancel(); check(b, <-served) })
	conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 67})
	check(b, err)
	b.Cleanup(func() { _ = conn.Close() })
	agent := &relayAgent{conn: conn}
	go agent.listen()
	var next atomic.Uint32
	b.SetParallelism(128)
	runtime.GC() // what reading the leases left behind is not an exchange's
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		answer := make(chan []byte, 16)
		for pb.Next() {
			n := next.Add(1)
			agent.waiting.Store(n, answer)
			a := agent.ask(n, 1, nil, answer)
			agent.ask(n, 3, a, answer)
			agent.waiting.Delete(n)
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "exchanges/s")
}
