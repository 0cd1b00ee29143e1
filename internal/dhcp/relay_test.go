package dhcp

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootlane/internal/lane"
)

// relayRig serves two networks behind relay agents, beside the attached one.
func relayRig(t *testing.T) *rig {
	r := newRig(t)
	for _, p := range []string{"10.1.0", "10.2.0"} {
		n := network()
		n.Subnet = lane.Subnet{Prefix: netip.MustParsePrefix(p + ".0/24"), Server: netip.MustParseAddr("192.168.77.1"), Relays: addrList("10.1.0.1", "10.1.0.2"), Routers: addrList(p + ".1")}
		n.Ranges = []Range{{First: netip.MustParseAddr(p + ".100"), Last: netip.MustParseAddr(p + ".103")}}
		r.networks = append(r.networks, n)
	}
	r.restart()
	return r
}

// pass sends a message as a relay agent does, and returns the reply and where it goes.
func (r *rig) pass(b []byte, from string) (*dhcpv4.DHCPv4, []byte, netip.AddrPort) {
	r.t.Helper()
	q, err := parse(b)
	if err != nil {
		r.t.Fatal(err)
	}
	q.iface, q.unicast = "test", true
	a, err := r.handle(r.t.Context(), q)
	if err != nil {
		r.t.Fatal(err)
	}
	if a.kind == 0 {
		return nil, nil, netip.AddrPort{}
	}
	out := a.msg.marshal(q)
	p, err := dhcpv4.FromBytes(out)
	if err != nil {
		r.t.Fatal(err)
	}
	return p, out, destination(q, a.kind, netip.MustParseAddrPort(from))
}

func via(giaddr string, more ...func([]byte)) func([]byte) {
	return func(b []byte) {
		copy(b[24:28], netip.MustParseAddr(giaddr).AsSlice())
		for _, f := range more {
			f(b)
		}
	}
}

func agent(subs ...byte) []byte { return append([]byte{82, byte(len(subs))}, subs...) }

func sub(code byte, a string) []byte {
	return append([]byte{code, 4}, netip.MustParseAddr(a).AsSlice()...)
}

func broadcasts(b []byte) { b[10] = 0x80 }

