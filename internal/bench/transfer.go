package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	neturl "net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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

// bootPath is where Bootlane serves a loader to a machine that it does not know. Each
// client is another machine, firstMAC and on: to one that loads its loader over and over
// it is refused.
const (
	firstMAC    = "52-54-00-00-00-00"
	machineUUID = "6b0f3c00-52d1-4c8e-9a77-0242ac110001" // of the one that is installed
	bootPath    = "boot/" + firstMAC + "/x86_64-uefi/"
)

// fileServer is a server under test with a file, and the file's name there.
type fileServer struct {
	name, path string
	start      func(context.Context) (*server, error)
}

// hpa starts a process for each transfer, and the kernel accounts to nobody what those used
// that it does not wait for.
const hpa = "tftpd-hpa"

// account takes back a figure that could not be measured.
func (s fileServer) account(got *result) {
	if s.name == hpa {
		got.CPU = unknownCPU
	}
}

func (r *rig) tftpServers(file string) []fileServer {
	root, name := filepath.Dir(file), filepath.Base(file)
	return []fileServer{
		{"bootlane", bootPath + name, func(ctx context.Context) (*server, error) { return r.serve(ctx, file) }},
		{"atftpd", name, func(ctx context.Context) (*server, error) {
			return r.start(ctx, "atftpd", "atftpd", "--daemon", "--no-fork", "--user", "root", "--maxthread", "1000", root)
		}},
		{hpa, name, func(ctx context.Context) (*server, error) { // it knows no windows
			return r.start(ctx, hpa, filepath.Join(r.peers, "usr/sbin/in.tftpd"), "--foreground", "--user", "root", "--secure", root)
		}},
		{"dnsmasq", name, func(ctx context.Context) (*server, error) {
			return r.start(ctx, "dnsmasq", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0", "--enable-tftp", "--tftp-root="+root, "--tftp-max=2000", "--interface="+serverLink, "--pid-file")
		}},
	}
}

// atftp returns the client's command line; with window 1 it asks for none.
func atftp(window int, path, local string) []string {
	args := []string{"atftp", "--option", "blksize 1468"}
	if window > 1 {
		args = append(args, "--option", "windowsize "+strconv.Itoa(window))
	}
	return append(args, "-g", "-r", path, "-l", local, serverIP)
}

// tftp measures one transfer with and without windows, and many at once.
func tftp(ctx context.Context, r *rig) ([]result, error) {
	large, err := r.payload("payload.efi", 32*megabyte)
	if err != nil {
		return nil, err
	}
	small, err := r.payload("small.efi", megabyte)
	if err != nil {
		return nil, err
	}
	var out []result
	for _, l := range []struct {
		label          string
		file           string
		size           int64
		window, atOnce int
	}{
		{"1468, lock step", large, 32 * megabyte, 1, 1}, {"1468, window 16", large, 32 * megabyte, 16, 1}, {"1468, window 64", large, 32 * megabyte, 64, 1},
		{"1468, 64 clients", small, megabyte, 1, 64}, {"1468, 1,000 clients", small, megabyte, 1, 1000},
	} {
		for _, s := range r.tftpServers(l.file) {
			got, err := r.transfers(ctx, r.warm(s, l.file), atMost, l.atOnce, l.size, func() []string { return atftp(l.window, s.path, "/dev/null") })
			if err != nil {
				return out, fmt.Errorf("%s, %s: %w", s.name, l.label, err)
			}
			got.Bench, got.Server, got.Load = "tftp", s.name, l.label
			s.account(&got)
			fmt.Printf("tftp %-10s %-20s %6.1f MB/s, %.0f us CPU/MB %s\n", s.name, l.label, got.Rate, got.CPU, got.Note)
			out = append(out, got)
		}
	}
	return out, nil
}

// warm starts a server that has served the file once: Bootlane looks at a loader, whole, when it is asked for it first, and
// that is no part of a transfer.
func (r *rig) warm(s fileServer, file string) func(context.Context) (*server, error) {
	return func(ctx context.Context) (*server, error) {
		up, err := s.start(ctx)
		if err != nil {
			return up, err
		}
		local := filepath.Join(r.dir, "warm-"+filepath.Base(file))
		out, err := r.client(ctx, atftp(64, s.path, local)...)
		return up, errors.Join(err, out.failed, os.Remove(local))
	}
}

// lossy measures one transfer over a cable that loses one frame in a hundred.
func lossy(ctx context.Context, r *rig) ([]result, error) {
	file, err := r.payload("lossy.efi", 4*megabyte)
	if err != nil {
		return nil, err
	}
	var out []result
	for _, window := range []int{1, 16, 64} {
		for _, s := range r.tftpServers(file) {
			got, err := r.oneLossy(ctx, s, window, 45*time.Second)
			if err != nil {
				return out, err
			}
			fmt.Printf("tftp %-10s %-28s %6.0f kB/s %s\n", s.name, got.Load, got.Rate, got.Note)
			out = append(out, got)
		}
	}
	return out, nil
}

// oneLossy measures a transfer of 4 MiB. One that does not end in time counts as far as
// it came.
func (r *rig) oneLossy(ctx context.Context, s fileServer, window int, limit time.Duration) (result, error) {
	local := filepath.Join(r.dir, "received")
	_ = os.Remove(local) // the one before may have got none
	got, err := r.transfers(ctx, s.start, limit, 1, 4*megabyte, func() []string { return atftp(window, s.path, local) })
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return result{}, err
	}
	s.account(&got)
	got.Bench, got.Server, got.Load, got.Unit, got.PerWhat = "tftp", s.name, fmt.Sprintf("1 %% loss, 100 us, window %d", window), "kB/s", "MB"
	size := int64(0)
	if st, err := os.Stat(local); err == nil {
		size = st.Size()
	}
	got.Rate, got.Note = float64(size)/1e3/got.took.Seconds(), "whole"
	if size != 4*megabyte {
		got.Note = fmt.Sprintf("gave up, or not done in %s", limit)
	}
	return got, nil
}

