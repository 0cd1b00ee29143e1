package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const megabyte = 1 << 20

// payload makes a file of random enough bytes, and returns its path.
func (r *rig) payload(name string, size int) (string, error) {
	path := filepath.Join(r.dir, "root", name)
	if st, err := os.Stat(path); err == nil && st.Size() == int64(size) {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i * 2654435761 >> 13)
	}
	return path, os.WriteFile(path, b, 0o644)
}

// bootPath is where Bootlane serves a loader to a machine that it does not know.
const bootPath = "boot/52-54-00-00-00-01/x86_64-uefi/"

// tftp measures one transfer, and 32 at once, with and without windows.
func tftp(ctx context.Context, r *rig) ([]result, error) {
	file, err := r.payload("payload.efi", 32*megabyte)
	if err != nil {
		return nil, err
	}
	root := filepath.Dir(file)
	var out []result
	for _, s := range []struct {
		name, path string
		start      func(context.Context) (*server, error)
	}{
		{"bootlane", bootPath + "payload.efi", func(ctx context.Context) (*server, error) { return r.serve(ctx, file) }},
		{"atftpd", "payload.efi", func(ctx context.Context) (*server, error) {
			return r.start(ctx, "atftpd", "atftpd", "--daemon", "--no-fork", "--user", "root", "--maxthread", "1000", root)
		}},
		{"dnsmasq", "payload.efi", func(ctx context.Context) (*server, error) {
			return r.start(ctx, "dnsmasq", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0", "--enable-tftp", "--tftp-root="+root, "--tftp-max=2000", "--interface="+serverLink, "--pid-file")
		}},
	} {
		for _, l := range []struct {
			label          string
			window, atOnce int
		}{{"1468, lock step", 1, 1}, {"1468, window 16", 16, 1}, {"1468, window 64", 64, 1}, {"1468, 32 clients", 1, 32}} {
			args := []string{"atftp", "--option", "blksize 1468"}
			if l.window > 1 {
				args = append(args, "--option", "windowsize "+strconv.Itoa(l.window))
			}
			got, err := r.transfers(ctx, s.start, l.atOnce, 32*megabyte, append(args, "-g", "-r", s.path, "-l", "/dev/null", serverIP)...)
			if err != nil {
				return out, fmt.Errorf("%s, %s: %w", s.name, l.label, err)
			}
			got.Bench, got.Server, got.Load = "tftp", s.name, l.label
			fmt.Printf("tftp %-10s %-16s %6.1f MB/s, %.0f us CPU/MB %s\n", s.name, l.label, got.Rate, got.CPU, got.Note)
			out = append(out, got)
		}
	}
	return out, nil
}

// http measures a large file from the page cache.
func http(ctx context.Context, r *rig) ([]result, error) {
	const size = 256 * megabyte
	file, err := r.payload("large.efi", size)
	if err != nil {
		return nil, err
	}
	config, err := r.file("nginx.conf", fmt.Sprintf("daemon off; user root; worker_processes auto; pid %s; error_log %s;\nevents {}\nhttp { access_log off; sendfile on; tcp_nopush on; server { listen 8080; root %s; } }\n",
		filepath.Join(r.dir, "nginx.pid"), filepath.Join(r.dir, "nginx.err"), filepath.Dir(file)))
	if err != nil {
		return nil, err
	}
	var out []result
	for _, s := range []struct {
		name, path string
		start      func(context.Context) (*server, error)
	}{
		{"bootlane", bootPath + "large.efi", func(ctx context.Context) (*server, error) { return r.serve(ctx, file) }},
		{"nginx", "large.efi", func(ctx context.Context) (*server, error) { return r.start(ctx, "nginx", "nginx", "-c", config) }},
	} {
		for _, n := range []int{1, 16} {
			got, err := r.transfers(ctx, s.start, n, size, "curl", "-fsS", "-o", "/dev/null", "http://"+serverIP+":8080/"+s.path)
			if err != nil {
				return out, fmt.Errorf("%s, %d connections: %w", s.name, n, err)
			}
			got.Bench, got.Server, got.Load = "http", s.name, fmt.Sprintf("256 MiB, %d connections", n)
			fmt.Printf("http %-10s %-24s %6.0f MB/s, %.0f us CPU/MB %s\n", s.name, got.Load, got.Rate, got.CPU, got.Note)
			out = append(out, got)
		}
	}
	return out, nil
}

// transfers has n clients fetch a file at the same time.
func (r *rig) transfers(ctx context.Context, start func(context.Context) (*server, error), n int, size int64, args ...string) (_ result, err error) {
	s, err := start(ctx)
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	before, err := s.cpu()
	if err != nil {
		return result{}, err
	}
	began := time.Now()
	failed := make([]string, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			text, bad, err := r.client(ctx, args...)
			if err != nil || bad != nil {
				failed[i] = strings.TrimSpace(fmt.Sprint(text, errors.Join(bad, err)))
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	after, err := s.cpu()
	if err != nil {
		return result{}, err
	}
	out := result{Rate: float64(size*int64(n)) / 1e6 / took.Seconds(), Unit: "MB/s", CPU: float64((after - before).Microseconds()) / (float64(size*int64(n)) / 1e6), PerWhat: "MB", Command: strings.Join(args, " ")}
	for _, f := range failed {
		if f != "" {
			out.Note = "FAILED: " + strings.SplitN(f, "\n", 2)[0]
		}
	}
	return out, ctx.Err()
}
