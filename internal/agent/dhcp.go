package agent

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// A plain DHCP client, RFC 2131: no PXE options, and no client identifier, so
// that the server sees the hardware address that firmware and iPXE showed it
// and the machine keeps one lease through its whole installation.

// route is one route a lease carries; a zero gateway means directly connected.
type route struct {
	to  netip.Prefix
	via netip.Addr
}

// lease is what a DHCP server granted, or with an offer, would grant.
type lease struct {
	kind    dhcpv4.MessageType
	address netip.Prefix
	server  netip.Addr
	routes  []route
	dns     []netip.Addr
	mtu     int
	length  time.Duration
}

// dhcpMessage builds a DISCOVER, or a REQUEST for what was offered, or with a
// renewal (of set, held true) a REQUEST that extends it (RFC 2131, 4.3.2).
func dhcpMessage(kind dhcpv4.MessageType, mac net.HardwareAddr, xid dhcpv4.TransactionID, secs uint16, of lease, held bool) *dhcpv4.DHCPv4 {
	m := &dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootRequest, HWType: iana.HWTypeEthernet, ClientHWAddr: mac, TransactionID: xid, NumSeconds: secs}
	m.SetBroadcast() // we have no address to be spoken to yet
	m.UpdateOption(dhcpv4.OptMessageType(kind))
	m.UpdateOption(dhcpv4.OptMaxMessageSize(1500))
	m.UpdateOption(dhcpv4.OptParameterRequestList(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer,
		dhcpv4.OptionInterfaceMTU, dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionClasslessStaticRoute))
	switch {
	case held:
		m.ClientIPAddr = of.address.Addr().AsSlice()
	case kind == dhcpv4.MessageTypeRequest:
		m.UpdateOption(dhcpv4.OptRequestedIPAddress(of.address.Addr().AsSlice()))
		m.UpdateOption(dhcpv4.OptServerIdentifier(of.server.AsSlice()))
	}
	return m
}

// parseDHCP reads a reply to what we asked.
func parseDHCP(b []byte, ask *dhcpv4.DHCPv4) (lease, error) {
	p, err := dhcpv4.FromBytes(b)
	if err != nil {
		return lease{}, err
	}
	if p.OpCode != dhcpv4.OpcodeBootReply || p.TransactionID != ask.TransactionID || !bytes.Equal(p.ClientHWAddr, ask.ClientHWAddr) {
		return lease{}, errors.New("not a reply to us")
	}
	if err := unfold(p.Options, b); err != nil {
		return lease{}, err
	}
	l := lease{kind: p.MessageType(), server: address(p.ServerIdentifier())}
	if l.kind == dhcpv4.MessageTypeNak {
		return l, nil
	}
	addr := address(p.YourIPAddr)
	bits, _ := p.SubnetMask().Size() // none for a mask with holes
	if addr.IsUnspecified() || addr.IsMulticast() || addr.IsLoopback() || !l.server.IsValid() || bits == 0 {
		return lease{}, errors.New("a reply without address, mask or server: a boot server's, not a lease")
	}
	l.address = netip.PrefixFrom(addr, bits)
	for _, ip := range p.DNS() {
		l.dns = append(l.dns, address(ip))
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, p.Options); err == nil {
		l.mtu = int(mtu)
	}
	l.length = p.IPAddressLeaseTime(0)
	l.routes = leaseRoutes(p)
	return l, nil
}

// unfold adds the options that a server put into the file and sname fields (RFC
// 2132, 9.3).
func unfold(opts dhcpv4.Options, b []byte) error {
	o := opts.Get(dhcpv4.OptionOptionOverload)
	if len(o) != 1 {
		return nil
	}
	for _, field := range []struct {
		bit  byte
		data []byte
	}{{1, b[108:236]}, {2, b[44:108]}} {
		if o[0]&field.bit == 0 {
			continue
		}
		if err := opts.FromBytes(field.data); err != nil {
			return fmt.Errorf("decode overloaded options: %w", err)
		}
	}
	return nil
}

// leaseRoutes: classless routes replace the router option where both are given (RFC 3442).
func leaseRoutes(p *dhcpv4.DHCPv4) []route {
	var out []route
	for _, r := range p.ClasslessStaticRoute() {
		via := address(r.Router)
		if via.IsUnspecified() {
			via = netip.Addr{}
		}
		bits, _ := r.Dest.Mask.Size()
		out = append(out, route{netip.PrefixFrom(address(r.Dest.IP), bits).Masked(), via})
	}
	if r := p.Router(); len(out) == 0 && len(r) > 0 {
		out = append(out, route{netip.PrefixFrom(netip.IPv4Unspecified(), 0), address(r[0])})
	}
	return out
}

// address is the zero Addr for what is not an IPv4 address.
func address(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip.To4())
	return a
}
