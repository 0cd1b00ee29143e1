package agent

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// modules is what depmod wrote about the kernel modules of one kernel: the files
// modules.dep, modules.alias and modules.softdep (man 5 modules.dep, modprobe.d).
type modules struct {
	dir   string              // lib/modules/VERSION
	path  map[string]string   // module name -> file below dir
	deps  map[string][]string // module name -> files it needs, nearest first
	alias map[string][]alias  // bus, the part of a pattern before its first ':' -> patterns
	names []alias             // patterns without a ':'
	soft  map[string][]string // module name -> names or aliases to load before it
}

type alias struct{ pattern, module string }

// readModules reads the index of a module directory. A missing file is an empty one.
func readModules(dir string) (*modules, error) {
	m := &modules{dir: dir, path: map[string]string{}, deps: map[string][]string{}, alias: map[string][]alias{}, soft: map[string][]string{}}
	for _, f := range []struct {
		name string
		line func([]string)
	}{{"modules.dep", m.addDep}, {"modules.alias", m.addAlias}, {"modules.softdep", m.addSoft}} {
		text, err := os.ReadFile(filepath.Join(dir, f.name))
		if err != nil && !os.IsNotExist(err) {
			return nil, fmt.Errorf("read the module index: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			if words := strings.Fields(line); len(words) > 0 && words[0][0] != '#' {
				f.line(words)
			}
		}
	}
	return m, nil
}

// addDep reads "kernel/a/b.ko: kernel/c/d.ko ...".
func (m *modules) addDep(w []string) {
	file := strings.TrimSuffix(w[0], ":")
	m.path[moduleName(file)] = file
	m.deps[moduleName(file)] = slices.Clone(w[1:])
}

// addAlias reads "alias PATTERN MODULE".
func (m *modules) addAlias(w []string) {
	if len(w) != 3 || w[0] != "alias" {
		return
	}
	a := alias{w[1], moduleName(w[2])}
	if bus, _, ok := strings.Cut(w[1], ":"); ok {
		m.alias[bus] = append(m.alias[bus], a)
		return
	}
	a.pattern = dashed(a.pattern)
	m.names = append(m.names, a)
}

// addSoft reads "softdep NAME pre: A B post: C".
func (m *modules) addSoft(w []string) {
	if len(w) < 4 || w[0] != "softdep" {
		return
	}
	pre := false
	for _, v := range w[2:] {
		switch {
		case strings.HasSuffix(v, ":"):
			pre = v == "pre:"
		case pre:
			m.soft[moduleName(w[1])] = append(m.soft[moduleName(w[1])], v)
		}
	}
}

// moduleName is the kernel's own name of a module file: no directory, no suffix,
// and an underscore where a file name may have a hyphen.
func moduleName(file string) string {
	name := filepath.Base(file)
	if i := strings.Index(name, ".ko"); i > 0 {
		name = name[:i]
	}
	return dashed(name)
}

func dashed(s string) string { return strings.ReplaceAll(s, "-", "_") }

// match returns the modules that drive a device, or that go by a name or alias.
func (m *modules) match(modalias string) []string {
	var out []string
	add := func(list []alias, s string) {
		for _, a := range list {
			if glob(a.pattern, s) && !slices.Contains(out, a.module) {
				out = append(out, a.module)
			}
		}
	}
	if bus, _, ok := strings.Cut(modalias, ":"); ok {
		add(m.alias[bus], modalias)
		return out
	}
	name := dashed(modalias)
	if _, ok := m.path[name]; ok {
		return []string{name}
	}
	add(m.names, name)
	return out
}

// glob matches as fnmatch does: * ? and [...]; "/" is a character like any
// other. Going back to the last star alone is enough, so time stays bounded.
func glob(pattern, s string) bool {
	star, resume := "", ""
	starred := false
	for {
		switch {
		case pattern != "" && pattern[0] == '*':
			pattern = pattern[1:]
			star, resume, starred = pattern, s, true
			continue
		case pattern == "" && s == "":
			return true
		}
		if rest, ok := matchOne(pattern, s); ok {
			pattern, s = rest, s[1:]
			continue
		}
		if !starred || resume == "" {
			return false
		}
		resume = resume[1:]
		pattern, s = star, resume
	}
}

// matchOne matches the first character of s and returns the rest of the pattern.
func matchOne(pattern, s string) (rest string, ok bool) {
	if pattern == "" || s == "" {
		return "", false
	}
	switch pattern[0] {
	case '?':
		return pattern[1:], true
	case '[':
		end := strings.IndexByte(pattern, ']')
		if end < 0 {
			return "", false
		}
		return pattern[end+1:], inSet(pattern[1:end], s[0])
	}
	return pattern[1:], pattern[0] == s[0]
}

func inSet(set string, c byte) bool {
	for i := 0; i < len(set); i++ {
		if i+2 < len(set) && set[i+1] == '-' {
			if set[i] <= c && c <= set[i+2] {
				return true
			}
			i += 2
		} else if set[i] == c {
			return true
		}
	}
	return false
}

// loadOrder returns the files to load for a module, what it needs first. Soft
// dependencies count: ext4 asks the crypto layer for crc32c by name, at mount
// time, through a modprobe program that does not exist in the agent's RAM.
func (m *modules) loadOrder(name string) []string {
	var out []string
	m.collect(moduleName(name), map[string]bool{}, &out)
	return out
}

func (m *modules) collect(name string, seen map[string]bool, out *[]string) {
	file, ok := m.path[name]
	if !ok || seen[name] {
		return // built in, or not packed
	}
	seen[name] = true
	for _, s := range m.soft[name] {
		for _, dep := range m.match(s) {
			m.collect(dep, seen, out)
		}
	}
	for _, dep := range slices.Backward(m.deps[name]) {
		m.collect(moduleName(dep), seen, out)
	}
	*out = append(*out, file)
}

// drivers loads modules, each once, and remembers how that went.
type drivers struct {
	index  *modules
	root   string
	load   func(file string) error
	asked  map[string]bool // aliases of devices seen
	done   map[string]bool // files tried
	loaded []string
	errs   []error
}

// coldplug loads the driver of every device below root/sys/devices that was not
// seen before, until no new one appears: a bus driver brings devices of its own.
func (d *drivers) coldplug() {
	for before := -1; before != len(d.asked); {
		before = len(d.asked)
		for _, modalias := range deviceAliases(d.root) {
			if !d.asked[modalias] {
				d.asked[modalias] = true
				d.byName([]string{modalias})
			}
		}
	}
}

// byName loads what goes by these names or aliases, and what that needs.
func (d *drivers) byName(names []string) {
	for _, name := range names {
		for _, module := range d.index.match(name) {
			for _, file := range d.index.loadOrder(module) {
				d.one(file)
			}
		}
	}
}

func (d *drivers) one(file string) {
	if d.done[file] {
		return
	}
	d.done[file] = true
	if err := d.load(filepath.Join(d.index.dir, file)); err != nil {
		d.errs = append(d.errs, fmt.Errorf("load %s: %w", moduleName(file), err))
		return
	}
	d.loaded = append(d.loaded, moduleName(file))
}

// deviceAliases returns the modalias of every device that states one.
func deviceAliases(root string) []string {
	seen := map[string]bool{}
	walk := func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "modalias" && !d.IsDir() {
			if text := strings.TrimSpace(string(readBytes(p))); text != "" {
				seen[text] = true
			}
		}
		return nil // devices come and go while we walk
	}
	_ = filepath.WalkDir(filepath.Join(root, "sys/devices"), walk) // walk itself never fails
	var out []string
	for s := range seen {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}
