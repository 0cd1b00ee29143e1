// Package turn has things done one after the other that concern the same key, and those
// of different keys at the same time.
package turn

import "sync"

// Line is where they wait. The zero Line is empty.
type Line[K comparable] struct {
	mu   sync.Mutex
	busy map[K]chan struct{} // closed when the turn ends
}

// Take waits for the key's turn, and returns what ends it.
func (l *Line[K]) Take(k K) (done func()) {
	mine := make(chan struct{})
	for {
		l.mu.Lock()
		other, busy := l.busy[k]
		if !busy {
			if l.busy == nil {
				l.busy = map[K]chan struct{}{}
			}
			l.busy[k] = mine
		}
		l.mu.Unlock()
		if !busy {
			break
		}
		<-other
	}
	return func() {
		l.mu.Lock()
		delete(l.busy, k)
		l.mu.Unlock()
		close(mine)
	}
}
