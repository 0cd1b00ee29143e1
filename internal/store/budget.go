package store

import "time"

// budget counts what was written about machines, so that whoever floods the
// segment fills no disk.
type budget struct {
	hour, day time.Time // when the counts begin anew
	lines     map[string]int
	strangers int // lines about unknown machines
	firsts    int // unknown machines heard for the first time
}

// spending is what one transaction adds to a budget, should it be committed.
type spending struct {
	lines             map[string]int
	strangers, firsts int
	shed              int64
}

// open starts new hours and days, and a transaction's spending.
func (b *budget) open(now time.Time) *spending {
	if !now.Before(b.hour) {
		b.hour, b.lines, b.strangers = now.Add(time.Hour), map[string]int{}, 0
	}
	if !now.Before(b.day) {
		b.day, b.firsts = now.Add(24*time.Hour), 0
	}
	return &spending{lines: map[string]int{}}
}

// allows reports whether one more line may be written about a subject.
func (b *budget) allows(s *spending, subject string, stranger, first bool) bool {
	if b.lines[subject]+s.lines[subject] >= maxLines {
		return false
	}
	return !stranger || b.strangers+s.strangers < maxUnknownLines && (!first || b.firsts+s.firsts < maxUnknown)
}

func (s *spending) add(subject string, stranger, first bool) {
	s.lines[subject]++
	if stranger {
		s.strangers++
	}
	if stranger && first {
		s.firsts++
	}
}

// close takes over what was committed.
func (b *budget) close(s *spending) {
	for subject, n := range s.lines {
		b.lines[subject] += n
	}
	b.strangers += s.strangers
	b.firsts += s.firsts
}
