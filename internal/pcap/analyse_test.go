package pcap

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// crowd is a capture in which n machines get an address and a loader.
func crowd(t testing.TB, n int) Capture {
	l := newTape(t)
	discover, request := l.fixture(ovmfDiscover), l.fixture(ovmfRequest)
	for i := range n {
		for _, b := range [][]byte{discover, request} {
			b[32], b[33] = byte(i>>8), byte(i) // chaddr
		}
		address := fmt.Sprintf("192.168.%d.%d", 100+i>>8, i&255)
		answer := func(kind byte, asked []byte) {
			l.udp(server, 67, everyone, 68, reply{kind: kind, address: address, next: server.ip, file: "ipxe.efi"}.bytes(server, asked))
		}
		l.udp(unbound, 68, everyone, 67, discover)
		answer(offer, discover)
		l.udp(unbound, 68, everyone, 67, request)
		answer(ack, request)
	}
	c, err := Read(l.file())
	if err != nil || c.Damage != "" {
		t.Fatal(err, c.Damage)
	}
	return c
}

// BenchmarkAnalyse: a capture of a boot storm takes time by how many machines there are, not by their square.
func BenchmarkAnalyse(b *testing.B) {
	for _, n := range []int{500, 4000} {
		b.Run(fmt.Sprintf("%d machines", n), func(b *testing.B) {
			c := crowd(b, n)
			for b.Loop() {
				if r := Analyse(c); len(r.Clients) != n {
					b.Fatalf("%d clients", len(r.Clients))
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "us/machine")
		})
	}
}

// TestSinglePort: a server may have no other port than 69, and what its clients send there is not all requests.
func TestSinglePort(t *testing.T) {
	l := newTape(t).bound(ovmfDiscover, ovmfRequest, reply{address: client.ip, next: server.ip, file: "ipxe.efi"})
	ask := func(port uint16, name string) { l.udp(client, port, server, 69, rrq(name, "tsize", "0")) }
	say := func(port uint16, b []byte) { l.udp(client, port, server, 69, b) }
	hear := func(port uint16, b []byte) { l.udp(server, 69, client, port, b) }
	ask(2000, "ipxe.efi")
	hear(2000, oack("tsize", "100"))
	say(2000, tftpError(8, "User aborted the transfer"))
	ask(2000, "ipxe.efi")
	hear(2000, oack("tsize", "100"))
	say(2000, []byte{0, 4, 0, 0})
	hear(2000, data(1, 100))
	say(2000, []byte{0, 4, 0, 1})
	ask(2001, "snponly.efi")
	hear(2001, oack("tsize", "5000"))
	say(2001, []byte{0, 4, 0, 0})
	hear(2001, data(1, 512))
	say(2001, tftpError(3, "disk full"))
	l.udp(client, 2002, server, 69, rrq("grub.cfg"))
	say(2002, []byte{0, 4, 0, 0}) // of something before
	hear(2002, data(1, 10))
	r := l.report()
	var got []string
	for _, f := range r.Clients[0].Attempts[0].Fetches {
		got = append(got, fmt.Sprintf("%s: %s, %d %s, %d again, until %d", f.Name, f.Outcome, f.Status, f.Text, f.Repeats, f.Last-f.Packet))
	}
	want := []string{
		"ipxe.efi: size asked, 0 , 0 again, until 2", "ipxe.efi: complete, 0 , 0 again, until 4",
		"snponly.efi: aborted by the client, 3 disk full, 0 again, until 4", "grub.cfg: complete, 0 , 0 again, until 2",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestAsks: what our server makes of a request, the report must make of it too.
func TestAsks(t *testing.T) {
	for _, c := range []struct {
		name, rrq string
		file      string
		options   map[string]string
	}{
		{"plain", "a\x00octet\x00tsize\x000\x00BlkSize\x001468\x00", "a", map[string]string{"tsize": "0", "blksize": "1468"}},
		{"a name with its terminator", "a\x00\x00octet\x00tsize\x000\x00", "a", map[string]string{"tsize": "0"}},
		{"no last NUL", "a\x00octet\x00tsize\x000", "a", map[string]string{"tsize": "0"}},
		{"no value", "a\x00octet\x00tsize\x00", "a", map[string]string{}},
		{"no number", "a\x00octet\x00tsize\x00\x00blksize\x00big\x00timeout\x00-1\x00", "a", map[string]string{}},
		{"twice", "a\x00octet\x00blksize\x00big\x00blksize\x001024\x00blksize\x008\x00", "a", map[string]string{"blksize": "1024"}},
		{"no mode", "a\x00", "a", map[string]string{}},
		{"nothing", "", "", map[string]string{}},
	} {
		file, options := asks(c.rrq)
		if d := cmp.Diff(c.options, options); d != "" || file != c.file {
			t.Errorf("%s: %q\n%s", c.name, file, d)
		}
	}
	l := newTape(t).bound(ovmfDiscover, ovmfRequest, reply{address: client.ip, next: server.ip, file: "ipxe.efi"})
	l.udp(client, 2000, server, 69, rrq("ipxe.efi\x00", "tsize", "0")).udp(server, 3000, client, 2000, oack("tsize", "1")).udp(client, 2000, server, 3000, tftpError(8, "no"))
	if f := l.report().Clients[0].Attempts[0].Fetches[0]; f.Outcome != Probe || f.Name != "ipxe.efi" {
		t.Errorf("%s: %s", f.Name, f.Outcome)
	}
}
