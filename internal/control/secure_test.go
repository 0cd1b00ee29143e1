package control_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bootlane/internal/bundle"
	"bootlane/internal/control"
	"bootlane/internal/lane"
)

// Debian's signed loaders, an unsigned one, and a signed kernel.
const (
	signedShim = "/usr/lib/shim/shimx64.efi.signed"
	signedGRUB = "/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"
	unsigned   = "/usr/lib/ipxe/snponly.efi"
	installer  = "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/linux"
)

var secureUEFI = lane.Platform{Arch: lane.X86_64, Firmware: lane.UEFI}

// secureRig has loaders, by the names that they are served under, and a bundle with
// a kernel that Debian signed.
func secureRig(t *testing.T, loaders [][2]string, change func(*control.Config)) *rig {
	t.Helper()
	r := newRig(t)
	dir := filepath.Join(r.dir, "loaders")
	r.must(os.MkdirAll(dir, 0o755))
	cfg := r.Config
	cfg.Loaders = map[lane.Platform][]string{}
	for _, l := range loaders {
		data, err := os.ReadFile(l[1])
		r.must(err)
		if l[0] == "tampered" {
			l[0] = "grubx64.efi"
			data[len(data)/2] ^= 1
		}
		path := filepath.Join(dir, l[0])
		r.must(os.WriteFile(path, data, 0o644))
		cfg.Loaders[secureUEFI] = append(cfg.Loaders[secureUEFI], path)
	}
	if change != nil {
		change(&cfg)
	}
	r.Control = control.New(cfg)
	r.importSigned(nil)
	return r
}

// importSigned imports the bundle signed-1, with loaders of its own if there are any.
func (r *rig) importSigned(l *bundle.Loader) {
	r.t.Helper()
	dir := filepath.Join(r.dir, "signed")
	r.must(os.MkdirAll(dir, 0o755))
	m := bundle.Manifest{Name: "signed", Version: "1", OS: "debian", Release: "bookworm", Arch: "x86_64", Seed: lane.SeedNoCloud, BundleVariant: lane.BundleVariant{Kernel: "linux", Initrd: "initrd"}}
	copies := map[string]string{"linux": installer}
	if l != nil {
		m.Version, m.Loaders = "2", map[string]bundle.Loader{"x86_64-uefi": *l}
		copies["own-shim.efi"], copies["grubx64.efi"] = signedShim, signedGRUB
	}
	for to, from := range copies {
		data, err := os.ReadFile(from)
		r.must(err)
		r.must(os.WriteFile(filepath.Join(dir, to), data, 0o644))
	}
	r.must(os.WriteFile(filepath.Join(dir, "initrd"), []byte("initrd"), 0o644))
	r.must(bundle.WriteManifest(dir, m))
	_, err := bundle.Build(r.t.Context(), dir)
	r.must(err)
	_, err = r.BundleImport(r.t.Context(), lane.BundleImport{Dir: dir, By: "op:t"})
	r.must(err)
}

func secured(firmware, loader string) lane.Host {
	h := spec("node1")
	h.Bundle, h.Boot = "signed-1", lane.BootOptions{SecureBoot: firmware, Loader: loader}
	return h
}

