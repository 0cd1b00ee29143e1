package seed

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"bootlane/internal/ignition"
	"bootlane/internal/lane"
)

// A system that Ignition sets up reads one configuration at its first boot: what the bundle gives,
// and in the same document what every system of ours has.

// plainSpec is the version of the specification of what we write alone.
const plainSpec = "3.3.0"

// kernelArgsSpec is the first version in which a configuration may name kernel arguments.
const kernelArgsSpec = "3.3.0"

const (
	firstBootUnit = "bootlane-firstboot.service"
	sudoersFile   = "/etc/sudoers.d/90-bootlane"
)

// FirstBootPath is where first boot's script lies in the installed system. Flatcar's /usr is
// read-only; in Fedora CoreOS, SELinux lets systemd start what is called a program.
func (in Input) FirstBootPath() string {
	switch {
	case in.Bundle.OS == "flatcar":
		return "/opt/bootlane/firstboot"
	case in.Bundle.Ignites():
		return "/usr/local/bin/bootlane-firstboot"
	}
	return "/usr/local/lib/bootlane/firstboot"
}

// object is an object of JSON.
type object = map[string]any

// below returns an object in another, which is made where there is none.
func below(o object, key string) object {
	in, ok := o[key].(object)
	if !ok {
		in = object{}
		o[key] = in
	}
	return in
}

// inner returns the object below keys; of one that is not there there is nothing in it.
func inner(o object, keys ...string) object {
	for _, k := range keys {
		o, _ = o[k].(object)
	}
	return o
}

// put adds an entry to a list.
func put(o object, key string, entries ...any) {
	list, _ := o[key].([]any)
	o[key] = append(list, entries...)
}

// ignitionFile is a file of a configuration. What was there before, from the system's own tree, gives way.
func ignitionFile(path string, mode int, content []byte) object {
	return object{"path": path, "mode": mode, "overwrite": true, "contents": object{"source": "data:;base64," + base64.StdEncoding.EncodeToString(content)}}
}

// ignitionDocuments returns what Ignition reads, of the installer's system and of the installed one.
func (v view) ignitionDocuments() (out []Document, err error) {
	if !v.Bundle.Ignites() {
		return nil, nil
	}
	if v.Bundle.Seed == lane.SeedIgnition {
		live, err := v.liveConfig()
		if err != nil {
			return nil, err
		}
		out = append(out, Document{"live.ign", typeJSON, live})
	}
	config, err := v.ignitionConfig()
	return append(out, Document{"config.ign", typeJSON, config}), err
}

// liveConfig is the configuration of the system in memory that installs. It keeps that system as it
// is: an update has no place in it, and would end in a reboot.
func (v view) liveConfig() ([]byte, error) {
	var script, unit bytes.Buffer
	if err := errors.Join(templates.ExecuteTemplate(&script, "ignition-start.sh", v), templates.ExecuteTemplate(&unit, "ignition-start.service", v)); err != nil {
		return nil, fmt.Errorf("render live.ign: %w", err)
	}
	return encoded(object{
		"ignition": object{"version": plainSpec},
		"storage":  object{"files": []any{ignitionFile("/opt/bootlane/install", 0o755, script.Bytes())}},
		"systemd": object{"units": []any{object{"name": "bootlane-install.service", "enabled": true, "contents": unit.String()},
			object{"name": "update-engine.service", "mask": true}, object{"name": "locksmithd.service", "mask": true}}},
	})
}

// ignitionConfig is the configuration of the installed system. An error has every problem of it.
func (v view) ignitionConfig() ([]byte, error) {
	config, problems := v.givenConfig()
	if len(problems) == 0 {
		problems = v.ignitionConflicts(config)
	}
	if len(problems) == 0 {
		given := len(named(inner(config, "storage"), "files", "path"))
		if err := v.addOurs(config); err != nil {
			return nil, err
		}
		brief, err := encoded(emptied(config, given))
		if err != nil {
			return nil, err
		}
		for _, p := range ignition.Check(brief) { // what does not go together with ours
			problems = append(problems, "bundle.config: with Bootlane's own parts: "+p.Message)
		}
		if len(problems) == 0 {
			return encoded(config)
		}
	}
	return nil, &lane.Error{Code: lane.Invalid, Message: "the configuration cannot be written", Problems: problems}
}

