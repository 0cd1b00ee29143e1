package seed

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bootlane/internal/lane"
)

// ownSections is something for every section there is.
var ownSections = map[string]map[string]string{
	lane.SeedPreseed: {"answers": "# own answers of {{.ID}}\nd-i debian-installer/exit/halt boolean false\n", "late": "echo {{sh .AssetTag}} > /target/etc/asset\n"},
	lane.SeedNoCloud: {"autoinstall": "drivers: {install: true}\nsource: {id: {{yaml .Role}}}\n", "late": "echo {{sh .AssetTag}} > /target/etc/asset\n"},
	lane.SeedKickstart: {"commands": "{{if .Domain}}firewall --enabled --service=ssh\n{{end}}services --disabled=kdump\n", "packages": "{{range .NTP}}# {{.}}\n{{end}}tuned\n",
		"late": "echo {{sh .AssetTag}} > /mnt/sysroot/etc/asset\n"},
	lane.SeedAutoYaST: {"profile": "<firewall>\n  <enable_firewall config:type=\"boolean\">false</enable_firewall>\n</firewall>\n<!-- {{xml .AssetTag}} -->\n", "late": "echo {{sh .AssetTag}} > /etc/asset\n"},
	lane.SeedImage:    {"cloud-config": "write_files:\n  - {path: /etc/asset, content: {{yaml .AssetTag}}}\n"},
	lane.SeedAgama:    {"profile": "\"security\": {\"sslCertificates\": []},\n\"files\": [{\"destination\": \"/etc/asset\", \"content\": {{json .AssetTag}}}]\n", "late": "echo {{sh (join \",\" .MACs)}} > /mnt/etc/macs\n"},
}

// own returns the sections of a bundle.
func own(b lane.Bundle) (out []Section) {
	for _, name := range sectionNames(b) {
		out = append(out, Section{Name: name, File: name + ".tmpl", Text: []byte(ownSections[b.Seed][name])})
	}
	return out
}

// TestSections: every section of every seed arrives, and all readers take the documents.
func TestSections(t *testing.T) {
	for _, seed := range lane.Seeds() {
		in := full(seed)
		in.Sections = own(in.Bundle)
		for _, d := range documents(t, in) {
			if d.Type == typeText && d.Name == "firstboot.service" || d.Name == "firstboot.sh" || d.Name == "gate.sh" {
				continue
			}
			golden(t, filepath.Join("testdata", "sections", strings.ReplaceAll(seed, "/", "-"), d.Name), d.Body)
			linted(t, seed, d)
		}
	}
}

