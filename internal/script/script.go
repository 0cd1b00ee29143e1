// Package script writes what boot loaders run. It is pure: a decision and a few
// addresses go in, bytes come out, and the same input gives the same bytes.
//
// Scripts are written for the oldest iPXE in the field (Debian's build of 2019):
// plain HTTP, GET, no params; imgverify only where a bundle says that its loader has it. Whatever came from a machine is
// reduced to harmless characters before it enters a script: iPXE expands ${...}
// and splits at &&, || and ; wherever they stand.
package script

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// MaxNICs is how many NICs the entry script reports.
const MaxNICs = 8

// chain asks for another script in this one's place. A server that went away in the middle
// of an answer would hold the machine for ever; scripts take less than a minute.
const chain = "chain --timeout 60000 --replace --autofree "

// Entry returns the script that every iPXE runs first: it tells the server what
// the machine is, and runs the answer. base is the server's URL without a
// trailing slash. It can destroy nothing.
func Entry(base string) []byte {
	var macs []string
	for i := range MaxNICs {
		macs = append(macs, fmt.Sprintf("${net%d/mac:hexhyp}", i))
	}
	// The BIOS build says i386 on every machine; the CPU's long-mode flag tells the truth.
	lines := []string{
		"#!ipxe",
		"# Bootlane entry script: says what this machine is, and runs the answer.",
		// By IPv6 alone there is no ${ip}, and another round of dhcp takes 16 s. ${ip6} says
		// nothing: it may be the link's own.
		"isset ${ip} || isset ${filename} || dhcp || goto unreachable",
		"set bl-arch ${buildarch}",
		"iseq ${bl-arch} i386 && cpuid --ext 29 && set bl-arch x86_64 ||",
		"set bl-tries:int32 0",
		":ask",
		chain + base + lane.ScriptPath +
			"?uuid=${uuid}&mac=${netX/mac:hexhyp}&macs=" + strings.Join(macs, ",") +
			"&serial=${serial:uristring}&asset=${asset:uristring}&manufacturer=${manufacturer:uristring}&product=${product:uristring}" +
			"&buildarch=${bl-arch}&platform=${platform} ||",
		"inc bl-tries",
		"iseq ${bl-tries} 30 && goto unreachable ||",
		"echo Bootlane: no answer from " + base + ", asking again in 10 s",
		"sleep 10",
		"goto ask",
		":unreachable",
		"echo Bootlane: " + base + " cannot be reached; booting the local disk",
	}
	return join(lines, localBoot("${platform}", "")...)
}

// Machine is what a script may show of a machine.
type Machine struct {
	Facts     lane.Facts
	Server    string // the server's URL
	LocalBoot string // how it leaves for its disk, where that is not as its platform does: lane.BootOptions
}

// Install is everything the install script needs.
type Install struct {
	Machine
	Decision   lane.Decision
	Hostname   string
	Boot       int // this network boot, from 1
	Boots      int // granted
	BundleName string
	KernelURL  string // ends in the kernel's file name
	InitrdURL  string // ends in the initrd's file name
	Args       string // kernel arguments without initrd=
	AgainURL   string // asked when the files cannot be loaded: reports it
	// The detached signatures by which iPXE is to check both files, and run nothing else;
	// empty where it cannot.
	KernelSignatureURL, InitrdSignatureURL string
}

// purpose says in one line what is started.
func (in Install) purpose() string {
	if in.Decision.Action == lane.Inspect {
		return "looks at this machine with the agent of " + in.BundleName + "; no disk is opened"
	}
	return fmt.Sprintf("%s installs %s on %s, run %s, network boot %d of %d", in.Hostname, in.BundleName, in.Decision.Host, in.Decision.Run, in.Boot, in.Boots)
}

// InstallScript returns the script that starts an installer, or the agent that only looks.
func InstallScript(in Install) []byte {
	name := func(url string) string { return url[strings.LastIndexByte(url, '/')+1:] }
	initrd, load := name(in.InitrdURL), []string{"initrd " + in.InitrdURL + " || goto failed"}
	trust := []string(nil)
	if in.KernelSignatureURL != "" {
		// Permanent: whatever else a run of this loader leads to must be signed as well. Who
		// lacks the command does not load: a check that is left out is none.
		trust = []string{"imgtrust --permanent || goto failed"}
		load = append(load, "imgverify "+name(in.KernelURL)+" "+in.KernelSignatureURL+" || goto failed",
			"imgverify "+initrd+" "+in.InitrdSignatureURL+" || goto failed")
	}
	return join(slices.Concat([]string{
		"#!ipxe",
		"# Bootlane: " + clean(in.purpose()),
		"echo",
		"echo Bootlane: " + clean(in.purpose()),
		"set bl-tries:int32 0",
		":load",
		"imgfree",
	}, trust, []string{
		// UEFI kernels before 5.18 find the initrd only by this argument.
		"kernel " + in.KernelURL + " initrd=" + initrd + " " + in.Args + " || goto failed",
	}, load, []string{
		"boot || goto failed",
		":failed",
		"inc bl-tries",
		"iseq ${bl-tries} 4 && goto giveup ||",
		"echo Bootlane: could not load the installer, trying again in 10 s",
		"sleep 10",
		"goto load",
		":giveup",
		"imgfree",
		"echo Bootlane: the installer could not be loaded; telling the server",
		chain + in.AgainURL + " || goto local",
		":local",
	}), localBoot(string(in.Facts.Firmware), in.LocalBoot)...)
}

