package observe

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"bootlane/internal/lane"
	"bootlane/internal/pcap"
	"bootlane/internal/udp"
)

// listening is how long a probe waits. dnsmasq, as it is installed, pings an address for
// three seconds before it offers it.
const listening = 6 * time.Second

// Probe asks on one interface, or on all when iface is empty, who answers a machine:
// as a plain client, and as UEFI PXE firmware. It sends DISCOVERs only, so that nothing
// is leased; an address may be held for a minute by the server that offers it.
func (o *Observer) Probe(ctx context.Context, iface string) (lane.Probed, error) {
	out := lane.Probed{Foreign: []lane.Responder{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed error
	for _, l := range o.links {
		if iface != "" && l.Name != iface {
			continue
		}
		out.Interfaces = append(out.Interfaces, l.Name)
		wg.Go(func() {
			found, err := l.probe(ctx)
			mu.Lock()
			defer mu.Unlock()
			out.Foreign = append(out.Foreign, found...)
			if err != nil {
				failed = err
			}
		})
	}
	wg.Wait()
	if len(out.Interfaces) == 0 {
		return out, o.unknown(iface)
	}
	slices.SortFunc(out.Foreign, compare)
	return out, failed
}

func (l *link) probe(ctx context.Context) ([]lane.Responder, error) {
	l.probing.Lock()
	defer l.probing.Unlock()
	if err := l.refresh(); err != nil {
		return nil, &lane.Error{Code: lane.Unavailable, Message: "probe " + l.Name + ": is the interface still there?", Err: err}
	}
	seed := make([]byte, 14)
	if _, err := io.ReadFull(l.cfg.Rand, seed); err != nil {
		return nil, fmt.Errorf("read randomness: %w", err)
	}
	seed[0] = seed[0]&^1 | 2 // of one NIC, locally administered: nobody's
	client, err := lane.MACFromBytes(seed[:6])
	if err != nil {
		return nil, fmt.Errorf("make a MAC: %w", err)
	}
	l.mu.Lock()
	from := l.mac
	l.mu.Unlock()
	if from == "" {
		return nil, lane.Errorf(lane.Invalid, "%s has no MAC address: only Ethernet can be probed", l.Name)
	}
	xids := []uint32{binary.BigEndian.Uint32(seed[6:]), binary.BigEndian.Uint32(seed[10:])}
	l.expect(xids)
	defer l.forget(xids)
	for i, xid := range xids {
		frame, err := pcap.Discover(from, client, xid, i == 1)
		if err != nil {
			return nil, err
		}
		l.take(frame) // a packet socket hears what others send, not what itself does
		if err := udp.SendFrame(l.socket, frame); err != nil {
			return nil, &lane.Error{Code: lane.Unavailable, Message: "probe " + l.Name + ": is its link up (`ip -br link`)?", Err: err}
		}
	}
	wait(ctx, listening)
	return l.answered(xids), ctx.Err()
}

func (l *link) expect(xids []uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range xids {
		l.waiting[x] = nil
	}
}

func (l *link) forget(xids []uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range xids {
		delete(l.waiting, x)
	}
}

func (l *link) answered(xids []uint32) []lane.Responder {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []lane.Responder
	seen := map[key]bool{}
	for _, x := range xids {
		for _, k := range l.waiting[x] {
			if !seen[k] {
				seen[k] = true
				out = append(out, l.responders[k].Responder)
			}
		}
	}
	return out
}

// repeat probes on a timer. The first time is not the same for every server: those of
// a site that lost its power start together.
func (o *Observer) repeat(ctx context.Context, l *link) {
	jitter := make([]byte, 2)
	if _, err := io.ReadFull(l.cfg.Rand, jitter); err != nil {
		o.cfg.Log.Warn("no randomness for the start of probes", "err", err)
	}
	wait(ctx, o.cfg.Every/10+o.cfg.Every/2*time.Duration(binary.BigEndian.Uint16(jitter))/65536)
	for ctx.Err() == nil {
		if _, err := l.probe(ctx); err != nil && ctx.Err() == nil {
			o.cfg.Log.Warn("probe failed", "interface", l.Name, "err", err)
		}
		wait(ctx, o.cfg.Every)
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
