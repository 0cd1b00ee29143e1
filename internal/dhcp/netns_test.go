package dhcp

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"bootlane/internal/lane"
	"bootlane/internal/nettest"
)

// segment is a veth pair between two namespaces: the server's, in which the test
// itself runs, and the clients', which programs enter.
type segment struct {
	client netns.NsHandle
	path   string
}

// newSegment moves the calling goroutine's thread into a new namespace for good;
// the thread ends with the test.
func newSegment(t *testing.T) segment {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces need root")
	}
	runtime.LockOSThread() // never unlocked: the thread is not for reuse
	client, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	server, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() }) // the namespaces go with their last user
	plug(t, client)
	return segment{client, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(client))}
}

// plug lays the cable from the thread's namespace to the clients'.
func plug(t *testing.T, client netns.NsHandle) {
	t.Helper()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "srv0"}, PeerName: "cli0", PeerHardwareAddr: []byte{0x52, 0x54, 0, 0, 0, 1}}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	peer, err := netlink.LinkByName("cli0")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr("192.168.77.1/24")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []error{netlink.LinkSetNsFd(peer, int(client)), netlink.AddrAdd(veth, addr), netlink.LinkSetUp(veth)} {
		if step != nil {
			t.Fatal(step)
		}
	}
	h, err := netlink.NewHandleAt(client)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	peer, err = h.LinkByName("cli0")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.LinkSetUp(peer); err != nil {
		t.Fatal(err)
	}
}

