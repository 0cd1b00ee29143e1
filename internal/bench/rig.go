package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"bootlane/internal/nettest"
)

// The two ends of the cable, and its middle where it is a bad one.
const (
	serverNS, clientNS     = "bootlane-bench-s", "bootlane-bench-c"
	middleNS               = "bootlane-bench-m"
	serverIP, clientIP     = "10.0.0.1", "10.0.0.2"
	serverLink, clientLink = "bench-s", "bench-c"
)

// crawlers is how many addresses the slow clients share, and crawler the one of the i-th.
const crawlers = 8

func crawler(i int) net.IP { return net.IPv4(10, 0, 2, byte(1+i%crawlers)) }

// rig is a server's and a client's namespace with a cable between them.
type rig struct {
	options
	dir string
}

// newRig lays the cable; a bad one passes through a program.
func newRig(ctx context.Context, o options, bad *nettest.Lossy) (*rig, error) {
	dir, err := filepath.Abs(o.work)
	if err != nil {
		return nil, err
	}
	if o.bootlane, err = filepath.Abs(o.bootlane); err != nil {
		return nil, err
	}
	if o.peers, err = filepath.Abs(o.peers); err != nil {
		return nil, err
	}
	r := &rig{o, dir}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	_ = r.close() // what an interrupted run left behind
	lay := []string{"ip link add " + serverLink + " netns " + serverNS + " type veth peer name " + clientLink + " netns " + clientNS}
	if bad != nil {
		lay = []string{
			"ip netns add " + middleNS,
			"ip link add " + serverLink + " netns " + serverNS + " type veth peer name left netns " + middleNS,
			"ip link add " + clientLink + " netns " + clientNS + " type veth peer name right netns " + middleNS,
			"ip -n " + middleNS + " link set left up", "ip -n " + middleNS + " link set right up",
			// The program passes frames as they are on a wire: none that a NIC would still cut.
			"ip -n " + serverNS + " link set " + serverLink + " gso_max_segs 1", "ip -n " + clientNS + " link set " + clientLink + " gso_max_segs 1",
		}
	}
	var more []string
	for i := range crawlers {
		more = append(more, fmt.Sprintf("ip -n %s address add %s/8 dev %s", clientNS, crawler(i), clientLink))
	}
	for _, c := range slices.Concat([]string{"ip netns add " + serverNS, "ip netns add " + clientNS}, lay, []string{
		"ip -n " + serverNS + " address add " + serverIP + "/8 dev " + serverLink, "ip -n " + clientNS + " address add " + clientIP + "/8 dev " + clientLink,
		"ip -n " + serverNS + " link set " + serverLink + " up", "ip -n " + clientNS + " link set " + clientLink + " up",
		"ip -n " + serverNS + " link set lo up", "ip -n " + clientNS + " link set lo up",
	}, more) {
		args := strings.Fields(c)
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", c, err, bytes.TrimSpace(out))
		}
	}
	if bad == nil {
		return r, nil
	}
	return r, inside(middleNS, func() error { return bad.Join(ctx, "left", "right") })
}

// close removes the namespaces, and with them the cable.
func (r *rig) close() error {
	var all error
	for _, ns := range []string{serverNS, clientNS, middleNS} {
		if _, err := os.Stat("/run/netns/" + ns); err != nil {
			continue
		}
		if out, err := exec.Command("ip", "netns", "del", ns).CombinedOutput(); err != nil {
			all = errors.Join(all, fmt.Errorf("%w: %s", err, out))
		}
	}
	return all
}

// server is a running server.
type server struct {
	name  string
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has: until somebody waits for it, an ended child looks alive in /proc
}

// file writes a file of a server's, and returns its path.
func (r *rig) file(name, text string) (string, error) {
	path := filepath.Join(r.dir, name)
	return path, os.WriteFile(path, []byte(text), 0o644)
}

// fresh returns an empty directory.
func (r *rig) fresh(name string) (string, error) {
	path := filepath.Join(r.dir, name)
	return path, errors.Join(os.RemoveAll(path), os.MkdirAll(path, 0o755))
}

// settle is how long a server is given to start.
const settle = 2 * time.Second

