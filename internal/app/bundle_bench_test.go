package app_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bootlane/internal/bundle"
	"bootlane/internal/control"
	"bootlane/internal/lane"
	"bootlane/internal/trust"
)

// BenchmarkBundleList asks as `bootlane bundle list` does, of a store with a thousand
// signed bundles.
func BenchmarkBundleList(b *testing.B) {
	dir := b.TempDir()
	private, public, err := trust.NewKey(rand.Reader, "")
	check(b, err)
	signer, err := trust.FromFile(private, "")
	check(b, err)
	file := filepath.Join(dir, "trust.yaml")
	check(b, os.WriteFile(file, []byte("version: 1\nthreshold: 1\nkeys: [{name: bench, key: "+strings.Split(strings.TrimSpace(string(public)), "\n")[1]+"}]\n"), 0o644))
	keeper, err := trust.Open(file, filepath.Join(dir, "accepted"), time.Now)
	check(b, err)
	bundles, err := bundle.NewStore(filepath.Join(dir, "bundles"), keeper)
	check(b, err)
	s, stop := opened(b, dir, time.Now)
	defer stop()
	c := control.New(control.Config{Store: s, Bundles: bundles, Now: time.Now, Rand: rand.Reader})
	const count = 1000
	from := filepath.Join(dir, "from")
	check(b, os.Mkdir(from, 0o755))
	for _, f := range []string{"linux", "initrd"} {
		check(b, os.WriteFile(filepath.Join(from, f), []byte(f), 0o644))
	}
	for i := range count {
		check(b, os.WriteFile(filepath.Join(from, bundle.ManifestName), fmt.Appendf(nil, "name: sys\nversion: \"%d\"\nos: debian\narch: x86_64\nseed: nocloud/1\nkernel: linux\ninitrd: initrd\n", i+1), 0o644))
		f, err := bundle.Build(b.Context(), from)
		check(b, err)
		sig, err := signer.Sign(f.Manifest, bundle.CanonicalName, time.Now())
		check(b, err)
		check(b, os.WriteFile(filepath.Join(from, bundle.CanonicalName+bundle.SignatureExt), sig, 0o644))
		_, err = c.BundleImport(b.Context(), lane.BundleImport{Dir: from, By: "op:bench"})
		check(b, err)
	}
	for b.Loop() {
		if list, err := c.BundleList(b.Context()); err != nil || len(list) != count || list[0].Refused != "" {
			b.Fatal(len(list), err)
		}
	}
}
