package lane_test

import (
	"testing"
	"time"

	"bootlane/internal/lane"
)

func BenchmarkDecide(b *testing.B) {
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	h := lane.Host{ID: "n1", State: lane.StateProvisioning, Arch: lane.X86_64,
		Identity: lane.Identity{UUID: "4c4c4544-0042-3510-8052-b4c04f4a3232", MACs: []lane.MAC{"52:54:00:00:00:01", "52:54:00:00:00:02"}, Serial: "S1", AssetTag: "A1"},
		Run:      lane.Run{ID: "r-1", Open: true, Bundle: "sha256:1", Armed: now.Add(-time.Minute), Deadline: now.Add(time.Hour), Boots: 2, Stage: lane.StageLoader}}
	f := lane.Facts{Surface: lane.SurfaceHTTP, Speaker: lane.SpeakerLoader, UUID: h.Identity.UUID, MAC: h.Identity.MACs[0], MACs: h.Identity.MACs, Serial: "S1", AssetTag: "A1", Arch: lane.X86_64}
	bundle := lane.Bundle{Digest: "sha256:1", Arch: lane.X86_64}
	hosts := []lane.Host{h}
	b.ReportAllocs()
	for b.Loop() {
		if d := lane.Decide(hosts, f, bundle, lane.Policy{}, now); d.Action != lane.Install {
			b.Fatal(d)
		}
	}
}
