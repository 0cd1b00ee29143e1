package control_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bootlane/internal/bundle"
	"bootlane/internal/lane"
)

const severalYAML = `name: several
version: "1"
os: debian
release: bookworm
seed: image/1
args: quiet
architectures:
  x86_64: {kernel: linux, initrd: initrd, image: {file: disk, compression: none, rawDigest: "sha256:DISK", rawBytes: 2097152, rootPartLabel: root}}
  arm64: {kernel: linux-arm64, initrd: initrd-arm64, args: "console=ttyAMA0 a={file:notes}", image: {file: disk-arm64, compression: zstd, rawDigest: "sha256:DISK", rawBytes: 2097152, rootPartLabel: arm}}
files: {notes: }
`

// severalRig has the bundle several-1 for x86_64, whose kernel Debian signed, and arm64, and
// a machine of each: node1 and node2; node3 is of a third architecture.
func severalRig(t *testing.T) *rig {
	r := secureRig(t, [][2]string{{"shimx64.efi", signedShim}, {"grubx64.efi", signedGRUB}}, nil)
	for i, name := range []string{"shimaa64.efi", "grubaa64.efi"} {
		data, err := os.ReadFile(r.Loaders[secureUEFI][i])
		r.must(err)
		path, arm := filepath.Join(r.dir, name), lane.Platform{Arch: lane.ARM64, Firmware: lane.UEFI}
		r.must(os.WriteFile(path, data, 0o644))
		r.Loaders[arm] = append(r.Loaders[arm], path)
	}
	dir := filepath.Join(r.dir, "several")
	r.must(os.MkdirAll(dir, 0o755))
	kernel, err := os.ReadFile(installer)
	r.must(err)
	disk := make([]byte, 2<<20)
	for name, data := range map[string][]byte{"linux": kernel, "initrd": []byte("i"), "linux-arm64": []byte("k"), "initrd-arm64": []byte("i, arm64"), "disk": disk, "disk-arm64": []byte("packed"), "notes": nil} {
		r.must(os.WriteFile(filepath.Join(dir, name), data, 0o644))
	}
	yaml := strings.ReplaceAll(severalYAML, "DISK", fmt.Sprintf("%x", sha256.Sum256(disk)))
	r.must(os.WriteFile(filepath.Join(dir, bundle.ManifestName), []byte(yaml), 0o644))
	_, err = bundle.Build(t.Context(), dir)
	r.must(err)
	_, err = r.BundleImport(t.Context(), lane.BundleImport{Dir: dir, By: "op:t"})
	r.must(err)
	one, two, three := spec("node1"), other("node2"), spec("node3")
	three.Identity = lane.Identity{MACs: []lane.MAC{"52:54:00:00:00:03"}}
	two.Arch, three.Arch = lane.ARM64, lane.I386
	for _, h := range []*lane.Host{&one, &two, &three} {
		h.Bundle = "several-1"
	}
	r.enrol(one, two, three)
	return r
}

// factsOf is what the loader of a machine of severalRig says.
func (r *rig) factsOf(id lane.HostID, a lane.Arch) lane.Facts {
	i := r.host(id).Identity
	return lane.Facts{Surface: lane.SurfaceHTTP, Speaker: lane.SpeakerLoader, UUID: i.UUID, MAC: i.MACs[0], MACs: i.MACs, Serial: i.Serial, Arch: a, Firmware: lane.UEFI, Name: "script"}
}

