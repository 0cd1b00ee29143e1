package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestTPMStarts: also in a directory whose name is longer than a socket's may be, and after
// its power was cut.
func TestTPMStarts(t *testing.T) {
	l := &Lab{cfg: Config{Now: time.Now}, dir: filepath.Join(t.TempDir(), strings.Repeat("long", 30))}
	m := &Machine{Name: "node", TPM: "chip", lab: l}
	if err := os.Mkdir(l.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.startTPM(t.Context()); err != nil {
			t.Fatalf("%v (package swtpm)", err)
		}
		if m.stop(); !m.chip.ended() {
			t.Fatal("the TPM runs on")
		}
	}
}
