package control

import (
	"context"
	"slices"
	"strings"

	"bootlane/internal/diagnose"
	"bootlane/internal/lane"
)

// Host returns one record.
func (c *Control) Host(ctx context.Context, id lane.HostID) (lane.Host, error) {
	if _, err := lane.ParseMAC(string(id)); err == nil { // no id looks like one
		owner, err := c.subject(ctx, string(id))
		if err != nil {
			return lane.Host{}, err
		}
		id = lane.HostID(owner)
	}
	return c.Store.Host(ctx, id)
}

// Hosts returns up to limit records after the given id.
func (c *Control) Hosts(ctx context.Context, after lane.HostID, limit int) ([]lane.Host, error) {
	return c.Store.Hosts(ctx, after, limit)
}

// Events returns up to limit events of a subject after a sequence number; with
// after < 0, the last ones. A subject is a host id or a MAC.
func (c *Control) Events(ctx context.Context, subject string, after int64, limit int) ([]lane.Event, error) {
	if err := c.Store.Flush(ctx); err != nil {
		return nil, err
	}
	subject, err := c.subject(ctx, subject)
	if err != nil {
		return nil, err
	}
	if after < 0 {
		return c.Store.LastEvents(ctx, subject, limit)
	}
	return c.Store.Events(ctx, subject, after, limit)
}

// Unknown returns the machines without a record that left evidence.
func (c *Control) Unknown(ctx context.Context) ([]lane.Stranger, error) {
	if err := c.Store.Flush(ctx); err != nil {
		return nil, err
	}
	list, err := c.Store.Strangers(ctx)
	for i, s := range list {
		if owner, err := c.subject(ctx, strings.TrimPrefix(s.Subject, "mac:")); err == nil && owner != s.Subject {
			list[i].Host = lane.HostID(owner)
		}
	}
	return list, err
}

// subject lets a person name a machine by a MAC, in any form: the record that has it, or
// else the machine without a record. With "mac:" before it, as `events` prints it, it is
// the latter in any case: what was heard before there was a record stays to be read.
func (c *Control) subject(ctx context.Context, s string) (string, error) {
	text, literal := strings.CutPrefix(s, "mac:")
	m, err := lane.ParseMAC(text)
	switch {
	case err != nil:
		return s, nil
	case literal:
		return lane.UnknownSubject(m), nil
	}
	hosts, err := c.Store.Claimants(ctx, []string{"mac:" + string(m)})
	hosts = slices.DeleteFunc(hosts, func(h lane.Host) bool { return h.State == lane.StateRetired })
	if len(hosts) == 1 {
		return string(hosts[0].ID), err
	}
	return lane.UnknownSubject(m), err
}

// Why says where a host's lane stopped, why, and what to check next. A MAC asks
// for a machine without a record.
func (c *Control) Why(ctx context.Context, subject string) (lane.Verdict, error) {
	given := subject
	subject, err := c.subject(ctx, subject)
	if err != nil {
		return lane.Verdict{}, err
	}
	events, err := c.told(ctx, subject)
	if err != nil {
		return lane.Verdict{}, err
	}
	h, err := c.Store.Host(ctx, lane.HostID(subject))
	if lane.CodeOf(err) == lane.NotFound {
		if !strings.HasPrefix(subject, "mac:") || len(events) == 0 {
			return lane.Verdict{}, lane.Errorf(lane.NotFound, "nothing is known about %q: no record, and no evidence under this MAC", given)
		}
		return diagnose.Unknown(subject, events), nil
	}
	if err != nil {
		return lane.Verdict{}, err
	}
	b, err := c.standing(ctx, h)
	if err != nil {
		return lane.Verdict{}, err
	}
	return diagnose.Host(h, b, events, c.Now()), nil
}

// told returns what `why` judges by: the last lines of evidence, and those that
// made the record what it is, however many came since.
func (c *Control) told(ctx context.Context, subject string) ([]lane.Event, error) {
	recent, err := c.Events(ctx, subject, -1, 500)
	if err != nil || len(recent) == 0 {
		return recent, err
	}
	lasting, err := c.Store.LastingEvents(ctx, subject, 50)
	older := slices.DeleteFunc(lasting, func(e lane.Event) bool { return e.Seq >= recent[0].Seq })
	return append(older, recent...), err
}

// WhatIf returns what each surface would answer if the host's machine, as the
// inventory describes it, asked now. Nothing is recorded.
func (c *Control) WhatIf(ctx context.Context, id lane.HostID) ([]lane.Foresight, error) {
	h, err := c.Host(ctx, id)
	if err != nil {
		return nil, err
	}
	var out []lane.Foresight
	for _, q := range []struct {
		surface lane.Surface
		speaker lane.Speaker
		asks    string
	}{
		{lane.SurfaceDHCP, lane.SpeakerROM, "address and boot loader"},
		{lane.SurfaceTFTP, lane.SpeakerROM, "boot loader"},
		{lane.SurfaceHTTP, lane.SpeakerLoader, "boot script"},
		{lane.SurfaceHTTP, lane.SpeakerInstaller, "kernel, initrd, seed, order, image"},
	} {
		d, err := c.ifAsked(ctx, h, q.surface, q.speaker)
		if err != nil {
			return nil, err
		}
		out = append(out, lane.Foresight{Surface: q.surface, Speaker: q.speaker, Asks: q.asks, Action: d.Action, Reason: d.Reason, Detail: d.Detail})
	}
	return out, nil
}

func (c *Control) ifAsked(ctx context.Context, h lane.Host, s lane.Surface, who lane.Speaker) (lane.Decision, error) {
	f := lane.Facts{Surface: s, Speaker: who, UUID: h.Identity.UUID, MACs: h.Identity.MACs, Serial: h.Identity.Serial, AssetTag: h.Identity.AssetTag, Arch: h.Arch}
	if len(h.Identity.MACs) > 0 {
		f.MAC = h.Identity.MACs[0]
	}
	if f.UUID == "" && who == lane.SpeakerLoader {
		// The machine has some UUID, of which the inventory knows nothing.
		f.UUID = "00000000-0000-0000-0000-000000000000"
	}
	if who == lane.SpeakerInstaller {
		f.Run = h.Run.ID
	}
	others, err := c.Store.Claimants(ctx, f.Keys())
	if err != nil {
		return lane.Decision{}, err
	}
	d, _ := c.judge(ctx, others, f)
	return d, nil
}

// WhatIfAll returns which hosts would be erased if every machine rebooted now.
func (c *Control) WhatIfAll(ctx context.Context) (lane.Census, error) {
	out := lane.Census{Counts: map[lane.Reason]int{}, Erased: []lane.Erased{}}
	var after lane.HostID
	for {
		hosts, err := c.Store.Hosts(ctx, after, 500)
		if err != nil || len(hosts) == 0 {
			return out, err
		}
		for _, h := range hosts {
			after = h.ID
			d, err := c.ifAsked(ctx, h, lane.SurfaceHTTP, lane.SpeakerLoader)
			if err != nil {
				return out, err
			}
			out.Hosts++
			out.Counts[d.Reason]++
			if d.Action == lane.Install {
				out.Erased = append(out.Erased, lane.Erased{Host: h.ID, Run: h.Run.ID, Bundle: h.Run.BundleName, Disk: h.Run.Disk, Mirror: h.Run.Mirror, Wipe: h.Run.Wipe, Deadline: h.Run.Deadline})
			}
		}
	}
}
