package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"bootlane/internal/lane"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// serveDHCP answers on one end of a cable until the test ends, and passes every
// message it got on.
func serveDHCP(t *testing.T, s *dhcpSocket) <-chan []byte {
	got, quit, done := make(chan []byte, 100), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			default:
			}
			b, err := s.receive()
			if err != nil || len(b) < 28+dhcpFixed || binary.BigEndian.Uint16(b[22:]) != 67 {
				continue
			}
			message := b[28:]
			got <- message
			kind := byte(dhcpOffer)
			if opts, err := dhcpOptions(message); err == nil && bytes.Equal(opts[optType], []byte{dhcpRequest}) {
				kind = dhcpAck
			}
			answer := reply(kind, "10.0.0.7", fullLease...)
			copy(answer[4:8], message[4:8])
			copy(answer[28:34], message[28:34])
			frame := dhcpFrame(answer, netip.MustParseAddr("10.0.0.1"))
			frame[21], frame[23] = 67, 68
			_ = s.send(frame) // lost packets are sent again
		}
	}()
	t.Cleanup(func() { close(quit); <-done; s.close() })
	return got
}

// A whole exchange over a real cable, in a network namespace that lives as long
// as this test's thread: the lease, its address and routes, and its renewal.
func TestLeaseOverACable(t *testing.T) {
	runtime.LockOSThread() // never unlocked: the thread ends with the test, and the namespace with it
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("this test needs root, for a network namespace of its own: %v", err)
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "machine"}, PeerName: "server"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"machine", "server"} {
		if err := linkUp(name); err != nil {
			t.Fatal(err)
		}
	}
	iface, err := net.InterfaceByName("server")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := openDHCP(iface)
	if err != nil {
		t.Fatal(err)
	}
	got := serveDHCP(t, socket)

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
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil || len(addrs) != 1 || addrs[0].IPNet.String() != "10.0.0.7/24" || link.Attrs().MTU != 1280 {
		t.Errorf("addresses %v, %v; MTU %d", addrs, err, link.Attrs().MTU)
	}
	route, err := netlink.RouteGet(net.IPv4(192, 0, 2, 1))
	if err != nil || len(route) != 1 || route[0].Gw.String() != "10.0.0.254" {
		t.Errorf("the way out: %v, %v", route, err)
	}
	for len(got) > 0 {
		<-got
	}
	again, err := m.acquire(context.Background(), nic, l, oneAttempt, 0)
	if err != nil || again.address != l.address {
		t.Errorf("renewal: %+v, %v", again, err)
	}
	if ask := <-got; !bytes.Equal(ask[12:16], []byte{10, 0, 0, 7}) {
		t.Errorf("the renewal was asked for %v", ask[12:16])
	}
}

func TestWriteResolver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	l := lease{dns: []netip.Addr{netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("10.0.0.1")}}
	if err := writeResolver(file, l); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "nameserver 9.9.9.9\nnameserver 10.0.0.1\n" {
		t.Errorf("%q, %v", b, err)
	}
	if err := writeResolver(filepath.Join(file, "x"), l); err == nil || !strings.Contains(err.Error(), "set the name servers") {
		t.Errorf("got %v", err)
	}
}
