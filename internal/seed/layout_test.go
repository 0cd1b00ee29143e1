package seed

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"bootlane/internal/lane"
)

// laid is a host with the layout that its installer does not choose by itself, and volumes. An
// image has its own.
func laid(seed string) Input {
	in := full(seed)
	switch seed {
	case lane.SeedImage, lane.SeedIgnition, lane.SeedTalos:
		return in
	case lane.SeedPreseed, lane.SeedNoCloud:
		in.Site.Layout = lane.LayoutPlain
	default:
		in.Site.Layout = lane.LayoutLVM
	}
	in.Site.Volumes = []string{"/var/log=20G", "/var=rest", "/=40G"}
	return in
}

// other is the same with the other layout.
func other(seed string) Input {
	in := laid(seed)
	in.Site.Layout = map[string]string{lane.LayoutPlain: lane.LayoutLVM, lane.LayoutLVM: lane.LayoutPlain}[in.Site.Layout]
	return in
}

// TestPreseedLayout: what takes the rest is last, sizes are what was asked for or a little more, and only
// logical volumes have names.
func TestPreseedLayout(t *testing.T) {
	for layout, in := range map[string]Input{lane.LayoutPlain: laid(lane.SeedPreseed), lane.LayoutLVM: other(lane.SeedPreseed)} {
		m := newMachine(t)
		m.expect(document(t, in, "partman.sh"), true, "installer 1 ok")
		got := m.read("tmp/bootlane-recipe")
		i := strings.Index(got, "mountpoint{ /boot } .\n")
		want := ""
		for _, v := range []struct{ size, mount, name string }{{"21475 21475 21475", "/var/log", "var_log"}, {"42950 42950 42950", "/", "root"}, {"4096 10000 -1", "/var", "var"}} {
			lvm, name := "", ""
			if layout == lane.LayoutLVM {
				lvm, name = "$lvmok{ } ", "lv_name{ "+v.name+" } "
			}
			want += fmt.Sprintf("%s ext4\n\t%smethod{ format } format{ } use_filesystem{ } filesystem{ ext4 } mountpoint{ %s } %s.\n", v.size, lvm, v.mount, name)
		}
		if diff := cmp.Diff(want, got[i+len("mountpoint{ /boot } .\n"):]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", layout, diff)
		}
		method := map[string]string{lane.LayoutPlain: "regular", lane.LayoutLVM: "lvm"}[layout]
		if cfg := document(t, in, "preseed.cfg"); !strings.Contains(cfg, "d-i partman-auto/method string "+method+"\n") || strings.Contains(cfg, "new_vg_name") != (method == "lvm") {
			t.Errorf("%s:\n%s", layout, cfg)
		}
	}
}

// TestKickstartLayout: what the gate tells Anaconda.
func TestKickstartLayout(t *testing.T) {
	for layout, c := range map[string]struct {
		in   Input
		want string
	}{
		lane.LayoutLVM: {laid(lane.SeedKickstart), "part pv.01 --size=4096 --grow --ondisk=sda\nvolgroup vg-r-abc123 pv.01\nlogvol /var/log --vgname=vg-r-abc123 --name=var_log --fstype=xfs --size=20480\n" +
			"logvol / --vgname=vg-r-abc123 --name=root --fstype=xfs --size=40960\nlogvol /var --vgname=vg-r-abc123 --name=var --fstype=xfs --size=4096 --grow\n"},
		lane.LayoutPlain: {other(lane.SeedKickstart), "part /var/log --fstype=xfs --size=20480 --ondisk=sda\npart / --fstype=xfs --size=40960 --ondisk=sda\npart /var --fstype=xfs --size=4096 --grow --ondisk=sda\n"},
	} {
		m := machineFor(t, lane.SeedKickstart)
		m.expect(document(t, c.in, "gate.sh"), true, "kernel 1 ok", "installer 1 ok")
		_, got, _ := strings.Cut(m.read("tmp/bootlane-disk"), "part /boot --fstype=xfs --size=1024 --ondisk=sda\n")
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", layout, diff)
		}
	}
}

