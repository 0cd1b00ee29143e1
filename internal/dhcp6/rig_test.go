package dhcp6

import (
	"bytes"
	"context"
	"encoding/hex"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"bootlane/internal/lane"
	"bootlane/internal/store"
	"bootlane/internal/store/sqlite"
	"bootlane/internal/store/storetest"
)

// serverDUID is the one of the server in the captures, so that they speak to us.
func serverDUID() []byte { return []byte{0, 3, 0, 1, 0xc6, 0x56, 0xe8, 0xcc, 0xe8, 0xdc} }

// capture returns the UDP payload of a packet that real firmware sent to that server.
func capture(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Replace(b, []byte{0, 3, 0, 1, 0x46, 0xaf, 0xb1, 0x36, 0x18, 0x49}, serverDUID(), 1) // another run's
}

// firmware is the link-local address from which the captured machine spoke, of its MAC.
const firmware, firmwareMAC = "fe80::5054:ff:fe12:3456", lane.MAC("52:54:00:12:34:56")

func network() Network {
	return Network{Interface: "test", Subnet: lane.Subnet{Server: netip.MustParseAddr("fd77::1"), Prefix: netip.MustParsePrefix("fd77::/64"), DNS: addrs("fd77::35", "fd77::36"), NTP: addrs("fd77::123")},
		First: netip.MustParseAddr("fd77::50"), Last: netip.MustParseAddr("fd77::53"), Domain: "lab.example", Lease: time.Hour,
		HTTPBase: "http://[fd77::1]:8080", TLSBase: "https://[fd77::1]:8443", HoldScreen: true, FastLocalBoot: true,
		Loaders: map[lane.Platform][]string{{Arch: lane.X86_64, Firmware: lane.UEFI}: {"snponly.efi", "ipxe.efi"}}}
}

func addrs(s ...string) (out []netip.Addr) {
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// rig is a server without a socket, on a real store and a clock that tests move.
type rig struct {
	*Server
	t        *testing.T
	networks []Network
	now      time.Time
	store    *store.Store
	stop     func()
	decision lane.Decision
	askErr   error
	asked    []lane.Facts
	reserved map[lane.MAC]netip.Addr
	byUUID   map[lane.UUID]netip.Addr
	notes    []string
	mu       sync.Mutex
}

func (r *rig) Ask(_ context.Context, f lane.Facts) (lane.Decision, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, f)
	return r.decision, r.askErr
}

func (r *rig) Reserved6(_ context.Context, f lane.Facts) (netip.Addr, []lane.MAC, error) {
	if f.MAC == "" {
		return r.byUUID[f.UUID], nil, nil
	}
	var nics []lane.MAC // one host's are those with the same reservation
	for other, a := range r.reserved {
		if a == r.reserved[f.MAC] {
			nics = append(nics, other)
		}
	}
	return r.reserved[f.MAC], nics, nil
}

func (r *rig) Holder6(_ context.Context, a netip.Addr) (bool, error) {
	for _, v := range r.reserved {
		if v == a {
			return true, nil
		}
	}
	return false, nil
}

func (r *rig) NoLease(f lane.Facts, message, text string) { r.Lease(f, message, text) }

func (r *rig) Lease(_ lane.Facts, _, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, text)
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, now: noon, reserved: map[lane.MAC]netip.Addr{}, byUUID: map[lane.UUID]netip.Addr{}, networks: []Network{network()}, decision: lane.Decision{Action: lane.Install}}
	e, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	r.store, r.stop = storetest.Start(t, e, func() time.Time { return r.now })
	r.restart()
	return r
}

