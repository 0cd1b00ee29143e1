package lint

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"bootlane/internal/lane"
)

// What Anaconda of RHEL 7 to 10, and of Fedora, takes as a command.
var kickstartCommands = []string{"auth", "authconfig", "authselect", "autopart", "autostep", "bootc", "bootloader", "btrfs", "cdrom", "clearpart", "cmdline", "device", "deviceprobe", "dmraid", "driverdisk", "eula",
	"fcoe", "firewall", "firstboot", "graphical", "group", "halt", "harddrive", "hmc", "ignoredisk", "install", "iscsi", "iscsiname", "keyboard", "lang", "liveimg", "logging", "logvol", "mediacheck", "method",
	"module", "mount", "multipath", "network", "nfs", "nvdimm", "ostreecontainer", "ostreesetup", "part", "partition", "poweroff", "raid", "rdp", "realm", "reboot", "repo", "reqpart", "rescue", "rhsm",
	"rootpw", "selinux", "services", "shutdown", "skipx", "snapshot", "sshkey", "sshpw", "syspurpose", "text", "timesource", "timezone", "unsupported_hardware", "upgrade", "updates", "url", "user", "vnc",
	"volgroup", "xconfig", "zerombr", "zfcp", "zipl"}

var (
	kickstartSections = []string{"%pre", "%pre-install", "%post", "%packages", "%addon", "%anaconda", "%onerror", "%traceback", "%certificate"}
	kickstartVersion  = regexp.MustCompile(`^#\s*version=(?:RHEL|CentOS|Rocky|AlmaLinux)(\d+)`)
	// The first release of RHEL that has a command, and the first that has it no more; 0 is none.
	kickstartSpan = map[string][2]int{"authselect": {8, 0}, "mount": {8, 0}, "module": {8, 10}, "rhsm": {8, 0}, "sshkey": {8, 0}, "syspurpose": {8, 0}, "zipl": {8, 0}, "timesource": {9, 0}, "ostreecontainer": {9, 0},
		"bootc": {10, 0}, "rdp": {10, 0}, "vnc": {0, 10}, "auth": {0, 9}, "authconfig": {0, 9}, "install": {0, 9}, "upgrade": {0, 7}, "deviceprobe": {0, 9}, "device": {0, 9}, "dmraid": {0, 9}, "multipath": {0, 9}, "autostep": {0, 9}}
	// Without one of each line, the installer asks. What is said to be the command is the first.
	kickstartRequired = [][]string{{"lang"}, {"keyboard"}, {"timezone"}, {"rootpw", "user"}, {"bootloader", "mount", "bootc"}, {"zerombr", "mount"}, {"clearpart", "mount"},
		{"part", "partition", "autopart", "logvol", "btrfs", "mount"}, {"reboot", "poweroff", "shutdown", "halt"}, {"text", "cmdline"}, {"%packages", "liveimg", "ostreecontainer", "ostreesetup", "bootc"}}
	fedora           = regexp.MustCompile(`(?m)^#\s*version=F(\d+)`)
	kickstartSources = []string{"url", "liveimg", "ostreecontainer", "ostreesetup", "bootc", "cdrom", "harddrive", "nfs", "hmc"}
)

// The oldest releases that are maintained, in November 2026.
const (
	oldestRHEL   = 8
	oldestFedora = 43
)

// word is one word of a kickstart's line, without its quotes.
type word struct {
	text   string
	at     at
	quoted bool
}

// command is one line of a kickstart.
type command struct {
	name  string
	at    at
	words []word
	body  []string // of a section: the lines up to its end
}

// option returns the value of --name=VALUE or --name VALUE, and whether it is given.
func (c command) option(name string) (word, bool) {
	for i, w := range c.words {
		if w.text == name {
			if i+1 < len(c.words) && !strings.HasPrefix(c.words[i+1].text, "--") {
				return c.words[i+1], true
			}
			return word{at: w.at}, true
		}
		if v, ok := strings.CutPrefix(w.text, name+"="); ok {
			return word{v, at{w.at.line, w.at.column + len(name) + 1}, w.quoted}, true
		}
	}
	return word{at: c.at}, false
}

