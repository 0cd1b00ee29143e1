package tftp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"bootlane/internal/nettest"
)

// serveVariable makes the test binary a TFTP server on port 69 instead of running tests. The server needs a process of its
// own in the namespace, because its sockets are opened by whatever thread a goroutine happens to run on.
const serveVariable = "BOOTLANE_TFTP_TEST_SERVE"

func TestMain(m *testing.M) {
	if os.Getenv(serveVariable) == "" {
		os.Exit(m.Run())
	}
	if err := serveInNamespace(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// line is a Transfer as JSON, which cannot hold an error.
type line struct {
	Transfer
	Err string
}

// serveInNamespace serves until standard input ends, on port 69, and on port 70 with that port alone. It prints "ready", and
// then each Transfer as a line of JSON.
func serveInNamespace() error {
	out := json.NewEncoder(os.Stdout)
	lines := make(chan Transfer, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var servers []*Server
	for _, c := range []Config{{Addr: ":69"}, {Addr: ":70", SinglePort: true}} {
		c.Source, c.Now, c.Done = sized(), time.Now, func(tr Transfer) { lines <- tr }
		server, err := New(c)
		if err != nil {
			return err
		}
		servers = append(servers, server)
	}
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadByte()
		cancel()
	}()
	go func() {
		fmt.Println("ready")
		for tr := range lines {
			_ = out.Encode(line{tr, fmt.Sprint(tr.Err)})
		}
	}()
	single := make(chan error)
	go func() { single <- servers[1].Run(ctx) }()
	return errors.Join(servers[0].Run(ctx), <-single)
}

// inNamespace runs f on a thread that is in ns and comes back.
func inNamespace(t testing.TB, ns netns.NsHandle, f func()) {
	t.Helper()
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := netns.Set(home); err == nil { // else the thread stays locked and dies with the goroutine
			runtime.UnlockOSThread()
		}
		home.Close()
	}()
	if err := netns.Set(ns); err != nil {
		t.Fatalf("enter namespace (the tests run as root): %v", err)
	}
	f()
}

// newNamespace makes an empty namespace.
func newNamespace(t testing.TB) (ns netns.NsHandle) {
	t.Helper()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	inNamespace(t, home, func() {
		if ns, err = netns.New(); err != nil {
			t.Fatalf("make namespace (the tests run as root): %v", err)
		}
	})
	t.Cleanup(func() { ns.Close() })
	return ns
}

// configure brings an interface up with addresses.
func configure(t testing.TB, ns netns.NsHandle, name string, addresses ...string) {
	t.Helper()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := h.AddrAdd(link, addr); err != nil {
			t.Fatalf("add %s to %s: %v", a, name, err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
}

// wire is a server in one namespace and room for clients in another, with a cable of MTU 1500 in between.
type wire struct {
	server, client netns.NsHandle

	mu        sync.Mutex
	transfers *bufio.Scanner
	seen      map[string]line // by the name of the file
}

// cable makes a veth pair between two namespaces.
func cable(t testing.TB, a netns.NsHandle, name string, b netns.NsHandle, peer string) {
	t.Helper()
	h, err := netlink.NewHandleAt(a)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer, PeerNamespace: netlink.NsFd(b)}); err != nil {
		t.Fatalf("make veth pair: %v", err)
	}
}

func newWire(t testing.TB) *wire {
	t.Helper()
	w := &wire{server: newNamespace(t), client: newNamespace(t), seen: map[string]line{}}
	cable(t, w.server, "srv0", w.client, "cli0")
	w.start(t)
	return w
}

// newLossyWire is a wire with a bad cable.
func newLossyWire(t testing.TB, l nettest.Lossy) *wire {
	t.Helper()
	w := &wire{server: newNamespace(t), client: newNamespace(t), seen: map[string]line{}}
	middle := newNamespace(t)
	cable(t, w.server, "srv0", middle, "mid0")
	cable(t, w.client, "cli0", middle, "mid1")
	configure(t, middle, "mid0")
	configure(t, middle, "mid1")
	whole(t, w.server, "srv0")
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	inNamespace(t, middle, func() {
		if err := l.Join(ctx, "mid0", "mid1"); err != nil {
			t.Fatal(err)
		}
	})
	w.start(t)
	return w
}

// whole makes an interface pass packets as they are on a wire, not several in one for the
// next network card to cut up: the cable's program passes what it gets.
func whole(t testing.TB, ns netns.NsHandle, name string) {
	t.Helper()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.LinkSetGSOMaxSegs(link, 1); err != nil {
		t.Fatal(err)
	}
}

// start starts the server.
func (w *wire) start(t testing.TB) {
	t.Helper()
	configure(t, w.server, "lo")
	configure(t, w.server, "srv0", "10.77.0.1/24", "10.77.0.9/24", "fd77::1/64", "fe80::77:1/64")
	configure(t, w.client, "cli0", "10.77.0.2/24", "10.78.0.2/24", "fd77::2/64", "fe80::77:2/64")

	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveVariable+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	inNamespace(t, w.server, func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("server: %v", err)
		}
	})
	w.transfers = bufio.NewScanner(stdout)
	if !w.transfers.Scan() || w.transfers.Text() != "ready" {
		t.Fatalf("the server does not start: %q", w.transfers.Text())
	}
}

