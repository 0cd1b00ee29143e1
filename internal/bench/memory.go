package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// memory fills the server with an inventory and leases, starts it anew, and reads what it holds.
func memory(ctx context.Context, r *rig) (_ []result, err error) {
	const hosts, machines = 100_000, 20_000
	s, err := r.serve(ctx, "")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	args := s.cmd.Args[4:] // behind ip netns exec NAME
	list, err := r.inventory(hosts)
	if err != nil {
		return nil, err
	}
	token := filepath.Join(r.dir, "bootlane-data", "operator.token")
	began := time.Now()
	for i := 0; i < hosts; i += 10_000 {
		part := fmt.Sprintf("%s.%d", list, i/10_000)
		if out, err := r.exec(ctx, serverNS, r.bootlane, "host", "import", part, "--token-file", token); err != nil || out.failed != nil {
			return nil, fmt.Errorf("host import: %w: %s", errors.Join(err, out.failed), out.text)
		}
	}
	imported := time.Since(began)
	c, err := newCrowd(0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.conn.Close()) }()
	if err := c.play(ctx, c.join(1, machines), 500*time.Microsecond, time.Minute); err != nil {
		return nil, err
	}
	busy, err := s.memory()
	if err != nil {
		return nil, err
	}
	time.Sleep(calmed)
	calm, err := s.memory()
	if err != nil {
		return nil, err
	}
	if err := s.stop(); err != nil {
		return nil, err
	}
	if s, err = r.start(ctx, "bootlane", args...); err != nil {
		return nil, err
	}
	if err := c.play(ctx, c.join(100_000, 1000), time.Millisecond, 20*time.Second); err != nil {
		return nil, err
	}
	time.Sleep(calmed)
	fresh, err := s.memory()
	if err != nil {
		return nil, err
	}
	out := result{Bench: "memory", Server: "bootlane", Load: fmt.Sprintf("%d hosts, %d leases", hosts, machines), Rate: float64(fresh) / 1e6, Unit: "MB resident", PerWhat: "-", Command: "package bench, memory.go",
		Note: fmt.Sprintf("%.0f MB before the restart, %.0f MB under load, import in %s", float64(calm)/1e6, float64(busy)/1e6, imported.Round(time.Second))}
	fmt.Printf("memory %s: %.0f MB, %s\n", out.Load, out.Rate, out.Note)
	return []result{out}, nil
}

// calmed is after how long a server has given back what a load, or the reading of its inventory, left behind.
const calmed = 15 * time.Second

// inventory writes hosts in files of 10,000, NAME.0 and so on, and returns NAME.
func (r *rig) inventory(hosts int) (string, error) {
	name := filepath.Join(r.dir, "hosts.yaml")
	for from := 0; from < hosts; from += 10_000 {
		f, err := os.Create(fmt.Sprintf("%s.%d", name, from/10_000))
		if err != nil {
			return "", err
		}
		w := bufio.NewWriter(f)
		fmt.Fprintln(w, "hosts:")
		for i := from; i < min(from+10_000, hosts); i++ {
			fmt.Fprintf(w, "  - id: r%04d-n%06d\n    hostname: r%04d-n%06d\n    arch: x86_64\n    identity: {uuid: 4c4c4544-0042-3510-8052-%012x, macs: [\"52:58:%02x:%02x:%02x:00\", \"52:58:%02x:%02x:%02x:01\"], serial: SN%07d, rack: r%04d}\n    disk: {serial: D%07d, sizeGB: 960}\n",
				i/40, i, i/40, i, i+1, i>>16, i>>8&255, i&255, i>>16, i>>8&255, i&255, i, i/40, i)
		}
		if err := errors.Join(w.Flush(), f.Close()); err != nil {
			return "", err
		}
	}
	return name, nil
}