func (c command) has(name string) bool { _, ok := c.option(name); return ok }

// takesValue lists the options of which the word behind is the value.
var takesValue = []string{"--password", "--username", "--name", "--groups", "--gecos", "--uid", "--gid", "--homedir", "--shell", "--level", "--device", "--ondisk", "--ondrive", "--size", "--fstype", "--vgname", "--drives", "--only-use", "--boot-drive"}

// plain returns the words that are neither options nor their values.
func (c command) plain() (out []word) {
	for i, w := range c.words {
		if strings.HasPrefix(w.text, "--") || i > 0 && slices.Contains(takesValue, c.words[i-1].text) {
			continue
		}
		out = append(out, w)
	}
	return out
}

// kickstart judges the answers to Anaconda. pykickstart checks each line by itself, and no
// line that is missing.
func (r *report) kickstart(text string) {
	commands, release := r.kickstartLines(text)
	have := map[string]command{}
	for _, c := range commands {
		have[c.name] = c
	}
	for _, c := range commands {
		r.kickstartCommand(c, release)
		r.kickstartClock(c)
	}
	if m := fedora.FindStringSubmatch(text); release > 0 && release < oldestRHEL || m != nil && number(m[1]) < oldestFedora {
		r.add("release-ended", at{1, 1}, "this release gets no updates any more")
	}
	if inc, ok := have["%include"]; ok {
		r.add("kickstart-include", inc.at, "what is included is not linted, and neither is what might be missing without it")
	} else {
		for _, one := range kickstartRequired {
			if !slices.ContainsFunc(one, func(name string) bool { _, ok := have[name]; return ok }) {
				r.add("kickstart-command-missing", at{1, 1}, "there is no %s", strings.Join(one, " or "))
			}
		}
		if !slices.ContainsFunc(kickstartSources, func(name string) bool { _, ok := have[name]; return ok }) {
			r.add("kickstart-source-missing", at{1, 1}, "no command says where to install from: the command line must, with inst.repo")
		}
	}
	r.kickstartDisks(commands, have)
	r.kickstartArrays(commands)
	r.kickstartBoot(commands, have, release)
	r.kickstartKubelet(commands, release)
	r.kickstartLogin(commands)
}

// kickstartLines cuts a kickstart into commands and sections, of which only the head is one.
func (r *report) kickstartLines(text string) (out []command, release int) {
	open := -1 // the section in out that has not ended
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if m := kickstartVersion.FindStringSubmatch(line); m != nil {
			release = number(m[1])
		}
		trimmed := strings.TrimLeft(line, " \t")
		p := at{n + 1, column(line, len(line)-len(trimmed))}
		head, _, _ := strings.Cut(strings.ReplaceAll(trimmed, "\t", " "), " ")
		switch {
		case head == "%end":
			if open < 0 {
				r.add("kickstart-section-end", p, "%%end ends no section")
			}
			open = -1
		case open >= 0 && slices.Contains(kickstartSections, head):
			r.add("kickstart-section-end", out[open].at, "%s is not ended by %%end before %s on line %d", out[open].name, head, n+1)
			open = -1
		case open >= 0:
			out[open].body = append(out[open].body, line)
			continue
		}
		if head == "" || head == "%end" || strings.HasPrefix(head, "#") {
			continue
		}
		c := command{name: head, at: p, words: r.kickstartWords(line, n+1, len(line)-len(trimmed)+len(head))}
		out = append(out, c)
		switch {
		case slices.Contains(kickstartSections, head):
			open = len(out) - 1
		case head[0] == '%' && head != "%include" && head != "%ksappend":
			r.add("kickstart-unknown-command", p, "there is no section %q%s", head, like(head, kickstartSections))
			open = len(out) - 1
		}
	}
	if open >= 0 {
		r.add("kickstart-section-end", out[open].at, "%s is not ended by %%end", out[open].name)
	}
	return out, release
}

