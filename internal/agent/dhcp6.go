package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"bootlane/internal/lane"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

// A plain DHCPv6 client, RFC 8415, for one address. Firmware and iPXE call themselves by
// other DUIDs; what all of them show is the NIC's MAC, in the DUID or in the link-local
// address, and by that a server knows whom it gave an address before.

// lease6 is what a DHCPv6 server granted, or with an ADVERTISE, would grant.
type lease6 struct {
	kind             dhcpv6.MessageType
	address          netip.Addr
	server           dhcpv6.DUID
	from             netip.Addr    // the address that the server spoke from
	renew, rebind    time.Duration // T1 and T2: when to ask this server, and when any
	preferred, valid time.Duration
	dns              []netip.Addr
	refused          string // why there is no address
	gone             bool   // the address that we asked for must not be used any more
}

// message6 builds what a client sends: with an address of its own, or one that it was
// offered, it names that, and the server where the kind of message wants one.
func message6(kind dhcpv6.MessageType, mac net.HardwareAddr, xid dhcpv6.TransactionID, of lease6) *dhcpv6.Message {
	m := &dhcpv6.Message{MessageType: kind, TransactionID: xid}
	m.AddOption(dhcpv6.OptClientID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: mac}))
	switch kind {
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeDecline:
		m.AddOption(dhcpv6.OptServerID(of.server))
	case dhcpv6.MessageTypeSolicit:
		m.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit})
	}
	ia := &dhcpv6.OptIANA{IaId: iaid(mac)}
	if of.address.IsValid() {
		ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: of.address.AsSlice()})
	}
	m.AddOption(ia)
	if kind != dhcpv6.MessageTypeDecline {
		m.AddOption(dhcpv6.OptRequestedOption(dhcpv6.OptionDNSRecursiveNameServer))
	}
	return m
}

// iaid names our one association: the same at every boot, as the address is to be.
func iaid(mac net.HardwareAddr) [4]byte { return [4]byte(mac[2:6]) }

// elapsed sets how long a client has been asking, in an option of 16 bits.
func elapsed(m *dhcpv6.Message, d time.Duration) {
	m.UpdateOption(dhcpv6.OptElapsedTime(min(d, 0xffff*10*time.Millisecond)))
}

// parse6 reads an answer to what we asked. An error: it is not one.
func parse6(b []byte, ask *dhcpv6.Message) (lease6, error) {
	p, err := dhcpv6.MessageFromBytes(b)
	if err != nil {
		return lease6{}, err
	}
	client, server := p.Options.ClientID(), p.Options.ServerID()
	if p.TransactionID != ask.TransactionID || client == nil || !client.Equal(ask.Options.ClientID()) || server == nil {
		return lease6{}, errors.New("not a reply to us")
	}
	soliciting := ask.MessageType == dhcpv6.MessageTypeSolicit
	switch {
	case p.MessageType == dhcpv6.MessageTypeAdvertise && soliciting:
	case p.MessageType == dhcpv6.MessageTypeReply && (!soliciting || p.GetOneOption(dhcpv6.OptionRapidCommit) != nil):
	default:
		return lease6{}, fmt.Errorf("%s does not answer a %s", p.MessageType, ask.MessageType)
	}
	l := lease6{kind: p.MessageType, server: server, refused: refusal6(p.Options.Status())}
	for _, ip := range p.Options.DNS() {
		if a := address6(ip); a.IsValid() {
			l.dns = append(l.dns, a)
		}
	}
	if l.refused != "" {
		return l, nil
	}
	mine := ask.Options.OneIANA()
	for _, ia := range p.Options.IANA() {
		if ia.IaId == mine.IaId {
			l.take(ia, mine.Options.OneAddress())
		}
	}
	switch {
	case l.address.IsValid():
		l.refused = ""
	case l.refused == "":
		l.refused = "it names no address that can be used"
	}
	return l, nil
}

// take reads an association: the first address of it that a machine can have. Times that
// contradict each other are as good as none, RFC 8415 21.4 and 21.6.
func (l *lease6) take(ia *dhcpv6.OptIANA, had *dhcpv6.OptIAAddress) {
	if why := refusal6(ia.Options.Status()); why != "" {
		l.refused = why
		return
	}
	if ia.T1 > ia.T2 && ia.T2 > 0 {
		return
	}
	for _, a := range ia.Options.Addresses() {
		addr := address6(a.IPv6Addr)
		switch {
		case !addr.IsValid() || a.PreferredLifetime > a.ValidLifetime:
		case a.ValidLifetime == 0:
			l.gone = l.gone || had != nil && had.IPv6Addr.Equal(a.IPv6Addr)
		case refusal6(a.Options.Status()) != "":
			l.refused = refusal6(a.Options.Status())
		case !l.address.IsValid():
			l.address, l.preferred, l.valid = addr, a.PreferredLifetime, a.ValidLifetime
			l.renew, l.rebind = times6(ia.T1, ia.T2, l.preferred, l.valid)
		}
	}
}

// times6 returns when to renew and when to rebind. Without a word of the server it is
// ours to choose, RFC 8415 14.2; and never so late that the lease ends first.
func times6(t1, t2, preferred, valid time.Duration) (renew, rebind time.Duration) {
	if t2 == 0 {
		t2 = max(preferred/5*4, t1)
	}
	if t1 == 0 {
		t1 = min(preferred/2, t2)
	}
	rebind = min(t2, valid/5*4)
	return min(t1, rebind, valid/2), rebind
}

// refusal6 is what a status says, or nothing after success.
func refusal6(s *dhcpv6.OptStatusCode) string {
	if s == nil || s.StatusCode == iana.StatusSuccess {
		return ""
	}
	return fmt.Sprintf("%s: %s", s.StatusCode, lane.Clean(s.StatusMessage, 200))
}

// address6 is the zero Addr for what cannot be a machine's address in a network.
func address6(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	if !a.Is6() || a.Is4In6() || !a.IsGlobalUnicast() {
		return netip.Addr{}
	}
	return a
}
