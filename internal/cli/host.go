package cli

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bootlane/internal/api"
	"bootlane/internal/lane"
)

func (a *app) hostCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "host", Short: "the inventory: import, list, show, accept, confirm, inspect, adopt",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(a.hostImportCmd(), a.hostListCmd(), a.onHost(a.hostShowCmd()), a.onHost(a.hostAcceptCmd()), a.onHost(a.hostConfirmCmd()), a.onHost(a.hostInspectCmd()), a.hostDiscoveredCmd(), a.hostAdoptCmd())
	return cmd
}

const importLong = `Add the machines of an inventory file, and take over what changed in it.

The whole file is refused when any record has a problem; every problem is named
with its line and field. Records that the file does not name are left alone. FILE
may be - for standard input.

What is wrong within the file is found first; the server then compares it with the
records that it has, also with --check.`

func (a *app) hostImportCmd() *cobra.Command {
	var check bool
	cmd := &cobra.Command{Use: "import FILE", Short: "add and change machines from an inventory file", Long: importLong, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			data, err := a.readInput(argv[0])
			if err != nil {
				return fmt.Errorf("read the inventory: %w", err)
			}
			inv, doc, err := api.ReadInventory(argv[0], data)
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			out, err := c.Import(cmd.Context(), inv.Hosts, check)
			if err != nil {
				return err
			}
			if err := out.Refusal(argv[0], doc); err != nil {
				return err
			}
			return a.show(out.Imported, func(w io.Writer) {
				for _, n := range out.Notes {
					fmt.Fprintln(w, "note: "+lane.Clean(n, 500))
				}
				if check {
					fmt.Fprintf(w, "%s is good: %d hosts\n", argv[0], len(inv.Hosts))
					return
				}
				fmt.Fprintf(w, "%d added, %d changed, %d unchanged\n", len(out.Added), len(out.Changed), len(out.Unchanged))
			})
		}}
	cmd.Flags().BoolVar(&check, "check", false, "only say what is wrong")
	return cmd
}

// readInput reads a file, or standard input.
func (a *app) readInput(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(a.Stdin)
	}
	return os.ReadFile(name)
}

func (a *app) hostListCmd() *cobra.Command {
	var state string
	cmd := &cobra.Command{Use: "list", Short: "list the machines", Args: args(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
		if state != "" && !slices.Contains(lane.States(), lane.State(state)) {
			return usageError{fmt.Errorf("--state %q: use one of %s", state, strings.Join(states(), ", "))}
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		all, err := c.Hosts(cmd.Context())
		if err != nil {
			return err
		}
		hosts := []lane.Host{}
		for _, h := range all {
			if state == "" || string(h.State) == state {
				hosts = append(hosts, h)
			}
		}
		return a.show(hosts, func(w io.Writer) {
			t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
			fmt.Fprintln(t, "HOST\tSTATE\tSTAGE\tBUNDLE\tRACK\tMAC\tADDRESS\tSINCE")
			for _, h := range hosts {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", h.ID, h.State, orDash(stageOf(h)), orDash(h.Bundle), orDash(strings.Trim(h.Identity.Rack+" "+h.Identity.Unit, " ")),
					orDash(macs(h.Identity.MACs)), address(h), when(h.Changed))
			}
			_ = t.Flush() // writes to the terminal; its error shows there
		})
	}}
	cmd.Flags().StringVar(&state, "state", "", "only machines in this `state`: "+strings.Join(states(), ", "))
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(states(), cobra.ShellCompDirectiveNoFileComp)) // the flag was defined one line above
	return cmd
}

func states() []string {
	var out []string
	for _, s := range lane.States() {
		out = append(out, string(s))
	}
	return out
}

func stageOf(h lane.Host) string {
	if h.State != lane.StateProvisioning {
		return ""
	}
	s := string(h.Run.Stage)
	if h.Run.Total > 0 {
		s += fmt.Sprintf(" %d%%", h.Run.Done*100/h.Run.Total)
	}
	return s
}

func macs(list []lane.MAC) string {
	out := make([]string, len(list))
	for i, m := range list {
		out[i] = string(m)
	}
	return strings.Join(out, " ")
}

func address(h lane.Host) string {
	var out []string
	for _, a := range []netip.Addr{h.Network.Address, h.Network.Address6} {
		if a.IsValid() {
			out = append(out, a.String())
		}
	}
	return cmp.Or(strings.Join(out, " "), "-")
}

func (a *app) hostShowCmd() *cobra.Command {
	var chain bool
	cmd := &cobra.Command{Use: "show HOST", Short: "show one machine's record", Long: hostShowLong, Args: args(cobra.ExactArgs(1)), RunE: func(cmd *cobra.Command, argv []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		if chain {
			ch, err := c.Chain(cmd.Context(), argv[0])
			if err != nil {
				return err
			}
			return a.show(ch, func(w io.Writer) { showChain(w, ch) })
		}
		h, err := c.Host(cmd.Context(), argv[0])
		if err != nil {
			return err
		}
		return a.show(h, func(w io.Writer) {
			showHost(w, h)
			if h.Run.ID == "" {
				return
			}
			if ch, err := c.Chain(cmd.Context(), string(h.ID)); err == nil { // none without a bundle
				showServed(w, ch)
			}
		})
	}}
	cmd.Flags().BoolVar(&chain, "chain", false, "what the machine starts by network: as it is proven now, and as it was served in its last run")
	return cmd
}

