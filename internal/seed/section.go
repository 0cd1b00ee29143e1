package seed

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"
	"unicode"
	"unicode/utf8"

	"bootlane/internal/lane"
	"bootlane/internal/shell"
)

// A section is a place in a document of a seed into which a bundle puts text of its own, by a
// template. What is compared, chosen and reported around it stays ours.

// place is where a section goes.
type place struct {
	indent string
	// ours returns what must not stand there, or nothing: it says which disk is erased, or takes
	// the gates away.
	ours  func(text string) string
	shell bool // its text is a shell's
}

// found returns a place's judge: what an expression finds, in its first group.
func found(re *regexp.Regexp) func(string) string {
	return func(text string) string {
		if m := re.FindStringSubmatch(text); m != nil {
			return m[1]
		}
		return ""
	}
}

var (
	continued     = regexp.MustCompile(`[ \t]*\\\n[ \t]*`)
	preseedOurs   = regexp.MustCompile(`(?m)^[ \t]*\S+[ \t]+(partman\S*|preseed/\S*|grub-installer/\S*|grub-\S*|anna/\S*)`)
	nocloudOurs   = regexp.MustCompile(`(?m)^["']?(storage|early-commands|interactive-sections|version|identity)\b`)
	kickstartOurs = regexp.MustCompile(`(?m)^[ \t]*(ignoredisk|clearpart|zerombr|part|partition|autopart|raid|volgroup|logvol|btrfs|bootloader|reqpart|mount|nvdimm|zfcp|iscsi|fcoe|snapshot|liveimg|ostreesetup|ostreecontainer|bootc|%(?:include|ksappend|pre|pre-install|post|onerror|traceback|packages))\b`)
	packagesOurs  = regexp.MustCompile(`(?m)^[ \t]*(%\S*)`)
	cloudOurs     = regexp.MustCompile(`(?m)^["']?(hostname|fqdn|preserve_hostname|prefer_fqdn_over_hostname|users|ssh_pwauth|ssh_deletekeys|disable_root|locale|timezone|datasource|datasource_list|network|disk_setup|fs_setup|mounts|power_state)\b`)
	agamaOurs     = regexp.MustCompile(`"(storage|legacyAutoyastStorage|scripts|questions|dasd|zfcp|iscsi)"\s*:`)
)

// sections says what each seed's sections are, and where they go.
func sections(b lane.Bundle) map[string]place {
	if b.CloudInit() {
		return map[string]place{"cloud-config": {ours: found(cloudOurs)}}
	}
	return map[string]map[string]place{
		// The installer joins lines that end in a backslash, before it looks for words.
		lane.SeedPreseed:   {"answers": {ours: func(text string) string { return found(preseedOurs)(continued.ReplaceAllString(text, " ")) }}, "late": {shell: true}},
		lane.SeedNoCloud:   {"autoinstall": {indent: "  ", ours: found(nocloudOurs)}, "late": {shell: true}},
		lane.SeedKickstart: {"commands": {ours: found(kickstartOurs)}, "packages": {ours: found(packagesOurs)}, "late": {shell: true}},
		lane.SeedAutoYaST:  {"profile": {ours: autoyastOurs}, "late": {shell: true}},
		lane.SeedAgama:     {"profile": {ours: found(agamaOurs)}, "late": {shell: true}},
	}[b.Seed]
}

// written are the sections of a profile that ours has. Of two of one name AutoYaST takes the last.
const written = " general report add-on bootloader language keyboard timezone ntp-client proxy networking partitioning partitioning_advanced services-manager software users scripts deploy_image upgrade "

// autoyastOurs reads the text as AutoYaST does, which drops what stands in front of a colon.
func autoyastOurs(text string) string {
	dec, depth := xml.NewDecoder(strings.NewReader("<profile>"+text+"</profile>")), 0
	for roots := 0; ; {
		tok, err := dec.Token()
		switch t := tok.(type) {
		case xml.StartElement:
			if depth == 0 {
				roots++
			}
			if roots > 1 {
				return "the end of the profile"
			}
			if depth++; depth == 2 && (strings.Contains(written, " "+t.Name.Local+" ") || t.Name.Space != "") {
				return "<" + t.Name.Local + ">"
			}
		case xml.EndElement:
			depth--
		case xml.Directive, xml.ProcInst:
			return "a declaration"
		}
		if errors.Is(err, io.EOF) && depth == 0 {
			return ""
		}
		if err != nil {
			return "what is no whole XML (" + err.Error() + ")"
		}
	}
}

