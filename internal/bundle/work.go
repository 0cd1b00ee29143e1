package bundle

import (
	"io"
	"sync"

	"bootlane/internal/lane"
)

// work is what the store does now that takes long, for who waits for it: one at a time.
// A nil work counts nothing.
type work struct {
	mu  sync.Mutex
	now lane.BundleWork
}

// Work returns what the store does now that takes long.
func (s *Store) Work() lane.BundleWork {
	s.work.mu.Lock()
	defer s.work.mu.Unlock()
	return s.work.now
}

// begin says what is done, of how many bytes; end says that it is over.
func (w *work) begin(what string, total int64) (end func()) {
	set := func(now lane.BundleWork) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.now = now
	}
	set(lane.BundleWork{What: what, Total: total})
	return func() { set(lane.BundleWork{}) }
}

// reading counts what is read.
func (w *work) reading(r io.Reader) io.Reader {
	if w == nil {
		return r
	}
	return counted{r, w}
}

type counted struct {
	r io.Reader
	w *work
}

// Read is [io.Reader].
func (c counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.now.Done += int64(n)
	return n, err
}
