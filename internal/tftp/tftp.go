// Package tftp is Bootlane's read-only TFTP server: RFC 1350 with the options of RFC 2347 (negotiation), 2348 (blksize),
// 2349 (tsize, timeout) and 7440 (windowsize), made for the firmware that really boots over it.
//
// It reads requests, names the file and the client to a [Source], and sends what the Source opens. It never accepts a
// write, never touches a file system, never guesses a length (UEFI firmware gives up without a true tsize), never lets a
// datagram be fragmented, and never decides who may read what: that is the Source's part.
//
// The layers, from pure to impure: packet.go (bytes), name.go (file names), options.go (negotiation), sender.go (which
// block next, as a state machine fed with events), transfer.go (one file, one socket), server.go (the listening socket,
// duplicates, limits) and socket_linux.go (what only the kernel knows).
package tftp

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"
)

// Request is one read request, normalised.
type Request struct {
	Name      string         // relative, slashes only, no empty, "." or ".." segment, no control character, 1 to 1024 bytes
	Client    netip.AddrPort // who asks; IPv4 is never in its IPv6-mapped form
	Local     netip.Addr     // the address of ours that was asked, and that answers
	Interface string         // the name of the interface the request came in by; "" when it is gone already
}

// Content is what a request is answered with. The server calls ReadAt from one goroutine, reads some parts again when
// packets are lost, and calls Close exactly once.
type Content interface {
	io.ReaderAt
	// Size is the exact length in bytes and stays the same until Close. UEFI firmware sizes its buffer by it.
	Size() int64
	io.Closer
}

// Source answers requests.
type Source interface {
	// Open returns the content for a request. An [*Error], wrapped or not, goes to the client as it stands; for any other
	// error the client reads "internal error, try again" and the log has the cause. Open is called from many goroutines.
	// ctx is for Open alone: it ends when Open returns, when the server stops, and after 20 seconds, when clients give up.
	Open(ctx context.Context, r Request) (Content, error)
}

// The error codes of RFC 1350 and RFC 2347.
const (
	CodeUndefined       uint16 = 0 // see the text
	CodeNotFound        uint16 = 1 // iPXE shows it as "not found"
	CodeAccessViolation uint16 = 2
	CodeDiskFull        uint16 = 3
	CodeIllegal         uint16 = 4
	CodeUnknownTID      uint16 = 5
	CodeExists          uint16 = 6
	CodeNoUser          uint16 = 7
	CodeOptions         uint16 = 8 // option negotiation ended it; EDK2 sends it when tsize was all it wanted
)

// Error is a TFTP ERROR packet: what a Source returns to refuse a request, and what a client sent to end a transfer.
type Error struct {
	Code uint16
	Text string // one short line; what the person at the machine's screen reads
}

// Error returns the text with its code.
func (e *Error) Error() string { return fmt.Sprintf("%s (tftp error %d)", e.Text, e.Code) }

// Outcome says how a transfer ended.
type Outcome string

// The outcomes. Only the last two say that a client did not get its file.
const (
	OutcomeComplete Outcome = "complete" // every block was sent, and Transfer.Confirmed says whether the last ACK came
	OutcomeProbe    Outcome = "probe"    // the client took tsize from the OACK and hung up: EDK2, before every download
	OutcomeAborted  Outcome = "aborted"  // by the client, by the network, or here: see ClientError and Err
	OutcomeTimeout  Outcome = "timeout"  // the client went silent
)

// Transfer is what [Config].Done is told about a transfer that ended.
type Transfer struct {
	Request
	Size        int64         // length of the content in bytes
	Bytes       int64         // bytes that the client acknowledged; Size when complete
	BlockSize   int           // bytes of payload a block
	WindowSize  int           // blocks for one ACK
	Started     time.Time     // when the request arrived, by Config.Now
	Duration    time.Duration // from Started to the end
	Outcome     Outcome
	Confirmed   bool   // the last block was acknowledged; a ROM that jumps into what it loaded does not do that
	Retransmits int    // packets sent more than once
	ClientError *Error // the ERROR packet the client ended it with, or nil; its text is untrusted, made printable
	Err         error  // why it was ended here, or nil
}

// Config says how to serve. Source and Now are needed; every other zero value is a good one.
type Config struct {
	Addr   string           // where to listen, host:port; "" is ":69", IPv4 and IPv6
	Source Source           // answers the requests
	Done   func(Transfer)   // told about every transfer whose content was opened, from many goroutines; may be nil
	Now    func() time.Time // the clock, for the times in Transfer; timeouts do not use it
	Log    *slog.Logger     // nil is silence

	MaxTransfers int           // at the same time; 0 is 2000. When all go on, those that nobody has answered give way
	MaxPerClient int           // at the same time for one client address; 0 is 32
	MaxWindow    int           // the largest windowsize agreed to, 1 to 1024; 0 is 64, and 1 declines the option
	MaxBlock     int           // the largest blksize agreed to, from 512; 0: what the way to the client takes unfragmented
	SinglePort   bool          // answer from the port that was asked, instead of a new one for each transfer (RFC 1350 section 4)
	Timeout      time.Duration // before the first retransmission, doubling up to six times this; 0 is one second
}

// withDefaults fills the zero values in. It fails for what no default can mend.
func (c Config) withDefaults() (Config, error) {
	switch {
	case c.Source == nil:
		return c, fmt.Errorf("configure tftp: no Source")
	case c.Now == nil:
		return c, fmt.Errorf("configure tftp: no Now")
	case c.MaxWindow < 0 || c.MaxWindow > 1024:
		return c, fmt.Errorf("configure tftp: MaxWindow %d is not between 1 and 1024", c.MaxWindow)
	case c.MaxBlock != 0 && (c.MaxBlock < 512 || c.MaxBlock > 65464):
		return c, fmt.Errorf("configure tftp: MaxBlock %d is not between 512 and 65464", c.MaxBlock)
	case c.MaxTransfers < 0 || c.MaxPerClient < 0 || c.Timeout < 0:
		return c, fmt.Errorf("configure tftp: MaxTransfers, MaxPerClient and Timeout cannot be negative")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Addr = cmp.Or(c.Addr, ":69")
	c.MaxTransfers = cmp.Or(c.MaxTransfers, 2000)
	c.MaxPerClient = cmp.Or(c.MaxPerClient, 32)
	c.MaxWindow = cmp.Or(c.MaxWindow, 64)
	c.Timeout = cmp.Or(c.Timeout, time.Second)
	return c, nil
}

// clampBlock bounds the payload that the way to a client takes.
func (c Config) clampBlock(way int) int {
	if c.MaxBlock == 0 {
		return way
	}
	return min(way, c.MaxBlock)
}
