package pcap

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// OfferClass is what EDK2 takes an offer for. Its PXE driver and its HTTP driver
// sort by different classes: UefiPxeBcDxe/PxeBcDhcp4.c, HttpBootDxe/HttpBootDhcp4.c.
type OfferClass string

// The classes of offers.
const (
	DHCPPXE10    OfferClass = "DHCP+PXE10"  // address, option 60, and 43 with one of 6 to 10
	ProxyPXE10   OfferClass = "proxy PXE10" // the same without an address
	DHCPBINL     OfferClass = "DHCP+BINL"   // option 60 without such a 43: it must be asked on 4011
	ProxyBINL    OfferClass = "proxy BINL"  // the same without an address
	DHCPOnly     OfferClass = "DHCP only"   // no option 60
	BOOTP        OfferClass = "BOOTP"       // no option 53
	HTTPURI      OfferClass = "HTTP URI"    // option 60 HTTPClient, an address, and a URI
	ProxyHTTPURI OfferClass = "proxy HTTP URI"
	Unusable     OfferClass = "unusable"
)

// Ranked is one offer as the client's firmware judges it.
type Ranked struct {
	Packet int        `json:"packet"`
	Server string     `json:"server"`
	Class  OfferClass `json:"class"`
	Why    string     `json:"why,omitempty"` // of an unusable one
}

// Choice is which of the offers a client takes, by the rules of its program.
type Choice struct {
	By       string     `json:"by"` // whose rules
	Offers   []Ranked   `json:"offers"`
	Takes    int        `json:"takes,omitempty"`    // packet of the offer whose address it takes; 0: none
	Boots    int        `json:"boots,omitempty"`    // packet whose boot file it takes
	BootFile string     `json:"bootFile,omitempty"` // of that
	Asks     netip.Addr `json:"asks,omitzero"`      // the boot server that it will ask on port 4011
	Why      string     `json:"why"`
}

// CannotTell is the Why of a choice that the rules known to us do not decide.
const CannotTell = "cannot tell"

// choose applies the rules of the asking program to the offers it had.
func choose(s Speaker, asked Message, offers []Message) Choice {
	switch s {
	case UEFIPXE:
		return edk2PXE(asked, offers)
	case HTTPBoot:
		return edk2HTTP(asked, offers)
	case IPXE:
		return ipxe(offers)
	}
	c := Choice{By: string(s), Why: CannotTell + ": RFC 2131 lets a client take whichever offer it likes"}
	for _, o := range offers {
		c.Offers = append(c.Offers, Ranked{o.Packet, o.server(), pxeClass(o), ""})
	}
	if len(offers) == 1 {
		c.Takes, c.Boots, c.BootFile, c.Why = offers[0].Packet, offers[0].Packet, offers[0].BootFile, "it is the only offer"
	}
	return c
}

// server names who made an answer: by what it says, or by where it came from.
func (m Message) server() string {
	if m.Server != "" {
		return m.Server
	}
	return m.From.Addr().String()
}

func pxeClass(o Message) OfferClass {
	switch {
	case o.Kind == "BOOTP reply":
		return BOOTP
	case o.PXE.Discovery && o.Proxy():
		return ProxyPXE10
	case o.PXE.Discovery:
		return DHCPPXE10
	case strings.HasPrefix(o.Class, "PXEClient") && o.Proxy():
		return ProxyBINL
	case strings.HasPrefix(o.Class, "PXEClient"):
		return DHCPBINL
	}
	return DHCPOnly
}

// unheard says why EDK2's DHCP driver drops an offer before anybody ranks it.
func unheard(asked, o Message) (ID, string) {
	switch {
	case o.NoEnd:
		return OfferNoEnd, "its options have no END (255), and EDK2 rejects such a packet"
	case o.Server == "" && o.Kind != "BOOTP reply":
		return OfferNoServerID, "it has no option 54, and EDK2 discards such an offer"
	case o.To.Port() == portServer4: // on its way to the relay agent, which broadcasts it
	case asked.Broadcast && o.To.Addr() != netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return OfferUnicast, "it was sent to " + o.To.Addr().String() + ", and the client asked for broadcast: it has no address yet to hear it by"
	}
	return "", ""
}

// rank gives every offer its class, and leaves out those that EDK2 does not hear or
// cannot use.
func (c *Choice) rank(asked Message, offers []Message, class func(Message) (OfferClass, string)) map[OfferClass][]Message {
	by := map[OfferClass][]Message{}
	for _, o := range offers {
		k, why := class(o)
		if _, deaf := unheard(asked, o); deaf != "" {
			k, why = Unusable, deaf
		}
		c.Offers = append(c.Offers, Ranked{o.Packet, o.server(), k, why})
		by[k] = append(by[k], o)
	}
	return by
}

// edk2PXE follows the order of PxeBcSelectDhcp4Offer.
func edk2PXE(asked Message, offers []Message) Choice {
	c := Choice{By: "EDK2 PXE"}
	by := c.rank(asked, offers, func(o Message) (OfferClass, string) {
		if o.PXE.MTFTP && !o.PXE.Discovery {
			return Unusable, "option 43 offers multicast TFTP only"
		}
		return pxeClass(o), ""
	})
	first := func(k OfferClass) (Message, bool) { return head(by[k]) }
	plain, hasPlain := first(DHCPOnly)
	named := slices.IndexFunc(by[DHCPOnly], func(o Message) bool { return o.BootFile != "" })
	if o, ok := first(DHCPPXE10); ok {
		c.take(o, o, "an offer with option 60, a discovery control in 43 and an address ranks first")
	} else if p, ok := first(ProxyPXE10); ok && hasPlain {
		c.take(plain, p, "a proxy's offer with a discovery control in 43 ranks above the boot file of an address server")
	} else if o, ok := first(DHCPBINL); ok {
		c.take(o, o, "option 60 without a discovery control in 43 is BINL: it is asked on port 4011, even when it names a boot file")
		c.ask4011(o)
	} else if p, ok := first(ProxyBINL); ok && hasPlain {
		c.take(plain, p, "the proxy sends option 60 without a discovery control in 43 (BINL): it is asked on port 4011")
		c.ask4011(p)
	} else if named >= 0 {
		o := by[DHCPOnly][named]
		c.take(o, o, "no PXE offer: the first plain DHCP offer with a boot file is taken")
	} else if o, ok := first(BOOTP); ok && o.BootFile != "" {
		c.take(o, o, "only BOOTP names a boot file")
	} else {
		c.Why = "none of the offers can be used: no PXE offer with an address, and no plain one with a boot file"
	}
	return c
}

