package script

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootlane/internal/lane"
)

var update = flag.Bool("update", false, "write the golden files anew")

const (
	base    = "http://10.0.0.1:8080"
	run     = base + "/run/abcdefghijklmnopqrstuvwxyz234567"
	file    = run + "/file/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef/"
	longest = 1024 // bytes in a line: iPXE copies each one to its stack
)

// golden compares a text with its golden file, or writes that anew.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("-want +got; look at it, then run with -update:\n%s", diff)
	}
}

func facts(f lane.Firmware) lane.Facts {
	return lane.Facts{Surface: lane.SurfaceHTTP, Speaker: lane.SpeakerLoader, MAC: "52:54:00:00:00:a1", MACs: []lane.MAC{"52:54:00:00:00:a2"}, UUID: "4c4c4544-0042-3510-8051-b4c04f4d3732",
		Serial: "SN-A 1", AssetTag: "AT-1", Manufacturer: "Example Corp.", Product: "Server 9", Arch: lane.X86_64, Firmware: f}
}

func install(f lane.Firmware) Install {
	return Install{Machine: Machine{Facts: facts(f), Server: base}, Decision: lane.Decision{Action: lane.Install, Reason: lane.Granted, Host: "node-a", Run: "r-abc123"},
		Hostname: "node-a.example.org", Boot: 1, Boots: 2, BundleName: "debian-12-1", KernelURL: file + "linux", InitrdURL: file + "initrd.gz",
		Args:     "autoinstall cloud-config-url=/dev/null ip=dhcp ds=nocloud-net;s=" + run + "/seed/ console=ttyS0,115200 ---",
		AgainURL: base + "/boot/52-54-00-00-00-a1/x86_64-uefi/failed.ipxe"}
}

// trusted is the same for an iPXE that checks signatures.
func trusted(f lane.Firmware) Install {
	in := install(f)
	in.KernelSignatureURL, in.InitrdSignatureURL = file+"linux.sig", file+"initrd.gz.sig"
	return in
}

// inspect is what leads a machine that nobody knows to the agent that looks at it.
func inspect(f lane.Firmware) Install {
	in := install(f)
	in.Decision, in.Hostname, in.Boot, in.Boots = lane.Decision{Action: lane.Inspect, Reason: lane.UnknownInspected}, "", 0, 0
	in.BundleName, in.Args = "agent-1", "bootlane.inspect="+base+"/inspect/abcdefghijklmnopqrstuvwxyz234567 BOOTIF=01-52-54-00-00-00-a1"
	return in
}

var mismatch = lane.Decision{Reason: lane.IdentityMismatch, Host: "node-a", Detail: "the machine is not the node-a that the inventory describes", Mismatch: []lane.Signal{
	{Name: "uuid", Expected: "4c4c4544-0042-3510-8051-b4c04f4d3732", Seen: "aaaaaaaa-0042-3510-8051-b4c04f4d3732", Host: "node-a"},
	{Name: "mac", Expected: "52:54:00:00:00:a1 52:54:00:00:00:a2", Seen: "52:54:00:00:00:99", Host: "node-a"},
	{Name: "serial", Expected: "SN-A 1", Seen: "", Host: "node-a"}}}

// scripts returns every script there is, by the name of its golden file.
func scripts() map[string][]byte {
	m := func(f lane.Firmware) Machine { return Machine{Facts: facts(f), Server: base} }
	local := lane.Decision{Action: lane.LocalBoot, Reason: lane.HostInstalled, Host: "node-a", Detail: "node-a is installed"}
	unknown := lane.Decision{Reason: lane.UnknownMachine, Detail: "no inventory record has UUID 4c4c4544-0042-3510-8051-b4c04f4d3732"}
	quarantine := lane.Decision{Reason: lane.HostQuarantined, Host: "node-a", Detail: "node-a is in quarantine: set aside"}
	disk := Hold{Wait: 30 * time.Second, Then: "local-boot"}
	ask := Hold{Wait: time.Minute, Then: "ask"}
	again := base + "/" + lane.EntryScript
	return map[string][]byte{
		"entry":                Entry(base),
		"install-uefi":         InstallScript(install(lane.UEFI)),
		"install-bios":         InstallScript(install(lane.BIOS)),
		"install-image-trust":  InstallScript(trusted(lane.UEFI)),
		"inspect-uefi":         InstallScript(inspect(lane.UEFI)),
		"local-boot-uefi":      LocalBootScript(m(lane.UEFI), local),
		"local-boot-bios":      LocalBootScript(m(lane.BIOS), local),
		"local-boot-unknown":   LocalBootScript(m(""), local),
		"hold-unknown":         HoldScript(m(lane.UEFI), unknown, disk, again),
		"hold-mismatch":        HoldScript(m(lane.UEFI), mismatch, disk, again),
		"hold-quarantine":      HoldScript(m(lane.BIOS), quarantine, disk, again),
		"hold-unknown-ask":     HoldScript(m(lane.UEFI), unknown, ask, again),
		"hold-mismatch-ask":    HoldScript(m(lane.BIOS), mismatch, ask, again),
		"hold-quarantine-ask":  HoldScript(m(""), quarantine, ask, again),
		"hold-knowing-nothing": HoldScript(Machine{Server: base}, lane.Decision{}, disk, again),
		"unavailable":          Unavailable(base, facts(lane.UEFI)),
		"unavailable-bios":     Unavailable(base, facts(lane.BIOS)),
	}
}

