package tftp

import (
	"sync"
	"time"
)

// alarm makes reads of a socket fail after a wait. Every block sets it anew, and nearly never does it go off: to set a
// timer of the runtime each time would wake a thread that sleeps until the next one. So it ticks a few times in a wait,
// and counts. It needs no clock, for the time of day jumps.
type alarm struct {
	conn socket

	mu    sync.Mutex
	timer *time.Timer
	armed time.Duration // between this tick and the one before; 0: it does not tick
	grain time.Duration // between two ticks from now on
	left  int           // ticks until it goes off
	rang  bool          // and reads fail
}

const ticks = 8 // in a wait: it goes off at most one tick late

func newAlarm(conn socket) *alarm {
	a := &alarm{conn: conn}
	a.timer = time.AfterFunc(time.Hour, a.tick)
	a.timer.Stop()
	return a
}

// set starts a wait from its beginning, whether or not the one before is over.
func (a *alarm) set(wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rang {
		_ = a.conn.SetReadDeadline(time.Time{})
		a.rang = false
	}
	a.grain, a.left = wait/ticks, ticks+1 // some of the tick that runs is over already
	if a.armed == 0 || a.grain <= a.armed/2 {
		a.armed, a.left = a.grain, ticks
		a.timer.Reset(a.grain)
	}
}

func (a *alarm) tick() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.left--; a.left > 0 {
		a.armed = a.grain
		a.timer.Reset(a.grain)
		return
	}
	a.armed, a.rang = 0, true
	_ = a.conn.SetReadDeadline(longAgo())
}

// stop ends the ticking.
func (a *alarm) stop() { a.timer.Stop() }