// TestNoCloudLayout: what takes the rest is the last of its disk or group, and nothing is mounted before what it
// is mounted in.
func TestNoCloudLayout(t *testing.T) {
	for layout, in := range map[string]Input{lane.LayoutPlain: laid(lane.SeedNoCloud), lane.LayoutLVM: other(lane.SeedNoCloud)} {
		var doc struct {
			Autoinstall struct {
				Storage struct {
					Config []struct {
						Type, ID, Device, Volgroup, Path string
						Size                             any
					}
				}
			}
		}
		if err := yaml.Unmarshal([]byte(document(t, in, "user-data")), &doc); err != nil {
			t.Fatal(err)
		}
		var mounts, sizes []string
		for _, c := range doc.Autoinstall.Storage.Config {
			switch c.Type {
			case "mount":
				mounts = append(mounts, c.Path)
			case "partition", "lvm_partition":
				sizes = append(sizes, fmt.Sprintf("%s%s/%s=%v", c.Device, c.Volgroup, c.ID, c.Size))
			}
		}
		want := "disk0/grub=1M disk0/esp=1G disk0/boot=2G disk0/var_log=20G disk0/root=40G disk0/var=-1"
		if layout == lane.LayoutLVM {
			want = "disk0/grub=1M disk0/esp=1G disk0/boot=2G disk0/pv=-1 vg/var_log=20G vg/root=40G vg/var=-1"
		}
		if got := strings.Join(sizes, " "); got != want || !slices.Equal(mounts, []string{"/", "/var", "/var/log", "/boot", "/boot/efi"}) {
			t.Errorf("%s: %s, want %s; mounts %v", layout, got, want, mounts)
		}
	}
}

// TestAutoYaSTLayout: one disk, and a group on it where there is to be one.
func TestAutoYaSTLayout(t *testing.T) {
	for layout, in := range map[string]Input{lane.LayoutPlain: other(lane.SeedAutoYaST), lane.LayoutLVM: laid(lane.SeedAutoYaST)} {
		m := machineFor(t, lane.SeedAutoYaST)
		m.write("tmp/profile/autoinst.xml", document(t, in, "autoinst.xml"))
		m.expect(document(t, in, "gate.sh"), true, "kernel 1 ok", "installer 1 ok")
		text := m.read("tmp/profile/modified.xml")
		p := autoyast(t, text)
		group := map[string]string{lane.LayoutPlain: "", lane.LayoutLVM: "/dev/vg-r-abc123: 20G 40G max /var/log / /var"}[layout]
		disk := map[string]string{lane.LayoutPlain: "/dev/sda: 600M 20G 40G max /boot/efi /var/log / /var", lane.LayoutLVM: "/dev/sda: 600M max /boot/efi"}[layout]
		got := []string{"", ""}
		for n, d := range p.Drives {
			got[n] = d.Device + ": " + strings.Join(append(d.Partitions, d.Mounts...), " ")
		}
		if got[0] != disk || got[1] != group || strings.Contains(text, "<lvm_group>vg-r-abc123</lvm_group>") != (group != "") || strings.Contains(text, "<lv_name>var_log</lv_name>") != (group != "") {
			t.Errorf("%s: %q\n%s", layout, got, text)
		}
	}
}

