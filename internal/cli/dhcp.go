package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bootlane/internal/api"
	"bootlane/internal/lane"
)

func (a *app) dhcpCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "dhcp", Short: "leases, networks, and other DHCP and PXE servers", Args: args(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(a.dhcpNetworksCmd(), a.dhcpLeasesCmd(), a.dhcpReleaseCmd(), a.dhcpServersCmd(), a.dhcpProbeCmd(), a.dhcpExportCmd())
	return cmd
}

const dhcpServersLong = `List the DHCP and PXE servers that were heard on the boot networks since the server
started, but for Bootlane itself: what it overheard, and what answered its probes
(policy.probeEvery). ` + "`bootlane events net:INTERFACE`" + ` says what was heard before.`

func (a *app) dhcpServersCmd() *cobra.Command {
	return &cobra.Command{Use: "servers", Short: "list other DHCP and PXE servers", Long: dhcpServersLong, Args: args(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		list, err := c.Responders(cmd.Context())
		if err != nil {
			return err
		}
		return a.show(list, func(w io.Writer) { showResponders(w, list) })
	}}
}

const dhcpProbeLong = `Ask now, on one boot network or on all, which DHCP servers answer a machine: as a plain
client, and as UEFI PXE firmware, with an address that no machine has. Only DISCOVERs
are sent: nobody gives a lease for it. It takes six seconds, for some servers look for
conflicts before they answer; Bootlane itself is not asked.

Exit code 0: nobody else answered. 3: another server did, and the table names it.`

func (a *app) dhcpProbeCmd() *cobra.Command {
	var iface string
	cmd := &cobra.Command{Use: "probe", Short: "ask who else answers DHCP", Long: dhcpProbeLong, Args: args(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		p, err := c.Probe(cmd.Context(), iface)
		if err != nil {
			return err
		}
		if err := a.show(p, func(w io.Writer) { showResponders(w, p.Foreign) }); err != nil {
			return err
		}
		if n := len(p.Foreign); n > 0 {
			return lane.Errorf(lane.Refused, "answers of DHCP servers that are not this one, on %s: %d; if they should not be there, find them by their MAC in the switch's table", strings.Join(p.Interfaces, ", "), n)
		}
		return nil
	}}
	cmd.Flags().StringVar(&iface, "interface", "", "`interface` of the server to ask on (default: every boot network)")
	return cmd
}

func showResponders(w io.Writer, list []lane.Responder) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no other DHCP server was heard")
		return
	}
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "INTERFACE\tSERVER\tMAC\tADDRESSES\tPXE\tBOOT FILE\tFIRST HEARD\tLAST HEARD\tCOUNT")
	two := false
	for _, r := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", orDash(r.Interface), orDash(r.Server), orDash(string(r.MAC)), yesNo(r.Gives), yesNo(r.PXE), orDash(r.BootFile), when(r.First), when(r.Last), r.Count)
		two = two || r.Finding() == lane.TwoPXEServers
	}
	_ = t.Flush() // writes to the terminal; its error shows there
	if two {
		fmt.Fprintln(w, lane.TwoPXEServers+": another server boots machines here; which one a machine obeys is chance")
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// record writes a recording to a file, or to standard output where that is no terminal.
func (a *app) record(ctx context.Context, c *api.Client, subject, file string) error {
	if f, ok := a.Stdout.(*os.File); ok && file == "-" {
		if st, err := f.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
			return usageError{fmt.Errorf("a recording is no text for a terminal: name a file, or pipe it into `tcpdump -r -`")}
		}
	}
	data, err := c.Recording(ctx, subject)
	if err != nil {
		return err
	}
	if file == "-" {
		_, err := a.Stdout.Write(data)
		return err
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return fmt.Errorf("write the recording: %w", err)
	}
	fmt.Fprintf(a.Stderr, "%s: %s of boot packets; `bootlane pcap %s` explains them\n", file, size(int64(len(data))), file)
	return nil
}
