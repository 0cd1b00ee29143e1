package control

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"bootlane/internal/lane"
	"bootlane/internal/uefi"
)

// bootChain is what a machine with UEFI starts by network, in order, before the kernel.
type bootChain struct {
	stages []bootStage
	http   bool // its last stage can go on where firmware loaded the first one by HTTP
}

// bootStage is one image of a chain. What has the same key has the same bytes.
type bootStage struct {
	name, key string
	open      func() (BootFile, error)
}

func (c *Control) bundleStage(b lane.Bundle, name string) bootStage {
	f := b.Files[name]
	return bootStage{name, string(f.Digest), func() (BootFile, error) { return c.Bundles.Open(f) }}
}

func siteStage(path string) bootStage {
	key := path
	if st, err := os.Stat(path); err == nil {
		key = fmt.Sprintf("%s %d %d", path, st.Size(), st.ModTime().UnixNano())
	}
	return bootStage{filepath.Base(path), key, func() (BootFile, error) { return os.Open(path) }}
}

// chainOf returns the boot loaders of a platform: those of the bundle where it has its
// own, else the site's, of which a host may ask for another than the first.
func (c *Control) chainOf(p lane.Platform, o lane.BootOptions, b lane.Bundle) (out bootChain) {
	if l, own := b.Loaders[p.String()]; own {
		out.http = l.HTTP
		out.stages = append(out.stages, c.bundleStage(b, l.First))
		if l.Second != "" {
			out.stages = append(out.stages, c.bundleStage(b, l.Second))
		}
		return out
	}
	files := c.Loaders[p]
	if len(files) == 0 {
		return out
	}
	out.http = c.GRUBByHTTP
	first := max(0, slices.IndexFunc(files, func(path string) bool { return filepath.Base(path) == o.Loader }))
	out.stages = append(out.stages, siteStage(files[first]))
	if !c.kinds.of(out.stages[0]).shim {
		return out
	}
	second := secondStage(filepath.Base(files[first]), p.Arch)
	if i := slices.IndexFunc(files, func(path string) bool { return strings.EqualFold(filepath.Base(path), second) }); i >= 0 {
		out.stages = append(out.stages, siteStage(files[i]))
	}
	return out
}

// secondStage returns the name that a shim asks for beside itself: a distribution's GRUB,
// and iPXE's shim its own name without "-shim" and the architecture.
func secondStage(shim string, a lane.Arch) string {
	suffix := map[lane.Arch]string{lane.X86_64: "x64", lane.ARM64: "aa64", lane.I386: "ia32"}[a]
	shim = strings.ToLower(shim)
	for _, end := range []string{"-shim" + suffix + ".efi", "-shim.efi"} {
		if name, ok := strings.CutSuffix(shim, end); ok {
			return name + ".efi"
		}
	}
	return "grub" + suffix + ".efi"
}

// kinds remembers what images are: they never change under their key.
type kinds struct {
	mu    sync.Mutex
	known map[string]kind
}

type kind struct {
	shim, grub bool
	digest     lane.Digest // of the file
	bytes      int64
}

// of reads an image once. What cannot be read is neither: it is found out elsewhere.
func (k *kinds) of(s bootStage) kind {
	k.mu.Lock()
	defer k.mu.Unlock()
	if have, ok := k.known[s.key]; ok {
		return have
	}
	data, err := s.read()
	if err != nil {
		return kind{}
	}
	out := kind{digest: digest(data), bytes: int64(len(data))}
	if im, err := uefi.ParseImage(data); err == nil {
		_, out.shim = im.Section(".vendor_cert")
		sbat, _ := im.Section(".sbat")
		out.grub = strings.Contains("\n"+string(sbat), "\ngrub,")
	}
	if k.known == nil {
		k.known = map[string]kind{}
	}
	k.known[s.key] = out
	return out
}

func (s bootStage) read() ([]byte, error) {
	f, err := s.open()
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	return data, cmp.Or(err, f.Close())
}

// grub reports whether a chain ends in GRUB.
func (c *Control) grub(ch bootChain) bool {
	return slices.ContainsFunc(ch.stages, func(s bootStage) bool { return c.kinds.of(s).grub })
}

