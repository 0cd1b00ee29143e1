package lane

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the generated documents anew")

// TestDocs keeps docs/decisions.md and docs/states.md equal to the tables in
// this package. `go test ./internal/lane -run TestDocs -update` writes them.
func TestDocs(t *testing.T) {
	for name, want := range map[string]string{"decisions.md": decisionsDoc(t), "states.md": statesDoc(t)} {
		path := filepath.Join("..", "..", "docs", name)
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(got), want); diff != "" {
			t.Errorf("docs/%s is stale: run `go test ./internal/lane -run TestDocs -update` (-file +code):\n%s", name, diff)
		}
	}
}

const generated = "<!-- Generated from internal/lane by `go test ./internal/lane -run TestDocs -update`. Do not edit. -->\n\n"

// table writes a Markdown table.
func table(b *bytes.Buffer, head []string, rows [][]string) {
	fmt.Fprintf(b, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, r := range rows {
		for i := range r {
			r[i] = strings.ReplaceAll(r[i], "|", `\|`)
		}
		fmt.Fprintf(b, "| %s |\n", strings.Join(r, " | "))
	}
	b.WriteByte('\n')
}

// actionDocs says what each action means to whoever watches a machine.
var actionDocs = map[Action]string{
	Hold:      "Nothing is given that could change anything. The machine's screen shows what it said of itself, and why it is held.",
	LocalBoot: "The machine is sent to its own disk.",
	Inspect:   "The machine is given an agent that looks at it from RAM, opens no disk, and tells what it found.",
	Install:   "The machine is given what leads to its disk being erased: exactly one bundle, on exactly one disk.",
}

func decisionsDoc(t *testing.T) string {
	b := bytes.NewBufferString("# Decisions\n\n" + generated)
	b.WriteString(`Whatever a machine asks for, and by whichever protocol, Bootlane answers one
question first: may this machine, now, be given bytes that erase its disk? One
function, ` + "`lane.Decide`" + `, answers it from the inventory, from what the machine said,
and from the clock. Every surface only translates the answer.

There are four answers:

`)
	var rows [][]string
	for _, a := range Actions() {
		if actionDocs[a] == "" {
			t.Errorf("the action %s has no text", a)
		}
		rows = append(rows, []string{"**" + a.String() + "**", actionDocs[a]})
	}
	table(b, []string{"Answer", "What it means"}, rows)
	b.WriteString(`## Reasons

Each answer carries its reason: in the evidence (` + "`bootlane events HOST`" + `), on the
machine's screen, and in ` + "`bootlane why HOST`" + `. They stand here in the order in which
they are looked at. The first one that applies is the answer, and installing is
what remains when none did.

`)
	rows = nil
	for _, r := range Reasons() {
		rows = append(rows, []string{"`" + string(r.Reason) + "`", r.Action.String(), r.When, r.Next})
	}
	table(b, []string{"Reason", "Answer", "When", "What to do"}, rows)
	b.WriteString(identityText)
	rows = nil
	for _, s := range Speakers() {
		d, ok := speakerDocs[s]
		if !ok {
			t.Errorf("the speaker %s has no text", s)
		}
		rows = append(rows, append([]string{"`" + string(s) + "`"}, d[:]...))
	}
	table(b, []string{"Speaker", "Which program", "What it tells", "What must agree"}, rows)
	b.WriteString(surfaceText)
	rows = nil
	for _, s := range surfaceDocs {
		rows = append(rows, slices.Clone(s[:]))
	}
	table(b, []string{"What is asked for", "install", "local-boot", "hold", "no answer can be found or recorded"}, rows)
	b.WriteString(surfaceNotes)
	return b.String()
}

const identityText = `## Which signals are compared

A record is found by any signal that the machine shows: its UUID in either byte
order, any of its MACs, its serial number, its asset tag. Then every signal that
both sides know must agree. A signal that points at two records, or contradicts
the one it points at, is never resolved by a guess: the machine is held, every
record that it claims goes to quarantine, and both sides are shown.

Factory defaults (` + "`To Be Filled By O.E.M.`, `Default string`" + `, all zeros, and the like)
identify nothing. In the inventory they are refused. From firmware they count as
silence. A program that surely reads the board's tables and finds a default where
the inventory has a real value stands on another board.

`

// speakerDocs: which program, what it tells, what must agree.
var speakerDocs = map[Speaker][3]string{
	SpeakerROM:       {"PXE or HTTP Boot firmware", "the MAC of the asking port; the UUID, if it sends option 97", "what it tells"},
	SpeakerLoader:    {"iPXE", "by DHCP what firmware tells; with its script request also every MAC, the serial number and the asset tag", "what it tells; a script request without a UUID, or without the serial number of the inventory, is held"},
	SpeakerInstaller: {"the installer, or bootlane-agent", "the capability of its run; with an order or a report also UUID, MACs and serial number", "what it tells; a network boot is not counted again"},
	SpeakerFirstBoot: {"the installed system, until it has proved itself", "the capability of its run, UUID, MAC, serial number", "what it tells"},
}

const surfaceText = `## How each surface speaks a decision

`

// surfaceDocs: what is asked for, and what install, local-boot, hold and a store
// that does not answer become.
var surfaceDocs = [][5]string{
	{"DHCP, by PXE firmware", "address and boot loader (TFTP)", "address, no boot file; *fast*: also a boot menu whose only item is the local disk (UEFI)", "address, and the loader that shows the screen; *without screen*: as local-boot", "silence: the client asks again"},
	{"DHCP, by UEFI HTTP Boot", "address and the loader's URL", "address, no URL; *fast*: a URL that is then refused, which ends the attempt at once", "address, and the URL of the loader that shows the screen; *without screen*: as local-boot", "silence: the client asks again"},
	{"DHCP, by iPXE", "address and the URL of the entry script", "the same: the entry script only asks again, with more signals", "the same", "silence: the client asks again"},
	{"DHCP, by anything else", "address", "address", "address", "silence: the client asks again"},
	{"Boot loader, by TFTP", "the loader", "error 2, with the reason", "the loader, for its screen; *without screen*: error 2, with the reason", "error 0: cannot decide now, try again"},
	{"Boot loader, by HTTP", "the loader", "403, with the reason", "the loader, for its screen; *without screen*: 403, with the reason", "503"},
	{"Entry script (`autoexec.ipxe`)", "the entry script: it tells all signals, and asks for the script", "the same", "the same", "the same"},
	{"Script (`/boot/script`)", "kernel, initrd and arguments; **one network boot of the grant is counted first**", "a script that shows the reason and goes to the disk", "a script that shows both sides of every disagreement, waits, then goes to the disk; *ask*: waits and asks again", "a script that waits 15 s and asks again, 20 times, then goes to the disk"},
	{"Kernel, initrd, image (under the run's capability)", "200, on record before it leaves", "403, with the reason", "403, with the reason", "503"},
	{"Installer document (under the run's capability)", "200, on record before it leaves", "403, with the reason", "403, with the reason", "503"},
	{"Order of bootlane-agent", "an order to write one image to one disk", "an order that says why not", "an order that says why not", "503"},
}

const surfaceNotes = "An answer *inspect* reads as *install* for boot loaders and scripts, and counts no boot: the script leads\n" +
	"to kernel and initrd of the agent under a ticket, by which nothing of a run is opened and no order\n" +
	"can come ([commissioning](commissioning.md)).\n\n" +
	"*fast* is `policy.localBoot: fast`, the default. *without screen* is `policy.held.screen: false`,\n" +
	"*ask* is `policy.held.then: ask`. Under a capability that no run has, everything\n" +
	"is 404; under that of a closed run, 403 with the reason. Under that of an open one, 403 as long\n" +
	"as no script of it was served, and to any address that is not its machine's: see\n" +
	"[operations](operations.md#alarms). Each of these is an alarm.\n\n" +
	"A report is not asked for, and not decided: while its run is open it is taken in, once, and\n" +
	"one that skips the disk or comes from another machine is refused with 403.\n"

// stateDocs says what a state means, and what the machine gets in it.
var stateDocs = map[State][2]string{
	StateNew:          {"In the inventory. Nobody asked to install it.", "local boot"},
	StateProvisioning: {"A run is open: an operator granted one install of one bundle on one disk, until a deadline that progress moves, in a few network boots.", "the install, while the grant lasts and everything agrees; else local boot or hold"},
	StateInstalled:    {"First boot proved identity, host name, disk and clock, and the machine is in its cluster where it has one.", "local boot"},
	StateFailed:       {"The last run ended badly. `bootlane why HOST` says where and why.", "local boot; hold, where `policy.failed` says so"},
	StateQuarantine:   {"The machine's identity is disputed, or an operator set it aside. An open run pauses, and its deadline goes on.", "hold"},
	StateRetired:      {"Out of service. The record is kept for its evidence, and its identity is free for another record.", "local boot"},
}

// stageDocs: how the server knows that a stage is reached, and what that means.
var stageDocs = map[Stage][2]string{
	StageArmed:       {"`bootlane provision`", "The grant is recorded. The machine has not been heard of yet."},
	StageAddress:     {"DHCP", "Its firmware asked for an address, and was offered a boot loader."},
	StageLoader:      {"TFTP, HTTP, or DHCP by the loader", "The boot loader was fetched, or already asks."},
	StageScript:      {"HTTP", "The install script was served. One network boot of the grant is counted; the same request within `policy.bootRetry` is the same boot."},
	StageKernel:      {"report", "The installer or the agent runs on the machine, and found its identity to agree."},
	StageInstaller:   {"report", "Exactly one disk is the one selected. From here on the disk is being changed."},
	StageDiskWritten: {"report", "The disk is written and verified. **From here on every boot of this run is local.**"},
	StageFirstBoot:   {"report", "The installed system runs and reported."},
	StageReady:       {"report", "Its checks passed. A machine without a cluster is installed, and the run is closed."},
	StageJoined:      {"report", "It is in its cluster. The run is closed, and the machine is installed."},
}

func statesDoc(t *testing.T) string {
	b := bytes.NewBufferString("# States and stages\n\n" + generated)
	b.WriteString("Every machine of the inventory is in one of these states.\n\n")
	var rows [][]string
	for _, s := range States() {
		if stateDocs[s] == ([2]string{}) {
			t.Errorf("the state %s has no text", s)
		}
		rows = append(rows, []string{"`" + string(s) + "`", stateDocs[s][0], stateDocs[s][1]})
	}
	table(b, []string{"State", "What it means", "What a network boot gets"}, rows)
	b.WriteString("```mermaid\nstateDiagram-v2\n")
	for _, l := range diagram() {
		b.WriteString("    " + l + "\n")
	}
	b.WriteString("```\n\n`provision` is the only way into `provisioning`, but for the end of a quarantine that interrupted a run.\n\n## Transitions\n\n" +
		"What is not in this table is refused. Each transition is stored in one transaction with the\nevent that says who did it, when and why.\n\n")
	rows = nil
	for _, tr := range Transitions() {
		from, to := "`"+string(tr.From)+"`", "`"+string(tr.To)+"`"
		if tr.From == "" {
			from = "(no record)"
		}
		if tr.To == "" {
			to = "the state before"
		}
		rows = append(rows, []string{from, "`" + string(tr.Verb) + "`", to, tr.Who, tr.Text})
	}
	table(b, []string{"From", "Verb", "To", "Who", "What happens"}, rows)
	b.WriteString("## Stages of a run\n\nA run passes these stages in order. Some may be skipped, none but `script` is ever entered\nagain: each network boot of the grant starts there, as long as the disk is not written.\n\n")
	rows = nil
	for i, s := range Stages() {
		if stageDocs[s] == ([2]string{}) {
			t.Errorf("the stage %s has no text", s)
		}
		rows = append(rows, []string{fmt.Sprint(i + 1), "`" + string(s) + "`", stageDocs[s][0], stageDocs[s][1]})
	}
	table(b, []string{"#", "Stage", "Known from", "What it means"}, rows)
	b.WriteString(deadlineText)
	return b.String()
}

const deadlineText = `## When a run is given up

A run ends as ` + "`failed`" + ` when it has shown no progress for the time that was granted (` + "`provision --deadline`" + `,
` + "2 hours by default; `policy.stageLimits`" + ` says otherwise for single stages). Progress is: the firmware's
first question, the loader's, a counted network boot, a report of a further stage, and a report
of progress within one, with a sequence number that was not seen before. Each gives the stage its time anew: nothing expires
under a machine that is at work, and so what opens its run stays open. A repeated report is no progress.

Whatever it shows, a run ends ` + "`policy.runLimit`" + ` (24 hours) after its grant, or after its deadline where that is longer. The
record then names the stage and the last that was heard. In quarantine the time goes on.

A machine that asks for more network boots than were granted, and has not reported its disk as written, ends its run at once (` + "`boots-spent`" + `).
After a failure the machine is told to boot its disk, or held: ` + "`policy.failed`" + `.
`

// diagram returns the arrows between different states, one line for all verbs of
// a pair. An arrow back to the state before is drawn to each state it may mean.
func diagram() []string {
	labels := map[[2]State][]string{}
	var order [][2]State
	add := func(from, to State, v Verb) {
		k := [2]State{from, to}
		if labels[k] == nil {
			order = append(order, k)
		}
		if !slices.Contains(labels[k], string(v)) {
			labels[k] = append(labels[k], string(v))
		}
	}
	for _, tr := range Transitions() {
		switch {
		case tr.From == tr.To:
		case tr.Verb == VerbCancel:
			for _, to := range []State{StateNew, StateInstalled, StateFailed} {
				add(tr.From, to, tr.Verb)
			}
		case tr.To == "":
			for _, to := range []State{StateNew, StateProvisioning, StateInstalled, StateFailed} {
				add(tr.From, to, tr.Verb)
			}
		default:
			add(tr.From, tr.To, tr.Verb)
		}
	}
	var out []string
	for _, k := range order {
		from := string(k[0])
		if from == "" {
			from = "[*]"
		}
		out = append(out, fmt.Sprintf("%s --> %s: %s", from, k[1], strings.Join(labels[k], ", ")))
	}
	return out
}
