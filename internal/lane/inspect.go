package lane

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// This file is the commissioning path: an agent in RAM that opens no disk looks at a
// machine, and what it found becomes a record only by an operator's word.

// orInspect returns the answer d, or in its place Inspect, where that is wanted and a
// machine that said f can be looked at. It gives no run and no disk, and no speaker that
// runs by one may come to it.
func (p Policy) orInspect(d Decision, why Reason, wanted bool, f Facts) Decision {
	b := p.Inspect
	named := len(f.AllMACs()) > 0 || !f.UUID.Placeholder()
	asks := f.Speaker == SpeakerROM || f.Speaker == SpeakerLoader
	switch {
	case !wanted || !named || !asks:
		return d
	case b.Refusal != "":
		d.Detail += ", and is not looked at: " + b.Refusal
		return d
	case b.Digest == "":
		return d
	case !b.Fits(f.Arch):
		d.Detail += fmt.Sprintf(", and is not looked at: the bundle %s has nothing for %s", b.Ref(), orDash(string(f.Arch)))
		return d
	}
	return Decision{Action: Inspect, Reason: why, Host: d.Host, Bundle: b.Digest, Detail: "the agent of " + b.Ref() + " looks at the machine, and opens no disk"}
}

// inspectable reports whether an operator wants the machine looked at, in a state where
// that stands in nobody's way.
func (h Host) inspectable(now time.Time) bool {
	return Allowed(h.State, VerbInspect) && now.Before(h.Inspect)
}

// MaxInspectFor is how long a wish to have a machine looked at may stand.
const MaxInspectFor = 7 * 24 * time.Hour

// WishInspect has the machine looked at when it boots by network, until a time.
func WishInspect(h Host, until time.Time, by, why string, now time.Time) (Host, Event, error) {
	h, err := h.begin(VerbInspect)
	if err != nil {
		return Host{}, Event{}, err
	}
	if !until.After(now) || until.Sub(now) > MaxInspectFor {
		return Host{}, Event{}, Errorf(Invalid, "a wish to inspect a machine stands for up to seven days")
	}
	h.Inspect = until
	e := h.event(KindInspect, by, now, "%s", said("is looked at when it boots by network before "+stamp(until), Clean(why, 500)))
	return h, e, nil
}

// EndInspect ends the wish: the machine was looked at. It reports false where none stood.
func EndInspect(h Host, now time.Time) (Host, Event, bool) {
	next, err := h.begin(VerbInspect)
	if err != nil || h.Inspect.IsZero() {
		return h, Event{}, false
	}
	next.Inspect = time.Time{}
	return next, next.event(KindInspect, "server", now, "was looked at: `bootlane host discovered` shows what was found"), true
}

// What the agent does once it has told what it found.
const (
	ThenWait     = "wait"      // stay, and tell again after a while
	ThenPowerOff = "power-off" // switch the machine off
	ThenReboot   = "reboot"    // boot anew: the firmware's next request is answered otherwise
)

// InspectReply answers what an agent found. It has no room for an order: nothing that
// comes by this way can lead to a disk being written. The zero reply switches off.
type InspectReply struct {
	Then   string `json:"then"`
	Again  int    `json:"again,omitempty"` // seconds, with ThenWait
	Detail string `json:"detail"`          // one line for people
}

// InspectAgain is how long an agent waits before it tells again.
const InspectAgain = 30 * time.Second

// AfterInspection says what a machine does that was looked at. d is what its next network
// boot would be told; idle, ThenWait or ThenPowerOff, is for machines that nobody wants
// installed yet.
func AfterInspection(d Decision, idle string) InspectReply {
	out := InspectReply{Then: ThenReboot, Detail: d.Action.String() + ": " + d.Detail}
	switch {
	case d.Action == Inspect, d.Action == Hold, d.Reason == HostNew:
		out.Then = cmp.Or(idle, ThenPowerOff)
	}
	if out.Then == ThenWait {
		out.Again = int(InspectAgain / time.Second)
	}
	return out
}

// Discovered is what an agent found of a machine, the last time that it looked.
type Discovered struct {
	ID       string    `json:"id"` // see [Hardware.DiscoveredAs]
	First    time.Time `json:"first"`
	Heard    time.Time `json:"heard"` // last
	From     string    `json:"from,omitempty"`
	Bundle   string    `json:"bundle"` // whose agent looked
	Hardware Hardware  `json:"hardware"`
	// The rest is told, and not kept: what the inventory says of it now.
	Hosts    []HostID `json:"hosts,omitempty"` // the records that it shows a signal of
	Mismatch []Signal `json:"mismatch,omitempty"`
}

// Limits of what is kept of one machine.
const (
	maxDiscovered  = 192 << 10 // bytes, as JSON
	maxDiskLinks   = 16
	maxHardwareStr = 128
)

