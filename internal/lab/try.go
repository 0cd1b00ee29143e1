package lab

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"bootlane/internal/api"
	"bootlane/internal/lane"
)

// Trial is somebody's own configuration, inventory and bundles, on virtual servers.
type Trial struct {
	ConfigFile string // its path; Site is what it says
	Site       Site
	Inventory  string   // path of the file
	Bundles    []Bundle // what there is to install
	Hosts      []string // which machines; none: all
	Firmware   lane.Firmware
	Provision  bool // every machine is granted an install
	AtOnce     int  // machines switched on at the same time
	Limit      time.Duration
	Keep       bool // the disks of machines that ended as hoped
}

// Bundle is a bundle's directory, and what its manifest says it is.
type Bundle struct {
	Dir string
	lane.Bundle
}

const (
	// mostUnnamed is how many machines are tried without being named: on one computer
	// without KVM each takes minutes.
	mostUnnamed = 8
	// quiet is how long a machine that was answered must ask nothing more: its firmware
	// tries PXE, HTTP and the loader one after the other.
	quiet = 15 * time.Second
)

func (t Trial) dir(cfg Config) string { return filepath.Join(cfg.Dir, "try") }

// Check returns everything that keeps the trial from starting.
func (t Trial) Check(cfg Config) error {
	var files []string
	if t.Firmware == lane.UEFI {
		files = append(files, ovmfCode)
	}
	var problems []error
	if hosts, _, err := t.inventory(); err != nil {
		problems = append(problems, err)
	} else if _, _, found := t.plan(hosts); len(found) > 0 {
		problems = append(problems, &lane.Error{Code: lane.Invalid, Message: "this cannot be tried here", Problems: found})
	}
	old, err := os.ReadDir(t.dir(cfg))
	if err == nil && len(old) > 0 && !slices.ContainsFunc(old, func(e os.DirEntry) bool { return e.Name() == packets }) {
		problems = append(problems, fmt.Errorf("%s would be emptied, and is not of an earlier trial: give another --out", t.dir(cfg)))
	}
	return errors.Join(append(problems, tools(files...))...)
}

// inventory reads the file. The function makes an import's findings speak of its lines.
func (t Trial) inventory() ([]api.HostSpec, func(api.ImportReply) error, error) {
	data, err := os.ReadFile(t.Inventory)
	if err != nil {
		return nil, nil, fmt.Errorf("read the inventory: %w", err)
	}
	inv, doc, err := api.ReadInventory(t.Inventory, data)
	return inv.Hosts, func(r api.ImportReply) error { return r.Refusal(t.Inventory, doc) }, err
}

// plan makes virtual machines of the chosen hosts. Notes say what is not as on the
// real ones; problems are what forbids the trial.
func (t Trial) plan(hosts []api.HostSpec) (machines []*Machine, notes, problems []string) {
	for _, id := range t.Hosts {
		if !slices.ContainsFunc(hosts, func(s api.HostSpec) bool { return s.ID == id }) {
			problems = append(problems, fmt.Sprintf("%s: is not in the inventory %s", id, t.Inventory))
		}
	}
	for _, s := range hosts {
		named := slices.Contains(t.Hosts, s.ID)
		if len(t.Hosts) > 0 && !named {
			continue
		}
		h, _ := s.Host()
		if h.Arch != lane.X86_64 {
			text := fmt.Sprintf("%s: is %s, which is not tried here: the virtual machines are x86_64", h.ID, h.Arch)
			if named {
				problems = append(problems, text)
			} else {
				notes = append(notes, text)
			}
			continue
		}
		m, found, missing := t.virtual(h, len(machines)+1)
		machines, notes, problems = append(machines, m), append(notes, found...), append(problems, missing...)
	}
	if len(t.Hosts) == 0 && len(machines) > mostUnnamed {
		problems = append(problems, fmt.Sprintf("the inventory has %d machines to try, and takes minutes for each: name those that you mean, or at most %d remain unnamed", len(machines), mostUnnamed))
	}
	if len(machines) == 0 && len(problems) == 0 {
		problems = append(problems, "the inventory has no machine that can be tried: "+strings.Join(notes, "; "))
	}
	return machines, notes, problems
}

