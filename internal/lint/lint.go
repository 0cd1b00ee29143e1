// Package lint judges what an installer or a first boot reads, before a machine does: our own
// seeds, and files that people wrote themselves. The installers' own validators check the shape
// of a file and stay silent on what erases the wrong disk, so these rules are about meaning.
//
// The package is pure: bytes go in, findings come out. It compares no two machines, which the
// preflight does, and it asks nobody whether a URL answers.
package lint

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"bootlane/internal/lane"
)

// Severity says whether a finding must keep a file from being served.
type Severity string

// The severities.
const (
	Error   Severity = "error"   // erases the wrong disk, admits the wrong people, or hangs the installer
	Warning Severity = "warning" // works today, and somebody should have meant it
)

// Format is a kind of file. The empty one is no format that we know.
type Format string

// The formats that are linted.
const (
	Autoinstall   Format = "autoinstall"  // Ubuntu: user-data with autoinstall, or autoinstall.yaml
	CloudConfig   Format = "cloud-config" // user-data and vendor-data
	MetaData      Format = "meta-data"    // NoCloud
	Kickstart     Format = "kickstart"
	Preseed       Format = "preseed"
	NetworkConfig Format = "network-config" // netplan, version 2
	AutoYaST      Format = "autoyast"
	Agama         Format = "agama"
	Ignition      Format = "ignition"
	Butane        Format = "butane" // YAML that becomes Ignition
	Talos         Format = "talos"
	CommandLine   Format = "cmdline" // of a kernel
	IPXE          Format = "ipxe"    // whose kernel lines are command lines
	GRUB          Format = "grub"    // whose linux lines are
	Shell         Format = "shell"   // hooks
)

// The formats that are known, and not linted by this version.
const (
	Jsonnet   Format = "jsonnet"
	Multipart Format = "multipart" // user-data of several parts, or one that is not cloud-config
	Jinja     Format = "jinja"     // user-data that is a template
	Kubeadm   Format = "kubeadm"
)

// Formats lists the formats that are linted.
func Formats() []Format {
	return []Format{Autoinstall, CloudConfig, MetaData, Kickstart, Preseed, NetworkConfig, AutoYaST, Agama, Ignition, Butane, Talos, CommandLine, IPXE, GRUB, Shell}
}

// Options are what a caller wants otherwise.
type Options struct {
	Ignore []string // ids of rules that say nothing
	// Release is the one of Ubuntu that reads an autoinstall, 24.04 or 24.04.3; empty: any. A kickstart says its own.
	Release string
	Read    bool // that it can be read is known: of Ignition, Butane and Talos by their libraries, of a script by tests over what it was made of
}

// Finding is one place in one file where a rule is broken.
type Finding struct {
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	File     string   `json:"file"`
	Line     int      `json:"line"`
	Column   int      `json:"column"` // in characters, from 1
	Message  string   `json:"message"`
	Mend     string   `json:"mend"`
}

// String returns the finding as compilers write theirs.
func (f Finding) String() string {
	return fmt.Sprintf("%s:%d:%d: %s: %s [%s]", f.File, f.Line, f.Column, f.Severity, f.Message, f.Rule)
}

// Errors returns the findings that must keep a file from being served.
func Errors(list []Finding) []Finding {
	return slices.DeleteFunc(slices.Clone(list), func(f Finding) bool { return f.Severity != Error })
}

// at is a place in a file.
type at struct{ line, column int }

// report collects the findings about one file.
type report struct {
	file   string
	format Format
	ignore []string
	read   bool   // by its reader's library
	whole  string // the file's text
	reader string // its release
	found  []Finding
	silent []Finding // of the rules that say nothing
}

// add puts down that a rule is broken. A message never shows a secret: it ends in logs.
func (r *report) add(rule string, p at, format string, args ...any) {
	i := slices.IndexFunc(rules, func(x Rule) bool { return x.ID == rule })
	if i < 0 {
		i = slices.IndexFunc(rules, func(x Rule) bool { return x.ID == "format-not-linted" }) // a test holds the ids against the table
	}
	to := &r.found
	if slices.Contains(r.ignore, rule) {
		to = &r.silent
	}
	*to = append(*to, Finding{Rule: rule, Severity: rules[i].Severity, File: r.file, Line: max(p.line, 1), Column: max(p.column, 1), Message: lane.Clean(fmt.Sprintf(format, args...), 500), Mend: rules[i].Mend})
}

// File returns what is wrong with a file, in the order of its lines. Whatever the bytes are, it
// answers; a format that is not linted is a finding too, for silence would be taken for praise.
func File(name string, data []byte, f Format, o Options) []Finding {
	r := &report{file: name, format: f, ignore: o.Ignore, read: o.Read, reader: o.Release, whole: string(data)}
	text := r.whole
	judge := map[Format]func(string){
		Autoinstall: r.userData, CloudConfig: r.userData, MetaData: r.metaData, Kickstart: r.kickstart, Preseed: r.preseed,
		NetworkConfig: r.networkConfig, AutoYaST: r.autoyast, Agama: r.agama, Ignition: r.ignition, Butane: r.butane, Talos: r.talos, CommandLine: r.commandLine, IPXE: r.ipxe, GRUB: r.grub, Shell: r.shell,
	}[f]
	switch {
	case judge == nil && f == "":
		r.add("format-not-linted", at{1, 1}, "its format is not known: say it with --format, one of %s", list(Formats()))
	case judge == nil:
		r.add("format-not-linted", at{1, 1}, "%s is not linted by this version", f)
	default:
		r.characters(text)
		r.patterns(text)
		r.joins(text)
		judge(text)
	}
	slices.SortStableFunc(r.found, func(a, b Finding) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		if a.Column != b.Column {
			return a.Column - b.Column
		}
		return strings.Compare(a.Rule+a.Message, b.Rule+b.Message)
	})
	return slices.Compact(r.found)
}

