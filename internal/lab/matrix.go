package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bootlane/internal/lane"
	"bootlane/internal/pcap"
)

// Boot is how one machine booted by network. What it said, and what it was told, is
// read off the wire; how far it came, off the server's evidence.
type Boot struct {
	Scenario string            `json:"scenario"`
	Machine  string            `json:"machine"`
	Firmware string            `json:"firmware"`
	Packages map[string]string `json:"packages"` // Debian's that played a part, with their versions
	Way      string            `json:"way"`
	Arch     []int             `json:"arch"`           // option 93, or 61 of DHCPv6
	Class    string            `json:"class"`          // option 60, or 16 of DHCPv6
	IPXE     bool              `json:"ipxe,omitempty"` // the firmware is iPXE, by its user class
	Address  string            `json:"address"`        // who gave it
	Files    string            `json:"files"`          // who named the boot file
	Relay    lane.Relay        `json:"relay,omitzero"` // who stood between, as the evidence has it
	BootFile string            `json:"bootFile"`
	CameTo   string            `json:"cameTo"`
	Seconds  float64           `json:"seconds"` // from the switch to there
}

// ours is what the server is called where others give addresses too.
const ours = "Bootlane"

// bootsFile holds the boots of a scenario that passed.
const bootsFile = "boots.json"

// record writes down how every machine booted.
func (l *Lab) record(ctx context.Context) error {
	if len(l.failures) > 0 {
		return nil // what did not go as it must is no reference
	}
	var boots []Boot
	for _, m := range l.machines {
		b, err := l.boot(ctx, m)
		if err != nil {
			return err
		}
		boots = append(boots, b)
	}
	text, err := json.MarshalIndent(boots, "", "  ")
	if err != nil {
		return fmt.Errorf("encode what was booted: %w", err)
	}
	return os.WriteFile(filepath.Join(l.dir, bootsFile), text, 0o644)
}

func (l *Lab) boot(ctx context.Context, m *Machine) (Boot, error) {
	c, err := l.heard(m)
	if err != nil {
		return Boot{}, err
	}
	a, ok := firmwares(c, m.hardware().code != "")
	if !ok {
		return Boot{}, fmt.Errorf("the firmware of %s asked for nothing", m.Name)
	}
	said := a.Asked[0]
	hw := m.hardware()
	b := Boot{Scenario: l.key, Machine: m.Name, Firmware: hw.name, Way: way(a), Arch: said.Arch, Class: said.Class, IPXE: said.IPXE, BootFile: a.BootFile()}
	if m.VLAN != 0 {
		b.Way += ", tagged"
	}
	if m.TPM != "" {
		b.Firmware += ", TPM 2.0"
	}
	var events []lane.Event
	for _, subject := range m.subjects() {
		if events, err = l.client.Events(ctx, subject, 0, 5000); err != nil {
			return Boot{}, err
		}
		if len(events) > 0 {
			break
		}
	}
	b.from(a, m.peers, events)
	b.came(events, m.on)
	used := hw.packages
	if hw.code != "" && slices.ContainsFunc(c.Attempts, func(a pcap.Attempt) bool { return a.Speaker == pcap.IPXE }) {
		used = append(used, "ipxe")
	}
	if m.TPM != "" {
		used = append(used, "swtpm")
	}
	for _, p := range m.peers {
		used = append(used, p)
	}
	b.Packages, err = installed(ctx, used)
	return b, err
}

// firmwares returns the conversation by which a machine's firmware got its boot file: the
// first that led to a file, or else to an answer. An iPXE that UEFI loaded is not it.
func firmwares(c pcap.Client, uefi bool) (pcap.Attempt, bool) {
	better := func(a pcap.Attempt) int {
		switch {
		case len(a.Asked) == 0, a.Speaker == pcap.System, uefi && a.Speaker == pcap.IPXE:
			return 0
		case slices.ContainsFunc(a.Fetches, func(f pcap.Fetch) bool { return f.Outcome == pcap.Done }):
			return 3
		case a.Answer != nil:
			return 2
		}
		return 1
	}
	var out pcap.Attempt
	for _, a := range c.Attempts {
		if better(a) > better(out) {
			out = a
		}
	}
	return out, better(out) > 0
}

func way(a pcap.Attempt) string {
	kind := "PXE"
	switch {
	case a.Speaker == pcap.HTTPBoot:
		kind = "HTTP Boot"
	}
	return fmt.Sprintf("%s, IPv%d", kind, a.Version)
}

// from says who gave the address and the boot file. A lease is in our own evidence; of
// other servers only the packets tell.
func (b *Boot) from(a pcap.Attempt, peers map[string]string, events []lane.Event) {
	name := func(server string) string { return cmp.Or(peers[server], ours) }
	b.Address = name(a.Won())
	if slices.ContainsFunc(events, func(e lane.Event) bool { return e.Kind == lane.KindLease }) {
		b.Address = ours
	}
	b.Files = b.Address
	if a.Choice != nil {
		for _, o := range a.Offers {
			if o.Packet == a.Choice.Boots {
				b.Files = name(o.Server)
			}
		}
	}
	if a.Boot4011 != nil { // nobody but Bootlane listens there, on whichever machine
		b.Files = ours
	}
	for _, e := range events {
		if e.Facts != nil && e.Facts.Relay != (lane.Relay{}) {
			b.Relay = e.Facts.Relay
		}
	}
}

