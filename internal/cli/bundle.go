package cli

import (
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bootlane/internal/bundle"
	"bootlane/internal/lane"
)

func (a *app) bundleCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "bundle", Short: "boot bundles: hash, initramfs, import, list", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(a.bundleHashCmd(), a.bundleInitramfsCmd(), a.bundleImportCmd(), a.bundleListCmd())
	return cmd
}

func (a *app) bundleHashCmd() *cobra.Command {
	return &cobra.Command{Use: "hash DIR", Short: "write the SHA-256 of every file into DIR/bundle.yaml", Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, argv []string) error {
			m, err := bundle.Hash(argv[0])
			if err != nil {
				return err
			}
			return a.show(m.Files, func(w io.Writer) {
				fmt.Fprintf(w, "%s names %d files of %s-%s\n", filepath.Join(argv[0], bundle.ManifestName), len(m.Files), m.Name, m.Version)
			})
		}}
}

const bundleImportLong = `Verify the bundle in a directory of the server's machine and store it. Every file
is compared with its SHA-256 in bundle.yaml. A version never changes: other content
under the same name and version is refused.`

func (a *app) bundleImportCmd() *cobra.Command {
	return &cobra.Command{Use: "import DIR", Short: "verify and store a bundle", Long: bundleImportLong, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			dir, err := filepath.Abs(argv[0])
			if err != nil {
				return fmt.Errorf("find the bundle's directory: %w", err)
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			b, err := c.ImportBundle(cmd.Context(), dir)
			if err != nil {
				return err
			}
			return a.show(b, func(w io.Writer) { fmt.Fprintf(w, "%s is in the store: %s\n", b.Ref(), b.Digest) })
		}}
}

func (a *app) bundleListCmd() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "list the bundles in the store", Args: args(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
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
			fmt.Fprintln(t, "BUNDLE\tOS\tARCH\tSEED\tSIZE\tDIGEST")
			for _, b := range list {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", b.Ref(), b.OS, b.Arch, b.Seed, size(total(b)), b.Digest)
			}
			_ = t.Flush() // writes to the terminal; its error shows there
		})
	}}
}

func total(b lane.Bundle) (n int64) {
	for _, f := range b.Files {
		n += f.SizeBytes
	}
	return n
}
