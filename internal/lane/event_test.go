package lane

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// chain is a sound chain of n events, as a store would give it back.
func chain(t *testing.T, n int) []Event {
	t.Helper()
	var out []Event
	var prev Event
	for i := range n {
		e := Event{Subject: "node-a", At: armedAt.Add(time.Duration(i) * time.Minute), Kind: KindAsked, By: "dhcp", Surface: SurfaceDHCP, Reason: HostNew,
			Message: fmt.Sprint("event ", i), Facts: &Facts{MAC: identityA.MACs[0]}, Mismatch: []Signal{{"uuid", "a", "b", "node-a"}}}
		prev = sealed(prev, e)
		out = append(out, stored(t, prev))
	}
	return out
}

// stored returns an event as it comes back from JSON.
func stored(t *testing.T, e Event) Event {
	t.Helper()
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var back Event
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	return back
}

// sealed drops what only the store needs.
func sealed(prev, e Event) Event {
	e, _, err := Seal(prev, e)
	if err != nil {
		panic(err)
	}
	return e
}

// TestSealText: what is stored, read back, is the event that was sealed.
func TestSealText(t *testing.T) {
	e, text, err := Seal(Event{Seq: 4, Hash: "before"}, Event{Subject: "n1", At: time.Date(2026, 5, 4, 3, 2, 1, 5000, time.UTC), Kind: KindAsked, Message: "a \"quoted\" word", Facts: &Facts{MAC: "52:54:00:00:00:01"}})
	if err != nil {
		t.Fatal(err)
	}
	var back Event
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	back.Count = e.Count
	if jsonOf(t, back) != jsonOf(t, e) || e.Seq != 5 || e.Prev != "before" {
		t.Errorf("stored %s, sealed %+v", text, e)
	}
	if bad, ok := VerifyChain([]Event{back}); !ok {
		t.Errorf("the stored text does not verify: %+v", bad)
	}
}