// Tidy makes what an agent told fit to be kept and shown: its texts are one harmless line
// each, and it is an Invalid error when it is more than a machine has. [Hardware.Canonical]
// comes first.
func (hw Hardware) Tidy() (Hardware, error) {
	clean := func(texts ...*string) {
		for _, t := range texts {
			*t = Clean(*t, maxHardwareStr)
		}
	}
	clean(&hw.Serial, &hw.AssetTag, &hw.Manufacturer, &hw.Product, &hw.Firmware, &hw.FirmwareRev, &hw.Machine, &hw.CPUModel, &hw.BMC)
	if _, err := netip.ParseAddr(hw.BMC); err != nil {
		hw.BMC = ""
	}
	hw.NICs, hw.Disks = slices.Clone(hw.NICs), slices.Clone(hw.Disks)
	for i := range hw.NICs {
		clean(&hw.NICs[i].Name, &hw.NICs[i].Driver)
	}
	for i := range hw.Disks {
		d := &hw.Disks[i]
		clean(&d.Name, &d.Serial, &d.UdevSerial, &d.WWN, &d.Model, &d.Vendor, &d.Transport)
		for _, links := range []*[]string{&d.ByID, &d.ByPath} {
			*links = slices.Clone(*links)[:min(len(*links), maxDiskLinks)]
			for j := range *links {
				clean(&(*links)[j])
			}
		}
	}
	b, err := json.Marshal(hw)
	if err != nil || len(b) > maxDiscovered {
		return hw, Errorf(Invalid, "%d bytes of hardware are more than is kept of one machine, %d", len(b), maxDiscovered)
	}
	return hw, nil
}

// AllMACs returns every NIC's address, the one that was booted from first, each once.
func (hw Hardware) AllMACs() []MAC {
	f := Facts{MAC: hw.BootMAC}
	for _, n := range hw.NICs {
		f.MACs = append(f.MACs, n.MAC)
	}
	return f.AllMACs()
}

// Equal reports whether both tell the same.
func (hw Hardware) Equal(other Hardware) bool {
	a, errA := json.Marshal(hw)
	b, errB := json.Marshal(other)
	return errA == nil && errB == nil && string(a) == string(b)
}

// Summary returns the machine on one line.
func (hw Hardware) Summary() string {
	gb := func(n int64) string { return fmt.Sprintf("%.0f GB", float64(n)/1e9) }
	var disks []string
	for i, d := range hw.Disks {
		if i == 4 {
			disks = append(disks, "...")
			break
		}
		disks = append(disks, d.Name+" "+gb(d.SizeBytes))
	}
	return Clean(fmt.Sprintf("%s %s, serial %s, %s %s, %d CPUs, %s memory, %d NICs, %d disks: %s", orDash(hw.Manufacturer), orDash(hw.Product), orDash(hw.Serial),
		hw.Machine, hw.Firmware, hw.CPUs, gb(hw.MemoryBytes), len(hw.NICs), len(hw.Disks), orDash(strings.Join(disks, ", "))), 500)
}

// DiscoveredAs returns the name under which it is kept: the UUID, or where that is a
// factory default the MAC that it booted from.
func (hw Hardware) DiscoveredAs() (string, error) {
	if !hw.UUID.Placeholder() {
		return string(hw.UUID), nil
	}
	if macs := hw.AllMACs(); len(macs) > 0 {
		return string(macs[0]), nil
	}
	return "", Errorf(Invalid, "the machine shows neither a UUID nor a MAC: it could not be told from another")
}

// Named reports whether a person means this machine by s: its id, any MAC in any form, or its serial number.
func (d Discovered) Named(s string) bool {
	m, err := ParseMAC(s)
	return d.ID == s || err == nil && slices.Contains(d.Hardware.AllMACs(), m) || s != "" && d.Hardware.Serial == s
}

// Differs returns what a machine's hardware has that its record says otherwise, besides
// the identity: see [Contradictions].
func Differs(h Host, hw Hardware) (out []Signal) {
	if a, err := ParseArch(hw.Machine); err == nil && a != h.Arch {
		out = append(out, Signal{"arch", string(h.Arch), string(a), h.ID})
	}
	if _, err := h.Disk.Resolve(hw.Disks); err != nil && h.Disk.Selects() {
		out = append(out, Signal{"disk", h.Disk.String(), err.Error(), h.ID})
	}
	for _, s := range h.Wipe {
		if _, err := s.Resolve(hw.Disks); err != nil {
			out = append(out, Signal{"wipe", s.String(), err.Error(), h.ID})
		}
	}
	if h.Boot.SecureBoot != "" && !hw.SecureBoot {
		out = append(out, Signal{"secureBoot", h.Boot.SecureBoot, "off", h.ID})
	}
	return out
}

// Adoption is an operator's wish to make a record of a machine that was looked at.
type Adoption struct {
	ID       HostID `json:"id,omitempty"`       // empty: the host name's first label
	Hostname string `json:"hostname,omitempty"` // empty: the id
	Bundle   string `json:"bundle,omitempty"`
	Role     string `json:"role,omitempty"`
	Disk     string `json:"disk,omitempty"` // serial number, WWN or by-id link; empty: the only one there is
	Check    bool   `json:"check,omitempty"`
}