const hostShowLong = `Show one machine's record, by its name or by a MAC, and with their SHA-256 the files that
it was served in its last run.

With --chain: the boot loaders and the kernel with their SHA-256, whether firmware with
Secure Boot starts them (where boot.secureBoot says whom it trusts), and which bytes were
served in the last run. What was served and differs is marked.`

// showChain lists the links, what was served of each under it.
func showChain(w io.Writer, ch lane.BootChain) {
	firmware := "not told: boot.secureBoot in the record says whom the firmware trusts"
	if ch.Firmware != "" {
		firmware = "trusts " + ch.Firmware
	}
	fmt.Fprintf(w, "%s, %s, run %s\nfirmware: %s\n", ch.Host, lane.Clean(ch.Bundle, 200), cmp.Or(string(ch.Run), "-"), firmware)
	for i, l := range ch.Links {
		verdict := ""
		switch {
		case l.Proven:
			verdict = "  proven, by " + l.Checker
		case len(l.Broken) > 0:
			verdict = "  BROKEN, by " + l.Checker
		}
		fmt.Fprintf(w, "%d. %s  %s%s\n", i+1, lane.Clean(l.Name, 200), l.Digest, verdict)
		for _, b := range l.Broken {
			fmt.Fprintf(w, "   %s\n", lane.Clean(b, 500))
		}
		if len(l.Fetched) == 0 {
			fmt.Fprintln(w, "   not served in this run")
		}
		for _, f := range l.Fetched {
			mark := "served the same"
			if f.Digest != l.Digest {
				mark = "DIFFERS: served " + string(f.Digest)
			}
			fmt.Fprintf(w, "   %s  %s, %s by %s\n", when(f.At), mark, size(f.Bytes), f.By)
		}
	}
	for i, f := range ch.Others {
		if i == 0 {
			fmt.Fprintln(w, "besides:")
		}
		fmt.Fprintf(w, "   %s  %s  %s, %s by %s\n", when(f.At), lane.Clean(f.Name, 200), f.Digest, size(f.Bytes), f.By)
	}
}

// showServed lists what the machine last got under each name in its run.
func showServed(w io.Writer, ch lane.BootChain) {
	last, names := map[string]lane.Fetch{}, []string{}
	all := slices.Clone(ch.Others)
	for _, l := range ch.Links {
		all = append(all, l.Fetched...)
	}
	slices.SortStableFunc(all, func(x, y lane.Fetch) int { return x.At.Compare(y.At) })
	for _, f := range all {
		if _, ok := last[f.Name]; !ok {
			names = append(names, f.Name)
		}
		last[f.Name] = f
	}
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	for _, n := range names {
		f := last[n]
		fmt.Fprintf(t, "  served\t%s  %s  %s by %s\n", lane.Clean(n, 200), f.Digest, size(f.Bytes), f.By)
	}
	_ = t.Flush() // writes to the terminal; its error shows there
}

func showHost(w io.Writer, h lane.Host) {
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	row := func(k, v string) {
		if v != "" {
			fmt.Fprintf(t, "%s\t%s\n", k, lane.Clean(v, 500))
		}
	}
	row("host", string(h.ID))
	row("state", string(h.State)+"  since "+when(h.Changed))
	row("note", h.Note)
	row("hostname", h.Hostname)
	row("role", h.Role)
	row("arch", string(h.Arch))
	row("bundle", h.Bundle)
	row("disk", h.Disk.String())
	if !h.Mirror.IsZero() {
		row("mirror", h.Mirror.String())
	}
	for _, s := range h.Wipe {
		row("wipe", s.String())
	}
	row("address", address(h))
	for _, i := range h.Network.Interfaces {
		row("interface", i.String())
	}
	row("uuid", string(h.Identity.UUID))
	row("macs", macs(h.Identity.MACs))
	row("serial", h.Identity.Serial)
	row("asset tag", h.Identity.AssetTag)
	row("rack", strings.Trim(h.Identity.Rack+" "+h.Identity.Unit, " "))
	row("bmc", h.Identity.BMC)
	if !h.Inspect.IsZero() {
		row("inspect", "when it boots by network before "+when(h.Inspect))
	}
	for _, f := range h.Install.Fields() {
		if f.Set {
			row("install."+f.Name, f.String())
		}
	}
	if r := h.Run; r.ID != "" {
		status := "open until " + when(r.Deadline)
		if !r.Open {
			status = r.Outcome + "  " + when(r.Ended)
		}
		row("run", fmt.Sprintf("%s  %s", r.ID, status))
		row("  by", r.By+"  "+when(r.Armed))
		row("  bundle", r.BundleName+"  "+string(r.Bundle))
		row("  disk", r.Disks())
		row("  boots", fmt.Sprintf("%d of %d used", r.BootsUsed, r.Boots))
		row("  stage", string(r.Stage)+"  "+when(r.StageAt))
		row("  cluster", r.Cluster)
	}
	showJoin(row, h.Join)
	_ = t.Flush() // writes to the terminal; its error shows there
	showMismatch(w, h.Dispute)
}

