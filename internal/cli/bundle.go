package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bootlane/internal/api"
	"bootlane/internal/bundle"
	"bootlane/internal/lane"
)

func (a *app) bundleCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "bundle", Short: "boot bundles: build, sign, import, approve, name, revoke", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(a.bundleBuildCmd(), a.bundleInitramfsCmd(), a.bundleKeygenCmd(), a.bundleSignCmd(), a.bundleVerifyCmd(), a.bundleImportCmd(), a.bundleListCmd(), a.bundleShowCmd(),
		a.bundleDiffCmd(), a.bundleTrustCmd(), a.bundleApproveCmd(), a.bundleRevokeCmd(), a.bundleAliasCmd(), a.bundleRollbackCmd(), a.bundlePushCmd(), a.bundlePullCmd(), a.bundleGCCmd(), a.bundleFsckCmd())
	return cmd
}

const bundleImportLong = `Verify the bundle in a directory of the server's machine and store it. Every file
is compared with its size and SHA-256 in the manifest, and the signatures with the
server's trust file, where it has one. A version never changes: other content under the
same name and version is refused. So is a version that is lower than one on record,
without --allow-rollback. To import a bundle again adds signatures, and mends what was
found damaged.`

func (a *app) bundleImportCmd() *cobra.Command {
	var q lane.BundleImport
	cmd := &cobra.Command{Use: "import DIR", Short: "verify and store a bundle", Long: bundleImportLong, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) (err error) {
			if q.Dir, err = filepath.Abs(argv[0]); err != nil {
				return fmt.Errorf("find the bundle's directory: %w", err)
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			stop := a.watchWork(cmd.Context(), c)
			b, err := c.ImportBundle(cmd.Context(), q)
			stop()
			if err != nil {
				return err
			}
			return a.show(b, func(w io.Writer) { fmt.Fprintf(w, "%s is in the store: %s\n", b.Ref(), b.Digest) })
		}}
	cmd.Flags().BoolVar(&q.AllowRollback, "allow-rollback", false, "take a version that is lower than one on record; needs --why")
	cmd.Flags().StringVar(&q.Why, "why", "", "`reason`, for the evidence")
	return cmd
}

const bundleListLong = `List the bundles in the store, and those that somebody names and that the store lacks:
they are fetched from bundles.registry, where the configuration names one, and stand here
as fetching or lacking, with how far that is, or why it is not.`

func (a *app) bundleListCmd() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "list the bundles in the store", Long: bundleListLong, Args: args(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		list, err := c.Bundles(cmd.Context())
		if err != nil {
			return err
		}
		return a.show(list, func(w io.Writer) {
			t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
			fmt.Fprintln(t, "BUNDLE\tOS\tARCH\tSEED\tSIZE\tSTATE\tSIGNED BY\tALIASES\tDIGEST")
			for _, b := range list {
				state := string(b.State)
				if b.Refused != "" && b.State != lane.BundleRevoked {
					state += ", refused"
				}
				bytes := size(total(b.Bundle))
				if b.OS == "" { // it is not here: nobody knows what it is
					bytes = "-"
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", b.Ref(), orDash(b.OS), orDash(strings.Join(b.Archs(), ",")), orDash(b.Seed), bytes, state, orDash(strings.Join(b.Signers, ", ")), orDash(strings.Join(b.Aliases, ", ")), orDash(string(b.Digest)))
			}
			_ = t.Flush() // writes to the terminal; its error shows there
			for _, b := range list {
				if b.Fetch != nil {
					fmt.Fprintf(w, "%s: %s\n", b.Ref(), lane.Clean(b.Fetch.String(), 1000))
				}
			}
		})
	}}
}

func (a *app) bundleShowCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "show BUNDLE", Short: "show a bundle, by NAME-VERSION, digest or alias", Args: args(cobra.ExactArgs(1)), RunE: func(cmd *cobra.Command, argv []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		b, err := c.Bundle(cmd.Context(), argv[0])
		if err != nil {
			return err
		}
		return a.show(b, func(w io.Writer) { showBundle(w, b) })
	}}
	cmd.ValidArgsFunction = a.bundleRefs
	return cmd
}

