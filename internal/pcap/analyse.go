package pcap

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// Speaker is which program of a machine asks.
type Speaker string

// The programs that ask for a network boot, in the order in which a machine runs them.
const (
	BIOSPXE  Speaker = "BIOS PXE"
	UEFIPXE  Speaker = "UEFI PXE"
	HTTPBoot Speaker = "UEFI HTTP Boot"
	IPXE     Speaker = "iPXE"
	UBoot    Speaker = "U-Boot"
	System   Speaker = "operating system"
)

// Report is what a capture shows of network boots.
type Report struct {
	Frames   int       `json:"frames"`
	Cut      int       `json:"cut,omitempty"` // frames of which the capture has only the beginning
	From     time.Time `json:"from,omitzero"`
	To       time.Time `json:"to,omitzero"`
	Damage   string    `json:"damage,omitempty"`
	Narrow   bool      `json:"narrow,omitempty"` // only DHCP and TFTP requests were recorded: nothing is said of transfers
	Clients  []Client  `json:"clients"`
	Findings []Finding `json:"findings"` // about the segment, not about one client
}

// Client is one machine's NIC and its conversation.
type Client struct {
	MAC      lane.MAC  `json:"mac"`
	UUID     lane.UUID `json:"uuid,omitempty"`
	Probe    bool      `json:"probe,omitempty"` // no machine: a Bootlane server asks who answers
	Stopped  string    `json:"stopped"`         // the last thing that worked
	Steps    []Step    `json:"steps"`
	Attempts []Attempt `json:"attempts"`
	Findings []Finding `json:"findings"`
}

// Step is one line of the conversation.
type Step struct {
	Packet int           `json:"packet"`
	After  time.Duration `json:"after"` // nanoseconds since the capture began
	By     string        `json:"by"`    // "client", or the server's address
	Text   string        `json:"text"`
}

// Attempt is one program's try to get an address and a boot file.
type Attempt struct {
	Speaker   Speaker   `json:"speaker"`
	Version   int       `json:"version"` // of DHCP
	Asked     []Message `json:"asked"`   // DISCOVER or SOLICIT, with its repetitions
	Offers    []Message `json:"offers"`
	Choice    *Choice   `json:"choice,omitempty"`
	Request   *Message  `json:"request,omitempty"`
	Requests  int       `json:"requests,omitempty"`
	Answer    *Message  `json:"answer,omitempty"` // ACK, NAK or REPLY
	Declined  *Message  `json:"declined,omitempty"`
	Asked4011 []Message `json:"asked4011,omitempty"`
	Boot4011  *Message  `json:"boot4011,omitempty"`
	Fetches   []Fetch   `json:"fetches,omitempty"`
}

// Won returns the server whose offer the client took, as the client says.
func (a Attempt) Won() string {
	if a.Request == nil {
		return ""
	}
	return a.Request.Server
}

// BootFile returns the file that the client was told to fetch in the end.
func (a Attempt) BootFile() string {
	switch {
	case a.Boot4011 != nil && a.Boot4011.BootFile != "":
		return a.Boot4011.BootFile
	case a.Choice != nil && a.Choice.BootFile != "":
		return a.Choice.BootFile
	case a.Answer != nil:
		return a.Answer.BootFile
	}
	return ""
}

// Analyse reconstructs every conversation in a capture, and judges it.
func Analyse(c Capture) Report {
	r := Report{Frames: c.Frames, Cut: c.Cut, From: c.From, To: c.To, Damage: c.Damage, Narrow: true, Clients: []Client{}, Findings: []Finding{}}
	t := table{from: c.From, byAddress: map[netip.Addr]lane.MAC{}, byMAC: map[lane.MAC]*talk{}, transfers: map[netip.AddrPort]*transfer{}, connections: map[pair]*connection{}}
	for _, p := range c.Packets {
		if m, ok := DHCP(p); ok {
			t.message(m)
			if k := t.byMAC[m.Client]; k != nil && probes(p) {
				k.Probe = true
			}
			continue
		}
		r.Narrow = r.Narrow && p.Proto == UDP && p.To.Port() == portTFTP
		t.other(p)
	}
	talkers := t.talkers() // looks at every client
	for _, k := range t.order {
		talk := t.byMAC[k]
		talk.conclude(c.To)
		cl := talk.Client
		if cl.Probe {
			cl.Findings, cl.Stopped = []Finding{}, "nothing: it takes no offer"
		} else {
			cl.Findings, cl.Stopped = judge(cl, scene{begins: c.From, ends: c.To, narrow: r.Narrow, talkers: talkers}), stopped(cl)
		}
		slices.SortStableFunc(cl.Steps, func(a, b Step) int { return a.Packet - b.Packet })
		r.Clients = append(r.Clients, cl)
	}
	r.Findings = append(r.Findings, segment(r.Clients, c.Packets)...)
	return r
}

