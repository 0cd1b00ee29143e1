package turn

import (
	"runtime"
	"slices"
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

// untilOneWaits returns when somebody waits for the key's turn.
func untilOneWaits(l *Line[string], k string) {
	for waits := false; !waits; runtime.Gosched() {
		l.mu.Lock()
		waits = l.busy[k] != nil
		l.mu.Unlock()
	}
}

// TestWhoWaitsIsNext: nobody comes in between, and so there is never more than one who waits.
func TestWhoWaitsIsNext(t *testing.T) {
	for range 100 {
		var l Line[string]
		var order []string
		first, _ := l.Take("a")
		go func() {
			if done, ok := l.Take("a"); ok {
				order = append(order, "who waits")
				done()
			}
		}()
		untilOneWaits(&l, "a")
		first()
		if done, ok := l.Take("a"); ok {
			order = append(order, "who comes")
			done()
		}
		if !slices.Equal(order, []string{"who waits", "who comes"}) {
			t.Fatalf("served: %v", order)
		}
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
	untilOneWaits(&l, "a")
	if _, ok := l.Take("a"); ok {
		t.Error("a second one waits")
	}
	first()
	if !<-second {
		t.Error("the first to wait has no turn")
	}
}
