//go:build linux

// bootlane-agent is /init of Bootlane's initramfs: see package agent.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"bootlane/internal/agent"
)

func main() {
	version := "(unknown version)"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
	}
	err := agent.Init(version, rand.Reader, time.Now, sleep)
	fmt.Fprintln(os.Stderr, err) // Init returns only when it refuses to run
	os.Exit(2)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
