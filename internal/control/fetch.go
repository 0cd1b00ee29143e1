package control

import (
	"context"
	"errors"
	"slices"
	"strings"

	"bootlane/internal/lane"
	"bootlane/internal/seed"
)

// redeem finds the host of a capability and decides what its machine may have
// now. A refusal is an error with the reason, and is put on record.
func (c *Control) redeem(ctx context.Context, capability string, f lane.Facts) (lane.Host, lane.Bundle, lane.Decision, error) {
	h, err := c.opened(ctx, capability, f)
	if err != nil {
		return lane.Host{}, lane.Bundle{}, lane.Decision{}, err
	}
	f.Run = h.Run.ID
	hosts, err := c.Store.Claimants(ctx, f.Keys())
	if err != nil {
		return lane.Host{}, lane.Bundle{}, lane.Decision{}, err
	}
	// The capability alone points at h; any signal it did not come with may point elsewhere.
	if i := slices.IndexFunc(hosts, func(o lane.Host) bool { return o.ID == h.ID }); i >= 0 {
		hosts[i] = h
	} else {
		hosts = append(hosts, h)
	}
	d, _ := c.judge(ctx, hosts, f)
	if d.Action == lane.Install && (d.Host != h.ID || d.Run != h.Run.ID) {
		// The machine may install, but not under this capability: it has another record now.
		d = lane.Decision{Action: lane.LocalBoot, Reason: lane.NoRun, Host: h.ID, Run: h.Run.ID, Detail: "this run is not the one that the machine has now"}
	}
	if err := c.aftermath(ctx, d, h, f); err != nil {
		return h, lane.Bundle{}, d, err
	}
	kind := lane.KindRefused
	switch stray, err := c.stray(ctx, h, f); {
	case err != nil:
		return h, lane.Bundle{}, d, err
	case !h.Run.Open: // nobody needs it any more
		kind = lane.KindAlarm
	case d.Action == lane.Install && stray.Reason != "":
		kind, d = lane.KindAlarm, stray
	}
	if d.Action != lane.Install {
		e := c.answered(kind, d, f)
		e.Subject = string(h.ID)
		if kind == lane.KindAlarm {
			e.Message = lane.Clean("what opens run "+string(h.Run.ID)+" was used from "+f.From+": "+d.Detail, 1000)
		}
		c.Store.Record(e)
		refusal := lane.Errorf(lane.Refused, "%s: %s", d.Reason, d.Detail)
		for _, s := range d.Mismatch {
			refusal.Problems = append(refusal.Problems, s.String())
		}
		return h, lane.Bundle{}, d, refusal
	}
	b, err := c.runBundle(h)
	return h, b, d, err
}

// File answers a request for a file of a run's bundle. The answer is on record
// before it is returned.
func (c *Control) File(ctx context.Context, p lane.RunPath, f lane.Facts) (lane.BundleFile, error) {
	f.Name = p.Name
	h, b, d, err := c.redeem(ctx, p.Capability, f)
	if err != nil {
		return lane.BundleFile{}, err
	}
	file, ok := b.Files[p.Name]
	if !ok || file.Digest != p.Digest {
		return lane.BundleFile{}, lane.Errorf(lane.NotFound, "the bundle %s has no file %s with digest %s", b.Ref(), p.Name, p.Digest)
	}
	return file, c.give(ctx, h, file, "file of "+b.Ref(), d, f)
}

// Tree answers a request for a file of the installer tree, with the image that it lies in.
// An installer asks for thousands: on record is the image, and how often it was asked.
func (c *Control) Tree(ctx context.Context, p lane.RunPath, f lane.Facts) (lane.BundleFile, error) {
	f.Name = string(lane.AssetTree)
	h, b, d, err := c.redeem(ctx, p.Capability, f)
	if err != nil {
		return lane.BundleFile{}, err
	}
	if b.Tree == "" {
		return lane.BundleFile{}, lane.Errorf(lane.NotFound, "the bundle %s has no installer tree: `tree` in its bundle.yaml names an ISO image", b.Ref())
	}
	image := b.Files[b.Tree]
	return image, c.give(ctx, h, image, "files of the installer tree in "+b.Tree+" of "+b.Ref(), d, f)
}

