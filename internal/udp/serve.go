package udp

import (
	"context"
	"errors"
	"sync"
)

// Socket passes on every datagram that it receives, until ctx ends. [Conn] is one.
type Socket interface {
	Each(ctx context.Context, pass func(Datagram)) error
}

// Serve handles what sockets receive, and runs what belongs beside them, until ctx ends or
// one of them fails, which ends the others; then it waits for what is being handled. So
// many are handled at once, always by the same goroutines: a new one would grow its stack
// anew for each datagram. While all of them wait, so do the datagrams, in the kernel.
func Serve[S Socket](ctx context.Context, sockets []S, handlers int, handle func(context.Context, S, Datagram), beside ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type item struct {
		from S
		Datagram
	}
	work := make(chan item)
	var working sync.WaitGroup
	for range handlers {
		working.Go(func() {
			for i := range work {
				handle(ctx, i.from, i.Datagram)
			}
		})
	}
	errs := make(chan error, len(sockets)+len(beside))
	for _, s := range sockets {
		go func() { errs <- s.Each(ctx, func(d Datagram) { work <- item{s, d} }) }()
	}
	for _, run := range beside {
		go func() { errs <- run(ctx) }()
	}
	var err error
	for range cap(errs) {
		err = errors.Join(err, <-errs)
		cancel()
	}
	close(work)
	working.Wait()
	return err
}
