package lint

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// What Subiquity reads, of all releases from 22.04 on.
var autoinstallKeys = []string{"active-directory", "apt", "codecs", "debconf-selections", "drivers", "early-commands", "error-commands", "identity", "interactive-sections", "kernel", "kernel-crash-dumps",
	"keyboard", "late-commands", "locale", "network", "oem", "packages", "proxy", "refresh-installer", "reporting", "shutdown", "snaps", "source", "ssh", "storage", "timezone", "ubuntu-advantage",
	"ubuntu-pro", "updates", "user-data", "version", "zdevs"}

// autoinstallSince are the releases from which on Subiquity reads a key, where those of 22.04 do not.
var autoinstallSince = map[string]string{"active-directory": "24.04", "codecs": "24.04", "oem": "24.04", "source": "24.04", "ubuntu-pro": "24.04", "kernel-crash-dumps": "25.04", "zdevs": "25.04"}

var (
	// What Subiquity compares when it looks for a disk. Another key is passed over, and what
	// is left then matches every disk.
	matchKeys = []string{"serial", "model", "vendor", "path", "id_path", "devpath", "ssd", "size", "install-media"}
	// Of these, what names one disk.
	matchNames = []string{"serial", "path", "id_path", "devpath"}
	// What curtin's reporters take; any other key ends the installer.
	reporters = map[string][]string{"print": {"type"}, "log": {"type", "level"}, "journald": {"type", "level", "identifier"},
		"webhook": {"type", "level", "endpoint", "consumer_key", "token_key", "token_secret", "consumer_secret"}}
)

// autoinstall judges the answers to Ubuntu's installer.
func (r *report) autoinstall(p at, n *yaml.Node) {
	r.known("autoinstall-unknown-key", n, autoinstallKeys, "autoinstall")
	each(n, func(k, _ *yaml.Node) {
		if since := autoinstallSince[k.Value]; r.reader != "" && r.reader < since { // two digits each
			r.add("autoinstall-key-release", pos(k), "Ubuntu %s does not read %q, which came with %s", r.reader, k.Value, since)
		}
	})
	seq, mapping := yaml.SequenceNode, yaml.MappingNode
	r.kinds(n, map[string]yaml.Kind{"identity": mapping, "ssh": mapping, "storage": mapping, "network": mapping, "apt": mapping, "reporting": mapping, "refresh-installer": mapping, "user-data": mapping,
		"early-commands": seq, "late-commands": seq, "error-commands": seq, "packages": seq, "interactive-sections": seq})
	if v := get(n, "version"); v == nil {
		r.add("autoinstall-version", p, "version is missing")
	} else if v.Value != "1" || v.Style != 0 {
		r.add("autoinstall-version", pos(v), "version is not the number 1")
	}
	if v := get(n, "interactive-sections"); len(items(v)) > 0 {
		r.add("autoinstall-interactive", pos(v), "the installer waits for somebody at its screen")
	}
	if v := get(n, "refresh-installer", "update"); yes(v) {
		r.add("autoinstall-refresh", pos(v), "the installer replaces itself by the newest one")
	}
	if k, v := entry(n, "apt"); v != nil && !is(get(v, "fallback"), "abort") {
		r.add("autoinstall-apt-fallback", pos(k), "apt.fallback is not abort: a mirror that does not answer changes what is installed")
	}
	if get(n, "error-commands") == nil {
		r.add("hook-failure-unreported", p, "there are no error-commands: after an error the installer stays up, and nobody learns of it")
	}
	if v := get(n, "timezone"); v != nil && v.Value != "geoip" { // which asks a server where it is
		r.timezone(pos(v), v.Value)
	}
	for _, key := range []string{"early-commands", "late-commands", "error-commands"} {
		r.commands(get(n, key))
	}
	r.identity(p, n)
	r.reporting(get(n, "reporting"))
	r.storage(p, n)
	if net := get(n, "network"); net != nil {
		if inner := get(net, "network"); inner != nil { // some releases take it doubled
			net = inner
		}
		r.netplan(net)
	}
}

