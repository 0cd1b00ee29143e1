package httpboot

import (
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"bootlane/internal/lane"
)

const good = "uuid=00112233-4455-6677-8899-aabbccddeeff&mac=52-54-00-12-34-56&macs=52-54-00-12-34-56,,52-54-00-12-34-57,00-00-00-00-00-00" +
	"&serial=A%20B%2FC%231&asset=A1&manufacturer=Acme&product=R1&buildarch=x86_64&platform=efi"

func TestScriptFacts(t *testing.T) {
	f, err := scriptFacts(good, lane.Facts{Surface: lane.SurfaceHTTP, From: "10.0.0.9"})
	if err != nil {
		t.Fatal(err)
	}
	if f.MAC != "52:54:00:12:34:56" || f.UUID != "00112233-4455-6677-8899-aabbccddeeff" || f.Serial != "A B/C#1" || f.Arch != lane.X86_64 ||
		f.Firmware != lane.UEFI || len(f.MACs) != 2 || f.Speaker != lane.SpeakerLoader || f.From != "10.0.0.9" {
		t.Errorf("%+v", f)
	}
	empty, err := scriptFacts("uuid=&mac=52-54-00-12-34-56", lane.Facts{})
	if err != nil || empty.UUID != "" {
		t.Errorf("an empty uuid is what old firmware gives: %+v, %v", empty, err)
	}
}

func TestScriptFactsRefused(t *testing.T) {
	for name, c := range map[string]struct{ query, says string }{
		"nothing":      {"", "mac is missing"},
		"no mac":       {strings.Replace(good, "mac=", "x=", 1), "mac is missing"},
		"no uuid":      {strings.Replace(good, "uuid=", "x=", 1), "uuid is missing"},
		"mac twice":    {good + "&mac=52-54-00-12-34-57", `"mac" stands 2 times`},
		"odd twice":    {good + "&x=1&x=2", `"x" stands 2 times`},
		"bad mac":      {"uuid=&mac=nonsense", "not a MAC"},
		"bad uuid":     {"uuid=zz&mac=52-54-00-12-34-56", "not a UUID"},
		"broadcast":    {"uuid=&mac=ff-ff-ff-ff-ff-ff", "not the address of one NIC"},
		"not encoded":  {"uuid=%zz&mac=52-54-00-12-34-56", "URL-encoded"},
		"semicolons":   {"uuid=;mac=52-54-00-12-34-56", "URL-encoded"},
		"mac with end": {"uuid=&mac=52-54-00-12-34-56%0Akernel", "not a MAC"},
	} {
		if f, err := scriptFacts(c.query, lane.Facts{}); err == nil || lane.CodeOf(err) != lane.Invalid || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v, %v; want it to say %q", name, f, err, c.says)
		}
	}
}

func TestParseReport(t *testing.T) {
	r, err := parseReport("stage=installer&seq=3&status=progress&message=half&done=5&total=10&uuid=00112233-4455-6677-8899-aabbccddeeff&mac=52:54:00:12:34:56&serial=S\n", lane.Facts{})
	if err != nil || r.Stage != lane.StageInstaller || r.Seq != 3 || r.Done != 5 || r.Total != 10 || r.Facts.MAC == "" || r.Facts.UUID == "" {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := parseReport("stage=ready&seq=1&status=ok&uuid=unreadable&mac=", lane.Facts{}); err != nil || r.Facts.UUID != "" || r.Facts.Speaker != lane.SpeakerFirstBoot {
		t.Errorf("a sender that cannot read its UUID: %+v, %v", r, err)
	}
	if r, err := parseReport("stage=ready&seq=1&status=failed&checks=hostname%09failed%09a+b%09c%0A", lane.Facts{}); err != nil || len(r.Checks) != 1 || r.Checks[0].Expected != "a b" || r.Checks[0].Actual != "c" {
		t.Errorf("%+v, %v", r, err)
	}
	for name, body := range map[string]string{
		"odd checks": "stage=ready&seq=1&status=failed&checks=nonsense",
		"empty":      "", "no stage": "seq=1&status=ok", "odd stage": "stage=lunch&seq=1&status=ok", "seq 0": "stage=kernel&seq=0&status=ok", "seq -1": "stage=kernel&seq=-1&status=ok",
		"huge seq": "stage=kernel&seq=99999999999&status=ok", "odd status": "stage=kernel&seq=1&status=fine", "twice": "stage=kernel&stage=ready&seq=1&status=ok",
		"negative bytes": "stage=kernel&seq=1&status=ok&done=-4", "text for bytes": "stage=kernel&seq=1&status=ok&total=many",
	} {
		if r, err := parseReport(body, lane.Facts{}); lane.CodeOf(err) != lane.Invalid {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// harmless: whatever a machine says, nothing of it breaks a line of a log or a script.
func harmless(t *testing.T, texts ...string) {
	t.Helper()
	for _, s := range texts {
		if len(s) > 500 || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q got through", s)
		}
	}
}

func FuzzScriptFacts(f *testing.F) {
	f.Add(good)
	f.Add("uuid=&mac=52-54-00-12-34-56&serial=a%0Aboot%00%1b%5d0;x&asset=%24%7Bnet0%2Fmac%7D")
	f.Add("uuid=&mac=52-54-00-12-34-56&serial=" + url.QueryEscape(strings.Repeat("é\u202e", 5000)))
	f.Fuzz(func(t *testing.T, q string) {
		facts, err := scriptFacts(q, lane.Facts{})
		if err != nil {
			return
		}
		harmless(t, facts.Serial, facts.AssetTag, facts.Manufacturer, facts.Product)
		if _, err := lane.ParseMAC(string(facts.MAC)); err != nil || len(facts.MACs) > 8 {
			t.Errorf("%+v", facts)
		}
	})
}

func FuzzParseReport(f *testing.F) {
	f.Add("stage=installer&seq=3&status=progress&message=half&done=5&total=10")
	f.Add("stage=ready&seq=1&status=failed&message=a%0d%0a2026-01-01+fake+line&serial=%1b[2J")
	f.Fuzz(func(t *testing.T, body string) {
		r, err := parseReport(body, lane.Facts{})
		if err != nil {
			return
		}
		harmless(t, r.Message, r.Facts.Serial)
		if !r.Stage.Known() || r.Seq < 1 || r.Done < 0 || r.Total < 0 {
			t.Errorf("%+v", r)
		}
	})
}
