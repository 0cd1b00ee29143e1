package pcap

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// Outcome is how a fetch ended.
type Outcome string

// The outcomes of a fetch.
const (
	Done     Outcome = "complete"
	Probe    Outcome = "size asked" // EDK2 asks for the size, aborts, and asks again: normal
	NotFound Outcome = "not found"
	Refused  Outcome = "refused"
	Denied   Outcome = "refused by the server" // HTTP 403: it is there, and not for this machine now
	Aborted  Outcome = "aborted by the client"
	Stalled  Outcome = "stalled"
	Silent   Outcome = "no answer"
	Running  Outcome = "not ended in this capture"
)

// Fetch is one file fetched, or tried, by TFTP or HTTP.
type Fetch struct {
	Packet  int            `json:"packet"`
	At      time.Time      `json:"at"`
	Until   time.Time      `json:"until"`
	Proto   string         `json:"proto"` // tftp or http
	Server  netip.AddrPort `json:"server"`
	Name    string         `json:"name"`
	Outcome Outcome        `json:"outcome"`
	Last    int            `json:"last"`              // its last packet
	Size    int64          `json:"size,omitempty"`    // as the server says
	Got     int64          `json:"got,omitempty"`     // bytes seen
	Repeats int            `json:"repeats,omitempty"` // packets sent again
	Status  int            `json:"status,omitempty"`  // HTTP status, or TFTP error number
	Text    string         `json:"text,omitempty"`    // what came with it
	Said    string         `json:"said,omitempty"`    // first line of the document that came with HTTP 403
	Agent   string         `json:"agent,omitempty"`
	wrong   string         // why firmware cannot accept the server's OACK
	began   time.Time      // of the capture
}

func (f Fetch) String() string {
	s := fmt.Sprintf("%s %s from %s: %s", f.Proto, f.Name, f.Server.Addr(), f.Outcome)
	if f.Size > 0 {
		s += fmt.Sprintf(", %d bytes", f.Size)
	}
	if f.Status != 0 {
		s += fmt.Sprintf(", %d %s", f.Status, f.Text)
	}
	if f.Said != "" {
		s += ": " + f.Said
	}
	if f.Repeats > 0 {
		s += fmt.Sprintf(", %d packets sent again", f.Repeats)
	}
	return s
}

// decided reports whether it was a Bootlane that refused the file, by its rules: it begins with
// what is decided, or why.
func (f Fetch) decided() bool {
	word, _, ok := strings.Cut(cmp.Or(f.Said, f.Text), ": ")
	return ok && (slices.ContainsFunc(lane.Actions(), func(a lane.Action) bool { return a.String() == word }) ||
		slices.ContainsFunc(lane.Reasons(), func(r lane.ReasonDoc) bool { return string(r.Reason) == word }))
}

// TFTP's opcodes: RFC 1350, and 2347 for OACK.
const (
	opRRQ   = 1
	opDATA  = 3
	opACK   = 4
	opERROR = 5
	opOACK  = 6
)

// transfer is a TFTP transfer while its packets go by. It is known by the client's
// port: the server answers from a new one.
type transfer struct {
	Fetch
	asked   map[string]string // options of the RRQ
	oack    bool
	block   uint16 // the last in order
	blksize int
	ended   bool // a short block was seen
	failed  bool
}

// other takes in a packet that is not DHCP.
func (t *table) other(p Packet) {
	switch {
	case p.Proto == UDP && p.To.Port() == portTFTP && isRequest(p.Payload):
		t.request(p)
	case p.Proto == UDP:
		if x := t.transfers[p.To]; x != nil {
			x.served(p)
		} else if x := t.transfers[p.From]; x != nil {
			x.answered(p)
		}
	case p.Proto == TCP:
		t.tcp(p)
	}
}

// isRequest tells requests from the rest of a transfer by the server's one port.
func isRequest(b []byte) bool { return len(b) >= 4 && binary.BigEndian.Uint16(b) == opRRQ }

