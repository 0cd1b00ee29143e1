package lane

import (
	"fmt"
	"regexp"
	"strings"
)

// DiskSelector says which one disk of a machine may be written. All fields that
// are set must match, and exactly one disk must match them all. The zero
// selector matches nothing: no hint, no disk.
type DiskSelector struct {
	ByID   string `json:"byID,omitempty" yaml:"byID,omitempty"`     // link name under /dev/disk/by-id, e.g. wwn-0x5002538e00000001
	ByPath string `json:"byPath,omitempty" yaml:"byPath,omitempty"` // link name under /dev/disk/by-path; changes when an HBA is added
	WWN    string `json:"wwn,omitempty" yaml:"wwn,omitempty"`       // as sysfs spells it: 0x…, eui.…, nvme.…
	Serial string `json:"serial,omitempty" yaml:"serial,omitempty"` // whole serial, case-sensitive
	// SizeGB is the expected capacity in GB (10^9 bytes); a disk within 1 % of it fits.
	// It only narrows: a size alone selects nothing.
	SizeGB float64 `json:"sizeGB,omitempty" yaml:"sizeGB,omitempty"`
	// Model is what the disk's model begins with, blanks and _ being the same: sysfs cuts it to 16
	// characters where udev does not. It only narrows as well.
	Model string `json:"model,omitempty" yaml:"model,omitempty"`
	// Name is the kernel's name, vda, which may be another disk's after the next boot: for disks that state
	// nothing else, where the site's policy allows it.
	Name string `json:"name,omitempty" yaml:"name,omitempty"`
}

// IsZero reports whether nothing at all is selected.
func (s DiskSelector) IsZero() bool { return s == DiskSelector{} }

// Stable reports whether the selector names the disk by something that survives
// a reboot: an id, a WWN, a serial number or a path.
func (s DiskSelector) Stable() bool {
	return s.ByID != "" || s.ByPath != "" || s.WWN != "" || s.Serial != ""
}

// Selects reports whether the selector names a disk at all.
func (s DiskSelector) Selects() bool { return s.Stable() || s.Name != "" }

// String returns the selector the way the inventory spells it.
func (s DiskSelector) String() string {
	var parts []string
	add := func(k, v string) {
		if v != "" {
			parts = append(parts, k+"="+v)
		}
	}
	add("byID", s.ByID)
	add("byPath", s.ByPath)
	add("wwn", s.WWN)
	add("serial", s.Serial)
	add("name", s.Name)
	add("model", s.Model)
	if s.SizeGB > 0 {
		add("sizeGB", fmt.Sprintf("%g", s.SizeGB))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, " ")
}