// kickstartWords splits a line as Python's shlex does, from byte i on: quotes bind, and # begins
// a comment, also in the middle of a word.
func (r *report) kickstartWords(line string, n, i int) (out []word) {
	quote, begun, col := byte(0), 0, column(line, i)-1 // begun is the column of a word, or 0
	var text strings.Builder
	quoted := false
	flush := func() {
		if begun > 0 {
			out = append(out, word{text.String(), at{n, begun}, quoted})
		}
		text.Reset()
		begun, quoted = 0, false
	}
	for ; i < len(line); i++ {
		c := line[i]
		if utf8.RuneStart(c) {
			col++
		}
		switch {
		case quote != 0 && c == quote:
			quote = 0
			continue
		case quote == 0 && (c == ' ' || c == '\t'):
			flush()
			continue
		case quote == 0 && c == '#':
			if begun > 0 {
				r.add("kickstart-hash-cut", at{n, col}, "a # without quotes begins a comment: the rest of the word is lost")
			}
			flush()
			return out
		}
		if begun == 0 {
			begun = col
		}
		switch {
		case quote == 0 && (c == '"' || c == '\''):
			quote, quoted = c, true
		case c == '\\' && quote != '\'' && i+1 < len(line):
			i++
			if utf8.RuneStart(line[i]) {
				col++
			}
			text.WriteByte(line[i])
		default:
			text.WriteByte(c)
		}
	}
	if quote != 0 {
		r.add("syntax", at{n, begun}, "a quotation is not ended")
	}
	flush()
	return out
}

func (r *report) kickstartCommand(c command, release int) {
	span, known := kickstartSpan[c.name]
	switch {
	case c.name[0] != '%' && !slices.Contains(kickstartCommands, c.name):
		r.add("kickstart-unknown-command", c.at, "there is no command %q%s", c.name, like(c.name, kickstartCommands))
	case known && release > 0 && release < span[0]:
		r.add("kickstart-command-version", c.at, "RHEL %d has no %s, which came with %d", release, c.name, span[0])
	case known && span[1] > 0 && release >= span[1]:
		r.add("kickstart-command-version", c.at, "RHEL %d has %s no more", release, c.name)
	case c.name == "timezone" && c.has("--ntpservers") && release >= 9:
		r.add("kickstart-command-version", c.at, "RHEL %d wants timesource, not timezone --ntpservers", release)
	case c.name == "%traceback" && release >= 9:
		r.add("kickstart-command-version", c.at, "RHEL %d wants %%onerror, not %%traceback", release)
	}
	switch c.name {
	case "rootpw", "user", "sshpw":
		r.kickstartUser(c, release)
	case "sshkey":
		r.kickstartKey(c)
	case "network":
		r.kickstartNetwork(c)
	case "liveimg":
		r.kickstartImage(c)
	case "%pre", "%pre-install", "%post":
		if !c.has("--erroronfail") {
			r.add("hook-failure-ignored", c.at, "%s has no --erroronfail: whatever fails in it, the install goes on", c.name)
		}
		r.kickstartHook(c)
	case "%onerror", "%traceback":
		r.kickstartHook(c)
	case "timezone":
		if words := c.plain(); len(words) > 0 {
			r.timezone(words[0].at, words[0].text)
		}
	}
	for _, name := range []string{"--passphrase", "--backuppassphrase"} {
		if w, ok := c.option(name); ok {
			r.add("secret-disk-passphrase", w.at, "the passphrase of the disk stands here in clear text")
		}
	}
}

// kickstartHook judges a section that is a script, a shell's where it does not say otherwise.
func (r *report) kickstartHook(c command) {
	if by, ok := c.option("--interpreter"); !ok || isShell(by.text) {
		r.hook(at{c.at.line + 1, 1}, strings.Join(c.body, "\n"), true, c.has("--erroronfail"))
	}
}