func (t *table) request(p Packet) {
	if x := t.transfers[p.From]; x != nil && x.Outcome == "" && !x.oack && x.Got == 0 && !x.failed {
		x.Repeats++ // the same port: the request was sent again
		x.touch(p)
		return
	}
	b := p.Payload
	k := t.owner(p.From.Addr(), p.FromMAC)
	if k == nil {
		return
	}
	name, options := asks(string(b[2:]))
	x := &transfer{asked: options, blksize: 512}
	x.Packet, x.At, x.Until, x.Last, x.Proto, x.Server, x.Name, x.began = p.Number, p.At, p.At, p.Number, "tftp", p.To, lane.Clean(name, 300), t.from
	t.transfers[p.From] = x
	k.transfers = append(k.transfers, x)
}

// asks reads the strings of an RRQ as our server does: firmware puts NULs between name and mode, which count for nothing,
// and of an option the first value that is a number counts.
func asks(s string) (name string, options map[string]string) {
	fields := strings.Split(s, "\x00")
	name, fields = fields[0], fields[1:]
	for len(fields) > 0 && fields[0] == "" {
		fields = fields[1:]
	}
	options = map[string]string{}
	for i := 1; i+1 < len(fields); i += 2 {
		option := strings.ToLower(fields[i])
		if _, err := strconv.ParseUint(fields[i+1], 10, 63); err == nil && options[option] == "" {
			options[option] = fields[i+1]
		}
	}
	return name, options
}

func (x *transfer) touch(p Packet) { x.Until, x.Last = p.At, p.Number }

// served takes in what the server sends.
func (x *transfer) served(p Packet) {
	b := p.Payload
	if len(b) < 4 || x.Outcome != "" {
		return
	}
	x.touch(p)
	x.Server = p.From
	switch binary.BigEndian.Uint16(b) {
	case opOACK:
		if x.oack {
			x.Repeats++
		}
		x.oack = true
		x.accepted(strings.Split(string(b[2:]), "\x00"))
	case opDATA:
		if _, asked := x.asked["tsize"]; asked && !x.oack {
			x.wrong = "the server sends data instead of the size that was asked for"
		}
		n := binary.BigEndian.Uint16(b[2:])
		if n != x.block+1 { // after 65535 comes 0
			x.Repeats++
			return
		}
		x.data(p.length)
	case opERROR:
		x.failed = true
		x.Status, x.Text = int(binary.BigEndian.Uint16(b[2:])), text(b[4:])
		x.Outcome = Refused
		if x.Status == 1 {
			x.Outcome = NotFound
		}
	}
}

// data takes in a datagram of blocks. It has more than one where the capture was taken on
// the server, and the kernel cuts up what it sends only later (UDP_SEGMENT).
func (x *transfer) data(length int) {
	for full := x.blksize + 4; length > 0; length -= full {
		n := max(min(length, full)-4, 0)
		x.block, x.Got, x.ended = x.block+1, x.Got+int64(n), n < x.blksize
	}
}

// accepted reads an OACK, and what EDK2 does not take from one: Mtftp4Option.c and
// PxeBcMtftp.c.
func (x *transfer) accepted(fields []string) {
	got := map[string]string{}
	for i := 0; i+1 < len(fields); i += 2 {
		got[strings.ToLower(fields[i])] = fields[i+1]
	}
	size, err := strconv.ParseInt(got["tsize"], 10, 64)
	if _, asked := x.asked["tsize"]; asked && err != nil {
		x.wrong = "the server's OACK has no tsize, which was asked for"
	}
	x.Size = max(size, 0)
	if n, err := strconv.Atoi(got["blksize"]); err == nil && n > 0 {
		x.blksize = n
		if most, err := strconv.Atoi(x.asked["blksize"]); err == nil && n > most {
			x.wrong = fmt.Sprintf("the server's OACK has blksize %d, and %d was asked for", n, most)
		}
	}
	if want, have := x.asked["timeout"], got["timeout"]; have != "" && want != have {
		x.wrong = fmt.Sprintf("the server's OACK has timeout %s, and %s was asked for", lane.Clean(have, 10), lane.Clean(want, 10))
	}
}

// answered takes in what the client sends to the server's port.
func (x *transfer) answered(p Packet) {
	b := p.Payload
	if len(b) < 4 || x.Outcome != "" {
		return
	}
	x.touch(p)
	if binary.BigEndian.Uint16(b) == opERROR {
		x.Outcome = Aborted
		if _, asked := x.asked["tsize"]; asked && x.oack && x.Got == 0 && x.wrong == "" {
			x.Outcome = Probe
			return
		}
		x.Status, x.Text = int(binary.BigEndian.Uint16(b[2:])), text(b[4:])
	}
}

