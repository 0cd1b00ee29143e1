package lint

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// column is where byte i of a line stands, in characters.
func column(line string, i int) int { return utf8.RuneCountInString(line[:i]) + 1 }

// comment reports whether a line is one, in every format here that has lines.
func comment(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), "#") }

// characters finds what no editor shows, and what no reader of these formats takes.
func (r *report) characters(text string) {
	if strings.HasPrefix(text, "\ufeff") {
		r.add("text-bom", at{1, 1}, "the file begins with a byte order mark")
		text = strings.TrimPrefix(text, "\ufeff")
	}
	seen := map[string]bool{}
	once := func(rule string, p at, format string, args ...any) {
		if !seen[rule] {
			seen[rule] = true
			r.add(rule, p, format, args...)
		}
	}
	for n, line := range strings.Split(text, "\n") {
		if i := strings.IndexByte(line, '\r'); i >= 0 {
			once("text-cr", at{n + 1, column(line, i)}, "the line ends with a carriage return")
		}
		p := at{n + 1, 0}
		for i, c := range line {
			p.column++
			switch {
			case c == utf8.RuneError && strings.HasPrefix(line[i:], "\xef\xbf\xbd"): // the character itself
			case c == utf8.RuneError:
				once("text-not-utf8", p, "byte %#02x is not UTF-8", line[i])
			case c < ' ' && c != '\t' && c != '\r', c == 0x7f:
				once("text-control", p, "the control character %#02x stands here", c)
			case c < utf8.RuneSelf: // most of them
			case c == '\u0085' || c == '\u2028' || c == '\u2029', (unicode.Is(unicode.Cf, c) || c == '\u00a0') && !comment(line):
				once("text-invisible", p, "the invisible character U+%04X stands here", c)
			}
		}
	}
}

// pattern is a rule that one line breaks by itself. Group 1 is the place, if there is one.
type pattern struct {
	rule    string
	re      *regexp.Regexp
	formats []Format // empty: all
	not     []Format
	hints   []string // a line without any of them, in lower case, is not looked at: the expressions are slow
	message string
}

// movingHosts are the mirrors that have today's packages, and no other day's.
const movingHosts = `(?:[a-z0-9.-]+\.)?archive\.ubuntu\.com|security\.ubuntu\.com|ports\.ubuntu\.com|(?:deb|security|ftp|http|cdn-fastly\.deb)(?:\.[a-z]{2})?\.debian\.org|download\.opensuse\.org|(?:dl|download)\.rockylinux\.org|repo\.almalinux\.org|mirror\.stream\.centos\.org|(?:download|mirrors?|dl)\.fedoraproject\.org`

var movingHost = regexp.MustCompile(`(?i)^(?:` + movingHosts + `)$`)

// markerInside is a value, or a part of one, that something was to replace.
var markerInside = regexp.MustCompile(`@[A-Z][A-Z0-9_]*@`)

