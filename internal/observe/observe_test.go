package observe

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/net/bpf"

	"bootlane/internal/lane"
	"bootlane/internal/nettest"
	"bootlane/internal/pcap"
)

func TestMain(m *testing.M) { os.Exit(nettest.Main(m)) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// segment is a cable: our end in the test's namespace, and the neighbour's in its own.
type segment struct {
	neighbour netns.NsHandle
	path      string
}

func newSegment(t *testing.T) segment {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	must(t, err)
	other, err := netns.New()
	must(t, err)
	must(t, netns.Set(here))
	must(t, here.Close())
	t.Cleanup(func() { unplug(t); must(t, other.Close()) })
	plug(t, other)
	return segment{other, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(other))}
}

func unplug(t *testing.T) {
	t.Helper()
	veth, err := netlink.LinkByName("obs0")
	must(t, err)
	must(t, netlink.LinkDel(veth))
}

// plug lays the cable.
func plug(t *testing.T, other netns.NsHandle) {
	t.Helper()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "obs0"}, PeerName: "nbr0", PeerHardwareAddr: []byte{0x52, 0x54, 0, 0, 0, 0x77}}
	must(t, netlink.LinkAdd(veth))
	addr, err := netlink.ParseAddr("192.168.78.1/24")
	must(t, err)
	peer, err := netlink.LinkByName("nbr0")
	must(t, err)
	for _, err := range []error{netlink.LinkSetNsFd(peer, int(other)), netlink.AddrAdd(veth, addr), netlink.LinkSetUp(veth)} {
		must(t, err)
	}
	h, err := netlink.NewHandleAt(other)
	must(t, err)
	defer h.Close()
	peer, err = h.LinkByName("nbr0")
	must(t, err)
	addr, err = netlink.ParseAddr("192.168.78.2/24")
	must(t, err)
	for _, err := range []error{h.AddrAdd(peer, addr), h.LinkSetUp(peer)} {
		must(t, err)
	}
}

// dnsmasq runs a DHCP server of the neighbour's until the test ends, and returns the file
// of its leases.
func (s segment) dnsmasq(t *testing.T, args ...string) (leases string) {
	t.Helper()
	if _, err := exec.LookPath("dnsmasq"); err != nil {
		t.Fatal("dnsmasq is missing: apt-get install dnsmasq-base")
	}
	ctx, cancel := context.WithCancel(context.Background())
	var said lockedBuffer
	leases = filepath.Join(t.TempDir(), "leases")
	args = append([]string{"--net=" + s.path, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=-", "--log-dhcp", "--port=0", "--interface=nbr0", "--bind-dynamic", "--no-ping",
		"--user=root", "--pid-file=", "--dhcp-leasefile=" + leases}, args...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed: its status says so
		if t.Failed() {
			t.Logf("dnsmasq said:\n%s", said.String())
		}
	})
	nettest.Eventually(t, "dnsmasq listens", func() bool {
		return strings.Contains(said.String(), "sockets bound exclusively") || strings.Contains(said.String(), "DHCP, ")
	})
	return leases
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// witness keeps what it is told.
type witness struct {
	mu      sync.Mutex
	foreign []lane.Responder
	lost    []string
}

func (w *witness) Foreign(r lane.Responder) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.foreign = append(w.foreign, r)
}

func (w *witness) Lost(m lane.MAC, iface, server string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost = append(w.lost, fmt.Sprintf("%s %s %s", m, iface, server))
}

func (w *witness) told() ([]lane.Responder, []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.foreign), slices.Clone(w.lost)
}

func start(t *testing.T, cfg Config) (*Observer, *witness) {
	t.Helper()
	w := &witness{}
	if cfg.Interfaces == nil {
		cfg.Interfaces = []Interface{{Name: "obs0", Owned: true}}
	}
	cfg.Evidence, cfg.Rand, cfg.Log = w, rand.Reader, slog.New(slog.NewTextHandler(io.Discard, nil))
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	o, err := New(cfg)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-done)
	})
	return o, w
}

