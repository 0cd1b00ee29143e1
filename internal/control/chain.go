package control

import (
	"context"
	"path"

	"bootlane/internal/lane"
	"bootlane/internal/uefi"
)

// Chain returns a host's boot chain by UEFI: that of its run's bundle, or else of the one
// that its record names, with what was served in its last run.
func (c *Control) Chain(ctx context.Context, id lane.HostID) (lane.BootChain, error) {
	h, err := c.Host(ctx, id)
	if err != nil {
		return lane.BootChain{}, err
	}
	b, err := c.Bundles.Get(h.Run.Bundle)
	if h.Run.Bundle == "" || err != nil {
		b, err = c.findBundle(ctx, h.Bundle)
	}
	if err == nil {
		b, err = fitted(b, h)
	}
	if err != nil {
		return lane.BootChain{}, err
	}
	out := lane.BootChain{Host: h.ID, Run: h.Run.ID, Bundle: b.Ref(), Firmware: h.Boot.SecureBoot}
	ch := c.chainOf(lane.Platform{Arch: h.Arch, Firmware: lane.UEFI}, h.Boot, b)
	for _, s := range append(ch.stages, c.bundleStage(b, b.Kernel)) {
		out.Links = append(out.Links, lane.ChainLink{Name: s.name, Digest: c.kinds.of(s).digest})
	}
	if h.Boot.SecureBoot != "" {
		if err := c.proveChain(&out, ch, b); err != nil {
			return out, err
		}
	}
	events, err := c.Events(ctx, string(h.ID), -1, 5000)
	if err != nil {
		return out, err
	}
	for _, e := range events {
		if e.Kind == lane.KindServed && e.Digest != "" && e.Run == h.Run.ID && h.Run.ID != "" {
			fetched(&out, lane.Fetch{At: e.At, Name: e.Name, Digest: e.Digest, Bytes: e.Bytes, By: e.Surface})
		}
	}
	return out, nil
}

func (c *Control) proveChain(out *lane.BootChain, ch bootChain, b lane.Bundle) error {
	policy, err := c.firmware(out.Firmware)
	if err != nil {
		return err
	}
	files, err := c.images(ch, b)
	if err != nil {
		return err
	}
	for i, l := range uefi.Prove(policy, files).Links {
		link := &out.Links[i]
		link.Checker, link.Proven = l.Checker, l.Proven
		for _, f := range l.Broken {
			link.Broken = append(link.Broken, f.Text)
		}
	}
	return nil
}

// fetched puts a file to the link that it is: by its bytes, for a bundle's first stage goes
// by the site's name as well; else by its name, under which other bytes were served.
func fetched(out *lane.BootChain, f lane.Fetch) {
	for i, l := range out.Links {
		if l.Digest == f.Digest {
			out.Links[i].Fetched = append(l.Fetched, f)
			return
		}
	}
	for i, l := range out.Links {
		if l.Name == path.Base(f.Name) {
			out.Links[i].Fetched = append(l.Fetched, f)
			return
		}
	}
	out.Others = append(out.Others, f)
}
