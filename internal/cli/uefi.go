package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

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

const uefiProveLong = `Prove that a Secure Boot chain holds before a machine tries it. FILEs are in boot
order: first stage, second stage, kernel. The first is checked as firmware does it,
those behind a shim as shim does it: signatures, dbx, SBAT, architecture. One line a
link: proven, and by which certificate, or BROKEN, why, and what mends it. A chain
that is broken is exit code 3. No server is asked.

  bootlane uefi prove --firmware both shimx64.efi grubx64.efi vmlinuz

--firmware says what the machines' firmware trusts: Microsoft's CA for other people's
boot loaders of 2011, of 2023, or both of them; or a FILE with its db: certificates, a
signature list, or a variable store of OVMF. Dates decide nothing, as in firmware: an
expired certificate is a warning.`

type proveFlags struct {
	firmware, level string
	db, dbx, mok    []string
}

func (a *app) uefiProveCmd() *cobra.Command {
	var p proveFlags
	cmd := &cobra.Command{Use: "prove --firmware microsoft-2011|microsoft-2023|both|FILE FILE...", Short: "prove a Secure Boot chain", Long: uefiProveLong, Args: args(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, argv []string) error {
			policy, err := p.policy()
			if err != nil {
				return err
			}
			policy.Now = a.Now()
			var files []uefi.File
			for _, n := range argv {
				data, err := readImage(n)
				if err != nil {
					return err
				}
				files = append(files, uefi.File{Name: n, Data: data})
			}
			proof := uefi.Prove(policy, files)
			if err := a.show(proof, proof.Text); err != nil {
				return err
			}
			if !proof.Proven {
				return lane.Errorf(lane.Refused, "the chain is broken: %s", proof.Why())
			}
			return nil
		}}
	f := cmd.Flags()
	f.StringVar(&p.firmware, "firmware", "", "whom the firmware trusts: `microsoft-2011`, microsoft-2023, both, or a file")
	f.StringVar(&p.level, "sbat-level", "", "`file` with the SBAT level (CSV, or the variable SbatLevelRT); else that of the chain's shim")
	f.StringArrayVar(&p.db, "db", nil, "`file` with what the firmware trusts besides: certificates or signature lists")
	f.StringArrayVar(&p.dbx, "dbx", nil, "`file` with what the firmware forbids")
	f.StringArrayVar(&p.mok, "mok", nil, "`file` with certificates that are enrolled in shim's MOK list")
	return cmd
}

// policy reads the files that the flags name.
func (p proveFlags) policy() (out uefi.Policy, err error) {
	if p.firmware == "" {
		return out, usageError{fmt.Errorf("--firmware is missing: say whom the machines' firmware trusts, microsoft-2011, microsoft-2023, both, or a file with its db")}
	}
	var ok bool
	if out.Firmware, ok, err = uefi.BuiltIn(p.firmware); err != nil {
		return out, err
	}
	if !ok {
		data, err := readImage(p.firmware)
		if os.IsNotExist(err) && !strings.ContainsAny(p.firmware, "./") {
			return out, usageError{fmt.Errorf("--firmware %q: use microsoft-2011, microsoft-2023, both, or the name of a file", p.firmware)}
		} else if err != nil {
			return out, err
		}
		if out.Firmware, err = uefi.ParseFirmware(p.firmware, data); err != nil {
			return out, fmt.Errorf("%s: %w", p.firmware, err)
		}
	}
	for _, into := range []struct {
		files []string
		d     *uefi.Database
	}{{p.db, &out.Firmware.DB}, {p.dbx, &out.Firmware.DBX}, {p.mok, &out.MOK}} {
		for _, n := range into.files {
			data, err := readImage(n)
			if err != nil {
				return out, err
			}
			d, err := uefi.ParseDatabase(data)
			if err != nil {
				return out, fmt.Errorf("%s: %w", n, err)
			}
			*into.d = into.d.Join(d)
		}
	}
	if p.level == "" {
		return out, nil
	}
	data, err := readImage(p.level)
	if err != nil {
		return out, err
	}
	level, err := uefi.ParseLevel(data)
	if err != nil {
		return out, fmt.Errorf("%s: %w", p.level, err)
	}
	out.SBAT = &level
	return out, nil
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
