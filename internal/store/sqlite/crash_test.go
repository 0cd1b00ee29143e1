package sqlite_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"bootlane/internal/lane"
	"bootlane/internal/store"
	"bootlane/internal/store/sqlite"
)

// childEnv makes the test binary the victim of TestKill.
const childEnv = "BOOTLANE_TEST_VICTIM"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		if err := victim(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func clock() time.Time { return time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC) }

func leaseOf(n int) lane.Lease {
	return lane.Lease{MAC: lane.MAC(fmt.Sprintf("52:54:00:00:%02x:%02x", n>>8, n&255)), Address: netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}),
		State: lane.LeaseActive, Granted: clock(), Expires: clock().Add(time.Hour)}
}

func lease6Of(n int) lane.Lease6 {
	l := leaseOf(n)
	return lane.Lease6{Client: lane.Client(l.MAC), Address: netip.MustParseAddr(fmt.Sprintf("fd77::%x", n)), State: l.State, Granted: l.Granted, Expires: l.Expires}
}

// victim writes leases and consumes boots of a grant from several goroutines,
// and says on standard output what was acknowledged, until it is killed.
func victim(path string) error {
	ctx := context.Background()
	e, err := sqlite.Open(ctx, path)
	if err != nil {
		return err
	}
	s, err := store.New(ctx, e, clock)
	if err != nil {
		return err
	}
	go func() { _ = s.Run(ctx) }() // ends with the process
	done, err := s.Leases(ctx)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	next := 0
	for _, l := range done { // go on behind what earlier victims wrote
		a := l.Address.As4()
		next = max(next, int(a[2])<<8|int(a[3]))
	}
	acknowledged := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf(format+"\n", args...)
	}
	for range 6 {
		go func() {
			for {
				mu.Lock()
				next++
				n := next % 65536
				mu.Unlock()
				if err := s.PutLease(ctx, leaseOf(n), netip.Addr{}); err != nil {
					return
				}
				if err := s.PutLease6(ctx, lease6Of(n)); err != nil {
					return
				}
				acknowledged("lease %d", n)
			}
		}()
	}
	for {
		h, err := s.Host(ctx, "h")
		if lane.CodeOf(err) == lane.NotFound {
			h, err = lane.Host{ID: "h", State: lane.StateProvisioning, Run: lane.Run{ID: "r", Open: true, Stage: lane.StageArmed, Boots: 1 << 30, Armed: clock(), Deadline: clock().AddDate(50, 0, 0)}}, nil
		}
		if err != nil {
			return err
		}
		next, ev, err := lane.CountBoot(h, lane.Policy{}, clock().Add(time.Duration(h.Run.BootsUsed)*time.Minute))
		if err != nil {
			return err
		}
		if _, _, err := s.Append(ctx, next, ev); err != nil {
			return err
		}
		acknowledged("boot %d", next.Run.BootsUsed)
	}
}

// TestKill kills a writing process with SIGKILL again and again, and expects
// everything it acknowledged: every lease, every consumed boot.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bootlane.db")
	leases := map[lane.MAC]lane.Lease{}
	boots, acks := 0, 0
	const rounds = 12
	for round := range rounds {
		lines := kill(t, path, 40+round*53)
		acks += len(lines)
		for _, l := range lines {
			var n int
			if _, err := fmt.Sscanf(l, "lease %d", &n); err == nil {
				leases[leaseOf(n).MAC] = leaseOf(n)
			} else if _, err := fmt.Sscanf(l, "boot %d", &n); err == nil {
				boots = max(boots, n)
			}
		}
		verify(t, path, leases, boots)
	}
	if len(leases) < rounds || boots < rounds {
		t.Fatalf("the victims acknowledged only %d leases and %d boots", len(leases), boots)
	}
	t.Logf("%d kills: %d acknowledgements, %d leases, %d boots, all found again", rounds, acks, len(leases), boots)
}

// kill starts a victim, kills it after it has acknowledged some writes, and
// returns all that it said.
func kill(t *testing.T, path string, after int) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for sc := bufio.NewScanner(out); sc.Scan(); {
		lines = append(lines, sc.Text())
		if len(lines) == after {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // killed: that is the point
	if len(lines) < after {
		t.Fatalf("the victim ended by itself: %s", stderr.String())
	}
	return lines
}

func verify(t *testing.T, path string, want map[lane.MAC]lane.Lease, boots int) {
	t.Helper()
	e, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatalf("open after a kill: %v", err)
	}
	var sound string
	if err := e.Read.QueryRowContext(t.Context(), `PRAGMA integrity_check`).Scan(&sound); err != nil || sound != "ok" {
		t.Fatalf("integrity: %s, %v", sound, err)
	}
	s, err := store.New(t.Context(), e, clock)
	if err != nil {
		t.Fatal(err)
	}
	have, err := s.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := map[lane.MAC]lane.Lease{}
	for _, l := range have {
		found[l.MAC] = l
	}
	have6, err := s.Leases6(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found6 := map[netip.Addr]lane.Client{}
	for _, l := range have6 {
		found6[l.Address] = l.Client
	}
	for mac, l := range want {
		a := l.Address.As4()
		if found[mac].Address != l.Address || found6[lease6Of(int(a[2])<<8|int(a[3])).Address] != lane.Client(mac) {
			t.Errorf("an acknowledged lease of %s is gone", mac)
		}
	}
	h, err := s.Host(t.Context(), "h")
	if err != nil || h.Run.BootsUsed < boots {
		t.Errorf("%d boots were acknowledged, %d are on record; %v", boots, h.Run.BootsUsed, err)
	}
	events, err := s.Events(t.Context(), "h", 0, 1<<30)
	if _, ok := lane.VerifyChain(events); err != nil || !ok || len(events) != h.Run.BootsUsed {
		t.Errorf("%d events for %d boots, unbroken: %t; %v", len(events), h.Run.BootsUsed, ok, err)
	}
	if err := errors.Join(s.Close()); err != nil {
		t.Fatal(err)
	}
}
