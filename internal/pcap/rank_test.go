package pcap

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestRank compares which offer the firmware takes, for every class that can win.
func TestRank(t *testing.T) {
	plain := reply{kind: offer, address: client.ip}
	named := reply{kind: offer, address: client.ip, next: server.ip, file: "site.efi"}
	with := func(r reply, opts ...opt) reply { r.opts = opts; return r }
	class, control := opt{60, "PXEClient"}, opt{43, direct}
	proxy := reply{kind: offer, next: rival.ip, file: "proxy.efi"}
	type choice struct {
		Takes, Boots int // packets: the DISCOVER is 1, the offers 2 and 3
		File         string
		Asks         string
	}
	for _, c := range []struct {
		name  string
		asks  string
		first reply
		next  reply
		want  choice
	}{
		{"PXE10 above everything", ovmfDiscover, named, with(plain, class, control), choice{Takes: 3, Boots: 3}},
		{"a proxy's PXE10 above a plain boot file", ovmfDiscover, named, with(proxy, class, control), choice{Takes: 2, Boots: 3, File: "proxy.efi"}},
		{"BINL above a plain boot file", ovmfDiscover, named, with(named, class), choice{Takes: 3, Boots: 3, Asks: rival.ip}},
		{"a proxy's PXE10 above BINL", ovmfDiscover, named, with(proxy, class, control), choice{Takes: 2, Boots: 3, File: "proxy.efi"}},
		{"a proxy's BINL above a plain boot file", ovmfDiscover, named, with(proxy, class), choice{Takes: 2, Boots: 3, Asks: rival.ip}},
		{"the first plain boot file", ovmfDiscover, plain, named, choice{Takes: 3, Boots: 3, File: "site.efi"}},
		{"nothing to boot", ovmfDiscover, plain, plain, choice{}},
		{"a proxy and no address", ovmfDiscover, with(proxy, class, control), with(proxy, class), choice{}},
		{"multicast only", ovmfDiscover, with(named, class, opt{43, "\x01\x04\xe0\x00\x01\x02\xff"}), plain, choice{}},
		{"iPXE takes the last", ipxeDiscover, named, named, choice{Takes: 3, Boots: 3, File: "site.efi"}},
		{"iPXE takes the higher priority", ipxeDiscover, with(named, opt{175, "\x01\x01\x05"}), named, choice{Takes: 2, Boots: 2, File: "site.efi"}},
		{"iPXE: the site's file", ipxeDiscover, named, with(proxy, class, control), choice{Takes: 2, Boots: 2, File: "site.efi"}},
		{"iPXE: the proxy by priority", ipxeDiscover, named, with(proxy, class, control, opt{175, "\x01\x01\x01"}), choice{Takes: 2, Boots: 3, File: "proxy.efi"}},
		{"iPXE: the only file", ipxeDiscover, plain, with(proxy, class, control), choice{Takes: 2, Boots: 3, File: "proxy.efi"}},
		{"iPXE: a proxy without file", ipxeDiscover, plain, with(reply{kind: offer, next: rival.ip}, class), choice{Takes: 2, Boots: 3, Asks: rival.ip}},
		{"HTTP: its own URI", httpDiscover, plain, with(plain, opt{60, "HTTPClient"}, opt{67, "http://192.168.77.1/a.efi"}), choice{Takes: 3, Boots: 3, File: "http://192.168.77.1/a.efi"}},
		{"HTTP: a proxy's URI", httpDiscover, plain, with(reply{kind: offer}, opt{60, "HTTPClient"}, opt{67, "http://192.168.77.2/a.efi"}), choice{Takes: 2, Boots: 3, File: "http://192.168.77.2/a.efi"}},
		{"HTTP: a proxy's name", httpDiscover, plain, with(reply{kind: offer}, opt{60, "HTTPClient"}, opt{67, "http://boot/a.efi"}), choice{}},
		{"HTTP: a proxy's name, and a name server", httpDiscover, with(plain, opt{6, "\x0a\x00\x00\x01"}), with(reply{kind: offer}, opt{60, "HTTPClient"}, opt{67, "http://boot/a.efi"}), choice{Takes: 2, Boots: 3, File: "http://boot/a.efi"}},
		{"HTTP: an address above a name", httpDiscover, with(plain, opt{6, "\x0a\x00\x00\x01"}, opt{60, "HTTPClient"}, opt{67, "http://boot/a.efi"}), with(plain, opt{60, "HTTPClient"}, opt{67, "http://[fd00::1]:80/a.efi"}), choice{Takes: 3, Boots: 3, File: "http://[fd00::1]:80/a.efi"}},
		{"BIOS firmware", biosDiscover, named, plain, choice{Takes: 3, Boots: 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newTape(t)
			// iPXE's sequence of offers is that of their arrival; EDK2 looks at their class.
			r := c.next
			if r.next == server.ip {
				r.next = rival.ip
			}
			l.says(c.asks).answer(server, c.asks, c.first).answer(rival, c.asks, r).wait(time.Second)
			a := l.report().Clients[0].Attempts[0]
			got := choice{a.Choice.Takes, a.Choice.Boots, a.Choice.BootFile, addrText(a.Choice.Asks)}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s\n%+v", diff, a.Choice)
			}
		})
	}
}

// TestCannotTell: no rule of ours says which offer a plain client, or an unknown BIOS
// ROM, takes.
func TestCannotTell(t *testing.T) {
	o := func(n int) Message { return Message{Packet: n, Version: 4, Kind: "OFFER"} }
	for _, s := range []Speaker{System, BIOSPXE} {
		if c := choose(s, Message{}, []Message{o(1), o(2)}); c.Takes != 0 || c.Why[:len(CannotTell)] != CannotTell {
			t.Errorf("%s: %+v", s, c)
		}
		if c := choose(s, Message{}, []Message{o(1)}); c.Takes != 1 {
			t.Errorf("%s takes not its only offer: %+v", s, c)
		}
	}
}
