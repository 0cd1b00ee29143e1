package turn

import (
	"sync"
	"testing"
)

func TestTurns(t *testing.T) {
	var l Line[string]
	var wg sync.WaitGroup
	counts := map[string]*int{"a": new(int), "b": new(int)} // the race detector sees two turns at once
	for range 200 {
		for k, n := range counts {
			wg.Go(func() {
				defer l.Take(k)()
				*n++
			})
		}
	}
	wg.Wait()
	if *counts["a"] != 200 || *counts["b"] != 200 || len(l.busy) != 0 {
		t.Errorf("%d, %d turns; %d are left", *counts["a"], *counts["b"], len(l.busy))
	}
	first := l.Take("a")
	l.Take("b")() // does not wait for another key's
	first()
}
