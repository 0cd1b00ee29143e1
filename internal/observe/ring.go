package observe

import (
	"bytes"
	"time"

	"bootlane/internal/pcap"
)

// ring keeps the last frames of an interface, as many as fit its bytes.
type ring struct {
	limit, held int
	records     []pcap.Record
}

// overhead is what a record costs beside its frame.
const overhead = 64

func (r *ring) add(at time.Time, frame []byte) {
	r.records = append(r.records, pcap.Record{At: at, Frame: bytes.Clone(frame), Size: len(frame)})
	r.held += len(frame) + overhead
	drop := 0
	for ; r.held > r.limit && drop < len(r.records); drop++ {
		r.held -= len(r.records[drop].Frame) + overhead
		r.records[drop].Frame = nil
	}
	r.records = r.records[drop:] // append moves what is left when the end is reached
}
