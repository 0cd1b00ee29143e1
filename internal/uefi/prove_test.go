package uefi_test

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bootlane/internal/uefi"
)

// day is when tests are: Microsoft's CA of 2011 is expired.
var day = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func firmware(t testing.TB, name string) uefi.Firmware {
	t.Helper()
	f, ok, err := uefi.BuiltIn(name)
	if err != nil || !ok {
		t.Fatalf("%s: %v, %v", name, ok, err)
	}
	return f
}

func debianChain(t testing.TB) []uefi.File {
	return []uefi.File{{Name: "shim", Data: read(t, shimFile)}, {Name: "grub", Data: read(t, grubFile)}, {Name: "linux", Data: read(t, kernelFile)}}
}

// der returns the certificate of a PEM file.
func der(t testing.TB, path string) []byte {
	b, _ := pem.Decode(read(t, path))
	return b.Bytes
}

// ids lists what was found, as "file!id" for what breaks and "file?id" for warnings.
func ids(p uefi.Proof) (out []string) {
	for _, l := range p.Links {
		for _, f := range l.Broken {
			out = append(out, l.File+"!"+string(f.ID))
		}
		for _, f := range l.Warnings {
			out = append(out, l.File+"?"+string(f.ID))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// lists wraps what a test puts in dbx.
func lists(t testing.TB, raw ...[]byte) uefi.Database {
	t.Helper()
	d, err := uefi.ParseDatabase(bytes.Join(raw, nil))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDebianChain(t *testing.T) {
	for name, by := range map[string]string{uefi.Microsoft2011: "Microsoft Corporation UEFI CA 2011", uefi.Microsoft2023: "Microsoft UEFI CA 2023", uefi.MicrosoftBoth: "Microsoft Corporation UEFI CA 2011"} {
		p := uefi.Prove(uefi.Policy{Firmware: firmware(t, name), Now: day}, debianChain(t))
		if !p.Proven || p.Links[0].By.Subject != by || p.Links[1].By.Subject != "Debian Secure Boot CA" || p.Links[2].By.In != "shim's vendor certificate" {
			t.Errorf("%s: %+v", name, p)
		}
		if got := ids(p); !slices.Equal(got, []string{"shim?expired-certificate"}) {
			t.Errorf("%s: found %v", name, got)
		}
	}
	store, err := uefi.ParseFirmware("store", read(t, storeFile))
	if err != nil {
		t.Fatal(err)
	}
	if p := uefi.Prove(uefi.Policy{Firmware: store}, debianChain(t)); !p.Proven || len(ids(p)) > 0 {
		t.Errorf("OVMF's own store: %v", ids(p))
	}
}

// TestBrokenChains breaks one thing at a time, and wants that one found.
func TestBrokenChains(t *testing.T) {
	own := newKey(t)
	ownDER := der(t, own.ca)
	x64 := uefi.MachineX64
	const level, later = "sbat,1,2025021800\nshim,4\ngrub,5\n", "sbat,1,2026010100\nshim,4\ngrub,6\n"
	shimSBAT := "sbat,1,SBAT Version,sbat,1,url\nshim,4,UEFI shim,shim,1,url\n"
	shim := own.sign(t, testShim(x64, ownDER, nil, shimSBAT, level, level))
	grub := own.sign(t, build(x64, text(), part{".sbat", []byte(grubSBAT)}))
	oldGRUB := own.sign(t, build(x64, text(), part{".sbat", []byte(strings.Replace(grubSBAT, "grub,5", "grub,4", 1))}))
	plain := own.sign(t, build(x64, text()))
	grubSum := sha256.Sum256(ownDER) // replaced below by what is meant
	im, err := uefi.ParseImage(grub)
	if err != nil {
		t.Fatal(err)
	}
	copy(grubSum[:], im.Signatures[0].Digest)
	leaf := der(t, own.cert)
	cert, err := x509.ParseCertificate(leaf)
	if err != nil {
		t.Fatal(err)
	}
	tbs := sha256.Sum256(cert.RawTBSCertificate)
	ownFirmware := uefi.Firmware{Name: "own", DB: own.db(t)}
	newer, err := uefi.ParseLevel([]byte(later))
	if err != nil {
		t.Fatal(err)
	}
	with := func(dbx ...[]byte) uefi.Policy {
		return uefi.Policy{Firmware: uefi.Firmware{DB: own.db(t), DBX: lists(t, dbx...)}}
	}
	debian := debianChain(t)
	stock := uefi.Policy{Firmware: firmware(t, uefi.MicrosoftBoth)}
	for name, c := range map[string]struct {
		policy uefi.Policy
		files  [][]byte
		want   []string
	}{
		"holds":                    {uefi.Policy{Firmware: ownFirmware}, [][]byte{shim, grub, plain}, nil},
		"one image":                {uefi.Policy{Firmware: ownFirmware}, [][]byte{plain}, nil},
		"no image":                 {uefi.Policy{Firmware: ownFirmware}, nil, nil},
		"unsigned":                 {uefi.Policy{Firmware: ownFirmware}, [][]byte{shim, build(x64, text(), part{".sbat", []byte(grubSBAT)}), plain}, []string{"1!unsigned"}},
		"not an image":             {uefi.Policy{Firmware: ownFirmware}, [][]byte{shim, []byte("#!ipxe"), plain}, []string{"1!not-an-image"}},
		"wrong architecture":       {uefi.Policy{Firmware: ownFirmware}, [][]byte{shim, own.sign(t, build(uefi.MachineAA64, text(), part{".sbat", []byte(grubSBAT)})), plain}, []string{"1!wrong-architecture"}},
		"second stage, no SBAT":    {uefi.Policy{Firmware: ownFirmware}, [][]byte{shim, plain}, []string{"1!sbat-missing"}},
		"bad SBAT":                 {uefi.Policy{Firmware: ownFirmware}, [][]byte{shim, own.sign(t, build(x64, text(), part{".sbat", []byte("grub,5\n")}))}, []string{"1!sbat-damaged"}},
		"SB-04 SBAT below":         {uefi.Policy{Firmware: ownFirmware}, [][]byte{shim, oldGRUB, plain}, []string{"1!sbat-below-level"}},
		"SBAT below a given level": {uefi.Policy{Firmware: ownFirmware, SBAT: &newer}, [][]byte{shim, grub, plain}, []string{"1!sbat-below-level"}},
		"SBAT near":                {uefi.Policy{Firmware: ownFirmware}, [][]byte{own.sign(t, testShim(x64, ownDER, nil, shimSBAT, level, later)), grub}, []string{"1?sbat-near-level"}},
		"shim itself below":        {uefi.Policy{Firmware: ownFirmware}, [][]byte{own.sign(t, testShim(x64, ownDER, nil, strings.Replace(shimSBAT, "shim,4", "shim,3", 1), level, level)), grub}, []string{"0!sbat-below-level"}},
		"damaged vendor section":   {uefi.Policy{Firmware: ownFirmware}, [][]byte{own.sign(t, build(x64, text(), part{".vendor_cert", bytes.Repeat([]byte{9}, 40)}, part{".sbat", []byte(shimSBAT)}))}, []string{"0!shim-damaged"}},
		"old shim":                 {uefi.Policy{Firmware: ownFirmware}, [][]byte{own.sign(t, build(x64, text(), part{".vendor_cert", make([]byte, 16)}, part{".sbat", []byte(shimSBAT)}))}, []string{"0?no-sbat-level"}},
		"GRUB without shim":        {uefi.Policy{Firmware: ownFirmware}, [][]byte{grub, plain}, []string{"0?grub-without-shim"}},

		"dbx by digest":                {with(list(kindSHA256, grubSum[:])), [][]byte{shim, grub, plain}, []string{"1!revoked-image"}},
		"dbx by certificate":           {with(list(kindX509, leaf)), [][]byte{shim}, []string{"0!revoked-certificate"}},
		"dbx by CA":                    {with(list(kindX509, ownDER)), [][]byte{plain}, []string{"0!revoked-certificate"}},
		"dbx by certificate's digest":  {with(list(kindX509SHA256, append(tbs[:], make([]byte, 16)...))), [][]byte{plain}, []string{"0!revoked-certificate"}},
		"dbx of others":                {with(list(kindSHA256, make([]byte, 32), bytes.Repeat([]byte{1}, 32)), list(kindSHA1, make([]byte, 20))), [][]byte{shim, grub, plain}, nil},
		"vendor dbx":                   {uefi.Policy{Firmware: ownFirmware}, [][]byte{own.sign(t, testShim(x64, ownDER, list(kindSHA256, grubSum[:]), shimSBAT, level, level)), grub, plain}, []string{"1!revoked-image"}},
		"db by digest":                 {uefi.Policy{Firmware: uefi.Firmware{DB: lists(t, list(kindSHA256, grubSum[:]))}}, [][]byte{grub}, nil},
		"Debian's shim, our GRUB":      {stock, [][]byte{debian[0].Data, grub, debian[2].Data}, []string{"1!other-vendor"}},
		"the same, MOK":                {uefi.Policy{Firmware: stock.Firmware, MOK: own.db(t)}, [][]byte{debian[0].Data, grub, debian[2].Data}, nil},
		"our shim, Debian's kernel":    {uefi.Policy{Firmware: ownFirmware}, [][]byte{shim, grub, debian[2].Data}, []string{"2!other-vendor"}},
		"Debian's shim, own keys only": {uefi.Policy{Firmware: ownFirmware}, [][]byte{debian[0].Data, debian[1].Data}, []string{"0!untrusted"}},
		"GRUB as first stage":          {stock, [][]byte{debian[1].Data}, []string{"0!untrusted"}},
		"tampered GRUB":                {stock, [][]byte{debian[0].Data, changed(debian[1].Data, 0x1800), debian[2].Data}, []string{"1!changed"}},
		"cut short":                    {stock, [][]byte{debian[0].Data[:len(debian[0].Data)-100]}, []string{"0!damaged-certificate-table"}},
		"32 bits":                      {uefi.Policy{Firmware: ownFirmware}, [][]byte{own.sign(t, build(uefi.MachineIA32, text()))}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var files []uefi.File
			for i, data := range c.files {
				files = append(files, uefi.File{Name: string(rune('0' + i)), Data: data})
			}
			p := uefi.Prove(c.policy, files)
			got := slices.DeleteFunc(ids(p), func(s string) bool { return strings.HasSuffix(s, "expired-certificate") })
			if !slices.Equal(got, c.want) {
				t.Errorf("found %v, want %v\n%+v", got, c.want, p)
			}
			broken := slices.ContainsFunc(c.want, func(s string) bool { return strings.Contains(s, "!") })
			if p.Proven == (broken || len(files) == 0) {
				t.Errorf("proven: %v", p.Proven)
			}
			for _, l := range p.Links {
				for _, f := range l.Broken {
					if f.Text == "" || f.Mend == "" {
						t.Errorf("%s says nothing, or no mend: %+v", f.ID, f)
					}
				}
			}
		})
	}
}

func changed(data []byte, at int) []byte {
	b := bytes.Clone(data)
	b[at] ^= 1
	return b
}

// TestOneMicrosoftCA strips Debian's shim of one of its two signatures.
func TestOneMicrosoftCA(t *testing.T) {
	t.Run("SB-05 a shim signed by one of Microsoft's authorities", oneMicrosoftCA)
}

func oneMicrosoftCA(t *testing.T) {
	path := write(t, read(t, shimFile))
	must(t, "sbattach", "--remove", path)
	data := read(t, path)
	im, err := uefi.ParseImage(data)
	if err != nil || len(im.Signatures) != 1 {
		t.Fatalf("%v: %d signatures", err, len(im.Signatures))
	}
	has, lacks := uefi.Microsoft2011, uefi.Microsoft2023
	if strings.Contains(im.Signatures[0].Signer.Issuer.CommonName, "2023") {
		has, lacks = lacks, has
	}
	files := []uefi.File{{Name: "shim", Data: data}}
	if p := uefi.Prove(uefi.Policy{Firmware: firmware(t, has)}, files); !p.Proven || !slices.Equal(ids(p), []string{"shim?one-microsoft-ca"}) {
		t.Errorf("with %s: %v", has, ids(p))
	}
	if p := uefi.Prove(uefi.Policy{Firmware: firmware(t, lacks)}, files); p.Proven || !slices.Equal(ids(p), []string{"shim!other-microsoft-ca"}) {
		t.Errorf("with %s: %v", lacks, ids(p))
	}
}

// TestSHA1InDBX: old dbx have SHA-1 digests of images.
func TestSHA1InDBX(t *testing.T) {
	data := build(uefi.MachineX64, text())
	h := sha1.New() // of an unsigned image: all but the checksum and the directory entry
	h.Write(data[:64+24+64])
	h.Write(data[64+24+68 : 64+24+112+32])
	h.Write(data[64+24+112+40:])
	p := uefi.Prove(uefi.Policy{Firmware: uefi.Firmware{DBX: lists(t, list(kindSHA1, h.Sum(nil)))}}, []uefi.File{{Name: "image", Data: data}})
	if got := ids(p); !slices.Contains(got, "image!revoked-image") {
		t.Errorf("found %v", got)
	}
}

// TestBuiltInCertificates takes them out of Debian's packages again.
func TestBuiltInCertificates(t *testing.T) {
	for name, in := range map[string]string{uefi.Microsoft2011: storeFile, uefi.Microsoft2023: shimFile} {
		f := firmware(t, name)
		if !bytes.Contains(read(t, in), f.DB.Certificates[0].Raw) {
			t.Errorf("%s has not the certificate of %s", in, name)
		}
	}
}

// TestDatabaseForms reads one certificate in every form.
func TestDatabaseForms(t *testing.T) {
	k := newKey(t)
	cert := der(t, k.ca)
	esl := list(kindX509, cert)
	auth := append(make([]byte, 16), 40, 0, 0, 0, 0, 2, 0xf1, 0x0e)
	auth = append(auth, make([]byte, 32)...)
	for name, data := range map[string][]byte{"PEM": read(t, k.ca), "DER": cert, "ESL": esl, "efivarfs": append([]byte{0x27, 0, 0, 0}, esl...), "auth": append(auth, esl...)} {
		d, err := uefi.ParseDatabase(data)
		if err != nil || len(d.Certificates) != 1 || !bytes.Equal(d.Certificates[0].Raw, cert) {
			t.Errorf("%s: %v, %d certificates", name, err, len(d.Certificates))
		}
	}
	for name, data := range map[string][]byte{"nothing": nil, "text": []byte("no certificate at all, just text that is long enough"), "PEM key": read(t, k.private), "cut ESL": esl[:len(esl)-1]} {
		if d, err := uefi.ParseDatabase(data); err == nil {
			t.Errorf("%s: read as %+v", name, d)
		}
	}
	if _, err := uefi.ParseFirmware("empty", read(t, "/usr/share/OVMF/OVMF_VARS_4M.fd")); err == nil || !strings.Contains(err.Error(), "has no db") {
		t.Errorf("a store without keys: %v", err)
	}
}

// TestECDSA: sbsign signs with elliptic curves too, and some firmware takes them.
func TestECDSA(t *testing.T) {
	k := newKey(t, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
	data := build(uefi.MachineAA64, text())
	out := filepath.Join(t.TempDir(), "signed.efi")
	if text, ok := tool(t, "sbsign", "--key", k.private, "--cert", k.cert, "--output", out, write(t, data)); !ok {
		t.Fatalf("sbsign: %s", text)
	}
	signed, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if p := uefi.Prove(uefi.Policy{Firmware: uefi.Firmware{DB: k.db(t)}}, []uefi.File{{Name: "image", Data: signed}}); !p.Proven {
		t.Errorf("%+v", p.Links[0].Broken)
	}
}

func TestLevels(t *testing.T) {
	for text, want := range map[string]string{
		"sbat,1,2025021800\nshim,4\ngrub,5\n":                     "2025021800 (shim,4 grub,5)",
		"\x06\x00\x00\x00sbat,1,2025021800\nshim,4\n":             "2025021800 (shim,4)",
		"# from SbatLevel_Variable.txt\nsbat,1,2021030218\n\x00x": "2021030218 ()",
	} {
		if l, err := uefi.ParseLevel([]byte(text)); err != nil || l.String() != want {
			t.Errorf("%q: %v, %v", text, l, err)
		}
	}
	for _, text := range []string{"", "shim,4\n", "sbat,1\nshim\n", "sbat,1\nshim,x\n", "sbat,1\n" + strings.Repeat("a,1\n", 300)} {
		if l, err := uefi.ParseLevel([]byte(text)); err == nil {
			t.Errorf("%q: %v", text, l)
		}
	}
}
