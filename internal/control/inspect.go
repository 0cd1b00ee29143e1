package control

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"bootlane/internal/lane"
	"bootlane/internal/script"
	"bootlane/internal/seed"
)

// tickets are what agents tell under that look at machines. They are in memory: a machine
// whose ticket is gone boots by network again, and is given another.
type tickets struct {
	mu    sync.Mutex
	known map[string]ticket
	hour  time.Time // when the present hour of news began
	news  int       // reports in it that changed what is kept
}

// ticket is one network boot to look at a machine.
type ticket struct {
	bundle lane.Digest
	arch   lane.Arch
	mac    lane.MAC
	uuid   lane.UUID
	until  time.Time
	told   time.Time // when its agent told last
}

// Bounds of what anybody on the boot network can ask for.
const (
	maxTickets  = 4096             // machines that are looked at, at once
	ticketFresh = 15 * time.Minute // to load the agent, and for it to tell the first time
	ticketUsed  = 2 * time.Hour    // from one word of the agent to the next
	maxNews     = 2000             // reports in an hour that are kept: a hall that is switched on
	tellAgain   = 5 * time.Second  // within which a ticket is not heard again
)

func newTickets() *tickets { return &tickets{known: map[string]ticket{}} }

// put keeps a ticket, in place of the same machine's last one. It reports false when there
// are too many.
func (t *tickets) put(name string, k ticket, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n, old := range t.known {
		if !now.Before(old.until) || old.mac == k.mac && old.uuid == k.uuid {
			delete(t.known, n)
		}
	}
	if len(t.known) >= maxTickets {
		return false
	}
	t.known[name] = k
	return true
}

func (t *tickets) get(name string, now time.Time) (ticket, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k, ok := t.known[name]
	return k, ok && now.Before(k.until)
}

// tell notes that a ticket's agent has told something, and reports false when it did so a
// moment ago.
func (t *tickets) tell(name string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	k, ok := t.known[name]
	if !ok || now.Sub(k.told) < tellAgain && !now.Before(k.told) {
		return false
	}
	k.told, k.until = now, now.Add(ticketUsed)
	t.known[name] = k
	return true
}

// allow reports whether one more report may change what is kept.
func (t *tickets) allow(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.hour) >= time.Hour || now.Before(t.hour) {
		t.hour, t.news = now, 0
	}
	t.news++
	return t.news <= maxNews
}

// policy is the site's, with the bundle that inspects where one of the records, or that
// there is none, can lead to it.
func (c *Control) policy(ctx context.Context, hosts []lane.Host) lane.Policy {
	p := c.Policy
	wished := slices.ContainsFunc(hosts, func(h lane.Host) bool { return !h.Inspect.IsZero() })
	if c.InspectBundle != "" && (len(hosts) == 0 || wished) {
		p.Inspect = c.inspector(ctx)
	}
	return p
}

// inspector returns the bundle whose agent looks at machines; its Refusal says why none can.
func (c *Control) inspector(ctx context.Context) lane.Bundle {
	b, err := c.findBundle(ctx, c.InspectBundle)
	switch {
	case err != nil:
		return lane.Bundle{Name: c.InspectBundle, Refusal: err.Error()}
	case b.Seed != lane.SeedImage:
		b.Refusal = "policy.inspect.bundle: the bundle " + b.Ref() + " has no bootlane-agent: its seed is " + b.Seed + ", not " + lane.SeedImage
	}
	return b
}

