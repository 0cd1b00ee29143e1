package lane

import (
	"encoding/hex"
	"slices"
	"strings"
)

// Arch is a CPU architecture, spelled as uname -m and iPXE's ${buildarch} do.
type Arch string

// The architectures a bundle can be made for.
const (
	X86_64 Arch = "x86_64"
	ARM64  Arch = "arm64"
	I386   Arch = "i386"
)

// Firmware is the kind of firmware that starts a machine.
type Firmware string

// The kinds of firmware.
const (
	BIOS Firmware = "bios"
	UEFI Firmware = "uefi"
)

// ParseArch reads the spellings of uname, iPXE, Debian and Go.
func ParseArch(s string) (Arch, error) {
	switch strings.ToLower(s) {
	case "x86_64", "amd64", "x64":
		return X86_64, nil
	case "arm64", "aarch64":
		return ARM64, nil
	case "i386", "i686", "386":
		return I386, nil
	}
	return "", Errorf(Invalid, "%q is not an architecture: use x86_64, arm64 or i386", s)
}

// Platform is one pair of architecture and firmware, with its name in paths: the
// key by which a boot loader is chosen.
type Platform struct {
	Arch     Arch
	Firmware Firmware
}

// Platforms returns every platform a loader can be chosen for.
func Platforms() []Platform {
	return []Platform{{X86_64, BIOS}, {X86_64, UEFI}, {ARM64, UEFI}, {I386, UEFI}}
}

// String returns the name used in paths: x86_64-uefi. The zero Platform is "any".
func (p Platform) String() string {
	if p == (Platform{}) {
		return "any"
	}
	return string(p.Arch) + "-" + string(p.Firmware)
}

// ParsePlatform reads what [Platform.String] writes.
func ParsePlatform(s string) (Platform, bool) {
	if s == "any" {
		return Platform{}, true
	}
	for _, p := range Platforms() {
		if p.String() == s {
			return p, true
		}
	}
	return Platform{}, false
}

// PlatformOf reads an IANA "Processor Architecture Type", as DHCP option 93 and DHCPv6
// option 61 carry it. It knows those that a loader can be chosen for.
func PlatformOf(code int) (Platform, bool) {
	switch code {
	case 0:
		return Platform{X86_64, BIOS}, true
	case 6, 15:
		return Platform{I386, UEFI}, true
	case 7, 9, 16, 17: // 9 is EBC by the registry, and x64 in the first print of RFC 4578
		return Platform{X86_64, UEFI}, true
	case 11, 19:
		return Platform{ARM64, UEFI}, true
	}
	return Platform{}, false
}

// Speaker is which program on the machine made a request: it says what the
// machine can be expected to know about itself.
type Speaker string

// The speakers, in the order in which a machine brings them up.
const (
	SpeakerROM       Speaker = "rom"        // PXE or HTTP boot firmware
	SpeakerLoader    Speaker = "loader"     // iPXE
	SpeakerInstaller Speaker = "installer"  // an installer or bootlane-agent, in RAM
	SpeakerFirstBoot Speaker = "first-boot" // the installed system
)

// Speakers returns every speaker.
func Speakers() []Speaker {
	return []Speaker{SpeakerROM, SpeakerLoader, SpeakerInstaller, SpeakerFirstBoot}
}

// countsBoots: only a machine on its way to the script spends boots of a grant;
// the installer that the script started is still inside the boot it was counted for.
func (s Speaker) countsBoots() bool { return s == SpeakerROM || s == SpeakerLoader }

// Surface is the protocol a request came by.
type Surface string

// The surfaces that ask.
const (
	SurfaceDHCP Surface = "dhcp"
	SurfaceTFTP Surface = "tftp"
	SurfaceHTTP Surface = "http"
	SurfaceAPI  Surface = "api"
	SurfaceSelf Surface = "server" // Bootlane itself: deadlines
)

