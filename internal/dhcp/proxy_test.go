package dhcp

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootlane/internal/lane"
)

// proxyRig is a proxy without sockets, and without leases: it needs none.
func proxyRig(t *testing.T) *rig {
	r := newRig(t)
	n := network()
	n.Proxy = true
	cfg := r.cfg
	cfg.Networks, cfg.Leases, cfg.Reservations = []Network{n}, nil, nil
	r.serve(cfg, nil)
	r.decision = lane.Decision{Action: lane.Install, Reason: lane.Granted}
	return r
}

// tell sends a message to one of the two ports and returns the reply, nil when the
// server is silent, and where it goes.
func (r *rig) tell(b []byte, bootServer bool, from string) (*dhcpv4.DHCPv4, netip.AddrPort) {
	r.t.Helper()
	q, err := parse(b)
	if err != nil {
		r.t.Fatal(err)
	}
	q.iface, q.bootServer = "test", bootServer
	a, err := r.handle(r.t.Context(), q)
	if err != nil || a.kind == 0 {
		return nil, netip.AddrPort{}
	}
	p, err := dhcpv4.FromBytes(a.msg.marshal(q))
	if err != nil {
		r.t.Fatal(err)
	}
	return p, destination(q, a.kind, netip.MustParseAddrPort(from))
}

// Conformance cases PR-01 to PR-06, PR-08, PR-10 and PR-16, with the packets of real
// firmware.
func TestProxy(t *testing.T) {
	const ovmf, ipxe, http = "dhcp4-ovmf-pxe-arch0007-", "dhcp4-ipxe-arch0007-", "dhcp4-ovmf-http-arch0010-"
	for _, c := range []struct {
		name, capture string
		bootServer    bool
		from          string // the client's address
		kind          dhcpv4.MessageType
		to, class     string
	}{
		{"PR-01 OVMF", ovmf + "discover-port67-bcast", false, "0.0.0.0:68", offering, "255.255.255.255:68", "PXEClient"},
		{"PR-08 OVMF by HTTP", http + "discover-port67-bcast", false, "0.0.0.0:68", offering, "255.255.255.255:68", "HTTPClient"},
		{"PR-10 iPXE", ipxe + "discover-port67-bcast", false, "0.0.0.0:68", offering, "255.255.255.255:68", "PXEClient"},
		{"PR-10 iPXE on BIOS", "dhcp4-ipxe-arch0000-discover-port67-bcast", false, "0.0.0.0:68", offering, "255.255.255.255:68", "PXEClient"},
		{"PR-03 OVMF's REQUEST to the other server", ovmf + "request-port67-bcast", false, "0.0.0.0:68", 0, "", ""},
		{"PR-03 iPXE's", ipxe + "request-port67-bcast", false, "0.0.0.0:68", 0, "", ""},
		{"PR-04 OVMF asks its boot server", ovmf + "request-port4011-l2uni", true, "192.168.77.60:4011", ack, "192.168.77.60:4011", "PXEClient"},
		{"PR-05 iPXE does", ipxe + "request-port4011-l2uni", true, "192.168.77.60:68", ack, "192.168.77.60:68", "PXEClient"},
		{"PR-16 a DISCOVER on 4011", ovmf + "discover-port67-bcast", true, "192.168.77.60:68", offering, "192.168.77.60:68", "PXEClient"},
	} {
		t.Run(c.name, func(t *testing.T) {
			sent := capture(t, c.capture)
			p, to := proxyRig(t).tell(sent, c.bootServer, c.from)
			if c.kind == 0 {
				if p != nil {
					t.Fatalf("answered %s", p)
				}
				return
			}
			if p == nil || p.MessageType() != c.kind || to.String() != c.to || p.ClassIdentifier() != c.class {
				t.Fatalf("to %s: %v", to, p)
			}
			if !p.YourIPAddr.IsUnspecified() || p.ServerIdentifier().String() != "192.168.77.1" || !bytes.Equal(p.Options.Get(dhcpv4.OptionClientMachineIdentifier), sentMachineID(t, sent)) {
				t.Errorf("%s", p)
			}
			for _, foreign := range []dhcpv4.OptionCode{dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue} {
				if p.Options.Has(foreign) {
					t.Errorf("it carries %s, which another server owns", foreign)
				}
			}
			if c.class == "PXEClient" && (p.BootFileName == "" || p.ServerIPAddr.String() != "192.168.77.1" || !bytes.Equal(p.Options.Get(dhcpv4.OptionVendorSpecificInformation), discoveryControl())) {
				t.Errorf("no boot file to be had from us: %s", p)
			}
		})
	}
}

func sentMachineID(t *testing.T, b []byte) []byte {
	t.Helper()
	p, err := dhcpv4.FromBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	return p.Options.Get(dhcpv4.OptionClientMachineIdentifier)
}

// IX-06: an address server may name a boot file of its own; ours has priority.
func TestProxyOutranksTheOtherFile(t *testing.T) {
	p, _ := proxyRig(t).tell(capture(t, "dhcp4-ipxe-arch0007-discover-port67-bcast"), false, "0.0.0.0:68")
	if p == nil || !bytes.Equal(p.Options.Get(dhcpv4.GenericOptionCode(175)), []byte{1, 1, 1}) {
		t.Errorf("%v", p)
	}
}

// What a proxy must not meddle with: PR-02, PR-03, and machines that may not boot.
func TestProxyIsSilent(t *testing.T) {
	ovmf := capture(t, "dhcp4-ovmf-pxe-arch0007-discover-port67-bcast")
	for name, b := range map[string][]byte{
		"PR-02 an operating system asks": build(discover, mac(1), nil), "PR-03 its REQUEST": selecting(mac(1), "192.168.77.50", "192.168.77.250"),
		"PR-03 its renewal": build(request, mac(1), ciaddr("192.168.77.50")), "PR-03 INFORM": build(inform, mac(1), ciaddr("192.168.77.50")),
		"PR-03 RELEASE": build(release, mac(1), ciaddr("192.168.77.50")), "PR-03 DECLINE": capture(t, "dhcp4-ovmf-pxe-archnone-decline-port67-bcast")} {
		t.Run(name, func(t *testing.T) {
			if p, _ := proxyRig(t).tell(b, false, "0.0.0.0:68"); p != nil {
				t.Errorf("answered %s", p)
			}
		})
	}
	unknown := lane.Decision{Action: lane.Hold, Reason: lane.UnknownMachine}
	r := proxyRig(t)
	r.decision = unknown
	if p, _ := r.tell(ovmf, false, "0.0.0.0:68"); p == nil || p.BootFileName == "" {
		t.Errorf("an unknown machine gets no screen: %v", p)
	}
	r.KnownOnly = true
	if p, _ := r.tell(ovmf, false, "0.0.0.0:68"); p != nil {
		t.Errorf("knownOnly, and an unknown machine is answered %s", p)
	}
	r = proxyRig(t)
	r.decision, r.FastLocalBoot = lane.Decision{Action: lane.LocalBoot}, false
	if p, _ := r.tell(ovmf, false, "0.0.0.0:68"); p != nil { // LB-03
		t.Errorf("local boot in silence is answered %s", p)
	}
	r.FastLocalBoot = true
	if p, _ := r.tell(ovmf, false, "0.0.0.0:68"); p == nil || p.BootFileName != "" || !bytes.Equal(p.Options.Get(dhcpv4.OptionVendorSpecificInformation), localMenu()) { // LB-08
		t.Errorf("local boot is not told: %v", p)
	}
}
