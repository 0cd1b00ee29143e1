package tftp

import (
	"encoding/binary"
	"errors"
	"strings"
)

// Opcodes, RFC 1350 section 5 and RFC 2347.
const (
	opRead  uint16 = 1
	opWrite uint16 = 2
	opData  uint16 = 3
	opAck   uint16 = 4
	opError uint16 = 5
	opOack  uint16 = 6
)

const (
	headerSize  = 4   // opcode and block number of a DATA packet
	maxTextSize = 255 // longer ERROR texts are cut: no screen shows more
)

var (
	errShort  = errors.New("packet is cut short")
	errNoMode = errors.New("request names no transfer mode")
)

// option is one option of a request as the client spelt it.
type option struct{ name, value string }

// packet is what a client sent. Only the fields of its opcode are set; DATA and OACK, which a client of ours has no
// reason to send, have none.
type packet struct {
	op      uint16
	name    string   // RRQ, WRQ
	mode    string   // RRQ, WRQ
	options []option // RRQ, WRQ
	block   uint16   // ACK
	err     Error    // ERROR
}

// parse reads a packet. Opcodes that do not exist are no error here: the caller answers them. The opcode is set whenever
// there is one, error or not.
func parse(b []byte) (packet, error) {
	if len(b) < 2 {
		return packet{}, errShort
	}
	p := packet{op: binary.BigEndian.Uint16(b)}
	switch p.op {
	case opRead, opWrite:
		return p.withRequest(string(b[2:]))
	case opAck:
		if len(b) < 4 {
			return p, errShort
		}
		p.block = binary.BigEndian.Uint16(b[2:])
	case opError:
		if len(b) < 4 {
			return p, errShort
		}
		text, _, _ := strings.Cut(string(b[4:]), "\x00")
		p.err = Error{Code: binary.BigEndian.Uint16(b[2:]), Text: printable(text)}
	}
	return p, nil
}

// withRequest reads the strings of an RRQ or WRQ. It lets pass what firmware gets wrong: a missing last NUL, and NULs
// between name and mode, which come from clients that take a DHCP boot file name with its terminator.
func (p packet) withRequest(s string) (packet, error) {
	fields := strings.Split(strings.TrimSuffix(s, "\x00"), "\x00")
	p.name, fields = fields[0], fields[1:]
	for len(fields) > 0 && fields[0] == "" {
		fields = fields[1:]
	}
	if len(fields) == 0 {
		return p, errNoMode
	}
	p.mode, fields = fields[0], fields[1:]
	for ; len(fields) >= 2; fields = fields[2:] {
		p.options = append(p.options, option{fields[0], fields[1]})
	}
	return p, nil
}

// printable makes text from the wire fit for a log line or an event.
func printable(s string) string {
	s = s[:min(len(s), maxTextSize)]
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return strings.TrimSpace(s)
}

// putDataHeader makes b, which has the payload from its fifth byte on, a DATA packet.
func putDataHeader(b []byte, block uint16) {
	binary.BigEndian.PutUint16(b, opData)
	binary.BigEndian.PutUint16(b[2:], block)
}

// encodeError returns an ERROR packet. The text is never empty and holds no NUL of its own: some loaders show nothing
// else, and some run past its end.
func encodeError(e *Error) []byte {
	text := printable(e.Text)
	if text == "" {
		text = "request refused"
	}
	b := binary.BigEndian.AppendUint16(nil, opError)
	b = binary.BigEndian.AppendUint16(b, e.Code)
	return append(append(b, text...), 0)
}

// encodeOack returns an OACK packet, RFC 2347.
func encodeOack(accepted []option) []byte {
	b := binary.BigEndian.AppendUint16(nil, opOack)
	for _, o := range accepted {
		b = append(append(b, o.name...), 0)
		b = append(append(b, o.value...), 0)
	}
	return b
}