// LocalBootScript returns the script that leaves the machine to its own disk.
func LocalBootScript(m Machine, d lane.Decision) []byte {
	return join([]string{
		"#!ipxe",
		"# Bootlane: local boot, " + clean(string(d.Reason)),
		"echo",
		"echo Bootlane: local boot: " + clean(string(d.Reason)) + ": " + clean(d.Detail),
	}, localBoot(string(m.Facts.Firmware), m.LocalBoot)...)
}

// Hold says how a held machine waits.
type Hold struct {
	Wait time.Duration // how long the screen stands
	Then string        // "local-boot", or "ask" to ask the server again
}

// HoldScript returns the diagnosis screen: what the machine shows, what the
// server decided and why, and both sides of every disagreement. It has no columns:
// iPXE's echo makes one blank of many, and consoles are 80 wide.
func HoldScript(m Machine, d lane.Decision, h Hold, again string) []byte {
	lines := []string{"#!ipxe", "# Bootlane: held, " + clean(string(d.Reason))}
	for _, text := range holdScreen(m, d) {
		lines = append(lines, strings.TrimSpace("echo "+text))
	}
	seconds := int(h.Wait.Seconds())
	if h.Then == "ask" {
		lines = append(lines, fmt.Sprintf("echo This machine asks again every %d s.", seconds), fmt.Sprintf("sleep %d", seconds),
			chain+again+" || goto local", ":local")
	} else {
		lines = append(lines, fmt.Sprintf("echo Local boot in %d s.", seconds), fmt.Sprintf("sleep %d", seconds))
	}
	return join(lines, localBoot(string(m.Facts.Firmware), m.LocalBoot)...)
}

// holdScreen is what a held machine shows, line by line, clean.
func holdScreen(m Machine, d lane.Decision) []string {
	f := m.Facts
	lines := []string{"", "Bootlane holds this machine: nothing is installed, no disk is touched."}
	show := func(label, value string) {
		if value == "" {
			value = "-"
		}
		lines = append(lines, clean(label)+": "+clean(value))
	}
	show("decision", d.Action.String())
	show("reason", string(d.Reason))
	show("detail", d.Detail)
	show("host", string(d.Host))
	var macs []string
	for _, mac := range f.AllMACs() {
		macs = append(macs, string(mac))
	}
	show("MAC", strings.Join(macs, " "))
	show("UUID", string(f.UUID))
	show("serial", f.Serial)
	show("asset tag", f.AssetTag)
	show("product", strings.TrimSpace(f.Manufacturer+" "+f.Product))
	show("architecture", strings.TrimSpace(string(f.Arch)+" "+string(f.Firmware)))
	show("boot server", m.Server)
	if len(d.Mismatch) > 0 {
		lines = append(lines, "", "What does not agree:")
		for _, s := range d.Mismatch {
			show(s.Name+", inventory of "+string(s.Host), s.Expected)
			show(s.Name+", this machine", s.Seen)
		}
	}
	for _, r := range lane.Reasons() {
		if r.Reason == d.Reason {
			lines = append(lines, "", "next: "+clean(r.Next))
		}
	}
	return lines
}

// Unavailable returns the script for a machine that asked while the decision
// could not be made or recorded: it waits and asks again, and ends at the disk.
func Unavailable(base string, f lane.Facts) []byte {
	return join([]string{
		"#!ipxe",
		"# Bootlane: cannot answer now",
		"echo Bootlane: " + base + " cannot decide now (store unavailable); asking again in 15 s",
		"sleep 15",
		"isset ${bl-down} && inc bl-down || set bl-down:int32 1",
		"iseq ${bl-down} 20 && goto local ||",
		chain + base + "/" + lane.EntryScript + " || goto local",
		":local",
	}, localBoot(string(f.Firmware), "")...)
}

// localBoot leaves iPXE the way the firmware wants it: under UEFI a failing
// image sends the firmware to its next boot option, a successful one to its
// menu. Under BIOS the first disk is started at once, or the boot order goes on.
// firmware is "bios", "uefi", or iPXE's own ${platform} when it is not known yet; how
// overrides all of that for machines with a firmware of their own mind.
func localBoot(firmware, how string) []string {
	switch how {
	case lane.LocalBootExit:
		return []string{"exit"}
	case lane.LocalBootExit1:
		return []string{"exit 1"}
	case lane.LocalBootSAN:
		return []string{"sanboot --no-describe --drive 0x80 || exit 1"}
	}
	bios := []string{"sanboot --no-describe --drive 0x80 ||", "exit"}
	switch firmware {
	case string(lane.BIOS):
		return bios
	case string(lane.UEFI):
		return []string{"exit 1"}
	}
	return append([]string{"iseq ${platform} efi && goto uefi ||"}, append(bios, ":uefi", "exit 1")...)
}

// clean reduces text to what an iPXE echo shows and nothing more: no expansion,
// no command separator, no control character, at most 160 bytes.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		ok := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(" ._:/@+-,()=?[]", r)
		switch {
		case ok:
			return r
		case r < ' ' || r == 0x7f:
			return -1
		case r == '`' || r == '"' || r == '\'':
			return -1
		case r == ';':
			return ','
		case r == '|':
			return '/'
		}
		return '?'
	}, s)
	if len(s) > 160 {
		s = s[:160]
	}
	return strings.TrimSpace(s)
}

// join ends every line with LF and drops blanks at line ends: both old and new
// iPXE read that.
func join(lines []string, more ...string) []byte {
	var b strings.Builder
	for _, l := range append(lines, more...) {
		b.WriteString(strings.TrimRight(l, " "))
		b.WriteByte('\n')
	}
	return []byte(b.String())
}
