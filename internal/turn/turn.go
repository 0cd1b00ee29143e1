// Package turn has things done one after the other that concern the same key, and those
// of different keys at the same time.
package turn

import "sync"

// Line is where they wait. The zero Line is empty.
type Line[K comparable] struct {
	mu   sync.Mutex
	busy map[K]*holder
}

// holder is whose turn it is.
type holder struct {
	done    chan struct{} // closed when the turn ends
	waiting bool          // for it, one other
}

// Take waits for the key's turn, and returns what ends it. One may wait; ok is false for
// everybody else: whoever floods in one name must not hold up those who serve the others.
func (l *Line[K]) Take(k K) (done func(), ok bool) {
	mine := &holder{done: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	for first := true; l.busy[k] != nil; first = false {
		other := l.busy[k]
		if first && other.waiting {
			return nil, false
		}
		other.waiting = true
		l.mu.Unlock()
		<-other.done
		l.mu.Lock()
	}
	if l.busy == nil {
		l.busy = map[K]*holder{}
	}
	l.busy[k] = mine
	return func() {
		l.mu.Lock()
		delete(l.busy, k)
		l.mu.Unlock()
		close(mine.done)
	}, true
}
