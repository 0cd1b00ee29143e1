package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"bootlane/internal/lane"
	"bootlane/internal/uefi"
)

func (a *app) uefiCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "uefi", Short: "Secure Boot: inspect images, prove a chain, own keys", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(a.uefiInspectCmd(), a.uefiProveCmd(), a.uefiKeygenCmd(), a.uefiSignCmd(), a.uefiEnrollCmd())
	return cmd
}

const uefiInspectLong = `Show what a UEFI image (boot loader, kernel) says of itself: machine, Authenticode
digest, each signature and who made it, SBAT, and what a shim carries: its vendor's
certificate and dbx, and the SBAT levels that it sets. Whether a machine would start
it is told by ` + "`bootlane uefi prove`" + `. No server is asked.`

func (a *app) uefiInspectCmd() *cobra.Command {
	return &cobra.Command{Use: "inspect FILE", Short: "show what a UEFI image says of itself", Long: uefiInspectLong, Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, argv []string) error {
			data, err := readImage(argv[0])
			if err != nil {
				return err
			}
			r, err := uefi.Inspect(uefi.File{Name: argv[0], Data: data}, a.Now())
			if err != nil {
				return fmt.Errorf("%s: %w", argv[0], err)
			}
			return a.show(r, r.Text)
		}}
}

// maxImage is how much of a file is read: kernels with an initrd in them (UKI) have some 100 MB.
const maxImage = 1 << 30

func readImage(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	data, err := io.ReadAll(io.LimitReader(f, maxImage+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxImage {
		return nil, lane.Errorf(lane.Invalid, "%s is larger than %s: that is no boot loader or kernel", name, size(maxImage))
	}
	return data, nil
}