// send sends a frame from the neighbour's end.
func (s segment) send(t *testing.T, frame []byte) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	must(t, err)
	defer func() { must(t, netns.Set(here)); must(t, here.Close()) }()
	must(t, netns.Set(s.neighbour))
	ifi, err := net.InterfaceByName("nbr0")
	must(t, err)
	c, err := packet.Listen(ifi, packet.Raw, allProtocols, nil)
	must(t, err)
	_, err = c.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]})
	must(t, err)
	must(t, c.Close())
}

// TestProbe asks a real dnsmasq that is a server of addresses and of PXE.
func TestProbe(t *testing.T) {
	s := newSegment(t)
	leases := s.dnsmasq(t, "--dhcp-range=192.168.78.100,192.168.78.110", "--dhcp-option=vendor:PXEClient,6,8", "--dhcp-boot=stray.efi", "--dhcp-option-force=60,PXEClient", "--dhcp-rapid-commit")
	o, w := start(t, Config{})
	p, err := o.Probe(t.Context(), "obs0")
	must(t, err)
	if len(p.Foreign) != 1 || len(p.Interfaces) != 1 {
		t.Fatalf("%+v", p)
	}
	r := p.Foreign[0]
	if r.Server != "192.168.78.2" || r.Address != "192.168.78.2" || r.MAC != "52:54:00:00:00:77" || !r.Gives || !r.PXE || r.BootFile != "stray.efi" || r.Count != 2 || r.Interface != "obs0" || r.First.IsZero() {
		t.Errorf("%+v", r)
	}
	if pk, ok := pcap.Frame(r.Packet); !ok || pk.FromMAC != r.MAC {
		t.Errorf("the packet kept is %x", r.Packet)
	}
	first, _ := w.told()
	t.Run("PR-14 another PXE server on the segment is evidence", func(t *testing.T) {
		if len(first) != 1 || !first[0].PXE || first[0].Finding() == "" || first[0].MAC != "52:54:00:00:00:77" {
			t.Errorf("%+v", first)
		}
	})
	if _, err := o.Probe(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if again, _ := w.told(); len(first) == 0 || len(again) != len(first) {
		t.Errorf("told %d times after one probe, %d after two: a chatty neighbour is one event", len(first), len(again))
	}
	if list := o.Responders(); len(list) != 1 || list[0].Count != 4 {
		t.Errorf("%+v", list)
	}
	if taken, err := os.ReadFile(leases); err != nil || len(taken) > 0 {
		t.Errorf("an address was taken: %s %v", taken, err)
	}
	var b bytes.Buffer
	must(t, o.Export(&b, "obs0", nil))
	c, err := pcap.Read(b.Bytes())
	must(t, err)
	got := map[string]int{}
	for _, p := range c.Packets {
		m, _ := pcap.DHCP(p)
		got[m.Kind]++
	}
	if got["DISCOVER"] != 4 || got["OFFER"] != 4 || len(got) != 2 {
		t.Errorf("the recording has %v", got)
	}
	if _, err := o.Probe(t.Context(), "eth9"); lane.CodeOf(err) != lane.NotFound || !strings.Contains(err.Error(), "[obs0]") {
		t.Errorf("an unknown interface: %v", err)
	}
}

// TestNobody: with no neighbour, a probe finds none.
func TestNobody(t *testing.T) {
	newSegment(t)
	o, w := start(t, Config{})
	p, err := o.Probe(t.Context(), "")
	must(t, err)
	if told, _ := w.told(); len(p.Foreign) != 0 || len(told) != 0 {
		t.Errorf("%+v, %v", p, told)
	}
}

// TestTimer: it probes by itself.
func TestTimer(t *testing.T) {
	s := newSegment(t)
	s.dnsmasq(t, "--dhcp-range=192.168.78.100,192.168.78.110")
	_, w := start(t, Config{Every: 100 * time.Millisecond})
	nettest.Eventually(t, "the neighbour is told", func() bool { told, _ := w.told(); return len(told) == 1 && told[0].Gives && !told[0].PXE })
}

// TestLost: a machine takes another server's offer.
func TestLost(t *testing.T) {
	s := newSegment(t)
	o, w := start(t, Config{Interfaces: []Interface{{Name: "obs0", Owned: true, Servers: []netip.Addr{netip.MustParseAddr("192.168.78.9")}}}})
	frame := request(t, "192.168.78.2")
	s.send(t, frame)
	s.send(t, frame)
	s.send(t, request(t, "192.168.78.1"))
	nettest.Eventually(t, "all is heard", func() bool {
		var b bytes.Buffer
		if err := o.Export(&b, "", nil); lane.CodeOf(err) == lane.NotFound {
			return false
		}
		c, err := pcap.Read(b.Bytes())
		must(t, err)
		return len(c.Packets) == 3
	})
	if _, lost := w.told(); len(lost) != 1 || lost[0] != "52:54:00:12:34:56 obs0 192.168.78.2" {
		t.Errorf("%q", lost)
	}
	relayed := request(t, "192.168.78.8")
	copy(relayed[14+20+8+24:], []byte{192, 168, 78, 8}) // giaddr: its agent stands in our place
	for i, ours := range [][]byte{nil, request(t, "192.168.78.9"), relayed} {
		if ours != nil {
			s.send(t, ours)
		}
		s.send(t, frame) // it was ours in between
		nettest.Eventually(t, "it is news again", func() bool { _, lost := w.told(); return len(lost) == 2+i })
	}
	var b bytes.Buffer
	if err := o.Export(&b, "", []lane.MAC{"52:54:00:99:99:99"}); lane.CodeOf(err) != lane.NotFound || b.Len() > 0 || !strings.Contains(err.Error(), "no boot packet of [52:54:00:99:99:99]") {
		t.Errorf("another machine's recording has %d bytes, %v", b.Len(), err)
	}
	must(t, o.Export(&b, "", []lane.MAC{"52:54:00:12:34:56"}))
	if c, err := pcap.Read(b.Bytes()); err != nil || c.Frames != 8 {
		t.Errorf("its own recording has %d frames, %v", c.Frames, err)
	}
}

// request makes the frame of a REQUEST for a server's offer, whoever sends it.
func request(t *testing.T, server string) []byte {
	t.Helper()
	frame, err := pcap.Discover("52:54:00:12:34:56", "52:54:00:12:34:56", 7, false)
	must(t, err)
	frame[14+20+8+240+2] = 3 // option 53 stands first
	end := bytes.LastIndexByte(frame, 255)
	var a, b, c, d byte
	_, err = fmt.Sscanf(server, "%d.%d.%d.%d", &a, &b, &c, &d)
	must(t, err)
	copy(frame[end:], []byte{54, 4, a, b, c, d, 255})
	frame[14+20+6], frame[14+20+7] = 0, 0 // no checksum: it is optional in IPv4
	return frame
}

// TestMadeAnew: an interface that is deleted and made anew under its name is heard again,
// and probed.
func TestMadeAnew(t *testing.T) {
	s := newSegment(t)
	o, w := start(t, Config{})
	unplug(t)
	plug(t, s.neighbour)
	nettest.Eventually(t, "a machine is heard", func() bool {
		s.send(t, request(t, "192.168.78.2"))
		_, lost := w.told()
		return len(lost) > 0
	})
	ifi, err := net.InterfaceByName("obs0")
	must(t, err)
	nettest.Eventually(t, "its address now is ours", func() bool {
		o.links[0].mu.Lock()
		defer o.links[0].mu.Unlock()
		return string(o.links[0].mac) == ifi.HardwareAddr.String()
	})
	s.dnsmasq(t, "--dhcp-range=192.168.78.100,192.168.78.110")
	p, err := o.Probe(t.Context(), "obs0")
	must(t, err)
	if len(p.Foreign) != 1 {
		t.Errorf("%+v", p)
	}
}

// TestProxyMode: beside a site's own server, whoever takes its address is not lost.
func TestProxyMode(t *testing.T) {
	s := newSegment(t)
	o, w := start(t, Config{Interfaces: []Interface{{Name: "obs0"}}})
	s.send(t, request(t, "192.168.78.2"))
	nettest.Eventually(t, "it is heard", func() bool { var b bytes.Buffer; return o.Export(&b, "", nil) == nil && b.Len() > 400 })
	if _, lost := w.told(); len(lost) != 0 {
		t.Errorf("%q", lost)
	}
}

// TestFilter runs the kernel's filter over frames that must pass, and others.
func TestFilter(t *testing.T) {
	raw, err := filter()
	must(t, err)
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the filter cannot be read back")
	}
	vm, err := bpf.NewVM(program)
	must(t, err)
	four := func(src, dst uint16, fragment byte) []byte {
		b := make([]byte, 60)
		b[12], b[13], b[14], b[14+7], b[14+9] = 8, 0, 0x46, fragment, 17 // with IP options: 24 bytes of header
		b[38], b[39], b[40], b[41] = byte(src>>8), byte(src), byte(dst>>8), byte(dst)
		return b
	}
	six := func(proto byte, src, dst uint16) []byte {
		b := make([]byte, 70)
		b[12], b[13], b[14+6] = 0x86, 0xdd, proto
		b[54], b[55], b[56], b[57] = byte(src>>8), byte(src), byte(dst>>8), byte(dst)
		return b
	}
	opcode := func(frame []byte, at int, op byte) []byte { frame[at+1] = op; return frame }
	tftp4 := func(op byte) []byte { return opcode(four(2000, 69, 0), 46, op) }
	tftp6 := func(op byte) []byte { return opcode(six(17, 2000, 69), 62, op) }
	for _, c := range []struct {
		name  string
		frame []byte
		want  bool
	}{
		{"RRQ", tftp4(1), true}, {"WRQ", tftp4(2), true}, {"RRQ over IPv6", tftp6(1), true}, {"WRQ over IPv6", tftp6(2), true},
		{"ACK to a single port", tftp4(4), false}, {"ERROR to a single port", tftp4(5), false}, {"ACK to a single port over IPv6", tftp6(4), false},
		{"a scrap to port 69", tftp4(1)[:47], false},
		{"DISCOVER", four(68, 67, 0), true}, {"OFFER", four(67, 68, 0), true}, {"relayed", four(67, 67, 0), true}, {"boot server", four(1000, 4011, 0), true},
		{"boot server's answer", four(4011, 1000, 0), true}, {"TFTP data", four(3000, 2000, 0), false}, {"DNS", four(53, 1024, 0), false},
		{"a later fragment", four(68, 67, 9), false}, {"SOLICIT", six(17, 546, 547), true}, {"ADVERTISE", six(17, 547, 546), true},
		{"ICMPv6", six(58, 546, 547), false}, {"TCP", append(make([]byte, 12), append([]byte{8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 0, 6}, make([]byte, 40)...)...), false}, {"ARP", append(append(make([]byte, 12), 8, 6), make([]byte, 40)...), false}, {"cut", make([]byte, 13), false},
	} {
		n, err := vm.Run(c.frame)
		if err != nil || (n > 0) != c.want || n > 0 && n < pcap.MaxFrame && n < len(c.frame) {
			t.Errorf("%s: %d, %v", c.name, n, err)
		}
	}
}

