// Package control holds everything that can happen: one verb a file. It reads
// and writes through the store, asks the pure packages, and is the one place
// where the clock, randomness and new ids enter. It does not log: what an
// operator may need is an event.
package control

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"bootlane/internal/lane"
	"bootlane/internal/script"
	"bootlane/internal/uefi"
)

// Store is what control needs of a store. Host, ByCapability, LeaseAt, DiscoveredAs: NotFound when
// missing. Append: Conflict when the record was changed since it was read. Every
// method: Unavailable when the database does not answer.
type Store interface {
	Host(ctx context.Context, id lane.HostID) (lane.Host, error)
	Hosts(ctx context.Context, after lane.HostID, limit int) ([]lane.Host, error)
	Claimants(ctx context.Context, claims []string) ([]lane.Host, error)
	ByCapability(ctx context.Context, capability string) (lane.Host, error)
	Due(ctx context.Context, t time.Time) ([]lane.Host, error)
	Events(ctx context.Context, subject string, after int64, limit int) ([]lane.Event, error)
	LastEvents(ctx context.Context, subject string, limit int) ([]lane.Event, error)
	LastingEvents(ctx context.Context, subject string, limit int) ([]lane.Event, error)
	Strangers(ctx context.Context) ([]lane.Stranger, error)
	LeasesAfter(ctx context.Context, after string, limit int) ([]lane.LeaseOf, error)
	LeaseAt(ctx context.Context, a netip.Addr) (lane.LeaseOf, error)
	Append(ctx context.Context, h lane.Host, e lane.Event) (lane.Host, lane.Event, error)
	BundleRecords(ctx context.Context, name string) ([]lane.BundleRecord, error)
	AppendBundle(ctx context.Context, r lane.BundleRecord, e lane.Event) (lane.BundleRecord, error)
	Alias(ctx context.Context, name string) (lane.BundleAlias, error)
	Aliases(ctx context.Context) ([]lane.BundleAlias, error)
	AppendAlias(ctx context.Context, a lane.BundleAlias, e lane.Event) (lane.BundleAlias, error)
	Witness(ctx context.Context, e lane.Event) error
	PutDiscovered(ctx context.Context, d lane.Discovered, e lane.Event) error
	Discovered(ctx context.Context) ([]lane.Discovered, error)
	DiscoveredAs(ctx context.Context, id string) (lane.Discovered, error)
	Record(e lane.Event)
	Flush(ctx context.Context) error
}

// Bundles is what control needs of the bundle store. Get, Find: NotFound when missing. What
// they and List return says in its Refusal when it is damaged, or not signed as the site
// wants. Import asks admit before it copies anything.
type Bundles interface {
	Get(d lane.Digest) (lane.Bundle, error)
	Find(ref string) (lane.Bundle, error)
	List() []lane.Bundle
	Signers(d lane.Digest) []string
	Trust() lane.Trust
	Import(ctx context.Context, dir string, admit func(b lane.Bundle, present bool) error) (lane.Bundle, error)
	// Broken: a file of it is known to be damaged. Examine: what Import would refuse of what
	// describes a bundle. Complete: Import, where files that the store has need not come again.
	Broken(d lane.Digest) bool
	Examine(dir string, admit func(b lane.Bundle, present bool) error) (lane.Bundle, error)
	Complete(ctx context.Context, dir string, admit func(b lane.Bundle, present bool) error) (lane.Bundle, error)
	Collect(keep func(lane.Bundle) bool, check bool) (lane.BundleGC, error)
	Fsck(ctx context.Context) (lane.BundleFsck, error)
	Work() lane.BundleWork
	Open(f lane.BundleFile) (*os.File, error)
}

// Config is what a Control is made of.
type Config struct {
	Store    Store
	Bundles  Bundles
	Registry Registry // nil: what the store lacks is imported by hand
	Now      func() time.Time
	Rand     io.Reader // source of ids and capabilities
	Policy   lane.Policy
	// InspectBundle names the one, NAME-VERSION or an alias, whose agent looks at machines: it goes
	// into the Policy as it stands. Empty: none does. InspectThen is lane.ThenWait or
	// lane.ThenPowerOff: what a machine does that was looked at and that nobody installs yet.
	InspectBundle, InspectThen string
	// BundlePolicy is what the site wants of bundles, besides signatures.
	BundlePolicy lane.BundlePolicy
	// Site is what the configuration says of all installed systems, Roles what it says of those
	// whose host has one of these roles.
	Site  lane.InstallOptions
	Roles map[string]lane.InstallOptions
	// Profiles are what the hardware of some hosts must have, by name.
	Profiles map[string]lane.Profile
	// Clusters are the clusters that hosts can join, by name.
	Clusters map[string]Cluster
	BaseURL  string // of the machines' HTTP listener, http://10.0.0.1:8080, where no request says how it is reached
	Hold     script.Hold
	// HoldScreen gives held machines a boot loader, so that their screen shows why.
	HoldScreen bool
	Loaders    map[lane.Platform][]string // paths of each platform's boot loaders; the first is given when nobody asks for another
	// GRUBByHTTP says that the site's GRUB can go on where firmware loaded it by HTTP.
	GRUBByHTTP bool
	// SecureBoot is what the site knows of firmware: its own keys, dbx, and SBAT level.
	SecureBoot uefi.Policy
	// Unpinned allows mirrors whose content changes from day to day.
	Unpinned bool
	// DiskNames allows disks that are selected by the kernel's name, which may be another one's after a boot.
	DiskNames bool
	// Reach asks whether a URL answers, through an http:// proxy where one is given; nil: nobody
	// is asked.
	Reach    func(ctx context.Context, url, proxy string) error
	Networks []Network
}

