package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"bootlane/internal/bundle"
	"bootlane/internal/lane"
	"bootlane/internal/registry"
)

const bundlePushLong = `Push a bundle's directory to an OCI registry, its signatures with it. REF is
HOST[:PORT]/REPOSITORY:TAG. Every file is compared with the manifest first; what the
registry has is skipped. Printed is the reference by digest, which never means anything
else: pull by that. No server of Bootlane's is asked.

Credentials are docker's: ` + "`docker login`" + `, or $DOCKER_CONFIG/config.json.`

const bundlePullLong = `Pull a bundle from an OCI registry into DIR, which must not be there yet. REF is
HOST[:PORT]/REPOSITORY:TAG, or better @sha256:HEX. The registry is not believed: every
byte is compared with its digest, and DIR appears when the bundle is whole. What broke
off stays in DIR.pull, and is continued by the next call. Whether its signatures count
is told by ` + "`bundle verify DIR --trust FILE`" + `, and by the server at the import.

Credentials are docker's: ` + "`docker login`" + `, or $DOCKER_CONFIG/config.json.`

// registryFlags say how a registry is reached.
type registryFlags struct {
	ca    string
	plain bool
}

func (r *registryFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&r.ca, "ca", "", "`file` with certificates (PEM) to trust besides the system's")
	cmd.Flags().BoolVar(&r.plain, "plain-http", false, "no TLS: anybody on the way can read, and send other bundles than you meant")
}

func (r registryFlags) open(a *app, ref string) (*registry.Repository, error) {
	o := registry.Options{PlainHTTP: r.plain, Tell: registry.Progress(tenths(a.Stderr))}
	if r.ca != "" {
		var err error
		if o.CA, err = os.ReadFile(r.ca); err != nil {
			return nil, err
		}
	}
	return registry.Open(ref, o)
}

func (a *app) bundlePushCmd() *cobra.Command {
	var r registryFlags
	cmd := &cobra.Command{Use: "push REF DIR", Short: "push a bundle's directory to an OCI registry", Long: bundlePushLong, Args: args(cobra.ExactArgs(2)), RunE: func(cmd *cobra.Command, argv []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		repo, err := r.open(a, argv[0])
		if err != nil {
			return err
		}
		f, err := bundle.Open(argv[1])
		if err != nil {
			return err
		}
		if err := f.Verify(ctx); err != nil {
			return err
		}
		manifest, open, err := f.Artifact()
		if err != nil {
			return err
		}
		d, err := repo.Push(ctx, manifest, open)
		if err != nil {
			return err
		}
		return a.showPinned(f, repo.Pinned(d), "pushed")
	}}
	r.register(cmd)
	return cmd
}

func (a *app) bundlePullCmd() *cobra.Command {
	var r registryFlags
	cmd := &cobra.Command{Use: "pull REF DIR", Short: "pull a bundle from an OCI registry into a directory", Long: bundlePullLong, Args: args(cobra.ExactArgs(2)), RunE: func(cmd *cobra.Command, argv []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		repo, err := r.open(a, argv[0])
		if err != nil {
			return err
		}
		return a.pull(ctx, repo, filepath.Clean(argv[1]))
	}}
	r.register(cmd)
	return cmd
}

// pull brings a bundle into dir, in one step at the end.
func (a *app) pull(ctx context.Context, repo *registry.Repository, dir string) error {
	if _, err := os.Lstat(dir); err == nil {
		return lane.Errorf(lane.Conflict, "%s is there already: name another directory", dir)
	}
	staging := dir + ".pull"
	layout, err := registry.NewLayout(staging)
	if err != nil {
		return err
	}
	artifact, err := repo.Pull(ctx, bundle.ArtifactType, layout)
	if err != nil {
		return err
	}
	whole := filepath.Join(staging, "bundle")
	if err := os.RemoveAll(whole); err != nil { // of an attempt that was killed
		return err
	}
	if err := layout.Unpack(artifact, whole, bundle.CanonicalName); err != nil {
		return err
	}
	f, err := bundle.Open(whole)
	if err == nil {
		err = f.Verify(ctx)
	}
	if err != nil {
		return fmt.Errorf("what came is no bundle: %w", errors.Join(err, os.RemoveAll(staging)))
	}
	if err := os.Rename(whole, dir); err != nil {
		return err
	}
	if err := os.RemoveAll(staging); err != nil {
		return err
	}
	f.Dir = dir
	return a.showPinned(f, repo.Pinned(artifact.Manifest), "pulled")
}

func (a *app) showPinned(f bundle.Folder, ref, done string) error {
	out := map[string]string{"dir": f.Dir, "bundle": f.Bundle.Ref(), "digest": string(f.Bundle.Digest), "reference": ref}
	return a.show(out, func(w io.Writer) {
		fmt.Fprintf(w, "%s is %s, with %s\n", f.Bundle.Ref(), done, counted(len(f.Signatures), "signature"))
		fmt.Fprintf(w, "bundle digest  %s\npull by        %s\n", f.Bundle.Digest, ref)
	})
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
