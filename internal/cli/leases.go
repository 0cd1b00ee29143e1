package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bootlane/internal/api"
	"bootlane/internal/lane"
)

const dhcpNetworksLong = `List the networks of the DHCP server with the use of their addresses, and count its
packets since it started. LOST are packets that came while the socket's buffer was full.`

func (a *app) dhcpNetworksCmd() *cobra.Command {
	return &cobra.Command{Use: "networks", Short: "list the networks, and how full they are", Long: dhcpNetworksLong, Args: args(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		state, err := c.DHCP(cmd.Context())
		if err != nil {
			return err
		}
		return a.show(state, func(w io.Writer) { showNetworks(w, state) })
	}}
}

func showNetworks(w io.Writer, s lane.DHCPState) {
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NETWORK\tINTERFACE\tRELAYS\tMODE\tADDRESSES\tUSED\tLEASED\tOFFERED\tASIDE")
	for _, n := range s.Networks {
		relays := "-"
		if len(n.Relays) > 0 {
			relays = fmt.Sprint(n.Relays)
		}
		used := "-"
		if n.Size > 0 {
			used = fmt.Sprintf("%d (%d %%)", n.Used, n.Used*100/n.Size)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\t%d\t%d\t%d\n", n.Network, n.Interface, relays, n.Mode, n.Size, used, n.Leased, n.Offered, n.Aside)
	}
	_ = t.Flush() // writes to the terminal; its error shows there
	k := s.Counters
	fmt.Fprintf(w, "packets: %d received, %d answered, %d silent, %d dropped, %d failed, %d lost\n", k.Received, k.Answered, k.Silent, k.Dropped, k.Failed, k.Lost)
}

const dhcpLeasesLong = `List the leases, and the addresses that are set aside: declined ones, because another
machine answers there. With -o json or yaml they can be exported. A lease that has
expired, or was given back, stays listed: its machine gets the same address again, as
long as nobody else needs it.`

func (a *app) dhcpLeasesCmd() *cobra.Command {
	var network, state string
	cmd := &cobra.Command{Use: "leases", Short: "list the leases", Long: dhcpLeasesLong, Args: args(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
		if state != "" && !slices.Contains(leaseStates(), state) {
			return usageError{fmt.Errorf("--state %q: use one of %v", state, leaseStates())}
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		within, err := ofNetwork(cmd.Context(), c, network)
		if err != nil {
			return err
		}
		list, err := c.Leases(cmd.Context())
		if err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(l lane.LeaseOf) bool {
			return !within(l.Address) || state != "" && leaseState(l.Lease, a.Now()) != state
		})
		slices.SortFunc(list, func(x, y lane.LeaseOf) int { return x.Address.Compare(y.Address) })
		return a.show(list, func(w io.Writer) { showLeases(w, list, a.Now()) })
	}}
	cmd.Flags().StringVar(&network, "network", "", "only those in this `network`")
	cmd.Flags().StringVar(&state, "state", "", "only those in this `state`: active, expired, released or declined")
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(leaseStates(), cobra.ShellCompDirectiveNoFileComp)) // the flag was defined above
	return cmd
}

// ofNetwork returns what picks the addresses of one of the server's networks, or of a part of
// it; of all when text is empty.
func ofNetwork(ctx context.Context, c *api.Client, text string) (func(netip.Addr) bool, error) {
	if text == "" {
		return func(netip.Addr) bool { return true }, nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return nil, usageError{fmt.Errorf("--network %q is not a network like 10.20.0.0/24", text)}
	}
	state, err := c.DHCP(ctx)
	if err != nil {
		return nil, err
	}
	var known []string
	for _, n := range state.Networks {
		if known = append(known, n.Network.String()); n.Network.Contains(p.Addr()) && n.Network.Bits() <= p.Bits() {
			return p.Contains, nil
		}
	}
	return nil, lane.Errorf(lane.NotFound, "the server has no network %s: it has %s", p, strings.Join(known, ", "))
}

