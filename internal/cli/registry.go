package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"bootlane/internal/bundle"
	"bootlane/internal/lane"
	"bootlane/internal/registry"
)

const registryLong = `

REFERENCE is HOST[:PORT]/REPOSITORY:TAG, or @sha256:DIGEST in place of the tag, which pins
the very bytes. Credentials are those of docker login. What the registry, or this directory,
has already is not sent again: a broken transfer goes on where it was.`

// registryFlags say how a registry is reached.
type registryFlags struct {
	ca    string
	plain bool
}

func (f *registryFlags) add(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&f.ca, "ca", "", "`file` with the certificate of the registry's authority, PEM")
	cmd.Flags().BoolVar(&f.plain, "plain-http", false, "speak HTTP without TLS")
	return cmd
}

func (f *registryFlags) open(a *app, reference string) (*registry.Repository, error) {
	o := registry.Options{PlainHTTP: f.plain, Tell: registry.Progress(tenths(a.Stderr))}
	if f.ca != "" {
		var err error
		if o.CA, err = os.ReadFile(f.ca); err != nil {
			return nil, fmt.Errorf("read --ca: %w", err)
		}
	}
	return registry.Open(reference, o)
}

// pushed is the answer of push and pull.
type pushed struct {
	Bundle   string      `json:"bundle"`
	Digest   lane.Digest `json:"digest"`   // of the bundle's manifest
	Artifact lane.Digest `json:"artifact"` // pins it in the registry
}

func (a *app) bundlePushCmd() *cobra.Command {
	var f registryFlags
	return f.add(&cobra.Command{Use: "push DIR REFERENCE", Short: "copy a bundle, with its signatures, to an OCI registry",
		Long: "Copy the bundle in a directory, with its signatures, to an OCI registry. It is verified first." + registryLong, Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, argv []string) (err error) {
			dir, err := filepath.Abs(argv[0])
			if err != nil {
				return fmt.Errorf("find the bundle's directory: %w", err)
			}
			folder, err := bundle.Open(dir)
			if err != nil {
				return err
			}
			if err := folder.Verify(cmd.Context()); err != nil {
				return err
			}
			repo, err := f.open(a, argv[1])
			if err != nil {
				return err
			}
			tmp, err := os.MkdirTemp(filepath.Dir(dir), ".push-*") // beside it, so that files can be linked
			if err != nil {
				return fmt.Errorf("make a place for the artifact: %w", err)
			}
			defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
			artifact, err := folder.Export(tmp)
			if err != nil {
				return err
			}
			layout, err := registry.NewLayout(tmp)
			if err != nil {
				return err
			}
			if err := repo.Push(cmd.Context(), layout, artifact); err != nil {
				return err
			}
			return a.show(pushed{folder.Bundle.Ref(), folder.Bundle.Digest, artifact}, func(w io.Writer) {
				fmt.Fprintf(w, "%s is in the registry as %s\nthe artifact is %s: a reference with it names these bytes for ever\n", folder.Bundle.Ref(), argv[1], artifact)
			})
		}})
}

func (a *app) bundlePullCmd() *cobra.Command {
	var f registryFlags
	return f.add(&cobra.Command{Use: "pull REFERENCE DIR", Short: "copy a bundle, with its signatures, from an OCI registry",
		Long: "Copy a bundle, with its signatures, from an OCI registry to a new directory, for `bundle verify` and\n`bundle import`. Every byte is compared with its digest; what is not whole is not left there." + registryLong, Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			dir, err := filepath.Abs(argv[1])
			if err != nil {
				return fmt.Errorf("find the directory: %w", err)
			}
			if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
				return lane.Errorf(lane.Refused, "%s is not empty: name a new directory", argv[1])
			}
			repo, err := f.open(a, argv[0])
			if err != nil {
				return err
			}
			parts := dir + ".pull" // stays when the transfer breaks off, to go on
			layout, err := registry.NewLayout(parts)
			if err != nil {
				return err
			}
			artifact, err := repo.Pull(cmd.Context(), bundle.ArtifactType, layout)
			if lane.CodeOf(err) == lane.NotFound {
				err = errors.Join(err, os.RemoveAll(parts))
			}
			if err != nil {
				return err
			}
			folder, err := unpacked(cmd.Context(), layout, artifact, dir)
			if err != nil {
				return errors.Join(err, os.RemoveAll(dir), os.RemoveAll(parts))
			}
			if err := os.RemoveAll(parts); err != nil {
				return fmt.Errorf("remove what was needed to go on: %w", err)
			}
			return a.show(pushed{folder.Bundle.Ref(), folder.Bundle.Digest, artifact.Manifest}, func(w io.Writer) {
				fmt.Fprintf(w, "%s is in %s: %s, %d signatures\nthe artifact is %s\nnext: bootlane bundle verify --trust FILE %s\n", folder.Bundle.Ref(), argv[1], folder.Bundle.Digest, len(folder.Signatures), artifact.Manifest, argv[1])
			})
		}})
}

// unpacked puts an artifact's files into a directory, and expects them to be a whole bundle.
func unpacked(ctx context.Context, layout *registry.Layout, artifact registry.Artifact, dir string) (bundle.Folder, error) {
	if err := layout.Unpack(artifact, dir, bundle.CanonicalName); err != nil {
		return bundle.Folder{}, err
	}
	folder, err := bundle.Open(dir)
	if err != nil {
		return folder, err
	}
	if have := lane.Digest(artifact.Config.Digest); have != folder.Bundle.Digest {
		return folder, lane.Errorf(lane.Refused, "the artifact is of the bundle %s, its manifest is %s", have, folder.Bundle.Digest)
	}
	// The artifact's layers are what they say; that they are the manifest's files is another matter.
	return folder, folder.Verify(ctx)
}
