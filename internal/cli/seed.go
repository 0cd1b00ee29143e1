package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bootlane/internal/lane"
)

func (a *app) seedCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "seed", Short: "what installed systems get: explain",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(a.onHost(a.seedExplainCmd()))
	return cmd
}

const seedExplainLong = `Say what a machine's installed system would get, and which level says so: the default,
the site, the role or the host's own record. Each level takes the place of those before
it, key by key and whole. OVER is what the levels before say in vain.

Of a password's hash only the kind is shown. A run that is open gets the same.`

func (a *app) seedExplainCmd() *cobra.Command {
	return &cobra.Command{Use: "explain HOST", Short: "say where each value of a machine's seed comes from", Long: seedExplainLong, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			list, err := c.Explain(cmd.Context(), argv[0])
			if err != nil {
				return err
			}
			return a.show(list, func(w io.Writer) { showOrigins(w, list) })
		}}
}

func showOrigins(w io.Writer, list []lane.Origin) {
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "FIELD\tVALUE\tFROM\tOVER")
	for _, o := range list {
		var over []string
		for _, v := range o.Over {
			over = append(over, v.From+": "+valuesText(v.Values))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", o.Field, valuesText(o.Values), lane.Clean(o.From, 80), orDash(strings.Join(over, "; ")))
	}
	_ = t.Flush() // writes to the terminal; its error shows there
}

// valuesText is a list on one line. Of a long value, such as a key, the ends tell enough.
func valuesText(values []string) string {
	if len(values) == 0 {
		return "none"
	}
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = lane.Clean(v, 1000)
		if r := []rune(out[i]); len(r) > 60 {
			out[i] = string(r[:28]) + "…" + string(r[len(r)-28:])
		}
	}
	return strings.Join(out, ", ")
}