// sectionNames returns the names of a bundle's sections, sorted.
func sectionNames(b lane.Bundle) []string { return slices.Sorted(maps.Keys(sections(b))) }

// What a template may be, and make. It is run for each host at each preflight.
const (
	maxRanges  = 2         // within each other: what they go through has a few hundred entries
	maxSection = 256 << 10 // bytes of text
)

// Facts are what a section's template knows of the host. Its fields are the template's names.
type Facts struct {
	ID, Hostname, Domain, UUID, Serial, AssetTag, Rack, Unit, Role, Arch string
	MACs                                                                 []string
	Labels                                                               map[string]string
	Address, Address6                                                    string // reserved; empty: none
	Run, Bundle, OS, Release, Mirror                                     string
	User, Locale, Timezone, Proxy, Cluster                               string
	NTP, Packages                                                        []string
}

func (v view) facts() Facts {
	h, s, b := v.Host, v.Site, v.Bundle
	f := Facts{ID: string(h.ID), Hostname: v.Short, Domain: v.Domain, UUID: string(h.Identity.UUID), Serial: v.Serial(), AssetTag: h.Identity.AssetTag, Rack: h.Identity.Rack, Unit: h.Identity.Unit,
		Role: h.Role, Arch: string(h.Arch), Labels: h.Labels, Run: string(h.Run.ID), Bundle: h.Run.BundleName, OS: b.OS, Release: b.Release, Mirror: b.Mirror,
		User: s.User, Locale: s.Locale, Timezone: s.Timezone, Proxy: s.Proxy, Cluster: s.Cluster, NTP: s.NTP, Packages: s.Packages}
	for _, m := range h.Identity.MACs {
		f.MACs = append(f.MACs, string(m))
	}
	if h.Network.Address.IsValid() {
		f.Address = h.Network.Address.String()
	}
	if h.Network.Address6.IsValid() {
		f.Address6 = h.Network.Address6.String()
	}
	return f
}

// helpers are the functions of a section's template, besides the comparisons of the library.
// Its own that make text are taken away: some of them make much of little.
func helpers() template.FuncMap {
	// short refuses what has grown: each quoting of a quote doubles it.
	short := func(s string, err error) (string, error) {
		if err == nil && len(s) > maxSection {
			err = fmt.Errorf("makes more than %d bytes", maxSection)
		}
		return s, err
	}
	out := template.FuncMap{
		"sh":   func(v any) (string, error) { return short(lane.ShellQuote(v), nil) },
		"yaml": func(v any) (string, error) { return short(yamlQuote(v), nil) },
		"xml":  func(v any) (string, error) { return short(xmlQuote(v)) },
		"json": func(v any) (string, error) { return short(jsonQuote(v)) },
		"join": func(sep string, list []string) (string, error) { return short(strings.Join(list, sep), nil) },
	}
	for _, name := range []string{"print", "println", "printf", "js", "html", "urlquery", "call", "slice"} {
		out[name] = func(...any) (string, error) {
			return "", fmt.Errorf("%s is not offered: write the text out, and quote with sh, yaml, xml or json", name)
		}
	}
	return out
}

// parseSection reads a section's template. Errors name file, line and column. Templates that
// could run long, or call each other, are refused.
func parseSection(file string, text []byte) (*template.Template, error) {
	t, err := template.New(file).Option("missingkey=error").Funcs(helpers()).Parse(string(text))
	if err != nil {
		return nil, lane.Errorf(lane.Invalid, "%s", strings.TrimPrefix(err.Error(), "template: "))
	}
	if len(t.Templates()) > 1 {
		return nil, lane.Errorf(lane.Invalid, "%s: defines a template of its own: write it out where it is used", file)
	}
	if t.Tree == nil || t.Root == nil {
		return t, nil
	}
	return t, bounded(t.Tree, t.Root, 0)
}

