package agent

import (
	"strings"
	"testing"
)

func TestParseCommandLine(t *testing.T) {
	const mac = "52:54:00:12:34:56"
	for _, tc := range []struct {
		line, url, mac string
		debug          bool
	}{
		{"bootlane.url=http://10.0.0.1:8080/run/abc", "http://10.0.0.1:8080/run/abc", "", false},
		{"quiet bootlane.url=http://h/run/abc/ BOOTIF=01-52-54-00-12-34-56\n", "http://h/run/abc", mac, false},
		{`console=ttyS0 "bootlane.url=http://h/run/a" bootlane.debug`, "http://h/run/a", "", true},
		{"bootlane.url=http://h/r BOOTIF=52:54:00:12:34:56 bootlane.debug=0", "http://h/r", mac, false},
		{"bootlane.url=http://h/r BOOTIF=20-52-54-00-12-34-56", "http://h/r", "", false}, // InfiniBand
		{"bootlane.url=http://h/r BOOTIF=01-ff-ff-ff-ff-ff-ff", "http://h/r", "", false},
		{"bootlane.url=http://h/r bootlane.url=http://h/r", "http://h/r", "", false},
		{"bootlane.url=http://[fd00::1]:80/r", "http://[fd00::1]:80/r", "", false},
		{"bootlane.vlan=4094 bootlane.url=http://h/r", "http://h/r", "", false},
	} {
		p, err := ParseCommandLine(tc.line)
		if err != nil {
			t.Errorf("%q: %v", tc.line, err)
			continue
		}
		if tagged := strings.Contains(tc.line, "bootlane.vlan=4094"); tagged != (p.VLAN == 4094) {
			t.Errorf("%q: VLAN %d", tc.line, p.VLAN)
		}
		if p.URL.String() != tc.url || string(p.BootMAC) != tc.mac || p.Debug != tc.debug {
			t.Errorf("%q: got %s %q %v, want %s %q %v", tc.line, p.URL, p.BootMAC, p.Debug, tc.url, tc.mac, tc.debug)
		}
	}
}

func TestParseCommandLineRefuses(t *testing.T) {
	for _, line := range []string{
		"", "quiet", "bootlane.url", "bootlane.url=", "bootlane.url=ftp://h/r", "bootlane.url=https://h/r",
		"bootlane.url=http:///run/x", "bootlane.url=http://u:p@h/r", "bootlane.url=http://h/r?x=1", "bootlane.url=http://h/r#f",
		"bootlane.url=http://:80/r", "bootlane.url=h/r", "bootlane.url=http://h/%zz",
		"bootlane.url=http://a/r bootlane.url=http://b/r",
		"bootlane.url=http://a/r bootlane.vlan=0", "bootlane.url=http://a/r bootlane.vlan=4095", "bootlane.url=http://a/r bootlane.vlan=eno1.120", "bootlane.vlan= bootlane.url=http://a/r",
	} {
		if p, err := ParseCommandLine(line); err == nil {
			t.Errorf("%q was taken as %s", line, p.URL)
		}
	}
}

func FuzzParseCommandLine(f *testing.F) {
	f.Add(`quiet bootlane.url=http://10.0.0.1:8080/run/abc BOOTIF=01-52-54-00-12-34-56 bootlane.debug x="a b"`)
	f.Add("bootlane.url=http://[::1]/\" BOOTIF=")
	f.Fuzz(func(t *testing.T, line string) {
		p, err := ParseCommandLine(line)
		if err != nil {
			return
		}
		if p.URL.Scheme != "http" || p.URL.Host == "" || p.URL.User != nil || strings.HasSuffix(p.URL.Path, "/") {
			t.Errorf("%q gave the URL %q", line, p.URL)
		}
		if p.BootMAC != "" && len(p.BootMAC) != 17 {
			t.Errorf("%q gave the MAC %q", line, p.BootMAC)
		}
	})
}