// virtual makes machine n of a host, by what the inventory says of it.
func (t Trial) virtual(h lane.Host, n int) (m *Machine, notes, problems []string) {
	note := func(list *[]string, format string, args ...any) {
		*list = append(*list, string(h.ID)+": "+fmt.Sprintf(format, args...))
	}
	disk, has := diskFor(h.Disk)
	m = &Machine{Name: string(h.ID), UUID: h.Identity.UUID, MACs: h.Identity.MACs, Serial: h.Identity.Serial, Asset: h.Identity.AssetTag, Firmware: t.Firmware, Disks: []Disk{disk}}
	if m.UUID == "" {
		m.UUID = madeUUID(n)
		note(&notes, "the inventory has no UUID; the virtual machine shows %s", m.UUID)
	}
	if len(m.MACs) == 0 {
		m.MACs = []lane.MAC{madeMAC(n)}
		note(&notes, "the inventory has no MAC; the virtual machine boots from %s", m.MACs[0])
	}
	lacks := func(field string, s lane.DiskSelector) {
		list := &notes
		if t.Provision {
			list = &problems
		}
		note(list, "%s: no virtual disk can be called %s; what can be tried is a serial, a wwn of 0x and 16 digits, or byID with ata-, wwn- or virtio-", field, s)
	}
	if !has && !h.Disk.IsZero() {
		lacks("disk", h.Disk)
	}
	if !h.Mirror.IsZero() {
		if disk, has = diskFor(h.Mirror); !has {
			lacks("mirror", h.Mirror)
		}
		m.Disks = append(m.Disks, disk)
	}
	if !t.Provision {
		return m, notes, problems
	}
	var b lane.Bundle
	var refs []string
	for _, have := range t.Bundles {
		refs = append(refs, have.Ref())
		if have.Ref() == h.Bundle {
			b = have.Bundle
			b.Digest = "not imported yet" // what is asked of it here needs no digest but that there is one
		}
	}
	for _, p := range lane.Preflight(h, b) {
		if p.Field == "bundle" && h.Bundle != "" {
			p.Message = fmt.Sprintf("%s is in none of the directories given with --bundle, which hold %s", h.Bundle, strings.Join(refs, ", "))
		}
		note(&problems, "%s", p)
	}
	return m, notes, problems
}

// Try makes the namespace and has the trial run in it; cfg.Out shows its progress.
func Try(ctx context.Context, cfg Config, t Trial) error {
	args := []string{"lab", "try", "--inner", "--config", t.ConfigFile, "--inventory", t.Inventory, "--firmware", string(t.Firmware),
		"--at-once", fmt.Sprint(t.AtOnce), "--limit", t.Limit.String(), "--out", cfg.Dir, fmt.Sprintf("--provision=%t", t.Provision), fmt.Sprintf("--keep=%t", t.Keep)}
	for _, b := range t.Bundles {
		args = append(args, "--bundle", b.Dir)
	}
	var said bytes.Buffer
	err := inner(ctx, cfg, cfg.Out, &said, append(append(args, "--"), t.Hosts...)...)
	if text := strings.TrimPrefix(strings.TrimSpace(said.String()), "bootlane: "); err != nil && text != "" {
		return errors.New(text) // the child has said it better than its exit code
	}
	if err != nil {
		return fmt.Errorf("run the trial in a network namespace of its own: %w", err)
	}
	return nil
}

// attempt is one machine on its way.
type attempt struct {
	m       *Machine
	on, off time.Time
	end     string // why we look no longer
	answer  lane.Event
	host    lane.Host
	verdict lane.Verdict
}

// Inner runs the trial in the namespace it is already in.
func (t Trial) Inner(ctx context.Context, cfg Config) error {
	l := &Lab{cfg: cfg, site: t.Site, key: "try", dir: t.dir(cfg), began: cfg.Now(), shown: map[string]int64{}}
	var attempts []*attempt
	err := l.play(ctx, "your configuration, inventory and bundles on virtual servers", func(ctx context.Context, l *Lab) error {
		machines, err := t.prepare(ctx, l)
		if err != nil {
			return err
		}
		for _, m := range machines {
			attempts = append(attempts, &attempt{m: m})
		}
		err = t.follow(ctx, l, attempts)
		// Also when the trial was interrupted.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		for _, a := range attempts {
			err = errors.Join(err, a.judge(ctx, l))
		}
		return err
	})
	if len(attempts) == 0 {
		return err
	}
	return errors.Join(err, t.results(l, attempts))
}

// prepare fills the server's store.
func (t Trial) prepare(ctx context.Context, l *Lab) ([]*Machine, error) {
	hosts, refusal, err := t.inventory()
	if err != nil {
		return nil, err
	}
	machines, notes, _ := t.plan(hosts) // its problems were looked at before
	for _, n := range notes {
		l.say("note  %s", n)
	}
	var problems []error
	for _, b := range t.Bundles {
		got, err := l.client.ImportBundle(ctx, lane.BundleImport{Dir: b.Dir})
		if err != nil {
			problems = append(problems, fmt.Errorf("import the bundle in %s: %w", b.Dir, err))
			continue
		}
		l.say("bundle %s imported", got.Ref())
	}
	out, err := l.client.Import(ctx, hosts, false)
	if err = errors.Join(append(problems, err, refusal(out))...); err != nil {
		return nil, err
	}
	l.say("inventory imported: %d hosts, of which %d are tried", len(hosts), len(machines))
	return machines, nil
}

