package migrate

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"

	"bootlane/internal/nettest"
)

func TestMain(m *testing.M) { os.Exit(nettest.Main(m)) }

// TestServersObey: what real servers tell real firmware, with the configuration written
// for them. That they read it without complaint proves little: dhcpd takes conditions
// that are never true.
func TestServersObey(t *testing.T) {
	const base = "http://" + nettest.Server + ":8080/"
	clients := []struct{ capture, file, class string }{
		{"dhcp4-ovmf-pxe-arch0007-discover-port67-bcast", "boot/any/x86_64-uefi/snponly.efi", ""},
		{"dhcp4-ovmf-http-arch0010-discover-port67-bcast", base + "boot/any/x86_64-uefi/snponly.efi", "HTTPClient"},
		{"dhcp4-ipxe-arch0007-discover-port67-bcast", base + "autoexec.ipxe", ""},
		{"dhcp4-ipxe-arch0000-discover-port67-bcast", base + "autoexec.ipxe", ""},
	}
	for _, server := range Servers() {
		for _, form := range Forms() {
			t.Run(server+"-"+string(form), func(t *testing.T) {
				c := obeying(t, server, form)
				for i, client := range clients {
					if form != Owned {
						client.file, client.class = "", ""
					}
					if form == SameMachine && !strings.Contains(client.capture, "http") {
						client.class = "PXEClient"
					}
					got := c.ask(t, client.capture, byte(i))
					file := strings.TrimRight(got.BootFileName, "\x00")
					if o := got.Options.Get(dhcpv4.OptionBootfileName); len(o) > 0 {
						file = strings.TrimRight(string(o), "\x00")
					}
					if file != client.file || string(got.Options.Get(dhcpv4.OptionClassIdentifier)) != client.class {
						t.Errorf("%s is told %q:\n%s", client.capture, file, got.Summary())
					}
					if next := got.ServerIPAddr.String(); client.file != "" && next != nettest.Server {
						t.Errorf("%s is sent to %s", client.capture, next)
					}
				}
			})
		}
	}
}

// wire is the machines' end of the cable.
type wire struct{ *packet.Conn }

// obeying starts a server with the configuration written for it.
func obeying(t *testing.T, server string, form Form) wire {
	t.Helper()
	p := plan()
	at := netip.MustParseAddr
	p.Prefix, p.Server, p.Interface = netip.MustParsePrefix("192.168.77.0/24"), at(nettest.Server), nettest.ServerInterface
	p.First, p.Last, p.BaseURL = at("192.168.77.100"), at("192.168.77.199"), "http://"+nettest.Server+":8080"
	p.Routers, p.Hosts = nil, nil
	text, err := Export(server, p, form)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	leases := filepath.Join(dir, "leases")
	text = strings.Replace(text, `"persist": true`, `"persist": true, "name": "`+leases+`"`, 1) // Kea's, else the site's own
	conf := filepath.Join(dir, "conf")
	if err := errors.Join(os.WriteFile(conf, []byte(text), 0o644), os.WriteFile(leases, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	args := map[string][]string{
		"dnsmasq": {"dnsmasq", "--keep-in-foreground", "--user=root", "--log-facility=-", "--pid-file", "--no-ping", "--conf-file=" + conf, "--dhcp-leasefile=" + leases},
		"kea":     {"env", "KEA_LOCKFILE_DIR=" + dir, "KEA_PIDFILE_DIR=" + dir, "kea-dhcp4", "-c", conf},
		"isc":     {"dhcpd", "-4", "-f", "-d", "-cf", conf, "-lf", leases, "-pf", filepath.Join(dir, "pid"), nettest.ServerInterface},
	}[server]
	cmd := exec.Command(args[0], args[1:]...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Log(log.String())
		}
	})
	ifi, err := net.InterfaceByName(nettest.ClientInterface)
	if err != nil {
		t.Fatal(err)
	}
	c, err := packet.Listen(ifi, packet.Raw, 0x0800, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return wire{c}
}

// ask sends what real firmware sent, of a MAC of its own, until it is answered.
func (c wire) ask(t *testing.T, capture string, n byte) *dhcpv4.DHCPv4 {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "dhcp", "testdata", capture+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	q, err := dhcpv4.FromBytes(raw)
	if err != nil {
		t.Fatal(err)
	}
	q.ClientHWAddr = net.HardwareAddr{0x52, 0x54, 0, 0, 0x77, n}
	q.SetBroadcast()
	frame := gopacket.NewSerializeBuffer()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IPv4zero, DstIP: net.IPv4bcast}
	udp := &layers.UDP{SrcPort: 68, DstPort: 67}
	if err := errors.Join(udp.SetNetworkLayerForChecksum(ip), gopacket.SerializeLayers(frame, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: q.ClientHWAddr, DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeIPv4}, ip, udp, gopacket.Payload(q.ToBytes()))); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	for range 40 {
		if _, err := c.WriteTo(frame.Bytes(), &packet.Addr{HardwareAddr: layers.EthernetBroadcast}); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		for {
			k, _, err := c.ReadFrom(buf)
			if err != nil {
				break // nothing yet: the server may be starting, or look whether the address is in use
			}
			if got, err := reply(buf[:k]); err == nil && got.TransactionID == q.TransactionID && got.OpCode == dhcpv4.OpcodeBootReply && bytes.Equal(got.ClientHWAddr, q.ClientHWAddr) {
				return got
			}
		}
	}
	t.Fatalf("nobody answers %s", capture)
	return nil
}

// reply reads the DHCP packet of a frame.
func reply(frame []byte) (*dhcpv4.DHCPv4, error) {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if !ok {
		return nil, fmt.Errorf("not UDP")
	}
	return dhcpv4.FromBytes(udp.Payload)
}