// atMost is how long a transfer may take.
const atMost = 2 * time.Minute

// install has Bootlane serve a file as what it serves to a machine that is installed: the
// kernel of a verified bundle, under the capability of a run. It returns the file's URL.
func (r *rig) install(ctx context.Context, file string) (*server, string, error) {
	dir, err := r.fresh("bundle")
	if err != nil {
		return nil, "", err
	}
	name := filepath.Base(file)
	if err := errors.Join(os.Link(file, filepath.Join(dir, name)), os.WriteFile(filepath.Join(dir, "initrd"), []byte("i"), 0o644),
		os.WriteFile(filepath.Join(dir, "bundle.yaml"), []byte("name: bench\nversion: 1\nos: linux\narch: x86_64\nseed: nocloud/1\nkernel: "+name+"\ninitrd: initrd\n"), 0o644)); err != nil {
		return nil, "", err
	}
	host, err := r.file("host.yaml", "hosts: [{id: bench, identity: {uuid: "+machineUUID+", macs: [\"52:54:00:00:00:00\"]}, bundle: bench-1, disk: {serial: S}}]\n")
	if err != nil {
		return nil, "", err
	}
	s, err := r.serve(ctx, "")
	if err != nil {
		return nil, "", err
	}
	token := []string{"--token-file", filepath.Join(r.dir, "bootlane-data", "operator.token")}
	for _, verb := range [][]string{{"bundle", "build", dir}, append([]string{"bundle", "import", dir}, token...), append([]string{"host", "import", host}, token...), append([]string{"provision", "bench"}, token...)} {
		out, err := r.exec(ctx, serverNS, append([]string{r.bootlane}, verb...)...)
		if err != nil || out.failed != nil {
			return nil, "", errors.Join(fmt.Errorf("%s: %s", strings.Join(verb[:2], " "), out.text), err, s.stop())
		}
	}
	script, err := r.client(ctx, "curl", "-fsS", "http://"+serverIP+":8080/boot/script?uuid="+machineUUID+"&mac="+firstMAC+"&buildarch=x86_64&platform=efi")
	if err != nil {
		return nil, "", errors.Join(err, s.stop())
	}
	m := kernelLine.FindStringSubmatch(script.text)
	if m == nil {
		return nil, "", errors.Join(fmt.Errorf("the boot script has no kernel:\n%s", script.text), s.stop())
	}
	return s, m[1], nil
}

var kernelLine = regexp.MustCompile(`(?m)^kernel (http://\S+)`)

// webServer is a server under test, which tells under which URL it has a file.
type webServer struct {
	name  string
	start func(context.Context) (*server, string, error)
}