// follow switches the machines on, some at a time, and each off when its end is known:
// the next one needs the computer.
func (t Trial) follow(ctx context.Context, l *Lab, attempts []*attempt) error {
	var running []*attempt
	for len(running)+len(attempts) > 0 {
		for len(running) < t.AtOnce && len(attempts) > 0 {
			a := attempts[0]
			attempts, running = attempts[1:], append(running, a)
			if err := t.begin(ctx, l, a); err != nil {
				a.end = err.Error()
			}
		}
		l.progress(ctx)
		if l.server.ended() {
			return fmt.Errorf("the server ended: %s", tail(filepath.Join(l.dir, "server.log")))
		}
		running = slices.DeleteFunc(running, func(a *attempt) bool {
			if a.end = cmp.Or(a.end, t.ended(ctx, l, a)); a.end == "" {
				return false
			}
			a.m.stop()
			a.off = l.now()
			l.say("%s switched off: %s", a.m.Name, a.end)
			if a.judge(ctx, l) == nil && t.hoped(a) && !t.Keep {
				_ = os.Remove(a.m.DiskFile(0)) // gigabytes, of which nobody has a question
			}
			return true
		})
		if err := l.pause(ctx, 300*time.Millisecond); err != nil {
			for _, a := range running {
				a.end = "interrupted"
			}
			return errors.New("interrupted")
		}
	}
	return nil
}

func (t Trial) begin(ctx context.Context, l *Lab, a *attempt) error {
	a.on = l.now()
	l.add(a.m)
	if t.Provision {
		// The lab's own limit ends the machine first: then `why` tells the stage, not the deadline.
		if err := l.provision(ctx, a.m, lane.Provisioning{For: t.Limit + time.Hour}); err != nil {
			return err
		}
	}
	if err := a.m.start(ctx); err != nil {
		return err
	}
	l.say("%s switched on: %s, %s", a.m.Name, a.m.UUID, strings.Join(a.m.subjects()[1:], " "))
	return nil
}

// ended says why a machine need not be looked at any longer, or nothing.
func (t Trial) ended(ctx context.Context, l *Lab, a *attempt) string {
	h, err := l.client.Host(ctx, a.m.Name)
	switch {
	case err != nil:
		return "" // follow looks after the server
	case t.Provision && h.State != lane.StateProvisioning, h.State == lane.StateQuarantine:
		return "it is " + string(h.State)
	case a.m.off():
		return strings.TrimSuffix("it went off by itself: "+tail(a.m.file("qemu.log")), ": ")
	case l.now().Sub(a.on) > t.Limit:
		return fmt.Sprintf("the limit of %s is reached", t.Limit)
	case t.Provision:
		return ""
	}
	e, err := l.lastAnswer(ctx, a.m)
	if err == nil && e.Action != "" && l.now().Sub(latest(e)) > quiet {
		return "it was answered, and asks nothing more"
	}
	return ""
}

// lastAnswer returns the last thing that a machine was told.
func (l *Lab) lastAnswer(ctx context.Context, m *Machine) (lane.Event, error) {
	events, err := l.client.Events(ctx, m.Name, 0, 5000)
	var out lane.Event
	for _, e := range events {
		if e.Action != "" && !latest(e).Before(latest(out)) {
			out = e
		}
	}
	return out, err
}

// latest returns when an event last happened.
func latest(e lane.Event) time.Time {
	if e.LastAt.After(e.At) {
		return e.LastAt
	}
	return e.At
}

// judge asks the server where the machine ended.
func (a *attempt) judge(ctx context.Context, l *Lab) (err error) {
	if a.host, err = l.client.Host(ctx, a.m.Name); err != nil {
		return err
	}
	if a.answer, err = l.lastAnswer(ctx, a.m); err != nil {
		return err
	}
	a.verdict, err = l.client.Why(ctx, a.m.Name)
	return err
}

// hoped reports whether a machine ended as the operator wants it.
func (t Trial) hoped(a *attempt) bool {
	if t.Provision {
		return a.host.State == lane.StateInstalled
	}
	return a.answer.Action == lane.LocalBoot.String()
}

// results prints the timelines, and how each machine ended.
func (t Trial) results(l *Lab, attempts []*attempt) error {
	w := l.cfg.Out
	if b, err := os.ReadFile(filepath.Join(l.dir, timelineFile)); err == nil {
		fmt.Fprintf(w, "%s\n", b)
	}
	table := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintf(table, "HOST\tSTATE\tTOLD\tAFTER\tWHY\n")
	var bad []*attempt
	for _, a := range attempts {
		if !t.hoped(a) {
			bad = append(bad, a)
		}
		end := a.off
		if end.IsZero() {
			end = l.now()
		}
		after := "-"
		if !a.on.IsZero() {
			after = end.Sub(a.on).Round(time.Second).String()
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", a.m.Name, cmp.Or(a.host.State, "-"), cmp.Or(a.answer.Action, "nothing"), after, lane.Clean(a.verdict.Because, 1000))
	}
	_ = table.Flush() // shows on the terminal itself
	for _, a := range bad {
		fmt.Fprintf(w, "\n%s: %s\n  check next: %s\n  its console: %s\n", a.m.Name, lane.Clean(cmp.Or(a.end, "it was not switched on"), 500), lane.Clean(a.verdict.Next, 500), a.m.file("serial.log"))
	}
	fmt.Fprintf(w, "\n%d of %d machines ended as hoped. Consoles, packets and timelines: %s\n", len(attempts)-len(bad), len(attempts), l.dir)
	if len(bad) > 0 {
		return fmt.Errorf("%d of %d machines did not end as hoped", len(bad), len(attempts))
	}
	return nil
}
