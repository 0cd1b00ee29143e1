// Package turn has things done one after the other that concern the same key, and those
// of different keys at the same time.
package turn

import "sync"

// Line is where they wait. The zero Line is empty.
type Line[K comparable] struct {
	mu   sync.Mutex
	busy map[K]chan struct{} // the keys whose turn it is; closed to hand the turn to the one who waits, nil if nobody does
}

// Take waits for the key's turn, and returns what ends it; call that once. One may wait; ok is
// false for everybody else: whoever floods in one name must not hold up those who serve the
// others. Who waits is next, whoever else comes meanwhile.
func (l *Line[K]) Take(k K) (done func(), ok bool) {
	l.mu.Lock()
	next, busy := l.busy[k]
	switch {
	case next != nil:
		l.mu.Unlock()
		return nil, false
	case busy:
		mine := make(chan struct{})
		l.busy[k] = mine
		l.mu.Unlock()
		<-mine
	default:
		if l.busy == nil {
			l.busy = map[K]chan struct{}{}
		}
		l.busy[k] = nil
		l.mu.Unlock()
	}
	return func() { l.end(k) }, true
}

// end hands the key's turn over: to let go of it for a moment would let somebody else in before
// the one who waits has woken up.
func (l *Line[K]) end(k K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.busy[k]
	if next == nil {
		delete(l.busy, k)
		return
	}
	l.busy[k] = nil
	close(next)
}
