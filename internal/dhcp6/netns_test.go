package dhcp6

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"bootlane/internal/lane"
	"bootlane/internal/nettest"
)

// place is a network namespace that programs enter.
type place struct {
	t      *testing.T
	handle netns.NsHandle
	path   string
}

// newPlace makes a namespace, and leaves the calling thread in it.
func newPlace(t *testing.T) place {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces need root")
	}
	runtime.LockOSThread() // never unlocked: the thread is not for reuse
	h, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() }) // the namespace goes with its last user
	p := place{t, h, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(h))}
	p.run("procps", "sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad; ip link set lo up")
	return p
}

func (p place) command(ctx context.Context, pkg, name string, args ...string) *exec.Cmd {
	p.t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		p.t.Fatalf("%s is missing: apt-get install %s", name, pkg)
	}
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + p.path, name}, args...)...)
}

// run runs a program to its end.
func (p place) run(pkg, name string, args ...string) string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	out, err := p.command(ctx, pkg, name, args...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// ip runs ip(8), one command a line.
func (p place) ip(lines ...string) {
	p.t.Helper()
	for _, l := range lines {
		p.run("iproute2", "ip", strings.Fields(l)...)
	}
}

// settle waits until the interface can speak.
func (p place) settle(nic string) {
	p.t.Helper()
	nettest.Eventually(p.t, nic+" has a link-local address", func() bool {
		out := p.run("iproute2", "ip", "-6", "address", "show", "dev", nic, "scope", "link")
		return strings.Contains(out, "fe80") && !strings.Contains(out, "tentative")
	})
}

// start starts a program, and ends it with the test.
func (p place) start(pkg, name string, args ...string) {
	p.t.Helper()
	cmd := p.command(context.Background(), pkg, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if p.t.Failed() {
			p.t.Logf("%s said:\n%s", name, out.String())
		}
	})
}

// wired makes a client's namespace and the server's, with a cable between them, and
// leaves the thread in the server's.
func wired(t *testing.T) (client, server place) {
	client, server = newPlace(t), newPlace(t)
	plug(client, server)
	return client, server
}

// plug lays the cable.
func plug(client, server place) {
	server.ip("link add srv0 type veth peer name cli0 address 52:54:00:00:00:01 netns "+client.path,
		"address add fd77::1/64 dev srv0 nodad", "link set srv0 up")
	client.ip("link set cli0 up")
	client.settle("cli0")
}

