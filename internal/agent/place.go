package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"bootlane/internal/lane"
)

// placeFiles puts the order's files into the new root file system. The disk has
// no partition table yet: the root is found by the image's own.
func (a *agent) placeFiles(t Target, table *gpt, order lane.Order) error {
	if len(order.Files) == 0 {
		return nil
	}
	p, err := table.byName(order.Image.RootLabel)
	if err != nil {
		return err
	}
	dir, err := t.Mount(table.span(p))
	if err != nil {
		return fmt.Errorf("mount partition %d (%s): %w", p.number, p.name, err)
	}
	werr := writeFiles(dir, order.Files)
	if err := t.Unmount(); err != nil {
		return errors.Join(werr, fmt.Errorf("unmount the new system: %w", err))
	}
	if werr == nil {
		a.log.Step("placed: %d files in partition %d (%s)", len(order.Files), p.number, p.name)
	}
	return werr
}

// writeFiles puts files below dir. No path and no symbolic link that is already
// there leads out of dir; what exists under a file's own name is replaced.
func writeFiles(dir string, files []lane.File) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open the new root: %w", err)
	}
	defer func() { _ = root.Close() }()
	for _, f := range files {
		if err := writeFile(root, f); err != nil {
			return fmt.Errorf("place %s: %w", f.Path, err)
		}
	}
	return nil
}

func writeFile(root *os.Root, f lane.File) error {
	name, err := cleanFile(f)
	if err != nil {
		return err
	}
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// Not following: the image may have a link here, to be replaced and not written through.
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if f.Link != "" {
		return root.Symlink(f.Link, name)
	}
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(f.Content)
	// Chmod: the mode given to open passes through the umask.
	err = errors.Join(err, file.Chmod(fs.FileMode(f.Mode)), file.Sync())
	return errors.Join(err, file.Close())
}
