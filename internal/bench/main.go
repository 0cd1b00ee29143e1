// Bench measures Bootlane beside the servers that it replaces, in one run, on one
// machine: only ratios count. Each server gets a network namespace of its own, and the
// load comes from another one. `make bench` builds what it needs and runs it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"bootlane/internal/nettest"
)

// result is one line of the table.
type result struct {
	Bench   string  `json:"bench"`
	Server  string  `json:"server"`
	Load    string  `json:"load"`
	Rate    float64 `json:"rate"`
	Unit    string  `json:"unit"`
	CPU     float64 `json:"cpu"` // of the server, microseconds for one unit of work
	PerWhat string  `json:"perWhat"`
	Note    string  `json:"note,omitempty"`
	Command string  `json:"command"`

	lost float64       // per cent
	took time.Duration // what the load took
}

// unknownCPU stands for what could not be measured.
const unknownCPU = -1

// options are the command line's.
type options struct {
	bootlane, work, out string
	peers               string
	only                string
	seconds             int
}

func main() {
	var o options
	flag.StringVar(&o.bootlane, "bootlane", "bin/bootlane", "binary under test")
	flag.StringVar(&o.work, "work", ".cache/bench", "directory for data of the servers")
	flag.StringVar(&o.peers, "peers", ".cache/peers", "directory of what scripts/bench-peers unpacked")
	flag.StringVar(&o.out, "json", "", "write the results to this file as well")
	flag.StringVar(&o.only, "only", "dhcp,storm,kill,memory,tftp,lossy,http", "which benches to run")
	flag.IntVar(&o.seconds, "seconds", 10, "how long one load lasts")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	var results []result
	for _, b := range []struct {
		name  string
		run   func(context.Context, *rig) ([]result, error)
		cable *nettest.Lossy
	}{
		{"dhcp", dhcp, nil}, {"storm", storm, nil}, {"kill", killed, nil}, {"memory", memory, nil}, {"tftp", tftp, nil},
		{"lossy", lossy, &nettest.Lossy{Loss: 0.01, Delay: 100 * time.Microsecond, Random: rand.Float64, Now: time.Now}}, {"http", http, nil},
	} {
		if !slices.Contains(strings.Split(o.only, ","), b.name) {
			continue
		}
		r, err := newRig(ctx, o, b.cable)
		if err != nil {
			return err
		}
		got, err := b.run(ctx, r)
		results = append(results, got...)
		if closed := r.close(); err == nil {
			err = closed
		}
		if err != nil {
			return fmt.Errorf("bench %s: %w", b.name, err)
		}
	}
	show(results)
	if o.out == "" {
		return nil
	}
	b, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.out, append(b, '\n'), 0o644)
}

func show(results []result) {
	t := tabwriter.NewWriter(os.Stdout, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "\nBENCH\tLOAD\tSERVER\tRATE\tSERVER CPU\tNOTE")
	for _, r := range results {
		cpu := "unknown"
		if r.CPU != unknownCPU {
			cpu = fmt.Sprintf("%.1f us/%s", r.CPU, r.PerWhat)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%.0f %s\t%s\t%s\n", r.Bench, r.Load, r.Server, r.Rate, r.Unit, cpu, r.Note)
	}
	_ = t.Flush() // writes to the terminal; its error shows there
}