// TestSeveralArchitectures: one bundle, and each machine is given what is its architecture's.
func TestSeveralArchitectures(t *testing.T) {
	r := severalRig(t)
	for _, c := range []struct {
		id                          lane.HostID
		arch                        lane.Arch
		kernel, initrd, image, root string
		args                        string
	}{
		{"node1", lane.X86_64, "linux", "initrd", "disk", "root", " quiet"},
		{"node2", lane.ARM64, "linux-arm64", "initrd-arm64", "disk-arm64", "arm", " console=ttyAMA0 a=http://10.0.0.1:8080/run/"},
	} {
		rendered, err := r.Render(t.Context(), c.id)
		r.must(err)
		if body := find(rendered, "http/boot/"+string(c.id)+".ipxe"); !strings.Contains(body, "/"+c.kernel+" ") || !strings.Contains(body, c.args) {
			t.Errorf("%s would be given\n%s", c.id, body)
		}
		h := r.provision(c.id, lane.Provisioning{})
		body, d, err := r.Script(t.Context(), r.factsOf(c.id, c.arch), false)
		r.must(err)
		if d.Action != lane.Install || !strings.Contains(string(body), "/"+c.kernel+" ") || !strings.Contains(string(body), "/"+c.initrd+" ") || !strings.Contains(string(body), c.args) {
			t.Errorf("%s is given, %s %s:\n%s", c.id, d.Action, d.Reason, body)
		}
		hw := lane.Hardware{UUID: h.Identity.UUID, Serial: h.Identity.Serial, Machine: string(c.arch), Firmware: "uefi", BootMAC: h.Identity.MACs[0], NICs: []lane.NIC{{Name: "eth0", MAC: h.Identity.MACs[0]}}, Disks: []lane.Disk{{Name: "vda", Serial: h.Disk.Serial, SizeBytes: 1e9}}}
		o, err := r.Order(t.Context(), h.Run.Capability, hw, installerFacts())
		r.must(err)
		if o.Image == nil || !strings.HasSuffix(o.Image.Path, "/"+c.image) || o.Image.RootLabel != c.root {
			t.Errorf("%s is ordered to write %+v", c.id, o)
		}
		chain, err := r.Chain(t.Context(), c.id)
		r.must(err)
		if l := chain.Links; len(l) != 3 || l[2].Name != c.kernel {
			t.Errorf("%s boots %+v", c.id, l)
		}
	}
}

// TestArchitectureThatIsLacking: nobody provisions it, and no machine that turns out to be of
// another architecture than its record says is given anything.
func TestArchitectureThatIsLacking(t *testing.T) {
	r := severalRig(t)
	_, err := r.Provision(t.Context(), "node3", lane.Provisioning{By: "op:t"})
	refused(t, "a third architecture", err, "arch: the machine is i386, the bundle several-1 is made for arm64, x86_64")
	if _, err := r.Chain(t.Context(), "node3"); lane.CodeOf(err) != lane.NotFound || !strings.Contains(err.Error(), "the bundle several-1 has nothing for node3, which is i386") {
		t.Errorf("its chain: %v", err)
	}
	files, err := r.Render(t.Context(), "node3")
	if err != nil || find(files, "inventory.env") == "" || find(files, "http/boot/node3.ipxe") != "" {
		t.Errorf("rendered %d files, %v", len(files), err)
	}
	h := r.provision("node1", lane.Provisioning{})
	for _, a := range []lane.Arch{lane.ARM64, lane.I386} {
		body, d, err := r.Script(t.Context(), r.factsOf("node1", a), false)
		r.must(err)
		if d.Action != lane.LocalBoot || d.Reason != lane.ArchMismatch || !strings.Contains(d.Detail, "the machine is "+string(a)+", its record says x86_64") || strings.Contains(string(body), "/linux") {
			t.Errorf("%s: %s %s, %s\n%s", a, d.Action, d.Reason, d.Detail, body)
		}
	}
	hw := hardware(lane.Disk{Name: "vda", Serial: "D1", SizeBytes: 1e9})
	hw.Machine = "aarch64"
	if o, err := r.Order(t.Context(), h.Run.Capability, hw, installerFacts()); err != nil || o.Action != lane.LocalBoot || o.Reason != lane.ArchMismatch || o.Image != nil {
		t.Errorf("%+v, %v", o, err)
	}
}

// TestSecureBootOfSeveral: a chain is proven with the kernel of the host's architecture.
func TestSecureBootOfSeveral(t *testing.T) {
	r := severalRig(t)
	one, two := r.host("node1"), r.host("node2")
	one.Boot.SecureBoot, two.Boot.SecureBoot = "both", "both"
	r.enrol(one, two)
	r.provision("node1", lane.Provisioning{})
	_, err := r.Provision(t.Context(), "node2", lane.Provisioning{By: "op:t"})
	refused(t, "a kernel that nobody signed", err, "linux-arm64, which shim checks: ")
}

func find(files []lane.Rendered, path string) string {
	for _, f := range files {
		if f.Path == path {
			return f.Body
		}
	}
	return ""
}