// came says how far the machine came, and when.
func (b *Boot) came(events []lane.Event, on time.Time) {
	var furthest lane.Event
	b.CameTo = "nothing"
	at := 0
	set := func(i int, text string) {
		at, furthest, b.CameTo, b.Seconds = i, events[i], text, events[i].At.Sub(on).Seconds()
	}
	for i, e := range events {
		switch {
		case e.Kind == lane.KindInstalled:
			set(i, "installed")
		case e.Kind == lane.KindServed && e.Action == lane.Hold.String() && furthest.Stage == "":
			set(i, "held, and told why: `"+string(e.Reason)+"`")
		case e.Stage != "" && e.Kind == lane.KindStage && e.Stage.AtLeast(furthest.Stage) && e.Stage != furthest.Stage:
			set(i, cmp.Or(reached()[e.Stage], string(e.Stage)))
			if e.Stage == lane.StageLoader {
				b.CameTo += " `" + path.Base(b.BootFile) + "`"
			}
		}
	}
	for _, e := range events[at:] {
		if (e.Kind == lane.KindAsked || e.Kind == lane.KindServed) && e.Action == lane.LocalBoot.String() && furthest.Kind != "" {
			b.CameTo += ", then sent to its disk"
			return
		}
	}
}

// reached says what a stage means where a scenario ends at it.
func reached() map[lane.Stage]string {
	return map[lane.Stage]string{
		lane.StageAddress: "an address", lane.StageLoader: "its boot loader", lane.StageScript: "the script that installs", lane.StageKernel: "the first report of agent or installer",
		lane.StageInstaller: "the identity and disk gates", lane.StageDiskWritten: "the written disk", lane.StageFirstBoot: "the first boot",
	}
}

// installed returns the versions of Debian's packages.
func installed(ctx context.Context, packages []string) (map[string]string, error) {
	out, err := exec.CommandContext(ctx, "dpkg-query", append([]string{"-W", "-f", "${Package} ${Version}\n"}, packages...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("ask for the versions of %s: %w", strings.Join(packages, ", "), err)
	}
	versions := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		name, version, _ := strings.Cut(line, " ")
		versions[name] = version
	}
	return versions, nil
}

// TableFile is where the summary of everything that passed stands, in the results' directory.
const TableFile = "firmware.md"

// writeTable sums up every scenario in the directory that passed, whenever it was played.
func writeTable(cfg Config) error {
	files, err := filepath.Glob(filepath.Join(cfg.Dir, "*", bootsFile))
	if err != nil || len(files) == 0 {
		return err
	}
	var boots []Boot
	for _, f := range files {
		text, err := os.ReadFile(f)
		var some []Boot
		if err = errors.Join(err, json.Unmarshal(text, &some)); err != nil {
			return fmt.Errorf("read %s: %w", f, err)
		}
		boots = append(boots, some...)
	}
	return os.WriteFile(filepath.Join(cfg.Dir, TableFile), []byte(Table(boots)), 0o644)
}

// Table returns how machines booted, as a table of Markdown. Those that did the same in
// several scenarios share a row.
func Table(boots []Boot) string {
	type row struct {
		cells     string
		scenarios []string
		seconds   []string
	}
	var rows []*row
	emulators := map[string]string{}
	slices.SortStableFunc(boots, func(a, b Boot) int {
		return cmp.Or(cmp.Compare(a.Firmware, b.Firmware), cmp.Compare(a.Way, b.Way), cmp.Compare(a.Scenario, b.Scenario))
	})
	for _, b := range boots {
		for p, v := range b.Packages {
			if strings.HasPrefix(p, "qemu-system") {
				emulators[p] = v
			}
		}
		cells := b.cells()
		i := slices.IndexFunc(rows, func(r *row) bool { return r.cells == cells })
		if i < 0 {
			i, rows = len(rows), append(rows, &row{cells: cells})
		}
		if !slices.Contains(rows[i].scenarios, "`"+b.Scenario+"`") {
			rows[i].scenarios = append(rows[i].scenarios, "`"+b.Scenario+"`")
		}
		rows[i].seconds = append(rows[i].seconds, fmt.Sprintf("%.0f", b.Seconds))
	}
	var out strings.Builder
	var on []string
	for _, p := range slices.Sorted(maps.Keys(emulators)) {
		on = append(on, p+" "+emulators[p])
	}
	fmt.Fprintf(&out, "On %s, emulated.\n\n", strings.Join(on, " and "))
	out.WriteString("| firmware | way | architecture, class that it sent | address and boot file from | came to | seconds | scenario |\n|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&out, "| %s | %s | %s |\n", r.cells, strings.Join(r.seconds, ", "), strings.Join(r.scenarios, ", "))
	}
	return out.String()
}

// cells returns what of a row does not change from one run to the next.
func (b Boot) cells() string {
	version := func(p string) string { return strings.TrimSpace(p + " " + b.Packages[p]) }
	var parts []string
	for _, p := range slices.Sorted(maps.Keys(b.Packages)) {
		if !strings.HasPrefix(p, "qemu-system") && p != b.Address && p != b.Files {
			parts = append(parts, version(p))
		}
	}
	sent := strings.Trim(strings.ReplaceAll(fmt.Sprint(b.Arch), " ", ", "), "[]") + ", `" + b.Class + "`"
	if b.IPXE {
		sent += ", user class `iPXE`"
	}
	from := version(b.Address)
	switch {
	case b.Files != b.Address:
		from += "; the boot file " + version(b.Files) + ", beside it"
	case b.Address != ours:
		from += ", both"
	}
	if b.Relay.Address != "" {
		from += fmt.Sprintf(", through the relay agent %s (circuit `%s`)", b.Relay.Address, b.Relay.CircuitID)
	}
	return strings.Join([]string{b.Firmware + " (" + strings.Join(parts, ", ") + ")", b.Way, sent, from, b.CameTo}, " | ")
}
