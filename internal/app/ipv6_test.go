package app_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"bootlane/internal/api"
	"bootlane/internal/app"
	"bootlane/internal/lane"
	"bootlane/internal/nettest"
)

// loadConfig reads a configuration whose one network has these keys, and more.
func loadConfig(t *testing.T, keys, more string) (app.Config, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	loader := filepath.Join(t.TempDir(), "snponly.efi")
	must(t, os.WriteFile(loader, []byte("x"), 0o600))
	must(t, os.WriteFile(file, []byte("networks:\n- {interface: eth0, server: 10.0.0.1, subnet: 10.0.0.0/24, range: 10.0.0.100-10.0.0.199"+keys+"}\nloaders: {x86_64-uefi: "+loader+"}\n"+more), 0o600))
	c, err := app.LoadConfig(file)
	text := ""
	var e *lane.Error
	if errors.As(err, &e) {
		text = strings.Join(e.Problems, "\n")
	}
	return c, text
}

func TestIPv6Configuration(t *testing.T) {
	const sound = "server: 'fd00:20::1', subnet: 'fd00:20::/64', range: 'fd00:20::1000-fd00:20::1fff'"
	for _, c := range []struct{ name, keys, more, want string }{
		{"sound", ", ipv6: {" + sound + ", dns: ['fd00:20::53'], ntp: ['fd00:20::123'], lease: 2h, domain: a.example}", "", ""},
		{"relayed", ", ipv6: {relays: ['fd00:30::1'], server: 'fd00:20::1', subnet: 'fd00:30::/64', range: 'fd00:30::1000-fd00:30::1fff'}", "", ""},
		{"empty", ", ipv6: {}", "", `ipv6.subnet: "" is not an IPv6 network`},
		{"no range", ", ipv6: {server: 'fd00:20::1', subnet: 'fd00:20::/64'}", "", `ipv6.range: "" is not FIRST-LAST`},
		{"IPv4 in it", ", ipv6: {server: 10.0.0.1, subnet: 10.0.0.0/24, range: 10.0.0.1-10.0.0.2}", "", `ipv6.server: "10.0.0.1" is not a global`},
		{"link-local", ", ipv6: {server: 'fe80::1', subnet: 'fd00:20::/64', range: 'fd00:20::1000-fd00:20::1fff'}", "", `ipv6.server: "fe80::1" is not a global`},
		{"host bits", ", ipv6: {server: 'fd00:20::1', subnet: 'fd00:20::5/64', range: 'fd00:20::1000-fd00:20::1fff'}", "", "ipv6.subnet: fd00:20::5/64 has host bits: write fd00:20::/64"},
		{"server elsewhere", ", ipv6: {server: 'fd00:21::1', subnet: 'fd00:20::/64', range: 'fd00:20::1000-fd00:20::1fff'}", "", "ipv6.server: fd00:21::1 is not in the subnet"},
		{"range backwards", ", ipv6: {server: 'fd00:20::1', subnet: 'fd00:20::/64', range: 'fd00:20::2000-fd00:20::1fff'}", "", "ends before it begins"},
		{"range of two /64", ", ipv6: {server: 'fd00:20::1', subnet: 'fd00:20::/48', range: 'fd00:20::1000-fd00:20:0:1::1fff'}", "", "goes over the end of fd00:20::/64"},
		{"range with the server", ", ipv6: {server: 'fd00:20::1', subnet: 'fd00:20::/64', range: 'fd00:20::-fd00:20::1fff'}", "", "holds fd00:20::1, which is not free"},
		{"name server", ", ipv6: {" + sound + ", dns: [10.0.0.53]}", "", `ipv6.dns[0]: "10.0.0.53" is not an IPv6 address`},
		{"lease", ", ipv6: {" + sound + ", lease: 1s}", "", "ipv6.lease: 1s: from 5m"},
		{"proxy", ", mode: proxy, ipv6: {" + sound + "}", "", "ipv6: is for mode: own. There is no proxyDHCP for IPv6"},
		{"external", ", mode: external, ipv6: {" + sound + "}", "", "ipv6: is for mode: own."},
		{"IPv4 listener", ", ipv6: {" + sound + "}", "listen: {machines: '10.0.0.1:8080'}", "listen.machines: 10.0.0.1:8080: machines with networks[].ipv6 come by both protocols, use [::]:8080"},
		{"IPv4 TFTP", ", ipv6: {" + sound + "}", "listen: {tftp: '0.0.0.0:69'}", "listen.tftp: 0.0.0.0:69: machines"},
		{"two on one interface", ", ipv6: {" + sound + "}}\n- {interface: eth0, relays: [10.9.0.1], server: 10.0.0.1, subnet: 10.9.0.0/24, range: 10.9.0.100-10.9.0.199, ipv6: {server: 'fd00:20::1', subnet: 'fd00::/16', range: 'fd00:20::1000-fd00:20::1fff'}", "",
			"networks[1].ipv6.subnet: fd00::/16 overlaps networks[0].ipv6, fd00:20::/64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, got := loadConfig(t, c.keys, c.more)
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("%s\nwant %q", got, c.want)
			}
			if c.want == "" && (cfg.Listen.Machines != "[::]:8080" || cfg.Listen.TFTP != "[::]:69") {
				t.Errorf("by default it listens on %+v", cfg.Listen)
			}
		})
	}
	cfg, _ := loadConfig(t, ", ipv6: {"+strings.Replace(sound, "fd00:20::1'", "FD00:20:0::1'", 1)+"}", "")
	for local, want := range map[string]string{"fd00:20::1": "http://[fd00:20::1]:8080", "10.0.0.1": "http://10.0.0.1:8080", "": "http://10.0.0.1:8080", "fe80::1%eth0": "http://[fd00:20::1]:8080"} {
		if got := cfg.BaseURL(local); got != want {
			t.Errorf("by %q: %s, want %s", local, got, want)
		}
	}
}

