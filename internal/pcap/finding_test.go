package pcap

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv6"
)

const (
	direct = "\x06\x01\x08\xff" // option 43: a discovery control, take the file of this offer
	later  = 20 * time.Second
)

// TestFindings plays a conversation for every finding, and close to it one that must
// not be found wrong.
func TestFindings(t *testing.T) {
	bound := reply{address: client.ip, next: server.ip, file: "ipxe.efi"}
	pxe := func(r reply) reply { r.opts = append(r.opts, opt{60, "PXEClient"}, opt{43, direct}); return r }
	found := map[ID]bool{}
	for _, c := range []struct {
		name string
		play func(l *tape)
		want []ID
	}{
		{"nobody answers", func(l *tape) { l.says(ovmfDiscover).wait(4 * time.Second).says(ovmfDiscover).wait(later).arp(server) }, []ID{NoAnswer}},
		{"the capture ends too soon", func(l *tape) { l.says(ovmfDiscover).arp(server) }, nil},
		{"a pool is silent", func(l *tape) {
			other := l.fixture(ovmfDiscover)
			other[33] = 0x99
			l.udp(unbound, 68, everyone, 67, other).udp(server, 67, everyone, 68, reply{kind: offer, address: "192.168.77.60", file: "x.efi"}.bytes(server, other))
			other2 := l.fixture(ovmfRequest)
			other2[33] = 0x99
			l.udp(unbound, 68, everyone, 67, other2).udp(server, 67, everyone, 68, reply{kind: ack, address: "192.168.77.60", file: "x.efi"}.bytes(server, other2))
			l.says(ovmfDiscover).wait(4 * time.Second).says(ovmfDiscover).wait(4 * time.Second)
		}, []ID{PoolSilent}},
		{"only a proxy answers", func(l *tape) {
			l.says(ovmfDiscover).answer(server, ovmfDiscover, pxe(reply{kind: offer, next: server.ip, file: "ipxe.efi"})).wait(4 * time.Second).says(ovmfDiscover)
		}, []ID{NoAddress}},
		{"an offer without 54", func(l *tape) {
			l.says(ovmfDiscover).answer(server, ovmfDiscover, reply{kind: offer, address: client.ip, server: "-", file: "x.efi"}).wait(4 * time.Second).says(ovmfDiscover)
		}, []ID{OfferNoServerID}},
		{"an offer without END", func(l *tape) {
			l.says(ovmfDiscover).answer(server, ovmfDiscover, reply{kind: offer, address: client.ip, noEnd: true, file: "x.efi"}).wait(4 * time.Second).says(ovmfDiscover)
		}, []ID{OfferNoEnd}},
		{"an offer by unicast", func(l *tape) {
			l.says(ovmfDiscover).udp(server, 67, client, 68, reply{kind: offer, address: client.ip, file: "x.efi"}.bytes(server, l.fixture(ovmfDiscover))).wait(4 * time.Second).says(ovmfDiscover)
		}, []ID{OfferUnicast}},
		{"an offer on its way to a relay agent", func(l *tape) {
			l.says(ovmfDiscover).udp(server, 67, rival, 67, reply{kind: offer, address: client.ip, file: "x.efi"}.bytes(server, l.fixture(ovmfDiscover))).wait(4 * time.Second).says(ovmfDiscover)
		}, []ID{OfferIgnored}},
		{"iPXE hears unicast", func(l *tape) {
			l.says(ipxeDiscover).udp(server, 67, client, 68, reply{kind: offer, address: client.ip, file: "http://192.168.77.1/a"}.bytes(server, l.fixture(ipxeDiscover))).wait(4 * time.Second).says(ipxeDiscover)
		}, []ID{OfferIgnored}},
		{"HTTP Boot and an offer without its class", func(l *tape) {
			l.says(httpDiscover).answer(server, httpDiscover, reply{kind: offer, address: client.ip, file: "http://192.168.77.1/x.efi"}).wait(4 * time.Second).says(httpDiscover)
		}, []ID{OfferNoHTTP}},
		{"HTTP Boot and no URI", func(l *tape) {
			l.says(httpDiscover).answer(server, httpDiscover, reply{kind: offer, address: client.ip, opts: []opt{{60, "HTTPClient"}}}).wait(4 * time.Second).says(httpDiscover)
		}, []ID{OfferNoURI}},
		{"HTTP Boot and a name without name server", func(l *tape) {
			l.says(httpDiscover).answer(server, httpDiscover, reply{kind: offer, address: client.ip, opts: []opt{{60, "HTTPClient"}, {67, "http://boot.example/x.efi"}}}).wait(4 * time.Second).says(httpDiscover)
		}, []ID{OfferNoDNS}},
		{"an address and no boot file", func(l *tape) {
			l.says(ovmfDiscover).answer(server, ovmfDiscover, reply{kind: offer, address: client.ip}).wait(4 * time.Second).says(ovmfDiscover)
		}, []ID{OfferNoFile}},
		{"a good offer is ignored", func(l *tape) {
			l.says(ovmfDiscover).answer(server, ovmfDiscover, reply{kind: offer, address: client.ip, file: "x.efi"}).wait(4 * time.Second).says(ovmfDiscover)
		}, []ID{OfferIgnored}},
		{"two PXE servers", func(l *tape) {
			l.says(ovmfDiscover).answer(server, ovmfDiscover, pxe(reply{kind: offer, address: client.ip, file: "x.efi"}))
			l.answer(rival, ovmfDiscover, reply{kind: offer, next: rival.ip, file: "y.efi", opts: []opt{{60, "PXEClient"}}})
		}, []ID{TwoPXE}},
		{"one PXE server beside a plain one", func(l *tape) {
			l.says(ovmfDiscover).answer(server, ovmfDiscover, reply{kind: offer, address: client.ip}).answer(rival, ovmfDiscover, pxe(reply{kind: offer, next: rival.ip, file: "y.efi"}))
		}, nil},
		{"the rival wins", func(l *tape) {
			l.says(ovmfDiscover).answer(rival, ovmfDiscover, pxe(reply{kind: offer, address: "192.168.77.99", file: "y.efi"})).answer(server, ovmfDiscover, reply{kind: offer, address: client.ip, file: "x.efi"})
			l.says(ovmfRequest).answer(server, ovmfRequest, reply{kind: ack, address: client.ip, file: "x.efi"}) // asks 192.168.77.1
		}, []ID{OtherWon}},
		{"a proxy's file loses", func(l *tape) {
			l.says(ipxeDiscover).answer(server, ipxeDiscover, reply{kind: offer, address: client.ip, next: server.ip, file: "site.ipxe"})
			l.answer(rival, ipxeDiscover, pxe(reply{kind: offer, next: rival.ip, file: "http://192.168.77.2/boot"})).wait(time.Second)
			l.says(ipxeRequest).answer(server, ipxeRequest, reply{kind: ack, address: client.ip, next: server.ip, file: "site.ipxe"})
		}, []ID{ProxyLoses}},
		{"a proxy's file wins by priority", func(l *tape) {
			l.says(ipxeDiscover).answer(server, ipxeDiscover, reply{kind: offer, address: client.ip, next: server.ip, file: "site.ipxe"})
			l.answer(rival, ipxeDiscover, pxe(reply{kind: offer, next: rival.ip, file: "http://192.168.77.2/boot", opts: []opt{{175, "\x01\x01\x01"}}})).wait(time.Second)
			l.says(ipxeRequest).answer(server, ipxeRequest, reply{kind: ack, address: client.ip, next: server.ip, file: "site.ipxe"})
		}, nil},
		{"BINL and a silent port 4011", func(l *tape) {
			l.bound(ovmfDiscover, ovmfRequest, reply{address: client.ip, next: server.ip, file: "x.efi", opts: []opt{{60, "PXEClient"}}})
			l.udp(client, 4011, server, 4011, l.fixture(ovmf4011)).wait(time.Second).udp(client, 4011, server, 4011, l.fixture(ovmf4011))
		}, []ID{BINLWithout4011}},
		{"BINL and an answer", func(l *tape) {
			l.bound(ovmfDiscover, ovmfRequest, reply{address: client.ip, next: server.ip, file: "x.efi", opts: []opt{{60, "PXEClient"}}})
			l.udp(client, 4011, server, 4011, l.fixture(ovmf4011)).udp(server, 4011, client, 4011, reply{kind: ack, next: server.ip, file: "y.efi", opts: []opt{{60, "PXEClient"}}}.bytes(server, l.fixture(ovmf4011)))
			l.fetch(2000, "y.efi")
		}, nil},
		{"a NAK", func(l *tape) {
			l.says(ovmfDiscover).answer(server, ovmfDiscover, reply{kind: offer, address: client.ip, file: "x.efi"}).says(ovmfRequest).answer(server, ovmfRequest, reply{kind: nak, opts: []opt{{56, "not yours"}}})
		}, []ID{NAK}},
		{"a decline", func(l *tape) { l.bound(ovmfDiscover, ovmfRequest, bound).says(ovmfDecline).wait(later).arp(client) }, []ID{Decline}},
		{"a decline for want of a mask", func(l *tape) {
			r := bound
			r.noMask = true
			l.bound(ovmfDiscover, ovmfRequest, r).says(ovmfDecline).wait(later).arp(client)
		}, []ID{DeclineNoMask}},
		{"no ACK", func(l *tape) {
			l.says(ovmfDiscover).answer(server, ovmfDiscover, reply{kind: offer, address: client.ip, file: "x.efi"}).says(ovmfRequest).wait(4 * time.Second).says(ovmfRequest)
		}, []ID{RequestSilent}},
		{"a BIOS loader for UEFI", func(l *tape) {
			l.bound(ovmfDiscover, ovmfRequest, reply{address: client.ip, next: server.ip, file: "undionly.kpxe"}).fetch(2000, "undionly.kpxe")
		}, []ID{WrongArch}},
		{"ARM64 for x64", func(l *tape) {
			l.bound(ovmfDiscover, ovmfRequest, reply{address: client.ip, next: server.ip, file: "snponly-arm64.efi"}).fetch(2000, "snponly-arm64.efi")
		}, []ID{WrongArch}},
		{"a loader nobody fetches", func(l *tape) { l.bound(ovmfDiscover, ovmfRequest, bound).wait(later).arp(client) }, []ID{LoaderNotFetched}},
		{"nothing but DHCP was recorded", func(l *tape) {
			l.says(ovmfDiscover).answer(server, ovmfDiscover, reply{kind: offer, address: client.ip, file: "x.efi"}).says(ovmfRequest).answer(server, ovmfRequest, reply{kind: ack, address: client.ip, file: "x.efi"}).wait(later)
			other := l.fixture(ovmfDiscover)
			other[33] = 0x99
			l.udp(unbound, 68, everyone, 67, other)
		}, nil},
		{"a URI nobody fetches", func(l *tape) {
			l.bound(httpDiscover, httpRequest, reply{address: client.ip, opts: []opt{{60, "HTTPClient"}, {67, "http://192.168.77.1/x.efi"}}}).wait(later).arp(client)
		}, []ID{HTTPNotFetched}},
	} {
		t.Run(c.name, func(t *testing.T) {
			expect(t, c.play, c.want, found)
		})
	}
	for _, c := range fetches(bound) {
		t.Run(c.name, func(t *testing.T) { expect(t, c.play, c.want, found) })
	}
	for _, k := range kinds() {
		if !found[k.id] || k.why == "" || k.next == "" {
			t.Errorf("the finding %s is shown by no conversation, or has no text", k.id)
		}
	}
}