func (r *report) kickstartUser(c command, release int) {
	words := c.plain()
	var pw word
	given := false
	if c.name == "user" {
		if w, ok := c.option("--name"); ok {
			r.user(w.at, w.text)
		}
		if w, ok := c.option("--uid"); ok {
			r.uid(w.at, w.text)
		}
		pw, given = c.option("--password")
	} else if len(words) > 0 {
		pw, given = words[0], true
	}
	switch {
	case !given:
	case c.has("--iscrypted"):
		if r.hash(pw.at, pw.text); strings.HasPrefix(pw.text, "$y$") && release > 0 && release <= 8 {
			r.add("password-hash-unsupported", pw.at, "RHEL %d may not read a hash of yescrypt", release)
		}
	default:
		r.add("password-cleartext", pw.at, "a password stands here in clear text")
	}
}

func (r *report) kickstartKey(c command) {
	words := c.plain()
	switch {
	case !c.has("--username"):
		r.add("ssh-key-malformed", c.at, "sshkey needs --username")
	case len(words) == 0:
		r.add("ssh-key-malformed", c.at, "sshkey has no key")
	case !words[0].quoted:
		r.add("kickstart-key-unquoted", words[0].at, "the key has blanks, and no quotes: the line is refused")
	default:
		r.sshKey(words[0].at, words[0].text, map[string]bool{})
	}
}

func (r *report) kickstartImage(c command) {
	sum, ok := c.option("--checksum")
	if ok && len(sum.text) == 64 && strings.Trim(strings.ToLower(sum.text), "0123456789abcdef") == "" {
		return
	}
	r.add("source-checksum-missing", sum.at, "the image has no --checksum of 64 hex digits, its SHA-256")
}

func (r *report) kickstartNetwork(c command) {
	if w, ok := c.option("--hostname"); ok {
		r.hostname(w.at, w.text)
	}
	if w, ok := c.option("--device"); ok {
		switch {
		case kernelNIC.MatchString(w.text):
			r.add("net-kernel-name", w.at, "%q is the kernel's name, which another NIC may have after a change of hardware", w.text)
		case strings.Count(w.text, ":") > 1:
			r.mac(w.at, w.text, map[lane.MAC]bool{})
		}
	}
	if v, ok := c.option("--mtu"); ok {
		r.mtu(v.at, v.text, c.has("--ipv6"))
	}
	if v, ok := c.option("--vlanid"); ok && (number(v.text) < 1 || number(v.text) > 4094) {
		r.add("net-vlan-id", v.at, "%q is not a VLAN id from 1 to 4094", v.text)
	}
	if v, ok := c.option("--nameserver"); ok && v.text != "" {
		for _, s := range strings.Split(v.text, ",") {
			r.address(v.at, s)
		}
	}
	r.kickstartStatic(c)
}

func (r *report) kickstartStatic(c command) {
	ip, ok := c.option("--ip")
	mask, masked := c.option("--netmask")
	switch {
	case !ok:
		return
	case !masked:
		r.address(ip.at, ip.text)
		r.add("net-prefix-missing", ip.at, "--ip has no --netmask")
		return
	}
	a, good := r.address(ip.at, ip.text)
	ones, ok := maskLength(mask.text)
	if !ok {
		r.add("net-address-illegal", mask.at, "%q is not a netmask", mask.text)
		return
	}
	if !good || !a.Is4() {
		return
	}
	own := netip.PrefixFrom(a, ones)
	r.host(ip.at, a, own)
	if g, ok := c.option("--gateway"); ok {
		r.gateway(g.at, g.text, []netip.Prefix{own})
	}
	if !c.has("--nameserver") {
		r.add("net-dns-missing", ip.at, "the address is static, and there is no --nameserver")
	}
}

// maskLength returns the length of the prefix that a netmask stands for.
func maskLength(v string) (int, bool) {
	a, err := netip.ParseAddr(v)
	if err != nil || !a.Is4() {
		return 0, false
	}
	b := a.As4()
	m := binary.BigEndian.Uint32(b[:])
	ones := bits.LeadingZeros32(^m)
	return ones, m == ^uint32(0)<<(32-ones)
}

