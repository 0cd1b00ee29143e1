package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bootlane/internal/bundle"
	"bootlane/internal/lane"
	"bootlane/internal/source"
)

const bundleBuildLong = `Read every file of the bundle in a directory, and write its canonical manifest,
DIR/manifest.json: what is signed. The same input gives the same bytes. bundle.yaml is
not touched; where it says a file's digest, the file must have it. No server is asked.

With --from, the directory is made first, files and bundle.yaml, out of what you have:

  iso:FILE             a distribution's image: Debian, Ubuntu live-server, RHEL and its kin, SLES
  debian-netboot       what Debian's package debian-installer-*-netboot-* installed;
                       debian-netboot:FILE is a netboot.tar.gz, debian-netboot:DIR its tree
  dir:DIR              a medium's tree, or plain files
  url:URL#sha256=HEX   a download, continued if it breaks off; an .iso or a
                       netboot.tar.gz is then taken apart; may be given several times

Kernel, initrd, shim and GRUB are found and copied. Give what was published beside an
image, and it is compared first: --sums SHA256SUMS, with --sums-signature and the
distribution's own --keyring also who signed it. What is still missing is told, and
stands in bundle.yaml: after you changed that, build again without --from.

A loader with imageTrust: true is an iPXE that checks what it loads. --certificate with
--key or --command (see bootlane uefi sign) then signs kernel and initrd for it.`

type buildFlags struct {
	source.Request
	sums, signature, keyring, digest, arch string
	images                                 uefiKeyFlags // who signs for an iPXE that checks
}

func (a *app) bundleBuildCmd() *cobra.Command {
	var b buildFlags
	cmd := &cobra.Command{Use: "build [--from SOURCE] DIR", Aliases: []string{"hash"}, Short: "write the canonical manifest of a bundle's directory; make the directory of an ISO and other sources", Long: bundleBuildLong, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			b.Dir = argv[0]
			signs := b.images.certificate+b.images.key+b.images.command != ""
			if len(b.From) > 0 && signs {
				return usageError{errors.New("--certificate, --key and --command sign for a loader with imageTrust, which no --from names: build first, then again without it")}
			}
			if len(b.From) > 0 {
				return a.buildFrom(cmd.Context(), &b)
			}
			for _, n := range []string{"sums", "sums-name", "sums-signature", "keyring", "sha256", "name", "version", "seed", "args", "mirror", "security", "arch", "kernel", "initrd"} {
				if cmd.Flags().Changed(n) {
					return usageError{fmt.Errorf("--%s belongs to --from: without it, the bundle is what its bundle.yaml says", n)}
				}
			}
			if signs {
				m, err := bundle.ReadManifest(b.Dir)
				if err != nil {
					return err
				}
				if err := b.images.signImages(cmd.Context(), a, b.Dir, m.ImageSignatures()); err != nil {
					return err
				}
			}
			f, err := bundle.Build(cmd.Context(), b.Dir)
			if err != nil {
				return err
			}
			return a.show(f.Bundle, func(w io.Writer) { builtManifest(w, f) })
		}}
	f := cmd.Flags()
	f.StringArrayVar(&b.From, "from", nil, "`source`: iso:FILE, debian-netboot, dir:DIR, url:URL#sha256=HEX")
	f.StringVar(&b.sums, "sums", "", "`file` with the distribution's SHA-256 digests (SHA256SUMS, CHECKSUM)")
	f.StringVar(&b.SumsName, "sums-name", "", "the file's `name` in that list, when its own is not enough: netboot/netboot.tar.gz")
	f.StringVar(&b.signature, "sums-signature", "", "`file` with the list's detached OpenPGP signature; else an inline one")
	f.StringVar(&b.keyring, "keyring", "", "`file` with the OpenPGP keys that may have signed the list")
	f.StringVar(&b.digest, "sha256", "", "`hex` digest of the image, in place of a list")
	f.StringVar(&b.Name, "name", "", "the bundle's `name`; else distribution and release")
	f.StringVar(&b.Version, "version", "1", "the bundle's `version`")
	f.StringVar(&b.Seed, "seed", "", "seed `template`; else the installer's own")
	f.StringVar(&b.Args, "args", "", "kernel `arguments`")
	f.StringVar(&b.Mirror, "mirror", "", "`URL` of the pinned package mirror")
	f.StringVar(&b.Security, "security", "", "`URL` of its security updates")
	f.StringVar(&b.arch, "arch", "x86_64", "`architecture`, where nothing tells: x86_64 or arm64")
	f.StringVar(&b.Kernel, "kernel", "", "which `file` is the kernel, where nothing tells")
	b.images.registerPair(cmd)
	f.StringVar(&b.Initrd, "initrd", "", "which `file` is the initrd, where nothing tells")
	return cmd
}