func TestSeal(t *testing.T) {
	events := chain(t, 3)
	for i, e := range events {
		if e.Seq != int64(i+1) || e.Count != 1 || len(e.Hash) != 32 || i > 0 && e.Prev != events[i-1].Hash || i == 0 && e.Prev != "" {
			t.Errorf("event %d: seq %d, count %d, hash %q after %q", i, e.Seq, e.Count, e.Hash, e.Prev)
		}
	}
	here := Event{At: time.Date(2026, 5, 1, 14, 0, 0, 0, time.FixedZone("", 7200))}
	there := Event{At: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	if sealed(Event{}, here).Hash != sealed(Event{}, there).Hash {
		t.Error("the time zone changes the hash")
	}
	elsewhere := sealed(Event{}, there)
	elsewhere.At = here.At // a database may give back its own time zone
	if bad, ok := VerifyChain([]Event{elsewhere}); !ok {
		t.Errorf("read in another time zone, %+v does not verify", bad)
	}
	if e := sealed(Event{}, Event{Count: 5}); e.Count != 5 {
		t.Errorf("count %d", e.Count)
	}
}

// A whole chain has a beginning; a part of one is sound only as a part.
func TestVerifyWhole(t *testing.T) {
	for _, c := range []struct {
		name, want string // empty: it is whole
		edit       func(e []Event) []Event
	}{
		{"whole", "", func(e []Event) []Event { return e }},
		{"nothing left", "no evidence at all", func([]Event) []Event { return nil }},
		{"beginning removed", "begins with event 3", func(e []Event) []Event { return e[2:] }},
		{"changed", "broken at event 2", func(e []Event) []Event { e[1].Message = "x"; return e }},
	} {
		err := VerifyWhole("node-a", c.edit(chain(t, 5)))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestVerifyChain(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(e []Event) []Event
		bad  int64 // the Seq that is blamed; 0: none
	}{
		{"sound", func(e []Event) []Event { return e }, 0},
		{"empty", func([]Event) []Event { return nil }, 0},
		{"a part of it", func(e []Event) []Event { return e[2:] }, 0},
		{"counted since", func(e []Event) []Event { e[1].Count, e[1].LastAt = 7, armedAt; return e }, 0},
		{"message changed", func(e []Event) []Event { e[1].Message = "nothing happened"; return e }, 2},
		{"time changed", func(e []Event) []Event { e[1].At = e[1].At.Add(time.Second); return e }, 2},
		{"subject changed", func(e []Event) []Event { e[2].Subject = "node-b"; return e }, 3},
		{"reason changed", func(e []Event) []Event { e[0].Reason = Granted; return e }, 1},
		{"facts changed", func(e []Event) []Event { e[0].Facts.MAC = "x"; return e }, 1},
		{"signal changed", func(e []Event) []Event { e[3].Mismatch[0].Seen = "a"; return e }, 4},
		{"one is missing", func(e []Event) []Event { return slices.Delete(e, 1, 2) }, 3},
		{"one is missing, numbers mended", func(e []Event) []Event { e = slices.Delete(e, 1, 2); e[1].Seq = 2; return e }, 2},
		{"one is missing, resealed", func(e []Event) []Event { e = slices.Delete(e, 1, 2); e[1] = sealed(e[0], e[1]); return e }, 4},
		{"swapped", func(e []Event) []Event { e[1], e[2] = e[2], e[1]; return e }, 3},
		{"the first is not the first", func(e []Event) []Event {
			e[0] = sealed(Event{Hash: "x"}, e[0])
			e[0].Seq = 1
			e[0].Hash = e[0].sum()
			return e
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad, ok := VerifyChain(c.edit(chain(t, 5)))
			if ok != (c.bad == 0) || bad.Seq != c.bad {
				t.Errorf("blames %d, %v; want %d", bad.Seq, ok, c.bad)
			}
		})
	}
}

func TestCoalesce(t *testing.T) {
	base := Event{Subject: "node-a", At: armedAt, Kind: KindAsked, By: "dhcp", Surface: SurfaceDHCP, Speaker: SpeakerROM, Action: "hold", Reason: UnknownMachine, Run: "r-1", Stage: StageArmed,
		Name: "x", Digest: rightBundle, Message: "no", Count: 1, Facts: &Facts{MAC: "52:54:00:00:00:a1", UUID: identityA.UUID, Serial: "S", AssetTag: "T", Arch: X86_64, Firmware: UEFI, MACs: []MAC{"52:54:00:00:00:a2"}}}
	for _, c := range []struct {
		name string
		edit func(*Event)
		same bool
	}{
		{"at once", func(*Event) {}, true},
		{"within the minute", func(e *Event) { e.At = armedAt.Add(time.Minute - 1) }, true},
		{"from another address", func(e *Event) { e.Facts.From = "10.0.0.9" }, true},
		{"after the minute", func(e *Event) { e.At = armedAt.Add(time.Minute) }, false},
		{"earlier", func(e *Event) { e.At = armedAt.Add(-1) }, false},
		{"subject", func(e *Event) { e.Subject = "node-b" }, false},
		{"kind", func(e *Event) { e.Kind = KindServed }, false},
		{"surface", func(e *Event) { e.Surface = SurfaceTFTP }, false},
		{"speaker", func(e *Event) { e.Speaker = SpeakerLoader }, false},
		{"action", func(e *Event) { e.Action = "install" }, false},
		{"reason", func(e *Event) { e.Reason = Granted }, false},
		{"run", func(e *Event) { e.Run = "r-2" }, false},
		{"stage", func(e *Event) { e.Stage = StageKernel }, false},
		{"name", func(e *Event) { e.Name = "y" }, false},
		{"digest", func(e *Event) { e.Digest = anotherBundle }, false},
		{"message", func(e *Event) { e.Message = "yes" }, false},
		{"mac", func(e *Event) { e.Facts.MAC = "52:54:00:00:00:a9" }, false},
		{"macs", func(e *Event) { e.Facts.MACs = nil }, false},
		{"uuid", func(e *Event) { e.Facts.UUID = "" }, false},
		{"serial", func(e *Event) { e.Facts.Serial = "" }, false},
		{"asset tag", func(e *Event) { e.Facts.AssetTag = "" }, false},
		{"arch", func(e *Event) { e.Facts.Arch = ARM64 }, false},
		{"firmware", func(e *Event) { e.Facts.Firmware = BIOS }, false},
		{"no facts", func(e *Event) { e.Facts = nil }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			next := base
			facts := *base.Facts
			next.Facts = &facts
			next.At = armedAt.Add(time.Second)
			c.edit(&next)
			got, same := Coalesce(base, next)
			if same != c.same {
				t.Fatalf("merged %v", same)
			}
			if want := base.Count + 1; same && (got.Count != want || !got.LastAt.Equal(next.At) || !got.At.Equal(base.At)) || !same && got.Count != base.Count {
				t.Errorf("count %d, last at %s", got.Count, got.LastAt)
			}
			if same && base.CoalesceKey() != next.CoalesceKey() {
				t.Error("events that merge have different keys: they would never meet")
			}
		})
	}
	t.Run("several at once", func(t *testing.T) {
		next := base
		next.Count = 41
		if got, _ := Coalesce(base, next); got.Count != 42 {
			t.Errorf("count %d", got.Count)
		}
	})
	t.Run("a change of state is never a repetition", func(t *testing.T) {
		for _, k := range []Kind{KindEnrolled, KindUpdated, KindArmed, KindStage, KindProgress, KindInstalled, KindFailed, KindCancelled, KindExpired, KindQuarantined, KindAccepted, KindReleased, KindRetired} {
			e := base
			e.Kind = k
			if _, same := Coalesce(e, e); same {
				t.Errorf("%s merges", k)
			}
		}
	})
}

func TestUnknownSubject(t *testing.T) {
	if s := UnknownSubject("52:54:00:12:34:56"); s != "mac:52:54:00:12:34:56" {
		t.Error(s)
	}
	if s := UnknownSubject(""); s != "mac:none" {
		t.Error(s)
	}
}
