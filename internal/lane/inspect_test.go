package lane

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// found is what an agent tells of an ordinary server.
func found() Discovered {
	return Discovered{ID: string(identityA.UUID), Hardware: Hardware{UUID: identityA.UUID, Serial: "SN-A", AssetTag: "AT-1", Machine: "x86_64", Firmware: "uefi", BootMAC: identityA.MACs[0],
		NICs: []NIC{{Name: "eno1", MAC: identityA.MACs[0], Driver: "ixgbe", Up: true, Mbps: 10_000}, {Name: "eno2", MAC: identityA.MACs[1], Driver: "ixgbe"}, {Name: "usb0", MAC: "02:00:00:00:00:01", Driver: "cdc_ether"}},
		Disks: []Disk{
			{Name: "sda", SizeBytes: 480e9, Serial: "S1", WWN: "0x5002538e00000001", ByID: []string{"ata-X_S1", "wwn-0x5002538e00000001"}},
			{Name: "sdb", SizeBytes: 31e9, Serial: "USB1", Removable: true, Transport: "usb"}}}}
}

func TestAdopt(t *testing.T) {
	second := Disk{Name: "sdc", SizeBytes: 480e9, Serial: "S2", WWN: "0x5002538e00000002"}
	for _, c := range []struct {
		name   string
		change func(hw *Hardware)
		ask    Adoption
		host   string   // "id hostname arch disk"
		bad    []string // words of every problem, in order
		notes  []string
	}{
		{"ordinary", func(*Hardware) {}, Adoption{ID: "node-7", Hostname: "n7.example.org"}, "node-7 n7.example.org x86_64 serial=S1", nil, []string{"02:00:00:00:00:01 (cdc_ether)"}},
		{"by host name", func(*Hardware) {}, Adoption{Hostname: "n7.example.org"}, "n7 n7.example.org x86_64 serial=S1", nil, []string{"cdc_ether"}},
		{"by id", func(*Hardware) {}, Adoption{ID: "n7"}, "n7 n7 x86_64 serial=S1", nil, []string{"cdc_ether"}},
		{"by link", func(*Hardware) {}, Adoption{ID: "n7", Disk: "ata-X_S1"}, "n7 n7 x86_64 byID=ata-X_S1", nil, []string{"cdc_ether"}},
		{"two disks", func(hw *Hardware) { hw.Disks = append(hw.Disks, second) }, Adoption{ID: "n7"}, "n7 n7 x86_64 none", []string{"2 disks could be installed to"}, []string{"cdc_ether"}},
		{"two disks, one named", func(hw *Hardware) { hw.Disks = append(hw.Disks, second) }, Adoption{ID: "n7", Disk: "S2"}, "n7 n7 x86_64 serial=S2", nil, []string{"cdc_ether"}},
		{"two disks of one serial number", func(hw *Hardware) { second.Serial = "S1"; hw.Disks = append(hw.Disks, second) }, Adoption{ID: "n7", Disk: "S1"}, "n7 n7 x86_64 none", []string{`2 disks are "S1": give --disk with a WWN`}, []string{"cdc_ether"}},
		{"two of one, by WWN", func(hw *Hardware) { second.Serial = "S1"; hw.Disks = append(hw.Disks, second) }, Adoption{ID: "n7", Disk: second.WWN}, "n7 n7 x86_64 wwn=0x5002538e00000002", nil, []string{"cdc_ether"}},
		{"no disk", func(hw *Hardware) { hw.Disks = hw.Disks[1:] }, Adoption{ID: "n7"}, "n7 n7 x86_64 none", []string{"no disk that could be installed to; seen: sdb"}, []string{"cdc_ether"}},
		{"removable, named", func(*Hardware) {}, Adoption{ID: "n7", Disk: "USB1"}, "n7 n7 x86_64 none", []string{"removable media"}, []string{"cdc_ether"}},
		{"no such disk", func(*Hardware) {}, Adoption{ID: "n7", Disk: "S9"}, "n7 n7 x86_64 none", []string{`by-id link "S9"`}, []string{"cdc_ether"}},
		{"a disk that states nothing", func(hw *Hardware) { hw.Disks = []Disk{{Name: "vda", SizeBytes: 1e9}} }, Adoption{ID: "n7"}, "n7 n7 x86_64 none", []string{"vda states neither"}, []string{"cdc_ether"}},
		{"a serial number that no record could have", func(hw *Hardware) { hw.Disks = []Disk{{Name: "vda", Serial: "S\x001", ByID: []string{"virtio-S1"}}} }, Adoption{ID: "n7"}, "n7 n7 x86_64 byID=virtio-S1", nil, []string{"cdc_ether"}},
		{"factory defaults", func(hw *Hardware) {
			hw.UUID, hw.Serial, hw.AssetTag = placeholderUUIDs[0], "To Be Filled By O.E.M.", "0"
		}, Adoption{ID: "n7"}, "n7 n7 x86_64 serial=S1", []string{"neither a UUID nor a serial number"}, []string{"UUID 03000200", "serial number", "asset tag", "cdc_ether"}},
		{"everything wrong", func(hw *Hardware) { *hw = Hardware{Machine: "sparc64"} }, Adoption{}, "  x86_64 none", []string{"give --id or --hostname", "no NIC of its own", "neither a UUID", "sparc64", "no disk at all"}, []string{"factory default"}},
		{"booted by a dongle", func(hw *Hardware) { hw.BootMAC = "02:00:00:00:00:01" }, Adoption{ID: "n7"}, "n7 n7 x86_64 serial=S1", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := found()
			c.change(&d.Hardware)
			out := Adopt(d, c.ask)
			if got := fmt.Sprintf("%s %s %s %s", out.Host.ID, out.Host.Hostname, out.Host.Arch, out.Host.Disk); got != c.host {
				t.Errorf("record %q, want %q", got, c.host)
			}
			var bad []string
			for _, p := range out.Problems {
				bad = append(bad, p.String())
			}
			for what, list := range map[string][2][]string{"problems": {bad, c.bad}, "notes": {out.Notes, c.notes}} {
				if len(list[0]) != len(list[1]) {
					t.Fatalf("%s %q, want %q", what, list[0], list[1])
				}
				for i, s := range list[0] {
					if !strings.Contains(s, list[1][i]) {
						t.Errorf("%s: %q, want %q", what, s, list[1][i])
					}
				}
			}
			if len(bad) == 0 && len(out.Host.Validate()) > 0 {
				t.Errorf("an import would refuse it: %v", out.Host.Validate())
			}
		})
	}
}

