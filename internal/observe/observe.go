// Package observe hears what is said on the boot networks, ours and others'. It keeps
// the last boot packets of every interface, tells of servers that are not ours, and
// asks, now and then, who would answer a machine. It never takes an address.
package observe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/mdlayher/packet"

	"bootlane/internal/lane"
	"bootlane/internal/pcap"
	"bootlane/internal/udp"
)

// Evidence takes what was heard.
type Evidence interface {
	// Foreign takes another server: when it was first heard, when it offers something
	// new, and once a day.
	Foreign(r lane.Responder)
	// Lost takes that a machine asks another server for the address it offered.
	Lost(m lane.MAC, iface, server string)
}

// Interface is one to observe.
type Interface struct {
	Name string
	// Owned says that addresses are given there by us alone: a machine that takes
	// another server's is lost to us. Beside a site's own server it is not.
	Owned bool
	// Servers are further addresses by which we are named there: ours on other interfaces, and
	// those that relay agents put in our place (RFC 5107).
	Servers []netip.Addr
}

// Config is what an Observer is made of.
type Config struct {
	Interfaces []Interface
	Evidence   Evidence
	Every      time.Duration // how often to probe by ourselves; 0: never
	Buffer     int           // bytes kept of each interface; 0: 8 MiB
	Now        func() time.Time
	Rand       io.Reader
	Log        *slog.Logger
}

// Bounds of what strangers can make us remember.
const (
	defaultBuffer = 8 << 20
	maxResponders = 256  // of an interface
	maxOffers     = 16   // different ones of a responder that are news
	maxLost       = 4096 // machines whose loss was told
	again         = 24 * time.Hour
	storm         = 2000 // frames of an interface in a second that are heard: see receive
)

// Observer observes. It is safe for concurrent use.
type Observer struct {
	cfg   Config
	links []*link
}

// link is one interface.
type link struct {
	Interface
	conn    net.PacketConn
	socket  syscall.Conn // conn's
	cfg     *Config
	probing sync.Mutex // one probe at a time

	mu         sync.Mutex
	index      int
	mac        lane.MAC
	own        []netip.Addr
	ring       ring
	responders map[key]*responder
	lost       map[lane.MAC]time.Time
	waiting    map[uint32][]key // who answered, by the transactions of a probe
}

// key tells responders apart: one server may answer by several addresses, and two by one.
type key struct {
	server string
	mac    lane.MAC
}

type responder struct {
	lane.Responder
	offers map[offer]bool
	told   time.Time
}

// offer is what makes an answer news.
type offer struct {
	gives, pxe bool
	file       string
}

// New opens a packet socket on every interface.
func New(cfg Config) (*Observer, error) {
	o := &Observer{cfg: cfg}
	for _, i := range cfg.Interfaces {
		l, err := open(&o.cfg, i)
		if err != nil {
			return nil, errors.Join(err, o.close())
		}
		o.links = append(o.links, l)
	}
	return o, nil
}

// allProtocols is ETH_P_ALL: what we send is part of the conversation.
const allProtocols = 3

func open(cfg *Config, i Interface) (*link, error) {
	fail := func(err error) error {
		hint := "`ip -br link` shows the interfaces that exist"
		switch {
		case errors.Is(err, fs.ErrPermission):
			hint = "bootlane needs root, or CAP_NET_RAW"
		case errors.Is(err, syscall.EAFNOSUPPORT):
			hint = "AF_PACKET is forbidden: add it to RestrictAddressFamilies of the systemd unit"
		}
		return &lane.Error{Code: lane.Unavailable, Message: fmt.Sprintf("observe the interface %q: %s", i.Name, hint), Err: err}
	}
	ifi, err := net.InterfaceByName(i.Name)
	if err != nil {
		return nil, fail(err)
	}
	program, err := filter()
	if err != nil {
		return nil, err
	}
	conn, err := packet.Listen(ifi, packet.Raw, allProtocols, &packet.Config{Filter: program})
	if err != nil {
		return nil, fail(err)
	}
	l := &link{Interface: i, index: ifi.Index, conn: conn, socket: conn, cfg: cfg, ring: ring{limit: cmp.Or(cfg.Buffer, defaultBuffer)},
		responders: map[key]*responder{}, lost: map[lane.MAC]time.Time{}, waiting: map[uint32][]key{}}
	if err := l.refresh(); err != nil {
		return nil, errors.Join(fail(err), conn.Close())
	}
	return l, nil
}

