package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bootlane/internal/lane"
)

const preflightLong = `Say what would forbid to provision machines now, all problems of each at once. Nothing
is granted, and no machine is touched: identities, addresses and host names that two
records claim, or that another machine has leased; disks; the bundle, its files,
signatures and mirrors; the boot chain; the installer's documents, as the linter judges
them; what the configuration lacks.

Of machines that you name, every problem is shown. With --all, of every machine that is
not installed yet (with --reinstall, of those too): problems that several have in common
are shown once, and --explain shows them machine by machine.

Exit codes: 0 all may be provisioned, 3 some may not.`

func (a *app) preflightCmd() *cobra.Command {
	var q lane.Inspection
	var all, explain bool
	cmd := &cobra.Command{Use: "preflight HOST... | --all", Short: "say what would forbid to provision machines", Long: preflightLong, Args: args(cobra.ArbitraryArgs),
		RunE: func(cmd *cobra.Command, argv []string) error {
			if all == (len(argv) > 0) {
				return usageError{fmt.Errorf("give hosts, or --all")}
			}
			for _, id := range argv {
				q.Hosts = append(q.Hosts, lane.HostID(id))
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			found, err := c.Preflight(cmd.Context(), q)
			if err != nil {
				return err
			}
			refused := 0
			for _, h := range found.Hosts {
				if len(h.Problems) > 0 {
					refused++
				}
			}
			if err := a.show(found, func(w io.Writer) {
				if explain || !all {
					explainPreflight(w, found)
				} else {
					sumPreflight(w, found)
				}
				fmt.Fprintf(w, "%d of %s may be provisioned%s\n", len(found.Hosts)-refused, counted(len(found.Hosts), "machine"), leftOut(found.LeftOut))
			}); err != nil {
				return err
			}
			if refused > 0 {
				return lane.Errorf(lane.Refused, "preflight refuses %s", counted(refused, "machine"))
			}
			return nil
		}}
	f := cmd.Flags()
	f.BoolVar(&all, "all", false, "every machine that stands to be installed")
	f.BoolVar(&explain, "explain", false, "with --all: every problem of every machine")
	f.StringVar(&q.Bundle, "bundle", "", "`NAME-VERSION` (default: each record's)")
	_ = cmd.RegisterFlagCompletionFunc("bundle", a.bundleRefs) // the flag was defined one line above
	f.BoolVar(&q.Reinstall, "reinstall", false, "as if the disks of installed machines may be erased")
	return cmd
}

// leftOut says whom nobody asked about.
func leftOut(states map[lane.State]int) string {
	var parts []string
	for _, s := range lane.States() {
		if n := states[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "; left out: " + strings.Join(parts, ", ")
}

// explainPreflight shows every problem of every machine.
func explainPreflight(w io.Writer, found lane.Preflown) {
	for _, h := range found.Hosts {
		what := cmp.Or(h.Bundle, "no bundle")
		if len(h.Problems) == 0 {
			fmt.Fprintf(w, "%s, %s, %s: may be provisioned\n", h.Host, h.State, what)
			continue
		}
		fmt.Fprintf(w, "%s, %s, %s: %s\n", h.Host, h.State, what, counted(len(h.Problems), "problem"))
		for _, p := range h.Problems {
			fmt.Fprintf(w, "    %s: %s\n", p.Field, lane.Clean(p.Message, 1000))
		}
	}
}

// sumPreflight shows each problem once, those that most machines have first.
func sumPreflight(w io.Writer, found lane.Preflown) {
	const atMost, examples = 40, 3
	who := map[lane.Problem][]string{}
	for _, h := range found.Hosts {
		for _, p := range h.Problems {
			who[p] = append(who[p], string(h.Host))
		}
	}
	var order []lane.Problem
	for p := range who {
		order = append(order, p)
	}
	slices.SortFunc(order, func(a, b lane.Problem) int {
		return cmp.Or(cmp.Compare(len(who[b]), len(who[a])), strings.Compare(who[a][0], who[b][0]), strings.Compare(a.Field, b.Field), strings.Compare(a.Message, b.Message))
	})
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	if len(order) > 0 {
		fmt.Fprintln(t, "MACHINES\tWHICH\tPROBLEM")
	}
	for i, p := range order {
		if i == atMost {
			fmt.Fprintf(t, "\t\tand %s more: --explain shows all\n", counted(len(order)-atMost, "problem"))
			break
		}
		names := strings.Join(who[p][:min(examples, len(who[p]))], ", ")
		if len(who[p]) > examples {
			names += ", …"
		}
		fmt.Fprintf(t, "%d\t%s\t%s: %s\n", len(who[p]), names, p.Field, lane.Clean(p.Message, 300))
	}
	_ = t.Flush() // writes to the terminal; its error shows there
}
