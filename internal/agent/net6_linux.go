package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"bootlane/internal/lane"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The kernel listens to routers: it makes addresses of the prefixes that they advertise
// for it, and the routes. What is left to us is to ask DHCPv6 where a router says so.

const (
	routerPatient = 5 * time.Second // the kernel asks for routers at once, and again after four seconds
	lookAgain     = 200 * time.Millisecond
	detectLimit   = 5 * time.Second // of duplicate address detection, which takes the kernel a second or two
	lastPause     = time.Minute     // between attempts, of machines that wait for hours
	// Of retransmissions, RFC 8415 7.6. SOLICIT's goes up to an hour there; ours has its
	// end in oneAttempt, and begins again.
	solicitAgain, requestAgain, renewAgain = time.Second, time.Second, 10 * time.Second
	requestLast, renewLast                 = 30 * time.Second, 10 * time.Minute
)

// heedRouters has the kernel take what routers advertise, whatever its default is.
func heedRouters(nic string) {
	// Without IPv6 in the kernel there is no such file, and then no such network.
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+nic+"/accept_ra", []byte("2"), 0o644)
}

// What a router's last advertisement said, as the kernel keeps it (linux/if_link.h and
// net/if_inet6.h).
const (
	inet6Flags    = 1 // IFLA_INET6_FLAGS, in IFLA_PROTINFO
	routerManaged = 0x40
	routerHeard   = 0x20 | routerManaged | 0x80 // an answer to our question, or either flag
)

// advertised returns what the kernel has heard from routers on a NIC.
func advertised(index int) (uint32, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(unix.AF_INET6))
	links, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return 0, fmt.Errorf("ask the kernel for router advertisements: %w", err)
	}
	for _, b := range links {
		if len(b) < unix.SizeofIfInfomsg || int(nl.DeserializeIfInfomsg(b).Index) != index {
			continue
		}
		if info := attribute(b[unix.SizeofIfInfomsg:], unix.IFLA_PROTINFO); info != nil {
			if flags := attribute(info, inet6Flags); len(flags) == 4 {
				return binary.NativeEndian.Uint32(flags), nil
			}
		}
	}
	return 0, nil
}

// attribute returns one attribute of a netlink message, or nil.
func attribute(b []byte, kind uint16) []byte {
	list, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil
	}
	for _, a := range list {
		if a.Attr.Type&^unix.NLA_F_NESTED == kind {
			return a.Value
		}
	}
	return nil
}

// client6 asks DHCPv6 on one NIC for as long as the agent lives.
type client6 struct {
	*connection
	nic   lane.NIC
	index int
	mac   net.HardwareAddr
	wire  packets
	ready time.Time  // when the NIC could speak
	held  netip.Addr // the address that it has by DHCPv6
}

// start6 begins to ask DHCPv6 through a NIC, once.
func (c *connection) start6(ctx context.Context, n lane.NIC) {
	if c.asking[n.Name] {
		return
	}
	iface, err := net.InterfaceByName(n.Name)
	if err == nil && len(iface.HardwareAddr) != 6 {
		err = fmt.Errorf("%s has no Ethernet address", n.Name)
	}
	var wire dhcpSocket
	if err == nil {
		// The zone by its number: package net remembers those of names for a minute.
		to := &net.UDPAddr{IP: dhcpv6.AllDHCPRelayAgentsAndServers, Port: dhcpv6.DefaultServerPort, Zone: strconv.Itoa(iface.Index)}
		wire, err = openPort(ctx, n.Name, "udp6", "[::]:546", to, c.now)
	}
	if err != nil {
		c.failed6(n, err)
		return
	}
	c.asking[n.Name] = true
	client := &client6{connection: c, nic: n, index: iface.Index, mac: iface.HardwareAddr, wire: wire}
	go func() {
		defer func() { _ = wire.Close() }()
		client.run(ctx)
	}()
}

func (c *connection) failed6(n lane.NIC, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trouble[n.Name] = err
}