// inspectScript leads a machine to the agent that looks at it.
func (c *Control) inspectScript(d lane.Decision, h lane.Host, f lane.Facts, say func(script.Install) []byte) ([]byte, error) {
	whole, err := c.Bundles.Get(d.Bundle)
	if err != nil {
		return nil, err
	}
	b, _ := whole.For(f.Arch) // Decide has seen that it fits
	name, err := c.random(20)
	if err != nil {
		return nil, err
	}
	now := c.Now()
	if !c.tickets.put(name, ticket{bundle: d.Bundle, arch: f.Arch, mac: f.MAC, uuid: f.UUID, until: now.Add(ticketFresh)}, now) {
		return nil, lane.Errorf(lane.Unavailable, "%d machines are being looked at: no more at once", maxTickets)
	}
	base := c.base(f)
	file := func(of string) string {
		return base + lane.InspectPath{Ticket: name, Digest: b.Files[of].Digest, Name: of}.String()
	}
	in := script.Install{Machine: script.Machine{Facts: f, Server: base, LocalBoot: h.Boot.LocalBoot}, Decision: d, BundleName: b.Ref(),
		KernelURL: file(b.Kernel), InitrdURL: file(b.Initrd), Args: seed.InspectArgs(b, base+lane.InspectBase(name), f.MAC, h.Boot.VLAN),
		AgainURL: base + "/" + lane.BootPath{MAC: f.MAC, Platform: lane.Platform{Arch: f.Arch, Firmware: f.Firmware}, File: lane.FailedScript}.String()}
	if b.Loaders[lane.Platform{Arch: f.Arch, Firmware: f.Firmware}.String()].ImageTrust {
		in.KernelSignatureURL, in.InitrdSignatureURL = file(b.Kernel+lane.ImageSignatureExt), file(b.Initrd+lane.ImageSignatureExt)
	}
	body := say(in)
	e := c.answered(lane.KindServed, d, f)
	e.Digest, e.Bytes = digest(body), int64(len(body))
	c.Store.Record(e)
	return body, nil
}

// admitted returns what a ticket stands for.
func (c *Control) admitted(name string) (ticket, error) {
	k, ok := c.tickets.get(name, c.Now())
	if !ok {
		return ticket{}, lane.Errorf(lane.NotFound, "nothing is open under this ticket: it is too old, or the server was started anew; boot the machine by network again")
	}
	return k, nil
}

// InspectFile answers a request for the kernel or the initrd of the agent that looks at
// machines. Nothing else of the bundle can be had by a ticket.
func (c *Control) InspectFile(ctx context.Context, p lane.InspectPath, f lane.Facts) (lane.BundleFile, error) {
	k, err := c.admitted(p.Ticket)
	if err != nil {
		return lane.BundleFile{}, err
	}
	whole, err := c.bundle(ctx, k.bundle)
	if err != nil {
		return lane.BundleFile{}, err
	}
	if whole.Refusal != "" {
		return lane.BundleFile{}, lane.Errorf(lane.Refused, "%s: %s", lane.BundleRefused, whole.Refusal)
	}
	b, _ := whole.For(k.arch)
	file := b.Files[p.Name]
	boots := []string{b.Kernel, b.Initrd, b.Kernel + lane.ImageSignatureExt, b.Initrd + lane.ImageSignatureExt}
	if !slices.Contains(boots, p.Name) || file.Digest != p.Digest || file.Digest == "" {
		return lane.BundleFile{}, lane.Errorf(lane.NotFound, "no file %s with digest %s starts the agent of %s", p.Name, p.Digest, b.Ref())
	}
	if err := c.sound(file); err != nil {
		return lane.BundleFile{}, err
	}
	f.MAC, f.UUID, f.Arch, f.Name = k.mac, k.uuid, k.arch, p.Name
	e := c.answered(lane.KindServed, lane.Decision{Action: lane.Inspect, Bundle: k.bundle}, f)
	e.Subject, e.Digest, e.Bytes, e.Message = c.owner(f), file.Digest, file.SizeBytes, "file of "+b.Ref()+", whose agent looks at the machine"
	c.Store.Record(e)
	return file, nil
}

