package uefi

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"bootlane/internal/lane"
)

// maxSBAT is how many components are read: real images have three.
const maxSBAT = 256

// Component is a line of an image's section .sbat: which generation of a component it
// is, where each revocation of all that came before raises the generation. Shim, SBAT.md.
type Component struct {
	Name       string `json:"name"`
	Generation int    `json:"generation"`
	Vendor     string `json:"vendor,omitempty"`
	Package    string `json:"package,omitempty"`
	Version    string `json:"version,omitempty"`
	URL        string `json:"url,omitempty"`
}

// Level is what shim wants of the components of each image: the lowest generation.
type Level struct {
	Date   string      `json:"date,omitempty"` // 2025021800, "sbat"'s own third field
	Lowest []Component `json:"lowest"`
}

// Least returns the level that wants these generations, by component; nil if there are none.
func Least(generations map[string]int) *Level {
	if len(generations) == 0 {
		return nil
	}
	level := Level{Lowest: []Component{{Name: "sbat", Generation: 1}}}
	for _, component := range slices.Sorted(maps.Keys(generations)) {
		level.Lowest = append(level.Lowest, Component{Name: component, Generation: generations[component]})
	}
	return &level
}

// String writes the level in one line.
func (l Level) String() string {
	var out []string
	for _, c := range l.Lowest {
		if c.Name != "sbat" {
			out = append(out, fmt.Sprintf("%s,%d", c.Name, c.Generation))
		}
	}
	if l.Date != "" {
		return l.Date + " (" + strings.Join(out, " ") + ")"
	}
	return strings.Join(out, " ")
}

// parseSBAT reads the section .sbat, as shim's parse_sbat_section: every line has six fields.
func parseSBAT(section []byte) ([]Component, error) {
	lines, err := sbatLines(section)
	if err != nil {
		return nil, err
	}
	var out []Component
	for i, f := range lines {
		if len(f) < 6 {
			return nil, lane.Errorf(lane.Invalid, "line %d of .sbat has %d fields, shim wants six (name, generation, vendor, package, version, URL): shim refuses the image; take another build", i+1, len(f))
		}
		out = append(out, Component{Name: f[0], Generation: generation(f[1]), Vendor: f[2], Package: f[3], Version: f[4], URL: f[5]})
	}
	if len(out) == 0 {
		return nil, lane.Errorf(lane.Invalid, ".sbat is empty: shim refuses the image; take another build")
	}
	return out, nil
}

// ParseLevel reads a SBAT level: the CSV of shim's SbatLevel_Variable.txt, or the
// variable SbatLevelRT as Linux shows it in efivarfs.
func ParseLevel(data []byte) (Level, error) {
	if len(data) > 4 && data[3] == 0 { // efivarfs: the variable's attributes
		data = data[4:]
	}
	lines, err := sbatLines(data)
	if err != nil {
		return Level{}, err
	}
	var l Level
	for i, f := range lines {
		if len(f) < 2 || f[0] == "" || generation(f[1]) == 0 {
			return Level{}, lane.Errorf(lane.Invalid, "line %d is no SBAT level, \"component,generation\"", i+1)
		}
		if f[0] == "sbat" && len(f) > 2 {
			l.Date = f[2]
		}
		l.Lowest = append(l.Lowest, Component{Name: f[0], Generation: generation(f[1])})
	}
	if len(l.Lowest) == 0 || l.Lowest[0].Name != "sbat" {
		return Level{}, lane.Errorf(lane.Invalid, "a SBAT level begins with a line \"sbat,1,DATE\"")
	}
	return l, nil
}

func sbatLines(data []byte) (out [][]string, err error) {
	data, _, _ = bytes.Cut(data, []byte{0})
	for line := range strings.Lines(strings.TrimPrefix(string(data), "\ufeff")) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if len(out) == maxSBAT {
			return nil, lane.Errorf(lane.Invalid, "there are more than %d lines of SBAT: no image or level has that many", maxSBAT)
		}
		fields := strings.SplitN(line, ",", 7)
		for i := range fields {
			fields[i] = lane.Clean(fields[i], 200)
		}
		out = append(out, fields)
	}
	return out, nil
}

// generation is 0 for what is no number, as shim's atoi: below every level.
func generation(s string) int {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0
	}
	return int(n)
}

// below returns the first component that is below the level, and the generation it needs.
func (l Level) below(components []Component) (Component, int, bool) {
	for _, c := range components {
		for _, low := range l.Lowest {
			if c.Name == low.Name && c.Generation < low.Generation {
				return c, low.Generation, true
			}
		}
	}
	return Component{}, 0, false
}