// buildFrom makes the directory, and its manifest if nothing is missing for one.
func (a *app) buildFrom(ctx context.Context, b *buildFlags) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := b.read(a); err != nil {
		return err
	}
	r, err := source.Build(ctx, b.Request)
	if err != nil {
		return err
	}
	if len(r.Problems) > 0 { // signed and imported, it would use up its version
		return a.show(r, func(w io.Writer) {
			builtText(w, r)
			fmt.Fprintf(w, "there is no %s yet: complete %s, then `bootlane bundle build %s`\n", bundle.CanonicalName, filepath.Join(b.Dir, bundle.ManifestName), b.Dir)
		})
	}
	f, err := bundle.Build(ctx, b.Dir)
	if err != nil {
		return err
	}
	return a.show(r, func(w io.Writer) {
		builtText(w, r)
		builtManifest(w, f)
	})
}

func builtManifest(w io.Writer, f bundle.Folder) {
	fmt.Fprintf(w, "%s names %d files, %s, of %s: %s\n", filepath.Join(f.Dir, bundle.CanonicalName), len(f.Bundle.Files), size(total(f.Bundle)), f.Bundle.Ref(), f.Bundle.Digest)
}

// read reads the files that the flags name.
func (b *buildFlags) read(a *app) (err error) {
	if b.sums != "" && b.digest != "" || b.sums == "" && b.signature+b.keyring+b.SumsName != "" {
		return usageError{fmt.Errorf("--sums-signature, --sums-name and --keyring belong to --sums, and --sha256 takes its place")}
	}
	if b.signature != "" && b.keyring == "" {
		return usageError{fmt.Errorf("--sums-signature needs --keyring: whose signature is it to be?")}
	}
	if b.Arch, err = lane.ParseArch(b.arch); err != nil {
		return usageError{fmt.Errorf("--arch: %w", err)}
	}
	for _, f := range []struct {
		path string
		into *[]byte
	}{{b.sums, &b.Sums}, {b.signature, &b.Signature}, {b.keyring, &b.Keys}} {
		if f.path == "" {
			continue
		}
		if *f.into, err = os.ReadFile(f.path); err != nil {
			return err
		}
	}
	if b.digest != "" {
		if b.Digest, err = lane.ParseDigest("sha256:" + b.digest); err != nil {
			return usageError{fmt.Errorf("--sha256: %w", err)}
		}
	}
	b.Now, b.Client, b.Tell = a.Now(), &http.Client{}, tenths(a.Stderr)
	return nil
}

// tenths tells of each tenth of what is large.
func tenths(w io.Writer) source.Progress {
	const large = 100 << 20
	last := map[string]int64{}
	return func(name string, done, total int64) {
		if total < large {
			return
		}
		if n := done * 10 / total; n > last[name] {
			last[name] = n
			fmt.Fprintf(w, "%s: %d0 %% of %s\n", lane.Clean(name, 200), n, size(total))
		}
	}
}

func builtText(w io.Writer, r source.Result) {
	fmt.Fprintf(w, "%s: %s\nchecked against %s\n", r.Dir, orDash(r.Title), r.Checked)
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	for _, f := range r.Files {
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", f.Name, size(f.Size), f.Digest, lane.Clean(f.From, 200))
	}
	_ = t.Flush() // writes to the terminal; its error shows there
	for _, p := range r.Problems {
		fmt.Fprintf(w, "missing: %s\n", p)
	}
}