// TestSecureBootPreflight: a chain that firmware would refuse is refused before it is tried.
func TestSecureBootPreflight(t *testing.T) {
	shim, grub, ipxe := [2]string{"shimx64.efi", signedShim}, [2]string{"grubx64.efi", signedGRUB}, [2]string{"snponly.efi", unsigned}
	for _, c := range []struct {
		name     string
		loaders  [][2]string
		firmware string
		loader   string
		says     string // of the refusal; empty: provisioned
	}{
		{"shim, GRUB and kernel of one vendor", [][2]string{shim, grub}, "both", "", ""},
		{"by each of Microsoft's authorities", [][2]string{shim, grub}, "microsoft-2023", "", ""},
		{"nothing is known of the firmware", [][2]string{ipxe}, "", "", ""},
		{"an unsigned loader", [][2]string{ipxe, shim, grub}, "both", "", "snponly.efi, which firmware checks: "},
		{"the host asks for an unsigned loader", [][2]string{shim, grub, ipxe}, "both", "snponly.efi", "snponly.efi, which firmware checks: "},
		{"the host asks for the signed one", [][2]string{ipxe, shim, grub}, "both", "shimx64.efi", ""},
		{"a GRUB of other bytes", [][2]string{shim, {"tampered", signedGRUB}}, "both", "", "grubx64.efi, which shim checks: "},
		{"SB-03 shim and loader of different vendors", [][2]string{shim, {"grubx64.efi", unsigned}}, "both", "", "grubx64.efi, which shim checks: "},
		{"a shim with nothing beside it", [][2]string{shim}, "both", "", "add grubx64.efi to `loaders`"},
		{"SB-06 iPXE's shim asks for its iPXE", [][2]string{{"snponly-shimx64.efi", signedShim}, ipxe, grub}, "both", "", "snponly.efi, which shim checks: "},
		{"the site's keys, and none are named", [][2]string{shim, grub}, "site", "", "secureBoot.firmware"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := secureRig(t, c.loaders, nil)
			r.enrol(secured(c.firmware, c.loader))
			_, err := r.Provision(t.Context(), "node1", lane.Provisioning{By: "op:t"})
			if c.says == "" {
				r.must(err)
				return
			}
			if lane.CodeOf(err) != lane.Refused || !strings.Contains(err.Error(), c.says) {
				t.Errorf("not refused for %q: %v", c.says, err)
			}
		})
	}
}

// TestMinimumSBAT: a bundle may want more of its loaders than shim does.
func TestMinimumSBAT(t *testing.T) {
	for least, says := range map[int]string{1: "", 900: "grubx64.efi is below the minimumSBAT of least-1: "} {
		r := secureRig(t, [][2]string{{"shimx64.efi", signedShim}, {"grubx64.efi", signedGRUB}}, nil)
		dir := filepath.Join(r.dir, "signed")
		m, err := bundle.ReadManifest(dir)
		r.must(err)
		r.must(os.RemoveAll(filepath.Join(dir, bundle.CanonicalName)))
		r.must(bundle.WriteManifest(dir, bundle.Manifest{Name: "least", Version: "1", OS: m.OS, Release: m.Release, Arch: string(m.Arch), Seed: m.Seed, BundleVariant: m.BundleVariant,
			MinimumSBAT: map[string]int{"grub": least}}))
		_, err = bundle.Build(t.Context(), dir)
		r.must(err)
		_, err = r.BundleImport(t.Context(), lane.BundleImport{Dir: dir, By: "op:t"})
		r.must(err)
		h := secured("both", "")
		h.Bundle = "least-1"
		r.enrol(h)
		_, err = r.Provision(t.Context(), "node1", lane.Provisioning{By: "op:t"})
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("grub %d: %v", least, err)
		}
	}
}

// TestGRUBBehindProxy: by PXE GRUB takes whoever gave the address for its boot server.
func TestGRUBBehindProxy(t *testing.T) {
	loaders := [][2]string{{"shimx64.efi", signedShim}, {"grubx64.efi", signedGRUB}}
	for proxy, says := range map[bool]string{false: "", true: "`mode: proxy`"} {
		r := secureRig(t, loaders, func(cfg *control.Config) {
			cfg.Networks = []control.Network{{Subnet: lane.Subnet{Prefix: netip.MustParsePrefix("10.0.0.0/24"), Server: netip.MustParseAddr("10.0.0.1")}, Proxy: proxy}}
		})
		r.enrol(secured("", ""))
		_, err := r.Provision(t.Context(), "node1", lane.Provisioning{By: "op:t"})
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("proxy %v: %v", proxy, err)
		}
	}
}

