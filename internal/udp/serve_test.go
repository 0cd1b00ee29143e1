package udp

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// fake passes on so many datagrams, then fails or waits for the end.
type fake struct {
	n   int
	err error
}

func (f fake) Each(ctx context.Context, pass func(Datagram)) error {
	for range f.n {
		pass(Datagram{})
	}
	if f.err != nil {
		return f.err
	}
	<-ctx.Done()
	return nil
}

// TestServe: so many are handled at once, and one part that fails ends all, once what is
// being handled is done.
func TestServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const handlers = 3
		var now, done atomic.Int32
		free, broken := make(chan struct{}), errors.New("the socket broke")
		ended := make(chan error)
		stopped := false
		go func() {
			ended <- Serve(t.Context(), []fake{{n: 10}, {n: 5, err: broken}}, handlers, func(context.Context, fake, Datagram) {
				now.Add(1)
				<-free
				now.Add(-1)
				done.Add(1)
			}, func(ctx context.Context) error {
				<-ctx.Done()
				stopped = true
				return nil
			})
		}()
		synctest.Wait()
		if now.Load() != handlers {
			t.Errorf("%d are handled at once, not %d", now.Load(), handlers)
		}
		close(free)
		if err := <-ended; !errors.Is(err, broken) || !stopped {
			t.Errorf("%v; what ran beside has ended: %v", err, stopped)
		}
		if done.Load() != 15 {
			t.Errorf("%d of 15 were handled", done.Load())
		}
	})
}
