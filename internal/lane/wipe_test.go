package lane

import (
	"strings"
	"testing"
)

func TestResolveWipe(t *testing.T) {
	root := testDisks[0] // sda, serial S1 like nvme0n1
	for name, c := range map[string]struct {
		wipe []DiskSelector
		want string   // names
		bad  []string // words of the refusal
	}{
		"none":        {nil, "", nil},
		"two":         {[]DiskSelector{{Serial: "S2"}, {WWN: "eui.0025385a71b03a5b"}}, "sdb nvme0n1", nil},
		"root itself": {[]DiskSelector{{WWN: "0x5002538e00000001"}}, "", []string{"wipe[0]: wwn=0x5002538e00000001 is the disk that is installed to, sda"}},
		"one of two":  {[]DiskSelector{{Serial: "S1"}}, "", []string{"wipe[0]: 2 disks match serial=S1"}},
		"one twice":   {[]DiskSelector{{Serial: "S2"}, {ByID: "ata-X_S2"}}, "", []string{"wipe[1]: serial=S2 and byID=ata-X_S2 are the same disk, sdb"}},
		"all at once": {[]DiskSelector{{Serial: "S2"}, {Serial: "S9"}, {Serial: "USB1"}, {Serial: "RO1"}, {}}, "", []string{"wipe[1]: no disk matches serial=S9", "wipe[2]: the disk sdc is removable", "wipe[3]: the disk sdd is read-only", "wipe[4]: no disk selector"}},
	} {
		got, err := ResolveWipe(root, c.wipe, testDisks)
		var names []string
		for _, d := range got {
			names = append(names, d.Name)
		}
		if strings.Join(names, " ") != c.want || (err == nil) != (c.bad == nil) || err != nil && CodeOf(err) != Refused {
			t.Errorf("%s: %v, %v", name, names, err)
		}
		for _, w := range c.bad {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %q", name, err, w)
			}
		}
	}
}

func TestWipeProblems(t *testing.T) {
	h := known()
	h.Wipe = []DiskSelector{{Serial: "A"}, {ByID: "sda"}, {SizeGB: 480}, {Serial: "DISK-A"}, {Serial: "A"}}
	var got []string
	for _, p := range h.Validate() {
		got = append(got, p.String())
	}
	want := []string{`wipe[1].byID: "sda" is a kernel name`, "wipe[2].sizeGB: a size alone", "wipe[2]: selects nothing", "wipe[3]: is the disk that is installed to", "wipe[4]: serial=A stands twice"}
	if len(got) != len(want) {
		t.Fatalf("%q", got)
	}
	for i, w := range want {
		if !strings.HasPrefix(got[i], w) {
			t.Errorf("%q, want %q", got[i], w)
		}
	}
	h.Wipe = make([]DiskSelector, maxWipe+1)
	if p := h.Validate(); len(p) != 1 || !strings.Contains(p[0].Message, "128 at most") {
		t.Errorf("%v", p)
	}
}

// TestWipeGrant: a grant names what it clears, is for exactly that, and only for bundles that can.
func TestWipeGrant(t *testing.T) {
	wiping := known()
	wiping.Wipe = []DiskSelector{{Serial: "DATA-A"}}
	h, e, err := Arm(wiping, testBundle, testGrant, armedAt)
	if err != nil || !strings.Contains(e.Message, "on the disk serial=DISK-A (and clears serial=DATA-A) until") || len(h.Run.Wipe) != 1 {
		t.Fatalf("%v: %s", err, e.Message)
	}
	h.Run.Wipe[0].Serial, h.Wipe[0].Serial = "DATA-X", "DATA-X"
	if wiping.Wipe[0].Serial != "DATA-A" {
		t.Error("a grant shares the list with the record that it was made from")
	}
	h = must(Arm(wiping, testBundle, testGrant, armedAt))(t)
	h = must(Quarantine(h, nil, nil, "op:alice", "set aside", armedAt))(t)
	changed := wiping
	changed.Wipe = []DiskSelector{{Serial: "DATA-A"}, {Serial: "DATA-B"}}
	h, e, news, err := Update(h, changed, "op:alice", armedAt)
	if err != nil || !news || h.Run.Open || !strings.Contains(e.Message, "wipe: serial=DATA-A -> serial=DATA-A, serial=DATA-B") || !strings.Contains(e.Message, "it is cancelled") {
		t.Errorf("%v, open %v: %s", err, h.Run.Open, e.Message)
	}
	for _, seed := range Seeds() {
		b := testBundle
		b.Seed = seed
		said := ""
		for _, p := range Preflight(wiping, b) {
			if p.Field == "wipe" {
				said = p.Message
			}
		}
		if (said == "") != (seed == SeedImage) {
			t.Errorf("%s: %q", seed, said)
		}
	}
}
