package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bootlane/internal/lane"
)

// completion waits so long for the server: a person waits for a key.
const completionLimit = 2 * time.Second

// onHost makes a command's one argument complete to the ids of the inventory. A
// server that does not answer completes to nothing.
func (a *app) onHost(cmd *cobra.Command) *cobra.Command {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, argv []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(argv) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.hostIDs(cmd, typed)
	}
	return cmd
}

// onHosts completes every argument to the ids of the inventory.
func (a *app) onHosts(cmd *cobra.Command) *cobra.Command {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return a.hostIDs(cmd, typed)
	}
	return cmd
}

// hostIDs completes to the ids of the inventory.
func (a *app) hostIDs(cmd *cobra.Command, typed string) ([]string, cobra.ShellCompDirective) {
	return a.completions(cmd, typed, func(ctx context.Context) ([]string, error) {
		c, err := a.client()
		if err != nil {
			return nil, err
		}
		hosts, err := c.Hosts(ctx)
		var out []string
		for _, h := range hosts {
			out = append(out, string(h.ID))
		}
		return out, err
	})
}

// bundleRefs completes to the bundles in the store.
func (a *app) bundleRefs(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	return a.completions(cmd, typed, func(ctx context.Context) ([]string, error) {
		c, err := a.client()
		if err != nil {
			return nil, err
		}
		bundles, err := c.Bundles(ctx)
		var out []string
		for _, b := range bundles {
			out = append(out, b.Ref())
		}
		return out, err
	})
}

func (a *app) completions(cmd *cobra.Command, typed string, ask func(context.Context) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionLimit)
	defer cancel()
	all, err := ask(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, v := range all {
		if strings.HasPrefix(v, typed) {
			out = append(out, lane.Clean(v, 200))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
