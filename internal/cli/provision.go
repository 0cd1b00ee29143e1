package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bootlane/internal/api"
	"bootlane/internal/lane"
)

const provisionLong = `Grant a machine one install: it may erase its disk, once, until the deadline. Progress
moves the deadline: the run is given up when it has shown none for so long.

A preflight refuses with all problems at once; ` + "`bootlane preflight`" + ` asks it for many
machines, and grants nothing. With --watch, the stages are shown
live until the machine is ready, has failed, or you press Ctrl-C; the run goes on
without you.

A machine whose cluster has a Node of its name that is Ready is refused: it may be alive. So
is one whose cluster cannot be asked. With --replace-node and --why, both go on; a Node that is
still Ready when the machine comes to join keeps it out all the same.`

func (a *app) provisionCmd() *cobra.Command {
	var p lane.Provisioning
	var watch bool
	cmd := &cobra.Command{Use: "provision HOST", Short: "grant a machine one install", Long: provisionLong, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			if err := p.Validate(); err != nil { // the flags have defaults: a zero was meant, and is none
				return usageError{err}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			h, err := c.Provision(cmd.Context(), argv[0], p)
			if err != nil {
				return err
			}
			err = a.show(h, func(w io.Writer) {
				fmt.Fprintf(w, "%s may be installed: run %s, %s on the disk %s, until %s, %d network boots\n", h.ID, h.Run.ID, h.Run.BundleName, h.Run.Disks(), when(h.Run.Deadline), h.Run.Boots)
				if !watch {
					fmt.Fprintf(w, "Boot it by network now; `bootlane events %s --follow` shows what happens.\n", h.ID)
				}
			})
			if err != nil || !watch {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
			defer stop()
			return a.watch(ctx, c, h)
		}}
	f := cmd.Flags()
	f.StringVar(&p.Bundle, "bundle", "", "`NAME-VERSION` (default: the record's)")
	_ = cmd.RegisterFlagCompletionFunc("bundle", a.bundleRefs) // the flag was defined one line above
	f.DurationVar(&p.For, "deadline", lane.DefaultDeadline, "`time` without progress until the run is given up")
	f.IntVar(&p.Boots, "boots", lane.DefaultBoots, "`number` of network boots granted")
	f.BoolVar(&p.Reinstall, "reinstall", false, "the machine is installed, and its disk may be erased")
	f.BoolVar(&p.ReplaceNode, "replace-node", false, "its cluster has a Node of its name that is Ready, or cannot be asked, and the disk may be erased all the same; needs --why")
	f.StringVar(&p.Why, "why", "", "`reason`, kept as evidence")
	f.BoolVarP(&watch, "watch", "w", false, "show the stages live")
	return cmd
}

// errRunFailed ends a watch whose run did not end well: its exit code is 1.
var errRunFailed = errors.New("the run did not end well")

// watch prints a run's stages until it ends or ctx does.
func (a *app) watch(ctx context.Context, c *api.Client, h lane.Host) error {
	began := a.Now()
	seq := int64(0)
	events, err := c.Events(ctx, string(h.ID), -1, 1)
	if err == nil && len(events) > 0 {
		seq = events[0].Seq - 1
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	p := progress{w: a.Stdout}
	var gone absence
	for {
		events, err := c.Events(ctx, string(h.ID), seq, 500)
		if ctx.Err() != nil {
			p.end()
			fmt.Fprintf(a.Stdout, "The run %s goes on; `bootlane why %s` says where it is.\n", h.Run.ID, h.ID)
			return nil
		}
		if err != nil && !gone.bearable(err, a.Now()) {
			return err
		}
		for _, e := range events {
			seq = e.Seq
			if e.Run == h.Run.ID {
				p.event(e, a.Now().Sub(began))
			}
		}
		now, err := c.Host(ctx, string(h.ID))
		if err != nil && ctx.Err() == nil && !gone.bearable(err, a.Now()) {
			return err
		}
		if !now.Run.Stage.AtLeast(lane.StageInstaller) { // from there on the machine tells its own progress
			if files, err := c.Transfers(ctx, string(h.ID)); err == nil { // only shown: the next round may know
				p.transfers(files, a.Now().Sub(began))
			}
		}
		if now.Run.ID == h.Run.ID && !now.Run.Open {
			return a.ended(ctx, c, now, &p)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (a *app) ended(ctx context.Context, c *api.Client, h lane.Host, p *progress) error {
	p.end()
	if h.State == lane.StateInstalled {
		fmt.Fprintf(a.Stdout, "%s is installed.\n", h.ID)
		return nil
	}
	v, err := c.Why(ctx, string(h.ID))
	if err != nil {
		return err
	}
	showVerdict(a.Stdout, v)
	return errRunFailed
}

// progress prints one line a stage, and one line that rewrites itself for bytes.
type progress struct {
	w    io.Writer
	open bool // the last line is a progress line, without its end
}

func (p *progress) end() {
	if p.open {
		fmt.Fprintln(p.w)
		p.open = false
	}
}

func (p *progress) event(e lane.Event, since time.Duration) {
	clock := fmt.Sprintf("%6.1fs", since.Seconds())
	switch e.Kind {
	case lane.KindProgress:
		fmt.Fprintf(p.w, "\r%s  %-13s %-70s", clock, e.Stage, lane.Clean(e.Message, 70))
		p.open = true
	case lane.KindServed:
		p.end()
		fmt.Fprintf(p.w, "%s  %-13s sends %s, %s\n", clock, "", lane.Clean(e.Name, 60), size(e.Bytes))
	case lane.KindAsked, lane.KindLease:
	default:
		p.end()
		fmt.Fprintf(p.w, "%s  %-13s %s\n", clock, orDash(string(e.Stage)), lane.Clean(e.Message, 200))
	}
}

// transfers rewrites the line that says how much of the kernel and the initrd has arrived.
func (p *progress) transfers(files []lane.Transfer, since time.Duration) {
	var parts []string
	for _, f := range files {
		if f.Total > 0 {
			parts = append(parts, fmt.Sprintf("%s %s of %s, %d %%", f.Name, size(f.Done), size(f.Total), 100*f.Done/f.Total))
		}
	}
	if len(parts) > 0 {
		fmt.Fprintf(p.w, "\r%6.1fs  %-13s %-70s", since.Seconds(), "", lane.Clean(strings.Join(parts, "; "), 70))
		p.open = true
	}
}

func size(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}