func showBundle(w io.Writer, b lane.BundleStatus) {
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	row := func(name, v string) {
		if v != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, lane.Clean(v, 1000))
		}
	}
	row("bundle", b.Ref())
	row("digest", string(b.Digest))
	row("state", strings.TrimSpace(string(b.State)+"  "+b.By+"  "+b.Why))
	row("refused", b.Refused)
	if b.Fetch != nil {
		row("wanted by", b.Fetch.Wanted)
		row("registry", b.Fetch.String())
	}
	row("signed by", strings.Join(b.Signers, ", "))
	row("aliases", strings.Join(b.Aliases, ", "))
	for _, c := range lane.DiffBundles(lane.Bundle{}, b.Bundle) {
		row(c.Field, c.Is)
	}
	_ = t.Flush() // writes to the terminal; its error shows there
}

const bundleDiffLong = `Show what differs between two bundles: files, kernel arguments, templates, packages.
Each is a directory here, or a bundle of the server: NAME-VERSION, digest or alias.`

func (a *app) bundleDiffCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "diff BUNDLE BUNDLE", Short: "show what differs between two bundles", Long: bundleDiffLong, Args: args(cobra.ExactArgs(2)), RunE: func(cmd *cobra.Command, argv []string) error {
		var sides [2]lane.Bundle
		for i, name := range argv {
			var err error
			if sides[i], err = a.anyBundle(cmd.Context(), name); err != nil {
				return err
			}
		}
		list := lane.DiffBundles(sides[0], sides[1])
		return a.show(list, func(w io.Writer) {
			if len(list) == 0 {
				fmt.Fprintf(w, "%s and %s are the same\n", argv[0], argv[1])
			}
			for _, c := range list {
				fmt.Fprintln(w, c.Field)
				if c.Was != "" {
					fmt.Fprintln(w, "  -", lane.Clean(c.Was, 1000))
				}
				if c.Is != "" {
					fmt.Fprintln(w, "  +", lane.Clean(c.Is, 1000))
				}
			}
		})
	}}
	cmd.ValidArgsFunction = a.bundleRefs
	return cmd
}

// anyBundle reads a bundle from a directory here, or asks the server.
func (a *app) anyBundle(ctx context.Context, name string) (lane.Bundle, error) {
	if st, err := os.Stat(name); err == nil && st.IsDir() {
		f, err := bundle.Open(name)
		return f.Bundle, err
	}
	c, err := a.client()
	if err != nil {
		return lane.Bundle{}, err
	}
	b, err := c.Bundle(ctx, name)
	return b.Bundle, err
}

const bundleTrustLong = `Show the trust file that is in force on the server: its version, how many keys must have
signed a bundle, each key with the dates between which it counts, and what is revoked. A
file that was changed, and is not signed by the keys in force, is not: that is said too.`

func (a *app) bundleTrustCmd() *cobra.Command {
	return &cobra.Command{Use: "trust", Short: "show whose signatures bundles need", Long: bundleTrustLong, Args: args(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		list, err := c.BundleTrust(cmd.Context())
		if err != nil {
			return err
		}
		return a.show(list, func(w io.Writer) { showTrust(w, list) })
	}}
}

func showTrust(w io.Writer, l lane.Trust) {
	if l.File == "" {
		fmt.Fprintln(w, "bundles need no signature: bundles.trust in the server's configuration names a trust file")
		return
	}
	fmt.Fprintf(w, "%s, version %d: %d of %d keys must have signed\n", lane.Clean(l.File, 300), l.Version, l.Threshold, len(l.Keys))
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tID\tFROM\tUNTIL\tNOW\tKEY")
	for _, k := range l.Keys {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", lane.Clean(k.Name, 60), k.ID, when(k.From), when(k.Until), lane.Clean(cmp.Or(k.Unusable, "counts"), 300), k.Key)
	}
	_ = t.Flush() // writes to the terminal; its error shows there
	for _, r := range l.RevokedKeys {
		fmt.Fprintf(w, "revoked key %s: %s\n", r.ID, orDash(r.Why))
	}
	for _, r := range l.RevokedBundles {
		fmt.Fprintf(w, "revoked bundle %s: %s\n", r.Digest, orDash(r.Why))
	}
	if l.Warning != "" {
		fmt.Fprintln(w, "NOTE:", lane.Clean(l.Warning, 1000))
	}
}

func (a *app) bundleApproveCmd() *cobra.Command {
	return a.decide("approve", "say that a bundle may be installed", "", func(ctx context.Context, c *api.Client, name, why string) error {
		r, err := c.ApproveBundle(ctx, name, why)
		if err != nil {
			return err
		}
		return a.show(r, func(w io.Writer) { fmt.Fprintf(w, "%s is %s\n", r.Ref(), r.State) })
	})
}