// TestRelay has the conformance cases of relay agents.
func TestRelay(t *testing.T) {
	odd := []byte{82, 14, 1, 3, 'e', 't', 'h', 2, 2, 0, 7, 0, 151, 2, 0, 9} // a pad in the middle, and an unknown sub-option
	agent1 := "10.1.0.1:67"
	t.Run("RL-01 the reply goes to the agent, from its network", func(t *testing.T) {
		for name, flags := range map[string]func([]byte){"B=0": func([]byte) {}, "B=1": broadcasts} {
			r := relayRig(t)
			p, out, to := r.pass(build(discover, mac(1), via("10.1.0.1", flags)), agent1)
			r.expect(p, offering, "10.1.0.100")
			if to.String() != "10.1.0.1:67" || !bytes.Equal(out[24:28], []byte{10, 1, 0, 1}) || p.IsBroadcast() != (name == "B=1") {
				t.Errorf("%s: to %s, giaddr %v, broadcast %v", name, to, out[24:28], p.IsBroadcast())
			}
			p, _, to = r.pass(build(request, mac(1), via("10.1.0.1"), append(ip(50, "10.1.0.100"), ip(54, "192.168.77.1")...)...), agent1)
			r.expect(p, ack, "10.1.0.100")
			if to.String() != "10.1.0.1:67" || p.Router()[0].String() != "10.1.0.1" {
				t.Errorf("the ACK goes to %s and names the router %v", to, p.Router())
			}
		}
	})
	t.Run("RL-02 an agent of no network gets nothing, and that is told", func(t *testing.T) {
		r := relayRig(t)
		p, _, _ := r.pass(build(discover, mac(1), via("10.9.0.1")), "10.9.0.1:67")
		if p != nil || len(r.notes) != 1 || !strings.Contains(r.notes[0], "10.9.0.1 is in no network: add it to networks[].relays") {
			t.Errorf("%v, notes %v", p, r.notes)
		}
		p, _, _ = r.pass(build(discover, mac(1), via("10.1.0.1"), agent(sub(5, "10.9.0.0")...)...), agent1)
		if p != nil || !strings.Contains(r.notes[1], "speaks for 10.9.0.0, and no network") {
			t.Errorf("%v, notes %v", p, r.notes)
		}
	})
	t.Run("RL-03 option 82 is echoed byte for byte, last", func(t *testing.T) {
		r := relayRig(t)
		for _, b := range [][]byte{build(discover, mac(1), via("10.1.0.1"), odd...), build(request, mac(1), via("10.1.0.1"), append(ip(50, "10.9.9.9"), odd...)...)} {
			p, out, _ := r.pass(b, agent1) // an OFFER and a NAK
			if end := bytes.LastIndex(out, odd); end < 0 || out[end+len(odd)] != 255 {
				t.Errorf("%s: %x", p.MessageType(), out)
			}
		}
		if f := r.asked; len(f) != 0 {
			t.Errorf("a plain client was asked about: %v", f)
		}
	})
	t.Run("RL-03 what the agent says is evidence", func(t *testing.T) {
		r := relayRig(t)
		b := capture(t, "dhcp4-ovmf-pxe-arch0007-discover-port67-bcast")
		copy(b[24:28], []byte{10, 1, 0, 1})
		end := bytes.LastIndexByte(b, 255)
		b = append(append(bytes.Clone(b[:end]), odd...), 255)
		r.pass(b, agent1)
		want := lane.Relay{Address: "10.1.0.1", CircuitID: "eth", RemoteID: "0x0007"}
		if len(r.asked) != 1 || r.asked[0].Relay != want {
			t.Errorf("%+v", r.asked)
		}
	})
	t.Run("RL-04 no option 82 where none came", func(t *testing.T) {
		r := relayRig(t)
		if _, out, _ := r.pass(build(discover, mac(1), via("10.1.0.1")), agent1); bytes.Contains(out[240:], []byte{82, 4}) {
			t.Errorf("%x", out)
		}
	})
	t.Run("RL-05 what is dropped for room is not option 82", func(t *testing.T) {
		r := relayRig(t)
		long := agent(append([]byte{1, 200}, bytes.Repeat([]byte{'x'}, 200)...)...)
		p, out, _ := r.pass(build(discover, mac(1), via("10.1.0.1"), long...), agent1)
		if len(out) > 548 || !bytes.Contains(out, long) || p.Options.Has(dhcpv4.OptionDomainName) && len(out) > 548 {
			t.Errorf("%d bytes: %v", len(out), p)
		}
	})
	t.Run("RL-06 link selection chooses the network, and not the way back", func(t *testing.T) {
		r := relayRig(t)
		p, _, to := r.pass(build(discover, mac(1), via("10.1.0.1"), agent(sub(5, "10.2.0.0")...)...), agent1)
		r.expect(p, offering, "10.2.0.100")
		if to.String() != "10.1.0.1:67" {
			t.Errorf("to %s", to)
		}
		p, _, _ = r.pass(build(discover, mac(2), via("10.1.0.1"), ip(118, "10.2.0.0")...), agent1) // RFC 3011
		r.expect(p, offering, "10.2.0.101")
		p, _, _ = r.pass(build(discover, mac(3), via("10.1.0.1"), append(ip(118, "10.2.0.0"), agent(sub(5, "10.1.0.0")...)...)...), agent1)
		r.expect(p, offering, "10.1.0.100")
	})
	t.Run("RL-07 the agent is the client's server where it says so", func(t *testing.T) {
		r := relayRig(t)
		over := agent(sub(11, "10.1.0.1")...)
		p, _, _ := r.pass(build(discover, mac(1), via("10.1.0.1"), over...), agent1)
		if p == nil || p.ServerIdentifier().String() != "10.1.0.1" {
			t.Fatalf("%v", p)
		}
		take := append(ip(50, p.YourIPAddr.String()), ip(54, "10.1.0.1")...)
		p, _, _ = r.pass(build(request, mac(1), via("10.1.0.1"), append(take, over...)...), agent1)
		r.expect(p, ack, "10.1.0.100")
		p, _, _ = r.pass(build(request, mac(2), via("10.1.0.1"), append(ip(50, "10.1.0.100"), ip(54, "10.1.0.77")...)...), agent1)
		r.expect(p, 0, "") // some other server's
	})
	t.Run("RL-08 a NAK goes to the agent, to be broadcast", func(t *testing.T) {
		r := relayRig(t)
		p, _, to := r.pass(build(request, mac(1), via("10.1.0.1"), ip(50, "10.9.0.5")...), agent1)
		r.expect(p, nak, "")
		if !p.IsBroadcast() || to.String() != "10.1.0.1:67" {
			t.Errorf("broadcast %v, to %s", p.IsBroadcast(), to)
		}
	})
	t.Run("RL-09 two agents of one network are one client", func(t *testing.T) {
		r := relayRig(t)
		for _, gw := range []string{"10.1.0.1", "10.1.0.2"} {
			p, _, to := r.pass(build(discover, mac(1), via(gw)), gw+":67")
			r.expect(p, offering, "10.1.0.100")
			if to.String() != gw+":67" {
				t.Errorf("to %s", to)
			}
		}
		p, _, _ := r.pass(build(discover, mac(2), via("10.1.0.1")), agent1)
		r.expect(p, offering, "10.1.0.101")
	})
	t.Run("RL-10 an agent may listen on another port", func(t *testing.T) {
		r := relayRig(t)
		if _, _, to := r.pass(build(discover, mac(1), via("10.1.0.1"), agent(19, 0)...), "10.1.0.1:4567"); to.String() != "10.1.0.1:4567" {
			t.Errorf("to %s", to)
		}
	})
	t.Run("RL-12 option 82 without an agent says nothing, and is echoed", func(t *testing.T) {
		r := relayRig(t)
		p := r.say(build(discover, mac(1), nil, agent(sub(5, "10.2.0.0")...)...))
		r.expect(p, offering, "192.168.77.100")
		if p.RelayAgentInfo() == nil {
			t.Error("it is not echoed")
		}
	})
	t.Run("RL-13 seventeen hops are a loop", func(t *testing.T) {
		if _, err := parse(build(discover, mac(1), func(b []byte) { b[3] = 17 })); err == nil {
			t.Error("it is taken")
		}
	})
	t.Run("D4-23 a renewal comes past the agent", func(t *testing.T) {
		r := relayRig(t)
		r.pass(build(discover, mac(1), via("10.1.0.1")), agent1)
		r.pass(build(request, mac(1), via("10.1.0.1"), append(ip(50, "10.1.0.100"), ip(54, "192.168.77.1")...)...), agent1)
		p, _, to := r.pass(build(request, mac(1), ciaddr("10.1.0.100")), "10.1.0.100:68")
		r.expect(p, ack, "10.1.0.100")
		if to.String() != "10.1.0.100:68" {
			t.Errorf("to %s", to)
		}
	})
}

