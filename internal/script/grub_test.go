package script

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
	"time"

	"bootlane/internal/lane"
)

// grubs returns every configuration of GRUB there is, by the name of its golden file.
func grubs() map[string][]byte {
	in := install(lane.UEFI)
	in.KernelURL, in.InitrdURL = strings.TrimPrefix(in.KernelURL, base), strings.TrimPrefix(in.InitrdURL, base)
	in.AgainURL = "/" + lane.BootPath{MAC: in.Facts.MAC, Platform: platform(in.Facts), File: lane.GRUBConfig, Said: lane.GRUBFailed}.String()
	uefi, bios := Machine{Facts: facts(lane.UEFI), Server: base}, Machine{Facts: facts(lane.BIOS), Server: base}
	local := lane.Decision{Action: lane.LocalBoot, Reason: lane.HostInstalled, Host: "node-a", Detail: "node-a is installed"}
	again := "/" + lane.BootPath{MAC: in.Facts.MAC, Platform: platform(in.Facts), File: lane.GRUBConfig}.String()
	return map[string][]byte{
		"entry":         GRUBEntry(lane.SurfaceTFTP),
		"entry-http":    GRUBEntry(lane.SurfaceHTTP),
		"install":       GRUBInstall(in),
		"local-uefi":    GRUBLocal(uefi, local),
		"local-bios":    GRUBLocal(bios, local),
		"hold-mismatch": GRUBHold(uefi, mismatch, Hold{Wait: 30 * time.Second, Then: "local-boot"}, again),
		"hold-ask":      GRUBHold(uefi, lane.Decision{Reason: lane.UnknownMachine, Detail: "no inventory record"}, Hold{Wait: time.Minute, Then: "ask"}, again),
	}
}

// TestGRUB compares every configuration with its golden file, and has GRUB's own checker read it.
func TestGRUB(t *testing.T) {
	for name, got := range grubs() {
		t.Run(name, func(t *testing.T) {
			golden(t, "grub-"+name+".cfg", got)
			grubReads(t, got)
		})
	}
}

func grubReads(t *testing.T, config []byte) {
	t.Helper()
	cmd := exec.Command("grub-script-check")
	cmd.Stdin = bytes.NewReader(config)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("grub-script-check: %v: %s\n%s", err, out, config)
	}
}

// TestGRUBTakesNoOrders: what a machine says of itself is text on its screen, and no more.
func TestGRUBTakesNoOrders(t *testing.T) {
	for _, evil := range []string{"'; halt; echo '", "$(halt)", "${root}", "a\nhalt", "a;halt", "a && halt", "`halt`", `\`, `"`, "{", "}", "a'b", "ä\x00", "# x"} {
		f := facts(lane.UEFI)
		f.Serial, f.AssetTag, f.Product = evil, evil, evil
		d := mismatch
		d.Detail = evil
		got := GRUBHold(Machine{Facts: f, Server: base}, d, Hold{Wait: time.Second, Then: "local-boot"}, "/again")
		grubReads(t, got)
		for line := range strings.Lines(string(got)) {
			if text, ok := strings.CutPrefix(strings.TrimSpace(line), "echo "); ok && strings.Trim(text, "'") != strings.ReplaceAll(text, "'", "") {
				t.Errorf("%q: a quote in %q", evil, line)
			}
			if strings.Contains(line, "halt") && !strings.HasPrefix(line, "echo '") {
				t.Errorf("%q became %q", evil, line)
			}
		}
	}
}

// TestGRUBArguments: a separator of GRUB's in a kernel argument is the kernel's.
func TestGRUBArguments(t *testing.T) {
	in := install(lane.UEFI)
	in.Args = "quiet ds=nocloud-net;s=http://10.0.0.1/ a|b <x> #no ---"
	want := "quiet 'ds=nocloud-net;s=http://10.0.0.1/' 'a|b' '<x>' '#no' ---;"
	if got := string(GRUBInstall(in)); !strings.Contains(got, want) {
		t.Errorf("no %s in\n%s", want, got)
	}
}