func leaseStates() []string {
	return []string{string(lane.LeaseActive), expired, string(lane.LeaseReleased), string(lane.LeaseDeclined)}
}

// expired is the state of a lease whose time is over.
const expired = "expired"

func leaseState(l lane.Lease, now time.Time) string {
	if l.State == lane.LeaseActive && !now.Before(l.Expires) {
		return expired
	}
	return string(l.State)
}

func showLeases(w io.Writer, list []lane.LeaseOf, now time.Time) {
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "ADDRESS\tCLIENT\tHOST\tSTATE\tGRANTED\tUNTIL")
	for _, l := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", l.Address, orDash(cmp.Or(string(l.MAC), string(l.Client))), orDash(string(l.Host)), leaseState(l.Lease, now), when(l.Granted), when(l.Expires))
	}
	_ = t.Flush() // writes to the terminal; its error shows there
}

const dhcpReleaseLong = `Take an address back from whoever has it, or end its being set aside. The machine is not
told: do this only when it is off, gone, or has another address.`

func (a *app) dhcpReleaseCmd() *cobra.Command {
	var why string
	cmd := &cobra.Command{Use: "release ADDRESS", Short: "take an address back", Long: dhcpReleaseLong, Args: args(cobra.ExactArgs(1)), RunE: func(cmd *cobra.Command, argv []string) error {
		if _, err := netip.ParseAddr(argv[0]); err != nil {
			return usageError{fmt.Errorf("%q is not an address: `bootlane dhcp leases` shows those that are leased", argv[0])}
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		l, err := c.ReleaseLease(cmd.Context(), argv[0], why)
		if err != nil {
			return err
		}
		return a.show(l, func(w io.Writer) {
			fmt.Fprintf(w, "%s was %s's, and is free\n", l.Address, orDash(string(l.MAC)))
		})
	}}
	cmd.Flags().StringVar(&why, "why", "", "`reason`, kept as evidence")
	return cmd
}

const dhcpExportLong = `Write the configuration of the site's own DHCP server, with the reservations of the
inventory, to standard output: dnsmasq, kea (DHCPv4, from 2.2) or isc (dhcpd).

  --form owned       it gives addresses and names the boot files; Bootlane speaks no DHCP
                     there: networks[].mode: external
  --form proxy       it gives addresses only; Bootlane stands beside it, on a machine of
                     its own: networks[].mode: proxy
  --form proxy-4011  the same on one machine, where that server has port 67: it sends PXE
                     firmware on to Bootlane's port 4011. Add only4011: true. UEFI HTTP Boot
                     never asks there.

A proxy knows no range, routers or DNS servers: give --range, and add the others, or write
the file while the network's mode is still own or external.

Loops are broken (iPXE gets the script), and UEFI HTTP Boot is served, for every
platform with a loader.`

func (a *app) dhcpExportCmd() *cobra.Command {
	var e lane.DHCPExport
	cmd := &cobra.Command{Use: "export SERVER", Short: "write the configuration of dnsmasq, kea or isc", Long: dhcpExportLong, Args: args(cobra.ExactArgs(1)),
		ValidArgs: []string{"dnsmasq", "kea", "isc"}, RunE: func(cmd *cobra.Command, argv []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			e.Server = argv[0]
			r, err := c.ExportDHCP(cmd.Context(), e)
			if err != nil {
				return err
			}
			if r.Note != "" {
				fmt.Fprintln(a.Stderr, "note:", r.Note)
			}
			return a.show(r, func(w io.Writer) { fmt.Fprint(w, r.Body) })
		}}
	cmd.Flags().StringVar(&e.Form, "form", "owned", "who names the boot files: `owned` (that server), proxy (Bootlane, beside it), or proxy-4011 (Bootlane, on that server's own machine)")
	cmd.Flags().StringVar(&e.Network, "network", "", "the `network`, where the configuration has several")
	cmd.Flags().StringVar(&e.Range, "range", "", "the addresses that it may give, `FIRST-LAST`; without it, the network's own range")
	return cmd
}
