package lint

import (
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// x86 kernels cut what is longer (COMMAND_LINE_SIZE).
const maxCommandLine = 2047

// Debian's installer has 32 places for arguments and 32 for what it does not know, and its
// kernel panics beyond.
const maxDebianWords = 32

var secretArg = regexp.MustCompile(`(?i)^([a-z0-9_./-]*(password|passwd|passphrase|token|secret)[a-z0-9_./-]*)=(.+)$`)

// commandLine judges files of one command line each line.
func (r *report) commandLine(text string) {
	for n, line := range strings.Split(text, "\n") {
		if !comment(line) {
			r.arguments(n+1, line, 0)
		}
	}
}

// ipxe judges the command lines in a script of iPXE.
func (r *report) ipxe(text string) {
	if !strings.HasPrefix(text, "#!ipxe") {
		r.add("hook-no-interpreter", at{1, 1}, "the script does not begin with #!ipxe: iPXE does not take it for one")
	}
	for n, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		if len(words) > 1 && (words[0] == "kernel" || words[0] == "imgargs") {
			r.arguments(n+1, line, behind(line, words))
		}
	}
}

// behind is where a line goes on after its first two words.
func behind(line string, words []string) int {
	i := strings.Index(line, words[0]) + len(words[0])
	return i + strings.Index(line[i:], words[1]) + len(words[1])
}

// grub judges the command lines in a configuration of GRUB.
func (r *report) grub(text string) {
	for n, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		if len(words) < 2 || !slices.Contains([]string{"linux", "linuxefi", "linux16"}, words[0]) {
			continue
		}
		quote := rune(0)
		escaped := false
		for i, c := range line {
			switch {
			case escaped:
				escaped = false
			case c == '\\' && quote != '\'':
				escaped = true
			case quote == 0 && (c == '"' || c == '\''):
				quote = c
			case c == quote:
				quote = 0
			case c == ';' && quote == 0 && strings.TrimSpace(line[i+1:]) != "":
				r.add("cmdline-semicolon", at{n + 1, column(line, i)}, "the ; ends the command: the kernel does not get what follows")
			}
		}
		r.arguments(n+1, line, behind(line, words))
	}
}

// arguments judges one command line, from byte i of a line on.
func (r *report) arguments(n int, line string, i int) {
	line = strings.TrimSuffix(line, "\r")
	if len(line)-i > maxCommandLine {
		r.add("cmdline-length", at{n, column(line, i+maxCommandLine)}, "the command line has %d bytes, and the kernel cuts it at %d", len(line)-i, maxCommandLine)
	}
	words, first := map[string]at{}, at{}
	count, p := 0, at{n, column(line, i)}
	for i < len(line) {
		if line[i] == ' ' || line[i] == '\t' {
			i++
			p.column++
			continue
		}
		end := len(line)
		if j := strings.IndexAny(line[i:], " \t"); j >= 0 {
			end = i + j
		}
		w := line[i:end]
		if first.line == 0 {
			first = p
		}
		if count++; w == "---" {
			count = -1 << 20 // what follows goes to the installed kernel
		}
		start := p
		if bare := strings.TrimLeft(w, `"'`); r.format != IPXE { // where there is quoting, the kernel does not see it
			start.column += len(w) - len(bare)
			w = strings.TrimRight(bare, `"'`)
		}
		key, value, _ := strings.Cut(w, "=")
		words[key] = at{n, start.column + len(key) + 1}
		r.argument(start, key, value, w)
		p.column += utf8.RuneCountInString(line[i:end])
		i = end
	}
	r.together(words, first, line)
	if _, debian := words["preseed/url"]; debian && count > maxDebianWords {
		r.add("cmdline-length", first, "%d arguments: Debian's installer has places for %d", count, maxDebianWords)
	}
}