// emptied returns the configuration with nothing in the files from the nth on, which are ours: its reader
// takes long over what is large, and looks at names and modes alone there.
func emptied(config object, n int) object {
	storage := maps.Clone(inner(config, "storage"))
	list, _ := storage["files"].([]any)
	files := slices.Clone(list)
	for i := n; i < len(files); i++ {
		if f, ok := files[i].(object); ok {
			f = maps.Clone(f)
			f["contents"] = object{"source": "data:,"}
			files[i] = f
		}
	}
	storage["files"] = files
	out := maps.Clone(config)
	out["storage"] = storage
	return out
}

// givenConfig returns what the bundle gives, or an empty configuration.
func (v view) givenConfig() (config object, problems []string) {
	if v.Config.File == "" {
		return object{"ignition": object{"version": plainSpec}}, nil
	}
	refuse := func(format string, args ...any) (object, []string) {
		return nil, append(problems, "bundle.config: "+fmt.Sprintf(format, args...))
	}
	text, err := v.fill(v.Config)
	if err != nil {
		return refuse("%v", err)
	}
	variants := []string{ignition.Flatcar}
	if v.Bundle.OS != "flatcar" {
		variants = []string{ignition.FCOS}
	}
	data, bad := ignition.Translate([]byte(text), variants...)
	for _, p := range bad {
		problems = append(problems, fmt.Sprintf("bundle.config: %s:%s", v.Config.File, p))
	}
	if len(problems) > 0 {
		return nil, problems
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&config); err != nil {
		return refuse("%s: %v", v.Config.File, err)
	}
	return config, nil
}

// named returns the names of a list's entries.
func named(o object, list, key string) (out []string) {
	entries, _ := o[list].([]any)
	for _, e := range entries {
		if entry, ok := e.(object); ok {
			name, _ := entry[key].(string)
			out = append(out, name)
		}
	}
	return out
}

// ignitionConflicts says what of the given configuration is ours to write: which disk is erased,
// what is judged before it is served, and the files that others of ours rely on.
func (v view) ignitionConflicts(config object) (out []string) {
	bad := func(format string, args ...any) {
		out = append(out, fmt.Sprintf("bundle.config: %s: ", v.Config.File)+fmt.Sprintf(format, args...))
	}
	storage, passwd := inner(config, "storage"), inner(config, "passwd")
	for _, key := range []string{"disks", "raid", "luks", "filesystems"} {
		if list, _ := storage[key].([]any); len(list) > 0 {
			bad("storage.%s says what is erased, and the record's disk alone is granted: leave it out, and set up further disks by a firstBoot script", key)
		}
	}
	from := inner(config, "ignition", "config")
	if merge, _ := from["merge"].([]any); len(merge) > 0 || len(inner(from, "replace")) > 0 {
		bad("ignition.config brings in a configuration that nobody has judged: write it out")
	}
	ours := []string{"/etc/hostname", "/etc/localtime", sudoersFile, v.FirstBootPath()}
	for _, f := range v.NetworkFiles() {
		ours = append(ours, f.Path)
	}
	for _, list := range []string{"files", "directories", "links"} {
		for _, path := range named(storage, list, "path") {
			if slices.ContainsFunc(ours, func(o string) bool { return path == o || strings.HasPrefix(path, o+"/") }) {
				bad("storage.%s writes %s, which is Bootlane's: leave it out; the record and `site` say what is in it", list, path)
			}
		}
	}
	if slices.Contains(named(inner(config, "systemd"), "units", "name"), firstBootUnit) {
		bad("systemd.units writes %s, which is Bootlane's: leave it out", firstBootUnit)
	}
	if slices.Contains(named(passwd, "users", "name"), v.Site.User) {
		bad("passwd.users makes %s, as %s does: leave it out, or say another `user` there", v.Site.User, v.path("user"))
	}
	if version, _ := inner(config, "ignition")["version"].(string); len(v.Site.KernelArgs) > 0 && version < kernelArgsSpec { // one digit each
		out = append(out, fmt.Sprintf("%s: a configuration of version %s takes none: write %s for version %s or later", v.path("kernelArgs"), version, v.Config.File, kernelArgsSpec))
	}
	return out
}

