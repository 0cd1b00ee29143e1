package tftp

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// all lets cmp look into this package's own types.
func all() cmp.Option { return cmp.AllowUnexported(packet{}, option{}, step{}) }

func TestParse(t *testing.T) {
	tests := []struct {
		name string
		in   string
		want packet
		err  error
	}{
		{name: "no byte", in: "", err: errShort},
		{name: "one byte", in: "\x00", err: errShort},
		{name: "read request", in: "\x00\x01ipxe.efi\x00octet\x00", want: packet{op: opRead, name: "ipxe.efi", mode: "octet"}},
		{name: "write request", in: "\x00\x02a\x00netascii\x00", want: packet{op: opWrite, name: "a", mode: "netascii"}},
		{name: "options as EDK2 sends them",
			in: "\x00\x01shimx64.efi\x00octet\x00tsize\x000\x00blksize\x001468\x00windowsize\x004\x00",
			want: packet{op: opRead, name: "shimx64.efi", mode: "octet", options: []option{
				{"tsize", "0"}, {"blksize", "1468"}, {"windowsize", "4"}}}},
		{name: "last NUL missing", in: "\x00\x01a\x00octet", want: packet{op: opRead, name: "a", mode: "octet"}},
		{name: "last NUL of the options missing", in: "\x00\x01a\x00octet\x00tsize\x000",
			want: packet{op: opRead, name: "a", mode: "octet", options: []option{{"tsize", "0"}}}},
		{name: "NUL behind the name", in: "\x00\x01a\x00\x00octet\x00tsize\x000\x00",
			want: packet{op: opRead, name: "a", mode: "octet", options: []option{{"tsize", "0"}}}},
		{name: "option without a value", in: "\x00\x01a\x00octet\x00tsize\x00", want: packet{op: opRead, name: "a", mode: "octet"}},
		{name: "empty value in the middle", in: "\x00\x01a\x00octet\x00tsize\x00\x00blksize\x008\x00",
			want: packet{op: opRead, name: "a", mode: "octet", options: []option{{"tsize", ""}, {"blksize", "8"}}}},
		{name: "no mode", in: "\x00\x01a\x00", want: packet{op: opRead, name: "a"}, err: errNoMode},
		{name: "nothing behind the opcode", in: "\x00\x01", want: packet{op: opRead}, err: errNoMode},
		{name: "ACK", in: "\x00\x04\xff\xfe", want: packet{op: opAck, block: 65534}},
		{name: "ACK with a tail", in: "\x00\x04\x00\x07tail", want: packet{op: opAck, block: 7}},
		{name: "short ACK", in: "\x00\x04\x00", want: packet{op: opAck}, err: errShort},
		{name: "ERROR", in: "\x00\x05\x00\x08User aborted the transfer\x00",
			want: packet{op: opError, err: Error{8, "User aborted the transfer"}}},
		{name: "ERROR without text", in: "\x00\x05\x00\x00", want: packet{op: opError}},
		{name: "ERROR that tries the log", in: "\x00\x05\x00\x01\x1b[31m\nlevel=ERROR \xff\x00more",
			want: packet{op: opError, err: Error{1, "[31m level=ERROR ?"}}},
		{name: "short ERROR", in: "\x00\x05\x00", want: packet{op: opError}, err: errShort},
		{name: "DATA", in: "\x00\x03\x00\x01xyz", want: packet{op: opData}},
		{name: "OACK", in: "\x00\x06tsize\x000\x00", want: packet{op: opOack}},
		{name: "unknown opcode", in: "\x12\x34", want: packet{op: 0x1234}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parse([]byte(tt.in))
			if !errors.Is(err, tt.err) {
				t.Errorf("error %v, want %v", err, tt.err)
			}
			if d := cmp.Diff(tt.want, got, all()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestEncode(t *testing.T) {
	data := []byte("....payload")
	putDataHeader(data, 65535)
	tests := []struct{ name, got, want string }{
		{"DATA", string(data), "\x00\x03\xff\xffpayload"},
		{"ERROR", string(encodeError(&Error{CodeNotFound, "no such file"})), "\x00\x05\x00\x01no such file\x00"},
		{"ERROR without text", string(encodeError(&Error{Code: 2})), "\x00\x05\x00\x02request refused\x00"},
		{"ERROR with a NUL inside", string(encodeError(&Error{2, "a\x00b"})), "\x00\x05\x00\x02a b\x00"},
		{"OACK", string(encodeOack([]option{{"BlkSize", "1468"}, {"tsize", "0"}})), "\x00\x06BlkSize\x001468\x00tsize\x000\x00"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.got != tt.want {
				t.Errorf("got %q, want %q", tt.got, tt.want)
			}
		})
	}
	if n := len(encodeError(&Error{0, strings.Repeat("x", 4000)})); n > 300 {
		t.Errorf("an ERROR packet of %d bytes", n)
	}
}

// FuzzParse feeds packets from the wire. Whatever comes, there is no panic, what was read out of a request is what
// encoding it again gives, and text for the log is clean.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "\x00\x01ipxe.efi\x00octet\x00tsize\x000\x00blksize\x001468\x00windowsize\x004\x00", "\x00\x01a\x00\x00octet",
		"\x00\x02a\x00mail\x00", "\x00\x04\xff\xff", "\x00\x05\x00\x08User aborted\x00", "\x00\x03\x00\x01x", "\x00\x06", "\xff\xff",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parse(b)
		if len(b) >= 2 && p.op != binary.BigEndian.Uint16(b) {
			t.Errorf("opcode %d of %x", p.op, b)
		}
		for _, r := range p.err.Text {
			if r < ' ' || r == 0x7f || !utf8.ValidRune(r) {
				t.Errorf("text %q", p.err.Text)
			}
		}
		if err != nil || p.op != opRead && p.op != opWrite {
			return
		}
		again := string(b[:2]) + p.name + "\x00" + p.mode + "\x00"
		for _, o := range p.options {
			again += o.name + "\x00" + o.value + "\x00"
		}
		got, err := parse([]byte(again))
		if d := cmp.Diff(p, got, all()); d != "" || err != nil {
			t.Errorf("encoded again: %v\n%s", err, d)
		}
		terms := negotiate(p.options, limits{size: 1000, window: 16, timeout: 1e9, block: func() int { return 1468 }})
		if terms.block < minBlock || terms.block > 1468 || terms.window < 1 || terms.window > 16 || len(terms.oack) > 512 {
			t.Errorf("terms %+v", terms)
		}
	})
}
