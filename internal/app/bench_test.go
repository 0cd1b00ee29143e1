package app_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bootlane/internal/bundle"
	"bootlane/internal/control"
	"bootlane/internal/httpboot"
	"bootlane/internal/lane"
	"bootlane/internal/store"
	"bootlane/internal/store/sqlite"
	"bootlane/internal/store/storetest"
)

type benchBoots struct{ *control.Control }

func (b benchBoots) Boot(ctx context.Context, p lane.BootPath, f lane.Facts) (httpboot.BootFile, error) {
	return b.Control.Boot(ctx, p, f)
}

// fleet serves machines' HTTP from a store with n hosts, imported before the
// server was started.
func fleet(b *testing.B, n int, now func() time.Time) (base string, s *store.Store) {
	b.Helper()
	dir := b.TempDir()
	s, stop := opened(b, dir, now)
	populate(b, s, n)
	stop()
	s, stop = opened(b, dir, now)
	bundles, err := bundle.NewStore(filepath.Join(dir, "bundles"), nil)
	check(b, err)
	c := control.New(control.Config{Store: s, Bundles: bundles, Now: now, Rand: rand.Reader, BaseURL: "http://127.0.0.1"})
	srv, err := httpboot.New(b.Context(), httpboot.Config{Listeners: []httpboot.Listener{{Addr: "127.0.0.1:0", BaseURL: func(string) string { return "http://127.0.0.1" }}}, Boots: benchBoots{c}, Runs: c, Reports: c, Files: bundles, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	check(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- srv.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		check(b, <-served)
		stop()
	})
	return "http://" + srv.Addr(), s
}

// opened returns the running store in dir, and what ends it.
func opened(b *testing.B, dir string, now func() time.Time) (*store.Store, func()) {
	b.Helper()
	e, err := sqlite.Open(b.Context(), filepath.Join(dir, "db"))
	check(b, err)
	return storetest.Start(b, e, now)
}

func check(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func benchID(i int) (lane.UUID, lane.MAC) {
	return lane.UUID(fmt.Sprintf("4c4c4544-0042-3510-8052-%012x", i+1)), lane.MAC(fmt.Sprintf("52:54:%02x:%02x:%02x:%02x", i>>24&255, i>>16&255, i>>8&255, i&255))
}

func populate(b *testing.B, s *store.Store, n int) {
	b.Helper()
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 256 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				u, m := benchID(i)
				spec := lane.Host{ID: lane.HostID(fmt.Sprintf("n%06d", i)), Hostname: fmt.Sprintf("n%06d", i), Arch: lane.X86_64, Bundle: "debian-1",
					Identity: lane.Identity{UUID: u, MACs: []lane.MAC{m}, Serial: fmt.Sprintf("SN%06d", i), Rack: "r"}, Disk: lane.DiskSelector{Serial: "D"}}
				h, e := lane.Enrol(spec, "bench", time.Now())
				if _, _, err := s.Append(b.Context(), h, e); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkScript asks for boot scripts over HTTP, each request from another
// machine: server, store and load generator share the processors. The clock moves
// on after every round, so that a small fleet's evidence is written too, line by
// line, and not counted into the line before: only the inventory's size differs.
func BenchmarkScript(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprintf("hosts=%d", n), func(b *testing.B) {
			var next atomic.Int64
			start := time.Now()
			base, _ := fleet(b, n, func() time.Time { return start.Add(time.Duration(next.Load()) / time.Duration(n) * 90 * time.Second) })
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
			b.SetParallelism(16)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					i := int(next.Add(1)*7919) % n
					u, m := benchID(i)
					res, err := client.Get(base + lane.ScriptPath + "?uuid=" + string(u) + "&mac=" + m.Hyphens() + "&macs=" + m.Hyphens() + fmt.Sprintf("&serial=SN%06d&buildarch=x86_64&platform=efi", i))
					if err != nil {
						b.Error(err)
						return
					}
					_, err = io.Copy(io.Discard, res.Body)
					if err = errors.Join(err, res.Body.Close()); err != nil || res.StatusCode != http.StatusOK {
						b.Errorf("%d, %v", res.StatusCode, err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
		})
	}
}

// BenchmarkAppend changes records durably, as many at once as machines would.
func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			_, s := fleet(b, writers, time.Now)
			b.ResetTimer()
			var wg sync.WaitGroup
			var left atomic.Int64
			left.Store(int64(b.N))
			for w := range writers {
				wg.Go(func() {
					h, err := s.Host(b.Context(), lane.HostID(fmt.Sprintf("n%06d", w)))
					for err == nil && left.Add(-1) >= 0 {
						h, _, err = s.Append(b.Context(), h, lane.Event{Subject: string(h.ID), At: time.Now(), Kind: lane.KindUpdated, By: "bench"})
					}
					if err != nil {
						b.Error(err)
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}