// offered makes the frame of a neighbour's OFFER.
func offered(t *testing.T) []byte {
	t.Helper()
	const ip, udp, dhcp = 14, 14 + 20, 14 + 20 + 8
	f := request(t, "192.168.78.2")
	copy(f[ip+12:], []byte{192, 168, 78, 2})
	f[udp+1], f[udp+3] = 67, 68
	f[dhcp] = 2
	copy(f[dhcp+16:], []byte{192, 168, 78, 100})
	f[dhcp+240+2] = 2
	return f
}

// TestBounds: a segment full of strangers fills no memory, and a neighbour that
// changes its mind with every packet is no flood.
func TestBounds(t *testing.T) {
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	w := &witness{}
	cfg := Config{Evidence: w, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }}
	l := &link{Interface: Interface{Name: "obs0", Owned: true}, cfg: &cfg, mac: "02:00:00:00:00:01", ring: ring{limit: 100_000}, responders: map[key]*responder{}, lost: map[lane.MAC]time.Time{}, waiting: map[uint32][]key{}}
	frame := offered(t)
	for i := range 5000 {
		f := slices.Clone(frame)
		f[6], f[7], f[8] = 2, byte(i>>8), byte(i) // another sender each time
		l.take(f)
	}
	if len(l.responders) != maxResponders || l.ring.held > 100_000 || len(l.ring.records) == 0 {
		t.Errorf("%d responders, %d bytes", len(l.responders), l.ring.held)
	}
	if told, _ := w.told(); len(told) != maxResponders {
		t.Errorf("%d events", len(told))
	}
	w.foreign = nil
	for i := range 500 {
		f := slices.Clone(frame)
		f[6], f[7], f[8] = 2, 0, 0
		copy(f[14+20+8+108:], fmt.Sprintf("file-%d", i))
		l.take(f)
	}
	if told, _ := w.told(); len(told) != maxOffers-1 {
		t.Errorf("%d events of one neighbour's whims", len(told))
	}
	now = now.Add(again)
	w.foreign = nil
	for range 3 {
		f := slices.Clone(frame)
		f[6], f[7], f[8] = 2, 0, 0
		l.take(f)
	}
	if told, _ := w.told(); len(told) != 1 {
		t.Errorf("%d events on the next day", len(told))
	}
	for i := range maxLost + 10 {
		m, err := lane.MACFromBytes([]byte{2, 0, 0, 1, byte(i >> 8), byte(i)})
		must(t, err)
		l.took(pcap.Message{Version: 4, Kind: "REQUEST", Server: "192.168.78.9", Client: m, At: now})
	}
	if len(l.lost) > maxLost {
		t.Errorf("%d machines remembered", len(l.lost))
	}
	ours := slices.Clone(frame)
	copy(ours[6:], []byte{2, 0, 0, 0, 0, 1})
	w.foreign = nil
	l.take(ours)
	if told, _ := w.told(); len(told) != 0 {
		t.Error("our own answer is told as a stranger's")
	}
}

