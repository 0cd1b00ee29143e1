package seed

import (
	"fmt"
	"slices"
	"strings"

	"bootlane/internal/lane"
)

// Volumes are the file systems of the disk. The last one takes the rest.
func (v view) Volumes() []lane.Volume {
	out, _ := lane.Volumes(v.Site.Volumes) // it was checked
	return out
}

// LVM reports whether the file systems are logical volumes.
func (v view) LVM() bool {
	if v.Encrypted() { // one container has them all
		return true
	}
	if v.Site.Layout == "" { // what these two wrote before anybody was asked
		return v.Bundle.Seed == lane.SeedPreseed || v.Bundle.Seed == lane.SeedNoCloud
	}
	return v.Site.Layout == lane.LayoutLVM
}

// Group is the name of the volume group. It is the run's: an old one on another disk is not in the way.
func (v view) Group() string { return "vg-" + string(v.Host.Run.ID) }

// MountOrder are the same, each behind what it is mounted in.
func (v view) MountOrder() []lane.Volume {
	return slices.SortedFunc(slices.Values(v.Volumes()), func(a, b lane.Volume) int { return strings.Compare(a.Mount, b.Mount) })
}

// diskView is one of the disks of a mirror, or the only one.
type diskView struct {
	view
	Marker string // how the document names it
	Starts bool   // it has the EFI system partition that is mounted
}

func diskOf(v view, marker string, starts bool) diskView { return diskView{v, marker, starts} }

// Number is 0 or 1, of a mirror's disks.
func (d diskView) Number() string {
	if d.Starts {
		return "0"
	}
	return "1"
}

// arrayView is an array over both disks. One without a mount has the volume group.
type arrayView struct {
	view
	Name, Mount string
}

func arrayOf(v view, name, mount string) arrayView { return arrayView{v, name, mount} }

// Mounts are the file systems that were asked for.
func (v view) Mounts() (out []string) {
	for _, o := range v.MountOrder() {
		out = append(out, o.Mount)
	}
	return out
}

// megabytes is a size as partman counts, in 10^6 bytes, and not less than was asked for.
func megabytes(gib int) int { return (gib<<30 + 999_999) / 1_000_000 }

// overhead is what /boot, the firmware's partitions and the smallest rest take, in GiB.
const overhead = 8

// checkLayout refuses what the disk, or an image, has no place for.
func (in Input) checkLayout() (out []string) {
	if mirrors := []string{lane.SeedPreseed, lane.SeedNoCloud, lane.SeedKickstart, lane.SeedAutoYaST, lane.SeedAgama}; !in.Host.Run.Mirror.IsZero() && !slices.Contains(mirrors, in.Bundle.Seed) { // an image is of one disk
		out = append(out, fmt.Sprintf("mirror: a bundle of %s is installed on one disk: leave the mirror out of the record, or use a bundle of %s", in.Bundle.Seed, strings.Join(mirrors, ", ")))
	}
	if in.Bundle.Seed == lane.SeedImage || in.Bundle.Seed == lane.SeedIgnition || in.Bundle.Seed == lane.SeedTalos {
		if in.Site.Layout != "" {
			out = append(out, in.path("layout")+": an image is written as it is: lay it out when it is built, and say `layout: \"\"` for this host or its role")
		}
		if len(in.Site.Volumes) > 0 {
			out = append(out, in.path("volumes")+": an image is written as it is: lay it out when it is built, and say `volumes: []` for this host or its role")
		}
		return out
	}
	volumes, problems := lane.Volumes(in.Site.Volumes)
	if disk := in.Host.Run.Disk.SizeGB; len(problems) == 0 && disk > 0 {
		if has, need := int(disk*1e9)>>30, lane.SizeOf(volumes)+overhead; need > has && len(in.Site.Volumes) > 0 {
			out = append(out, fmt.Sprintf("%s: they need %d GiB with what boots them, and the disk has %d: make them smaller", in.path("volumes"), need, has))
		}
	}
	return out
}
