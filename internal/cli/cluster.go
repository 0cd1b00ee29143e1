package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bootlane/internal/lane"
)

func (a *app) clusterCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "cluster", Short: "the clusters that machines join: list, manifests, check",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(a.clusterListCmd(), a.onCluster(a.clusterManifestsCmd()), a.onCluster(a.clusterCheckCmd()))
	return cmd
}

// onCluster makes a command's one argument complete to the clusters of the configuration.
func (a *app) onCluster(cmd *cobra.Command) *cobra.Command {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, argv []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(argv) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.completions(cmd, typed, func(ctx context.Context) ([]string, error) {
			c, err := a.client()
			if err != nil {
				return nil, err
			}
			list, err := c.Clusters(ctx)
			var out []string
			for _, s := range list {
				out = append(out, s.Name)
			}
			return out, err
		})
	}
	return cmd
}

func (a *app) clusterListCmd() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "list the clusters of the configuration", Args: args(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		list, err := c.Clusters(cmd.Context())
		if err != nil {
			return err
		}
		return a.show(list, func(w io.Writer) {
			t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
			fmt.Fprintln(t, "CLUSTER\tDISTRIBUTION\tENDPOINT\tTTL\tUSER\tCA")
			for _, s := range list {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", s.Name, s.Distribution, s.Endpoint, s.TokenTTL, lane.Clean(s.User, 200), s.CAPin)
			}
			_ = t.Flush() // writes to the terminal; its error shows there
		})
	}}
}

const clusterManifestsLong = `Print what gives Bootlane the rights that it needs in a cluster, and no others: RBAC, and an
admission policy for what RBAC cannot say. An administrator applies it:

    bootlane cluster manifests NAME | kubectl apply -f -

Names are those of the configuration. docs/join.md says what each part is for.`

func (a *app) clusterManifestsCmd() *cobra.Command {
	return &cobra.Command{Use: "manifests CLUSTER", Short: "print the rights that Bootlane needs in a cluster", Long: clusterManifestsLong, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			m, err := c.ClusterManifests(cmd.Context(), argv[0])
			if err != nil {
				return err
			}
			return a.show(m, func(w io.Writer) { fmt.Fprint(w, safe(m.Body)) })
		}}
}

const clusterCheckLong = `Ask a cluster who Bootlane is there, what it may do and must not, and whether the admission
policy is in force. Nothing is changed: what must be refused is tried without effect.

The exit code is 1 when anything is not as it must be.`

// errClusterCheck ends a check that found something: its exit code is 1.
var errClusterCheck = errors.New("the cluster is not as it must be")

func (a *app) clusterCheckCmd() *cobra.Command {
	return &cobra.Command{Use: "check CLUSTER", Short: "prove what Bootlane may do in a cluster", Long: clusterCheckLong, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			check, err := c.ClusterCheck(cmd.Context(), argv[0])
			if err != nil {
				return err
			}
			if err := a.show(check, func(w io.Writer) { showClusterCheck(w, check) }); err != nil {
				return err
			}
			for _, f := range check.Findings {
				if !f.OK {
					return errClusterCheck
				}
			}
			return nil
		}}
}

func showClusterCheck(w io.Writer, c lane.ClusterCheck) {
	fmt.Fprintf(w, "%s: %s %s at %s, CA %s\n", c.Name, c.Distribution, orDash(c.Version), c.Endpoint, c.CAPin)
	for _, f := range c.Findings {
		if f.OK {
			fmt.Fprintf(w, "  ok    %s\n", lane.Clean(f.What, 500))
		} else {
			fmt.Fprintf(w, "  WRONG %s: %s\n", lane.Clean(f.What, 500), orDash(f.Got))
		}
	}
}