func TestGolden(t *testing.T) {
	have, err := filepath.Glob("testdata/*.ipxe")
	if err != nil {
		t.Fatal(err)
	}
	if !*update && len(have) != len(scripts()) {
		t.Errorf("%d scripts, and the golden files are %v", len(scripts()), have)
	}
	for name, got := range scripts() {
		t.Run(name, func(t *testing.T) {
			golden(t, name+".ipxe", got)
			sound(t, name, got)
		})
	}
}

// command is one command of a script: its words, and the settings it expands.
type command struct {
	words      []string
	expansions []string
	then       string // what separates it from the next: "", "&&", "||" or ";"
}

// read splits a script as iPXE does: lines at LF, ${...} expanded wherever it
// stands, then words at blanks; a word that is &&, || or ; ends a command, one
// that begins with # ends the line. There is no quoting.
func read(script []byte) (out []command) {
	lines := strings.Split(string(script), "\n")
	for _, line := range lines[1:] { // the first says what it is
		if strings.HasPrefix(line, ":") {
			continue // a label
		}
		var c command
		line, c.expansions = expand(line)
		for _, w := range strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r >= '\t' && r <= '\r' }) {
			if strings.HasPrefix(w, "#") {
				break
			}
			if w == "&&" || w == "||" || w == ";" {
				c.then = w
				out = append(out, c)
				c = command{}
				continue
			}
			c.words = append(c.words, w)
		}
		if c.words != nil {
			out = append(out, c)
		}
	}
	return out
}

// expand puts a word in the place of every setting.
func expand(line string) (string, []string) {
	var settings []string
	for {
		end := strings.IndexByte(line, '}')
		start := -1
		if end >= 0 {
			start = strings.LastIndex(line[:end], "${") // the innermost first
		}
		if start < 0 {
			return line, settings
		}
		settings = append(settings, line[start+2:end])
		line = line[:start] + "VALUE" + line[end+1:]
	}
}

// shape is what a script does, whatever it shows: its commands without their
// arguments, the settings it expands, its labels.
func shape(script []byte) []string {
	var out []string
	for _, c := range read(script) {
		name := ""
		if len(c.words) > 0 {
			name = c.words[0]
		}
		out = append(out, fmt.Sprintf("%s %v %s", name, c.expansions, c.then))
	}
	for _, l := range strings.Split(string(script), "\n") {
		if strings.HasPrefix(l, ":") {
			out = append(out, l)
		}
	}
	return out
}

// sound holds for every script: old iPXEs can read it, every jump arrives, and
// it ends by leaving iPXE.
func sound(t *testing.T, name string, script []byte) {
	t.Helper()
	text := string(script)
	if !strings.HasPrefix(text, "#!ipxe\n") || !strings.HasSuffix(text, "\n") || strings.Contains(text, "\n\n") {
		t.Errorf("begins %.20q", text)
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }); i >= 0 {
		t.Errorf("%q is not plain ASCII", text[max(0, i-10):min(len(text), i+10)])
	}
	labels := map[string]int{}
	for i, l := range strings.Split(text, "\n") {
		if len(l) > longest || strings.HasSuffix(l, " ") {
			t.Errorf("line %d has %d bytes: %.60q", i+1, len(l), l)
		}
		if strings.HasPrefix(l, ":") {
			labels[l[1:]]++
		}
	}
	commands := read(script)
	// What every build has, Debian's of 2019 included.
	known := []string{"boot", "chain", "cpuid", "dhcp", "echo", "exit", "goto", "imgfree", "inc", "initrd", "iseq", "isset", "kernel", "sanboot", "set", "sleep"}
	if name == "install-image-trust" { // for a loader that is said to have them
		known = append(known, "imgtrust", "imgverify")
	}
	for _, c := range commands {
		if len(c.words) == 0 && c.then == "" {
			t.Error("a command without a name")
		}
		if len(c.words) > 0 && !slices.Contains(known, c.words[0]) {
			t.Errorf("the command %q", c.words)
		}
		if len(c.words) > 1 && c.words[0] == "goto" && labels[c.words[1]] != 1 {
			t.Errorf("goes to %q, which stands %d times", c.words[1], labels[c.words[1]])
		}
	}
	if last := commands[len(commands)-1]; last.words[0] != "exit" {
		t.Errorf("ends with %q", last.words)
	}
}

