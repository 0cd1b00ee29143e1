package uefi_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"bootlane/internal/uefi"
)

// TestMutations changes bytes in the headers, the tables and the sections that are read
// of real images, thousands of times, and cuts them short: an answer must come, and no changed
// byte that is signed may pass.
func TestMutations(t *testing.T) {
	t.Parallel()
	policy := uefi.Policy{Firmware: firmware(t, uefi.MicrosoftBoth), Now: day}
	policy.Firmware.DB = policy.Firmware.DB.Join(database(t, debianCA))
	for path, times := range map[string]int{shimFile: 1000, fallbackFile: 4000} {
		r := rand.New(rand.NewPCG(7, 7))
		data := read(t, path)
		table := tableAt(data)
		for n := range times {
			b := bytes.Clone(data)
			where := "headers"
			for range 1 + r.IntN(4) {
				at := r.IntN(0x400)
				if n%4 == 0 {
					where, at = "certificate table", table+r.IntN(len(data)-table)
				}
				b[at] = byte(r.Uint32())
			}
			if n%16 == 0 {
				where, b = "length", b[:r.IntN(len(b))]
			}
			p := uefi.Prove(policy, []uefi.File{{Name: "image", Data: b}})
			// What is not signed: the checksum and the table itself.
			if p.Proven && where != "certificate table" && !sameButChecksum(b, data) {
				t.Errorf("%s: mutation %d of the %s passes", path, n, where)
			}
			if _, err := uefi.Inspect(uefi.File{Name: "image", Data: b}, day); err == nil {
				p.Text(new(bytes.Buffer))
			}
		}
	}
}

// sameButChecksum: before its PE header, where e_lfanew points, the DOS stub is signed too.
func sameButChecksum(a, b []byte) bool {
	const pe = 0x80
	at := pe + 24 + 64
	return len(a) == len(b) && bytes.Equal(a[:at], b[:at]) && bytes.Equal(a[at+4:], b[at+4:])
}

// TestManySections: sections that overlap thousands of times must not take for ever.
func TestManySections(t *testing.T) {
	var parts []part
	for range 20 {
		parts = append(parts, text())
	}
	b := build(uefi.MachineX64, parts...)
	for i := range 20 { // each is the whole file
		h := b[64+24+240+40*i:]
		copy(h[16:], []byte{0, byte(len(b) >> 8), byte(len(b) >> 16), 0, 0, 0, 0, 0})
	}
	im, err := uefi.ParseImage(b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := im.Digest(5); err == nil {
		t.Error("overlapping sections have a digest")
	}
}

// BenchmarkChain proves shim, GRUB and kernel of Debian 12 from their bytes.
func BenchmarkChain(b *testing.B) {
	files := debianChain(b)
	policy := uefi.Policy{Firmware: firmware(b, uefi.MicrosoftBoth), Now: day}
	n := 0
	for _, f := range files {
		n += len(f.Data)
	}
	b.SetBytes(int64(n))
	for b.Loop() {
		if p := uefi.Prove(policy, files); !p.Proven {
			b.Fatal(p.Why())
		}
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/chain")
}

// BenchmarkChainRevoked does so with a dbx that has digests of both kinds: each image is
// then read twice.
func BenchmarkChainRevoked(b *testing.B) {
	files := debianChain(b)
	var sums [][]byte
	for i := range 500 {
		sums = append(sums, bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 16))
	}
	policy := uefi.Policy{Firmware: firmware(b, uefi.MicrosoftBoth), Now: day}
	policy.Firmware.DBX = lists(b, list(kindSHA256, sums...), list(kindSHA1, make([]byte, 20)))
	for b.Loop() {
		if p := uefi.Prove(policy, files); !p.Proven {
			b.Fatal(p.Why())
		}
	}
}