// ended returns what the server reported about the download of a file. Others may wait meanwhile: it keeps theirs.
func (w *wire) ended(t testing.TB, name string) line {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if l, ok := w.seen[name]; ok {
			return l
		}
		if !w.transfers.Scan() {
			t.Fatalf("no transfer was reported: %v", w.transfers.Err())
		}
		var l line
		if err := json.Unmarshal(w.transfers.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		w.seen[l.Name] = l
	}
}

// run runs a command in a namespace and returns what it printed.
func run(t testing.TB, ns netns.NsHandle, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 6*clientPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Dir = t.TempDir()
	var err error
	inNamespace(t, ns, func() { err = cmd.Start() })
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out.String())
	}
	return out.String()
}

// fragments returns how many IP fragments a namespace made.
func fragments(t testing.TB, ns netns.NsHandle) (n int) {
	t.Helper()
	lines := strings.Split(run(t, ns, "cat", "/proc/net/snmp", "/proc/net/snmp6"), "\n")
	for i, line := range lines {
		fields := strings.Fields(line)
		if len(fields) == 2 && fields[0] == "Ip6FragCreates" {
			v, _ := strconv.Atoi(fields[1])
			n += v
		}
		if i == 0 {
			values := strings.Fields(lines[1])
			for k, name := range fields {
				if name == "FragCreates" {
					v, _ := strconv.Atoi(values[k])
					n += v
				}
			}
		}
	}
	return n
}

// fetch is one download with a client that others wrote.
type fetch struct {
	id      string
	client  string // the program
	address string
	options []string
	size    int64
	blksize int // what must have been agreed
	window  int
}

// command returns the command line that downloads a file to another.
func (f fetch) command(name, to string) []string {
	switch f.client {
	case "tftp":
		return append(f.options, "-m", "octet", f.address, "-c", "get", name, to)
	case "atftp":
		return append(f.options, "--get", "--remote-file", name, "--local-file", to, f.address, "69")
	}
	host := f.address
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return append(f.options, "--silent", "--show-error", "--globoff", "--output", to, "tftp://"+host+"/"+name)
}

// run downloads and compares.
func (f fetch) run(t *testing.T, w *wire) {
	name := fmt.Sprintf("size-%d.%s", f.size, strings.ReplaceAll(f.id, " ", "-"))
	to := filepath.Join(t.TempDir(), "got")
	run(t, w.client, f.client, f.command(name, to)...)
	got, err := os.ReadFile(to)
	if err != nil && !(f.size == 0 && os.IsNotExist(err)) { // curl makes no file for nothing
		t.Fatal(err)
	}
	if sha256.Sum256(got) != sha256.Sum256(pattern(f.size)) {
		t.Errorf("got %d bytes that are not the file of %d", len(got), f.size)
	}
	l := w.ended(t, name)
	if l.Outcome != OutcomeComplete || l.Bytes != f.size || l.BlockSize != f.blksize || l.WindowSize != f.window ||
		l.Local.String() != f.address || l.Interface != "srv0" {
		t.Errorf("reported %+v", l)
	}
}