// TestSafeEnds: what is not an install loads no kernel; an install that cannot be
// loaded ends at the disk; UEFI goes on to its next boot entry only by exit 1.
func TestSafeEnds(t *testing.T) {
	for name, s := range scripts() {
		var loads, exits []string
		for _, c := range read(s) {
			switch c.words[0] {
			case "kernel", "initrd", "boot":
				loads = append(loads, c.words[0])
			case "exit":
				exits = append(exits, strings.Join(c.words, " "))
			case "sanboot":
				if strings.Join(c.words, " ") != "sanboot --no-describe --drive 0x80" || c.then != "||" {
					t.Errorf("%s: %q", name, c.words)
				}
			}
		}
		starts := strings.HasPrefix(name, "install") || strings.HasPrefix(name, "inspect")
		if starts != slices.Equal(loads, []string{"kernel", "initrd", "boot"}) || !starts && loads != nil {
			t.Errorf("%s loads %v", name, loads)
		}
		want := []string{"exit 1"} // UEFI, from which it is known
		switch {
		case strings.HasSuffix(name, "-bios") || name == "hold-quarantine" || name == "hold-mismatch-ask":
			want = []string{"exit"}
		case name == "entry" || name == "local-boot-unknown" || name == "hold-quarantine-ask" || name == "hold-knowing-nothing":
			want = []string{"exit", "exit 1"}
		}
		if !slices.Equal(exits, want) {
			t.Errorf("%s leaves by %q, want %q", name, exits, want)
		}
	}
}

func TestInstallScript(t *testing.T) {
	commands := read(InstallScript(install(lane.UEFI)))
	find := func(name string) command {
		i := slices.IndexFunc(commands, func(c command) bool { return c.words[0] == name })
		return commands[i]
	}
	// The kernel's arguments reach it whole: the semicolon is inside a word.
	want := append([]string{"kernel", file + "linux", "initrd=initrd.gz"}, strings.Fields(install(lane.UEFI).Args)...)
	if k := find("kernel"); !slices.Equal(k.words, want) || k.then != "||" {
		t.Errorf("%q, want %q", k.words, want)
	}
	if i := find("initrd"); !slices.Equal(i.words, []string{"initrd", file + "initrd.gz"}) || i.then != "||" {
		t.Errorf("%q", i.words)
	}
	if b := find("boot"); len(b.words) != 1 || b.then != "||" {
		t.Errorf("a kernel that does not start is not noticed: %q %s", b.words, b.then)
	}
	if c := find("chain"); c.words[len(c.words)-1] != install(lane.UEFI).AgainURL {
		t.Errorf("a failure is told to %q", c.words)
	}
}

func TestEntryTellsEverything(t *testing.T) {
	text := string(Entry(base))
	for _, p := range []string{"uuid=${uuid}", "mac=${netX/mac:hexhyp}", "serial=${serial:uristring}", "asset=${asset:uristring}", "manufacturer=${manufacturer:uristring}", "product=${product:uristring}", "buildarch=${bl-arch}", "platform=${platform}"} {
		if strings.Count(text, p) != 1 {
			t.Errorf("%s stands %d times", p, strings.Count(text, p))
		}
	}
	for i := range MaxNICs {
		if !strings.Contains(text, fmt.Sprintf("${net%d/mac:hexhyp}", i)) {
			t.Errorf("the NIC %d is not told", i)
		}
	}
	if !strings.Contains(text, base+lane.ScriptPath+"?") {
		t.Error("it asks elsewhere")
	}
	// Text of the firmware must be encoded: a blank would end the URL, an & would add a parameter.
	for _, c := range read([]byte(text)) {
		for _, e := range c.expansions {
			if name, _, _ := strings.Cut(e, ":"); slices.Contains([]string{"serial", "asset", "manufacturer", "product"}, name) && e != name+":uristring" {
				t.Errorf("${%s} is not encoded", e)
			}
		}
	}
}