// give puts on record that a file is served, after it was verified.
func (c *Control) give(ctx context.Context, h lane.Host, file lane.BundleFile, what string, d lane.Decision, f lane.Facts) error {
	e := c.answered(lane.KindServed, d, f)
	e.Digest, e.Bytes, e.Message = file.Digest, file.SizeBytes, what
	if err := c.sound(file); err != nil { // what cannot be served must not stand there as served
		e.Kind, e.Action, e.Message = lane.KindRefused, "", lane.Clean(what+": "+err.Error(), 1000)
		c.missed(ctx, h)
		return errors.Join(err, c.Store.Witness(ctx, e))
	}
	return c.Store.Witness(ctx, e)
}

// sound opens a file as whoever serves it will do, and so has it verified.
func (c *Control) sound(file lane.BundleFile) error {
	f, err := c.Bundles.Open(file)
	if err != nil {
		return err
	}
	return f.Close()
}

// Seed answers a request for an installer document. The answer is on record
// before it is returned.
func (c *Control) Seed(ctx context.Context, p lane.RunPath, f lane.Facts) (seed.Document, error) {
	f.Name = "seed/" + p.Name
	if h, err := c.Store.ByCapability(ctx, p.Capability); err == nil {
		f = h.OwnNIC(f)
	}
	h, b, d, err := c.redeem(ctx, p.Capability, f)
	if given, _ := c.runBundle(h); err != nil && d.Disputed() && given.Seed == lane.SeedTalos { // no gate on the machine would tell
		return seed.Document{}, errors.Join(err, c.alarm(h, d, f, "the configuration of run "+string(h.Run.ID)+" is not given"))
	}
	if err != nil {
		return seed.Document{}, err
	}
	in, err := c.documents(h, b, c.base(f))
	if err != nil {
		return seed.Document{}, err
	}
	docs, err := seed.Documents(in)
	if err != nil {
		return seed.Document{}, err
	}
	for _, doc := range docs {
		if doc.Name != p.Name {
			continue
		}
		e := c.answered(lane.KindServed, d, f)
		e.Digest, e.Bytes, e.Message = digest(doc.Body), int64(len(doc.Body)), "installer document"
		if b.Seed == lane.SeedTalos {
			if err := c.deliver(ctx, h, e, f); err != nil {
				return seed.Document{}, err
			}
			return doc, nil
		}
		return doc, c.Store.Witness(ctx, e)
	}
	return seed.Document{}, lane.Errorf(lane.NotFound, "the seed %s has no document %s", b.Seed, p.Name)
}

// deliver notes that a machine is given the configuration by which it installs itself, and with it
// the last of its grant. Nothing leaves before that is on record. A machine that does not say all
// that the record knows of it is not the one that was granted.
func (c *Control) deliver(ctx context.Context, h lane.Host, served lane.Event, f lane.Facts) error {
	if lacks := h.Unsaid(f); len(lacks) > 0 {
		d := lane.Decision{Host: h.ID, Run: h.Run.ID, Reason: lane.IdentityMissing, Detail: "a machine asked for its configuration and did not say its " + strings.Join(lacks, ", ") + ": what its firmware does not have must not stand in `identity`"}
		return c.alarm(h, d, f, "the configuration of run "+string(h.Run.ID)+" is not given")
	}
	_, err := c.change(ctx, h.ID, func(now lane.Host) (lane.Host, lane.Event, error) {
		if now.Run.ID != h.Run.ID {
			return now, lane.Event{}, lane.Errorf(lane.Refused, "%s: the run %s is over", lane.NoRun, h.Run.ID)
		}
		next, e, news, err := lane.Deliver(now, f, c.Now())
		if err != nil || !news {
			return now, lane.Event{}, err
		}
		e.Surface, e.Facts = f.Surface, &f
		return next, e, nil
	})
	if err == nil {
		c.joins.of(h.ID) // its Node is looked for
		err = c.Store.Witness(ctx, served)
	}
	return err
}

