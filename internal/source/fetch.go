package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strings"

	"bootlane/internal/lane"
)

// Progress is told how many bytes of a file are done, and of how many; total is -1 when
// nobody knows.
type Progress func(name string, done, total int64)

// Fetch downloads a URL into a file, which is there only when it has the digest. What came
// of an earlier attempt is kept as FILE.part and continued, where the server can (RFC 9110,
// 14.2), and not a byte of it is trusted: the digest is of all.
func Fetch(ctx context.Context, client *http.Client, url, file string, want lane.Digest, tell Progress) error {
	if have, _, err := hashFile(ctx, file, nil); err == nil && have == want {
		return nil
	}
	part := file + ".part"
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("keep the download: %w", err)
	}
	have, err := fetchInto(ctx, client, url, f, tell)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("fetch %s: %w", url, err)
	}
	if have != want {
		if err := os.Remove(part); err != nil {
			return fmt.Errorf("remove what was fetched: %w", err)
		}
		return lane.Errorf(lane.Refused, "%s is not what was expected: its digest is %s, not %s", url, have, want)
	}
	return os.Rename(part, file)
}

// fetchInto continues a file, and returns the digest of all of it.
func fetchInto(ctx context.Context, client *http.Client, url string, f *os.File, tell Progress) (lane.Digest, error) {
	h := sha256.New()
	done, err := io.Copy(h, f) // and now the file is at its end
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", lane.Errorf(lane.Invalid, "not a URL: %v", err)
	}
	// The digest is of the file's own bytes.
	req.Header.Set("Accept-Encoding", "identity")
	if done > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", done))
	}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }() // read to its end, or given up
	switch {
	case res.StatusCode == http.StatusPartialContent && strings.HasPrefix(res.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", done)):
	case res.StatusCode == http.StatusRequestedRangeNotSatisfiable && done > 0: // all of it is here already
		return digestOf(h), nil
	case res.StatusCode == http.StatusOK:
		h.Reset() // it cannot continue, or the file is new
		done = 0
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return "", err
		}
		if err := f.Truncate(0); err != nil {
			return "", err
		}
	default:
		return "", lane.Errorf(lane.Unavailable, "the server answers %s", lane.Clean(res.Status, 80))
	}
	total := int64(-1)
	if res.ContentLength >= 0 {
		total = done + res.ContentLength
	}
	n, err := io.Copy(io.MultiWriter(f, h), &told{res.Body, url, done, total, tell})
	if err == nil && total >= 0 && done+n != total {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return "", fmt.Errorf("after %d bytes, which are kept: %w", done+n, err)
	}
	return digestOf(h), nil
}

func digestOf(h hash.Hash) lane.Digest {
	return lane.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
}

// told reads, and tells how far it is.
type told struct {
	io.Reader
	name        string
	done, total int64
	tell        Progress
}

// Read is [io.Reader].
func (t *told) Read(b []byte) (int, error) {
	n, err := t.Reader.Read(b)
	if t.done += int64(n); t.tell != nil && n > 0 {
		t.tell(t.name, t.done, t.total)
	}
	return n, err
}

// hashFile returns a file's digest and size.
func hashFile(ctx context.Context, path string, tell Progress) (lane.Digest, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = f.Close() }() // only read from
	s, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	h := sha256.New()
	n, err := io.Copy(h, &told{stopping{ctx, f}, path, 0, s.Size(), tell})
	return digestOf(h), n, err
}

// stopping ends reading when its context does.
type stopping struct {
	context.Context
	r io.Reader
}

// Read is [io.Reader].
func (s stopping) Read(b []byte) (int, error) {
	if err := s.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(b)
}
