package app

import (
	"slices"
	"testing"
)

func TestSpare(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		live, beside uint64
		want         int
	}{
		{0, 0, mostSpare},
		{4 * mib, 4 * mib, 750},  // 60 MiB of 8
		{32 * mib, 0, 100},       // Go's own rule, by chance
		{50 * mib, 0, heapSpare}, // enough by itself
		{100 * mib, 0, heapSpare},
		{100 * mib, 100 * mib, heapSpare / 2}, // the stacks get no more
	} {
		if got := spare(c.live, c.beside); got != c.want {
			t.Errorf("%d MiB alive, %d MiB beside: %d %%, want %d", c.live/mib, c.beside/mib, got, c.want)
		}
	}
}

// TestCalm: memory is given back once it has been quiet, once for each load, and not for a server that has had none.
func TestCalm(t *testing.T) {
	var c calm
	at, given := uint64(0), []int{}
	for second := range 100 {
		switch {
		case second < 20: // an import
			at += 50 << 20
		case second == 50: // a storm that pauses
			at += 80 << 20
		case second == 55:
			at += 80 << 20
		default:
			at += 1 << 20
		}
		if c.after(at) {
			given = append(given, second)
		}
	}
	if want := []int{29, 65}; !slices.Equal(given, want) {
		t.Errorf("given back at %v, want %v", given, want)
	}
}
