package pcap

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// ID names a kind of finding.
type ID string

// The findings: what can be wrong with a network boot, and be seen on the wire.
const (
	NoAnswer         ID = "no-answer"
	PoolSilent       ID = "pool-silent"
	NoAddress        ID = "no-address-offer"
	OfferIgnored     ID = "offer-ignored"
	OfferNoServerID  ID = "offer-without-54"
	OfferNoEnd       ID = "offer-without-end"
	OfferUnicast     ID = "offer-unicast"
	OfferNoHTTP      ID = "offer-without-http-class"
	OfferNoURI       ID = "offer-without-uri"
	OfferNoDNS       ID = "uri-name-without-dns"
	OfferNoFile      ID = "offer-without-boot-file"
	TwoPXE           ID = lane.TwoPXEServers
	OtherWon         ID = "other-server-won"
	ProxyLoses       ID = "proxy-file-loses"
	BINLWithout4011  ID = "binl-without-4011"
	NAK              ID = "nak"
	Decline          ID = "decline"
	DeclineNoMask    ID = "decline-without-mask"
	RequestSilent    ID = "request-unanswered"
	WrongArch        ID = "wrong-architecture-file"
	LoaderNotFetched ID = "loader-not-fetched"
	HTTPNotFetched   ID = "http-not-fetched"
	HTTPNoAnswer     ID = "http-no-answer"
	HTTPError        ID = "http-error"
	HTTPRefused      ID = "http-refused"
	HTTPRedirect     ID = "http-redirect"
	TFTPNoAnswer     ID = "tftp-no-answer"
	TFTPNotFound     ID = "tftp-not-found"
	TFTPRefused      ID = "tftp-refused"
	TFTPStalled      ID = "tftp-stalled"
	TFTPAborted      ID = "tftp-aborted"
	TFTPBadOACK      ID = "tftp-bad-oack"
	LoaderLoop       ID = "loader-loop"
	LoaderSilent     ID = "loader-silent"
	ShimNoFile       ID = "shim-without-file"
	ShimNoServer     ID = "shim-without-next-server"
	V6BINL           ID = "dhcpv6-pxe-class"
	V6Params         ID = "dhcpv6-boot-params"
	AddressConflict  ID = "address-conflict"
)

// Finding is one thing that is wrong, the packet that shows it, and what to do.
type Finding struct {
	ID     ID     `json:"id"`
	Packet int    `json:"packet"`
	Saw    string `json:"saw"`
	Why    string `json:"why"`
	Next   string `json:"next"`
}

// kind is what every finding of an id has in common.
type kind struct {
	id        ID
	why, next string
}

