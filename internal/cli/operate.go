package cli

import (
	"github.com/spf13/cobra"
)

func (a *app) cancelCmd() *cobra.Command {
	return a.verb("cancel", "end a machine's open run", `End the open run of a machine. One that has not used a network boot goes back to the
state it came from; any other is failed, because its disk may be half written.`)
}

func (a *app) hostConfirmCmd() *cobra.Command {
	return a.verb("confirm", "say that a machine of Talos is installed", `End the open run of a machine that was given its configuration of Talos, as installed.
Talos reports nothing by itself: say so once `+"`talosctl health`"+`, or its Node, shows that it runs.
A host whose cluster is configured needs no such word: its Node is looked for.`)
}

func (a *app) quarantineCmd() *cobra.Command {
	return a.verb("quarantine", "set a machine aside", `Set a machine aside: nothing destructive happens to it until it is released.`)
}

func (a *app) releaseCmd() *cobra.Command {
	return a.verb("release", "end a machine's quarantine", `End a machine's quarantine. It returns to the state it came from. A dispute that
still stands will quarantine it again.`)
}

func (a *app) retireCmd() *cobra.Command {
	return a.verb("retire", "take a machine out of service", `Take a machine out of service. Its evidence is kept; `+"`bootlane host import`"+` brings it back.`)
}

func (a *app) verb(name, short, long string) *cobra.Command {
	var why string
	cmd := &cobra.Command{Use: name + " HOST", Short: short, Long: long, Args: args(cobra.ExactArgs(1)), RunE: func(cmd *cobra.Command, argv []string) error {
		return a.act(cmd, argv[0], name, why)
	}}
	cmd.Flags().StringVar(&why, "why", "", "`reason`, kept as evidence")
	return cmd
}