// refresh reads what is ours of the interface: it may change while we run.
func (l *link) refresh() error {
	l.mu.Lock()
	index := l.index
	l.mu.Unlock()
	ifi, err := net.InterfaceByIndex(index)
	if err != nil {
		return fmt.Errorf("read the interface: %w", err)
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return fmt.Errorf("read the interface's addresses: %w", err)
	}
	var own []netip.Addr
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, p.Addr())
		}
	}
	m, _ := lane.MACFromBytes(ifi.HardwareAddr) // none of a tunnel
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mac, l.own = m, own
	return nil
}

func (o *Observer) close() error {
	var err error
	for _, l := range o.links {
		err = errors.Join(err, l.conn.Close())
	}
	return err
}

// Run listens until ctx ends, then closes the sockets.
func (o *Observer) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = o.close() }) // ends the reads below
	defer stop()
	var wg sync.WaitGroup
	for _, l := range o.links {
		wg.Go(func() { l.receive(ctx) })
		wg.Go(func() { l.follow(ctx) })
		if o.cfg.Every > 0 {
			wg.Go(func() { o.repeat(ctx, l) })
		}
	}
	wg.Wait()
	return nil
}

// follow stays with the interface when it is made anew, until ctx ends.
func (l *link) follow(ctx context.Context) {
	udp.Follow(ctx, l.socket, l.Name, l.index, l.cfg.Log, func(fd, index int) error {
		if _, err := udp.TieFrames(fd, index, allProtocols); err != nil {
			return err
		}
		l.mu.Lock()
		l.index = index
		l.mu.Unlock()
		return l.refresh()
	})
}

// receive reads one interface until ctx ends. An interface that goes down must not
// end the server: the error is told, and reading goes on. Nor may a storm have the server
// look at everything twice: what is above the bound waits in the kernel, or is dropped
// there, until the second is over.
func (l *link) receive(ctx context.Context) {
	buf := make([]byte, pcap.MaxFrame)
	var began, warned time.Time
	heard := 0
	for {
		n, _, err := l.conn.ReadFrom(buf)
		if now := l.cfg.Now(); now.Sub(began).Abs() >= time.Second {
			began, heard = now, 0
		} else if heard++; heard > storm {
			if now.Sub(warned).Abs() >= time.Minute {
				l.cfg.Log.Warn("boot packets come faster than they can be recorded: the recording has gaps", "interface", l.Name)
				warned = now
			}
			wait(ctx, time.Second-now.Sub(began))
		}
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			l.cfg.Log.Warn("cannot observe for a moment", "interface", l.Name, "err", err)
			wait(ctx, time.Second)
		default:
			l.take(buf[:n])
		}
	}
}

// take keeps a frame, and hears what it says.
func (l *link) take(frame []byte) {
	now := l.cfg.Now()
	if len(frame) < 14 { // no Ethernet
		return
	}
	l.mu.Lock()
	l.ring.add(now, frame)
	if m, err := lane.MACFromBytes(frame[6:12]); err == nil && m == l.mac {
		l.mu.Unlock()
		return // our own answer
	}
	p, ok := pcap.Frame(frame)
	if !ok {
		l.mu.Unlock()
		return
	}
	m, ok := pcap.DHCP(p)
	if !ok {
		l.mu.Unlock()
		return
	}
	m.At = now
	var news *lane.Responder
	var lost lane.MAC
	if m.Reply() {
		news = l.heard(m, frame)
	} else if l.took(m) {
		lost = m.Client
	}
	l.mu.Unlock() // the evidence is not told under the lock
	if news != nil {
		level := slog.LevelInfo // a proxied network has a server that gives addresses
		if l.Owned || news.PXE {
			level = slog.LevelWarn
		}
		l.cfg.Log.Log(context.Background(), level, "another DHCP server answers", "interface", l.Name, "server", news.Server, "mac", news.MAC, "gives", news.Gives, "pxe", news.PXE)
		l.cfg.Evidence.Foreign(*news)
	}
	if lost != "" {
		l.cfg.Evidence.Lost(lost, l.Name, m.Server)
	}
}

// foreign reports whether somebody else sent an answer.
func (l *link) foreign(m pcap.Message) bool {
	server, _ := netip.ParseAddr(m.Server)
	return m.FromMAC != l.mac && !slices.Contains(l.own, m.From.Addr().WithZone("")) && !slices.Contains(l.own, server)
}