// table is what is known while the packets go by.
type table struct {
	from        time.Time
	order       []lane.MAC
	byMAC       map[lane.MAC]*talk
	byAddress   map[netip.Addr]lane.MAC
	transfers   map[netip.AddrPort]*transfer
	connections map[pair]*connection
}

// talk is a client while its packets go by.
type talk struct {
	Client
	transfers   []*transfer
	connections []*connection
}

// clients bounds how many machines one capture may invent.
const clients = 4096

func (t *table) client(m lane.MAC) *talk {
	if m == "" {
		return nil
	}
	k, ok := t.byMAC[m]
	if !ok {
		if len(t.order) == clients {
			return nil
		}
		k = &talk{Client: Client{MAC: m, Steps: []Step{}, Attempts: []Attempt{}}}
		t.byMAC[m], t.order = k, append(t.order, m)
	}
	return k
}

// owner finds whose packet it is: by its address, or, before it has one and where no
// router stands between, by its frame.
func (t *table) owner(a netip.Addr, m lane.MAC) *talk {
	if known, ok := t.byAddress[a]; ok {
		return t.byMAC[known]
	}
	return t.byMAC[m]
}

// talkers lists the servers that answered anybody.
func (t *table) talkers() map[string]lane.MAC {
	out := map[string]lane.MAC{}
	for _, k := range t.order {
		for _, a := range t.byMAC[k].Attempts {
			for _, o := range a.Offers {
				if o.Address.IsValid() && out[o.server()] == "" {
					out[o.server()] = k
				}
			}
		}
	}
	return out
}

func (k *talk) step(packet int, after time.Duration, by, format string, args ...any) {
	k.Steps = append(k.Steps, Step{packet, after, by, fmt.Sprintf(format, args...)})
}

// message takes in one DHCP message.
func (t *table) message(m Message) {
	k := t.client(m.Client)
	if k == nil {
		return
	}
	if m.UUID != "" && k.UUID == "" && !m.Reply() {
		k.UUID = m.UUID
	}
	by := "client"
	if m.Reply() || m.Kind == "BOOTP reply" {
		by = m.From.Addr().String()
	}
	k.step(m.Packet, m.At.Sub(t.from), by, "%s", describe(m))
	k.file(m)
	if m.Address.IsValid() && (m.Kind == "ACK" || m.Kind == "REPLY") {
		t.byAddress[m.Address] = m.Client
	}
}