// argument judges one argument by itself.
func (r *report) argument(p at, key, value, w string) {
	v := at{p.line, p.column + len(key) + 1}
	if r.format == IPXE && strings.ContainsAny(w, `"'`) {
		r.add("cmdline-quote", p, "iPXE knows no quotes: they reach the kernel")
	}
	if r.format == CommandLine && strings.Contains(w, "${") { // in scripts it is the loader's own
		r.add("cmdline-unexpanded", p, "a variable was not expanded")
	}
	if m := secretArg.FindStringSubmatch(w); m != nil && !strings.HasPrefix(value, "$") && !strings.Contains(value, "://") && !strings.HasPrefix(value, "/") {
		r.add("secret-on-cmdline", v, "%s is readable in /proc/cmdline, in DHCP and in logs", m[1])
	}
	switch {
	case slices.Contains(seedArguments, key) && guessable(value):
		r.add("cmdline-seed-guessable", v, "whoever knows the machine's name or address can fetch its answers")
	}
	switch {
	case (key == "autoyast" || key == "ay") && strings.HasSuffix(value, "/"):
		r.add("cmdline-autoyast-slash", v, "a URL that ends with / makes AutoYaST look for rules and classes")
	case key == "ds" && strings.HasPrefix(value, "nocloud"):
		r.seedURL(v, value)
	case key == "hostname" || key == "netcfg/hostname":
		if value != "" && !strings.Contains(value, "${") {
			r.hostname(v, value)
		}
	case key == "coreos.inst.install_dev":
		r.disk(v, value)
	}
}

// seedArguments name where an installer's answers are.
var seedArguments = []string{"ds", "preseed/url", "url", "inst.ks", "ks", "autoyast", "ay", "inst.auto", "ignition.config.url", "talos.config", "coreos.inst.ignition_url"}

// random is how 128 bits look in a path at their shortest, in base64; in hex and base32 they are longer.
var random = regexp.MustCompile(`^[A-Za-z0-9_-]{22,}$`)

// isRandom reports whether nobody guesses a piece of a path. Words with hyphens are as long, and in small letters.
func isRandom(piece string) bool {
	words := strings.Contains(piece, "-") && strings.ToLower(piece) == piece
	return random.MatchString(piece) && strings.ContainsAny(piece, "0123456789") && !words && !namesMachine.MatchString(piece)
}

// guessable reports whether a URL names the machine, and has nothing in it that only the machine was told.
func guessable(value string) bool {
	_, u, ok := strings.Cut(value, "://")
	if !ok {
		return false
	}
	named := namesMachine.MatchString(u)
	for _, piece := range strings.FieldsFunc(u, func(c rune) bool { return strings.ContainsRune("/?&=;.", c) }) {
		if isRandom(piece) {
			return false
		}
	}
	return named
}

// namesMachine is what of a machine is seen by others: what the loader puts in, a UUID, a MAC.
var namesMachine = regexp.MustCompile(`(?i)\$\{?(?:net[0-9]?[/_.]|net_default_)?(?:uuid|mac|serial|asset|hostname|ip)\b|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|\b[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5}\b`)

// seedURL judges where cloud-init is sent.
func (r *report) seedURL(p at, value string) {
	fields := strings.Split(value, ";")
	local := strings.TrimRight(fields[0], `\`) == "nocloud" // less GRUB's \;
	for _, f := range fields[1:] {
		k, u, _ := strings.Cut(f, "=")
		u = strings.TrimRight(u, `\`)
		if k != "s" && k != "seedfrom" {
			continue
		}
		if local && strings.HasPrefix(u, "http") {
			r.add("cmdline-seed-local", p, "ds=nocloud with a URL: cloud-init before 24.1 goes on without the seed")
		}
		if !strings.HasSuffix(u, "/") || strings.Contains(u, "?") {
			r.add("cmdline-seed-slash", p, "the URL of the seed does not end with /: cloud-init before 23.1 appends the file's name to it as it is")
		}
	}
}

// together judges what arguments say to each other.
func (r *report) together(words map[string]at, first at, line string) {
	ds, nocloud := words["ds"]
	_, auto := words["autoinstall"]
	url, live := words["url"]
	if iso, ok := words["iso-url"]; ok {
		live, url = true, iso
	}
	_, off := words["cloud-config-url"]
	nocloud = nocloud && strings.Contains(line, "ds=nocloud")
	switch {
	case nocloud && live && !auto:
		r.add("cmdline-autoinstall-missing", ds, "the word autoinstall is missing: the installer asks whether to go on, and waits")
	case auto && live && !off:
		r.add("cmdline-cloud-config-url", url, "there is no cloud-config-url=/dev/null: cloud-init loads the medium a second time, into RAM")
	}
	if ks, ok := words["inst.ks"]; ok {
		_, text := words["inst.cmdline"]
		if !text && first.line > 0 {
			r.add("cmdline-ks-asks", ks, "there is no inst.cmdline: a missing answer is a question, and not an error")
		}
	}
}