// kinds lists every finding there is, in the order in which a boot meets them.
func kinds() []kind {
	return []kind{
		{NoAnswer, "no DHCP server heard the client, or none would serve it", "is a server in this VLAN, or a relay to one? Is the switch port forwarding at once (PortFast, edge)? Then look at the servers' logs for this MAC"},
		{PoolSilent, "a server that serves others is silent towards this client: its pool is exhausted, or it does not want the client", "look at that server's free addresses, reservations and filters"},
		{NoAddress, "only proxies answered: they name boot files, and the server that gives addresses is silent", "look at the site's DHCP server: free addresses, filters, is it running?"},
		{OfferNoServerID, "RFC 2131 asks for option 54 in every offer, and EDK2 discards one without", "correct the server that made this offer"},
		{OfferNoEnd, "EDK2 rejects a packet whose options have no END (255)", "correct the server, or the relay that cut the packet"},
		{OfferUnicast, "a client that sets the broadcast bit, as EDK2 always does, ignores an offer that is sent to the address it does not have yet", "make the server or the relay honour the broadcast bit (RFC 2131, 4.1)"},
		{OfferNoHTTP, "UEFI HTTP Boot takes no offer, and asks for ever, unless one has option 60 HTTPClient", "send option 60 HTTPClient and a URI in option 67 to these clients; or take HTTP Boot out of the firmware's boot order"},
		{OfferNoURI, "an HTTPClient offer without a URI is useless to the firmware, which asks nobody on port 4011 for it", "put the URI into option 67"},
		{OfferNoDNS, "the firmware asks only the name servers of the server that gave the address", "write the host of the URI as an address, or let the address server send option 6"},
		{OfferNoFile, "EDK2's PXE needs a PXE offer, or a plain one with a boot file: it takes no offer, and gives up after a minute", "let the address server send the boot file, or let a proxy answer in this VLAN"},
		{OfferIgnored, "cannot tell: an offer that looks right was not taken", "does the offer reach the client? Look at DHCP snooping on the switch, and at the firmware's screen"},
		{TwoPXE, "two servers answer as PXE servers: which one a machine boots from is chance", "find the second one by its address and MAC, and turn it off"},
		{OtherWon, "the client took another server's offer than the rules of its firmware, as we know them, prefer", "compare the offers: this firmware differs, or an offer did not arrive"},
		{ProxyLoses, "iPXE looks for a file name in the address server's offer first: the proxy's is used only with a higher priority (option 175.1)", "take boot file and option 67 out of the address server, or send 175.1 from the proxy"},
		{NAK, "the server refuses the address that the client asked for", "what the server says, and which server it is: two servers of one network refuse each other's clients"},
		{DeclineNoMask, "EDK2 declines an address that comes without a subnet mask (option 1)", "let the server send option 1"},
		{Decline, "the client found the address in use", "which machine answers ARP for the address? It has it without a lease"},
		{RequestSilent, "the server that made the offer does not confirm it", "look at the log of that server; behind a relay, at the way back"},
		{BINLWithout4011, "option 60 PXEClient without a discovery control in option 43 sends UEFI firmware to port 4011 of the server, whatever boot file it named", "take option 60 out of that server, or send option 43 06:01:08 with it, or let a PXE server listen on port 4011"},
		{WrongArch, "the boot file is not for what the client says it is (option 93)", "choose the boot file by option 93"},
		{LoaderNotFetched, "the client has an address and a boot file, and did not ask for the file", "does the address of the TFTP server lead somewhere: siaddr, router, mask? Some firmware waits for a menu"},
		{HTTPNotFetched, "the firmware has a URI and opened no connection: many have plain HTTP turned off", "allow HTTP in the firmware's settings, or use https; then name server and route"},
		{HTTPNoAnswer, "the HTTP server does not answer", "is it listening on this port? Look at firewalls; firmware waits five seconds for a first byte"},
		{HTTPRedirect, "UEFI HTTP Boot follows no redirect", "name the final URI"},
		{HTTPError, "the HTTP server refuses the file", "look at the server's log for this path"},
		{HTTPRefused, "the server has the path and does not give it to this machine", "what it says, and its log: is that meant?"},
		{TFTPNoAnswer, "the TFTP server does not answer", "is it running, and does a firewall let port 69 in and any port out? Across NAT it needs a helper (nf_conntrack_tftp)"},
		{TFTPBadOACK, "the firmware cannot accept the options that the TFTP server confirms", "use a TFTP server that answers tsize, and never confirms more than was asked"},
		{TFTPNotFound, "the file is not on the TFTP server, or not under this name", "compare the name letter by letter with the server's directory"},
		{TFTPRefused, "the TFTP server refuses the file", "what it says, and its log"},
		{TFTPAborted, "the client ended the transfer", "what it says; a full buffer or a file that is no boot program"},
		{TFTPStalled, "data went out and no acknowledgement came back, or the other way round", "packet loss, an MTU smaller than the block size, or a firewall that lets only the first packet through"},
		{LoaderLoop, "a boot loader is given itself again: it asks DHCP as firmware did, and gets the same file", "answer iPXE (option 77, or option 175) with a script instead of its own file"},
		{LoaderSilent, "the loader was fetched whole, and did not ask for anything: under Secure Boot firmware refuses an unsigned one after its download", "look at the console; use a signed loader, or turn Secure Boot off"},
		{ShimNoFile, "shim looks for its second stage beside the file in the DHCP header, never in option 67", "put the path into the header's file field as well"},
		{ShimNoServer, "shim reads only siaddr, and fails without", "put the TFTP server's address into siaddr"},
		{V6BINL, "EDK2 takes a DHCPv6 answer with vendor class PXEClient for one that must be asked elsewhere, and fails", "leave option 16 out of answers to PXE clients"},
		{V6Params, "EDK2's PXE wants a number of blocks in DHCPv6 option 60, and fails at anything else", "leave option 60 out"},
		{AddressConflict, "two machines answer for one address", "find the second MAC; it has a fixed address inside the range, or another server's lease"},
	}
}

