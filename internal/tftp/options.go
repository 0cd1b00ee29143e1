package tftp

import (
	"strconv"
	"strings"
	"time"
)

const (
	defaultBlock = 512        // RFC 1350
	minBlock     = 8          // RFC 2348
	maxBlock     = 65464      // RFC 2348
	ipv4Overhead = 20 + 8 + 4 // IP, UDP and TFTP headers: 1468 remain of 1500
	ipv6Overhead = 40 + 8 + 4
	maxTimeout   = 30 // seconds: whoever is given 255 s may keep its place for a quarter of an hour, and be silent
)

// terms is what a transfer runs with once the options are settled.
type terms struct {
	block   int           // payload bytes of a block
	window  int           // blocks for one ACK
	timeout time.Duration // before the first retransmission, once the client has taken the OACK
	oack    []byte        // the OACK packet, nil when no option was accepted and DATA 1 comes at once
}

// limits bounds what a client may ask for.
type limits struct {
	size    int64         // length of the content
	window  int           // largest window
	timeout time.Duration // when the client does not say
	block   func() int    // largest block that travels unfragmented; called only for blksize, as it costs system calls
}

// negotiate settles the options of a request. An option that is unknown, repeated or out of its range is left out of the
// OACK (RFC 2347), which tells the client that the default holds. Accepted ones go back in the client's own spelling and
// order. A value never goes back larger than asked for: EDK2 drops the connection over that.
func negotiate(asked []option, lim limits) terms {
	t := terms{block: defaultBlock, window: 1, timeout: lim.timeout}
	var accepted []option
	seen := map[string]bool{}
	for _, o := range asked {
		name := strings.ToLower(o.name)
		value, err := strconv.ParseUint(o.value, 10, 63)
		if err != nil || seen[name] {
			continue
		}
		seen[name] = true
		switch {
		case name == "blksize" && value >= minBlock:
			t.block = min(int(value), maxBlock, max(minBlock, lim.block()))
			o.value = strconv.Itoa(t.block)
		case name == "tsize":
			o.value = strconv.FormatInt(lim.size, 10)
		case name == "timeout" && value >= 1 && value <= maxTimeout: // the same or nothing goes back, RFC 2349
			t.timeout = time.Duration(value) * time.Second
			o.value = strconv.FormatUint(value, 10)
		case name == "windowsize" && value >= 1 && value <= 65535 && lim.window > 1:
			t.window = int(min(value, uint64(lim.window)))
			o.value = strconv.Itoa(t.window)
		default:
			continue
		}
		accepted = append(accepted, o)
	}
	if accepted != nil {
		t.oack = encodeOack(accepted)
	}
	return t
}
