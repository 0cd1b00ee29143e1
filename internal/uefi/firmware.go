package uefi

import (
	"crypto/x509"
	"embed"
	"fmt"
	"slices"
	"strings"

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