func found(id ID, packet int, format string, args ...any) Finding {
	f := Finding{ID: id, Packet: packet, Saw: fmt.Sprintf(format, args...)}
	for _, k := range kinds() {
		if k.id == id {
			f.Why, f.Next = k.why, k.next
		}
	}
	return f
}

// scene is what a judgement of one client needs to know of the capture.
type scene struct {
	begins, ends time.Time
	narrow       bool                // transfers were not recorded
	talkers      map[string]lane.MAC // servers that gave addresses, and to whom first
}

// patience is how long a client waits for what must come next; before that, a capture
// that ends proves nothing. EDK2's first window is four seconds.
const patience = 5 * time.Second

// judge applies every rule to a client.
func judge(c Client, s scene) []Finding {
	out := []Finding{}
	for i, a := range c.Attempts {
		until := s.ends
		if i+1 < len(c.Attempts) {
			until = c.Attempts[i+1].began()
		}
		out = append(out, a.unanswered(c, s)...)
		if a.Request == nil {
			out = append(out, a.ignored(until)...)
		}
		out = append(out, a.servers()...)
		out = append(out, a.refused(until)...)
		out = append(out, a.files()...)
		if !s.narrow {
			out = append(out, a.fetched(until)...)
		}
		for _, f := range a.Fetches {
			out = append(out, f.judge(a)...)
		}
	}
	return append(out, loops(c, s)...)
}

func (a Attempt) began() time.Time {
	switch {
	case len(a.Asked) > 0:
		return a.Asked[0].At
	case a.Request != nil:
		return a.Request.At
	}
	return time.Time{}
}

// unanswered judges a client that nobody gives an address.
func (a Attempt) unanswered(c Client, s scene) []Finding {
	if len(a.Asked) == 0 || a.Request != nil {
		return nil
	}
	first, last := a.Asked[0], a.Asked[len(a.Asked)-1]
	waited := len(a.Asked) > 1 || s.ends.Sub(last.At) >= patience
	given := slices.ContainsFunc(a.Offers, func(o Message) bool { return o.Address.IsValid() })
	switch {
	case given || !waited:
	case len(a.Offers) > 0:
		return []Finding{found(NoAddress, a.Offers[0].Packet, "%s answered %s as a proxy, and nobody offered an address", a.Offers[0].server(), a.Speaker)}
	default:
		for server, other := range s.talkers {
			if other != c.MAC && len(s.talkers) == 1 && a.Version == 4 {
				return []Finding{found(PoolSilent, last.Packet, "%s asked %d times and got nothing, while %s offered an address to %s", a.Speaker, len(a.Asked), server, other)}
			}
		}
		return []Finding{found(NoAnswer, first.Packet, "%s sent %s %d times in %s, and nobody answered", a.Speaker, first.Kind, len(a.Asked), last.At.Sub(first.At).Round(time.Second))}
	}
	return nil
}

