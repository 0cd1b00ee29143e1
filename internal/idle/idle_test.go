package idle

import (
	"slices"
	"testing"
)

func nothing[A any](A) (int64, bool) { return 0, false }

func TestOrder(t *testing.T) {
	var l List[string]
	for a, at := range map[string]int64{"late": 30, "first": 10, "second": 20} {
		l.Add(a, at, nothing)
	}
	if got := l.Next(2, 25); !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("next %v", got)
	}
	var got []string
	for a, ok := l.Take(25); ok; a, ok = l.Take(25) {
		got = append(got, a)
	}
	if !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("%v", got)
	}
	if a, ok := l.Take(30); !ok || a != "late" {
		t.Errorf("%q, %v", a, ok)
	}
}

// What an address is idle from is what is true of it, and not what was once.
func TestClean(t *testing.T) {
	var l List[int]
	until := func(a int) (int64, bool) { return 500, a == 1 }
	for i := range int64(5 * least) {
		l.Add(1, 1000+i, until)
	}
	l.Add(2, 2000, until) // nothing is true of it
	l.Add(2, 100, until)
	for range least {
		l.Add(1, 9000, until)
	}
	if len(l.entries) > 2*least {
		t.Errorf("%d entries", len(l.entries))
	}
	if a, ok := l.Take(100); !ok || a != 2 {
		t.Errorf("%d, %v", a, ok)
	}
	if a, ok := l.Take(500); !ok || a != 1 {
		t.Errorf("%d, %v", a, ok)
	}
}

// However many addresses are in use, an entry costs about as much.
func TestCleaningIsRare(t *testing.T) {
	var l List[int]
	asked := 0
	for i := range 100_000 {
		l.Add(i, int64(i), func(int) (int64, bool) { asked++; return 0, false })
	}
	if asked > 300_000 {
		t.Errorf("asked %d times for 100,000 addresses", asked)
	}
}

// What Next shows is what Take returns.
func TestNext(t *testing.T) {
	var l List[int]
	for i := range 500 {
		l.Add(i, int64(i*7919%503), nothing)
	}
	next := l.Next(100, 90)
	if len(next) < 80 || len(next) > 91 {
		t.Errorf("%d addresses idle by 90", len(next))
	}
	for _, want := range next {
		if a, ok := l.Take(90); !ok || a != want {
			t.Fatalf("took %d, %v after Next said %d", a, ok, want)
		}
	}
	if got := len(l.Next(5, 1000)); got != 5 {
		t.Errorf("%d of the 5 asked for", got)
	}
}