// TestRelayedProxy: RL-11. The agent gets an offer without an address.
func TestRelayedProxy(t *testing.T) {
	t.Run("RL-11 a proxy's offer goes to the agent", func(t *testing.T) {
		r := relayRig(t)
		for i := range r.networks {
			r.networks[i].Proxy = true
		}
		r.decision = lane.Decision{Action: lane.Install}
		r.restart()
		b := capture(t, "dhcp4-ovmf-pxe-arch0007-discover-port67-bcast")
		copy(b[24:28], []byte{10, 1, 0, 1})
		p, _, to := r.pass(b, "10.1.0.1:67")
		r.expect(p, offering, "0.0.0.0")
		if to.String() != "10.1.0.1:67" || p == nil || p.BootFileName == "" {
			t.Errorf("to %s: %v", to, p)
		}
	})
}

// TestTwoInterfaces: D4-47. The interface decides, and what came by one is no business
// of another.
func TestTwoInterfaces(t *testing.T) {
	t.Run("D4-47 each interface has its network", func(t *testing.T) {
		r := newRig(t)
		n := network()
		n.Interface, n.Subnet = "other", lane.Subnet{Prefix: netip.MustParsePrefix("10.5.0.0/24"), Server: netip.MustParseAddr("10.5.0.1")}
		n.Ranges = []Range{{First: netip.MustParseAddr("10.5.0.100"), Last: netip.MustParseAddr("10.5.0.103")}}
		r.networks = append(r.networks, n)
		r.restart()
		for iface, want := range map[string]string{"test": "192.168.77.100 192.168.77.1", "other": "10.5.0.100 10.5.0.1", "third": ""} {
			q, err := parse(build(discover, mac(1), nil))
			if err != nil {
				t.Fatal(err)
			}
			q.iface = iface
			a, err := r.handle(t.Context(), q)
			got := ""
			if a.kind != 0 {
				got = a.msg.yiaddr.String() + " " + a.server.String()
			}
			if err != nil || got != want {
				t.Errorf("%s: %s, %v; want %s", iface, got, err, want)
			}
		}
		// A reservation holds in its own network, and is nothing in the other.
		r.reserved[mac(2)] = netip.MustParseAddr("10.5.0.20")
		r.expect(r.say(build(discover, mac(2), nil)), offering, "192.168.77.101")
	})
}