// run runs a program in the clients' namespace.
func (s segment) run(t *testing.T, pkg, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is missing: apt-get install %s", name, pkg)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + s.path, name}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

func stopDaemon(t *testing.T, pidFile string) {
	t.Helper()
	var pid int
	// The daemon writes its pid after the program that we waited for has ended.
	nettest.Eventually(t, "dhclient writes its pid into "+pidFile, func() bool {
		text, err := os.ReadFile(pidFile)
		if err == nil {
			pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		return err == nil
	})
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// TestRealClients runs the server on a real interface for real clients.
func TestRealClients(t *testing.T) {
	seg := newSegment(t)
	r := newRig(t)
	n := network()
	n.Interface = "srv0"
	srv, err := New(t.Context(), Config{Networks: []Network{n}, Asker: r, Leases: r.store, Reservations: r, Evidence: r, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nenv | grep -E '^(ip|router|dns|domain|ntpsrv|lease|subnet|serverid|new_)=?' | sort\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out := seg.run(t, "udhcpc", "udhcpc", "-i", "cli0", "-n", "-q", "-f", "-s", script, "-O", "ntpsrv")
	for _, want := range []string{"ip=192.168.77.100", "router=192.168.77.254", "dns=192.168.77.53 192.168.77.54", "domain=lab.example", "ntpsrv=192.168.77.123", "lease=3600", "serverid=192.168.77.1"} {
		if !strings.Contains(out, want) {
			t.Errorf("udhcpc was not given %q:\n%s", want, out)
		}
	}
	leases := filepath.Join(t.TempDir(), "leases")
	pidFile := filepath.Join(t.TempDir(), "pid")
	seg.run(t, "isc-dhcp-client", "dhclient", "-1", "-lf", leases, "-pf", pidFile, "-sf", "/bin/true", "cli0")
	stopDaemon(t, pidFile) // dhclient goes on in the background once it has a lease
	if text, err := os.ReadFile(leases); err != nil || !strings.Contains(string(text), "fixed-address 192.168.77.100;") {
		t.Errorf("dhclient's lease: %s, %v", text, err)
	}
	if l, ok := srv.scopes[0].pool.leaseOf(mac(1)); !ok || l.State != lane.LeaseActive || l.Address.String() != "192.168.77.100" {
		t.Errorf("lease %+v", l)
	}
	nettest.Eventually(t, "four answers are counted", func() bool { return srv.Stats().Answered >= 4 })
	if stats := srv.Stats(); stats.Failed != 0 {
		t.Errorf("counters %+v", stats)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestProxyPorts asks a proxy on port 4011 over the wire, as iPXE does, also where
// port 67 belongs to another server of the same machine (PR-13).
func TestProxyPorts(t *testing.T) {
	for name, only := range map[string]bool{"PR-07 both ports": false, "PR-13 only 4011": true} {
		t.Run(name, func(t *testing.T) {
			seg := newSegment(t)
			r := proxyRig(t)
			if only {
				other, err := net.ListenUDP("udp4", &net.UDPAddr{Port: serverPort})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = other.Close() }()
			}
			cfg := r.cfg
			cfg.Networks[0].Interface, cfg.Networks[0].Only4011 = "srv0", only
			srv, err := New(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- srv.Run(ctx) }()
			seg.run(t, "iproute2", "ip", "address", "add", "192.168.77.60/24", "dev", "cli0")
			client := seg.listen(t, 68)
			defer func() { _ = client.Close() }()
			ask := capture(t, "dhcp4-ipxe-arch0007-request-port4011-l2uni")
			if _, err := client.WriteToUDP(ask, &net.UDPAddr{IP: net.IPv4(192, 168, 77, 1), Port: bootServerPort}); err != nil {
				t.Fatal(err)
			}
			if err := client.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 1500)
			n, from, err := client.ReadFromUDP(buf)
			if err != nil || from.Port != bootServerPort {
				t.Fatalf("%d bytes from %v, %v", n, from, err)
			}
			if p, err := dhcpv4.FromBytes(buf[:n]); err != nil || p.MessageType() != ack || p.BootFileName == "" {
				t.Errorf("%v, %v", p, err)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// listen opens a socket in the clients' namespace.
func (s segment) listen(t *testing.T, port int) *net.UDPConn {
	t.Helper()
	here, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = here.Close() }()
	if err := netns.Set(s.client); err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
	if back := netns.Set(here); err != nil || back != nil {
		t.Fatal(err, back)
	}
	return conn
}

// in runs f in the clients' namespace, on this thread.
func (s segment) in(t *testing.T, f func()) {
	t.Helper()
	here, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = here.Close() }()
	if err := netns.Set(s.client); err != nil {
		t.Fatal(err)
	}
	f()
	if err := netns.Set(here); err != nil {
		t.Fatal(err)
	}
}

// start starts a program in the clients' namespace, and ends it with the test.
func (s segment) start(t *testing.T, pkg, name string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is missing: apt-get install %s", name, pkg)
	}
	cmd := exec.Command("nsenter", append([]string{"--net=" + s.path, name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, out.String())
		}
	})
}

// TestRealRelay has a real client get its address through a real relay agent, RL-01, and
// renew it without one, D4-23.
func TestRealRelay(t *testing.T) {
	seg := newSegment(t)
	n := network()
	n.Interface = "srv0"
	n.Subnet = lane.Subnet{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Server: netip.MustParseAddr("192.168.77.1"), Relays: addrList("10.1.0.1"), Routers: addrList("10.1.0.1")}
	n.Ranges = []Range{{First: netip.MustParseAddr("10.1.0.100"), Last: netip.MustParseAddr("10.1.0.103")}}
	r := newRig(t)
	srv, err := New(t.Context(), Config{Networks: []Network{n}, Asker: r, Leases: r.store, Reservations: r, Evidence: r, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	if out, err := exec.Command("ip", "route", "add", "10.1.0.0/24", "via", "192.168.77.60").CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	// The clients' namespace is the router; the client is behind it in one of its own.
	for _, args := range []string{"address add 192.168.77.60/24 dev cli0", "link set lo up", "link add name lan0 type veth peer name pc0",
		"address add 10.1.0.1/24 dev lan0", "link set lan0 up"} {
		seg.run(t, "iproute2", "ip", strings.Fields(args)...)
	}
	seg.run(t, "procps", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
	machine, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = machine.Close() }()
	behind := segment{machine, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(machine))}
	seg.in(t, func() {
		if out, err := exec.Command("ip", "link", "set", "pc0", "netns", behind.path).CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
	})
	behind.run(t, "iproute2", "ip", "link", "set", "pc0", "up")
	seg.start(t, "isc-dhcp-relay", "dhcrelay", "-4", "-d", "-a", "-id", "lan0", "-iu", "cli0", "192.168.77.1")
	time.Sleep(500 * time.Millisecond) // dhcrelay says nothing when it is ready
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n[ \"$1\" != bound ] || { ip address add $ip/24 dev pc0; ip route add default via $router; }\nenv | grep -E '^(ip|router|serverid)='\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out := behind.run(t, "udhcpc", "udhcpc", "-i", "pc0", "-n", "-q", "-f", "-t", "8", "-T", "1", "-s", script)
	for _, want := range []string{"ip=10.1.0.100", "router=10.1.0.1", "serverid=192.168.77.1"} {
		if !strings.Contains(out, want) {
			t.Errorf("udhcpc was not given %q:\n%s", want, out)
		}
	}
	client := behind.listen(t, 68)
	defer func() { _ = client.Close() }()
	l, ok := srv.scopes[0].pool.at(netip.MustParseAddr("10.1.0.100"))
	if !ok {
		t.Fatal("no lease")
	}
	if _, err := client.WriteToUDP(build(request, l.MAC, ciaddr("10.1.0.100")), &net.UDPAddr{IP: net.IPv4(192, 168, 77, 1), Port: serverPort}); err != nil {
		t.Fatal(err)
	}
	if err := client.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	for {
		size, from, err := client.ReadFromUDP(buf)
		if err != nil {
			t.Fatal("no answer came past the agent: ", err)
		}
		p, err := dhcpv4.FromBytes(buf[:size])
		if err != nil || p.MessageType() != ack {
			t.Fatalf("%v from %s, %v", p, from, err)
		}
		if from.String() == "192.168.77.1:67" {
			break // dhcrelay hears the renewal on the wire and passes it on as well
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestConflictProbe: D4-51, with a real machine that nobody gave its address.
func TestConflictProbe(t *testing.T) {
	seg := newSegment(t)
	n := network()
	n.Interface, n.ConflictProbe = "srv0", true
	r := newRig(t)
	srv, err := New(t.Context(), Config{Networks: []Network{n}, Asker: r, Leases: r.store, Reservations: r, Evidence: r, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	seg.run(t, "iproute2", "ip", "address", "add", "192.168.77.100/24", "dev", "cli0")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	nettest.Eventually(t, "the squatter is found, and the address beside it is free", func() bool {
		pool, now := srv.scopes[0].pool, time.Now()
		return pool.usage(now).Aside > 0 && pool.verified(netip.MustParseAddr("192.168.77.101"), now)
	})
	a, ok, err := srv.choose(ctx, srv.scopes[0], query{mac: mac(9), requested: netip.MustParseAddr("192.168.77.100")}, false)
	if err != nil || !ok || a.String() != "192.168.77.101" {
		t.Errorf("given %s, %v, %v", a, ok, err)
	}
	if a, ok, err = srv.choose(ctx, srv.scopes[0], query{mac: mac(1), requested: netip.MustParseAddr("192.168.77.100")}, false); err != nil || !ok || a.String() != "192.168.77.100" { // D4-52: it is its own
		t.Errorf("given %s, %v, %v", a, ok, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(r.notes) == 0 || !strings.Contains(r.notes[0], "192.168.77.100 is in use without a lease") {
		t.Errorf("notes: %v", r.notes)
	}
}