// cable is a connection on which frames lie ready, as in the kernel's buffer. An empty
// one is an error.
type cable struct {
	net.PacketConn
	frames chan []byte
}

func (c cable) ReadFrom(b []byte) (int, net.Addr, error) {
	f, ok := <-c.frames
	switch {
	case !ok:
		return 0, nil, net.ErrClosed
	case len(f) == 0:
		return 0, nil, syscall.ENETDOWN
	}
	return copy(b, f), nil, nil
}

// listener is an interface that is read in a bubble of [synctest]: time passes in Sleep only.
type listener struct {
	*link
	t     *testing.T
	cable cable
	skew  time.Duration // of the clock
	said  lockedBuffer
	ended chan struct{}
}

func listen(ctx context.Context, t *testing.T) *listener {
	l := &listener{t: t, cable: cable{frames: make(chan []byte, 3*storm)}, ended: make(chan struct{})}
	cfg := &Config{Evidence: &witness{}, Log: slog.New(slog.NewTextHandler(&l.said, nil)), Now: func() time.Time { return time.Now().Add(l.skew) }}
	l.link = &link{Interface: Interface{Name: "obs0", Owned: true}, cfg: cfg, conn: l.cable, ring: ring{limit: 1 << 30}, responders: map[key]*responder{}, lost: map[lane.MAC]time.Time{}, waiting: map[uint32][]key{}}
	go func() { l.receive(ctx); close(l.ended) }()
	return l
}

