package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bootlane/internal/lane"
)

const whyLong = `Say where a machine's lane stopped: the last stage reached, the rule that says so,
the line of evidence, and what to check next. HOST is a host's id, or the MAC of a
machine that no record describes.`

func (a *app) whyCmd() *cobra.Command {
	return &cobra.Command{Use: "why HOST|MAC", Short: "say where a machine's lane stopped, and why", Long: whyLong, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			v, err := c.Why(cmd.Context(), argv[0])
			if err != nil {
				return err
			}
			return a.show(v, func(w io.Writer) { showVerdict(w, v) })
		}}
}

func showVerdict(w io.Writer, v lane.Verdict) {
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	row := func(k, val string) {
		if val != "" {
			fmt.Fprintf(t, "%s\t%s\n", k, lane.Clean(val, 1000))
		}
	}
	row("host", v.Subject)
	row("state", string(v.State))
	run := string(v.Run)
	if v.Outcome != "" {
		run += "  " + v.Outcome + "  " + when(v.Ended)
	}
	row("run", run)
	if v.Stage != "" {
		row("last stage", string(v.Stage)+"  "+when(v.StageAt))
	}
	row("rule", v.Rule)
	row("because", v.Because)
	if e := v.Evidence; e != nil {
		row("evidence", fmt.Sprintf("#%d  %s  %s  %s: %s", e.Seq, when(e.At), e.By, e.Kind, e.Message))
	}
	row("check next", v.Next)
	_ = t.Flush() // writes to the terminal; its error shows there
	showMismatch(w, v.Mismatch)
}

const whatifLong = `Say what each surface would answer if the machine asked right now. Nothing is
served or recorded. With --all: which machines would be erased if everything
rebooted now.`

func (a *app) whatifCmd() *cobra.Command {
	var all bool
	cmd := &cobra.Command{Use: "whatif HOST | --all", Short: "say what would happen if a machine booted now", Long: whatifLong, Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			if all == (len(argv) == 1) {
				return usageError{fmt.Errorf("give a host, or --all")}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			if all {
				census, err := c.WhatIfAll(cmd.Context())
				if err != nil {
					return err
				}
				return a.show(census, func(w io.Writer) { showCensus(w, census) })
			}
			list, err := c.WhatIf(cmd.Context(), argv[0])
			if err != nil {
				return err
			}
			return a.show(list, func(w io.Writer) {
				t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
				fmt.Fprintln(t, "SURFACE\tWHO ASKS\tFOR\tANSWER\tREASON\tDETAIL")
				for _, f := range list {
					fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", f.Surface, f.Speaker, f.Asks, f.Action, f.Reason, orDash(f.Detail))
				}
				_ = t.Flush() // writes to the terminal; its error shows there
			})
		}}
	cmd.Flags().BoolVar(&all, "all", false, "every machine")
	return cmd
}

func showCensus(w io.Writer, c lane.Census) {
	fmt.Fprintf(w, "If all %d machines rebooted by network now, %d would erase their disk.\n", c.Hosts, len(c.Erased))
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	for _, e := range c.Erased {
		fmt.Fprintf(t, "  %s\t%s\t%s\tdisk %s\tuntil %s\n", e.Host, e.Run, orDash(e.Bundle), lane.Run{Disk: e.Disk, Mirror: e.Mirror, Wipe: e.Wipe}.Disks(), when(e.Deadline))
	}
	for _, r := range lane.Reasons() {
		if n := c.Counts[r.Reason]; n > 0 {
			fmt.Fprintf(t, "%d\t%s\t%s\t%s\t\n", n, r.Action, r.Reason, r.When)
		}
	}
	_ = t.Flush() // writes to the terminal; its error shows there
}

const renderLong = `Write every text that a machine would be served if it were provisioned now, and the
equivalent dnsmasq configuration, below a directory. Kernel, initrd and image are
the bundle's own files; what bootlane-agent is ordered depends on what it reports.
The names below the directory say what a text is, not under which path it is served.
No secret of any run is in it.`

func (a *app) renderCmd() *cobra.Command {
	var out string
	cmd := &cobra.Command{Use: "render HOST --out DIR", Short: "write every text a machine would be served", Long: renderLong, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			if out == "" {
				return usageError{fmt.Errorf("give a directory with --out")}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			files, err := c.Render(cmd.Context(), argv[0])
			if err != nil {
				return err
			}
			root, err := openRoot(out)
			if err != nil {
				return err
			}
			for _, f := range files {
				if err := writeBelow(root, f); err != nil {
					return err
				}
			}
			return a.show(files, func(w io.Writer) {
				script := false
				for _, f := range files {
					fmt.Fprintln(w, filepath.Join(out, f.Path))
					script = script || strings.HasPrefix(f.Path, "http/boot/")
				}
				if !script {
					fmt.Fprintln(w, "note: no boot script and no installer documents: the record's bundle is not in the store")
				}
			})
		}}
	cmd.Flags().StringVar(&out, "out", "", "`directory` to write to")
	return cmd
}

func openRoot(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create the output directory: %w", err)
	}
	return os.OpenRoot(dir)
}

// writeBelow cannot leave the directory, whatever path the server sent.
func writeBelow(root *os.Root, f lane.Rendered) error {
	if i := strings.LastIndexByte(f.Path, '/'); i > 0 {
		if err := root.MkdirAll(f.Path[:i], 0o755); err != nil {
			return fmt.Errorf("create the directory of %s: %w", f.Path, err)
		}
	}
	return root.WriteFile(f.Path, []byte(f.Body), 0o600)
}