// newWorld6 is a world whose network has IPv6 as well.
func newWorld6(t *testing.T) *world {
	t.Helper()
	return newWorld(t, "policy: {askMirrors: false}\n", ", ipv6: {server: '"+nettest.Server6+"', subnet: 'fd77::/64', range: 'fd77::100-fd77::1ff', dns: ['fd77::1']}")
}

// solicit6 sends a SOLICIT and returns the ADVERTISE.
func (w *world) solicit6(f firmware) *dhcpv6.Message {
	w.Helper()
	ifi, err := net.InterfaceByName(nettest.ClientInterface)
	must(w.T, err)
	c, err := net.ListenUDP("udp6", &net.UDPAddr{IP: linkLocal(w.T, ifi), Port: 547, Zone: ifi.Name})
	must(w.T, err)
	defer func() { _ = c.Close() }()
	hw, err := net.ParseMAC(string(mac))
	must(w.T, err)
	m, err := dhcpv6.NewSolicit(hw, dhcpv6.WithOption(dhcpv6.OptClientArchType(iana.Arch(f.arch))),
		dhcpv6.WithOption(&dhcpv6.OptVendorClass{EnterpriseNumber: 343, Data: [][]byte{[]byte(f.vendor)}}), dhcpv6.WithRequestedOptions(dhcpv6.OptionBootfileURL, dhcpv6.OptionVendorClass))
	must(w.T, err)
	m.UpdateOption(dhcpv6.OptClientID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: hw}))
	if f.ipxe {
		m.UpdateOption(&dhcpv6.OptUserClass{UserClasses: [][]byte{[]byte("iPXE")}})
	}
	// By way of an agent in a switch, RFC 6221, which tells the MAC, RFC 6939: the cable's own is another.
	relayed, err := dhcpv6.EncapsulateRelay(m, dhcpv6.MessageTypeRelayForward, net.IPv6zero, net.ParseIP("fe80::1234"))
	must(w.T, err)
	relayed.AddOption(dhcpv6.OptClientLinkLayerAddress(iana.HWTypeEthernet, hw))
	_, err = c.WriteToUDP(relayed.ToBytes(), &net.UDPAddr{IP: net.ParseIP("ff02::1:2"), Port: 547, Zone: ifi.Name})
	must(w.T, err)
	buf := make([]byte, 2000)
	for {
		must(w.T, c.SetReadDeadline(time.Now().Add(10*time.Second)))
		n, _, err := c.ReadFromUDP(buf)
		must(w.T, err)
		p, err := dhcpv6.FromBytes(buf[:n])
		must(w.T, err)
		inner, err := p.GetInnerMessage()
		if err == nil && inner.TransactionID == m.TransactionID && inner.MessageType == dhcpv6.MessageTypeAdvertise {
			return inner
		}
	}
}

func linkLocal(t *testing.T, ifi *net.Interface) net.IP {
	t.Helper()
	var found net.IP
	nettest.Eventually(t, ifi.Name+" has a link-local address", func() bool {
		list, err := ifi.Addrs()
		must(t, err)
		for _, a := range list {
			if n, ok := a.(*net.IPNet); ok && n.IP.IsLinkLocalUnicast() && n.IP.To4() == nil {
				found = n.IP
			}
		}
		return found != nil
	})
	return found
}