var patternTable = []pattern{
	{"template-leftover", regexp.MustCompile(`\{\{|\{%|<no value>|%!\w?\(|\bCHANGE_?ME\b|\b(FIXME|TO_BE_REPLACED)\b`), nil, []Format{Shell}, []string{"{{", "{%", "<no value>", "%!", "change", "fixme", "to_be_replaced"}, "a template was not filled in"},
	{"template-leftover", markerInside, nil, []Format{Shell, Autoinstall, AutoYaST, Agama, Ignition}, []string{"@"}, "a marker was not replaced"},
	{"secret-private-key", regexp.MustCompile(`-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY-----`), nil, nil, []string{"private key"}, "a private key stands here"},
	{"secret-join-token", regexp.MustCompile(`\bK10[0-9a-f]{64}::|(?i:token)\S{0,20}?[\s:=]+["']?[a-z0-9]{6}\.[a-z0-9]{16}\b|\b(?:K3S|K0S|RKE2)_TOKEN=["']?[^\s"'$]|\bH4sIA[A-Za-z0-9+/=]{60,}`), nil, []Format{Talos}, []string{"::", "oken", "oken", "h4sia"}, "a token that admits to a cluster stands here"},
	{"join-ca-unpinned", regexp.MustCompile(`unsafeSkipCAVerification["']?\s*:\s*true|--discovery-token-unsafe-skip-ca-verification|insecure-skip-tls-verify["']?\s*[:=]\s*true`), nil, nil, []string{"caverification", "ca-verification", "skip-tls-verify"}, "the cluster's certificate is not checked"},
	{"secret-in-url", regexp.MustCompile(`\b[a-z][a-z0-9+.-]*://[^\s/@:"'<>]+:[^\s/@"'<>]+@`), nil, nil, []string{"://"}, "a URL holds a user and a password"},
	{"source-unverified", regexp.MustCompile(`--noverifyssl\b|\binst\.noverifyssl\b|\bgpgcheck["']?\s*[=:]\s*["']?(?:0|false|no)\b|\btrusted=yes\b|\ballow_unauthenticated(?:_ssl)?\s+boolean\s+true|--allow-unauthenticated\b|--no-gpg-check(?:s)?\b|\bcoreos\.inst\.insecure\b|\bflatcar-install\b.*\s-f\b|--no-check-certificate\b|\binst\.auto_insecure=1`), nil, nil, []string{"noverifyssl", "gpgcheck", "trusted=yes", "allow_unauth", "allow-unauth", "no-gpg-check", "insecure", "flatcar-install", "no-check-cert"}, "what is fetched is not verified"},
	{"source-unverified", regexp.MustCompile(`\bcurl\b[^|;&]*\s(?:-[a-zA-Z]*k[a-zA-Z]*|--insecure)\b`), nil, nil, []string{"curl"}, "what is fetched is not verified"},
	{"disk-selector-missing", regexp.MustCompile(`\bflatcar-install\b.*\s-s\b`), []Format{Shell, Ignition, Butane, CloudConfig}, nil, []string{"flatcar-install"}, "flatcar-install -s takes the smallest disk that it finds"},
	{"source-unverified", regexp.MustCompile(`"allowUnsigned"\s*:\s*true`), []Format{Agama}, nil, []string{"allowunsigned"}, "packages without a signature are taken"},
	{"source-unverified", regexp.MustCompile(`<accept_[a-z_]+\b[^>]*>\s*true\s*<`), []Format{AutoYaST}, nil, []string{"<accept_"}, "what is not signed, or by nobody known, is taken"},
	{"source-unpinned", regexp.MustCompile(`--(?:mirrorlist|metalink)\b|^\s*-\s*["']?country-mirror\b`), nil, nil, []string{"--mirrorlist", "--metalink", "country-mirror"}, "what this names changes from day to day"},
	{"source-unpinned", regexp.MustCompile(`https?://(?i:(?:` + movingHosts + `)\b)`), nil, nil, []string{".ubuntu.com", ".debian.org", ".opensuse.org", "rockylinux.org", ".almalinux.org", ".centos.org", ".fedoraproject.org"}, "what this names changes from day to day"},
	{"source-unpinned", regexp.MustCompile(`https?://(?i:\S*/(?:latest|current|stable)/|\S*/(?:rocky|alma|almalinux|centos|centos-stream|rhel)/\d+(?:-stream)?/)`), nil, nil, []string{"/latest/", "/current/", "/stable/", "/rocky/", "/alma", "/centos", "/rhel/"}, "what this names changes from day to day"},
	{"hook-pipe-to-shell", regexp.MustCompile(`\b(?:curl|wget)\b[^|;]*\|\s*(?:sudo\s+)?(?:/bin/)?(?:ba|da)?sh\b|\b(?:ba|da)?sh\s+(?:-c\s+)?["']?(?:<\(|\$\()\s*(?:curl|wget)\b`), nil, nil, []string{"curl", "wget"}, "what comes from the network is run before it has all come"},
}

// piece is a part of a line, from a byte on.
type piece struct {
	text, lower string
	from        int
}

// pieces returns a line without what is base64 in URLs: there are no words in it, and some are megabytes.
func pieces(line string) (out []piece) {
	const mark = ";base64,"
	from := 0
	for {
		i := strings.Index(line[from:], mark)
		if i < 0 {
			return append(out, piece{text: line[from:], from: from})
		}
		i += from + len(mark)
		out = append(out, piece{text: line[from:i], from: from})
		from = i
		for from < len(line) && line[from] != '"' && line[from] != '\'' && line[from] > ' ' {
			from++
		}
	}
}

// hinted reports whether a text in lower case has what a match has in it.
func (p pattern) hinted(text string) bool {
	return slices.ContainsFunc(p.hints, func(h string) bool { return strings.Contains(text, h) })
}

// patterns looks at each line by itself.
func (r *report) patterns(text string) {
	lines := strings.Split(text, "\n")
	cut := make([][]piece, len(lines))
	var words strings.Builder
	for n, line := range lines {
		if comment(line) {
			continue
		}
		for _, part := range pieces(line) {
			part.lower = strings.ToLower(part.text)
			words.WriteString(part.lower)
			words.WriteByte('\n')
			cut[n] = append(cut[n], part)
		}
	}
	for _, p := range patternTable {
		if len(p.formats) > 0 && !slices.Contains(p.formats, r.format) || slices.Contains(p.not, r.format) || !p.hinted(words.String()) {
			continue
		}
		for n, parts := range cut {
			for _, part := range parts {
				if !p.hinted(part.lower) {
					continue
				}
				if m := p.re.FindStringIndex(part.text); m != nil {
					r.add(p.rule, at{n + 1, column(lines[n], part.from+m[0])}, "%s", p.message)
					break
				}
			}
		}
	}
}

// shell judges a hook in a file of its own.
func (r *report) shell(text string) {
	if strings.TrimSpace(text) != "" && !strings.HasPrefix(text, "#!") {
		r.add("hook-no-interpreter", at{1, 1}, "the script does not begin with #! and its interpreter")
	}
	if !r.read {
		r.hook(at{1, 1}, text, true, false)
	}
}