func (r *report) identity(p at, n *yaml.Node) {
	k, id := entry(n, "identity")
	users := get(n, "user-data")
	if users != nil {
		r.cloudConfig(users)
		if k, v := entry(users, "hostname"); v != nil {
			r.add("autoinstall-hostname", pos(k), "the installer has cloud-init keep the name that it wrote itself: this one has no effect")
		}
	}
	if id == nil {
		if users == nil {
			r.add("autoinstall-identity", p, "there is neither identity nor user-data: the installer asks")
		}
		return
	}
	for _, want := range []string{"hostname", "username", "password"} {
		if get(id, want) == nil {
			r.add("autoinstall-identity", pos(k), "identity.%s is missing", want)
		}
	}
	if v := get(id, "hostname"); v != nil {
		if s, ok := r.text(v); ok {
			r.hostname(pos(v), s)
		}
	}
	if v := get(id, "username"); v != nil {
		if s, ok := r.text(v); ok {
			r.user(pos(v), s)
		}
	}
	admits := true
	if v := get(id, "password"); v != nil {
		admits = r.cleartextOrHash(v)
	}
	keys := get(n, "ssh", "authorized-keys")
	r.keys(keys, map[string]bool{})
	if !admits && len(items(keys)) == 0 && users == nil {
		r.add("login-nobody", pos(k), "the password is locked, and there is no SSH key: nobody can log in")
	}
}

func (r *report) reporting(n *yaml.Node) {
	each(n, func(name, v *yaml.Node) {
		kind := get(v, "type")
		if kind == nil {
			r.add("autoinstall-reporting-type", pos(name), "type is missing")
			return
		}
		keys, ok := reporters[kind.Value]
		if !ok {
			r.add("autoinstall-reporting-type", pos(kind), "%q ends the installer with an error: it knows print, log, journald and webhook", kind.Value)
			return
		}
		r.known("autoinstall-reporting-key", v, keys, "a "+kind.Value+" reporter")
	})
}

// storage judges which disk is erased.
func (r *report) storage(p at, n *yaml.Node) {
	k, st := entry(n, "storage")
	if st == nil {
		r.add("disk-selector-missing", p, "there is no storage: the installer takes the largest disk")
		return
	}
	lk, layout := entry(st, "layout")
	ck, config := entry(st, "config")
	switch {
	case layout != nil && config != nil:
		r.add("disk-layout-and-config", pos(ck), "storage has a layout too, which wins: this is not read")
	case layout == nil && config == nil:
		r.add("disk-selector-missing", pos(k), "storage has neither layout nor config: the installer takes the largest disk")
	}
	r.autoinstallSwap(k, st)
	if layout != nil {
		if v := get(layout, "password"); v != nil {
			r.add("secret-disk-passphrase", pos(v), "the passphrase of the disk stands here in clear text")
		}
		if mk, match := entry(layout, "match"); mk == nil {
			r.add("disk-selector-missing", pos(lk), "the layout has no match: the installer takes the largest disk")
		} else {
			r.match(mk, match)
		}
		return
	}
	gate := len(items(get(n, "early-commands"))) > 0
	for _, a := range items(config) {
		switch v := get(a, "type"); {
		case is(v, "disk"):
			r.diskAction(a, gate)
		case is(v, "dm_crypt"):
			if key := get(a, "key"); key != nil {
				r.add("secret-disk-passphrase", pos(key), "the passphrase of the disk stands here in clear text")
			}
		}
	}
	r.partitions(config)
	r.arrays(config)
}

// diskAction judges one action of type disk.
func (r *report) diskAction(a *yaml.Node, gate bool) {
	mk, match := entry(a, "match")
	path, serial := get(a, "path"), get(a, "serial")
	if mk != nil {
		r.match(mk, match)
	}
	if path != nil {
		if v, ok := r.text(path); ok && strings.HasPrefix(v, "@") && !gate {
			r.add("template-leftover", pos(path), "no early-command replaces the marker %q", v)
		} else if ok {
			r.pathOf(path, v)
		}
	}
	if serial != nil {
		r.text(serial)
	}
	if wk, wipe := entry(a, "wipe"); wipe != nil && yes(get(a, "preserve")) {
		r.add("disk-preserve-wiped", pos(wk), "the disk is to be kept, and to be wiped")
	}
	if mk == nil && path == nil && serial == nil {
		why := ""
		if get(a, "wwn") != nil {
			why = "; it does not compare wwn"
		}
		r.add("disk-selector-missing", pos(a), "the disk has no serial, path or match: the installer takes the first one%s", why)
	}
}