func TestTidy(t *testing.T) {
	hw := found().Hardware
	hw.Product, hw.CPUModel, hw.BMC = "x\x1b[2J\u202ey", strings.Repeat("c", 500), "not an address"
	hw.Disks[0].ByID = slices.Repeat([]string{strings.Repeat("l", 500)}, 40)
	got, err := hw.Tidy()
	if err != nil || got.Product != "x[2Jy" || len(got.CPUModel) != 128 || got.BMC != "" || len(got.Disks[0].ByID) != 16 || len(got.Disks[0].ByID[0]) != 128 {
		t.Errorf("%v, %+v", err, got)
	}
	if len(hw.Disks[0].ByID) != 40 || len(hw.Disks[0].ByID[0]) != 500 {
		t.Error("the input was changed")
	}
	for n, code := range map[int]Code{300: "", 1024: Invalid} {
		hw = found().Hardware
		for i := range n {
			hw.Disks = append(hw.Disks, Disk{Name: fmt.Sprint("sd", i), Serial: fmt.Sprint("SERIAL", i), WWN: fmt.Sprint("0x", i), Model: strings.Repeat("m", 40), ByID: []string{fmt.Sprint("wwn-0x", i), fmt.Sprint("scsi-", i, strings.Repeat("x", 60))}, ByPath: []string{fmt.Sprint("pci-", i)}})
		}
		if _, err := hw.Tidy(); CodeOf(err) != code {
			t.Errorf("%d disks: %v", n, err)
		}
	}
}

func TestDiscoveredAs(t *testing.T) {
	hw := found().Hardware
	for _, c := range []struct {
		change func()
		want   string
	}{
		{func() {}, string(identityA.UUID)},
		{func() { hw.UUID = placeholderUUIDs[0] }, string(identityA.MACs[0])},
		{func() { hw.BootMAC = "" }, string(identityA.MACs[0])},
		{func() { hw.NICs = nil }, ""},
	} {
		c.change()
		if got, err := hw.DiscoveredAs(); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q, %v; want %q", got, err, c.want)
		}
	}
	d := found()
	for s, want := range map[string]bool{d.ID: true, "52-54-00-00-00-A2": true, "SN-A": true, "": false, "SN": false, "52:54:00:00:00:b1": false} {
		if d.Named(s) != want {
			t.Errorf("named %q: %v", s, !want)
		}
	}
}