// serve runs a server on its real port until the test ends.
func serve(t *testing.T, r *rig, n Network) *Server {
	t.Helper()
	s, err := New(t.Context(), Config{Networks: []Network{n}, DUID: DUID([16]byte{1, 2, 3}), Asker: r, Leases: r.store, Reservations: r, Evidence: r, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// dhclient gets an address with ISC's client, and returns what it was given.
func dhclient(t *testing.T, p place, nic string, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	script, told, leases := filepath.Join(dir, "script"), filepath.Join(dir, "told"), filepath.Join(dir, "leases")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nenv | grep '^new_' | sort >> "+told+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	pid := filepath.Join(dir, "pid")
	p.run("isc-dhcp-client", "dhclient", append([]string{"-6", "-1", "-v", "-cf", "/dev/null", "-lf", leases, "-pf", pid, "-sf", script}, append(flags, nic)...)...)
	out, err := os.ReadFile(told)
	if err != nil {
		t.Fatal(err)
	}
	// It may go on in the background, and tells its pid there when it comes to it. The next client needs its port.
	nettest.Eventually(t, "dhclient has left port 546", func() bool {
		p.run("procps", "sh", "-c", "[ ! -s "+pid+" ] || kill $(cat "+pid+") || true") // it may have ended
		return p.run("iproute2", "ss", "-Hlun", "sport = :546") == ""
	})
	return string(out)
}

// TestRealClients has real clients get addresses on a real interface.
func TestRealClients(t *testing.T) {
	client, _ := wired(t)
	r := newRig(t)
	n := network()
	n.Interface = "srv0"
	s := serve(t, r, n)
	out := dhclient(t, client, "cli0")
	for _, want := range []string{"new_ip6_address=fd77::50", "new_dhcp6_name_servers=fd77::35 fd77::36", "new_dhcp6_domain_search=lab.example.", "new_max_life=3600", "new_dhcp6_server_id=0:4:1:2:3:"} {
		if !strings.Contains(out, want) {
			t.Errorf("dhclient was not given %q:\n%s", want, out)
		}
	}
	if l, ok := s.scopes[0].pool.at(netip.MustParseAddr("fd77::50")); !ok || l.Client != "52:54:00:00:00:01" || l.State != lane.LeaseActive {
		t.Errorf("lease %+v", l)
	}
	// The same machine by another client with another DUID has the same address.
	out = client.run("dhcpcd-base", "dhcpcd", "-6", "-1", "-T", "-t", "20", "-f", "/dev/null", "--ia_na", "--noipv6rs", "-c", "/bin/env", "cli0")
	if !strings.Contains(out, "fd77::50") {
		t.Errorf("dhcpcd was given something else:\n%s", out)
	}
	// Stateless: configuration, and no address.
	if out := dhclient(t, client, "cli0", "-S"); !strings.Contains(out, "new_dhcp6_name_servers=fd77::35") || strings.Contains(out, "new_ip6_address") {
		t.Errorf("stateless:\n%s", out)
	}
	nettest.Eventually(t, "four answers are counted", func() bool { return s.State().Counters.Answered >= 4 })
	if st := s.State().Counters; st.Failed != 0 {
		t.Errorf("counters %+v", st)
	}
}

// TestRealRelay has a real client get its address through a real relay agent.
func TestRealRelay(t *testing.T) {
	client, router := newPlace(t), newPlace(t)
	server := newPlace(t)
	server.ip("link add srv0 type veth peer name up0 netns "+router.path, "address add fd77::1/64 dev srv0 nodad", "link set srv0 up", "route add fd88::/64 via fd77::9")
	router.ip("link add lan0 type veth peer name cli0 address 52:54:00:00:00:02 netns "+client.path, "address add fd77::9/64 dev up0 nodad", "address add fd88::1/64 dev lan0 nodad",
		"link set up0 up", "link set lan0 up")
	router.run("procps", "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
	client.ip("link set cli0 up")
	client.settle("cli0")
	router.settle("lan0")
	n := network()
	n.Interface = "srv0"
	n.Subnet = lane.Subnet{Prefix: netip.MustParsePrefix("fd88::/64"), Server: netip.MustParseAddr("fd77::1"), Relays: addrs("fd77::9"), DNS: addrs("fd77::35")}
	n.First, n.Last = netip.MustParseAddr("fd88::100"), netip.MustParseAddr("fd88::103")
	r := newRig(t)
	s := serve(t, r, n)
	router.start("isc-dhcp-relay", "dhcrelay", "-6", "-d", "-I", "-l", "lan0", "-u", "fd77::1%up0")
	time.Sleep(500 * time.Millisecond) // dhcrelay says nothing when it is ready
	if out := dhclient(t, client, "cli0"); !strings.Contains(out, "new_ip6_address=fd88::100") {
		t.Errorf("dhclient was given\n%s", out)
	}
	if l, ok := s.scopes[0].pool.at(netip.MustParseAddr("fd88::100")); !ok || l.Client != "52:54:00:00:00:02" {
		t.Errorf("lease %+v", l)
	}
}

// TestInterfaceMadeAnew: also the groups that clients send to belong to an interface's
// index, and go with it.
func TestInterfaceMadeAnew(t *testing.T) {
	client, server := wired(t)
	n := network()
	n.Interface = "srv0"
	serve(t, newRig(t), n)
	server.ip("link delete srv0")
	plug(client, server)
	if out := dhclient(t, client, "cli0"); !strings.Contains(out, "new_ip6_address=fd77::50") {
		t.Errorf("dhclient was given\n%s", out)
	}
}
