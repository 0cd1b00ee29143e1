package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bootlane/internal/lane"
)

const inspectLong = `Have a machine looked at when it next boots by network: an agent in RAM tells what it is
made of, and opens no disk. ` + "`bootlane host discovered`" + ` shows what was found, and what of it
the record says otherwise. The wish ends when the machine was looked at, or after --for.

The configuration's policy.inspect.bundle names the bundle with the agent. A machine that is
being installed, is in quarantine or retired is not looked at.`

func (a *app) hostInspectCmd() *cobra.Command {
	var within time.Duration
	var why string
	cmd := &cobra.Command{Use: "inspect HOST", Short: "have a machine looked at when it next boots by network", Long: inspectLong, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			if within <= 0 || within > lane.MaxInspectFor {
				return usageError{fmt.Errorf("--for %s: up to %s", within, lane.MaxInspectFor)}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			h, err := c.Inspect(cmd.Context(), argv[0], within, why)
			if err != nil {
				return err
			}
			return a.show(h, func(w io.Writer) {
				fmt.Fprintf(w, "%s is looked at when it boots by network before %s\n", h.ID, when(h.Inspect))
			})
		}}
	cmd.Flags().DurationVar(&within, "for", 2*time.Hour, "`how long` the wish stands")
	cmd.Flags().StringVar(&why, "why", "", "`reason`, kept as evidence")
	return cmd
}

const discoveredLong = `List the machines that an agent looked at, or show all that it found of one: by the id in
the list, a MAC or a serial number.

HOST is the record that the machine shows a signal of, if there is one; DIFFERS is how many
of its facts the record says otherwise: ` + "`bootlane host discovered ID`" + ` shows both sides.`

func (a *app) hostDiscoveredCmd() *cobra.Command {
	return &cobra.Command{Use: "discovered [ID]", Short: "machines that were looked at, and what was found", Long: discoveredLong, Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if len(argv) == 1 {
				d, err := c.DiscoveredAs(cmd.Context(), argv[0])
				if err != nil {
					return err
				}
				return a.show(d, func(w io.Writer) { showDiscovered(w, d) })
			}
			list, err := c.Discovered(cmd.Context())
			if err != nil {
				return err
			}
			return a.show(list, func(w io.Writer) {
				t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
				fmt.Fprintln(t, "ID\tHOST\tDIFFERS\tMODEL\tSERIAL\tCPUS\tMEMORY\tNICS\tDISKS\tHEARD")
				for _, d := range list {
					hw := d.Hardware
					fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%d\t%s\t%d\t%d\t%s\n", d.ID, orDash(hostIDs(d.Hosts)), len(d.Mismatch), orDash(model(hw)), orDash(hw.Serial), hw.CPUs, size(hw.MemoryBytes), len(hw.NICs), len(hw.Disks), when(d.Heard))
				}
				_ = t.Flush() // writes to the terminal; its error shows there
			})
		}}
}

func model(hw lane.Hardware) string { return strings.TrimSpace(hw.Manufacturer + " " + hw.Product) }

func hostIDs(list []lane.HostID) string {
	var out []string
	for _, id := range list {
		out = append(out, string(id))
	}
	return strings.Join(out, " ")
}

