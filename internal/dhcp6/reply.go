package dhcp6

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"bootlane/internal/lane"
)

// Status codes, RFC 8415 21.13.
const (
	statusSuccess       = 0
	statusNoAddrsAvail  = 2
	statusNoBinding     = 3
	statusNotOnLink     = 4
	statusUseMulticast  = 5
	statusNoPrefixAvail = 6
)

// reply is an answer before it becomes bytes; without a kind it is silence.
type reply struct {
	kind    dhcpv6.MessageType
	options writer
	server  netip.Addr // ours
}

// preference is the highest: a client that sees it takes the offer at once, RFC 8415
// 18.2.1, and OVMF loses four seconds of waiting for others. In a network that we own
// there are none.
const preference = 255

// begin starts a reply with whom it is from and for. That comes first: some readers
// look no further once they know that a message is not theirs.
func (s *Server) begin(q query, kind dhcpv6.MessageType) reply {
	r := reply{kind: kind}
	if len(q.clientID) > 0 {
		r.options.add(dhcpv6.OptionClientID, q.clientID)
	}
	r.options.add(dhcpv6.OptionServerID, s.cfg.DUID)
	if kind == dhcpv6.MessageTypeAdvertise {
		r.options.add(dhcpv6.OptionPreference, []byte{preference})
	}
	return r
}

// marshal encodes the reply, with the way back through the agents around it. It never
// offers unicast (option 12): a client's renewals would come without their agent.
func (r reply) marshal(q query) []byte {
	b := append([]byte{byte(r.kind)}, q.xid[:]...)
	return wrap(q.layers, append(b, r.options...))
}

// granted is an IA with one address and its times, RFC 8415 21.4, and those that the
// client must not use any more, with no time left.
func (n Network) granted(w *writer, ia association, a netip.Addr, gone []netip.Addr) {
	secs := n.seconds()
	var inner writer
	inner.address(a, secs)
	for _, old := range gone {
		inner.address(old, 0)
	}
	w.add(ia.code, ia.id[:], be32(secs/2), be32(secs/5*4), inner)
}

// refused is an IA without an address, and why. IA_TA has no times.
func refused(w *writer, ia association, code uint16, text string) {
	var inner writer
	inner.status(code, text)
	w.add(ia.code, ia.id[:], ia.noTimes(), inner)
}

// ended is an IA whose addresses the client must not use any more.
func ended(w *writer, ia association) {
	var inner writer
	for _, a := range ia.addrs {
		inner.address(a, 0)
	}
	w.add(ia.code, ia.id[:], ia.noTimes(), inner)
}

func (ia association) noTimes() []byte {
	if ia.code == dhcpv6.OptionIATA {
		return nil
	}
	return make([]byte, 8)
}

// config adds what the client asked for, and nothing else.
func (n Network) config(w *writer, q query) {
	if q.asked(dhcpv6.OptionDNSRecursiveNameServer) {
		w.addresses(dhcpv6.OptionDNSRecursiveNameServer, n.DNS)
	}
	if name := domain(n.Domain); q.asked(dhcpv6.OptionDomainSearchList) && len(name) > 0 {
		w.add(dhcpv6.OptionDomainSearchList, name)
	}
	if q.asked(dhcpv6.OptionNTPServer) {
		for _, a := range n.NTP { // RFC 5908 4: one server an option
			var sub writer
			sub.add(1, a.AsSlice())
			w.add(dhcpv6.OptionNTPServer, sub)
		}
	}
}

// domain encodes a name as DNS does, RFC 1035 3.1.
func domain(name string) (b []byte) {
	for _, label := range strings.Split(strings.Trim(name, "."), ".") {
		if label == "" || len(label) > 63 {
			return nil
		}
		b = append(append(b, byte(len(label))), label...)
	}
	return append(b, 0)
}

// enterprise is Intel's number, under which firmware looks for its own class.
const enterprise = 343

// boot translates the decision. This is the only place where DHCPv6 turns one into a
// URL. The class is named to HTTP Boot, which insists on it, and to nobody else: EDK2
// takes a PXEClient in option 16 for a Windows deployment server. Parameters (option 60)
// are never sent: EDK2's PXE reads them as the size of the file, and fails.
func (n Network) boot(w *writer, q query, d lane.Decision) {
	if !q.asked(dhcpv6.OptionBootfileURL) {
		return
	}
	loader := n.loader(q.platform, d.Boot)
	path := lane.BootPath{MAC: q.facts.MAC, Platform: q.platform, File: loader}
	wanted := d.Action.Boots() || d.Action == lane.Hold && n.HoldScreen ||
		n.FastLocalBoot && !d.Boot.Silent // a URL that is refused
	switch {
	case q.class == ipxe:
		// Always the script that asks again, with everything iPXE knows: it can destroy nothing.
		path.File = lane.EntryScript
		w.add(dhcpv6.OptionBootfileURL, []byte(n.HTTPBase+"/"+path.String()))
	case loader == "" || !wanted:
	case q.class == pxe:
		w.add(dhcpv6.OptionBootfileURL, []byte("tftp://["+n.Server.String()+"]/"+path.String()))
	case q.class == httpc:
		base := n.HTTPBase
		if n.HTTPBootTLS {
			base = n.TLSBase
		}
		var name writer
		name = append(name, be32(enterprise)...)
		name = append(name, be16(uint16(len("HTTPClient")))...)
		w.add(dhcpv6.OptionVendorClass, name, []byte("HTTPClient"))
		w.add(dhcpv6.OptionBootfileURL, []byte(base+"/"+path.String()))
	}
}

// loader returns the boot loader that a platform is told: the one that the options ask
// for, where it is configured.
func (n Network) loader(p lane.Platform, o lane.BootOptions) string {
	list := n.Loaders[p]
	if slices.Contains(list, o.Loader) {
		return o.Loader
	}
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// The ports of DHCPv6, RFC 8415 7.2.
const (
	clientPort = 546
	serverPort = 547
)

// destination returns where a reply goes, RFC 8415 18.3.10 and 19.3: to whom the message
// came from.
func destination(q query) netip.AddrPort {
	switch {
	case len(q.layers) == 0:
		return netip.AddrPortFrom(q.from.Addr(), clientPort)
	case q.layers[0].port:
		return q.from
	}
	return netip.AddrPortFrom(q.from.Addr(), serverPort)
}
