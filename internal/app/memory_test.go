package app

import "testing"

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