// fetches returns the downloads of TestClients.
func fetches() (list []fetch) {
	const four, six = "10.77.0.1", "fd77::1"
	sizes := []int64{0, 1, 511, 512, 513, 1468, 1468 * 7, 1468*16 + 1, 1468 * 32, 5 << 20}
	for _, size := range sizes {
		curl := []string{"--tftp-blksize", "1468"}
		blksize := 1468
		if size == 0 {
			curl, blksize = []string{"--tftp-no-options"}, 512 // it takes a tsize of 0 for an error
		}
		windowed := []string{"--option", "blksize 1468", "--option", "windowsize 8", "--option", "tsize 0"}
		list = append(list,
			fetch{"TF-05 hpa", "tftp", four, nil, size, 512, 1},
			fetch{"TF-01 atftp", "atftp", four, windowed, size, 1468, 8},
			fetch{"TF-01 curl", "curl", four, curl, size, blksize, 1})
	}
	const large = 40 << 20
	return append(list,
		fetch{"TF-09 hpa", "tftp", four, nil, large, 512, 1},
		fetch{"TF-09 curl", "curl", four, []string{"--tftp-no-options"}, large, 512, 1},
		fetch{"TF-09 atftp", "atftp", four, []string{"--option", "windowsize 16"}, large, 512, 16},
		fetch{"TF-03 atftp", "atftp", four, []string{"--option", "blksize 65464"}, 1 << 20, 1468, 1},
		fetch{"TF-03 curl", "curl", four, []string{"--tftp-blksize", "65464"}, 1 << 20, 1468, 1},
		fetch{"TF-03 curl IPv6", "curl", six, []string{"--tftp-blksize", "65464"}, 1 << 20, 1448, 1},
		fetch{"TF-25 curl", "curl", six, []string{"--tftp-blksize", "1228"}, 1 << 20, 1228, 1},
		fetch{"TF-25 hpa", "tftp", six, []string{"-6"}, 1 << 20, 512, 1},
		fetch{"TF-24 hpa", "tftp", "10.77.0.9", nil, 10000, 512, 1},
		fetch{"TF-24 atftp", "atftp", "10.77.0.9", nil, 10000, 512, 1},
		fetch{"TF-24 curl", "curl", "10.77.0.9", nil, 10000, 512, 1},
	)
}

// TestClients downloads with the clients that other people use, over a cable of its own.
func TestClients(t *testing.T) {
	for program, pkg := range map[string]string{"tftp": "tftp-hpa", "atftp": "atftp", "curl": "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%s is missing: apt-get install %s (scripts/setup does that)", program, pkg)
		}
	}
	w := newWire(t)
	t.Run("side by side", func(t *testing.T) {
		for _, f := range fetches() {
			t.Run(fmt.Sprintf("%s %d", f.id, f.size), func(t *testing.T) {
				t.Parallel()
				f.run(t, w)
			})
		}
	})
	if n := fragments(t, w.server); n != 0 {
		t.Errorf("TF-03: the server made %d IP fragments", n)
	}
	t.Run("broadcast is ignored", w.testBroadcast)
	t.Run("TF-25 link-local", w.testLinkLocal)
	t.Run("TF-03 tunnel", func(t *testing.T) { w.testTunnel(t, 69) })
	t.Run("TF-03 tunnel, single port", func(t *testing.T) { w.testTunnel(t, 70) })
}

// newClient returns a client of the small kind in the client's namespace.
func (w *wire) newClient(t *testing.T, from, to string) (c *client) {
	inNamespace(t, w.client, func() { c = newClient(t, from, netip.MustParseAddrPort(to)) })
	return c
}

// testBroadcast asks everybody, which is ignored (RFC 1123 section 4.2.3.5), and then the server.
func (w *wire) testBroadcast(t *testing.T) {
	var h *house
	inNamespace(t, w.server, func() {
		h = serve(t, func(c *Config) { c.Addr = ":6969" })
	})
	c := w.newClient(t, "10.77.0.2", "10.77.0.1:6969")
	right := c.server
	for _, to := range []string{"10.77.0.255:6969", "255.255.255.255:6969"} {
		c.server = netip.MustParseAddrPort(to)
		c.ask(request("size-1", "octet"))
		c.ask("\x00\x09")
	}
	c.server = right
	c.ask(request("nothing", "octet"))
	c.want("the only answer", "ERROR 1 no such file")
	if got := h.Stats(); got.Requests != 1 || c.tid != right {
		t.Errorf("answered from %s, %+v", c.tid, got)
	}
}

