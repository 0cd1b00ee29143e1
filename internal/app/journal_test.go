package app

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bootlane/internal/lane"
	"bootlane/internal/store/sqlite"
	"bootlane/internal/store/storetest"
)

// TestJournal: whoever watches the log sees what became of a machine, once it is stored.
func TestJournal(t *testing.T) {
	engine, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	s, _ := storetest.Start(t, engine, time.Now)
	var log bytes.Buffer
	j := journal{s, slog.New(slog.NewTextHandler(&log, nil)), new(alarms)}

	h, _, err := j.Append(t.Context(), lane.Host{ID: "n1", State: lane.StateNew}, lane.Event{Subject: "n1", At: time.Now(), Kind: lane.KindEnrolled, By: "op:t"})
	if err != nil {
		t.Fatal(err)
	}
	if log.Len() > 0 {
		t.Errorf("an import logs %s", log.String())
	}
	stale := h
	h.State = lane.StateQuarantine
	e := lane.Event{Subject: "n1", At: time.Now(), Kind: lane.KindQuarantined, By: "http", Message: "another board\nlevel=ERROR"}
	if _, _, err := j.Append(t.Context(), h, e); err != nil {
		t.Fatal(err)
	}
	got := log.String()
	if !strings.Contains(got, "level=WARN") || !strings.Contains(got, "quarantined: another board") || !strings.Contains(got, "host=n1 state=quarantine by=http") || strings.Count(got, "\n") != 1 {
		t.Errorf("logged %q", got)
	}
	log.Reset()
	if _, _, err := j.Append(t.Context(), stale, e); lane.CodeOf(err) != lane.Conflict {
		t.Fatalf("stale: %v", err)
	}
	if log.Len() > 0 {
		t.Errorf("what was not stored is logged: %s", log.String())
	}

	// An alarm is a warning, and a flood of them a few.
	log.Reset()
	for i := range 100 {
		j.Record(lane.Event{Subject: "n1", At: e.At.Add(time.Duration(i) * 200 * time.Millisecond), Kind: lane.KindAlarm, By: "http", Message: "used from 10.0.0.66"})
	}
	if got := log.String(); strings.Count(got, "alarm: used from 10.0.0.66") != 2 || !strings.Contains(got, "level=WARN") || !strings.Contains(got, "subject=n1") {
		t.Errorf("logged %q", got)
	}
}
