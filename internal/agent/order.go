package agent

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"bootlane/internal/lane"
)

func isDigest(d lane.Digest) bool {
	_, err := lane.ParseDigest(string(d))
	return err == nil
}

// checkOrder returns why an install order cannot be carried out as it is
// written. The server has checked all of it before; the agent holds the knife.
func checkOrder(o lane.Order) error {
	img := o.Image
	switch {
	case img == nil:
		return fmt.Errorf("it names no image")
	case !isDigest(img.Digest):
		return fmt.Errorf("the image's digest %q is not sha256", img.Digest)
	case !isDigest(img.RawDigest):
		return fmt.Errorf("the image's raw digest %q is not sha256", img.RawDigest)
	case img.SizeBytes <= 0:
		return fmt.Errorf("the image's size is %d", img.SizeBytes)
	case img.RawBytes < minImage:
		return fmt.Errorf("the image's raw size %d is below %d: no disk image is so small", img.RawBytes, minImage)
	case img.RawBytes%512 != 0:
		return fmt.Errorf("the image's raw size %d is not a whole number of sectors", img.RawBytes)
	case !slices.Contains(lane.Compressions(), img.Compression):
		return fmt.Errorf("the image's compression is %q, known are %s", img.Compression, strings.Join(lane.Compressions(), ", "))
	case img.Compression == lane.CompressionNone && (img.Digest != img.RawDigest || img.SizeBytes != img.RawBytes):
		return fmt.Errorf("the image is not compressed, yet its raw digest or size differ from those of the wire")
	case img.RootLabel == "":
		return fmt.Errorf("the image names no root partition")
	case !o.Disk.Selects():
		return fmt.Errorf("it names no disk by id, path, wwn, serial or name")
	}
	if _, err := imageURL(&url.URL{Scheme: "http", Host: "server"}, img.Path); err != nil {
		return err
	}
	if problems := o.Disk.Validate(); len(problems) > 0 {
		return fmt.Errorf("%s", strings.Join(problems, "; "))
	}
	for _, s := range o.Wipe {
		if problems := s.Validate(); !s.Selects() || len(problems) > 0 {
			return fmt.Errorf("a disk to clear is selected by %s: %s", s, strings.Join(problems, "; "))
		}
	}
	if o.Encryption != nil {
		if problems := o.Encryption.Validate(); len(problems) > 0 {
			return fmt.Errorf("the disk is to be encrypted: %s", strings.Join(problems, "; "))
		}
	}
	for _, f := range o.Files {
		if _, err := cleanFile(f); err != nil {
			return err
		}
	}
	return nil
}

// imageURL joins the image's path to the server the order came from. A path
// that leads to another server is refused.
func imageURL(base *url.URL, p string) (string, error) {
	u, err := url.Parse(p)
	if err != nil || !strings.HasPrefix(p, "/") || u.Host != "" || u.Scheme != "" || u.User != nil || u.Fragment != "" {
		return "", fmt.Errorf("the image's path %q is not an absolute path on the server", p)
	}
	u.Scheme, u.Host = base.Scheme, base.Host
	return u.String(), nil
}

// cleanFile returns the file's path relative to the new root.
func cleanFile(f lane.File) (string, error) {
	p := path.Clean(f.Path)
	switch {
	case !path.IsAbs(f.Path) || p == "/" || strings.HasSuffix(f.Path, "/") || strings.ContainsRune(f.Path, 0):
		return "", fmt.Errorf("the path %q is not that of a file in the new system", f.Path)
	case p != f.Path:
		return "", fmt.Errorf("the path %q is not in its shortest form", f.Path)
	case f.Mode > 0o777:
		return "", fmt.Errorf("the mode %o of %s has more than permission bits", f.Mode, f.Path)
	case f.Link != "" && f.Content != "":
		return "", fmt.Errorf("%s is both a link and a file", f.Path)
	case strings.ContainsRune(f.Link, 0):
		return "", fmt.Errorf("the link %s has a NUL in its target", f.Path)
	}
	return strings.TrimPrefix(p, "/"), nil
}