// await6 waits until the kernel knows a way to the server from an address of its own,
// wherever it has that from: DHCPv6, or a router's prefix.
func (c *connection) await6(ctx context.Context, n lane.NIC, limit time.Duration) error {
	for began := c.now(); ; {
		if from := c.way6(n.Name); from.IsValid() {
			c.log.Step("net:  %s (%s, %s) speaks IPv6 from %s", n.Name, n.MAC, n.Driver, from)
			return nil
		}
		if c.now().Sub(began) >= limit {
			break
		}
		if err := c.sleep(ctx, lookAgain); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.trouble[n.Name]; err != nil {
		return err
	}
	return errors.New("no way to the server by IPv6: no router advertises one")
}

// way6 returns the address from which the server is spoken to through a NIC, or the zero
// Addr. Of a server's name any address that others can see is good enough.
func (c *connection) way6(nic string) netip.Addr {
	link, err := netlink.LinkByName(nic)
	if err != nil {
		return netip.Addr{}
	}
	if !c.server.IsValid() {
		return usable6(link, netip.Addr.IsGlobalUnicast)
	}
	routes, err := netlink.RouteGet(c.server.AsSlice())
	if err != nil || len(routes) == 0 || routes[0].LinkIndex != link.Attrs().Index {
		return netip.Addr{}
	}
	return address6(routes[0].Src)
}

// usable6 returns the first wanted address of a NIC that nobody else was found to have.
func usable6(link netlink.Link, want func(netip.Addr) bool) netip.Addr {
	list, err := netlink.AddrList(link, netlink.FAMILY_V6)
	if err != nil {
		return netip.Addr{}
	}
	for _, a := range list {
		if addr, _ := netip.AddrFromSlice(a.IP); want(addr) && a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 {
			return addr
		}
	}
	return netip.Addr{}
}

// run gets addresses and keeps them.
func (c *client6) run(ctx context.Context) {
	for pause := time.Second; c.wait(ctx) == nil; {
		l, err := c.get(ctx)
		if err == nil {
			pause = time.Second
			c.log.Step("net:  %s (%s, %s) has %s from %s, lease %s", c.nic.Name, c.nic.MAC, c.nic.Driver, l.address, l.from, l.valid)
			err = c.keep(ctx, l)
		}
		if ctx.Err() != nil {
			return
		}
		c.failed6(c.nic, err)
		c.log.Step("net:  %s (%s): %v", c.nic.Name, c.nic.MAC, err)
		if c.sleep(ctx, pause) != nil {
			return
		}
		pause = min(2*pause, lastPause)
	}
}

// wait returns when DHCPv6 is to be asked: a router says so, or there is none and no
// IPv4 address either. Before the NIC's link-local address is sure nobody can ask.
func (c *client6) wait(ctx context.Context) error {
	for {
		link, err := netlink.LinkByIndex(c.index)
		if err == nil && usable6(link, netip.Addr.IsLinkLocalUnicast).IsValid() {
			if c.ready.IsZero() {
				c.ready = c.now()
			}
			heard, err := advertised(c.index)
			c.mu.Lock()
			alone := heard&routerHeard == 0 && !c.leased[c.nic.Name]
			c.mu.Unlock()
			if heard&routerManaged != 0 || alone && c.now().Sub(c.ready) >= routerPatient {
				return nil
			}
			if err != nil {
				c.failed6(c.nic, err)
			}
		}
		if err := c.sleep(ctx, lookAgain); err != nil {
			return err
		}
	}
}

// ask builds a message. Two machines that power on together must not share a
// transaction number; their link-local addresses keep them apart all the same.
func (c *client6) ask(kind dhcpv6.MessageType, of lease6) *dhcpv6.Message {
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(c.now().UnixNano()/1000)^binary.BigEndian.Uint32(c.mac[2:]))
	return message6(kind, c.mac, dhcpv6.TransactionID(n[1:]), of)
}

// get runs one exchange, gives the NIC what came of it, and has the kernel look whether
// somebody else uses it, RFC 8415 18.2.10.1.
func (c *client6) get(ctx context.Context) (lease6, error) {
	l, err := c.exchange6(ctx, c.wire, c.ask(dhcpv6.MessageTypeSolicit, lease6{address: c.held}), solicitAgain, requestLast, oneAttempt)
	if err == nil && l.kind == dhcpv6.MessageTypeAdvertise {
		l, err = c.exchange6(ctx, c.wire, c.ask(dhcpv6.MessageTypeRequest, l), requestAgain, requestLast, oneAttempt)
	}
	if err == nil {
		err = c.install(l)
	}
	if err != nil {
		return lease6{}, err
	}
	return l, c.detect(ctx, l)
}

// errRefused: a server answered, and gives no address.
var errRefused = errors.New("refused")

// exchange6 sends until an answer comes, with pauses that double up to last (RFC 8415 15).
// What cannot be sent is lost like a packet: the link may come back.
func (m *machine) exchange6(ctx context.Context, s packets, ask *dhcpv6.Message, again, last, limit time.Duration) (lease6, error) {
	silence := errors.New("no DHCPv6 server answered")
	why := silence
	began := m.now()
	// Machines that power on together part with time: the standard's tenth, of the
	// transaction number.
	wait := again + again/10*time.Duration(ask.TransactionID[2])/255
	for end := began.Add(limit); m.now().Before(end) && ctx.Err() == nil; wait = min(2*wait, last) {
		elapsed(ask, m.now().Sub(began))
		if err := s.send(ask.ToBytes()); err != nil {
			why = err
		} else if !errors.Is(why, errRefused) {
			why = silence
		}
		for next := m.now().Add(wait); m.now().Before(next) && m.now().Before(end) && ctx.Err() == nil; {
			b, from, err := s.receive()
			if err != nil {
				return lease6{}, err
			}
			l, err := parse6(b, ask)
			if err != nil {
				continue
			}
			l.from = from
			if l.refused == "" {
				return l, nil
			}
			why = fmt.Errorf("the DHCPv6 server %s gives no address: %w: %s", from, errRefused, l.refused)
			if l.kind == dhcpv6.MessageTypeReply { // of those that only advertise another may have one
				return l, why
			}
		}
	}
	return lease6{}, why
}