// Network describes a boot network, to `render`, to `dhcp export` and to preflight.
type Network struct {
	lane.Subnet
	Interface, Domain string
	BaseURL           string     // of the machines' HTTP listener, as machines of this network reach it
	First, Last       netip.Addr // of the range for everybody; none of a proxy, or where all have reservations
	Lease             time.Duration
	Authoritative     bool
	Proxy             bool        // another server gives the addresses
	External          bool        // and the boot files: Bootlane speaks no DHCP there
	IPv6              lane.Subnet // where machines get IPv6 addresses as well; without a prefix: they do not
}

// home returns the network that an address lies in, and the first one for any other.
func (c *Control) home(a netip.Addr) Network {
	for _, n := range c.Networks {
		if n.Prefix.Contains(a) {
			return n
		}
	}
	if len(c.Networks) == 0 {
		return Network{}
	}
	return c.Networks[0]
}

// misplaced says why an address cannot be reserved for a machine, or nothing. Of
// another server's network nothing is known.
func (c *Control) misplaced(a netip.Addr) string {
	var all []string
	for _, n := range c.Networks {
		switch {
		case n.Proxy || !a.IsValid():
			return ""
		case n.Prefix.Contains(a):
			return n.Misplaced(a)
		}
		all = append(all, n.Prefix.String())
	}
	if !a.IsValid() || len(all) == 0 {
		return ""
	}
	return fmt.Sprintf("%s is in no network of the configuration: %s", a, strings.Join(all, ", "))
}

// unloadable says why a host cannot have the boot loader that it asks for, or nothing.
func (c *Control) unloadable(h lane.Host) string {
	if h.Boot.Loader == "" {
		return ""
	}
	var have []string
	for _, p := range lane.Platforms() {
		for _, path := range c.Loaders[p] {
			if p.Arch == h.Arch && filepath.Base(path) == h.Boot.Loader {
				return ""
			}
			if p.Arch == h.Arch {
				have = append(have, filepath.Base(path))
			}
		}
	}
	return fmt.Sprintf("%s is not among the configured `loaders` of %s: %s", h.Boot.Loader, h.Arch, strings.Join(have, ", "))
}

// misplaced6 says the same of an IPv6 address. Those are ours to give, or nobody's.
func (c *Control) misplaced6(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	var all []string
	for _, n := range c.Networks {
		switch {
		case !n.IPv6.Prefix.IsValid():
			continue
		case n.IPv6.Prefix.Contains(a):
			return n.IPv6.Misplaced(a)
		}
		all = append(all, n.IPv6.Prefix.String())
	}
	if len(all) == 0 {
		return fmt.Sprintf("%s cannot be given: no network of the configuration has `ipv6`", a)
	}
	return fmt.Sprintf("%s is in no IPv6 network of the configuration: %s", a, strings.Join(all, ", "))
}

// reserved says why an address cannot be given to an installed system, or nothing. Of networks
// that are not in the configuration nothing is known.
func (c *Control) reserved(h lane.Host, a netip.Addr) string {
	for _, n := range c.Networks {
		switch {
		case n.IPv6.Prefix.IsValid() && n.IPv6.Prefix.Contains(a):
			return n.IPv6.Misplaced(a)
		case n.Proxy || !n.Prefix.Contains(a):
			continue
		case n.First.IsValid() && a.Compare(n.First) >= 0 && a.Compare(n.Last) <= 0 && a != h.Network.Address:
			return fmt.Sprintf("%s is in the range from which DHCP gives addresses to everybody, %s to %s: take one outside, or reserve it as network.address as well", a, n.First, n.Last)
		}
		return n.Misplaced(a)
	}
	return ""
}