// expect lets time pass, and looks how many frames were heard and warnings given so far.
func (l *listener) expect(what string, pass time.Duration, heard, warnings int) {
	l.t.Helper()
	time.Sleep(pass)
	synctest.Wait()
	l.mu.Lock()
	n := len(l.ring.records)
	l.mu.Unlock()
	if n < heard || n > heard+3 { // the frame that begins a second is not counted, and one is in hand when the bound is seen
		l.t.Errorf("%s: %d frames are heard, want %d", what, n, heard)
	}
	if n := strings.Count(l.said.String(), "level=WARN"); n != warnings {
		l.t.Errorf("%s: %d warnings, want %d", what, n, warnings)
	}
}

// TestStorm: of a storm so much is heard in a second and the rest waits; it is said once
// a minute, and neither the storm's end nor a clock that is set back keeps anybody waiting.
func TestStorm(t *testing.T) {
	frame := request(t, "192.168.78.1")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := listen(ctx, t)
		send := func(frames int) {
			for range frames {
				l.cable.frames <- frame
			}
		}
		send(3 * storm)
		l.expect("a storm begins", 0, storm, 1)
		l.expect("it is still the same second", time.Second-1, storm, 1)
		l.expect("the next second", 1, 2*storm, 1)
		l.expect("the storm is over", time.Second, 3*storm, 1)
		send(100)
		l.expect("calm", time.Minute, 3*storm+100, 1)
		send(storm + 10)
		l.expect("the next storm", time.Second, 4*storm+110, 2)
		l.skew = -time.Hour
		send(storm)
		l.expect("the clock is set back", 0, 5*storm+110, 2)
		send(100)
		l.expect("a storm at the end", 0, 5*storm+110, 3)
		cancel()
		synctest.Wait()
		select {
		case <-l.ended:
		default:
			t.Error("a storm holds up the end")
		}
		close(l.cable.frames)
	})
}

