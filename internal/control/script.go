package control

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"

	"bootlane/internal/lane"
	"bootlane/internal/script"
	"bootlane/internal/seed"
)

// Script answers a boot loader that told what its machine is, with the script
// it is to run. An install script counts one boot of the grant, and leaves only
// after the count and the script's digest are on record.
//
// failed says that the loader could not load the files of the script before:
// it is told to boot its disk, whatever was decided.
func (c *Control) Script(ctx context.Context, f lane.Facts, failed bool) ([]byte, lane.Decision, error) {
	return c.tell(ctx, f, failed, language{install: script.InstallScript, other: c.harmlessScript})
}

// PXELinux answers PXELINUX or U-Boot, which know of themselves no more than firmware
// does, with a configuration of their form. It counts a boot as Script does; what the
// machine is beyond its MAC is seen by the installer's own gate.
func (c *Control) PXELinux(ctx context.Context, f lane.Facts) ([]byte, lane.Decision, error) {
	return c.tell(ctx, f, false, language{
		install: func(in script.Install) []byte {
			root := ""
			switch in.Facts.Firmware {
			case lane.BIOS: // PXELINUX takes URLs
				return script.PXELinuxInstall(in)
			case lane.UEFI: // SYSLINUX, which looks for everything beside itself but what begins so
				root = "::"
			}
			// By TFTP from this same server, as U-Boot has nothing else.
			in.KernelURL, in.InitrdURL = root+strings.TrimPrefix(in.KernelURL, in.Server), root+strings.TrimPrefix(in.InitrdURL, in.Server)
			return script.PXELinuxInstall(in)
		},
		other: func(d lane.Decision, _ lane.Facts) []byte { return script.PXELinuxLocal(d) },
	})
}

// GRUB answers GRUB, which told what it read of its machine's SMBIOS, with a configuration
// of its form. Everything that it names is fetched from where GRUB itself came from.
func (c *Control) GRUB(ctx context.Context, f lane.Facts, failed bool) ([]byte, lane.Decision, error) {
	return c.tell(ctx, f, failed, language{
		install: func(in script.Install) []byte {
			in.KernelURL, in.InitrdURL = strings.TrimPrefix(in.KernelURL, in.Server), strings.TrimPrefix(in.InitrdURL, in.Server)
			in.AgainURL = "/" + lane.BootPath{MAC: f.MAC, Platform: lane.Platform{Arch: f.Arch, Firmware: f.Firmware}, File: lane.GRUBConfig, Said: lane.GRUBFailed}.String()
			return script.GRUBInstall(in)
		},
		other: func(d lane.Decision, f lane.Facts) []byte {
			m := script.Machine{Facts: f, Server: c.base(f), LocalBoot: d.Boot.LocalBoot}
			if d.Action == lane.LocalBoot {
				return script.GRUBLocal(m, d)
			}
			return script.GRUBHold(m, d, c.Hold, "/"+lane.BootPath{MAC: f.MAC, Platform: lane.Platform{Arch: f.Arch, Firmware: f.Firmware}, File: lane.GRUBConfig}.String())
		},
	})
}

// language is how a boot loader is told what was decided.
type language struct {
	install func(script.Install) []byte
	other   func(lane.Decision, lane.Facts) []byte
}

func (c *Control) tell(ctx context.Context, f lane.Facts, failed bool, say language) ([]byte, lane.Decision, error) {
	c.loops.ran(f.MAC)
	for range conflicts {
		d, h, err := c.decide(ctx, f)
		if err != nil {
			return nil, lane.Decision{}, err
		}
		if err := c.aftermath(ctx, d, h, f); err != nil {
			return nil, lane.Decision{}, err
		}
		if d.Action == lane.Install && !failed {
			body, err := c.installScript(ctx, d, h, f, say.install)
			switch {
			case lane.CodeOf(err) == lane.Conflict:
				continue
			case err != nil: // an order that is not on record is none
				return nil, lane.Decision{Reason: lane.StoreUnavailable, Detail: "the boot cannot be counted"}, err
			}
			return body, d, nil
		}
		if d.Action == lane.Inspect && !failed {
			body, err := c.inspectScript(d, h, f, say.install)
			return body, d, err
		}
		if failed {
			d.Action, d.Reason, d.Detail = lane.LocalBoot, lane.LoaderFailed, "the boot loader could not load the files of the installer"
		}
		body := say.other(d, f)
		e := c.answered(lane.KindServed, d, f)
		e.Digest, e.Bytes = digest(body), int64(len(body))
		c.Store.Record(e)
		return body, d, nil
	}
	return nil, lane.Decision{}, lane.Errorf(lane.Conflict, "the record keeps changing")
}