// Order answers the agent: what it told about its machine is cross-checked with
// the inventory, and only then is it ordered to write the one disk. An order is
// on record before it is returned.
func (c *Control) Order(ctx context.Context, capability string, hw lane.Hardware, f lane.Facts) (lane.Order, error) {
	f = hardwareFacts(hw, f)
	h, b, d, err := c.redeem(ctx, capability, f)
	if lane.CodeOf(err) == lane.Refused {
		return lane.Order{Action: d.Action, Reason: d.Reason, Detail: err.Error(), Host: h.ID, Run: h.Run.ID}, nil
	}
	if err != nil {
		return lane.Order{}, err
	}
	if b.Image == nil {
		return lane.Order{}, lane.Errorf(lane.Refused, "the bundle %s has no disk image: its seed is %s", b.Ref(), b.Seed)
	}
	if lacks := c.misfits(h, b, hw); len(lacks) > 0 {
		return c.noOrder(ctx, h, lane.HardwareMismatch, strings.Join(lacks, "; "))
	}
	disk, err := h.Run.Disk.Resolve(hw.Disks)
	if err != nil { // the agent would refuse it too
		return c.noOrder(ctx, h, lane.DiskMismatch, err.Error())
	}
	cleared, err := lane.ResolveWipe(disk, h.Run.Wipe, hw.Disks)
	switch {
	case err != nil:
		return c.noOrder(ctx, h, lane.DiskMismatch, err.Error())
	case len(cleared) > 0 && !hw.Wipes:
		return c.noOrder(ctx, h, lane.DiskMismatch, "the agent of "+b.Ref()+" knows nothing of disks to clear: build the bundle with this version's bootlane-agent, or take `wipe` out of the record")
	}
	if asks := append([]lane.DiskSelector{h.Run.Disk}, h.Run.Wipe...); !hw.Models && slices.ContainsFunc(asks, func(s lane.DiskSelector) bool { return s.Model+s.Name != "" }) {
		return c.noOrder(ctx, h, lane.DiskMismatch, "the agent of "+b.Ref()+" does not compare the model and name of disks: build the bundle with this version's bootlane-agent, or take `model` and `name` out of the record")
	}
	in, err := c.documents(h, b, c.base(f))
	if err != nil {
		return lane.Order{}, err
	}
	files, err := seed.AgentFiles(in)
	if err != nil {
		return lane.Order{}, err
	}
	if slices.ContainsFunc(files, func(f lane.File) bool { return f.PartLabel != "" }) && !hw.Parts {
		return c.noOrder(ctx, h, lane.HardwareMismatch, "the agent of "+b.Ref()+" puts files into the root file system only: build the bundle with this version's bootlane-agent")
	}
	encryption := in.Site.OpenedBy()
	if encryption != nil && !hw.Encrypts {
		return c.noOrder(ctx, h, lane.HardwareMismatch, "the agent of "+b.Ref()+" does not encrypt disks: build the bundle with this version's bootlane-agent, or say `encryption: \"\"` for this host or its role")
	}
	img := b.Files[b.Image.File]
	o := lane.Order{Action: d.Action, Reason: d.Reason, Detail: "write " + b.Ref() + " to " + disk.Name, Host: h.ID, Run: h.Run.ID, Disk: h.Run.Disk, Wipe: h.Run.Wipe, Encryption: encryption, Files: files, UnixTime: c.Now().Unix(),
		Image: &lane.Image{Path: filePath(h, b, b.Image.File), Digest: img.Digest, SizeBytes: img.SizeBytes, Compression: b.Image.Compression,
			RawDigest: b.Image.RawDigest, RawBytes: b.Image.RawBytes, RootLabel: b.Image.RootLabel}}
	if encryption != nil {
		o.Detail += ", encrypt it, to be opened by " + encryption.String()
	}
	for _, d := range cleared {
		o.Detail += ", clear " + d.Name
	}
	e := c.answered(lane.KindServed, d, f)
	e.Name, e.Message, e.Digest = "order", o.Detail, img.Digest
	return o, c.Store.Witness(ctx, e)
}

// noOrder ends the run of a machine that may not be written to: that leaves no second try to chance.
func (c *Control) noOrder(ctx context.Context, h lane.Host, why lane.Reason, detail string) (lane.Order, error) {
	_, failed := c.change(ctx, h.ID, func(h lane.Host) (lane.Host, lane.Event, error) {
		return lane.Fail(h, why, detail, c.Now())
	})
	return lane.Order{Action: lane.Hold, Reason: why, Detail: detail, Host: h.ID, Run: h.Run.ID}, failed
}

func hardwareFacts(hw lane.Hardware, f lane.Facts) lane.Facts {
	f.UUID, f.Serial, f.AssetTag = hw.UUID, lane.Clean(hw.Serial, 128), lane.Clean(hw.AssetTag, 128)
	f.Manufacturer, f.Product = lane.Clean(hw.Manufacturer, 128), lane.Clean(hw.Product, 128)
	f.MAC, f.Name = hw.BootMAC, "order"
	for _, n := range hw.NICs {
		f.MACs = append(f.MACs, n.MAC)
	}
	if a, err := lane.ParseArch(hw.Machine); err == nil {
		f.Arch = a
	}
	f.Firmware = lane.Firmware(lane.Clean(hw.Firmware, 8))
	return f
}
