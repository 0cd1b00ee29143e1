// Package lab runs the whole lane on virtual servers with real firmware: QEMU
// with OVMF and SeaBIOS, emulated, in a network namespace of its own that
// vanishes with the last process in it.
package lab

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"bootlane/internal/api"
	"bootlane/internal/lane"
)

// Config is what a lab is made of.
type Config struct {
	Dir       string // results of all scenarios
	Bootlane  string // path of the bootlane binary: it is the server, and runs the scenarios
	Image     string // directory of an image bundle
	Installer string // directory of a Debian installer bundle
	// Kubernetes is the directory of an image bundle with containerd; empty: what needs one fails.
	Kubernetes string
	// Encryptable is the directory of an image bundle for encrypted disks; empty: what needs one fails.
	Encryptable string
	Trust       string // the server's trust file; empty: bundles need no signature
	Key         string // a private key in it, without passphrase: signs the bundles that scenarios make
	Out         io.Writer
	Now         func() time.Time
}

// Site is the network that a lab plays on, and the server's configuration for it.
// Only the lab's namespace knows either.
type Site struct {
	Interface string   // name of the bridge
	Addresses []string // of the bridge, ADDRESS/BITS; the server's own is the first
	// Config writes the configuration file, given where data and the operators' API are.
	Config func(data, operators string) ([]byte, error)
}

// operators is where the lab's server listens for us: loopback of the namespace.
const operators = "127.0.0.1:8070"

// Lab is one network with a server and machines.
type Lab struct {
	cfg      Config
	site     Site
	key      string
	dir      string
	began    time.Time
	client   *api.Client
	server   *process
	procs    []*process
	peers    map[string]string // other DHCP servers that run: their Debian packages, by address
	machines []*Machine
	shown    map[string]int64 // events printed, by subject
	failures []string
}

func (l *Lab) now() time.Time { return l.cfg.Now() }

// say prints one line of live progress.
func (l *Lab) say(format string, args ...any) {
	fmt.Fprintf(l.cfg.Out, "%s %7.1fs  %s\n", l.key, l.now().Sub(l.began).Seconds(), fmt.Sprintf(format, args...))
}

// expect records and shows whether something is as it must be, and returns it.
func (l *Lab) expect(ok bool, format string, args ...any) bool {
	text := fmt.Sprintf(format, args...)
	if ok {
		l.say("  ok    %s", text)
		return true
	}
	l.say("  FAIL  %s", text)
	l.failures = append(l.failures, text)
	return false
}