// file puts a message where it belongs among the attempts. A transaction id alone
// says little: iPXE without entropy uses the same one at every boot.
func (k *talk) file(m Message) {
	i := len(k.Attempts) - 1
	for i >= 0 && k.Attempts[i].Version != m.Version {
		i--
	}
	a := &Attempt{}
	if i >= 0 {
		a = &k.Attempts[i]
	}
	same := i >= 0 && len(a.Asked) > 0 && a.Asked[0].XID == m.XID
	bootServer := m.From.Port() == portBootServer || m.To.Port() == portBootServer
	switch m.Kind {
	case "DISCOVER", "SOLICIT", "BOOTP request":
		if !same || a.Request != nil || a.Speaker != m.speaker() {
			k.Attempts = append(k.Attempts, Attempt{Speaker: m.speaker(), Version: m.Version, Asked: []Message{}, Offers: []Message{}})
			a = &k.Attempts[len(k.Attempts)-1]
		}
		a.Asked = append(a.Asked, m)
	case "OFFER", "ADVERTISE", "BOOTP reply":
		if same {
			a.Offers = append(a.Offers, m)
		}
	case "REQUEST":
		switch {
		case bootServer && i >= 0:
			a.Asked4011 = append(a.Asked4011, m)
		case i < 0 || a.Answer != nil && a.Version == 4 && !same: // nobody saw it discover: it renews, or came back
			k.Attempts = append(k.Attempts, Attempt{Speaker: m.speaker(), Version: m.Version, Asked: []Message{}, Offers: []Message{}, Request: &m, Requests: 1})
		default:
			a.Request, a.Requests = &m, a.Requests+1
		}
	case "ACK", "NAK", "REPLY":
		switch {
		case i < 0:
		case bootServer:
			a.Boot4011 = &m
		case a.Request != nil && a.Request.XID == m.XID:
			a.Answer = &m
		}
	case "DECLINE":
		if i >= 0 {
			a.Declined = &m
		}
	}
}

// conclude makes the choices, and gives every fetch to the attempt that led to it.
func (k *talk) conclude(end time.Time) {
	for i := range k.Attempts {
		if a := &k.Attempts[i]; a.Version == 4 && len(a.Offers) > 0 {
			// What comes after the REQUEST comes too late to be chosen.
			had := slices.DeleteFunc(slices.Clone(a.Offers), func(o Message) bool { return a.Request != nil && o.Packet > a.Request.Packet })
			c := choose(a.Speaker, a.Asked[0], had)
			a.Choice = &c
		}
	}
	var all []Fetch
	for _, t := range k.transfers {
		all = append(all, t.conclude(end))
	}
	for _, c := range k.connections {
		if f, ok := c.conclude(); ok {
			all = append(all, f)
		}
	}
	slices.SortStableFunc(all, func(a, b Fetch) int { return a.Packet - b.Packet })
	for _, f := range all {
		k.step(f.Packet, f.At.Sub(f.began), "client", "%s", f)
		for i := len(k.Attempts) - 1; i >= 0; i-- {
			if a := &k.Attempts[i]; a.Request != nil && a.Request.Packet < f.Packet {
				a.Fetches = append(a.Fetches, f)
				break
			}
		}
	}
}

// describe says one message in a line.
func describe(m Message) string {
	parts := []string{m.Kind}
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if m.To.Port() == portBootServer || m.From.Port() == portBootServer {
		add("on port 4011")
	}
	if !m.Reply() && m.Class != "" {
		add("of %s", m.speaker())
		if n, ok := m.architecture(); ok {
			add("for %s", archName(n))
		}
	}
	if m.Address.IsValid() {
		add("%s", m.Address)
	}
	if m.Requested.IsValid() && !m.Reply() {
		add("wants %s", m.Requested)
	}
	if m.Server != "" && m.Version == 4 {
		add("server %s", m.Server)
	}
	if m.Reply() && m.Class != "" {
		add("class %s", m.Class)
	}
	if m.Reply() && m.BootFile != "" {
		add("file %q", m.BootFile)
	}
	if m.PXE.LocalBoot {
		add("a menu that begins with local boot")
	}
	if m.NextServer.IsValid() {
		add("next server %s", m.NextServer)
	}
	if m.Text != "" {
		add("says %q", m.Text)
	}
	return strings.Join(parts, ", ")
}

// stopped says how far a client came.
func stopped(c Client) string {
	last := "nothing: it was only heard"
	for _, a := range c.Attempts {
		who := string(a.Speaker)
		switch {
		case a.Answer != nil && a.Answer.Kind != "NAK" && a.Answer.Address.IsValid():
			last = who + " got the address " + a.Answer.Address.String()
		case len(a.Offers) > 0:
			last = who + " was offered an address or a boot file"
		case len(a.Asked) > 0:
			last = who + " asked for an address"
		}
		for _, f := range a.Fetches {
			if f.Outcome == Done {
				last = fmt.Sprintf("%s fetched %s", who, f.Name)
			}
		}
	}
	return last
}
