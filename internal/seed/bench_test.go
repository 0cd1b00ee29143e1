package seed

import (
	"testing"

	"bootlane/internal/lane"
)

// BenchmarkDocuments writes all documents of one machine; a server does so for
// each that one asks for.
func BenchmarkDocuments(b *testing.B) {
	for _, seed := range lane.Seeds() {
		b.Run(seed, func(b *testing.B) {
			in := full(seed)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Documents(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
