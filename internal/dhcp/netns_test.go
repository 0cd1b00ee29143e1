package dhcp

import (
	"context"
	"fmt"
	"log/slog"
	"net"
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
	return segment{client, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(client))}
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
	for range 200 {
		// The daemon writes its pid after the program that we waited for has ended.
		text, err := os.ReadFile(pidFile)
		pid, convErr := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil || convErr != nil {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("dhclient wrote no pid into %s", pidFile)
}

// TestRealClients runs the server on a real interface for real clients.
func TestRealClients(t *testing.T) {
	seg := newSegment(t)
	r := newRig(t)
	srv, err := New(t.Context(), Config{Interface: "srv0", Network: network(), Asker: r, Leases: r.store, Reservations: r, Evidence: r, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
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
	if l, ok := srv.pool.leaseOf(mac(1)); !ok || l.State != lane.LeaseActive || l.Address.String() != "192.168.77.100" {
		t.Errorf("lease %+v", l)
	}
	stats := srv.Stats()
	if stats.Answered < 4 || stats.Failed != 0 {
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
	for name, only := range map[string]bool{"both ports": false, "only 4011": true} {
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
			cfg.Interface, cfg.Only4011 = "srv0", only
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