// http measures a large file from the page cache.
func http(ctx context.Context, r *rig) ([]result, error) {
	const size = 256 * megabyte
	file, err := r.payload("large.efi", size)
	if err != nil {
		return nil, err
	}
	config, err := r.file("nginx.conf", fmt.Sprintf("daemon off; user root; worker_processes auto; pid %s; error_log %s;\nevents { worker_connections 8192; }\nhttp { access_log off; sendfile on; tcp_nopush on; server { listen 8080; root %s; } }\n",
		filepath.Join(r.dir, "nginx.pid"), filepath.Join(r.dir, "nginx.err"), filepath.Dir(file)))
	if err != nil {
		return nil, err
	}
	var out []result
	for _, s := range []webServer{
		{"bootlane", func(ctx context.Context) (*server, string, error) { return r.install(ctx, file) }},
		{"nginx", func(ctx context.Context) (*server, string, error) {
			up, err := r.start(ctx, "nginx", "nginx", "-c", config)
			return up, "http://" + serverIP + ":8080/large.efi", err
		}},
	} {
		for _, l := range []webLoad{
			{"8 times 256 MiB, 1 connection", 1, 8 * size, nil, eightTimes, 0},
			{"256 MiB, 16 connections", 16, size, nil, "", 0},
			{"8 MiB each, 256 connections", 256, 8 * megabyte, []string{"--range", "0-8388607"}, "", 0},
			{"256 MiB beside 1,000 slow ones", 1, size, nil, "", 1000},
		} {
			got, err := r.download(ctx, s, l)
			if err != nil {
				return out, fmt.Errorf("%s, %s: %w", s.name, l.label, err)
			}
			fmt.Printf("http %-10s %-32s %6.0f MB/s, %.0f us CPU/MB %s\n", s.name, got.Load, got.Rate, got.CPU, got.Note)
			out = append(out, got)
		}
	}
	return out, nil
}

// webLoad is how many clients fetch how much, beside how many slow ones.
type webLoad struct {
	label string
	n     int
	size  int64
	args  []string // of curl
	times string   // behind the URL
	slow  int
}

// eightTimes has curl ask for a URL that often, one after the other: one download is over
// before there is much to measure.
const eightTimes = "?[1-8]"

// download measures one load.
func (r *rig) download(ctx context.Context, s webServer, l webLoad) (result, error) {
	ctx, cancel := context.WithCancel(ctx) // ends the slow ones
	defer cancel()
	var url string
	start := func(ctx context.Context) (up *server, err error) {
		up, url, err = s.start(ctx)
		if err != nil || l.slow == 0 {
			return up, err
		}
		return up, crawl(ctx, url, l.slow)
	}
	got, err := r.transfers(ctx, start, atMost, l.n, l.size, func() []string {
		return slices.Concat([]string{"curl", "-fsS", "-o", "/dev/null"}, l.args, []string{url + l.times})
	})
	got.Bench, got.Server, got.Load = "http", s.name, l.label
	return got, err
}

// crawl opens connections that ask for a file and read a little of it every second, until
// ctx ends. They come from several machines: Bootlane holds at most 256 of one.
func crawl(ctx context.Context, url string, n int) error {
	u, err := neturl.Parse(url)
	if err != nil {
		return err
	}
	return inside(clientNS, func() error {
		for i := range n {
			d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: crawler(i)}}
			conn, err := d.DialContext(ctx, "tcp", u.Host)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", u.Path, u.Host); err != nil {
				return errors.Join(err, conn.Close())
			}
			context.AfterFunc(ctx, func() { _ = conn.Close() })
			go func() {
				for b := make([]byte, 4096); ; time.Sleep(time.Second) {
					if _, err := conn.Read(b); err != nil {
						return
					}
				}
			}()
		}
		return nil
	})
}

// transfers has n clients fetch a file at the same time, each for at most so long. What a
// client is told is asked for once the server is up.
func (r *rig) transfers(ctx context.Context, start func(context.Context) (*server, error), limit time.Duration, n int, size int64, command func() []string) (_ result, err error) {
	s, err := start(ctx)
	if err != nil {
		return result{}, err
	}
	args := command()
	defer func() { err = errors.Join(err, s.stop()) }()
	ctx, cancel := context.WithTimeout(ctx, limit)
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
			var own []string
			for _, a := range args {
				own = append(own, strings.Replace(a, firstMAC, fmt.Sprintf("52-54-00-00-%02x-%02x", i>>8, i&255), 1))
			}
			out, err := r.client(ctx, own...)
			if err != nil || out.failed != nil {
				failed[i] = strings.TrimSpace(fmt.Sprint(out.text, errors.Join(out.failed, err)))
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	after, err := s.cpu()
	if err != nil {
		return result{}, fmt.Errorf("under load: %w", err)
	}
	failed = slices.DeleteFunc(failed, func(f string) bool { return f == "" })
	megabytes := float64(size*int64(n-len(failed))) / 1e6
	out := result{Rate: megabytes / took.Seconds(), Unit: "MB/s", CPU: float64((after - before).Microseconds()) / max(megabytes, 1), PerWhat: "MB", Command: strings.Join(args, " "), took: took}
	if len(failed) > 0 {
		out.Note = fmt.Sprintf("%d FAILED: %s", len(failed), failed[0][strings.LastIndexByte(failed[0], '\n')+1:])
	}
	return out, ctx.Err()
}