// hostile is what a machine, or whoever sits behind it, may say of itself.
var hostile = []string{
	"a\nshell", "a\r\nshell", "\n#!ipxe\nshell", "a\x00b", "a && shell", "a || shell", "a ; shell", "&&", "||", ";", "; shell", "# x", "#", ":local", "\n:local\nshell",
	"${net0/mac}", "${uuid", "$", "${", "}", "${${a}}", "$ {a}", "{", "`shell`", "'a'", `"a"`, `\`, "a\tb", "a\vb\fc", "--drive 0x81", "-n",
	"\x1b[2J\x1b[H", "\x9b31m", "\u202eabc", "\xff\xfe\xfd", "\xc3", "Ünïcödé 測試", strings.Repeat("a", 1<<16), strings.Repeat("${a} && ", 1<<13), strings.Repeat("\n", 1<<16), "  ", "?????", "%s%n",
}

// with returns every script that shows what a machine or an operator wrote, made of s.
func with(s string) map[string][]byte {
	f := lane.Facts{MAC: lane.MAC(s), MACs: []lane.MAC{lane.MAC(s + "2")}, UUID: lane.UUID(s), Serial: s, AssetTag: s, Manufacturer: s, Product: s, Arch: lane.Arch(s)}
	d := lane.Decision{Reason: lane.Reason(s), Detail: s, Host: lane.HostID(s), Run: lane.RunID(s), Mismatch: []lane.Signal{{Name: s, Expected: s, Seen: s, Host: lane.HostID(s)}}}
	m := Machine{Facts: f, Server: s}
	in := install(lane.UEFI)
	in.Machine, in.Decision, in.Hostname, in.BundleName = m, d, s, s
	f.Firmware = lane.Firmware(s)
	return map[string][]byte{
		"install":    InstallScript(in),
		"local boot": LocalBootScript(Machine{Facts: f, Server: s}, d),
		"hold":       HoldScript(m, d, Hold{Wait: time.Second, Then: "local-boot"}, base),
		"ask":        HoldScript(m, d, Hold{Wait: time.Second, Then: "ask"}, base),
		"away":       Unavailable(base, f),
	}
}

// TestHostileFacts: whatever is shown, the script does the same.
func TestHostileFacts(t *testing.T) {
	tame := with("x")
	for _, s := range hostile {
		for name, script := range with(s) {
			t.Run(fmt.Sprintf("%s/%.20q", name, s), func(t *testing.T) {
				harmless(t, tame[name], script)
			})
		}
	}
}

func harmless(t *testing.T, tame, script []byte) {
	t.Helper()
	if diff := cmp.Diff(shape(tame), shape(script)); diff != "" {
		t.Errorf("the script does something else:\n%s", diff)
	}
	for _, c := range []string{"\n", "#", "$"} {
		if a, b := strings.Count(string(tame), c), strings.Count(string(script), c); a != b {
			t.Errorf("%q stands %d times instead of %d", c, b, a)
		}
	}
	sound(t, "", script)
}

func FuzzHostileFacts(f *testing.F) {
	for _, s := range hostile {
		f.Add(s)
	}
	tame := with("x")
	f.Fuzz(func(t *testing.T, s string) {
		for name, script := range with(s) {
			harmless(t, tame[name], script)
		}
	})
}

// TestReaderSees shows that the reader of these tests finds what it looks for.
func TestReaderSees(t *testing.T) {
	for script, want := range map[string]int{
		"#!ipxe\necho a\n":                     1,
		"#!ipxe\necho a && shell\n":            2,
		"#!ipxe\necho a || shell ; echo b\n":   3,
		"#!ipxe\necho a&&b\n":                  1, // only a word of its own separates
		"#!ipxe\necho a # && shell\n":          1,
		"#!ipxe\n:label\necho ${a} && shell\n": 2,
		"#!ipxe\necho a\tb\n\n\nshell\n":       2,
	} {
		if got := read([]byte(script)); len(got) != want {
			t.Errorf("%q: %v", script, got)
		}
	}
	if _, e := expand("a ${b} ${c:${d}} }"); !slices.Equal(e, []string{"b", "d", "c:VALUE"}) {
		t.Errorf("expansions %q", e)
	}
	if slices.Equal(shape([]byte("#!ipxe\necho a\n")), shape([]byte("#!ipxe\necho ${a}\n"))) {
		t.Error("an expansion does not change the shape")
	}
}
