package turn

import (
	"sync"
	"testing"
)

// The race detector sees two turns of one key at once.
func TestTurns(t *testing.T) {
	var l Line[string]
	var wg sync.WaitGroup
	counts := map[string]*int{"a": new(int), "b": new(int)}
	for range 200 {
		for k, n := range counts {
			wg.Go(func() {
				if done, ok := l.Take(k); ok {
					*n++
					done()
				}
			})
		}
	}
	wg.Wait()
	if *counts["a"] == 0 || *counts["b"] == 0 || len(l.busy) != 0 {
		t.Errorf("%d, %d turns; %d are left", *counts["a"], *counts["b"], len(l.busy))
	}
}

func TestOneWaits(t *testing.T) {
	var l Line[string]
	first, _ := l.Take("a")
	if other, ok := l.Take("b"); !ok { // waits for nobody
		t.Error("another key's turn is refused")
	} else {
		other()
	}
	second := make(chan bool)
	go func() {
		done, ok := l.Take("a")
		second <- ok
		done()
	}()
	for waits := false; !waits; {
		l.mu.Lock()
		waits = l.busy["a"].waiting
		l.mu.Unlock()
	}
	if _, ok := l.Take("a"); ok {
		t.Error("a second one waits")
	}
	first()
	if !<-second {
		t.Error("the first to wait has no turn")
	}
}
