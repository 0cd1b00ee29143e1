package dhcp

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootlane/internal/lane"
	"bootlane/internal/store"
	"bootlane/internal/store/sqlite"
	"bootlane/internal/store/storetest"
)

// rig is a server without a socket, on a real store and a clock that tests move.
type rig struct {
	*Server
	*scope   // the first network's
	t        *testing.T
	networks []Network
	now      time.Time
	store    *store.Store
	stop     func()
	decision lane.Decision
	askErr   error
	asked    []lane.Facts
	reserved map[lane.MAC]netip.Addr
	notes    []string
	mu       sync.Mutex
}

func (r *rig) Ask(_ context.Context, f lane.Facts) (lane.Decision, error) {
	r.asked = append(r.asked, f)
	return r.decision, r.askErr
}

func (r *rig) Reserved(_ context.Context, m lane.MAC) (netip.Addr, []lane.MAC, error) {
	var nics []lane.MAC // one host's are those with the same reservation
	for other, a := range r.reserved {
		if a == r.reserved[m] {
			nics = append(nics, other)
		}
	}
	return r.reserved[m], nics, nil
}

func (r *rig) Holder(_ context.Context, a netip.Addr) (bool, error) {
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

func newRig(t *testing.T) *rig { return newRigIn(t, t.TempDir()) }

// newRigIn makes a rig with its database in dir.
func newRigIn(t *testing.T, dir string) *rig {
	r := &rig{t: t, now: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC), reserved: map[lane.MAC]netip.Addr{}, networks: []Network{network()}}
	e, err := sqlite.Open(t.Context(), filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	r.store, r.stop = storetest.Start(t, e, func() time.Time { return r.now })
	r.restart()
	return r
}

// restart makes a new server from what is stored, as after a crash.
func (r *rig) restart() {
	leases, err := r.store.Leases(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	r.serve(Config{Networks: r.networks, Asker: r, Leases: r.store, Reservations: r, Evidence: r, Now: func() time.Time { return r.now }, Log: slog.New(slog.DiscardHandler)}, leases)
}

// serve makes the server as New does, but for its sockets.
func (r *rig) serve(cfg Config, leases []lane.Lease) {
	r.Server = &Server{cfg: cfg, addresses: addrList("192.168.77.1", "192.168.77.2")}
	for _, n := range cfg.Networks {
		r.scopes = append(r.scopes, newScope(n, leases, cfg.Now))
	}
	r.scope = r.scopes[0]
}

// say sends one message and returns the reply; nil when the server is silent.
func (r *rig) say(b []byte) *dhcpv4.DHCPv4 {
	r.t.Helper()
	q, err := parse(b)
	if err != nil {
		r.t.Fatal(err)
	}
	q.iface, q.unicast = "test", !q.ciaddr.IsUnspecified()
	a, err := r.handle(r.t.Context(), q)
	if err != nil || a.kind == 0 {
		return nil
	}
	out := a.msg.marshal(q)
	rules(r.t, q, out)
	p, err := dhcpv4.FromBytes(out)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *rig) expect(p *dhcpv4.DHCPv4, kind dhcpv4.MessageType, address string) {
	r.t.Helper()
	switch {
	case p == nil && kind == 0:
	case p == nil:
		r.t.Errorf("silence, want %s", kind)
	case p.MessageType() != kind:
		r.t.Errorf("%s %s, want %s", p.MessageType(), p.YourIPAddr, kind)
	case kind != dhcpv4.MessageTypeNak && p.YourIPAddr.String() != address:
		r.t.Errorf("address %s, want %s", p.YourIPAddr, address)
	}
}

const (
	discover = byte(dhcpv4.MessageTypeDiscover)
	request  = byte(dhcpv4.MessageTypeRequest)
	decline  = byte(dhcpv4.MessageTypeDecline)
	release  = byte(dhcpv4.MessageTypeRelease)
	inform   = byte(dhcpv4.MessageTypeInform)
	offering = dhcpv4.MessageTypeOffer
	ack      = dhcpv4.MessageTypeAck
	nak      = dhcpv4.MessageTypeNak
)

func ip(code byte, a string) []byte {
	return append([]byte{code, 4}, netip.MustParseAddr(a).AsSlice()...)
}

func selecting(mac lane.MAC, address, server string) []byte {
	return build(request, mac, nil, append(ip(50, address), ip(54, server)...)...)
}

func ciaddr(a string) func([]byte) {
	return func(b []byte) { copy(b[12:], netip.MustParseAddr(a).AsSlice()) }
}

func mac(n byte) lane.MAC {
	m, err := lane.MACFromBytes([]byte{0x52, 0x54, 0, 0, 0, n})
	if err != nil {
		panic(err)
	}
	return m
}

// bind takes a client through DISCOVER and REQUEST.
func (r *rig) bind(m lane.MAC) string {
	r.t.Helper()
	p := r.say(build(discover, m, nil))
	if p == nil {
		r.t.Fatalf("%s got no offer", m)
	}
	a := p.YourIPAddr.String()
	r.expect(r.say(selecting(m, a, "192.168.77.1")), ack, a)
	return a
}

func TestExchange(t *testing.T) {
	r := newRig(t)
	first := r.say(build(discover, mac(1), nil))
	r.expect(first, offering, "192.168.77.100")
	for range 3 { // D4-04: repetitions get the same address
		r.expect(r.say(build(discover, mac(1), nil)), offering, "192.168.77.100")
	}
	r.expect(r.say(build(discover, mac(2), nil)), offering, "192.168.77.101") // D4-05: same xid, other client
	p := r.say(selecting(mac(1), "192.168.77.100", "192.168.77.1"))
	r.expect(p, ack, "192.168.77.100")
	if got := p.IPAddressLeaseTime(0); got != time.Hour {
		t.Errorf("lease time %s", got)
	}
	if p.Options.Has(dhcpv4.OptionClassIdentifier) || p.Options.Has(dhcpv4.OptionBootfileName) || p.BootFileName != "" {
		t.Error("D4-54: an operating system gets boot fields")
	}
	if len(r.asked) != 0 {
		t.Error("a plain client is a question about booting")
	}
}

func TestPoolRunsDry(t *testing.T) {
	r := newRig(t)
	for n := range byte(4) {
		r.bind(mac(n + 1))
	}
	var log strings.Builder
	r.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	r.expect(r.say(build(discover, mac(9), nil)), 0, "") // D4-09
	r.expect(r.say(build(discover, mac(10), nil)), 0, "")
	if strings.Count(log.String(), "no address is free") != 1 { // and not once for every packet of a storm
		t.Errorf("log: %s", &log)
	}
	if len(r.notes) == 0 || !strings.HasPrefix(r.notes[len(r.notes)-1], "no address of 192.168.77.0/24 is free for it") {
		t.Errorf("notes: %v", r.notes)
	}
	r.now = r.now.Add(2 * time.Hour)
	p := r.say(build(discover, mac(2), nil)) // D4-08: its old address, although all have expired
	r.expect(p, offering, "192.168.77.101")
	if r.say(build(discover, mac(9), nil)) == nil {
		t.Error("an expired address is not given again")
	}
}

func TestRequestStates(t *testing.T) {
	r := newRig(t)
	a := r.bind(mac(1))
	unicast := func(m lane.MAC, a string) []byte { return build(request, m, ciaddr(a)) }
	for _, c := range []struct {
		name string
		msg  []byte
		want dhcpv4.MessageType
		addr string
	}{
		{"D4-15 our second address", append([]byte(nil), selecting(mac(1), a, "192.168.77.2")...), ack, a},
		{"D4-18 INIT-REBOOT, right", build(request, mac(1), nil, ip(50, a)...), ack, a},
		{"D4-19 INIT-REBOOT, another of ours", build(request, mac(1), nil, ip(50, "192.168.77.103")...), nak, ""},
		{"D4-20 INIT-REBOOT, foreign subnet", build(request, mac(1), nil, ip(50, "10.0.0.1")...), nak, ""},
		{"D4-21 INIT-REBOOT, no record", build(request, mac(7), nil, ip(50, "192.168.77.103")...), 0, ""},
		{"D4-22 RENEWING", unicast(mac(1), a), ack, a},
		{"D4-25 REBINDING, no record", unicast(mac(7), "192.168.77.103"), 0, ""},
		{"D4-26 RENEWING another's lease", unicast(mac(7), a), nak, ""},
		{"no address at all", build(request, mac(1), nil), 0, ""},
		{"D4-16 an address that is another's", selecting(mac(7), a, "192.168.77.1"), nak, ""},
		{"an address outside the range", selecting(mac(7), "192.168.77.9", "192.168.77.1"), nak, ""},
		{"our own address", selecting(mac(7), "192.168.77.1", "192.168.77.1"), nak, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.t = t
			r.expect(r.say(c.msg), c.want, c.addr)
		})
	}
	r.t = t
	r.Authoritative = true
	r.expect(r.say(build(request, mac(7), nil, ip(50, "192.168.77.103")...)), nak, "") // D4-21 authoritative
}

func TestReservations(t *testing.T) {
	r := newRig(t)
	r.reserved[mac(1)] = netip.MustParseAddr("192.168.77.20")
	r.reserved[mac(2)] = netip.MustParseAddr("192.168.77.101")
	r.expect(r.say(build(discover, mac(1), nil, ip(50, "192.168.77.102")...)), offering, "192.168.77.20")
	r.expect(r.say(selecting(mac(1), "192.168.77.20", "192.168.77.1")), ack, "192.168.77.20")
	r.expect(r.say(build(request, mac(1), nil, ip(50, "192.168.77.100")...)), nak, "")
	for _, want := range []string{"192.168.77.100", "192.168.77.102", "192.168.77.103"} { // never .101
		m := mac(want[len(want)-1])
		r.expect(r.say(build(discover, m, nil)), offering, want)
		r.expect(r.say(selecting(m, want, "192.168.77.1")), ack, want)
	}
	r.expect(r.say(build(discover, mac(99), nil)), 0, "")
	r.reserved[mac(98)] = netip.MustParseAddr("192.168.77.100") // D4-10: reserved while another still has it
	r.expect(r.say(build(discover, mac(98), nil)), 0, "")
	for _, foreign := range []string{"10.1.1.1", "192.168.77.254", "192.168.77.1", "192.168.77.255"} {
		r.reserved[mac(97)] = netip.MustParseAddr(foreign)
		r.expect(r.say(build(discover, mac(97), nil)), 0, "")
		if note := r.notes[len(r.notes)-1]; !strings.Contains(note, foreign) || !strings.Contains(note, "correct network.address") {
			t.Errorf("%s: the note says %q", foreign, note)
		}
		// Nor when it comes with the address already, from before the record was corrected.
		for name, b := range map[string][]byte{"SELECTING": selecting(mac(97), foreign, "192.168.77.1"), "INIT-REBOOT": build(request, mac(97), nil, ip(50, foreign)...), "RENEWING": build(request, mac(97), ciaddr(foreign))} {
			if p := r.say(b); p == nil || p.MessageType() != nak {
				t.Errorf("%s of %s is answered by %v", name, foreign, p)
			}
		}
	}
	r.reserved[mac(96)] = netip.MustParseAddr("192.168.77.53") // a machine of the inventory that is the name server
	r.expect(r.say(build(discover, mac(96), nil)), offering, "192.168.77.53")
}

// A host has one reserved address, and often two NICs: the second one to boot gets an
// address of the range, and the first keeps the reservation.
func TestReservationOfTwoNICs(t *testing.T) {
	r := newRig(t)
	a := netip.MustParseAddr("192.168.77.20")
	r.reserved[mac(1)], r.reserved[mac(2)] = a, a
	r.expect(r.say(build(discover, mac(1), nil)), offering, "192.168.77.20")
	r.expect(r.say(build(discover, mac(2), nil)), offering, "192.168.77.100")
	r.expect(r.say(selecting(mac(1), "192.168.77.20", "192.168.77.1")), ack, "192.168.77.20")
	r.expect(r.say(selecting(mac(2), "192.168.77.100", "192.168.77.1")), ack, "192.168.77.100")
	r.expect(r.say(build(request, mac(2), ciaddr("192.168.77.100"))), ack, "192.168.77.100") // it renews
	r.expect(r.say(build(request, mac(2), nil, ip(50, "192.168.77.20")...)), nak, "")
	r.now = r.now.Add(48 * time.Hour) // nobody uses it now: the next NIC may
	r.expect(r.say(build(discover, mac(2), nil)), offering, "192.168.77.20")
}

func TestDecline(t *testing.T) {
	r := newRig(t)
	r.expect(r.say(build(discover, mac(1), nil)), offering, "192.168.77.100")
	r.expect(r.say(build(decline, mac(1), nil, ip(50, "192.168.77.103")...)), 0, "") // D4-29: not its address
	r.expect(r.say(build(decline, mac(1), nil, ip(50, "192.168.77.100")...)), 0, "") // D4-28
	r.expect(r.say(build(discover, mac(1), nil)), offering, "192.168.77.101")
	r.expect(r.say(selecting(mac(1), "192.168.77.101", "192.168.77.1")), ack, "192.168.77.101")
	// The client has another lease now, and the address is still set aside: for anybody
	// who asks for it, and after a restart.
	r.expect(r.say(build(discover, mac(2), nil, ip(50, "192.168.77.100")...)), offering, "192.168.77.102")
	stored, err := r.store.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if newPool(network().Ranges, stored).available(mac(3), netip.MustParseAddr("192.168.77.100"), r.now) {
		t.Error("after a restart the declined address is free")
	}
	for range 20 { // D4-30: the pool survives
		if p := r.say(build(discover, mac(1), nil)); p != nil {
			r.say(build(decline, mac(1), nil, ip(50, p.YourIPAddr.String())...))
		}
	}
	if p := r.say(build(discover, mac(2), nil)); p == nil {
		t.Error("one declining client emptied the pool")
	}
	r.now = r.now.Add(declineHold + time.Second)
	r.expect(r.say(build(discover, mac(3), nil, ip(50, "192.168.77.100")...)), offering, "192.168.77.100")
}

func TestRelease(t *testing.T) {
	r := newRig(t)
	a := r.bind(mac(1))
	r.say(build(release, mac(2), ciaddr(a))) // D4-32: not its lease
	if l, _ := r.pool.leaseOf(mac(1)); l.State != lane.LeaseActive {
		t.Error("a stranger released it")
	}
	r.say(build(release, mac(1), ciaddr(a)))
	r.restart()
	if l, _ := r.pool.leaseOf(mac(1)); l.State != lane.LeaseReleased {
		t.Error("the release is not on record")
	}
	r.expect(r.say(build(discover, mac(1), nil)), offering, a) // D4-31
}

func TestDestination(t *testing.T) {
	q := query{msg: dhcpv4.MessageTypeDiscover, ciaddr: netip.IPv4Unspecified(), giaddr: netip.IPv4Unspecified()}
	all := netip.MustParseAddrPort("255.255.255.255:68")
	if got := destination(q, offering, netip.AddrPort{}); got != all {
		t.Errorf("OFFER to %s: EDK2 ignores anything but a broadcast", got)
	}
	q.msg, q.ciaddr = dhcpv4.MessageTypeRequest, netip.MustParseAddr("192.168.77.100")
	if got := destination(q, ack, netip.AddrPort{}); got != netip.MustParseAddrPort("192.168.77.100:68") {
		t.Errorf("renewal's ACK to %s", got)
	}
	if got := destination(q, nak, netip.AddrPort{}); got != all {
		t.Errorf("NAK to %s", got)
	}
}

// TestDurableBeforeAck: D4-48. A lease that cannot be stored is not acknowledged,
// and not remembered either: else the address would be given away twice.
func TestDurableBeforeAck(t *testing.T) {
	r := newRig(t)
	a := r.bind(mac(1))
	r.restart()
	r.expect(r.say(build(discover, mac(2), nil, ip(50, a)...)), offering, "192.168.77.101")
	r.stop()
	if p := r.say(selecting(mac(2), "192.168.77.101", "192.168.77.1")); p != nil {
		t.Errorf("%s although the store is down", p.MessageType())
	}
	if _, ok := r.pool.leaseOf(mac(2)); ok {
		t.Error("the lease is remembered although it was never stored")
	}
}

func TestBootClientAsks(t *testing.T) {
	r := newRig(t)
	r.decision = lane.Decision{Action: lane.Install}
	p := r.say(capture(t, "dhcp4-ovmf-pxe-arch0007-discover-port67-bcast"))
	r.expect(p, offering, "192.168.77.100")
	if p.BootFileName != "boot/52-54-00-12-34-56/x86_64-uefi/snponly.efi" || p.ServerIPAddr.String() != "192.168.77.1" {
		t.Errorf("file %q from %s", p.BootFileName, p.ServerIPAddr)
	}
	if len(r.asked) != 1 || r.asked[0].UUID == "" || r.asked[0].Speaker != lane.SpeakerROM {
		t.Errorf("asked: %+v", r.asked)
	}
	r.askErr = errors.New("the store is down")
	if p := r.say(capture(t, "dhcp4-ovmf-pxe-arch0007-discover-port67-bcast")); p != nil {
		t.Error("an answer although nobody could decide")
	}
}
