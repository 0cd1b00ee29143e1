package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"github.com/vishvananda/netns"
)

// crowd plays many machines behind one relay agent, with the retries of PXE firmware
// (PXE 2.1 section 2.2.6: after 4, 8, 16 and 32 seconds).
type crowd struct {
	conn     *net.UDPConn
	replies  chan []byte
	machines []*machine
	byXID    map[uint32]*machine
	loss     float64 // share of packets lost on each way
	random   *rand.Rand
}

type machine struct {
	n         uint32 // its number, and its xid
	requested netip.Addr
	leased    netip.Addr
	began     time.Time
	took      time.Duration // to the ACK
	tries     int
	next      time.Time // when it asks again
	refused   bool      // by a NAK
}

// inside runs f in a network namespace. The thread goes back afterwards: were it to end,
// the servers that it started would be killed with it.
func inside(name string, f func() error) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, netns.Set(home), home.Close()) }()
	there, err := netns.GetFromName(name)
	if err != nil {
		return err
	}
	if err := errors.Join(netns.Set(there), there.Close()); err != nil {
		return err
	}
	return f()
}

func newCrowd(loss float64) (*crowd, error) {
	c := &crowd{replies: make(chan []byte, 65536), byXID: map[uint32]*machine{}, loss: loss, random: rand.New(rand.NewPCG(1, 2))}
	err := inside(clientNS, func() (err error) {
		c.conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(clientIP), Port: 67})
		return err
	})
	if err != nil {
		return nil, err
	}
	_ = c.conn.SetReadBuffer(32 << 20) // what the system grants must do
	// Whoever boots has a neighbour entry for the relay agent by then, and the agent for the server.
	if _, err := c.conn.WriteToUDP([]byte("hello"), &net.UDPAddr{IP: net.ParseIP(serverIP), Port: 9}); err != nil {
		return nil, errors.Join(err, c.conn.Close())
	}
	time.Sleep(200 * time.Millisecond)
	go func() {
		for {
			b := make([]byte, 1500)
			n, err := c.conn.Read(b)
			if err != nil {
				return
			}
			c.replies <- b[:n]
		}
	}()
	return c, nil
}

// join adds machines with the numbers from and up.
func (c *crowd) join(from, count int) []*machine {
	joined := make([]*machine, count)
	for i := range joined {
		joined[i] = &machine{n: uint32(from + i)}
		c.byXID[joined[i].n] = joined[i]
	}
	c.machines = append(c.machines, joined...)
	return joined
}

// send sends a DISCOVER, a REQUEST of what was offered, or one of what the machine had.
func (c *crowd) send(m *machine) {
	const discover, request = 1, 3
	kind := byte(discover)
	if m.requested.IsValid() {
		kind = request
	}
	b := make([]byte, 240, 400)
	b[0], b[1], b[2], b[3] = 1, 1, 6, 1
	binary.BigEndian.PutUint32(b[4:], m.n)
	copy(b[24:], netip.MustParseAddr(clientIP).AsSlice())
	copy(b[28:], []byte{0x52, 0x56})
	binary.BigEndian.PutUint32(b[30:], m.n)
	copy(b[236:], []byte{99, 130, 83, 99})
	b = append(b, 53, 1, kind, 93, 2, 0, 7, 94, 3, 1, 3, 0, 57, 2, 5, 0xc0, 60, 32)
	b = append(b, "PXEClient:Arch:00007:UNDI:003000"...)
	b = append(b, 97, 17, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
	b = binary.BigEndian.AppendUint32(b, m.n)
	if m.requested.IsValid() {
		b = append(append(b, 50, 4), m.requested.AsSlice()...)
	}
	if m.requested.IsValid() && !m.leased.IsValid() { // else INIT-REBOOT: it asks for what it had
		b = append(append(b, 54, 4), netip.MustParseAddr(serverIP).AsSlice()...)
	}
	if c.random.Float64() >= c.loss {
		_, _ = c.conn.WriteToUDP(append(b, 255), &net.UDPAddr{IP: net.ParseIP(serverIP), Port: 67}) // one that is not sent is lost
	}
}

// take takes a reply, and reports the machine that it gave an address for good, or none.
func (c *crowd) take(b []byte, now time.Time) (m *machine, done bool) {
	const offer, ack, nak = 2, 5, 6
	if len(b) < 243 || c.random.Float64() < c.loss {
		return nil, false
	}
	m = c.byXID[binary.BigEndian.Uint32(b[4:])]
	address := netip.AddrFrom4([4]byte(b[16:20]))
	if m == nil || m.took > 0 {
		return nil, false
	}
	switch messageType(b[240:]) {
	case offer:
		if !m.requested.IsValid() {
			m.requested, m.tries = address, 0
			c.ask(m, now)
		}
	case ack:
		m.leased, m.took = address, max(now.Sub(m.began), 1)
		return m, true
	case nak:
		m.refused, m.took = true, max(now.Sub(m.began), 1)
		return m, true
	}
	return nil, false
}

// messageType reads option 53.
func messageType(options []byte) byte {
	for len(options) > 2 && options[0] != 255 {
		if options[0] == 53 {
			return options[2]
		}
		if options[0] == 0 {
			options = options[1:]
			continue
		}
		if len(options) < 2+int(options[1]) {
			return 0
		}
		options = options[2+int(options[1]):]
	}
	return 0
}

func (c *crowd) ask(m *machine, now time.Time) {
	c.send(m)
	m.tries++
	m.next = now.Add(4 * time.Second << min(m.tries-1, 3))
}

// play has machines ask until each has an answer or the time is up; interval is between
// two machines' first packets.
func (c *crowd) play(ctx context.Context, machines []*machine, interval, limit time.Duration) error {
	began := time.Now()
	started, open := 0, len(machines)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for open > 0 && time.Since(began) < limit {
		select {
		case b := <-c.replies:
			if _, done := c.take(b, time.Now()); done {
				open--
			}
			continue
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			for ; started < len(machines) && now.Sub(began) >= time.Duration(started)*interval; started++ {
				machines[started].began = time.Now()
				c.ask(machines[started], machines[started].began)
			}
			if now.UnixMilli()%20 != 0 {
				continue
			}
			for _, m := range machines[:started] {
				if m.took == 0 && now.After(m.next) {
					c.ask(m, now)
				}
			}
		}
	}
	return nil
}

// dhcpServer is a server under test.
type dhcpServer struct {
	name  string
	start func(context.Context) (*server, error)
	rate  int // exchanges a second that it can be asked for at least
}

func (r *rig) dhcpServers() []dhcpServer {
	return []dhcpServer{
		{"bootlane", func(ctx context.Context) (*server, error) { return r.serve(ctx, "") }, 2000},
		{"kea memfile", r.kea, 2000},
		{"dnsmasq", r.dnsmasqDHCP, 200},
	}
}

// storm powers on machines all at once.
func storm(ctx context.Context, r *rig) ([]result, error) {
	var out []result
	for _, s := range r.dhcpServers() {
		for _, load := range []struct {
			machines int
			loss     float64
		}{{1000, 0}, {5000, 0}, {1000, 0.05}, {5000, 0.05}} {
			got, err := r.oneStorm(ctx, s, load.machines, load.loss)
			if err != nil {
				return out, err
			}
			fmt.Printf("storm %-12s %-26s p99 %6.0f ms, %.0f us CPU, %s\n", s.name, got.Load, got.Rate, got.CPU, got.Note)
			out = append(out, got)
		}
	}
	return out, nil
}

func (r *rig) oneStorm(ctx context.Context, d dhcpServer, n int, loss float64) (_ result, err error) {
	s, err := d.start(ctx)
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	c, err := newCrowd(loss)
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, c.conn.Close()) }()
	before, err := s.cpu()
	if err != nil {
		return result{}, err
	}
	if err := c.play(ctx, c.join(1, n), 0, 65*time.Second); err != nil {
		return result{}, err
	}
	after, err := s.cpu()
	if err != nil {
		return result{}, fmt.Errorf("%s ended under load: %w", s.name, err)
	}
	var times []time.Duration
	for _, m := range c.machines {
		if m.leased.IsValid() {
			times = append(times, m.took)
		}
	}
	out := result{Bench: "storm", Server: d.name, Load: fmt.Sprintf("%d machines, %.0f %% loss", n, 100*loss), Unit: "ms to the ACK, p99", PerWhat: "lease", Command: "package bench, storm.go"}
	if len(times) == 0 {
		out.Note = "nobody was given an address"
		return out, nil
	}
	slices.Sort(times)
	out.Rate = float64(times[len(times)*99/100].Milliseconds())
	out.CPU = float64((after - before).Microseconds()) / float64(len(times))
	out.Note = fmt.Sprintf("median %d ms, last %d ms, %d without", times[len(times)/2].Milliseconds(), times[len(times)-1].Milliseconds(), n-len(times))
	return out, nil
}

