package migrate

import (
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootlane/internal/lane"
)

var update = flag.Bool("update", false, "write the golden files anew")

func plan() Plan {
	at := netip.MustParseAddr
	return Plan{Subnet: lane.Subnet{Prefix: netip.MustParsePrefix("10.20.0.0/24"), Server: at("10.20.0.1"), Routers: []netip.Addr{at("10.20.0.254")}, DNS: []netip.Addr{at("10.20.0.53"), at("10.20.0.54")}, NTP: []netip.Addr{at("10.20.0.123")}},
		Interface: "lo", First: at("10.20.0.100"), Last: at("10.20.0.199"), Domain: "rack7.example", Lease: time.Hour, Authoritative: true, BaseURL: "http://10.20.0.1:8080",
		Loaders: map[lane.Platform]string{{Arch: lane.X86_64, Firmware: lane.UEFI}: "snponly.efi", {Arch: lane.X86_64, Firmware: lane.BIOS}: "undionly.kpxe", {Arch: lane.ARM64, Firmware: lane.UEFI}: "snponly-arm64.efi"},
		Hosts: []Host{{"r7-n02", "r7-n02.rack7.example", []lane.MAC{"52:54:00:00:00:02"}, at("10.20.0.22")},
			{"r7-n01", "r7-n01.rack7.example", []lane.MAC{"52:54:00:00:00:01", "52:54:00:00:00:11"}, at("10.20.0.21")},
			{"r7-n03", "r7-n03.rack7.example", []lane.MAC{"52:54:00:00:00:03"}, netip.Addr{}}}}
}

// check has the real server read what was written for it.
var check = map[string]func(path string) []string{
	"dnsmasq": func(path string) []string { return []string{"dnsmasq", "--test", "--conf-file=" + path} },
	"kea":     func(path string) []string { return []string{"kea-dhcp4", "-t", path} },
	"isc":     func(path string) []string { return []string{"dhcpd", "-t", "-cf", path} },
}

func TestExport(t *testing.T) {
	for _, server := range Servers() {
		for _, form := range Forms() {
			t.Run(server+"-"+string(form), func(t *testing.T) {
				got, err := Export(server, plan(), form)
				if err != nil {
					t.Fatal(err)
				}
				path := filepath.Join("testdata", server+"-"+string(form)+".conf")
				if *update {
					if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(want), got); diff != "" {
					t.Errorf("-want +got; look at it, then run with -update:\n%s", diff)
				}
				if form != Owned && (strings.Contains(got, "snponly") || strings.Contains(got, "http://")) {
					t.Error("it names a boot file")
				}
				args := check[server](path)
				if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", args[0], err, out)
				}
			})
		}
	}
}

func TestExportRefuses(t *testing.T) {
	for _, c := range []struct {
		server string
		form   Form
	}{{"windows", Owned}, {"kea", "both"}} {
		if text, err := Export(c.server, plan(), c.form); lane.CodeOf(err) != lane.Invalid || text != "" {
			t.Errorf("%v: %q, %v", c, text, err)
		}
	}
}