// siteProblems names what a record asks for and the configuration cannot give.
func (c *Control) siteProblems(h lane.Host) (out []lane.Problem) {
	if why := c.misplaced(h.Network.Address); why != "" {
		out = append(out, lane.Problem{Field: "network.address", Message: why})
	}
	if why := c.misplaced6(h.Network.Address6); why != "" {
		out = append(out, lane.Problem{Field: "network.address6", Message: why})
	}
	for _, a := range h.Network.Static() {
		if why := c.reserved(h, a); why != "" {
			out = append(out, lane.Problem{Field: h.Network.Field(a), Message: why})
		}
	}
	if !c.DiskNames {
		out = append(out, namedDisks(h)...)
	}
	if why := c.unloadable(h); why != "" {
		out = append(out, lane.Problem{Field: "boot.loader", Message: why})
	}
	if why := c.unknownRole(h); why != "" {
		out = append(out, lane.Problem{Field: "role", Message: why})
	}
	if why := c.unknownCluster(h); why != "" {
		out = append(out, lane.Problem{Field: "install.cluster", Message: why})
	}
	return out
}

// namedDisks are a record's disks that only the kernel's name selects.
func namedDisks(h lane.Host) (out []lane.Problem) {
	disks := map[string]lane.DiskSelector{"disk": h.Disk, "mirror": h.Mirror}
	for i, s := range h.Wipe {
		disks[fmt.Sprintf("wipe[%d]", i)] = s
	}
	for _, field := range slices.Sorted(maps.Keys(disks)) {
		if name := disks[field].Name; name != "" {
			out = append(out, lane.Problem{Field: field + ".name", Message: fmt.Sprintf("%s may be another disk after the next boot: give byID, wwn or serial; for disks that state none, `policy.diskNames: true` in the configuration allows it", name)})
		}
	}
	return out
}

// Control answers surfaces and operators. It is safe for concurrent use.
type Control struct {
	Config
	loops      *loops
	kinds      *kinds
	pulls      *pulls
	joins      *joins
	proving    sync.Mutex // held while a machine's first boot is compared with all others'
	tickets    *tickets
	collecting sync.RWMutex // held for reading while something comes to refer to a bundle
}

// New returns a Control.
func New(cfg Config) *Control {
	return &Control{Config: cfg, loops: &loops{}, kinds: &kinds{}, pulls: newPulls(), joins: newJoins(), tickets: newTickets()}
}

// conflicts is how often a verb starts over when somebody else changed the record.
const conflicts = 5

// record reads the record that a verb is about. Verbs take ids only: a MAC is told its record.
func (c *Control) record(ctx context.Context, id lane.HostID) (lane.Host, error) {
	h, err := c.Store.Host(ctx, id)
	if lane.CodeOf(err) != lane.NotFound {
		return h, err
	}
	if owner, err := c.Host(ctx, id); err == nil {
		return h, lane.Errorf(lane.NotFound, "%s is a MAC of %s: give the host's id", id, owner.ID)
	}
	return h, err
}

// change reads a record, applies a transition and stores the result, and starts
// over when the record was changed in between.
func (c *Control) change(ctx context.Context, id lane.HostID, transition func(lane.Host) (lane.Host, lane.Event, error)) (lane.Host, error) {
	var last error
	for range conflicts {
		h, err := c.record(ctx, id)
		if err != nil {
			return lane.Host{}, err
		}
		next, e, err := transition(h)
		if err != nil {
			return h, err
		}
		if e.Kind == "" {
			return h, nil // nothing to change
		}
		if e.Surface == "" {
			e.Surface = surfaceOf(e.By)
		}
		stored, _, err := c.Store.Append(ctx, next, e)
		if lane.CodeOf(err) != lane.Conflict {
			return stored, err
		}
		last = err
	}
	return lane.Host{}, last
}

// surfaceOf says where a change came from when nobody else did.
func surfaceOf(by string) lane.Surface {
	if strings.HasPrefix(by, "op:") {
		return lane.SurfaceAPI
	}
	return lane.SurfaceSelf
}

// random returns n random bytes as lower-case base32: letters and digits only,
// so that it needs no escaping in any path or script.
func (c *Control) random(n int) (string, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(c.Rand, b); err != nil {
		return "", fmt.Errorf("read randomness: %w", err)
	}
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b)), nil
}

func digest(b []byte) lane.Digest {
	s := sha256.Sum256(b)
	return lane.Digest("sha256:" + hex.EncodeToString(s[:]))
}

// subject returns whose evidence a decision is: the record it found, or the
// machine's address.
func subject(d lane.Decision, f lane.Facts) string {
	if d.Host != "" {
		return string(d.Host)
	}
	return lane.UnknownSubject(f.MAC)
}

// answered makes the evidence of an answer.
func (c *Control) answered(kind lane.Kind, d lane.Decision, f lane.Facts) lane.Event {
	return lane.Event{Subject: subject(d, f), At: c.Now(), Kind: kind, By: string(f.Surface), Surface: f.Surface, Speaker: f.Speaker,
		Action: d.Action.String(), Reason: d.Reason, Run: d.Run, Message: lane.Clean(d.Detail, 1000), Name: f.Name, Facts: &f, Mismatch: d.Mismatch}
}
