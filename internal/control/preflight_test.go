package control_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bootlane/internal/bundle"
	"bootlane/internal/lane"
)

// fleetHost is the n-th machine of a fleet.
func fleetHost(n int, bundle string) lane.Host {
	return lane.Host{ID: lane.HostID(fmt.Sprintf("rack-%05d", n)), Hostname: fmt.Sprintf("rack-%05d", n), Arch: lane.X86_64, Bundle: bundle,
		Identity: lane.Identity{UUID: lane.UUID(fmt.Sprintf("6b0f3c00-52d1-4c8e-9a77-0242%08x", n)), MACs: []lane.MAC{lane.MAC(fmt.Sprintf("52:54:00:%02x:%02x:%02x", n>>16, n>>8&255, n&255))}, Serial: fmt.Sprintf("S%05d", n)},
		Disk:     lane.DiskSelector{Serial: fmt.Sprintf("D%05d", n)}}
}

// problems returns what a preflight holds against a host.
func problems(p lane.Preflown, id lane.HostID) []lane.Problem {
	i := slices.IndexFunc(p.Hosts, func(h lane.Inspected) bool { return h.Host == id })
	if i < 0 {
		return []lane.Problem{{Field: "preflight", Message: "has not looked at " + string(id)}}
	}
	return p.Hosts[i].Problems
}

func TestPreflightOfAFleet(t *testing.T) {
	r := newRig(t)
	fine, lacking, diskless, twin := fleetHost(1, "image-1"), fleetHost(2, "no-such-1"), fleetHost(3, "image-1"), fleetHost(4, "kickstart-1")
	diskless.Disk = lane.DiskSelector{}
	retired := fleetHost(5, "image-1")
	r.enrol(fine, lacking, diskless, twin, retired)
	_, err := r.Retire(t.Context(), retired.ID, "op:t", "sold")
	r.must(err)
	p, err := r.Preflight(t.Context(), lane.Inspection{})
	r.must(err)
	if len(p.Hosts) != 4 || p.LeftOut[lane.StateRetired] != 1 {
		t.Fatalf("looked at %d hosts, left out %v", len(p.Hosts), p.LeftOut)
	}
	for id, want := range map[lane.HostID]string{fine.ID: "", twin.ID: "", lacking.ID: "bundle", diskless.ID: "disk"} {
		got := ""
		for _, x := range problems(p, id) {
			got += x.Field
		}
		if got != want {
			t.Errorf("%s: problems of %q, want %q: %v", id, got, want, problems(p, id))
		}
	}
	// Another bundle for all of them, and one host alone.
	p, err = r.Preflight(t.Context(), lane.Inspection{Hosts: []lane.HostID{lacking.ID}, Bundle: "image-1"})
	r.must(err)
	if len(p.Hosts) != 1 || len(p.Hosts[0].Problems) > 0 || p.Hosts[0].Bundle != "image-1" {
		t.Errorf("with another bundle: %+v", p)
	}
	if _, err := r.Preflight(t.Context(), lane.Inspection{Hosts: []lane.HostID{"nobody"}}); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("a host that is not there: %v", err)
	}
}