// ignored judges offers that the client had time to take, and did not.
func (a Attempt) ignored(until time.Time) []Finding {
	if len(a.Offers) == 0 || a.Version != 4 {
		return nil
	}
	o := a.Offers[len(a.Offers)-1]
	again := slices.ContainsFunc(a.Asked, func(m Message) bool { return m.Packet > o.Packet })
	given := slices.ContainsFunc(a.Offers, func(o Message) bool { return o.Address.IsValid() })
	if !given || !again && until.Sub(o.At) < patience {
		return nil
	}
	var out []Finding
	seen := map[ID]bool{}
	for _, o := range a.Offers {
		id, why := unheard(a.Asked[0], o)
		if id != "" && !seen[id] {
			seen[id] = true
			out = append(out, found(id, o.Packet, "%s asked again after the offer of %s: %s", a.Speaker, o.server(), why))
		}
	}
	if len(out) > 0 {
		return out
	}
	id := OfferIgnored
	switch {
	case a.Choice == nil || a.Choice.Takes != 0:
	case a.Speaker == UEFIPXE:
		id = OfferNoFile
	case a.Speaker == HTTPBoot:
		id = httpReason(a.Offers)
	}
	return []Finding{found(id, o.Packet, "%s took none of %d offers; the last is of %s, class %q, boot file %q", a.Speaker, len(a.Offers), o.server(), o.Class, o.BootFile)}
}

func httpReason(offers []Message) ID {
	id := OfferNoHTTP
	for _, o := range offers {
		if strings.HasPrefix(o.Class, "HTTPClient") {
			id = OfferNoURI
			if o.BootFile != "" {
				return OfferNoDNS
			}
		}
	}
	return id
}

// servers judges who answered, and who won.
func (a Attempt) servers() []Finding {
	var out []Finding
	pxe := map[string]Message{}
	for _, o := range a.Offers {
		if o.PXEClass() && o.Version == 4 {
			pxe[o.server()] = o
		}
	}
	if len(pxe) > 1 {
		var names []string
		last := 0
		for n, o := range pxe {
			names, last = append(names, n+" ("+cmp.Or(string(o.FromMAC), "MAC unknown")+")"), max(last, o.Packet)
		}
		slices.Sort(names)
		out = append(out, found(TwoPXE, last, "%s offered a boot to %s", strings.Join(names, " and "), a.Speaker))
	}
	c := a.Choice
	if c == nil || a.Request == nil || a.Request.Server == "" {
		return out
	}
	if i := slices.IndexFunc(a.Offers, func(o Message) bool { return o.Packet == c.Takes }); i >= 0 && a.Offers[i].Server != a.Request.Server && a.Speaker != IPXE {
		out = append(out, found(OtherWon, a.Request.Packet, "%s asked %s for an address; by the rules of %s the offer of %s (packet %d) comes first", a.Speaker, a.Request.Server, c.By, a.Offers[i].server(), c.Takes))
	}
	if a.Speaker == IPXE && c.Boots == c.Takes && c.BootFile != "" {
		for _, o := range a.Offers {
			if o.Proxy() && o.HeaderFile != "" && o.HeaderFile != c.BootFile {
				out = append(out, found(ProxyLoses, o.Packet, "the proxy %s names %q, and iPXE takes %q of the address server", o.server(), o.HeaderFile, c.BootFile))
				break
			}
		}
	}
	return out
}