func (c *Choice) take(address, boot Message, why string) {
	c.Takes, c.Boots, c.BootFile, c.Why = address.Packet, boot.Packet, boot.BootFile, why
}

// ask4011 says whom a BINL offer leads to: siaddr, or else option 54.
func (c *Choice) ask4011(o Message) {
	c.BootFile = ""
	c.Asks = o.NextServer
	if !c.Asks.IsValid() {
		c.Asks, _ = netip.ParseAddr(o.Server)
	}
}

func head(list []Message) (Message, bool) {
	if len(list) == 0 {
		return Message{}, false
	}
	return list[0], true
}

// edk2HTTP follows the order of HttpBootSelectDhcpOffer, where nobody configured a URI.
func edk2HTTP(asked Message, offers []Message) Choice {
	c := Choice{By: "EDK2 HTTP Boot"}
	by := c.rank(asked, offers, func(o Message) (OfferClass, string) {
		switch http := strings.HasPrefix(o.Class, "HTTPClient"); {
		case http && o.BootFile == "":
			return Unusable, "option 60 HTTPClient without a URI"
		case http && o.Proxy():
			return ProxyHTTPURI, ""
		case http:
			return HTTPURI, ""
		case o.Proxy():
			return Unusable, "a proxy's offer without option 60 HTTPClient"
		}
		return DHCPOnly, ""
	})
	usable := func(o Message, dns bool) bool { return literal(o.BootFile) || dns }
	for _, byAddress := range []bool{true, false} { // a URI with an address ranks above one with a name
		for _, o := range by[HTTPURI] {
			if literal(o.BootFile) == byAddress && usable(o, o.DNS) {
				c.take(o, o, "an offer with option 60 HTTPClient, a URI and an address ranks first")
				return c
			}
		}
	}
	for _, p := range by[ProxyHTTPURI] {
		for _, o := range by[DHCPOnly] {
			if usable(p, o.DNS) {
				c.take(o, p, "the address of one server, the URI of the other")
				return c
			}
		}
	}
	c.Why = "none of the offers can be used: UEFI HTTP Boot needs an address and option 60 HTTPClient with a URI"
	if len(by[HTTPURI])+len(by[ProxyHTTPURI]) > 0 {
		c.Why = "none of the offers can be used: the URI has a host name, and no name server (option 6) comes from the server that gives the address"
		if len(by[DHCPOnly])+len(by[HTTPURI]) == 0 {
			c.Why = "none of the offers can be used: there is a URI, and nobody gives an address"
		}
	}
	return c
}

// literal reports whether a URI names its host by address.
func literal(uri string) bool {
	_, rest, ok := strings.Cut(uri, "://")
	host, _, _ := strings.Cut(rest, "/")
	if a, err := netip.ParseAddrPort(host); err == nil {
		return ok && a.IsValid()
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return ok && err == nil
}

// ipxe follows dhcp.c: the offer of the highest priority (175.1) wins, and of equal
// ones the last; a file name is looked for there before it is in a proxy's offer.
func ipxe(offers []Message) Choice {
	c := Choice{By: "iPXE"}
	var site, proxy Message
	for _, o := range offers {
		r := Ranked{Packet: o.Packet, Server: o.server(), Class: pxeClass(o)}
		switch {
		case o.From.Port() != portServer4:
			r.Class, r.Why = Unusable, "it does not come from port 67"
		case o.Proxy() && !strings.HasPrefix(o.Class, "PXEClient"):
			r.Class, r.Why = Unusable, "a proxy's offer without option 60 PXEClient"
		case o.Proxy() && (proxy.Packet == 0 || o.Priority >= proxy.Priority):
			proxy = o
		case !o.Proxy() && (site.Packet == 0 || o.Priority >= site.Priority):
			site = o
		}
		c.Offers = append(c.Offers, r)
	}
	switch {
	case site.Packet == 0:
		c.Why = "no offer has an address"
	case proxy.Packet == 0:
		c.take(site, site, "of equal priority (option 175.1), the last offer before it stops waiting is taken")
	case site.HeaderFile != "" && proxy.Priority <= site.Priority:
		c.take(site, site, "the address server names a file, and the proxy's priority (option 175.1) is not higher")
	default:
		c.take(site, proxy, "the proxy's file is used: "+cmp.Or(map[bool]string{true: "the address server names none"}[site.HeaderFile == ""], "its priority (option 175.1) is higher"))
		if !proxy.NextServer.IsValid() || proxy.HeaderFile == "" && !proxy.PXE.Menu {
			c.ask4011(proxy)
			c.Why = "the proxy names no file or no server (siaddr): it is asked on port 4011"
		}
	}
	for _, o := range []Message{site, proxy} {
		if o.Packet != 0 && o.Packet == c.Boots && !c.Asks.IsValid() {
			c.BootFile = o.HeaderFile
		}
	}
	return c
}
