package agent

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"bootlane/internal/lane"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// layCable lays a cable between two namespaces, those of a machine and of a DHCP
// server that answers until the test ends, and returns what the server was asked.
// The test goes on as the machine, on a thread that ends with it.
func layCable(t *testing.T) <-chan *dhcpv4.DHCPv4 {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the namespaces go with the thread and the sockets
	machine, err := netns.New()
	if err != nil {
		t.Fatalf("this test needs root, for network namespaces of its own: %v", err)
	}
	// As on a machine that nothing has set up yet, whatever this one's rule is.
	for _, which := range []string{"all", "default"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+which+"/rp_filter", []byte("0"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	server, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = machine.Close(); _ = server.Close() })
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "server"}, PeerName: "machine", PeerNamespace: netlink.NsFd(machine)}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 0, 0, 1), Mask: net.CIDRMask(24, 32)}}
	if err := errors.Join(netlink.LinkAdd(cable), netlink.AddrAdd(cable, addr), linkUp("server")); err != nil {
		t.Fatal(err)
	}
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 67})
	if err != nil {
		t.Fatal(err)
	}
	got, done := make(chan *dhcpv4.DHCPv4, 100), make(chan struct{})
	go func() { defer close(done); serveDHCP(socket, got) }()
	t.Cleanup(func() { _ = socket.Close(); <-done })
	raw, err := socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var bound error
	if err := raw.Control(func(fd uintptr) { bound = unix.BindToDevice(int(fd), "server") }); errors.Join(err, bound) != nil {
		t.Fatal(err, bound)
	}
	if err := errors.Join(netns.Set(machine), linkUp("machine")); err != nil {
		t.Fatal(err)
	}
	return got
}

// serveDHCP offers and gives one address until its socket is closed.
func serveDHCP(socket *net.UDPConn, got chan<- *dhcpv4.DHCPv4) {
	for buf := make([]byte, 2048); ; {
		n, err := socket.Read(buf)
		if err != nil {
			return
		}
		ask, err := dhcpv4.FromBytes(buf[:n])
		if err != nil {
			continue
		}
		got <- ask
		kind, to := dhcpv4.MessageTypeOffer, net.IPv4bcast
		if ask.MessageType() == dhcpv4.MessageTypeRequest {
			kind = dhcpv4.MessageTypeAck
		}
		if !ask.ClientIPAddr.IsUnspecified() {
			to = ask.ClientIPAddr // RFC 2131, 4.1
		}
		answer := reply(kind, "10.0.0.7", fullLease...)
		copy(answer[4:8], ask.TransactionID[:])
		copy(answer[28:34], ask.ClientHWAddr)
		_, _ = socket.WriteTo(answer, &net.UDPAddr{IP: to, Port: 68}) // lost packets are sent again
	}
}

// A whole exchange over a real cable: the lease, its address and routes.
func TestLeaseOverACable(t *testing.T) {
	layCable(t)
	m := &machine{now: time.Now}
	l, err := m.acquire(context.Background(), lane.NIC{Name: "machine"}, lease{}, oneAttempt, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := configure("machine", l); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName("machine")
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil || len(addrs) != 1 || addrs[0].IPNet.String() != "10.0.0.7/24" || link.Attrs().MTU != 1280 {
		t.Errorf("addresses %v, %v; MTU %d", addrs, err, link.Attrs().MTU)
	}
	route, err := netlink.RouteGet(net.IPv4(192, 0, 2, 1))
	if err != nil || len(route) != 1 || route[0].Gw.String() != "10.0.0.254" {
		t.Errorf("the way out: %v, %v", route, err)
	}
}

// The lease of an hour is renewed at its half, and after a renewal that failed
// again soon enough to keep it.
func TestRenewalOverACable(t *testing.T) {
	got := layCable(t)
	m := &machine{now: time.Now}
	nic := lane.NIC{Name: "machine"}
	l, err := m.acquire(context.Background(), nic, lease{}, oneAttempt, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := configure("machine", l); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName("machine")
	if err != nil {
		t.Fatal(err)
	}
	renewals := func() (n int) {
		for ; len(got) > 0; n++ {
			if ask := <-got; !ask.ClientIPAddr.Equal(net.IPv4(10, 0, 0, 7)) {
				t.Errorf("the renewal was asked for %s", ask.ClientIPAddr)
			}
		}
		return n
	}
	for len(got) > 0 {
		<-got
	}
	var waits []time.Duration
	m.sleep = func(_ context.Context, d time.Duration) error {
		waits = append(waits, d)
		switch len(waits) {
		case 2:
			if renewals() == 0 {
				t.Error("half an hour passed, and the server was not asked")
			}
			return netlink.LinkSetDown(link)
		case 3:
			return netlink.LinkSetUp(link)
		case 4:
			if renewals() == 0 {
				t.Error("the renewal that failed was not tried again")
			}
			return context.Canceled
		}
		return nil
	}
	var console bytes.Buffer
	m.renew(context.Background(), nic, l, NewLog(&console, time.Now))
	half, soon := 30*time.Minute, 450*time.Second
	if !slices.Equal(waits, []time.Duration{half, half, soon, half}) {
		t.Errorf("waited %v\n%s", waits, console.String())
	}
	if n := strings.Count(console.String(), "renew the lease of 10.0.0.7/24: "); n != 1 {
		t.Errorf("%d failures told:\n%s", n, console.String())
	}
}

// The name servers of both IPs stand beside each other, and a renewal replaces its own.
func TestResolve(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	addr := netip.MustParseAddr
	c := newConnection(nil, "10.0.0.1", file, nil)
	err := errors.Join(c.resolve("eth0 4", []netip.Addr{addr("9.9.9.9"), addr("10.0.0.1")}), c.resolve("eth0 6", []netip.Addr{addr("fd77::35")}), c.resolve("eth0 6", []netip.Addr{addr("fd77::36")}))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "nameserver 9.9.9.9\nnameserver 10.0.0.1\nnameserver fd77::36\n" {
		t.Errorf("%q, %v", b, err)
	}
	c.resolver = filepath.Join(file, "x")
	if err := c.resolve("eth0 4", nil); err == nil || !strings.Contains(err.Error(), "set the name servers") {
		t.Errorf("got %v", err)
	}
}