// TestInterfaceDown: the error is told, and reading goes on after a moment.
func TestInterfaceDown(t *testing.T) {
	frame := request(t, "192.168.78.1")
	synctest.Test(t, func(t *testing.T) {
		l := listen(t.Context(), t)
		for range 50 {
			l.cable.frames <- frame
		}
		l.cable.frames <- nil
		for range 50 {
			l.cable.frames <- frame
		}
		l.expect("it goes down", time.Second-1, 50, 1)
		l.expect("it is up again", 1, 100, 1)
		close(l.cable.frames)
		<-l.ended
	})
}

// TestPrivilege: without CAP_NET_RAW the error names it.
func TestPrivilege(t *testing.T) {
	if os.Getenv("BOOTLANE_TEST_UNPRIVILEGED") != "" {
		_, err := New(Config{Interfaces: []Interface{{Name: nettest.ServerInterface, Owned: true}}})
		fmt.Println(lane.CodeOf(err), err)
		return
	}
	// root gets back on exec whatever is in its bounding set.
	cmd := exec.CommandContext(t.Context(), "setpriv", "--bounding-set", "-net_raw", os.Args[0], "-test.run=^TestPrivilege$")
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "BOOTLANE_TEST_NETNS=") }), "BOOTLANE_TEST_UNPRIVILEGED=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "unavailable") || !strings.Contains(string(out), "CAP_NET_RAW") {
		t.Errorf("%s %v", out, err)
	}
	if _, err := New(Config{Interfaces: []Interface{{Name: "eth9", Owned: true}}}); lane.CodeOf(err) != lane.Unavailable || !strings.Contains(err.Error(), "ip -br link") {
		t.Errorf("no such interface: %v", err)
	}
}
