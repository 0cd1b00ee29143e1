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

// collect keeps the garbage collector's target, until ctx ends. Whoever sets GOGC sets it
// for good.
func collect(ctx context.Context) error {
	if os.Getenv("GOGC") != "" {
		<-ctx.Done()
		return nil
	}
	debug.FreeOSMemory() // of what reading the inventory left behind
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for now := 100; ; {
		metrics.Read(samples)
		if want := spare(samples[0].Value.Uint64(), samples[1].Value.Uint64()+samples[2].Value.Uint64()); want < now*(100-retuneOver)/100 || want > now*(100+retuneOver)/100 {
			debug.SetGCPercent(want)
			now = want
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
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
