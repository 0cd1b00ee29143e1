// Bootlane takes blank servers from firmware to a ready node over the network.
package main

import (
	"context"
	"crypto/rand"
	"os"
	"runtime/debug"
	"time"
	_ "time/tzdata" // a server may have no tz database

	"bootlane/internal/cli"
)

// version is set by the linker at a release.
var version = ""

func main() {
	os.Exit(cli.Main(context.Background(), os.Args[1:], cli.Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Now: time.Now, Rand: rand.Reader, Version: build(),
	}))
}

// build returns the release's version, or the commit it was built from.
func build() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}
