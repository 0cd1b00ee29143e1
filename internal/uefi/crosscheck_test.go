package uefi_test

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"bootlane/internal/uefi"
)

// builtIn returns Microsoft's CA of a year as a database, and as a file for sbverify.
func builtIn(t *testing.T, name string) (uefi.Database, string) {
	f, ok, err := uefi.BuiltIn(name)
	if err != nil || !ok {
		t.Fatalf("%s: %v, %v", name, ok, err)
	}
	return f.DB, toPEM(t, f.DB.Certificates[0].Raw)
}

func toPEM(t *testing.T, der []byte) string {
	out := filepath.Join(t.TempDir(), "cert.pem")
	must(t, "openssl", "x509", "-inform", "DER", "-in", write(t, der), "-out", out)
	return out
}

// both asks us and sbverify whether an image is signed by one certificate. Ours takes
// the image as a first stage: no rule of shim is in it.
func both(t *testing.T, data []byte, db uefi.Database, pem string) (ours, theirs bool, why string) {
	t.Helper()
	proof := uefi.Prove(uefi.Policy{Firmware: uefi.Firmware{DB: db}}, []uefi.File{{Name: "image", Data: data}})
	out, ok := tool(t, "sbverify", "--cert", pem, write(t, data))
	return proof.Proven, ok, fmt.Sprintf("%+v\n%s", proof.Links[0].Broken, out)
}

// theirDigest is the digest that sbverify computes: it tells it when it is given the
// signature of another image.
func theirDigest(t *testing.T, data []byte, foreign, pem string) string {
	out, _ := tool(t, "sbverify", "--cert", pem, "--detached", foreign, write(t, data))
	m := regexp.MustCompile(`expecting: ([0-9a-f]{64})`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("sbverify tells no digest:\n%s", out)
	}
	return m[1]
}

func digest(t *testing.T, data []byte) string {
	im, err := uefi.ParseImage(data)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := im.Digest(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum)
}

// TestAgainstSbverify compares digest and verdict with sbverify's on Debian's signed
// files: as they are, tampered with, stripped, signed again, and unsigned.
func TestAgainstSbverify(t *testing.T) {
	t.Parallel()
	ms2011, ms2011PEM := builtIn(t, uefi.Microsoft2011)
	ms2023, ms2023PEM := builtIn(t, uefi.Microsoft2023)
	debian, debianPEM := database(t, debianCA), toPEM(t, read(t, debianCA))
	own := newKey(t)
	foreign := filepath.Join(t.TempDir(), "foreign.p7")
	must(t, "sbattach", "--detach", foreign, write(t, own.sign(t, build(uefi.MachineX64, text()))))

	type trust struct {
		name string
		db   uefi.Database
		pem  string
	}
	for _, f := range []struct {
		path string
		good []trust
		bad  []trust
	}{
		// With another CA, sbverify calls shim good as well: it trusts the CA that comes
		// in the signature itself. Ours must not, TestProve has that.
		{shimFile, []trust{{"2011", ms2011, ms2011PEM}, {"2023", ms2023, ms2023PEM}}, nil},
		{mokFile, []trust{{"debian", debian, debianPEM}}, []trust{{"2011", ms2011, ms2011PEM}, {"own", own.db(t), own.ca}}},
		{fallbackFile, []trust{{"debian", debian, debianPEM}}, []trust{{"2023", ms2023, ms2023PEM}}},
		{grubFile, []trust{{"debian", debian, debianPEM}}, []trust{{"2011", ms2011, ms2011PEM}}},
		{kernelFile, []trust{{"debian", debian, debianPEM}}, []trust{{"own", own.db(t), own.ca}}},
	} {
		t.Run(filepath.Base(f.path), func(t *testing.T) {
			data := read(t, f.path)
			check := func(what string, data []byte, tr trust, want bool) {
				t.Helper()
				ours, theirs, why := both(t, data, tr.db, tr.pem)
				if ours != want || theirs != want {
					t.Errorf("%s, trusting %s: we say %v, sbverify %v, want %v\n%s", what, tr.name, ours, theirs, want, why)
				}
				if a, b := digest(t, data), theirDigest(t, data, foreign, tr.pem); a != b {
					t.Errorf("%s: our digest is %s, sbverify's %s", what, a, b)
				}
			}
			for _, tr := range f.good {
				check("as it is", data, tr, true)
				for what, changed := range tampered(t, data) {
					check(what, changed, tr, false)
				}
			}
			for _, tr := range f.bad {
				check("as it is", data, tr, false)
			}
			stripped := strip(t, data)
			check("stripped", stripped, f.good[0], false)
			check("signed by us", own.sign(t, stripped), trust{"own", own.db(t), own.ca}, true)
			check("signed by us", own.sign(t, stripped), f.good[0], false)
			again := own.sign(t, data) // beside those that are there
			check("signed by us too", again, trust{"own", own.db(t), own.ca}, true)
			check("signed by us too", again, f.good[0], true)
		})
	}
	t.Run("every architecture", func(t *testing.T) {
		for _, m := range []uefi.Machine{uefi.MachineX64, uefi.MachineIA32, uefi.MachineAA64} {
			// The string table of the long name stands behind the sections.
			image := own.sign(t, build(m, text(), part{".sbat", []byte(grubSBAT)}, part{".a.name.so.long", []byte("x")}))
			if ours, theirs, why := both(t, image, own.db(t), own.ca); !ours || !theirs {
				t.Errorf("%s: we say %v, sbverify %v\n%s", m, ours, theirs, why)
			}
			if a, b := digest(t, changed(image, 1100)), theirDigest(t, changed(image, 1100), foreign, own.ca); a != b {
				t.Errorf("%s: our digest is %s, sbverify's %s", m, a, b)
			}
		}
	})
	t.Run("unsigned", func(t *testing.T) {
		data := read(t, unsignedFile)
		if ours, theirs, why := both(t, data, debian, debianPEM); ours || theirs {
			t.Errorf("an unsigned image: we say %v, sbverify %v\n%s", ours, theirs, why)
		}
	})
}