// TestAgamaLayout: a group is on the one partition of the one drive.
func TestAgamaLayout(t *testing.T) {
	type volume struct {
		Name, Alias, ID string
		Filesystem      struct{ Path string }
		Size            any
		Delete          bool
	}
	for layout, in := range map[string]Input{lane.LayoutPlain: other(lane.SeedAgama), lane.LayoutLVM: laid(lane.SeedAgama)} {
		var doc struct {
			Storage struct {
				Drives       []struct{ Partitions []volume }
				VolumeGroups []struct {
					Name            string
					PhysicalVolumes []string
					LogicalVolumes  []volume
				}
			}
		}
		if err := json.Unmarshal([]byte(document(t, in, "profile.json")), &doc); err != nil {
			t.Fatal(err)
		}
		volumes := doc.Storage.Drives[0].Partitions[1:]
		if layout == lane.LayoutLVM {
			g := doc.Storage.VolumeGroups
			if len(g) != 1 || g[0].Name != "vg-r-abc123" || !slices.Equal(g[0].PhysicalVolumes, []string{"pv"}) || len(volumes) != 1 || volumes[0].Alias != "pv" || volumes[0].ID != "lvm" {
				t.Fatalf("%+v", doc)
			}
			volumes = g[0].LogicalVolumes
		}
		var got []string
		for _, v := range volumes {
			got = append(got, fmt.Sprint(v.Name, v.Filesystem.Path, " ", v.Size))
		}
		want := map[string][]string{lane.LayoutPlain: {"/var/log 20 GiB", "/ 40 GiB", "/var map[min:4 GiB]"}, lane.LayoutLVM: {"var_log/var/log 20 GiB", "root/ 40 GiB", "var/var map[min:4 GiB]"}}[layout]
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", layout, diff)
		}
	}
}

func TestLayoutRefused(t *testing.T) {
	for _, c := range []struct {
		seed string
		role lane.InstallOptions
		want string
	}{
		{lane.SeedImage, lane.InstallOptions{Layout: new(lane.LayoutLVM)}, "roles.storage.layout: an image is written as it is"},
		{lane.SeedImage, lane.InstallOptions{Volumes: []string{"/var=9G"}}, "roles.storage.volumes: an image is written as it is"},
		{lane.SeedKickstart, lane.InstallOptions{Volumes: []string{"/var=440G"}}, "roles.storage.volumes: they need 448 GiB with what boots them, and the disk has 447"},
		{lane.SeedKickstart, lane.InstallOptions{Volumes: []string{"/var=439G"}}, ""},
		{lane.SeedIgnition, lane.InstallOptions{Layout: new(lane.LayoutLVM)}, "roles.storage.layout: an image is written as it is"},
		{lane.SeedAgama, lane.InstallOptions{Volumes: []string{"/var=9G", "/etc=1G"}}, "roles.storage.volumes[1]: \"/etc\" cannot be a file system of its own"},
	} {
		in := full(c.seed)
		in.Site, in.Origins = Merge(Defaults(""), level("role storage", c.role))
		_, err := Documents(in)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

// TestVolumesCheck: first boot looks whether each is a file system of its own.
func TestVolumesCheck(t *testing.T) {
	for _, c := range []struct{ mounted, want string }{{"/ /var /var/log", lane.CheckOK}, {"/ /var", lane.CheckFailed}} {
		s := newInstalled(t)
		s.program("findmnt", fmt.Sprintf(`for last; do :; done
last=${last#%s}
case " %s " in *" $last "*) echo /dev/mapper/vg0-root ;; *) exit 1 ;; esac`, s.root, c.mounted))
		_, reports := s.boot(laid(lane.SeedKickstart))
		check := listed(t, reports[len(reports)-1])["volumes"]
		if check.Status != c.want || check.Expected != "/ /var /var/log" || c.want == lane.CheckFailed && check.Actual != "no file systems of their own: /var/log" {
			t.Errorf("%s: %#v", c.mounted, check)
		}
	}
}

// TestImageFitsDisk: an image that is larger than the record's disk is refused before a server is powered.
func TestImageFitsDisk(t *testing.T) {
	in := full(lane.SeedImage)
	in.Host.Run.Disk.SizeGB, in.Bundle.Image = 2, &lane.BundleImage{RawBytes: 2_020_000_000}
	if _, err := Documents(in); err != nil { // within the part in a hundred that a disk may have more
		t.Error(err)
	}
	in.Bundle.Image.RawBytes++
	if _, err := Documents(in); err == nil || !strings.Contains(err.Error(), "disk.sizeGB: the image is of 2.0 GB, and the disk has 2: use") {
		t.Error(err)
	}
}