// install gives the NIC its address, or more time for it, and the name servers. The
// address is one of 128 bits: what else is on the link, only routers say.
func (c *client6) install(l lease6) error {
	link, err := netlink.LinkByIndex(c.index)
	if err != nil {
		return fmt.Errorf("find %s: %w", c.nic.Name, err)
	}
	if c.held != l.address {
		c.drop()
	}
	addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(l.address, 128)), ValidLft: int(l.valid / time.Second), PreferedLft: int(l.preferred / time.Second)}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("give %s the address %s: %w", c.nic.Name, l.address, err)
	}
	c.held = l.address
	if heard, err := advertised(c.index); err == nil && heard&routerHeard == 0 {
		// Without any router, what can be reached at all is on the link. Whatever a
		// router says later comes before this.
		all := &netlink.Route{LinkIndex: c.index, Dst: ipNet(netip.PrefixFrom(netip.IPv6Unspecified(), 0)), Priority: math.MaxInt32}
		if err := netlink.RouteReplace(all); err != nil {
			return fmt.Errorf("add a route to the link of %s: %w", c.nic.Name, err)
		}
	}
	return c.resolve(c.nic.Name+" 6", l.dns)
}

// drop takes the address from the NIC.
func (c *client6) drop() {
	if link, err := netlink.LinkByIndex(c.index); err == nil && c.held.IsValid() {
		_ = netlink.AddrDel(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(c.held, 128))}) // the kernel may have, when its time was over
	}
	c.held = netip.Addr{}
}

// detect waits until the kernel is sure of a new address. One that it takes away again is
// somebody else's: the server is told, and gives another.
func (c *client6) detect(ctx context.Context, l lease6) error {
	for began := c.now(); c.now().Sub(began) < detectLimit; {
		link, err := netlink.LinkByIndex(c.index)
		if err != nil {
			return fmt.Errorf("find %s: %w", c.nic.Name, err)
		}
		if usable6(link, func(a netip.Addr) bool { return a == l.address }).IsValid() {
			return nil
		}
		if !c.tentative(link, l.address) {
			c.drop()
			_, _ = c.exchange6(ctx, c.wire, c.ask(dhcpv6.MessageTypeDecline, l), requestAgain, requestLast, 3*time.Second) // told, or not
			return fmt.Errorf("another machine uses %s, which the DHCPv6 server %s gave us", l.address, l.from)
		}
		if err := c.sleep(ctx, lookAgain/4); err != nil {
			return err
		}
	}
	return fmt.Errorf("the kernel is not sure of %s yet", l.address)
}

func (c *client6) tentative(link netlink.Link, addr netip.Addr) bool {
	list, err := netlink.AddrList(link, netlink.FAMILY_V6)
	for _, a := range list {
		if got, _ := netip.AddrFromSlice(a.IP); got == addr {
			return a.Flags&unix.IFA_F_DADFAILED == 0
		}
	}
	return err != nil // unknown is not yet refused
}

// keep renews a lease until that fails, and says why. An address that was not taken back
// stays until its time is over.
func (c *client6) keep(ctx context.Context, l lease6) error {
	for {
		granted := c.now()
		if err := c.sleep(ctx, max(l.renew, 10*time.Second)); err != nil {
			return err
		}
		next, err := c.extend(ctx, l, granted)
		if err == nil {
			err = c.install(next)
		}
		if next.gone && !next.address.IsValid() {
			c.drop()
		}
		if err != nil {
			return fmt.Errorf("renew the lease of %s: %w", l.address, err)
		}
		l = next
	}
}

// extend asks the server that gave the lease, and from T2 on any, until it ends (RFC 8415
// 18.2.4 and 18.2.5).
func (c *client6) extend(ctx context.Context, l lease6, granted time.Time) (lease6, error) {
	next, err := c.exchange6(ctx, c.wire, c.ask(dhcpv6.MessageTypeRenew, l), renewAgain, renewLast, l.rebind-c.now().Sub(granted))
	if err == nil || errors.Is(err, errRefused) {
		return next, err
	}
	return c.exchange6(ctx, c.wire, c.ask(dhcpv6.MessageTypeRebind, l), renewAgain, renewLast, l.valid-c.now().Sub(granted))
}