type conversation struct {
	name string
	play func(l *tape)
	want []ID
}

// fetches are conversations that come as far as a file.
func fetches(bound reply) []conversation {
	http := reply{address: client.ip, opts: []opt{{60, "HTTPClient"}, {67, "http://192.168.77.1/x.efi"}}}
	get := func(l *tape, answer string) {
		l.bound(httpDiscover, httpRequest, http).tcp(client, 1000, server, 80, "S", "").tcp(server, 80, client, 1000, "SA", "")
		l.tcp(client, 1000, server, 80, "A", "GET /x.efi HTTP/1.1\r\nUser-Agent: UefiHttpBoot/1.0\r\n\r\n")
		if answer != "" {
			l.tcp(server, 80, client, 1000, "A", answer)
		}
		l.wait(later).arp(client)
	}
	return []conversation{
		{"HTTP is fetched", func(l *tape) { get(l, "HTTP/1.1 200 OK\r\n\r\n") }, nil},
		{"HTTP HEAD, and GET on the same connection", func(l *tape) {
			l.bound(httpDiscover, httpRequest, http).tcp(client, 1000, server, 80, "S", "").tcp(server, 80, client, 1000, "SA", "")
			l.tcp(client, 1000, server, 80, "A", "HEAD /x.efi HTTP/1.1\r\n\r\n").tcp(server, 80, client, 1000, "A", "HTTP/1.1 200 OK\r\n\r\n")
			l.tcp(client, 1000, server, 80, "A", "GET /x.efi HTTP/1.1\r\n\r\n").tcp(server, 80, client, 1000, "A", "HTTP/1.1 404 Not Found\r\n\r\n")
			l.wait(later).arp(client)
		}, []ID{HTTPError}},
		{"HTTP 404", func(l *tape) { get(l, "HTTP/1.1 404 Not Found\r\n\r\n") }, []ID{HTTPError}},
		{"HTTP 403", func(l *tape) { get(l, "HTTP/1.1 403 Forbidden\r\nServer: x\r\n\r\nno such luck\n") }, []ID{HTTPRefused}},
		{"HTTP 403 without a word", func(l *tape) { get(l, "HTTP/1.1 403 Forbidden\r\n\r\n") }, []ID{HTTPRefused}},
		{"HTTP 403 by the lane's rules", func(l *tape) {
			get(l, "HTTP/1.1 403 Forbidden\r\n\r\nlocal-boot: host-installed: n1 is installed\n")
		}, nil},
		{"HTTP 500", func(l *tape) { get(l, "HTTP/1.1 500 Oops\r\n\r\nlocal-boot: no\n") }, []ID{HTTPError}},
		{"HTTP 302", func(l *tape) { get(l, "HTTP/1.1 302 Found\r\n\r\n") }, []ID{HTTPRedirect}},
		{"HTTP is silent", func(l *tape) { get(l, "") }, []ID{HTTPNoAnswer}},
		{"no HTTP server", func(l *tape) {
			l.bound(httpDiscover, httpRequest, http).tcp(client, 1000, server, 80, "S", "").wait(later).tcp(client, 1000, server, 80, "S", "")
		}, []ID{HTTPNoAnswer}},
		{"TFTP is silent", func(l *tape) {
			l.bound(ovmfDiscover, ovmfRequest, bound).udp(client, 2000, server, 69, rrq("ipxe.efi")).wait(4*time.Second).udp(client, 2000, server, 69, rrq("ipxe.efi"))
		}, []ID{TFTPNoAnswer}},
		{"the size is asked, then the file", func(l *tape) {
			l.bound(ovmfDiscover, ovmfRequest, bound).udp(client, 1999, server, 69, rrq("ipxe.efi", "tsize", "0")).udp(server, 3999, client, 1999, oack("tsize", "100")).udp(client, 1999, server, 3999, tftpError(8, "User aborted the transfer"))
			l.fetch(2000, "ipxe.efi")
		}, nil},
		{"a window as one datagram", func(l *tape) {
			l.bound(ovmfDiscover, ovmfRequest, bound).udp(client, 2000, server, 69, rrq("ipxe.efi", "blksize", "512", "windowsize", "4")).udp(server, 3000, client, 2000, oack("blksize", "512", "windowsize", "4"))
			l.udp(client, 2000, server, 3000, []byte{0, 4, 0, 0}).udp(server, 3000, client, 2000, append([]byte{0, 3, 0, 1}, make([]byte, 3*516+100)...)).udp(client, 2000, server, 3000, []byte{0, 4, 0, 4}).wait(later).arp(client)
		}, nil},
		{"an OACK without tsize", func(l *tape) {
			l.bound(ovmfDiscover, ovmfRequest, bound).udp(client, 2000, server, 69, rrq("ipxe.efi", "tsize", "0", "blksize", "1468")).udp(server, 3000, client, 2000, oack("blksize", "1468")).udp(client, 2000, server, 3000, tftpError(8, "User aborted the transfer"))
		}, []ID{TFTPBadOACK}},
		{"an OACK with more than was asked", func(l *tape) {
			l.bound(ovmfDiscover, ovmfRequest, bound).udp(client, 2000, server, 69, rrq("ipxe.efi", "blksize", "1468")).udp(server, 3000, client, 2000, oack("blksize", "9000")).udp(client, 2000, server, 3000, tftpError(8, "no"))
		}, []ID{TFTPBadOACK}},
		{"no such file", func(l *tape) {
			l.bound(ovmfDiscover, ovmfRequest, bound).udp(client, 2000, server, 69, rrq("ipxe.efi")).udp(server, 3000, client, 2000, tftpError(1, "no such file"))
		}, []ID{TFTPNotFound}},
		{"no such file, and it need not be there", func(l *tape) {
			l.bound(ovmfDiscover, ovmfRequest, bound).fetch(2001, "ipxe.efi").udp(client, 2000, server, 69, rrq("revocations.efi")).udp(server, 3000, client, 2000, tftpError(1, "no such file"))
		}, nil},
		{"access violation", func(l *tape) {
			l.bound(ovmfDiscover, ovmfRequest, bound).udp(client, 2000, server, 69, rrq("ipxe.efi")).udp(server, 3000, client, 2000, tftpError(2, "access violation"))
		}, []ID{TFTPRefused}},
		{"the client aborts", func(l *tape) {
			l.bound(ovmfDiscover, ovmfRequest, bound).udp(client, 2000, server, 69, rrq("ipxe.efi")).udp(server, 3000, client, 2000, data(1, 512)).udp(client, 2000, server, 3000, tftpError(3, "disk full"))
		}, []ID{TFTPAborted}},
		{"the transfer stalls", func(l *tape) {
			l.bound(ovmfDiscover, ovmfRequest, bound).udp(client, 2000, server, 69, rrq("ipxe.efi")).udp(server, 3000, client, 2000, data(1, 512)).wait(time.Second).udp(server, 3000, client, 2000, data(1, 512)).wait(later).arp(client)
		}, []ID{TFTPStalled}},
		{"the loader loads itself", func(l *tape) {
			l.bound(ovmfDiscover, ovmfRequest, bound).fetch(2000, "ipxe.efi").wait(3*time.Second).bound(ipxeDiscover, ipxeRequest, bound)
		}, []ID{LoaderLoop}},
		{"the loader is fetched three times", func(l *tape) {
			for i := range uint16(3) {
				l.bound(ovmfDiscover, ovmfRequest, bound).fetch(2000+i, "ipxe.efi").wait(3 * time.Second)
			}
		}, []ID{LoaderLoop}},
		{"the loader is fetched every hour", func(l *tape) {
			for i := range uint16(3) {
				l.bound(ovmfDiscover, ovmfRequest, bound).fetch(2000+i, "ipxe.efi").wait(time.Hour)
			}
			l.bound(ipxeDiscover, ipxeRequest, reply{address: client.ip, next: server.ip, file: "http://192.168.77.1/boot"})
		}, nil},
		{"the loader says nothing", func(l *tape) {
			l.bound(ovmfDiscover, ovmfRequest, bound).fetch(2000, "ipxe.efi").wait(time.Minute).arp(server)
		}, []ID{LoaderSilent}},
		{"shim by option 67 only, without siaddr", func(l *tape) {
			l.bound(ovmfDiscover, ovmfRequest, reply{address: client.ip, opts: []opt{{67, "boot/shimx64.efi"}}}).fetch(2000, "boot/shimx64.efi")
		}, []ID{ShimNoFile, ShimNoServer}},
		{"shim as it should be", func(l *tape) {
			l.bound(ovmfDiscover, ovmfRequest, reply{address: client.ip, next: server.ip, file: "boot/shimx64.efi"}).fetch(2000, "boot/shimx64.efi")
		}, nil},
		{"DHCPv6 with what EDK2 must not see", func(l *tape) {
			ask := l.fixture("dhcp6-pxe-solicit")
			l.udp(client6, 546, server6, 547, ask).udp(server6, 547, client6, 546, advertise(l, ask))
		}, []ID{V6BINL, V6Params}},
		{"DHCPv6 without the class HTTP Boot needs", func(l *tape) {
			ask := l.fixture("dhcp6-http-solicit")
			l.udp(client6, 546, server6, 547, ask).udp(server6, 547, client6, 546, advertise(l, ask))
		}, []ID{OfferNoHTTP}},
		{"two machines have one address", func(l *tape) {
			l.arp(server).arp(host{rival.mac, server.ip}).arp(server)
		}, []ID{AddressConflict}},
	}
}

