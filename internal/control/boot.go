package control

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"bootlane/internal/lane"
	"bootlane/internal/script"
)

// BootFile is an open boot loader or script.
type BootFile interface {
	io.ReadSeekCloser
	io.ReaderAt
}

type scriptFile struct{ *bytes.Reader }

func (scriptFile) Close() error { return nil }

// Boot answers a boot/… name, by TFTP or HTTP. The entry script is given to
// anybody: it only asks again, with more facts. A loader is given to a machine
// that may install, and to a held one so that its screen can show why. Everybody
// else gets a Refused error that says why.
func (c *Control) Boot(ctx context.Context, p lane.BootPath, f lane.Facts) (BootFile, error) {
	f.MAC, f.Arch, f.Firmware, f.Name = p.MAC, p.Platform.Arch, p.Platform.Firmware, p.String()
	switch p.File {
	case lane.EntryScript:
		return c.served(f, script.Entry(c.base(f))), nil
	case lane.PXELinuxConfig:
		f.Speaker = lane.SpeakerROM
		body, _, err := c.PXELinux(ctx, f)
		return scriptFile{bytes.NewReader(body)}, err
	case lane.GRUBConfig:
		if p.Said == "" {
			return c.served(f, script.GRUBEntry(f.Surface)), nil
		}
		f.Speaker = lane.SpeakerLoader
		body, _, err := c.GRUB(ctx, lane.GRUBFacts(p.Said, f), p.Said == lane.GRUBFailed)
		return scriptFile{bytes.NewReader(body)}, err
	case lane.FailedScript:
		f.Speaker = lane.SpeakerROM // the path says no more than firmware would
		body, _, err := c.Script(ctx, f, true)
		return scriptFile{bytes.NewReader(body)}, err
	}
	if p.MAC == "" && p.Platform != (lane.Platform{}) && slices.ContainsFunc(c.Networks, func(n Network) bool { return n.External }) {
		// Another server's DHCP cannot name the MAC. A loader by itself installs nothing: it asks again.
		return c.loader(lane.Decision{}, p)
	}
	if p.MAC == "" {
		return nil, lane.Errorf(lane.NotFound, "%s: only %s is served without a MAC in the path", p.File, lane.EntryScript)
	}
	f.Speaker = lane.SpeakerROM
	// Who is not told of a file asks for it because its loader does: that is no question.
	expected, _, err := c.decide(ctx, f)
	if err != nil {
		return nil, err
	}
	if _, ok := c.loaderOf(expected, p); !ok {
		return nil, c.noLoader(p, f)
	}
	d, err := c.Ask(ctx, f)
	if err != nil {
		return nil, err
	}
	if c.loops.looping(p.MAC, c.Now()) {
		d.Action, d.Reason, d.Detail = lane.LocalBoot, lane.LoaderLoop, fmt.Sprintf("the machine has loaded a boot loader %d times within %s, and none of them ran", loopLoads, loopWindow)
		c.Store.Record(c.answered(lane.KindRefused, d, f))
	}
	if d.Action == lane.LocalBoot || d.Action == lane.Hold && !c.HoldScreen {
		return nil, lane.Errorf(lane.Refused, "%s: %s: %s", d.Action, d.Reason, d.Detail)
	}
	file, err := c.loader(d, p)
	if s, ok := c.loaderOf(d, p); ok && err == nil {
		e := c.answered(lane.KindServed, d, f)
		k := c.kinds.of(s)
		e.Digest, e.Bytes, e.Message = k.digest, k.bytes, "boot loader "+s.name
		c.Store.Record(e)
	}
	return file, err
}

func (c *Control) served(f lane.Facts, body []byte) BootFile {
	f.Speaker = lane.SpeakerLoader
	c.Store.Record(lane.Event{Subject: c.owner(f), At: c.Now(), Kind: lane.KindServed, By: string(f.Surface), Surface: f.Surface,
		Speaker: f.Speaker, Name: f.Name, Digest: digest(body), Bytes: int64(len(body)), Message: "entry script", Facts: &f})
	return scriptFile{bytes.NewReader(body)}
}

// loader opens what is served under a loader's name.
func (c *Control) loader(d lane.Decision, p lane.BootPath) (BootFile, error) {
	s, ok := c.loaderOf(d, p)
	if !ok {
		return nil, missing(p)
	}
	file, err := s.open()
	if os.IsNotExist(err) || os.IsPermission(err) {
		return nil, &lane.Error{Code: lane.Unavailable, Message: "open the boot loader of " + p.Platform.String(), Err: err}
	} else if err != nil {
		return nil, err
	}
	return file, nil
}

// loaderOf returns the boot loader that has a name: of the run's bundle where it has
// loaders of its own, else of the site. A bundle's first stage is also served under the
// site's name, by which DHCP knows it.
func (c *Control) loaderOf(d lane.Decision, p lane.BootPath) (bootStage, bool) {
	i := slices.IndexFunc(c.Loaders[p.Platform], func(path string) bool { return filepath.Base(path) == p.File })
	if d.Action.Boots() {
		b, err := c.Bundles.Get(d.Bundle)
		if l, own := b.Loaders[p.Platform.String()]; err == nil && own {
			name := p.File
			if !slices.Contains(l.Files(), name) && i >= 0 {
				name = l.First
			}
			return c.bundleStage(b, name), slices.Contains(l.Files(), name)
		}
	}
	if i < 0 {
		return bootStage{}, false
	}
	return siteStage(c.Loaders[p.Platform][i]), true
}

// noLoader refuses a name that is no loader's, and puts that on record, unless every boot
// loader of its kind asks for it in vain.
func (c *Control) noLoader(p lane.BootPath, f lane.Facts) error {
	if lane.OptionalFile(p.File) {
		return lane.Errorf(lane.NotFound, "%s is not needed", p.File)
	}
	err := missing(p)
	c.Store.Record(lane.Event{Subject: c.owner(f), At: c.Now(), Kind: lane.KindRefused, By: string(f.Surface), Surface: f.Surface, Speaker: f.Speaker, Name: f.Name, Message: err.Error(), Facts: &f})
	return err
}

func missing(p lane.BootPath) error {
	return lane.Errorf(lane.NotFound, "no boot loader %s for %s: `loaders` in the configuration names them", p.File, p.Platform)
}