// killed kills servers under load, and counts what they had acknowledged and forgot.
func killed(ctx context.Context, r *rig) ([]result, error) {
	var out []result
	for _, s := range r.dhcpServers() {
		got, err := r.kill(ctx, s)
		if err != nil {
			return out, err
		}
		fmt.Printf("kill  %-12s %.0f acknowledged leases lost or given twice; %s\n", s.name, got.Rate, got.Note)
		out = append(out, got)
	}
	return out, nil
}

func (r *rig) kill(ctx context.Context, d dhcpServer) (_ result, err error) {
	s, err := d.start(ctx)
	if err != nil {
		return result{}, err
	}
	args := s.cmd.Args[4:] // behind ip netns exec NAME
	c, err := newCrowd(0)
	if err != nil {
		return result{}, errors.Join(err, s.stop())
	}
	defer func() { err = errors.Join(err, c.conn.Close()) }()
	time.AfterFunc(2*time.Second, func() { _ = s.cmd.Process.Kill() })
	interval := time.Second / time.Duration(d.rate)
	if err := c.play(ctx, c.join(1, 4*d.rate), interval, 2500*time.Millisecond); err != nil {
		return result{}, err
	}
	<-s.ended // it was killed
	had := map[netip.Addr]*machine{}
	for _, m := range c.machines {
		if m.leased.IsValid() {
			had[m.leased] = m
		}
	}
	if s, err = r.start(ctx, s.name, args...); err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	strangers := c.join(1_000_000, len(had)/2)
	if err := c.play(ctx, strangers, interval, 20*time.Second); err != nil {
		return result{}, err
	}
	var again []*machine
	for _, m := range had {
		m.requested, m.took, m.tries = m.leased, 0, 0 // the lease stays known: it asks as after a reboot
		again = append(again, m)
	}
	if err := c.play(ctx, again, interval, 20*time.Second); err != nil {
		return result{}, err
	}
	twice, lost := 0, 0
	for _, m := range strangers {
		if m.leased.IsValid() && had[m.leased] != nil {
			twice++
		}
	}
	for address, m := range had {
		if m.took == 0 || m.refused || m.leased != address {
			lost++
		}
	}
	return result{Bench: "kill -9", Server: d.name, Load: fmt.Sprintf("%d exchanges/s", d.rate), Rate: float64(twice + lost), Unit: "leases lost or given twice", PerWhat: "-",
		Note: fmt.Sprintf("%d were acknowledged, %d are not renewed, %d have two holders", len(had), lost, twice), Command: "package bench, storm.go"}, nil
}
