package lane

import (
	"fmt"
	"slices"
	"strings"
)

// Profile is what the hardware of some machines must have. It is the site's to say, and
// stands in its configuration: roles say what installed systems get, and a bundle comes from
// elsewhere and is bound to its digest.
type Profile struct {
	Roles   []string `yaml:"roles,omitempty"`   // whose hosts must have it
	Bundles []string `yaml:"bundles,omitempty"` // names of bundles, without version, whose hosts must have it
	// Inspected refuses a host that no agent looked at; else one that was not is let through
	// until its own agent tells what it has.
	Inspected  bool       `yaml:"inspected,omitempty"`
	Arch       Arch       `yaml:"arch,omitempty"`
	Firmware   Firmware   `yaml:"firmware,omitempty"`
	SecureBoot bool       `yaml:"secureBoot,omitempty"` // it must be on
	CPUs       int        `yaml:"minCPUs,omitempty"`
	MemoryGB   float64    `yaml:"minMemoryGB,omitempty"` // of 10^9 bytes, as the kernel shows it: somewhat less than is built in
	Disks      []DiskNeed `yaml:"disks,omitempty"`
	NICs       []NICNeed  `yaml:"nics,omitempty"`
}

// DiskNeed is a number of disks of one kind. Removable and read-only disks count for none.
type DiskNeed struct {
	Count int     `yaml:"count,omitempty"` // at least; 0: one
	GB    float64 `yaml:"minGB,omitempty"` // of 10^9 bytes, each; one that has 1 % less will do
	Kind  string  `yaml:"kind,omitempty"`  // one of DiskKinds
}

// NICNeed is a number of NICs of one kind.
type NICNeed struct {
	Count  int    `yaml:"count,omitempty"`   // at least; 0: one
	Mbps   int    `yaml:"minMbps,omitempty"` // of the link: one without a carrier has no speed
	Driver string `yaml:"driver,omitempty"`  // the kernel's: ixgbe, mlx5_core
}

// DiskKinds returns what a DiskNeed can ask for.
func DiskKinds() []string { return []string{"nvme", "ssd", "hdd"} }

func (d Disk) is(kind string) bool {
	switch kind {
	case "nvme":
		return d.Transport == "nvme"
	case "ssd":
		return !d.Rotational
	case "hdd":
		return d.Rotational
	}
	return kind == ""
}

func (n DiskNeed) count() int { return max(n.Count, 1) }
func (n NICNeed) count() int  { return max(n.Count, 1) }

// String returns the need as a sentence says it.
func (n DiskNeed) String() string {
	out := fmt.Sprintf("%d disks", n.count())
	if n.Kind != "" {
		out += " of kind " + n.Kind
	}
	if n.GB > 0 {
		out += fmt.Sprintf(" of %g GB or more", n.GB)
	}
	return out
}

// String returns the need as a sentence says it.
func (n NICNeed) String() string {
	out := fmt.Sprintf("%d NICs", n.count())
	if n.Driver != "" {
		out += " with the driver " + n.Driver
	}
	if n.Mbps > 0 {
		out += fmt.Sprintf(" with a link of %d Mbit/s or more", n.Mbps)
	}
	return out
}

