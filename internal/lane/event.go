package lane

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Kind says what an event is about.
type Kind string

// The kinds of events.
const (
	KindEnrolled    Kind = "enrolled"    // a record was added to the inventory
	KindUpdated     Kind = "updated"     // its inventory data changed
	KindArmed       Kind = "armed"       // a run was granted
	KindStage       Kind = "stage"       // a run reached a stage
	KindProgress    Kind = "progress"    // a run reports bytes done
	KindInstalled   Kind = "installed"   // first boot proved itself, and the machine is in its cluster where it has one
	KindFailed      Kind = "failed"      // the run ended badly
	KindCancelled   Kind = "cancelled"   // an operator ended the run
	KindExpired     Kind = "expired"     // the deadline ended the run
	KindQuarantined Kind = "quarantined" // the record was set aside
	KindAccepted    Kind = "accepted"    // an operator accepted a replaced board or NIC
	KindReleased    Kind = "released"    // an operator ended the quarantine
	KindRetired     Kind = "retired"     // taken out of service
	KindInspect     Kind = "inspect"     // an operator wants the machine looked at, or it was
	KindInspected   Kind = "inspected"   // an agent told what a machine is made of
	KindIssued      Kind = "issued"      // a credential was issued; Expires says until when
	KindEnded       Kind = "ended"       // a credential opens nothing any more
	KindCluster     Kind = "cluster"     // the server did something in the host's cluster
	KindAsked       Kind = "asked"       // a surface asked, and was answered
	KindServed      Kind = "served"      // bytes were sent
	KindRefused     Kind = "refused"     // something was asked that is not allowed
	KindAlarm       Kind = "alarm"       // a person must look: what opens a run was used where its machine does not, a certificate was asked for by another, a Node is another machine
	KindLease       Kind = "lease"       // an address was leased, refused or given back
	KindForeign     Kind = "foreign"     // another DHCP or PXE server was heard, or a machine took its offer
	KindGap         Kind = "gap"         // evidence was shed under load; Count says how much
)

// Event is one line of evidence. Subject is the host's id, "mac:" and the address of
// a machine that no record describes, or "net:" and the interface of a boot network.
type Event struct {
	Subject  string    `json:"subject"`
	Seq      int64     `json:"seq"` // from 1, without gaps, per subject
	At       time.Time `json:"at"`
	LastAt   time.Time `json:"lastAt,omitzero"` // of the last repetition
	Count    int       `json:"count"`           // repetitions within a minute are one event
	Kind     Kind      `json:"kind"`
	By       string    `json:"by"` // who: op:NAME, dhcp, tftp, http, agent, server
	Surface  Surface   `json:"surface,omitempty"`
	Speaker  Speaker   `json:"speaker,omitempty"`
	Action   string    `json:"action,omitempty"` // of an answer
	Reason   Reason    `json:"reason,omitempty"`
	Run      RunID     `json:"run,omitempty"`
	Stage    Stage     `json:"stage,omitempty"`
	State    State     `json:"state,omitempty"` // the record's state after the event
	Message  string    `json:"message,omitempty"`
	Name     string    `json:"name,omitempty"`   // file or document
	Digest   Digest    `json:"digest,omitempty"` // of the bytes served
	Bytes    int64     `json:"bytes,omitempty"`
	Expires  time.Time `json:"expires,omitzero"` // of the credential that the event is about
	Facts    *Facts    `json:"facts,omitempty"`  // what the machine said
	Mismatch []Signal  `json:"mismatch,omitempty"`
	Checks   []Check   `json:"checks,omitempty"` // what first boot looked at
	Prev     string    `json:"prev,omitempty"`   // Hash of the event before it
	Hash     string    `json:"hash,omitempty"`
}

// UnknownSubject is the subject of evidence about a machine without a record.
func UnknownSubject(m MAC) string {
	if m == "" {
		return "mac:none"
	}
	return "mac:" + string(m)
}

func (e Event) sum() string {
	e.Hash, e.Count, e.LastAt = "", 0, time.Time{}
	e.At = e.At.UTC()
	b, err := json.Marshal(e)
	if err != nil {
		return ""
	}
	return sumOf(b)
}

// SumSize is how many bytes an event's hash has: the first half of a SHA-256.
const SumSize = sha256.Size / 2

func sumOf(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:SumSize])
}