// showJoin shows what a machine's cluster has of it.
func showJoin(row func(k, v string), j *lane.Join) {
	if j == nil {
		return
	}
	row("join", fmt.Sprintf("node %s of %s, for %s", j.Node, j.Cluster, j.Run))
	credential := j.Token + "  until " + when(j.Expires)
	if !j.Ended.IsZero() {
		credential = j.Token + "  ended " + when(j.Ended)
	}
	row("  credential", credential)
	row("  joined", when(j.Joined))
	row("  labelled", when(j.Marked))
}

// showMismatch prints both sides of a dispute.
func showMismatch(w io.Writer, signals []lane.Signal) {
	if len(signals) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "\nSIGNAL\tRECORD\tINVENTORY SAYS\tTHE MACHINE SHOWS")
	for _, s := range signals {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", s.Name, s.Host, orDash(s.Expected), orDash(s.Seen))
	}
	_ = t.Flush() // writes to the terminal; its error shows there
}

const acceptLong = `Record a replaced board or NIC of a machine in quarantine, from what the machine
showed, and end the quarantine.

  --board  takes over its UUID, serial number, asset tag and MACs
  --nic    takes over its MACs

Anybody on the boot network can add to a dispute. So --rev says which one you looked at:
` + "`bootlane why HOST`" + ` shows it with its number, and when more has come in since, it is refused.

MACs that the machine did not show stay on record: a boot loader often sees one NIC only.
Those of the old board are named, for you to remove. Correct your inventory file as well:
the next import would bring the old values back.`

func (a *app) hostAcceptCmd() *cobra.Command {
	var board, nic bool
	var rev int64
	var why string
	cmd := &cobra.Command{Use: "accept HOST --board|--nic --rev N", Short: "record a replaced board or NIC", Long: acceptLong, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			if board == nic {
				return usageError{fmt.Errorf("say what was replaced: --board or --nic")}
			}
			if rev == 0 {
				return usageError{fmt.Errorf("say which dispute you looked at: --rev N, as `bootlane why %s` shows it", argv[0])}
			}
			what := lane.ReplacedNIC
			if board {
				what = lane.ReplacedBoard
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			h, err := c.Host(cmd.Context(), argv[0])
			if err != nil {
				return err
			}
			if a.output == "table" {
				showMismatch(a.Stdout, h.Dispute)
			}
			seen := h.Seen
			h, err = c.Accept(cmd.Context(), argv[0], what, rev, why)
			if err != nil {
				return err
			}
			return a.show(h, func(w io.Writer) { showAccepted(w, h, seen) })
		}}
	cmd.Flags().BoolVar(&board, "board", false, "the board was replaced")
	cmd.Flags().BoolVar(&nic, "nic", false, "a NIC was replaced")
	cmd.Flags().Int64Var(&rev, "rev", 0, "`revision` of the record that you looked at, from `bootlane why`")
	cmd.Flags().StringVar(&why, "why", "", "`reason`, kept as evidence")
	return cmd
}

// showAccepted says what is on record now, and which of it the machine did not show.
func showAccepted(w io.Writer, h lane.Host, seen *lane.Facts) {
	fmt.Fprintf(w, "accepted: %s; %s is %s\n", h.Identity, h.ID, stands(h.State))
	showGrant(w, h)
	if seen == nil {
		return
	}
	unseen := slices.DeleteFunc(slices.Clone(h.Identity.MACs), func(m lane.MAC) bool { return slices.Contains(seen.AllMACs(), m) })
	if len(unseen) > 0 {
		fmt.Fprintf(w, "still on record, though the machine did not show them: %s; if they were on the old board, take them out of the inventory file and import it\n", macs(unseen))
	}
}

// stands is a state as a sentence says it.
func stands(s lane.State) string {
	if s == lane.StateQuarantine {
		return "in quarantine"
	}
	return string(s)
}

// act does one verb on one host and says where the host stands then.
func (a *app) act(cmd *cobra.Command, id, verb, why string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	h, err := c.Act(cmd.Context(), id, verb, why)
	if err != nil {
		return err
	}
	return a.show(h, func(w io.Writer) {
		fmt.Fprintf(w, "%s is %s\n", h.ID, stands(h.State))
		showGrant(w, h)
	})
}

// showGrant says of a machine that comes out of quarantine that it may be erased again.
func showGrant(w io.Writer, h lane.Host) {
	if h.State == lane.StateProvisioning && h.Run.Open {
		fmt.Fprintf(w, "its run goes on: %s may be written to the disk %s until %s; `bootlane cancel %s` if that is not meant\n", h.Run.BundleName, h.Run.Disks(), when(h.Run.Deadline), h.ID)
	}
}
