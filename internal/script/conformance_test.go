package script

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"bootlane/internal/lane"
)

// TestConformance has the cases of iPXE scripts and of local boot.
func TestConformance(t *testing.T) {
	installed := lane.Decision{Action: lane.LocalBoot, Reason: lane.HostInstalled, Host: "node-a"}
	ends := func(f lane.Firmware, want string) func(*testing.T) {
		return func(t *testing.T) {
			for name, s := range map[string][]byte{"local boot": LocalBootScript(Machine{Facts: facts(f), Server: base}, installed),
				"hold": HoldScript(Machine{Facts: facts(f), Server: base}, lane.Decision{}, Hold{Wait: time.Second, Then: "local-boot"}, base)} {
				if !strings.HasSuffix(string(s), want) {
					t.Errorf("%s ends\n%s", name, s)
				}
			}
		}
	}
	for _, c := range []struct {
		name string
		play func(*testing.T)
	}{
		{"IX-01 every command is known to the iPXE of 2019", func(t *testing.T) {
			for name, s := range scripts() {
				sound(t, name, s)
			}
		}},
		{"IX-02 every script begins as one", func(t *testing.T) {
			for name, s := range scripts() {
				if !bytes.HasPrefix(s, []byte("#!ipxe\n")) || bytes.ContainsAny(s, "\r\t") || bytes.ContainsFunc(s, func(r rune) bool { return r > '~' }) {
					t.Errorf("%s: %q", name, s)
				}
			}
		}},
		{"IX-03 what SMBIOS says is encoded for a URL", func(t *testing.T) {
			for _, setting := range []string{"serial", "asset", "manufacturer", "product"} {
				if !bytes.Contains(Entry(base), []byte("="+"${"+setting+":uristring}")) {
					t.Errorf("%s is not", setting)
				}
			}
		}},
		{"IX-05 the BIOS build calls every machine i386", func(t *testing.T) {
			if !bytes.Contains(Entry(base), []byte("iseq ${bl-arch} i386 && cpuid --ext 29 && set bl-arch x86_64")) {
				t.Errorf("the CPU is not asked:\n%s", Entry(base))
			}
		}},
		{"LB-01 UEFI goes on with its next boot option", ends(lane.UEFI, "\nexit 1\n")},
		{"LB-02 BIOS starts the first disk, or goes on", ends(lane.BIOS, "\nsanboot --no-describe --drive 0x80 ||\nexit\n")},
	} {
		t.Run(c.name, c.play)
	}
}
