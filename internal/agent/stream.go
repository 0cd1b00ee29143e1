package agent

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"time"

	"bootlane/internal/lane"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// A zstd frame states how much memory its reader needs; more than this is an
// attack or a mistake, not a disk image (zstd --ultra --long=27 needs 128 MiB).
const zstdWindow = 128 << 20

// stream reads the bytes of an image from the server exactly once each, however
// often the connection or the server dies on the way.
type stream struct {
	ctx    context.Context
	c      *client
	url    string
	image  lane.Image
	off    int64
	body   io.ReadCloser
	etag   string
	failed error

	tries int       // since a byte last arrived
	moved time.Time // when a byte last arrived
}

func (c *client) openStream(ctx context.Context, img lane.Image) (*stream, error) {
	u, err := imageURL(c.base, img.Path)
	if err != nil {
		return nil, err
	}
	return &stream{ctx: ctx, c: c, url: u, image: img, moved: c.now()}, nil
}

// Read fails for good when the server refuses, sends other than was ordered, or
// no byte arrived for [serverPatient].
func (s *stream) Read(p []byte) (int, error) {
	for {
		if s.failed != nil {
			return 0, s.failed
		}
		if s.off == s.image.SizeBytes {
			return 0, s.end()
		}
		n, err := s.readOnce(p)
		if n > 0 {
			s.tries, s.moved = 0, s.c.now()
			return n, nil
		}
		if err != nil {
			s.failed = s.again(err)
		}
	}
}

// readOnce reads from the open connection, or opens one.
func (s *stream) readOnce(p []byte) (int, error) {
	if s.body == nil {
		if err := s.open(); err != nil {
			return 0, err
		}
	}
	n, err := s.body.Read(p[:min(int64(len(p)), s.image.SizeBytes-s.off)])
	s.off += int64(n)
	if err != nil && s.off < s.image.SizeBytes {
		s.close()
		return n, fmt.Errorf("the stream broke at byte %d of %d: %w", s.off, s.image.SizeBytes, err)
	}
	return n, nil
}

// again waits before the next try, or returns why there is none.
func (s *stream) again(err error) error {
	s.close()
	var no *refusal
	if errors.As(err, &no) || s.ctx.Err() != nil {
		return err
	}
	wait := min(firstBackoff<<min(s.tries, 6), lastBackoff)
	s.tries++
	if s.c.now().Add(wait).Sub(s.moved) > serverPatient {
		return fmt.Errorf("image: gave up after %d tries: %w", s.tries, err)
	}
	s.c.log.Step("image: try %d: %v; going on from byte %d in %s", s.tries, err, s.off, wait)
	if serr := s.c.sleep(s.ctx, wait); serr != nil {
		return err
	}
	return nil
}

func (s *stream) open() error {
	req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return err
	}
	if s.off > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", s.off))
		if s.etag != "" {
			// Another file under the same name: the server sends it whole, with
			// 200, and skipping its head shows in the digest at the end.
			req.Header.Set("If-Range", s.etag)
		}
	}
	resp, err := s.c.do(req)
	if err != nil {
		return err
	}
	if err := s.accept(resp); err != nil {
		_ = resp.Body.Close()
		return err
	}
	s.body = resp.Body
	return nil
}

// accept checks that the answer continues the stream where it stopped.
func (s *stream) accept(resp *http.Response) error {
	if err := checkStatus(resp, http.StatusOK, http.StatusPartialContent); err != nil {
		return err
	}
	if s.etag == "" {
		if tag := resp.Header.Get("ETag"); tag != "" && tag[0] == '"' { // If-Range takes strong tags only
			s.etag = tag
		}
	}
	if resp.StatusCode == http.StatusPartialContent {
		want := fmt.Sprintf("bytes %d-%d/%d", s.off, s.image.SizeBytes-1, s.image.SizeBytes)
		if got := resp.Header.Get("Content-Range"); s.off == 0 || got != want {
			return &refusal{resp.StatusCode, fmt.Sprintf("range %q instead of %q", got, want)}
		}
		return nil
	}
	if resp.ContentLength >= 0 && resp.ContentLength != s.image.SizeBytes {
		return &refusal{resp.StatusCode, fmt.Sprintf("an image of %d bytes where the order says %d", resp.ContentLength, s.image.SizeBytes)}
	}
	if _, err := io.CopyN(io.Discard, resp.Body, s.off); err != nil {
		return fmt.Errorf("skip to byte %d: %w", s.off, err)
	}
	return nil
}

// end returns io.EOF when the server has nothing more to send than was ordered.
func (s *stream) end() error {
	if s.body == nil {
		return io.EOF
	}
	var one [1]byte
	if n, _ := io.ReadFull(s.body, one[:]); n != 0 {
		s.failed = &refusal{http.StatusOK, fmt.Sprintf("more than the %d bytes that the order says", s.image.SizeBytes)}
		s.close()
		return s.failed
	}
	s.close()
	return io.EOF
}

func (s *stream) close() {
	if s.body != nil {
		_ = s.body.Close()
		s.body = nil
	}
}

func digestOf(h hash.Hash) lane.Digest {
	return lane.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
}

// decompress returns the raw bytes of wire.
func decompress(wire io.Reader, compression string) (io.ReadCloser, error) {
	switch compression {
	case lane.CompressionNone:
		if a, ok := wire.(*ahead); ok {
			return whole{a}, nil
		}
		return io.NopCloser(wire), nil
	case lane.CompressionGzip:
		d, err := gzip.NewReader(wire)
		if err != nil {
			return nil, fmt.Errorf("start gzip: %w", err)
		}
		return d, nil
	case lane.CompressionXZ:
		buffered := bufio.NewReaderSize(wire, 1<<20) // it reads byte by byte
		if n := xzDictionary(buffered); n > zstdWindow {
			return nil, fmt.Errorf("start xz: unpacking takes %d bytes of memory, %d are the limit: pack the image with xz -9 or less", n, zstdWindow)
		}
		d, err := xz.NewReader(buffered)
		if err != nil {
			return nil, fmt.Errorf("start xz: %w", err)
		}
		return io.NopCloser(d), nil
	}
	d, err := zstd.NewReader(wire, zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderMaxMemory(4*zstdWindow))
	if err != nil {
		return nil, fmt.Errorf("start zstd: %w", err)
	}
	return d.IOReadCloser(), nil
}

// xzDictionary returns how much memory the first block of an xz file says that its reader needs; 0
// where it says nothing that is understood: then the reader says why. The .xz format, 1.2.1, 3.1 and 5.3.1.
func xzDictionary(r *bufio.Reader) int64 {
	const stream, lzma2 = 12, 0x21
	b, err := r.Peek(stream + 1)
	if err != nil {
		return 0
	}
	if b, err = r.Peek(stream + (int(b[stream])+1)*4); err != nil || len(b) < stream+8 {
		return 0
	}
	flags, rest := b[stream+1], b[stream+2:]
	number := func() (v uint64) {
		v, n := binary.Uvarint(rest)
		rest = rest[max(0, n):]
		return v
	}
	for _, size := range []byte{0x40, 0x80} { // packed and unpacked
		if flags&size != 0 {
			number()
		}
	}
	if id, n := number(), number(); id != lzma2 || n != 1 || len(rest) == 0 || rest[0] > 40 {
		return 0
	}
	if rest[0] == 40 {
		return 1<<32 - 1
	}
	return int64(2|rest[0]&1) << (rest[0]/2 + 11)
}
