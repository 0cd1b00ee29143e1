package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"bootlane/internal/lane"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	addressPatient = 3 * time.Minute  // a switch port may take 50 s to forward (spanning tree)
	oneAttempt     = 12 * time.Second // on one NIC, before the next one's turn
	resendAfter    = 3 * time.Second
)

// connection is what one Connect knows.
type connection struct {
	*machine
	server   netip.Addr // the zero Addr: a name, which either IP may reach
	resolver string     // the file of name servers
	log      *Log
	asking   map[string]bool // NICs that DHCPv6 is asked through

	mu      sync.Mutex
	names   map[string][]netip.Addr // name servers, by who told them
	leased  map[string]bool         // NICs that have an IPv4 address
	trouble map[string]error        // what DHCPv6 came to last, by NIC
}

func newConnection(m *machine, host, resolver string, log *Log) *connection {
	server, _ := netip.ParseAddr(host)
	if server = server.Unmap(); server.IsLinkLocalUnicast() {
		server = netip.Addr{} // no address of ours tells whether it can be reached
	}
	return &connection{machine: m, server: server, resolver: resolver, log: log,
		names: map[string][]netip.Addr{}, leased: map[string]bool{}, asking: map[string]bool{}, trouble: map[string]error{}}
}

// Connect brings every NIC up and asks for an address: through the one that the
// firmware booted from first, then through each other one with a carrier, and round again.
func (m *machine) Connect(ctx context.Context, p Params, log *Log) (lane.MAC, error) {
	c := newConnection(m, p.URL.Hostname(), "/etc/resolv.conf", log)
	began, tried := m.now(), 0
	if err := linkUp("lo"); err != nil {
		log.Step("net: %v", err)
	}
	var last error
	for m.now().Sub(began) < addressPatient {
		nics := order(readNICs("/"), p.BootMAC)
		for _, n := range nics {
			heedRouters(n.Name)
			if err := linkUp(n.Name); err != nil {
				log.Step("net: %v", err)
			}
		}
		if tried == 0 {
			m.awaitCarrier(nics, log)
		}
		tried++
		for _, n := range order(readNICs("/"), p.BootMAC) {
			if !n.Up {
				last = fmt.Errorf("%s (%s) has no carrier", n.Name, n.MAC)
				continue
			}
			n, err := tagged(n, p.VLAN)
			if err == nil {
				err = c.turn(ctx, n, uint16(m.now().Sub(began)/time.Second))
			}
			if err == nil {
				return n.MAC, nil
			}
			last = err
			log.Step("net:  %s (%s): %v", n.Name, n.MAC, err)
		}
		if err := m.sleep(ctx, time.Second); err != nil {
			return "", err
		}
	}
	hint := "that a DHCP server knows this machine"
	if c.server.Is6() {
		hint = "that a router advertises the network"
	}
	return "", fmt.Errorf("no address in %s: %w; check the cable, the VLAN, and %s", addressPatient, orNoNIC(last), hint)
}

// turn is one NIC's: it succeeds when the machine can speak to its server. An address of
// the other IP would not help it, and is not asked for. Where the server has a name both
// are asked at once, and IPv6 alone does when DHCPv4 came to nothing: names of IPv4 only
// are more common than networks of IPv6 only.
func (c *connection) turn(ctx context.Context, n lane.NIC, secs uint16) error {
	if c.server.Is4() {
		return c.lease4(ctx, n, secs)
	}
	c.start6(ctx, n)
	if c.server.Is6() {
		return c.await6(ctx, n, oneAttempt)
	}
	err := c.lease4(ctx, n, secs)
	if err != nil && c.await6(ctx, n, 0) == nil {
		return nil
	}
	return err
}