// bounded refuses what could run without end: ranges over numbers, ranges within ranges, calls.
func bounded(tree *parse.Tree, n parse.Node, depth int) error {
	refuse := func(format string, args ...any) error {
		where, _ := tree.ErrorContext(n)
		return lane.Errorf(lane.Invalid, "%s: %s", where, fmt.Sprintf(format, args...))
	}
	walk := func(lists ...*parse.ListNode) error {
		for _, l := range lists {
			if l == nil {
				continue
			}
			for _, c := range l.Nodes {
				if err := bounded(tree, c, depth); err != nil {
					return err
				}
			}
		}
		return nil
	}
	switch n := n.(type) {
	case *parse.ListNode:
		return walk(n)
	case *parse.IfNode:
		return walk(n.List, n.ElseList)
	case *parse.WithNode:
		return walk(n.List, n.ElseList)
	case *parse.TemplateNode:
		return refuse("calls a template: there are no others")
	case *parse.RangeNode:
		if depth++; depth > maxRanges {
			return refuse("ranges within ranges within ranges")
		}
		if !ofHost(n.Pipe) {
			return refuse("ranges over %s: only over a list of the host, {{range .MACs}} or {{range $.MACs}}", n.Pipe)
		}
		return walk(n.List, n.ElseList)
	}
	return nil
}

// ofHost reports whether a range goes over a field of what the template is given: of that nothing
// is large.
func ofHost(p *parse.PipeNode) bool {
	if len(p.Cmds) != 1 || len(p.Cmds[0].Args) != 1 {
		return false
	}
	switch a := p.Cmds[0].Args[0].(type) {
	case *parse.FieldNode:
		return len(a.Ident) == 1
	case *parse.VariableNode:
		return len(a.Ident) == 2 && a.Ident[0] == "$"
	}
	return false
}

// Section returns what the bundle puts into a section: nothing, or whole lines.
func (v view) Section(name string) (string, error) {
	for _, s := range v.Sections {
		if s.Name != name {
			continue
		}
		text, err := v.fill(s)
		if err != nil {
			return "", err
		}
		at := sections(v.Bundle)[name]
		if at.ours != nil {
			if what := at.ours(text); what != "" {
				return "", lane.Errorf(lane.Invalid, "%s: writes %s, which is Bootlane's: it says which disk is erased, or keeps the gates in their place", s.File, lane.Clean(what, 200))
			}
		}
		if at.shell {
			if f := shell.Check(text); f != nil { // it would run up to there, and leave the rest of the hook out
				return "", lane.Errorf(lane.Invalid, "%s:%d:%d: no shell can read this: %s", s.File, f.Line, f.Column, f.Message)
			}
		}
		return indented(text, at.indent), nil
	}
	return "", nil
}

// fill executes a template of the bundle for the host.
func (v view) fill(s Section) (string, error) {
	t, err := parseSection(s.File, s.Text)
	if err != nil {
		return "", err
	}
	out := limited{left: maxSection}
	if err := t.Execute(&out, v.facts()); err != nil {
		return "", lane.Errorf(lane.Invalid, "%s", strings.TrimPrefix(err.Error(), "template: "))
	}
	text := out.b.String()
	if i := strings.IndexFunc(text, unseen); i >= 0 {
		return "", lane.Errorf(lane.Invalid, "%s: has the character %+q, which some readers take for the end of a line, and people do not see", s.File, []rune(text[i:])[0])
	}
	return text, nil
}

// unseen are control characters, but for line feeds and tabs, and what separates lines elsewhere.
func unseen(r rune) bool {
	return r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) || r == utf8.RuneError
}

// indented returns a newline and the text, without blank lines at its ends.
func indented(text, by string) string {
	text = strings.Trim(text, "\n")
	if strings.TrimSpace(text) == "" {
		return ""
	}
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.TrimSpace(l) != "" {
			lines[i] = by + l
		}
	}
	return "\n" + strings.Join(lines, "\n")
}

// limited is a text that may not grow beyond what is left.
type limited struct {
	b    bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, fmt.Errorf("it writes more than %d bytes", maxSection)
	}
	return l.b.Write(p)
}

// Section is what a bundle puts into one place of its seed's documents.
type Section struct {
	Name string // one of those that the seed has
	File string // of the bundle, for errors
	Text []byte // a template
}

// checkSections refuses what no seed has a place for, and templates that cannot be run.
func (in Input) checkSections() (out []string) {
	known := sectionNames(in.Bundle)
	for _, s := range in.Sections {
		if !slices.Contains(known, s.Name) {
			out = append(out, fmt.Sprintf("bundle.sections.%s: %s has no such section: %s", s.Name, in.Bundle.Seed, orNone(known)))
			continue
		}
		if _, err := in.view().Section(s.Name); err != nil {
			out = append(out, "bundle.sections."+s.Name+": "+err.Error())
		}
	}
	return out
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "it has none"
	}
	return "it has " + strings.Join(list, ", ")
}