// Inspected takes in what an agent found of its machine, and answers what the machine does
// next. Whatever the inventory says of it, nothing that comes of this leads to a disk.
func (c *Control) Inspected(ctx context.Context, name string, hw lane.Hardware, f lane.Facts) (lane.InspectReply, error) {
	k, err := c.admitted(name)
	if err != nil {
		return lane.InspectReply{}, err
	}
	if hw, err = hw.Tidy(); err != nil {
		return lane.InspectReply{}, err
	}
	f = hardwareFacts(hw, f)
	f.Speaker, f.Name = lane.SpeakerLoader, "inspect" // what its next network boot would say
	if !slices.Contains(f.AllMACs(), k.mac) && !hw.UUID.SameAs(k.uuid) {
		e := c.answered(lane.KindRefused, lane.Decision{}, f)
		e.Message = "an agent told of a machine that is not the one which was to be looked at: " + string(k.mac) + " " + string(k.uuid)
		c.Store.Record(e)
		return lane.InspectReply{}, lane.Errorf(lane.Refused, "this is not the machine that was to be looked at: it shows neither its MAC nor its UUID")
	}
	d, _, err := c.decide(ctx, f)
	if err != nil {
		return lane.InspectReply{}, err
	}
	if c.tickets.tell(name, c.Now()) {
		if err := c.keep(ctx, k, hw, d, f); err != nil {
			return lane.InspectReply{}, err
		}
		if d.Reason == lane.HostInspected { // it was: what would it be told now?
			if d, _, err = c.decide(ctx, f); err != nil {
				return lane.InspectReply{}, err
			}
		}
	}
	return lane.AfterInspection(d, c.InspectThen), nil
}

// keep stores what was found. What is no news moves no evidence.
func (c *Control) keep(ctx context.Context, k ticket, hw lane.Hardware, d lane.Decision, f lane.Facts) error {
	id, err := hw.DiscoveredAs()
	if err != nil {
		return err
	}
	was, err := c.Store.DiscoveredAs(ctx, id)
	if err == nil && !sharesMAC(was.Hardware, hw) { // two machines with one UUID must not hide each other
		id = string(hw.AllMACs()[0])
		was, err = c.Store.DiscoveredAs(ctx, id)
	}
	if err != nil && lane.CodeOf(err) != lane.NotFound {
		return err
	}
	now := c.Now()
	b, err := c.Bundles.Get(k.bundle)
	if err != nil {
		return err
	}
	next := lane.Discovered{ID: id, First: now, Heard: now, From: f.From, Bundle: b.Ref(), Hardware: hw}
	var e lane.Event
	if !was.First.IsZero() {
		next.First = was.First
	}
	if was.First.IsZero() || !was.Hardware.Equal(hw) {
		if !c.tickets.allow(now) {
			return lane.Errorf(lane.Unavailable, "more was found of machines within an hour than is kept, %d reports", maxNews)
		}
		e = c.answered(lane.KindInspected, d, f)
		e.Action, e.Reason, e.Subject, e.Message = "", "", c.owner(f), hw.Summary()
	}
	if err := c.Store.PutDiscovered(ctx, next, e); err != nil || d.Reason != lane.HostInspected {
		return err
	}
	_, err = c.change(ctx, d.Host, func(h lane.Host) (lane.Host, lane.Event, error) {
		next, e, was := lane.EndInspect(h, now)
		if !was {
			return h, lane.Event{}, nil
		}
		return next, e, nil
	})
	return err
}

// sharesMAC reports whether both can be one machine by their NICs.
func sharesMAC(a, b lane.Hardware) bool {
	return len(a.AllMACs()) == 0 || len(b.AllMACs()) == 0 || slices.ContainsFunc(a.AllMACs(), func(m lane.MAC) bool { return slices.Contains(b.AllMACs(), m) })
}

// Discovered returns what agents found of machines, with what the inventory says of them now.
func (c *Control) Discovered(ctx context.Context) ([]lane.Discovered, error) {
	list, err := c.Store.Discovered(ctx)
	for i, d := range list {
		if list[i], err = c.compared(ctx, d); err != nil {
			return nil, err
		}
	}
	return list, err
}