var (
	diskLink   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:+@=-]{0,254}$`)
	kernelName = regexp.MustCompile(`^(sd[a-z]+|vd[a-z]+|xvd[a-z]+|hd[a-z]+|nvme[0-9]+n[0-9]+|mmcblk[0-9]+)$`)
	// How udev writes a World Wide Name: of NAA, EUI-64, NGUID or UUID, or what NVMe makes of a serial number.
	wwnForm = regexp.MustCompile(`^(0x[0-9a-f]{16}([0-9a-f]{16})?|eui\.[0-9a-f]{16,32}|uuid\.[0-9a-f-]{36}|nvme\.[0-9a-f-]+)$`)
)

// Validate returns every problem of the selector, each naming its field and the mend.
func (s DiskSelector) Validate() []string { return s.validate("disk") }

func (s DiskSelector) validate(name string) []string {
	var out []string
	bad := func(field, format string, args ...any) {
		out = append(out, name+"."+field+": "+fmt.Sprintf(format, args...))
	}
	for _, f := range []struct{ name, v string }{{"byID", s.ByID}, {"byPath", s.ByPath}} {
		switch {
		case f.v == "":
		case strings.HasPrefix(f.v, "/dev/disk/"):
			bad(f.name, "%q: give only the link's name, %q", f.v, f.v[strings.LastIndexByte(f.v, '/')+1:])
		case kernelName.MatchString(strings.TrimPrefix(f.v, "/dev/")):
			bad(f.name, "%q is a kernel name and changes between boots: use a link under /dev/disk/by-id, a wwn or a serial", f.v)
		case !diskLink.MatchString(f.v):
			bad(f.name, "%q is not a link name under /dev/disk", f.v)
		}
	}
	if s.WWN != "" && !wwnForm.MatchString(s.WWN) {
		bad("wwn", "%q: write it as sysfs does, but naa. as 0x: 0x5002538e00000001, eui.0025385a71b03a5b, uuid.… or nvme.…", s.WWN)
	}
	for _, f := range []struct{ name, v string }{{"serial", s.Serial}, {"model", s.Model}} {
		if f.v != strings.TrimSpace(f.v) || strings.ContainsFunc(f.v, unprintable) {
			bad(f.name, "%q has blanks at an end or control characters", f.v)
		}
	}
	switch {
	case s.Name == "":
	case !kernelName.MatchString(s.Name):
		bad("name", "%q is no kernel name of a whole disk, as vda", s.Name)
	case s.Stable():
		bad("name", "%q changes between boots, and the disk is selected by what does not: leave it out", s.Name)
	}
	if !(s.SizeGB >= 0 && s.SizeGB < 1e9) { // YAML can say .nan and .inf
		bad("sizeGB", "%g is not a size in GB", s.SizeGB)
	}
	if s.SizeGB > 0 && !s.Selects() {
		bad("sizeGB", "a size alone selects no disk: add byID, wwn or serial")
	}
	if s.Model != "" && !s.Selects() {
		bad("model", "a model alone selects no disk: add byID, wwn or serial")
	}
	return out
}

// Names reports whether both selectors name one disk for certain: what tells disks apart is the same
// in both.
func (s DiskSelector) Names(o DiskSelector) bool {
	same := func(a, b string) bool { return a != "" && a == b }
	return same(s.ByID, o.ByID) || same(s.ByPath, o.ByPath) || same(s.WWN, o.WWN) || same(s.Serial, o.Serial) || same(s.Name, o.Name)
}

// Resolve returns the one disk that the selector names. It never guesses: no
// selector, no match, several matches, or a disk that cannot be written is an
// error that lists what was seen.
func (s DiskSelector) Resolve(disks []Disk) (Disk, error) {
	if !s.Selects() {
		return Disk{}, Errorf(Refused, "no disk selector: give the host disk.byID, disk.wwn or disk.serial in the inventory")
	}
	var named, modelled, fit []Disk
	for _, d := range disks {
		if !s.names(d) {
			continue
		}
		named = append(named, d)
		if !s.modelFits(d) {
			continue
		}
		modelled = append(modelled, d)
		if s.sizeFits(d) {
			fit = append(fit, d)
		}
	}
	switch {
	case len(named) == 0:
		return Disk{}, Errorf(Refused, "no disk matches %s; seen: %s", s, describe(disks))
	case len(modelled) == 0:
		return Disk{}, Errorf(Refused, "the disk %s is of another model: %q; seen: %s", s, named[0].Model, describe(named))
	case len(fit) == 0:
		return Disk{}, Errorf(Refused, "the disk %s has the wrong size: expected %g GB; seen: %s", s, s.SizeGB, describe(named))
	case len(fit) > 1:
		return Disk{}, Errorf(Refused, "%d disks match %s: %s", len(fit), s, describe(fit))
	case fit[0].ReadOnly:
		return Disk{}, Errorf(Refused, "the disk %s is read-only", fit[0].Name)
	case fit[0].Removable:
		return Disk{}, Errorf(Refused, "the disk %s is removable media", fit[0].Name)
	}
	return fit[0], nil
}

func (s DiskSelector) names(d Disk) bool {
	return (s.ByID == "" || contains(d.ByID, s.ByID)) &&
		(s.ByPath == "" || contains(d.ByPath, s.ByPath)) &&
		(s.WWN == "" || d.WWN == s.WWN) &&
		(s.Serial == "" || d.Serial == s.Serial || d.UdevSerial == s.Serial) &&
		(s.Name == "" || d.Name == s.Name)
}

func (s DiskSelector) modelFits(d Disk) bool {
	spelt := strings.NewReplacer(" ", "_")
	return strings.HasPrefix(spelt.Replace(d.Model), spelt.Replace(s.Model))
}

func (s DiskSelector) sizeFits(d Disk) bool {
	if s.SizeGB == 0 {
		return true
	}
	want := s.SizeGB * 1e9
	diff := float64(d.SizeBytes) - want
	return diff <= want/100 && diff >= -want/100
}

func contains(list []string, v string) bool {
	for _, s := range list {
		if s == v {
			return true
		}
	}
	return false
}

func describe(disks []Disk) string {
	if len(disks) == 0 {
		return "no disk at all"
	}
	var out []string
	for _, d := range disks {
		out = append(out, fmt.Sprintf("%s (serial %q, wwn %q, %.1f GB)", Clean(d.Name, 32), d.Serial, d.WWN, float64(d.SizeBytes)/1e9))
	}
	return strings.Join(out, ", ")
}
