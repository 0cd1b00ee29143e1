package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"bootlane/internal/bundle"
)

const initramfsLong = `Pack bootlane-agent and the modules of a kernel into the initramfs of an image
bundle. The same input gives the same bytes.

  bootlane bundle initramfs --agent bin/bootlane-agent --modules /lib/modules/6.1.0-40-amd64 --out initrd.zst

Some NICs and controllers do nothing without firmware that their driver loads from
/lib/firmware (bnx2, bnx2x, qed, ...): --firmware packs a directory of it.`

func (a *app) bundleInitramfsCmd() *cobra.Command {
	var agent, modules, firmware, out string
	cmd := &cobra.Command{Use: "initramfs", Short: "pack bootlane-agent and kernel modules into an initramfs", Long: initramfsLong, Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if agent == "" || modules == "" || out == "" {
				return usageError{errors.New("give --agent, --modules and --out")}
			}
			files, err := firmwareIn(firmware)
			if err != nil {
				return err
			}
			n, err := packInitramfs(bundle.InitramfsConfig{Agent: agent, ModulesDir: modules, ExtraFiles: files}, out)
			if err != nil {
				return err
			}
			return a.show(map[string]any{"file": out, "bytes": n}, func(w io.Writer) { fmt.Fprintf(w, "%s: %s\n", out, size(n)) })
		}}
	cmd.Flags().StringVar(&agent, "agent", "", "static bootlane-agent `binary`")
	cmd.Flags().StringVar(&modules, "modules", "", "`directory` of the kernel's modules: /lib/modules/VERSION")
	cmd.Flags().StringVar(&firmware, "firmware", "", "`directory` whose files are packed into /lib/firmware")
	cmd.Flags().StringVar(&out, "out", "", "`file` to write")
	return cmd
}

// firmwareIn lists the files below a directory by their path in the initramfs. A link counts
// as what it points at, and as nothing where that is not there: packages of firmware have
// links into one another. One that points at a directory within is refused, for it would
// have to be followed.
func firmwareIn(dir string) (map[string]string, error) {
	if dir == "" {
		return nil, nil
	}
	out := map[string]string{}
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("read --firmware: %w", err)
	}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Stat(path)
		if err == nil && st.IsDir() && !entry.IsDir() {
			return fmt.Errorf("%s is a link to a directory: give a copy without links, `cp -rL`", path)
		}
		if err != nil || !st.Mode().IsRegular() {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		out["lib/firmware/"+filepath.ToSlash(rel)] = path
		return err
	})
	if err == nil && len(out) == 0 {
		err = errors.New("it holds no file: give a directory that is like /lib/firmware")
	}
	if err != nil {
		return nil, fmt.Errorf("read --firmware %s: %w", dir, err)
	}
	return out, nil
}

func packInitramfs(cfg bundle.InitramfsConfig, out string) (int64, error) {
	tmp, err := os.CreateTemp(filepath.Dir(out), ".initramfs-*")
	if err != nil {
		return 0, fmt.Errorf("create the initramfs: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already when it was renamed
	err = bundle.PackInitramfs(tmp, cfg)
	n, seekErr := tmp.Seek(0, io.SeekCurrent)
	if err = errors.Join(err, seekErr, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return 0, err
	}
	return n, os.Rename(tmp.Name(), out)
}