// strip takes away all signatures.
func strip(t *testing.T, data []byte) []byte {
	im, err := uefi.ParseImage(data)
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, data)
	for range im.Signatures {
		must(t, "sbattach", "--remove", path)
	}
	out, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// tampered returns copies with one thing changed, none of which may pass.
func tampered(t *testing.T, data []byte) map[string][]byte {
	flip := func(off int) []byte {
		b := bytes.Clone(data)
		b[off] ^= 0x10
		return b
	}
	pe := int(binary.LittleEndian.Uint32(data[60:]))
	out := map[string][]byte{
		"one bit of code":                              flip(0x1800),
		"one bit of the time stamp":                    flip(pe + 8),
		"one bit of the last section before the table": flip(tableAt(data) - 9),
		"eight bytes appended":                         append(bytes.Clone(data), "appended"...),
	}
	im, err := uefi.ParseImage(data)
	if err != nil {
		t.Fatal(err)
	}
	// In every signature: the digest that it signs, and its last bytes that are not padding.
	b := bytes.Clone(data)
	for _, s := range im.Signatures {
		at := bytes.Index(b, s.Digest)
		b[at] ^= 0x10
	}
	out["one bit of each signed digest"] = b
	return out
}

func tableAt(data []byte) int {
	pe := int(binary.LittleEndian.Uint32(data[60:]))
	return int(binary.LittleEndian.Uint32(data[pe+24+112+32:]))
}

// TestAgainstSbverifyInTheTable turns single bits of the certificate table. Some mean
// nothing (padding, what is not signed), and what is not DER is refused by us only: never may
// we call good what sbverify calls bad.
func TestAgainstSbverifyInTheTable(t *testing.T) {
	t.Parallel()
	debian, debianPEM := database(t, debianCA), toPEM(t, read(t, debianCA))
	data := read(t, fallbackFile)
	r := rand.New(rand.NewPCG(1, 2))
	table := tableAt(data)
	differ := 0
	for range 150 {
		b := bytes.Clone(data)
		at := table + r.IntN(len(data)-table)
		b[at] ^= 1 << r.IntN(8)
		ours, theirs, why := both(t, b, debian, debianPEM)
		if ours && !theirs {
			t.Errorf("bit at %#x: we call good what sbverify calls bad\n%s", at, why)
		}
		if ours != theirs {
			differ++
			t.Logf("bit at %#x: we %v, sbverify %v: %s", at, ours, theirs, why)
		}
	}
	if differ > 15 {
		t.Errorf("of 150 changes, we and sbverify differ about %d", differ)
	}
}