// heard takes in an answer, and returns the responder when that is news.
func (l *link) heard(m pcap.Message, frame []byte) *lane.Responder {
	if !l.foreign(m) {
		return nil
	}
	k := key{cmp.Or(m.Server, m.From.Addr().String()), m.FromMAC}
	r, known := l.responders[k]
	if !known {
		if len(l.responders) == maxResponders {
			return nil
		}
		r = &responder{Responder: lane.Responder{Interface: l.Name, Server: k.server, MAC: k.mac, First: m.At}, offers: map[offer]bool{}}
		l.responders[k] = r
	}
	r.Address, r.Last, r.Packet = m.From.Addr().String(), m.At, slices.Clone(frame)
	r.Count++
	r.Gives = r.Gives || m.Address.IsValid()
	r.PXE = r.PXE || m.PXEClass()
	r.BootFile = cmp.Or(m.BootFile, r.BootFile)
	if asked, ok := l.waiting[m.XID]; ok && !slices.Contains(asked, k) {
		l.waiting[m.XID] = append(asked, k)
	}
	o := offer{m.Address.IsValid(), m.PXEClass(), m.BootFile}
	fresh := !r.offers[o] && len(r.offers) < maxOffers && m.Kind != "NAK"
	if fresh {
		r.offers[o] = true
	}
	if !fresh && m.At.Sub(r.told) < again && known {
		return nil
	}
	r.told = m.At
	out := r.Responder
	return &out
}

// took reports whether a client asks another server for an address that should be
// ours to give, and nobody was told so today.
func (l *link) took(m pcap.Message) bool {
	if !l.Owned || m.Version != 4 || m.Kind != "REQUEST" || m.Server == "" || m.Client == "" {
		return false
	}
	server, err := netip.ParseAddr(m.Server)
	if err != nil || server == m.Relay || slices.Contains(l.own, server) || slices.Contains(l.Servers, server) {
		delete(l.lost, m.Client) // it is ours again: the next loss is news
		return false
	}
	if told, ok := l.lost[m.Client]; ok && m.At.Sub(told) < lostAgain {
		return false
	}
	if len(l.lost) == maxLost {
		clear(l.lost) // rather told twice than growing
	}
	l.lost[m.Client] = m.At
	return true
}

// lostAgain is how long a machine that keeps booting from elsewhere is no news.
const lostAgain = time.Hour

// Responders returns the servers that are not ours, by interface and address.
func (o *Observer) Responders() []lane.Responder {
	out := []lane.Responder{}
	for _, l := range o.links {
		l.mu.Lock()
		for _, r := range l.responders {
			out = append(out, r.Responder)
		}
		l.mu.Unlock()
	}
	slices.SortFunc(out, compare)
	return out
}

func compare(a, b lane.Responder) int {
	return cmp.Or(cmp.Compare(a.Interface, b.Interface), cmp.Compare(a.Server, b.Server), cmp.Compare(a.MAC, b.MAC))
}

// Export writes what the interfaces recorded as pcapng: all of it, or the
// conversations of some machines; of one interface, or of all when iface is empty. NotFound
// where that is nothing.
func (o *Observer) Export(w io.Writer, iface string, macs []lane.MAC) error {
	var out []pcap.Source
	packets := 0
	for _, l := range o.links {
		if iface != "" && l.Name != iface {
			continue
		}
		l.mu.Lock()
		records := pcap.Of(slices.Clone(l.ring.records), macs)
		l.mu.Unlock()
		out, packets = append(out, pcap.Source{Interface: l.Name, Records: records}), packets+len(records)
	}
	switch {
	case len(out) == 0:
		return o.unknown(iface)
	case packets == 0 && len(macs) > 0:
		return lane.Errorf(lane.NotFound, "no boot packet of %v was recorded: has the machine booted by network since the server started? The last packets of all machines are in `bootlane events net:INTERFACE --pcap FILE`", macs)
	case packets == 0:
		return lane.Errorf(lane.NotFound, "no boot packet was recorded since the server started")
	}
	return pcap.Write(w, out)
}

func (o *Observer) unknown(iface string) error {
	var names []string
	for _, l := range o.links {
		names = append(names, l.Name)
	}
	return lane.Errorf(lane.NotFound, "the interface %q is not observed: the configuration names %v", iface, names)
}
