package cli

import (
	"strings"
	"testing"
	"time"

	"bootlane/internal/lane"
)

// TestShowServed: of each file the last bytes, in the order in which they were first served.
func TestShowServed(t *testing.T) {
	at := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	f := func(minute int, name, digest string, by lane.Surface) lane.Fetch {
		return lane.Fetch{At: at.Add(time.Duration(minute) * time.Minute), Name: name, Digest: lane.Digest("sha256:" + digest), Bytes: 2_000_000, By: by}
	}
	var out strings.Builder
	showServed(&out, lane.BootChain{Links: []lane.ChainLink{{Fetched: []lane.Fetch{f(0, "shimx64.efi", "a", lane.SurfaceTFTP), f(9, "shimx64.efi", "c", lane.SurfaceTFTP)}}},
		Others: []lane.Fetch{f(1, "linux", "b", lane.SurfaceHTTP)}})
	want := "  served  shimx64.efi  sha256:c  2.0 MB by tftp\n  served  linux  sha256:b  2.0 MB by http\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
