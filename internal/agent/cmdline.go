package agent

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"bootlane/internal/lane"
)

// Params is what the kernel command line tells the agent.
type Params struct {
	URL     *url.URL // bootlane.url: the base of the run; bootlane.inspect: of a ticket; without a slash at its end
	Inspect bool     // bootlane.inspect was given: only look, and tell
	BootMAC lane.MAC // BOOTIF: the NIC that the firmware booted from; may be empty
	VLAN    uint16   // bootlane.vlan: the id to tag all frames with, IEEE 802.1Q; 0: none
	Debug   bool     // bootlane.debug: name every driver, leave kernel messages on, wait longer before power-off
}

// ParseCommandLine reads the agent's parameters from a kernel command line.
// Parameters of others are ignored.
func ParseCommandLine(line string) (Params, error) {
	p := Params{Debug: debugWanted(line)}
	base, from := "", ""
	for _, word := range splitCommandLine(line) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "bootlane.url", "bootlane.inspect":
			if base != "" && base != value {
				return Params{}, fmt.Errorf("kernel command line: bootlane.url or bootlane.inspect is given twice, %q and %q", base, value)
			}
			// Of the two with one value, the one that changes nothing.
			base, from, p.Inspect = value, key, p.Inspect || key == "bootlane.inspect"
		case "bootlane.vlan":
			id, err := strconv.ParseUint(value, 10, 12)
			if err != nil || id == 0 || id == 4095 {
				return Params{}, fmt.Errorf("kernel command line: bootlane.vlan=%q is no VLAN, 1 to 4094", value)
			}
			p.VLAN = uint16(id)
		case "BOOTIF":
			// A hint about which NIC to ask first: one that cannot be read is no reason to stop.
			p.BootMAC = bootMAC(value)
		}
	}
	if base == "" {
		return Params{}, fmt.Errorf("kernel command line: no bootlane.url=http://SERVER/run/CAPABILITY")
	}
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" || u.Host == "" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return Params{}, fmt.Errorf("kernel command line: %s=%q is not http://SERVER/run/CAPABILITY", from, base)
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	p.URL = u
	return p, nil
}

// debugWanted looks for bootlane.debug alone: it counts even where the rest of the line is wrong.
func debugWanted(line string) bool {
	for _, word := range splitCommandLine(line) {
		if key, value, _ := strings.Cut(word, "="); key == "bootlane.debug" && value != "0" {
			return true
		}
	}
	return false
}

// bootMAC reads PXELINUX's form, an ARP hardware type in front of the address
// (01 is Ethernet), and the bare address that other loaders write.
func bootMAC(s string) lane.MAC {
	if len(s) == 20 {
		rest, ok := strings.CutPrefix(s, "01-")
		if !ok {
			return ""
		}
		s = rest
	}
	m, err := lane.ParseMAC(s)
	if err != nil {
		return ""
	}
	return m
}

// splitCommandLine splits as the kernel does (lib/cmdline.c, next_arg): at white
// space outside double quotes, and drops the quotes.
func splitCommandLine(line string) []string {
	var words []string
	var word strings.Builder
	quoted := false
	flush := func() {
		if word.Len() > 0 {
			words = append(words, word.String())
			word.Reset()
		}
	}
	for _, r := range line {
		switch {
		case r == '"':
			quoted = !quoted
		case !quoted && (r == ' ' || r == '\t' || r == '\n' || r == '\v' || r == '\f' || r == '\r'):
			flush()
		default:
			word.WriteRune(r)
		}
	}
	flush()
	return words
}
