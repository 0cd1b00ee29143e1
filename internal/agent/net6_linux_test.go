package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bootlane/internal/dhcp6"
	"bootlane/internal/lane"
	"bootlane/internal/nettest"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// alone runs a test as a process of its own in a network namespace of its own, and says
// whether this is it: the DHCPv6 client runs on any thread. nettest.Main would do that to
// the whole package, and a fuzz target must stay the child of `go test`.
func alone(t *testing.T) bool {
	t.Helper()
	const inside = "BOOTLANE_AGENT_ALONE"
	if os.Getenv(inside) != "" {
		return true
	}
	t.Parallel() // they wait for routers more than for a CPU
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=3m")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // that signal is for the death of the thread
	defer runtime.UnlockOSThread()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("in a network namespace, which needs root: %v\n%s", err, out)
	}
	return false
}

// screen is a console that a test may read while others write.
type screen struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(b)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// site is a machine with a NIC, at the other end of whose cable a server stands.
type site struct {
	t        *testing.T
	nic      lane.NIC
	link     netlink.Link
	console  screen
	resolver string
	waits    chan time.Duration // long ones, of a lease; each lasts until somebody receives it
	http     net.Listener       // of the server, at fd77::1

	mu       sync.Mutex
	evidence []string
}

// newSite lays the cable; serve runs in the server's namespace.
func newSite(t *testing.T, serve func(*site)) *site {
	t.Helper()
	s := &site{t: t, resolver: filepath.Join(t.TempDir(), "resolv.conf"), waits: make(chan time.Duration)}
	runtime.LockOSThread() // never unlocked, as in layCable
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	server, err := netns.New()
	if err != nil {
		t.Fatalf("this test needs root, for network namespaces of its own: %v", err)
	}
	t.Cleanup(func() { _ = home.Close(); _ = server.Close() })
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "server"}, PeerName: "machine", PeerNamespace: netlink.NsFd(home)}
	if err := netlink.LinkAdd(cable); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.unplug)
	four := &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("10.0.0.1/24"))}
	if err := errors.Join(netlink.AddrAdd(cable, four), addAddress6(cable, "fd77::1/64")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(linkUp("lo"), linkUp("server")); err != nil {
		t.Fatal(err)
	}
	if s.http, err = net.Listen("tcp6", "[fd77::1]:80"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.http.Close() })
	serve(s)
	if err := netns.Set(home); err != nil {
		t.Fatal(err)
	}
	s.plugIn()
	return s
}

// addAddress6 gives a NIC an address that is good at once.
func addAddress6(link netlink.Link, prefix string) error {
	return netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(prefix)), Flags: unix.IFA_F_NODAD})
}

// plugIn brings the machine's end up, as Connect does.
func (s *site) plugIn() {
	s.t.Helper()
	heedRouters("machine")
	err := errors.Join(linkUp("lo"), linkUp("machine"))
	if err != nil {
		s.t.Fatal(err)
	}
	if s.link, err = netlink.LinkByName("machine"); err != nil {
		s.t.Fatal(err)
	}
	s.nic = lane.NIC{Name: "machine", MAC: lane.MAC(s.link.Attrs().HardwareAddr.String()), Driver: "veth"}
}

// unplug takes the cable away, if it is still there.
func (s *site) unplug() {
	if s.link != nil {
		_ = netlink.LinkDel(s.link)
	}
}

// connect gives the machine turns on its NIC, as Connect does.
func (s *site) connect(host string) (time.Duration, error) {
	ctx, cancel := context.WithCancel(context.Background())
	s.t.Cleanup(cancel)
	m := &machine{now: time.Now, sleep: func(ctx context.Context, d time.Duration) error {
		if d < 10*time.Second {
			time.Sleep(d)
			return ctx.Err()
		}
		select {
		case s.waits <- d:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("console:\n%s", s.console.String())
		}
	})
	began := time.Now()
	c := newConnection(m, host, s.resolver, NewLog(&s.console, time.Now))
	err := c.turn(ctx, s.nic, 0)
	for n := 0; err != nil && n < 4; n++ { // a busy machine may need more than one
		err = c.turn(ctx, s.nic, 0)
	}
	return time.Since(began), err
}

