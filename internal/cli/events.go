package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bootlane/internal/api"
	"bootlane/internal/lane"
)

const eventsLong = `Print the evidence of a machine, oldest first. HOST is a host's id, or the MAC of
a machine that no record describes; without it, such machines are listed.

--verify checks the chain of hashes that ties every line to the one before it: a
changed line, a missing one and a missing beginning are found. A missing end cannot
be: keep the number and hash of the last line (-o json) elsewhere to prove it.

net:INTERFACE in the place of HOST prints what was heard of other DHCP servers there;
bundle:NAME and alias:NAME print who imported, approved, revoked or moved what, and why.
--pcap writes the last boot packets (DHCP, PXE, TFTP requests) of the machine, or of all
of net:INTERFACE, instead of its evidence; ` + "`bootlane pcap`" + ` explains them.`

func (a *app) eventsCmd() *cobra.Command {
	var follow, verify bool
	var record string
	var limit int
	cmd := &cobra.Command{Use: "events [HOST|MAC]", Short: "print a machine's evidence", Long: eventsLong, Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			if len(argv) == 0 && (verify || follow || record != "") {
				return usageError{fmt.Errorf("name the machine: --verify, --follow and --pcap are for one HOST or MAC")}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			if len(argv) == 0 {
				return a.unknown(cmd.Context(), c)
			}
			if _, err := c.Host(cmd.Context(), argv[0]); err != nil && !isMAC(argv[0]) && !isSubject(argv[0]) {
				return err
			}
			if record != "" {
				return a.record(cmd.Context(), c, argv[0], record)
			}
			events, err := c.Events(cmd.Context(), argv[0], -1, limit)
			if err != nil {
				return err
			}
			if len(events) == 0 && isMAC(argv[0]) {
				return lane.Errorf(lane.NotFound, "nothing was heard of %s: `bootlane events` lists the machines without a record", argv[0])
			}
			if err := a.show(events, func(w io.Writer) { showEvents(w, events) }); err != nil {
				return err
			}
			if verify {
				if err := a.verify(cmd.Context(), c, argv[0]); err != nil {
					return err
				}
			}
			if !follow {
				return nil
			}
			return a.follow(cmd.Context(), c, argv[0], events)
		}}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on printing")
	cmd.Flags().BoolVar(&verify, "verify", false, "check the chain of hashes")
	cmd.Flags().StringVar(&record, "pcap", "", "write its boot packets to a `file` (pcapng; - for standard output)")
	cmd.Flags().IntVarP(&limit, "last", "n", 200, "`number` of lines")
	return cmd
}

// isSubject reports whether evidence is kept under a name that is no machine's.
func isSubject(name string) bool {
	return name == lane.SubjectServer || strings.HasPrefix(name, lane.NetSubject("")) || isBundle(name)
}

// isBundle reports whether it is kept about a bundle or an alias.
func isBundle(name string) bool {
	return strings.HasPrefix(name, lane.BundleSubject("")) || strings.HasPrefix(name, lane.AliasSubject(""))
}

// unknown lists the machines without a record that left evidence.
func (a *app) unknown(ctx context.Context, c *api.Client) error {
	list, err := c.Unknown(ctx)
	if err != nil {
		return err
	}
	return a.show(list, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "no machine without a record was heard")
			return
		}
		t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
		fmt.Fprintln(t, "WITHOUT A RECORD\tLAST HEARD\tLINES\tRECORD SINCE")
		for _, s := range list {
			fmt.Fprintf(t, "%s\t%s\t%d\t%s\n", lane.Clean(s.Subject, 100), when(s.Heard), s.Lines, orDash(string(s.Host)))
		}
		_ = t.Flush() // writes to the terminal; its error shows there
	})
}

// verify checks all of a machine's evidence, from the first line on.
func (a *app) verify(ctx context.Context, c *api.Client, subject string) error {
	var events []lane.Event
	for {
		var seq int64
		if len(events) > 0 {
			seq = events[len(events)-1].Seq
		}
		page, err := c.Events(ctx, subject, seq, 5000)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			break
		}
		events = append(events, page...)
	}
	if err := lane.VerifyWhole(subject, events); err != nil {
		return err
	}
	fmt.Fprintf(a.Stderr, "%d events, the chain is unbroken\n", len(events))
	return nil
}

// follow prints what comes after the given events, until ctx ends.
func (a *app) follow(ctx context.Context, c *api.Client, subject string, seen []lane.Event) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var gone absence
	for {
		var seq int64
		if len(seen) > 0 {
			seq = seen[len(seen)-1].Seq
		}
		more, err := c.Events(ctx, subject, seq, 500)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !gone.bearable(err, a.Now()) {
			return err
		}
		if len(more) > 0 {
			seen = more
			showEvents(a.Stdout, more)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// absence lets whoever follows a machine sit out a restart of the server.
type absence struct{ since time.Time }

// outage is how long a server may be away.
const outage = 2 * time.Minute

// bearable reports whether an error is a server that was there a moment ago.
func (g *absence) bearable(err error, now time.Time) bool {
	if !errors.Is(err, api.ErrUnreachable) {
		g.since = time.Time{}
		return err == nil
	}
	if g.since.IsZero() {
		g.since = now
	}
	return now.Sub(g.since) < outage
}

func isMAC(s string) bool {
	_, err := lane.ParseMAC(s)
	return err == nil || strings.HasPrefix(s, "mac:") // as the list of unknown machines writes it
}

func showEvents(w io.Writer, events []lane.Event) {
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	for _, e := range events {
		what := string(e.Kind)
		if e.Action != "" && e.Kind == lane.KindAsked {
			what = e.Action + " (" + string(e.Reason) + ")"
		}
		text := e.Message
		if e.Kind == lane.KindServed {
			text = e.Name + ", " + size(e.Bytes) + ": " + text
		}
		if e.Count > 1 {
			text += fmt.Sprintf("  [%d times]", e.Count)
		}
		text = orDash(text)
		if e.Digest != "" && isBundle(e.Subject) { // of a machine's files it is in the JSON
			text += "  " + string(e.Digest)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", when(e.At), orDash(e.By), what, orDash(string(e.Stage)), text)
	}
	_ = t.Flush() // writes to the terminal; its error shows there
}