// Validate returns every problem of the profile. Whether there are such roles is not looked at.
func (p Profile) Validate() (out []Problem) {
	bad := func(field, format string, args ...any) {
		out = append(out, Problem{field, fmt.Sprintf(format, args...)})
	}
	if len(p.Roles) == 0 && len(p.Bundles) == 0 {
		bad("roles", "names nobody: say by `roles` or `bundles` whose hosts must have it")
	}
	for i, b := range p.Bundles {
		if !bundleRef.MatchString(b) {
			bad(fmt.Sprintf("bundles[%d]", i), "%q is not a bundle's name", b)
		}
	}
	if a, err := ParseArch(string(p.Arch)); p.Arch != "" && (err != nil || a != p.Arch) {
		bad("arch", "%q: use %s, %s or %s", p.Arch, X86_64, ARM64, I386)
	}
	if p.Firmware != "" && p.Firmware != BIOS && p.Firmware != UEFI {
		bad("firmware", "%q: use %s or %s", p.Firmware, UEFI, BIOS)
	}
	if p.SecureBoot && p.Firmware == BIOS {
		bad("secureBoot", "needs firmware: %s", UEFI)
	}
	if p.CPUs < 0 || p.CPUs > 1<<20 {
		bad("minCPUs", "%d is no number of CPUs", p.CPUs)
	}
	if !(p.MemoryGB >= 0 && p.MemoryGB < 1e9) { // YAML can say .nan and .inf
		bad("minMemoryGB", "%g is not a size in GB", p.MemoryGB)
	}
	for i, n := range p.Disks {
		at := fmt.Sprintf("disks[%d].", i)
		if n.Count < 0 || n.Count > 1024 {
			bad(at+"count", "%d: from 1 to 1024", n.Count)
		}
		if !(n.GB >= 0 && n.GB < 1e9) {
			bad(at+"minGB", "%g is not a size in GB", n.GB)
		}
		if n.Kind != "" && !slices.Contains(DiskKinds(), n.Kind) {
			bad(at+"kind", "%q: use %s", n.Kind, strings.Join(DiskKinds(), ", "))
		}
	}
	for i, n := range p.NICs {
		at := fmt.Sprintf("nics[%d].", i)
		if n.Count < 0 || n.Count > 256 {
			bad(at+"count", "%d: from 1 to 256", n.Count)
		}
		if n.Mbps < 0 {
			bad(at+"minMbps", "%d is not a speed in Mbit/s", n.Mbps)
		}
		if n.Driver != Clean(n.Driver, 60) {
			bad(at+"driver", "%q is not a driver's name", n.Driver)
		}
	}
	return out
}

// Requires reports whether a host of the role, or one that gets a bundle of the name, must have it.
func (p Profile) Requires(role, bundle string) bool {
	return role != "" && slices.Contains(p.Roles, role) || bundle != "" && slices.Contains(p.Bundles, bundle)
}

// Lacks returns everything that the hardware has otherwise, both sides of each.
func (p Profile) Lacks(hw Hardware) (out []string) {
	lack := func(want, has string, args ...any) {
		out = append(out, "it must have "+want+", and has "+fmt.Sprintf(has, args...))
	}
	if a, err := ParseArch(hw.Machine); p.Arch != "" && (err != nil || a != p.Arch) {
		lack("the architecture "+string(p.Arch), "%s", orDash(Clean(hw.Machine, 40)))
	}
	if p.Firmware != "" && hw.Firmware != string(p.Firmware) {
		lack("the firmware "+string(p.Firmware), "%s", orDash(Clean(hw.Firmware, 40)))
	}
	if p.SecureBoot && !hw.SecureBoot {
		lack("Secure Boot on", "it off")
	}
	if hw.CPUs < p.CPUs {
		lack(fmt.Sprintf("%d CPUs", p.CPUs), "%d", hw.CPUs)
	}
	if float64(hw.MemoryBytes) < p.MemoryGB*1e9 {
		lack(fmt.Sprintf("%g GB of memory", p.MemoryGB), "%.1f GB", float64(hw.MemoryBytes)/1e9)
	}
	for _, n := range p.Disks {
		fit := 0
		for _, d := range hw.Disks {
			if !d.Removable && !d.ReadOnly && d.is(n.Kind) && float64(d.SizeBytes) >= n.GB*1e9*0.99 {
				fit++
			}
		}
		if fit < n.count() {
			lack(n.String(), "%d; seen: %s", fit, describe(hw.Disks))
		}
	}
	for _, n := range p.NICs {
		fit, seen := 0, []string{}
		for _, k := range hw.NICs {
			seen = append(seen, fmt.Sprintf("%s (%s, %d Mbit/s)", Clean(k.Name, 32), orDash(Clean(k.Driver, 40)), k.Mbps))
			if (n.Driver == "" || k.Driver == n.Driver) && k.Mbps >= n.Mbps {
				fit++
			}
		}
		if fit < n.count() {
			lack(n.String(), "%d; seen: %s", fit, orDash(strings.Join(seen, ", ")))
		}
	}
	return out
}
