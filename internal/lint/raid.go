package lint

import (
	"cmp"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// member is a part of an array: the disk that it lies on, and its size as the file has it. What the file
// does not say is empty.
type member struct {
	at         at
	disk, size string
	several    bool // one name that stands for more than one
}

// array judges what an array is made of.
func (r *report) array(p at, level string, members []member) {
	if slices.ContainsFunc(members, func(m member) bool { return m.several }) {
		return
	}
	r.raid(p, level, len(members))
	var first *member
	for i, m := range members {
		if j := slices.IndexFunc(members[:i], func(o member) bool { return m.disk != "" && o.disk == m.disk }); j >= 0 {
			r.add("raid-one-disk", m.at, "two members of this array lie on %s", m.disk)
			return
		}
		if first == nil {
			first = &members[i]
			continue
		}
		switch {
		case bytesOf(first.size) != 0 && bytesOf(m.size) != 0 && bytesOf(first.size) != bytesOf(m.size):
			r.add("raid-members-unequal", m.at, "this member has %s, and another one %s", m.size, first.size)
			return
		case bus(first.disk) != "" && bus(m.disk) != "" && bus(first.disk) != bus(m.disk):
			r.add("raid-members-unequal", m.at, "this member is %s, and another one %s", bus(m.disk), bus(first.disk))
			return
		}
	}
}

// raid judges the number of members against the level.
func (r *report) raid(p at, level string, members int) {
	level = raidLevel(level)
	want := map[string]int{"0": 2, "1": 2, "mirror": 2, "stripe": 2, "4": 3, "5": 3, "6": 4, "10": 2}[level]
	if members < want {
		r.add("raid-members", p, "RAID %s needs %d members, and has %d", level, want, members)
	}
}

func raidLevel(v string) string { return strings.TrimPrefix(strings.ToLower(v), "raid") }

// espArray judges an array with the EFI system partition in it. metadata is empty where the installer
// itself chooses what firmware can read.
func (r *report) espArray(p at, level, metadata string) {
	switch l := raidLevel(level); {
	case l != "1" && l != "mirror":
		r.add("raid-boot", p, "/boot/efi lies on RAID %s, which no firmware reads", l)
	case metadata != "" && metadata != "1.0":
		r.add("raid-boot", p, "/boot/efi lies on an array whose metadata, %s, stand where firmware looks for a file system", metadata)
	}
}

// sizeForm is a size as installers write it; what is a share, or the rest of the disk, is not in it.
var sizeForm = regexp.MustCompile(`^(\d+(?:\.\d+)?) *([KMGTP]?)B?$`)

// bytesOf is a size in bytes; 0: it is not known before the disk is.
func bytesOf(size string) int64 {
	m := sizeForm.FindStringSubmatch(strings.ToUpper(strings.Replace(size, "i", "", 1)))
	if m == nil {
		return 0
	}
	n, _ := strconv.ParseFloat(m[1], 64) // digits
	return int64(n * float64(int64(1)<<(10*strings.Index(" KMGTP", cmp.Or(m[2], " ")))))
}

// bus is what a disk's link says of the way that it is attached; empty: nothing.
func bus(disk string) string {
	kind, _, _ := strings.Cut(path.Base(disk), "-")
	return map[string]string{"ata": "SATA", "nvme": "NVMe", "usb": "USB", "virtio": "virtio"}[kind]
}

// arrays judges the arrays of Subiquity's actions.
func (r *report) arrays(config *yaml.Node) {
	byID, on := map[string]*yaml.Node{}, map[string]*yaml.Node{} // on: what has this device below it
	for _, a := range items(config) {
		if id := get(a, "id"); id != nil {
			byID[id.Value] = a
		}
		for _, key := range []string{"volume", "device"} {
			if v := get(a, key); v != nil && !is(get(a, "type"), "partition") {
				on[v.Value] = a
			}
		}
	}
	for _, a := range items(config) {
		level := get(a, "raidlevel")
		if level == nil || !is(get(a, "type"), "raid") {
			continue
		}
		var members []member
		for _, d := range items(get(a, "devices")) {
			m, part := member{at: pos(d)}, byID[d.Value]
			if disk := get(part, "device"); disk != nil {
				m.disk = disk.Value
			}
			if size := get(part, "size"); size != nil {
				m.size = size.Value
			}
			members = append(members, m)
		}
		r.array(pos(a), level.Value, members)
		id := get(a, "id")
		if id == nil || on[id.Value] == nil {
			continue
		}
		format := get(on[id.Value], "id")
		if format != nil && is(get(on[format.Value], "path"), "/boot/efi") {
			metadata := "1.2" // mdadm's own
			if v := get(a, "metadata"); v != nil {
				metadata = v.Value
			}
			r.espArray(pos(a), level.Value, metadata)
		}
	}
}

// kickstartArrays judges what raid makes of part.
func (r *report) kickstartArrays(commands []command) {
	parts := map[string]member{}
	for _, c := range commands {
		words := c.plain()
		if (c.name != "part" && c.name != "partition") || len(words) == 0 || !strings.HasPrefix(words[0].text, "raid.") {
			continue
		}
		m := member{at: c.at}
		for _, name := range []string{"--ondisk", "--ondrive"} {
			if w, ok := c.option(name); ok {
				m.disk = w.text
			}
		}
		if w, ok := c.option("--size"); ok && !c.has("--grow") {
			m.size = w.text + " MiB"
		}
		parts[words[0].text] = m
	}
	for _, c := range commands {
		level, ok := c.option("--level")
		words := c.plain()
		if c.name != "raid" || !ok || len(words) == 0 {
			continue
		}
		var members []member
		for _, w := range words[1:] {
			m := parts[w.text]
			m.at = w.at
			members = append(members, m)
		}
		r.array(c.at, level.text, members)
		if words[0].text == "/boot/efi" {
			r.espArray(c.at, level.text, "")
		}
	}
}

// partitionOf are names of partitions: 1 is the disk.
var partitionOf = regexp.MustCompile(`^(/dev/(?:sd|vd|hd|xvd)[a-z]+)[0-9]+$|^(/dev/(?:nvme[0-9]+n|mmcblk)[0-9]+)p[0-9]+$|^(/dev/disk/.+)-part[0-9]+$`)

// wholeDisk is the disk of a partition, or what is named itself.
func wholeDisk(name string) string {
	if m := partitionOf.FindStringSubmatch(name); m != nil {
		return m[1] + m[2] + m[3]
	}
	return name
}

// preseedArrays judges a recipe of partman-auto-raid: TYPE COUNT SPARES FSTYPE MOUNT DEVICE#DEVICE . for
// each array.
func (r *report) preseedArrays(recipe answer) {
	for _, array := range strings.Split(recipe.value+" ", " . ") {
		f := strings.Fields(array)
		if len(f) < 6 || !strings.HasPrefix(f[len(f)-1], "/dev/") { // a hook puts its disks in
			continue
		}
		var members []member
		for _, d := range strings.Split(f[len(f)-1], "#") {
			members = append(members, member{at: recipe.valueAt, disk: wholeDisk(d)})
		}
		r.array(recipe.valueAt, f[0], members)
		if f[4] == "/boot/efi" {
			r.add("raid-boot", recipe.valueAt, "/boot/efi lies on an array that the Debian installer makes, with metadata where firmware looks for a file system")
		}
	}
}

// autoyastArrays judges drives of type CT_MD, which name themselves in the partitions that they take.
func (r *report) autoyastArrays(part *element) {
	members := map[string][]member{}
	for _, d := range part.list() {
		for _, p := range d.child("partitions").list() {
			name := p.child("raid_name")
			if name == nil {
				continue
			}
			m := member{at: p.at}
			if dev := d.child("device"); dev != nil {
				m.disk = dev.text
			}
			if size := p.child("size"); size != nil {
				m.size = size.text
			}
			members[name.text] = append(members[name.text], m)
		}
	}
	for _, d := range part.list() {
		dev, level := d.child("device"), d.find("raid_options", "raid_type")
		if kind := d.child("type"); kind == nil || kind.text != "CT_MD" || dev == nil || level == nil {
			continue
		}
		if of := members[dev.text]; len(of) > 0 || len(members) == 0 {
			r.array(d.at, level.text, of)
		} else {
			r.add("raid-members", dev.textAt, "no partition has the raid_name %q", dev.text)
		}
		for _, p := range d.child("partitions").list() {
			if mount := p.child("mount"); mount != nil && mount.text == "/boot/efi" {
				r.espArray(p.at, level.text, "")
			}
		}
	}
}

// agamaArrays judges mdRaids, which name the aliases of partitions.
func (r *report) agamaArrays(st *yaml.Node) {
	parts := map[string]member{}
	for _, d := range items(get(st, "drives")) {
		disk := get(d, "search")
		several := disk != nil && disk.Kind == yaml.MappingNode && !is(get(disk, "max"), "1") || is(disk, "*") // its aliases stand for as many
		if n := get(disk, "condition", "name"); n != nil {
			disk = n
		}
		for _, p := range append(items(get(d, "partitions")), d) { // the drive itself can be a member
			alias := get(p, "alias")
			if alias == nil {
				continue
			}
			m := member{several: several}
			if disk != nil && disk.Kind == yaml.ScalarNode {
				m.disk = disk.Value
			}
			if size := get(p, "size"); size != nil && size.Kind == yaml.ScalarNode {
				m.size = size.Value
			}
			parts[alias.Value] = m
		}
	}
	for _, a := range items(get(st, "mdRaids")) {
		level := get(a, "level")
		if level == nil {
			continue
		}
		var members []member
		for _, d := range items(get(a, "devices")) {
			m := parts[d.Value]
			m.at = pos(d)
			members = append(members, m)
		}
		r.array(pos(a), level.Value, members)
		if is(get(a, "filesystem", "path"), "/boot/efi") {
			r.espArray(pos(a), level.Value, "")
		}
	}
}
