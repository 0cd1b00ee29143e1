package tftp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
)

// clientPatience is how long a test waits for what must come. Nothing takes that long unless the code is broken.
const clientPatience = 20 * time.Second

// client is a TFTP client for tests. Its packets are made and read here, apart from the code under test.
type client struct {
	t      testing.TB
	conn   *net.UDPConn
	server netip.AddrPort // where requests go
	tid    netip.AddrPort // where the transfer comes from, once the first answer is in
	buf    []byte

	// Losses: called with the number of a packet as it goes by, false loses it.
	letData, letAck func(n int64) bool
}

// reply is a packet of the server.
type reply struct {
	op, number uint16 // number is the block, or the code of an ERROR
	body       []byte
	from       netip.AddrPort
}

// newClient opens a client on a fresh port of the address from.
func newClient(t testing.TB, from string, server netip.AddrPort) *client {
	t.Helper()
	local := netip.AddrPortFrom(netip.MustParseAddr(from), 0)
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(local))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetReadBuffer(4 << 20)
	always := func(int64) bool { return true }
	return &client{t: t, conn: conn, server: server, buf: make([]byte, 1<<16), letData: always, letAck: always}
}

// request returns an RRQ; options come as name, value, name, value.
func request(name, mode string, options ...string) string {
	return "\x00\x01" + strings.Join(append([]string{name, mode}, options...), "\x00") + "\x00"
}

// ask sends a packet to the well-known port.
func (c *client) ask(packet string) {
	c.t.Helper()
	if _, err := c.conn.WriteToUDPAddrPort([]byte(packet), c.server); err != nil {
		c.t.Fatal(err)
	}
}

// say sends a packet to the transfer.
func (c *client) say(op, number uint16, body string) {
	c.t.Helper()
	b := binary.BigEndian.AppendUint16(nil, op)
	b = append(binary.BigEndian.AppendUint16(b, number), body...)
	if _, err := c.conn.WriteToUDPAddrPort(b, c.tid); err != nil {
		c.t.Fatal(err)
	}
}

// ack acknowledges block n.
func (c *client) ack(n int64) { c.say(4, uint16(n), "") }

// next returns the next packet of the server; the body is good until the next call.
func (c *client) next() reply {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(clientPatience))
	n, from, err := c.conn.ReadFromUDPAddrPort(c.buf)
	if err != nil {
		c.t.Fatalf("waiting for the server: %v", err)
	}
	r := reply{op: binary.BigEndian.Uint16(c.buf), from: from}
	if r.op == 6 {
		r.body = c.buf[2:n]
	} else {
		r.number, r.body = binary.BigEndian.Uint16(c.buf[2:]), c.buf[4:n]
	}
	if !c.tid.IsValid() {
		c.tid = from
	}
	return r
}

// want reads a packet and compares it with how String writes it.
func (c *client) want(what, packet string) {
	c.t.Helper()
	if got := c.next().String(); got != packet {
		c.t.Fatalf("%s: got %s, want %s", what, got, packet)
	}
}

// String writes a packet as tests compare it: "DATA 1 (512)", "OACK tsize=10", "ERROR 1 no such file".
func (r reply) String() string {
	fields := strings.Split(strings.TrimSuffix(string(r.body), "\x00"), "\x00")
	switch r.op {
	case 3:
		return fmt.Sprintf("DATA %d (%d)", r.number, len(r.body))
	case 5:
		return fmt.Sprintf("ERROR %d %s", r.number, fields[0])
	case 6:
		s := "OACK"
		for i := 0; i+1 < len(fields); i += 2 {
			s += " " + fields[i] + "=" + fields[i+1]
		}
		return s
	}
	return fmt.Sprintf("opcode %d", r.op)
}

// get downloads a file in mode octet and returns it with the OACK, "" if there was none. It acknowledges like EDK2: at the
// end of a window, and whatever was last for each packet that is not the expected one.
func (c *client) get(name string, options ...string) (content []byte, oack string) {
	c.t.Helper()
	c.ask(request(name, "octet", options...))
	block, window := 512, int64(1)
	var whole bytes.Buffer
	for got, pending := int64(0), int64(0); ; {
		r := c.next()
		switch r.op {
		case 6:
			if oack == "" {
				oack = r.String()
				for _, f := range strings.Fields(oack) {
					if v, ok := strings.CutPrefix(strings.ToLower(f), "blksize="); ok {
						block, _ = strconv.Atoi(v)
					}
					if v, ok := strings.CutPrefix(strings.ToLower(f), "windowsize="); ok {
						window, _ = strconv.ParseInt(v, 10, 64)
					}
				}
			}
			if got == 0 && c.letAck(0) {
				c.ack(0)
			}
		case 3:
			if !c.letData(got + int64(int16(r.number-uint16(got)))) {
				continue
			}
			if r.number != uint16(got+1) {
				pending = 0
				if c.letAck(got) {
					c.ack(got)
				}
				continue
			}
			got++
			pending++
			whole.Write(r.body)
			last := len(r.body) < block
			if (pending == window || last) && (last || c.letAck(got)) {
				c.ack(got)
				pending = 0
			}
			if last {
				return whole.Bytes(), oack
			}
		default:
			c.t.Fatalf("in the middle of %s: %s", name, r)
		}
	}
}

// pattern returns size bytes that look like nothing, the same each time.
func pattern(size int64) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size), byte(size >> 8), 7}).Read(b)
	return b
}
