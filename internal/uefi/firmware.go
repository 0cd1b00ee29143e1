package uefi

import (
	"bytes"
	"crypto/x509"
	"embed"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"

	"bootlane/internal/lane"
)

//go:embed data/*.der
var certificates embed.FS

// Microsoft's certificate authorities for boot loaders of others, which most firmware
// has in db. That of 2011 expired in June 2026, and is obeyed all the same.
const (
	Microsoft2011 = "microsoft-2011"
	Microsoft2023 = "microsoft-2023"
	MicrosoftBoth = "both"
)

// Firmware is what a machine's firmware trusts, and what it forbids.
type Firmware struct {
	Name string
	DB   Database
	DBX  Database
}

// BuiltIn returns the firmware with Microsoft's certificates of 2011, of 2023, or both;
// false when name is none of them. Microsoft's dbx is not built in: it changes.
func BuiltIn(name string) (Firmware, bool, error) {
	years, ok := map[string][]string{Microsoft2011: {"2011"}, Microsoft2023: {"2023"}, MicrosoftBoth: {"2011", "2023"}}[name]
	f := Firmware{Name: name}
	for _, year := range years {
		der, err := certificates.ReadFile("data/microsoft-uefi-ca-" + year + ".der")
		if err != nil {
			return f, ok, fmt.Errorf("read the built-in certificate: %w", err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return f, ok, fmt.Errorf("read the built-in certificate: %w", err)
		}
		f.DB.Certificates = append(f.DB.Certificates, c)
	}
	return f, ok, nil
}

// microsoft returns the year of Microsoft's CA that a certificate is, or "".
func microsoft(c *x509.Certificate) string {
	for _, name := range []string{Microsoft2011, Microsoft2023} {
		if f, _, err := BuiltIn(name); err == nil && f.DB.Certificates[0].Equal(c) {
			return strings.TrimPrefix(name, "microsoft-")
		}
	}
	return ""
}

// ParseFirmware reads what firmware trusts from a file: a variable store of OVMF or
// AAVMF (OVMF_VARS_4M.ms.fd), of which db and dbx are taken, or whatever
// [ParseDatabase] reads, as db.
func ParseFirmware(name string, data []byte) (Firmware, error) {
	f := Firmware{Name: name}
	var err error
	if !isStore(data) {
		f.DB, err = ParseDatabase(data)
		return f, err
	}
	for _, v := range []struct {
		name string
		into *Database
	}{{"db", &f.DB}, {"dbx", &f.DBX}} {
		value, ok := storeVariable(data, v.name)
		if !ok || len(value) == 0 {
			continue
		}
		if *v.into, err = parseLists(value); err != nil {
			return f, lane.Errorf(lane.Invalid, "variable %s of the store: %v", v.name, err)
		}
	}
	if f.DB.Empty() {
		return f, lane.Errorf(lane.Invalid, "the variable store has no db: Secure Boot is off in this firmware, and it checks nothing; enrol keys first (OVMF_VARS_4M.ms.fd has Microsoft's)")
	}
	return f, nil
}

// isStore recognises a firmware volume: EFI_FIRMWARE_VOLUME_HEADER, PI 1.8, volume 3, 3.2.1.
func isStore(data []byte) bool {
	return len(data) > 56 && string(data[40:44]) == "_FVH"
}

// storeVariable returns the newest value of a variable of an EDK2 variable store with
// authenticated variables: MdeModulePkg/Include/Guid/VariableFormat.h.
func storeVariable(data []byte, name string) (value []byte, found bool) {
	le := binary.LittleEndian
	store := uint64(le.Uint16(data[48:])) // HeaderLength of the volume
	const storeHeader, variableHeader = 28, 60
	if store+storeHeader > uint64(len(data)) || guid(data[store:]) != "aaf32c78-947b-439a-a180-2e144ec37792" {
		return nil, false
	}
	rest := data[store+storeHeader:]
	if size := uint64(le.Uint32(data[store+16:])); size >= storeHeader && size-storeHeader < uint64(len(rest)) {
		rest = rest[:size-storeHeader]
	}
	for len(rest) >= variableHeader && le.Uint16(rest) == 0x55aa {
		const added = 0x3f // VAR_ADDED; other states are values of the past
		state, nameLen, dataLen := rest[2], uint64(le.Uint32(rest[36:])), uint64(le.Uint32(rest[40:]))
		end := variableHeader + nameLen + dataLen
		if end > uint64(len(rest)) {
			break
		}
		// EFI_IMAGE_SECURITY_DATABASE_GUID, of both db and dbx
		if state == added && utf16Is(rest[variableHeader:variableHeader+nameLen], name) && guid(rest[44:]) == "d719b2cb-3d3a-4596-a3bc-dad00e67656f" {
			value, found = rest[variableHeader+nameLen:end], true
		}
		rest = rest[min((end+3)&^3, uint64(len(rest))):]
	}
	return value, found
}

func utf16Is(b []byte, want string) bool {
	var w bytes.Buffer
	for _, u := range append(utf16.Encode([]rune(want)), 0) {
		w.Write([]byte{byte(u), byte(u >> 8)})
	}
	return bytes.Equal(b, w.Bytes())
}

// names lists certificates by what people call them.
func names(list []*x509.Certificate) []string {
	out := []string{}
	for _, c := range list {
		if n := name(c); !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}
