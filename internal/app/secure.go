package app

import (
	"fmt"
	"os"

	"bootlane/internal/lane"
	"bootlane/internal/uefi"
)

// SecureBoot is what is known of firmware that takes signed code only. All of it are names
// of files, in the forms that `bootlane uefi prove` takes.
type SecureBoot struct {
	Firmware   string   `yaml:"firmware,omitempty"`   // what firmware with the site's own keys trusts
	DBX        []string `yaml:"dbx,omitempty"`        // what all firmware forbids
	MOK        []string `yaml:"mok,omitempty"`        // what is enrolled in shim
	SBATLevel  string   `yaml:"sbatLevel,omitempty"`  // default: that of the chain's own shim
	GRUBByHTTP bool     `yaml:"grubByHTTP,omitempty"` // the GRUB of `loaders` goes on where firmware loaded it by HTTP
}

// policy reads the files. Every problem is told at once.
func (s SecureBoot) policy() (out uefi.Policy, problems []lane.Problem) {
	read := func(field, path string, parse func([]byte) error) {
		data, err := os.ReadFile(path)
		if err == nil {
			err = parse(data)
		}
		if err != nil {
			problems = append(problems, lane.Problem{Field: "secureBoot." + field, Message: err.Error()})
		}
	}
	if s.Firmware != "" {
		read("firmware", s.Firmware, func(data []byte) (err error) {
			out.Firmware, err = uefi.ParseFirmware(s.Firmware, data)
			return err
		})
	}
	for _, l := range []struct {
		field string
		files []string
		into  *uefi.Database
	}{{"dbx", s.DBX, &out.Firmware.DBX}, {"mok", s.MOK, &out.MOK}} {
		for i, path := range l.files {
			read(fmt.Sprintf("%s[%d]", l.field, i), path, func(data []byte) error {
				d, err := uefi.ParseDatabase(data)
				*l.into = l.into.Join(d)
				return err
			})
		}
	}
	if s.SBATLevel != "" {
		read("sbatLevel", s.SBATLevel, func(data []byte) error {
			level, err := uefi.ParseLevel(data)
			out.SBAT = &level
			return err
		})
	}
	return out, problems
}