// start starts a server in its namespace, and gives it a moment.
func (r *rig) start(ctx context.Context, name string, args ...string) (*server, error) {
	log, err := os.Create(filepath.Join(r.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has it
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", serverNS}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{name, cmd, make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended stands in its log
		close(s.ended)
	}()
	select {
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), s.stop())
	case <-s.ended:
		return nil, fmt.Errorf("%s ended at once: see %s", name, log.Name())
	case <-time.After(settle):
	}
	return s, nil
}

// stop ends the server, and what it has started: tftpd-hpa's children outlive it by the transfers
// that their clients gave up, and hold its port, which is the next one's. None is none to end.
func (s *server) stop() error {
	if s == nil {
		return nil
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-s.ended:
	case <-time.After(5 * time.Second):
	}
	deadline := time.Now().Add(5 * time.Second)
	for syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) == nil { // until nobody of its group is left
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not end", s.name)
		}
		time.Sleep(10 * time.Millisecond)
	}
	<-s.ended
	return nil
}

// memory returns the server's resident set in bytes.
func (s *server) memory() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("%s has no resident memory: it ended", s.name)
}

// cpu returns the processor time that the server and its children have used so far.
func (s *server) cpu() (time.Duration, error) {
	select {
	case <-s.ended:
		return 0, fmt.Errorf("%s has ended", s.name)
	default:
	}
	d, err := s.cpuOf(s.cmd.Process.Pid)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) { // it is gone before anybody has told us
		err = fmt.Errorf("%s has ended: %w", s.name, err)
	}
	return d, err
}

func (s *server) cpuOf(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var ticks int64
	for _, i := range []int{11, 12, 13, 14} { // utime, stime, and those of children that ended
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	const tick = 10 * time.Millisecond
	total := time.Duration(ticks) * tick
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return total, nil
	}
	for _, c := range strings.Fields(string(children)) {
		if n, err := strconv.Atoi(c); err == nil {
			d, _ := s.cpuOf(n) // it may have ended since
			total += d
		}
	}
	return total, nil
}

// ran is how a program ended, and the processor time that it used.
type ran struct {
	text   string
	failed error // its exit code
	cpu    time.Duration
}

// client runs a program in the clients' namespace.
func (r *rig) client(ctx context.Context, args ...string) (ran, error) {
	return r.exec(ctx, clientNS, args...)
}

// exec runs a program in a namespace. perfdhcp reports losses by its exit code: the output
// is returned in any case.
func (r *rig) exec(ctx context.Context, ns string, args ...string) (ran, error) {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", ns}, args...)...)
	text, err := cmd.CombinedOutput()
	out := ran{text: string(text)}
	if cmd.ProcessState != nil {
		out.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	if errors.As(err, new(*exec.ExitError)) {
		out.failed, err = err, nil
	}
	return out, err
}

// generatorBuffer is in bytes. perfdhcp keeps the default receive buffer, of 208 KiB: what a
// server answers within one moment that perfdhcp is not running was lost in there, and
// counted as the server's loss. Machines have a buffer each.
const generatorBuffer = 16 << 20

// roomy gives every socket that is opened from now on the buffer, and returns what undoes
// it. The setting is one of the whole system, whatever the namespace.
func roomy() (undo func() error, err error) {
	const path = "/proc/sys/net/core/rmem_default"
	was, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return func() error { return os.WriteFile(path, was, 0o644) }, os.WriteFile(path, strconv.AppendInt(nil, generatorBuffer, 10), 0o644)
}

// bootlane starts the server under test with a configuration of its own.
func (r *rig) serve(ctx context.Context, loader string) (*server, error) {
	data, err := r.fresh("bootlane-data")
	if err != nil {
		return nil, err
	}
	if loader != "" {
		loader = "loaders: {x86_64-uefi: " + loader + "}\n"
	}
	config, err := r.file("bootlane.yaml", fmt.Sprintf(`data: %s
networks:
  - {interface: %s, server: %s, subnet: 10.0.0.0/8, relays: [%s], range: 10.1.0.0-10.31.255.255, conflictProbe: false}
policy: {probeEvery: 0s}
tftp: {maxPerClient: 1000}
%ssite: {sshKeys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA nobody@bench"]}
log: warn
`, data, serverLink, serverIP, clientIP, loader))
	if err != nil {
		return nil, err
	}
	return r.start(ctx, "bootlane", r.bootlane, "serve", "--config", config)
}