// TestSectionsBound: what could run without end, or take a gate away, is refused with its place.
func TestSectionsBound(t *testing.T) {
	for name, c := range map[string]struct{ seed, section, text, want string }{
		"a key that is not there":   {lane.SeedKickstart, "late", "ok\n{{.Serial}} {{.Nothing}}\n", "x.tmpl:2:14: executing"},
		"a label that is not":       {lane.SeedKickstart, "late", "{{.Labels.none}}\n", "x.tmpl:1:9: executing"},
		"a word that is none":       {lane.SeedKickstart, "late", "{{exec \"id\"}}\n", `x.tmpl:1: function "exec" not defined`},
		"a broken one":              {lane.SeedKickstart, "late", "{{if}}\n", "x.tmpl:1: missing value for if"},
		"over a number":             {lane.SeedKickstart, "late", "{{range 1000000000}}{{end}}\n", "x.tmpl:1:8: ranges over 1000000000: only over a list of the host"},
		"over a count":              {lane.SeedKickstart, "late", "{{range len .MACs}}{{end}}\n", "ranges over len .MACs: only"},
		"three deep":                {lane.SeedKickstart, "late", "{{range .MACs}}{{range $.MACs}}{{range $.MACs}}x{{end}}{{end}}{{end}}\n", "ranges within ranges within ranges"},
		"one that calls itself":     {lane.SeedKickstart, "late", "{{define \"a\"}}{{template \"a\"}}{{end}}{{template \"a\"}}\n", "defines a template of its own"},
		"one that calls us":         {lane.SeedKickstart, "late", "{{template \"gate.sh\" .}}\n", "calls a template"},
		"a wide one":                {lane.SeedKickstart, "late", "{{printf \"%1000000d\" 1}}\n", "printf is not offered"},
		"a long one":                {lane.SeedKickstart, "late", strings.Repeat("x", maxSection+1), "it writes more than"},
		"what no shell reads":       {lane.SeedAgama, "late", "echo a\nif [ -e /b ]; then\necho c\n", "x.tmpl:2:1: "},
		"no section":                {lane.SeedImage, "late", "x", "image/1 has no such section: it has none"},
		"another's section":         {lane.SeedPreseed, "packages", "x", "it has answers, late"},
		"a disk, kickstart":         {lane.SeedKickstart, "commands", "  clearpart --all\n", "x.tmpl: writes clearpart, which is Bootlane's"},
		"a script, kickstart":       {lane.SeedKickstart, "commands", "%pre\nid\n%end\n", "writes %pre,"},
		"an end, packages":          {lane.SeedKickstart, "packages", "vim\n%end\n%pre\n", "writes %end,"},
		"a disk, preseed":           {lane.SeedPreseed, "answers", "d-i partman-auto/disk string /dev/sda\n", "writes partman-auto/disk,"},
		"a hook, preseed":           {lane.SeedPreseed, "answers", "d-i preseed/early_command string true\n", "writes preseed/early_command,"},
		"a disk, autoinstall":       {lane.SeedNoCloud, "autoinstall", "storage: {layout: {name: direct}}\n", "writes storage,"},
		"a disk, AutoYaST":          {lane.SeedAutoYaST, "profile", "<partitioning/>", "writes <partitioning>,"},
		"by a prefix, AutoYaST":     {lane.SeedAutoYaST, "profile", `<y:partitioning xmlns:y="http://www.suse.com/1.0/yast2ns"><drive/></y:partitioning>`, "writes <partitioning>,"},
		"general, AutoYaST":         {lane.SeedAutoYaST, "profile", "<!-- x --><general/>", "writes <general>,"},
		"a boot loader, AutoYaST":   {lane.SeedAutoYaST, "profile", "<bootloader><global><boot_custom>/dev/sdb</boot_custom></global></bootloader>", "writes <bootloader>,"},
		"half of it, AutoYaST":      {lane.SeedAutoYaST, "profile", "</profile><profile>", "writes the end of the profile,"},
		"a tag left open, AutoYaST": {lane.SeedAutoYaST, "profile", "<files>", "writes what is no whole XML"},
		"a line joined, preseed":    {lane.SeedPreseed, "answers", "d-i \\\n  preseed/include string http://x/y\n", "writes preseed/include,"},
		"a boot device, preseed":    {lane.SeedPreseed, "answers", "grub-pc grub-pc/install_devices multiselect /dev/sdb\n", "writes grub-pc/install_devices,"},
		"a hidden line end":         {lane.SeedKickstart, "commands", "# note{{\"\\u2028\"}}%pre\n", `has the character '\u2028'`},
		"another hidden one":        {lane.SeedKickstart, "packages", "# note\u0085%end\n", `has the character '\u0085'`},
		"pmem, kickstart":           {lane.SeedKickstart, "commands", "nvdimm reconfigure --namespace=x\n", "writes nvdimm,"},
		"a text that doubles":       {lane.SeedKickstart, "late", "{{$a := \"x\"}}{{$a = print $a $a}}", "print is not offered"},
		"quotes of quotes":          {lane.SeedKickstart, "late", "{{\"'\"" + strings.Repeat(" | sh", 200) + "}}", "makes more than"},
		"over a variable":           {lane.SeedKickstart, "late", "{{$n := 1000000000000}}{{range $n}}{{end}}", "ranges over $n: only"},
		"over what is with it":      {lane.SeedKickstart, "late", "{{with 1000000000000}}{{range .}}{{end}}{{end}}", "ranges over .: only"},
		"over a count in brackets":  {lane.SeedKickstart, "late", "{{range (len .ID)}}{{end}}", "ranges over (len .ID): only"},
		"a disk, Agama":             {lane.SeedAgama, "profile", `"storage" : {}`, "writes storage,"},
	} {
		in := full(c.seed)
		in.Sections = []Section{{c.section, "x.tmpl", []byte(c.text)}}
		if _, err := Documents(in); lane.CodeOf(err) != lane.Invalid || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "bundle.sections."+c.section) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestSectionQuotes: what is hostile in a record arrives in a section as it is.
func TestSectionQuotes(t *testing.T) {
	in := full(lane.SeedNoCloud)
	in.Host.Identity.AssetTag = `a'"$(x)` + "`y`" + ` \ #`
	in.Sections = []Section{{"late", "x", []byte("tag={{sh .AssetTag}}\n")}, {"autoinstall", "y", []byte("zzz: {{yaml .AssetTag}}\n")}}
	if got := document(t, in, "late.sh"); !strings.Contains(got, "\ntag='a'\\''\"$(x)`y` \\ #'\n") {
		t.Error(got)
	}
	texts := plainTexts(t, Document{Type: typeYAML, Body: []byte(document(t, in, "user-data"))})
	if !slices.Contains(texts, in.Host.Identity.AssetTag) {
		t.Errorf("%q", texts)
	}
}

// FuzzSection: no template makes a render run long, or panic.
func FuzzSection(f *testing.F) {
	for _, s := range ownSections {
		for _, text := range s {
			f.Add(text)
		}
	}
	f.Add("{{range .MACs}}{{range $.MACs}}{{.}}{{end}}{{end}}")
	f.Add("{{with $x := .Labels}}{{index $x `a`}}{{end}}")
	f.Fuzz(func(t *testing.T, text string) {
		in := full(lane.SeedKickstart)
		in.Sections = []Section{{"late", "x.tmpl", []byte(text)}}
		docs, err := Documents(in)
		if err != nil {
			return
		}
		for _, d := range docs { // and the fuzzer itself ends what runs for long
			if len(d.Body) > maxSection+64<<10 || strings.ContainsFunc(string(d.Body), unseen) && d.Name == "late.sh" {
				t.Errorf("%s has %d bytes", d.Name, len(d.Body))
			}
		}
	})
}