// compared fills in what the inventory says of a machine.
func (c *Control) compared(ctx context.Context, d lane.Discovered) (lane.Discovered, error) {
	f := hardwareFacts(d.Hardware, lane.Facts{Surface: lane.SurfaceHTTP, Speaker: lane.SpeakerInstaller})
	hosts, err := c.Store.Claimants(ctx, f.Keys())
	for _, h := range hosts {
		if h.State != lane.StateRetired {
			d.Hosts = append(d.Hosts, h.ID)
			d.Mismatch = slices.Concat(d.Mismatch, lane.Contradictions(h, f), lane.Differs(h, d.Hardware))
		}
	}
	return d, err
}

// DiscoveredAs returns what was found of one machine: by its id, a MAC or its serial number.
func (c *Control) DiscoveredAs(ctx context.Context, name string) (lane.Discovered, error) {
	list, err := c.Store.Discovered(ctx)
	if err != nil {
		return lane.Discovered{}, err
	}
	var ids []string
	var found lane.Discovered
	for _, d := range list {
		if d.Named(name) {
			ids, found = append(ids, d.ID), d
		}
		if d.ID == name {
			return c.compared(ctx, d)
		}
	}
	switch len(ids) {
	case 0:
		return lane.Discovered{}, lane.Errorf(lane.NotFound, "no machine %q was looked at: `bootlane host discovered` shows those that were", name)
	case 1:
		return c.compared(ctx, found)
	}
	return lane.Discovered{}, &lane.Error{Code: lane.Invalid, Message: "several machines that were looked at are called so: give an id", Problems: ids}
}

// Adopt makes a record of a machine that was looked at. With problems, or a check, nothing is stored.
func (c *Control) Adopt(ctx context.Context, name string, a lane.Adoption, by string) (lane.Adopted, error) {
	d, err := c.DiscoveredAs(ctx, name)
	if err != nil {
		return lane.Adopted{}, err
	}
	out := lane.Adopt(d, a)
	if _, err := c.Store.Host(ctx, out.Host.ID); err == nil {
		out.Problems = append(out.Problems, lane.Problem{Field: "id", Message: string(out.Host.ID) + " is in the inventory: `bootlane host import` changes a record"})
	} else if lane.CodeOf(err) != lane.NotFound {
		return out, err
	}
	named := map[string]bool{}
	for _, p := range out.Problems {
		named[p.Field] = true
	}
	// Whatever an import would say against the record, and was not said yet.
	done, problems, err := c.Import(ctx, []lane.Host{out.Host}, by, a.Check || len(out.Problems) > 0)
	if err != nil {
		return out, err
	}
	for _, p := range problems {
		if p.Field = strings.TrimPrefix(p.Field, "hosts[0]."); !named[p.Field] {
			out.Problems = append(out.Problems, p)
		}
	}
	out.Notes = append(out.Notes, done.Notes...)
	if len(out.Problems) > 0 || a.Check {
		return out, nil
	}
	out.Host, err = c.Store.Host(ctx, out.Host.ID)
	return out, err
}

// Inspect has a host looked at when its machine boots by network.
func (c *Control) Inspect(ctx context.Context, id lane.HostID, within time.Duration, by, why string) (lane.Host, error) {
	if c.InspectBundle == "" {
		return lane.Host{}, lane.Errorf(lane.Refused, "nothing can look at machines: policy.inspect.bundle in the configuration names a bundle with bootlane-agent")
	}
	b := c.inspector(ctx)
	return c.change(ctx, id, func(h lane.Host) (lane.Host, lane.Event, error) {
		switch {
		case b.Refusal != "":
			return h, lane.Event{}, lane.Errorf(lane.Refused, "%s", b.Refusal)
		case !b.Fits(h.Arch):
			return h, lane.Event{}, lane.Errorf(lane.Refused, "the bundle %s of policy.inspect has nothing for %s", b.Ref(), h.Arch)
		}
		return lane.WishInspect(h, c.Now().Add(within), by, why, c.Now())
	})
}