// TestHTTPBoot has firmware ask by HTTP for a chain that leads to GRUB.
func TestHTTPBoot(t *testing.T) {
	shim, grub, ipxe := [2]string{"shimx64.efi", signedShim}, [2]string{"grubx64.efi", signedGRUB}, [2]string{"snponly.efi", unsigned}
	for _, c := range []struct {
		name    string
		loaders [][2]string
		able    bool
		http    bool
		want    lane.Action
		reason  lane.Reason
	}{
		{"SB-07 Debian's GRUB by HTTP Boot", [][2]string{shim, grub}, false, true, lane.LocalBoot, lane.LoaderByTFTP},
		{"the same by PXE", [][2]string{shim, grub}, false, false, lane.Install, lane.Granted},
		{"a GRUB that can", [][2]string{shim, grub}, true, true, lane.Install, lane.Granted},
		{"iPXE by HTTP Boot", [][2]string{ipxe}, false, true, lane.Install, lane.Granted},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := secureRig(t, c.loaders, func(cfg *control.Config) { cfg.GRUBByHTTP = c.able })
			r.enrol(secured("", ""))
			r.provision("node1", lane.Provisioning{})
			d, err := r.Ask(t.Context(), lane.Facts{Surface: lane.SurfaceDHCP, Speaker: lane.SpeakerROM, MAC: mac1, Arch: lane.X86_64, Firmware: lane.UEFI, HTTPBoot: c.http})
			r.must(err)
			if d.Action != c.want || d.Reason != c.reason {
				t.Errorf("%s, %s: %s", d.Action, d.Reason, d.Detail)
			}
		})
	}
}

// TestBundleChain: a bundle's own loaders are served in place of the site's, each stage by
// the name that the one before asks for, and nothing else.
func TestBundleChain(t *testing.T) {
	r := secureRig(t, [][2]string{{"snponly.efi", unsigned}}, nil)
	r.importSigned(&bundle.Loader{First: "own-shim.efi", Second: "grubx64.efi"})
	h := secured("both", "")
	h.Bundle = "signed-2"
	r.enrol(h)
	r.provision("node1", lane.Provisioning{})
	for name, want := range map[string]string{"snponly.efi": signedShim, "own-shim.efi": signedShim, "grubx64.efi": signedGRUB, "mmx64.efi": "", "revocations.efi": ""} {
		got, err := r.fetch(lane.BootPath{MAC: mac1, Platform: secureUEFI, File: name}, lane.SurfaceTFTP)
		if want == "" {
			if lane.CodeOf(err) != lane.NotFound {
				t.Errorf("SB-01 %s: %v", name, err)
			}
			continue
		}
		data, failed := os.ReadFile(want)
		r.must(failed)
		if err != nil || got != string(data) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if e := r.last("node1", lane.KindRefused); !strings.HasSuffix(e.Name, "/mmx64.efi") {
		t.Errorf("the refusal that counts is not the last one on record: %+v", e)
	}
	t.Run("SB-01 what shim does without", func(t *testing.T) {
		_, err := r.fetch(lane.BootPath{MAC: mac1, Platform: secureUEFI, File: "shim_certificate_0.efi"}, lane.SurfaceTFTP)
		if e := r.last("node1", lane.KindRefused); lane.CodeOf(err) != lane.NotFound || strings.Contains(e.Name, "shim_certificate") {
			t.Errorf("%v, and on record: %+v", err, e)
		}
	})
}

// TestChain: what was served is told beside what is proven, and what differs stands out.
func TestChain(t *testing.T) {
	r := secureRig(t, [][2]string{{"shimx64.efi", signedShim}, {"grubx64.efi", signedGRUB}}, nil)
	r.enrol(secured("both", ""))
	r.provision("node1", lane.Provisioning{})
	for _, name := range []string{"shimx64.efi", "grubx64.efi"} {
		_, err := r.fetch(lane.BootPath{MAC: mac1, Platform: secureUEFI, File: name}, lane.SurfaceTFTP)
		r.must(err)
	}
	ch, err := r.Chain(t.Context(), "node1")
	r.must(err)
	if len(ch.Links) != 3 || ch.Firmware != "both" {
		t.Fatalf("%+v", ch)
	}
	for i, served := range []int{1, 1, 0} {
		if l := ch.Links[i]; !l.Proven || l.Differs() || len(l.Fetched) != served || len(l.Digest) != len("sha256:")+64 {
			t.Errorf("link %d: %+v", i, l)
		}
	}
	// The site puts another GRUB in its place: what was served is no longer what is proven.
	r.must(os.WriteFile(r.Loaders[secureUEFI][1], []byte("another"), 0o644))
	ch, err = r.Chain(t.Context(), "node1")
	r.must(err)
	if l := ch.Links[1]; l.Proven || !l.Differs() || len(l.Broken) == 0 {
		t.Errorf("changed GRUB: %+v", l)
	}
	if ch.Links[0].Differs() {
		t.Errorf("the same shim: %+v", ch.Links[0])
	}
}