// byHTTP changes the decision for firmware that would fetch its loader by HTTP, where that
// loader is a GRUB that cannot go on then: the firmware is sent on to its next boot option.
func (c *Control) byHTTP(d lane.Decision, f lane.Facts, b lane.Bundle) lane.Decision {
	if !f.HTTPBoot || d.Action == lane.LocalBoot || f.Firmware != lane.UEFI {
		return d
	}
	if !d.Action.Boots() {
		b = lane.Bundle{}
	}
	ch := c.chainOf(lane.Platform{Arch: f.Arch, Firmware: f.Firmware}, d.Boot, b)
	if len(ch.stages) == 0 || ch.http || !c.grub(ch) {
		return d
	}
	d.Action, d.Reason = lane.LocalBoot, lane.LoaderByTFTP
	d.Detail = fmt.Sprintf("%s leads to a GRUB that has no network once firmware loaded it by HTTP; it is offered by PXE", ch.stages[0].name)
	return d
}

// chainProblems says why a host cannot come through its boot chain, all at once.
func (c *Control) chainProblems(h lane.Host, b lane.Bundle) (out []lane.Problem) {
	bad := func(field, format string, args ...any) {
		out = append(out, lane.Problem{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	ch := c.chainOf(lane.Platform{Arch: h.Arch, Firmware: lane.UEFI}, h.Boot, b)
	if len(ch.stages) == 0 {
		if h.Boot.SecureBoot != "" {
			bad("boot.secureBoot", "nothing is configured that UEFI of %s could boot: see `loaders`", h.Arch)
		}
		return out
	}
	if n := c.home(h.Network.Address); n.Proxy && c.grub(ch) {
		bad("boot.loader", "%s leads to GRUB, which by PXE takes the server of the address for its boot server: in a network with `mode: proxy` it finds nothing; let Bootlane own the network's DHCP, or use iPXE", ch.stages[0].name)
	}
	if h.Boot.SecureBoot == "" {
		return out
	}
	policy, err := c.firmware(h.Boot.SecureBoot)
	if err != nil {
		bad("boot.secureBoot", "%v", err)
		return out
	}
	files, err := c.images(ch, b)
	if err != nil {
		bad("boot.loader", "the chain cannot be read: %v", err)
		return out
	}
	if len(ch.stages) == 1 && c.kinds.of(ch.stages[0]).shim {
		bad("boot.loader", "%s is a shim, and what it starts is not beside it: add %s to `loaders`, or `second` to the bundle's", ch.stages[0].name, secondStage(ch.stages[0].name, h.Arch))
		return out
	}
	for _, l := range uefi.Prove(policy, files).Links {
		for _, f := range l.Broken {
			bad("boot.secureBoot", "%s, which %s checks: %s", l.File, l.Checker, strings.TrimSuffix(f.Text+"; "+f.Mend, "; "))
		}
	}
	if level := uefi.Least(b.MinimumSBAT); level != nil && len(out) == 0 {
		policy.SBAT = level
		for _, l := range uefi.Prove(policy, files).Links {
			for _, f := range l.Broken {
				bad("bundle", "%s is below the minimumSBAT of %s: %s", l.File, b.Ref(), f.Text)
			}
		}
	}
	return out
}

// firmware returns what a host's firmware trusts, by the name that its record gives it.
func (c *Control) firmware(name string) (uefi.Policy, error) {
	p := c.SecureBoot
	p.Now = c.Now()
	if name == lane.SecureBootSite {
		if p.Firmware.DB.Empty() {
			return p, lane.Errorf(lane.Invalid, "%q means the keys of the site: name them in the configuration, secureBoot.firmware", name)
		}
		return p, nil
	}
	f, ok, err := uefi.BuiltIn(name)
	if err == nil && !ok {
		err = lane.Errorf(lane.Invalid, "%q is no firmware: use %s", name, strings.Join(lane.SecureBoots(), ", "))
	}
	f.DBX = p.Firmware.DBX
	p.Firmware = f
	return p, err
}

// images reads a chain, and the kernel that it ends in.
func (c *Control) images(ch bootChain, b lane.Bundle) ([]uefi.File, error) {
	var out []uefi.File
	for _, s := range append(slices.Clip(ch.stages), c.bundleStage(b, b.Kernel)) {
		data, err := s.read()
		if err != nil {
			return nil, err
		}
		out = append(out, uefi.File{Name: s.name, Data: data})
	}
	return out, nil
}