var tftpURL = regexp.MustCompile(`^tftp://\[([0-9a-f:]+)\]/(.+)$`)

// loader6 follows an ADVERTISE to the bytes that it names. It is nil when it names none.
func (w *world) loader6(p *dhcpv6.Message) (string, []byte, error) {
	w.Helper()
	url := p.Options.BootFileURL()
	if m := tftpURL.FindStringSubmatch(url); m != nil {
		body, err := tftpGet(w.T, m[1], m[2])
		return url, body, err
	}
	if !strings.HasPrefix(url, "http://["+nettest.Server6+"]:8080/") {
		return url, nil, fmt.Errorf("%q is no URL of ours", url)
	}
	status, body := get(w.T, url)
	if status != 200 {
		return url, nil, fmt.Errorf("%d: %s", status, body)
	}
	return url, body, nil
}

// TestContract6 follows everything that DHCPv6 advertises until bytes arrive.
func TestContract6(t *testing.T) {
	w := newWorld6(t)
	w.bundles()
	kinds := firmwares()[1:] // BIOS has no IPv6
	kinds = append(kinds[:3:3], kinds[4])
	follow := func(name string, want lane.Action) {
		for _, f := range kinds {
			t.Run(name+", "+f.name, func(t *testing.T) {
				w.T = t
				url, body, err := w.loader6(w.solicit6(f))
				switch {
				case want == lane.LocalBoot && !f.ipxe:
					if err == nil || !strings.Contains(err.Error(), "host-new") { // refused, with the reason
						t.Errorf("%q: %d bytes, %v", url, len(body), err)
					}
				case err != nil || len(body) == 0:
					t.Errorf("%q: %v", url, err)
				case f.ipxe:
					w.scripts(url, body, want)
				}
			})
		}
		w.T = t
	}
	follow("unknown", lane.Hold)
	w.enrol("image-1")
	follow("local boot", lane.LocalBoot)
	for _, seed := range lane.Seeds() {
		name, _, _ := strings.Cut(seed, "/")
		_, err := w.client.Provision(t.Context(), "node1", lane.Provisioning{Bundle: name + "-1"})
		must(t, err)
		follow("install "+name, lane.Install)
		_, err = w.client.Act(t.Context(), "node1", "cancel", "next seed")
		must(t, err)
	}
}

// TestReservation6: an address of the inventory is given by DHCPv6, and one that is not
// ours is refused; who we are stays what it was.
func TestReservation6(t *testing.T) {
	w := newWorld6(t)
	spec := func(address string) api.HostSpec {
		return api.HostSpec{ID: "node1", Identity: lane.Identity{UUID: uuid, MACs: []lane.MAC{mac}}, Network: api.NetworkSpec{Address6: address}}
	}
	for address, want := range map[string]string{"fd78::20": "is in no IPv6 network of the configuration: fd77::/64", "fd77::1": "is Bootlane's own", "fd77::": "is every router's"} {
		out, err := w.client.Import(t.Context(), []api.HostSpec{spec(address)}, true)
		if err != nil || len(out.Problems) != 1 || out.Problems[0].Field != "hosts[0].network.address6" || !strings.Contains(out.Problems[0].Message, want) {
			t.Errorf("%s: %v, %v", address, out.Problems, err)
		}
	}
	out, err := w.client.Import(t.Context(), []api.HostSpec{spec("fd77::20")}, false)
	if err != nil || len(out.Problems) > 0 {
		t.Fatal(out.Problems, err)
	}
	p := w.solicit6(firmwares()[1])
	if a := p.Options.OneIANA().Options.OneAddress(); a == nil || a.IPv6Addr.String() != "fd77::20" {
		t.Errorf("%s", p.Summary())
	}
	var state lane.DHCPState
	nettest.Eventually(t, "the answer is counted", func() bool { // after it was sent
		var err error
		state, err = w.client.DHCP(t.Context())
		must(t, err)
		return state.Counters.Answered == 1
	})
	if len(state.Networks) != 2 || state.Networks[1].Network.String() != "fd77::/64" || state.Networks[1].Offered != 1 {
		t.Errorf("%+v", state)
	}
	if _, err := w.client.ReleaseLease(t.Context(), "fd77::20", ""); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("an address that is only on offer: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(w.dir, "data", "dhcp6.duid"))
	if err != nil || fmt.Sprintf("%x\n", p.Options.ServerID().ToBytes()) != string(text) || len(text) != 37 {
		t.Errorf("the DUID %x is not kept: %q, %v", p.Options.ServerID().ToBytes(), text, err)
	}
}