const bundleRevokeLong = `Say that a bundle may never be installed again, whoever signed it. It is refused at
import, at provision, and to runs that are open: their machines boot their disk. This
cannot be taken back; the same content may come again under a new version. The answer
names the runs that this stops, and the hosts and aliases that need another bundle.`

func (a *app) bundleRevokeCmd() *cobra.Command {
	return a.decide("revoke", "say that a bundle may never be installed again", bundleRevokeLong, func(ctx context.Context, c *api.Client, name, why string) error {
		r, err := c.RevokeBundle(ctx, name, why)
		if err != nil {
			return err
		}
		return a.show(r, func(w io.Writer) { showRevocation(w, r) })
	})
}

func showRevocation(w io.Writer, r lane.Revocation) {
	fmt.Fprintf(w, "%s is %s\n", r.Ref(), r.State)
	if len(r.Stopped)+len(r.Written)+len(r.Hosts)+len(r.Aliases) == 0 {
		fmt.Fprintln(w, "no open run is bound to it, and no host and no alias names it")
	}
	say := func(one, many, then string, names []string) {
		switch len(names) {
		case 0:
			return
		case 1:
			many = one
		}
		fmt.Fprintf(w, "%d %s: %s; %s\n", len(names), many, strings.Join(names, ", "), then)
	}
	say("run is stopped", "runs are stopped", "told to boot from disk; `bootlane cancel HOST`, then `bootlane provision HOST --bundle BUNDLE`", names(r.Stopped))
	say("run goes on", "runs go on", "the disk is written already; afterwards `bootlane provision HOST --reinstall --bundle BUNDLE`", names(r.Written))
	say("host names it", "hosts name it", "not provisioned until the record, or its alias, means another bundle", names(r.Hosts))
	say("alias points at it", "aliases point at it", "`bootlane bundle alias ALIAS BUNDLE` moves one", r.Aliases)
}

func names(hosts []lane.HostID) []string {
	out := make([]string, len(hosts))
	for i, h := range hosts {
		out[i] = string(h)
	}
	return out
}

// decide is a verb that brings one bundle into another state.
func (a *app) decide(verb, short, long string, do func(ctx context.Context, c *api.Client, name, why string) error) *cobra.Command {
	var why string
	cmd := &cobra.Command{Use: verb + " BUNDLE", Short: short, Long: long, Args: args(cobra.ExactArgs(1)), RunE: func(cmd *cobra.Command, argv []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		return do(cmd.Context(), c, argv[0], why)
	}}
	cmd.Flags().StringVar(&why, "why", "", "`reason`, for the evidence")
	cmd.ValidArgsFunction = a.bundleRefs
	return cmd
}

const bundleAliasLong = `Without arguments, list the aliases. With two, point an alias at a bundle: a name that
hosts of the inventory use as their bundle, and that moves from version to version at
once for all of them. A run keeps the bundle that it was granted: a move changes nothing
in mid-install. A lower version of the same name is refused without --allow-rollback;
` + "`bootlane bundle rollback ALIAS`" + ` goes back to where the alias was.`

func (a *app) bundleAliasCmd() *cobra.Command {
	var m lane.AliasMove
	var remove bool
	cmd := &cobra.Command{Use: "alias [ALIAS BUNDLE]", Short: "list the aliases, or point one at a bundle", Long: bundleAliasLong, Args: args(cobra.MaximumNArgs(2)), RunE: func(cmd *cobra.Command, argv []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		ctx := cmd.Context()
		switch {
		case len(argv) == 0 && !remove:
			return a.listAliases(ctx, c)
		case len(argv) == 1 && remove:
			out, err := c.RemoveAlias(ctx, argv[0], m.Why)
			if err != nil {
				return err
			}
			return a.show(out, func(w io.Writer) { fmt.Fprintf(w, "%s is removed\n", out.Name) })
		case len(argv) != 2 || remove:
			return usageError{fmt.Errorf("give ALIAS and BUNDLE, or ALIAS with --remove")}
		}
		m.Bundle = argv[1]
		out, err := c.MoveAlias(ctx, argv[0], m)
		if err != nil {
			return err
		}
		return a.show(out, func(w io.Writer) { fmt.Fprintf(w, "%s points at %s\n", out.Name, out.Target.Ref) })
	}}
	f := cmd.Flags()
	f.BoolVar(&m.AllowRollback, "allow-rollback", false, "point at a lower version than before; needs --why")
	f.BoolVar(&remove, "remove", false, "take the alias away")
	f.StringVar(&m.Why, "why", "", "`reason`, for the evidence")
	cmd.ValidArgsFunction = a.bundleRefs
	return cmd
}

