package agent

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"

	"bootlane/internal/lane"
)

// labels are the GPT names of the partitions that an order speaks of, the root first.
func labels(order lane.Order) []string {
	out := []string{order.Image.RootLabel}
	for _, f := range order.Files {
		if f.PartLabel != "" && !slices.Contains(out, f.PartLabel) {
			out = append(out, f.PartLabel)
		}
	}
	return out
}

// placeFiles puts the order's files into the file systems of the new system. The disk has
// no partition table yet: they are found by the image's own. One for which there is no file is
// not mounted: it may be of a kind that we cannot read.
func (a *agent) placeFiles(t Target, table *gpt, order lane.Order) error {
	for _, label := range labels(order) {
		var own []lane.File
		for _, f := range order.Files {
			if cmp.Or(f.PartLabel, order.Image.RootLabel) == label {
				own = append(own, f)
			}
		}
		if len(own) == 0 {
			continue
		}
		if err := a.placeIn(t, table, label, own); err != nil {
			return err
		}
	}
	return nil
}

func (a *agent) placeIn(t Target, table *gpt, label string, files []lane.File) error {
	p, err := table.byName(label)
	if err != nil {
		return err
	}
	dir, err := t.Mount(table.span(p))
	if err != nil {
		return fmt.Errorf("mount partition %d (%s): %w", p.number, p.name, err)
	}
	werr := writeFiles(dir, files)
	if err := t.Unmount(); err != nil {
		return errors.Join(werr, fmt.Errorf("unmount the new system: %w", err))
	}
	if werr == nil {
		a.log.Step("placed: %d files in partition %d (%s)", len(files), p.number, p.name)
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
