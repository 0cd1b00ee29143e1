package app

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// What the heap may grow to before it is collected: Go's own rule, twice what is alive,
// has a server of few hosts collect the same few MiB hundreds of times a second in a boot
// storm, and takes twice of what one of 100,000 needs.
const (
	heapFloor  = 64 << 20 // bytes: below that, nothing is collected
	heapSpare  = 30       // percent of what is alive
	mostSpare  = 10_000   // percent
	retuneOver = 10       // percent by which the setting must be off: each change stops all for a moment
)

// When what an import or a boot storm left behind is given back: garbage that nobody collects stays resident, and on a
// quiet server nobody does for minutes.
const (
	quietRate  = 4 << 20  // bytes allocated within a second, at most
	quietTicks = 10       // seconds, one after the other
	worthwhile = 64 << 20 // bytes allocated since memory was given back
)

// collect keeps the garbage collector's target, until ctx ends. Whoever sets GOGC sets it
// for good.
func collect(ctx context.Context) error {
	if os.Getenv("GOGC") != "" {
		<-ctx.Done()
		return nil
	}
	debug.FreeOSMemory() // of what reading the inventory left behind
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	var quiet calm
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for now := 100; ; {
		metrics.Read(samples)
		if want := spare(samples[0].Value.Uint64(), samples[1].Value.Uint64()+samples[2].Value.Uint64()); want < now*(100-retuneOver)/100 || want > now*(100+retuneOver)/100 {
			debug.SetGCPercent(want)
			now = want
		}
		if quiet.after(samples[3].Value.Uint64()) {
			debug.FreeOSMemory()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// calm tells when it has been quiet for long enough to give memory back.
type calm struct {
	allocated, returned uint64 // bytes ever: a second ago, and when memory was given back
	ticks               int    // quiet ones, in a row
}

// after takes the bytes ever allocated, each second, and reports whether to give memory back now.
func (c *calm) after(allocated uint64) bool {
	if c.ticks++; allocated-c.allocated > quietRate {
		c.ticks = 0
	}
	c.allocated = allocated
	if c.ticks < quietTicks || allocated-c.returned < worthwhile {
		return false
	}
	c.returned = allocated
	return true
}

// spare returns the collector's target, in percent, for bytes on the heap that are alive
// and bytes that are scanned beside it, which the percentage is of as well.
func spare(live, beside uint64) int {
	room := live * heapSpare / 100
	if live+room < heapFloor {
		room = heapFloor - live
	}
	return int(min(room*100/max(live+beside, 1), mostSpare))
}
