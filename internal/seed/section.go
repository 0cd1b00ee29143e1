package seed

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"

	"bootlane/internal/lane"
)

// A section is a place in a document of a seed into which a bundle puts text of its own, by a
// template. What is compared, chosen and reported around it stays ours.

// place is where a section goes.
type place struct {
	indent string
	// ours is what must not stand there: it says which disk is erased, or takes the gates away.
	ours *regexp.Regexp
}

var (
	preseedOurs   = regexp.MustCompile(`(?m)^[ \t]*\S+[ \t]+(partman\S*|preseed/\S+|grub-installer/bootdev\S*)`)
	nocloudOurs   = regexp.MustCompile(`(?m)^["']?(storage|early-commands|interactive-sections|version|identity)\b`)
	kickstartOurs = regexp.MustCompile(`(?m)^[ \t]*(ignoredisk|clearpart|zerombr|part|partition|autopart|raid|volgroup|logvol|btrfs|bootloader|reqpart|mount|%(?:include|ksappend|pre|pre-install|post|onerror|traceback|packages))\b`)
	packagesOurs  = regexp.MustCompile(`(?m)^[ \t]*(%\S*)`)
	autoyastOurs  = regexp.MustCompile(`<(partitioning|partitioning_advanced|scripts|deploy_image|upgrade)\b`)
	agamaOurs     = regexp.MustCompile(`"(storage|legacyAutoyastStorage|scripts|questions|dasd|zfcp|iscsi)"\s*:`)
)

// sections says what each seed's sections are, and where they go.
func sections(seed string) map[string]place {
	return map[string]map[string]place{
		lane.SeedPreseed:   {"answers": {"", preseedOurs}, "late": {}},
		lane.SeedNoCloud:   {"autoinstall": {"  ", nocloudOurs}, "late": {}},
		lane.SeedKickstart: {"commands": {"", kickstartOurs}, "packages": {"", packagesOurs}, "late": {}},
		lane.SeedAutoYaST:  {"profile": {"  ", autoyastOurs}, "late": {}},
		lane.SeedAgama:     {"profile": {"  ", agamaOurs}, "late": {}},
	}[seed]
}

// Sections returns the names of a seed's sections, sorted.
func Sections(seed string) []string { return slices.Sorted(maps.Keys(sections(seed))) }

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
// Those that print in a width of one's choice are taken away.
func helpers() template.FuncMap {
	return template.FuncMap{"sh": shellQuote, "yaml": yamlQuote, "xml": xmlQuote, "json": jsonQuote,
		"join":   func(sep string, list []string) string { return strings.Join(list, sep) },
		"printf": func(...any) (string, error) { return "", errors.New("printf is not offered: write the text out") }}
}

// ParseSection reads a section's template. Errors name file, line and column. Templates that
// could run long, or call each other, are refused.
func ParseSection(file string, text []byte) (*template.Template, error) {
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
		for _, c := range n.Pipe.Cmds {
			for _, a := range c.Args {
				if _, ok := a.(*parse.NumberNode); ok {
					return refuse("ranges over a number: over a list of the host is meant")
				}
				if f, ok := a.(*parse.IdentifierNode); ok {
					return refuse("ranges over what %s returns: over a list of the host is meant", f.Ident)
				}
			}
		}
		return walk(n.List, n.ElseList)
	}
	return nil
}

// Section returns what the bundle puts into a section: nothing, or whole lines.
func (v view) Section(name string) (string, error) {
	for _, s := range v.Sections {
		if s.Name != name {
			continue
		}
		t, err := ParseSection(s.File, s.Text)
		if err != nil {
			return "", err
		}
		out := limited{left: maxSection}
		if err := t.Execute(&out, v.facts()); err != nil {
			return "", lane.Errorf(lane.Invalid, "%s", strings.TrimPrefix(err.Error(), "template: "))
		}
		text, at := out.b.String(), sections(v.Bundle.Seed)[name]
		if at.ours != nil {
			if m := at.ours.FindStringSubmatch(text); m != nil {
				return "", lane.Errorf(lane.Invalid, "%s: writes %s, which is Bootlane's: it says which disk is erased, or keeps the gates in their place", s.File, lane.Clean(m[1], 60))
			}
		}
		return indented(text, at.indent), nil
	}
	return "", nil
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
	Name string // one of Sections
	File string // of the bundle, for errors
	Text []byte // a template
}

// checkSections refuses what no seed has a place for, and templates that cannot be run.
func (in Input) checkSections() (out []string) {
	known := Sections(in.Bundle.Seed)
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
