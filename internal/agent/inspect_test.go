package agent

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"bootlane/internal/lane"
)

// inspecting is a lab whose server only wants to know, and answers in turn.
func inspecting(t *testing.T, replies ...string) (l *lab, told *[]lane.Hardware) {
	l, told = newLab(t), &[]lane.Hardware{}
	n := 0
	l.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var hw lane.Hardware
		if r.URL.Path != "/inspect/TICKET/report" || r.Method != http.MethodPost || json.NewDecoder(r.Body).Decode(&hw) != nil {
			t.Errorf("%s %s was asked for", r.Method, r.URL.Path)
		}
		*told = append(*told, hw)
		reply := replies[min(n, len(replies)-1)]
		if n++; !strings.HasPrefix(reply, "{") {
			http.Error(w, "ticket unknown\x1b[2J", map[string]int{"refused": 404, "busy": 503}[reply])
			return
		}
		_, _ = fmt.Fprint(w, reply)
	})
	l.machine.cmdline = "quiet bootlane.inspect=" + l.server.URL + "/inspect/TICKET"
	return l, told
}

func TestInspect(t *testing.T) {
	wait, off, again := `{"then":"wait","again":30,"detail":"hold: unknown\u001b[2J"}`, `{"then":"power-off","detail":"hold"}`, `{"then":"reboot","detail":"install: go"}`
	for name, c := range map[string]struct {
		replies []string
		told    int
		reboot  bool
		err     string
	}{
		"off":                      {[]string{off}, 1, false, ""},
		"waits until it is wanted": {[]string{wait, wait, again}, 3, true, ""},
		"busy for a while":         {[]string{"busy", "busy", off}, 3, false, ""},
		"refused":                  {[]string{"refused"}, 1, false, "404"},
		"the server forgot":        {[]string{wait, "refused"}, 2, true, ""},
		"an order":                 {[]string{`{"action":"install","then":"","disk":{"serial":"RIGHT"},"image":{"path":"/blobs/image"}}`}, 1, false, ""},
		"no sense":                 {[]string{"{", off}, 2, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l, told := inspecting(t, c.replies...)
			before := digest(l.machine.disk.data)
			end := l.run()
			if end.Reboot != c.reboot || (end.Err == nil) != (c.err == "") || end.Err != nil && !strings.Contains(end.Err.Error(), c.err) || len(*told) != c.told {
				t.Errorf("ended with %+v after %d reports", end, len(*told))
			}
			l.mustBeUntouched(before)
			if l.machine.opened != 0 || l.machine.looked != 0 || l.machine.disk.mounted {
				t.Errorf("%d disks opened, %d heads read", l.machine.opened, l.machine.looked)
			}
			if hw := (*told)[0]; hw.BootMAC != "52:54:00:12:34:56" || len(hw.Disks) != 2 || (*told)[len(*told)-1].BootMAC != hw.BootMAC {
				t.Errorf("told %+v", hw)
			}
			if out := l.console.String(); strings.Contains(out, "TICKET") || strings.Contains(out, "\x1b") {
				t.Errorf("the console shows %q", out)
			}
		})
	}
}

func TestInspectCommandLine(t *testing.T) {
	for line, want := range map[string]string{
		"bootlane.inspect=http://h/inspect/x":                             "http://h/inspect/x true",
		"bootlane.url=http://h/run/x":                                     "http://h/run/x false",
		"bootlane.inspect=http://h/x bootlane.url=http://h/x":             "http://h/x true",
		"bootlane.url=http://h/x bootlane.inspect=http://h/x":             "http://h/x true",
		"bootlane.inspect=http://h/inspect/x bootlane.url=http://h/run/y": "given twice",
		"bootlane.inspect=ftp://h/x":                                      "bootlane.inspect=\"ftp://h/x\" is not",
	} {
		p, err := ParseCommandLine(line)
		got := fmt.Sprint(err)
		if err == nil {
			got = fmt.Sprint(p.URL, " ", p.Inspect)
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %s", line, got, want)
		}
	}
}

// smbios builds a table of structures: their type, what follows the header, and strings.
func smbios(parts ...[]byte) []byte { return slices.Concat(parts...) }

func structure(kind byte, body []byte, texts string) []byte {
	if texts == "" {
		texts = "\x00"
	}
	return slices.Concat([]byte{kind, byte(4 + len(body)), 0, 0}, body, []byte(texts+"\x00"))
}

// redfish is a type 42 with one device of n bytes and the records given.
func redfish(n int, records ...[]byte) []byte {
	return structure(42, slices.Concat([]byte{0x40, byte(n)}, make([]byte, n), []byte{byte(len(records))}, slices.Concat(records...)), "")
}

func overIP(format byte, address ...byte) []byte {
	data := make([]byte, 91)
	data[51] = format
	copy(data[52:68], address)
	return slices.Concat([]byte{4, byte(len(data))}, data)
}

func TestRedfishAddress(t *testing.T) {
	system, ipmi := structure(1, make([]byte, 23), "Lab\x00Box\x00"), []byte{2, 3, 1, 2, 3}
	six := make([]byte, 16)
	six[0], six[1], six[15] = 0xfe, 0x80, 1
	for name, c := range map[string]struct {
		table []byte
		want  string
	}{
		"IPv4":               {smbios(system, redfish(6, overIP(1, 169, 254, 1, 1)), structure(127, nil, "")), "169.254.1.1"},
		"IPv6":               {smbios(system, redfish(0, overIP(2, six...))), "fe80::1"},
		"behind another":     {smbios(redfish(2, ipmi, overIP(1, 10, 0, 0, 9))), "10.0.0.9"},
		"a second interface": {smbios(redfish(2, ipmi), redfish(3, overIP(1, 10, 0, 0, 8))), "10.0.0.8"},
		"unset":              {smbios(redfish(2, overIP(1))), ""},
		"unknown format":     {smbios(redfish(2, overIP(7, 10, 0, 0, 9))), ""},
		"none":               {smbios(system), ""},
		"nothing":            {nil, ""},
		"lies of its length": {[]byte{42, 200, 0, 0, 0}, ""},
		"no length":          {[]byte{42, 0, 0, 0, 0}, ""},
		"short":              {structure(42, []byte{0x40}, ""), ""},
		"device too long":    {structure(42, []byte{0x40, 90, 1, 2}, ""), ""},
		"record cut":         {structure(42, []byte{0x40, 0, 1, 4, 91, 0}, ""), ""},
	} {
		if got := redfishAddress(c.table); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func FuzzRedfishAddress(f *testing.F) {
	f.Add(smbios(redfish(6, overIP(1, 169, 254, 1, 1))))
	f.Fuzz(func(_ *testing.T, b []byte) { redfishAddress(b) })
}