// run runs a program to its end, inside the namespace that a command leads to, or in ours.
func run(ctx context.Context, inside []string, name string, args ...string) error {
	command := slices.Concat(inside, []string{name}, args)
	if out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w: %s", strings.Join(command, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// packets is the packet capture.
const packets = "lab.pcap"

// network builds the bridge. The namespace itself was made by whoever started us.
func (l *Lab) network(ctx context.Context) error {
	bridge := l.site.Interface
	steps := [][]string{{"link", "set", "lo", "up"}, {"link", "add", "name", bridge, "type", "bridge", "forward_delay", "0"}}
	for _, a := range l.site.Addresses {
		step := []string{"address", "add", a, "dev", bridge}
		if strings.Contains(a, ":") {
			step = append(step, "nodad") // a bridge without a machine has no carrier to ask by
		}
		steps = append(steps, step)
	}
	for _, args := range append(steps, []string{"link", "set", bridge, "up"}) {
		if err := run(ctx, nil, "ip", args...); err != nil {
			return err
		}
	}
	// Whole boot packets, but of transfers by HTTP only how they begin and end. It stays
	// root: a process that changes its user no longer dies with its parent, prctl(2).
	_, err := l.spawn(filepath.Join(l.dir, "tcpdump.log"), "tcpdump", "-Z", "root", "-i", bridge, "-U", "-s", "600", "-w", filepath.Join(l.dir, packets),
		strings.Join(wanted(), " or "))
	return err
}

// wanted is what the packet capture keeps. For TCP over IPv6, pcap-filter(7) has no names.
func wanted() []string {
	out := []string{"udp", "tcp[13] & 7 != 0", "(ip6[6] = 6 and ip6[53] & 7 != 0)"}
	for _, word := range []string{"GET ", "HEAD", "POST", "HTTP"} {
		out = append(out, fmt.Sprintf("tcp[((tcp[12] & 0xf0) >> 2):4] = %#x", word), fmt.Sprintf("(ip6[6] = 6 and ip6[(((ip6[52] & 0xf0) >> 2) + 40):4] = %#x)", word))
	}
	return out
}

// serve starts the server, again if need be, and returns when it answers.
func (l *Lab) serve(ctx context.Context) error {
	data := filepath.Join(l.dir, "data")
	config := filepath.Join(l.dir, "config.yaml")
	text, err := l.site.Config(data, operators)
	if err != nil {
		return err
	}
	// Its copy of somebody's configuration may hold a password hash.
	if err := os.WriteFile(config, text, 0o600); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	p, err := l.spawn(filepath.Join(l.dir, "server.log"), l.cfg.Bootlane, "serve", "--config", config)
	if err != nil {
		return err
	}
	l.server = p
	return l.until(ctx, 20*time.Second, "the server answers", func() (bool, error) {
		if p.ended() {
			return false, fmt.Errorf("the server ended: %s", tail(filepath.Join(l.dir, "server.log")))
		}
		token, err := os.ReadFile(filepath.Join(data, "operator.token"))
		if err != nil {
			return false, nil
		}
		l.client = api.NewClient("http://"+operators, strings.TrimSpace(string(token)), "lab")
		_, err = l.client.Version(ctx)
		return err == nil, nil
	})
}

func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], " / ")
}

