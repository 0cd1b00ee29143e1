package app_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"bootlane/internal/lane"
	"bootlane/internal/nettest"
)

var fetchedFiles = regexp.MustCompile(`(?m)^\s*(?:kernel|initrd|KERNEL|INITRD|if linux|if initrd) (\S+?)(?:;|\s|$)`)

// TestInspectContract: what leads a machine that nobody knows to the agent is served, by every way
// in which firmware asks; what it tells is kept, and nothing else comes of it.
func TestInspectContract(t *testing.T) {
	w := newWorld(t, "policy: {askMirrors: false, inspect: {bundle: image-1}}\n")
	w.bundles()
	for _, f := range firmwares() {
		if name, body, err := w.loader(w.discover(f)); err != nil || len(body) == 0 {
			t.Errorf("%s: %q, %v", f.name, name, err)
		}
	}
	byTFTP := func(name string) string {
		b, err := tftpGet(t, nettest.Server, name)
		must(t, err)
		return string(b)
	}
	dir := "boot/" + mac.Hyphens() + "/x86_64-"
	_, script := get(t, scriptURL(nil))
	for name, text := range map[string]string{
		"iPXE":     string(script),
		"PXELINUX": byTFTP(dir + "bios/pxelinux.cfg/01-" + mac.Hyphens()),
		"SYSLINUX": byTFTP(dir + "uefi/pxelinux.cfg/01-" + mac.Hyphens()),
		"GRUB":     byTFTP(dir + "uefi/grub.cfg?uuid=" + string(uuid)),
	} {
		files := fetchedFiles.FindAllStringSubmatch(text, -1)
		if len(files) != 2 || !strings.Contains(text, "bootlane.inspect=") || strings.Contains(text, "/run/") {
			t.Fatalf("%s is told\n%s", name, text)
		}
	}
	// The last ticket of the machine is the one that stands: ask once more, and fetch what it leads to.
	text := byTFTP(dir + "uefi/pxelinux.cfg/01-" + mac.Hyphens())
	for i, want := range []string{"kernel of image", "initrd of image"} {
		name := strings.TrimPrefix(fetchedFiles.FindAllStringSubmatch(text, -1)[i][1], "::")
		if got := byTFTP(name); got != want {
			t.Errorf("%s by TFTP: %q", name, got)
		}
		if status, got := get(t, machines+name); status != http.StatusOK || string(got) != want {
			t.Errorf("%s by HTTP: %d %q", name, status, got)
		}
	}
	_, rest, _ := strings.Cut(text, "bootlane.inspect=")
	report := strings.Fields(rest)[0] + "/report"
	hw := lane.Hardware{UUID: uuid, Serial: "S1", Machine: "x86_64", BootMAC: mac, NICs: []lane.NIC{{Name: "eth0", MAC: mac}}, Disks: []lane.Disk{{Name: "vda", Serial: "D1", SizeBytes: 1e9}}}
	good, err := json.Marshal(hw)
	must(t, err)
	for name, c := range map[string]struct {
		method, url, body string
		status            int
	}{
		"a megabyte and more": {"POST", report, `{"serial":"` + strings.Repeat("x", 1<<20) + `"}`, 400},
		"no JSON":             {"POST", report, "stage=kernel", 400},
		"no MAC":              {"POST", report, `{"nics":[{"mac":"x"}]}`, 400},
		"read":                {"GET", report, "", 405},
		"no ticket":           {"POST", machines + lane.InspectBase(strings.Repeat("z", 32)) + "/report", string(good), 404},
		"an order":            {"POST", strings.Replace(report, "/report", "/order", 1), string(good), 404},
		"an order of a run":   {"POST", strings.Replace(strings.Replace(report, "/report", "/order", 1), "/inspect/", "/run/", 1), string(good), 404},
	} {
		if res, body := ask(t, c.method, c.url, c.body); res.StatusCode != c.status || body == "" {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
	}
	var reply lane.InspectReply
	res, body := ask(t, "POST", report, string(good))
	if must(t, json.Unmarshal([]byte(body), &reply)); res.StatusCode != 200 || reply.Then != lane.ThenWait {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	for range 2 { // it survives a restart of the server
		list, err := w.client.Discovered(t.Context())
		must(t, err)
		hosts, err := w.client.Hosts(t.Context())
		must(t, err)
		if len(list) != 1 || list[0].ID != string(uuid) || len(list[0].Hardware.Disks) != 1 || len(hosts) != 0 {
			t.Fatalf("kept %+v, %d records", list, len(hosts))
		}
		w.stop()
		w.start()
	}
	if res, _ := ask(t, "POST", report, string(good)); res.StatusCode != 404 {
		t.Errorf("a ticket of the server that was: %d", res.StatusCode)
	}
}