// seen opens a connection to the server and returns the address that it sees.
func (s *site) seen() netip.Addr {
	s.t.Helper()
	conn, err := net.DialTimeout("tcp6", "[fd77::1]:80", 5*time.Second)
	if err != nil {
		s.t.Fatalf("the server cannot be reached: %v", err)
	}
	defer func() { _ = conn.Close() }()
	peer, err := s.http.Accept()
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = peer.Close() }()
	return peer.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
}

// addresses returns the machine's, but the link-local one.
func (s *site) addresses() (out []netlink.Addr) {
	s.t.Helper()
	list, err := netlink.AddrList(s.link, netlink.FAMILY_V6)
	if err != nil {
		s.t.Fatal(err)
	}
	return slices.DeleteFunc(list, func(a netlink.Addr) bool { return a.IP.IsLinkLocalUnicast() })
}

// dnsmasq is router and DHCPv6 server in one.
func dnsmasq(s *site, mode string) {
	if _, err := exec.LookPath("dnsmasq"); err != nil {
		s.t.Fatal("dnsmasq is missing: apt-get install dnsmasq-base")
	}
	var out screen
	cmd := exec.Command("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--port=0", "--user=root", "--interface=server", "--bind-interfaces", "--log-facility=-", "--log-dhcp",
		"--enable-ra", "--dhcp-range=fd77::1000,fd77::1fff,"+mode+"64,10m", "--dhcp-option=option6:dns-server,[fd77::35]", "--dhcp-leasefile="+filepath.Join(s.t.TempDir(), "leases"))
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &out, &out, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if s.t.Failed() {
			s.t.Logf("dnsmasq said:\n%s", out.String())
		}
	})
}

// In a network whose router says M and gives no prefix to make addresses of, DHCPv6 has
// the only one.
func TestManagedNetwork(t *testing.T) {
	if !alone(t) {
		return
	}
	s := newSite(t, func(s *site) { dnsmasq(s, "") })
	if _, err := s.connect("fd77::1"); err != nil {
		t.Fatal(err)
	}
	list := s.addresses()
	if len(list) != 1 || !strings.HasPrefix(list[0].IPNet.String(), "fd77::1") || !strings.HasSuffix(list[0].IPNet.String(), "/128") || list[0].ValidLft < 500 || list[0].ValidLft > 600 {
		t.Fatalf("addresses %v", list)
	}
	if a := s.seen(); a.String() != list[0].IP.String() {
		t.Errorf("the server sees %s", a)
	}
	if b, err := os.ReadFile(s.resolver); err != nil || string(b) != "nameserver fd77::35\n" {
		t.Errorf("name servers %q, %v", b, err)
	}
	want := fmt.Sprintf("net:  machine (%s, veth) has %s from fe80::", s.nic.MAC, list[0].IP)
	nettest.Eventually(t, "the console tells the address and its lease", func() bool { // which the kernel has first
		said := s.console.String()
		return strings.Contains(said, want) && strings.Contains(said, ", lease 10m0s\r\n")
	})
	// The half of ten minutes, less some seconds of dnsmasq's choice, goes by at once.
	for range 2 {
		if d := <-s.waits; d < 4*time.Minute || d > 5*time.Minute {
			t.Errorf("waits %s for its renewal", d)
		}
	}
	if strings.Contains(s.console.String(), "renew") {
		t.Error("the renewal failed")
	}
}

// With a prefix beside it both addresses stay.
func TestManagedNetworkWithPrefix(t *testing.T) {
	if !alone(t) {
		return
	}
	s := newSite(t, func(s *site) { dnsmasq(s, "slaac,") })
	if _, err := s.connect("fd77::1"); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, "two addresses", func() bool { return len(s.addresses()) == 2 && strings.Contains(s.console.String(), ", lease 10m0s") })
	s.seen()
}