// Adopted is what became of it, or with a check, or problems, what would.
type Adopted struct {
	Host     Host      `json:"host"`
	Notes    []string  `json:"notes,omitempty"` // what is left out, and will be missed later
	Problems []Problem `json:"problems,omitempty"`
}

// sharedNICs are drivers of NICs that are no part of one machine: dongles, which move from
// one to the next, and the BMC's own USB cable, whose MAC whole batches share.
var sharedNICs = []string{"cdc_ether", "cdc_ncm", "rndis_host", "r8152", "ax88179_178a", "asix"}

// Adopt returns the record that a machine becomes, with everything that stands against it.
func Adopt(d Discovered, a Adoption) Adopted {
	hw := d.Hardware
	short, _, _ := strings.Cut(a.Hostname, ".")
	h := Host{ID: cmp.Or(a.ID, HostID(short)), Hostname: a.Hostname, Bundle: a.Bundle, Role: a.Role}
	out := Adopted{}
	bad := func(field, format string, args ...any) {
		out.Problems = append(out.Problems, Problem{field, fmt.Sprintf(format, args...)})
	}
	if a.ID == "" && a.Hostname == "" {
		bad("id", "is missing: give --id or --hostname")
	}
	h.Identity, out.Notes = hw.identity()
	if len(h.Identity.MACs) == 0 {
		bad("identity.macs", "the machine shows no NIC of its own")
	}
	if h.Identity.UUID == "" && h.Identity.Serial == "" {
		bad("identity", "neither a UUID nor a serial number: only its NICs could tell this machine from another; set one in its firmware, or write the record by hand for `bootlane host import`")
	}
	arch, err := ParseArch(hw.Machine)
	if h.Arch = arch; err != nil {
		bad("arch", "%v", err)
	}
	var problem string
	if h.Disk, problem = hw.choose(a.Disk); problem != "" {
		bad("disk", "%s", problem)
	}
	out.Host = h.Canonical()
	return out
}

// identity returns by what the machine can be told from others, and what is left out of that.
func (hw Hardware) identity() (i Identity, notes []string) {
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	if hw.UUID.Placeholder() {
		note("the UUID %s is a factory default and identifies nothing: it is left out", orDash(string(hw.UUID)))
	} else {
		i.UUID = hw.UUID
	}
	for _, t := range []struct {
		name, text string
		into       *string
	}{{"serial number", hw.Serial, &i.Serial}, {"asset tag", hw.AssetTag, &i.AssetTag}} {
		switch {
		case t.text == "":
		case PlaceholderText(t.text):
			note("the %s %q is a factory default and identifies nothing: it is left out", t.name, t.text)
		default:
			*t.into = t.text
		}
	}
	shared := map[MAC]string{}
	for _, n := range hw.NICs {
		if slices.Contains(sharedNICs, n.Driver) && n.MAC != hw.BootMAC {
			shared[n.MAC] = n.Driver
		}
	}
	for _, m := range hw.AllMACs() {
		if shared[m] != "" {
			note("the NIC %s (%s) can move to another machine: it is left out", m, shared[m])
			continue
		}
		i.MACs = append(i.MACs, m)
	}
	return i, notes
}

// choose returns the selector of the disk that an operator named, or of the only one that
// can be installed to; else why there is none.
func (hw Hardware) choose(name string) (DiskSelector, string) {
	var fit []Disk
	for _, d := range hw.Disks {
		links := append([]string{d.Serial, d.UdevSerial, d.WWN}, d.ByID...)
		named := slices.Contains(links, name)
		if name == "" {
			named = !d.Removable && !d.ReadOnly && d.Transport != "usb"
		}
		if named {
			fit = append(fit, d)
		}
	}
	switch {
	case len(fit) == 0 && name == "":
		return DiskSelector{}, "the machine shows no disk that could be installed to; seen: " + describe(hw.Disks) + "; the kernel of the agent's bundle may lack the driver of its controller"
	case len(fit) == 0:
		return DiskSelector{}, fmt.Sprintf("no disk has the serial number, WWN or by-id link %q; seen: %s", name, describe(hw.Disks))
	case len(fit) > 1 && name == "":
		return DiskSelector{}, fmt.Sprintf("%d disks could be installed to, and nobody said which: give --disk SERIAL, one of %s", len(fit), describe(fit))
	case len(fit) > 1:
		return DiskSelector{}, fmt.Sprintf("%d disks are %q: give --disk with a WWN or by-id link that only one has: %s", len(fit), name, describe(fit))
	}
	d := fit[0]
	tries := []DiskSelector{{Serial: d.Serial}, {WWN: d.WWN}}
	if slices.Contains(d.ByID, name) {
		tries = []DiskSelector{{ByID: name}}
	}
	for _, l := range d.ByID {
		tries = append(tries, DiskSelector{ByID: l})
	}
	why := fmt.Sprintf("%s states neither a serial number nor a WWN that only it has: nothing selects it for sure", d.Name)
	for _, s := range tries {
		if _, err := s.Resolve(hw.Disks); err != nil {
			if s.Stable() {
				why = err.Error()
			}
			continue
		}
		if len(s.Validate()) == 0 {
			return s, ""
		}
	}
	return DiskSelector{}, why
}
