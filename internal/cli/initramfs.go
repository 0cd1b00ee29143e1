package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"bootlane/internal/bundle"
)

const initramfsLong = `Pack bootlane-agent and the modules of a kernel into the initramfs of an image
bundle. The same input gives the same bytes.

  bootlane bundle initramfs --agent bin/bootlane-agent --modules /lib/modules/6.1.0-40-amd64 --out initrd.zst`

func (a *app) bundleInitramfsCmd() *cobra.Command {
	var agent, modules, out string
	cmd := &cobra.Command{Use: "initramfs", Short: "pack bootlane-agent and kernel modules into an initramfs", Long: initramfsLong, Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if agent == "" || modules == "" || out == "" {
				return usageError{errors.New("give --agent, --modules and --out")}
			}
			n, err := packInitramfs(agent, modules, out)
			if err != nil {
				return err
			}
			return a.show(map[string]any{"file": out, "bytes": n}, func(w io.Writer) { fmt.Fprintf(w, "%s: %s\n", out, size(n)) })
		}}
	cmd.Flags().StringVar(&agent, "agent", "", "static bootlane-agent `binary`")
	cmd.Flags().StringVar(&modules, "modules", "", "`directory` of the kernel's modules: /lib/modules/VERSION")
	cmd.Flags().StringVar(&out, "out", "", "`file` to write")
	return cmd
}

func packInitramfs(agent, modules, out string) (int64, error) {
	tmp, err := os.CreateTemp(filepath.Dir(out), ".initramfs-*")
	if err != nil {
		return 0, fmt.Errorf("create the initramfs: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already when it was renamed
	err = bundle.PackInitramfs(tmp, bundle.InitramfsConfig{Agent: agent, ModulesDir: modules})
	n, seekErr := tmp.Seek(0, io.SeekCurrent)
	if err = errors.Join(err, seekErr, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return 0, err
	}
	return n, os.Rename(tmp.Name(), out)
}
