package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bootlane/internal/lane"
)

func (a *app) firstbootCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "firstboot", Short: "what installed systems say of themselves: check",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(a.onHost(a.firstbootCheckCmd()))
	return cmd
}

const firstbootCheckLong = `Show what a machine last reported of its first boot: every check, what was expected and
what there was. The machine is not asked; on the machine itself,
/usr/local/lib/bootlane/firstboot check says what is so now.

Exit code 0: every check passed. 1: some failed, and the error names them. 3: nothing was
reported yet, or there is no such host.`

func (a *app) firstbootCheckCmd() *cobra.Command {
	return &cobra.Command{Use: "check HOST", Short: "show what a machine's first boot found", Long: firstbootCheckLong, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			f, err := c.FirstBoot(cmd.Context(), argv[0])
			if lane.CodeOf(err) == lane.NotFound { // 1 is for a machine that is known, and not well
				return &lane.Error{Code: lane.Refused, Message: "there is nothing to show", Err: err}
			}
			if err != nil {
				return err
			}
			if err := a.show(f, func(w io.Writer) { showFirstBoot(w, f) }); err != nil {
				return err
			}
			if f.Note != "" {
				return lane.Errorf(lane.Refused, "%s: %s", f.Host, f.Note)
			}
			if f.Failed == 0 {
				return nil
			}
			var names []string
			for _, c := range lane.FailedChecks(f.Checks) {
				names = append(names, c.Name)
			}
			return fmt.Errorf("%d of %d checks failed: %s; `bootlane why %s` says what to do", f.Failed, len(f.Checks), strings.Join(names, ", "), f.Host)
		}}
}

func showFirstBoot(w io.Writer, f lane.FirstBoot) {
	if len(f.Checks) == 0 {
		return
	}
	fmt.Fprintf(w, "%s, run %s, reported %s\n", f.Host, f.Run, when(f.At))
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "CHECK\tSTATUS\tEXPECTED\tACTUAL")
	for _, c := range f.Checks {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", orDash(c.Name), orDash(c.Status), orDash(c.Expected), orDash(c.Actual))
	}
	_ = t.Flush() // writes to the terminal; its error shows there
}