// kickstartDisks judges which disks are erased.
func (r *report) kickstartDisks(commands []command, have map[string]command) {
	only, limited := have["ignoredisk"].option("--only-use")
	limited = limited && only.text != ""
	named := map[string]bool{}
	for _, d := range strings.Split(only.text, ",") {
		named[strings.TrimPrefix(d, "/dev/")] = true
	}
	check := func(w word) {
		for _, d := range strings.Split(w.text, ",") {
			switch {
			case strings.ContainsAny(d, "*?[|"):
				r.add("disk-match-glob", w.at, "%q is a pattern or a list: several disks may match", d)
				continue
			case limited && !named[strings.TrimPrefix(d, "/dev/")]:
				r.add("disk-selector-mismatch", w.at, "%q is not among the disks of ignoredisk --only-use", d)
			}
			r.disk(w.at, d)
		}
	}
	if limited {
		check(only)
	}
	for _, c := range commands {
		if c.name[0] == '%' {
			continue
		}
		for _, opt := range []string{"--drives", "--ondisk", "--ondrive", "--boot-drive", "--driveorder"} {
			if w, ok := c.option(opt); ok && w.text != "" {
				check(w)
			}
		}
	}
	erase, cleared := have["clearpart"]
	wipes := cleared && !erase.has("--none") && (erase.has("--all") || erase.has("--linux"))
	_, mounts := have["mount"]
	_, includes := have["%include"] // which a hook may have written, with the disk in it
	switch {
	case limited || includes:
	case wipes && !erase.has("--drives"):
		r.add("clearpart-unscoped", erase.at, "clearpart has no --drives, and there is no ignoredisk --only-use: every disk is erased")
	case !mounts:
		r.add("disk-selector-missing", erase.at, "there is no ignoredisk --only-use: the installer may use every disk")
	}
	if c, ok := have["reqpart"]; ok && have["autopart"].name != "" {
		r.add("kickstart-reqpart-autopart", c.at, "reqpart and autopart exclude each other: the installer stops")
	}
}

// kickstartBoot finds a layout that no firmware can start from, and shares of a volume group that do not fit. With
// the older partition table a BIOS needs no partition of its own: it is that of RHEL up to 9 unless it is told.
func (r *report) kickstartBoot(commands []command, have map[string]command, release int) {
	var first *command
	boots, percent := false, map[string]int{}
	for i, c := range commands {
		words := c.plain()
		if len(words) == 0 {
			continue
		}
		switch mount := words[0].text; c.name {
		case "part", "partition", "raid":
			if first == nil {
				first = &commands[i]
			}
			boots = boots || mount == "/boot/efi" || mount == "biosboot" || mount == "prepboot"
		case "logvol":
			share, ok := c.option("--percent")
			group, _ := c.option("--vgname")
			if percent[group.text] += max(number(share.text), 0); ok && percent[group.text] > 100 {
				r.add("partition-percent", share.at, "the volumes of %s add up to %d%%", group.text, percent[group.text])
			}
		}
	}
	label, _ := have["clearpart"].option("--disklabel")
	where, _ := have["bootloader"].option("--location")
	for _, name := range []string{"autopart", "reqpart", "mount", "%include"} {
		_, ok := have[name]
		boots = boots || ok
	}
	gpt := label.text == "gpt" || label.text == "" && (release >= 10 || fedora.MatchString(r.whole))
	if first != nil && !boots && gpt && where.text != "none" {
		r.add("partition-boot-missing", first.at, "there is neither reqpart nor a partition that firmware boots from a GPT: /boot/efi for UEFI, biosboot for BIOS")
	}
}

// kickstartLogin finds a system that nobody can log in to.
func (r *report) kickstartLogin(commands []command) {
	first := at{}
	for _, c := range commands {
		if c.name == "sshkey" || c.name == "%include" || c.name == "%post" {
			return
		}
		if c.name == "rootpw" || c.name == "user" {
			locked := c.has("--lock") || c.name == "user" && !c.has("--password")
			if !locked {
				return
			}
			if first.line == 0 {
				first = c.at
			}
		}
	}
	if first.line > 0 {
		r.add("login-nobody", first, "every password is locked, and there is no sshkey: nobody can log in")
	}
}
