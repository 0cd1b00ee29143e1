package dhcp

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bootlane/internal/lane"
	"bootlane/internal/nettest"
)

// invented returns the hardware address of one machine of many.
func invented(n int) lane.MAC {
	b := binary.BigEndian.AppendUint32([]byte{0x52, 0x56}, uint32(n))
	m, err := lane.MACFromBytes(b)
	if err != nil {
		panic(err)
	}
	return m
}

// wide gives the rig a network with many addresses.
func (r *rig) wide(first, last string) {
	r.networks[0].Prefix = netip.MustParsePrefix("192.168.0.0/16")
	r.networks[0].Ranges = []Range{{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last)}}
	r.restart()
}

// TestFullDisk: what cannot be stored is not acknowledged, what was acknowledged is
// stored, and once there is room again the server goes on by itself.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal("a file system of its own needs root: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	r := newRigIn(t, dir)
	r.wide("192.168.100.1", "192.168.199.254")
	had := map[lane.MAC]string{invented(0): r.bind(invented(0))}
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	refused := lane.MAC("")
	for n := 1; n < 5000 && refused == ""; n++ {
		m := invented(n)
		offer := r.say(build(discover, m, nil))
		if offer == nil {
			t.Fatal("no offer: it needs no disk")
		}
		a := offer.YourIPAddr.String()
		if r.say(selecting(m, a, "192.168.77.1")) == nil {
			refused = m
			break
		}
		had[m] = a
	}
	if refused == "" {
		t.Fatal("every lease was acknowledged on a full disk")
	}
	if l, ok := r.pool.leaseOf(refused); ok {
		t.Errorf("%+v is remembered although it could not be stored", l)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	had[refused] = r.bind(refused)
	stored, err := r.store.Leases(t.Context())
	if err != nil || len(stored) != len(had) {
		t.Errorf("%d leases are stored, %d were acknowledged; %v", len(stored), len(had), err)
	}
	for _, l := range stored {
		if had[l.MAC] != l.Address.String() {
			t.Errorf("%s has %s stored and was told %q", l.MAC, l.Address, had[l.MAC])
		}
	}
}

// TestFloodOfDiscovers: ten thousand invented machines that never take their offer keep
// out neither a host of the inventory nor a newcomer, nor cost they more memory than the
// addresses that there are.
func TestFloodOfDiscovers(t *testing.T) {
	r := newRig(t)
	r.wide("192.168.100.1", "192.168.100.200")
	r.reserved[mac(1)] = netip.MustParseAddr("192.168.50.1")
	flood := func(from, to int) {
		for n := from; n < to; n++ {
			r.say(build(discover, invented(n), nil))
			r.now = r.now.Add(100 * time.Microsecond)
		}
	}
	early := r.say(build(discover, mac(2), nil))
	if early == nil {
		t.Fatal("no offer")
	}
	flood(0, 5000)
	r.expect(r.say(build(discover, mac(1), nil)), offering, "192.168.50.1")
	flood(5000, 10000)
	r.expect(r.say(selecting(mac(1), "192.168.50.1", "192.168.77.1")), ack, "192.168.50.1")
	r.expect(r.say(selecting(mac(2), early.YourIPAddr.String(), "192.168.77.1")), ack, early.YourIPAddr.String())
	if n := len(r.pool.offers); n > 201 {
		t.Errorf("%d offers are remembered, for 200 addresses", n)
	}
	r.now = r.now.Add(offerFirm)
	r.bind(mac(3))
}

