package lane

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestQuarantineTellsMore(t *testing.T) {
	one, two := []Signal{{"uuid", "a", "b", "node-a"}}, []Signal{{"uuid", "a", "b", "node-a"}, {"mac", "c", "d", "node-a"}}
	rom, script := &Facts{Speaker: SpeakerROM, UUID: identityB.UUID}, &Facts{Speaker: SpeakerLoader, Surface: SurfaceHTTP, UUID: identityB.UUID, Serial: "SN-B"}
	quarantined := func(dispute []Signal, seen *Facts) Host {
		h := in(t, StateProvisioning)
		return must(Quarantine(h, dispute, seen, "server", "first", armedAt.Add(time.Minute)))(t)
	}
	for _, c := range []struct {
		name    string
		h       Host
		dispute []Signal
		seen    *Facts
		news    bool
	}{
		{"of a machine that was not in quarantine", in(t, StateInstalled), one, rom, true},
		{"by an operator, then by a machine", quarantined(nil, nil), one, rom, true},
		{"the same again", quarantined(one, rom), one, rom, false},
		{"more signals", quarantined(one, rom), two, rom, true},
		{"fewer signals", quarantined(two, rom), one, rom, false},
		{"the loader after the firmware", quarantined(one, rom), one, script, true},
		{"the firmware after the loader", quarantined(one, script), one, rom, false},
		{"the loader again", quarantined(one, script), one, script, false},
		{"an operator, of a machine in quarantine", quarantined(one, rom), nil, nil, false},
		{"of a retired machine", in(t, StateRetired), one, rom, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Disputable(c.h, c.dispute, c.seen); got != c.news {
				t.Errorf("Disputable says %v", got)
			}
			next, e, err := Quarantine(c.h, c.dispute, c.seen, "server", "then", later)
			if (err == nil) != c.news || err != nil && CodeOf(err) != Refused {
				t.Fatalf("got %v", err)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(c.dispute, next.Dispute); diff != "" || cmp.Diff(c.seen, next.Seen) != "" || cmp.Diff(c.dispute, e.Mismatch) != "" {
				t.Errorf("both sides are not on record: %+v", next)
			}
			if want := c.h.Resume; next.State != StateQuarantine || want != "" && next.Resume != want || want == "" && next.Resume != c.h.State || next.Note != "then" {
				t.Errorf("state %s, returns to %s, %q", next.State, next.Resume, next.Note)
			}
		})
	}
}

// disputed is a record in quarantine because a machine showed f.
func disputed(t *testing.T, from State, f Facts) Host {
	t.Helper()
	h := in(t, from)
	return must(Quarantine(h, Contradictions(h, f), &f, "server", "disputed", armedAt.Add(10*time.Minute)))(t)
}