func list[T ~string](all []T) string {
	words := make([]string, len(all))
	for i, v := range all {
		words[i] = string(v)
	}
	return strings.Join(words, ", ")
}

// byName tells the format of files whose name says it.
var byName = []struct {
	pattern string
	format  Format
}{
	{"meta-data", MetaData}, {"network-config", NetworkConfig}, {"vendor-data", CloudConfig}, {"autoinstall.y*ml", Autoinstall},
	{"*.ks", Kickstart}, {"ks*.cfg", Kickstart}, {"anaconda-ks.cfg", Kickstart}, {"preseed*.cfg", Preseed}, {"*.preseed", Preseed}, {"*.seed", Preseed},
	{"autoinst*.xml", AutoYaST}, {"profile.json", Agama}, {"autoinst.json", Agama}, {"*.ign", Ignition}, {"*.bu", Butane}, {"*.jsonnet", Jsonnet}, {"*.ipxe", IPXE}, {"grub*.cfg", GRUB}, {"cmdline*", CommandLine},
}

// byText tells the format of what begins, or has a line, like this. The first that fits counts.
var byText = []struct {
	re     *regexp.Regexp
	format Format
}{
	{regexp.MustCompile(`^#!ipxe\b`), IPXE},
	{regexp.MustCompile(`^#!\s*/(usr/)?bin/(env\s+)?(ba|da)?sh\b`), Shell},
	{regexp.MustCompile(`(?i)^content-type:\s*multipart|^mime-version:|^#(include|include-once|cloud-boothook|cloud-config-archive|cloud-config-jsonp|part-handler|upstart-job)\b`), Multipart},
	{regexp.MustCompile(`^## template:\s*jinja`), Jinja},
	{regexp.MustCompile(`(?m)\A\s*#\s?cloud-config(.*\n)*(auto[-_]?inst\w*|identity|(early|late|error)-commands|refresh-installer|interactive-sections)\s*:`), Autoinstall},
	{regexp.MustCompile(`\A\s*#\s?cloud-config`), CloudConfig},
	{regexp.MustCompile(`(?m)^autoinstall\s*:`), Autoinstall},
	{regexp.MustCompile(`(?m)^#_preseed_V1|^(d-i|tasksel|popularity-contest)\s+\S+/\S+\s+\S+`), Preseed},
	{regexp.MustCompile(`(?m)^variant:\s*\S+\s*\n(.*\n)*version:|^version:\s*\S+\s*\n(.*\n)*variant:`), Butane},
	{regexp.MustCompile(`(?m)^apiVersion:\s*"?kubeadm\.k8s\.io/`), Kubeadm},
	{regexp.MustCompile(`(?m)^machine:\s*$`), Talos},
	{regexp.MustCompile(`(?m)\A(<\?xml[^>]*>\s*)?(<!DOCTYPE[^>]*>\s*)?(<!--(.|\n)*?-->\s*)*<profile\b`), AutoYaST},
	{regexp.MustCompile(`\A\s*\{(.|\n)*"ignition"\s*:`), Ignition},
	{regexp.MustCompile(`\A\s*\{(.|\n)*"(product|storage|localization|l10n|legacyAutoyastStorage)"\s*:`), Agama},
	{regexp.MustCompile(`(?m)^network\s*:\s*(\{.*)?(#.*)?$|^ethernets\s*:`), NetworkConfig},
	{regexp.MustCompile(`(?m)^%(packages|pre|post|end|include)\b|^(rootpw|clearpart|ignoredisk|autopart|bootloader|lang|zerombr)\b`), Kickstart},
	{regexp.MustCompile(`(?m)^\s*(menuentry\s+["']|linux(efi|16)?\s+(\(\w+\))?/)`), GRUB},
	{regexp.MustCompile(`\A[^\n]*\b(ds=nocloud|inst\.ks=|preseed/url=|autoyast=|inst\.auto=|ignition\.config\.url=)[^\n]*\n*\z`), CommandLine},
}

// Detect tells a file's format by its name and what is in it, or returns "". It also knows
// formats that are not linted, so that File can say so.
func Detect(name string, data []byte) Format {
	base := path.Base(name)
	for _, n := range byName {
		if ok, err := path.Match(n.pattern, base); ok && err == nil {
			return n.format
		}
	}
	text := strings.TrimPrefix(string(data), "\ufeff")
	for _, t := range byText {
		if t.re.MatchString(text) {
			return t.format
		}
	}
	switch {
	case base == "user-data":
		return CloudConfig
	case strings.HasSuffix(base, ".sh"):
		return Shell
	}
	return ""
}