func TestDiffers(t *testing.T) {
	hw := found().Hardware
	h := Host{ID: "a", Arch: X86_64, Disk: DiskSelector{Serial: "S1"}}
	if got := Differs(h, hw); len(got) != 0 {
		t.Errorf("of the same machine: %v", got)
	}
	h = Host{ID: "a", Arch: ARM64, Disk: DiskSelector{Serial: "S9"}, Wipe: []DiskSelector{{Serial: "S1"}, {Serial: "S8"}}, Boot: BootOptions{SecureBoot: "both"}}
	var got []string
	for _, s := range Differs(h, hw) {
		got = append(got, s.Name+": "+s.Expected+", "+s.Seen)
	}
	if len(got) != 4 || got[0] != "arch: arm64, x86_64" || !strings.HasPrefix(got[1], "disk: serial=S9, no disk matches") || !strings.HasPrefix(got[2], "wipe: serial=S8, no disk matches") || got[3] != "secureBoot: both, off" {
		t.Errorf("%q", got)
	}
}

func TestAfterInspection(t *testing.T) {
	for _, c := range []struct {
		d     Decision
		idle  string
		then  string
		again int
	}{
		{Decision{}, "", ThenPowerOff, 0},
		{Decision{Action: Inspect, Reason: UnknownInspected}, ThenWait, ThenWait, 30},
		{Decision{Action: Hold, Reason: IdentityMismatch}, ThenPowerOff, ThenPowerOff, 0},
		{Decision{Action: LocalBoot, Reason: HostNew}, ThenWait, ThenWait, 30},
		{Decision{Action: LocalBoot, Reason: HostInstalled}, ThenWait, ThenReboot, 0},
		{Decision{Action: Install, Reason: Granted}, ThenPowerOff, ThenReboot, 0},
	} {
		if got := AfterInspection(c.d, c.idle); got.Then != c.then || got.Again != c.again {
			t.Errorf("after %s %s: %+v", c.d.Action, c.d.Reason, got)
		}
	}
}

// TestInspectWish: it stands until its time, ends when the machine was looked at, and a grant takes its place.
func TestInspectWish(t *testing.T) {
	h := in(t, StateInstalled)
	for _, d := range []time.Duration{0, -time.Second, MaxInspectFor + 1} {
		if _, _, err := WishInspect(h, later.Add(d), "op:alice", "", later); CodeOf(err) != Invalid {
			t.Errorf("for %s: %v", d, err)
		}
	}
	asked := must(WishInspect(h, later.Add(time.Hour), "op:alice", "new disks", later))(t)
	next, e, was := EndInspect(asked, later)
	if !was || !next.Inspect.IsZero() || e.Kind != KindInspect || next.State != StateInstalled {
		t.Errorf("%v, %+v", was, e)
	}
	if _, _, was := EndInspect(next, later); was {
		t.Error("it ends twice")
	}
	if armed := must(Arm(asked, testBundle, testGrant, later))(t); !armed.Inspect.IsZero() {
		t.Error("the wish outlives a grant")
	}
}

func TestInspectPath(t *testing.T) {
	ticket := strings.Repeat("a", 32)
	for _, p := range []InspectPath{{Ticket: ticket}, {ticket, rightBundle, "linux"}} {
		if got, ok := ParseInspectPath(p.String()); !ok || got != p {
			t.Errorf("%s: %+v, %v", p, got, ok)
		}
		if _, ok := ParseRunPath(p.String()); ok {
			t.Errorf("%s opens a run", p)
		}
	}
	for _, s := range []string{"/inspect/" + ticket, "/inspect/short/report", "/inspect/" + ticket + "/order", "/inspect/" + ticket + "/report/x", "/inspect/" + ticket + "/file/00/linux",
		"/inspect/" + ticket + "/file/" + strings.Repeat("1", 64) + "/.hidden", "/run/" + ticket + "/report"} {
		if p, ok := ParseInspectPath(s); ok {
			t.Errorf("%s: %+v", s, p)
		}
	}
}