// lease4 gets an IPv4 address, and keeps it.
func (c *connection) lease4(ctx context.Context, n lane.NIC, secs uint16) error {
	l, err := c.acquire(ctx, n, lease{}, oneAttempt, secs)
	if err == nil {
		err = configure(n.Name, l)
	}
	if err == nil {
		err = c.resolve(n.Name+" 4", l.dns)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.leased[n.Name] = true
	c.mu.Unlock()
	c.log.Step("net:  %s (%s, %s) has %s from %s, lease %s", n.Name, n.MAC, n.Driver, l.address, l.server, l.length)
	go c.renew(ctx, n, l, c.log)
	return nil
}

func orNoNIC(err error) error {
	if err == nil {
		return errors.New("the machine shows no Ethernet interface; the kernel's driver may be missing from the agent's initramfs")
	}
	return err
}

// order puts the NIC that the firmware booted from first.
func order(nics []lane.NIC, prefer lane.MAC) []lane.NIC {
	slices.SortStableFunc(nics, func(a, b lane.NIC) int {
		switch {
		case a.MAC == prefer && b.MAC != prefer:
			return -1
		case b.MAC == prefer && a.MAC != prefer:
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return nics
}

// awaitCarrier gives links a few seconds to come up, the first one most of all.
func (m *machine) awaitCarrier(nics []lane.NIC, log *Log) {
	if len(nics) == 0 {
		return
	}
	for began := m.now(); m.now().Sub(began) < 10*time.Second; {
		if readText("/sys/class/net/"+nics[0].Name+"/carrier") == "1" {
			return
		}
		_ = m.sleep(context.Background(), 100*time.Millisecond) // only a context's end could cut it short
	}
	log.Step("net:  %s (%s) has no carrier yet", nics[0].Name, nics[0].MAC)
}

// tagged returns the NIC by which frames leave with a VLAN's tag, and makes it if need be.
func tagged(n lane.NIC, vlan uint16) (lane.NIC, error) {
	if vlan == 0 {
		return n, nil
	}
	parent, err := netlink.LinkByName(n.Name)
	if err != nil {
		return n, fmt.Errorf("find %s: %w", n.Name, err)
	}
	// The kernel's name for an interface has 15 bytes at most: NAME.VLAN may have more.
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = fmt.Sprintf("v%d.%d", parent.Attrs().Index, vlan), parent.Attrs().Index
	if err := netlink.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: int(vlan)}); err != nil && !errors.Is(err, unix.EEXIST) {
		return n, fmt.Errorf("make VLAN %d on %s: %w; the kernel's module 8021q may be missing from the agent's initramfs", vlan, n.Name, err)
	}
	n.Name = attrs.Name
	heedRouters(n.Name)
	return n, linkUp(n.Name)
}

func linkUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("bring %s up: %w", name, err)
	}
	return nil
}

// acquire runs one exchange: DISCOVER, OFFER, REQUEST, ACK, or with a held lease
// its renewal.
func (m *machine) acquire(ctx context.Context, n lane.NIC, held lease, limit time.Duration, secs uint16) (lease, error) {
	iface, err := net.InterfaceByName(n.Name)
	if err != nil {
		return lease{}, err
	}
	mac := iface.HardwareAddr
	if len(mac) != 6 {
		return lease{}, fmt.Errorf("%s has no Ethernet address", n.Name)
	}
	s, err := openDHCP(ctx, n.Name, m.now)
	if err != nil {
		return lease{}, err
	}
	defer func() { _ = s.Close() }()
	// Two machines that power on together must not share a transaction number.
	var xid dhcpv4.TransactionID
	binary.BigEndian.PutUint32(xid[:], uint32(m.now().UnixNano())^binary.BigEndian.Uint32(mac[2:]))
	deadline := m.now().Add(limit)
	if held.address.IsValid() {
		return m.exchange(ctx, s, dhcpMessage(dhcpv4.MessageTypeRequest, mac, xid, secs, held, true), dhcpv4.MessageTypeAck, deadline)
	}
	offer, err := m.exchange(ctx, s, dhcpMessage(dhcpv4.MessageTypeDiscover, mac, xid, secs, lease{}, false), dhcpv4.MessageTypeOffer, deadline)
	if err != nil {
		return lease{}, err
	}
	return m.exchange(ctx, s, dhcpMessage(dhcpv4.MessageTypeRequest, mac, xid, secs, offer, false), dhcpv4.MessageTypeAck, deadline)
}

// packets is a cable: receive returns a packet and whom it is from, or nothing when
// nothing came for a moment.
type packets interface {
	send(b []byte) error
	receive() ([]byte, netip.Addr, error)
}

// exchange sends until an answer of the wanted kind comes.
func (m *machine) exchange(ctx context.Context, s packets, ask *dhcpv4.DHCPv4, want dhcpv4.MessageType, deadline time.Time) (lease, error) {
	for m.now().Before(deadline) && ctx.Err() == nil {
		if err := s.send(ask.ToBytes()); err != nil {
			return lease{}, err
		}
		for again := m.now().Add(resendAfter); m.now().Before(again) && ctx.Err() == nil; {
			b, _, err := s.receive()
			if err != nil {
				return lease{}, err
			}
			l, err := parseDHCP(b, ask)
			if err == nil && l.kind == want {
				return l, nil
			}
			if err == nil && l.kind == dhcpv4.MessageTypeNak {
				return lease{}, fmt.Errorf("the DHCP server %s refused the address that we asked for", l.server)
			}
		}
	}
	if want == dhcpv4.MessageTypeOffer {
		return lease{}, errors.New("no DHCP server offered an address")
	}
	return lease{}, errors.New("the DHCP server did not confirm the address")
}