// pathOf judges a path: Subiquity compares it with the kernel's, letter by letter.
func (r *report) pathOf(n *yaml.Node, v string) {
	if strings.HasPrefix(v, "/dev/disk/") {
		r.add("disk-link-literal", pos(n), "the installer compares paths letter by letter, and follows no link: %q is no disk to it", v)
		return
	}
	r.disk(pos(n), v)
}

// match judges a selector, or a list of which the first that matches counts.
func (r *report) match(k, n *yaml.Node) {
	all := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		all = items(n)
	}
	if len(all) == 0 {
		r.add("disk-match-empty", pos(k), "the match is empty: every disk matches")
	}
	for _, m := range all {
		if m.Kind != yaml.MappingNode || len(m.Content) == 0 {
			r.add("disk-match-empty", pos(k), "the match is empty: every disk matches")
			continue
		}
		named, unknown := false, false
		each(m, func(k, v *yaml.Node) {
			switch {
			case !slices.Contains(matchKeys, k.Value):
				unknown = true
				r.add("disk-match-unknown-key", pos(k), "the installer does not compare %q: without it every disk matches%s", k.Value, like(k.Value, matchKeys))
				return
			case slices.Contains(matchNames, k.Value):
				named = true
			}
			r.matchValue(k.Value, v)
		})
		if !named && !unknown {
			r.add("disk-selector-loose", pos(m), "nothing in the match names one disk: of several that fit, the installer takes the first")
		}
	}
}

func (r *report) matchValue(key string, v *yaml.Node) {
	if v == nil || slices.Contains([]string{"ssd", "size", "install-media"}, key) {
		return
	}
	s, ok := r.text(v)
	switch {
	case !ok:
	case strings.ContainsAny(strings.NewReplacer("[*]", "", "[?]", "", "[[]", "").Replace(s), "*?["):
		r.add("disk-match-glob", pos(v), "%q is a pattern: several disks may match, and the first is taken", s)
	case key == "path":
		r.pathOf(v, s)
	}
}

// partitions judges the sizes on each disk, and whether the machine can boot from it.
func (r *report) partitions(config *yaml.Node) {
	type table struct {
		disk    *yaml.Node
		percent int
		rest    *yaml.Node // takes what is left
		boot    bool
		parts   int
	}
	tables := map[string]*table{}
	for _, a := range items(config) {
		if id := get(a, "id"); id != nil && is(get(a, "type"), "disk") {
			tables[id.Value] = &table{disk: a}
		}
	}
	for _, a := range items(config) {
		on := get(a, "device")
		if on == nil || !is(get(a, "type"), "partition") || tables[on.Value] == nil {
			continue
		}
		t := tables[on.Value]
		t.parts++
		flag := get(a, "flag")
		t.boot = t.boot || is(flag, "boot") || is(flag, "bios_grub") || is(flag, "prep") || yes(get(a, "grub_device"))
		size := get(a, "size")
		if t.rest != nil {
			r.add("partition-rest-not-last", pos(t.rest), "a partition follows the one that takes the rest of the disk")
			t.rest = nil
		}
		if size == nil {
			continue
		}
		if p, ok := strings.CutSuffix(size.Value, "%"); ok {
			if t.percent += max(number(p), 0); t.percent > 100 {
				r.add("partition-percent", pos(size), "the partitions of this disk add up to %d%%", t.percent)
			}
		}
		if size.Value == "-1" {
			t.rest = size
		}
	}
	boots, disks := false, []*yaml.Node{}
	for _, a := range items(config) {
		if id := get(a, "id"); id != nil && tables[id.Value] != nil && tables[id.Value].disk == a && tables[id.Value].parts > 0 {
			boots = boots || tables[id.Value].boot || is(get(a, "ptable"), "msdos") || yes(get(a, "preserve"))
			disks = append(disks, a)
		}
	}
	if !boots && len(disks) > 0 {
		r.add("partition-boot-missing", pos(disks[0]), "no disk has a partition that firmware boots from: an ESP for UEFI (flag: boot, grub_device: true), or bios_grub for BIOS")
	}
}