// stall is how long a transfer that is not over may be quiet: longer than a server
// waits before it sends again.
const stall = 5 * time.Second

func (x *transfer) conclude(end time.Time) Fetch {
	f := x.Fetch
	quiet := end.Sub(f.Until) >= stall
	switch {
	case f.Outcome != "":
	case x.ended:
		f.Outcome = Done
	case !x.oack && f.Got == 0 && (quiet || f.Repeats > 0):
		f.Outcome = Silent
	case quiet:
		f.Outcome = Stalled
	default:
		f.Outcome = Running
	}
	return f
}

// pair names a TCP connection: who opened it, and to whom.
type pair struct{ client, server netip.AddrPort }

// connection is one request of a TCP connection, and the beginning of its answer. EDK2
// asks HEAD and GET on the same.
type connection struct {
	Fetch
	open, closed bool
	body         bool // its headers have passed
}

func (t *table) tcp(p Packet) {
	if c := t.connections[pair{p.To, p.From}]; c != nil {
		c.served(p)
		return
	}
	k := t.owner(p.From.Addr(), p.FromMAC)
	id := pair{p.From, p.To}
	c := t.connections[id]
	opens := p.syn && !p.ack
	if c != nil && c.Status != 0 && method(p.Payload) {
		c = nil
	}
	if c == nil && k != nil && (opens || method(p.Payload)) {
		c = &connection{Fetch: Fetch{Packet: p.Number, At: p.At, Proto: "http", Server: p.To, began: t.from}, open: !opens}
		t.connections[id] = c
		k.connections = append(k.connections, c)
	}
	if c == nil {
		return
	}
	c.Until, c.Last, c.closed = p.At, p.Number, c.closed || p.end
	if opens && p.Number != c.Packet {
		c.Repeats++
	}
	if c.Name == "" && method(p.Payload) {
		line, rest, _ := bytes.Cut(p.Payload, []byte("\r\n"))
		words := strings.Fields(string(line))
		c.Packet, c.At, c.Name = p.Number, p.At, lane.Clean(words[0]+" "+words[1], 300)
		if _, ua, ok := bytes.Cut(rest, []byte("User-Agent: ")); ok {
			ua, _, _ = bytes.Cut(ua, []byte("\r\n"))
			c.Agent = lane.Clean(string(ua), 100)
		}
	}
}

// method reports whether a segment begins an HTTP request.
func method(b []byte) bool {
	line, _, _ := bytes.Cut(b, []byte("\r\n"))
	words := strings.Fields(string(line))
	if len(words) < 2 {
		return false
	}
	return words[0] == "GET" || words[0] == "HEAD" || words[0] == "POST"
}

func (c *connection) served(p Packet) {
	c.Until, c.Last, c.closed = p.At, p.Number, c.closed || p.end
	c.open = c.open || p.syn
	c.Got += int64(len(p.Payload))
	if rest, ok := bytes.CutPrefix(p.Payload, []byte("HTTP/1.")); ok && c.Status == 0 && c.Name != "" && len(rest) >= 5 {
		line, _, _ := bytes.Cut(rest, []byte("\r\n"))
		c.Status, _ = strconv.Atoi(string(line[min(2, len(line)):min(5, len(line))]))
		c.Text = lane.Clean(string(line[min(5, len(line)):]), 60)
	}
	body := p.Payload
	if !c.body {
		_, body, c.body = bytes.Cut(p.Payload, []byte("\r\n\r\n"))
	}
	if c.Status == 403 && c.body && c.Said == "" {
		line, _, _ := bytes.Cut(body, []byte("\n"))
		c.Said = lane.Clean(string(line), 200)
	}
}

// conclude returns what was fetched; a connection without HTTP that was answered is
// somebody else's business.
func (c *connection) conclude() (Fetch, bool) {
	f := c.Fetch
	switch {
	case !c.open:
		f.Outcome, f.Name = Silent, "(connection to port "+strconv.Itoa(int(f.Server.Port()))+")"
	case f.Name == "":
		return f, false
	case f.Status == 0:
		f.Outcome = Silent
	case f.Status == 404 || f.Status == 410:
		f.Outcome = NotFound
	case f.Status == 403:
		f.Outcome = Denied
	case f.Status >= 300:
		f.Outcome = Refused
	default:
		f.Outcome = Done
	}
	return f, true
}