// addOurs puts into the configuration what every system of ours has.
func (v view) addOurs(config object) error {
	parts, err := v.render(firstBoot())
	if err != nil {
		return err
	}
	storage := below(config, "storage")
	put(storage, "files", object{"path": "/etc/hostname", "mode": 0o644, "overwrite": true, "contents": object{"source": "data:," + v.Short + "%0A"}},
		ignitionFile(v.FirstBootPath(), 0o700, parts[0].Body),
		ignitionFile(sudoersFile, 0o440, fmt.Appendf(nil, "%s ALL=(ALL) NOPASSWD:ALL\n", v.Site.User)))
	for _, f := range v.NetworkFiles() {
		put(storage, "files", ignitionFile(f.Path, int(f.Mode), []byte(f.Content)))
	}
	put(storage, "links", object{"path": "/etc/localtime", "overwrite": true, "target": "../usr/share/zoneinfo/" + v.Site.Timezone})
	put(below(config, "systemd"), "units", object{"name": firstBootUnit, "enabled": true, "contents": string(parts[1].Body)})
	user := object{"name": v.Site.User}
	if v.Site.PasswordHash != "" {
		user["passwordHash"] = v.Site.PasswordHash
	}
	var keys []string // Ignition refuses one that stands there twice
	for _, k := range v.Site.SSHKeys {
		if !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	if len(keys) > 0 {
		user["sshAuthorizedKeys"] = keys
	}
	put(below(config, "passwd"), "users", user)
	for _, a := range v.Site.KernelArgs {
		put(below(config, "kernelArguments"), "shouldExist", a)
	}
	return nil
}

// encoded writes a configuration, the same bytes for the same content.
func encoded(config object) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(config); err != nil {
		return nil, fmt.Errorf("encode the configuration of Ignition: %w", err)
	}
	return b.Bytes(), nil
}

// checkIgnition refuses what Ignition's systems have no place for.
func (in Input) checkIgnition() (out []string) {
	if !in.Bundle.Ignites() {
		if in.Config.File != "" && in.Bundle.Seed != lane.SeedTalos {
			out = append(out, "bundle.config: nobody reads it: the seed is "+in.Bundle.Seed)
		}
		return out
	}
	if in.Bundle.Seed == lane.SeedIgnition {
		for _, p := range in.Bundle.Flatcar() {
			out = append(out, "bundle."+p.String())
		}
		if in.Bundle.Mirror == "" {
			out = append(out, "bundle.mirror: flatcar-install needs a pinned http:// mirror of the image: set `mirror` in the bundle's bundle.yaml, and build it with a new version")
		}
	}
	if len(in.Site.Packages) > 0 {
		out = append(out, in.path("packages")+": there are no packages in such a system: run them as containers, or use a system extension, and say `packages: []` for this host or its role")
	}
	return out
}

// igniteFile is what the agent puts into an image for Ignition.
func (in Input) igniteFile(docs []Document) []lane.File {
	i := slices.IndexFunc(docs, func(d Document) bool { return d.Name == "config.ign" })
	return []lane.File{{Path: "/ignition/config.ign", Mode: 0o600, Content: string(docs[i].Body), PartLabel: in.Bundle.Image.ConfigLabel}}
}