// Facts is what a machine said in one request. All of it is untrusted.
type Facts struct {
	Surface      Surface  `json:"surface,omitempty"`
	Speaker      Speaker  `json:"speaker,omitempty"`
	MAC          MAC      `json:"mac,omitempty"`  // the NIC it asked through
	MACs         []MAC    `json:"macs,omitempty"` // every NIC, where the speaker can list them
	UUID         UUID     `json:"uuid,omitempty"`
	Serial       string   `json:"serial,omitempty"`
	AssetTag     string   `json:"assetTag,omitempty"`
	Manufacturer string   `json:"manufacturer,omitempty"`
	Product      string   `json:"product,omitempty"`
	Arch         Arch     `json:"arch,omitempty"`
	Firmware     Firmware `json:"firmware,omitempty"`
	HTTPBoot     bool     `json:"httpBoot,omitempty"` // UEFI HTTP Boot rather than PXE
	From         string   `json:"from,omitempty"`     // network address the request came from
	Server       string   `json:"server,omitempty"`   // our URL as the machine reaches it, by the address of ours that it asked; not its word
	Relay        Relay    `json:"relay,omitzero"`     // who passed a DHCP message on
	Name         string   `json:"name,omitempty"`     // the file or path asked for
	Run          RunID    `json:"run,omitempty"`      // set only after the run's capability was checked
}

// Relay is what a DHCP relay agent said about where a message came from: the switch
// and its port, where it tells them (RFC 3046; for IPv6 RFC 8415 and RFC 4649).
type Relay struct {
	Address   string `json:"address,omitempty"`   // giaddr; of IPv6, whom the message came from
	CircuitID string `json:"circuitId,omitempty"` // option 82.1, as [AgentID] writes it; of IPv6, option 18
	RemoteID  string `json:"remoteId,omitempty"`  // option 82.2, likewise; of IPv6, option 37
	Link      string `json:"link,omitempty"`      // option 82.5, RFC 3527: the client's network, where it is not the relay's; of IPv6, link-address
}

// AgentID returns an id that a relay agent gave as people know it: text where it is
// text, and else hex digits, as for the MAC or the VLAN that many switches send.
func AgentID(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	text := string(b)
	odd := func(r rune) bool { return r >= 0x7f || unprintable(r) }
	if strings.IndexFunc(text, odd) >= 0 || strings.TrimSpace(text) == "" {
		text = "0x" + hex.EncodeToString(b)
	}
	return Clean(text, 128)
}

// complete reports whether the machine said everything that it knows of itself:
// the entry script sends all of it, and every iPXE has a UUID. The same iPXE's
// DHCP carries no serial number, and firmware may omit the UUID. An installer is
// known by its run's capability; what else it says is cross-checked.
func (f Facts) complete() bool { return f.Speaker == SpeakerLoader && f.Surface == SurfaceHTTP }

func (f *Facts) clone() *Facts {
	if f == nil {
		return nil
	}
	c := *f
	c.MACs = slices.Clone(f.MACs)
	return &c
}

// AllMACs returns the asking NIC and every other one, each once.
func (f Facts) AllMACs() []MAC {
	var out []MAC
	seen := map[MAC]bool{"": true}
	for _, m := range append([]MAC{f.MAC}, f.MACs...) {
		if !seen[m] {
			seen[m] = true
			out = append(out, m)
		}
	}
	return out
}

// Keys returns the identity keys under which inventory records are looked up for
// these facts; see [Identity.Keys].
func (f Facts) Keys() []string {
	return Identity{UUID: f.UUID, MACs: f.AllMACs(), Serial: f.Serial, AssetTag: f.AssetTag}.lookup()
}

// Keys returns the index entries of a record, "kind:value": its UUID in both byte
// orders, its MACs, its serial number and asset tag. Placeholders make no key.
func (i Identity) Keys() []string {
	keys := i.lookup()
	if !i.UUID.Placeholder() && i.UUID.Swapped() != i.UUID {
		keys = append(keys, "uuid:"+string(i.UUID.Swapped()))
	}
	return keys
}

func (i Identity) lookup() []string {
	var keys []string
	if !i.UUID.Placeholder() {
		keys = append(keys, "uuid:"+string(i.UUID))
	}
	for _, m := range i.MACs {
		keys = append(keys, "mac:"+string(m))
	}
	if !PlaceholderText(i.Serial) {
		keys = append(keys, "serial:"+i.Serial)
	}
	if !PlaceholderText(i.AssetTag) {
		keys = append(keys, "asset:"+i.AssetTag)
	}
	return keys
}

