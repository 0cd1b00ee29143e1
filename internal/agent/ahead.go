package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"bootlane/internal/lane"
)

const (
	aheadBytes   = chunk // of one buffer: what a disk is given at once
	aheadBuffers = 4
)

// ahead reads an image from the server before it is needed, and hashes it: while one buffer is received another is
// hashed, and a third unpacked. Each of them alone keeps a processor busy at the rate of a fast link.
type ahead struct {
	wire   *stream
	cancel context.CancelFunc
	hash   hash.Hash
	free   chan []byte
	hashed chan received
	quit   chan struct{}
	run    sync.WaitGroup

	now    received // what Read has begun to give
	rest   []byte   // of it
	taken  int64
	failed error
}

// received is a part of the image, and why there is no more behind it.
type received struct {
	data []byte
	err  error
}

// whole is an image that nothing unpacks.
type whole struct{ *ahead }

// Close leaves the wire to whoever opened it.
func (whole) Close() error { return nil }

// openAhead begins to read an image. Close ends it.
func (c *client) openAhead(ctx context.Context, img lane.Image) (*ahead, error) {
	ctx, cancel := context.WithCancel(ctx)
	wire, err := c.openStream(ctx, img)
	if err != nil {
		cancel()
		return nil, err
	}
	a := &ahead{wire: wire, cancel: cancel, hash: sha256.New(), free: make(chan []byte, aheadBuffers), hashed: make(chan received), quit: make(chan struct{})}
	for range aheadBuffers {
		a.free <- make([]byte, aheadBytes)
	}
	came := make(chan received, 1)
	a.run.Go(func() { a.receive(came) })
	a.run.Go(func() { a.digest(came) })
	return a, nil
}

// receive fills buffers.
func (a *ahead) receive(to chan<- received) {
	defer close(to)
	for {
		select {
		case buf := <-a.free:
			n, err := io.ReadFull(a.wire, buf)
			if err == io.ErrUnexpectedEOF { // io.ReadFull's own, of the last buffer; a broken stream wraps it
				err = io.EOF
			}
			select {
			case to <- received{buf[:n], err}:
			case <-a.quit:
				return
			}
			if err != nil {
				return
			}
		case <-a.quit:
			return
		}
	}
}

// digest hashes them.
func (a *ahead) digest(from <-chan received) {
	defer close(a.hashed)
	for b := range from {
		a.hash.Write(b.data)
		select {
		case a.hashed <- b:
		case <-a.quit:
			return
		}
	}
}

// next waits for what comes behind that which was taken.
func (a *ahead) next() {
	if a.now.data != nil {
		a.free <- a.now.data[:aheadBytes] // it has room for all there are
	}
	b, ok := <-a.hashed
	if !ok {
		b.err = errors.New("the image is read no more")
	}
	a.now, a.rest, a.failed = b, b.data, b.err
}

// each hands what is left to a function, without copying it.
func (a *ahead) each(consume func([]byte) error) error {
	for {
		if len(a.rest) > 0 {
			if err := consume(a.rest); err != nil {
				return err
			}
			a.rest, a.taken = nil, a.taken+int64(len(a.rest))
		}
		switch {
		case a.failed == io.EOF:
			return nil
		case a.failed != nil:
			return fmt.Errorf("read: %w", a.failed)
		}
		a.next()
	}
}

// Read fails as [stream.Read] does, behind all that came before.
func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.failed != nil {
			return 0, a.failed
		}
		a.next()
	}
	n := copy(p, a.rest)
	a.rest, a.taken = a.rest[n:], a.taken+int64(n)
	return n, nil
}

// Close stops reading.
func (a *ahead) Close() {
	a.cancel()
	close(a.quit)
	a.run.Wait()
	a.wire.close()
}

// verify returns an error unless every byte on the wire was read and the digest is the ordered one. It is for
// when Read has come to the end.
func (a *ahead) verify() error {
	img := a.wire.image
	if a.taken != img.SizeBytes {
		return fmt.Errorf("the image ends inside its transfer: %d of %d bytes were needed", a.taken, img.SizeBytes)
	}
	if got := digestOf(a.hash); got != img.Digest {
		return fmt.Errorf("the image on the wire is %s, ordered was %s", got, img.Digest)
	}
	return nil
}