func (a *app) listAliases(ctx context.Context, c *api.Client) error {
	list, err := c.Aliases(ctx)
	if err != nil {
		return err
	}
	return a.show(list, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
		fmt.Fprintln(t, "ALIAS\tBUNDLE\tBEFORE\tMOVED\tBY\tWHY")
		for _, l := range list {
			before := "-"
			if n := len(l.Before); n > 0 {
				before = l.Before[n-1].Ref
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", l.Name, l.Target.Ref, before, when(l.At), l.By, orDash(l.Why))
		}
		_ = t.Flush() // writes to the terminal; its error shows there
	})
}

func (a *app) bundleRollbackCmd() *cobra.Command {
	var why string
	cmd := &cobra.Command{Use: "rollback ALIAS", Short: "point an alias at what it pointed at before", Args: args(cobra.ExactArgs(1)), RunE: func(cmd *cobra.Command, argv []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		out, err := c.RollBackAlias(cmd.Context(), argv[0], why)
		if err != nil {
			return err
		}
		return a.show(out, func(w io.Writer) { fmt.Fprintf(w, "%s points at %s again\n", out.Name, out.Target.Ref) })
	}}
	cmd.Flags().StringVar(&why, "why", "", "`reason`, for the evidence")
	return cmd
}

const bundleGCLong = `Remove the bundles that nothing refers to, and the files that no other bundle needs.
Kept are: what a host of the inventory or its run names; what an alias points at, and
what it can be rolled back to; what is approved; and the highest version of each name.`

func (a *app) bundleGCCmd() *cobra.Command {
	var check bool
	cmd := &cobra.Command{Use: "gc", Short: "remove the bundles that nothing refers to", Long: bundleGCLong, Args: args(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		out, err := c.CollectBundles(cmd.Context(), check)
		if err != nil {
			return err
		}
		return a.show(out, func(w io.Writer) {
			for _, k := range out.Kept {
				fmt.Fprintln(w, "kept", lane.Clean(k, 300))
			}
			verb := "removed"
			if check {
				verb = "would be removed"
			}
			fmt.Fprintf(w, "%s: %d bundles (%s), %d files, %s\n", verb, len(out.Bundles), orDash(strings.Join(out.Bundles, ", ")), out.Files, size(out.Bytes))
		})
	}}
	cmd.Flags().BoolVar(&check, "check", false, "only say what would be removed")
	return cmd
}

const bundleFsckLong = `Read every file of the store and compare its SHA-256. A damaged one goes to quarantine,
and its bundles are refused until they are imported again. Damage is exit code 1.`

func (a *app) bundleFsckCmd() *cobra.Command {
	return &cobra.Command{Use: "fsck", Short: "find damaged files in the store", Long: bundleFsckLong, Args: args(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		stop := a.watchWork(cmd.Context(), c)
		out, err := c.FsckBundles(cmd.Context())
		stop()
		if err != nil {
			return err
		}
		err = a.show(out, func(w io.Writer) {
			for _, d := range out.Damaged {
				fmt.Fprintln(w, lane.Clean(d.String(), 500))
			}
			fmt.Fprintf(w, "%d files, %s, %d damaged\n", out.Files, size(out.Bytes), len(out.Damaged))
		})
		if err == nil && len(out.Damaged) > 0 {
			err = fmt.Errorf("%d files of the store are damaged: import their bundles again", len(out.Damaged))
		}
		return err
	}}
}

// watchWork tells of each tenth of what the server does to its store, until it is stopped.
func (a *app) watchWork(ctx context.Context, c *api.Client) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tell := tenths(a.Stderr)
		t := time.NewTicker(time.Second)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			if w, err := c.BundleWork(ctx); err == nil { // an older server does not know
				tell(w.What, w.Done, w.Total)
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

func total(b lane.Bundle) (n int64) {
	seen := map[lane.Digest]bool{}
	for _, name := range slices.Sorted(maps.Keys(b.Files)) {
		if f := b.Files[name]; !seen[f.Digest] {
			seen[f.Digest] = true
			n += f.SizeBytes
		}
	}
	return n
}