// resolve finds the one record that f speaks of, or the Decision that says why
// there is none. A known UUID comes first, then a registered boot MAC; every
// other signal the speaker knows must agree.
func resolve(hosts []Host, f Facts) (Host, Decision) {
	var claimed []Host
	for _, h := range hosts {
		if h.claimedBy(f) {
			claimed = append(claimed, h)
		}
	}
	if active := slices.DeleteFunc(slices.Clone(claimed), retired); len(active) > 0 {
		claimed = active // a retired record does not stand in the way of its machine's new one
	}
	if len(claimed) == 0 {
		return Host{}, Decision{Reason: UnknownMachine, Detail: "no inventory record has " + f.said()}
	}
	if len(claimed) > 1 {
		return Host{}, ambiguous(claimed, f)
	}
	h := claimed[0]
	if diff := h.contradictions(f); len(diff) > 0 {
		return Host{}, Decision{Reason: IdentityMismatch, Host: h.ID, Claims: []HostID{h.ID},
			Mismatch: diff, Detail: "the machine is not the " + string(h.ID) + " that the inventory describes"}
	}
	return h, Decision{}
}

func retired(h Host) bool { return h.State == StateRetired }

func (h Host) claimedBy(f Facts) bool {
	if f.Run != "" && f.Run == h.Run.ID {
		return true
	}
	mine := h.Identity.Keys()
	for _, k := range f.Keys() {
		if contains(mine, k) {
			return true
		}
	}
	return false
}

func ambiguous(claimed []Host, f Facts) Decision {
	d := Decision{Reason: IdentityAmbiguous}
	var names []string
	for _, h := range claimed {
		d.Claims = append(d.Claims, h.ID)
		names = append(names, string(h.ID))
		d.Mismatch = append(d.Mismatch, h.compare(f)...)
	}
	d.Detail = "the machine shows signals of " + strings.Join(names, " and ")
	return d
}

// Contradictions returns the signals of f that do not agree with h.
func Contradictions(h Host, f Facts) []Signal { return h.contradictions(f) }

func (h Host) contradictions(f Facts) []Signal {
	var out []Signal
	for _, s := range h.compare(f) {
		if s.Expected != "" && !s.agrees(h, f) {
			out = append(out, s)
		}
	}
	return out
}

// compare lists every signal that both the record and the machine can speak of,
// whether or not they agree.
func (h Host) compare(f Facts) []Signal {
	var out []Signal
	i := h.Identity
	if f.UUID != "" {
		out = append(out, Signal{"uuid", string(i.UUID), string(f.UUID), h.ID})
	}
	if macs := f.AllMACs(); len(macs) > 0 {
		out = append(out, Signal{"mac", joinMACs(i.MACs), joinMACs(macs), h.ID})
	}
	if f.Serial != "" || f.complete() && i.Serial != "" {
		out = append(out, Signal{"serial", i.Serial, f.Serial, h.ID})
	}
	if f.AssetTag != "" {
		out = append(out, Signal{"assetTag", i.AssetTag, f.AssetTag, h.ID})
	}
	return out
}

// agrees judges one line of compare. A placeholder in the inventory says
// nothing. A placeholder shown by firmware says nothing either, but a program
// that surely can read SMBIOS and finds a factory default where the inventory
// has a real UUID or serial, stands on another board.
func (s Signal) agrees(h Host, f Facts) bool {
	knows := f.Speaker != SpeakerROM
	switch s.Name {
	case "uuid":
		if h.Identity.UUID.Placeholder() || f.UUID.Placeholder() && !knows {
			return true
		}
		return h.Identity.UUID.SameAs(f.UUID)
	case "mac":
		for _, m := range f.AllMACs() {
			for _, mine := range h.Identity.MACs {
				if m == mine {
					return true
				}
			}
		}
		return false
	case "serial":
		return PlaceholderText(s.Expected) || PlaceholderText(s.Seen) && !knows || s.Expected == s.Seen
	}
	return PlaceholderText(s.Expected) || PlaceholderText(s.Seen) || s.Expected == s.Seen
}

func joinMACs(macs []MAC) string {
	out := make([]string, len(macs))
	for i, m := range macs {
		out[i] = string(m)
	}
	return strings.Join(out, " ")
}

func (f Facts) said() string {
	var parts []string
	if f.UUID != "" {
		parts = append(parts, "UUID "+string(f.UUID))
	}
	if macs := f.AllMACs(); len(macs) > 0 {
		parts = append(parts, "MAC "+joinMACs(macs))
	}
	if f.Serial != "" {
		parts = append(parts, "serial "+f.Serial)
	}
	if len(parts) == 0 {
		return "nothing that the machine said about itself"
	}
	return strings.Join(parts, ", ")
}
