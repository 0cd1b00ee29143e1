package lab

import (
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"bootlane/internal/lane"
	"bootlane/internal/pcap"
)

// `make lab-full` plays every scenario and hands over what came of it.
var table = flag.String("table", "", "the lab's firmware.md, to put into docs/firmware.md")

const (
	firmwarePage = "../../docs/firmware.md"
	tableBegins  = "<!-- from here to the end mark: make lab-full writes it anew -->\n"
	tableEnds    = "<!-- end -->\n"
)

// TestFirmwarePage: the page's table has a row of every scenario, and of no other.
func TestFirmwarePage(t *testing.T) {
	page, err := os.ReadFile(firmwarePage)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(page), tableBegins)
	old, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		t.Fatalf("%s has not both marks, %q and %q", firmwarePage, tableBegins, tableEnds)
	}
	if *table != "" {
		text, err := os.ReadFile(*table)
		if err != nil {
			t.Fatal(err)
		}
		old = string(text)
		if err := os.WriteFile(firmwarePage, []byte(before+tableBegins+old+tableEnds+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var told []string
	for _, line := range strings.Split(old, "\n") {
		cells := strings.Split(strings.Trim(line, "| "), "|")
		for _, m := range regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(cells[len(cells)-1], -1) {
			told = append(told, m[1])
		}
	}
	var have []string
	for _, s := range Scenarios() {
		have = append(have, s.Key)
		if !slices.Contains(told, s.Key) {
			t.Errorf("%s has no row of the scenario %s: run `make lab-full`", firmwarePage, s.Key)
		}
	}
	for _, key := range told {
		if !slices.Contains(have, key) {
			t.Errorf("%s has a row of the scenario %s, which the lab does not have: run `make lab-full`", firmwarePage, key)
		}
	}
}

// What the table says is what was seen, and how far is as far as it went.
func TestTable(t *testing.T) {
	on := time.Unix(1000, 0)
	at := func(seconds int, kind lane.Kind, stage lane.Stage, action lane.Action) lane.Event {
		return lane.Event{At: on.Add(time.Duration(seconds) * time.Second), Kind: kind, Stage: stage, Action: action.String(), Reason: "why"}
	}
	asked := pcap.Message{Arch: []int{7}, Class: "PXEClient:Arch:00007:UNDI:003001"}
	plain := pcap.Attempt{Speaker: pcap.UEFIPXE, Version: 4, Asked: []pcap.Message{asked}, Request: &pcap.Message{Server: "10.0.0.2"}}
	beside := plain
	beside.Offers = []pcap.Message{{Packet: 2, Server: "10.0.0.2"}, {Packet: 3, Server: "10.0.0.1"}}
	beside.Choice = &pcap.Choice{Takes: 2, Boots: 3}
	sent := plain
	sent.Boot4011 = &pcap.Message{Server: "10.0.0.2"}
	peers := map[string]string{"10.0.0.2": "dnsmasq-base"}
	lease := lane.Event{Kind: lane.KindLease, Facts: &lane.Facts{Relay: lane.Relay{Address: "10.1.0.1", CircuitID: "lan0"}}}
	for _, c := range []struct {
		name   string
		a      pcap.Attempt
		events []lane.Event
		want   string
	}{
		{"installed", plain, []lane.Event{lease, at(5, lane.KindStage, lane.StageKernel, lane.Hold), at(8, lane.KindAsked, "", lane.LocalBoot), at(9, lane.KindInstalled, "", lane.Hold)},
			"Bootlane, through the relay agent 10.1.0.1 (circuit `lan0`) | installed | 9 | `k` |"},
		{"and booted again", plain, []lane.Event{at(9, lane.KindInstalled, lane.StageReady, lane.Hold), at(20, lane.KindAsked, "", lane.LocalBoot)}, "dnsmasq-base 2.90, both | installed, then sent to its disk | 9 | `k` |"},
		{"beside", beside, []lane.Event{at(5, lane.KindStage, lane.StageKernel, lane.Hold)}, "dnsmasq-base 2.90; the boot file Bootlane, beside it | the first report of agent or installer | 5 |"},
		{"on one machine", sent, []lane.Event{at(5, lane.KindStage, lane.StageKernel, lane.Hold)}, "dnsmasq-base 2.90; the boot file Bootlane, beside it | the first report of agent or installer | 5 |"},
		{"held", plain, []lane.Event{lease, at(3, lane.KindServed, "", lane.Hold)}, "| held, and told why: `why` | 3 |"},
		{"no further", plain, []lane.Event{lease, at(3, lane.KindStage, lane.StageLoader, lane.Hold)}, "| its boot loader `snponly.efi` | 3 |"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := Boot{Scenario: "k", Firmware: "OVMF", Way: way(c.a), BootFile: "boot/any/snponly.efi", Arch: c.a.Asked[0].Arch, Class: c.a.Asked[0].Class, Packages: map[string]string{"ovmf": "1", "dnsmasq-base": "2.90", "qemu-system-x86": "7"}}
			b.from(c.a, peers, c.events)
			b.came(c.events, on)
			got := Table([]Boot{b})
			for _, want := range []string{c.want, "On qemu-system-x86 7, emulated.", "| PXE, IPv4 | 7, `PXEClient:Arch:00007:UNDI:003001` |"} {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
		})
	}
}