func (c *Control) installScript(ctx context.Context, d lane.Decision, h lane.Host, f lane.Facts, say func(script.Install) []byte) ([]byte, error) {
	next, e, err := lane.CountBoot(h, c.Policy, c.Now())
	if err != nil {
		return nil, err
	}
	b, err := c.runBundle(next)
	if err != nil {
		return nil, err
	}
	next.Run.Booting(f, next.Identity.MACs)
	body := say(c.install(next, b, d, f))
	e.Surface, e.Speaker, e.Action, e.Reason, e.Facts = f.Surface, f.Speaker, d.Action.String(), d.Reason, &f
	e.Name, e.Digest, e.Bytes = f.Name, digest(body), int64(len(body))
	if _, _, err := c.Store.Append(ctx, next, e); err != nil {
		return nil, err
	}
	return body, nil
}

// install fills in the install script of a host.
func (c *Control) install(h lane.Host, b lane.Bundle, d lane.Decision, f lane.Facts) script.Install {
	base := c.base(f)
	in := c.input(h, b, base)
	out := script.Install{
		Machine: script.Machine{Facts: f, Server: base, LocalBoot: h.Boot.LocalBoot}, Decision: d, Hostname: h.Hostname,
		Boot: h.Run.BootsUsed, Boots: h.Run.Boots, BundleName: b.Ref(),
		KernelURL: base + filePath(h, b, b.Kernel), InitrdURL: base + filePath(h, b, b.Initrd), Args: seed.KernelArgs(in, f.MAC),
		AgainURL: base + "/" + lane.BootPath{MAC: f.MAC, Platform: lane.Platform{Arch: f.Arch, Firmware: f.Firmware}, File: lane.FailedScript}.String(),
	}
	if b.Loaders[lane.Platform{Arch: f.Arch, Firmware: f.Firmware}.String()].ImageTrust {
		out.KernelSignatureURL = base + filePath(h, b, b.Kernel+lane.ImageSignatureExt)
		out.InitrdSignatureURL = base + filePath(h, b, b.Initrd+lane.ImageSignatureExt)
	}
	return out
}

// base returns our URL as the machine of a request reaches it.
func (c *Control) base(f lane.Facts) string { return cmp.Or(f.Server, c.BaseURL) }

// input is what the seeds are made of, for a machine that reaches us at base.
func (c *Control) input(h lane.Host, b lane.Bundle, base string) seed.Input {
	site, origins := c.installed(h)
	return seed.Input{Host: h, Bundle: b, Site: site, Origins: origins, Base: base + lane.RunBase(h.Run.Capability)}
}

// documents is the same with the bundle's first-boot scripts and sections. A role that the configuration
// has lost since the grant ends it here: what it said would be missing without a word.
func (c *Control) documents(h lane.Host, b lane.Bundle, base string) (seed.Input, error) {
	in := c.input(h, b, base)
	if why := c.unknownRole(h); why != "" {
		return in, lane.Errorf(lane.Refused, "role: %s", why)
	}
	if cl, err := c.cluster(h.Run.Cluster); err == nil && h.Run.Cluster != "" {
		in.Endpoint = seed.Endpoint{Address: cl.Status().Endpoint, CA: strings.TrimSpace(cl.CA())}
	}
	for _, name := range b.FirstBoot {
		body, err := c.content(b, name)
		if err != nil {
			return in, err
		}
		in.Scripts = append(in.Scripts, seed.Script{Name: name, Body: body})
	}
	if b.Config != "" {
		text, err := c.content(b, b.Config)
		if err != nil {
			return in, err
		}
		in.Config = seed.Section{Name: "config", File: b.Config, Text: text}
	}
	for _, name := range slices.Sorted(maps.Keys(b.Sections)) {
		text, err := c.content(b, b.Sections[name])
		if err != nil {
			return in, err
		}
		in.Sections = append(in.Sections, seed.Section{Name: name, File: b.Sections[name], Text: text})
	}
	return in, nil
}

// content returns a small file of a bundle.
func (c *Control) content(b lane.Bundle, name string) ([]byte, error) {
	f, err := c.Bundles.Open(b.Files[name])
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, &lane.Error{Code: lane.Unavailable, Message: "read the bundle's file " + name, Err: err}
	}
	return body, nil
}

func filePath(h lane.Host, b lane.Bundle, name string) string {
	return lane.RunPath{Capability: h.Run.Capability, Asset: lane.AssetFile, Digest: b.Files[name].Digest, Name: name}.String()
}

// harmlessScript returns the script of every answer but Install.
func (c *Control) harmlessScript(d lane.Decision, f lane.Facts) []byte {
	m := script.Machine{Facts: f, Server: c.base(f), LocalBoot: d.Boot.LocalBoot}
	if d.Action == lane.LocalBoot {
		return script.LocalBootScript(m, d)
	}
	return script.HoldScript(m, d, c.Hold, m.Server+"/"+lane.EntryScript)
}
