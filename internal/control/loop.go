package control

import (
	"slices"
	"sync"
	"time"

	"bootlane/internal/lane"
)

// loops notices machines that load a boot loader over and over and never run it: an iPXE
// that is given itself again, or a loader that the firmware refuses to start.
type loops struct {
	mu    sync.Mutex
	loads map[lane.MAC][]time.Time // since the machine asked for a script last
}

// So many loads of a loader, within such a time and without a script in between, are a loop.
const (
	loopLoads  = 4
	loopWindow = 2 * time.Minute
	maxLooping = 4096 // machines that are watched at once
)

// loaded notes that a machine has fetched a loader to its end.
func (l *loops) loaded(m lane.MAC, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.loads == nil {
		l.loads = map[lane.MAC][]time.Time{}
	}
	if len(l.loads) >= maxLooping {
		for k, times := range l.loads {
			if now.Sub(times[len(times)-1]) > loopWindow {
				delete(l.loads, k)
			}
		}
	}
	if _, watched := l.loads[m]; !watched && len(l.loads) >= maxLooping {
		return // a flood of invented machines: none of them loads anything for long
	}
	recent := slices.DeleteFunc(l.loads[m], func(t time.Time) bool { return now.Sub(t) > loopWindow })
	l.loads[m] = append(recent, now)
}

// ran notes that the machine's loader asked for its script: it runs.
func (l *loops) ran(m lane.MAC) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.loads, m)
}

// looping reports whether one load more would only go on with a loop.
func (l *loops) looping(m lane.MAC, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	times := l.loads[m]
	return len(times) >= loopLoads && now.Sub(times[len(times)-loopLoads]) <= loopWindow
}

// Loaded takes note that a machine has confirmed all of a boot file; p is what was asked
// for. Only loaders count: a script or a configuration is read by one that runs already.
func (c *Control) Loaded(p lane.BootPath) {
	if p.MAC != "" && p.File != lane.EntryScript && p.File != lane.PXELinuxConfig && p.File != lane.GRUBConfig {
		c.loops.loaded(p.MAC, c.Now())
	}
}
