package pcap

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"bootlane/internal/lane"
)

// swapped turns the headers of a little-endian pcap file into big-endian ones.
func swapped(b []byte) []byte {
	b = bytes.Clone(b)
	flip := func(at, n int) {
		for i := range n / 2 {
			b[at+i], b[at+n-1-i] = b[at+n-1-i], b[at+i]
		}
	}
	for _, f := range [][2]int{{0, 4}, {4, 2}, {6, 2}, {8, 4}, {12, 4}, {16, 4}, {20, 4}} {
		flip(f[0], f[1])
	}
	for at := 24; at < len(b); {
		n := int(binary.LittleEndian.Uint32(b[at+8:]))
		for i := range 4 {
			flip(at+4*i, 4)
		}
		at += 16 + n
	}
	return b
}

// TestFormats reads one DISCOVER out of every form that a capture may have.
func TestFormats(t *testing.T) {
	l := newTape(t).says(ovmfDiscover)
	l.now = l.now.Add(123456789 * time.Nanosecond)
	l.recs[0].At = l.now
	ether := l.recs[0].Frame
	file := func(link layers.LinkType, nano bool, frame []byte) []byte {
		var b bytes.Buffer
		w := pcapgo.NewWriter(&b)
		if nano {
			w = pcapgo.NewWriterNanos(&b)
		}
		l.must(w.WriteFileHeader(MaxFrame, link))
		l.must(w.WritePacket(gopacket.CaptureInfo{Timestamp: l.now, CaptureLength: len(frame), Length: len(frame)}, frame))
		return b.Bytes()
	}
	src := ether[6:12]
	sll := append(append([]byte{0, 1, 0, 1, 0, 6}, src...), append([]byte{0, 0, 8, 0}, ether[14:]...)...)
	sll2 := append(append([]byte{8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 1, 6}, src...), append([]byte{0, 0}, ether[14:]...)...)
	tag := func(frame []byte, kind uint16, id byte) []byte {
		return append(append(bytes.Clone(frame[:12]), byte(kind>>8), byte(kind), 0, id), frame[12:]...)
	}
	for _, c := range []struct {
		name string
		file []byte
		nano bool
		vlan uint16
	}{
		{"pcap", file(layers.LinkTypeEthernet, false, ether), false, 0},
		{"pcap of nanoseconds", file(layers.LinkTypeEthernet, true, ether), true, 0},
		{"pcap, big-endian", swapped(file(layers.LinkTypeEthernet, false, ether)), false, 0},
		{"pcap of nanoseconds, big-endian", swapped(file(layers.LinkTypeEthernet, true, ether)), true, 0},
		{"pcapng", l.file(), true, 0},
		{"cooked", file(layers.LinkTypeLinuxSLL, false, sll), false, 0},
		{"cooked, version 2", file(layers.LinkTypeLinuxSLL2, false, sll2), false, 0},
		{"tagged", file(layers.LinkTypeEthernet, false, tag(ether, 0x8100, 7)), false, 7},
		{"tagged twice", file(layers.LinkTypeEthernet, false, tag(tag(ether, 0x8100, 7), 0x88a8, 9)), false, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Read(c.file)
			if err != nil || got.Damage != "" || len(got.Packets) != 1 {
				t.Fatalf("%+v, %v", got, err)
			}
			p := got.Packets[0]
			want := l.now
			if !c.nano {
				want = want.Truncate(time.Microsecond)
			}
			m, ok := DHCP(p)
			if !ok || m.Kind != "DISCOVER" || m.Client != lane.MAC(client.mac) || p.FromMAC != m.Client || !p.At.Equal(want) || p.VLAN != c.vlan || p.Number != 1 {
				t.Errorf("%+v %+v", p, m)
			}
		})
	}
}

// TestBroken: what is cut or damaged is told, and the rest is read.
func TestBroken(t *testing.T) {
	data, err := os.ReadFile("testdata/D2-proxy-4011.pcap")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Read(data[:len(data)/2])
	if err != nil || c.Damage == "" || len(c.Packets) == 0 || c.Cut == 0 {
		t.Errorf("half a file: %d packets, %d cut, damage %q, %v", len(c.Packets), c.Cut, c.Damage, err)
	}
	for _, b := range [][]byte{nil, []byte("abc"), []byte("#!/bin/sh\nexit 1\n# not a capture"), {0x0a, 0x0d, 0x0d, 0x0a}} {
		if _, err := Read(b); lane.CodeOf(err) != lane.Invalid || !strings.Contains(err.Error(), "not a capture") {
			t.Errorf("%q: %v", b, err)
		}
	}
}

// TestWrite: an export is read back as it was recorded, interface by interface.
func TestWrite(t *testing.T) {
	l := newTape(t).says(ovmfDiscover).says(ovmfRequest)
	l.recs[1].Size = 4000
	var b bytes.Buffer
	if err := Write(&b, []Source{{"eth0", l.recs[:1]}, {"eth1", l.recs[1:]}}); err != nil {
		t.Fatal(err)
	}
	c, err := Read(b.Bytes())
	if err != nil || len(c.Packets) != 2 || c.Cut != 1 || !c.Packets[1].Cut {
		t.Errorf("%+v, %v", c, err)
	}
	if err := Write(&b, nil); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("nothing to write: %v", err)
	}
}

// FuzzRead: whatever the file is, reading and judging it ends, and judges twice alike.
func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("testdata/*.pcap")
	if err != nil || len(files) == 0 {
		f.Fatal(err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	l := newTape(&testing.T{})
	l.arp(client).tcp(client, 1000, server, 80, "A", "GET / HTTP/1.1\r\n\r\n").udp(client, 2000, server, 69, rrq("a", "tsize", "0"))
	f.Add(l.file())
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Read(data)
		if err != nil {
			return
		}
		var a, b bytes.Buffer
		Analyse(c).Text(&a)
		Analyse(c).Text(&b)
		if a.String() != b.String() {
			t.Errorf("two judgements of one capture differ:\n%s\n%s", a.String(), b.String())
		}
	})
}

// FuzzFrame: whatever a frame is, it is read, and so is the message in it.
func FuzzFrame(f *testing.F) {
	l := newTape(&testing.T{})
	l.arp(client).udp(client, 68, server, 67, make([]byte, 300)).udp(client6, 546, server6, 547, []byte{1, 0, 0, 1})
	for _, r := range l.recs {
		f.Add(r.Frame)
	}
	f.Fuzz(func(_ *testing.T, data []byte) {
		if p, ok := Frame(data); ok {
			DHCP(p)
		}
	})
}