// renew keeps the lease while the machine works, from half of its time on. A
// renewal that fails changes nothing: the address stays in use, and three more
// tries fit before the lease ends and the server may give it to somebody else.
func (m *machine) renew(ctx context.Context, n lane.NIC, l lease, log *Log) {
	for wait := l.length / 2; l.length > 0; {
		if m.sleep(ctx, max(wait, 10*time.Second)) != nil {
			return
		}
		next, err := m.acquire(ctx, n, l, oneAttempt, 0)
		if err == nil && next.address.Addr() != l.address.Addr() {
			err = fmt.Errorf("the DHCP server %s confirmed %s instead", next.server, next.address)
		}
		if err != nil {
			log.Step("net:  renew the lease of %s: %v", l.address, err)
			wait = l.length / 8
			continue
		}
		l, wait = next, next.length/2
	}
}

// configure gives the NIC its address and routes.
func configure(name string, l lease) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if l.mtu >= 576 && l.mtu < link.Attrs().MTU {
		if err := netlink.LinkSetMTU(link, l.mtu); err != nil {
			return fmt.Errorf("set the MTU of %s to %d: %w", name, l.mtu, err)
		}
	}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(l.address)}); err != nil {
		return fmt.Errorf("give %s the address %s: %w", name, l.address, err)
	}
	for _, r := range l.routes {
		nr := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(r.to)}
		if r.via.IsValid() {
			// On-link: a gateway outside the subnet is legal with a /32 lease.
			nr.Gw, nr.Flags = r.via.AsSlice(), int(netlink.FLAG_ONLINK)
		} else {
			nr.Scope = netlink.SCOPE_LINK
		}
		if err := netlink.RouteReplace(nr); err != nil {
			return fmt.Errorf("add the route %s via %s: %w", r.to, r.via, err)
		}
	}
	return nil
}

// resolve makes the name servers that DHCP told those of this process, beside what others
// told; a server is usually named by its address, and then none is asked.
func (c *connection) resolve(who string, dns []netip.Addr) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names[who] = dns
	var conf strings.Builder
	for _, who := range slices.Sorted(maps.Keys(c.names)) {
		for _, d := range c.names[who] {
			fmt.Fprintf(&conf, "nameserver %s\n", d)
		}
	}
	if err := os.WriteFile(c.resolver, []byte(conf.String()), 0o644); err != nil {
		return fmt.Errorf("set the name servers: %w", err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// dhcpSocket is a client's UDP socket on one NIC.
type dhcpSocket struct {
	net.PacketConn
	to  net.Addr
	now func() time.Time
}

// openDHCP listens on a NIC, with or without an address: the kernel lets in what
// is sent to everybody, and our messages ask for such answers.
func openDHCP(ctx context.Context, nic string, now func() time.Time) (dhcpSocket, error) {
	return openPort(ctx, nic, "udp4", "0.0.0.0:68", &net.UDPAddr{IP: net.IPv4bcast, Port: 67}, now)
}

// openPort opens a client's port on one NIC, to speak to servers at an address.
func openPort(ctx context.Context, nic, network, port string, to net.Addr, now func() time.Time) (dhcpSocket, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var bound error
		err := c.Control(func(fd uintptr) { bound = unix.BindToDevice(int(fd), nic) })
		return errors.Join(err, bound)
	}}
	conn, err := lc.ListenPacket(ctx, network, port)
	if err != nil {
		return dhcpSocket{}, fmt.Errorf("open the DHCP port %s on %s: %w", port, nic, err)
	}
	return dhcpSocket{conn, to, now}, nil
}

func (s dhcpSocket) send(b []byte) error {
	if _, err := s.WriteTo(b, s.to); err != nil {
		return fmt.Errorf("send a DHCP message: %w", err)
	}
	return nil
}

// receive returns the next packet, or none after a fifth of a second.
func (s dhcpSocket) receive() ([]byte, netip.Addr, error) {
	if err := s.SetReadDeadline(s.now().Add(200 * time.Millisecond)); err != nil {
		return nil, netip.Addr{}, fmt.Errorf("wait for a DHCP message: %w", err)
	}
	buf := make([]byte, 2048)
	n, from, err := s.ReadFrom(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, netip.Addr{}, nil
	}
	if err != nil {
		return nil, netip.Addr{}, fmt.Errorf("receive a DHCP message: %w", err)
	}
	return buf[:n], from.(*net.UDPAddr).AddrPort().Addr().WithZone(""), nil
}
