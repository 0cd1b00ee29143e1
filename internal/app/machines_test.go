package app_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"bootlane/internal/lane"
	"bootlane/internal/nettest"
)

const machines = "http://" + nettest.Server + ":8080"

// ask sends one request as it stands.
func ask(t *testing.T, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	must(t, err)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	must(t, err)
	b, err := io.ReadAll(res.Body)
	must(t, err)
	must(t, res.Body.Close())
	return res, string(b)
}

func scriptURL(change func(url.Values)) string {
	v := url.Values{"uuid": {string(uuid)}, "mac": {mac.Hyphens()}, "macs": {mac.Hyphens()}, "serial": {"S1"}, "buildarch": {"x86_64"}, "platform": {"efi"}}
	if change != nil {
		change(v)
	}
	return machines + lane.ScriptPath + "?" + v.Encode()
}

func TestHostileScriptParameters(t *testing.T) {
	w := newWorld(t, "")
	w.bundles()
	w.enrol("image-1")
	_, err := w.client.Provision(t.Context(), "node1", lane.Provisioning{})
	must(t, err)
	_, plain := ask(t, "GET", scriptURL(func(v url.Values) {
		v.Set("mac", "52-54-00-99-99-99")
		v.Set("macs", "")
		v.Set("uuid", "")
		v.Set("serial", "X")
	}), "")
	for name, value := range map[string]string{
		"newline": "X\nkernel http://evil/ ||", "carriage return": "X\r\nboot", "expansion": "X${net0/mac}", "separator": "X && reboot", "or": "X || shell", "semicolon": "X ; shell",
		"NUL": "X\x00", "escape": "X\x1b]0;owned\x07", "direction": "X\u202eevil", "4 KiB": strings.Repeat("X", 4096),
	} {
		for _, field := range []string{"serial", "asset", "manufacturer", "product"} {
			res, body := ask(t, "GET", scriptURL(func(v url.Values) {
				v.Set("mac", "52-54-00-99-99-99")
				v.Set("macs", "")
				v.Set("uuid", "")
				v.Set("serial", "X")
				v.Set(field, value)
			}), "")
			if res.StatusCode != http.StatusOK || strings.Count(body, "\n") != strings.Count(plain, "\n") || strings.Contains(body, "${") || strings.Contains(body, "\nkernel ") {
				t.Errorf("%s in %s: %d\n%s", name, field, res.StatusCode, body)
			}
		}
	}
	for name, q := range map[string]string{"nothing": "", "repeated": "?uuid=&uuid=&mac=" + mac.Hyphens(), "10 KiB": "?uuid=&mac=" + mac.Hyphens() + "&serial=" + strings.Repeat("x", 10240)} {
		if res, body := ask(t, "GET", machines+lane.ScriptPath+q, ""); res.StatusCode != http.StatusBadRequest || body == "" {
			t.Errorf("%s: %d %q", name, res.StatusCode, body)
		}
	}
	if res, _ := ask(t, "HEAD", scriptURL(nil), ""); res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("HEAD of a script: %d; it would count a boot", res.StatusCode)
	}
	h, err := w.client.Host(t.Context(), "node1")
	must(t, err)
	if h.State != lane.StateProvisioning || h.Run.BootsUsed != 0 {
		t.Errorf("after all that %s is %s with %d boots used", h.ID, h.State, h.Run.BootsUsed)
	}
	if files, err := w.client.Transfers(t.Context(), "node1"); err != nil || len(files) != 0 {
		t.Errorf("nothing is on its way, and %v is listed; %v", files, err)
	}
	events, err := w.client.Events(t.Context(), "52:54:00:99:99:99", 0, 1000)
	must(t, err)
	for _, e := range events {
		if strings.ContainsAny(e.Facts.Serial+e.Facts.Product+e.Message, "\n\r\x1b\x00") {
			t.Errorf("evidence with control characters: %q", e.Facts.Serial)
		}
	}
}