// bootlane is our own DHCPv6 server, for whom everything is allowed.
func bootlane(s *site) {
	config := dhcp6.Config{Networks: []dhcp6.Network{{Interface: "server", Lease: time.Hour, First: netip.MustParseAddr("fd77::1000"), Last: netip.MustParseAddr("fd77::1fff"),
		Subnet: lane.Subnet{Server: netip.MustParseAddr("fd77::1"), Prefix: netip.MustParsePrefix("fd77::/64")}}},
		DUID: dhcp6.DUID([16]byte{1}), Asker: s, Leases: s, Reservations: s, Evidence: s, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	server, err := dhcp6.New(context.Background(), config)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
}

func (s *site) Ask(context.Context, lane.Facts) (lane.Decision, error) { return lane.Decision{}, nil }
func (s *site) PutLease6(context.Context, ...lane.Lease6) error        { return nil }
func (s *site) DropLease6(context.Context, netip.Addr) error           { return nil }
func (s *site) Leases6(context.Context) ([]lane.Lease6, error)         { return nil, nil }
func (s *site) Holder6(context.Context, netip.Addr) (bool, error)      { return false, nil }
func (s *site) NoLease(f lane.Facts, message, text string)             { s.Lease(f, message, text) }
func (s *site) Reserved6(context.Context, lane.Facts) (netip.Addr, []lane.MAC, error) {
	return netip.Addr{}, nil, nil
}

func (s *site) Lease(f lane.Facts, message, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.evidence = append(s.evidence, fmt.Sprintf("%s %s %s", f.MAC, message, text))
}

func (s *site) told() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.evidence, "\n")
}

// Without any router, and without IPv4, DHCPv6 is asked all the same; our server knows
// the machine by its MAC. What it renews it keeps, and what is another's it declines.
func TestNetworkWithoutRouter(t *testing.T) {
	if !alone(t) {
		return
	}
	s := newSite(t, func(s *site) {
		other, err := netlink.LinkByName("server")
		if err == nil { // somebody has the first address of the range
			err = addAddress6(other, "fd77::1000/128")
		}
		if err != nil {
			s.t.Fatal(err)
		}
		bootlane(s)
	})
	if _, err := s.connect("fd77::1"); err != nil {
		t.Fatal(err)
	}
	if a := s.seen(); a.String() != "fd77::1001" {
		t.Errorf("the server sees %s", a)
	}
	for range 2 {
		if d := <-s.waits; d != 30*time.Minute {
			t.Errorf("waits %s for its renewal", d)
		}
	}
	mac := string(s.nic.MAC)
	want := mac + " SOLICIT leased fd77::1000\n" + mac + " DECLINE declined (another machine answers there; set aside for 10m0s) fd77::1000\n" + mac + " SOLICIT leased fd77::1001\n" + mac + " RENEW leased fd77::1001"
	if !strings.HasPrefix(s.told(), want) { // after the second wait it renews again
		t.Errorf("the server's evidence:\n%s", s.told())
	}
	if list := s.addresses(); len(list) != 1 || list[0].ValidLft < 3500 {
		t.Errorf("addresses %v", list)
	}
}

// IPv4 waits for nothing of IPv6: whether the server has an address or a name.
func TestIPv4DoesNotWait(t *testing.T) {
	if !alone(t) {
		return
	}
	attempt := func(host string) time.Duration {
		got, done := make(chan *dhcpv4.DHCPv4, 100), make(chan struct{})
		s := newSite(t, func(s *site) {
			lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
				var bound error
				err := c.Control(func(fd uintptr) { bound = unix.BindToDevice(int(fd), "server") })
				return errors.Join(err, bound)
			}}
			socket, err := lc.ListenPacket(context.Background(), "udp4", ":67")
			if err != nil {
				s.t.Fatal(err)
			}
			go func() { defer close(done); serveDHCP(socket.(*net.UDPConn), got) }()
			s.t.Cleanup(func() { _ = socket.Close(); <-done })
			bootlane(s)
		})
		took, err := s.connect(host)
		if err != nil {
			t.Errorf("%s: %v after %s", host, err, took)
		}
		if d := <-s.waits; d != 30*time.Minute { // of the IPv4 lease
			t.Errorf("waits %s", d)
		}
		s.unplug()
		return took
	}
	for _, host := range []string{"10.0.0.1", "boot.example"} {
		quickest := time.Hour
		for range 6 { // a busy machine may be slow once; whoever waits for routers is so each time
			if quickest = min(quickest, attempt(host)); quickest < routerPatient {
				break
			}
		}
		if quickest >= routerPatient {
			t.Errorf("%s: %s at best", host, quickest)
		}
	}
}
