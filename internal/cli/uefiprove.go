package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"bootlane/internal/bundle"
	"bootlane/internal/lane"
	"bootlane/internal/uefi"
)

const uefiProveLong = `Prove that a Secure Boot chain holds before a machine tries it. FILEs are in boot
order: first stage, second stage, kernel. The first is checked as firmware does it,
those behind a shim as shim does it: signatures, dbx, SBAT, architecture. One line a
link: proven, and by which certificate, or BROKEN, why, and what mends it. A chain
that is broken is exit code 3. No server is asked.

  bootlane uefi prove --firmware both shimx64.efi grubx64.efi vmlinuz
  bootlane uefi prove --firmware both out/debian-12

A bundle's directory stands for the chains of all its ` + "`loaders`" + ` for UEFI, each with the
kernel of its architecture, and its minimumSBAT counts. What a platform boots for which
it has none is the site's ` + "`loaders`" + `: give those as FILEs, with the bundle's kernel.

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
	cmd := &cobra.Command{Use: "prove --firmware microsoft-2011|microsoft-2023|both|FILE BUNDLE|FILE...", Short: "prove a Secure Boot chain", Long: uefiProveLong, Args: args(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, argv []string) error {
			policy, err := p.policy()
			if err != nil {
				return err
			}
			policy.Now = a.Now()
			if st, err := os.Stat(argv[0]); err == nil && st.IsDir() && len(argv) == 1 {
				return a.proveBundle(policy, argv[0])
			}
			proof, err := prove(policy, nil, argv)
			if err != nil {
				return err
			}
			if err := a.show(proof, proof.Text); err != nil {
				return err
			}
			return broken("", proof)
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

// prove judges the chain of these files; what holds is judged by the least generations as well, if there are any.
func prove(policy uefi.Policy, least *uefi.Level, names []string) (uefi.Proof, error) {
	var files []uefi.File
	for _, n := range names {
		data, err := readImage(n)
		if err != nil {
			return uefi.Proof{}, err
		}
		files = append(files, uefi.File{Name: n, Data: data})
	}
	proof := uefi.Prove(policy, files)
	if proof.Proven && least != nil {
		policy.SBAT = least
		proof = uefi.Prove(policy, files)
	}
	return proof, nil
}

// broken returns the error of a chain that does not hold, or nil.
func broken(platform string, p uefi.Proof) error {
	if p.Proven {
		return nil
	}
	return lane.Errorf(lane.Refused, "the chain is broken: %s%s", platform, p.Why())
}

// platformProof is what is known of a bundle's chain for one platform.
type platformProof struct {
	Platform string `json:"platform"`
	uefi.Proof
}

// proveBundle judges every chain that a bundle's directory brings.
func (a *app) proveBundle(policy uefi.Policy, dir string) error {
	b, err := bundle.ReadManifest(dir)
	if err != nil {
		return err
	}
	var proofs []platformProof
	var bad error
	for _, name := range slices.Sorted(maps.Keys(b.Loaders)) {
		platform, _ := lane.ParsePlatform(name)
		if platform.Firmware != lane.UEFI {
			continue
		}
		chain := []string{b.Loaders[name].First}
		if second := b.Loaders[name].Second; second != "" {
			chain = append(chain, second)
		}
		view, ok := b.For(platform.Arch)
		if ok {
			chain = append(chain, view.Kernel)
		}
		for i := range chain {
			chain[i] = filepath.Join(dir, chain[i])
		}
		proof, err := prove(policy, uefi.Least(b.MinimumSBAT), chain)
		if err != nil {
			return err
		}
		if !ok {
			proof.Unknown = append(proof.Unknown, fmt.Sprintf("the bundle has no kernel for %s: only loaders stand here", platform.Arch))
		}
		proofs, bad = append(proofs, platformProof{name, proof}), errors.Join(bad, broken(name+": ", proof))
	}
	if len(proofs) == 0 {
		return lane.Errorf(lane.NotFound, "%s brings no boot loaders for UEFI, so that its hosts boot the site's: prove those, as FILEs in boot order, with %s", b.Ref(), filepath.Join(dir, b.Views()[0].Kernel))
	}
	if err := a.show(proofs, func(w io.Writer) {
		for _, p := range proofs {
			fmt.Fprintf(w, "%s of %s\n\n", p.Platform, b.Ref())
			p.Text(w)
			fmt.Fprintln(w)
		}
	}); err != nil {
		return err
	}
	return bad
}