// runBase provisions node1, takes its script, and returns the URL of its run.
func (w *world) runBase() string {
	w.Helper()
	_, err := w.client.Provision(w.Context(), "node1", lane.Provisioning{Bundle: "image-1"})
	must(w.T, err)
	_, body := ask(w.T, "GET", scriptURL(nil), "")
	m := argURL.FindStringSubmatch(body)
	if m == nil {
		w.Fatalf("no run in\n%s", body)
	}
	return m[1]
}

func TestReports(t *testing.T) {
	w := newWorld(t, "")
	w.bundles()
	w.enrol("image-1")
	base := w.runBase()
	report := func(base, stage string, seq int, status string, more ...string) (int, string) {
		body := fmt.Sprintf("stage=%s&seq=%d&status=%s&message=m&uuid=%s&mac=%s&serial=S1", stage, seq, status, uuid, mac) + strings.Join(more, "")
		res, text := ask(t, "POST", base+"/report", body)
		return res.StatusCode, text
	}
	wrong := machines + "/run/" + strings.Repeat("a", 32)
	for i, c := range []struct {
		base, stage string
		seq         int
		status      string
		want        int
	}{
		{wrong, "kernel", 1, "ok", http.StatusNotFound},
		{base, "disk-written", 1, "ok", http.StatusForbidden}, // out of order
		{base, "ready", 1, "ok", http.StatusForbidden},
		{base, "kernel", 1, "ok", http.StatusOK},
		{base, "kernel", 1, "ok", http.StatusOK}, // twice
		{base, "installer", 1, "ok", http.StatusOK},
		{base, "installer", 3, "progress", http.StatusOK},
		{base, "installer", 2, "progress", http.StatusOK}, // late
		{base, "ready", 1, "ok", http.StatusForbidden},
		{base, "disk-written", 1, "ok", http.StatusOK},
		{base, "kernel", 9, "ok", http.StatusOK}, // late, changes nothing
		{base, "first-boot", 1, "ok", http.StatusOK},
		{base, "ready", 1, "ok", http.StatusOK},
		{base, "ready", 1, "ok", http.StatusOK},            // the answer was lost
		{base, "ready", 2, "failed", http.StatusForbidden}, // the run is closed
		{base, "armed", 1, "ok", http.StatusBadRequest},
	} {
		if got, text := report(c.base, c.stage, c.seq, c.status); got != c.want {
			t.Errorf("%d: %s %d %s: %d %s, want %d", i, c.stage, c.seq, c.status, got, text, c.want)
		}
	}
	h, err := w.client.Host(t.Context(), "node1")
	must(t, err)
	if h.State != lane.StateInstalled || h.Run.Outcome != "ready" {
		t.Errorf("%s %s", h.State, h.Run.Outcome)
	}
	if res, body := ask(t, "GET", base+"/seed/firstboot.sh", ""); res.StatusCode != http.StatusForbidden || !strings.Contains(body, "host-installed") {
		t.Errorf("a seed after the run: %d %s", res.StatusCode, body)
	}
}

func TestReportFromAnotherMachine(t *testing.T) {
	w := newWorld(t, "")
	w.bundles()
	w.enrol("image-1")
	base := w.runBase()
	res, body := ask(t, "POST", base+"/report", "stage=kernel&seq=1&status=ok&uuid=99999999-8888-4777-8666-555555555555")
	if res.StatusCode != http.StatusForbidden || !strings.Contains(body, "99999999") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	h, err := w.client.Host(t.Context(), "node1")
	must(t, err)
	if h.State != lane.StateQuarantine {
		t.Errorf("%s: a report from another machine must set the record aside", h.State)
	}
}