// TestPreflightLeases: an address that another machine has is refused, and not for ever.
func TestPreflightLeases(t *testing.T) {
	r := newRig(t)
	h := fleetHost(1, "image-1")
	h.Network.Address = netip.MustParseAddr("10.0.0.77")
	r.enrol(h)
	lease := func(m lane.MAC, s lane.LeaseState) []lane.Problem {
		t.Helper()
		r.must(r.store.PutLease(t.Context(), lane.Lease{MAC: m, Address: h.Network.Address, State: s, Granted: r.clock(), Expires: r.clock().Add(time.Hour)}, netip.Addr{}))
		p, err := r.Preflight(t.Context(), lane.Inspection{})
		r.must(err)
		return problems(p, h.ID)
	}
	if got := lease(h.Identity.MACs[0], lane.LeaseActive); len(got) > 0 {
		t.Errorf("its own lease: %v", got)
	}
	if got := lease("52:54:00:99:99:99", lane.LeaseReleased); len(got) > 0 {
		t.Errorf("one that was given back: %v", got)
	}
	if got := lease(h.Identity.MACs[0], lane.LeaseDeclined); len(got) != 1 || !strings.Contains(got[0].String(), "network.address: 10.0.0.77 is in use") {
		t.Errorf("its own address, which its machine found in use: %v", got)
	}
	if got := lease("52:54:00:99:99:99", lane.LeaseDeclined); len(got) != 1 || !strings.Contains(got[0].String(), "network.address: 10.0.0.77 is in use") {
		t.Errorf("a declined address: %v", got)
	}
	want := "network.address: 10.0.0.77 is leased to 52:54:00:99:99:99 until 2026-05-04 04:02:01Z"
	if got := lease("52:54:00:99:99:99", lane.LeaseActive); len(got) != 1 || !strings.HasPrefix(got[0].String(), want) {
		t.Errorf("another machine's lease: %v, want %s", got, want)
	}
	if _, err := r.Provision(t.Context(), h.ID, lane.Provisioning{By: "op:t"}); lane.CodeOf(err) != lane.Refused || !strings.Contains(err.Error(), want) {
		t.Errorf("provision: %v", err)
	}
	static := h
	static.Network = lane.Network{Interfaces: []lane.Interface{{MAC: h.Identity.MACs[0], Addresses: []string{"10.0.0.77/24"}, Nameservers: []string{"10.0.0.53"}}}}
	r.enrol(static)
	if got := lease("52:54:00:99:99:99", lane.LeaseActive); len(got) != 1 || !strings.HasPrefix(got[0].String(), "network.interfaces[0].addresses[0]: 10.0.0.77 is leased to") {
		t.Errorf("an address that the installed system is given: %v", got)
	}
	r.pass(time.Hour)
	if p, err := r.Preflight(t.Context(), lane.Inspection{}); err != nil || len(problems(p, h.ID)) > 0 {
		t.Errorf("after its end: %v %v", p, err)
	}
}

