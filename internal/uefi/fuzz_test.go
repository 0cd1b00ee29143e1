package uefi

import (
	"bytes"
	"crypto"
	"testing"
	"time"
)

// The seeds are small: those in testdata/fuzz were made by the builders of image_test.go,
// and signed by sbsign with keys that are gone. TestMutations changes real images.

func FuzzImage(f *testing.F) {
	f.Add([]byte("MZ"))
	f.Add([]byte("PE\x00\x00"))
	f.Add([]byte{0x1f, 0x8b, 8})
	f.Fuzz(func(t *testing.T, data []byte) {
		now := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
		if r, err := Inspect(File{Name: "f", Data: data}, now); err == nil {
			r.Text(new(bytes.Buffer))
		}
		ms, _, err := BuiltIn(MicrosoftBoth)
		if err != nil {
			t.Fatal(err)
		}
		p := Prove(Policy{Firmware: ms, Now: now}, []File{{Name: "first", Data: data}, {Name: "second", Data: data}})
		p.Text(new(bytes.Buffer))
		if p.Proven {
			t.Error("made-up bytes are proven against Microsoft's certificates")
		}
	})
}

func FuzzSignature(f *testing.F) {
	f.Add([]byte{0x30, 0x80, 0x30, 0x80})
	f.Add(append([]byte{0x30, 0x0d, 0x06, 0x09}, "\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02"...))
	f.Fuzz(func(t *testing.T, data []byte) {
		im := &Image{data: make([]byte, 100), checksum: 10, headers: 90, Size: 100, sums: map[crypto.Hash][]byte{}}
		if s := im.signature(data); s.Err == nil {
			t.Errorf("made-up bytes are a good signature: %+v", s)
		}
	})
}

func FuzzDatabase(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add(append(append([]byte("\x26\x16\xc4\xc1\x4c\x50\x92\x40\xac\xa9\x41\xf9\x36\x93\x43\x28"), 76, 0, 0, 0, 0, 0, 0, 0, 48, 0, 0, 0), make([]byte, 48)...))
	store := append(append(make([]byte, 40), "_FVH"...), 0, 0, 0, 0, 72, 0)
	f.Add(append(store, make([]byte, 100)...))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if d, err := ParseDatabase(data); err == nil && d.Empty() && d.Skipped == 0 {
			return
		}
		fw, err := ParseFirmware("f", data)
		if err == nil {
			Prove(Policy{Firmware: fw}, []File{{Data: data}})
		}
	})
}

func FuzzSBAT(f *testing.F) {
	f.Add([]byte("sbat,1,SBAT Version,sbat,1,url\ngrub,5,FSF,grub,2.06,url\n"), []byte("sbat,1,2025021800\nshim,4\ngrub,5\n"))
	f.Add([]byte("grub"), []byte("\x07\x00\x00\x00sbat,1,2025021800\n"))
	f.Fuzz(func(t *testing.T, section, level []byte) {
		components, err := parseSBAT(section)
		if err == nil && len(components) == 0 {
			t.Error("no components, and no error")
		}
		if l, err := ParseLevel(level); err == nil {
			low, want, yes := l.below(components)
			if yes && low.Generation >= want {
				t.Errorf("%+v is not below %d", low, want)
			}
		}
	})
}

func FuzzShim(f *testing.F) {
	f.Add(make([]byte, 16), []byte("\x00\x00\x00\x00\x08\x00\x00\x00\x1b\x00\x00\x00sbat,1,2025021800\n\x00sbat,1,2025051000\n\x00"))
	f.Add([]byte("\x04\x00\x00\x00\x04\x00\x00\x00\x10\x00\x00\x00\x14\x00\x00\x00abcdefgh"), []byte{})
	f.Fuzz(func(_ *testing.T, vendor, levels []byte) {
		s := &Shim{}
		if s.vendor(vendor) == nil && s.levels(levels) == nil {
			s.report().text(new(bytes.Buffer))
		}
	})
}