// until polls, and shows the machines' stages meanwhile, until done says so.
func (l *Lab) until(ctx context.Context, limit time.Duration, what string, done func() (bool, error)) error {
	deadline := l.now().Add(limit)
	for {
		ok, err := done()
		if err != nil {
			return err
		}
		l.progress(ctx)
		if ok {
			return nil
		}
		if l.now().After(deadline) {
			return fmt.Errorf("waited %s in vain: %s", limit, what)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// progress prints what is new in the machines' evidence.
func (l *Lab) progress(ctx context.Context) {
	for _, m := range l.machines {
		for _, subject := range m.subjects() {
			events, err := l.client.Events(ctx, subject, l.shown[subject], 500)
			if err != nil {
				continue // the server may be down on purpose
			}
			for _, e := range events {
				l.shown[subject] = e.Seq
				if e.Subject == m.Name && subject != m.Name {
					continue // the MAC of a machine with a record leads to the record
				}
				if e.Kind != lane.KindLease && e.Kind != lane.KindEnrolled && e.Kind != lane.KindProgress {
					l.say("        %-8s %-12s %-13s %s", m.Name, e.Kind, e.Stage, told(e, 160))
				}
			}
		}
	}
}

// machine describes a server of the lab, numbered: its identity follows from the number.
func (l *Lab) machine(name string, fw lane.Firmware, disks ...Disk) *Machine {
	n := len(l.machines) + 1
	return l.add(&Machine{Name: name, UUID: madeUUID(n), MACs: []lane.MAC{madeMAC(n)}, Serial: fmt.Sprintf("LAB-%s-%04d", strings.ToUpper(l.key), n),
		Asset: fmt.Sprintf("A-%04d", n), Firmware: fw, Disks: disks})
}

// add puts a machine into the lab, still switched off.
func (l *Lab) add(m *Machine) *Machine {
	l.machines = append(l.machines, m)
	m.lab, m.number = l, len(l.machines)
	return m
}

// spec returns the machine's inventory record, for its first disk.
func (m *Machine) spec(bundle string) api.HostSpec {
	network := api.NetworkSpec{Address: fmt.Sprintf("%s.%d", cmp.Or(m.place.net, "192.168.77"), 20+m.number)}
	if m.Boot.ipv6() {
		network.Address6 = fmt.Sprintf("fd77::%d", 20+m.number)
	}
	return api.HostSpec{ID: m.Name, Identity: lane.Identity{UUID: m.UUID, MACs: m.MACs, Serial: m.Serial, AssetTag: m.Asset, Rack: "lab", Unit: fmt.Sprint(m.number)},
		Arch: string(m.hardware().arch), Role: "worker", Bundle: bundle, Disk: lane.DiskSelector{Serial: m.Disks[0].Serial, SizeGB: float64(m.Disks[0].Bytes) / 1e9},
		Network: network, Boot: lane.BootOptions{Loader: m.Loader, VLAN: m.VLAN}, Install: m.Install}
}

// enrol puts records into the inventory.
func (l *Lab) enrol(ctx context.Context, specs ...api.HostSpec) error {
	out, err := l.client.Import(ctx, specs, false)
	if err == nil && len(out.Problems) > 0 {
		err = fmt.Errorf("the inventory is refused: %v", out.Problems)
	}
	return err
}

// stage waits until a host's run has come to a stage.
func (l *Lab) stage(ctx context.Context, id string, s lane.Stage, limit time.Duration) error {
	return l.until(ctx, limit, id+" reaches the stage "+string(s), func() (bool, error) {
		h, err := l.client.Host(ctx, id)
		if err == nil && (h.State == lane.StateFailed || h.State == lane.StateQuarantine) {
			return false, fmt.Errorf("%s is %s: %s", id, h.State, h.Note)
		}
		return err == nil && h.Run.Stage.AtLeast(s), nil
	})
}

// state waits until a host is in a state.
func (l *Lab) state(ctx context.Context, id string, s lane.State, limit time.Duration) error {
	return l.until(ctx, limit, id+" is "+string(s), func() (bool, error) {
		h, err := l.client.Host(ctx, id)
		return err == nil && h.State == s, nil
	})
}

// screen waits until a machine's console shows a match.
func (l *Lab) screen(ctx context.Context, m *Machine, pattern string, limit time.Duration) error {
	return l.until(ctx, limit, fmt.Sprintf("the console of %s shows %q", m.Name, pattern), func() (bool, error) { return m.shows(pattern), nil })
}

// hash returns the digest of a disk's file.
func hash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("open a disk: %w", err)
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), errors.Join(err, f.Close())
}

// told is what an event says, on one line of at most so many bytes; a line that was
// cut shows it.
func told(e lane.Event, limit int) string {
	s := lane.Clean(strings.TrimSpace(e.Name+" "+string(e.Reason)+" "+e.Message), 2000)
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}

// timelines writes every machine's evidence to w.
func (l *Lab) timelines(ctx context.Context, w io.Writer) {
	if l.client == nil {
		return // the server never answered
	}
	for _, m := range l.machines {
		for _, subject := range m.subjects() {
			events, err := l.client.Events(ctx, subject, 0, 5000)
			if err != nil || len(events) == 0 || events[0].Subject == m.Name && subject != m.Name {
				continue
			}
			_, ok := lane.VerifyChain(events)
			fmt.Fprintf(w, "\n%s, %s: %d lines of evidence, chain unbroken: %t\n", l.key, subject, len(events), ok)
			t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
			for _, e := range events {
				if e.Kind == lane.KindProgress {
					continue
				}
				times := ""
				if e.Count > 1 {
					times = fmt.Sprintf(" [%d times]", e.Count)
				}
				fmt.Fprintf(t, "  %7.1fs\t%s\t%s\t%s\t%s%s\n", e.At.Sub(l.began).Seconds(), e.By, e.Kind, e.Stage,
					told(e, 400), times)
			}
			_ = t.Flush() // shows on the terminal itself
		}
	}
}

// close ends every process, last started first.
func (l *Lab) close() {
	for _, m := range l.machines {
		m.trunk.close()
	}
	for i := len(l.procs) - 1; i >= 0; i-- {
		l.procs[i].kill()
	}
}