// TestPreflightMirrors: each mirror is asked once for all machines, and one that fails is told of all.
func TestPreflightMirrors(t *testing.T) {
	r := newRig(t)
	var mu sync.Mutex
	var asked []string
	r.Reach = func(_ context.Context, url, proxy string) error {
		mu.Lock()
		defer mu.Unlock()
		if asked = append(asked, url+proxy); strings.Contains(url, "AppStream") {
			return errors.New("it answers 404 Not Found")
		}
		return nil
	}
	for n := range 20 {
		r.enrol(fleetHost(n, []string{"kickstart-1", "debian-preseed-1"}[n%2]))
	}
	p, err := r.Preflight(t.Context(), lane.Inspection{})
	r.must(err)
	slices.Sort(asked)
	if want := []string{"http://mirror.example/debian/AppStream/x86_64/os/repodata/repomd.xml", "http://mirror.example/debian/BaseOS/x86_64/os/repodata/repomd.xml", "http://mirror.example/debian/dists/bookworm/Release"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	for n := range 20 {
		got := problems(p, fleetHost(n, "").ID)
		if bad := n%2 == 0; bad != (len(got) == 1) || bad && !strings.Contains(got[0].String(), "bundle.mirror: http://mirror.example/debian/AppStream/x86_64/os/repodata/repomd.xml cannot be had: it answers 404") {
			t.Errorf("host %d: %v", n, got)
		}
	}
}

// TestPreflightSections: what is wrong with a bundle's own templates is told before a machine is powered, and what is right is served.
func TestPreflightSections(t *testing.T) {
	r := newRig(t)
	made := func(name, text string) {
		r.bundle(lane.SeedKickstart, func(m *bundle.Manifest) {
			m.Name, m.Sections = name, map[string]string{"packages": "own.tmpl"}
			dir := filepath.Join(r.dir, name)
			r.must(os.MkdirAll(dir, 0o755))
			r.must(os.WriteFile(filepath.Join(dir, "own.tmpl"), []byte(text), 0o644))
		})
	}
	made("sound", "# for {{.Hostname}}\ntuned\n")
	made("broken", "vim\n{{.Nothing}}\n")
	r.enrol(fleetHost(1, "sound-1"), fleetHost(2, "broken-1"))
	p, err := r.Preflight(t.Context(), lane.Inspection{})
	r.must(err)
	if got := problems(p, fleetHost(1, "").ID); len(got) > 0 {
		t.Errorf("a sound template: %v", got)
	}
	if got := problems(p, fleetHost(2, "").ID); len(got) != 1 || got[0].Field != "bundle.sections.packages" || !strings.Contains(got[0].Message, "own.tmpl:2:2: ") {
		t.Errorf("a broken one: %v", got)
	}
	files, err := r.Render(t.Context(), fleetHost(1, "").ID)
	r.must(err)
	if !slices.ContainsFunc(files, func(f lane.Rendered) bool {
		return strings.HasSuffix(f.Path, "ks.cfg") && strings.Contains(f.Body, "\n# for rack-00001\ntuned\n")
	}) {
		t.Error("the section is not in the kickstart")
	}
}

// TestPreflightUnpinned: a mirror that moves is refused, unless the site says that it may.
func TestPreflightUnpinned(t *testing.T) {
	r := newRig(t)
	r.bundle(lane.SeedKickstart, func(m *bundle.Manifest) { m.Name, m.Mirror = "moving", "http://mirror.example/pub/rocky/9" })
	r.enrol(fleetHost(1, "moving-1"))
	for _, allowed := range []bool{false, true} {
		r.Unpinned = allowed
		p, err := r.Preflight(t.Context(), lane.Inspection{})
		r.must(err)
		got := problems(p, fleetHost(1, "").ID)
		if refused := slices.ContainsFunc(got, func(p lane.Problem) bool { return strings.Contains(p.Message, "[source-unpinned]") }); refused == allowed || allowed && len(got) > 0 {
			t.Errorf("allowed %v: %v", allowed, got)
		}
	}
}

// TestPreflightDiskNames: a disk by the kernel's name is refused, unless the site says that it may be.
func TestPreflightDiskNames(t *testing.T) {
	r := newRig(t)
	h := fleetHost(1, "image-1")
	h.Disk = lane.DiskSelector{Name: "vda"}
	r.DiskNames = true
	r.enrol(h)
	for _, allowed := range []bool{false, true} {
		r.DiskNames = allowed
		p, err := r.Preflight(t.Context(), lane.Inspection{})
		r.must(err)
		got := problems(p, h.ID)
		if refused := slices.ContainsFunc(got, func(p lane.Problem) bool {
			return p.Field == "disk.name" && strings.Contains(p.Message, "policy.diskNames")
		}); refused == allowed || allowed && len(got) > 0 {
			t.Errorf("allowed %v: %v", allowed, got)
		}
	}
}

// BenchmarkPreflight is the preflight of 10,000 machines, by their bundle's seed.
func BenchmarkPreflight(b *testing.B) {
	const fleet = 10_000
	for _, seed := range lane.Seeds() {
		name, _, _ := strings.Cut(seed, "/")
		b.Run(name, func(b *testing.B) {
			r := newRig(b)
			hosts := make([]lane.Host, fleet)
			for n := range hosts {
				hosts[n] = fleetHost(n, name+"-1")
				hosts[n].Disk.WWN = fmt.Sprintf("0x5002538e%08x", n) // Agama finds no disk by its serial number alone
			}
			r.enrol(hosts...)
			for b.Loop() {
				p, err := r.Preflight(b.Context(), lane.Inspection{})
				r.must(err)
				if len(p.Hosts) != fleet || len(p.Hosts[0].Problems) > 0 {
					b.Fatalf("%d hosts: %v", len(p.Hosts), p.Hosts[0])
				}
			}
		})
	}
}