func showDiscovered(w io.Writer, d lane.Discovered) {
	hw := d.Hardware
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	row := func(k, v string) { fmt.Fprintf(t, "%s\t%s\n", k, orDash(v)) }
	row("id", d.ID)
	row("heard", when(d.Heard)+"  first "+when(d.First)+"  from "+cmp.Or(d.From, "-")+"  by the agent of "+d.Bundle)
	row("records", hostIDs(d.Hosts))
	row("model", model(hw))
	row("uuid", string(hw.UUID))
	row("serial", hw.Serial)
	row("asset tag", hw.AssetTag)
	secure := ""
	if hw.SecureBoot {
		secure = ", Secure Boot"
	}
	row("firmware", strings.TrimSpace(hw.Firmware+" "+hw.FirmwareRev)+secure)
	row("cpus", strings.TrimSpace(fmt.Sprintf("%d %s  %s", hw.CPUs, hw.Machine, hw.CPUModel)))
	row("memory", size(hw.MemoryBytes))
	row("bmc", hw.BMC)
	_ = t.Flush() // writes to the terminal; its error shows there
	fmt.Fprintln(t, "\nNIC\tMAC\tDRIVER\tLINK")
	for _, n := range hw.NICs {
		link := "no carrier"
		switch {
		case n.Up && n.Mbps > 0:
			link = fmt.Sprintf("%d Mbit/s", n.Mbps)
		case n.Up:
			link = "up, speed not known"
		}
		if n.MAC == hw.BootMAC {
			link += ", booted from"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", orDash(n.Name), n.MAC, orDash(n.Driver), link)
	}
	_ = t.Flush() // writes to the terminal; its error shows there
	fmt.Fprintln(t, "\nDISK\tSIZE\tSERIAL\tWWN\tMODEL\tKIND\tBY-ID")
	for _, k := range hw.Disks {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", orDash(k.Name), size(k.SizeBytes), orDash(k.Serial), orDash(k.WWN), orDash(strings.TrimSpace(k.Vendor+" "+k.Model)), orDash(diskKind(k)), orDash(strings.Join(k.ByID, " ")))
	}
	_ = t.Flush() // writes to the terminal; its error shows there
	showMismatch(w, d.Mismatch)
}

func diskKind(d lane.Disk) string {
	out := []string{d.Transport}
	for _, f := range []struct {
		set  bool
		word string
	}{{d.Rotational, "rotational"}, {d.Removable, "removable"}, {d.ReadOnly, "read-only"}} {
		if f.set {
			out = append(out, f.word)
		}
	}
	return strings.Join(slices.DeleteFunc(out, func(s string) bool { return s == "" }), ", ")
}

const adoptLong = `Make a record of a machine that was looked at: ID is as ` + "`bootlane host discovered`" + ` shows
it, a MAC or a serial number. What the record will be is shown first; with --check that is all.

Every reason against it is told at once, and nothing is stored: a factory default where the
machine would have to be told from others, a signal that another record claims, several disks
and none chosen. The machine is new then; ` + "`bootlane provision`" + ` installs it. One that waits
in RAM reboots into the install by itself.`

func (a *app) hostAdoptCmd() *cobra.Command {
	var q lane.Adoption
	var id string
	cmd := &cobra.Command{Use: "adopt ID --id NAME", Short: "make a record of a machine that was looked at", Long: adoptLong, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			if q.ID = lane.HostID(id); q.ID == "" && q.Hostname == "" {
				return usageError{fmt.Errorf("say what the machine is called: --id or --hostname")}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			first := q
			first.Check = true
			would, err := c.Adopt(cmd.Context(), argv[0], first)
			if err != nil {
				return err
			}
			if a.output == "table" {
				showAdopted(a.Stdout, would)
			}
			if len(would.Problems) > 0 {
				return adoptRefused(argv[0], would)
			}
			done := would
			if !q.Check {
				if done, err = c.Adopt(cmd.Context(), argv[0], q); err == nil && len(done.Problems) > 0 {
					err = adoptRefused(argv[0], done)
				}
				if err != nil {
					return err
				}
			}
			return a.show(done, func(w io.Writer) {
				if q.Check {
					fmt.Fprintln(w, "nothing stands against it; nothing was stored")
					return
				}
				fmt.Fprintf(w, "adopted: %s is %s\n", done.Host.ID, stands(done.Host.State))
			})
		}}
	f := cmd.Flags()
	f.StringVar(&id, "id", "", "`name` of the record; default: the host name's first label")
	f.StringVar(&q.Hostname, "hostname", "", "host `name`; default: the id")
	f.StringVar(&q.Bundle, "bundle", "", "`NAME-VERSION` or alias that it is meant to get")
	f.StringVar(&q.Role, "role", "", "its `role`")
	f.StringVar(&q.Disk, "disk", "", "`SERIAL`, WWN or by-id link of the disk to install to; needed where there are several")
	f.BoolVar(&q.Check, "check", false, "only show what it would be, and what stands against it")
	return cmd
}

func adoptRefused(name string, out lane.Adopted) error {
	e := lane.Errorf(lane.Refused, "%s cannot be adopted so, nothing was stored", name)
	for _, p := range out.Problems {
		e.Problems = append(e.Problems, p.String())
	}
	return e
}

func showAdopted(w io.Writer, out lane.Adopted) {
	h := out.Host
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	for _, r := range [][2]string{{"host", string(h.ID)}, {"hostname", h.Hostname}, {"arch", string(h.Arch)}, {"role", h.Role}, {"bundle", h.Bundle}, {"disk", h.Disk.String()},
		{"uuid", string(h.Identity.UUID)}, {"macs", macs(h.Identity.MACs)}, {"serial", h.Identity.Serial}, {"asset tag", h.Identity.AssetTag}} {
		fmt.Fprintf(t, "%s\t%s\n", r[0], orDash(r[1]))
	}
	_ = t.Flush() // writes to the terminal; its error shows there
	for _, n := range out.Notes {
		fmt.Fprintln(w, "note: "+lane.Clean(n, 500))
	}
}