// Seal numbers the event after prev and chains it to it by hash. It returns the
// sealed event, and as the JSON that is stored: what is hashed is encoded once, and
// the hash put behind it. The count and the time of the last repetition are in
// neither: they still grow.
func Seal(prev, e Event) (Event, []byte, error) {
	e.Seq, e.Prev, e.Hash = prev.Seq+1, prev.Hash, ""
	if e.Count == 0 {
		e.Count = 1
	}
	plain := e
	plain.Count, plain.LastAt, plain.At = 0, time.Time{}, e.At.UTC()
	b, err := json.Marshal(plain)
	if err != nil {
		return e, nil, fmt.Errorf("encode an event: %w", err)
	}
	e.Hash = sumOf(b)
	return e, append(b[:len(b)-1], `,"hash":"`+e.Hash+`"}`...), nil
}

// VerifyChain checks events of one subject in ascending order, and returns the
// first that was changed, or whose predecessor is missing; ok is true when none is.
// The first event given is taken on trust as the chain's beginning unless its Seq is 1.
func VerifyChain(events []Event) (bad Event, ok bool) {
	for i, e := range events {
		switch {
		case e.Hash != e.sum():
			return e, false
		case i == 0 && e.Seq == 1 && e.Prev != "":
			return e, false
		case i > 0 && (e.Prev != events[i-1].Hash || e.Seq != events[i-1].Seq+1):
			return e, false
		}
	}
	return Event{}, true
}

// VerifyWhole checks that events are all of a subject's from its first on, and
// unchanged. That the last ones were cut off cannot be seen.
func VerifyWhole(subject string, events []Event) error {
	switch {
	case len(events) == 0:
		return Errorf(NotFound, "%s has no evidence at all: a record has at least the line that enrolled it", subject)
	case events[0].Seq != 1:
		return Errorf(Conflict, "the evidence of %s begins with event %d: what came before was removed", subject, events[0].Seq)
	}
	if bad, ok := VerifyChain(events); !ok {
		return Errorf(Conflict, "the evidence of %s is broken at event %d: it was changed, or its predecessor is missing", subject, bad.Seq)
	}
	return nil
}

// coalesceWindow is how long repetitions count as one event.
const coalesceWindow = time.Minute

// Coalesce merges next into prev when it only repeats it: the same answer to the
// same question within a minute of the first.
func Coalesce(prev, next Event) (Event, bool) {
	if prev.Kind != next.Kind || next.At.Before(prev.At) || next.At.Sub(prev.At) >= coalesceWindow || !repeats(prev, next) {
		return prev, false
	}
	prev.Count += max(next.Count, 1)
	prev.LastAt = next.At
	if next.LastAt.After(next.At) { // next was counted already
		prev.LastAt = next.LastAt
	}
	return prev, true
}

// Lasting reports whether an event of this kind says how a record came to be what
// it is. The others say what was asked and told; they come by the hundred.
func (k Kind) Lasting() bool {
	return !slices.Contains([]Kind{KindAsked, KindServed, KindRefused, KindAlarm, KindLease, KindForeign, KindGap, KindProgress}, k)
}

func repeats(a, b Event) bool {
	if a.Kind.Lasting() || a.Kind == KindProgress {
		return false // a change of the record is never a repetition
	}
	same := a.Subject == b.Subject && a.Surface == b.Surface && a.Speaker == b.Speaker && a.Action == b.Action &&
		a.Reason == b.Reason && a.Run == b.Run && a.Stage == b.Stage && a.Name == b.Name && a.Digest == b.Digest && a.Message == b.Message
	return same && sameFacts(a.Facts, b.Facts)
}

func sameFacts(a, b *Facts) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.MAC == b.MAC && a.UUID == b.UUID && a.Serial == b.Serial && a.AssetTag == b.AssetTag &&
		a.Arch == b.Arch && a.Firmware == b.Firmware && a.Relay == b.Relay && slices.Equal(a.MACs, b.MACs)
}

// CoalesceKey groups events that may be repetitions of each other: two events
// with different keys never coalesce.
func (e Event) CoalesceKey() string {
	k := e.Subject + "\x00" + string(e.Kind) + "\x00" + string(e.Surface) + "\x00" + string(e.Speaker) + "\x00" + e.Action +
		"\x00" + string(e.Reason) + "\x00" + e.Name + "\x00" + string(e.Digest)
	if e.Facts != nil {
		k += "\x00" + string(e.Facts.UUID) + "\x00" + e.Facts.Serial
	}
	return k
}