// advertise answers a SOLICIT with vendor class PXEClient and boot parameters.
func advertise(l *tape, ask []byte) []byte {
	m, err := dhcpv6.MessageFromBytes(ask)
	l.must(err)
	a, err := dhcpv6.NewAdvertiseFromSolicit(m,
		dhcpv6.WithServerID(&dhcpv6.DUIDUUID{UUID: [16]byte{1}}),
		dhcpv6.WithIANA(dhcpv6.OptIAAddress{IPv6Addr: netip.MustParseAddr("fd77::50").AsSlice()}),
		dhcpv6.WithOption(dhcpv6.OptBootFileURL("tftp://[fd77::1]/x.efi")),
		dhcpv6.WithOption(dhcpv6.OptBootFileParam("x")),
		dhcpv6.WithOption(&dhcpv6.OptVendorClass{EnterpriseNumber: 343, Data: [][]byte{[]byte("PXEClient")}}))
	l.must(err)
	return a.ToBytes()
}

func expect(t *testing.T, play func(l *tape), want []ID, found map[ID]bool) {
	t.Helper()
	l := newTape(t)
	play(l)
	r := l.report()
	got := r.ids()
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
		r.Text(t.Output())
	}
	for _, id := range got {
		found[id] = true
	}
}

// TestOutcome: an abort after an OACK that firmware cannot accept is no mere question
// for the size.
func TestOutcome(t *testing.T) {
	for size, want := range map[string]Outcome{"tsize": Probe, "rollover": Aborted} {
		l := newTape(t).bound(ovmfDiscover, ovmfRequest, reply{address: client.ip, next: server.ip, file: "ipxe.efi"})
		l.udp(client, 2000, server, 69, rrq("ipxe.efi", "tsize", "0")).udp(server, 3000, client, 2000, oack(size, "1")).udp(client, 2000, server, 3000, tftpError(8, "User aborted the transfer"))
		if got := l.report().Clients[0].Attempts[0].Fetches[0].Outcome; got != want {
			t.Errorf("OACK with %s: %s, want %s", size, got, want)
		}
	}
}