// testLinkLocal downloads between addresses that are nothing without their interface, as UEFI over IPv6 may.
func (w *wire) testLinkLocal(t *testing.T) {
	index := strconv.Itoa(w.index(t, w.client, "cli0"))
	from, to := "fe80::77:2%"+index, "[fe80::77:1%"+index+"]:69"
	got, oack := w.newClient(t, from, to).get("size-30000.link-local", "blksize", "9000")
	same(t, got, 30000)
	if l := w.ended(t, "size-30000.link-local"); oack != "OACK blksize=1448" || l.Outcome != OutcomeComplete {
		t.Errorf("%s, %+v", oack, l)
	}
	c := w.newClient(t, from, to)
	c.ask(request("nothing", "octet"))
	c.want("missing", "ERROR 1 no such file")
}

// testTunnel asks over a route with a smaller MTU than the interface has, which then gets even smaller.
func (w *wire) testTunnel(t *testing.T, port uint16) {
	h, err := netlink.NewHandleAt(w.server)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	route := &netlink.Route{
		LinkIndex: w.index(t, w.server, "srv0"), MTU: 1400,
		Dst: &net.IPNet{IP: net.IPv4(10, 78, 0, 0), Mask: net.CIDRMask(24, 32)},
	}
	if err := h.RouteReplace(route); err != nil {
		t.Fatal(err)
	}
	to, tunnel := fmt.Sprintf("10.77.0.1:%d", port), fmt.Sprintf("size-30000.tunnel-%d", port)
	c := w.newClient(t, "10.78.0.2", to)
	c.ask(request("size-30000.windows", "octet", "blksize", "1468", "windowsize", "4"))
	c.want("offer", "OACK blksize=1368 windowsize=4")
	c.ack(0)
	for n := range 4 {
		c.want("first window", fmt.Sprintf("DATA %d (1368)", n+1))
	}
	route.MTU = 800
	if err := h.RouteReplace(route); err != nil {
		t.Fatal(err)
	}
	c.ack(4)
	c.want("end", "ERROR 0 path MTU fell below the block size, ask again")
	route.MTU = 1400
	if err := h.RouteReplace(route); err != nil {
		t.Fatal(err)
	}
	c = w.newClient(t, "10.78.0.2", to)
	c.ask(request(tunnel, "octet", "blksize", "1468"))
	c.want("offer", "OACK blksize=1368")
	c.ack(0)
	c.want("first", "DATA 1 (1368)")
	route.MTU = 800
	if err := h.RouteReplace(route); err != nil {
		t.Fatal(err)
	}
	c.ack(1)
	c.want("end", "ERROR 0 path MTU fell below the block size, ask again")
	if l := w.ended(t, tunnel); l.Outcome != OutcomeAborted || !strings.Contains(l.Err, "path MTU") {
		t.Errorf("%+v", l)
	}
	if n := fragments(t, w.server); n != 0 {
		t.Errorf("the server made %d IP fragments", n)
	}
}

// index returns the index of an interface.
func (w *wire) index(t *testing.T, ns netns.NsHandle, name string) int {
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().Index
}

// TestBadCable downloads over cables that lose, repeat, delay and mix up what is sent.
func TestBadCable(t *testing.T) {
	const seconds = 100
	for name, l := range map[string]nettest.Lossy{
		"loss":        {Loss: 0.05},
		"duplication": {Duplicate: 0.2},
		"reordering":  {Reorder: 0.1, Delay: 200 * time.Microsecond, Jitter: 200 * time.Microsecond},
		"all of it":   {Loss: 0.02, Duplicate: 0.05, Reorder: 0.05, Delay: 100 * time.Microsecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			random := rand.New(rand.NewPCG(7, 7))
			l.Now = time.Now
			l.Random = func() float64 {
				mu.Lock()
				defer mu.Unlock()
				return random.Float64()
			}
			// An OACK that comes twice is an error to atftp, and sends curl back to the first block.
			l.Spared = func(frame []byte) bool {
				return len(frame) > 45 && (frame[43] == byte(opOack) || bytes.Equal(frame[42:46], []byte{0, byte(opAck), 0, 0}))
			}
			w := newLossyWire(t, l)
			for i, f := range []fetch{
				{"hpa", "tftp", "10.77.0.1", nil, 100 << 10, 512, 1},
				{"atftp", "atftp", "10.77.0.1", []string{"--option", "blksize 1468", "--option", "windowsize 16"}, 512 << 10, 1468, 16},
				{"curl", "curl", "10.77.0.1", []string{"--tftp-blksize", "1468", "--max-time", strconv.Itoa(seconds)}, 200 << 10, 1468, 1},
			} {
				f.id = fmt.Sprintf("bad-%d-%s", i, strings.ReplaceAll(name, " ", "-"))
				f.run(t, w)
			}
		})
	}
}
