// Package idle keeps which addresses nobody uses, those idle longest first.
package idle

import (
	"container/heap"
	"slices"
)

// least is how many entries are kept whatever they are worth.
const least = 1024

// List holds addresses with the time from which on nobody uses them, in whatever unit the
// owner counts. An entry may be overtaken by events: who takes it looks again. The zero
// List is empty.
type List[A comparable] struct {
	entries entries[A]
	cleanAt int // that many entries
}

type entry[A comparable] struct {
	at   int64
	addr A
}

// Add notes that an address is idle from a time on. When much has gathered, one entry of
// each address is left: that of what is true of it now, or else its first one. until says
// what is: when its lease or offer ends.
func (l *List[A]) Add(a A, at int64, until func(A) (at int64, ok bool)) {
	if len(l.entries) > max(least, l.cleanAt) {
		l.clean(until)
		l.cleanAt = 2 * len(l.entries)

	}
	heap.Push(&l.entries, entry[A]{at, a})
}

func (l *List[A]) clean(until func(A) (int64, bool)) {
	first := map[A]int64{}
	for _, e := range l.entries {
		if at, ok := first[e.addr]; !ok || e.at < at {
			first[e.addr] = e.at
		}
	}
	l.entries = l.entries[:0]
	for a, at := range first {
		if ends, ok := until(a); ok {
			at = ends
		}
		l.entries = append(l.entries, entry[A]{at, a})
	}
	heap.Init(&l.entries)
}

// Len returns how many entries are kept.
func (l *List[A]) Len() int { return len(l.entries) }

// Take removes and returns the address that has been idle longest.
func (l *List[A]) Take(now int64) (a A, ok bool) {
	if len(l.entries) == 0 || l.entries[0].at > now {
		return a, false
	}
	return heap.Pop(&l.entries).(entry[A]).addr, true
}

// Next returns the up to n addresses that Take would return now, in its order, and leaves
// them. It looks at 2n entries of the heap, whatever its size.
func (l *List[A]) Next(n int, now int64) (out []A) {
	open := []int{0} // whose parents were taken
	for len(out) < n {
		open = slices.DeleteFunc(open, func(i int) bool { return i >= len(l.entries) || l.entries[i].at > now })
		if len(open) == 0 {
			return out
		}
		first := 0
		for k, i := range open {
			if l.entries[i].at < l.entries[open[first]].at {
				first = k
			}
		}
		i := open[first]
		out = append(out, l.entries[i].addr)
		open[first] = 2*i + 1
		open = append(open, 2*i+2)
	}
	return out
}

// entries is a heap.
type entries[A comparable] []entry[A]

func (e entries[A]) Len() int           { return len(e) }
func (e entries[A]) Less(i, j int) bool { return e[i].at < e[j].at }
func (e entries[A]) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }

// Push is for package heap.
func (e *entries[A]) Push(x any) { *e = append(*e, x.(entry[A])) }

// Pop is for package heap.
func (e *entries[A]) Pop() any {
	last := len(*e) - 1
	v := (*e)[last]
	*e = (*e)[:last]
	return v
}