// TestRefusedByTheServer: what a server says with its 403 is told, whatever packets it comes in.
func TestRefusedByTheServer(t *testing.T) {
	for name, answer := range map[string][]string{
		"one packet":  {"HTTP/1.1 403 Forbidden\r\nContent-Length: 60\r\n\r\nbundle-refused: sys-1 is revoked\nand more\n"},
		"two packets": {"HTTP/1.1 403 Forbidden\r\nContent-Length: 60\r\n\r\n", "bundle-refused: sys-1 is revoked\n"},
		"two headers": {"HTTP/1.1 403 Forbidden\r\nContent-Length: 60\r\n", "X: y\r\n\r\nbundle-refused: sys-1 is revoked\n"},
	} {
		l := newTape(t).bound(httpDiscover, httpRequest, reply{address: client.ip, opts: []opt{{60, "HTTPClient"}, {67, "http://192.168.77.1/x.efi"}}})
		l.tcp(client, 1000, server, 80, "S", "").tcp(server, 80, client, 1000, "SA", "").tcp(client, 1000, server, 80, "A", "GET /x.efi HTTP/1.1\r\n\r\n")
		for _, a := range answer {
			l.tcp(server, 80, client, 1000, "A", a)
		}
		r := l.report()
		f := r.Clients[0].Attempts[0].Fetches[0]
		if got, want := f.String(), "http GET /x.efi from 192.168.77.1: refused by the server, 403 Forbidden: bundle-refused: sys-1 is revoked"; got != want || len(r.ids()) > 0 {
			t.Errorf("%s: %s, found %v", name, got, r.ids())
		}
	}
}

// TestOwnProbe: who asks on behalf of a Bootlane server is no machine, and nothing is wrong with it.
func TestOwnProbe(t *testing.T) {
	l := newTape(t)
	for i, pxe := range []bool{false, true} {
		frame, err := Discover("02:00:00:00:00:01", "06:11:22:33:44:55", uint32(7+i), pxe)
		l.must(err)
		l.recs = append(l.recs, Record{At: l.now, Frame: frame})
		l.wait(time.Second)
	}
	l.says(ovmfDiscover).wait(4 * time.Second).says(ovmfDiscover).wait(later).arp(server)
	r := l.report()
	if len(r.Clients) != 2 || !r.Clients[0].Probe || len(r.Clients[0].Findings) > 0 || r.Clients[1].Probe {
		t.Fatalf("%+v", r.Clients)
	}
	var text strings.Builder
	r.Text(&text)
	if !strings.Contains(text.String(), "1 client, 1 probe") || !strings.Contains(text.String(), "06:11:22:33:44:55  a probe of Bootlane's: no machine") {
		t.Error(text.String())
	}
}