func TestFiles(t *testing.T) {
	w := newWorld(t, "")
	w.bundles()
	w.enrol("image-1")
	w.runBase()
	_, body := ask(t, "GET", scriptURL(nil), "")
	kernel := fileURL.FindStringSubmatch(body)[1]
	head, empty := ask(t, "HEAD", kernel, "")
	res, text := ask(t, "GET", kernel, "")
	if head.ContentLength != int64(len(text)) || empty != "" || res.Header.Get("ETag") == "" || res.Header.Get("Content-Encoding") != "" {
		t.Errorf("HEAD says %d, GET gives %d; %v", head.ContentLength, len(text), res.Header)
	}
	part, tail := ask(t, "GET", kernel, "", "Range", "bytes=7-", "If-Match", res.Header.Get("ETag"))
	if part.StatusCode != http.StatusPartialContent || tail != text[7:] {
		t.Errorf("range: %d %q", part.StatusCode, tail)
	}
	if other, _ := ask(t, "GET", kernel, "", "Range", "bytes=7-", "If-Match", `"other"`); other.StatusCode != http.StatusPreconditionFailed {
		t.Errorf("range of another file: %d", other.StatusCode)
	}
	for name, url := range map[string]string{
		"other digest": strings.Replace(kernel, "/file/", "/file/"+strings.Repeat("0", 0), 1) + "x",
		"no run":       machines + "/run/" + strings.Repeat("b", 32) + strings.SplitN(kernel, "/file/", 2)[1],
		"traversal":    machines + "/boot/../../etc/passwd",
		"encoded":      machines + "/boot/%2e%2e/%2e%2e/etc/passwd",
		"root":         machines + "/",
		"unknown":      machines + "/favicon.ico",
	} {
		res, body := ask(t, "GET", url, "")
		if res.StatusCode < 400 || res.StatusCode >= 500 || body == "" || res.Header.Get("Location") != "" {
			t.Errorf("%s: %d %q", name, res.StatusCode, body)
		}
	}
	if res, body := ask(t, "GET", machines+"//boot//any/any//autoexec.ipxe", ""); res.StatusCode != http.StatusOK || !strings.HasPrefix(body, "#!ipxe") {
		t.Errorf("doubled slashes: %d", res.StatusCode)
	}
	efi, _ := ask(t, "GET", machines+"/boot/"+mac.Hyphens()+"/x86_64-uefi/snponly.efi", "")
	if efi.Header.Get("Content-Type") != "application/efi" {
		t.Errorf("type %q: firmware compares the whole of it", efi.Header.Get("Content-Type"))
	}
	for k, v := range efi.Header {
		if len(v) == 0 || v[0] == "" {
			t.Errorf("empty header %s locks firmware up", k)
		}
	}
}

func TestTFTPNames(t *testing.T) {
	w := newWorld(t, "")
	w.enrolPlain()
	for name, c := range map[string]struct{ file, says string }{
		"installed": {"boot/" + mac.Hyphens() + "/x86_64-uefi/snponly.efi", "host-new"},
		"traversal": {"../../etc/passwd", "tftp error"},
		"empty":     {"", "tftp error"},
		"long":      {strings.Repeat("x", 500), "tftp error"},
		"no such":   {"boot/any/any/nothing", "only autoexec.ipxe"},
		"seed":      {"run/" + strings.Repeat("a", 32) + "/seed/preseed.cfg", "no such file"},
	} {
		if body, err := tftpGet(t, nettest.Server, c.file); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %d bytes, %v; want %q", name, len(body), err, c.says)
		}
	}
	for _, file := range []string{"autoexec.ipxe", "/autoexec.ipxe", `boot\any\any\autoexec.ipxe`, "boot/" + mac.Hyphens() + "/x86_64-uefi/autoexec.ipxe"} {
		if body, err := tftpGet(t, nettest.Server, file); err != nil || !strings.HasPrefix(string(body), "#!ipxe\n") {
			t.Errorf("%s: %v", file, err)
		}
	}
	if body, err := tftpGet(t, nettest.Server, "boot/52-54-00-99-99-99/x86_64-uefi/snponly.efi"); err != nil || len(body) < 100000 {
		t.Errorf("an unknown machine's loader, to show why it is held: %d bytes, %v", len(body), err)
	}
}

// enrolPlain enrols node1 without any bundle.
func (w *world) enrolPlain() { w.enrol("") }