// TestClockJumps: wrong time gives no address to two machines.
func TestClockJumps(t *testing.T) {
	const decade = 10 * 365 * 24 * time.Hour
	for name, jump := range map[string]time.Duration{"an hour ahead": time.Hour, "an hour back": -time.Hour, "ten years ahead": decade, "ten years back": -decade} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			had := map[lane.MAC]string{}
			for n := range byte(3) {
				had[mac(n+1)] = r.bind(mac(n + 1))
			}
			r.now = r.now.Add(jump)
			fresh := r.bind(mac(9))
			for m, a := range had {
				if a == fresh {
					t.Errorf("%s was given to another while an address was free", a)
				}
				r.expect(r.say(build(request, m, ciaddr(a))), ack, a) // it renews
			}
			r.now = r.now.Add(-jump)
			for m, a := range had {
				r.expect(r.say(build(request, m, ciaddr(a))), ack, a)
			}
			r.restart()
			for m, a := range had {
				r.expect(r.say(build(request, m, nil, ip(50, a)...)), ack, a)
			}
		})
	}
}

// TestInterfaceFlaps: a cable that is pulled, and an address that goes and comes back, end
// nothing.
func TestInterfaceFlaps(t *testing.T) {
	seg := newSegment(t)
	n := network()
	n.Interface = "srv0"
	r := newRig(t)
	srv, err := New(t.Context(), Config{Networks: []Network{n}, Asker: r, Leases: r.store, Reservations: r, Evidence: r, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	link, err := netlink.LinkByName("srv0")
	if err != nil {
		t.Fatal(err)
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 168, 77, 1), Mask: net.CIDRMask(24, 32)}}
	ask := func(what string) {
		t.Helper()
		out := seg.run(t, "udhcpc", "udhcpc", "-i", "cli0", "-n", "-q", "-f", "-t", "10", "-T", "1", "-s", "/bin/true")
		if l, ok := srv.scopes[0].pool.leaseOf(mac(1)); !ok || l.Address.String() != "192.168.77.100" {
			t.Errorf("%s: lease %+v\n%s", what, l, out)
		}
	}
	ask("at first")
	for what, step := range map[string][2]func() error{
		"the link went down and up":       {func() error { return netlink.LinkSetDown(link) }, func() error { return netlink.LinkSetUp(link) }},
		"the address went and came again": {func() error { return netlink.AddrDel(link, address) }, func() error { return netlink.AddrAdd(link, address) }},
	} {
		if err := step[0](); err != nil {
			t.Fatal(what, err)
		}
		time.Sleep(300 * time.Millisecond)
		if err := step[1](); err != nil {
			t.Fatal(what, err)
		}
		ask(what)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestInterfaceMadeAnew: an interface that is deleted and made anew under its name, as
// those of VLANs and containers are, is heard and spoken to again, and so are those who
// use addresses there without a lease.
func TestInterfaceMadeAnew(t *testing.T) {
	seg := newSegment(t)
	n := network()
	n.Interface, n.ConflictProbe = "srv0", true
	r := newRig(t)
	log := r.told()
	var ahead atomic.Int64
	r.cfg.Networks, r.cfg.Now = []Network{n}, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	srv, err := New(t.Context(), r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	link, err := netlink.LinkByName("srv0")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, "it is told that it is gone", func() bool { return strings.Contains(log.String(), "the interface is gone") })
	plug(t, seg.client)
	seg.run(t, "udhcpc", "udhcpc", "-i", "cli0", "-n", "-q", "-f", "-t", "10", "-T", "1", "-s", "/bin/true")
	if l, ok := srv.scopes[0].pool.leaseOf(mac(1)); !ok || l.Address.String() != "192.168.77.100" {
		t.Errorf("lease %+v", l)
	}
	seg.run(t, "iproute2", "ip", "address", "add", "192.168.77.101/24", "dev", "cli0")
	nettest.Eventually(t, "the squatter is found", func() bool {
		ahead.Add(int64(2 * checkHolds)) // the address may have been found free before it was there
		r.mu.Lock()
		defer r.mu.Unlock()
		return slices.ContainsFunc(r.notes, func(n string) bool { return strings.HasPrefix(n, "192.168.77.101 is in use") })
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "made anew"); n != 2 || strings.Contains(log.String(), "ERROR") {
		t.Errorf("the server's socket and the prober's are said to be back %d times: %s", n, log)
	}
}