func TestAccept(t *testing.T) {
	const newUUID, newMAC = UUID("cccccccc-0011-2233-8899-aabbccddeeff"), MAC("52:54:00:00:00:c1")
	script := func(u UUID, serial, asset string, macs ...MAC) Facts {
		return Facts{Surface: SurfaceHTTP, Speaker: SpeakerLoader, UUID: u, Serial: serial, AssetTag: asset, MAC: macs[0], MACs: macs}
	}
	mine := known().Identity
	both := append(slices.Clone(mine.MACs), newMAC)
	for _, c := range []struct {
		name string
		seen Facts
		what Replacement
		want Identity
		code Code
	}{
		{"board", script(newUUID, "SN-C", "AT-C", newMAC, mine.MACs[0]), ReplacedBoard, Identity{UUID: newUUID, Serial: "SN-C", AssetTag: "AT-C", MACs: both}, ""},
		{"board, seen by firmware only", Facts{Speaker: SpeakerROM, Surface: SurfaceDHCP, UUID: newUUID, MAC: mine.MACs[0]}, ReplacedBoard,
			Identity{UUID: newUUID, Serial: mine.Serial, AssetTag: mine.AssetTag, MACs: mine.MACs}, ""},
		{"board without a serial number", script(newUUID, "", "", mine.MACs[0]), ReplacedBoard, Identity{UUID: newUUID, AssetTag: mine.AssetTag, MACs: mine.MACs}, ""},
		{"board with factory defaults", script(placeholderUUIDs[0], "To be filled by O.E.M.", "Default string", mine.MACs[0]), ReplacedBoard, Identity{MACs: mine.MACs}, ""},
		{"board that shows no UUID", script("", "SN-C", "", mine.MACs[0]), ReplacedBoard, Identity{UUID: mine.UUID, Serial: "SN-C", AssetTag: mine.AssetTag, MACs: mine.MACs}, ""},
		{"NIC", script(mine.UUID, mine.Serial, mine.AssetTag, newMAC), ReplacedNIC, Identity{UUID: mine.UUID, Serial: mine.Serial, AssetTag: mine.AssetTag, MACs: both}, ""},
		{"NIC, but the board differs", script(newUUID, mine.Serial, mine.AssetTag, mine.MACs[0]), ReplacedNIC, Identity{}, Refused},
		{"nothing that there is", script(newUUID, mine.Serial, mine.AssetTag, mine.MACs[0]), "leg", Identity{}, Invalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := disputed(t, StateProvisioning, c.seen)
			next, e, err := Accept(h, c.what, "op:alice", "ticket 7", armedAt.Add(time.Hour))
			if CodeOf(err) != c.code {
				t.Fatalf("got %v, want %q", err, c.code)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(c.want, next.Identity); diff != "" {
				t.Errorf("identity (-want +got):\n%s", diff)
			}
			if left := Contradictions(next, c.seen); len(left) > 0 {
				t.Errorf("the machine is still disputed: %v", left)
			}
			if problems := next.Validate(); len(problems) > 0 {
				t.Errorf("a sound record became unsound: %v", problems)
			}
			if next.State != StateProvisioning || !next.Run.Open || next.Run.ID != h.Run.ID {
				t.Errorf("returned to %s, run %+v", next.State, next.Run)
			}
			if e.Kind != KindAccepted || !strings.Contains(e.Message, h.Identity.String()) || !strings.Contains(e.Message, next.Identity.String()) || !strings.Contains(e.Message, "ticket 7") {
				t.Errorf("the evidence does not say what was and what is: %s", e.Message)
			}
		})
	}
	t.Run("nobody disputes it", func(t *testing.T) {
		h := must(Quarantine(known(), nil, nil, "op:alice", "dusty", armedAt))(t)
		if _, _, err := Accept(h, ReplacedBoard, "op:alice", "", later); CodeOf(err) != Refused || !strings.Contains(err.Error(), "bootlane release node-a") {
			t.Errorf("got %v", err)
		}
	})
}

func TestLeavingQuarantine(t *testing.T) {
	leave := map[string]func(Host, time.Time) (Host, Event, error){
		"release": func(h Host, now time.Time) (Host, Event, error) { return Release(h, "op:alice", "", now) },
		"accept":  func(h Host, now time.Time) (Host, Event, error) { return Accept(h, ReplacedBoard, "op:alice", "", now) },
	}
	seen := Facts{Speaker: SpeakerROM, UUID: identityB.UUID, MAC: identityA.MACs[0]}
	for verb, leave := range leave {
		for _, c := range []struct {
			name string
			from State
			at   time.Duration
			want State
		}{
			{"new", StateNew, time.Hour, StateNew},
			{"installed", StateInstalled, time.Hour, StateInstalled},
			{"failed", StateFailed, time.Hour, StateFailed},
			{"in time", StateProvisioning, time.Hour, StateProvisioning},
			// Nobody may have looked at the deadline meanwhile.
			{"after the deadline", StateProvisioning, 3 * time.Hour, StateFailed},
		} {
			t.Run(verb+"/"+c.name, func(t *testing.T) {
				next, e, err := leave(disputed(t, c.from, seen), armedAt.Add(c.at))
				if err != nil || next.State != c.want || e.State != c.want || next.Run.Open != (c.want == StateProvisioning) || next.Dispute != nil || next.Seen != nil || next.Resume != "" {
					t.Errorf("%v, %+v", err, next)
				}
				if c.from == StateProvisioning && c.want == StateFailed && (next.Run.Outcome != "expired" || next.Note == "") {
					t.Errorf("not said why: %q, outcome %q", next.Note, next.Run.Outcome)
				}
			})
		}
	}
}