// refused judges what became of the address that was asked for.
func (a Attempt) refused(until time.Time) []Finding {
	var out []Finding
	switch {
	case a.Request == nil:
		return nil
	case a.Answer != nil && a.Answer.Kind == "NAK":
		out = append(out, found(NAK, a.Answer.Packet, "%s refused %s: %s", a.Answer.server(), cmp.Or(addrText(a.Request.Requested), "an address"), cmp.Or(a.Answer.Text, "it says nothing")))
	case a.Answer == nil && (a.Requests > 1 || until.Sub(a.Request.At) >= patience):
		out = append(out, found(RequestSilent, a.Request.Packet, "%s asked %s for %s %d times, and nothing came back", a.Speaker, cmp.Or(a.Request.Server, "the servers"), cmp.Or(addrText(a.Request.Requested), "an address"), a.Requests))
	}
	if d := a.Declined; d != nil {
		id := Decline
		if a.Answer != nil && a.Answer.Kind == "ACK" && !a.Answer.Mask {
			id = DeclineNoMask
		}
		out = append(out, found(id, d.Packet, "%s declined %s", a.Speaker, cmp.Or(addrText(d.Requested), "its address")))
	}
	if n := len(a.Asked4011); n > 0 && a.Boot4011 == nil && (n > 1 || until.Sub(a.Asked4011[0].At) >= patience) {
		out = append(out, found(BINLWithout4011, a.Asked4011[0].Packet, "%s asked %s on port 4011 %d times, and nothing came back", a.Speaker, a.Asked4011[0].To.Addr(), n))
	}
	return out
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// files judges the boot file that the client was told of.
func (a Attempt) files() []Finding {
	var out []Finding
	boots := a.boots()
	file := a.BootFile()
	if len(a.Asked) > 0 && a.Speaker != System && a.Speaker != UBoot {
		if n, ok := a.Asked[0].architecture(); ok {
			if why := misfit(n, file); why != "" {
				out = append(out, found(WrongArch, boots.Packet, "%s (%s) is told to boot %q, which is %s", a.Speaker, archName(n), file, why))
			}
		}
	}
	if a.Speaker == UEFIPXE && a.Version == 4 && strings.Contains(strings.ToLower(file), "shim") {
		if boots.Only67 {
			out = append(out, found(ShimNoFile, boots.Packet, "%q stands in option 67 only", file))
		}
		if !boots.NextServer.IsValid() {
			out = append(out, found(ShimNoServer, boots.Packet, "%s sends %q with siaddr 0.0.0.0", boots.server(), file))
		}
	}
	if a.Version == 6 {
		for _, o := range a.answers() {
			if a.Speaker == UEFIPXE && strings.HasPrefix(o.Class, "PXEClient") {
				out = append(out, found(V6BINL, o.Packet, "%s answers with option 16 %s", o.From.Addr(), o.Class))
				break
			}
		}
		for _, o := range a.answers() {
			if a.Speaker == UEFIPXE && o.Params {
				out = append(out, found(V6Params, o.Packet, "%s answers with option 60", o.From.Addr()))
				break
			}
		}
		out = append(out, a.http6()...)
	}
	return out
}

// http6 judges DHCPv6 answers to HTTP Boot, which must carry its vendor class.
func (a Attempt) http6() []Finding {
	if a.Speaker != HTTPBoot || a.Answer != nil && len(a.Fetches) > 0 {
		return nil
	}
	for _, o := range a.answers() {
		if !strings.HasPrefix(o.Class, "HTTPClient") {
			return []Finding{found(OfferNoHTTP, o.Packet, "the %s of %s has no option 16 HTTPClient", o.Kind, o.From.Addr())}
		}
	}
	return nil
}

func (a Attempt) answers() []Message {
	out := slices.Clone(a.Offers)
	if a.Answer != nil {
		out = append(out, *a.Answer)
	}
	return out
}

// boots returns the message that named the boot file.
func (a Attempt) boots() Message {
	if a.Boot4011 != nil && a.Boot4011.BootFile != "" {
		return *a.Boot4011
	}
	if a.Choice != nil && a.Choice.Boots != 0 {
		for _, o := range a.Offers {
			if o.Packet == a.Choice.Boots {
				return o
			}
		}
	}
	if a.Answer != nil {
		return *a.Answer
	}
	return Message{}
}

// fetched judges a client that was told to fetch a file, and had time to.
func (a Attempt) fetched(until time.Time) []Finding {
	file := a.BootFile()
	if a.Answer == nil || a.Answer.Kind == "NAK" || a.Declined != nil || file == "" || len(a.Fetches) > 0 || a.Speaker == System {
		return nil
	}
	told := a.boots()
	http := strings.HasPrefix(file, "http")
	switch quiet := until.Sub(a.Answer.At); {
	case a.Speaker == IPXE && quiet < loaderPatience: // Debian's waits 13 s for IPv6 first
		return nil
	case http && quiet >= 3*patience:
		return []Finding{found(HTTPNotFetched, told.Packet, "%s was told to boot %q, and opened no connection in %s", a.Speaker, file, quiet.Round(time.Second))}
	case !http && quiet >= 3*patience:
		return []Finding{found(LoaderNotFetched, told.Packet, "%s was told to boot %q, and asked for no file in %s", a.Speaker, file, quiet.Round(time.Second))}
	}
	return nil
}

// judge says what is wrong with one fetch.
func (f Fetch) judge(a Attempt) []Finding {
	if f.wrong != "" && f.Outcome != Done {
		return []Finding{found(TFTPBadOACK, f.Packet, "%s asked for %s: %s", a.Speaker, f.Name, f.wrong)}
	}
	ids := map[Outcome]ID{NotFound: TFTPNotFound, Refused: TFTPRefused, Aborted: TFTPAborted, Stalled: TFTPStalled, Silent: TFTPNoAnswer}
	if f.Proto == "http" {
		ids = map[Outcome]ID{NotFound: HTTPError, Refused: HTTPError, Denied: HTTPRefused, Silent: HTTPNoAnswer}
		if f.Status >= 300 && f.Status < 400 {
			ids[Refused] = ""
			if a.Speaker == HTTPBoot || strings.HasPrefix(f.Agent, "UefiHttpBoot") {
				ids[Refused] = HTTPRedirect
			}
		}
	}
	id := ids[f.Outcome]
	if (f.Outcome == Denied || f.Outcome == Refused) && f.decided() {
		return nil // an answer, and no fault: the step tells it
	}
	if id == "" || f.Outcome == NotFound && f.Proto == "tftp" && !strings.HasSuffix(a.BootFile(), strings.TrimLeft(f.Name, "/")) {
		return nil // loaders look for many files that need not be there
	}
	return []Finding{found(id, f.Last, "%s: %s", a.Speaker, f)}
}

// Limits of loops: a machine in one fetches its loader every few seconds.
const (
	loopWindow     = 2 * time.Minute
	loopTimes      = 3
	loaderPatience = 30 * time.Second
)

// loops judges what came after a loader was fetched.
func loops(c Client, s scene) []Finding {
	var out []Finding
	fetched := map[string][]Fetch{}
	for i, a := range c.Attempts {
		file := a.BootFile()
		if a.Speaker == IPXE && file != "" && a.Answer != nil && len(fetched[base(file)]) > 0 {
			out = append(out, found(LoaderLoop, a.boots().Packet, "iPXE is told to boot %q, the file that it was loaded from", file))
			return out
		}
		for _, f := range a.Fetches {
			if f.Outcome != Done {
				continue
			}
			list := append(fetched[base(f.Name)], f)
			fetched[base(f.Name)] = list
			if n := len(list); f.Proto == "tftp" && n >= loopTimes && f.At.Sub(list[n-loopTimes].At) <= loopWindow {
				return append(out, found(LoaderLoop, f.Packet, "%s was fetched %d times in %s", f.Name, loopTimes, f.At.Sub(list[n-loopTimes].At).Round(time.Second)))
			}
			last := i == len(c.Attempts)-1 && f.Packet == a.Fetches[len(a.Fetches)-1].Packet
			if last && a.Speaker == UEFIPXE && isIPXE(f.Name) && s.ends.Sub(f.Until) >= loaderPatience {
				out = append(out, found(LoaderSilent, f.Last, "%s was fetched whole, and for %s nothing followed", f.Name, s.ends.Sub(f.Until).Round(time.Second)))
			}
		}
	}
	return out
}

func base(name string) string {
	name = strings.ReplaceAll(name, `\`, "/")
	return name[strings.LastIndexByte(name, '/')+1:]
}

func isIPXE(name string) bool {
	return strings.Contains(name, "ipxe") || strings.Contains(name, "snponly")
}

// segment judges what concerns more than one client.
func segment(clients []Client, packets []Packet) []Finding {
	var out []Finding
	holders := map[netip.Addr]lane.MAC{}
	told := map[netip.Addr]bool{}
	for _, p := range packets {
		a := p.From.Addr()
		if p.Proto != ARP || p.FromMAC == "" || !a.IsValid() || a.IsUnspecified() {
			continue
		}
		if h, ok := holders[a]; ok && h != p.FromMAC && !told[a] {
			told[a] = true
			out = append(out, found(AddressConflict, p.Number, "%s and %s both say by ARP that they have %s", h, p.FromMAC, a))
		}
		holders[a] = p.FromMAC
	}
	return out
}
