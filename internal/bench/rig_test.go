package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// newBench has programs in place of namespaces and clients: what is tested is how the
// bench counts.
func newBench(t *testing.T, programs map[string]string) *rig {
	t.Helper()
	dir := t.TempDir()
	programs["ip"] = `shift 3; exec "$@"` // netns exec NAME
	for name, text := range programs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return &rig{options{}, dir}
}

// TestServerEnds: a server that has ended is told, before the load and under it.
func TestServerEnds(t *testing.T) {
	r := newBench(t, map[string]string{})
	if s, err := r.start(t.Context(), "dead", "true"); s != nil || err == nil || !strings.Contains(err.Error(), "dead ended at once") {
		t.Errorf("%v, %v", s, err)
	}
	s, err := r.start(t.Context(), "alive", "sleep", "100")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.cpu(); err != nil {
		t.Error(err)
	}
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); err == nil && time.Since(began) < 5*time.Second; time.Sleep(time.Millisecond) {
		_, err = s.cpu()
	}
	if err == nil || !strings.Contains(err.Error(), "alive has ended") {
		t.Errorf("%v", err)
	}
	if err := s.stop(); err != nil {
		t.Errorf("it ended by itself: %v", err)
	}
}

// TestNoServer: what failed to start again is there to be stopped all the same.
func TestNoServer(t *testing.T) {
	r := newBench(t, map[string]string{})
	s, err := r.start(t.Context(), "dead", "false")
	if err == nil || s.stop() != nil {
		t.Errorf("%v, %v", s, err)
	}
}

// TestLossyTime: what a server takes to end is not its transfer's time, and what did not
// end in time counts as far as it came.
func TestLossyTime(t *testing.T) {
	r := newBench(t, map[string]string{"atftp": `while [ "$1" != -l ]; do shift; done; head -c 1000000 /dev/zero > "$2"; exec sleep ${STAY:-1}`})
	for _, c := range []struct {
		server, stay string
		limit        time.Duration
	}{{"trap '' TERM; while :; do sleep 0.1; done", "1", time.Minute}, {"exec sleep 100", "30", time.Second}} {
		t.Setenv("STAY", c.stay)
		got, err := r.oneLossy(t.Context(), fileServer{"some", "file", func(ctx context.Context) (*server, error) {
			return r.start(ctx, "some", "sh", "-c", c.server)
		}}, 16, c.limit)
		if err != nil || got.Rate < 250 || got.Rate > 1000 || !strings.Contains(got.Note, "gave up") {
			t.Errorf("1 MB in a second, and a server that takes five to end: %.0f kB/s, %s, %v", got.Rate, got.Note, err)
		}
	}
}