// restart makes a new server from what is stored, as after a crash.
func (r *rig) restart() {
	leases, err := r.store.Leases6(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	r.Server = &Server{cfg: Config{Networks: r.networks, DUID: serverDUID(), Asker: r, Leases: r.store, Reservations: r, Evidence: r, Now: func() time.Time { return r.now }, Log: slog.New(slog.DiscardHandler)}}
	for _, n := range r.networks {
		r.scopes = append(r.scopes, newScope(n, leases))
	}
}

// say sends one message by multicast and returns the reply; nil when the server is silent.
func (r *rig) say(b []byte, from string) *dhcpv6.Message {
	r.t.Helper()
	p, _ := r.pass(b, from, false)
	if p == nil {
		return nil
	}
	return p.(*dhcpv6.Message)
}

// pass sends whatever message, and returns the reply as the codec reads it, and where it goes.
func (r *rig) pass(b []byte, from string, unicast bool) (dhcpv6.DHCPv6, netip.AddrPort) {
	r.t.Helper()
	q, err := parse(b, netip.AddrPortFrom(netip.MustParseAddr(from), clientPort))
	if err != nil {
		r.t.Fatal(err)
	}
	q.iface, q.unicast = "test", unicast
	a, err := r.handle(r.t.Context(), q)
	if err != nil || a.kind == 0 {
		return nil, netip.AddrPort{}
	}
	p, err := dhcpv6.FromBytes(a.marshal(q))
	if err != nil {
		r.t.Fatal(err)
	}
	return p, destination(q)
}

// client is a machine that a test invents.
type client struct {
	duid []byte
	from string
	more []byte // options that it always sends
}

// nth is a client with the n-th MAC.
func nth(n byte) client {
	return client{duid: []byte{0, 2, 0, 0, 0xab, 0x11, n}, from: netip.AddrFrom16([16]byte{0xfe, 0x80, 8: 0x50, 9: 0x54, 11: 0xff, 12: 0xfe, 15: n}).String()}
}

func (c client) mac() lane.MAC { return macOf(netip.MustParseAddr(c.from)) }

const (
	solicit     = dhcpv6.MessageTypeSolicit
	advertise   = dhcpv6.MessageTypeAdvertise
	request     = dhcpv6.MessageTypeRequest
	replying    = dhcpv6.MessageTypeReply
	renew       = dhcpv6.MessageTypeRenew
	rebind      = dhcpv6.MessageTypeRebind
	confirm     = dhcpv6.MessageTypeConfirm
	release     = dhcpv6.MessageTypeRelease
	decline     = dhcpv6.MessageTypeDecline
	information = dhcpv6.MessageTypeInformationRequest
)

// build makes a message of a client. Those that must name the server do.
func (c client) build(kind dhcpv6.MessageType, more ...[]byte) []byte {
	w := writer{byte(kind), 1, 2, 3}
	w.add(dhcpv6.OptionClientID, c.duid)
	switch kind {
	case request, renew, release, decline:
		w.add(dhcpv6.OptionServerID, serverDUID())
	}
	w = append(w, c.more...)
	for _, m := range more {
		w = append(w, m...)
	}
	return w
}

// opt is one option.
func opt(code dhcpv6.OptionCode, data ...byte) []byte {
	var w writer
	w.add(code, data)
	return w
}

// na is an IA_NA that names addresses.
func na(id byte, named ...string) []byte {
	var inner writer
	for _, a := range named {
		inner.address(netip.MustParseAddr(a), 0)
	}
	var w writer
	w.add(dhcpv6.OptionIANA, []byte{0, 0, 0, id}, make([]byte, 8), inner)
	return w
}

// answered says in short what a reply holds: its kind, and of each IA_NA its addresses
// with their time in seconds, or its status; then the status of all.
func answered(p *dhcpv6.Message) string {
	if p == nil {
		return "silence"
	}
	out := []string{p.MessageType.String()}
	for _, ia := range p.Options.IANA() {
		var in []string
		for _, a := range ia.Options.Addresses() {
			in = append(in, a.IPv6Addr.String()+"/"+a.ValidLifetime.String())
		}
		if s := ia.Options.Status(); s != nil {
			in = append(in, s.StatusCode.String())
		}
		out = append(out, strings.Join(in, "+"))
	}
	if s := p.Options.Status(); s != nil {
		out = append(out, s.StatusCode.String())
	}
	return strings.Join(out, " ")
}

func (r *rig) expect(c client, b []byte, want string) {
	r.t.Helper()
	if got := answered(r.say(b, c.from)); got != want {
		r.t.Errorf("%q, want %q", got, want)
	}
}

// bind takes a client through SOLICIT and REQUEST.
func (r *rig) bind(c client, address string) {
	r.t.Helper()
	r.expect(c, c.build(solicit, na(1)), "ADVERTISE "+address+"/1h0m0s")
	r.expect(c, c.build(request, na(1, address)), "REPLY "+address+"/1h0m0s")
}
